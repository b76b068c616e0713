//! What lives of the time before the log was opened, found beside new mail.
//!
//! ```text
//!   begin ──▶ heads of records ──▶ Done ──▶ check (each entry) ──▶ restore, next (from the highest id down) ──▶ finish
//!     ▲                                        │
//!     └──────────── Start::Beginning ──────────┘ an entry that cannot be true
//! ```
//!
//! Nothing is restored before all that was written is known: a recipient who has ended must not be tried again because
//! the record that says so comes later.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
};

use mail::{JournalShard, QueueId, QueueIdSet};

use super::{
    Damage, Epochs, Fate, Recovered, RecoveryError, Report, Scanned, Start, Step, Walk,
    found::{Building, Found, FoundState, Note},
    walk::{Place, Stop, Walked},
};
use crate::{
    Checkpoint, Class, Entry, HEADER_PAGE, Journal, Placement, SegmentRef,
    codec::Malformed,
    format::Header,
    record::{Extent, Kind, MessageFacts},
    segments::Contents,
};

/// The machine that finds what lives in a log which goes on meanwhile.
#[derive(Debug)]
pub struct Older {
    shard: JournalShard,
    /// Used segments, the oldest first.
    parts: Vec<Part>,
    /// Of all files, by their numbers, as the log was opened.
    generations: HashMap<u32, Generation>,
    epochs: Epochs,
    /// The log as it was opened.
    opened: Checkpoint,
    /// Parts to be read, the next one last.
    rest: Vec<usize>,
    walk: Option<Walk>,
    /// Records of older runs that a later one may have thrown away, by epoch and sequence.
    pending: BTreeMap<(u64, u64), Pending>,
    building: BTreeMap<QueueId, Building>,
    retired: QueueIdSet,
    /// What was to be told when the log was opened.
    opening: Report,
    report: Report,
}

/// A used segment.
#[derive(Debug)]
struct Part {
    scanned: Scanned,
    place: Place,
    /// Where its records are read from, and sequence and epoch of the one before.
    from: (u64, Option<(u64, u64)>),
    /// Records of a kind that is not known.
    unknown: u32,
    /// What reading it found, besides records.
    walked: Option<Walked>,
    /// The highest sequence met in it.
    last: u64,
}

/// Which use of a file was found, and from where on all records in it are read. Nowhere: nothing in it counts.
#[derive(Clone, Copy, Debug)]
struct Generation {
    number: u32,
    read_from: Option<u64>,
}

#[derive(Debug)]
struct Pending {
    part: usize,
    offset: u64,
    header: Header,
    note: Note,
}

/// A live message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Its id.
    pub id: QueueId,
    /// Where it lies and how it stands.
    pub entry: Entry,
    /// Whether the index has it just so.
    pub indexed: Indexed,
}

/// Whether the index has to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexed {
    /// It has no such entry, or an older one.
    No,
    /// Its entry is as it should be.
    Yes,
}

/// The records of a segment that a checkpoint tells are not read.
const TOLD: u64 = u64::MAX;

impl Older {
    pub(super) fn new(segments: Vec<Scanned>, epochs: Epochs, journal: &Journal, opening: Report) -> Self {
        let generation = |s: &Scanned| (s.number, Generation { number: s.generation, read_from: None });
        let generations = segments.iter().map(generation).collect();
        let used = segments.into_iter().filter(|scanned| scanned.fate == Fate::Used);
        let part = |scanned: Scanned| {
            let place = Place::Before;
            Part { scanned, place, from: (HEADER_PAGE, None), unknown: 0, walked: None, last: 0 }
        };
        let mut parts: Vec<_> = used.map(part).collect();
        parts.sort_by_key(|part| part.scanned.begin);
        for class in [Class::Hot, Class::Cold] {
            if let Some(last) = parts.iter_mut().rfind(|part| part.scanned.class == class) {
                last.place = Place::Last;
            }
        }
        Self {
            shard: journal.shard(),
            parts,
            generations,
            epochs,
            opened: journal.checkpoint(),
            rest: Vec::new(),
            walk: None,
            pending: BTreeMap::new(),
            building: BTreeMap::new(),
            retired: QueueIdSet::default(),
            report: opening.clone(),
            opening,
        }
    }

