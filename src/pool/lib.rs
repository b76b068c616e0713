//! The tokio side: listeners, TLS, HTTP plumbing for the rooms above.
//!
//! Started by the main thread, before any shard: a thread started from a pinned one would share its
//! CPU. Whatever happens here, mail goes on: a panic ends one connection, a full pool refuses people.

mod allowance;
mod counts;
mod daily;
mod deliver;
mod deliverability;
mod disk;
mod dmarc_counts;
mod dmarc_reports;
mod durably;
mod egress;
mod failure_ledger;
mod failure_reports;
mod http;
mod https;
mod indicators;
mod listen;
mod mail_host;
mod policies;
mod programs;
mod reports_in;
mod rotation;
mod services;
mod strangers;
mod stub;
mod suppression;
mod tasks;
mod tls_counts;
mod tls_reports;
mod unsubscribe;
mod usage;

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
pub use axum::Router;
use bridge::{Door, FailureDesk, IndicatorDesk, PolicyDesk, PoolErrand};
use mail::Timestamp;
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::{self, Runtime},
    sync::{
        Notify, mpsc,
        watch::{self as signal, Sender},
    },
    task::JoinSet,
};
use watch::{BimiFetchMetrics, DmarcFailureMetrics, ProcessMetrics, Registry};

pub use allowance::{FailureRates, Rate};
pub use counts::AllCounts;
pub use deliverability::{Asking, Checking, check_domain};
pub use dmarc_counts::DmarcCounts;
pub use dmarc_reports::DmarcReporting;
pub use egress::{read_warm_ups, take_over_warm_ups, warm_up_file, write_warm_ups};
pub use failure_reports::FailureReporting;
pub use indicators::{IndicatorFetching, WebServers};
pub use listen::ListenError;
pub use policies::{PolicyFetching, policy_file, read_policies};
pub use programs::{ProgramEnd, ProgramRun, Programs};
pub use report::received::Limits as ReportLimits;
pub use report::{Redactor, Shown};
pub use reports_in::{ReportsIn, ReportsInOptions, UNREAD_REASONS};
pub use rotation::{KeyFlaw, KeyRotation, RotationSettings, SigningRequest, check_provider, read_key};
pub use strangers::{StrangersKeeper, keep_strangers};
pub use stub::Stub;
pub use suppression::{Keeper, Suppression};
pub use tasks::TaskFiles;
pub use tls_counts::TlsCounts;
pub use tls_reports::TlsReporting;
pub use unsubscribe::{Unsubscribing, is_one_click, unsubscribe};

/// How the pool is to be.
#[derive(Debug)]
pub struct Options {
    /// Threads of the runtime.
    pub worker_threads: usize,
    /// Where HTTP is served to monitoring, and to whoever has the token.
    pub http: Vec<SocketAddr>,
    /// Where mail is taken in by HTTP, and nothing else is served.
    pub mail: Vec<SocketAddr>,
    /// Where recipients leave lists, and nothing else is served.
    pub unsubscribe: Vec<SocketAddr>,
    /// Where reports on TLS are posted, and nothing else is served.
    pub reports: Vec<SocketAddr>,
    /// Where everything is served to our own user.
    pub control_socket: PathBuf,
    /// Sockets that listen already: one that has an address of those above is taken in place of a new one.
    pub listening: Vec<OwnedFd>,
    /// Upper bounds.
    pub limits: Limits,
}

/// Upper bounds. Everything has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one listener; more wait in its backlog.
    pub connections_max: usize,
    /// How long a client may take for the head of a request, and be idle between two.
    pub head_max: Duration,
    /// How long a request may take.
    pub request_max: Duration,
}

/// What the pool serves and looks after.
#[derive(Debug)]
pub struct Services {
    /// For the TCP port.
    pub guarded: Router,
    /// For the ports that take mail in.
    pub mail: Router,
    /// For the ports at which recipients leave lists.
    pub unsubscribe: Router,
    /// For the ports at which reports on TLS are posted.
    pub reports: Router,
    /// For the control socket.
    pub everything: Router,
    /// The metrics, which want upkeep.
    pub registry: Arc<Registry>,
    /// The process's own, measured now and then.
    pub process: Arc<ProcessMetrics>,
}

