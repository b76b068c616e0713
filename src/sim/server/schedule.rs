//! Queue orders obeyed, messages taken over, reports written.

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use journal::{AppendError, DelayNotice, Last, Phase, RecipientState, Start, virtual_disk};
use mail::{Domain, Envelope, QueueId, ReversePath, Status};
use queue::{
    Accepted, AttemptId, Destination, Kind, MessageState, Order, Priority, Restored, ReturnReason, State,
    Times, Warning,
};
use report::{Diagnostic, Facts, RecipientFacts};
use smtp::Refusal;

use super::{
    By, Message, QUEUE_LIMITS, Running, SHARD, Server, Task,
    committer::{Note, Stuck, Waiting},
    journal_limits,
};
use crate::{
    ledger::{self, Fate},
    world::{Event, SECOND, World},
};

/// Where the content of a message is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    InMemory,
    /// A large one was written out.
    OnDisk,
}

/// Whether a route keeps mail back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Yes,
    No,
}

/// A report being written, and what is to be done with its message after that.
pub(super) struct Reporting {
    /// Whom it is about, and whether the queue has forgotten them.
    places: Vec<u32>,
    kind: ledger::Kind,
    report: Option<(QueueId, report::Report)>,
    waiting: VecDeque<Order>,
}

impl Reporting {
    /// Those whom the queue has forgotten and whose report is not safe yet.
    pub(super) fn pending(&self) -> impl Iterator<Item = u32> {
        let now = self.places.iter().filter(|_| self.kind == ledger::Kind::Failure);
        let later = self.waiting.iter().flat_map(|order| match order {
            Order::Return { recipients, .. } => recipients.as_slice(),
            Order::Attempt { .. }
            | Order::Note { .. }
            | Order::Warn { .. }
            | Order::Tell { .. }
            | Order::Remove { .. }
            | Order::Locate { .. }
            | Order::Retire { .. } => &[],
        });
        now.chain(later).copied()
    }
}

impl Server {
    /// Does what the queue orders. What is to be written of a message that is being reported on waits for the report.
    pub(super) fn follow(&mut self, world: &mut World, orders: Vec<Order>) {
        for order in orders {
            let attempt = matches!(order, Order::Attempt { .. });
            match self.reporting.get_mut(&id_of(&order)).filter(|_| !attempt) {
                Some(reporting) => reporting.waiting.push_back(order),
                None => self.obey(world, order),
            }
        }
    }

    /// Takes note of an attempt.
    pub(super) fn begin_attempt(&mut self, attempt: AttemptId, running: Running) {
        let twice = self.running.values().find(|other| {
            other.id == running.id && other.places.iter().any(|place| running.places.contains(place))
        });
        assert!(twice.is_none(), "twice at once: {running:?} and {twice:?}");
        assert!(self.running.insert(attempt, running).is_none(), "an attempt twice");
    }

    /// What has waited for a report, without those who have ended meanwhile: that is written already.
    fn still_true(&self, order: Order) -> Order {
        let Order::Note { id, recipients, destination, state, attempts, due, category } = order else {
            return order;
        };
        let alive = self.queue.states(id).unwrap_or_default();
        let lives = |place: &u32| alive.iter().any(|state| state.recipient == *place);
        let recipients: Vec<_> = recipients.iter().copied().filter(lives).collect();
        let recipients = recipients[..].into();
        Order::Note { id, recipients, destination, state, attempts, due, category }
    }

