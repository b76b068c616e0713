//! Lanes: what waits for a site, and the workers that have connections there.
//!
//! The queue orders attempts, within its limits. Here each goes into the lane of its destination's site, where a worker
//! with an open connection takes it, or a new worker is started for it. A worker needs a lease, of which the host has as
//! many as connections may be open there. While the shard stands in line for one, the queue is told to order no more than
//! its workers can send, nothing at all when it has none, and has back what waits here: it may be held, removed or given
//! up meanwhile, and takes no place of others.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bridge::{Reason, Seat, Ticket};
use config::Rate;
use delivery::{Allowed, Outcome, Route, Routes, TlsMemory, TlsMemoryLimits, Via, egress::Standing};
use mail::{QueueId, Status};
use queue::{AttemptId, Destination, Recipients};
use ring::Event;
use watch::events::SessionPanicked;

use crate::{
    attempt,
    egress::{self, Admission},
    facts,
    families::Families,
    leases::{Lease, Leases, Letter, Use},
    logins::{Derived, Tokens},
    outcomes,
    paces::Counted,
    race::Ways,
    reroute::{self, Generation},
    returned, schedule,
    settings::{Settings, Shape},
    shard::Shard,
    throttles::{self, Account, News},
    why,
};

/// All lanes of one core.
pub(crate) struct Hops {
    lanes: RefCell<HashMap<Arc<str>, Rc<Lane>>>,
    /// Which hosts have broken TLS.
    pub(crate) tls_memory: RefCell<TlsMemory>,
    /// Which kinds of addresses lead anywhere.
    pub(crate) ways: Ways,
    /// Which kinds sites have alone.
    pub(crate) families: Families,
    /// Passwords, as servers want them.
    pub(crate) derived: Derived,
    /// Tokens that programs have said.
    pub(crate) tokens: Tokens,
    /// Workers in all lanes.
    pub(crate) workers: Cell<usize>,
    /// What the queue has ordered and is in no lane yet.
    arrived: RefCell<VecDeque<Job>>,
    assigning: Cell<bool>,
}

/// Set while jobs are put into lanes.
struct Assigning<'a>(&'a Cell<bool>);

impl<'a> Assigning<'a> {
    fn begin(flag: &'a Cell<bool>) -> Option<Self> {
        (!flag.replace(true)).then_some(Self(flag))
    }
}

impl Drop for Assigning<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Default for Hops {
    fn default() -> Self {
        Self {
            lanes: RefCell::default(),
            tls_memory: RefCell::new(TlsMemory::new(TlsMemoryLimits::default())),
            ways: Ways::default(),
            families: Families::default(),
            derived: Derived::default(),
            tokens: Tokens::default(),
            workers: Cell::new(0),
            arrived: RefCell::default(),
            assigning: Cell::new(false),
        }
    }
}

/// What waits for one site.
pub(crate) struct Lane {
    /// The site, and what holds for connections that its mail may share.
    pub(crate) key: Arc<str>,
    /// The site alone, for which limits hold.
    pub(crate) limit_key: Arc<str>,
    /// The destination of the job that came last: the routes of all jobs in here are alike.
    destination: RefCell<Box<str>>,
    jobs: RefCell<VecDeque<Job>>,
    workers: Cell<u32>,
    /// A lease that has come, for the next worker.
    granted: RefCell<Option<Lease>>,
    line: Cell<Line>,
    pace: Cell<Pace>,
    /// What the site takes now.
    pub(crate) account: Account,
    /// Until when no connection is opened: its rate says so.
    unopened_until: Cell<Duration>,
    /// When somebody there has answered for a message, or when there was nothing to answer for.
    answered: Cell<Duration>,
    /// Workers that have a connection and nothing to do.
    idle: Cell<u32>,
    arrived: Event,
    /// Its pace may be another.
    resumed: Event,
    /// Another lane of this core, to the same site, has no connection and would like one.
    sister_waits: Cell<bool>,
}

/// Whether there are leases enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// Yes, as far as is known: the queue orders as much as its limits allow.
    Free,
    /// There were too few a while ago: the queue orders one more than has a place, to see whether there are by now.
    Trying,
    /// No: the shard waits for one, and the queue orders no more than has a place.
    Standing,
}

