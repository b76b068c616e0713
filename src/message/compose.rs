//! Mail that we write ourselves: header fields, text parts, multiparts.
//!
//! The result is content, `Vec<Bytes>`, so that a message put into a report is not copied. No value can
//! break out of its field: control characters are refused ([`one_line`] makes any octets fit).

use bytes::Bytes;
use mail::{Address, QueueId, Timestamp};

use crate::{content, trace};

/// Header fields, written one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    out: Vec<u8>,
}

/// A body part: its own header fields and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    header: Header,
    body: Vec<Bytes>,
}

/// How the octets of a part travel (RFC 2045 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferEncoding {
    /// Lines of US-ASCII.
    SevenBit,
    /// Lines of octets: only to a hop with `8BITMIME`.
    EightBit,
    /// Octets above 127 are spelled in US-ASCII.
    QuotedPrintable,
}

/// Why a field cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// A line end or another control character in a value.
    #[error("the value holds a control character")]
    Control,
    /// A name that is empty or holds other characters than RFC 5322 §3.6.8 allows.
    #[error("the field name is malformed")]
    Name,
    /// A word longer than a line may be (RFC 5322 §2.1.1).
    #[error("the value has a word of more than 900 octets")]
    TooLong,
}

/// Where a line is folded if it can be (RFC 5322 §2.1.1).
const LINE_LEN: usize = 78;
/// A longer word could make a line of more than 998 octets.
const WORD_LEN_MAX: usize = 900;
/// An encoded word has at most 75 characters, of which 12 are `=?utf-8?q?` and `?=` (RFC 2047 §2).
const ENCODED_TEXT_MAX: usize = 75 - 12;
/// A line of quoted-printable (RFC 2045 §6.7).
const QUOTED_LINE_LEN_MAX: usize = 76;
/// A line of a body (RFC 5322 §2.1.1).
const BODY_LINE_LEN_MAX: usize = 998;

impl Header {
    /// No field yet.
    pub const fn new() -> Self {
        Self { out: Vec::new() }
    }

    /// An unstructured field, such as `Subject`: folded, and encoded where it is not US-ASCII (RFC 2047).
    ///
    /// # Errors
    /// [`ComposeError`]: nothing was written.
    pub fn text(&mut self, name: &str, value: &str) -> Result<(), ComposeError> {
        let plain = value.is_ascii() && words(value).all(|word| word.len() <= WORD_LEN_MAX);
        // What looks like an encoded word would be decoded by readers.
        if plain && !value.contains("=?") {
            return self.structured(name, value);
        }
        check_value(value)?;
        let mut encoded = String::new();
        encode_words(&mut encoded, name.len() + 2, value.trim_matches([' ', '\t']));
        self.structured(name, &encoded)
    }

    /// A structured field, written as it is and folded at white space. Octets above 127 stay (RFC 6532).
    ///
    /// # Errors
    /// [`ComposeError`]: nothing was written.
    pub fn structured(&mut self, name: &str, value: &str) -> Result<(), ComposeError> {
        check_name(name)?;
        check_value(value)?;
        let value = value.trim_matches([' ', '\t']);
        if words(value).any(|word| word.len() > WORD_LEN_MAX) {
            return Err(ComposeError::TooLong);
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        let mut column = name.len() + 2;
        for word in words(value) {
            // A word brings the white space before it, so that no line is of white space alone.
            if column + word.len() > LINE_LEN && word.starts_with([' ', '\t']) {
                self.out.extend_from_slice(b"\r\n");
                column = 0;
            }
            self.out.extend_from_slice(word.as_bytes());
            column += word.len();
        }
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// A field with one mailbox: `From: Mail Delivery System <postmaster@example.org>`. An empty display
    /// name leaves the angle brackets out.
    ///
    /// # Errors
    /// [`ComposeError`]: nothing was written.
    pub fn mailbox(&mut self, name: &str, display: &str, address: &Address) -> Result<(), ComposeError> {
        check_value(display)?;
        if display.is_empty() {
            return self.structured(name, address.as_str());
        }
        let mut value = String::new();
        if !display.is_ascii() || display.contains("=?") {
            encode_words(&mut value, name.len() + 2, display);
        } else if display.bytes().all(|octet| octet == b' ' || is_atext(octet)) {
            value.push_str(display);
        } else {
            value.push('"');
            for character in display.chars() {
                if matches!(character, '"' | '\\') {
                    value.push('\\');
                }
                value.push(character);
            }
            value.push('"');
        }
        value.push_str(" <");
        value.push_str(address.as_str());
        value.push('>');
        self.structured(name, &value)
    }

    /// `Date` (RFC 5322 §3.6.1).
    pub fn date(&mut self, at: Timestamp) {
        trace::date_field(&mut self.out, at);
    }

    /// `Message-ID` (RFC 5322 §3.6.4).
    pub fn message_id(&mut self, id: QueueId, at: Timestamp, host: &str) {
        trace::message_id_field(&mut self.out, id, at, host);
    }

    /// An empty line: for bodies made of groups of fields, such as `message/delivery-status`.
    pub fn group_end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }

    /// The fields as they will travel.
    pub fn as_bytes(&self) -> &[u8] {
        &self.out
    }

    /// The fields, to be the body of a part.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.out)
    }

