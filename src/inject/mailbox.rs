//! Mailboxes as people write them: `Ann Example <ann@example.org>` (RFC 5322 §3.4).
//!
//! What can be read in more than one way is refused: who may send as whom is decided by what is read here.

use mail::Address;

/// An address, and the name it is shown with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mailbox {
    /// Empty when there is none.
    pub(crate) name: String,
    pub(crate) address: Address,
}

/// The text is not a mailbox, or not a list of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MailboxError {
    /// Nothing there.
    #[error("there is no address")]
    Missing,
    /// Not an address.
    #[error("{0:?} is no address: {1}")]
    Address(String, mail::AddressError),
    /// Something that does not end.
    #[error("a {0} does not end")]
    Open(&'static str),
    /// Something behind the address, or a character that needs quotes.
    #[error("{0:?} stands where it cannot; put a name with such characters in quotes")]
    Stray(char),
    /// More than one.
    #[error("there is more than one address")]
    Several,
}

/// Reads one mailbox.
pub(crate) fn one(text: &str) -> Result<Mailbox, MailboxError> {
    let mut all = list(text)?;
    let first = all.pop().ok_or(MailboxError::Missing)?;
    if all.is_empty() { Ok(first) } else { Err(MailboxError::Several) }
}

/// Reads a list of mailboxes and groups, as it stands in To. A group gives its members.
pub(crate) fn list(text: &str) -> Result<Vec<Mailbox>, MailboxError> {
    let mut scanner = Scanner { rest: text };
    let mut found = Vec::new();
    let mut group = Group::Outside;
    loop {
        let word = scanner.words()?;
        match scanner.next() {
            Some(':') if group == Group::Outside && word.address.is_none() => group = Group::Inside,
            Some(end @ (',' | ';')) => {
                word.finish(&mut found)?;
                if end == ';' {
                    if group == Group::Outside {
                        return Err(MailboxError::Stray(';'));
                    }
                    group = Group::Outside;
                }
            }
            Some(stray) => return Err(MailboxError::Stray(stray)),
            None if group == Group::Inside => return Err(MailboxError::Open("group")),
            None => {
                word.finish(&mut found)?;
                return Ok(found);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Outside,
    Inside,
}

struct Scanner<'a> {
    rest: &'a str,
}

/// What stands between two commas.
#[derive(Default)]
struct Words {
    /// The words as a name: quotes taken off, one space between two.
    name: String,
    /// The words as they are, for an address without angle brackets.
    raw: String,
    /// Whether white space or a comment stood between two.
    apart: bool,
    address: Option<Address>,
}

impl Words {
    fn finish(self, found: &mut Vec<Mailbox>) -> Result<(), MailboxError> {
        match self.address {
            Some(address) => found.push(Mailbox { name: self.name, address }),
            // Between two commas there may be nothing (RFC 5322 §4.4).
            None if self.raw.is_empty() => {}
            None if self.apart => return Err(MailboxError::Stray(' ')),
            None => found.push(Mailbox { name: String::new(), address: address(&self.raw)? }),
        }
        Ok(())
    }
}

impl Scanner<'_> {
    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        next
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Reads up to a comma, semicolon or colon, or to the end.
    fn words(&mut self) -> Result<Words, MailboxError> {
        let mut words = Words::default();
        loop {
            let gap = self.skip_white_space()?;
            let Some(next) = self.peek() else { return Ok(words) };
            if matches!(next, ',' | ';' | ':') {
                return Ok(words);
            }
            if words.address.is_some() {
                return Err(MailboxError::Stray(next));
            }
            if gap && !words.raw.is_empty() {
                words.apart = true;
                words.name.push(' ');
            }
            match next {
                '<' => {
                    self.next();
                    let inner = self.until('>')?;
                    words.address = Some(address(&inner)?);
                    words.name.truncate(words.name.trim_end().len());
                }
                '"' => {
                    self.next();
                    let before = self.rest;
                    let text = self.quoted()?;
                    let raw = &before[..before.len() - self.rest.len()];
                    words.name += &text;
                    words.raw.push('"');
                    words.raw += raw;
                }
                '[' => {
                    self.next();
                    let inner = self.until(']')?;
                    words.raw += &format!("[{inner}]");
                    words.name += &format!("[{inner}]");
                }
                '>' | ']' | ')' | '\\' => return Err(MailboxError::Stray(next)),
                // What is white space to Unicode alone is none here, and no part of an address either.
                odd if odd.is_control() || odd.is_whitespace() => return Err(MailboxError::Stray(odd)),
                _ => {
                    let special =
                        |c: char| c.is_whitespace() || c.is_control() || "<>[]()\\\",;:".contains(c);
                    let end = self.rest.find(special).unwrap_or(self.rest.len());
                    words.name += &self.rest[..end];
                    words.raw += &self.rest[..end];
                    self.rest = &self.rest[end..];
                }
            }
        }
    }

    /// The text up to a closing bracket; quotes within keep theirs.
    fn until(&mut self, close: char) -> Result<String, MailboxError> {
        let what = if close == '>' { "angle bracket" } else { "square bracket" };
        let mut text = String::new();
        let mut quoted = false;
        while let Some(next) = self.next() {
            match next {
                '\\' if quoted => {
                    text.push(next);
                    text.push(self.next().ok_or(MailboxError::Open("quoted string"))?);
                    continue;
                }
                '"' => quoted = !quoted,
                _ if next == close && !quoted => return Ok(text),
                _ => {}
            }
            text.push(next);
        }
        Err(MailboxError::Open(what))
    }

    fn quoted(&mut self) -> Result<String, MailboxError> {
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(MailboxError::Open("quoted string")),
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.next().ok_or(MailboxError::Open("quoted string"))?),
                Some(next) => text.push(next),
            }
        }
    }

    /// White space and comments; whether there was any.
    fn skip_white_space(&mut self) -> Result<bool, MailboxError> {
        let mut depth = 0_u32;
        let mut any = false;
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r' | '\n') => {}
                Some('(') => depth += 1,
                Some(')') if depth > 0 => depth -= 1,
                Some('\\') if depth > 0 => {
                    self.next();
                }
                Some(_) if depth > 0 => {}
                None if depth > 0 => return Err(MailboxError::Open("comment")),
                Some(_) | None => return Ok(any),
            }
            any = true;
            self.next();
        }
    }
}

