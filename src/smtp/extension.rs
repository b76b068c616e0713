//! The service extensions we can offer (RFC 5321 §2.2).

/// One service extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Commands in groups (RFC 2920).
    Pipelining,
    /// `SIZE=` (RFC 1870).
    Size,
    /// `BODY=8BITMIME` (RFC 6152).
    EightBitMime,
    /// UTF-8 in addresses and header fields (RFC 6531).
    SmtpUtf8,
    /// `BDAT` (RFC 3030 §2).
    Chunking,
    /// `BODY=BINARYMIME`, which needs `BDAT` (RFC 3030 §3).
    BinaryMime,
    /// `RET=`, `ENVID=`, `NOTIFY=` and `ORCPT=` (RFC 3461).
    Dsn,
    /// `BY=` (RFC 2852).
    DeliverBy,
    /// `MT-PRIORITY=` (RFC 6710).
    MtPriority,
    /// `HOLDFOR=` and `HOLDUNTIL=` (RFC 4865).
    FutureRelease,
    /// `REQUIRETLS` (RFC 8689 §2). Offered only under TLS.
    RequireTls,
    /// How many transactions and recipients we take (RFC 9422).
    Limits,
    /// `ETRN` (RFC 1985). Offered to those who may use it.
    Etrn,
    /// `ATRN` (RFC 2645). Offered to those who may use it.
    Atrn,
    /// `XCLIENT`, by which a client speaks for another one. Offered to those who may use it.
    Xclient,
    /// `XFORWARD`, by which a client tells where a message first came from. Offered to those who may use it.
    Xforward,
    /// Enhanced status codes in replies (RFC 2034).
    EnhancedStatusCodes,
    /// TLS on request (RFC 3207). Offered by [`crate::TlsState`], not by the operator's choice.
    StartTls,
}

/// A set of extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions(u32);

impl Extension {
    /// All, in the order in which they are offered.
    pub const ALL: &[Self] = &[
        Self::Pipelining,
        Self::Size,
        Self::EightBitMime,
        Self::SmtpUtf8,
        Self::Chunking,
        Self::BinaryMime,
        Self::Dsn,
        Self::DeliverBy,
        Self::MtPriority,
        Self::FutureRelease,
        Self::RequireTls,
        Self::Limits,
        Self::Etrn,
        Self::Atrn,
        Self::Xclient,
        Self::Xforward,
        Self::StartTls,
        Self::EnhancedStatusCodes,
    ];

    /// The EHLO keyword.
    pub const fn keyword(self) -> &'static str {
        match self {
            Self::Pipelining => "PIPELINING",
            Self::Size => "SIZE",
            Self::EightBitMime => "8BITMIME",
            Self::SmtpUtf8 => "SMTPUTF8",
            Self::Chunking => "CHUNKING",
            Self::BinaryMime => "BINARYMIME",
            Self::Dsn => "DSN",
            Self::DeliverBy => "DELIVERBY",
            Self::MtPriority => "MT-PRIORITY",
            Self::FutureRelease => "FUTURERELEASE",
            Self::RequireTls => "REQUIRETLS",
            Self::Limits => "LIMITS",
            Self::Etrn => "ETRN",
            Self::Atrn => "ATRN",
            Self::Xclient => "XCLIENT",
            Self::Xforward => "XFORWARD",
            Self::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Self::StartTls => "STARTTLS",
        }
    }
}

impl Extensions {
    /// Nothing, as after `HELO`.
    pub const NONE: Self = Self(0);

    /// What does not depend on what a listener is for.
    ///
    /// Not BINARYMIME, because few next hops take it and we do not convert; not FUTURERELEASE, which is for our own
    /// users (RFC 4865 §4.2).
    pub const USUAL: Self = Self::NONE
        .with(Extension::Pipelining)
        .with(Extension::Size)
        .with(Extension::EightBitMime)
        .with(Extension::SmtpUtf8)
        .with(Extension::Chunking)
        .with(Extension::Dsn)
        .with(Extension::DeliverBy)
        .with(Extension::MtPriority)
        .with(Extension::RequireTls)
        .with(Extension::Limits)
        .with(Extension::EnhancedStatusCodes);

    /// What is offered to some clients of a listener only, see [`crate::Session::grant`].
    pub const PERSONAL: Self = Self::NONE
        .with(Extension::Etrn)
        .with(Extension::Atrn)
        .with(Extension::Xclient)
        .with(Extension::Xforward);

    /// All but these.
    pub const fn minus(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// This one too.
    pub const fn with(self, extension: Extension) -> Self {
        Self(self.0 | 1 << extension as u32)
    }

    /// All but this one.
    pub const fn without(self, extension: Extension) -> Self {
        Self(self.0 & !(1 << extension as u32))
    }

    /// Whether this one is in the set.
    pub const fn contains(self, extension: Extension) -> bool {
        self.0 & 1 << extension as u32 != 0
    }
}

impl Default for Extensions {
    fn default() -> Self {
        Self::USUAL
    }
}