    fn obey(&mut self, world: &mut World, order: Order) {
        match order {
            Order::Attempt { attempt, id, destination, recipients, number } => {
                world.ledger.attempted(id, &recipients);
                world.ledger.figures.tried_meanwhile += u64::from(self.missing.is_some());
                self.begin_attempt(
                    attempt,
                    Running { id, destination, places: recipients.clone(), by: By::Queue },
                );
                let ordered = self.running.values().filter(|running| running.by == By::Queue);
                let same = ordered.clone().filter(|other| other.destination == destination).count() as u32;
                assert!(same <= QUEUE_LIMITS.site_attempts_max, "{same} attempts for one destination");
                assert!(ordered.count() as u32 <= QUEUE_LIMITS.attempts_max, "too many attempts");
                self.assign(world, super::outbound::Job { attempt, id, destination, recipients, number });
            }
            Order::Locate { .. } => unreachable!("each destination is a site of its own"),
            // All of them have ended while it waited.
            Order::Note { recipients, .. } if recipients.is_empty() => {}
            Order::Note { id, recipients, destination: _, state, attempts, due, category } => {
                let warning = self.queue.message(id).map_or(Warning::Unwanted, |message| message.warning);
                let states = recipients.iter().map(|place| {
                    let last = self.last(id, *place);
                    let (phase, delay_notice) = (phase(state), notice(warning));
                    let (attempts, route) = (attempts.into(), None);
                    (
                        *place,
                        RecipientState {
                            phase,
                            attempts,
                            due,
                            delay_notice,
                            last,
                            category,
                            route,
                            pool: None,
                        },
                    )
                });
                let states = states.collect();
                self.note(Note::Transition(id, states));
                self.contents.remove(&id);
            }
            Order::Remove { id, recipients } => {
                recipients.iter().for_each(|place| world.ledger.settle(id, *place, Fate::Removed));
                self.note_end(id, &recipients, Phase::Removed);
            }
            Order::Retire { id } => {
                self.contents.remove(&id);
                self.lasts.remove(&id);
                self.note(Note::Retired(id));
            }
            Order::Return { id, recipients, reason } => {
                let without = match reason {
                    ReturnReason::Failed => Status(5, 0, 0),
                    ReturnReason::GaveUp => Status(4, 4, 7),
                    ReturnReason::Expired => Status(5, 4, 7),
                };
                self.begin_report(world, id, &recipients, ledger::Kind::Failure, without);
            }
            Order::Tell { .. } => unreachable!("nobody here wants to hear of success"),
            Order::Warn { id, recipients } => {
                self.begin_report(world, id, &recipients, ledger::Kind::Delay, Status(4, 4, 7));
            }
        }
    }

    fn begin_report(
        &mut self,
        world: &mut World,
        id: QueueId,
        places: &[u32],
        kind: ledger::Kind,
        without: Status,
    ) {
        let message = self.message(world, id).unwrap_or_else(|| panic!("{id} is to be returned and is gone"));
        let report_id = self.journal.reserve_id();
        let lasts: Vec<_> = places.iter().map(|place| self.last(id, *place)).collect();
        let outcome = match kind {
            ledger::Kind::Failure => report::Outcome::Failed,
            ledger::Kind::Delay => report::Outcome::Delayed { retry_until: world.wall() },
        };
        let recipients: Vec<_> = places
            .iter()
            .zip(&lasts)
            .map(|(place, last)| RecipientFacts {
                recipient: &message.envelope.recipients[*place as usize],
                outcome,
                status: last.as_ref().and_then(|last| last.status).unwrap_or(without),
                remote_mta: last.as_ref().map(|last| &*last.host).filter(|host| !host.is_empty()),
                diagnostic: last.as_ref().map(|last| Diagnostic::Local(&last.text)),
                last_attempt: last.as_ref().map(|_| world.wall()),
            })
            .collect();
        let facts = Facts {
            report_id,
            message_id: id,
            host: &self.config.hostname,
            now: world.wall(),
            envelope: &message.envelope,
            recipients: &recipients,
        };
        let report = report::dsn(&facts, &message.content, &report::Limits::default());
        let report = report.expect("our own name makes a sender's address");
        world
            .note(format_args!("{id} {places:?}: {kind:?}, report {:?}", report.as_ref().map(|_| report_id)));
        let report = report.map(|report| (report_id, report));
        let reporting = Reporting { places: places.to_vec(), kind, report, waiting: VecDeque::new() };
        let before = self.reporting.insert(id, reporting);
        assert!(before.is_none(), "two reports on {id} at once");
        self.store_report(world, id);
    }

