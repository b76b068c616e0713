//! The data directory: made, checked, and what was chosen when it was made.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use config::Config;

/// Holds the number of journal shards; written once.
const SHARDS_FILE: &str = "journal-shards";

/// Makes the data directory if it is not there, and sees that it can be written to.
pub(crate) fn prepare(config: &Config) -> anyhow::Result<()> {
    let directory = &config.data_directory;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot make the data directory {}", directory.display()))?;
    let probe = directory.join(".write-probe");
    create(&probe, "").with_context(|| {
        format!(
            "cannot write to the data directory {}; see that it belongs to this user and is not mounted read-only",
            directory.display()
        )
    })?;
    fs::remove_file(&probe).context("the data directory")
}

/// Keeps the number of journal shards that was chosen when the directory was made.
pub(crate) fn settle_shards(config: &Config) -> anyhow::Result<()> {
    let path = config.data_directory.join(SHARDS_FILE);
    let wanted = config.journal.shards;
    match fs::read_to_string(&path) {
        Ok(text) => {
            let made: u16 = text.trim().parse().with_context(|| {
                format!("{} should hold a number; restore it from a backup", path.display())
            })?;
            if made != wanted {
                bail!(
                    "journal.shards is {wanted}, but {} was made with {made}; set it to {made}",
                    config.data_directory.display()
                );
            }
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => write_durably(&path, &format!("{wanted}\n")),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Makes a small file anew. What is in its place goes: it may be a link to what is none of ours, and we may be root.
fn create(path: &Path, text: &str) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// Writes a small file so that it is there whole or not at all.
fn write_durably(path: &Path, text: &str) -> anyhow::Result<()> {
    let draft: PathBuf = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        create(&draft, text)?;
        sync(&draft)?;
        fs::rename(&draft, path)?;
        path.parent().map_or(Ok(()), sync)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn sync(path: &Path) -> std::io::Result<()> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
    Ok(rustix::fs::fsync(file)?)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_number_of_journal_shards_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config { data_directory: directory.path().join("data"), ..Config::default() };
        prepare(&config).unwrap();
        settle_shards(&config).unwrap();
        settle_shards(&config).unwrap();
        let made = config.journal.shards;
        config.journal.shards = made + 1;
        let error = settle_shards(&config).unwrap_err().to_string();
        assert!(error.contains(&format!("set it to {made}")), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, b"").unwrap();
        let config = Config { data_directory: file.join("data"), ..Config::default() };
        let error = prepare(&config).unwrap_err().to_string();
        assert!(error.contains("file/data"), "{error}");
    }
}
