//! Which record is for a message, which messages have none, and what readers are told.

use super::*;
use crate::{
    ArcChain, ArcResult, Digester, Dkim, Dmarc, EnvelopeVerdict, Iprev, IprevResult, KeyUse, Limits,
    Published, Spf, SpfIdentity, SpfResult, Testing, Tricks, zone::Zone,
};

const DMARC: &str = "_dmarc.example.org TXT v=DMARC1; p=reject\n";
const RECORD: &str = "v=BIMI1; l=https://example.org/l.svg; a=https://example.org/c.pem";

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// A message of this author that passes by a signature of example.org, which covers these fields.
fn message(author: &str, signed: &str, more: &str) -> (Digest, Verdict) {
    let mut digester = Digester::new(Limits::default()).verifying();
    let text = format!(
        "DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=s; h={signed}; bh=AAAA; b=AAAA\r\n\
         {more}From: ann@{author}\r\n\r\nx\r\n"
    );
    digester.push(text.as_bytes());
    let spf = |identity| Spf {
        result: SpfResult::Pass,
        identity,
        domain: author.into(),
        explanation: None,
        mechanism: Some("mx".into()),
        problem: None,
    };
    let dkim = Dkim {
        result: DkimResult::Pass,
        reason: None,
        domain: "example.org".into(),
        selector: "s".into(),
        identity: String::new(),
        algorithm: None,
        start_of_b: String::new(),
        key_use: KeyUse::Signing,
    };
    let verdict = Verdict {
        envelope: EnvelopeVerdict {
            iprev: Iprev { result: IprevResult::Pass, address: [192, 0, 2, 1].into(), name: None },
            helo: spf(SpfIdentity::Helo),
            mail_from: spf(SpfIdentity::MailFrom),
        },
        dkim: vec![dkim],
        arc: ArcChain { result: ArcResult::None, reason: None, sets: Vec::new() },
        dmarc: Dmarc {
            result: DmarcResult::Pass,
            author: Author::Domain(name(author)),
            spf: Alignment::Aligned,
            dkim: Alignment::Aligned,
            policy: DmarcPolicy::Reject,
            published: Some(Published {
                domain: name("example.org"),
                policy: DmarcPolicy::Reject,
                subdomains: DmarcPolicy::Reject,
                nonexistent: DmarcPolicy::Reject,
                dkim_mode: AlignmentMode::Relaxed,
                spf_mode: AlignmentMode::Relaxed,
                testing: Testing::No,
                failure_options: "0".into(),
                aggregate_to: Vec::new(),
                failures_to: Vec::new(),
            }),
        },
        flaw: None,
        tricks: Tricks::NONE,
        unsubscribe: None,
    };
    (digester.finish(), verdict)
}

fn found(zone: &str, (digest, verdict): &(Digest, Verdict)) -> Assertion {
    Zone::parse(zone).run(|facts| discover(facts, digest, verdict)).0
}

/// Result, domain and selector, and why.
fn told(zone: &str, message: &(Digest, Verdict)) -> String {
    match found(zone, message) {
        Assertion::Found(found) => format!("found {} {}", found.domain, found.selector),
        Assertion::Settled(bimi) => {
            let at = bimi.at.map(|(domain, selector)| format!(" {domain} {selector}")).unwrap_or_default();
            let reason = bimi.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{}{at}{reason}", bimi.result.as_str())
        }
    }
}

fn plain(author: &str) -> (Digest, Verdict) {
    message(author, "from", "")
}

