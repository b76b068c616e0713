//! The writer's side of the lists: changes are appended and synced, other processes are followed, files are put together.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bridge::{Known, ListError};
use mail::Timestamp;
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};
use std::os::fd::OwnedFd;
use tenancy::{Change, Entry, Found, Key, LogLine, Place};

use super::{
    files::{self, Kind, Lines, Name, PAPERS_MAX, Paper, Shelf},
    outlasts,
};
use crate::disk::{Life, Quiet, life, open, sync_directory, write_at};

/// What this process writes, and what others do.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    known: Arc<Known>,
    shelf: Arc<Shelf>,
    own: Own,
    /// Logs of others that may still grow, or did when they were looked at last.
    others: Vec<Other>,
    /// Files with a lower number have nothing to say.
    base: u64,
    /// Lines in all files: what is more than there are entries is of no use any more.
    lines: u64,
    /// The same line was none twice: it is not on its way.
    stuck: Option<(Name, u64)>,
    /// Files are not put together before: it has failed, and each try takes a file.
    resting_until: Timestamp,
    /// Who was taken off lists, as long as there may be other processes: of what these have written before that, some is not read yet.
    removed: HashMap<Key, Timestamp>,
}

/// The log that this process writes.
#[derive(Debug)]
struct Own {
    name: Name,
    number: u8,
    file: OwnedFd,
    len: u64,
}

#[derive(Debug)]
struct Other {
    name: Name,
    number: u8,
    lines: Lines,
    life: Life,
}

/// Lines of no use before files are put together, beside as many as there are entries.
const WASTE_MIN: u64 = 10_000;
/// How long they are left as they are when that has failed.
const REST: Duration = Duration::from_secs(6 * 3_600);
/// Files, likewise.
const PAPERS_MANY: usize = 16;
/// So much is written at once while files are put together.
const COPY: usize = 1 << 20;
/// So many removals are remembered for the sake of other processes.
const REMOVED_MAX: usize = 100_000;

impl Store {
    /// Reads what is there, and begins a log of its own.
    pub(super) fn open(directory: &Path, known: Arc<Known>, now: Timestamp) -> io::Result<Self> {
        // Whom people do not want mail from is nobody else's to read.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let shelf = Arc::new(Shelf::new());
        let quiet = Quiet::shared(directory)?;
        let names = files::names(directory)?;
        let base = names.iter().filter(|name| name.kind == Kind::List).map(|name| name.number).max();
        let base = base.unwrap_or_default();
        let next = names.last().map_or(1, |name| name.number + 1);
        let own = Own::begin(directory, next, &shelf)?;
        let mut store = Self {
            directory: directory.to_owned(),
            known,
            shelf,
            own,
            others: Vec::new(),
            base,
            lines: 0,
            stuck: None,
            resting_until: Timestamp(0),
            removed: HashMap::new(),
        };
        let list = Name { number: base, kind: Kind::List };
        for name in names {
            if name == list || store.is_log(name) {
                store.meet(name)?;
            }
        }
        drop(quiet);
        store.read_all(now)?;
        store.tidy(now);
        Ok(store)
    }

    /// The number by which others know this process.
    pub(super) const fn number(&self) -> u64 {
        self.own.name.number
    }

    pub(super) fn shelf(&self) -> Arc<Shelf> {
        self.shelf.clone()
    }

    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    fn is_log(&self, name: Name) -> bool {
        name.kind == Kind::Log && name.number >= self.base && name != self.own.name
    }

    /// Opens a file of another process, unless there is nothing in it yet and nobody has it: whoever has just made it takes it in a
    /// moment, and whoever has left it so has said nothing.
    fn meet(&mut self, name: Name) -> io::Result<()> {
        let (file, life) = self.look(name)?;
        if is_mute(&file, life)? {
            return Ok(());
        }
        let (number, paper) = self.shelf.add(Paper { name, file }).ok_or_else(|| {
            io::Error::other(format!("more than {PAPERS_MAX} files in {}", self.directory.display()))
        })?;
        self.others.push(Other { name, number, lines: Lines::of(paper, 0), life });
        Ok(())
    }

    /// Opens a file, and says whether somebody writes it.
    fn look(&self, name: Name) -> io::Result<(OwnedFd, Life)> {
        let file = open(&self.directory.join(name.to_string()), OFlags::RDONLY)?;
        let life = life(&file)?;
        Ok((file, life))
    }

