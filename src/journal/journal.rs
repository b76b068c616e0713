//! The machine: what is appended, what is to be written and synced, what is durable, what is live.

mod append;
mod group;
mod live;
mod rescue;
mod tail;
mod terms;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::BytesMut;
use mail::{JournalShard, QueueId};

pub use self::terms::{
    AppendError, AppendMessage, Appended, Content, Draft, Failure, Group, GroupId, Limits, Location,
    Position, Span, Usage, Write,
};
use self::{
    append::DraftParts,
    group::InFlight,
    live::{Live, More, NOWHERE},
    rescue::Rescue,
    tail::Tail,
};
use crate::{
    Checkpoint, Class, Cursor, HEADER_PAGE, Order, Placement, SegmentRef, Witness,
    format::{RECORD_HEADER, record_len},
    record::{Extent, head_len},
    segments::{Contents, Purpose, Segments},
};

/// The log of one journal shard.
#[derive(Debug)]
pub struct Journal {
    shard: JournalShard,
    limits: Limits,
    segments: Segments,
    smallest_segment: u64,
    tails: [Option<Tail>; 2],
    live: BTreeMap<u64, Live>,
    drafts: BTreeMap<u64, DraftParts>,
    next_number: u64,
    next_draft: u64,
    sequence: u64,
    durable: u64,
    epoch: u64,
    epoch_start: u64,
    /// Syncs that must be done before anything may be written: what recovery took over but nobody synced.
    unsettled: Vec<u32>,
    gathered: u64,
    needs_sync: bool,
    /// Written to since their last sync.
    dirty: BTreeSet<u32>,
    in_flight: Option<InFlight>,
    /// The `synced_to` of the last record.
    stamp: u64,
    /// The highest `synced_to` of a durable record of this run.
    witnessed: u64,
    groups: u64,
    failure: Option<Failure>,
    /// What stops to live when the log is durable to there.
    releases: VecDeque<(u64, u32, u64)>,
    rescue: Rescue,
    scratch: BytesMut,
}

const END_LEN: u64 = RECORD_HEADER as u64;
const BEGIN_LEN: u64 = record_len(9, 0);

/// What recovery hands over.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) shard: JournalShard,
    pub(crate) limits: Limits,
    pub(crate) segments: Segments,
    pub(crate) next_number: u64,
    pub(crate) sequence: u64,
    /// Less than `sequence` when there is something to settle.
    pub(crate) durable: u64,
    pub(crate) epoch: u64,
    pub(crate) unsettled: Vec<u32>,
}

impl Journal {
    pub(crate) fn open(opening: Opening) -> Self {
        assert!(opening.limits.reserve_segments >= 3, "the reserve is too small to get room again");
        assert!(opening.limits.segment_size >= 4 * HEADER_PAGE, "segments are too small");
        let Opening { shard, limits, segments, next_number, sequence, durable, epoch, unsettled } = opening;
        Self {
            shard,
            limits,
            smallest_segment: segments.smallest(),
            segments,
            tails: [None, None],
            live: BTreeMap::new(),
            drafts: BTreeMap::new(),
            next_number,
            next_draft: 0,
            sequence,
            durable,
            epoch,
            epoch_start: sequence,
            unsettled,
            gathered: 0,
            needs_sync: false,
            dirty: BTreeSet::new(),
            in_flight: None,
            stamp: 0,
            witnessed: 0,
            groups: 0,
            failure: None,
            releases: VecDeque::new(),
            rescue: Rescue::default(),
            scratch: BytesMut::new(),
        }
    }

    /// Goes on where recovery found the end of an unsealed segment.
    pub(crate) fn resume_tail(&mut self, class: Class, segment: u32, offset: u64) {
        let known = self.segments.get(segment).expect("recovery adopted it");
        let tail = Tail {
            segment,
            generation: known.generation,
            size: known.size,
            offset,
            sealed: false,
            writes: Vec::new(),
            run: BytesMut::new(),
        };
        self.tails[class as usize] = Some(tail);
    }

