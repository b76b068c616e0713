//! What is done now and then: checkpoints for the index, survivors moved out of old segments, gauges.

use std::{collections::HashMap, rc::Rc, time::Duration};

use index::Batch;
use journal::{AppendError, Entry, Facts};
use mail::{JournalShard, QueueId, QueueIdSet};
use tokio::sync::{mpsc, oneshot};
use watch::QueueState;

use crate::{
    JournalSetup,
    journals::{Committer, ReadError, Rescue},
    recover, schedule,
    shard::Shard,
};

/// Something for the thread that keeps the indexes.
#[derive(Debug)]
pub struct IndexOrder {
    /// Of which journal shard.
    pub shard: JournalShard,
    /// What to store.
    pub change: IndexChange,
}

/// What to store.
#[derive(Debug)]
pub enum IndexChange {
    /// What has changed since the checkpoint before.
    Apply(Batch),
    /// Forget everything: the index was missing or of no use.
    Clear,
    /// Entries that are as true at the checkpoint that is stored as at one that follows.
    Fill(Vec<(QueueId, Entry)>),
    /// Nothing more of this one: say so when it is closed.
    Release(oneshot::Sender<()>),
    /// Nothing more: the last order of the last shard is behind us.
    Close,
}

/// What has changed since the last checkpoint of a journal shard.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Live messages whose entry in the index is missing or old.
    dirty: QueueIdSet,
    /// Messages in the index.
    indexed: QueueIdSet,
    /// Messages in the index that are gone.
    gone: Vec<QueueId>,
}

impl Changes {
    /// What is to be stored now. From here on it counts as stored: who ends while it is put together is removed the
    /// next time, and does not stay behind a checkpoint that tells nothing of its end.
    fn take(&mut self) -> (QueueIdSet, Vec<QueueId>) {
        self.indexed.extend(self.dirty.iter());
        (std::mem::take(&mut self.dirty), std::mem::take(&mut self.gone))
    }

    /// It could not be stored now.
    fn give_back(&mut self, dirty: &QueueIdSet, gone: Vec<QueueId>) {
        self.dirty.extend(dirty.iter());
        self.gone.extend(gone);
    }

    /// The index has a message from before the start.
    pub(crate) fn indexed(&mut self, id: QueueId) {
        self.indexed.insert(id);
    }

    pub(crate) fn changed(&mut self, id: QueueId) {
        self.dirty.insert(id);
    }

    pub(crate) fn retired(&mut self, id: QueueId) {
        self.dirty.remove(id);
        if self.indexed.remove(id) {
            self.gone.push(id);
        }
    }
}

/// Saves checkpoints until the core stops, or another journal shard is to be taken over: then it answers with that.
pub(crate) async fn checkpoints(
    shard: &Shard,
    orders: &mpsc::Sender<IndexOrder>,
    adoptions: &mut mpsc::Receiver<JournalSetup>,
) -> Option<JournalSetup> {
    // Nobody saves any more, since the indexes are given up or the journal has failed.
    let mut given_up = false;
    loop {
        let interval = shard.settings().checkpoint_interval;
        let changed = shard.changed.wait();
        let changed = async {
            let _ = ring::timeout(interval, changed).await;
            None
        };
        let adopted = async {
            match adoptions.recv().await {
                Some(adopted) => Some(adopted),
                None => std::future::pending().await,
            }
        };
        let adopted = futures_lite::future::or(adopted, changed).await;
        if adopted.is_some() {
            return adopted;
        }
        for committer in shard.journals.all() {
            given_up |= !given_up && !save(shard, &committer, orders).await;
        }
        if shard.is_stopping() {
            return None;
        }
    }
}

/// Gives up the journal shards that hold nothing and take no new mail; says which.
pub(crate) async fn let_go(shard: &Rc<Shard>, orders: &mpsc::Sender<IndexOrder>) -> Vec<JournalShard> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut gone = Vec::new();
    // What is on its way back may turn out to be nothing.
    let is_whole = ring::timeout(PATIENCE, shard.returning.wait(shard)).await;
    if !matches!(is_whole, Ok(true)) || shard.is_stopping() {
        return gone;
    }
    for committer in shard.journals.take_idle(|kept| begin_commits(shard, kept)).await {
        let number = committer.number();
        save(shard, &committer, orders).await;
        if close_index(number, orders).await {
            gone.push(number);
        }
    }
    gone
}

