//! Who has come before: greylisting (RFC 6647), in memory, 16 octets for each by a keyed hash.
//!
//! ```text
//!             first time                    again, not before `delay`
//!  (nobody) ──────────────▶ waiting, 451 ─────────────────────────────▶ proven ──▶ its client has one more success
//!                              │                                          │
//!                              ▼ not again within `window`                ▼ not again within `lifetime`
//!                          forgotten                                   forgotten
//! ```
//!
//! What is remembered is a triplet: where the client comes from, the reverse-path, the recipient. A client from which so many
//! triplets have proven good waits no more, whatever it brings. The table is in parts, each behind a lock that is held for a look; it
//! has a bound, and when a part is full, those that came last and have not proven good go first: so a flood of new ones
//! pushes out itself.
//!
//! Entries of two processes, or of a process and of what an earlier one has written, are [joined](Greylist::absorb): whatever the
//! order, the same comes out.
//!
//! Time is an argument here.

use std::{
    collections::{HashMap, hash_map},
    hash::BuildHasherDefault,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_lc_rs::hmac;
use mail::{Address, ReversePath, Timestamp};

use crate::hash::{AsItIs, HashKey};

/// The table of one host.
#[derive(Debug)]
pub struct Greylist {
    key: HashKey,
    parts: Box<[Mutex<Part>]>,
    /// How many one part may hold.
    part_max: AtomicUsize,
    count: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Part {
    entries: HashMap<u64, Slot, BuildHasherDefault<AsItIs>>,
    /// Those that were changed and are not written down.
    changed: Vec<u64>,
}

/// A keyed hash of a triplet, or of where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GreyKey(pub u64);

/// What is known of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// How it stands.
    pub state: State,
    /// Until when that is remembered, in seconds since 1970.
    pub until: u32,
}

/// How a triplet or a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The triplet has proven good.
    Proven,
    /// So many triplets of the client have.
    Client(u32),
    /// The triplet came for the first time then, in seconds since 1970.
    Waiting(u32),
    /// It is to be forgotten.
    Cleared,
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// The network of its address, as an IPv6 address with so many bits (IPv4 in the form of RFC 4291 §2.5.5.2).
    Network(u128, u8),
    /// A domain that says its mail comes from there (SPF).
    Domain(&'a str),
}

/// How long what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GreyRules {
    /// Who comes again sooner, comes too soon.
    pub delay: Duration,
    /// Who comes again later, comes for the first time.
    pub window: Duration,
    /// How long it is remembered that somebody has proven good, after it came last.
    pub lifetime: Duration,
    /// A client with so many good triplets waits no more; none: each of its triplets does.
    pub client_after: Option<u32>,
}

/// What came of looking somebody up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// The triplet is known as a good one.
    Known,
    /// The client is.
    KnownClient,
    /// It came again as it should, after so long.
    Passed(Duration),
    /// It comes for the first time, and waits so long.
    New(Duration),
    /// It comes too soon, and waits so long yet.
    Early(Duration),
}

/// How many there are of which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GreyCounts {
    /// Triplets that wait.
    pub waiting: u64,
    /// Triplets that have proven good.
    pub proven: u64,
    /// Clients with a good triplet.
    pub clients: u64,
}

/// Parts of the table.
pub const GREY_PARTS: usize = 64;
/// Successes of a client that are counted.
const SUCCESSES_MAX: u32 = 1 << 20;
/// Of what is in the way, this part goes at once, so that not everybody who comes has to look through all.
const EVICTED_AT_ONCE: usize = 16;

impl Met {
    /// How long the client is to wait; none: it may go on.
    pub const fn wait(self) -> Option<Duration> {
        match self {
            Self::New(wait) | Self::Early(wait) => Some(wait),
            Self::Known | Self::KnownClient | Self::Passed(_) => None,
        }
    }
}

impl<'a> Origin<'a> {
    /// The network of an address: so many bits of IPv4, or of IPv6.
    pub fn of(address: IpAddr, v4: u8, v6: u8) -> Self {
        let (bits, len) = match address.to_canonical() {
            IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), 96 + v4.min(32)),
            IpAddr::V6(address) => (address.to_bits(), v6.min(128)),
        };
        let host_bits = 128 - u32::from(len);
        Self::Network(bits & u128::MAX.checked_shl(host_bits).unwrap_or(0), len)
    }

    pub(crate) fn write(self, context: &mut hmac::Context) {
        match self {
            Self::Network(bits, len) => {
                context.update(b"n");
                context.update(&bits.to_be_bytes());
                context.update(&[len]);
            }
            Self::Domain(domain) => {
                context.update(b"d");
                context.update(domain.to_ascii_lowercase().as_bytes());
            }
        }
    }
}

