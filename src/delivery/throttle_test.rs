//! Sites that complain, recover, and behave in every other way.

use super::*;
use crate::Action;

const SECOND: Duration = Duration::from_secs(1);

/// A throttle and its clock.
struct Site {
    throttle: Throttle,
    now: Timestamp,
}

impl Site {
    fn new(limits: ThrottleLimits) -> Self {
        let now = Timestamp::from_secs(1_763_629_500);
        Self { throttle: Throttle::new(limits, now), now }
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.now = self.now.saturating_add(time);
        self
    }

    /// So many messages, a second apart, that came to this.
    fn tell(&mut self, messages: u32, category: Option<Category>) -> &mut Self {
        for _ in 0..messages {
            self.advise(category, Advice::None).pass(SECOND);
        }
        self
    }

    fn advise(&mut self, category: Option<Category>, advice: Advice) -> &mut Self {
        let rule: Arc<str> = "some-rule".into();
        let told = Told { category, advice, rule: Some(&rule), reply: "421 slow down" };
        self.throttle.on_outcome(&told, self.now);
        self
    }

    fn connections(&self) -> u32 {
        self.throttle.limits(self.now).connections
    }

    fn rate(&self) -> Option<u32> {
        self.throttle.limits(self.now).rate
    }

    fn suspended_for(&self) -> Option<Duration> {
        self.throttle.wake_after(self.now)
    }
}

#[test]
fn a_storm_halves_and_success_adds() {
    let mut site = Site::new(ThrottleLimits::default());
    assert_eq!((site.connections(), site.rate()), (20, None));
    site.tell(40, None).tell(4, Some(Category::Rate));
    assert_eq!(site.connections(), 20, "four are no storm");
    site.pass(MINUTE).tell(5, Some(Category::Rate));
    assert_eq!((site.connections(), site.rate()), (10, Some(22)), "half of what was sent in a minute");
    site.tell(5, Some(Category::Rate));
    assert_eq!(site.connections(), 10, "an echo");
    site.tell(10, Some(Category::Rate));
    assert_eq!(site.connections(), 5, "no echo any more");
    site.tell(31, None);
    let after = site.connections();
    site.tell(30, None);
    assert_eq!(site.connections(), after + 1);
    site.tell(30 * 30, None);
    assert_eq!((site.connections(), site.rate()), (20, None));
    assert!(site.throttle.is_at_rest() && site.throttle.why(site.now).is_none());
}

#[test]
fn the_rate_is_cut_to_half_of_what_was_sent() {
    let mut site = Site::new(ThrottleLimits { rate_max: Some(1000), ..ThrottleLimits::default() });
    for _ in 0..400 {
        site.advise(None, Advice::None);
    }
    site.advise(Some(Category::Rate), Advice::Slower);
    assert_eq!((site.connections(), site.rate()), (10, Some(200)));
    site.tell(61, None);
    assert_eq!(site.rate(), Some(300), "a twentieth of the maximum each round");
}

#[test]
fn mailboxes_and_messages_say_nothing_of_a_site() {
    for category in Category::ALL.into_iter().filter(|category| Sign::of(Some(*category)) == Sign::Neutral) {
        let mut site = Site::new(ThrottleLimits::default());
        site.tell(1000, Some(category));
        assert!(site.throttle.is_at_rest(), "{category}");
    }
}

#[test]
fn one_recipient_that_is_refused_again_and_again_slows_nobody() {
    for category in Category::ALL {
        let mut site = Site::new(ThrottleLimits::default());
        for _ in 0..500 {
            // The schedule's first wait is five minutes, less its jitter.
            site.advise(Some(category), Advice::None).pass(Duration::from_secs(270));
            assert_eq!(site.connections(), 20, "{category}");
        }
    }
}

#[test]
fn who_speaks_for_a_transaction() {
    let judged = |category, action| Some(Judgement { category, rule: None, action, pool: None });
    let (good, rate) = (None, judged(Category::Rate, Action::None));
    let bad = judged(Category::BadMailbox, Action::None);
    let slower = judged(Category::Rate, Action::Slower);
    let suspend = |secs| judged(Category::Rate, Action::Suspend(Duration::from_secs(secs)));
    for (all, expected) in [
        (vec![], None),
        (vec![rate.clone(), good.clone(), rate.clone(), good], Some(1)),
        (vec![rate.clone(), bad], Some(1)),
        (vec![rate.clone(), rate.clone()], Some(0)),
        (vec![None, slower.clone()], Some(1)),
        (vec![slower, suspend(1), suspend(2), suspend(2)], Some(2)),
    ] {
        assert_eq!(spokesman(all.iter().map(Option::as_ref)), expected, "{all:?}");
    }
}

