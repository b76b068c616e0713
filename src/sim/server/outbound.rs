//! Lanes and workers: a worker finds a host for its destination and sends what is in its lane.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    rc::Rc,
    sync::Arc,
};

use delivery::{
    Attempt, AttemptLimits, ConnectFailure, Diagnostic, Fate, Hop, Outcome, Report, Route, Routes, Step,
    Teller, Via, fates,
};
use journal::{Last, Phase};
use mail::{QueueId, Status};
use queue::{AttemptId, Destination, Order, Recipients};
use smtp::client::{Ending, Timeouts, Transaction, TransactionOutcome};

use super::{CONNECTIONS_MAX, Message, Server};
use crate::{
    calling::{Calling, Want},
    ledger, names,
    world::{LinkId, Party, Side, World},
};

/// What waits for one destination.
#[derive(Default)]
pub(super) struct Lane {
    pub(super) jobs: VecDeque<Job>,
    pub(super) workers: usize,
    /// Workers that have a connection and nothing to do.
    idle: BTreeSet<u64>,
}

/// An attempt that the queue has ordered.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) attempt: AttemptId,
    pub(super) id: QueueId,
    pub(super) destination: Destination,
    pub(super) recipients: Recipients,
    pub(super) number: u16,
}

pub(super) struct Worker {
    key: Box<str>,
    route: Route,
    /// The oldest first; those at the front have been given to the client.
    flights: VecDeque<Flight>,
    given: usize,
    untried: bool,
    progress: bool,
    connected: bool,
    restarts: u32,
    attempt: Option<Attempt>,
    at: At,
}

enum At {
    /// It has just been started.
    Start,
    Asking(Vec<Option<Arc<dns::Answer>>>),
    Connecting(LinkId, Hop),
    Session(LinkId, Hop, Box<Calling>),
}

/// A message on its way out.
struct Flight {
    job: Job,
    message: Rc<Message>,
    /// Places in the envelope of those who have no outcome yet.
    remaining: Vec<u32>,
    ended: Vec<(u32, Outcome)>,
}

/// Whether a worker goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Waits,
    /// Nothing is left in its hands: it looks into its lane.
    Free,
    Over,
}

/// How often a message that was never tried is given to a fresh connection.
const RESTARTS_MAX: u32 = 3;
/// Questions of one worker at once; numbers the waiters.
const QUESTIONS_MAX: u64 = 8;

/// Jobs.
impl Server {
    /// Gives an attempt to the lane of its destination.
    pub(super) fn assign(&mut self, world: &mut World, job: Job) {
        if self.stopping {
            return self.postpone(world, job);
        }
        let name: Box<str> = self.queue.name(job.destination).expect("it has a recipient").into();
        let Some(route) = self.routes.route_of_key(&name) else {
            let job = self.try_divert(world, job);
            return assert!(job.is_none(), "there is a route for everybody");
        };
        match &self.routes.route(route).via {
            Via::Discard | Via::Reports => return self.end_unattempted(world, &job, &Outcome::discarded()),
            Via::Hold => {
                let text = "its route holds mail; change the route to send it";
                return self.end_unattempted(world, &job, &deferred(Status(4, 3, 2), text));
            }
            Via::Mx(_) | Via::NextHop(_) => {}
            Via::Pool(_) => unreachable!("no route of the simulation leads to the pool"),
        }
        let lane = self.lanes.entry(name.clone()).or_default();
        lane.jobs.push_back(job);
        if lane.jobs.len() > lane.idle.len() && lane.workers < CONNECTIONS_MAX {
            self.start_worker(name);
        } else if let Some(idle) = lane.idle.pop_first() {
            self.wakes.push_back(idle);
        }
    }

    fn start_worker(&mut self, key: Box<str>) {
        let number = self.next_worker;
        self.next_worker += 1;
        self.lanes.get_mut(&key).expect("it has a job").workers += 1;
        let index = self.routes.route_of_key(&key).expect("it has a job");
        let route = self.routes.route(index).clone();
        let worker = Worker {
            key,
            route,
            flights: VecDeque::new(),
            given: 0,
            untried: false,
            progress: false,
            connected: false,
            restarts: 0,
            attempt: None,
            at: At::Start,
        };
        self.workers.insert(number, worker);
        self.wakes.push_back(number);
    }

