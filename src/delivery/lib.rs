//! One attempt: hosts in order, TLS level, an outcome per recipient.
//!
//! To follow a recipient: [`Routes`] says by which road its domain is reached, [`Connections`] may have an
//! idle connection there; if not, an [`Attempt`] finds a host to connect to. The session is
//! `smtp::client`'s. What it gives for each recipient is judged by [`fates`]; who remains goes on with
//! the attempt, until that gives up with an [`Outcome`] for all that are left. What is no success goes through the
//! [`Classifier`], which says what it is about; what it means for the site is kept by a [`Throttle`].

mod attempt;
mod classify;
mod connections;
pub mod dane;
pub mod egress;
mod means;
mod outcome;
mod owner;
mod protection;
mod retry;
mod route;
mod site;
pub mod sts;
pub mod tally;
mod throttle;
mod tls_memory;

pub use attempt::{Attempt, AttemptLimits, ConnectFailure, Hop, Own, RefusedLogin, Step};
pub use classify::{Action, Advice, Asked, Astray, At, Classifier, Judgement, Refused, Rule, RulesError};
pub use connections::{Connections, ConnectionsLimits};
pub use means::{
    Answered, Exit, Hearing, LineEnds, Means, Program, ProgramContent, Service, ServiceBody, ServiceUrl,
    report_waits, taken_as_report,
};
pub use outcome::{Diagnostic, Endpoint, Fate, Outcome, Remote, Report, Teller, fates};
pub use owner::{Owner, Owners, without_owner};
pub use protection::{Basis, DaneUse, Protection, StsUse, TlsPolicy};
pub use retry::{
    Answerable, MailClass, Plan, PlannedWait, RefusedMail, RetryRule, RetryRules, hint as retry_hint,
};
pub use route::{
    Demand, Destination, EightBitContent, Family, Forwarding, HopHost, Pattern, Place, ReversePaths, Route,
    RouteIndex, RouteOptions, Routes, Sources, Via,
};
pub use site::{Hosts, SiteRule, marked, rule_of_site};
pub use smtp::client::TlsLevel;
pub use throttle::{Allowed, THROTTLE_MEMORY_MAX, Throttle, ThrottleLimits, Told, Why, spokesman};
pub use tls_memory::{TlsMemory, TlsMemoryLimits};