/// How many messages more may be ordered now, where there is a rate for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// Any number.
    Free,
    /// So many.
    Drip(u32),
    /// None before that time.
    Paused(Duration),
}

/// An attempt that the queue has ordered.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) attempt: AttemptId,
    pub(crate) id: QueueId,
    pub(crate) destination: Destination,
    pub(crate) recipients: Recipients,
    pub(crate) number: u16,
    /// By which routes its destination was found.
    pub(crate) generation: Generation,
    /// It is counted by warm-up plans, once it was tried.
    pub(crate) ticket: Option<Ticket>,
}

impl Job {
    pub(crate) fn new(
        shard: &Shard,
        attempt: AttemptId,
        id: QueueId,
        destination: Destination,
        recipients: Recipients,
        number: u16,
    ) -> Self {
        let generation = shard.reroute.generation();
        Self { attempt, id, destination, recipients, number, generation, ticket: None }
    }
}

/// How often an idle connection looks whether its source has to do without it.
const SEAT_LOOK: Duration = Duration::from_millis(250);

/// Gives an attempt to the lane of its destination's site.
pub(crate) fn assign(shard: &Rc<Shard>, job: Job) {
    let hops = &shard.hops;
    hops.arrived.borrow_mut().push_back(job);
    // What is done about one may order others: one after the other, and not within each other.
    let Some(_turn) = Assigning::begin(&hops.assigning) else { return };
    loop {
        let Some(job) = hops.arrived.borrow_mut().pop_front() else { return };
        admit(shard, job);
    }
}

/// Ends an attempt on a route where all counts as delivered. Whether somebody wants to hear of it stands in the envelope.
fn discard(shard: &Rc<Shard>, job: Job) {
    if shard.contents.borrow().contains_key(&job.id) {
        return outcomes::end_unattempted(shard, job, &Outcome::discarded());
    }
    let shard = shard.clone();
    ring::spawn(async move {
        let envelope = shard.envelope(job.id).await.ok();
        outcomes::end_with(&shard, &job, envelope.as_deref(), &Outcome::discarded());
    });
}

fn admit(shard: &Rc<Shard>, mut job: Job) {
    if shard.is_stopping() {
        return postpone(shard, job);
    }
    let (name, site) = {
        let queue = shard.queue.borrow();
        let name: Option<Box<str>> = queue.name(job.destination).map(Into::into);
        let site = queue.site_of(job.destination).and_then(|site| queue.site_name(site));
        (name, site.map(Box::<str>::from))
    };
    let (Some(name), Some(site)) = (name, site) else { return postpone(shard, job) };
    let settings = shard.settings();
    let Some(index) = settings.routes.route_of_key(&name) else {
        let shard = shard.clone();
        ring::spawn(async move { reroute::divert(&shard, job, end_unrouted).await });
        return;
    };
    let route = settings.routes.route(index);
    match &route.via {
        Via::Discard => return discard(shard, job),
        Via::Reports => return returned::take(shard, job),
        Via::Hold => {
            let text = "its route holds mail; change the route to send it";
            return outcomes::end_unattempted(shard, job, &outcomes::deferred(Status(4, 3, 2), text));
        }
        Via::Mx(_) | Via::NextHop(_) | Via::Pool(_) => {}
    }
    let lane = shard.hops.lane(&site);
    if **lane.destination.borrow() != *name {
        lane.destination.replace(name);
    }
    throttles::look(shard, &lane);
    let shape = lane.shape(&settings, route);
    if let Some(wait) = lane.suspended(&settings) {
        pause(shard, &lane, wait);
        return postpone(shard, job);
    }
    match egress::admit(shard, &settings, &lane, job.destination) {
        Admission::Granted(ticket) => job.ticket = ticket,
        Admission::Elsewhere => {
            shard.queue.borrow_mut().on_astray(job.destination);
            postpone(shard, job);
            return shard.hops.tidy(shard, &lane);
        }
        Admission::Later(wait) => {
            pause(shard, &lane, wait);
            return postpone(shard, job);
        }
    }
    if let Some(rate) = shape.message_rate {
        let (paces, now) = (shard.leases.paces(), ring::clock::now());
        if let Err(wait) = paces.take(Counted::Messages, &lane.limit_key, rate, now) {
            pause(shard, &lane, wait);
            return postpone(shard, job);
        }
        let wait = paces.wait(Counted::Messages, &lane.limit_key, rate, now);
        if !wait.is_zero() {
            pause(shard, &lane, wait);
        }
    }
    egress::count(shard, &settings, &lane);
    if let Pace::Drip(_) = lane.pace.get() {
        // More may go.
        lane.pace.set(Pace::Free);
        lane.curb(shard);
    }
    if lane.workers.get() == lane.idle.get() {
        lane.answered.set(ring::clock::now());
    }
    lane.jobs.borrow_mut().push_back(job);
    supply(shard, &lane);
}

