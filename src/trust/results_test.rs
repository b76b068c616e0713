//! The fields we write, and those that others wrote in our name.

use super::*;
use crate::{
    Algorithm, BimiAuthority, BimiResult, DkimResult, DmarcPolicy, EnvelopeVerdict, IprevResult, Limits,
    Published, Reason, SpfProblem,
    zone::{RECEIVER, client, digest},
};

fn spf_of(result: SpfResult, identity: SpfIdentity, domain: &str) -> Spf {
    Spf { result, identity, domain: domain.to_owned(), explanation: None, mechanism: None, problem: None }
}

fn verdict() -> Verdict {
    Verdict {
        envelope: EnvelopeVerdict {
            iprev: Iprev {
                result: IprevResult::Pass,
                address: "192.0.2.1".parse().unwrap(),
                name: Some("client.example.org".parse().unwrap()),
            },
            helo: spf_of(SpfResult::None, SpfIdentity::Helo, "client.example.org"),
            mail_from: spf_of(SpfResult::Pass, SpfIdentity::MailFrom, "example.org"),
        },
        dkim: vec![
            Dkim {
                result: DkimResult::Pass,
                reason: None,
                domain: "example.org".to_owned(),
                selector: "s1".to_owned(),
                identity: String::new(),
                algorithm: Some(Algorithm::Ed25519Sha256),
                start_of_b: "a/b+cdef".to_owned(),
                key_use: KeyUse::Signing,
            },
            Dkim {
                result: DkimResult::Fail,
                reason: Some(Reason::BodyHash),
                domain: "list.example".to_owned(),
                selector: "s2".to_owned(),
                identity: "@sub.list.example".to_owned(),
                algorithm: Some(Algorithm::RsaSha256),
                start_of_b: "abcdefgh".to_owned(),
                key_use: KeyUse::Testing,
            },
        ],
        dmarc: Dmarc {
            result: DmarcResult::Pass,
            author: Author::Domain("example.org".parse().unwrap()),
            spf: Alignment::Aligned,
            dkim: Alignment::Aligned,
            policy: DmarcPolicy::Reject,
            published: Some(Published {
                domain: "example.org".parse().unwrap(),
                policy: DmarcPolicy::Reject,
                subdomains: DmarcPolicy::Reject,
                nonexistent: DmarcPolicy::Reject,
                dkim_mode: crate::AlignmentMode::Relaxed,
                spf_mode: crate::AlignmentMode::Relaxed,
                testing: crate::Testing::No,
                failure_options: "0".to_owned(),
                aggregate_to: Vec::new(),
                failures_to: Vec::new(),
            }),
        },
        arc: crate::ArcChain::NONE,
        flaw: None,
        tricks: crate::Tricks::NONE,
        unsubscribe: None,
    }
}

fn results(client: &Client, verdict: &Verdict) -> String {
    let mut out = Vec::new();
    authentication_results(&mut out, RECEIVER, client, verdict);
    String::from_utf8(out).unwrap()
}

#[test]
fn what_is_told_of_a_picture() {
    let client = client("192.0.2.1", "client.example.org", "ann@example.org");
    let told = |bimi: &Bimi| {
        let mut out = Vec::new();
        authentication_results_with(&mut out, RECEIVER, (&client, &verdict()), Some(bimi));
        let text = String::from_utf8(out).unwrap();
        text.split_once("policy.dmarc=reject;\r\n\t").unwrap().1.to_owned()
    };
    let at = Some(("example.org".parse().unwrap(), "default".into()));
    let pass = Bimi {
        at: at.clone(),
        authority: Some(BimiAuthority::Pass),
        hash: Some("b410ff61f20015ad".into()),
        ..Bimi::of(BimiResult::Pass)
    };
    assert_eq!(
        told(&pass),
        "bimi=pass header.d=example.org header.selector=default policy.authority=pass\r\n\
         \tpolicy.indicator-hash=b410ff61f20015ad\r\n"
    );
    // A web server's words, and those of whoever wrote the file.
    let fail = Bimi {
        reason: Some("it has an element that is not allowed: a\"; dkim=pass\r\nX: y".into()),
        at,
        authority: Some(BimiAuthority::Fail),
        ..Bimi::of(BimiResult::Fail)
    };
    assert_eq!(
        told(&fail),
        "bimi=fail reason=\"it has an element that is not allowed: a\\\"; dkim=passX: y\"\r\n\
         \theader.d=example.org header.selector=default policy.authority=fail\r\n"
    );
    assert_eq!(told(&Bimi::of(BimiResult::None)), "bimi=none\r\n");
    assert_eq!(told(&Bimi::skipped("x")), "bimi=skipped reason=\"x\"\r\n");
}

