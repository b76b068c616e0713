//! What is wrong with a configuration, and where, and what to do about it.

use std::{collections::BTreeMap, fmt, path::PathBuf};

/// One mistake. Loading reports all it can find.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Where it stands, unless it is about what no file says.
    pub place: Option<Place>,
    /// The key, with the sections it is in: `journal.segment-size`. Empty when no key is concerned.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
    /// What to do, as a sentence without its full stop.
    pub remedy: String,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// The character in the line, counted from 1.
    pub column: usize,
}

/// Where each key that is written stands; of several places, the one that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<String, Place>);

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file or the folder cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The file is not TOML.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// The file is not text.
    #[error("byte {} of the file is 0x{byte:02X}, which is not UTF-8", offset + 1)]
    NotUtf8 {
        /// The byte.
        byte: u8,
        /// How many bytes stand before it.
        offset: usize,
    },
    /// A key or a section that stands in the file already.
    #[error("written twice{}", first.map_or(String::new(), |line| format!(", first in line {line}")))]
    Twice {
        /// In which line.
        first: Option<usize>,
    },
    /// No such key in this section.
    #[error("unknown key")]
    UnknownKey,
    /// A key without which the section means nothing.
    #[error("missing, expected {expected}")]
    Missing {
        /// What should be there.
        expected: String,
    },
    /// A value that means nothing at this key.
    #[error("expected {expected}, found {found}")]
    Value {
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The value is good by itself, but not with what another key says.
    #[error("{0}")]
    Conflict(String),
}

impl Places {
    /// Where the key stands; none when what holds anyway was not written.
    pub fn of(&self, key: &str) -> Option<&Place> {
        self.0.get(key)
    }

    /// The key with its place before it, as in every message: `/etc/ringpost/ringpost.toml:3:1: journal.shards`.
    pub fn name(&self, key: &str) -> String {
        self.of(key).map_or_else(|| key.to_owned(), |place| format!("{place}: {key}"))
    }

    pub(crate) fn note(&mut self, key: String, place: Place) {
        self.0.insert(key, place);
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.problem)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

impl fmt::Display for Place {
    /// As compilers and editors write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}
