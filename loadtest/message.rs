//! Messages that know who they are: made by the source, recognised by the sink.
//!
//! ```text
//!  X-Load: <run> <number> <recipients> <length> <checksum>     the mark, always our first field
//!  From: ... (other fields)                                    from here on, `length` bytes are summed up
//!
//!  ..a line that begins with a dot
//!  printable noise
//! ```

use std::fmt::Write as _;
use std::str;

use bytes::Bytes;
use memchr::memmem;

use crate::random::Random;

/// What a message says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The source that made it.
    pub run: u64,
    /// Its number among those of the run, from 0.
    pub number: u64,
    /// How many recipients it was sent to.
    pub recipients: u32,
    /// How many bytes follow the mark.
    pub length: u64,
    /// CRC-32C of them.
    pub checksum: u32,
}

const FIELD: &str = "X-Load: ";
/// The most that a field of ours takes, and the most header that is searched for it.
const HEADER_MAX: usize = 64 << 10;
/// How much noise there is. Larger than any compressor's window that a mail server would use on one message.
const NOISE: usize = 4 << 20;
/// On the wire, the first dot is doubled (RFC 5321 §4.5.2).
const DOTTED: [&[u8]; 2] = [b".a line that begins with a dot\r\n", b"..a line that begins with a dot\r\n"];

impl Mark {
    fn parse(field: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(field).ok()?.split(' ');
        let mark = Self {
            run: u64::from_str_radix(words.next()?, 16).ok()?,
            number: words.next()?.parse().ok()?,
            recipients: words.next()?.parse().ok()?,
            length: words.next()?.parse().ok()?,
            checksum: u32::from_str_radix(words.next()?, 16).ok()?,
        };
        words.next().is_none().then_some(mark)
    }
}

/// Whether dots at the beginning of lines are doubled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is, for BDAT.
    Plain,
    /// As DATA wants it.
    Stuffed,
}

/// Makes messages without writing more than their headers.
pub struct Maker {
    run: u64,
    noise: Bytes,
    random: Random,
}

/// One message in pieces, ready to be sent.
#[derive(Debug)]
pub struct Message {
    /// The header, the empty line and the line with the dot.
    pub header: String,
    /// The body but for its end.
    pub body: Bytes,
    /// What makes the last line whole.
    pub end: &'static [u8],
    /// Bytes in all; a doubled dot counts once (RFC 1870 §3).
    pub size: usize,
}

impl Message {
    /// The pieces in order.
    pub fn pieces(&self) -> [&[u8]; 3] {
        [self.header.as_bytes(), &self.body, self.end]
    }
}

impl Maker {
    /// For one run. The same run gives the same messages.
    pub fn new(run: u64) -> Self {
        let mut random = Random::new(run);
        let mut noise = Vec::with_capacity(NOISE + 16);
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        while noise.len() < NOISE {
            for _ in 0..8 {
                let mut bits = random.next();
                for _ in 0..9 {
                    noise.push(ALPHABET[(bits & 63) as usize]);
                    bits >>= 6;
                }
            }
            noise.extend_from_slice(b"\r\n");
        }
        Self { run, noise: noise.into(), random }
    }

    /// A message of that many bytes, or as few more as it takes. Sizes are those before dots are doubled.
    pub fn make(&mut self, number: u64, recipients: u32, size: usize, from: &str, form: Form) -> Message {
        const LINE: usize = 74;
        let (run, mut fields) = (self.run, String::with_capacity(512));
        let _ = write!(
            fields,
            "From: <{from}>\r\nTo: load test:;\r\nSubject: load {number}\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\
             Message-ID: <{run:016x}.{number}@load.invalid>\r\n\r\n"
        );
        let plain = fields.len() + DOTTED[0].len();
        let mark_about = FIELD.len() + 16 + 1 + 10 + 1 + 3 + 1 + 8 + 1 + 8 + 2;
        let wanted = size.saturating_sub(plain + mark_about).min(64 << 20);
        let first_line = self.random.below((self.noise.len() / LINE) as u64) as usize * LINE;
        let (body, end) = self.body(first_line, wanted);
        let mut checksum = crc32c::crc32c(fields.as_bytes());
        for piece in [DOTTED[0], &body, end] {
            checksum = crc32c::crc32c_append(checksum, piece);
        }
        let length = plain + body.len() + end.len();
        let mut header = String::with_capacity(fields.len() + 160);
        let _ = write!(header, "{FIELD}{run:016x} {number} {recipients} {length} {checksum:08x}\r\n{fields}");
        let dotted = match form {
            Form::Plain => DOTTED[0],
            Form::Stuffed => DOTTED[1],
        };
        let size = header.len() + DOTTED[0].len() + body.len() + end.len();
        header.push_str(str::from_utf8(dotted).expect("it is ASCII"));
        Message { header, body, end, size }
    }

