//! A year of rotations in a world where the clock jumps, the DNS fails, zones are slow, and the server is killed between any two steps.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::Rotations;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// How often a round is.
const INTERVAL: u64 = HOUR;
/// How long others remember that there is no record.
const ABSENCE: u64 = 3 * HOUR;

/// xorshift64*, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

fn rules(publishing: Publishing, revoke: Option<u64>) -> RotationRules {
    RotationRules {
        every: Duration::from_secs(30 * DAY),
        settle: Duration::from_secs(2 * HOUR),
        retire: Duration::from_secs(7 * DAY),
        revoke: revoke.map(Duration::from_secs),
        overdue: Duration::from_secs(6 * HOUR),
        publishing,
    }
}

fn name(day: u32, number: u32) -> Box<str> {
    format!("rp-{day}-{number}").into()
}

fn id() -> RotationId {
    RotationId { entry: "e".into(), domain: "example.org".into(), kind: KeyKind::Ed25519 }
}

/// The process was killed.
struct Killed;

struct World {
    rules: RotationRules,
    /// Seconds that have passed for everybody.
    real: u64,
    /// What the clock on the wall is off by.
    skew: i64,
    /// What lies on the disk: the state, and private keys by selector, with the record of each.
    disk: String,
    files: BTreeMap<Box<str>, String>,
    /// The zone, and since when each record is in it.
    zone: BTreeMap<Box<str>, (String, u64)>,
    /// What is to be done by hand, and when it is.
    by_hand: Vec<(u64, Box<str>, Option<String>)>,
    fails: bool,
    // The process.
    rotation: Rotation,
    last_round: Option<u64>,
    in_force: bool,
    /// With which key mail is signed, and when each last did.
    signs: Option<Box<str>>,
    signed: BTreeMap<Box<str>, u64>,
    /// Selectors whose record was ever seen by a look of ours.
    was_seen: BTreeSet<Box<str>>,
    begun: BTreeSet<Box<str>>,
    switches: u32,
    made: u32,
    /// Steps until the next kill.
    fuse: Option<u32>,
    steps: u32,
    /// Steps near which something happens.
    marks: BTreeSet<u32>,
}

