//! The way of a line: into a buffer of the thread that says it, and out by a thread of its own.
//!
//! A thread that logs owns a buffer. It takes the buffer out of its slot, writes the line and puts it back;
//! the writer thread takes whole buffers out of all slots, some fifty times a second while there is something
//! to write, and sleeps otherwise. Neither ever waits for the other. A buffer that is full loses
//! lines, and they are counted: the disk of the log must not slow mail down.
//!
//! A line costs half of what it costs as an event of `tracing` (`cargo bench -p bench --bench watch`).
//! Lines of one thread keep their order; lines of two may be interleaved late, each with its own time.

use std::{
    cell::RefCell,
    fmt,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use crossbeam_utils::atomic::AtomicCell;

use crate::{
    events::{self, LinesDropped},
    libraries,
    line::{Line, StampCache},
    trace,
};

/// How the log is to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Text for people or JSON for machines.
    pub format: Format,
    /// Where to.
    pub output: Output,
    /// What is written.
    pub levels: Levels,
    /// Bytes that a thread may have waiting for the writer.
    pub buffer_bytes_max: usize,
    /// Microseconds since 1970, for lines that come without a time.
    pub clock: fn() -> u64,
}

/// What is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Of every room…
    pub level: Level,
    /// …but of these.
    pub rooms: Vec<(String, Level)>,
    /// Of libraries that speak through the `log` crate, and not more than of every room. Some of them have a line for
    /// each page they touch.
    pub libraries: Level,
}

/// The shape of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Time, level, room, event, then `name=value`.
    #[default]
    Text,
    /// One object per line.
    Json,
}

/// Where the log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error: where systemd and terminals look.
    #[default]
    Stderr,
    /// A file, appended to; [`Log::reopen`] after it was moved away.
    File(PathBuf),
}

/// How much a line matters; a room writes its level and what stands before it here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing at all.
    Off,
    /// Mail is refused, lost time, or a fault of ours.
    Error,
    /// Works, but will not for long.
    Warn,
    /// What an operator wants to find again.
    #[default]
    Info,
    /// What explains one connection.
    Debug,
    /// What explains one byte.
    Trace,
}

/// The log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be written.
    #[error(
        "cannot open the log file {path}: {error}; check that its directory exists and belongs to our user"
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The writer's thread could not be started.
    #[error("cannot start the thread of the log: {0}")]
    Thread(io::Error),
    /// There is one log in a process, and it was started before.
    #[error("the log is already started")]
    Twice,
}

/// The started log. Dropping it writes what is left.
#[derive(Debug)]
pub struct Log {
    core: Arc<Core>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Default for Levels {
    fn default() -> Self {
        Self { level: Level::Info, rooms: Vec::new(), libraries: Level::Warn }
    }
}

impl Level {
    /// As it stands in a line and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Starts the log of the process: events, what `tracing` says, and what libraries say through `log`.
///
/// # Errors
/// [`LogError`] when the file cannot be opened, or the log was started before.
pub fn start(options: Options) -> Result<Log, LogError> {
    let levels = options.levels.clone();
    let log = Core::start(options, SLEEP)?;
    CORE.set(Arc::clone(&log.core)).map_err(|_| LogError::Twice)?;
    trace::install(levels.level, &levels.rooms);
    libraries::install();
    log.set_levels(&levels);
    Ok(log)
}

impl Log {
    /// Opens the file again, so that a rotated one is let go.
    ///
    /// # Errors
    /// [`LogError::Open`]; the old file stays in use.
    pub fn reopen(&self) -> Result<(), LogError> {
        let sink = open(&self.core.options.output)?;
        let _ = self.core.requests.send(Request::Sink(sink));
        Ok(())
    }

    /// Changes what is written.
    pub fn set_levels(&self, levels: &Levels) {
        let Levels { level, rooms, libraries } = levels;
        for (event, enabled) in events::ALL.iter().zip(&ENABLED) {
            let room = rooms.iter().rev().find(|(room, _)| room == event.room);
            enabled.store(event.level <= room.map_or(*level, |(_, level)| *level), Relaxed);
        }
        trace::set_levels(*level, rooms);
        libraries::set_level(*libraries.min(level));
    }

