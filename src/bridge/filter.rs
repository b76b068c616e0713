//! Whom a question or a change is about.

use std::{fmt, str::FromStr};

use mail::{Address, QueueId, ReversePath};
use serde::{Deserialize, Serialize};

use crate::{State, text};

/// Which entries of the queue; what is `None` lets everything pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Of this message.
    #[serde(with = "text::option", skip_serializing_if = "Option::is_none")]
    pub id: Option<QueueId>,
    /// Whose reverse-path matches.
    #[serde(with = "text::option", skip_serializing_if = "Option::is_none")]
    pub sender: Option<Pattern>,
    /// With a recipient that matches; other recipients of the message are not meant.
    #[serde(with = "text::option", skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Pattern>,
    /// Bound for this destination, by its name in listings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// In this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
}

/// Whom a change is about. All of the queue must be asked for by name, not by leaving things out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selector {
    /// Every recipient in the queue.
    All,
    /// The recipients that match.
    Matching(Filter),
}

/// What an address may be asked to match: `ann@example.org`, all of `example.org`, all below
/// `.example.org`, or the null reverse-path `<>`. Case does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// The null reverse-path.
    Null,
    /// One address.
    Address(Box<str>),
    /// Every address of a domain.
    Domain(Box<str>),
    /// Every address of the domains below one, with the leading dot.
    Below(Box<str>),
}

/// The text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write an address (ann@example.org), a domain (example.org), the domains below it (.example.org) or <>"
)]
pub struct PatternError;

impl Filter {
    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Pattern {
    /// Whether a reverse-path matches.
    pub fn matches_reverse_path(&self, path: &ReversePath) -> bool {
        match path {
            ReversePath::Null => matches!(self, Self::Null),
            ReversePath::Address(address) => self.matches(address),
        }
    }

    /// Whether an address matches.
    pub fn matches(&self, address: &Address) -> bool {
        let domain = address.domain_str();
        match self {
            Self::Null => false,
            // Looser than RFC 5321 §2.4, for operators: the local-part is compared without its case too.
            Self::Address(wanted) => same(wanted, address.as_str()),
            Self::Domain(wanted) => same(wanted, domain),
            Self::Below(wanted) => {
                let start = domain.len().checked_sub(wanted.len());
                start.and_then(|start| domain.get(start..)).is_some_and(|end| same(wanted, end))
            }
        }
    }
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | ',');
        match text {
            "<>" => Ok(Self::Null),
            _ if text.is_empty() || text.len() > TEXT_MAX || text.contains(bad) => Err(PatternError),
            _ => match text.rsplit_once('@') {
                Some(("", domain)) if !domain.is_empty() => Ok(Self::Domain(domain.into())),
                Some((_, "") | ("", _)) => Err(PatternError),
                Some(_) => Ok(Self::Address(text.into())),
                None if text == "." => Err(PatternError),
                None if text.starts_with('.') => Ok(Self::Below(text.into())),
                None => Ok(Self::Domain(text.into())),
            },
        }
    }
}

/// No address is longer: local-part 64, at sign, domain 255 (RFC 5321 §4.5.3.1).
const TEXT_MAX: usize = 320;

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Address(text) | Self::Domain(text) | Self::Below(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn patterns_match() {
        let ann = Address::parse(b"Ann@Mail.Example.org").unwrap();
        for (pattern, matches) in [
            ("ann@mail.example.org", true),
            ("mail.example.org", true),
            ("@MAIL.example.org", true),
            (".example.org", true),
            (".mail.example.org", false),
            ("example.org", false),
            ("bob@mail.example.org", false),
            ("<>", false),
            (".a.very.long.name.that.is.longer.than.the.domain.example.org", false),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().matches(&ann), matches, "{pattern}");
        }
        assert!(Pattern::Null.matches_reverse_path(&ReversePath::Null));
        assert!(!Pattern::Domain("example.org".into()).matches_reverse_path(&ReversePath::Null));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "@", "ann@", ".", "a b", "<ann@example.org>", "a\n", &"a".repeat(321)] {
            assert_eq!(text.parse::<Pattern>(), Err(PatternError), "{text:?}");
        }
    }

    #[test]
    fn json_and_back() {
        let json =
            r#"{"matching":{"id":"0000000000001","sender":"<>","recipient":"example.org","state":"held"}}"#;
        let selector: Selector = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&selector).unwrap(), json);
        assert_eq!(serde_json::to_string(&Selector::All).unwrap(), r#""all""#);
        for bad in [r#"{"matching":{"sender":"a b"}}"#, r#"{"matching":{"to":"x"}}"#, "{}", r#""every""#] {
            assert!(serde_json::from_str::<Selector>(bad).is_err(), "{bad}");
        }
    }
}
