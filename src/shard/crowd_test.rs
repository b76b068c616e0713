//! Counts are exact, rates hold, and the table keeps to its bound.

use std::{net::Ipv4Addr, thread};

use super::*;

const PREFIXES: Prefixes = Prefixes { v4: 24, v6: 64 };
const MANY: u32 = 100_000;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn enter(crowd: &Crowd, address: &str) -> Place {
    crowd.enter(Some(address.parse().unwrap()), PREFIXES, at(100))
}

fn counts(place: &Place) -> [u32; 3] {
    [place.host, place.client, place.network]
}

#[test]
fn clients_are_counted_by_address_and_network_and_forgotten() {
    let crowd = Crowd::new(MANY);
    let held = ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.255", "192.0.3.1"].map(|a| enter(&crowd, a));
    assert_eq!(held.each_ref().map(counts), [[1, 1, 1], [2, 2, 2], [3, 1, 3], [4, 1, 1]]);
    let v6 = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|a| enter(&crowd, a));
    assert_eq!(v6.each_ref().map(counts), [[5, 1, 1], [6, 1, 2], [7, 1, 1]]);
    let spared = crowd.enter(None, PREFIXES, at(100));
    assert_eq!(counts(&spared), [8, 0, 0]);
    assert!(spared.is_tracked() && held[0].is_tracked());
    assert_eq!(crowd.tracked(), 3 + 2 + 3 + 2);
    drop((held, v6, spared));
    assert_eq!((crowd.tracked(), counts(&enter(&crowd, "192.0.2.1"))), (0, [1, 1, 1]));
}

#[test]
fn networks_are_as_wide_as_one_likes() {
    let widths = [(8, 16), (24, 64), (32, 128)];
    for (v4, v6) in widths {
        let crowd = Crowd::new(MANY);
        let prefixes = Prefixes { v4, v6 };
        let together = |a: &str, b: &str| {
            let enter = |text: &str| crowd.enter(Some(text.parse().unwrap()), prefixes, at(1));
            let (_first, second) = (enter(a), enter(b));
            second.network == 2
        };
        assert_eq!(together("10.1.1.1", "10.2.1.1"), v4 == 8);
        assert_eq!(together("10.1.1.1", "10.1.1.2"), v4 < 32);
        assert!(!together("2001:db8::1", "2002:db8::1"));
        assert_eq!(together("2001:db8::1", "2001:db8:1::1"), v6 == 16);
        assert_eq!(together("2001:db8::1", "2001:db8::2"), v6 < 128);
        assert!(together("10.1.1.1", "10.1.1.1") && together("::1", "::1"));
    }
}

fn take(place: &Place, client: Option<u32>, network: Option<u32>, now: Duration) -> Result<(), UsedUp> {
    place.take(Bucket::Connections, Rates { client, network }, 1, now)
}

#[test]
fn a_minutes_worth_may_come_at_once_and_comes_back_by_and_by() {
    let crowd = Crowd::new(MANY);
    let place = enter(&crowd, "192.0.2.1");
    let burst = |now| (0..).take_while(|_| take(&place, Some(6), None, now).is_ok()).count();
    assert_eq!(burst(at(100)), 6);
    assert_eq!(burst(at(109)), 0);
    assert_eq!(burst(at(110)), 1, "one in ten seconds");
    assert_eq!(burst(at(135)), 2);
    assert_eq!(burst(at(1000)), 6, "and not more than a minute's worth");
    assert_eq!(take(&place, None, None, at(1000)), Ok(()), "no rate, no limit");
    // What is used up outlives the connection, until all has come back.
    drop(place);
    assert_eq!(crowd.tracked(), 1, "the network used none");
    let again = enter(&crowd, "192.0.2.1");
    assert_eq!(take(&again, Some(6), None, at(1001)), Err(UsedUp::Client));
}