    /// Waits until what was said so far is written.
    pub fn flush(&self) {
        let (done, wait) = mpsc::channel();
        let _ = self.core.requests.send(Request::Flush(done));
        // An error means that the writer is gone, and nothing will be written any more.
        let _ = wait.recv();
    }

    /// Lines lost since the start.
    pub fn lines_dropped(&self) -> u64 {
        self.core.dropped.load(Relaxed)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.core.requests.send(Request::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lines lost since the start; 0 when no log was started.
pub fn lines_dropped() -> u64 {
    CORE.get().map_or(0, |core| core.dropped.load(Relaxed))
}

/// Whether the event at that place of the list is written.
pub(crate) fn enabled(place: usize) -> bool {
    ENABLED[place].load(Relaxed)
}

/// Writes a line of the list.
pub(crate) fn write(place: usize, at: u64, fields: impl FnOnce(&mut Line<'_>)) {
    if enabled(place) {
        let event = &events::ALL[place];
        write_line(Some(at), (event.level, event.room, event.name), fields);
    }
}

/// Writes a line of anybody; without a time, now.
pub(crate) fn write_line(at: Option<u64>, head: (Level, &str, &str), fields: impl FnOnce(&mut Line<'_>)) {
    let Some(core) = CORE.get() else { return };
    // A field that logs while it is written, or a thread that is ending: that line is lost.
    let written = LOCAL.try_with(|local| {
        let mut local = local.try_borrow_mut().ok()?;
        let local = local.get_or_insert_with(|| Local::new(core));
        local.write(core, at.unwrap_or_else(core.options.clock), head, fields);
        Some(())
    });
    if !matches!(written, Ok(Some(()))) {
        core.dropped.fetch_add(1, Relaxed);
    }
}

static CORE: OnceLock<Arc<Core>> = OnceLock::new();
static ENABLED: [AtomicBool; events::ALL.len()] = [const { AtomicBool::new(false) }; events::ALL.len()];

thread_local! {
    static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) };
}

/// What threads and writer share.
#[derive(Debug)]
struct Core {
    options: Options,
    sleep: Duration,
    slots: Mutex<Vec<Arc<Slot>>>,
    requests: mpsc::Sender<Request>,
    /// The writer found nothing to do: whoever writes next sends [`Request::Wake`].
    asleep: AtomicBool,
    dropped: AtomicU64,
}

/// Where a thread's buffer waits. Either is empty while somebody has the buffer in hand.
#[derive(Default)]
struct Slot {
    full: AtomicCell<Option<Buffer>>,
    empty: AtomicCell<Option<Buffer>>,
}

/// Boxed, since a pointer can be swapped in one step and a `Vec` cannot.
type Buffer = Box<Vec<u8>>;

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

/// A thread's own part.
#[derive(Debug)]
struct Local {
    slot: Arc<Slot>,
    stamps: StampCache,
}

enum Request {
    Wake,
    Sink(Sink),
    Flush(mpsc::Sender<()>),
    Stop,
}

type Sink = Box<dyn Write + Send>;

impl Local {
    fn new(core: &Core) -> Self {
        let slot = Arc::new(Slot::default());
        core.slots.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&slot));
        Self { slot, stamps: StampCache::default() }
    }

    fn write(&mut self, core: &Core, at: u64, head: (Level, &str, &str), fields: impl FnOnce(&mut Line<'_>)) {
        let mut buffer = self.slot.full.take().or_else(|| self.slot.empty.take()).unwrap_or_default();
        if buffer.len() >= core.options.buffer_bytes_max {
            core.dropped.fetch_add(1, Relaxed);
        } else {
            let mut line = Line::begin(&mut buffer, (core.options.format, &mut self.stamps), at, head);
            fields(&mut line);
            line.end();
        }
        self.slot.full.store(Some(buffer));
        // Either the writer sees the buffer before it sleeps, or this sees that it sleeps.
        fence(SeqCst);
        if core.asleep.load(Relaxed) && core.asleep.swap(false, SeqCst) {
            let _ = core.requests.send(Request::Wake);
        }
    }
}

impl Core {
    fn start(options: Options, sleep: Duration) -> Result<Log, LogError> {
        let sink = open(&options.output)?;
        let (requests, inbox) = mpsc::channel();
        let core = Arc::new(Self {
            options,
            sleep,
            slots: Mutex::default(),
            requests,
            asleep: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        });
        let writer = Writer { core: Arc::clone(&core), sink, told: 0 };
        let thread = thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(&inbox))
            .map_err(LogError::Thread)?;
        Ok(Log { core, thread: Some(thread) })
    }
}

/// The thread that writes.
struct Writer {
    core: Arc<Core>,
    sink: Sink,
    /// Lost lines that a line has told of.
    told: u64,
}

/// How long lines gather before they are written together.
const GATHER: Duration = Duration::from_millis(20);
/// The longest sleep: one line late by this much is the worst that a lost wake could do.
const SLEEP: Duration = Duration::from_secs(1);

impl Writer {
    fn run(mut self, inbox: &mpsc::Receiver<Request>) {
        let mut idle = false;
        loop {
            let request = if idle { self.sleep(inbox) } else { inbox.recv_timeout(GATHER) };
            match request {
                Ok(Request::Wake) | Err(RecvTimeoutError::Timeout) => idle = !self.write_waiting(),
                Ok(Request::Sink(sink)) => {
                    self.write_waiting();
                    self.sink = sink;
                    idle = false;
                }
                Ok(Request::Flush(done)) => {
                    self.write_waiting();
                    let _ = done.send(());
                    idle = false;
                }
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.write_waiting();
                    return;
                }
            }
        }
    }

