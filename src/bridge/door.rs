//! The pool's end of the door: ask one shard, ask all, put the answers together.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use delivery::tally::Tally;
use dns::{Answer, Question};
use mail::{JournalShard, QueueId};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    Cause, Change, Declined, Entry, Explained, Filter, Freshness, Hatch, Injected, Injection, Listing,
    Neighbours, Page, Progress, Reply, Request, Returning, ShardHealth, Stranded, Summary, hatches,
    request::Answered,
};

/// The way to all shards. Clones are the same door.
#[derive(Clone, Debug)]
pub struct Door {
    shards: Vec<mpsc::Sender<Request>>,
    limits: Limits,
    /// The shard that gets the next message.
    turn: Arc<AtomicUsize>,
}

/// Upper bounds. Everything has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that wait at one shard before the pool has to.
    pub requests_max: usize,
    /// How long an answer may take.
    pub answer_max: Duration,
    /// How long a message may take to be durable.
    pub inject_max: Duration,
    /// Steps of one listing or change before the caller is told to go on by cursor.
    pub steps_max: usize,
}

/// There is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The shard has ended, or would not answer.
    #[error("shard {0} does not answer: it is stopping or has failed; look at the log")]
    Gone(usize),
    /// The shard took too long.
    #[error("shard {0} did not answer in time: it is overloaded; try again")]
    Late(usize),
    /// The queue is not complete yet after a start.
    #[error("shard {0} cannot tell yet: {1}; try again")]
    Returning(usize, Returning),
    /// No such shard: the cursor is not one of ours.
    #[error("the cursor is not from this server: start again without it")]
    Cursor,
    /// No such route.
    #[error("no route of the configuration has that name")]
    Route,
    /// More is asked of every shard than it can note down.
    #[error("every shard has more to do than it can note down: try again")]
    Crowded,
}

impl Default for Limits {
    fn default() -> Self {
        let (answer_max, inject_max) = (Duration::from_secs(10), Duration::from_secs(60));
        Self { requests_max: 64, answer_max, inject_max, steps_max: 1_000 }
    }
}

impl Door {
    /// A door, and the hatch of each shard.
    pub fn new(shards: usize, limits: Limits) -> (Self, Vec<Hatch>) {
        assert!(shards > 0 && shards <= SHARDS_MAX, "1 to {SHARDS_MAX} shards");
        let (shards, hatches) = hatches(shards, limits.requests_max);
        (Self { shards, limits, turn: Arc::default() }, hatches)
    }

