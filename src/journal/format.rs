//! The bytes of a segment: its header page and the header of each record.
//!
//! ```text
//!  0          header page: magic, version, shard, number, generation, size, witness, CRC; zeros to 4096
//!  4096       record, record, record …   each at a multiple of 8
//!
//!  record     0 magic "RPr1" │ 4 CRC of 8..72 and meta │ 8 kind, 3 zeros │ 12 meta length │ 16 content length
//!            20 generation │ 24 content CRC │ 28 zero │ 32 sequence │ 40 synced_to │ 48 epoch │ 56 epoch_start │ 64 id
//!            72 meta │ content │ zeros to a multiple of 8
//! ```
//!
//! All numbers are little-endian, all CRCs are CRC32C. The record's stands in front: where a sector ends within a
//! header, no half of one record can then make a whole with the other half of another that was there before.

use bytes::{BufMut, Bytes, BytesMut};
use mail::JournalShard;

use crate::{codec::Reader, record::Extent};

/// The length of the header page that every segment begins with.
pub const HEADER_PAGE: u64 = 4096;
/// The length of a record's header.
pub const RECORD_HEADER: usize = 72;
/// What the offset of a record is a multiple of.
pub(crate) const ALIGN: u64 = 8;

/// No meta is longer, whatever the limits say: what recovery must be ready to read at once.
pub(crate) const META_CEILING: u32 = 16 << 20;

const SEGMENT_MAGIC: &[u8; 8] = b"RINGPOST";
/// Segments are written with this version; those of earlier ones are read, and used again.
pub const SEGMENT_VERSION: u16 = 4;
const SEGMENT_HEADER: usize = 72;
const RECORD_MAGIC: &[u8; 4] = b"RPr1";
const RECORD_CRC_AT: usize = 4;
const RECORD_FIELDS_AT: usize = 8;

/// What the header page of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The journal shard it belongs to.
    pub shard: JournalShard,
    /// Its number within the shard: the name of its file.
    pub number: u32,
    /// Which use of the file this is; never the same twice within a shard.
    pub generation: u32,
    /// The length of the file.
    pub size: u64,
    /// What the log was like when the page was written.
    pub witness: Witness,
}

/// What the log was like at some time. Writing a header page wipes out the records that told it, so the page tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// Everything before this place was durable.
    pub synced_to: u64,
    /// The run of the machine.
    pub epoch: u64,
    /// Where that run began.
    pub epoch_start: u64,
    /// No message had this number or a higher one.
    pub next_number: u64,
}

/// Why bytes are not a segment's header page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentHeaderError {
    /// Nothing but zeros: the file was never finished.
    #[error("the header page is blank")]
    Blank,
    /// Not ours, cut short or changed.
    #[error("the header page is damaged")]
    Damaged,
    /// Written by a later version of the program.
    #[error("format version {0} is not known")]
    Version(u16),
}

impl SegmentHeader {
    /// The whole header page.
    pub fn encode(&self) -> Bytes {
        let mut page = BytesMut::with_capacity(HEADER_PAGE as usize);
        page.put_slice(SEGMENT_MAGIC);
        page.put_u16_le(SEGMENT_VERSION);
        page.put_u16_le(self.shard.0);
        page.put_u32_le(self.number);
        page.put_u32_le(self.generation);
        page.put_u32_le(0);
        page.put_u64_le(self.size);
        let Witness { synced_to, epoch, epoch_start, next_number } = self.witness;
        for field in [synced_to, epoch, epoch_start, next_number] {
            page.put_u64_le(field);
        }
        page.put_u32_le(0);
        let crc = crc32c::crc32c(&page);
        page.put_u32_le(crc);
        debug_assert_eq!(page.len(), SEGMENT_HEADER);
        page.resize(HEADER_PAGE as usize, 0);
        page.freeze()
    }

    /// Reads a header page.
    ///
    /// # Errors
    /// [`SegmentHeaderError`] says what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentHeaderError> {
        use SegmentHeaderError::{Blank, Damaged, Version};
        let bytes = bytes.get(..SEGMENT_HEADER).ok_or(Damaged)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(Blank);
        }
        let (fields, crc) = bytes.split_at(SEGMENT_HEADER - 4);
        if !fields.starts_with(SEGMENT_MAGIC) || crc32c::crc32c(fields).to_le_bytes() != crc {
            return Err(Damaged);
        }
        let mut reader = Reader::new(&fields[SEGMENT_MAGIC.len()..]);
        let version = reader.u16().map_err(|_| Damaged)?;
        if !(1..=SEGMENT_VERSION).contains(&version) {
            return Err(Version(version));
        }
        let mut read = || -> Result<Self, crate::Malformed> {
            let (shard, number, generation) = (JournalShard(reader.u16()?), reader.u32()?, reader.u32()?);
            reader.u32()?;
            let size = reader.u64()?;
            let witness = Witness {
                synced_to: reader.u64()?,
                epoch: reader.u64()?,
                epoch_start: reader.u64()?,
                next_number: reader.u64()?,
            };
            Ok(Self { shard, number, generation, size, witness })
        };
        read().map_err(|_| Damaged)
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u8,
    pub(crate) meta_len: u32,
    pub(crate) content_len: u32,
    pub(crate) generation: u32,
    pub(crate) content_crc: u32,
    /// The record's place in the log; the next record's is one more.
    pub(crate) sequence: u64,
    /// Everything before this place was durable when the record was made.
    pub(crate) synced_to: u64,
    /// Which run of the machine wrote it.
    pub(crate) epoch: u64,
    /// Where that run began: what older epochs wrote from there on does not count.
    pub(crate) epoch_start: u64,
    pub(crate) id: u64,
    crc: u32,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// Zeros: nothing was ever written here.
    Blank,
    /// No magic.
    Magic,
    /// Fewer bytes than it says it has.
    Short,
    /// The checksum of header and meta is wrong.
    Crc,
}

