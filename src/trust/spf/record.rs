//! SPF records: which text is one, and what it says (RFC 7208 §4.5, §4.6, §12).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    SpfResult,
    macros::{MacroText, Place},
};

/// What a record says: directives, first to last, and the two modifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) directives: Vec<Directive<'a>>,
    pub(crate) redirect: Option<MacroText>,
    pub(crate) explanation: Option<MacroText>,
}

/// A mechanism, and the result when it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive<'a> {
    pub(crate) result: SpfResult,
    pub(crate) mechanism: Mechanism,
    /// As it is written.
    pub(crate) text: &'a str,
}

/// RFC 7208 §5. A domain that is not there is the one being checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    All,
    Include(MacroText),
    A(Option<MacroText>, Prefixes),
    Mx(Option<MacroText>, Prefixes),
    Ptr(Option<MacroText>),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(MacroText),
}

/// How many leading bits of an address count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefixes {
    pub(crate) ip4: u8,
    pub(crate) ip6: u8,
}

/// The record is malformed (RFC 7208 §4.6): `permerror`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError;

/// More than one text is an SPF record (RFC 7208 §4.5): `permerror`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// The SPF record among the text records of a name (RFC 7208 §4.5).
pub(crate) fn select(texts: &[Box<[u8]>]) -> Result<Option<&[u8]>, TooMany> {
    let mut records = texts.iter().filter(|text| is_record(text));
    match (records.next(), records.next()) {
        (Some(_), Some(_)) => Err(TooMany),
        (record, _) => Ok(record.map(|text| &text[6..])),
    }
}

/// Whether a text is an SPF record: whether its version says so.
pub(crate) fn is_record(text: &[u8]) -> bool {
    let Some((version, rest)) = text.split_at_checked(6) else { return false };
    version.eq_ignore_ascii_case(b"v=spf1") && matches!(rest.first(), None | Some(b' '))
}

impl<'a> Record<'a> {
    /// Reads what stands behind the version. "Since the processing of the record stops at the first match, errors
    /// in what follows might not be seen": so all of it is read first (RFC 7208 §4.6).
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, SyntaxError> {
        // US-ASCII alone (RFC 7208 §3.1), and terms are parted by spaces alone (§4.6.1).
        if !text.iter().all(|octet| matches!(octet, b' '..=b'~')) {
            return Err(SyntaxError);
        }
        let text = str::from_utf8(text).map_err(|_| SyntaxError)?;
        let mut record = Self { directives: Vec::new(), redirect: None, explanation: None };
        for term in text.split(' ').filter(|term| !term.is_empty()) {
            match term.find([':', '/', '=']).map(|at| (&term[..at], &term[at..])) {
                Some((name, value)) if value.starts_with('=') => record.modifier(name, &value[1..])?,
                Some((name, value)) => record.directives.push(directive(term, name, value)?),
                None => record.directives.push(directive(term, term, "")?),
            }
        }
        Ok(record)
    }

    /// RFC 7208 §6. "unknown-modifier" is not meant to catch what is wrong with the known ones.
    fn modifier(&mut self, name: &str, value: &str) -> Result<(), SyntaxError> {
        let place = if name.eq_ignore_ascii_case("redirect") {
            &mut self.redirect
        } else if name.eq_ignore_ascii_case("exp") {
            &mut self.explanation
        } else {
            let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            MacroText::parse(value, Place::Record)?;
            return if valid { Ok(()) } else { Err(SyntaxError) };
        };
        // "MUST NOT appear in a record more than once each"
        if place.is_some() {
            return Err(SyntaxError);
        }
        *place = Some(domain(value)?);
        Ok(())
    }
}

fn directive<'a>(text: &'a str, name: &str, value: &str) -> Result<Directive<'a>, SyntaxError> {
    let (result, name) = match name.as_bytes().first() {
        Some(b'+') => (SpfResult::Pass, &name[1..]),
        Some(b'-') => (SpfResult::Fail, &name[1..]),
        Some(b'~') => (SpfResult::SoftFail, &name[1..]),
        Some(b'?') => (SpfResult::Neutral, &name[1..]),
        _ => (SpfResult::Pass, name),
    };
    let mechanism = match name.to_ascii_lowercase().as_str() {
        "all" if value.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(domain(behind_colon(value)?)?),
        "a" => {
            let (value, prefixes) = prefixes(value)?;
            Mechanism::A(domain_if_any(value)?, prefixes)
        }
        "mx" => {
            let (value, prefixes) = prefixes(value)?;
            Mechanism::Mx(domain_if_any(value)?, prefixes)
        }
        "ptr" => Mechanism::Ptr(domain_if_any(value)?),
        "ip4" => {
            let (network, prefix) = split_prefix(behind_colon(value)?, "/", 32)?;
            Mechanism::Ip4(network.parse().map_err(|_| SyntaxError)?, prefix)
        }
        "ip6" => {
            let (network, prefix) = split_prefix(behind_colon(value)?, "/", 128)?;
            Mechanism::Ip6(network.parse().map_err(|_| SyntaxError)?, prefix)
        }
        "exists" => Mechanism::Exists(domain(behind_colon(value)?)?),
        _ => return Err(SyntaxError),
    };
    Ok(Directive { result, mechanism, text })
}

fn behind_colon(value: &str) -> Result<&str, SyntaxError> {
    value.strip_prefix(':').ok_or(SyntaxError)
}

/// `[ ":" domain-spec ]`
fn domain_if_any(value: &str) -> Result<Option<MacroText>, SyntaxError> {
    if value.is_empty() { Ok(None) } else { domain(behind_colon(value)?).map(Some) }
}

/// `[ ip4-cidr-length ] [ "/" ip6-cidr-length ]` at the end (RFC 7208 §5.6).
fn prefixes(value: &str) -> Result<(&str, Prefixes), SyntaxError> {
    let (value, ip6) = split_prefix(value, "//", 128)?;
    let (value, ip4) = split_prefix(value, "/", 32)?;
    Ok((value, Prefixes { ip4, ip6 }))
}

/// Cuts a prefix length off; without one all bits count. A slash that no digits follow is not one's beginning.
fn split_prefix<'a>(value: &'a str, slash: &str, max: u8) -> Result<(&'a str, u8), SyntaxError> {
    let digits = value.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (before, digits) = value.split_at(value.len() - digits);
    let Some(before) = before.strip_suffix(slash).filter(|_| !digits.is_empty()) else {
        return Ok((value, max));
    };
    // No leading zeros (RFC 7208 §12: `"0" / %x31-39 0*1DIGIT`).
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(SyntaxError);
    }
    match digits.parse() {
        Ok(length) if length <= max => Ok((before, length)),
        _ => Err(SyntaxError),
    }
}

/// `domain-spec = macro-string domain-end` (RFC 7208 §7.1): it ends in a macro, or in a dot and a top label.
fn domain(text: &str) -> Result<MacroText, SyntaxError> {
    let parsed = MacroText::parse(text, Place::Record)?;
    let ends_well = match parsed.last_literal() {
        None => !text.is_empty(),
        Some(literal) => {
            let literal = literal.strip_suffix('.').unwrap_or(literal);
            literal.rsplit_once('.').is_some_and(|(_, label)| is_top_label(label))
        }
    };
    if ends_well { Ok(parsed) } else { Err(SyntaxError) }
}

/// Letters, digits and inner hyphens; not digits alone.
fn is_top_label(label: &str) -> bool {
    !label.is_empty()
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.bytes().all(|b| b.is_ascii_digit())
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
#[path = "record_test.rs"]
mod test;
