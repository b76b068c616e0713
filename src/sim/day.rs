//! A day of a large queue: millions of recipients, thousands of sites in all moods, and what becomes of each.
//!
//! The queue and the throttles are those of the server; the rest of the world is arithmetic. Newsletters come in crowds, one
//! message at a time comes from a shop (urgent) and from an office. Sites greylist, refuse what comes too fast, are
//! away for hours, answer slowly, or refuse all day. At every step: nobody is tried twice at once or after the end, no site has
//! more attempts than it may, nobody is forgotten; and at the end of the day all that could be delivered is.
//!
//! With sources, mail leaves from a pool of them, of which some are out of use for hours and one has a plan, and what is refused is tried again by
//! rules: then all that holds for a site holds for a source and a site, nothing leaves from a source that is out while another is not, no
//! plan is passed, and nothing is tried before its rule says so.
//!
//! The same day may be lived by a plain queue, as a measure: each domain for itself, first come first served, every failure a
//! failure of the message alone, an exponential wait.

mod egress;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    fmt,
    time::Duration,
};

use delivery::{Advice, Throttle, ThrottleLimits, Told, egress::slot_of};
use journal::virtual_disk::Random;
use mail::{Category, JournalShard, QueueId, Status, Timestamp};
use queue::{
    Accepted, AttemptId, Deferral, Destination, Kind, Limits, Lot, Order, Outcome, Priority, Queue, Schedule,
    Tenant, Times, Warning, Whereabouts,
};

use egress::{Admission, Egress, SOURCES};

/// How the queue is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// With sites, tenants, classes and throttles.
    Ours,
    /// And with sources in a pool, and rules for retries.
    Sources,
    /// Without.
    Plain,
}

/// What became of a day.
#[derive(Clone, Debug)]
pub struct Day {
    ways: Ways,
    classes: [Figures; 3],
    attempts: u64,
    wasted: u64,
    refused_as_too_fast: u64,
    left: u64,
    /// Those that have left from each source.
    left_from: [u64; SOURCES.len()],
    /// Octets of the queue's memory at its fullest, and the recipients that were in it then.
    fullest: (usize, u64),
}

/// Of one class of mail.
#[derive(Clone, Debug, Default)]
struct Figures {
    accepted: u64,
    delivered: u64,
    failed: u64,
    /// Time from acceptance to delivery, in classes of a fifth of an octave.
    times: Vec<u64>,
    /// Of mail for sites that are well.
    well_max: Duration,
}

/// How a site is today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    /// Who comes for the first time is to come again after five minutes.
    Greylists,
    /// So many messages a minute; what is above is refused.
    Limited(u32),
    /// Away between these hours.
    Away(u64, u64),
    /// Answers after half a minute and more.
    Slow,
    /// Refuses everything, for now.
    Refuses,
}

/// A site, to mail from one source: it counts what comes by who comes.
struct Place {
    mood: Mood,
    throttle: Throttle,
    /// Of this minute.
    taken: (u64, u32),
    /// Attempts under way.
    under_way: u32,
    /// When the next one may go, where there is a rate.
    due: Timestamp,
    paused: bool,
    /// Whether nothing more is ordered until then, whatever the throttle says.
    held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The next message of a source.
    Accept(usize),
    End(AttemptKey),
    Locate(u32),
    /// A site that was paused may go on.
    Resume(u32),
    /// Sources stand otherwise than before.
    Sources,
}

/// Orders events of the same moment.
type AttemptKey = u32;

struct Source {
    class: usize,
    tenant: u32,
    next: Timestamp,
    gap: Duration,
    left: u64,
}

struct World {
    ways: Ways,
    random: Random,
    queue: Queue,
    now: Timestamp,
    events: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    serial: u64,
    /// Sites, each as often as there are sources.
    places: Vec<Place>,
    egress: Option<Egress>,
    /// The site of each domain.
    domains: Vec<u32>,
    /// Domains by their popularity, as sums.
    popular: Vec<u64>,
    sources: Vec<Source>,
    messages: Vec<Message>,
    attempts: HashMap<AttemptKey, Attempt>,
    next_attempt: AttemptKey,
    sought: HashMap<u32, Destination>,
    greeted: HashMap<usize, Timestamp>,
    day: Day,
}

