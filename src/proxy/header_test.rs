//! Headers whole, in pieces, with something behind them, and such as are none.

use super::*;

const SIZE_MAX: usize = 536;

fn client(text: &str) -> Header {
    Header::Client(text.parse().unwrap())
}

/// Version 2 with these two octets behind the signature and that behind the length.
fn octets(version: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE_2, &[version, family], &len, block].concat()
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 4, 0, 25];

fn v6(client: &str) -> Vec<u8> {
    let address: Ipv6Addr = client.parse().unwrap();
    [&address.octets()[..], &[0; 16], &[0xdc, 4, 0, 25]].concat()
}

#[track_caller]
fn good(bytes: &[u8], expected: Header) {
    let behind = [bytes, b"EHLO client.example\r\n"].concat();
    assert_eq!(read(&behind, SIZE_MAX), Ok(Some((expected, bytes.len()))));
    for len in 0..bytes.len() {
        assert_eq!(read(&bytes[..len], SIZE_MAX), Ok(None), "the first {len} octets");
    }
}

#[track_caller]
fn bad(bytes: &[u8], expected: HeaderError) {
    assert_eq!(read(bytes, SIZE_MAX), Err(expected), "{:?}", String::from_utf8_lossy(bytes));
}

#[test]
fn lines() {
    good(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n", client("192.0.2.1:56324"));
    good(b"PROXY TCP4 192.0.2.1 198.51.100.1 0 65535\r\n", client("192.0.2.1:0"));
    good(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 25\r\n", client("[2001:db8::1]:1"));
    good(b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 25\r\n", client("192.0.2.1:1"));
    good(b"PROXY UNKNOWN\r\n", Header::Unknown);
    good(b"PROXY UNKNOWN ffff::1 whatever 65535 65535\r\n", Header::Unknown);
    // As long as one can be.
    let longest = [b"PROXY UNKNOWN ", &[b'x'; LINE_MAX - 16][..], b"\r\n"].concat();
    assert_eq!(longest.len(), 107);
    good(&longest, Header::Unknown);
}

#[test]
fn lines_that_are_none() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 25 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 25 \r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.1 56324 25\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 056324 25\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 +1 25\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 65536 25\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.1 1 25\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 25\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.1 1 25\r\n",
        "PROXY tcp4 192.0.2.1 198.51.100.1 1 25\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.1 1 25\r\n",
        "PROXY UNKNOWNED\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 25\n",
        "PROXY TCP4 192.0.2.1 198.51.100.1 1 \u{fe}\r\n",
    ] {
        bad(line.as_bytes(), HeaderError::Malformed);
    }
    for none in ["EHLO client.example\r\n", "proxy TCP4", "X", "PROXZ", "\r\nEHLO", "\0"] {
        bad(none.as_bytes(), HeaderError::Absent);
    }
    bad(&[b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat(), HeaderError::TooLong);
}

#[test]
fn blocks_of_octets() {
    good(&octets(0x21, 0x11, &V4), client("192.0.2.1:56324"));
    good(&octets(0x21, 0x21, &v6("2001:db8::1")), client("[2001:db8::1]:56324"));
    good(&octets(0x21, 0x21, &v6("::ffff:192.0.2.1")), client("192.0.2.1:56324"));
    // What stands behind the addresses is skipped.
    good(&octets(0x21, 0x11, &[&V4[..], &[4, 0, 3, 1, 2, 3]].concat()), client("192.0.2.1:56324"));
    good(&octets(0x21, 0x31, &[0; 216]), Header::Unknown);
    good(&octets(0x21, 0x00, &[]), Header::Unknown);
    good(&octets(0x21, 0x00, &[1; 20]), Header::Unknown);
    // The proxy's own connection, whatever else it says.
    good(&octets(0x20, 0x00, &[]), Header::Own);
    good(&octets(0x20, 0x11, &V4), Header::Own);
    good(&octets(0x20, 0xff, &[7; 100]), Header::Own);
    good(&octets(0x21, 0x11, &[&V4[..], &vec![0; SIZE_MAX - 28]].concat()), client("192.0.2.1:56324"));
}

#[test]
fn blocks_that_are_none() {
    bad(&octets(0x21, 0x11, &V4[..11]), HeaderError::Malformed);
    bad(&octets(0x21, 0x21, &v6("::1")[..35]), HeaderError::Malformed);
    bad(&octets(0x21, 0x31, &[0; 215]), HeaderError::Malformed);
    bad(&octets(0x21, 0x41, &V4), HeaderError::Malformed);
    bad(&octets(0x21, 0x13, &V4), HeaderError::Malformed);
    bad(&octets(0x22, 0x11, &V4), HeaderError::Malformed);
    bad(&octets(0x21, 0x12, &V4), HeaderError::Transport);
    bad(&octets(0x11, 0x11, &V4), HeaderError::Version);
    bad(&octets(0x31, 0x11, &V4)[..13], HeaderError::Version);
    // Before its octets have come.
    bad(&octets(0x21, 0x11, &vec![0; SIZE_MAX])[..16], HeaderError::TooLong);
    bad(&[SIGNATURE_2, &[0x21, 0x11, 0xff, 0xff]].concat(), HeaderError::TooLong);
}

/// Made by the program in the specification's words: the sum over the whole header, with zeros where it stands itself.
#[test]
fn sums() {
    let with = |sum: &[u8], behind: &[u8]| {
        octets(
            0x21,
            0x11,
            &[&V4, &[4, 0, 1, 9][..], &[3, 0, 4], sum, &[1, 0, 2, b'h', b'2'], behind].concat(),
        )
    };
    let sum = crc32c::crc32c(&with(&[0; 4], b"")).to_be_bytes();
    good(&with(&sum, b""), client("192.0.2.1:56324"));
    bad(&with(&sum, b"\x04\0\0"), HeaderError::Checksum);
    bad(&with(&[0; 4], b""), HeaderError::Checksum);
    for bit in 0..8 {
        let mut header = with(&sum, b"");
        header[FIXED_2 + 3] ^= 1 << bit;
        bad(&header, HeaderError::Checksum);
    }
    // A sum of another length is none, and what says that it is longer than the header is not followed.
    good(&octets(0x21, 0x11, &[&V4[..], &[3, 0, 3, 1, 2, 3]].concat()), client("192.0.2.1:56324"));
    good(&octets(0x21, 0x11, &[&V4[..], &[3, 0xff, 0xff, 1, 2, 3]].concat()), client("192.0.2.1:56324"));
}
