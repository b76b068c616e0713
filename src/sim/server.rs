//! One run of the server: the same machines as on a core, with the world in place of sockets, disk and clock.
//!
//! - `door`       session ⇄ policy ⇄ journal, until the 250
//! - `committer`  groups written and synced; segments made and recycled
//! - `schedule`   queue orders obeyed, reports written
//! - `outbound`   lanes and workers: hosts, sessions, transactions
//! - `fetch`      visits of clients that come for held mail
//! - `reroute`    what a reload does to queued mail
//! - `restore`    what was queued before the start
//! - `upkeep`     the start, checkpoints, survivors
//!
//! What is a task there is a value here that waits for an event. A crash drops the run, and all that waits with it.

mod committer;
mod door;
mod fetch;
mod outbound;
mod reroute;
mod restore;
mod schedule;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use config::Config;
use delivery::{ConnectFailure, HopHost, Own, Pattern, Place, Route, RouteOptions, Routes, TlsLevel, Via};
use dns::{Asked, Resolver, Socket, StaticHosts, Transport};
use index::Batch;
use journal::{Group, Journal, Last, Position, virtual_disk::Random};
use mail::{Domain, Envelope, JournalShard, QueueId};
use policy::Policy;
use queue::{AttemptId, Cursor, Queue, Recipients, State};
use smtp::client::Chaining;

use crate::{
    names,
    world::{Event, HOUR, LinkId, MINUTE, Party, SECOND, Side, World},
};

use committer::{Note, Stuck, Waiting};
use door::Door;
use fetch::Visit;
use outbound::{Lane, Worker};
use restore::Missing;
use schedule::Reporting;
use upkeep::{Changes, Saving};

pub(crate) use upkeep::Origin;

pub(crate) const SHARD: JournalShard = JournalShard(5);
const QUEUE_LIMITS: queue::Limits = queue::Limits {
    attempts_max: 9,
    site_attempts_max: 4,
    recipients_per_attempt_max: 4,
    recipients_max: 400,
};
/// Connections at once to one destination.
const CONNECTIONS_MAX: usize = 2;
/// UDP sockets at once, towards two DNS servers.
const SOCKETS_MAX: u16 = 3;
/// Content above this is written before its end has come.
const SPILL: usize = 4000;

/// What a run waits for, besides the network.
#[derive(Debug)]
pub(crate) enum Task {
    /// The queue or the resolver has something due.
    Tick,
    /// The group in flight is handed to the disk.
    Write,
    /// The group in flight is synced.
    Sync,
    /// An order about files is done.
    File(journal::Order),
    /// A report that found no storage is tried again.
    Report(QueueId),
    /// It is time for a checkpoint.
    Checkpoint,
    /// The journal has failed: what is delivered from here on could not be written down.
    Pause,
    /// A disk that was full may have been given room.
    Space,
    /// A step of what comes back after the start.
    Older,
}

/// An attempt under way.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    id: QueueId,
    destination: queue::Destination,
    places: Recipients,
    by: By,
}

/// Who has an attempt made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// The queue, within its limits.
    Queue,
    /// A client that has come for its mail.
    Client,
}

/// A message in memory.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) envelope: Envelope,
    pub(crate) content: Vec<Bytes>,
    pub(crate) size: u64,
}

pub(crate) struct Server {
    run: u64,
    config: Config,
    policy: Policy,
    routes: Routes,
    own: Arc<Own>,
    options: Arc<smtp::Options>,
    journal: Journal,
    queue: Queue,
    resolver: Resolver,
    /// Its UDP sockets.
    sockets: BTreeSet<Socket>,
    random: Random,
    doors: BTreeMap<LinkId, Door>,
    lanes: BTreeMap<Box<str>, Lane>,
    workers: BTreeMap<u64, Worker>,
    next_worker: u64,
    /// Workers that have work to begin or to go on with.
    wakes: VecDeque<u64>,
    running: HashMap<AttemptId, Running>,
    /// Connections whose client has come for mail and is the server now.
    visits: BTreeMap<LinkId, Visit>,
    /// Attempts that were ordered by routes before.
    before: HashSet<AttemptId>,
    contents: BTreeMap<QueueId, Rc<Message>>,
    /// Messages that were moved to a place that is not durable yet.
    moving: BTreeMap<QueueId, Rc<Message>>,
    lasts: BTreeMap<QueueId, Vec<(u32, Last)>>,
    reporting: BTreeMap<QueueId, Reporting>,
    notes: VecDeque<Note>,
    group: Option<Group>,
    waiting: VecDeque<(Position, Waiting)>,
    stuck: VecDeque<Stuck>,
    changes: Changes,
    missing: Option<Missing>,
    saving: Option<Saving>,
    batch: Option<Batch>,
    full: bool,
    stopping: bool,
    tick_at: Option<Duration>,
    looks: u64,
}