/// Nothing more is ordered of a lane for so long.
fn pause(shard: &Rc<Shard>, lane: &Rc<Lane>, wait: Duration) {
    let until = ring::clock::now() + wait;
    let before = lane.pace.replace(Pace::Paused(until));
    lane.curb(shard);
    if matches!(before, Pace::Paused(_)) {
        // It is waited for already; whoever does looks at the time again.
        return;
    }
    shard.metrics.outbound.paced.one();
    let (shard, lane) = (shard.clone(), lane.clone());
    ring::spawn(async move {
        while let Pace::Paused(until) = lane.pace.get() {
            let left = until.saturating_sub(ring::clock::now());
            if left.is_zero() {
                break;
            }
            // A reload ends it.
            let ended = lane.resumed.wait();
            let _ = ring::timeout(left, ended).await;
        }
        resume(&shard, &lane);
    });
}

/// A lane may go on: as fast as it may.
fn resume(shard: &Rc<Shard>, lane: &Rc<Lane>) {
    throttles::tell(shard, lane, &News::Nothing);
    let settings = shard.settings();
    let rate = lane.route(&settings).and_then(|route| lane.shape(&settings, route).message_rate);
    lane.pace.set(match rate {
        None => Pace::Free,
        Some(rate) => {
            let now = ring::clock::now();
            Pace::Drip(shard.leases.paces().available(Counted::Messages, &lane.limit_key, rate, now).max(1))
        }
    });
    lane.curb(shard);
    shard.hops.tidy(shard, lane);
}

/// Sees to it that there are workers for what is in the lane.
fn supply(shard: &Rc<Shard>, lane: &Rc<Lane>) {
    if lane.jobs.borrow().len() <= lane.idle.get() as usize {
        return lane.arrived.notify_one();
    }
    if let Some(wait) = lane.wait_to_open(shard) {
        return supply_later(shard, lane, wait);
    }
    let seat = match egress::seat(shard, lane) {
        Ok(seat) => seat,
        Err(_) if lane.workers.get() > 0 => return lane.arrived.notify_one(),
        Err(wait) => {
            pause(shard, lane, wait);
            for job in lane.clear() {
                postpone(shard, job);
            }
            return;
        }
    };
    if let Some(lease) = lane.take_lease(shard) {
        if let Err(wait) = lane.count_opening(shard) {
            // Another core was faster.
            drop((lease, seat));
            let wait = lane.wait_to_open(shard).unwrap_or(wait);
            return supply_later(shard, lane, wait);
        }
        start(shard, lane, (lease, seat));
        // The next one may find a lease as well.
        if lane.line.get() == Line::Trying {
            lane.curb(shard);
        }
        return;
    }
    lane.arrived.notify_one();
    // The queue has back what is above its limit, the last one first: each goes to the head of the others.
    for _ in 0..lane.curb(shard) {
        let Some(job) = shard.hops.pop_last(shard, lane) else { return };
        postpone(shard, job);
    }
}

/// No connection may be opened for so long.
fn supply_later(shard: &Rc<Shard>, lane: &Rc<Lane>, wait: Duration) {
    if lane.workers.get() > 0 {
        return lane.arrived.notify_one();
    }
    // Nobody is there who could send it: it waits in the queue, and takes no place of other sites' mail.
    pause(shard, lane, wait);
    for job in lane.clear() {
        postpone(shard, job);
    }
}

