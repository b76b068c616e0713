//! That mail is from whom it says: signatures (RFC 6376), and what holds them and SPF to the author (RFC 9989).
//!
//! A message of the domain is signed as mail of ours is, and verified as others do it.

use dns::{ExchangeHost, Kind, Name};
use mail::Timestamp;
use message::date::date_text;
use trust::{
    Algorithm, Alignment, Consent, Digest, Digester, Dkim, DkimResult, DmarcFlaw, DmarcPolicy, DmarcResult,
    Facts, Lack, Published, Reason, RecordFlaw, ReportKind, Signer, Spf, SpfResult, Testing, check_dmarc,
    consent, dmarc_flaw, record_flaw, spf_of, verify_signatures,
};

use crate::{
    Check, Finding, Plan, Severity, UnsubscribeLinks,
    checkup::Bench,
    words::{listed, shown},
};

/// Addresses for reports that are looked at.
const REPORT_ADDRESSES_MAX: usize = 5;

/// A message of the domain, signed by all that sign its mail.
pub(crate) fn sample(plan: &Plan, at: Timestamp) -> Digest {
    let domain = &plan.domain;
    let date = String::from_utf8_lossy(date_text(at).as_ref()).into_owned();
    let link = match &plan.unsubscribe {
        UnsubscribeLinks::Used(link) => {
            format!("List-Unsubscribe: <{link}>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n")
        }
        UnsubscribeLinks::Unused | UnsubscribeLinks::Unconfigured => String::new(),
    };
    let message = format!(
        "{link}From: postmaster@{domain}\r\nTo: postmaster@{domain}\r\nSubject: a message to be looked at\r\n\
         Date: {date}\r\n\
         Message-ID: <{}@{domain}>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nIt is sent to nobody.\r\n",
        at.0
    );
    let mut digester = Digester::new(plan.limits).signing(&plan.signers);
    digester.push(message.as_bytes());
    let digest = digester.finish();
    let mut signed = Vec::new();
    for signer in &plan.signers {
        // One that does not sign has no signature, which is told.
        let _ = signer.sign(&mut signed, &digest, &[], at);
    }
    signed.extend_from_slice(message.as_bytes());
    let mut digester = Digester::new(plan.limits).verifying();
    digester.push(&signed);
    digester.finish()
}

/// Answers what is asked for mail of the domain that does not pass, and what was found of the signatures of the
/// message.
pub(crate) fn judge(bench: &Bench, facts: &Facts, findings: &mut Vec<Finding>) -> (DmarcPolicy, Vec<Dkim>) {
    let plan = &bench.plan;
    let verdicts = verify_signatures(facts, &bench.judge, &bench.sample, &plan.limits, bench.at);
    signatures(bench, facts, &verdicts, findings);
    let spf = spf(bench, facts);
    let dmarc = check_dmarc(facts, &bench.judge, &bench.sample, &spf, &verdicts);
    match &dmarc.published {
        Some(published) => policy(bench, published, findings),
        None => no_policy(bench, facts, dmarc.result, findings),
    }
    if let Some(published) = &dmarc.published {
        reports(bench, facts, published, findings);
        findings.push(alignment(bench, dmarc.spf, dmarc.dkim));
    }
    (dmarc.policy, verdicts)
}

/// What SPF says of the domain from the worst of our addresses.
fn spf(bench: &Bench, facts: &Facts) -> Spf {
    let Plan { domain, limits, addresses, .. } = &bench.plan;
    let nobody = std::net::Ipv4Addr::LOCALHOST.into();
    let of = |address, ehlo: &str| spf_of(facts, limits, address, domain, ehlo);
    let all = addresses.iter().map(|own| of(own.address, &own.ehlo));
    let worst = all.max_by_key(|spf| spf.result != SpfResult::Pass);
    worst.unwrap_or_else(|| of(nobody, "unknown"))
}