#[derive(Clone, Copy)]
struct Message {
    accepted_at: Timestamp,
    domain: u32,
    class: u8,
    state: State,
    /// How often it was refused.
    refusals: u16,
    /// It is not to be tried before.
    not_before: Timestamp,
}

/// A message on its way.
struct Attempt {
    id: AttemptId,
    message: usize,
    place: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    Running,
    Ended,
}

const START: Timestamp = Timestamp::from_secs(1_763_596_800);
const HOUR: u64 = 3600;
const SITES: usize = 3000;
const DOMAINS: usize = 20_000;
/// Sites of providers, which have most of the domains and of the mail.
const PROVIDERS: usize = 20;
const CONNECTIONS_MAX: u32 = 20;
const ATTEMPTS_MAX: u32 = 4000;
/// Whoever has waited so long for a first try waits for ever.
const STARVED: Duration = Duration::from_secs(3 * HOUR);
/// The queue's.
const TICK: Duration = Duration::from_millis(100);
const CLASSES: [&str; 3] = ["urgent", "normal", "bulk"];

/// Lives a day with so many recipients.
///
/// # Panics
/// When something is not as it must be.
pub fn day(seed: u64, recipients: u64, ways: Ways) -> Day {
    let mut world = World::new(seed, recipients, ways);
    world.live();
    world.day
}

impl World {
    fn new(seed: u64, recipients: u64, ways: Ways) -> Self {
        let mut random = Random(seed);
        let limits = Limits {
            attempts_max: ATTEMPTS_MAX,
            site_attempts_max: CONNECTIONS_MAX,
            recipients_max: u64::MAX,
            ..Limits::default()
        };
        let schedule = Schedule { warn_after: None, ..Schedule::default() };
        let mut queue = Queue::new(limits, schedule, seed, START);
        if ways != Ways::Plain {
            // The shop pays for it.
            queue.set_weights([(Tenant(1), 4)]);
        }
        let width = if ways == Ways::Sources { SOURCES.len() } else { 1 };
        // As much together, whatever the number of sources.
        let per_minute =
            |share: u64| u32::try_from((recipients / share / width as u64).max(10)).unwrap_or(u32::MAX);
        let mood = |site: usize, random: &mut Random| match site {
            // The largest four take what comes for them in a day, if it comes evenly, and a crowd of it not at once.
            0..4 => Mood::Limited(per_minute(20_000)),
            _ => match random.below(100) {
                0..3 => Mood::Greylists,
                3..6 => {
                    let from = random.below(18);
                    Mood::Away(from, from + 1 + random.below(3))
                }
                6..8 => Mood::Slow,
                8 if site >= PROVIDERS => Mood::Refuses,
                _ => Mood::Well,
            },
        };
        let throttle_limits =
            ThrottleLimits { connections_max: CONNECTIONS_MAX, ..ThrottleLimits::default() };
        let moods: Vec<Mood> = (0..SITES).map(|site| mood(site, &mut random)).collect();
        let places = (0..SITES * width)
            .map(|place| Place {
                mood: moods[place / width],
                throttle: Throttle::new(throttle_limits, START),
                taken: (0, 0),
                under_way: 0,
                due: START,
                paused: false,
                held: false,
            })
            .collect();
        let site_of = |domain: usize, random: &mut Random| {
            // Each provider has some domains of its own first, then shares of the others.
            let site = if domain < SITES { domain } else { random.below(PROVIDERS as u64) as usize };
            u32::try_from(site).expect("sites are few")
        };
        let domains: Vec<u32> = (0..DOMAINS).map(|domain| site_of(domain, &mut random)).collect();
        let mut sum = 0;
        let popular = (0..DOMAINS as u64)
            .map(|domain| {
                sum += 1_000_000 / (domain + 3);
                sum
            })
            .collect();
        let mut sources = vec![
            source(0, 1, recipients / 20, START, Duration::from_secs(20 * HOUR)),
            source(1, 2, recipients * 3 / 20, START, Duration::from_secs(20 * HOUR)),
        ];
        for letter in 0..8 {
            let begins = START.saturating_add(Duration::from_secs(HOUR + letter * 2 * HOUR));
            sources.push(source(
                2,
                10 + letter as u32,
                recipients / 10,
                begins,
                Duration::from_secs(HOUR / 2),
            ));
        }
        let empty = Day {
            ways,
            classes: Default::default(),
            attempts: 0,
            wasted: 0,
            refused_as_too_fast: 0,
            left: 0,
            left_from: [0; SOURCES.len()],
            fullest: (0, 0),
        };
        Self {
            ways,
            random,
            queue,
            now: START,
            events: BinaryHeap::new(),
            serial: 0,
            places,
            egress: (ways == Ways::Sources)
                .then(|| Egress::new(START, u32::try_from(recipients / 40).unwrap_or(u32::MAX))),
            domains,
            popular,
            sources,
            messages: Vec::new(),
            attempts: HashMap::new(),
            next_attempt: 0,
            sought: HashMap::new(),
            greeted: HashMap::new(),
            day: empty,
        }
    }

