//! Mail that a host has come for, on its way from the shard that keeps it to the one that has the connection (RFC 2645).

use std::time::Duration;

use bytes::Bytes;
use delivery::Outcome;
use mail::{Domain, Envelope, QueueId};
use tokio::sync::oneshot;

/// Who has come, and for whose mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The SHA-256 of the certificate that says who it is.
    pub certificate: [u8; 32],
    /// The domains; none stands for all that it may have.
    pub domains: Vec<Domain>,
}

/// A message, and who of its recipients is to be asked for. It stays with the shard that keeps it until the receipt comes
/// back; without one, nothing was tried.
#[derive(Debug)]
pub struct Parcel {
    /// Its queue id.
    pub id: QueueId,
    /// Its envelope, with all recipients.
    pub envelope: Envelope,
    /// Places of those who are meant.
    pub recipients: Vec<u32>,
    /// Its content, in wire form.
    pub content: Vec<Bytes>,
    /// Octets of the content.
    pub size: u64,
    /// The way back.
    pub receipt: oneshot::Sender<Receipt>,
}

/// What became of a parcel.
#[derive(Debug)]
pub struct Receipt {
    /// Places in the envelope, and how each attempt ended. Who is missing was not tried.
    pub outcomes: Vec<(u32, Outcome)>,
    /// How long it took.
    pub took: Duration,
    /// TLS version and cipher.
    pub tls: Option<String>,
}