impl World {
    fn new(rules: RotationRules) -> Self {
        Self {
            rules,
            real: 20_000 * DAY,
            skew: 0,
            disk: Rotations::default().to_text(),
            files: BTreeMap::new(),
            zone: BTreeMap::new(),
            by_hand: Vec::new(),
            fails: false,
            rotation: Rotation::default(),
            last_round: None,
            in_force: false,
            signs: None,
            signed: BTreeMap::new(),
            was_seen: BTreeSet::new(),
            begun: BTreeSet::new(),
            switches: 0,
            made: 0,
            fuse: None,
            steps: 0,
            marks: BTreeSet::new(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.real.saturating_add_signed(self.skew))
    }

    fn step(&mut self) -> Result<(), Killed> {
        self.steps += 1;
        match &mut self.fuse {
            Some(0) => Err(Killed),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A new process, with what lies on the disk.
    fn start(&mut self) {
        let mut rotations = Rotations::from_text(&self.disk).unwrap();
        self.rotation = rotations.0.remove(&id()).unwrap_or_default();
        (self.last_round, self.in_force, self.fuse) = (None, false, None);
        self.apply();
        self.in_force = false;
    }

    fn persist(&mut self) {
        let rotations = Rotations([(id(), self.rotation.clone())].into());
        self.disk = rotations.to_text();
    }

    fn apply(&mut self) {
        let signs = self.rotation.signing().map(|key| key.selector.clone());
        if let Some(signs) = signs.as_ref().filter(|_| signs != self.signs) {
            assert!(self.was_seen.contains(signs), "{signs} was never seen");
            assert!(self.files.contains_key(signs), "{signs} has no private key");
            self.switches += 1;
        }
        (self.signs, self.in_force) = (signs, true);
    }

    fn look(&mut self, selector: &str) -> Look {
        match self.zone.get(selector) {
            _ if self.fails => Look::Unknown,
            // Our resolver remembers that there was none.
            Some((_, since)) if self.real < since + ABSENCE / 2 => {
                Look::Absent(Duration::from_secs(ABSENCE / 2))
            }
            Some((text, _)) => {
                self.was_seen.insert(selector.into());
                Look::Texts(vec![text.as_bytes().into()])
            }
            None => Look::Absent(Duration::from_secs(ABSENCE)),
        }
    }

    fn round(&mut self) -> Result<(), Killed> {
        let elapsed = Duration::from_secs(self.last_round.map_or(0, |last| self.real - last));
        self.last_round = Some(self.real);
        let (rules, now) = (self.rules.clone(), self.now());
        let before = self.rotation.clone();
        let sought = self.rotation.sought(&rules, now, name, |_| false);
        let looks: BTreeMap<_, _> = sought.iter().map(|one| (one.clone(), self.look(one))).collect();
        self.rotation.on_round(&rules, &Round { now, elapsed, in_force: self.in_force, looks: &looks }, name);
        for key in &self.rotation.keys {
            let old = before.keys.iter().find(|old| old.selector == key.selector);
            let went = old.is_some_and(|old| old.phase != key.phase);
            // Of a record that nobody can see nothing is known.
            let harmless = matches!(key.phase, KeyPhase::Published | KeyPhase::Revoked | KeyPhase::Leaving)
                && old.is_some_and(|old| !old.phase.is_needed());
            assert!(!(self.fails && went && !harmless), "{key:?} in the dark");
        }
        for old in &before.keys {
            let is_kept = self.rotation.keys.iter().any(|key| key.selector == old.selector);
            assert!(
                is_kept || !self.zone.contains_key(&old.selector),
                "{old:?} is forgotten, and its record is there: {looks:?}"
            );
        }
        let phases = |rotation: &Rotation| rotation.keys.iter().map(|key| key.phase).collect::<Vec<_>>();
        if phases(&before) != phases(&self.rotation) {
            self.marks.insert(self.steps);
        }
        self.step()?;
        self.persist();
        for key in self
            .rotation
            .keys
            .iter()
            .filter(|key| !before.keys.iter().any(|old| old.selector == key.selector))
        {
            assert!(self.begun.insert(key.selector.clone()), "{} is used twice", key.selector);
        }
        self.step()?;
        self.apply();
        self.step()?;
        for _ in 0..4 {
            self.obey()?;
        }
        self.listen();
        Ok(())
    }

    fn obey(&mut self) -> Result<(), Killed> {
        let rotation = self.rotation.clone();
        for order in rotation.orders(self.rules.publishing) {
            let now = self.now();
            self.marks.insert(self.steps);
            match order {
                Order::Make(selector) => {
                    self.made += 1;
                    let record = format!("v=DKIM1; k=ed25519; p={}", self.made);
                    self.files.insert(selector.into(), record.clone());
                    self.step()?;
                    self.rotation.on_made(selector, &record, now);
                }
                Order::Publish(key) => {
                    self.publish(&key.selector, &key.record);
                    self.step()?;
                    self.rotation.on_done(&key.selector, now);
                }
                Order::Revoke(key) => {
                    self.revoke(&key.selector);
                    self.step()?;
                    self.rotation.on_done(&key.selector, now);
                }
                Order::Withdraw(key) => {
                    self.forsake(&key.selector);
                    self.zone.remove(&key.selector);
                    self.step()?;
                    self.rotation.on_done(&key.selector, now);
                }
                Order::Erase(selector) => {
                    assert!(self.signs.as_deref() != Some(selector), "the key that signs");
                    self.files.remove(selector);
                    self.step()?;
                    self.rotation.on_erased(selector);
                }
            }
            self.persist();
            self.step()?;
        }
        Ok(())
    }

    fn publish(&mut self, selector: &str, record: &str) {
        assert_eq!(self.files.get(selector).map(|file| &**file), Some(record), "the private key comes first");
        self.zone.entry(selector.into()).or_insert((record.to_owned(), self.real));
    }

    fn revoke(&mut self, selector: &str) {
        self.forsake(selector);
        // That there is something there is known.
        let since = self.zone.get(selector).map_or(self.real, |(_, since)| *since);
        self.zone.insert(selector.into(), (REVOKED.into(), since));
    }

    /// Its record goes: nothing is under way that was signed with it.
    fn forsake(&mut self, selector: &str) {
        if let Some(last) = self.signed.get(selector) {
            let least = self.rules.retire.as_secs();
            assert!(self.real >= last + least, "{selector} signed {} s ago", self.real - last);
        }
    }

    /// Somebody reads what is to be done by hand.
    fn listen(&mut self) {
        let after = self.real + 2 * DAY;
        let mut wanted = Vec::new();
        for concern in self.rotation.concerns(self.rules.publishing) {
            match concern {
                Concern::Publish(key) => wanted.push((key.selector.clone(), Some(key.record.to_string()))),
                Concern::Revoke(key) => wanted.push((key.selector.clone(), Some(REVOKED.to_owned()))),
                Concern::Withdraw(key) => wanted.push((key.selector.clone(), None)),
                Concern::Unpublished(_)
                | Concern::Overdue(_)
                | Concern::InTheWay(_)
                | Concern::Taken(_)
                | Concern::Unknown(_) => {}
            }
        }
        // Who has waited with it looks once more whether it is still to be done.
        self.by_hand.retain(|(_, selector, text)| wanted.contains(&(selector.clone(), text.clone())));
        for (selector, text) in wanted {
            if !self.by_hand.iter().any(|(_, other, what)| *other == selector && *what == text) {
                self.by_hand.push((after, selector, text));
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.real += seconds;
        let due: Vec<_> = self.by_hand.extract_if(.., |(at, ..)| *at <= self.real).collect();
        for (_, selector, text) in due {
            match text {
                Some(text) if text == REVOKED => self.revoke(&selector),
                Some(text) => drop(self.zone.entry(selector).or_insert((text, self.real))),
                None => {
                    self.forsake(&selector);
                    self.zone.remove(&selector);
                }
            }
        }
        // Mail is signed all the time, and verified by who remembers for longest.
        if let Some(signs) = self.signs.clone() {
            let (record, since) = self.zone.get(&signs).unwrap_or_else(|| panic!("{signs} is not published"));
            assert_eq!(Some(record), self.files.get(&signs));
            assert!(self.real >= since + ABSENCE, "{signs} may not be seen yet");
            self.signed.insert(signs, self.real);
        }
    }

    fn live(&mut self) {
        if self.round().is_err() {
            self.start();
        }
    }
}

/// A year, with everything that goes wrong in it.
fn year(seed: u64, publishing: Publishing, revoke: Option<u64>) -> World {
    let mut random = Random(seed);
    let mut world = World::new(rules(publishing, revoke));
    world.start();
    let end = world.real + 365 * DAY;
    while world.real < end {
        if random.below(20) == 0 {
            world.fuse = Some(u32::try_from(random.below(6)).unwrap());
        }
        if random.below(100) == 0 {
            // Somebody has set the clock, by up to a year, or set it right.
            let days = i64::try_from(random.below(730)).unwrap() - 365;
            world.skew = if random.below(2) == 0 { 0 } else { days * 86_400 };
        }
        if random.below(200) == 0 {
            // It stands for a while.
            world.pass(random.below(3 * DAY));
            world.start();
        }
        world.fails = random.below(10) == 0;
        world.live();
        world.pass(INTERVAL);
    }
    world
}

#[test]
fn a_year_of_kills_failures_and_jumps() {
    for seed in 1..=8 {
        for publishing in [Publishing::Provider, Publishing::Hand] {
            for revoke in [None, Some(DAY)] {
                let world = year(seed, publishing, revoke);
                assert!(world.signs.is_some(), "seed {seed}: something signs");
                assert!(world.switches >= 8, "seed {seed}: {} switches", world.switches);
                // What is over is forgotten: what signs, what is coming and what is going.
                assert!(world.rotation.keys.len() <= KEYS_MAX, "seed {seed}: {:?}", world.rotation.keys);
                assert!(world.zone.len() <= KEYS_MAX + 1, "seed {seed}: {:?}", world.zone.keys());
            }
        }
    }
}

/// With a clock that is right and no failures, it is as often as it is asked for, and nothing stays.
#[test]
fn an_orderly_year() {
    for publishing in [Publishing::Provider, Publishing::Hand] {
        let mut world = World::new(rules(publishing, Some(DAY)));
        world.start();
        for _ in 0..365 * DAY / INTERVAL {
            world.live();
            world.pass(INTERVAL);
        }
        assert!((11..=13).contains(&world.switches), "{} switches", world.switches);
        assert_eq!(world.made, world.begun.len() as u32, "none is made twice");
        assert!(world.rotation.keys.len() <= 3, "{:?}", world.rotation.keys);
        assert_eq!(world.files.len(), world.rotation.keys.iter().filter(|key| !key.erased).count());
    }
}

/// Killed once, at each step there is in two rotations, and started at once: the same becomes of it.
#[test]
fn a_kill_at_each_step() {
    let run = |kill: Option<u32>| {
        let mut world = World::new(rules(Publishing::Provider, Some(DAY)));
        world.start();
        let end = world.real + 75 * DAY;
        let mut kill = kill;
        while world.real < end {
            let left = kill.and_then(|at| at.checked_sub(world.steps)).filter(|left| *left < 40);
            if left.is_some() {
                (world.fuse, kill) = (left, None);
            }
            world.live();
            world.pass(INTERVAL);
        }
        assert_eq!(world.switches, 3, "killed at {kill:?}");
        assert_eq!(world.begun.len(), 3);
        // One signs, and whichever retires.
        assert_eq!(world.zone.len(), world.rotation.keys.len(), "{:?} {:?}", world.zone, world.rotation);
        assert_eq!(world.files.len(), world.rotation.keys.iter().filter(|key| !key.erased).count());
        (world.steps, world.marks)
    };
    let (steps, marks) = run(None);
    assert!(steps > 3_000 && marks.len() > 20, "{steps} {marks:?}");
    // Most rounds are alike: each step of those in which something happens, and some of the others.
    let near = marks.iter().flat_map(|mark| mark.saturating_sub(1)..mark + 5);
    for at in near.chain((0..steps).step_by(211)).collect::<BTreeSet<_>>() {
        run(Some(at));
    }
}

struct Desk {
    rotation: Rotation,
    rules: RotationRules,
    now: Timestamp,
    shows: BTreeMap<Box<str>, Look>,
}

impl Desk {
    fn new(publishing: Publishing) -> Self {
        let now = Timestamp::from_secs(20_000 * DAY);
        Self { rotation: Rotation::default(), rules: rules(publishing, None), now, shows: BTreeMap::new() }
    }

    fn round(&mut self, seconds: u64) {
        self.now = self.now.saturating_add(Duration::from_secs(seconds));
        let (rules, now, elapsed) = (self.rules.clone(), self.now, Duration::from_secs(seconds));
        let sought = self.rotation.sought(&rules, now, name, |selector| selector == "rp-20241004-2");
        let look = |selector: &str| self.shows.get(selector).cloned().unwrap_or(Look::Absent(Duration::ZERO));
        let looks = sought.iter().map(|selector| (selector.clone(), look(selector))).collect();
        self.rotation.on_round(&rules, &Round { now, elapsed, in_force: true, looks: &looks }, name);
        let rotation = self.rotation.clone();
        for order in rotation.orders(rules.publishing) {
            match order {
                Order::Make(selector) => {
                    self.rotation.on_made(selector, &format!("v=DKIM1; p={selector}"), now)
                }
                Order::Erase(selector) => self.rotation.on_erased(selector),
                Order::Publish(_) | Order::Revoke(_) | Order::Withdraw(_) => {}
            }
        }
    }

    fn show(&mut self, selector: &str, text: &str) {
        self.shows.insert(selector.into(), Look::Texts(vec![text.as_bytes().into()]));
    }

    fn phases(&self) -> Vec<KeyPhase> {
        self.rotation.keys.iter().map(|key| key.phase).collect()
    }

    /// As far as one that signs.
    fn signing(publishing: Publishing) -> Self {
        let mut desk = Self::new(publishing);
        desk.round(0);
        let selector = desk.rotation.keys[0].selector.clone();
        desk.show(&selector, &format!(" p = {selector};v=DKIM1; "));
        desk.round(60);
        assert_ne!(desk.phases(), [KeyPhase::Shown], "v= comes first");
        desk.show(&selector, &format!("v=DKIM1 ;p= {selector} ;"));
        desk.round(60);
        assert_eq!(desk.phases(), [KeyPhase::Shown]);
        desk.round(2 * HOUR);
        assert_eq!(desk.phases(), [KeyPhase::Signing]);
        desk
    }
}

#[test]
fn what_is_in_the_way_is_told_and_left_alone() {
    let mut desk = Desk::new(Publishing::Provider);
    // The first name of the day has another's key, and the second is one that the configuration has.
    desk.show("rp-20241004-1", "v=DKIM1; p=abcd");
    desk.round(0);
    assert_eq!(desk.rotation.concerns(Publishing::Provider), [Concern::Taken("rp-20241004-1")]);
    assert!(desk.rotation.is_empty());
    // Whoever says that there are no keys but those that are named does not mean this one.
    desk.show("rp-20241004-3", "v=DKIM1; p=");
    desk.round(60);
    assert_eq!(&*desk.rotation.keys[0].selector, "rp-20241004-3");
    assert_eq!(desk.rotation.concerns(Publishing::Provider), []);
    desk.show("rp-20241004-3", "v=DKIM1; p=abcd");
    desk.round(60);
    assert!(matches!(desk.rotation.concerns(Publishing::Provider)[..], [Concern::InTheWay(_)]));
    desk.rotation.on_done("rp-20241004-3", desk.now);
    desk.shows.insert(
        "rp-20241004-3".into(),
        Look::Texts(vec![(*b"v=DKIM1; p=rp-20241004-3").into(), (*b"v=DKIM1; p=abcd").into()]),
    );
    desk.rules.publishing = Publishing::Hand;
    desk.round(60);
    assert_eq!(desk.phases(), [KeyPhase::Published], "two records are none");
    assert!(matches!(desk.rotation.concerns(Publishing::Hand)[..], [Concern::InTheWay(_)]));
    // Where nobody mends it, it is left to whoever has it, and the next name is tried.
    desk.rules.publishing = Publishing::Provider;
    desk.round(60);
    assert_eq!(desk.phases(), [KeyPhase::Leaving]);
    desk.round(60);
    assert_eq!(&*desk.rotation.keys[0].selector, "rp-20241004-4");
}

#[test]
fn a_record_that_is_not_there_any_more() {
    let mut desk = Desk::signing(Publishing::Provider);
    let selector = desk.rotation.keys[0].selector.clone();
    let right = desk.shows.get(&selector).cloned().unwrap();
    // Nobody knows: nothing is said, and nothing is done.
    desk.shows.insert(selector.clone(), Look::Unknown);
    desk.round(60);
    assert_eq!(
        (desk.rotation.concerns(Publishing::Provider), desk.rotation.orders(Publishing::Provider)),
        (vec![], vec![])
    );
    desk.shows.insert(selector.clone(), Look::Absent(Duration::ZERO));
    desk.round(60);
    assert!(matches!(desk.rotation.concerns(Publishing::Provider)[..], [Concern::Unpublished(_)]));
    assert!(matches!(desk.rotation.orders(Publishing::Provider)[..], [Order::Publish(_)]));
    assert_eq!(desk.rotation.orders(Publishing::Hand), []);
    // What somebody else has put there is his.
    desk.show(&selector, "v=DKIM1; p=abcd");
    desk.round(60);
    let concerns = desk.rotation.concerns(Publishing::Provider);
    assert!(
        matches!(concerns[..], [Concern::Unpublished(key)] if key.seen == Seen::Other("v=DKIM1; p=abcd".into()))
    );
    assert_eq!(desk.rotation.orders(Publishing::Provider), []);
    desk.shows.insert(selector, right);
    desk.round(60);
    assert_eq!(desk.rotation.concerns(Publishing::Provider), []);
}

#[test]
fn the_wait_begins_anew_when_the_record_goes() {
    let mut desk = Desk::new(Publishing::Provider);
    desk.round(0);
    let selector = desk.rotation.keys[0].selector.clone();
    desk.rotation.on_done(&selector, desk.now);
    desk.show(&selector, &format!("v=DKIM1; p={selector}"));
    desk.round(60);
    desk.round(HOUR);
    let right = desk.shows.insert(selector.clone(), Look::Unknown).unwrap();
    desk.round(10 * HOUR);
    desk.shows.insert(selector.clone(), right.clone());
    // What nobody has seen does not count.
    desk.round(HOUR);
    assert_eq!(
        (desk.phases(), desk.rotation.keys[0].waited),
        (vec![KeyPhase::Shown], Duration::from_secs(HOUR))
    );
    desk.shows.insert(selector.clone(), Look::Absent(Duration::from_secs(5 * HOUR)));
    desk.round(60);
    assert_eq!(desk.phases(), [KeyPhase::Published]);
    // With a provider it is published once more, when nobody can be remembering that it was not there.
    desk.round(4 * HOUR);
    assert_eq!(desk.phases(), [KeyPhase::Published]);
    desk.round(HOUR);
    assert_eq!(desk.phases(), [KeyPhase::Made]);
    desk.shows.insert(selector, right);
    desk.round(60);
    desk.round(4 * HOUR);
    assert_eq!(desk.phases(), [KeyPhase::Shown], "as long as the zone lets others remember");
    desk.round(HOUR);
    assert_eq!(desk.phases(), [KeyPhase::Signing]);
}

#[test]
fn a_wish_and_the_end_of_a_rotation() {
    let mut desk = Desk::signing(Publishing::Hand);
    desk.round(60);
    assert_eq!(desk.phases(), [KeyPhase::Signing]);
    desk.rotation.wish();
    desk.round(60);
    assert_eq!(desk.phases(), [KeyPhase::Signing, KeyPhase::Made]);
    assert!(!desk.rotation.is_wished());
    let end = |desk: &mut Desk, seconds| {
        desk.now = desk.now.saturating_add(Duration::from_secs(seconds));
        let looks = desk.shows.clone();
        let (now, elapsed) = (desk.now, Duration::from_secs(seconds));
        let rules = desk.rules.clone();
        let round = Round { now, elapsed, in_force: true, looks: &looks };
        desk.rotation.on_round_of_the_end(&rules, &round, Ending::Now);
    };
    end(&mut desk, 60);
    assert_eq!(desk.phases(), [KeyPhase::Retiring, KeyPhase::Leaving]);
    // Back again: what signed signs again, at once.
    desk.round(60);
    assert_eq!(desk.phases()[0], KeyPhase::Signing);
    end(&mut desk, 60);
    end(&mut desk, 7 * DAY);
    assert_eq!(desk.phases()[0], KeyPhase::Leaving);
    assert!(matches!(desk.rotation.concerns(Publishing::Hand)[0], Concern::Withdraw(_)));
    let selectors: Vec<_> = desk.rotation.keys.iter().map(|key| key.selector.clone()).collect();
    selectors.iter().for_each(|selector| desk.rotation.on_erased(selector));
    desk.shows = selectors.into_iter().map(|selector| (selector, Look::Absent(Duration::ZERO))).collect();
    end(&mut desk, 60);
    assert!(desk.rotation.is_empty());
}

#[test]
fn records_that_are_the_same() {
    const WANTED: &str = "v=DKIM1; k=rsa; p=AAbb+/==";
    for same in [WANTED, "v=DKIM1;p=AA bb+/==;k=rsa;", " v = DKIM1 ; k=rsa ;\tp=AAbb\r\n +/== "] {
        assert!(same_record(same.as_bytes(), WANTED), "{same}");
    }
    for other in [
        "",
        "v=DKIM1; k=rsa; p=aabb+/==",
        "v=DKIM1; p=AAbb+/==",
        "k=rsa; v=DKIM1; p=AAbb+/==",
        "v=DKIM1; k=rsa; t=y; p=AAbb+/==",
        "v=DKIM1; k=rsa; p=AAbb+/==; p=AAbb+/==",
        "v=spf1 -all",
    ] {
        assert!(!same_record(other.as_bytes(), WANTED), "{other}");
    }
    assert!(same_record(b"v=DKIM1; p=", REVOKED) && same_record(b"v=DKIM1;p=;", REVOKED));
    assert!(
        is_key(b"p=x") && !is_key(b"v=DKIM1; p=") && !is_key(b"v=spf1 p=x"),
        "{:?}",
        is_key(b"v=spf1 p=x")
    );
    let long = "\u{7f}é".repeat(2_000);
    assert!(shown(&[long.as_bytes().into()]).chars().count() <= 1_000);
}

/// A record that was published and is nowhere to be seen: told when it should have been seen, however often it was published, and not
/// any more when it is.
#[test]
fn a_record_that_is_not_seen_for_long() {
    for seen in [Look::Absent(Duration::ZERO), Look::Unknown] {
        let mut desk = Desk::new(Publishing::Provider);
        desk.round(0);
        let selector = desk.rotation.keys[0].selector.clone();
        let overdue = |desk: &Desk| {
            let concerns = desk.rotation.concerns(Publishing::Provider);
            concerns.iter().any(|concern| matches!(concern, Concern::Overdue(_)))
        };
        desk.shows.insert(selector.clone(), seen.clone());
        for _ in 0..6 {
            desk.rotation.on_done(&selector, desk.now);
            desk.round(HOUR);
            assert!(!overdue(&desk), "{seen:?}");
        }
        desk.rotation.on_done(&selector, desk.now);
        desk.round(HOUR);
        assert!(overdue(&desk), "{seen:?} {:?}", desk.rotation.keys);
        desk.show(&selector, &format!("v=DKIM1; p={selector}"));
        desk.round(HOUR);
        assert!(!overdue(&desk), "{seen:?}");
    }
    // Nobody can see it as long as the zone lets all remember that there was none.
    let mut desk = Desk::new(Publishing::Provider);
    desk.round(0);
    let selector = desk.rotation.keys[0].selector.clone();
    desk.rotation.on_done(&selector, desk.now);
    desk.shows.insert(selector, Look::Absent(Duration::from_secs(DAY)));
    desk.round(20 * HOUR);
    assert_eq!(desk.rotation.concerns(Publishing::Provider), []);
    desk.round(5 * HOUR);
    assert!(matches!(desk.rotation.concerns(Publishing::Provider)[..], [Concern::Overdue(_)]));
}

/// Without an answer no key is begun, which would go on unseen for ever.
#[test]
fn a_dns_that_says_nothing() {
    let mut desk = Desk::new(Publishing::Provider);
    desk.shows.insert("rp-20241004-1".into(), Look::Unknown);
    desk.round(0);
    desk.round(6 * HOUR);
    assert_eq!(desk.rotation.concerns(Publishing::Provider), []);
    desk.round(HOUR);
    assert_eq!(desk.rotation.concerns(Publishing::Provider), [Concern::Unknown("rp-20241004-1")]);
    desk.shows.clear();
    desk.round(HOUR);
    assert_eq!(desk.rotation.concerns(Publishing::Provider), []);
    assert_eq!(desk.phases(), [KeyPhase::Made]);
}

/// A host without a clock of its own starts in 1970, each time: that is no reason for a new key. A time that has not come yet was not
/// the right one either, and is not waited for.
#[test]
fn a_clock_that_is_not_set_begins_no_key() {
    let mut desk = Desk::signing(Publishing::Provider);
    let right = desk.now;
    for _ in 0..5 {
        desk.now = Timestamp::from_secs(60);
        desk.round(60);
        desk.now = right;
        desk.round(60);
        assert_eq!(desk.phases(), [KeyPhase::Signing]);
    }
    desk.now = Timestamp::from_secs(60);
    desk.round(29 * DAY);
    assert_eq!(desk.phases(), [KeyPhase::Signing]);
    desk.round(2 * DAY);
    desk.round(60);
    assert_eq!(desk.phases().len(), 2, "the watch has seen 30 days of it");
}

/// Without its private key none ever signs, or not after the next start: it does not stand in the way of the next.
#[test]
fn a_private_key_that_is_lost() {
    let mut desk = Desk::signing(Publishing::Provider);
    let first = desk.rotation.keys[0].selector.clone();
    desk.rotation.on_lost(&first, desk.now);
    desk.round(60);
    assert_eq!(desk.phases(), [KeyPhase::Signing, KeyPhase::Made]);
    let second = desk.rotation.keys[1].selector.clone();
    desk.rotation.on_done(&second, desk.now);
    // Once is enough.
    desk.rotation.on_lost(&first, desk.now);
    assert!(!desk.rotation.is_wished());
    desk.show(&second, &format!("v=DKIM1; p={second}"));
    desk.round(60);
    assert_eq!(desk.phases(), [KeyPhase::Signing, KeyPhase::Shown]);
    desk.rotation.on_lost(&second, desk.now);
    assert_eq!(desk.phases(), [KeyPhase::Signing, KeyPhase::Leaving]);
    assert!(matches!(desk.rotation.orders(Publishing::Provider)[..], [Order::Erase(_), Order::Withdraw(_)]));
    desk.rotation.on_lost(&first, desk.now);
    desk.round(60);
    assert_eq!(desk.phases().last(), Some(&KeyPhase::Made), "the next one: {:?}", desk.phases());
}

/// Another algorithm in the place of one: until a key of it signs, the old one does.
#[test]
fn what_signs_goes_on_until_another_does() {
    let mut desk = Desk::signing(Publishing::Provider);
    let looks = desk.shows.clone();
    let elapsed = Duration::from_secs(60);
    let mut end = |ending| {
        let round = Round { now: desk.now, elapsed, in_force: true, looks: &looks };
        desk.rotation.on_round_of_the_end(&desk.rules, &round, ending);
        desk.rotation.keys[0].phase
    };
    assert_eq!(end(Ending::Succeeded), KeyPhase::Signing);
    assert_eq!(end(Ending::Now), KeyPhase::Retiring);
}
