//! Who may send for the domain, and whether that is us (RFC 7208).

use std::fmt::Write as _;

use dns::Name;
use trust::{Facts, Spf, SpfProblem, SpfResult, SpfSurvey, spf_of, survey_spf};

use crate::{
    Check, EgressAddress, Finding, Severity,
    addresses::mechanism,
    checkup::Bench,
    words::{listed, shown},
};

/// Terms that a record may have (RFC 7208 §4.6.4), and void look-ups.
const TERMS_MAX: usize = 10;
const VOIDS_MAX: usize = 2;
/// How one begins.
const VERSION: &str = "v=spf1";

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
    let publish = |finding: Finding, record: Option<String>| match record {
        Some(record) => finding.publish(domain, "TXT", record),
        None => finding,
    };
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
            let finding = finding(Severity::Fail, text)
                .remedy("have one in the place of all of them, with the terms of all");
            findings.push(publish(finding, merged(&published(facts, domain), &ours)));
            return;
        }
        (None, _) => {
            let finding = finding(Severity::Fail, "there is no SPF record".to_owned())
                .remedy("publish one, add to it whatever else sends for the domain, and end it with -all when it is sure \
                    that nobody is missing");
            findings.push(publish(finding, first(&ours)));
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
        // What else it is to say is known to its owner alone.
        let mut remedy = "such a record is as good as none: mend it".to_owned();
        if !ours.is_empty() {
            let _ = write!(remedy, ", with {} among its terms", mechanisms(&ours));
        }
        findings.push(finding(Severity::Fail, text).remedy(remedy));
    }
    costs(&survey, domain, findings);
    let results: Vec<_> =
        addresses.iter().map(|own| (own, spf_of(facts, limits, own.address, domain, &own.ehlo))).collect();
    // Whoever is let in by the end alone is not when that is another.
    let by_end = |spf: &Spf| spf.mechanism.as_deref().is_none_or(|term| is_all(&term));
    let needing = results.iter().filter(|(_, spf)| spf.result != SpfResult::Pass || by_end(spf));
    let needing: Vec<&EgressAddress> = needing.map(|(own, _)| *own).collect();
    let ended = record.zip(survey.rest).and_then(|(record, rest)| closed(record, rest, &needing));
    if survey.rest == Some(SpfResult::Pass) {
        let text = "the record leaves everybody in: the whole world may send for the domain".to_owned();
        let finding = finding(Severity::Fail, text).remedy(
            "end it with -all or ~all, behind the terms for those who may; where a record that it \
                includes, or is redirected to, leaves everybody in, take that one out",
        );
        findings.push(publish(finding, ended.clone()));
    } else if survey.rest == Some(SpfResult::Neutral) {
        let text = "the record does not say what is to be thought of all others (?all, or no all)".to_owned();
        let finding = finding(Severity::Warn, text)
            .remedy("end it with -all or ~all; where it is redirected, that is for the other record to say");
        findings.push(publish(finding, ended.clone()));
    }
    if let Some(named) = &survey.names_pointers {
        let text = format!("the record of {named} has a term `ptr`, which is not to be used (RFC 7208 §5.5)");
        findings
            .push(finding(Severity::Warn, text).remedy("name the addresses, or hosts by `a`, in its place"));
    }
    let resulting = |wanted: &[SpfResult]| -> Vec<&EgressAddress> {
        results.iter().filter(|(_, spf)| wanted.contains(&spf.result)).map(|(own, _)| *own).collect()
    };
    let shown_of = |found: &[&EgressAddress]| listed(found.iter().map(|own| own.address));
    let passed = resulting(&[SpfResult::Pass]);
    if !passed.is_empty() {
        findings.push(finding(Severity::Pass, format!("it may be sent for from {}", shown_of(&passed))));
    }
    let refused = resulting(&[SpfResult::Fail, SpfResult::SoftFail, SpfResult::Neutral]);
    if !refused.is_empty() {
        let why = results.iter().find(|(own, _)| **own == *refused[0]).map(|(_, spf)| {
            let by =
                spf.mechanism.as_deref().map_or_else(String::new, |term| format!(", by {}", shown(term)));
            format!("{}{by}", spf.result.as_str())
        });
        let text =
            format!("it may not be sent for from {} ({})", shown_of(&refused), why.unwrap_or_default());
        let finding = finding(Severity::Fail, text).remedy("add these addresses to the record");
        // One record can be published: it is the same that has been proposed.
        findings.push(publish(finding, ended.or_else(|| with(record?, &refused))));
    }
    let unknown = resulting(&[SpfResult::TempError]);
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