    /// The way that the shards have to one another.
    pub fn neighbours(&self) -> Neighbours {
        Neighbours(self.shards.iter().map(mpsc::Sender::downgrade).collect())
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// A page of the whole queue: shard after shard, from a cursor that an earlier page gave.
    ///
    /// # Errors
    /// [`AskError`] when a shard does not answer or the cursor is not ours.
    pub async fn list(&self, filter: &Filter, cursor: Option<u64>, limit: usize) -> Result<Page, AskError> {
        let mut place = Place::of(cursor.unwrap_or_default());
        let mut entries = Vec::new();
        for _ in 0..self.limits.steps_max {
            let room = limit.saturating_sub(entries.len());
            let Some(shard) = self.place(place)? else { return Ok(Page { entries, next: None }) };
            if room == 0 {
                break;
            }
            let listing = Listing { filter: filter.clone(), cursor: place.cursor, limit: room };
            let page = self.ask(shard, |reply| Request::List(listing, reply)).await?;
            entries.extend(page.entries);
            place = place.after(page.next);
        }
        Ok(Page { entries, next: Some(place.bits()).filter(|_| place.shard < self.shards.len()) })
    }

    /// All that is known of a message; `None` when it is not queued.
    ///
    /// # Errors
    /// [`AskError`] when a shard does not answer.
    pub async fn show(&self, id: QueueId) -> Result<Option<Entry>, AskError> {
        // Which core has taken a journal shard over is the shards' affair: ask them all.
        let answers = self.ask_all(|reply| Request::Show(id, reply)).await?;
        Ok(answers.into_iter().flatten().next())
    }

    /// Why something waits: a queue id, or the name of a site or destination; nothing where it is not known.
    ///
    /// # Errors
    /// [`AskError`] when a shard does not answer.
    pub async fn explain(&self, subject: &str) -> Result<Vec<Explained>, AskError> {
        let answers = self.ask_all(|reply| Request::Explain(subject.to_owned(), reply)).await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Changes what becomes of recipients. The progress has a cursor when there is more to do than one
    /// call may.
    ///
    /// # Errors
    /// [`AskError`] when a shard does not answer; what was changed before stays changed.
    pub async fn change(&self, change: &Change, cursor: Option<u64>) -> Result<Progress, AskError> {
        let mut place = Place::of(cursor.unwrap_or_default());
        let mut all = Progress::default();
        for _ in 0..self.limits.steps_max {
            let Some(shard) = self.place(place)? else { return Ok(all) };
            let step = self.change_step(shard, change, place.cursor).await?;
            all.matched += step.matched;
            all.changed += step.changed;
            all.looked += step.looked;
            all.of = step.of;
            place = place.after(step.next);
        }
        Ok(Progress { next: Some(place.bits()).filter(|_| place.shard < self.shards.len()), ..all })
    }

    /// One step of a change on one shard, from the cursor that the step before gave; 0 is the start.
    ///
    /// # Errors
    /// [`AskError`] when the shard does not answer. One that is late may have done it all the same.
    pub async fn change_step(
        &self,
        shard: usize,
        change: &Change,
        cursor: u64,
    ) -> Result<Progress, AskError> {
        let change = change.clone();
        self.ask(shard, |reply| Request::Change { change, cursor, reply }).await?.ok_or(AskError::Route)
    }

    /// Has a message taken in: by the shard whose turn it is, or by another when that one cannot.
    ///
    /// # Errors
    /// [`AskError`] when no shard can be asked. [`AskError::Late`] and [`AskError::Gone`] do not tell whether the
    /// message is ours.
    pub async fn inject(&self, injection: Injection) -> Result<Injected, AskError> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut answer = Err(AskError::Crowded);
        for number in 0..self.shards.len() {
            let shard = first.wrapping_add(number) % self.shards.len();
            let (reply, answered) = oneshot::channel();
            // Whoever has no room to note it down is passed over: to wait there helps nobody.
            match self.shards[shard].try_send(Request::Inject(Box::new(injection.clone()), Reply(reply))) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => continue,
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    answer = Err(AskError::Gone(shard));
                    continue;
                }
            }
            let injected = match timeout(self.limits.inject_max, answered).await {
                Ok(Ok(Ok(injected))) => injected,
                Ok(Ok(Err(returning))) => return Err(AskError::Returning(shard, returning)),
                Ok(Err(_)) => return Err(AskError::Gone(shard)),
                Err(_) => return Err(AskError::Late(shard)),
            };
            match injected {
                Err(declined) if declined.cause.is_of_the_shard() => {
                    answer = Ok(Err(sooner(answer, declined)))
                }
                answer => return Ok(answer),
            }
        }
        answer
    }

    /// The whole queue in figures, with so many destinations.
    ///
    /// # Errors
    /// [`AskError`] when a shard does not answer.
    pub async fn summary(&self, destinations_max: usize) -> Result<Summary, AskError> {
        let answers = self.ask_all(|reply| Request::Summary(destinations_max, reply)).await?;
        let mut all = Summary::default();
        let mut destinations = BTreeMap::new();
        for answer in answers {
            all.messages += answer.messages;
            all.recipients.add(answer.recipients);
            all.oldest = [all.oldest, answer.oldest].into_iter().flatten().min();
            for destination in answer.destinations {
                match destinations.entry(destination.name.clone()) {
                    std::collections::btree_map::Entry::Vacant(place) => {
                        place.insert(destination);
                    }
                    std::collections::btree_map::Entry::Occupied(mut place) => {
                        place.get_mut().add(&destination);
                    }
                }
            }
        }
        all.destinations = destinations.into_values().collect();
        all.destinations.sort_by_key(|destination| std::cmp::Reverse(destination.recipients.total()));
        all.destinations.truncate(destinations_max);
        Ok(all)
    }

    /// How TLS went with next hops since this was asked last, over all shards that answer.
    pub async fn tls_results(&self) -> Tally {
        let mut all = Tally::default();
        for tally in self.answers(Request::TlsResults).await.into_iter().flatten() {
            all.merge(tally);
        }
        all
    }

    /// What was counted of mail that bore the names of domains since this was asked last, over all shards that answer.
    pub async fn dmarc_results(&self) -> report::dmarc::Tally {
        let mut all = report::dmarc::Tally::default();
        for tally in self.answers(Request::DmarcResults).await.into_iter().flatten() {
            all.merge(tally);
        }
        all
    }

    /// What the DNS says, as a shard asks it.
    ///
    /// # Errors
    /// [`AskError`] when the shard does not answer.
    pub async fn resolve(&self, question: Question) -> Result<Arc<Answer>, AskError> {
        self.ask(0, |reply| Request::Ask(question, Freshness::Remembered, reply)).await
    }

    /// What the DNS says now, as a shard asks it, and not what it remembers.
    ///
    /// # Errors
    /// [`AskError`] when the shard does not answer.
    pub async fn resolve_anew(&self, question: Question) -> Result<Arc<Answer>, AskError> {
        self.ask(0, |reply| Request::Ask(question, Freshness::Now, reply)).await
    }

    /// How each shard is; a shard that does not answer says so in its place.
    pub async fn health(&self) -> Vec<Result<ShardHealth, AskError>> {
        self.answers(Request::Health).await
    }

    /// Tells every shard to take the configuration of this generation. Answers which queued mail no route is for any
    /// more, the most first.
    ///
    /// # Errors
    /// [`AskError`] when a shard does not answer; the others have it.
    pub async fn reload(&self, generation: u64) -> Result<Vec<Stranded>, AskError> {
        let mut all: Vec<Stranded> = Vec::new();
        for one in self.ask_all(|reply| Request::Reload(generation, reply)).await?.into_iter().flatten() {
            match all.iter_mut().find(|other| other.destination == one.destination) {
                Some(other) => other.recipients += one.recipients,
                None => all.push(one),
            }
        }
        all.sort_by(|a, b| (b.recipients, &a.destination).cmp(&(a.recipients, &b.destination)));
        Ok(all)
    }

    /// Has a shard give up what it does not need of the journal; says what that is. The answer takes as long as it takes, and must
    /// not be missed, as with [`Door::spare`].
    ///
    /// # Errors
    /// [`AskError`] when it cannot be told.
    pub async fn let_go(
        &self,
        shard: usize,
    ) -> Result<impl Future<Output = Vec<JournalShard>> + Send + use<>, AskError> {
        let answer = self.send(shard, Request::LetGo).await?;
        Ok(async move { answer.await.ok().and_then(Result::ok).unwrap_or_default() })
    }

    /// Has a shard give up the journal shard that it needs least, with the mail in it. The answer says which that is, and how many
    /// messages it holds; it takes as long as it takes, and must not be missed: what is given up would be nobody's. None comes
    /// from a shard that ends.
    ///
    /// # Errors
    /// [`AskError`] when it cannot be told.
    pub async fn spare(
        &self,
        shard: usize,
    ) -> Result<impl Future<Output = Option<(JournalShard, u64)>> + Send + use<>, AskError> {
        let answer = self.send(shard, Request::Spare).await?;
        Ok(async move { answer.await.ok().and_then(Result::ok).flatten() })
    }

    /// Has a shard end as soon as nobody is served there any more; what is under way to next hops gets so long then.
    ///
    /// # Errors
    /// [`AskError`] when it cannot be told.
    pub async fn depart(&self, shard: usize, rest: Duration) -> Result<(), AskError> {
        self.tell(shard, Request::Depart(rest)).await
    }

    /// Ends the sessions of every shard within the grace; says how many each had to cut off.
    pub async fn drain(&self, grace: Duration) -> Vec<Result<u64, AskError>> {
        let answer_max = self.limits.answer_max.saturating_add(grace);
        let patient = Self { limits: Limits { answer_max, ..self.limits }, ..self.clone() };
        patient.answers(|reply| Request::Drain(grace, reply)).await
    }

    /// Asks one shard.
    ///
    /// # Errors
    /// [`AskError`] when it does not answer.
    pub async fn ask<T>(
        &self,
        shard: usize,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, AskError> {
        let answer = self.send(shard, request).await?;
        self.receive(shard, answer).await
    }

    /// Asks every shard at the same time.
    ///
    /// # Errors
    /// The first [`AskError`].
    pub async fn ask_all<T>(&self, request: impl FnMut(Reply<T>) -> Request) -> Result<Vec<T>, AskError> {
        self.answers(request).await.into_iter().collect()
    }

    async fn answers<T>(&self, mut request: impl FnMut(Reply<T>) -> Request) -> Vec<Result<T, AskError>> {
        let mut waiting = Vec::with_capacity(self.shards.len());
        for shard in 0..self.shards.len() {
            waiting.push(self.send(shard, &mut request).await);
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for (shard, answer) in waiting.into_iter().enumerate() {
            answers.push(match answer {
                Ok(answer) => self.receive(shard, answer).await,
                Err(error) => Err(error),
            });
        }
        answers
    }

    async fn send<T>(
        &self,
        shard: usize,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<Answered<T>, AskError> {
        let (reply, answer) = oneshot::channel();
        self.tell(shard, request(Reply(reply))).await?;
        Ok(answer)
    }

    async fn tell(&self, shard: usize, request: Request) -> Result<(), AskError> {
        match timeout(self.limits.answer_max, self.shards[shard].send(request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(AskError::Gone(shard)),
            Err(_) => Err(AskError::Late(shard)),
        }
    }

    async fn receive<T>(&self, shard: usize, answer: Answered<T>) -> Result<T, AskError> {
        match timeout(self.limits.answer_max, answer).await {
            Ok(Ok(answer)) => answer.map_err(|returning| AskError::Returning(shard, returning)),
            Ok(Err(_)) => Err(AskError::Gone(shard)),
            Err(_) => Err(AskError::Late(shard)),
        }
    }

    /// The shard to go on with; none when all are done.
    fn place(&self, place: Place) -> Result<Option<usize>, AskError> {
        match place.shard.cmp(&self.shards.len()) {
            std::cmp::Ordering::Less => Ok(Some(place.shard)),
            std::cmp::Ordering::Equal if place.cursor == 0 => Ok(None),
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => Err(AskError::Cursor),
        }
    }
}

/// Of two shards that could not take a message, the one that can do so sooner is told of.
fn sooner(before: Result<Injected, AskError>, now: Declined) -> Declined {
    match before {
        Ok(Err(before)) if before.cause == Cause::Busy => before,
        Ok(_) | Err(_) => now,
    }
}

/// How far a walk over all shards has come: shard, and cursor of that shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    shard: usize,
    cursor: u64,
}

/// A cursor of ours has the shard in its upper bits; the cursor of a shard must leave them free.
const CURSOR_BITS: u32 = 52;
const SHARDS_MAX: usize = 1 << (63 - CURSOR_BITS);

impl Place {
    const fn of(bits: u64) -> Self {
        Self { shard: (bits >> CURSOR_BITS) as usize, cursor: bits & ((1 << CURSOR_BITS) - 1) }
    }

    fn bits(self) -> u64 {
        assert!(self.cursor >> CURSOR_BITS == 0, "a shard's cursor has {CURSOR_BITS} bits");
        (self.shard as u64) << CURSOR_BITS | self.cursor
    }

    fn after(self, next: Option<u64>) -> Self {
        match next {
            Some(cursor) => Self { shard: self.shard, cursor },
            None => Self { shard: self.shard + 1, cursor: 0 },
        }
    }
}

#[cfg(test)]
#[path = "door_test.rs"]
mod test;
