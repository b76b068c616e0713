//! The segments: a record is ours once its group is durable.
//!
//! The log of one journal shard as a pure machine: it says which bytes go where and which files to sync, and is told
//! when that is done. `docs/journal.md` draws the bytes and tells the life of a message; the drawing in short:
//!
//! ```text
//!   append_* ──▶ gathered ──begin_group──▶ Group (writes, syncs) ──on_durable──▶ durable_to() moves, sessions wake
//!                                             └──on_failed──▶ Failed, for ever: fsync is not tried again
//!   orders ──▶ Create · Recycle · Remove · Rescue        Recovery ──▶ Journal, Older ──▶ live entries, a report
//! ```

mod codec;
mod entry;
mod format;
pub mod inspect;
mod journal;
pub mod record;
mod recovery;
mod segments;
pub mod virtual_disk;

pub use codec::Malformed;
pub use entry::{Checkpoint, Cursor, Entry, Facts, Placement, ReturnPath, SegmentRef};
pub use format::{HEADER_PAGE, RECORD_HEADER, SEGMENT_VERSION, SegmentHeader, SegmentHeaderError, Witness};
pub use journal::{
    AppendError, AppendMessage, Appended, Content, Draft, Failure, Group, GroupId, Journal, Limits, Location,
    Position, Span, Usage, Write,
};
pub use mail::{Handling, JournalShard, QueueId};
pub use record::{DelayNotice, Extent, Last, Phase, RecipientState};
pub use recovery::{
    Bad, Damage, Indexed, Older, Opened, Read, Recovered, Recovery, RecoveryError, Report, Restored,
    SegmentFile, Start, Step, Torn,
};
pub use segments::{Class, Order};