#[test]
fn a_network_has_a_rate_of_its_own() {
    let crowd = Crowd::new(MANY);
    let (one, two) = (enter(&crowd, "192.0.2.1"), enter(&crowd, "192.0.2.2"));
    for place in [&one, &two, &one] {
        assert_eq!(take(place, Some(2), Some(3), at(100)), Ok(()));
    }
    assert_eq!(take(&one, Some(2), Some(3), at(100)), Err(UsedUp::Client));
    assert_eq!(take(&two, Some(2), Some(3), at(100)), Err(UsedUp::Network));
    // What the network refused is not taken from the client.
    assert_eq!(take(&two, Some(2), None, at(100)), Ok(()));
    assert_eq!(take(&two, Some(2), None, at(100)), Err(UsedUp::Client));
}

#[test]
fn a_connection_takes_a_hundredth_at_a_time_and_gives_back_the_rest() {
    let crowd = Crowd::new(MANY);
    let rates = Rates { client: Some(1000), network: Some(2000) };
    let spend = |place: &Place, now| place.spend(Bucket::Messages, rates, now);
    let burst = |place: &Place, now| (0..).take_while(|_| spend(place, now).is_ok()).count();
    let full_at = |place: &Place| {
        let key = place.stranger.as_ref().unwrap().keys[0];
        crowd.part(key).entries[&key].full_at[Bucket::Messages as usize] - nanos(at(100))
    };
    let one = enter(&crowd, "192.0.2.1");
    spend(&one, at(100)).unwrap();
    assert_eq!(full_at(&one), 10 * MINUTE / 1000, "ten at once");
    (0..9).for_each(|_| spend(&one, at(100)).unwrap());
    assert_eq!((full_at(&one), one.stranger.as_ref().unwrap().in_hand[1].get()), (10 * MINUTE / 1000, 0));
    spend(&one, at(100)).unwrap();
    // What one has in hand, the other lacks; the last are taken one by one.
    let two = enter(&crowd, "192.0.2.1");
    assert_eq!(burst(&two, at(100)), 1000 - 20);
    assert_eq!(burst(&one, at(100)), 9);
    assert_eq!((burst(&one, at(100)), burst(&two, at(100))), (0, 0), "never more than the rate");
    // Of another client of the network, the rest of its rate; and what is not used comes back.
    let three = enter(&crowd, "192.0.2.2");
    (0..15).for_each(|_| spend(&three, at(100)).unwrap());
    drop(three);
    let four = enter(&crowd, "192.0.2.3");
    assert_eq!(burst(&four, at(100)), 1000 - 15);
    let spared = crowd.enter(None, PREFIXES, at(100));
    (0..2000).for_each(|_| spend(&spared, at(100)).unwrap());
}

#[test]
fn few_in_a_minute_are_taken_one_by_one() {
    let crowd = Crowd::new(MANY);
    let (one, two) = (enter(&crowd, "192.0.2.1"), enter(&crowd, "192.0.2.1"));
    let rates = Rates { client: Some(3), network: None };
    for (place, expected) in [(&one, Ok(())), (&two, Ok(())), (&one, Ok(())), (&two, Err(UsedUp::Client))] {
        assert_eq!(place.spend(Bucket::Recipients, rates, at(100)), expected);
    }
    for _ in 0..10 {
        assert_eq!(one.spend(Bucket::Messages, Rates::default(), at(100)), Ok(()));
    }
}

#[test]
fn the_host_has_a_rate() {
    let crowd = Crowd::new(MANY);
    let burst = |rate, now| (0..100).take_while(|_| crowd.take_of_host(rate, now)).count();
    assert_eq!(burst(Some(60), at(5)), 60);
    assert_eq!(burst(Some(60), at(8)), 3);
    assert_eq!(burst(None, at(8)), 100);
}

