//! Destinations: interned names, what waits for each, and the sites that they belong to.
//!
//! A destination is where mail of one tenant goes: `mx:example.org`, `hop:192.0.2.1:25`; where it leaves by several of our
//! addresses, each [`Lot`] has one. A **site** is the hosts behind it,
//! which it may share with thousands of others; limits hold for the site. Some destinations are a site of their own, others
//! have to be located ([`crate::Order::Locate`]), and again after a while.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hasher as _},
};

use hashbrown::HashTable;

use crate::{
    Counts, Priority, State,
    clock::NEVER,
    group::{Group, Vacant},
    site::SiteRecord,
    slab::{Entry, Links, NIL, Slab},
    turns::Turns,
    wheel::Timed,
};

/// The number of a destination in this partition.
///
/// Good while a recipient is queued for it, and from [`crate::Queue::intern`] to the next
/// [`crate::Queue::on_tick`]; then an unused number may come to name another destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination(pub(crate) u32);

/// Whose mail it is: those who share the queue have turns by their weights ([`crate::Queue::set_weights`]). The shard
/// gives out the numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(pub u32);

/// A part of the mail with the same destination, which may go to another site than the rest, or be treated otherwise: by which of
/// our addresses it leaves, for which campaign. The shard gives out the numbers; one and the same recipient is to keep its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lot(pub u32);

/// How a destination comes to its site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// It is a site of its own.
    Own,
    /// It is asked for: [`crate::Order::Locate`].
    Asked,
}

/// How many classes of messages there are.
pub(crate) const PRIORITIES: usize = 3;

/// What waits for one destination.
#[derive(Clone, Debug)]
pub(crate) struct DestinationRecord {
    pub(crate) name: Box<str>,
    pub(crate) tenant: Tenant,
    pub(crate) lot: Lot,
    /// None until it is located for the first time.
    pub(crate) site: u32,
    /// From when on it has to be located again, if it is to be tried.
    pub(crate) located_until: u32,
    /// Whether it is being located: it is not tried meanwhile.
    pub(crate) is_sought: bool,
    /// Ready groups of each class, in the order in which they became ready.
    ready: [Fifo; PRIORITIES],
    /// Ready groups from before a restart, the oldest first, as long as older ones may come: it is not their turn yet.
    aside: [Fifo; PRIORITIES],
    /// Recipients by [`State`].
    pub(crate) counts: [u32; 4],
    /// Attempts under way.
    pub(crate) attempts: u32,
    /// Whether it waits for its turn at its site, in each class.
    in_ring: [bool; PRIORITIES],
    /// When its last recipient ended.
    pub(crate) idle_since: u32,
    /// When it is forgotten if unused. In a free place, the next one.
    pub(crate) due: u32,
    pub(crate) links: Links,
    vacant: Vacant,
}

#[derive(Clone, Copy, Debug)]
struct Fifo {
    head: u32,
    tail: u32,
}

/// All destinations and sites.
#[derive(Debug)]
pub(crate) struct Destinations {
    pub(crate) slab: Slab<DestinationRecord>,
    pub(crate) sites: Slab<SiteRecord>,
    names: HashTable<u32>,
    site_names: HashTable<u32>,
    /// Octets of all names.
    names_len: usize,
    seed: u64,
    /// Sites that may have a group to try, for each class.
    turns: [Turns; PRIORITIES],
    /// How many of a higher class went out since one of a lower, at each border between two classes.
    served: [u32; PRIORITIES - 1],
    /// Of tenants whose weight is not 1.
    pub(crate) weights: HashMap<Tenant, u32>,
    /// Whose destinations there are, of which lots, and how many.
    pub(crate) owners: HashMap<(Tenant, Lot), u32>,
    /// Destinations that are to be located.
    pub(crate) sought: Vec<u32>,
}

