//! What is remembered of strangers is kept here, in files, over a restart and beside another process: the greylist, and reputation.
//!
//! ```text
//!  data/greylist/key                      32 octets that the hashes are made with
//!                0000000000000007.grey    records of one process, which has the file locked as long as it lives
//!                0000000000000008.grey    of another: beside it during an upgrade, or since a later start
//!                lock                     held while files come and go
//!  data/reputation/…                      the same, with records in .deeds
//! ```
//!
//! What was changed is appended once a second, and what others append is read as often. Entries join in any order, so that nothing
//! has to be asked of the other. When more than half of all records are of no use, or files of ended processes have gathered, all
//! that is known is written into a new file, and those of ended processes go. Nothing is synced on the way: a process that is
//! killed loses a second, a host that loses its power what its kernel had not written yet, and then some mail waits once more.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use aws_lc_rs::rand;
use bridge::Strangers;
use mail::Timestamp;
use rustix::fs::{FlockOperation, OFlags, flock};
use strangers::{
    DEEDS_RECORD, GREY_PARTS, GREY_RECORD, REPUTATION_PARTS, read_deeds, read_grey, write_deeds, write_grey,
};

use crate::disk::{Life, Quiet, life, open, read_at, sync_directory, write_at};

/// Whoever keeps it.
#[derive(Debug)]
pub struct StrangersKeeper {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// A table of entries that join in any order.
trait Table {
    /// Where it is in the data directory, and what it is called.
    const NAME: &'static str;
    /// How its files end.
    const SUFFIX: &'static str;
    /// Octets of a record.
    const RECORD: usize;
    /// Its parts.
    const PARTS: usize;

    fn set_key(&self, key: &[u8; 32]);
    /// Writes what was changed in a part since then.
    fn write_changes(&self, part: usize, out: &mut Vec<u8>);
    /// Writes all that is in a part.
    fn write_all(&self, part: usize, out: &mut Vec<u8>);
    /// Takes a record in, if it is one.
    fn absorb(&self, record: &[u8], now: Timestamp) -> bool;
    /// Forgets what is over, in the next part.
    fn sweep(&self, turn: usize, now: Timestamp);
    fn len(&self) -> u64;
}

#[derive(Debug)]
struct OfGreylist(Strangers);

#[derive(Debug)]
struct OfReputation(Strangers);

/// What this process writes, and what others do.
#[derive(Debug)]
struct Store<T> {
    directory: PathBuf,
    table: T,
    own: Option<Own>,
    others: BTreeMap<u64, Other>,
    /// Where in the table it is swept next.
    turn: usize,
    /// All has to be written anew, after that: some of it was not.
    incomplete_until: Option<Timestamp>,
}

/// The file that this process writes.
#[derive(Debug)]
struct Own {
    number: u64,
    file: OwnedFd,
    len: u64,
}

#[derive(Debug)]
struct Other {
    file: OwnedFd,
    /// Records that were read.
    records: u64,
    life: Life,
}

/// How often changes are written, and others are read.
const EVERY: Duration = Duration::from_secs(1);
/// Records of no use before all is written anew, beside as many as there are entries.
const WASTE_MIN: u64 = 10_000;
/// Files of ended processes, likewise.
const FILES_MAX: usize = 4;
/// How long it is waited when the disk does not take them.
const REST: Duration = Duration::from_secs(60);
/// So much is read and written at once.
const CHUNK: usize = 120 << 12;

/// Reads what is there, and keeps it from here on, on a thread of its own: the shards may go on when the pool has ended.
///
/// # Errors
/// When the files cannot be made or read, or the system has no thread for it.
pub fn keep_strangers(
    data_directory: &Path,
    strangers: Strangers,
    clock: fn() -> Timestamp,
) -> io::Result<StrangersKeeper> {
    let mut greylist = Store::open(data_directory, OfGreylist(strangers.clone()), clock())?;
    let mut reputation = Store::open(data_directory, OfReputation(strangers), clock())?;
    let (stop, stopped) = channel();
    let run = move || {
        while goes_on(&stopped) {
            greylist.round(clock());
            reputation.round(clock());
        }
        greylist.end(clock());
        reputation.end(clock());
    };
    let thread = thread::Builder::new().name("strangers".into()).spawn(run)?;
    Ok(StrangersKeeper { stop, thread })
}

fn goes_on(stopped: &Receiver<()>) -> bool {
    stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout)
}

impl StrangersKeeper {
    /// Writes what is left, when nobody changes anything any more.
    pub fn end(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!(
                "what is known of strangers is not written to its end: the thread that kept it has failed"
            );
        }
    }
}

impl Table for OfGreylist {
    const NAME: &'static str = "greylist";
    const SUFFIX: &'static str = "grey";
    const RECORD: usize = GREY_RECORD;
    const PARTS: usize = GREY_PARTS;