fn signatures(bench: &Bench, facts: &Facts, verdicts: &[Dkim], findings: &mut Vec<Finding>) {
    let domain = &bench.plan.domain;
    let signers = &bench.plan.signers;
    if signers.is_empty() {
        let text = "mail of the domain is not signed".to_owned();
        findings.push(Finding::new(Check::Dkim, Severity::Fail, domain, text).remedy(format!(
            "make a key with `ringpost dkim {domain} SELECTOR --key FILE`, publish the record that it prints, and \
                have a [[dkim]] for it"
        )));
        return;
    }
    for signer in signers {
        let name = format!("{}._domainkey.{}", signer.selector(), signer.domain());
        findings.push(key(facts, signer, &name));
        let made = |dkim: &&Dkim| dkim.selector == signer.selector() && dkim.domain == signer.domain();
        let text = match verdicts.iter().find(made) {
            Some(Dkim { result: DkimResult::Pass, .. }) => continue,
            // What is to be done is said of the record.
            Some(Dkim { reason: Some(Reason::KeyRevoked | Reason::KeyUnavailable), .. }) => continue,
            Some(Dkim { reason: Some(reason), .. }) => {
                format!("a message signed with this key does not verify: {reason}")
            }
            Some(_) | None => "a message could not be signed with this key".to_owned(),
        };
        findings.push(
            Finding::new(Check::Dkim, Severity::Fail, &name, text)
                .remedy("publish the record of the key that signs, or sign with the one that is published")
                .publish(&name, "TXT", signer.record()),
        );
    }
    let has = |wanted| signers.iter().any(|signer| signer.algorithm() == wanted);
    match (has(Algorithm::RsaSha256), has(Algorithm::Ed25519Sha256)) {
        (true, false) => findings.push(
            Finding::new(
                Check::Dkim,
                Severity::Note,
                domain,
                "there is no key of Ed25519 beside that of RSA".to_owned(),
            )
            .remedy(format!(
                "`ringpost dkim {domain} SELECTOR --kind ed25519 --key FILE` makes one (RFC 8463)"
            )),
        ),
        (false, _) => findings.push(
            Finding::new(
                Check::Dkim,
                Severity::Warn,
                domain,
                "there is a key of Ed25519 alone, which many hosts cannot verify".to_owned(),
            )
            .remedy(format!("sign with a key of RSA as well: `ringpost dkim {domain} SELECTOR --key FILE`")),
        ),
        (true, true) => {}
    }
}

/// Whether the record of a key is that of the key that signs.
fn key(facts: &Facts, signer: &Signer, name: &str) -> Finding {
    let finding = |severity, text: String| Finding::new(Check::Dkim, severity, name, text);
    let texts = match Name::parse(name).map(|name| facts.texts(&name)) {
        Ok(Ok(texts)) => texts,
        Ok(Err(Lack::Unknown)) => {
            return finding(Severity::Warn, "the DNS does not tell now which key is there".to_owned());
        }
        Ok(Err(Lack::NoData | Lack::NxDomain)) | Err(_) => &[],
    };
    let Some(flaw) = record_flaw(texts, signer.record()) else {
        let kind = match signer.key_bits() {
            Some(bits) => format!("RSA, {bits} bits"),
            None => "Ed25519".to_owned(),
        };
        return finding(Severity::Pass, format!("the key that signs is published ({kind})"));
    };
    let (severity, text) = match flaw {
        RecordFlaw::Missing => (Severity::Fail, "the key that signs is not published"),
        RecordFlaw::Several => {
            (Severity::Fail, "there is more than one record, and hosts choose any of them")
        }
        RecordFlaw::Malformed => (Severity::Fail, "the record is no key"),
        RecordFlaw::Revoked => (Severity::Fail, "the key is given up (an empty p=), and still signs"),
        RecordFlaw::Other => (Severity::Fail, "the key that is published is another than the one that signs"),
        RecordFlaw::NotForThis => {
            (Severity::Fail, "the record is for another algorithm, hash or service (k=, h=, s=)")
        }
        RecordFlaw::Testing => {
            (Severity::Warn, "the record says that this is a trial (t=y), so that others need not count it")
        }
    };
    let finding = finding(severity, text.to_owned());
    match flaw {
        // Whoever has given it up had a reason, such as that somebody else has it.
        RecordFlaw::Revoked => {
            finding.remedy("make another key, with a selector of its own, and sign with that")
        }
        RecordFlaw::Missing => {
            finding.remedy("publish the record as it is here").publish(name, "TXT", signer.record())
        }
        RecordFlaw::Several
        | RecordFlaw::Malformed
        | RecordFlaw::Other
        | RecordFlaw::NotForThis
        | RecordFlaw::Testing => finding
            .remedy("publish the record as it is here, in the place of what is there")
            .publish(name, "TXT", signer.record()),
    }
}

