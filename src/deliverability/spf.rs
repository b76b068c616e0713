//! Who may send for the domain, and whether that is us (RFC 7208).

use dns::Name;
use trust::{Facts, SpfProblem, SpfResult, SpfSurvey, spf_of, survey_spf};

use crate::{
    Check, EgressAddress, Finding, Severity,
    addresses::mechanism,
    checkup::Bench,
    words::{listed, shown},
};

/// Terms that a record may have (RFC 7208 §4.6.4), and void look-ups.
const TERMS_MAX: usize = 10;
const VOIDS_MAX: usize = 2;

pub(crate) fn judge(bench: &Bench, facts: &Facts, findings: &mut Vec<Finding>) {
    of(bench, facts, &bench.plan.domain, findings);
    for domain in bench.plan.reverse_paths.iter().filter(|domain| **domain != bench.plan.domain) {
        of(bench, facts, domain, findings);
    }
}

fn of(bench: &Bench, facts: &Facts, domain: &Name, findings: &mut Vec<Finding>) {
    let finding = |severity, text| Finding::new(Check::Spf, severity, domain, text);
    let (addresses, limits) = (&bench.plan.addresses, &bench.plan.limits);
    let survey = survey(bench, facts, domain);
    let publish = |finding: Finding, record: String| finding.publish(domain, "TXT", record);
    let ours: Vec<&EgressAddress> = addresses.iter().collect();
    match (&survey.record, survey.problem) {
        (None, Some(SpfProblem::Unavailable)) => {
            findings.push(finding(
                Severity::Warn,
                "the DNS does not tell now whether there is an SPF record".to_owned(),
            ));
            return;
        }
        (None, Some(SpfProblem::ManyRecords)) => {
            let text = "there is more than one SPF record, so that none counts (RFC 7208 §4.5)".to_owned();
            let finding = finding(Severity::Fail, text).remedy("make one of them, with the terms of all");
            findings.push(publish(finding, proposal(None, &ours)));
            return;
        }
        (None, _) => {
            let finding = finding(Severity::Fail, "there is no SPF record".to_owned())
                .remedy("publish one, and add to it whatever else sends for the domain");
            findings.push(publish(finding, proposal(None, &ours)));
            return;
        }
        (Some(_), _) => {}
    }
    let record = survey.record.as_deref();
    if survey.problem == Some(SpfProblem::Unavailable) {
        let text = "the DNS does not tell now what all terms of the record lead to".to_owned();
        findings.push(
            finding(Severity::Warn, text)
                .remedy("where that lasts, take out the term whose domain does not answer"),
        );
    } else if let Some(problem) = survey.problem {
        let text = format!("the record makes no sense to others: {problem}");
        let finding = finding(Severity::Fail, text).remedy("such a record is as good as none: mend it");
        findings.push(publish(finding, proposal(None, &ours)));
    }
    costs(&survey, domain, findings);
    if survey.rest == Some(SpfResult::Pass) {
        let text = "the record leaves everybody in: the whole world may send for the domain".to_owned();
        let finding = finding(Severity::Fail, text)
            .remedy("end it with -all or ~all, behind the terms for those who may");
        findings.push(publish(finding, closed(record.unwrap_or_default())));
    } else if survey.rest == Some(SpfResult::Neutral) {
        let text = "the record does not say what is to be thought of all others (?all, or no all)".to_owned();
        let finding = finding(Severity::Warn, text).remedy("end it with -all or ~all");
        findings.push(publish(finding, closed(record.unwrap_or_default())));
    }
    if let Some(named) = &survey.names_pointers {
        let text = format!("the record of {named} has a term `ptr`, which is not to be used (RFC 7208 §5.5)");
        findings
            .push(finding(Severity::Warn, text).remedy("name the addresses, or hosts by `a`, in its place"));
    }
    let results: Vec<_> =
        addresses.iter().map(|own| (own, spf_of(facts, limits, own.address, domain, &own.ehlo))).collect();
    let with = |wanted: &[SpfResult]| -> Vec<&EgressAddress> {
        results.iter().filter(|(_, spf)| wanted.contains(&spf.result)).map(|(own, _)| *own).collect()
    };
    let shown_of = |found: &[&EgressAddress]| listed(found.iter().map(|own| own.address));
    let passed = with(&[SpfResult::Pass]);
    if !passed.is_empty() {
        findings.push(finding(Severity::Pass, format!("it may be sent for from {}", shown_of(&passed))));
    }
    let refused = with(&[SpfResult::Fail, SpfResult::SoftFail, SpfResult::Neutral]);
    if !refused.is_empty() {
        let why = results.iter().find(|(own, _)| **own == *refused[0]).map(|(_, spf)| {
            let by =
                spf.mechanism.as_deref().map_or_else(String::new, |term| format!(", by {}", shown(term)));
            format!("{}{by}", spf.result.as_str())
        });
        let text =
            format!("it may not be sent for from {} ({})", shown_of(&refused), why.unwrap_or_default());
        let finding = finding(Severity::Fail, text).remedy("add these addresses to the record");
        findings.push(publish(finding, proposal(record, &refused)));
    }
    let unknown = with(&[SpfResult::TempError]);
    if !unknown.is_empty() && survey.problem.is_none() {
        let text =
            format!("the DNS does not tell now whether it may be sent for from {}", shown_of(&unknown));
        findings.push(finding(Severity::Warn, text));
    }
}

