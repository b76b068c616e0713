//! What the main thread does while shards and pool serve: signals, wishes of operators, a new server in the place of this.

use std::{
    cell::RefCell, collections::BTreeSet, convert::Infallible, future, process::ExitCode, rc::Rc, sync::Arc,
    time::Duration,
};

use admin::{Operations, ReloadRequest, UpgradeRequest, Upgraded};
use anyhow::{Context, anyhow};
use mail::JournalShard;
use ring::{DirectoryLock, MessageSocket};
use shard::{DiskBudget, Gate, JournalSetup};
use tokio::{
    signal::unix::Signal,
    sync::{mpsc, watch as watch_channel},
};
use watch::{
    ProcessMetrics, Reload,
    events::{
        CertificatesRefused, CertificatesRenewed, Draining, HandedOver, HandingOver, PredecessorLost,
        ReloadRefused, Reloaded, Stopped, Stopping, TakingOver, TookOver, UpgradeBegun, UpgradeRefused,
    },
};

use crate::{
    handover::{Estate, LAST_WRITES, Link, Predecessor, Successor, Word, Words},
    indexes::{Holding, Indexes, core_of},
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
}

/// Where the wishes of operators come in.
pub(crate) struct Asked {
    pub(crate) reloads: mpsc::Receiver<ReloadRequest>,
    pub(crate) upgrades: mpsc::Receiver<UpgradeRequest>,
}

/// A server that this one has taken over from, and that still has sessions.
pub(crate) struct Before {
    predecessor: Rc<RefCell<Predecessor>>,
    words: Words,
    operations: Operations,
    process: Arc<ProcessMetrics>,
    began: Duration,
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
    /// How long this one serves the sessions that it has.
    patience: Duration,
    asked: Option<UpgradeRequest>,
    upgraded: Upgraded,
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
        operations: &Operations,
        process: &Arc<ProcessMetrics>,
    ) -> std::io::Result<Self> {
        let (words, began) = (predecessor.borrow().listen()?, ring::clock::now());
        {
            let predecessor = predecessor.borrow();
            let (version, pid) = (predecessor.version.as_str(), predecessor.pid);
            TakingOver { version, pid }.emit(ring::clock::unix_micros());
        }
        let (operations, process) = (operations.clone(), process.clone());
        let before = Self { predecessor: predecessor.clone(), words, operations, process, began };
        before.tell(0);
        Ok(before)
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
        Asked { mut reloads, mut upgrades }: Asked,
        endings: &mut mpsc::UnboundedReceiver<String>,
    ) -> End {
        let mut upgrade: Option<Upgrade> = None;
        let reason = loop {
            tokio::select! {
                _ = terminate.recv() => break Ok("SIGTERM"),
                _ = interrupt.recv() => break Ok("SIGINT"),
                _ = hangup.recv() => drop(self.reload().await),
                _ = user2.recv() => upgrade = self.begin_upgrade(upgrade, None).await,
                () = self.reloader.files_change() => self.renew().await,
                Some(reply) = reloads.recv() => {
                    // Who asked may be gone.
                    let _ = reply.send(self.reload().await);
                }
                Some(asked) = upgrades.recv() => upgrade = self.begin_upgrade(upgrade, Some(asked)).await,
                word = next_of(&mut upgrade) => {
                    match self.on_successor(upgrade.take(), word) {
                        Ok(successor) => break Err(successor),
                        Err(still) => upgrade = still,
                    }
                }
                word = next_before(&mut self.before) => self.on_predecessor(word).await,
                reason = endings.recv() => failed(self, reason),
            }
        };
        // Whoever wishes for something from now on is told that we stop.
        drop((reloads, upgrades));
        match reason {
            Ok(reason) => {
                if let Some(upgrade) = upgrade {
                    self.refuse(upgrade, "this server was told to stop meanwhile");
                }
                self.notify.stopping();
                let stopping = self.stop(reason);
                tokio::select! {
                    () = stopping => return End::Stopped,
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    reason = endings.recv() => failed(self, reason),
                }
                tracing::warn!(
                    "stopped at once by a second signal; what was under way is done again after the next start"
                );
                End::Stopped
            }
            Err(Handing { successor, patience, asked, upgraded }) => {
                let began = ring::clock::now();
                let Successor { link, mut words } = successor;
                if !patience.is_zero() {
                    // Until then the control socket is ours, and whoever asks finds somebody.
                    const TURN: Duration = Duration::from_secs(10);
                    let _ = tokio::time::timeout(TURN, wait_for(Word::Serving, &mut words)).await;
                }
                self.pool.leave();
                // As long as anybody has them, they take connections.
                self.estate = Estate::default();
                if let Some(asked) = asked {
                    // Who asked may be gone.
                    let _ = asked.send(Ok(upgraded));
                }
                let (mut heard, mut rest) = (true, self.reloader.ours.grace);
                tokio::select! {
                    // An attempt that is cut off would be made again, and might have come through.
                    left = self.outlast(&link, patience) => rest = rest.max(left),
                    hurry = wait_for(Word::Hurry, &mut words) => heard = hurry,
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    reason = endings.recv() => failed(self, reason),
                }
                if !heard {
                    tracing::error!("the new server has ended; this one finishes what it has");
                }
                // What waits behind an attempt that hangs is not to wait for ever.
                let rest = rest.min(REST_MAX.max(self.reloader.ours.grace));
                let cut = tokio::select! {
                    cut = self.drain(rest) => cut,
                    () = soon(&mut words, (&mut terminate, &mut interrupt)) => {
                        tokio::select! {
                            cut = self.drain(self.reloader.ours.grace) => cut,
                            _ = terminate.recv() => 0,
                            _ = interrupt.recv() => 0,
                        }
                    }
                };
                End::HandedOver { link, began, cut, heard }
            }
        }
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
        self.reloader.door.drain(grace).await.unwrap_or_else(|error| {
            tracing::error!(%error, "not every shard has stopped in order");
            0
        })
    }
}