impl Header {
    pub(crate) const fn new(
        kind: u8,
        generation: u32,
        sequence: u64,
        synced_to: u64,
        epoch: u64,
        epoch_start: u64,
        id: u64,
    ) -> Self {
        Self {
            kind,
            meta_len: 0,
            content_len: 0,
            generation,
            content_crc: 0,
            sequence,
            synced_to,
            epoch,
            epoch_start,
            id,
            crc: 0,
        }
    }

    /// Writes the header over the first bytes of `head`, which holds the meta behind them.
    pub(crate) fn encode_before(&mut self, head: &mut [u8]) {
        self.meta_len = (head.len() - RECORD_HEADER) as u32;
        let mut out = &mut head[..RECORD_HEADER];
        out.put_slice(RECORD_MAGIC);
        out.put_u32_le(0);
        out.put_u32_le(u32::from(self.kind));
        out.put_u32_le(self.meta_len);
        out.put_u32_le(self.content_len);
        out.put_u32_le(self.generation);
        out.put_u32_le(self.content_crc);
        out.put_u32_le(0);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.synced_to);
        out.put_u64_le(self.epoch);
        out.put_u64_le(self.epoch_start);
        out.put_u64_le(self.id);
        self.crc = head_crc(head);
        head[RECORD_CRC_AT..RECORD_FIELDS_AT].copy_from_slice(&self.crc.to_le_bytes());
    }

    /// Reads the fields; whether they are true only [`Self::checked_meta`] tells.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let bytes = bytes.get(..RECORD_HEADER).ok_or(HeaderFault::Short)?;
        if !bytes.starts_with(RECORD_MAGIC) {
            let blank = bytes.iter().all(|byte| *byte == 0);
            return Err(if blank { HeaderFault::Blank } else { HeaderFault::Magic });
        }
        let mut reader = Reader::new(&bytes[RECORD_MAGIC.len()..]);
        let mut read = || -> Result<Self, crate::Malformed> {
            let (crc, kind) = (reader.u32()?, reader.u32()? as u8);
            let (meta_len, content_len) = (reader.u32()?, reader.u32()?);
            let (generation, content_crc) = (reader.u32()?, reader.u32()?);
            reader.u32()?;
            Ok(Self {
                kind,
                meta_len,
                content_len,
                generation,
                content_crc,
                sequence: reader.u64()?,
                synced_to: reader.u64()?,
                epoch: reader.u64()?,
                epoch_start: reader.u64()?,
                id: reader.u64()?,
                crc,
            })
        };
        read().map_err(|_| HeaderFault::Short)
    }

    /// The meta behind the header in `bytes`, when both have their checksum.
    pub(crate) fn checked_meta<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], HeaderFault> {
        let head = bytes.get(..RECORD_HEADER + self.meta_len as usize).ok_or(HeaderFault::Short)?;
        if head_crc(head) == self.crc { Ok(&head[RECORD_HEADER..]) } else { Err(HeaderFault::Crc) }
    }

    /// The length of the whole record with the zeros behind it.
    pub(crate) fn len(&self) -> u64 {
        record_len(u64::from(self.meta_len), u64::from(self.content_len))
    }

    /// Where the content of the record at `offset` lies.
    pub(crate) fn content_extent(&self, segment: u32, offset: u64) -> Extent {
        Extent {
            segment,
            generation: self.generation,
            offset: offset.saturating_add(RECORD_HEADER as u64 + u64::from(self.meta_len)),
            len: self.content_len,
            crc: self.content_crc,
        }
    }
}

/// The length of a record with its zeros.
pub(crate) const fn record_len(meta_len: u64, content_len: u64) -> u64 {
    (RECORD_HEADER as u64 + meta_len + content_len).next_multiple_of(ALIGN)
}

/// Where magic stands next in `bytes` at a multiple of [`ALIGN`].
pub(crate) fn find_magic(bytes: &[u8]) -> Option<usize> {
    let at = |i: &usize| bytes[*i..].starts_with(RECORD_MAGIC);
    (0..bytes.len()).step_by(ALIGN as usize).find(at)
}

fn head_crc(head: &[u8]) -> u32 {
    crc32c::crc32c(&head[RECORD_FIELDS_AT..])
}
