//! The machine: events in, orders out.

use std::{mem, time::Duration};

use hashbrown::HashMap;
use mail::{Category, QueueId, Status, Timestamp};

use crate::{
    Accepted, AttemptId, Deferral, Destination, Kind, Lot, MessageState, Order, Outcome, Recipients,
    Redirect, Restored, ReturnReason, Schedule, Site, State, Tenant, Times, Warning, Whereabouts,
    ages::Ages,
    clock::{self, Clock, NEVER},
    destination::Destinations,
    group::{self, Group, Message, Node, PackedStatus, Tagged, Vacant},
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

/// Recipients of an ended attempt by what becomes of them. Kept to save allocations.
#[derive(Debug, Default)]
struct Sorted {
    /// Of each why, when it is said.
    kept: Vec<(Option<Deferral>, u32)>,
    held: Vec<u32>,
    untold: Vec<u32>,
    failed: Vec<u32>,
    removed: Vec<u32>,
    /// Those of `kept` that are deferred alike.
    places: Vec<u32>,
    /// Why the last of those who are held was deferred.
    last: Option<Deferral>,
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

/// Attempts.
impl Queue {
    /// Begins attempts as long as one may begin.
    pub(crate) fn dispatch(&mut self, orders: &mut Vec<Order>) {
        let tick = self.clock.tick();
        while let classes @ 1.. = self.limits.classes_beside(self.attempts) {
            let Some(index) = self.destinations.next(classes, tick) else { break };
            let priority = self.messages[self.groups[index].message].priority;
            self.destinations.unlink(&mut self.groups, priority, index);
            self.set_state(index, State::Running);
            orders.push(self.begin_attempt(index));
            self.destinations.enlist(self.groups[index].destination);
        }
        if self.limits.attempts_max == 0 {
            // Whoever stands still does not look, either.
            return;
        }
        let sought = self.destinations.sought.drain(..);
        orders.extend(sought.map(|destination| Order::Locate { destination: Destination(destination) }));
    }

    /// The attempt of a group that is running from here on.
    pub(crate) fn begin_attempt(&mut self, index: u32) -> Order {
        let group = &self.groups[index];
        let destination = group.destination;
        let order = Order::Attempt {
            attempt: AttemptId(index),
            id: QueueId::from_bits(self.messages[group.message].id),
            destination: Destination(destination),
            recipients: self.recipients(group.recipients),
            number: group.attempts.saturating_add(1),
        };
        self.attempts += 1;
        let destination = &mut self.destinations.slab[destination];
        destination.attempts += 1;
        // What is held may be called for before anybody has asked where it goes.
        if destination.site != NIL {
            self.destinations.sites[destination.site].attempts += 1;
        }
        order
    }

    fn end_attempt(
        &mut self,
        AttemptId(index): AttemptId,
        outcomes: &[(u32, Outcome)],
        end: End,
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) {
        let tick = self.clock.now(now);
        let group = self.groups.get(index).filter(|group| group.state == State::Running);
        let Group { message, destination, attempts, status, .. } =
            *group.expect("an attempt ended that was not under way");
        let mut sorted = mem::take(&mut self.sorted);
        sorted.fill(group::recipients(&self.nodes, self.groups[index].recipients), outcomes);
        self.attempts -= 1;
        let record = &mut self.destinations.slab[destination];
        record.attempts -= 1;
        let site = record.site;
        if site != NIL {
            let site = &mut self.destinations.sites[site];
            site.attempts -= 1;
            if end == End::Attempted {
                site.on_attempted(outcomes);
            }
        }
        if end == End::Postponed {
            self.destinations.give_back(destination, self.messages[message].priority);
        }
        self.remove_group(index, tick);

        let id = QueueId::from_bits(self.messages[message].id);
        let attempts = attempts.saturating_add(u16::from(end == End::Attempted));
        let standing = |deferral: Option<Deferral>| Standing {
            destination,
            state: State::Held,
            attempts,
            due: tick,
            status: deferral.map_or_else(|| status.get(), |deferral| Some(deferral.status)),
            category: deferral.map_or_else(|| status.category(), |deferral| deferral.category),
        };
        if !sorted.untold.is_empty() {
            orders.push(Order::Tell { id, recipients: Recipients::from(&*sorted.untold) });
        }
        if !sorted.failed.is_empty() {
            let recipients = Recipients::from(&*sorted.failed);
            orders.push(Order::Return { id, recipients, reason: ReturnReason::Failed });
        }
        if !sorted.removed.is_empty() {
            orders.push(Order::Remove { id, recipients: Recipients::from(&*sorted.removed) });
        }
        if !sorted.held.is_empty() {
            let standing = standing(sorted.last);
            self.add_group(message, &standing, &sorted.held);
            self.note(id, &sorted.held, &standing, orders);
        }
        // Nearly always all of them are deferred for the same reason.
        sorted.kept.sort_unstable();
        for alike in sorted.kept.chunk_by(|(one, _), (other, _)| one == other) {
            let deferral = alike[0].0;
            sorted.places.clear();
            sorted.places.extend(alike.iter().map(|(_, place)| *place));
            self.keep(message, standing(deferral), deferral, &sorted.places, end, orders);
        }
        // Its deadline came during the attempt, and the clock was set back after that.
        if !sorted.kept.is_empty()
            && self.messages[message].groups != NIL
            && self.messages[message].links == Links::NONE
        {
            self.arm(message, tick);
        }
        self.sorted = sorted;
        self.destinations.enlist(destination);
        // Where it goes may be being asked for; others there need not wait for that.
        self.destinations.nominate(site);
        self.retire_if_ended(message, orders);
    }

    /// What becomes of recipients who have not got the message, and may yet.
    fn keep(
        &mut self,
        message: u32,
        mut standing: Standing,
        deferral: Option<Deferral>,
        places: &[u32],
        end: End,
        orders: &mut Vec<Order>,
    ) {
        let (id, tick) = (QueueId::from_bits(self.messages[message].id), self.clock.tick());
        let give_up_at = self.clock.at(self.messages[message].give_up_at());
        let sooner = deferral.and_then(|deferral| deferral.give_up).map(|time| {
            let message_at = self.messages[message].received_at();
            let begin =
                self.times_of(message).release_at.map_or(message_at, |release| release.max(message_at));
            self.clock.at(begin.saturating_add(time))
        });
        if give_up_at <= tick || sooner.is_some_and(|sooner| sooner <= tick) {
            let reason = self.end_reason(message, tick);
            orders.push(Order::Return { id, recipients: Recipients::from(places), reason });
        } else if end == End::Attempted {
            let wait = deferral.map(|deferral| deferral.wait).unwrap_or_default();
            let wait = self.schedule.wait_of(wait, standing.attempts, id, self.seed);
            standing.state = State::Deferred;
            standing.due = clock::after(tick, wait).min(sooner.unwrap_or(NEVER));
            self.add_group(message, &standing, places);
            self.note(id, places, &standing, orders);
        } else {
            standing.state = State::Running;
            let group = self.add_group(message, &standing, places);
            self.set_state(group, State::Ready);
            let priority = self.messages[message].priority;
            self.destinations.push_front(&mut self.groups, priority, group);
        }
    }

    pub(crate) fn note(&self, id: QueueId, recipients: &[u32], standing: &Standing, orders: &mut Vec<Order>) {
        orders.push(Order::Note {
            id,
            recipients: recipients.into(),
            destination: Destination(standing.destination),
            state: standing.state,
            attempts: standing.attempts,
            due: self.clock.time(standing.due),
            category: standing.category,
        });
    }
}

/// What time brings.
impl Queue {
    /// A deferred group is due; it has left the wheel.
    fn make_ready(&mut self, index: u32) {
        self.set_state(index, State::Ready);
        let priority = self.messages[self.groups[index].message].priority;
        self.destinations.push(&mut self.groups, priority, index);
    }

    /// Sets the next deadline of a message that is not in the wheel.
    pub(crate) fn arm(&mut self, index: u32, tick: u32) {
        let message = &self.messages[index];
        let give_up = self.clock.at(message.give_up_at());
        let due = match (message.warning, self.warn_tick(index)) {
            (Warning::Wanted, Some(warn)) if message.kind == Kind::Message => {
                // Overdue, because it was held or we were down: first let it be tried.
                let grace = self.schedule.grace.max(Duration::from_secs(1));
                let warn = if warn > tick { warn } else { clock::after(tick, grace) };
                warn.min(give_up)
            }
            (Warning::Wanted | Warning::Unwanted | Warning::Sent, _) => give_up,
        };
        self.messages[index].due = due;
        self.deadlines.insert(&mut self.messages, index);
    }

    /// Whether the sender should have been warned by now.
    fn is_overdue(&self, index: u32, tick: u32) -> bool {
        let message = &self.messages[index];
        message.warning == Warning::Wanted
            && message.kind == Kind::Message
            && self.warn_tick(index).is_some_and(|warn| warn <= tick)
    }

    fn warn_tick(&self, index: u32) -> Option<u32> {
        let times = self.times_of(index);
        if let Some(warn_at) = times.warn_at {
            return Some(self.clock.at(warn_at));
        }
        let after = self.schedule.warn_after?;
        let begin = times.release_at.max(Some(self.messages[index].received_at()))?;
        Some(self.clock.at(begin.saturating_add(after)))
    }

    fn times_of(&self, index: u32) -> Times {
        self.times.get(&index).copied().unwrap_or_default()
    }

    pub(crate) fn release_tick(&self, index: u32) -> Option<u32> {
        self.times_of(index).release_at.map(|release| self.clock.at(release))
    }

    fn is_expired(&self, index: u32, tick: u32) -> bool {
        self.times_of(index).return_at.is_some_and(|end| self.clock.at(end) <= tick)
    }

    /// Why a message is returned whose time is up.
    fn end_reason(&self, index: u32, tick: u32) -> ReturnReason {
        if self.is_expired(index, tick) { ReturnReason::Expired } else { ReturnReason::GaveUp }
    }

    pub(crate) fn disarm(&mut self, index: u32) {
        if self.messages[index].links != Links::NONE {
            self.deadlines.remove(&mut self.messages, index);
        }
    }

    /// Sees to it that a message is tried for a while from now on before it is given up.
    pub(crate) fn extend_life(&mut self, index: u32, now: Timestamp) {
        let times = self.times_of(index);
        let message = &mut self.messages[index];
        let grace = self.schedule.grace.min(self.schedule.lifetime(message.kind));
        let begin = times.release_at.map_or(now, |release| release.max(now));
        message.give_up = message.give_up.max(seconds_up(begin.saturating_add(grace)));
        if let Some(end) = times.return_at {
            message.give_up = message.give_up.min(seconds_up(end));
        }
    }

    /// The warning or the give-up time of a message has come; it has left the wheel.
    fn on_deadline(&mut self, index: u32, tick: u32, orders: &mut Vec<Order>) {
        if self.messages[index].groups == NIL {
            return self.retire_if_ended(index, orders); // Restored without a recipient.
        }
        let message = &self.messages[index];
        let id = QueueId::from_bits(message.id);
        let give_up = self.clock.at(message.give_up_at()) <= tick;
        let expired = give_up && self.is_expired(index, tick);
        let reason = self.end_reason(index, tick);
        let mut recipients = Vec::new();
        let mut next = message.groups;
        while next != NIL {
            let index = next;
            let group = &self.groups[index];
            next = group.sibling_after;
            // What is held stays; an attempt under way ends first.
            let meant = match group.state {
                State::Ready | State::Deferred => true,
                State::Running => !give_up,
                State::Held => expired,
            };
            if meant {
                recipients.extend(group::recipients(&self.nodes, group.recipients).map(Tagged::recipient));
                if give_up {
                    self.remove_group(index, tick);
                }
            }
        }
        if give_up {
            if !recipients.is_empty() {
                let recipients = Recipients::from(&*recipients);
                orders.push(Order::Return { id, recipients, reason });
            }
            self.retire_if_ended(index, orders);
            return;
        }
        if !recipients.is_empty() && self.is_overdue(index, tick) {
            self.messages[index].warning = Warning::Sent;
            orders.push(Order::Warn { id, recipients: Recipients::from(&*recipients) });
        }
        self.arm(index, tick);
    }

    /// A site is to be left alone no longer; it has left the wheel.
    fn on_probe(&mut self, index: u32) {
        let site = &mut self.destinations.sites[index];
        if let Phase::Blocked(_) = site.phase {
            site.phase = Phase::Probing;
        }
        self.destinations.nominate(index);
        self.destinations.release_site(index);
    }

    /// Perhaps a destination has been unused for long enough; it has left the wheel.
    fn on_idle_end(&mut self, index: u32, tick: u32) {
        let keep = self.idle_time();
        let destination = &self.destinations.slab[index];
        if !destination.is_idle() {
            return;
        }
        let end = clock::after(destination.idle_since, keep);
        if end > tick {
            self.set_idle_end(index, end);
        } else if destination.is_unused() {
            self.destinations.release(index);
        } else {
            self.set_idle_end(index, clock::after(tick, keep));
        }
    }

    /// Nothing is queued for a destination any more, or nothing yet.
    fn on_idle(&mut self, index: u32, tick: u32) {
        let keep = self.idle_time();
        let destination = &mut self.destinations.slab[index];
        destination.idle_since = tick;
        // If it is in the wheel, its time is looked at again when that comes.
        if destination.links == Links::NONE {
            self.set_idle_end(index, clock::after(tick, keep));
        }
    }

    /// Sets when a destination that is not in the wheel is looked at.
    fn set_idle_end(&mut self, index: u32, due: u32) {
        self.destinations.slab[index].due = due;
        self.idle.insert(&mut self.destinations.slab, index);
    }

    fn idle_time(&self) -> Duration {
        if self.destinations.slab.len() > IDLE_DESTINATIONS_MAX { Duration::from_millis(100) } else { IDLE }
    }
}

/// Slab entries.
impl Queue {
    fn add_message(&mut self, state: &MessageState) -> u32 {
        let MessageState { id, received_at, size, priority, kind, warning, give_up_at, times } = *state;
        let begin = times.release_at.map_or(received_at, |release| release.max(received_at));
        let give_up = give_up_at.unwrap_or_else(|| begin.saturating_add(self.schedule.lifetime(kind)));
        let give_up = times.return_at.map_or(give_up, |end| end.min(give_up));
        let received = seconds(received_at);
        let message = self.messages.insert(Message {
            id: id.to_bits(),
            received,
            give_up: seconds_up(give_up),
            size: u32::try_from(size).unwrap_or(u32::MAX),
            groups: NIL,
            links: Links::NONE,
            due: 0,
            priority,
            kind,
            warning,
            vacant: Vacant::No,
        });
        if times != Times::default() {
            self.times.insert(message, times);
        }
        self.ids.insert(&self.messages, id.to_bits(), message);
        self.ages.insert(received);
        message
    }

    /// Makes groups of what stands alike, none larger than an attempt may be.
    pub(crate) fn add_groups(&mut self, message: u32, mut list: Vec<(Standing, u32)>) {
        list.sort_unstable();
        let mut places = Vec::with_capacity(list.len());
        for alike in list.chunk_by(|(one, _), (other, _)| one == other) {
            for part in alike.chunks(self.limits.recipients_per_attempt_max.max(1)) {
                places.clear();
                places.extend(part.iter().map(|(_, place)| *place));
                self.add_group(message, &part[0].0, &places);
            }
        }
    }

    /// Makes a group, and puts it where its state says.
    pub(crate) fn add_group(&mut self, message: u32, standing: &Standing, recipients: &[u32]) -> u32 {
        let Standing { destination, state, attempts, due, status, category } = *standing;
        let recipients = self.add_recipients(recipients);
        let sibling_after = self.messages[message].groups;
        let index = self.groups.insert(Group {
            message,
            sibling_before: NIL,
            sibling_after,
            destination,
            links: Links::NONE,
            due,
            recipients: recipients.0,
            status: PackedStatus::new(status, category),
            attempts,
            state,
        });
        if sibling_after != NIL {
            self.groups[sibling_after].sibling_before = index;
        }
        self.messages[message].groups = index;
        let is_ours = self.destinations.slab.get(destination).is_some();
        assert!(is_ours, "a recipient for a destination that is not ours");
        self.counts[state as usize] += u64::from(recipients.1);
        *self.destinations.slab[destination].count_mut(state) += recipients.1;
        match state {
            State::Ready => {
                self.destinations.push(&mut self.groups, self.messages[message].priority, index);
            }
            State::Deferred => self.retries.insert(&mut self.groups, index),
            State::Running | State::Held => {}
        }
        index
    }

    /// Takes a group out of everything. Its message may be left without any.
    pub(crate) fn remove_group(&mut self, index: u32, tick: u32) {
        let (message, state) = (self.groups[index].message, self.groups[index].state);
        match state {
            State::Ready => {
                self.destinations.unlink(&mut self.groups, self.messages[message].priority, index);
            }
            State::Deferred => self.retries.remove(&mut self.groups, index),
            State::Running | State::Held => {}
        }
        let group = self.groups.remove(index);
        match group.sibling_before {
            NIL => self.messages[message].groups = group.sibling_after,
            before => self.groups[before].sibling_after = group.sibling_after,
        }
        if group.sibling_after != NIL {
            self.groups[group.sibling_after].sibling_before = group.sibling_before;
        }
        let recipients = self.remove_recipients(group.recipients);
        self.counts[state as usize] -= u64::from(recipients);
        let destination = &mut self.destinations.slab[group.destination];
        *destination.count_mut(state) -= recipients;
        if destination.is_idle() {
            self.on_idle(group.destination, tick);
        }
    }

    /// Forgets a message whose recipients have all ended.
    pub(crate) fn retire_if_ended(&mut self, index: u32, orders: &mut Vec<Order>) {
        if self.messages[index].groups != NIL {
            return;
        }
        self.disarm(index);
        let id = self.messages[index].id;
        self.ids.remove(id, index);
        self.times.remove(&index);
        let message = self.messages.remove(index);
        self.ages.remove(message.received);
        orders.push(Order::Retire { id: QueueId::from_bits(id) });
    }

    /// Recounts a group's recipients under another state. Lists are the caller's affair.
    fn set_state(&mut self, index: u32, state: State) {
        let group = &mut self.groups[index];
        let old = mem::replace(&mut group.state, state);
        let recipients = group::recipients(&self.nodes, group.recipients).count() as u32;
        self.counts[old as usize] -= u64::from(recipients);
        self.counts[state as usize] += u64::from(recipients);
        let destination = &mut self.destinations.slab[group.destination];
        *destination.count_mut(old) -= recipients;
        *destination.count_mut(state) += recipients;
    }

    /// Recipients as a group keeps them, and how many they are.
    fn add_recipients(&mut self, recipients: &[u32]) -> (Tagged, u32) {
        assert!(recipients.iter().all(|recipient| *recipient < Tagged::END), "a place of 2^29 or more");
        if let [one] = recipients {
            return (Tagged(one | Tagged::SINGLE), 1);
        }
        let mut first = NIL;
        for recipient in recipients.iter().rev() {
            first = self.nodes.insert(Node { recipient: Tagged(*recipient), after: first });
        }
        let first = if first == NIL { Tagged::NOBODY } else { Tagged(first) };
        (first, recipients.len() as u32)
    }

    fn remove_recipients(&mut self, first: Tagged) -> u32 {
        if first.has(Tagged::SINGLE) {
            return 1;
        }
        let (mut next, mut count) = (first.0, 0);
        while next != NIL {
            next = self.nodes.remove(next).after;
            count += 1;
        }
        count
    }

    pub(crate) fn recipients(&self, first: Tagged) -> Recipients {
        if first.has(Tagged::SINGLE) {
            return Recipients::One(first.recipient());
        }
        Recipients::Many(group::recipients(&self.nodes, first).map(Tagged::recipient).collect())
    }
}

impl Sorted {
    fn fill(&mut self, recipients: impl Iterator<Item = Tagged>, outcomes: &[(u32, Outcome)]) {
        self.kept.clear();
        for list in [&mut self.held, &mut self.untold, &mut self.failed, &mut self.removed] {
            list.clear();
        }
        self.last = None;
        for (i, tagged) in recipients.enumerate() {
            let place = tagged.recipient();
            // Outcomes nearly always come in the order of the recipients.
            let outcome = outcomes.get(i).filter(|(other, _)| *other == place);
            let outcome = outcome.or_else(|| outcomes.iter().find(|(other, _)| *other == place));
            match outcome.map(|(_, outcome)| *outcome) {
                Some(Outcome::Delivered) => {}
                Some(Outcome::Untold) => self.untold.push(place),
                Some(_) | None if tagged.has(Tagged::REMOVE) => self.removed.push(place),
                Some(Outcome::Failed) => self.failed.push(place),
                outcome @ (Some(Outcome::Deferred(_)) | None) => {
                    let deferral = match outcome {
                        Some(Outcome::Deferred(deferral)) => Some(deferral),
                        Some(Outcome::Delivered | Outcome::Untold | Outcome::Failed) | None => None,
                    };
                    if tagged.has(Tagged::HOLD) {
                        self.held.push(place);
                        self.last = deferral.or(self.last);
                    } else {
                        self.kept.push((deferral, place));
                    }
                }
            }
        }
    }
}

fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.secs()).unwrap_or(u32::MAX)
}