    fn set_key(&self, key: &[u8; 32]) {
        self.0.greylist().set_key(key);
    }

    fn write_changes(&self, part: usize, out: &mut Vec<u8>) {
        self.0.greylist().take_changes(part).into_iter().for_each(|(key, slot)| write_grey(key, slot, out));
    }

    fn write_all(&self, part: usize, out: &mut Vec<u8>) {
        self.0.greylist().entries(part).into_iter().for_each(|(key, slot)| write_grey(key, slot, out));
    }

    fn absorb(&self, record: &[u8], now: Timestamp) -> bool {
        let read = record.try_into().ok().and_then(|record| read_grey(record).ok());
        read.map(|(key, slot)| self.0.greylist().absorb(key, slot, now)).is_some()
    }

    fn sweep(&self, turn: usize, now: Timestamp) {
        self.0.greylist().sweep(turn, now);
    }

    fn len(&self) -> u64 {
        self.0.greylist().len()
    }
}

impl Table for OfReputation {
    const NAME: &'static str = "reputation";
    const SUFFIX: &'static str = "deeds";
    const RECORD: usize = DEEDS_RECORD;
    const PARTS: usize = REPUTATION_PARTS;

    fn set_key(&self, key: &[u8; 32]) {
        self.0.reputation().set_key(key);
    }

    fn write_changes(&self, part: usize, out: &mut Vec<u8>) {
        self.0
            .reputation()
            .take_changes(part)
            .into_iter()
            .for_each(|(key, deeds)| write_deeds(key, deeds, out));
    }

    fn write_all(&self, part: usize, out: &mut Vec<u8>) {
        self.0.reputation().entries(part).into_iter().for_each(|(key, deeds)| write_deeds(key, deeds, out));
    }

    fn absorb(&self, record: &[u8], now: Timestamp) -> bool {
        let read = record.try_into().ok().and_then(|record| read_deeds(record).ok());
        read.map(|(key, deeds)| self.0.reputation().absorb(key, deeds, now)).is_some()
    }

    fn sweep(&self, turn: usize, now: Timestamp) {
        self.0.reputation().sweep(turn, now);
    }

    fn len(&self) -> u64 {
        self.0.reputation().len()
    }
}

impl<T: Table> Store<T> {
    /// Takes in what earlier processes have written, and others write.
    fn open(data_directory: &Path, table: T, now: Timestamp) -> io::Result<Self> {
        let directory = data_directory.join(T::NAME);
        // Who writes to whom is nobody else's to find out.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        table.set_key(&key(&directory)?);
        let mut store =
            Self { directory, table, own: None, others: BTreeMap::new(), turn: 0, incomplete_until: None };
        // Twice, since files may have been put together meanwhile.
        store.follow(now)?;
        store.follow(now)?;
        Ok(store)
    }

    /// What is done once a second.
    fn round(&mut self, now: Timestamp) {
        if let Err(error) = self.follow(now) {
            tracing::warn!(%error, "what another process writes to {} cannot be read", self.directory.display());
        }
        self.table.sweep(self.turn, now);
        self.turn += 1;
        self.save(now);
    }

    fn save(&mut self, now: Timestamp) {
        if self.incomplete_until.is_some_and(|until| now < until) {
            return;
        }
        let is_due = self.incomplete_until.is_some() || self.is_wasteful();
        let saved = self.write_changes().and_then(|()| if is_due { self.write_all(now) } else { Ok(()) });
        match saved {
            Ok(()) => self.incomplete_until = None,
            Err(error) => {
                tracing::warn!(%error, "{} cannot be written: a restart forgets what came since", self.directory.display());
                self.incomplete_until = Some(now.saturating_add(REST));
                self.own = None;
            }
        }
    }

    fn is_wasteful(&self) -> bool {
        let own = self.own.as_ref().map_or(0, |own| own.len / T::RECORD as u64);
        let ended = self.others.values().filter(|other| other.life == Life::Ended);
        let records = own + ended.clone().map(|other| other.records).sum::<u64>();
        records > 2 * self.table.len() + WASTE_MIN || ended.count() > FILES_MAX
    }

