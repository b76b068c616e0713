//! One core: listeners, sessions, queue partition, journal, and the loop.
//!
//! The path of a message, in the order in which it takes it:
//!
//! - `accept`      a socket arrives: who it is (`caller`), limits (`admission`), TLS
//! - `connection`  session ⇄ policy ⇄ journal, until the 250; `receiving` has the message, `intake` its mail data,
//!   `socket` the bytes, `facts` what policy wants to know, `reverse` the name of the client's address, `verify` programs that know recipients, `trace` the
//!   fields we put in front
//! - `inject`      the same for a message that the pool brings: a session without a socket
//! - `journals`    groups written and synced; segments made and recycled
//! - `schedule`    queue events in, orders out
//! - `hops`        lanes: what waits for a destination, and who has a connection there
//! - `attempt`     one worker: hosts, sessions, transactions
//! - `outcomes`    what became of it, told to queue, journal, log and metrics
//! - `reports`     notifications to senders
//!
//! Beside it: `resolve` (DNS sockets), `crowd`, `leases` and `budget` (limits of the whole host), `recover` and `restore` (after
//! a start), `reroute` (queued mail after a change of routes), `upkeep` (checkpoints, survivors, gauges), `control` (the pool's
//! requests), `release` (mail that a client asks for), `settings` (the configuration).

mod accept;
mod admission;
mod attempt;
mod budget;
mod caller;
mod connection;
mod control;
mod crowd;
mod facts;
mod hops;
mod inject;
mod intake;
mod journals;
mod leases;
mod outcomes;
mod receiving;
mod recover;
mod release;
mod reports;
mod reroute;
mod resolve;
mod restore;
mod reverse;
mod schedule;
mod settings;
mod shard;
mod socket;
mod trace;
mod upkeep;
mod verify;

use std::{path::PathBuf, rc::Rc, sync::Arc};

use arc_swap::ArcSwap;
use bridge::{Hatch, Neighbours};
use index::Loaded;
use journal::Opened;
use mail::JournalShard;
use queue::Queue;
use ring::{Pool, PoolOptions};
use tokio::sync::{mpsc, oneshot};
use watch::{ShardMetrics, events::JournalOpened};

pub use accept::ListenerSocket;
pub use budget::{DiskBudget, DiskShare};
pub use crowd::Crowd;
pub use journals::segment_path;
pub use leases::Leases;
pub use recover::{RecoverError, journal_limits, read as read_back};
pub use settings::{ServerTls, Snapshot, effects};
pub use upkeep::{IndexChange, IndexOrder};

use crate::{
    journals::{Committer, Journals},
    resolve::Resolve,
    restore::Missing,
    settings::{Settings, to_usize},
    shard::{Parts, Shard},
};

/// What a shard is started with.
pub struct Setup {
    /// Its number, counted from 0.
    pub number: usize,
    /// How many shards there are.
    pub shards: usize,
    /// The configuration, exchanged at reloads.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// Where it takes connections.
    pub listeners: Vec<ListenerSocket>,
    /// The journal shards that it takes over; new mail goes into the first.
    pub journals: Vec<JournalSetup>,
    /// Limits of the whole host.
    pub leases: Leases,
    /// Who is connected to it.
    pub crowd: Crowd,
    /// The other shards.
    pub neighbours: Neighbours,
    /// What it counts with.
    pub metrics: ShardMetrics,
    /// What the pool asks.
    pub hatch: Hatch,
    /// To the thread that keeps the indexes.
    pub index: mpsc::Sender<IndexOrder>,
}

/// A journal shard to be taken over.
pub struct JournalSetup {
    /// Which.
    pub shard: JournalShard,
    /// Where its segments are.
    pub directory: PathBuf,
    /// What the index says, once it is read; none when there is none, or none of use.
    pub loaded: oneshot::Receiver<Option<Loaded>>,
    /// What it has of the host's disk budget.
    pub share: DiskShare,
}

