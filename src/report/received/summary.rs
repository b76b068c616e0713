//! Who sends as a domain, and does it pass: reports put together.
//!
//! Rows of all reports are joined by what tells senders apart: where mail comes from, whose name it bears, and who
//! stands by it. Everything is bounded; what finds no place is counted as [`Summary::others`].

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

use super::{Aggregate, Failure, Head, PolicyResults, Told};

/// Reports put together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Reports that this is made of.
    pub reports: u64,
    /// The first moment that they are about; empty where there are none.
    pub begin: String,
    /// The last.
    pub end: String,
    /// Messages that DMARC reports are about.
    pub messages: u64,
    /// Those of them that passed.
    pub passed: u64,
    /// Sessions that TLS reports are about.
    pub sessions: u64,
    /// Those of them that failed.
    pub failed_sessions: u64,
    /// Who sends as the domain.
    pub sources: Vec<SourceLine>,
    /// Messages that are in none of these lines.
    pub others: u64,
    /// Who reports.
    pub reporters: Vec<ReporterLine>,
    /// How TLS went, by policy.
    pub policies: Vec<PolicyLine>,
    /// Messages that somebody was told of one by one.
    pub failures: Vec<MessageLine>,
    /// There are more reports than were looked at.
    pub cut: bool,
}

/// Mail that comes from one place, bears one name, and is stood by by the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceLine {
    /// An address, or a network.
    pub source: String,
    /// The author's domain.
    pub header_from: Box<str>,
    /// Domains of its signatures that are good, with commas between; five at most.
    pub dkim: Box<str>,
    /// The domain that SPF was asked of, where it passed.
    pub spf: Box<str>,
    /// Messages.
    pub messages: u64,
    /// Those that a signature stood by.
    pub dkim_aligned: u64,
    /// Those that SPF stood by.
    pub spf_aligned: u64,
    /// Those that passed DMARC by either.
    pub passed: u64,
    /// Those that did not.
    pub failed: u64,
    /// Those that were held in doubt.
    pub quarantined: u64,
    /// Those that were refused.
    pub rejected: u64,
    /// Why the policy was not followed, and how often.
    pub overrides: BTreeMap<Box<str>, u64>,
    /// How many reporters have seen it.
    pub reporters: u64,
}

/// Somebody who reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReporterLine {
    /// The domain whose mail his reports came by, as far as that was proven; empty where it was not.
    pub reporter: Box<str>,
    /// As what he names himself.
    pub organization: Box<str>,
    /// Reports.
    pub reports: u64,
    /// Messages, or sessions.
    pub messages: u64,
    /// Those that did not pass.
    pub failed: u64,
}

/// How TLS went by one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLine {
    /// Whose.
    pub domain: Box<str>,
    /// `tlsa`, `sts`, `no-policy-found`.
    pub kind: Box<str>,
    /// Sessions that kept to it.
    pub successes: u64,
    /// Sessions that did not.
    pub failures: u64,
    /// Those, by what went wrong.
    pub details: Vec<FailureLine>,
}

/// Sessions that failed alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureLine {
    /// The result type.
    pub result: Box<str>,
    /// With which host.
    pub host: Box<str>,
    /// At which address.
    pub to: Box<str>,
    /// In words.
    pub reason: Box<str>,
    /// How many.
    pub count: u64,
}

/// Messages that somebody was told of one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageLine {
    /// The domain.
    pub domain: Box<str>,
    /// From where.
    pub source: String,
    /// What failed.
    pub auth_failure: Box<str>,
    /// How many.
    pub count: u64,
}

/// By what senders are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    /// By their addresses.
    #[default]
    Address,
    /// By networks: of 24 bits for IPv4, and of 64 for IPv6.
    Network,
}

/// Upper bounds of a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SummaryLimits {
    /// Lines of each kind while it is made.
    pub lines_max: usize,
}

impl Default for SummaryLimits {
    fn default() -> Self {
        Self { lines_max: 20_000 }
    }
}

/// Domains of signatures that a line names: the first ones by name. Twenty may be as long as a report has room for.
const SIGNERS_MAX: usize = 5;
/// Who has seen a source: reporters by number.
const SEEN_MAX: usize = 64;

/// Source, author's domain, signers, and whom SPF passed for.
type SourceKey = (IpAddr, Box<str>, Box<str>, Box<str>);
/// Domain, source, and what failed.
type FailureKey = (Box<str>, Option<IpAddr>, Box<str>);

