//! Outcomes by site, with a bound: the busiest have a series, the rest share one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{Counter, cell::Slab, metrics::OTHER};

/// How a recipient's attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next hop took responsibility.
    Delivered,
    /// It will be tried again.
    Deferred,
    /// It will not.
    Failed,
}

/// The series of one shard. A site takes a free place when it is first seen; when all are taken it
/// counts as `other`. Whenever that has happened often, places that stood idle are given away, so
/// that in the long run the busy sites have one.
#[derive(Debug)]
pub struct SiteTable {
    slots: Vec<Slot>,
    places: HashMap<Box<str>, usize>,
    free: Vec<usize>,
    other: [Counter; 3],
    misses: u32,
    shown: Arc<Mutex<Vec<SiteSeries>>>,
    slab: Slab,
    sites_max: usize,
}

#[derive(Debug)]
struct Slot {
    counters: [Counter; 3],
    /// Outcomes, halved at each round of [`SiteTable::free_idle`].
    hits: u32,
}

/// What the scrape sees.
#[derive(Debug)]
pub(crate) struct SiteSeries {
    pub(crate) site: Box<str>,
    pub(crate) cells: [&'static std::sync::atomic::AtomicU64; 3],
    slot: usize,
}

impl Outcome {
    pub(crate) const ALL: [Self; 3] = [Self::Delivered, Self::Deferred, Self::Failed];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
        }
    }
}

impl SiteTable {
    pub(crate) fn new(sites_max: usize) -> (Self, Arc<Mutex<Vec<SiteSeries>>>) {
        let mut slab = Slab::default();
        let other = [(); 3].map(|()| slab.counter());
        let series =
            SiteSeries { site: OTHER.into(), cells: [other[0].0, other[1].0, other[2].0], slot: usize::MAX };
        let shown = Arc::new(Mutex::new(vec![series]));
        let table = Self {
            slots: Vec::new(),
            places: HashMap::new(),
            free: Vec::new(),
            other,
            misses: 0,
            shown: Arc::clone(&shown),
            slab,
            sites_max,
        };
        (table, shown)
    }

    /// Counts so many recipients with this outcome at this site.
    pub fn count(&mut self, site: &str, outcome: Outcome, recipients: u64) {
        let Some(place) = self.places.get(site).copied().or_else(|| self.admit(site)) else {
            self.other[outcome as usize].add(recipients);
            self.misses += 1;
            if self.misses >= MISSES_MAX {
                self.free_idle();
            }
            return;
        };
        let slot = &mut self.slots[place];
        slot.hits = slot.hits.saturating_add(1);
        slot.counters[outcome as usize].add(recipients);
    }

    fn admit(&mut self, site: &str) -> Option<usize> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.slots.len() < self.sites_max => {
                let counters = [(); 3].map(|()| self.slab.counter());
                self.slots.push(Slot { counters, hits: 0 });
                self.slots.len() - 1
            }
            None => return None,
        };
        let cells = [0, 1, 2].map(|i| self.slots[place].counters[i].0);
        for cell in cells {
            cell.store(0, std::sync::atomic::Ordering::Relaxed);
        }
        self.places.insert(site.into(), place);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.push(SiteSeries { site: site.into(), cells, slot: place });
        Some(place)
    }

    fn free_idle(&mut self) {
        self.misses = 0;
        self.free.clear();
        for (place, slot) in self.slots.iter_mut().enumerate() {
            slot.hits /= 2;
            if slot.hits == 0 {
                self.free.push(place);
            }
        }
        let (slots, free) = (&self.slots, &self.free);
        self.places.retain(|_, place| slots[*place].hits > 0);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.retain(|series| !free.contains(&series.slot));
    }
}

/// Outcomes counted as `other` before idle places are given away.
const MISSES_MAX: u32 = 4096;

#[cfg(test)]
mod test {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn value(shown: &Mutex<Vec<SiteSeries>>, site: &str, outcome: Outcome) -> Option<u64> {
        let shown = shown.lock().unwrap();
        let series = shown.iter().find(|series| &*series.site == site)?;
        Some(series.cells[outcome as usize].load(Relaxed))
    }

    #[test]
    fn the_table_stays_small_and_no_outcome_is_lost() {
        let (mut table, shown) = SiteTable::new(2);
        for site in ["a", "b", "c", "d"] {
            table.count(site, Outcome::Delivered, 2);
        }
        assert_eq!(value(&shown, "a", Outcome::Delivered), Some(2));
        assert_eq!(value(&shown, "c", Outcome::Delivered), None);
        assert_eq!(value(&shown, OTHER, Outcome::Delivered), Some(4));
    }

    #[test]
    fn a_busy_newcomer_takes_an_idle_place() {
        let (mut table, shown) = SiteTable::new(2);
        table.count("idle", Outcome::Deferred, 1);
        for _ in 0..100 {
            table.count("busy", Outcome::Delivered, 1);
        }
        for _ in 0..=MISSES_MAX {
            table.count("new", Outcome::Failed, 1);
        }
        assert_eq!(value(&shown, "idle", Outcome::Deferred), None);
        assert_eq!(value(&shown, "busy", Outcome::Delivered), Some(100));
        assert_eq!(value(&shown, "new", Outcome::Failed), Some(1));
        assert_eq!(value(&shown, "new", Outcome::Deferred), Some(0), "counts of another site");
        assert_eq!(value(&shown, OTHER, Outcome::Failed), Some(u64::from(MISSES_MAX)));
    }
}
