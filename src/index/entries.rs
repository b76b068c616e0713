//! Entries in blocks: those of messages whose numbers are beside each other lie in one value of the store.
//!
//! A store is asked for each of its values one by one, which costs more than to read one of a hundred octets. So a value
//! has the entries of [`SPAN`] numbers, and a start asks for thirty times fewer. What is not looked at yet stays as it
//! lies in the store, at a third of the memory.
//!
//! ```text
//!   key    number / SPAN (8, big-endian: keys sort as numbers do)
//!   value  number % SPAN (1) │ length (4) │ entry    for each, in order of the numbers
//! ```

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use journal::{Entry, QueueId, SegmentRef};

use crate::IndexError;

/// Numbers in a block.
pub(crate) const SPAN: u64 = 32;

/// Live messages in order of their ids, decoded as they are taken.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// In order.
    blocks: Vec<(BlockKey, Box<[u8]>)>,
    len: u64,
}

/// Which block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockKey(u64);

/// What a change of an entry is: its bytes, or that it goes.
pub(crate) type Change = Option<Bytes>;

impl Entries {
    /// Adds a block behind all others, as it came from the store.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] when it is none.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
        let key = BlockKey::from_bytes(key).ok_or(IndexError::Damaged("a key is not that of a block"))?;
        let mut rest = value;
        while !rest.is_empty() {
            let (_, entry) = split(&mut rest).ok_or(IndexError::Damaged("a block is cut short"))?;
            Entry::decode(entry).map_err(|_| IndexError::Damaged("an entry does not decode"))?;
            self.len += 1;
        }
        self.blocks.push((key, value.into()));
        Ok(())
    }

    /// How many there are.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (QueueId, Entry)> {
        self.bytes().map(|(id, bytes)| (id, decode(bytes)))
    }

    /// Where the record of each lies: the segment, and the offset in it.
    pub fn places(&self) -> impl Iterator<Item = (QueueId, SegmentRef, u64)> {
        self.bytes().map(|(id, bytes)| {
            let (segment, offset) = Entry::decode_place(bytes).expect("it was decoded before");
            (id, segment, offset)
        })
    }

    /// Takes the last few, with the highest ids.
    pub fn pop(&mut self) -> Option<Vec<(QueueId, Entry)>> {
        let (key, bytes) = self.blocks.pop()?;
        let last: Vec<_> = parts(&bytes).map(|(slot, bytes)| (key.id(slot), decode(bytes))).collect();
        self.len -= last.len() as u64;
        Some(last)
    }

    fn bytes(&self) -> impl Iterator<Item = (QueueId, &[u8])> {
        self.blocks.iter().flat_map(|(key, block)| parts(block).map(|(slot, bytes)| (key.id(slot), bytes)))
    }
}

impl FromIterator<(QueueId, Entry)> for Entries {
    fn from_iter<T: IntoIterator<Item = (QueueId, Entry)>>(entries: T) -> Self {
        let changes = entries.into_iter().map(|(id, entry)| (id, Some(entry.encode())));
        let mut all = Self::default();
        for (key, changes) in by_block(changes) {
            let (bytes, len) = merge(&[], &changes);
            all.blocks.push((key, bytes.into()));
            all.len += len;
        }
        all
    }
}

// The bytes would be no help.
impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl BlockKey {
    pub(crate) const fn of(id: QueueId) -> Self {
        Self(id.to_bits() / SPAN)
    }

    pub(crate) const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = u64::from_be_bytes(bytes.try_into().ok()?);
        (number <= u64::MAX / SPAN).then_some(Self(number))
    }

    const fn id(self, slot: u8) -> QueueId {
        QueueId::from_bits(self.0 * SPAN + slot as u64)
    }
}

/// Changes by the block that they are in. Of several changes of one entry the last counts.
pub(crate) fn by_block(
    changes: impl Iterator<Item = (QueueId, Change)>,
) -> BTreeMap<BlockKey, BTreeMap<u8, Change>> {
    let mut blocks: BTreeMap<BlockKey, BTreeMap<u8, Change>> = BTreeMap::new();
    for (id, change) in changes {
        let slot = (id.to_bits() % SPAN) as u8;
        blocks.entry(BlockKey::of(id)).or_default().insert(slot, change);
    }
    blocks
}

/// A block after some changes, and how many entries it has then.
pub(crate) fn merge(block: &[u8], changes: &BTreeMap<u8, Change>) -> (Vec<u8>, u64) {
    let mut all: BTreeMap<u8, &[u8]> = parts(block).collect();
    for (slot, change) in changes {
        match change {
            Some(bytes) => all.insert(*slot, bytes),
            None => all.remove(slot),
        };
    }
    let mut merged = Vec::with_capacity(all.values().map(|bytes| bytes.len() + HEAD).sum());
    for (slot, bytes) in &all {
        merged.push(*slot);
        merged.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        merged.extend_from_slice(bytes);
    }
    (merged, all.len() as u64)
}

const HEAD: usize = 5;

/// The entries of a block. What is cut short ends it.
fn parts(block: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = block;
    std::iter::from_fn(move || split(&mut rest))
}

/// Takes the first entry off a block.
fn split<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (head, behind) = rest.split_first_chunk::<HEAD>()?;
    let [slot, len @ ..] = *head;
    let (entry, behind) = behind.split_at_checked(u32::from_le_bytes(len) as usize)?;
    *rest = behind;
    (u64::from(slot) < SPAN).then_some((slot, entry))
}

fn decode(bytes: &[u8]) -> Entry {
    Entry::decode(bytes).expect("it was decoded before")
}
