//! One thread with one executor: starting it, what runs on it, what it tells about itself.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::FutureExt as _;
use glommio::io::OpenOptions;
use glommio::timer::Timer;
use glommio::{
    ExecutorJoinHandle, GlommioError, Latency, LocalExecutorBuilder, Placement, PoolPlacement, Shares,
    executor,
};

use crate::shortage::is_shortage;
use crate::timer::sleep;
use crate::watchdog::Beat;
use crate::{clock, deadline};

/// How one executor is made.
pub struct Options {
    /// The thread's name.
    pub name: String,
    /// The CPU it is pinned to. `None` lets it wander, and then it does not spin.
    pub cpu: Option<usize>,
    /// Entries of each submission ring.
    pub ring_depth: usize,
    /// Memory registered with the rings, in bytes; counts against RLIMIT_MEMLOCK.
    pub io_memory: usize,
    /// How long to look for work before sleeping. Spends CPU, saves a wake-up.
    pub spin: Duration,
    /// After that long of uninterrupted work, look whether the kernel has finished something. Short times buy little,
    /// since tasks of this room that could go on for long call [`yield_now`], and make the executor stumble.
    pub preempt: Duration,
    /// Threads for [`blocking`]; they are not pinned.
    pub blocking_threads: usize,
    /// How late the executor may come back to its own clock before that counts as a stall.
    pub stall_threshold: Duration,
    /// Told the length of each stall, on the executor.
    pub on_stall: Option<Box<dyn Fn(Duration) + Send>>,
    /// How often deadlines of connections are looked at.
    pub sweep: Duration,
    /// Where data files will be. Needed for the sake of the device it is on; see [`start`].
    pub data_directory: Option<PathBuf>,
}

impl Options {
    /// Defaults for a thread of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            cpu: None,
            ring_depth: 1024,
            io_memory: 1 << 20,
            spin: Duration::ZERO,
            preempt: Duration::from_millis(100),
            blocking_threads: 2,
            stall_threshold: Duration::from_millis(100),
            on_stall: None,
            sweep: Duration::from_millis(250),
            data_directory: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("name", &self.name).field("cpu", &self.cpu).finish_non_exhaustive()
    }
}

/// An executor could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No thread, or no ring.
    #[error("executor {name} cannot start: {reason}")]
    Executor {
        /// The thread's name.
        name: String,
        /// What the runtime says.
        reason: String,
    },
}

/// An executor ended without its result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// A task that nobody caught panicked.
    #[error("panicked: {0}")]
    Panicked(String),
    /// The runtime gave up.
    #[error("the executor failed: {0}")]
    Failed(String),
}

/// A running executor.
#[derive(Debug)]
#[must_use = "an executor nobody joins dies with the process"]
pub struct Handle<T: Send + 'static> {
    thread: ExecutorJoinHandle<T>,
}

impl<T: Send + 'static> Handle<T> {
    /// Waits for the executor's future to end.
    pub fn join(self) -> Result<T, Stopped> {
        self.thread.join().map_err(|error| {
            if let GlommioError::BuilderError(glommio::BuilderErrorKind::ThreadPanic(payload)) = &error {
                Stopped::Panicked(panic_text(&**payload))
            } else {
                Stopped::Failed(error.to_string())
            }
        })
    }
}

/// Starts a thread with an executor on it, which ends when the future does.
///
/// Returns once the executor runs. The threads of other runtimes and libraries must not be started from within: they
/// would inherit the one CPU that this thread may use.
pub fn start<T, F>(
    options: Options,
    main: impl FnOnce() -> F + Send + 'static,
) -> Result<Handle<T>, StartError>
where
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let name = options.name.clone();
    let failed = |reason: String| StartError::Executor { name: name.clone(), reason };
    let beat = Beat::watched().map_err(|error| failed(error.to_string()))?;
    let (running, started) = mpsc::channel();
    let builder = LocalExecutorBuilder::new(options.cpu.map_or(Placement::Unbound, Placement::Fixed))
        .name(&options.name)
        .ring_depth(options.ring_depth.max(1))
        .io_memory(options.io_memory)
        .spin_before_park(options.spin)
        .preempt_timer(options.preempt)
        .blocking_thread_pool_placement(PoolPlacement::Unbound(options.blocking_threads.max(1)));
    let thread = builder
        .spawn(move || async move {
            if let Some(directory) = &options.data_directory {
                forgo_polling(directory).await;
            }
            let pulse = pulse(Arc::clone(&beat), options.stall_threshold, options.sweep, options.on_stall);
            // In a queue of its own: it is not to wait behind those it measures, and what wakes it from another thread
            // is to interrupt them.
            let latency = Latency::Matters(options.preempt);
            let queue = executor().create_task_queue(Shares::default(), latency, "pulse");
            let pulse = executor().spawn_local_into(pulse, queue).expect("the queue was just made");
            let ending = Ending(beat);
            // Until the first beat, nobody watches.
            yield_now().await;
            let main = main();
            let _ = running.send(());
            let result = main.await;
            drop((pulse, ending));
            blocked().await;
            result
        })
        .map_err(|error| failed(error.to_string()))?;
    match started.recv() {
        Ok(()) => Ok(Handle { thread }),
        // The sender is gone: the thread ended before it ran anything.
        Err(mpsc::RecvError) => Err(failed(match thread.join() {
            Ok(_) => "it ended at once".to_owned(),
            Err(error) => error.to_string(),
        })),
    }
}

