//! After a start: what was queued before comes back, in slices, while new mail is taken and sent. So does the mail of
//! another process that hands its journal shards over.
//!
//! ```text
//!  Reading ──all records that may tell of an end──▶ Returning ──each message, the youngest first──▶ Over
//! ```
//!
//! Nothing of it is put into the queue before all records are read that may tell of its end. A message that is back is
//! like any other: its time may come, it may end. Only those that are due already wait for the last one, so that none of
//! them is tried before an older one. There is no checkpoint before all is back, for one that told nothing of what is
//! missing would make the next start forget it.

use std::{cell::Cell, path::PathBuf, rc::Rc, time::Duration};

use bridge::Returning;
use delivery::Demand;
use index::{Batch, Entries, Loaded};
use journal::{
    DelayNotice, Entry, Indexed, Older, Phase, Position, RecoveryError, Report, ReturnPath, Start, Step,
};
use mail::{JournalShard, QueueId, Timestamp, TlsDemand};
use queue::{Kind, MessageState, RecipientState, Restored, State, Warning};
use ring::Event;
use tokio::sync::{mpsc, oneshot};
use watch::{
    ShardMetrics,
    events::{JournalUnread, Recovered, Returns},
};

use crate::{
    egress, facts,
    journals::Committer,
    locate,
    recover::{self, Files, RecoverError, Slice},
    schedule,
    settings::Settings,
    shard::{Held, Shard, priority, times},
    upkeep::{self, IndexChange, IndexOrder},
};

/// A journal shard that is open, and what of it is still to come back.
pub(crate) struct Missing {
    pub(crate) committer: Rc<Committer>,
    pub(crate) directory: PathBuf,
    pub(crate) older: Older,
    /// What its index says, once it is read; none when there is none, or none of use.
    pub(crate) loaded: oneshot::Receiver<Option<Loaded>>,
    /// Dropped when it is waited for.
    pub(crate) adopted: Option<oneshot::Sender<()>>,
}

/// How far the queue of before the start has come back.
#[derive(Debug)]
pub(crate) struct Return {
    stage: Cell<Stage>,
    messages: Cell<u64>,
    changed: Event,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is being looked what there is.
    Reading,
    /// About so many messages are to come.
    Returning(u64),
    Over,
}

/// A journal shard being brought back.
struct Source {
    committer: Rc<Committer>,
    older: Older,
    entries: Entries,
    /// The last of the entries, decoded.
    block: Vec<(QueueId, Entry)>,
    /// The message with the highest id of those that are missing.
    next: Option<journal::Restored>,
    feed: Feed,
}

/// What the index is told.
struct Feed {
    shard: JournalShard,
    orders: mpsc::Sender<IndexOrder>,
    put: Vec<(QueueId, Entry)>,
    gone: Vec<QueueId>,
}

/// Messages between two looks at the clock.
const STEP: usize = 64;
/// Entries that the index is given at once.
const FILL: usize = 1024;
/// How often the log tells of the progress.
const TELL_EVERY: Duration = Duration::from_secs(5);

impl Return {
    pub(crate) fn new() -> Self {
        Self { stage: Cell::new(Stage::Reading), messages: Cell::new(0), changed: Event::new() }
    }

