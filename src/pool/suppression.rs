//! Suppression lists and quotas are kept here, in files, for all cores and over a restart.
//!
//! What has gathered is written and synced at once, as one group; then the cores know of it, and whoever waits is
//! answered. What other processes of an upgrade write is read once a second, and what this one writes they read likewise.

mod files;
mod store;
mod usage;

use std::{io, path::Path, sync::Arc, thread, time::Duration};

use bridge::{Known, ListDesk, ListErrand, ListError};
use mail::Timestamp;
use tenancy::{Change, Entry, Reason, Scope, Whom};
use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use watch::events::{Suppressed, SuppressionFailed, SuppressionOpened, Unsuppressed};

use crate::suppression::{files::Shelf, store::Store, usage::Usage};

/// The lists of a data directory, read and ready to be kept.
#[derive(Debug)]
pub struct Suppression {
    desk: ListDesk,
    store: Store,
    usage: Usage,
    clock: fn() -> Timestamp,
}

/// Whoever keeps the lists.
#[derive(Debug)]
pub struct Keeper {
    last: oneshot::Sender<()>,
    end: std::sync::mpsc::Receiver<()>,
}

/// Where they are in the data directory.
const DIRECTORY: &str = "suppression";
/// How often it is looked what others have written.
const FOLLOW: Duration = Duration::from_secs(1);
/// How often entries go whose time is over, and files are put together.
const TIDY: Duration = Duration::from_secs(60);
/// Errands of one group.
const GROUP_MAX: usize = 4096;

type Waiting = oneshot::Sender<Result<usize, ListError>>;

impl Suppression {
    /// Reads what is there. From here on the cores know of it.
    ///
    /// # Errors
    /// When the files cannot be made or read: without them, people would be sent what they do not want.
    pub fn open(data_directory: &Path, desk: ListDesk, clock: fn() -> Timestamp) -> io::Result<Self> {
        let directory = data_directory.join(DIRECTORY);
        let began = clock();
        let store = Store::open(&directory, desk.known(), began)?;
        let usage = Usage::open(&directory, store.number(), &desk.known(), began)?;
        let entries = desk.known().table.len();
        if entries > 0 {
            let took = clock().saturating_since(began);
            SuppressionOpened { entries, took }.emit(clock().0);
        }
        Ok(Self { desk, store, usage, clock })
    }

    /// Keeps them as long as anybody is left who asks, on a thread of its own: the shards may have something for it when
    /// the pool has ended.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn keep(self) -> io::Result<Keeper> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let ((ended, end), (last, is_last)) = (std::sync::mpsc::channel(), oneshot::channel());
        thread::Builder::new().name("lists".into()).spawn(move || {
            runtime.block_on(self.run(is_last));
            // Nobody listens when the program ends in another way.
            let _ = ended.send(());
        })?;
        Ok(Keeper { last, end })
    }

    async fn run(self, mut is_last: oneshot::Receiver<()>) {
        let Self { mut desk, store, usage, clock } = self;
        let (known, shelf) = (desk.known(), store.shelf());
        let mut rounds = interval(FOLLOW);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_told = false;
        let (mut tidied, mut work) = (clock(), Some((store, usage)));
        loop {
            let first = tokio::select! {
                told = &mut is_last, if !is_told => {
                    is_told = true;
                    if told.is_ok() {
                        // What has come by then is still done.
                        desk.close();
                    }
                    continue;
                }
                errand = desk.next() => match errand {
                    Some(errand) => Some(errand),
                    None => break,
                },
                _ = rounds.tick() => None,
            };
            let Some(first) = first else {
                let now = clock();
                let tidy = now.saturating_since(tidied) >= TIDY;
                if tidy {
                    tidied = now;
                }
                work = blocking(work, move |(store, usage)| {
                    store.follow(now);
                    usage.follow(now);
                    if tidy {
                        store.tidy(now);
                    }
                })
                .await;
                if work.is_none() {
                    break;
                }
                continue;
            };
            let (mut changes, mut waiting, mut next) = (Vec::new(), Vec::new(), Some(first));
            while let Some(errand) = next {
                match errand {
                    ListErrand::Change(change, reply) => {
                        waiting.push((change.len(), reply));
                        changes.extend(change);
                    }
                    ListErrand::Look(scope, whom, reply) => {
                        look(known.clone(), shelf.clone(), scope, whom, reply);
                    }
                    ListErrand::Page(page, reply) => {
                        let (known, shelf) = (known.clone(), shelf.clone());
                        let now = clock();
                        // Whoever asked may be gone.
                        spawn_blocking(move || drop(reply.send(shelf.page(&known, &page, now))));
                    }
                }
                next = if waiting.len() < GROUP_MAX { desk.next_at_hand() } else { None };
            }
            if !waiting.is_empty() {
                work = blocking(work, move |(store, _)| change(store, changes, waiting, clock())).await;
                if work.is_none() {
                    break;
                }
            }
        }
        let now = clock();
        let end = move |(mut store, usage): (Store, Usage)| {
            usage.end(now);
            store.end();
        };
        if let Some(work) = work {
            // The pool is ending as well.
            let _ = spawn_blocking(move || end(work)).await;
        }
    }
}

