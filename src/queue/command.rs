//! What an operator may ask of queued recipients, in bounded steps.

use mail::{QueueId, Timestamp};

use crate::{Cursor, Destination, Order, Queue};

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Try deferred recipients now, and their destination too if it is left alone.
    Retry,
    /// Try no more until released. An attempt under way runs to its end.
    Hold,
    /// Undo a hold: ready at once.
    Release,
    /// Forget recipients without a DSN. An attempt under way runs to its end.
    Remove,
}

/// Whom a [`Command`] is for. What the queue cannot see (reverse-path, address) the caller
/// looks up first and names by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Everybody.
    All,
    /// All recipients of a message.
    Message(QueueId),
    /// One recipient, by its place in the envelope.
    Recipient(QueueId, u32),
    /// All recipients bound for a destination.
    Destination(Destination),
}

/// How far a [`Command`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// How many recipients this step changed.
    pub changed: u64,
    /// Where to go on, unless this was the last step.
    pub next: Option<Cursor>,
}

impl Queue {
    /// Does one step of a command; call again with `next` until there is none.
    ///
    /// Messages accepted meanwhile may be met or not. To keep back what is still to come for a
    /// destination, use [`Queue::set_attempts_max`] with zero.
    pub fn on_command(
        &mut self,
        command: Command,
        selector: Selector,
        cursor: Cursor,
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) -> Progress {
        let _ = (command, selector, cursor, now, orders);
        todo!()
    }
}