/// Makes the runtime find out that files cannot be polled for, before anything else makes it find the opposite.
///
/// It tries once per device, by reading from the first file opened past the page cache, and takes a successful read
/// for proof that completions can be polled. But to read from an empty file succeeds on any device; then reads fail,
/// the executor spins, and each sync costs milliseconds. To read from a file that is open for writing only fails, and
/// the answer is kept.
async fn forgo_polling(directory: &std::path::Path) {
    let path = directory.join(format!(".ring-{}-{}", std::process::id(), executor().id()));
    // Whether the file can be opened that way or not does not matter: what is never polled is well too.
    if let Ok(file) = OpenOptions::new().write(true).create(true).truncate(true).dma_open(&path).await {
        let _ = file.close().await;
    }
    let _ = std::fs::remove_file(&path);
}

/// However the executor's main future ends: nobody wakes it any more.
struct Ending(Arc<Beat>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The shard's heartbeat: measures how late it is itself, and sweeps deadlines.
async fn pulse(
    watched: Arc<Beat>,
    stall_threshold: Duration,
    sweep: Duration,
    on_stall: Option<Box<dyn Fn(Duration) + Send>>,
) {
    let beat = (stall_threshold / 2).clamp(Duration::from_millis(5), sweep.max(Duration::from_millis(5)));
    let mut swept = clock::now();
    loop {
        let before = clock::now();
        poll_fn(|context| {
            watched.expect(before + beat, context.waker());
            Poll::Ready(())
        })
        .await;
        sleep(beat).await;
        let now = clock::now();
        let late = now.saturating_sub(before).saturating_sub(beat);
        if late >= stall_threshold {
            TOTALS.with_borrow_mut(|totals| {
                totals.stalls += 1;
                totals.stalled += late;
            });
            if let Some(tell) = &on_stall {
                tell(late);
            }
        }
        if now.saturating_sub(swept) >= sweep {
            swept = now;
            deadline::sweep(now);
        }
    }
}

/// Runs the future as a task of its own. A panic in it ends the executor.
///
/// The task is first polled after the caller waits, never from within this call.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    spawn_task(future).detach();
}

/// Like [`spawn`], but a panic ends only this task; then `on_panic` is told what the panic said.
pub fn spawn_caught(future: impl Future<Output = ()> + 'static, on_panic: impl FnOnce(String) + 'static) {
    // What the task shared with others is in whatever state the panic left it; callers keep that to one session.
    spawn(Caught { future: AssertUnwindSafe(future).catch_unwind(), on_panic: Some(on_panic) });
}

/// The future of [`spawn_caught`]. By hand: a block that awaits what it captured would hold room for it twice.
struct Caught<F, P> {
    future: F,
    on_panic: Option<P>,
}

impl<F: Future<Output = Result<(), Box<dyn Any + Send>>>, P: FnOnce(String)> Future for Caught<F, P> {
    type Output = ();

    #[expect(unsafe_code, reason = "one field is pinned with the whole, the other is not")]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `future` stays where it is until it is dropped with the whole, which has no drop of its own; `on_panic` is
        // never pinned.
        let (future, on_panic) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.future), &mut this.on_panic)
        };
        future.poll(context).map(|ended| {
            if let (Err(payload), Some(on_panic)) = (ended, on_panic.take()) {
                on_panic(panic_text(&*payload));
            }
        })
    }
}

/// Like [`spawn`], for a task whose result somebody awaits.
pub fn spawn_task<T: 'static>(future: impl Future<Output = T> + 'static) -> Task<T> {
    let queue = executor().current_task_queue();
    let task = executor().spawn_local_into(future, queue);
    Task(task.expect("the queue of the running task exists"))
}

