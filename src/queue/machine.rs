//! The machine: events in, orders out.

mod attempts;
#[cfg(test)]
mod check;
mod entries;
mod times;

use std::{mem, time::Duration};

use hashbrown::HashMap;
use mail::{Category, QueueId, Status, Timestamp};

use self::attempts::Sorted;
use crate::{
    Accepted, AttemptId, Destination, Lot, MessageState, Order, Outcome, Redirect, Restored, Schedule, Site,
    State, Tenant, Times, Whereabouts,
    ages::Ages,
    clock::{self, Clock, NEVER},
    destination::Destinations,
    group::{Group, Message, Node},
    ids::Ids,
    site::{Phase, SiteRecord},
    slab::{Links, NIL, Slab},
    wheel::{Step, Wheel},
};

/// Upper bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attempts under way at once.
    pub attempts_max: u32,
    /// Attempts under way at once for one site, until [`Queue::set_attempts_max`] says otherwise.
    pub site_attempts_max: u32,
    /// Recipients in one attempt. Next hops take at least 100 (RFC 5321 §4.5.3.1.8).
    pub recipients_per_attempt_max: usize,
    /// Recipients queued at once; see [`Queue::room`].
    pub recipients_max: u64,
}

/// One shard's partition of the queue.
#[derive(Debug)]
pub struct Queue {
    pub(crate) limits: Limits,
    pub(crate) schedule: Schedule,
    seed: u64,
    pub(crate) clock: Clock,
    pub(crate) messages: Slab<Message>,
    pub(crate) groups: Slab<Group>,
    pub(crate) nodes: Slab<Node>,
    pub(crate) destinations: Destinations,
    pub(crate) ids: Ids,
    pub(crate) ages: Ages,
    /// Deferred groups, by their next try.
    retries: Wheel,
    /// Messages, by warning and give-up time.
    deadlines: Wheel,
    /// Destinations, by the end of their idle time.
    idle: Wheel,
    /// Sites, by probe.
    probes: Wheel,
    /// Recipients by [`State`].
    pub(crate) counts: [u64; 4],
    attempts: u32,
    /// Of the few messages that have any.
    pub(crate) times: HashMap<u32, Times>,
    older: Older,
    sorted: Sorted,
}

/// Whether all messages from before a restart are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Older {
    /// No: those that were ready stand aside, so that none is tried before an older one.
    Missing,
    /// Yes.
    In,
}

/// How an attempt ended as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Attempted,
    Postponed,
}

/// What a group is made of, besides its recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Standing {
    pub(crate) destination: u32,
    pub(crate) state: State,
    pub(crate) attempts: u16,
    pub(crate) due: u32,
    pub(crate) status: Option<Status>,
    pub(crate) category: Option<Category>,
}

/// Entries that one tick looks at in each wheel; the rest has its turn at once, in the next tick.
const TICK_WORK_MAX: usize = 4096;
/// How long an unused destination is kept.
const IDLE: Duration = Duration::from_secs(60);
/// With more destinations than this, an unused one is not kept.
const IDLE_DESTINATIONS_MAX: u32 = 65_536;

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts_max: 1000,
            site_attempts_max: 20,
            recipients_per_attempt_max: 100,
            recipients_max: 20_000_000,
        }
    }
}

impl Queue {
    /// An empty queue. The seed spreads retries and keys the table of names: a secret number in a
    /// server, a known one in a test, which it makes reproducible.
    pub fn new(limits: Limits, schedule: Schedule, seed: u64, now: Timestamp) -> Self {
        Self {
            limits,
            schedule,
            seed,
            clock: Clock::new(now),
            messages: Slab::new(),
            groups: Slab::new(),
            nodes: Slab::new(),
            destinations: Destinations::new(seed),
            ids: Ids::new(),
            ages: Ages::default(),
            retries: Wheel::new(),
            deadlines: Wheel::new(),
            idle: Wheel::new(),
            probes: Wheel::new(),
            counts: [0; 4],
            attempts: 0,
            times: HashMap::new(),
            older: Older::In,
            sorted: Sorted::default(),
        }
    }

