//! One pass over the header section: what is there, how often, where it ends.
//!
//! A line ends with CRLF and with nothing else: what another program would see behind a bare CR or LF
//! is, for us, still the same line. So no two servers can disagree about it because of us.

use std::{mem, ops::Range};

use memchr::{memchr, memchr_iter};

/// Bounds of a [`HeaderScan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderLimits {
    /// The header section's longest length in octets, with the empty line.
    pub header_size_max: usize,
}

/// Reads a header section slice by slice, and stops at the empty line.
#[derive(Clone, Debug)]
pub struct HeaderScan {
    limits: HeaderLimits,
    summary: HeaderSummary,
    /// Octets read.
    offset: usize,
    /// Where the line began that is being read.
    line_start: usize,
    /// The line's first octets, when a slice ended within it.
    head: [u8; HEAD],
    head_len: usize,
    /// CRs that no LF has followed.
    bare_crs: u32,
    /// Whether the last octet of the last slice was a CR.
    cr: Cr,
    field: Field,
    utf8: Utf8Check,
    done: Option<HeaderEnd>,
}

/// What a header section holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderSummary {
    /// Its length in octets, without the empty line.
    pub len: usize,
    /// Where the body begins.
    pub body_start: usize,
    /// How it ended.
    pub end: HeaderEnd,
    /// How often each field stands in it.
    pub fields: Fields,
    /// Its octets above 127.
    pub eight_bit: EightBit,
    /// Lines that are no header field (RFC 5322 §2.2): no name, no colon, a continuation of nothing.
    pub malformed: u32,
    /// The first such line.
    pub malformed_first: Option<Range<usize>>,
    /// CRs and LFs outside a CRLF, and NULs.
    pub control: u32,
    /// Octets of the longest line, without its CRLF; 998 is the most (RFC 5322 §2.1.1).
    pub line_len_max: usize,
    /// Where the value of the first `Message-ID` stands, for the log.
    pub message_id: Option<Range<usize>>,
    /// Where the value of the first `From` stands.
    pub from: Option<Range<usize>>,
    /// Where the value of the first `TLS-Required` stands (RFC 8689 §3).
    pub tls_required: Option<Range<usize>>,
    /// Where the value of the first `Content-Type` stands.
    pub content_type: Option<Range<usize>>,
}

/// How often fields stand in a header section. Some must stand there, most may only once (RFC 5322 §3.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// All together.
    pub all: u32,
    /// `Received`: hops so far (RFC 5321 §6.3).
    pub received: u32,
    /// `Date`.
    pub date: u32,
    /// `From`.
    pub from: u32,
    /// `Sender`.
    pub sender: u32,
    /// `Reply-To`.
    pub reply_to: u32,
    /// `To`.
    pub to: u32,
    /// `Cc`.
    pub cc: u32,
    /// `Bcc`.
    pub bcc: u32,
    /// `Message-ID`.
    pub message_id: u32,
    /// `Subject`.
    pub subject: u32,
    /// `Return-Path`: only the last server writes it (RFC 5321 §4.4).
    pub return_path: u32,
    /// `Delivered-To`: where a local mailbox was reached before.
    pub delivered_to: u32,
    /// `MIME-Version`.
    pub mime_version: u32,
    /// `DKIM-Signature`.
    pub dkim_signature: u32,
}

/// How a header section ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderEnd {
    /// With the content: there is no body.
    #[default]
    Content,
    /// With an empty line.
    EmptyLine,
    /// It did not, within `header_size_max`.
    TooLong,
}

/// The octets above 127 in a header section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EightBit {
    /// There are none.
    #[default]
    None,
    /// They are UTF-8 (RFC 6532).
    Utf8,
    /// They are something else.
    Other,
}

/// Octets of a line that are enough to know every name we look for.
const HEAD: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cr {
    Seen,
    NotSeen,
}

/// The field whose lines are being read, if its place is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// No field yet, so that a continuation would be malformed.
    None,
    Other,
    From,
    MessageId,
    TlsRequired,
    ContentType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Utf8Check {
    seen: EightBit,
    carry: [u8; 4],
    carry_len: usize,
}

