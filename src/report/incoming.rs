//! Reports that others write: what became of our mail, and what people thought of it (RFC 3464, 5965).
//!
//! A report is whatever somebody sends to an address where reports are expected; nothing in it is proven. [`read`] makes
//! facts of it, and leaves what they are worth to whoever asked. What is no report by any standard is guessed at
//! ([`crate::guess`]), since a third of the world's bounces are like that.

use bytes::Bytes;
use mail::{Address, Status};
use message::content;

use crate::{
    guess,
    parts::{self, Fields, Part, parameter},
};

/// What a message to an address for reports is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A report of what became of a message.
    Bounce(Bounce),
    /// Somebody does not want such mail (RFC 5965).
    Complaint(Complaint),
    /// A program answers in the place of a person: out of office.
    AutoReply,
    /// Something else: perhaps a person.
    Other,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounce {
    /// How much of it is by the standard.
    pub form: Form,
    /// The host that reports, without the type of its name.
    pub reporting_mta: Option<Box<str>>,
    /// The sender's id of the transaction (RFC 3464 §2.2.1).
    pub envelope_id: Option<Box<str>>,
    /// Those that it is about; at most [`IncomingLimits::recipients_max`].
    pub recipients: Vec<Returned>,
    /// The message it is about, as far as it came back.
    pub original: Original,
}

/// Whether a report says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// By RFC 3464.
    Standard,
    /// By what such texts mostly say.
    Guessed,
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// The address that the reporting host had (RFC 3464 §2.3.2).
    pub recipient: Option<Address>,
    /// The address that the sender gave, where it is told (RFC 3464 §2.3.1).
    pub original: Option<Address>,
    /// What was done.
    pub action: ReturnedAction,
    /// The enhanced status code.
    pub status: Option<Status>,
    /// The host that said so.
    pub remote_mta: Option<Box<str>>,
    /// What it said, in one line.
    pub diagnostic: Option<Box<str>>,
}

/// The field `Action` (RFC 3464 §2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnedAction {
    /// It will not be tried again.
    Failed,
    /// It will.
    Delayed,
    /// It lies in the mailbox.
    Delivered,
    /// It went on to where no reports are written.
    Relayed,
    /// It went on to several.
    Expanded,
}

/// A complaint about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// `abuse`, `fraud`, `not-spam`, … (RFC 5965 §7.3), in lower case.
    pub feedback_type: Box<str>,
    /// The program that writes.
    pub user_agent: Option<Box<str>>,
    /// The reverse-path that the message came with.
    pub mail_from: Option<Address>,
    /// Those that it came to, where they are told.
    pub recipients: Vec<Address>,
    /// The address that it came from, as text.
    pub source_ip: Option<Box<str>>,
    /// The domains that are complained about.
    pub domains: Vec<Box<str>>,
    /// How many such messages this is about.
    pub incidents: u32,
    /// The message.
    pub original: Original,
}

/// What is known of a message that came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original {
    /// Its `Message-ID`, angle brackets and all.
    pub message_id: Option<Box<str>>,
    /// Its `Return-Path`, where a server wrote one.
    pub return_path: Option<Address>,
    /// Its `To`, when that is one address.
    pub to: Option<Address>,
}

/// Bounds of what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncomingLimits {
    /// Octets of the message that are looked at.
    pub size_max: usize,
    /// Recipients of one report; what is more is left out.
    pub recipients_max: usize,
    /// Octets of text that are looked at for what a report does not say.
    pub text_max: usize,
    /// Octets of each value that are kept.
    pub value_max: usize,
}

impl Default for IncomingLimits {
    fn default() -> Self {
        Self { size_max: 256 << 10, recipients_max: 100, text_max: 16 << 10, value_max: 512 }
    }
}

/// What a message says that came to an address for reports.
pub fn read(message: &[Bytes], limits: &IncomingLimits) -> Incoming {
    let octets = content::gather(message, 0..limits.size_max);
    let (fields, parts) = parts::of(&octets);
    let find = |kinds: &[&str]| parts.iter().find(|part| kinds.contains(&part.kind.as_str()));
    let original =
        find(&["message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers"])
            .map_or_else(Original::default, |part| Original::read(part, limits));
    if let Some(part) = find(&["message/feedback-report"]) {
        return Incoming::Complaint(complaint(part, original, limits));
    }
    let status = find(&["message/delivery-status", "message/global-delivery-status"]);
    if let Some(bounce) = status.and_then(|part| bounce(part, &original, limits)) {
        return Incoming::Bounce(bounce);
    }
    let text = parts.iter().find(|part| part.kind == "text/plain").or(parts.first());
    let text = text.map(|part| part.text(limits.text_max)).unwrap_or_default();
    let says_report = fields.get("content-type").and_then(|value| parameter(value, "report-type")).is_some();
    // An answer by a program says so (RFC 3834 §5); so do reports, which come first.
    if guess::is_bounce(&fields, &text) || says_report {
        let recipients = guess::recipients(&fields, &text, limits);
        if !recipients.is_empty() {
            let (reporting_mta, envelope_id) = (None, None);
            let form = Form::Guessed;
            return Incoming::Bounce(Bounce { form, reporting_mta, envelope_id, recipients, original });
        }
    }
    if guess::is_auto_reply(&fields) { Incoming::AutoReply } else { Incoming::Other }
}

