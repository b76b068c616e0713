//! What domains are told of the mail that bore their name: DMARC aggregate reports (RFC 9990), counted and written, and failure reports (RFC 9991).

mod failure;
mod feedback;

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
};

pub use failure::{DeliveryResult, FailedSignature, Failure, FailureKind, FailureReport, Unaligned};
pub use feedback::Feedback;
use serde::{Deserialize, Serialize};

/// Counts by the domain whose policy applies. Each shard has one, and whoever reports puts them together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// What is beyond them has no place here.
    pub limits: Limits,
    domains: HashMap<Box<str>, DomainTally>,
    size: usize,
    /// Messages of domains that found no room here.
    pub untold: u64,
}

/// Upper bounds of a tally; by default there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Domains.
    pub domains_max: usize,
    /// Rows of each.
    pub rows_max: usize,
    /// Octets of memory for all of it, about.
    pub size_max: usize,
}

/// What was counted for one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainTally {
    /// The record that applied last.
    pub published: Published,
    rows: HashMap<Row, u64>,
    /// Messages that are in no row, since there were too many.
    pub untold: u64,
}

/// The record of a domain, as reports repeat it (RFC 9990 §3.1.1.5), and where it wants them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// `p=`
    pub policy: Policy,
    /// `sp=`
    pub subdomains: Policy,
    /// `np=`
    pub nonexistent: Policy,
    /// `adkim=`
    pub dkim_mode: Mode,
    /// `aspf=`
    pub spf_mode: Mode,
    /// Whether there is `t=y`.
    pub testing: bool,
    /// `fo=`
    pub failure_options: String,
    /// `rua=`: addresses of mail, in order.
    pub to: Vec<Destination>,
}

/// Where reports are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The address.
    pub address: String,
    /// Larger ones are not wanted (RFC 7489 §6.2).
    pub size_max: Option<u64>,
}

/// Messages that are told as one, since they have all of this in common (RFC 9990 §3.1.1.7).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Who brought them.
    pub source: IpAddr,
    /// What became of them.
    pub disposition: Disposition,
    /// Whether a signature stood by the author.
    pub dkim_aligned: bool,
    /// Whether SPF did.
    pub spf_aligned: bool,
    /// Why that is not what the policy asks for.
    pub reasons: Vec<Reason>,
    /// The author's domain.
    pub header_from: Box<str>,
    /// The domain of the reverse-path; empty where that is null.
    pub envelope_from: Box<str>,
    /// Signatures, the best first.
    pub dkim: Vec<Signature>,
    /// SPF for the reverse-path.
    pub spf: Spf,
}

/// Why the policy was not followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// By what.
    pub kind: Override,
    /// In words.
    pub comment: Box<str>,
}

/// What a signature says, DMARC aside.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// `d=`
    pub domain: Box<str>,
    /// `s=`
    pub selector: Box<str>,
    /// The result.
    pub result: AuthResult,
    /// Why it is that.
    pub reason: Option<Box<str>>,
}

/// What SPF says, DMARC aside.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spf {
    /// Of which domain.
    pub domain: Box<str>,
    /// The result.
    pub result: AuthResult,
    /// Why it is that.
    pub reason: Option<Box<str>>,
}

/// Words of the schema: an enum, how each value is spelled, and what it means.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$value_doc])* #[serde(rename = $word)] $value,)+
        }

        impl $name {
            /// As the schema of RFC 9990 appendix A has it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }
    };
}

words! {
    /// What a domain asks for.
    Policy {
        /// Nothing.
        None = "none",
        /// To hold what fails in doubt.
        Quarantine = "quarantine",
        /// To refuse it.
        Reject = "reject",
    }
}

words! {
    /// How close domains must be.
    Mode {
        /// Of the same organization.
        Relaxed = "r",
        /// The same.
        Strict = "s",
    }
}

words! {
    /// What became of messages.
    Disposition {
        /// They were taken.
        None = "none",
        /// They were taken, and passed a policy that asks for more than nothing.
        Pass = "pass",
        /// They were taken and held.
        Quarantine = "quarantine",
        /// They were refused.
        Reject = "reject",
    }
}

words! {
    /// What overrides a policy.
    Override {
        /// What the operator here has chosen.
        LocalPolicy = "local_policy",
        /// Something else, which the comment says.
        Other = "other",
        /// The domain only tries it out.
        PolicyTestMode = "policy_test_mode",
        /// Somebody who is believed has passed the message on.
        TrustedForwarder = "trusted_forwarder",
    }
}

words! {
    /// A result of SPF or DKIM (RFC 8601 §2.7).
    AuthResult {
        /// There is nothing to be said.
        None = "none",
        /// It is good.
        Pass = "pass",
        /// It is not.
        Fail = "fail",
        /// It probably is not.
        SoftFail = "softfail",
        /// It is not of the kind we accept.
        Policy = "policy",
        /// It says neither.
        Neutral = "neutral",
        /// It could not be told.
        TempError = "temperror",
        /// It cannot be told.
        PermError = "permerror",
    }
}

/// Octets that a row, or a domain, takes beside what it says.
const ENTRY_SIZE: usize = 160;