/// A summary in the making.
#[derive(Debug)]
pub struct Summing {
    grouping: Grouping,
    limits: SummaryLimits,
    whole: Summary,
    sources: HashMap<SourceKey, (SourceLine, Vec<u32>)>,
    reporters: HashMap<(Box<str>, Box<str>), (u32, ReporterLine)>,
    policies: HashMap<(Box<str>, Box<str>), PolicyLine>,
    failures: HashMap<FailureKey, u64>,
    details: usize,
}

impl Summing {
    /// Of nothing.
    pub fn new(grouping: Grouping, limits: SummaryLimits) -> Self {
        Self {
            grouping,
            limits,
            whole: Summary::default(),
            sources: HashMap::new(),
            reporters: HashMap::new(),
            policies: HashMap::new(),
            failures: HashMap::new(),
            details: 0,
        }
    }

    /// A report.
    pub fn add(&mut self, head: &Head, told: &Told) {
        let whole = &mut self.whole;
        whole.reports += 1;
        if whole.begin.is_empty() || *head.begin < *whole.begin {
            whole.begin = head.begin.to_string();
        }
        if *head.end > *whole.end {
            whole.end = head.end.to_string();
        }
        let number = self.reporter(head);
        match told {
            Told::Dmarc(aggregate) => self.dmarc(number, aggregate),
            Told::Tls(policies) => policies.iter().for_each(|policy| self.policy(&head.domain, policy)),
            Told::Failure(failure) => self.failure(&head.domain, failure),
        }
    }

    fn reporter(&mut self, head: &Head) -> u32 {
        let next = u32::try_from(self.reporters.len()).unwrap_or(u32::MAX);
        let key = (head.reporter.clone(), head.organization.clone());
        if !self.reporters.contains_key(&key) && self.reporters.len() >= self.limits.lines_max {
            return u32::MAX;
        }
        let (number, line) = self.reporters.entry(key).or_insert_with(|| {
            let (reporter, organization) = (head.reporter.clone(), head.organization.clone());
            (next, ReporterLine { reporter, organization, ..ReporterLine::default() })
        });
        line.reports += 1;
        add(&mut line.messages, head.messages);
        add(&mut line.failed, head.failed);
        *number
    }

    fn dmarc(&mut self, reporter: u32, aggregate: &Aggregate) {
        add(&mut self.whole.messages, aggregate.more);
        add(&mut self.whole.others, aggregate.more);
        for row in &aggregate.rows {
            add(&mut self.whole.messages, row.count);
            if row.passed() {
                add(&mut self.whole.passed, row.count);
            }
            let mut signers: Vec<&str> =
                row.signatures.iter().filter(|one| &*one.result == "pass").map(|one| &*one.domain).collect();
            signers.sort_unstable();
            signers.dedup();
            signers.truncate(SIGNERS_MAX);
            let sender = row.senders.iter().find(|one| &*one.result == "pass").map_or("", |one| &*one.domain);
            let source = self.grouping.of(row.source);
            let key: SourceKey = (source, row.header_from.clone(), signers.join(",").into(), sender.into());
            if !self.sources.contains_key(&key) && self.sources.len() >= self.limits.lines_max {
                add(&mut self.whole.others, row.count);
                continue;
            }
            let grouping = self.grouping;
            let (line, seen) = self.sources.entry(key).or_insert_with_key(|(source, from, dkim, spf)| {
                let line = SourceLine {
                    source: grouping.text(*source),
                    header_from: from.clone(),
                    dkim: dkim.clone(),
                    spf: spf.clone(),
                    ..SourceLine::default()
                };
                (line, Vec::new())
            });
            if !seen.contains(&reporter) && seen.len() < SEEN_MAX {
                seen.push(reporter);
                line.reporters += 1;
            }
            add(&mut line.messages, row.count);
            add(if row.passed() { &mut line.passed } else { &mut line.failed }, row.count);
            if row.dkim {
                add(&mut line.dkim_aligned, row.count);
            }
            if row.spf {
                add(&mut line.spf_aligned, row.count);
            }
            match &*row.disposition {
                "quarantine" => add(&mut line.quarantined, row.count),
                "reject" => add(&mut line.rejected, row.count),
                _ => {}
            }
            for reason in &row.reasons {
                if line.overrides.len() < 16 || line.overrides.contains_key(&reason.kind) {
                    add(line.overrides.entry(reason.kind.clone()).or_default(), row.count);
                }
            }
        }
    }

