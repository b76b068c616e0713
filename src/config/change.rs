//! What of a new configuration is in force before a restart, and what waits for one.

use crate::{
    Config, ConfigError, Loaded,
    reader::Reader,
    schema::{Key, Section, Shape, Takes, below},
};

/// A new configuration on a server that runs.
#[derive(Clone, Debug)]
pub struct Change {
    /// What is in force after a reload: the new values, but of keys whose change takes a restart the old ones.
    pub config: Config,
    /// Keys that differ and wait for a restart, such as `cores.count` or `listener.smtp.address`. A listener that comes
    /// or goes is named alone: `listener.smtp`.
    pub pending: Vec<String>,
}

impl Loaded {
    /// Lays this configuration over the one that the server was `started` with, on so many shards.
    ///
    /// # Errors
    /// When what may change now contradicts what may not: the new configuration is good, but only after a restart.
    pub fn change(&self, started: &Config, shards: usize) -> Result<Change, Vec<ConfigError>> {
        let mut change = Change { config: self.config.clone(), pending: Vec::new() };
        change.config.keep(started, "", &mut change.pending);
        let mut reader = Reader::new();
        reader.places.clone_from(&self.places);
        change.config.check(&mut reader);
        change.config.check_disk(shards, &mut reader);
        if reader.errors.is_empty() { Ok(change) } else { Err(reader.errors) }
    }
}

impl Config {
    /// Every key that can be written, and what its change takes. Those of a listener, a route and so on are given once:
    /// `listener.address`.
    pub fn keys() -> Vec<(String, Takes)> {
        fn walk(path: &str, keys: &[Key], found: &mut Vec<(String, Takes)>) {
            for key in keys {
                let path = below(path, &key.name);
                match &key.shape {
                    Shape::Value { .. } => found.push((path, key.takes)),
                    Shape::Section { keys, .. } => walk(&path, keys, found),
                    Shape::Entries { sample, .. } => walk(&path, sample, found),
                }
            }
        }
        let mut found = Vec::new();
        walk("", &Self::default().describe(), &mut found);
        found
    }
}