    /// Reads all files that were there at the start: the list first, then the logs of all processes in the order of time.
    fn read_all(&mut self, now: Timestamp) -> io::Result<()> {
        let mut unreadable = 0;
        let mut heads: Vec<Option<files::Found>> = Vec::new();
        let mut others = std::mem::take(&mut self.others);
        for other in &mut others {
            heads.push(other.lines.next()?);
        }
        loop {
            let at = |found: &files::Found| found.change.as_ref().map_or(0, |change| change.at().0);
            let of_list = |place: usize| u8::from(others[place].name.kind != Kind::List);
            let next = (0..heads.len())
                .filter_map(|place| Some((of_list(place), at(heads[place].as_ref()?), place)))
                .min();
            let Some((_, _, place)) = next else { break };
            let other = &mut others[place];
            let following = other.lines.next()?;
            let Some(found) = std::mem::replace(&mut heads[place], following) else { continue };
            match &found.change {
                Some(change) => {
                    let place = Place { file: other.number, offset: found.offset };
                    self.take(change, place, now, Sure::Yes);
                }
                None => unreadable += 1,
            }
        }
        self.others = others;
        if unreadable > 0 {
            tracing::warn!(
                "{}: {unreadable} lines are no entries, and are passed over: a disk has lost them, or somebody has written there",
                self.directory.display()
            );
        }
        // What nobody writes any more has been read to its end.
        self.others.retain(|other| other.name.kind == Kind::Log && other.life == Life::Lives);
        Ok(())
    }

    /// Takes what a file says. Whether it came later than what is known is looked up where that is not sure.
    fn take(&mut self, change: &Change, place: Place, now: Timestamp, sure: Sure) {
        self.lines += 1;
        let (scope, known) = (change.scope(), &self.known);
        let key = known.keys.of(scope.tenant_id(), scope.list_id(), change.whom());
        let found = known.table.find(key);
        match change {
            Change::Add(entry) => {
                let Entry { reason, until, .. } = entry;
                let was_removed =
                    sure == Sure::No && self.removed.get(&key).is_some_and(|removed| *removed > change.at());
                if !was_removed && outlasts(entry, found, now) {
                    known.table.put(key, &Found { reason: *reason, until: *until, place });
                }
            }
            Change::Remove { at, .. } => {
                let is_later = |found: &Found| {
                    let there = self.shelf.read(found.place);
                    sure == Sure::Yes || there.is_ok_and(|there| there.at() <= *at)
                };
                if found.as_ref().is_some_and(is_later) {
                    known.table.remove(key);
                }
            }
        }
    }

    /// Writes changes down, and answers of each whether it was any. When this is an error, none of them holds.
    pub(super) fn change(&mut self, changes: &[Change], now: Timestamp) -> Result<Vec<bool>, ListError> {
        let (mut out, mut todo, mut effects) = (Vec::new(), Vec::new(), Vec::with_capacity(changes.len()));
        let known = self.known.clone();
        let (mut room, max) = (known.entries_max().saturating_sub(known.table.len()), known.entries_max());
        // What those before it in the group have come to, which nobody else knows yet: each is judged as if it came alone.
        let mut here: HashMap<Key, Option<Found>> = HashMap::new();
        for change in changes {
            let scope = change.scope();
            let key = known.keys.of(scope.tenant_id(), scope.list_id(), change.whom());
            let found = here.get(&key).cloned().unwrap_or_else(|| known.table.find(key));
            let offset = self.own.len + out.len() as u64;
            let (effect, then) = match change {
                Change::Add(entry) => {
                    let is_new = found.is_none();
                    let effect = outlasts(entry, found, now);
                    if effect && is_new {
                        room = room.checked_sub(1).ok_or(ListError::Full(max))?;
                    }
                    let place = Place { file: self.own.number, offset };
                    (effect, Some(Found { reason: entry.reason, until: entry.until, place }))
                }
                Change::Remove { .. } => {
                    room += u64::from(found.is_some());
                    (found.is_some(), None)
                }
            };
            effects.push(effect);
            if effect {
                here.insert(key, then);
                todo.push((key, change, offset));
                LogLine(change.clone()).write_to(&mut out);
            }
        }
        if out.is_empty() {
            return Ok(effects);
        }
        if let Err(error) = self.append(&out) {
            // What is there of it is nobody's: what follows goes elsewhere, since a sync that failed is not tried again.
            self.begin_log().map_err(|error| ListError::Write(error.to_string()))?;
            return Err(ListError::Write(error.to_string()));
        }
        for (key, change, offset) in todo {
            self.lines += 1;
            match change {
                Change::Add(Entry { reason, until, .. }) => {
                    let place = Place { file: self.own.number, offset };
                    known.table.put(key, &Found { reason: *reason, until: *until, place });
                    known.count_added(*reason);
                }
                Change::Remove { at, .. } => {
                    known.table.remove(key);
                    if self.removed.len() < REMOVED_MAX {
                        self.removed.insert(key, *at);
                    }
                }
            }
        }
        Ok(effects)
    }

