//! The disk budget of the host: one limit for the segments of all journal shards, whoever has them.
//!
//! A journal shard takes its segments' bytes before it makes a file and gives them back when the file is gone, so that
//! what lies on the disk is never more than the limit, to the byte; only what was there at the start may be. For a
//! shard that takes mail, a share is set aside which nobody else can use up: with less it could not work.
//! While another process hands its journal shards over, what lies in them counts as well ([`DiskElsewhere`]); that one
//! does not know of this, so that beside each other they may have more than the limit by what is set aside here.
//! Touched per segment, never per message.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The budget of one host; every journal shard has a share of it.
#[derive(Clone, Debug)]
pub struct DiskBudget(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    max: AtomicU64,
    /// What is used or set aside.
    taken: AtomicU64,
}

/// What one journal shard has of the budget.
#[derive(Debug)]
pub struct DiskShare {
    budget: DiskBudget,
    /// The length of each segment file, by its number.
    files: RefCell<HashMap<u32, u64>>,
    aside: u64,
}

/// What a journal shard takes that another process has.
#[derive(Debug)]
pub struct DiskElsewhere {
    budget: DiskBudget,
    directory: PathBuf,
    bytes: u64,
}

impl DiskBudget {
    /// So many bytes in all.
    pub fn new(max: u64) -> Self {
        Self(Arc::new(Counts { max: max.into(), taken: AtomicU64::new(0) }))
    }

    /// Another limit from now on. What is there stays, though it be more.
    pub fn set_max(&self, max: u64) {
        self.0.max.store(max, Relaxed);
    }

    /// The limit.
    pub fn max(&self) -> u64 {
        self.0.max.load(Relaxed)
    }

    /// What is used or set aside.
    pub fn taken(&self) -> u64 {
        self.0.taken.load(Relaxed)
    }

    /// The share of the journal shard in `directory`, with the files that lie there. `aside`: what is kept for it.
    /// All shares are made before any is used: what is there counts first.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn share(&self, directory: &Path, aside: u64) -> io::Result<DiskShare> {
        let files = segments(directory)?;
        let used: u64 = files.values().sum();
        self.0.taken.fetch_add(used.max(aside), Relaxed);
        Ok(DiskShare { budget: self.clone(), files: files.into(), aside })
    }

    /// What the journal shard in `directory` takes while another process has it. It counts here until this is dropped: make
    /// the share before that when the journal shard is taken over.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn elsewhere(&self, directory: &Path) -> io::Result<DiskElsewhere> {
        let mut elsewhere = DiskElsewhere { budget: self.clone(), directory: directory.to_owned(), bytes: 0 };
        elsewhere.measure()?;
        Ok(elsewhere)
    }
}

