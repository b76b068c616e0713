//! `ringpost serve`: from the configuration to running shards and pool, and back to nothing.
//!
//! The order matters: the lock on the data directory before anything in it is touched, threads of other runtimes from
//! here and not from a shard (they would inherit its one CPU), the ports before the readiness is told.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::ErrorKind,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::Path,
    process::ExitCode,
    rc::Rc,
    sync::{Arc, atomic::AtomicU32},
    thread,
    time::Duration,
};

use admin::{Operations, ReloadRequest, UpgradeRequest};
use anyhow::{Context, anyhow, bail};
use arc_swap::ArcSwap;
use bridge::{
    Deliveries, Door, Egress, Failures, Indicators, PoliciesLimits, SourceView, Strangers, StsPolicies,
    Tenancy,
};
use config::{Config, ListenerTls, Loaded, Places};
use inject::Injections;
use mail::Timestamp;
use nix::{
    sched::{CpuSet, sched_getaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};
use pool::{AllCounts, KeyRotation, ReportsIn, TaskFiles};
use ring::{BindError, BoundListener, DirectoryLock, ListenOptions};
use shard::{Balance, Beside, Crowd, DiskBudget, Gate, Leases, ListenerSocket, RecoverError, Setup};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot, watch as watch_channel},
};
use watch::{
    ProcessMetrics, Registry,
    events::{Listening, Started},
    log,
};

use crate::{
    again, check,
    confine::confine,
    data,
    handover::{Estate, Predecessor},
    host::{self, Severity},
    indexes::{Holding, Indexes},
    keys,
    launcher::Launcher,
    notify::Notify,
    open, privileges,
    programs::Programs,
    reload::{Ours, Reloader},
    say::say,
    server::{Asked, Before, Cores, Ending, Server, Spares},
    sockets, strangers,
    tenants::Tenants,
    watch_files::Stamps,
};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Mail that waits for the pool to begin with it; more of it waits with its shard.
const DELIVERIES_WAITING_MAX: usize = 64;
/// Messages that failed and wait for the pool to tell of them; of more nobody is told.
const FAILURES_WAITING_MAX: usize = 64;

/// Whether there is a server already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// No.
    Alone,
    /// Yes: it has started this one, and hands over what it has.
    TakeOver,
}

/// Serves until told to stop.
pub(crate) fn serve(path: &Path, begin: Begin) -> anyhow::Result<ExitCode> {
    // First of all: their numbers are known, and are theirs alone as long as we have opened nothing.
    let handed = ring::inherited()?;
    if begin == Begin::Alone {
        return run(path, handed, None);
    }
    let (predecessor, lock, estate) = Predecessor::meet()?;
    let predecessor = Rc::new(RefCell::new(predecessor));
    let served = run(path, handed, Some((predecessor.clone(), lock, estate)));
    if let Err(error) = &served {
        // Once it has said go it does not hear this any more.
        predecessor.borrow().fail(error);
    }
    served
}

/// What is met at a take-over.
type Met = (Rc<RefCell<Predecessor>>, DirectoryLock, Estate);

