//! What the machine takes and gives: limits, messages, groups, places.

use bytes::Bytes;
use mail::{Envelope, QueueId};

use crate::record::RecipientState;

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
    /// Most messages one [`crate::Order::Rescue`] names.
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
pub struct Draft(pub(super) u64);

/// A message has its place in the log; it is ours when [`crate::Journal::durable_to`] reaches `end`.
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
    /// No segment is ready, or too much waits to be written: try again after the next [`crate::Journal::on_prepared`] or
    /// [`crate::Journal::on_durable`].
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

/// What has gathered since the last group. Do all writes, then all syncs, then call [`crate::Journal::on_durable`].
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
pub struct GroupId(pub(super) u64);

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
