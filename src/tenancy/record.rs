//! An entry of a suppression list: as a line of the log on disk, and as a line for people to import and export.
//!
//! ```text
//!  log     1f0c9a7e + 1764387000000000 1772163000 bounce shop - ann@example.org 0G00000000A1C
//!          CRC-32C of what follows · + or - · when (µs) · until (s, or -) · reason · tenant · list · address · note
//!  people  ann@example.org <TAB> bounce <TAB> 2026-02-27T03:30:00Z <TAB> news <TAB> note      (the address is enough)
//! ```
//!
//! Octets that would end a field or a line are written as % and two hexadecimal digits. A log line is there as a whole or it is
//! not there: what a crash has left of one fails its sum.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use mail::{Address, Domain, ListId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

/// Why somebody is on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// Mail was refused for good, or came back.
    Bounce,
    /// The recipient complained.
    Complaint,
    /// The recipient left.
    Unsubscribe,
    /// An operator wants it.
    Manual,
}

/// Whose list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The tenant, by its name; `*` for all.
    pub tenant: Box<str>,
    /// One of its lists; empty for all mail of the tenant.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub list: Box<str>,
}

/// Who is on a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Whom {
    /// Written as it is: `ann@example.org`.
    Address(Address),
    /// All of a domain: `@example.org`.
    Domain(Domain),
}

/// What is neither an address nor a domain behind an @.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither an address such as ann@example.org nor a domain such as @example.org")]
pub struct WhomError;

/// Somebody on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// On which.
    pub scope: Scope,
    /// Who.
    pub whom: Whom,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub since: Timestamp,
    /// Until when; none: for ever.
    pub until: Option<Timestamp>,
    /// What is known beside: a queue id, a word of the operator. Up to [`NOTE_MAX`] octets.
    pub note: Box<str>,
}

/// A change of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Somebody is on it from now on.
    Add(Entry),
    /// Somebody is not on it any more.
    Remove {
        /// Of which.
        scope: Scope,
        /// Who.
        whom: Whom,
        /// Since when.
        at: Timestamp,
    },
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine(pub Change);

/// A line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryLine {
    /// Who.
    pub whom: Whom,
    /// Why; by hand, when nothing was written.
    pub reason: Option<Reason>,
    /// Until when, when that was written.
    pub until: Option<Timestamp>,
    /// One of the tenant's lists; empty for all.
    pub list: Box<str>,
    /// What was noted.
    pub note: Box<str>,
}

/// What is no line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no record of a suppression list")]
pub struct LogLineError;

/// What is no line for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It does not begin with an address or a domain.
    #[error("{0:?} is neither an address nor a domain such as @example.org")]
    Whom(String),
    /// The second word is none of the reasons.
    #[error("{0:?} is no reason: bounce, complaint, unsubscribe or manual")]
    Reason(String),
    /// The third is no time.
    #[error("{0:?} is no time such as 2026-02-27T03:30:00Z, and no -")]
    Until(String),
    /// There is more than that.
    #[error("more than address, reason, time, list and note")]
    Rest,
}

/// Octets of a note.
pub const NOTE_MAX: usize = 200;
/// Octets of a name of a tenant or a list.
const NAME_MAX: usize = 200;

impl Reason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bounce, Self::Complaint, Self::Unsubscribe, Self::Manual];

    /// As it is written everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bounce => "bounce",
            Self::Complaint => "complaint",
            Self::Unsubscribe => "unsubscribe",
            Self::Manual => "manual",
        }
    }

    /// One that is written so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    pub(crate) const fn number(self) -> u32 {
        self as u32
    }

    pub(crate) const fn of_number(number: u32) -> Self {
        match number {
            0 => Self::Bounce,
            1 => Self::Complaint,
            2 => Self::Unsubscribe,
            _ => Self::Manual,
        }
    }
}

impl Scope {
    /// What stands for all tenants.
    pub const ALL: &str = "*";

    /// All mail of a tenant.
    pub fn tenant(name: &str) -> Self {
        Self { tenant: name.into(), list: "".into() }
    }

    /// The tenant, by its hash.
    pub fn tenant_id(&self) -> TenantId {
        TenantId::of(&self.tenant)
    }

    /// The list, by its hash.
    pub fn list_id(&self) -> ListId {
        ListId::of(&self.list)
    }
}

impl Whom {
    /// The domain, or that of the address.
    pub fn domain_str(&self) -> &str {
        match self {
            Self::Address(address) => address.domain_str(),
            Self::Domain(domain) => domain.as_str(),
        }
    }
}

impl FromStr for Whom {
    type Err = WhomError;

    fn from_str(text: &str) -> Result<Self, WhomError> {
        match text.strip_prefix('@') {
            Some(domain) => Domain::parse(domain).map(Self::Domain).map_err(|_| WhomError),
            None => text.parse().map(Self::Address).map_err(|_| WhomError),
        }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => f.write_str(address.as_str()),
            Self::Domain(domain) => write!(f, "@{}", domain.as_str()),
        }
    }
}

