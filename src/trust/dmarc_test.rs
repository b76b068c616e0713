//! What RFC 9989 asks, section by section.

use super::*;
use crate::{
    Algorithm, KeyUse, Limits, SpfIdentity,
    zone::{Zone, digest},
};

fn spf(result: SpfResult, domain: &str) -> Spf {
    Spf {
        result,
        identity: SpfIdentity::MailFrom,
        domain: domain.to_owned(),
        explanation: None,
        mechanism: None,
        problem: None,
    }
}

fn dkim(result: DkimResult, domain: &str) -> Dkim {
    Dkim {
        result,
        reason: None,
        domain: domain.to_owned(),
        selector: "s".to_owned(),
        identity: String::new(),
        algorithm: Some(Algorithm::RsaSha256),
        start_of_b: String::new(),
        key_use: KeyUse::Signing,
    }
}

fn judge_with(zone: &str, from: &str, spf: &Spf, dkim: &[Dkim]) -> (Dmarc, usize, usize) {
    let digest = digest(from.as_bytes(), Limits::default());
    let judge = Judge::new();
    Zone::parse(zone).run(|facts| {
        look_ahead(facts, digest.author());
        check(facts, &judge, &digest, spf, dkim)
    })
}

/// Mail from `a@<domain>` of which nothing passes.
fn failing(zone: &str, domain: &str) -> Dmarc {
    judge_with(zone, &format!("From: a@{domain}\r\n\r\n"), &spf(SpfResult::Fail, domain), &[]).0
}

/// Of mail from `a@sub.example.org`: what comes of SPF for one domain and signatures of others.
fn aligned(record: &str, spf_domain: &str, dkim_domains: &[&str]) -> (DmarcResult, Alignment, Alignment) {
    let zone = format!("_dmarc.example.org TXT {record}");
    let dkim: Vec<_> = dkim_domains.iter().map(|domain| dkim(DkimResult::Pass, domain)).collect();
    let spf = match spf_domain {
        "" => spf(SpfResult::None, "client.example"),
        domain => spf(SpfResult::Pass, domain),
    };
    let (dmarc, _, _) = judge_with(&zone, "From: a@sub.example.org\r\n\r\n", &spf, &dkim);
    (dmarc.result, dmarc.spf, dmarc.dkim)
}

#[test]
fn section_4_10_the_tree_walk() {
    let found =
        |zone: &str, domain: &str| failing(zone, domain).published.map(|record| record.domain.to_string());
    let org = "_dmarc.example.org TXT v=DMARC1; p=reject";
    assert_eq!(found(org, "example.org").as_deref(), Some("example.org"));
    assert_eq!(found(org, "a.b.example.org").as_deref(), Some("example.org"));
    assert_eq!(found(org, "example.com"), None);
    let both = format!("{org}\n_dmarc.a.example.org TXT v=DMARC1; p=none");
    assert_eq!(found(&both, "a.example.org").as_deref(), Some("a.example.org"));
    // From another name the organizational domain's applies.
    assert_eq!(found(&both, "b.a.example.org").as_deref(), Some("example.org"));
    // Eight queries: the name itself, then its last seven labels and what is above.
    let deep = "1.2.3.4.5.6.7.8.9.10.mail.example.org";
    assert_eq!(found(org, deep).as_deref(), Some("example.org"));
    let skipped = "_dmarc.3.4.5.6.7.8.9.10.mail.example.org TXT v=DMARC1; p=reject";
    assert_eq!(found(skipped, deep), None);
    let seventh = "_dmarc.7.8.9.10.mail.example.org TXT v=DMARC1; p=reject";
    assert_eq!(found(seventh, deep).as_deref(), Some("7.8.9.10.mail.example.org"));
    // "psd=n" says that the organization begins here.
    let own = format!("{org}\n_dmarc.a.example.org TXT v=DMARC1; p=none; psd=n");
    assert_eq!(found(&own, "b.a.example.org").as_deref(), Some("a.example.org"));
    // Below a public suffix that has a record.
    let suffix = "_dmarc.example TXT v=DMARC1; p=reject; psd=y";
    assert_eq!(found(suffix, "a.b.example").as_deref(), Some("example"));
}

#[test]
fn a_walk_takes_one_round() {
    let none = spf(SpfResult::Fail, "client.example");
    let (_, rounds, asked) = judge_with("", "From: a@1.2.3.4.5.6.7.8.9.example.org\r\n\r\n", &none, &[]);
    assert_eq!((rounds, asked), (1, 8));
    let (_, rounds, asked) = judge_with("", "From: a@example.org\r\n\r\n", &none, &[]);
    assert_eq!((rounds, asked), (1, 2));
}

