//! The start of a run, checkpoints for the index, survivors moved out of old segments.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use delivery::Own;
use index::{Batch, Index, MemoryIndex};
use journal::{
    AppendError, AppendMessage, Checkpoint, Content, DelayNotice, Entry, Facts, Opened, Phase,
    RecipientState, ReturnPath, virtual_disk,
};
use mail::{Domain, Envelope, QueueId, ReversePath, Timestamp};
use policy::Policy;
use queue::{Kind, MessageState, Priority, Queue, Restored, State, Times, Warning};
use smtp::Refusal;

use super::{
    Message, QUEUE_LIMITS, Roads, SHARD, Server, Task,
    committer::{Stuck, Waiting},
    config, door, journal_limits, resolver,
    restore::Missing,
    routes,
    schedule::Held,
};
use crate::world::{Event, MINUTE, SECOND, Trouble, World};

/// What has changed since the last checkpoint.
#[derive(Debug, Default)]
pub(super) struct Changes {
    dirty: BTreeSet<QueueId>,
    indexed: BTreeSet<QueueId>,
    gone: Vec<QueueId>,
}

/// A checkpoint that waits for the log to be durable.
#[derive(Debug)]
pub(super) struct Saving {
    dirty: BTreeSet<QueueId>,
    gone: Vec<QueueId>,
    checkpoint: Checkpoint,
}

/// Origin what a run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The segments alone.
    Journal,
    /// The index as it was left.
    Index,
    /// The index as it was one checkpoint before: its store lost the last one.
    OlderIndex,
}

impl Changes {
    /// The index has a message from before the start.
    pub(super) fn indexed(&mut self, id: QueueId) {
        self.indexed.insert(id);
    }

    pub(super) fn changed(&mut self, id: QueueId) {
        self.dirty.insert(id);
    }

    pub(super) fn retired(&mut self, id: QueueId) {
        self.dirty.remove(&id);
        if self.indexed.remove(&id) {
            self.gone.push(id);
        }
    }
}

impl Server {
    /// Takes over what the disk holds.
    pub(crate) fn start(world: &mut World, run: u64, from: Origin, roads: Roads) -> Self {
        let now = world.wall();
        match from {
            Origin::Journal => world.indexes.clear(),
            Origin::Index => {}
            Origin::OlderIndex => drop((world.indexes.len() > 1).then(|| world.indexes.pop_front())),
        }
        let index = world.indexes.front().cloned().unwrap_or_default();
        let loaded = index.load().expect("an index in memory does not fail");
        let from_index = loaded.is_some();
        let limits = journal_limits(world.seed());
        let opened = virtual_disk::open(&world.disk, SHARD, limits, now);
        let Opened { journal, older } = opened.expect("our own journal is of our own version");
        world.note(format_args!("start {run} from {from:?} at {:?}", journal.end()));
        world.ledger.opened(journal.end());
        world.ledger.figures.starts += 1;
        world.ledger.figures.starts_from_index += u64::from(from_index);
        let config = config();
        let own = Own {
            names: vec![config.hostname.as_str().into()],
            addresses: vec![[10, 9, 9, 9].into()],
            ports: vec![25],
        };
        let mut queue = Queue::new(QUEUE_LIMITS, super::schedule(), world.seed(), now);
        queue.begin_restore();
        let pace = world.pick(&[SECOND / 50, 10 * SECOND, 5 * MINUTE]);
        let mut server = Self {
            run,
            policy: Policy::new(&config),
            options: door::options(&config),
            config,
            routes: routes(roads),
            own: Arc::new(own),
            journal,
            queue,
            resolver: resolver(),
            sockets: BTreeSet::new(),
            random: virtual_disk::Random(world.below(u64::MAX)),
            doors: BTreeMap::new(),
            lanes: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_worker: 0,
            wakes: VecDeque::new(),
            running: HashMap::new(),
            visits: BTreeMap::new(),
            before: HashSet::new(),
            contents: BTreeMap::new(),
            moving: BTreeMap::new(),
            lasts: BTreeMap::new(),
            reporting: BTreeMap::new(),
            notes: VecDeque::new(),
            group: None,
            waiting: VecDeque::new(),
            stuck: VecDeque::new(),
            changes: Changes::default(),
            missing: Some(Missing::new(older, loaded, pace)),
            saving: None,
            batch: None,
            full: false,
            stopping: false,
            tick_at: None,
            looks: 0,
        };
        let wait = world.within(SECOND, 4 * MINUTE);
        world.after(wait, Event::Server(run, Task::Checkpoint));
        server.plan_restore(world);
        server.settle(world);
        server
    }

