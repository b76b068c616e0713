//! When each recipient is tried next; one partition per shard.
//!
//! A pure machine: [`Queue`] is told what happened and when, and appends what must be done to a list
//! of [`Order`]s. It has no clock, no socket and no file. A recipient is the unit of state; a
//! **group**, the recipients of one message that go to one destination and stand alike, is the
//! unit of work.
//!
//! ```text
//!              +---------------- deferred, then due ----------------+
//!              v                                                     |
//!  accepted -> ready -- Attempt --> running -- on_attempted --> deferred
//!              |  ^                    |                             |
//!              |  +---- release ----+  +--> delivered, failed        |
//!              +------- hold ----> held <------- hold ---------------+
//!
//!  give-up time (unless held), failed: Return.   every recipient ended: Retire.
//! ```
//!
//! All state is in slabs with 32-bit links, so that a million recipients fit in a hundred
//! megabytes; docs/queue.md has the arithmetic and the figures.

mod ages;
mod clock;
mod command;
mod destination;
mod event;
mod filter;
mod group;
mod ids;
mod machine;
mod order;
mod places;
mod redirect;
mod schedule;
mod site;
mod slab;
mod turns;
mod view;
mod wheel;

#[cfg(test)]
mod fairness_test;
#[cfg(test)]
mod machine_test;
#[cfg(test)]
mod simulation_test;

pub use command::{Command, Progress, Selector};
pub use destination::{Destination, Lot, Tenant, Whereabouts};
pub use event::{
    Accepted, Deferral, Kind, MessageState, Outcome, Priority, RecipientState, Restored, State, Times, Wait,
    Warning,
};
pub use filter::{Filter, Place, Survey};
pub use machine::{Limits, Queue};
pub use order::{AttemptId, Order, Recipients, ReturnReason};
pub use redirect::{Onward, Redirect};
pub use schedule::Schedule;
pub use site::Site;
pub use view::{Counts, Cursor, DestinationView, GroupView, Page, SiteView};