#[test]
fn a_storm_at_the_floor_suspends_for_longer_and_longer() {
    let limits = ThrottleLimits { connections_max: 1, ..ThrottleLimits::default() };
    let mut site = Site::new(limits);
    site.tell(5, Some(Category::Rate));
    assert_eq!((site.connections(), site.rate()), (1, Some(6)));
    site.pass(MINUTE).tell(5, Some(Category::Rate));
    let mut expected = MINUTE;
    for _ in 0..10 {
        let left = site.suspended_for().unwrap();
        assert!(left <= expected && left + 2 * SECOND > expected, "{left:?} of {expected:?}");
        assert_eq!(site.connections(), 0);
        site.pass(left);
        assert_eq!((site.connections(), site.suspended_for()), (1, None), "a probe");
        site.advise(Some(Category::System), Advice::None);
        expected = (expected * 2).min(limits.suspend_max);
    }
    assert_eq!(expected, limits.suspend_max);
}

#[test]
fn an_answer_to_the_probe_begins_at_the_floor() {
    for answer in [None, Some(Category::BadMailbox)] {
        let mut site = Site::new(ThrottleLimits::default());
        for _ in 0..5 {
            site.throttle.on_connect_failed("connection refused", site.now);
        }
        assert_eq!(site.suspended_for(), Some(MINUTE));
        site.pass(MINUTE).advise(answer, Advice::None);
        assert_eq!(site.connections(), 1);
        site.tell(31, None);
        assert_eq!(site.connections(), 2);
        site.tell(90, None);
        assert_eq!(site.connections(), 10, "doubled up to half of what it was");
        site.tell(30, None);
        assert_eq!(site.connections(), 11);
    }
}

#[test]
fn connections_that_are_made_between_failures_suspend_nothing() {
    let mut site = Site::new(ThrottleLimits::default());
    for _ in 0..50 {
        site.throttle.on_connect_failed("connection timed out", site.now);
        site.tell(10, None);
    }
    assert_eq!((site.connections(), site.suspended_for()), (20, None));
}

#[test]
fn a_rule_suspends_at_once_and_the_longest_counts() {
    let hour = Duration::from_secs(3600);
    let mut site = Site::new(ThrottleLimits::default());
    site.advise(Some(Category::SpamReputation), Advice::Suspend(hour));
    assert_eq!(site.suspended_for(), Some(hour));
    site.pass(SECOND).tell(20, Some(Category::Rate)).tell(20, None);
    assert_eq!(site.suspended_for(), Some(hour - 41 * SECOND), "what was on its way changes nothing");
    site.advise(Some(Category::SpamReputation), Advice::Suspend(MINUTE));
    assert_eq!(site.suspended_for(), Some(hour - 41 * SECOND));
    site.advise(Some(Category::SpamReputation), Advice::Suspend(4 * hour));
    assert_eq!(site.suspended_for(), Some(4 * hour));
}

#[test]
fn why_is_told_in_words() {
    let mut site = Site::new(ThrottleLimits::default());
    site.advise(Some(Category::Rate), Advice::Slower);
    let since = site.now.to_rfc3339();
    let words = |site: &Site| site.throttle.why(site.now).unwrap().to_string();
    assert_eq!(
        words(&site),
        format!(
            "at most 10 connections and 6 messages a minute, since {since}: rate by the rule some-rule: 421 slow down"
        )
    );
    site.pass(MINUTE);
    for _ in 0..5 {
        site.throttle.on_connect_failed("connection refused", site.now);
    }
    let until = site.now.saturating_add(MINUTE).to_rfc3339();
    assert_eq!(
        words(&site),
        format!("left alone until {until}, since {since}: connection: connection refused")
    );
    site.throttle.reset(site.now);
    assert_eq!((site.throttle.why(site.now), site.connections()), (None, 20));
}

#[test]
fn a_clock_set_back_makes_no_wait_longer() {
    let mut site = Site::new(ThrottleLimits::default());
    site.advise(Some(Category::Rate), Advice::Suspend(MINUTE));
    site.now = Timestamp::from_secs(1_000_000);
    assert_eq!(site.suspended_for(), Some(MINUTE));
    site.tell(1, None);
    site.pass(MINUTE);
    assert_eq!(site.connections(), 1);
    site.tell(2000, None);
    assert!(site.throttle.is_at_rest());
}

