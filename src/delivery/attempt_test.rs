//! Attempts, one after the other, and a thousand in a world of chance.

use std::{collections::HashMap, env, mem, time::Duration};

use dns::{Exchange, Failure, Security};
use smtp::client::{Reply, ReplyError, TlsFailure};

use super::*;
use crate::{HopHost, Pattern, RouteOptions};

const LIMITS: AttemptLimits = AttemptLimits {
    hosts_max: 3,
    addresses_max: 3,
    connections_max: 5,
    connecting_max: 2,
    reconnections_max: 2,
};

fn own() -> Arc<Own> {
    Arc::new(Own {
        names: vec!["us.example".into()],
        addresses: vec!["203.0.113.1".parse().unwrap()],
        ports: vec![25],
    })
}

fn route(via: Via, tls: TlsLevel, family: Family) -> Route {
    let v4 = Some(Ipv4Addr::new(203, 0, 113, 9));
    let options = RouteOptions { tls, family, sources: Sources { v4, v6: None }, ..RouteOptions::default() };
    Route { patterns: vec![Pattern::Any], via, options }
}

fn answer(outcome: Dns) -> Arc<Answer> {
    Arc::new(Answer { outcome, security: Security::Unproven, alias_of: None, ttl: Duration::ZERO })
}

/// `MX 10 a, 20 b`, `MX .`, `TXT x`, `TLSA 3 1 1`, `CNAME a`, `NX`, `none`, `fail`, or addresses.
fn record(text: &str) -> Dns {
    if let Some(exchanges) = text.strip_prefix("MX ") {
        let exchange = |text: &str| {
            let (preference, host) = text.split_once(' ').unwrap_or(("0", text));
            let host = match host {
                "." => ExchangeHost::Null,
                "?" => ExchangeHost::Malformed,
                name => ExchangeHost::Name(Name::parse(name).unwrap()),
            };
            Exchange { preference: preference.parse().unwrap(), host }
        };
        return Dns::Found(Records::Exchanges(exchanges.split(", ").map(exchange).collect()));
    }
    if let Some(text) = text.strip_prefix("TXT ") {
        return Dns::Found(Records::Texts(vec![text.as_bytes().into()]));
    }
    if let Some(name) = text.strip_prefix("CNAME ") {
        return Dns::Found(Records::Names(vec![Name::parse(name).unwrap()]));
    }
    if let Some(numbers) = text.strip_prefix("TLSA ") {
        let number = |text: &str| text.parse().unwrap();
        let [usage, selector, matching] = numbers.split(' ').map(number).collect::<Vec<u8>>()[..] else {
            panic!("{text}")
        };
        return Dns::Found(Records::Tlsa(vec![dns::Tlsa {
            usage,
            selector,
            matching,
            data: [7; 32].into(),
        }]));
    }
    match text {
        "NX" => Dns::NxDomain,
        "none" => Dns::NoData,
        "fail" => Dns::TempFail(Failure::Timeout),
        addresses => {
            let addresses = addresses.split(' ').map(|address| address.parse().unwrap()).collect();
            Dns::Found(Records::Addresses(addresses))
        }
    }
}

/// What is asked and where is connected to, when every connection ends as `endings` says.
fn follow(
    mut attempt: Attempt,
    zone: &[(&str, &str)],
    mut endings: impl FnMut(&Hop) -> Ending,
) -> Vec<String> {
    let zone: HashMap<_, _> = zone.iter().copied().collect();
    let mut said = Vec::new();
    let mut asked_for_policy = false;
    let mut step = attempt.start();
    loop {
        step = match step {
            Step::Ask(questions) => {
                let outcome = |question: &Question| {
                    let key = format!("{:?} {}", question.kind, question.name);
                    let text = zone.get(&*key).unwrap_or_else(|| panic!("nobody knows {key}"));
                    let (security, text) = match text.strip_prefix("proven ") {
                        Some(text) => (Security::Secure, text),
                        None => (Security::Unproven, *text),
                    };
                    // `alias a: ` and what stands at its end.
                    let (alias_of, text) =
                        match text.strip_prefix("alias ").and_then(|text| text.split_once(": ")) {
                            Some((name, text)) => (Some(Name::parse(name).unwrap()), text),
                            None => (None, text),
                        };
                    Arc::new(Answer { security, alias_of, ..(*answer(record(text))).clone() })
                };
                attempt.on_answers(&questions.iter().map(outcome).collect::<Vec<_>>())
            }
            // The zone has the policy, and `look` what there is to be known without a record.
            Step::AskPolicy(domain, id) => {
                assert!(!mem::replace(&mut asked_for_policy, true), "asked for twice");
                let key = format!("policy {domain} {}", id.as_deref().unwrap_or("-"));
                let text = zone.get(&*key).map(|text| text.replace("; ", "\n"));
                attempt.on_policy(text.map(|text| Arc::new(Policy::parse(text.as_bytes()).unwrap())))
            }
            Step::Connect(hop) => {
                let source = hop.source.map(|source| format!(" from {source}")).unwrap_or_default();
                let policy = match hop.policy(hop.tls) {
                    TlsPolicy::None
                    | TlsPolicy::Opportunistic
                    | TlsPolicy::Required
                    | TlsPolicy::Verified => String::new(),
                    policy @ (TlsPolicy::Dane
                    | TlsPolicy::DaneUnusable
                    | TlsPolicy::Sts
                    | TlsPolicy::StsTesting) => format!(" by {}", policy.as_str()),
                };
                said.push(format!("{} {:?}{policy}{source}", hop.remote, hop.tls));
                let ending = endings(&hop);
                // A connection that was never made has no ending; this one stands for that.
                if ending == Ending::Quit {
                    attempt.on_connect_failed(&hop, &ConnectFailure::Refused)
                } else {
                    attempt.on_ending(&ending)
                }
            }
            Step::Await => panic!("nothing is under way"),
            Step::End(outcome) => {
                let kind = match &outcome {
                    Outcome::Delivered(..) => "delivered",
                    Outcome::Deferred(_) => "deferred",
                    Outcome::Failed(_) => "failed",
                };
                let report = outcome.report();
                said.push(format!("{kind} {}: {}", report.status, report.diagnostic));
                return said;
            }
        };
    }
}