/// §8.2, and appendix A of the draft.
#[test]
fn which_record_is_for_a_message() {
    let zone = |lines: &[&str]| format!("{DMARC}{}", lines.join("\n"));
    let at = |place: &str| format!("{place} TXT {RECORD}");
    let default = at("default._bimi.example.org");
    let below = at("default._bimi.sub.example.org");
    let chosen = at("brand._bimi.example.org");
    let selecting = |author| message(author, "from:bimi-selector", "BIMI-Selector: v=BIMI1; s=Brand;\r\n");
    for (records, message, expected) in [
        (vec![&default], plain("example.org"), "found example.org default"),
        (vec![&default], plain("sub.example.org"), "found example.org default"),
        (vec![&default, &below], plain("sub.example.org"), "found sub.example.org default"),
        (vec![], plain("sub.example.org"), "none"),
        (vec![&default, &chosen], selecting("example.org"), "found example.org brand"),
        (vec![&default, &chosen], selecting("sub.example.org"), "found example.org brand"),
        // A selector that there is not is not the default one.
        (vec![&default, &below], selecting("sub.example.org"), "none"),
        // One that is not signed is nobody's, nor is one that makes no sense, nor are two.
        (
            vec![&default, &chosen],
            message("example.org", "from", "BIMI-Selector: v=BIMI1; s=brand\r\n"),
            "found example.org default",
        ),
        (
            vec![&default, &chosen],
            message("example.org", "from:bimi-selector", "BIMI-Selector: s=brand\r\n"),
            "found example.org default",
        ),
        (
            vec![&default, &chosen],
            message("example.org", "from:bimi-selector", "BIMI-Selector: v=BIMI1; s=-brand\r\n"),
            "found example.org default",
        ),
        (
            vec![&default, &chosen],
            message(
                "example.org",
                "from:bimi-selector:bimi-selector",
                "BIMI-Selector: v=BIMI1; s=brand\r\nBIMI-Selector: v=BIMI1; s=brand\r\n",
            ),
            "found example.org default",
        ),
    ] {
        let records: Vec<&str> = records.into_iter().map(String::as_str).collect();
        assert_eq!(told(&zone(&records), &message), expected, "{records:?}");
    }
    // A signature of somebody else says nothing of the selector; nor does one of the organization, where the alignment is strict.
    let mut of_another = selecting("example.org");
    of_another.1.dkim[0].domain = "example.com".into();
    assert_eq!(told(&zone(&[&default, &chosen]), &of_another), "found example.org default");
    of_another.1.dkim[0].domain = "sub.example.org".into();
    assert_eq!(told(&zone(&[&default, &chosen]), &of_another), "found example.org brand");
    of_another.1.dmarc.published.as_mut().unwrap().dkim_mode = AlignmentMode::Strict;
    assert_eq!(told(&zone(&[&default, &chosen]), &of_another), "found example.org default");
    let mut broken = selecting("example.org");
    broken.1.dkim[0].result = DkimResult::Fail;
    assert_eq!(told(&zone(&[&default, &chosen]), &broken), "found example.org default");
}

#[test]
fn records_that_name_no_picture() {
    for (record, expected) in [
        ("TXT v=BIMI1; l=; a=;", "declined example.org default"),
        ("TXT v=BIMI1; l=", "declined example.org default"),
        ("TXT v=BIMI1", "fail example.org default: the BIMI record is malformed"),
        (
            "TXT v=BIMI1; l=http://example.org/x",
            "fail example.org default: a place in the BIMI record is no https:// URL",
        ),
        ("TXT v=BIMI2; l=https://example.org/x", "none"),
        ("TXT something else", "none"),
        ("TIMEOUT", "temperror"),
        ("A 192.0.2.1", "none"),
    ] {
        let zone = format!("{DMARC}default._bimi.example.org {record}");
        assert_eq!(told(&zone, &plain("example.org")), expected, "{record}");
    }
    let two =
        format!("{DMARC}default._bimi.example.org TXT {RECORD}\ndefault._bimi.example.org TXT {RECORD}");
    assert_eq!(
        told(&two, &plain("example.org")),
        "fail example.org default: there is more than one BIMI record"
    );
    // The organization is not asked where the subdomain has declined, or does not answer.
    for (record, expected) in
        [("TXT v=BIMI1; l=", "declined sub.example.org default"), ("TIMEOUT", "temperror")]
    {
        let zone =
            format!("{DMARC}default._bimi.example.org TXT {RECORD}\ndefault._bimi.sub.example.org {record}");
        assert_eq!(told(&zone, &plain("sub.example.org")), expected);
    }
    // A certificate alone is enough: it has the picture.
    let alone = format!("{DMARC}default._bimi.example.org TXT v=BIMI1; l=; a=https://example.org/c.pem");
    assert_eq!(told(&alone, &plain("example.org")), "found example.org default");
}

