//! A draft to a message: header section and MIME tree.

use std::borrow::Cow;

use mail::{Address, BodyType, ReversePath, Utf8};
use mail_builder::{
    headers::{Header as _, HeaderType, address::Address as Shown, content_type::ContentType, raw::Raw},
    mime::{BodyPart, MimePart},
};
use memchr::memmem;
use message::compose::{ComposeError, Header};

use crate::{
    decode::{Content, Copy, Draft, Fault, Part, Parts},
    mailbox::Mailbox,
    template::Template,
};

/// Where reports of a copy go.
pub(crate) fn reverse_path(draft: &Draft) -> ReversePath {
    let of_parts = || match &draft.content {
        Content::Parts(parts) => {
            parts.from.first().map(|mailbox| ReversePath::Address(mailbox.address.clone()))
        }
        Content::Raw(_) => None,
    };
    draft.reverse_path.clone().or_else(of_parts).unwrap_or(ReversePath::Null)
}

/// Who gets a copy: nobody twice.
pub(crate) fn recipients(copy: &Copy) -> Vec<&Address> {
    let named = [&copy.to, &copy.cc, &copy.bcc].into_iter().flatten().map(|mailbox| &mailbox.address);
    let mut seen = hashbrown::HashSet::new();
    named.chain(&copy.envelope_to).filter(|address| seen.insert(address.as_str())).collect()
}

/// The header section of a copy, without the fields of MIME.
pub(crate) fn header(draft: &Draft, parts: &Parts, copy: &Copy) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::with_capacity(512);
    for (name, mailboxes) in
        [("From", &parts.from), ("Reply-To", &parts.reply_to), ("To", &copy.to), ("Cc", &copy.cc)]
    {
        if !mailboxes.is_empty() {
            address_field(&mut out, name, mailboxes);
        }
    }
    if let Some(subject) = &parts.subject {
        text_field(&mut out, "Subject", subject, copy)
            .map_err(|error| fault(draft, copy, "/subject", &error))?;
    }
    for (name, value) in &parts.headers {
        text_field(&mut out, name, value, copy).map_err(|error| {
            let name = name.replace('~', "~0").replace('/', "~1");
            fault(draft, copy, &format!("/headers/{name}"), &error)
        })?;
    }
    Ok(out)
}

/// The whole message of a copy.
pub(crate) fn message(draft: &Draft, copy: &Copy) -> Result<Vec<u8>, Fault> {
    let parts = match &draft.content {
        Content::Raw(content) => return Ok(content.clone()),
        Content::Parts(parts) => parts,
    };
    let mut out = header(draft, parts, copy)?;
    out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    tree(draft, parts, copy)?.write_part(&mut out);
    Ok(out)
}

/// What the octets of a message are, and whether it needs SMTPUTF8.
pub(crate) fn octets(content: &[u8], reverse_path: &ReversePath, recipients: &[Address]) -> (BodyType, Utf8) {
    let body = if content.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime };
    let header_end = memmem::find(content, b"\r\n\r\n").unwrap_or(content.len());
    let ascii = content[..header_end].is_ascii()
        && reverse_path.address().is_none_or(Address::is_ascii)
        && recipients.iter().all(Address::is_ascii);
    (body, if ascii { Utf8::NotNeeded } else { Utf8::Needed })
}