/// Has the index of a journal shard closed; says whether it is. Another process opens it, and while this one has it, it
/// cannot.
pub(crate) async fn close_index(shard: JournalShard, orders: &mpsc::Sender<IndexOrder>) -> bool {
    let (closed, closing) = oneshot::channel();
    let order = IndexOrder { shard, change: IndexChange::Release(closed) };
    orders.send(order).await.is_ok() && closing.await.is_ok()
}

/// Saves a checkpoint of one journal shard; says whether anybody still takes them.
pub(crate) async fn save(shard: &Shard, committer: &Committer, orders: &mpsc::Sender<IndexOrder>) -> bool {
    if committer.is_leaving() {
        return true;
    }
    let (dirty, remove) = committer.changes.borrow_mut().take();
    if dirty.is_empty() && remove.is_empty() {
        return true;
    }
    let checkpoint = committer.with(journal::Journal::checkpoint);
    if committer.durable(checkpoint.position).await.is_err() {
        return false;
    }
    let mut put = Vec::with_capacity(dirty.len());
    for (count, id) in (1..).zip(dirty.iter()) {
        match entry(shard, committer, id).await {
            Ok(entry) => put.push((id, entry)),
            // It has ended meanwhile; the journal tells so from the checkpoint on.
            Err(ReadError::Gone) => {}
            // Nothing can be made of it any more, not even a report.
            Err(error @ ReadError::Damaged { .. }) => {
                tracing::error!(%id, %error, "a queued message cannot be read");
            }
            Err(error @ ReadError::Io { .. }) => {
                // It may be better later. A checkpoint that leaves it out would make a restart forget it.
                tracing::error!(%id, %error, "a queued message cannot be read; the checkpoint is put off");
                committer.changes.borrow_mut().give_back(&dirty, remove);
                return true;
            }
        }
        if count % 64 == 0 {
            ring::yield_now().await;
        }
    }
    // An entry may name a copy that was made while the entries were put together.
    let end = committer.with(journal::Journal::end);
    if committer.durable(end).await.is_err() {
        return false;
    }
    if committer.is_leaving() {
        // What was not found in the queue has not ended.
        return true;
    }
    let change = IndexChange::Apply(Batch { put, remove, checkpoint });
    orders.send(IndexOrder { shard: committer.number(), change }).await.is_ok()
}

async fn entry(shard: &Shard, committer: &Committer, id: QueueId) -> Result<Entry, ReadError> {
    let envelope = shard.envelope(id).await?;
    let placement = committer.with(|journal| journal.placement(id)).ok_or(ReadError::Gone)?;
    let queued = shard.queue.borrow().message(id).is_some();
    if !queued && shard.returning(id).is_empty() && shard.untold(id).is_empty() {
        return Err(ReadError::Gone);
    }
    let extents = placement.extents.iter().map(|extent| u64::from(extent.len));
    let facts = Facts {
        received_at: envelope.received_at,
        size: u64::from(placement.inline_len) + extents.sum::<u64>(),
        return_path: recover::return_path(&envelope),
        domains: recover::domains(&envelope),
        handling: envelope.handling.clone(),
    };
    let states = states(shard, id, placement.recipients as usize);
    let states = states.into_iter().filter(|(_, state)| *state != journal::RecipientState::default());
    Ok(Entry { placement, states: states.collect(), facts })
}

/// Has the groups of a journal shard written from now on.
pub(crate) fn begin_commits(shard: &Rc<Shard>, committer: &Rc<Committer>) {
    let (rescued, owner) = (shard.clone(), committer.clone());
    ring::spawn(committer.clone().run(move |moved| {
        ring::spawn(rescue(rescued.clone(), owner.clone(), moved));
    }));
}

/// Moves messages out of the way of recycling.
pub(crate) async fn rescue(shard: Rc<Shard>, committer: Rc<Committer>, rescue: Rescue) {
    for id in rescue.content {
        let read = committer.read(id).await;
        if committer.is_leaving() {
            // Who is not in the queue any more has not ended. Whoever has it next moves it.
            return;
        }
        let moved = match read {
            Ok(mut stored) => {
                stored.states = states(&shard, id, stored.envelope.recipients.len());
                committer.append_rescued(id, &stored).await
            }
            Err(ReadError::Gone) => Err(AppendError::UnknownMessage),
            Err(error) => {
                tracing::error!(%id, %error, "a queued message cannot be moved");
                Err(AppendError::Failed)
            }
        };
        settle(&committer, id, moved);
    }
    for id in rescue.states {
        if committer.is_leaving() {
            return;
        }
        let recipients =
            committer.with(|journal| journal.placement(id)).map_or(0, |placement| placement.recipients);
        let moved = committer.append_states(id, &states(&shard, id, recipients as usize)).await;
        settle(&committer, id, moved);
    }
}