    /// Waits until all is back, or the core stops before that; says whether all is.
    pub(crate) async fn wait(&self, shard: &Shard) -> bool {
        loop {
            let changed = self.changed.wait();
            if self.is_over() || shard.is_stopping() {
                return self.is_over();
            }
            changed.await;
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stage.get() == Stage::Over
    }

    /// More is to come back than there was at the start.
    fn begin_again(&self) {
        self.stage.set(Stage::Reading);
        self.messages.set(0);
    }

    /// How far it has come, unless it is over.
    pub(crate) fn progress(&self) -> Option<Returning> {
        let messages = self.messages.get();
        match self.stage.get() {
            Stage::Reading => Some(Returning { messages, of: None }),
            Stage::Returning(of) => Some(Returning { messages, of: Some(of.max(messages)) }),
            Stage::Over => None,
        }
    }

    /// Brings gauges up to date.
    pub(crate) fn measure(&self, metrics: &ShardMetrics) {
        let (messages, of) = match self.stage.get() {
            Stage::Reading => (0, 0),
            Stage::Returning(of) => (self.messages.get(), of),
            Stage::Over => (self.messages.get(), 0),
        };
        let queue = &metrics.queue;
        queue.returned.set(messages);
        queue.missing.set(of.saturating_sub(messages));
        queue.returning.set(u64::from(!self.is_over()));
    }

    /// The core stops: whoever waits for this waits in vain.
    pub(crate) fn on_stop(&self) {
        self.changed.notify_all();
    }
}

/// Takes over journal shards that another process had until now: their mail comes back as after a start. Nobody who is served
/// here is to suffer for one that cannot be read: it is left as it is, and a start tells what is wrong.
pub(crate) async fn adopt(shard: &Rc<Shard>, missing: Vec<Missing>, orders: &mpsc::Sender<IndexOrder>) {
    let began = ring::clock::now();
    shard.returning.begin_again();
    shard.queue.borrow_mut().begin_restore();
    for missing in &missing {
        shard.journals.push(missing.committer.clone());
        upkeep::begin_commits(shard, &missing.committer);
    }
    let mut sources = Vec::with_capacity(missing.len());
    for missing in missing {
        let committer = missing.committer.clone();
        match Source::read(shard, missing, orders).await {
            Ok(Some(source)) => sources.push(source),
            Ok(None) => return,
            Err(error) => {
                give_up(shard.number, committer.number(), &error);
                shard.journals.take(&committer).await;
            }
        }
    }
    put_back(shard, sources, began).await;
}

/// Tells of a journal shard that is left as it is.
pub(crate) fn give_up(core: usize, number: JournalShard, error: &RecoverError) {
    JournalUnread { shard: core, journal: number.0.into(), error: &error.to_string() }.emit(facts::now().0);
}

/// Brings back what the journal shards of a core hold. It ends early when the core stops.
///
/// # Errors
/// When a segment cannot be opened any more: what lives in it would be lost from view.
pub(crate) async fn run(
    shard: &Rc<Shard>,
    missing: Vec<Missing>,
    orders: &mpsc::Sender<IndexOrder>,
) -> Result<(), RecoverError> {
    let began = ring::clock::now();
    let mut sources = Vec::with_capacity(missing.len());
    for missing in missing {
        let Some(source) = Source::read(shard, missing, orders).await? else { return Ok(()) };
        sources.push(source);
    }
    put_back(shard, sources, began).await;
    Ok(())
}

/// All that must be known is known: the messages come back.
async fn put_back(shard: &Rc<Shard>, mut sources: Vec<Source>, began: Duration) {
    let stage = &shard.returning.stage;
    stage.set(Stage::Returning(sources.iter().map(Source::about).sum()));
    let Some(recipients) = put_all(shard, &mut sources).await else { return };
    let mut records = 0;
    for source in sources {
        let report = source.finish().await;
        recover::tell_damage(shard.number, &report, facts::now().0);
        records += report.records;
    }
    shard.queue.borrow_mut().end_restore();
    stage.set(Stage::Over);
    shard.returning.changed.notify_all();
    shard.due.notify_all();
    let (messages, took) = (shard.returning.messages.get(), ring::clock::now().saturating_sub(began));
    Recovered { shard: shard.number, messages, recipients, records, torn: 0, took }.emit(facts::now().0);
}

/// Puts everything into the queue, the youngest first, since each message goes before those that are in. Answers how many
/// recipients there are; nothing when the core stops.
async fn put_all(shard: &Rc<Shard>, sources: &mut [Source]) -> Option<u64> {
    let (mut recipients, mut count) = (0, 0);
    let (mut slice, mut told) = (Slice::begin(), None);
    let (mut settings, mut now) = (shard.settings(), facts::now());
    sources.iter_mut().for_each(Source::advance);
    while let Some(source) = sources.iter_mut().filter(|source| source.next.is_some()).max_by_key(|s| s.age())
    {
        let journal::Restored { id, entry, indexed } = source.next.take().expect("it was looked for");
        for (place, state) in &entry.states {
            if let Some(last) = &state.last {
                shard.remember_last(id, *place, last.clone());
            }
        }
        // The index has it, or will be told of it before it is told of its end.
        source.committer.changes.borrow_mut().indexed(id);
        recipients += put(shard, &settings, id, &entry, now);
        // Before the queue has time to retire what has no other recipient.
        schedule::follow(shard, recover::untold(id, &entry).into_iter().collect());
        shard.returning.messages.set(shard.returning.messages.get() + 1);
        if indexed == Indexed::No {
            source.feed.put.push((id, entry));
        }
        source.advance();
        if source.feed.put.len() >= FILL {
            source.feed.fill().await;
            settings = shard.settings();
        }
        count += 1;
        if count % STEP == 0 && slice.is_over() {
            let at = ring::clock::now();
            if told.is_none_or(|told| at.saturating_sub(told) >= TELL_EVERY) {
                told = Some(at);
                tell(shard, now);
            }
            // Who is back may be due before what the queue waits for.
            shard.due.notify_all();
            slice.pause().await;
            (settings, now) = (shard.settings(), facts::now());
            if shard.is_stopping() {
                return None;
            }
        }
    }
    Some(recipients)
}

fn tell(shard: &Shard, at: Timestamp) {
    if let Some(Returning { messages, of: Some(of) }) = shard.returning.progress() {
        Returns { shard: shard.number, messages, of }.emit(at.0);
    }
}

/// Puts a message into the queue, before all that are in; says how many recipients it still has.
fn put(shard: &Shard, settings: &Settings, id: QueueId, entry: &Entry, now: Timestamp) -> u64 {
    let mut queue = shard.queue.borrow_mut();
    let demand = match (entry.facts.handling.tls, entry.facts.return_path) {
        (TlsDemand::None | TlsDemand::Waived, _) => Demand::None,
        (TlsDemand::Required, ReturnPath::Address) => Demand::Required,
        (TlsDemand::Required, ReturnPath::Null) => Demand::Preferred,
    };
    let handling = &entry.facts.handling;
    let campaign = shard.lots.of_campaign(settings.campaigns.of(handling));
    let owner = (locate::tenant(handling.tenant), campaign);
    let mut states = entry.states.iter().peekable();
    let mut recipients = Vec::new();
    for (place, domain) in (0..entry.placement.recipients).zip(entry.facts.domains()) {
        while states.next_if(|(other, _)| *other < place).is_some() {}
        let (state, attempts, due, status, category, chosen, pool) =
            match states.next_if(|(other, _)| *other == place) {
                Some((_, state)) => match state.phase {
                    Phase::Delivered | Phase::Untold | Phase::Failed | Phase::Removed => continue,
                    phase @ (Phase::Queued | Phase::Deferred | Phase::Held) => (
                        queue_state(phase),
                        state.attempts.try_into().unwrap_or(u16::MAX),
                        state.due,
                        state.last.as_ref().and_then(|last| last.status),
                        state.category,
                        state.route.as_deref(),
                        state.pool.as_deref(),
                    ),
                },
                None => (State::Ready, 0, now, None, None, None, None),
            };
        let Ok(domain) = mail::Domain::parse(domain) else { continue };
        let way = settings.way_by(chosen, &domain, demand);
        // A route that holds now holds what was not tried yet.
        let state = if way.via == Held::Yes && state == State::Ready { State::Held } else { state };
        let lot = egress::lot_with_pool(shard, settings, owner, id, (&way.key, pool));
        let destination = locate::intern(&mut queue, (owner.0, lot), &way.key, now);
        recipients.push(RecipientState {
            recipient: place,
            destination,
            state,
            attempts,
            due,
            status,
            category,
        });
    }
    let warned = entry.states.iter().any(|(_, state)| state.delay_notice == DelayNotice::Sent);
    let (kind, warning) = match (entry.facts.return_path, warned) {
        (ReturnPath::Null, _) => (Kind::Notification, Warning::Unwanted),
        (ReturnPath::Address, true) => (Kind::Message, Warning::Sent),
        (ReturnPath::Address, false) => (Kind::Message, Warning::Wanted),
    };
    let message = MessageState {
        id,
        received_at: entry.facts.received_at,
        size: entry.facts.size,
        priority: priority(&entry.facts.handling),
        kind,
        warning,
        give_up_at: None,
        times: times(&entry.facts.handling, entry.facts.received_at),
    };
    queue.restore_older(&Restored { message, recipients: &recipients }, now);
    recipients.len() as u64
}

const fn queue_state(phase: Phase) -> State {
    match phase {
        Phase::Deferred => State::Deferred,
        Phase::Held => State::Held,
        Phase::Queued | Phase::Delivered | Phase::Untold | Phase::Failed | Phase::Removed => State::Ready,
    }
}

impl Source {
    /// Reads all that must be known before the first message comes back; nothing when the core stops.
    async fn read(
        shard: &Shard,
        missing: Missing,
        orders: &mpsc::Sender<IndexOrder>,
    ) -> Result<Option<Self>, RecoverError> {
        let Missing { committer, directory, mut older, loaded, adopted } = missing;
        drop(adopted);
        let loaded = async { Some(loaded.await.ok().flatten()) };
        let stopped = async {
            shard.returning.wait(shard).await;
            None
        };
        let Some(mut loaded) = futures_lite::future::or(loaded, stopped).await else { return Ok(None) };
        let mut files = Files::new(&directory);
        loop {
            let (start, entries) = match loaded.take() {
                Some(Loaded { checkpoint, entries }) => (Start::Checkpoint(checkpoint), entries),
                None => (Start::Beginning, Entries::default()),
            };
            match read_behind(shard, &mut older, &mut files, &start, &entries).await? {
                Ok(()) if shard.is_stopping() => return Ok(None),
                Ok(()) => {
                    // What is at the end of the log may have been in the page cache alone until the first group is
                    // durable.
                    let opened = older.opened().position;
                    let mut feed = Feed::new(&committer, opened, orders).await;
                    if matches!(start, Start::Beginning) {
                        feed.send(IndexChange::Clear).await;
                    }
                    let (block, next) = (Vec::new(), None);
                    return Ok(Some(Self { committer, older, entries, block, next, feed }));
                }
                Err(error) => {
                    let path = directory.display();
                    tracing::warn!(%path, %error, "the index is rebuilt from the journal");
                }
            }
        }
    }

