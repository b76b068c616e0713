//! One pass over the header section: what is there, how often, where it ends.
//!
//! A line ends with CRLF and with nothing else: what another program would see behind a bare CR or LF
//! is, for us, still the same line. So no two servers can disagree about it because of us.

use std::ops::Range;

use memchr::{memchr, memchr2};

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
            },
            offset: 0,
            line_start: 0,
            head: [0; HEAD],
            head_len: 0,
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
        let _ = slice;
        todo!()
    }

    /// Whether the header section has ended: more slices change nothing.
    pub const fn is_done(&self) -> bool {
        self.done.is_some()
    }

    /// What was found; the content ends here if the header section has not.
    pub fn finish(self) -> HeaderSummary {
        todo!()
    }
}