fn by_mx(domain: &str, zone: &[(&str, &str)], ending: impl FnMut(&Hop) -> Ending) -> Vec<String> {
    let route = route(Via::Mx(25), TlsLevel::Opportunistic, Family::PreferIpv6);
    let domain = Domain::parse(domain).unwrap();
    follow(Attempt::new(&route, &domain, own(), LIMITS, 1), zone, ending)
}

fn refuse(_: &Hop) -> Ending {
    Ending::Quit
}

#[test]
fn hosts_are_tried_in_order_of_preference() {
    let zone = [
        ("Mx b.example", "MX 20 two.example, 10 one.example, 30 three.example, 40 four.example"),
        ("A one.example", "192.0.2.1"),
        ("Aaaa one.example", "2001:db8::1 2001:db8::1"),
        ("A two.example", "none"),
        ("Aaaa two.example", "NX"),
        ("A three.example", "192.0.2.3 192.0.2.1"),
        ("Aaaa three.example", "fail"),
    ];
    let expected = [
        "one.example[2001:db8::1]:25 Opportunistic",
        "one.example[192.0.2.1]:25 Opportunistic from 203.0.113.9",
        "three.example[192.0.2.3]:25 Opportunistic from 203.0.113.9",
        "deferred 4.4.1: connection refused",
    ];
    assert_eq!(by_mx("b.example", &zone, refuse), expected);
}

/// RFC 8689 §4.2.1: the name of the host is proven, and so is the host.
#[test]
fn what_travels_under_tls_alone() {
    let mut zone =
        [("Mx b.example", "MX 10 one.example"), ("A one.example", "192.0.2.1"), ("Aaaa one.example", "none")];
    let attempt = |zone: &[(&str, &str)], ending: Ending| {
        let route = route(Via::Mx(25), TlsLevel::None, Family::PreferIpv6);
        let domain = Domain::parse("b.example").unwrap();
        let attempt = Attempt::new(&route, &domain, own(), LIMITS, 1).demanding(Demand::Required);
        follow(attempt, zone, move |_| ending.clone())
    };
    let unproven = "failed 5.7.30: REQUIRETLS: neither DNSSEC nor MTA-STS proves the mail hosts of b.example";
    assert_eq!(attempt(&zone, Ending::Quit), [unproven]);
    zone[0].1 = "none";
    assert_eq!(attempt(&zone, Ending::Quit), [unproven]);
    zone[0].1 = "fail";
    assert!(attempt(&zone, Ending::Quit)[0].starts_with("deferred 4.4.3"));
    zone[0].1 = "proven MX 10 one.example";
    let connected = "one.example[192.0.2.1]:25 Demanded from 203.0.113.9";
    let refused = "failed 5.7.10: REQUIRETLS: one.example[192.0.2.1]:25 does not offer TLS";
    assert_eq!(attempt(&zone, Ending::TlsNotOffered), [connected, refused]);
    let unknown = "failed 5.7.30: REQUIRETLS: one.example[192.0.2.1]:25 does not offer it";
    assert_eq!(attempt(&zone, Ending::RequireTlsNotOffered), [connected, unknown]);
    let failed = Ending::TlsFailed(TlsFailure("bad certificate".into()));
    let untrue =
        "failed 5.7.10: REQUIRETLS: one.example[192.0.2.1]:25: TLS handshake failed: bad certificate";
    assert_eq!(attempt(&zone, failed), [connected, untrue]);
}

/// RFC 8689 §4.2.1: "repeat steps 2-5 with each host"; who may take it later is waited for.
#[test]
fn each_host_is_asked_for_requiretls() {
    let zone = [
        ("Mx b.example", "proven MX 10 one.example, 20 two.example, 30 three.example"),
        ("A one.example", "192.0.2.1"),
        ("Aaaa one.example", "none"),
        ("A two.example", "192.0.2.2"),
        ("Aaaa two.example", "none"),
        ("A three.example", "192.0.2.3"),
        ("Aaaa three.example", "none"),
    ];
    let attempt = |last: Ending| {
        let route = route(Via::Mx(25), TlsLevel::None, Family::PreferIpv6);
        let domain = Domain::parse("b.example").unwrap();
        let attempt = Attempt::new(&route, &domain, own(), LIMITS, 1).demanding(Demand::Required);
        let mut endings = vec![last, Ending::TlsNotOffered, Ending::RequireTlsNotOffered];
        let said = follow(attempt, &zone, move |_| endings.pop().unwrap());
        assert_eq!(said.len(), 4, "{said:?}");
        said[3].clone()
    };
    let failed = "failed 5.7.30: REQUIRETLS: three.example[192.0.2.3]:25 does not offer it";
    assert_eq!(attempt(Ending::RequireTlsNotOffered), failed);
    let later = attempt(Ending::Lost(Stage::Greeting, Loss::TimedOut));
    assert!(later.starts_with("deferred 4.4.2"), "{later}");
}

fn protected(via: Via, dane: DaneUse, sts: StsUse) -> Route {
    let mut route = route(via, TlsLevel::Opportunistic, Family::OnlyIpv4);
    route.options = RouteOptions { dane, sts, sources: Sources::default(), ..route.options };
    route
}

/// What comes of mail to `b.example`, whose hosts do not do what they are held to.
fn refused(route: &Route, zone: &[(&str, &str)]) -> Vec<String> {
    let domain = Domain::parse("b.example").unwrap();
    follow(Attempt::new(route, &domain, own(), LIMITS, 1), zone, |_| {
        Ending::TlsFailed(TlsFailure("no match".into()))
    })
}

