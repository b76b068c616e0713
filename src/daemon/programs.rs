//! A small process that runs the programs that mail is given to.
//!
//! The server gives up the right to start programs. So it keeps one that has it, which is started first of all. That one reads
//! the `[[program]]` sections from the files of the configuration itself, at its start and when it is told that they have changed:
//! the server can have one of them run, with addresses in its arguments, and nothing else.
//!
//! ```text
//!  server ── run NAME, addresses ── content, pipe for output, pipe for the end ──▶ here ──▶ program
//! ```
//!
//! When the server has ended, programs under way still come to their end.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

use anyhow::Context;
use config::Program;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Group, Pid, User},
};
use pool::{ProgramEnd, ProgramRun};
use ring::MessageSocket;
use rustix::process::{Resource, Rlimit, prlimit};
use serde::{Deserialize, Serialize};

use crate::{open, say::say};

/// The server's end.
#[derive(Debug)]
pub(crate) struct Programs(MessageSocket);

/// What the server says.
#[derive(Debug, Deserialize, Serialize)]
enum Word {
    /// Run this, with the three descriptors that come with it.
    Run(ProgramRun),
    /// The configuration may be another.
    Reload,
}

/// What the process is told on its command line.
#[derive(clap::Args)]
pub(crate) struct ProgramsArguments {
    /// The configuration that says which programs there are.
    config: PathBuf,
}

/// Where programs look for others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A program that is told to end has so long before it is made to.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Whoever does not take what is sent has ended, or is as good as that.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

impl Programs {
    /// Starts the process. Call it before there are threads, and before anything is given up.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(config: &Path) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of the program is not known")?;
        let (socket, theirs) = MessageSocket::pair()?;
        socket.set_send_patience(Some(SEND_PATIENCE))?;
        let arguments = [OsString::from("programs"), config.into()];
        // Nobody waits for it: it ends after us.
        Command::new(&program).args(arguments).stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
        Ok(Self(socket))
    }

    /// Has it read the configuration again, before it runs anything else.
    pub(crate) fn reload(&self) {
        if let Err(error) = self.say(&Word::Reload, &[]) {
            tracing::error!(%error, "the process that runs programs is gone: it takes a restart");
        }
    }

    fn say(&self, word: &Word, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.send(&serde_json::to_vec(word)?, descriptors)
    }
}

impl pool::Programs for Programs {
    fn run(&self, run: &ProgramRun, descriptors: [BorrowedFd<'_>; 3]) -> io::Result<()> {
        self.say(&Word::Run(run.clone()), &descriptors)
    }
}

/// The process itself: runs programs until the server is gone.
pub(crate) fn run(arguments: &ProgramsArguments) -> anyhow::Result<ExitCode> {
    // They are meant for servers, and are sent to all processes of that name or group. What is under way comes to its end.
    for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGINT, libc::SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let socket = MessageSocket::adopt(input).context("this is started by `ringpost serve`")?;
    let mut programs = read(&arguments.config)?;
    let mut running = Vec::new();
    while let Some((word, descriptors)) = socket.recv()? {
        match serde_json::from_slice(&word) {
            Ok(Word::Reload) => match read(&arguments.config) {
                Ok(read) => programs = read,
                Err(error) => say(&format!("ringpost: programs stay as they were: {error:#}")),
            },
            Ok(Word::Run(run)) => {
                let Ok([input, output, end]) = <[OwnedFd; 3]>::try_from(descriptors) else { continue };
                let program = programs.get(&run.program).cloned();
                let thread = thread::Builder::new().name("program".to_owned());
                // Without a thread the descriptors close, and the server sees that nobody knows what became of it.
                let started = thread.spawn(move || {
                    let ended = match program {
                        Some(program) => carry_out(&program, &run, input, output),
                        None => ProgramEnd::NotStarted(format!("there is no program {}", run.program)),
                    };
                    tell(end, &ended);
                });
                running.extend(started.ok());
                running.retain(|running| !running.is_finished());
            }
            Err(error) => say(&format!("ringpost: programs: {error}")),
        }
    }
    for running in running {
        let _ = running.join();
    }
    Ok(ExitCode::SUCCESS)
}

fn read(config: &Path) -> anyhow::Result<BTreeMap<String, Arc<Program>>> {
    let programs = open::loaded(config)?.config.programs;
    Ok(programs.into_iter().map(|program| (program.name.to_ascii_lowercase(), Arc::new(program))).collect())
}

fn tell(end: OwnedFd, ended: &ProgramEnd) {
    let told = serde_json::to_vec(ended).unwrap_or_default();
    // Whoever asked may be gone.
    let _ = io::PipeWriter::from(end).write_all(&told);
}

/// Runs a program to its end.
fn carry_out(program: &Program, run: &ProgramRun, input: OwnedFd, output: OwnedFd) -> ProgramEnd {
    let not_started = |error: anyhow::Error| ProgramEnd::NotStarted(format!("{error:#}"));
    let mut command = match command(program, run) {
        Ok(command) => command,
        Err(error) => return not_started(error),
    };
    let errors = match output.try_clone() {
        Ok(errors) => errors,
        Err(error) => return not_started(error.into()),
    };
    command.stdin(input).stdout(output).stderr(errors);
    // It holds for this thread, and for whoever it starts: a thread runs one program.
    if !program.new_privileges
        && let Err(error) = rustix::thread::set_no_new_privs(true)
    {
        return not_started(error.into());
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let path = program.command.first().map_or("", String::as_str);
            return not_started(anyhow::Error::from(error).context(path.to_owned()));
        }
    };
    // The ends of the pipes that are ours would keep them open.
    drop(command);
    limit(program, &child);
    match wait(&mut child, program.timeout) {
        Ok(Some(status)) => end_of(status),
        Ok(None) => {
            end(&mut child);
            ProgramEnd::TimedOut
        }
        Err(error) => {
            end(&mut child);
            not_started(error.into())
        }
    }
}

