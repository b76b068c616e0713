//! How long one may wait: single messages beside crowds for the same site, and the bound that docs/queue.md states.
//!
//! The queue is as it is; of the shard there is what matters here: a lane, in which what was ordered waits in its order, and so many
//! connections, each with one message at a time, which takes as long as it likes up to a bound. As there, the queue orders two attempts for
//! each connection.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::Duration,
};

use mail::{JournalShard, QueueId, Timestamp};

use crate::{schedule::mix, *};

const START: Timestamp = Timestamp::from_secs(1_763_596_800);
/// The longest that a next hop takes for a message.
const REPLY_MAX: Duration = Duration::from_secs(2);
/// Who sends single messages.
const SINGLE: Tenant = Tenant(1);
/// Ticks of the queue.
const SLACK: Duration = Duration::from_millis(200);

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0) % end
    }
}

/// A crowd, of a tenant in a class.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    tenant: Tenant,
    weight: u32,
    priority: Priority,
    /// How many messages there are, all at the beginning.
    size: u64,
}

/// A site with a lane and connections, and who sends there.
struct World {
    random: Random,
    queue: Queue,
    now: Timestamp,
    connections: usize,
    lane: VecDeque<(AttemptId, QueueId)>,
    busy: BinaryHeap<Reverse<(Timestamp, u64)>>,
    under_way: BTreeMap<u64, (AttemptId, QueueId)>,
    serial: u64,
    messages: u64,
    /// When single messages came that are not delivered yet.
    waiting: BTreeMap<QueueId, Timestamp>,
    longest: Duration,
}

impl World {
    fn new(seed: u64, connections: usize, crowds: &[Crowd]) -> Self {
        let site_attempts_max = 2 * connections as u32;
        let limits = Limits { site_attempts_max, ..Limits::default() };
        let mut queue = Queue::new(limits, Schedule::default(), seed, START);
        queue.set_weights(crowds.iter().map(|crowd| (crowd.tenant, crowd.weight)));
        Self {
            random: Random(seed << 20),
            queue,
            now: START,
            connections,
            lane: VecDeque::new(),
            busy: BinaryHeap::new(),
            under_way: BTreeMap::new(),
            serial: 0,
            messages: 0,
            waiting: BTreeMap::new(),
            longest: Duration::ZERO,
        }
    }

    fn accept(&mut self, tenant: Tenant, priority: Priority) -> QueueId {
        let id = QueueId::new(JournalShard(0), self.messages);
        self.messages += 1;
        // Several destinations of one site.
        let name = format!("mx:{}.example", self.random.below(3));
        let owner = (tenant, Lot::default());
        let to = self.queue.intern_for(owner, &name, Whereabouts::Asked, self.now);
        let accepted = Accepted {
            id,
            received_at: self.now,
            size: 1000,
            priority,
            kind: Kind::Message,
            warning: Warning::Unwanted,
            times: Times::default(),
            recipients: &[(0, to)],
        };
        let mut orders = Vec::new();
        self.queue.on_accepted(&accepted, self.now, &mut orders);
        self.follow(orders);
        id
    }

    fn follow(&mut self, mut orders: Vec<Order>) {
        while let Some(at) = orders.iter().position(|order| matches!(order, Order::Locate { .. })) {
            if let Order::Locate { destination } = orders.remove(at) {
                let day = Duration::from_secs(86_400);
                self.queue.on_located(destination, "site:one", day, self.now, &mut orders);
            }
        }
        for order in orders {
            if let Order::Attempt { attempt, id, .. } = order {
                self.lane.push_back((attempt, id));
            }
        }
        while self.busy.len() < self.connections {
            let Some((attempt, id)) = self.lane.pop_front() else { break };
            // Some are quick, many are as slow as may be.
            let most = REPLY_MAX.as_millis() as u64;
            let took = if self.random.below(3) == 0 { 1 + self.random.below(most) } else { most };
            let end = self.now.saturating_add(Duration::from_millis(took));
            self.under_way.insert(self.serial, (attempt, id));
            self.busy.push(Reverse((end, self.serial)));
            self.serial += 1;
        }
        let attempts = self.lane.len() + self.busy.len();
        assert!(attempts <= 2 * self.connections, "{attempts} attempts, {} connections", self.connections);
    }

