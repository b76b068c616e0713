//! Sites: what holds for all mail to one set of hosts, whichever domains it is for.
//!
//! ```text
//!  Open --on_site_failed--> Blocked --time--> Probing --the probe got an answer--> Open
//!                              ^                 |
//!                              +-----------------+  on_site_failed
//! ```

use crate::{
    Outcome, Tenant,
    destination::PRIORITIES,
    group::Vacant,
    slab::{Entry, Links},
    turns::Turns,
    wheel::Timed,
};

/// The number of a site in this partition, good as long as a destination belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site(pub(crate) u32);

/// What holds for all mail to one site.
#[derive(Clone, Debug)]
pub(crate) struct SiteRecord {
    pub(crate) name: Box<str>,
    /// Destinations that belong to it.
    pub(crate) members: u32,
    /// Attempts under way.
    pub(crate) attempts: u32,
    pub(crate) attempts_max: u32,
    pub(crate) phase: Phase,
    /// How often in a row it could not be reached.
    pub(crate) failures: u16,
    /// Destinations with a ready group, of each class.
    pub(crate) waiting: [Waiting; PRIORITIES],
    /// In whose name it waits for its turn among all sites, in each class.
    pub(crate) nominated: [Option<Tenant>; PRIORITIES],
    /// When it is probed. In a free place, the next one.
    pub(crate) due: u32,
    pub(crate) links: Links,
    vacant: Vacant,
}

/// Whether a site may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// As often as its limit allows.
    Open,
    /// Not before this tick.
    Blocked(u32),
    /// Once: the next attempt tells.
    Probing,
}

/// Destinations that wait at a site. Of most sites there is one.
#[derive(Clone, Debug)]
pub(crate) enum Waiting {
    Nobody,
    One(Tenant, u32),
    Many(Box<Turns>),
}

impl SiteRecord {
    pub(crate) fn new(name: Box<str>, attempts_max: u32) -> Self {
        Self { name, attempts_max, vacant: Vacant::No, ..Self::vacant(0) }
    }

    /// How many attempts may be under way at once.
    fn capacity(&self) -> u32 {
        match self.phase {
            Phase::Open => self.attempts_max,
            Phase::Blocked(_) => 0,
            Phase::Probing => self.attempts_max.min(1),
        }
    }

    /// Whether one more attempt may begin.
    pub(crate) fn may_begin(&self) -> bool {
        self.attempts < self.capacity()
    }

    /// An attempt has ended, with these outcomes.
    pub(crate) fn on_attempted(&mut self, outcomes: &[(u32, Outcome)]) {
        let answered = outcomes.iter().any(|(_, outcome)| match outcome {
            Outcome::Delivered | Outcome::Untold | Outcome::Failed => true,
            Outcome::Deferred(_) => false,
        });
        // A probe that was not followed by a failure of the site has got an answer.
        if answered || self.phase == Phase::Probing {
            self.phase = Phase::Open;
            self.failures = 0;
        }
    }
}

impl Waiting {
    /// A destination begins to wait.
    pub(crate) fn push(&mut self, tenant: Tenant, destination: u32) {
        match self {
            Self::Nobody => *self = Self::One(tenant, destination),
            Self::One(first, one) => {
                let mut turns = Box::<Turns>::default();
                turns.push(*first, *one);
                turns.push(tenant, destination);
                *self = Self::Many(turns);
            }
            Self::Many(turns) => turns.push(tenant, destination),
        }
    }

    /// The tenant whose turn it is.
    pub(crate) fn head(&mut self) -> Option<Tenant> {
        match self {
            Self::Nobody => None,
            Self::One(tenant, _) => Some(*tenant),
            Self::Many(turns) => turns.head(),
        }
    }

    /// Takes out the destination whose turn it is.
    pub(crate) fn take(&mut self) -> Option<u32> {
        match self {
            Self::Nobody => None,
            Self::One(_, destination) => {
                let destination = *destination;
                *self = Self::Nobody;
                Some(destination)
            }
            Self::Many(turns) => turns.take().map(|(_, destination)| destination),
        }
    }

    /// A tenant has had a turn. Where nobody else waits there is nothing to share.
    pub(crate) fn charge(&mut self, tenant: Tenant, weight: u32) {
        if let Self::Many(turns) = self {
            turns.charge(tenant, weight);
        }
    }

    /// A tenant has not used a turn.
    pub(crate) fn give_back(&mut self, tenant: Tenant, weight: u32) {
        if let Self::Many(turns) = self {
            turns.give_back(tenant, weight);
        }
    }

    /// Forgets who has had how much, when nobody waits any more.
    pub(crate) fn tidy(&mut self) {
        if matches!(self, Self::Many(turns) if turns.is_empty()) {
            *self = Self::Nobody;
        }
    }
}

impl Entry for SiteRecord {
    fn vacant(next: u32) -> Self {
        Self {
            name: Box::default(),
            members: 0,
            attempts: 0,
            attempts_max: 0,
            phase: Phase::Open,
            failures: 0,
            waiting: [const { Waiting::Nobody }; PRIORITIES],
            nominated: [None; PRIORITIES],
            due: next,
            links: Links::NONE,
            vacant: Vacant::Yes,
        }
    }

    fn as_vacant(&self) -> Option<u32> {
        (self.vacant == Vacant::Yes).then_some(self.due)
    }
}

impl Timed for SiteRecord {
    fn due(&self) -> u32 {
        self.due
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}
