//! The life of segment files: made ahead, filled, sealed, recycled in order.
//!
//! ```text
//!   Create ─▶ Preparing ─▶ Ready ─▶ Active ─▶ Sealed ──nothing live, first in its class──▶ Preparing (Recycle)
//!                                                   └─────────── spares enough ──────────▶ Removing
//! ```
//!
//! Order matters: a message must be gone from the disk before the record that retired it is. Within a class that is
//! so because segments go first in, first out. Across the classes it is so because the record that retires a message
//! is written to the class its message is in, and a cold segment waits for every hot one that is older than its end.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

use bytes::Bytes;
use mail::{JournalShard, QueueId};

use crate::{AppendError, Limits, SegmentHeader, Witness, record::Kind};

/// Which stream a segment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Where everything new goes; drains by itself.
    Hot,
    /// Where survivors of recycling go.
    Cold,
}

/// What the shard must do with files, in its own time. Each is given once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Make the file, fill it with zeros to `size`, write the header page, sync file and directory, then call
    /// [`crate::Journal::on_prepared`], or [`crate::Journal::on_create_failed`].
    Create {
        /// The segment's number.
        segment: u32,
        /// The length of the file.
        size: u64,
        /// Its first bytes.
        header: Bytes,
    },
    /// Write the header page over the old one and sync, then call [`crate::Journal::on_prepared`].
    Recycle {
        /// The segment's number.
        segment: u32,
        /// Its first bytes.
        header: Bytes,
    },
    /// Unlink the file, sync the directory, then call [`crate::Journal::on_removed`].
    Remove {
        /// The segment's number.
        segment: u32,
    },
    /// Move what keeps the oldest segment: answer each id once, with [`crate::Journal::append_rescued`],
    /// [`crate::Journal::append_states`], [`crate::Journal::append_retired`] or
    /// [`crate::Journal::on_rescue_failed`].
    Rescue {
        /// Messages whose content or record is there: read it and call `append_rescued`.
        content: Vec<QueueId>,
        /// Messages of which only states are there: call `append_states`.
        states: Vec<QueueId>,
    },
}

/// What room is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// New mail: leaves the reserve alone.
    Mail,
    /// News of recipients. Leaves what must be there to make room.
    Transition,
    /// The end of a message: makes room before long.
    Retire,
    /// Moving what lives out of a segment: makes room at once.
    Rescue,
}

impl Purpose {
    /// How many of the segments that can be had it leaves to those below it.
    const fn leaves(self, limits: &Limits) -> usize {
        match self {
            Self::Mail => limits.reserve_segments as usize,
            Self::Transition => 2,
            Self::Retire => 1,
            Self::Rescue => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Preparing,
    Ready,
    Active,
    Sealed,
    Removing,
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) generation: u32,
    pub(crate) size: u64,
    pub(crate) state: State,
    pub(crate) class: Class,
    /// Sequence of its first record.
    pub(crate) begin: u64,
    /// No record in it has this sequence or a higher one.
    pub(crate) end: u64,
    /// How many live things are in it.
    pub(crate) live: u32,
    /// Their bytes.
    pub(crate) live_bytes: u64,
    /// Bytes that were never used when it was sealed, or may not have been: moving what lives does not win them.
    pub(crate) waste: u64,
}

impl Segment {
    fn dead_bytes(&self) -> u64 {
        self.size.saturating_sub(self.live_bytes + self.waste)
    }
}

#[derive(Debug)]
pub(crate) struct Segments {
    shard: JournalShard,
    limits: Limits,
    table: BTreeMap<u32, Segment>,
    /// Active, sealed and going segments by age.
    ages: [VecDeque<u32>; 2],
    ready: VecDeque<u32>,
    next_generation: u32,
    next_number: u32,
    wanted: Wanted,
    creation: Creation,
    /// Bytes released since orders were last thought about; `None` asks for thought at once.
    released: Option<u64>,
    remakes: Vec<(u32, Remake, u64)>,
    older: Older,
}

/// Whether it is known what lives in the segments that were used before the log was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Older {
    Unknown,
    Known,
}

/// What was found in a segment that was used before the log was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents {
    pub(crate) segment: u32,
    /// Where its records end, if it was read.
    pub(crate) used: Option<u64>,
    /// No record in it has this sequence or a higher one, as far as it was read.
    pub(crate) end: u64,
}

/// How a file becomes a segment again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remake {
    /// It was never finished.
    Create,
    /// It is whole but what it holds does not count.
    Recycle,
}