#[test]
fn what_is_forgiven_is_swept_away() {
    let crowd = Crowd::new(MANY);
    let sweep = |now| (0..PARTS).for_each(|turn| crowd.sweep(turn, now));
    let place = enter(&crowd, "192.0.2.1");
    take(&place, Some(60), Some(6), at(100)).unwrap();
    sweep(at(500));
    assert_eq!(crowd.tracked(), 2, "a connection is open");
    drop(place);
    sweep(at(100));
    assert_eq!(crowd.tracked(), 2);
    sweep(at(101));
    assert_eq!(crowd.tracked(), 1, "the client has its token back");
    sweep(at(110));
    assert_eq!(crowd.tracked(), 0);
    let parts = &crowd.0.parts;
    assert!(parts.iter().all(|part| lock(part).idle == 0));
}

fn v4(number: u32) -> Option<IpAddr> {
    Some(Ipv4Addr::from_bits(number).into())
}

#[test]
fn the_table_keeps_to_its_bound() {
    const MAX: u32 = 6400;
    let crowd = Crowd::new(MAX);
    let rates = Rates { client: Some(60), network: Some(60) };
    for number in 0..100_000 {
        let place = crowd.enter(v4(number << 8), PREFIXES, at(100));
        assert!(place.is_tracked(), "nobody who came before is connected");
        place.take(Bucket::Connections, rates, 1, at(100)).unwrap();
        drop(place);
        assert!(crowd.tracked() <= MAX as usize);
    }
    // Who has used most is remembered longest.
    let greedy = |tokens| {
        let place = crowd.enter(v4(7), PREFIXES, at(100));
        place.take(Bucket::Connections, rates, tokens, at(100))
    };
    greedy(60).unwrap();
    for number in 1000..3000 {
        let place = crowd.enter(v4(number << 8), PREFIXES, at(100));
        place.take(Bucket::Connections, rates, 1, at(100)).unwrap();
    }
    assert!(greedy(1).is_err());
}

#[test]
fn beyond_the_bound_newcomers_are_not_counted() {
    let crowd = Crowd::new(1024);
    let held: Vec<Place> = (0..4000).map(|number| crowd.enter(v4(number << 8), PREFIXES, at(100))).collect();
    assert_eq!(crowd.tracked(), 1024, "all parts are full");
    let counted = held.iter().filter(|place| place.is_tracked()).count();
    assert!((1..1024).contains(&counted), "{counted}");
    let newcomer = crowd.enter(v4(5000 << 8), PREFIXES, at(100));
    assert_eq!(counts(&newcomer), [4001, 0, 0]);
    assert!(!newcomer.is_tracked());
    assert_eq!(take(&newcomer, Some(1), Some(1), at(100)), Ok(()));
    assert_eq!(take(&newcomer, Some(1), Some(1), at(100)), Ok(()));
    // Who is there is still counted, and everybody's leaving is.
    let again = crowd.enter(v4(0), PREFIXES, at(100));
    assert_eq!(again.client, 2);
    drop((newcomer, again, held));
    assert_eq!((crowd.tracked(), crowd.0.open.load(Relaxed)), (0, 0));
    // With more room all are.
    crowd.set_tracked_max(MANY);
    let held: Vec<Place> = (0..4000).map(|number| crowd.enter(v4(number << 8), PREFIXES, at(100))).collect();
    assert!(held.iter().all(Place::is_tracked));
}

#[test]
fn counts_are_exact_between_threads() {
    let crowd = Crowd::new(MANY);
    let rates = Rates { client: Some(3000), network: None };
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let crowd = crowd.clone();
            thread::spawn(move || {
                let mut granted = 0;
                let mut held = Vec::new();
                for round in 0..3000u32 {
                    let place = crowd.enter(v4(round % 7), PREFIXES, at(100));
                    assert!(place.is_tracked());
                    if round % 7 == 0 {
                        granted += u32::from(place.take(Bucket::Connections, rates, 8, at(100)).is_ok());
                    }
                    held.push(place);
                    if held.len() > 10 + worker {
                        held.clear();
                    }
                }
                granted
            })
        })
        .collect();
    let granted: u32 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert_eq!(granted, 3000 / 8);
    assert_eq!(crowd.0.open.load(Relaxed), 0);
    assert_eq!(crowd.tracked(), 1, "who has used some of a rate");
}
