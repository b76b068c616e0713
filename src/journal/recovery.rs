//! Reading the log back, in two parts: where it ends, and then what lives in it.
//!
//! ```text
//!   Recovery   header pages ──▶ heads of the last segments ──▶ contents behind synced_to ──▶ Opened: the log goes on
//!   Older      heads of the rest, or of what is behind a checkpoint ──▶ entries of the index ──▶ into the journal
//! ```
//!
//! The first part is short however long the log is, needs no index, and tells all that must be known before a record is
//! appended: what came last, which numbers and generations are taken, which segments must not be written to. The second
//! is done beside new mail. Until it is done every segment that was used counts as needed.
//!
//! Records may be met in any order: for everything the highest sequence counts, and a retired message stays retired.
//! Where the log ends follows from three numbers in each record. `synced_to` says what was durable when the record was made; what
//! lies before needs no proof. `epoch` and `epoch_start` say which run wrote it and where that run began: what an
//! older run wrote from there on was thrown away by a recovery before this one, and is thrown away again. Of the last
//! run, the records behind the last `synced_to` are taken in the order of their sequence as long as none is missing
//! or damaged.

mod epochs;
mod found;
mod older;
mod segment;
mod tail;
mod walk;

use std::{collections::BTreeMap, mem};

use mail::{JournalShard, QueueId, Timestamp};

use crate::{
    Checkpoint, Entry, Journal, Limits, codec::Malformed, format::Header, journal::Opening, record::Kind,
    segments::Segments,
};

use epochs::Epochs;
use segment::{FIRST_READ, Fate, Scanned};
use tail::Tail;
use walk::Walk;

pub use older::{Indexed, Older, Restored};

/// A segment file in the journal shard's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its number.
    pub number: u32,
    /// How long it is.
    pub len: u64,
}

/// Where the reading of what lives begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// With the oldest segment: needs nothing but the segments.
    Beginning,
    /// At a checkpoint; its entries follow by [`Older::check`] and [`Older::restore`].
    Checkpoint(Checkpoint),
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Read this, then call `on_read`.
    Read(Read),
    /// This part of the reading is done.
    Done,
}

/// A run of bytes to read. Fewer are fine where the file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// The segment.
    pub segment: u32,
    /// Where to begin.
    pub offset: u64,
    /// How many.
    pub len: usize,
}

/// The log goes on, and what lives in it is still to be found.
#[derive(Debug)]
pub struct Opened {
    /// Ready to append. It knows no message yet, and uses no segment again.
    pub journal: Journal,
    /// Reads what lives, and puts it into the journal.
    pub older: Older,
}

/// All that was found, for whoever waits until it is.
#[derive(Debug)]
pub struct Recovered {
    /// Ready to append.
    pub journal: Journal,
    /// The live messages in order of their ids.
    pub entries: Vec<(QueueId, Entry)>,
    /// What was read, and what was wrong.
    pub report: Report,
}

/// What was read, and what was wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segment files.
    pub segments: usize,
    /// Records read while looking for what lives.
    pub records: u64,
    /// Records behind the end of the log, which were never acknowledged.
    pub discarded: u64,
    /// Copies of messages that a later copy replaces.
    pub superseded: u64,
    /// Where the log was torn: what a crash leaves, and no loss.
    pub torn: Vec<Torn>,
    /// What is damaged within the log: something may be lost. At most a thousand are listed.
    pub bad: Vec<Bad>,
    /// How many are damaged.
    pub bad_count: u64,
}

/// A place where writing was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub segment: u32,
    /// Where the first record begins that does not count.
    pub offset: u64,
}

/// A damaged place within the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    /// The segment.
    pub segment: u32,
    /// Where it begins.
    pub offset: u64,
    /// What is wrong there.
    pub damage: Damage,
}