impl State {
    /// As it is written down. The time that a triplet waits since is more than any count of successes.
    pub const fn to_number(self) -> u32 {
        match self {
            Self::Proven => 0,
            Self::Client(successes) => {
                if successes == 0 {
                    1
                } else if successes > SUCCESSES_MAX {
                    SUCCESSES_MAX
                } else {
                    successes
                }
            }
            Self::Waiting(since) => since,
            Self::Cleared => u32::MAX,
        }
    }

    /// As it was written down.
    pub const fn of_number(number: u32) -> Self {
        match number {
            0 => Self::Proven,
            1..=SUCCESSES_MAX => Self::Client(number),
            u32::MAX => Self::Cleared,
            since => Self::Waiting(since),
        }
    }
}

impl Slot {
    fn holds(self, now: u32) -> bool {
        self.until > now
    }

    /// What both say. Whichever is taken first, the same comes out.
    fn join(self, other: Self) -> Self {
        match (self.state, other.state) {
            (State::Proven, State::Proven) => Self { until: self.until.max(other.until), ..self },
            (State::Proven, _) => self,
            (_, State::Proven) => other,
            (State::Client(one), State::Client(two)) => {
                Self { state: State::Client(one.max(two)), until: self.until.max(other.until) }
            }
            (State::Waiting(one), State::Waiting(two)) => {
                let (earlier, later) = if one <= two { (self, other) } else { (other, self) };
                // Of one that was forgotten before the other began, nothing counts any more.
                if later.state.to_number() >= earlier.until { later } else { earlier }
            }
            // Two of different kinds have one hash, which nobody meets.
            (_, _) => {
                if self.until >= other.until {
                    self
                } else {
                    other
                }
            }
        }
    }
}

impl Default for Greylist {
    fn default() -> Self {
        Self {
            key: HashKey::default(),
            parts: (0..GREY_PARTS).map(|_| Mutex::default()).collect(),
            part_max: AtomicUsize::new(usize::MAX),
            count: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }
}

impl Greylist {
    /// What the hashes are made with, if none was made yet.
    pub fn set_key(&self, key: &[u8; 32]) {
        self.key.set(key);
    }

    /// Another bound from now on.
    pub fn set_entries_max(&self, entries_max: u64) {
        let of_part = usize::try_from(entries_max).unwrap_or(usize::MAX) / GREY_PARTS;
        self.part_max.store(of_part.max(EVICTED_AT_ONCE), Relaxed);
    }

    /// Of mail from there, with this reverse-path, to this recipient.
    pub fn triplet(&self, origin: Origin<'_>, sender: &ReversePath, recipient: &Address) -> GreyKey {
        self.hashed(|context| {
            context.update(b"t");
            origin.write(context);
            context.update(b"\0");
            if let Some(address) = sender.address() {
                context.update(sender_key(address).as_bytes());
            }
            context.update(b"\0");
            context.update(recipient.as_str().to_lowercase().as_bytes());
        })
    }

    /// Of all mail from there.
    pub fn client(&self, origin: Origin<'_>) -> GreyKey {
        self.hashed(|context| {
            context.update(b"c");
            origin.write(context);
        })
    }

    fn hashed(&self, write: impl FnOnce(&mut hmac::Context)) -> GreyKey {
        GreyKey(self.key.hash(write))
    }

    /// Whether mail goes on without a wait, since the triplet or its client is known.
    pub fn known(&self, triplet: GreyKey, client: GreyKey, rules: &GreyRules, now: Timestamp) -> Option<Met> {
        let now = seconds(now);
        let until = until(now, rules.lifetime);
        if let Some(after) = rules.client_after
            && self.part(client).refresh(
                client,
                now,
                until,
                |state| matches!(state, State::Client(n) if n >= after),
            )
        {
            return Some(Met::KnownClient);
        }
        let is_known = self.part(triplet).refresh(triplet, now, until, |state| state == State::Proven);
        is_known.then_some(Met::Known)
    }

