//! Replies (RFC 5321 §4.2), and the only place that spells one.

use std::{fmt, io::Write as _};

use mail::{Node, QueueId, Status, Timestamp, TransferPriority};

use crate::{Claims, Extension, Extensions, Forwarding, Limits, Refusal, Waiting};

/// A reply: code, enhanced status code and text, in one line or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    status: Option<Status>,
    text: Text,
    refusal: Option<Refusal>,
    /// How often it is sent.
    times: u32,
}

/// What follows the keyword of an extension.
fn told(extension: Extension, limits: &Limits, now: Timestamp) -> String {
    match extension {
        Extension::Size => format!(" {}", limits.message_size_max),
        // The longest time and the latest date (RFC 4865 §3).
        Extension::FutureRelease => {
            let seconds = limits.hold_max.as_secs();
            format!(" {seconds} {}", now.saturating_add(limits.hold_max).to_rfc3339())
        }
        // A value has six digits at most (RFC 9422 §4); what is larger is no limit that anybody meets.
        Extension::Limits => {
            let told =
                |name, limit: u64| if limit > 999_999 { String::new() } else { format!(" {name}={limit}") };
            let recipients = u64::try_from(limits.recipients_max).unwrap_or(u64::MAX);
            // A message may have as many at most as its session.
            let recipients = recipients.min(limits.recipients_per_session_max.into());
            told("MAILMAX", limits.transactions_max.into()) + &told("RCPTMAX", recipients)
        }
        Extension::Xclient => format!(" {}", Claims::NAMES),
        Extension::Xforward => format!(" {}", Forwarding::NAMES),
        Extension::Pipelining
        | Extension::EightBitMime
        | Extension::SmtpUtf8
        | Extension::Chunking
        | Extension::BinaryMime
        | Extension::Dsn
        | Extension::DeliverBy
        | Extension::MtPriority
        | Extension::RequireTls
        | Extension::Etrn
        | Extension::Atrn
        | Extension::EnhancedStatusCodes
        | Extension::StartTls => String::new(),
    }
}

/// What follows the codes. Replies that are sent often need no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Text {
    Fixed(&'static str),
    Queued(QueueId),
    Received(u64),
    /// Lines, parted by LF.
    Lines(Box<str>),
}

impl Reply {
    pub(crate) const OK: Self = Self::success(250, Status(2, 0, 0), "ok");
    pub(crate) const SENDER_OK: Self = Self::success(250, Status(2, 1, 0), "sender ok");
    pub(crate) const RECIPIENT_OK: Self = Self::success(250, Status(2, 1, 5), "recipient ok");
    pub(crate) const CLOSING: Self = Self::success(221, Status(2, 0, 0), "bye");
    pub(crate) const REVERSED: Self = Self::success(250, Status(2, 0, 0), "ok, reversing the connection");
    pub(crate) const START_TLS: Self = Self::success(220, Status(2, 0, 0), "ready to start TLS");
    // RFC 5321 §3.5.3: neither confirmed nor denied.
    pub(crate) const NOT_VERIFIED: Self =
        Self::success(252, Status(2, 0, 0), "send mail to it, then we shall know");
    pub(crate) const HELP: Self = Self::success(
        214,
        Status(2, 0, 0),
        "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP STARTTLS QUIT",
    );
    pub(crate) const HELP_LMTP: Self =
        Self::success(214, Status(2, 0, 0), "LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP STARTTLS QUIT");
    // A 3yz reply has no class among the enhanced status codes (RFC 2034 §4).
    pub(crate) const SEND_DATA: Self = Self {
        code: 354,
        status: None,
        text: Text::Fixed("end data with <CR><LF>.<CR><LF>"),
        refusal: None,
        times: 1,
    };

    const fn success(code: u16, status: Status, text: &'static str) -> Self {
        Self { code, status: Some(status), text: Text::Fixed(text), refusal: None, times: 1 }
    }

    /// The greeting (RFC 5321 §4.2: the domain comes first).
    pub(crate) fn greeting(hostname: &str, protocol: &str) -> Self {
        Self {
            code: 220,
            status: None,
            text: Text::Lines([hostname, " ", protocol].concat().into()),
            refusal: None,
            times: 1,
        }
    }

    pub(crate) fn helo(hostname: &str) -> Self {
        Self { code: 250, status: None, text: Text::Lines(hostname.into()), refusal: None, times: 1 }
    }

