//! What is known of each segment: its header page, where its records end, whether it is used again.

use std::collections::BTreeSet;

use super::{
    Damage, FIRST_READ, Fate, Read, Recovery, RecoveryError, Scanned, SegmentFile, Stage, Stop, Torn,
};
use crate::{
    Class, HEADER_PAGE, SegmentHeader, SegmentHeaderError, Witness,
    format::{Header, HeaderFault},
    record::Payload,
    segments::{Remake, Segment, Segments, State},
};

impl Recovery {
    pub(super) fn want_header(&mut self, at: usize) {
        if let Some(scanned) = self.segments.get(at) {
            self.want = Some(Read { segment: scanned.number, offset: 0, len: FIRST_READ });
            self.phase = Stage::Headers(at);
        } else {
            self.begin_walk();
        }
    }

    pub(super) fn on_header(&mut self, at: usize, bytes: &[u8]) {
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

    pub(super) fn settle_segments(&mut self) -> BTreeSet<u32> {
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
}

impl Scanned {
    pub(super) const fn new(file: SegmentFile) -> Self {
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

    pub(super) const fn is_used(&self) -> bool {
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

    pub(super) fn record_end(&self) -> u64 {
        self.void.map_or(self.walked, |void| void.min(self.walked))
    }

    pub(super) fn hand_over(&self, segments: &mut Segments, end: u64, tails: &BTreeSet<u32>) {
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
