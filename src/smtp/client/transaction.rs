//! What a transaction is given, and what comes of it.

use mail::{
    BodyType, DeliverByMode, Recipient, Ret, ReversePath, Status, TlsDemand, TransferPriority, Upstream, Utf8,
};

use super::{Reply, ReplyError, Stage};
use crate::By;

/// One message for one next hop. Its content stays with the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Where reports go.
    pub reverse_path: ReversePath,
    /// Who gets it by this hop; at least one.
    pub recipients: Vec<Recipient>,
    /// Octets of content with CRLFs, without dot-stuffing (RFC 1870 §3). Exact: `BDAT` counts on it.
    pub size: u64,
    /// What the content is.
    pub body: BodyType,
    /// Why it could not be made into something else, where somebody tried to.
    pub unconverted: Option<&'static str>,
    /// Whether header fields need `SMTPUTF8`; that addresses do, they say themselves. A client may have asked for it without
    /// need; who knows that all is US-ASCII says [`Utf8::NotNeeded`] here and reaches more hops.
    pub utf8: Utf8,
    /// How much a failure DSN returns.
    pub ret: Option<Ret>,
    /// The sender's own id, xtext decoded.
    pub envelope_id: Option<Box<str>>,
    /// By when it is to be delivered, counted from now.
    pub by: Option<By>,
    /// How urgent it is.
    pub priority: TransferPriority,
    /// What it asks of TLS.
    pub tls: TlsDemand,
    /// Where it first came from, if the next hop is to know (XFORWARD).
    pub upstream: Option<Box<Upstream>>,
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionOutcome {
    /// One answer for each recipient, in order.
    Answered(Vec<Answer>),
    /// The connection was of no use before the next hop said a word about this transaction, and
    /// it had been used before: give it to another connection at once. This is not a failure.
    Untried(Transaction),
}

/// What one recipient got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reply that decided, and the command it answered.
    Reply(Stage, Reply),
    /// No reply came. [`Stage::End`] when all content had been sent: it may have been delivered.
    Lost(Stage, Loss),
    /// The next hop cannot take such a message; it was not asked.
    Unsuitable(Unsuitable),
    /// The next hop takes no more recipients in this transaction, or no other domain in this session (RFC 9422 §4.2,
    /// §4.3); it was not asked. Others of the transaction were.
    Left,
}

/// How a connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// The next hop closed or reset it.
    #[error("connection lost")]
    Closed,
    /// It was silent for too long.
    #[error("timed out")]
    TimedOut,
    /// It sent something that is not a reply.
    #[error(transparent)]
    Garbled(#[from] ReplyError),
}

/// Why the next hop cannot take the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// The message needs `SMTPUTF8` (RFC 6531 §3.5).
    #[error("the message needs SMTPUTF8, which the next hop does not offer")]
    Utf8,
    /// The message needs `8BITMIME` (RFC 6152 §3), and why it was not converted.
    #[error("the message needs 8BITMIME, which the next hop does not offer{}", conversion(*.0))]
    EightBitMime(Option<&'static str>),
    /// The message needs `BINARYMIME` and `CHUNKING` (RFC 3030 §3), and why it was not converted.
    #[error("the message needs BINARYMIME, which the next hop does not offer{}", conversion(*.0))]
    BinaryMime(Option<&'static str>),
    /// Its header fields need `SMTPUTF8`, its addresses do not (RFC 6531 §3.5).
    #[error("the message has UTF-8 in its header, and the next hop does not offer SMTPUTF8")]
    Utf8Header,
    /// The message is to be returned unless it is delivered in time, and the next hop does not offer to see to that,
    /// or not within so short a time (RFC 2852 §4.1.4.1).
    #[error("the message must be delivered in time, which the next hop does not offer")]
    DeliverBy,
    /// The time by which the message was to be delivered has passed (RFC 2852 §4.1.3).
    #[error("the time by which the message was to be delivered has passed")]
    Expired,
    /// The message is to travel under TLS alone, and the next hop does not offer to see to that (RFC 8689 §4.2.1).
    #[error("the message needs REQUIRETLS, which the next hop does not offer")]
    RequireTls,
    /// The message is larger than the next hop's `SIZE` (RFC 1870 §6.1).
    #[error("the message is larger than the {0} octets that the next hop takes")]
    TooLarge(u64),
}

impl Transaction {
    /// How many seconds are left, if it is returned when none are (RFC 2852 §4, mode `R`).
    pub(super) fn returned_in(&self) -> Option<i64> {
        self.by.filter(|by| by.mode == DeliverByMode::Return).map(|by| by.seconds)
    }

    /// Whether the message could go to somebody of its recipients without `SMTPUTF8`.
    pub(super) fn has_part_without_utf8(&self) -> bool {
        self.utf8 == Utf8::NotNeeded
            && self.reverse_path.address().is_none_or(mail::Address::is_ascii)
            && self.recipients.iter().any(|recipient| recipient.address.is_ascii())
    }

    /// Whether the hop must offer `SMTPUTF8` for all of it.
    pub fn needs_utf8(&self) -> bool {
        match self.utf8 {
            Utf8::Needed => true,
            Utf8::NotNeeded => !self.has_ascii_addresses(),
        }
    }

    /// Whether no address holds more than US-ASCII.
    pub(super) fn has_ascii_addresses(&self) -> bool {
        self.recipients.iter().all(|recipient| recipient.address.is_ascii())
            && self.reverse_path.address().is_none_or(mail::Address::is_ascii)
    }
}

impl Unsuitable {
    /// The status for the DSN.
    pub const fn status(self) -> Status {
        match self {
            // "Non-ASCII addresses not permitted for that sender/recipient" (RFC 6531 §3.5).
            Self::Utf8 => Status(5, 6, 7),
            // "Conversion required but not supported" (RFC 3463 §3.7).
            Self::EightBitMime(_) | Self::BinaryMime(_) => Status(5, 6, 3),
            // "UTF-8 header message cannot be transferred to one or more recipients" (RFC 6531 §3.5).
            Self::Utf8Header => Status(5, 6, 9),
            // "System not capable of selected features" (RFC 3463 §3.4).
            Self::DeliverBy => Status(5, 3, 3),
            Self::Expired => Status(5, 4, 7),
            // "REQUIRETLS support required" (RFC 8689 §4.2.1).
            Self::RequireTls => Status(5, 7, 30),
            Self::TooLarge(_) => Status(5, 3, 4),
        }
    }
}

fn conversion(why: Option<&'static str>) -> String {
    why.map(|why| format!(", and cannot be converted: {why}")).unwrap_or_default()
}
