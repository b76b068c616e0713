//! Which reports on single failures went out today, so that a restart, or a second process of an upgrade, allows no more of them.
//!
//! ```text
//!  data/dmarc-failures.2026-11-29      a line of JSON for each report (allowance::Sent), appended and synced before it goes out
//! ```
//!
//! Whoever sends one has the file locked, reads what others have appended since he last did, and appends his own. There are as many lines
//! as there may be reports in a day; the file of another day is of no use to anybody. A crash behind a line costs its report, and none too many
//! goes out.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use mail::Timestamp;
use rustix::fs::{FlockOperation, OFlags, flock, fstat};

use crate::{
    allowance::{Allowance, FailureRates, Sent},
    counts::line,
    disk,
};

/// The lines that are known.
#[derive(Debug)]
pub(crate) struct Ledger {
    directory: PathBuf,
    day: String,
    known: u64,
}

/// Begins the name of a file; behind it is the day (UTC).
const FILE: &str = "dmarc-failures.";
/// What is read at once. Lines are short, and as many as reports of a day.
const READ_MAX: u64 = 64 << 20;

impl Ledger {
    /// That of a data directory.
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), day: String::new(), known: 0 }
    }

    /// Takes down what others have sent.
    pub(crate) fn look(
        &mut self,
        rates: &FailureRates,
        used: &mut Allowance,
        now: Timestamp,
    ) -> io::Result<()> {
        self.turn(now)?;
        match disk::open(&self.path(), OFlags::RDONLY) {
            Ok(file) => {
                flock(&file, FlockOperation::LockShared)?;
                self.read(&file, rates, used).map(|_| ())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A report goes out, if there may be one; then it is taken down. Says whether it may.
    pub(crate) fn send(
        &mut self,
        rates: &FailureRates,
        used: &mut Allowance,
        sent: &Sent,
    ) -> io::Result<bool> {
        let now = Timestamp(sent.at);
        self.turn(now)?;
        let file = disk::open(&self.path(), OFlags::RDWR | OFlags::CREATE)?;
        flock(&file, FlockOperation::LockExclusive)?;
        let is_whole = self.read(&file, rates, used)?;
        if !used.send(rates, &sent.to, now) {
            return Ok(false);
        }
        // Behind half a line of somebody who has died.
        let text = format!("{}{}\n", if is_whole { "" } else { "\n" }, line(sent));
        let end = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
        disk::write_at(&file, text.as_bytes(), end)?;
        rustix::fs::fdatasync(&file)?;
        if end == 0 {
            disk::sync_directory(&self.directory)?;
        }
        self.known = end + text.len() as u64;
        Ok(true)
    }

    /// Notes the lines that are not known yet. Says whether the last one has its end.
    fn read(&mut self, file: &OwnedFd, rates: &FailureRates, used: &mut Allowance) -> io::Result<bool> {
        let size = u64::try_from(fstat(file)?.st_size).unwrap_or(0);
        let mut text = Vec::new();
        let more = size.saturating_sub(self.known).min(READ_MAX);
        disk::read_at(file, &mut text, usize::try_from(more).unwrap_or(0), self.known)?;
        let whole = memchr::memrchr(b'\n', &text).map_or(0, |end| end + 1);
        for line in text[..whole].split(|octet| *octet == b'\n') {
            if let Ok(sent) = serde_json::from_slice::<Sent>(line) {
                used.note(rates, &sent);
            }
        }
        self.known += whole as u64;
        Ok(whole == text.len())
    }

    /// Another day has another file.
    fn turn(&mut self, now: Timestamp) -> io::Result<()> {
        let day = now.to_rfc3339().get(..10).unwrap_or_default().to_owned();
        if day == self.day {
            return Ok(());
        }
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let of = name.to_str().and_then(|name| name.strip_prefix(FILE));
            // One of a day to come is that of a clock that goes before ours.
            if of.is_some_and(|of| *of < *day) {
                let _ = fs::remove_file(entry.path());
            }
        }
        (self.day, self.known) = (day, 0);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.directory.join(format!("{FILE}{}", self.day))
    }
}

#[cfg(test)]
mod test {
    use std::time::Duration;

    use super::*;
    use crate::allowance::Rate;

    const RATES: FailureRates = FailureRates {
        all: Rate { hourly: 5, daily: 8 },
        domain: Rate { hourly: 3, daily: 3 },
        destination: Rate { hourly: 4, daily: 100 },
        repeat: Duration::ZERO,
        tracked_max: 10,
    };
    const HOUR: u64 = 3_600_000_000;
    const NOON: u64 = 20_000 * 24 * HOUR + 12 * HOUR;

    struct Process(Ledger, Allowance);

    impl Process {
        fn start(directory: &Path) -> Self {
            Self(Ledger::new(directory), Allowance::default())
        }

        fn send(&mut self, to: &str, at: u64) -> bool {
            let sent = Sent { at, domain: Some("a.test".into()), to: to.into() };
            self.0.send(&RATES, &mut self.1, &sent).unwrap()
        }
    }

    /// However often it is started again, and however many there are beside each other: no more than there may be.
    #[test]
    fn a_restart_allows_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let restarted = |to: &str, at| Process::start(directory.path()).send(to, at);
        assert_eq!([(); 5].map(|()| restarted("x.test", NOON)), [true, true, true, true, false]);
        // Two processes of an upgrade count together.
        let (mut old, mut new) = (Process::start(directory.path()), Process::start(directory.path()));
        assert_eq!([old.send("y.test", NOON), new.send("y.test", NOON + 1)], [true, false]);
        assert_eq!(old.1.closed_until(&RATES, Timestamp(NOON + 2)), Some(Timestamp(NOON + HOUR)));
        let later = NOON + HOUR;
        let sent: Vec<_> = (0..5).map(|turn| [&mut old, &mut new][turn % 2].send("z.test", later)).collect();
        assert_eq!(sent, [true, true, true, false, false], "eight within a day");
        // What was sent is counted for the domain as well.
        let mut other = Process::start(directory.path());
        other.0.look(&RATES, &mut other.1, Timestamp(later)).unwrap();
        let closed = other.1.closed_until(&RATES, Timestamp(later));
        assert_eq!(closed, Some(Timestamp(NOON + 12 * HOUR)));
        // The next day begins anew, and leaves nothing of the last.
        assert!(other.send("x.test", NOON + 24 * HOUR));
        let files: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, ["dmarc-failures.2024-10-05"]);
    }

    #[test]
    fn half_a_line_costs_itself() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Process::start(directory.path()).send("x.test", NOON));
        let path = directory.path().join("dmarc-failures.2024-10-04");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&*whole, &whole[..whole.len() / 2]].concat()).unwrap();
        let mut process = Process::start(directory.path());
        assert_eq!([(); 5].map(|()| process.send("x.test", NOON)), [true, true, true, false, false]);
        assert!(!Process::start(directory.path()).send("x.test", NOON));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text.lines().filter(|line| line.ends_with('}') && line.starts_with('{')).count(),
            4,
            "{text}"
        );
    }
}
