//! What the header section says: loops, and what a user's program left out.

use config::Limits;
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
    /// # Errors
    /// [`Refusal::Loop`], [`Refusal::HeaderMalformed`] or [`Refusal::EightBitHeader`].
    pub fn content(
        &self,
        role: Role,
        header: &HeaderSummary,
        utf8: Utf8,
        limits: &Limits,
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
            Role::Relay | Role::Lmtp => Ok(Completion::NONE),
            Role::Submission => submitted(header, utf8),
        }
    }
}

/// A user's program is told of its faults, since somebody sits in front of it (RFC 6409 §3.2, §6).
fn submitted(header: &HeaderSummary, utf8: Utf8) -> Result<Completion, Refusal> {
    let fields = &header.fields;
    // Each "occurs at most once"; From must (RFC 5322 §3.6). Whose name stands there is not for us to invent.
    let once = [
        fields.date,
        fields.sender,
        fields.reply_to,
        fields.to,
        fields.cc,
        fields.bcc,
        fields.message_id,
        fields.subject,
    ];
    if header.malformed > 0 || fields.from != 1 || once.iter().any(|count| *count > 1) {
        return Err(Refusal::HeaderMalformed);
    }
    match (header.eight_bit, utf8) {
        (EightBit::None, _) | (EightBit::Utf8, Utf8::Needed) => {}
        // RFC 6532 allows UTF-8 alone, and RFC 6531 §3.4 only where it was announced.
        (EightBit::Utf8, Utf8::NotNeeded) | (EightBit::Other, _) => return Err(Refusal::EightBitHeader),
    }
    // RFC 6409 §8.2 and §8.3: Date and Message-ID may be added when they lack.
    let presence = |count| if count == 0 { Presence::Absent } else { Presence::Present };
    Ok(Completion { date: presence(fields.date), message_id: presence(fields.message_id) })
}
