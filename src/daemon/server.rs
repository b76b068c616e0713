//! What the main thread does while shards and pool serve: signals, wishes of operators, a new server in the place of this.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    future, mem,
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use admin::{Operations, ReloadRequest, UpgradeRequest, Upgraded};
use anyhow::{Context, anyhow};
use bridge::{AskError, Egress};
use mail::JournalShard;
use pool::{AllCounts, SigningRequest};
use ring::{DirectoryLock, MessageSocket};
use shard::{Beside, DiskBudget, DiskElsewhere, Gate, JournalSetup, Sharing};
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, oneshot, watch as watch_channel},
};
use watch::{
    ProcessMetrics, Reload,
    events::{
        AsnDatabaseRead, AsnDatabaseRefused, CertificatesRefused, CertificatesRenewed, CoreEnded, Draining,
        HandedOver, HandingOver, JournalSpared, PredecessorLost, ReloadRefused, Reloaded, Stopped, Stopping,
        TakingOver, TookOver, TookPart, UpgradeBegun, UpgradeRefused, WentOn,
    },
};

use crate::{
    handover::{Estate, LAST_WRITES, Link, Predecessor, Successor, Word, Words},
    indexes::{Elsewhere, Holding, Indexes, core_of},
    launcher::Launcher,
    notify::Notify,
    reload::Reloader,
    say::say,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the main thread has.
pub(crate) struct Server<'a> {
    pub(crate) reloader: Reloader<'a>,
    pub(crate) process: &'a ProcessMetrics,
    pub(crate) notify: &'a Notify,
    pub(crate) pool: &'a pool::Handle,
    pub(crate) indexes: &'a Indexes,
    pub(crate) budget: &'a DiskBudget,
    /// Where each shard takes journal shards over.
    pub(crate) heirs: Vec<mpsc::Sender<JournalSetup>>,
    pub(crate) holding: Holding,
    pub(crate) lock: &'a DirectoryLock,
    /// None when there is to be no upgrade.
    pub(crate) launcher: Option<Launcher>,
    /// What a server that takes over gets.
    pub(crate) estate: Estate,
    pub(crate) gate: watch_channel::Sender<Gate>,
    /// The server that this one has taken over from, as long as it has not ended.
    pub(crate) before: Option<Before>,
    pub(crate) cores: Cores,
    /// When to look for journal shards that were meant for a new server which has failed.
    pub(crate) strays: Option<tokio::time::Instant>,
    pub(crate) spares: Spares,
    pub(crate) counts: AllCounts,
    /// Where it is kept what was sent by warm-up plans, and what was.
    pub(crate) warm_ups: (PathBuf, Egress),
    /// The limits of the host, while two servers send.
    pub(crate) sharing: Sharing,
    /// Where long changes of the queue are kept.
    pub(crate) task_files: pool::TaskFiles,
    /// Come to an end when the cores know what they have taken over.
    pub(crate) adopting: Vec<oneshot::Receiver<()>>,
}

/// Journal shards that cores are giving up. A disk that stands still may hold one up for any time.
pub(crate) struct Spares {
    told: mpsc::UnboundedSender<Given>,
    heard: mpsc::UnboundedReceiver<Given>,
}

/// What a core gives up.
struct Given {
    core: usize,
    what: Gift,
}

enum Gift {
    /// What it does not need.
    Idle(Vec<JournalShard>),
    /// One with the mail in it: so many messages; none when it could not be.
    Spare(Option<(JournalShard, u64)>),
}

impl Spares {
    pub(crate) fn new() -> Self {
        let (told, heard) = mpsc::unbounded_channel();
        Self { told, heard }
    }

    /// The next core's answer.
    async fn next(&mut self) -> Given {
        self.heard.recv().await.expect("one who could tell is here")
    }

    /// Waits for what a core gives up, beside everything else.
    fn expect(&self, core: usize, gift: impl Future<Output = Gift> + Send + 'static) {
        let told = self.told.clone();
        // Nobody hears it only when the process ends.
        tokio::spawn(async move { told.send(Given { core, what: gift.await }) });
    }
}

/// The thread of a core has ended: in order, or why not.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) core: usize,
    pub(crate) failure: Option<String>,
}

