//! `check_host()` (RFC 7208 §4), over facts.

use std::net::IpAddr;

use dns::{ExchangeHost, Kind, Name};

use super::{
    Spf, SpfIdentity, SpfProblem, SpfResult,
    macros::{MacroText, Place, Variables},
    record::{Mechanism, Prefixes, Record, select},
};
use crate::{
    Limits,
    facts::{Facts, Lack},
};

/// What is asked of SPF.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) address: IpAddr,
    pub(crate) identity: SpfIdentity,
    /// What stands before the `@`; empty when nothing does.
    pub(crate) local_part: &'a str,
    pub(crate) domain: &'a str,
    pub(crate) helo: &'a str,
    /// We.
    pub(crate) receiver: &'a str,
    /// Seconds since 1970, for explanations.
    pub(crate) time: u64,
}

/// Answers the question, as far as the facts go.
pub(crate) fn check(facts: &Facts, limits: &Limits, question: &Question<'_>) -> Spf {
    let mut spf = Spf {
        result: SpfResult::None,
        identity: question.identity,
        domain: question.domain.to_owned(),
        explanation: None,
        mechanism: None,
        problem: None,
    };
    // "malformed [...] or is not a multi-label domain name": none (RFC 7208 §4.3).
    let name = match Name::parse(question.domain) {
        Ok(name) if name.as_str().contains('.') && !name.as_str().starts_with('[') => name,
        Ok(_) | Err(_) => return spf,
    };
    let mut check = Check { facts, limits, question, terms: 0, voids: 0 };
    match check.host(&name) {
        Ok(None) => {}
        Ok(Some(found)) => {
            if let (SpfResult::Fail, Some((text, domain))) = (found.result, &found.explanation) {
                spf.explanation = check.explanation(text, domain);
            }
            (spf.result, spf.mechanism) = (found.result, found.mechanism);
        }
        Err(problem) => {
            let temporary = problem == SpfProblem::Unavailable;
            spf.result = if temporary { SpfResult::TempError } else { SpfResult::PermError };
            spf.problem = Some(problem);
        }
    }
    spf
}

pub(super) struct Check<'a> {
    pub(super) facts: &'a Facts,
    pub(super) limits: &'a Limits,
    pub(super) question: &'a Question<'a>,
    /// Terms that needed look-ups.
    pub(super) terms: usize,
    /// Look-ups that found nothing.
    pub(super) voids: usize,
}

/// What a record says.
struct Found {
    result: SpfResult,
    mechanism: Option<String>,
    /// `exp=`, and the domain in whose record it stands.
    explanation: Option<(MacroText, Name)>,
}

impl<'a> Check<'a> {
    /// Checks a domain; none when it has no record.
    fn host(&mut self, domain: &Name) -> Result<Option<Found>, SpfProblem> {
        let facts = self.facts;
        let Some(record) = self.record(domain)? else { return Ok(None) };
        for (i, directive) in record.directives.iter().enumerate() {
            let misses = facts.misses();
            match self.matches(&directive.mechanism, domain) {
                Ok(false) => {}
                Ok(true) => {
                    let explanation = record.explanation.map(|text| (text, domain.clone()));
                    let mechanism = Some(directive.text.to_owned());
                    return Ok(Some(Found { result: directive.result, mechanism, explanation }));
                }
                Err(problem) => {
                    if facts.misses() > misses {
                        self.look_ahead(&record, i + 1, domain);
                    }
                    return Err(problem);
                }
            }
        }
        let Some(redirect) = &record.redirect else {
            return Ok(Some(Found { result: SpfResult::Neutral, mechanism: None, explanation: None }));
        };
        self.count_term()?;
        // "If no SPF record is found, or if the <target-name> is malformed, the result is a "permerror""
        // (RFC 7208 §6.1).
        let target = self.target(Some(redirect), domain).ok_or(SpfProblem::NoRecord)?;
        self.host(&target)?.ok_or(SpfProblem::NoRecord).map(Some)
    }

