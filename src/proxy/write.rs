//! The header that tells a proxy from which address to which it is to connect, or for whom we connect.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
};

use crate::header::SIGNATURE_2;

/// Which version is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Octets.
    V2,
}

/// A header for a connection between these; both of one family.
pub fn write(version: Version, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (source, target) = (from.ip().to_canonical(), to.ip().to_canonical());
    let (from, to) = (SocketAddr::new(source, from.port()), SocketAddr::new(target, to.port()));
    match (version, source, target) {
        (Version::V1, IpAddr::V4(_), IpAddr::V4(_)) => line("TCP4", from, to),
        (Version::V1, IpAddr::V6(_), IpAddr::V6(_)) => line("TCP6", from, to),
        (Version::V2, IpAddr::V4(source), IpAddr::V4(target)) => {
            octets(0x21, 0x11, &[source.octets(), target.octets()].concat(), &[from.port(), to.port()])
        }
        (Version::V2, IpAddr::V6(source), IpAddr::V6(target)) => {
            octets(0x21, 0x21, &[source.octets(), target.octets()].concat(), &[from.port(), to.port()])
        }
        // Nothing that a header can tell.
        (version, IpAddr::V4(_), IpAddr::V6(_)) | (version, IpAddr::V6(_), IpAddr::V4(_)) => own(version),
    }
}

/// A header for a connection that is nobody's: we look whether somebody is there.
pub fn own(version: Version) -> Vec<u8> {
    match version {
        Version::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
        Version::V2 => octets(0x20, 0, &[], &[]),
    }
}

fn line(family: &str, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut line = Vec::new();
    let (source, target) = (from.ip(), to.ip());
    // A vector takes whatever there is.
    let _ = write!(line, "PROXY {family} {source} {target} {} {}\r\n", from.port(), to.port());
    line
}

fn octets(version: u8, family: u8, addresses: &[u8], ports: &[u16]) -> Vec<u8> {
    let mut all = SIGNATURE_2.to_vec();
    // At most two addresses of 16 octets.
    let len = addresses.len() as u16 + 2 * ports.len() as u16;
    all.extend_from_slice(&[version, family]);
    all.extend_from_slice(&len.to_be_bytes());
    all.extend_from_slice(addresses);
    all.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    all
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::{Header, read};

    #[test]
    fn what_is_written_is_read() {
        for (from, to) in [
            ("192.0.2.1:1", "198.51.100.1:25"),
            ("[2001:db8::1]:0", "[2001:db8::2]:25"),
            ("[::ffff:192.0.2.1]:7", "198.51.100.1:25"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            for version in [Version::V1, Version::V2] {
                let header = write(version, from, to);
                let told = SocketAddr::new(from.ip().to_canonical(), from.port());
                assert_eq!(read(&header, 536), Ok(Some((Header::Client(told), header.len()))), "{version:?}");
            }
        }
        let line = write(Version::V1, "192.0.2.1:0".parse().unwrap(), "198.51.100.1:25".parse().unwrap());
        assert_eq!(line, b"PROXY TCP4 192.0.2.1 198.51.100.1 0 25\r\n");
    }

    #[test]
    fn nobodys() {
        for (version, expected) in [(Version::V1, Header::Unknown), (Version::V2, Header::Own)] {
            let header = own(version);
            assert_eq!(read(&header, 536), Ok(Some((expected, header.len()))));
            let mixed = write(version, "192.0.2.1:1".parse().unwrap(), "[2001:db8::2]:25".parse().unwrap());
            assert_eq!(mixed, header);
        }
    }
}