/// Reads what is said about leases, for as long as the core lives.
pub(crate) async fn read_letters(shard: Rc<Shard>) {
    let mut letters = shard.leases.letters();
    while let Some(letter) = letters.recv().await {
        match letter {
            Letter::Granted(lease) => use_lease(&shard, lease),
            Letter::Wanted(key) => {
                shard.leases.on_called(&key);
                // Who has nothing to send looks whether it is to go.
                shard.hops.lanes_of(&key).iter().for_each(|lane| lane.arrived.notify_all());
            }
        }
    }
}

/// Sources stand otherwise than before: nobody waits for what may have ended, and what waits here for one that is out goes back.
pub(crate) fn on_sources_changed(shard: &Rc<Shard>) {
    let lanes: Vec<_> = shard.hops.lanes.borrow().values().cloned().collect();
    for lane in lanes {
        let Some(source) = Routes::source_of_key(&lane.key) else { continue };
        if let Pace::Paused(_) = lane.pace.get() {
            lane.pace.set(Pace::Paused(Duration::ZERO));
            lane.resumed.notify_all();
        }
        if shard.egress.standing(source) == Standing::Out {
            for job in lane.clear() {
                postpone(shard, job);
            }
        }
    }
}

/// A site takes more or less than before, as far as this core knows.
pub(crate) fn on_allowed(shard: &Rc<Shard>, lane: &Rc<Lane>, allowed: Allowed) {
    let settings = shard.settings();
    if let Some(route) = lane.route(&settings) {
        shard.leases.set_max(&lane.limit_key, lane.shape(&settings, route).connections_max);
    }
    if let Pace::Paused(_) = lane.pace.get()
        && lane.suspended(&settings).is_none()
    {
        // Perhaps it waits for the end of what is over.
        lane.pace.set(Pace::Paused(Duration::ZERO));
        lane.resumed.notify_all();
    }
    if allowed.suspended_until.is_some()
        && let Some(wait) = lane.suspended(&settings)
    {
        pause(shard, lane, wait);
        // What waits here is nobody's turn until then: it can be held, removed or sent another way meanwhile.
        for job in lane.clear() {
            postpone(shard, job);
        }
        lane.arrived.notify_all();
    }
}

/// A lease has come that the shard stood in line for.
fn use_lease(shard: &Rc<Shard>, lease: Lease) {
    let mut waiting = shard.hops.lanes_of(lease.key());
    waiting.retain(|lane| lane.line.get() == Line::Standing);
    waiting.sort_by_key(|lane| lane.workers.get());
    let mut waiting = waiting.into_iter();
    let Some(lane) = waiting.next() else { return };
    // The shard stands in line once for a site. Its other lanes there see whether there is one for them as well.
    for other in waiting {
        other.line.set(Line::Trying);
        other.curb(shard);
    }
    lane.line.set(Line::Trying);
    lane.granted.replace(Some(lease));
    // What the queue orders now comes into the lane, and has the lease.
    lane.curb(shard);
    if !lane.jobs.borrow().is_empty() && lane.granted.borrow().is_some() {
        supply(shard, &lane);
    }
    // Nobody needs it any more.
    drop(lane.granted.take());
    shard.hops.tidy(shard, &lane);
}

/// No route is for this mail: it waits for one.
fn end_unrouted(shard: &Rc<Shard>, job: Job) {
    let text = "no route is for this domain; it waits for one";
    outcomes::end_unattempted(shard, job, &outcomes::deferred(Status(4, 3, 5), text));
}

fn start(shard: &Rc<Shard>, lane: &Rc<Lane>, may: (Lease, Option<Seat>)) {
    let place = Place::new(shard, lane);
    // What a worker has taken on; told to the queue if it panics.
    let taken: Rc<RefCell<Vec<AttemptId>>> = Rc::default();
    let (after, again) = (shard.clone(), taken.clone());
    let worker = attempt::work(shard.clone(), lane.clone(), place, taken, may);
    ring::spawn_caught(worker, move |panic| {
        after.metrics.executor.panicked.one();
        let nobody = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        SessionPanicked { peer: nobody, error: &panic }.emit(ring::clock::unix_micros());
        for attempt in again.take() {
            let mut orders = Vec::new();
            // Without an outcome, the recipients count as deferred.
            after.queue.borrow_mut().on_attempted(attempt, &[], facts::now(), &mut orders);
            schedule::follow(&after, orders);
        }
        after.due.notify_all();
    });
}