/// A shard has ended that should not have: what was acknowledged is in the journal, and a supervisor starts us again.
fn failed(server: &Server<'_>, reason: Option<String>) -> ! {
    let reason = reason.unwrap_or_else(|| "every shard ended".to_owned());
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

/// Waits until somebody wants the end of this server soon.
async fn soon(words: &mut Words, (terminate, interrupt): (&mut Signal, &mut Signal)) {
    let hurry = async {
        if !wait_for(Word::Hurry, words).await {
            future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = hurry => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// After the last session of a server that hands over, its attempts have so long; its queue stands still meanwhile.
const REST_MAX: Duration = Duration::from_secs(60);

/// Another server in the place of this one.
impl Server<'_> {
    /// Starts a new server, unless there are two already.
    async fn begin_upgrade(
        &mut self,
        upgrade: Option<Upgrade>,
        asked: Option<UpgradeRequest>,
    ) -> Option<Upgrade> {
        let refused = match (&upgrade, &self.before) {
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
                Some(Upgrade { successor, asked, until })
            }
            Err(error) => {
                self.tell_refusal(asked, &format!("{error:#}"));
                upgrade
            }
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
        match self.reloader.door.let_go().await {
            Ok(idle) => self.holding.remove(&idle),
            Err(error) => tracing::warn!(%error, "the new server has fewer journal shards to choose from"),
        }
        Successor::offer(ours, VERSION, &self.holding.all(), self.lock, &self.estate)
            .context("the new program ended at once; see what it has printed")
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
                Ok(self.hand_over(upgrade, Upgraded { version, pid }, self.reloader.ours.upgrade_patience))
            }
            // It takes nobody in before this one has ended.
            Some(Word::Wait { version, pid }) => {
                Ok(self.hand_over(upgrade, Upgraded { version, pid }, Duration::ZERO))
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

    /// From here on the new server takes who comes.
    fn hand_over(&self, upgrade: Upgrade, upgraded: Upgraded, patience: Duration) -> Handing {
        let Upgrade { successor, asked, .. } = upgrade;
        self.gate.send_replace(Gate::Left);
        successor.link.tell(&Word::Go);
        HandingOver { version: &upgraded.version, pid: upgraded.pid }.emit(ring::clock::unix_micros());
        self.process.upgraded(Reload::Done);
        Handing { successor, patience, asked, upgraded }
    }

    fn refuse(&self, upgrade: Upgrade, reason: &str) {
        upgrade.successor.link.end();
        self.tell_refusal(upgrade.asked, reason);
    }

    fn tell_refusal(&self, asked: Option<UpgradeRequest>, reason: &str) {
        UpgradeRefused { error: reason }.emit(ring::clock::unix_micros());
        self.process.upgraded(Reload::Refused);
        if let Some(asked) = asked {
            let _ = asked.send(Err(reason.to_owned()));
        }
    }

    /// Serves the sessions that there are until the last one has ended, or patience is at its end. Answers what is left of
    /// it.
    async fn outlast(&self, link: &Link, patience: Duration) -> Duration {
        const ROUND: Duration = Duration::from_millis(250);
        let until = ring::clock::now() + patience;
        loop {
            let health = self.reloader.door.health().await;
            // One that does not answer in time may have any number.
            let inbound =
                |shard: &Result<bridge::ShardHealth, _>| shard.as_ref().map_or(1, |shard| shard.inbound);
            let sessions = health.iter().map(inbound).sum::<u64>() + self.pool.connections();
            link.tell(&Word::Left { sessions });
            let left = until.saturating_sub(ring::clock::now());
            if sessions == 0 || left.is_zero() {
                return left;
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    /// The server before this one has said something, or is gone: then what it had is taken over.
    async fn on_predecessor(&mut self, word: Option<Word>) {
        let Some(before) = &self.before else { return };
        match word {
            Some(Word::Left { sessions }) => return before.tell(sessions),
            Some(Word::Released) => {}
            Some(word) => return tracing::debug!(?word, "out of turn"),
            None => {
                // What it has asked the kernel to write may be under way.
                tokio::time::sleep(LAST_WRITES).await;
            }
        }
        let journals = before.predecessor.borrow().journals.clone();
        match self.holding.extend(&self.reloader.started, &journals) {
            Ok(true) => {}
            // It says nothing any more, and lives: the next look is a moment later.
            Ok(false) => return,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "journal shards cannot be taken over")
            }
        }
        let Some(before) = self.before.take() else { return };
        if word.is_none() {
            let pid = before.predecessor.borrow().pid;
            PredecessorLost { pid }.emit(ring::clock::unix_micros());
        }
        let took = ring::clock::now().saturating_sub(before.began);
        before.end();
        if let Err(error) = self.adopt(&journals).await {
            // It is all there, and the next start reads it; but it must not wait for that unseen.
            tracing::error!(
                error = format!("{error:#}"),
                "the mail of the server before this one waits for a restart"
            );
            return;
        }
        TookOver { journals: journals.len() as u64, took }.emit(ring::clock::unix_micros());
    }

    async fn adopt(&mut self, journals: &BTreeSet<JournalShard>) -> anyhow::Result<()> {
        let cores = self.heirs.len();
        for journal in self.indexes.adopt(journals, self.budget)? {
            let core = core_of(journal.shard, cores);
            self.heirs[core].send(journal).await.map_err(|_| anyhow!("shard {core} has ended"))?;
        }
        Ok(())
    }
}

/// New configurations and certificates.
impl Server<'_> {
    /// Takes the certificates anew, or leaves all as it is, and says so.
    async fn renew(&mut self) {
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