/// How far each core has come. Those of a server that hands over end one by one.
#[derive(Debug)]
pub(crate) struct Cores(Vec<Core>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Core {
    Serving,
    /// It ends when it has no session left.
    Departing,
    Ended,
}

impl Cores {
    /// So many, which all serve.
    pub(crate) fn all(cores: usize) -> Self {
        Self(vec![Core::Serving; cores])
    }

    fn have_ended(&self) -> bool {
        self.0.iter().all(|core| *core == Core::Ended)
    }
}

/// Where the wishes of operators come in.
pub(crate) struct Asked {
    pub(crate) reloads: mpsc::Receiver<ReloadRequest>,
    pub(crate) upgrades: mpsc::Receiver<UpgradeRequest>,
    /// Keys that mail is to be signed with from now on.
    pub(crate) signing: mpsc::Receiver<SigningRequest>,
}

/// A server that this one has taken over from, and that still has sessions.
pub(crate) struct Before {
    predecessor: Rc<RefCell<Predecessor>>,
    words: Words,
    operations: Operations,
    process: Arc<ProcessMetrics>,
    began: Duration,
    /// Journal shards of it that are here already.
    taken: u64,
    /// What those take of the disk that are still to come, and when that was looked at.
    disk: BTreeMap<JournalShard, DiskElsewhere>,
    measured: Duration,
}

/// A new server that is on its way, and who wishes to hear of it.
struct Upgrade {
    successor: Successor,
    asked: Option<UpgradeRequest>,
    until: tokio::time::Instant,
}

/// A new server that has been given the word, and who is to hear of it when it serves.
struct Handing {
    successor: Successor,
    first: First,
    /// How long this one serves the sessions that it has.
    patience: Duration,
    asked: Option<UpgradeRequest>,
    upgraded: Upgraded,
    began: Duration,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// The new one takes who comes, and this one ends by and by.
    New,
    /// This one ends, and then the new one begins.
    Old,
}

/// The signals that end a server.
struct Ends<'a>([&'a mut Signal; 2]);

impl Ends<'_> {
    async fn recv(&mut self) {
        let [terminate, interrupt] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// How the end came.
pub(crate) enum End {
    /// By a signal.
    Stopped,
    /// Another server has taken over; it is still to get the journals.
    HandedOver {
        /// The way to it.
        link: Link,
        /// When that began.
        began: Duration,
        /// Sessions that were cut off.
        cut: u64,
        /// Whether it is there to take them.
        heard: bool,
    },
}

impl End {
    /// The journals are closed: says so to whoever waits for it.
    pub(crate) fn finish(self) -> ExitCode {
        let Self::HandedOver { link, began, cut, heard } = self else { return ExitCode::SUCCESS };
        link.tell(&Word::Released);
        let took = ring::clock::now().saturating_sub(began);
        if heard {
            HandedOver { took, cut }.emit(ring::clock::unix_micros());
            ExitCode::SUCCESS
        } else {
            tracing::error!("the new server has ended: nobody serves until the next start");
            ExitCode::from(70)
        }
    }
}

impl Before {
    /// It has said go.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn new(
        predecessor: &Rc<RefCell<Predecessor>>,
        disk: BTreeMap<JournalShard, DiskElsewhere>,
        (operations, process): (&Operations, &Arc<ProcessMetrics>),
    ) -> std::io::Result<Self> {
        let (words, began) = (predecessor.borrow().listen()?, ring::clock::now());
        {
            let predecessor = predecessor.borrow();
            let (version, pid) = (predecessor.version.as_str(), predecessor.pid);
            TakingOver { version, pid }.emit(ring::clock::unix_micros());
        }
        let (operations, process) = (operations.clone(), process.clone());
        let (predecessor, taken, measured) = (predecessor.clone(), 0, began);
        let before = Self { predecessor, words, operations, process, began, taken, disk, measured };
        before.tell(0);
        Ok(before)
    }

    /// Says that this one serves, and that the other one is to take nobody any more.
    ///
    /// # Errors
    /// When the other one has given this one up and goes on.
    pub(crate) fn serving(&mut self) -> anyhow::Result<()> {
        let Err(error) = self.predecessor.borrow().serving() else { return Ok(()) };
        if self.words.blocking_recv() != Some(Word::Stay) {
            // It is gone: somebody has to serve.
            return Ok(());
        }
        // Whoever watches the process is told first that it is the other one again.
        thread::sleep(LAST_WRITES);
        Err(error).context("the running server did not wait for this one")
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.predecessor.borrow().pid
    }

    /// It takes mail of its sessions, and sends what it has.
    fn measure(&mut self) {
        const EVERY: Duration = Duration::from_secs(2);
        let now = ring::clock::now();
        if now.saturating_sub(self.measured) < EVERY {
            return;
        }
        self.measured = now;
        for (shard, disk) in &mut self.disk {
            if let Err(error) = disk.measure() {
                tracing::warn!(%shard, %error, "its segments cannot be listed");
            }
        }
    }

    fn tell(&self, sessions: u64) {
        let predecessor = self.predecessor.borrow();
        let (version, pid) = (predecessor.version.clone(), predecessor.pid);
        self.operations.set_predecessor(Some(admin::Predecessor { version, pid, sessions }));
        self.process.set_predecessor_sessions(sessions);
    }

    /// It has ended.
    fn end(&self) {
        self.operations.set_predecessor(None);
        self.process.set_predecessor_sessions(0);
    }
}