    fn sleep(&mut self, inbox: &mpsc::Receiver<Request>) -> Result<Request, RecvTimeoutError> {
        self.core.asleep.store(true, SeqCst);
        fence(SeqCst);
        let request =
            if self.write_waiting() { Ok(Request::Wake) } else { inbox.recv_timeout(self.core.sleep) };
        self.core.asleep.store(false, SeqCst);
        request
    }

    /// Takes every buffer that waits; says whether there was one.
    fn write_waiting(&mut self) -> bool {
        let mut slots = self.core.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting: Vec<_> =
            slots.iter().filter_map(|slot| Some((slot.full.take()?, Arc::clone(slot)))).collect();
        // A slot that nobody else has belonged to a thread that is gone.
        slots.retain(|slot| Arc::strong_count(slot) > 1);
        if waiting.is_empty() {
            // Nobody has said anything for a while: give the memory back.
            slots.iter().for_each(|slot| drop(slot.empty.take()));
        }
        drop(slots);
        let wrote = !waiting.is_empty();
        for (mut buffer, slot) in waiting {
            self.put(&buffer);
            buffer.clear();
            slot.empty.store(Some(buffer));
        }
        self.tell_of_losses();
        wrote
    }

    fn put(&mut self, lines: &[u8]) {
        if self.sink.write_all(lines).and_then(|()| self.sink.flush()).is_err() {
            let lost = lines.iter().filter(|byte| **byte == b'\n').count();
            self.core.dropped.fetch_add(lost as u64, Relaxed);
        }
    }

    fn tell_of_losses(&mut self) {
        let dropped = self.core.dropped.load(Relaxed);
        if dropped > self.told {
            LinesDropped { lines: dropped - self.told }.emit((self.core.options.clock)());
            self.told = dropped;
        }
    }
}

fn open(output: &Output) -> Result<Sink, LogError> {
    Ok(match output {
        Output::Stdout => Box::new(io::stdout()),
        Output::Stderr => Box::new(io::stderr()),
        Output::File(path) => {
            // Addresses of people stand in it: not for everybody to read.
            let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path);
            Box::new(file.map_err(|error| LogError::Open { path: path.clone(), error })?)
        }
    })
}

#[cfg(test)]
#[path = "log_test.rs"]
mod test;
