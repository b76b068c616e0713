//! The process that renews keys: a look at the DNS each round, then what follows from it.

mod telling;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use bridge::Door;
use config::{Dkim, DkimAlgorithm};
use dns::{Kind, Name, Outcome, Question, Records};
use mail::Timestamp;
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    io::Errno,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::{JoinSet, spawn_blocking},
    time::{Instant, timeout},
};
use trust::{
    Ending, KeyPhase, Look, Order, Publishing, RotatedKey, Rotation, RotationId, RotationRules, Rotations,
    Round,
};
use watch::events::DkimRotationFailed;

use super::{
    Inner, RotationSettings, Signing, SigningRequest,
    provider::{self, Change, ChangeError, Place},
    read, signing,
    trouble::Troubles,
};
use crate::{PolicyFetching, disk, durably};

/// Questions under way at once.
const LOOKS_MAX: usize = 16;
/// All cores take new keys within so long.
const APPLIED_WITHIN: Duration = Duration::from_secs(30);
/// What is still wrong is told again after so long.
const TOLD_EVERY: Duration = Duration::from_secs(86_400);
/// Steps of one key in one round, one after the other: begun, made, published.
const PASSES: usize = 4;

pub(super) struct Keeper {
    inner: Arc<Inner>,
    door: Door,
    fetching: Arc<ArcSwap<PolicyFetching>>,
    to_sign: mpsc::Sender<SigningRequest>,
    /// Held while this process renews.
    lock: Option<OwnedFd>,
    rotations: Rotations,
    /// What is on the disk.
    written: String,
    last_round: Option<Instant>,
    /// What could not be made durable: nothing is tried again before.
    resting: Option<Instant>,
    /// Entries that new keys are wished for, until that is durable.
    wishes: BTreeSet<String>,
    /// What all cores sign with.
    in_force: Option<Signing>,
    /// What could not be done for keys.
    troubles: Troubles,
    told: HashMap<String, Instant>,
    /// Changes by providers: done, failed.
    updates: BTreeMap<Box<str>, (u64, u64)>,
}

/// What an entry says of one rotation.
struct Plan<'a> {
    dkim: &'a Dkim,
    algorithm: DkimAlgorithm,
}

impl Plan<'_> {
    fn name(&self, day: u32, number: u32) -> Box<str> {
        self.dkim.selector_of(self.algorithm, day, number).to_ascii_lowercase().into()
    }
}

/// An order, for a key by value.
enum Task {
    Make(Box<str>),
    Publish(Box<str>, Box<str>),
    Revoke(Box<str>, Box<str>),
    Withdraw(Box<str>, Box<str>),
    Erase(Box<str>),
}

impl Keeper {
    pub(super) fn new(
        inner: Arc<Inner>,
        door: Door,
        fetching: Arc<ArcSwap<PolicyFetching>>,
        to_sign: mpsc::Sender<SigningRequest>,
    ) -> Self {
        Self {
            inner,
            door,
            fetching,
            to_sign,
            lock: None,
            rotations: Rotations::default(),
            written: String::new(),
            last_round: None,
            resting: None,
            wishes: BTreeSet::new(),
            in_force: None,
            troubles: Troubles::default(),
            told: HashMap::new(),
            updates: BTreeMap::new(),
        }
    }

    /// Looks whether there is something to do, and does it.
    pub(super) async fn turn(&mut self, woken: bool) {
        let settings = self.inner.settings.load_full();
        if !settings.rotates() && self.rotations.0.is_empty() && !settings.file().exists() {
            return;
        }
        if self.inner.leaving.load(Ordering::Relaxed) {
            self.lock = None;
        } else if self.lock.is_none() && self.resting.is_none_or(|until| Instant::now() >= until) {
            self.take_lock(&settings);
        }
        if self.lock.is_none() {
            return self.follow(&settings).await;
        }
        let changed = self.inner.changed.swap(false, Ordering::Relaxed);
        let due = self.last_round.is_none_or(|last| last.elapsed() >= settings.rotation.interval);
        if woken || changed {
            // Somebody has mended something, or looks at it.
            self.troubles.forget();
        }
        if due || woken || changed {
            self.round(&settings).await;
        }
    }