/// Whole seconds, rounded up.
fn seconds_up(time: Timestamp) -> u32 {
    seconds(time.saturating_add(Duration::from_micros(999_999)))
}

#[cfg(test)]
impl Queue {
    /// What must hold between any two calls.
    pub(crate) fn check(&self) {
        let mut counts = [0_u64; 4];
        let mut attempts = vec![0; self.destinations.slab.end() as usize];
        let (mut ready, mut called_for) = (0, 0);
        for group in (0..self.groups.end()).filter_map(|index| self.groups.get(index)) {
            counts[group.state as usize] += group::recipients(&self.nodes, group.recipients).count() as u64;
            attempts[group.destination as usize] += u32::from(group.state == State::Running);
            ready += usize::from(group.state == State::Ready);
            let to_be_held = group::recipients(&self.nodes, group.recipients).all(|r| r.has(Tagged::HOLD));
            called_for += u32::from(group.state == State::Running && to_be_held);
            assert!(self.messages.get(group.message).is_some(), "a group without a message");
        }
        assert_eq!(counts, self.counts);
        assert_eq!(self.destinations.check(&self.groups), ready, "ready, but in no list");
        assert_eq!(attempts.iter().sum::<u32>(), self.attempts);
        assert!(self.attempts - called_for <= self.limits.attempts_max);
        for (index, attempts) in attempts.iter().enumerate() {
            let found = self.destinations.slab.get(index as u32);
            assert!(found.map_or(0, |found| found.attempts) == *attempts, "attempts of a destination");
        }
    }
}
