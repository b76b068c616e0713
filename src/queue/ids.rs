//! From queue id to message.

use hashbrown::HashTable;

use crate::{group::Message, schedule::mix, slab::Slab};

/// A hash table in many parts, so that growing one part never keeps the loop waiting.
#[derive(Debug)]
pub(crate) struct Ids {
    parts: Vec<HashTable<u32>>,
}

const PARTS: usize = 256;

impl Ids {
    pub(crate) fn new() -> Self {
        Self { parts: (0..PARTS).map(|_| HashTable::new()).collect() }
    }

    pub(crate) fn insert(&mut self, messages: &Slab<Message>, id: u64, message: u32) {
        let hash = mix(id);
        let part = &mut self.parts[part_of(hash)];
        assert!(
            part.find(hash, |other| messages[*other].id == id).is_none(),
            "a queue id was given out twice"
        );
        part.insert_unique(hash, message, |other| mix(messages[*other].id));
    }

    pub(crate) fn remove(&mut self, id: u64, message: u32) {
        let hash = mix(id);
        let entry = self.parts[part_of(hash)].find_entry(hash, |other| *other == message);
        entry.expect("a queued message is in the table").remove();
    }

    pub(crate) fn find(&self, messages: &Slab<Message>, id: u64) -> Option<u32> {
        let hash = mix(id);
        self.parts[part_of(hash)].find(hash, |other| messages[*other].id == id).copied()
    }

    /// Octets of memory.
    pub(crate) fn memory(&self) -> usize {
        let tables: usize = self.parts.iter().map(HashTable::allocation_size).sum();
        tables + self.parts.capacity() * size_of::<HashTable<u32>>()
    }
}

/// The table itself uses the lowest bits and the highest seven.
const fn part_of(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}
