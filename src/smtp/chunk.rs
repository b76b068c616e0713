//! Chunks of mail data after BDAT, in the pieces in which they arrive (RFC 3030 §2).

use crate::content::{Findings, Survey};

/// Counts the octets of chunks and looks at them. One scanner serves all chunks of a message.
#[derive(Clone, Debug)]
pub struct ChunkScanner {
    open: u64,
    survey: Survey,
}

impl ChunkScanner {
    /// Before the first chunk of a message.
    pub const fn new() -> Self {
        Self { open: 0, survey: Survey::new() }
    }

    /// A chunk of this many octets begins.
    ///
    /// # Panics
    /// When the one before has not ended.
    pub fn begin(&mut self, size: u64) {
        assert_eq!(self.open, 0, "a chunk begins inside another");
        self.open = size;
    }

    /// How many octets of the input belong to the chunk: all of them are content.
    pub fn scan(&mut self, input: &[u8]) -> usize {
        let len = usize::try_from(self.open).map_or(input.len(), |open| open.min(input.len()));
        self.survey.octets(&input[..len]);
        self.survey.content(&input[..len]);
        self.open -= len as u64;
        len
    }

    /// Octets of the chunk still to come. At zero it has ended.
    pub const fn open(&self) -> u64 {
        self.open
    }

    /// What the content is like, as far as it has come.
    pub fn findings(&self) -> Findings {
        self.survey.findings()
    }
}

impl Default for ChunkScanner {
    fn default() -> Self {
        Self::new()
    }
}
