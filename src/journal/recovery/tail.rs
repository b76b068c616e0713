//! The end of the log: what was not known to be durable is read whole, up to the first record that is missing or wrong.

use std::mem;

use super::{CONTENT_READ, Pending, Read, Recovery, Stage, Verify};

impl Recovery {
    /// All heads are read: what older runs left is settled, the tail of the last one is to be verified.
    pub(super) fn begin_verify(&mut self) {
        let mut epochs = mem::take(&mut self.epochs);
        let starts: Vec<u64> = epochs.values().map(|epoch| epoch.start).collect();
        let mut tail = Vec::new();
        for (i, epoch) in epochs.values_mut().enumerate() {
            let pending = mem::take(&mut epoch.pending).into_values();
            if let Some(next_start) = starts.get(i + 1) {
                for record in pending {
                    if record.header.sequence < *next_start {
                        self.apply(record);
                    } else {
                        self.discard(&record);
                    }
                }
            } else {
                self.end = self.end.max(epoch.start).max(epoch.synced_to);
                for record in pending {
                    if record.header.sequence < self.end {
                        self.apply(record);
                    } else {
                        tail.push(record);
                    }
                }
            }
        }
        (self.epochs, self.durable) = (epochs, self.end);
        self.continue_verify(Verify { tail, next: 0, checked: 0, crc: 0 });
    }

    fn continue_verify(&mut self, mut verify: Verify) {
        while let Some(record) = verify.tail.get(verify.next) {
            if record.header.sequence != self.end {
                return self.cut(verify);
            }
            let left = record.header.content_len - verify.checked;
            if left > 0 {
                let scanned = &self.segments[record.segment];
                let content = record.header.content_extent(scanned.number, record.offset);
                let offset = content.offset + u64::from(verify.checked);
                let len = left.min(CONTENT_READ) as usize;
                self.want = Some(Read { segment: scanned.number, offset, len });
                self.phase = Stage::Verify(verify);
                return;
            }
            if verify.crc != record.header.content_crc {
                return self.cut(verify);
            }
            self.end += 1;
            self.segments[record.segment].in_tail = true;
            (verify.next, verify.checked, verify.crc) = (verify.next + 1, 0, 0);
        }
        self.cut(verify);
    }

    pub(super) fn on_content(&mut self, mut verify: Verify, bytes: &[u8], read: Read) {
        if bytes.len() < read.len {
            return self.cut(verify);
        }
        let bytes = &bytes[..read.len];
        verify.crc = crc32c::crc32c_append(verify.crc, bytes);
        verify.checked += bytes.len() as u32;
        self.continue_verify(verify);
    }

    /// The log ends before the next record of the tail.
    fn cut(&mut self, mut verify: Verify) {
        let lost = verify.tail.split_off(verify.next);
        for record in verify.tail {
            self.apply(record);
        }
        for record in &lost {
            self.discard(record);
        }
        self.phase = Stage::Done;
    }

    fn discard(&mut self, record: &Pending) {
        self.report.discarded += 1;
        let scanned = &mut self.segments[record.segment];
        scanned.void = Some(scanned.void.map_or(record.offset, |void| void.min(record.offset)));
    }
}