    /// That many bytes of noise in whole lines.
    fn body(&self, first: usize, wanted: usize) -> (Bytes, &'static [u8]) {
        if wanted == 0 {
            return (Bytes::new(), b"");
        }
        if wanted > self.noise.len() - first {
            // Too long for a slice of what there is.
            let mut long = Vec::with_capacity(wanted);
            while long.len() < wanted {
                let piece = &self.noise[first..];
                long.extend_from_slice(&piece[..piece.len().min(wanted - long.len())]);
            }
            return whole_lines(long.into());
        }
        whole_lines(self.noise.slice(first..first + wanted))
    }
}

/// Cuts the last bytes off so that what replaces them ends the last line.
fn whole_lines(body: Bytes) -> (Bytes, &'static [u8]) {
    if body.ends_with(b"\r\n") {
        return (body, b"");
    }
    let kept = body.slice(..body.len().saturating_sub(2));
    // A CR alone must not be left over (RFC 5321 §2.3.8).
    if kept.ends_with(b"\r") { (kept.slice(..kept.len() - 1), b"x\r\n") } else { (kept, b"\r\n") }
}

/// Looks at a message as it arrives: finds the mark, and sums up what follows.
#[derive(Debug, Default)]
pub struct Inspector {
    /// The header up to the mark.
    header: Vec<u8>,
    mark: Option<Mark>,
    length: u64,
    checksum: u32,
}

/// What became of a message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it was sent.
    Intact(Mark),
    /// One of ours, but other bytes.
    Damaged(Mark),
    /// None of ours.
    Foreign,
}

impl Inspector {
    /// The next bytes of the message, without doubled dots.
    pub fn add(&mut self, mut bytes: &[u8]) {
        if self.mark.is_none() {
            if self.header.len() >= HEADER_MAX {
                return;
            }
            let before = self.header.len();
            self.header.extend_from_slice(bytes);
            let Some((mark, end)) = find(&self.header) else { return };
            self.mark = Some(mark);
            bytes = &bytes[end - before..];
            self.header = Vec::new();
        }
        self.length += bytes.len() as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, bytes);
    }

    /// The message has ended.
    pub fn end(self) -> Verdict {
        match self.mark {
            None => Verdict::Foreign,
            Some(mark) if (mark.length, mark.checksum) == (self.length, self.checksum) => {
                Verdict::Intact(mark)
            }
            Some(mark) => Verdict::Damaged(mark),
        }
    }
}

/// The mark, and where the line after it begins.
fn find(header: &[u8]) -> Option<(Mark, usize)> {
    let start = if header.starts_with(FIELD.as_bytes()) {
        FIELD.len()
    } else {
        memmem::find(header, b"\r\nX-Load: ")? + 2 + FIELD.len()
    };
    let length = memmem::find(&header[start..], b"\r\n")?;
    Some((Mark::parse(&header[start..start + length])?, start + length + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_known_again() {
        let mut maker = Maker::new(7);
        for (number, size) in (0..).zip([0, 1, 300, 4096, 4097, 4098, 4099, 70_000, 9 << 20]) {
            let message = maker.make(number, 3, size, "ann@example.org", Form::Plain);
            assert!(size <= 400 || message.size.abs_diff(size) < 24, "{size} became {}", message.size);
            let bytes = message.pieces().concat();
            assert_eq!(bytes.len(), message.size);
            assert!(bytes.ends_with(b"\r\n"));
            let breaks = memmem::find_iter(&bytes, b"\r\n").count();
            assert_eq!(memchr::memchr_iter(b'\r', &bytes).count(), breaks, "no CR alone");
            assert_eq!(memchr::memchr_iter(b'\n', &bytes).count(), breaks, "no LF alone");
            assert!(bytes.split(|byte| *byte == b'\n').all(|line| line.len() <= 999), "RFC 5322 §2.1.1");
            for step in [1000, bytes.len(), 1 + bytes.len() / 2] {
                let mut inspector = Inspector::default();
                inspector.add(b"Received: from somewhere\r\n by elsewhere\r\n");
                bytes.chunks(step).for_each(|piece| inspector.add(piece));
                let Verdict::Intact(mark) = inspector.end() else { panic!("{size}: not intact") };
                assert_eq!((mark.run, mark.number, mark.recipients), (7, number, 3));
            }
        }
    }

    #[test]
    fn one_changed_byte_is_damage() {
        let mut bytes = Maker::new(1).make(5, 1, 1000, "", Form::Plain).pieces().concat();
        *bytes.last_mut().unwrap() ^= 1;
        let mut inspector = Inspector::default();
        inspector.add(&bytes);
        assert!(matches!(inspector.end(), Verdict::Damaged(mark) if mark.number == 5));
        let mut inspector = Inspector::default();
        inspector.add(b"Subject: hello\r\n\r\nbody\r\n");
        assert_eq!(inspector.end(), Verdict::Foreign);
    }
}