fn received(client: &Client, spf: &Spf) -> String {
    let mut out = Vec::new();
    received_spf(&mut out, RECEIVER, client, spf);
    String::from_utf8(out).unwrap()
}

#[test]
fn authentication_results_of_a_message() {
    let client = client("192.0.2.1", "client.example.org", "ann@example.org");
    assert_eq!(
        results(&client, &verdict()),
        "Authentication-Results: mx.example;\r\n\
         \tiprev=pass policy.iprev=192.0.2.1 (client.example.org);\r\n\
         \tspf=pass smtp.mailfrom=ann@example.org;\r\n\
         \tspf=none smtp.helo=client.example.org;\r\n\
         \tdkim=pass header.d=example.org header.s=s1 header.a=ed25519-sha256\r\n\
         \theader.b=\"a/b+cdef\";\r\n\
         \tdkim=fail reason=\"body hash did not verify\" (testing) header.d=list.example\r\n\
         \theader.s=s2 header.i=@sub.list.example header.a=rsa-sha256 header.b=abcdefgh;\r\n\
         \tdmarc=pass (spf aligned, dkim aligned) header.from=example.org\r\n\
         \tpolicy.dmarc=reject\r\n"
    );
}

#[test]
fn authentication_results_of_nothing() {
    let client = client("2001:db8::1", "client", "");
    let mut verdict = verdict();
    verdict.dkim.clear();
    verdict.envelope.iprev = Iprev { result: IprevResult::PermError, address: client.address, name: None };
    verdict.envelope.mail_from = spf_of(SpfResult::None, SpfIdentity::MailFrom, "client");
    verdict.dmarc = Dmarc {
        result: DmarcResult::None,
        author: Author::Missing,
        spf: Alignment::None,
        dkim: Alignment::None,
        policy: DmarcPolicy::None,
        published: None,
    };
    assert_eq!(
        results(&client, &verdict),
        "Authentication-Results: mx.example;\r\n\
         \tiprev=permerror policy.iprev=\"2001:db8::1\";\r\n\
         \tspf=none smtp.mailfrom=postmaster@client;\r\n\
         \tspf=none smtp.helo=client.example.org;\r\n\
         \tdkim=none;\r\n\
         \tdmarc=none (no author)\r\n"
            .replace("smtp.helo=client.example.org", "smtp.helo=client")
    );
}

#[test]
fn received_spf_of_an_identity() {
    let client = client("192.0.2.1", "client.example.org", "ann@example.org");
    let mut spf = spf_of(SpfResult::Pass, SpfIdentity::MailFrom, "example.org");
    spf.mechanism = Some("ip4:192.0.2.0/24".to_owned());
    assert_eq!(
        received(&client, &spf),
        "Received-SPF: pass (mx.example: example.org permits 192.0.2.1)\r\n\
         \treceiver=mx.example; client-ip=192.0.2.1; envelope-from=\"ann@example.org\";\r\n\
         \thelo=client.example.org; identity=mailfrom; mechanism=\"ip4:192.0.2.0/24\";\r\n"
    );
    let mut spf = spf_of(SpfResult::PermError, SpfIdentity::Helo, "client.example.org");
    spf.problem = Some(SpfProblem::TooManyTerms);
    let field = received(&client, &spf);
    assert!(
        field.contains("identity=helo;") && field.contains("problem=\"too many DNS look-ups\";"),
        "{field}"
    );
}

/// A field, whatever it holds, is one field: no line of it begins another or is too long.
fn check_field(field: &str) {
    assert!(field.ends_with("\r\n"));
    for (i, line) in field[..field.len() - 2].split("\r\n").enumerate() {
        assert_eq!(i > 0, line.starts_with('\t'), "{field}");
        assert!(line.len() <= 998 && line.bytes().all(|b| b >= b' ' || b == b'\t'), "{field}");
    }
    assert_eq!(uncommented(field).map(|plain| plain.matches(';').count() > 0), Some(true), "{field}");
}

