//! Our addresses, and who may send.

use super::*;

#[test]
fn names_of_addresses() {
    let ptr = "192.0.2.1 PTR";
    let remedy = " => 1.2.0.192.in-addr.arpa. IN PTR mx.example.org.";
    check(
        World::new().with(ptr, ""),
        Check::Ptr,
        &[&format!("fail 192.0.2.1: it has no name (PTR){remedy}")],
    );
    check(
        World::new().with(ptr, "192.0.2.1 PTR other.example\nother.example A 192.0.2.9"),
        Check::Ptr,
        &[
            "fail 192.0.2.1: its name is other.example, which does not lead back to it => other.example. IN A \
                192.0.2.1",
        ],
    );
    check(
        World::new().with(ptr, "192.0.2.1 PTR TIMEOUT"),
        Check::Ptr,
        &["warn 192.0.2.1: the DNS does not tell now whether it has a name"],
    );
    check(
        World::new()
            .with(ptr, "192.0.2.1 PTR static-1-2-0-192.example\nstatic-1-2-0-192.example A 192.0.2.1"),
        Check::Ptr,
        &[&format!(
            "note 192.0.2.1: its name is static-1-2-0-192.example, which leads back to it, and looks like one that \
                a provider gives to any address{remedy}"
        )],
    );
    let mut world = World::new();
    world.plan.addresses.clear();
    check(world, Check::Ptr, &["warn example.org: it is not known from which addresses mail leaves"]);
}

#[test]
fn what_we_greet_as() {
    let greets = |ehlo: &str| {
        let mut world = World::new();
        world.plan.addresses[0].ehlo = ehlo.into();
        world
    };
    check(
        greets("localhost"),
        Check::Helo,
        &["fail 192.0.2.1: it greets as \"localhost\", which is no name that the world knows"],
    );
    // Nor is a record for it.
    assert_eq!(greets("mail.lan").says(Check::Helo).len(), 1);
    assert_eq!(greets("[192.0.2.1]").says(Check::Helo).len(), 1);
    check(
        greets("none.example.org"),
        Check::Helo,
        &[
            "fail 192.0.2.1: it greets as none.example.org, which has no address of its family => none.example.org. \
                IN A 192.0.2.1",
            "note none.example.org: none.example.org, as which we greet, has no SPF record: whoever likes greets as \
                we do => none.example.org. IN TXT \"v=spf1 ip4:192.0.2.1 -all\"",
        ],
    );
    check(
        greets("mx2.example.org").and("mx2.example.org A 192.0.2.1\nmx2.example.org TXT v=spf1 a -all"),
        Check::Helo,
        &[
            "note 192.0.2.1: it greets as mx2.example.org, which leads to it, and is not the name that it has (PTR) \
                => 1.2.0.192.in-addr.arpa. IN PTR mx2.example.org.",
        ],
    );
    check(
        greets("mx2.example.org").and("mx2.example.org A 192.0.2.7\nmx2.example.org TXT v=spf1 a -all"),
        Check::Helo,
        &[
            "warn 192.0.2.1: it greets as mx2.example.org, which is another's: 192.0.2.7",
            "fail mx2.example.org: by its own SPF record 192.0.2.1 may not greet as mx2.example.org: fail => \
                mx2.example.org. IN TXT \"v=spf1 ip4:192.0.2.1 a -all\"",
        ],
    );
}

#[test]
fn lists_of_the_dns() {
    check(
        World::new()
            .and("1.2.0.192.bl.example A 127.0.0.2\n1.2.0.192.bl.example TXT seen on 2026-11-29\u{7}"),
        Check::Dnsbl,
        &["fail 192.0.2.1: it is on the list bl (127.0.0.2): seen on 2026-11-29\u{fffd}"],
    );
    check(
        World::new().and("example.org.bl.example A 127.0.0.3"),
        Check::Dnsbl,
        &["fail example.org: it is on the list bl (127.0.0.3)"],
    );
    check(
        World::new().and("1.2.0.192.bl.example A 127.255.255.254"),
        Check::Dnsbl,
        &["note example.org: not all lists could be asked: bl refuses to answer (127.255.255.254)"],
    );
    check(
        World::new().and("1.2.0.192.bl.example A TIMEOUT\nexample.org.bl.example A TIMEOUT"),
        Check::Dnsbl,
        &["note example.org: not all lists could be asked: bl does not answer"],
    );
    let mut world = World::new();
    world.plan.lists[0].weight = -10;
    check(world, Check::Dnsbl, &["note example.org: no list of the DNS is asked"]);
}

