//! How a list is left (RFC 2369 §3.2), and whether one click is enough for that (RFC 8058).
//!
//! Whoever offers a button has to know three things: that there is one link it could lead to, that the sender means it
//! to be followed without a question, and that nobody but a signer has written it. A link that a stranger wrote into a
//! message on its way would have its reader's program post to whomever he likes. So one click is what RFC 8058 says
//! and nothing milder: where anything is amiss, a reader may still see the link, or the address.

use dns::Name;

use crate::{
    Digest, Dkim, DkimResult, KeyUse,
    fields::{Field, fields},
    tags::{items, tags, value_of},
};

/// How a list is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// The easiest way.
    pub way: UnsubscribeWay,
    /// Why it is not one click.
    pub flaw: Option<UnsubscribeFlaw>,
    /// The link: what a click posts to, or what is opened.
    pub link: Option<String>,
    /// The address to write to: all behind `mailto:`.
    pub mailto: Option<String>,
    /// The domain whose signature covers both fields, where there is such a one.
    pub signer: Option<String>,
    /// Whether that domain is the author's, as DMARC has it. RFC 8058 does not ask for that.
    pub aligned: SignerAligned,
}

/// The easiest way to leave a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsubscribeWay {
    /// A program may do it, when its reader says so (RFC 8058).
    OneClick,
    /// The reader opens a page.
    Link,
    /// The reader writes a mail.
    Mail,
    /// None that can be used.
    Unusable,
}

/// Whether the signer of the fields is the author's domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignerAligned {
    /// It is.
    Yes,
    /// It is another, or nobody's.
    No,
}

/// Why one click is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsubscribeFlaw {
    /// There is no `List-Unsubscribe`.
    #[error("there is no List-Unsubscribe")]
    Missing,
    /// It stands more than once: programs choose any (RFC 2369 §3).
    #[error("List-Unsubscribe stands more than once")]
    Repeated,
    /// It is longer, or has more in it, than is read.
    #[error("List-Unsubscribe is too long")]
    TooLong,
    /// Something in it is no URI in angle brackets, or stands where programs stop reading (RFC 2369 §2).
    #[error("List-Unsubscribe is malformed")]
    Syntax,
    /// It has white space within a URI (RFC 2369 §2).
    #[error("a URI of List-Unsubscribe has white space in it")]
    Space,
    /// It has an `http:` link: everybody on the way reads it, and may answer.
    #[error("List-Unsubscribe has a link of http")]
    Insecure,
    /// It has no `https:` link.
    #[error("List-Unsubscribe has no link of https")]
    NoLink,
    /// It has more than one (RFC 8058 §3.1).
    #[error("List-Unsubscribe has more than one link of https")]
    SeveralLinks,
    /// The link leads to no host that the world knows by its name.
    #[error("the link of List-Unsubscribe leads to no host of the open network")]
    Host,
    /// The link leads to a name that is kept for examples (RFC 2606).
    #[error("the link of List-Unsubscribe is one of an example")]
    Example,
    /// There is no `List-Unsubscribe-Post`.
    #[error("there is no List-Unsubscribe-Post")]
    NoPost,
    /// It stands more than once.
    #[error("List-Unsubscribe-Post stands more than once")]
    PostRepeated,
    /// It does not say what it has to (RFC 8058 §3.1).
    #[error("List-Unsubscribe-Post is not List-Unsubscribe=One-Click")]
    PostValue,
    /// No signature that counts covers both (RFC 8058 §4).
    #[error("no good signature covers List-Unsubscribe and List-Unsubscribe-Post")]
    Unsigned,
}

/// The fields.
pub(crate) const FIELDS: [&str; 2] = ["List-Unsubscribe", "List-Unsubscribe-Post"];
/// What the second says (RFC 8058 §3.1).
const ONE_CLICK: &[u8] = b"List-Unsubscribe=One-Click";
/// Octets of the first that are read, and URIs in it.
const VALUE_MAX: usize = 8 << 10;
const URIS_MAX: usize = 16;
/// Octets of one of them.
const URI_MAX: usize = 2000;
/// Names that hosts have among themselves.
const LOCAL: [&str; 6] = ["localhost", "localdomain", "local", "internal", "lan", "home"];
/// Names that nobody has (RFC 2606 §2, §3).
const EXAMPLES: [&str; 6] = ["example", "test", "invalid", "example.com", "example.net", "example.org"];

impl UnsubscribeWay {
    /// In fields, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OneClick => "one-click",
            Self::Link => "link",
            Self::Mail => "mail",
            Self::Unusable => "unusable",
        }
    }
}

impl UnsubscribeFlaw {
    /// Each of them.
    pub const ALL: [Self; 14] = [
        Self::Missing,
        Self::Repeated,
        Self::TooLong,
        Self::Syntax,
        Self::Space,
        Self::Insecure,
        Self::NoLink,
        Self::SeveralLinks,
        Self::Host,
        Self::Example,
        Self::NoPost,
        Self::PostRepeated,
        Self::PostValue,
        Self::Unsigned,
    ];

