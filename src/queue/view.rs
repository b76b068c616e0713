//! Looking into the queue: counts, pages, single messages. Every step is bounded.

use mail::{QueueId, Status, Timestamp};

use crate::{Destination, MessageState, Queue, RecipientState, State};

/// Recipients by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// May be tried.
    pub ready: u64,
    /// Being tried.
    pub running: u64,
    /// Waiting for their next try.
    pub deferred: u64,
    /// Kept back by an operator.
    pub held: u64,
}

/// Where a page begins; the default is the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(pub u32);

/// Part of a listing. It may be empty and yet not the last: a step looks at a bounded number of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found.
    pub items: Vec<T>,
    /// Where to go on, unless this was the last page.
    pub next: Option<Cursor>,
}

/// What a listing shows; a field that is `None` lets everything pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this destination.
    pub destination: Option<Destination>,
    /// Only this state.
    pub state: Option<State>,
    /// Only deferred recipients that are due by then.
    pub due_by: Option<Timestamp>,
}

/// One group in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// The message.
    pub id: QueueId,
    /// When it was received.
    pub received_at: Timestamp,
    /// The length of its content.
    pub size: u64,
    /// Where the group goes.
    pub destination: Destination,
    /// Where it stands.
    pub state: State,
    /// How many attempts have ended.
    pub attempts: u16,
    /// When it is tried next.
    pub due: Timestamp,
    /// Why it was deferred last.
    pub status: Option<Status>,
    /// How many recipients it has.
    pub recipients: u32,
}

/// One destination in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationView {
    /// Its number.
    pub destination: Destination,
    /// Its name.
    pub name: Box<str>,
    /// Its recipients by state.
    pub counts: Counts,
    /// Attempts under way.
    pub attempts: u32,
    /// How many may be under way at once.
    pub attempts_max: u32,
    /// How often in a row it could not be reached.
    pub failures: u16,
    /// Until when it is left alone.
    pub blocked_until: Option<Timestamp>,
}

impl Counts {
    /// All recipients.
    pub const fn total(&self) -> u64 {
        self.ready + self.running + self.deferred + self.held
    }
}

impl Queue {
    /// Recipients by state.
    pub fn counts(&self) -> Counts {
        todo!()
    }

    /// Queued messages.
    pub fn messages(&self) -> u64 {
        todo!()
    }

    /// When the oldest queued message was received, to the minute.
    pub fn oldest(&self) -> Option<Timestamp> {
        todo!()
    }

    /// Groups, in no order that means anything.
    pub fn list(&self, filter: &Filter, cursor: Cursor, limit: usize) -> Page<GroupView> {
        let _ = (filter, cursor, limit);
        todo!()
    }

    /// Queued messages, in no order that means anything: what a checkpoint walks over.
    pub fn list_messages(&self, cursor: Cursor, limit: usize) -> Page<MessageState> {
        let _ = (cursor, limit);
        todo!()
    }

    /// Destinations that the queue knows, in no order that means anything.
    pub fn list_destinations(&self, cursor: Cursor, limit: usize) -> Page<DestinationView> {
        let _ = (cursor, limit);
        todo!()
    }

    /// What the queue knows of a message as a whole.
    pub fn show(&self, id: QueueId) -> Option<MessageState> {
        let _ = id;
        todo!()
    }

    /// Where each recipient of a message stands that has not ended.
    pub fn states(&self, id: QueueId) -> impl Iterator<Item = RecipientState> {
        let _ = id;
        std::iter::empty()
    }

    /// One destination.
    pub fn destination(&self, destination: Destination) -> Option<DestinationView> {
        let _ = destination;
        todo!()
    }
}
