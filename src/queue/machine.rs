//! The machine: events in, orders out.

use mail::Timestamp;

use crate::{Accepted, AttemptId, Destination, Order, Outcome, Restored, Schedule};

/// Upper bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attempts under way at once.
    pub attempts_max: u32,
    /// Attempts under way at once for one destination, until [`Queue::set_attempts_max`] says otherwise.
    pub destination_attempts_max: u32,
    /// Recipients in one attempt. Next hops take at least 100 (RFC 5321 §4.5.3.1.8).
    pub recipients_per_attempt_max: usize,
    /// Recipients queued at once; see [`Queue::room`].
    pub recipients_max: u64,
}

/// One shard's partition of the queue.
#[derive(Debug)]
pub struct Queue {}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts_max: 1000,
            destination_attempts_max: 20,
            recipients_per_attempt_max: 100,
            recipients_max: 20_000_000,
        }
    }
}

impl Queue {
    /// An empty queue. The seed spreads retries; any number will do, and a test's makes them reproducible.
    pub fn new(limits: Limits, schedule: Schedule, seed: u64, now: Timestamp) -> Self {
        let _ = (limits, schedule, seed, now);
        todo!()
    }

    /// The number of a destination. See [`Destination`] for how long it is good.
    pub fn intern(&mut self, name: &str, now: Timestamp) -> Destination {
        let _ = (name, now);
        todo!()
    }

    /// A message was accepted: its recipients are ready.
    ///
    /// # Panics
    /// When the id is queued already or a destination is not ours.
    pub fn on_accepted(&mut self, accepted: &Accepted<'_>, now: Timestamp, orders: &mut Vec<Order>) {
        let _ = (accepted, now, orders);
        todo!()
    }

    /// Takes in a message from before a restart. What is due waits for the next [`Queue::on_tick`],
    /// so restore everything first.
    ///
    /// # Panics
    /// When the id is queued already or a destination is not ours.
    pub fn restore(&mut self, restored: &Restored<'_>, now: Timestamp) {
        let _ = (restored, now);
        todo!()
    }

    /// An attempt ended. A recipient without an outcome counts as deferred.
    ///
    /// # Panics
    /// When this attempt is not under way.
    pub fn on_attempted(
        &mut self,
        attempt: AttemptId,
        outcomes: &[(u32, Outcome)],
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) {
        let _ = (attempt, outcomes, now, orders);
        todo!()
    }

    /// An attempt could not begin, for want of a lease or in a shutdown: nothing was tried, nothing
    /// is counted. First lower the limit that forbids it, or it is ordered again at once.
    ///
    /// # Panics
    /// When this attempt is not under way.
    pub fn on_postponed(&mut self, attempt: AttemptId, now: Timestamp, orders: &mut Vec<Order>) {
        let _ = (attempt, now, orders);
        todo!()
    }

    /// A destination could not be reached at all: leave it alone for a while, then probe it with one
    /// attempt. Call this before [`Queue::on_attempted`] for the attempt that found out.
    pub fn on_destination_failed(&mut self, destination: Destination, now: Timestamp) {
        let _ = (destination, now);
        todo!()
    }

    /// Time has passed. Does a bounded amount of work; [`Queue::wake_after`] says when to call again.
    pub fn on_tick(&mut self, now: Timestamp, orders: &mut Vec<Order>) {
        let _ = (now, orders);
        todo!()
    }

    /// Sets how many attempts may be under way at once for a destination (a lease granted, a
    /// throttle, zero for a pause), as long as the queue knows it.
    pub fn set_attempts_max(
        &mut self,
        destination: Destination,
        attempts_max: u32,
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) {
        let _ = (destination, attempts_max, now, orders);
        todo!()
    }

    /// Takes new limits, as after a change of configuration, or to stop all attempts before a shutdown.
    pub fn set_limits(&mut self, limits: Limits, now: Timestamp, orders: &mut Vec<Order>) {
        let _ = (limits, now, orders);
        todo!()
    }

    /// Takes a new schedule; give-up times already set stay.
    pub fn set_schedule(&mut self, schedule: Schedule) {
        let _ = schedule;
        todo!()
    }

    /// When to call [`Queue::on_tick`] next; never earlier than `now`. It may turn out that nothing is due.
    pub fn wake_after(&self, now: Timestamp) -> Option<Timestamp> {
        let _ = now;
        todo!()
    }

    /// How many more recipients may be accepted; below what a message needs, refuse it for now.
    pub fn room(&self) -> u64 {
        todo!()
    }

    /// The name of a destination.
    pub fn name(&self, destination: Destination) -> Option<&str> {
        let _ = destination;
        todo!()
    }
}
