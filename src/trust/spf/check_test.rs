//! What RFC 7208 asks of `check_host()`, section by section.

use super::*;
use crate::zone::Zone;

/// Asks who may send as `ann@example.org`.
fn ask(zone: &Zone, address: &str, sender: &str) -> (Spf, usize, usize) {
    let (local_part, domain) = sender.rsplit_once('@').unwrap_or(("", sender));
    let question = Question {
        address: address.parse().unwrap(),
        identity: SpfIdentity::MailFrom,
        local_part,
        domain,
        helo: "client.example.net",
        receiver: "mx.example",
        time: 0,
    };
    zone.run(|facts| check(facts, &Limits::default(), &question))
}

fn result(zone: &str, address: &str) -> SpfResult {
    ask(&Zone::parse(zone), address, "ann@example.org").0.result
}

fn problem(zone: &str) -> Option<SpfProblem> {
    let (spf, _, _) = ask(&Zone::parse(zone), "192.0.2.1", "ann@example.org");
    assert_eq!(spf.result == SpfResult::TempError, spf.problem == Some(SpfProblem::Unavailable));
    assert_eq!(spf.result == SpfResult::PermError, spf.problem.is_some_and(|p| p != SpfProblem::Unavailable));
    spf.problem
}

/// The record of `example.org`, and what it says of an address.
fn says(record: &str, address: &str, expected: SpfResult) {
    assert_eq!(result(&format!("example.org TXT {record}"), address), expected, "{record} {address}");
}

/// `n` terms that each need a look-up that finds something, and the zone in which they do.
fn terms(n: usize) -> String {
    format!("example.org TXT v=spf1 {}-all\nx.example A 203.0.113.1", "a:x.example ".repeat(n))
}

#[test]
fn section_4_3_initial_processing() {
    let zone = Zone::parse(
        "example.org TXT v=spf1 -all\nxn--bcher-kva.example TXT v=spf1 -all\nlocalhost TXT v=spf1 -all",
    );
    let result = |sender: &str| ask(&zone, "192.0.2.1", sender).0.result;
    for sender in ["a@localhost", "a@[192.0.2.1]", "a@", "a@a..b", "a@exa mple.org", "a@nobody.example"] {
        assert_eq!(result(sender), SpfResult::None, "{sender}");
    }
    assert_eq!(result(&format!("a@{}.example", "x".repeat(64))), SpfResult::None);
    assert_eq!(result("ann@EXAMPLE.ORG."), SpfResult::Fail);
    // U-labels are asked for as A-labels (RFC 8616 §5).
    assert_eq!(result("ann@bücher.example"), SpfResult::Fail);
}

#[test]
fn section_4_4_and_2_6_6_what_is_not_known_is_a_temporary_error() {
    use SpfProblem::Unavailable;
    let passes = "example.org TXT v=spf1";
    for zone in [
        "example.org TIMEOUT".to_owned(),
        format!("{passes} a:x.example +all\nx.example TIMEOUT"),
        format!("{passes} mx +all\nexample.org MX 1 x.example\nx.example TIMEOUT"),
        format!("{passes} mx:x.example +all\nx.example TIMEOUT"),
        format!("{passes} exists:x.example +all\nx.example TIMEOUT"),
        format!("{passes} include:x.example +all\nx.example TIMEOUT"),
        format!("{passes} redirect=x.example\nx.example TIMEOUT"),
    ] {
        assert_eq!(problem(&zone), Some(Unavailable), "{zone}");
    }
    // An exchange that matches behind one that is not known.
    let zone = format!(
        "{passes} mx\nexample.org MX 1 x.example\nexample.org MX 2 y.example\nx.example TIMEOUT\ny.example A 192.0.2.1"
    );
    assert_eq!(problem(&zone), Some(Unavailable));
    // What decides before does not need it.
    assert_eq!(problem(&format!("{passes} ip4:192.0.2.1 a:x.example\nx.example TIMEOUT")), None);
}

