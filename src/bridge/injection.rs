//! A message on its way from the pool into a shard, and what the shard says of it.

use std::net::SocketAddr;

use bytes::Bytes;
use mail::{Address, BodyType, QueueId, ReversePath, Status, Utf8};

/// A message for a shard to take in, as a client would bring it by SMTP.
#[derive(Clone, Debug)]
pub struct Injection {
    /// Who brings it: the name of its key.
    pub bringer: Box<str>,
    /// From where.
    pub client: SocketAddr,
    /// Where reports go.
    pub reverse_path: ReversePath,
    /// Who gets it.
    pub recipients: Vec<Address>,
    /// In wire form: lines end in CRLF, dots are not stuffed.
    pub content: Bytes,
    /// What octets it has.
    pub body: BodyType,
    /// Whether its header section or its envelope has more than US-ASCII.
    pub utf8: Utf8,
}

/// The answer: the message is durable and ours, or it is not ours.
pub type Injected = Result<QueueId, Declined>;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declined {
    /// What kind of reason.
    pub cause: Cause,
    /// The recipient it is about, by its place; none when it is about the message.
    pub recipient: Option<usize>,
    /// The code that a client would have got by SMTP.
    pub code: u16,
    /// The enhanced status code.
    pub status: Status,
    /// The label of the refusal, as in the metrics.
    pub label: &'static str,
    /// The refusal in words.
    pub text: &'static str,
}

/// What kind of reason there is not to take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No memory now, or too much at once.
    Busy,
    /// What its owner may send in a time is used up.
    UsedUp,
    /// The journal or the queue is full.
    Full,
    /// The journal has failed; nothing was written of this message.
    Failed,
    /// The journal failed while this message was being written: a restart may find it whole.
    Lost,
    /// The shard stops.
    Stopping,
    /// Something else that may pass.
    Later,
    /// This client may bring nothing.
    Denied,
    /// The message is larger than one may be.
    TooLarge,
    /// The message, or a recipient, for good.
    Message,
}

impl Cause {
    /// Whether another shard may do better.
    pub const fn is_of_the_shard(self) -> bool {
        match self {
            Self::Busy | Self::Full | Self::Failed | Self::Stopping => true,
            Self::UsedUp | Self::Lost | Self::Later | Self::Denied | Self::TooLarge | Self::Message => false,
        }
    }
}
