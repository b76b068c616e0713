//! The machine: what is appended, what is to be written and synced, what is durable, what is live.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
};

use bytes::{BufMut, Bytes, BytesMut};
use mail::{Envelope, JournalShard, QueueId};

use crate::{
    Checkpoint, Class, Cursor, HEADER_PAGE, Order, Placement, SegmentRef, Witness,
    format::{Header, META_CEILING, RECORD_HEADER, record_len},
    record::{Extent, Kind, RecipientState, encode_begin, encode_message, encode_states, head_len},
    segments::{Purpose, Segments},
};

/// Upper bounds of one journal shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of a segment file; at most 32 GiB.
    pub segment_size: u64,
    /// Most segment files there may be: the disk budget.
    pub segments_max: u32,
    /// How many of them mail may not take, at least 3: one for transitions, one for the ends of messages, one for
    /// moving what lives, which is how a full journal gets room again.
    pub reserve_segments: u32,
    /// How many drained segments are kept for reuse, above the reserve.
    pub spares_max: u32,
    /// Most content within a message record; what is longer goes into chunks.
    pub inline_max: u32,
    /// Longest meta of a record: bounds recipients, and transitions told at once.
    pub meta_max: u32,
    /// Most bytes that may wait to be written before mail must wait too.
    pub gathered_max: u64,
    /// The oldest segment is emptied by moving when at most this share of it lives.
    pub rescue_percent: u32,
    /// Most messages one [`Order::Rescue`] names.
    pub rescue_batch: usize,
}

/// A place in the log: everything before it, counted in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// A message to be made durable.
#[derive(Clone, Copy, Debug)]
pub struct AppendMessage<'a> {
    /// Its envelope.
    pub envelope: &'a Envelope,
    /// States that differ from [`RecipientState::default`]. New mail usually has none.
    pub states: &'a [(u32, RecipientState)],
    /// Its content.
    pub content: Content<'a>,
}

/// The content of a message, in wire form without dot-stuffing.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// All of it.
    Whole(&'a [Bytes]),
    /// What the draft holds, then the rest. The draft is used up when the append succeeds.
    Draft(&'a Draft, &'a [Bytes]),
}

/// A large message whose content is being written before its end is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Draft(u64);

/// A message has its place in the log; it is ours when [`Journal::durable_to`] reaches `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its id.
    pub id: QueueId,
    /// Where its record ends.
    pub end: Position,
}

/// Why nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No segment is ready, or too much waits to be written: try again after the next [`Journal::on_prepared`] or
    /// [`Journal::on_durable`].
    #[error("the journal has no segment ready")]
    NotReady,
    /// The disk budget is used up but for the reserve.
    #[error("the journal is full")]
    StorageFull,
    /// A write or a sync failed: nothing is appended any more.
    #[error("the journal has failed")]
    Failed,
    /// The record would not fit into a segment.
    #[error("too large for a journal record")]
    TooLarge,
    /// The message is retired, or never was.
    #[error("no such message in the journal")]
    UnknownMessage,
    /// The draft was dropped or used up.
    #[error("no such draft in the journal")]
    UnknownDraft,
}

/// What failed; it is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Bytes were not taken.
    #[error("writing to a segment failed")]
    Write,
    /// What was written may be lost, and a second sync would not tell.
    #[error("syncing a segment failed")]
    Sync,
}

/// What has gathered since the last group. Do all writes, then all syncs, then call [`Journal::on_durable`].
#[derive(Debug)]
#[must_use]
pub struct Group {
    /// Which group this is.
    pub id: GroupId,
    /// What to write where; no two overlap.
    pub writes: Vec<Write>,
    /// Segments to sync after all writes. None: only parts of unfinished messages are in the group.
    pub syncs: Vec<u32>,
    /// What will be durable then.
    pub end: Position,
}

/// The name of a group in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupId(u64);

/// Bytes for one place in a segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The segment.
    pub segment: u32,
    /// Where they go.
    pub offset: u64,
    /// The bytes, in order.
    pub slices: Vec<Bytes>,
    /// How many they are in all.
    pub len: u64,
}