#[test]
fn section_4_10_records_that_are_none() {
    let author = "_dmarc.example.org TXT";
    let result = |records: &str| failing(records, "example.org").result;
    assert_eq!(result(&format!("{author} v=DMARC1; p=reject")), DmarcResult::Fail);
    for none in [
        "v=DMARC2; p=reject",
        "v=dmarc1; p=reject",
        "p=reject; v=DMARC1",
        "v=DMARC1",
        "v=DMARC1; p=",
        "v=DMARC1; p=moo",
        "v=DMARC1; p=reject; sp=moo",
        "v=DMARC1; sp=reject",
        "other",
    ] {
        assert_eq!(result(&format!("{author} {none}")), DmarcResult::None, "{none}");
        // It is as if there were none, and not an error: another one may stand beside it.
        let beside = format!("{author} {none}\n{author} v=DMARC1; p=reject");
        let expected = if none.starts_with("v=DMARC1") { DmarcResult::None } else { DmarcResult::Fail };
        assert_eq!(result(&beside), expected, "{none}");
    }
    let twice = format!("{author} v=DMARC1; p=reject\n{author} v=DMARC1; p=none");
    assert_eq!(result(&twice), DmarcResult::None);
    assert_eq!(result(""), DmarcResult::None);
}

#[test]
fn section_4_10_1_a_record_that_only_wants_reports() {
    for record in ["v=DMARC1; rua=mailto:r@example.org", "v=DMARC1; p=moo; rua=mailto:r@example.org"] {
        let dmarc = failing(&format!("_dmarc.example.org TXT {record}"), "example.org");
        assert_eq!((dmarc.result, dmarc.policy), (DmarcResult::Fail, DmarcPolicy::None), "{record}");
        assert_eq!(
            dmarc.published.unwrap().aggregate_to,
            [ReportAddress { address: "r@example.org".to_owned(), size_max: None }]
        );
    }
}

#[test]
fn section_4_7_what_is_wrong_in_the_rest_is_ignored() {
    let record = "v=DMARC1; p=reject; adkim=x; aspf=; fo=9; t=maybe; psd=?; rua=r@x; ruf=%; pct=20; moo; =; a=b=c; p=none";
    let dmarc = failing(&format!("_dmarc.example.org TXT {record}"), "example.org");
    assert_eq!((dmarc.result, dmarc.policy), (DmarcResult::Fail, DmarcPolicy::Reject));
    let expected = Published {
        domain: "example.org".parse().unwrap(),
        policy: DmarcPolicy::Reject,
        subdomains: DmarcPolicy::Reject,
        nonexistent: DmarcPolicy::Reject,
        dkim_mode: AlignmentMode::Relaxed,
        spf_mode: AlignmentMode::Relaxed,
        testing: Testing::No,
        failure_options: "0".to_owned(),
        aggregate_to: Vec::new(),
        failures_to: Vec::new(),
    };
    assert_eq!(dmarc.published, Some(expected));
}

#[test]
fn section_4_7_all_tags() {
    let record = "v=DMARC1; p=Reject ; sp=quarantine; np=none; adkim=s; aspf=S; t=y; fo=1:d:s; \
                  rua=mailto:a@example.org!10m,mailto:b@example.net; ruf=mailto:c@example.org!50k";
    let published = failing(&format!("_dmarc.example.org TXT {record}"), "example.org").published.unwrap();
    assert_eq!(
        (published.policy, published.subdomains, published.nonexistent),
        (DmarcPolicy::Reject, DmarcPolicy::Quarantine, DmarcPolicy::None)
    );
    assert_eq!((published.dkim_mode, published.spf_mode), (AlignmentMode::Strict, AlignmentMode::Strict));
    assert_eq!((published.testing, &*published.failure_options), (Testing::Yes, "1:d:s"));
    let to = |address: &str, size_max| ReportAddress { address: address.to_owned(), size_max };
    assert_eq!(published.aggregate_to, [to("a@example.org", Some(10 << 20)), to("b@example.net", None)]);
    assert_eq!(published.failures_to, [to("c@example.org", Some(50 << 10))]);
    // Of a registry's word about the mail of others, nobody sends it what that is (RFC 9991 §2).
    let registry =
        failing(&format!("_dmarc.example.org TXT {record}; psd=y"), "example.org").published.unwrap();
    assert_eq!((registry.failures_to, registry.aggregate_to.len()), (Vec::new(), 2));
}

