//! The indexes of all journal shards, kept by one thread that may wait for a disk.

use std::{collections::HashMap, thread};

use anyhow::Context;
use config::Config;
use index::{Batch, Index, Loaded, OpenReport, SledIndex};
use mail::JournalShard;
use shard::{DiskBudget, IndexChange, IndexOrder, JournalSetup};
use tokio::sync::mpsc;

use crate::open;

/// The indexes, opened, and the thread that writes them.
pub(crate) struct Indexes {
    loaded: std::cell::RefCell<HashMap<JournalShard, Loaded>>,
    orders: mpsc::Sender<IndexOrder>,
    thread: thread::JoinHandle<()>,
}

/// Batches that may wait for the disk before the shards' checkpoints do.
const ORDERS_MAX: usize = 16;

impl Indexes {
    /// Opens the index of every journal shard that has segments, and starts the thread.
    pub(crate) fn open(config: &Config, shards: usize) -> anyhow::Result<Self> {
        let mut loaded = HashMap::new();
        let mut opened = HashMap::new();
        for shard in (0..config.journal.shards).map(JournalShard) {
            let segments = open::segments(&config.data_directory, shard);
            let is_active = usize::from(shard.0) < shards;
            if !is_active && !segments.is_dir() {
                continue;
            }
            let Some(index) = open_index(config, shard) else { continue };
            match index.load() {
                Ok(Some(found)) => _ = loaded.insert(shard, found),
                Ok(None) => {}
                Err(error) => tracing::warn!(%shard, %error, "the index is rebuilt from the journal"),
            }
            opened.insert(shard, index);
        }
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let for_thread = config.clone();
        let thread = thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || keep(&for_thread, opened, received))
            .context("cannot start the thread of the index")?;
        Ok(Self { loaded: loaded.into(), orders, thread })
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
                let loaded = self.loaded.borrow_mut().remove(&shard);
                Ok(JournalSetup { shard, directory, loaded, share })
            })
            .collect()
    }

    /// Where shards send what is to be stored.
    pub(crate) fn orders(&self) -> mpsc::Sender<IndexOrder> {
        self.orders.clone()
    }

    /// Waits until everything is stored.
    pub(crate) fn close(self) {
        // Dropping the sender would not do: what a shard's executor leaves undone at its end may hold another.
        let _ = self.orders.blocking_send(IndexOrder { shard: JournalShard(0), change: IndexChange::Close });
        // The thread does not panic: sled's panics are caught where they arise.
        let _ = self.thread.join();
    }
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

fn keep(
    config: &Config,
    mut opened: HashMap<JournalShard, SledIndex>,
    mut orders: mpsc::Receiver<IndexOrder>,
) {
    while let Some(IndexOrder { shard, change }) = orders.blocking_recv() {
        if matches!(change, IndexChange::Close) {
            return;
        }
        if !opened.contains_key(&shard) {
            opened.extend(open_index(config, shard).map(|index| (shard, index)));
        }
        let Some(index) = opened.get_mut(&shard) else { continue };
        let stored = match change {
            IndexChange::Apply(batch) => index.apply(&batch).and_then(|()| index.flush()),
            IndexChange::Rebuild(Batch { put, checkpoint, .. }) => index.rebuild(&put, &checkpoint),
            IndexChange::Close => unreachable!("it ends the thread"),
        };
        if let Err(error) = stored {
            tracing::error!(%shard, %error, "the index is given up: the next start reads the whole journal");
            // What is half stored must not be believed.
            let _ = index.clear();
            opened.remove(&shard);
        }
    }
}