impl Server<'_> {
    /// Waits for signals, for wishes of operators, and for a shard that should not have ended.
    pub(crate) async fn attend(
        &mut self,
        [mut terminate, mut interrupt, mut hangup, mut user2]: [Signal; 4],
        Asked { mut reloads, mut upgrades, mut signing }: Asked,
        endings: &mut mpsc::UnboundedReceiver<Ending>,
    ) -> End {
        let mut upgrade: Option<Upgrade> = None;
        let mut wish: Option<Option<UpgradeRequest>> = None;
        loop {
            let reason = loop {
                tokio::select! {
                    _ = terminate.recv() => break Ok("SIGTERM"),
                    _ = interrupt.recv() => break Ok("SIGINT"),
                    _ = hangup.recv() => drop(self.reload().await),
                    _ = user2.recv() => wish = Some(None),
                    () = self.reloader.files_change() => self.renew().await,
                    Some(reply) = reloads.recv() => {
                        // Who asked may be gone.
                        let _ = reply.send(self.reload().await);
                    }
                    Some(reply) = signing.recv() => self.sign_anew(reply).await,
                    Some(asked) = upgrades.recv() => wish = Some(Some(asked)),
                    word = next_of(&mut upgrade) => {
                        match self.on_successor(upgrade.take(), word) {
                            Ok(successor) => break Err(successor),
                            Err(still) => upgrade = still,
                        }
                    }
                    word = next_before(&mut self.before) => self.on_predecessor(word).await,
                    () = due(self.strays), if upgrade.is_none() => self.take_back().await,
                    given = self.spares.next() => self.on_given(given),
                    ending = endings.recv() => failed(self, ending),
                }
                // It may take a while, and who says meanwhile that this one is to end is heard.
                if let Some(asked) = wish.take() {
                    tokio::select! {
                        () = self.begin_upgrade(&mut upgrade, asked) => {}
                        _ = terminate.recv() => break Ok("SIGTERM"),
                        _ = interrupt.recv() => break Ok("SIGINT"),
                        ending = endings.recv() => failed(self, ending),
                    }
                }
            };
            let mut ends = Ends([&mut terminate, &mut interrupt]);
            let handing = match reason {
                Ok(reason) => {
                    // Whoever wishes for something from now on is told that we stop.
                    drop((reloads, upgrades, signing));
                    if let Some(upgrade) = upgrade {
                        self.refuse(upgrade, "this server was told to stop meanwhile");
                    }
                    return self.end_by(reason, &mut ends, endings).await;
                }
                Err(handing) => self.give_way(handing, &mut ends, endings).await,
            };
            if let Some(handing) = handing {
                drop((reloads, upgrades));
                return self.end_handing(handing, signing, &mut ends, endings).await;
            }
        }
    }

    /// A signal has told this server to end.
    async fn end_by(
        &mut self,
        reason: &str,
        ends: &mut Ends<'_>,
        endings: &mut mpsc::UnboundedReceiver<Ending>,
    ) -> End {
        self.notify.stopping();
        let stopping = self.stop(reason);
        tokio::select! {
            () = stopping => return End::Stopped,
            () = ends.recv() => {}
            ending = endings.recv() => failed(self, ending),
        }
        tracing::warn!(
            "stopped at once by a second signal; what was under way is done again after the next start"
        );
        End::Stopped
    }

    /// Waits until the new server serves. If it turns out that it does not, this one goes on, and nothing is handed over.
    async fn give_way(
        &mut self,
        mut handing: Handing,
        ends: &mut Ends<'_>,
        endings: &mut mpsc::UnboundedReceiver<Ending>,
    ) -> Option<Handing> {
        if handing.first == First::Old {
            return Some(handing);
        }
        let Successor { link, words } = &mut handing.successor;
        tokio::select! {
            serves = tokio::time::timeout(TURN, wait_for(Word::Serving, words)) => {
                let serves = serves.unwrap_or_else(|_| {
                    link.tell(&Word::Stay);
                    link.end();
                    false
                });
                // It can say nothing any more. What it has said before holds: it serves by now.
                if !serves && !wait_for(Word::Serving, words).await {
                    self.go_on(handing);
                    return None;
                }
            }
            // This one is to end, and whoever says so knows that another one is there.
            () = ends.recv() => handing.patience = Duration::ZERO,
            ending = endings.recv() => failed(self, ending),
        }
        Some(handing)
    }

    /// The new server was given the word, and does not serve: this one takes who comes again.
    fn go_on(&mut self, Handing { successor, asked, upgraded, began, .. }: Handing) {
        self.give_up(&successor);
        // It may have made itself known already.
        if let Err(error) = self.pool.reclaim() {
            tracing::error!(%error, "commands cannot reach this server; it tries again");
        }
        self.lock.sign();
        self.notify.ready();
        self.gate.send_replace(Gate::Open);
        let paused = ring::clock::now().saturating_sub(began);
        let Upgraded { version, pid } = upgraded;
        WentOn { version: &version, pid, paused }.emit(ring::clock::unix_micros());
        self.tell_refusal(asked, "the new program ended before it served; see what it has printed");
    }

    /// The new server serves: this one ends, core by core.
    async fn end_handing(
        &mut self,
        Handing { successor, first, patience, asked, upgraded, began }: Handing,
        mut signing: mpsc::Receiver<SigningRequest>,
        ends: &mut Ends<'_>,
        endings: &mut mpsc::UnboundedReceiver<Ending>,
    ) -> End {
        let Successor { link, mut words } = successor;
        self.gate.send_replace(Gate::Left);
        if first == First::New {
            self.sharing.set(Beside::Newer);
        }
        HandingOver { version: &upgraded.version, pid: upgraded.pid }.emit(ring::clock::unix_micros());
        self.process.upgraded(Reload::Done);
        self.pool.leave();
        self.reloader.rotation.leave();
        // As long as anybody has them, they take connections.
        self.estate = Estate::default();
        if let Some(asked) = asked {
            // Who asked may be gone.
            let _ = asked.send(Ok(upgraded));
        }
        let mut heard = true;
        tokio::select! {
            () = self.outlast(&link, patience, &mut signing, endings) => {}
            hurry = wait_for(Word::Hurry, &mut words) => heard = hurry,
            () = ends.recv() => {}
        }
        if !heard {
            tracing::error!("the new server has ended; this one finishes what it has");
            self.sharing.set(Beside::Nobody);
        }
        let cut = tokio::select! {
            cut = self.drain(self.reloader.ours.grace) => cut,
            () = ends.recv() => 0,
        };
        while let Ok(ending) = endings.try_recv() {
            if let Some(failure) = ending.failure {
                // The new one reads what it had as after a crash.
                tracing::error!(shard = ending.core, failure, "a shard failed while it was to end");
            }
        }
        End::HandedOver { link, began, cut, heard }
    }

    async fn stop(&mut self, reason: &str) {
        let (grace, began) = (self.reloader.ours.grace, ring::clock::now());
        Stopping { reason, grace }.emit(ring::clock::unix_micros());
        let before = self.before.take();
        if let Some(before) = &before {
            before.predecessor.borrow().hurry();
        }
        let cut = tokio::select! {
            cut = self.drain(grace) => cut,
            never = self.tell_progress(began + grace) => match never {},
        };
        if let Some(Before { mut words, .. }) = before {
            // Both stop together: the next start finds nobody.
            const LATER: Duration = Duration::from_secs(5);
            let left = (grace + LATER).saturating_sub(ring::clock::now().saturating_sub(began));
            let _ = tokio::time::timeout(left, wait_for(Word::Released, &mut words)).await;
        }
        Stopped { took: ring::clock::now().saturating_sub(began), cut }.emit(ring::clock::unix_micros());
    }

    /// Tells how far a stop has come, for as long as it takes.
    async fn tell_progress(&self, until: Duration) -> Infallible {
        const EVERY: Duration = Duration::from_secs(1);
        loop {
            tokio::time::sleep(EVERY).await;
            let (mut sessions, mut outbound) = (0, 0);
            for shard in self.reloader.door.health().await.iter().flatten() {
                sessions += shard.inbound;
                outbound += shard.outbound;
            }
            let left = until.saturating_sub(ring::clock::now());
            Draining { sessions, outbound, left }.emit(ring::clock::unix_micros());
            self.notify
                .status(&format!("stopping: {sessions} sessions, {outbound} connections to next hops"));
        }
    }

    /// Ends what is under way, within the grace; says how many sessions were cut off.
    async fn drain(&self, grace: Duration) -> u64 {
        // Once they have stopped, nobody can ask them.
        const COUNTS_MAX: Duration = Duration::from_secs(2);
        let _ = tokio::time::timeout(COUNTS_MAX, self.counts.collect(self.reloader.door)).await;
        let mut cut = 0;
        for (drained, core) in self.reloader.door.drain(grace).await.into_iter().zip(&self.cores.0) {
            match (drained, core) {
                (Ok(sessions), _) => cut += sessions,
                // It has ended, or does just now, and nobody was served there.
                (Err(AskError::Gone(_)), Core::Departing | Core::Ended) => {}
                (Err(error), _) => tracing::error!(%error, "not every shard has stopped in order"),
            }
        }
        cut
    }
}

