//! Bad input and bad days: each has defined behaviour, and none loses mail that was acknowledged.
//!
//! One file for each kind of day. Where a server is to fail, the words it fails with are part of the test: they are
//! what an operator has.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "bad_days/clients.rs"]
mod clients;
#[path = "bad_days/content.rs"]
mod content;
#[path = "bad_days/disk.rs"]
mod disk;
#[path = "bad_days/hops.rs"]
mod hops;
#[path = "bad_days/patience.rs"]
mod patience;
#[path = "bad_days/secure.rs"]
mod secure;
#[path = "bad_days/signals.rs"]
mod signals;
#[path = "bad_days/start.rs"]
mod start;

use std::{fs, process::Command};

use end_to_end::Server;

/// What is asked of a process by the kernel's books, in bytes: `Pss` or `VmHWM`, say.
fn memory(pid: u32, what: &str) -> u64 {
    let file = if what.starts_with("Vm") { "status" } else { "smaps_rollup" };
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// How many files and sockets a process has open.
fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The server's own command, started by another program that gets it as its last arguments.
fn through(words: &[&str], server: &Server) -> Command {
    let own = server.command();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(own.get_program()).args(own.get_args());
    command
}

/// Whether the test runs as root, in a way that lets it mount.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// No session ended by a fault of the server's, and no task kept the others waiting for long.
#[track_caller]
fn unharmed(server: &Server) {
    const PANICS: &str = "ringpost_sessions_panicked_total";
    let metrics = server.get("/metrics");
    assert!(metrics.contains(PANICS), "{metrics}");
    assert_eq!(end_to_end::metric(&metrics, PANICS, &[]), 0.0);
}