/// Where a live message can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The head of its record, for [`crate::record::read_message`].
    pub head: Span,
    /// Its content, in order.
    pub content: Vec<Span>,
}

/// A run of bytes in a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The segment.
    pub segment: u32,
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

/// How much there is of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Live messages.
    pub messages: usize,
    /// Open drafts.
    pub drafts: usize,
    /// Segment files.
    pub segments: usize,
    /// Those that wait to be used.
    pub segments_ready: usize,
    /// Length of all segment files.
    pub bytes: u64,
    /// Bytes in them that live.
    pub live_bytes: u64,
    /// Bytes that wait to be written.
    pub gathered_bytes: u64,
}

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

#[derive(Clone, Copy, Debug)]
struct InFlight {
    id: GroupId,
    /// What will be durable; nothing when the group is not synced.
    end: Option<u64>,
    stamp: u64,
}

/// An active segment, and what waits to be written to it.
#[derive(Debug)]
struct Tail {
    segment: u32,
    generation: u32,
    size: u64,
    offset: u64,
    /// Nothing more goes into the segment, which may even be in use elsewhere by now.
    sealed: bool,
    /// Complete writes to this and, before it, to segments just sealed.
    writes: Vec<Write>,
    /// Headers and metas that are not yet a slice of the last write.
    run: BytesMut,
}

/// What is kept in memory of a live message: 32 bytes, and more only for those with chunks or scattered states.
#[derive(Debug)]
struct Live {
    segment: u32,
    /// In units of 8 bytes.
    offset: u32,
    meta_len: u32,
    inline_len: u32,
    recipients: u32,
    /// The segment of the transition that counts; `NOWHERE` when there is none.
    transition: u32,
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    extents: Box<[Extent]>,
    /// Further segments with transitions that count.
    transitions: Vec<u32>,
}

#[derive(Debug)]
struct DraftParts {
    class: Class,
    extents: Vec<Extent>,
    size: u64,
}

/// The emptying of the oldest segment, some messages at a time.
#[derive(Debug, Default)]
struct Rescue {
    segment: Option<u32>,
    cursor: u64,
    /// Given out, not answered.
    pending: BTreeSet<u64>,
    /// Could not be read.
    stuck: BTreeSet<u64>,
    found: usize,
    /// Made of drafts: they cannot be read, and so not be moved, before their records at these places are durable.
    arriving: VecDeque<(u64, u64)>,
    /// A segment in which the last pass found nothing to move, and how much lived in it then.
    barren: Option<(u32, u32)>,
}