    /// A field whose value is our own.
    fn own(&mut self, name: &str, value: &str) {
        self.structured(name, value).expect("our own fields are well-formed");
    }
}

impl Part {
    /// `text/plain; charset=utf-8`. Line ends become CRLF. Short lines of US-ASCII travel as they are,
    /// whatever is asked; lines too long for SMTP are quoted-printable, whatever is asked.
    pub fn text(text: &str, encoding: TransferEncoding) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let fits = lines.iter().all(|line| line.len() <= BODY_LINE_LEN_MAX && !line.contains(['\r', '\0']));
        let encoding = match encoding {
            TransferEncoding::SevenBit | TransferEncoding::EightBit | TransferEncoding::QuotedPrintable
                if fits && text.is_ascii() =>
            {
                TransferEncoding::SevenBit
            }
            TransferEncoding::EightBit if fits => TransferEncoding::EightBit,
            TransferEncoding::SevenBit | TransferEncoding::EightBit | TransferEncoding::QuotedPrintable => {
                TransferEncoding::QuotedPrintable
            }
        };
        let mut body = Vec::with_capacity(text.len() + lines.len());
        for line in lines {
            match encoding {
                TransferEncoding::QuotedPrintable => quote_line(&mut body, line.as_bytes()),
                TransferEncoding::SevenBit | TransferEncoding::EightBit => {
                    body.extend_from_slice(line.as_bytes());
                }
            }
            body.extend_from_slice(b"\r\n");
        }
        Self::new("text/plain; charset=utf-8", encoding, vec![body.into()])
            .expect("our own content type is well-formed")
    }

    /// A part whose body is already in the form it travels in.
    ///
    /// # Errors
    /// [`ComposeError`] when the content type is no header value.
    pub fn new(
        content_type: &str,
        encoding: TransferEncoding,
        body: Vec<Bytes>,
    ) -> Result<Self, ComposeError> {
        let mut header = Header::new();
        header.structured("Content-Type", content_type)?;
        match encoding {
            TransferEncoding::SevenBit => {} // The default (RFC 2045 §6.1).
            TransferEncoding::EightBit => header.own("Content-Transfer-Encoding", "8bit"),
            TransferEncoding::QuotedPrintable => {
                header.own("Content-Transfer-Encoding", "quoted-printable");
            }
        }
        Ok(Self { header, body })
    }

    /// One more field for the part, such as `Content-Description`.
    ///
    /// # Errors
    /// [`ComposeError`] when the name or the value is malformed.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, ComposeError> {
        self.header.text(name, value)?;
        Ok(self)
    }
}

/// A message of one part. `MIME-Version` is added.
pub fn single(mut header: Header, part: Part) -> Vec<Bytes> {
    header.own("MIME-Version", "1.0");
    header.out.extend_from_slice(&part.header.out);
    header.group_end();
    let mut content = vec![header.into_bytes()];
    content.extend(part.body);
    content
}

/// A multipart message: `MIME-Version` and `Content-Type` are added. `subtype` is what stands behind
/// `multipart/`, with its parameters but without the boundary: `report; report-type=delivery-status`.
///
/// # Errors
/// [`ComposeError`] when the subtype is no header value.
pub fn multipart(
    mut header: Header,
    subtype: &str,
    id: QueueId,
    parts: Vec<Part>,
) -> Result<Vec<Bytes>, ComposeError> {
    let boundary = boundary(id, &parts);
    header.structured("Content-Type", &format!("multipart/{subtype}; boundary=\"{boundary}\""))?;
    header.own("MIME-Version", "1.0");
    header.group_end();
    let mut content = Vec::new();
    let mut between = header.out;
    for part in parts {
        // The CRLF before a boundary belongs to it (RFC 2046 §5.1.1).
        between.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        between.extend_from_slice(&part.header.out);
        between.extend_from_slice(b"\r\n");
        content.push(Bytes::from(std::mem::take(&mut between)));
        content.extend(part.body);
        between.extend_from_slice(b"\r\n");
    }
    between.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    content.push(between.into());
    Ok(content)
}