#[test]
fn section_4_5_selecting_records() {
    assert_eq!(result("example.org TXT v=spf10 -all\nexample.org TXT other", "192.0.2.1"), SpfResult::None);
    assert_eq!(result("example.org TXT other\nexample.org TXT V=SPF1 -all", "192.0.2.1"), SpfResult::Fail);
    assert_eq!(
        problem("example.org TXT v=spf1 -all\nexample.org TXT v=spf1 +all"),
        Some(SpfProblem::ManyRecords)
    );
}

#[test]
fn section_4_6_syntax_errors_anywhere() {
    assert_eq!(problem("example.org TXT v=spf1 +all moo"), Some(SpfProblem::Syntax));
    let inner = "example.org TXT v=spf1 include:x.example +all\nx.example TXT v=spf1 moo";
    assert_eq!(problem(inner), Some(SpfProblem::Syntax));
}

#[test]
fn section_4_6_4_ten_terms() {
    assert_eq!(problem(&terms(10)), None);
    assert_eq!(problem(&terms(11)), Some(SpfProblem::TooManyTerms));
    // Those of included and redirected records count, and so do `include` and `redirect`.
    let nested = |n| {
        let inner = terms(n).replace("example.org", "y.example").replace(" -all", "");
        format!("example.org TXT v=spf1 a:x.example include:y.example -all\n{inner}")
    };
    assert_eq!(problem(&nested(8)), None);
    assert_eq!(problem(&nested(9)), Some(SpfProblem::TooManyTerms));
    let redirected = |n| {
        let inner = terms(n).replace("example.org", "y.example");
        format!("example.org TXT v=spf1 redirect=y.example\n{inner}")
    };
    assert_eq!(problem(&redirected(9)), None);
    assert_eq!(problem(&redirected(10)), Some(SpfProblem::TooManyTerms));
    assert_eq!(problem("example.org TXT v=spf1 include:example.org"), Some(SpfProblem::TooManyTerms));
    assert_eq!(problem("example.org TXT v=spf1 redirect=example.org"), Some(SpfProblem::TooManyTerms));
    // What needs no look-up does not count, nor do `exp` and macros.
    let free = format!(
        "example.org TXT v=spf1 {}{}-all exp=e.example\ne.example TXT %{{p}}\nx.example A 203.0.113.1",
        "ip4:203.0.113.1 ip6:::1 ".repeat(20),
        "a:x.example ".repeat(10),
    );
    assert_eq!(result(&free, "192.0.2.1"), SpfResult::Fail);
}

#[test]
fn section_4_6_4_two_void_lookups() {
    let voids = |n: usize, mechanism: &str| {
        format!("example.org TXT v=spf1 {}-all", format!("{mechanism} ").repeat(n))
    };
    for mechanism in ["a:no.example", "mx:no.example", "exists:no.example", "a"] {
        assert_eq!(problem(&voids(2, mechanism)), None, "{mechanism}");
        assert_eq!(problem(&voids(3, mechanism)), Some(SpfProblem::TooManyVoid), "{mechanism}");
    }
    // Exchanges that do not exist count; those with addresses of the other family do not.
    let exchanges = |data: &str| {
        let mut zone = "example.org TXT v=spf1 mx -all".to_owned();
        for i in 0..4 {
            zone += &format!("\nexample.org MX 1 x{i}.example{}", data.replace('#', &i.to_string()));
        }
        zone
    };
    assert_eq!(problem(&exchanges("")), Some(SpfProblem::TooManyVoid));
    assert_eq!(problem(&exchanges("\nx#.example AAAA 2001:db8::1")), None);
    // The reverse zone is not the sender's (RFC 7208 §5.5), and an explanation is looked up afterwards (§6.2).
    assert_eq!(problem(&(voids(2, "a:no.example").replace("-all", "ptr -all exp=no.example"))), None);
}

