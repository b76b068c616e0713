//! The program: read the configuration, start shards and pool, serve until told to stop.

mod again;
mod check;
mod confine;
mod data;
mod deliverability;
mod dkim_command;
mod handover;
mod host;
mod index_command;
mod indexes;
mod init;
mod journal_command;
mod key_command;
mod keys;
mod launcher;
mod notify;
mod open;
mod privileges;
mod programs;
mod reload;
mod renewal;
mod say;
mod serve;
mod server;
mod signers;
mod sockets;
mod strangers;
mod tenants;
mod watch_files;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use say::say;
use serve::Begin;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A mail server: high-volume relay on io_uring, one thread per core.
#[derive(Parser)]
#[command(name = "ringpost", version, max_term_width = 110, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  ringpost init --directory ./run          make a configuration, a certificate and a data directory
  ringpost check --config run/ringpost.toml
  ringpost serve --config run/ringpost.toml
  ringpost queue list --config run/ringpost.toml";

#[derive(Subcommand)]
enum Command {
    /// Run the server in the foreground until SIGTERM or SIGINT.
    ///
    /// SIGTERM and SIGINT finish what is under way within `shutdown.grace`; a second one stops at once.
    /// SIGHUP reads the configuration and the certificates again and opens the log file anew. SIGUSR2 does what
    /// `ringpost upgrade` does.
    #[command(after_help = "Example:\n  ringpost serve --config /etc/ringpost/ringpost.toml")]
    Serve(ServeArguments),
    /// Read the configuration and look at the host; say what is wrong and what to do about it.
    ///
    /// Ends with 0 when the server would start (warnings are printed all the same), with 1 when it would not.
    #[command(after_help = "Example:\n  ringpost check --config /etc/ringpost/ringpost.toml")]
    Check(ConfigArgument),
    /// Make a commented configuration, a self-signed certificate and a data directory.
    ///
    /// Files that are there already are left alone.
    #[command(after_help = "Example:\n  ringpost init --directory ./run --hostname mx.example.org")]
    Init(init::InitArguments),
    /// Have the running server read its configuration and certificates again, and say what waits for a restart.
    ///
    /// Ends with 0 when the new configuration is in force, with 1 when the old one stays.
    #[command(after_help = "Example:\n  ringpost reload --config /etc/ringpost/ringpost.toml")]
    Reload(ConfigArgument),
    /// Have the program that now lies where the running one was take over, without a connection refused.
    ///
    /// The new one reads the configuration again, takes all who come, and gets the queue when the last session of the old
    /// one has ended (`upgrade.patience`). When it cannot serve, the old one stays. Ends with 0 when the old one has ended.
    #[command(after_help = "Example:\n  ringpost upgrade --config /etc/ringpost/ringpost.toml")]
    Upgrade(UpgradeArguments),
    /// What starts the new program at an upgrade; `serve` starts it.
    #[command(hide = true)]
    Launch(launcher::LaunchArguments),
    /// What runs the programs that mail is given to; `serve` starts it.
    #[command(hide = true)]
    Programs(programs::ProgramsArguments),
    /// Make an API key for mail by HTTP, and print what to write into the configuration.
    ///
    /// The key is printed once and kept nowhere: the configuration has its hash alone.
    #[command(after_help = "Example:\n  ringpost key shop --domain example.org --domain '*.example.org'")]
    Key(key_command::KeyArguments),
    /// Make a key that mail is signed with (DKIM), and print what to publish and what to write into the configuration.
    ///
    /// With a key that is there already it prints that of it. `status` and `rotate` are about keys that the server renews by itself.
    #[command(
        after_help = "Examples:\n  ringpost dkim example.org s2026 --key /etc/ringpost/dkim/s2026.pem\n  \
                            ringpost dkim example.org e2026 --key /etc/ringpost/dkim/e2026.pem --kind ed25519\n  \
                            ringpost dkim status"
    )]
    Dkim(Box<dkim_command::DkimArguments>),
    /// Look at a domain that this host sends for, as mail testers do, and say what to publish.
    ///
    /// The configuration says from which addresses and with which keys its mail leaves; no server need run. Ends with 0 when nothing is
    /// found that fails, with 3 when something is, with 1 when it cannot be looked at.
    #[command(
        after_help = "Examples:\n  ringpost deliverability example.org\n  ringpost deliverability example.org --json --no-connect"
    )]
    Deliverability(deliverability::DeliverabilityArguments),
    /// Look at queued mail and act on it, through the running server.
    Queue(Box<QueueArguments>),
    /// Look at suppression lists and change them, through the running server.
    Suppression(SuppressionArguments),
    /// Look at what greylisting remembers, and forget some of it.
    Greylist(GreylistArguments),
    /// Look at what a stranger has done before, and what that weighs.
    Reputation(ReputationArguments),
    /// Look at reports that others have sent us: who sends as our domains, and does it pass.
    Reports(ReportsArguments),
    /// Look at the sources that mail leaves from: whether they are fit for use, and their warm-up plans.
    Sources(SourcesArguments),
    /// Look at the segments of the journal, with or without the server.
    Journal(journal_command::JournalArguments),
    /// Look after the index, which is derived from the journal. The server must not be running.
    Index(index_command::IndexArguments),
    /// Say which version this is.
    Version,
}

