//! Delivery status notifications: what became of a message (RFC 3461, 3464, 6522, 6533).
//!
//! ```text
//!  multipart/report
//!    text/plain                 for people: what happened, what the other side said, what to do
//!    message/delivery-status    for programs: one group of fields for the message, one for each recipient
//!    message/rfc822             the message, or
//!    text/rfc822-headers        its header section
//! ```
//!
//! When an address is not ASCII the last two are `message/global-…`, so that it can stand there as it is.

use bytes::Bytes;
use mail::{
    Address, AddressError, BodyType, Class, DeliverByMode, DeliverByTrace, Domain, Envelope, Handling,
    HoldFor, Notify, OriginalRecipient, QueueId, Recipient, Ret, ReversePath, Status, Timestamp, TlsDemand,
    Utf8,
};
use message::{
    HeaderLimits, HeaderScan, HeaderSummary,
    compose::{self, ComposeError, Header, Part, TransferEncoding},
    content,
    date::date_text,
};

use crate::explain;

/// What is known of the message and of those it was for.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The id of the report itself.
    pub report_id: QueueId,
    /// The id of the message reported on.
    pub message_id: QueueId,
    /// The host that reports.
    pub host: &'a Domain,
    /// When the report is written.
    pub now: Timestamp,
    /// The envelope the message came with.
    pub envelope: &'a Envelope,
    /// Those whose state has changed.
    pub recipients: &'a [RecipientFacts<'a>],
}

/// What became of one recipient.
#[derive(Clone, Debug)]
pub struct RecipientFacts<'a> {
    /// The recipient, as in the envelope.
    pub recipient: &'a Recipient,
    /// What became of it.
    pub outcome: Outcome,
    /// The enhanced status code.
    pub status: Status,
    /// The host that said so.
    pub remote_mta: Option<&'a str>,
    /// What it said, or what we found.
    pub diagnostic: Option<Diagnostic<'a>>,
    /// When it was tried last.
    pub last_attempt: Option<Timestamp>,
}

/// What became of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It will not be tried again.
    Failed,
    /// It will be tried until then.
    Delayed {
        /// The give-up time.
        retry_until: Timestamp,
    },
    /// It lies in the mailbox.
    Delivered,
    /// It went on to a host that sends no reports on success.
    Relayed,
    /// It went on to the members of a list or the targets of an alias.
    Expanded,
}

/// Why, in the words of who decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diagnostic<'a> {
    /// The reply of an SMTP server, its lines as they came.
    Smtp(&'a [u8]),
    /// Our own words.
    Local(&'a str),
}

/// Bounds of what a report holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A message up to this length is returned whole when the sender did not say how (RFC 3461 §4.3 leaves
    /// it to us).
    pub full_size_max: usize,
    /// A message up to this length is returned whole when the sender asked for it.
    pub full_asked_size_max: usize,
    /// At most so much of a header section is returned.
    pub headers_size_max: usize,
    /// At most so much of a diagnostic is quoted.
    pub diagnostic_size_max: usize,
}

/// A message to be accepted into the queue like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// From the null reverse-path to the sender.
    pub envelope: Envelope,
    /// The content, lines ended by CRLF, dots not stuffed. The message reported on is not copied.
    pub content: Vec<Bytes>,
}

/// Why there is no report although one is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// Our host's name does not make an address.
    #[error("the host's name makes no sender's address: {0}")]
    Host(#[from] AddressError),
    /// A value does not fit into its field.
    #[error("the report cannot be composed: {0}")]
    Compose(#[from] ComposeError),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            full_size_max: 64 << 10,
            full_asked_size_max: 10 << 20,
            headers_size_max: 64 << 10,
            diagnostic_size_max: 800,
        }
    }
}

