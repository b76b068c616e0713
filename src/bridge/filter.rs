//! Whom a question or a change is about.

use std::{fmt, str::FromStr, time::Duration};

use mail::{Address, Category, QueueId, ReversePath, StatusPattern};
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
    /// Bound for this site, by its name in listings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Mail of this tenant; of nobody in particular with an empty name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Of the `[[campaign]]` of this name; where there is none, of messages that say this themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign: Option<Box<str>>,
    /// In this class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Class>,
    /// Received so long ago, or longer.
    #[serde(with = "text::option", skip_serializing_if = "Option::is_none")]
    pub older_than: Option<Age>,
    /// Received since then.
    #[serde(with = "text::option", skip_serializing_if = "Option::is_none")]
    pub younger_than: Option<Age>,
    /// Deferred with such a status the last time.
    #[serde(with = "text::option", skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusPattern>,
    /// What the last refusal was about.
    #[serde(with = "text::option", skip_serializing_if = "Option::is_none")]
    pub category: Option<Category>,
    /// Stands in the last reply, whatever the case of its letters, as far as replies are kept in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Box<str>>,
    /// Stands in the Subject field as it is written, whatever the case of its letters. Each message that the other fields
    /// leave is read for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Box<str>>,
    /// Whose Subject field has this hash, for who must not see subjects. Each message that the other fields leave is read for it.
    #[serde(with = "text::option", skip_serializing_if = "Option::is_none")]
    pub subject_hash: Option<SubjectHash>,
}

/// The beginning of the SHA-256 of a Subject field, as it is written, its lines made one: 8 to 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectHash(Box<str>);

/// The text is not such a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "write 8 to 64 hexadecimal digits, from the left, of the subject's SHA-256: printf %s 'The subject' | sha256sum"
)]
pub struct SubjectHashError;

/// A class of mail (RFC 6710).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Somebody said that it is urgent.
    Urgent,
    /// Somebody waits for it.
    Normal,
    /// Nobody waits for it.
    Bulk,
}

/// How old something is: `45s`, `90m`, `2h`, `3d`, `1w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age(pub Duration);

/// The text is not an age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an age as a number and a unit: 45s, 90m, 2h, 3d or 1w")]
pub struct AgeError;

/// Whom a change is about. All of the queue must be asked for by name, not by leaving things out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selector {
    /// Every recipient in the queue.
    All,
    /// The recipients that match.
    Matching(Box<Filter>),
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

    /// Whether a message has to be read to know whether it is meant: the queue knows addresses and subjects not.
    pub fn reads_messages(&self) -> bool {
        let by_subject = self.subject.is_some() || self.subject_hash.is_some();
        self.sender.is_some() || self.recipient.is_some() || by_subject || self.reply.is_some()
    }
}

impl SubjectHash {
    /// Whether a whole hash begins so.
    pub fn matches(&self, hash: &[u8]) -> bool {
        let digits = hash.iter().flat_map(|octet| [octet >> 4, octet & 15]);
        let mut digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
        self.0.chars().all(|wanted| digits.next() == Some(wanted))
    }
}

impl FromStr for SubjectHash {
    type Err = SubjectHashError;

    fn from_str(text: &str) -> Result<Self, SubjectHashError> {
        let is_one = (8..=64).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_hexdigit());
        is_one.then(|| Self(text.to_ascii_lowercase().into())).ok_or(SubjectHashError)
    }
}

impl fmt::Display for SubjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Class {
    /// The word for it, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }
}

impl From<queue::Priority> for Class {
    fn from(priority: queue::Priority) -> Self {
        match priority {
            queue::Priority::Urgent => Self::Urgent,
            queue::Priority::Normal => Self::Normal,
            queue::Priority::Bulk => Self::Bulk,
        }
    }
}

impl From<Class> for queue::Priority {
    fn from(class: Class) -> Self {
        match class {
            Class::Urgent => Self::Urgent,
            Class::Normal => Self::Normal,
            Class::Bulk => Self::Bulk,
        }
    }
}