const NOWHERE: u32 = u32::MAX;
/// What a transition is taken to weigh when the share that lives is reckoned.
const TRANSITION_WEIGHT: u64 = 128;
const END_LEN: u64 = RECORD_HEADER as u64;
const BEGIN_LEN: u64 = record_len(9, 0);
/// Live messages looked at in one call of [`Journal::orders`].
const RESCUE_STEP: usize = 4096;
static ZEROS: [u8; 8] = [0; 8];

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_size: 256 << 20,
            segments_max: 256,
            reserve_segments: 3,
            spares_max: 4,
            inline_max: 1 << 20,
            meta_max: 4 << 20,
            gathered_max: 64 << 20,
            rescue_percent: 25,
            rescue_batch: 64,
        }
    }
}

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

    /// What lived before the log was opened is taken over. Segments that were held for that may be used again, each
    /// with how many bytes of it were never used, if that is known.
    pub(crate) fn on_older_known(&mut self, segments: impl IntoIterator<Item = (u32, Option<u64>)>) {
        for (number, waste) in segments {
            self.segments.on_contents_known(number, waste);
        }
        self.segments.on_all_known();
    }

    /// Appends new mail and gives it its id.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn append_message(&mut self, message: &AppendMessage<'_>) -> Result<Appended, AppendError> {
        let id = self.reserve_id();
        let end = self.append_reserved(id, message)?;
        Ok(Appended { id, end })
    }

    /// The id of a message that is to be appended: its trace fields name it before its end is received. An id that
    /// is never appended is not given out again, unless a crash comes before the next append.
    ///
    /// # Panics
    /// When the 2^52 numbers of the journal shard are used up.
    pub fn reserve_id(&mut self) -> QueueId {
        let number = self.next_number;
        assert!(number <= QueueId::NUMBER_MAX, "message numbers are used up");
        self.next_number = number + 1;
        QueueId::new(self.shard, number)
    }

    /// Appends new mail under an id of [`Self::reserve_id`].
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended, and the id may be used for another try.
    ///
    /// # Panics
    /// When the id was not reserved, or is in use.
    pub fn append_reserved(
        &mut self,
        id: QueueId,
        message: &AppendMessage<'_>,
    ) -> Result<Position, AppendError> {
        if self.failure.is_some() {
            // Whoever tries again may have appended it before the failure.
            return Err(AppendError::Failed);
        }
        assert!(id.shard() == self.shard && id.number() < self.next_number, "the id was not reserved");
        assert!(!self.live.contains_key(&id.number()), "the id is in use");
        self.put_message(id, message, Class::Hot, Purpose::Mail)?;
        Ok(Position(self.sequence))
    }

    /// Appends a live message once more, among the survivors; this copy takes the place of the one before it.
    ///
    /// `states` are the current states of all its recipients that are not as they began.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn append_rescued(
        &mut self,
        id: QueueId,
        message: &AppendMessage<'_>,
    ) -> Result<Position, AppendError> {
        if !self.live.contains_key(&id.number()) {
            return Err(AppendError::UnknownMessage);
        }
        self.put_message(id, message, Class::Cold, Purpose::Rescue)?;
        self.rescue.pending.remove(&id.number());
        Ok(Position(self.sequence))
    }

    /// Appends the new states of some recipients; each is the whole state.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn append_transition(
        &mut self,
        id: QueueId,
        states: &[(u32, RecipientState)],
    ) -> Result<Position, AppendError> {
        self.put_transition(id, states, Class::Hot)
    }

    /// Appends the states of all recipients among the survivors: answers [`Order::Rescue`].
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn append_states(
        &mut self,
        id: QueueId,
        states: &[(u32, RecipientState)],
    ) -> Result<Position, AppendError> {
        let end = self.put_transition(id, states, Class::Cold)?;
        self.supersede_transitions(id.number(), Class::Cold);
        self.rescue.pending.remove(&id.number());
        Ok(end)
    }

    /// Appends that all recipients have ended. The message is gone at once, its bytes when this is durable.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn append_retired(&mut self, id: QueueId) -> Result<Position, AppendError> {
        let live = self.live.get(&id.number()).ok_or(AppendError::UnknownMessage)?;
        // In the class of its message, so that it outlives it: see `segments`.
        let class = self.segments.get(live.segment).map_or(Class::Hot, |segment| segment.class);
        self.scratch.clear();
        self.put(class, Kind::Retired, id.to_bits(), &[], Purpose::Retire)?;
        let live = self.live.remove(&id.number()).expect("seen above");
        self.release_all(&live);
        self.rescue.pending.remove(&id.number());
        self.rescue.stuck.remove(&id.number());
        Ok(Position(self.sequence))
    }

    /// Begins a message whose content comes in parts. `Class::Hot` for new mail, `Class::Cold` for a rescue.
    pub fn begin_draft(&mut self, class: Class) -> Draft {
        let draft = self.next_draft;
        self.next_draft += 1;
        self.drafts.insert(draft, DraftParts { class, extents: Vec::new(), size: 0 });
        Draft(draft)
    }

    /// Appends a part of a draft's content. Parts of 256 KiB and more are best.
    ///
    /// # Errors
    /// [`AppendError`]; then nothing was appended.
    pub fn append_chunk(&mut self, draft: &Draft, content: &[Bytes]) -> Result<(), AppendError> {
        let parts = self.drafts.get(&draft.0).ok_or(AppendError::UnknownDraft)?;
        let (class, kept) = (parts.class, parts.extents.len());
        let purpose = match class {
            Class::Hot => Purpose::Mail,
            Class::Cold => Purpose::Rescue,
        };
        let appended = self.put_chunks(draft, content, class, purpose);
        if appended.is_err() {
            let parts = self.drafts.get_mut(&draft.0).expect("seen above");
            for extent in parts.extents.drain(kept..) {
                parts.size -= u64::from(extent.len);
                self.segments.release(extent.segment, chunk_len(&extent));
            }
        }
        appended
    }

    /// Forgets a draft; what was written of it is garbage. A draft that is used up already may be dropped too.
    pub fn drop_draft(&mut self, draft: Draft) {
        self.release_draft(draft.0);
    }

    /// Takes what has gathered; `None` when there is nothing, a group is in flight, or the journal has failed.
    pub fn begin_group(&mut self) -> Option<Group> {
        if self.in_flight.is_some() || self.failure.is_some() {
            return None;
        }
        if !self.unsettled.is_empty() {
            // What recovery took over must be durable before a record says that it is.
            return Some(self.group(Vec::new(), Some(self.epoch_start)));
        }
        let mut writes = Vec::new();
        for tail in self.tails.iter_mut().flatten() {
            tail.flush_run();
            writes.append(&mut tail.writes);
        }
        if writes.is_empty() {
            return None;
        }
        self.gathered = 0;
        self.dirty.extend(writes.iter().map(|write| write.segment));
        let end = mem::take(&mut self.needs_sync).then_some(self.sequence);
        Some(self.group(writes, end))
    }

    /// The group's writes and syncs are done.
    pub fn on_durable(&mut self, group: GroupId) {
        let InFlight { end, stamp, .. } = self.end_group(group);
        if let Some(end) = end {
            self.unsettled.clear();
            (self.durable, self.witnessed) = (self.durable.max(end), stamp);
        }
        while let Some((_, segment, bytes)) = self.releases.pop_front_if(|(at, _, _)| *at < self.durable) {
            self.segments.release(segment, bytes);
        }
        while let Some((_, number)) = self.rescue.arriving.pop_front_if(|(at, _)| *at < self.durable) {
            // The segments that its parts lie in may have been looked at before.
            self.rescue.barren = None;
            self.rescue.cursor = self.rescue.cursor.min(number);
            self.segments.reconsider();
        }
        self.segments.on_durable();
    }

    /// A write or a sync of the group failed. Nothing is tried again: a sync that succeeds after one that failed
    /// says nothing about the pages that the first one lost.
    pub fn on_failed(&mut self, group: GroupId, failure: Failure) {
        self.end_group(group);
        self.failure = Some(failure);
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

    fn put_message(
        &mut self,
        id: QueueId,
        message: &AppendMessage<'_>,
        class: Class,
        purpose: Purpose,
    ) -> Result<(), AppendError> {
        let (draft, rest) = match message.content {
            Content::Whole(content) => (None, content),
            Content::Draft(draft, rest) => (Some(draft), rest),
        };
        let (mut extents, mut size) = (Vec::new(), content_len(rest));
        if let Some(draft) = draft {
            let parts = self.drafts.get(&draft.0).ok_or(AppendError::UnknownDraft)?;
            (extents, size) = (parts.extents.clone(), size + parts.size);
        }
        self.scratch.clear();
        encode_message(&mut self.scratch, message.envelope, message.states, size, &extents);
        let inline_len = content_len(rest);
        let fits = record_len(self.scratch.len() as u64, inline_len) <= self.capacity();
        if inline_len > u64::from(self.limits.inline_max) || (!fits && inline_len > 0) {
            return self.put_spilled(id, message, draft, rest, class, purpose);
        }
        let meta_len = self.scratch.len() as u32;
        let (segment, offset, _) = self.put(class, Kind::Message, id.to_bits(), rest, purpose)?;
        self.segments.hold(segment, record_len(u64::from(meta_len), inline_len));
        if let Some(draft) = draft {
            self.drafts.remove(&draft.0); // What it held is held by the message now.
            self.rescue.arriving.push_back((self.sequence - 1, id.number()));
        }
        let live = Live {
            segment,
            offset: (offset / 8) as u32,
            meta_len,
            inline_len: inline_len as u32,
            recipients: message.envelope.recipients.len() as u32,
            transition: NOWHERE,
            more: More::new(extents.into(), Vec::new()),
        };
        if let Some(before) = self.live.insert(id.number(), live) {
            self.release_all(&before);
        }
        Ok(())
    }

    /// Writes content that is too long for one record into chunks first.
    fn put_spilled(
        &mut self,
        id: QueueId,
        message: &AppendMessage<'_>,
        draft: Option<&Draft>,
        rest: &[Bytes],
        class: Class,
        purpose: Purpose,
    ) -> Result<(), AppendError> {
        let spill = self.begin_draft(class);
        if let Some(draft) = draft {
            let parts = self.drafts.get(&draft.0).ok_or(AppendError::UnknownDraft)?;
            let (extents, size) = (parts.extents.clone(), parts.size);
            extents.iter().for_each(|extent| self.segments.hold(extent.segment, chunk_len(extent)));
            let spilled = self.drafts.get_mut(&spill.0).expect("just begun");
            (spilled.extents, spilled.size) = (extents, size);
        }
        let whole = self.append_chunk(&spill, rest).and_then(|()| {
            let content = Content::Draft(&spill, &[]);
            self.put_message(id, &AppendMessage { content, ..*message }, class, purpose)
        });
        self.drop_draft(spill);
        whole?;
        if let Some(draft) = draft {
            self.release_draft(draft.0);
        }
        Ok(())
    }

    fn release_draft(&mut self, draft: u64) {
        for extent in self.drafts.remove(&draft).map(|parts| parts.extents).unwrap_or_default() {
            self.segments.release(extent.segment, chunk_len(&extent));
        }
    }

    fn put_chunks(
        &mut self,
        draft: &Draft,
        content: &[Bytes],
        class: Class,
        purpose: Purpose,
    ) -> Result<(), AppendError> {
        let mut cutter = Cutter { slices: content, skip: 0 };
        let mut left = content_len(content);
        let longest = self
            .capacity()
            .saturating_sub(RECORD_HEADER as u64)
            .clamp(8, u64::from(self.limits.inline_max.max(8)));
        while left > 0 {
            let whole = left.min(longest);
            let room = self.tails[class as usize].as_ref().map_or(0, Tail::room);
            let fitting = room.saturating_sub(RECORD_HEADER as u64) / 8 * 8;
            // A short end of a segment is filled, a very short one is left.
            let len =
                if fitting < whole && fitting >= whole.min(longest / 8).max(8) { fitting } else { whole };
            let piece = cutter.cut(len as usize);
            self.scratch.clear();
            let (segment, offset, crc) = self.put(class, Kind::Chunk, draft.0, &piece, purpose)?;
            let generation = self.segments.get(segment).map_or(0, |segment| segment.generation);
            let offset = offset + RECORD_HEADER as u64;
            let extent = Extent { segment, generation, offset, len: len as u32, crc };
            self.segments.hold(segment, chunk_len(&extent));
            let parts = self.drafts.get_mut(&draft.0).expect("the caller saw it");
            parts.extents.push(extent);
            parts.size += len;
            left -= len;
        }
        Ok(())
    }

    fn put_transition(
        &mut self,
        id: QueueId,
        states: &[(u32, RecipientState)],
        class: Class,
    ) -> Result<Position, AppendError> {
        let live = self.live.get(&id.number()).ok_or(AppendError::UnknownMessage)?;
        assert!(states.iter().all(|(index, _)| *index < live.recipients), "a state of nobody");
        let covers_all = states.len() as u64 == u64::from(live.recipients);
        self.scratch.clear();
        encode_states(&mut self.scratch, states);
        let purpose = match class {
            Class::Hot => Purpose::Transition,
            Class::Cold => Purpose::Rescue,
        };
        let (segment, _, _) = self.put(class, Kind::Transition, id.to_bits(), &[], purpose)?;
        let live = self.live.get_mut(&id.number()).expect("seen above");
        if !live.transitions().any(|held| held == segment) {
            self.segments.hold(segment, TRANSITION_WEIGHT);
            live.add_transition(segment);
        }
        if covers_all {
            self.supersede_transitions(id.number(), class);
        }
        Ok(Position(self.sequence))
    }

    /// The transition just written tells all: those before it stop to count.
    fn supersede_transitions(&mut self, number: u64, class: Class) {
        let newest = self.tails[class as usize].as_ref().map_or(NOWHERE, |tail| tail.segment);
        let Some(live) = self.live.get_mut(&number) else { return };
        for segment in live.transitions().filter(|segment| *segment != newest) {
            self.releases.push_back((self.sequence - 1, segment, TRANSITION_WEIGHT));
        }
        live.transition = newest;
        if let Some(more) = &mut live.more {
            more.transitions.clear();
        }
    }

    fn release_all(&mut self, live: &Live) {
        let at = self.sequence - 1;
        live.for_each_hold(|segment, bytes| self.releases.push_back((at, segment, bytes)));
    }

    /// Appends a record with `scratch` as its meta. Answers its segment, its offset and its content's checksum.
    fn put(
        &mut self,
        class: Class,
        kind: Kind,
        id: u64,
        content: &[Bytes],
        purpose: Purpose,
    ) -> Result<(u32, u64, u32), AppendError> {
        if self.failure.is_some() {
            return Err(AppendError::Failed);
        }
        if purpose == Purpose::Mail && self.gathered >= self.limits.gathered_max {
            return Err(AppendError::NotReady);
        }
        let len = record_len(self.scratch.len() as u64, content_len(content));
        if self.scratch.len() > self.limits.meta_max.min(META_CEILING) as usize || len > self.capacity() {
            return Err(AppendError::TooLarge);
        }
        self.make_room(class, len, purpose)?;
        let meta = mem::take(&mut self.scratch);
        let place = self.write(class, kind, id, &meta, content);
        self.scratch = meta;
        Ok(place)
    }

    fn make_room(&mut self, class: Class, len: u64, purpose: Purpose) -> Result<(), AppendError> {
        let full = match &self.tails[class as usize] {
            Some(tail) if tail.room() >= len => return Ok(()),
            Some(tail) if !tail.sealed => Some(tail.segment),
            Some(_) | None => None,
        };
        self.segments.may_open(purpose)?;
        if let Some(full) = full {
            self.seal(class, full);
        }
        let segment = self.segments.open(class, self.sequence, purpose)?;
        let known = self.segments.get(segment).expect("just opened");
        let (generation, size) = (known.generation, known.size);
        let (writes, run) =
            self.tails[class as usize].take().map_or_else(Default::default, |tail| (tail.writes, tail.run));
        let tail = Tail { segment, generation, size, offset: HEADER_PAGE, sealed: false, writes, run };
        self.tails[class as usize] = Some(tail);
        let mut meta = BytesMut::new();
        encode_begin(&mut meta, class, self.next_number);
        self.write(class, Kind::Begin, 0, &meta, &[]);
        Ok(())
    }

    fn seal(&mut self, class: Class, segment: u32) {
        self.write(class, Kind::End, 0, &[], &[]);
        // The tail stays until another takes its place: it still holds what is to be written.
        let tail = self.tails[class as usize].as_mut().expect("there is something to seal");
        tail.flush_run();
        self.segments.seal(segment, self.sequence, tail.size.saturating_sub(tail.offset));
        tail.sealed = true;
    }

    fn write(
        &mut self,
        class: Class,
        kind: Kind,
        id: u64,
        meta: &[u8],
        content: &[Bytes],
    ) -> (u32, u64, u32) {
        let tail = self.tails[class as usize].as_mut().expect("room was made");
        let offset = tail.offset;
        let mut header = Header::new(
            kind.number(),
            tail.generation,
            self.sequence,
            self.durable,
            self.epoch,
            self.epoch_start,
            id,
        );
        header.content_len = content_len(content) as u32;
        header.content_crc = content.iter().fold(0, |crc, slice| crc32c::crc32c_append(crc, slice));
        tail.begin_write();
        let start = tail.run.len();
        tail.run.reserve(RECORD_HEADER + meta.len());
        tail.run.put_bytes(0, RECORD_HEADER);
        tail.run.put_slice(meta);
        header.encode_before(&mut tail.run[start..]);
        if header.content_len > 0 {
            tail.flush_run();
            let write = tail.writes.last_mut().expect("begun above");
            write.slices.extend(content.iter().filter(|slice| !slice.is_empty()).cloned());
            write.len += u64::from(header.content_len);
        }
        let len = header.len();
        let bytes = RECORD_HEADER as u64 + meta.len() as u64 + u64::from(header.content_len);
        tail.run.put_slice(&ZEROS[..(len - bytes) as usize]);
        tail.offset += len;
        assert!(tail.offset <= tail.size, "a {kind:?} record was written beyond its segment");
        (self.stamp, self.sequence) = (self.durable, self.sequence + 1);
        self.gathered += len;
        self.needs_sync |= kind.needs_sync();
        (tail.segment, offset, header.content_crc)
    }

    fn group(&mut self, writes: Vec<Write>, end: Option<u64>) -> Group {
        self.groups += 1;
        let id = GroupId(self.groups);
        let syncs = if end.is_some() {
            self.dirty.extend(&self.unsettled);
            mem::take(&mut self.dirty).into_iter().collect()
        } else {
            Vec::new()
        };
        self.in_flight = Some(InFlight { id, end, stamp: self.stamp });
        Group { id, writes, syncs, end: Position(end.unwrap_or(self.durable)) }
    }

    fn end_group(&mut self, group: GroupId) -> InFlight {
        let in_flight = self.in_flight.take().expect("a group is in flight");
        assert_eq!(in_flight.id, group, "another group is in flight");
        in_flight
    }

    fn order_rescue(&mut self, orders: &mut Vec<Order>) {
        if !self.rescue.pending.is_empty() {
            return;
        }
        let segment = match self.rescue.segment {
            Some(segment) => segment,
            None => {
                let cold_room = self.tails[Class::Cold as usize].as_ref().map_or(0, Tail::room);
                let Some(segment) = self.segments.worth_rescue(self.durable, cold_room) else { return };
                let live = self.segments.get(segment).map_or(0, |segment| segment.live);
                if self.rescue.barren == Some((segment, live)) {
                    return;
                }
                (self.rescue.segment, self.rescue.cursor, self.rescue.found) = (Some(segment), 0, 0);
                segment
            }
        };
        let (mut content, mut states, mut seen) = (Vec::new(), Vec::new(), 0);
        for (number, live) in self.live.range(self.rescue.cursor..).take(RESCUE_STEP) {
            seen += 1;
            self.rescue.cursor = number + 1;
            if self.rescue.stuck.contains(number) {
                continue;
            }
            let id = QueueId::new(self.shard, *number);
            let parts_here = || live.extents().iter().any(|extent| extent.segment == segment);
            let arriving = || self.rescue.arriving.iter().any(|(_, other)| other == number);
            if live.segment == segment || (parts_here() && !arriving()) {
                content.push(id);
            } else if live.transitions().any(|held| held == segment) {
                states.push(id);
            } else {
                continue;
            }
            self.rescue.pending.insert(*number);
            if self.rescue.pending.len() >= self.limits.rescue_batch {
                break;
            }
        }
        self.rescue.found += self.rescue.pending.len();
        if seen < RESCUE_STEP && self.rescue.pending.len() < self.limits.rescue_batch {
            let live = self.segments.get(segment).map_or(0, |segment| segment.live);
            self.rescue.barren = (self.rescue.found == 0).then_some((segment, live));
            self.rescue.segment = None;
        }
        if !self.rescue.pending.is_empty() {
            orders.push(Order::Rescue { content, states });
        }
    }

    /// The longest record that fits into an empty segment.
    const fn capacity(&self) -> u64 {
        self.smallest_segment.saturating_sub(HEADER_PAGE + BEGIN_LEN + END_LEN) / 8 * 8
    }
}