    /// The log as it was opened: what [`Self::restore`] and [`Self::next`] yield is true there.
    pub const fn opened(&self) -> &Checkpoint {
        &self.opened
    }

    /// How many messages the log tells of where it was read: those that no entry may tell of are among them.
    pub fn found(&self) -> usize {
        self.building.len()
    }

    /// Says where to begin, or to begin anew.
    ///
    /// # Errors
    /// [`RecoveryError::Checkpoint`] when that is from another log: then it must be [`Start::Beginning`].
    pub fn begin(&mut self, start: &Start) -> Result<(), RecoveryError> {
        self.report = self.opening.clone();
        self.walk = None;
        self.pending.clear();
        self.building.clear();
        self.retired = QueueIdSet::default();
        for part in &mut self.parts {
            (part.from, part.unknown, part.walked, part.last) = ((HEADER_PAGE, None), 0, None, 0);
            if let Start::Checkpoint(checkpoint) = start {
                part.begin_behind(checkpoint)?;
            }
            let scanned = &part.scanned;
            let generation = Generation { number: scanned.generation, read_from: Some(part.from.0) };
            self.generations.insert(scanned.number, generation);
        }
        if let Start::Checkpoint(checkpoint) = start {
            // This run's own would be later than what it found, and not be told by a record yet.
            if checkpoint.position > self.opened.position || checkpoint.epoch >= self.opened.epoch {
                return Err(RecoveryError::Checkpoint);
            }
        }
        self.rest = (0..self.parts.len()).rev().filter(|i| self.parts[*i].from.0 != TOLD).collect();
        self.walk_next();
        Ok(())
    }

    /// What to do next; the same until it is done. [`Self::begin`] comes first.
    pub fn step(&self) -> Step {
        self.walk.as_ref().map_or(Step::Done, Walk::step)
    }

    /// The bytes that [`Step::Read`] asked for. None at all tells that they cannot be read.
    pub fn on_read(&mut self, bytes: &[u8]) {
        let mut walk = self.walk.take().expect("a read was asked for");
        let at = walk.segment();
        walk.on_read(bytes, |offset, header, meta| self.take(at, offset, header, meta));
        self.continue_walk(walk);
    }

    /// Whether an entry with a record at this place can be true: asked of all of them, when all is read, before the
    /// first is restored.
    ///
    /// # Errors
    /// [`RecoveryError::Checkpoint`]: begin anew from [`Start::Beginning`].
    pub fn check(&self, id: QueueId, segment: SegmentRef, offset: u64) -> Result<(), RecoveryError> {
        if id.shard() != self.shard || id.number() >= self.opened.next_number {
            return Err(RecoveryError::Checkpoint);
        }
        if self.retired.contains(id) || self.building.get(&id).is_some_and(|b| b.message.is_some()) {
            return Ok(());
        }
        let is_true = match self.generations.get(&segment.number) {
            // Its record lies where all records were read, and was not met.
            Some(Generation { number, read_from: Some(from) }) if *number == segment.generation => {
                offset < *from
            }
            // Reused since: it was retired, or moved. Not yet used: it was never there.
            Some(Generation { number, .. }) => *number > segment.generation,
            // Removed since.
            None => true,
        };
        if is_true { Ok(()) } else { Err(RecoveryError::Checkpoint) }
    }

    /// Takes an entry of the checkpoint, and puts the message into the journal if it lives.
    pub fn restore(&mut self, journal: &mut Journal, id: QueueId, entry: Entry) -> Option<Restored> {
        if self.retired.contains(id) {
            return None;
        }
        match self.building.remove(&id) {
            None => self.adopt(journal, id, entry, Indexed::Yes),
            Some(mut building) => {
                building.add_entry(entry);
                self.adopt_built(journal, id, building)
            }
        }
    }

    /// Takes the message with the highest id of those that no entry tells of, if it is above this one, and puts it into
    /// the journal. What an entry tells must be restored before the ids below it are asked for.
    pub fn next(&mut self, journal: &mut Journal, above: Option<QueueId>) -> Option<Restored> {
        loop {
            let (id, _) =
                self.building.last_key_value().filter(|(id, _)| above.is_none_or(|it| **id > it))?;
            let (id, building) = (*id, self.building.remove(&{ *id }).expect("just seen"));
            let restored = self.adopt_built(journal, id, building);
            if restored.is_some() {
                return restored;
            }
        }
    }

