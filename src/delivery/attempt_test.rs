//! Attempts, one after the other, and a thousand in a world of chance.

use std::{collections::HashMap, env, time::Duration};

use dns::{Exchange, Failure, Security};
use smtp::client::{Reply, ReplyError, TlsFailure};

use super::*;
use crate::{HopHost, Pattern, RouteOptions};

const LIMITS: AttemptLimits =
    AttemptLimits { hosts_max: 3, addresses_max: 3, connections_max: 5, reconnections_max: 2 };

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
    Arc::new(Answer { outcome, security: Security::Unproven, ttl: Duration::ZERO })
}

/// `MX 10 a, 20 b`, `MX .`, `NX`, `none`, `fail`, or addresses.
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
    let mut step = attempt.start();
    loop {
        step = match step {
            Step::Ask(questions) => {
                let outcome = |question: &Question| {
                    let key = format!("{:?} {}", question.kind, question.name);
                    let text = zone.get(&*key).unwrap_or_else(|| panic!("nobody knows {key}"));
                    let Some(proven) = text.strip_prefix("proven ") else { return answer(record(text)) };
                    Arc::new(Answer { security: Security::Secure, ..(*answer(record(proven))).clone() })
                };
                attempt.on_answers(&questions.iter().map(outcome).collect::<Vec<_>>())
            }
            Step::Connect(hop) => {
                let source = hop.source.map(|source| format!(" from {source}")).unwrap_or_default();
                said.push(format!("{} {:?}{source}", hop.remote, hop.tls));
                let ending = endings(&hop);
                // A connection that was never made has no ending; this one stands for that.
                if ending == Ending::Quit {
                    attempt.on_connect_failed(&ConnectFailure::Refused)
                } else {
                    attempt.on_ending(&ending)
                }
            }
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
    let unproven = "failed 5.7.30: REQUIRETLS: DNSSEC does not prove the mail hosts of b.example";
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
                assert!(!own().is_address(hop.remote.address, 25), "seed {seed}: connects to ourselves");
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
                    0 => attempt.on_connect_failed(&ConnectFailure::TimedOut),
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
