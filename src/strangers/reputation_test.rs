//! Reputation with a clock that is a number.

use super::*;

const BEGIN: u64 = 1_764_387_000;
const DAY: u64 = 86_400;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(BEGIN + secs)
}

fn near(counts: Option<Counts>, expected: [f64; DEEDS]) {
    let Some(Counts(counts)) = counts else { panic!("nothing is known") };
    for (count, expected) in counts.iter().zip(expected) {
        assert!((count - expected).abs() < 0.1, "{counts:?}");
    }
}

#[test]
fn deeds_fade() {
    let reputation = Reputation::default();
    reputation.configure(1_000_000, Duration::from_secs(7 * DAY));
    let key = reputation.key(Subject::Domain("example.org"));
    assert_eq!(reputation.counts(key, at(0)), None);
    for _ in 0..8 {
        reputation.learn(key, Deed::Unknown, at(0));
    }
    reputation.learn(key, Deed::Accepted, at(0));
    near(reputation.counts(key, at(0)), [1.0, 0.0, 0.0, 8.0, 0.0]);
    near(reputation.counts(key, at(7 * DAY)), [0.5, 0.0, 0.0, 4.0, 0.0]);
    reputation.learn(key, Deed::Unknown, at(7 * DAY));
    near(reputation.counts(key, at(7 * DAY)), [0.5, 0.0, 0.0, 5.0, 0.0]);
    near(reputation.counts(key, at(14 * DAY)), [0.25, 0.0, 0.0, 2.5, 0.0]);
    // A clock that was set back makes nothing of it.
    near(reputation.counts(key, at(0)), [0.5, 0.0, 0.0, 5.0, 0.0]);
    (0..REPUTATION_PARTS).for_each(|turn| reputation.sweep(turn, at(30 * DAY)));
    assert_eq!(reputation.len(), 1);
    (0..REPUTATION_PARTS).for_each(|turn| reputation.sweep(turn, at(100 * DAY)));
    assert!(reputation.is_empty());
}

/// Of what is more than can be counted the share of the bad stays.
#[test]
fn who_does_very_much_is_judged_by_the_share_of_it() {
    let reputation = Reputation::default();
    let key = reputation.key(Subject::System(64_496));
    assert_ne!(key, reputation.key(Subject::System(64_497)));
    for number in 0..50_000 {
        let deed = if number % 10 == 0 { Deed::Unknown } else { Deed::Accepted };
        reputation.learn(key, deed, at(0));
    }
    let counts = reputation.counts(key, at(0)).unwrap();
    let Counts([accepted, _, _, unknown, _]) = counts;
    assert!(accepted > 3900.0 && (accepted / unknown - 9.0).abs() < 0.5, "{counts:?}");
    assert_eq!(counts.weight(4000, 10), -8);
}

#[test]
fn what_it_weighs() {
    let weight = |counts| Counts(counts).weight(10, 5);
    for (counts, expected) in [
        ([0.0, 0.0, 0.0, 0.0, 0.0], 0),
        ([9.0, 0.0, 0.0, 0.0, 0.0], 0),
        ([10.0, 0.0, 0.0, 0.0, 0.0], -5),
        ([0.0, 0.0, 0.0, 10.0, 0.0], 5),
        // A word of a list is two.
        ([0.0, 5.0, 0.0, 0.0, 0.0], 5),
        ([50.0, 0.0, 25.0, 25.0, 0.0], 0),
        ([75.0, 0.0, 25.0, 0.0, 0.0], -3),
        ([20.0, 0.0, 0.0, 80.0, 0.0], 3),
        ([10.0, 0.0, 0.0, 0.0, 10.0], 2),
    ] {
        assert_eq!(weight(counts), expected, "{counts:?}");
    }
}

#[test]
fn each_subject_is_itself() {
    let reputation = Reputation::default();
    let address: Address = "ann@example.org".parse().unwrap();
    let network = |text: &str, bits| Origin::of(text.parse().unwrap(), bits, 64);
    let keys = [
        reputation.key(Subject::Client(network("192.0.2.1", 32))),
        reputation.key(Subject::Client(network("192.0.2.1", 24))),
        reputation.key(Subject::Domain("example.org")),
        reputation.key(Subject::Sender(&address)),
    ];
    for (place, key) in keys.iter().enumerate() {
        assert!(!keys[..place].contains(key));
    }
    assert_eq!(keys[1], reputation.key(Subject::Client(network("192.0.2.99", 24))));
    assert_eq!(keys[2], reputation.key(Subject::Domain("Example.ORG")));
}

#[test]
fn who_has_done_least_goes_first() {
    let reputation = Reputation::default();
    reputation.configure(64 * 16, Duration::from_secs(7 * DAY));
    let known = |number: u32| reputation.key(Subject::Domain(&format!("known{number}.example")));
    for number in 0..64 {
        for _ in 0..50 {
            reputation.learn(known(number), Deed::Listed, at(0));
        }
    }
    for number in 0..20_000 {
        let key = reputation.key(Subject::Domain(&format!("n{number}.example")));
        reputation.learn(key, Deed::Accepted, at(1));
        assert!(reputation.len() <= 64 * 16);
    }
    let left = (0..64).filter(|number| reputation.counts(known(*number), at(2)).is_some()).count();
    assert_eq!(left, 64);
}

#[test]
fn what_two_know_is_joined() {
    let (one, two) = (Reputation::default(), Reputation::default());
    for reputation in [&one, &two] {
        reputation.set_key(&[7; 32]);
        reputation.configure(1000, Duration::from_secs(7 * DAY));
    }
    let key = one.key(Subject::Domain("example.org"));
    for _ in 0..4 {
        one.learn(key, Deed::Accepted, at(0));
    }
    two.learn(key, Deed::Unknown, at(7 * DAY));
    let take = |from: &Reputation, to: &Reputation| {
        for part in 0..REPUTATION_PARTS {
            from.take_changes(part).into_iter().for_each(|(key, deeds)| to.absorb(key, deeds, at(7 * DAY)));
        }
    };
    take(&one, &two);
    take(&two, &one);
    near(two.counts(key, at(7 * DAY)), [2.0, 0.0, 0.0, 1.0, 0.0]);
    near(one.counts(key, at(7 * DAY)), [2.0, 0.0, 0.0, 1.0, 0.0]);
    let (key, deeds) = (0..REPUTATION_PARTS).flat_map(|part| one.entries(part)).next().unwrap();
    // Twice is once, and what is of a time to come does not stay for ever.
    one.absorb(key, deeds, at(7 * DAY));
    near(one.counts(key, at(7 * DAY)), [2.0, 0.0, 0.0, 1.0, 0.0]);
    one.absorb(SubjectKey(1), Deeds { at: u32::MAX, counts: [16; DEEDS] }, at(0));
    near(one.counts(SubjectKey(1), at(7 * DAY)), [0.5; DEEDS]);
}
