//! Sets of queue ids. Those of one journal shard are numbered in a row: a bit for each does.

use std::{collections::BTreeMap, fmt};

use crate::QueueId;

/// A set of queue ids: 512 octets for any number of them among 4,096 in a row, and no step that takes long because
/// the set is large.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct QueueIdSet {
    parts: BTreeMap<u64, Part>,
    len: usize,
}

#[derive(Clone, PartialEq, Eq)]
struct Part {
    bits: Box<[u64; WORDS]>,
    len: u32,
}

const WORDS: usize = 64;
const PART_BITS: u32 = 12;

impl QueueIdSet {
    /// Puts an id in; says whether it is new.
    pub fn insert(&mut self, id: QueueId) -> bool {
        let (part, word, bit) = place(id);
        let part = self.parts.entry(part).or_insert_with(|| Part { bits: Box::new([0; WORDS]), len: 0 });
        let is_new = part.bits[word] & bit == 0;
        part.bits[word] |= bit;
        part.len += u32::from(is_new);
        self.len += usize::from(is_new);
        is_new
    }

    /// Takes an id out; says whether it was in.
    pub fn remove(&mut self, id: QueueId) -> bool {
        let (number, word, bit) = place(id);
        let Some(part) = self.parts.get_mut(&number).filter(|part| part.bits[word] & bit != 0) else {
            return false;
        };
        part.bits[word] &= !bit;
        part.len -= 1;
        self.len -= 1;
        if part.len == 0 {
            self.parts.remove(&number);
        }
        true
    }

    /// Whether an id is in.
    pub fn contains(&self, id: QueueId) -> bool {
        let (part, word, bit) = place(id);
        self.parts.get(&part).is_some_and(|part| part.bits[word] & bit != 0)
    }

    /// How many are in.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none is in.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = QueueId> {
        self.parts.iter().flat_map(|(number, part)| {
            let words = (0..).zip(part.bits.iter());
            let set = words.flat_map(|(word, bits)| {
                (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word << 6 | bit)
            });
            set.map(move |low: u64| QueueId::from_bits(number << PART_BITS | low))
        })
    }
}

impl Extend<QueueId> for QueueIdSet {
    fn extend<T: IntoIterator<Item = QueueId>>(&mut self, ids: T) {
        for id in ids {
            self.insert(id);
        }
    }
}

impl FromIterator<QueueId> for QueueIdSet {
    fn from_iter<T: IntoIterator<Item = QueueId>>(ids: T) -> Self {
        let mut set = Self::default();
        set.extend(ids);
        set
    }
}

impl fmt::Debug for QueueIdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The part, the word in it and the bit in that.
const fn place(id: QueueId) -> (u64, usize, u64) {
    let bits = id.to_bits();
    (bits >> PART_BITS, (bits >> 6) as usize % WORDS, 1 << (bits % 64))
}

#[cfg(test)]
mod test {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_set_beside_another() {
        let (mut set, mut model) = (QueueIdSet::default(), BTreeSet::new());
        let mut random = 1_u64;
        for round in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bits = [(random >> 33) % 300, random >> 20][usize::from(random >> 60 == 0)];
            let id = QueueId::from_bits(bits);
            if random >> 32 & 3 == 0 {
                assert_eq!(set.remove(id), model.remove(&id));
            } else {
                assert_eq!(set.insert(id), model.insert(id));
            }
            assert_eq!((set.contains(id), set.len()), (model.contains(&id), model.len()));
            if round % 1000 == 0 {
                assert!(set.iter().eq(model.iter().copied()));
            }
        }
        let copy: QueueIdSet = model.iter().rev().copied().collect();
        assert_eq!(copy, set);
        model.iter().for_each(|id| assert!(set.remove(*id)));
        assert_eq!((set.is_empty(), set), (true, QueueIdSet::default()));
    }
}
