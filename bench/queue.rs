//! What does the queue cost: time for a message that is delivered at once, for one that is deferred, for a
//! restart; octets for each queued recipient?
//!
//! `cargo bench -p bench --bench queue`

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mail::{JournalShard, QueueId, Status, Timestamp};
use queue::{
    Accepted, Command, Cursor, Destination, Filter, Kind, Limits, MessageState, Order, Outcome, Priority,
    Queue, RecipientState, Restored, Schedule, Selector, State, Times, Warning,
};

/// The system's allocator, counted.
struct Counted;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator is unsafe to be; this one only counts")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const START: Timestamp = Timestamp::from_secs(1_763_629_500);
const MILLION: u64 = 1_000_000;

fn id(number: u64) -> QueueId {
    QueueId::new(JournalShard(1), number)
}

fn empty() -> Queue {
    let limits = Limits { attempts_max: 4096, site_attempts_max: 1024, ..Limits::default() };
    Queue::new(limits, Schedule::default(), 1, START)
}

fn restore(queue: &mut Queue, number: u64, recipients: &[RecipientState]) {
    let message = MessageState {
        id: id(number),
        received_at: START,
        size: 4096,
        priority: Priority::Normal,
        kind: Kind::Message,
        warning: Warning::Wanted,
        give_up_at: None,
        times: Times::default(),
    };
    queue.restore(&Restored { message, recipients }, START);
}

fn deferred(recipient: u32, destination: Destination, number: u64) -> RecipientState {
    // Spread over the hours of the longest wait.
    let due = START.saturating_add(Duration::from_millis(number * 7919 % 10_800_000));
    let (state, status) = (State::Deferred, Some(Status(4, 4, 1)));
    RecipientState { recipient, destination, state, attempts: 3, due, status, category: None }
}

/// A queue of deferred messages, as after a restart.
fn million(recipients: u32, sites: u64) -> Queue {
    let mut queue = empty();
    for number in 0..MILLION / u64::from(recipients) {
        let name = format!("mx:domain-{}.example", number % sites);
        let destination = queue.intern(&name, START);
        let states: Vec<_> =
            (0..recipients).map(|recipient| deferred(recipient, destination, number)).collect();
        restore(&mut queue, number, &states);
    }
    queue
}

/// Messages that come, are tried and delivered, a few under way at a time.
fn throughput(c: &mut Criterion) {
    let mut group = c.benchmark_group("queue");
    group.throughput(Throughput::Elements(1));
    for (name, sites, crowd) in
        [("1 destination", 1, 0), ("1000 destinations", 1000, 0), ("beside a million", 1000, 1)]
    {
        let mut queue = if crowd == 0 { empty() } else { million(1, 1000) };
        let names: Vec<_> = (0..sites).map(|site| format!("mx:domain-{site}.example")).collect();
        let (mut number, mut now, mut orders) = (2 * MILLION, START, Vec::new());
        let mut under_way = std::collections::VecDeque::new();
        group.bench_function(format!("accepted, tried, delivered, retired: {name}"), |b| {
            b.iter(|| {
                number += 1;
                now.0 += 1;
                let destination = queue.intern(&names[number as usize % sites], now);
                let accepted = Accepted {
                    id: id(number),
                    received_at: now,
                    size: 4096,
                    priority: Priority::Normal,
                    kind: Kind::Message,
                    warning: Warning::Wanted,
                    times: Times::default(),
                    recipients: &[(0, destination)],
                };
                queue.on_accepted(&accepted, now, &mut orders);
                for order in orders.drain(..) {
                    if let Order::Attempt { attempt, .. } = order {
                        under_way.push_back(attempt);
                    }
                }
                if under_way.len() > 500 {
                    let attempt = under_way.pop_front().expect("it is not empty");
                    queue.on_attempted(attempt, &[(0, Outcome::Delivered)], now, &mut orders);
                }
            });
        });
    }
    group.finish();
}

/// A million recipients: taken in at a restart, tried once and deferred, held.
fn crowds(c: &mut Criterion) {
    let mut group = c.benchmark_group("a million recipients");
    group.sample_size(10).throughput(Throughput::Elements(MILLION));
    group.bench_function("restored", |b| b.iter_with_large_drop(|| million(1, 1000)));
    group.bench_function("due, tried, deferred", |b| {
        let round = |mut queue: Queue| {
            let (mut now, mut ended, mut orders) = (START, 0, Vec::new());
            while ended < MILLION {
                now = queue.wake_after(now).expect("somebody waits");
                queue.on_tick(now, &mut orders);
                while let Some(order) = orders.pop() {
                    if let Order::Attempt { attempt, .. } = order {
                        let outcomes = [(0, Outcome::Deferred(Status(4, 4, 1).into()))];
                        queue.on_attempted(attempt, &outcomes, now, &mut orders);
                        ended += 1;
                    }
                }
            }
            queue
        };
        b.iter_batched(|| million(1, 1000), round, BatchSize::PerIteration);
    });
    group.bench_function("held", |b| {
        let hold = |mut queue: Queue| {
            let (mut cursor, mut orders) = (Some(Cursor::default()), Vec::new());
            while let Some(from) = cursor {
                cursor = queue.on_command(Command::Hold, Selector::All, from, START, &mut orders).next;
                orders.clear();
            }
            queue
        };
        b.iter_batched(|| million(1, 1000), hold, BatchSize::PerIteration);
    });
    group.finish();
    let queue = million(1, 1000);
    c.bench_function("one page of a listing, a thousandth fits", |b| {
        let destination = queue.list_destinations(Cursor::default(), 1).items[0].destination;
        let filter = Filter { destinations: Some(&[destination]), ..Filter::default() };
        b.iter(|| black_box(queue.list(&filter, Cursor::default(), 100)));
    });
}

/// Not a time: octets in use, by a count of all allocations.
fn memory(_: &mut Criterion) {
    for (name, recipients, sites) in [
        ("1 recipient a message, 1000 destinations", 1, 1000),
        ("10 recipients a message, 1000 destinations", 10, 1000),
        ("1 recipient a message, a destination each", 1, MILLION),
    ] {
        let before = IN_USE.load(Ordering::Relaxed);
        let queue = million(recipients, sites);
        let octets = IN_USE.load(Ordering::Relaxed) - before;
        let each = octets as f64 / queue.counts().total() as f64;
        println!("{name}: {each:.1} octets for each recipient");
        // The queue's own books leave out what moved into its struct, and nothing else.
        let (told, apart) = (queue.memory(), queue.memory().abs_diff(octets));
        assert!(apart * 100 < octets, "{name}: {octets} octets are in use, {told} in the books");
    }
}

criterion_group!(benches, memory, throughput, crowds);
criterion_main!(benches);