    pub(super) fn postpone(&mut self, world: &mut World, job: Job) {
        let before = self.before.remove(&job.attempt) && !self.stopping;
        let job = if before { self.try_divert(world, job) } else { Some(job) };
        let Some(job) = job else { return };
        self.running.remove(&job.attempt);
        let mut orders = Vec::new();
        self.queue.on_postponed(job.attempt, world.wall(), &mut orders);
        self.follow(world, orders);
    }

    fn end_unattempted(&mut self, world: &mut World, job: &Job, outcome: &Outcome) {
        let outcomes: Vec<_> = job.recipients.iter().map(|place| (*place, outcome.clone())).collect();
        self.end(world, job, &outcomes);
    }

    /// Tells queue and journal what became of an attempt.
    pub(super) fn end(&mut self, world: &mut World, job: &Job, outcomes: &[(u32, Outcome)]) {
        self.running.remove(&job.attempt).expect("it was under way");
        let (mut told, mut delivered) = (Vec::new(), Vec::new());
        for (place, outcome) in outcomes {
            let (result, discarded) = match outcome {
                Outcome::Delivered(report, _) => (queue::Outcome::Delivered, report.remote.is_none()),
                Outcome::Deferred(report) => (queue::Outcome::Deferred(report.status.into()), false),
                Outcome::Failed(_) => (queue::Outcome::Failed, false),
            };
            told.push((*place, result));
            if result == queue::Outcome::Delivered {
                delivered.push(*place);
                let fate = if discarded { ledger::Fate::Discarded } else { ledger::Fate::Delivered };
                world.ledger.settle(job.id, *place, fate);
            } else {
                self.remember_last(job.id, *place, last(outcome.report()));
            }
            world.note(format_args!("{} {place}, attempt {}: {}", job.id, job.number, say(outcome)));
        }
        let mut orders = Vec::new();
        self.queue.on_attempted(job.attempt, &told, world.wall(), &mut orders);
        let retired = orders.iter().any(|order| matches!(order, Order::Retire { id } if *id == job.id));
        if !retired && !delivered.is_empty() {
            // Others are still to come; a restart must not send to these again.
            self.note_end(job.id, &delivered, Phase::Delivered);
        }
        self.follow(world, orders);
        if self.before.remove(&job.attempt) {
            self.reroute(world, job.id);
        }
    }

    fn remember_last(&mut self, id: QueueId, recipient: u32, last: Last) {
        let list = self.lasts.entry(id).or_default();
        list.retain(|(place, _)| *place != recipient);
        list.push((recipient, last));
    }
}

/// Workers.
impl Server {
    pub(super) fn wake_workers(&mut self, world: &mut World) {
        while let Some(number) = self.wakes.pop_front() {
            self.with_worker(world, number, |server, world, worker| match &worker.at {
                At::Start => Life::Free,
                At::Asking(answers) => match answers.iter().cloned().collect::<Option<Vec<_>>>() {
                    Some(answers) => {
                        let step = worker.attempt().on_answers(&answers);
                        server.advance(world, number, worker, step)
                    }
                    None => Life::Waits,
                },
                At::Session(..) => server.talk(world, number, worker),
                At::Connecting(..) => Life::Waits,
            });
        }
    }

    pub(super) fn worker_answered(&mut self, waiter: dns::Waiter, answer: Arc<dns::Answer>) {
        let (number, slot) = (waiter.0 / QUESTIONS_MAX, waiter.0 % QUESTIONS_MAX);
        let worker = self.workers.get_mut(&number).expect("who asks waits");
        if let At::Asking(answers) = &mut worker.at {
            answers[slot as usize] = Some(answer);
            self.wakes.push_back(number);
        }
    }

