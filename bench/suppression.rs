//! What do suppression lists of millions cost: memory, the look for a recipient, the start, and a change?
//!
//! `cargo bench -p bench --bench suppression -- 5000000`; less by default, so that it is quick to try. The start is that of a process of
//! its own, whose memory nobody has used before. Everything goes through what the server has for it, the files too: in a directory
//! under `TMPDIR`, which wants some 100 octets for each entry, twice for a moment.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "this is about time and memory, and there is nobody to tell of an error"
)]

use std::{
    env,
    fmt::Display,
    hint::black_box,
    path::Path,
    process::{self, Command},
    time::{Duration, Instant},
};

use bridge::Tenancy;
use mail::{Address, ListId, TenantId, Timestamp};
use pool::Suppression;
use tenancy::{CaseOfLocalParts, Change, Entry, Reason, Scope, Whom};
use tokio::runtime::{Builder, Runtime};

/// Entries, where nobody says how many.
const ENTRIES: u64 = 100_000;
/// Changes that are asked for at once while the lists are filled.
const BATCH: u64 = 1000;
/// Looks for recipients that are timed.
const LOOKS: u64 = 1_000_000;
/// Changes that are timed, one after the other, each durable before the next.
const CHANGES: usize = 200;
const TENANT: &str = "shop";

fn main() {
    let mut numbers = env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let entries = numbers.next_back().unwrap_or(ENTRIES);
    let directory = env::temp_dir().join(format!("ringpost-suppression-{}", process::id()));
    match env::var_os("RINGPOST_BENCH_OPEN") {
        Some(directory) => open(Path::new(&directory), entries),
        None => {
            std::fs::create_dir_all(&directory).unwrap();
            fill(&directory, entries);
            let mut child = Command::new(env::current_exe().unwrap());
            let status = child.arg(entries.to_string()).env("RINGPOST_BENCH_OPEN", &directory).status();
            std::fs::remove_dir_all(&directory).unwrap();
            assert!(status.unwrap().success(), "the start has failed");
        }
    }
}

/// The lists, and a runtime for whoever waits for them.
fn lists(directory: &Path) -> (Tenancy, pool::Keeper, Runtime) {
    let (tenancy, desk) = Tenancy::new(CaseOfLocalParts::Ignored, 1024);
    let keeper = Suppression::open(directory, desk, now).unwrap().keep().unwrap();
    (tenancy, keeper, Builder::new_current_thread().enable_time().build().unwrap())
}

/// Makes the entries.
fn fill(directory: &Path, entries: u64) {
    let (tenancy, keeper, runtime) = lists(directory);
    let began = Instant::now();
    for first in (0..entries).step_by(BATCH as usize) {
        let batch = (first..entries.min(first + BATCH)).map(|number| Change::Add(entry(number)));
        runtime.block_on(tenancy.change(batch.collect())).unwrap();
    }
    tell("made, in groups of 1000", per(began.elapsed(), entries));
    tell("on disk", format!("{} octets an entry", size(&directory.join("suppression")) / entries.max(1)));
    drop(tenancy);
    keeper.end(Duration::from_secs(60));
}

/// Starts with them, looks and changes.
fn open(directory: &Path, entries: u64) {
    let (before, began) = (resident(), Instant::now());
    let (tenancy, keeper, runtime) = lists(directory);
    let took = began.elapsed();
    assert_eq!(tenancy.entries(), entries, "all are there");
    tell("entries", entries);
    tell("start", format!("{:.3} s, {}", took.as_secs_f64(), per(took, entries)));
    let grown = resident().saturating_sub(before);
    tell("resident", format!("{} MiB, {:.1} octets an entry", grown >> 20, grown as f64 / entries as f64));

    let (tenant, now) = (TenantId::of(TENANT), now());
    let look = |name: &str, addresses: &[Address], expected: bool| {
        let began = Instant::now();
        let mut found = 0;
        for number in 0..LOOKS {
            let address = &addresses[number as usize % addresses.len()];
            let on_it = tenancy.suppressed(black_box(tenant), ListId::NONE, black_box(address), now);
            found += u64::from(on_it.is_some());
        }
        tell(name, per(began.elapsed(), LOOKS));
        assert_eq!(found, if expected { LOOKS } else { 0 }, "{name}");
    };
    // From all over, so that few are in a cache.
    let spread = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % entries.max(1);
    let on_it: Vec<_> = (0..100_000).map(|number| address(spread(number))).collect();
    let not_on_it: Vec<_> = (0..100_000).map(|number| address(entries + number)).collect();
    look("a look, somebody on the list", &on_it, true);
    look("a look, somebody else", &not_on_it, false);

    let mut times: Vec<_> = (0..CHANGES as u64)
        .map(|number| {
            let began = Instant::now();
            let change = Change::Add(entry(entries + number));
            assert_eq!(runtime.block_on(tenancy.change(vec![change])).unwrap(), 1);
            began.elapsed()
        })
        .collect();
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_micros();
    tell("a change, durable", format!("{} µs (99 %: {} µs)", at(50), at(99)));
    drop(tenancy);
    keeper.end(Duration::from_secs(60));
}

fn address(number: u64) -> Address {
    format!("somebody{number}@mail{}.example.net", number % 1000).parse().unwrap()
}

fn entry(number: u64) -> Entry {
    Entry {
        scope: Scope::tenant(TENANT),
        whom: Whom::Address(address(number)),
        reason: Reason::Bounce,
        since: now(),
        until: None,
        note: "0G00000000A1C 5.1.1".into(),
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(since.as_micros() as u64)
}

/// Octets of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn size(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

fn per(took: Duration, count: u64) -> String {
    format!("{:.2} µs each", took.as_secs_f64() * 1e6 / count.max(1) as f64)
}

fn tell(what: &str, value: impl Display) {
    println!("{what:<32} {value}");
}
