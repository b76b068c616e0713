//! Lines on their way: order, loss, rotation, the levels of rooms.

use std::{fmt::Display, fs, path::Path};

use super::*;
use crate::events::{Accepted, Connected, Recovered, Retired};

/// A writer that nobody wakes sleeps until the test is killed.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);
const AT: u64 = 1_795_179_771_000_000;

fn options(path: &Path) -> Options {
    Options {
        format: Format::Text,
        output: Output::File(path.into()),
        levels: Levels::default(),
        buffer_bytes_max: 1 << 16,
        clock: || AT,
    }
}

fn say(core: &Core, local: &mut Local, number: u64) {
    local.write(core, AT, (Level::Info, "test", "numbered"), |line| {
        line.field("n", &number);
    });
}

fn numbers(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.rsplit_once("n=").unwrap().1.parse().unwrap()).collect()
}

#[test]
fn threads_lose_nothing_and_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Core::start(Options { buffer_bytes_max: 8 << 20, ..options(&path) }, FOR_EVER).unwrap();
    thread::scope(|scope| {
        for first in [0, 1_000_000] {
            let core = &log.core;
            scope.spawn(move || {
                let mut local = Local::new(core);
                (first..first + 20_000).for_each(|number| say(core, &mut local, number));
            });
        }
    });
    log.flush();
    let numbers = numbers(&path);
    let (low, high): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(|n| *n < 1_000_000);
    assert!(low.into_iter().eq(0..20_000) && high.into_iter().eq(1_000_000..1_020_000));
    assert_eq!(log.lines_dropped(), 0);
}

#[test]
fn a_sleeping_writer_wakes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Core::start(options(&path), FOR_EVER).unwrap();
    let mut local = Local::new(&log.core);
    for number in 0..3 {
        // Until the writer says that it sleeps: then only the line itself can wake it in time.
        while !log.core.asleep.load(SeqCst) {
            thread::yield_now();
        }
        say(&log.core, &mut local, number);
        while numbers(&path).len() as u64 <= number {
            thread::yield_now();
        }
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = Core::start(Options { buffer_bytes_max: 200, ..options(&path) }, FOR_EVER).unwrap();
    let mut local = Local::new(&log.core);
    // The writer cannot take what it cannot list.
    let slots = log.core.slots.lock().unwrap();
    (0..100).for_each(|number| say(&log.core, &mut local, number));
    drop(slots);
    log.flush();
    let written = numbers(&path).len() as u64;
    assert!((2..10).contains(&written), "{written}");
    assert_eq!(written + log.lines_dropped(), 100);
}

#[test]
fn a_rotated_file_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
    let log = Core::start(options(&path), FOR_EVER).unwrap();
    let mut local = Local::new(&log.core);
    say(&log.core, &mut local, 1);
    log.flush();
    fs::rename(&path, &moved).unwrap();
    log.reopen().unwrap();
    log.flush();
    say(&log.core, &mut local, 2);
    drop(log);
    assert_eq!((numbers(&moved), numbers(&path)), (vec![1], vec![2]));
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let error = Core::start(options(Path::new("/nonexistent/log")), FOR_EVER).unwrap_err().to_string();
    assert!(
        error.contains("/nonexistent/log") && error.contains("check that its directory exists"),
        "{error}"
    );
}

/// The one test of the log of the process, since there is one.
#[test]
fn events_tracing_and_libraries_share_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let rooms = vec![("queue".to_owned(), Level::Debug), ("journal".to_owned(), Level::Warn)];
    let levels = Levels { rooms, ..Levels::default() };
    let log = start(Options { levels, ..options(&path) }).unwrap();
    assert!(matches!(start(options(&path)), Err(LogError::Twice)));
    let id = &"0G0000000000A" as &dyn Display;
    let client = "192.0.2.1:2525".parse().unwrap();
    let accepted = Accepted {
        id,
        from: "",
        nrcpt: 1,
        size: 7,
        client,
        helo: "a b",
        orig_client: None,
        orig_helo: None,
        orig_id: None,
        proto: "ESMTP",
        tls: None,
        cert: None,
        msgid: None,
        tenant: None,
        campaign: None,
        spf: None,
        dkim: None,
        dmarc: None,
        unsubscribe: None,
        signatures: None,
    };
    accepted.emit(AT);
    Connected { client, listener: "smtp", proxy: None }.emit(AT);
    Retired { id, delay: Some(Duration::from_secs(3)) }.emit(AT);
    let recovered =
        Recovered { shard: 0, messages: 0, recipients: 0, records: 0, torn: 0, took: Duration::ZERO };
    recovered.emit(AT);
    tracing::info!(target: "sled::pagecache", size = 4, name = "x y", "flushed\n{}", 1);
    tracing::debug!("not written");
    ::log::warn!(target: "sled::pagecache::iobuf", "slow: {} ms", 7);
    ::log::info!(target: "sled::pagecache", "not written");
    ::log::error!(target: "glommio::reactor", "got unexpected error when probing iopoll support for {}", "x");
    let said = || {
        // What is said while a line is being written would end in itself: it is lost, and that is all.
        ::log::error!(target: "glommio", "within");
        "outer"
    };
    ::log::error!(target: "glommio", "{}", fmt::from_fn(|f| f.write_str(said())));
    assert_eq!(log.lines_dropped(), 1);
    log.set_levels(&Levels { level: Level::Debug, libraries: Level::Debug, rooms: Vec::new() });
    assert!(Connected::enabled());
    tracing::debug!(target: "smtp", "written");
    ::log::debug!(target: "sled", "too");
    ::log::trace!(target: "sled", "not written");
    log.set_levels(&Levels { level: Level::Error, libraries: Level::Debug, rooms: Vec::new() });
    ::log::warn!(target: "sled", "not more than rooms may");
    ::log::logger().log(&::log::Record::builder().level(::log::Level::Warn).target("sled").build());
    log.flush();
    log.set_levels(&Levels { level: Level::Off, ..Levels::default() });
    drop(log);
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "2026-11-20T13:02:51.000000Z info smtp accepted id=0G0000000000A from=\"\" nrcpt=1 size=7 \
         client=192.0.2.1:2525 helo=\"a b\" proto=ESMTP\n\
         2026-11-20T13:02:51.000000Z debug queue retired id=0G0000000000A delay=3\n\
         2026-11-20T13:02:51.000000Z info sled said text=\"flushed\\n1\" size=4 name=\"x y\"\n\
         2026-11-20T13:02:51.000000Z warn sled said text=\"slow: 7 ms\" target=sled::pagecache::iobuf\n\
         2026-11-20T13:02:51.000000Z error glommio said text=outer target=glommio\n\
         2026-11-20T13:02:51.000000Z debug smtp said text=written\n\
         2026-11-20T13:02:51.000000Z debug sled said text=too target=sled\n"
    );
}