/// All that the record says, by addresses of both families, where we have both.
fn survey(bench: &Bench, facts: &Facts, domain: &Name) -> SpfSurvey {
    let addresses = &bench.plan.addresses;
    let of_family = |is_v4: bool| addresses.iter().find(|own| own.address.is_ipv4() == is_v4);
    let limits = &bench.plan.limits;
    let by = |own: &EgressAddress| survey_spf(facts, limits, own.address, domain, &own.ehlo);
    match (of_family(true).map(by), of_family(false).map(by)) {
        (Some(v4), Some(v6)) => SpfSurvey {
            terms: v4.terms.max(v6.terms),
            voids: v4.voids.max(v6.voids),
            problem: v4.problem.or(v6.problem),
            rest: v4.rest.or(v6.rest),
            names_pointers: v4.names_pointers.or(v6.names_pointers),
            record: v4.record.or(v6.record),
        },
        (Some(survey), None) | (None, Some(survey)) => survey,
        (None, None) => {
            let nobody = std::net::Ipv4Addr::LOCALHOST.into();
            survey_spf(facts, limits, nobody, domain, "unknown")
        }
    }
}

/// What it costs others to read the record (RFC 7208 §4.6.4).
fn costs(survey: &SpfSurvey, domain: &Name, findings: &mut Vec<Finding>) {
    let finding = |severity, text| Finding::new(Check::Spf, severity, domain, text);
    let SpfSurvey { terms, voids, .. } = *survey;
    let fewer = "name addresses by ip4 and ip6 in the place of `include`, `a` and `mx`, and take out whoever sends \
        no more";
    if terms > TERMS_MAX {
        let text = format!("the record takes {terms} look-ups, and others stop at {TERMS_MAX} with an error");
        findings.push(finding(Severity::Fail, text).remedy(fewer));
    } else if terms + 1 >= TERMS_MAX {
        let text = format!(
            "the record takes {terms} of {TERMS_MAX} look-ups: whoever is included may add one at any time"
        );
        findings.push(finding(Severity::Warn, text).remedy(fewer));
    } else if survey.problem.is_none() {
        findings.push(finding(Severity::Pass, format!("the record takes {terms} of {TERMS_MAX} look-ups")));
    }
    if voids > VOIDS_MAX {
        let text = format!(
            "{voids} look-ups of the record find nothing, and others stop at {VOIDS_MAX} with an error"
        );
        findings.push(finding(Severity::Fail, text).remedy("take out the names that do not exist"));
    } else if voids > 0 {
        let text = match voids {
            1 => "a look-up of the record finds nothing".to_owned(),
            _ => format!("{voids} look-ups of the record find nothing"),
        };
        findings.push(finding(Severity::Note, text).remedy("take out the names that do not exist"));
    }
}

/// The record with these addresses; a new one where there is none.
fn proposal(record: Option<&str>, missing: &[&EgressAddress]) -> String {
    let mut mechanisms: Vec<String> = Vec::new();
    for own in missing {
        let mechanism = mechanism(own.address);
        if !mechanisms.contains(&mechanism) {
            mechanisms.push(mechanism);
        }
    }
    let mechanisms = if mechanisms.is_empty() { "mx".to_owned() } else { mechanisms.join(" ") };
    match record.and_then(|record| record.split_at_checked("v=spf1".len())) {
        Some((version, rest)) => format!("{version} {mechanisms}{}", shown(rest)),
        None => format!("v=spf1 {mechanisms} -all"),
    }
}

/// The record, and an end to it.
fn closed(record: &str) -> String {
    let is_all = |term: &&str| {
        let name = term.trim_start_matches(['+', '-', '~', '?']);
        name.eq_ignore_ascii_case("all") || name.ends_with("/0")
    };
    let kept: Vec<_> = record.split(' ').filter(|term| !term.is_empty() && !is_all(term)).collect();
    shown(&format!("{} ~all", kept.join(" ")))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn records_that_are_proposed() {
        let own = |address: &str| EgressAddress {
            address: address.parse().unwrap(),
            ehlo: "mx.example.org".into(),
            from: "`hostname`".into(),
        };
        let (v4, v6) = (own("192.0.2.1"), own("2001:db8::1"));
        assert_eq!(proposal(None, &[&v4, &v6, &v4]), "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all");
        assert_eq!(proposal(Some("v=spf1 mx ~all"), &[&v4]), "v=spf1 ip4:192.0.2.1 mx ~all");
        assert_eq!(proposal(Some("V=SPF1"), &[&v4]), "V=SPF1 ip4:192.0.2.1");
        assert_eq!(proposal(None, &[]), "v=spf1 mx -all");
        assert_eq!(closed("v=spf1 mx +all"), "v=spf1 mx ~all");
        assert_eq!(closed("v=spf1  a ip4:0.0.0.0/0 ?ALL"), "v=spf1 a ~all");
    }
}
