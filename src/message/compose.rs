//! Mail that we write ourselves: header fields, text parts, multiparts.
//!
//! The result is content, `Vec<Bytes>`, so that a message put into a report is not copied. No value can
//! break out of its field: control characters are refused ([`one_line`] makes any octets fit).

use bytes::Bytes;
use mail::{Address, QueueId, Timestamp};

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
        let _ = (name, value);
        todo!()
    }

    /// A structured field, written as it is and folded at white space. Octets above 127 stay (RFC 6532).
    ///
    /// # Errors
    /// [`ComposeError`]: nothing was written.
    pub fn structured(&mut self, name: &str, value: &str) -> Result<(), ComposeError> {
        let _ = (name, value);
        todo!()
    }

    /// A field with one mailbox: `From: "Mail Delivery System" <postmaster@example.org>`.
    /// An empty display name leaves the angle brackets out.
    ///
    /// # Errors
    /// [`ComposeError`]: nothing was written.
    pub fn mailbox(&mut self, name: &str, display: &str, address: &Address) -> Result<(), ComposeError> {
        let _ = (name, display, address);
        todo!()
    }

    /// `Date` (RFC 5322 §3.6.1).
    pub fn date(&mut self, at: Timestamp) {
        let _ = at;
        todo!()
    }

    /// `Message-ID` (RFC 5322 §3.6.4).
    pub fn message_id(&mut self, id: QueueId, at: Timestamp, host: &str) {
        let _ = (id, at, host);
        todo!()
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
}

impl Part {
    /// `text/plain; charset=utf-8`. Line ends become CRLF; `SevenBit` is chosen for US-ASCII with short lines,
    /// whatever is asked, and quoted-printable for lines that are too long.
    pub fn text(text: &str, encoding: TransferEncoding) -> Self {
        let _ = (text, encoding);
        todo!()
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
        let _ = (content_type, encoding, body);
        todo!()
    }

    /// One more field for the part, such as `Content-Description`.
    ///
    /// # Errors
    /// [`ComposeError`]: nothing was written.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, ComposeError> {
        self.header.text(name, value)?;
        Ok(self)
    }
}

/// A message of one part.
pub fn single(header: Header, part: Part) -> Vec<Bytes> {
    let _ = (header, part);
    todo!()
}

/// A multipart message: `MIME-Version` and `Content-Type` are added. `subtype` is what stands behind `multipart/`,
/// with its parameters but without the boundary: `report; report-type=delivery-status`.
///
/// # Errors
/// [`ComposeError`] when the subtype is no header value.
pub fn multipart(
    header: Header,
    subtype: &str,
    id: QueueId,
    parts: Vec<Part>,
) -> Result<Vec<Bytes>, ComposeError> {
    let _ = (header, subtype, id, parts);
    todo!()
}

/// Makes any octets fit into one line of US-ASCII, as for a peer's reply in a report: line ends and runs of
/// white space become a space, what else is not printable a question mark.
pub fn one_line(octets: &[u8]) -> String {
    let _ = octets;
    todo!()
}
