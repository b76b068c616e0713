//! Sled behind a small trait: ordered trees, checkpoints, rebuild.
//!
//! An index tells what lives in one journal shard, up to a [`Checkpoint`]. It is derived: the journal alone is the truth,
//! and a lost or damaged index costs a longer start and nothing else. It is written in batches, in the background: a
//! message that is gone before the next batch never comes here.

mod digest;
mod entries;
mod memory;
mod sled_index;

pub use entries::Entries;
pub use memory::MemoryIndex;
pub use sled_index::{OpenReport, SledIndex};

use journal::{Checkpoint, Entry, QueueId};

/// What has changed since the checkpoint before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Messages that are new or lie or stand otherwise than before.
    pub put: Vec<(QueueId, Entry)>,
    /// Messages that are gone; one that was never here may be named.
    pub remove: Vec<QueueId>,
    /// What the index tells when this batch is in. Store it only when [`journal::Journal::durable_to`] has reached its
    /// position.
    pub checkpoint: Checkpoint,
}

/// All that an index holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The position the entries are true at.
    pub checkpoint: Checkpoint,
    /// The live messages.
    pub entries: Entries,
}

/// Why an index cannot be used. Clear it and rebuild it from the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The store below it does not work.
    #[error("the index cannot be read or written: {0}")]
    Store(String),
    /// What it holds is not what was put in.
    #[error("the index is damaged: {0}")]
    Damaged(&'static str),
}

/// An ordered store of the live messages of one journal shard.
///
/// The methods block for a disk at times: call them from a thread that may wait, never from a shard.
pub trait Index: Send {
    /// Reads all; `None` when nothing was ever stored.
    ///
    /// # Errors
    /// [`IndexError`]: then rebuild.
    fn load(&self) -> Result<Option<Loaded>, IndexError>;

    /// Stores a batch. Cut short by a crash, it leaves what was there before, or what [`Index::load`] refuses.
    ///
    /// # Errors
    /// [`IndexError`]: then rebuild.
    fn apply(&mut self, batch: &Batch) -> Result<(), IndexError>;

    /// Stores entries and leaves the checkpoint as it is: they may tell more than it does, once that is durable. Where
    /// nothing was stored before, nothing can be loaded until the next [`Index::apply`].
    ///
    /// # Errors
    /// [`IndexError`]: then rebuild.
    fn fill(&mut self, put: &[(QueueId, Entry)]) -> Result<(), IndexError>;

    /// The checkpoint that is stored.
    ///
    /// # Errors
    /// [`IndexError`]: then rebuild.
    fn checkpoint(&self) -> Result<Option<Checkpoint>, IndexError>;

    /// Brings what was applied to the disk, as far as the store below can promise it.
    ///
    /// # Errors
    /// [`IndexError`]: then rebuild.
    fn flush(&mut self) -> Result<(), IndexError>;

    /// Forgets everything.
    ///
    /// # Errors
    /// [`IndexError`]: the index cannot be used at all.
    fn clear(&mut self) -> Result<(), IndexError>;

    /// Begins anew from what a recovery of the whole journal found.
    ///
    /// # Errors
    /// [`IndexError`]: the index cannot be used at all.
    fn rebuild(&mut self, entries: &[(QueueId, Entry)], checkpoint: &Checkpoint) -> Result<(), IndexError> {
        self.clear()?;
        // The checkpoint comes last: until then there is nothing that could be trusted.
        self.fill(entries)?;
        self.apply(&Batch { put: Vec::new(), remove: Vec::new(), checkpoint: checkpoint.clone() })?;
        self.flush()
    }
}

#[cfg(test)]
mod test;
