//! What shards have counted of TLS, by day, until it is told (RFC 8460).
//!
//! It is taken from the shards each minute and kept in a file of this process: a crash loses a minute. The file is read by whoever
//! starts next, or takes over from this process; what it holds is then that one's.
//!
//! ```text
//!  running ──▶ over (to be told) ──▶ told domain by domain ──▶ gone
//! ```

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::Duration,
};

use bridge::Door;
use delivery::{
    sts::Policy,
    tally::{Detail, PolicyTally, Reported, Tally, TlsResult},
};
use dns::Name;
use mail::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, task::spawn_blocking};

use crate::durably::write;

/// The days that are not told yet.
#[derive(Clone, Debug)]
pub struct TlsCounts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    clock: fn() -> Timestamp,
    days: Mutex<Days>,
}

/// Each has a number, by which it is found again.
#[derive(Debug, Default)]
struct Days {
    running: Option<Day>,
    over: Vec<(u64, Day)>,
    next: u64,
    /// Since the file was written.
    changed: bool,
}

/// What was counted from one moment to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Day {
    pub(crate) from: Timestamp,
    /// None as long as it runs.
    pub(crate) to: Option<Timestamp>,
    pub(crate) tally: Tally,
}

/// Begins the name of each file; behind it is the number of the process.
const FILE: &str = "tls-results.";
/// What is older is of no use to anybody.
const TOLD_WITHIN: Duration = Duration::from_secs(2 * 86_400);
/// Days that wait to be told; an operator may end one at any time.
const OVER_MAX: usize = 16;

impl TlsCounts {
    /// Those of a data directory: nothing yet.
    pub fn new(directory: &Path, clock: fn() -> Timestamp) -> Self {
        Self(Arc::new(Inner { directory: directory.to_owned(), clock, days: Mutex::default() }))
    }

    /// Takes what processes have left that have ended, and removes their files. Call it when there are none but this one.
    pub async fn take_over(&self) {
        let inner = &self.0;
        let (directory, now) = (inner.directory.clone(), (inner.clock)());
        let mut days = inner.days.lock().await;
        let is_first = days.running.is_none() && days.over.is_empty();
        let Ok((found, files)) = spawn_blocking(move || read(&directory, is_first)).await else { return };
        if found.is_empty() && files.is_empty() {
            return;
        }
        for day in found {
            days.take(day, now);
        }
        days.changed = true;
        // Before that is written it is only in the files.
        if self.write(&mut days).await {
            let own = own(&inner.directory);
            for file in files.iter().filter(|file| **file != own) {
                if let Err(error) = fs::remove_file(file) {
                    tracing::warn!("{}: {error}: it is counted again after the next start", file.display());
                }
            }
        }
    }

    /// Takes from the shards what they have counted, and keeps it.
    pub async fn collect(&self, door: &Door) {
        let results = door.tls_results().await;
        let mut days = self.0.days.lock().await;
        if results != Tally::default() {
            days.running(self.now()).tally.merge(results);
            days.changed = true;
        }
        self.write(&mut days).await;
    }

    /// The day is over at that moment; it is to be told, unless nothing was counted.
    pub(crate) async fn end(&self, to: Timestamp) {
        let mut days = self.0.days.lock().await;
        if let Some(mut day) = days.running.take() {
            day.to = Some(to);
            days.push(day);
            days.changed = true;
            self.write(&mut days).await;
        }
    }

    /// Days that are over, with their numbers, from that number on.
    pub(crate) async fn over(&self, from: u64) -> Vec<(u64, Day)> {
        let days = self.0.days.lock().await;
        days.over.iter().filter(|(number, _)| *number >= from).cloned().collect()
    }

