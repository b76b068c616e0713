//! Programs that a test starts: what they say is collected, and none outlives the test.

use std::{
    ffi::OsStr,
    fmt,
    io::{BufRead as _, BufReader, Read, Write as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::OwnedFd,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal},
};

use crate::PATIENCE;

/// A running program. It is killed when this is dropped; when the test fails, its last lines are shown.
pub struct Program {
    name: String,
    child: Child,
    output: Arc<Output>,
}

/// What it has said so far, on stdout and stderr.
#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    more: Condvar,
}

#[derive(Default)]
struct Lines {
    said: Vec<String>,
    /// Of these, what came on stdout.
    stdout: Vec<String>,
    /// Of stdout and stderr, how many have ended.
    ended: usize,
}

impl Program {
    /// Starts it. The name is for messages.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let output = Arc::<Output>::default();
        collect(child.stdout.take().unwrap(), &output, |lines, line| lines.stdout.push(line.to_owned()));
        collect(child.stderr.take().unwrap(), &output, |_, _| ());
        Self { name: name.to_owned(), child, output }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has said so far.
    pub fn lines(&self) -> Vec<String> {
        self.output.lines.lock().unwrap().said.clone()
    }

    /// What it has said on stdout so far, as one text.
    pub fn stdout(&self) -> String {
        self.output.lines.lock().unwrap().stdout.join("\n")
    }

    /// Waits until it says a line of which `find` makes something. Lines said before count.
    ///
    /// # Panics
    /// When it has ended or does not say so within [`PATIENCE`].
    pub fn wait_for<T>(&self, what: &str, find: impl FnMut(&str) -> Option<T>) -> T {
        self.wait_from(0, what, find).1
    }

    /// As [`Self::wait_for`], beginning with the line of that number; tells the number of the line after.
    ///
    /// # Panics
    /// As [`Self::wait_for`].
    pub fn wait_from<T>(
        &self,
        from: usize,
        what: &str,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> (usize, T) {
        let (mut at, mut found) = (from, None);
        let lines = self.output.lines.lock().unwrap();
        let search = |lines: &mut Lines| {
            while found.is_none() && at < lines.said.len() {
                found = find(&lines.said[at]);
                at += 1;
            }
            found.is_none() && lines.ended < 2
        };
        drop(self.output.more.wait_timeout_while(lines, PATIENCE, search).unwrap());
        let found = found
            .unwrap_or_else(|| panic!("{} has ended or did not say within {PATIENCE:?}: {what}", self.name));
        (at, found)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_within(PATIENCE)
    }

    /// Waits for its end, with a bound of its own.
    ///
    /// # Panics
    /// When that takes longer.
    pub fn wait_within(&mut self, patience: Duration) -> ExitStatus {
        let descriptor = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
        let patience_spec = patience.try_into().unwrap();
        let ended = poll(&mut polled, Some(&patience_spec)).unwrap();
        assert!(ended > 0, "{} (process {}) did not end within {patience:?}", self.name, self.pid());
        let status = self.child.wait().unwrap();
        self.read_rest();
        status
    }

    /// Waits until its last lines are collected; not for ever, because a child of its own may hold the pipes open.
    fn read_rest(&self) {
        const REST: Duration = Duration::from_secs(2);
        let lines = self.output.lines.lock().unwrap();
        drop(self.output.more.wait_timeout_while(lines, REST, |lines| lines.ended < 2).unwrap());
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.read_rest();
    }
}

/// A process that is no child of the test, but of something that it has started. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    descriptor: OwnedFd,
}

impl Process {
    /// The process of that number.
    ///
    /// # Panics
    /// When there is none.
    pub fn of(pid: u64) -> Self {
        let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        Self { pid, descriptor: pidfd_open(pid, PidfdFlags::empty()).unwrap() }
    }

    /// Its number.
    ///
    /// # Panics
    /// Never: a number of a process is positive.
    pub fn pid(&self) -> u64 {
        self.pid.as_raw_nonzero().get().try_into().unwrap()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.descriptor, signal).unwrap();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    pub fn wait(&self) {
        let mut polled = [PollFd::new(&self.descriptor, PollFlags::IN)];
        let ended = poll(&mut polled, Some(&PATIENCE.try_into().unwrap())).unwrap();
        assert!(ended > 0, "process {} did not end within {PATIENCE:?}", self.pid);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            const SHOWN: usize = 60;
            let lines = self.lines();
            let first = lines.len().saturating_sub(SHOWN);
            eprintln!("--- {} said, at the end of {} lines:", self.name, lines.len());
            for line in &lines[first..] {
                eprintln!("    {line}");
            }
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid())
    }
}

fn collect(pipe: impl Read + Send + 'static, output: &Arc<Output>, more: fn(&mut Lines, &str)) {
    let output = Arc::clone(output);
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let mut lines = output.lines.lock().unwrap();
            more(&mut lines, &text);
            lines.said.push(text);
            drop(lines);
            output.more.notify_all();
            line.clear();
        }
        output.lines.lock().unwrap().ended += 1;
        output.more.notify_all();
    });
}

/// A program that has run to its end.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said on stdout.
    pub stdout: String,
    /// What it said on stderr.
    pub stderr: String,
}

impl Finished {
    /// That it ended well.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn good(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }

    /// stdout and stderr, one after the other.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n--- stdout\n{}\n--- stderr\n{}", self.status, self.stdout, self.stderr)
    }
}

/// Runs a program to its end, with that on its stdin.
///
/// # Panics
/// When it cannot be started, or does not end within [`PATIENCE`].
pub fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A], stdin: &str) -> Finished {
    let name = program.display();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
    let (mut input, text) = (child.stdin.take().unwrap(), stdin.to_owned());
    // Who does not read its stdin to the end is not wrong.
    let writer = thread::spawn(move || drop(input.write_all(text.as_bytes())));
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let output = thread::spawn(move || slurp(stdout));
    let errors = thread::spawn(move || slurp(stderr));
    let collected =
        Arc::new(Output { lines: Mutex::new(Lines { ended: 2, ..Lines::default() }), ..Output::default() });
    let mut program = Program { name: name.to_string(), child, output: collected };
    let status = program.wait();
    writer.join().unwrap();
    Finished { status, stdout: output.join().unwrap(), stderr: errors.join().unwrap() }
}

fn slurp(mut pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