    fn append(&mut self, out: &[u8]) -> io::Result<()> {
        write_at(&self.own.file, out, self.own.len)?;
        rustix::fs::fdatasync(&self.own.file)?;
        self.own.len += out.len() as u64;
        Ok(())
    }

    /// Goes on in another file.
    fn begin_log(&mut self) -> io::Result<()> {
        let names = files::names(&self.directory)?;
        let next = names.last().map_or(0, |name| name.number).max(self.own.name.number) + 1;
        self.own = Own::begin(&self.directory, next, &self.shelf)?;
        Ok(())
    }

    /// Reads what other processes have written since.
    pub(super) fn follow(&mut self, now: Timestamp) {
        if let Err(error) = self.try_follow(now) {
            tracing::warn!(%error, "what another process writes to the suppression list cannot be read");
        }
    }

    fn try_follow(&mut self, now: Timestamp) -> io::Result<()> {
        let known: Vec<_> = self.shelf.all().into_iter().map(|(_, paper)| paper.name).collect();
        for name in files::names(&self.directory)? {
            if self.is_log(name) && !known.contains(&name) {
                match self.meet(name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    met => met?,
                }
            }
        }
        let mut others = std::mem::take(&mut self.others);
        let read = others.iter_mut().try_for_each(|other| self.read(other, now));
        others.retain(|other| other.life == Life::Lives);
        self.others = others;
        if self.others.is_empty() {
            self.removed = HashMap::new();
        }
        read
    }

    fn read(&mut self, other: &mut Other, now: Timestamp) -> io::Result<()> {
        // Asked before it is read: what is written after its end is nobody's.
        let paper = open(&self.directory.join(other.name.to_string()), OFlags::RDONLY);
        let lives = match &paper {
            Ok(file) => flock(file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(_) => true,
        };
        drop(paper);
        loop {
            let position = other.lines.position();
            let Some(found) = other.lines.next()? else { break };
            match &found.change {
                Some(change) => {
                    let place = Place { file: other.number, offset: found.offset };
                    self.take(change, place, now, Sure::No);
                }
                None if lives && self.stuck != Some((other.name, position)) => {
                    // It may be on its way: it is looked at once more.
                    self.stuck = Some((other.name, position));
                    let paper = self.shelf.all().into_iter().find(|(_, paper)| paper.name == other.name);
                    if let Some((_, paper)) = paper {
                        other.lines = Lines::of(paper, position);
                    }
                    return Ok(());
                }
                None => {
                    tracing::warn!("{}: a line at {position} is no entry, and is passed over", other.name)
                }
            }
        }
        if !lives {
            other.life = Life::Ended;
        }
        Ok(())
    }

    /// Lets go of entries whose time is over, and puts files together when much in them is of no use.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        self.known.table.expire(now);
        let waste = self.lines.saturating_sub(self.known.table.len());
        let is_due = waste > self.known.table.len() + WASTE_MIN || self.shelf.len() > PAPERS_MANY;
        if !is_due || !self.others.is_empty() || now < self.resting_until {
            return;
        }
        if let Err(error) = self.put_together(now) {
            self.resting_until = now.saturating_add(REST);
            tracing::warn!(%error, "the files of the suppression list are not put together: they grow on");
        }
    }

