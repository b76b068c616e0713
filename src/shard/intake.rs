//! Mail data on its way in: slices of what was received, the header section read as it passes, large mail
//! written out before its end.

use std::ops::Range;

use bytes::Bytes;
use message::{HeaderLimits, HeaderScan, HeaderSummary};
use smtp::{ChunkScanner, Findings, MailDataScanner, Piece, Progress};
use trust::{Digest, Digester};

/// The mail data of one message.
pub(crate) struct Intake {
    scanner: Scanner,
    header: HeaderScan,
    /// What is in memory: the end of the message, or all of it.
    content: Vec<Bytes>,
    /// Octets in `content`.
    held: u64,
    /// Octets that we put behind what came.
    added: u64,
    size_max: u64,
    /// What reads along.
    digester: Option<Box<Digester>>,
}

enum Scanner {
    Data(MailDataScanner),
    Chunks(ChunkScanner),
}

/// What one look at the input found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// More is to come.
    More,
    /// The mail data, or the chunk, is complete.
    End,
}

impl Intake {
    /// For what follows DATA.
    pub(crate) fn data(limits: HeaderLimits, size_max: u64) -> Self {
        Self::new(Scanner::Data(MailDataScanner::new()), limits, size_max)
    }

    /// For what follows the BDATs of one message.
    pub(crate) fn chunks(limits: HeaderLimits, size_max: u64) -> Self {
        Self::new(Scanner::Chunks(ChunkScanner::new()), limits, size_max)
    }

    fn new(scanner: Scanner, limits: HeaderLimits, size_max: u64) -> Self {
        let header = HeaderScan::new(limits);
        Self { scanner, header, content: Vec::new(), held: 0, added: 0, size_max, digester: None }
    }

    /// Has this read along, from the first octet on.
    pub(crate) fn digest_by(&mut self, digester: Digester) {
        self.digester = Some(Box::new(digester));
    }

    /// What has read along, when all has come.
    pub(crate) fn digest(&mut self) -> Option<Digest> {
        self.digester.take().map(|digester| digester.finish())
    }

    /// Where the body begins, for whoever reads along.
    pub(crate) fn body_start(&self) -> Option<usize> {
        self.digester.as_ref()?.body_start()
    }

    /// A chunk of so many octets begins.
    ///
    /// # Panics
    /// When this is not for chunks.
    pub(crate) fn begin_chunk(&mut self, size: u64) {
        let Scanner::Chunks(scanner) = &mut self.scanner else { panic!("a chunk within DATA") };
        scanner.begin(size);
    }

    /// Takes what belongs to the mail data out of `input`.
    pub(crate) fn receive(&mut self, input: &mut ring::Input) -> Found {
        match &mut self.scanner {
            Scanner::Data(scanner) => {
                let mut pieces = Pieces::default();
                let available = input.len();
                let progress = scanner.scan(input.bytes(), |piece| pieces.push(piece));
                let (consumed, found) = match progress {
                    Progress::More => (available, Found::More),
                    Progress::Ended { consumed } => (consumed, Found::End),
                };
                if pieces.are_crumbs(consumed) {
                    // As slices they would take more memory than their content does.
                    let gathered = pieces.gather(input.bytes());
                    input.consume(consumed);
                    self.keep(gathered);
                    return found;
                }
                let received = input.take(consumed);
                pieces.for_each(|piece| {
                    self.keep(match piece {
                        Piece::Input(range) => received.slice(range),
                        Piece::CarriedCr => Bytes::from_static(b"\r"),
                    });
                });
                found
            }
            Scanner::Chunks(scanner) => {
                let len = scanner.scan(input.bytes());
                let found = if scanner.open() == 0 { Found::End } else { Found::More };
                let received = input.take(len);
                if !received.is_empty() {
                    self.keep(received);
                }
                found
            }
        }
    }

    /// Takes a slice that is mail data as a whole, as a chunk of its own.
    ///
    /// # Panics
    /// When this is not for chunks.
    pub(crate) fn receive_slice(&mut self, slice: Bytes) {
        self.begin_chunk(slice.len() as u64);
        let Scanner::Chunks(scanner) = &mut self.scanner else { unreachable!("a chunk has begun") };
        let len = scanner.scan(&slice);
        assert_eq!(len, slice.len(), "a chunk takes what was announced");
        if !slice.is_empty() {
            self.keep(slice);
        }
    }