#[test]
fn who_may_send() {
    let spf = |text: &str| World::new().with("example.org TXT", &format!("example.org TXT {text}"));
    let new = " => example.org. IN TXT \"v=spf1 ip4:192.0.2.1 ~all\"";
    check(
        World::new().with("example.org TXT", ""),
        Check::Spf,
        &[&format!("fail example.org: there is no SPF record{new}")],
    );
    check(
        World::new().and("example.org TXT v=spf1 -all"),
        Check::Spf,
        &["fail example.org: there is more than one SPF record, so that none counts (RFC 7208 §4.5) => \
                example.org. IN TXT \"v=spf1 ip4:192.0.2.1 mx -all\""],
    );
    check(
        spf("v=spf1 ip4:192.0.2.7 -all"),
        Check::Spf,
        &["fail example.org: it may not be sent for from 192.0.2.1 (fail, by -all) => example.org. IN TXT \
                \"v=spf1 ip4:192.0.2.1 ip4:192.0.2.7 -all\""],
    );
    check(
        spf("v=spf1 mxx -all"),
        Check::Spf,
        &["fail example.org: the record makes no sense to others: malformed record"],
    );
    check(
        spf("v=spf1 mx +all"),
        Check::Spf,
        &["fail example.org: the record leaves everybody in: the whole world may send for the domain => \
                example.org. IN TXT \"v=spf1 mx ~all\""],
    );
    check(
        spf("v=spf1 mx"),
        Check::Spf,
        &[
            "warn example.org: the record does not say what is to be thought of all others (?all, or no all) => \
                example.org. IN TXT \"v=spf1 mx ~all\"",
        ],
    );
    check(
        spf("v=spf1 mx ptr -all"),
        Check::Spf,
        &[
            "warn example.org: the record of example.org has a term `ptr`, which is not to be used (RFC 7208 §5.5)",
        ],
    );
    check(
        spf("v=spf1 mx a:n1.example a:n2.example a:n3.example -all"),
        Check::Spf,
        &["fail example.org: 3 look-ups of the record find nothing, and others stop at 2 with an error"],
    );
    check(
        spf("v=spf1 mx a:n1.example -all"),
        Check::Spf,
        &["note example.org: a look-up of the record finds nothing"],
    );
    let includes = |count: usize| {
        let terms: Vec<_> = (0..count).map(|i| format!("include:i{i}.example")).collect();
        let zone: Vec<_> = (0..count).map(|i| format!("i{i}.example TXT v=spf1 -all")).collect();
        spf(&format!("v=spf1 {} mx -all", terms.join(" "))).and(&zone.join("\n"))
    };
    check(
        includes(8),
        Check::Spf,
        &["warn example.org: the record takes 9 of 10 look-ups: whoever is included may add one at any time"],
    );
    assert_eq!(
        includes(10).says(Check::Spf)[0],
        "fail example.org: the record takes 11 look-ups, and others stop at 10 with an error"
    );
    check(
        spf("v=spf1 include:none.example mx -all"),
        Check::Spf,
        &["fail example.org: the record makes no sense to others: included domain has no record"],
    );
    check(
        spf("v=spf1 include:late.example mx -all").and("late.example TXT TIMEOUT"),
        Check::Spf,
        &["warn example.org: the DNS does not tell now what all terms of the record lead to"],
    );
    check(
        World::new().with("example.org TXT", "example.org TXT TIMEOUT"),
        Check::Spf,
        &["warn example.org: the DNS does not tell now whether there is an SPF record"],
    );
    // The domain of reports is looked at as well.
    let mut world = World::new();
    world.plan.reverse_paths.push(Name::parse("bounces.example.org").unwrap());
    check(
        world,
        Check::Spf,
        &[
            "fail bounces.example.org: there is no SPF record => bounces.example.org. IN TXT \"v=spf1 ip4:192.0.2.1 \
                ~all\"",
        ],
    );
}