fn run(path: &Path, handed: ring::Inherited, met: Option<Met>) -> anyhow::Result<ExitCode> {
    let loaded = open::loaded(path)?;
    let (config, places) = (Arc::new(loaded.config.clone()), &loaded.places);
    let launcher = config.upgrade.enabled.then(|| Launcher::start(path)).and_then(|started| {
        let told =
            |error| say(&format!("ringpost: warning: there will be no upgrade without a restart: {error:#}"));
        started.map_err(told).ok()
    });
    let programs = if config.programs.is_empty() {
        None
    } else {
        Some(Arc::new(Programs::start(path).context("cannot start the process that runs programs")?))
    };
    let notify = Notify::connect();
    let data_directory = || places.name("data-directory");
    let (predecessor, lock, estate) = match met {
        // What is there is in use. As long as we are root, nothing is touched in what belongs to the server's user.
        Some((predecessor, lock, estate)) => (Some(predecessor), lock, estate),
        None => {
            data::prepare(&config).with_context(data_directory)?;
            let lock = DirectoryLock::acquire(&config.data_directory).with_context(data_directory)?;
            (None, lock, Estate::default())
        }
    };
    data::settle_shards(&config).with_context(|| places.name("journal.shards"))?;
    raise_open_files();
    let started = ring::clock::unix_micros();
    let cpus = usable_cpus();
    let shards = config.cores.shards(cpus.len());
    let contradictions = loaded.contradictions(cpus.len());
    if !contradictions.is_empty() {
        bail!("the configuration cannot be used here:\n{}", open::lines(&contradictions));
    }
    let ours = Ours::new(&config);
    let stamps = Stamps::of(ours.files());
    let papers = ours.papers(None).map_err(|error| error.placed(&loaded))?;
    let snapshot = ours.snapshot(config.clone(), &papers)?;
    let fetching = Arc::new(ArcSwap::from_pointee(ours.policy_fetching(&papers)?));
    let indicator_fetching = Arc::new(ArcSwap::from_pointee(ours.indicators(&fetching.load(), &papers)));
    let tls_reporting = Arc::new(ArcSwap::from_pointee(ours.tls_reporting(&fetching.load())?));
    let dmarc_reporting = Arc::new(ArcSwap::from_pointee(ours.dmarc_reporting()?));
    let failure_reporting = Arc::new(ArcSwap::from_pointee(ours.failure_reporting()?));
    let checking = Arc::new(ArcSwap::from_pointee(ours.checking_by(config.clone(), &papers)?));
    let (deliverability, to_check) = admin::Deliverability::new();
    let report_now = admin::ReportNow::default();
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
    let begin = if predecessor.is_some() { Begin::TakeOver } else { Begin::Alone };
    let Estate { listeners, http } = estate;
    let (mut sockets, bequest) = bind(&config, places, shards, (handed, listeners))?;
    // Ids belong to threads: there must be none but this one yet.
    privileges::drop(&config, places, begin)?;
    let confinement = confine(&config, path)?;
    let log = log::start(log_options(&config, ours.log_levels.clone()))
        .with_context(|| places.name("log.output"))?;
    tell_start(path, &loaded, shards, cpus.len())?;
    confinement.tell();

    let listening = listening(&config, &sockets);
    let registry = Arc::new(Registry::new());
    registry.install();
    let process = Arc::new(registry.process(VERSION, started));
    let (door, hatches) = Door::new(shards, bridge::Limits::default());
    let (requests, reloads) = admin::reload_requests();
    let tenancy = Tenants::new(&config);
    let (budget, crowd) = (DiskBudget::new(ours.disk_max), Crowd::new(ours.clients_tracked_max));
    let (rendered, used, counted) = (registry.clone(), budget.clone(), process.clone());
    let clients = crowd.clone();
    let told = tenancy.teller(&registry, &snapshot, clock);
    let known = Strangers::default();
    ours.strangers_limits.apply(&known);
    let database_stamps = ours.database_stamps();
    known.set_systems(ours.systems().with_context(|| places.name("reputation.asn-database"))?);
    let of_strangers = known.clone();
    let rotations = admin::Rotations::default();
    let of_keys = rotations.clone();
    let metrics = Arc::new(move || {
        told();
        keys::tell(&of_keys, &rendered);
        strangers::tell(&of_strangers, &rendered);
        counted.set_disk(used.taken(), used.max());
        counted.set_clients_tracked(clients.tracked());
        rendered.render()
    });
    let (wishes, upgrades) = admin::upgrade_requests();
    let egress = Egress::default();
    let sources = {
        let (snapshot, egress) = (snapshot.clone(), egress.clone());
        Arc::new(move || shard::sources(&snapshot.load().config, &egress, clock()))
    };
    let shown: Shown = (metrics, sources);
    let operations = operations(
        &config,
        &door,
        shown,
        &listening,
        (requests, wishes, report_now.clone()),
        (
            tenancy.facts(&snapshot),
            strangers::facts(&known, &snapshot),
            rotations.clone(),
            deliverability.clone(),
        ),
    );
    operations.set_token(ours.token.clone());
    let rotation = KeyRotation::new(ours.rotation.clone(), rotations, clock);
    let (to_sign, signing) = mpsc::channel(1);
    let injections = Injections::new(door.clone(), &config, registry.http(inject::STATUSES), clock);
    let unsubscribing = Arc::new(ArcSwap::from_pointee(ours.unsubscribing.clone()));
    let unsubscribe =
        pool::unsubscribe(tenancy.known(), unsubscribing.clone(), registry.unsubscribe(), clock);
    let counted = registry.reports_in(pool::UNREAD_REASONS);
    let reports_in = Arc::new(ArcSwap::from_pointee(ours.reports_in.clone()));
    let reports = ReportsIn::new(&config.data_directory, door.clone(), counted, reports_in.clone(), clock);
    operations.set_reports(reports.shelf());
    let services = (&operations, &injections, unsubscribe, reports.posts());
    let mut pool = start_pool(&config, http, services, &registry, &process)
        .map_err(|error| misplaced(&loaded, error))?;
    let holding = hold(&config, shards, predecessor.as_deref(), &notify)?;
    let indexes = Indexes::open(&config, &holding)?;

    let mut journals = indexes.journals(&holding, &budget)?;
    if budget.taken() > budget.max() {
        tracing::warn!(
            "{}: {}, but segments take {} bytes: no segment is made until enough of it has ended",
            places.name("journal.disk-max"),
            config::size_text(budget.max()),
            budget.taken()
        );
    }
    // Before any segment is made here.
    let disk = match &predecessor {
        Some(predecessor) => indexes.elsewhere(&predecessor.borrow().journals, &budget)?,
        None => BTreeMap::new(),
    };
    let policies = policies(&config, &pool, &fetching);
    let (indicators, to_fetch) = Indicators::new();
    let shelf = indicators.shelf();
    pool.fetch_indicators(to_fetch, indicator_fetching.clone(), registry.bimi_fetches(), clock);
    let (deliveries, to_deliver) = Deliveries::new(DELIVERIES_WAITING_MAX);
    let runs_programs = programs.clone().map(|programs| programs as Arc<dyn pool::Programs>);
    let (failures, to_tell) = Failures::new(FAILURES_WAITING_MAX);
    let (told, door_of_told) = (failure_reporting.clone(), door.clone());
    let place = (&*config.data_directory, clock as fn() -> Timestamp);
    pool.report_failures(to_tell, door_of_told, told, registry.dmarc_failures(), place);
    pool.deliver(to_deliver, runs_programs, fetching.clone(), reports);
    let (tenancy, keeper) = tenancy.keep(clock)?;
    let strangers_keeper = pool::keep_strangers(&config.data_directory, known.clone(), clock)
        .with_context(|| format!("{}: what is known of strangers", config.data_directory.display()))?;
    let counts = AllCounts::new(&config.data_directory, clock);
    let still_sends = predecessor.as_ref().is_some_and(|before| !before.borrow().journals.is_empty());
    // What the one before has, it still counts.
    if !still_sends {
        pool.runtime().block_on(counts.take_over());
    }
    pool.report_tls(door.clone(), tls_reporting.clone(), report_now.tls, counts.tls.clone());
    pool.report_dmarc(door.clone(), dmarc_reporting.clone(), report_now.dmarc, counts.dmarc.clone());
    let looked_at = (deliverability, to_check);
    pool.check_deliverability(door.clone(), checking.clone(), looked_at, registry.clone(), clock);
    let warm_ups = pool::warm_up_file(&config.data_directory);
    pool::read_warm_ups(&warm_ups, &egress);
    if still_sends {
        egress.begin_beside();
    }
    pool.keep_warm_ups(egress.clone(), warm_ups.clone());
    let task_files = TaskFiles::new(&config.data_directory, operations.tasks(), clock);
    pool.runtime().block_on(async {
        if still_sends {
            task_files.begin_beside().await;
        } else {
            task_files.take_over(&door).await;
        }
    });
    pool.keep_tasks(task_files.clone());
    let mut leases = Leases::of_host(shards);
    let sharing = leases[0].sharing();
    if still_sends {
        sharing.set(Beside::Older);
    }
    let mut balance = Balance::of_host(shards);
    // Whoever takes over from another takes nobody in before its word.
    let gate = watch_channel::Sender::new(match predecessor {
        Some(_) => Gate::Closed,
        None => Gate::Open,
    });
    if predecessor.is_none() {
        pool.listen().map_err(|error| misplaced(&loaded, error))?;
        pool.open();
    }
    let (ended, mut endings) = mpsc::unbounded_channel();
    let (mut waiting, mut heirs) = (Vec::new(), Vec::new());
    for (number, hatch) in hatches.into_iter().enumerate() {
        let (serving, served) = oneshot::channel();
        let (heir, adoptions) = mpsc::channel(usize::from(config.journal.shards));
        heirs.push(heir);
        let setup = Setup {
            number,
            shards,
            snapshot: snapshot.clone(),
            listeners: sockets.remove(0),
            journals: journals.remove(0),
            leases: leases.remove(0),
            crowd: crowd.clone(),
            balance: balance.remove(0),
            neighbours: door.neighbours(),
            policies: policies.clone(),
            indicators: indicators.clone(),
            deliveries: deliveries.clone(),
            failures: failures.clone(),
            tenancy: tenancy.clone(),
            strangers: known.clone(),
            egress: egress.clone(),
            metrics: registry.shard(number, &refusals()),
            hatch,
            index: indexes.orders(),
            gate: gate.subscribe(),
            adoptions,
        };
        start_shard(&config, &cpus, setup, serving, ended.clone())?;
        waiting.push(served);
    }
    // The errands end when no shard has any.
    drop((ended, policies, indicators, deliveries, failures));
    let served = pool.runtime().block_on(async {
        for served in waiting {
            if served.await.is_err() {
                let reason = endings.recv().await.and_then(|ending: Ending| ending.failure);
                return Err(reason.unwrap_or_else(|| "a shard ended".to_owned()));
            }
        }
        Ok(())
    });
    if let Err(reason) = served {
        bail!("cannot start: {reason}");
    }
    // Before anybody is told that we serve, and may send one.
    let signals = {
        let _inside = pool.runtime().enter();
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        signals([kinds[0], kinds[1], kinds[2], SignalKind::user_defined2()])
            .context("signals cannot be received")?
    };
    let before = match &predecessor {
        Some(predecessor) => {
            // Journal shards that it has are still to come; where there are none, it has ended.
            let still_there = !predecessor.borrow().journals.is_empty();
            if still_there {
                predecessor.borrow().ready(VERSION)?;
            }
            // All that can go wrong comes before the word: until then the old one would go on.
            pool.listen().map_err(|error| misplaced(&loaded, error))?;
            let mut before =
                still_there.then(|| Before::new(predecessor, disk, (&operations, &process))).transpose()?;
            lock.sign();
            // Whoever watches the process knows the new one before the old one can end.
            notify.ready();
            if let Some(before) = &mut before {
                // If it turns out that nobody waits any more, whoever watches learns who the server is.
                before.serving().inspect_err(|_| notify.is_of(before.pid()))?;
            }
            gate.send_replace(Gate::Open);
            pool.open();
            before
        }
        None => {
            notify.ready();
            None
        }
    };
    // Once this one serves: until then another may.
    pool.rotate_keys(rotation.clone(), door.clone(), fetching.clone(), to_sign);
    announce(path, &config, &listening, (pool.http_addresses(), pool.mail_addresses()));

    let reloader = Reloader {
        path,
        shards,
        started: config,
        ours,
        papers,
        stamps,
        next_look: Cell::new(tokio::time::Instant::now()),
        snapshot,
        programs,
        policies: fetching,
        indicators: indicator_fetching,
        shelf,
        tls_reporting,
        dmarc_reporting,
        database_stamps,
        database_refused: false,
        failure_reporting,
        rotation,
        reports_in,
        checking,
        tenancy,
        strangers: known,
        unsubscribing,
        budget: budget.clone(),
        crowd,
        door: &door,
        operations: &operations,
        injections: &injections,
        log: &log,
    };
    let estate = Estate { listeners: bequest, http: pool.listening()? };
    let mut server = Server {
        reloader,
        process: &process,
        notify: &notify,
        pool: &pool,
        indexes: &indexes,
        budget: &budget,
        heirs,
        holding,
        lock: &lock,
        launcher,
        estate,
        gate,
        before,
        cores: Cores::all(shards),
        strays: None,
        spares: Spares::new(),
        counts,
        warm_ups: (warm_ups.clone(), egress.clone()),
        sharing,
        task_files: task_files.clone(),
        adopting: Vec::new(),
    };
    let asked = Asked { reloads, upgrades, signing };
    let end = pool.runtime().block_on(server.attend(signals, asked, &mut endings));
    let Server { holding, .. } = server;
    // The shards end when nobody can ask them any more.
    drop((operations, injections, door));
    pool.stop(Duration::from_secs(1));
    while endings.blocking_recv().is_some() {}
    keeper.end(Duration::from_secs(5));
    strangers_keeper.end();
    pool::write_warm_ups(&warm_ups, &egress);
    task_files.write();
    indexes.close();
    // From here on they are whoever's who wants them.
    drop(holding);
    let code = end.finish();
    log.flush();
    Ok(code)
}