    pub(super) fn worker_connected(
        &mut self,
        world: &mut World,
        number: u64,
        outcome: Result<(), ConnectFailure>,
    ) {
        self.with_worker(world, number, |server, world, worker| {
            let At::Connecting(link, hop) = mem::replace(&mut worker.at, At::Start) else {
                unreachable!("it was connecting")
            };
            if let Err(failure) = outcome {
                world.leave(link, Side::Caller);
                let step = worker.attempt().on_connect_failed(&hop, &failure);
                return server.advance(world, number, worker, step);
            }
            worker.connected = true;
            worker.attempt().on_connected(&hop);
            let options = worker.route.options.client(server.config.hostname.as_str(), hop.tls);
            worker.at = At::Session(link, hop, Box::new(Calling::new(options)));
            server.talk(world, number, worker)
        });
    }

    pub(super) fn worker_heard(&mut self, world: &mut World, number: u64, bytes: &[u8]) {
        self.with_worker(world, number, |server, world, worker| {
            if let At::Session(_, _, calling) = &mut worker.at {
                calling.on_bytes(bytes);
            }
            server.talk_unless_idle(world, number, worker)
        });
    }

    pub(super) fn worker_closed(&mut self, world: &mut World, number: u64) {
        self.with_worker(world, number, |server, world, worker| {
            if let At::Session(_, _, calling) = &mut worker.at {
                calling.on_closed();
            }
            server.talk_unless_idle(world, number, worker)
        });
    }

    pub(super) fn worker_timed_out(&mut self, world: &mut World, number: u64) {
        self.with_worker(world, number, |server, world, worker| {
            let idle = server.lanes.get_mut(&worker.key).is_some_and(|lane| lane.idle.remove(&number));
            if let At::Session(_, _, calling) = &mut worker.at {
                if idle { calling.quit() } else { calling.on_timeout() }
            }
            server.talk(world, number, worker)
        });
    }

    /// An idle connection is not read from.
    fn talk_unless_idle(&mut self, world: &mut World, number: u64, worker: &mut Worker) -> Life {
        let idle = self.lanes.get(&worker.key).is_some_and(|lane| lane.idle.contains(&number));
        if idle { Life::Waits } else { self.talk(world, number, worker) }
    }

    /// Lets a worker do something, and then whatever its lane has.
    fn with_worker(
        &mut self,
        world: &mut World,
        number: u64,
        act: impl FnOnce(&mut Self, &mut World, &mut Worker) -> Life,
    ) {
        let Some(mut worker) = self.workers.remove(&number) else { return };
        let mut life = act(self, world, &mut worker);
        while life == Life::Free {
            life = match self.lanes.get_mut(&worker.key).and_then(|lane| lane.jobs.pop_front()) {
                Some(job) => self.begin(world, number, &mut worker, job),
                None => Life::Over,
            };
        }
        if life == Life::Waits {
            self.workers.insert(number, worker);
            return;
        }
        let lane = self.lanes.get_mut(&worker.key).expect("it has a worker");
        lane.workers -= 1;
        lane.idle.remove(&number);
        if !lane.jobs.is_empty() {
            self.start_worker(worker.key);
        } else if lane.workers == 0 {
            self.lanes.remove(&worker.key);
        }
    }

    fn begin(&mut self, world: &mut World, number: u64, worker: &mut Worker, job: Job) -> Life {
        (worker.given, worker.restarts) = (0, 0);
        (worker.untried, worker.progress, worker.connected) = (false, false, false);
        self.take(world, worker, job);
        if worker.flights.is_empty() {
            return Life::Free;
        }
        let step = self.start_attempt(world, worker);
        self.advance(world, number, worker, step)
    }

    /// Takes a message on; one that cannot be read ends here.
    fn take(&mut self, world: &mut World, worker: &mut Worker, job: Job) {
        match self.message(world, job.id) {
            Some(message) => {
                let remaining = job.recipients.to_vec();
                worker.flights.push_back(Flight { job, message, remaining, ended: Vec::new() });
            }
            None => panic!("{} is tried and cannot be read", job.id),
        }
    }

    fn start_attempt(&mut self, world: &mut World, worker: &mut Worker) -> Step {
        let domain = Routes::domain_of_key(&worker.key)
            .unwrap_or_else(|| worker.flights[0].message.envelope.recipients[0].address.domain());
        let seed = world.below(u64::MAX);
        let mut attempt =
            Attempt::new(&worker.route, &domain, self.own.clone(), AttemptLimits::default(), seed);
        let step = attempt.start();
        worker.attempt = Some(attempt);
        step
    }