    /// A domain was told of a day. That is kept with the next change.
    pub(crate) async fn told(&self, number: u64, domain: &Name) {
        let mut days = self.0.days.lock().await;
        if let Some((_, day)) = days.over.iter_mut().find(|(other, _)| *other == number) {
            day.tally.remove(domain);
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
    async fn write(&self, days: &mut Days) -> bool {
        if !days.changed {
            return true;
        }
        let (file, text) = (own(&self.0.directory), days.to_text());
        let path = file.clone();
        let written =
            spawn_blocking(move || if text.is_empty() { remove(&path) } else { write(&path, &text) });
        match written.await {
            Ok(Ok(())) => {
                days.changed = false;
                true
            }
            Ok(Err(error)) => {
                tracing::warn!("{}: {error}: a stop forgets what was counted of TLS", file.display());
                false
            }
            // The pool is ending.
            Err(_) => false,
        }
    }
}

impl Days {
    fn running(&mut self, now: Timestamp) -> &mut Day {
        self.running.get_or_insert_with(|| Day { from: now, ..Day::default() })
    }

    fn push(&mut self, day: Day) {
        if self.over.len() == OVER_MAX {
            tracing::warn!("TLS reports: too many days wait to be told, the oldest is in none");
            self.over.remove(0);
        }
        self.over.push((self.next, day));
        self.next += 1;
    }

    /// One that another process has left.
    fn take(&mut self, mut day: Day, now: Timestamp) {
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
        over.chain(&self.running).map(Day::to_text).collect()
    }
}

/// When the day ends that a moment is in, in UTC (RFC 8460 §4.1).
pub(crate) fn midnight_after(moment: Timestamp) -> Timestamp {
    const DAY: u64 = 86_400_000_000;
    Timestamp((moment.0 / DAY + 1).saturating_mul(DAY))
}

fn own(directory: &Path) -> PathBuf {
    directory.join(format!("{FILE}{}", process::id()))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the files in a directory say, and which those are. A process that has counted knows what is in its own.
fn read(directory: &Path, with_own: bool) -> (Vec<Day>, Vec<PathBuf>) {
    let (mut days, mut files) = (Vec::new(), Vec::new());
    let listed = fs::read_dir(directory).into_iter().flatten().flatten();
    for path in listed.map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // One that was being written when its process ended is whole under its old name.
        if !name.starts_with(FILE) || (!with_own && path == own(directory)) {
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
                Err(error) => tracing::warn!("{}: {error}: what it has of TLS is not told", path.display()),
            }
        }
        files.push(path);
    }
    days.sort_by_key(|day| day.from);
    (days, files)
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    /// Those that follow are of this day.
    Day { from: u64, to: Option<u64>, untold: u64 },
    /// How it went by one policy of a domain.
    Policy {
        domain: String,
        kind: Kind,
        of: String,
        text: Vec<String>,
        successes: u64,
        failures: u64,
        details: Vec<Failure>,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Tlsa,
    Sts,
    /// The policy could not be had.
    StsUnread,
    None,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    result: String,
    from: Option<IpAddr>,
    host: Option<Box<str>>,
    to: Option<IpAddr>,
    reason: Option<Box<str>>,
    count: u64,
}

impl Day {
    fn to_text(&self) -> String {
        let (from, to, untold) = (self.from.0, self.to.map(|to| to.0), self.tally.untold);
        let mut lines = vec![Line::Day { from, to, untold }];
        for (domain, tally) in self.tally.domains() {
            lines.push(line(domain, tally));
        }
        let text = |line| serde_json::to_string(line).expect("strings and numbers can be written") + "\n";
        lines.iter().map(text).collect()
    }
}

fn line(domain: &Name, tally: &PolicyTally) -> Line {
    let (kind, of, text) = match &tally.policy {
        Reported::Tlsa(base, records) => {
            (Kind::Tlsa, base, records.iter().map(ToString::to_string).collect())
        }
        Reported::Sts(of, Some(policy)) => (Kind::Sts, of, vec![policy.to_string()]),
        Reported::Sts(of, None) => (Kind::StsUnread, of, Vec::new()),
        Reported::NotFound(of) => (Kind::None, of, Vec::new()),
    };
    let failure = |(detail, count): &(Detail, u64)| Failure {
        result: detail.result.as_str().to_owned(),
        from: detail.from,
        host: detail.host.clone(),
        to: detail.to,
        reason: detail.reason.clone(),
        count: *count,
    };
    Line::Policy {
        domain: domain.to_string(),
        kind,
        of: of.to_string(),
        text,
        successes: tally.successes,
        failures: tally.failures,
        details: tally.details.iter().map(failure).collect(),
    }
}

/// Answers how many lines are none of [`Day::to_text`].
fn read_text(text: &str, days: &mut Vec<Day>) -> usize {
    let mut strange = 0;
    let first = days.len();
    for line in text.lines() {
        let known = match serde_json::from_str(line) {
            Ok(Line::Day { from, to, untold }) => {
                let mut tally = Tally::default();
                tally.untold = untold;
                days.push(Day { from: Timestamp(from), to: to.map(Timestamp), tally });
                Some(())
            }
            Ok(line) => days.get_mut(first..).and_then(<[Day]>::last_mut).and_then(|day| {
                let (domain, tally) = policy(line)?;
                day.tally.add(&domain, tally);
                Some(())
            }),
            Err(_) => None,
        };
        strange += usize::from(known.is_none());
    }
    strange
}

fn policy(line: Line) -> Option<(Name, PolicyTally)> {
    let Line::Policy { domain, kind, of, text, successes, failures, details } = line else { return None };
    let of = Name::parse(&of).ok()?;
    let policy = match kind {
        Kind::Tlsa => Reported::Tlsa(of, text.into_iter().map(Into::into).collect()),
        Kind::Sts => Reported::Sts(of, Some(Arc::new(Policy::parse(text.first()?.as_bytes()).ok()?))),
        Kind::StsUnread => Reported::Sts(of, None),
        Kind::None => Reported::NotFound(of),
    };
    let detail = |failure: Failure| {
        let Failure { result, from, host, to, reason, count } = failure;
        Some((Detail { result: TlsResult::parse(&result)?, from, host, to, reason }, count))
    };
    let details: Vec<_> = details.into_iter().map(detail).collect::<Option<_>>()?;
    let told = details.iter().try_fold(0_u64, |sum, (_, count)| sum.checked_add(*count))?;
    if told > failures || successes.checked_add(failures).is_none() {
        return None;
    }
    Some((Name::parse(&domain).ok()?, PolicyTally { policy, successes, failures, details }))
}

#[cfg(test)]
mod test {
    use super::*;

    const HOUR: u64 = 3_600_000_000;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn tally(domain: &str) -> Tally {
        let mut tally = Tally::default();
        tally.untold = 7;
        let domain = name(domain);
        let body = b"version: STSv1\nmode: testing\nmx: *.a.test\nmax_age: 1000\n";
        let policy = Arc::new(Policy::parse(body).unwrap());
        let detail = Detail {
            result: TlsResult::CertificateExpired,
            from: Some([192, 0, 2, 1].into()),
            host: Some("mx.a.test".into()),
            to: None,
            reason: Some("it \"ended\"\nlong ago".into()),
        };
        tally.succeeded(&domain, Reported::Sts(domain.clone(), Some(policy.clone())));
        tally.failed(&domain, Reported::Sts(domain.clone(), Some(policy)), detail.clone());
        tally.failed(&domain, Reported::Sts(domain.clone(), None), detail.clone());
        tally.failed(&domain, Reported::Tlsa(name("mx.a.test"), vec!["3 1 1 07".into()]), detail);
        tally.succeeded(&domain, Reported::NotFound(domain.clone()));
        tally
    }

    fn at_noon() -> Timestamp {
        Timestamp(12 * HOUR)
    }

    fn next_day() -> Timestamp {
        Timestamp(25 * HOUR)
    }

    fn counts(directory: &Path, clock: fn() -> Timestamp) -> TlsCounts {
        TlsCounts::new(directory, clock)
    }

    async fn put(counts: &TlsCounts, tally: Tally) {
        let mut days = counts.0.days.lock().await;
        days.running(counts.now()).tally.merge(tally);
        days.changed = true;
        assert!(counts.write(&mut days).await);
    }

    async fn running(counts: &TlsCounts) -> Option<Day> {
        counts.0.days.lock().await.running.clone()
    }

    #[test]
    fn days_end_at_midnight() {
        let at = |text| Timestamp::from_rfc3339(text).unwrap();
        for (now, next) in [
            ("2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"),
            ("2026-11-29T23:59:59Z", "2026-11-30T00:00:00Z"),
            ("2026-12-31T12:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(midnight_after(at(now)), at(next));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let days = [
            Day { from: Timestamp(1), to: Some(Timestamp(2)), tally: tally("a.test") },
            Day { from: Timestamp(3), to: None, tally: tally("b.test") },
        ];
        let text: String = days.iter().map(Day::to_text).collect();
        let mut read = Vec::new();
        assert_eq!(read_text(&text, &mut read), 0);
        assert_eq!(read, days);
        // A line that is damaged costs what it says, and no more.
        let damaged =
            text.replace("\"tlsa\"", "\"rubbish\"").replace("certificate-expired", "certificate-expirec");
        let mut read = Vec::new();
        assert_eq!(read_text(&damaged, &mut read), 6);
        assert_eq!(read.iter().map(|day| day.tally.domains().count()).collect::<Vec<_>>(), [1, 1]);
        let headless: String = text.lines().skip(1).take(2).collect();
        assert_eq!(read_text(&headless, &mut Vec::new()), 1);
        let much = r#"{"policy":{"domain":"a.test","kind":"none","of":"a.test","text":[],"successes":1,"failures":18446744073709551615,"details":[]}}"#;
        let mut read = Vec::new();
        assert_eq!(
            read_text(&format!("{{\"day\":{{\"from\":1,\"to\":null,\"untold\":0}}}}\n{much}\n"), &mut read),
            1
        );
    }

    #[tokio::test]
    async fn a_day_goes_on_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let before = counts(directory.path(), at_noon);
        before.take_over().await;
        put(&before, tally("a.test")).await;
        let after = counts(directory.path(), || Timestamp(13 * HOUR));
        after.take_over().await;
        let day = running(&after).await.unwrap();
        assert_eq!((day.from, &day.tally), (at_noon(), &tally("a.test")));
        // What was counted once is not counted again, and what is added is kept as well.
        put(&after, tally("b.test")).await;
        after.take_over().await;
        assert_eq!(running(&after).await.unwrap().tally.domains().count(), 8);
    }

    #[tokio::test]
    async fn a_day_that_ended_while_nobody_was_there_is_told() {
        let directory = tempfile::tempdir().unwrap();
        put(&counts(directory.path(), at_noon), tally("a.test")).await;
        let after = counts(directory.path(), next_day);
        after.take_over().await;
        assert!(running(&after).await.is_none());
        let [(number, day)] = &after.over(0).await[..] else { panic!("one day") };
        assert_eq!((day.from, day.to), (at_noon(), Some(Timestamp(24 * HOUR - 1_000_000))));
        // Told of by half, and then stopped.
        after.told(*number, &name("a.test")).await;
        after.end(next_day()).await;
        put(&after, Tally::default()).await;
        let last = counts(directory.path(), next_day);
        last.take_over().await;
        assert_eq!(last.over(0).await[0].1.tally.domains().count(), 0);
        last.forget(0).await;
        assert!(last.over(0).await.is_empty());
        let late = counts(directory.path(), || Timestamp(100 * HOUR));
        late.take_over().await;
        assert!(late.over(0).await.is_empty() && running(&late).await.is_none());
    }

    #[tokio::test]
    async fn whoever_takes_over_has_what_both_counted() {
        let directory = tempfile::tempdir().unwrap();
        let day = Day { from: Timestamp(HOUR), to: None, tally: tally("a.test") };
        let theirs = directory.path().join(format!("{FILE}1"));
        fs::write(&theirs, day.to_text()).unwrap();
        fs::write(directory.path().join(format!("{FILE}1.new")), "half of i").unwrap();
        let ours = counts(directory.path(), at_noon);
        put(&ours, tally("a.test")).await;
        ours.take_over().await;
        let day = running(&ours).await.unwrap();
        let mut both = tally("a.test");
        both.merge(tally("a.test"));
        assert_eq!((day.from, &day.tally), (Timestamp(HOUR), &both));
        let left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [own(directory.path())]);
        let again = counts(directory.path(), at_noon);
        again.take_over().await;
        assert_eq!(running(&again).await.unwrap(), day);
    }
}