/// What is wrong with a place within the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The header page.
    #[error("the header page is damaged")]
    SegmentHeader,
    /// Bytes that are no record, up to the next one that is.
    #[error("no record can be read from here to offset {0}")]
    Gap(u64),
    /// No record is to be found from here on, though the segment was filled further.
    #[error("no record can be read from here to the end of the segment")]
    Rest,
    /// The checksum is right and the meaning is not.
    #[error("{0}")]
    Malformed(Malformed),
    /// Written by a later version. The segment is kept.
    #[error("records of kind {0} are not known; the segment is kept")]
    UnknownKind(u8),
    /// A message's content lay in a segment that is gone.
    #[error("the content of message {0} is gone")]
    ContentLost(QueueId),
}

/// Why the journal cannot be opened at all, or not from this checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// A later version wrote the segment.
    #[error("segment {segment} has format version {version}, which this program does not know")]
    Version {
        /// The segment.
        segment: u32,
        /// Its version.
        version: u16,
    },
    /// The checkpoint or its entries are from another log, or were stored before they were durable. Begin from
    /// [`Start::Beginning`].
    #[error("the checkpoint tells of a record that is not in the log")]
    Checkpoint,
    /// The file belongs somewhere else.
    #[error("file {segment} is segment {number} of journal shard {shard}")]
    Foreign {
        /// The segment that its name says.
        segment: u32,
        /// The segment that its header page says.
        number: u32,
        /// The journal shard that its header page says.
        shard: JournalShard,
    },
}

/// The machine that finds the end of a journal shard's log.
#[derive(Debug)]
pub struct Recovery {
    shard: JournalShard,
    limits: Limits,
    now: Timestamp,
    segments: Vec<Scanned>,
    phase: Stage,
    want: Option<Read>,
    epochs: Epochs,
    /// Records that may not count, of each run by sequence.
    pending: BTreeMap<u64, BTreeMap<u64, Pending>>,
    next_number: u64,
    next_generation: u32,
    durable: u64,
    end: u64,
    report: Report,
    error: Option<RecoveryError>,
}

#[derive(Debug)]
enum Stage {
    Headers(usize),
    Walk(Walk),
    Tail(Tail),
    Done,
}

/// A record that may not count.
#[derive(Debug)]
struct Pending {
    segment: usize,
    offset: u64,
    header: Header,
}

const BAD_MAX: usize = 1000;

impl Recovery {
    /// Begins with the files of the journal shard's directory. Sync the directory before you list it: an unlink that
    /// was not yet durable must not be undone by a power loss later on. `now` must be later than at the recovery before, or else it is made so.
    pub fn new(shard: JournalShard, limits: Limits, now: Timestamp, files: Vec<SegmentFile>) -> Self {
        let segments: Vec<_> = files.into_iter().map(Scanned::new).collect();
        let report = Report { segments: segments.len(), ..Report::default() };
        let mut recovery = Self {
            shard,
            limits,
            now,
            segments,
            phase: Stage::Headers(0),
            want: None,
            epochs: Epochs::default(),
            pending: BTreeMap::new(),
            next_number: 0,
            next_generation: 1,
            durable: 0,
            end: 0,
            report,
            error: None,
        };
        recovery.want_header(0);
        recovery
    }

    /// What to do next; the same until it is done.
    pub fn step(&self) -> Step {
        self.want.map_or(Step::Done, Step::Read)
    }

    /// The bytes that [`Step::Read`] asked for. None at all tells that they cannot be read.
    pub fn on_read(&mut self, bytes: &[u8]) {
        let read = self.want.take().expect("a read was asked for");
        let bytes = &bytes[..bytes.len().min(read.len)];
        match mem::replace(&mut self.phase, Stage::Done) {
            Stage::Headers(at) => self.on_header(at, bytes),
            Stage::Walk(walk) => self.on_window(walk, bytes),
            Stage::Tail(mut tail) => {
                tail.on_read(bytes, &read);
                self.continue_tail(tail);
            }
            Stage::Done => unreachable!("nothing was asked for"),
        }
    }