#[test]
fn section_4_7_which_policy() {
    let zone = |tags: &str, more: &str| format!("_dmarc.example.org TXT v=DMARC1; {tags}\n{more}");
    let policy = |tags: &str, more: &str, domain: &str| failing(&zone(tags, more), domain).policy;
    let exists = "sub.example.org A 192.0.2.1";
    let exists_otherwise = "sub.example.org TXT x";
    use DmarcPolicy::{None, Quarantine, Reject};
    let all = "p=none; sp=quarantine; np=reject";
    assert_eq!(policy(all, "", "example.org"), None);
    assert_eq!(policy(all, exists, "sub.example.org"), Quarantine);
    assert_eq!(policy(all, exists_otherwise, "sub.example.org"), Quarantine);
    assert_eq!(policy(all, "", "sub.example.org"), Reject);
    // What is not known exists.
    assert_eq!(policy(all, "sub.example.org TIMEOUT", "sub.example.org"), Quarantine);
    assert_eq!(policy("p=reject", "", "sub.example.org"), Reject);
    assert_eq!(policy("p=reject; sp=none", "", "sub.example.org"), None);
    assert_eq!(policy("p=reject; np=none", exists, "sub.example.org"), Reject);
    // "t=y": one step milder.
    assert_eq!(policy("p=reject; t=y", "", "example.org"), Quarantine);
    assert_eq!(policy("p=quarantine; t=y", "", "example.org"), None);
    // What was published is told as it was.
    let published = failing(&zone(all, ""), "sub.example.org").published.unwrap();
    assert_eq!((published.subdomains, published.nonexistent), (Quarantine, Reject));
}

#[test]
fn section_4_10_2_alignment() {
    use Alignment::{Aligned, None, NotAligned};
    let relaxed = "v=DMARC1; p=reject";
    for (record, spf, dkim, expected) in [
        (relaxed, "sub.example.org", &[][..], (DmarcResult::Pass, Aligned, None)),
        (relaxed, "example.org", &[], (DmarcResult::Pass, Aligned, None)),
        (relaxed, "other.example.org", &[], (DmarcResult::Pass, Aligned, None)),
        (relaxed, "EXAMPLE.org", &[], (DmarcResult::Pass, Aligned, None)),
        (relaxed, "notexample.org", &[], (DmarcResult::Fail, NotAligned, None)),
        (relaxed, "example.org.evil.example", &[], (DmarcResult::Fail, NotAligned, None)),
        (relaxed, "org", &[], (DmarcResult::Fail, NotAligned, None)),
        (relaxed, "", &["example.org"], (DmarcResult::Pass, None, Aligned)),
        (relaxed, "", &["evil.example", "a.b.example.org"], (DmarcResult::Pass, None, Aligned)),
        (relaxed, "", &["evil.example"], (DmarcResult::Fail, None, NotAligned)),
        (relaxed, "evil.example", &["evil.example"], (DmarcResult::Fail, NotAligned, NotAligned)),
        (relaxed, "", &[], (DmarcResult::Fail, None, None)),
        ("v=DMARC1; p=reject; aspf=s", "example.org", &[], (DmarcResult::Fail, NotAligned, None)),
        ("v=DMARC1; p=reject; aspf=s", "sub.example.org", &[], (DmarcResult::Pass, Aligned, None)),
        ("v=DMARC1; p=reject; adkim=s", "", &["example.org"], (DmarcResult::Fail, None, NotAligned)),
        ("v=DMARC1; p=reject; adkim=s", "", &["sub.example.org"], (DmarcResult::Pass, None, Aligned)),
    ] {
        assert_eq!(aligned(record, spf, dkim), expected, "{record} {spf} {dkim:?}");
    }
}

#[test]
fn section_4_10_2_another_organization_below() {
    let zone =
        "_dmarc.example.org TXT v=DMARC1; p=reject\n_dmarc.them.example.org TXT v=DMARC1; p=none; psd=n";
    let judge = |from: &str, signer: &str| {
        let none = spf(SpfResult::None, "client.example");
        judge_with(zone, &format!("From: a@{from}\r\n\r\n"), &none, &[dkim(DkimResult::Pass, signer)]).0.dkim
    };
    assert_eq!(judge("sub.example.org", "them.example.org"), Alignment::NotAligned);
    assert_eq!(judge("sub.example.org", "us.example.org"), Alignment::Aligned);
    assert_eq!(judge("a.them.example.org", "b.them.example.org"), Alignment::Aligned);
    assert_eq!(judge("a.them.example.org", "example.org"), Alignment::NotAligned);
}

