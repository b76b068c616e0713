//! `ringpost index`: the index made anew from the journal.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use mail::{JournalShard, Timestamp};
use ring::DirectoryLock;

use crate::{ConfigArgument, data, open};

#[derive(Args)]
pub(crate) struct IndexArguments {
    #[command(flatten)]
    config: ConfigArgument,
    #[command(subcommand)]
    command: IndexCommand,
}

#[derive(Subcommand)]
enum IndexCommand {
    /// Throw the index away and make it anew from the journal.
    #[command(after_help = "Example:\n  ringpost index --config /etc/ringpost/ringpost.toml rebuild")]
    Rebuild,
}

pub(crate) fn run(arguments: &IndexArguments) -> anyhow::Result<ExitCode> {
    let IndexCommand::Rebuild = arguments.command;
    let config = open::config(&arguments.config.config)?;
    data::prepare(&config)?;
    let _lock = DirectoryLock::acquire(&config.data_directory)?;
    data::settle_shards(&config)?;
    for shard in (0..config.journal.shards).map(JournalShard) {
        let directory = open::segments(&config.data_directory, shard);
        if !directory.is_dir() {
            continue;
        }
        print!("journal shard {shard}: ");
        let path = open::index(&config.data_directory, shard);
        if path.exists() {
            std::fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        let now = Timestamp(ring::clock::unix_micros());
        let limits = shard::journal_limits(&config);
        let options = ring::Options::new("index");
        let read =
            ring::start(
                options,
                move || async move { shard::read_back(shard, &directory, limits, now).await },
            )?;
        let found = read.join()??;
        let (mut index, _) = index::SledIndex::open(&path, config.index.cache)?;
        index::Index::rebuild(&mut index, &found.entries, &found.journal.checkpoint())?;
        println!(
            "{} messages from {} records in {} segments, {} damaged places",
            found.entries.len(),
            found.report.records,
            found.report.segments,
            found.report.bad_count
        );
    }
    Ok(ExitCode::SUCCESS)
}