/// The pool cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener for HTTP.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A listener for mail by HTTP.
    #[error(transparent)]
    ListenForMail(ListenError),
    /// A listener for those who leave lists.
    #[error(transparent)]
    ListenForUnsubscribe(ListenError),
    /// A listener for reports on TLS.
    #[error(transparent)]
    ListenForReports(ListenError),
    /// The control socket.
    #[error(transparent)]
    Control(ListenError),
    /// The runtime.
    #[error(
        "cannot start the threads of the pool: {0}; look at the limit of processes (ulimit -u, TasksMax)"
    )]
    Runtime(io::Error),
}

/// The running pool. Dropping it ends what is under way at once; [`Handle::stop`] lets it finish.
#[derive(Debug)]
pub struct Handle {
    runtime: Runtime,
    listeners: Mutex<JoinSet<()>>,
    stop: Sender<Stage>,
    limits: Limits,
    /// Bound, and not served yet.
    waiting: Vec<(TcpListener, Router)>,
    everything: Router,
    control: Mutex<Control>,
    http: Vec<SocketAddr>,
    mail: Vec<SocketAddr>,
    /// The sockets of both, for somebody else to serve.
    listening: Mutex<Vec<OwnedFd>>,
    connections: Arc<AtomicU64>,
    /// Listeners that still take connections.
    taking: Arc<AtomicU64>,
    control_socket: PathBuf,
    /// Whether the path of the control socket is ours, and not that of another process.
    has_control: AtomicBool,
}

/// The control socket.
#[derive(Debug)]
enum Control {
    /// Nobody listens.
    Closed,
    /// Whoever asks waits.
    Listening(UnixListener, listen::FileId),
    /// The file is ours as long as it is this one.
    Served(listen::FileId),
}

/// What the pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Serving,
    /// Another process has the ports. Who is here has a moment for a request.
    Leaving,
    Stopping,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            head_max: Duration::from_secs(10),
            // An upgrade may take that long: what is let go for it, `upgrade.start-max`, the word.
            request_max: Duration::from_secs(180),
        }
    }
}

/// Starts the threads and binds every port; [`Handle::listen`] and [`Handle::open`] begin to serve. Call it from the main thread.
///
/// # Errors
/// [`StartError`]; its text names the address and what to do.
pub fn start(options: Options, services: Services) -> Result<Handle, StartError> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(options.worker_threads.max(1))
        .thread_name("pool")
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let entered = runtime.enter();
    let (mut waiting, mut listening, mut handed) = (Vec::new(), Vec::new(), options.listening);
    let mut bind = |addresses: Vec<SocketAddr>, router: &Router| {
        let mut bound = Vec::with_capacity(addresses.len());
        for address in addresses {
            let wrong = |error| ListenError::new(address, error);
            let listener = match listen::take(&mut handed, address) {
                Some(socket) => TcpListener::from_std(socket.into()).map_err(wrong)?,
                None => listen::tcp(address)?,
            };
            bound.push(listener.local_addr().map_err(wrong)?);
            listening.push(listener.as_fd().try_clone_to_owned().map_err(wrong)?);
            waiting.push((listener, router.clone()));
        }
        Ok::<_, ListenError>(bound)
    };
    let http = bind(options.http, &services.guarded)?;
    let mail = bind(options.mail, &services.mail).map_err(StartError::ListenForMail)?;
    bind(options.unsubscribe, &services.unsubscribe).map_err(StartError::ListenForUnsubscribe)?;
    bind(options.reports, &services.reports).map_err(StartError::ListenForReports)?;
    runtime.spawn(upkeep(services.registry, services.process));
    drop(entered);
    Ok(Handle {
        runtime,
        listeners: Mutex::default(),
        stop: signal::Sender::new(Stage::Serving),
        limits: options.limits,
        waiting,
        everything: services.everything,
        control: Mutex::new(Control::Closed),
        http,
        mail,
        listening: Mutex::new(listening),
        connections: Arc::default(),
        taking: Arc::default(),
        control_socket: options.control_socket,
        has_control: AtomicBool::new(false),
    })
}

