//! Which shard serves a connection: the one it has come to, or one that has fewer.
//!
//! The kernel spreads connections by a hash, so of a few some shards get most. A connection that has come to a shard which
//! has more than another goes there before a byte of it is read: what crosses is the descriptor and the name of its
//! listener, in an [`Arrived`]. How many connections each shard has stands in one count for each, touched once when a
//! connection comes and once when it goes; one that is handed over is in the count of its new shard before it is there, so
//! that of connections that come at the same time none goes where another has made it full.
//!
//! Many connections the hash spreads well, and short ones not for long: they stay where they are, for the price of a look at
//! a clock ([`Flow`]). So however many come, few are handed over.
//!
//! Nobody waits for another shard: one whose desk is full or closed gets nothing, and the connection stays where it is.

use std::{
    cell::Cell,
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use ring::Accepted;
use tokio::sync::Notify;

/// One shard's way to the connections of the host.
#[derive(Debug)]
pub struct Balance {
    desks: Desks,
    shard: usize,
    flow: Flow,
}

/// Those of all shards, by their numbers.
type Desks = Arc<[Desk]>;

/// One shard's part of what all see. Two cache lines: the prefetcher fetches pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Desk {
    /// The connections that it has or will have.
    connections: AtomicU32,
    handed: Mutex<Handed>,
    /// Something is new in `handed`.
    bell: Notify,
}

/// Connections that other shards have accepted for this one.
#[derive(Debug, Default)]
struct Handed {
    waiting: VecDeque<Arrived>,
    closed: bool,
}

/// A connection of which nothing is read yet.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// The name of the listener in the configuration.
    pub(crate) listener: Arc<str>,
    /// Connections open on this listener, over all shards.
    pub(crate) open: Arc<AtomicU32>,
    pub(crate) socket: Accepted,
}

/// A connection's place in the count of its shard, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    desks: Desks,
    shard: usize,
}

/// How fast connections come to a shard: a level that rises by one with each, and falls with time. It falls by as many in a
/// second as may come before they are too many to be looked at.
#[derive(Debug, Default)]
struct Flow {
    /// When all will have drained away.
    empty_at: Cell<Duration>,
}

/// So many wait for a shard at a time. More are only there when it does not run, and then others had better serve them.
const WAITING_MAX: usize = 32;
/// So many connections, and as many in each second, are few. To hand one over wakes another shard, and to look at the counts of
/// others takes time for each of them: of so many it is little.
const FEW: u32 = 64;
/// By an eighth more than the least is even enough, which is one more for less than eight.
const SLACK: u32 = 8;

impl Balance {
    /// One for each shard of a host.
    pub fn of_host(shards: usize) -> Vec<Self> {
        let desks: Desks = (0..shards).map(|_| Desk::default()).collect();
        (0..shards).map(|shard| Self { desks: desks.clone(), shard, flow: Flow::default() }).collect()
    }

    /// Counts a connection that has come to this shard, and gives it to another shard if that should rather have it:
    /// then there is none.
    pub(crate) fn place(&self, arrived: Arrived, now: Duration) -> Option<(Arrived, Seat)> {
        // Each connection is part of the flow, whether it would stay or not.
        let few = self.flow.are_few(now);
        if self.desks.len() == 1 || !few {
            return Some((arrived, self.keep()));
        }
        let shard = self.choose();
        if shard == self.shard {
            return Some((arrived, self.seat()));
        }
        let desk = &self.desks[shard];
        match desk.take_in(arrived) {
            Ok(()) => None,
            Err(arrived) => {
                desk.connections.fetch_sub(1, Relaxed);
                Some((arrived, self.keep()))
            }
        }
    }

    /// A place in the count of this shard.
    pub(crate) fn keep(&self) -> Seat {
        // Relaxed, as all of these: the counts guard nothing.
        self.desks[self.shard].connections.fetch_add(1, Relaxed);
        self.seat()
    }

