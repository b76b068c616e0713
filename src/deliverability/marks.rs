//! What readers see: the domain's picture (BIMI), and a way to leave its lists (RFC 8058).

use dns::Name;
use trust::{
    Dkim, DkimResult, DmarcPolicy, Facts, Lack, SignerAligned, Unsubscribe, UnsubscribeFlaw, UnsubscribeWay,
    bimi_record, bimi_weakness, check_unsubscribe,
};

use crate::{Check, Errands, Finding, Severity, UnsubscribeLinks, checkup::Bench, picture};

pub(crate) fn judge(
    bench: &Bench,
    facts: &Facts,
    (policy, signatures): (DmarcPolicy, &[Dkim]),
    errands: &mut Errands,
    findings: &mut Vec<Finding>,
) {
    record(bench, facts, policy, errands, findings);
    findings.push(links(bench, signatures));
}

fn record(
    bench: &Bench,
    facts: &Facts,
    policy: DmarcPolicy,
    errands: &mut Errands,
    findings: &mut Vec<Finding>,
) {
    let domain = &bench.plan.domain;
    let at = format!("default._bimi.{domain}");
    let finding = |severity, text: String| Finding::new(Check::Bimi, severity, &at, text);
    let example = format!("v=BIMI1; l=https://{domain}/logo.svg; a=https://{domain}/logo.pem");
    let texts = match Name::parse(&at).map(|name| facts.texts(&name)) {
        Ok(Ok(texts)) => texts,
        Ok(Err(Lack::Unknown)) => {
            return findings.push(finding(
                Severity::Warn,
                "the DNS does not tell now whether there is a picture".to_owned(),
            ));
        }
        Ok(Err(Lack::NoData | Lack::NxDomain)) | Err(_) => &[],
    };
    let record = match bimi_record(texts) {
        Ok(None) => {
            return findings.push(
                finding(Severity::Note, "there is no picture of the domain (BIMI)".to_owned())
                    .remedy("it needs DMARC with p=quarantine or p=reject, a picture as SVG Tiny PS, and for most \
                        readers a certificate of it: have both at these places, or name your own")
                    .publish(&at, "TXT", example),
            );
        }
        Err(error) => {
            return findings.push(
                finding(Severity::Warn, format!("there is no picture of the domain: {error}"))
                    .remedy("mend the record")
                    .publish(&at, "TXT", example),
            );
        }
        Ok(Some(record)) => record,
    };
    let of_domain = Name::parse(&format!("_dmarc.{domain}"));
    let weakness = of_domain.ok().and_then(|name| bimi_weakness(facts.texts(&name).ok()?));
    let weakness = if policy == DmarcPolicy::None { Some("asks for nothing") } else { weakness };
    if let Some(weakness) = weakness.filter(|_| !record.is_declination()) {
        findings.push(
            finding(Severity::Warn, format!("no reader shows the picture: the policy of DMARC {weakness}"))
                .remedy(
                    "publish p=quarantine or p=reject, of all mail and of subdomains, once all of it passes",
                ),
        );
    }
    if record.is_declination() {
        return findings.push(finding(Severity::Pass, "the domain says that it has no picture".to_owned()));
    }
    picture::judge(bench, facts, (&at, record), errands, findings);
}

fn links(bench: &Bench, signatures: &[Dkim]) -> Finding {
    let domain = &bench.plan.domain;
    let finding = |severity, text: &str| Finding::new(Check::Unsubscribe, severity, domain, text.to_owned());
    match &bench.plan.unsubscribe {
        UnsubscribeLinks::Used(_) if signatures.iter().any(|dkim| dkim.result == DkimResult::TempError) => {
            finding(
                Severity::Warn,
                "messages get a link to leave a list, and the DNS does not tell now whether a good signature covers it",
            )
        }
        // The message has such a link, and is judged as others judge it.
        UnsubscribeLinks::Used(_) => {
            match check_unsubscribe(&bench.sample, signatures, |_| SignerAligned::No) {
                Some(Unsubscribe { way: UnsubscribeWay::OneClick, .. }) => {
                    finding(Severity::Pass, "messages get a link to leave a list by one click")
                }
                Some(Unsubscribe { flaw: Some(UnsubscribeFlaw::Unsigned), .. }) => finding(
                    Severity::Warn,
                    "messages get a link to leave a list, and nobody shows a button for it: no good signature covers it",
                )
                .remedy("mend what is said of DKIM above (RFC 8058 §4)"),
                found => {
                    let flaw = found.and_then(|found| found.flaw).unwrap_or(UnsubscribeFlaw::Missing);
                    let text =
                        format!("messages get a link to leave a list, and nobody shows a button for it: {flaw}");
                    finding(Severity::Warn, &text).remedy("have unsubscribe.url lead to a host of the open network")
                }
            }
        }
        UnsubscribeLinks::Unused => finding(
            Severity::Note,
            "nobody's messages get a link to leave a list by one click, which large \
                providers want of bulk mail",
        )
        .remedy(
            "unless whoever makes the messages writes one: give the [[tenant]] that sends them \
                    unsubscribe = \"marked\" or \"all\"",
        ),
        UnsubscribeLinks::Unconfigured => finding(
            Severity::Note,
            "messages get no link to leave a list by one click, which large providers want \
                of bulk mail",
        )
        .remedy(
            "unless whoever makes the messages writes one: see [unsubscribe], and unsubscribe of a \
                    [[tenant]]",
        ),
    }
}
