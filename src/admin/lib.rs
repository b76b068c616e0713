//! Operations: queue, accounts, configuration; HTTP and CLI.
//!
//! [`Operations`] answers over HTTP: everything on the control socket, which only the server's own user
//! can open, and on a TCP port what monitoring needs, the rest for whoever has the token. [`cli`] is the
//! other end: `ringpost queue`, a client of the control socket, as are [`reload()`], [`upgrade()`],
//! [`sources()`], [`greylist()`], [`reputation()`], [`reports()`] and [`dkim_status()`].

pub mod cli;
mod client;
mod deliverability;
mod greylist;
mod openapi;
mod operations;
mod paths;
mod problem;
mod reload;
mod reports;
mod reports_table;
mod reputation;
mod rotation;
mod sources;
mod suppression;
pub mod suppression_cli;
mod table;
mod tasks;
mod upgrade;

pub use client::ClientError;
pub use deliverability::{CheckRequest, Deliverability};
pub use greylist::{GreylistArgs, GreylistChoice, GreylistCommand, GreylistError, greylist};
pub use openapi::document as api_document;
pub use operations::{Facts, KnowsTenant, Listener, Operations, ReportNow};
pub use problem::Problem;
pub use reload::{ReloadError, ReloadRequest, Reloaded, reload, reload_requests};
pub use reports::{
    ReportPage, ReportQuery, ReportShelf, ReportsArgs, ReportsChoice, ReportsCommand, ReportsError,
    ShownReport, reports,
};
pub use reputation::{ReputationArgs, ReputationError, ReputationRules, reputation};
pub use rotation::{
    DkimRotateArgs, DkimStatusArgs, KeyView, RotationError, RotationView, Rotations, dkim_rotate,
    dkim_status, left,
};
pub use sources::{SourcesArgs, SourcesError, sources};
pub use tasks::Tasks;
pub use upgrade::{Extent, Predecessor, UpgradeError, UpgradeRequest, Upgraded, upgrade, upgrade_requests};

/// The name of the control socket in the data directory.
pub const CONTROL_SOCKET: &str = "control.sock";
