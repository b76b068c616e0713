//! What shards have counted, by day, until it is told: of TLS (RFC 8460) and of DMARC (RFC 9990).
//!
//! It is taken from the shards each minute and kept in a file of this process: a crash loses a minute. The file is read by whoever
//! starts next, or takes over from this process; what it holds is then that one's.
//!
//! ```text
//!  running ──▶ over (to be told) ──▶ told domain by domain ──▶ gone
//! ```

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use bridge::Door;
use mail::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, task::spawn_blocking};

use crate::{dmarc_counts::DmarcCounts, durably::write, tls_counts::TlsCounts};

/// All that is counted to be told.
#[derive(Clone, Debug)]
pub struct AllCounts {
    /// Of TLS with the hosts of domains.
    pub tls: TlsCounts,
    /// Of mail that bore the names of domains.
    pub dmarc: DmarcCounts,
}

impl AllCounts {
    /// Those of a data directory: nothing yet.
    pub fn new(directory: &Path, clock: fn() -> Timestamp) -> Self {
        Self { tls: TlsCounts::new(directory, clock), dmarc: DmarcCounts::new(directory, clock) }
    }

    /// Takes what processes have left that have ended, and removes their files. Call it when there are none but this one.
    pub async fn take_over(&self) {
        tokio::join!(self.tls.take_over(), self.dmarc.take_over());
    }

    /// Takes from the shards what they have counted, and keeps it.
    pub async fn collect(&self, door: &Door) {
        tokio::join!(self.tls.collect(door), self.dmarc.collect(door));
    }
}

/// What is counted in a day, for each domain that may want to know.
pub(crate) trait Tallied: Clone + fmt::Debug + Default + PartialEq + Send + 'static {
    /// Begins the name of each file; behind it is the number of the process.
    const FILE: &'static str;
    /// Of what, in messages.
    const OF: &'static str;

    /// Takes it from the shards.
    fn collect(door: &Door) -> impl Future<Output = Self> + Send;
    /// Whether it is nothing.
    fn is_empty(&self) -> bool;
    /// Adds what somebody else has counted.
    fn merge(&mut self, other: Self);
    /// How much is in none of its lines for lack of room.
    fn untold(&self) -> u64;
    /// That much was.
    fn set_untold(&mut self, untold: u64);
    /// What it says, line by line.
    fn lines(&self) -> Vec<String>;
    /// Adds what a line says that is one of [`Tallied::lines`], after those before it.
    fn read_line(&mut self, line: &str) -> Option<()>;
}

/// The days that are not told yet.
#[derive(Debug)]
pub struct Counts<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    directory: PathBuf,
    clock: fn() -> Timestamp,
    days: Mutex<Days<T>>,
}

/// Each has a number, by which it is found again.
#[derive(Debug)]
struct Days<T> {
    running: Option<Day<T>>,
    over: Vec<(u64, Day<T>)>,
    next: u64,
    /// When the last one ended.
    ended: Option<Timestamp>,
    /// Since the file was written.
    changed: bool,
}

/// What was counted from one moment to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Day<T> {
    pub(crate) from: Timestamp,
    /// None as long as it runs.
    pub(crate) to: Option<Timestamp>,
    pub(crate) tally: T,
}

/// What is older is of no use to anybody.
const TOLD_WITHIN: Duration = Duration::from_secs(2 * 86_400);

impl<T> Clone for Counts<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[expect(private_bounds, reason = "what is counted is for this room to say")]
impl<T: Tallied> Counts<T> {
    /// Those of a data directory: nothing yet.
    pub fn new(directory: &Path, clock: fn() -> Timestamp) -> Self {
        Self(Arc::new(Inner { directory: directory.to_owned(), clock, days: Mutex::new(Days::new()) }))
    }