    /// The number of a destination that is a site of its own, for mail of nobody in particular. See [`Destination`] for how
    /// long it is good.
    pub fn intern(&mut self, name: &str, now: Timestamp) -> Destination {
        self.intern_for((Tenant::default(), Lot::default()), name, Whereabouts::Own, now)
    }

    /// The number of a destination of a tenant's lot. It keeps the whereabouts that it was first interned with.
    pub fn intern_for(
        &mut self,
        owner: (Tenant, Lot),
        name: &str,
        whereabouts: Whereabouts,
        now: Timestamp,
    ) -> Destination {
        let tick = self.clock.now(now);
        let max = self.limits.site_attempts_max;
        let index = self.destinations.intern(name, owner, whereabouts, max, tick);
        if self.destinations.slab[index].is_idle() {
            self.on_idle(index, tick);
        }
        Destination(index)
    }

    /// The site of a destination has that name, for so long; then it is asked for again when it is to be tried.
    pub fn on_located(
        &mut self,
        destination: Destination,
        site: &str,
        good_for: Duration,
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) {
        let tick = self.clock.now(now);
        if self.destinations.slab.get(destination.0).is_some() {
            let until = clock::after(tick, good_for).max(tick + 1);
            self.destinations.locate(destination.0, site, self.limits.site_attempts_max, until);
            self.dispatch(orders);
        }
    }

    /// A destination is not where it was said to be: it is asked for before it is tried again.
    pub fn on_astray(&mut self, destination: Destination) {
        let found = self.destinations.slab.get(destination.0);
        if found.is_some_and(|found| found.located_until != NEVER) {
            self.destinations.slab[destination.0].located_until = 0;
        }
    }

    /// Where destinations are is to be asked anew, each before it is tried: what sites are called may have changed.
    pub fn forget_whereabouts(&mut self) {
        for index in 0..self.destinations.slab.end() {
            self.on_astray(Destination(index));
        }
    }

    /// Gives tenants so many turns where one without a weight has one.
    pub fn set_weights(&mut self, weights: impl IntoIterator<Item = (Tenant, u32)>) {
        self.destinations.weights = weights.into_iter().collect();
    }

    /// A message was accepted: its recipients are ready.
    ///
    /// # Panics
    /// When the id is queued already or a destination is not ours.
    pub fn on_accepted(&mut self, accepted: &Accepted<'_>, now: Timestamp, orders: &mut Vec<Order>) {
        let tick = self.clock.now(now);
        let Accepted { id, received_at, size, priority, kind, warning, times, recipients } = *accepted;
        let message = self.add_message(&MessageState {
            id,
            received_at,
            size,
            priority,
            kind,
            warning,
            give_up_at: None,
            times,
        });
        let release = self.release_tick(message).filter(|release| *release > tick);
        let state = if release.is_some() { State::Deferred } else { State::Ready };
        let due = release.unwrap_or(tick);
        let standing =
            |destination| Standing { destination, state, attempts: 0, due, status: None, category: None };
        match recipients {
            [] => {}
            [(recipient, destination)] => {
                self.add_group(message, &standing(destination.0), &[*recipient]);
            }
            recipients => {
                let list = recipients.iter().map(|(recipient, to)| (standing(to.0), *recipient));
                self.add_groups(message, list.collect());
            }
        }
        self.arm(message, tick);
        self.retire_if_ended(message, orders);
        self.dispatch(orders);
    }

    /// Messages from before a restart will come by [`Queue::restore_older`] while new ones are accepted and tried.
    pub fn begin_restore(&mut self) {
        self.older = Older::Missing;
    }

