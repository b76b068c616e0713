//! The indexes of all journal shards: read at the start by threads of their own, kept by one that may wait for a disk.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fs,
    os::unix::fs::DirBuilderExt as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::Context;
use config::Config;
use index::{Index, Loaded, OpenReport, SledIndex};
use mail::JournalShard;
use ring::{DirectoryLock, LockError};
use shard::{DiskBudget, DiskElsewhere, IndexChange, IndexOrder, JournalSetup};
use tokio::sync::{mpsc, oneshot};

use crate::open;

/// Which journal shards this process has. No other can have them: not even one that was given up and does not know.
#[derive(Debug)]
pub(crate) struct Holding {
    /// Where new mail goes, by core.
    active: Vec<JournalShard>,
    /// All of them, with what keeps others away.
    locks: BTreeMap<JournalShard, DirectoryLock>,
}

impl Holding {
    /// Those that nobody else has: for each core one for new mail, and all that hold anything. None where a core would
    /// have none.
    ///
    /// # Errors
    /// When the directory of one cannot be used.
    pub(crate) fn choose(
        config: &Config,
        cores: usize,
        elsewhere: &BTreeSet<JournalShard>,
    ) -> anyhow::Result<Option<Self>> {
        let free = || (0..config.journal.shards).map(JournalShard).filter(|shard| !elsewhere.contains(shard));
        let (mut active, mut locks) = (Vec::new(), BTreeMap::new());
        for core in 0..cores {
            for shard in free().filter(|shard| core_of(*shard, cores) == core) {
                if let Some(lock) = claim(config, shard)? {
                    active.push(shard);
                    locks.insert(shard, lock);
                    break;
                }
            }
            if active.len() == core {
                return Ok(None);
            }
        }
        // One without segments has nothing to take over, unless new mail goes there.
        for shard in free().filter(|shard| open::segments(&config.data_directory, *shard).is_dir()) {
            if active.contains(&shard) {
                continue;
            }
            match claim(config, shard)? {
                Some(lock) => _ = locks.insert(shard, lock),
                None => {
                    tracing::error!(%shard, "another process has this journal shard: its mail waits for a restart");
                }
            }
        }
        Ok(Some(Self { active, locks }))
    }

    /// All of them.
    pub(crate) fn all(&self) -> BTreeSet<JournalShard> {
        self.locks.keys().copied().collect()
    }

    /// Those of a core.
    pub(crate) fn of_core(&self, core: usize) -> BTreeSet<JournalShard> {
        let cores = self.active.len();
        self.locks.keys().copied().filter(|shard| core_of(*shard, cores) == core).collect()
    }

    /// Some are not needed here, and closed.
    pub(crate) fn remove<'a>(&mut self, shards: impl IntoIterator<Item = &'a JournalShard>) {
        for shard in shards {
            self.locks.remove(shard);
        }
    }

    /// Takes all that hold anything and that nobody has. Answers which these are, and whether somebody has others.
    ///
    /// # Errors
    /// When the directory of one cannot be used.
    pub(crate) fn take_strays(
        &mut self,
        config: &Config,
    ) -> anyhow::Result<(BTreeSet<JournalShard>, Elsewhere)> {
        let (mut taken, mut elsewhere) = (BTreeSet::new(), Elsewhere::None);
        for shard in (0..config.journal.shards).map(JournalShard) {
            let directory = open::segments(&config.data_directory, shard);
            if self.locks.contains_key(&shard) || !directory.is_dir() {
                continue;
            }
            match claim(config, shard)? {
                Some(lock) => {
                    self.locks.insert(shard, lock);
                    taken.insert(shard);
                }
                None => elsewhere = Elsewhere::Some,
            }
        }
        Ok((taken, elsewhere))
    }

    /// Takes those of another process, all or none: none as long as it has one of them.
    ///
    /// # Errors
    /// When the directory of one cannot be used.
    pub(crate) fn extend(
        &mut self,
        config: &Config,
        shards: &BTreeSet<JournalShard>,
    ) -> anyhow::Result<bool> {
        let mut taken = BTreeMap::new();
        // What is here already is nobody else's.
        for shard in shards.iter().filter(|shard| !self.locks.contains_key(shard)) {
            let Some(lock) = claim(config, *shard)? else { return Ok(false) };
            taken.insert(*shard, lock);
        }
        self.locks.append(&mut taken);
        Ok(true)
    }
}