    /// Takes what processes have left that have ended, and removes their files. Call it when there are none but this one.
    pub async fn take_over(&self) {
        let inner = &self.0;
        let (directory, now) = (inner.directory.clone(), (inner.clock)());
        let mut days = inner.days.lock().await;
        let is_first = days.running.is_none() && days.over.is_empty();
        let Ok((found, files)) = spawn_blocking(move || read::<T>(&directory, is_first)).await else {
            return;
        };
        if found.is_empty() && files.is_empty() {
            return;
        }
        for day in found {
            days.take(day, now);
        }
        days.changed = true;
        // Before that is written it is only in the files.
        if self.write(&mut days).await {
            let own = own::<T>(&inner.directory);
            for file in files.iter().filter(|file| **file != own) {
                if let Err(error) = fs::remove_file(file) {
                    tracing::warn!("{}: {error}: it is counted again after the next start", file.display());
                }
            }
        }
    }

    /// Takes from the shards what they have counted, and keeps it.
    pub async fn collect(&self, door: &Door) {
        let results = T::collect(door).await;
        let mut days = self.0.days.lock().await;
        if !results.is_empty() {
            days.running(self.now()).tally.merge(results);
            days.changed = true;
        }
        self.write(&mut days).await;
    }

    /// The day is over at that moment; it is to be told, unless nothing was counted. Of those that wait so many are kept.
    pub(crate) async fn end(&self, to: Timestamp, days_max: usize) {
        let mut days = self.0.days.lock().await;
        if let Some(mut day) = days.running.take() {
            day.to = Some(to);
            days.push(day);
            days.keep(days_max);
            days.changed = true;
            self.write(&mut days).await;
        }
        days.ended = Some(to);
    }

    /// Days that are over, with their numbers, from that number on.
    pub(crate) async fn over(&self, from: u64) -> Vec<(u64, Day<T>)> {
        let days = self.0.days.lock().await;
        days.over.iter().filter(|(number, _)| *number >= from).cloned().collect()
    }

    /// A domain was told of a day. That is kept with the next change.
    pub(crate) async fn told(&self, number: u64, forget: impl FnOnce(&mut T)) {
        let mut days = self.0.days.lock().await;
        if let Some((_, day)) = days.over.iter_mut().find(|(other, _)| *other == number) {
            forget(&mut day.tally);
            days.changed = true;
        }
    }

    /// Nobody else is to be told of a day.
    pub(crate) async fn forget(&self, number: u64) {
        let mut days = self.0.days.lock().await;
        days.over.retain(|(other, _)| *other != number);
        days.changed = true;
        self.write(&mut days).await;
    }

    /// What the clock says.
    pub(crate) fn now(&self) -> Timestamp {
        (self.0.clock)()
    }

    /// Writes the file if it is not what there is; says whether it is now.
    async fn write(&self, days: &mut Days<T>) -> bool {
        if !days.changed {
            return true;
        }
        let (file, text) = (own::<T>(&self.0.directory), days.to_text());
        let path = file.clone();
        let written =
            spawn_blocking(move || if text.is_empty() { remove(&path) } else { write(&path, &text) });
        match written.await {
            Ok(Ok(())) => {
                days.changed = false;
                true
            }
            Ok(Err(error)) => {
                tracing::warn!("{}: {error}: a stop forgets what was counted of {}", file.display(), T::OF);
                false
            }
            // The pool is ending.
            Err(_) => false,
        }
    }
}

impl<T: Tallied> Days<T> {
    const fn new() -> Self {
        Self { running: None, over: Vec::new(), next: 0, ended: None, changed: false }
    }

    /// The day that goes on: it began at midnight, or when somebody ended the one before.
    fn running(&mut self, now: Timestamp) -> &mut Day<T> {
        let midnight = Timestamp(midnight_after(now).0 - DAY);
        let after = self.ended.map_or(midnight, |ended| Timestamp(ended.0 + 1_000_000));
        let from = midnight.max(after).min(now);
        self.running.get_or_insert_with(|| Day { from, to: None, tally: T::default() })
    }

    fn push(&mut self, day: Day<T>) {
        self.over.push((self.next, day));
        self.next += 1;
    }

    fn keep(&mut self, days_max: usize) {
        while self.over.len() > days_max {
            tracing::warn!("{} reports: too many days wait to be told, the oldest is in none", T::OF);
            self.over.remove(0);
        }
    }

