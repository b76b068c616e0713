//! The mail we write ourselves: DSN, DMARC and TLS reports (RFC 3464).
//!
//! A report goes to who sent the message, under the null reverse-path, and is never written about a message
//! that came with it: a report of a report would go round for ever (RFC 5321 §4.5.5).

mod dsn;
mod explain;
pub mod tls;

pub use dsn::{Diagnostic, DsnError, Facts, Limits, Outcome, RecipientFacts, Report, dsn, wants_success};