impl FromStr for Age {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let unit = text.char_indices().next_back().ok_or(AgeError)?;
        let seconds: u64 = match unit.1 {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return Err(AgeError),
        };
        let number = &text[..unit.0];
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AgeError);
        }
        let number: u64 = number.parse().map_err(|_| AgeError)?;
        number.checked_mul(seconds).map(|seconds| Self(Duration::from_secs(seconds))).ok_or(AgeError)
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs())
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

    /// Whether an address of that domain may match.
    pub fn may_match_in(&self, domain: &str) -> bool {
        match self {
            Self::Null => false,
            Self::Address(wanted) => wanted.rsplit_once('@').is_none_or(|(_, wanted)| same(wanted, domain)),
            Self::Domain(_) | Self::Below(_) => self.matches_domain(domain),
        }
    }

    fn matches_domain(&self, domain: &str) -> bool {
        match self {
            Self::Null | Self::Address(_) => false,
            Self::Domain(wanted) => same(wanted, domain),
            Self::Below(wanted) => {
                let start = domain.len().checked_sub(wanted.len());
                start.and_then(|start| domain.get(start..)).is_some_and(|end| same(wanted, end))
            }
        }
    }

    /// Whether an address matches.
    pub fn matches(&self, address: &Address) -> bool {
        match self {
            // Looser than RFC 5321 §2.4, for operators: the local-part is compared without its case too.
            Self::Address(wanted) => same(wanted, address.as_str()),
            Self::Null | Self::Domain(_) | Self::Below(_) => self.matches_domain(address.domain_str()),
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
            let pattern = pattern.parse::<Pattern>().unwrap();
            assert_eq!(pattern.matches(&ann), matches, "{pattern}");
            assert!(pattern.may_match_in("mail.example.ORG") || !matches, "{pattern}");
            assert!(!pattern.may_match_in("example.net"), "{pattern}");
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
    fn ages_are_read_and_written() {
        for (text, secs) in [("0s", 0), ("90m", 5_400), ("2h", 7_200), ("3d", 259_200), ("1w", 604_800)] {
            let age: Age = text.parse().unwrap();
            assert_eq!((age.0.as_secs(), age.to_string().parse()), (secs, Ok(age)));
        }
        for text in
            ["", "s", "5", "-5s", "+5s", "1.5h", "5 m", "5é", "99999999999999999999s", "99999999999999999w"]
        {
            assert_eq!(text.parse::<Age>(), Err(AgeError), "{text:?}");
        }
    }

    #[test]
    fn hashes_of_subjects() {
        let hash = |text: &str| text.parse::<SubjectHash>();
        for wrong in ["", "0123456", &"0".repeat(65), "0123456g", "0123456\u{e9}"] {
            assert_eq!(hash(wrong), Err(SubjectHashError), "{wrong}");
        }
        let octets = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
        assert!(
            hash("01234567").unwrap().matches(&octets) && hash("0123456789ABCDEF").unwrap().matches(&octets)
        );
        assert!(!hash("01234568").unwrap().matches(&octets));
        // More than there is.
        assert!(!hash("0123456789abcdef0").unwrap().matches(&octets));
    }

    #[test]
    fn json_and_back() {
        let json =
            r#"{"matching":{"id":"0000000000001","sender":"<>","recipient":"example.org","state":"held"}}"#;
        let selector: Selector = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&selector).unwrap(), json);
        assert_eq!(serde_json::to_string(&Selector::All).unwrap(), r#""all""#);
        let json = r#"{"matching":{"site":"site:google","tenant":"","priority":"bulk","older_than":"7200s","status":"4.2.*","category":"quota","reply":"full"}}"#;
        let selector: Selector = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&selector).unwrap(), json);
        for bad in [r#"{"matching":{"sender":"a b"}}"#, r#"{"matching":{"to":"x"}}"#, "{}", r#""every""#] {
            assert!(serde_json::from_str::<Selector>(bad).is_err(), "{bad}");
        }
    }
}
