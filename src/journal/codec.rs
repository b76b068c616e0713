//! Little-endian numbers and counted text, written and read within bounds.

use bytes::{BufMut, BytesMut};

/// Bytes that passed their checksum and still are not what their kind promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes do not decode: {0}")]
pub struct Malformed(pub &'static str);

/// Takes fields from the front of a slice.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (field, rest) = self.0.split_at_checked(len).ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(field)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let len = self.u16()?;
        std::str::from_utf8(self.take(usize::from(len))?).map_err(|_| Malformed("text is not UTF-8"))
    }

    /// How many items follow. Each takes at least `item_min` bytes, so a count that cannot be true reserves nothing.
    pub(crate) fn count(&mut self, item_min: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        if count > self.0.len() / item_min { Err(Malformed("count exceeds the bytes")) } else { Ok(count) }
    }

    pub(crate) const fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes left over")) }
    }
}

/// Appends text with its length, cut to what a length can say at a character's boundary.
pub(crate) fn put_text(buffer: &mut BytesMut, text: &str, len_max: usize) {
    let text = &text[..text.floor_char_boundary(len_max.min(usize::from(u16::MAX)))];
    buffer.put_u16_le(text.len() as u16);
    buffer.put_slice(text.as_bytes());
}