    /// Looks somebody up who has come, and remembers that.
    pub fn meet(&self, triplet: GreyKey, client: GreyKey, rules: &GreyRules, now: Timestamp) -> Met {
        if let Some(met) = self.known(triplet, client, rules, now) {
            return met;
        }
        let now = seconds(now);
        let (delay, window) = (whole(rules.delay), whole(rules.window));
        {
            let mut part = self.part(triplet);
            let since = match part.entries.get(&triplet.0) {
                Some(Slot { state: State::Waiting(since), until }) if *until > now => Some(*since),
                Some(_) | None => None,
            };
            let Some(since) = since else {
                // The window may be shorter than the delay by a mistake: nobody would ever pass.
                let until = now.saturating_add(window.max(delay.saturating_add(1)));
                self.put(&mut part, triplet, Slot { state: State::Waiting(now), until }, now);
                return Met::New(Duration::from_secs(delay.into()));
            };
            // After the clock was set back, it begins anew to count.
            let age = now.saturating_sub(since);
            if age < delay {
                return Met::Early(Duration::from_secs(u64::from(delay - age)));
            }
            let slot = Slot { state: State::Proven, until: until(now, rules.lifetime) };
            self.put(&mut part, triplet, slot, now);
            drop(part);
            self.succeed(client, until(now, rules.lifetime), now);
            Met::Passed(Duration::from_secs(age.into()))
        }
    }

    fn succeed(&self, client: GreyKey, until: u32, now: u32) {
        let mut part = self.part(client);
        let before = match part.entries.get(&client.0) {
            Some(Slot { state: State::Client(successes), until }) if *until > now => *successes,
            Some(_) | None => 0,
        };
        let state = State::Client((before + 1).min(SUCCESSES_MAX));
        self.put(&mut part, client, Slot { state, until }, now);
    }

    fn put(&self, part: &mut Part, key: GreyKey, slot: Slot, now: u32) {
        self.place(part, key, slot, now);
        part.changed.push(key.0);
        // What is changed again and again is written once: so there is no need of more.
        if part.changed.len() > 2 * part.entries.len() + 1024 {
            let Part { entries, changed } = part;
            changed.sort_unstable();
            changed.dedup();
            // Those that were pushed out meanwhile are not worth a line.
            changed.retain(|key| entries.contains_key(key));
        }
    }

    fn place(&self, part: &mut Part, key: GreyKey, slot: Slot, now: u32) {
        let max = self.part_max.load(Relaxed);
        if part.entries.len() >= max && !part.entries.contains_key(&key.0) {
            self.make_room(part, max, now);
        }
        if part.entries.insert(key.0, slot).is_none() {
            self.count.fetch_add(1, Relaxed);
        }
    }

    /// Forgets whom it can for another to come in.
    fn make_room(&self, part: &mut Part, max: usize, now: u32) {
        self.retain(part, |slot| slot.holds(now));
        if part.entries.len() < max {
            return;
        }
        let before = part.entries.len();
        let many = (max / EVICTED_AT_ONCE).max(1) + (before - max);
        let mut waiting: Vec<u32> = part
            .entries
            .values()
            .filter_map(|slot| match slot.state {
                State::Waiting(since) => Some(since),
                State::Proven | State::Client(_) | State::Cleared => None,
            })
            .collect();
        if waiting.is_empty() {
            // All are good: those go that came longest ago.
            let mut untils: Vec<u32> = part.entries.values().map(|slot| slot.until).collect();
            let last = many.min(untils.len()) - 1;
            let limit = *untils.select_nth_unstable(last).1;
            let mut left = many;
            self.retain(part, |slot| {
                let goes = slot.until <= limit && left > 0;
                left -= usize::from(goes);
                !goes
            });
        } else {
            let many = many.min(waiting.len());
            let first = waiting.len() - many;
            let limit = *waiting.select_nth_unstable(first).1;
            let mut left = many;
            self.retain(part, |slot| {
                let goes = matches!(slot.state, State::Waiting(since) if since >= limit) && left > 0;
                left -= usize::from(goes);
                !goes
            });
        }
        self.evicted.fetch_add((before - part.entries.len()) as u64, Relaxed);
    }

    fn retain(&self, part: &mut Part, mut stays: impl FnMut(&Slot) -> bool) {
        let before = part.entries.len();
        part.entries.retain(|_, slot| stays(slot));
        self.count.fetch_sub((before - part.entries.len()) as u64, Relaxed);
    }

    /// Takes in what somebody else remembers, or what was written down.
    pub fn absorb(&self, key: GreyKey, slot: Slot, now: Timestamp) {
        let now = seconds(now);
        let mut part = self.part(key);
        if slot.state == State::Cleared {
            if part.entries.remove(&key.0).is_some() {
                self.count.fetch_sub(1, Relaxed);
                // Whichever file is read first at the next start, it stays so.
                part.changed.push(key.0);
            }
            return;
        }
        if !slot.holds(now) {
            return;
        }
        let known = part.entries.get(&key.0).copied().filter(|known| known.holds(now));
        let slot = known.map_or(slot, |known| known.join(slot));
        self.place(&mut part, key, slot, now);
    }

