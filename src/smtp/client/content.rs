//! How content goes out: stuffed with dots behind DATA, as it is behind BDAT.

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;

/// How the driver must send the content of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Dot-stuffed, with the final dot (RFC 5321 §4.5.2).
    Dot,
    /// As it is: the size already stands in the `BDAT` command (RFC 3030 §2).
    Bdat,
}

const LINE_DOT: &[u8] = b"\r\n.";

static LINE_DOT_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(LINE_DOT));

impl Framing {
    /// Appends to `out` the slices that carry this content over the wire. No content is copied.
    pub fn frame(self, content: &[Bytes], out: &mut Vec<Bytes>) {
        match self {
            Self::Dot => dot_stuff(content, out),
            Self::Bdat => out.extend(content.iter().filter(|slice| !slice.is_empty()).cloned()),
        }
    }
}

/// Appends the content with a dot before each line that begins with one, and the final dot.
///
/// A dot is doubled by two slices that share it, so nothing is copied. Content that does not end
/// in CRLF gets one (RFC 5321 §4.1.1.4).
pub fn dot_stuff(content: &[Bytes], out: &mut Vec<Bytes>) {
    // The last two octets before the current slice; content begins as if a line had ended.
    let mut tail = *b"\r\n";
    for slice in content.iter().filter(|slice| !slice.is_empty()) {
        let mut start = 0;
        let mut double = |dot: usize| {
            out.push(slice.slice(start..=dot));
            start = dot;
        };
        // CRLF and dot may lie on both sides of the border.
        match (tail, &slice[..]) {
            ([b'\r', b'\n'], [b'.', ..]) => double(0),
            ([_, b'\r'], [b'\n', b'.', ..]) => double(1),
            _ => {}
        }
        for line_end in LINE_DOT_FINDER.find_iter(slice) {
            double(line_end + 2);
        }
        out.push(slice.slice(start..));
        tail = match slice[..] {
            [.., a, b] => [a, b],
            [b] => [tail[1], b],
            [] => tail,
        };
    }
    let end: &'static [u8] = if tail == *b"\r\n" { b".\r\n" } else { b"\r\n.\r\n" };
    out.push(Bytes::from_static(end));
}

#[cfg(test)]
mod test {
    use super::*;

    /// The same content cut at every place, and into single octets, must give the same bytes.
    fn check(content: &str, expected: &str) {
        let whole = Bytes::copy_from_slice(content.as_bytes());
        let octets: Vec<_> = (0..whole.len()).map(|i| whole.slice(i..=i)).collect();
        let cuts = (0..=whole.len()).map(|cut| vec![whole.slice(..cut), whole.slice(cut..)]);
        for slices in cuts.chain([octets]) {
            let mut out = Vec::new();
            dot_stuff(&slices, &mut out);
            let bytes = out.concat();
            assert_eq!(String::from_utf8_lossy(&bytes), expected, "{slices:?}");
            out.clear();
            Framing::Bdat.frame(&slices, &mut out);
            assert_eq!(out.concat(), content.as_bytes());
        }
    }

    #[test]
    fn dots_are_doubled_and_the_end_is_marked() {
        check("", ".\r\n");
        check("a\r\n", "a\r\n.\r\n");
        check("a", "a\r\n.\r\n");
        check("a\r", "a\r\r\n.\r\n");
        check("a\n", "a\n\r\n.\r\n");
        check(".", "..\r\n.\r\n");
        check(".\r\n", "..\r\n.\r\n");
        check("..\r\n.\r\n", "...\r\n..\r\n.\r\n");
        check("a.\r\n.b\r\n\r\n.\r\n", "a.\r\n..b\r\n\r\n..\r\n.\r\n");
        check("\r\n.\r\n.\r\n.c", "\r\n..\r\n..\r\n..c\r\n.\r\n");
        check("a\n.b\r.c\r\n", "a\n.b\r.c\r\n.\r\n");
    }
}