/// There is a record, and this is what it says.
fn policy(bench: &Bench, published: &Published, findings: &mut Vec<Finding>) {
    let domain = &bench.plan.domain;
    let at = format!("_dmarc.{}", published.domain);
    let finding = |severity, text| Finding::new(Check::Dmarc, severity, &at, text);
    let (policy, is_own) =
        if published.domain == *domain { (published.policy, true) } else { (published.subdomains, false) };
    let whose = if is_own { String::new() } else { format!(" for the domains below {}", published.domain) };
    let testing = published.testing == Testing::Yes;
    let stricter = |tag: &str| format!("when reports show that all your mail passes, publish {tag}");
    let tag = if is_own { "p" } else { "sp" };
    findings.push(match policy {
        DmarcPolicy::None => finding(
            Severity::Note,
            format!("the policy is {tag}=none{whose}: forged mail is as welcome as yours"),
        )
        .remedy(stricter(&format!("{tag}=quarantine, then {tag}=reject"))),
        policy @ (DmarcPolicy::Quarantine | DmarcPolicy::Reject) if testing => finding(
            Severity::Note,
            format!("the policy is {tag}={}{whose}, for a trial (t=y)", policy.as_str()),
        )
        .remedy(stricter("it without t=y")),
        policy @ (DmarcPolicy::Quarantine | DmarcPolicy::Reject) => {
            finding(Severity::Pass, format!("the policy is {tag}={}{whose}", policy.as_str()))
        }
    });
    if is_own && published.subdomains < published.policy {
        let text = format!(
            "the policy for domains below it is milder: sp={}, where p={}",
            published.subdomains.as_str(),
            published.policy.as_str()
        );
        findings.push(
            finding(Severity::Note, text)
                .remedy("take sp= out, unless mail of such domains does not pass yet"),
        );
    }
}

/// There is none that counts.
fn no_policy(bench: &Bench, facts: &Facts, result: DmarcResult, findings: &mut Vec<Finding>) {
    let domain = &bench.plan.domain;
    let at = format!("_dmarc.{domain}");
    let finding = |severity, text: &str| Finding::new(Check::Dmarc, severity, &at, text.to_owned());
    let texts = match Name::parse(&at).map(|name| facts.texts(&name)) {
        Ok(Ok(texts)) => texts,
        Ok(Err(Lack::Unknown)) => {
            return findings
                .push(finding(Severity::Warn, "the DNS does not tell now whether there is a DMARC record"));
        }
        Ok(Err(Lack::NoData | Lack::NxDomain)) | Err(_) => &[],
    };
    let (severity, text) = match dmarc_flaw(texts) {
        Some(DmarcFlaw::Several) => {
            (Severity::Fail, "there is more than one DMARC record, so that none counts (RFC 9989 §4.10)")
        }
        Some(DmarcFlaw::Policy) => {
            (Severity::Fail, "the DMARC record has no policy (p=), or one that is none")
        }
        Some(DmarcFlaw::Version) => {
            (Severity::Fail, "a text there looks like a DMARC record, and does not begin with v=DMARC1")
        }
        None if result == DmarcResult::TempError => {
            return findings
                .push(finding(Severity::Warn, "the DNS does not tell now whether there is a DMARC record"));
        }
        None => {
            (Severity::Fail, "there is no DMARC record, which large providers want of whoever sends much")
        }
    };
    findings.push(
        finding(severity, text)
            .remedy(match dmarc_flaw(texts) {
                None => "begin with a policy that does nothing, with reports that show what passes, and with an address for them",
                Some(_) => "have one record in the place of all that are there: with this policy as long \
                    as it is not sure that all your mail passes, and with an address that reads the reports",
            })
            .publish(&at, "TXT", format!("v=DMARC1; p=none; rua=mailto:dmarc-reports@{domain}")),
    );
}

