//! Lanes: what waits for a destination, and the workers that have connections there.
//!
//! The queue orders attempts, within its limits. Here each goes into the lane of its destination, where a worker
//! with an open connection takes it, or a new worker is started for it. Each shard has its share of the connections
//! that the host may have to a destination; where there are fewer connections than shards, a lease decides.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use delivery::{Outcome, RouteIndex, TlsMemory, TlsMemoryLimits, Via};
use mail::{QueueId, Status};
use queue::{AttemptId, Destination, Recipients};
use ring::Event;
use watch::events::SessionPanicked;

use crate::{
    attempt, facts, outcomes,
    reroute::{self, Generation},
    shard::Shard,
};

/// All lanes of one core.
pub(crate) struct Hops {
    lanes: RefCell<HashMap<Arc<str>, Rc<Lane>>>,
    /// Which hosts have broken TLS.
    pub(crate) tls_memory: RefCell<TlsMemory>,
    /// Workers in all lanes.
    pub(crate) workers: Cell<usize>,
}

impl Default for Hops {
    fn default() -> Self {
        Self {
            lanes: RefCell::default(),
            tls_memory: RefCell::new(TlsMemory::new(TlsMemoryLimits::default())),
            workers: Cell::new(0),
        }
    }
}

/// What waits for one destination.
pub(crate) struct Lane {
    pub(crate) key: Arc<str>,
    jobs: RefCell<VecDeque<Job>>,
    workers: Cell<u32>,
    /// Workers that have a connection and nothing to do.
    idle: Cell<u32>,
    arrived: Event,
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
        Self { attempt, id, destination, recipients, number, generation }
    }
}

/// Gives an attempt to the lane of its destination.
pub(crate) fn assign(shard: &Rc<Shard>, job: Job) {
    if shard.is_stopping() {
        return postpone(shard, job);
    }
    let name: Option<Box<str>> = shard.queue.borrow().name(job.destination).map(Into::into);
    let Some(name) = name else { return postpone(shard, job) };
    let settings = shard.settings();
    let Some(index) = settings.routes.route_of_key(&name) else {
        let shard = shard.clone();
        ring::spawn(async move { reroute::divert(&shard, job, end_unrouted).await });
        return;
    };
    let route = settings.routes.route(index);
    match &route.via {
        Via::Discard => return outcomes::end_unattempted(shard, job, &Outcome::discarded()),
        Via::Hold => {
            let text = "its route holds mail; change the route to send it";
            return outcomes::end_unattempted(shard, job, &outcomes::deferred(Status(4, 3, 2), text));
        }
        Via::Mx(_) | Via::NextHop(_) => {}
    }
    let lane = shard.hops.lane(&name);
    lane.jobs.borrow_mut().push_back(job);
    let wanted = lane.jobs.borrow().len() > lane.idle.get() as usize;
    if wanted && lane.workers.get() < share(shard, index) {
        start(shard, &lane);
    } else {
        lane.arrived.notify_one();
    }
}

/// No route is for this mail: it waits for one.
fn end_unrouted(shard: &Rc<Shard>, job: Job) {
    let text = "no route is for this domain; it waits for one";
    outcomes::end_unattempted(shard, job, &outcomes::deferred(Status(4, 3, 5), text));
}

/// How many connections this shard may have of those that the host may have.
pub(crate) fn share(shard: &Shard, route: RouteIndex) -> u32 {
    let max = shard.settings().routes.route(route).options.concurrency_max;
    (max / shard.shards as u32).max(1)
}

fn start(shard: &Rc<Shard>, lane: &Rc<Lane>) {
    let place = Place::new(shard, lane);
    // What a worker has taken on; told to the queue if it panics.
    let taken: Rc<RefCell<Vec<AttemptId>>> = Rc::default();
    let (after, again) = (shard.clone(), taken.clone());
    let worker = attempt::work(shard.clone(), lane.clone(), place, taken);
    ring::spawn_caught(worker, move |panic| {
        after.metrics.executor.panicked.one();
        let nobody = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        SessionPanicked { peer: nobody, error: &panic }.emit(ring::clock::unix_micros());
        for attempt in again.take() {
            let mut orders = Vec::new();
            // Without an outcome, the recipients count as deferred.
            after.queue.borrow_mut().on_attempted(attempt, &[], facts::now(), &mut orders);
            crate::schedule::follow(&after, orders);
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
    crate::schedule::follow(shard, orders);
}

impl Hops {
    fn lane(&self, key: &str) -> Rc<Lane> {
        if let Some(lane) = self.lanes.borrow().get(key) {
            return lane.clone();
        }
        let key: Arc<str> = key.into();
        let lane = Rc::new(Lane {
            key: key.clone(),
            jobs: RefCell::default(),
            workers: Cell::new(0),
            idle: Cell::new(0),
            arrived: Event::new(),
        });
        self.lanes.borrow_mut().insert(key, lane.clone());
        lane
    }

    /// Takes the jobs out of all lanes that are meant.
    pub(crate) fn take_jobs(&self, is_meant: impl Fn(&str) -> bool) -> Vec<Job> {
        let lanes = self.lanes.borrow();
        lanes.values().filter(|lane| is_meant(&lane.key)).flat_map(|lane| lane.clear()).collect()
    }

    /// Wakes idle workers, so that they see that the core stops.
    pub(crate) fn stop(&self) {
        self.lanes.borrow().values().for_each(|lane| lane.arrived.notify_all());
    }
}

impl Lane {
    /// The job that has waited longest.
    pub(crate) fn pop(&self) -> Option<Job> {
        self.jobs.borrow_mut().pop_front()
    }

    /// Takes out all jobs, when none of them can be tried.
    pub(crate) fn clear(&self) -> VecDeque<Job> {
        self.jobs.take()
    }

    /// Waits for a job; `None` when none came in time.
    pub(crate) async fn wait(&self, shard: &Shard, patience: Duration) -> Option<Job> {
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
            if left.is_zero() {
                return None;
            }
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
        let waiting = !lane.jobs.borrow().is_empty();
        if waiting {
            // Whoever came while this one was ending.
            start(shard, lane);
        } else if lane.workers.get() == 0 {
            shard.hops.lanes.borrow_mut().remove(&lane.key);
        }
        if shard.is_stopping() {
            shard.changed.notify_all();
        }
    }
}
