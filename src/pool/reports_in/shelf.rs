//! The files of reports: one for each, in a directory for the day (UTC) on which what it is about ends.
//!
//! ```text
//!  data/reports-in/2026-11-28/dmarc-5f0a3c17-0d9f…e2.gz     kind - share - key
//! ```
//!
//! A file is gzip: a line of JSON that says what it is ([`Head`]), and what it tells behind it, in JSON; of mail
//! that is no report, the mail. The name follows from what the report says, and the file comes to it by a link that
//! fails where there is one: so a report is kept once, whichever process of an upgrade has it, and nothing is
//! written twice after a crash. The share is a hash of whoever has sent it.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use admin::{ReportPage, ReportQuery, ShownReport};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use flate2::{Compression, bufread::GzDecoder, write::GzEncoder};
use mail::Timestamp;
use report::received::{Grouping, Head, Kind, Summary, SummaryLimits, Summing, Told};
use rustix::fs::OFlags;

use crate::disk;

/// The files, and how many there are.
#[derive(Debug)]
pub(super) struct Shelf {
    directory: PathBuf,
    /// Octets that a summary unpacks.
    summed_max: usize,
    known: Mutex<Known>,
}

/// What is known of the files: others of an upgrade have some that are not in here until the next look.
#[derive(Debug, Default)]
struct Known {
    looked: bool,
    /// `day/name`, and how large each is.
    files: BTreeMap<Box<str>, u64>,
    shares: HashMap<Box<str>, u64>,
    bytes: u64,
    /// Numbers files that are being written.
    next: u64,
}

/// Whether a report was there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    New,
    Before,
}

/// Files that one question looks into.
const LOOKED_MAX: usize = 50_000;
/// A line that says what a report is, has no more octets.
const HEAD_MAX: u64 = 64 << 10;
/// What is unpacked of a file: no more than ever was packed.
const FILE_MAX: u64 = 2 << 30;
/// One that is being written is left over from a process that has died, when it is that old.
const LEFT_OVER: Duration = Duration::from_secs(3_600);
/// Octets that one summary unpacks: reports that say the same over and over are packed to a thousandth, and would be read for hours.
const SUMMED_MAX: usize = 1 << 30;
/// For what a file takes beside its octets.
const BLOCK: u64 = 4096;

