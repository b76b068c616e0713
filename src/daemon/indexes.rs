//! The indexes of all journal shards: read at the start by threads of their own, kept by one that may wait for a disk.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::Context;
use config::Config;
use index::{Index, Loaded, OpenReport, SledIndex};
use mail::JournalShard;
use shard::{DiskBudget, IndexChange, IndexOrder, JournalSetup};
use tokio::sync::{mpsc, oneshot};

use crate::open;

/// The indexes, and the threads that read and write them.
pub(crate) struct Indexes {
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
    /// Begins to read the index of every journal shard that has segments, and starts the thread that writes them.
    pub(crate) fn open(config: &Config, shards: usize) -> anyhow::Result<Self> {
        let opened = Opened::default();
        let (mut jobs, mut loading) = (VecDeque::new(), HashMap::new());
        for shard in (0..config.journal.shards).map(JournalShard) {
            let segments = open::segments(&config.data_directory, shard);
            let is_active = usize::from(shard.0) < shards;
            if is_active || segments.is_dir() {
                let (loaded, receiver) = oneshot::channel();
                jobs.push_back((shard, loaded));
                loading.insert(shard, receiver);
            }
        }
        let config = Arc::new(config.clone());
        let start = |name: String, run: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name).spawn(run).context("cannot start a thread for the index")
        };
        let readers = jobs.len().min(shards);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..readers {
            let (config, opened, jobs) = (config.clone(), opened.clone(), jobs.clone());
            start(format!("index-{number}"), Box::new(move || load(&config, &opened, &jobs)))?;
        }
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let writer = start("index".to_owned(), Box::new(move || keep(&config, &opened, received)))?;
        Ok(Self { loading: loading.into(), orders, writer })
    }

    /// The journal shards that each core takes over. What lies in any of them counts before one makes more of it.
    ///
    /// # Errors
    /// When the segments of one cannot be listed.
    pub(crate) fn journals(
        &self,
        config: &Config,
        shards: usize,
        budget: &DiskBudget,
    ) -> anyhow::Result<Vec<Vec<JournalSetup>>> {
        (0..shards).map(|number| self.journals_of(config, number, shards, budget)).collect()
    }

    fn journals_of(
        &self,
        config: &Config,
        number: usize,
        shards: usize,
        budget: &DiskBudget,
    ) -> anyhow::Result<Vec<JournalSetup>> {
        // Kept for those that new mail goes to.
        let aside = config.journal.disk_min(1);
        (0..config.journal.shards)
            .filter(|shard| usize::from(*shard) % shards == number)
            .map(JournalShard)
            // One without segments has nothing to take over, unless new mail goes there.
            .filter(|shard| {
                usize::from(shard.0) == number || open::segments(&config.data_directory, *shard).is_dir()
            })
            .map(|shard| {
                let directory = open::segments(&config.data_directory, shard);
                let aside = if usize::from(shard.0) == number { aside } else { 0 };
                let share = budget
                    .share(&directory, aside)
                    .with_context(|| format!("cannot list {}", directory.display()))?;
                let loaded = self.loading.borrow_mut().remove(&shard);
                let loaded = loaded.context("a journal shard came to be while the server started")?;
                Ok(JournalSetup { shard, directory, loaded, share })
            })
            .collect()
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
            // The beginning of a new one. Without it, what is ordered is a part of what nobody has.
            IndexChange::Clear if index.is_none() => open_index(config, shard),
            IndexChange::Apply(_) | IndexChange::Clear | IndexChange::Fill(_) => index,
        };
        let Some(mut index) = index else { continue };
        let stored = match change {
            IndexChange::Apply(batch) => index.apply(&batch).and_then(|()| index.flush()),
            IndexChange::Clear => index.clear(),
            IndexChange::Fill(entries) => index.fill(&entries),
            IndexChange::Close => unreachable!("it ends the thread"),
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
