//! Whose network an address is in: autonomous systems, from a database in the format of MaxMind (MaxMind DB, version 2.0).
//!
//! The octets are somebody else's, and are looked through once, to the end, when they come: what has a flaw is not taken at all. What
//! is asked later can still answer nothing, and nothing else.

use std::{fmt, net::IpAddr};

use maxminddb::{LookupResult, MaxMindDbError, PathElement, Reader, WithinOptions};

/// Numbers of autonomous systems by address.
pub struct Systems {
    reader: Reader<Vec<u8>>,
    networks: u64,
}

/// Why octets are no such database.
#[derive(Debug, thiserror::Error)]
pub enum SystemsError {
    /// They are not made as they should be.
    #[error("it is no MaxMind DB, or a damaged one: {0}")]
    Format(#[from] MaxMindDbError),
    /// A tree that has more ends than it can have.
    #[error("it is no MaxMind DB, or a damaged one: its tree goes round in a circle")]
    Circle,
    /// Something else is in it.
    #[error("it is a database of the kind {0:?}, and has no numbers of autonomous systems")]
    NoNumbers(Box<str>),
}

/// Where a number is: as MaxMind and DB-IP have it, and as IPinfo has it, as a text with `AS` before it.
const NUMBER: [PathElement<'static>; 1] = [PathElement::Key("autonomous_system_number")];
const TEXT: [PathElement<'static>; 1] = [PathElement::Key("asn")];
/// Characters that are shown of what a database calls itself.
const KIND_MAX: usize = 64;

impl Systems {
    /// Looks through all of them.
    ///
    /// # Errors
    /// [`SystemsError`] when there is a flaw in them, or no number.
    pub fn parse(octets: Vec<u8>) -> Result<Self, SystemsError> {
        let reader = Reader::from_source(octets)?;
        // Each node has two ends: more there cannot be.
        let mut left = u64::from(reader.metadata().node_count).saturating_mul(2).saturating_add(2);
        let mut networks = 0;
        for found in reader.networks(WithinOptions::default())? {
            left = left.checked_sub(1).ok_or(SystemsError::Circle)?;
            networks += u64::from(number(&found?)?.is_some());
        }
        if networks == 0 {
            let kind = reader.metadata().database_type.chars().take(KIND_MAX).collect();
            return Err(SystemsError::NoNumbers(kind));
        }
        Ok(Self { reader, networks })
    }

    /// The number of the autonomous system that an address is in, if one is known.
    pub fn number(&self, address: IpAddr) -> Option<u32> {
        number(&self.reader.lookup(address.to_canonical()).ok()?).ok()?
    }

    /// How many networks have a number.
    pub const fn networks(&self) -> u64 {
        self.networks
    }
}

impl fmt::Debug for Systems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Systems").field("networks", &self.networks).finish_non_exhaustive()
    }
}

fn number(found: &LookupResult<'_, Vec<u8>>) -> Result<Option<u32>, MaxMindDbError> {
    if let Some(number) = found.decode_path::<u32>(&NUMBER)? {
        return Ok(Some(number));
    }
    let text = found.decode_path::<&str>(&TEXT)?;
    Ok(text.and_then(|text| text.trim_start_matches(['A', 'S', 'a', 's']).parse().ok()))
}

#[cfg(test)]
#[path = "systems_test.rs"]
mod test;