/// Writes the report, if the sender wants one: none for the null reverse-path (RFC 5321 §4.5.5), and none
/// for recipients whose `NOTIFY` does not ask for it (RFC 3461 §4.1).
///
/// `original` is the message as it lies in the queue.
///
/// # Errors
/// [`DsnError`] when our own name is unfit for a header.
pub fn dsn(facts: &Facts<'_>, original: &[Bytes], limits: &Limits) -> Result<Option<Report>, DsnError> {
    let Some(sender) = facts.envelope.reverse_path.address() else { return Ok(None) };
    let recipients: Vec<_> = facts.recipients.iter().filter(|r| is_wanted(facts.envelope, r)).collect();
    let Some(worst) = recipients.iter().map(|r| Severity::of(r.outcome)).max() else { return Ok(None) };

    let script = Script::of(facts, &recipients);
    let header_limits = HeaderLimits { header_size_max: limits.headers_size_max };
    let summary = HeaderScan::of(original, header_limits);
    let text = explain::text(facts, &recipients, limits.diagnostic_size_max);
    let parts = vec![
        Part::text(&text, script.text_encoding()).with("Content-Description", "Notification")?,
        status_part(facts, &recipients, script, limits)?,
        returned_part(facts, worst, script, original, &summary, limits)?,
    ];
    let header = header(facts, sender, worst, original, &summary)?;
    let content = compose::multipart(header, "report; report-type=delivery-status", facts.report_id, parts)?;
    let ascii = content.iter().all(|slice| slice.is_ascii());
    let envelope = Envelope {
        received_at: facts.now,
        reverse_path: ReversePath::Null,
        // Nobody is told what becomes of a report.
        recipients: vec![Recipient { notify: Notify::NEVER, ..Recipient::new(sender.clone()) }],
        body: if ascii { BodyType::SevenBit } else { BodyType::EightBitMime },
        // In the report's own header only these two could be UTF-8; its parts ask for no more than 8BITMIME.
        utf8: if sender.is_ascii() && facts.host.as_str().is_ascii() {
            Utf8::NotNeeded
        } else {
            Utf8::Needed
        },
        ret: None,
        envelope_id: None,
        handling: Handling {
            // As urgent as what it tells of (RFC 6710 §4.6).
            priority: facts.envelope.handling.priority,
            // "MUST also specify the REQUIRETLS SMTP option" (RFC 8689 §5).
            tls: facts.envelope.handling.tls,
            ..Handling::default()
        },
        upstream: None,
    };
    Ok(Some(Report { envelope, content }))
}

/// What the fields `Action` and `Status` say (RFC 3464 §2.3.3, §2.3.4).
///
/// A failure may keep a status of class 4: the message was sound, the time was up (RFC 3463 §3.1). Any other
/// status whose class contradicts the action is replaced by the action's own.
fn action_and_status(outcome: Outcome, status: Status) -> (&'static str, Status) {
    let (action, fits, otherwise) = match outcome {
        Outcome::Failed => {
            let fits = matches!(status.class(), Some(Class::Permanent | Class::Transient));
            ("failed", fits, Status(5, 0, 0))
        }
        Outcome::Delayed { .. } => ("delayed", status.class() == Some(Class::Transient), Status(4, 0, 0)),
        Outcome::Delivered => ("delivered", status.class() == Some(Class::Success), Status(2, 0, 0)),
        Outcome::Relayed => ("relayed", status.class() == Some(Class::Success), Status(2, 0, 0)),
        Outcome::Expanded => ("expanded", status.class() == Some(Class::Success), Status(2, 0, 0)),
    };
    (action, if fits { status } else { otherwise })
}

/// Whether the sender wants to hear that the message went on, where nobody behind us tells him of its delivery.
///
/// With `NOTIFY=SUCCESS` (RFC 3461 §5.2.2). Who gave a time wants to hear when it is kept no more, in mode `N`, and
/// of each hop, with the trace modifier (RFC 2852 §4.1.4); unless he wants to hear nothing at all.
pub fn wants_success(envelope: &Envelope, recipient: &Recipient) -> bool {
    let notify = recipient.notify;
    let followed = envelope.handling.deliver_by.is_some_and(|by| match (by.mode, by.trace) {
        (DeliverByMode::Notify, _) | (DeliverByMode::Return, DeliverByTrace::Yes) => true,
        (DeliverByMode::Return, DeliverByTrace::No) => false,
    });
    notify.success || followed && (notify.failure || notify.delay)
}

fn is_wanted(envelope: &Envelope, facts: &RecipientFacts<'_>) -> bool {
    let notify = facts.recipient.notify;
    match facts.outcome {
        Outcome::Failed => notify.failure,
        Outcome::Delayed { .. } => notify.delay,
        Outcome::Delivered | Outcome::Expanded => notify.success,
        Outcome::Relayed => wants_success(envelope, facts.recipient),
    }
}

/// What a report is about when it is about several things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Success,
    Delay,
    Failure,
}

impl Severity {
    const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Failed => Self::Failure,
            Outcome::Delayed { .. } => Self::Delay,
            Outcome::Delivered | Outcome::Relayed | Outcome::Expanded => Self::Success,
        }
    }

    const fn subject(self) -> &'static str {
        match self {
            Self::Success => "Your message was delivered",
            Self::Delay => "Your message is delayed",
            Self::Failure => "Your message could not be delivered",
        }
    }
}

