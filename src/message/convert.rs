//! Content for next hops that take less than it is: 8-bit and binary parts as quoted-printable or base64 (RFC 6152 §3,
//! RFC 3030 §3, RFC 2045 §6).
//!
//! Only what the next hop cannot take is touched, part for part: a leaf is encoded, multiparts and messages within are labelled by
//! what is in them now, everything else stays octet for octet. Decoded it is what it was. What would not be, is not converted:
//! [`Unconvertible`] says why.

use mail::BodyType;
use memchr::memmem;

use crate::compose::{hex, quote_line};

/// What a next hop takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// Lines of US-ASCII.
    SevenBit,
    /// Lines of octets.
    EightBit,
}

/// Why content cannot be converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
pub enum Unconvertible {
    /// "must be treated as opaque" (RFC 1847 §2.1).
    Signed,
    /// Composite types may not be encoded (RFC 2045 §6.4), and of these we do not know what is in them.
    Type,
    /// It has no boundary, or something stands behind one.
    Boundary,
    /// It is encoded already, in a way that is not known or was not done right.
    Encoding,
    /// More than anybody needs.
    Parts,
}

impl Unconvertible {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signed => "it is signed as it is",
            Self::Type => "it has a part of a type that may not be encoded",
            Self::Boundary => "it has a multipart whose parts cannot be told apart",
            Self::Encoding => "it has a part in an encoding that is not what it says",
            Self::Parts => "it has too many parts, or too many within one another",
        }
    }
}

/// Multiparts and messages within one another.
const DEPTH_MAX: usize = 50;
/// Each may grow by a few fields.
const PARTS_MAX: usize = 10_000;
/// RFC 2046 §5.1.1 has 70; some have more.
const BOUNDARY_LEN_MAX: usize = 250;
/// Octets of a line without its CRLF (RFC 5322 §2.1.1).
const LINE_LEN_MAX: usize = 998;
/// Octets in a line of base64, before they are encoded: 76 characters (RFC 2045 §6.8).
const BASE64_LINE: usize = 57;

/// The content as a next hop can take it; `None` when it can take it as it is.
///
/// # Errors
/// [`Unconvertible`].
pub fn convert(content: &[u8], body: BodyType, to: Capacity) -> Result<Option<Vec<u8>>, Unconvertible> {
    let mut converter = Converter {
        content,
        body,
        to,
        at: 0,
        next: None,
        boundaries: Vec::new(),
        sealed: false,
        reported: false,
        depth: 0,
        parts: 0,
        changed: false,
        out: Vec::with_capacity(content.len() + content.len() / 2),
    };
    converter.entity(Level::Message)?;
    // Whatever the last part was, SMTP has lines.
    if !converter.out.ends_with(b"\r\n") && converter.changed {
        converter.out.extend_from_slice(b"\r\n");
    }
    Ok(converter.changed.then_some(converter.out))
}

struct Converter<'a> {
    content: &'a [u8],
    body: BodyType,
    to: Capacity,
    /// What is before is done.
    at: usize,
    /// The delimiter that `at` is in front of.
    next: Option<Delimiter>,
    /// Of the multiparts around, the outermost first.
    boundaries: Vec<Box<[u8]>>,
    /// Within a signed part.
    sealed: bool,
    /// Within a report, which returns what it is about: a copy, that nobody takes for the message.
    reported: bool,
    depth: usize,
    parts: usize,
    changed: bool,
    out: Vec<u8>,
}

/// A line that parts parts.
#[derive(Clone, Copy, Debug)]
struct Delimiter {
    /// Whose.
    level: usize,
    is_last: bool,
    /// Whether nothing else is in its line: else some would take it for a delimiter, and some for text.
    is_clear: bool,
    /// Behind its line.
    end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Message,
    Part,
    /// Of a multipart/digest: a message, unless it says otherwise (RFC 2046 §5.1.5).
    Digest,
}

/// The fields of an entity.
struct Header<'a> {
    /// As they stand there, with their line ends.
    fields: Vec<&'a [u8]>,
    /// The empty line behind them, where there is one.
    end: &'a [u8],
    media: Option<Media>,
    encoding: Encoding,
    has_type: bool,
    has_version: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Media {
    kind: Vec<u8>,
    subtype: Vec<u8>,
    boundary: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    SevenBit,
    EightBit,
    Binary,
    Quoted,
    Base64,
    Other,
}