#[test]
fn a_reload_moves_the_bounds() {
    let mut site = Site::new(ThrottleLimits::default());
    site.throttle.set_limits(ThrottleLimits { connections_max: 40, ..ThrottleLimits::default() });
    assert_eq!(site.connections(), 40);
    site.advise(Some(Category::Rate), Advice::Slower);
    let less = ThrottleLimits { connections_max: 4, rate_max: Some(2), ..ThrottleLimits::default() };
    site.throttle.set_limits(less);
    assert_eq!((site.connections(), site.rate()), (4, Some(2)));
}

#[test]
fn memory_is_bounded() {
    let mut site = Site::new(ThrottleLimits::default());
    let rule: Arc<str> = "r".into();
    let reply = "é".repeat(10_000);
    let told =
        Told { category: Some(Category::Rate), advice: Advice::Slower, rule: Some(&rule), reply: &reply };
    site.throttle.on_outcome(&told, site.now);
    let kept = site.throttle.reason.as_ref().unwrap().reply.len();
    assert!(kept <= REPLY_MAX);
    assert!(size_of::<Throttle>() + size_of::<Reason>() + REPLY_MAX <= THROTTLE_MEMORY_MAX);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn some_limits(random: &mut Random) -> ThrottleLimits {
    let max = [0, 1, 2, 3, 20, 1000, 100_000, u32::MAX];
    let mut one = || max[random.below(8) as usize];
    let rate_max = Some(one()).filter(|rate| rate % 3 != 0);
    let (connections_max, connections_min, rate_min) = (one(), one().min(30), one().min(100));
    ThrottleLimits {
        connections_max,
        connections_min,
        rate_max,
        rate_min,
        steps: 1 + random.below(40) as u32,
        storm_min: random.below(8) as u32,
        unconnected_max: random.below(8) as u32,
        ..ThrottleLimits::default()
    }
}

/// Within the bounds whatever happens, and back at the maximum within the stated number of rounds when all goes well.
#[test]
fn any_life_stays_within_bounds_and_recovers() {
    for seed in 0..400 {
        let mut random = Random(seed);
        let mut site = Site::new(some_limits(&mut random));
        for _ in 0..400 {
            // Most of what happens happens at once.
            let time = [0, 0, 0, 1, 7, 40, 900][random.below(7) as usize];
            site.pass(Duration::from_secs(time) + Duration::from_micros(random.below(999)));
            if random.below(200) == 0 {
                site.now = Timestamp::from_secs(site.now.secs() - random.below(5000));
            }
            let category = Category::ALL[random.below(22) as usize];
            let advice = match random.below(60) {
                0 => Advice::Suspend(Duration::from_secs(random.below(7200))),
                1 | 2 => Advice::Slower,
                _ => Advice::None,
            };
            match random.below(100) {
                0..30 => _ = site.advise(None, Advice::None),
                30..80 => _ = site.advise(Some(category), advice),
                80..97 => site.throttle.on_connect_failed("connection refused", site.now),
                97 => site.throttle.reset(site.now),
                98 => site.throttle.set_limits(some_limits(&mut random)),
                _ => {}
            }
            let limits = site.throttle.limits;
            let allowed = site.throttle.limits(site.now);
            match allowed.suspended_until {
                Some(until) => {
                    assert!(until > site.now, "SEED={seed}");
                    assert_eq!((allowed.connections, allowed.rate), (0, Some(0)), "SEED={seed}");
                    let longest = limits.suspend_max.max(Duration::from_secs(7200));
                    assert!(until.saturating_since(site.now) <= longest, "SEED={seed}");
                }
                None if site.throttle.state_at(site.now) == State::Probing => {
                    assert_eq!(allowed.connections, 1, "SEED={seed}");
                }
                None => {
                    let floor = limits.connections_min..=limits.connections_max;
                    assert!(floor.contains(&allowed.connections), "SEED={seed} {allowed:?} {limits:?}");
                    let rates = limits.rate_min..=limits.rate_max.unwrap_or(u32::MAX);
                    assert!(allowed.rate.is_none_or(|rate| rates.contains(&rate)), "SEED={seed}");
                    assert!(limits.rate_max.is_none() || allowed.rate.is_some(), "SEED={seed}");
                }
            }
            let full = !site.throttle.is_full();
            assert_eq!(site.throttle.why(site.now).is_some(), full, "SEED={seed} {:?}", site.throttle);
        }
        let limits = site.throttle.limits;
        let wait = site.suspended_for().unwrap_or_default();
        // The round that was under way may not have been a good one.
        site.pass(wait).advise(None, Advice::None).pass(limits.round);
        for _ in 0..=limits.rounds_to_recover() {
            site.advise(None, Advice::None).pass(limits.round);
        }
        site.advise(None, Advice::None);
        assert!(site.throttle.is_at_rest(), "SEED={seed} {:?}", site.throttle);
    }
}