#[derive(Args)]
pub(crate) struct ConfigArgument {
    /// The configuration file; `conf.d/*.toml` beside it is read too.
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/ringpost/ringpost.toml",
        env = "RINGPOST_CONFIG",
        global = true
    )]
    pub(crate) config: PathBuf,
}

#[derive(Args)]
struct ServeArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Take over from the server that has started this one.
    #[arg(long, hide = true)]
    take_over: bool,
}

#[derive(Args)]
struct UpgradeArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// End as soon as the new program serves.
    #[arg(long)]
    no_wait: bool,
    /// Ask for nothing: follow the upgrade that is under way.
    #[arg(long, conflicts_with = "no_wait")]
    watch: bool,
}

#[derive(Args)]
struct QueueArguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    queue: admin::cli::QueueArgs,
}

#[derive(Args)]
struct SuppressionArguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    suppression: admin::suppression_cli::SuppressionArgs,
}

#[derive(Args)]
struct GreylistArguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    greylist: admin::GreylistArgs,
}

#[derive(Args)]
struct ReputationArguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    reputation: admin::ReputationArgs,
}

#[derive(Args)]
struct ReportsArguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    reports: admin::ReportsArgs,
}

#[derive(Args)]
struct SourcesArguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    sources: admin::SourcesArgs,
}

fn main() -> ExitCode {
    // Before anything makes a TLS configuration: one provider for the whole process.
    tls::install_provider();
    let outcome = match Arguments::parse().command {
        Command::Serve(ServeArguments { config, take_over }) => {
            serve::serve(&config.config, if take_over { Begin::TakeOver } else { Begin::Alone })
        }
        Command::Upgrade(arguments) => upgrade(&arguments),
        Command::Launch(arguments) => launcher::run(&arguments),
        Command::Programs(arguments) => programs::run(&arguments),
        Command::Check(arguments) => Ok(check::check(&arguments.config)),
        Command::Init(arguments) => init::init(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Reload(arguments) => reload(&arguments.config),
        Command::Key(arguments) => key_command::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Dkim(arguments) => dkim_command::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Deliverability(arguments) => deliverability::run(&arguments),
        Command::Queue(arguments) => queue(&arguments),
        Command::Suppression(arguments) => suppression(&arguments),
        Command::Greylist(arguments) => greylist(&arguments),
        Command::Reputation(arguments) => reputation(&arguments),
        Command::Reports(arguments) => reports(&arguments),
        Command::Sources(arguments) => sources(&arguments),
        Command::Journal(arguments) => journal_command::run(&arguments),
        Command::Index(arguments) => index_command::run(&arguments),
        Command::Version => {
            println!("ringpost {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| {
        // Causes behind one another, in one line.
        say(&format!("ringpost: {error:#}"));
        ExitCode::FAILURE
    })
}

fn reload(path: &Path) -> anyhow::Result<ExitCode> {
    admin::reload(&open::data_directory(path)?, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn upgrade(arguments: &UpgradeArguments) -> anyhow::Result<ExitCode> {
    let extent = match (arguments.no_wait, arguments.watch) {
        (true, _) => admin::Extent::Begin,
        (false, true) => admin::Extent::Watch,
        (false, false) => admin::Extent::Whole,
    };
    let data_directory = open::data_directory(&arguments.config.config)?;
    admin::upgrade(&data_directory, extent, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn suppression(arguments: &SuppressionArguments) -> anyhow::Result<ExitCode> {
    let data_directory = open::data_directory(&arguments.config.config)?;
    admin::suppression_cli::run(&arguments.suppression, &data_directory, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn greylist(arguments: &GreylistArguments) -> anyhow::Result<ExitCode> {
    let data_directory = open::data_directory(&arguments.config.config)?;
    admin::greylist(&arguments.greylist, &data_directory, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn reputation(arguments: &ReputationArguments) -> anyhow::Result<ExitCode> {
    let data_directory = open::data_directory(&arguments.config.config)?;
    admin::reputation(&arguments.reputation, &data_directory, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn reports(arguments: &ReportsArguments) -> anyhow::Result<ExitCode> {
    let data_directory = open::data_directory(&arguments.config.config)?;
    admin::reports(&arguments.reports, &data_directory, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn queue(arguments: &QueueArguments) -> anyhow::Result<ExitCode> {
    let data_directory = open::data_directory(&arguments.config.config)?;
    let now = mail::Timestamp(ring::clock::unix_micros());
    admin::cli::run(&arguments.queue, &data_directory, now, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn sources(arguments: &SourcesArguments) -> anyhow::Result<ExitCode> {
    let data_directory = open::data_directory(&arguments.config.config)?;
    let now = mail::Timestamp(ring::clock::unix_micros());
    admin::sources(&arguments.sources, &data_directory, now, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}
