//! What both ends do the same way: run shards, show progress once a second, end when told.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context as _, Result};

use crate::histogram::Histogram;

/// What the shards of one end share with the thread that watches them.
pub(crate) struct Shared<T> {
    totals: Mutex<T>,
    stop: AtomicBool,
    done: AtomicBool,
}

impl<T> Shared<T> {
    pub(crate) fn new(totals: T) -> Arc<Self> {
        Arc::new(Self {
            totals: Mutex::new(totals),
            stop: AtomicBool::new(false),
            done: AtomicBool::new(false),
        })
    }

    pub(crate) fn totals(&self) -> MutexGuard<'_, T> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more work is to be begun.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Whether to say once a second how it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// On stderr.
    Shown,
    /// Not at all.
    #[default]
    Quiet,
}

/// How often the watching thread looks.
const LOOK: Duration = Duration::from_millis(20);

/// Starts the shards, watches them until they end or `over` says so, and joins them.
///
/// `over` is asked several times a second, `line` makes the progress line of the last second.
pub(crate) fn watch<T: Send + 'static>(
    shared: &Arc<Shared<T>>,
    shards: Vec<ring::Handle<()>>,
    progress: Progress,
    mut over: impl FnMut(&mut T, Duration) -> bool,
    mut line: impl FnMut(&mut T, Duration, Duration) -> String,
) -> Result<()> {
    let begin = ring::clock::now();
    let waiter = {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let results: Vec<_> = shards.into_iter().map(ring::Handle::join).collect();
            shared.done.store(true, Ordering::Relaxed);
            results.into_iter().collect::<Result<Vec<()>, _>>()
        })
    };
    let mut last = begin;
    while !shared.done.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
        let now = ring::clock::now();
        if INTERRUPTED.load(Ordering::Relaxed) || over(&mut shared.totals(), now - begin) {
            shared.stop();
        }
        if now - last >= Duration::from_secs(1) {
            let text = line(&mut shared.totals(), now - begin, now - last);
            if progress == Progress::Shown {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
            last = now;
        }
    }
    waiter.join().ok().context("the watching thread panicked")?.context("a shard failed")?;
    Ok(())
}

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From here on, an interrupt ends the run in good order. The second one ends the process.
pub fn end_on_signals() -> Result<()> {
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&INTERRUPTED))?;
        signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED))?;
    }
    Ok(())
}

/// CPU time of this process so far.
pub(crate) fn cpu_time() -> Duration {
    // proc_pid_stat(5): fields 14 and 15, in ticks of a hundredth of a second; the name in field 2 may have spaces.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count as f64 / time.as_secs_f64() }
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

pub(crate) fn quantiles(histogram: &Histogram) -> String {
    let [p50, p99] = [0.5, 0.99].map(|share| millis(histogram.quantile(share)));
    format!("p50 {p50:.2} ms  p99 {p99:.2} ms  max {:.2} ms", millis(histogram.max()))
}

/// Rows of a closing table.
pub(crate) fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}