    /// One that another process has left.
    fn take(&mut self, mut day: Day<T>, now: Timestamp) {
        if now.saturating_since(day.from) > TOLD_WITHIN {
            return;
        }
        let end = midnight_after(day.from);
        match day.to {
            // It runs on.
            None if now < end => {
                let running = self.running(day.from);
                running.from = running.from.min(day.from);
                running.tally.merge(day.tally);
            }
            None => {
                day.to = Some(Timestamp(end.0.saturating_sub(1_000_000)));
                self.push(day);
            }
            Some(_) => self.push(day),
        }
    }

    fn to_text(&self) -> String {
        let over = self.over.iter().map(|(_, day)| day);
        over.chain(&self.running).map(Day::<T>::to_text).collect()
    }
}

/// In microseconds.
const DAY: u64 = 86_400_000_000;

/// When the day ends that a moment is in, in UTC (RFC 8460 §4.1, RFC 9990 §3.1.1.4).
pub(crate) fn midnight_after(moment: Timestamp) -> Timestamp {
    Timestamp((moment.0 / DAY + 1).saturating_mul(DAY))
}

pub(crate) fn own<T: Tallied>(directory: &Path) -> PathBuf {
    directory.join(format!("{}{}", T::FILE, process::id()))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the files in a directory say, and which those are. A process that has counted knows what is in its own.
fn read<T: Tallied>(directory: &Path, with_own: bool) -> (Vec<Day<T>>, Vec<PathBuf>) {
    let (mut days, mut files) = (Vec::new(), Vec::new());
    let listed = fs::read_dir(directory).into_iter().flatten().flatten();
    for path in listed.map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // One that was being written when its process ended is whole under its old name.
        if !name.starts_with(T::FILE) || (!with_own && path == own::<T>(directory)) {
            continue;
        }
        if !name.ends_with(".new") {
            match fs::read(&path) {
                Ok(text) => match read_text(&String::from_utf8_lossy(&text), &mut days) {
                    0 => {}
                    lines => {
                        tracing::warn!("{}: {lines} lines are not of us, and are passed over", path.display())
                    }
                },
                Err(error) => {
                    // The next start may be able to: it stays.
                    tracing::warn!("{}: {error}: what it has of {} is not told yet", path.display(), T::OF);
                    continue;
                }
            }
        }
        files.push(path);
    }
    days.sort_by_key(|day| day.from);
    (days, files)
}

/// The first line of a day in a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    /// Those that follow are of this day.
    Day { from: u64, to: Option<u64>, untold: u64 },
}

impl<T: Tallied> Day<T> {
    pub(crate) fn to_text(&self) -> String {
        let (from, to, untold) = (self.from.0, self.to.map(|to| to.0), self.tally.untold());
        let mut text = line(&Line::Day { from, to, untold }) + "\n";
        for line in self.tally.lines() {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

/// As it stands in a file.
pub(crate) fn line(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("strings and numbers can be written")
}

/// Answers how many lines are none of [`Day::to_text`].
pub(crate) fn read_text<T: Tallied>(text: &str, days: &mut Vec<Day<T>>) -> usize {
    let mut strange = 0;
    let first = days.len();
    for line in text.lines() {
        let known = match serde_json::from_str(line) {
            Ok(Line::Day { from, to, untold }) => {
                let mut tally = T::default();
                tally.set_untold(untold);
                days.push(Day { from: Timestamp(from), to: to.map(Timestamp), tally });
                Some(())
            }
            Err(_) => {
                let day = days.get_mut(first..).and_then(<[Day<T>]>::last_mut);
                day.and_then(|day| day.tally.read_line(line))
            }
        };
        strange += usize::from(known.is_none());
    }
    strange
}

#[cfg(test)]
#[expect(private_bounds, reason = "what is counted is for this room to say")]
impl<T: Tallied> Counts<T> {
    /// As if it had been collected.
    pub(crate) async fn put(&self, tally: T) {
        let mut days = self.0.days.lock().await;
        days.running(self.now()).tally.merge(tally);
        days.changed = true;
        assert!(self.write(&mut days).await);
    }

    /// The day that goes on.
    pub(crate) async fn running(&self) -> Option<Day<T>> {
        self.0.days.lock().await.running.clone()
    }
}
