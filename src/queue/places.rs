//! The places of a partition: some are kept for the classes above, so that no crowd of a lower class has all of them.
//!
//! A place is free again when its attempt has ended, which takes as long as a next hop likes that says nothing: minutes. A crowd for
//! a thousand such hosts would have every place, and more urgent mail for hosts that are well would wait for the first of
//! them to give up. So the last places are for whoever is in a higher class. Where places are few, none is kept: sites
//! take turns then as ever.

use crate::{Limits, Priority};

/// Of so many places one is kept for urgent mail, and one more for all mail but bulk.
const PLACES: u32 = 16;
/// The classes, the highest first.
const CLASSES: [Priority; 3] = [Priority::Urgent, Priority::Normal, Priority::Bulk];

impl Limits {
    /// How many attempts there may be at once, where the last of them is of this class.
    pub const fn attempts_max_of(&self, priority: Priority) -> u32 {
        let kept = self.attempts_max / PLACES;
        match priority {
            Priority::Urgent => self.attempts_max,
            Priority::Normal => self.attempts_max - kept,
            Priority::Bulk => self.attempts_max - 2 * kept,
        }
    }

    /// How many classes, the highest first, may begin an attempt beside so many.
    pub(crate) fn classes_beside(&self, attempts: u32) -> usize {
        CLASSES.iter().take_while(|priority| attempts < self.attempts_max_of(**priority)).count()
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_last_places_are_for_higher_classes() {
        for (attempts_max, urgent, normal, bulk) in
            [(0, 0, 0, 0), (15, 15, 15, 15), (16, 16, 15, 14), (1000, 1000, 938, 876)]
        {
            let limits = Limits { attempts_max, ..Limits::default() };
            assert_eq!(CLASSES.map(|class| limits.attempts_max_of(class)), [urgent, normal, bulk]);
            for attempts in 0..=attempts_max {
                let expected = [urgent, normal, bulk].into_iter().filter(|max| attempts < *max).count();
                assert_eq!(limits.classes_beside(attempts), expected, "{attempts} of {attempts_max}");
            }
        }
    }
}
