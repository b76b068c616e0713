//! Reports that come to an address for them: what others tell us of mail that bore our names (DMARC, RFC 9990 and
//! 7489), of TLS with our hosts (RFC 8460), and of single messages that failed (RFC 6591, 9991).
//!
//! Anybody can write to such an address, and anything: [`read`] makes facts of a message within [`Limits`], says
//! why it cannot where it cannot, and believes nothing. Who has sent it, as far as that is proven, is another
//! matter ([`proven`]).
//!
//! ```text
//!  message ─▶ parts ─▶ unpacked (gzip, zip) ─▶ XML: DMARC · JSON: TLS
//!                  └─▶ message/feedback-report: a failure
//! ```

mod aggregate;
mod failure;
mod proof;
mod smtp_tls;
mod summary;
mod unpack;

use std::{fmt, net::IpAddr};

use bytes::Bytes;
use mail::{Domain, Timestamp};
use message::content;
use serde::{Deserialize, Serialize};

pub use self::{
    proof::{Proof, proven},
    summary::{
        FailureLine, Grouping, MessageLine, PolicyLine, ReporterLine, SourceLine, Summary, SummaryLimits,
        Summing,
    },
};
use crate::parts::{self, Fields, Part};

/// What a message was that came to an address for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A report on mail that bore the name of a domain (DMARC aggregate report).
    Dmarc,
    /// A report on TLS with the hosts of a domain.
    Tls,
    /// A report on a single message that failed.
    Failure,
    /// None that could be read: the message itself is kept.
    Unread,
}

/// A report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Who says that he has written it.
    pub organization: Box<str>,
    /// Whom he says to ask.
    pub contact: Box<str>,
    /// What he knows it by; empty where he says nothing.
    pub id: Box<str>,
    /// The domain that it is about, in lower case.
    pub domain: Box<str>,
    /// The first moment that it is about.
    pub begin: Timestamp,
    /// The last.
    pub end: Timestamp,
    /// What it tells.
    pub told: Told,
}

/// What a report tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// Of mail that bore the name.
    Dmarc(Aggregate),
    /// Of TLS with the hosts, policy by policy.
    Tls(Vec<PolicyResults>),
    /// Of one message, or several that are alike.
    Failure(Box<Failure>),
}

/// A DMARC aggregate report (RFC 9990 §3.1, RFC 7489 appendix C).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Aggregate {
    /// The record that was found, by tag: `p`, `sp`, `np`, `adkim`, `aspf`, `pct`, `fo`, `testing`.
    pub policy: Vec<(Box<str>, Box<str>)>,
    /// What went wrong for whoever reports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Box<str>>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Messages of rows for which there was no room.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: u64,
    /// Rows that make no sense.
    #[serde(skip_serializing_if = "is_zero")]
    pub malformed: u64,
}

/// Messages that are told of as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Who brought them.
    pub source: IpAddr,
    /// How many.
    pub count: u64,
    /// What became of them: `none`, `pass`, `quarantine`, `reject`.
    pub disposition: Box<str>,
    /// Whether a signature stood by the author.
    pub dkim: bool,
    /// Whether SPF did.
    pub spf: bool,
    /// Why the policy was not followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// The author's domain.
    pub header_from: Box<str>,
    /// The domain of the reverse-path.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub envelope_from: Box<str>,
    /// The domain of the recipients, where it is told.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub envelope_to: Box<str>,
    /// Signatures, DMARC aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Signature>,
    /// What SPF said, DMARC aside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub senders: Vec<Sender>,
}

/// Why a policy was not followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// By what: `forwarded`, `local_policy`, `mailing_list`, `sampled_out`, …
    pub kind: Box<str>,
    /// In words.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub comment: Box<str>,
}

/// What a signature says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// `d=`
    pub domain: Box<str>,
    /// `s=`
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub selector: Box<str>,
    /// The result (RFC 8601 §2.7.1).
    pub result: Box<str>,
    /// Why it is that.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Box<str>,
}

