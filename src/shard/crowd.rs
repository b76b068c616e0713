//! Who is connected to this host and how fast they come: one table for all shards, touched per connection.
//!
//! Strangers are counted twice, by address and by network: the connections they have open, and what is left to them of each
//! rate. A rate is a bucket of tokens that fills within a minute; all that is kept of it is when it will be full. The
//! table is in parts, each behind a lock that is held for a look and no longer; so the counts are exact, whichever core a
//! client is on. It has a bound: when a part is full, those are forgotten that have no connection and will be forgiven
//! soonest, and when there are none, who comes is not counted, and no cap or rate holds for it.
//!
//! Of the rates of messages and recipients a connection takes a hundredth at a time and gives back what is left at its end.
//! So never more is taken than the rate, and what is in hand of others is missing meanwhile: a hundredth for each
//! connection of the same client or network.
//!
//! Time is an argument here.

use std::{
    cell::Cell,
    collections::{HashMap, hash_map},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// The table of one host; every shard holds a clone.
#[derive(Clone, Debug)]
pub struct Crowd(Arc<Table>);

#[derive(Debug)]
struct Table {
    hasher: RandomState,
    parts: Box<[Mutex<Part>]>,
    /// How many one part may hold.
    part_max: AtomicUsize,
    /// How many there are in all.
    tracked: AtomicUsize,
    /// Connections open on the host.
    open: AtomicU32,
    /// When the bucket of the host's connections will be full.
    host: AtomicU64,
}

#[derive(Debug, Default)]
struct Part {
    entries: HashMap<Key, Entry>,
    /// How many of them have no connection.
    idle: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Address(u128),
    Network(u128),
}

#[derive(Debug, Default)]
struct Entry {
    /// Connections.
    open: u32,
    /// When each bucket will be full, in nanoseconds.
    full_at: [u64; BUCKETS],
}

/// What there is a rate for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bucket {
    Connections,
    Messages,
    Recipients,
}

const BUCKETS: usize = 3;
/// Enough that two shards seldom want the same at the same moment.
const PARTS: usize = 64;
/// In which an empty bucket fills, in nanoseconds.
const MINUTE: u64 = 60_000_000_000;

/// How many bits of an address are its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefixes {
    pub(crate) v4: u8,
    pub(crate) v6: u8,
}

/// So many in a minute from one address, and from one network; `None`: any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) client: Option<u32>,
    pub(crate) network: Option<u32>,
}

/// Whose rate is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsedUp {
    Client,
    Network,
}

/// One connection's place in the counts, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Crowd,
    /// Those of the host and, for a stranger, of address and network, this one included.
    pub(crate) host: u32,
    pub(crate) client: u32,
    pub(crate) network: u32,
    /// Boxed: our own clients should not carry the room for it.
    stranger: Option<Box<Stranger>>,
}

/// What is kept of a connection that is counted.
#[derive(Debug)]
struct Stranger {
    keys: [Key; 2],
    /// Which of the keys are in the table.
    tracked: [bool; 2],
    /// What it has in hand of each rate, so that the table is not touched for each message.
    in_hand: [Cell<u32>; BUCKETS],
    /// The rates that it was taken out of.
    taken_at: Cell<[Rates; BUCKETS]>,
}

impl Crowd {
    /// An empty table for so many addresses and networks.
    pub fn new(tracked_max: u32) -> Self {
        let crowd = Self(Arc::new(Table {
            hasher: RandomState::new(),
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            part_max: AtomicUsize::new(0),
            tracked: AtomicUsize::new(0),
            open: AtomicU32::new(0),
            host: AtomicU64::new(0),
        }));
        crowd.set_tracked_max(tracked_max);
        crowd
    }

    /// Another bound from now on. What is there goes when it is not needed any more.
    pub fn set_tracked_max(&self, tracked_max: u32) {
        self.0.part_max.store((tracked_max as usize / PARTS).max(1), Relaxed);
    }

    /// How many addresses and networks are counted now.
    pub fn tracked(&self) -> usize {
        self.0.tracked.load(Relaxed)
    }

    /// A connection has come from this address; with `None`, from somebody who is not counted beyond that.
    pub(crate) fn enter(&self, stranger: Option<IpAddr>, prefixes: Prefixes, now: Duration) -> Place {
        let host = self.0.open.fetch_add(1, Relaxed) + 1;
        let Some(address) = stranger else {
            return Place { crowd: self.clone(), host, client: 0, network: 0, stranger: None };
        };
        let keys = keys(address, prefixes);
        let open = keys.map(|key| self.part(key).enter(key, &self.0, nanos(now)));
        let tracked = open.map(|open| open > 0);
        let (in_hand, taken_at) = Default::default();
        let stranger = Some(Box::new(Stranger { keys, tracked, in_hand, taken_at }));
        Place { crowd: self.clone(), host, client: open[0], network: open[1], stranger }
    }

