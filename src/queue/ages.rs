//! How many queued messages were received in each minute: what the oldest is, at no cost.

use std::collections::VecDeque;

/// Minutes in order, each with its messages.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    minutes: VecDeque<(u32, u32)>,
}

const MINUTE: u32 = 60;

impl Ages {
    pub(crate) fn insert(&mut self, received: u32) {
        let minute = received / MINUTE;
        match self.find(minute) {
            Ok(place) => self.minutes[place].1 += 1,
            Err(place) => self.minutes.insert(place, (minute, 1)),
        }
    }

    pub(crate) fn remove(&mut self, received: u32) {
        let place = self.find(received / MINUTE).expect("a queued message was counted");
        self.minutes[place].1 -= 1;
        // The newest stays, since it is about to be used again.
        if self.minutes[place].1 == 0 && place + 1 < self.minutes.len() {
            self.minutes.remove(place);
        }
    }

    /// When the oldest message was received, in seconds, rounded down to the minute.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.minutes.iter().find(|(_, count)| *count > 0).map(|(minute, _)| minute * MINUTE)
    }

    /// Octets of memory.
    pub(crate) fn memory(&self) -> usize {
        self.minutes.capacity() * size_of::<(u32, u32)>()
    }

    fn find(&self, minute: u32) -> Result<usize, usize> {
        match self.minutes.back() {
            Some((last, _)) if *last == minute => Ok(self.minutes.len() - 1),
            Some((last, _)) if *last < minute => Err(self.minutes.len()),
            Some(_) | None => self.minutes.binary_search_by_key(&minute, |(minute, _)| *minute),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_oldest_of_those_that_are_left() {
        let mut ages = Ages::default();
        for received in [600, 60, 659, 6000] {
            ages.insert(received);
        }
        for (received, oldest) in [(659, Some(60)), (60, Some(600)), (600, Some(6000)), (6000, None)] {
            ages.remove(received);
            assert_eq!(ages.oldest(), oldest);
        }
        ages.insert(7000);
        assert_eq!(ages.oldest(), Some(6960));
    }
}
