//! What a report shows of a message that is not its reader's: addresses without names (RFC 6590), and the fields that say how it came.
//!
//! A local-part says who somebody is, so a hash of it under a key stands in its place: the same person is the same word in all
//! reports of one key, and nobody else knows who that is. What is not known to be harmless is left out: names beside addresses, subjects,
//! and all fields but those that tell of the way, of signatures and of who wrote to whom. An address is known by its `@`, so whatever hides one (an
//! encoded word, a copy of a field in a signature) is not shown either.

use std::{
    fmt::{self, Write as _},
    sync::OnceLock,
};

use aws_lc_rs::{hmac, rand};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use memchr::memchr_iter;

/// Puts other words in the place of local-parts.
#[derive(Clone)]
pub struct Redactor(hmac::Key);

/// What is shown of a header section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whether its Subject is, too.
    pub subject: bool,
    /// Octets of it.
    pub size_max: usize,
}

/// Octets of a hash that are shown, in base64.
const HASH: usize = 15;
/// Octets of a field that are shown.
const FIELD_MAX: usize = 1536;
/// Addresses of a field that are shown.
const ADDRESSES_MAX: usize = 20;
/// Where a line is folded if it can be (RFC 5322 §2.1.1), and where it is in any case.
const LINE_MAX: usize = 78;
const WORD_MAX: usize = 400;

/// Fields that say how a message came, and what was found of it.
const TRACES: [&str; 15] = [
    "received",
    "return-path",
    "received-spf",
    "authentication-results",
    "dkim-signature",
    "arc-authentication-results",
    "arc-message-signature",
    "arc-seal",
    "date",
    "resent-date",
    "mime-version",
    "content-transfer-encoding",
    "list-id",
    "precedence",
    "auto-submitted",
];
/// Fields of addresses: nothing but these is shown.
const ADDRESSES: [&str; 9] =
    ["from", "sender", "reply-to", "to", "cc", "resent-from", "resent-sender", "resent-to", "resent-cc"];
/// Fields that say which message it is; what they have before an `@` is nobody's local-part.
const IDS: [&str; 2] = ["message-id", "resent-message-id"];
/// What has an address as its value, as results and signatures write it: what stands before `=` is not a part of it.
const PROPERTIES: [&str; 8] = [
    "smtp.mailfrom",
    "smtp.rcptto",
    "smtp.auth",
    "header.from",
    "header.sender",
    "header.i",
    "envelope-from",
    "i",
];

impl Redactor {
    /// With a key that is kept, or one that is drawn once for this process.
    ///
    /// # Panics
    /// When the system has no random numbers.
    pub fn new(key: Option<&str>) -> Self {
        static DRAWN: OnceLock<[u8; 32]> = OnceLock::new();
        let octets = key.map_or_else(
            || {
                &DRAWN.get_or_init(|| {
                    let mut octets = [0; 32];
                    rand::fill(&mut octets).expect("the system has random numbers");
                    octets
                })[..]
            },
            str::as_bytes,
        );
        Self(hmac::Key::new(hmac::HMAC_SHA256, octets))
    }

    /// The word for a local-part, whatever its case.
    pub fn local_part(&self, local_part: &[u8]) -> String {
        let tag = hmac::sign(&self.0, &local_part.to_ascii_lowercase());
        STANDARD_NO_PAD.encode(&tag.as_ref()[..HASH])
    }

    /// The same text with such words, in one line of US-ASCII.
    pub fn text(&self, text: &[u8]) -> String {
        let mut out = String::with_capacity(text.len() + 32);
        let (mut done, mut from) = (0, 0);
        for at in memchr_iter(b'@', text) {
            let start = local_part_start(text, from, at);
            let local_part = text[start..at].trim_ascii_end();
            from = at + 1;
            if local_part.is_empty() {
                continue;
            }
            out.push_str(&plain(&text[done..start]));
            out.push_str(&self.local_part(local_part));
            done = at;
        }
        out.push_str(&plain(&text[done..]));
        one_line(&out)
    }