    /// Makes the journal that goes on from here.
    ///
    /// # Errors
    /// [`RecoveryError`] when the files are not of this journal shard or not of this version.
    pub fn finish(mut self) -> Result<Opened, RecoveryError> {
        assert!(self.want.is_none(), "recovery is not done");
        if let Some(error) = self.error {
            return Err(error);
        }
        let epoch = self.now.0.max(self.epochs.newest().map_or(1, |epoch| epoch + 1));
        let tails = segment::settle(&mut self.segments, &self.epochs, self.end, &mut self.report);
        let next_file = self.segments.iter().map(|segment| segment.number + 1).max().unwrap_or(0);
        let mut segments = Segments::new(self.shard, self.limits, self.next_generation, next_file);
        for scanned in &self.segments {
            scanned.hand_over(&mut segments, &tails);
        }
        // A header page may be as new as the tail: until it is synced, the use before may come back.
        let unsettled = self.segments.iter().filter(|s| s.in_tail || s.fate == Fate::Empty);
        let mut journal = Journal::open(Opening {
            shard: self.shard,
            limits: self.limits,
            segments,
            next_number: self.next_number,
            sequence: self.end,
            durable: self.durable,
            epoch,
            unsettled: unsettled.map(|scanned| scanned.number).collect(),
        });
        for scanned in self.segments.iter().filter(|scanned| tails.contains(&scanned.number)) {
            journal.resume_tail(scanned.class, scanned.number, scanned.record_end());
        }
        if self.segments.iter().all(|scanned| scanned.fate != Fate::Used) {
            journal.on_older_known([]);
        }
        let older = Older::new(self.segments, self.epochs, &journal, self.report);
        Ok(Opened { journal, older })
    }

    fn want_header(&mut self, at: usize) {
        if let Some(scanned) = self.segments.get(at) {
            self.want = Some(Read { segment: scanned.number, offset: 0, len: FIRST_READ });
            self.phase = Stage::Headers(at);
        } else {
            self.next_walk();
        }
    }

    fn on_header(&mut self, at: usize, bytes: &[u8]) {
        let scanned = &mut self.segments[at];
        match scanned.on_header(self.shard, bytes) {
            Ok(told) => {
                if told.is_damaged {
                    self.report.damage(scanned.number, 0, Damage::SegmentHeader);
                }
                for (epoch, start, synced_to) in told.epochs.into_iter().flatten() {
                    self.epochs.tell(epoch, start, synced_to);
                }
                self.next_number = self.next_number.max(told.next_number);
                self.next_generation = self.next_generation.max(scanned.generation.saturating_add(1));
                self.want_header(at + 1);
            }
            Err(error) => self.error = Some(error),
        }
    }

    fn next_walk(&mut self) {
        match segment::next_to_read(&self.segments, &self.epochs) {
            Some((at, place)) => self.continue_walk(Walk::new(at, &self.segments[at], place)),
            None => self.begin_tail(),
        }
    }

    fn continue_walk(&mut self, walk: Walk) {
        match walk.step() {
            Step::Read(read) => (self.want, self.phase) = (Some(read), Stage::Walk(walk)),
            Step::Done => {
                let (segment, walked) = walk.finish();
                self.segments[segment].walked = Some(walked);
                self.next_walk();
            }
        }
    }

    fn on_window(&mut self, mut walk: Walk, bytes: &[u8]) {
        let segment = walk.segment();
        walk.on_read(bytes, |offset, header, _| {
            self.epochs.tell(header.epoch, header.epoch_start, header.synced_to);
            if Kind::from_number(header.kind).is_some_and(Kind::names_message) {
                let id = QueueId::from_bits(header.id);
                if id.shard() == self.shard {
                    self.next_number = self.next_number.max(id.number() + 1);
                }
            }
            let pending = self.pending.entry(header.epoch).or_default();
            pending.insert(header.sequence, Pending { segment, offset, header: *header });
            // What was durable needs no proof.
            let synced_to = self.epochs.synced_to(header.epoch);
            while pending.first_key_value().is_some_and(|(sequence, _)| *sequence < synced_to) {
                pending.pop_first();
            }
        });
        self.continue_walk(walk);
    }
}

impl Report {
    fn damage(&mut self, segment: u32, offset: u64, damage: Damage) {
        self.bad_count += 1;
        if self.bad.len() < BAD_MAX {
            self.bad.push(Bad { segment, offset, damage });
        }
    }
}

#[cfg(test)]
#[path = "recovery/older_test.rs"]
mod older_test;
#[cfg(test)]
#[path = "recovery_test.rs"]
mod test;