    /// The record of a domain; none when it has none.
    pub(super) fn record(&self, domain: &Name) -> Result<Option<Record<'a>>, SpfProblem> {
        let texts = match self.facts.texts(domain) {
            Ok(texts) => texts,
            Err(Lack::NoData | Lack::NxDomain) => return Ok(None),
            Err(Lack::Unknown) => return Err(SpfProblem::Unavailable),
        };
        let Some(text) = select(texts).map_err(|_| SpfProblem::ManyRecords)? else { return Ok(None) };
        if text.len() > self.limits.spf_record_size_max {
            return Err(SpfProblem::TooLong);
        }
        Record::parse(text).map(Some).map_err(|_| SpfProblem::Syntax)
    }

    pub(super) fn matches(&mut self, mechanism: &Mechanism, domain: &Name) -> Result<bool, SpfProblem> {
        let address = self.question.address;
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network, prefix) => Ok(is_within(address, IpAddr::V4(*network), *prefix)),
            Mechanism::Ip6(network, prefix) => Ok(is_within(address, IpAddr::V6(*network), *prefix)),
            Mechanism::Include(target) => {
                self.count_term()?;
                let target = self.target(Some(target), domain).ok_or(SpfProblem::NoRecord)?;
                // The table of RFC 7208 §5.2.
                match self.host(&target)? {
                    Some(found) => Ok(found.result == SpfResult::Pass),
                    None => Err(SpfProblem::NoRecord),
                }
            }
            Mechanism::A(target, prefixes) => {
                self.count_term()?;
                let Some(target) = self.target(target.as_ref(), domain) else { return Ok(false) };
                let addresses = self.addresses(&target, self.kind())?;
                Ok(any_within(address, addresses, *prefixes))
            }
            Mechanism::Mx(target, prefixes) => {
                self.count_term()?;
                let Some(target) = self.target(target.as_ref(), domain) else { return Ok(false) };
                self.matches_exchange(&target, *prefixes)
            }
            Mechanism::Ptr(target) => {
                self.count_term()?;
                let Some(target) = self.target(target.as_ref(), domain) else { return Ok(false) };
                Ok(self.validated().iter().any(|name| name.is_within(target.as_str())))
            }
            Mechanism::Exists(target) => {
                self.count_term()?;
                let Some(target) = self.target(Some(target), domain) else { return Ok(false) };
                // "a DNS A RR lookup (even when the connection type is IPv6)" (RFC 7208 §5.7).
                Ok(!self.addresses(&target, Kind::A)?.is_empty())
            }
        }
    }

    fn matches_exchange(&mut self, target: &Name, prefixes: Prefixes) -> Result<bool, SpfProblem> {
        let facts = self.facts;
        let exchanges = match facts.exchanges(target) {
            Ok(exchanges) => exchanges,
            Err(Lack::NoData | Lack::NxDomain) => {
                self.count_void()?;
                return Ok(false);
            }
            Err(Lack::Unknown) => return Err(SpfProblem::Unavailable),
        };
        // "If this limit is exceeded, the "mx" mechanism MUST produce a "permerror"" (RFC 7208 §4.6.4).
        if exchanges.len() > self.limits.spf_exchanges_max {
            return Err(SpfProblem::TooManyExchanges);
        }
        let mut unknown = false;
        for exchange in exchanges {
            let ExchangeHost::Name(host) = &exchange.host else { continue };
            match facts.addresses(host, self.kind()) {
                // The others are looked up with it.
                Err(Lack::Unknown) => unknown = true,
                Ok(_) | Err(Lack::NoData | Lack::NxDomain) if unknown => {}
                Ok(addresses) if any_within(self.question.address, addresses, prefixes) => return Ok(true),
                Ok(_) => {}
                // A host that has addresses of the other family is no void look-up.
                Err(Lack::NoData) => {}
                Err(Lack::NxDomain) => self.count_void()?,
            }
        }
        if unknown { Err(SpfProblem::Unavailable) } else { Ok(false) }
    }

    /// The names of the address that have that address (RFC 7208 §5.5). Those for which that cannot be found out
    /// are skipped; whose reverse zone it is has no part in the limits of the record.
    fn validated(&self) -> Vec<&'a Name> {
        let facts = self.facts;
        let names = facts.names(self.question.address).unwrap_or_default();
        let names = names.iter().take(self.limits.spf_names_max);
        let kind = self.kind();
        names
            .filter(|name| {
                facts.addresses(name, kind).is_ok_and(|found| found.contains(&self.question.address))
            })
            .collect()
    }

    /// The value of `p`: of the validated names the domain itself, one below it, or any (RFC 7208 §7.3).
    fn validated_for(&self, domain: &Name) -> &'a str {
        let names = self.validated();
        let within = |name: &&&Name| name.is_within(domain.as_str());
        let name = names.iter().find(|name| **name == domain).or_else(|| names.iter().find(within));
        name.or_else(|| names.first()).map_or("unknown", |name| name.as_str())
    }

    /// The domain a term is about; none when its macros do not make one.
    pub(super) fn target(&self, text: Option<&MacroText>, domain: &Name) -> Option<Name> {
        let Some(text) = text else { return Some(domain.clone()) };
        let name = self.expand(text, domain);
        // "the left side is truncated to fit, by removing successive domain labels" (RFC 7208 §7.3).
        let mut name = name.strip_suffix('.').unwrap_or(&name);
        while name.len() > 253 {
            name = name.split_once('.')?.1;
        }
        Name::printable(name).ok()
    }

    fn expand(&self, text: &MacroText, domain: &Name) -> String {
        let validated = if text.needs_validated() { self.validated_for(domain) } else { "" };
        let question = self.question;
        let variables = Variables {
            // RFC 7208 §4.3
            local_part: if question.local_part.is_empty() { "postmaster" } else { question.local_part },
            sender_domain: question.domain,
            domain: domain.as_str(),
            address: question.address,
            helo: question.helo,
            receiver: question.receiver,
            time: question.time,
        };
        text.expand(&variables, validated)
    }

    /// "if there are any DNS processing errors [...], or if no records are returned, or if more than one record is
    /// returned, or if there are syntax errors in the explanation string, then proceed as if no "exp" modifier was
    /// given" (RFC 7208 §6.2).
    fn explanation(&self, text: &MacroText, domain: &Name) -> Option<String> {
        let target = self.target(Some(text), domain)?;
        let [text] = self.facts.texts(&target).ok()? else { return None };
        let text = str::from_utf8(text).ok().filter(|text| text.len() <= self.limits.spf_record_size_max)?;
        let text = self.expand(&MacroText::parse(text, Place::Explanation).ok()?, domain);
        let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
        Some(text.chars().take(self.limits.explanation_len_max).map(printable).collect())
    }

    /// Something had to be looked up: what the rest of the record will need, as far as that can be told, is looked
    /// up with it. Else each term would wait for the one before.
    pub(super) fn look_ahead(&self, record: &Record<'_>, from: usize, domain: &Name) {
        let mut terms = self.terms;
        for directive in &record.directives[from..] {
            let (target, kind) = match &directive.mechanism {
                Mechanism::All => return,
                Mechanism::Ip4(..) | Mechanism::Ip6(..) => continue,
                Mechanism::Include(target) => (Some(target), Kind::Txt),
                Mechanism::A(target, _) => (target.as_ref(), self.kind()),
                Mechanism::Mx(target, _) => (target.as_ref(), Kind::Mx),
                Mechanism::Ptr(_) => {
                    let _ = self.facts.names(self.question.address);
                    continue;
                }
                Mechanism::Exists(target) => (Some(target), Kind::A),
            };
            terms += 1;
            if terms > self.limits.spf_terms_max {
                return;
            }
            self.note(target, kind, domain);
        }
        if terms < self.limits.spf_terms_max && record.redirect.is_some() {
            self.note(record.redirect.as_ref(), Kind::Txt, domain);
        }
    }

    fn note(&self, target: Option<&MacroText>, kind: Kind, domain: &Name) {
        if target.is_some_and(MacroText::needs_validated) {
            return;
        }
        if let Some(target) = self.target(target, domain) {
            self.facts.note(&target, kind);
        }
    }

    /// The addresses of a name; none at all is a void look-up.
    fn addresses(&mut self, name: &Name, kind: Kind) -> Result<&'a [IpAddr], SpfProblem> {
        match self.facts.addresses(name, kind) {
            Ok(addresses) => Ok(addresses),
            Err(Lack::NoData | Lack::NxDomain) => {
                self.count_void()?;
                Ok(&[])
            }
            Err(Lack::Unknown) => Err(SpfProblem::Unavailable),
        }
    }

    /// The kind of record that has addresses such as the client's.
    const fn kind(&self) -> Kind {
        if self.question.address.is_ipv4() { Kind::A } else { Kind::Aaaa }
    }

    /// "SPF implementations MUST limit the total number of those terms to 10" (RFC 7208 §4.6.4).
    pub(super) const fn count_term(&mut self) -> Result<(), SpfProblem> {
        self.terms += 1;
        if self.terms > self.limits.spf_terms_max { Err(SpfProblem::TooManyTerms) } else { Ok(()) }
    }

    /// "SPF implementations SHOULD limit "void lookups" to two" (RFC 7208 §4.6.4).
    const fn count_void(&mut self) -> Result<(), SpfProblem> {
        self.voids += 1;
        if self.voids > self.limits.spf_void_max { Err(SpfProblem::TooManyVoid) } else { Ok(()) }
    }
}

fn any_within(address: IpAddr, networks: &[IpAddr], prefixes: Prefixes) -> bool {
    let prefix = if address.is_ipv4() { prefixes.ip4 } else { prefixes.ip6 };
    networks.iter().any(|network| is_within(address, *network, prefix))
}

/// Whether the leading bits are the same. Addresses of different families are never (RFC 7208 §5.6).
fn is_within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let prefix = u32::from(prefix);
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(32 - prefix).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            (a.to_bits() ^ b.to_bits()).checked_shr(128 - prefix).unwrap_or(0) == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
#[path = "check_test.rs"]
mod test;
