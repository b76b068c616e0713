//! Who has which slots, what health changes, and plans over days.

use std::{collections::BTreeMap, time::Duration};

use mail::{JournalShard, Timestamp};

use super::*;

fn all_in(_: &str) -> Standing {
    Standing::In
}

fn counts(pool: &Pool, standing: impl Fn(&str) -> Standing) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for slot in 0..SLOTS {
        let name = pool.source(slot, &standing).unwrap_or("nobody");
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn slots_go_by_weights() {
    let check = |sources: &[(&str, u32)], expected: &[(&str, usize)]| {
        let expected: BTreeMap<_, _> =
            expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        assert_eq!(counts(&Pool::new("p", sources), all_in), expected, "{sources:?}");
    };
    check(&[("a", 1)], &[("a", 64)]);
    check(&[("a", 1), ("b", 1)], &[("a", 32), ("b", 32)]);
    check(&[("a", 1), ("b", 3)], &[("a", 16), ("b", 48)]);
    check(&[("a", 1), ("b", 1), ("c", 1)], &[("a", 22), ("b", 21), ("c", 21)]);
    // Whoever is in it has something.
    check(&[("a", 1), ("b", 1000)], &[("a", 1), ("b", 63)]);
    let names: Vec<_> = (0..64).map(|number| format!("s{number}")).collect();
    let many: Vec<_> =
        names.iter().map(|name| (name.as_str(), if name == "s0" { 1000 } else { 1 })).collect();
    assert!(counts(&Pool::new("p", &many), all_in).values().all(|count| *count == 1));
}

#[test]
fn slots_of_messages_are_spread_and_stay() {
    let mut seen = [0_u32; SLOTS as usize];
    for number in 0..6400 {
        let id = QueueId::new(JournalShard(3), number);
        assert_eq!(slot_of(id), slot_of(id));
        seen[usize::from(slot_of(id))] += 1;
    }
    assert!(seen.iter().all(|count| (50..=150).contains(count)), "{seen:?}");
}

#[test]
fn what_is_out_of_use_moves_nobody_else() {
    let pool = Pool::new("p", &[("a", 2), ("b", 1), ("c", 1)]);
    let without_a = |name: &str| if name == "a" { Standing::Out } else { Standing::In };
    for slot in 0..SLOTS {
        let (before, now) = (pool.source(slot, all_in), pool.source(slot, without_a));
        assert!(now.is_some() && now != Some("a"));
        assert!(before == Some("a") || before == now, "slot {slot} has moved");
        assert_eq!(before, Some(pool.owner(slot)));
    }
    let left = counts(&pool, without_a);
    assert!(left["b"] >= 24 && left["c"] >= 24, "{left:?}");
    let lowered = |name: &str| if name == "a" { Standing::Lowered } else { Standing::In };
    assert_eq!(counts(&pool, lowered)["a"], 8);
    // Better one with a bad name than none at all, if it may be used.
    let worse = |name: &str| if name == "a" { Standing::Lowered } else { Standing::Out };
    assert_eq!(counts(&pool, worse), BTreeMap::from([("a".to_owned(), 64)]));
    assert_eq!(counts(&pool, |_| Standing::Out), BTreeMap::from([("nobody".to_owned(), 64)]));
}

/// Sources come and go, seeded: whoever can be used is, nobody else, and nobody moves without a reason.
#[test]
fn a_life_of_pools() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or(1..200, |seed| seed..seed + 1) {
        let mut state: u64 = seed;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let names: Vec<String> = (0..1 + random(9)).map(|number| format!("s{number}")).collect();
        let sources: Vec<_> = names.iter().map(|name| (name.as_str(), 1 + random(20) as u32)).collect();
        let pool = Pool::new("p", &sources);
        let mut stands = vec![Standing::In; names.len()];
        let mut before: Vec<Option<String>> = Vec::new();
        for step in 0..50 {
            let changed = random(names.len() as u64) as usize;
            let was = std::mem::replace(
                &mut stands[changed],
                [Standing::In, Standing::Lowered, Standing::Out][random(3) as usize],
            );
            let standing = |name: &str| stands[name[1..].parse::<usize>().unwrap()];
            let best = stands.iter().min().copied().unwrap();
            let now: Vec<_> = (0..SLOTS).map(|slot| pool.source(slot, standing).map(str::to_owned)).collect();
            for (slot, source) in now.iter().enumerate() {
                let at = format!("seed {seed}, step {step}, slot {slot}: {source:?} of {stands:?}");
                match source {
                    None => assert_eq!(best, Standing::Out, "{at}"),
                    Some(source) => assert_ne!(standing(source), Standing::Out, "{at}"),
                }
                // Who has moved did so for the one that has changed: from it, to it, or past it.
                if let Some(before) = before.get(slot)
                    && before != source
                {
                    let is_about = |name: &Option<String>| name.as_deref() == Some(names[changed].as_str());
                    let is_last_resort = best != Standing::In
                        || before.as_deref().is_none_or(|name| standing(name) != Standing::In);
                    assert!(
                        is_about(source) || is_about(before) || is_last_resort,
                        "{at}, was {before:?}, {was:?}"
                    );
                }
            }
            // What is lowered keeps something, as long as it is in use at all.
            for (name, stands) in names.iter().zip(&stands) {
                let count = now.iter().filter(|source| source.as_deref() == Some(name)).count();
                assert_eq!(
                    count == 0,
                    *stands == Standing::Out,
                    "seed {seed}, step {step}: {name} has {count}"
                );
            }
            before = now;
        }
    }
}

