//! Command lines in a stream of bytes. Only CRLF ends one (RFC 5321 §2.3.8).

use memchr::memchr_iter;

/// Finds the command lines in what a connection has received, without looking at a byte twice.
///
/// An over-long line is dropped as it arrives, so that its sender cannot make us keep it.
#[derive(Debug)]
pub struct LineScanner {
    line_max: usize,
    /// Bytes of the input already looked at, when the last answer was [`Line::Partial`].
    scanned: usize,
    /// Bytes of the present over-long line already dropped.
    dropped: usize,
}

/// What the input begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line: this many bytes, with its CRLF. Remove them.
    Complete {
        /// Bytes, with the CRLF.
        len: usize,
    },
    /// Not yet a line. Keep the bytes and call again with more behind them.
    Partial,
    /// A piece of an over-long line. Remove the bytes and call again.
    Excess {
        /// Bytes to remove.
        len: usize,
    },
    /// The end of an over-long line. Remove the bytes and tell [`crate::Session::on_line_too_long`].
    TooLong {
        /// Bytes to remove, with the CRLF.
        len: usize,
    },
    /// A line that grows without end. Tell [`crate::Session::on_line_endless`].
    Endless,
}

const LINE_MAX_MIN: usize = 512;

/// How much of one over-long line is read before the client is told to go.
const DROPPED_MAX: usize = 1 << 20;

impl LineScanner {
    /// Lines of at most `line_max` bytes, the CRLF counted; 512 is the least (RFC 5321 §4.5.3.1.4).
    pub const fn new(line_max: usize) -> Self {
        let line_max = if line_max < LINE_MAX_MIN { LINE_MAX_MIN } else { line_max };
        Self { line_max, scanned: 0, dropped: 0 }
    }

    /// Looks for the end of the line that `input` begins with.
    ///
    /// After [`Line::Partial`] the next input must begin with the same bytes.
    pub fn find(&mut self, input: &[u8]) -> Line {
        let window = &input[..input.len().min(self.line_max)];
        let fresh = window.get(self.scanned..).unwrap_or_default();
        let end = memchr_iter(b'\n', fresh)
            .map(|at| self.scanned + at)
            .find(|at| *at > 0 && input[at - 1] == b'\r');
        self.scanned = 0;
        match end {
            Some(at) if self.dropped > 0 => {
                self.dropped = 0;
                Line::TooLong { len: at + 1 }
            }
            Some(at) => Line::Complete { len: at + 1 },
            None if input.len() < self.line_max => {
                self.scanned = input.len();
                Line::Partial
            }
            None => self.drop_excess(window),
        }
    }

    fn drop_excess(&mut self, window: &[u8]) -> Line {
        // A CR at the end stays, in case its LF comes next.
        let len = window.len() - usize::from(window.len() > 1 && window.ends_with(b"\r"));
        self.dropped = self.dropped.saturating_add(len);
        if self.dropped > DROPPED_MAX { Line::Endless } else { Line::Excess { len } }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    /// Feeds the input in steps and notes what is found.
    fn scan(input: &[u8], step: usize) -> Vec<String> {
        let mut scanner = LineScanner::new(0);
        let (mut buffer, mut found) = (Vec::new(), Vec::new());
        for piece in input.chunks(step) {
            buffer.extend(piece);
            loop {
                let len = match scanner.find(&buffer) {
                    Line::Complete { len } => {
                        found.push(String::from_utf8_lossy(&buffer[..len - 2]).into_owned());
                        len
                    }
                    Line::TooLong { len } => {
                        found.push("too long".into());
                        len
                    }
                    Line::Excess { len } => len,
                    Line::Partial => break,
                    Line::Endless => {
                        found.push("endless".into());
                        return found;
                    }
                };
                assert!(len > 0, "no progress");
                buffer.drain(..len);
            }
            assert!(buffer.len() <= 512, "the scanner lets {} bytes gather", buffer.len());
        }
        found
    }

    fn check(input: &[u8], expected: &[&str]) {
        for step in [1, 2, 3, 7, 511, 512, 513, usize::MAX] {
            assert_eq!(scan(input, step), expected, "in steps of {step}");
        }
    }

    #[test]
    fn only_crlf_ends_a_line() {
        check(b"", &[]);
        check(b"NOOP\r\n\r\nQUIT\r\nrest", &["NOOP", "", "QUIT"]);
        check(b"a\nb\rc\r\n", &["a\nb\rc"]);
        check(b"\n\r\r\n", &["\n\r"]);
    }

    #[test]
    fn long_lines_are_dropped() {
        let lines: Vec<u8> = [510, 511, 512, 4000]
            .iter()
            .flat_map(|n| ["x".repeat(*n), "\r\n".into()].concat().into_bytes())
            .collect();
        check(&lines, &[&"x".repeat(510), "too long", "too long", "too long"]);
        check(
            &[b"x".repeat(511), b"\n".repeat(600), b"\r\nQUIT\r\n".to_vec()].concat(),
            &["too long", "QUIT"],
        );
        assert_eq!(scan(&vec![b'x'; 2 << 20], 4096), ["endless"]);
    }
}