    fn live(&mut self) {
        let end = START.saturating_add(Duration::from_secs(24 * HOUR));
        for number in 0..self.sources.len() {
            if self.sources[number].left > 0 {
                self.plan(self.sources[number].next, Event::Accept(number));
            }
        }
        let changes: Vec<_> = self.egress.iter().flat_map(Egress::changes).collect();
        changes.into_iter().for_each(|at| self.plan(at, Event::Sources));
        loop {
            let wake = self.queue.wake_after(self.now);
            let next = self.events.peek().map(|Reverse((at, ..))| *at);
            let Some(at) = [wake, next].into_iter().flatten().min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            let mut orders = Vec::new();
            if next == Some(at)
                && let Some(Reverse((_, _, event))) = self.events.pop()
            {
                self.happen(event, &mut orders);
            } else {
                self.queue.on_tick(self.now, &mut orders);
            }
            self.obey(orders);
        }
        self.day.left = self.queue.counts().total();
        let ended = self.messages.iter().filter(|message| message.state == State::Ended).count() as u64;
        assert_eq!(ended + self.day.left, self.messages.len() as u64, "somebody is forgotten");
        self.day.left_from = self.egress.as_ref().map_or(self.day.left_from, Egress::left);
        if self.ways != Ways::Plain {
            // A crowd of an hour may wait for the places of the core, and nobody for ever.
            let long_ago = |message: &&Message| self.now.saturating_since(message.accepted_at) > STARVED;
            let is_well = |message: &&Message| {
                self.places[self.domains[message.domain as usize] as usize * self.width()].mood == Mood::Well
            };
            let waits = |message: &&Message| message.state == State::Queued && message.refusals == 0;
            let starved = self.messages.iter().filter(waits).filter(is_well).filter(long_ago).count();
            assert_eq!(starved, 0, "messages that were never tried, to sites that are well");
        }
    }

