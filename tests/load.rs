//! The bundled load generator at both ends of a server: what got a 250 is held against what came in.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{Place, Program, Server, built, free_address, until_within};

/// Waits until the queue is empty.
///
/// # Panics
/// When it is not within a minute and a half.
pub fn drain(server: &Server) {
    until_within(Duration::from_secs(90), "the queue is empty", || {
        let summary = server.queue_json(&["summary"]).remove(0);
        let messages = summary["messages"].as_u64().unwrap();
        (messages == 0).then_some(())
    });
}

/// `loadtest source` at a steady rate, until it is told to end.
#[derive(Debug)]
pub struct LoadSource {
    program: Program,
    acked: PathBuf,
}

impl LoadSource {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(place: &Place, name: &str, server: SocketAddr, arguments: &[&str]) -> Self {
        let acked = place.join(&format!("{name}.acked"));
        let mut command = Command::new(built("loadtest"));
        command.args(["source", &server.to_string(), "--json", "--time", "1h"]);
        command.arg("--acked").arg(&acked).args(arguments);
        Self { program: Program::start(name, &mut command), acked }
    }

    /// Ends it, and reads its report.
    ///
    /// # Panics
    /// When it does not end in order.
    pub fn finish(&mut self) -> Value {
        finish(&mut self.program)
    }
}

/// `loadtest sink`, until it is told to end.
#[derive(Debug)]
pub struct LoadSink {
    program: Program,
    address: SocketAddr,
    seen: PathBuf,
}

impl LoadSink {
    /// Starts it.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(place: &Place, arguments: &[&str]) -> Self {
        let (address, seen) = (free_address(), place.join("seen"));
        let mut command = Command::new(built("loadtest"));
        command.args(["sink", "--json", "--listen", &address.to_string()]).arg("--seen").arg(&seen);
        command.args(arguments);
        let program = Program::start("sink", &mut command);
        program.wait_for("it listens", |line| line.starts_with("listening on").then_some(()));
        Self { program, address, seen }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A route by which all mail goes there.
    pub fn route(&self) -> String {
        let address = self.address;
        format!("[[route]]\nname = \"sink\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"{address}\"]\n")
    }

    /// Ends it, and reads its report.
    ///
    /// # Panics
    /// When it does not end in order.
    pub fn finish(&mut self) -> Value {
        finish(&mut self.program)
    }
}

/// Has a program end in order, and reads the report it writes then.
fn finish(program: &mut Program) -> Value {
    program.signal(Signal::INT);
    let status = program.wait();
    assert!(status.success(), "{program:?}: {status}");
    serde_json::from_str(&program.stdout()).unwrap()
}

/// What got a 250, held against what came in.
#[derive(Debug)]
pub struct Comparison {
    /// Recipients that got a 250.
    pub acknowledged: usize,
    /// Those of them that did not arrive.
    pub missing: usize,
    /// Who came more than once.
    pub twice: usize,
    /// Who came though there was no 250.
    pub unacknowledged: usize,
    /// The first few that are missing.
    pub examples: Vec<String>,
}

/// Holds what the sources had acknowledged against what the sink has seen.
pub fn compare(sources: &[LoadSource], sink: &LoadSink) -> Comparison {
    let mut seen: HashMap<String, u32> = HashMap::new();
    for line in lines(&sink.seen) {
        *seen.entry(line).or_default() += 1;
    }
    let acknowledged: HashSet<String> = sources.iter().flat_map(|source| lines(&source.acked)).collect();
    let missing: Vec<_> = acknowledged.iter().filter(|line| !seen.contains_key(*line)).collect();
    Comparison {
        acknowledged: acknowledged.len(),
        missing: missing.len(),
        twice: seen.values().filter(|count| **count > 1).count(),
        unacknowledged: seen.keys().filter(|line| !acknowledged.contains(*line)).count(),
        examples: missing.into_iter().take(5).cloned().collect(),
    }
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { acknowledged, missing, twice, unacknowledged, .. } = self;
        write!(
            f,
            "{acknowledged} recipients got a 250, {missing} of them are missing; {twice} came twice, \
             {unacknowledged} came without a 250"
        )
    }
}
