//! Destinations: interned names, and what holds for all mail that goes to one.
//!
//! ```text
//!  Open --on_destination_failed--> Blocked --time--> Probing --the probe got an answer--> Open
//!                                     ^                 |
//!                                     +-----------------+  on_destination_failed
//! ```

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hasher as _},
};

use hashbrown::HashTable;

use crate::{
    Counts, Outcome, Priority, State,
    group::{Group, Vacant},
    slab::{Entry, Links, NIL, Slab},
    wheel::Timed,
};

/// The number of a destination in this partition.
///
/// Good while a recipient is queued for it, and from [`crate::Queue::intern`] to the next
/// [`crate::Queue::on_tick`]; then an unused number may come to name another destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination(pub(crate) u32);

/// How many classes of messages there are.
pub(crate) const PRIORITIES: usize = 3;

/// What holds for all mail to one destination.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) name: Box<str>,
    /// Ready groups of each class, in the order in which they became ready.
    ready: [Fifo; PRIORITIES],
    /// Ready groups from before a restart, the oldest first, as long as older ones may come: it is not their turn yet.
    aside: [Fifo; PRIORITIES],
    /// Recipients by [`State`].
    pub(crate) counts: [u32; 4],
    /// Attempts under way.
    pub(crate) attempts: u32,
    pub(crate) attempts_max: u32,
    pub(crate) phase: Phase,
    /// How often in a row it could not be reached.
    pub(crate) failures: u16,
    /// Whether it waits for its turn in the ring of each class.
    in_ring: [bool; PRIORITIES],
    /// When its last recipient ended.
    pub(crate) idle_since: u32,
    /// When it is probed, or forgotten if unused. In a free place, the next one.
    pub(crate) due: u32,
    pub(crate) links: Links,
    vacant: Vacant,
}

/// Whether a destination may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// As often as its limit allows.
    Open,
    /// Not before this tick.
    Blocked(u32),
    /// Once: the next attempt tells.
    Probing,
}

#[derive(Clone, Copy, Debug)]
struct Fifo {
    head: u32,
    tail: u32,
}

/// All destinations.
#[derive(Debug)]
pub(crate) struct Sites {
    pub(crate) slab: Slab<Site>,
    names: HashTable<u32>,
    /// Octets of all names.
    names_len: usize,
    seed: u64,
    /// Destinations that may have a group to try, each once, for each class.
    rings: [VecDeque<u32>; PRIORITIES],
    /// How many of a higher class went out since one of a lower, at each border between two classes.
    served: [u32; PRIORITIES - 1],
}

/// How many of a higher class go out for one of a lower, when both wait.
const SERVED_MAX: u32 = 4;
const FIFO: Fifo = Fifo { head: NIL, tail: NIL };

impl Site {
    fn new(name: Box<str>, attempts_max: u32, now: u32) -> Self {
        Self { name, attempts_max, idle_since: now, vacant: Vacant::No, ..Self::vacant(0) }
    }

    /// Whether one more attempt may begin.
    pub(crate) fn may_begin(&self) -> bool {
        let attempts_max = match self.phase {
            Phase::Open => self.attempts_max,
            Phase::Blocked(_) => 0,
            Phase::Probing => self.attempts_max.min(1),
        };
        self.attempts < attempts_max
    }

    /// An attempt has ended, with these outcomes.
    pub(crate) fn on_attempted(&mut self, outcomes: &[(u32, Outcome)]) {
        let answered = outcomes.iter().any(|(_, outcome)| match outcome {
            Outcome::Delivered | Outcome::Untold | Outcome::Failed => true,
            Outcome::Deferred(_) => false,
        });
        // A probe that was not followed by a failure of the destination has got an answer.
        if answered || self.phase == Phase::Probing {
            self.phase = Phase::Open;
            self.failures = 0;
        }
    }

    /// Whether no recipient is queued for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.counts == [0; 4]
    }

    /// Whether nothing refers to it.
    pub(crate) fn is_unused(&self) -> bool {
        self.is_idle() && self.in_ring == [false; PRIORITIES]
    }

    pub(crate) fn counts(&self) -> Counts {
        let [ready, running, deferred, held] = self.counts.map(u64::from);
        Counts { ready, running, deferred, held }
    }

    pub(crate) const fn count_mut(&mut self, state: State) -> &mut u32 {
        &mut self.counts[state as usize]
    }
}

