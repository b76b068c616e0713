//! What is packed is unpacked: gzip (RFC 1952) and zip, as far as reports need them, within a budget of octets.
//!
//! The octets that come out are counted as they come: what a header says of sizes is nobody's word.

use std::io::Read as _;

use flate2::{Crc, bufread::DeflateDecoder, bufread::GzDecoder};

use super::Unread;

/// Files in an archive that are looked at.
const FILES_MAX: usize = 16;
/// Members of a gzip file: programs that pack in blocks begin one for every 64 KiB. Each costs time, though nothing be in it.
const MEMBERS_MAX: usize = 4096;
/// One is packed within the other: a report in gzip in a zip is seen now and then, and nothing deeper.
const DEPTH_MAX: usize = 2;

const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";

/// What is in it: itself, when it is not packed. All that comes out is taken from the budget.
pub(super) fn unpack(octets: Vec<u8>, budget: &mut usize) -> Result<Vec<Vec<u8>>, Unread> {
    let (mut done, mut packed) = (Vec::new(), vec![(octets, 0)]);
    while let Some((octets, depth)) = packed.pop() {
        let is_gzip = octets.starts_with(&[0x1f, 0x8b]);
        if !is_gzip && !octets.starts_with(LOCAL) {
            done.push(octets);
            continue;
        }
        if depth >= DEPTH_MAX {
            return Err(Unread::Archive("it is packed too many times"));
        }
        let files = if is_gzip { vec![gzip(&octets, budget)?] } else { zip(&octets, budget)? };
        packed.extend(files.into_iter().rev().map(|file| (file, depth + 1)));
    }
    Ok(done)
}

/// Members follow each other (RFC 1952 §2.2); what is behind them is passed over.
fn gzip(octets: &[u8], budget: &mut usize) -> Result<Vec<u8>, Unread> {
    let (mut rest, mut unpacked, mut members) = (octets, Vec::new(), 0);
    while rest.starts_with(&[0x1f, 0x8b]) {
        members += 1;
        if members > MEMBERS_MAX {
            return Err(Unread::Archive("it has too many members"));
        }
        let mut decoder = GzDecoder::new(rest);
        inflate(&mut decoder, &mut unpacked, budget)?;
        rest = decoder.into_inner();
    }
    Ok(unpacked)
}

fn inflate(from: &mut impl std::io::Read, to: &mut Vec<u8>, budget: &mut usize) -> Result<(), Unread> {
    let before = to.len();
    // One more than there may be tells whether there is more.
    let room = u64::try_from(*budget).unwrap_or(u64::MAX).saturating_add(1);
    from.take(room).read_to_end(to).map_err(|_| Unread::Archive("it is damaged"))?;
    let came = to.len() - before;
    *budget = budget.checked_sub(came).ok_or(Unread::TooLarge("what is packed in it"))?;
    Ok(())
}

/// The files that the directory at the end names.
fn zip(octets: &[u8], budget: &mut usize) -> Result<Vec<Vec<u8>>, Unread> {
    let damaged = Unread::Archive("it is damaged");
    // A comment of up to 65535 octets may be behind it.
    let tail = octets.len().saturating_sub(22 + 0xffff);
    let end = memchr::memmem::rfind(&octets[tail..], END).ok_or_else(|| damaged.clone())? + tail;
    let count = usize::from(half(octets, end + 10).ok_or_else(|| damaged.clone())?);
    let mut at = word(octets, end + 16).ok_or_else(|| damaged.clone())?;
    let mut files = Vec::new();
    for _ in 0..count.min(FILES_MAX) {
        let entry =
            octets.get(at..).filter(|entry| entry.starts_with(CENTRAL)).ok_or_else(|| damaged.clone())?;
        let of = |place| half(entry, place).map(usize::from).ok_or_else(|| damaged.clone());
        let (flags, method) = (of(8)?, of(10)?);
        let (name, extra, comment) = (of(28)?, of(30)?, of(32)?);
        let sum = word(entry, 16).ok_or_else(|| damaged.clone())?;
        let size = word(entry, 20).ok_or_else(|| damaged.clone())?;
        let place = word(entry, 42).ok_or_else(|| damaged.clone())?;
        let name_text = entry.get(46..46 + name).ok_or_else(|| damaged.clone())?;
        at += 46 + name + extra + comment;
        if name_text.ends_with(b"/") || name_text.starts_with(b"__MACOSX") {
            continue;
        }
        if flags & 1 != 0 {
            return Err(Unread::Archive("it is encrypted"));
        }
        let file =
            octets.get(place..).filter(|file| file.starts_with(LOCAL)).ok_or_else(|| damaged.clone())?;
        let behind = |place| half(file, place).map(usize::from).ok_or_else(|| damaged.clone());
        let begin = 30 + behind(26)? + behind(28)?;
        let packed =
            file.get(begin..).and_then(|packed| packed.get(..size)).ok_or_else(|| damaged.clone())?;
        let mut unpacked = Vec::new();
        match method {
            0 => inflate(&mut &*packed, &mut unpacked, budget)?,
            8 => inflate(&mut DeflateDecoder::new(packed), &mut unpacked, budget)?,
            _ => return Err(Unread::Archive("it is packed in another way than by deflate")),
        }
        let mut crc = Crc::new();
        crc.update(&unpacked);
        if crc.sum() as usize != sum {
            return Err(damaged);
        }
        files.push(unpacked);
    }
    Ok(files)
}

fn half(octets: &[u8], at: usize) -> Option<u16> {
    let [low, high] = *octets.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes([low, high]))
}

fn word(octets: &[u8], at: usize) -> Option<usize> {
    let four = *octets.get(at..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(four)).ok()
}

/// Text as it is, in UTF-8 or in UTF-16 where it says so with its first octets; what is none is replaced.
pub(super) fn text(octets: Vec<u8>) -> String {
    let wide = |of: fn([u8; 2]) -> u16| {
        let (units, _) = octets[2..].as_chunks::<2>();
        String::from_utf16_lossy(&units.iter().map(|unit| of(*unit)).collect::<Vec<_>>())
    };
    match octets[..] {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, ref rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => String::from_utf8(octets)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}
