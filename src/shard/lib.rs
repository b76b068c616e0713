//! One core: listeners, sessions, queue partition, journal, and the loop.
//!
//! The path of a message, in the order in which it takes it:
//!
//! - `accept`      a socket arrives: which shard serves it (`balance`), who it is (`caller`), limits (`admission`), TLS
//! - `connection`  session ⇄ policy ⇄ journal, until the 250; `receiving` has the message, `intake` its mail data,
//!   `socket` the bytes, `facts` what policy wants to know, `reverse` the name of the client's address, `screening` what lists of the
//!   DNS say of it, `greylist` whether it came before, `reputation` what it did then, `verify` programs that know recipients, `trace` the
//!   fields we put in front
//! - `inject`      the same for a message that the pool brings: a session without a socket
//! - `journals`    groups written and synced; segments made and recycled
//! - `schedule`    queue events in, orders out
//! - `locate`      which destinations are one site; `egress` from which source their mail leaves, `campaigns` what it is of, `lots` both as
//!   the queue is told, `families` from which sources a site can be reached
//! - `hops`        lanes: what waits for a destination, and who has a connection there
//! - `attempt`     one worker: hosts, sessions, transactions; `outlet` a connection from a source, `talk` what goes over a connection of
//!   which we are the client, `logins` by what we log in, `race` who is there first, `conversions` what the next hop can take
//! - `outcomes`    what became of it and what that is about, told to queue, journal, log and metrics; `replies` the rules, `retry` when
//!   it is tried again
//! - `reports`     notifications to senders; `returned` reads those that come to us
//!
//! Beside it: `resolve` (DNS sockets), `crowd`, `leases`, `paces`, `throttles` and `budget` (limits of the whole host), `recover` and `restore`
//! (after a start), `reroute` (queued mail after a change of routes), `upkeep` (checkpoints, survivors, gauges), `spare` (a journal
//! shard given up with its mail), `control` (the pool's requests), `operate` (what operators list and change), `why` (explanations), `release` (mail that a client asks for),
//! `fetch` (mail that a client has come for), `health` (whether sources are fit for use), `settings` (the configuration).

mod accept;
mod admission;
mod attempt;
mod authenticity;
mod balance;
mod budget;
mod bulk;
mod caller;
mod campaigns;
mod connection;
mod consent;
mod control;
mod conversions;
mod crowd;
mod dmarc_failures;
mod dmarc_rows;
mod egress;
mod facts;
mod families;
mod fetch;
mod greylist;
mod health;
mod hops;
mod indicators;
mod inject;
mod intake;
mod journals;
mod leases;
mod locate;
mod logins;
mod lots;
mod means;
mod operate;
mod outbound_tls;
mod outcomes;
mod outlet;
mod paces;
mod race;
mod receiving;
mod recover;
mod release;
mod replies;
mod reports;
mod reports_in;
mod reputation;
mod reroute;
mod resolve;
mod restore;
mod retry;
mod returned;
mod reverse;
mod schedule;
mod screening;
mod settings;
mod shard;
mod signing;
mod socket;
mod spare;
mod talk;
mod throttles;
mod trace;
mod upkeep;
mod verify;
mod why;

use std::{path::PathBuf, rc::Rc, sync::Arc};

use arc_swap::ArcSwap;
use bridge::{Deliveries, Failures, Hatch, Indicators, Neighbours, Strangers, StsPolicies, Tenancy};
use index::Loaded;
use journal::Opened;
use mail::JournalShard;
use queue::Queue;
use ring::{Pool, PoolOptions};
use tokio::sync::{mpsc, oneshot, watch as watching};
use watch::{ShardMetrics, events::JournalOpened};

pub use accept::ListenerSocket;
pub use balance::Balance;
pub use budget::{DiskBudget, DiskElsewhere, DiskShare};
pub use crowd::Crowd;
pub use egress::sources;
pub use journals::segment_path;
pub use leases::{Beside, Leases, Sharing};
pub use outbound_tls::{ClientTls, Speaking};
pub use recover::{RecoverError, journal_limits, read as read_back};
pub use replies::{reply_rules, reply_rules_astray};
pub use resolve::resolver;
pub use settings::{ServerTls, Snapshot, dns_list, effects};
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
    /// How many connections each shard has.
    pub balance: Balance,
    /// The other shards.
    pub neighbours: Neighbours,
    /// What domains say of the TLS of their hosts.
    pub policies: StsPolicies,
    /// What is known of their pictures.
    pub indicators: Indicators,
    /// Where the pool delivers for us.
    pub deliveries: Deliveries,
    /// Where the pool tells domains of messages that failed.
    pub failures: Failures,
    /// What is known of tenants.
    pub tenancy: Tenancy,
    /// What is known of strangers.
    pub strangers: Strangers,
    /// What is known of our sources.
    pub egress: bridge::Egress,
    /// What it counts with.
    pub metrics: ShardMetrics,
    /// What the pool asks.
    pub hatch: Hatch,
    /// To the thread that keeps the indexes.
    pub index: mpsc::Sender<IndexOrder>,
    /// Whether connections are taken.
    pub gate: watching::Receiver<Gate>,
    /// Journal shards to be taken over while it serves.
    pub adoptions: mpsc::Receiver<JournalSetup>,
}