/// The segment files in a directory, by their numbers, with their lengths.
fn segments(directory: &Path) -> io::Result<HashMap<u32, u64>> {
    let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let entries = match fs::read_dir(directory) {
        Ok(entries) => Some(entries),
        Err(error) if is_missing(&error) => None,
        Err(error) => return Err(error),
    };
    let mut files = HashMap::new();
    for entry in entries.into_iter().flatten() {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(crate::journals::segment_number);
        let Some(number) = number else { continue };
        match entry.metadata() {
            Ok(metadata) => _ = files.insert(number, metadata.len()),
            // Another process may be at work there.
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

impl DiskElsewhere {
    /// Looks again: the other process goes on.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn measure(&mut self) -> io::Result<()> {
        let now: u64 = segments(&self.directory)?.values().sum();
        let before = std::mem::replace(&mut self.bytes, now);
        let taken = &self.budget.0.taken;
        taken.fetch_add(now.saturating_sub(before), Relaxed);
        taken.fetch_sub(before.saturating_sub(now), Relaxed);
        Ok(())
    }
}

impl Drop for DiskElsewhere {
    fn drop(&mut self) {
        self.budget.0.taken.fetch_sub(self.bytes, Relaxed);
    }
}

impl Drop for DiskShare {
    /// Whoever has the journal shard next counts what is there.
    fn drop(&mut self) {
        self.budget.0.taken.fetch_sub(self.counted(self.used()), Relaxed);
    }
}

impl DiskShare {
    /// Takes the bytes of a file that is to be made; says whether there is room.
    #[must_use]
    pub(crate) fn take(&self, segment: u32, size: u64) -> bool {
        let (used, old) = (self.used(), self.files.borrow().get(&segment).copied().unwrap_or(0));
        let (before, after) = (self.counted(used), self.counted(used - old + size));
        let counts = &self.budget.0;
        let more = after.saturating_sub(before);
        let fits = |taken: u64| taken.checked_add(more).filter(|taken| *taken <= self.budget.max());
        // Relaxed: the count guards nothing but itself.
        let taken = more == 0 || counts.taken.try_update(Relaxed, Relaxed, fits).is_ok();
        if taken {
            counts.taken.fetch_sub(before.saturating_sub(after), Relaxed);
            self.files.borrow_mut().insert(segment, size);
        }
        taken
    }

    /// The file is gone.
    pub(crate) fn give_back(&self, segment: u32) {
        let before = self.counted(self.used());
        self.files.borrow_mut().remove(&segment);
        let after = self.counted(self.used());
        self.budget.0.taken.fetch_sub(before - after, Relaxed);
    }

    /// Whether another file of that size would find room now.
    pub(crate) fn has_room(&self, size: u64) -> bool {
        let used = self.used();
        let more = self.counted(used + size) - self.counted(used);
        more == 0 || self.budget.taken().saturating_add(more) <= self.budget.max()
    }

    /// The limit of all.
    pub(crate) fn max(&self) -> u64 {
        self.budget.max()
    }

    fn used(&self) -> u64 {
        self.files.borrow().values().sum()
    }

    fn counted(&self, used: u64) -> u64 {
        used.max(self.aside)
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use std::thread;

    const SIZE: u64 = 100;

    fn share(budget: &DiskBudget, aside: u64) -> DiskShare {
        budget.share(Path::new("/nonexistent"), aside).unwrap()
    }

    #[test]
    fn one_can_use_what_others_leave() {
        let budget = DiskBudget::new(20 * SIZE + SIZE / 2);
        let (busy, idle) = (share(&budget, 4 * SIZE), share(&budget, 4 * SIZE));
        // Without an equal part for each: 16 of 20, and the four of the other are not touched.
        assert_eq!((0..).take_while(|segment| busy.take(*segment, SIZE)).count(), 16);
        assert!(!busy.has_room(SIZE) && idle.has_room(SIZE));
        assert_eq!((0..).take_while(|segment| idle.take(*segment, SIZE)).count(), 4);
        assert_eq!(budget.taken(), 20 * SIZE, "half a segment is none");
        // What one gives back, the other can have.
        busy.give_back(3);
        assert!(idle.has_room(SIZE) && idle.take(4, SIZE) && !busy.take(3, SIZE));
        // But not what is set aside.
        for segment in 0..5 {
            idle.give_back(segment);
        }
        assert_eq!(budget.taken(), 19 * SIZE);
        assert!(busy.take(3, SIZE) && !busy.take(16, SIZE));
    }

    #[test]
    fn a_file_that_is_made_again_counts_once() {
        let budget = DiskBudget::new(10 * SIZE);
        let share = share(&budget, 2 * SIZE);
        assert!(share.take(1, 7 * SIZE) && share.take(1, 9 * SIZE));
        assert_eq!(budget.taken(), 9 * SIZE);
        assert!(share.take(1, SIZE) && share.take(2, 9 * SIZE));
        assert_eq!(budget.taken(), 10 * SIZE);
        share.give_back(2);
        share.give_back(2);
        assert_eq!(budget.taken(), 2 * SIZE);
    }

    #[test]
    fn what_is_there_counts_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        for (name, len) in [("00000001.segment", 300), ("00000002.segment", 50), ("notes", 1000)] {
            fs::write(directory.path().join(name), vec![0; len]).unwrap();
        }
        let budget = DiskBudget::new(3 * SIZE);
        let old = budget.share(directory.path(), SIZE).unwrap();
        assert_eq!(budget.taken(), 350);
        assert!(!old.take(3, SIZE) && !old.has_room(SIZE), "more than the limit is there");
        old.give_back(1);
        assert!(old.take(3, SIZE) && old.take(4, SIZE));
        assert_eq!(budget.taken(), 250);
        budget.set_max(250);
        assert!(!old.has_room(1));
        budget.set_max(1000);
        assert!(old.take(5, 7 * SIZE));
        assert!(budget.share(&directory.path().join("notes"), 0).is_err());
    }

    /// Two programs beside each other have one disk.
    #[test]
    fn what_another_process_has_counts_until_it_is_here() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, len| fs::write(directory.path().join(name), vec![0; len]).unwrap();
        write("00000001.segment", 300);
        let budget = DiskBudget::new(10 * SIZE);
        let ours = share(&budget, 4 * SIZE);
        let mut elsewhere = budget.elsewhere(directory.path()).unwrap();
        assert_eq!(budget.taken(), 700);
        assert!(ours.take(1, 7 * SIZE) && !ours.take(2, SIZE));
        ours.give_back(1);
        // It goes on there, and comes to an end.
        write("00000002.segment", 200);
        elsewhere.measure().unwrap();
        assert_eq!(budget.taken(), 900);
        fs::remove_file(directory.path().join("00000001.segment")).unwrap();
        elsewhere.measure().unwrap();
        assert_eq!(budget.taken(), 600);
        let here = budget.share(directory.path(), 0).unwrap();
        drop(elsewhere);
        assert_eq!(budget.taken(), 600);
        here.give_back(2);
        assert_eq!(budget.taken(), 400);
    }

    #[test]
    fn the_limit_holds_between_threads() {
        let budget = DiskBudget::new(1000 * SIZE);
        // What is set aside for all counts before one of them takes.
        let shares: Vec<_> = (0..4).map(|_| share(&budget, 10 * SIZE)).collect();
        let workers: Vec<_> = shares
            .into_iter()
            .map(|share| {
                thread::spawn(move || {
                    let mut has = 0;
                    for round in 0..2000 {
                        if share.take(round, SIZE) {
                            has += 1;
                        }
                        assert!(share.budget.taken() <= 1000 * SIZE);
                        if round % 3 == 0 {
                            has -= u64::from(share.files.borrow().contains_key(&(round / 2)));
                            share.give_back(round / 2);
                        }
                    }
                    (share, has)
                })
            })
            .collect();
        let shares: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        let counted: u64 = shares.iter().map(|(_, has)| (has * SIZE).max(10 * SIZE)).sum();
        assert_eq!(budget.taken(), counted);
    }
}
