//! A small process that starts the program which is to take over from this one.
//!
//! The server gives up the right to start programs, and the rights that a start needs. So it keeps one that has them: it
//! is started first of all, waits for a word on its standard input, starts `ringpost serve --take-over` with what came with
//! that word as standard input, and ends when the server has. A program that the server has given up is ended here, too: it
//! may hang, and nobody else is there to do it.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    thread,
    time::Duration,
};

use anyhow::Context;
use ring::MessageSocket;

use crate::say::say;

/// The server's end.
#[derive(Debug)]
pub(crate) struct Launcher {
    socket: MessageSocket,
    program: PathBuf,
}

/// What the server says.
const LAUNCH: &[u8] = b"launch";
/// What was started last is not to take over any more.
const GIVE_UP: &[u8] = b"give up";

/// A program that is given up has so long to end by itself.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Between two starts, however often one is asked for.
const PAUSE: Duration = Duration::from_secs(1);

/// What the process is told on its command line.
#[derive(clap::Args)]
pub(crate) struct LaunchArguments {
    /// The program to start.
    program: PathBuf,
    /// The configuration that it is to serve with.
    config: PathBuf,
}

impl Launcher {
    /// Starts the process. Call it before there are threads, and before anything is given up.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(config: &Path) -> anyhow::Result<Self> {
        // The path, not what lies there: by the time it is needed, that is the new program.
        let program = std::env::current_exe().context("the path of the program is not known")?;
        let (socket, theirs) = MessageSocket::pair()?;
        let arguments = [OsString::from("launch"), program.clone().into(), config.into()];
        // Nobody waits for it: it ends after us.
        Command::new(&program).args(arguments).stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        Ok(Self { socket, program })
    }

    /// Has the new program started, with this as its standard input.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn launch(&self, link: &MessageSocket) -> io::Result<()> {
        self.socket.send(LAUNCH, &[link.as_fd()])
    }

    /// Has the program ended that was started last, if it does not end by itself.
    pub(crate) fn give_up(&self) {
        if let Err(error) = self.socket.send(GIVE_UP, &[]) {
            tracing::debug!(%error, "the process that starts programs is gone");
        }
    }

    /// The program that is started.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }
}

/// The process itself: starts programs until the server is gone.
pub(crate) fn run(arguments: &LaunchArguments) -> anyhow::Result<ExitCode> {
    // They are meant for servers, and are sent to all processes of that name. A program that is started does not inherit
    // that they are passed over.
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let socket = MessageSocket::adopt(input).context("this is started by `ringpost serve`")?;
    let last = Arc::new(Mutex::new(None::<Started>));
    let (mut number, mut outwaiting) = (0, Vec::new());
    while let Some((word, mut descriptors)) = socket.recv()? {
        if word == GIVE_UP {
            // Whichever is the last one now: by the time that somebody looks, it may be another.
            let (last, given_up) = (last.clone(), number);
            let outwait = move || outwait(&last, given_up);
            outwaiting.push(thread::Builder::new().name("give up".to_owned()).spawn(outwait)?);
            outwaiting.retain(|outwaiting| !outwaiting.is_finished());
            continue;
        }
        let (LAUNCH, Some(link)) = (&word[..], descriptors.pop()) else { continue };
        let mut last = lock(&last);
        // The one before has not taken over, or nobody would ask for another. It may hang.
        if let Some(last) = last.take() {
            end(last);
            thread::sleep(PAUSE);
        }
        number += 1;
        let started = Command::new(&arguments.program)
            .args(["serve", "--take-over", "--config"])
            .arg(&arguments.config)
            // Of systemd's sockets the new one is told by the old one.
            .env_remove("LISTEN_PID")
            .env_remove("LISTEN_FDS")
            .env_remove("LISTEN_FDNAMES")
            .stdin(Stdio::from(link))
            .spawn();
        match started {
            Ok(child) => *last = Some(Started { number, child }),
            // The server sees that the other end of the link is gone.
            Err(error) => {
                say(&format!("ringpost: cannot start {}: {error}", arguments.program.display()));
            }
        }
    }
    // The server has ended. Whoever it has given up would have the data directory, and ports.
    for outwaiting in outwaiting {
        let _ = outwaiting.join();
    }
    Ok(ExitCode::SUCCESS)
}

/// A program that was started.
struct Started {
    /// How many were started before it, and it.
    number: u64,
    child: Child,
}

/// Ends a program that is given up, once its time is over.
fn outwait(last: &Mutex<Option<Started>>, given_up: u64) {
    const ROUND: Duration = Duration::from_millis(100);
    let until = ring::clock::now() + LAST_WORDS;
    loop {
        {
            let mut last = lock(last);
            // Where another was started meanwhile, this one has ended.
            let Some(started) = last.as_mut().filter(|started| started.number == given_up) else { return };
            let has_ended = !matches!(started.child.try_wait(), Ok(None));
            if (has_ended || ring::clock::now() >= until)
                && let Some(started) = last.take()
            {
                return end(started);
            }
        }
        thread::sleep(ROUND);
    }
}

/// Ends a program, and waits for that. It may have ended already.
fn end(mut started: Started) {
    let _ = started.child.kill();
    let _ = started.child.wait();
}

fn lock(last: &Mutex<Option<Started>>) -> MutexGuard<'_, Option<Started>> {
    last.lock().unwrap_or_else(PoisonError::into_inner)
}