    /// Takes over a message that recovery found.
    pub(crate) fn adopt(&mut self, id: QueueId, placement: &Placement) {
        let transitions: Vec<u32> = placement.transitions.iter().map(|segment| segment.number).collect();
        let (first, others) = transitions.split_first().map_or((NOWHERE, &[][..]), |(f, o)| (*f, o));
        let live = Live {
            segment: placement.segment.number,
            offset: (placement.offset / 8) as u32,
            meta_len: placement.meta_len,
            inline_len: placement.inline_len,
            recipients: placement.recipients,
            transition: first,
            more: More::new(placement.extents.clone(), others.to_vec()),
        };
        live.for_each_hold(|segment, bytes| self.segments.hold(segment, bytes));
        self.live.insert(id.number(), live);
    }

    /// Whether records may still be written to a segment.
    pub fn is_open(&self, segment: u32) -> bool {
        self.tails.iter().flatten().any(|tail| tail.segment == segment && !tail.sealed)
    }

    /// What lived before the log was opened is taken over. Segments that were held for that may be used again.
    pub(crate) fn on_older_known(&mut self, segments: impl IntoIterator<Item = Contents>) {
        for contents in segments {
            self.segments.on_contents_known(&contents);
        }
        self.segments.on_all_known();
    }

    /// Appends what is to be done with files. Call it after each [`Self::on_durable`], [`Self::on_prepared`],
    /// [`Self::on_removed`] and [`AppendError::NotReady`].
    pub fn orders(&mut self, orders: &mut Vec<Order>) {
        // Before it is settled, what recovery took for dead may come back to life.
        if self.failure.is_some() || !self.unsettled.is_empty() {
            return;
        }
        let witness = Witness {
            synced_to: self.durable,
            epoch: self.epoch,
            epoch_start: self.epoch_start,
            next_number: self.next_number,
        };
        let due = self.segments.orders(&witness, self.witnessed, orders);
        if let Some(hot) = due.then(|| self.segments.worth_sealing(self.durable)).flatten() {
            self.seal(Class::Hot, hot);
            self.needs_sync = true;
        }
        if due || self.rescue.segment.is_some() {
            self.order_rescue(orders);
        }
    }

    /// [`Order::Create`] or [`Order::Recycle`] is done and durable.
    pub fn on_prepared(&mut self, segment: u32) {
        self.segments.on_prepared(segment);
    }

    /// [`Order::Create`] failed and the file is gone: no other is ordered before [`Self::on_space`]. Or
    /// [`Order::Recycle`] failed: nothing older or younger of its class is recycled until the next start.
    pub fn on_create_failed(&mut self, segment: u32) {
        self.segments.on_create_failed(segment);
    }

    /// [`Order::Remove`] is done and durable.
    pub fn on_removed(&mut self, segment: u32) {
        self.segments.on_removed(segment);
    }

    /// The disk may have room again: segments are ordered as if creating had never failed, and messages that could
    /// not be moved are asked for again.
    pub fn on_space(&mut self) {
        self.rescue.stuck.clear();
        self.rescue.barren = None;
        self.segments.on_space();
    }

    /// A message that [`Order::Rescue`] named cannot be moved; it is not asked for again before [`Self::on_space`].
    /// [`AppendError::NotReady`] is no reason to call this: it passes.
    pub fn on_rescue_failed(&mut self, id: QueueId) {
        if self.rescue.pending.remove(&id.number()) {
            self.rescue.stuck.insert(id.number());
        }
    }

    /// Everything before this place is on stable storage.
    pub const fn durable_to(&self) -> Position {
        Position(self.durable)
    }

    /// Everything appended lies before this place.
    pub const fn end(&self) -> Position {
        Position(self.sequence)
    }

    /// What failed, if something did.
    pub const fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// The journal shard.
    pub const fn shard(&self) -> JournalShard {
        self.shard
    }