    /// The addresses in a text, and nothing else of it.
    fn addresses(&self, text: &[u8]) -> String {
        let (mut out, mut shown, mut more, mut done) = (String::new(), 0, 0, 0);
        for at in memchr_iter(b'@', text) {
            let start = local_part_start(text, done, at);
            let local_part = text[start..at].trim_ascii_end();
            let host = host_at(&text[at + 1..]);
            done = at + 1;
            if local_part.is_empty() || host.is_empty() {
                continue;
            }
            if shown == ADDRESSES_MAX {
                more += 1;
                continue;
            }
            let _ =
                write!(out, "{}<{}@{host}>", if shown == 0 { "" } else { ", " }, self.local_part(local_part));
            shown += 1;
        }
        if more > 0 {
            let _ = write!(out, " (and {more} more)");
        }
        if out.is_empty() { "(no address)".into() } else { out }
    }

    /// What is shown of a header section, as it may stand in a part of type `text/rfc822-headers` with seven bits. One that is not whole
    /// is read to the end of its last field that is.
    pub fn header(&self, header: &[u8], shown: Shown) -> String {
        let mut out = String::new();
        for (name, value) in message::fields(whole(header)) {
            let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
            let is = |names: &[&str]| names.contains(&lower.as_str());
            let mut text = if is(&ADDRESSES) {
                self.addresses(value)
            } else if is(&["dkim-signature", "arc-message-signature"]) {
                self.text(&without_copies(value))
            } else if is(&["received"]) {
                self.text(&self.trace(value))
            } else if is(&["authentication-results", "arc-authentication-results"]) {
                self.text(&self.logins(value))
            } else if is(&TRACES) {
                self.text(value)
            } else if is(&IDS) {
                let id = one_line(&plain(value));
                let is_one = id.starts_with('<') && id.ends_with('>') && !id.contains(' ');
                if is_one { id } else { self.text(value) }
            } else if is(&["content-type"]) {
                one_line(&plain(value.split(|octet| *octet == b';').next().unwrap_or_default()))
            } else if is(&["subject"]) && shown.subject {
                self.text(value)
            } else {
                continue;
            };
            text.truncate(FIELD_MAX);
            let before = out.len();
            folded(&mut out, &String::from_utf8_lossy(name), &text);
            if out.len() > shown.size_max {
                out.truncate(before);
                break;
            }
        }
        out
    }
}

impl Redactor {
    /// How a message came, without what hosts write of people who have no domain: of comments there are names and addresses of
    /// clients left ("(Authenticated sender: ann)", "ident=ann"), and a local recipient is a hash ("for ann").
    fn trace(&self, value: &[u8]) -> Vec<u8> {
        let (mut out, mut comment, mut depth, mut quoted, mut escaped) =
            (Vec::new(), Vec::new(), 0, false, false);
        for octet in value {
            let was_escaped = escaped;
            escaped = *octet == b'\\' && !was_escaped;
            match octet {
                b'"' if depth == 0 && !was_escaped => quoted = !quoted,
                b'(' if !quoted && !was_escaped => {
                    depth += 1;
                    comment.push(b' ');
                    continue;
                }
                b')' if depth > 0 && !was_escaped => {
                    depth -= 1;
                    comment.push(b' ');
                    if depth == 0 {
                        clients(&comment, &mut out);
                        comment.clear();
                    }
                    continue;
                }
                _ => {}
            }
            if depth > 0 { comment.push(*octet) } else { out.push(*octet) }
        }
        let (mut told, mut is_for) = (Vec::new(), false);
        for word in out.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            told.push(b' ');
            if is_for && !word.contains(&b'@') {
                let name = word.split(|octet| b"<>;".contains(octet)).find(|name| !name.is_empty());
                let end: &[u8] = if word.ends_with(b";") { b">;" } else { b">" };
                told.extend([b"<", self.local_part(name.unwrap_or_default()).as_bytes(), end].concat());
            } else {
                told.extend(word);
            }
            is_for = word.eq_ignore_ascii_case(b"for");
        }
        told
    }

    /// Results with a hash for a login that has no domain (`smtp.auth=ann`).
    fn logins(&self, value: &[u8]) -> Vec<u8> {
        const NAME: &[u8] = b"smtp.auth=";
        let (mut out, mut rest) = (Vec::new(), value);
        while let Some(at) = rest.windows(NAME.len()).position(|some| some.eq_ignore_ascii_case(NAME)) {
            let (before, behind) = rest.split_at(at + NAME.len());
            out.extend(before);
            let end = match behind.strip_prefix(b"\"") {
                Some(inner) => inner.iter().position(|octet| *octet == b'"').map(|end| end + 2),
                None => behind.iter().position(|octet| octet.is_ascii_whitespace() || *octet == b';'),
            };
            let (login, behind) = behind.split_at(end.unwrap_or(behind.len()));
            match login.contains(&b'@') || login.is_empty() {
                true => out.extend(login),
                false => out.extend(self.local_part(login).as_bytes()),
            }
            rest = behind;
        }
        out.extend(rest);
        out
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

/// Appends a field, folded where there is white space, or where a word is too long for any line.
pub(crate) fn folded(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push(':');
    let mut column = name.len() + 1;
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        // All is US-ASCII by now.
        for piece in word.as_bytes().chunks(WORD_MAX) {
            if column + 1 + piece.len() > LINE_MAX && column > name.len() + 1 {
                out.push_str("\r\n");
                column = 0;
            }
            out.push(' ');
            out.extend(piece.iter().map(|octet| char::from(*octet)));
            column += 1 + piece.len();
        }
    }
    out.push_str("\r\n");
}

