//! The load generator on the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use loadtest::report::{Progress, end_on_signals};
use loadtest::{compare, hold, sink, source};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Makes mail, and swallows it.
#[derive(Parser)]
#[command(name = "loadtest", version, arg_required_else_help = true)]
struct Line {
    /// Write the result as JSON to stdout
    #[arg(long, global = true)]
    json: bool,

    /// Say nothing while it runs
    #[arg(short, long, global = true)]
    quiet: bool,

    #[command(subcommand)]
    end: End,
}

#[derive(Subcommand)]
enum End {
    /// Send messages to a server
    #[command(after_help = "Examples:
  loadtest source 127.0.0.1:2525                        ten seconds, 20 connections, 4 KiB, flat out
  loadtest source -n 100000 -s 200 -l 4k:90,1M:10       a mix of sizes over 200 connections
  loadtest source --rate 500 -t 5m --tls starttls       500 a second for five minutes, encrypted
  loadtest source -c 1 -p off                           a new connection for each message, no pipelining")]
    Source(source::Options),

    /// Take messages, look at them, forget them
    #[command(after_help = "Examples:
  loadtest sink                                         take everything at 127.0.0.1:2600
  loadtest sink --fail rcpt:450:5 --fail dot:554:1      defer 5 % of recipients, refuse 1 % of messages
  loadtest sink --drop dot:1 --delay 200ms              be slow, and lose a connection now and then
  loadtest sink --idle 10s --seen seen.txt --json       end when all is quiet, list what came")]
    Sink(sink::Options),

    /// Open connections, and say nothing more
    #[command(after_help = "Examples:
  loadtest hold 127.0.0.1:2525 -n 20000                 greeted and EHLOed, then idle, until an interrupt
  loadtest hold 127.0.0.1:2525 -n 20000 --tls starttls  the same under TLS
  loadtest hold 127.0.0.1:2525 -n 5000 --tls starttls --half --again
                                                        handshakes that do not go on; new ones for those that end")]
    Hold(hold::Options),

    /// Compare what got a 250 with what came in: exit code 1 if anything is missing
    Compare {
        /// The file of `source --acked`
        acked: PathBuf,
        /// The file of `sink --seen`
        seen: PathBuf,
    },
}

fn main() -> Result<ExitCode> {
    tls::install_provider();
    let line = Line::parse();
    let progress = if line.quiet { Progress::Quiet } else { Progress::Shown };
    let mut code = ExitCode::SUCCESS;
    match line.end {
        End::Source(options) => {
            ring::probe()?;
            end_on_signals()?;
            let report = source::run(source::Options { progress, ..options })?;
            show(&report, &report.to_string(), line.json)?;
        }
        End::Sink(options) => {
            ring::probe()?;
            end_on_signals()?;
            let sink = sink::bind(sink::Options { progress, ..options })?;
            if !line.quiet {
                eprintln!("listening on {}", sink.address());
            }
            let report = sink.run()?;
            show(&report, &report.to_string(), line.json)?;
        }
        End::Hold(options) => {
            ring::probe()?;
            end_on_signals()?;
            let opened = |report: &hold::Report| println!("holding {}", report.held);
            let report = hold::run(hold::Options { progress, ..options }, opened)?;
            show(&report, &report.to_string(), line.json)?;
        }
        End::Compare { acked, seen } => {
            let result = compare::compare(&acked, &seen)?;
            let text = format!(
                "{} recipients got a 250: {} delivered, {} missing; {} came twice, {} came without a 250\n",
                result.acknowledged, result.delivered, result.missing, result.twice, result.unacknowledged
            );
            show(&result, &text, line.json)?;
            if result.missing > 0 {
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn show(result: &impl Serialize, text: &str, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(result)?);
    } else {
        print!("{text}");
    }
    Ok(())
}