/// Groups of fields: one for the message, then one for each recipient (RFC 3464 §2.1).
fn bounce(part: &Part<'_>, original: &Original, limits: &IncomingLimits) -> Option<Bounce> {
    let text = part.text(limits.size_max);
    let mut rest = text.as_bytes();
    let mut next_group = || {
        while !rest.is_empty() {
            let (fields, behind) = Fields::read(rest);
            rest = behind;
            // Some write more than one empty line.
            if !fields.is_empty() {
                return Some(fields);
            }
        }
        None
    };
    let first = next_group()?;
    let mut recipients = Vec::new();
    // Some write the first recipient's fields with those of the message.
    recipients.extend(returned(&first, limits));
    while recipients.len() < limits.recipients_max
        && let Some(group) = next_group()
    {
        recipients.extend(returned(&group, limits));
    }
    if recipients.is_empty() {
        return None;
    }
    Some(Bounce {
        form: Form::Standard,
        reporting_mta: first.get("reporting-mta").map(|value| kept(typed(value), limits)),
        envelope_id: first.get("original-envelope-id").map(|value| kept(value, limits)),
        recipients,
        original: original.clone(),
    })
}

fn returned(group: &Fields, limits: &IncomingLimits) -> Option<Returned> {
    let recipient = group.get("final-recipient").and_then(address);
    let original = group.get("original-recipient").and_then(address);
    let status = group.get("status").and_then(guess::status);
    let action = group.get("action").unwrap_or_default().split([' ', ';', '(']).next().unwrap_or_default();
    let action = match action.to_ascii_lowercase().as_str() {
        "failed" | "failure" => Some(ReturnedAction::Failed),
        "delayed" | "delay" => Some(ReturnedAction::Delayed),
        "delivered" => Some(ReturnedAction::Delivered),
        "relayed" => Some(ReturnedAction::Relayed),
        "expanded" => Some(ReturnedAction::Expanded),
        _ => None,
    };
    let is_recipients = group.get("final-recipient").is_some() || original.is_some();
    if !is_recipients || action.is_none() && status.is_none() {
        return None;
    }
    // Who does not say what was done says it with the status.
    let action = action.unwrap_or(match status {
        Some(Status(4, ..)) => ReturnedAction::Delayed,
        Some(Status(2, ..)) => ReturnedAction::Delivered,
        Some(_) | None => ReturnedAction::Failed,
    });
    Some(Returned {
        recipient,
        original,
        action,
        status,
        remote_mta: group.get("remote-mta").map(|value| kept(typed(value), limits)),
        diagnostic: group.get("diagnostic-code").map(|value| kept(typed(value), limits)),
    })
}

fn complaint(part: &Part<'_>, original: Original, limits: &IncomingLimits) -> Complaint {
    let text = part.text(limits.size_max);
    let (fields, _) = Fields::read(text.as_bytes());
    let recipients = fields.all("original-rcpt-to").filter_map(address).take(limits.recipients_max);
    let domains = fields.all("reported-domain").map(|value| kept(value, limits)).take(limits.recipients_max);
    let feedback_type = fields.get("feedback-type").unwrap_or("abuse").to_ascii_lowercase();
    Complaint {
        feedback_type: kept(&feedback_type, limits),
        user_agent: fields.get("user-agent").map(|value| kept(value, limits)),
        mail_from: fields.get("original-mail-from").and_then(address),
        recipients: recipients.collect(),
        source_ip: fields.get("source-ip").map(|value| kept(value, limits)),
        domains: domains.collect(),
        incidents: fields.get("incidents").and_then(|value| value.parse().ok()).unwrap_or(1),
        original,
    }
}

impl Original {
    fn read(part: &Part<'_>, limits: &IncomingLimits) -> Self {
        let text = part.text(limits.size_max);
        let (fields, _) = Fields::read(text.as_bytes());
        let id = fields.get("message-id").map(str::trim);
        let id =
            id.filter(|id| id.starts_with('<') && id.ends_with('>') && id.is_ascii() && !id.contains(' '));
        Self {
            message_id: id.map(|id| kept(id, limits)),
            return_path: fields.get("return-path").and_then(address),
            // Outlook.com leaves `To` out of what it returns, and has its own field in the place.
            to: ["x-hmxmroriginalrecipient", "to"].iter().find_map(|name| fields.get(name).and_then(address)),
        }
    }
}

/// The address of a field: behind its type, within angle brackets, with a name or without.
fn address(value: &str) -> Option<Address> {
    let value = typed(value);
    let value = match (value.rfind('<'), value.rfind('>')) {
        (Some(open), Some(close)) if open < close => &value[open + 1..close],
        _ => value,
    };
    Address::parse(value.trim().as_bytes()).ok()
}

/// A value behind its type: `rfc822; ann@example.org`.
fn typed(value: &str) -> &str {
    match value.split_once(';') {
        Some((kind, rest)) if kind.trim().bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => {
            rest.trim()
        }
        Some(_) | None => value.trim(),
    }
}

/// A value in one line, cut, with nothing in it that could leave a line.
pub(crate) fn kept(value: &str, limits: &IncomingLimits) -> Box<str> {
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
    let visible: String = value.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    visible[..visible.floor_char_boundary(limits.value_max)].into()
}

#[cfg(test)]
#[path = "incoming_test.rs"]
mod test;
