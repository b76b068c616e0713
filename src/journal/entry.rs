//! A live message as recovery yields it and the index keeps it; and the checkpoint that dates such entries.

use bytes::{BufMut, Bytes, BytesMut};
use mail::{Handling, Timestamp};

use crate::{
    Class, Position,
    codec::{Malformed, Reader},
    record::{
        Extent, RecipientState, decode_extents, decode_states, encode_states, put_extent, put_handling,
        take_handling,
    },
};

/// A live message: where it lies, how its recipients stand, and what the queue wants to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub placement: Placement,
    /// States that differ from the first, by place in the envelope, in order of place.
    pub states: Vec<(u32, RecipientState)>,
    /// What the queue wants to know without reading the record.
    pub facts: Facts,
}

/// What the queue wants to know of a message before it reads its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When the last byte arrived.
    pub received_at: Timestamp,
    /// Octets of content.
    pub size: u64,
    /// Whether it may be reported on.
    pub return_path: ReturnPath,
    /// The recipients' domains in the order of the envelope, with a line feed between two.
    pub domains: Box<str>,
    /// What was asked for it as a whole.
    pub handling: Handling,
}

/// What kind of reverse-path a message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnPath {
    /// `<>`: nothing may be sent back to it (RFC 5321 §4.5.5).
    Null,
    /// A full address.
    Address,
}

/// Where everything lies that keeps a message alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The segment of its record.
    pub segment: SegmentRef,
    /// Where its record begins.
    pub offset: u64,
    /// The length of its record's meta.
    pub meta_len: u32,
    /// The length of the content within its record.
    pub inline_len: u32,
    /// How many recipients its envelope names.
    pub recipients: u32,
    /// Content that lies in chunks, before that in the record.
    pub extents: Box<[Extent]>,
    /// Segments with transitions that still count.
    pub transitions: Box<[SegmentRef]>,
}

/// One use of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentRef {
    /// The segment's number.
    pub number: u32,
    /// Which use of it; another generation there now means that what is meant is gone.
    pub generation: u32,
}

/// A place in the log up to which a set of [`Entry`]s tells everything.
///
/// Recovery reads on from here. Older is as good as newer, it only takes longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// What lies before is told by the entries.
    pub position: Position,
    /// The run of the machine that made it.
    pub epoch: u64,
    /// The next message number.
    pub next_number: u64,
    /// The next generation.
    pub next_generation: u32,
    /// How far the open segments had come.
    pub cursors: Vec<Cursor>,
}

/// How far an open segment had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The segment.
    pub segment: SegmentRef,
    /// Its class.
    pub class: Class,
    /// Where the next record goes.
    pub offset: u64,
}

// Flags of an entry.
const ADDRESS: u8 = 1;
const HANDLING: u8 = 2;

impl Entry {
    /// As bytes for the index.
    pub fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(128);
        let Placement { segment, offset, meta_len, inline_len, recipients, extents, transitions } =
            &self.placement;
        put_segment(&mut buffer, *segment);
        buffer.put_u64_le(*offset);
        buffer.put_u32_le(*meta_len);
        buffer.put_u32_le(*inline_len);
        buffer.put_u32_le(*recipients);
        buffer.put_u32_le(extents.len() as u32);
        extents.iter().for_each(|extent| put_extent(&mut buffer, extent));
        buffer.put_u32_le(transitions.len() as u32);
        transitions.iter().for_each(|segment| put_segment(&mut buffer, *segment));
        buffer.put_u64_le(self.facts.received_at.0);
        buffer.put_u64_le(self.facts.size);
        let handling = if self.facts.handling == Handling::default() { 0 } else { HANDLING };
        let address = match self.facts.return_path {
            ReturnPath::Null => 0,
            ReturnPath::Address => ADDRESS,
        };
        buffer.put_u8(address | handling);
        put_handling(&mut buffer, &self.facts.handling);
        buffer.put_u32_le(self.facts.domains.len() as u32);
        buffer.put_slice(self.facts.domains.as_bytes());
        encode_states(&mut buffer, &self.states);
        buffer.freeze()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`Malformed`] when it did not write that.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let placement = Placement {
            segment: take_segment(&mut reader)?,
            offset: reader.u64()?,
            meta_len: reader.u32()?,
            inline_len: reader.u32()?,
            recipients: reader.u32()?,
            extents: decode_extents(&mut reader)?.into(),
            transitions: {
                let count = reader.count(8)?;
                (0..count).map(|_| take_segment(&mut reader)).collect::<Result<_, _>>()?
            },
        };
        let (received_at, size) = (Timestamp(reader.u64()?), reader.u64()?);
        let flags = reader.u8()?;
        if flags & !(ADDRESS | HANDLING) != 0 {
            return Err(Malformed("unknown flags"));
        }
        let return_path = if flags & ADDRESS == 0 { ReturnPath::Null } else { ReturnPath::Address };
        let handling = if flags & HANDLING == 0 { Handling::default() } else { take_handling(&mut reader)? };
        let len = reader.count(1)?;
        let domains = std::str::from_utf8(reader.take(len)?).map_err(|_| Malformed("text is not UTF-8"))?;
        let facts = Facts { received_at, size, return_path, domains: domains.into(), handling };
        let states = decode_states(&mut reader)?;
        reader.end()?;
        Ok(Self { placement, states, facts })
    }
}

impl Entry {
    /// Reads no more than where the record lies: the segment, and the offset in it.
    ///
    /// # Errors
    /// [`Malformed`] when [`Self::encode`] did not write that.
    pub fn decode_place(bytes: &[u8]) -> Result<(SegmentRef, u64), Malformed> {
        let mut reader = Reader::new(bytes);
        Ok((take_segment(&mut reader)?, reader.u64()?))
    }
}

impl Facts {
    /// The recipients' domains, in the order of the envelope.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.split('\n')
    }
}

impl Checkpoint {
    /// As bytes for the index.
    pub fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(64);
        buffer.put_u64_le(self.position.0);
        buffer.put_u64_le(self.epoch);
        buffer.put_u64_le(self.next_number);
        buffer.put_u32_le(self.next_generation);
        buffer.put_u32_le(self.cursors.len() as u32);
        for cursor in &self.cursors {
            put_segment(&mut buffer, cursor.segment);
            buffer.put_u8(cursor.class.number());
            buffer.put_u64_le(cursor.offset);
        }
        buffer.freeze()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// [`Malformed`] when it did not write that.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let (position, epoch) = (Position(reader.u64()?), reader.u64()?);
        let (next_number, next_generation) = (reader.u64()?, reader.u32()?);
        let count = reader.count(17)?;
        let cursors = (0..count).map(|_| take_cursor(&mut reader)).collect::<Result<_, _>>()?;
        reader.end()?;
        Ok(Self { position, epoch, next_number, next_generation, cursors })
    }
}

fn take_cursor(reader: &mut Reader<'_>) -> Result<Cursor, Malformed> {
    let segment = take_segment(reader)?;
    let class = Class::from_number(reader.u8()?).ok_or(Malformed("unknown class"))?;
    Ok(Cursor { segment, class, offset: reader.u64()? })
}

fn put_segment(buffer: &mut BytesMut, segment: SegmentRef) {
    buffer.put_u32_le(segment.number);
    buffer.put_u32_le(segment.generation);
}

fn take_segment(reader: &mut Reader<'_>) -> Result<SegmentRef, Malformed> {
    Ok(SegmentRef { number: reader.u32()?, generation: reader.u32()? })
}
