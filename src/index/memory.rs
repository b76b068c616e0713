//! The index of tests: the same promises, in a `BTreeMap`.

use std::collections::BTreeMap;

use journal::{Checkpoint, Entry, QueueId};

use crate::{Batch, Index, IndexError, Loaded};

/// An index that ends with the process.
#[derive(Clone, Debug, Default)]
pub struct MemoryIndex {
    entries: BTreeMap<QueueId, Entry>,
    checkpoint: Option<Checkpoint>,
}

impl Index for MemoryIndex {
    fn load(&self) -> Result<Option<Loaded>, IndexError> {
        let entries = || self.entries.iter().map(|(id, entry)| (*id, entry.clone())).collect();
        Ok(self.checkpoint.clone().map(|checkpoint| Loaded { checkpoint, entries: entries() }))
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), IndexError> {
        self.entries.extend(batch.put.iter().cloned());
        for id in &batch.remove {
            self.entries.remove(id);
        }
        self.checkpoint = Some(batch.checkpoint.clone());
        Ok(())
    }

    fn fill(&mut self, put: &[(QueueId, Entry)]) -> Result<(), IndexError> {
        self.entries.extend(put.iter().cloned());
        Ok(())
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, IndexError> {
        Ok(self.checkpoint.clone())
    }

    fn flush(&mut self) -> Result<(), IndexError> {
        Ok(())
    }

    fn clear(&mut self) -> Result<(), IndexError> {
        *self = Self::default();
        Ok(())
    }
}