// A journal shard that nobody writes to takes no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    No,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Creation {
    Possible,
    /// The disk had no room the last time.
    Blocked,
}

impl Class {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Hot => 0,
            Self::Cold => 1,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Hot),
            1 => Some(Self::Cold),
            _ => None,
        }
    }
}

impl Segments {
    pub(crate) fn new(shard: JournalShard, limits: Limits, next_generation: u32, next_number: u32) -> Self {
        Self {
            shard,
            limits,
            table: BTreeMap::new(),
            ages: [VecDeque::new(), VecDeque::new()],
            ready: VecDeque::new(),
            next_generation,
            next_number,
            wanted: Wanted::No,
            creation: Creation::Possible,
            released: None,
            remakes: Vec::new(),
            older: Older::Unknown,
        }
    }

    /// Takes over a segment that recovery found; those of a class oldest first.
    pub(crate) fn adopt(&mut self, number: u32, segment: Segment) {
        match segment.state {
            State::Ready => self.ready.push_back(number),
            State::Active | State::Sealed => {
                self.ages[segment.class as usize].push_back(number);
                self.wanted = Wanted::Yes;
            }
            State::Preparing | State::Removing => {}
        }
        self.next_number = self.next_number.max(number + 1);
        self.table.insert(number, segment);
    }

    /// Takes over a file that holds nothing of worth and must be made anew.
    pub(crate) fn adopt_blank(&mut self, number: u32, remake: Remake, len: u64) {
        self.next_number = self.next_number.max(number + 1);
        self.remakes.push((number, remake, len));
    }

    /// Makes a ready segment the active one of a class.
    pub(crate) fn open(&mut self, class: Class, begin: u64, purpose: Purpose) -> Result<u32, AppendError> {
        self.may_open(purpose)?;
        let number = self.ready.pop_front().expect("may_open found one");
        let segment = self.table.get_mut(&number).expect("a ready segment is in the table");
        (segment.state, segment.class, segment.begin) = (State::Active, class, begin);
        self.ages[class as usize].push_back(number);
        self.released = None;
        Ok(number)
    }

    /// Whether [`Self::open`] will succeed.
    pub(crate) fn may_open(&mut self, purpose: Purpose) -> Result<(), AppendError> {
        if self.wanted == Wanted::No {
            (self.wanted, self.released) = (Wanted::Yes, None);
        }
        // The reserve is of no use before it is on the disk, so on a full disk only what is there counts.
        if self.available() <= purpose.leaves(&self.limits) {
            Err(AppendError::StorageFull)
        } else if self.ready.is_empty() {
            Err(AppendError::NotReady)
        } else {
            Ok(())
        }
    }

    pub(crate) fn seal(&mut self, number: u32, end: u64, waste: u64) {
        let segment = self.table.get_mut(&number).expect("the active segment is in the table");
        (segment.state, segment.end, segment.waste) = (State::Sealed, end, waste);
        self.released = None;
    }

    pub(crate) fn hold(&mut self, number: u32, bytes: u64) {
        if let Some(segment) = self.table.get_mut(&number) {
            segment.live += 1;
            segment.live_bytes += bytes;
        }
    }

    pub(crate) fn release(&mut self, number: u32, bytes: u64) {
        let Some(segment) = self.table.get_mut(&number) else { return };
        segment.live = segment.live.checked_sub(1).expect("released as often as held");
        segment.live_bytes = segment.live_bytes.saturating_sub(bytes);
        let enough = |released: &u64| *released < segment.size / 16;
        self.released = self.released.map(|sum| sum + bytes).filter(enough).filter(|_| segment.live > 0);
    }

    /// It is known what lives in a segment that was held for that.
    pub(crate) fn on_contents_known(&mut self, contents: &Contents) {
        if let Some(segment) = self.table.get_mut(&contents.segment).filter(|s| s.state == State::Sealed) {
            // What has not been read may have been sealed for want of room for a long record. To take that for dead would
            // have full segments moved, to win what nobody can use.
            let longest = u64::from(self.limits.inline_max);
            segment.waste = match contents.used {
                Some(used) => segment.size.saturating_sub(used),
                None if segment.waste > 0 => segment.waste,
                None => longest.min(segment.size.saturating_sub(segment.live_bytes)),
            };
            segment.end = segment.end.max(contents.end);
        }
        self.release(contents.segment, 0);
    }

    /// It is known of all.
    pub(crate) fn on_all_known(&mut self) {
        (self.older, self.released) = (Older::Known, None);
    }