/// The journal shards that this process begins with.
fn hold(
    config: &Config,
    shards: usize,
    predecessor: Option<&RefCell<Predecessor>>,
    notify: &Notify,
) -> anyhow::Result<Holding> {
    const TOO_FEW: &str = "fewer journal shards than cores";
    let Some(predecessor) = predecessor else {
        return Holding::choose(config, shards, &BTreeSet::new())?.context(TOO_FEW);
    };
    let mut predecessor = predecessor.borrow_mut();
    if let Some(holding) = Holding::choose(config, shards, &predecessor.journals)? {
        return Ok(holding);
    }
    tracing::warn!(
        "the server before this one has {} of {} journal shards, which leaves too few for {shards} cores: it ends \
         first, and clients wait for that time",
        predecessor.journals.len(),
        config.journal.shards,
    );
    predecessor.outwait(VERSION, || notify.is_ours())?;
    Holding::choose(config, shards, &BTreeSet::new())?.context(TOO_FEW)
}

fn signals<const N: usize>(kinds: [SignalKind; N]) -> std::io::Result<[Signal; N]> {
    let mut signals = Vec::with_capacity(N);
    for kind in kinds {
        signals.push(signal(kind)?);
    }
    signals.try_into().map_err(|_| std::io::ErrorKind::Other.into())
}

