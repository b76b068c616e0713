//! Bad input and bad days: each has defined behaviour, and none loses mail that was acknowledged.
//!
//! One file for each kind of day. Where a server is to fail, the words it fails with are part of the test: they are
//! what an operator has.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "bad_days/clients.rs"]
mod clients;
#[path = "bad_days/confined.rs"]
mod confined;
#[path = "bad_days/content.rs"]
mod content;
#[path = "bad_days/descriptors.rs"]
mod descriptors;
#[path = "bad_days/disk.rs"]
mod disk;
#[path = "bad_days/half_open.rs"]
mod half_open;
#[path = "bad_days/hops.rs"]
mod hops;
#[path = "bad_days/patience.rs"]
mod patience;
#[path = "bad_days/restore.rs"]
mod restore;
#[path = "bad_days/secure.rs"]
mod secure;
#[path = "bad_days/signals.rs"]
mod signals;
#[path = "bad_days/smuggling.rs"]
mod smuggling;
#[path = "bad_days/start.rs"]
mod start;

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use end_to_end::{Server, until};

/// What is asked of a process by the kernel's books, in bytes: `Pss` or `VmHWM`, say. What is read from its status is
/// not exact: even the most there ever was may seem to have shrunk.
fn memory(pid: u32, what: &str) -> u64 {
    let file = if what.starts_with("Vm") { "status" } else { "smaps_rollup" };
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The sockets a process has open, by name: one that has two descriptors counts once. Not its files: the journal opens
/// a segment ahead of its need, some time after the mail that made it do so, and keeps it open.
fn sockets(pid: u32) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    // One that is closed while we look is not open.
    let links = entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.to_str().is_some_and(|name| name.starts_with("socket:"))).collect()
}

/// Waits until a process has closed every socket that it did not have before.
#[track_caller]
fn given_back(pid: u32, before: &BTreeSet<PathBuf>) {
    until("every socket is given back", || sockets(pid).is_subset(before).then_some(()));
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
