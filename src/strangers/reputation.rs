//! What strangers have done: counts of good and bad deeds that fade, in memory, by a keyed hash of whom they are of.
//!
//! ```text
//!  learn(subject, deed)        a count goes up by one, after it has faded since it was changed last
//!  counts(subject)             what is left of each: half of it after each half-life
//!  Counts::weight(…)           from -max (all good) to +max (all bad), once there is enough to tell
//! ```
//!
//! As the greylist it is in parts, each behind a lock that is held for a look, and it has a bound: when a part is full, those go
//! of whom least is left. What two processes know of somebody is joined by the larger of each count. Time is an argument here.

use std::{
    collections::HashMap,
    hash::BuildHasherDefault,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use mail::{Address, Timestamp};

use crate::{
    Origin,
    hash::{AsItIs, HashKey},
};

/// The table of one host.
#[derive(Debug)]
pub struct Reputation {
    key: HashKey,
    parts: Box<[Mutex<Part>]>,
    /// How many one part may hold.
    part_max: AtomicUsize,
    count: AtomicU64,
    /// In seconds.
    half_life: AtomicU32,
}

#[derive(Debug, Default)]
struct Part {
    entries: HashMap<u64, Deeds, BuildHasherDefault<AsItIs>>,
    changed: Vec<u64>,
}

/// Whose reputation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// Of a client's address or network.
    Client(Origin<'a>),
    /// Of an autonomous system.
    System(u32),
    /// Of a domain that was proven to be the sender's or the author's.
    Domain(&'a str),
    /// Of a sender in such a domain.
    Sender(&'a Address),
}

/// A keyed hash of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectKey(pub u64);

/// What somebody has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Mail of it was accepted.
    Accepted,
    /// A list of the DNS speaks against it.
    Listed,
    /// Mail of it was not from whom it said.
    Unproven,
    /// It wrote to a recipient that does not exist.
    Unknown,
    /// Mail of it was accepted, and not wanted where it went.
    Bounced,
}

/// What is kept of one: counts in sixteenths, as they were then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// When they were changed last, in seconds since 1970.
    pub at: u32,
    /// In the order of [`Deed::ALL`].
    pub counts: [u16; DEEDS],
}

/// What is left of somebody's deeds, in the order of [`Deed::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts(pub [f64; DEEDS]);

/// Kinds of deeds.
pub const DEEDS: usize = Deed::ALL.len();
/// Parts of the table.
pub const REPUTATION_PARTS: usize = 64;
/// Counts are kept in these.
const UNIT: f64 = 16.0;
/// More of one kind there cannot be, of what is kept in 16 bits; then all kinds are made less by so much.
const MOST: f64 = u16::MAX as f64 / UNIT - 1.0;
const SCALED: f64 = 0.98;
/// Of a full part this goes at once.
const EVICTED_AT_ONCE: usize = 16;
/// Whoever has less than this left of everything is forgotten.
const FORGOTTEN: f64 = 0.125;

impl Deed {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Accepted, Self::Listed, Self::Unproven, Self::Unknown, Self::Bounced];

    /// What it is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Listed => "listed",
            Self::Unproven => "unproven",
            Self::Unknown => "unknown",
            Self::Bounced => "bounced",
        }
    }
}

impl Counts {
    /// What it weighs: from as much as that for all good to as much against for all bad; nothing before there is a sample.
    #[expect(clippy::cast_possible_truncation, reason = "it is at most as much as an i32 is")]
    pub fn weight(&self, sample: u32, max: i32) -> i32 {
        let Self([accepted, listed, unproven, unknown, bounced]) = *self;
        // To be on a list is the word of others who have seen more; and what has bounced was accepted first.
        let (good, bad) = (accepted, 2.0 * (listed + bounced) + unproven + unknown);
        if good + bad < f64::from(sample.max(1)) {
            return 0;
        }
        ((bad - good) / (bad + good) * f64::from(max)).round() as i32
    }

    fn sum(&self) -> f64 {
        self.0.iter().sum()
    }
}

impl Deeds {
    fn left(&self, now: u32, half_life: u32) -> Counts {
        let age = f64::from(now.saturating_sub(self.at));
        let faded = f64::exp2(-age / f64::from(half_life.max(1)));
        Counts(self.counts.map(|count| f64::from(count) / UNIT * faded))
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float that does not fit becomes the nearest"
    )]
    fn of(counts: &Counts, at: u32) -> Self {
        Self { at, counts: counts.0.map(|count| (count * UNIT).round() as u16) }
    }
}

impl Default for Reputation {
    fn default() -> Self {
        Self {
            key: HashKey::default(),
            parts: (0..REPUTATION_PARTS).map(|_| Mutex::default()).collect(),
            part_max: AtomicUsize::new(usize::MAX),
            count: AtomicU64::new(0),
            half_life: AtomicU32::new(7 * 86_400),
        }
    }
}

impl Reputation {
    /// What the hashes are made with, if none was made yet.
    pub fn set_key(&self, key: &[u8; 32]) {
        self.key.set(key);
    }

    /// Another bound and another half-life from now on.
    pub fn configure(&self, entries_max: u64, half_life: Duration) {
        let of_part = usize::try_from(entries_max).unwrap_or(usize::MAX) / REPUTATION_PARTS;
        self.part_max.store(of_part.max(EVICTED_AT_ONCE), Relaxed);
        self.half_life.store(u32::try_from(half_life.as_secs()).unwrap_or(u32::MAX).max(1), Relaxed);
    }

