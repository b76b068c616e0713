//! What the queue is told: messages, outcomes, states from before a restart.

use std::time::Duration;

use mail::{Category, QueueId, Status, Timestamp};

use crate::Destination;

/// A message that the journal has just made durable.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// Its name.
    pub id: QueueId,
    /// When its last byte arrived; give-up time and delay warning count from here.
    pub received_at: Timestamp,
    /// The length of its content. Shown to operators, counted as 4 GiB at most.
    pub size: u64,
    /// How its recipients stand beside others that are ready.
    pub priority: Priority,
    /// Whether anybody can be told about a failure.
    pub kind: Kind,
    /// Whether the sender is told about a delay.
    pub warning: Warning,
    /// Times that hold for it alone.
    pub times: Times,
    /// Each recipient's place in the envelope, and where it goes.
    pub recipients: &'a [(u32, Destination)],
}

/// A message from before a restart, as the journal and its checkpoint have it.
#[derive(Clone, Copy, Debug)]
pub struct Restored<'a> {
    /// What holds for the message as a whole.
    pub message: MessageState,
    /// Those recipients that have not ended.
    pub recipients: &'a [RecipientState],
}

/// What the queue knows of a message besides its recipients: for checkpoints and for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageState {
    /// Its name.
    pub id: QueueId,
    /// When it was received; the queue keeps whole seconds.
    pub received_at: Timestamp,
    /// The length of its content, 4 GiB at most.
    pub size: u64,
    /// How its recipients stand beside others that are ready.
    pub priority: Priority,
    /// Whether anybody can be told about a failure.
    pub kind: Kind,
    /// Whether the sender is, or was, told about a delay.
    pub warning: Warning,
    /// When its recipients are given up. `None` in a [`Restored`] counts it from `received_at`.
    pub give_up_at: Option<Timestamp>,
    /// Times that hold for it alone.
    pub times: Times,
}

/// Times that hold for one message alone. Most have none, and take no memory for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// It is not tried before (RFC 4865); its give-up time and its delay warning count from here.
    pub release_at: Option<Timestamp>,
    /// The sender is warned of the delay then, and not when the schedule says (RFC 2852, mode `N`).
    pub warn_at: Option<Timestamp>,
    /// It is returned then, held or not, and not later for any reason (RFC 2852, mode `R`).
    pub return_at: Option<Timestamp>,
}

/// Where one recipient stands: for checkpoints, for the journal's rescue and for operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecipientState {
    /// Its place in the envelope, below 2^29.
    pub recipient: u32,
    /// Where it goes. The number is this process's; a checkpoint keeps the name.
    pub destination: Destination,
    /// Ready, running, deferred or held. A restored recipient that was running is ready.
    pub state: State,
    /// How many attempts have ended.
    pub attempts: u16,
    /// When it is tried next (deferred), or would be if it were not held.
    pub due: Timestamp,
    /// Why it was deferred last.
    pub status: Option<Status>,
    /// What that was about.
    pub category: Option<Category>,
}

/// The state of a recipient that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// May be tried as soon as a slot is free and its destination answers.
    Ready,
    /// An attempt is under way.
    Running,
    /// Waits for its next try.
    Deferred,
    /// An operator keeps it back.
    Held,
}

/// A class of messages. Where both wait, four of a higher class go out for one of a lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Priority {
    /// Somebody said that it is urgent (RFC 6710).
    Urgent,
    /// Somebody waits for it.
    #[default]
    Normal,
    /// Newsletters, reports: nobody waits.
    Bulk,
}

/// Ordinary mail, or a notification with the null reverse-path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Has a sender who can be told.
    #[default]
    Message,
    /// Has the null reverse-path: given up sooner, never warned about (RFC 5321 §4.5.5).
    Notification,
}

/// The delay warning of a message, which is sent once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Warning {
    /// Not asked for (`NOTIFY` without `DELAY`, or switched off).
    #[default]
    Unwanted,
    /// To be sent when the time comes.
    Wanted,
    /// Already sent.
    Sent,
}

/// Why a recipient was not delivered, and when it is to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deferral {
    /// Why.
    pub status: Status,
    /// What that is about.
    pub category: Option<Category>,
    /// How long to wait.
    pub wait: Wait,
    /// How long after its reception it is given up, where that is sooner than the schedule has it: it is tried once more
    /// at that time, and then no more.
    pub give_up: Option<Duration>,
}

/// How long to wait before the next try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// As the queue's schedule says.
    #[default]
    Scheduled,
    /// About so long: the schedule's jitter makes it longer or shorter.
    About(Duration),
    /// So long, since whoever said so counts: the jitter makes it longer alone.
    AtLeast(Duration),
}

impl From<Status> for Deferral {
    fn from(status: Status) -> Self {
        Self { status, category: None, wait: Wait::Scheduled, give_up: None }
    }
}

impl From<Deferral> for Outcome {
    fn from(deferral: Deferral) -> Self {
        Self::Deferred(deferral)
    }
}

/// How an attempt ended for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next hop is responsible now.
    Delivered,
    /// As [`Outcome::Delivered`], and the sender is to be told.
    Untold,
    /// May be tried again.
    Deferred(Deferral),
    /// May not be tried again.
    Failed,
}
