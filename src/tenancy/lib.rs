//! What tenants may send, and to whom not: suppression, quotas, duplicates.
//!
//! - `list`        who is on the suppression lists, in memory: [`Table`], by hashes ([`Keys`])
//! - `record`      an entry of a list, as a line of the log on disk and as a line for people
//! - `token`       links by which a recipient leaves a list (RFC 8058)
//! - `quota`       recipients of an hour, a day and a month
//! - `duplicates`  what came already
//!
//! Nothing here knows a file, a socket or the time: `pool` keeps the files, and `bridge` has what all cores share.

mod duplicates;
mod list;
mod period;
mod quota;
mod record;
mod token;

pub use duplicates::{Claim, ClaimId, DuplicateKey, Duplicates, Fingerprints};
pub use list::{CaseOfLocalParts, Found, Key, Keys, Place, Table};
pub use period::Period;
pub use quota::{Excess, Exhausted, QuotaLimits, Quotas, Taken, Used, UsedText, Warned};
pub use record::{
    Change, Entry, EntryLine, LineError, LogLine, LogLineError, NOTE_MAX, Reason, Scope, Whom, WhomError,
    clean_note,
};
pub use token::{Link, Links, TokenError};