/// What SPF says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// Of which domain.
    pub domain: Box<str>,
    /// `mfrom` or `helo`.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub scope: Box<str>,
    /// The result (RFC 8601 §2.7.2).
    pub result: Box<str>,
    /// Why it is that.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Box<str>,
}

/// How TLS went by one policy (RFC 8460 §4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyResults {
    /// `tlsa`, `sts`, or `no-policy-found`.
    pub kind: Box<str>,
    /// The policy, line by line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<Box<str>>,
    /// The hosts that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mx: Vec<Box<str>>,
    /// Sessions that kept to it.
    pub successes: u64,
    /// Sessions that did not.
    pub failures: u64,
    /// These in detail.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<FailureDetails>,
}

/// Sessions that failed alike (RFC 8460 §4.3, §4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureDetails {
    /// The result type.
    pub result: Box<str>,
    /// From which address.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub from: Box<str>,
    /// To which host.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub host: Box<str>,
    /// As what the host introduced itself.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub helo: Box<str>,
    /// To which address.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub to: Box<str>,
    /// How many.
    pub count: u64,
    /// More about it.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub information: Box<str>,
    /// The error, in words.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Box<str>,
}

/// A message that failed (RFC 6591 §3, RFC 9991 §4).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// What failed: `dmarc`, `spf`, `signature`, `bodyhash`, `revoked`, `adsp`.
    pub auth_failure: Box<str>,
    /// What became of it: `delivered`, `spam`, `policy`, `reject`, `other`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub delivery_result: Box<str>,
    /// `none`, `dkim`, `spf`, or both: what did not stand by the author (RFC 9991 §4.1).
    #[serde(skip_serializing_if = "str::is_empty")]
    pub alignment: Box<str>,
    /// From where it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// How many of such there were.
    pub incidents: u64,
    /// The domain of the signature.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub dkim_domain: Box<str>,
    /// Its selector.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub dkim_selector: Box<str>,
    /// The reverse-path.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub mail_from: Box<str>,
    /// What the host that reports has found (RFC 8601).
    #[serde(skip_serializing_if = "str::is_empty")]
    pub results: Box<str>,
    /// The author, as the message says.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub author: Box<str>,
    /// The subject of the message.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub subject: Box<str>,
    /// Its Message-ID.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub message_id: Box<str>,
}

/// What is kept of a report, or of a message that is none, beside what it tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// By which it is asked for.
    pub key: Box<str>,
    /// What it is.
    pub kind: Kind,
    /// The domain that it is about.
    pub domain: Box<str>,
    /// Who says that he has written it.
    pub organization: Box<str>,
    /// Whom he says to ask.
    pub contact: Box<str>,
    /// What he knows it by.
    pub id: Box<str>,
    /// The first moment that it is about (RFC 3339).
    pub begin: Box<str>,
    /// The last.
    pub end: Box<str>,
    /// Messages, or sessions, that it is about.
    pub messages: u64,
    /// Those of them that did not pass.
    pub failed: u64,
    /// The domain whose mail it came by, as far as that was proven; empty where it was not.
    pub reporter: Box<str>,
    /// By what that was proven.
    pub proof: Proof,
    /// The author of that mail.
    pub from: Box<str>,
    /// When it came.
    pub received: Box<str>,
    /// The queue id that it came by; empty where it came by HTTPS.
    pub mail: Box<str>,
    /// Why it could not be read.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Box<str>,
}

/// Upper bounds of what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of a message.
    pub mail_max: usize,
    /// Octets of what is packed in it, when it is unpacked: all parts together.
    pub expanded_max: usize,
    /// Rows of a report; failures of one on TLS that are told in detail.
    pub rows_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { mail_max: 16 << 20, expanded_max: 32 << 20, rows_max: 100_000 }
    }
}

