//! What the owner of a record should know of it, whoever sends: what it costs, and whom it leaves in.

use std::net::IpAddr;

use dns::Name;

use super::{
    Spf, SpfIdentity, SpfProblem, SpfResult,
    check::{self, Check, Question},
    record::{Mechanism, is_record, select},
};
use crate::{Limits, facts::Facts};

/// All that a record says, and those that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpfSurvey {
    /// The record, as it is published; none when there is none, or more than one.
    pub record: Option<String>,
    /// Terms that need look-ups, all of them, where a check ends at the first that matches. More than 60 are not counted.
    pub terms: usize,
    /// Look-ups that find nothing, likewise.
    pub voids: usize,
    /// A domain whose record has `ptr`, which is not to be used (RFC 7208 §5.5).
    pub names_pointers: Option<Name>,
    /// What is said of those that nothing matches.
    pub rest: Option<SpfResult>,
    /// What keeps it from being read to its end.
    pub problem: Option<SpfProblem>,
}

/// Of terms and void look-ups no more are counted.
const COUNTED_MAX: usize = 60;
/// Records that lead to records that lead to records.
const DEPTH_MAX: usize = 20;

/// Whether mail from a domain may come from this address, as any host finds that is greeted as `helo`.
pub fn spf_of(facts: &Facts, limits: &Limits, address: IpAddr, domain: &Name, helo: &str) -> Spf {
    check::check(facts, limits, &question(address, domain, helo))
}

/// Reads all that the record of a domain says. An address is asked for as an example: which family is looked up, and what macros
/// stand for, is the same for all like it.
pub fn survey_spf(facts: &Facts, limits: &Limits, address: IpAddr, domain: &Name, helo: &str) -> SpfSurvey {
    let mut survey = SpfSurvey::default();
    if let Ok(texts) = facts.texts(domain)
        && let Ok(Some(_)) = select(texts)
    {
        let mut records = texts.iter().filter(|text| is_record(text));
        survey.record = records.next().map(|text| String::from_utf8_lossy(text).into_owned());
    }
    let limits = Limits { spf_terms_max: COUNTED_MAX, spf_void_max: COUNTED_MAX, ..*limits };
    let question = question(address, domain, helo);
    let mut check = Check { facts, limits: &limits, question: &question, terms: 0, voids: 0 };
    match survey.host(&mut check, domain, 0) {
        Ok(rest) => survey.rest = rest,
        Err(problem) => survey.problem = Some(problem),
    }
    (survey.terms, survey.voids) = (check.terms.min(COUNTED_MAX), check.voids.min(COUNTED_MAX));
    survey
}

fn question<'a>(address: IpAddr, domain: &'a Name, helo: &'a str) -> Question<'a> {
    Question {
        address,
        identity: SpfIdentity::MailFrom,
        local_part: "",
        domain: domain.as_str(),
        helo,
        receiver: "unknown",
        time: 0,
    }
}

