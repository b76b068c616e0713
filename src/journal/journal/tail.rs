//! The end of the log: records written behind one another, segments begun and sealed.

use std::mem;

use bytes::{BufMut, Bytes, BytesMut};

use super::{AppendError, END_LEN, Journal, Write, append::content_len};
use crate::{
    Class, HEADER_PAGE,
    format::{Header, META_CEILING, RECORD_HEADER, record_len},
    record::{Kind, encode_begin},
    segments::Purpose,
};

static ZEROS: [u8; 8] = [0; 8];

/// An active segment, and what waits to be written to it.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) segment: u32,
    pub(super) generation: u32,
    pub(super) size: u64,
    pub(super) offset: u64,
    /// Nothing more goes into the segment, which may even be in use elsewhere by now.
    pub(super) sealed: bool,
    /// Complete writes to this and, before it, to segments just sealed.
    pub(super) writes: Vec<Write>,
    /// Headers and metas that are not yet a slice of the last write.
    pub(super) run: BytesMut,
}

impl Tail {
    /// How long the next record may be.
    pub(super) const fn room(&self) -> u64 {
        if self.sealed { 0 } else { self.size.saturating_sub(self.offset + END_LEN) }
    }

    /// Makes sure that the last write goes on at the tail's offset.
    fn begin_write(&mut self) {
        let goes_on = self.writes.last().is_some_and(|write| {
            write.segment == self.segment && write.offset + write.len + self.run.len() as u64 == self.offset
        });
        if !goes_on {
            let write = Write { segment: self.segment, offset: self.offset, slices: Vec::new(), len: 0 };
            self.writes.push(write);
        }
    }

    pub(super) fn flush_run(&mut self) {
        if self.run.is_empty() {
            return;
        }
        let run = self.run.split().freeze();
        let write = self.writes.last_mut().expect("a run belongs to a write");
        write.len += run.len() as u64;
        write.slices.push(run);
    }
}

impl Journal {
    /// Appends a record with `scratch` as its meta. Answers its segment, its offset and its content's checksum.
    pub(super) fn put(
        &mut self,
        class: Class,
        kind: Kind,
        id: u64,
        content: &[Bytes],
        purpose: Purpose,
    ) -> Result<(u32, u64, u32), AppendError> {
        if self.failure.is_some() {
            return Err(AppendError::Failed);
        }
        if purpose == Purpose::Mail && self.gathered >= self.limits.gathered_max {
            return Err(AppendError::NotReady);
        }
        let len = record_len(self.scratch.len() as u64, content_len(content));
        if self.scratch.len() > self.limits.meta_max.min(META_CEILING) as usize || len > self.capacity() {
            return Err(AppendError::TooLarge);
        }
        self.make_room(class, len, purpose)?;
        let meta = mem::take(&mut self.scratch);
        let place = self.write(class, kind, id, &meta, content);
        self.scratch = meta;
        Ok(place)
    }

    fn make_room(&mut self, class: Class, len: u64, purpose: Purpose) -> Result<(), AppendError> {
        let full = match &self.tails[class as usize] {
            Some(tail) if tail.room() >= len => return Ok(()),
            Some(tail) if !tail.sealed => Some(tail.segment),
            Some(_) | None => None,
        };
        self.segments.may_open(purpose)?;
        if let Some(full) = full {
            self.seal(class, full);
        }
        let segment = self.segments.open(class, self.sequence, purpose)?;
        let known = self.segments.get(segment).expect("just opened");
        let (generation, size) = (known.generation, known.size);
        let (writes, run) =
            self.tails[class as usize].take().map_or_else(Default::default, |tail| (tail.writes, tail.run));
        let tail = Tail { segment, generation, size, offset: HEADER_PAGE, sealed: false, writes, run };
        self.tails[class as usize] = Some(tail);
        let mut meta = BytesMut::new();
        encode_begin(&mut meta, class, self.next_number);
        self.write(class, Kind::Begin, 0, &meta, &[]);
        Ok(())
    }

    pub(super) fn seal(&mut self, class: Class, segment: u32) {
        self.write(class, Kind::End, 0, &[], &[]);
        // The tail stays until another takes its place: it still holds what is to be written.
        let tail = self.tails[class as usize].as_mut().expect("there is something to seal");
        tail.flush_run();
        self.segments.seal(segment, self.sequence, tail.size.saturating_sub(tail.offset));
        tail.sealed = true;
    }

    fn write(
        &mut self,
        class: Class,
        kind: Kind,
        id: u64,
        meta: &[u8],
        content: &[Bytes],
    ) -> (u32, u64, u32) {
        let tail = self.tails[class as usize].as_mut().expect("room was made");
        let offset = tail.offset;
        let mut header = Header::new(
            kind.number(),
            tail.generation,
            self.sequence,
            self.durable,
            self.epoch,
            self.epoch_start,
            id,
        );
        header.content_len = content_len(content) as u32;
        header.content_crc = content.iter().fold(0, |crc, slice| crc32c::crc32c_append(crc, slice));
        tail.begin_write();
        let start = tail.run.len();
        tail.run.reserve(RECORD_HEADER + meta.len());
        tail.run.put_bytes(0, RECORD_HEADER);
        tail.run.put_slice(meta);
        header.encode_before(&mut tail.run[start..]);
        if header.content_len > 0 {
            tail.flush_run();
            let write = tail.writes.last_mut().expect("begun above");
            write.slices.extend(content.iter().filter(|slice| !slice.is_empty()).cloned());
            write.len += u64::from(header.content_len);
        }
        let len = header.len();
        let bytes = RECORD_HEADER as u64 + meta.len() as u64 + u64::from(header.content_len);
        tail.run.put_slice(&ZEROS[..(len - bytes) as usize]);
        tail.offset += len;
        assert!(tail.offset <= tail.size, "a {kind:?} record was written beyond its segment");
        (self.stamp, self.sequence) = (self.durable, self.sequence + 1);
        self.gathered += len;
        self.needs_sync |= kind.needs_sync();
        (tail.segment, offset, header.content_crc)
    }
}