/// A shard has ended that should not have: what was acknowledged is in the journal, and a supervisor starts us again.
fn failed(server: &Server<'_>, ending: Option<Ending>) -> ! {
    let reason = match ending {
        Some(Ending { core, failure }) => failure.unwrap_or_else(|| format!("shard {core} ended")),
        None => "every shard ended".to_owned(),
    };
    tracing::error!(reason, "a shard failed; the process ends");
    server.reloader.log.flush();
    say(&format!("ringpost: {reason}"));
    std::process::exit(70)
}

/// What the new server says; none when it is gone, or too late.
async fn next_of(upgrade: &mut Option<Upgrade>) -> Option<Word> {
    match upgrade {
        Some(upgrade) => {
            tokio::time::timeout_at(upgrade.until, upgrade.successor.words.recv()).await.ok().flatten()
        }
        None => future::pending().await,
    }
}

async fn next_before(before: &mut Option<Before>) -> Option<Word> {
    match before {
        Some(before) => before.words.recv().await,
        None => future::pending().await,
    }
}

/// Waits for a word; says whether it came before the other end was gone.
async fn wait_for(word: Word, words: &mut Words) -> bool {
    loop {
        match words.recv().await {
            Some(heard) if heard == word => return true,
            Some(_) => {}
            None => return false,
        }
    }
}

