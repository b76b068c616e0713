//! Metrics, logs and traces: every name in one list.
//!
//! Metrics: [`names`] is the list, [`Registry`] holds the values, [`ShardMetrics`] are the handles of one
//! shard, made once. Counting is a plain add to a cell that one thread writes; the price of watching is
//! paid by whoever scrapes.
//!
//! Logs: [`events`] is the list, each event a struct with an `emit`; [`log`] takes the lines to a thread
//! of its own, which alone waits for the disk. What `tracing` and `log` say ends in the same place.

mod cell;
pub mod events;
mod libraries;
mod line;
pub mod log;
mod metrics;
pub mod names;
mod registry;
mod sites;
mod trace;

pub use cell::{Counter, Gauge, Histogram};
pub use metrics::{
    Aligned, AuthResult, AuthTreatment, BimiCounted, BimiFetch, BimiFetchMetrics, Buffers, Category,
    ConnectionRefusal, Counted, Deception, Delivery, DmarcCounted, DmarcFailure, DmarcFailureMetrics, Dns,
    Dsn, Executor, Family, Greylisting, HttpMetrics, Inbound, Journal, JournalHealth, Levels, Outbound,
    PoolDeliveries, ProcessMetrics, ProcessUsage, Queue, QueueAction, QueueState, Reload, ReportIn,
    ReportPost, ReportRead, ReportsInMetrics, RetryWait, SegmentState, ShardMetrics, TenancyMetrics,
    TlsMetrics, TlsPolicy, UnsubscribeCheck, UnsubscribeMetrics, UnsubscribeWay, Unsubscription, Verb,
    Verification,
};
pub use registry::Registry;
pub use sites::{Outcome, SiteTable};

#[cfg(test)]
mod docs_test;
