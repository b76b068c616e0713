//! Why the server will not do what the client asked.
//!
//! The doc comment of a variant is the "when" of `docs/replies.md`, which is written from this table.

use mail::Status;

use crate::SyntaxError;

macro_rules! refusals {
    ($($(#[doc = $when:literal])+ $name:ident = $label:literal,)+) => {
        /// Why the server will not do what the client asked. How each is spelled stands in `reply.rs`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[doc = $when])+ $name,)+
        }

        impl Refusal {
            /// Every refusal there is.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name in metrics and logs. It never changes.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }

            /// When the server says this.
            pub const fn when(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($when),+).trim_ascii(),)+
                }
            }
        }
    };
}

refusals! {
    /// The verb is none that SMTP has.
    UnknownCommand = "unknown_command",
    /// The verb is known, but not offered here.
    NotImplemented = "not_implemented",
    /// An argument is missing, malformed or too many.
    Argument = "argument",
    /// The line holds a NUL, another control character, a bare CR or a bare LF.
    ControlCharacter = "control_character",
    /// The command line is longer than the limit.
    LineTooLong = "line_too_long",
    /// The command line does not end at all.
    LineEndless = "line_endless",
    /// The argument of `MAIL` is not a path.
    ReversePathSyntax = "reverse_path_syntax",
    /// The argument of `RCPT` is not a path.
    ForwardPathSyntax = "forward_path_syntax",
    /// The forward-path holds more than US-ASCII and the transaction has no `SMTPUTF8`.
    Utf8Needed = "utf8_needed",
    /// The reverse-path holds more than US-ASCII and MAIL has no `SMTPUTF8`.
    SenderUtf8Needed = "sender_utf8_needed",
    /// A parameter of `MAIL` or `RCPT` belongs to no extension that was offered.
    ParameterUnknown = "parameter_unknown",
    /// A parameter of `MAIL` or `RCPT` has a malformed value or is given twice.
    ParameterSyntax = "parameter_syntax",
    /// `HOLDFOR` or `HOLDUNTIL` asks for more than `hold-max`.
    HoldTooLong = "hold_too_long",
    /// `HOLDUNTIL` names a time that has passed.
    HoldPast = "hold_past",
    /// The message would be held until it has to be delivered, or longer: `BY` contradicts `HOLDFOR` or `HOLDUNTIL`.
    HoldPastDeadline = "hold_past_deadline",
    /// A command that needs `EHLO` or `HELO` before it.
    EhloFirst = "ehlo_first",
    /// A command that needs `LHLO` before it, on a listener for LMTP.
    LhloFirst = "lhlo_first",
    /// A command that needs `MAIL` before it.
    MailFirst = "mail_first",
    /// `DATA` or `BDAT` without an accepted recipient.
    RcptFirst = "rcpt_first",
    /// `MAIL`, `ETRN`, `ATRN`, `XCLIENT` or `XFORWARD` while a transaction is open.
    TransactionOpen = "transaction_open",
    /// `DATA`, `MAIL` or `RCPT` after the first `BDAT` of a transaction.
    ChunkingBegun = "chunking_begun",
    /// `DATA` for a message declared with `BODY=BINARYMIME`.
    BinaryByData = "binary_by_data",
    /// `STARTTLS` when TLS is active.
    TlsActive = "tls_active",
    /// A command that this listener takes under TLS only.
    TlsRequired = "tls_required",
    /// `STARTTLS` while the server has no usable certificate.
    TlsUnavailable = "tls_unavailable",
    /// A command that needs a login before it.
    AuthenticationRequired = "authentication_required",
    /// One recipient more than a transaction may have.
    TooManyRecipients = "too_many_recipients",
    /// One transaction more than a session may have.
    TooManyTransactions = "too_many_transactions",
    /// Too many bad commands in one session.
    TooManyErrors = "too_many_errors",
    /// Too many commands since the last accepted message.
    TooManyCommands = "too_many_commands",
    /// Too many connections, from this client or in all.
    TooManyConnections = "too_many_connections",
    /// This client may not connect.
    ConnectionRefused = "connection_refused",
    /// The client sent something before it was greeted.
    EarlyTalker = "early_talker",
    /// The client was silent for too long, or the session too long in all.
    Timeout = "timeout",
    /// Mail data came more slowly than it has to.
    TooSlow = "too_slow",
    /// The server is about to stop.
    ShuttingDown = "shutting_down",
    /// The declared or the received size is over the limit.
    MessageTooBig = "message_too_big",
    /// A CR without LF or an LF without CR in the mail data.
    BareLineEnd = "bare_line_end",
    /// A NUL in the mail data.
    NulByte = "nul_byte",
    /// A line of mail data longer than 998 octets.
    DataLineTooLong = "data_line_too_long",
    /// Octets above 127 in the content without `BODY=8BITMIME`.
    EightBitUndeclared = "eight_bit_undeclared",
    /// Octets above 127 in the header section without `SMTPUTF8`.
    EightBitHeader = "eight_bit_header",
    /// The header section lacks `From` or `Date`.
    HeaderMissing = "header_missing",
    /// A header field stands twice that may stand once.
    HeaderRepeated = "header_repeated",
    /// The header section is malformed.
    HeaderMalformed = "header_malformed",
    /// Too many `Received` header fields: the message goes round in a circle.
    Loop = "loop",
    /// Neither the client nor the recipient is ours.
    RelayDenied = "relay_denied",
    /// The domain is ours, the address is not.
    NoSuchRecipient = "no_such_recipient",
    /// The recipient's domain does not exist.
    NoSuchDomain = "no_such_domain",
    /// The recipient's domain says that it takes no mail (null MX).
    NullMx = "null_mx",
    /// The mailbox is over its quota.
    MailboxFull = "mailbox_full",
    /// The mailbox is disabled for now.
    MailboxDisabled = "mailbox_disabled",
    /// This client or login may not send with this reverse-path.
    SenderNotAllowed = "sender_not_allowed",
    /// The domain of the reverse-path does not exist or takes no mail.
    SenderDomainUnknown = "sender_domain_unknown",
    /// The name given with `EHLO` is refused.
    EhloNameRefused = "ehlo_name_refused",
    /// The client's address has no name in the DNS, or one that does not lead back to it.
    ReverseName = "reverse_name",
    /// A rule of this site refuses it.
    Policy = "policy",
    /// A rule of this site could not be judged now: DNS or a filter did not answer.
    PolicyUnavailable = "policy_unavailable",
    /// The sender's domain does not send from the client's address (SPF).
    SpfFailed = "spf_failed",
    /// The SPF record of the sender's domain makes no sense.
    SpfBroken = "spf_broken",
    /// None of the message's signatures is good (DKIM).
    DkimFailed = "dkim_failed",
    /// Nothing shows that the message is from its author's domain, which asks to refuse such mail (DMARC).
    DmarcFailed = "dmarc_failed",
    /// The message has no author, or authors of several domains.
    NoAuthor = "no_author",
    /// Who the message is from can be read in several ways, or looks like somebody else.
    DeceptiveAuthor = "deceptive_author",
    /// The header section can be read in several ways.
    DeceptiveFields = "deceptive_fields",
    /// SPF, DKIM or DMARC speak against the message, and such mail is not taken at the first time.
    AuthenticationDeferred = "authentication_deferred",
    /// The client, or a name that it goes by, is on lists of the DNS, and their weights are enough to refuse it.
    Listed = "listed",
    /// The client, or a name that it goes by, is on lists of the DNS, and their weights are enough to put it off.
    ListedDeferred = "listed_deferred",
    /// Come back later: greylisting.
    Greylisted = "greylisted",
    /// More in a given time than this client may send.
    RateLimited = "rate_limited",
    /// The tenant's quota of an hour, a day or a month is used up.
    QuotaUsedUp = "quota_used_up",
    /// The recipient is on the tenant's suppression list: it bounced, complained or unsubscribed, or an operator wants it.
    RecipientSuppressed = "recipient_suppressed",
    /// Bulk mail of a tenant with `unsubscribe-check = "refuse"` has no `List-Unsubscribe` (RFC 8058).
    UnsubscribeMissing = "unsubscribe_missing",
    /// Its `List-Unsubscribe` cannot be used: it is malformed, stands twice, or has a link that is not HTTPS, not the only one, or to nowhere.
    UnsubscribeMalformed = "unsubscribe_malformed",
    /// Its `List-Unsubscribe-Post` is missing, stands twice or says something else.
    UnsubscribePost = "unsubscribe_post",
    /// No signature of ours covers both: no `[[dkim]]` is for its author, or it could not sign.
    UnsubscribeUnsigned = "unsubscribe_unsigned",
    /// A client asks for the mail of a domain that is not among those it may ask for.
    NodeNotAllowed = "node_not_allowed",
    /// The mail of a domain cannot be tried now: that of another is being looked for, or a core does not answer.
    NodeUnavailable = "node_unavailable",
    /// A client asks by `ATRN` for the mail of a domain that is not among those it may have.
    FetchNotAllowed = "fetch_not_allowed",
    /// Mail that `ATRN` asks for cannot be had now: the queue is not complete yet, or a core does not answer.
    FetchUnavailable = "fetch_unavailable",
    /// No mail waits for a client that asks by `ATRN`.
    NothingToFetch = "nothing_to_fetch",
    /// `XFORWARD` from a client that may not tell where mail is from.
    ForwardingNotAllowed = "forwarding_not_allowed",
    /// No memory is free for another message.
    Busy = "busy",
    /// No room is left for another message.
    StorageFull = "storage_full",
    /// The message could not be made durable.
    StorageFailed = "storage_failed",
}