impl HeaderScan {
    /// A scan that has read nothing.
    pub const fn new(limits: HeaderLimits) -> Self {
        Self {
            limits,
            summary: HeaderSummary {
                len: 0,
                body_start: 0,
                end: HeaderEnd::Content,
                fields: Fields {
                    all: 0,
                    received: 0,
                    date: 0,
                    from: 0,
                    sender: 0,
                    reply_to: 0,
                    to: 0,
                    cc: 0,
                    bcc: 0,
                    message_id: 0,
                    subject: 0,
                    return_path: 0,
                    delivered_to: 0,
                    mime_version: 0,
                    dkim_signature: 0,
                },
                eight_bit: EightBit::None,
                malformed: 0,
                malformed_first: None,
                control: 0,
                line_len_max: 0,
                message_id: None,
                from: None,
                tls_required: None,
                content_type: None,
            },
            offset: 0,
            line_start: 0,
            head: [0; HEAD],
            head_len: 0,
            bare_crs: 0,
            cr: Cr::NotSeen,
            field: Field::None,
            utf8: Utf8Check { seen: EightBit::None, carry: [0; 4], carry_len: 0 },
            done: None,
        }
    }

    /// Scans content that is there as a whole.
    pub fn of(content: &[bytes::Bytes], limits: HeaderLimits) -> HeaderSummary {
        let mut scan = Self::new(limits);
        for part in content {
            scan.push(part);
            if scan.is_done() {
                break;
            }
        }
        scan.finish()
    }

    /// Reads the next slice, up to the end of the header section.
    pub fn push(&mut self, slice: &[u8]) {
        if self.done.is_some() {
            return;
        }
        let room = self.limits.header_size_max.saturating_sub(self.offset);
        let (read, cut) = if slice.len() > room { (&slice[..room], true) } else { (slice, false) };
        let start = self.offset;
        let (mut from, mut line_ends) = (0, 0);
        for lf in memchr_iter(b'\n', read) {
            let cr = if lf == 0 { self.cr == Cr::Seen } else { read[lf - 1] == b'\r' };
            if !cr {
                self.summary.control += 1; // A bare LF is part of the line (see above).
                continue;
            }
            let head = &read[from..=lf];
            if self.head_len == 0 {
                self.offset = start + lf + 1;
                self.line_end(head);
            } else {
                self.gather_head(head);
                self.offset = start + lf + 1;
                let (head, head_len) = (self.head, mem::take(&mut self.head_len));
                self.line_end(&head[..head_len]);
            }
            from = lf + 1;
            line_ends += 1;
            if self.done.is_some() {
                break;
            }
        }
        let of_header = &read[..if self.done.is_some() { from } else { read.len() }];
        // Every CR that is not part of a line end is bare.
        self.bare_crs += memchr_iter(b'\r', of_header).count() as u32;
        self.bare_crs -= line_ends;
        self.summary.control += memchr_iter(0, of_header).count() as u32;
        self.utf8.push(of_header);
        if self.done.is_some() {
            return;
        }
        self.gather_head(&read[from..]);
        self.offset = start + read.len();
        if let Some(last) = read.last() {
            self.cr = if *last == b'\r' { Cr::Seen } else { Cr::NotSeen };
        }
        if cut {
            self.end(HeaderEnd::TooLong, self.offset);
        }
    }

    /// Whether the header section has ended: more slices change nothing.
    pub const fn is_done(&self) -> bool {
        self.done.is_some()
    }

    /// What was found; the content ends here if the header section has not.
    pub fn finish(mut self) -> HeaderSummary {
        if self.done.is_none() {
            if self.offset > self.line_start {
                // A last line without CRLF.
                let head = self.head;
                self.line(&head[..self.head_len], self.offset);
            }
            self.end(HeaderEnd::Content, self.offset);
        }
        self.summary.control += self.bare_crs;
        self.summary.eight_bit = self.utf8.finish();
        self.summary
    }

    fn end(&mut self, end: HeaderEnd, len: usize) {
        self.done = Some(end);
        self.summary.end = end;
        self.summary.len = len;
        self.summary.body_start = self.offset;
    }

    /// Keeps the first octets of a line, however it is cut.
    fn gather_head(&mut self, octets: &[u8]) {
        let more = octets.len().min(HEAD - self.head_len);
        self.head[self.head_len..self.head_len + more].copy_from_slice(&octets[..more]);
        self.head_len += more;
    }

    /// A CRLF was read; `offset` is behind it.
    fn line_end(&mut self, head: &[u8]) {
        let line_start = self.line_start;
        if self.offset == line_start + 2 {
            self.end(HeaderEnd::EmptyLine, line_start);
            return;
        }
        self.line(head, self.offset - 2);
        self.line_start = self.offset;
    }