pub(crate) fn schedule() -> queue::Schedule {
    queue::Schedule {
        intervals: vec![MINUTE, MINUTE * 5],
        retry_max: MINUTE * 30,
        jitter_percent: 20,
        give_up: HOUR * 6,
        notification_give_up: HOUR * 3,
        warn_after: Some(HOUR),
        grace: MINUTE * 20,
        destination_retry_min: MINUTE / 2,
        destination_retry_max: MINUTE * 10,
    }
}

/// Segments are small and few, so that they are used up, emptied and used again.
fn journal_limits(seed: u64) -> journal::Limits {
    journal::Limits {
        segment_size: 24 << 10,
        segments_max: 12 + (seed % 6) as u32,
        reserve_segments: 3,
        spares_max: 1,
        inline_max: SPILL as u32,
        meta_max: 6 << 10,
        gathered_max: 64 << 10,
        rescue_percent: 40,
        rescue_batch: 3,
    }
}

/// Which routes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Roads {
    /// As they are in calm times.
    Usual,
    /// One domain's hosts are named, others' mail is held, and what was held is looked up.
    Other,
    /// Nothing goes out but what is thrown away.
    Closed,
}

fn routes(roads: Roads) -> Routes {
    let exact = |domain: &str| vec![Pattern::Exact(Domain::parse(domain).expect("our own text"))];
    let options = RouteOptions {
        tls: TlsLevel::None,
        chaining: Chaining::On,
        concurrency_max: CONNECTIONS_MAX as u32,
        transactions_max: 3,
        idle_max: 10 * SECOND,
        ..RouteOptions::default()
    };
    let host = |hop| HopHost { place: Place::Address(names::address(hop)), port: 2600 };
    let hub = Via::NextHop(names::HUB.map(host).to_vec());
    let discard = (exact("discard.example"), Via::Discard);
    let routes = match roads {
        Roads::Usual => vec![
            (vec![Pattern::Any], Via::Mx(25)),
            (exact("hub.example"), hub),
            discard,
            (exact("held.example"), Via::Hold),
        ],
        Roads::Other => vec![
            (vec![Pattern::Any], Via::Mx(25)),
            (exact("a.example"), Via::NextHop(vec![host(1), host(2)])),
            (exact("hub.example"), Via::Hold),
            (exact("b.example"), Via::Hold),
            discard,
        ],
        Roads::Closed => vec![(vec![Pattern::Any], Via::Hold), discard],
    };
    let route = |(patterns, via)| Route { patterns, via, options: options.clone() };
    Routes::new(routes.into_iter().map(route).collect())
}

/// The events of the world.
impl Server {
    pub(crate) fn on_connected(
        &mut self,
        world: &mut World,
        link: LinkId,
        side: Side,
        party: Party,
        outcome: Result<(), ConnectFailure>,
    ) {
        match (side, party) {
            (Side::Answerer, _) => self.open_door(world, link),
            (Side::Caller, Party::Worker(worker)) => self.worker_connected(world, worker, outcome),
            (
                Side::Caller,
                Party::Visitor(_) | Party::Customer(_) | Party::Door | Party::Hop(_) | Party::Nobody,
            ) => {}
        }
        self.settle(world);
    }

    pub(crate) fn on_bytes(&mut self, world: &mut World, link: LinkId, party: Party, bytes: &[u8]) {
        match party {
            Party::Worker(worker) => self.worker_heard(world, worker, bytes),
            Party::Door | Party::Visitor(_) | Party::Customer(_) | Party::Hop(_) | Party::Nobody => {
                self.door_heard(world, link, bytes);
            }
        }
        self.settle(world);
    }

    pub(crate) fn on_closed(&mut self, world: &mut World, link: LinkId, party: Party) {
        match party {
            Party::Worker(worker) => self.worker_closed(world, worker),
            Party::Door | Party::Visitor(_) | Party::Customer(_) | Party::Hop(_) | Party::Nobody => {
                self.door_closed(world, link)
            }
        }
        self.settle(world);
    }

    pub(crate) fn on_patience(&mut self, world: &mut World, link: LinkId, party: Party) {
        match party {
            Party::Worker(worker) => self.worker_timed_out(world, worker),
            Party::Door | Party::Visitor(_) | Party::Customer(_) | Party::Hop(_) | Party::Nobody => {
                self.door_timed_out(world, link);
            }
        }
        self.settle(world);
    }

