//! What the queue wants done.

use std::ops::Deref;

use mail::{Category, QueueId, Timestamp};

use crate::{Destination, State};

/// What the shard must do. Orders of one message come in the order in which they must become durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start an attempt; answer with [`crate::Queue::on_attempted`] or [`crate::Queue::on_postponed`].
    Attempt {
        /// The name by which the attempt's end is told.
        attempt: AttemptId,
        /// The message.
        id: QueueId,
        /// Where to.
        destination: Destination,
        /// For whom: at most `recipients_per_attempt_max`.
        recipients: Recipients,
        /// 1 for the first attempt.
        number: u16,
    },
    /// Find out which site a destination belongs to; answer with [`crate::Queue::on_located`]. It is not tried before.
    Locate {
        /// Which.
        destination: Destination,
    },
    /// Write this state into the journal, so that a restart finds it. Losing it costs an early retry.
    Note {
        /// The message.
        id: QueueId,
        /// Who changed state.
        recipients: Recipients,
        /// Where they go.
        destination: Destination,
        /// Deferred, held, or (released) ready.
        state: State,
        /// How many attempts have ended.
        attempts: u16,
        /// When they are tried next.
        due: Timestamp,
        /// What the last refusal was about.
        category: Option<Category>,
    },
    /// Write a DSN of failure if the sender wants one, then note the recipients' end.
    /// The queue has forgotten them.
    Return {
        /// The message.
        id: QueueId,
        /// Who will not get it.
        recipients: Recipients,
        /// Why.
        reason: ReturnReason,
    },
    /// Write a DSN of delay, and note that it was written; once per message.
    Warn {
        /// The message.
        id: QueueId,
        /// Who has not got it yet.
        recipients: Recipients,
    },
    /// Write a DSN of success, then note the recipients' end. The queue has forgotten them.
    Tell {
        /// The message.
        id: QueueId,
        /// Who has got it.
        recipients: Recipients,
    },
    /// An operator removed the recipients: note their end, without a DSN. The queue has forgotten them.
    Remove {
        /// The message.
        id: QueueId,
        /// Who will not get it.
        recipients: Recipients,
    },
    /// All recipients have ended: forget the message in the journal, after what was ordered before.
    Retire {
        /// The message.
        id: QueueId,
    },
}

/// Why recipients are returned to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnReason {
    /// The attempt that just ended failed for good.
    Failed,
    /// The give-up time came (RFC 5321 §4.5.4.1).
    GaveUp,
    /// The time by which it was to be delivered has passed ([`crate::Times::return_at`]).
    Expired,
}

/// The name of a running attempt, good until its end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttemptId(pub(crate) u32);

/// Places in an envelope; nearly always one, which costs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// A single recipient.
    One(u32),
    /// Any number.
    Many(Box<[u32]>),
}

impl Recipients {
    /// The places, ascending within one group.
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Self::One(recipient) => std::slice::from_ref(recipient),
            Self::Many(recipients) => recipients,
        }
    }
}

impl Deref for Recipients {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        self.as_slice()
    }
}

impl From<&[u32]> for Recipients {
    fn from(recipients: &[u32]) -> Self {
        match recipients {
            [one] => Self::One(*one),
            many => Self::Many(many.into()),
        }
    }
}