    /// Whether new mail can be expected to find room: ask before a client sends it.
    ///
    /// # Errors
    /// [`AppendError::StorageFull`] or [`AppendError::Failed`].
    pub fn accepts_mail(&mut self) -> Result<(), AppendError> {
        if self.failure.is_some() {
            return Err(AppendError::Failed);
        }
        let need = RECORD_HEADER as u64 + u64::from(self.limits.inline_max);
        match &self.tails[Class::Hot as usize] {
            Some(tail) if tail.room() >= need => Ok(()),
            Some(_) | None => match self.segments.may_open(Purpose::Mail) {
                Err(AppendError::NotReady) => Ok(()),
                other => other,
            },
        }
    }

    /// Where a live message can be read. Its bytes are in the files once the group that holds them is durable.
    pub fn locate(&self, id: QueueId) -> Option<Location> {
        let live = self.live.get(&id.number()).filter(|_| id.shard() == self.shard)?;
        let offset = u64::from(live.offset) * 8;
        let head_len = head_len(live.meta_len) as u64;
        let head = Span { segment: live.segment, offset, len: head_len };
        let mut content: Vec<_> = live.extents().iter().map(Extent::span).collect();
        if live.inline_len > 0 {
            content.push(Span {
                segment: live.segment,
                offset: offset + head_len,
                len: u64::from(live.inline_len),
            });
        }
        Some(Location { head, content })
    }

    /// Where everything lies that keeps a message alive, for its [`crate::Entry`].
    pub fn placement(&self, id: QueueId) -> Option<Placement> {
        let live = self.live.get(&id.number()).filter(|_| id.shard() == self.shard)?;
        let reference = |number: u32| SegmentRef {
            number,
            generation: self.segments.get(number).map_or(0, |segment| segment.generation),
        };
        Some(Placement {
            segment: reference(live.segment),
            offset: u64::from(live.offset) * 8,
            meta_len: live.meta_len,
            inline_len: live.inline_len,
            recipients: live.recipients,
            extents: live.extents().into(),
            transitions: live.transitions().map(reference).collect(),
        })
    }

    /// The ids of all live messages, in order.
    pub fn live(&self) -> impl Iterator<Item = QueueId> {
        self.live.keys().map(|number| QueueId::new(self.shard, *number))
    }

    /// The place to date entries with that tell everything appended so far.
    ///
    /// Store it with the entries only when [`Self::durable_to`] has reached its position.
    pub fn checkpoint(&self) -> Checkpoint {
        let cursor = |class: Class| {
            let tail = self.tails[class as usize].as_ref().filter(|tail| !tail.sealed)?;
            let segment = SegmentRef { number: tail.segment, generation: tail.generation };
            Some(Cursor { segment, class, offset: tail.offset })
        };
        Checkpoint {
            position: Position(self.sequence),
            epoch: self.epoch,
            next_number: self.next_number,
            next_generation: self.segments.next_generation(),
            cursors: [Class::Hot, Class::Cold].into_iter().filter_map(cursor).collect(),
        }
    }

    /// How much there is of everything.
    pub fn usage(&self) -> Usage {
        let (segments, segments_ready) = self.segments.counts();
        let (bytes, live_bytes) = self.segments.bytes();
        Usage {
            messages: self.live.len(),
            drafts: self.drafts.len(),
            segments,
            segments_ready,
            bytes,
            live_bytes,
            gathered_bytes: self.gathered,
        }
    }

    /// The longest record that fits into an empty segment.
    const fn capacity(&self) -> u64 {
        self.smallest_segment.saturating_sub(HEADER_PAGE + BEGIN_LEN + END_LEN) / 8 * 8
    }
}

#[cfg(test)]
#[path = "crash_test.rs"]
mod crash_test;
#[cfg(test)]
#[path = "journal_test.rs"]
pub(crate) mod test;