    pub(super) fn restore(&mut self, id: QueueId, entry: &Entry, now: Timestamp) {
        let states: HashMap<u32, _> = entry.states.iter().map(|(place, state)| (*place, state)).collect();
        let mut recipients = Vec::new();
        for (place, domain) in (0..entry.placement.recipients).zip(entry.facts.domains()) {
            let (state, attempts, due, status) = match states.get(&place) {
                Some(state) => {
                    let phase = match state.phase {
                        Phase::Delivered | Phase::Untold | Phase::Failed | Phase::Removed => continue,
                        Phase::Queued => State::Ready,
                        Phase::Deferred => State::Deferred,
                        Phase::Held => State::Held,
                    };
                    let status = state.last.as_ref().and_then(|last| last.status);
                    (phase, state.attempts.try_into().unwrap_or(u16::MAX), state.due, status)
                }
                None => (State::Ready, 0, now, None),
            };
            let (key, held) = self.way(&Domain::parse(domain).expect("it was one when it came"));
            let state = if held == Held::Yes && state == State::Ready { State::Held } else { state };
            let destination = self.queue.intern(&key, now);
            recipients.push(queue::RecipientState {
                recipient: place,
                destination,
                state,
                attempts,
                due,
                status,
                category: None,
            });
        }
        let warned = entry.states.iter().any(|(_, state)| state.delay_notice == DelayNotice::Sent);
        let (kind, warning) = match (entry.facts.return_path, warned) {
            (ReturnPath::Null, _) => (Kind::Notification, Warning::Unwanted),
            (ReturnPath::Address, true) => (Kind::Message, Warning::Sent),
            (ReturnPath::Address, false) => (Kind::Message, Warning::Wanted),
        };
        let Facts { received_at, size, .. } = entry.facts;
        let priority = Priority::Normal;
        let message = MessageState {
            id,
            received_at,
            size,
            priority,
            kind,
            warning,
            give_up_at: None,
            times: Times::default(),
        };
        self.queue.restore_older(&Restored { message, recipients: &recipients }, now);
        let words: Vec<_> =
            entry.states.iter().filter_map(|(place, state)| Some((*place, state.last.clone()?))).collect();
        if !words.is_empty() {
            self.lasts.insert(id, words);
        }
    }
}

/// Checkpoints.
impl Server {
    pub(super) fn begin_checkpoint(&mut self, world: &mut World) {
        let wait = world.within(5 * SECOND, 8 * MINUTE);
        world.after(wait, Event::Server(self.run, Task::Checkpoint));
        if self.missing.is_some() && !world.is_calm() && world.one_in(2) {
            let (wait, end) =
                (world.within(SECOND, MINUTE), world.pick(&[Trouble::PowerLoss, Trouble::Kill]));
            world.after(wait, Event::Trouble(end));
        }
        // One that tells nothing of what is missing would make the next start forget it.
        if self.saving.is_some() || self.batch.is_some() || self.missing.is_some() {
            return;
        }
        let dirty = std::mem::take(&mut self.changes.dirty);
        let gone = std::mem::take(&mut self.changes.gone);
        if dirty.is_empty() && gone.is_empty() {
            return;
        }
        // Who ends while the checkpoint waits is removed by the next one.
        self.changes.indexed.extend(&dirty);
        let checkpoint = self.journal.checkpoint();
        let end = checkpoint.position;
        self.saving = Some(Saving { dirty, gone, checkpoint });
        self.wait_durable(world, end, Waiting::Checkpoint);
    }

    pub(super) fn save_checkpoint(&mut self, world: &mut World, outcome: Result<(), Refusal>) {
        let Some(Saving { dirty, gone, checkpoint }) = self.saving.take() else { return };
        if outcome.is_err() {
            return;
        }
        let put: Vec<_> = dirty.into_iter().filter_map(|id| Some((id, self.entry(world, id)?))).collect();
        // An entry may name a copy that is newer than the checkpoint.
        self.batch = Some(Batch { put, remove: gone, checkpoint });
        self.wait_durable(world, self.journal.end(), Waiting::Batch);
    }