impl Tail {
    /// How long the next record may be.
    const fn room(&self) -> u64 {
        if self.sealed { 0 } else { self.size.saturating_sub(self.offset + END_LEN) }
    }

    /// Makes sure that the last write goes on at the tail's offset.
    fn begin_write(&mut self) {
        let goes_on = self.writes.last().is_some_and(|write| {
            write.segment == self.segment && write.offset + write.len + self.run.len() as u64 == self.offset
        });
        if !goes_on {
            let write = Write { segment: self.segment, offset: self.offset, slices: Vec::new(), len: 0 };
            self.writes.push(write);
        }
    }

    fn flush_run(&mut self) {
        if self.run.is_empty() {
            return;
        }
        let run = self.run.split().freeze();
        let write = self.writes.last_mut().expect("a run belongs to a write");
        write.len += run.len() as u64;
        write.slices.push(run);
    }
}

impl Live {
    fn extents(&self) -> &[Extent] {
        self.more.as_ref().map_or(&[], |more| &more.extents)
    }

    fn transitions(&self) -> impl Iterator<Item = u32> {
        let others = self.more.as_ref().map_or(&[][..], |more| &more.transitions);
        (self.transition != NOWHERE).then_some(self.transition).into_iter().chain(others.iter().copied())
    }

    fn add_transition(&mut self, segment: u32) {
        if self.transition == NOWHERE {
            self.transition = segment;
        } else {
            self.more.get_or_insert_default().transitions.push(segment);
        }
    }

