//! Leases: the connections that the host may have to a destination, dealt out to the shards that want them.
//!
//! A lease is one connection's place under the limit. A shard takes it when it opens the connection and gives it back when
//! that is closed: touched per connection, never per message. Any shard may have any number of them; together they have
//! never more than the limit. Who finds none stands in line, each shard once for each destination, and goes on with other
//! work: the lease comes as a [`Letter`] when somebody gives one back, to whoever has the fewest there, and of those to
//! whoever has waited longest.
//!
//! Nobody is taken anything from. Between two messages a worker looks at a flag of its own shard ([`Lease::is_pressed`]),
//! which is written only when somebody begins or ends to wait; when it is set, it asks whether to go
//! ([`Lease::should_go`]):
//!
//! - it has nothing to send: it goes, and a letter has told it so while it slept;
//! - it has had its turn: it goes when a shard that waits has none at all, or two less than its own;
//! - there are more leases than a reload allows: it goes.
//!
//! So a shard that wants one gets one within a turn and a message. While two servers are there, one of which takes over from the
//! other, each has half of the connections and half of the pace ([`Sharing`]). The table is in parts, each behind a lock that is held
//! for a look and no longer. A destination that nobody has a lease for, and that nobody waits for, is not in it.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
};

use tokio::sync::mpsc;

use crate::{paces::Paces, throttles::Throttles};

/// One shard's way to the leases of the host.
#[derive(Debug)]
pub struct Leases {
    table: Arc<Table>,
    shard: usize,
    /// Until the shard takes it.
    letters: Mutex<Option<mpsc::UnboundedReceiver<Letter>>>,
}

/// Which other server of the host sends as well: one of the two takes over from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Beside {
    /// None.
    Nobody = 0,
    /// It takes over from this one, which sends what its cores still have.
    Newer = 1,
    /// This one takes over from it.
    Older = 2,
}

/// How the server shares the limits of the host with another one.
#[derive(Clone, Debug)]
pub struct Sharing(Arc<Table>);

impl Sharing {
    /// From now on it is with this one. What is taken above its part comes back by and by.
    pub fn set(&self, beside: Beside) {
        self.0.share(beside);
    }
}

/// What a shard is told.
#[derive(Debug)]
pub(crate) enum Letter {
    /// What it stood in line for.
    Granted(Lease),
    /// Another shard wants a connection there, or there are too many: who has nothing to send goes.
    Wanted(Arc<str>),
}

/// One connection's place under the limit; dropped, it is somebody else's.
#[derive(Debug)]
pub(crate) struct Lease {
    table: Arc<Table>,
    key: Arc<str>,
    shard: usize,
    pressed: Arc<AtomicBool>,
    /// It was told to go, and will.
    leaving: bool,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Nothing.
    Idle,
    /// It sends, and has not had its turn yet.
    Busy,
    /// It sends, and has had its turn.
    Served,
}

#[derive(Debug)]
struct Table {
    hasher: RandomState,
    parts: Box<[Mutex<Part>]>,
    paces: Paces,
    throttles: Throttles,
    /// Who sends [`Beside`] it.
    beside: AtomicU8,
    /// To each shard. No longer than the destinations it has to do with: at one time there is one lease on its way to it
    /// for each that it stands in line for, and one word that others wait.
    mail: Box<[mpsc::UnboundedSender<Letter>]>,
}

type Part = HashMap<Arc<str>, Hop>;

/// One destination.
#[derive(Debug, Default)]
struct Hop {
    /// Of the host.
    of_host: u32,
    /// Of this server.
    max: u32,
    taken: u32,
    /// Told to go.
    leaving: u32,
    seats: Vec<Seat>,
    /// Shards in line, the one that came first in front.
    line: VecDeque<usize>,
}

/// What a shard has of a destination.
#[derive(Debug)]
struct Seat {
    shard: usize,
    taken: u32,
    leaving: u32,
    /// Whether a letter that somebody would like one is on its way.
    called: bool,
    /// Whether somebody else would like a lease, or there are too many.
    pressed: Arc<AtomicBool>,
}

/// Parts of the table: so many shards open connections at the same moment without waiting for each other.
const PARTS: usize = 64;