impl Change {
    /// On which list.
    pub const fn scope(&self) -> &Scope {
        match self {
            Self::Add(entry) => &entry.scope,
            Self::Remove { scope, .. } => scope,
        }
    }

    /// Who.
    pub const fn whom(&self) -> &Whom {
        match self {
            Self::Add(entry) => &entry.whom,
            Self::Remove { whom, .. } => whom,
        }
    }

    /// When.
    pub const fn at(&self) -> Timestamp {
        match self {
            Self::Add(entry) => entry.since,
            Self::Remove { at, .. } => *at,
        }
    }
}

impl LogLine {
    /// The longest line: an address, two names and a note, in which every octet is written as three.
    pub const LEN_MAX: usize = 100 + 3 * (254 + 2 * NAME_MAX + NOTE_MAX);

    /// Writes it, with the end of the line.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let text = match &self.0 {
            Change::Add(entry) => {
                let Entry { scope, whom, reason, since, until, note } = entry;
                let until = until.map_or_else(|| "-".to_owned(), |until| until.secs().to_string());
                format!(
                    "+ {} {until} {} {} {} {} {}",
                    since.0,
                    reason.as_str(),
                    Field(cut(&scope.tenant, NAME_MAX)),
                    Field(cut(&scope.list, NAME_MAX)),
                    Field(&whom.to_string()),
                    Field(cut(note, NOTE_MAX)),
                )
            }
            Change::Remove { scope, whom, at } => format!(
                "- {} - - {} {} {} -",
                at.0,
                Field(cut(&scope.tenant, NAME_MAX)),
                Field(cut(&scope.list, NAME_MAX)),
                Field(&whom.to_string()),
            ),
        };
        let sum = crc32c::crc32c(text.as_bytes());
        out.extend_from_slice(format!("{sum:08x} {text}\n").as_bytes());
    }

    /// Reads a line without its end.
    ///
    /// # Errors
    /// [`LogLineError`] when anything of it is not as it was written.
    pub fn parse(line: &[u8]) -> Result<Self, LogLineError> {
        let (sum, text) = line.split_at_checked(8).ok_or(LogLineError)?;
        let text = text.strip_prefix(b" ").ok_or(LogLineError)?;
        let sum = std::str::from_utf8(sum).map_err(|_| LogLineError)?;
        if u32::from_str_radix(sum, 16) != Ok(crc32c::crc32c(text)) {
            return Err(LogLineError);
        }
        let text = std::str::from_utf8(text).map_err(|_| LogLineError)?;
        let mut words = text.split(' ');
        let mut next = || words.next().ok_or(LogLineError);
        let [op, at, until, reason, tenant, list, whom, note] =
            [next()?, next()?, next()?, next()?, next()?, next()?, next()?, next()?];
        if words.next().is_some() {
            return Err(LogLineError);
        }
        let at = Timestamp(at.parse().map_err(|_| LogLineError)?);
        let scope = Scope { tenant: unescaped(tenant)?, list: unescaped(list)? };
        let whom = unescaped(whom)?.parse().map_err(|_| LogLineError)?;
        match op {
            "+" => {
                let until = match until {
                    "-" => None,
                    secs => Some(Timestamp::from_secs(secs.parse().map_err(|_| LogLineError)?)),
                };
                let reason = Reason::parse(reason).ok_or(LogLineError)?;
                let note = unescaped(note)?;
                Ok(Self(Change::Add(Entry { scope, whom, reason, since: at, until, note })))
            }
            "-" => Ok(Self(Change::Remove { scope, whom, at })),
            _ => Err(LogLineError),
        }
    }
}

impl EntryLine {
    /// Reads a line; none for an empty one and for a remark (`#`).
    ///
    /// # Errors
    /// [`LineError`].
    pub fn parse(line: &str) -> Result<Option<Self>, LineError> {
        let line = line.trim_end_matches(['\r', '\n']);
        if line.trim().is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let mut words = line.split('\t').map(str::trim);
        let shown = |word: &str| word.chars().take(100).collect::<String>();
        let whom = words.next().unwrap_or_default();
        let whom = whom.parse().map_err(|_| LineError::Whom(shown(whom)))?;
        let given =
            |word: Option<&str>| word.filter(|word| !word.is_empty() && *word != "-").map(str::to_owned);
        let reason = match given(words.next()) {
            None => None,
            Some(word) => Some(Reason::parse(&word).ok_or_else(|| LineError::Reason(shown(&word)))?),
        };
        let until = match given(words.next()) {
            None => None,
            Some(word) => Some(Timestamp::from_rfc3339(&word).ok_or_else(|| LineError::Until(shown(&word)))?),
        };
        let list = given(words.next()).unwrap_or_default();
        let note = given(words.next()).unwrap_or_default();
        if words.next().is_some() {
            return Err(LineError::Rest);
        }
        let (list, note) = (cut(&list, NAME_MAX).into(), clean_note(&note));
        Ok(Some(Self { whom, reason, until, list, note }))
    }
}

impl From<&Entry> for EntryLine {
    fn from(entry: &Entry) -> Self {
        Self {
            whom: entry.whom.clone(),
            reason: Some(entry.reason),
            until: entry.until,
            list: entry.scope.list.clone(),
            note: entry.note.clone(),
        }
    }
}