    /// A line that is not empty, from `line_start` to `end`, with at least its first octets.
    fn line(&mut self, head: &[u8], end: usize) {
        let start = self.line_start;
        self.summary.line_len_max = self.summary.line_len_max.max(end - start);
        let head = &head[..head.len().min(end - start).min(HEAD)];
        if matches!(head, [b' ' | b'\t', ..]) {
            let value = match self.field {
                Field::None => return self.malformed(start..end),
                Field::Other => None,
                Field::From => self.summary.from.as_mut(),
                Field::MessageId => self.summary.message_id.as_mut(),
                Field::TlsRequired => self.summary.tls_required.as_mut(),
                Field::ContentType => self.summary.content_type.as_mut(),
            };
            if let Some(value) = value {
                value.end = end;
            }
            return;
        }
        // A name too long for `head` is none that we know; it may still be a name.
        let (name, colon) = match memchr(b':', head) {
            Some(colon) => (&head[..colon], Some(colon)),
            None => (head, (end - start > HEAD).then_some(HEAD)),
        };
        // White space before the colon is obsolete syntax, to be understood (RFC 5322 §4.5).
        let name = name.trim_ascii_end();
        let Some(colon) = colon.filter(|_| !name.is_empty() && name.iter().all(u8::is_ascii_graphic)) else {
            self.field = Field::None;
            return self.malformed(start..end);
        };
        self.summary.fields.all += 1;
        let value = start + (colon + 1).min(end - start)..end;
        self.field = self.summary.count(name, value);
    }

    fn malformed(&mut self, line: Range<usize>) {
        self.summary.malformed += 1;
        self.summary.malformed_first.get_or_insert(line);
    }
}

impl HeaderSummary {
    /// Counts a field. The first of a kind whose value is wanted becomes the field being read.
    fn count(&mut self, name: &[u8], value: Range<usize>) -> Field {
        let fields = &mut self.fields;
        let mut lower = [0; HEAD];
        let lower = &mut lower[..name.len()];
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        let count = match &*lower {
            b"received" => &mut fields.received,
            b"date" => &mut fields.date,
            b"from" => {
                fields.from += 1;
                return first(&mut self.from, value, Field::From);
            }
            b"sender" => &mut fields.sender,
            b"reply-to" => &mut fields.reply_to,
            b"to" => &mut fields.to,
            b"cc" => &mut fields.cc,
            b"bcc" => &mut fields.bcc,
            b"message-id" => {
                fields.message_id += 1;
                return first(&mut self.message_id, value, Field::MessageId);
            }
            b"tls-required" => return first(&mut self.tls_required, value, Field::TlsRequired),
            b"content-type" => return first(&mut self.content_type, value, Field::ContentType),
            b"subject" => &mut fields.subject,
            b"return-path" => &mut fields.return_path,
            b"delivered-to" => &mut fields.delivered_to,
            b"mime-version" => &mut fields.mime_version,
            b"dkim-signature" => &mut fields.dkim_signature,
            _ => return Field::Other,
        };
        *count += 1;
        Field::Other
    }
}

fn first(place: &mut Option<Range<usize>>, value: Range<usize>, field: Field) -> Field {
    if place.is_some() {
        return Field::Other;
    }
    *place = Some(value);
    field
}

impl Utf8Check {
    fn push(&mut self, octets: &[u8]) {
        if self.seen == EightBit::Other || (self.carry_len == 0 && octets.is_ascii()) {
            return;
        }
        let mut rest = octets;
        // A character that a cut went through is put together first: at most four octets.
        while self.carry_len > 0 {
            let Some((octet, more)) = rest.split_first() else { return };
            self.carry[self.carry_len] = *octet;
            self.carry_len += 1;
            rest = more;
            match str::from_utf8(&self.carry[..self.carry_len]) {
                Ok(_) => self.carry_len = 0,
                Err(error) if error.error_len().is_some() => return self.seen = EightBit::Other,
                Err(_) => {}
            }
        }
        if rest.is_ascii() {
            return;
        }
        self.seen = EightBit::Utf8;
        if let Err(error) = simdutf8::compat::from_utf8(rest) {
            if error.error_len().is_some() {
                self.seen = EightBit::Other;
                return;
            }
            let tail = &rest[error.valid_up_to()..];
            self.carry[..tail.len()].copy_from_slice(tail);
            self.carry_len = tail.len();
        }
    }

    const fn finish(&self) -> EightBit {
        if self.carry_len > 0 { EightBit::Other } else { self.seen }
    }
}

#[cfg(test)]
#[path = "scan_test.rs"]
mod test;
