//! What does the journal cost: time to append a message of 4 KiB and to retire it, time a message takes at restart,
//! octets for each live message?
//!
//! `cargo bench -p bench --bench journal`

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use journal::{
    AppendError, AppendMessage, Content, Journal, Limits, Order, Recovery, SegmentFile, Start, Step,
    virtual_disk::{VirtualDisk, commit, obey, recover},
};
use mail::{BodyType, Envelope, JournalShard, Notify, QueueId, Recipient, ReversePath, Timestamp, Utf8};

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

const SHARD: JournalShard = JournalShard(1);
const GROUP: usize = 64;
const RESTART: u64 = 200_000;

fn envelope() -> Envelope {
    let recipient = Recipient {
        address: "someone@destination.example".parse().expect("an address"),
        notify: Notify::default(),
        original: None,
    };
    Envelope {
        received_at: Timestamp::from_secs(1_763_629_500),
        reverse_path: ReversePath::Address("sender@origin.example".parse().expect("an address")),
        recipients: vec![recipient],
        body: BodyType::EightBitMime,
        utf8: Utf8::NotNeeded,
        ret: None,
        envelope_id: None,
        handling: mail::Handling::default(),
        upstream: None,
    }
}

fn fresh() -> Journal {
    let recovery = Recovery::new(SHARD, Limits::default(), Timestamp(1), Vec::<SegmentFile>::new());
    assert_eq!(recovery.step(), Step::Done);
    recovery.finish().expect("there is nothing to go wrong").journal
}

/// Files are ready at once.
fn prepare(journal: &mut Journal) {
    let mut orders = Vec::new();
    journal.orders(&mut orders);
    for order in orders {
        match order {
            Order::Create { segment, .. } | Order::Recycle { segment, .. } => journal.on_prepared(segment),
            Order::Remove { segment } => journal.on_removed(segment),
            Order::Rescue { .. } => unreachable!("everything is retired in time"),
        }
    }
}

fn append(journal: &mut Journal, envelope: &Envelope, content: &[Bytes]) -> QueueId {
    let message = AppendMessage { envelope, states: &[], content: Content::Whole(content) };
    loop {
        match journal.append_message(&message) {
            Ok(appended) => return appended.id,
            Err(AppendError::NotReady) => prepare(journal),
            Err(error) => panic!("{error}"),
        }
    }
}

fn groups(c: &mut Criterion) {
    let (mut journal, envelope) = (fresh(), envelope());
    let content = [Bytes::from(vec![b'a'; 1000]), Bytes::from(vec![b'b'; 3096])];
    let mut group = c.benchmark_group("journal");
    group.throughput(Throughput::Elements(GROUP as u64)).measurement_time(Duration::from_secs(3));
    group.bench_function("append and retire a message of 4 KiB, 64 in a group", |b| {
        b.iter(|| {
            let ids: [QueueId; GROUP] =
                std::array::from_fn(|_| append(&mut journal, &envelope, black_box(&content)));
            for id in ids {
                journal.append_retired(id).expect("it is live");
            }
            let group = journal.begin_group().expect("something has gathered");
            journal.on_durable(black_box(group).id);
            prepare(&mut journal);
        });
    });
    group.finish();
}

fn restart(c: &mut Criterion) {
    let (mut journal, mut disk, envelope) = (fresh(), VirtualDisk::default(), envelope());
    for _ in 0..RESTART {
        let message = AppendMessage { envelope: &envelope, states: &[], content: Content::Whole(&[]) };
        while journal.append_message(&message).is_err() {
            commit(&mut journal, &mut disk).expect("the disk works");
            let orders = obey(&mut journal, &mut disk).expect("the disk works");
            assert!(orders.is_empty(), "nothing is to be rescued");
        }
    }
    commit(&mut journal, &mut disk).expect("the disk works");
    drop(journal);
    let limits = Limits::default();
    let open =
        || recover(&disk, SHARD, limits, Timestamp(9), Start::Beginning, Vec::new()).expect("it opens");
    let recovered = open();
    let with_entries = IN_USE.load(Ordering::Relaxed);
    drop(recovered.entries);
    let with_journal = IN_USE.load(Ordering::Relaxed);
    drop(recovered.journal);
    let without = IN_USE.load(Ordering::Relaxed);
    println!(
        "a live message: {} octets in the journal, {} more as an entry at restart",
        (with_journal - without) / RESTART as usize,
        (with_entries - with_journal) / RESTART as usize,
    );
    let mut group = c.benchmark_group("journal");
    group.throughput(Throughput::Elements(RESTART)).sample_size(10);
    group.bench_function("restart, for each live message", |b| {
        b.iter_batched(|| (), |()| open(), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, groups, restart);
criterion_main!(benches);