    /// In fields, metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Repeated => "repeated",
            Self::TooLong => "too-long",
            Self::Syntax => "syntax",
            Self::Space => "space",
            Self::Insecure => "insecure",
            Self::NoLink => "no-link",
            Self::SeveralLinks => "several-links",
            Self::Host => "host",
            Self::Example => "example",
            Self::NoPost => "no-post",
            Self::PostRepeated => "post-repeated",
            Self::PostValue => "post-value",
            Self::Unsigned => "unsigned",
        }
    }
}

/// Whether a name could be one that the world knows: not the name of a host among its neighbours, and not an address.
pub fn is_public(name: &Name) -> bool {
    let labels = name.as_str().rsplit_once('.');
    labels.is_some_and(|(_, last)| {
        !LOCAL.contains(&last)
            && !last.bytes().all(|octet| octet.is_ascii_digit())
            && !name.as_str().starts_with('[')
    })
}

/// What somebody else's message says, with what is known of its signatures, in their order; nothing where it has
/// neither field. `aligned` says whether a signature is of the author's domain.
pub fn judge(
    digest: &Digest,
    dkim: &[Dkim],
    aligned: impl Fn(&Dkim) -> SignerAligned,
) -> Option<Unsubscribe> {
    let header = digest.header();
    let all = || digest.fields().iter().map(|field| (header, *field));
    if !all().any(|(header, field)| FIELDS.iter().any(|name| field.is(header, name))) {
        return None;
    }
    let (mut found, _) = read(all());
    // A domain that only tries signing out has not signed (RFC 6376 §3.6.1).
    let counts = |dkim: &Dkim| dkim.result == DkimResult::Pass && dkim.key_use == KeyUse::Signing;
    let covering = dkim.iter().zip(digest.signatures()).filter(|(dkim, field)| {
        counts(dkim) && field.signed().is_some_and(|signed| covers(signed.iter().map(|name| name.as_bytes())))
    });
    for (dkim, _) in covering {
        let is_aligned = aligned(dkim);
        if found.signer.is_none() || is_aligned == SignerAligned::Yes {
            (found.signer, found.aligned) = (Some(dkim.domain.clone()), is_aligned);
        }
        if is_aligned == SignerAligned::Yes {
            break;
        }
    }
    if found.flaw.is_none() {
        match found.signer {
            Some(_) => found.way = UnsubscribeWay::OneClick,
            None => found.flaw = Some(UnsubscribeFlaw::Unsigned),
        }
    }
    Some(found)
}

/// What is wrong with a message of ours as it goes out: with the signatures that were made for it, and what was put
/// before it. It is held to more than others hold it to: what is written may not be doubtful at all.
///
/// # Errors
/// The first flaw.
pub fn unsubscribe_as_sent(signatures: &[u8], added: &[u8], digest: &Digest) -> Result<(), UnsubscribeFlaw> {
    if digest.header().is_empty() {
        // It was too long to be kept: then nothing is signed either.
        return Err(UnsubscribeFlaw::Unsigned);
    }
    let before: Vec<Field> = fields(added).collect();
    let own = digest.fields().iter().map(|field| (digest.header(), *field));
    let (found, doubt) = read(before.iter().map(|field| (added, *field)).chain(own));
    found.flaw.or(doubt).map_or(Ok(()), Err)?;
    let is_covered = fields(signatures).filter(|field| field.is(signatures, "DKIM-Signature")).any(|field| {
        let tags = tags(field.value(signatures)).unwrap_or_default();
        value_of(&tags, b"h").is_some_and(|signed| covers(items(signed)))
    });
    if is_covered { Ok(()) } else { Err(UnsubscribeFlaw::Unsigned) }
}

fn covers<'a>(signed: impl Iterator<Item = &'a [u8]> + Clone) -> bool {
    FIELDS.iter().all(|name| signed.clone().any(|signed| signed.eq_ignore_ascii_case(name.as_bytes())))
}