    /// Lives so long, with single messages of a class now and then, one at a time; how long one of them has waited at most.
    fn live(&mut self, crowds: &[Crowd], single: Priority, during: Duration) -> Duration {
        for crowd in crowds {
            for _ in 0..crowd.size {
                self.accept(crowd.tenant, crowd.priority);
            }
        }
        let end = START.saturating_add(during);
        let mut next = self.now;
        while self.now < end || !self.waiting.is_empty() {
            let ends = self.busy.peek().map(|Reverse((at, ..))| *at);
            if self.now < end && ends.is_none_or(|at| next <= at) {
                self.now = self.now.max(next);
                next = self.now.saturating_add(Duration::from_millis(1 + self.random.below(10_000)));
                if self.waiting.is_empty() {
                    let id = self.accept(SINGLE, single);
                    self.waiting.insert(id, self.now);
                }
                continue;
            }
            let Some(Reverse((at, serial))) = self.busy.pop() else { break };
            self.now = self.now.max(at);
            let (attempt, id) = self.under_way.remove(&serial).expect("it is under way");
            if let Some(came) = self.waiting.remove(&id) {
                self.longest = self.longest.max(self.now.saturating_since(came));
            }
            let mut orders = Vec::new();
            self.queue.on_attempted(attempt, &[(0, Outcome::Delivered)], self.now, &mut orders);
            self.follow(orders);
        }
        assert!(self.waiting.is_empty(), "a single message was forgotten");
        let left = self.queue.counts().total();
        assert!(crowds.is_empty() || left > 0, "the crowd has ended too early to say anything");
        self.longest
    }
}

/// As docs/queue.md has it: what is on its way and what is to follow on each connection, a turn of each other tenant in the class by its
/// weight and for each four of these one of a lower class, and the message itself.
fn bound(connections: usize, crowds: &[Crowd], single: Priority) -> Duration {
    let turns: u32 = crowds.iter().filter(|crowd| crowd.priority == single).map(|crowd| crowd.weight).sum();
    let is_lower = |crowd: &Crowd| crowd.priority as u8 > single as u8;
    let lower = if crowds.iter().any(is_lower) { (turns + 1).div_ceil(4) } else { 0 };
    REPLY_MAX * 3 + REPLY_MAX * (turns + lower) / connections as u32 + SLACK
}

fn check(seed: u64, connections: usize, crowds: &[Crowd], single: Priority) -> Duration {
    let longest = World::new(seed, connections, crowds).live(crowds, single, Duration::from_secs(600));
    let bound = bound(connections, crowds, single);
    assert!(longest <= bound, "seed {seed}: {longest:?} of {bound:?}, {connections} connections, {crowds:?}");
    longest
}

#[test]
fn nobody_waits_longer_than_the_bound() {
    let seeds = match std::env::var("SEED").map(|seed| seed.parse::<u64>()) {
        Ok(Ok(seed)) => seed..seed + 1,
        _ => 1..41,
    };
    for seed in seeds {
        let mut random = Random(seed);
        let connections = 1 + random.below(5) as usize;
        let classes = [Priority::Urgent, Priority::Normal, Priority::Bulk];
        let single = classes[random.below(2) as usize];
        // Crowds of others in any class, and of its own tenant in a lower one.
        let mut crowds: Vec<_> = (0..1 + random.below(4))
            .map(|number| Crowd {
                tenant: Tenant(10 + number as u32),
                weight: 1 + random.below(3) as u32,
                priority: classes[random.below(3) as usize],
                size: 4000,
            })
            .collect();
        crowds.retain(|crowd| crowd.priority as u8 >= single as u8);
        crowds.push(Crowd { tenant: SINGLE, weight: 1, priority: Priority::Bulk, size: 4000 });
        check(seed, connections, &crowds, single);
    }
}

/// A newsletter, and a message of the same tenant in the class above: with one connection, it waits for two messages, and for one more.
#[test]
fn a_newsletter_does_not_keep_a_password_reset_waiting() {
    let news = [Crowd { tenant: SINGLE, weight: 1, priority: Priority::Bulk, size: 20_000 }];
    for (connections, rounds) in [(1, 4.0), (2, 3.5), (10, 3.1)] {
        let longest = check(7, connections, &news, Priority::Urgent);
        assert!(longest <= REPLY_MAX.mul_f64(rounds) + SLACK, "{longest:?}");
        // The bound is one that is met: who waits no time at all has not met a crowd.
        assert!(longest > REPLY_MAX, "{longest:?}");
    }
}