#[test]
fn only_what_passes_stands_by_anybody() {
    let zone = "_dmarc.example.org TXT v=DMARC1; p=reject";
    let judge = |spf_result, dkim_result| {
        let (spf, dkim) = (spf(spf_result, "example.org"), [dkim(dkim_result, "example.org")]);
        judge_with(zone, "From: a@example.org\r\n\r\n", &spf, &dkim).0.result
    };
    use DmarcResult::{Fail, Pass, TempError};
    for result in
        [SpfResult::None, SpfResult::Neutral, SpfResult::Fail, SpfResult::SoftFail, SpfResult::PermError]
    {
        assert_eq!(judge(result, DkimResult::Fail), Fail, "{result:?}");
        assert_eq!(judge(result, DkimResult::Pass), Pass, "{result:?}");
        assert_eq!(judge(result, DkimResult::TempError), TempError, "{result:?}");
    }
    for result in [DkimResult::Fail, DkimResult::Neutral, DkimResult::Policy, DkimResult::PermError] {
        assert_eq!(judge(SpfResult::Pass, result), Pass, "{result:?}");
        assert_eq!(judge(SpfResult::Fail, result), Fail, "{result:?}");
        assert_eq!(judge(SpfResult::TempError, result), TempError, "{result:?}");
    }
}

#[test]
fn a_record_that_is_not_known_is_not_none() {
    for (zone, domain) in [
        ("_dmarc.example.org TIMEOUT", "example.org"),
        ("_dmarc.example.org TIMEOUT", "sub.example.org"),
        ("_dmarc.sub.example.org TIMEOUT\n_dmarc.example.org TXT v=DMARC1; p=none", "sub.example.org"),
    ] {
        assert_eq!(failing(zone, domain).result, DmarcResult::TempError, "{zone}");
    }
    // Nor can what passed be said to belong to the author, or not.
    let zone = "_dmarc.example.org TXT v=DMARC1; p=reject\n_dmarc.them.example.org TIMEOUT";
    let none = spf(SpfResult::None, "client.example");
    let signed = [dkim(DkimResult::Pass, "them.example.org")];
    let (dmarc, _, _) = judge_with(zone, "From: a@example.org\r\n\r\n", &none, &signed);
    assert_eq!((dmarc.result, dmarc.dkim), (DmarcResult::TempError, Alignment::Unknown));
}

#[test]
fn whom_a_message_is_from() {
    let author = |header: &str| digest(header.as_bytes(), Limits::default()).author().clone();
    let domain = |name: &str| Author::Domain(name.parse().unwrap());
    for (header, expected) in [
        ("From: a@example.org\r\n", domain("example.org")),
        ("from:Ann <a@Example.ORG>\r\n", domain("example.org")),
        ("From : \"a@evil.example\" <a@example.org>\r\n", domain("example.org")),
        ("From: a@example.org (a@evil.example)\r\n", domain("example.org")),
        ("From: =?utf-8?q?a=40evil=2Eexample?= <a@example.org>\r\n", domain("example.org")),
        ("From: a@example.org, b@example.org\r\n", domain("example.org")),
        ("From: Group: a@example.org, b@example.org;\r\n", domain("example.org")),
        ("From: a@bücher.example\r\n", domain("xn--bcher-kva.example")),
        ("From: \r\n Ann\r\n <a@example.org>\r\n", domain("example.org")),
        ("no field\r\nFrom: a@example.org\r\n", domain("example.org")),
        ("", Author::Missing),
        ("From:\r\n", Author::Missing),
        ("From: Ann\r\n", Author::Missing),
        ("Sender: a@example.org\r\n", Author::Missing),
        ("From: a@example.org, b@evil.example\r\n", Author::Several),
        ("From: a@example.org\r\nFrom: a@example.org\r\n", Author::Several),
        ("From: a@example.org\r\nFrom : b@evil.example\r\n", Author::Several),
        ("From: Group: a@example.org; , b@evil.example\r\n", Author::Several),
    ] {
        assert_eq!(author(header), expected, "{header:?}");
    }
    assert_eq!(author(&format!("From: {}a@example.org\r\n", "x ".repeat(8 << 10))), Author::Several);
    assert_eq!(author(&format!("From: {}<a@example.org>\r\n", "x ".repeat(4 << 10))), domain("example.org"));
}

#[test]
fn dmarc_does_not_apply_without_one_author() {
    let zone = "_dmarc.example.org TXT v=DMARC1; p=reject";
    for from in
        ["", "From: a@example.org\r\nFrom: b@example.org\r\n", "From: a@example.org, b@evil.example\r\n"]
    {
        let pass = spf(SpfResult::Pass, "example.org");
        let (dmarc, _, asked) = judge_with(zone, &format!("{from}\r\n"), &pass, &[]);
        assert_eq!((dmarc.result, asked), (DmarcResult::None, 0), "{from}");
        assert!(!matches!(dmarc.author, Author::Domain(_)));
    }
    // A header section that was not read is not one without an author.
    let long = format!("X: {}\r\nFrom: a@example.org\r\n\r\n", "x".repeat(2 << 20));
    let (dmarc, _, _) = judge_with(zone, &long, &spf(SpfResult::Pass, "example.org"), &[]);
    assert_eq!(dmarc.result, DmarcResult::PermError);
}
