//! What the header section says: loops, and what a user's program left out.

use config::{Checks, Limits, Tolerance};
use mail::Utf8;
use message::{EightBit, HeaderEnd, HeaderSummary};
use smtp::{Refusal, Role};

use crate::Policy;

/// Fields that we add to an accepted message before anything else is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// `Date`: to be written when it is absent.
    pub date: Presence,
    /// `Message-ID`: to be written when it is absent.
    pub message_id: Presence,
}

/// Whether a field is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is, or it does not matter.
    Present,
    /// It is not, and we write it.
    Absent,
}

impl Completion {
    /// Nothing is added.
    pub const NONE: Self = Self { date: Presence::Present, message_id: Presence::Present };
}

impl Policy {
    /// May this message be taken, as far as its header section tells, and what does it lack?
    ///
    /// `checks`: what is looked at, for a stranger.
    ///
    /// # Errors
    /// [`Refusal::Loop`], [`Refusal::HeaderMissing`], [`Refusal::HeaderRepeated`], [`Refusal::HeaderMalformed`] or
    /// [`Refusal::EightBitHeader`].
    pub fn content(
        &self,
        role: Role,
        header: &HeaderSummary,
        utf8: Utf8,
        limits: &Limits,
        checks: Option<&Checks>,
    ) -> Result<Completion, Refusal> {
        // "Simple counting of the number of "Received:" header fields in a message has proven to be an
        // effective, although rarely optimal, method of detecting loops" (RFC 5321 §6.3).
        if header.fields.received > limits.received_max {
            return Err(Refusal::Loop);
        }
        match header.end {
            HeaderEnd::TooLong => return Err(Refusal::HeaderMalformed),
            HeaderEnd::Content | HeaderEnd::EmptyLine => {}
        }
        match role {
            // A relay passes mail on "without modification to the message data other than adding trace
            // information" (RFC 5321 §2.3.10).
            Role::Relay | Role::Lmtp => {
                checks.map_or(Ok(()), |checks| looked_at(header, utf8, checks)).map(|()| Completion::NONE)
            }
            Role::Submission => submitted(header, utf8),
        }
    }
}

/// What a listener for other servers looks at.
fn looked_at(header: &HeaderSummary, utf8: Utf8, checks: &Checks) -> Result<(), Refusal> {
    let missing = header.fields.from == 0 || header.fields.date == 0;
    let faults = [
        (missing, checks.missing_fields, Refusal::HeaderMissing),
        (is_repeated(header), checks.repeated_fields, Refusal::HeaderRepeated),
        (header.malformed > 0, checks.malformed_fields, Refusal::HeaderMalformed),
        (is_eight_bit(header, utf8), checks.eight_bit_fields, Refusal::EightBitHeader),
    ];
    let fault = faults.iter().find(|(is, tolerance, _)| *is && *tolerance == Tolerance::Refuse);
    fault.map_or(Ok(()), |(_, _, refusal)| Err(*refusal))
}

/// A user's program is told of its faults, since somebody sits in front of it (RFC 6409 §3.2, §6).
fn submitted(header: &HeaderSummary, utf8: Utf8) -> Result<Completion, Refusal> {
    // Whose name stands in From is not for us to invent.
    let faults = [
        (header.malformed > 0, Refusal::HeaderMalformed),
        (header.fields.from == 0, Refusal::HeaderMissing),
        (is_repeated(header), Refusal::HeaderRepeated),
        (is_eight_bit(header, utf8), Refusal::EightBitHeader),
    ];
    if let Some((_, refusal)) = faults.iter().find(|(is, _)| *is) {
        return Err(*refusal);
    }
    // RFC 6409 §8.2 and §8.3: Date and Message-ID may be added when they lack.
    let presence = |count| if count == 0 { Presence::Absent } else { Presence::Present };
    let fields = &header.fields;
    Ok(Completion { date: presence(fields.date), message_id: presence(fields.message_id) })
}

/// Whether a field stands twice that "occurs at most once" (RFC 5322 §3.6).
fn is_repeated(header: &HeaderSummary) -> bool {
    let fields = &header.fields;
    let once = [
        fields.from,
        fields.date,
        fields.sender,
        fields.reply_to,
        fields.to,
        fields.cc,
        fields.bcc,
        fields.message_id,
        fields.subject,
    ];
    once.iter().any(|count| *count > 1)
}

/// Whether it has octets above 127 that may not be there: RFC 6532 allows UTF-8 alone, and RFC 6531 §3.4 only where it
/// was announced.
fn is_eight_bit(header: &HeaderSummary, utf8: Utf8) -> bool {
    match (header.eight_bit, utf8) {
        (EightBit::None, _) | (EightBit::Utf8, Utf8::Needed) => false,
        (EightBit::Utf8, Utf8::NotNeeded) | (EightBit::Other, _) => true,
    }
}
