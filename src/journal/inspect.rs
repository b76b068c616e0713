//! Looking at one segment file, record by record, with every checksum.
//!
//! For an operator and without the machine: it believes nothing, reads contents too, and says what it finds in words.

use std::fmt;

use crate::{
    Class, HEADER_PAGE, SegmentHeader,
    codec::Malformed,
    format::{Header, HeaderFault, META_CEILING, RECORD_HEADER, SegmentHeaderError, find_magic},
    record::{Extent, Payload},
};

/// The bytes of a segment file.
pub trait Image {
    /// Why bytes cannot be read.
    type Error;

    /// The length of the file.
    fn len(&self) -> u64;

    /// Whether there is not a byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads that many bytes, fewer where the file ends.
    ///
    /// # Errors
    /// [`Self::Error`].
    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, Self::Error>;
}

/// What stands at a place of a segment; its [`fmt::Display`] is a line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The header page.
    Header(Result<SegmentHeader, SegmentHeaderError>),
    /// A record.
    Record(Box<RecordFinding>),
    /// Bytes that are no record, up to the next one that is.
    Bad {
        /// Where they begin.
        offset: u64,
        /// Where the next record begins.
        until: u64,
    },
    /// The rest of the file was never used.
    Blank {
        /// Where it begins.
        offset: u64,
    },
    /// From here on there are only records of an earlier use of the file.
    Stale {
        /// Where they begin.
        offset: u64,
        /// The generation of the first.
        generation: u32,
    },
    /// From here on there is no record: a torn end, or damage.
    Garbage {
        /// Where it begins.
        offset: u64,
    },
}

/// A record as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFinding {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
    /// Its place in the log.
    pub sequence: u64,
    /// What was durable when it was made.
    pub synced_to: u64,
    /// The run that wrote it.
    pub epoch: u64,
    /// Its kind's number.
    pub kind: u8,
    /// What it says; nothing when its kind is not known.
    pub payload: Option<Result<Payload, Malformed>>,
    /// Octets of content in the record.
    pub content_len: u32,
    /// Whether the content has its checksum.
    pub content: ContentCheck,
}

/// Whether content is what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCheck {
    /// Its checksum is right.
    Good,
    /// It is not: torn or damaged.
    Bad,
}

/// What a segment holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records whose heads are whole.
    pub records: u64,
    /// Of these, messages.
    pub messages: u64,
    /// Bytes of records.
    pub bytes: u64,
    /// Places that are wrong: bad bytes, contents, payloads, an unreadable header page.
    pub bad: u64,
}

/// Goes through a segment and tells each finding to `tell`.
///
/// # Errors
/// What the image says when it cannot be read.
pub fn inspect<I: Image>(image: &mut I, mut tell: impl FnMut(&Finding)) -> Result<Summary, I::Error> {
    let mut summary = Summary::default();
    let header = SegmentHeader::decode(&image.read(0, HEADER_PAGE as usize)?);
    let generation = header.as_ref().ok().map(|header| header.generation);
    let number = header.as_ref().map_or(0, |header| header.number);
    summary.bad += u64::from(header.is_err());
    tell(&Finding::Header(header));
    let mut offset = HEADER_PAGE;
    while image.len().saturating_sub(offset) >= RECORD_HEADER as u64 {
        let generation_here = |header: &Header| generation.is_none_or(|known| header.generation == known);
        match look(image, offset)? {
            Ok((header, meta)) if generation_here(&header) => {
                let found = record(image, &header, &meta, number, offset)?;
                summary.records += 1;
                summary.bytes += header.len();
                summary.messages += u64::from(matches!(found.payload, Some(Ok(Payload::Message(_)))));
                let wrong = found.content == ContentCheck::Bad || matches!(found.payload, Some(Err(_)));
                summary.bad += u64::from(wrong);
                let ended = matches!(found.payload, Some(Ok(Payload::End)));
                offset += header.len();
                tell(&Finding::Record(Box::new(found)));
                if ended {
                    break;
                }
            }
            Ok((header, _)) => {
                tell(&Finding::Stale { offset, generation: header.generation });
                break;
            }
            Err(fault) => match next_record(image, offset + 8, generation)? {
                Some(until) => {
                    summary.bad += 1;
                    tell(&Finding::Bad { offset, until });
                    offset = until;
                }
                None if fault == HeaderFault::Blank => {
                    tell(&Finding::Blank { offset });
                    break;
                }
                None => {
                    summary.bad += 1;
                    tell(&Finding::Garbage { offset });
                    break;
                }
            },
        }
    }
    Ok(summary)
}

type Head = (Header, Vec<u8>);