fn source(addresses: &[&str], public: &[&str], proxy: Option<Speech>) -> Source {
    let parse = |text: &&str| text.parse::<IpAddr>().unwrap();
    let mut sources = Sources::default();
    for address in addresses.iter().map(parse) {
        match address {
            IpAddr::V4(v4) => sources.v4 = Some(v4),
            IpAddr::V6(v6) => sources.v6 = Some(v6),
        }
    }
    Source {
        name: "s".into(),
        addresses: sources,
        public: public.iter().map(parse).collect(),
        ehlo_name: None,
        identity: None,
        proxy: proxy.map(|speech| Proxy { address: "192.0.2.9:1080".parse().unwrap(), speech }),
    }
}

#[test]
fn a_source_reaches_what_it_has_an_address_for() {
    let (v4, v6): (IpAddr, IpAddr) = ("198.51.100.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    let only = source(&["192.0.2.1"], &[], None);
    assert_eq!((only.can_reach(v4), only.can_reach(v6), only.family()), (true, false, Family::PreferIpv4));
    assert_eq!(only.address_towards(v6), None);
    let both = source(&["192.0.2.1", "2001:db8::9"], &[], None);
    assert!(both.can_reach(v4) && both.can_reach(v6));
    assert_eq!(both.plumbed().len(), 2);
    let socks = source(&[], &[], Some(Speech::Socks5(None)));
    assert!(socks.can_reach(v4) && socks.can_reach(v6) && socks.plumbed().is_empty());
    let socks = source(&["192.0.2.1", "2001:db8::9"], &["203.0.113.1"], Some(Speech::Socks5(None)));
    assert!(socks.can_reach(v4) && !socks.can_reach(v6));
    assert_eq!(socks.plumbed(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    let told = source(&["2001:db8::9"], &[], Some(Speech::HeaderV2));
    assert!(!told.can_reach(v4) && told.can_reach(v6) && told.plumbed().is_empty());
    let speech = Speech::Socks5(Some(("ann".into(), "hush".into())));
    assert!(!format!("{speech:?}").contains("hush"));
}

#[test]
fn health_follows_what_is_found() {
    let mut health = Health::default();
    let at = Timestamp::from_secs;
    let dead = || Found::Unfit(Trouble::Proxy("connection refused".into()));
    assert_eq!(health.on_found(dead(), at(1)).standing, Some(Standing::Out));
    assert_eq!(health.on_found(dead(), at(2)), Change::default());
    assert_eq!(health.why().unwrap().1, at(1));
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let listed = |list: &str, severity| {
        let listing = Listing { address, list: list.into(), answers: Vec::new(), severity };
        Found::Asked(address, list.into(), Some(listing))
    };
    let change = health.on_found(listed("one", Severity::Lower), at(3));
    assert!(change.listed.is_some() && change.standing.is_none());
    assert_eq!(health.on_found(Found::Fit, at(4)).standing, Some(Standing::Lowered));
    assert_eq!(health.on_found(listed("two", Severity::Stop), at(5)).standing, Some(Standing::Out));
    assert!(health.why().unwrap().0.contains("two"));
    let gone = health.on_found(Found::Asked(address, "two".into(), None), at(6));
    assert!(gone.unlisted.is_some() && gone.standing == Some(Standing::Lowered));
    assert_eq!(health.on_found(Found::Asked(address, "two".into(), None), at(7)), Change::default());
    assert!(health.on_found(listed("three", Severity::Alarm), at(8)).standing.is_none());
    assert_eq!(health.retain(|_, list| list != "one"), Some(Standing::In));
    assert_eq!(health.why(), None);
}

fn plan() -> Plan {
    Plan {
        name: "new".into(),
        source: "a".into(),
        site: None,
        start: 100,
        caps: vec![2, 20],
        overflow: Some("warm".into()),
        complaints_max: Some(100),
        refusals_max: Some(50),
        sample: 4,
        pause: Duration::from_secs(3600),
    }
}

fn day(day: u64) -> Timestamp {
    Timestamp::from_secs(day * 86_400 + 3_600)
}

#[test]
fn a_plan_caps_each_day_and_then_ends() {
    let (plan, mut plans) = (plan(), WarmUps::default());
    let held = |plans: &mut WarmUps, at| plans.book(&[&plan], at).unwrap_err();
    assert_eq!(held(&mut plans, day(99)).cap, Some(0));
    let first = plans.book(&[&plan], day(100)).unwrap();
    plans.book(&[&plan], day(100)).unwrap();
    let full = held(&mut plans, day(100));
    assert_eq!((full.cap, full.until), (Some(2), Timestamp::from_secs(101 * 86_400)));
    assert_eq!(full.overflow.as_deref(), Some("warm"));
    // One was not sent after all.
    plans.give_back(&first);
    plans.book(&[&plan], day(100)).unwrap();
    assert!(plans.may(&[&plan], day(100)).is_err());
    for _ in 0..20 {
        plans.book(&[&plan], day(101)).unwrap();
    }
    // What comes back late is of another day.
    plans.give_back(&first);
    assert!(plans.may(&[&plan], day(101)).is_err());
    // Nor does a clock that is set back give more.
    assert!(plans.may(&[&plan], day(100)).is_err());
    for _ in 0..1000 {
        plans.book(&[&plan], day(102)).unwrap();
    }
}

#[test]
fn of_two_plans_both_must_agree() {
    let (all, mut plans) = (plan(), WarmUps::default());
    let site = Plan { name: "there".into(), site: Some("p".into()), caps: vec![1], ..plan() };
    plans.book(&[&all, &site], day(100)).unwrap();
    assert_eq!(plans.book(&[&all, &site], day(100)).unwrap_err().plan, "there".into());
    // The one that would have agreed has not counted it.
    assert_eq!(plans.progress(&all, day(100)).booked, 1);
    plans.book(&[&all], day(100)).unwrap();
    assert_eq!(plans.book(&[&all], day(100)).unwrap_err().plan, "new".into());
}

#[test]
fn a_plan_pauses_when_it_is_not_liked() {
    let (plan, mut plans) = (plan(), WarmUps::default());
    for _ in 0..3 {
        assert_eq!(plans.on_answered(&[&plan], true, day(101)), []);
    }
    let until = day(101).saturating_add(plan.pause);
    assert_eq!(plans.on_answered(&[&plan], false, day(101)), [("new".into(), Pause::Refusals, until)]);
    assert_eq!(plans.on_answered(&[&plan], true, day(101)), []);
    assert_eq!(plans.book(&[&plan], day(101)).unwrap_err().cap, None);
    let text = plans.to_text();
    let mut again = WarmUps::default();
    assert_eq!((again.take_text(&text), again.to_text()), (0, text));
    assert!(again.book(&[&plan], day(101)).is_err());
    // After that, it begins to count anew, for what it is liked for; what was sent stays sent.
    plans.book(&[&plan], until).unwrap();
    let progress = plans.progress(&plan, until);
    assert_eq!((progress.booked, progress.answered, progress.refused), (1, 0, 0));
    for _ in 0..9 {
        plans.on_answered(&[&plan], false, until);
    }
    assert_eq!(plans.on_complained(&[&plan], 1, until).len(), 1);
}

#[test]
fn strange_lines_are_passed_over() {
    let mut plans = WarmUps::default();
    for text in ["", "x", "ringpost warm-up 2\na 1 1 1 1 1 -\n"] {
        plans.take_text(text);
        assert_eq!(plans, WarmUps::default(), "{text}");
    }
    let text = "ringpost warm-up 1\na 1 2 3 4 5 -\nb 1 2 3 4\nc 1 2 3 4 5 what:1\nd 1 2 3 4 5 -1\n";
    assert_eq!(plans.take_text(text), 3);
    assert!(plans.retain(|name| name != "a") && plans == WarmUps::default());
}

#[test]
fn what_two_have_counted_is_put_together() {
    let (plan, mut plans) = (Plan { caps: vec![100], sample: 1000, ..plan() }, WarmUps::default());
    let count = |plans: &mut WarmUps, times: u32| {
        for _ in 0..times {
            plans.book(&[&plan], day(100)).unwrap();
            plans.on_answered(&[&plan], false, day(100));
        }
    };
    count(&mut plans, 3);
    // From here on there are two.
    let (base, mut other) = (plans.clone(), plans.clone());
    count(&mut plans, 5);
    count(&mut other, 7);
    other.on_complained(&[&plan], 1, day(100));
    assert_eq!(plans.join(&base, &other.to_text()), 0);
    let progress = plans.progress(&plan, day(100));
    assert_eq!((progress.booked, progress.answered, progress.complained), (15, 15, 1));
    // One that has counted on a later day says more than one that has not; and the other way round.
    let mut late = WarmUps::default();
    late.book(&[&plan], day(101)).unwrap();
    plans.join(&base, &late.to_text());
    assert_eq!(plans.progress(&plan, day(101)).booked, 1);
    late.join(&base, &base.to_text());
    assert_eq!(late.progress(&plan, day(101)).booked, 1);
    // Without a word of the other, it is what it was.
    assert_eq!(late.join(&base, ""), 0);
    assert_eq!(late.progress(&plan, day(101)).booked, 1);
}