    pub(crate) fn on_task(&mut self, world: &mut World, task: Task) {
        match task {
            Task::Tick => {
                self.tick_at = None;
                let mut orders = Vec::new();
                self.queue.on_tick(world.wall(), &mut orders);
                self.follow(world, orders);
                self.tick_resolver(world);
            }
            Task::Write => self.write_group(world),
            Task::Sync => self.sync_group(world),
            Task::File(order) => self.do_file_order(world, order),
            Task::Report(id) => self.store_report(world, id),
            Task::Checkpoint => self.begin_checkpoint(world),
            Task::Space => self.on_space(world),
            Task::Pause => self.pause(world),
            Task::Older => self.restore_some(world),
        }
        self.settle(world);
    }

    /// An operator gives a command.
    pub(crate) fn command(
        &mut self,
        world: &mut World,
        command: queue::Command,
        selector: queue::Selector<'static>,
    ) {
        if self.put_off(command, selector) {
            return;
        }
        world.note(format_args!("operator: {command:?} {selector:?}"));
        let (mut orders, mut cursor) = (Vec::new(), Some(Cursor::default()));
        while let Some(from) = cursor {
            cursor = self.queue.on_command(command, selector, from, world.wall(), &mut orders).next;
        }
        self.follow(world, orders);
        self.settle(world);
    }

    /// Begins to stop: idle sessions are told, no attempt is begun any more.
    pub(crate) fn stop(&mut self, world: &mut World) {
        self.stopping = true;
        self.pause(world);
        self.stop_doors(world);
        self.settle(world);
    }

    /// Begins no attempt any more.
    fn pause(&mut self, world: &World) {
        let limits = queue::Limits { attempts_max: 0, ..QUEUE_LIMITS };
        self.queue.set_limits(limits, world.wall(), &mut Vec::new());
    }

    /// Somebody in the queue, for a command to be about.
    pub(crate) fn anybody(&self, world: &mut World) -> Option<(QueueId, u32)> {
        let ids: Vec<_> = self.journal.live().collect();
        let id = (!ids.is_empty()).then(|| world.pick(&ids))?;
        let states = self.queue.states(id).unwrap_or_default();
        let place = (!states.is_empty()).then(|| world.pick(&states).recipient)?;
        Some((id, place))
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.journal.failure().is_some()
    }

    pub(crate) const fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether nothing is queued, and nothing waits to be written.
    pub(crate) fn is_idle(&self) -> bool {
        self.missing.is_none() && self.queue.messages() == 0 && self.reporting.is_empty() && self.is_written()
    }

    pub(crate) fn is_written(&self) -> bool {
        self.notes.is_empty() && self.journal.durable_to() >= self.journal.end()
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What follows from whatever has happened, until there is nothing to do but wait.
    fn settle(&mut self, world: &mut World) {
        loop {
            self.wake_workers(world);
            self.work(world);
            if self.wakes.is_empty() {
                break;
            }
        }
        self.set_tick(world);
        self.looks += 1;
        if self.looks.is_multiple_of(16) {
            self.look(world);
        }
    }

    fn set_tick(&mut self, world: &mut World) {
        let queue = self.queue.wake_after(world.wall()).filter(|_| !self.stopping);
        let queue = queue.map(|at| world.now + at.saturating_since(world.wall()));
        let next = [queue, self.resolver.wake_after()].into_iter().flatten().min();
        let Some(next) = next.map(|at| at.max(world.now + Duration::from_millis(1))) else { return };
        if self.tick_at.is_none_or(|at| next < at) {
            self.tick_at = Some(next);
            world.at(next, Event::Server(self.run, Task::Tick));
        }
    }

    /// What must hold at any time.
    fn look(&self, world: &World) {
        let now = world.wall();
        let schedule = schedule();
        let mut cursor = Some(Cursor::default());
        let latest = now.saturating_add(schedule.retry_max + SECOND);
        while let Some(from) = cursor {
            let page = self.queue.list(&queue::Filter::default(), from, 100);
            cursor = page.next;
            for group in page.items {
                let waits_too_long = group.state == State::Deferred && group.due > latest;
                assert!(
                    !waits_too_long,
                    "{} is due {:?} from now",
                    group.id,
                    group.due.saturating_since(now)
                );
            }
        }
        self.look_at_ways(world);
        let sites = self.queue.list_destinations(Cursor::default(), 100).items;
        let attempts: u32 = sites.iter().map(|site| site.attempts).sum();
        let visits = self.running.values().filter(|running| running.by == By::Client).count() as u32;
        assert!(attempts <= QUEUE_LIMITS.attempts_max + visits, "{attempts} attempts at once");
        assert!(visits as usize <= self.visits.len(), "a visit has ended, and what it was sending has not");
        assert_eq!(attempts as usize, self.running.len(), "an attempt that was ordered is not made");
        for destination in sites {
            // Each is a site of its own.
            let site = destination.site.expect("nothing is sought");
            assert!(site.attempts <= QUEUE_LIMITS.site_attempts_max + visits, "{site:?}");
            let latest = now.saturating_add(schedule.destination_retry_max + SECOND);
            assert!(site.blocked_until.is_none_or(|until| until <= latest), "{site:?}");
            let free =
                site.blocked_until.is_none() && site.attempts == 0 && attempts < QUEUE_LIMITS.attempts_max;
            let waits = self.stopping || self.has_failed() || self.missing.is_some();
            let idle = free && destination.counts.ready > 0 && !waits;
            assert!(!idle, "nobody tries {site:?}");
        }
        for (name, lane) in &self.lanes {
            assert!(lane.workers <= CONNECTIONS_MAX, "{} workers for {name}", lane.workers);
        }
    }
}

/// Names.
impl Server {
    pub(crate) fn on_datagram(&mut self, world: &mut World, socket: Socket, bytes: &[u8]) {
        if !self.sockets.contains(&socket) {
            return;
        }
        let mut orders = Vec::new();
        let mut random = || self.random.below(u64::MAX);
        self.resolver.on_datagram(socket, bytes, world.now, &mut random, &mut orders);
        self.follow_resolver(world, orders);
        self.settle(world);
    }