    /// Counts a connection where it should be. The count there is still what it was when it was looked at: of connections
    /// that come to several shards at the same time, each sees those before it.
    fn choose(&self) -> usize {
        let connections = |shard: usize| &self.desks[shard].connections;
        loop {
            let (shard, seen) =
                chosen(self.shard, |shard| connections(shard).load(Relaxed), self.desks.len());
            if connections(shard).compare_exchange(seen, seen + 1, Relaxed, Relaxed).is_ok() {
                return shard;
            }
        }
    }

    /// A place that is counted already.
    fn seat(&self) -> Seat {
        Seat { desks: self.desks.clone(), shard: self.shard }
    }

    /// Waits for the next connection from another shard; none when the desk is closed.
    pub(crate) async fn next(&self) -> Option<(Arrived, Seat)> {
        let desk = &self.desks[self.shard];
        loop {
            {
                let mut handed = desk.handed();
                if let Some(arrived) = handed.waiting.pop_front() {
                    return Some((arrived, self.seat()));
                }
                if handed.closed {
                    return None;
                }
            }
            // Who has rung since we looked is heard: there is but one who listens.
            desk.bell.notified().await;
        }
    }

    /// Takes no more from other shards if this one has no connection at all, on its desk or elsewhere; says whether that is
    /// so. Who is counted here is here or about to come, so that nobody falls between the two.
    pub(crate) fn close_if_deserted(&self) -> bool {
        let desk = &self.desks[self.shard];
        let mut handed = desk.handed();
        let deserted = desk.connections.load(Relaxed) == 0 && handed.waiting.is_empty();
        if deserted {
            handed.closed = true;
            desk.bell.notify_one();
        }
        deserted
    }

    /// Takes no more from other shards, but for those that wait: here they are.
    pub(crate) fn close(&self) -> Vec<(Arrived, Seat)> {
        let desk = &self.desks[self.shard];
        let mut handed = desk.handed();
        handed.closed = true;
        desk.bell.notify_one();
        handed.waiting.drain(..).map(|arrived| (arrived, self.seat())).collect()
    }
}

/// The shard that is to have a connection which has come to `here`, and the count it was chosen for: `here`, unless another
/// has clearly fewer.
fn chosen(here: usize, connections: impl Fn(usize) -> u32, shards: usize) -> (usize, u32) {
    let own = connections(here);
    // Those behind it first: shards that have too many at the same time do not all turn to the first one.
    let others = (1..shards).map(|step| (here + step) % shards).map(|shard| (shard, connections(shard)));
    match others.min_by_key(|(_, connections)| *connections) {
        Some((shard, least)) if own > least.saturating_add(least / SLACK) => (shard, least),
        Some(_) | None => (here, own),
    }
}

impl Desk {
    fn handed(&self) -> MutexGuard<'_, Handed> {
        // Whoever panicked did so outside: nothing here is left half done.
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a connection from another shard, or gives it back when there is no room or nobody.
    fn take_in(&self, arrived: Arrived) -> Result<(), Arrived> {
        let mut handed = self.handed();
        if handed.closed || handed.waiting.len() >= WAITING_MAX {
            return Err(arrived);
        }
        handed.waiting.push_back(arrived);
        drop(handed);
        self.bell.notify_one();
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.desks[self.shard].connections.fetch_sub(1, Relaxed);
    }
}

impl Flow {
    /// Another one comes; whether they are few.
    fn are_few(&self, now: Duration) -> bool {
        const EACH: Duration = Duration::from_nanos(1_000_000_000 / FEW as u64);
        // However many have come, after two seconds without any they are forgotten.
        const MOST: Duration = Duration::from_secs(2);
        let level = self.empty_at.get().saturating_sub(now);
        self.empty_at.set(now + (level + EACH).min(MOST));
        level < EACH * FEW
    }
}

#[cfg(test)]
#[path = "balance_test.rs"]
mod test;