/// RFC 7672 §2.2.
#[test]
fn tlsa_records_are_kept_to_where_all_is_proven() {
    let route = protected(Via::Mx(25), DaneUse::WherePublished, StsUse::Off);
    let mx = ("Mx b.example", "proven MX 10 one.example");
    let a = ("A one.example", "proven 192.0.2.1");
    let failed = "deferred 4.7.5: TLS handshake failed: no match";
    let check = |zone: &[(&str, &str)], expected: &[&str]| {
        assert_eq!(refused(&route, zone), expected, "{zone:?}");
    };
    let (dane, usual) =
        ("one.example[192.0.2.1]:25 Verified by dane", "one.example[192.0.2.1]:25 Opportunistic");
    let unusable = "one.example[192.0.2.1]:25 Required by dane-unusable";
    let clear = "one.example[192.0.2.1]:25 None";
    let tlsa = "Tlsa _25._tcp.one.example";
    // Never in clear.
    check(&[mx, a, (tlsa, "proven TLSA 3 1 1")], &[dane, failed]);
    check(&[mx, a, (tlsa, "proven TLSA 1 1 1")], &[unusable, failed]);
    for (text, usage) in
        [("proven none", ""), ("proven NX", ""), ("TLSA 3 1 1", " that nothing proves"), ("none", "")]
    {
        assert_eq!(refused(&route, &[mx, a, (tlsa, text)])[..2], [usual, clear], "{text}{usage}");
    }
    // Whoever cannot tell is not taken for whoever has none (§2.1.2).
    let unknown =
        "deferred 4.7.5: looking up the TLSA records of one.example: no DNS server answered in time";
    check(&[mx, a, (tlsa, "fail")], &[unknown]);
    // Nobody is asked where the way there is not proven: these zones have no TLSA records at all.
    for (mx, a) in [("MX 10 one.example", "proven 192.0.2.1"), ("proven MX 10 one.example", "192.0.2.1")] {
        let said = refused(&route, &[("Mx b.example", mx), ("A one.example", a)]);
        assert_eq!(said[..2], [usual, clear], "{mx} {a}");
    }
    // A host that may be kept from us is passed over, and the next one has its own records.
    let two = [
        ("Mx b.example", "proven MX 10 one.example, 20 two.example"),
        a,
        (tlsa, "fail"),
        ("A two.example", "proven 192.0.2.2"),
        ("Tlsa _25._tcp.two.example", "proven TLSA 2 0 1"),
    ];
    check(&two, &["two.example[192.0.2.2]:25 Verified by dane", failed]);
    // The domain as its own host, proven to be one.
    let alone = [
        ("Mx b.example", "proven none"),
        ("A b.example", "proven 192.0.2.1"),
        ("Tlsa _25._tcp.b.example", "proven TLSA 3 1 1"),
    ];
    check(&alone, &["b.example[192.0.2.1]:25 Verified by dane", failed]);
}

/// RFC 7672 §2.2.2: the end of the aliases first, then the name as the MX record has it.
#[test]
fn tlsa_records_of_aliases() {
    let route = protected(Via::Mx(25), DaneUse::WherePublished, StsUse::Off);
    let bases = |zone: &[(&str, &str)]| {
        let domain = Domain::parse("b.example").unwrap();
        let mut found = Vec::new();
        let attempt = Attempt::new(&route, &domain, own(), LIMITS, 1);
        follow(
            attempt,
            &[&[("Mx b.example", "proven alias c.example: MX 10 one.example")], zone].concat(),
            |hop| {
                if let Basis::Dane(host) = &hop.basis {
                    let names: Vec<_> = host.names.iter().map(ToString::to_string).collect();
                    found.push(format!("{}: {}", host.base, names.join(" ")));
                }
                refuse(hop)
            },
        );
        found
    };
    let secure = ("A one.example", "proven alias end.example: 192.0.2.1");
    let of = |name, text| (name, text);
    let end = of("Tlsa _25._tcp.end.example", "proven TLSA 3 1 1");
    let one = of("Tlsa _25._tcp.one.example", "proven TLSA 3 1 1");
    assert_eq!(bases(&[secure, end]), ["end.example: end.example one.example b.example c.example"]);
    let without = of("Tlsa _25._tcp.end.example", "proven none");
    assert_eq!(bases(&[secure, without, one]), ["one.example: one.example b.example c.example"]);
    // The alias is proven, where it leads to is not.
    let insecure = ("A one.example", "alias end.example: 192.0.2.1");
    let alias = of("Cname one.example", "proven CNAME end.example");
    assert_eq!(bases(&[insecure, alias, one]), ["one.example: one.example b.example c.example"]);
    assert!(bases(&[insecure, of("Cname one.example", "CNAME end.example")]).is_empty());
    assert!(bases(&[insecure, of("Cname one.example", "fail")]).is_empty());
}

#[test]
fn dane_may_be_required() {
    let required = protected(Via::Mx(25), DaneUse::Required, StsUse::Off);
    let mx = ("Mx b.example", "proven MX 10 one.example, 20 two.example");
    let a = ("A one.example", "proven 192.0.2.1");
    let zone = [
        mx,
        a,
        ("Tlsa _25._tcp.one.example", "proven none"),
        ("A two.example", "proven 192.0.2.2"),
        ("Tlsa _25._tcp.two.example", "proven TLSA 3 1 1"),
    ];
    assert_eq!(refused(&required, &zone)[0], "two.example[192.0.2.2]:25 Verified by dane");
    let zone = [("Mx b.example", "MX 10 one.example"), a];
    let none = "deferred 4.7.4: DANE is required: one.example has no TLSA records that DNSSEC proves";
    assert_eq!(refused(&required, &zone), [none]);
    // A next hop that the operator names needs no MX record to prove it.
    let hosts = vec![HopHost { place: Place::Name(Name::parse("one.example").unwrap()), port: 587 }];
    let named = protected(Via::NextHop(hosts), DaneUse::Required, StsUse::Off);
    let zone = [a, ("Tlsa _587._tcp.one.example", "proven TLSA 3 1 1")];
    assert_eq!(refused(&named, &zone)[0], "one.example[192.0.2.1]:587 Verified by dane");
}

