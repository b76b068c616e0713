//! Timing wheels: entries of a slab by the tick at which they are due.
//!
//! Six levels of 64 slots; a slot of level `n` is 64^n ticks wide. An entry lies at the level of the
//! highest digit (base 64) in which its tick differs from `elapsed`, in the slot of that digit. When
//! the time of a slot comes, its entries move down a level; from the lowest they are due. Putting
//! in and taking out cost the same however many entries there are, an entry moves five times at
//! most, and the lists run through the entries themselves, so that a wheel needs no memory that grows.
//!
//! The first entry of a slot has the slot's number, marked by the highest bit, for a predecessor: that
//! is how it is taken out without asking where it lies.

use crate::{
    clock::NEVER,
    slab::{Entry, Links, NIL, Slab},
};

/// A wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// All entries that are due before this have been taken out.
    elapsed: u32,
    /// A bit for each slot that holds an entry.
    occupied: [u64; LEVELS],
    heads: [u32; LEVELS * SLOTS],
}

/// An entry that can lie in a wheel.
pub(crate) trait Timed: Entry {
    fn due(&self) -> u32;
    fn links_mut(&mut self) -> &mut Links;
}

/// What one step found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This entry was due, and is taken out.
    Due(u32),
    /// An entry moved to a lower level.
    Moved,
    /// Nothing is due.
    Nothing,
}

const DIGIT: u32 = 6;
const SLOTS: usize = 1 << DIGIT;
const LEVELS: usize = 6;
const SLOT_MARK: u32 = 1 << 31;

impl Wheel {
    pub(crate) const fn new() -> Self {
        Self { elapsed: 0, occupied: [0; LEVELS], heads: [NIL; LEVELS * SLOTS] }
    }

    /// Puts an entry in, to be found at its `due`. It must not be in a list.
    pub(crate) fn insert<T: Timed>(&mut self, slab: &mut Slab<T>, index: u32) {
        let when = slab[index].due().max(self.elapsed);
        let differ = when ^ self.elapsed;
        let level = if differ == 0 { 0 } else { differ.ilog2() / DIGIT };
        let digit = when >> (level * DIGIT) & (SLOTS as u32 - 1);
        let slot = level * SLOTS as u32 + digit;
        let after = std::mem::replace(&mut self.heads[slot as usize], index);
        self.occupied[level as usize] |= 1 << digit;
        *slab[index].links_mut() = Links { before: slot | SLOT_MARK, after };
        if after != NIL {
            slab[after].links_mut().before = index;
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove<T: Timed>(&mut self, slab: &mut Slab<T>, index: u32) {
        let Links { before, after } = std::mem::replace(slab[index].links_mut(), Links::NONE);
        assert_ne!(before, NIL, "an entry was taken out of a wheel twice");
        if after != NIL {
            slab[after].links_mut().before = before;
        }
        if before & SLOT_MARK == 0 {
            slab[before].links_mut().after = after;
            return;
        }
        let slot = (before & !SLOT_MARK) as usize;
        self.heads[slot] = after;
        if after == NIL {
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        }
    }

    /// Looks at one entry of the first slot whose time has come.
    pub(crate) fn step<T: Timed>(&mut self, slab: &mut Slab<T>, now: u32) -> Step {
        let Some((start, slot)) = self.first().filter(|(start, _)| *start <= now) else {
            self.elapsed = self.elapsed.max(now);
            return Step::Nothing;
        };
        self.elapsed = self.elapsed.max(start);
        let index = self.heads[slot];
        self.remove(slab, index);
        if slab[index].due() <= now {
            return Step::Due(index);
        }
        self.insert(slab, index);
        Step::Moved
    }

    /// The earliest tick at which a step may find something.
    pub(crate) fn next(&self) -> Option<u32> {
        self.first().map(|(start, _)| start).filter(|start| *start < NEVER)
    }

    /// The slot whose time comes first, and that time.
    fn first(&self) -> Option<(u32, usize)> {
        let mut first: Option<(u32, usize)> = None;
        for (level, occupied) in self.occupied.iter().enumerate().filter(|(_, bits)| **bits != 0) {
            // No slot lies behind the one of `elapsed`, so the lowest bit is the next in time.
            let digit = occupied.trailing_zeros();
            let shift = level as u32 * DIGIT;
            let above = self.elapsed.checked_shr(shift + DIGIT).unwrap_or(0);
            let start = above.checked_shl(shift + DIGIT).unwrap_or(0) | digit << shift;
            if first.is_none_or(|(earliest, _)| start < earliest) {
                first = Some((start, level * SLOTS + digit as usize));
            }
        }
        first
    }
}

#[cfg(test)]
mod test {
    use std::collections::BTreeMap;

    use super::*;
    use crate::schedule::mix;

    #[derive(Clone)]
    struct Timer {
        due: u32,
        links: Links,
        vacant: Option<u32>,
    }

    impl Entry for Timer {
        fn vacant(next: u32) -> Self {
            Self { due: 0, links: Links::NONE, vacant: Some(next) }
        }

        fn as_vacant(&self) -> Option<u32> {
            self.vacant
        }
    }

    impl Timed for Timer {
        fn due(&self) -> u32 {
            self.due
        }

        fn links_mut(&mut self) -> &mut Links {
            &mut self.links
        }
    }

    /// A wheel beside a sorted map that is told the same.
    #[test]
    fn a_wheel_finds_what_a_sorted_map_finds() {
        for seed in 0..20 {
            let (mut wheel, mut slab) = (Wheel::new(), Slab::new());
            let (mut model, mut now) = (BTreeMap::new(), 0_u32);
            let mut random = (seed * 1000..).map(mix);
            let mut random = move |below: u64| random.next().unwrap() % below;
            for _ in 0..3000 {
                match random(4) {
                    0 | 1 => {
                        let width = random(31);
                        let due = now.saturating_add(random(1 << width) as u32);
                        let timer = Timer { due, links: Links::NONE, vacant: None };
                        let index = slab.insert(timer);
                        wheel.insert(&mut slab, index);
                        model.insert(index, due);
                    }
                    2 => {
                        let place = random(model.len() as u64 + 1) as usize;
                        if let Some(index) = model.keys().nth(place).copied() {
                            model.remove(&index);
                            wheel.remove(&mut slab, index);
                            slab.remove(index);
                        }
                    }
                    _ => {
                        let width = random(24);
                        now = now.saturating_add(random(1 << width) as u32);
                        let earliest = model.values().min();
                        assert!(wheel.next().is_none_or(|next| earliest.is_some_and(|due| next <= *due)));
                        // Now and then it is left half done.
                        let mut steps = if random(3) == 0 { random(10) } else { u64::MAX };
                        while steps > 0 {
                            steps -= 1;
                            match wheel.step(&mut slab, now) {
                                Step::Due(index) => {
                                    assert!(model.remove(&index).is_some_and(|due| due <= now));
                                    slab.remove(index);
                                }
                                Step::Moved => {}
                                Step::Nothing => {
                                    assert!(model.values().all(|due| *due > now), "seed {seed}");
                                    break;
                                }
                            }
                        }
                    }
                }
            }
            assert_eq!(slab.len() as usize, model.len());
        }
    }
}