/// Whether the parts hold addresses in UTF-8 (RFC 6533).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    Ascii,
    Global,
}

impl Script {
    fn of(facts: &Facts<'_>, recipients: &[&RecipientFacts<'_>]) -> Self {
        let global = |r: &&RecipientFacts<'_>| {
            !r.recipient.address.is_ascii()
                || r.recipient.original.as_ref().is_some_and(|o| !o.address.is_ascii())
        };
        let envelope_id = facts.envelope.envelope_id.as_ref().is_some_and(|id| !id.is_ascii());
        let needed = facts.envelope.utf8 == Utf8::Needed || !facts.host.as_str().is_ascii() || envelope_id;
        if needed || recipients.iter().any(global) { Self::Global } else { Self::Ascii }
    }

    const fn text_encoding(self) -> TransferEncoding {
        match self {
            Self::Ascii => TransferEncoding::QuotedPrintable,
            Self::Global => TransferEncoding::EightBit,
        }
    }

    const fn address_type(self) -> &'static str {
        match self {
            Self::Ascii => "rfc822",
            Self::Global => "utf-8",
        }
    }
}

fn header(
    facts: &Facts<'_>,
    sender: &Address,
    worst: Severity,
    original: &[Bytes],
    summary: &HeaderSummary,
) -> Result<Header, DsnError> {
    let mut header = Header::new();
    header.date(facts.now);
    let from = Address::new("MAILER-DAEMON", facts.host)?;
    header.mailbox("From", "Mail Delivery System", &from)?;
    header.mailbox("To", "", sender)?;
    header.text("Subject", worst.subject())?;
    header.message_id(facts.report_id, facts.now, facts.host.as_str());
    // So that a report stands beside its message in whatever shows it.
    if let Some(id) = original_id(original, summary) {
        header.structured("In-Reply-To", &id)?;
        header.structured("References", &id)?;
    }
    // "auto-replied" is what RFC 3834 §5 has for an answer to one message, so that nobody answers it.
    header.structured("Auto-Submitted", "auto-replied")?;
    Ok(header)
}

/// The message's own `Message-ID`, if it is one that may be repeated.
fn original_id(original: &[Bytes], summary: &HeaderSummary) -> Option<String> {
    const ID_MAX: usize = 250;
    let range = summary.message_id.clone().filter(|range| range.len() <= ID_MAX)?;
    let value = String::from_utf8(content::gather(original, range)).ok()?;
    let id = value.trim();
    let sound = id.starts_with('<') && id.ends_with('>') && id.bytes().all(|b| b.is_ascii_graphic());
    sound.then(|| id.to_owned())
}

