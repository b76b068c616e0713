//! `ringpost check`: would it start, and how well would it run?

use std::{path::Path, process::ExitCode};

use config::Config;

use crate::{
    host::{self, Finding, Needs, Severity},
    serve,
};

/// Prints what is wrong with the configuration and with the host.
pub(crate) fn check(path: &Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(errors) => {
            for error in &errors {
                eprintln!("error: {error}");
            }
            let (count, s) = (errors.len(), if errors.len() == 1 { "" } else { "s" });
            eprintln!("{}: {count} error{s}; the server would not start", path.display());
            return ExitCode::FAILURE;
        }
    };
    let mut findings = host::findings(&needs(&config));
    if let Err(error) = serve::certificates(&config) {
        let text = error.to_string();
        findings.push(Finding { severity: Severity::Error, subject: "certificate", text });
    }
    for warning in config.warnings(serve::usable_cpus().len()) {
        eprintln!("warning: {warning}");
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        eprintln!("{}: the server would not start", path.display());
        return ExitCode::FAILURE;
    }
    println!("{}: good", path.display());
    ExitCode::SUCCESS
}

/// What this configuration asks of the host.
pub(crate) fn needs(config: &Config) -> Needs<'_> {
    let shards = config.cores.shards(serve::usable_cpus().len());
    let inbound: u64 = config.listeners.iter().map(|l| u64::from(l.limits.connections_max)).sum();
    let outbound = u64::from(config.queue.attempts_max) * shards as u64;
    let segments = u64::from(config.journal.segments_max) * shards as u64;
    Needs {
        shards,
        io_memory: config.ring.io_memory,
        files: inbound + outbound + segments + 1024,
        backlog: config.listeners.iter().map(|l| u64::from(l.backlog)).max().unwrap_or(0),
        data_directory: &config.data_directory,
    }
}