impl Sites {
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            slab: Slab::new(),
            names: HashTable::new(),
            names_len: 0,
            seed,
            rings: [const { VecDeque::new() }; PRIORITIES],
            served: [0; PRIORITIES - 1],
        }
    }

    /// The number of a name, and whether it is new.
    pub(crate) fn intern(&mut self, name: &str, attempts_max: u32, now: u32) -> u32 {
        let (seed, slab) = (self.seed, &mut self.slab);
        let hash = hash(seed, name);
        if let Some(site) = self.names.find(hash, |site| &*slab[*site].name == name) {
            return *site;
        }
        let site = slab.insert(Site::new(name.into(), attempts_max, now));
        self.names_len += name.len();
        self.names.insert_unique(hash, site, |site| self::hash(seed, &slab[*site].name));
        site
    }

    /// Forgets a destination that is unused.
    pub(crate) fn release(&mut self, site: u32) {
        let name = self.slab.remove(site).name;
        self.names_len -= name.len();
        let entry = self.names.find_entry(hash(self.seed, &name), |other| *other == site);
        entry.expect("an interned name is in the table").remove();
    }

    /// Octets of memory.
    pub(crate) fn memory(&self) -> usize {
        let rings: usize = self.rings.iter().map(VecDeque::capacity).sum();
        let rings = rings * size_of::<u32>();
        self.slab.memory() + self.names.allocation_size() + self.names_len + rings
    }

    /// Puts a group at the end of its destination's list.
    pub(crate) fn push(&mut self, groups: &mut Slab<Group>, priority: Priority, group: u32) {
        let site = groups[group].destination;
        let fifo = &mut self.slab[site].ready[priority as usize];
        let before = std::mem::replace(&mut fifo.tail, group);
        groups[group].links = Links { before, after: NIL };
        if before == NIL {
            fifo.head = group;
        } else {
            groups[before].links.after = group;
        }
        self.enlist(site);
    }

    /// Puts a group at the head of its destination's list: it was there before.
    pub(crate) fn push_front(&mut self, groups: &mut Slab<Group>, priority: Priority, group: u32) {
        let site = groups[group].destination;
        self.slab[site].ready[priority as usize].push_front(groups, group);
        self.enlist(site);
    }

    /// Keeps a group back, before all that are kept back of its destination, until [`Sites::end_aside`].
    pub(crate) fn push_aside(&mut self, groups: &mut Slab<Group>, priority: Priority, group: u32) {
        let site = groups[group].destination;
        self.slab[site].aside[priority as usize].push_front(groups, group);
    }

    /// Whoever was kept back has its turn, before those that came meanwhile.
    pub(crate) fn end_aside(&mut self, groups: &mut Slab<Group>) {
        for index in 0..self.slab.end() {
            if self.slab.get(index).is_none() {
                continue;
            }
            let site = &mut self.slab[index];
            for (ready, aside) in site.ready.iter_mut().zip(&mut site.aside) {
                ready.put_before(groups, std::mem::replace(aside, FIFO));
            }
            self.enlist(index);
        }
    }

    /// Takes a group out of the list that it is in.
    pub(crate) fn unlink(&mut self, groups: &mut Slab<Group>, priority: Priority, group: u32) {
        let site = &mut self.slab[groups[group].destination];
        let Links { before, after } = std::mem::replace(&mut groups[group].links, Links::NONE);
        for fifo in [&mut site.ready[priority as usize], &mut site.aside[priority as usize]] {
            if fifo.head == group {
                fifo.head = after;
            }
            if fifo.tail == group {
                fifo.tail = before;
            }
        }
        if before != NIL {
            groups[before].links.after = after;
        }
        if after != NIL {
            groups[after].links.before = before;
        }
    }

    /// Gives a destination its turn, if it may begin an attempt and has a group to try.
    pub(crate) fn enlist(&mut self, index: u32) {
        let site = &mut self.slab[index];
        if !site.may_begin() {
            return;
        }
        for (priority, ring) in self.rings.iter_mut().enumerate() {
            if site.ready[priority].head != NIL && !site.in_ring[priority] {
                site.in_ring[priority] = true;
                ring.push_back(index);
            }
        }
    }

    /// Whether [`Sites::next`] may find a group.
    pub(crate) fn is_waiting(&self) -> bool {
        self.rings.iter().any(|ring| !ring.is_empty())
    }

    /// The group whose turn it is; it stays in its list.
    ///
    /// Destinations take turns, so none waits longer for the others' crowds. Of two classes the
    /// higher goes first, but for one time in five. Weights per tenant would come in here.
    pub(crate) fn next(&mut self) -> Option<u32> {
        loop {
            let priority = self.class()?;
            let index = self.rings[priority].pop_front()?;
            let site = &mut self.slab[index];
            site.in_ring[priority] = false;
            let group = site.ready[priority].head;
            if group == NIL || !site.may_begin() {
                continue; // Circumstances have changed since it was enlisted.
            }
            for (border, served) in self.served.iter_mut().enumerate() {
                *served = if priority > border { 0 } else { (*served + 1).min(SERVED_MAX) };
            }
            return Some(group);
        }
    }

    /// The class whose turn it is, of those that have somebody waiting: the highest, unless it has gone before a
    /// lower one often enough.
    fn class(&self) -> Option<usize> {
        let waits = |class: &usize| !self.rings[*class].is_empty();
        let mut class = (0..PRIORITIES).find(waits)?;
        while self.served.get(class).is_some_and(|served| *served >= SERVED_MAX) {
            let Some(lower) = (class + 1..PRIORITIES).find(waits) else { break };
            class = lower;
        }
        Some(class)
    }
}

