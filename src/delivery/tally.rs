//! How TLS went with the hosts of each domain, counted for the reports that domains ask for (RFC 8460).

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use dns::Name;

use crate::{
    dane::DaneHost,
    sts::{FetchFailure, Policy, PolicyError},
};

/// Counts by the domain that mail was for. Each shard has one, and whoever reports puts them together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    domains: HashMap<Name, Vec<PolicyTally>>,
    /// Sessions that found no room here.
    pub untold: u64,
}

/// How it went by one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTally {
    /// Which.
    pub policy: Reported,
    /// Sessions that kept to it.
    pub successes: u64,
    /// Sessions that did not.
    pub failures: u64,
    /// These in detail.
    pub details: Vec<(Detail, u64)>,
}

/// A policy as it is reported (RFC 8460 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// TLSA records of this host; none when they could not be had.
    Tlsa(Name, Vec<Box<str>>),
    /// The policy of this domain; none when it could not be had.
    Sts(Name, Option<Arc<Policy>>),
    /// Neither.
    NotFound(Name),
}

/// A failure, with what is the same each time (RFC 8460 §4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// What went wrong.
    pub result: TlsResult,
    /// Which of our addresses it went out from, when a route says.
    pub from: Option<IpAddr>,
    /// The host.
    pub host: Option<Box<str>>,
    /// Its address.
    pub to: Option<IpAddr>,
    /// In our words.
    pub reason: Option<Box<str>>,
}

/// Result types (RFC 8460 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsResult {
    /// "the recipient MX did not support STARTTLS".
    StartTlsNotSupported,
    /// The certificate is for others.
    CertificateHostMismatch,
    /// It is too old, or not yet valid.
    CertificateExpired,
    /// Nobody believed has issued it.
    CertificateNotTrusted,
    /// Anything else.
    ValidationFailure,
    /// None of the TLSA records is of use.
    TlsaInvalid,
    /// The TLSA records cannot be had, or are bogus.
    DnssecInvalid,
    /// We want TLSA records, and there are none.
    DaneRequired,
    /// The policy cannot be had.
    StsPolicyFetchError,
    /// What was had is none.
    StsPolicyInvalid,
    /// The host that has it cannot be trusted.
    StsWebpkiInvalid,
}

/// What an attempt found out before there was a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// By which policy.
    pub policy: Reported,
    /// What.
    pub detail: Detail,
}

/// Domains that are counted for; a report is for those that mail went to in a day.
const DOMAINS_MAX: usize = 10_000;
/// Policies of a domain: each host with records has its own, and policies change.
const POLICIES_MAX: usize = 16;
/// Kinds of failure that are told apart by one policy.
const DETAILS_MAX: usize = 32;

impl Tally {
    /// A session kept to the policy.
    pub fn succeeded(&mut self, domain: &Name, policy: Reported) {
        if let Some(tally) = self.of(domain, policy, 1) {
            tally.successes += 1;
        }
    }

    /// A session did not, or there could be none.
    pub fn failed(&mut self, domain: &Name, policy: Reported, detail: Detail) {
        if let Some(tally) = self.of(domain, policy, 1) {
            tally.add(detail, 1);
        }
    }

    /// What another shard has counted.
    pub fn merge(&mut self, other: Self) {
        self.untold += other.untold;
        for (domain, policies) in other.domains {
            for policy in policies {
                self.add(&domain, policy);
            }
        }
    }

    /// How it went by one policy of a domain, as somebody else has counted it.
    pub fn add(&mut self, domain: &Name, other: PolicyTally) {
        let PolicyTally { policy, successes, failures, details } = other;
        if let Some(tally) = self.of(domain, policy, successes + failures) {
            tally.successes += successes;
            let told: u64 = details.iter().map(|(_, count)| count).sum();
            tally.failures += failures - told;
            details.into_iter().for_each(|(detail, count)| tally.add(detail, count));
        }
    }

    /// Each policy of each domain, in no order.
    pub fn domains(&self) -> impl Iterator<Item = (&Name, &PolicyTally)> {
        self.domains.iter().flat_map(|(domain, policies)| policies.iter().map(move |policy| (domain, policy)))
    }

    /// Nobody wants to know of a domain any more.
    pub fn remove(&mut self, domain: &Name) {
        self.domains.remove(domain);
    }

    /// Each domain and its policies, in the order of their names.
    pub fn into_domains(self) -> Vec<(Name, Vec<PolicyTally>)> {
        let mut domains: Vec<_> = self.domains.into_iter().collect();
        domains.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        domains
    }

    fn of(&mut self, domain: &Name, policy: Reported, sessions: u64) -> Option<&mut PolicyTally> {
        let is_full = self.domains.len() >= DOMAINS_MAX && !self.domains.contains_key(domain);
        let policies = if is_full { None } else { Some(self.domains.entry(domain.clone()).or_default()) };
        let place = policies.as_ref().and_then(|all| all.iter().position(|tally| tally.policy == policy));
        match (policies, place) {
            (Some(policies), Some(place)) => policies.get_mut(place),
            (Some(policies), None) if policies.len() < POLICIES_MAX => {
                policies.push(PolicyTally { policy, successes: 0, failures: 0, details: Vec::new() });
                policies.last_mut()
            }
            (Some(_) | None, _) => {
                self.untold += sessions;
                None
            }
        }
    }
}

