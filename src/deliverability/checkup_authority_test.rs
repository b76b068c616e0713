//! Signatures, and what holds them and SPF to the author.

use super::*;

#[test]
fn signatures() {
    let world = World::new();
    let (rsa, record) = ("r1._domainkey.example.org", world.plan.signers[0].record().to_owned());
    let publish = format!(" => {}", crate::Record::text(rsa, record.clone()));
    let with = |text: &str| {
        world_of(&world).with(rsa, &if text.is_empty() { String::new() } else { format!("{rsa} TXT {text}") })
    };
    let both = |text: &str, why: &str| {
        [
            format!("fail {rsa}: {text}{publish}"),
            format!("fail {rsa}: a message signed with this key does not verify: {why}{publish}"),
        ]
    };
    let check =
        |text: &str, expected: &[String]| assert_eq!(with(text).says(Check::Dkim), expected, "{text}");
    check("", &both("the key that signs is not published", "no key for signature"));
    let other = trust::record(&new_key(KeyKind::Rsa2048).unwrap()).unwrap();
    check(
        &other,
        &both("the key that is published is another than the one that signs", "signature did not verify"),
    );
    // It may be known to others: it is not published once more.
    check("v=DKIM1; k=rsa; p=", &[format!("fail {rsa}: the key is given up (an empty p=), and still signs")]);
    check("v=DKIM1; k=rsa", &both("the record is no key", "malformed key"));
    check(
        &format!("{record}; h=sha1"),
        &both(
            "the record is for another algorithm, hash or service (k=, h=, s=)",
            "key is not for this signature",
        ),
    );
    check(
        &format!("{record}; t=y"),
        &[format!(
            "warn {rsa}: the record says that this is a trial (t=y), so that others need not count it{publish}"
        )],
    );
    check(
        "TIMEOUT",
        &[
            // Nothing is wrong with it as long as nobody knows.
            format!("warn {rsa}: the DNS does not tell now which key is there"),
        ],
    );
    let several = world_of(&world).and(&format!("{rsa} TXT {record}; n=again"));
    assert_eq!(
        several.says(Check::Dkim),
        [format!("fail {rsa}: there is more than one record, and hosts choose any of them{publish}")]
    );
    let mut alone = world_of(&world);
    alone.plan.signers.remove(1);
    assert_eq!(alone.says(Check::Dkim), ["note example.org: there is no key of Ed25519 beside that of RSA"]);
    let mut alone = world_of(&world);
    alone.plan.signers.remove(0);
    assert_eq!(
        alone.says(Check::Dkim),
        ["warn example.org: there is a key of Ed25519 alone, which many hosts cannot verify"]
    );
    let mut none = world_of(&world);
    none.plan.signers.clear();
    assert_eq!(none.says(Check::Dkim), ["fail example.org: mail of the domain is not signed"]);
}

/// The same keys once more.
fn world_of(world: &World) -> World {
    World { plan: world.plan.clone(), zone: world.zone.clone(), ..World::new() }
}

#[test]
fn what_holds_it_together() {
    let at = "_dmarc.example.org";
    let dmarc = |text: &str| World::new().with(at, &format!("{at} TXT {text}"));
    let new = " => _dmarc.example.org. IN TXT \"v=DMARC1; p=none; rua=mailto:dmarc-reports@example.org\"";
    check(
        World::new().with(at, ""),
        Check::Dmarc,
        &[&format!(
            "fail {at}: there is no DMARC record, which large providers want of whoever sends much{new}"
        )],
    );
    check(
        World::new().and(&format!("{at} TXT v=DMARC1; p=none")),
        Check::Dmarc,
        &[&format!(
            "fail {at}: there is more than one DMARC record, so that none counts (RFC 9989 §4.10){new}"
        )],
    );
    check(
        dmarc("v=DMARC1; p=refuse"),
        Check::Dmarc,
        &[&format!("fail {at}: the DMARC record has no policy (p=), or one that is none{new}")],
    );
    check(
        dmarc("p=reject; v=DMARC1"),
        Check::Dmarc,
        &[&format!(
            "fail {at}: a text there looks like a DMARC record, and does not begin with v=DMARC1{new}"
        )],
    );
    check(
        dmarc("TIMEOUT"),
        Check::Dmarc,
        &[&format!("warn {at}: the DNS does not tell now whether there is a DMARC record")],
    );
    let rua = "rua=mailto:dmarc@example.org";
    check(
        dmarc(&format!("v=DMARC1; p=none; {rua}")),
        Check::Dmarc,
        &[&format!("note {at}: the policy is p=none: forged mail is as welcome as yours")],
    );
    check(
        dmarc(&format!("v=DMARC1; p=reject; t=y; {rua}")),
        Check::Dmarc,
        &[&format!("note {at}: the policy is p=reject, for a trial (t=y)")],
    );
    check(
        dmarc(&format!("v=DMARC1; p=reject; sp=none; {rua}")),
        Check::Dmarc,
        &[&format!("note {at}: the policy for domains below it is milder: sp=none, where p=reject")],
    );
    check(
        dmarc("v=DMARC1; p=reject"),
        Check::Dmarc,
        &[&format!("note {at}: nobody is told how mail of the domain fares: no rua= names an address")],
    );
    check(
        dmarc("v=DMARC1; p=reject; rua=mailto:a@none.example"),
        Check::Dmarc,
        &[
            &format!("warn {at}: reports to a@none.example go nowhere: none.example takes no mail"),
            &format!(
                "warn {at}: reports to a@none.example are not sent: none.example does not say that it wants them => \
                    example.org._report._dmarc.none.example. IN TXT \"v=DMARC1\""
            ),
        ],
    );
    let outside = "rep.example MX 10 mx.example.org\nexample.org._report._dmarc.rep.example TXT v=DMARC1";
    check(dmarc("v=DMARC1; p=reject; rua=mailto:a@rep.example").and(outside), Check::Dmarc, &[]);
}

#[test]
fn what_stands_by_the_author() {
    let dmarc = |world: &World| world.says(Check::Dmarc);
    let spf = World::new().with("example.org TXT", "example.org TXT v=spf1 -all");
    assert_eq!(
        dmarc(&spf),
        ["note example.org: mail passes by a signature alone: SPF does not stand by the author"]
    );
    let mut unsigned = World::new();
    unsigned.plan.signers.clear();
    assert_eq!(
        dmarc(&unsigned),
        [
            "warn example.org: mail passes by SPF alone, and not once it is forwarded: no signature stands by the \
                author"
        ]
    );
    unsigned = unsigned.with("example.org TXT", "");
    assert_eq!(
        dmarc(&unsigned),
        ["fail example.org: mail does not pass: neither SPF nor a signature stands by the author"]
    );
}
