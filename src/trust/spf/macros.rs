//! Macros in SPF records and explanations (RFC 7208 §7).

use std::{borrow::Cow, fmt::Write as _, net::IpAddr};

use super::record::SyntaxError;

/// A text with macros in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MacroText {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// As it stands in the record.
    Literal(String),
    /// `%%`, `%_` or `%-`.
    Escape(&'static str),
    Macro(Macro),
}

/// `%{...}`
#[derive(Clone, Debug, PartialEq, Eq)]
struct Macro {
    letter: Letter,
    escape: UrlEscape,
    /// How many parts on the right are kept; 0 for all.
    parts: usize,
    order: Order,
    /// What parts are parted by.
    delimiters: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Letter {
    Sender,
    LocalPart,
    SenderDomain,
    Domain,
    Address,
    Validated,
    Version,
    Helo,
    ReadableAddress,
    Receiver,
    Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UrlEscape {
    No,
    Yes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Same,
    Reversed,
}

/// Where a text stands; `c`, `r`, `t` and spaces are for explanations only (RFC 7208 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Record,
    Explanation,
}

/// What macros stand for (RFC 7208 §7.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variables<'a> {
    pub(crate) local_part: &'a str,
    pub(crate) sender_domain: &'a str,
    /// The domain being checked, which changes in `include` and `redirect`.
    pub(crate) domain: &'a str,
    pub(crate) address: IpAddr,
    pub(crate) helo: &'a str,
    pub(crate) receiver: &'a str,
    pub(crate) time: u64,
}

impl MacroText {
    /// Reads a `macro-string` or an `explain-string` (RFC 7208 §7.1).
    pub(crate) fn parse(text: &str, place: Place) -> Result<Self, SyntaxError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, behind) = rest.split_at(rest.find('%').unwrap_or(rest.len()));
            let valid = |b: u8| b.is_ascii_graphic() || (b == b' ' && place == Place::Explanation);
            if !literal.bytes().all(valid) {
                return Err(SyntaxError);
            }
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            rest = match behind.as_bytes() {
                [] => break,
                [_, b'%', ..] => {
                    pieces.push(Piece::Escape("%"));
                    &behind[2..]
                }
                [_, b'_', ..] => {
                    pieces.push(Piece::Escape(" "));
                    &behind[2..]
                }
                [_, b'-', ..] => {
                    pieces.push(Piece::Escape("%20"));
                    &behind[2..]
                }
                [_, b'{', ..] => {
                    let (inner, behind) = behind[2..].split_once('}').ok_or(SyntaxError)?;
                    pieces.push(Piece::Macro(Macro::parse(inner, place)?));
                    behind
                }
                _ => return Err(SyntaxError),
            };
        }
        Ok(Self { pieces })
    }

    /// The end, if it is no macro.
    pub(crate) fn last_literal(&self) -> Option<&str> {
        match self.pieces.last()? {
            Piece::Literal(literal) => Some(literal),
            Piece::Escape(_) | Piece::Macro(_) => None,
        }
    }

    /// Whether a validated name of the address is needed.
    pub(crate) fn needs_validated(&self) -> bool {
        self.pieces.iter().any(|piece| match piece {
            Piece::Macro(piece) => piece.letter == Letter::Validated,
            Piece::Literal(_) | Piece::Escape(_) => false,
        })
    }

    /// The text with everything filled in. `validated` is the name for `p`.
    pub(crate) fn expand(&self, variables: &Variables<'_>, validated: &str) -> String {
        let mut text = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(literal),
                Piece::Escape(escape) => text.push_str(escape),
                Piece::Macro(piece) => piece.expand(&mut text, variables, validated),
            }
        }
        text
    }
}

impl Macro {
    /// `macro-letter transformers *delimiter`
    fn parse(text: &str, place: Place) -> Result<Self, SyntaxError> {
        let mut characters = text.chars();
        let first = characters.next().ok_or(SyntaxError)?;
        let letter = match (first.to_ascii_lowercase(), place) {
            ('s', _) => Letter::Sender,
            ('l', _) => Letter::LocalPart,
            ('o', _) => Letter::SenderDomain,
            ('d', _) => Letter::Domain,
            ('i', _) => Letter::Address,
            ('p', _) => Letter::Validated,
            ('v', _) => Letter::Version,
            ('h', _) => Letter::Helo,
            ('c', Place::Explanation) => Letter::ReadableAddress,
            ('r', Place::Explanation) => Letter::Receiver,
            ('t', Place::Explanation) => Letter::Time,
            _ => return Err(SyntaxError),
        };
        let escape = if first.is_ascii_uppercase() { UrlEscape::Yes } else { UrlEscape::No };
        let rest = characters.as_str();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let parts = match &rest[..digits] {
            "" => 0,
            // "if a DIGIT is specified, the value MUST be nonzero"; more than fit are all.
            digits if digits.bytes().all(|b| b == b'0') => return Err(SyntaxError),
            digits => digits.parse().unwrap_or(usize::MAX),
        };
        let rest = &rest[digits..];
        let (order, delimiters) = match rest.strip_prefix(['r', 'R']) {
            Some(delimiters) => (Order::Reversed, delimiters),
            None => (Order::Same, rest),
        };
        if !delimiters.bytes().all(|b| matches!(b, b'.' | b'-' | b'+' | b',' | b'/' | b'_' | b'=')) {
            return Err(SyntaxError);
        }
        let delimiters = if delimiters.is_empty() { "." } else { delimiters };
        Ok(Self { letter, escape, parts, order, delimiters: delimiters.to_owned() })
    }

    fn expand(&self, text: &mut String, variables: &Variables<'_>, validated: &str) {
        let value: Cow<'_, str> = match self.letter {
            Letter::Sender => format!("{}@{}", variables.local_part, variables.sender_domain).into(),
            Letter::LocalPart => variables.local_part.into(),
            Letter::SenderDomain => variables.sender_domain.into(),
            Letter::Domain => variables.domain.into(),
            Letter::Address => dotted(variables.address).into(),
            Letter::Validated => validated.into(),
            Letter::Version => if variables.address.is_ipv4() { "in-addr" } else { "ip6" }.into(),
            Letter::Helo => variables.helo.into(),
            Letter::ReadableAddress => variables.address.to_string().into(),
            Letter::Receiver => variables.receiver.into(),
            Letter::Time => variables.time.to_string().into(),
        };
        let mut parts: Vec<&str> = value.split(|c| self.delimiters.contains(c)).collect();
        if self.order == Order::Reversed {
            parts.reverse();
        }
        let kept = if self.parts == 0 { parts.len() } else { self.parts.min(parts.len()) };
        let value = parts[parts.len() - kept..].join(".");
        match self.escape {
            UrlEscape::No => text.push_str(&value),
            UrlEscape::Yes => url_escape(text, &value),
        }
    }
}

/// An address as `i` has it: octets of IPv4, half octets of IPv6. Names are compared without case.
fn dotted(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let mut text = String::with_capacity(64);
            for octet in address.octets() {
                let dot = if text.is_empty() { "" } else { "." };
                write!(text, "{dot}{:X}.{:X}", octet >> 4, octet & 15).expect("a String takes everything");
            }
            text
        }
    }
}

/// "all characters not in the "unreserved" set MUST be URL-escaped" (RFC 7208 §7.3, RFC 3986 §2.3).
fn url_escape(text: &mut String, value: &str) {
    for octet in value.bytes() {
        if octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(octet));
        } else {
            write!(text, "%{octet:02X}").expect("a String takes everything");
        }
    }
}

#[cfg(test)]
#[path = "macros_test.rs"]
mod test;