    /// Renews from here on, when nobody else does.
    fn take_lock(&mut self, settings: &RotationSettings) {
        let path = settings.data_directory.join("dkim-keys.lock");
        let locked = disk::open(&path, OFlags::RDWR | OFlags::CREATE).and_then(|file| {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(file)),
                Err(Errno::WOULDBLOCK) => Ok(None),
                Err(error) => Err(error.into()),
            }
        });
        match locked.and_then(|locked| locked.map(|lock| Ok((lock, read(&settings.file())?))).transpose()) {
            Ok(Some((lock, (rotations, written)))) => {
                (self.rotations, self.written) = (rotations, written);
                (self.lock, self.last_round, self.in_force) = (Some(lock), None, None);
            }
            Ok(None) => {}
            Err(error) => {
                if self.is_news("state") {
                    let file = settings.file();
                    tracing::error!("{}: {error}: no key is renewed", file.display());
                }
            }
        }
    }

    /// Another process renews: what it has changed is taken.
    async fn follow(&mut self, settings: &RotationSettings) {
        let Ok((rotations, text)) = read(&settings.file()) else { return };
        if text != self.written {
            (self.rotations, self.written, self.last_round) = (rotations, text, None);
            self.show(settings);
        }
        // Until they have taken it: a core that serves its last session for long would else sign with a key whose record goes. Cores that
        // have ended cannot, which is no reason to tell the others each second.
        let due = self.last_round.is_none_or(|last| last.elapsed() >= settings.rotation.interval);
        if due {
            self.last_round = Some(Instant::now());
            let _ = self.apply().await;
        }
    }

    async fn round(&mut self, settings: &RotationSettings) {
        let now = (self.inner.clock)();
        // One that was held up does not count more than it has seen.
        let elapsed = self.last_round.map_or(Duration::ZERO, |last| last.elapsed());
        let elapsed = elapsed.min(settings.rotation.interval * 4);
        self.last_round = Some(Instant::now());
        let before = self.phases();
        let plans = self.plans(settings);
        let blind = self.look_at_keys(settings, now).await;
        let sought = self.sought(settings, &plans, now);
        let mut looks = self.look(sought).await;
        for (id, selector) in blind {
            looks.entry(id).or_default().insert(selector, Look::Unknown);
        }
        let in_force = self.in_force.as_ref() == Some(&signing(&self.rotations));
        let none = BTreeMap::new();
        let signs = |id: &RotationId, rotation: &Rotation| {
            rotation.signing().is_some().then(|| (id.entry.clone(), id.domain.clone()))
        };
        let succeeded: BTreeSet<_> = self
            .rotations
            .0
            .iter()
            .filter(|(id, _)| plans.contains_key(id))
            .filter_map(|(id, rotation)| signs(id, rotation))
            .collect();
        let planned: BTreeSet<_> = plans.keys().map(|id| (id.entry.clone(), id.domain.clone())).collect();
        for (id, rotation) in &mut self.rotations.0 {
            let looks = looks.get(id).unwrap_or(&none);
            let round = Round { now, elapsed, in_force, looks };
            match plans.get(id) {
                Some(plan) => {
                    let rules = rules(settings, rotation, Some(plan));
                    rotation.on_round(&rules, &round, |day, number| plan.name(day, number));
                }
                None => {
                    let entry = (id.entry.clone(), id.domain.clone());
                    let waits = planned.contains(&entry) && !succeeded.contains(&entry);
                    let ending = if waits { Ending::Succeeded } else { Ending::Now };
                    rotation.on_round_of_the_end(&rules(settings, rotation, None), &round, ending);
                }
            }
        }
        self.rotations.0.retain(|id, rotation| plans.contains_key(id) || !rotation.is_empty());
        if self.write(settings).await {
            self.wishes.clear();
            if let Err(error) = self.apply().await
                && self.is_news("apply")
            {
                tracing::error!("{}: {error}: mail is signed as before", settings.file().display());
            }
            for _ in 0..PASSES {
                if !self.obey(settings).await {
                    break;
                }
            }
        }
        self.tell(settings, &before);
        self.show(settings);
    }

    /// What the configuration says, of each rotation. New ones begin here, and wishes are taken down.
    fn plans<'a>(&mut self, settings: &'a RotationSettings) -> BTreeMap<RotationId, Plan<'a>> {
        let mut plans = BTreeMap::new();
        self.wishes.append(&mut self.inner.shown.take_wishes());
        for dkim in &settings.dkim {
            for (id, algorithm) in RotationSettings::ids(dkim) {
                let rotation = self.rotations.0.entry(id.clone()).or_default();
                rotation.publisher = dkim.publish.as_deref().map(|name| name.to_ascii_lowercase().into());
                if self.wishes.contains(&*id.entry) {
                    rotation.wish();
                }
                plans.insert(id, Plan { dkim, algorithm });
            }
        }
        plans
    }

    /// The selectors to look at, of each rotation.
    fn sought(
        &mut self,
        settings: &RotationSettings,
        plans: &BTreeMap<RotationId, Plan<'_>>,
        now: Timestamp,
    ) -> Vec<(RotationId, Box<str>)> {
        // Keys of files, and those of other rotations: by the names of their files, which s1.mail at example.org has in common with
        // s1 at mail.example.org.
        let by_hand = settings.dkim.iter().filter(|dkim| dkim.rotate.is_none()).filter_map(|dkim| {
            let domain = super::asked(dkim.domain.as_ref()?)?;
            Some(settings.key_file(&domain, &dkim.selector.to_ascii_lowercase()))
        });
        let mut known: BTreeSet<PathBuf> = by_hand.collect();
        let own = self.rotations.0.iter().flat_map(|(id, rotation)| {
            rotation.keys().iter().map(|key| settings.key_file(&id.domain, &key.selector))
        });
        known.extend(own);
        let mut all = Vec::new();
        for (id, rotation) in &mut self.rotations.0 {
            let sought = match plans.get(id) {
                Some(plan) => {
                    let rules = rules(settings, rotation, Some(plan));
                    let is_known = |selector: &str| known.contains(&settings.key_file(&id.domain, selector));
                    rotation.sought(&rules, now, |day, number| plan.name(day, number), is_known)
                }
                None => rotation.keys().iter().map(|key| key.selector.clone()).collect(),
            };
            // Of two that begin at once, each has its own.
            known.extend(sought.iter().map(|selector| settings.key_file(&id.domain, selector)));
            all.extend(sought.into_iter().map(|selector| (id.clone(), selector)));
        }
        all
    }

    /// What the DNS shows now.
    async fn look(
        &self,
        sought: Vec<(RotationId, Box<str>)>,
    ) -> BTreeMap<RotationId, BTreeMap<Box<str>, Look>> {
        let places = Arc::new(Semaphore::new(LOOKS_MAX));
        let mut asking = JoinSet::new();
        for (id, selector) in sought {
            let (door, places) = (self.door.clone(), places.clone());
            asking.spawn(async move {
                let _place = places.acquire().await;
                let look = look_at(&door, &id, &selector).await;
                (id, selector, look)
            });
        }
        let mut looks: BTreeMap<RotationId, BTreeMap<Box<str>, Look>> = BTreeMap::new();
        while let Some(looked) = asking.join_next().await {
            let Ok((id, selector, look)) = looked else { continue };
            looks.entry(id).or_default().insert(selector, look);
        }
        looks
    }

    /// Sees whether private keys are there. One that is lost is replaced; one that could not sign is answered, and is as one that nobody
    /// sees.
    async fn look_at_keys(
        &mut self,
        settings: &RotationSettings,
        now: Timestamp,
    ) -> Vec<(RotationId, Box<str>)> {
        let mut wanted = Vec::new();
        for (id, rotation) in &self.rotations.0 {
            for key in rotation.keys() {
                if matches!(key.phase, KeyPhase::Shown | KeyPhase::Signing) {
                    let file = settings.key_file(&id.domain, &key.selector);
                    wanted.push((id.clone(), key.selector.clone(), key.phase, file, key.record.clone()));
                }
            }
        }
        let checked = spawn_blocking(move || {
            let check = |(id, selector, phase, file, record): (_, _, _, PathBuf, Box<str>)| {
                let flaw = super::read_key(&file, &record).err()?;
                Some((id, selector, phase, flaw, file))
            };
            wanted.into_iter().filter_map(check).collect::<Vec<(RotationId, Box<str>, _, _, _)>>()
        });
        let flawed = checked.await.unwrap_or_default();
        self.troubles.retain(|id, selector, task| {
            task != "sign" || flawed.iter().any(|(of, at, ..)| of == id && **at == *selector)
        });
        let mut blind = Vec::new();
        for (id, selector, phase, flaw, file) in flawed {
            let why = if phase == KeyPhase::Signing {
                "it signs until the next start, and a new one is made to take its place"
            } else {
                "it signs nothing"
            };
            self.failed(settings, &id, &selector, "sign", &format!("{}: {flaw}: {why}", file.display()));
            if flaw.is_lost() {
                self.with(&id, |rotation| rotation.on_lost(&selector, now));
            }
            if phase == KeyPhase::Shown {
                blind.push((id, selector));
            }
        }
        blind
    }

    /// Makes the state durable; false when that is not known to be so, and nothing may follow from it.
    async fn write(&mut self, settings: &RotationSettings) -> bool {
        let text = self.rotations.to_text();
        if text == self.written {
            return true;
        }
        let (file, written) = (settings.file(), text.clone());
        let directory = settings.data_directory.clone();
        let done = spawn_blocking(move || {
            durably::write(&file, &written).and_then(|()| disk::sync_directory(&directory))
        })
        .await;
        match done {
            Ok(Ok(())) => {
                self.written = text;
                self.told.remove("write");
                true
            }
            Ok(Err(error)) => {
                if self.is_news("write") {
                    tracing::error!("{}: {error}: no key is renewed", settings.file().display());
                }
                // What is there is read anew, and not at once: a disk that is full now is full in a second.
                (self.lock, self.resting) = (None, Some(Instant::now() + settings.rotation.interval));
                self.written.clear();
                false
            }
            Err(_) => false,
        }
    }

    /// Sees to it that all cores sign with what the state says.
    async fn apply(&mut self) -> Result<(), String> {
        let wanted = signing(&self.rotations);
        if self.in_force.as_ref() == Some(&wanted) {
            return Ok(());
        }
        self.in_force = None;
        let (done, applied) = oneshot::channel();
        let asked = timeout(APPLIED_WITHIN, async {
            self.to_sign.send(done).await.map_err(|_| "the server ends".to_owned())?;
            applied.await.map_err(|_| "the server ends".to_owned())?
        });
        asked.await.unwrap_or_else(|_| Err("nobody has answered".to_owned()))?;
        self.in_force = Some(wanted);
        Ok(())
    }

    /// Carries out what follows from the state; false when there was nothing, or something could not be.
    async fn obey(&mut self, settings: &RotationSettings) -> bool {
        let mut tasks = Vec::new();
        for (id, rotation) in &self.rotations.0 {
            let orders = rotation.orders(publishing(settings, rotation)).into_iter();
            tasks.extend(orders.map(|order| (id.clone(), Task::of(order))));
        }
        let (mut any, mut all) = (false, true);
        // Who does not answer for one key does not for the next: with many of them a round would last for hours.
        let mut silent = BTreeSet::new();
        for (id, task) in tasks {
            let (word, selector) = task.words();
            let publisher = self.publisher(&id).filter(|_| task.is_change());
            if self.troubles.hold(&id, &selector, word)
                || publisher.as_ref().is_some_and(|one| silent.contains(one))
            {
                continue;
            }
            any = true;
            match self.carry_out(settings, &id, &task).await {
                Ok(()) => self.troubles.done(&id, &selector, word),
                Err(error) => {
                    if let ChangeError::Silent(_) = error {
                        silent.extend(publisher);
                    }
                    let (ChangeError::Silent(error) | ChangeError::Refused(error)) = error;
                    self.failed(settings, &id, &selector, word, &error);
                    all = false;
                }
            }
            // The next one may take its time, and this one need not be done again.
            if !self.write(settings).await {
                return false;
            }
        }
        any && all
    }

    async fn carry_out(
        &mut self,
        settings: &RotationSettings,
        id: &RotationId,
        task: &Task,
    ) -> Result<(), ChangeError> {
        let now = self.inner.clock;
        let change = match task {
            Task::Make(selector) => {
                let (directory, kind) = (settings.directory(), id.kind);
                let file = settings.key_file(&id.domain, selector);
                let made = spawn_blocking(move || make_key(&directory, &file, kind)).await;
                let record = made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                self.with(id, |rotation| rotation.on_made(selector, &record, now()));
                return Ok(());
            }
            Task::Erase(selector) => {
                let (directory, file) = (settings.directory(), settings.key_file(&id.domain, selector));
                let erased = spawn_blocking(move || erase_key(&directory, &file)).await;
                erased.map_err(|error| error.to_string())??;
                self.with(id, |rotation| rotation.on_erased(selector));
                return Ok(());
            }
            Task::Publish(_, record) => Change::Publish(record),
            Task::Revoke(_, record) => Change::Revoke(record),
            Task::Withdraw(_, record) => Change::Withdraw(record),
        };
        let (_, selector) = task.words();
        let provider = self.publisher(id).and_then(|name| {
            settings.providers.iter().find(|provider| provider.name.eq_ignore_ascii_case(&name))
        });
        let Some(provider) = provider else { return Err("there is no such provider".into()) };
        let name = owner(id, &selector).ok_or("no such name can be asked for")?;
        let domain = Name::parse(&id.domain).map_err(|error| error.to_string())?;
        let place = Place { domain: &domain, name: &name, now: now().secs() };
        let tls = self.fetching.load().tls.clone();
        let done =
            timeout(provider.timeout, provider::change(&self.door, provider, tls, place, change)).await;
        let done = done.unwrap_or_else(|_| Err(ChangeError::Silent("no answer in time".to_owned())));
        let counts = self.updates.entry(id.entry.clone()).or_default();
        match &done {
            Ok(()) => {
                counts.0 += 1;
                self.with(id, |rotation| rotation.on_done(&selector, now()));
            }
            Err(_) => counts.1 += 1,
        }
        done.map_err(|error| error.by(&provider.name))
    }

    fn publisher(&self, id: &RotationId) -> Option<Box<str>> {
        self.rotations.0.get(id)?.publisher.clone()
    }

    fn with(&mut self, id: &RotationId, change: impl FnOnce(&mut Rotation)) {
        if let Some(rotation) = self.rotations.0.get_mut(id) {
            change(rotation);
        }
    }

    fn failed(
        &mut self,
        settings: &RotationSettings,
        id: &RotationId,
        selector: &str,
        task: &'static str,
        error: &str,
    ) {
        if !self.troubles.failed(id, selector, (task, error), settings.rotation.interval) {
            return;
        }
        let name = format!("{selector}._domainkey.{}", id.domain);
        DkimRotationFailed { key: &id.entry, name: &name, task, error }.emit((self.inner.clock)().0);
    }

    /// Whether this was not told for a day.
    fn is_news(&mut self, what: &str) -> bool {
        self.told.retain(|_, at| at.elapsed() < TOLD_EVERY);
        if self.told.contains_key(what) {
            return false;
        }
        self.told.insert(what.to_owned(), Instant::now());
        true
    }

    fn phases(&self) -> BTreeMap<(RotationId, Box<str>), KeyPhase> {
        let keys = self.rotations.0.iter().flat_map(|(id, rotation)| {
            rotation.keys().iter().map(|key| ((id.clone(), key.selector.clone()), key.phase))
        });
        keys.collect()
    }
}