    /// Takes in a message from before a restart that is older than all that are in: it stands before them. So they come
    /// from the youngest to the oldest. What is due of it is not tried before [`Queue::end_restore`]: it would be out of
    /// turn. What becomes due later is.
    ///
    /// # Panics
    /// When [`Queue::begin_restore`] was not called, the id is queued already or a destination is not ours.
    pub fn restore_older(&mut self, restored: &Restored<'_>, now: Timestamp) {
        assert_eq!(self.older, Older::Missing, "an older message after the last one");
        let message = self.take_back(restored, now);
        let tick = self.clock.now(now);
        let mut next = self.messages[message].groups;
        while next != NIL {
            let index = next;
            next = self.groups[index].sibling_after;
            match self.groups[index].state {
                State::Ready => {
                    self.destinations.unlink(&mut self.groups, restored.message.priority, index);
                }
                // A retry that is overdue came before what is new, too.
                State::Deferred if self.groups[index].due <= tick => {
                    self.retries.remove(&mut self.groups, index);
                    self.set_state(index, State::Ready);
                }
                State::Deferred | State::Held => continue,
                State::Running => unreachable!("an attempt of before the restart is forgotten"),
            }
            self.destinations.push_aside(&mut self.groups, restored.message.priority, index);
        }
    }

    /// All messages from before the restart are in: those that are due are tried from the next [`Queue::on_tick`] on, and
    /// before what came meanwhile.
    pub fn end_restore(&mut self) {
        self.older = Older::In;
        self.destinations.end_aside(&mut self.groups);
    }

    /// Takes in a message from before a restart. What is due waits for the next [`Queue::on_tick`],
    /// so restore everything first; that also retires a message whose recipients have all ended.
    ///
    /// # Panics
    /// When the id is queued already or a destination is not ours.
    pub fn restore(&mut self, restored: &Restored<'_>, now: Timestamp) {
        self.take_back(restored, now);
    }

    /// Forgets a message as if it had never been here: somebody else has it from now on. Says whether that is done, which it is
    /// not while an attempt is under way.
    #[must_use]
    pub fn forget(&mut self, id: QueueId, now: Timestamp) -> bool {
        let tick = self.clock.now(now);
        let Some(message) = self.ids.find(&self.messages, id.to_bits()) else { return true };
        let mut next = self.messages[message].groups;
        while next != NIL {
            let group = &self.groups[next];
            if group.state == State::Running {
                return false;
            }
            next = group.sibling_after;
        }
        while self.messages[message].groups != NIL {
            self.remove_group(self.messages[message].groups, tick);
        }
        // To retire it is whose it is.
        self.retire_if_ended(message, &mut Vec::new());
        true
    }

    fn take_back(&mut self, restored: &Restored<'_>, now: Timestamp) -> u32 {
        let tick = self.clock.now(now);
        let message = self.add_message(&restored.message);
        self.extend_life(message, now);
        // A time that was noted while the clock was wrong must not keep a recipient waiting.
        let due_max = clock::after(tick, self.schedule.retry_max);
        let release = self.release_tick(message).filter(|release| *release > tick);
        let list = restored.recipients.iter().map(|recipient| {
            let due = self.clock.at(recipient.due).min(due_max);
            let (state, due) = match (recipient.state, release) {
                (State::Ready | State::Running, None) => (State::Ready, due),
                (State::Deferred, None) => (State::Deferred, due),
                (State::Ready | State::Running | State::Deferred, Some(release)) => {
                    (State::Deferred, release)
                }
                (State::Held, release) => (State::Held, release.unwrap_or(due)),
            };
            let standing = Standing {
                destination: recipient.destination.0,
                state,
                attempts: recipient.attempts,
                due,
                status: recipient.status,
                category: recipient.category,
            };
            (standing, recipient.recipient)
        });
        match list.len() {
            1 => {
                let (standing, recipient) = list.into_iter().next().expect("there is one");
                self.add_group(message, &standing, &[recipient]);
            }
            _ => {
                let list = list.collect();
                self.add_groups(message, list);
            }
        }
        if self.messages[message].groups == NIL {
            self.messages[message].due = tick;
            self.deadlines.insert(&mut self.messages, message);
        } else {
            self.arm(message, tick);
        }
        message
    }

