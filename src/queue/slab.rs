//! Slabs: entries in chunks, named by 32-bit numbers, so that growth never moves what is there.

use std::ops::{Index, IndexMut};

/// No entry.
pub(crate) const NIL: u32 = u32::MAX;

/// Entries, and the list of free places among them.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Box<[T]>>,
    free: u32,
    used: u32,
}

/// What a slab needs of its entries.
pub(crate) trait Entry: Clone {
    /// An empty place, and the next one.
    fn vacant(next: u32) -> Self;

    /// The next empty place, if this is one.
    fn as_vacant(&self) -> Option<u32>;
}

/// An entry's neighbours in the one list it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Links {
    pub(crate) before: u32,
    pub(crate) after: u32,
}

const CHUNK_BITS: u32 = 8;
const CHUNK: u32 = 1 << CHUNK_BITS;
// Wheels mark a slot with the highest bit of a link; see `wheel`.
const ENTRIES_MAX: u32 = 1 << 31;

impl Links {
    pub(crate) const NONE: Self = Self { before: NIL, after: NIL };
}

impl<T: Entry> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), free: NIL, used: 0 }
    }

    pub(crate) fn insert(&mut self, entry: T) -> u32 {
        if self.free == NIL {
            self.grow();
        }
        let index = self.free;
        let place = &mut self[index];
        self.free = std::mem::replace(place, entry).as_vacant().expect("the free list holds free places");
        self.used += 1;
        index
    }

    pub(crate) fn remove(&mut self, index: u32) -> T {
        let free = self.free;
        let entry = std::mem::replace(&mut self[index], T::vacant(free));
        assert!(entry.as_vacant().is_none(), "an entry was removed twice");
        self.free = index;
        self.used -= 1;
        entry
    }

    /// The entry, if there is one of this number.
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let chunk = self.chunks.get((index >> CHUNK_BITS) as usize)?;
        Some(&chunk[(index & (CHUNK - 1)) as usize]).filter(|entry| entry.as_vacant().is_none())
    }

    /// How many entries there are.
    pub(crate) const fn len(&self) -> u32 {
        self.used
    }

    /// One more than the highest number an entry may have.
    pub(crate) const fn end(&self) -> u32 {
        self.chunks.len() as u32 * CHUNK
    }

    /// Octets of memory.
    pub(crate) const fn memory(&self) -> usize {
        self.chunks.len() * CHUNK as usize * size_of::<T>() + self.chunks.capacity() * size_of::<Box<[T]>>()
    }

    fn grow(&mut self) {
        let base = self.end();
        assert!(base < ENTRIES_MAX, "2^31 entries");
        // The lowest number is given out first.
        let chunk = (1..=CHUNK).map(|i| T::vacant(if i == CHUNK { NIL } else { base + i })).collect();
        self.chunks.push(chunk);
        self.free = base;
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.chunks[(index >> CHUNK_BITS) as usize][(index & (CHUNK - 1)) as usize]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[(index >> CHUNK_BITS) as usize][(index & (CHUNK - 1)) as usize]
    }
}