#[test]
fn section_4_6_4_ten_exchanges_and_ten_names() {
    let exchanges = |n: usize| {
        let mut zone = "example.org TXT v=spf1 mx -all".to_owned();
        for i in 0..n {
            zone += &format!("\nexample.org MX 1 x{i}.example\nx{i}.example A 203.0.113.1");
        }
        zone
    };
    assert_eq!(problem(&exchanges(10)), None);
    assert_eq!(problem(&exchanges(11)), Some(SpfProblem::TooManyExchanges));
    let names = |n: usize| {
        let mut zone = "example.org TXT v=spf1 ptr -all\nx.example.org A 192.0.2.1".to_owned();
        for i in 1..n {
            zone += &format!("\n192.0.2.1 PTR x{i}.example");
        }
        zone + "\n192.0.2.1 PTR x.example.org"
    };
    assert_eq!(result(&names(10), "192.0.2.1"), SpfResult::Pass);
    assert_eq!(result(&names(11), "192.0.2.1"), SpfResult::Fail);
}

#[test]
fn section_3_4_record_size() {
    let size = |n: usize| {
        let record = format!("example.org TXT v=spf1 {}", "ip4:203.0.113.1 ".repeat(n / 16));
        problem(&record)
    };
    assert_eq!(size(8 << 10), None);
    assert_eq!(size((8 << 10) + 32), Some(SpfProblem::TooLong));
}

#[test]
fn section_4_7_default_result() {
    says("v=spf1", "192.0.2.1", SpfResult::Neutral);
    says("v=spf1 ip4:192.0.2.2", "192.0.2.1", SpfResult::Neutral);
}

#[test]
fn section_5_1_all() {
    says("v=spf1 all", "192.0.2.1", SpfResult::Pass);
    says("v=spf1 -all", "2001:db8::1", SpfResult::Fail);
    says("v=spf1 ~all", "192.0.2.1", SpfResult::SoftFail);
    says("v=spf1 ?all", "192.0.2.1", SpfResult::Neutral);
    // "Mechanisms after "all" will never be tested", and a redirect is ignored.
    says("v=spf1 -all +all redirect=x.example", "192.0.2.1", SpfResult::Fail);
}

#[test]
fn section_5_2_include() {
    for (inner, expected) in [
        ("x.example TXT v=spf1 +all", SpfResult::SoftFail),
        ("x.example TXT v=spf1 -all", SpfResult::Pass),
        ("x.example TXT v=spf1 ~all", SpfResult::Pass),
        ("x.example TXT v=spf1 ?all", SpfResult::Pass),
        ("x.example TIMEOUT", SpfResult::TempError),
        ("x.example TXT v=spf1 moo", SpfResult::PermError),
        ("x.example TXT other", SpfResult::PermError),
        ("", SpfResult::PermError),
    ] {
        let zone = format!("example.org TXT v=spf1 ~include:x.example +all\n{inner}");
        assert_eq!(result(&zone, "192.0.2.1"), expected, "{inner}");
    }
    assert_eq!(problem("example.org TXT v=spf1 include:%{l}..example"), Some(SpfProblem::NoRecord));
}

#[test]
fn section_5_2_each_level_has_its_own_qualifier() {
    let zone = |outer: &str, middle: &str| {
        format!(
            "example.org TXT v=spf1 {outer}include:y.example -all\n\
             y.example TXT v=spf1 {middle}include:x.example\nx.example TXT v=spf1 +all"
        )
    };
    for (outer, middle, expected) in [
        ("", "", SpfResult::Pass),
        ("?", "", SpfResult::Neutral),
        ("~", "", SpfResult::SoftFail),
        ("", "-", SpfResult::Fail),
        ("", "?", SpfResult::Fail),
        ("?", "-", SpfResult::Fail),
    ] {
        assert_eq!(result(&zone(outer, middle), "192.0.2.1"), expected, "{outer}include of {middle}include");
    }
}