    /// Takes a connection out of the rate of the host; `false` when it is used up.
    pub(crate) fn take_of_host(&self, rate: Option<u32>, now: Duration) -> bool {
        let Some(rate) = rate else { return true };
        let taken = |full_at: u64| taken(full_at, rate, 1, nanos(now));
        // Relaxed: the time guards nothing but itself.
        self.0.host.try_update(Relaxed, Relaxed, taken).is_ok()
    }

    /// Forgets whoever has no connection and all of its rates, in the next part. Called again and again it comes to each.
    pub(crate) fn sweep(&self, turn: usize, now: Duration) {
        let mut part = lock(&self.0.parts[turn % PARTS]);
        part.forget(&self.0, |entry| entry.is_idle() && entry.is_forgiven(nanos(now)));
        if part.entries.capacity() > 4 * part.entries.len().max(16) {
            part.entries.shrink_to_fit();
        }
    }

    fn part(&self, key: Key) -> MutexGuard<'_, Part> {
        lock(&self.0.parts[self.0.hasher.hash_one(key) as usize % PARTS])
    }
}

// Whoever panics with the lock leaves counts behind that are right or one off.
fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The address and its network. An IPv4 address in IPv6 form is the IPv4 address (RFC 4291 §2.5.5.2).
fn keys(address: IpAddr, prefixes: Prefixes) -> [Key; 2] {
    let (bits, host_bits) = match address.to_canonical() {
        IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), 32 - u32::from(prefixes.v4.min(32))),
        IpAddr::V6(address) => (address.to_bits(), 128 - u32::from(prefixes.v6.min(128))),
    };
    let network = u128::MAX.checked_shl(host_bits).unwrap_or(0) & bits;
    [Key::Address(bits), Key::Network(network)]
}

/// When the bucket will be full after so many tokens are taken; `None` when there are not as many in it.
fn taken(full_at: u64, rate: u32, tokens: u32, now: u64) -> Option<u64> {
    let after = full_at.max(now) + MINUTE / u64::from(rate.max(1)) * u64::from(tokens);
    (after - now <= MINUTE).then_some(after)
}

impl Part {
    /// One more connection; says how many there are, or 0 when there is no room to count.
    fn enter(&mut self, key: Key, table: &Table, now: u64) -> u32 {
        if self.entries.len() >= table.part_max.load(Relaxed)
            && !self.entries.contains_key(&key)
            && !self.make_room(table, now)
        {
            return 0;
        }
        let entry = match self.entries.entry(key) {
            hash_map::Entry::Occupied(entry) => {
                let entry = entry.into_mut();
                self.idle -= usize::from(entry.is_idle());
                entry
            }
            hash_map::Entry::Vacant(entry) => {
                table.tracked.fetch_add(1, Relaxed);
                entry.insert(Entry::default())
            }
        };
        entry.open += 1;
        entry.open
    }

    fn leave(&mut self, key: Key, table: &Table) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.open -= 1;
        if !entry.is_idle() {
            return;
        }
        if entry.full_at == [0; BUCKETS] {
            self.entries.remove(&key);
            table.tracked.fetch_sub(1, Relaxed);
        } else {
            self.idle += 1;
        }
    }

    /// Forgets whom it can for another to come in; says whether there is room.
    fn make_room(&mut self, table: &Table, now: u64) -> bool {
        let max = table.part_max.load(Relaxed);
        if self.idle == 0 {
            return false;
        }
        self.forget(table, |entry| entry.is_idle() && entry.is_forgiven(now));
        if self.entries.len() >= max && self.idle > 0 {
            // Half of those who can go, so that not everybody who comes has to look through all.
            let mut times: Vec<u64> =
                self.entries.values().filter(|entry| entry.is_idle()).map(Entry::forgiven_at).collect();
            let middle = times.len() / 2;
            let median = *times.select_nth_unstable(middle).1;
            self.forget(table, |entry| entry.is_idle() && entry.forgiven_at() <= median);
        }
        self.entries.len() < max
    }

    fn forget(&mut self, table: &Table, which: impl Fn(&Entry) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|_, entry| !which(entry));
        let gone = before - self.entries.len();
        self.idle -= gone;
        table.tracked.fetch_sub(gone, Relaxed);
    }
}

