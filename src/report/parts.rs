//! A message as parts, for reading reports: as much MIME as they need (RFC 2045, 2046), with a bound on everything.
//!
//! Nothing here fails. What is not made as it should be has fewer parts, and a report that is not understood is no
//! report.

/// Header fields, unfolded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

/// A part that holds no others.
#[derive(Clone, Debug)]
pub(crate) struct Part<'a> {
    /// `type/subtype`, in lower case.
    pub(crate) kind: String,
    encoding: Encoding,
    body: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Plain,
    Base64,
    QuotedPrintable,
}

/// Fields of one header section, and octets of a value.
const FIELDS_MAX: usize = 200;
const VALUE_MAX: usize = 4096;
/// Parts of a message, and how deep they lie within each other.
const PARTS_MAX: usize = 32;
const DEPTH_MAX: usize = 4;

/// The header section of a message, and its parts in order.
pub(crate) fn of(message: &[u8]) -> (Fields, Vec<Part<'_>>) {
    let (fields, body) = Fields::read(message);
    let mut parts = Vec::new();
    gather(&fields, body, 0, &mut parts);
    (fields, parts)
}

fn gather<'a>(fields: &Fields, body: &'a [u8], depth: usize, parts: &mut Vec<Part<'a>>) {
    let content_type = fields.get("content-type").unwrap_or("text/plain");
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let boundary = parameter(content_type, "boundary").filter(|boundary| !boundary.is_empty());
    if let (true, Some(boundary)) = (kind.starts_with("multipart/") && depth < DEPTH_MAX, boundary) {
        for part in split(body, &boundary) {
            if parts.len() >= PARTS_MAX {
                return;
            }
            let (fields, body) = Fields::read(part);
            gather(&fields, body, depth + 1, parts);
        }
        return;
    }
    let encoding = fields.get("content-transfer-encoding").unwrap_or_default().trim().to_ascii_lowercase();
    let encoding = match encoding.as_str() {
        "base64" => Encoding::Base64,
        "quoted-printable" => Encoding::QuotedPrintable,
        _ => Encoding::Plain,
    };
    if parts.len() < PARTS_MAX {
        parts.push(Part { kind, encoding, body });
    }
}

impl Part<'_> {
    /// The text, at most so many octets of it.
    pub(crate) fn text(&self, octets_max: usize) -> String {
        String::from_utf8_lossy(&self.octets(octets_max)).into_owned()
    }

    /// What is in it, decoded, at most so many octets.
    pub(crate) fn octets(&self, octets_max: usize) -> Vec<u8> {
        // Either encoding has at most three octets, and a line end, for one.
        let body = &self.body[..self.body.len().min(octets_max.saturating_mul(4))];
        let mut decoded = match self.encoding {
            Encoding::Plain => body.to_vec(),
            Encoding::Base64 => base64(body),
            Encoding::QuotedPrintable => quoted_printable(body),
        };
        decoded.truncate(octets_max);
        decoded
    }
}

impl Fields {
    /// Up to the empty line; what follows is the body.
    pub(crate) fn read(octets: &[u8]) -> (Self, &[u8]) {
        let mut fields: Vec<(String, String)> = Vec::new();
        let (mut rest, mut is_cut) = (octets, false);
        while !rest.is_empty() {
            let (line, behind) = line(rest);
            rest = behind;
            if line.is_empty() {
                break;
            }
            let text = String::from_utf8_lossy(line);
            if text.starts_with([' ', '\t']) {
                // What is behind a line that had no room would say something else without it.
                is_cut |= fields.last().is_none_or(|(_, value)| value.len() + text.len() >= VALUE_MAX);
                if let Some((_, value)) = fields.last_mut().filter(|_| !is_cut) {
                    value.push(' ');
                    value.push_str(text.trim());
                }
                continue;
            }
            // A line that is no field, or one too many, has its lines behind it as well.
            is_cut = true;
            if let Some((name, value)) = text.split_once(':')
                && fields.len() < FIELDS_MAX
            {
                let value = value.trim();
                is_cut = value.len() > VALUE_MAX;
                let value = &value[..value.floor_char_boundary(VALUE_MAX)];
                fields.push((name.trim_end().to_ascii_lowercase(), value.to_owned()));
            }
        }
        (Self(fields), rest)
    }

    /// The first field of that name, given in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// All fields of that name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Names, in lower case, and values, from the first on.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A parameter of a `Content-Type`, its quotes removed.
pub(crate) fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value;
    while let Some(at) = rest.find(';') {
        rest = rest[at + 1..].trim_start();
        let (key, behind) = rest.split_once('=')?;
        if !key.trim().eq_ignore_ascii_case(name) {
            continue;
        }
        let behind = behind.trim_start();
        return Some(match behind.strip_prefix('"') {
            Some(quoted) => {
                let mut text = String::new();
                let mut chars = quoted.chars();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    text.extend(if c == '\\' { chars.next() } else { Some(c) });
                }
                text
            }
            None => behind.split([';', ' ', '\t']).next().unwrap_or_default().to_owned(),
        });
    }
    None
}