fn address(text: &str) -> Result<Address, MailboxError> {
    if text.is_empty() {
        return Err(MailboxError::Missing);
    }
    Address::parse(text.as_bytes()).map_err(|error| MailboxError::Address(text.to_owned(), error))
}

#[cfg(test)]
mod test {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let found = list(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let found: Vec<_> = found.iter().map(|m| (m.name.as_str(), m.address.as_str())).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn mailboxes_are_read() {
        check("ann@example.org", &[("", "ann@example.org")]);
        check(" <ann@example.org> ", &[("", "ann@example.org")]);
        check("Ann Example <ann@example.org>", &[("Ann Example", "ann@example.org")]);
        check("\"Example, Ann\" <ann@example.org>", &[("Example, Ann", "ann@example.org")]);
        check(r#""A \"B\" C" <a@b.example>"#, &[("A \"B\" C", "a@b.example")]);
        check("\"ann smith\"@example.org", &[("", "\"ann smith\"@example.org")]);
        check("<\"a>b\"@example.org>", &[("", "\"a>b\"@example.org")]);
        check("ann@[192.0.2.1]", &[("", "ann@[192.0.2.1]")]);
        check("Ann <ann@[IPv6:2001:db8::1]>", &[("Ann", "ann@[ipv6:2001:db8::1]")]);
        check("Änne Ørsted <ann@example.org>", &[("Änne Ørsted", "ann@example.org")]);
        check("ann@example.org (Ann (really) Example)", &[("", "ann@example.org")]);
        check("a@b.example, C <c@d.example>,,", &[("", "a@b.example"), ("C", "c@d.example")]);
        check(
            "all: a@b.example, c@d.example;, e@f.example",
            &[("", "a@b.example"), ("", "c@d.example"), ("", "e@f.example")],
        );
        check("undisclosed-recipients:;", &[]);
        check("J. R. Doe <jr@example.org>", &[("J. R. Doe", "jr@example.org")]);
    }

    #[test]
    fn what_has_two_readings_has_none() {
        for text in [
            "ann@example.org <eve@example.net>x",
            "ann@example.org eve@example.net",
            "<ann@example.org> <eve@example.net>",
            "ann@example.org> <eve@example.net",
            "ann@ example.org",
            "a <b <c@d.example>>",
            "\"open <a@b.example>",
            "(open <a@b.example>",
            "a@b.example;",
            "group: a@b.example",
            "a: b: c@d.example;;",
            "ann",
            "<>",
            "@example.org",
            "Ann\u{0} <ann@example.org>",
            "a@b.example\u{2028}",
            "\\a@b.example",
        ] {
            assert!(list(text).is_err(), "{text:?}: {:?}", list(text));
        }
        // The name is no address, whatever it looks like.
        check("\"eve@example.net\" <ann@example.org>", &[("eve@example.net", "ann@example.org")]);
        assert_eq!(one("a@b.example, c@d.example"), Err(MailboxError::Several));
        assert_eq!(one(" "), Err(MailboxError::Missing));
    }
}