fn tell_start(path: &Path, loaded: &Loaded, shards: usize, cpus: usize) -> anyhow::Result<()> {
    let data = loaded.config.data_directory.display().to_string();
    Started {
        version: VERSION,
        pid: std::process::id(),
        shards,
        data: &data,
        config: &path.display().to_string(),
    }
    .emit(ring::clock::unix_micros());
    let again = again::unreadable(path, &loaded.config);
    for finding in host::findings(&check::needs(loaded)).into_iter().chain(again) {
        let text = finding.place(&loaded.places);
        match finding.severity {
            Severity::Error => bail!("{text}"),
            Severity::Warning => tracing::warn!("{text}"),
        }
    }
    for warning in loaded.warnings(cpus) {
        tracing::warn!("{}: {}", loaded.places.name(&warning.key), warning.text);
    }
    Ok(())
}

/// The sockets of each shard, and copies of all of them by address for whoever takes over from this server.
type Bound = (Vec<Vec<ListenerSocket>>, BTreeMap<String, Vec<BoundListener>>);

/// Binds every listener once for each shard, but for those that somebody has opened before; the kernel spreads
/// connections over them.
fn bind(
    config: &Config,
    places: &Places,
    shards: usize,
    (mut systemd, mut before): (ring::Inherited, BTreeMap<String, Vec<BoundListener>>),
) -> anyhow::Result<Bound> {
    let named = |listener: &config::Listener| {
        format!("{}: listener `{}`", places.name(&check::address_key(listener)), listener.name)
    };
    let mut patience = Patience::new();
    for listener in &config.listeners {
        for address in &listener.address {
            if let config::ListenAddress::Tcp(tcp) = address
                && !before.contains_key(&address.to_string())
            {
                try_port(*tcp, &mut patience).with_context(|| named(listener))?;
            }
        }
    }
    let mut bound: Vec<Vec<ListenerSocket>> = (0..shards).map(|_| Vec::new()).collect();
    let mut copies = BTreeMap::new();
    for listener in &config.listeners {
        let open = Arc::new(AtomicU32::new(0));
        let unix = sockets::unix_access(config, listener)?;
        let options = ListenOptions { backlog: listener.backlog, unix, ..ListenOptions::default() };
        for address in &listener.address {
            let from_before = before.remove(&address.to_string());
            let is_from_before = from_before.is_some();
            let first = match (from_before, address) {
                (Some(sockets), _) => sockets,
                (None, config::ListenAddress::Systemd(name)) => systemd
                    .remove(name)
                    .ok_or_else(|| {
                        anyhow!("systemd has handed over no socket named `{name}`; see deploy/README.md")
                    })
                    .with_context(|| named(listener))?,
                (None, config::ListenAddress::Tcp(address)) => {
                    vec![
                        BoundListener::bind(&ring::ListenAddress::Tcp(*address), &options)
                            .with_context(|| named(listener))?,
                    ]
                }
                (None, config::ListenAddress::Unix(path)) => {
                    let address = ring::ListenAddress::Unix(path.clone());
                    vec![BoundListener::bind(&address, &options).with_context(|| named(listener))?]
                }
            };
            // Of a port of ours each shard has a socket of its own, but not before the server that has the others has
            // said go: the kernel would send it clients at once. Otherwise whoever is first accepts.
            let is_own = matches!(address, config::ListenAddress::Tcp(_)) && !is_from_before;
            let sockets = if is_own { one_each(first, shards, &options)? } else { first };
            for place in 0..shards.max(sockets.len()) {
                // Some sockets for each shard, and some shards for each socket.
                let is_shared = !matches!(address, config::ListenAddress::Tcp(_));
                let of_place = if is_shared {
                    &sockets[..]
                } else {
                    std::slice::from_ref(&sockets[place % sockets.len()])
                };
                for socket in of_place {
                    let (listener, open) = (listener.name.clone(), open.clone());
                    bound[place % shards].push(ListenerSocket {
                        listener,
                        socket: socket.try_clone()?,
                        open,
                    });
                }
            }
            copies.entry(address.to_string()).or_insert_with(Vec::new).extend(sockets);
        }
    }
    for name in systemd.keys() {
        say(&format!(
            "ringpost: warning: no listener is for the socket `{name}` of systemd (address \"systemd:{name}\")"
        ));
    }
    Ok((bound, copies))
}