    fn keep(&mut self, slice: Bytes) {
        if !self.header.is_done() {
            self.header.push(&slice);
        }
        // What is too large is read to its end, for the sake of the reply, but not kept.
        if self.findings().size > self.size_max {
            self.content.clear();
            self.held = 0;
            return;
        }
        if let Some(digester) = &mut self.digester {
            digester.push(&slice);
        }
        self.held += slice.len() as u64;
        self.content.push(slice);
    }

    /// What is known of the octets so far.
    pub(crate) fn findings(&self) -> Findings {
        match &self.scanner {
            Scanner::Data(scanner) => scanner.findings(),
            Scanner::Chunks(scanner) => scanner.findings(),
        }
    }

    /// Octets held in memory.
    pub(crate) const fn held(&self) -> u64 {
        self.held
    }

    /// Whether the header section has been read, so that what is held may be written out.
    pub(crate) fn header_done(&self) -> bool {
        self.header.is_done() && self.digester.as_ref().is_none_or(|digester| digester.body_start().is_some())
    }

    /// The mail data is complete. Lines that came in chunks may lack the end of the last one (RFC 3030 §2 says nothing
    /// of it); whoever gets them by DATA would not find the final dot.
    pub(crate) fn close_last_line(&mut self) {
        if self.findings().open_end {
            self.held += 2;
            self.added += 2;
            if let Some(digester) = &mut self.digester {
                digester.push(b"\r\n");
            }
            self.content.push(Bytes::from_static(b"\r\n"));
        }
    }

    /// Octets of the content.
    pub(crate) fn size(&self) -> u64 {
        self.findings().size + self.added
    }

    /// Takes what is held.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        self.held = 0;
        std::mem::take(&mut self.content)
    }

    /// What is held, while nothing was taken: for looking at header fields.
    pub(crate) fn content(&self) -> &[Bytes] {
        &self.content
    }

    /// What the header section has.
    pub(crate) fn summary(&self) -> HeaderSummary {
        self.header.clone().finish()
    }
}

/// Pieces of one input: nearly always one, which costs no allocation.
#[derive(Default)]
struct Pieces {
    first: Option<Piece>,
    more: Vec<Piece>,
}

impl Pieces {
    fn push(&mut self, piece: Piece) {
        match self.first {
            None => self.first = Some(piece),
            Some(_) => self.more.push(piece),
        }
    }

    fn for_each(self, keep: impl FnMut(Piece)) {
        self.first.into_iter().chain(self.more).for_each(keep);
    }

    /// Whether there are so many that each is small.
    fn are_crumbs(&self, octets: usize) -> bool {
        const SLICE_MIN: usize = 256;
        self.more.len() > octets / SLICE_MIN
    }

    fn gather(self, input: &[u8]) -> Bytes {
        let mut gathered = Vec::with_capacity(input.len());
        self.for_each(|piece| match piece {
            Piece::Input(range) => gathered.extend_from_slice(&input[range]),
            Piece::CarriedCr => gathered.push(b'\r'),
        });
        gathered.into()
    }
}

/// The text of a header field's value, cut to `max` octets, for the log.
pub(crate) fn field_text(content: &[Bytes], range: Range<usize>, max: usize) -> String {
    let end = range.end.min(range.start.saturating_add(max));
    let value = message::content::gather(content, range.start..end);
    String::from_utf8_lossy(&value).trim().to_owned()
}

#[cfg(test)]
mod test {
    use super::*;

    fn pieces(ranges: &[(usize, usize)]) -> Pieces {
        let mut pieces = Pieces::default();
        ranges.iter().for_each(|(start, end)| pieces.push(Piece::Input(*start..*end)));
        pieces
    }

    #[test]
    fn crumbs_are_gathered_and_slices_are_not() {
        assert!(!pieces(&[(0, 4000)]).are_crumbs(4000));
        assert!(!pieces(&[(0, 2000), (2001, 4000)]).are_crumbs(4000));
        let many: Vec<_> = (0..1000).map(|n| (n * 4 + 1, n * 4 + 4)).collect();
        assert!(pieces(&many).are_crumbs(4000));
        assert_eq!(&pieces(&[(1, 2), (3, 5)]).gather(b"abcdef")[..], b"bde");
    }
}