/// Waits for a moment; for ever when there is none.
async fn due(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => future::pending().await,
    }
}

/// How long the new server may take to open its doors once it was given the word.
const TURN: Duration = Duration::from_secs(10);

/// After a new server has failed, it is left alone for so long before what it was to have is taken back.
const STRAYS_AFTER: Duration = Duration::from_secs(2);

/// How long an upgrade waits for journal shards that are let go: empty ones, and such with mail in them. Whoever asks for an
/// upgrade waits for both, and for the new program.
const IDLE_MAX: Duration = Duration::from_secs(10);
const SPARES_MAX: Duration = Duration::from_secs(30);

/// After the last session on a core of a server that hands over, its attempts have so long; its queue stands still meanwhile.
const REST_MAX: Duration = Duration::from_secs(60);

/// Another server in the place of this one.
impl Server<'_> {
    /// Starts a new server, unless there are two already.
    async fn begin_upgrade(&mut self, upgrade: &mut Option<Upgrade>, asked: Option<UpgradeRequest>) {
        let refused = match (&*upgrade, &self.before) {
            (None, None) if std::process::id() == 1 => Some(anyhow!(
                "this is the first process here, and all others end with it: stop and start instead"
            )),
            (Some(_), _) => Some(anyhow!("a new program is being started already")),
            (None, Some(_)) => {
                Some(anyhow!("the program before this one has not ended yet: see `ringpost upgrade --watch`"))
            }
            (None, None) => None,
        };
        let started = match refused {
            Some(refused) => Err(refused),
            None => self.launch().await,
        };
        match started {
            Ok(successor) => {
                let until = tokio::time::Instant::now() + self.reloader.ours.upgrade_start_max;
                *upgrade = Some(Upgrade { successor, asked, until });
            }
            Err(error) => self.tell_refusal(asked, &format!("{error:#}")),
        }
    }

    async fn launch(&mut self) -> anyhow::Result<Successor> {
        let launcher =
            self.launcher.as_ref().context("upgrade.enabled is no, or its process could not be started")?;
        let program = launcher.program().display().to_string();
        UpgradeBegun { program: &program }.emit(ring::clock::unix_micros());
        let (ours, theirs) = MessageSocket::pair()?;
        launcher
            .launch(&theirs)
            .context("the process that starts programs is gone: stop and start instead")?;
        drop(theirs);
        // Some of the upgrades before may have left what nobody needs any more: the new server begins with that.
        let mut asked = BTreeSet::new();
        for core in 0..self.heirs.len() {
            match self.reloader.door.let_go(core).await {
                Ok(answer) => {
                    asked.insert(core);
                    self.spares.expect(core, async { Gift::Idle(answer.await) });
                }
                Err(error) => {
                    tracing::warn!(core, %error, "the new server has fewer journal shards to choose from");
                }
            }
        }
        self.hear_of(asked, IDLE_MAX).await;
        self.make_room().await;
        Successor::offer(ours, VERSION, &self.holding.all(), self.lock, &self.estate)
            .context("the new program ended at once; see what it has printed")
    }

    /// Sees to it that each core of the new server finds a journal shard, if it has as many as this one: where all are in use,
    /// for mail that waits, one is let go with that mail.
    async fn make_room(&mut self) {
        let (cores, shards) = (self.heirs.len(), self.reloader.started.journal.shards);
        let of_core = |core| (0..shards).filter(|shard| core_of(JournalShard(*shard), cores) == core).count();
        let mut needy: BTreeSet<_> =
            (0..cores).filter(|core| of_core(*core) == self.holding.of_core(*core).len()).collect();
        for core in needy.clone() {
            match self.reloader.door.spare(core).await {
                Ok(answer) => self.spares.expect(core, async { Gift::Spare(answer.await) }),
                Err(error) => {
                    needy.remove(&core);
                    tracing::warn!(core, %error, "the new server has fewer journal shards to choose from");
                }
            }
        }
        self.hear_of(needy, SPARES_MAX).await;
    }

    /// Waits until each of these cores has given up something, for so long.
    async fn hear_of(&mut self, mut cores: BTreeSet<usize>, patience: Duration) {
        let until = tokio::time::Instant::now() + patience;
        while !cores.is_empty() {
            let Ok(given) = tokio::time::timeout_at(until, self.spares.next()).await else {
                return tracing::warn!(?cores, "they are slow to let go of journal shards: clients may wait");
            };
            cores.remove(&given.core);
            self.on_given(given);
        }
    }

    /// A core has given up journal shards, or found none that it could. What comes too late for a new server is taken back, or
    /// goes over with the rest.
    fn on_given(&mut self, Given { core, what }: Given) {
        match what {
            Gift::Idle(idle) if idle.is_empty() => return,
            Gift::Idle(idle) => self.holding.remove(&idle),
            Gift::Spare(Some((journal, messages))) => {
                self.holding.remove(&[journal]);
                JournalSpared { journal: journal.0.into(), messages }.emit(ring::clock::unix_micros());
            }
            Gift::Spare(None) => {
                return tracing::warn!(
                    core,
                    "none of its journal shards can be let go now: clients will wait for the upgrade; with more of them \
                     (`journal.shards`, when a data directory is made) they would not"
                );
            }
        }
        if self.before.is_none() {
            self.strays = Some(tokio::time::Instant::now() + STRAYS_AFTER);
        }
    }

    /// The new server has said something: hands over when it can serve, else stays.
    fn on_successor(
        &mut self,
        upgrade: Option<Upgrade>,
        word: Option<Word>,
    ) -> Result<Handing, Option<Upgrade>> {
        let Some(upgrade) = upgrade else { return Err(None) };
        match word {
            Some(Word::Ready { version, pid }) => {
                Ok(self.hand_over(upgrade, Upgraded { version, pid }, First::New))
            }
            // It takes nobody in before this one has ended.
            Some(Word::Wait { version, pid }) => {
                Ok(self.hand_over(upgrade, Upgraded { version, pid }, First::Old))
            }
            Some(Word::Failed { reason }) => {
                self.refuse(upgrade, &reason);
                Err(None)
            }
            Some(word) => {
                tracing::debug!(?word, "out of turn");
                Err(Some(upgrade))
            }
            None if upgrade.successor.words.is_closed() => {
                self.refuse(upgrade, "the new program ended before it could serve; see what it has printed");
                Err(None)
            }
            None => {
                self.refuse(upgrade, "the new program was not ready within upgrade.start-max");
                Err(None)
            }
        }
    }

    /// The new server is given the word: this one takes nobody until it is clear which of them serves.
    fn hand_over(&self, upgrade: Upgrade, upgraded: Upgraded, first: First) -> Handing {
        let Upgrade { successor, asked, .. } = upgrade;
        self.gate.send_replace(Gate::Closed);
        successor.link.tell(&Word::Go);
        tracing::debug!("the new server has the word");
        let patience = match first {
            First::New => self.reloader.ours.upgrade_patience,
            First::Old => Duration::ZERO,
        };
        Handing { successor, first, patience, asked, upgraded, began: ring::clock::now() }
    }

    fn refuse(&mut self, upgrade: Upgrade, reason: &str) {
        self.give_up(&upgrade.successor);
        self.tell_refusal(upgrade.asked, reason);
    }

    /// It learns that nobody waits for it any more, and is ended if it hangs: what it has is missed here.
    fn give_up(&self, successor: &Successor) {
        successor.link.end();
        if let Some(launcher) = &self.launcher {
            launcher.give_up();
        }
    }

    fn tell_refusal(&mut self, asked: Option<UpgradeRequest>, reason: &str) {
        // As long as the server before this one has not ended none was started after it, and what nobody has it is just giving up.
        if self.before.is_none() {
            self.strays = Some(tokio::time::Instant::now() + STRAYS_AFTER);
        }
        UpgradeRefused { error: reason }.emit(ring::clock::unix_micros());
        self.process.upgraded(Reload::Refused);
        if let Some(asked) = asked {
            let _ = asked.send(Err(reason.to_owned()));
        }
    }

    /// Serves the sessions that there are until the last one has ended, or patience is at its end. A core that has none left
    /// ends, and what it had of the journal is the new server's, while others still serve.
    async fn outlast(
        &mut self,
        link: &Link,
        patience: Duration,
        signing: &mut mpsc::Receiver<SigningRequest>,
        endings: &mut mpsc::UnboundedReceiver<Ending>,
    ) {
        const ROUND: Duration = Duration::from_millis(250);
        let until = ring::clock::now() + patience;
        loop {
            link.tell(&Word::Left { sessions: self.sessions().await });
            let left = until.saturating_sub(ring::clock::now());
            if self.cores.have_ended() || left.is_zero() {
                return;
            }
            // Whoever is still connected to the pool may ask any core, or bring it mail.
            if self.pool.is_deserted() {
                self.depart().await;
            }
            tokio::select! {
                () = tokio::time::sleep(ROUND.min(left)) => {}
                Some(reply) = signing.recv() => self.sign_anew(reply).await,
                ending = endings.recv() => match ending {
                    Some(Ending { core, failure: None }) => self.part_with(core, link).await,
                    failure => failed(self, failure),
                }
            }
        }
    }

    /// How many there still are.
    async fn sessions(&self) -> u64 {
        let health = self.reloader.door.health().await;
        let inbound = health.iter().zip(&self.cores.0).map(|(shard, core)| match (shard, core) {
            (Ok(shard), _) => shard.inbound,
            (Err(AskError::Gone(_)), Core::Departing | Core::Ended) => 0,
            // One that does not answer in time may have any number.
            (Err(_), _) => 1,
        });
        inbound.sum::<u64>() + self.pool.connections()
    }

    /// Has each core end that has not been told to.
    async fn depart(&mut self) {
        // An attempt that is cut off would be made again, and might have come through. What waits behind one that hangs is
        // not to wait for ever.
        let rest = REST_MAX.max(self.reloader.ours.grace);
        if self.cores.0.contains(&Core::Serving) {
            self.counts.collect(self.reloader.door).await;
        }
        for core in 0..self.cores.0.len() {
            if self.cores.0[core] == Core::Serving {
                match self.reloader.door.depart(core, rest).await {
                    Ok(()) => self.cores.0[core] = Core::Departing,
                    // The next round asks again.
                    Err(error) => tracing::warn!(%error, "a core goes on for a moment"),
                }
            }
        }
    }

    /// The thread of a core has ended: nobody writes its journal shards any more. The new server may have them once their
    /// indexes are closed and their locks let go.
    async fn part_with(&mut self, core: usize, link: &Link) {
        self.cores.0[core] = Core::Ended;
        let journals = self.holding.of_core(core);
        self.indexes.release(&journals).await;
        self.holding.remove(&journals);
        CoreEnded { shard: core, journals: journals.len() as u64 }.emit(ring::clock::unix_micros());
        link.tell(&Word::Parted { journals: journals.into_iter().map(|shard| shard.0).collect() });
    }

    /// Takes back what was meant for a new server that has failed, and what that one has begun.
    async fn take_back(&mut self) {
        if let Err(error) = self.pool.reclaim() {
            tracing::error!(%error, "commands cannot reach this server; it tries again");
            return self.strays = Some(tokio::time::Instant::now() + STRAYS_AFTER);
        }
        // It may have come so far as to make itself known, after this one had said that it goes on.
        self.lock.sign();
        self.notify.ready();
        let taken = match self.holding.take_strays(&self.reloader.started) {
            Ok((taken, elsewhere)) => {
                // One that hangs has them until it is ended.
                let again = elsewhere == Elsewhere::Some && self.before.is_none();
                self.strays = again.then(|| tokio::time::Instant::now() + STRAYS_AFTER);
                taken
            }
            Err(error) => {
                self.strays = None;
                return tracing::error!(error = format!("{error:#}"), "journal shards cannot be taken back");
            }
        };
        if let Err(error) = self.adopt(&taken).await {
            tracing::error!(error = format!("{error:#}"), "the mail of journal shards waits for a restart");
        }
    }

    /// The server before this one has said something, or is gone: then what it had is taken over.
    async fn on_predecessor(&mut self, word: Option<Word>) {
        let Some(before) = &mut self.before else { return };
        match word {
            Some(Word::Left { sessions }) => {
                before.measure();
                return before.tell(sessions);
            }
            Some(Word::Parted { journals }) => return self.take_part(&journals).await,
            Some(Word::Released) => {}
            Some(word) => return tracing::debug!(?word, "out of turn"),
            None => {
                // What it has asked the kernel to write may be under way.
                tokio::time::sleep(LAST_WRITES).await;
            }
        }
        let journals = before.predecessor.borrow().journals.clone();
        let claimed = match self.holding.extend(&self.reloader.started, &journals) {
            Ok(true) => Ok(()),
            // It says nothing any more, and lives: the next look is a moment later.
            Ok(false) => return,
            Err(error) => Err(error),
        };
        let Some(before) = self.before.take() else { return };
        if word.is_none() {
            let pid = before.predecessor.borrow().pid;
            PredecessorLost { pid }.emit(ring::clock::unix_micros());
        }
        let took = ring::clock::now().saturating_sub(before.began);
        before.end();
        self.sharing.set(Beside::Nobody);
        self.counts.take_over().await;
        let (file, egress) = &self.warm_ups;
        pool::take_over_warm_ups(file, egress);
        let adopted = match claimed {
            Ok(()) => self.adopt(&journals).await,
            Err(error) => Err(error),
        };
        if let Err(error) = adopted {
            // It is all there, and the next start reads it; but it must not wait for that unseen.
            tracing::error!(
                error = format!("{error:#}"),
                "the mail of the server before this one waits for a restart"
            );
            return;
        }
        TookOver { journals: before.taken + journals.len() as u64, took }.emit(ring::clock::unix_micros());
        let (adopting, files) = (mem::take(&mut self.adopting), self.task_files.clone());
        let door = self.reloader.door.clone();
        tokio::spawn(async move {
            for adopted in adopting {
                let _ = adopted.await;
            }
            // From here on whoever asks a core about its queue waits until all of it is there.
            files.take_over(&door).await;
        });
    }

    /// A core of the server before this one has ended: what it had is taken over while others still serve.
    async fn take_part(&mut self, journals: &BTreeSet<u16>) {
        let (journals, left) = match self.claim_part(journals) {
            Ok(Some(claimed)) => claimed,
            // They are taken over with the others.
            Ok(None) => return tracing::warn!("journal shards that were let go are not free"),
            Err(error) => {
                return tracing::warn!(error = format!("{error:#}"), "journal shards are not taken over yet");
            }
        };
        if let Err(error) = self.adopt(&journals).await {
            tracing::error!(
                error = format!("{error:#}"),
                "mail of the server before this one waits for a restart"
            );
            return;
        }
        if let Some(before) = &mut self.before {
            // They count as this one's now.
            before.disk.retain(|shard, _| !journals.contains(shard));
        }
        TookPart { journals: journals.len() as u64, left }.emit(ring::clock::unix_micros());
    }

    /// Takes those of the server before this one; answers which, and how many are still to come. None when they are not free.
    fn claim_part(
        &mut self,
        journals: &BTreeSet<u16>,
    ) -> anyhow::Result<Option<(BTreeSet<JournalShard>, u64)>> {
        let Some(before) = &mut self.before else { return Ok(None) };
        let mut predecessor = before.predecessor.borrow_mut();
        let mut journals: BTreeSet<_> = journals.iter().copied().map(JournalShard).collect();
        journals.retain(|shard| predecessor.journals.contains(shard));
        if !self.holding.extend(&self.reloader.started, &journals)? {
            return Ok(None);
        }
        predecessor.journals.retain(|shard| !journals.contains(shard));
        before.taken += journals.len() as u64;
        Ok(Some((journals, predecessor.journals.len() as u64)))
    }

    async fn adopt(&mut self, journals: &BTreeSet<JournalShard>) -> anyhow::Result<()> {
        let cores = self.heirs.len();
        for mut journal in self.indexes.adopt(journals, self.budget)? {
            let (known, adopting) = oneshot::channel();
            journal.adopted = Some(known);
            self.adopting.push(adopting);
            let core = core_of(journal.shard, cores);
            self.heirs[core].send(journal).await.map_err(|_| anyhow!("shard {core} has ended"))?;
        }
        Ok(())
    }
}