fn end_of(status: ExitStatus) -> ProgramEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => ProgramEnd::Code(code),
        (None, signal) => ProgramEnd::Signal(signal.unwrap_or_default()),
    }
}

fn command(program: &Program, run: &ProgramRun) -> anyhow::Result<Command> {
    let (path, arguments) = program.command.split_first().context("the program has no command")?;
    let mut command = Command::new(path);
    for argument in arguments {
        if argument == "{recipients}" {
            for recipient in &run.recipients {
                command.arg(harmless(argument, recipient.clone())?);
            }
        } else {
            command.arg(harmless(argument, filled(argument, run))?);
        }
    }
    command.env_clear().env("PATH", PATH).env("SENDER", &run.sender).env("QUEUE_ID", &run.id);
    command.env("RECIPIENT", run.recipients.join(" "));
    if let Some(name) = &program.user {
        let user = User::from_name(name)?.with_context(|| format!("there is no user {name}"))?;
        let group = match &program.group {
            Some(name) => Group::from_name(name)?.with_context(|| format!("there is no group {name}"))?.gid,
            None => user.gid,
        };
        // Other groups go as well, where we are root.
        command.uid(user.uid.as_raw()).gid(group.as_raw());
        command.env("HOME", &user.dir).env("USER", name).env("LOGNAME", name);
    }
    for (name, value) in program.environment.iter().filter_map(|variable| variable.split_once('=')) {
        command.env(name, value);
    }
    command.current_dir(&program.directory).process_group(0);
    Ok(command)
}