/// As many sockets of a port as there are shards.
fn one_each(
    mut sockets: Vec<BoundListener>,
    shards: usize,
    options: &ListenOptions,
) -> anyhow::Result<Vec<BoundListener>> {
    // The port as bound: a configured 0 is the kernel's choice, and the same for all.
    if let Some(bound) = sockets.first().and_then(BoundListener::tcp_address) {
        while sockets.len() < shards {
            sockets.push(BoundListener::bind(&ring::ListenAddress::Tcp(bound), options)?);
        }
    }
    Ok(sockets)
}

/// How long a start waits for ports. A server that was killed keeps its ports for a moment longer than its process:
/// the kernel takes its rings down behind it, and who is started again at once must not fail for that.
pub(crate) struct Patience {
    tries: u32,
}

impl Patience {
    const PAUSE: Duration = Duration::from_millis(50);

    pub(crate) const fn new() -> Self {
        Self { tries: 60 }
    }

    /// Waits a little, unless it is at its end.
    fn wait(&mut self) -> bool {
        let left = self.tries > 0;
        if left {
            self.tries -= 1;
            thread::sleep(Self::PAUSE);
        }
        left
    }
}

/// Binds and lets go again. Shards share each port (SO_REUSEPORT), and another server of the same user could join them
/// and take a part of the mail: whether somebody is there shows only when we do not share.
pub(crate) fn try_port(address: SocketAddr, patience: &mut Patience) -> Result<(), BindError> {
    let alone = ListenOptions { reuse_port: false, ..ListenOptions::default() };
    loop {
        match BoundListener::bind(&ring::ListenAddress::Tcp(address), &alone) {
            Err(error) if error.error.kind() == ErrorKind::AddrInUse && patience.wait() => {}
            bound => return bound.map(drop),
        }
    }
}

