//! What tenants have sent, over a restart: a file for each process, written once a second when something was counted.
//!
//! A crash forgets what was counted in the second before it. A process that has ended leaves its file; whoever comes next
//! counts that as its own, and says so in its first line (`absorbed 7`) before the file goes: so nothing counts twice, wherever
//! a crash comes in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use std::os::fd::OwnedFd;

use bridge::Known;
use mail::Timestamp;
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};
use tenancy::UsedText;

use crate::{disk::open, durably};

use super::files::{self, Kind, Name};

#[derive(Debug)]
pub(super) struct Usage {
    directory: PathBuf,
    known: Arc<Known>,
    number: u64,
    /// Locked as long as this process counts.
    live: OwnedFd,
    /// What is in the file.
    written: String,
    /// Files whose counts are in ours.
    absorbed: BTreeSet<u64>,
}

impl Usage {
    /// Takes what processes before this one have counted.
    pub(super) fn open(
        directory: &Path,
        number: u64,
        known: &Arc<Known>,
        now: Timestamp,
    ) -> io::Result<Self> {
        let live = directory.join(Name { number, kind: Kind::Live }.to_string());
        let live = open(&live, OFlags::RDWR | OFlags::CREATE)?;
        flock(&live, FlockOperation::NonBlockingLockExclusive)?;
        let (directory, known) = (directory.to_owned(), known.clone());
        let mut usage =
            Self { directory, known, number, live, written: String::new(), absorbed: BTreeSet::new() };
        usage.read(now)?;
        Ok(usage)
    }

    /// Writes what was counted here, and reads what others count.
    pub(super) fn follow(&mut self, now: Timestamp) {
        self.write(now);
        if let Err(error) = self.read(now) {
            tracing::warn!(%error, "what another process counts of quotas cannot be read");
        }
    }

    fn read(&mut self, now: Timestamp) -> io::Result<()> {
        let mut others = BTreeMap::new();
        for name in files::names(&self.directory)? {
            if name.kind != Kind::Used || name.number == self.number {
                continue;
            }
            // Before it is read: what an end has written is in it.
            let life = self.lives(name.number)?;
            match fs::read_to_string(self.path(name.number, Kind::Used)) {
                Ok(text) => _ = others.insert(name.number, (text, life)),
                // It has just been taken over by another.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // Whoever says so has it in its own numbers.
        let mut gone: BTreeSet<u64> = others.values().flat_map(|(text, _)| absorbed(text)).collect();
        gone.extend(&self.absorbed);
        others.retain(|number, _| !gone.contains(number));
        let mut texts = Vec::new();
        for (number, (text, lives)) in others {
            if lives {
                texts.push(UsedText(text));
                continue;
            }
            self.absorbed.extend(absorbed(&text));
            self.absorbed.insert(number);
            self.known.quotas.take_over(&UsedText(text), now);
        }
        self.known.quotas.set_others(&texts, now);
        if !self.absorbed.is_empty() && self.write(now) {
            for number in std::mem::take(&mut self.absorbed) {
                let left = [Kind::Used, Kind::Live].map(|kind| fs::remove_file(self.path(number, kind)));
                // Where it does not go, our file goes on saying that it is in ours.
                let is_left =
                    |left: io::Result<()>| left.is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
                if left.into_iter().any(is_left) {
                    self.absorbed.insert(number);
                }
            }
        }
        Ok(())
    }

    /// Whether the process with that number counts.
    fn lives(&self, number: u64) -> io::Result<bool> {
        match open(&self.path(number, Kind::Live), OFlags::RDONLY) {
            Ok(file) => Ok(flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes what was counted here, if it has changed; answers whether the file has it.
    pub(super) fn write(&mut self, now: Timestamp) -> bool {
        let mut text = String::new();
        for number in &self.absorbed {
            text += &format!("absorbed {number}\n");
        }
        text += &self.known.quotas.to_text(now).0;
        if text == self.written {
            return true;
        }
        let path = self.path(self.number, Kind::Used);
        match durably::write(&path, &text) {
            Ok(()) => {
                self.written = text;
                true
            }
            Err(error) => {
                tracing::warn!("{}: {error}: a restart counts quotas from before", path.display());
                false
            }
        }
    }

    /// Nothing more is counted: whoever comes next may take it over.
    pub(super) fn end(self, now: Timestamp) {
        let mut usage = self;
        usage.write(now);
        drop(usage.live);
    }

    fn path(&self, number: u64, kind: Kind) -> PathBuf {
        self.directory.join(Name { number, kind }.to_string())
    }
}

fn absorbed(text: &str) -> impl Iterator<Item = u64> {
    text.lines().map_while(|line| line.strip_prefix("absorbed ")?.parse().ok())
}
