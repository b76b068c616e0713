//! Two lists of numbers: what got a 250 at the source, and what the sink has seen.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Recipients of messages that got a 250.
    pub acknowledged: u64,
    /// Those of them that the sink has seen.
    pub delivered: u64,
    /// Those that it has not: lost, or still on the way.
    pub missing: u64,
    /// Seen more than once.
    pub twice: u64,
    /// Seen without a 250: the reply was lost, not the message.
    pub unacknowledged: u64,
    /// The first few missing ones.
    pub examples: Vec<String>,
}

/// Compares the lists, each a file of lines as the source and the sink write them: run, number, recipient.
pub fn compare(acknowledged: &Path, seen: &Path) -> Result<Comparison> {
    let read =
        |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let (acknowledged, seen) = (read(acknowledged)?, read(seen)?);
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for line in seen.lines() {
        *counts.entry(line).or_default() += 1;
    }
    let mut result = Comparison {
        twice: counts.values().filter(|count| **count > 1).count() as u64,
        ..Comparison::default()
    };
    for line in acknowledged.lines() {
        result.acknowledged += 1;
        if counts.remove(line).is_some() {
            result.delivered += 1;
        } else {
            result.missing += 1;
            if result.examples.len() < 10 {
                result.examples.push(line.to_owned());
            }
        }
    }
    result.unacknowledged = counts.len() as u64;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_missing_and_what_came_twice() {
        let directory = tempfile::tempdir().unwrap();
        let (acked, seen) = (directory.path().join("acked"), directory.path().join("seen"));
        fs::write(&acked, "0a 1 0\n0a 2 0\n0a 3 0\n").unwrap();
        fs::write(&seen, "0a 3 0\n0a 1 0\n0a 1 0\n0a 9 0\n").unwrap();
        let expected = Comparison {
            acknowledged: 3,
            delivered: 2,
            missing: 1,
            twice: 1,
            unacknowledged: 1,
            examples: vec!["0a 2 0".to_owned()],
        };
        assert_eq!(compare(&acked, &seen).unwrap(), expected);
    }
}