impl Rates {
    /// How many tokens one connection takes at a time: a hundredth of the lower rate.
    fn at_once(self) -> u32 {
        const MOST: u32 = 64;
        let lower = self.client.into_iter().chain(self.network).min().unwrap_or(0);
        (lower / 100).min(MOST)
    }
}

impl Entry {
    const fn is_idle(&self) -> bool {
        self.open == 0
    }

    fn is_forgiven(&self, now: u64) -> bool {
        self.forgiven_at() <= now
    }

    fn forgiven_at(&self) -> u64 {
        self.full_at.iter().copied().max().unwrap_or(0)
    }
}

impl Place {
    /// Whether caps, rates and waits are for it.
    pub(crate) const fn is_stranger(&self) -> bool {
        self.stranger.is_some()
    }

    /// Whether it is in the counts of its address and network, as far as it should be.
    pub(crate) fn is_tracked(&self) -> bool {
        self.stranger.as_ref().is_none_or(|stranger| stranger.tracked == [true; 2])
    }

    /// Takes so many tokens out of the buckets of address and network, or none out of either.
    ///
    /// # Errors
    /// In which there are not as many.
    pub(crate) fn take(
        &self,
        bucket: Bucket,
        rates: Rates,
        tokens: u32,
        now: Duration,
    ) -> Result<(), UsedUp> {
        let Some(&[client, network]) = self.stranger.as_ref().map(|stranger| &stranger.keys) else {
            return Ok(());
        };
        if !self.take_of(client, bucket, rates.client, tokens, now) {
            return Err(UsedUp::Client);
        }
        if !self.take_of(network, bucket, rates.network, tokens, now) {
            self.put_back(client, bucket, rates.client, tokens);
            return Err(UsedUp::Network);
        }
        Ok(())
    }

    /// Uses up a token, of those in hand or else of some more that are taken at once.
    ///
    /// # Errors
    /// In which bucket there is none.
    pub(crate) fn spend(&self, bucket: Bucket, rates: Rates, now: Duration) -> Result<(), UsedUp> {
        let Some(stranger) = &self.stranger else { return Ok(()) };
        if rates == Rates::default() {
            return Ok(());
        }
        let in_hand = &stranger.in_hand[bucket as usize];
        if in_hand.get() == 0 {
            let some = rates.at_once();
            if some > 1 && self.take(bucket, rates, some, now).is_ok() {
                in_hand.set(some);
                let mut taken_at = stranger.taken_at.get();
                taken_at[bucket as usize] = rates;
                stranger.taken_at.set(taken_at);
            } else {
                return self.take(bucket, rates, 1, now);
            }
        }
        in_hand.set(in_hand.get() - 1);
        Ok(())
    }

    fn take_of(&self, key: Key, bucket: Bucket, rate: Option<u32>, tokens: u32, now: Duration) -> bool {
        let Some(rate) = rate else { return true };
        let mut part = self.crowd.part(key);
        // Who is not counted has all it wants.
        let Some(entry) = part.entries.get_mut(&key) else { return true };
        let full_at = &mut entry.full_at[bucket as usize];
        let after = taken(*full_at, rate, tokens, nanos(now));
        *full_at = after.unwrap_or(*full_at);
        after.is_some()
    }

    fn put_back(&self, key: Key, bucket: Bucket, rate: Option<u32>, tokens: u32) {
        let Some(rate) = rate else { return };
        if let Some(entry) = self.crowd.part(key).entries.get_mut(&key) {
            let time = MINUTE / u64::from(rate.max(1)) * u64::from(tokens);
            let full_at = &mut entry.full_at[bucket as usize];
            *full_at = full_at.saturating_sub(time);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.0.open.fetch_sub(1, Relaxed);
        let Some(stranger) = &self.stranger else { return };
        let [client, network] = stranger.keys;
        for bucket in [Bucket::Messages, Bucket::Recipients] {
            let left = stranger.in_hand[bucket as usize].get();
            if left > 0 {
                let rates = stranger.taken_at.get()[bucket as usize];
                self.put_back(client, bucket, rates.client, left);
                self.put_back(network, bucket, rates.network, left);
            }
        }
        for (key, tracked) in stranger.keys.into_iter().zip(stranger.tracked) {
            if tracked {
                self.crowd.part(key).leave(key, &self.crowd.0);
            }
        }
    }
}

#[cfg(test)]
#[path = "crowd_test.rs"]
mod test;