/// The head of the record at a place, with its checksum right.
fn look<I: Image>(image: &mut I, offset: u64) -> Result<Result<Head, HeaderFault>, I::Error> {
    let header = match Header::decode(&image.read(offset, RECORD_HEADER)?) {
        Ok(header) => header,
        Err(fault) => return Ok(Err(fault)),
    };
    if header.meta_len > META_CEILING || header.len() > image.len() - offset {
        return Ok(Err(HeaderFault::Crc));
    }
    let head = image.read(offset, RECORD_HEADER + header.meta_len as usize)?;
    Ok(header.checked_meta(&head).map(|meta| (header, meta.to_vec())))
}

fn next_record<I: Image>(
    image: &mut I,
    mut offset: u64,
    generation: Option<u32>,
) -> Result<Option<u64>, I::Error> {
    while offset < image.len() {
        let window = image.read(offset, WINDOW)?;
        let Some(ahead) = find_magic(&window) else {
            offset += WINDOW as u64;
            continue;
        };
        offset += ahead as u64;
        if let Ok((header, _)) = look(image, offset)?
            && generation.is_none_or(|known| header.generation == known)
        {
            return Ok(Some(offset));
        }
        offset += 8;
    }
    Ok(None)
}

fn record<I: Image>(
    image: &mut I,
    header: &Header,
    meta: &[u8],
    segment: u32,
    offset: u64,
) -> Result<RecordFinding, I::Error> {
    let Extent { offset: mut at, len, crc, .. } = header.content_extent(segment, offset);
    let (end, mut found) = (at + u64::from(len), 0);
    while at < end {
        let bytes = image.read(at, (end - at).min(WINDOW as u64) as usize)?;
        if bytes.is_empty() {
            break;
        }
        found = crc32c::crc32c_append(found, &bytes);
        at += bytes.len() as u64;
    }
    let content = if found == crc && at == end { ContentCheck::Good } else { ContentCheck::Bad };
    Ok(RecordFinding {
        offset,
        len: header.len(),
        sequence: header.sequence,
        synced_to: header.synced_to,
        epoch: header.epoch,
        kind: header.kind,
        payload: Payload::decode(header, meta, segment, offset),
        content_len: header.content_len,
        content,
    })
}

const WINDOW: usize = 256 << 10;

impl Image for &[u8] {
    type Error = std::convert::Infallible;

    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>, Self::Error> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        Ok(rest[..rest.len().min(len)].to_vec())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(Ok(SegmentHeader { shard, number, generation, size, .. })) => {
                write!(f, "segment {number} of journal shard {shard}, generation {generation}, {size} bytes")
            }
            Self::Header(Err(error)) => write!(f, "BAD: {error}"),
            Self::Record(record) => record.fmt(f),
            Self::Bad { offset, until } => write!(f, "{offset:>12}  BAD: no record up to offset {until}"),
            Self::Blank { offset } => write!(f, "{offset:>12}  blank from here on"),
            Self::Stale { offset, generation } => {
                write!(f, "{offset:>12}  from here on an earlier use of the file, generation {generation}")
            }
            Self::Garbage { offset } => {
                write!(f, "{offset:>12}  BAD: no record from here on: a torn end, or damage")
            }
        }
    }
}

impl fmt::Display for RecordFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12}  #{:<10}  ", self.offset, self.sequence)?;
        match &self.payload {
            None => write!(f, "a record of kind {}, which is not known", self.kind)?,
            Some(Err(error)) => write!(f, "BAD: kind {}: {error}", self.kind)?,
            Some(Ok(payload)) => payload.fmt(f)?,
        }
        if self.content_len > 0 {
            write!(f, ", {} octets here", self.content_len)?;
        }
        match self.content {
            ContentCheck::Good => Ok(()),
            ContentCheck::Bad => f.write_str(", BAD: its checksum is wrong"),
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { class, next_number } => {
                let class = match class {
                    Class::Hot => "hot",
                    Class::Cold => "cold",
                };
                write!(f, "begin, {class}, next message number {next_number}")
            }
            Self::End => f.write_str("end"),
            Self::Message(message) => {
                let (envelope, parts) = (&message.envelope, message.content.len());
                let size: u64 = message.content.iter().map(|extent| u64::from(extent.len)).sum();
                write!(f, "message {} from {}", message.id, envelope.reverse_path)?;
                write!(f, " to {} recipients, {size} octets in {parts} parts", envelope.recipients.len())
            }
            Self::Chunk { draft } => write!(f, "chunk of draft {draft}"),
            Self::Transition { id, states } => {
                write!(f, "transition {id}")?;
                states.iter().try_for_each(|(index, state)| {
                    write!(f, " {index}:{:?} after {} attempts", state.phase, state.attempts)
                })
            }
            Self::Retired(id) => write!(f, "retired {id}"),
        }
    }
}