/// How many of a higher class go out for one of a lower, when both wait.
const SERVED_MAX: u32 = 4;
/// Sites belong to nobody.
const NOBODY: (Tenant, Lot) = (Tenant(0), Lot(0));
const FIFO: Fifo = Fifo { head: NIL, tail: NIL };

impl DestinationRecord {
    fn new(name: Box<str>, (tenant, lot): (Tenant, Lot), site: u32, now: u32) -> Self {
        let located_until = if site == NIL { 0 } else { NEVER };
        let used = Self { name, tenant, lot, site, located_until, idle_since: now, ..Self::vacant(0) };
        Self { vacant: Vacant::No, ..used }
    }

    /// Whose it is.
    pub(crate) const fn owner(&self) -> (Tenant, Lot) {
        (self.tenant, self.lot)
    }

    /// Whether no recipient is queued for it.
    pub(crate) fn is_idle(&self) -> bool {
        self.counts == [0; 4]
    }

    /// Whether nothing refers to it: but its site may, where it has waited, and looks whether it is there any more.
    pub(crate) fn is_unused(&self) -> bool {
        self.is_idle() && !self.is_sought
    }

    pub(crate) fn counts(&self) -> Counts {
        let [ready, running, deferred, held] = self.counts.map(u64::from);
        Counts { ready, running, deferred, held }
    }

    pub(crate) const fn count_mut(&mut self, state: State) -> &mut u32 {
        &mut self.counts[state as usize]
    }

    fn has_ready(&self) -> bool {
        self.ready.iter().any(|fifo| fifo.head != NIL)
    }
}