/// By which a record names these addresses.
pub(crate) fn mechanisms(addresses: &[&EgressAddress]) -> String {
    let mut mechanisms: Vec<String> = Vec::new();
    for own in addresses {
        let mechanism = mechanism(own.address);
        if !mechanisms.contains(&mechanism) {
            mechanisms.push(mechanism);
        }
    }
    mechanisms.join(" ")
}

/// The first record of a domain. Who else sends for it is not known, and is not to be refused for that.
fn first(ours: &[&EgressAddress]) -> Option<String> {
    (!ours.is_empty()).then(|| format!("v=spf1 {} ~all", mechanisms(ours)))
}

/// The record with these addresses. It is published as a whole or not at all: a part of it, or something else in the
/// place of what cannot be shown, would keep others from sending.
pub(crate) fn with(record: &str, missing: &[&EgressAddress]) -> Option<String> {
    let (version, rest) = record.split_at_checked(VERSION.len())?;
    if missing.is_empty() {
        return is_plain(record).then(|| record.to_owned());
    }
    is_plain(record).then(|| format!("{version} {}{rest}", mechanisms(missing)))
}

/// The record with these addresses, and an end to it; none where it has one, or where its own end is not what says this
/// of all others.
fn closed(record: &str, rest: SpfResult, needing: &[&EgressAddress]) -> Option<String> {
    if !matches!(rest, SpfResult::Pass | SpfResult::Neutral) {
        return None;
    }
    let terms: Vec<&str> = record.split(' ').filter(|term| !term.is_empty()).collect();
    let kept: Vec<&str> = terms.iter().copied().filter(|term| !is_all(term)).collect();
    let is_redirected = terms.iter().any(|term| has_name(term, "redirect="));
    // One that is included may leave everybody in, whatever stands at the end of this one.
    let own = match terms.iter().find(|term| is_all(term)).and_then(|term| term.chars().next()) {
        Some('-') => SpfResult::Fail,
        Some('~') => SpfResult::SoftFail,
        Some('?') => SpfResult::Neutral,
        Some(_) => SpfResult::Pass,
        None => SpfResult::Neutral,
    };
    let closed = (!is_redirected && own == rest).then(|| format!("{} ~all", kept.join(" ")))?;
    with(&closed, needing)
}

/// One record with the terms of all, and with our addresses; none where the order of terms matters, or there would be
/// too many.
fn merged(records: &[String], ours: &[&EgressAddress]) -> Option<String> {
    let mut kept: Vec<String> =
        mechanisms(ours).split(' ').filter(|own| !own.is_empty()).map(str::to_owned).collect();
    let mut end = "-all";
    for record in records {
        let terms: Vec<&str> = record.split(' ').skip(1).filter(|term| !term.is_empty()).collect();
        let is_plain_term = |term: &&str| !has_name(term, "redirect=") && !term.starts_with(['-', '~', '?']);
        if !is_plain(record) || !terms.iter().filter(|term| !is_all(term)).all(is_plain_term) {
            return None;
        }
        // The mildest of them: whom one of them has not refused is not refused now.
        if !terms.iter().any(|term| term.eq_ignore_ascii_case("-all")) {
            end = "~all";
        }
        for term in terms.into_iter().filter(|term| !is_all(term)) {
            if !kept.iter().any(|known| known.eq_ignore_ascii_case(term)) {
                kept.push(term.to_owned());
            }
        }
    }
    let asks = |term: &&String| {
        let name = unqualified(term);
        !["ip4:", "ip6:", "exp="].iter().any(|free| has_name(name, free))
    };
    let is_short = kept.iter().filter(asks).count() <= TERMS_MAX;
    (is_short && !kept.is_empty()).then(|| format!("v=spf1 {} {end}", kept.join(" ")))
}