/// Whether connections are taken: a server that takes over from another waits for its word, and that one takes none
/// between this word and the answer to it, nor after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Not now. Who comes waits in the backlog.
    Closed,
    /// Yes.
    Open,
    /// Not any more. Who comes is somebody else's.
    Left,
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
    /// Dropped when the core that takes it over knows of it: from then on it is part of what it waits for to be back.
    pub adopted: Option<oneshot::Sender<()>>,
}

/// Opens the journal, says that it serves, and does so until told to stop, or to depart when nobody is served; what was
/// queued before comes back meanwhile.
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
        balance,
        neighbours,
        policies,
        indicators,
        deliveries,
        failures,
        tenancy,
        strangers,
        egress,
        metrics,
        hatch,
        index,
        gate,
        adoptions,
    } = setup;
    let snapshot_now = snapshot.load_full();
    let settings = Settings::new(&snapshot_now);
    let config = &snapshot_now.config;
    let metrics = Rc::new(metrics);
    let now = facts::now();
    let seed = ring::clock::unix_micros() ^ (number as u64) << 48;
    let mut queue = Queue::new(settings.queue_limits, settings.schedule.clone(), seed, now);
    queue.set_weights(settings.weights.iter().copied());
    queue.begin_restore();
    let began = ring::clock::now();
    let (mut committers, mut missing, mut segments) = (Vec::new(), Vec::new(), 0);
    for journal in journals {
        let opened = open(journal, number, config, &metrics).await?;
        segments += opened.committer.with(journal::Journal::usage).segments as u64;
        committers.push(opened.committer.clone());
        missing.push(opened);
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
        balance,
        neighbours,
        policies,
        indicators,
        deliveries,
        failures,
        tenancy,
        strangers,
        egress,
        pool,
        metrics,
    });
    for committer in shard.journals.all() {
        upkeep::begin_commits(&shard, &committer);
    }
    shard.journals.active().prepare().await;
    ring::spawn(schedule::run(shard.clone()));
    let letters = ring::spawn_task(hops::read_letters(shard.clone()));
    ring::spawn(shard.resolve.clone().run());
    ring::spawn(egress::follow(shard.clone()));
    ring::spawn(health::watch(shard.clone()));
    ring::spawn(screening::watch(shard.clone()));
    ring::spawn(upkeep::measure(shard.clone()));
    let (failing, failed) = oneshot::channel();
    let keeping =
        ring::spawn_task(keep(shard.clone(), missing, index.clone(), (snapshot.clone(), adoptions), failing));
    ring::spawn(accept::take_over(shard.clone()));
    if *gate.borrow() == Gate::Closed {
        // It may yet turn out that another server stays: what it would send again is not begun.
        shard.stand_still();
        let (shard, mut gate) = (shard.clone(), gate.clone());
        ring::spawn(async move {
            if gate.wait_for(|gate| *gate != Gate::Closed).await.is_ok() {
                shard.go_on();
            }
        });
    }
    for listener in listeners {
        ring::spawn(accept::accept(shard.clone(), listener, config.descriptors.reserve, gate.clone()));
    }
    // Nobody waits for it only when the program ends.
    let _ = serving.send(());
    let answering = async {
        control::answer(shard.clone(), hatch, snapshot, index.clone()).await;
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
        for committer in shard.journals.all() {
            upkeep::save(&shard, &committer, &index).await;
        }
    }
    if *gate.borrow() == Gate::Left {
        // Whoever has these journal shards next finds files that nobody is at work on.
        shard.journals.close().await;
        // Leases that come for this core are somebody else's at once.
        letters.cancel().await;
    }
    Ok(())
}

/// Opens a journal shard where its log ends.
async fn open(
    setup: JournalSetup,
    core: usize,
    config: &config::Config,
    metrics: &Rc<ShardMetrics>,
) -> Result<Missing, RecoverError> {
    let JournalSetup { shard, directory, loaded, share, adopted } = setup;
    let limits = recover::journal_limits(config);
    let Opened { journal, older } = recover::open(shard, &directory, limits, facts::now()).await?;
    let writing = recover::writing(core, &directory, config).await;
    let committer = Committer::new(journal, core, directory.clone(), metrics.clone(), share, writing);
    Ok(Missing { committer, directory, older, loaded, adopted })
}

/// Brings the queue of before the start back and saves checkpoints from then on; takes over what others hand over.
async fn keep(
    shard: Rc<Shard>,
    missing: Vec<Missing>,
    index: mpsc::Sender<IndexOrder>,
    (snapshot, mut adoptions): (Arc<ArcSwap<Snapshot>>, mpsc::Receiver<JournalSetup>),
    failing: oneshot::Sender<RecoverError>,
) {
    let serve = async {
        restore::run(&shard, missing, &index).await?;
        while shard.returning.is_over() {
            let Some(first) = upkeep::checkpoints(&shard, &index, &mut adoptions).await else { break };
            let (mut adopted, mut next) = (Vec::new(), Some(first));
            while let Some(journal) = next {
                let number = journal.shard;
                match open(journal, shard.number, &snapshot.load().config, &shard.metrics).await {
                    Ok(missing) => adopted.push(missing),
                    Err(error) => restore::give_up(shard.number, number, &error),
                }
                next = adoptions.try_recv().ok();
            }
            restore::adopt(&shard, adopted, &index).await;
        }
        Ok(())
    };
    if let Err(error) = serve.await {
        // Nobody listens only when the program ends.
        let _ = failing.send(error);
    }
}