/// What becomes of the session when a refusal has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aftermath {
    /// It goes on.
    Continue,
    /// The server closes it.
    Close,
}

impl Refusal {
    /// Those that no server of ours sends yet: what would have to ask for them is not there. A next hop may say the same,
    /// and the simulator does.
    pub const NOT_YET: &[Self] = &[
        Self::EightBitUndeclared,
        Self::NoSuchDomain,
        Self::NullMx,
        Self::MailboxFull,
        Self::MailboxDisabled,
        Self::SenderDomainUnknown,
    ];

    /// Whether the session ends with this refusal: always after 421 (RFC 5321 §3.8).
    pub const fn aftermath(self) -> Aftermath {
        match self.spelling().0 {
            421 => Aftermath::Close,
            _ => Aftermath::Continue,
        }
    }

    /// The reply code.
    pub const fn code(self) -> u16 {
        self.spelling().0
    }

    /// The enhanced status code.
    pub const fn status(self) -> Status {
        self.spelling().1
    }

    /// The text of the reply.
    pub const fn text(self) -> &'static str {
        self.spelling().2
    }
}

impl From<SyntaxError> for Refusal {
    fn from(error: SyntaxError) -> Self {
        match error {
            SyntaxError::UnknownVerb => Self::UnknownCommand,
            SyntaxError::NotImplemented => Self::NotImplemented,
            SyntaxError::ControlCharacter => Self::ControlCharacter,
            SyntaxError::Argument | SyntaxError::Chunk => Self::Argument,
            SyntaxError::ReversePath => Self::ReversePathSyntax,
            SyntaxError::ForwardPath => Self::ForwardPathSyntax,
            SyntaxError::ParameterUnknown => Self::ParameterUnknown,
            SyntaxError::Parameter => Self::ParameterSyntax,
        }
    }
}

#[cfg(test)]
#[path = "refusal_test.rs"]
mod test;