/// Name and address of every listener, as bound.
fn listening(config: &Config, sockets: &[Vec<ListenerSocket>]) -> Vec<(String, String, ListenerTls)> {
    let tls = |name: &str| {
        config.listeners.iter().find(|listener| listener.name == name).map_or(ListenerTls::None, |l| l.tls)
    };
    let first = sockets.first().into_iter().flatten();
    first.map(|s| (s.listener.clone(), s.socket.address().to_string(), tls(&s.listener))).collect()
}

/// What is shown of the program as a whole: metrics and sources.
type Shown = (Arc<dyn Fn() -> String + Send + Sync>, Arc<dyn Fn() -> Vec<SourceView> + Send + Sync>);

fn operations(
    config: &Config,
    door: &Door,
    (metrics, sources): Shown,
    listening: &[(String, String, ListenerTls)],
    (reloads, upgrades, report_now): (
        mpsc::Sender<ReloadRequest>,
        mpsc::Sender<UpgradeRequest>,
        admin::ReportNow,
    ),
    ((tenancy, knows_tenant), (strangers, reputation_rules), rotations, deliverability): (
        (Tenancy, admin::KnowsTenant),
        strangers::StrangersFacts,
        admin::Rotations,
        admin::Deliverability,
    ),
) -> Operations {
    let facts = admin::Facts {
        version: VERSION,
        started_at: clock(),
        data_dir: config.data_directory.clone(),
        listeners: listening
            .iter()
            .map(|(name, address, _)| admin::Listener { name: name.clone(), address: address.clone() })
            .collect(),
        clock,
        metrics,
        reloads,
        upgrades,
        sources,
        report_now,
        tenancy,
        knows_tenant,
        strangers,
        reputation_rules,
        rotations,
        deliverability,
    };
    Operations::new(door.clone(), facts)
}