/// What the fields say, whoever has signed them, and what is doubtful beside.
fn read<'a>(all: impl Iterator<Item = (&'a [u8], Field)> + Clone) -> (Unsubscribe, Option<UnsubscribeFlaw>) {
    let named = |name: &'static str| {
        let with = all.clone().filter(move |(header, field)| field.is(header, name));
        let mut values = with.map(|(header, field)| field.value(header));
        (values.next(), values.next().is_some())
    };
    let mut found = Unsubscribe {
        way: UnsubscribeWay::Unusable,
        flaw: None,
        link: None,
        mailto: None,
        signer: None,
        aligned: SignerAligned::No,
    };
    let value = match named(FIELDS[0]) {
        (None, _) => {
            found.flaw = Some(UnsubscribeFlaw::Missing);
            return (found, None);
        }
        (Some(_), true) => {
            found.flaw = Some(UnsubscribeFlaw::Repeated);
            return (found, None);
        }
        (Some(value), false) => value,
    };
    let Some(Uris { uris, has_space, has_more }) = uris(value) else {
        found.flaw = Some(UnsubscribeFlaw::TooLong);
        return (found, None);
    };
    let mut secure = uris.iter().filter(|uri| starts_with(uri, "https:"));
    let (link, is_more) = (secure.next(), secure.next().is_some());
    let is_insecure = uris.iter().any(|uri| starts_with(uri, "http:"));
    let mailto = uris.iter().find(|uri| starts_with(uri, "mailto:"));
    found.mailto = mailto.map(|uri| uri["mailto:".len()..].to_owned());
    let host = link.and_then(|link| host(link));
    // A page at a host that the world does not know is none that a reader could open.
    found.link = link.filter(|_| host.as_ref().is_some_and(is_public)).cloned();
    found.way = match (&found.link, &found.mailto) {
        (Some(_), _) => UnsubscribeWay::Link,
        (None, Some(_)) => UnsubscribeWay::Mail,
        (None, None) => UnsubscribeWay::Unusable,
    };
    let post = named(FIELDS[1]);
    found.flaw = match (link, post) {
        _ if uris.is_empty() => Some(UnsubscribeFlaw::Syntax),
        // "other non-HTTP/S URIs" may stand beside the one link (RFC 8058 §3.1).
        _ if is_insecure => Some(UnsubscribeFlaw::Insecure),
        (None, _) => Some(UnsubscribeFlaw::NoLink),
        _ if is_more => Some(UnsubscribeFlaw::SeveralLinks),
        _ if found.link.is_none() => Some(UnsubscribeFlaw::Host),
        (_, (None, _)) => Some(UnsubscribeFlaw::NoPost),
        (_, (Some(_), true)) => Some(UnsubscribeFlaw::PostRepeated),
        (_, (Some(value), false)) if value.trim_ascii() != ONE_CLICK => Some(UnsubscribeFlaw::PostValue),
        (Some(_), (Some(_), false)) => None,
    };
    let is_example = |name: Name| EXAMPLES.iter().any(|example| name.is_within(example));
    let doubt = if has_more {
        Some(UnsubscribeFlaw::Syntax)
    } else if has_space {
        Some(UnsubscribeFlaw::Space)
    } else {
        host.is_some_and(is_example).then_some(UnsubscribeFlaw::Example)
    };
    (found, doubt)
}

fn starts_with(uri: &str, scheme: &str) -> bool {
    uri.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

/// The host of a link, when it has one that is a name, and says nothing of users (RFC 3986 §3.2).
fn host(link: &str) -> Option<Name> {
    let rest = link.get("https:".len()..)?.strip_prefix("//")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let is_port = port.len() <= 5 && port.bytes().all(|octet| octet.is_ascii_digit());
    let is_name = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    (is_port && host.bytes().all(is_name)).then(|| Name::parse(host).ok()).flatten()
}

/// What stands in angle brackets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Uris {
    uris: Vec<String>,
    /// One of them is broken by white space, which does not count (RFC 2369 §2).
    has_space: bool,
    /// There is something else, which does not count either.
    has_more: bool,
}

/// All URIs up to the first thing that is none: "the remainder of the field (the current, and all subsequent,
/// sub-items) SHOULD be ignored", as are "any characters following an angle bracket enclosed URL […] unless a comma is
/// the first non-whitespace/comment character after the closing angle bracket" (RFC 2369 §2). None when it is too
/// long.
fn uris(value: &[u8]) -> Option<Uris> {
    let mut found = Uris::default();
    if value.len() > VALUE_MAX {
        return None;
    }
    let mut rest = without_comments(value);
    while let Some(inner) = rest.strip_prefix(b"<") {
        let end = memchr::memchr(b'>', inner);
        let uri = end.and_then(|end| {
            let raw = inner[..end].trim_ascii();
            let uri: Vec<u8> = raw.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
            found.has_space |= raw.len() != end || uri.len() != raw.len();
            let is_uri = |octet: &u8| octet.is_ascii_graphic() && !matches!(octet, b'<' | b'"' | b'\\');
            let uri = String::from_utf8(uri).ok()?;
            let is_whole = !uri.is_empty() && uri.bytes().all(|octet| is_uri(&octet)) && uri.contains(':');
            is_whole.then_some((uri, end))
        });
        let Some((uri, end)) = uri else { break };
        if uri.len() > URI_MAX || found.uris.len() == URIS_MAX {
            return None;
        }
        found.uris.push(uri);
        rest = without_comments(&inner[end + 1..]);
        match rest.strip_prefix(b",") {
            Some(next) => rest = without_comments(next),
            None => break,
        }
    }
    found.has_more = !rest.is_empty();
    Some(found)
}

/// What follows white space and comments (RFC 5322 §3.2.2); nothing is left of a comment that does not end.
fn without_comments(value: &[u8]) -> &[u8] {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(octet) = value.get(at) {
        match octet {
            b'\\' if depth > 0 => at += 1,
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            _ if depth > 0 || octet.is_ascii_whitespace() => {}
            _ => break,
        }
        at += 1;
    }
    value.get(at..).unwrap_or_default()
}

#[cfg(test)]
#[path = "unsubscribe_test.rs"]
mod test;