    fn plan(&mut self, at: Timestamp, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((at, self.serial, event)));
    }

    fn happen(&mut self, event: Event, orders: &mut Vec<Order>) {
        match event {
            Event::Accept(source) => self.accept(source, orders),
            Event::End(key) => self.end(key, orders),
            Event::Locate(number) => {
                let destination = self.sought.remove(&number).expect("it was asked for");
                let name = self.queue.name(destination).expect("it is sought");
                let domain: usize = name.parse().expect("our own name");
                let Lot(lot) = self.queue.lot(destination).expect("it is sought");
                let (source, good_for) = match &mut self.egress {
                    None => (0, Duration::from_secs(HOUR)),
                    Some(egress) => egress.choose(slot(lot), self.now),
                };
                let place = self.domains[domain] * self.width() as u32 + source as u32;
                self.queue.on_located(destination, &place.to_string(), good_for, self.now, orders);
                self.apply(place, orders);
            }
            Event::Resume(place) => {
                let resumed = &mut self.places[place as usize];
                (resumed.paused, resumed.held) = (false, false);
                self.apply(place, orders);
            }
            Event::Sources => {
                self.queue.forget_whereabouts();
                self.queue.on_tick(self.now, orders);
            }
        }
    }

    fn accept(&mut self, number: usize, orders: &mut Vec<Order>) {
        let Source { class, tenant, gap, .. } = self.sources[number];
        let source = &mut self.sources[number];
        source.left -= 1;
        source.next = source.next.saturating_add(gap);
        if source.left > 0 {
            let next = source.next;
            self.plan(next, Event::Accept(number));
        }
        let point = self.random.below(*self.popular.last().expect("there are domains"));
        let domain = self.popular.partition_point(|sum| *sum <= point);
        let name = domain.to_string();
        let id = QueueId::new(JournalShard(0), self.messages.len() as u64);
        let lot = match self.ways {
            Ways::Sources => Lot(u32::from(slot_of(id)) + 1),
            Ways::Ours | Ways::Plain => Lot::default(),
        };
        let to = match self.ways {
            Ways::Ours | Ways::Sources => {
                self.queue.intern_for((Tenant(tenant), lot), &name, Whereabouts::Asked, self.now)
            }
            Ways::Plain => self.queue.intern(&name, self.now),
        };
        let priority = match (self.ways, class) {
            (Ways::Plain, _) | (_, 1) => Priority::Normal,
            (Ways::Ours | Ways::Sources, 0) => Priority::Urgent,
            (Ways::Ours | Ways::Sources, _) => Priority::Bulk,
        };
        let class = u8::try_from(class).expect("classes are few");
        let domain = u32::try_from(domain).expect("domains are few");
        let (accepted_at, state) = (self.now, State::Queued);
        let new = Message { accepted_at, domain, class, state, refusals: 0, not_before: accepted_at };
        self.messages.push(new);
        self.day.classes[usize::from(class)].accepted += 1;
        let accepted = Accepted {
            id,
            received_at: self.now,
            size: 4096,
            priority,
            kind: Kind::Message,
            warning: Warning::Unwanted,
            times: Times::default(),
            recipients: &[(0, to)],
        };
        self.queue.on_accepted(&accepted, self.now, orders);
        let waiting = self.queue.counts().total();
        if waiting > self.day.fullest.1 + self.day.fullest.1 / 64 + 1000 {
            self.day.fullest = (self.queue.memory(), waiting);
        }
    }

    fn obey(&mut self, orders: Vec<Order>) {
        let mut orders: VecDeque<_> = orders.into();
        while let Some(order) = orders.pop_front() {
            match order {
                Order::Attempt { attempt, id, destination, .. } => {
                    let mut more = Vec::new();
                    self.begin(attempt, id, destination, &mut more);
                    orders.extend(more);
                }
                Order::Locate { destination } => {
                    let number = u32::try_from(self.serial & 0xffff_ffff).expect("masked");
                    assert!(self.sought.insert(number, destination).is_none(), "two at one number");
                    self.plan(self.now.saturating_add(Duration::from_millis(20)), Event::Locate(number));
                }
                Order::Return { id, .. } => self.close(id.number() as usize, false),
                Order::Note { .. }
                | Order::Tell { .. }
                | Order::Warn { .. }
                | Order::Remove { .. }
                | Order::Retire { .. } => {}
            }
        }
    }

    /// The place that mail of a destination goes to.
    fn place(&self, destination: Destination, domain: u32) -> u32 {
        let site = self.queue.site_of(destination).and_then(|site| self.queue.site_name(site));
        let place = if self.ways == Ways::Plain { None } else { site.and_then(|name| name.parse().ok()) };
        place.unwrap_or(self.domains[domain as usize])
    }

    /// How many sources there are to a site.
    fn width(&self) -> usize {
        self.places.len() / SITES
    }

    /// Whether an attempt may begin as it was ordered; if not, it is the queue's again.
    fn admit(
        &mut self,
        attempt: AttemptId,
        destination: Destination,
        place: u32,
        orders: &mut Vec<Order>,
    ) -> bool {
        let (width, now) = (self.width(), self.now);
        let Some(egress) = &mut self.egress else { return true };
        let Lot(lot) = self.queue.lot(destination).expect("it is under way");
        // As many as may be are under way there: who has moved meanwhile took its attempts with it, as far as the queue counts them.
        let is_full = self.places[place as usize].under_way >= CONNECTIONS_MAX;
        let admission = match is_full {
            true => Admission::Later(Duration::from_secs(1)),
            false => egress.admit(place as usize % width, slot(lot), now),
        };
        match admission {
            Admission::Granted => return true,
            Admission::Elsewhere => self.queue.on_astray(destination),
            Admission::Later(wait) => {
                if let Some(site) = self.queue.site(&place.to_string()) {
                    self.queue.set_attempts_max(site, 0, now, orders);
                }
                self.places[place as usize].held = true;
                self.pause(place, wait);
            }
        }
        self.queue.on_postponed(attempt, now, orders);
        false
    }

    fn begin(&mut self, attempt: AttemptId, id: QueueId, destination: Destination, orders: &mut Vec<Order>) {
        let number = id.number() as usize;
        let Message { state, domain, not_before, .. } = self.messages[number];
        assert_eq!(state, State::Queued, "{number} is tried twice at once, or after its end");
        let number_of_place = self.place(destination, domain);
        if !self.admit(attempt, destination, number_of_place, orders) {
            return;
        }
        assert!(self.now.saturating_add(TICK) >= not_before, "{number} is tried too early");
        self.messages[number].state = State::Running;
        self.day.attempts += 1;
        let place = &mut self.places[number_of_place as usize];
        place.under_way += 1;
        let (mood, under_way) = (place.mood, place.under_way);
        assert!(self.ways == Ways::Plain || under_way <= CONNECTIONS_MAX, "{under_way} attempts at one site");
        let millis = match mood {
            Mood::Slow => 30_000 + self.random.below(30_000),
            Mood::Away(from, until) if self.is_hour(from, until) => 10_000,
            Mood::Well | Mood::Greylists | Mood::Limited(_) | Mood::Refuses | Mood::Away(..) => {
                50 + self.random.below(400)
            }
        };
        if self.ways != Ways::Plain {
            self.pace(number_of_place);
        }
        let key = self.next_attempt;
        self.next_attempt = self.next_attempt.wrapping_add(1);
        self.attempts.insert(key, Attempt { id: attempt, message: number, place: number_of_place });
        self.plan(self.now.saturating_add(Duration::from_millis(millis)), Event::End(key));
    }

    fn is_hour(&self, from: u64, until: u64) -> bool {
        let hour = (self.now.secs() - START.secs()) / HOUR;
        (from..until).contains(&hour)
    }

    fn end(&mut self, key: AttemptKey, orders: &mut Vec<Order>) {
        let Attempt { id: attempt, message: number, place: site } =
            self.attempts.remove(&key).expect("it is under way");
        self.places[site as usize].under_way -= 1;
        self.messages[number].state = State::Queued;
        let unreachable =
            matches!(self.places[site as usize].mood, Mood::Away(from, until) if self.is_hour(from, until));
        let refusal =
            if unreachable { Some((Category::Connection, false)) } else { self.answer(site, number) };
        if self.ways != Ways::Plain {
            let told = Told {
                category: refusal.map(|(category, _)| category),
                advice: Advice::None,
                rule: None,
                reply: "so it says",
            };
            let throttle = &mut self.places[site as usize].throttle;
            if unreachable {
                throttle.on_connect_failed("nobody is there", self.now);
                if let Some(site) = self.queue.site(&site.to_string()) {
                    self.queue.on_site_failed(site, self.now);
                }
            } else {
                throttle.on_outcome(&told, self.now);
            }
        }
        let outcome = match refusal {
            None => Outcome::Delivered,
            Some((_, true)) => Outcome::Failed,
            Some((category, false)) => Outcome::Deferred(self.deferral(number, category)),
        };
        match refusal {
            None => self.close(number, true),
            // Its end is ordered.
            Some((_, true)) => {}
            Some((category, false)) => {
                self.day.wasted += 1;
                self.day.refused_as_too_fast += u64::from(category == Category::Rate);
            }
        }
        self.queue.on_attempted(attempt, &[(0, outcome)], self.now, orders);
        if self.ways != Ways::Plain {
            self.apply(site, orders);
        }
    }

    /// When what was refused is tried again.
    fn deferral(&mut self, number: usize, category: Category) -> Deferral {
        let message = &mut self.messages[number];
        message.refusals = message.refusals.saturating_add(1);
        let Some(egress) = &self.egress else { return Status(4, 0, 0).into() };
        let (refusals, class) = (message.refusals, usize::from(message.class));
        let (deferral, not_before) = egress.deferral(category, class, refusals, self.now);
        message.not_before = not_before;
        deferral
    }

    /// What a site that is there says of a message: nothing, or what it is about and whether for good.
    fn answer(&mut self, site: u32, number: usize) -> Option<(Category, bool)> {
        let minute = self.now.secs() / 60;
        let place = &mut self.places[site as usize];
        match place.mood {
            Mood::Refuses => return Some((Category::Policy, false)),
            Mood::Limited(rate) => {
                if place.taken.0 != minute {
                    place.taken = (minute, 0);
                }
                if place.taken.1 >= rate {
                    return Some((Category::Rate, false));
                }
                place.taken.1 += 1;
            }
            Mood::Greylists => {
                let first = *self.greeted.entry(number).or_insert(self.now);
                if self.now.saturating_since(first) < Duration::from_secs(295) {
                    return Some((Category::Greylisted, false));
                }
            }
            Mood::Well | Mood::Slow | Mood::Away(..) => {}
        }
        match self.random.below(1000) {
            0..5 => Some((Category::BadMailbox, true)),
            5..8 => Some((Category::Quota, false)),
            _ => None,
        }
    }

    fn close(&mut self, number: usize, delivered: bool) {
        let width = self.width();
        let message = &mut self.messages[number];
        assert_eq!(message.state, State::Queued, "{number} ended twice, or while it was tried");
        message.state = State::Ended;
        let took = self.now.saturating_since(message.accepted_at);
        let site = self.domains[message.domain as usize] as usize;
        let well = self.places[site * width].mood == Mood::Well;
        let figures = &mut self.day.classes[usize::from(message.class)];
        if !delivered {
            figures.failed += 1;
            return;
        }
        figures.delivered += 1;
        let class = bucket(took);
        if figures.times.len() <= class {
            figures.times.resize(class + 1, 0);
        }
        figures.times[class] += 1;
        // Nobody's first attempt is refused there but for a full mailbox.
        if well && took < Duration::from_secs(240) {
            figures.well_max = figures.well_max.max(took);
        }
    }

    /// Nothing more goes to a site for so long, unless it is paused already.
    fn pause(&mut self, number: u32, wait: Duration) {
        if !std::mem::replace(&mut self.places[number as usize].paused, true) {
            self.plan(self.now.saturating_add(wait), Event::Resume(number));
        }
    }

    /// Holds a site to its pace: after each message, when there is a rate.
    fn pace(&mut self, number: u32) {
        let place = &mut self.places[number as usize];
        if let Some(rate) = place.throttle.limits(self.now).rate.filter(|rate| *rate > 0) {
            place.due = place.due.max(self.now).saturating_add(Duration::from_secs(60) / rate);
        }
    }

    /// Tells the queue how much there may be.
    fn apply(&mut self, number: u32, orders: &mut Vec<Order>) {
        let Some(site) = self.queue.site(&number.to_string()) else { return };
        let place = &mut self.places[number as usize];
        let allowed = place.throttle.limits(self.now);
        let wait = match (allowed.suspended_until, allowed.rate) {
            (Some(until), _) => until.saturating_since(self.now),
            (None, Some(_)) => place.due.saturating_since(self.now),
            (None, None) => Duration::ZERO,
        };
        let max = match (wait.is_zero(), allowed.rate) {
            (false, _) => 0,
            (true, Some(_)) => allowed.connections.min(place.under_way + 1),
            (true, None) => allowed.connections,
        };
        let max = if place.held { 0 } else { max };
        if !wait.is_zero() {
            self.pause(number, wait);
        }
        self.queue.set_attempts_max(site, max, self.now, orders);
    }
}