/// RFC 8461 §5, and §2 for both at once.
#[test]
fn policies_are_kept_to() {
    const ENFORCE: &str = "version: STSv1; mode: enforce; mx: one.example; max_age: 9";
    const TESTING: &str = "version: STSv1; mode: testing; mx: one.example; max_age: 9";
    let route = protected(Via::Mx(25), DaneUse::WherePublished, StsUse::WherePublished);
    let failed = "deferred 4.7.5: TLS handshake failed: no match";
    let record = ("Txt _mta-sts.b.example", "TXT v=STSv1; id=7;");
    let without = ("Txt _mta-sts.b.example", "none");
    let mx = ("Mx b.example", "MX 10 one.example");
    let a = ("A one.example", "192.0.2.1");
    let check = |zone: &[(&str, &str)], expected: &[&str]| {
        assert_eq!(refused(&route, zone)[..expected.len()], *expected, "{zone:?}");
    };
    check(
        &[mx, record, ("policy b.example 7", ENFORCE), a],
        &["one.example[192.0.2.1]:25 Verified by sts", failed],
    );
    // One that was known before holds, whatever becomes of its record (§3.3).
    for gone in ["none", "fail", "NX", "TXT v=spf1 -all"] {
        let gone = ("Txt _mta-sts.b.example", gone);
        check(
            &[mx, gone, ("policy b.example -", ENFORCE), a],
            &["one.example[192.0.2.1]:25 Verified by sts", failed],
        );
    }
    let usual = "one.example[192.0.2.1]:25 Opportunistic";
    check(&[mx, without, a], &[usual, "one.example[192.0.2.1]:25 None"]);
    let testing = "one.example[192.0.2.1]:25 Opportunistic by sts-testing";
    check(&[mx, record, ("policy b.example 7", TESTING), a], &[testing]);
    // Hosts that it does not name are no hosts of the domain, whatever the DNS says: the mail waits.
    let other = [
        ("Mx b.example", "MX 10 evil.example, 20 one.example"),
        record,
        ("policy b.example 7", ENFORCE),
        a,
        ("A evil.example", "192.0.2.66"),
    ];
    check(&other, &["one.example[192.0.2.1]:25 Verified by sts", failed]);
    let evil = "deferred 4.7.5: the MTA-STS policy of the domain does not name the mail host evil.example";
    let only = [("Mx b.example", "MX 10 evil.example"), record, ("policy b.example 7", ENFORCE), other[4]];
    check(&only, &[evil]);
    // TLSA records count before the policy, also of a host that it does not name.
    let both = [
        ("Mx b.example", "proven MX 10 evil.example"),
        record,
        ("policy b.example 7", ENFORCE),
        ("A evil.example", "proven 192.0.2.66"),
        ("Tlsa _25._tcp.evil.example", "proven TLSA 3 1 1"),
    ];
    check(&both, &["evil.example[192.0.2.66]:25 Verified by dane", failed]);
    // Who has no mail hosts needs no policy.
    check(&[("Mx b.example", "NX"), without], &["failed 5.1.2: the domain b.example does not exist"]);
    // TLS-Required: No (RFC 8689 §4.1).
    let domain = Domain::parse("b.example").unwrap();
    let waived = Attempt::new(&route, &domain, own(), LIMITS, 1).demanding(Demand::Waived);
    assert_eq!(follow(waived, &both, refuse)[0], "evil.example[192.0.2.66]:25 Opportunistic");
    // REQUIRETLS: the policy proves the hosts as DNSSEC does (RFC 8689 §4.2.1).
    let strict = |zone: &[(&str, &str)]| {
        let domain = Domain::parse("b.example").unwrap();
        let attempt = Attempt::new(&route, &domain, own(), LIMITS, 1).demanding(Demand::Required);
        follow(attempt, zone, refuse).remove(0)
    };
    let demanded = "one.example[192.0.2.1]:25 Demanded by sts";
    assert_eq!(strict(&[mx, record, ("policy b.example 7", ENFORCE), a]), demanded);
    let unproven = "failed 5.7.30: REQUIRETLS: neither DNSSEC nor MTA-STS proves the mail hosts of b.example";
    assert_eq!(strict(&[mx, record, ("policy b.example 7", TESTING), a]), unproven);
    let proven = [both[0], without, both[3], both[4]];
    assert_eq!(strict(&proven), "evil.example[192.0.2.66]:25 Demanded by dane");
}

#[test]
fn a_domain_may_be_its_own_mail_host() {
    let zone = [("Mx b.example", "none"), ("A b.example", "192.0.2.1"), ("Aaaa b.example", "none")];
    let expected =
        ["b.example[192.0.2.1]:25 Opportunistic from 203.0.113.9", "deferred 4.4.1: connection refused"];
    assert_eq!(by_mx("b.example", &zone, refuse), expected);
    let expected = ["[IPv6:2001:db8::1][2001:db8::1]:25 Opportunistic", "deferred 4.4.1: connection refused"];
    assert_eq!(by_mx("[IPv6:2001:db8::1]", &[], refuse), expected);
}

#[test]
fn what_dns_says_may_decide() {
    let check = |zone: &[(&str, &str)], expected: &str| {
        assert_eq!(by_mx("b.example", zone, refuse), [expected], "{zone:?}");
    };
    check(&[("Mx b.example", "NX")], "failed 5.1.2: the domain b.example does not exist");
    check(
        &[("Mx b.example", "fail")],
        "deferred 4.4.3: looking up the mail hosts of b.example: no DNS server answered in time",
    );
    check(&[("Mx b.example", "MX .")], "failed 5.1.10: the domain b.example takes no mail");
    check(&[("Mx b.example", "MX ?")], "failed 5.4.4: the MX records of b.example name no host");
    let mx = ("Mx b.example", "MX 10 one.example, 10 .");
    check(
        &[mx, ("A one.example", "NX"), ("Aaaa one.example", "NX")],
        "failed 5.4.4: the mail host one.example does not exist",
    );
    check(
        &[mx, ("A one.example", "fail"), ("Aaaa one.example", "none")],
        "deferred 4.4.3: looking up the addresses of one.example: no DNS server answered in time",
    );
    check(
        &[("Mx b.example", "none"), ("A b.example", "none"), ("Aaaa b.example", "none")],
        "failed 5.1.2: the domain b.example has no address",
    );
    let said = by_mx("[x:y]", &[], refuse);
    assert!(said[0].starts_with("failed 5.1.2"), "{said:?}");
}