/// §8.1.
#[test]
fn what_is_in_doubt_has_no_picture() {
    let record = format!("default._bimi.example.org TXT {RECORD}\n");
    for (dmarc, author, expected) in [
        ("p=reject", "example.org", "found"),
        ("p=reject; pct=1", "example.org", "found"),
        ("p=quarantine", "example.org", "found"),
        ("p=quarantine; pct=100", "example.org", "found"),
        (
            "p=quarantine; pct=99",
            "example.org",
            "skipped: the DMARC policy of example.org is not for all mail",
        ),
        ("p=reject; t=y", "example.org", "skipped: the DMARC policy of example.org is there to be tried out"),
        ("p=none", "example.org", "skipped: the DMARC policy of example.org asks for nothing"),
        (
            "p=reject; sp=none",
            "sub.example.org",
            "skipped: the DMARC policy of example.org asks for nothing of subdomains",
        ),
        (
            "p=reject; sp=none",
            "example.org",
            "skipped: the DMARC policy of example.org asks for nothing of subdomains",
        ),
        ("p=reject; sp=quarantine", "sub.example.org", "found"),
    ] {
        let zone = format!("{record}_dmarc.example.org TXT v=DMARC1; {dmarc}");
        let told = told(&zone, &plain(author));
        assert!(told.starts_with(expected), "{dmarc}: {told}");
    }
    // The subdomain's own record does not help where that of the organization is weak.
    let zone = format!(
        "{record}_dmarc.example.org TXT v=DMARC1; p=none\n_dmarc.sub.example.org TXT v=DMARC1; p=reject"
    );
    assert_eq!(
        told(&zone, &plain("sub.example.org")),
        "skipped: the DMARC policy of example.org asks for nothing"
    );
    let zone = format!("{record}{DMARC}");
    let with = |change: fn(&mut Verdict)| {
        let mut message = plain("example.org");
        change(&mut message.1);
        told(&zone, &message)
    };
    assert_eq!(with(|_| {}), "found example.org default");
    assert_eq!(with(|verdict| verdict.dmarc.result = DmarcResult::Fail), "skipped: DMARC does not pass");
    assert_eq!(with(|verdict| verdict.dmarc.result = DmarcResult::None), "skipped: DMARC does not pass");
    assert_eq!(with(|verdict| verdict.dmarc.result = DmarcResult::TempError), "temperror");
    assert_eq!(
        with(|verdict| verdict.dmarc.policy = DmarcPolicy::None),
        "skipped: the DMARC policy asks for nothing"
    );
    assert_eq!(with(|verdict| verdict.dmarc.author = Author::Several), "skipped: there is no one author");
    assert_eq!(
        with(|verdict| verdict.tricks.insert(crate::Trick::SeveralAddresses)),
        "skipped: From is not one plain address"
    );
    for (mechanism, expected) in [
        ("+all", "skipped: SPF lets everybody send, and the author's domain has not signed"),
        ("ALL", "skipped: SPF lets everybody send, and the author's domain has not signed"),
        ("ip4:192.0.2.0/24", "found example.org default"),
    ] {
        let mut message = plain("example.org");
        message.1.envelope.mail_from.mechanism = Some(mechanism.into());
        message.1.dmarc.dkim = Alignment::None;
        assert_eq!(told(&zone, &message), expected);
        message.1.dmarc.dkim = Alignment::Aligned;
        assert_eq!(told(&zone, &message), "found example.org default");
    }
    let signed = message("example.org", "from:bimi-indicator", "");
    assert_eq!(told(&zone, &signed), "skipped: a signature covers fields that only a receiver may write");
}

#[test]
fn what_is_not_known_is_told_as_such() {
    let unknown = "_dmarc.example.org TIMEOUT";
    assert_eq!(told(unknown, &plain("example.org")), "temperror");
    let zone = format!("{DMARC}_dmarc.org TIMEOUT\ndefault._bimi.example.org TXT {RECORD}");
    assert_eq!(told(&zone, &plain("example.org")), "temperror");
}

#[test]
fn what_readers_are_told() {
    let zone = format!("{DMARC}default._bimi.example.org TXT {RECORD}; avp=personal");
    let Assertion::Found(asserted) = found(&zone, &plain("example.org")) else { panic!() };
    let fields = |evidence, indicator| {
        let mut out = Vec::new();
        bimi_fields(&mut out, &asserted, evidence, indicator);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        fields(asserted.record.evidence.as_ref(), Some("BIMI-Indicator: eA==\r\n")),
        "BIMI-Location: v=BIMI1;\r\n\tl=https://example.org/l.svg;\r\n\ta=https://example.org/c.pem;\r\n\
         BIMI-Indicator: eA==\r\nBIMI-Logo-Preference: avp=personal;\r\n"
    );
    assert_eq!(
        fields(None, None),
        "BIMI-Location: v=BIMI1;\r\n\tl=https://example.org/l.svg;\r\nBIMI-Logo-Preference: avp=personal;\r\n"
    );
    for (names, expected) in [
        (&["example.org"][..], true),
        (&["example.com", "Default._bimi.Example.org"], true),
        (&["brand._bimi.example.org", "sub.example.org", "org", "*.example.org", "_bimi.example.org"], false),
        (&[], false),
    ] {
        assert_eq!(covers(names.iter().copied(), &asserted), expected, "{names:?}");
    }
    let bimi = asserted.told(BimiResult::Fail, Some("it has no \"title\""));
    assert_eq!(bimi.at, Some((name("example.org"), "default".into())));
}