    /// Makes the report durable; a full disk is waited for, since the report must not be lost.
    pub(super) fn store_report(&mut self, world: &mut World, id: QueueId) {
        let reporting = self.reporting.get_mut(&id).expect("the report is being written");
        let Some((report_id, report)) = reporting.report.take() else {
            return self.end_report(world, id);
        };
        let held = self.held(&report.envelope);
        let appended = self.append(world, report_id, &report.envelope, &held, None, &report.content);
        self.reporting.get_mut(&id).expect("seen above").report = Some((report_id, report));
        match appended {
            Ok(end) => self.wait_durable(world, end, Waiting::Report(id)),
            Err(AppendError::NotReady) => self.stuck.push_back(Stuck::Report(id)),
            Err(_) => self.store_report_later(world, id),
        }
    }

    fn store_report_later(&mut self, world: &mut World, id: QueueId) {
        // A stop does not wait for it: after the restart it is due again.
        if !self.stopping {
            world.after(10 * SECOND, Event::Server(self.run, Task::Report(id)));
        }
    }

    pub(super) fn report_committed(&mut self, world: &mut World, id: QueueId, outcome: Result<(), Refusal>) {
        if outcome.is_err() {
            return self.store_report_later(world, id);
        }
        let reporting = self.reporting.get_mut(&id).expect("the report is being written");
        let (report_id, report) = reporting.report.take().expect("it was to be made durable");
        world.ledger.reported(id, &reporting.places, report_id, reporting.kind);
        let size = report.content.iter().map(|slice| slice.len() as u64).sum();
        let message = Message { envelope: report.envelope, content: report.content, size };
        self.take_over(world, report_id, message, Kept::InMemory);
        let reporting = self.reporting.get(&id).expect("seen above");
        if reporting.kind == ledger::Kind::Failure {
            for place in reporting.places.clone() {
                world.ledger.settle(id, place, Fate::Reported);
            }
        }
        self.finish_report(world, id);
    }

    /// Nobody wants to hear of it.
    fn end_report(&mut self, world: &mut World, id: QueueId) {
        let reporting = &self.reporting[&id];
        if reporting.kind == ledger::Kind::Failure {
            for place in reporting.places.clone() {
                world.ledger.settle(id, place, Fate::Unwanted);
            }
        }
        self.finish_report(world, id);
    }

    fn finish_report(&mut self, world: &mut World, id: QueueId) {
        let reporting = self.reporting.remove(&id).expect("the report was being written");
        match reporting.kind {
            ledger::Kind::Failure => self.note_end(id, &reporting.places, Phase::Failed),
            ledger::Kind::Delay => {
                let states = self.queue.states(id).unwrap_or_default();
                let warned = states.iter().filter(|state| reporting.places.contains(&state.recipient));
                let warned =
                    warned.map(|state| (state.recipient, self.journal_state(id, state, Warning::Sent)));
                let warned = warned.collect();
                self.note(Note::Transition(id, warned));
            }
        }
        let waiting = reporting.waiting.into_iter().map(|order| self.still_true(order)).collect();
        self.follow(world, waiting);
    }

    /// Gives a message that is durable to the queue.
    pub(super) fn take_over(&mut self, world: &mut World, id: QueueId, message: Message, kept: Kept) {
        let now = world.wall();
        let Message { envelope, size, .. } = &message;
        let (size, received_at) = (*size, envelope.received_at);
        let ways: Vec<_> =
            envelope.recipients.iter().map(|recipient| self.way(&recipient.address.domain())).collect();
        let (kind, warning) = kind(envelope);
        let all_held = ways.iter().all(|(_, held)| *held == Held::Yes);
        if kept == Kept::InMemory && !all_held {
            self.contents.insert(id, Rc::new(message));
        }
        let destinations: Vec<(u32, Destination)> =
            (0..).zip(&ways).map(|(place, (key, _))| (place, self.queue.intern(key, now))).collect();
        let (mut orders, priority) = (Vec::new(), Priority::Normal);
        if ways.iter().any(|(_, held)| *held == Held::Yes) {
            let recipients: Vec<_> = destinations
                .iter()
                .zip(&ways)
                .map(|((recipient, destination), (_, held))| queue::RecipientState {
                    recipient: *recipient,
                    destination: *destination,
                    state: if *held == Held::Yes { State::Held } else { State::Ready },
                    attempts: 0,
                    due: now,
                    status: None,
                    category: None,
                })
                .collect();
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
            self.queue.restore(&Restored { message, recipients: &recipients }, now);
            self.queue.on_tick(now, &mut orders);
        } else {
            let accepted = Accepted {
                id,
                received_at,
                size,
                priority,
                kind,
                warning,
                times: Times::default(),
                recipients: &destinations,
            };
            self.queue.on_accepted(&accepted, now, &mut orders);
        }
        self.follow(world, orders);
    }