#[test]
fn mail_is_not_sent_in_circles() {
    let looped = "failed 5.4.6: mail for b.example loops back to this host";
    let own_first = [("Mx b.example", "MX 10 us.example, 20 one.example")];
    assert_eq!(by_mx("b.example", &own_first, refuse), [looped]);
    let own_second = [
        ("Mx b.example", "MX 10 one.example, 20 us.example, 20 two.example, 30 three.example"),
        ("A one.example", "192.0.2.1"),
        ("Aaaa one.example", "none"),
    ];
    let expected =
        ["one.example[192.0.2.1]:25 Opportunistic from 203.0.113.9", "deferred 4.4.1: connection refused"];
    assert_eq!(by_mx("b.example", &own_second, refuse), expected);
    for address in ["203.0.113.1", "127.0.0.2", "::ffff:127.0.0.1", "0.0.0.0", "::", "192.0.2.1 203.0.113.1"]
    {
        let by_address = [
            ("Mx b.example", "MX 10 one.example, 10 two.example, 20 three.example"),
            ("A one.example", address),
            ("Aaaa one.example", "none"),
            ("A two.example", address),
            ("Aaaa two.example", "none"),
        ];
        let said = by_mx("b.example", &by_address, refuse);
        assert!(said.len() == 1 && said[0].starts_with("failed 5.4.6"), "{address}: {said:?}");
    }
    // What the operator says, the operator means.
    let hosts = vec![HopHost { place: Place::Address("127.0.0.1".parse().unwrap()), port: 25 }];
    let route = route(Via::NextHop(hosts), TlsLevel::None, Family::PreferIpv6);
    let domain = Domain::parse("b.example").unwrap();
    let said = follow(Attempt::new(&route, &domain, own(), LIMITS, 1), &[], refuse);
    assert_eq!(said[0], "[127.0.0.1][127.0.0.1]:25 None from 203.0.113.9");
}

#[test]
fn next_hops_are_tried_in_their_order() {
    let hosts = vec![
        HopHost { place: Place::Name(Name::parse("one.example").unwrap()), port: 587 },
        HopHost { place: Place::Name(Name::parse("gone.example").unwrap()), port: 25 },
        HopHost { place: Place::Address("2001:db8::2".parse().unwrap()), port: 25 },
    ];
    let route = route(Via::NextHop(hosts), TlsLevel::Required, Family::OnlyIpv4);
    let zone = [("A one.example", "192.0.2.1"), ("A gone.example", "NX")];
    let domain = Domain::parse("b.example").unwrap();
    let said = follow(Attempt::new(&route, &domain, own(), LIMITS, 1), &zone, |_| Ending::TlsNotOffered);
    let expected = [
        "one.example[192.0.2.1]:587 Required from 203.0.113.9",
        "[IPv6:2001:db8::2][2001:db8::2]:25 Required",
        "deferred 4.7.4: TLS is required, but was not offered",
    ];
    assert_eq!(said, expected);
    let nowhere = super::Route { via: Via::NextHop(Vec::new()), ..route };
    let said = follow(Attempt::new(&nowhere, &domain, own(), LIMITS, 1), &[], refuse);
    assert_eq!(said, ["deferred 4.4.4: the route names no host"]);
}

#[test]
fn a_failed_handshake_is_followed_by_a_try_in_clear() {
    let zone =
        [("Mx b.example", "MX 10 one.example"), ("A one.example", "192.0.2.1"), ("Aaaa one.example", "none")];
    let broken = |hop: &Hop| match hop.tls {
        TlsLevel::None => Ending::Lost(Stage::Greeting, Loss::Garbled(ReplyError::Syntax)),
        TlsLevel::Opportunistic | TlsLevel::Required | TlsLevel::Verified | TlsLevel::Demanded => {
            Ending::TlsFailed(TlsFailure("bad record".into()))
        }
    };
    let expected = [
        "one.example[192.0.2.1]:25 Opportunistic from 203.0.113.9",
        "one.example[192.0.2.1]:25 None from 203.0.113.9",
        "deferred 4.5.0: the next hop did not speak SMTP waiting for the greeting",
    ];
    assert_eq!(by_mx("b.example", &zone, broken), expected);
    let required = route(Via::Mx(25), TlsLevel::Required, Family::OnlyIpv4);
    let domain = Domain::parse("b.example").unwrap();
    let expected = [
        "one.example[192.0.2.1]:25 Required from 203.0.113.9",
        "deferred 4.7.5: TLS handshake failed: bad record",
    ];
    assert_eq!(follow(Attempt::new(&required, &domain, own(), LIMITS, 1), &zone, broken), expected);
}

#[test]
fn a_host_that_has_taken_its_fill_is_connected_to_again() {
    let hosts = vec![HopHost { place: Place::Address("192.0.2.1".parse().unwrap()), port: 25 }];
    let route = route(Via::NextHop(hosts), TlsLevel::None, Family::PreferIpv6);
    let domain = Domain::parse("b.example").unwrap();
    let mut attempt = Attempt::new(&route, &domain, own(), LIMITS, 1);
    let mut step = attempt.start();
    for _ in 0..=LIMITS.reconnections_max {
        assert!(matches!(step, Step::Connect(_)), "{step:?}");
        step = attempt.on_ending(&Ending::Quit);
    }
    assert!(matches!(step, Step::End(Outcome::Deferred(_))), "{step:?}");
}