fn settle(committer: &Committer, id: QueueId, moved: Result<(), AppendError>) {
    match moved {
        Ok(()) => committer.changes.borrow_mut().changed(id),
        // It has ended meanwhile, or room is short for now: the journal asks again.
        Err(_) => committer.on_rescue_failed(id),
    }
}

/// The states of all recipients of a message, those who have ended included.
fn states(shard: &Shard, id: QueueId, recipients: usize) -> Vec<(u32, journal::RecipientState)> {
    let queue = shard.queue.borrow();
    let warning = queue.message(id).map_or(queue::Warning::Unwanted, |message| message.warning);
    let alive: HashMap<u32, _> =
        queue.states(id).unwrap_or_default().into_iter().map(|state| (state.recipient, state)).collect();
    let (returning, untold) = (shard.returning(id), shard.untold(id));
    // Which of the ways to end it was does not matter any more.
    let ended = journal::RecipientState { phase: journal::Phase::Delivered, ..Default::default() };
    (0..recipients as u32)
        .map(|place| match alive.get(&place) {
            Some(state) => (place, schedule::journal_state(shard, id, state, warning)),
            None if returning.contains(&place) => (place, journal::RecipientState::default()),
            None if untold.contains(&place) => (place, schedule::untold_state(shard, id, place)),
            None => (place, ended.clone()),
        })
        .collect()
}

/// Brings gauges up to date, for as long as the core lives.
pub(crate) async fn measure(shard: Rc<Shard>) {
    const INTERVAL: Duration = Duration::from_secs(1);
    let mut waits = 0;
    let mut paused = false;
    // All parts of the table come round, whichever shard looks at them.
    let mut turn = shard.number;
    let mut stalls = ring::Stats::default();
    loop {
        if !paused && shard.journals.has_failed() {
            // What is delivered now could not be written down, and would be delivered again after the restart.
            paused = true;
            shard.pause();
        }
        shard.crowd.sweep(turn, ring::clock::now());
        turn += shard.shards;
        let metrics = &shard.metrics;
        let (counts, messages, oldest, memory) = {
            let queue = shard.queue.borrow();
            (queue.counts(), queue.messages(), queue.oldest(), queue.memory())
        };
        metrics.queue.recipients.of(QueueState::Ready).set(counts.ready);
        metrics.queue.recipients.of(QueueState::Running).set(counts.running);
        metrics.queue.recipients.of(QueueState::Deferred).set(counts.deferred);
        metrics.queue.recipients.of(QueueState::Held).set(counts.held);
        metrics.queue.messages.set(messages.into());
        shard.returning.measure(metrics);
        if shard.number == 0 {
            metrics.queue.throttled.set(shard.leases.throttles().throttled());
            let (out, lowered) = shard.egress.unfit();
            metrics.queue.sources_out.set(out);
            metrics.queue.sources_lowered.set(lowered);
        }
        metrics.queue.bytes.set(memory as u64);
        let age = oldest.map_or(Duration::ZERO, crate::shard::since);
        metrics.queue.oldest.set(u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
        let stats = ring::stats();
        let new = u32::try_from(stats.stalls - stalls.stalls).unwrap_or(u32::MAX);
        for _ in 0..new {
            metrics.executor.stalls.record_duration((stats.stalled - stalls.stalled) / new);
        }
        stalls = stats;
        let pool = shard.pool.stats();
        metrics.buffers.bytes.set(pool.in_use as u64);
        metrics.buffers.budget.set(shard.pool.options().budget as u64);
        metrics.buffers.waits.add(pool.waits - waits);
        waits = pool.waits;
        shard.journals.measure(metrics);
        for committer in shard.journals.all() {
            // A disk that was full may have been given room.
            committer.on_space();
        }
        ring::sleep(INTERVAL).await;
    }
}