    /// By which way a domain's mail leaves, and whether it is kept back.
    pub(super) fn way(&self, domain: &Domain) -> (Arc<str>, Held) {
        let destination = self.routes.destination(domain).expect("there is a route for everybody");
        let held = matches!(self.routes.route(destination.route).via, delivery::Via::Hold);
        (destination.key, if held { Held::Yes } else { Held::No })
    }

    /// The message, from memory or from the journal.
    pub(super) fn message(&self, world: &World, id: QueueId) -> Option<Rc<Message>> {
        if let Some(message) = self.contents.get(&id).or_else(|| self.moving.get(&id)) {
            return Some(message.clone());
        }
        let (stored, content) = virtual_disk::read_back(&self.journal, &world.disk, id)?;
        let size = content.len() as u64;
        Some(Rc::new(Message { envelope: stored.envelope, content: vec![content.into()], size }))
    }

    pub(super) fn last(&self, id: QueueId, recipient: u32) -> Option<Last> {
        self.lasts.get(&id)?.iter().find(|(place, _)| *place == recipient).map(|(_, last)| last.clone())
    }

    /// The state of a recipient as the journal writes it.
    pub(super) fn journal_state(
        &self,
        id: QueueId,
        state: &queue::RecipientState,
        warning: Warning,
    ) -> RecipientState {
        RecipientState {
            phase: phase(state.state),
            attempts: state.attempts.into(),
            due: state.due,
            delay_notice: notice(warning),
            last: self.last(id, state.recipient),
            category: state.category,
            route: None,
            pool: None,
        }
    }

    /// Now and then: were the power to fail in this moment, the message would be there.
    pub(super) fn check_durable(&self, world: &mut World, id: QueueId) {
        if !world.one_in(8) {
            return;
        }
        let mut disk = world.disk.clone();
        disk.crash(virtual_disk::Fate::Lost);
        let limits = journal_limits(world.seed());
        let found = virtual_disk::recover(&disk, SHARD, limits, world.wall(), Start::Beginning, Vec::new());
        let found = found.expect("our own journal is of our own version");
        assert!(found.journal.locate(id).is_some(), "{id} has its 250 and would not survive");
    }
}

/// What the queue wants to know of an envelope.
fn kind(envelope: &Envelope) -> (Kind, Warning) {
    match envelope.reverse_path {
        ReversePath::Null => (Kind::Notification, Warning::Unwanted),
        ReversePath::Address(_) if envelope.recipients.iter().any(|r| r.notify.delay) => {
            (Kind::Message, Warning::Wanted)
        }
        ReversePath::Address(_) => (Kind::Message, Warning::Unwanted),
    }
}

const fn phase(state: State) -> Phase {
    match state {
        // An attempt that is under way at a crash is made again.
        State::Ready | State::Running => Phase::Queued,
        State::Deferred => Phase::Deferred,
        State::Held => Phase::Held,
    }
}

const fn notice(warning: Warning) -> DelayNotice {
    match warning {
        Warning::Sent => DelayNotice::Sent,
        Warning::Unwanted | Warning::Wanted => DelayNotice::Unsent,
    }
}

fn id_of(order: &Order) -> QueueId {
    match order {
        Order::Attempt { id, .. }
        | Order::Note { id, .. }
        | Order::Return { id, .. }
        | Order::Warn { id, .. }
        | Order::Tell { id, .. }
        | Order::Remove { id, .. }
        | Order::Retire { id } => *id,
        Order::Locate { .. } => unreachable!("it is about no message"),
    }
}