    /// An attempt ended. A recipient without an outcome counts as deferred.
    ///
    /// # Panics
    /// When this attempt is not under way.
    pub fn on_attempted(
        &mut self,
        attempt: AttemptId,
        outcomes: &[(u32, Outcome)],
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) {
        self.end_attempt(attempt, outcomes, End::Attempted, now, orders);
        self.dispatch(orders);
    }

    /// An attempt could not begin, for want of a lease or in a shutdown: nothing was tried, nothing
    /// is counted. First lower the limit that forbids it, or it is ordered again at once.
    ///
    /// # Panics
    /// When this attempt is not under way.
    pub fn on_postponed(&mut self, attempt: AttemptId, now: Timestamp, orders: &mut Vec<Order>) {
        self.end_attempt(attempt, &[], End::Postponed, now, orders);
        self.dispatch(orders);
    }

    /// An attempt could not begin because its recipients go another way by now; see [`Queue::redirect`].
    ///
    /// # Panics
    /// When this attempt is not under way or a destination is not ours.
    pub fn on_diverted(
        &mut self,
        attempt: AttemptId,
        redirects: &[Redirect],
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) -> u64 {
        let group = self.groups.get(attempt.0).expect("an attempt ended that was not under way");
        let id = QueueId::from_bits(self.messages[group.message].id);
        self.end_attempt(attempt, &[], End::Postponed, now, orders);
        self.redirect(id, redirects, now, orders)
    }

    /// A site could not be reached at all: leave it alone for a while, then probe it with one
    /// attempt. Call this before [`Queue::on_attempted`] for the attempt that found out.
    pub fn on_site_failed(&mut self, site: Site, now: Timestamp) {
        let tick = self.clock.now(now);
        let Site(index) = site;
        let Some(site) = self.destinations.sites.get(index) else { return };
        // Attempts that began before the first of them failed tell nothing new.
        if matches!(site.phase, Phase::Blocked(until) if until > tick) {
            return;
        }
        let failures = site.failures.saturating_add(1);
        let until = clock::after(tick, self.schedule.destination_wait(failures, index, self.seed));
        let site = &mut self.destinations.sites[index];
        site.failures = failures;
        site.phase = Phase::Blocked(until);
        if site.links != Links::NONE {
            self.probes.remove(&mut self.destinations.sites, index);
        }
        self.destinations.sites[index].due = until;
        self.probes.insert(&mut self.destinations.sites, index);
    }

    /// Time has passed. Does a bounded amount of work; [`Queue::wake_after`] says when to call again.
    pub fn on_tick(&mut self, now: Timestamp, orders: &mut Vec<Order>) {
        let tick = self.clock.now(now);
        for _ in 0..TICK_WORK_MAX {
            match self.probes.step(&mut self.destinations.sites, tick) {
                Step::Due(site) => self.on_probe(site),
                Step::Moved => {}
                Step::Nothing => break,
            }
        }
        for _ in 0..TICK_WORK_MAX {
            match self.idle.step(&mut self.destinations.slab, tick) {
                Step::Due(destination) => self.on_idle_end(destination, tick),
                Step::Moved => {}
                Step::Nothing => break,
            }
        }
        for _ in 0..TICK_WORK_MAX {
            match self.deadlines.step(&mut self.messages, tick) {
                Step::Due(message) => self.on_deadline(message, tick, orders),
                Step::Moved => {}
                Step::Nothing => break,
            }
        }
        for _ in 0..TICK_WORK_MAX {
            match self.retries.step(&mut self.groups, tick) {
                Step::Due(group) => self.make_ready(group),
                Step::Moved => {}
                Step::Nothing => break,
            }
        }
        self.dispatch(orders);
    }

