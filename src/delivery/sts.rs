//! MTA-STS: what a domain says about the hosts that take its mail (RFC 8461).
//!
//! A domain tells by a TXT record that it has a policy ([`record_id`]), and the policy by HTTPS ([`Policy::parse`]). Policies
//! are kept for as long as they say ([`Policies`]), since whoever could forge the DNS could as well leave the record out.

use std::{fmt, str};

use dns::Name;

mod policies;

pub use policies::{FetchFailure, Kept, Look, Policies, PoliciesLimits};

/// A policy (RFC 8461 §3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of mail for hosts that do not keep to it.
    pub mode: Mode,
    /// How long it holds, in seconds.
    pub max_age: u32,
    /// The hosts that take the domain's mail.
    pub mx: Vec<MxPattern>,
}

/// What becomes of mail for hosts that do not keep to the policy (RFC 8461 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is not sent there.
    Enforce,
    /// It is sent, and told of in reports.
    Testing,
    /// There is no policy any more.
    None,
}

/// Hosts that a policy names (RFC 8461 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MxPattern {
    /// This one.
    Host(Name),
    /// Those one label below.
    Below(Name),
}

/// Why a text is no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than [`Policy::SIZE_MAX`].
    #[error("the policy is too long")]
    TooLong,
    /// Not text, or with characters that no policy has.
    #[error("the policy is not text")]
    Text,
    /// A line without a colon, or with a key that is none.
    #[error("a line of the policy is not \"key: value\"")]
    Line,
    /// Not `STSv1`, or not said.
    #[error("the version of the policy is not STSv1")]
    Version,
    /// None of the three, or not said.
    #[error("the mode of the policy is not enforce, testing or none")]
    Mode,
    /// Not a number, or not said.
    #[error("the policy has no max_age")]
    MaxAge,
    /// Names no host, or something that is none.
    #[error("the policy has no mx, or one that is no host")]
    Mx,
}

/// The longest that a policy may hold (RFC 8461 §3.2): about a year.
const MAX_AGE_MAX: u32 = 31_557_600;
/// Nobody has more hosts than that, and each is compared.
const MX_MAX: usize = 1000;

/// The id of the policy that these TXT records of `_mta-sts.<domain>` announce, if they do (RFC 8461 §3.1).
pub fn record_id<T: AsRef<[u8]>>(texts: &[T]) -> Option<Box<str>> {
    // "If the number of resulting records is not one, […] senders MUST assume the recipient domain does not have an available
    // MTA-STS Policy" (RFC 8461 §3.1).
    let mut records = texts.iter().filter_map(|text| announced(text.as_ref()));
    let (Some(fields), None) = (records.next(), records.next()) else { return None };
    let mut id = None;
    let mut fields = fields.split(';').map(|field| field.trim_matches([' ', '\t'])).peekable();
    while let Some(field) = fields.next() {
        if field.is_empty() && fields.peek().is_none() {
            break;
        }
        let (name, value) = field.split_once('=')?;
        let is_name = |name: &str| {
            name.len() <= 32
                && name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if name == "id" {
            let fits = (1..=32).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric());
            if !fits {
                return None;
            }
            id.get_or_insert(value);
        } else if !is_name(name)
            || value.is_empty()
            || !value.bytes().all(|b| matches!(b, 0x21..=0x3a | 0x3c | 0x3e..=0x7e))
        {
            return None;
        }
    }
    id.map(Into::into)
}

/// What stands behind the version of a record.
fn announced(text: &[u8]) -> Option<&str> {
    let rest = text.strip_prefix(b"v=STSv1")?;
    let rest = rest.trim_ascii_start().strip_prefix(b";")?;
    str::from_utf8(rest).ok()
}

impl Policy {
    /// Octets that are read of a policy at most (RFC 8461 §3.3 suggests a limit of 64 KiB).
    pub const SIZE_MAX: usize = 64 << 10;