/// What stands between the lines that are the boundary.
fn split<'a>(body: &'a [u8], boundary: &str) -> Vec<&'a [u8]> {
    let (mut parts, mut start, mut at) = (Vec::new(), None, 0);
    while at < body.len() && parts.len() < PARTS_MAX {
        let (line, behind) = line(&body[at..]);
        let next = body.len() - behind.len();
        let text = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary.as_bytes()));
        match text.map(<[u8]>::trim_ascii_end) {
            Some(b"") => {
                parts.extend(start.map(|start| &body[start..at]));
                start = Some(next);
            }
            Some(b"--") => {
                parts.extend(start.map(|start| &body[start..at]));
                return parts;
            }
            Some(_) | None => {}
        }
        at = next;
    }
    // Without its end, the last one goes as far as there is something: reports are cut.
    parts.extend(start.map(|start| &body[start.min(at)..]));
    parts
}

/// The first line without its end, and what is behind it.
fn line(octets: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = match memchr::memchr(b'\n', octets) {
        Some(end) => (&octets[..end], &octets[end + 1..]),
        None => (octets, &[][..]),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

/// What is none of its letters is left out (RFC 2045 §6.8).
fn base64(octets: &[u8]) -> Vec<u8> {
    let (mut decoded, mut bits, mut count) = (Vec::with_capacity(octets.len() / 4 * 3), 0_u32, 0);
    for octet in octets {
        let value = match octet {
            b'A'..=b'Z' => octet - b'A',
            b'a'..=b'z' => octet - b'a' + 26,
            b'0'..=b'9' => octet - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count) as u8);
        }
    }
    decoded
}

/// What is not encoded as it should be stays as it is (RFC 2045 §6.7).
fn quoted_printable(octets: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(octets.len());
    let mut rest = octets;
    let digit = |octet: u8| char::from(octet).to_digit(16).map(|digit| digit as u8);
    while let Some((octet, behind)) = rest.split_first() {
        rest = behind;
        match (octet, behind) {
            (b'=', [b'\r', b'\n', behind @ ..] | [b'\n', behind @ ..]) => rest = behind,
            (b'=', [high, low, behind @ ..]) if digit(*high).is_some() && digit(*low).is_some() => {
                decoded.extend(digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low));
                rest = behind;
            }
            (octet, _) => decoded.push(*octet),
        }
    }
    decoded
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn parts_lie_within_parts() {
        let message = b"Content-Type: multipart/mixed; x=1;\r\n boundary=\"a b\"\r\n\r\npreamble\r\n--a b\r\n\r\none\r\n\
            --a b \r\nContent-Type: multipart/Report; boundary=c\r\n\r\n--c\r\nContent-Type: TEXT/html; charset=x\r\n\
            Content-Transfer-Encoding: quoted-printable\r\n\r\ntw=6F=\r\n!\r\n--c--\r\nepilogue\r\n--a b\r\n\
            Content-Transfer-Encoding: base64\r\n\r\ndGhy\r\nZWU=\r\n--a b--\r\nmore";
        let (fields, parts) = of(message);
        assert!(fields.get("content-type").is_some());
        let texts: Vec<_> = parts.iter().map(|part| (part.kind.as_str(), part.text(100))).collect();
        let expected = [("text/plain", "one\r\n"), ("text/html", "two!\r\n"), ("text/plain", "three")]
            .map(|(k, t)| (k, t.to_owned()));
        assert_eq!(texts, expected);
    }

    #[test]
    fn what_is_cut_or_malformed_has_what_it_has() {
        let (_, parts) = of(b"Content-Type: multipart/report; boundary=x\n\n--x\n\none\n--x\n\ntw");
        assert_eq!(parts.iter().map(|part| part.text(9)).collect::<Vec<_>>(), ["one\n", "tw"]);
        for odd in [
            &b""[..],
            b"Content-Type: multipart/report; boundary=",
            b"Content-Type: multipart/report; boundary\n\n",
            b"Content-Type: multipart/report; boundary=\"",
            b": :\n\n",
        ] {
            assert!(of(odd).1.len() <= 1);
        }
        let deep = "Content-Type: multipart/mixed; boundary=x\n\n--x\n".repeat(50);
        assert!(of(deep.as_bytes()).1.len() <= 1);
        let many = format!("Content-Type: multipart/mixed; boundary=x\n\n{}", "--x\n\na\n".repeat(999));
        assert_eq!(of(many.as_bytes()).1.len(), PARTS_MAX);
    }

    #[test]
    fn fields_are_unfolded_and_bounded() {
        let (fields, body) = Fields::read(b"A: 1\r\n\t2\r\na:3\r\nno field\r\n\r\nbody");
        assert_eq!(fields.all("a").collect::<Vec<_>>(), ["1 2", "3"]);
        assert_eq!(body, b"body");
        let long = format!("A: {}\n {}\n", "é".repeat(5000), "x".repeat(5000));
        assert!(Fields::read(long.as_bytes()).0.get("a").unwrap().len() <= VALUE_MAX);
        // What is cut ends there: no later line comes behind one that it does not belong to.
        let long = format!("A: {}\n b\n {}\n c\n", "x".repeat(4000), "y".repeat(200));
        assert!(Fields::read(long.as_bytes()).0.get("a").unwrap().ends_with("x b"));
        let many = format!("{}B: 1\n 2\nno field\n 3\n", "A: 1\n".repeat(FIELDS_MAX));
        assert_eq!(Fields::read(many.as_bytes()).0.in_order().last(), Some(("a", "1")));
    }
}