/// Gives an attempt back untried.
pub(crate) fn postpone(shard: &Rc<Shard>, job: Job) {
    if shard.reroute.may_concern(&job) && !shard.is_stopping() {
        let shard = shard.clone();
        ring::spawn(async move { reroute::divert(&shard, job, give_back).await });
    } else {
        give_back(shard, job);
    }
}

fn give_back(shard: &Rc<Shard>, job: Job) {
    let mut orders = Vec::new();
    shard.queue.borrow_mut().on_postponed(job.attempt, facts::now(), &mut orders);
    schedule::follow(shard, orders);
}

impl Hops {
    fn lane(&self, key: &str) -> Rc<Lane> {
        if let Some(lane) = self.lanes.borrow().get(key) {
            return lane.clone();
        }
        let key: Arc<str> = key.into();
        let lane = Rc::new(Lane {
            limit_key: Routes::limit_key(&key).into(),
            key: key.clone(),
            destination: RefCell::default(),
            jobs: RefCell::default(),
            workers: Cell::new(0),
            granted: RefCell::default(),
            line: Cell::new(Line::Free),
            pace: Cell::new(Pace::Free),
            account: Account::default(),
            unopened_until: Cell::default(),
            resumed: Event::new(),
            sister_waits: Cell::new(false),
            answered: Cell::new(ring::clock::now()),
            idle: Cell::new(0),
            arrived: Event::new(),
        });
        self.lanes.borrow_mut().insert(key, lane.clone());
        lane
    }

    /// Whether whoever is asked there says nothing: what waits for it now does so for a while.
    pub(crate) fn is_silent(&self, site: &str) -> bool {
        /// Anybody who is well answers sooner.
        const SILENCE: Duration = Duration::from_secs(1);
        let lanes = self.lanes.borrow();
        let Some(lane) = lanes.get(site) else { return false };
        lane.workers.get() > 0 && ring::clock::now().saturating_sub(lane.answered.get()) > SILENCE
    }

    /// The lanes for which the limits of a site hold.
    pub(crate) fn lanes_of(&self, limit_key: &str) -> Vec<Rc<Lane>> {
        self.lanes.borrow().values().filter(|lane| *lane.limit_key == *limit_key).cloned().collect()
    }

    /// Takes out the job for a lane that was ordered last: it may not be in there yet.
    fn pop_last(&self, shard: &Shard, lane: &Lane) -> Option<Job> {
        let mut arrived = self.arrived.borrow_mut();
        let queue = shard.queue.borrow();
        let is_for_it = |job: &Job| {
            queue.site_of(job.destination).and_then(|site| queue.site_name(site)) == Some(&*lane.key)
        };
        match arrived.iter().rposition(is_for_it) {
            Some(place) => arrived.remove(place),
            None => lane.jobs.borrow_mut().pop_back(),
        }
    }

    /// Takes the jobs out of all lanes that are meant.
    pub(crate) fn take_jobs(&self, is_meant: impl Fn(&str) -> bool) -> Vec<Job> {
        let lanes = self.lanes.borrow();
        lanes.values().filter(|lane| is_meant(&lane.key)).flat_map(|lane| lane.clear()).collect()
    }

    /// The limits may be others since a reload.
    pub(crate) fn configure(&self, settings: &Settings, leases: &Leases) {
        let lanes: Vec<_> = self.lanes.borrow().values().cloned().collect();
        for lane in lanes {
            if let Some(route) = lane.route(settings) {
                leases.set_max(&lane.limit_key, lane.shape(settings, route).connections_max);
            }
            lane.unopened_until.set(Duration::ZERO);
            if let Pace::Paused(_) = lane.pace.get() {
                lane.pace.set(Pace::Paused(Duration::ZERO));
                lane.resumed.notify_all();
            }
        }
    }

