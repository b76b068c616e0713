//! What a mail tester would say of a domain: facts in, findings out.
//!
//! A [`Checkup`] is about one domain that this host sends for. It says what it finds, or what must be found out first:
//! names to be looked up, a policy and a picture to be fetched, hosts to be connected to. Whoever can do that does, tells it what came of it,
//! and asks again:
//!
//! ```text
//!  open ─▶ errands ⇄ learn ─▶ (fetch, connect) ─▶ bring ─▶ judge ⇄ learn ─▶ Report
//! ```
//!
//! What is said of each record is said by whoever has it to judge anyway, `trust` and `delivery`: what passes here
//! passes there.

mod addresses;
mod authority;
mod checkup;
mod inbound;
mod marks;
mod picture;
mod plan;
mod report;
mod spf;
mod words;

#[cfg(test)]
mod zone;

pub use addresses::is_open;
pub use checkup::{Checkup, Errands, Gathered, HostProbe, HostSeen, PolicyErrand};
pub use picture::{PictureErrand, PictureSeen};
pub use plan::{EgressAddress, Plan, UnsubscribeLinks};
pub use report::{Check, Finding, Record, Report, Severity};