impl Shelf {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, summed_max: SUMMED_MAX, known: Mutex::default() }
    }

    /// Keeps a report. When this is done it is on the disk.
    pub(super) fn put(&self, head: &Head, told: &[u8]) -> io::Result<Kept> {
        let day = self.directory.join(day_of(&head.end));
        fs::create_dir_all(&day)?;
        let name = format!("{}-{}-{}.gz", head.kind, share_of(&head.reporter), head.key);
        let path = day.join(&name);
        if path.exists() {
            // Another process may have linked it, and not have synced it yet.
            self.sync(&day)?;
            return Ok(Kept::Before);
        }
        let new = day.join(format!(".{}-{}.new", std::process::id(), self.number()));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        serde_json::to_writer(&mut encoder, head).map_err(io::Error::other)?;
        encoder.write_all(b"\n")?;
        encoder.write_all(told)?;
        let octets = encoder.finish()?;
        let written = write(&new, &octets).and_then(|()| match fs::hard_link(&new, &path) {
            Ok(()) => Ok(Kept::New),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Kept::Before),
            Err(error) => Err(error),
        });
        let removed = fs::remove_file(&new);
        let kept = written?;
        removed?;
        self.sync(&day)?;
        if kept == Kept::New {
            let place = format!("{}/{name}", day_of(&head.end));
            self.known()?.add(place.into(), octets.len() as u64);
        }
        Ok(kept)
    }

    /// Its directory is found after a crash, and what is in it. Whoever has made the directories may have died before he did this, or
    /// may be about to: a sync of what has not changed costs next to nothing.
    fn sync(&self, day: &Path) -> io::Result<()> {
        let above = self.directory.parent();
        [Some(day), Some(&*self.directory), above].into_iter().flatten().try_for_each(disk::sync_directory)
    }

    /// Removes what there is no room for: the oldest of whoever has most. Says how many.
    pub(super) fn make_room(&self, bytes_max: u64, files_max: u32) -> io::Result<u64> {
        let mut known = self.known()?;
        let mut removed = 0;
        while known.bytes > bytes_max || known.files.len() > files_max as usize {
            let largest = known.shares.iter().max_by_key(|(share, bytes)| (**bytes, (*share).clone()));
            let Some(share) = largest.map(|(share, _)| share.clone()) else { break };
            let Some(oldest) = known.files.keys().find(|place| share_in(place) == &*share).cloned() else {
                break;
            };
            self.remove(&oldest)?;
            known.forget(&oldest);
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes what is about a time too long ago, and looks what there is.
    pub(super) fn tidy(&self, now: Timestamp, keep: Duration) -> io::Result<()> {
        let keep = u64::try_from(keep.as_micros()).unwrap_or(u64::MAX);
        let oldest = Timestamp(now.0.saturating_sub(keep)).to_rfc3339();
        for day in self.days()? {
            if *day < *day_of(&oldest) {
                let path = self.directory.join(&*day);
                for name in names(&path)? {
                    gone(fs::remove_file(path.join(name)))?;
                }
                // Another process may be writing into it.
                let _ = fs::remove_dir(&path);
            } else {
                self.remove_left_over(&day, now)?;
            }
        }
        let mut known = lock(&self.known);
        let next = known.next;
        *known = self.look()?;
        known.next = next;
        Ok(())
    }

    /// How many there are, and the disk that they take.
    pub(super) fn size(&self) -> (u64, u64) {
        let known = lock(&self.known);
        (known.files.len() as u64, known.bytes)
    }

    /// A page of what is kept, the newest day first.
    pub(super) fn list(&self, query: &ReportQuery) -> io::Result<ReportPage> {
        let mut page = ReportPage { reports: Vec::new(), next: None, cut: false };
        for (looked, place) in self.places(query)?.into_iter().enumerate() {
            if page.reports.len() >= query.limit || looked >= LOOKED_MAX {
                page.cut = looked >= LOOKED_MAX;
                break;
            }
            page.next = Some(place.to_string());
            let Some((head, _)) = self.read(&place, HEAD_MAX)? else { continue };
            if query.matches(&head) {
                page.reports.push(head);
            }
        }
        if page.reports.len() < query.limit && !page.cut {
            page.next = None;
        }
        Ok(page)
    }

    /// The report of that key.
    pub(super) fn show(&self, key: &str) -> io::Result<Option<ShownReport>> {
        let end = format!("-{key}.gz");
        for day in self.days()? {
            for name in names(&self.directory.join(&*day))? {
                if !name.ends_with(&end) {
                    continue;
                }
                let Some((head, rest)) = self.read(&format!("{day}/{name}"), FILE_MAX)? else { continue };
                return Ok(Some(match head.kind {
                    Kind::Unread => {
                        ShownReport { head, told: None, content: Some(BASE64_STANDARD.encode(rest)) }
                    }
                    Kind::Dmarc | Kind::Tls | Kind::Failure => {
                        let told = serde_json::from_slice(&rest).map_err(io::Error::other)?;
                        ShownReport { head, told: Some(told), content: None }
                    }
                }));
            }
        }
        Ok(None)
    }

    /// Reports put together.
    pub(super) fn summary(&self, query: &ReportQuery, grouping: Grouping) -> io::Result<Summary> {
        let mut summing = Summing::new(grouping, SummaryLimits::default());
        let (mut cut, mut left) = (false, self.summed_max);
        for (looked, place) in self.places(query)?.into_iter().enumerate() {
            if looked >= LOOKED_MAX || left == 0 {
                cut = true;
                break;
            }
            let Some((head, rest)) = self.read(&place, FILE_MAX)? else { continue };
            left = left.saturating_sub(rest.len());
            let is_whole = query.matches(&head);
            if head.kind == Kind::Unread || !is_whole && !query.is_partly(&head) {
                continue;
            }
            match (serde_json::from_slice::<Told>(&rest), &query.domain) {
                (Ok(Told::Dmarc(mut aggregate)), Some(domain)) if !is_whole => {
                    aggregate.only(domain);
                    let told = Told::Dmarc(aggregate);
                    let (messages, failed) = told.counts();
                    if messages > 0 {
                        summing.add(&Head { messages, failed, ..head }, &told);
                    }
                }
                (Ok(told), _) => summing.add(&head, &told),
                (Err(error), _) => tracing::warn!("reports-in/{place}: {error}: it is passed over"),
            }
        }
        let mut summary = summing.end(query.limit);
        summary.cut = cut;
        Ok(summary)
    }

    /// Places that a question may be about, the newest day first; from the one behind its cursor on.
    fn places(&self, query: &ReportQuery) -> io::Result<Vec<String>> {
        let since = query.since.map(Timestamp::to_rfc3339);
        let kind = query.kind.map(|kind| format!("{kind}-"));
        let after = query.cursor.as_deref().and_then(|cursor| cursor.split_once('/'));
        let mut places = Vec::new();
        let mut days = self.days()?;
        days.reverse();
        for day in days {
            let is_over = since.as_ref().is_some_and(|since| *day < *day_of(since));
            if is_over || after.is_some_and(|(last, _)| *day > *last) {
                continue;
            }
            let mut names = names(&self.directory.join(&*day))?;
            names.retain(|name| {
                let is_behind = after.is_none_or(|(last, place)| *day < *last || **name > *place);
                !name.starts_with('.') && is_behind && kind.as_ref().is_none_or(|kind| name.starts_with(kind))
            });
            names.sort_unstable();
            places.extend(names.iter().map(|name| format!("{day}/{name}")));
            if places.len() > LOOKED_MAX {
                break;
            }
        }
        Ok(places)
    }

    /// What a file says it is, and so many octets of the rest. One that is damaged is passed over, and told of.
    fn read(&self, place: &str, max: u64) -> io::Result<Option<(Head, Vec<u8>)>> {
        let octets = match fs::read(self.directory.join(place)) {
            Ok(octets) => octets,
            // It had to go meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut unpacked = Vec::new();
        // A damaged end may be behind what is asked for.
        let read = GzDecoder::new(&*octets).take(max).read_to_end(&mut unpacked);
        let end = memchr::memchr(b'\n', &unpacked);
        let head = end.and_then(|end| serde_json::from_slice::<Head>(&unpacked[..end]).ok());
        match (head, end, read) {
            (Some(head), Some(end), Ok(_)) => {
                unpacked.drain(..=end);
                Ok(Some((head, unpacked)))
            }
            (_, _, _) => {
                tracing::warn!("reports-in/{place}: it is damaged, and passed over");
                Ok(None)
            }
        }
    }

    fn remove(&self, place: &str) -> io::Result<()> {
        gone(fs::remove_file(self.directory.join(place)))
    }

    fn remove_left_over(&self, day: &str, now: Timestamp) -> io::Result<()> {
        let path = self.directory.join(day);
        for name in names(&path)?.into_iter().filter(|name| name.starts_with('.')) {
            let file = path.join(name);
            let written = fs::metadata(&file).and_then(|data| data.modified());
            let written = written.ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            let age = Duration::from_micros(now.0).saturating_sub(written.unwrap_or_default());
            if age > LEFT_OVER {
                gone(fs::remove_file(file))?;
            }
        }
        Ok(())
    }

    fn number(&self) -> u64 {
        let mut known = lock(&self.known);
        known.next += 1;
        known.next
    }

    /// What is known, looked for when it is asked for the first time.
    fn known(&self) -> io::Result<MutexGuard<'_, Known>> {
        let mut known = lock(&self.known);
        if !known.looked {
            let next = known.next;
            *known = self.look()?;
            known.next = next;
        }
        Ok(known)
    }

    fn look(&self) -> io::Result<Known> {
        let mut known = Known { looked: true, ..Known::default() };
        for day in self.days()? {
            let path = self.directory.join(&*day);
            for name in names(&path)?.into_iter().filter(|name| !name.starts_with('.')) {
                if let Ok(data) = fs::metadata(path.join(&name)) {
                    known.add(format!("{day}/{name}").into(), data.len());
                }
            }
        }
        Ok(known)
    }

    /// The days of which something is kept, the first one first.
    fn days(&self) -> io::Result<Vec<String>> {
        let mut days = names(&self.directory)?;
        days.retain(|day| day.len() == 10 && day.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
        days.sort_unstable();
        Ok(days)
    }
}

impl Known {
    fn add(&mut self, place: Box<str>, bytes: u64) {
        let bytes = bytes.next_multiple_of(BLOCK);
        let share: Box<str> = share_in(&place).into();
        if self.files.insert(place, bytes).is_none() {
            *self.shares.entry(share).or_default() += bytes;
            self.bytes += bytes;
        }
    }

    fn forget(&mut self, place: &str) {
        let Some(bytes) = self.files.remove(place) else { return };
        self.bytes -= bytes;
        if let Some(of_share) = self.shares.get_mut(share_in(place)) {
            *of_share -= bytes;
            if *of_share == 0 {
                self.shares.remove(share_in(place));
            }
        }
    }
}

/// Between the first two dashes of a name.
fn share_in(place: &str) -> &str {
    let name = place.rsplit_once('/').map_or(place, |(_, name)| name);
    name.split('-').nth(1).unwrap_or_default()
}

/// Below a country's label: those that nobody has for himself, and who asks gets a name below. Another short one is somebody's, who
/// has as many names below it as he likes.
const SHARED: [&str; 31] = [
    "ac", "ad", "co", "com", "ed", "edu", "firm", "gen", "go", "gob", "gouv", "gov", "govt", "gv", "id",
    "ind", "info", "ltd", "me", "mil", "ne", "net", "nhs", "nic", "nom", "or", "org", "plc", "sch", "web",
    "gr",
];

/// Whose part of the disk a report takes. Whoever has a domain has as many below it as he likes, so they count as
/// one: two labels, or three where the second is one such as `co` in `co.uk`.
fn share_of(reporter: &str) -> Box<str> {
    let labels: Vec<&str> = reporter.rsplitn(4, '.').collect();
    let whole = match labels[..] {
        [top, second, third, ..] if top.len() == 2 && SHARED.contains(&second) => {
            format!("{third}.{second}.{top}")
        }
        [top, second, ..] => format!("{second}.{top}"),
        _ => reporter.to_owned(),
    };
    hex(&aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, whole.as_bytes()).as_ref()[..4])
}

pub(super) fn hex(octets: &[u8]) -> Box<str> {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>().into()
}

/// The day of a time in RFC 3339.
fn day_of(time: &str) -> &str {
    time.get(..10).unwrap_or("1970-01-01")
}

/// What is in a directory; nothing where there is none.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Writes a file that nobody else has: one that is left over from a process of the same number may be a report as well, by its other
/// name, and would be overwritten.
fn write(path: &Path, octets: &[u8]) -> io::Result<()> {
    gone(fs::remove_file(path))?;
    let file = disk::open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    disk::write_at(&file, octets, 0)?;
    Ok(rustix::fs::fsync(&file)?)
}

/// Another process may have removed it.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "shelf_test.rs"]
mod test;