fn start_pool(
    config: &Config,
    listening: Vec<OwnedFd>,
    (operations, injections, unsubscribe, posts): (&Operations, &Injections, pool::Router, pool::Router),
    registry: &Arc<Registry>,
    process: &Arc<ProcessMetrics>,
) -> Result<pool::Handle, pool::StartError> {
    let options = pool::Options {
        worker_threads: pool::worker_threads_default(),
        http: config.http.address.clone(),
        mail: config.http.mail_address.clone(),
        unsubscribe: config.unsubscribe.address.clone(),
        reports: config.reports_in.http_address.clone(),
        control_socket: config.data_directory.join(admin::CONTROL_SOCKET),
        listening,
        limits: pool::Limits::default(),
    };
    let services = pool::Services {
        guarded: operations
            .guarded()
            .merge(injections.router())
            .merge(unsubscribe.clone())
            .merge(posts.clone()),
        mail: injections.alone().merge(unsubscribe.clone()).merge(posts.clone()),
        unsubscribe,
        reports: posts,
        everything: operations.everything(),
        registry: registry.clone(),
        process: process.clone(),
    };
    pool::start(options, services)
}

/// What domains say of the TLS of their hosts: what an earlier process knew, and whoever fetches more.
fn policies(
    config: &Config,
    pool: &pool::Handle,
    fetching: &Arc<ArcSwap<pool::PolicyFetching>>,
) -> StsPolicies {
    const ERRANDS_MAX: usize = 256;
    let domains_max = usize::try_from(config.mta_sts.policies_max).unwrap_or(usize::MAX);
    let limits = PoliciesLimits { domains_max, ..PoliciesLimits::default() };
    let (policies, desk) = StsPolicies::new(limits, ERRANDS_MAX);
    let file = pool::policy_file(&config.data_directory);
    pool::read_policies(&file, &desk.counter(), clock());
    pool.fetch_policies(desk, fetching.clone(), file, clock);
    policies
}

/// A pool that cannot be started, with the key that has to do with it.
fn misplaced(loaded: &Loaded, error: pool::StartError) -> anyhow::Error {
    let key = match &error {
        pool::StartError::Control(_) => "data-directory",
        pool::StartError::Listen(_) => "http.address",
        pool::StartError::ListenForMail(_) => "http.mail-address",
        pool::StartError::ListenForUnsubscribe(_) => "unsubscribe.address",
        pool::StartError::ListenForReports(_) => "reports-in.http-address",
        pool::StartError::Runtime(_) => return error.into(),
    };
    anyhow::Error::from(error).context(loaded.places.name(key))
}

fn clock() -> Timestamp {
    Timestamp(ring::clock::unix_micros())
}

fn refusals() -> Vec<&'static str> {
    smtp::Refusal::ALL.iter().map(|refusal| refusal.label()).collect()
}