    /// What we offer (RFC 5321 §4.1.1.1).
    pub(crate) fn ehlo(
        hostname: &str,
        client: &str,
        offered: Extensions,
        limits: &Limits,
        now: Timestamp,
    ) -> Self {
        let mut lines = [hostname, " greets ", client].concat();
        for extension in Extension::ALL.iter().filter(|e| offered.contains(**e)) {
            lines.push('\n');
            lines.push_str(extension.keyword());
            lines.push_str(&told(*extension, limits, now));
        }
        Self { code: 250, status: None, text: Text::Lines(lines.into()), refusal: None, times: 1 }
    }

    /// The message is not as urgent as the client says (RFC 3463 registry, X.3.6: the new priority comes first).
    pub(crate) fn priority_changed(priority: TransferPriority) -> Self {
        let text = Text::Lines(format!("{} is the new priority", priority.get()).into());
        Self { code: 250, status: Some(Status(2, 3, 6)), text, refusal: None, times: 1 }
    }

    /// We are responsible for the message from here on (RFC 5321 §4.2.5).
    pub(crate) const fn queued(id: QueueId) -> Self {
        Self { code: 250, status: Some(Status(2, 0, 0)), text: Text::Queued(id), refusal: None, times: 1 }
    }

    /// The mail of a node is tried (RFC 1985 §5.1). Never 253, which would say how many messages: recipients are what we
    /// count.
    pub(crate) fn released(node: &Node, waiting: Waiting) -> Self {
        let (code, text) = match waiting {
            Waiting::Unknown => (250, format!("queuing for node {node} started")),
            Waiting::Nothing => (251, format!("no messages waiting for node {node}")),
            Waiting::Something => (252, format!("pending messages for node {node} started")),
        };
        Self { code, status: Some(Status(2, 0, 0)), text: Text::Lines(text.into()), refusal: None, times: 1 }
    }

    /// A chunk arrived and more may follow (RFC 3030 §2).
    pub(crate) const fn chunk(octets: u64) -> Self {
        Self {
            code: 250,
            status: Some(Status(2, 0, 0)),
            text: Text::Received(octets),
            refusal: None,
            times: 1,
        }
    }

    /// The same for each of so many recipients (RFC 2033 §4.2).
    pub(crate) const fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// The same with more to say behind it. Others may have written that: what is not printable ASCII is left out, and it ends
    /// where the line would be too long (RFC 5321 §4.5.3.1.5).
    pub fn explained(mut self, why: &str) -> Self {
        const WHY_MAX: usize = 350;
        let text = match &self.text {
            Text::Fixed(text) => *text,
            Text::Queued(_) | Text::Received(_) | Text::Lines(_) => return self,
        };
        let why: String = why.chars().filter(|c| matches!(c, ' '..='~')).take(WHY_MAX).collect();
        if !why.is_empty() {
            self.text = Text::Lines([text, ": ", &why].concat().into());
        }
        self
    }

    /// The three digits.
    pub const fn code(&self) -> u16 {
        self.code
    }

    /// The refusal that this reply spells, if it spells one.
    pub const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// The enhanced status code, where the reply has one (RFC 2034 §4).
    pub const fn status(&self) -> Option<Status> {
        self.status
    }

    /// Appends the reply as it goes over the wire.
    pub fn write_to(&self, output: &mut Vec<u8>) {
        for _ in 0..self.times {
            self.write_once(output);
        }
    }

    fn write_once(&self, output: &mut Vec<u8>) {
        match &self.text {
            Text::Fixed(text) => {
                self.write_codes(b' ', output);
                output.extend_from_slice(text.as_bytes());
                output.extend_from_slice(b"\r\n");
            }
            Text::Queued(id) => {
                self.write_codes(b' ', output);
                append(output, format_args!("queued as {id}\r\n"));
            }
            Text::Received(octets) => {
                self.write_codes(b' ', output);
                append(output, format_args!("{octets} octets received\r\n"));
            }
            Text::Lines(lines) => {
                let mut lines = lines.split('\n').peekable();
                while let Some(line) = lines.next() {
                    // A hyphen says that another line follows (RFC 5321 §4.2.1).
                    self.write_codes(if lines.peek().is_some() { b'-' } else { b' ' }, output);
                    output.extend_from_slice(line.as_bytes());
                    output.extend_from_slice(b"\r\n");
                }
            }
        }
    }