/// `multipart/mixed` around `multipart/alternative` around `multipart/related`, each only where it is needed
/// (RFC 2046 §5.1, RFC 2387).
fn tree<'x>(draft: &'x Draft, parts: &'x Parts, copy: &Copy) -> Result<MimePart<'x>, Fault> {
    let text = |template: &Option<Template>, pointer| match template {
        Some(template) => {
            let text = template.fill(&copy.variables);
            text.map(Some).map_err(|error| fault(draft, copy, pointer, &error))
        }
        None => Ok(None),
    };
    let plain = text(&parts.text, "/text")?
        .map(|text| MimePart::new("text/plain", BodyPart::Text(with_crlf(&text).into())));
    let html = text(&parts.html, "/html")?
        .map(|text| MimePart::new("text/html", BodyPart::Text(with_crlf(&text).into())));
    let inline: Vec<_> = parts.inline.iter().map(|part| file(part, "inline")).collect();
    let mut loose = Vec::new();
    let html = match html {
        Some(html) if !inline.is_empty() => {
            let mut related = vec![html];
            related.extend(inline);
            // RFC 2387 §3.1: the type of the root is said.
            let kind = ContentType::new("multipart/related").attribute("type", "text/html");
            Some(MimePart::new(kind, related))
        }
        html => {
            loose.extend(inline);
            html
        }
    };
    loose.extend(parts.attachments.iter().map(|part| file(part, "attachment")));
    let body = match (plain, html) {
        (Some(plain), Some(html)) => Some(MimePart::new("multipart/alternative", vec![plain, html])),
        (one, other) => one.or(other),
    };
    Ok(match body {
        Some(body) if loose.is_empty() => body,
        Some(body) => {
            loose.insert(0, body);
            MimePart::new("multipart/mixed", loose)
        }
        None => MimePart::new("multipart/mixed", loose),
    })
}

fn file<'x>(part: &'x Part, disposition: &'static str) -> MimePart<'x> {
    let mut placed = ContentType::new(disposition);
    if let Some(filename) = &part.filename {
        placed = placed.attribute("filename", filename.as_str());
    }
    let mut headers: Vec<(Cow<'x, str>, HeaderType<'x>)> = vec![
        ("Content-Type".into(), Raw::new(part.content_type.as_str()).into()),
        ("Content-Disposition".into(), placed.into()),
    ];
    if let Some(id) = &part.content_id {
        headers.push(("Content-ID".into(), Raw::new(format!("<{id}>")).into()));
    }
    headers.push(("Content-Transfer-Encoding".into(), Raw::new("base64").into()));
    MimePart { headers, contents: BodyPart::Binary(Cow::Borrowed(&part.encoded)) }
}

fn address_field(out: &mut Vec<u8>, name: &str, mailboxes: &[Mailbox]) {
    let shown = |mailbox: &Mailbox| {
        let name = Some(mailbox.name.clone()).filter(|name| !name.is_empty());
        Shown::new_address(name, mailbox.address.as_str().to_owned())
    };
    let value = match mailboxes {
        [only] => shown(only),
        several => Shown::new_list(several.iter().map(shown).collect()),
    };
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    value.write_header(out, name.len() + 2);
}

/// Why a field cannot be written.
#[derive(Debug, thiserror::Error)]
enum FieldError {
    #[error(transparent)]
    Template(#[from] crate::template::TemplateError),
    #[error(transparent)]
    Compose(#[from] ComposeError),
}

fn text_field(out: &mut Vec<u8>, name: &str, value: &Template, copy: &Copy) -> Result<(), FieldError> {
    let mut field = Header::new();
    field.text(name, &value.fill(&copy.variables)?)?;
    out.extend_from_slice(field.as_bytes());
    Ok(())
}

fn fault(draft: &Draft, copy: &Copy, field: &str, error: &dyn std::error::Error) -> Fault {
    let of = if copy.pointer == draft.pointer { String::new() } else { format!(", for {}", copy.pointer) };
    Fault {
        pointer: format!("{}{field}", draft.pointer),
        detail: format!("{error}{of}"),
        remedy: "write a text of one line with white space in it here and there".into(),
    }
}

/// All ends of lines as CRLF, whichever they were.
fn with_crlf(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 32);
    let mut rest = text;
    while let Some(at) = rest.find(['\r', '\n']) {
        out += &rest[..at];
        out += "\r\n";
        rest = rest[at..].strip_prefix("\r\n").unwrap_or(&rest[at + 1..]);
    }
    out + rest
}

#[cfg(test)]
#[path = "compose_test.rs"]
mod test;