impl PolicyTally {
    fn add(&mut self, detail: Detail, count: u64) {
        self.failures += count;
        let is_full = self.details.len() >= DETAILS_MAX;
        match self.details.iter_mut().find(|(known, _)| *known == detail) {
            Some((_, known)) => *known += count,
            // They count, and are not told apart.
            None if is_full => {}
            None => self.details.push((detail, count)),
        }
    }
}

impl Reported {
    /// The records of a host, as they stand in a zone.
    pub fn records(host: &DaneHost) -> Self {
        Self::Tlsa(host.base.clone(), host.records.iter().map(|record| record.to_string().into()).collect())
    }
}

impl TlsResult {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::StartTlsNotSupported,
        Self::CertificateHostMismatch,
        Self::CertificateExpired,
        Self::CertificateNotTrusted,
        Self::ValidationFailure,
        Self::TlsaInvalid,
        Self::DnssecInvalid,
        Self::DaneRequired,
        Self::StsPolicyFetchError,
        Self::StsPolicyInvalid,
        Self::StsWebpkiInvalid,
    ];

    /// One that [`Self::as_str`] spells so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|result| result.as_str() == text)
    }

    /// As the RFC spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StartTlsNotSupported => "starttls-not-supported",
            Self::CertificateHostMismatch => "certificate-host-mismatch",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateNotTrusted => "certificate-not-trusted",
            Self::ValidationFailure => "validation-failure",
            Self::TlsaInvalid => "tlsa-invalid",
            Self::DnssecInvalid => "dnssec-invalid",
            Self::DaneRequired => "dane-required",
            Self::StsPolicyFetchError => "sts-policy-fetch-error",
            Self::StsPolicyInvalid => "sts-policy-invalid",
            Self::StsWebpkiInvalid => "sts-webpki-invalid",
        }
    }

    /// Why there is no policy.
    pub const fn of_fetch(failure: &FetchFailure) -> Self {
        match failure {
            FetchFailure::Fetch(_) => Self::StsPolicyFetchError,
            FetchFailure::Certificate(_) => Self::StsWebpkiInvalid,
            FetchFailure::Invalid(
                PolicyError::TooLong
                | PolicyError::Text
                | PolicyError::Line
                | PolicyError::Version
                | PolicyError::Mode
                | PolicyError::MaxAge
                | PolicyError::Mx,
            ) => Self::StsPolicyInvalid,
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn detail(result: TlsResult, host: &str) -> Detail {
        Detail { result, from: None, host: Some(host.into()), to: None, reason: None }
    }

    #[test]
    fn shards_are_put_together() {
        let name = |text: &str| Name::parse(text).unwrap();
        let none = || Reported::NotFound(name("a.test"));
        let records = || Reported::Tlsa(name("mx.a.test"), vec!["3 1 1 07".into()]);
        let (mut one, mut two) = (Tally::default(), Tally::default());
        one.succeeded(&name("a.test"), none());
        one.failed(&name("a.test"), records(), detail(TlsResult::ValidationFailure, "mx.a.test"));
        two.succeeded(&name("a.test"), records());
        two.failed(&name("a.test"), records(), detail(TlsResult::ValidationFailure, "mx.a.test"));
        two.failed(&name("a.test"), records(), detail(TlsResult::StartTlsNotSupported, "mx.a.test"));
        two.succeeded(&name("b.test"), Reported::Sts(name("b.test"), None));
        one.merge(two);
        let domains = one.into_domains();
        assert_eq!(domains.len(), 2);
        let [plain, dane] = &domains[0].1[..] else { panic!("{domains:?}") };
        assert_eq!((plain.successes, plain.failures), (1, 0));
        assert_eq!((dane.successes, dane.failures), (1, 3));
        assert_eq!(dane.details.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn the_crowd_is_bounded() {
        let name = |text: String| Name::parse(&text).unwrap();
        let mut tally = Tally::default();
        let domain = name("a.test".into());
        for number in 0..POLICIES_MAX + 5 {
            let policy = Reported::NotFound(name(format!("{number}.test")));
            for place in 0..DETAILS_MAX + 5 {
                let host = format!("{place}.test");
                tally.failed(&domain, policy.clone(), detail(TlsResult::ValidationFailure, &host));
            }
        }
        assert_eq!(tally.untold, 5 * (DETAILS_MAX as u64 + 5));
        let mut all = Tally::default();
        all.merge(tally);
        let policies = &all.into_domains()[0].1;
        assert_eq!(policies.len(), POLICIES_MAX);
        assert!(policies.iter().all(|tally| tally.failures == DETAILS_MAX as u64 + 5), "{policies:?}");
    }
}