    /// Of whom it is.
    pub fn key(&self, subject: Subject<'_>) -> SubjectKey {
        SubjectKey(self.key.hash(|context| match subject {
            Subject::Client(origin) => {
                context.update(b"c");
                origin.write(context);
            }
            Subject::System(number) => {
                context.update(b"a");
                context.update(&number.to_be_bytes());
            }
            Subject::Domain(domain) => {
                context.update(b"d");
                context.update(domain.to_lowercase().as_bytes());
            }
            Subject::Sender(address) => {
                context.update(b"s");
                context.update(address.as_str().to_lowercase().as_bytes());
            }
        }))
    }

    /// Somebody has done something.
    pub fn learn(&self, key: SubjectKey, deed: Deed, now: Timestamp) {
        let (now, half_life) = (seconds(now), self.half_life.load(Relaxed));
        let mut part = self.part(key);
        let mut counts =
            part.entries.get(&key.0).map_or_else(Counts::default, |deeds| deeds.left(now, half_life));
        counts.0[deed as usize] += 1.0;
        if counts.0[deed as usize] > MOST {
            // What share of all was bad is what counts: all of them become less, or whoever sends very much would be half good, half bad.
            counts.0 = counts.0.map(|count| count * SCALED);
        }
        self.place(&mut part, key, Deeds::of(&counts, now), now);
        let Part { entries, changed } = &mut *part;
        changed.push(key.0);
        if changed.len() > 2 * entries.len() + 1024 {
            changed.sort_unstable();
            changed.dedup();
            changed.retain(|key| entries.contains_key(key));
        }
    }

    /// What is left of what somebody has done; none: nothing is known.
    pub fn counts(&self, key: SubjectKey, now: Timestamp) -> Option<Counts> {
        let half_life = self.half_life.load(Relaxed);
        self.part(key).entries.get(&key.0).map(|deeds| deeds.left(seconds(now), half_life))
    }

    /// Takes in what another process knows, or what was written down.
    pub fn absorb(&self, key: SubjectKey, deeds: Deeds, now: Timestamp) {
        let (now, half_life) = (seconds(now), self.half_life.load(Relaxed));
        let mut part = self.part(key);
        let known = part.entries.get(&key.0).copied().unwrap_or_default();
        // As of the later of both.
        let at = known.at.max(deeds.at).min(now.max(known.at));
        let (one, two) = (known.left(at, half_life).0, deeds.left(at, half_life).0);
        let mut counts = Counts::default();
        for (place, count) in counts.0.iter_mut().enumerate() {
            *count = one[place].max(two[place]);
        }
        if counts.sum() >= FORGOTTEN {
            self.place(&mut part, key, Deeds::of(&counts, at), now);
        }
    }

    fn place(&self, part: &mut Part, key: SubjectKey, deeds: Deeds, now: u32) {
        let max = self.part_max.load(Relaxed);
        if part.entries.len() >= max && !part.entries.contains_key(&key.0) {
            let half_life = self.half_life.load(Relaxed);
            let many = (max / EVICTED_AT_ONCE).max(1) + (part.entries.len() - max);
            let mut left: Vec<f64> =
                part.entries.values().map(|deeds| deeds.left(now, half_life).sum()).collect();
            let last = many.min(left.len()) - 1;
            let limit = *left.select_nth_unstable_by(last, f64::total_cmp).1;
            let mut many = many;
            self.retain(part, |deeds| {
                let goes = deeds.left(now, half_life).sum() <= limit && many > 0;
                many -= usize::from(goes);
                !goes
            });
        }
        if part.entries.insert(key.0, deeds).is_none() {
            self.count.fetch_add(1, Relaxed);
        }
    }

    fn retain(&self, part: &mut Part, mut stays: impl FnMut(&Deeds) -> bool) {
        let before = part.entries.len();
        part.entries.retain(|_, deeds| stays(deeds));
        self.count.fetch_sub((before - part.entries.len()) as u64, Relaxed);
    }

    /// Forgets of whom nothing is left, in the next part. Called again and again it comes to each.
    pub fn sweep(&self, turn: usize, now: Timestamp) {
        let (now, half_life) = (seconds(now), self.half_life.load(Relaxed));
        let mut part = lock(&self.parts[turn % REPUTATION_PARTS]);
        self.retain(&mut part, |deeds| deeds.left(now, half_life).sum() >= FORGOTTEN);
        if part.entries.capacity() > 4 * part.entries.len().max(64) {
            part.entries.shrink_to_fit();
        }
    }

    /// What was changed in a part since this was asked last, as it is now.
    pub fn take_changes(&self, part: usize) -> Vec<(SubjectKey, Deeds)> {
        let mut part = lock(&self.parts[part % REPUTATION_PARTS]);
        let mut changed = std::mem::take(&mut part.changed);
        changed.sort_unstable();
        changed.dedup();
        let deeds = |key: u64| Some((SubjectKey(key), *part.entries.get(&key)?));
        changed.into_iter().filter_map(deeds).collect()
    }

    /// All that is in a part.
    pub fn entries(&self, part: usize) -> Vec<(SubjectKey, Deeds)> {
        let part = lock(&self.parts[part % REPUTATION_PARTS]);
        part.entries.iter().map(|(key, deeds)| (SubjectKey(*key), *deeds)).collect()
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn part(&self, key: SubjectKey) -> MutexGuard<'_, Part> {
        lock(&self.parts[key.0 as usize % REPUTATION_PARTS])
    }
}

// Each step leaves the part whole, so that whoever panics with the lock does no harm.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In 2106 it is at its end.
fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "reputation_test.rs"]
mod test;