    /// How many messages there are, about.
    fn about(&self) -> u64 {
        self.entries.len() + self.older.found() as u64
    }

    /// Where the next message stands among those of other journal shards.
    fn age(&self) -> Option<(Timestamp, QueueId)> {
        self.next.as_ref().map(|next| (next.entry.facts.received_at, next.id))
    }

    /// Goes on to the next message.
    fn advance(&mut self) {
        loop {
            if self.block.is_empty() {
                self.block = self.entries.pop().unwrap_or_default();
            }
            let above = self.block.last().map(|(id, _)| *id);
            let (older, block) = (&mut self.older, &mut self.block);
            let restored = self.committer.restore(|journal| {
                older.next(journal, above).map(Ok).or_else(|| {
                    let (id, entry) = block.pop()?;
                    Some(older.restore(journal, id, entry).ok_or(id))
                })
            });
            match restored {
                Some(Ok(next)) => return self.next = Some(next),
                Some(Err(id)) => self.feed.gone.push(id),
                None => return,
            }
        }
    }

    /// All is back: old segments may be used again, and the index is told.
    async fn finish(mut self) -> Report {
        let checkpoint = self.older.opened().clone();
        let report = self.committer.restore(|journal| self.older.finish(journal));
        self.committer.on_restored();
        self.feed.fill().await;
        let batch = Batch { put: Vec::new(), remove: std::mem::take(&mut self.feed.gone), checkpoint };
        self.feed.send(IndexChange::Apply(batch)).await;
        report
    }
}

/// Reads the records behind a checkpoint, and sees whether its entries can be true. The inner error is about these.
async fn read_behind(
    shard: &Shard,
    older: &mut Older,
    files: &mut Files<'_>,
    start: &Start,
    entries: &Entries,
) -> Result<Result<(), RecoveryError>, RecoverError> {
    if let Err(error) = older.begin(start) {
        return Ok(Err(error));
    }
    while let Step::Read(read) = older.step() {
        older.on_read(files.read(&read).await?);
        if shard.is_stopping() {
            return Ok(Ok(()));
        }
    }
    let mut slice = Slice::begin();
    for (count, (id, segment, offset)) in entries.places().enumerate() {
        if let Err(error) = older.check(id, segment, offset) {
            return Ok(Err(error));
        }
        if count % STEP == 0 && slice.is_over() {
            slice.pause().await;
        }
    }
    Ok(Ok(()))
}

impl Feed {
    /// The index of a journal shard, once the log is durable as it was opened.
    async fn new(committer: &Committer, opened: Position, orders: &mpsc::Sender<IndexOrder>) -> Self {
        let orders = match committer.durable(opened).await {
            Ok(()) => orders.clone(),
            // It must not tell of what may be lost: nobody hears this.
            Err(_) => mpsc::channel(1).0,
        };
        Self { shard: committer.number(), orders, put: Vec::new(), gone: Vec::new() }
    }

    async fn send(&mut self, change: IndexChange) {
        // Nobody listens only when the program ends, or nobody may.
        let _ = self.orders.send(IndexOrder { shard: self.shard, change }).await;
    }

    async fn fill(&mut self) {
        let put = std::mem::take(&mut self.put);
        if !put.is_empty() {
            self.send(IndexChange::Fill(put)).await;
        }
    }
}