/// Why there is no report in a message, or none that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It is none.
    #[error("there is no report in it")]
    NoReport,
    /// It, or what is packed in it, has too many octets.
    #[error("it is too large: {0}")]
    TooLarge(&'static str),
    /// It is packed in a way that cannot be undone.
    #[error("it cannot be unpacked: {0}")]
    Archive(&'static str),
    /// It is no XML or JSON.
    #[error("it is not written as it should be: {0}")]
    Syntax(String),
    /// It asks for what nobody is given: a document type, or entities.
    #[error("it has a document type or entities, which nobody needs for a report")]
    Entities,
    /// It is no report by what it says.
    #[error("it makes no sense: {0}")]
    Content(&'static str),
    /// It is about a domain that we want no reports on.
    #[error("it is about {0}, on which no reports are wanted")]
    Foreign(String),
    /// It is about a time that is over for us, or not there yet.
    #[error("it is about a time for which no reports are kept")]
    Period,
}

impl Unread {
    /// One word, for logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoReport => "no-report",
            Self::TooLarge(_) => "too-large",
            Self::Archive(_) => "archive",
            Self::Syntax(_) => "syntax",
            Self::Entities => "entities",
            Self::Content(_) => "content",
            Self::Foreign(_) => "foreign",
            Self::Period => "period",
        }
    }
}

impl Kind {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dmarc => "dmarc",
            Self::Tls => "tls",
            Self::Failure => "failure",
            Self::Unread => "unread",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Dmarc, Self::Tls, Self::Failure, Self::Unread].into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Report {
    /// As it is to be kept that has come at that time: one on a failure that does not say when the message came says this.
    #[must_use]
    pub fn came(mut self, at: Timestamp) -> Self {
        if self.end == Timestamp(0) && self.told.kind() == Kind::Failure {
            (self.begin, self.end) = (at, at);
        }
        self
    }
}

impl Told {
    /// What kind of report tells this.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Dmarc(_) => Kind::Dmarc,
            Self::Tls(_) => Kind::Tls,
            Self::Failure(_) => Kind::Failure,
        }
    }

    /// How many messages, or sessions, it is about, and how many of them did not pass.
    pub fn counts(&self) -> (u64, u64) {
        let sum = |sum: u64, count: u64| sum.saturating_add(count);
        match self {
            Self::Dmarc(aggregate) => {
                let all = aggregate.rows.iter().map(|row| row.count).fold(aggregate.more, sum);
                let failed = aggregate.rows.iter().filter(|row| !row.passed()).map(|row| row.count);
                (all, failed.fold(0, sum))
            }
            Self::Tls(policies) => {
                let failed = policies.iter().map(|policy| policy.failures).fold(0, sum);
                (policies.iter().map(|policy| policy.successes).fold(failed, sum), failed)
            }
            Self::Failure(failure) => (failure.incidents, failure.incidents),
        }
    }
}

impl Aggregate {
    /// Leaves the rows alone that are about mail of this domain, or of one below it.
    pub fn only(&mut self, domain: &str) {
        self.rows.retain(|row| is_within(&row.header_from, domain));
        // Of these nobody knows.
        self.more = 0;
    }
}

impl Row {
    /// Whether DMARC passed.
    pub const fn passed(&self) -> bool {
        self.dkim || self.spf
    }
}

/// Whether a name is that of a domain, or below it.
pub fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Reports of one message that are read.
const REPORTS_MAX: usize = 16;
/// No report is about longer: they are about a day, some about a week.
const PERIOD_MAX: u64 = 100 * 86_400;

