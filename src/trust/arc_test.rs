//! Chains of our own making, and what breaks them.

use super::*;
use crate::{
    Case, Digester, Judge, SignerOptions,
    sign::test::{ED25519_KEY, PUBLIC, RSA_KEY},
    zone::{AT, Zone, case, client, digest},
};

const MESSAGE: &str = "From: ann@football.example.com\r\nTo: bob@example.net\r\nSubject: =?utf-8?q?a?=\r\n \tb  c\r\n\
    Received: x\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700\r\nDKIM-Signature: v=0\r\n\r\nHi.  \r\n\r\nBye.\r\n \r\n\r\n";
const TRUSTED: &str = "example.com";

fn signer(key: &str, domain: &str, selector: &str) -> Signer {
    let key = crate::Key::parse(key).unwrap();
    Signer::new(key, &domain.parse().unwrap(), selector, SignerOptions::default()).unwrap()
}

/// RSA, and Ed25519.
fn signers() -> [Signer; 2] {
    [signer(RSA_KEY, "example.com", "ours"), signer(ED25519_KEY, "football.example.com", "brisbane")]
}

fn zone() -> Zone {
    Zone::parse(&[crate::dkim::test::KEYS, PUBLIC].join("\n"))
}

fn judged(zone: &Zone, message: &str) -> Verdict {
    judged_within(zone, message, Limits::default())
}

fn judged_within(zone: &Zone, message: &str, limits: Limits) -> Verdict {
    let digest = digest(message.as_bytes(), limits);
    let mut case: Case = case("192.0.2.1", "client.example", "", limits);
    zone.message(&mut case, &Judge::new(), &digest)
}

fn chain(message: &str) -> ArcChain {
    judged(&zone(), message).arc
}

/// What is said, in short.
fn say(message: &str) -> (ArcResult, Option<ArcReason>) {
    let ArcChain { result, reason, .. } = chain(message);
    (result, reason)
}

fn broken(instance: u32, reason: Reason) -> (ArcResult, Option<ArcReason>) {
    (ArcResult::Fail, Some(ArcReason::Broken(instance, reason)))
}

/// The message with a set of this signer before it, by what is found of it with these records.
fn sealed_by(zone: &Zone, message: &str, signer: &Signer) -> String {
    let mut digester = Digester::new(Limits::default()).verifying().signing([signer]);
    message.as_bytes().chunks(7).for_each(|slice| digester.push(slice));
    let digest = digester.finish();
    let mut case: Case = case("192.0.2.1", "client.example", "", Limits::default());
    let verdict = zone.message(&mut case, &Judge::new(), &digest);
    let mut out = Vec::new();
    let client = client("192.0.2.1", "client.example", "");
    signer.seal(&mut out, &digest, ("mx.example", &client, &verdict), AT).unwrap();
    String::from_utf8(out).unwrap() + message
}

fn passed_on(times: usize) -> String {
    let signers = signers();
    (0..times).fold(MESSAGE.to_owned(), |message, hop| {
        // Whoever passes mail on writes something before it.
        let message = format!("Received: by hop {hop}\r\n{message}");
        sealed_by(&zone(), &message, &signers[hop % 2])
    })
}

#[test]
fn what_is_passed_on_can_be_followed() {
    assert_eq!(chain(MESSAGE), ArcChain::NONE);
    for times in 1..5 {
        let chain = chain(&passed_on(times));
        assert_eq!((chain.result, chain.reason, chain.instance()), (ArcResult::Pass, None, times));
        let domains = ["example.com", "football.example.com"].into_iter().cycle();
        assert!(chain.sets.iter().map(|set| &*set.domain).eq(domains.take(times)), "{chain:?}");
    }
}

#[test]
fn our_sets_are_as_the_rfc_has_them() {
    let message = passed_on(2);
    let lines: Vec<_> = message.split("\r\n").collect();
    assert!(lines.iter().all(|line| line.len() <= 78), "{message}");
    // "ARC-Seal, ARC-Message-Signature, ARC-Authentication-Results" in this order (RFC 8617 §5.1), the newest before all.
    let names: Vec<_> = lines.iter().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
    assert_eq!(names[..4], [SEAL, SIGNATURE, RESULTS, "Received"], "{message}");
    assert!(
        message.starts_with(
            "ARC-Seal: i=2; a=ed25519-sha256; t=1528637909; cv=pass;\r\n\td=football.example.com;"
        )
    );
    assert!(message.contains("ARC-Seal: i=1; a=rsa-sha256; t=1528637909; cv=none;"), "{message}");
    assert!(message.contains("ARC-Authentication-Results: i=2; mx.example;\r\n\tiprev="), "{message}");
    assert!(message.contains("arc=pass (i=1, sealed by example.com)"), "{message}");
    assert!(message.contains("h=from:subject:date:to:dkim-signature;"), "{message}");
}