    /// Copies what holds into one file, after which the others go. What is added meanwhile goes to a new log, which stays.
    ///
    /// Nobody else writes: so what is in the new file is later than all that has gone, and earlier than all that comes.
    pub(super) fn put_together(&mut self, now: Timestamp) -> io::Result<()> {
        let before = self.shelf.all();
        {
            // Whoever begins a log meanwhile gives it a higher number than the list has, which is that of our new log.
            let _quiet = Quiet::alone(&self.directory)?;
            let is_known = |name: Name| before.iter().any(|(_, paper)| paper.name == name);
            for name in files::names(&self.directory)? {
                if self.is_log(name) && !is_known(name) {
                    let (file, life) = self.look(name)?;
                    if !is_mute(&file, life)? {
                        return Ok(());
                    }
                }
            }
            self.begin_log()?;
            // Of tries that a crash or a full disk has ended.
            for entry in fs::read_dir(&self.directory)? {
                let path = entry?.path();
                if path.to_str().is_some_and(|path| path.ends_with(".list.new")) {
                    fs::remove_file(path)?;
                }
            }
        }
        let name = Name { number: self.own.name.number, kind: Kind::List };
        let draft = self.directory.join(format!("{name}.new"));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        let file = open(&draft, flags)?;
        let full = || io::Error::other("too many files");
        let (number, paper) = self.shelf.add(Paper { name, file }).ok_or_else(full)?;
        let (mut len, mut lines) = (0, 0);
        let (mut out, mut moved) = (Vec::with_capacity(COPY + LogLine::LEN_MAX), Vec::new());
        for (from, old) in &before {
            let mut reader = Lines::of(old.clone(), 0);
            loop {
                let found = reader.next()?;
                let is_end = found.is_none();
                if let Some(files::Found { offset, change: Some(change @ Change::Add(_)) }) = found {
                    let (scope, place) = (change.scope(), Place { file: *from, offset });
                    let key = self.known.keys.of(scope.tenant_id(), scope.list_id(), change.whom());
                    let here = self.known.table.find(key).filter(|found| found.place == place);
                    if here.is_some_and(|found| found.holds(now)) {
                        moved.push((key, place, len + out.len() as u64));
                        LogLine(change).write_to(&mut out);
                    }
                }
                if out.len() >= COPY || is_end {
                    write_at(&paper.file, &out, len)?;
                    len += out.len() as u64;
                    out.clear();
                    for (key, from, offset) in moved.drain(..) {
                        self.known.table.rebase(key, from, Place { file: number, offset });
                        lines += 1;
                    }
                }
                if is_end {
                    break;
                }
            }
        }
        rustix::fs::fsync(&paper.file)?;
        self.known.table.expire(now);
        let quiet = Quiet::alone(&self.directory)?;
        fs::rename(&draft, self.directory.join(name.to_string()))?;
        sync_directory(&self.directory)?;
        for old in files::names(&self.directory)? {
            if old.kind != Kind::Used && old.kind != Kind::Live && old < name {
                fs::remove_file(self.directory.join(old.to_string()))?;
            }
        }
        drop(quiet);
        for (old, _) in before {
            self.shelf.drop_paper(old);
        }
        (self.base, self.lines) = (name.number, lines);
        Ok(())
    }

    /// As if the disk would not take any more.
    #[cfg(test)]
    pub(super) fn break_log(&mut self) {
        let path = self.directory.join(self.own.name.to_string());
        self.own.file = open(&path, OFlags::RDONLY).expect("it is there");
    }

    /// Nothing more is written: an empty log goes.
    pub(super) fn end(&mut self) {
        if self.own.len == 0 {
            // It would be read at the next start, and say nothing.
            let _ = fs::remove_file(self.directory.join(self.own.name.to_string()));
        }
    }
}

/// Whether a file says nothing, and nobody is there who would write it.
fn is_mute(file: &OwnedFd, life: Life) -> io::Result<bool> {
    Ok(life == Life::Ended && rustix::fs::fstat(file)?.st_size == 0)
}

/// Whether a change is sure to have come after what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sure {
    Yes,
    No,
}

impl Own {
    fn begin(directory: &Path, number: u64, shelf: &Shelf) -> io::Result<Self> {
        let name = Name { number, kind: Kind::Log };
        let path = directory.join(name.to_string());
        let file = open(&path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        sync_directory(directory)?;
        let full = || io::Error::other(format!("more than {PAPERS_MAX} files in {}", directory.display()));
        let reading = file.try_clone()?;
        let (number, _) = shelf.add(Paper { name, file: reading }).ok_or_else(full)?;
        Ok(Self { name, number, file, len: 0 })
    }
}