/// The part for programs (RFC 3464 §2.1).
fn status_part(
    facts: &Facts<'_>,
    recipients: &[&RecipientFacts<'_>],
    script: Script,
    limits: &Limits,
) -> Result<Part, DsnError> {
    let mut fields = Header::new();
    let date = |at| String::from_utf8_lossy(&date_text(at)).into_owned();
    if let Some(id) = &facts.envelope.envelope_id {
        fields.structured("Original-Envelope-Id", &printable(id))?;
    }
    fields.structured("Reporting-MTA", &format!("dns; {}", facts.host))?;
    fields.structured("Arrival-Date", &date(facts.envelope.received_at))?;
    let Handling { deliver_by, hold_until, hold_for, .. } = facts.envelope.handling;
    // RFC 2852 §5.
    if let Some(by) = deliver_by {
        fields.structured("Deliver-By-Date", &date(by.deadline))?;
    }
    // "MUST include a Future-Release-Request field" (RFC 4865 §5.1.2).
    match (hold_for, hold_until) {
        (Some(HoldFor(seconds)), _) => {
            fields.structured("Future-Release-Request", &format!("for;{seconds}"))?
        }
        (None, Some(until)) => {
            fields.structured("Future-Release-Request", &format!("until;{}", until.to_rfc3339()))?;
        }
        (None, None) => {}
    }
    for recipient in recipients {
        fields.group_end();
        if let Some(OriginalRecipient { address_type, address }) = &recipient.recipient.original {
            let value = format!("{}; {}", atom(address_type), printable(address));
            fields.structured("Original-Recipient", &value)?;
        }
        let address = &recipient.recipient.address;
        fields.structured("Final-Recipient", &format!("{}; {address}", script.address_type()))?;
        let (action, status) = action_and_status(recipient.outcome, recipient.status);
        fields.structured("Action", action)?;
        fields.structured("Status", &status.to_string())?;
        if let Some(host) = recipient.remote_mta {
            fields.structured("Remote-MTA", &format!("dns; {}", printable(host)))?;
        }
        if let Some(diagnostic) = recipient.diagnostic {
            let (kind, text) = match diagnostic {
                Diagnostic::Smtp(reply) => ("smtp", quoted(reply, limits.diagnostic_size_max)),
                Diagnostic::Local(text) => {
                    ("X-ringpost", quoted(text.as_bytes(), limits.diagnostic_size_max))
                }
            };
            fields.structured("Diagnostic-Code", &format!("{kind}; {text}"))?;
        }
        if let Some(at) = recipient.last_attempt {
            fields.structured("Last-Attempt-Date", &date(at))?;
        }
        fields.structured("Final-Log-ID", &facts.message_id.to_string())?;
        if let Outcome::Delayed { retry_until } = recipient.outcome {
            fields.structured("Will-Retry-Until", &date(retry_until))?;
        }
    }
    let (content_type, encoding) = match script {
        Script::Ascii => ("message/delivery-status", TransferEncoding::SevenBit),
        Script::Global => ("message/global-delivery-status", TransferEncoding::EightBit),
    };
    let part = Part::new(content_type, encoding, vec![fields.into_bytes()])?;
    Ok(part.with("Content-Description", "Delivery report")?)
}

/// The message, or its header section: how the sender asked, and as far as it is short enough.
fn returned_part(
    facts: &Facts<'_>,
    worst: Severity,
    script: Script,
    original: &[Bytes],
    summary: &HeaderSummary,
    limits: &Limits,
) -> Result<Part, DsnError> {
    let ret = match facts.envelope.handling.tls {
        // "the server MUST behave as if RET=HDRS was present" (RFC 8689 §5): its report may go where it must not.
        TlsDemand::Required => Some(Ret::Headers),
        TlsDemand::None | TlsDemand::Waived => facts.envelope.ret,
    };
    let full_size_max = match (worst, ret) {
        // Only a failure returns the message (RFC 3461 §4.3).
        (Severity::Success | Severity::Delay, _) | (Severity::Failure, Some(Ret::Headers)) => 0,
        (Severity::Failure, Some(Ret::Full)) => limits.full_asked_size_max,
        (Severity::Failure, None) => limits.full_size_max,
    };
    // What is not made of lines cannot stand in a body of lines (RFC 3030 §3).
    let binary = match facts.envelope.body {
        BodyType::BinaryMime => true,
        BodyType::SevenBit | BodyType::EightBitMime => false,
    };
    let full = !binary && content::len(original) <= full_size_max;
    let body =
        if full { original.to_vec() } else { content::slice(original, 0..header_end(original, summary)) };
    let content_type = match (script, full) {
        (Script::Ascii, true) => "message/rfc822",
        (Script::Ascii, false) => "text/rfc822-headers",
        (Script::Global, true) => "message/global",
        (Script::Global, false) => "message/global-headers",
    };
    let ascii = body.iter().all(|slice| slice.is_ascii());
    let encoding = if ascii { TransferEncoding::SevenBit } else { TransferEncoding::EightBit };
    let description = if full { "Undelivered message" } else { "Header section of the message" };
    Ok(Part::new(content_type, encoding, body)?.with("Content-Description", description)?)
}

/// The header section's length; of one that was cut, up to its last whole line.
fn header_end(original: &[Bytes], summary: &HeaderSummary) -> usize {
    let head = content::gather(original, 0..summary.len);
    memchr::memmem::rfind(&head, b"\r\n").map_or(0, |at| at + 2)
}

/// A reply in one line that fits: long words are cut, for a line has its bound (RFC 5322 §2.1.1).
pub(crate) fn quoted(reply: &[u8], size_max: usize) -> String {
    const WORD_MAX: usize = 200;
    let line = compose::one_line(&reply[..reply.len().min(size_max)]);
    let words: Vec<_> = line.split(' ').map(|word| word.get(..WORD_MAX).unwrap_or(word)).collect();
    words.join(" ").trim().to_owned()
}

/// A text from a peer with nothing in it that could end a field, cut to what a line may hold.
fn printable(text: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    text.chars().take(CHARACTERS_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The type of an address, if it is one word; else what it most likely was.
fn atom(text: &str) -> &str {
    let sound = !text.is_empty()
        && text.len() <= 40
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if sound { text } else { "unknown" }
}

#[cfg(test)]
#[path = "dsn_test.rs"]
mod test;