    /// Reads the body of an answer.
    ///
    /// # Errors
    /// [`PolicyError`] says what is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, PolicyError> {
        if body.len() > Self::SIZE_MAX {
            return Err(PolicyError::TooLong);
        }
        let text = str::from_utf8(body).map_err(|_| PolicyError::Text)?;
        let (mut version, mut mode, mut max_age, mut mx) = (None, None, None, Vec::new());
        for line in text.split('\n') {
            let line = line.strip_suffix('\r').unwrap_or(line).trim_end_matches([' ', '\t']);
            // Looser than RFC 8461 §3.2: files that end in an empty line are found, and mean no harm.
            if line.is_empty() {
                continue;
            }
            let (key, value) = line.split_once(':').ok_or(PolicyError::Line)?;
            let value = value.trim_start_matches([' ', '\t']);
            let is_key = key.len() <= 32
                && key.starts_with(|c: char| c.is_ascii_alphanumeric())
                && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
            if !is_key || value.is_empty() || value.chars().any(char::is_control) {
                return Err(PolicyError::Line);
            }
            // "all entries except for the first SHALL be ignored" (RFC 8461 §3.2), but for mx.
            match key {
                "version" => _ = version.get_or_insert(value),
                "mode" => _ = mode.get_or_insert(value),
                "max_age" => _ = max_age.get_or_insert(value),
                "mx" => mx.push(MxPattern::parse(value).ok_or(PolicyError::Mx)?),
                _ => {}
            }
            if mx.len() > MX_MAX {
                return Err(PolicyError::Mx);
            }
        }
        if version != Some("STSv1") {
            return Err(PolicyError::Version);
        }
        let mode = mode.and_then(Mode::parse).ok_or(PolicyError::Mode)?;
        let digits = |text: &&str| (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let max_age: u64 =
            max_age.filter(digits).and_then(|text| text.parse().ok()).ok_or(PolicyError::MaxAge)?;
        if mx.is_empty() && mode != Mode::None {
            return Err(PolicyError::Mx);
        }
        // Looser than RFC 8461 §3.2: who asks for longer has a year, and not nothing.
        let max_age = u32::try_from(max_age).map_or(MAX_AGE_MAX, |age| age.min(MAX_AGE_MAX));
        Ok(Self { mode, max_age, mx })
    }

    /// Whether this host may take the domain's mail.
    pub fn names(&self, host: &Name) -> bool {
        self.mx.iter().any(|pattern| pattern.is_for(host))
    }
}

impl Mode {
    /// As a policy spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Enforce, Self::Testing, Self::None].into_iter().find(|mode| mode.as_str() == text)
    }
}

impl MxPattern {
    fn parse(text: &str) -> Option<Self> {
        let is_host = |text: &str| {
            text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
                && !text.ends_with('.')
        };
        let (text, of): (_, fn(Name) -> Self) = match text.strip_prefix("*.") {
            Some(rest) => (rest, Self::Below),
            None => (text, Self::Host),
        };
        let name = Name::parse(text).ok()?;
        is_host(text).then(|| of(name))
    }

    /// A wildcard stands for one label, the left-most (RFC 8461 §4.1).
    fn is_for(&self, host: &Name) -> bool {
        match self {
            Self::Host(name) => name == host,
            Self::Below(parent) => {
                host.as_str().split_once('.').is_some_and(|(_, rest)| rest == parent.as_str())
            }
        }
    }
}

impl fmt::Display for MxPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => name.fmt(f),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

impl fmt::Display for Policy {
    /// As it stands in a file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version: STSv1\nmode: {}\n", self.mode.as_str())?;
        self.mx.iter().try_for_each(|pattern| writeln!(f, "mx: {pattern}"))?;
        writeln!(f, "max_age: {}", self.max_age)
    }
}

#[cfg(test)]
#[path = "sts_test.rs"]
mod test;
