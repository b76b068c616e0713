//! Reading the log back: which messages live, how they stand, where the log ends.
//!
//! ```text
//!   Headers ──▶ Walk (each segment: record heads, by their lengths) ──▶ Verify (contents behind synced_to) ──▶ Done
//! ```
//!
//! Records may be met in any order: for everything the highest sequence counts, and a retired message stays retired.
//! Where the log ends follows from three numbers in each record. `synced_to` says what was durable when the record was made; what
//! lies before needs no proof. `epoch` and `epoch_start` say which run wrote it and where that run began: what an
//! older run wrote from there on was thrown away by a recovery before this one, and is thrown away again. Of the last
//! run, the records behind the last `synced_to` are taken in the order of their sequence as long as none is missing
//! or damaged.

mod found;
mod scanned;
mod tail;
mod walk;

use std::{collections::BTreeMap, mem};

use mail::{JournalShard, QueueId, Timestamp};

use crate::{
    Checkpoint, Class, Entry, Facts, Journal, Limits, Placement,
    codec::Malformed,
    format::Header,
    journal::Opening,
    record::{MessageFacts, RecipientState},
    segments::{Remake, Segments},
};

/// A segment file in the journal shard's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its number.
    pub number: u32,
    /// How long it is.
    pub len: u64,
}

/// Where recovery begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// With the oldest segment: needs nothing but the segments.
    Beginning,
    /// At a checkpoint; its entries follow by [`Recovery::restore`].
    Checkpoint(Checkpoint),
}

/// What recovery wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Read this, then call [`Recovery::on_read`].
    Read(Read),
    /// Call [`Recovery::finish`].
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

/// What recovery found.
#[derive(Debug)]
pub struct Recovered {
    /// Ready to append.
    pub journal: Journal,
    /// The live messages in order of their ids.
    pub entries: Vec<(QueueId, Entry)>,
    /// What was read, and what was wrong.
    pub report: Report,
}

/// What recovery read, and what was wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segment files.
    pub segments: usize,
    /// Records read.
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

/// Why the journal cannot be opened at all.
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
    /// The checkpoint or its entries are from another log, or were stored before they were durable. Recover from
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

/// The machine that reads a journal shard back.
#[derive(Debug)]
pub struct Recovery {
    shard: JournalShard,
    limits: Limits,
    now: Timestamp,
    checkpoint: Option<Checkpoint>,
    segments: Vec<Scanned>,
    phase: Stage,
    want: Option<Read>,
    epochs: BTreeMap<u64, Epoch>,
    building: BTreeMap<u64, Building>,
    retired: Retired,
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
    Verify(Verify),
    Done,
}

/// The reading of one segment.
#[derive(Debug)]
struct Walk {
    /// Segments still to be read, the next one last.
    rest: Vec<usize>,
    segment: usize,
    offset: u64,
    mode: Mode,
    window: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Follow,
    /// Looks for a record behind the bad place at this offset.
    Search(u64),
}

#[derive(Debug)]
struct Verify {
    tail: Vec<Pending>,
    next: usize,
    /// Of the content of `tail[next]`.
    checked: u32,
    crc: u32,
}

#[derive(Debug)]
struct Scanned {
    number: u32,
    len: u64,
    generation: u32,
    fate: Fate,
    class: Class,
    begin: u64,
    /// Sequence and epoch of the last record met.
    last: Option<(u64, u64)>,
    /// Where the first record lies that does not count.
    void: Option<u64>,
    /// Where reading began.
    from: u64,
    /// Where the records end.
    walked: u64,
    stop: Stop,
    gaps: Vec<(u64, u64)>,
    unknown: u32,
    in_tail: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing of worth is in it.
    Remake(Remake),
    /// A header page and nothing else.
    Empty,
    /// It has a first record.
    Used,
    /// The same, and the checkpoint tells all that is in it.
    Told,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Not read.
    None,
    /// A last record.
    End,
    /// Zeros, or what the file held before.
    Clean,
    /// Something else.
    Garbage,
}

#[derive(Debug, Default)]
struct Epoch {
    start: u64,
    synced_to: u64,
    pending: BTreeMap<u64, Pending>,
}

#[derive(Debug)]
struct Pending {
    segment: usize,
    offset: u64,
    header: Header,
    note: Note,
}

/// What a record means for the result.
#[derive(Debug)]
enum Note {
    Nothing,
    Message(Box<MessageFacts>),
    Transition(Vec<(u32, RecipientState)>),
    Retired,
    Malformed(Malformed),
    Unknown,
}

/// A message as far as it is known.
#[derive(Debug, Default)]
struct Building {
    message: Option<Found>,
    states: Vec<FoundState>,
}

#[derive(Debug)]
struct Found {
    sequence: u64,
    placement: Placement,
    facts: Facts,
}