    /// Sets how many attempts may be under way at once for a site (a lease granted, a throttle, zero for a pause), as long
    /// as the queue knows it.
    pub fn set_attempts_max(
        &mut self,
        Site(site): Site,
        attempts_max: u32,
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) {
        self.clock.now(now);
        if self.destinations.sites.get(site).is_some() {
            self.destinations.sites[site].attempts_max = attempts_max;
            self.destinations.nominate(site);
            self.dispatch(orders);
        }
    }

    /// Takes new limits, as after a change of configuration, or to stop all attempts before a shutdown.
    /// Sites with a limit of their own keep it.
    pub fn set_limits(&mut self, limits: Limits, now: Timestamp, orders: &mut Vec<Order>) {
        self.clock.now(now);
        let old = mem::replace(&mut self.limits, limits);
        for site in 0..self.destinations.sites.end() {
            let has_default = |site: &SiteRecord| site.attempts_max == old.site_attempts_max;
            if self.destinations.sites.get(site).is_some_and(has_default) {
                self.destinations.sites[site].attempts_max = limits.site_attempts_max;
                self.destinations.nominate(site);
            }
        }
        self.dispatch(orders);
    }

    /// Takes a new schedule; give-up times and waits already set stay.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        self.schedule = schedule;
    }

    /// When to call [`Queue::on_tick`] next; never earlier than `now`. It may turn out that nothing is due.
    pub fn wake_after(&self, now: Timestamp) -> Option<Timestamp> {
        if self.destinations.is_waiting(self.limits.classes_beside(self.attempts)) {
            return Some(now);
        }
        let next = [&self.retries, &self.deadlines, &self.idle, &self.probes]
            .into_iter()
            .filter_map(Wheel::next)
            .min()?;
        let mut clock = self.clock;
        clock.now(now);
        Some(clock.time(next).max(now))
    }

    /// How many more recipients may be accepted; below what a message needs, refuse it for now.
    pub fn room(&self) -> u64 {
        self.limits.recipients_max.saturating_sub(self.counts.iter().sum())
    }

    /// The name of a destination.
    pub fn name(&self, destination: Destination) -> Option<&str> {
        self.destinations.slab.get(destination.0).map(|found| &*found.name)
    }

    /// The site that a destination belongs to, once it is located.
    pub fn site_of(&self, destination: Destination) -> Option<Site> {
        self.destinations
            .slab
            .get(destination.0)
            .map(|found| found.site)
            .filter(|site| *site != NIL)
            .map(Site)
    }

    /// Attempts under way at a site.
    pub fn attempts(&self, Site(site): Site) -> u32 {
        self.destinations.sites.get(site).map_or(0, |found| found.attempts)
    }

    /// All tenants' destinations of that name, of all lots.
    pub fn find_all(&self, name: &str) -> Vec<Destination> {
        let owners = self.destinations.owners.keys();
        owners.filter_map(|owner| self.destinations.find(*owner, name).map(Destination)).collect()
    }

    /// Of which lot the mail is that goes to a destination.
    pub fn lot(&self, destination: Destination) -> Option<Lot> {
        self.destinations.slab.get(destination.0).map(|found| found.lot)
    }

    /// Whose mail goes to a destination.
    pub fn tenant(&self, destination: Destination) -> Option<Tenant> {
        self.destinations.slab.get(destination.0).map(|found| found.tenant)
    }

    /// The site of that name, if the queue knows it.
    pub fn site(&self, name: &str) -> Option<Site> {
        self.destinations.site(name).map(Site)
    }

    /// The name of a site.
    pub fn site_name(&self, Site(site): Site) -> Option<&str> {
        self.destinations.sites.get(site).map(|found| &*found.name)
    }
}

fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.secs()).unwrap_or(u32::MAX)
}

/// Whole seconds, rounded up.
fn seconds_up(time: Timestamp) -> u32 {
    seconds(time.saturating_add(Duration::from_micros(999_999)))
}
