//! A `From` field, read as strictly as RFC 5322 §3.6.2 writes it.
//!
//! Whom a message is from is for [`author`](crate::dmarc) to say, which understands as much as it can. Other programs understand
//! other things, and what lies between them is where others are deceived (Chen, Paxson, Jiang: "Composition Kills", 2020). So
//! here whatever is not plain is noted.

use dns::Name;

use crate::{
    deception::{Trick, Tricks},
    encoded::{is_ignorable, readable},
};

/// What a field says, and how.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes {
    /// The domain of each address, as it is written.
    pub(crate) domains: Vec<String>,
    /// What readers show beside the addresses: names and comments, decoded.
    pub(crate) names: Vec<String>,
    /// What makes it ambiguous.
    pub(crate) tricks: Tricks,
}

#[derive(Debug)]
struct Token<'a> {
    kind: Kind<'a>,
    behind: Behind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind<'a> {
    /// `atext` (RFC 5322 §3.2.3), UTF-8 included (RFC 6532 §3.2).
    Atom(&'a [u8]),
    /// What a quoted string says.
    Quoted(Vec<u8>),
    /// A domain literal, with its brackets.
    Literal(&'a [u8]),
    Special(u8),
}

/// What stands before a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Nothing,
    Space,
    Comment,
}

impl Mailboxes {
    /// Reads the value of a field.
    pub(crate) fn read(value: &[u8]) -> Self {
        let mut read = Self::default();
        let tokens = read.tokens(value);
        let is = |token: &Token<'_>, special| token.kind == Kind::Special(special);
        let mut rest = &tokens[..];
        while !rest.is_empty() {
            // A comma within angle brackets parts hosts of a route (RFC 5322 §4.4).
            let mut within = false;
            let end = rest.iter().position(|token| {
                within = (within || is(token, b'<')) && !is(token, b'>');
                !within && [b',', b':', b';'].iter().any(|part| is(token, *part))
            });
            let (mailbox, more) = rest.split_at(end.unwrap_or(rest.len()));
            let part = more.first();
            if part.is_some_and(|part| is(part, b':')) {
                read.tricks.insert(Trick::Group);
                read.name(mailbox);
            } else if part.is_some_and(|part| is(part, b',')) && is_words(mailbox) {
                // Half of a name that should stand in quotes, "Example, Inc. <a@b>": no address for anybody.
                read.tricks.insert(Trick::UnquotedName);
                read.name(mailbox);
            } else if !mailbox.is_empty() {
                read.mailbox(mailbox);
            } else if !part.is_some_and(|part| is(part, b';')) {
                // Nothing between commas (RFC 5322 §4.4, `obs-mbox-list`).
                read.tricks.insert(Trick::Syntax);
            }
            rest = more.get(1..).unwrap_or_default();
        }
        if read.domains.len() > 1 {
            read.tricks.insert(Trick::SeveralAddresses);
        }
        read
    }

    /// Whether a name has an address in it that is not of this domain, of one above or one below.
    pub(crate) fn names_another_than(&self, author: &str) -> bool {
        self.names.iter().any(|name| addressed(name).any(|domain| !is_related(&domain, author)))
    }