#[test]
fn section_5_3_a() {
    let zone = |record: &str| {
        format!(
            "example.org TXT v=spf1 {record}\nexample.org A 192.0.2.1\nexample.org AAAA 2001:db8::1\nx.example A 203.0.113.1"
        )
    };
    for (record, address, expected) in [
        ("a -all", "192.0.2.1", SpfResult::Pass),
        ("a -all", "192.0.2.2", SpfResult::Fail),
        ("a -all", "2001:db8::1", SpfResult::Pass),
        ("a/24 -all", "192.0.2.200", SpfResult::Pass),
        ("a/0 -all", "198.51.100.1", SpfResult::Pass),
        ("a/0 -all", "2001:db8::2", SpfResult::Fail),
        ("a//64 -all", "2001:db8::2", SpfResult::Pass),
        ("a//64 -all", "192.0.2.2", SpfResult::Fail),
        ("a/31//127 -all", "2001:db8::", SpfResult::Pass),
        ("a:x.example -all", "203.0.113.1", SpfResult::Pass),
        ("a:%{o3}.. -all", "192.0.2.1", SpfResult::PermError),
        ("a:%{l}..%{o} -all", "192.0.2.1", SpfResult::Fail),
    ] {
        assert_eq!(result(&zone(record), address), expected, "{record} {address}");
    }
}

#[test]
fn section_5_4_mx() {
    let zone = "example.org TXT v=spf1 mx/24 -all\nexample.org MX 10 x.example\nexample.org MX 20 y.example\n\
                x.example A 192.0.2.1\ny.example A 203.0.113.1\ny.example AAAA 2001:db8::1\nexample.org A 198.51.100.1";
    assert_eq!(result(zone, "192.0.2.77"), SpfResult::Pass);
    assert_eq!(result(zone, "203.0.113.77"), SpfResult::Pass);
    assert_eq!(result(zone, "2001:db8::1"), SpfResult::Pass);
    assert_eq!(result(zone, "2001:db8::2"), SpfResult::Fail);
    // "it does not query the A or AAAA records for the <target-name> if there are no MX records"
    assert_eq!(result(zone, "198.51.100.1"), SpfResult::Fail);
    assert_eq!(
        result("example.org TXT v=spf1 mx -all\nexample.org A 192.0.2.1", "192.0.2.1"),
        SpfResult::Fail
    );
    // Null MX (RFC 7505).
    assert_eq!(result("example.org TXT v=spf1 mx -all\nexample.org MX 0 ", "192.0.2.1"), SpfResult::Fail);
}

#[test]
fn section_5_5_ptr() {
    let zone = |names: &str| {
        let mut zone =
            "example.org TXT v=spf1 ptr -all\nx.example.org A 192.0.2.1\nexample.org A 192.0.2.1\n\
                        y.example A 192.0.2.1\nsub.y.example.org A 192.0.2.2\nnotexample.org A 192.0.2.1\n\
                        late.example.org TIMEOUT"
                .to_owned();
        names.split_whitespace().for_each(|name| zone += &format!("\n192.0.2.1 PTR {name}"));
        zone
    };
    for (names, expected) in [
        ("x.example.org", SpfResult::Pass),
        ("example.org", SpfResult::Pass),
        ("y.example X.Example.Org", SpfResult::Pass),
        ("y.example", SpfResult::Fail),
        ("notexample.org", SpfResult::Fail),
        // It says it is, but the name has another address.
        ("sub.y.example.org", SpfResult::Fail),
        // "If a DNS error occurs while doing an A RR lookup, then that domain name is skipped"
        ("late.example.org", SpfResult::Fail),
        ("late.example.org x.example.org", SpfResult::Pass),
        ("", SpfResult::Fail),
    ] {
        assert_eq!(result(&zone(names), "192.0.2.1"), expected, "{names}");
    }
    // "If a DNS error occurs while doing the PTR RR lookup, then this mechanism fails to match."
    let failing = "example.org TXT v=spf1 ptr -all\n192.0.2.1 TIMEOUT";
    assert_eq!(result(failing, "192.0.2.1"), SpfResult::Fail);
}