    /// More is durable than before: what was dead before it was durable can go now.
    pub(crate) fn on_durable(&mut self) {
        let dead = |n: &u32| self.table[n].state == State::Sealed && self.table[n].live == 0;
        if self.ages.iter().filter_map(VecDeque::front).any(dead) {
            self.released = None;
        }
    }

    /// The file is there with its header page, durable.
    pub(crate) fn on_prepared(&mut self, number: u32) {
        let segment = self.table.get_mut(&number).expect("prepared a segment we know");
        assert_eq!(segment.state, State::Preparing, "segment {number} was not ordered");
        segment.state = State::Ready;
        self.forget_age(number);
        self.ready.push_back(number);
    }

    /// A file could not be made: it is not there, and until [`Self::on_space`] no other is ordered. Or one could not be
    /// recycled: what it held may come back, so it and all that are younger stay as they are.
    pub(crate) fn on_create_failed(&mut self, number: u32) {
        let known = self.table.get_mut(&number).filter(|segment| segment.state == State::Preparing);
        let segment = known.expect("the segment was ordered");
        if self.ages.iter().any(|ages| ages.contains(&number)) {
            segment.state = State::Removing;
        } else {
            self.table.remove(&number);
            self.creation = Creation::Blocked;
        }
    }

    pub(crate) fn on_removed(&mut self, number: u32) {
        let segment = self.table.remove(&number);
        assert!(segment.is_some_and(|s| s.state == State::Removing), "segment {number} was not to go");
        self.forget_age(number);
        self.on_space();
    }

    /// What can be moved has changed: orders are thought about at once.
    pub(crate) fn reconsider(&mut self) {
        self.released = None;
    }

    pub(crate) fn on_space(&mut self) {
        (self.creation, self.released) = (Creation::Possible, None);
    }

    /// Appends what is to be done with files. `durable`: everything before it is.
    /// Answers whether it was time to think about it.
    /// `witnessed`: a durable record says that everything before it is durable.
    pub(crate) fn orders(&mut self, witness: &Witness, witnessed: u64, orders: &mut Vec<Order>) -> bool {
        if self.released.is_some() {
            return false;
        }
        self.released = Some(0);
        for (number, remake, len) in mem::take(&mut self.remakes) {
            orders.push(match remake {
                Remake::Create => self.create(number, witness),
                Remake::Recycle => {
                    Order::Recycle { segment: number, header: self.prepare(number, len, witness) }
                }
            });
        }
        for class in [Class::Hot, Class::Cold] {
            if let Some(number) = self.recyclable(class, witness.synced_to) {
                orders.push(self.recycle(number, witness, witnessed));
            }
        }
        if self.wanted == Wanted::Yes && self.creation == Creation::Possible {
            while self.spares() < self.limits.reserve_segments as usize + 1
                && self.table.len() < self.limits.segments_max as usize
            {
                self.next_number += 1;
                orders.push(self.create(self.next_number - 1, witness));
            }
        }
        true
    }

    /// The oldest segment of a class, when it is worth moving out what lives in it. `cold_room`: what the active cold
    /// segment can still take.
    pub(crate) fn worth_rescue(&self, durable: u64, cold_room: u64) -> Option<u32> {
        if self.older == Older::Unknown {
            return None; // What seems to be nearly empty may be full.
        }
        let pressed = self.is_pressed();
        let mut oldest: Vec<_> = [Class::Hot, Class::Cold]
            .into_iter()
            .filter_map(|class| {
                let ages = &self.ages[class as usize];
                let sealed = ages.iter().map(|n| &self.table[n]).filter(|s| s.state == State::Sealed);
                let dead: u64 = sealed.map(Segment::dead_bytes).sum();
                Some((dead, *ages.front()?))
            })
            .collect();
        oldest.sort_by_key(|(dead, _)| std::cmp::Reverse(*dead));
        let dead_in_all: u64 = oldest.iter().map(|(dead, _)| dead).sum();
        // Less than a segment's worth of dead bytes would not give a segment back.
        let worth = |(dead, number): &(u64, u32)| {
            let segment = &self.table[number];
            let few = segment.live_bytes * 100 <= segment.size * u64::from(self.limits.rescue_percent);
            let room = cold_room + self.limits.segment_size / 10 * 9 * self.ready.len() as u64;
            segment.state == State::Sealed
                && segment.live > 0
                && segment.end <= durable
                && room >= segment.live_bytes
                && ((few && *dead >= segment.size) || (pressed && dead_in_all >= segment.size))
        };
        oldest.iter().find(|candidate| worth(candidate)).map(|(_, number)| *number)
    }