impl Destinations {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            slab: Slab::new(),
            sites: Slab::new(),
            names: HashTable::new(),
            site_names: HashTable::new(),
            names_len: 0,
            seed,
            turns: Default::default(),
            served: [0; PRIORITIES - 1],
            weights: HashMap::new(),
            owners: HashMap::new(),
            sought: Vec::new(),
        }
    }

    /// The number of a destination of a tenant's lot.
    pub(crate) fn intern(
        &mut self,
        name: &str,
        owner: (Tenant, Lot),
        whereabouts: Whereabouts,
        attempts_max: u32,
        now: u32,
    ) -> u32 {
        if let Some(index) = self.find(owner, name) {
            return index;
        }
        let (seed, hash) = (self.seed, hash(self.seed, name, owner));
        let site = match whereabouts {
            Whereabouts::Own => self.join(name, attempts_max),
            Whereabouts::Asked => NIL,
        };
        let index = self.slab.insert(DestinationRecord::new(name.into(), owner, site, now));
        self.names_len += name.len();
        *self.owners.entry(owner).or_default() += 1;
        let slab = &self.slab;
        let hash_of = |index: &u32| self::hash(seed, &slab[*index].name, slab[*index].owner());
        self.names.insert_unique(hash, index, hash_of);
        index
    }

    /// The destination of that name of a tenant's lot.
    pub(crate) fn find(&self, owner: (Tenant, Lot), name: &str) -> Option<u32> {
        let slab = &self.slab;
        let is_it = |index: &u32| slab[*index].owner() == owner && &*slab[*index].name == name;
        self.names.find(hash(self.seed, name, owner), is_it).copied()
    }

    /// The site of that name, which has a destination more from here on.
    fn join(&mut self, name: &str, attempts_max: u32) -> u32 {
        let index = match self.site(name) {
            Some(index) => index,
            None => {
                let (seed, hash) = (self.seed, hash(self.seed, name, NOBODY));
                let index = self.sites.insert(SiteRecord::new(name.into(), attempts_max));
                self.names_len += name.len();
                let sites = &self.sites;
                let hash_of = |index: &u32| self::hash(seed, &sites[*index].name, NOBODY);
                self.site_names.insert_unique(hash, index, hash_of);
                index
            }
        };
        self.sites[index].members += 1;
        index
    }

    /// The site of that name.
    pub(crate) fn site(&self, name: &str) -> Option<u32> {
        let hash = hash(self.seed, name, NOBODY);
        self.site_names.find(hash, |index| &*self.sites[*index].name == name).copied()
    }

    /// A destination belongs to the site of that name, for so long.
    pub(crate) fn locate(&mut self, index: u32, name: &str, attempts_max: u32, until: u32) {
        let site = self.join(name, attempts_max);
        let destination = &mut self.slab[index];
        destination.is_sought = false;
        destination.located_until = until;
        let before = std::mem::replace(&mut destination.site, site);
        if before != site {
            // Where it waited there, nobody finds it any more.
            destination.in_ring = [false; PRIORITIES];
            let attempts = destination.attempts;
            self.sites[site].attempts += attempts;
            if before != NIL {
                self.sites[before].attempts -= attempts;
            }
        }
        if before != NIL {
            self.leave(before);
            self.nominate(before);
        }
        self.enlist(index);
    }

    /// A site has one destination less. Who has none is forgotten, but while it is to be left alone.
    fn leave(&mut self, index: u32) {
        let site = &mut self.sites[index];
        site.members -= 1;
        self.release_site(index);
    }

    /// Forgets a site that is unused.
    pub(crate) fn release_site(&mut self, index: u32) {
        let site = &self.sites[index];
        if site.members > 0 || site.links != Links::NONE || site.nominated.iter().any(Option::is_some) {
            return;
        }
        let name = self.sites.remove(index).name;
        self.names_len -= name.len();
        let entry = self.site_names.find_entry(hash(self.seed, &name, NOBODY), |other| *other == index);
        entry.expect("an interned name is in the table").remove();
    }

    /// Forgets a destination that is unused.
    pub(crate) fn release(&mut self, index: u32) {
        let record = self.slab.remove(index);
        let owner = record.owner();
        let DestinationRecord { name, site, .. } = record;
        self.names_len -= name.len();
        let entry = self.names.find_entry(hash(self.seed, &name, owner), |other| *other == index);
        entry.expect("an interned name is in the table").remove();
        if let Some(count) = self.owners.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(&owner);
            }
        }
        if site != NIL {
            self.leave(site);
        }
    }

    /// Octets of memory.
    pub(crate) fn memory(&self) -> usize {
        let turns: usize = self.turns.iter().map(Turns::memory).sum();
        let tables = self.names.allocation_size() + self.site_names.allocation_size();
        self.slab.memory() + self.sites.memory() + tables + self.names_len + turns
    }

    /// Puts a group at the end of its destination's list.
    pub(crate) fn push(&mut self, groups: &mut Slab<Group>, priority: Priority, group: u32) {
        let index = groups[group].destination;
        let fifo = &mut self.slab[index].ready[priority as usize];
        let before = std::mem::replace(&mut fifo.tail, group);
        groups[group].links = Links { before, after: NIL };
        if before == NIL {
            fifo.head = group;
        } else {
            groups[before].links.after = group;
        }
        self.enlist(index);
    }

    /// Puts a group at the head of its destination's list: it was there before.
    pub(crate) fn push_front(&mut self, groups: &mut Slab<Group>, priority: Priority, group: u32) {
        let index = groups[group].destination;
        self.slab[index].ready[priority as usize].push_front(groups, group);
        self.enlist(index);
    }

    /// Keeps a group back, before all that are kept back of its destination, until [`Destinations::end_aside`].
    pub(crate) fn push_aside(&mut self, groups: &mut Slab<Group>, priority: Priority, group: u32) {
        let index = groups[group].destination;
        self.slab[index].aside[priority as usize].push_front(groups, group);
    }

    /// Whoever was kept back has its turn, before those that came meanwhile.
    pub(crate) fn end_aside(&mut self, groups: &mut Slab<Group>) {
        for index in 0..self.slab.end() {
            if self.slab.get(index).is_none() {
                continue;
            }
            let destination = &mut self.slab[index];
            for (ready, aside) in destination.ready.iter_mut().zip(&mut destination.aside) {
                ready.put_before(groups, std::mem::replace(aside, FIFO));
            }
            self.enlist(index);
        }
    }

    /// Takes a group out of the list that it is in.
    pub(crate) fn unlink(&mut self, groups: &mut Slab<Group>, priority: Priority, group: u32) {
        let destination = &mut self.slab[groups[group].destination];
        let Links { before, after } = std::mem::replace(&mut groups[group].links, Links::NONE);
        let class = priority as usize;
        for fifo in [&mut destination.ready[class], &mut destination.aside[class]] {
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

    /// Gives a destination its turn at its site, if it has a group to try.
    pub(crate) fn enlist(&mut self, index: u32) {
        let destination = &mut self.slab[index];
        let (site, tenant) = (destination.site, destination.tenant);
        if destination.is_sought || site == NIL {
            if !destination.is_sought && destination.has_ready() {
                destination.is_sought = true;
                self.sought.push(index);
            }
            return;
        }
        for (class, in_ring) in destination.in_ring.iter_mut().enumerate() {
            if destination.ready[class].head != NIL && !*in_ring {
                *in_ring = true;
                self.sites[site].waiting[class].push(tenant, index);
            }
        }
        self.nominate(site);
    }

    /// Gives a site its turn among all, if it may begin an attempt and has a destination waiting.
    pub(crate) fn nominate(&mut self, index: u32) {
        let Some(site) = self.sites.get(index) else { return };
        if !site.may_begin() {
            return;
        }
        let site = &mut self.sites[index];
        for ((waiting, nominated), turns) in
            site.waiting.iter_mut().zip(&mut site.nominated).zip(&mut self.turns)
        {
            // Another tenant may have come since, whose turn it is before.
            if let Some(head) = waiting.head().filter(|head| *nominated != Some(*head)) {
                *nominated = Some(head);
                turns.push(head, index);
            }
        }
    }

    /// Whether [`Destinations::next`] may find a group of one of the highest classes.
    pub(crate) fn is_waiting(&self, classes: usize) -> bool {
        self.turns.iter().take(classes).any(|turns| !turns.is_empty())
    }

    /// The group whose turn it is, of so many classes, the highest; it stays in its list.
    ///
    /// Of two classes the higher goes first, but for one time in five. Within a class tenants take turns by their
    /// weights, among all sites and at each; a tenant's sites take turns, and its destinations at a site.
    pub(crate) fn next(&mut self, classes: usize, tick: u32) -> Option<u32> {
        loop {
            let class = self.class(classes)?;
            let (tenant, index) = self.turns[class].take()?;
            let Some(site) = self.sites.get(index) else { continue };
            let may_begin = site.may_begin();
            if site.nominated[class] == Some(tenant) {
                self.sites[index].nominated[class] = None;
            }
            let group = if may_begin { self.next_at(index, class, tick) } else { None };
            let Some(group) = group else {
                // Circumstances have changed since it was nominated.
                self.release_site(index);
                continue;
            };
            for (border, served) in self.served.iter_mut().enumerate() {
                *served = if class > border { 0 } else { (*served + 1).min(SERVED_MAX) };
            }
            return Some(group);
        }
    }

    /// The group of a class whose turn it is at a site.
    fn next_at(&mut self, index: u32, class: usize, tick: u32) -> Option<u32> {
        loop {
            let waiting = &mut self.sites[index].waiting[class];
            let Some(next) = waiting.take() else {
                waiting.tidy();
                return None;
            };
            // Its place may be another's by now.
            if self.slab.get(next).is_none_or(|found| found.site != index || !found.in_ring[class]) {
                continue;
            }
            let destination = &mut self.slab[next];
            destination.in_ring[class] = false;
            let group = destination.ready[class].head;
            if group == NIL || destination.is_sought {
                continue;
            }
            if destination.located_until <= tick {
                destination.is_sought = true;
                self.sought.push(next);
                continue;
            }
            let tenant = destination.tenant;
            let weight = self.weights.get(&tenant).copied().unwrap_or(1);
            let waiting = &mut self.sites[index].waiting[class];
            // Whoever has had this turn may wait for the next one at once: what it has had is not forgotten yet.
            waiting.charge(tenant, weight);
            self.turns[class].charge(tenant, weight);
            return Some(group);
        }
    }

    /// The turn that a group of a destination had was not used.
    pub(crate) fn give_back(&mut self, index: u32, priority: Priority) {
        let (tenant, site, class) = (self.slab[index].tenant, self.slab[index].site, priority as usize);
        let weight = self.weights.get(&tenant).copied().unwrap_or(1);
        if site != NIL {
            self.sites[site].waiting[class].give_back(tenant, weight);
        }
        self.turns[class].give_back(tenant, weight);
    }

    /// The class whose turn it is, of those that have somebody waiting: the highest, unless it has gone before a
    /// lower one often enough.
    fn class(&self, classes: usize) -> Option<usize> {
        let waits = |class: &usize| !self.turns[*class].is_empty();
        let mut class = (0..classes).find(waits)?;
        while self.served.get(class).is_some_and(|served| *served >= SERVED_MAX) {
            let Some(lower) = (class + 1..classes).find(waits) else { break };
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
impl Destinations {
    /// How many groups are in the lists; every destination that may be tried waits for its turn, and every site.
    pub(crate) fn check(&self, groups: &Slab<Group>) -> usize {
        let mut listed = 0;
        let mut members = vec![(0, 0); self.sites.end() as usize];
        for destination in (0..self.slab.end()).filter_map(|index| self.slab.get(index)) {
            let site = self.sites.get(destination.site);
            if let Some((count, attempts)) = members.get_mut(destination.site as usize) {
                (*count, *attempts) = (*count + 1, *attempts + destination.attempts);
            }
            for (priority, fifo) in destination.ready.iter().chain(&destination.aside).enumerate() {
                let (mut before, mut next) = (NIL, fifo.head);
                while next != NIL {
                    assert_eq!((groups[next].state, groups[next].links.before), (State::Ready, before));
                    (before, next) = (next, groups[next].links.after);
                    listed += 1;
                }
                assert_eq!(fifo.tail, before);
                if fifo.head == NIL || priority >= PRIORITIES || destination.is_sought {
                    continue;
                }
                assert!(destination.in_ring[priority], "nobody's turn");
                let site = site.expect("who waits there is located");
                assert!(!site.may_begin() || site.nominated[priority].is_some(), "no site's turn");
            }
        }
        for (index, (count, attempts)) in (0..).zip(members) {
            let site = self.sites.get(index);
            assert_eq!(site.map_or((0, 0), |site| (site.members, site.attempts)), (count, attempts));
            let is_needed = |site: &SiteRecord| {
                count > 0 || site.links != Links::NONE || site.nominated.iter().any(Option::is_some)
            };
            assert!(site.is_none_or(is_needed), "a site of nobody");
        }
        listed
    }
}

impl Entry for DestinationRecord {
    fn vacant(next: u32) -> Self {
        Self {
            name: Box::default(),
            tenant: Tenant::default(),
            lot: Lot::default(),
            site: NIL,
            located_until: 0,
            is_sought: false,
            ready: [FIFO; PRIORITIES],
            aside: [FIFO; PRIORITIES],
            counts: [0; 4],
            attempts: 0,
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

impl Timed for DestinationRecord {
    fn due(&self) -> u32 {
        self.due
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// Keyed by the seed: the names are chosen by strangers.
fn hash(seed: u64, name: &str, (Tenant(tenant), Lot(lot)): (Tenant, Lot)) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seed ^ u64::from(tenant) ^ u64::from(lot) << 32);
    hasher.write(name.as_bytes());
    hasher.finish()
}