    fn for_each_hold(&self, mut hold: impl FnMut(u32, u64)) {
        hold(self.segment, record_len(u64::from(self.meta_len), u64::from(self.inline_len)));
        self.extents().iter().for_each(|extent| hold(extent.segment, chunk_len(extent)));
        self.transitions().for_each(|segment| hold(segment, TRANSITION_WEIGHT));
    }
}

impl More {
    fn new(extents: Box<[Extent]>, transitions: Vec<u32>) -> Option<Box<Self>> {
        let some = !extents.is_empty() || !transitions.is_empty();
        some.then(|| Box::new(Self { extents, transitions }))
    }
}

impl Extent {
    /// Where to read it.
    pub const fn span(&self) -> Span {
        Span { segment: self.segment, offset: self.offset, len: self.len as u64 }
    }
}

/// Cuts a list of slices into pieces without copying a byte.
struct Cutter<'a> {
    slices: &'a [Bytes],
    skip: usize,
}

impl Cutter<'_> {
    fn cut(&mut self, mut len: usize) -> Vec<Bytes> {
        let mut piece = Vec::new();
        while len > 0 {
            let (first, rest) = self.slices.split_first().expect("no more is cut than there is");
            let part = first.slice(self.skip..first.len().min(self.skip + len));
            len -= part.len();
            self.skip += part.len();
            if self.skip == first.len() {
                (self.slices, self.skip) = (rest, 0);
            }
            piece.push(part);
        }
        piece
    }
}

fn content_len(content: &[Bytes]) -> u64 {
    content.iter().map(|slice| slice.len() as u64).sum()
}

const fn chunk_len(extent: &Extent) -> u64 {
    record_len(0, extent.len as u64)
}

#[cfg(test)]
#[path = "crash_test.rs"]
mod crash_test;
#[cfg(test)]
#[path = "journal_test.rs"]
pub(crate) mod test;
