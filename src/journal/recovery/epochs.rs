//! The runs of the program that the log tells of: where each began, and how far it was durable at least.

use std::collections::BTreeMap;

/// Runs by their epochs, in order of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Epochs(BTreeMap<u64, Epoch>);

#[derive(Clone, Copy, Debug, Default)]
struct Epoch {
    start: u64,
    synced_to: u64,
}

impl Epochs {
    /// A record or a header page tells of a run.
    pub(super) fn tell(&mut self, epoch: u64, start: u64, synced_to: u64) {
        let known = self.0.entry(epoch).or_default();
        *known = Epoch { start: known.start.max(start), synced_to: known.synced_to.max(synced_to) };
    }

    /// The last run.
    pub(super) fn newest(&self) -> Option<u64> {
        self.0.keys().next_back().copied()
    }

    /// Everything before it is durable, and counts.
    pub(super) fn durable(&self) -> u64 {
        self.0.values().next_back().map_or(0, |epoch| epoch.start.max(epoch.synced_to))
    }

    /// What a run itself has told of as durable.
    pub(super) fn synced_to(&self, epoch: u64) -> u64 {
        self.0.get(&epoch).map_or(0, |epoch| epoch.synced_to)
    }

    /// Where the run after this one began: what this one wrote from there on does not count.
    pub(super) fn start_of_next(&self, epoch: u64) -> Option<u64> {
        self.0.range(epoch + 1..).next().map(|(_, next)| next.start)
    }

    /// Whether a record of this run was thrown away by a later one.
    pub(super) fn is_void(&self, epoch: u64, sequence: u64) -> bool {
        self.start_of_next(epoch).is_some_and(|start| sequence >= start)
    }
}