/// Opens the journal, says that it serves, and does so until told to stop; what was queued before comes back meanwhile.
///
/// # Errors
/// When the journal cannot be read back.
///
/// # Panics
/// Without a journal shard.
pub async fn run(setup: Setup, serving: oneshot::Sender<()>) -> Result<(), RecoverError> {
    let Setup {
        number,
        shards,
        snapshot,
        listeners,
        journals,
        leases,
        crowd,
        neighbours,
        metrics,
        hatch,
        index,
    } = setup;
    let snapshot_now = snapshot.load_full();
    let settings = Settings::new(&snapshot_now);
    let config = &snapshot_now.config;
    let metrics = Rc::new(metrics);
    let now = facts::now();
    let seed = ring::clock::unix_micros() ^ (number as u64) << 48;
    let mut queue = Queue::new(settings.queue_limits, settings.schedule.clone(), seed, now);
    queue.begin_restore();
    let began = ring::clock::now();
    let (mut committers, mut missing, mut segments) = (Vec::new(), Vec::new(), 0);
    for JournalSetup { shard, directory, loaded, share } in journals {
        let limits = recover::journal_limits(config);
        let Opened { journal, older } = recover::open(shard, &directory, limits, now).await?;
        segments += journal.usage().segments as u64;
        let writing = recover::writing(number, &directory, config).await;
        let committer = Committer::new(journal, number, directory.clone(), metrics.clone(), share, writing);
        missing.push(Missing { committer: committer.clone(), directory, older, loaded });
        committers.push(committer);
    }
    let took = ring::clock::now().saturating_sub(began);
    JournalOpened { shard: number, segments, took }.emit(facts::now().0);
    let buffers = &config.buffers;
    let pool = Pool::new(PoolOptions {
        small: to_usize(buffers.small),
        large: to_usize(buffers.large),
        budget: to_usize(buffers.budget),
        free_max: to_usize(buffers.free),
    });
    let resolve = Resolve::new(&settings.resolving, metrics.clone());
    let journals = Journals::new(committers);
    let shard = Shard::new(Parts {
        number,
        shards,
        settings,
        journals,
        queue,
        resolve,
        leases,
        crowd,
        neighbours,
        pool,
        metrics,
    });
    for committer in shard.journals.iter() {
        let (rescued, owner) = (shard.clone(), committer.clone());
        ring::spawn(committer.clone().run(move |rescue| {
            ring::spawn(upkeep::rescue(rescued.clone(), owner.clone(), rescue));
        }));
    }
    shard.journals.active().prepare().await;
    ring::spawn(schedule::run(shard.clone()));
    ring::spawn(hops::read_letters(shard.clone()));
    ring::spawn(shard.resolve.clone().run());
    ring::spawn(upkeep::measure(shard.clone()));
    let (failing, failed) = oneshot::channel();
    let keeping = ring::spawn_task(keep(shard.clone(), missing, index.clone(), failing));
    for listener in listeners {
        ring::spawn(accept::accept(shard.clone(), listener, config.descriptors.reserve));
    }
    // Nobody waits for it only when the program ends.
    let _ = serving.send(());
    let answering = async {
        control::answer(shard.clone(), hatch, snapshot).await;
        Ok(())
    };
    let failing = async {
        match failed.await {
            Ok(error) => Err(error),
            Err(_) => std::future::pending().await,
        }
    };
    futures_lite::future::or(answering, failing).await?;
    // One that is being put together has to be stored before another, and must not be left behind: it holds the door to
    // the thread of the index open.
    shard.stop();
    keeping.await;
    // A checkpoint that tells nothing of what is not back yet would make the next start forget it.
    if shard.returning.is_over() {
        for committer in shard.journals.iter() {
            upkeep::save(&shard, committer, &index).await;
        }
    }
    Ok(())
}

/// Brings the queue of before the start back, and saves checkpoints from then on.
async fn keep(
    shard: Rc<Shard>,
    missing: Vec<Missing>,
    index: mpsc::Sender<IndexOrder>,
    failing: oneshot::Sender<RecoverError>,
) {
    match restore::run(&shard, missing, &index).await {
        Ok(()) if shard.returning.is_over() => upkeep::checkpoints(shard, index).await,
        Ok(()) => {}
        // Nobody listens only when the program ends.
        Err(error) => drop(failing.send(error)),
    }
}