/// Makes any octets fit into one line of US-ASCII, as for a peer's reply in a report: line ends and runs of
/// white space become a space, what else is not printable a question mark.
pub fn one_line(octets: &[u8]) -> String {
    let mut line = String::with_capacity(octets.len());
    for octet in octets {
        match octet {
            b' ' | b'\t' | b'\r' | b'\n' if line.ends_with(' ') || line.is_empty() => {}
            b' ' | b'\t' | b'\r' | b'\n' => line.push(' '),
            0x21..=0x7e => line.push(char::from(*octet)),
            _ => line.push('?'),
        }
    }
    line.truncate(line.trim_end().len());
    line
}

/// A boundary that stands in no part.
fn boundary(id: QueueId, parts: &[Part]) -> String {
    // `=_` cannot stand in quoted-printable, nor in base64 (RFC 2045 §6.7).
    (0_u32..)
        .map(|number| format!("=_{id}_{number}"))
        .find(|boundary| !parts.iter().any(|part| content::contains(&part.body, boundary.as_bytes())))
        .expect("content is shorter than all boundaries together")
}

fn check_name(name: &str) -> Result<(), ComposeError> {
    let fits = !name.is_empty()
        && name.len() < LINE_LEN
        && name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':');
    if fits { Ok(()) } else { Err(ComposeError::Name) }
}

fn check_value(value: &str) -> Result<(), ComposeError> {
    let control = value.bytes().any(|octet| (octet < b' ' && octet != b'\t') || octet == 0x7f);
    if control { Err(ComposeError::Control) } else { Ok(()) }
}

/// Cuts a value into words, each with the white space before it.
fn words(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let start = rest.find(|c| !matches!(c, ' ' | '\t'))?;
        let end = rest[start..].find([' ', '\t']).map_or(rest.len(), |end| start + end);
        let (word, behind) = rest.split_at(end);
        rest = behind;
        Some(word)
    })
}

/// Writes a text as encoded words with spaces between them, which readers drop (RFC 2047 §6.2).
///
/// The first is shorter by what stands before it: such a line has at most 76 characters (RFC 2047 §2).
fn encode_words(out: &mut String, column: usize, text: &str) {
    let mut len = ENCODED_TEXT_MAX + 1; // The first character opens a word.
    for (i, character) in text.char_indices() {
        let mut octets = [0; 4];
        let octets = character.encode_utf8(&mut octets).as_bytes();
        // In a display name no other characters may stand as they are (RFC 2047 §5).
        let plain =
            |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'!' | b'*' | b'+' | b'-' | b'/');
        let width: usize =
            octets.iter().map(|octet| if plain(*octet) || *octet == b' ' { 1 } else { 3 }).sum();
        // A character stays within one word (RFC 2047 §5).
        if len + width > ENCODED_TEXT_MAX {
            out.push_str(if i == 0 { "=?utf-8?q?" } else { "?= =?utf-8?q?" });
            len = if i == 0 { column.min(ENCODED_TEXT_MAX / 2) } else { 0 };
        }
        for octet in octets {
            match octet {
                b' ' => out.push('_'),
                octet if plain(*octet) => out.push(char::from(*octet)),
                octet => out.extend(hex(*octet).map(char::from)),
            }
        }
        len += width;
    }
    if !text.is_empty() {
        out.push_str("?=");
    }
}

/// Writes one line as quoted-printable, without its CRLF (RFC 2045 §6.7).
pub(crate) fn quote_line(out: &mut Vec<u8>, line: &[u8]) {
    let mut column = 0;
    let mut broken = false;
    for (i, octet) in line.iter().enumerate() {
        let last = i + 1 == line.len();
        let plain = |broken: bool| match octet {
            b' ' | b'\t' => !last,
            // A line that begins where there was none must not look like a delimiter.
            b'-' => !broken,
            33..=60 | 62..=126 => true,
            _ => false,
        };
        let width = if plain(false) { 1 } else { 3 };
        if column + width + usize::from(!last) > QUOTED_LINE_LEN_MAX {
            out.extend_from_slice(b"=\r\n");
            (column, broken) = (0, true);
        }
        if plain(broken && column == 0) {
            out.push(*octet);
            column += 1;
        } else {
            out.extend(hex(*octet));
            column += 3;
        }
    }
}

pub(crate) fn hex(octet: u8) -> [u8; 3] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [b'=', DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]
}

/// RFC 5322 §3.2.3.
const fn is_atext(octet: u8) -> bool {
    matches!(octet, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
        | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'/'
        | b'=' | b'?' | b'^' | b'_' | b'`' | b'{' | b'|' | b'}' | b'~')
}

#[cfg(test)]
#[path = "compose_test.rs"]
mod test;
