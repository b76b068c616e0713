//! Another server in the place of this one, or this one in the place of another.

use std::{collections::BTreeSet, mem, time::Duration};

use admin::{UpgradeRequest, Upgraded};
use anyhow::{Context as _, anyhow};
use bridge::AskError;
use mail::JournalShard;
use pool::SigningRequest;
use ring::MessageSocket;
use shard::{Beside, Gate};
use tokio::sync::{mpsc, oneshot};
use watch::{
    Reload,
    events::{CoreEnded, JournalSpared, PredecessorLost, TookOver, TookPart, UpgradeBegun, UpgradeRefused},
};

use super::{Core, Ending, First, Gift, Given, Handing, Server, Upgrade, VERSION, failed};
use crate::{
    handover::{LAST_WRITES, Link, Successor, Word},
    indexes::{Elsewhere, core_of},
};

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
    pub(super) async fn begin_upgrade(
        &mut self,
        upgrade: &mut Option<Upgrade>,
        asked: Option<UpgradeRequest>,
    ) {
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
    pub(super) fn on_given(&mut self, Given { core, what }: Given) {
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
    pub(super) fn on_successor(
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

    pub(super) fn refuse(&mut self, upgrade: Upgrade, reason: &str) {
        self.give_up(&upgrade.successor);
        self.tell_refusal(upgrade.asked, reason);
    }

    /// It learns that nobody waits for it any more, and is ended if it hangs: what it has is missed here.
    pub(super) fn give_up(&self, successor: &Successor) {
        successor.link.end();
        if let Some(launcher) = &self.launcher {
            launcher.give_up();
        }
    }

    pub(super) fn tell_refusal(&mut self, asked: Option<UpgradeRequest>, reason: &str) {
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
    pub(super) async fn outlast(
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
    pub(super) async fn take_back(&mut self) {
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
    pub(super) async fn on_predecessor(&mut self, word: Option<Word>) {
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
