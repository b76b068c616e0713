//! The envelope: where a message comes from, where it goes, and what was asked for it.

use std::fmt;

use crate::{Address, Handling, Timestamp, Upstream};

/// The argument of `MAIL FROM` (RFC 5321 §4.1.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: a notification; nothing may ever be sent back to it (RFC 5321 §4.5.5).
    Null,
    /// Where a DSN goes.
    Address(Address),
}

/// The argument of `RCPT TO` (RFC 5321 §4.1.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<Postmaster>` without a domain, which every server takes (RFC 5321 §4.5.1).
    Postmaster,
    /// A full address.
    Address(Address),
}

/// What kind of bytes the client says the content has (`BODY=`, RFC 6152, RFC 3030).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyType {
    /// Lines of US-ASCII.
    #[default]
    SevenBit,
    /// Lines of octets (RFC 6152).
    EightBitMime,
    /// Octets; may travel by BDAT only (RFC 3030).
    BinaryMime,
}

/// Whether the message needs `SMTPUTF8` on its way (RFC 6531 §3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Utf8 {
    /// Envelope and header fields are US-ASCII.
    #[default]
    NotNeeded,
    /// The client gave the `SMTPUTF8` parameter.
    Needed,
}

/// How much of the message a failure DSN returns (`RET=`, RFC 3461 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// The full message.
    Full,
    /// The header fields.
    Headers,
}

/// When the sender wants a DSN (`NOTIFY=`, RFC 3461 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify {
    /// On delivery.
    pub success: bool,
    /// On failure.
    pub failure: bool,
    /// On delay.
    pub delay: bool,
    /// Whether the sender said so: then the next hop is told the same (RFC 3461 §5.2.1).
    pub given: bool,
}

/// The address as the sender first wrote it (`ORCPT=`, RFC 3461 §4.2): type and decoded text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRecipient {
    /// `rfc822`, `utf-8`, ...
    pub address_type: Box<str>,
    /// The address, xtext already decoded.
    pub address: Box<str>,
}

/// One recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Where it goes.
    pub address: Address,
    /// When to tell the sender.
    pub notify: Notify,
    /// Who was meant at first.
    pub original: Option<OriginalRecipient>,
}

/// The envelope of a message we are responsible for (RFC 5321 §2.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// When the last byte of the message arrived.
    pub received_at: Timestamp,
    /// Where reports go.
    pub reverse_path: ReversePath,
    /// Who gets it. The order is kept for ever: a recipient is named by its place here.
    pub recipients: Vec<Recipient>,
    /// What the client said of the content.
    pub body: BodyType,
    /// Whether the next hop must offer `SMTPUTF8`.
    pub utf8: Utf8,
    /// How much a failure DSN returns.
    pub ret: Option<Ret>,
    /// The sender's own id for this transaction (`ENVID=`, RFC 3461 §4.4), xtext already decoded.
    pub envelope_id: Option<Box<str>>,
    /// How it wants to be handled.
    pub handling: Handling,
    /// The client it first came from, where that is not only for the one log line to say.
    pub upstream: Option<Box<Upstream>>,
}

impl Default for Notify {
    /// Without `NOTIFY`, failures and (as is local custom) delays are told (RFC 3461 §4.1).
    fn default() -> Self {
        Self { success: false, failure: true, delay: true, given: false }
    }
}

impl Notify {
    /// `NOTIFY=NEVER`.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false, given: true };

    /// Whether the sender wants to hear nothing at all.
    pub const fn is_never(self) -> bool {
        !(self.success || self.failure || self.delay)
    }
}

impl Recipient {
    /// A recipient with no wishes about reports.
    pub fn new(address: Address) -> Self {
        Self { address, notify: Notify::default(), original: None }
    }
}

impl ReversePath {
    /// The address, unless this is the null reverse-path.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl fmt::Display for ReversePath {
    /// With its angle brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Address(address) => write!(f, "<{address}>"),
        }
    }
}

impl fmt::Display for ForwardPath {
    /// With its angle brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("<Postmaster>"),
            Self::Address(address) => write!(f, "<{address}>"),
        }
    }
}