/// What is copied from here must not keep others from sending.
#[test]
fn records_are_proposed_whole_or_not_at_all() {
    let spf = |text: &str| World::new().with("example.org TXT", &format!("example.org TXT {text}"));
    let long: String = (0..60).map(|i| format!("ip4:198.51.100.{i} ")).collect();
    let said = spf(&format!("v=spf1 {long}-all")).says(Check::Spf);
    let strings: String = said[0].split('"').skip(1).step_by(2).collect();
    assert_eq!(strings, format!("v=spf1 ip4:192.0.2.1 {long}-all"));
    // What lets everybody in, or leaves it open, is elsewhere: an end to this record would not help, or undo it.
    for (text, elsewhere) in [
        ("v=spf1 mx redirect=_spf.example", "_spf.example TXT v=spf1 +all"),
        ("v=spf1 mx redirect=_spf.example", "_spf.example TXT v=spf1 ?all"),
        ("v=spf1 mx include:_spf.example -all", "_spf.example TXT v=spf1 +all"),
    ] {
        let said = spf(text).and(elsewhere).says(Check::Spf);
        assert!(said.len() == 1 && !said[0].contains("=>"), "{said:?}");
    }
    // Whom the end alone let in is named where there is another end; and what is to be copied is one record.
    for end in ["+all", "?all"] {
        let said = spf(&format!("v=spf1 ip4:192.0.2.7 {end}")).says(Check::Spf);
        let records: Vec<_> =
            said.iter().filter_map(|line| line.split_once(" => ")).map(|(_, r)| r).collect();
        let expected = "example.org. IN TXT \"v=spf1 ip4:192.0.2.1 ip4:192.0.2.7 ~all\"";
        assert!(!records.is_empty() && records.iter().all(|record| *record == expected), "{said:?}");
    }
    // A second record would undo the one that is there.
    let helo = |text: &str| {
        let line = if text.is_empty() { String::new() } else { format!("mx.example.org TXT {text}") };
        let said = World::new().with("mx.example.org TXT", &line).says(Check::Helo);
        said[0].split_once(" => ").map_or("", |(_, record)| record).to_owned()
    };
    let record = |text: &str| format!("mx.example.org. IN TXT \"{text}\"");
    assert_eq!(helo(""), record("v=spf1 ip4:192.0.2.1 -all"));
    assert_eq!(helo("v=spf1 ip4:192.0.2.7 -all"), record("v=spf1 ip4:192.0.2.1 ip4:192.0.2.7 -all"));
    assert_eq!(helo("v=spf1 mxx"), "");
    // Others may send with such a name behind their @.
    let both = World::new().with("mx.example.org TXT", "").and("mx.example.org MX 10 mx.example.org");
    assert!(both.says(Check::Helo)[0].ends_with(&record("v=spf1 ip4:192.0.2.1 ~all")));
    let mut own = World::new();
    own.plan.addresses[0].ehlo = "example.org".into();
    let own = own.and("example.org A 192.0.2.1").with("example.org TXT", "");
    assert!(own.says(Check::Helo).iter().all(|line| !line.contains("TXT")), "{:?}", own.says(Check::Helo));
}

#[test]
fn addresses_that_the_world_does_not_see() {
    let mut world = World::new();
    world.plan.addresses[0].address = "10.0.0.1".parse().unwrap();
    let report = world.report();
    let told = report.worst_of(Check::Ptr).unwrap();
    assert_eq!((told.severity, &*told.subject), (Severity::Warn, "10.0.0.1"));
    let copied = report.findings.iter().filter_map(|finding| finding.publish.as_ref());
    assert!(copied.clone().all(|record| !record.to_string().contains("10.0.0.1")), "{report}");
    for (address, open) in [
        ("192.0.2.1", true),
        ("10.1.2.3", false),
        ("127.0.0.1", false),
        ("0.0.0.0", false),
        ("100.64.0.1", false),
        ("100.128.0.1", true),
        ("169.254.1.1", false),
        ("198.18.0.1", false),
        ("224.0.0.1", false),
        ("255.255.255.255", false),
        ("fe80::1", false),
        ("fd00::1", false),
        ("::1", false),
        ("::ffff:127.0.0.1", false),
        ("::ffff:192.0.2.1", true),
        ("64:ff9b::7f00:1", false),
        ("2002:7f00:1::1", false),
        ("2002:c000:201::1", true),
        ("2001:db8::1", true),
    ] {
        assert_eq!(is_open(address.parse().unwrap()), open, "{address}");
    }
}