    fn write_codes(&self, separator: u8, output: &mut Vec<u8>) {
        let digit = |n: u16| b'0' + (n % 10) as u8;
        output.extend_from_slice(&[
            digit(self.code / 100),
            digit(self.code / 10),
            digit(self.code),
            separator,
        ]);
        if let Some(status) = self.status {
            append(output, format_args!("{status} "));
        }
    }
}

fn append(output: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    output.write_fmt(text).expect("a Vec takes every byte");
}

impl fmt::Display for Reply {
    /// As in [`Reply::write_to`], without the last CRLF.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes);
        f.write_str(String::from_utf8_lossy(&bytes).trim_end())
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let (code, status, text) = refusal.spelling();
        Self { code, status: Some(status), text: Text::Fixed(text), refusal: Some(refusal), times: 1 }
    }
}

impl Refusal {
    /// Code, enhanced status code, text. The status codes are those of the registry (RFC 5248).
    // No `_` arm: a new refusal does not compile until it has a code.
    pub(crate) const fn spelling(self) -> (u16, Status, &'static str) {
        match self {
            Self::UnknownCommand => (500, Status(5, 5, 1), "unknown command"),
            Self::NotImplemented => (502, Status(5, 5, 1), "command not implemented"),
            Self::Argument => (501, Status(5, 5, 4), "syntax error in arguments"),
            Self::ControlCharacter => (500, Status(5, 5, 2), "control character in command line"),
            // RFC 5321 §4.5.3.1.9.
            Self::LineTooLong => (500, Status(5, 5, 2), "line too long"),
            Self::LineEndless => (421, Status(4, 5, 2), "line does not end, closing"),
            Self::ReversePathSyntax => (501, Status(5, 1, 7), "malformed reverse-path"),
            Self::ForwardPathSyntax => (501, Status(5, 1, 3), "malformed forward-path"),
            // RFC 6531 §3.5: 553 to RCPT, 550 to MAIL.
            Self::Utf8Needed => (553, Status(5, 6, 7), "address needs SMTPUTF8"),
            Self::SenderUtf8Needed => (550, Status(5, 6, 7), "sender's address needs SMTPUTF8"),
            // RFC 5321 §4.1.1.11.
            Self::ParameterUnknown => (555, Status(5, 5, 4), "parameter not recognised"),
            Self::ParameterSyntax => (501, Status(5, 5, 4), "malformed parameter"),
            // RFC 4865 §4.2: what is later than was offered, or no time to come.
            Self::HoldTooLong => (501, Status(5, 5, 4), "held for longer than is offered"),
            Self::HoldPast => (501, Status(5, 5, 4), "held until a time that has passed"),
            // RFC 4865 §5.2.2.
            Self::HoldPastDeadline => (501, Status(5, 5, 4), "held for longer than it may take"),
            Self::EhloFirst => (503, Status(5, 5, 1), "send EHLO first"),
            Self::LhloFirst => (503, Status(5, 5, 1), "send LHLO first"),
            Self::MailFirst => (503, Status(5, 5, 1), "send MAIL first"),
            Self::RcptFirst => (503, Status(5, 5, 1), "no valid recipient, send RCPT first"),
            Self::TransactionOpen => (503, Status(5, 5, 1), "transaction already open"),
            // RFC 3030 §2, §3.
            Self::ChunkingBegun => (503, Status(5, 5, 1), "go on with BDAT, or send RSET"),
            Self::BinaryByData => (503, Status(5, 5, 1), "BODY=BINARYMIME needs BDAT"),
            Self::TlsActive => (503, Status(5, 5, 1), "TLS is already active"),
            // RFC 3207 §4.
            Self::TlsRequired => (530, Status(5, 7, 0), "send STARTTLS first"),
            Self::TlsUnavailable => (454, Status(4, 7, 0), "TLS not available now"),
            // RFC 4954 §6.
            Self::AuthenticationRequired => (530, Status(5, 7, 0), "authentication required"),
            // Temporary, so that the client splits the transaction (RFC 5321 §4.5.3.1.10).
            Self::TooManyRecipients => (452, Status(4, 5, 3), "too many recipients"),
            Self::TooManyTransactions => (421, Status(4, 7, 0), "enough for one session, connect again"),
            Self::TooManyErrors => (421, Status(4, 7, 0), "too many errors, closing"),
            Self::TooManyCommands => (421, Status(4, 7, 0), "too many commands, closing"),
            Self::TooManyConnections => (421, Status(4, 7, 0), "too many connections, try again later"),
            // Not 521: that is for hosts that take no mail from anybody (RFC 7504 §3).
            Self::ConnectionRefused => (554, Status(5, 7, 1), "no SMTP service for you"),
            Self::EarlyTalker => (554, Status(5, 5, 1), "you spoke before you were greeted"),
            Self::Timeout => (421, Status(4, 4, 2), "timeout, closing"),
            Self::TooSlow => (421, Status(4, 4, 2), "mail data too slow, closing"),
            Self::ShuttingDown => (421, Status(4, 3, 2), "shutting down, try again later"),
            // RFC 1870 §6.1.
            Self::MessageTooBig => (552, Status(5, 3, 4), "message too big"),
            Self::BareLineEnd => (550, Status(5, 6, 11), "bare CR or LF in message"),
            Self::NulByte => (550, Status(5, 6, 0), "NUL in message"),
            // RFC 5321 §4.5.3.1.6.
            Self::DataLineTooLong => (550, Status(5, 6, 0), "line over 998 octets in message"),
            Self::EightBitUndeclared => (550, Status(5, 6, 0), "8-bit content needs BODY=8BITMIME"),
            Self::EightBitHeader => (550, Status(5, 6, 9), "8-bit header fields need SMTPUTF8"),
            // RFC 5322 §3.6.
            Self::HeaderMissing => (550, Status(5, 6, 0), "header section lacks From or Date"),
            Self::HeaderRepeated => (550, Status(5, 6, 0), "header field repeated that may stand once"),
            Self::HeaderMalformed => (550, Status(5, 6, 0), "malformed header section"),
            Self::Loop => (554, Status(5, 4, 6), "mail loop: too many Received fields"),
            Self::RelayDenied => (550, Status(5, 7, 1), "relaying denied"),
            Self::NoSuchRecipient => (550, Status(5, 1, 1), "no such recipient"),
            Self::NoSuchDomain => (550, Status(5, 1, 2), "no such domain"),
            // RFC 7505 §4, RFC 7504 §4.
            Self::NullMx => (556, Status(5, 1, 10), "recipient domain takes no mail"),
            Self::MailboxFull => (452, Status(4, 2, 2), "mailbox full"),
            Self::MailboxDisabled => (450, Status(4, 2, 1), "mailbox disabled"),
            Self::SenderNotAllowed => (550, Status(5, 7, 1), "sender not allowed"),
            Self::SenderDomainUnknown => (550, Status(5, 1, 8), "sender domain unknown"),
            Self::EhloNameRefused => (550, Status(5, 7, 1), "EHLO name refused"),
            // RFC 7372 §3.3.
            Self::ReverseName => (550, Status(5, 7, 25), "your address has no name that leads back to it"),
            Self::Policy => (550, Status(5, 7, 1), "refused by policy"),
            Self::PolicyUnavailable => (451, Status(4, 4, 3), "cannot judge now, try again later"),
            // RFC 7372 §3.1, §3.2.
            Self::SpfFailed => {
                (550, Status(5, 7, 23), "SPF: your address may not send for the sender's domain")
            }
            Self::SpfBroken => {
                (550, Status(5, 7, 24), "SPF: the record of the sender's domain makes no sense")
            }
            Self::DkimFailed => (550, Status(5, 7, 20), "DKIM: no signature is good"),
            // "Multiple authentication checks failed" (RFC 7372 §3.3): neither SPF nor a signature stands by the author.
            Self::DmarcFailed => (550, Status(5, 7, 26), "DMARC: refused as the author's domain asks"),
            Self::DeceptiveAuthor => (550, Status(5, 7, 1), "From can be taken for that of somebody else"),
            Self::DeceptiveFields => (550, Status(5, 7, 1), "header section can be read in several ways"),
            Self::NoAuthor => (550, Status(5, 7, 1), "From has no author, or authors of several domains"),
            Self::AuthenticationDeferred => {
                (451, Status(4, 7, 1), "cannot tell that this is from its sender, try again later")
            }
            // RFC 5321 §4.2.3: a failure of the transaction, whoever the recipient is.
            Self::Listed => (554, Status(5, 7, 1), "refused: your address or name is on a list"),
            Self::ListedDeferred => {
                (450, Status(4, 7, 1), "your address or name is on a list, try again later")
            }
            Self::Greylisted => (451, Status(4, 7, 1), "greylisted, try again later"),
            Self::RateLimited => (451, Status(4, 7, 1), "too much at once, try again later"),
            Self::QuotaUsedUp => {
                (452, Status(4, 7, 1), "your quota is used up, try again when it begins anew")
            }
            Self::RecipientSuppressed => (550, Status(5, 7, 1), "the recipient is on the suppression list"),
            Self::UnsubscribeMissing => {
                (550, Status(5, 7, 1), "bulk mail needs List-Unsubscribe: <https://...> (RFC 8058)")
            }
            Self::UnsubscribeMalformed => {
                (550, Status(5, 7, 1), "List-Unsubscribe must stand once, with one https link (RFC 8058)")
            }
            Self::UnsubscribePost => {
                (550, Status(5, 7, 1), "bulk mail needs List-Unsubscribe-Post: List-Unsubscribe=One-Click")
            }
            // RFC 7372 §3.1.
            Self::UnsubscribeUnsigned => (
                550,
                Status(5, 7, 20),
                "DKIM: List-Unsubscribe is not signed: no key for the author's domain",
            ),
            // RFC 1985 §5.1.
            Self::FetchNotAllowed => (450, Status(4, 7, 1), "ATRN refused: not all of it is yours"),
            Self::FetchUnavailable => (451, Status(4, 3, 2), "unable to process ATRN now"),
            Self::NothingToFetch => (453, Status(4, 0, 0), "you have no mail"),
            Self::ForwardingNotAllowed => (550, Status(5, 7, 0), "you may not tell where mail is from"),
            Self::NodeNotAllowed => (459, Status(4, 7, 1), "node not allowed: it is not this client's"),
            Self::NodeUnavailable => (458, Status(4, 3, 2), "unable to queue messages for the node now"),
            Self::Busy => (451, Status(4, 3, 2), "busy, try again later"),
            Self::StorageFull => (452, Status(4, 3, 1), "mail system full, try again later"),
            Self::StorageFailed => (451, Status(4, 3, 0), "storage failed, try again later"),
        }
    }
}