/// What an entity is made of.
enum Form {
    Leaf,
    /// May not be encoded, and what is in it is not known.
    Opaque,
    Multipart(Box<[u8]>),
    Message,
}

impl<'a> Converter<'a> {
    fn entity(&mut self, level: Level) -> Result<(), Unconvertible> {
        self.parts += 1;
        if self.parts > PARTS_MAX || self.depth > DEPTH_MAX {
            return Err(Unconvertible::Parts);
        }
        let header = self.header();
        self.depth += 1;
        match header.form(level) {
            Form::Leaf => self.leaf(&header, level)?,
            Form::Opaque => {
                let body = self.text();
                if !self.fits(body) {
                    return Err(if self.sealed { Unconvertible::Signed } else { Unconvertible::Type });
                }
                self.copy_header(&header);
                self.out.extend_from_slice(body);
            }
            Form::Message => {
                self.composite_header(&header);
                self.entity(Level::Message)?;
            }
            Form::Multipart(boundary) => self.multipart(&header, boundary)?,
        }
        self.depth -= 1;
        Ok(())
    }

    fn multipart(&mut self, header: &Header<'a>, boundary: Box<[u8]>) -> Result<(), Unconvertible> {
        self.composite_header(header);
        let is = |subtype: &[u8]| header.media.as_ref().is_some_and(|media| media.subtype == subtype);
        let (was_sealed, was_reported, level) = (self.sealed, self.reported, self.boundaries.len());
        self.reported |= is(b"report") && !self.sealed;
        self.sealed |= is(b"signed") && !self.reported;
        self.boundaries.push(boundary);
        let between = self.text();
        self.put_ignored(between)?;
        let part = if is(b"digest") { Level::Digest } else { Level::Part };
        let mut is_closed = false;
        while let Some(delimiter) = self.next.filter(|delimiter| delimiter.level == level) {
            let line = &self.content[self.at..delimiter.end];
            if !delimiter.is_clear {
                return Err(Unconvertible::Boundary);
            }
            self.out.extend_from_slice(line);
            (self.at, self.next) = (delimiter.end, None);
            is_closed = delimiter.is_last;
            if is_closed {
                break;
            }
            self.entity(part)?;
        }
        self.boundaries.pop();
        (self.sealed, self.reported) = (was_sealed, was_reported);
        if is_closed {
            let behind = self.text();
            self.put_ignored(behind)?;
        }
        Ok(())
    }

    fn leaf(&mut self, header: &Header<'a>, level: Level) -> Result<(), Unconvertible> {
        let body = self.text();
        if self.fits(body) {
            if header.encoding == Encoding::Binary && !self.sealed {
                self.changed = true;
                self.put_fields(header);
                self.put_label(header, if body.is_ascii() { "7bit" } else { "8bit" });
            } else {
                self.copy_header(header);
            }
            self.out.extend_from_slice(body);
            return Ok(());
        }
        if self.sealed {
            return Err(Unconvertible::Signed);
        }
        self.changed = true;
        match header.encoding {
            Encoding::SevenBit | Encoding::EightBit | Encoding::Binary => {
                // Where only the type of text is known, most of it is US-ASCII.
                let is_text = header.media.as_ref().is_none_or(|media| media.kind == b"text");
                let escaped = body.iter().filter(|octet| !octet.is_ascii()).count();
                if is_text && escaped <= body.len() / 4 && is_lines(body) {
                    self.encoded_header(header, level, body, "quoted-printable");
                    self.put_quoted(body);
                } else {
                    self.encoded_header(header, level, body, "base64");
                    self.put_base64(body);
                }
                Ok(())
            }
            // Octets that have no business in there: whoever decodes it passes them on, or over (RFC 2045 §6.7, §6.8).
            Encoding::Quoted | Encoding::Base64 => {
                self.copy_header(header);
                let from = self.out.len();
                for octet in body {
                    match (octet.is_ascii(), header.encoding) {
                        (true, _) => self.out.push(*octet),
                        (false, Encoding::Quoted) => self.out.extend(hex(*octet)),
                        (false, _) => {}
                    }
                }
                if self.fits(&self.out[from..]) { Ok(()) } else { Err(Unconvertible::Encoding) }
            }
            Encoding::Other => Err(Unconvertible::Encoding),
        }
    }