    /// Everything is restored: the journal may use segments again in which nothing lives.
    pub fn finish(self, journal: &mut Journal) -> Report {
        // What is not known cannot be known to be dead.
        let known = self.parts.iter().filter(|part| part.unknown == 0);
        journal.on_older_known(known.map(|part| Contents {
            segment: part.scanned.number,
            // The last ones may have been written on since.
            used: part.walked.as_ref().filter(|_| part.scanned.walked.is_none()).map(|walked| walked.end),
            end: part.last + 1,
        }));
        self.report
    }

    /// All at once, for whoever has the time, when all is read.
    ///
    /// # Errors
    /// [`RecoveryError::Checkpoint`], as [`Self::check`].
    pub fn recover(
        mut self,
        mut journal: Journal,
        told: Vec<(QueueId, Entry)>,
    ) -> Result<Recovered, RecoveryError> {
        assert!(self.step() == Step::Done, "reading is not done");
        for (id, Entry { placement, .. }) in &told {
            self.check(*id, placement.segment, placement.offset)?;
        }
        let mut entries = Vec::new();
        for (id, entry) in told.into_iter().rev() {
            while let Some(restored) = self.next(&mut journal, Some(id)) {
                entries.push((restored.id, restored.entry));
            }
            entries.extend(self.restore(&mut journal, id, entry).map(|it| (it.id, it.entry)));
        }
        while let Some(restored) = self.next(&mut journal, None) {
            entries.push((restored.id, restored.entry));
        }
        entries.reverse();
        let report = self.finish(&mut journal);
        Ok(Recovered { journal, entries, report })
    }

    fn walk_next(&mut self) {
        match self.rest.pop() {
            Some(at) => {
                let Part { scanned, place, from, .. } = &self.parts[at];
                // What is behind the end of the log does not count, and is being written over.
                let walk = Walk::part(at, scanned, *place, *from, scanned.record_end());
                self.continue_walk(walk);
            }
            None => self.settle_pending(),
        }
    }

    fn continue_walk(&mut self, walk: Walk) {
        match walk.step() {
            Step::Read(_) => self.walk = Some(walk),
            Step::Done => {
                let (at, walked) = walk.finish();
                self.parts[at].walked = Some(walked);
                self.walk_next();
            }
        }
    }

    /// Takes a record whose head is whole.
    fn take(&mut self, part: usize, offset: u64, header: &Header, meta: &[u8]) {
        self.report.records += 1;
        self.epochs.tell(header.epoch, header.epoch_start, header.synced_to);
        self.parts[part].last = header.sequence;
        let record = Pending { part, offset, header: *header, note: Note::of(header, meta) };
        let synced_to = self.epochs.synced_to(header.epoch);
        // What the last run wrote before the end counts, and what an older one has told of as durable.
        if header.sequence < synced_to || self.epochs.newest() == Some(header.epoch) {
            self.apply(record);
        } else {
            self.pending.insert((header.epoch, header.sequence), record);
        }
        let durable = (header.epoch, 0)..(header.epoch, synced_to);
        while let Some((key, _)) = self.pending.range(durable.clone()).next() {
            let record = self.pending.remove(&{ *key }).expect("just seen");
            self.apply(record);
        }
    }

    /// All heads are read, so that it is known what was thrown away.
    fn settle_pending(&mut self) {
        for ((epoch, sequence), record) in mem::take(&mut self.pending) {
            if self.epochs.is_void(epoch, sequence) {
                self.report.discarded += 1;
            } else {
                self.apply(record);
            }
        }
        for part in &self.parts {
            let Some(walked) = part.walked.as_ref().filter(|_| part.scanned.is_of_use(&self.epochs)) else {
                continue;
            };
            let number = part.scanned.number;
            for (from, to) in &walked.gaps {
                self.report.damage(number, *from, Damage::Gap(*to));
            }
            // Where the log is torn, and what is missing of the last segments, was told when it was opened.
            let is_open = matches!(walked.stop, Stop::Clean | Stop::Garbage);
            if is_open && part.place == Place::Before && part.scanned.walked.is_none() {
                self.report.damage(number, walked.end, Damage::Rest);
            }
        }
    }