    /// Reads what others have written since.
    fn follow(&mut self, now: Timestamp) -> io::Result<()> {
        let numbers = numbers::<T>(&self.directory)?;
        self.others.retain(|number, other| other.life == Life::Lives || numbers.contains(number));
        for number in numbers {
            if self.own.as_ref().is_some_and(|own| own.number == number) || self.others.contains_key(&number)
            {
                continue;
            }
            match open(&self.path(number), OFlags::RDONLY) {
                Ok(file) => {
                    self.others.insert(number, Other { file, records: 0, life: Life::Lives });
                }
                // What was in it is in another file by now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        for other in self.others.values_mut().filter(|other| other.life == Life::Lives) {
            // Asked before it is read: what is written after its end is nobody's.
            let life = life(&other.file)?;
            other.read(&self.table, now)?;
            other.life = life;
        }
        Ok(())
    }

    fn write_changes(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        (0..T::PARTS).for_each(|part| self.table.write_changes(part, &mut out));
        if out.is_empty() {
            return Ok(());
        }
        if self.own.is_none() {
            let quiet = Quiet::alone(&self.directory)?;
            self.own = Some(self.begin(&[], &quiet)?);
        }
        let own = self.own.as_mut().expect("it was begun");
        write_at(&own.file, &out, own.len)?;
        own.len += out.len() as u64;
        Ok(())
    }

    /// Writes all that is known into a new file; those that say nothing more than that go.
    fn write_all(&mut self, now: Timestamp) -> io::Result<()> {
        let quiet = Quiet::alone(&self.directory)?;
        // What an ended process has left must be in memory before its file goes.
        self.follow(now)?;
        let mut out = Vec::new();
        (0..T::PARTS).for_each(|part| self.table.write_all(part, &mut out));
        let new = self.begin(&out, &quiet)?;
        let before = self.own.replace(new).map(|own| own.number);
        let ended =
            self.others.iter().filter(|(_, other)| other.life == Life::Ended).map(|(number, _)| *number);
        let gone: Vec<_> = ended.chain(before).collect();
        for number in gone {
            match fs::remove_file(self.path(number)) {
                // Another process has done the same.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
            self.others.remove(&number);
        }
        Ok(())
    }

    /// A new file of this process, with that in it. It is locked before anybody else can see it.
    fn begin(&self, content: &[u8], _quiet: &Quiet) -> io::Result<Own> {
        let number = numbers::<T>(&self.directory)?.last().map_or(1, |number| number + 1);
        let path = self.path(number);
        let draft = path.with_extension(format!("{}.new", T::SUFFIX));
        let file = open(&draft, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        for (place, chunk) in content.chunks(CHUNK).enumerate() {
            write_at(&file, chunk, (place * CHUNK) as u64)?;
        }
        if !content.is_empty() {
            // Others go when this one is there.
            rustix::fs::fsync(&file)?;
        }
        fs::rename(&draft, &path)?;
        sync_directory(&self.directory)?;
        Ok(Own { number, file, len: content.len() as u64 })
    }

    /// Nothing is changed any more.
    fn end(&mut self, now: Timestamp) {
        self.incomplete_until = None;
        self.save(now);
        if let Some(own) = &self.own
            && let Err(error) = rustix::fs::fdatasync(&own.file)
        {
            tracing::warn!(%error, "{} is not synced", self.directory.display());
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:016}.{}", T::SUFFIX))
    }
}

impl Other {
    /// Reads what there is more than before. A record that is not whole yet is read the next time.
    fn read<T: Table>(&mut self, table: &T, now: Timestamp) -> io::Result<()> {
        let mut strange = 0_u64;
        loop {
            let mut octets = Vec::new();
            read_at(&self.file, &mut octets, CHUNK, self.records * T::RECORD as u64)?;
            let records = octets.chunks_exact(T::RECORD);
            if records.len() == 0 {
                break;
            }
            self.records += records.len() as u64;
            strange += records.filter(|record| !table.absorb(record, now)).count() as u64;
        }
        if strange > 0 {
            tracing::warn!("{strange} records of the {} are none, and are passed over", T::NAME);
        }
        Ok(())
    }
}

/// What hashes are made with, drawn when there is none.
fn key(directory: &Path) -> io::Result<[u8; 32]> {
    let _quiet = Quiet::alone(directory)?;
    let path = directory.join("key");
    match fs::read(&path) {
        Ok(key) => {
            return key.try_into().map_err(|_| {
                let text = format!(
                    "{}: it has not 32 octets; without it, and the files beside it, all begins anew",
                    path.display()
                );
                io::Error::new(io::ErrorKind::InvalidData, text)
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut key = [0; 32];
    rand::fill(&mut key).map_err(|_| io::Error::other("the system has no random numbers"))?;
    let draft = directory.join("key.new");
    let file = open(&draft, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)?;
    write_at(&file, &key, 0)?;
    rustix::fs::fsync(&file)?;
    fs::rename(&draft, &path)?;
    sync_directory(directory)?;
    Ok(key)
}

/// The numbers of all files, in order.
fn numbers<T: Table>(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(T::SUFFIX)?.strip_suffix('.'));
        let number = stem.filter(|number| number.len() == 16);
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
#[path = "strangers_test.rs"]
mod test;