#[test]
fn a_site_asks_for_more_tls_and_never_for_less() {
    let levels = [TlsLevel::None, TlsLevel::Opportunistic, TlsLevel::Required, TlsLevel::Verified];
    for (i, level) in levels.into_iter().enumerate() {
        for (k, least) in levels.into_iter().enumerate() {
            let (mut attempt, step) = {
                let domain = Domain::parse("b.example").unwrap();
                let route = route(Via::Mx(25), level, Family::OnlyIpv4);
                let mut attempt = Attempt::new(&route, &domain, own(), LIMITS, 1);
                let Step::Ask(_) = attempt.start() else { panic!("the MX records are asked for") };
                attempt.hold_to_at_least(least);
                let step = attempt.on_answers(&[answer(record("MX 10 one.example"))]);
                (attempt, step)
            };
            assert!(matches!(step, Step::Ask(_)), "{step:?}");
            let hop = connects(attempt.on_answers(&[answer(record("192.0.2.1"))]), "192.0.2.1");
            assert_eq!(hop.tls, levels[i.max(k)]);
        }
    }
}

#[test]
fn whether_mail_comes_back_when_we_are_not_let_in() {
    let check = |then: RefusedLogin, why: NoLogin, expected: &str| {
        let hosts = vec![HopHost { place: Place::Address("192.0.2.1".parse().unwrap()), port: 587 }];
        let route = route(Via::NextHop(hosts), TlsLevel::None, Family::PreferIpv6);
        let domain = Domain::parse("b.example").unwrap();
        let attempt = Attempt::new(&route, &domain, own(), LIMITS, 1).when_refused(then);
        let steps = follow(attempt, &[], |_| Ending::NoLogin(why.clone()));
        assert!(steps[1].starts_with(expected), "{then:?} {why}: {}", steps[1]);
    };
    let refused =
        |code, status| NoLogin::Refused(smtp::client::Mechanism::Plain, Reply::new(code, status, "no"), None);
    check(RefusedLogin::Defers, refused(535, Some(Status(5, 7, 8))), "deferred 4.7.8: the next hop does not");
    check(
        RefusedLogin::Fails,
        refused(535, Some(Status(5, 7, 8))),
        "failed 5.7.8: [192.0.2.1][192.0.2.1]:587: the",
    );
    // One that is refused for now, and what is our own fault, is none of the sender's.
    check(RefusedLogin::Fails, refused(454, Some(Status(4, 7, 0))), "deferred 4.7.0");
    check(RefusedLogin::Fails, refused(535, None), "failed 5.7.8");
    check(RefusedLogin::Fails, NoLogin::NotOffered, "deferred 4.7.8");
    check(RefusedLogin::Fails, NoLogin::NoSecret("no file".into()), "deferred 4.7.8");
    check(RefusedLogin::Defers, NoLogin::NotProtected(smtp::client::Secrecy::Tls), "deferred 4.7.10");
}

#[test]
fn one_host_that_may_take_it_later_is_enough_to_wait() {
    let zone = [
        ("Mx b.example", "MX 10 one.example, 20 two.example"),
        ("A one.example", "192.0.2.1"),
        ("Aaaa one.example", "none"),
        ("A two.example", "192.0.2.2"),
        ("Aaaa two.example", "none"),
    ];
    let greet = |first: u16, second: u16| {
        let mut codes = [first, second].into_iter();
        let ending =
            |_: &Hop| Ending::Refused(Stage::Greeting, Reply::new(codes.next().unwrap(), None, "no"));
        by_mx("b.example", &zone, ending).pop().unwrap()
    };
    assert_eq!(greet(554, 554), "failed 5.0.0: 554 no");
    assert_eq!(greet(554, 421), "deferred 4.0.0: 421 no");
    assert_eq!(greet(450, 554), "deferred 4.0.0: 450 no");
}

#[test]
fn equals_are_tried_in_any_order() {
    let route = route(Via::Mx(25), TlsLevel::None, Family::OnlyIpv4);
    let zone = [
        ("Mx b.example", "MX 10 one.example, 10 two.example"),
        ("A one.example", "192.0.2.1"),
        ("A two.example", "192.0.2.2"),
    ];
    let domain = Domain::parse("b.example").unwrap();
    let first = |seed| follow(Attempt::new(&route, &domain, own(), LIMITS, seed), &zone, refuse).remove(0);
    let ones = (0..100).filter(|seed| first(*seed).starts_with("one")).count();
    assert!((30..70).contains(&ones), "{ones} of 100 began with the same host");
}

#[test]
fn a_thousand_attempts_in_a_world_of_chance() {
    let seeds = match env::var("SEED") {
        Ok(seed) => seed.parse().map(|seed| seed..seed + 1).unwrap(),
        Err(_) => 0..1000,
    };
    seeds.for_each(live);
}

