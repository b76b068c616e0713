//! Simulated days of a queue: hundreds of lives, each from its seed, with everything that may happen to it.
//!
//! The world accepts messages, ends attempts well and badly, lets destinations go down, gives operator's
//! commands, changes limits, sets the clock back and restarts the server. The model beside the queue
//! knows of each recipient only what the orders said. `SEED=17 cargo test -p queue` lives one life.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use mail::{Category, JournalShard, QueueId, Status, Timestamp};

use crate::{schedule::mix, *};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const MESSAGES: u64 = 60;
const NAMES: [&str; 4] = ["mx:a.example", "mx:b.example", "mx:c.example", "hop:192.0.2.1:25"];
const LIMITS: Limits =
    Limits { attempts_max: 7, site_attempts_max: 3, recipients_per_attempt_max: 3, recipients_max: 10_000 };
/// Ticks, whole seconds, and a clock that stands still after a small step back.
const SLACK: Duration = Duration::from_secs(3);
/// Operators and accidents rest after this.
const DISTURBANCES_END: Duration = Duration::from_secs(8 * 3600);

fn schedule() -> Schedule {
    Schedule {
        intervals: vec![MINUTE, MINUTE * 5],
        retry_max: MINUTE * 30,
        jitter_percent: 20,
        give_up: HOUR * 5,
        notification_give_up: HOUR,
        warn_after: Some(HOUR),
        grace: MINUTE * 20,
        destination_retry_min: MINUTE / 2,
        destination_retry_max: MINUTE * 10,
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0) % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What the world will do.
#[derive(Clone, Copy, Debug)]
enum Event {
    Accept,
    End(AttemptId),
    Command,
    Redirect,
    Limit,
    /// Somebody has found out where a destination is.
    Located(Destination),
    /// Sites may be called otherwise from now on.
    Forget,
    SetClockBack,
    Restart,
    /// What another process had comes here.
    Adopt,
    /// One more message from before the last restart.
    Older,
    Look,
}

/// What the model knows of a recipient.
#[derive(Clone, Debug)]
struct Known {
    name: &'static str,
    /// The destination before that: what was noted before it was moved.
    before: &'static str,
    tenant: Tenant,
    running: bool,
    /// An operator wants it held, removed.
    held: bool,
    removed: bool,
    ended: bool,
    /// As the orders noted it: all that a journal has.
    state: State,
    attempts: u16,
    due: Timestamp,
    category: Option<Category>,
}

struct Attempt {
    id: QueueId,
    recipients: Vec<u32>,
    destination: Destination,
}

struct World {
    seed: u64,
    random: Random,
    queue: Queue,
    /// Time that passes, and what the wall clock is away from it.
    elapsed: Duration,
    wall: Duration,
    future: BTreeMap<(Duration, u64), Event>,
    serial: u64,
    accepted: u64,
    messages: BTreeMap<QueueId, MessageState>,
    /// When each message is given up, and until when it may be tried (released, or after a restart).
    lives: BTreeMap<QueueId, (Duration, Duration)>,
    /// Before when each message may not be tried, unless an operator hurries.
    releases: BTreeMap<QueueId, Duration>,
    recipients: BTreeMap<(QueueId, u32), Known>,
    attempts: HashMap<AttemptId, Attempt>,
    /// Sites that are to be left alone until then.
    blocked: HashMap<String, Duration>,
    /// Messages from before the last restart that are still to come, the youngest last.
    older: Vec<(MessageState, Vec<(u32, Known)>)>,
    is_restoring: bool,
    /// Those who were due when they came back: it is not their turn before the last is back.
    aside: BTreeSet<(QueueId, u32)>,
    orders: u64,
}

#[test]
fn lives() {
    if let Ok(seed) = std::env::var("SEED") {
        return live(seed.parse().expect("SEED is a number"));
    }
    for seed in 0..200 {
        let result = std::panic::catch_unwind(|| live(seed));
        assert!(result.is_ok(), "SEED={seed} cargo test -p queue");
    }
}

fn live(seed: u64) {
    let mut world = World::new(seed);
    while world.step() {
        let waiting = world.queue.wake_after(world.now()).map(|wake| wake.saturating_since(world.now()));
        if world.queue.counts().deferred > 0 {
            // What waits for its release may wait longer than a retry does.
            let held_back = world.queue.times.values().filter_map(|times| times.release_at);
            let wait_max = held_back.map(|at| at.saturating_since(world.now()) + SLACK).max();
            let wait_max = wait_max.unwrap_or_default().max(schedule().retry_max);
            assert!(waiting.is_some_and(|wait| wait <= wait_max), "the next try: {waiting:?}");
        }
        let last = DISTURBANCES_END + schedule().give_up * 2 + HOUR * 34;
        assert!(world.elapsed < last, "somebody waits for ever: {:?}", world.queue.counts());
    }
    let forgotten: Vec<_> = world.recipients.iter().filter(|(_, known)| !known.ended).collect();
    assert!(forgotten.is_empty(), "forgotten: {forgotten:?}");
    assert!(world.messages.is_empty(), "not retired: {:?}", world.messages);
    assert_eq!((world.queue.counts(), world.queue.messages()), (Counts::default(), 0));
    assert_eq!((world.queue.nodes.len(), world.queue.groups.len()), (0, 0), "entries are left");
    assert_eq!(world.queue.oldest(), None);
    assert_eq!(world.queue.destinations(), 0, "unused destinations are left");
}

impl World {
    fn new(seed: u64) -> Self {
        let wall = Duration::from_secs(1_763_629_500);
        let queue = Queue::new(LIMITS, schedule(), seed, Timestamp(wall.as_micros() as u64));
        let mut world = Self {
            seed,
            random: Random(mix(seed)),
            queue,
            elapsed: Duration::ZERO,
            wall,
            future: BTreeMap::new(),
            serial: 0,
            accepted: 0,
            messages: BTreeMap::new(),
            lives: BTreeMap::new(),
            releases: BTreeMap::new(),
            recipients: BTreeMap::new(),
            attempts: HashMap::new(),
            blocked: HashMap::new(),
            older: Vec::new(),
            is_restoring: false,
            aside: BTreeSet::new(),
            orders: 0,
        };
        for _ in 0..MESSAGES {
            let at = Duration::from_millis(world.random.below(4 * 3_600_000));
            world.plan(at, Event::Accept);
        }
        let disturbances = [
            (Event::Command, 20),
            (Event::Redirect, 15),
            (Event::Limit, 6),
            (Event::Forget, 4),
            (Event::SetClockBack, 2),
            (Event::Restart, 2),
            (Event::Adopt, 3),
            (Event::Look, 30),
        ];
        for (event, count) in disturbances {
            for _ in 0..world.random.below(count + 1) {
                let at = Duration::from_millis(world.random.below(DISTURBANCES_END.as_millis() as u64));
                world.plan(at, event);
            }
        }
        world
    }

    fn plan(&mut self, at: Duration, event: Event) {
        self.serial += 1;
        self.future.insert((at, self.serial), event);
    }

    fn now(&self) -> Timestamp {
        Timestamp((self.wall + self.elapsed).as_micros() as u64)
    }

    /// Lets one thing happen. At the end of the story all that is held is released, until all is quiet.
    fn step(&mut self) -> bool {
        let mut orders = Vec::new();
        let wake = self.queue.wake_after(self.now()).map(|at| self.elapsed + at.saturating_since(self.now()));
        match (self.future.first_key_value().map(|(key, event)| (*key, *event)), wake) {
            (Some((key, event)), wake) if wake.is_none_or(|wake| key.0 <= wake) => {
                self.elapsed = key.0;
                self.future.remove(&key);
                self.happen(event, &mut orders);
            }
            (_, Some(wake)) => {
                self.elapsed = wake;
                self.queue.on_tick(self.now(), &mut orders);
            }
            (_, None) => {
                let left = self.queue.counts();
                self.open_all(&mut orders);
                if left == Counts::default() {
                    return false;
                }
                self.command(Command::Release, Selector::All, &mut orders);
                assert!(!orders.is_empty(), "nothing moves: {left:?}");
            }
        }
        self.obey(orders);
        true
    }

    fn happen(&mut self, event: Event, orders: &mut Vec<Order>) {
        match event {
            // Operators wait until they can mean everybody.
            Event::Command if self.is_restoring => {}
            Event::Accept => self.accept(orders),
            Event::End(attempt) => self.end(attempt, orders),
            Event::Command => self.random_command(orders),
            Event::Redirect => {
                let anybody = self.random.below(self.messages.len() as u64 + 1) as usize;
                let Some(id) = self.messages.keys().nth(anybody).copied() else { return };
                let (redirects, moved) = self.redirects(id);
                assert_eq!(self.queue.redirect(id, &redirects, self.now(), orders), moved);
            }
            Event::Limit => {
                let sites = self.queue.list_sites(Cursor::default(), 100).items;
                let any = self.random.below(sites.len() as u64 + 1) as usize;
                let attempts_max = self.random.below(6) as u32;
                if let Some(SiteView { site, name, .. }) = sites.get(any) {
                    self.queue.set_attempts_max(*site, attempts_max, self.now(), orders);
                    assert_eq!(self.queue.site(name), Some(*site));
                }
                if self.elapsed > DISTURBANCES_END - HOUR {
                    self.open_all(orders);
                }
            }
            Event::Located(destination) => {
                self.forget_sites();
                let name = self.queue.name(destination).expect("it is sought").to_owned();
                // Two of them have the same hosts, most of the time.
                let shared = *name < *"mx:c" && !self.random.one_in(4);
                let site = if shared { "site:ab" } else { &name };
                let good_for = Duration::from_secs(1 + self.random.below(7200));
                self.queue.on_located(destination, site, good_for, self.now(), orders);
                let view = self.queue.destination(destination).unwrap();
                assert_eq!(view.site.map(|site| site.name.into_string()), Some(site.to_owned()));
            }
            Event::Forget => self.queue.forget_whereabouts(),
            Event::SetClockBack => {
                let step = Duration::from_millis(self.random.below(2 * 3_600_000));
                self.wall -= step;
                for (give_up, tried) in self.lives.values_mut() {
                    (*give_up, *tried) = (*give_up + step, *tried + step);
                }
            }
            Event::Restart => self.restart(),
            // One after the other.
            Event::Adopt if self.is_restoring => {}
            Event::Adopt => self.adopt(),
            Event::Older => self.restore_one(),
            // What has not come back is not to be seen.
            Event::Look if self.is_restoring => {}
            Event::Look => self.look(),
        }
    }

    fn open_all(&mut self, orders: &mut Vec<Order>) {
        for SiteView { site, .. } in self.queue.list_sites(Cursor::default(), 100).items {
            self.queue.set_attempts_max(site, LIMITS.site_attempts_max, self.now(), orders);
        }
    }

    fn intern(&mut self, tenant: Tenant, name: &'static str) -> Destination {
        self.forget_sites();
        let now = self.now();
        intern(&mut self.queue, tenant, name, now)
    }

    /// Sites are forgotten for want of destinations, but not while they are to be left alone.
    fn forget_sites(&mut self) {
        let (queue, elapsed) = (&self.queue, self.elapsed);
        self.blocked.retain(|site, until| {
            assert!(queue.site(site).is_some() || *until <= elapsed, "{site} is forgotten");
            queue.site(site).is_some()
        });
    }

    fn site_of(&self, destination: Destination) -> Option<String> {
        self.queue.site_name(self.queue.site_of(destination)?).map(ToOwned::to_owned)
    }

    fn accept(&mut self, orders: &mut Vec<Order>) {
        let id = QueueId::new(JournalShard(3), self.accepted * 7919 % 1009);
        self.accepted += 1;
        let count = [0, 1, 1, 1, 2, 5, 11][self.random.below(7) as usize];
        let mut recipients = Vec::new();
        for place in 0..count {
            let name = NAMES[self.random.below(4) as usize];
            let tenant = tenant_of(id);
            recipients.push((place, self.intern(tenant, name)));
            let known = Known {
                name,
                before: name,
                tenant,
                running: false,
                held: false,
                removed: false,
                ended: false,
                state: State::Ready,
                attempts: 0,
                due: self.now(),
                category: None,
            };
            self.recipients.insert((id, place), known);
        }
        let mut time = |chance: u64, hours: u64| {
            let wait = Duration::from_secs(self.random.below(3600 * hours));
            (self.random.below(chance) == 0).then_some(wait)
        };
        let (release, warn, end) = (time(5, 30), time(5, 10), time(5, 100));
        self.releases.extend(release.map(|wait| (id, self.elapsed + wait)));
        let at = |wait: Duration| self.now().saturating_add(wait);
        let times = Times { release_at: release.map(at), warn_at: warn.map(at), return_at: end.map(at) };
        let message = MessageState {
            id,
            received_at: Timestamp::from_secs(self.now().secs()),
            size: self.random.below(1 << 34),
            priority: [Priority::Urgent, Priority::Normal, Priority::Bulk][self.random.below(3) as usize],
            kind: [Kind::Message, Kind::Message, Kind::Notification][self.random.below(3) as usize],
            warning: [Warning::Wanted, Warning::Unwanted][self.random.below(2) as usize],
            give_up_at: None,
            times,
        };
        self.messages.insert(id, message);
        let give_up = self.elapsed + release.unwrap_or_default() + schedule().lifetime(message.kind);
        let give_up = end.map_or(give_up, |end| give_up.min(self.elapsed + end));
        self.lives.insert(id, (give_up, give_up));
        let MessageState { received_at, size, priority, kind, warning, .. } = message;
        let accepted =
            Accepted { id, received_at, size, priority, kind, warning, times, recipients: &recipients };
        let now = self.now();
        self.queue.on_accepted(&accepted, now, orders);
        if count == 0 {
            assert_eq!(orders[0], Order::Retire { id });
        }
    }

    fn end(&mut self, attempt: AttemptId, orders: &mut Vec<Order>) {
        // A restart has forgotten it.
        let Some(Attempt { id, recipients, destination }) = self.attempts.remove(&attempt) else { return };
        let now = self.now();
        for place in &recipients {
            self.recipients.get_mut(&(id, *place)).unwrap().running = false;
        }
        if self.random.one_in(20) {
            // Who is removed at the end of the attempt is not there to be moved, nor who is given up.
            let held: Vec<_> = recipients.iter().map(|place| self.recipients[&(id, *place)].held).collect();
            let (redirects, moved) = self.redirects(id);
            assert!(self.queue.on_diverted(attempt, &redirects, now, orders) <= moved);
            for order in &*orders {
                let Order::Return { recipients: given_up, .. } = order else { continue };
                for (place, held) in
                    recipients.iter().zip(&held).filter(|(place, _)| given_up.contains(place))
                {
                    self.recipients.get_mut(&(id, *place)).unwrap().held = *held;
                }
            }
            return;
        }
        if self.random.one_in(20) {
            let site = self.queue.destination(destination).unwrap().site.expect("it was tried");
            self.queue.set_attempts_max(site.site, 0, now, orders);
            self.queue.on_postponed(attempt, now, orders);
            self.queue.set_attempts_max(site.site, site.attempts_max, now, orders);
            return;
        }
        // A destination that is down stays so for a while.
        let site = self.site_of(destination).expect("it was tried");
        let down = (now.secs() / 1200 + site.len() as u64 + self.seed).is_multiple_of(3);
        let mut outcomes = Vec::new();
        for place in &recipients {
            let outcome = match self.random.below(if down { 3 } else { 7 }) {
                0..3 => Outcome::Deferred(self.deferral()),
                3 => Outcome::Failed,
                4 => Outcome::Untold,
                _ => Outcome::Delivered,
            };
            // The driver may forget one, or change their order.
            if !matches!(outcome, Outcome::Deferred(_)) || !self.random.one_in(5) {
                outcomes.push((*place, outcome));
            }
            let known = self.recipients.get_mut(&(id, *place)).unwrap();
            known.ended = outcome == Outcome::Delivered;
        }
        if self.random.one_in(5) {
            outcomes.reverse();
        }
        if down && !self.random.one_in(3) {
            self.queue.on_site_failed(self.queue.site_of(destination).unwrap(), now);
            let until = self.queue.destination(destination).unwrap().site.unwrap().blocked_until;
            let wait = until.expect("it was just blocked").saturating_since(now);
            self.blocked.insert(site.clone(), self.elapsed + wait);
        }
        let answered = outcomes.iter().any(|(_, outcome)| !matches!(outcome, Outcome::Deferred(_)));
        // A probe without a failure of the destination is an answer, too.
        if answered || self.blocked.get(&site).is_some_and(|until| *until <= self.elapsed) {
            self.blocked.remove(&site);
        }
        self.queue.on_attempted(attempt, &outcomes, now, orders);
        let returned = |order: &Order| matches!(order, Order::Return { id: other, .. } if *other == id);
        let failed = outcomes
            .iter()
            .any(|(place, outcome)| *outcome == Outcome::Failed && !self.recipients[&(id, *place)].removed);
        assert!(!failed || orders.iter().any(returned), "a failure that nobody is told of");
    }

    /// Other ways for some recipients of a message, and how many of them are to be moved.
    fn redirects(&mut self, id: QueueId) -> (Vec<Redirect>, u64) {
        let (mut redirects, mut moved) = (Vec::new(), 0);
        let places: Vec<_> = self.recipients.range((id, 0)..=(id, u32::MAX)).map(|((_, p), _)| *p).collect();
        for place in places {
            let name = NAMES[self.random.below(4) as usize];
            let onward =
                [Onward::Send, Onward::Release, Onward::Hold, Onward::Wait][self.random.below(4) as usize];
            redirects.push(Redirect {
                recipient: place,
                destination: self.intern(tenant_of(id), name),
                onward,
            });
            let known = self.recipients.get_mut(&(id, place)).unwrap();
            let is_queued = self.messages.contains_key(&id) && !known.ended && !known.running;
            if !is_queued || known.name == name || self.older.iter().any(|(message, _)| message.id == id) {
                continue;
            }
            moved += 1;
            known.before = std::mem::replace(&mut known.name, name);
            // Who has another way is tried at once, and so are those who stood in a group with it.
            self.aside.retain(|(other, _)| *other != id);
            let was_held = known.held;
            known.held = match onward {
                Onward::Send | Onward::Wait => was_held,
                Onward::Release => false,
                Onward::Hold => true,
            };
            if was_held && !known.held {
                let (_, tried) = self.lives.get_mut(&id).unwrap();
                *tried = (*tried).max(self.elapsed + schedule().grace);
            }
        }
        (redirects, moved)
    }

    fn random_command(&mut self, orders: &mut Vec<Order>) {
        use Command::{Hold, Release, Remove, Retry};
        let command = [Retry, Hold, Hold, Release, Release, Remove][self.random.below(6) as usize];
        if command == Retry {
            self.releases.clear();
        }
        let anybody = self.random.below(self.recipients.len() as u64 + 1) as usize;
        let Some(((id, place), known)) = self.recipients.iter().nth(anybody) else { return };
        let (id, place, name, tenant) = (*id, *place, known.name, known.tenant);
        let greylisted = Filter { category: Some(Category::Greylisted), ..Filter::default() };
        let selector = match self.random.below(8) {
            0 if command != Remove => Selector::All,
            1 if command != Remove => Selector::Destination(self.intern(tenant, name)),
            2 if command != Remove => Selector::Matching(&greylisted),
            0..4 => Selector::Message(id),
            _ => Selector::Recipient(id, place),
        };
        self.command(command, selector, orders);
    }

    fn command(&mut self, command: Command, selector: Selector<'_>, orders: &mut Vec<Order>) {
        let (mut meant, mut hurried) = (BTreeSet::new(), Vec::new());
        for ((id, place), known) in &mut self.recipients {
            let is_meant = match selector {
                Selector::All => true,
                Selector::Message(other) => other == *id,
                Selector::Matching(filter) => filter.category == known.category,
                Selector::Recipient(other, only) => other == *id && only == *place,
                Selector::Destination(destination) => {
                    let view = self.queue.destination(destination).unwrap();
                    (&*view.name, (view.tenant, view.lot)) == (known.name, owner(known.tenant))
                }
            };
            if !is_meant || known.ended {
                continue;
            }
            meant.insert((*id, *place));
            if command == Command::Release {
                let (_, tried) = self.lives.get_mut(id).unwrap();
                *tried = (*tried).max(self.elapsed + schedule().grace);
            }
            match command {
                Command::Retry | Command::Hasten => hurried.push((known.tenant, known.name)),
                Command::Hold => known.held = true,
                Command::Release => known.held = false,
                Command::Remove => known.removed = true,
            }
        }
        for (tenant, name) in hurried {
            let destination = self.intern(tenant, name);
            if let Some(site) = self.site_of(destination) {
                self.blocked.remove(&site);
            }
        }
        let mut cursor = Cursor::default();
        loop {
            let progress = self.queue.on_command(command, selector, cursor, self.now(), orders);
            let Some(next) = progress.next else { break };
            cursor = next;
        }
        for order in &*orders {
            if let Order::Remove { id, recipients } = order {
                assert!(recipients.iter().all(|place| meant.contains(&(*id, *place))), "removed unasked");
            }
        }
    }

    /// Builds the queue anew, from its own states or from what the orders noted: at once, or while life goes on.
    fn restart(&mut self) {
        let now = self.now();
        let mut queue = Queue::new(LIMITS, schedule(), self.seed, now);
        let from_states = self.random.one_in(2) && !self.is_restoring;
        let (mut cursor, mut restored) = (Some(Cursor::default()), BTreeSet::new());
        let mut messages = Vec::new();
        while let Some(from) = cursor {
            let page = self.queue.list_messages(from, 10);
            messages.extend(page.items);
            cursor = page.next;
        }
        let mut older = Vec::new();
        for mut message in messages {
            let mut recipients = Vec::new();
            for state in self.queue.states(message.id).unwrap() {
                let mut known = self.recipients[&(message.id, state.recipient)].clone();
                assert_eq!(self.queue.name(state.destination), Some(known.name));
                assert_eq!(state.state == State::Held, known.held, "{:?} {state:?} {known:?}", message.id);
                assert_eq!(state.attempts, known.attempts);
                assert!(restored.insert((message.id, state.recipient)), "a recipient is there twice");
                if from_states {
                    (known.state, known.attempts, known.due) = (state.state, state.attempts, state.due);
                } else {
                    message = MessageState { give_up_at: None, ..self.messages[&message.id] };
                }
                recipients.push((state.recipient, known));
            }
            older.push((message, recipients));
        }
        let missing = std::mem::take(&mut self.older);
        restored.extend(missing.iter().flat_map(|(m, list)| list.iter().map(|(place, _)| (m.id, *place))));
        let known = self.recipients.iter().filter(|(_, known)| !known.ended).map(|(key, _)| *key);
        assert_eq!(restored, known.collect(), "restored, known");
        older.extend(missing);
        older.sort_by_key(|(message, _)| (message.received_at, message.id));
        // What was under way is forgotten, and so are the removals that waited for it.
        self.attempts.clear();
        self.blocked.clear();
        for (_, tried) in self.lives.values_mut() {
            *tried = (*tried).max(self.elapsed + schedule().grace);
        }
        for known in self.recipients.values_mut() {
            known.running = false;
            known.removed &= known.ended;
        }
        self.future.retain(|_, event| !matches!(event, Event::End(_) | Event::Older | Event::Located(_)));
        self.aside.clear();
        self.is_restoring = self.random.one_in(2);
        if self.is_restoring {
            queue.begin_restore();
            for _ in 0..=older.len() {
                let at = self.elapsed + Duration::from_millis(self.random.below(300_000));
                self.plan(at, Event::Older);
            }
            (self.queue, self.older) = (queue, older);
            return;
        }
        for (message, recipients) in older {
            let recipients = states(&mut queue, &recipients, now);
            queue.restore(&Restored { message, recipients: &recipients }, now);
        }
        self.queue = queue;
    }

    /// Messages of another process come in as those of before a restart do, beside what is queued and tried here.
    fn adopt(&mut self) {
        let now = self.now();
        for _ in 0..self.random.below(6) {
            let id = QueueId::new(JournalShard(4), self.accepted);
            self.accepted += 1;
            let received_at = Timestamp::from_secs(now.secs());
            let message = MessageState {
                id,
                received_at,
                size: 1,
                priority: [Priority::Urgent, Priority::Normal, Priority::Bulk][self.random.below(3) as usize],
                kind: Kind::Message,
                warning: Warning::Wanted,
                give_up_at: None,
                times: Times::default(),
            };
            let give_up = self.elapsed + schedule().lifetime(message.kind);
            self.lives.insert(id, (give_up, give_up));
            let mut recipients = Vec::new();
            for place in 0..1 + self.random.below(4) as u32 {
                let state = [State::Ready, State::Deferred, State::Held][self.random.below(3) as usize];
                let name = NAMES[self.random.below(4) as usize];
                let known = Known {
                    name,
                    before: name,
                    tenant: tenant_of(id),
                    running: false,
                    held: state == State::Held,
                    removed: false,
                    ended: false,
                    state,
                    attempts: self.random.below(3) as u16,
                    due: now.saturating_add(Duration::from_secs(self.random.below(3000))),
                    category: None,
                };
                self.recipients.insert((id, place), known.clone());
                recipients.push((place, known));
            }
            self.messages.insert(id, message);
            self.older.push((message, recipients));
        }
        self.queue.begin_restore();
        self.is_restoring = true;
        for _ in 0..=self.older.len() {
            let at = self.elapsed + Duration::from_millis(self.random.below(300_000));
            self.plan(at, Event::Older);
        }
    }

    fn restore_one(&mut self) {
        let now = self.now();
        let Some((message, recipients)) = self.older.pop() else {
            self.is_restoring = false;
            self.aside.clear();
            return self.queue.end_restore();
        };
        let recipients = states(&mut self.queue, &recipients, now);
        self.queue.restore_older(&Restored { message, recipients: &recipients }, now);
        // Who came back late has the same time to be tried.
        let (_, tried) = self.lives.get_mut(&message.id).unwrap();
        *tried = (*tried).max(self.elapsed + schedule().grace);
        let states = self.queue.states(message.id).unwrap();
        let due = states.iter().filter(|state| state.state == State::Ready);
        self.aside.extend(due.map(|state| (message.id, state.recipient)));
    }

    /// Compares what the queue shows with what the model knows.
    fn look(&mut self) {
        let counts = self.queue.counts();
        let left: Vec<_> = self.recipients.values().filter(|known| !known.ended).collect();
        assert_eq!(counts.total(), left.len() as u64);
        assert_eq!(counts.running, left.iter().filter(|known| known.running).count() as u64);
        let held = left.iter().filter(|known| known.held && !known.running).count() as u64;
        assert_eq!(counts.held, held);
        assert_eq!(self.queue.room(), LIMITS.recipients_max - counts.total());
        assert_eq!(self.queue.messages() as usize, self.messages.len());
        let oldest = self.messages.values().map(|message| message.received_at.secs() / 60 * 60).min();
        assert_eq!(self.queue.oldest().map(Timestamp::secs), oldest);
        for state in [State::Ready, State::Running, State::Deferred, State::Held] {
            let filter = Filter { state: Some(state), ..Filter::default() };
            let (mut cursor, mut sum) = (Some(Cursor::default()), 0);
            while let Some(from) = cursor {
                let page = self.queue.list(&filter, from, 3);
                assert!(page.items.len() <= 3 && page.items.iter().all(|group| group.state == state));
                sum += page.items.iter().map(|group| u64::from(group.recipients)).sum::<u64>();
                cursor = page.next;
            }
            let Counts { ready, running, deferred, held } = counts;
            assert_eq!(sum, [ready, running, deferred, held][state as usize]);
        }
        let found = self.queue.list_destinations(Cursor::default(), 100).items;
        assert_eq!(found.iter().map(|found| found.counts.total()).sum::<u64>(), counts.total());
        assert!(found.iter().all(|found| Some(&*found.name) == self.queue.name(found.destination)));
        for site in self.queue.list_sites(Cursor::default(), 100).items {
            let members = found.iter().filter(|found| found.site.as_ref() == Some(&site));
            assert_eq!(members.map(|found| found.attempts).sum::<u32>(), site.attempts);
        }
    }

    fn obey(&mut self, orders: Vec<Order>) {
        for order in orders {
            self.orders += 1;
            match order {
                Order::Attempt { attempt, id, destination, recipients, number } => {
                    self.begin(attempt, id, destination, &recipients, number);
                }
                Order::Locate { destination } => {
                    let after = Duration::from_millis(self.random.below(20_000));
                    self.plan(self.elapsed + after, Event::Located(destination));
                }
                Order::Note { id, recipients, destination, state, attempts, due, category } => {
                    let to = self.queue.name(destination).expect("a destination of ours").to_owned();
                    for place in &*recipients {
                        let known = self.recipients.get_mut(&(id, *place)).expect("a note of nobody");
                        assert!(!known.ended, "a note after the end");
                        (known.state, known.attempts, known.due) = (state, attempts, due);
                        known.category = category;
                        assert!([known.name, known.before].contains(&&*to), "noted for another destination");
                    }
                }
                Order::Return { id, recipients, reason } => {
                    for place in &*recipients {
                        let known = self.end_of(id, *place);
                        assert!(!known.removed, "returned, though removed");
                        assert!(reason != ReturnReason::GaveUp || !known.held, "given up, though held");
                    }
                    let early = self.elapsed + SLACK < self.lives[&id].0;
                    assert!(reason == ReturnReason::Failed || !early, "given up too early");
                }
                Order::Tell { id, recipients } => {
                    for place in &*recipients {
                        self.end_of(id, *place);
                    }
                }
                Order::Remove { id, recipients } => {
                    for place in &*recipients {
                        assert!(self.end_of(id, *place).removed, "removed unasked");
                    }
                }
                Order::Warn { id, recipients } => {
                    let message = self.messages.get_mut(&id).expect("a warning for nothing");
                    assert_eq!((message.warning, message.kind), (Warning::Wanted, Kind::Message));
                    message.warning = Warning::Sent;
                    for place in &*recipients {
                        let known = &self.recipients[&(id, *place)];
                        assert!(!known.ended && (!known.held || known.running));
                    }
                }
                Order::Retire { id } => {
                    assert!(self.messages.remove(&id).is_some(), "retired twice");
                    let all = self.recipients.range((id, 0)..=(id, u32::MAX));
                    assert!(all.into_iter().all(|(_, known)| known.ended), "retired too early");
                    assert_eq!(self.queue.message(id), None);
                }
            }
        }
        // It looks at every entry.
        if self.random.one_in(16) {
            self.queue.check();
        }
    }

    fn begin(&mut self, attempt: AttemptId, id: QueueId, to: Destination, recipients: &[u32], number: u16) {
        assert!(recipients.iter().all(|place| !self.aside.contains(&(id, *place))), "tried out of turn");
        assert!(!recipients.is_empty() && recipients.len() <= LIMITS.recipients_per_attempt_max);
        let name = self.recipients[&(id, recipients[0])].name;
        for place in recipients {
            let known = self.recipients.get_mut(&(id, *place)).expect("an attempt for nobody");
            assert!(!known.ended, "{id} {place} tried after its end");
            assert!(!known.running, "{id} {place} tried twice at once");
            assert!(!known.held && !known.removed, "{id} {place} tried against the operator's will");
            assert_eq!((known.name, known.attempts + 1), (name, number));
            known.running = true;
        }
        assert_eq!(self.queue.name(to), Some(name));
        assert!(self.elapsed <= self.lives[&id].1 + SLACK, "{id} tried after its give-up time");
        let release = self.releases.get(&id).copied().unwrap_or_default();
        assert!(release <= self.elapsed + SLACK, "{id} tried before its release");
        let site = self.site_of(to).expect("it is tried");
        let at_site = |attempt: &&Attempt| self.site_of(attempt.destination).as_ref() == Some(&site);
        let busy = self.attempts.values().filter(at_site).count() as u32;
        if let Some(until) = self.blocked.get(&site) {
            assert!(*until <= self.elapsed, "{site} is to be left alone until {until:?}");
            assert_eq!(busy, 0, "more than one probe");
        }
        let attempt_of = Attempt { id, recipients: recipients.to_vec(), destination: to };
        assert!(self.attempts.insert(attempt, attempt_of).is_none());
        assert!(self.attempts.len() <= LIMITS.attempts_max as usize);
        let latency = Duration::from_millis(1 + self.random.below(600_000));
        self.plan(self.elapsed + latency, Event::End(attempt));
        let view = self.queue.destination(to).unwrap().site.unwrap();
        // Orders of one call are obeyed one by one.
        assert!(busy < view.attempts && busy < view.attempts_max.max(LIMITS.site_attempts_max + 2));
    }

    fn deferral(&mut self) -> Deferral {
        let wait = Duration::from_secs(1 + self.random.below(1200));
        let wait = match self.random.below(6) {
            0 => Wait::About(wait),
            1 => Wait::AtLeast(wait),
            _ => Wait::Scheduled,
        };
        let category = Some(Category::Greylisted).filter(|_| self.random.one_in(4));
        Deferral { category, wait, ..Deferral::from(Status(4, 4, 1)) }
    }

    fn end_of(&mut self, id: QueueId, place: u32) -> &Known {
        let known = self.recipients.get_mut(&(id, place)).expect("an end of nobody");
        assert!(!known.ended && !known.running, "{id} {place} ended twice or while tried");
        known.ended = true;
        known
    }
}

fn states(queue: &mut Queue, recipients: &[(u32, Known)], now: Timestamp) -> Vec<RecipientState> {
    let state = |(place, known): &(u32, Known)| RecipientState {
        recipient: *place,
        destination: intern(queue, known.tenant, known.name, now),
        state: known.state,
        attempts: known.attempts,
        due: known.due,
        status: None,
        category: known.category,
    };
    recipients.iter().map(state).collect()
}

fn tenant_of(id: QueueId) -> Tenant {
    Tenant((id.number() % 3) as u32)
}

/// Two of them are lots of one and the same tenant.
const fn owner(Tenant(number): Tenant) -> (Tenant, Lot) {
    (Tenant(number / 2), Lot(number % 2))
}

/// Where those are that go by the DNS is asked for.
fn intern(queue: &mut Queue, tenant: Tenant, name: &str, now: Timestamp) -> Destination {
    let whereabouts = if name.starts_with("mx:") { Whereabouts::Asked } else { Whereabouts::Own };
    queue.intern_for(owner(tenant), name, whereabouts, now)
}
