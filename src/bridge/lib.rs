//! The only door between shards and pool: bounded, typed requests.
//!
//! The pool holds a [`Door`], each shard a [`Hatch`]. A [`Request`] carries the way back for its answer,
//! so an answer cannot have the wrong type. What crosses goes by value; neither side sees the other's
//! memory, and a full door makes the pool wait, never the shard. Shards ask one another by [`Neighbours`].
//! Things that shards ask of the pool: to fetch the policy of a domain ([`StsPolicies`]) or its picture ([`Indicators`]), to put somebody on a suppression list
//! ([`Tenancy`]), to deliver mail by a program or to a service
//! ([`Deliveries`]), and to tell domains of messages that failed ([`Failures`]). What they count of their sources it keeps ([`Egress`]).

mod carriage;
mod deliveries;
mod door;
mod egress;
mod failures;
mod filter;
mod indicators;
mod injection;
mod policies;
mod request;
mod sources;
mod strangers;
mod tenancy;
mod text;
mod view;

pub use delivery::sts::PoliciesLimits;

pub use self::strangers::{ListResult, ListState, Strangers};
pub use self::tenancy::{Claimed, Known, ListDesk, ListEntries, ListErrand, ListError, ListPage, Tenancy};
pub use ::strangers::{Systems, SystemsError};
pub use carriage::{Call, Parcel, Receipt};
pub use deliveries::{Authorization, Delivered, Deliveries, Delivery, Hidden, PoolErrand, PoolGone, Saying};
pub use door::{AskError, Door, Limits};
pub use egress::{Egress, Paused, Seat, Ticket};
pub use failures::{FailureDesk, Failures, Quiet};
pub use filter::{
    Age, AgeError, Class, Filter, Pattern, PatternError, Selector, SubjectHash, SubjectHashError,
};
pub use indicators::{
    Evidence, IndicatorAnswer, IndicatorDesk, IndicatorErrand, IndicatorFailure, IndicatorFlawed,
    IndicatorFound, IndicatorKey, IndicatorLimits, IndicatorLook, IndicatorShelf, IndicatorSource,
    IndicatorTicket, Indicators,
};
pub use injection::{Cause, Declined, Injected, Injection};
pub use policies::{PolicyCounter, PolicyDesk, PolicyErrand, PolicyFound, StsPolicies};
pub use request::{
    Action, Change, Freshness, Hatch, Listing, Neighbours, Pace, Progress, Released, Reply, Request, hatches,
};
pub use sources::{PlanView, SourceStanding, SourceView};
pub use text::time_text;
pub use view::{
    Counts, Destination, Entry, Explained, JournalHealth, Page, Reason, Recipient, Returning, ShardHealth,
    Stage, State, Stranded, Summary,
};
