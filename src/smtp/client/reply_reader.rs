//! Bytes in, complete replies out (RFC 5321 §4.2.1).
//!
//! Nothing here trusts the next hop: every length has a bound, and the text it gives is free of
//! control characters and is UTF-8, so that it may go into logs and reports.

use std::mem;

use mail::Status;
use memchr::memchr;

use super::Reply;

/// Gathers the replies of one connection.
#[derive(Debug)]
pub struct ReplyReader {
    limits: ReplyLimits,
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    /// What the finished lines of an unfinished reply gave.
    draft: Draft,
}

/// Upper bounds of one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Octets in a line with its end; at least 512 (RFC 5321 §4.5.3.1.5).
    pub line_max: usize,
    /// Lines in a reply.
    pub lines_max: usize,
    /// Octets of text that are kept; what is longer is cut.
    pub text_max: usize,
}

/// The bytes are not a reply. The connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line does not begin with a reply code and a space, a hyphen or its end.
    #[error("the next hop did not speak SMTP")]
    Syntax,
    /// A line is longer than `line_max`.
    #[error("the next hop sent an overlong reply line")]
    LineTooLong,
    /// A reply has more lines than `lines_max`.
    #[error("the next hop sent a reply of too many lines")]
    TooManyLines,
}

#[derive(Debug, Default)]
struct Draft {
    lines: usize,
    status: Option<Status>,
    text: String,
}

impl Default for ReplyLimits {
    /// Four times the line of RFC 5321 §4.5.3.1.5, and text enough for any reply to EHLO.
    fn default() -> Self {
        Self { line_max: 2048, lines_max: 128, text_max: 4096 }
    }
}

impl ReplyReader {
    /// A reader for a fresh connection.
    pub fn new(limits: ReplyLimits) -> Self {
        Self { limits, line: Vec::new(), draft: Draft::default() }
    }

    /// Takes bytes off the front of `input` until a reply is complete or nothing is left.
    ///
    /// # Errors
    /// [`ReplyError`]: the connection must be given up.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, ReplyError> {
        loop {
            // Looser than RFC 5321 §2.3.8: a bare LF ends a reply's line, for old servers.
            let end = memchr(b'\n', input);
            let length = end.map_or(input.len(), |end| end + 1);
            if self.line.len() + length > self.limits.line_max {
                return Err(ReplyError::LineTooLong);
            }
            let (head, rest) = input.split_at(length);
            *input = rest;
            if end.is_none() {
                self.line.extend_from_slice(head);
                return Ok(None);
            }
            let reply = if self.line.is_empty() {
                self.on_line(head)?
            } else {
                self.line.extend_from_slice(head);
                let line = mem::take(&mut self.line);
                self.on_line(&line)?
            };
            if reply.is_some() {
                return Ok(reply);
            }
        }
    }

    /// Whether no reply has begun: what was read ends with the end of a reply.
    pub fn is_between_replies(&self) -> bool {
        self.line.is_empty() && self.draft.lines == 0
    }

    fn on_line(&mut self, line: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, rest) = line.split_first_chunk::<3>().ok_or(ReplyError::Syntax)?;
        let code = reply_code(*code).ok_or(ReplyError::Syntax)?;
        let (last, text) = match rest {
            // A client "SHOULD be prepared to process the code alone" (RFC 5321 §4.2).
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return Err(ReplyError::Syntax),
        };
        if self.draft.lines >= self.limits.lines_max {
            return Err(ReplyError::TooManyLines);
        }
        self.draft.push(code, text, self.limits.text_max);
        if !last {
            return Ok(None);
        }
        // The code must be the same on all lines (RFC 5321 §4.2.1); where it is not, the last one counts.
        let status = self.draft.status.filter(|status| u16::from(status.0) == code / 100);
        let reply = Reply::new(code, status, &self.draft.text);
        self.draft.lines = 0;
        self.draft.status = None;
        self.draft.text.clear();
        Ok(Some(reply))
    }
}

impl Draft {
    fn push(&mut self, code: u16, text: &[u8], text_max: usize) {
        let text = String::from_utf8_lossy(text);
        let (status, text) = split_status(&text, code);
        if self.lines == 0 {
            self.status = status;
        } else {
            push_bounded(&mut self.text, '\n', text_max);
        }
        self.lines += 1;
        for c in text.trim_end().chars() {
            let c = match c {
                '\t' => ' ',
                c if c.is_control() => '?',
                c => c,
            };
            push_bounded(&mut self.text, c, text_max);
        }
    }
}