    fn fits(&self, body: &[u8]) -> bool {
        let octets = match self.to {
            Capacity::SevenBit => body.is_ascii(),
            Capacity::EightBit => true,
        };
        octets && (self.body != BodyType::BinaryMime || is_lines(body))
    }

    fn copy_header(&mut self, header: &Header<'_>) {
        header.fields.iter().for_each(|field| self.out.extend_from_slice(field));
        self.out.extend_from_slice(header.end);
    }

    /// Of an entity with others in it: what is in there is what the next hop takes now (RFC 2045 §6.4).
    fn composite_header(&mut self, header: &Header<'_>) {
        let label = match (header.encoding, self.to) {
            (Encoding::EightBit | Encoding::Binary, Capacity::SevenBit) => "7bit",
            (Encoding::Binary, Capacity::EightBit) => "8bit",
            (
                Encoding::SevenBit
                | Encoding::EightBit
                | Encoding::Quoted
                | Encoding::Base64
                | Encoding::Other,
                _,
            ) => return self.copy_header(header),
        };
        if self.sealed {
            return self.copy_header(header);
        }
        // "8bit" for what is 7bit does no harm, and is no change of its own.
        self.changed |= header.encoding == Encoding::Binary;
        self.put_fields(header);
        self.put_label(header, label);
    }

    fn encoded_header(&mut self, header: &Header<'_>, level: Level, body: &[u8], encoding: &str) {
        self.put_fields(header);
        if level == Level::Message && !header.has_version {
            self.out.extend_from_slice(b"MIME-Version: 1.0\r\n");
        }
        if !header.has_type && !body.is_ascii() {
            // What they are nobody has said (RFC 1428 §3).
            self.out.extend_from_slice(b"Content-Type: text/plain; charset=unknown-8bit\r\n");
        }
        self.put_label(header, encoding);
    }

    fn put_fields(&mut self, header: &Header<'_>) {
        let fields = header.fields.iter().filter(|field| !is_field(field, b"content-transfer-encoding"));
        fields.for_each(|field| self.out.extend_from_slice(field));
    }