#[test]
fn who_changes_anything_breaks_the_chain() {
    let message = passed_on(2);
    assert_eq!(say(&message.replace("Subject: =", "Subject: +")), broken(2, Reason::Signature));
    assert_eq!(say(&message.replace("Bye.", "Buy!")), broken(2, Reason::BodyHash));
    // The results of the first are sealed by both.
    let forged = message.replace("i=1; mx.example", "i=1; mx.forged!");
    assert_eq!(say(&forged), broken(2, Reason::Signature));
    // White space is no change.
    assert_eq!(say(&message.replace("To: bob@example.net", "TO:  bob@example.net ")).0, ArcResult::Pass);
    // A second subject, or one more From, is no part of what was signed; DKIM and DMARC see to these.
    assert_eq!(say(&format!("Received: later\r\n{message}")).0, ArcResult::Pass);
}

#[test]
fn chains_that_are_none() {
    let message = passed_on(2);
    let without = |name: &str, instance: usize| {
        let header_end = message.find("\r\n\r\n").unwrap() + 2;
        let (header, body) = message.split_at(header_end);
        let fields = crate::fields::fields(header.as_bytes());
        let kept = fields.filter(|field| {
            let is_it = field.is(header.as_bytes(), name)
                && instance_of(field.value(header.as_bytes())) == Some(instance as u32);
            !is_it
        });
        kept.map(|field| &header[field.range()]).collect::<String>() + body
    };
    let malformed = (ArcResult::Fail, Some(ArcReason::Malformed));
    for name in [SEAL, SIGNATURE, RESULTS] {
        for instance in [1, 2] {
            assert_eq!(say(&without(name, instance)), malformed, "{name} {instance}");
        }
    }
    for (from, to) in [
        ("cv=pass", "cv=none"),
        ("cv=none", "cv=pass"),
        ("cv=pass", "cv=perhaps"),
        ("cv=pass;", "cv=pass; h=from;"),
        ("i=2; a=ed25519-sha256; t", "i=3; a=ed25519-sha256; t"),
        ("i=2; a=ed25519-sha256; t", "i=1; a=ed25519-sha256; t"),
        ("i=2; a=ed25519-sha256; t", "i=0; a=ed25519-sha256; t"),
        ("i=2; a=ed25519-sha256; t", "a=ed25519-sha256; t"),
        ("a=rsa-sha256; t", "a=rsa-sha1; t"),
        ("h=from:", "h=arc-seal:from:"),
        ("bh=", "bh=;"),
        ("i=1; mx.example", "mx.example"),
    ] {
        let changed = message.replacen(from, to, 1);
        assert!(changed != message, "{from}");
        assert_eq!(say(&changed), malformed, "{from} {to}");
    }
    let failed = message.replacen("cv=pass", "cv=fail", 1);
    assert_eq!(say(&failed), (ArcResult::Fail, Some(ArcReason::FailedBefore)));
    let long = message.replacen("i=2; a=ed25519-sha256; t", "i=51; a=ed25519-sha256; t", 1);
    assert_eq!(say(&long), (ArcResult::Fail, Some(ArcReason::TooLong)));
    // What others could add to without breaking it.
    let part = message.replacen("; c=relaxed/relaxed", "; c=relaxed/relaxed; l=1", 1);
    assert_eq!(say(&part), broken(2, Reason::BodyLength));
    let over = message.replacen("; c=relaxed/relaxed", "; c=relaxed/relaxed; x=1", 1);
    assert_eq!(say(&over), broken(2, Reason::Expired));
}

#[test]
fn keys_are_looked_up() {
    let message = passed_on(2);
    let judged = |records: &str| {
        let arc = judged(&Zone::parse(records), &message).arc;
        (arc.result, arc.reason)
    };
    assert_eq!(judged(""), broken(2, Reason::NoKey));
    let unknown = "brisbane._domainkey.football.example.com TIMEOUT";
    let unavailable = Some(ArcReason::Broken(2, Reason::KeyUnavailable));
    assert_eq!(judged(unknown), (ArcResult::TempError, unavailable));
    // The key of the first is needed for its seal alone.
    assert_eq!(judged(crate::dkim::test::KEYS), broken(1, Reason::NoKey));
}