/// Whether what SPF and signatures prove is the author's domain.
fn alignment(bench: &Bench, spf: Alignment, dkim: Alignment) -> Finding {
    let finding =
        |severity, text: &str| Finding::new(Check::Dmarc, severity, &bench.plan.domain, text.to_owned());
    let passes = |alignment| alignment == Alignment::Aligned;
    match (passes(spf), passes(dkim)) {
        (true, true) => finding(Severity::Pass, "mail passes, by SPF and by a signature"),
        (false, true) => {
            finding(Severity::Note, "mail passes by a signature alone: SPF does not stand by the author")
                .remedy("send with a reverse-path of the domain, from addresses that its SPF record names")
        }
        (true, false) => finding(
            Severity::Warn,
            "mail passes by SPF alone, and not once it is forwarded: no signature stands by the author",
        )
        .remedy("sign with a key of the domain, whose record is published"),
        (false, false) if spf == Alignment::Unknown || dkim == Alignment::Unknown => {
            finding(Severity::Warn, "the DNS does not tell now whether mail passes")
        }
        (false, false) => {
            finding(Severity::Fail, "mail does not pass: neither SPF nor a signature stands by the author")
                .remedy("mend what is said of SPF and DKIM above")
        }
    }
}

/// Whether reports reach somebody (RFC 9990 §4).
fn reports(bench: &Bench, facts: &Facts, published: &Published, findings: &mut Vec<Finding>) {
    let domain = &bench.plan.domain;
    let at = format!("_dmarc.{}", published.domain);
    let finding = |severity, text| Finding::new(Check::Dmarc, severity, &at, text);
    if published.aggregate_to.is_empty() {
        let text = "nobody is told how mail of the domain fares: no rua= names an address".to_owned();
        findings.push(
            finding(Severity::Note, text)
                .remedy(format!("add rua=mailto:dmarc-reports@{domain}, and read what comes there")),
        );
        return;
    }
    let mut wrong = false;
    for place in published.aggregate_to.iter().take(REPORT_ADDRESSES_MAX) {
        let address = shown(&place.address);
        let host = place.address.rsplit_once('@').and_then(|(_, host)| Name::parse(host).ok());
        let Some(host) = host else {
            wrong = true;
            findings.push(finding(Severity::Warn, format!("reports go nowhere: {address} is no address")));
            continue;
        };
        match takes_mail(facts, &host) {
            Some(true) => {}
            Some(false) => {
                wrong = true;
                let text = format!("reports to {address} go nowhere: {host} takes no mail");
                findings.push(
                    finding(Severity::Warn, text).remedy("name an address in rua= that somebody reads"),
                );
            }
            None => {
                wrong = true;
                findings.push(finding(
                    Severity::Warn,
                    format!("the DNS does not tell now whether {host} takes mail"),
                ));
            }
        }
        let (severity, text) = match consent(facts, &published.domain, &host, ReportKind::Aggregate) {
            Consent::Own | Consent::Given | Consent::Elsewhere(_) => continue,
            Consent::Missing => (
                Severity::Warn,
                format!("reports to {address} are not sent: {host} does not say that it wants them"),
            ),
            Consent::Unknown => {
                (Severity::Warn, format!("the DNS does not tell now whether {host} wants the reports"))
            }
        };
        wrong = true;
        findings.push(
            finding(severity, text)
                .remedy(format!("whoever answers for {host} says so, or name an address of your own domain"))
                .publish(format!("{}._report._dmarc.{host}", published.domain), "TXT", "v=DMARC1"),
        );
    }
    if !wrong {
        let places = listed(published.aggregate_to.iter().map(|place| shown(&place.address)));
        findings.push(finding(Severity::Pass, format!("reports go to {places}")));
    }
}

/// Whether mail to a domain goes anywhere; none when that cannot be told now.
fn takes_mail(facts: &Facts, domain: &Name) -> Option<bool> {
    match facts.exchanges(domain) {
        Ok(exchanges) => Some(exchanges.iter().any(|exchange| exchange.host != ExchangeHost::Null)),
        Err(Lack::NxDomain) => Some(false),
        Err(Lack::Unknown) => None,
        // Then the domain itself is its host (RFC 5321 §5.1).
        Err(Lack::NoData) => match (facts.addresses(domain, Kind::A), facts.addresses(domain, Kind::Aaaa)) {
            (Ok(_), _) | (_, Ok(_)) => Some(true),
            (Err(Lack::Unknown), _) | (_, Err(Lack::Unknown)) => None,
            (Err(Lack::NoData | Lack::NxDomain), Err(Lack::NoData | Lack::NxDomain)) => Some(false),
        },
    }
}
