//! The end of the log: what was not known to be durable is read whole, up to the first record that is missing or wrong.

use std::mem;

use super::{Pending, Read, Recovery, Scanned, Stage, Step};
use crate::record::Extent;

/// The proof of the last records, content by content.
#[derive(Debug)]
pub(super) struct Tail {
    records: Vec<Record>,
    next: usize,
    /// Of the content of `records[next]`.
    checked: u32,
    crc: u32,
    /// The sequence that the next record must have.
    end: u64,
    want: Option<Read>,
}

#[derive(Debug)]
struct Record {
    segment: usize,
    offset: u64,
    sequence: u64,
    content: Extent,
}

const CONTENT_READ: u32 = 1 << 20;

impl Recovery {
    /// The last segments are read: what older runs left is settled, what the last one left is proved.
    pub(super) fn begin_tail(&mut self) {
        self.durable = self.epochs.durable();
        let newest = self.epochs.newest();
        let mut tail = Vec::new();
        for (epoch, records) in mem::take(&mut self.pending) {
            let void_from = self.epochs.start_of_next(epoch);
            for (sequence, record) in records {
                if void_from.is_some_and(|from| sequence >= from) {
                    self.discard(record.segment, record.offset);
                } else if newest == Some(epoch) && sequence >= self.durable {
                    tail.push(Record::new(sequence, &record, &self.segments));
                }
            }
        }
        self.continue_tail(Tail::new(tail, self.durable));
    }

    pub(super) fn continue_tail(&mut self, tail: Tail) {
        if let Step::Read(read) = tail.step() {
            (self.want, self.phase) = (Some(read), Stage::Tail(tail));
            return;
        }
        let Tail { records, next, end, .. } = tail;
        (self.end, self.phase) = (end, Stage::Done);
        for record in &records[..next] {
            self.segments[record.segment].in_tail = true;
        }
        for record in &records[next..] {
            self.discard(record.segment, record.offset);
        }
    }

    fn discard(&mut self, segment: usize, offset: u64) {
        self.report.discarded += 1;
        let scanned = &mut self.segments[segment];
        scanned.void = Some(scanned.void.map_or(offset, |void| void.min(offset)));
    }
}

impl Tail {
    fn new(records: Vec<Record>, end: u64) -> Self {
        let mut tail = Self { records, next: 0, checked: 0, crc: 0, end, want: None };
        tail.advance();
        tail
    }

    fn step(&self) -> Step {
        self.want.map_or(Step::Done, Step::Read)
    }

    pub(super) fn on_read(&mut self, bytes: &[u8], read: &Read) {
        self.want = None;
        if bytes.len() < read.len {
            return; // The log ends before this record.
        }
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.checked += bytes.len() as u32;
        self.advance();
    }

    /// Takes records as long as nothing has to be read for them.
    fn advance(&mut self) {
        while let Some(record) = self.records.get(self.next).filter(|record| record.sequence == self.end) {
            let left = record.content.len - self.checked;
            if left > 0 {
                let offset = record.content.offset + u64::from(self.checked);
                let len = left.min(CONTENT_READ) as usize;
                self.want = Some(Read { segment: record.content.segment, offset, len });
                return;
            }
            if self.crc != record.content.crc {
                return;
            }
            self.end += 1;
            (self.next, self.checked, self.crc) = (self.next + 1, 0, 0);
        }
    }
}

impl Record {
    fn new(sequence: u64, pending: &Pending, segments: &[Scanned]) -> Self {
        let Pending { segment, offset, header } = pending;
        let content = header.content_extent(segments[*segment].number, *offset);
        Self { segment: *segment, offset: *offset, sequence, content }
    }
}