#[test]
fn keys_are_long_enough_and_for_this() {
    let with = |zone: &Zone, limits, times| {
        let arc = judged_within(zone, &passed_on(times), limits).arc;
        (arc.result, arc.reason)
    };
    let limits = Limits::default();
    let long = Limits { rsa_bits_min: 3072, ..limits };
    assert_eq!(with(&zone(), long, 1), broken(1, Reason::KeyTooShort));
    // The newest is by Ed25519, whose length says nothing: it is the seal before it that does not count.
    assert_eq!(with(&zone(), long, 2), broken(1, Reason::KeyTooShort));
    for (hashes, expected) in [
        ("sha1", broken(1, Reason::KeyNotForThis)),
        ("sha256", (ArcResult::Pass, None)),
        ("sha1:sha256", (ArcResult::Pass, None)),
    ] {
        let records = PUBLIC.replace("k=rsa;", &format!("k=rsa; h={hashes};"));
        assert_ne!(records, PUBLIC);
        assert_eq!(with(&Zone::parse(&records), limits, 1), expected, "{hashes}");
    }
}

#[test]
fn a_broken_chain_is_sealed_as_one_and_not_beyond() {
    let signers = signers();
    let changed = passed_on(1).replace("Bye.", "Buy!");
    let resealed = sealed_by(&zone(), &changed, &signers[1]);
    assert!(resealed.starts_with("ARC-Seal: i=2; a=ed25519-sha256; t=1528637909; cv=fail;"), "{resealed}");
    assert_eq!(say(&resealed), (ArcResult::Fail, Some(ArcReason::FailedBefore)));
    // "Participants MUST NOT add a set" to a chain that has failed (RFC 8617 §5.1).
    assert_eq!(sealed_by(&zone(), &resealed, &signers[0]), resealed);
    // A key that is not known for now breaks no chain for ever.
    let unknown = Zone::parse("ours._domainkey.example.com TIMEOUT");
    let waiting = passed_on(1);
    assert_eq!(sealed_by(&unknown, &waiting, &signers[1]), waiting);
}

#[test]
fn whom_to_believe_is_for_the_operator() {
    let set = |domain: &str, dmarc| ArcSet {
        domain: domain.into(),
        selector: "s".into(),
        dmarc,
        author: AuthorSigned::Yes,
    };
    let chain = |result, sets: &[ArcSet]| ArcChain { result, reason: None, sets: sets.to_vec() };
    let (pass, other) = (ArcDmarc::Pass, ArcDmarc::Other);
    let vouches = |chain: ArcChain| chain.vouches(|domain| domain == TRUSTED);
    assert!(vouches(chain(ArcResult::Pass, &[set(TRUSTED, pass)])));
    // Who comes first says that it had passed, and who comes behind is believed as well.
    assert!(vouches(chain(ArcResult::Pass, &[set(TRUSTED, pass), set(TRUSTED, other)])));
    assert!(!vouches(chain(ArcResult::Pass, &[set(TRUSTED, pass), set("evil.example", pass)])));
    assert!(vouches(chain(ArcResult::Pass, &[set("evil.example", pass), set(TRUSTED, pass)])));
    assert!(!vouches(chain(ArcResult::Pass, &[set("evil.example", pass), set(TRUSTED, other)])));
    assert!(!vouches(chain(ArcResult::Fail, &[set(TRUSTED, pass)])));
    // What is said of a message whose author anybody may have changed says nothing.
    let open = ArcSet { author: AuthorSigned::No, ..set(TRUSTED, pass) };
    assert!(!vouches(chain(ArcResult::Pass, &[open])));
    for (results, expected) in [
        (" i=1; mx; dmarc=pass header.from=x", pass),
        (" i=1; mx; spf=fail; DMARC = pass (p=none)", pass),
        (" i=1; mx (dmarc=pass); dmarc=fail", other),
        (" i=1; mx; dmarc=fail; dmarc=pass", other),
        (" i=1; mx; x-dmarc=pass", other),
        (" i=1; mx; dmarc=passed", other),
        (" i=1; mx; (dmarc=pass", other),
    ] {
        assert_eq!(dmarc_of(results.as_bytes()), expected, "{results}");
    }
}