impl Task {
    /// Whether it is for a provider.
    const fn is_change(&self) -> bool {
        matches!(self, Self::Publish(..) | Self::Revoke(..) | Self::Withdraw(..))
    }

    fn of(order: Order<'_>) -> Self {
        let both = |key: &RotatedKey| (key.selector.clone(), key.record.clone());
        match order {
            Order::Make(selector) => Self::Make(selector.into()),
            Order::Erase(selector) => Self::Erase(selector.into()),
            Order::Publish(key) => {
                let (selector, record) = both(key);
                Self::Publish(selector, record)
            }
            Order::Revoke(key) => {
                let (selector, record) = both(key);
                Self::Revoke(selector, record)
            }
            Order::Withdraw(key) => {
                let (selector, record) = both(key);
                Self::Withdraw(selector, record)
            }
        }
    }

    fn words(&self) -> (&'static str, Box<str>) {
        match self {
            Self::Make(selector) => ("make", selector.clone()),
            Self::Publish(selector, _) => ("publish", selector.clone()),
            Self::Revoke(selector, _) => ("revoke", selector.clone()),
            Self::Withdraw(selector, _) => ("remove", selector.clone()),
            Self::Erase(selector) => ("erase", selector.clone()),
        }
    }
}

fn rules(settings: &RotationSettings, rotation: &Rotation, plan: Option<&Plan<'_>>) -> RotationRules {
    RotationRules {
        every: plan.and_then(|plan| plan.dkim.rotate).unwrap_or(Duration::MAX),
        settle: settings.rotation.settle,
        retire: settings.rotation.retire,
        revoke: settings.rotation.revoke,
        overdue: settings.rotation.overdue,
        publishing: publishing(settings, rotation),
    }
}

