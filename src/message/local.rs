//! Content as programs of a system read it, and what whoever makes the final delivery puts before it.

use bytes::Bytes;
use mail::{ReversePath, Timestamp};

use crate::{content, date::date_text, field::each_field};

/// How content is to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Lines end with LF and not with CR LF.
    pub lf: bool,
    /// A line that begins with `From `, after any number of `>`, gets one more `>` (RFC 4155, mboxrd).
    pub quote_from: bool,
}

/// The line that parts messages in a file of mailboxes (RFC 4155): `From ann@example.org Thu Nov 20 09:05:00 2025`.
pub fn mbox_from(out: &mut Vec<u8>, reverse_path: &ReversePath, at: Timestamp) {
    let sender = reverse_path.address().map_or("MAILER-DAEMON", |address| address.as_str());
    let date = date_text(at);
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&date[range]).unwrap_or_default();
    // `Thu, 20 Nov 2025 09:05:00 +0000` in the order of asctime(3).
    let (day, number, month, year, time) = (text(0..3), text(5..7), text(8..11), text(12..16), text(17..25));
    let number = number.strip_prefix('0').map_or_else(|| number.to_owned(), |digit| format!(" {digit}"));
    // A sender with a space would look like two words.
    let sender = sender.replace([' ', '\t'], "-");
    out.extend_from_slice(format!("From {sender} {day} {month} {number} {time} {year}\r\n").as_bytes());
}

/// Whether a message was delivered to this address before, by its `Delivered-To` fields.
pub fn was_delivered_to(header: &[u8], address: &str) -> bool {
    each_field(header, "Delivered-To")
        .any(|value| value.trim_ascii().eq_ignore_ascii_case(address.as_bytes()))
}

/// The content behind what was put before it, which ends with CR LF as all of it does.
pub fn shape(before: &[u8], slices: &[Bytes], local: Local) -> Vec<u8> {
    let mut out = Vec::with_capacity(before.len() + content::len(slices));
    let mut writer = Writer { local, line: Line::Begins, cr: false };
    // What we have put there is no content, and is not quoted.
    Writer { local: Local { quote_from: false, ..local }, ..writer }.write(before, &mut out);
    for slice in slices {
        writer.write(slice, &mut out);
    }
    writer.finish(&mut out);
    out
}

/// Where a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Begins,
    /// Only `>` so far.
    Quoted,
    /// So many octets of `From ` after any `>`.
    From(usize),
    /// Anything else.
    Within,
}

const FROM: &[u8] = b"From ";

#[derive(Clone, Copy)]
struct Writer {
    local: Local,
    line: Line,
    /// A CR that may be the first half of a line's end.
    cr: bool,
}

impl Writer {
    fn write(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        if !self.local.lf && !self.local.quote_from {
            return out.extend_from_slice(octets);
        }
        for octet in octets {
            if std::mem::take(&mut self.cr) {
                if *octet == b'\n' {
                    if !self.local.lf {
                        out.push(b'\r');
                    }
                    out.push(b'\n');
                    self.line = Line::Begins;
                    continue;
                }
                // One that stands alone is content.
                out.push(b'\r');
                self.line = Line::Within;
            }
            if *octet == b'\r' {
                self.cr = true;
                continue;
            }
            self.put(*octet, out);
        }
    }

    fn put(&mut self, octet: u8, out: &mut Vec<u8>) {
        out.push(octet);
        self.line = match (self.line, octet) {
            // Whoever reads lines that end with LF sees one here as well.
            (_, b'\n') => Line::Begins,
            (Line::Begins | Line::Quoted, b'>') => Line::Quoted,
            (Line::Begins | Line::Quoted, b'F') => Line::From(1),
            (Line::From(count), octet) if FROM[count] == octet => Line::From(count + 1),
            (Line::Begins | Line::Quoted | Line::From(_) | Line::Within, _) => Line::Within,
        };
        if self.line == Line::From(FROM.len()) {
            if self.local.quote_from {
                let begins = out.len() - FROM.len();
                out.insert(begins, b'>');
            }
            self.line = Line::Within;
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.cr) {
            out.push(b'\r');
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const ALL: Local = Local { lf: true, quote_from: true };

    fn shaped(before: &str, slices: &[&str], local: Local) -> String {
        let slices: Vec<_> = slices.iter().map(|slice| Bytes::copy_from_slice(slice.as_bytes())).collect();
        String::from_utf8(shape(before.as_bytes(), &slices, local)).unwrap()
    }

    #[test]
    fn lines_end_as_they_are_to() {
        let lf = Local { lf: true, quote_from: false };
        assert_eq!(shaped("A: b\r\n", &["C: d\r", "\n\r\nx\ry\nz\r"], lf), "A: b\nC: d\n\nx\ry\nz\r");
        assert_eq!(shaped("A: b\r\n", &["C: d\r\n"], Local::default()), "A: b\r\nC: d\r\n");
        assert_eq!(shaped("", &[], lf), "");
    }

    #[test]
    fn lines_that_look_like_a_parting_are_quoted() {
        let content = ["A: b\r\n\r\nFr", "om here\r\n>From there\r\n>>Fro\r\n From x\r\nFrom\r\n>From ", "z"];
        let expected = "From a b\nA: b\n\n>From here\n>>From there\n>>Fro\n From x\nFrom\n>>From z";
        assert_eq!(shaped("From a b\r\n", &content, ALL), expected);
        // With CR LF as well, and behind an LF that stands alone.
        let crlf = Local { lf: false, quote_from: true };
        assert_eq!(shaped("", &["x\nFrom y\r\nFrom z"], crlf), "x\n>From y\r\n>From z");
    }

    #[test]
    fn the_line_between_messages() {
        let mut out = Vec::new();
        let at = Timestamp::from_secs(1_762_938_303);
        mbox_from(&mut out, &ReversePath::Null, at);
        mbox_from(&mut out, &ReversePath::Address("\"a b\"@x.test".parse().unwrap()), Timestamp::EPOCH);
        let expected =
            "From MAILER-DAEMON Wed Nov 12 09:05:03 2025\r\nFrom \"a-b\"@x.test Thu Jan  1 00:00:00 1970\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn circles_are_seen() {
        let header = b"Received: x\r\nDelivered-To: bob@x.test\r\ndelivered-to: Ann@x.test\r\n\r\nDelivered-To: eve@x.test\r\n";
        for (address, expected) in [("ann@x.test", true), ("bob@x.test", true), ("eve@x.test", false)] {
            assert_eq!(was_delivered_to(header, address), expected, "{address}");
        }
    }
}
