//! One header of either version, read from what has been received so far.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a proxy says of the connection behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Nobody is behind it: the proxy itself connected, to see whether we are there.
    Own,
    /// This client is behind it.
    Client(SocketAddr),
    /// Somebody is behind it who has no IP address, or none that the proxy can tell.
    Unknown,
}

/// Why something is not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It begins like neither version.
    #[error("no PROXY header")]
    Absent,
    /// It begins like one, and does not go on like one.
    #[error("malformed PROXY header")]
    Malformed,
    /// A version that does not exist yet.
    #[error("PROXY header of an unknown version")]
    Version,
    /// Of something else than a stream.
    #[error("PROXY header of something that is not TCP")]
    Transport,
    /// Its octets are not those that were sent.
    #[error("PROXY header with a wrong CRC-32C")]
    Checksum,
    /// Longer than it may be.
    #[error("PROXY header of more octets than the limit")]
    TooLong,
}

const SIGNATURE_1: &[u8] = b"PROXY ";
pub(crate) const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const FIXED_2: usize = 16;
/// Two paths.
const UNIX_ADDRESSES: usize = 216;
/// The longest line of version 1 with its CRLF: that of an unknown protocol with two IPv6 addresses.
const LINE_MAX: usize = 107;

/// Reads the header at the start of `received`. Says how long it is, or nothing while more has to come; of `size_max`
/// octets at most. What follows it is the client's.
///
/// # Errors
/// [`HeaderError`], as soon as it can be seen: no octet more has to come.
pub fn read(received: &[u8], size_max: usize) -> Result<Option<(Header, usize)>, HeaderError> {
    if agrees(received, SIGNATURE_1) {
        read_line(received, size_max)
    } else if agrees(received, SIGNATURE_2) {
        read_octets(received, size_max)
    } else {
        Err(HeaderError::Absent)
    }
}

/// Whether it begins so, as far as it has come.
fn agrees(received: &[u8], signature: &[u8]) -> bool {
    let len = received.len().min(signature.len());
    received[..len] == signature[..len]
}

/// Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 25` and CRLF.
fn read_line(received: &[u8], size_max: usize) -> Result<Option<(Header, usize)>, HeaderError> {
    let size_max = size_max.min(LINE_MAX);
    let Some(end) = received.iter().take(size_max).position(|octet| *octet == b'\n') else {
        return if received.len() >= size_max { Err(HeaderError::TooLong) } else { Ok(None) };
    };
    let line = received[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(SIGNATURE_1));
    let line = line.and_then(|line| std::str::from_utf8(line).ok()).ok_or(HeaderError::Malformed)?;
    let header = read_words(line).ok_or(HeaderError::Malformed)?;
    Ok(Some((header, end + 1)))
}

fn read_words(line: &str) -> Option<Header> {
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // "the receiver must ignore anything presented before the CRLF is found".
        return Some(Header::Unknown);
    }
    let mut address = || match family {
        "TCP4" => words.next()?.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => words.next()?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let (client, _) = (address()?, address()?);
    let (port, _) = (read_port(words.next()?)?, read_port(words.next()?)?);
    words.next().is_none().then(|| told(client, port))
}

/// A port in decimal digits, as few as it takes.
fn read_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Version 2: a fixed part that says how much follows, addresses, and behind them what proxies say beside. Of that, a checksum
/// is looked at; the rest is skipped.
fn read_octets(received: &[u8], size_max: usize) -> Result<Option<(Header, usize)>, HeaderError> {
    let version = received.get(12).copied();
    if version.is_some_and(|version| version >> 4 != 2) {
        return Err(HeaderError::Version);
    }
    let [.., version, family, high, low] = received.get(..FIXED_2).unwrap_or_default() else {
        return Ok(None);
    };
    let end = FIXED_2 + usize::from(u16::from_be_bytes([*high, *low]));
    let proxied = match version & 0xf {
        0 => false,
        1 => true,
        _ => return Err(HeaderError::Malformed),
    };
    if end > size_max {
        return Err(HeaderError::TooLong);
    }
    let Some(told_of) = received.get(FIXED_2..end) else { return Ok(None) };
    check_sum(&received[..end], *family)?;
    // "the receiver must ... use the real connection endpoints and discard the protocol block including the family".
    let header = if proxied { read_addresses(*family, told_of)? } else { Header::Own };
    Ok(Some((header, end)))
}

/// "If the checksum is provided ... and the receiver supports it, it must verify it", over the header with zeros in its place.
/// Its octets may lie anywhere behind the addresses.
fn check_sum(header: &[u8], family: u8) -> Result<(), HeaderError> {
    const TYPE_CRC32C: u8 = 3;
    let addresses = match family >> 4 {
        1 => 12,
        2 => 36,
        3 => UNIX_ADDRESSES,
        _ => 0,
    };
    let mut at = FIXED_2 + addresses;
    while let Some([kind, high, low]) = header.get(at..at + 3) {
        let value = at + 3;
        let end = value + usize::from(u16::from_be_bytes([*high, *low]));
        if let (TYPE_CRC32C, Some(Ok(told))) = (*kind, header.get(value..end).map(<[u8; 4]>::try_from)) {
            let sum = crc32c::crc32c(&header[..value]);
            let sum = crc32c::crc32c_append(crc32c::crc32c_append(sum, &[0; 4]), &header[end..]);
            return if sum == u32::from_be_bytes(told) { Ok(()) } else { Err(HeaderError::Checksum) };
        }
        at = end;
    }
    Ok(())
}

fn read_addresses(family: u8, octets: &[u8]) -> Result<Header, HeaderError> {
    let (family, transport) = (family >> 4, family & 0xf);
    match (family, transport) {
        // Either unspecified: of what may be nothing at all, nothing can be told.
        (0, 0..=2) | (1..=3, 0) => Ok(Header::Unknown),
        (1..=3, 2) => Err(HeaderError::Transport),
        (1, 1) => {
            let [a, b, c, d, _, _, _, _, high, low, _, _, ..] = *octets else {
                return Err(HeaderError::Malformed);
            };
            Ok(told(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
        }
        (2, 1) => {
            let (Some(client), Some([high, low, _, _])) = (octets.first_chunk::<16>(), octets.get(32..36))
            else {
                return Err(HeaderError::Malformed);
            };
            Ok(told(Ipv6Addr::from(*client).into(), u16::from_be_bytes([*high, *low])))
        }
        (3, 1) if octets.len() >= UNIX_ADDRESSES => Ok(Header::Unknown),
        (_, _) => Err(HeaderError::Malformed),
    }
}

/// A dual-stack proxy tells of IPv4 clients in IPv6 form (RFC 4291 §2.5.5.2); they are IPv4 clients.
fn told(client: IpAddr, port: u16) -> Header {
    Header::Client(SocketAddr::new(client.to_canonical(), port))
}

#[cfg(test)]
#[path = "header_test.rs"]
mod test;