#[test]
fn section_5_6_ip4_and_ip6() {
    says("v=spf1 ip4:192.0.2.0/24 -all", "192.0.2.255", SpfResult::Pass);
    says("v=spf1 ip4:192.0.2.128/25 -all", "192.0.2.127", SpfResult::Fail);
    says("v=spf1 ip4:192.0.2.1/0 -all", "203.0.113.1", SpfResult::Pass);
    says("v=spf1 ip6:2001:db8::/32 -all", "2001:db8:ffff::1", SpfResult::Pass);
    says("v=spf1 ip6:2001:db8::/32 -all", "2001:db9::1", SpfResult::Fail);
    // No address is within a network of the other family.
    says("v=spf1 ip6:::/0 -all", "192.0.2.1", SpfResult::Fail);
    says("v=spf1 ip6:::ffff:192.0.2.1 -all", "192.0.2.1", SpfResult::Fail);
    says("v=spf1 ip4:0.0.0.0/0 -all", "2001:db8::1", SpfResult::Fail);
}

#[test]
fn section_5_7_exists() {
    let zone = "example.org TXT v=spf1 exists:%{i}.list.example -all\n\
                192.0.2.1.list.example A 127.0.0.2\n192.0.2.3.list.example AAAA ::1\n\
                2.0.0.1.0.d.b.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.list.example A 127.0.0.2";
    assert_eq!(result(zone, "192.0.2.1"), SpfResult::Pass);
    assert_eq!(result(zone, "192.0.2.2"), SpfResult::Fail);
    // An A record counts whatever the client's family is, and nothing else does.
    assert_eq!(result(zone, "2001:db8::1"), SpfResult::Pass);
    assert_eq!(result(zone, "192.0.2.3"), SpfResult::Fail);
}

#[test]
fn section_6_1_redirect() {
    let zone = |target: &str| format!("example.org TXT v=spf1 ip4:203.0.113.1 redirect=x.example\n{target}");
    assert_eq!(
        result(&zone("x.example TXT v=spf1 a -all\nx.example A 192.0.2.1"), "192.0.2.1"),
        SpfResult::Pass
    );
    assert_eq!(result(&zone("x.example TXT v=spf1 -all"), "203.0.113.1"), SpfResult::Pass);
    assert_eq!(result(&zone("x.example TXT v=spf1"), "192.0.2.1"), SpfResult::Neutral);
    assert_eq!(problem(&zone("")), Some(SpfProblem::NoRecord));
    assert_eq!(problem("example.org TXT v=spf1 redirect=%{l}..example"), Some(SpfProblem::NoRecord));
}

#[test]
fn section_6_2_explanations() {
    let explain = |zone: &str| ask(&Zone::parse(zone), "192.0.2.1", "ann@example.org").0.explanation;
    let record = "example.org TXT v=spf1 -all exp=e.example";
    let text = "%{i} is not one of %{d}'s: see http://%{d}/why?%{S}";
    assert_eq!(
        explain(&format!("{record}\ne.example TXT {text}")).as_deref(),
        Some("192.0.2.1 is not one of example.org's: see http://example.org/why?ann%40example.org")
    );
    for nothing in [
        "e.example TIMEOUT",
        "e.example TXT a\ne.example TXT b",
        "e.example TXT %{x}",
        "e.example TXT ä",
        "e.example A 192.0.2.1",
        "",
    ] {
        let zone = format!("{record}\n{nothing}");
        assert_eq!(explain(&zone), None, "{nothing}");
        assert_eq!(result(&zone, "192.0.2.1"), SpfResult::Fail, "{nothing}");
    }
    // Only a fail is explained; that of an included record is not; that of a redirected one is.
    assert_eq!(explain("example.org TXT v=spf1 ~all exp=e.example\ne.example TXT x"), None);
    let inner = "y.example TXT v=spf1 -all exp=e.example\ne.example TXT theirs\nf.example TXT ours";
    let include = "example.org TXT v=spf1 include:y.example -all exp=f.example";
    assert_eq!(explain(&format!("{include}\n{inner}")).as_deref(), Some("ours"));
    let redirect = "example.org TXT v=spf1 redirect=y.example exp=f.example";
    assert_eq!(explain(&format!("{redirect}\n{inner}")).as_deref(), Some("theirs"));
    // It is to fit into a reply.
    let long = explain(&format!("{record}\ne.example TXT {}", "x".repeat(5000)));
    assert_eq!(long.map(|text| text.len()), Some(Limits::default().explanation_len_max));
}