#[derive(Debug)]
struct FoundState {
    index: u32,
    sequence: u64,
    /// The segment of the transition; none when the message's own record or the checkpoint tells the state.
    segment: Option<u32>,
    state: RecipientState,
}

/// Numbers of retired messages: they are dense, a bit for each does.
#[derive(Debug, Default)]
struct Retired(BTreeMap<u64, Box<[u64; 64]>>);

const WINDOW: usize = 128 << 10;
const WINDOW_SMALL: usize = 4 << 10;
const FIRST_READ: usize = 8 << 10;
const CONTENT_READ: u32 = 1 << 20;
const BAD_MAX: usize = 1000;

impl Recovery {
    /// Begins with the files of the journal shard's directory. Sync the directory before you list it: an unlink that
    /// was not yet durable must not be undone by a power loss later on. `now` must be later than at the recovery before, or else it is made so.
    pub fn new(
        shard: JournalShard,
        limits: Limits,
        now: Timestamp,
        files: Vec<SegmentFile>,
        start: Start,
    ) -> Self {
        let checkpoint = match start {
            Start::Beginning => None,
            Start::Checkpoint(checkpoint) => Some(checkpoint),
        };
        let segments: Vec<_> = files.into_iter().map(Scanned::new).collect();
        let report = Report { segments: segments.len(), ..Report::default() };
        let mut recovery = Self {
            shard,
            limits,
            now,
            next_number: checkpoint.as_ref().map_or(0, |c| c.next_number),
            next_generation: checkpoint.as_ref().map_or(1, |c| c.next_generation),
            durable: 0,
            end: checkpoint.as_ref().map_or(0, |c| c.position.0),
            checkpoint,
            segments,
            phase: Stage::Headers(0),
            want: None,
            epochs: BTreeMap::new(),
            building: BTreeMap::new(),
            retired: Retired::default(),
            report,
            error: None,
        };
        recovery.want_header(0);
        recovery
    }

    /// Takes an entry of the checkpoint. All of them come before the first [`Self::on_read`].
    pub fn restore(&mut self, id: QueueId, entry: Entry) {
        let Entry { placement, states, facts } = entry;
        let state = |(index, state)| FoundState { index, sequence: 0, segment: None, state };
        let building = Building {
            message: Some(Found { sequence: 0, placement, facts }),
            states: states.into_iter().map(state).collect(),
        };
        self.next_number = self.next_number.max(id.number() + 1);
        self.building.insert(id.number(), building);
    }

    /// What to do next; the same until it is done.
    pub fn step(&self) -> Step {
        self.want.map_or(Step::Done, Step::Read)
    }

    /// The bytes that [`Step::Read`] asked for. None at all tells that they cannot be read.
    pub fn on_read(&mut self, bytes: &[u8]) {
        let read = self.want.take().expect("a read was asked for");
        match mem::replace(&mut self.phase, Stage::Done) {
            Stage::Headers(at) => self.on_header(at, bytes),
            Stage::Walk(walk) => self.on_window(walk, &bytes[..bytes.len().min(read.len)], read),
            Stage::Verify(verify) => self.on_content(verify, bytes, read),
            Stage::Done => unreachable!("nothing was asked for"),
        }
    }

    /// Makes the journal that goes on from here.
    ///
    /// # Errors
    /// [`RecoveryError`] when the files are not of this journal shard or not of this version.
    pub fn finish(mut self) -> Result<Recovered, RecoveryError> {
        assert!(self.want.is_none(), "recovery is not done");
        if let Some(error) = self.error {
            return Err(error);
        }
        let entries = self.collect_entries();
        if let Some(error) = self.error {
            return Err(error);
        }
        let newest = self.epochs.keys().next_back().copied();
        let newest = newest.max(self.checkpoint.as_ref().map(|checkpoint| checkpoint.epoch));
        let epoch = self.now.0.max(newest.map_or(1, |epoch| epoch + 1));
        let tails = self.settle_segments();
        let next_file = self.segments.iter().map(|segment| segment.number + 1).max().unwrap_or(0);
        let mut segments = Segments::new(self.shard, self.limits, self.next_generation, next_file);
        for scanned in &self.segments {
            scanned.hand_over(&mut segments, self.end, &tails);
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
        for (id, entry) in &entries {
            journal.adopt(*id, &entry.placement);
        }
        Ok(Recovered { journal, entries, report: self.report })
    }

    fn report_bad(&mut self, segment: u32, offset: u64, damage: Damage) {
        self.report.bad_count += 1;
        if self.report.bad.len() < BAD_MAX {
            self.report.bad.push(Bad { segment, offset, damage });
        }
    }
}

#[cfg(test)]
#[path = "recovery_test.rs"]
mod test;