/// Whether another process has journal shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    None,
    Some,
}

/// Keeps everybody else from a journal shard; none when somebody has it.
fn claim(config: &Config, shard: JournalShard) -> anyhow::Result<Option<DirectoryLock>> {
    let directory = open::segments(&config.data_directory, shard);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    match DirectoryLock::acquire(&directory) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Held { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The core that has a journal shard.
pub(crate) fn core_of(shard: JournalShard, cores: usize) -> usize {
    usize::from(shard.0) % cores
}

/// The indexes, and the threads that read and write them.
pub(crate) struct Indexes {
    config: Arc<Config>,
    opened: Opened,
    loading: RefCell<HashMap<JournalShard, oneshot::Receiver<Option<Loaded>>>>,
    orders: mpsc::Sender<IndexOrder>,
    writer: thread::JoinHandle<()>,
}

/// Opened, by journal shard. Only who has taken one out of here uses it.
type Opened = Arc<Mutex<HashMap<JournalShard, SledIndex>>>;

/// An index to be opened and read, and whoever waits for what it says.
type Job = (JournalShard, oneshot::Sender<Option<Loaded>>);

/// Batches that may wait for the disk before the shards' checkpoints do.
const ORDERS_MAX: usize = 16;

impl Indexes {
    /// Begins to read the indexes of these journal shards, and starts the thread that writes them.
    pub(crate) fn open(config: &Config, holding: &Holding) -> anyhow::Result<Self> {
        let (config, opened) = (Arc::new(config.clone()), Opened::default());
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let (ours, kept) = (config.clone(), opened.clone());
        let writer = start("index".to_owned(), move || keep(&ours, &kept, received))?;
        let this = Self { config, opened, loading: RefCell::default(), orders, writer };
        this.read(&holding.all(), holding.active.len())?;
        Ok(this)
    }

    /// Begins to read the indexes of these journal shards, in so many threads at most.
    fn read(&self, shards: &BTreeSet<JournalShard>, threads: usize) -> anyhow::Result<()> {
        let mut jobs = VecDeque::new();
        for shard in shards {
            let (loaded, receiver) = oneshot::channel();
            jobs.push_back((*shard, loaded));
            self.loading.borrow_mut().insert(*shard, receiver);
        }
        let readers = jobs.len().min(threads);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..readers {
            let (config, opened, jobs) = (self.config.clone(), self.opened.clone(), jobs.clone());
            start(format!("index-{number}"), move || load(&config, &opened, &jobs))?;
        }
        Ok(())
    }

    /// The journal shards that each core takes over. What lies in any of them counts before one makes more of it.
    ///
    /// # Errors
    /// When the segments of one cannot be listed.
    pub(crate) fn journals(
        &self,
        holding: &Holding,
        budget: &DiskBudget,
    ) -> anyhow::Result<Vec<Vec<JournalSetup>>> {
        let mut journals = Vec::new();
        for (core, active) in holding.active.iter().enumerate() {
            // New mail goes to the first, for which room is kept.
            let mut ours = vec![self.journal(*active, self.config.journal.disk_min(1), budget)?];
            for shard in holding.locks.keys().filter(|shard| *shard != active) {
                if core_of(*shard, holding.active.len()) == core {
                    ours.push(self.journal(*shard, 0, budget)?);
                }
            }
            journals.push(ours);
        }
        Ok(journals)
    }

    /// Takes journal shards that another process had until now.
    ///
    /// # Errors
    /// When the segments of one cannot be listed.
    pub(crate) fn adopt(
        &self,
        shards: &BTreeSet<JournalShard>,
        budget: &DiskBudget,
    ) -> anyhow::Result<Vec<JournalSetup>> {
        self.read(shards, 1)?;
        shards.iter().map(|shard| self.journal(*shard, 0, budget)).collect()
    }

    /// What journal shards take that another process has.
    ///
    /// # Errors
    /// When the segments of one cannot be listed.
    pub(crate) fn elsewhere(
        &self,
        shards: &BTreeSet<JournalShard>,
        budget: &DiskBudget,
    ) -> anyhow::Result<BTreeMap<JournalShard, DiskElsewhere>> {
        let measured = |shard: &JournalShard| {
            let directory = open::segments(&self.config.data_directory, *shard);
            let elsewhere = budget.elsewhere(&directory);
            let elsewhere = elsewhere.with_context(|| format!("cannot list {}", directory.display()))?;
            Ok((*shard, elsewhere))
        };
        shards.iter().map(measured).collect()
    }

    fn journal(&self, shard: JournalShard, aside: u64, budget: &DiskBudget) -> anyhow::Result<JournalSetup> {
        let directory = open::segments(&self.config.data_directory, shard);
        let share = budget
            .share(&directory, aside)
            .with_context(|| format!("cannot list {}", directory.display()))?;
        let loaded = self.loading.borrow_mut().remove(&shard).context("its index is not being read")?;
        Ok(JournalSetup { shard, directory, loaded, share, adopted: None })
    }

    /// Closes those of journal shards whose last order is behind us, so that another process can open them.
    pub(crate) async fn release(&self, shards: &BTreeSet<JournalShard>) {
        for shard in shards {
            let (closed, closing) = oneshot::channel();
            let order = IndexOrder { shard: *shard, change: IndexChange::Release(closed) };
            // The thread that keeps them ends only when the program does.
            if self.orders.send(order).await.is_ok() {
                let _ = closing.await;
            }
        }
    }

    /// Where shards send what is to be stored.
    pub(crate) fn orders(&self) -> mpsc::Sender<IndexOrder> {
        self.orders.clone()
    }

    /// Waits until everything is stored. Who still reads is not waited for: nothing is lost with it.
    pub(crate) fn close(self) {
        // Dropping the sender would not do: what a shard's executor leaves undone at its end may hold another.
        let _ = self.orders.blocking_send(IndexOrder { shard: JournalShard(0), change: IndexChange::Close });
        // It does not panic: sled's panics are caught where they arise.
        let _ = self.writer.join();
    }
}

fn start(name: String, run: impl FnOnce() + Send + 'static) -> anyhow::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(run).context("cannot start a thread for the index")
}

/// Opens and reads indexes until there are no more.
fn load(config: &Config, opened: &Opened, jobs: &Mutex<VecDeque<Job>>) {
    loop {
        let Some((shard, waiting)) = lock(jobs).pop_front() else { return };
        let Some(index) = open_index(config, shard) else { continue };
        let loaded = index.load().unwrap_or_else(|error| {
            tracing::warn!(%shard, %error, "the index is rebuilt from the journal");
            None
        });
        lock(opened).insert(shard, index);
        // Nobody waits only when the program ends.
        let _ = waiting.send(loaded);
    }
}

/// What is behind the lock is whole at any time: a panic elsewhere is no reason to have one here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_index(config: &Config, shard: JournalShard) -> Option<SledIndex> {
    let path = open::index(&config.data_directory, shard);
    match SledIndex::open(&path, config.index.cache) {
        Ok((index, OpenReport::Sound)) => Some(index),
        Ok((index, OpenReport::PutAside { path, reason })) => {
            tracing::warn!(%shard, reason, aside = %path.display(), "the index was damaged and is rebuilt");
            Some(index)
        }
        // Without it, starts take longer; nothing else is lost.
        Err(error) => {
            tracing::error!(%shard, %error, "there is no index: the next start reads the whole journal");
            None
        }
    }
}

/// Does what the shards order, one by one, until told to end.
fn keep(config: &Config, opened: &Opened, mut orders: mpsc::Receiver<IndexOrder>) {
    while let Some(IndexOrder { shard, change }) = orders.blocking_recv() {
        let index = lock(opened).remove(&shard);
        let index = match change {
            IndexChange::Close => return,
            IndexChange::Release(closed) => {
                drop(index);
                // Nobody waits only when the program ends.
                let _ = closed.send(());
                continue;
            }
            // The beginning of a new one. Without it, what is ordered is a part of what nobody has.
            IndexChange::Clear if index.is_none() => open_index(config, shard),
            IndexChange::Apply(_) | IndexChange::Clear | IndexChange::Fill(_) => index,
        };
        let Some(mut index) = index else { continue };
        let stored = match change {
            IndexChange::Apply(batch) => index.apply(&batch).and_then(|()| index.flush()),
            IndexChange::Clear => index.clear(),
            IndexChange::Fill(entries) => index.fill(&entries),
            IndexChange::Close | IndexChange::Release(_) => unreachable!("both are done with above"),
        };
        match stored {
            Ok(()) => _ = lock(opened).insert(shard, index),
            Err(error) => {
                tracing::error!(%shard, %error, "the index is given up: the next start reads the whole journal");
                // What is half stored must not be believed.
                let _ = index.clear();
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn shards(numbers: &[u16]) -> BTreeSet<JournalShard> {
        numbers.iter().copied().map(JournalShard).collect()
    }

    fn config(directory: &tempfile::TempDir) -> Config {
        let mut config = Config { data_directory: directory.path().to_owned(), ..Config::default() };
        config.journal.shards = 6;
        config
    }

    #[test]
    fn each_core_has_one_that_nobody_else_has() {
        let check = |cores, elsewhere: &[u16], found: Option<(&[u16], &[u16])>| {
            let directory = tempfile::tempdir().unwrap();
            let config = config(&directory);
            // What lies there is taken over as well.
            fs::create_dir_all(open::segments(directory.path(), JournalShard(5))).unwrap();
            let holding = Holding::choose(&config, cores, &shards(elsewhere)).unwrap();
            let all = holding.map(|holding| {
                (holding.active.iter().map(|shard| shard.0).collect::<Vec<_>>(), holding.all())
            });
            assert_eq!(all, found.map(|(active, all)| (active.to_vec(), shards(all))));
        };
        check(2, &[], Some((&[0, 1], &[0, 1, 5])));
        check(2, &[0, 1], Some((&[2, 3], &[2, 3, 5])));
        check(2, &[1, 2, 5], Some((&[0, 3], &[0, 3])));
        check(4, &[0], Some((&[4, 1, 2, 3], &[1, 2, 3, 4, 5])));
        check(2, &[0, 2, 4], None);
        check(6, &[0], None);
    }

    /// One that was given up, and comes back to life, may have chosen before.
    #[test]
    fn nobody_gets_what_somebody_has() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(&directory);
        let given_up = Holding::choose(&config, 2, &shards(&[0, 1])).unwrap().unwrap();
        let mut next = Holding::choose(&config, 2, &shards(&[0, 1])).unwrap().unwrap();
        assert_eq!((given_up.all(), next.all()), (shards(&[2, 3]), shards(&[4, 5])));
        assert!(Holding::choose(&config, 2, &shards(&[0, 1])).unwrap().is_none());
        assert!(!next.extend(&config, &shards(&[0, 3])).unwrap());
        assert_eq!(next.all(), shards(&[4, 5]), "all or none");
        drop(given_up);
        assert!(next.extend(&config, &shards(&[0, 3])).unwrap());
        next.remove(&[JournalShard(4)]);
        assert_eq!(next.all(), shards(&[0, 3, 5]));
        assert_eq!((next.of_core(0), next.of_core(1)), (shards(&[0]), shards(&[3, 5])));
    }

    /// What was meant for a new server that failed, and what it has begun.
    #[test]
    fn what_nobody_has_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(&directory);
        let mut ours = Holding::choose(&config, 2, &BTreeSet::new()).unwrap().unwrap();
        assert_eq!(ours.take_strays(&config).unwrap(), (shards(&[]), Elsewhere::None), "none are there");
        let failed = Holding::choose(&config, 2, &ours.all()).unwrap().unwrap();
        ours.remove(&[JournalShard(1)]);
        assert_eq!(ours.take_strays(&config).unwrap(), (shards(&[1]), Elsewhere::Some));
        drop(failed);
        assert_eq!(ours.take_strays(&config).unwrap(), (shards(&[2, 3]), Elsewhere::None));
        assert_eq!(ours.all(), shards(&[0, 1, 2, 3]));
    }
}