    /// What holds mail for a site back.
    pub(crate) fn reasons(&self, shard: &Shard, site: &str) -> Vec<Reason> {
        let Some(lane) = self.lanes.borrow().get(site).cloned() else { return Vec::new() };
        let settings = shard.settings();
        let Some(route) = lane.route(&settings) else { return Vec::new() };
        let (shape, now) = (settings.shape(site, route), ring::clock::now());
        let mut reasons = egress::reasons(shard, &settings, &lane);
        if let Some((text, until, rule)) = shard.leases.throttles().why(&lane.limit_key, facts::now()) {
            let cause = if until.is_some() { "suspended" } else { "throttled" };
            let set_by = rule.map_or_else(|| "[throttle]".to_owned(), |rule| format!("reply-rule.{rule}"));
            reasons.push(Reason { until, set_by: Some(set_by), ..why::plain(cause, text) });
        }
        if let (Pace::Paused(until), Some(rate)) = (lane.pace.get(), shape.message_rate) {
            let text =
                format!("as many messages have gone there as its rate lets: {rate}, all cores together");
            let set_by = Some(settings.set_by(site, "message-rate"));
            reasons.push(Reason { until: Some(why::wall(until)), set_by, ..why::plain("rate", text) });
        }
        if let Some(rate) = shape.connection_rate.filter(|_| lane.unopened_until.get() > now) {
            let text = format!(
                "as many connections were opened there as their rate lets: {rate}, all cores together"
            );
            let (until, set_by) =
                (why::wall(lane.unopened_until.get()), settings.set_by(site, "connection-rate"));
            let plain = why::plain("connection-rate", text);
            reasons.push(Reason { until: Some(until), set_by: Some(set_by), ..plain });
        }
        if lane.line.get() == Line::Standing {
            let text = format!(
                "the host has as many connections there as it may, {}, and other cores have them; one of them gives one up \
                 within its turn",
                shape.connections_max
            );
            let set_by = Some(settings.set_by(site, "connections-max"));
            reasons.push(Reason { set_by, ..why::plain("connections", text) });
        }
        reasons
    }

    /// Forgets a lane that nobody needs.
    fn tidy(&self, shard: &Rc<Shard>, lane: &Rc<Lane>) {
        let is_needed = lane.workers.get() > 0
            || !lane.jobs.borrow().is_empty()
            || lane.line.get() == Line::Standing
            || matches!(lane.pace.get(), Pace::Paused(_));
        if is_needed {
            return;
        }
        self.lanes.borrow_mut().remove(&lane.key);
        let is_curbed = lane.line.replace(Line::Free) == Line::Trying;
        if lane.pace.replace(Pace::Free) != Pace::Free || is_curbed {
            lane.curb(shard);
        }
    }

    /// Wakes idle workers, so that they see that the core stops.
    pub(crate) fn stop(&self) {
        self.lanes.borrow().values().for_each(|lane| lane.arrived.notify_all());
    }
}

impl Lane {
    /// Somebody has answered for a message.
    pub(crate) fn on_answered(&self) {
        self.answered.set(ring::clock::now());
    }

    /// Whether the DNS says which hosts there are.
    pub(crate) fn is_by_dns(&self) -> bool {
        Routes::domain_of_key(&self.destination.borrow()).is_some()
    }