/// Of a comment what says which client it was, where that is what it is for: names of hosts, addresses.
fn clients(comment: &[u8], out: &mut Vec<u8>) {
    if !comment.contains(&b'[') {
        return;
    }
    let words = comment.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).enumerate();
    let is_host = |(place, word): &(usize, &[u8])| {
        let is_name = *place == 0 && word.contains(&b'.') && !word.contains(&b'=');
        is_name || word.starts_with(b"helo=") || word.iter().any(|octet| b"[]@".contains(octet))
    };
    let words: Vec<_> = words.filter(is_host).map(|(_, word)| word).collect();
    out.extend([b" (", &*words.join(&b' '), b") "].concat());
}

/// Where the local-part before an `@` begins, not before `from`: dot-atoms and quoted strings, as they follow one another.
fn local_part_start(text: &[u8], from: usize, at: usize) -> usize {
    // White space before it is the obsolete syntax (RFC 5322 §4.4).
    let mut start = from + text[from..at].trim_ascii_end().len();
    let end = start;
    while start > from {
        match text[start - 1] {
            b'"' => {
                let escapes = |place: usize| {
                    text[from..place].iter().rev().take_while(|octet| **octet == b'\\').count()
                };
                let quotes = (from..start - 1).rev().filter(|place| text[*place] == b'"');
                let open = quotes.into_iter().find(|place| escapes(*place) % 2 == 0);
                // What was opened before is a part of it, who knows how much.
                start = open.unwrap_or(from);
            }
            b' ' | b'\t' | b'\r' | b'\n' | b'<' | b'>' | b'(' | b')' | b'[' | b']' | b',' | b';' | b':'
            | 0 => break,
            _ => start -= 1,
        }
    }
    let named = text[start..end].iter().position(|octet| *octet == b'=');
    match named.map(|equals| (&text[start..start + equals], start + equals + 1)) {
        Some((name, behind))
            if PROPERTIES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())) =>
        {
            behind
        }
        Some(_) | None => start,
    }
}

/// What stands behind an `@`, as long as it can be a host.
fn host_at(text: &[u8]) -> String {
    let text = text.trim_ascii_start();
    let is_of_host = |octet: &u8| {
        octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'-' | b'_' | b':' | b'[' | b']')
    };
    text.iter().take_while(|octet| is_of_host(octet)).take(255).map(|octet| char::from(*octet)).collect()
}

/// A signature without copies of what was signed (`z=`, RFC 6376 §3.5): they are encoded.
fn without_copies(value: &[u8]) -> Vec<u8> {
    let is_copy = |tag: &&[u8]| {
        let name = tag.split(|octet| *octet == b'=').next().unwrap_or_default();
        !name.trim_ascii().eq_ignore_ascii_case(b"z")
    };
    value.split(|octet| *octet == b';').filter(is_copy).collect::<Vec<_>>().join(&b';')
}

/// Up to the end of the last field that is whole: half an address does not look like one.
fn whole(header: &[u8]) -> &[u8] {
    let ends = memchr::memmem::rfind_iter(header, b"\r\n").map(|at| at + 2);
    let mut ends = ends.filter(|end| !matches!(header.get(*end), Some(b' ' | b'\t')));
    // At the very end nobody knows what would have followed; but a header section that is whole ends so as well.
    &header[..ends.next().unwrap_or(0)]
}