impl Keeper {
    /// Takes no more, and waits until all is written that was asked for; not for longer than this. Call it when the shards have
    /// ended.
    pub fn end(self, patience: Duration) {
        // It may have ended by itself.
        let _ = self.last.send(());
        if self.end.recv_timeout(patience).is_err() {
            tracing::warn!(
                "the suppression list is not closed in time: the next start reads what it has written"
            );
        }
    }
}

/// Has a thread that may wait for the disk do something with what it works on; none: the pool is ending.
async fn blocking<T: Send + 'static>(
    work: Option<T>,
    act: impl FnOnce(&mut T) + Send + 'static,
) -> Option<T> {
    let mut work = work?;
    spawn_blocking(move || {
        act(&mut work);
        work
    })
    .await
    .ok()
}

/// Writes a group, and answers each of those who wait.
fn change(store: &mut Store, changes: Vec<Change>, waiting: Vec<(usize, Option<Waiting>)>, now: Timestamp) {
    let done = store.change(&changes, now);
    if let Err(error) = &done {
        SuppressionFailed { entries: changes.len() as u64, error: &error.to_string() }.emit(now.0);
    }
    let mut from = 0;
    for (len, reply) in waiting {
        let range = from..from + len;
        from += len;
        if let Ok(effects) = &done {
            for (change, _) in changes[range.clone()].iter().zip(&effects[range.clone()]).filter(|(_, e)| **e)
            {
                tell(change, now);
            }
        } else if reply.is_none() {
            store.known().count_lost(len as u64);
        }
        let Some(reply) = reply else { continue };
        let answer = match &done {
            Ok(effects) => Ok(effects[range].iter().filter(|effect| **effect).count()),
            Err(error) => Err(error.clone()),
        };
        // Whoever asked may be gone.
        let _ = reply.send(answer);
    }
}

fn tell(change: &Change, now: Timestamp) {
    match change {
        Change::Add(Entry { scope, whom, reason, until, note, .. }) => {
            let until = until.map(Timestamp::to_rfc3339);
            Suppressed {
                tenant: &scope.tenant,
                list: Some(&*scope.list).filter(|list| !list.is_empty()),
                to: &whom.to_string(),
                reason: reason.as_str(),
                until: until.as_deref(),
                note: Some(&**note).filter(|note| !note.is_empty()),
            }
            .emit(now.0);
        }
        Change::Remove { scope, whom, .. } => {
            Unsuppressed {
                tenant: &scope.tenant,
                list: Some(&*scope.list).filter(|list| !list.is_empty()),
                to: &whom.to_string(),
            }
            .emit(now.0);
        }
    }
}

fn look(
    known: Arc<Known>,
    shelf: Arc<Shelf>,
    scope: Scope,
    whom: Whom,
    reply: oneshot::Sender<Result<Option<Entry>, ListError>>,
) {
    let Some(found) = known.table.find(known.keys.of(scope.tenant_id(), scope.list_id(), &whom)) else {
        // Whoever asked may be gone.
        let _ = reply.send(Ok(None));
        return;
    };
    spawn_blocking(move || {
        let entry = match shelf.read(found.place) {
            Ok(Change::Add(entry)) => Ok(Some(entry)),
            // Files were put together between the two looks.
            Ok(Change::Remove { .. }) => Err(ListError::Busy),
            Err(error) => Err(ListError::Read(error.to_string())),
        };
        drop(reply.send(entry));
    });
}

/// Whether an entry is to stand where another one does: it lasts longer, or an operator wants it.
fn outlasts(entry: &Entry, found: Option<tenancy::Found>, now: Timestamp) -> bool {
    let Some(found) = found.filter(|found| found.holds(now)) else { return true };
    match (entry.reason, entry.until, found.until) {
        (Reason::Manual, _, _) => true,
        (_, _, None) => false,
        (_, None, Some(_)) => true,
        // What is known is rounded up to a minute.
        (_, Some(new), Some(old)) => new > old,
    }
}

#[cfg(test)]
#[path = "suppression_test.rs"]
mod test;
