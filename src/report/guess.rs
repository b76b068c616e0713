//! Bounces that no standard knows: what they mostly look like.
//!
//! Three kinds are told apart: qmail's paragraphs, Exim's `X-Failed-Recipients`, and whatever else names an address and a
//! reply near it. A guess is never a success, and an address that only stands somewhere in a text is not taken.

use mail::{Address, Status};

use crate::incoming::{IncomingLimits, Returned, ReturnedAction, kept};
use crate::parts::Fields;

/// Whether a message looks like a report that mail was not delivered.
pub(crate) fn is_bounce(fields: &Fields, text: &str) -> bool {
    if fields.get("x-failed-recipients").is_some() || text.starts_with("Hi. This is the qmail-send program") {
        return true;
    }
    let from = fields.get("from").unwrap_or_default().to_ascii_lowercase();
    let by_a_server = ["mailer-daemon", "postmaster", "mail delivery"].iter().any(|name| from.contains(name));
    let subject = fields.get("subject").unwrap_or_default().to_ascii_lowercase();
    let words = [
        "undeliver",
        "deliver",
        "returned mail",
        "failure notice",
        "mail system",
        "bounce",
        "unzustellbar",
        "rejected",
    ];
    by_a_server && words.iter().any(|word| subject.contains(word))
}

/// Whether a program answers in the place of a person (RFC 3834 §5, and what was there before it).
pub(crate) fn is_auto_reply(fields: &Fields) -> bool {
    let starts = |name: &str, words: &[&str]| {
        let value = fields.get(name).unwrap_or_default().to_ascii_lowercase();
        words.iter().any(|word| value.starts_with(word))
    };
    starts("auto-submitted", &["auto-replied", "auto-generated", "auto-notified"])
        || starts("precedence", &["auto_reply", "auto-reply"])
        || ["x-autoreply", "x-autorespond", "x-autoresponse"].iter().any(|name| fields.get(name).is_some())
        || starts(
            "subject",
            &["out of office", "automatic reply", "auto:", "autoreply", "auto reply", "abwesen", "absence"],
        )
}

/// Who did not get it, and what is said of it.
pub(crate) fn recipients(fields: &Fields, text: &str, limits: &IncomingLimits) -> Vec<Returned> {
    let mut found: Vec<Returned> = Vec::new();
    // Exim lists them, and quotes the reply below each in the text.
    let listed = fields.all("x-failed-recipients").flat_map(|value| value.split(','));
    for address in listed.filter_map(|text| Address::parse(text.trim().as_bytes()).ok()) {
        let paragraph =
            text.find(address.as_str()).map_or("", |at| about(&text[at + address.as_str().len()..]));
        push(&mut found, address, paragraph, limits);
    }
    if !found.is_empty() {
        return found;
    }
    // An address that begins a line, and what is below it until the next one.
    let mut starts: Vec<(usize, Address)> = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n').take(LINES_MAX) {
        let first = line.trim().split([' ', '\t']).next().unwrap_or_default();
        let first = first.trim_end_matches([':', ',', ';', '.']).trim_matches(['<', '>', '"', '\'']);
        if let Ok(address) = Address::parse(first.as_bytes()) {
            starts.push((start, address));
        }
        start += line.len();
    }
    for (at, (start, address)) in starts.iter().enumerate() {
        let end = starts.get(at + 1).map_or(text.len(), |(next, _)| *next);
        let paragraph = &text[*start..end];
        if diagnostic(paragraph).is_some() {
            push(&mut found, address.clone(), paragraph, limits);
        }
    }
    found
}

/// Lines that are looked at: a text has no end of addresses.
const LINES_MAX: usize = 2000;

/// As much of a text as is still about what stands before it.
fn about(text: &str) -> &str {
    const PARAGRAPH_MAX: usize = 1000;
    &text[..text.floor_char_boundary(PARAGRAPH_MAX)]
}

fn push(found: &mut Vec<Returned>, address: Address, paragraph: &str, limits: &IncomingLimits) {
    if found.len() >= limits.recipients_max
        || found.iter().any(|one| one.recipient.as_ref() == Some(&address))
    {
        return;
    }
    let said = diagnostic(paragraph);
    let code = said.and_then(|said| said.get(..1));
    let status = said.and_then(status).or_else(|| status(paragraph));
    // Who writes after the first days mostly says so; who has given up says it most.
    let lower = paragraph.to_ascii_lowercase();
    let delayed = ["will be retried", "will continue to", "still being", "not yet been", "warning"]
        .iter()
        .any(|word| lower.contains(word));
    found.push(Returned {
        recipient: Some(address),
        original: None,
        action: if delayed { ReturnedAction::Delayed } else { ReturnedAction::Failed },
        // What was given up has failed, whatever the last try said; the class is that of the reply.
        status: status.filter(|status| code.is_none_or(|code| code == status.0.to_string())),
        remote_mta: None,
        diagnostic: said.map(|said| kept(said, limits)),
    });
}

/// A reply that is quoted in a text, up to the end of its paragraph.
fn diagnostic(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let is_reply = |at: usize| {
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        let begins = before
            .is_none_or(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'<' | b'(' | b':' | b'"'));
        let code = matches!(bytes.get(at..at + 3), Some([b'4' | b'5', b'0'..=b'7', b'0'..=b'9']));
        begins && code && matches!(bytes.get(at + 3), Some(b' ' | b'-'))
    };
    let start = (0..bytes.len()).find(|at| is_reply(*at))?;
    let rest = text.get(start..)?;
    let end = ["\n\n", "\r\n\r\n"].iter().filter_map(|end| rest.find(end)).min();
    Some(rest[..end.unwrap_or(rest.len())].trim_end())
}

/// The first enhanced status code of a text: `#5.1.1`, `(5.1.1)`, `5.1.1`.
pub(crate) fn status(text: &str) -> Option<Status> {
    let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    words.filter_map(|word| word.trim_matches('.').parse().ok()).next()
}
