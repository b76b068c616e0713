//! What the main thread does while shards and pool serve: signals, wishes of operators, a new server in the place of this.

mod upgrade;

use std::{
    cell::RefCell, collections::BTreeMap, convert::Infallible, future, path::PathBuf, process::ExitCode,
    rc::Rc, sync::Arc, thread, time::Duration,
};

use admin::{Operations, ReloadRequest, UpgradeRequest, Upgraded};
use anyhow::Context as _;
use bridge::{AskError, Egress};
use mail::JournalShard;
use pool::{AllCounts, SigningRequest};
use ring::DirectoryLock;
use shard::{Beside, DiskBudget, DiskElsewhere, Gate, JournalSetup, Sharing};
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, oneshot, watch as watch_channel},
};
use watch::{
    ProcessMetrics, Reload,
    events::{
        AsnDatabaseRead, AsnDatabaseRefused, CertificatesRefused, CertificatesRenewed, Draining, HandedOver,
        HandingOver, ReloadRefused, Reloaded, Stopped, Stopping, TakingOver, WentOn,
    },
};

use crate::{
    handover::{Estate, LAST_WRITES, Link, Predecessor, Successor, Word, Words},
    indexes::{Holding, Indexes},
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
