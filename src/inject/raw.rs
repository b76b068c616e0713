//! Whole messages: ends of lines, Bcc, and who is named in the header section.

use mail::Address;
use memchr::memmem;

use crate::mailbox;

/// A whole message, made ready.
#[derive(Debug)]
pub(crate) struct Whole {
    /// Lines end in CRLF; there is no Bcc.
    pub(crate) content: Vec<u8>,
    /// Who stands in To, Cc and Bcc.
    pub(crate) recipients: Vec<Address>,
    /// The address of Sender, or the first of From.
    pub(crate) sender: Option<Address>,
}

/// Why a message cannot be made ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RawError {
    /// Nothing there.
    #[error("there is no message")]
    Empty,
    /// A field with recipients cannot be read.
    #[error("the field {0} cannot be read: {1}")]
    Field(&'static str, mailbox::MailboxError),
    /// A field with recipients is not UTF-8.
    #[error("the field {0} is not UTF-8")]
    NotUtf8(&'static str),
}

impl RawError {
    pub(crate) const fn remedy(&self) -> &'static str {
        match self {
            Self::Empty => "send header fields, an empty line and a body (RFC 5322)",
            Self::Field(..) | Self::NotUtf8(_) => "mend the field, or name the recipients in `envelope_to`",
        }
    }
}

/// A header field with its line ends.
#[derive(Clone, Copy)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) value: &'a [u8],
    whole: &'a [u8],
}

/// Makes a message ready to be sent.
pub(crate) fn prepare(content: Vec<u8>) -> Result<Whole, RawError> {
    if content.is_empty() {
        return Err(RawError::Empty);
    }
    let content = with_crlf(content);
    let mut recipients = Vec::new();
    let (mut from, mut sender) = (None, None);
    let mut kept = Vec::new();
    let mut at = 0;
    let mut dropped = false;
    for field in fields(&content) {
        let whole_len = field.whole.len();
        let known = ["To", "Cc", "Bcc", "From", "Sender"]
            .iter()
            .find(|n| n.as_bytes().eq_ignore_ascii_case(field.name));
        match known {
            Some(name @ (&"To" | &"Cc" | &"Bcc")) => {
                recipients.extend(addresses(name, field.value)?);
                if *name == "Bcc" {
                    // RFC 5322 §3.6.3: "the "Bcc:" line is removed even though all of the recipients … are sent a copy".
                    dropped = true;
                    at += whole_len;
                    continue;
                }
            }
            // What cannot be read here is refused where it is asked who may send so.
            Some(&"From") => {
                from = from.or(addresses("From", field.value).ok().and_then(|all| all.into_iter().next()))
            }
            Some(_) => {
                sender =
                    sender.or(addresses("Sender", field.value).ok().and_then(|all| all.into_iter().next()))
            }
            None => {}
        }
        kept.push(at..at + whole_len);
        at += whole_len;
    }
    let content = if dropped {
        let mut rest = Vec::with_capacity(content.len());
        kept.into_iter().for_each(|range| rest.extend_from_slice(&content[range]));
        rest.extend_from_slice(&content[at..]);
        rest
    } else {
        content
    };
    Ok(Whole { content, recipients, sender: sender.or(from) })
}

/// The header fields of a message, with continuation lines; what is no field ends them.
pub(crate) fn fields(content: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = content;
    std::iter::from_fn(move || {
        let mut end = line_len(rest)?;
        if rest.starts_with(b"\r\n") {
            return None;
        }
        while rest[end..].starts_with(b" ") || rest[end..].starts_with(b"\t") {
            end += line_len(&rest[end..])?;
        }
        let (whole, after) = rest.split_at(end);
        rest = after;
        // A line without a colon has no name: others may see a field behind it, so it is given out as it is.
        let colon = memchr::memchr(b':', whole).unwrap_or(whole.len());
        let name = whole[..colon].trim_ascii_end();
        Some(Field { name, value: whole.get(colon + 1..).unwrap_or_default(), whole })
    })
}

/// The addresses in a field.
pub(crate) fn addresses(name: &'static str, value: &[u8]) -> Result<Vec<Address>, RawError> {
    let text = std::str::from_utf8(value).map_err(|_| RawError::NotUtf8(name))?;
    let found = mailbox::list(text).map_err(|error| RawError::Field(name, error))?;
    Ok(found.into_iter().map(|mailbox| mailbox.address).collect())
}

/// The first line with its end; none when nothing is left.
fn line_len(text: &[u8]) -> Option<usize> {
    if text.is_empty() {
        return None;
    }
    Some(memmem::find(text, b"\r\n").map_or(text.len(), |at| at + 2))
}

/// A file of Unix has LF at the ends of its lines, and no CR. What has both is left as it is, and judged as mail data.
fn with_crlf(content: Vec<u8>) -> Vec<u8> {
    if memchr::memchr(b'\r', &content).is_some() || memchr::memchr(b'\n', &content).is_none() {
        return content;
    }
    let mut out = Vec::with_capacity(content.len() + content.len() / 32);
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => {
                out.extend_from_slice(line);
                out.extend_from_slice(b"\r\n");
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

#[cfg(test)]
mod test {
    use super::*;

    fn check(content: &str, expected: &str, recipients: &[&str], sender: Option<&str>) {
        let whole = prepare(content.as_bytes().to_vec()).unwrap();
        assert_eq!(String::from_utf8(whole.content).unwrap(), expected);
        assert_eq!(whole.recipients.iter().map(Address::as_str).collect::<Vec<_>>(), recipients);
        assert_eq!(whole.sender.as_ref().map(Address::as_str), sender);
    }

    #[test]
    fn blind_copies_stay_blind() {
        check(
            "From: a@b.example\r\nTo: c@d.example\r\nbcc : e@f.example,\r\n\tg@h.example\r\nSubject: x\r\n\r\nBcc: i\r\n",
            "From: a@b.example\r\nTo: c@d.example\r\nSubject: x\r\n\r\nBcc: i\r\n",
            &["c@d.example", "e@f.example", "g@h.example"],
            Some("a@b.example"),
        );
        check("Bcc: a@b.example", "", &["a@b.example"], None);
    }

    #[test]
    fn lines_of_unix_become_lines_of_mail() {
        check(
            "From: a@b.example\nSender: s@b.example\nCc: c@d.example\n\nx\n\ny",
            "From: a@b.example\r\nSender: s@b.example\r\nCc: c@d.example\r\n\r\nx\r\n\r\ny",
            &["c@d.example"],
            Some("s@b.example"),
        );
        // Mixed ends are not made right: who smuggles would like that.
        check("To: a@b.example\r\n\r\nx\n.\n", "To: a@b.example\r\n\r\nx\n.\n", &["a@b.example"], None);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        assert_eq!(prepare(Vec::new()).unwrap_err(), RawError::Empty);
        assert!(matches!(prepare(b"To: a b c\r\n\r\n".to_vec()).unwrap_err(), RawError::Field("To", _)));
        assert_eq!(prepare(b"Cc: \xff\r\n\r\n".to_vec()).unwrap_err(), RawError::NotUtf8("Cc"));
    }
}