#[test]
fn what_peers_say_stays_in_its_place() {
    for evil in [
        "x\r\nSubject: evil",
        "a b; dmarc=pass header.from=evil.example",
        "\"; spf=pass \"",
        "\\\"; spf=pass",
        "(); spf=pass (",
        ")",
        "ä\u{0}\u{85}\u{7f}",
        &"y".repeat(5000),
        &"\\\"".repeat(3000),
    ] {
        let client =
            Client { helo: evil.to_owned(), ..client("192.0.2.1", "", "\"a b;c\\\"d\"@example.org") };
        let mut verdict = verdict();
        for spf in [&mut verdict.envelope.helo, &mut verdict.envelope.mail_from] {
            spf.domain = evil.to_owned();
            spf.mechanism = Some(evil.to_owned());
            check_field(&received(&client, spf));
        }
        for dkim in &mut verdict.dkim {
            for value in [&mut dkim.domain, &mut dkim.selector, &mut dkim.identity, &mut dkim.start_of_b] {
                evil.clone_into(value);
            }
        }
        let field = results(&client, &verdict);
        check_field(&field);
        assert_eq!(semicolons(&field), 6, "{field}");
    }
}

/// How many results a field has for whoever reads it by the grammar.
fn semicolons(field: &str) -> usize {
    let plain = uncommented(field).unwrap();
    let (mut count, mut quoted) = (0, false);
    let mut characters = plain.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => drop(characters.next()),
            '"' => quoted = !quoted,
            ';' if !quoted => count += 1,
            _ => {}
        }
    }
    count
}

/// The fields of a message that are found to be forged, by their first words.
fn forged(header: &str) -> Vec<&str> {
    let digest = digest(format!("{header}\r\nbody").as_bytes(), Limits::default());
    let forged = digest.forged_results(RECEIVER);
    forged.into_iter().map(|range| header[range].trim_end()).collect()
}

#[test]
fn what_others_wrote_in_our_name() {
    for ours in [
        "Authentication-Results: mx.example; spf=pass",
        "authentication-results:MX.Example;spf=pass",
        "Authentication-Results : mx.example 1; none",
        "Authentication-Results: mx.example",
        "Authentication-Results:\r\n\tmx.example\r\n ; spf=pass",
        "Authentication-Results: (a (b) \\) c) mx.example (d); spf=pass",
        "Authentication-Results: \"mx.example\"; spf=pass",
        "Authentication-Results: \"mx.exa\\mple\"; spf=pass",
        // What others make of these is not known.
        "Authentication-Results: (mx.example; spf=pass",
        "Authentication-Results: \"mx.example; spf=pass",
        "Received-SPF: pass (x) receiver=mx.example; client-ip=192.0.2.1",
        "Received-SPF: pass\r\n client-ip=192.0.2.1; RECEIVER=\"MX.example\"",
        "BIMI-Location: v=BIMI1; l=https://example.org/x.svg",
        "bimi-indicator :\r\n\tPHN2Zz4=",
        "BIMI-Logo-Preference: avp=brand",
    ] {
        let header = format!("Received: a\r\n{ours}\r\nFrom: a@example.org\r\n");
        assert_eq!(forged(&header), [ours]);
    }
    for theirs in [
        "Authentication-Results: other.example; spf=pass smtp.mailfrom=mx.example",
        "Authentication-Results: notmx.example; spf=pass",
        "Authentication-Results: mx.example.evil.example; spf=pass",
        "Authentication-Results: other.example (mx.example); spf=pass",
        "ARC-Authentication-Results: i=1; mx.example; spf=pass",
        "X-Authentication-Results: mx.example; spf=pass",
        "Received-SPF: pass receiver=other.example; client-ip=192.0.2.1",
        "Received-SPF: pass (receiver=mx.example) client-ip=192.0.2.1",
    ] {
        assert_eq!(forged(&format!("{theirs}\r\n")), Vec::<&str>::new(), "{theirs}");
    }
}

#[test]
fn all_of_them_are_found() {
    let one = "Authentication-Results: mx.example; none\r\n";
    let other = "Authentication-Results: other.example; none\r\n";
    // Also where there are more fields than are judged.
    let header = [one, other, &"A: b\r\n".repeat(2000), one, one, other, one].concat();
    assert_eq!(forged(&header).len(), 4);
}
