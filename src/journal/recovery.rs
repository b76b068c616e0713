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

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use mail::{JournalShard, QueueId, Timestamp};

use crate::{
    Checkpoint, Class, Entry, Facts, HEADER_PAGE, Journal, Limits, Placement, Position, SegmentHeader,
    SegmentRef, Witness,
    codec::Malformed,
    format::{Header, HeaderFault, META_CEILING, RECORD_HEADER, SegmentHeaderError, find_magic},
    journal::Opening,
    record::{Extent, Kind, MessageFacts, Payload, RecipientState, decode_message_facts, decode_transition},
    segments::{Remake, Segment, Segments, State},
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

    fn want_header(&mut self, at: usize) {
        if let Some(scanned) = self.segments.get(at) {
            self.want = Some(Read { segment: scanned.number, offset: 0, len: FIRST_READ });
            self.phase = Stage::Headers(at);
        } else {
            self.begin_walk();
        }
    }

    fn on_header(&mut self, at: usize, bytes: &[u8]) {
        let scanned = &mut self.segments[at];
        let number = scanned.number;
        let page = SegmentHeader::decode(bytes);
        let first = bytes.get(HEADER_PAGE as usize..).and_then(read_begin);
        match page {
            Ok(header) if header.shard == self.shard && header.number == number => {
                (scanned.generation, scanned.fate) = (header.generation, Fate::Empty);
                let Witness { synced_to, epoch, epoch_start, next_number } = header.witness;
                let told = self.epochs.entry(epoch).or_default();
                (told.start, told.synced_to) = (told.start.max(epoch_start), told.synced_to.max(synced_to));
                self.next_number = self.next_number.max(next_number);
                if scanned.len < header.size {
                    scanned.fate = Fate::Remake(Remake::Create);
                }
            }
            Ok(SegmentHeader { number: other, shard, .. }) => {
                self.error = Some(RecoveryError::Foreign { segment: number, number: other, shard });
            }
            Err(SegmentHeaderError::Version(version)) => {
                self.error = Some(RecoveryError::Version { segment: number, version });
            }
            Err(SegmentHeaderError::Blank) if first.is_none() => {}
            Err(SegmentHeaderError::Blank | SegmentHeaderError::Damaged) => {
                // The first record tells the generation as well.
                if let Some((header, _, _)) = &first {
                    (scanned.generation, scanned.fate) = (header.generation, Fate::Empty);
                }
                self.report_bad(number, 0, Damage::SegmentHeader);
            }
        }
        let scanned = &mut self.segments[at];
        self.next_generation = self.next_generation.max(scanned.generation.saturating_add(1));
        if let Some((header, class, next_number)) = first
            && header.generation == scanned.generation
            && scanned.fate != Fate::Remake(Remake::Create)
        {
            (scanned.fate, scanned.class, scanned.begin) = (Fate::Used, class, header.sequence);
            self.next_number = self.next_number.max(next_number);
        } else if bytes.get(HEADER_PAGE as usize..).is_some_and(|rest| is_dirty(rest, scanned.generation))
            && scanned.fate == Fate::Empty
        {
            scanned.fate = Fate::Remake(Remake::Recycle);
        }
        if self.error.is_none() {
            self.want_header(at + 1);
        }
    }

    fn begin_walk(&mut self) {
        if let Some(checkpoint) = &self.checkpoint {
            let Position(start) = checkpoint.position;
            let told = self.epochs.entry(checkpoint.epoch).or_default();
            (told.start, told.synced_to) = (told.start.max(start), told.synced_to.max(start));
        }
        let mut rest: Vec<usize> = Vec::new();
        for (i, scanned) in self.segments.iter_mut().enumerate() {
            if scanned.fate != Fate::Used {
                continue;
            }
            if let Some(checkpoint) = &self.checkpoint {
                let here = SegmentRef { number: scanned.number, generation: scanned.generation };
                let cursor = checkpoint.cursors.iter().find(|cursor| cursor.segment == here);
                if let Some(cursor) = cursor {
                    // What an older run wrote there does not count any more.
                    scanned.last = Some((checkpoint.position.0.saturating_sub(1), checkpoint.epoch));
                    scanned.from = cursor.offset.max(HEADER_PAGE);
                    scanned.walked = scanned.from;
                } else if scanned.begin < checkpoint.position.0 {
                    (scanned.fate, scanned.walked) = (Fate::Told, scanned.len);
                    continue;
                }
            }
            rest.push(i);
        }
        rest.sort_by_key(|i| std::cmp::Reverse(self.segments[*i].begin));
        self.walk_next(rest);
    }

    fn walk_next(&mut self, mut rest: Vec<usize>) {
        let Some(segment) = rest.pop() else { return self.begin_verify() };
        let offset = self.segments[segment].walked;
        self.continue_walk(Walk { rest, segment, offset, mode: Mode::Follow, window: WINDOW });
    }

    /// Asks for the next window, or ends the segment when nothing more can be in it.
    fn continue_walk(&mut self, walk: Walk) {
        let scanned = &mut self.segments[walk.segment];
        let left = scanned.len.saturating_sub(walk.offset);
        if left < RECORD_HEADER as u64 {
            if walk.mode == Mode::Follow {
                (scanned.stop, scanned.walked) = (Stop::End, walk.offset);
            }
            return self.walk_next(walk.rest);
        }
        let len = usize::try_from(left).map_or(walk.window, |left| left.min(walk.window));
        self.want = Some(Read { segment: scanned.number, offset: walk.offset, len });
        self.phase = Stage::Walk(walk);
    }

    fn on_window(&mut self, mut walk: Walk, bytes: &[u8], read: Read) {
        let mut at = 0; // Within `bytes`; `walk.offset` is the same place in the file.
        loop {
            let rest = &bytes[at.min(bytes.len())..];
            let whole = bytes.len() == read.len;
            match walk.mode {
                Mode::Follow => match self.follow(&walk, rest) {
                    Look::Record(header) => {
                        walk.offset += header.len();
                        let big = header.len() > WINDOW as u64 / 2;
                        walk.window = if big { WINDOW_SMALL } else { WINDOW };
                        if Kind::from_number(header.kind) == Some(Kind::End) {
                            let scanned = &mut self.segments[walk.segment];
                            (scanned.stop, scanned.walked) = (Stop::End, walk.offset);
                            return self.walk_next(walk.rest);
                        }
                        match usize::try_from(header.len()) {
                            Ok(len) if len < rest.len() => at += len,
                            Ok(_) | Err(_) => return self.continue_walk(walk),
                        }
                    }
                    Look::More(len) if whole && (at > 0 || len > read.len) => {
                        walk.window = walk.window.max(len);
                        return self.continue_walk(walk);
                    }
                    Look::More(_) => return self.stop(walk, Stop::Garbage),
                    Look::Stop(stop) => return self.stop(walk, stop),
                },
                Mode::Search(from) => match self.search(&walk, rest) {
                    Search::Found(ahead) => {
                        walk.offset += ahead;
                        at += ahead as usize;
                        self.segments[walk.segment].gaps.push((from, walk.offset));
                        walk.mode = Mode::Follow;
                    }
                    Search::More(ahead, len) => {
                        // From the candidate itself, with all of its head; one that was read so is no record.
                        let again = ahead == 0 && at == 0 && len <= read.len;
                        walk.offset += if again || !whole { ahead + 8 } else { ahead };
                        walk.window = if again { WINDOW } else { walk.window.max(len) };
                        return self.continue_walk(walk);
                    }
                    Search::Nothing if whole => {
                        walk.offset += rest.len() as u64 / 8 * 8;
                        walk.window = WINDOW;
                        return self.continue_walk(walk);
                    }
                    Search::Nothing => return self.walk_next(walk.rest),
                },
            }
        }
    }

    /// Looks at the place where the next record must be.
    fn follow(&mut self, walk: &Walk, rest: &[u8]) -> Look {
        let scanned = &self.segments[walk.segment];
        let header = match Header::decode(rest) {
            Ok(header) => header,
            Err(HeaderFault::Short) => return Look::More(RECORD_HEADER),
            Err(HeaderFault::Blank) => return Look::Stop(Stop::Clean),
            Err(HeaderFault::Magic | HeaderFault::Crc) => return Look::Stop(Stop::Garbage),
        };
        if header.meta_len > META_CEILING || header.len() > scanned.len - walk.offset {
            return Look::Stop(Stop::Garbage);
        }
        let meta = match header.checked_meta(rest) {
            Ok(meta) => meta,
            Err(HeaderFault::Short) => return Look::More(RECORD_HEADER + header.meta_len as usize),
            Err(HeaderFault::Blank | HeaderFault::Magic | HeaderFault::Crc) => {
                return Look::Stop(Stop::Garbage);
            }
        };
        let older_run = scanned.last.is_some_and(|(_, epoch)| header.epoch < epoch);
        if header.generation != scanned.generation || older_run {
            return Look::Stop(Stop::Clean);
        }
        let is_begin = Kind::from_number(header.kind) == Some(Kind::Begin);
        if scanned.last.is_some_and(|(last, _)| header.sequence <= last)
            || is_begin != (walk.offset == HEADER_PAGE)
        {
            return Look::Stop(Stop::Garbage);
        }
        self.take(walk.segment, walk.offset, header, meta);
        Look::Record(header)
    }

    /// Looks for a later record of the same use of the segment.
    fn search(&self, walk: &Walk, bytes: &[u8]) -> Search {
        let scanned = &self.segments[walk.segment];
        let mut at = 0;
        while let Some(ahead) = find_magic(&bytes[at..]) {
            at += ahead;
            let left = scanned.len.saturating_sub(walk.offset + at as u64);
            match Header::decode(&bytes[at..]) {
                Err(HeaderFault::Short) => return Search::More(at as u64, RECORD_HEADER),
                Ok(header)
                    if header.generation == scanned.generation
                        && scanned
                            .last
                            .is_none_or(|(last, epoch)| header.sequence > last && header.epoch >= epoch)
                        && header.meta_len <= META_CEILING
                        && header.len() <= left =>
                {
                    match header.checked_meta(&bytes[at..]) {
                        Ok(_) => return Search::Found(at as u64),
                        Err(HeaderFault::Short) => {
                            return Search::More(at as u64, RECORD_HEADER + header.meta_len as usize);
                        }
                        Err(HeaderFault::Blank | HeaderFault::Magic | HeaderFault::Crc) => {}
                    }
                }
                Ok(_) | Err(HeaderFault::Blank | HeaderFault::Magic | HeaderFault::Crc) => {}
            }
            at += 8;
            if at >= bytes.len() {
                break;
            }
        }
        Search::Nothing
    }

    /// The records of a segment end here. In the last segment of its class, zeros are how that looks.
    fn stop(&mut self, mut walk: Walk, stop: Stop) {
        let class = self.segments[walk.segment].class;
        let begin = self.segments[walk.segment].begin;
        let later =
            |s: &Scanned| matches!(s.fate, Fate::Used | Fate::Told) && s.class == class && s.begin > begin;
        let is_last = !self.segments.iter().any(later);
        let scanned = &mut self.segments[walk.segment];
        (scanned.stop, scanned.walked) = (stop, walk.offset);
        if stop == Stop::Clean && is_last {
            return self.walk_next(walk.rest);
        }
        walk.mode = Mode::Search(walk.offset);
        walk.offset += 8;
        walk.window = WINDOW;
        self.continue_walk(walk);
    }

    /// Takes a record whose head is whole.
    fn take(&mut self, segment: usize, offset: u64, header: Header, meta: &[u8]) {
        self.report.records += 1;
        let scanned = &mut self.segments[segment];
        scanned.last = Some((header.sequence, header.epoch));
        scanned.walked = offset + header.len();
        let note = self.note(&header, meta);
        let epoch = self.epochs.entry(header.epoch).or_default();
        epoch.start = epoch.start.max(header.epoch_start);
        epoch.synced_to = epoch.synced_to.max(header.synced_to);
        let pending = Pending { segment, offset, header, note };
        epoch.pending.insert(header.sequence, pending);
        let kept = epoch.pending.split_off(&epoch.synced_to);
        for pending in mem::replace(&mut epoch.pending, kept).into_values() {
            self.apply(pending);
        }
    }

    fn note(&mut self, header: &Header, meta: &[u8]) -> Note {
        let id = QueueId::from_bits(header.id);
        let Some(kind) = Kind::from_number(header.kind) else { return Note::Unknown };
        let ours = match kind {
            Kind::Begin | Kind::End | Kind::Chunk => return Note::Nothing,
            Kind::Message | Kind::Transition | Kind::Retired => id.shard() == self.shard,
        };
        if !ours {
            return Note::Malformed(Malformed("a message of another journal shard"));
        }
        self.next_number = self.next_number.max(id.number() + 1);
        let note = match kind {
            Kind::Message => decode_message_facts(meta).map(|facts| Note::Message(Box::new(facts))),
            Kind::Transition => decode_transition(meta).map(Note::Transition),
            Kind::Retired => Ok(Note::Retired),
            Kind::Begin | Kind::End | Kind::Chunk => Ok(Note::Nothing),
        };
        note.unwrap_or_else(Note::Malformed)
    }

    /// Lets a record count.
    fn apply(&mut self, pending: Pending) {
        let Pending { segment, offset, header, note } = pending;
        let id = QueueId::from_bits(header.id).number();
        let scanned = &mut self.segments[segment];
        let number = scanned.number;
        match note {
            Note::Nothing => {}
            Note::Unknown => {
                scanned.unknown += 1;
                self.report_bad(number, offset, Damage::UnknownKind(header.kind));
            }
            Note::Malformed(malformed) => self.report_bad(number, offset, Damage::Malformed(malformed)),
            Note::Retired => {
                self.retired.insert(id);
                self.building.remove(&id);
            }
            Note::Message(_) | Note::Transition(_) if self.retired.contains(id) => {}
            Note::Transition(states) => {
                let building = self.building.entry(id).or_default();
                for (index, state) in states {
                    building.set(FoundState {
                        index,
                        sequence: header.sequence,
                        segment: Some(number),
                        state,
                    });
                }
            }
            Note::Message(message) => {
                let MessageFacts { extents, facts, states, recipients } = *message;
                let placement = Placement {
                    segment: SegmentRef { number, generation: scanned.generation },
                    offset,
                    meta_len: header.meta_len,
                    inline_len: header.content_len,
                    recipients,
                    extents: extents.into(),
                    transitions: Box::default(),
                };
                let found = Found { sequence: header.sequence, placement, facts };
                let superseded = self.building.entry(id).or_default().set_message(found, states);
                self.report.superseded += u64::from(superseded);
            }
        }
    }

    /// All heads are read: what older runs left is settled, the tail of the last one is to be verified.
    fn begin_verify(&mut self) {
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

    fn on_content(&mut self, mut verify: Verify, bytes: &[u8], read: Read) {
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

    /// Says which segments are of worth and which gaps are loss; answers the segments to go on in.
    fn settle_segments(&mut self) -> BTreeSet<u32> {
        for scanned in &mut self.segments {
            scanned.void_torn_gaps();
            if scanned.fate == Fate::Used && scanned.void == Some(HEADER_PAGE) {
                scanned.fate = Fate::Remake(Remake::Recycle);
            }
        }
        self.segments.sort_by_key(|scanned| scanned.begin);
        let mut tails = BTreeSet::new();
        for class in [Class::Hot, Class::Cold] {
            let last = self.segments.iter().rposition(|s| s.is_used() && s.class == class);
            for i in 0..self.segments.len() {
                let scanned = &self.segments[i];
                if !scanned.is_used() || scanned.class != class {
                    continue;
                }
                let (number, walked, void) = (scanned.number, scanned.walked, scanned.void);
                let (stop, end) = (scanned.stop, scanned.record_end());
                let open = void.is_some() || matches!(stop, Stop::Clean | Stop::Garbage);
                for (from, to) in scanned.gaps.clone() {
                    self.report_bad(number, from, Damage::Gap(to));
                }
                if void.is_some() || (stop == Stop::Garbage && last == Some(i)) {
                    self.report.torn.push(Torn { segment: number, offset: end });
                } else if open && last != Some(i) {
                    self.report_bad(number, walked, Damage::Rest);
                }
                if last == Some(i) && open && self.segments[i].fate == Fate::Used {
                    tails.insert(number);
                }
            }
        }
        self.set_ends(&tails);
        tails
    }

    /// A sealed segment's end is at most where the next one of its class begins.
    fn set_ends(&mut self, tails: &BTreeSet<u32>) {
        let mut next = [self.end; 2];
        for scanned in self.segments.iter_mut().rev().filter(|scanned| scanned.is_used()) {
            if !tails.contains(&scanned.number) {
                scanned.last = Some((next[scanned.class as usize].saturating_sub(1), 0));
            }
            next[scanned.class as usize] = scanned.begin;
        }
    }

    fn collect_entries(&mut self) -> Vec<(QueueId, Entry)> {
        // Generation, and from where on all records were read.
        let mut current: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
        for scanned in self.segments.iter().filter(|scanned| scanned.is_used()) {
            let from = if scanned.fate == Fate::Told { u64::MAX } else { scanned.from };
            current.insert(scanned.number, (scanned.generation, from));
        }
        let is_there =
            |number: u32, generation: u32| current.get(&number).is_some_and(|(now, _)| *now == generation);
        let mut entries = Vec::new();
        for (number, building) in mem::take(&mut self.building) {
            let Some(found) = building.message else { continue };
            let mut placement = found.placement;
            if !is_there(placement.segment.number, placement.segment.generation) {
                // Told by the checkpoint. A segment reused or removed since: it was retired. One not yet used: it
                // was never there.
                let is_it = |s: &Scanned| s.number == placement.segment.number;
                let now = self.segments.iter().find(|s| is_it(s)).map_or(u32::MAX, |s| s.generation);
                if now <= placement.segment.generation {
                    self.error = Some(RecoveryError::Checkpoint);
                }
                continue;
            }
            let id = QueueId::new(self.shard, number);
            let read_from = current[&placement.segment.number].1;
            if found.sequence == 0 && placement.offset >= read_from {
                // Its record lies where all records were read, and was not met.
                self.error = Some(RecoveryError::Checkpoint);
            }
            if placement.extents.iter().any(|e: &Extent| !is_there(e.segment, e.generation)) {
                self.report_bad(placement.segment.number, placement.offset, Damage::ContentLost(id));
                continue;
            }
            let mut transitions: BTreeSet<SegmentRef> = placement.transitions.iter().copied().collect();
            transitions.retain(|segment| is_there(segment.number, segment.generation));
            let mut states = building.states;
            states.retain(|found| found.index < placement.recipients);
            states.sort_by_key(|found| found.index);
            for number in states.iter().filter_map(|found| found.segment) {
                let generation = current.get(&number).map_or(0, |(generation, _)| *generation);
                transitions.insert(SegmentRef { number, generation });
            }
            placement.transitions = transitions.into_iter().collect();
            let states = states.into_iter().map(|found| (found.index, found.state)).collect();
            entries.push((id, Entry { placement, states, facts: found.facts }));
        }
        entries
    }

    fn report_bad(&mut self, segment: u32, offset: u64, damage: Damage) {
        self.report.bad_count += 1;
        if self.report.bad.len() < BAD_MAX {
            self.report.bad.push(Bad { segment, offset, damage });
        }
    }
}

enum Look {
    Record(Header),
    /// As many bytes are needed.
    More(usize),
    Stop(Stop),
}

enum Search {
    /// So far ahead is a record.
    Found(u64),
    /// So far ahead may be one; as many bytes are needed to tell.
    More(u64, usize),
    Nothing,
}

impl Scanned {
    const fn new(file: SegmentFile) -> Self {
        Self {
            number: file.number,
            len: file.len,
            generation: 0,
            fate: Fate::Remake(Remake::Create),
            class: Class::Hot,
            begin: 0,
            last: None,
            void: None,
            from: HEADER_PAGE,
            walked: HEADER_PAGE,
            stop: Stop::None,
            gaps: Vec::new(),
            unknown: 0,
            in_tail: false,
        }
    }

    const fn is_used(&self) -> bool {
        matches!(self.fate, Fate::Used | Fate::Told)
    }

    /// A gap before a record that does not count is where writing was cut off, and not a loss.
    fn void_torn_gaps(&mut self) {
        if let Some(void) = self.void {
            let torn = self.gaps.iter().filter(|(_, to)| *to >= void).map(|(from, _)| *from).min();
            self.void = Some(torn.map_or(void, |torn| torn.min(void)));
            self.gaps.retain(|(_, to)| *to < void);
        }
    }

    fn record_end(&self) -> u64 {
        self.void.map_or(self.walked, |void| void.min(self.walked))
    }

    fn hand_over(&self, segments: &mut Segments, end: u64, tails: &BTreeSet<u32>) {
        let (state, last) = match self.fate {
            Fate::Remake(remake) => return segments.adopt_blank(self.number, remake, self.len),
            Fate::Empty => (State::Ready, 0),
            Fate::Used | Fate::Told if tails.contains(&self.number) => (State::Active, 0),
            Fate::Used | Fate::Told => (State::Sealed, self.last.map_or(end, |(last, _)| last + 1)),
        };
        let segment = Segment {
            generation: self.generation,
            size: self.len,
            state,
            class: self.class,
            begin: self.begin,
            end: last,
            live: 0,
            live_bytes: 0,
            waste: if state == State::Sealed { self.len.saturating_sub(self.walked) } else { 0 },
        };
        segments.adopt(self.number, segment);
        // What is not known cannot be known to be dead.
        (0..self.unknown).for_each(|_| segments.hold(self.number, 0));
    }
}

impl Building {
    /// Answers whether there was another copy.
    fn set_message(&mut self, found: Found, states: Vec<(u32, RecipientState)>) -> bool {
        let sequence = found.sequence;
        let before = self.message.as_ref().map(|message| message.sequence);
        if before.is_some_and(|before| before > sequence) {
            return true;
        }
        self.message = Some(found);
        self.states.retain(|state| state.sequence > sequence);
        for (index, state) in states {
            self.set(FoundState { index, sequence, segment: None, state });
        }
        before.is_some()
    }

    fn set(&mut self, found: FoundState) {
        if self.message.as_ref().is_some_and(|message| message.sequence > found.sequence) {
            return;
        }
        match self.states.iter_mut().find(|state| state.index == found.index) {
            Some(state) if state.sequence > found.sequence => {}
            Some(state) => *state = found,
            None => self.states.push(found),
        }
    }
}

impl Retired {
    fn insert(&mut self, number: u64) {
        let bits = self.0.entry(number >> 12).or_insert_with(|| Box::new([0; 64]));
        bits[(number >> 6) as usize & 63] |= 1 << (number & 63);
    }

    fn contains(&self, number: u64) -> bool {
        let bits = self.0.get(&(number >> 12));
        bits.is_some_and(|bits| bits[(number >> 6) as usize & 63] >> (number & 63) & 1 == 1)
    }
}

fn read_begin(bytes: &[u8]) -> Option<(Header, Class, u64)> {
    let header = Header::decode(bytes).ok()?;
    let meta = header.checked_meta(bytes).ok()?;
    match Payload::decode(&header, meta, 0, 0)? {
        Ok(Payload::Begin { class, next_number }) => Some((header, class, next_number)),
        Ok(_) | Err(_) => None,
    }
}

/// Whether something was begun to be written into this use of the segment.
fn is_dirty(bytes: &[u8], generation: u32) -> bool {
    match Header::decode(bytes) {
        Ok(header) => header.generation == generation,
        Err(HeaderFault::Magic | HeaderFault::Crc) => true,
        Err(HeaderFault::Blank | HeaderFault::Short) => false,
    }
}

#[cfg(test)]
#[path = "recovery_test.rs"]
mod test;
