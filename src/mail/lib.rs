//! The nouns: address, path, envelope, status code, message id.
//!
//! Every other room speaks in these words. They are values: no I/O, no clock, no policy.

mod address;
mod category;
mod envelope;
mod handling;
mod id;
mod id_set;
mod node;
mod status;
mod time;
mod upstream;

pub use address::{Address, AddressError, Domain, LocalPart};
pub use category::{Category, CategoryError};
pub use envelope::{
    BodyType, Envelope, ForwardPath, Notify, OriginalRecipient, Recipient, Ret, ReversePath, Utf8,
};
pub use handling::{
    CAMPAIGN_MAX, DeliverBy, DeliverByMode, DeliverByTrace, Handling, HoldFor, ListId, TenantId, TlsDemand,
    TransferPriority,
};
pub use id::{JournalShard, QueueId, QueueIdError};
pub use id_set::QueueIdSet;
pub use node::{Node, Reach};
pub use status::{Class, Status, StatusError, StatusPattern};
pub use time::{Span, Timestamp};
pub use upstream::{Source, Upstream, UpstreamClient};
