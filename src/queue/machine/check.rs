//! What holds of a machine at any time, for tests.

use super::Queue;
use crate::{
    State,
    group::{self, Tagged},
};

impl Queue {
    /// What must hold between any two calls.
    pub(crate) fn check(&self) {
        let mut counts = [0_u64; 4];
        let mut attempts = vec![0; self.destinations.slab.end() as usize];
        let (mut ready, mut called_for) = (0, 0);
        for group in (0..self.groups.end()).filter_map(|index| self.groups.get(index)) {
            counts[group.state as usize] += group::recipients(&self.nodes, group.recipients).count() as u64;
            attempts[group.destination as usize] += u32::from(group.state == State::Running);
            ready += usize::from(group.state == State::Ready);
            let to_be_held = group::recipients(&self.nodes, group.recipients).all(|r| r.has(Tagged::HOLD));
            called_for += u32::from(group.state == State::Running && to_be_held);
            assert!(self.messages.get(group.message).is_some(), "a group without a message");
        }
        assert_eq!(counts, self.counts);
        assert_eq!(self.destinations.check(&self.groups), ready, "ready, but in no list");
        assert_eq!(attempts.iter().sum::<u32>(), self.attempts);
        assert!(self.attempts - called_for <= self.limits.attempts_max);
        for (index, attempts) in attempts.iter().enumerate() {
            let found = self.destinations.slab.get(index as u32);
            assert!(found.map_or(0, |found| found.attempts) == *attempts, "attempts of a destination");
        }
    }
}