    fn advance(&mut self, world: &mut World, number: u64, worker: &mut Worker, mut step: Step) -> Life {
        loop {
            step = match step {
                Step::Ask(questions) => {
                    let waiter = |slot: u64| dns::Waiter(number * QUESTIONS_MAX + slot);
                    let asked = (0..).zip(&questions);
                    let answers: Vec<_> =
                        asked.map(|(slot, question)| self.ask(world, question, waiter(slot))).collect();
                    match answers.iter().cloned().collect::<Option<Vec<_>>>() {
                        Some(answers) => worker.attempt().on_answers(&answers),
                        None => {
                            worker.at = At::Asking(answers);
                            return Life::Waits;
                        }
                    }
                }
                // No route of the simulation keeps to policies.
                Step::AskPolicy(..) => worker.attempt().on_policy(None),
                Step::Connect(hop) => {
                    let known = hop.remote.address().and_then(names::hop_at);
                    let known = known.expect("DNS names our next hops alone");
                    let link = world.connect_to_hop(Party::Worker(number), known);
                    worker.at = At::Connecting(link, hop);
                    return Life::Waits;
                }
                Step::Await => unreachable!("a worker of the simulation connects to one host at a time"),
                Step::End(outcome) => {
                    self.give_up(world, worker, &outcome);
                    return Life::Free;
                }
            };
        }
    }

    /// Runs the session as far as it goes without waiting.
    fn talk(&mut self, world: &mut World, number: u64, worker: &mut Worker) -> Life {
        loop {
            let At::Session(link, _, calling) = &mut worker.at else { return Life::Waits };
            let link = *link;
            match calling.want() {
                Want::Bytes(stage) => {
                    let bytes = mem::take(&mut calling.out);
                    world.send(link, Side::Caller, bytes);
                    world.set_patience(link, Side::Caller, Timeouts::default().of(stage));
                    return Life::Waits;
                }
                Want::Content(framing) => {
                    calling.send_content(framing, &worker.flights[worker.given - 1].message.content);
                    if calling.takes_next()
                        && let Some(transaction) = self.next_transaction(world, worker)
                    {
                        worker.calling().give(transaction);
                    }
                }
                Want::Finished(outcome) => {
                    calling.on_finished();
                    self.finished(world, worker, &outcome);
                }
                Want::Transaction => match self.next_transaction(world, worker) {
                    Some(transaction) => worker.calling().give(transaction),
                    None if self.stopping => worker.calling().quit(),
                    None => {
                        let bytes = mem::take(&mut worker.calling().out);
                        world.send(link, Side::Caller, bytes);
                        world.set_patience(link, Side::Caller, worker.route.options.idle_max);
                        self.lanes.get_mut(&worker.key).expect("it has a worker").idle.insert(number);
                        return Life::Waits;
                    }
                },
                Want::Close(ending) => {
                    let bytes = mem::take(&mut calling.out);
                    world.send(link, Side::Caller, bytes);
                    world.close(link, Side::Caller);
                    return self.session_ended(world, number, worker, &ending);
                }
            }
        }
    }

    fn session_ended(
        &mut self,
        world: &mut World,
        number: u64,
        worker: &mut Worker,
        ending: &Ending,
    ) -> Life {
        worker.at = At::Start;
        if worker.flights.is_empty() {
            return Life::Free;
        }
        if mem::take(&mut worker.progress) {
            // A next hop that closes after every few messages is slow, not out of order.
            worker.restarts = 0;
        }
        // Whoever did not fit into a session is no reason to think ill of the host.
        let again = mem::take(&mut worker.untried) || *ending == Ending::Quit;
        let step = if again && worker.restarts < RESTARTS_MAX {
            worker.restarts += 1;
            self.start_attempt(world, worker)
        } else {
            worker.attempt().on_ending(ending)
        };
        self.advance(world, number, worker, step)
    }

