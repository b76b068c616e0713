//! Entries of the greylist and of reputation as they are written down.
//!
//! ```text
//!  greylist    0     8       12      16
//!              | key | state | until | sum |
//!  reputation  0     8    12         14       16         18        20        22
//!              | key | at | accepted | listed | unproven | unknown | bounced | sum |
//! ```
//!
//! Numbers have the highest octet first; the sum is the CRC-32C of what stands before it. A record is there as a whole or it is not
//! there: what a crash has left of one fails its sum.

use crate::{DEEDS, Deeds, GreyKey, Slot, State, SubjectKey};

/// Octets of a record of the greylist.
pub const GREY_RECORD: usize = 20;
/// Octets of one of reputation.
pub const DEEDS_RECORD: usize = 26;

/// What is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no record: its sum is another")]
pub struct RecordError;

/// Appends a record of the greylist.
pub fn write_grey(key: GreyKey, slot: Slot, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&key.0.to_be_bytes());
    out.extend_from_slice(&slot.state.to_number().to_be_bytes());
    out.extend_from_slice(&slot.until.to_be_bytes());
    seal(begin, out);
}

/// Reads one.
///
/// # Errors
/// [`RecordError`].
pub fn read_grey(record: &[u8; GREY_RECORD]) -> Result<(GreyKey, Slot), RecordError> {
    check(record)?;
    let slot = Slot { state: State::of_number(number(record, 8)), until: number(record, 12) };
    Ok((GreyKey(key(record)), slot))
}

/// Appends a record of reputation.
pub fn write_deeds(key: SubjectKey, deeds: Deeds, out: &mut Vec<u8>) {
    let begin = out.len();
    out.extend_from_slice(&key.0.to_be_bytes());
    out.extend_from_slice(&deeds.at.to_be_bytes());
    deeds.counts.iter().for_each(|count| out.extend_from_slice(&count.to_be_bytes()));
    seal(begin, out);
}

/// Reads one.
///
/// # Errors
/// [`RecordError`].
pub fn read_deeds(record: &[u8; DEEDS_RECORD]) -> Result<(SubjectKey, Deeds), RecordError> {
    check(record)?;
    let mut counts = [0; DEEDS];
    for (place, count) in counts.iter_mut().enumerate() {
        *count = u16::from_be_bytes([record[12 + 2 * place], record[13 + 2 * place]]);
    }
    Ok((SubjectKey(key(record)), Deeds { at: number(record, 8), counts }))
}

fn seal(begin: usize, out: &mut Vec<u8>) {
    let sum = crc32c::crc32c(&out[begin..]);
    out.extend_from_slice(&sum.to_be_bytes());
}

fn check(record: &[u8]) -> Result<(), RecordError> {
    let end = record.len() - 4;
    if crc32c::crc32c(&record[..end]) == number(record, end) { Ok(()) } else { Err(RecordError) }
}

fn number(record: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
}

fn key(record: &[u8]) -> u64 {
    u64::from(number(record, 0)) << 32 | u64::from(number(record, 4))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        for state in [
            State::Proven,
            State::Client(1),
            State::Client(1 << 20),
            State::Waiting(1_764_387_000),
            State::Waiting(u32::MAX - 1),
            State::Cleared,
        ] {
            let (key, slot) = (GreyKey(0x0123_4567_89ab_cdef), Slot { state, until: 1_764_390_000 });
            let mut out = vec![7];
            write_grey(key, slot, &mut out);
            let record: [u8; GREY_RECORD] = out[1..].try_into().unwrap();
            assert_eq!(read_grey(&record), Ok((key, slot)));
            for at in 0..GREY_RECORD {
                let mut torn = record;
                torn[at] ^= 1;
                assert_eq!(read_grey(&torn), Err(RecordError), "{at}");
            }
        }
        assert_eq!(read_grey(&[0xff; GREY_RECORD]), Err(RecordError));
    }

    #[test]
    fn deeds_are_read_as_they_are_written() {
        let (key, deeds) =
            (SubjectKey(u64::MAX - 7), Deeds { at: 1_764_387_000, counts: [0, 1, 16, 4000, u16::MAX] });
        let mut out = Vec::new();
        write_deeds(key, deeds, &mut out);
        let record: [u8; DEEDS_RECORD] = out.try_into().unwrap();
        assert_eq!(read_deeds(&record), Ok((key, deeds)));
        for at in 0..DEEDS_RECORD {
            let mut torn = record;
            torn[at] ^= 1;
            assert_eq!(read_deeds(&torn), Err(RecordError), "{at}");
        }
    }
}