/// A task; awaiting it gives its result, dropping it ends it.
#[derive(Debug)]
#[must_use = "dropped, it is cancelled"]
pub struct Task<T>(glommio::Task<T>);

impl<T: 'static> Task<T> {
    /// Lets it run on.
    pub fn detach(self) {
        self.0.detach();
    }

    /// Ends it where it waits; gives its result if it had ended already.
    pub async fn cancel(self) -> Option<T> {
        self.0.cancel().await
    }
}

impl<T> Future for Task<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// Runs the function on a thread where it may block. Its panic is thrown here.
pub async fn blocking<T: Send + 'static>(function: impl FnOnce() -> T + Send + 'static) -> T {
    // A panic must not reach the runtime's thread: it would die, and its queue with it.
    let guarded = move || panic::catch_unwind(AssertUnwindSafe(function));
    let under_way = UnderWay::new();
    let result = executor().spawn_blocking(guarded).await;
    drop(under_way);
    match result {
        Ok(value) => value,
        Err(payload) => panic::resume_unwind(payload),
    }
}

thread_local! {
    static BLOCKING: Cell<usize> = const { Cell::new(0) };
}

/// A call of [`blocking`] that somebody waits for.
struct UnderWay;

impl UnderWay {
    fn new() -> Self {
        BLOCKING.set(BLOCKING.get() + 1);
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        BLOCKING.set(BLOCKING.get() - 1);
    }
}

/// Waits for the threads that block: one that finds the executor gone when it has its answer panics, harmlessly but
/// for all to read.
async fn blocked() {
    const PATIENCE: Duration = Duration::from_secs(10);
    const BETWEEN: Duration = Duration::from_millis(1);
    let until = clock::now() + PATIENCE;
    while BLOCKING.get() > 0 && clock::now() < until {
        sleep(BETWEEN).await;
    }
}

/// Lets all other tasks run that can, and the executor look at its rings.
pub async fn yield_now() {
    // The runtime's own way would only let tasks run: as long as there are any, nothing that the kernel has finished
    // is noticed. A timer is looked at after the rings; this one is due at once, yet not before it waits.
    let mut timer = Timer::new(Duration::from_secs(1));
    let mut first = true;
    poll_fn(|context| {
        if !std::mem::take(&mut first) {
            return Poll::Ready(());
        }
        let polled = Pin::new(&mut timer).poll(context);
        timer.reset(Duration::ZERO);
        polled.map(drop)
    })
    .await;
}

/// [`yield_now`], if this task and those before it have worked for long.
pub async fn yield_if_needed() {
    if executor().need_preempt() {
        yield_now().await;
    }
}

/// What an executor has done since it started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Time spent running tasks.
    pub busy: Duration,
    /// The same and the time spent in the rings; not the time asleep.
    pub awake: Duration,
    /// Polls of tasks.
    pub polls: u64,
    /// Rounds of the scheduler.
    pub rounds: u64,
    /// Times that the executor was late by more than the threshold.
    pub stalls: u64,
    /// How late in all.
    pub stalled: Duration,
}

thread_local! {
    static TOTALS: RefCell<Stats> = RefCell::new(Stats::default());
}

/// What this executor has done so far.
pub fn stats() -> Stats {
    // The runtime counts from the last time it was asked.
    let latest = executor().executor_stats();
    TOTALS.with_borrow_mut(|totals| {
        totals.busy += latest.executor_runtime();
        totals.awake += latest.total_runtime();
        totals.polls += latest.tasks_executed();
        totals.rounds += latest.scheduler_runs();
        *totals
    })
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Counts in a row, and says when it is time to let others run.
#[derive(Debug, Default)]
pub(crate) struct Streak(Cell<u8>);

impl Streak {
    /// How often one task may go on at once before it yields.
    const MAX: u8 = 32;

    pub(crate) fn end(&self) {
        self.0.set(0);
    }

    /// True when the task should yield now.
    pub(crate) fn step(&self) -> bool {
        let count = self.0.get() + 1;
        self.0.set(if count == Self::MAX { 0 } else { count });
        count == Self::MAX
    }
}

pub(crate) fn runtime_error(error: GlommioError<()>) -> io::Error {
    // The runtime would keep the words and lose the number, which is what such an error is known by.
    let known = error.raw_os_error().map(io::Error::from_raw_os_error);
    known.filter(is_shortage).unwrap_or_else(|| error.into())
}
