//! What the records say: which messages live, and how they stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use mail::QueueId;

use super::{
    Building, Damage, Fate, Found, FoundState, Note, Pending, Recovery, RecoveryError, Retired, Scanned,
};
use crate::{
    Entry, Placement, SegmentRef,
    codec::Malformed,
    format::Header,
    record::{Extent, Kind, MessageFacts, RecipientState, decode_message_facts, decode_transition},
};

impl Recovery {
    /// Takes a record whose head is whole.
    pub(super) fn take(&mut self, segment: usize, offset: u64, header: Header, meta: &[u8]) {
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
    pub(super) fn apply(&mut self, pending: Pending) {
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

    pub(super) fn collect_entries(&mut self) -> Vec<(QueueId, Entry)> {
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