    /// The route that its mail goes by now.
    pub(crate) fn route<'a>(&self, settings: &'a Settings) -> Option<&'a Route> {
        let index = settings.routes.route_of_key(&self.destination.borrow())?;
        Some(settings.routes.route(index))
    }

    /// What holds for its connections now: by rule and route, or less, if the site has complained.
    fn shape(&self, settings: &Settings, route: &Route) -> Shape {
        let mut shape = settings.shape(&self.key, route);
        // Where there may be none it is left alone, until a time; a limit of none would have no end.
        let Some(allowed) = self.account.allowed().filter(|_| settings.throttle.is_some()) else {
            return shape;
        };
        shape.connections_max = shape.connections_max.min(allowed.connections.max(1));
        if let Some(count) = allowed.rate.filter(|count| *count > 0) {
            let slower = shape.message_rate.is_none_or(|rate| count < throttles::per_minute(rate));
            if slower {
                shape.message_rate = Some(Rate { count, per: Duration::from_secs(60) });
            }
        }
        shape
    }

    /// For how long the site is left alone, when it is.
    fn suspended(&self, settings: &Settings) -> Option<Duration> {
        settings.throttle?;
        let until = self.account.allowed()?.suspended_until?;
        Some(until.saturating_since(facts::now())).filter(|wait| !wait.is_zero())
    }

    /// For how long no connection is to be opened. Whoever has one goes on; when the time has come, there is another look.
    pub(crate) fn wait_to_open(self: &Rc<Self>, shard: &Rc<Shard>) -> Option<Duration> {
        let settings = shard.settings();
        let rate = self.shape(&settings, self.route(&settings)?).connection_rate?;
        let now = ring::clock::now();
        let wait = shard.leases.paces().wait(Counted::Connections, &self.limit_key, rate, now);
        if wait.is_zero() {
            return None;
        }
        let is_waited_for = self.unopened_until.replace(now + wait) > now;
        if !is_waited_for {
            let (shard, lane) = (shard.clone(), self.clone());
            ring::spawn(async move {
                while let Some(left) = lane.unopened_until.get().checked_sub(ring::clock::now()) {
                    ring::sleep(left.max(Duration::from_millis(1))).await;
                }
                if !lane.jobs.borrow().is_empty() && !shard.is_stopping() {
                    supply(&shard, &lane);
                }
            });
        }
        Some(wait)
    }

    /// A connection is about to be opened. Where there is a rate for them, another core may have been faster since
    /// [`Lane::wait_to_open`]: then this answers for how long there is none.
    pub(crate) fn count_opening(&self, shard: &Shard) -> Result<(), Duration> {
        let settings = shard.settings();
        let rate = self.route(&settings).and_then(|route| self.shape(&settings, route).connection_rate);
        let Some(rate) = rate else { return Ok(()) };
        shard.leases.paces().take(Counted::Connections, &self.limit_key, rate, ring::clock::now())
    }

    /// Takes out the job for a destination of that name that has waited longest.
    pub(crate) fn pop_of(&self, shard: &Shard, name: &str) -> Option<Job> {
        let mut jobs = self.jobs.borrow_mut();
        let queue = shard.queue.borrow();
        let place = jobs.iter().position(|job| queue.name(job.destination) == Some(name))?;
        jobs.remove(place)
    }

    /// A lease for one more worker; without one, the shard stands in line from here on.
    fn take_lease(&self, shard: &Shard) -> Option<Lease> {
        if let Some(lease) = self.granted.take() {
            return Some(lease);
        }
        if self.line.get() == Line::Standing {
            return None;
        }
        let settings = shard.settings();
        let max = self.shape(&settings, self.route(&settings)?).connections_max;
        let lease = shard.leases.take(&self.limit_key, max);
        if lease.is_none() {
            shard.metrics.outbound.waits.one();
            self.line.set(Line::Standing);
            if self.workers.get() == 0 {
                // Others of this core may have them all: for them, nobody stands in line.
                for sister in shard.hops.lanes_of(&self.limit_key) {
                    if sister.workers.get() > 0 {
                        sister.sister_waits.set(true);
                        sister.arrived.notify_all();
                    }
                }
            }
        }
        lease
    }

    /// Tells the queue how much it may order; says by how much more than that is ordered.
    fn curb(&self, shard: &Rc<Shard>) -> u32 {
        let workers = self.workers.get() + u32::from(self.granted.borrow().is_some());
        // One on its way and one that waits to follow for each connection.
        let max = match self.line.get() {
            Line::Free => shard.settings().queue_limits.site_attempts_max,
            Line::Trying => workers * 2 + 1,
            Line::Standing => workers * 2,
        };
        let (mut orders, now) = (Vec::new(), facts::now());
        let excess = {
            let mut queue = shard.queue.borrow_mut();
            // One that the queue has forgotten has nothing waiting.
            let Some(site) = queue.site(&self.key) else { return 0 };
            let attempts = queue.attempts(site);
            let paced = match self.pace.get() {
                Pace::Free => max,
                Pace::Drip(more) => attempts.saturating_add(more),
                Pace::Paused(_) => 0,
            };
            queue.set_attempts_max(site, max.min(paced), now, &mut orders);
            attempts.saturating_sub(max)
        };
        schedule::follow(shard, orders);
        excess
    }

    /// The job that has waited longest.
    pub(crate) fn pop(&self) -> Option<Job> {
        self.jobs.borrow_mut().pop_front()
    }

    /// Takes out all jobs, when none of them can be tried.
    pub(crate) fn clear(&self) -> VecDeque<Job> {
        self.jobs.take()
    }

    /// Waits for a job; `None` when none came in time, or somebody else is to have the connection.
    pub(crate) async fn wait(&self, shard: &Shard, turn: &mut Turn, patience: Duration) -> Option<Job> {
        let until = ring::clock::now() + patience;
        loop {
            if shard.is_stopping() {
                return None;
            }
            let arrived = self.arrived.wait();
            if let Some(job) = self.pop() {
                return Some(job);
            }
            let left = until.saturating_sub(ring::clock::now());
            if left.is_zero() || turn.ends_idle(shard) {
                return None;
            }
            // That another lane wants the place of this connection, nobody tells.
            let left = if turn.seat.is_some() { left.min(SEAT_LOOK) } else { left };
            self.idle.set(self.idle.get() + 1);
            let _ = ring::timeout(left, arrived).await;
            self.idle.set(self.idle.get() - 1);
        }
    }
}