/// Crowds for a thousand sites that say nothing have places of the partition, and not the last ones.
#[test]
fn hosts_that_hang_do_not_take_every_place() {
    let limits = Limits { attempts_max: 64, ..Limits::default() };
    let mut queue = Queue::new(limits, Schedule::default(), 1, START);
    let mut accept = |number: u64, name: &str, priority| {
        let to = queue.intern(name, START);
        let accepted = Accepted {
            id: QueueId::new(JournalShard(0), number),
            received_at: START,
            size: 1000,
            priority,
            kind: Kind::Message,
            warning: Warning::Unwanted,
            times: Times::default(),
            recipients: &[(0, to)],
        };
        let mut orders = Vec::new();
        queue.on_accepted(&accepted, START, &mut orders);
        assert!(queue.wake_after(START) != Some(START), "it would be asked for ever what there is to do");
        orders.iter().filter(|order| matches!(order, Order::Attempt { .. })).count()
    };
    let begun = |priority, from: u64, accept: &mut dyn FnMut(u64, &str, Priority) -> usize| -> usize {
        (from..from + 1000).map(|number| accept(number, &format!("mx:d{number}.example"), priority)).sum()
    };
    let places = |priority| limits.attempts_max_of(priority) as usize;
    let bulk = begun(Priority::Bulk, 0, &mut accept);
    assert_eq!(bulk, places(Priority::Bulk));
    assert_eq!(bulk + begun(Priority::Normal, 1000, &mut accept), places(Priority::Normal));
    // What is urgent goes at once, though a thousand wait in front of it.
    assert_eq!(accept(5000, "mx:well.example", Priority::Urgent), 1);
    assert_eq!(accept(5001, "mx:well.example", Priority::Urgent), 1);
}

/// A core has the connection in turns with others: what was ordered and finds none is put back, and has lost nothing by it.
#[test]
fn who_is_put_back_has_its_turn_at_once() {
    for (crowd, single) in [(Tenant(1), Tenant(2)), (Tenant(2), Tenant(1))] {
        let mut queue = Queue::new(Limits::default(), Schedule::default(), 1, START);
        let mut orders = Vec::new();
        let mut count = 0;
        let mut accept = |queue: &mut Queue, tenant: Tenant, orders: &mut Vec<Order>| {
            let id = QueueId::new(JournalShard(0), count);
            count += 1;
            let to = queue.intern_for((tenant, Lot(0)), "hop:one", Whereabouts::Own, START);
            let accepted = Accepted {
                id,
                received_at: START,
                size: 1,
                priority: Priority::Normal,
                kind: Kind::Message,
                warning: Warning::Unwanted,
                times: Times::default(),
                recipients: &[(0, to)],
            };
            queue.on_accepted(&accepted, START, orders);
            id
        };
        let attempts = |orders: &mut Vec<Order>| -> Vec<(AttemptId, QueueId)> {
            let of = |order: Order| {
                if let Order::Attempt { attempt, id, .. } = order { Some((attempt, id)) } else { None }
            };
            std::mem::take(orders).into_iter().filter_map(of).collect()
        };
        // Nobody has been tried yet: the core has had no connection.
        let first = accept(&mut queue, crowd, &mut orders);
        let site = queue.site("hop:one").unwrap();
        for (attempt, id) in attempts(&mut orders) {
            assert_eq!(id, first);
            queue.set_attempts_max(site, 0, START, &mut orders);
            queue.on_postponed(attempt, START, &mut orders);
        }
        for _ in 0..10 {
            accept(&mut queue, crowd, &mut orders);
        }
        let wanted = accept(&mut queue, single, &mut orders);
        assert!(attempts(&mut orders).is_empty());
        queue.set_attempts_max(site, 3, START, &mut orders);
        let begun = attempts(&mut orders);
        assert_eq!(begun.len(), 3);
        queue.set_attempts_max(site, 2, START, &mut orders);
        // As one that finds no connection, or that was to follow when the connection's turn has ended.
        let (put_back, _) = begun.iter().find(|(_, id)| *id == wanted).unwrap();
        queue.on_postponed(*put_back, START, &mut orders);
        let (ended, _) = begun.iter().find(|(_, id)| *id != wanted).unwrap();
        queue.on_attempted(*ended, &[(0, Outcome::Delivered)], START, &mut orders);
        let next = attempts(&mut orders);
        assert_eq!(next.first().map(|(_, id)| *id), Some(wanted), "{next:?}");
    }
}