/// All SPF records of a domain.
fn published(facts: &Facts, domain: &Name) -> Vec<String> {
    let texts = facts.texts(domain).unwrap_or_default();
    let texts = texts.iter().map(|text| String::from_utf8_lossy(text).into_owned());
    texts.filter(|text| has_name(text.split(' ').next().unwrap_or_default(), VERSION)).collect()
}

fn has_name(term: &str, name: &str) -> bool {
    term.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
}

fn unqualified(term: &str) -> &str {
    term.trim_start_matches(['+', '-', '~', '?'])
}

fn is_all(term: &&str) -> bool {
    let name = unqualified(term);
    name.eq_ignore_ascii_case("all") || name.ends_with("/0")
}

fn is_plain(record: &str) -> bool {
    record.bytes().all(|octet| matches!(octet, b' '..=b'~'))
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
        let some = |record: &str| Some(record.to_owned());
        assert_eq!(first(&[&v4, &v6, &v4]), some("v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 ~all"));
        assert_eq!(first(&[]), None);
        assert_eq!(with("v=spf1 mx ~all", &[&v4]), some("v=spf1 ip4:192.0.2.1 mx ~all"));
        assert_eq!(with("V=SPF1", &[&v4]), some("V=SPF1 ip4:192.0.2.1"));
        // However long it is, all of it is there.
        let long = format!("v=spf1 {}-all", "ip4:192.0.2.77 ".repeat(100));
        assert!(with(&long, &[&v4]).unwrap().ends_with(&long["v=spf1".len()..]));
        let (pass, neutral) = (SpfResult::Pass, SpfResult::Neutral);
        assert_eq!(closed(&long.replace("-all", "+all"), pass, &[]), some(&long.replace("-all", "~all")));
        assert_eq!(with("v=spf1 exp=\u{fffd} -all", &[&v4]), None);
        assert_eq!(closed("v=spf1 mx +all", pass, &[]), some("v=spf1 mx ~all"));
        assert_eq!(closed("v=spf1  a ip4:0.0.0.0/0 ?ALL", pass, &[]), some("v=spf1 a ~all"));
        assert_eq!(closed("v=spf1 mx +all", pass, &[&v4]), some("v=spf1 ip4:192.0.2.1 mx ~all"));
        assert_eq!(closed("v=spf1 mx ~all", SpfResult::SoftFail, &[&v4]), None);
        // "all" would keep the other record from being looked at (RFC 7208 §5.1).
        assert_eq!(closed("v=spf1 mx Redirect=_spf.example.org", neutral, &[]), None);
        assert_eq!(closed("v=spf1 +include:_spf.example.org -all", pass, &[]), None);
        assert_eq!(
            closed("v=spf1 include:_spf.example.org ?all", neutral, &[]),
            some("v=spf1 include:_spf.example.org ~all")
        );
        assert_eq!(closed("v=spf1 a:\u{1b}[2J +all", pass, &[]), None);
    }

    #[test]
    fn one_record_of_many() {
        let v4 = EgressAddress { address: [192, 0, 2, 1].into(), ehlo: "a".into(), from: "b".into() };
        let merged = |records: &[&str]| {
            let records: Vec<String> = records.iter().map(|record| (*record).to_owned()).collect();
            merged(&records, &[&v4])
        };
        let both =
            merged(&["v=spf1 include:a.example ip4:192.0.2.1 -all", "v=spf1  INCLUDE:a.example mx -all"]);
        assert_eq!(both.as_deref(), Some("v=spf1 ip4:192.0.2.1 include:a.example mx -all"));
        let milder = merged(&["v=spf1 mx -all", "v=spf1 a ~all"]);
        assert_eq!(milder.as_deref(), Some("v=spf1 ip4:192.0.2.1 mx a ~all"));
        assert_eq!(merged(&["v=spf1 mx -all", "v=spf1 redirect=a.example"]), None);
        assert_eq!(merged(&["v=spf1 -ip4:192.0.2.9 mx -all", "v=spf1 a -all"]), None);
        let many: String = (0..9).map(|i| format!("include:i{i}.example ")).collect();
        assert!(merged(&[&format!("v=spf1 {many}-all"), "v=spf1 mx -all"]).is_some());
        assert_eq!(merged(&[&format!("v=spf1 {many}-all"), "v=spf1 mx a -all"]), None);
    }
}
