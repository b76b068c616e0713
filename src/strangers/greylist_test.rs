//! Greylisting with a clock that is a number.

use super::*;

const RULES: GreyRules = GreyRules {
    delay: Duration::from_secs(300),
    window: Duration::from_secs(86_400),
    lifetime: Duration::from_secs(36 * 86_400),
    client_after: Some(3),
};
/// When the tests begin.
const BEGIN: u64 = 1_764_387_000;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(BEGIN + secs)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn reverse_path(text: &str) -> ReversePath {
    if text.is_empty() { ReversePath::Null } else { ReversePath::Address(text.parse().unwrap()) }
}

/// The keys of a triplet and its client.
fn keys(greylist: &Greylist, address: &str, from: &str, to: &str) -> (GreyKey, GreyKey) {
    let origin = Origin::of(address.parse().unwrap(), 24, 64);
    (greylist.triplet(origin, &reverse_path(from), &to.parse().unwrap()), greylist.client(origin))
}

fn meet(greylist: &Greylist, (address, from, to): (&str, &str, &str), rules: &GreyRules, when: u64) -> Met {
    let (triplet, client) = keys(greylist, address, from, to);
    greylist.meet(triplet, client, rules, at(when))
}

const ANN: (&str, &str, &str) = ("192.0.2.1", "ann@example.org", "bob@example.net");

#[test]
fn who_comes_again_in_time_is_known() {
    let greylist = Greylist::default();
    let day = 86_400;
    for (when, expected) in [
        (0, Met::New(secs(300))),
        (1, Met::Early(secs(299))),
        (299, Met::Early(secs(1))),
        (300, Met::Passed(secs(300))),
        (301, Met::Known),
        (300 + 36 * day - 1, Met::Known),
        // From then on another lifetime, and not from the first time.
        (301 + 70 * day, Met::Known),
        (301 + 107 * day, Met::New(secs(300))),
    ] {
        assert_eq!(meet(&greylist, ANN, &RULES, when), expected, "{when}");
    }
}

#[test]
fn who_comes_too_late_comes_for_the_first_time() {
    let greylist = Greylist::default();
    assert_eq!(meet(&greylist, ANN, &RULES, 0), Met::New(secs(300)));
    assert_eq!(meet(&greylist, ANN, &RULES, 86_400), Met::New(secs(300)));
    assert_eq!(meet(&greylist, ANN, &RULES, 86_500), Met::Early(secs(200)));
    // A clock that was set back does not let anybody in, nor keep anybody out for ever.
    assert_eq!(meet(&greylist, ANN, &RULES, 86_000), Met::Early(secs(300)));
    assert_eq!(meet(&greylist, ANN, &RULES, 86_700), Met::Passed(secs(300)));
    // Whoever has set a window that is shorter than the delay is not locked out.
    let odd = GreyRules { window: secs(10), ..RULES };
    let greylist = Greylist::default();
    assert_eq!(meet(&greylist, ANN, &odd, 0), Met::New(secs(300)));
    assert_eq!(meet(&greylist, ANN, &odd, 300), Met::Passed(secs(300)));
}

#[test]
fn each_part_of_a_triplet_counts_and_networks_are_one() {
    let greylist = Greylist::default();
    assert_eq!(meet(&greylist, ANN, &RULES, 0), Met::New(secs(300)));
    for same in [
        ("192.0.2.254", "ann@example.org", "bob@example.net"),
        ("::ffff:192.0.2.7", "Ann@EXAMPLE.org", "BOB@example.NET"),
        ("192.0.2.1", "ann+17@example.org", "bob@example.net"),
    ] {
        assert_eq!(meet(&greylist, same, &RULES, 1), Met::Early(secs(299)), "{same:?}");
    }
    for other in [
        ("192.0.3.1", "ann@example.org", "bob@example.net"),
        ("2001:db8::1", "ann@example.org", "bob@example.net"),
        ("192.0.2.1", "ann@example.com", "bob@example.net"),
        ("192.0.2.1", "", "bob@example.net"),
        ("192.0.2.1", "ann@example.org", "rob@example.net"),
    ] {
        assert_eq!(meet(&greylist, other, &RULES, 1), Met::New(secs(300)), "{other:?}");
    }
    // A number in the local-part is one number.
    let bounce = |number: u32| format!("bounce-{number}-x@lists.example");
    assert_eq!(meet(&greylist, ("192.0.2.1", &bounce(7), ANN.2), &RULES, 0), Met::New(secs(300)));
    assert_eq!(meet(&greylist, ("192.0.2.1", &bounce(1234), ANN.2), &RULES, 9), Met::Early(secs(291)));
    let v6 = |address| meet(&greylist, (address, ANN.1, ANN.2), &RULES, 1);
    assert_eq!(v6("2001:db8::ffff:2"), Met::Early(secs(300)));
    assert_eq!(v6("2001:db8:0:1::1"), Met::New(secs(300)));
    // A domain that names its hosts is one origin, wherever they are.
    let of_domain = |domain| {
        let origin = Origin::Domain(domain);
        let triplet = greylist.triplet(origin, &reverse_path(ANN.1), &ANN.2.parse().unwrap());
        greylist.meet(triplet, greylist.client(origin), &RULES, at(5))
    };
    assert_eq!(of_domain("example.org"), Met::New(secs(300)));
    assert_eq!(of_domain("Example.ORG"), Met::Early(secs(300)));
}

