//! What the pool may ask of a shard, and the shard's end of the door.

use std::{sync::Arc, time::Duration};

use delivery::tally::Tally;
use dns::{Answer, Question};
use mail::{JournalShard, Node, QueueId, Timestamp};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Call, Entry, Explained, Filter, Injected, Injection, Page, Parcel, Returning, Selector, ShardHealth,
    Stranded, Summary,
};

/// What the pool asks. Every step is bounded: long work is asked for again with a cursor.
#[derive(Debug)]
pub enum Request {
    /// A page of the queue.
    List(Listing, Reply<Page>),
    /// All that is known of a message; `None` when it is not queued here.
    Show(QueueId, Reply<Option<Entry>>),
    /// Why something waits: a queue id, or the name of a site or destination.
    Explain(String, Reply<Vec<Explained>>),
    /// One step of a change; ask again with [`Progress::next`] until there is none.
    Change {
        /// What is wanted.
        change: Change,
        /// Where to go on; 0 is the start.
        cursor: u64,
        /// What has been done; `None` when there is no route of that name.
        reply: Reply<Option<Progress>>,
    },
    /// Try now what waits for this node; `None` while that is being done for another one.
    Release(Node, Reply<Option<Released>>),
    /// Hand out to somebody who has come for it, one by one, what waits here: whether anything does, and `None` when that
    /// is not known yet.
    Collect(Call, mpsc::Sender<Parcel>, Reply<Option<bool>>),
    /// Take a message in: the answer comes when it is durable.
    Inject(Box<Injection>, Reply<Injected>),
    /// The queue in figures, with so many of the destinations that have the most recipients.
    Summary(usize, Reply<Summary>),
    /// How TLS went with next hops since this was asked last.
    TlsResults(Reply<Tally>),
    /// What was counted of mail that bore the names of domains since this was asked last (RFC 9990).
    DmarcResults(Reply<report::dmarc::Tally>),
    /// Ask the DNS.
    Ask(Question, Freshness, Reply<Arc<Answer>>),
    /// How the shard is.
    Health(Reply<ShardHealth>),
    /// Take the configuration of this generation from where it is published; answer with the queued mail that it leaves
    /// without a route, by destination.
    Reload(u64, Reply<Vec<Stranded>>),
    /// Give up the journal shards that hold nothing and take no new mail, so that another process may have them; answer
    /// with which these are.
    LetGo(Reply<Vec<JournalShard>>),
    /// Give up the journal shard that takes no new mail and holds the least, with the mail in it, so that another process may
    /// have it; answer with which that is, and how many messages it holds. `None` when there is none that can be given up.
    Spare(Reply<Option<(JournalShard, u64)>>),
    /// End when nobody is served here any more: what is under way to next hops gets so long then. Nothing is answered; the
    /// hatch is closed when it is done.
    Depart(Duration),
    /// Take no more connections, let transactions end within the grace, and answer with the number
    /// of sessions that had to be cut off.
    Drain(Duration, Reply<u64>),
}

/// How old the answer of the DNS may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// As old as it says itself.
    Remembered,
    /// It is asked for now.
    Now,
}

/// What a listing shows, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Which entries.
    pub filter: Filter,
    /// Where the page begins; 0 is the start.
    pub cursor: u64,
    /// How many entries at most.
    pub limit: usize,
}

/// What is to become of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is to become of them.
    pub action: Action,
    /// With [`Action::Reroute`]: the name of the route by which they go; none: their domain's own again.
    pub to: Option<Box<str>>,
    /// Whom it is about.
    pub selector: Selector,
    /// How much of a core it may take.
    pub pace: Pace,
    /// Only of mail that had come by then, whose age is told as it was then; none: of whatever is met, as it is now.
    pub as_of: Option<Timestamp>,
}

/// How much of a core a change may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// Somebody waits for it.
    #[default]
    Soon,
    /// What is left, and a small share of it where nothing is: it is long, and mail goes before it.
    Aside,
}

/// What an operator wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Try deferred recipients now.
    Retry,
    /// Try no more until released.
    Hold,
    /// Undo a hold.
    Release,
    /// Forget recipients without a notification.
    Remove,
    /// Send recipients by another route.
    Reroute,
    /// Nothing: say how many they are.
    Count,
}

impl Action {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Remove => "remove",
            Self::Reroute => "reroute",
            Self::Count => "count",
        }
    }
}

/// How far a change has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// Recipients that were meant.
    #[serde(default)]
    pub matched: u64,
    /// Recipients that this step changed.
    pub changed: u64,
    /// Entries of the queue that were looked at, of so many; not counted where one message alone is meant.
    #[serde(default)]
    pub looked: u64,
    /// How many entries there are.
    #[serde(default)]
    pub of: u64,
    /// Where to go on, unless this was the last step.
    #[serde(with = "crate::text::option", default)]
    pub next: Option<u64>,
}