/// Printable US-ASCII and white space; `?` for all else.
fn plain(octets: &[u8]) -> String {
    let shown = |octet: &u8| match octet {
        b'\t' | b'\r' | b'\n' => ' ',
        b' '..=b'~' => char::from(*octet),
        _ => '?',
    };
    octets.iter().map(shown).collect()
}

/// Without white space at its ends, and with one space in the place of several.
fn one_line(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod test {
    use super::*;

    const ALL: Shown = Shown { subject: false, size_max: 64 << 10 };

    fn redactor() -> Redactor {
        Redactor::new(Some("0123456789abcdef"))
    }

    /// With `ann` for a hash of it, where it is one.
    fn text(text: &str) -> String {
        let redactor = redactor();
        let mut out = redactor.text(text.as_bytes());
        for name in ["ann", "bob", "\"ann smith\"", "\"a\\\"b\".c", "bounce+ann=example.org", "ann smith"] {
            out = out.replace(&redactor.local_part(name.as_bytes()), &format!("#{}#", name.len()));
        }
        out
    }

    #[test]
    fn local_parts_are_hashed_wherever_they_stand() {
        for (input, expected) in [
            ("ann@example.org", "#3#@example.org"),
            ("Ann@example.org", "#3#@example.org"),
            ("<ann@example.org>, bob@example.net", "<#3#@example.org>, #3#@example.net"),
            ("from x by y for <ann@example.org>; now", "from x by y for <#3#@example.org>; now"),
            ("\"ann smith\"@example.org", "#11#@example.org"),
            ("x \"a\\\"b\".c@example.org", "x #8#@example.org"),
            ("ann @ example.org", "#3#@ example.org"),
            ("<bounce+ann=example.org@list.example>", "<#22#@list.example>"),
            ("spf=pass smtp.mailfrom=ann@example.org;", "spf=pass smtp.mailfrom=#3#@example.org;"),
            ("header.i=@example.org", "header.i=@example.org"),
            ("i=ann@example.org", "i=#3#@example.org"),
            ("envelope-from=\"ann smith\"@example.org", "envelope-from=#11#@example.org"),
            ("mailto:ann@example.org", "mailto:#3#@example.org"),
            ("<@a.example,@b.example:ann@example.org>", "<@a.example,@b.example:#3#@example.org>"),
            ("a\r\n\tb\u{7}c", "a b?c"),
            ("@", "@"),
            ("", ""),
        ] {
            assert_eq!(text(input), expected, "{input}");
        }
        assert_ne!(redactor().local_part(b"ann"), Redactor::new(Some("fedcba9876543210")).local_part(b"ann"));
        // Over a reload as well.
        assert_eq!(Redactor::new(None).local_part(b"ann"), Redactor::new(None).local_part(b"ann"));
        assert_ne!(Redactor::new(None).local_part(b"ann"), redactor().local_part(b"ann"));
        assert_eq!(format!("{:?}", redactor()), "Redactor");
    }

    const HEADER: &str = "Received: from [192.0.2.1] (helo=x) by mx.example.net for <Secret.Person@example.net>;\r\n\
        \tSun, 29 Nov 2026 12:00:00 +0000\r\n\
        DKIM-Signature: v=1; d=example.org; i=secret.person@example.org; z=From:secret.person=40example.org; b=AAAA\r\n\
        X-Original-To: secret.person@example.net\r\n\
        List-Unsubscribe: <https://example.org/u/secret-token>\r\n\
        From: \"Secret Person\" <secret.person@example.org>\r\n\
        To: =?utf-8?q?Secret_Person?= <secret.person@example.net>,\r\n secret.person@other.example\r\n\
        Subject: For secret.person\r\n\
        Message-ID: <1@example.org>\r\n\
        Content-Type: multipart/mixed; boundary=\"secret.person@example.org\"\r\n\
        From : odd@example.com\r\n\
        Bcc: secret.person@example.net\r\n";

    #[test]
    fn a_header_section_shows_the_way_and_no_persons() {
        let redactor = redactor();
        let shown = redactor.header(HEADER.as_bytes(), ALL);
        let hash = redactor.local_part(b"secret.person");
        assert!(!shown.to_ascii_lowercase().contains("secret"), "{shown}");
        for line in [
            format!("From: <{hash}@example.org>\r\n"),
            format!("To: <{hash}@example.net>, <{hash}@other.example>\r\n"),
            format!(" for <{hash}@example.net>; Sun, 29 Nov 2026 12:00:00 +0000\r\n"),
            "Message-ID: <1@example.org>\r\n".into(),
            "Content-Type: multipart/mixed\r\n".into(),
            format!("From: <{}@example.com>\r\n", redactor.local_part(b"odd")),
        ] {
            assert!(shown.replace("\r\n ", " ").contains(&line), "{line} {shown}");
        }
        let named = ["Received", "DKIM-Signature", "From", "To", "Message-ID", "Content-Type", "From"];
        let names: Vec<_> = message::fields(shown.as_bytes()).map(|(name, _)| name).collect();
        assert_eq!(names, named.map(str::as_bytes));
        let with_subject = redactor.header(HEADER.as_bytes(), Shown { subject: true, ..ALL });
        assert!(with_subject.contains("\r\nSubject: For secret.person\r\n"), "{with_subject}");
    }

    /// Names of people stand beside addresses too: as those who logged in, who own a process, or have no domain.
    #[test]
    fn names_without_a_domain_are_not_shown() {
        let redactor = redactor();
        let hash = redactor.local_part(b"secret.person");
        let quoted = redactor.local_part(b"\"secret.person\"");
        for (field, expected) in [
            (
                "Received: from a.example (b.example [192.0.2.1]) (Authenticated sender: secret.person) by x (Postfix) with ESMTPSA",
                "Received: from a.example (b.example [192.0.2.1]) by x with ESMTPSA".to_owned(),
            ),
            (
                "Received: from x ([192.0.2.1] helo=a.example ident=secret.person) by y for secret.person; now",
                format!("Received: from x ([192.0.2.1] helo=a.example) by y for <{hash}>; now"),
            ),
            (
                "Received: by x (from secret.person (uid 1000\\)) []) id 1 for <Secret.Person> (secret); now",
                format!("Received: by x ([]) id 1 for <{hash}> ; now"),
            ),
            (
                "Received: from x (secret.person@[192.0.2.1]) for <secret.person@example.net>; now",
                format!("Received: from x ({hash}@[192.0.2.1]) for <{hash}@example.net>; now"),
            ),
            (
                "Authentication-Results: x; auth=pass smtp.auth=secret.person; auth=pass SMTP.Auth=\"secret.person\" x",
                format!(
                    "Authentication-Results: x; auth=pass smtp.auth={hash}; auth=pass SMTP.Auth={quoted} x"
                ),
            ),
            (
                "Authentication-Results: x; auth=pass smtp.auth=secret.person@a.example",
                format!("Authentication-Results: x; auth=pass smtp.auth={hash}@a.example"),
            ),
        ] {
            let shown = redactor.header(format!("{field}\r\n").as_bytes(), ALL);
            assert_eq!(shown.replace("\r\n ", " ").trim_end(), expected, "{field}");
        }
    }

    #[test]
    fn what_is_cut_shows_no_half_of_an_address() {
        for end in 0..HEADER.len() {
            let shown = redactor().header(&HEADER.as_bytes()[..end], ALL);
            assert!(!shown.to_ascii_lowercase().contains("secret"), "{end}: {shown}");
        }
    }

    #[test]
    fn everything_has_a_bound() {
        let many = format!("To: {}\r\n", "a@example.org, ".repeat(1000));
        let long = format!("Received: {} {}\r\n", "x".repeat(5000), "y ".repeat(5000));
        let header = format!("{many}{long}{}", "Received: z\r\n".repeat(1000));
        let shown = redactor().header(header.as_bytes(), Shown { size_max: 4096, ..ALL });
        assert!(shown.contains("(and 980 more)") || shown.contains("To:"), "{shown}");
        assert!(shown.len() <= 4096 && shown.ends_with("\r\n"));
        assert!(shown.split("\r\n").all(|line| line.len() <= "Received: ".len() + WORD_MAX), "{shown}");
        assert!(shown.bytes().all(|octet| matches!(octet, b' '..=b'~' | b'\r' | b'\n')));
        assert_eq!(redactor().header(b"", ALL), "");
        assert_eq!(redactor().header(b"From: no address here\r\n", ALL), "From: (no address)\r\n");
    }
}