impl Leases {
    /// One for each shard of a host.
    pub fn of_host(shards: usize) -> Vec<Self> {
        let (mail, letters): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::unbounded_channel()).unzip();
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        let table = Arc::new(Table {
            hasher: RandomState::new(),
            parts,
            paces: Paces::default(),
            throttles: Throttles::default(),
            beside: AtomicU8::new(Beside::Nobody as u8),
            mail: mail.into(),
        });
        let of_shard =
            |(shard, letters)| Self { table: table.clone(), shard, letters: Mutex::new(Some(letters)) };
        letters.into_iter().enumerate().map(of_shard).collect()
    }

    /// How all shards share with another server.
    pub fn sharing(&self) -> Sharing {
        Sharing(self.table.clone())
    }

    /// What the shard is told. Once.
    pub(crate) fn letters(&self) -> mpsc::UnboundedReceiver<Letter> {
        let letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner).take();
        letters.expect("a shard begins once")
    }

    /// Takes a lease for a destination, of which the host may have `max`. When there is none, the shard stands in line
    /// from here on.
    pub(crate) fn take(&self, key: &Arc<str>, max: u32) -> Option<Lease> {
        let mut posted = Vec::new();
        let lease = {
            let mut part = self.table.part(key);
            let hop = part.entry(key.clone()).or_default();
            self.table.limit(hop, max);
            self.table.deal(key, hop, &mut posted);
            let lease = (hop.taken < hop.max).then(|| self.table.lease(key, hop, self.shard));
            if lease.is_none() && !hop.line.contains(&self.shard) {
                hop.line.push_back(self.shard);
            }
            hop.press(key, &mut posted);
            lease
        };
        self.table.post(posted);
        lease
    }

    /// How much sites take.
    pub(crate) fn throttles(&self) -> &Throttles {
        &self.table.throttles
    }

    /// How fast the host may go.
    pub(crate) fn paces(&self) -> &Paces {
        &self.table.paces
    }

    /// The shard has read that somebody would like a lease.
    pub(crate) fn on_called(&self, key: &str) {
        if let Some(hop) = self.table.part(key).get_mut(key) {
            // Who has given back all it had is not there any more.
            let seat = hop.seats.iter_mut().find(|seat| seat.shard == self.shard);
            seat.into_iter().for_each(|seat| seat.called = false);
        }
    }

    /// The limit is another one from now on. What is taken above it comes back by and by.
    pub(crate) fn set_max(&self, key: &Arc<str>, max: u32) {
        let mut posted = Vec::new();
        if let Some(hop) = self.table.part(key).get_mut(key) {
            self.table.limit(hop, max);
            self.table.deal(key, hop, &mut posted);
            hop.press(key, &mut posted);
        }
        self.table.post(posted);
    }

    /// Destinations in the table.
    #[cfg(test)]
    fn destinations(&self) -> usize {
        self.table.parts.iter().map(|part| part.lock().unwrap().len()).sum()
    }
}

impl Lease {
    /// Of which destination.
    pub(crate) fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Whether it was told to go.
    pub(crate) const fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Whether there is reason to ask [`Lease::should_go`].
    pub(crate) fn is_pressed(&self) -> bool {
        // Relaxed: it guards nothing, and who sees it late goes a message later.
        self.pressed.load(Relaxed)
    }

    /// Whether the connection is to be closed, so that another shard may have its place. Who is told so goes.
    pub(crate) fn should_go(&mut self, what: Use) -> bool {
        if self.is_leaving() {
            return true;
        }
        let mut part = self.table.part(&self.key);
        let hop = part.get_mut(&self.key).expect("who has a lease is in the table");
        // Who is on the way out has made room for as many.
        let is_wanted = hop.others_in_line(self.shard).count() > hop.leaving as usize;
        let goes = hop.is_too_much() || is_wanted && self.is_next_to_go(hop, what);
        if goes {
            self.leaving = true;
            hop.leaving += 1;
            hop.seat(self.shard).leaving += 1;
        }
        goes
    }