impl Handle {
    /// Listens on the control socket, in the place of whoever did before: who asks waits for [`Handle::open`].
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn listen(&self) -> Result<(), StartError> {
        let _entered = self.runtime.enter();
        let (control, file) = listen::control(&self.control_socket).map_err(StartError::Control)?;
        *lock(&self.control) = Control::Listening(control, file);
        self.has_control.store(true, Relaxed);
        Ok(())
    }

    /// Begins to serve. The second call has nothing to do.
    pub fn open(&mut self) {
        for (listener, router) in std::mem::take(&mut self.waiting) {
            self.serve(listener, router);
        }
        self.serve_control();
    }

    /// Sees to it that the control socket is this process's: another that was to take over may have put its own in the
    /// place, and has ended.
    ///
    /// # Errors
    /// When it cannot be made anew.
    pub fn reclaim(&self) -> Result<(), StartError> {
        let is_ours = match &*lock(&self.control) {
            Control::Listening(_, file) | Control::Served(file) => {
                listen::FileId::of(&self.control_socket) == Some(*file)
            }
            Control::Closed => false,
        };
        if !is_ours {
            self.listen()?;
            self.serve_control();
        }
        Ok(())
    }

    fn serve_control(&self) {
        let mut control = lock(&self.control);
        match std::mem::replace(&mut *control, Control::Closed) {
            Control::Listening(listener, file) => {
                *control = Control::Served(file);
                self.serve(listener, self.everything.clone());
            }
            other @ (Control::Closed | Control::Served(_)) => *control = other,
        }
    }