/// The slot in a lot of this day's.
fn slot(lot: u32) -> u16 {
    u16::try_from(lot.saturating_sub(1)).expect("there are 64")
}

fn source(class: usize, tenant: u32, count: u64, begins: Timestamp, during: Duration) -> Source {
    let gap = during / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    Source { class, tenant, next: begins, gap, left: count }
}

/// Fifths of octaves of milliseconds.
fn bucket(time: Duration) -> usize {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    let octave = millis.ilog2();
    (octave as usize) * 5 + (((millis - (1 << octave)) * 5) >> octave) as usize
}

/// Where a class of times ends.
fn bucket_end(bucket: usize) -> Duration {
    let (octave, fifth) = (bucket / 5, bucket as u64 % 5);
    Duration::from_millis((1 << octave) + (((fifth + 1) << octave) / 5))
}

impl Day {
    /// Attempts that led to nothing.
    pub const fn wasted(&self) -> u64 {
        self.wasted
    }

    /// Recipients that are queued at the end of the day.
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// How many have left from the source that has a plan, and from all.
    pub fn left_from_new(&self) -> (u64, u64) {
        (self.left_from[SOURCES.len() - 1], self.left_from.iter().sum())
    }

    /// The longest that mail of the highest class took to a site that is well, but for what it refused.
    pub const fn urgent_max(&self) -> Duration {
        self.classes[0].well_max
    }
}