    /// Whether another shard should rather have this one.
    fn is_next_to_go(&self, hop: &Hop, what: Use) -> bool {
        match what {
            Use::Idle => true,
            Use::Busy => false,
            Use::Served => {
                let least = hop.others_in_line(self.shard).map(|shard| hop.taken_by(shard)).min();
                let ours = hop.seats.iter().find(|seat| seat.shard == self.shard);
                let ours = ours.map_or(0, |seat| seat.taken - seat.leaving);
                least.is_some_and(|least| least == 0 || ours >= least.saturating_add(2))
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut posted = Vec::new();
        {
            let mut part = self.table.part(&self.key);
            let hop = part.get_mut(&self.key).expect("who has a lease is in the table");
            hop.taken -= 1;
            let seat = hop.seat(self.shard);
            seat.taken -= 1;
            if self.leaving {
                seat.leaving -= 1;
                hop.leaving -= 1;
            }
            hop.seats.retain(|seat| seat.taken > 0);
            self.table.deal(&self.key, hop, &mut posted);
            hop.press(&self.key, &mut posted);
            if hop.taken == 0 && hop.line.is_empty() {
                part.remove(&self.key);
            }
        }
        self.table.post(posted);
    }
}

impl Beside {
    const fn of(number: u8) -> Self {
        match number {
            1 => Self::Newer,
            2 => Self::Older,
            _ => Self::Nobody,
        }
    }

    /// What is left of so many connections. Both have one where there is one: nobody stands still for as long as an upgrade takes.
    fn leaves_of(self, connections: u32) -> u32 {
        let of_older = connections / 2;
        match self {
            Self::Nobody => connections,
            Self::Newer => of_older.max(connections.min(1)),
            Self::Older => connections - of_older,
        }
    }
}

impl Table {
    /// Somebody else sends beside it than before.
    fn share(self: &Arc<Self>, beside: Beside) {
        if self.beside.swap(beside as u8, Relaxed) == beside as u8 {
            return;
        }
        self.paces.share(if beside == Beside::Nobody { 1 } else { 2 });
        for part in &self.parts {
            let mut posted = Vec::new();
            for (key, hop) in part.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
                self.limit(hop, hop.of_host);
                self.deal(key, hop, &mut posted);
                hop.press(key, &mut posted);
            }
            self.post(posted);
        }
    }

    /// The host may have so many connections there.
    fn limit(&self, hop: &mut Hop, of_host: u32) {
        let beside = Beside::of(self.beside.load(Relaxed));
        (hop.of_host, hop.max) = (of_host, beside.leaves_of(of_host));
    }

    fn part(&self, key: &str) -> MutexGuard<'_, Part> {
        let part = self.hasher.hash_one(key) as usize % PARTS;
        // Whoever panicked did so outside: nothing here is left half done.
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(self: &Arc<Self>, key: &Arc<str>, hop: &mut Hop, shard: usize) -> Lease {
        hop.taken += 1;
        let seat = hop.seat(shard);
        seat.taken += 1;
        let pressed = seat.pressed.clone();
        Lease { table: self.clone(), key: key.clone(), shard, pressed, leaving: false }
    }

    /// Gives what is free to those who stand in line.
    fn deal(self: &Arc<Self>, key: &Arc<str>, hop: &mut Hop, posted: &mut Vec<(usize, Letter)>) {
        while hop.taken < hop.max {
            let next = (0..hop.line.len()).min_by_key(|place| hop.taken_by(hop.line[*place]));
            let Some(shard) = next.and_then(|place| hop.line.remove(place)) else { return };
            posted.push((shard, Letter::Granted(self.lease(key, hop, shard))));
        }
    }

    /// Outside the lock: a lease for a shard that has ended comes back at once.
    fn post(&self, letters: Vec<(usize, Letter)>) {
        for (shard, letter) in letters {
            drop(self.mail[shard].send(letter));
        }
    }
}

impl Hop {
    fn seat(&mut self, shard: usize) -> &mut Seat {
        let place = match self.seats.iter().position(|seat| seat.shard == shard) {
            Some(place) => place,
            None => {
                self.seats.push(Seat { shard, taken: 0, leaving: 0, called: false, pressed: Arc::default() });
                self.seats.len() - 1
            }
        };
        &mut self.seats[place]
    }

    fn taken_by(&self, shard: usize) -> u32 {
        self.seats.iter().find(|seat| seat.shard == shard).map_or(0, |seat| seat.taken)
    }

    fn others_in_line(&self, of: usize) -> impl Iterator<Item = usize> {
        self.line.iter().copied().filter(move |shard| *shard != of)
    }

    fn is_too_much(&self) -> bool {
        self.taken - self.leaving > self.max
    }

    /// Sets the flags as they have to be, and wakes the shards of which somebody may have to go.
    fn press(&mut self, key: &Arc<str>, posted: &mut Vec<(usize, Letter)>) {
        for place in 0..self.seats.len() {
            let Seat { shard, taken, leaving, called, .. } = self.seats[place];
            let others = self.others_in_line(shard).count();
            let (is_pressed, goes) = (
                self.taken > self.max || others > 0,
                taken > leaving && (self.is_too_much() || others > self.leaving as usize),
            );
            let seat = &mut self.seats[place];
            if seat.pressed.load(Relaxed) != is_pressed {
                seat.pressed.store(is_pressed, Relaxed);
            }
            if goes && !called {
                seat.called = true;
                posted.push((shard, Letter::Wanted(key.clone())));
            }
        }
    }
}

#[cfg(test)]
#[path = "leases_test.rs"]
mod test;