    fn serve<L: axum::serve::Listener<Addr: 'static>>(&self, listener: L, router: Router) {
        let place = http::Place {
            limits: self.limits,
            stage: self.stop.subscribe(),
            connections: self.connections.clone(),
            taking: http::Counted::new(&self.taking),
        };
        lock(&self.listeners).spawn_on(http::serve(listener, router, place), self.runtime.handle());
    }

    /// Leaves the ports and the control socket to another process: takes no more requests, and lets those under way
    /// finish.
    pub fn leave(&self) {
        self.has_control.store(false, Relaxed);
        // As long as anybody has them, they take connections.
        self.copies().clear();
        self.stop.send_replace(Stage::Leaving);
    }

    /// Takes no more requests and lets those under way finish within the grace.
    pub fn stop(self, grace: Duration) {
        self.stop.send_replace(Stage::Stopping);
        let mut listeners = std::mem::take(&mut *lock(&self.listeners));
        let all = async { while listeners.join_next().await.is_some() {} };
        // The error is that the grace is over: what is left ends with the runtime.
        let _ = self.runtime.block_on(async { tokio::time::timeout(grace, all).await });
        if self.has_control.load(Relaxed) {
            listen::remove(&self.control_socket);
        }
        self.runtime.shutdown_background();
    }

    /// Fetches policies for the shards, as `fetching` says at the time, and keeps them in the file.
    pub fn fetch_policies(
        &self,
        desk: PolicyDesk,
        fetching: Arc<ArcSwap<PolicyFetching>>,
        file: PathBuf,
        clock: fn() -> Timestamp,
    ) {
        self.runtime.spawn(policies::run(desk, fetching, file, clock));
    }

    /// Fetches pictures of domains for the shards, as `fetching` says at the time.
    pub fn fetch_indicators(
        &self,
        desk: IndicatorDesk,
        fetching: Arc<ArcSwap<IndicatorFetching>>,
        metrics: BimiFetchMetrics,
        clock: fn() -> Timestamp,
    ) {
        self.runtime.spawn(indicators::run(desk, fetching, metrics, clock));
    }

    /// Delivers what shards hand over: by programs, which somebody runs for us, and to services, with the authorities of
    /// `fetching`. Reports it keeps.
    pub fn deliver(
        &self,
        desk: mpsc::Receiver<PoolErrand>,
        programs: Option<Arc<dyn Programs>>,
        fetching: Arc<ArcSwap<PolicyFetching>>,
        reports: ReportsIn,
    ) {
        self.runtime.spawn(reports.clone().tidy());
        self.runtime.spawn(deliver::run(desk, programs, fetching, reports));
    }

    /// Keeps what was sent by warm-up plans in the file.
    pub fn keep_warm_ups(&self, egress: bridge::Egress, file: PathBuf) {
        self.runtime.spawn(egress::keep(egress, file));
    }

    /// Keeps long changes of the queue in their file.
    pub fn keep_tasks(&self, files: TaskFiles) {
        self.runtime.spawn(files.keep());
    }

    /// Reports on TLS once a day, as `reporting` says at the time, and at once when `now` is notified.
    pub fn report_tls(
        &self,
        door: Door,
        reporting: Arc<ArcSwap<TlsReporting>>,
        now: Arc<Notify>,
        counts: TlsCounts,
    ) {
        self.runtime.spawn(daily::run(door, reporting, now, counts));
    }

    /// Reports on mail that bore the names of domains, likewise.
    pub fn report_dmarc(
        &self,
        door: Door,
        reporting: Arc<ArcSwap<DmarcReporting>>,
        now: Arc<Notify>,
        counts: DmarcCounts,
    ) {
        self.runtime.spawn(daily::run(door, reporting, now, counts));
    }

    /// Reports on messages that failed, which shards hand over, as `reporting` says at the time. How many there were is kept in the
    /// data directory.
    pub fn report_failures(
        &self,
        desk: FailureDesk,
        door: Door,
        reporting: Arc<ArcSwap<FailureReporting>>,
        metrics: DmarcFailureMetrics,
        (data_directory, clock): (&Path, fn() -> Timestamp),
    ) {
        let directory = data_directory.to_owned();
        self.runtime.spawn(failure_reports::run(desk, door, reporting, metrics, (directory, clock)));
    }

    /// Renews keys for DKIM; `signing` sees to it that all cores sign with them.
    pub fn rotate_keys(
        &self,
        rotation: KeyRotation,
        door: Door,
        fetching: Arc<ArcSwap<PolicyFetching>>,
        signing: mpsc::Sender<SigningRequest>,
    ) {
        self.runtime.spawn(rotation::run(rotation, door, fetching, signing));
    }

    /// Looks at the domains of `checking` by and by, and at those that operators ask for.
    pub fn check_deliverability(
        &self,
        door: Door,
        checking: Arc<ArcSwap<Checking>>,
        (known, requests): (admin::Deliverability, mpsc::Receiver<admin::CheckRequest>),
        registry: Arc<Registry>,
        clock: fn() -> Timestamp,
    ) {
        self.runtime.spawn(deliverability::run(door, checking, known, requests, registry, clock));
    }

    /// To start tasks from other threads.
    pub fn runtime(&self) -> &runtime::Handle {
        self.runtime.handle()
    }

    /// Where HTTP is served, with the port the system chose for port 0.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        &self.http
    }

    /// How many connections there are.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Whether nobody is connected, and nobody will be any more.
    pub fn is_deserted(&self) -> bool {
        // In this order: a listener that takes no more has counted whom it took. Sequentially consistent, as they are
        // written: of two counts, neither says anything about the other otherwise.
        self.taking.load(SeqCst) == 0 && self.connections.load(SeqCst) == 0
    }

    /// The sockets of the ports, for another process to serve.
    ///
    /// # Errors
    /// When there are no descriptors for copies.
    pub fn listening(&self) -> io::Result<Vec<OwnedFd>> {
        self.copies().iter().map(OwnedFd::try_clone).collect()
    }

    fn copies(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        lock(&self.listening)
    }

    /// Where mail is taken in by HTTP, likewise.
    pub fn mail_addresses(&self) -> &[SocketAddr] {
        &self.mail
    }
}

/// What is behind the lock is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Between two rounds of [`upkeep`].
const UPKEEP: Duration = Duration::from_secs(5);

/// Keeps the recorder small and looks at the process.
async fn upkeep(registry: Arc<Registry>, process: Arc<ProcessMetrics>) {
    let mut rounds = tokio::time::interval(UPKEEP);
    loop {
        rounds.tick().await;
        registry.upkeep();
        process.set_log_lines_dropped(watch::log::lines_dropped());
        process.set_usage(usage::now());
    }
}

/// As many threads as a host of this size gives to people: shards have the rest.
pub fn worker_threads_default() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(8).min(4))
}

#[cfg(test)]
#[path = "pool_test.rs"]
mod test;