    fn policy(&mut self, domain: &str, results: &PolicyResults) {
        add(&mut self.whole.sessions, results.successes);
        add(&mut self.whole.sessions, results.failures);
        add(&mut self.whole.failed_sessions, results.failures);
        let key: (Box<str>, Box<str>) = (domain.into(), results.kind.clone());
        if !self.policies.contains_key(&key) && self.policies.len() >= self.limits.lines_max {
            return;
        }
        let line = self.policies.entry(key).or_insert_with_key(|(domain, kind)| PolicyLine {
            domain: domain.clone(),
            kind: kind.clone(),
            ..PolicyLine::default()
        });
        add(&mut line.successes, results.successes);
        add(&mut line.failures, results.failures);
        for details in &results.details {
            let alike = |one: &&mut FailureLine| {
                (&one.result, &one.host, &one.to, &one.reason)
                    == (&details.result, &details.host, &details.to, &details.reason)
            };
            if let Some(one) = line.details.iter_mut().find(alike) {
                add(&mut one.count, details.count);
                continue;
            }
            // They are looked for one by one.
            if self.details < self.limits.lines_max && line.details.len() < 500 {
                self.details += 1;
                line.details.push(FailureLine {
                    result: details.result.clone(),
                    host: details.host.clone(),
                    to: details.to.clone(),
                    reason: details.reason.clone(),
                    count: details.count,
                });
            }
        }
    }

    fn failure(&mut self, domain: &str, failure: &Failure) {
        let source = failure.source.map(|source| self.grouping.of(source));
        let key = (domain.into(), source, failure.auth_failure.clone());
        if self.failures.contains_key(&key) || self.failures.len() < self.limits.lines_max {
            add(self.failures.entry(key).or_default(), failure.incidents);
        }
    }

    /// The summary, with so many lines of each kind: those that most is in.
    pub fn end(self, lines: usize) -> Summary {
        let Self { grouping, mut whole, sources, reporters, policies, failures, .. } = self;
        whole.sources = sources.into_values().map(|(line, _)| line).collect();
        whole.sources.sort_unstable_by(|a, b| {
            let name = |line: &SourceLine| {
                (line.source.clone(), line.header_from.clone(), line.dkim.clone(), line.spf.clone())
            };
            b.messages.cmp(&a.messages).then_with(|| name(a).cmp(&name(b)))
        });
        for line in whole.sources.drain(lines.min(whole.sources.len())..) {
            add(&mut whole.others, line.messages);
        }
        whole.reporters = reporters.into_values().map(|(_, line)| line).collect();
        whole.reporters.sort_unstable_by(|a, b| {
            let name = |line: &ReporterLine| (line.reporter.clone(), line.organization.clone());
            b.messages.cmp(&a.messages).then_with(|| name(a).cmp(&name(b)))
        });
        whole.reporters.truncate(lines);
        whole.policies = policies.into_values().collect();
        whole.policies.sort_unstable_by(|a, b| (&a.domain, &a.kind).cmp(&(&b.domain, &b.kind)));
        whole.policies.truncate(lines);
        for line in &mut whole.policies {
            line.details.sort_unstable_by(|a, b| {
                b.count
                    .cmp(&a.count)
                    .then_with(|| (&a.result, &a.host, &a.to).cmp(&(&b.result, &b.host, &b.to)))
            });
            line.details.truncate(lines);
        }
        let text = |source: Option<IpAddr>| source.map_or_else(String::new, |source| grouping.text(source));
        let line = |((domain, source, auth_failure), count)| MessageLine {
            domain,
            source: text(source),
            auth_failure,
            count,
        };
        whole.failures = failures.into_iter().map(line).collect();
        whole.failures.sort_unstable_by(|a, b| {
            b.count.cmp(&a.count).then_with(|| {
                (&a.domain, &a.source, &a.auth_failure).cmp(&(&b.domain, &b.source, &b.auth_failure))
            })
        });
        whole.failures.truncate(lines);
        whole
    }
}

impl Grouping {
    const fn of(self, address: IpAddr) -> IpAddr {
        match (self, address) {
            (Self::Address, address) => address,
            (Self::Network, IpAddr::V4(address)) => {
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & 0xffff_ff00))
            }
            (Self::Network, IpAddr::V6(address)) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64))
            }
        }
    }

    fn text(self, address: IpAddr) -> String {
        match (self, address) {
            (Self::Address, address) => address.to_string(),
            (Self::Network, IpAddr::V4(_)) => format!("{address}/24"),
            (Self::Network, IpAddr::V6(_)) => format!("{address}/64"),
        }
    }
}

fn add(sum: &mut u64, count: u64) {
    *sum = sum.saturating_add(count);
}