    fn tokens<'a>(&mut self, value: &'a [u8]) -> Vec<Token<'a>> {
        let mut tokens = Vec::with_capacity(16);
        let (mut at, mut behind) = (0, Behind::Nothing);
        while let Some(octet) = value.get(at) {
            let start = at;
            at += 1;
            let kind = match octet {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    behind = if behind == Behind::Comment { behind } else { Behind::Space };
                    continue;
                }
                b'(' => {
                    let (text, end) = self.until(value, at, b')');
                    self.names.push(readable(&text));
                    (at, behind) = (end, Behind::Comment);
                    continue;
                }
                b'"' => {
                    let (text, end) = self.until(value, at, b'"');
                    at = end;
                    Kind::Quoted(text)
                }
                b'[' => {
                    let (_, end) = self.until(value, at, b']');
                    at = end;
                    Kind::Literal(&value[start..end])
                }
                special if is_special(*special) => Kind::Special(*special),
                octet if octet.is_ascii_control() || *octet == b'\\' => {
                    // A quoted pair where none may be, or what no field has.
                    self.tricks.insert(Trick::Syntax);
                    continue;
                }
                _ => {
                    let ends = |octet: &u8| {
                        is_special(*octet)
                            || octet.is_ascii_control()
                            || matches!(octet, b' ' | b'(' | b'"' | b'[' | b'\\')
                    };
                    at = value[start..].iter().position(ends).map_or(value.len(), |len| start + len);
                    Kind::Atom(&value[start..at])
                }
            };
            tokens.push(Token { kind, behind });
            behind = Behind::Nothing;
        }
        tokens
    }

    /// The text from here to an end that is no part of a quoted pair, and where it goes on. Comments may hold comments.
    fn until(&mut self, value: &[u8], from: usize, close: u8) -> (Vec<u8>, usize) {
        let (mut text, mut depth, mut at) = (Vec::new(), 0_usize, from);
        while let Some(octet) = value.get(at) {
            at += 1;
            match octet {
                b'\\' => {
                    text.extend(value.get(at));
                    at += 1;
                    continue;
                }
                b'(' if close == b')' => depth += 1,
                octet if *octet == close && depth == 0 => return (text, at),
                octet if *octet == close => depth -= 1,
                // A fold is no part of the text (RFC 5322 §3.2.2).
                b'\r' | b'\n' => continue,
                _ => {}
            }
            text.push(*octet);
        }
        self.tricks.insert(Trick::Syntax);
        (text, value.len())
    }

    /// `name-addr` or `addr-spec`.
    fn mailbox(&mut self, tokens: &[Token<'_>]) {
        let special = |special| move |token: &Token<'_>| token.kind == Kind::Special(special);
        let Some(open) = tokens.iter().position(special(b'<')) else {
            self.address(tokens);
            return;
        };
        let (phrase, rest) = (&tokens[..open], &tokens[open + 1..]);
        self.name(phrase);
        let close = rest.iter().position(special(b'>'));
        let inner = &rest[..close.unwrap_or(rest.len())];
        // Nothing may follow, and nothing be within twice.
        if close.is_none_or(|close| close + 1 < rest.len()) {
            self.tricks.insert(Trick::Syntax);
        }
        let odd = |token: &Token<'_>| matches!(token.kind, Kind::Special(special) if !matches!(special, b'.' | b'@'));
        if phrase.iter().any(odd) {
            self.tricks.insert(Trick::Syntax);
        }
        match inner.iter().rposition(special(b':')) {
            Some(colon) if matches!(inner.first(), Some(first) if special(b'@')(first)) => {
                self.tricks.insert(Trick::Route);
                self.address(&inner[colon + 1..]);
            }
            Some(_) | None => self.address(inner),
        }
    }

    /// A phrase, as a reader shows it.
    fn name(&mut self, tokens: &[Token<'_>]) {
        let text = phrase(tokens);
        if !text.is_empty() {
            self.names.push(readable(&text));
        }
    }

    /// `local-part "@" domain`, without anything between its parts.
    fn address(&mut self, tokens: &[Token<'_>]) {
        let is_at = |token: &&Token<'_>| token.kind == Kind::Special(b'@');
        let parted = tokens.iter().skip(1).any(|token| token.behind != Behind::Nothing);
        let mut is_good = !parted && tokens.iter().filter(is_at).count() == 1;
        let at = tokens.iter().rposition(|token| is_at(&token));
        let (local_part, domain) = tokens.split_at(at.unwrap_or(tokens.len()));
        let domain = domain.get(1..).unwrap_or_default();
        let is_encoded = |octets: &[u8]| octets.starts_with(b"=?") || octets.ends_with(b"?=");
        is_good &= is_dotted(local_part, |kind| match kind {
            Kind::Atom(octets) => !is_encoded(octets),
            Kind::Quoted(_) => true,
            Kind::Literal(_) | Kind::Special(_) => false,
        });
        let literal = matches!(domain, [Token { kind: Kind::Literal(_), .. }]);
        is_good &=
            literal || is_dotted(domain, |kind| matches!(kind, Kind::Atom(octets) if !is_encoded(octets)));
        if !is_good {
            self.tricks.insert(Trick::Syntax);
        }
        // What a careless reader takes for the address, or for its end.
        let hides = |token: &Token<'_>| matches!(&token.kind, Kind::Quoted(text) if text.iter().any(|octet| matches!(octet, b'@' | b'<' | b'>' | b',') || octet.is_ascii_control()));
        if local_part.iter().any(hides) {
            self.tricks.insert(Trick::AddressInAddress);
        }
        let mut text = Vec::new();
        for token in domain {
            match &token.kind {
                Kind::Atom(octets) | Kind::Literal(octets) => text.extend_from_slice(octets),
                Kind::Quoted(octets) => text.extend_from_slice(octets),
                Kind::Special(octet) => text.push(*octet),
            }
        }
        if !text.is_empty() {
            self.domains.push(String::from_utf8_lossy(&text).into_owned());
        }
    }
}

/// Whether this is words and dots alone that show no address.
fn is_words(tokens: &[Token<'_>]) -> bool {
    let is_word = |token: &Token<'_>| matches!(token.kind, Kind::Atom(_) | Kind::Special(b'.'));
    !tokens.is_empty() && tokens.iter().all(is_word) && !readable(&phrase(tokens)).contains(is_at)
}

/// The text of a phrase, not yet decoded.
fn phrase(tokens: &[Token<'_>]) -> Vec<u8> {
    let mut text = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        if i > 0 && token.behind != Behind::Nothing {
            text.push(b' ');
        }
        match &token.kind {
            Kind::Atom(octets) | Kind::Literal(octets) => text.extend_from_slice(octets),
            Kind::Quoted(octets) => text.extend_from_slice(octets),
            Kind::Special(octet) => text.push(*octet),
        }
    }
    text
}

/// Words with dots between them.
fn is_dotted(tokens: &[Token<'_>], is_word: impl Fn(&Kind<'_>) -> bool) -> bool {
    tokens.len() % 2 == 1
        && tokens.iter().enumerate().all(|(i, token)| match i % 2 {
            0 => is_word(&token.kind),
            _ => token.kind == Kind::Special(b'.'),
        })
}

/// What is neither text nor begins a comment, a quoted string or a literal (RFC 5322 §3.2.3, `specials`).
const fn is_special(octet: u8) -> bool {
    matches!(octet, b'<' | b'>' | b'@' | b',' | b';' | b':' | b'.' | b')' | b']')
}

/// What is an at sign in any script: fullwidth and small, too.
const fn is_at(c: char) -> bool {
    matches!(c, '@' | '\u{ff20}' | '\u{fe6b}')
}

/// What looks like a dot.
const DOTS: [char; 5] = ['\u{3002}', '\u{ff0e}', '\u{ff61}', '\u{2024}', '\u{fe52}'];

/// The domains of what looks like addresses in a text.
fn addressed(text: &str) -> impl Iterator<Item = String> + use<> {
    let text: String = text.chars().filter(|c| !is_ignorable(*c)).collect();
    let places: Vec<_> = text.match_indices(is_at).map(|(place, at)| (place, at.len())).collect();
    places.into_iter().filter_map(move |(place, at)| {
        let before = text[..place].chars().next_back()?;
        let behind = &text[place + at..];
        let is_of_domain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.') || DOTS.contains(&c);
        let end = behind.find(|c| !is_of_domain(c)).unwrap_or(behind.len());
        let domain = behind[..end].replace(DOTS, ".");
        let domain = domain.trim_matches('.');
        (!before.is_whitespace() && domain.contains('.')).then(|| domain.to_lowercase())
    })
}

/// Whether one of these is the other, or lies below it.
pub(crate) fn is_related(one: &str, other: &str) -> bool {
    let name = |text: &str| Name::parse(text).ok();
    let (Some(one), Some(other)) = (name(one), name(other)) else { return false };
    one.is_within(other.as_str()) || other.is_within(one.as_str())
}

#[cfg(test)]
#[path = "mailboxes_test.rs"]
mod test;