    pub(crate) fn on_stream(&mut self, world: &mut World, ticket: dns::Ticket, bytes: Option<&[u8]>) {
        let mut orders = Vec::new();
        let mut random = || self.random.below(u64::MAX);
        match bytes {
            Some(bytes) => {
                self.resolver.on_stream_answer(ticket, bytes, world.now, &mut random, &mut orders);
            }
            None => self.resolver.on_failed(ticket, world.now, &mut random, &mut orders),
        }
        self.follow_resolver(world, orders);
        self.settle(world);
    }

    fn ask(
        &mut self,
        world: &mut World,
        question: &dns::Question,
        waiter: dns::Waiter,
    ) -> Option<Arc<dns::Answer>> {
        let mut orders = Vec::new();
        let mut random = || self.random.below(u64::MAX);
        let asked = self.resolver.ask(question, waiter, world.now, &mut random, &mut orders);
        self.follow_resolver(world, orders);
        match asked {
            Asked::Known(answer) => Some(answer),
            Asked::Waiting => None,
        }
    }

    fn tick_resolver(&mut self, world: &mut World) {
        let mut orders = Vec::new();
        let mut random = || self.random.below(u64::MAX);
        self.resolver.on_tick(world.now, &mut random, &mut orders);
        self.follow_resolver(world, orders);
    }

    fn follow_resolver(&mut self, world: &mut World, orders: Vec<dns::Order>) {
        for order in orders {
            match order {
                dns::Order::Answer { waiter, answer } => self.worker_answered(waiter, answer),
                dns::Order::Close { socket } => assert!(self.sockets.remove(&socket), "it is not open"),
                dns::Order::Send { ticket, transport, bytes, .. } => {
                    let run = self.run;
                    let lost = world.dns_down || (!world.is_calm() && world.one_in(12));
                    let wait = world.latency();
                    let service = match world.below(if world.is_calm() { 1 } else { 20 }) {
                        19 => names::Service::Fails,
                        18 if transport != Transport::Tcp => names::Service::Truncates,
                        _ => names::Service::Answers,
                    };
                    let answer = (!lost).then(|| names::answer(&bytes, service));
                    match (transport, answer) {
                        (Transport::Udp { socket }, answer) => {
                            self.sockets.insert(socket);
                            assert!(self.sockets.len() <= usize::from(SOCKETS_MAX), "too many sockets");
                            if let Some(bytes) = answer {
                                world.after(wait, Event::Datagram { run, socket, bytes });
                            }
                        }
                        (Transport::Tcp, bytes) => world.after(wait, Event::Stream { run, ticket, bytes }),
                    }
                }
            }
        }
    }
}

fn resolver() -> Resolver {
    let servers = [SocketAddr::from(([127, 0, 0, 53], 53)), SocketAddr::from(([127, 0, 0, 54], 53))];
    let servers = servers.map(dns::Server::new);
    let limits = dns::Limits { sockets: SOCKETS_MAX, streams: 1, ..dns::Limits::default() };
    Resolver::new(limits, &servers, StaticHosts::default())
}

fn config() -> Config {
    let hostname = Domain::parse(names::OURSELVES).expect("our own text");
    Config { hostname, ..Config::default() }
}