/// Whatever DNS and hosts do, an attempt ends, in order and within its bounds.
fn live(seed: u64) {
    let mut chance = Attempt::new(
        &route(Via::Mx(25), TlsLevel::None, Family::OnlyIpv4),
        &Domain::parse("chance.example").unwrap(),
        own(),
        LIMITS,
        seed,
    );
    let mut below = |bound: u64| chance.random() % bound;
    let tls = [TlsLevel::None, TlsLevel::Opportunistic, TlsLevel::Required][below(3) as usize];
    let families = [Family::PreferIpv6, Family::PreferIpv4, Family::OnlyIpv4, Family::OnlyIpv6];
    let family = families[below(4) as usize];
    let route = route(Via::Mx(25), tls, family);
    let domain = Domain::parse("b.example").unwrap();
    let mut attempt = Attempt::new(&route, &domain, own(), LIMITS, below(u64::MAX));
    let (mut preferences, mut addresses) = (HashMap::new(), HashMap::new());
    let (mut steps, mut connections, mut in_clear, mut last_preference) = (0, 0, 0, 0);
    let (mut may_wait, mut previous) = (false, None::<Hop>);
    let mut step = attempt.start();
    loop {
        steps += 1;
        assert!(steps < 40, "seed {seed}: no end");
        step = match step {
            Step::Ask(questions) if questions[0].kind == Kind::Mx => {
                let outcome = match below(8) {
                    0 => "NX".to_owned(),
                    1 => "none".to_owned(),
                    2 => "fail".to_owned(),
                    _ => {
                        let names = [
                            "one.example",
                            "two.example",
                            "three.example",
                            "four.example",
                            "us.example",
                            ".",
                        ];
                        let exchanges = (0..1 + below(6)).filter_map(|_| {
                            let (preference, name) = (below(4), names[below(6) as usize]);
                            // Twice the same host would make the order below hard to tell.
                            let new = !preferences.contains_key(name);
                            preferences.entry(name).or_insert(preference);
                            new.then(|| format!("{preference} {name}"))
                        });
                        format!("MX {}", exchanges.collect::<Vec<_>>().join(", "))
                    }
                };
                may_wait |= outcome == "fail";
                attempt.on_answers(&[answer(record(&outcome))])
            }
            Step::AskPolicy(..) | Step::Await => unreachable!("seed {seed}: nothing of that is asked"),
            Step::Ask(questions) => {
                let answers = questions.iter().map(|question| {
                    answer(record(match (below(6), question.kind) {
                        (0, _) => "NX",
                        (1, _) => "none",
                        (2, _) => {
                            may_wait = true;
                            "fail"
                        }
                        (3, _) => ["127.0.0.1", "203.0.113.1"][below(2) as usize],
                        (_, Kind::A) => ["192.0.2.1", "192.0.2.2 192.0.2.3 192.0.2.4"][below(2) as usize],
                        _ => ["2001:db8::1", "2001:db8::2 2001:db8::3 2001:db8::4 2001:db8::5"]
                            [below(2) as usize],
                    }))
                });
                attempt.on_answers(&answers.collect::<Vec<_>>())
            }
            Step::Connect(hop) => {
                let again = previous
                    .as_ref()
                    .is_some_and(|previous| previous.remote == hop.remote && previous.tls != hop.tls);
                if again {
                    assert_eq!((tls, hop.tls), (TlsLevel::Opportunistic, TlsLevel::None), "seed {seed}");
                    in_clear += 1;
                } else {
                    assert_eq!(hop.tls, tls, "seed {seed}");
                    connections += 1;
                    let of_host = addresses.entry(hop.remote.name.clone()).or_insert(0);
                    *of_host += 1;
                    assert!(*of_host <= LIMITS.addresses_max, "seed {seed}: too many addresses");
                }
                assert!(
                    !own().is_address(hop.remote.address().unwrap(), 25),
                    "seed {seed}: connects to ourselves"
                );
                assert_ne!(&*hop.remote.name, "us.example", "seed {seed}");
                let name = &*hop.remote.name;
                if let Some(preference) = preferences.get(name) {
                    assert!(last_preference <= *preference, "seed {seed}: {name} comes too late");
                    assert!(preferences.get("us.example").is_none_or(|own| preference < own), "seed {seed}");
                    last_preference = *preference;
                }
                let reply = |code| Reply::new(code, None, "chance");
                let failed = below(6);
                previous = Some(hop.clone());
                may_wait |= !matches!(failed, 5);
                match failed {
                    0 => attempt.on_connect_failed(&hop, &ConnectFailure::TimedOut),
                    1 => attempt.on_ending(&Ending::TlsFailed(TlsFailure("chance".into()))),
                    2 => attempt.on_ending(&Ending::Lost(Stage::Mail, Loss::Closed)),
                    3 => attempt.on_ending(&Ending::Refused(Stage::Ehlo, reply(450))),
                    4 => attempt.on_ending(&Ending::Idle),
                    _ => attempt.on_ending(&Ending::Refused(Stage::Greeting, reply(554))),
                }
            }
            Step::End(outcome) => {
                match outcome {
                    Outcome::Delivered(..) => panic!("seed {seed}: delivered by magic"),
                    Outcome::Deferred(_) => assert!(may_wait, "seed {seed}: why wait?"),
                    Outcome::Failed(_) => {}
                }
                break;
            }
        };
    }
    assert!(connections <= LIMITS.connections_max && in_clear <= connections, "seed {seed}");
}

/// Mail hosts as these, each connection under way until told otherwise.
fn racing(exchanges: &str) -> (Attempt, Step) {
    let route = route(Via::Mx(25), TlsLevel::None, Family::PreferIpv6);
    let domain = Domain::parse("b.example").unwrap();
    let mut attempt = Attempt::new(&route, &domain, own(), AttemptLimits { connecting_max: 3, ..LIMITS }, 1);
    let Step::Ask(_) = attempt.start() else { panic!("the MX records are asked for") };
    let step = attempt.on_answers(&[answer(record(exchanges))]);
    (attempt, step)
}

fn connects(step: Step, address: &str) -> Hop {
    match step {
        Step::Connect(hop) => {
            assert_eq!(hop.remote.address(), Some(address.parse::<IpAddr>().unwrap()));
            hop
        }
        step @ (Step::Ask(_) | Step::AskPolicy(..) | Step::Await | Step::End(_)) => {
            panic!("{step:?} and no connection to {address}")
        }
    }
}

