//! What is remembered of strangers: who came before, what they did, and lists of the DNS that fail.
//!
//! - `greylist`    who has come before: [`Greylist`], by keyed hashes
//! - `record`      entries of both as they are written down
//! - `reputation`  what they have done: [`Reputation`]
//! - `systems`     which autonomous system an address is in: [`Systems`]
//! - `health`      whether a list of the DNS can be believed now: [`ListHealth`]
//!
//! Nothing here knows a file, a socket or the time: `pool` keeps the files, and `bridge` has what all cores share.

mod greylist;
mod hash;
mod health;
mod record;
mod reputation;
mod systems;

pub use greylist::{GREY_PARTS, GreyCounts, GreyKey, GreyRules, Greylist, Met, Origin, Slot, State};
pub use health::{Ailment, ListEvent, ListHealth, Turn};
pub use record::{DEEDS_RECORD, GREY_RECORD, RecordError, read_deeds, read_grey, write_deeds, write_grey};
pub use reputation::{Counts, DEEDS, Deed, Deeds, REPUTATION_PARTS, Reputation, Subject, SubjectKey};
pub use systems::{Systems, SystemsError};