    /// Lets a record count.
    fn apply(&mut self, record: Pending) {
        let Pending { part, offset, header, note } = record;
        let part = &mut self.parts[part];
        let segment = SegmentRef { number: part.scanned.number, generation: part.scanned.generation };
        let id = QueueId::from_bits(header.id);
        let is_foreign =
            Kind::from_number(header.kind).is_some_and(Kind::names_message) && id.shard() != self.shard;
        match note {
            Note::Nothing => {}
            Note::Unknown => {
                part.unknown += 1;
                self.report.damage(segment.number, offset, Damage::UnknownKind(header.kind));
            }
            Note::Malformed(malformed) => {
                self.report.damage(segment.number, offset, Damage::Malformed(malformed));
            }
            Note::Message(_) | Note::Transition(_) | Note::Retired if is_foreign => {
                let malformed = Malformed("a message of another journal shard");
                self.report.damage(segment.number, offset, Damage::Malformed(malformed));
            }
            Note::Retired => {
                self.retired.insert(id);
                self.building.remove(&id);
            }
            Note::Message(_) | Note::Transition(_) if self.retired.contains(id) => {}
            Note::Transition(states) => {
                let building = self.building.entry(id).or_default();
                for (index, state) in states {
                    let (sequence, segment) = (header.sequence, Some(segment.number));
                    building.set(FoundState { index, sequence, segment, state });
                }
            }
            Note::Message(message) => {
                let MessageFacts { extents, facts, states, recipients } = *message;
                let placement = Placement {
                    segment,
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

    fn adopt_built(&mut self, journal: &mut Journal, id: QueueId, building: Building) -> Option<Restored> {
        let Building { message, mut states } = building;
        let Found { mut placement, facts, .. } = message?;
        states.retain(|found| found.index < placement.recipients);
        states.sort_by_key(|found| found.index);
        let mut transitions: BTreeSet<SegmentRef> = placement.transitions.iter().copied().collect();
        for number in states.iter().filter_map(|found| found.segment) {
            let generation = self.generations.get(&number).map_or(0, |generation| generation.number);
            transitions.insert(SegmentRef { number, generation });
        }
        placement.transitions = transitions.into_iter().collect();
        let states = states.into_iter().map(|found| (found.index, found.state)).collect();
        self.adopt(journal, id, Entry { placement, states, facts }, Indexed::No)
    }

    fn adopt(
        &mut self,
        journal: &mut Journal,
        id: QueueId,
        mut entry: Entry,
        indexed: Indexed,
    ) -> Option<Restored> {
        let placement = &mut entry.placement;
        let SegmentRef { number, generation } = placement.segment;
        if !self.is_there(number, generation) {
            return None; // Its segment was used again: it had ended.
        }
        if placement.extents.iter().any(|e: &Extent| !self.is_there(e.segment, e.generation)) {
            self.report.damage(number, placement.offset, Damage::ContentLost(id));
            return None;
        }
        if !placement.transitions.iter().all(|segment| self.is_there(segment.number, segment.generation)) {
            let mut transitions = mem::take(&mut placement.transitions).into_vec();
            transitions.retain(|segment| self.is_there(segment.number, segment.generation));
            placement.transitions = transitions.into();
        }
        journal.adopt(id, placement);
        Some(Restored { id, entry, indexed })
    }

    /// Whether records of this use of a segment count.
    fn is_there(&self, number: u32, generation: u32) -> bool {
        self.generations.get(&number).is_some_and(|it| it.number == generation && it.read_from.is_some())
    }
}

impl Part {
    /// Leaves out what lies before a checkpoint.
    fn begin_behind(&mut self, checkpoint: &Checkpoint) -> Result<(), RecoveryError> {
        let scanned = &self.scanned;
        let here = SegmentRef { number: scanned.number, generation: scanned.generation };
        if let Some(cursor) = checkpoint.cursors.iter().find(|cursor| cursor.segment == here) {
            // What an older run wrote there does not count any more.
            let before = (checkpoint.position.0.saturating_sub(1), checkpoint.epoch);
            self.from = (cursor.offset.max(HEADER_PAGE), Some(before));
            if self.from.0 > scanned.record_end() {
                return Err(RecoveryError::Checkpoint);
            }
        } else if scanned.begin < checkpoint.position.0 {
            self.from.0 = TOLD;
        }
        Ok(())
    }
}