/// An argument with what it stands for in the place of what is in braces. What is filled in is not looked at again.
fn filled(argument: &str, run: &ProgramRun) -> String {
    let recipient = run.recipients.first().map_or("", String::as_str);
    let (local_part, domain) = recipient.rsplit_once('@').unwrap_or((recipient, ""));
    let (mut out, mut rest) = (String::new(), argument);
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let named = after.split_once('}');
        let value = named.and_then(|(name, _)| match name {
            "sender" => Some(run.sender.as_str()),
            "recipient" => Some(recipient),
            "local-part" => Some(local_part),
            "domain" => Some(domain),
            "id" => Some(run.id.as_str()),
            _ => None,
        });
        match (named, value) {
            (Some((_, behind)), Some(value)) => {
                out.push_str(value);
                rest = behind;
            }
            (_, None) | (None, _) => {
                out.push('{');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// What an address has made of an argument must not look like an option.
fn harmless(argument: &str, filled: String) -> anyhow::Result<String> {
    anyhow::ensure!(argument.starts_with('-') || !filled.starts_with('-'), "an address begins with -");
    anyhow::ensure!(!filled.contains('\0'), "an address has a NUL");
    Ok(filled)
}

/// It runs already: these are for what goes wrong, and it takes longer for that.
fn limit(program: &Program, child: &Child) {
    let limits = [
        (Resource::As, program.memory_max),
        (Resource::Fsize, program.file_max),
        (Resource::Cpu, program.cpu_max.map(|time| time.as_secs().max(1))),
        (Resource::Core, Some(0)),
    ];
    let pid = rustix::process::Pid::from_child(child);
    for (resource, most) in limits {
        if let Some(most) = most {
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            // It may have ended by now.
            let _ = prlimit(Some(pid), resource, limit);
        }
    }
}

/// Waits for the end of a program; none when it takes longer.
fn wait(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pid = rustix::process::Pid::from_child(child);
    let file = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    let until = ring::clock::now() + patience;
    loop {
        let left = until.saturating_sub(ring::clock::now());
        if left.is_zero() {
            return child.try_wait();
        }
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&left)) {
            Ok(1..) => return child.wait().map(Some),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends a program and what it has started.
fn end(child: &mut Child) {
    let group = Pid::from_raw(child.id().cast_signed());
    let _ = killpg(group, Signal::SIGTERM);
    if !matches!(wait(child, LAST_WORDS), Ok(Some(_))) {
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait();
    } else {
        // It has ended; others of its group may not have.
        let _ = killpg(group, Signal::SIGKILL);
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn run(sender: &str, recipients: &[&str]) -> ProgramRun {
        let recipients = recipients.iter().map(ToString::to_string).collect();
        ProgramRun { program: "p".into(), sender: sender.into(), recipients, id: "0G1".into() }
    }

    fn arguments(template: &[&str], run: &ProgramRun) -> Result<Vec<String>, String> {
        let command_line = std::iter::once("/bin/true").chain(template.iter().copied());
        let program = Program { command: command_line.map(String::from).collect(), ..Program::default() };
        let command = command(&program, run).map_err(|error| error.to_string())?;
        Ok(command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn arguments_are_filled_once_and_never_split() {
        let one = run("ann@a.test", &["\"b {sender} c\"@b.test"]);
        let template =
            ["-f", "{sender}", "-d{recipient}", "{local-part}", "x={domain}/{id}", "{", "{no", "{other}"];
        let expected = [
            "-f",
            "ann@a.test",
            "-d\"b {sender} c\"@b.test",
            "\"b {sender} c\"",
            "x=b.test/0G1",
            "{",
            "{no",
            "{other}",
        ];
        assert_eq!(arguments(&template, &one).unwrap(), expected);
        let two = run("", &["b@b.test", "c@b.test"]);
        assert_eq!(arguments(&["--", "{recipients}"], &two).unwrap(), ["--", "b@b.test", "c@b.test"]);
        assert_eq!(arguments(&["{sender}"], &two).unwrap(), [""]);
    }

    #[test]
    fn an_address_is_no_option() {
        let odd = run("-o@a.test", &["-rf@b.test"]);
        for template in ["{sender}", "{recipient}", "{local-part}", "{recipients}"] {
            assert!(arguments(&[template], &odd).is_err(), "{template}");
        }
        assert_eq!(arguments(&["-d{recipient}"], &odd).unwrap(), ["-d-rf@b.test"]);
    }

    #[test]
    fn programs_come_to_an_end() {
        let shell = |script: &str, timeout| Program {
            command: ["/bin/sh", "-c", script].map(String::from).to_vec(),
            directory: "/".into(),
            timeout: Duration::from_millis(timeout),
            ..Program::default()
        };
        let outcome = |program: &Program| {
            let (output, write_output) = io::pipe().unwrap();
            let (input, _) = io::pipe().unwrap();
            let end = carry_out(program, &run("", &[]), input.into(), write_output.into());
            (end, io::read_to_string(output).unwrap())
        };
        let minute = 60_000;
        assert_eq!(
            outcome(&shell("echo said; echo error >&2; exit 75", minute)),
            (ProgramEnd::Code(75), "said\nerror\n".into())
        );
        assert_eq!(outcome(&shell("kill -9 $$", minute)).0, ProgramEnd::Signal(9));
        // What it has started ends as well, or the pipe would stay open.
        assert_eq!(outcome(&shell("sleep 1000 & sleep 1000", 50)), (ProgramEnd::TimedOut, String::new()));
        let privileges =
            shell("grep NoNewPrivs /proc/self/status; env | cut -d= -f1 | sort | tr '\\n' ' '", minute);
        let (_, said) = outcome(&privileges);
        assert!(said.contains("NoNewPrivs:\t1"), "{said}");
        assert!(said.contains("PATH PWD QUEUE_ID RECIPIENT SENDER"), "{said}");
        let absent =
            Program { command: vec!["/no/such/program".into()], directory: "/".into(), ..shell("", minute) };
        assert!(
            matches!(outcome(&absent).0, ProgramEnd::NotStarted(why) if why.contains("/no/such/program"))
        );
    }

    #[test]
    fn memory_is_limited() {
        let program = Program {
            command: ["/bin/sh", "-c", "sleep 0.3; ulimit -v"].map(String::from).to_vec(),
            directory: "/".into(),
            memory_max: Some(64 << 20),
            ..Program::default()
        };
        let (output, write_output) = io::pipe().unwrap();
        let (input, _) = io::pipe().unwrap();
        assert_eq!(
            carry_out(&program, &run("", &[]), input.into(), write_output.into()),
            ProgramEnd::Code(0)
        );
        assert_eq!(io::read_to_string(output).unwrap().trim(), "65536");
    }
}
