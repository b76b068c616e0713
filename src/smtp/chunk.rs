//! Chunks of mail data after BDAT, in the pieces in which they arrive (RFC 3030 §2).

use crate::content::{Findings, Survey};

/// Counts the octets of chunks and looks at them. One scanner serves all chunks of a message.
#[derive(Clone, Debug)]
pub struct ChunkScanner {
    open: u64,
    place: Place,
    survey: Survey,
}

/// Where the present chunk stands in its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    MoreToCome,
    Last,
}

impl ChunkScanner {
    /// Before the first chunk of a message.
    pub const fn new() -> Self {
        Self { open: 0, place: Place::MoreToCome, survey: Survey::new() }
    }

    /// A chunk of this many octets begins, and others will come after it.
    ///
    /// # Panics
    /// When the one before has not ended, or was the last.
    pub fn begin(&mut self, size: u64) {
        assert!(self.open == 0 && self.place == Place::MoreToCome, "no chunk begins here");
        self.open = size;
    }

    /// The last chunk of the message begins.
    ///
    /// # Panics
    /// As [`ChunkScanner::begin`].
    pub fn begin_last(&mut self, size: u64) {
        self.begin(size);
        self.place = Place::Last;
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
    ///
    /// A CR at the end of a chunk is a bare CR only if the message ends there.
    pub fn findings(&self) -> Findings {
        match (self.open, self.place) {
            (0, Place::Last) => self.survey.findings_at_end(),
            (_, Place::Last | Place::MoreToCome) => self.survey.findings(),
        }
    }
}

impl Default for ChunkScanner {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn chunks_end_where_they_said() {
        let mut scanner = ChunkScanner::new();
        scanner.begin(7);
        assert_eq!((scanner.scan(b"one"), scanner.open()), (3, 4));
        assert_eq!((scanner.scan(b"two\rNOOP\r\n"), scanner.open()), (4, 0));
        assert_eq!(scanner.findings(), Findings { size: 7, ..Findings::default() });
        scanner.begin_last(2);
        assert_eq!((scanner.scan(b"\n.QUIT"), scanner.open()), (2, 0));
        assert_eq!(scanner.findings(), Findings { size: 9, open_end: true, ..Findings::default() });
    }

    #[test]
    fn a_cr_at_the_end_is_bare() {
        let mut scanner = ChunkScanner::new();
        scanner.begin_last(2);
        scanner.scan(b"a");
        assert_eq!(scanner.findings(), Findings { size: 1, ..Findings::default() });
        scanner.scan(b"\r");
        let expected = Findings { size: 2, bare_cr: true, open_end: true, ..Findings::default() };
        assert_eq!(scanner.findings(), expected);
    }

    #[test]
    fn a_size_beyond_memory_is_counted() {
        let mut scanner = ChunkScanner::new();
        scanner.begin(u64::MAX);
        assert_eq!(scanner.scan(b"abc"), 3);
        assert_eq!(scanner.open(), u64::MAX - 3);
    }
}