/// The status stands on every line of a reply (RFC 2034 §4); its class must be the code's.
fn split_status(text: &str, code: u16) -> (Option<Status>, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word.parse::<Status>() {
        Ok(status) if u16::from(status.0) == code / 100 => (Some(status), rest.trim_start()),
        Ok(_) | Err(_) => (None, text),
    }
}

fn push_bounded(text: &mut String, c: char, text_max: usize) {
    if text.len() + c.len_utf8() <= text_max {
        text.push(c);
    }
}

fn reply_code(digits: [u8; 3]) -> Option<u16> {
    let valid = matches!(digits[0], b'2'..=b'5') && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0')))
}

#[cfg(test)]
mod test {
    use super::*;

    const LIMITS: ReplyLimits = ReplyLimits { line_max: 64, lines_max: 3, text_max: 40 };

    /// All replies, whatever the pieces that the bytes come in.
    fn check(bytes: &[u8], expected: &[&str]) {
        for piece in [1, 2, 3, 7, bytes.len().max(1)] {
            let (mut reader, mut found) = (ReplyReader::new(LIMITS), Vec::new());
            'pieces: for mut input in bytes.chunks(piece) {
                loop {
                    match reader.read(&mut input) {
                        Ok(Some(reply)) => found.push(reply.to_string()),
                        Ok(None) => break,
                        Err(error) => {
                            found.push(format!("! {error:?}"));
                            break 'pieces;
                        }
                    }
                }
            }
            assert_eq!(found, expected, "{:?} in pieces of {piece}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn replies_as_servers_send_them() {
        check(b"", &[]);
        check(b"250 ok\r\n", &["250 ok"]);
        check(b"250 ok\r\n354 go\r\n", &["250 ok", "354 go"]);
        check(b"250\r\n", &["250"]);
        check(b"250 ok\n", &["250 ok"]);
        check(b"250-mx\r\n250-SIZE 10\r\n250 DSN\r\n", &["250 mx SIZE 10 DSN"]);
        check(b"550-5.1.1 no\r\n550 5.1.1 user\r\n", &["550 5.1.1 no user"]);
        check(b"550 5.1.1\r\n", &["550 5.1.1"]);
    }

    #[test]
    fn a_status_must_agree_with_the_code() {
        check(b"550 2.1.1 odd\r\n", &["550 2.1.1 odd"]);
        let mut reader = ReplyReader::new(LIMITS);
        let reply = reader.read(&mut &b"550 2.1.1 odd\r\n"[..]).unwrap().unwrap();
        assert_eq!(reply.status(), None);
        let reply = reader.read(&mut &b"250-2.1.1 odd\r\n550 5.1.1 x\r\n"[..]).unwrap().unwrap();
        assert_eq!((reply.code(), reply.status()), (550, None));
        let reply = reader.read(&mut &b"452 4.3.1 full\r\n"[..]).unwrap().unwrap();
        assert_eq!((reply.status(), reply.text()), (Some(Status(4, 3, 1)), "full"));
    }

    #[test]
    fn text_is_made_harmless() {
        check(b"250 a\0b\x1b[31m\tc\rd\r\n", &["250 a?b?[31m c?d"]);
        check(b"250 \xff\xfe\r\n", &["250 \u{fffd}\u{fffd}"]);
        check(format!("250 {}\r\n", "x".repeat(50)).as_bytes(), &[&format!("250 {}", "x".repeat(40))]);
    }

    #[test]
    fn what_is_no_reply() {
        check(b"HTTP/1.1 400 Bad Request\r\n", &["! Syntax"]);
        check(b"\r\n", &["! Syntax"]);
        check(b"25\r\n", &["! Syntax"]);
        check(b"250_x\r\n", &["! Syntax"]);
        check(b"150 x\r\n", &["! Syntax"]);
        check(b"650 x\r\n", &["! Syntax"]);
        check(b"2a0 x\r\n", &["! Syntax"]);
        check(b"250 ok\r\nwhat\r\n", &["250 ok", "! Syntax"]);
        check(&[b'2'; 100], &["! LineTooLong"]);
        check(b"250-a\r\n250-b\r\n250-c\r\n250 d\r\n", &["! TooManyLines"]);
    }

    #[test]
    fn the_reader_knows_where_a_reply_ends() {
        let mut reader = ReplyReader::new(LIMITS);
        for (bytes, between) in [("250-a\r\n", false), ("250 b\r\n", true), ("2", false), ("50 c\r\n", true)]
        {
            let mut input = bytes.as_bytes();
            let _ = reader.read(&mut input).unwrap();
            assert_eq!(reader.is_between_replies(), between, "{bytes:?}");
        }
    }
}