impl Default for Limits {
    fn default() -> Self {
        Self { domains_max: usize::MAX, rows_max: usize::MAX, size_max: usize::MAX }
    }
}

impl Tally {
    /// A message; says whether there was room for it.
    pub fn count(&mut self, domain: &str, published: &Published, row: Row) -> bool {
        self.add_row(domain, published, row, 1)
    }

    /// What another shard has counted, or another process: its limits are newer, and so are its records.
    pub fn merge(&mut self, other: Self) {
        self.limits = other.limits;
        self.untold = self.untold.saturating_add(other.untold);
        for (domain, tally) in other.domains {
            self.add_untold(&domain, &tally.published, tally.untold);
            for (row, count) in tally.rows {
                self.add_row(&domain, &tally.published, row, count);
            }
        }
    }

    /// So many messages of one row, as somebody else has counted them; says whether there was room.
    pub fn add_row(&mut self, domain: &str, published: &Published, mut row: Row, count: u64) -> bool {
        let Limits { rows_max, size_max, .. } = self.limits;
        if self.of(domain, published).is_none() {
            self.untold = self.untold.saturating_add(count);
        }
        let used = self.size;
        let Some(tally) = self.domains.get_mut(domain) else { return false };
        if tally.rows.len() >= rows_max / 2 && !tally.rows.contains_key(&row) {
            // Whoever forges mail writes into it what he likes: from here on only what nobody can make up tells rows apart.
            row.dkim.retain(|signature| signature.result == AuthResult::Pass);
        }
        let is_full = tally.rows.len() >= rows_max;
        let size = row.size();
        match tally.rows.entry(row) {
            Entry::Occupied(mut known) => {
                *known.get_mut() = known.get().saturating_add(count);
                true
            }
            Entry::Vacant(place) if !is_full && used.saturating_add(size) <= size_max => {
                place.insert(count);
                self.size += size;
                true
            }
            Entry::Vacant(_) => {
                tally.untold = tally.untold.saturating_add(count);
                false
            }
        }
    }

    /// So many messages of a domain that are in no row.
    pub fn add_untold(&mut self, domain: &str, published: &Published, count: u64) {
        match self.of(domain, published) {
            Some(tally) => tally.untold = tally.untold.saturating_add(count),
            None => self.untold += count,
        }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty() && self.untold == 0
    }

    /// Each domain, in no order.
    pub fn domains(&self) -> impl Iterator<Item = (&str, &DomainTally)> {
        self.domains.iter().map(|(domain, tally)| (&**domain, tally))
    }

    /// What was counted for a domain.
    pub fn get(&self, domain: &str) -> Option<&DomainTally> {
        self.domains.get(domain)
    }

    /// A domain was told.
    pub fn remove(&mut self, domain: &str) {
        if let Some((domain, tally)) = self.domains.remove_entry(domain) {
            let rows: usize = tally.rows.keys().map(Row::size).sum();
            self.size -= rows + domain_size(&domain);
        }
    }

    /// Each domain and its counts, in the order of their names.
    pub fn into_domains(self) -> Vec<(Box<str>, DomainTally)> {
        let mut domains: Vec<_> = self.domains.into_iter().collect();
        domains.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        domains
    }

    fn of(&mut self, domain: &str, published: &Published) -> Option<&mut DomainTally> {
        if !self.domains.contains_key(domain) {
            let size = self.size.saturating_add(domain_size(domain));
            let is_full = self.domains.len() >= self.limits.domains_max || size > self.limits.size_max;
            // Names that no host has are nobody's who reads reports.
            if is_full || !feedback::is_plain(domain) {
                return None;
            }
            self.size = size;
            let tally = DomainTally { published: published.clone(), rows: HashMap::new(), untold: 0 };
            self.domains.insert(domain.into(), tally);
        }
        let tally = self.domains.get_mut(domain)?;
        if tally.published != *published {
            tally.published = published.clone();
        }
        Some(tally)
    }
}

impl DomainTally {
    /// Rows and how many messages each is about, in an order that follows from what they say.
    pub fn rows(&self) -> Vec<(&Row, u64)> {
        let mut rows: Vec<_> = self.rows.iter().map(|(row, count)| (row, *count)).collect();
        rows.sort_unstable();
        rows
    }
}

/// A record is a few hundred octets at most: as long as text records that are read.
const fn domain_size(domain: &str) -> usize {
    const RECORD_SIZE: usize = 512;
    ENTRY_SIZE + RECORD_SIZE + domain.len()
}

impl Row {
    fn size(&self) -> usize {
        let reason = |reason: &Option<Box<str>>| reason.as_ref().map_or(0, |reason| reason.len());
        let signature = |signature: &Signature| {
            ENTRY_SIZE / 2 + signature.domain.len() + signature.selector.len() + reason(&signature.reason)
        };
        ENTRY_SIZE
            + self.header_from.len()
            + self.envelope_from.len()
            + self.reasons.iter().map(|reason| ENTRY_SIZE / 4 + reason.comment.len()).sum::<usize>()
            + self.dkim.iter().map(signature).sum::<usize>()
            + self.spf.domain.len()
            + reason(&self.spf.reason)
    }
}

#[cfg(test)]
#[path = "dmarc_test.rs"]
mod test;