#[test]
fn a_client_of_many_good_triplets_waits_no_more() {
    let greylist = Greylist::default();
    for (number, to) in ["a@example.net", "b@example.net", "c@example.net"].into_iter().enumerate() {
        let mail = (ANN.0, ANN.1, to);
        assert_eq!(meet(&greylist, mail, &RULES, 0), Met::New(secs(300)), "{number}");
    }
    for to in ["a@example.net", "b@example.net", "a@example.net"] {
        // The same triplet again is no further success.
        assert!(meet(&greylist, (ANN.0, ANN.1, to), &RULES, 400).wait().is_none());
    }
    assert_eq!(meet(&greylist, ANN, &RULES, 401), Met::New(secs(300)));
    assert_eq!(meet(&greylist, (ANN.0, ANN.1, "c@example.net"), &RULES, 402), Met::Passed(secs(402)));
    assert_eq!(meet(&greylist, ANN, &RULES, 403), Met::KnownClient);
    assert_eq!(
        meet(&greylist, ("192.0.2.99", "x@other.example", "y@example.net"), &RULES, 403),
        Met::KnownClient
    );
    let without = GreyRules { client_after: None, ..RULES };
    assert_eq!(
        meet(&greylist, ("192.0.2.99", "x@other.example", "y@example.net"), &without, 403),
        Met::New(secs(300))
    );
    assert_eq!(greylist.counts(), GreyCounts { waiting: 2, proven: 3, clients: 1 });
}

#[test]
fn a_flood_pushes_out_itself() {
    let greylist = Greylist::default();
    let max = 64 * 64;
    greylist.set_entries_max(max);
    // Good ones and such as wait came before.
    let old = |number: u64| format!("old{}@example.org", char::from(b'a' + number as u8));
    for number in 0..20 {
        meet(
            &greylist,
            ("192.0.2.1", &old(number), ANN.2),
            &GreyRules { client_after: None, ..RULES },
            number,
        );
    }
    for number in 0..10 {
        let met = meet(
            &greylist,
            ("192.0.2.1", &old(number), ANN.2),
            &GreyRules { client_after: None, ..RULES },
            400,
        );
        assert_eq!(met.wait(), None);
    }
    for number in 0..20_000_u64 {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + (number as u32) * 256);
        meet(&greylist, (&address.to_string(), "x@spam.example", ANN.2), &RULES, 500 + number / 100);
        assert!(greylist.len() <= max, "{}", greylist.len());
    }
    assert!(greylist.evicted() > 10_000 && greylist.len() > max / 2, "{}", greylist.len());
    let none = GreyRules { client_after: None, ..RULES };
    for number in 0..20 {
        let met = meet(&greylist, ("192.0.2.1", &old(number), ANN.2), &none, 1000);
        assert_eq!(met.wait(), None, "{number}: {met:?}");
    }
}

#[test]
fn where_all_are_good_the_oldest_go() {
    let greylist = Greylist::default();
    greylist.set_entries_max(64 * 16);
    let none = GreyRules { client_after: None, ..RULES };
    for number in 0..5_000_u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number * 256).to_string();
        meet(&greylist, (&address, "x@y.example", ANN.2), &none, u64::from(number));
        let again = meet(&greylist, (&address, "x@y.example", ANN.2), &none, u64::from(number) + 300);
        assert_eq!(again, Met::Passed(secs(300)), "what has just come is there: {number}");
        assert!(greylist.len() <= 64 * 16);
    }
    let last = std::net::Ipv4Addr::from_bits(0x0a00_0000 + 4_999 * 256).to_string();
    assert_eq!(meet(&greylist, (&last, "x@y.example", ANN.2), &none, 6_000), Met::Known);
    assert_eq!(meet(&greylist, ("10.0.0.0", "x@y.example", ANN.2), &none, 6_000), Met::New(secs(300)));
}