impl SpfSurvey {
    /// What a record says of those that nothing matches; none where there is no record.
    fn host(
        &mut self,
        check: &mut Check<'_>,
        domain: &Name,
        depth: usize,
    ) -> Result<Option<SpfResult>, SpfProblem> {
        let Some(record) = check.record(domain)? else { return Ok(None) };
        for (i, directive) in record.directives.iter().enumerate() {
            let misses = check.facts.misses();
            let matches_all = match &directive.mechanism {
                Mechanism::All | Mechanism::Ip4(_, 0) | Mechanism::Ip6(_, 0) => Ok(true),
                Mechanism::Ip4(..) | Mechanism::Ip6(..) => Ok(false),
                Mechanism::Ptr(_) => {
                    self.names_pointers.get_or_insert_with(|| domain.clone());
                    check.count_term().map(|()| false)
                }
                Mechanism::Include(target) => check.count_term().and_then(|()| {
                    let target = check.target(Some(target), domain).ok_or(SpfProblem::NoRecord)?;
                    if depth == DEPTH_MAX {
                        return Err(SpfProblem::TooManyTerms);
                    }
                    let rest = self.host(check, &target, depth + 1)?.ok_or(SpfProblem::NoRecord)?;
                    Ok(rest == SpfResult::Pass)
                }),
                Mechanism::A(..) | Mechanism::Mx(..) | Mechanism::Exists(_) => {
                    check.matches(&directive.mechanism, domain).map(|_| false)
                }
            };
            match matches_all {
                Ok(false) => {}
                // "Mechanisms after "all" will never be tested" (RFC 7208 §5.1).
                Ok(true) => return Ok(Some(directive.result)),
                Err(problem) => {
                    if check.facts.misses() > misses {
                        check.look_ahead(&record, i + 1, domain);
                    }
                    return Err(problem);
                }
            }
        }
        let Some(redirect) = &record.redirect else { return Ok(Some(SpfResult::Neutral)) };
        check.count_term()?;
        let target = check.target(Some(redirect), domain).ok_or(SpfProblem::NoRecord)?;
        if depth == DEPTH_MAX {
            return Err(SpfProblem::TooManyTerms);
        }
        self.host(check, &target, depth + 1)?.ok_or(SpfProblem::NoRecord).map(Some)
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::zone::Zone;

    fn survey(zone: &str) -> SpfSurvey {
        let (zone, domain) = (Zone::parse(zone), Name::parse("example.org").unwrap());
        let address = "192.0.2.1".parse().unwrap();
        zone.run(|facts| survey_spf(facts, &Limits::default(), address, &domain, "mx.example.org")).0
    }

    /// A check of 192.0.2.1 ends at the first term; what the others cost is told all the same.
    #[test]
    fn all_of_a_record_counts() {
        let found = survey(
            "example.org TXT v=spf1 ip4:192.0.2.1 a mx include:one.example include:two.example -all\n\
             example.org A 192.0.2.7\nexample.org MX 10 mx.example.org\nmx.example.org A 192.0.2.8\n\
             one.example TXT v=spf1 ip4:192.0.2.0/24 exists:no.example a:none.example ~all\n\
             two.example TXT v=spf1 ptr redirect=three.example\nthree.example TXT v=spf1 ?all",
        );
        assert_eq!((found.terms, found.voids, found.rest), (8, 2, Some(SpfResult::Fail)));
        assert_eq!(found.names_pointers, Name::parse("two.example").ok());
        assert!(found.record.unwrap().starts_with("v=spf1 ip4:192.0.2.1 a mx"));
        assert_eq!(found.problem, None);
    }

    #[test]
    fn whom_a_record_leaves_in() {
        for (zone, expected) in [
            ("v=spf1 +all", SpfResult::Pass),
            ("v=spf1 mx all", SpfResult::Pass),
            ("v=spf1 ip4:0.0.0.0/0 -all", SpfResult::Pass),
            ("v=spf1 include:open.example -all", SpfResult::Pass),
            ("v=spf1 -include:open.example +all", SpfResult::Fail),
            ("v=spf1 redirect=open.example", SpfResult::Pass),
            ("v=spf1 ip4:192.0.2.1", SpfResult::Neutral),
            ("v=spf1 ~all", SpfResult::SoftFail),
        ] {
            let found = survey(&format!("example.org TXT {zone}\nopen.example TXT v=spf1 +all"));
            assert_eq!(found.rest, Some(expected), "{zone}");
        }
    }

    #[test]
    fn what_keeps_it_from_being_read() {
        for (zone, expected) in [
            ("example.org TXT v=spf1 include:none.example -all", SpfProblem::NoRecord),
            ("example.org TXT v=spf1 mxx -all", SpfProblem::Syntax),
            ("example.org TXT v=spf1 -all\nexample.org TXT v=spf1 mx", SpfProblem::ManyRecords),
            ("example.org TIMEOUT", SpfProblem::Unavailable),
            ("example.org TXT v=spf1 include:example.org", SpfProblem::TooManyTerms),
        ] {
            let found = survey(zone);
            assert_eq!(found.problem, Some(expected), "{zone}");
        }
        assert_eq!(survey("example.org A 192.0.2.1"), SpfSurvey::default());
    }
}