impl fmt::Display for EntryLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = self.until.map_or_else(|| "-".to_owned(), Timestamp::to_rfc3339);
        let reason = self.reason.map_or("-", Reason::as_str);
        let word = |text: &str| {
            let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            if text.trim().is_empty() { "-".to_owned() } else { text }
        };
        write!(f, "{}\t{reason}\t{until}\t{}\t{}", self.whom, word(&self.list), word(&self.note))
    }
}

/// A note that is of use in a line: without control characters, and not too long.
pub fn clean_note(text: &str) -> Box<str> {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(clean.trim(), NOTE_MAX).into()
}

/// As much as fits, and no part of a character.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// A field of a log line.
struct Field<'a>(&'a str);

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_char('-');
        }
        let alone = self.0 == "-";
        for c in self.0.chars() {
            if c <= ' ' || c == '%' || c == '\u{7f}' || alone {
                write!(f, "%{:02x}", u32::from(c))?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

fn unescaped(field: &str) -> Result<Box<str>, LogLineError> {
    if field == "-" {
        return Ok("".into());
    }
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('%') {
        text += before;
        let digits = after.get(..2).ok_or(LogLineError)?;
        let octet = u8::from_str_radix(digits, 16).map_err(|_| LogLineError)?;
        if !octet.is_ascii() {
            return Err(LogLineError);
        }
        text.push(octet.into());
        rest = &after[2..];
    }
    text += rest;
    Ok(text.into())
}

#[cfg(test)]
mod test {
    use super::*;

    fn entry(address: &str, list: &str, until: Option<u64>, note: &str) -> Entry {
        Entry {
            scope: Scope { tenant: "a shop".into(), list: list.into() },
            whom: address.parse().unwrap(),
            reason: Reason::Bounce,
            since: Timestamp(1_764_387_000_123_456),
            until: until.map(Timestamp::from_secs),
            note: note.into(),
        }
    }

    #[test]
    fn log_lines_are_read_as_they_were_written() {
        let remove = Change::Remove {
            scope: Scope::tenant(Scope::ALL),
            whom: "\"a b%\"@example.org".parse().unwrap(),
            at: Timestamp(7),
        };
        for change in [
            Change::Add(entry("ann@example.org", "", None, "")),
            Change::Add(entry("\"a \\\" b\"@example.org", "new s\t%", Some(5), "-")),
            Change::Add(entry("@Example.org", "", None, "")),
            Change::Add(entry("änne@exämple.org", "-", Some(0), "a note\nof two lines")),
            remove,
        ] {
            let mut line = Vec::new();
            LogLine(change.clone()).write_to(&mut line);
            let text = String::from_utf8(line.clone()).unwrap();
            assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "{text:?}");
            line.pop();
            assert_eq!(LogLine::parse(&line), Ok(LogLine(change)), "{text}");
            // Torn anywhere, or with an octet of something else in it, it is none.
            for at in 0..line.len() {
                assert_eq!(LogLine::parse(&line[..at]), Err(LogLineError));
                let mut other = line.clone();
                other[at] ^= 0x55;
                assert_eq!(LogLine::parse(&other), Err(LogLineError), "{at}");
            }
        }
    }

    #[test]
    fn the_longest_line_is_as_long_as_we_say() {
        let long = "%".repeat(1000);
        let name = format!("{}@example.org", "%".repeat(242));
        let mut line = Vec::new();
        let scope = Scope { tenant: long.as_str().into(), list: long.as_str().into() };
        let entry = Entry { scope, ..entry(&name, "", Some(u64::MAX / 2_000_000), &long) };
        LogLine(Change::Add(Entry { since: Timestamp(u64::MAX), ..entry })).write_to(&mut line);
        assert!(line.len() <= LogLine::LEN_MAX, "{}", line.len());
        line.pop();
        assert!(LogLine::parse(&line).is_ok());
    }

    #[test]
    fn lines_for_people() {
        let parse = |line: &str| EntryLine::parse(line);
        let bare = parse("ann@example.org").unwrap().unwrap();
        assert_eq!((bare.reason, bare.until, &*bare.list), (None, None, ""));
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("# a remark"), Ok(None));
        let whole = "ann@example.org\tcomplaint\t2026-02-27T03:30:00Z\tnews\twhat was said\r\n";
        let read = parse(whole).unwrap().unwrap();
        assert_eq!(read.reason, Some(Reason::Complaint));
        assert_eq!(read.to_string(), whole.trim_end());
        assert_eq!(parse("ann"), Err(LineError::Whom("ann".into())));
        assert_eq!(parse("ann@example.org\tbored"), Err(LineError::Reason("bored".into())));
        assert_eq!(parse("ann@example.org\t-\tsoon"), Err(LineError::Until("soon".into())));
        assert_eq!(parse("ann@example.org\t-\t-\t-\t-\t-"), Err(LineError::Rest));
        let odd = entry("ann@example.org", "x\ty", None, "a\nb");
        let line = EntryLine::from(&odd).to_string();
        assert_eq!(&*parse(&line).unwrap().unwrap().list, "x y");
    }
}