impl Fifo {
    fn push_front(&mut self, groups: &mut Slab<Group>, group: u32) {
        let after = std::mem::replace(&mut self.head, group);
        groups[group].links = Links { before: NIL, after };
        if after == NIL {
            self.tail = group;
        } else {
            groups[after].links.before = group;
        }
    }

    /// Puts all of another list before this one.
    fn put_before(&mut self, groups: &mut Slab<Group>, other: Self) {
        if other.head == NIL {
            return;
        }
        let after = std::mem::replace(&mut self.head, other.head);
        groups[other.tail].links.after = after;
        if after == NIL {
            self.tail = other.tail;
        } else {
            groups[after].links.before = other.tail;
        }
    }
}

#[cfg(test)]
impl Sites {
    /// How many groups are in the lists; and every site that may begin an attempt waits for its turn.
    pub(crate) fn check(&self, groups: &Slab<Group>) -> usize {
        let mut listed = 0;
        for site in (0..self.slab.end()).filter_map(|index| self.slab.get(index)) {
            for (priority, fifo) in site.ready.iter().chain(&site.aside).enumerate() {
                let (mut before, mut next) = (NIL, fifo.head);
                while next != NIL {
                    assert_eq!((groups[next].state, groups[next].links.before), (State::Ready, before));
                    (before, next) = (next, groups[next].links.after);
                    listed += 1;
                }
                assert_eq!(fifo.tail, before);
                let has_turn = priority >= PRIORITIES || site.in_ring[priority];
                assert!(fifo.head == NIL || !site.may_begin() || has_turn, "nobody's turn");
            }
        }
        listed
    }
}

impl Entry for Site {
    fn vacant(next: u32) -> Self {
        Self {
            name: Box::default(),
            ready: [FIFO; PRIORITIES],
            aside: [FIFO; PRIORITIES],
            counts: [0; 4],
            attempts: 0,
            attempts_max: 0,
            phase: Phase::Open,
            failures: 0,
            in_ring: [false; PRIORITIES],
            idle_since: 0,
            due: next,
            links: Links::NONE,
            vacant: Vacant::Yes,
        }
    }

    fn as_vacant(&self) -> Option<u32> {
        (self.vacant == Vacant::Yes).then_some(self.due)
    }
}

impl Timed for Site {
    fn due(&self) -> u32 {
        self.due
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// Keyed by the seed: the names are chosen by strangers.
fn hash(seed: u64, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seed);
    hasher.write(name.as_bytes());
    hasher.finish()
}
