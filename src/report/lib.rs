//! Reports on mail: those we write ourselves, and those that come to us (RFC 3464).
//!
//! A report goes to who sent the message, under the null reverse-path, and is never written about a message
//! that came with it: a report of a report would go round for ever (RFC 5321 §4.5.5).
//!
//! Beside writing there is reading: [`read`] makes facts of the reports that others write about our mail, and
//! [`ReturnPaths`] are the addresses that such reports come to. What others count of mail that bears our names, and of TLS with our
//! hosts, is read by [`received`].

pub mod dmarc;
mod dsn;
mod explain;
mod guess;
mod incoming;
mod parts;
pub mod received;
mod redact;
mod return_path;
mod srs;
pub mod tls;

pub use dsn::{Diagnostic, DsnError, Facts, Limits, Outcome, RecipientFacts, Report, dsn, wants_success};
pub use incoming::{
    Bounce, Complaint, Form, Incoming, IncomingLimits, Original, Returned, ReturnedAction, read,
};
pub use redact::{Redactor, Shown};
pub use return_path::{CampaignMark, Party, Recognised, ReturnPathOptions, ReturnPaths, Sent};
pub use srs::{Srs, SrsAddress};
