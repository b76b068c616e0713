//! What a shard shows of itself: the answers, as people and programs read them.

use std::fmt;

use mail::{QueueId, Status, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Class, text};

/// A message in the queue, or those of its recipients that stand alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its queue id.
    #[serde(with = "text")]
    pub id: QueueId,
    /// When it was received.
    #[serde(with = "text::time")]
    pub received_at: Timestamp,
    /// Octets of content.
    pub size: u64,
    /// In which class it is.
    pub priority: Class,
    /// Whose mail it is, when it is a tenant's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What it says which campaign it is of (`queue.campaign-header`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
    /// The reverse-path; empty for the null reverse-path.
    pub sender: String,
    /// How many recipients are meant; a listing shows some of them.
    pub recipients_total: u32,
    /// The recipients.
    pub recipients: Vec<Recipient>,
}

/// Mail that no route is for any more: it was queued before a route was taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stranded {
    /// Where it goes.
    pub destination: String,
    /// How many recipients.
    pub recipients: u64,
}

/// A recipient in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// Its place in the envelope.
    pub index: u32,
    /// Its address.
    pub address: String,
    /// Where it stands.
    pub state: State,
    /// Where it goes.
    pub destination: String,
    /// The site that this is of, when that has another name and is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// How many attempts have ended.
    pub attempts: u32,
    /// When it is tried next.
    #[serde(with = "text::time_option", default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// Why it was deferred last.
    #[serde(with = "text::option", default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// What the next hop said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// What that is about, by the rules as they are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
}

/// The state of a recipient that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// May be tried as soon as its destination has a place free.
    Ready,
    /// An attempt is under way.
    Running,
    /// Waits for its next try.
    Deferred,
    /// An operator or a route keeps it back.
    Held,
}

/// A page of the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// What was found; a page may be empty and yet not the last.
    pub entries: Vec<Entry>,
    /// Where to go on, unless this was the last page: as text, since JavaScript rounds such numbers.
    #[serde(with = "text::option", default)]
    pub next: Option<u64>,
}

/// The queue in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Messages.
    pub messages: u64,
    /// Recipients by state.
    pub recipients: Counts,
    /// When the oldest message was received.
    #[serde(with = "text::time_option", default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Timestamp>,
    /// The destinations with the most recipients.
    pub destinations: Vec<Destination>,
}

/// Recipients by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// May be tried.
    pub ready: u64,
    /// Being tried.
    pub running: u64,
    /// Waiting for their next try.
    pub deferred: u64,
    /// Kept back.
    pub held: u64,
}

/// A destination in figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// The site that it is of, when that has another name: mail of the same hosts, whichever domain it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Its recipients by state.
    pub recipients: Counts,
    /// Attempts under way.
    pub attempts: u64,
    /// How often in a row its site could not be reached.
    pub failures: u32,
    /// Until when it is left alone.
    #[serde(with = "text::time_option", default, skip_serializing_if = "Option::is_none")]
    pub blocked_until: Option<Timestamp>,
}

/// Why something waits: a recipient, or all mail for a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The recipient's address, or the site's name.
    pub subject: String,
    /// On which shard.
    pub shard: usize,
    /// What holds it there, each alone sufficient.
    pub reasons: Vec<Reason>,
}

/// One thing that holds mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What kind, in a word for programs.
    pub cause: String,
    /// In words for people.
    pub text: String,
    /// When that ends, if it is known.
    #[serde(with = "text::time_option", default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What set it: keys of the configuration, or who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_by: Option<String>,
}

/// How a shard is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardHealth {
    /// Its number.
    pub shard: usize,
    /// What it does.
    pub stage: Stage,
    /// Whether it can keep what it is given.
    pub journal: JournalHealth,
    /// What is wrong with the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal_error: Option<String>,
    /// Connections from clients.
    pub inbound: u64,
    /// Connections to next hops.
    pub outbound: u64,
    /// Messages in its queue.
    pub messages: u64,
    /// How far its queue of before the start has come back, until all of it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returning: Option<Returning>,
}

/// How far the queue of before a start has come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returning {
    /// Messages that are back.
    pub messages: u64,
    /// How many there are, about; nothing before that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
}

/// What a shard does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It reads its journal.
    Starting,
    /// It takes connections.
    Serving,
    /// It takes no more, and ends what is under way.
    Stopping,
}

/// Whether mail can be made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalHealth {
    /// Yes.
    Healthy,
    /// No: the medium is full but for the reserve.
    Full,
    /// No: a write or a sync failed.
    Failed,
}

impl State {
    /// The word for it, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Deferred => "deferred",
            Self::Held => "held",
        }
    }
}

impl From<queue::State> for State {
    fn from(state: queue::State) -> Self {
        match state {
            queue::State::Ready => Self::Ready,
            queue::State::Running => Self::Running,
            queue::State::Deferred => Self::Deferred,
            queue::State::Held => Self::Held,
        }
    }
}

impl From<State> for queue::State {
    fn from(state: State) -> Self {
        match state {
            State::Ready => Self::Ready,
            State::Running => Self::Running,
            State::Deferred => Self::Deferred,
            State::Held => Self::Held,
        }
    }
}

impl From<queue::Counts> for Counts {
    fn from(counts: queue::Counts) -> Self {
        let queue::Counts { ready, running, deferred, held } = counts;
        Self { ready, running, deferred, held }
    }
}

impl Counts {
    /// All recipients.
    pub const fn total(&self) -> u64 {
        self.ready + self.running + self.deferred + self.held
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.ready += other.ready;
        self.running += other.running;
        self.deferred += other.deferred;
        self.held += other.held;
    }
}

impl Destination {
    /// Puts the figures of another shard to this one's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.recipients.add(other.recipients);
        self.attempts += other.attempts;
        if self.site.is_none() {
            self.site.clone_from(&other.site);
        }
        self.failures = self.failures.max(other.failures);
        self.blocked_until = self.blocked_until.max(other.blocked_until);
    }
}

impl fmt::Display for Returning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            Some(of) => {
                write!(f, "{} of {of} messages from before the start are back in the queue", self.messages)
            }
            None => f.write_str("the queue of before the start is being looked for"),
        }
    }
}

impl ShardHealth {
    /// Whether it takes mail.
    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Serving && self.journal == JournalHealth::Healthy
    }
}