    /// Forgets somebody; says whether there was anything to forget.
    pub fn clear(&self, key: GreyKey) -> bool {
        let mut part = self.part(key);
        let was_there = part.entries.remove(&key.0).is_some();
        self.count.fetch_sub(u64::from(was_there), Relaxed);
        if was_there {
            part.changed.push(key.0);
        }
        was_there
    }

    /// What is known of somebody.
    pub fn find(&self, key: GreyKey, now: Timestamp) -> Option<Slot> {
        self.part(key).entries.get(&key.0).copied().filter(|slot| slot.holds(seconds(now)))
    }

    /// What was changed in a part since this was asked last, as it is now.
    pub fn take_changes(&self, part: usize) -> Vec<(GreyKey, Slot)> {
        let mut part = lock(&self.parts[part % GREY_PARTS]);
        let mut changed = std::mem::take(&mut part.changed);
        changed.sort_unstable();
        changed.dedup();
        let cleared = Slot { state: State::Cleared, until: 0 };
        let slot = |key: u64| (GreyKey(key), part.entries.get(&key).copied().unwrap_or(cleared));
        changed.into_iter().map(slot).collect()
    }

    /// All that is in a part.
    pub fn entries(&self, part: usize) -> Vec<(GreyKey, Slot)> {
        let part = lock(&self.parts[part % GREY_PARTS]);
        part.entries.iter().map(|(key, slot)| (GreyKey(*key), *slot)).collect()
    }

    /// Forgets whose time is over, in the next part. Called again and again it comes to each.
    pub fn sweep(&self, turn: usize, now: Timestamp) {
        let mut part = lock(&self.parts[turn % GREY_PARTS]);
        self.retain(&mut part, |slot| slot.holds(seconds(now)));
        if part.entries.capacity() > 4 * part.entries.len().max(64) {
            part.entries.shrink_to_fit();
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many had to go before their time.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// How many there are of which; it looks at all of them.
    pub fn counts(&self) -> GreyCounts {
        let mut counts = GreyCounts::default();
        for part in &self.parts {
            for slot in lock(part).entries.values() {
                match slot.state {
                    State::Waiting(_) => counts.waiting += 1,
                    State::Proven => counts.proven += 1,
                    State::Client(_) => counts.clients += 1,
                    State::Cleared => {}
                }
            }
        }
        counts
    }

    fn part(&self, key: GreyKey) -> MutexGuard<'_, Part> {
        lock(&self.parts[key.0 as usize % GREY_PARTS])
    }
}

impl Part {
    /// Whether it stands so; then it is remembered from now on.
    fn refresh(&mut self, key: GreyKey, now: u32, until: u32, stands: impl FnOnce(State) -> bool) -> bool {
        /// What has changed by less than this part of its time is not written down.
        const WORTH: u32 = 50;
        let hash_map::Entry::Occupied(mut entry) = self.entries.entry(key.0) else { return false };
        let slot = entry.get_mut();
        if !slot.holds(now) || !stands(slot.state) {
            return false;
        }
        if until > slot.until && until - slot.until > (until - now) / WORTH {
            slot.until = until;
            self.changed.push(key.0);
        }
        true
    }
}

/// A reverse-path as it is compared: senders that write each message's number into their local-part (VERP, BATV) are one.
fn sender_key(address: &Address) -> String {
    let local_part = address.local_part();
    let local_part = local_part.as_str();
    let stem = local_part
        .split_once('+')
        .map_or(local_part, |(stem, _)| if stem.is_empty() { local_part } else { stem });
    let mut key = String::with_capacity(address.as_str().len());
    for c in stem.chars() {
        // A run of digits is one, whatever it is.
        let c = if c.is_ascii_digit() { '#' } else { c.to_ascii_lowercase() };
        if c != '#' || !key.ends_with('#') {
            key.push(c);
        }
    }
    key.push('@');
    key.push_str(&address.domain_str().to_lowercase());
    key
}

// Each step leaves the part whole, so that whoever panics with the lock does no harm.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In 2106 it is at its end.
fn seconds(time: Timestamp) -> u32 {
    u32::try_from(time.secs()).unwrap_or(u32::MAX - 1)
}

fn whole(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

fn until(now: u32, lifetime: Duration) -> u32 {
    now.saturating_add(whole(lifetime)).min(u32::MAX - 1)
}

#[cfg(test)]
#[path = "greylist_test.rs"]
mod test;