#[test]
fn section_7_3_names_that_are_too_long_are_cut_on_the_left() {
    let long = "a".repeat(60);
    let domain = format!("{long}.{long}.{long}.example.org");
    let zone =
        format!("{domain} TXT v=spf1 exists:%{{d}}.%{{d}} -all\n{long}.example.org.{domain} A 127.0.0.2");
    assert_eq!(format!("{long}.example.org.{domain}").len(), 72 + 1 + 194);
    let zone = zone.replace(&format!("{long}.example.org.{domain}"), &format!("example.org.{domain}"));
    let (spf, _, _) = ask(&Zone::parse(&zone), "192.0.2.1", &format!("ann@{domain}"));
    assert_eq!(spf.result, SpfResult::Pass);
}

#[test]
fn section_7_3_the_validated_name() {
    let zone = |names: &str, good: &str| {
        let mut zone =
            format!("example.org TXT v=spf1 exists:%{{p}}.ok.example -all\n{good}.ok.example A 127.0.0.2");
        for name in names.split_whitespace() {
            zone += &format!(
                "\n192.0.2.1 PTR {name}\n{name} A {}",
                if name.starts_with("bad") { "192.0.2.9" } else { "192.0.2.1" }
            );
        }
        zone
    };
    for (names, good) in [
        ("x.example y.example.org example.org", "example.org"),
        ("x.example y.example.org", "y.example.org"),
        ("bad.example.org x.example", "x.example"),
        ("bad.example", "unknown"),
        ("", "unknown"),
    ] {
        assert_eq!(result(&zone(names, good), "192.0.2.1"), SpfResult::Pass, "{names}");
    }
}

#[test]
fn what_matched_is_told() {
    let zone = Zone::parse(
        "example.org TXT v=spf1 a mx:x.example/24 -all\nexample.org A 203.0.113.1\nx.example MX 1 y.example\ny.example A 192.0.2.7",
    );
    assert_eq!(ask(&zone, "192.0.2.1", "a@example.org").0.mechanism.as_deref(), Some("mx:x.example/24"));
    assert_eq!(ask(&zone, "198.51.100.1", "a@example.org").0.mechanism.as_deref(), Some("-all"));
}

#[test]
fn a_record_needs_few_rounds() {
    let mut zone =
        "example.org TXT v=spf1 include:a.example include:b.example include:c.example a mx -all".to_owned();
    for name in ["a", "b", "c"] {
        zone += &format!("\n{name}.example TXT v=spf1 ip4:203.0.113.1");
    }
    zone += "\nexample.org A 203.0.113.1\nexample.org MX 1 x.example\nx.example A 192.0.2.1";
    let (spf, rounds, asked) = ask(&Zone::parse(&zone), "192.0.2.1", "ann@example.org");
    // The record; all that its terms need; the address of the exchange.
    assert_eq!((spf.result, rounds, asked), (SpfResult::Pass, 3, 7));
    // What does not decide any more is not looked up.
    let (_, rounds, asked) =
        ask(&Zone::parse("example.org TXT v=spf1 ip4:192.0.2.1 a mx"), "192.0.2.1", "a@example.org");
    assert_eq!((rounds, asked), (1, 1));
    // Nor is anything after an answer that is known to have failed.
    let (_, rounds, asked) = ask(
        &Zone::parse("example.org TXT v=spf1 a:x.example -all\nx.example TIMEOUT"),
        "192.0.2.1",
        "a@example.org",
    );
    assert_eq!((rounds, asked), (2, 2));
}