    /// The active hot segment, when it alone keeps a cold one from being recycled while room is scarce.
    pub(crate) fn worth_sealing(&self, durable: u64) -> Option<u32> {
        let cold = *self.ages[Class::Cold as usize].front()?;
        let hot = *self.ages[Class::Hot as usize].front()?;
        let cold = &self.table[&cold];
        let waits = cold.state == State::Sealed
            && cold.live == 0
            && cold.end <= durable
            && self.table[&hot].state == State::Active
            && self.table[&hot].begin < cold.end;
        (self.is_pressed() && waits && !self.ready.is_empty()).then_some(hot)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Segment> {
        self.table.get(&number)
    }

    /// The length of the smallest segment that may be opened: limits change, files stay as long as they are used.
    pub(crate) fn smallest(&self) -> u64 {
        self.table.values().map(|segment| segment.size).fold(self.limits.segment_size, u64::min)
    }

    /// How many files there are, and how many of them wait to be used.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.table.len(), self.ready.len())
    }

    pub(crate) fn bytes(&self) -> (u64, u64) {
        self.table.values().fold((0, 0), |(size, live), s| (size + s.size, live + s.live_bytes))
    }

    pub(crate) const fn next_generation(&self) -> u32 {
        self.next_generation
    }

    fn is_pressed(&self) -> bool {
        self.available() <= self.limits.reserve_segments as usize + 1
    }

    /// Segments that are or can be made ready without moving anything.
    fn available(&self) -> usize {
        let creatable = match self.creation {
            Creation::Possible => (self.limits.segments_max as usize).saturating_sub(self.table.len()),
            Creation::Blocked => 0,
        };
        let dead = |class: Class| {
            let going = |n: &&u32| {
                let segment = &self.table[*n];
                segment.state == State::Sealed && segment.live == 0 && !self.waits_for_hot(class, segment)
            };
            self.ages[class as usize].iter().take_while(going).count()
        };
        self.spares() + creatable + dead(Class::Hot) + dead(Class::Cold)
    }

    fn spares(&self) -> usize {
        self.table.values().filter(|s| matches!(s.state, State::Ready | State::Preparing)).count()
    }

    fn recyclable(&self, class: Class, durable: u64) -> Option<u32> {
        let number = *self.ages[class as usize].front()?;
        let segment = &self.table[&number];
        let dead = segment.state == State::Sealed && segment.live == 0 && segment.end <= durable;
        (dead && !self.waits_for_hot(class, segment)).then_some(number)
    }

    fn waits_for_hot(&self, class: Class, segment: &Segment) -> bool {
        class == Class::Cold
            && self.ages[Class::Hot as usize].iter().any(|hot| self.table[hot].begin < segment.end)
    }

    fn recycle(&mut self, number: u32, witness: &Witness, witnessed: u64) -> Order {
        let segment = &self.table[&number];
        let size = segment.size;
        let spare = self.spares() >= self.limits.reserve_segments as usize + self.limits.spares_max as usize;
        // What it alone can tell of the log must not go with the file; a new header page would tell it.
        if (spare || size != self.limits.segment_size) && segment.end <= witnessed {
            self.table.get_mut(&number).expect("seen above").state = State::Removing;
            return Order::Remove { segment: number };
        }
        Order::Recycle { segment: number, header: self.prepare(number, size, witness) }
    }

    fn create(&mut self, segment: u32, witness: &Witness) -> Order {
        let size = self.limits.segment_size;
        Order::Create { segment, size, header: self.prepare(segment, size, witness) }
    }

    /// Gives the segment a new generation, and its header page.
    fn prepare(&mut self, number: u32, size: u64, witness: &Witness) -> Bytes {
        let generation = self.next_generation;
        self.next_generation = generation.checked_add(1).expect("a generation is left");
        let segment = Segment {
            generation,
            size,
            state: State::Preparing,
            class: Class::Hot,
            begin: 0,
            end: 0,
            live: 0,
            live_bytes: 0,
            waste: 0,
        };
        // The class it had decides in whose order it stands until the new header page is durable.
        self.table.insert(number, segment);
        SegmentHeader { shard: self.shard, number, generation, size, witness: *witness }.encode()
    }

    fn forget_age(&mut self, number: u32) {
        for ages in &mut self.ages {
            ages.retain(|n| *n != number);
        }
        self.released = None;
    }
}

impl Kind {
    /// Whether a group that holds such a record must be synced for it.
    pub(crate) const fn needs_sync(self) -> bool {
        match self {
            Self::Message | Self::Transition | Self::Retired => true,
            Self::Begin | Self::End | Self::Chunk => false,
        }
    }
}