    fn put_label(&mut self, header: &Header<'_>, encoding: &str) {
        self.out.extend_from_slice(b"Content-Transfer-Encoding: ");
        self.out.extend_from_slice(encoding.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        // Where a delimiter is next, its own line end is the one in front of it.
        self.out.extend_from_slice(if header.end.is_empty() { b"\r\n" } else { header.end });
    }

    /// What stands before the first part and behind the last: nobody looks at it, and nothing says what it is.
    fn put_ignored(&mut self, text: &[u8]) -> Result<(), Unconvertible> {
        if self.fits(text) {
            self.out.extend_from_slice(text);
            return Ok(());
        }
        if self.sealed {
            return Err(Unconvertible::Signed);
        }
        self.changed = true;
        if is_lines(text) {
            self.out.extend(text.iter().map(|octet| if octet.is_ascii() { *octet } else { b'?' }));
        }
        Ok(())
    }

    fn put_quoted(&mut self, body: &[u8]) {
        let mut from = 0;
        for end in memmem::find_iter(body, b"\r\n") {
            quote_line(&mut self.out, &body[from..end]);
            self.out.extend_from_slice(b"\r\n");
            from = end + 2;
        }
        quote_line(&mut self.out, &body[from..]);
        if from < body.len() && self.next.is_none() {
            // The content ends without a line end, and would be given one.
            self.out.extend_from_slice(b"=\r\n");
        }
    }

    fn put_base64(&mut self, body: &[u8]) {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let mut line = [0; BASE64_LINE.div_ceil(3) * 4];
        let mut lines = body.chunks(BASE64_LINE).peekable();
        while let Some(octets) = lines.next() {
            let length = STANDARD.encode_slice(octets, &mut line).expect("a line has room for so many");
            self.out.extend_from_slice(&line[..length]);
            // The line end in front of a delimiter belongs to that.
            if lines.peek().is_some() || self.next.is_none() {
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// The fields here, and the empty line behind them.
    fn header(&mut self) -> Header<'a> {
        let content = self.content;
        let mut header = Header {
            fields: Vec::new(),
            end: &[],
            media: None,
            encoding: Encoding::SevenBit,
            has_type: false,
            has_version: false,
        };
        let mut has_encoding = false;
        loop {
            if self.at == content.len() {
                break;
            }
            self.next = self.delimiter(self.at);
            if self.next.is_some() {
                break;
            }
            let rest = &content[self.at..];
            if rest.starts_with(b"\r\n") {
                header.end = &rest[..2];
                self.at += 2;
                break;
            }
            let mut length = line_length(rest);
            // What begins with no name is a body that nothing parts from the fields.
            let Some(colon) = memchr::memchr(b':', &rest[..length]) else { break };
            if !rest[..colon].iter().all(|octet| octet.is_ascii_graphic() || *octet == b' ') {
                break;
            }
            while rest[length..].starts_with(b" ") || rest[length..].starts_with(b"\t") {
                length += line_length(&rest[length..]);
            }
            let (field, value) = (&rest[..length], &rest[colon + 1..length]);
            self.at += length;
            if is_field(field, b"content-type") && !header.has_type {
                (header.media, header.has_type) = (Some(Media::parse(value)), true);
            } else if is_field(field, b"content-transfer-encoding") && !has_encoding {
                (header.encoding, has_encoding) = (Encoding::parse(value), true);
            }
            header.has_version |= is_field(field, b"mime-version");
            header.fields.push(field);
        }
        header
    }

    /// What is here, up to the next delimiter of a multipart around.
    fn text(&mut self) -> &'a [u8] {
        let (content, from) = (self.content, self.at);
        if self.next.is_some() {
            return &[];
        }
        if !self.boundaries.is_empty() {
            self.next = self.delimiter(from);
            if self.next.is_some() {
                return &[];
            }
            for found in memmem::find_iter(&content[from..], b"\r\n--") {
                let end = from + found;
                self.next = self.delimiter(end + 2);
                if self.next.is_some() {
                    self.at = end;
                    return &content[from..end];
                }
            }
        }
        self.at = content.len();
        &content[from..]
    }

    /// The delimiter that this line is: "it is sufficient that the boundary appear in its entirety" at its beginning (RFC 2046 §5.1.1).
    fn delimiter(&self, line: usize) -> Option<Delimiter> {
        let rest = self.content[line..].strip_prefix(b"--")?;
        let matching = self.boundaries.iter().enumerate().filter(|(_, boundary)| rest.starts_with(boundary));
        let (level, boundary) = matching.max_by_key(|(_, boundary)| boundary.len())?;
        let end = line + line_length(&self.content[line..]);
        let rest = &self.content[line + 2 + boundary.len()..end];
        let last = rest.strip_prefix(b"--");
        let is_clear = last.unwrap_or(rest).trim_ascii().is_empty();
        Some(Delimiter { level, is_last: last.is_some(), is_clear, end })
    }
}

impl Header<'_> {
    fn form(&self, level: Level) -> Form {
        let Some(media) = &self.media else {
            return if level == Level::Digest && !self.has_type { Form::Message } else { Form::Leaf };
        };
        let is_identity = matches!(self.encoding, Encoding::SevenBit | Encoding::EightBit | Encoding::Binary);
        match (&media.kind[..], &media.subtype[..], &media.boundary) {
            (b"multipart", _, Some(boundary)) if is_identity => Form::Multipart(boundary.clone().into()),
            (b"multipart", ..) => Form::Opaque,
            (b"message", b"rfc822" | b"news", _) if is_identity => Form::Message,
            // These may be encoded (RFC 6532 §3.7, RFC 6533 §6).
            (b"message", subtype, _) if subtype.starts_with(b"global") => Form::Leaf,
            (b"message", ..) => Form::Opaque,
            (..) => Form::Leaf,
        }
    }
}

impl Encoding {
    fn parse(value: &[u8]) -> Self {
        let mut words = Words(value);
        words.skip();
        match &words.token().to_ascii_lowercase()[..] {
            b"7bit" | b"" => Self::SevenBit,
            b"8bit" => Self::EightBit,
            b"binary" => Self::Binary,
            b"quoted-printable" => Self::Quoted,
            b"base64" => Self::Base64,
            _ => Self::Other,
        }
    }
}

impl Media {
    /// What can be made of it (RFC 2045 §5.1).
    fn parse(value: &[u8]) -> Self {
        let mut words = Words(value);
        let mut media = Self::default();
        words.skip();
        media.kind = words.token().to_ascii_lowercase();
        words.skip();
        if words.take(b'/') {
            words.skip();
            media.subtype = words.token().to_ascii_lowercase();
        }
        loop {
            words.skip();
            if !words.take(b';') {
                break;
            }
            words.skip();
            let name = words.token().to_ascii_lowercase();
            words.skip();
            if !words.take(b'=') {
                continue;
            }
            words.skip();
            let value = words.value();
            if name == b"boundary" && media.boundary.is_none() {
                let is_fine = (1..=BOUNDARY_LEN_MAX).contains(&value.len());
                media.boundary = Some(value).filter(|_| is_fine);
            }
        }
        media
    }
}

/// A structured field, word for word.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn take(&mut self, octet: u8) -> bool {
        let rest = self.0.strip_prefix(&[octet]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// White space and comments.
    fn skip(&mut self) {
        let mut depth = 0_usize;
        while let [octet, rest @ ..] = self.0 {
            match octet {
                b'(' => depth += 1,
                b')' if depth > 0 => depth -= 1,
                b'\\' if depth > 0 => {
                    self.0 = rest.get(1..).unwrap_or_default();
                    continue;
                }
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if depth > 0 => {}
                _ => return,
            }
            self.0 = rest;
        }
    }

    fn token(&mut self) -> Vec<u8> {
        let is_special = |octet: &u8| !octet.is_ascii_graphic() || b"()<>@,;:\\\"/[]?=".contains(octet);
        let end = self.0.iter().position(is_special).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        token.into()
    }

    fn value(&mut self) -> Vec<u8> {
        if !self.take(b'"') {
            // Boundaries without quotes have what no token has, and are understood by others.
            let end = |octet: &u8| matches!(octet, b';' | b' ' | b'\t' | b'\r' | b'\n' | b'(');
            let end = self.0.iter().position(end).unwrap_or(self.0.len());
            let (value, rest) = self.0.split_at(end);
            self.0 = rest;
            return value.into();
        }
        let mut value = Vec::new();
        while let [octet, rest @ ..] = self.0 {
            self.0 = rest;
            match (octet, rest) {
                (b'"', _) => break,
                (b'\\', [escaped, rest @ ..]) => {
                    value.push(*escaped);
                    self.0 = rest;
                }
                // Folding is none of it.
                (b'\r' | b'\n', _) => {}
                (octet, _) => value.push(*octet),
            }
        }
        while value.last() == Some(&b' ') {
            value.pop();
        }
        value
    }
}

/// Octets of the line here, with its end.
fn line_length(text: &[u8]) -> usize {
    memmem::find(text, b"\r\n").map_or(text.len(), |end| end + 2)
}

/// Whether a field has this name, in lower case.
fn is_field(field: &[u8], name: &[u8]) -> bool {
    let Some((head, rest)) = field.split_at_checked(name.len()) else { return false };
    head.eq_ignore_ascii_case(name) && rest.trim_ascii_start().starts_with(b":")
}

/// Whether this is lines as SMTP has them: no NUL, no CR or LF alone, none too long.
fn is_lines(text: &[u8]) -> bool {
    let mut lines = text.split(|octet| *octet == b'\n').peekable();
    while let Some(line) = lines.next() {
        let line = match (line, lines.peek()) {
            ([line @ .., b'\r'], Some(_)) => line,
            (line, None) => line,
            (_, Some(_)) => return false,
        };
        if line.len() > LINE_LEN_MAX || memchr::memchr2(b'\r', 0, line).is_some() {
            return false;
        }
    }
    true
}

#[cfg(test)]
#[path = "convert_test.rs"]
mod test;
