//! What several commands open: the configuration and the places in the data directory.

use std::path::{Path, PathBuf};

use anyhow::bail;
use config::Config;
use mail::JournalShard;

/// Reads the configuration.
///
/// # Errors
/// All mistakes in it, a line each.
pub(crate) fn config(path: &Path) -> anyhow::Result<Config> {
    Config::load(path).or_else(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        bail!("the configuration cannot be used:\n{}", lines.join("\n"))
    })
}

/// The segments of one journal shard.
pub(crate) fn segments(data_directory: &Path, shard: JournalShard) -> PathBuf {
    data_directory.join("segments").join(format!("{:04}", shard.0))
}

/// The index of one journal shard.
pub(crate) fn index(data_directory: &Path, shard: JournalShard) -> PathBuf {
    data_directory.join("index").join(format!("{:04}", shard.0))
}