/// By a provider that the configuration has.
fn publishing(settings: &RotationSettings, rotation: &Rotation) -> Publishing {
    let by_provider = publishes(settings, rotation.publisher.as_deref());
    if by_provider { Publishing::Provider } else { Publishing::Hand }
}

fn publishes(settings: &RotationSettings, publisher: Option<&str>) -> bool {
    publisher.is_some_and(|name| settings.providers.iter().any(|one| one.name.eq_ignore_ascii_case(name)))
}

/// Where a key is published.
fn owner(id: &RotationId, selector: &str) -> Option<Name> {
    Name::parse(&format!("{selector}._domainkey.{}", id.domain)).ok()
}

async fn look_at(door: &Door, id: &RotationId, selector: &str) -> Look {
    let Some(name) = owner(id, selector) else { return Look::Unknown };
    let Ok(answer) = door.resolve_anew(Question { name, kind: Kind::Txt }).await else {
        return Look::Unknown;
    };
    match &answer.outcome {
        Outcome::Found(Records::Texts(texts)) => Look::Texts(texts.clone()),
        Outcome::NoData | Outcome::NxDomain => Look::Absent(answer.ttl),
        Outcome::Found(
            Records::Addresses(_) | Records::Exchanges(_) | Records::Names(_) | Records::Tlsa(_),
        )
        | Outcome::TempFail(_) => Look::Unknown,
    }
}

/// Makes a private key that nobody else can read, and answers with the record of it.
fn make_key(directory: &Path, file: &Path, kind: trust::KeyKind) -> io::Result<String> {
    let pem = trust::new_key(kind).map_err(io::Error::other)?;
    let record = trust::record(&pem).map_err(io::Error::other)?;
    if !directory.is_dir() {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        directory.parent().map_or(Ok(()), disk::sync_directory)?;
    }
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let made = rustix::fs::open(file, flags, Mode::from_raw_mode(0o600))?;
    disk::write_at(&made, pem.as_bytes(), 0)?;
    rustix::fs::fsync(&made)?;
    disk::sync_directory(directory)?;
    Ok(record)
}

/// Removes a private key, and does not have it back after a crash.
fn erase_key(directory: &Path, file: &Path) -> Result<(), String> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) => disk::sync_directory(directory),
        Err(error) => Err(error),
    }
    .map_err(|error| format!("{}: {error}", file.display()))
}

#[cfg(test)]
#[path = "keeper_test.rs"]
mod test;