/// What was found of the mail for a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Recipients that are being tried now.
    pub recipients: u64,
    /// Whether there may be more, among the mail of others.
    pub searching: bool,
}

/// The way from one shard to all, itself among them. Nobody waits at it: where there is no room, there is no answer. It
/// does not keep the hatches open: a shard ends when the pool cannot ask it any more, though its neighbours could.
#[derive(Clone, Debug)]
pub struct Neighbours(pub(crate) Vec<mpsc::WeakSender<Request>>);

impl Neighbours {
    /// Has all shards try what waits for a node; `None` when one of them does not. What one that has ended had is another
    /// process's: there may be more.
    pub async fn release(&self, node: &Node) -> Option<Released> {
        let mut answers = Vec::with_capacity(self.0.len());
        for shard in &self.0 {
            let (reply, answer) = oneshot::channel();
            let asked = ask(shard, Request::Release(node.clone(), Reply(reply)));
            answers.push((asked, answer));
        }
        if answers.iter().all(|(asked, _)| *asked == Asked::Ended) {
            return None;
        }
        let mut all = Some(Released::default());
        for (asked, answer) in answers {
            let one = match asked {
                Asked::Yes => answer.await.ok().and_then(Result::ok).flatten(),
                Asked::Ended => Some(Released { recipients: 0, searching: true }),
                Asked::No => None,
            };
            all = all.zip(one).map(|(all, one)| Released {
                recipients: all.recipients + one.recipients,
                searching: all.searching || one.searching,
            });
        }
        all
    }

    /// Has all shards hand out what waits for somebody who has come for it: whether anything does, and where it comes;
    /// `None` when one of them cannot tell, or nothing waits and one of them has ended: what that had is another process's.
    /// What comes ends when all has come.
    pub async fn collect(&self, call: &Call) -> Option<(bool, mpsc::Receiver<Parcel>)> {
        let (parcels, coming) = mpsc::channel(1);
        let (mut answers, mut is_whole) = (Vec::with_capacity(self.0.len()), true);
        for shard in &self.0 {
            let (reply, answer) = oneshot::channel();
            match ask(shard, Request::Collect(call.clone(), parcels.clone(), Reply(reply))) {
                Asked::Yes => answers.push(answer),
                Asked::Ended => is_whole = false,
                Asked::No => return None,
            }
        }
        let mut any = false;
        for answer in answers {
            match answer.await {
                Ok(answer) => any |= answer.ok().flatten()?,
                // It ends just now.
                Err(_) => is_whole = false,
            }
        }
        (any || is_whole).then_some((any, coming))
    }
}

/// Whether a shard was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Yes,
    /// It has no room to note it down.
    No,
    /// It takes no questions any more.
    Ended,
}

fn ask(shard: &mpsc::WeakSender<Request>, request: Request) -> Asked {
    let Some(shard) = shard.upgrade() else { return Asked::Ended };
    match shard.try_send(request) {
        Ok(()) => Asked::Yes,
        Err(mpsc::error::TrySendError::Full(_)) => Asked::No,
        Err(mpsc::error::TrySendError::Closed(_)) => Asked::Ended,
    }
}

/// The way back. Dropping it unanswered tells the asker that the shard would not answer.
#[derive(Debug)]
#[must_use = "somebody waits for the answer"]
pub struct Reply<T>(pub(crate) Answering<T>);

pub(crate) type Answering<T> = oneshot::Sender<Result<T, Returning>>;
pub(crate) type Answered<T> = oneshot::Receiver<Result<T, Returning>>;

impl<T> Reply<T> {
    /// Answers. Whoever asked may have gone away meanwhile, which is no matter.
    pub fn send(self, answer: T) {
        let _ = self.0.send(Ok(answer));
    }

    /// Does not answer yet: the queue that was asked about is not complete.
    pub fn put_off(self, returning: Returning) {
        let _ = self.0.send(Err(returning));
    }
}

/// The shard's end: requests come out one by one.
#[derive(Debug)]
pub struct Hatch(mpsc::Receiver<Request>);

impl Hatch {
    /// Waits for the next request; `None` when the pool is gone.
    pub async fn recv(&mut self) -> Option<Request> {
        self.0.recv().await
    }

    /// The next request, if there is one.
    pub fn try_recv(&mut self) -> Option<Request> {
        self.0.try_recv().ok()
    }
}

/// Both ends of the door for so many shards; each holds so many requests.
pub fn hatches(shards: usize, requests_max: usize) -> (Vec<mpsc::Sender<Request>>, Vec<Hatch>) {
    (0..shards)
        .map(|_| {
            let (sender, receiver) = mpsc::channel(requests_max);
            (sender, Hatch(receiver))
        })
        .unzip()
}
