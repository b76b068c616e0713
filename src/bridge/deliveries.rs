//! Mail that the pool delivers for the shards: into programs, and to services that speak HTTP.
//!
//! ```text
//!  shard ── Delivery ──▶ desk ──▶ pool: a program, a request ── Outcome ──▶ shard
//!        ── Saying ────▶                a program that says a token ──────▶
//! ```
//!
//! A delivery without an answer was not made, as far as anybody knows: its message is tried again.

use std::{fmt, net::IpAddr, sync::Arc};

use bytes::Bytes;
use delivery::{Hearing, Means, Outcome, Remote};
use mail::{Envelope, QueueId, Timestamp};
use tokio::sync::{mpsc, oneshot};

/// The shards' end. Clones are the same.
#[derive(Clone, Debug)]
pub struct Deliveries(mpsc::Sender<PoolErrand>);

/// What the pool is asked for.
#[derive(Debug)]
pub enum PoolErrand {
    /// To deliver a message.
    Deliver(Box<Delivery>),
    /// To have a program say something.
    Say(Saying),
}

/// A message for some of its recipients.
#[derive(Debug)]
pub struct Delivery {
    /// Its queue id.
    pub id: QueueId,
    /// By what.
    pub means: Arc<Means>,
    /// What outcomes call that.
    pub remote: Arc<Remote>,
    /// Its envelope, with all recipients.
    pub envelope: Envelope,
    /// Places of those who are meant.
    pub recipients: Vec<u32>,
    /// Its content, in wire form.
    pub content: Vec<Bytes>,
    /// The addresses of a service.
    pub addresses: Vec<IpAddr>,
    /// As whom a request is made.
    pub authorization: Option<Authorization>,
    /// What a request is signed with.
    pub secret: Option<Hidden>,
    /// Now.
    pub now: Timestamp,
    /// The way back.
    pub outcome: oneshot::Sender<Delivered>,
}

/// What came of a delivery, the same for all of its recipients.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// For the queue, and for whoever is told.
    pub outcome: Outcome,
    /// Whether that is what the program or the service has said. If not, neither was reached.
    pub is_answer: bool,
}

/// As whom a request is made (RFC 9110 §11.6.2).
#[derive(Clone, Debug)]
pub enum Authorization {
    /// With a token (RFC 6750).
    Bearer(Hidden),
    /// With a password (RFC 7617).
    Basic {
        /// Who.
        user: Box<str>,
        /// What proves it.
        password: Hidden,
    },
}

/// A secret, which nothing prints.
#[derive(Clone)]
pub struct Hidden(Box<str>);

impl Hidden {
    /// Of this text.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever is to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

/// A program that is run for what it writes.
#[derive(Debug)]
pub struct Saying {
    /// Its name.
    pub program: Box<str>,
    /// What of it is waited for.
    pub hearing: Hearing,
    /// The way back: what it has written, or why there is nothing.
    pub said: oneshot::Sender<Result<Hidden, String>>,
}

impl Deliveries {
    /// Both ends, with room for so many that wait for the pool.
    pub fn new(waiting_max: usize) -> (Self, mpsc::Receiver<PoolErrand>) {
        let (sender, receiver) = mpsc::channel(waiting_max);
        (Self(sender), receiver)
    }

    /// Hands an errand over, and waits while there is no room.
    ///
    /// # Errors
    /// When the pool has ended.
    pub async fn send(&self, errand: PoolErrand) -> Result<(), PoolGone> {
        self.0.send(errand).await.map_err(|_| PoolGone)
    }
}

/// There is no pool any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server stops")]
pub struct PoolGone;