#[test]
fn who_is_there_first_among_equals() {
    let failure = ConnectFailure::TimedOut;
    let addresses = |attempt: &mut Attempt, step: Step, v4: &str, v6: &str| {
        let Step::Ask(questions) = step else { panic!("{step:?}") };
        assert_eq!(questions.iter().map(|question| question.kind).collect::<Vec<_>>(), [Kind::Aaaa, Kind::A]);
        attempt.on_answers(&[answer(record(v6)), answer(record(v4))])
    };
    let (mut attempt, step) = racing("MX 10 one.example, 10 two.example, 20 three.example");
    let v6 = connects(addresses(&mut attempt, step, "192.0.2.1", "2001:db8::1"), "2001:db8::1");
    // It takes its time: the other address of the host, then the other host.
    let v4 = connects(attempt.rival(), "192.0.2.1");
    let step = attempt.rival();
    assert!(matches!(step, Step::Ask(_)));
    // Nothing is asked for while answers are on their way, and a failure changes nothing about that.
    assert_eq!(attempt.rival(), Step::Await);
    assert_eq!(attempt.on_connect_failed(&v6, &failure), Step::Await);
    let other = connects(addresses(&mut attempt, step, "192.0.2.2 192.0.2.3", "none"), "192.0.2.2");
    let third = connects(attempt.rival(), "192.0.2.3");
    // So many at once, and no more.
    assert_eq!(attempt.rival(), Step::Await);
    assert_eq!(attempt.on_connect_failed(&third, &failure), Step::Await, "a host of lower preference waits");
    attempt.on_connected(&other);
    // The session comes to nothing: the one that was slower is next, then the host of lower preference.
    let step = attempt.on_ending(&Ending::Lost(Stage::Greeting, Loss::Closed));
    assert_eq!(connects(step, "192.0.2.1"), v4);
    let step = attempt.on_connect_failed(&v4, &failure);
    let last = connects(addresses(&mut attempt, step, "192.0.2.4", "none"), "192.0.2.4");
    assert_eq!(attempt.rival(), Step::Await);
    // It was one too many for this attempt.
    let Step::End(outcome) = attempt.on_connect_failed(&last, &failure) else { panic!("none is left") };
    assert_eq!(outcome.report().remote.as_ref().unwrap().address(), last.remote.address());

    // A host that was asked about when another was there is asked about again.
    let (mut attempt, step) = racing("MX 10 one.example, 10 two.example");
    let only = connects(addresses(&mut attempt, step, "192.0.2.1", "none"), "192.0.2.1");
    assert!(matches!(attempt.rival(), Step::Ask(_)));
    attempt.on_connected(&only);
    let step = attempt.on_ending(&Ending::Lost(Stage::Greeting, Loss::Closed));
    connects(addresses(&mut attempt, step, "192.0.2.2", "none"), "192.0.2.2");

    // When all that were on their way have failed, the answers lead on.
    let (mut attempt, step) = racing("MX 10 one.example, 10 two.example");
    let only = connects(addresses(&mut attempt, step, "192.0.2.1", "none"), "192.0.2.1");
    let step = attempt.rival();
    assert_eq!(attempt.on_connect_failed(&only, &failure), Step::Await);
    let second = connects(addresses(&mut attempt, step, "192.0.2.2", "none"), "192.0.2.2");
    assert!(matches!(attempt.on_connect_failed(&second, &failure), Step::End(_)));
}

#[test]
fn hosts_that_an_operator_has_named_are_tried_in_their_order() {
    let hosts = ["192.0.2.1", "192.0.2.2"];
    let hosts = hosts.map(|host| HopHost { place: Place::Address(host.parse().unwrap()), port: 25 });
    let route = route(Via::NextHop(hosts.to_vec()), TlsLevel::None, Family::PreferIpv6);
    let mut attempt = Attempt::new(&route, &Domain::parse("b.example").unwrap(), own(), LIMITS, 1);
    let first = connects(attempt.start(), "192.0.2.1");
    assert_eq!(attempt.rival(), Step::Await);
    connects(attempt.on_connect_failed(&first, &ConnectFailure::Refused), "192.0.2.2");
}

#[test]
fn a_thousand_races_in_a_world_of_chance() {
    (0..1000).for_each(compete);
}

/// Whoever is slow, fails or is there first: nobody is connected to before all of higher preference have failed, nothing goes on
/// without an end, and no more is on its way than may be.
fn compete(seed: u64) {
    let mut chance = racing("MX 1 one.example").0;
    chance.random = seed;
    let mut below = |bound: u64| chance.random() % bound;
    let names = ["one.example", "two.example", "three.example", "four.example", "us.example"];
    let preferences: HashMap<_, _> = names.iter().map(|name| (*name, below(3))).collect();
    let exchanges: Vec<_> =
        preferences.iter().map(|(name, preference)| format!("{preference} {name}")).collect();
    let (mut attempt, mut step) = racing(&format!("MX {}", exchanges.join(", ")));
    let (mut flying, mut asked): (Vec<Hop>, Option<Vec<Question>>) = (Vec::new(), None);
    let (mut steps, mut worst) = (0, 0);
    loop {
        steps += 1;
        assert!(steps < 100, "seed {seed}: no end");
        match mem::replace(&mut step, Step::Await) {
            Step::Connect(hop) => {
                let preference = preferences[&*hop.remote.name];
                assert!(preference >= worst && preference < preferences["us.example"], "seed {seed}");
                let others = flying.iter().map(|other| preferences[&*other.remote.name]);
                assert!(others.into_iter().all(|other| other == preference), "seed {seed}: too early");
                worst = preference;
                flying.push(hop);
                assert!(flying.len() <= 3, "seed {seed}: too many");
            }
            Step::Ask(questions) => asked = Some(questions),
            Step::Await => assert!(!flying.is_empty() || asked.is_some(), "seed {seed}: nothing moves"),
            Step::AskPolicy(..) => unreachable!("seed {seed}: nobody keeps to policies"),
            Step::End(_) => return assert!(flying.is_empty() && asked.is_none(), "seed {seed}"),
        }
        let lucky = flying.len() as u64;
        step = match (below(4), asked.is_some(), lucky > 0) {
            (_, true, false) | (0, true, true) => {
                let questions = asked.take().unwrap();
                let found = |question: &Question| match (below(4), question.kind) {
                    (0, _) => answer(record("none")),
                    (_, Kind::A) => answer(record(&format!("192.0.2.{} 192.0.2.{}", below(20), below(20)))),
                    _ => answer(record(&format!("2001:db8::{}", below(20)))),
                };
                attempt.on_answers(&questions.iter().map(found).collect::<Vec<_>>())
            }
            (1, _, true) => attempt.rival(),
            (2, _, true) => {
                let hop = flying.swap_remove(below(lucky) as usize);
                attempt.on_connect_failed(&hop, &ConnectFailure::TimedOut)
            }
            (_, _, true) => {
                let hop = flying.swap_remove(below(lucky) as usize);
                attempt.on_connected(&hop);
                (flying, asked) = (Vec::new(), None);
                attempt.on_ending(&Ending::Lost(Stage::Greeting, Loss::Closed))
            }
            (_, false, false) => unreachable!("seed {seed}: nothing moves"),
        };
    }
}