/// Starts a shard on its CPU; when its thread has ended, `ended` is told.
fn start_shard(
    config: &Config,
    cpus: &[usize],
    setup: Setup,
    serving: oneshot::Sender<()>,
    ended: mpsc::UnboundedSender<Ending>,
) -> anyhow::Result<()> {
    let number = setup.number;
    let mut options = ring::Options::new(format!("shard-{number}"));
    options.cpu = if config.cores.pin {
        let chosen: Vec<usize> = config.cores.cpus.iter().map(|cpu| usize::from(*cpu)).collect();
        let cpus = if chosen.is_empty() { cpus } else { &chosen };
        // More shards than CPUs share them in turn.
        cpus.get(number % cpus.len().max(1)).copied()
    } else {
        None
    };
    options.ring_depth = config.ring.depth as usize;
    options.io_memory = usize::try_from(config.ring.io_memory).unwrap_or(usize::MAX);
    options.spin = config.ring.spin;
    options.data_directory = Some(config.data_directory.clone());
    options.on_stall = Some(Box::new(move |time| {
        watch::events::Stalled { shard: number, time }.emit(ring::clock::unix_micros());
    }));
    let handle = ring::start(options, move || shard::run(setup, serving))?;
    thread::Builder::new().name(format!("watch-{number}")).spawn(move || {
        let failure = match handle.join() {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(describe(number, &error)),
            Err(stopped) => Some(format!("shard {number} {stopped}")),
        };
        // Nobody listens only when the process ends anyway.
        let _ = ended.send(Ending { core: number, failure });
    })?;
    Ok(())
}

fn describe(number: usize, error: &RecoverError) -> String {
    format!("shard {number} cannot read its journal: {error}")
}

/// Says where the server is and what to try next.
fn announce(
    path: &Path,
    config: &Config,
    listening: &[(String, String, ListenerTls)],
    (http, mail_by_http): (&[SocketAddr], &[SocketAddr]),
) {
    let now = ring::clock::unix_micros();
    let mut text = format!("\nringpost {VERSION} serves {} on\n", config.hostname);
    for (name, address, tls) in listening {
        Listening { listener: name, address }.emit(now);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<12} {address:<24} TLS: {tls}");
    }
    for address in http {
        let _ = writeln!(text, "  {:<12} http://{address}", "http");
    }
    for address in mail_by_http {
        let _ = writeln!(text, "  {:<12} http://{address}/api/v1/messages", "http, mail");
    }
    let _ = writeln!(text, "and keeps its queue under {}.", config.data_directory.display());
    let mail = listening.iter().find(|(_, _, tls)| *tls != ListenerTls::Implicit);
    let port = mail.and_then(|(_, address, _)| address.rsplit(':').next()).unwrap_or("25");
    let path = path.display();
    let _ = writeln!(text, "\nTry, in another terminal:");
    let _ = writeln!(text, "  make load");
    let _ = writeln!(
        text,
        "  swaks --server 127.0.0.1:{port} --from you@example.org --to someone@loadtest.invalid"
    );
    let _ = writeln!(text, "  ringpost queue summary --config {path}");
    if let Some(address) = http.first() {
        let _ = writeln!(text, "  curl -s http://{address}/metrics");
    }
    say(&text);
}

/// The CPUs this process may use, in order.
pub(crate) fn usable_cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0));
    let usable = |set: CpuSet| (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect();
    let cpus: Vec<usize> = set.map(usable).unwrap_or_default();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// The soft limit of open files is there for programs that use select(2); we do not.
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // `check` says so if it is still too low.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn log_options(config: &Config, levels: log::Levels) -> log::Options {
    log::Options {
        format: match config.log.format {
            config::LogFormat::Text => log::Format::Text,
            config::LogFormat::Json => log::Format::Json,
        },
        output: match &config.log.output {
            config::Output::Stdout => log::Output::Stdout,
            config::Output::Stderr => log::Output::Stderr,
            config::Output::File(path) => log::Output::File(path.clone()),
        },
        levels,
        buffer_bytes_max: usize::try_from(config.log.buffer).unwrap_or(usize::MAX),
        clock: ring::clock::unix_micros,
    }
}
