//! Whether readers would be shown the domain's picture (BIMI): what was fetched of it, and judged as theirs is.

use std::net::IpAddr;

use dns::Name;
use trust::{Asserted, BimiPlace, BimiRecord, Facts, covers};

use crate::{
    Check, Errands, Finding, Severity,
    checkup::Bench,
    inbound::addresses,
    words::{listed, shown},
};

/// A picture that is to be fetched, and its certificate: where they are, with the addresses of their hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureErrand {
    /// The picture.
    pub location: Option<(BimiPlace, Vec<IpAddr>)>,
    /// The certificate.
    pub evidence: Option<(BimiPlace, Vec<IpAddr>)>,
}

/// A picture that may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureSeen {
    /// For whom its certificate is; none where it has none, or nobody is believed about those.
    pub names: Option<Vec<String>>,
}

/// The record at this name says that there is a picture.
pub(crate) fn judge(
    bench: &Bench,
    facts: &Facts,
    (at, record): (&str, BimiRecord),
    errands: &mut Errands,
    findings: &mut Vec<Finding>,
) {
    let finding = |severity, text: String| Finding::new(Check::Bimi, severity, at, text);
    let sought = |place: &Option<BimiPlace>| {
        place.as_ref().map(|place| (place.clone(), addresses(facts, place.host()).0))
    };
    errands.picture =
        Some(PictureErrand { location: sought(&record.location), evidence: sought(&record.evidence) });
    let place = record.location.as_ref().or(record.evidence.as_ref()).map_or("", BimiPlace::as_str);
    let place = shown(place);
    let names = match &bench.gathered.picture {
        Some(Err(why)) => {
            let text = format!("no reader shows the picture {place}: {}", shown(why));
            return findings.push(finding(Severity::Warn, text).remedy(
                "serve it as SVG Tiny PS over HTTPS, not moved elsewhere, and the certificate as it was issued, with its chain",
            ));
        }
        Some(Ok(seen)) => Some(seen.names.as_ref()),
        // It was not looked at.
        None => None,
    };
    let domain: &Name = &bench.plan.domain;
    let asserted = Asserted { domain: domain.clone(), selector: "default".into(), record };
    findings.push(match (names, &asserted.record.evidence) {
        (Some(Some(names)), _) if !covers(names.iter().map(String::as_str), &asserted) => {
            let text = format!("the certificate of the picture {place} is for {}", shown(&listed(names)));
            finding(Severity::Warn, text).remedy(format!("get one for {domain}"))
        }
        (_, None) => {
            finding(Severity::Note, format!("the picture is {place}, and no certificate says whose it is"))
                .remedy("large providers show no picture without one (VMC or CMC): name it by a=")
        }
        (Some(None), Some(_)) => {
            finding(Severity::Note, format!("the picture is {place}, and its certificate was not looked at"))
                .remedy("name the authorities that you believe in bimi.authorities")
        }
        (Some(Some(_)) | None, Some(_)) => finding(Severity::Pass, format!("the picture is {place}")),
    });
}

#[cfg(test)]
mod test {
    use std::{sync::Arc, time::Duration};

    use dns::Security;
    use mail::Timestamp;
    use trust::{Judged, Limits};

    use super::*;
    use crate::{Checkup, Gathered, Plan, UnsubscribeLinks, zone::Zone};

    const RECORD: &str = "v=BIMI1; l=https://logo.example.org/x.svg; a=https://logo.example.org/x.pem";

    /// What is said of a picture, once this came of the errand.
    fn says(record: &str, picture: Option<Result<PictureSeen, String>>) -> Vec<String> {
        says_with("p=reject", record, picture)
    }

    fn says_with(policy: &str, record: &str, picture: Option<Result<PictureSeen, String>>) -> Vec<String> {
        let plan = Plan {
            domain: Name::parse("example.org").unwrap(),
            addresses: Vec::new(),
            reverse_paths: Vec::new(),
            signers: Vec::new(),
            lists: Vec::new(),
            unsubscribe: UnsubscribeLinks::Unconfigured,
            port: 25,
            connects: true,
            limits: Limits { lookups_max: 1000, ..Limits::default() },
        };
        let zone = Zone::parse(&format!(
            "_dmarc.example.org TXT v=DMARC1; {policy}\nlogo.example.org A 192.0.2.7\n\
             default._bimi.example.org TXT {record}"
        ));
        let now = Duration::from_secs(7);
        let mut checkup = Checkup::open(plan, Timestamp::from_secs(1_764_417_600), now);
        let errands = loop {
            match checkup.errands(now) {
                Judged::Known(errands) => break errands,
                Judged::Missing(questions) => questions.into_iter().for_each(|question| {
                    let answer = Arc::new(zone.answer(&question, Security::Unproven));
                    checkup.learn(question, answer);
                }),
            }
        };
        if let Some(errand) = errands.picture {
            let found = [errand.location, errand.evidence].into_iter().flatten();
            assert!(found.clone().count() > 0);
            for (place, addresses) in found {
                assert_eq!(
                    (place.host().as_str(), addresses),
                    ("logo.example.org", vec![[192, 0, 2, 7].into()])
                );
            }
        }
        checkup.bring(Gathered { picture, ..Gathered::default() });
        let Judged::Known(report) = checkup.judge(now) else { panic!("all is known") };
        let of_picture = report.findings.iter().filter(|finding| finding.check == Check::Bimi);
        of_picture.map(|finding| format!("{} {}", finding.severity.as_str(), finding.text)).collect()
    }

    #[test]
    fn what_is_said_of_what_was_fetched() {
        let seen = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Some(Ok(PictureSeen { names: Some(names) }))
        };
        let at = "https://logo.example.org/x.svg";
        for (record, picture, expected) in [
            (RECORD, seen(&["example.org"]), format!("pass the picture is {at}")),
            (RECORD, seen(&["default._bimi.example.org"]), format!("pass the picture is {at}")),
            (
                RECORD,
                seen(&["example.com", "example.net"]),
                format!("warn the certificate of the picture {at} is for example.com, example.net"),
            ),
            (
                RECORD,
                Some(Ok(PictureSeen { names: None })),
                format!("note the picture is {at}, and its certificate was not looked at"),
            ),
            (
                RECORD,
                Some(Err("indicator: it has no title\r\n".to_owned())),
                format!("warn no reader shows the picture {at}: indicator: it has no title\u{fffd}\u{fffd}"),
            ),
            (RECORD, None, format!("pass the picture is {at}")),
            (
                "v=BIMI1; l=https://logo.example.org/x.svg",
                Some(Ok(PictureSeen { names: None })),
                format!("note the picture is {at}, and no certificate says whose it is"),
            ),
            (
                "v=BIMI1; l=; a=https://logo.example.org/x.pem",
                seen(&["example.org"]),
                "pass the picture is https://logo.example.org/x.pem".to_owned(),
            ),
            ("v=BIMI1; l=; a=", None, "pass the domain says that it has no picture".to_owned()),
        ] {
            assert_eq!(says(record, picture), [expected], "{record}");
        }
        let none = "warn no reader shows the picture: the policy of DMARC ";
        for (policy, expected) in [
            ("p=reject; sp=none", "asks for nothing of subdomains"),
            ("p=quarantine; pct=50", "is not for all mail"),
        ] {
            let said = says_with(policy, RECORD, seen(&["example.org"]));
            assert_eq!(said, [format!("{none}{expected}"), format!("pass the picture is {at}")]);
        }
    }
}