/// The reports in a message: mostly one. What stands beside one that is none is passed over.
///
/// # Errors
/// Why there is none, when there is none.
pub fn read(message: &[Bytes], limits: &Limits) -> Result<Vec<Report>, Unread> {
    if content::len(message) > limits.mail_max {
        return Err(Unread::TooLarge("the message"));
    }
    let octets = content::gather(message, 0..limits.mail_max);
    let (fields, parts) = parts::of(&octets);
    if let Some(part) = parts.iter().find(|part| part.kind == "message/feedback-report") {
        return failure::read(part, &parts, &fields).map(|report| vec![report]);
    }
    let (mut reports, mut wrong, mut budget) = (Vec::new(), None, limits.expanded_max);
    for part in &parts {
        match read_part(part, &mut budget, limits) {
            Ok(found) => {
                reports.extend(found);
                reports.truncate(REPORTS_MAX);
            }
            Err(Unread::NoReport) => {}
            Err(error) => {
                wrong.get_or_insert(error);
            }
        }
    }
    match (reports.is_empty(), wrong) {
        (false, _) => Ok(reports),
        (true, wrong) => Err(wrong.unwrap_or(Unread::NoReport)),
    }
}

/// The reports on TLS in what was posted by HTTPS (RFC 8460 §3): mostly one. It is JSON, packed or not.
///
/// # Errors
/// Why there is none.
pub fn read_posted(octets: Vec<u8>, limits: &Limits) -> Result<Vec<Report>, Unread> {
    let mut budget = limits.expanded_max;
    let mut reports = Vec::new();
    for document in unpack::unpack(octets, &mut budget)? {
        let text = unpack::text(document);
        if text.trim_start().starts_with('{') {
            reports.extend(smtp_tls::read(text.trim_start(), limits)?);
            reports.truncate(REPORTS_MAX);
        }
    }
    if reports.is_empty() { Err(Unread::NoReport) } else { Ok(reports) }
}

fn read_part(part: &Part<'_>, budget: &mut usize, limits: &Limits) -> Result<Vec<Report>, Unread> {
    // Words for people are no report, unless they say so with their first ones.
    let is_prose = matches!(part.kind.as_str(), "text/plain" | "text/html");
    let octets = part.octets(limits.mail_max);
    let mut reports = Vec::new();
    for document in unpack::unpack(octets, budget)? {
        let text = unpack::text(document);
        let start = text.trim_start();
        if start.starts_with("<?xml") || start.starts_with("<feedback") || !is_prose && start.starts_with('<')
        {
            reports.push(aggregate::read(start, limits)?);
        } else if start.starts_with('{') {
            reports.extend(smtp_tls::read(start, limits)?);
        }
    }
    if reports.is_empty() { Err(Unread::NoReport) } else { Ok(reports) }
}

/// The author of a message, as its header section says.
pub fn author(header: &[u8]) -> Box<str> {
    let (fields, _) = Fields::read(header);
    clean(fields.get("from").unwrap_or_default(), NAME_MAX)
}

/// A period makes sense.
fn period(begin: u64, end: u64) -> Result<(Timestamp, Timestamp), Unread> {
    if begin > end || end - begin > PERIOD_MAX {
        return Err(Unread::Content("its period"));
    }
    Ok((Timestamp::from_secs(begin), Timestamp::from_secs(end)))
}

/// A domain, in lower case and without the dot at its end.
fn domain(text: &str) -> Option<Box<str>> {
    let text = text.trim().trim_end_matches('.').to_lowercase();
    Domain::parse(&text).ok().map(|_| text.into())
}

/// Characters of a name or a word, of an address or a domain, and of a sentence, that are kept.
const WORD_MAX: usize = 64;
const NAME_MAX: usize = 255;
const TEXT_MAX: usize = 300;

/// A value in one line, cut, with nothing in it that could leave a line.
fn clean(value: &str, max: usize) -> Box<str> {
    let mut line = String::new();
    for word in value.split_whitespace() {
        if line.len() >= max {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().take(max).map(|c| if c.is_control() { '?' } else { c }));
    }
    line.truncate(line.floor_char_boundary(max));
    line.into()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
#[path = "received_test.rs"]
mod test;
