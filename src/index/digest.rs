//! A sum over all blocks of entries, kept with the checkpoint: tells an index that lost or regained a part.

/// How many blocks of entries there are and the sum of their hashes, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest {
    blocks: u64,
    sum: u64,
}

impl Digest {
    /// A block came in.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.blocks = self.blocks.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(key, value));
    }

    /// A block went.
    pub(crate) fn subtract(&mut self, key: &[u8], value: &[u8]) {
        self.blocks = self.blocks.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(key, value));
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.blocks.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        let [blocks, sum] = [&bytes[..8], &bytes[8..]]
            .map(|half| half.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte)));
        Self { blocks, sum }
    }
}

/// The same on every machine and in every version, unlike std's hashers. It is to tell what was lost by accident: nobody
/// who could write to the index is kept from it by a hash.
fn hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hash = (key.len() as u64) << 56 ^ value.len() as u64 ^ SEED;
    for part in [key, value] {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            hash = mix(hash, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = mix(hash, u64::from_le_bytes(last));
    }
    hash
}

const SEED: u64 = 0x51_7c_c1_b7_27_22_0a_95;
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(FACTOR);
    product ^ product >> 32
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn every_bit_and_every_length_counts() {
        let value: Vec<u8> = (0..100).collect();
        let mut seen = std::collections::HashSet::from([hash(b"", &value)]);
        for len in 0..value.len() {
            assert!(seen.insert(hash(b"", &value[..len])), "{len}");
            assert!(seen.insert(hash(&[0], &value[..len])), "{len}");
        }
        for bit in 0..8 * value.len() {
            let mut other = value.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(hash(b"", &other)), "{bit}");
        }
    }
}
