//! The name a message has from its acceptance to its last outcome.

use std::{fmt, str::FromStr};

/// The number of a journal shard: a directory of segments with one writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JournalShard(pub u16);

impl fmt::Display for JournalShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A queue id: the journal shard (12 bits) and a number that this shard gives out once (52 bits).
///
/// Printed as 13 characters of Crockford's base 32 (no I, L, O, U), which sort as the numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(u64);

/// The text is not a queue id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a queue id is 13 characters of 0-9 and A-Z without I, L, O and U")]
pub struct QueueIdError;

const NUMBER_BITS: u32 = 52;
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl QueueId {
    /// The largest number a shard may give out.
    pub const NUMBER_MAX: u64 = (1 << NUMBER_BITS) - 1;

    /// The id of the `number`-th message of a journal shard.
    ///
    /// # Panics
    /// When the shard needs more than 12 bits or the number more than 52: both are ours to count.
    pub fn new(shard: JournalShard, number: u64) -> Self {
        assert!(shard.0 < 1 << 12 && number <= Self::NUMBER_MAX, "queue id out of range");
        Self(u64::from(shard.0) << NUMBER_BITS | number)
    }

    /// The id as it stands in a record.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The id from a record.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The journal shard that gave the id out and holds the message.
    pub const fn shard(self) -> JournalShard {
        JournalShard((self.0 >> NUMBER_BITS) as u16)
    }

    /// The number within its journal shard.
    pub const fn number(self) -> u64 {
        self.0 & Self::NUMBER_MAX
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 13];
        for (i, c) in text.iter_mut().enumerate() {
            *c = ALPHABET[(self.0 >> (5 * (12 - i))) as usize & 31];
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl FromStr for QueueId {
    type Err = QueueIdError;

    fn from_str(text: &str) -> Result<Self, QueueIdError> {
        if text.len() != 13 {
            return Err(QueueIdError);
        }
        let mut bits: u128 = 0;
        for c in text.bytes() {
            let digit = ALPHABET.iter().position(|a| *a == c.to_ascii_uppercase()).ok_or(QueueIdError)?;
            bits = bits << 5 | digit as u128;
        }
        u64::try_from(bits).map(Self).map_err(|_| QueueIdError)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn text_and_back() {
        for (shard, number) in [(0, 0), (15, 1), (4095, QueueId::NUMBER_MAX), (3, 123_456_789)] {
            let id = QueueId::new(JournalShard(shard), number);
            assert_eq!((id.shard(), id.number()), (JournalShard(shard), number));
            let text = id.to_string();
            assert_eq!(text.len(), 13);
            assert_eq!(text.parse(), Ok(id));
            assert_eq!(text.to_lowercase().parse(), Ok(id));
        }
    }

    #[test]
    fn text_sorts_as_the_number_does() {
        let texts: Vec<_> =
            [1, 31, 32, 1 << 40].map(|n| QueueId::new(JournalShard(2), n).to_string()).to_vec();
        assert!(texts.is_sorted());
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "0", "ZZZZZZZZZZZZZ", "000000000000U", "00000000000000", "0000000000é0"] {
            assert_eq!(text.parse::<QueueId>(), Err(QueueIdError), "{text}");
        }
    }
}