    /// The next message to send, if there is one.
    fn next_transaction(&mut self, world: &mut World, worker: &mut Worker) -> Option<Transaction> {
        while worker.flights.len() <= worker.given {
            let job = self.lanes.get_mut(&worker.key)?.jobs.pop_front()?;
            self.take(world, worker, job);
        }
        let flight = &worker.flights[worker.given];
        let envelope = &flight.message.envelope;
        worker.given += 1;
        Some(Transaction {
            reverse_path: envelope.reverse_path.clone(),
            recipients: flight.remaining.iter().map(|at| envelope.recipients[*at as usize].clone()).collect(),
            size: flight.message.size,
            body: envelope.body,
            unconverted: None,
            utf8: envelope.utf8,
            ret: envelope.ret,
            envelope_id: envelope.envelope_id.clone(),
            by: smtp::By::left(&envelope.handling, world.wall()),
            priority: envelope.handling.priority,
            tls: envelope.handling.tls,
            upstream: envelope.upstream.clone(),
        })
    }

    /// The client is done with the oldest message it was given.
    fn finished(&mut self, world: &mut World, worker: &mut Worker, outcome: &TransactionOutcome) {
        let At::Session(_, hop, _) = &worker.at else { unreachable!("a session finished something") };
        let mut flight = worker.flights.pop_front().expect("the client was given it");
        worker.given -= 1;
        match outcome {
            TransactionOutcome::Untried(_) => worker.untried = true,
            TransactionOutcome::Answered(_) => worker.progress = true,
        }
        let places = mem::take(&mut flight.remaining);
        for (place, fate) in places.into_iter().zip(fates(outcome, &hop.remote, Teller::NextHop)) {
            match fate {
                Fate::Ended(outcome) => flight.ended.push((place, outcome)),
                Fate::Remains => flight.remaining.push(place),
            }
        }
        if flight.remaining.is_empty() {
            self.end(world, &flight.job, &flight.ended);
        } else {
            worker.flights.push_back(flight);
        }
    }

    /// No host is left to try: all that remain get this outcome.
    fn give_up(&mut self, world: &mut World, worker: &mut Worker, outcome: &Outcome) {
        if !worker.connected && matches!(outcome, Outcome::Deferred(_)) {
            // The destination as a whole is out of reach: leave it alone for a while. What waits was not tried.
            if let Some(flight) = worker.flights.front() {
                let site = self.queue.site_of(flight.job.destination).expect("it was tried");
                self.queue.on_site_failed(site, world.wall());
            }
            let waiting = self.lanes.get_mut(&worker.key).map(|lane| mem::take(&mut lane.jobs));
            for job in waiting.into_iter().flatten() {
                self.postpone(world, job);
            }
        }
        for mut flight in mem::take(&mut worker.flights) {
            let remaining = mem::take(&mut flight.remaining);
            flight.ended.extend(remaining.into_iter().map(|place| (place, outcome.clone())));
            self.end(world, &flight.job, &flight.ended);
        }
        worker.given = 0;
    }
}

impl Worker {
    fn attempt(&mut self) -> &mut Attempt {
        self.attempt.as_mut().expect("an attempt is under way")
    }

    fn calling(&mut self) -> &mut Calling {
        match &mut self.at {
            At::Session(_, _, calling) => calling,
            At::Start | At::Asking(_) | At::Connecting(..) => unreachable!("there is no session"),
        }
    }
}

pub(super) fn deferred(status: Status, text: &str) -> Outcome {
    Outcome::Deferred(Report { status, remote: None, diagnostic: Diagnostic::Text(text.into()), stage: None })
}

fn last(report: &Report) -> Last {
    Last {
        status: Some(report.status),
        host: report.remote.as_ref().map_or_else(Box::default, |remote| remote.name.clone()),
        text: report.diagnostic.to_string().into(),
    }
}

fn say(outcome: &Outcome) -> String {
    let word = match outcome {
        Outcome::Delivered(..) => "delivered",
        Outcome::Deferred(_) => "deferred",
        Outcome::Failed(_) => "failed",
    };
    format!("{word}, {}", outcome.report().diagnostic)
}
