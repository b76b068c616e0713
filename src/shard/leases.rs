//! Leases: limits that hold for the whole host, though shards share nothing else.
//!
//! A shard takes a lease when it opens a connection to a next hop and gives it back when that
//! connection is closed: touched per connection, never per message. Destinations are hashed
//! into a fixed table, so that the table needs no lock and no growth. Two destinations whose
//! hashes meet share one limit: with 65,536 slots and 1,000 busy destinations one in 65 has such
//! a neighbour, and the effect is fewer connections, never more than allowed.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

const SLOTS: usize = 1 << 16;

/// The table of one host; every shard holds a clone.
#[derive(Clone, Debug)]
pub struct Leases {
    table: Arc<Table>,
}

#[derive(Debug)]
struct Table {
    hasher: RandomState,
    in_use: Box<[AtomicU32]>,
}

/// One connection's place under the limit; dropped, it is free again.
#[derive(Debug)]
pub struct Lease {
    table: Arc<Table>,
    slot: usize,
}

impl Leases {
    /// An empty table.
    pub fn new() -> Self {
        let in_use = (0..SLOTS).map(|_| AtomicU32::new(0)).collect();
        Self { table: Arc::new(Table { hasher: RandomState::new(), in_use }) }
    }

    /// Takes a place for `destination`, of which the host has `max`; `None` when all are taken.
    pub fn take(&self, destination: &str, max: u32) -> Option<Lease> {
        let slot = self.slot(destination);
        self.table.in_use[slot]
            // Relaxed: the count guards nothing but itself.
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1))
            .ok()?;
        Some(Lease { table: self.table.clone(), slot })
    }

    /// How many places of `destination` are taken on this host.
    pub fn in_use(&self, destination: &str) -> u32 {
        self.table.in_use[self.slot(destination)].load(Ordering::Relaxed)
    }

    fn slot(&self, destination: &str) -> usize {
        self.table.hasher.hash_one(destination) as usize % SLOTS
    }
}

impl Default for Leases {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let before = self.table.in_use[self.slot].fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a lease was given back twice");
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use std::thread;

    #[test]
    fn the_limit_holds_and_places_come_back() {
        let leases = Leases::new();
        let held: Vec<_> = (0..3).map_while(|_| leases.take("mx:a.example", 3)).collect();
        assert_eq!(held.len(), 3);
        assert!(leases.take("mx:a.example", 3).is_none());
        drop(held);
        assert_eq!(leases.in_use("mx:a.example"), 0);
        assert!(leases.take("mx:a.example", 1).is_some());
    }

    #[test]
    fn the_limit_holds_between_threads() {
        let leases = Leases::new();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let leases = leases.clone();
                thread::spawn(move || (0..100).filter_map(|_| leases.take("hop", 50)).collect::<Vec<_>>())
            })
            .collect();
        let held: Vec<_> = workers.into_iter().flat_map(|w| w.join().unwrap()).collect();
        assert_eq!(held.len(), 50);
        assert_eq!(leases.in_use("hop"), 50);
    }
}