/// New configurations and certificates.
impl Server<'_> {
    /// Takes what has changed of the certificates and of the database of autonomous systems anew, or leaves it as it is, and says so.
    async fn renew(&mut self) {
        if let Some((file, read)) = self.reloader.renew_systems() {
            let (now, file) = (ring::clock::unix_micros(), file.display().to_string());
            match read {
                Ok(networks) => AsnDatabaseRead { file: &file, networks }.emit(now),
                Err(error) => AsnDatabaseRefused { file: &file, error: &format!("{error:#}") }.emit(now),
            }
            if !self.reloader.papers_changed() {
                return;
            }
        }
        let renewed = self.reloader.renew().await.map_err(|error| format!("{error:#}"));
        let now = ring::clock::unix_micros();
        match &renewed {
            Ok(names) => {
                self.process.renewed(Reload::Done);
                CertificatesRenewed { names: &names.join(" ") }.emit(now);
            }
            Err(error) => {
                self.process.renewed(Reload::Refused);
                CertificatesRefused { error }.emit(now);
            }
        }
    }

    /// Has all cores sign with the keys that are to sign now.
    async fn sign_anew(&mut self, reply: SigningRequest) {
        let signs = self.reloader.sign_anew().await;
        // Who asked may be gone.
        let _ = reply.send(signs.map_err(|error| format!("{error:#}")));
    }

    /// Takes the configuration and the certificates anew, or leaves all as it is, and says so.
    async fn reload(&mut self) -> Result<admin::Reloaded, String> {
        let config = self.reloader.path.display().to_string();
        let reloaded = self.reloader.reload().await.map_err(|error| format!("{error:#}"));
        let now = ring::clock::unix_micros();
        match &reloaded {
            Ok(reloaded) => {
                self.process.reloaded(Reload::Done);
                let (pending, stranded) = (reloaded.pending.join(", "), reloaded.stranded());
                let pending = Some(pending.as_str()).filter(|pending| !pending.is_empty());
                Reloaded { config: &config, pending, stranded: stranded.as_deref() }.emit(now);
            }
            Err(error) => {
                self.process.reloaded(Reload::Refused);
                ReloadRefused { config: &config, error }.emit(now);
            }
        }
        if let Err(error) = self.reloader.log.reopen() {
            tracing::error!(%error, "the log file stays the old one");
        }
        reloaded
    }
}