#[cfg(test)]
mod test {
    use mail::JournalShard;

    use super::*;

    fn check(reply: &Reply, expected: &str) {
        let mut output = Vec::new();
        reply.write_to(&mut output);
        assert_eq!(String::from_utf8(output).unwrap(), expected);
    }

    #[test]
    fn replies_on_the_wire() {
        check(&Reply::OK, "250 2.0.0 ok\r\n");
        check(&Reply::SEND_DATA, "354 end data with <CR><LF>.<CR><LF>\r\n");
        check(&Reply::greeting("mx.example", "ESMTP"), "220 mx.example ESMTP\r\n");
        check(&Reply::queued(QueueId::new(JournalShard(0), 42)), "250 2.0.0 queued as 000000000001A\r\n");
        check(&Reply::chunk(86), "250 2.0.0 86 octets received\r\n");
        check(&Reply::from(Refusal::BareLineEnd), "550 5.6.11 bare CR or LF in message\r\n");
        check(
            &Reply::from(Refusal::Listed).explained("bl: see\r\n250 ok\n \u{7f}caf\u{e9}"),
            "554 5.7.1 refused: your address or name is on a list: bl: see250 ok caf\r\n",
        );
        check(&Reply::OK.explained("\r\n"), "250 2.0.0 ok\r\n");
        let mut long = Vec::new();
        Reply::from(Refusal::ListedDeferred).explained(&"x".repeat(5000)).write_to(&mut long);
        assert!(long.len() <= 512);
        let limits = Limits { message_size_max: 100, ..Limits::default() };
        let offered = Extensions::NONE.with(Extension::Pipelining).with(Extension::Size);
        check(
            &Reply::ehlo("mx.example", "c.example", offered, &limits, Timestamp::EPOCH),
            "250-mx.example greets c.example\r\n250-PIPELINING\r\n250 SIZE 100\r\n",
        );
    }
}