/// A worker's place in its lane, given back when it ends, however it ends.
pub(crate) struct Place {
    shard: Rc<Shard>,
    lane: Rc<Lane>,
}

impl Place {
    fn new(shard: &Rc<Shard>, lane: &Rc<Lane>) -> Self {
        lane.workers.set(lane.workers.get() + 1);
        shard.hops.workers.set(shard.hops.workers.get() + 1);
        Self { shard: shard.clone(), lane: lane.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Self { shard, lane } = self;
        shard.hops.workers.set(shard.hops.workers.get() - 1);
        lane.workers.set(lane.workers.get() - 1);
        if !lane.jobs.borrow().is_empty() {
            // Whoever came while this one was ending.
            supply(shard, lane);
        } else if lane.line.get() != Line::Free {
            lane.curb(shard);
        }
        shard.hops.tidy(shard, lane);
        if shard.is_stopping() {
            shard.changed.notify_all();
        }
    }
}

/// A connection's time, while others may want its place.
pub(crate) struct Turn {
    lane: Rc<Lane>,
    lease: Lease,
    /// Its place among the connections of its source, where there is a bound on them.
    seat: Option<Seat>,
    /// When it has had its turn.
    ends: Duration,
    /// When to ask again whether it is to go.
    again: Duration,
}

impl Turn {
    /// Begins now.
    pub(crate) fn new(shard: &Shard, lane: &Rc<Lane>, (lease, seat): (Lease, Option<Seat>)) -> Self {
        let ends = ring::clock::now() + shard.settings().connection_turn;
        Self { lane: lane.clone(), lease, seat, ends, again: Duration::ZERO }
    }

    /// Between two messages: whether the connection is to be closed, so that another core may have one.
    pub(crate) fn ends(&mut self, shard: &Shard) -> bool {
        // How long nobody is asked again who was told to stay: what a turn is worth, in small parts.
        const AGAIN: Duration = Duration::from_millis(20);
        if self.lane.sister_waits.get() && ring::clock::now() >= self.ends {
            self.lane.sister_waits.set(false);
            return true;
        }
        if self.is_seat_wanted() && ring::clock::now() >= self.ends {
            return true;
        }
        if !self.lease.is_pressed() || self.lease.is_leaving() {
            return self.lease.is_leaving();
        }
        let now = ring::clock::now();
        if now < self.again {
            return false;
        }
        self.again = now + AGAIN;
        self.ask(shard, if now < self.ends { Use::Busy } else { Use::Served })
    }

    /// The same for one that has nothing to send.
    fn ends_idle(&mut self, shard: &Shard) -> bool {
        self.lane.sister_waits.replace(false)
            || self.is_seat_wanted()
            || self.lease.is_leaving()
            || self.lease.is_pressed() && self.ask(shard, Use::Idle)
    }

    /// Whether mail to another site would like to leave from the same source.
    fn is_seat_wanted(&self) -> bool {
        self.seat.as_ref().is_some_and(Seat::is_wanted)
    }

    fn ask(&mut self, shard: &Shard, what: Use) -> bool {
        let ends = self.lease.should_go(what);
        if ends {
            shard.metrics.outbound.yields.one();
        }
        ends
    }
}