/// All changes of all parts.
fn changes(greylist: &Greylist) -> Vec<(GreyKey, Slot)> {
    (0..GREY_PARTS).flat_map(|part| greylist.take_changes(part)).collect()
}

#[test]
fn what_is_written_down_is_all_there_is_to_know() {
    let (one, two) = (Greylist::default(), Greylist::default());
    for greylist in [&one, &two] {
        greylist.set_key(&[7; 32]);
    }
    let take = |from: &Greylist, to: &Greylist, when: u64| {
        let changes = changes(from);
        changes.iter().for_each(|(key, slot)| to.absorb(*key, *slot, at(when)));
        changes.len()
    };
    meet(&one, ANN, &RULES, 0);
    assert_eq!((take(&one, &two, 0), take(&one, &two, 0)), (1, 0), "what is taken is not told again");
    assert_eq!(meet(&two, ANN, &RULES, 300), Met::Passed(secs(300)), "whichever process it comes back to");
    // The other has not heard of that yet, and it comes there as well.
    assert_eq!(meet(&one, ANN, &RULES, 301), Met::Passed(secs(301)));
    take(&two, &one, 302);
    take(&one, &two, 302);
    let clients = |greylist: &Greylist| {
        let (_, client) = keys(greylist, ANN.0, ANN.1, ANN.2);
        greylist.find(client, at(302)).unwrap().state
    };
    assert_eq!((clients(&one), clients(&two)), (State::Client(1), State::Client(1)));
    // What is of no account any more is not taken.
    let stale = Slot { state: State::Waiting((BEGIN - 90_000) as u32), until: (BEGIN - 3_600) as u32 };
    two.absorb(GreyKey(1), stale, at(0));
    assert_eq!(two.find(GreyKey(1), at(0)), None);
    // What an operator has taken out is out for all.
    let (triplet, _) = keys(&one, ANN.0, ANN.1, ANN.2);
    assert!(one.clear(triplet) && !one.clear(triplet));
    take(&one, &two, 303);
    assert_eq!((two.find(triplet, at(303)), two.len(), one.len()), (None, 1, 1));
    assert_eq!(meet(&two, ANN, &RULES, 304), Met::New(secs(300)));
}

#[test]
fn entries_are_joined_in_any_order() {
    let slot = |state, until: u32| Slot { state, until };
    let slots = [
        slot(State::Proven, 900),
        slot(State::Proven, 700),
        slot(State::Waiting(1_100_000), 1_100_400),
        slot(State::Waiting(1_100_100), 1_100_500),
        slot(State::Waiting(1_200_000), 1_200_400),
    ];
    for one in slots {
        for two in slots {
            assert_eq!(one.join(two), two.join(one), "{one:?} {two:?}");
            assert_eq!(one.join(two).join(one), one.join(two));
        }
    }
    assert_eq!(slots[2].join(slots[3]), slots[2], "it waits since the first time");
    assert_eq!(slots[2].join(slots[4]), slots[4], "which was forgotten by then");
    let clients = slot(State::Client(3), 900).join(slot(State::Client(5), 700));
    assert_eq!(clients, slot(State::Client(5), 900));
}

#[test]
fn time_ends_entries() {
    let greylist = Greylist::default();
    meet(&greylist, ANN, &RULES, 0);
    (0..GREY_PARTS).for_each(|turn| greylist.sweep(turn, at(86_399)));
    assert_eq!(greylist.len(), 1);
    (0..GREY_PARTS).for_each(|turn| greylist.sweep(turn, at(86_400)));
    assert!(greylist.is_empty());
    assert_eq!(GreyCounts::default(), greylist.counts());
}

#[test]
fn senders_are_compared_by_what_stays() {
    for (address, expected) in [
        ("ann@example.org", "ann@example.org"),
        ("Ann.B@Example.Org", "ann.b@example.org"),
        ("ann+shop@example.org", "ann@example.org"),
        ("+x@example.org", "+x@example.org"),
        ("prvs=1234abc=ann@example.org", "prvs=#abc=ann@example.org"),
        ("n-17.18@example.org", "n-#.#@example.org"),
    ] {
        assert_eq!(sender_key(&address.parse().unwrap()), expected);
    }
}
