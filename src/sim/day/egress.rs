//! From where the day's mail leaves, and when what is refused is tried again: a pool of sources that come and go, one of them with a
//! plan, and rules for retries.

use std::time::Duration;

use delivery::{
    Answerable, MailClass, Owner, PlannedWait, RefusedMail, RetryRule, RetryRules,
    egress::{Plan, Pool, Standing, WarmUps, day_of},
};
use mail::{Category, Timestamp};
use queue::{Deferral, Wait};

/// The sources. The last one is new.
pub(super) const SOURCES: [&str; 4] = ["a", "b", "c", "new"];
const NEW: usize = 3;
/// Which sources are not as they should be: from which minute of the day, until which, and how they are then.
const TROUBLE: [(usize, u64, u64, Standing); 8] = [
    (1, 5 * 60, 7 * 60, Standing::Out),
    (2, 9 * 60, 12 * 60, Standing::Lowered),
    (0, 10 * 60, 10 * 60 + 40, Standing::Out),
    (3, 14 * 60, 15 * 60, Standing::Out),
    // For ten minutes nothing leaves at all.
    (0, 18 * 60, 18 * 60 + 10, Standing::Out),
    (1, 18 * 60, 18 * 60 + 10, Standing::Out),
    (2, 18 * 60, 18 * 60 + 10, Standing::Out),
    (3, 18 * 60, 18 * 60 + 10, Standing::Out),
];
const HOUR: Duration = Duration::from_secs(3600);

/// Whether a message may leave from the source that it was ordered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Granted,
    /// It leaves from another.
    Elsewhere,
    /// Nothing leaves from there for so long.
    Later(Duration),
}

pub(super) struct Egress {
    pool: Pool,
    overflow: Pool,
    plan: Plan,
    warm: WarmUps,
    start: Timestamp,
    rules: RetryRules,
    /// How many have left from each.
    left: [u64; SOURCES.len()],
}

impl Egress {
    /// For a day that begins then, on which so many may leave from the new source.
    pub(super) fn new(start: Timestamp, cap: u32) -> Self {
        let old = [("a", 2), ("b", 2), ("c", 2)];
        let plan = Plan {
            name: "new".into(),
            source: SOURCES[NEW].into(),
            site: None,
            start: day_of(start),
            caps: vec![cap],
            overflow: Some("old".into()),
            complaints_max: None,
            refusals_max: None,
            sample: u32::MAX,
            pause: HOUR,
        };
        let rule = |name: &str, category, rule: RetryRule| RetryRule {
            name: name.into(),
            categories: vec![category],
            ..rule
        };
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let rules = vec![
            rule(
                "grey",
                Category::Greylisted,
                RetryRule { first: Some(minutes(5)), hint: true, ..RetryRule::default() },
            ),
            rule(
                "full",
                Category::Quota,
                RetryRule {
                    waits: vec![HOUR, 4 * HOUR],
                    wait_max: Some(8 * HOUR),
                    give_up: Some(12 * HOUR),
                    ..RetryRule::default()
                },
            ),
            rule("policy", Category::Policy, RetryRule { waits: vec![2 * HOUR], ..RetryRule::default() }),
        ];
        Self {
            pool: Pool::new("all", &[old[0], old[1], old[2], ("new", 1)]),
            overflow: Pool::new("old", &old),
            plan,
            warm: WarmUps::default(),
            start,
            rules: RetryRules::new(rules, 3 * HOUR),
            left: [0; SOURCES.len()],
        }
    }

    /// When sources are to be looked at anew.
    pub(super) fn changes(&self) -> impl Iterator<Item = Timestamp> {
        let start = self.start;
        let minutes = TROUBLE.into_iter().flat_map(|(_, from, until, _)| [from, until]);
        minutes.map(move |minute| start.saturating_add(Duration::from_secs(60 * minute)))
    }

    /// The source that a message of a slot leaves from now, and for how long; of all that are out, its own.
    pub(super) fn choose(&mut self, slot: u16, now: Timestamp) -> (usize, Duration) {
        let number =
            |name: &str| SOURCES.iter().position(|source| *source == name).expect("it is one of ours");
        let start = self.start;
        let standing = |source: &str| standing(start, source, now);
        let Some(source) = self.pool.source(slot, standing) else {
            return (number(self.pool.owner(slot)), HOUR);
        };
        if source != SOURCES[NEW] {
            return (number(source), HOUR);
        }
        let chosen = self.overflow.source(slot, standing).map(number);
        match self.warm.may(&[&self.plan], now) {
            Ok(()) => (NEW, HOUR),
            Err(held) => (chosen.unwrap_or(NEW), held.until.saturating_since(now).min(HOUR)),
        }
    }

    /// Whether a message of a slot may leave from a source; it does, if it may.
    pub(super) fn admit(&mut self, source: usize, slot: u16, now: Timestamp) -> Admission {
        const OUT_FOR: Duration = Duration::from_secs(60);
        let is_elsewhere = self.choose(slot, now).0 != source;
        let or_elsewhere = |wait| if is_elsewhere { Admission::Elsewhere } else { Admission::Later(wait) };
        if standing(self.start, SOURCES[source], now) == Standing::Out {
            return or_elsewhere(OUT_FOR);
        }
        if source == NEW
            && let Err(held) = self.warm.book(&[&self.plan], now)
        {
            return or_elsewhere(held.until.saturating_since(now).max(Duration::from_millis(1)));
        }
        self.left[source] += 1;
        let cap = u64::from(self.plan.caps[0]);
        assert!(self.left[NEW] <= cap, "{} of {cap} have left from the new source", self.left[NEW]);
        Admission::Granted
    }

    /// When a refusal is tried again, as the queue is told it, and the time before which it is not.
    pub(super) fn deferral(
        &self,
        category: Category,
        class: usize,
        attempts: u16,
        now: Timestamp,
    ) -> (Deferral, Timestamp) {
        let status = mail::Status(4, 0, 0);
        let plan = self.rules.plan(&RefusedMail {
            category,
            status: Some(status),
            reply_rule: None,
            text: "later",
            site: "",
            route: None,
            domain: "",
            class: [MailClass::Urgent, MailClass::Normal, MailClass::Bulk][class],
            answerable: Answerable::Yes,
            owner: Owner::default(),
            attempts,
        });
        let (wait, least) = match plan.wait {
            PlannedWait::Scheduled => (Wait::Scheduled, Duration::ZERO),
            // A tenth sooner at most: the jitter.
            PlannedWait::Listed(time) => (Wait::About(time), time.mul_f64(0.9)),
            PlannedWait::First(time) | PlannedWait::Asked(time) => (Wait::AtLeast(time), time),
        };
        let deferral = Deferral { status, category: Some(category), wait, give_up: plan.give_up };
        // Who is given up is tried once more then, whatever the wait.
        let least = if plan.give_up.is_some() { Duration::ZERO } else { least };
        (deferral, now.saturating_add(least))
    }

    /// How many have left from each source.
    pub(super) const fn left(&self) -> [u64; SOURCES.len()] {
        self.left
    }
}

/// How a source is, on a day that began then.
fn standing(start: Timestamp, source: &str, now: Timestamp) -> Standing {
    let minute = now.saturating_since(start).as_secs() / 60;
    let is_then = |(number, from, until, _): &&(usize, u64, u64, Standing)| {
        SOURCES[*number] == source && (*from..*until).contains(&minute)
    };
    TROUBLE.iter().find(is_then).map_or(Standing::In, |(.., standing)| *standing)
}