    pub(super) fn store_batch(&mut self, world: &mut World, outcome: Result<(), Refusal>) {
        let Some(batch) = self.batch.take().filter(|_| outcome.is_ok()) else { return };
        let mut index = world.indexes.front().cloned().unwrap_or_else(MemoryIndex::default);
        index.apply(&batch).expect("an index in memory does not fail");
        world.indexes.push_front(index);
        world.indexes.truncate(3);
        let pending = self.reporting.values().any(|reporting| reporting.pending().next().is_some());
        if pending && !world.is_calm() && world.one_in(4) {
            // The checkpoint names people whom the queue has forgotten: a start from it must find them.
            let (wait, end) =
                (world.within(Duration::ZERO, SECOND), world.pick(&[Trouble::PowerLoss, Trouble::Kill]));
            world.after(wait, Event::Trouble(end));
        }
    }

    fn entry(&self, world: &World, id: QueueId) -> Option<Entry> {
        let placement = self.journal.placement(id)?;
        let message = self.message(world, id).expect("what is queued can be read");
        let envelope = &message.envelope;
        let states = self.states(id, envelope.recipients.len() as u32);
        let facts = Facts {
            received_at: envelope.received_at,
            size: message.size,
            return_path: match envelope.reverse_path {
                ReversePath::Null => ReturnPath::Null,
                ReversePath::Address(_) => ReturnPath::Address,
            },
            domains: domains(envelope),
            handling: envelope.handling.clone(),
        };
        let states = states.into_iter().filter(|(_, state)| *state != RecipientState::default()).collect();
        Some(Entry { placement, states, facts })
    }

    /// The states of all recipients of a message, those who have ended included.
    fn states(&self, id: QueueId, recipients: u32) -> Vec<(u32, RecipientState)> {
        let warning = self.queue.message(id).map_or(Warning::Unwanted, |message| message.warning);
        let states = self.queue.states(id).unwrap_or_default();
        let alive: HashMap<u32, _> = states.iter().map(|state| (state.recipient, state)).collect();
        // Whom the queue has forgotten before the report about them is safe. A restart must find them as they were.
        let pending: Vec<_> =
            self.reporting.get(&id).iter().flat_map(|reporting| reporting.pending()).collect();
        (0..recipients)
            .map(|place| match alive.get(&place) {
                Some(state) => (place, self.journal_state(id, state, warning)),
                None if pending.contains(&place) => (place, RecipientState::default()),
                // Which of the ways to end it was does not matter any more.
                None => (place, RecipientState { phase: Phase::Delivered, ..RecipientState::default() }),
            })
            .collect()
    }
}

/// Survivors.
impl Server {
    pub(super) fn rescue_content(&mut self, world: &mut World, id: QueueId) {
        if self.journal.locate(id).is_none() {
            return self.journal.on_rescue_failed(id);
        }
        let read = virtual_disk::read_back(&self.journal, &world.disk, id);
        let (stored, content) = read.unwrap_or_else(|| panic!("{id} is to be moved and cannot be read"));
        let states = self.states(id, stored.envelope.recipients.len() as u32);
        let content = [Bytes::from(content)];
        let message =
            AppendMessage { envelope: &stored.envelope, states: &states, content: Content::Whole(&content) };
        let moved = self.journal.append_rescued(id, &message);
        if let Ok(end) = moved {
            // It cannot be read at its new place before that is durable.
            let size = content[0].len() as u64;
            let message = Message { envelope: stored.envelope, content: content.to_vec(), size };
            self.moving.insert(id, Rc::new(message));
            self.wait_durable(world, end, Waiting::Rescue(id));
        }
        self.rescued(world, id, moved.map(drop), Stuck::Content(id));
    }

    pub(super) fn rescue_states(&mut self, world: &mut World, id: QueueId) {
        let recipients = self.journal.placement(id).map_or(0, |placement| placement.recipients);
        let moved = self.journal.append_states(id, &self.states(id, recipients)).map(drop);
        self.rescued(world, id, moved, Stuck::States(id));
    }

    fn rescued(&mut self, world: &mut World, id: QueueId, moved: Result<(), AppendError>, again: Stuck) {
        match moved {
            Ok(()) => {
                world.ledger.figures.rescued += 1;
                self.changes.changed(id);
            }
            Err(AppendError::NotReady) => self.stuck.push_back(again),
            Err(error) => {
                world.note(format_args!("{id} is not moved: {error}"));
                self.journal.on_rescue_failed(id);
            }
        }
    }
}

fn domains(envelope: &Envelope) -> Box<str> {
    let domains: Vec<_> =
        envelope.recipients.iter().map(|recipient| recipient.address.domain_str()).collect();
    domains.join("\n").into()
}