impl Figures {
    /// Within this time so many of a thousand were delivered.
    fn quantile(&self, permille: u64) -> Duration {
        let wanted = self.delivered * permille / 1000;
        let mut sum = 0;
        for (bucket, count) in self.times.iter().enumerate() {
            sum += count;
            if sum >= wanted.max(1) {
                return bucket_end(bucket);
            }
        }
        Duration::ZERO
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        writeln!(f, "{:?}:", self.ways)?;
        for (name, figures) in CLASSES.iter().zip(&self.classes) {
            writeln!(
                f,
                "  {name:<7} {:>9} accepted, {:>9} delivered: half within {}, 99 % within {}, 99.9 % within {}",
                figures.accepted,
                figures.delivered,
                secs(figures.quantile(500)),
                secs(figures.quantile(990)),
                secs(figures.quantile(999)),
            )?;
        }
        if self.ways == Ways::Sources {
            let left: Vec<_> =
                SOURCES.iter().zip(self.left_from).map(|(name, left)| format!("{name} {left}")).collect();
            writeln!(f, "  from sources: {}", left.join(", "))?;
        }
        let (bytes, waiting) = self.fullest;
        writeln!(
            f,
            "  {} attempts, {} of them for nothing ({} refused as too fast); {} recipients are left",
            self.attempts, self.wasted, self.refused_as_too_fast, self.left
        )?;
        write!(f, "  at its fullest {waiting} recipients, {} octets each", bytes as u64 / waiting.max(1))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    /// A small day, both ways: ours loses nobody, wastes less, and keeps nobody waiting who is in a hurry.
    #[test]
    fn a_small_day() {
        for seed in 1..3 {
            let (ours, plain) = (day(seed, 60_000, Ways::Ours), day(seed, 60_000, Ways::Plain));
            println!("{ours}\n{plain}");
            assert!(ours.wasted() < plain.wasted(), "{ours}\n{plain}");
            assert!(ours.urgent_max() < Duration::from_secs(10), "{ours}");
        }
    }

    /// The same with sources that come and go, one of which has a plan, and with rules for retries.
    #[test]
    fn a_small_day_with_sources() {
        for seed in 1..3 {
            let (day, ours) = (day(seed, 60_000, Ways::Sources), day(seed, 60_000, Ways::Ours));
            println!("{day}\n{ours}");
            let (new, all) = day.left_from_new();
            assert_eq!(new, 60_000 / 40, "the plan of the new source is used up: {day}");
            assert_eq!(all, day.attempts, "{day}");
            // Rules know better when to come again than the schedule.
            assert!(day.wasted() < ours.wasted(), "{day}\n{ours}");
        }
    }
}
