//! Databases of a handful of networks, made by hand (MaxMind DB 2.0), and damaged.

use super::*;

/// What a network has.
enum Record {
    Number(u32),
    Text(&'static str),
    Country,
}

/// A string: its control byte, and itself.
fn string(text: &str) -> Vec<u8> {
    // From 29 on, what is more stands in an octet of its own.
    let size = match text.len() {
        len @ ..29 => vec![0b010_00000 | len as u8],
        len => vec![0b010_00000 | 29, (len - 29) as u8],
    };
    [&size, text.as_bytes()].concat()
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![0b111_00000 | pairs.len() as u8];
    for (key, value) in pairs {
        out.extend(string(key));
        out.extend(value);
    }
    out
}

/// An unsigned number of 32 bits; 16 and 64 are written likewise.
fn unsigned(kind: u8, value: u64) -> Vec<u8> {
    let octets = value.to_be_bytes();
    let octets = &octets[octets.iter().take_while(|octet| **octet == 0).count()..];
    match kind {
        ..=7 => [&[kind << 5 | octets.len() as u8], octets].concat(),
        // An extended type.
        _ => [&[octets.len() as u8, kind - 7], octets].concat(),
    }
}

/// A database of these networks of IPv4, each /8.
fn database(networks: &[(u8, Record)]) -> Vec<u8> {
    // One level of the tree for each bit; node 0 is the first.
    let mut nodes: Vec<[Option<Next>; 2]> = vec![[None; 2]];
    #[derive(Clone, Copy)]
    enum Next {
        Node(usize),
        Data(usize),
    }
    let (mut data, mut starts) = (Vec::new(), Vec::new());
    for (_, record) in networks {
        starts.push(data.len());
        data.extend(match record {
            Record::Number(number) => map(&[
                ("autonomous_system_number", unsigned(6, u64::from(*number))),
                ("autonomous_system_organization", string("Example")),
            ]),
            Record::Text(text) => map(&[("asn", string(text))]),
            Record::Country => map(&[("country", string("NL"))]),
        });
    }
    for (place, (network, _)) in networks.iter().enumerate() {
        let mut node = 0;
        for bit in (0..8).rev() {
            let side = usize::from(network >> bit & 1);
            if bit == 0 {
                nodes[node][side] = Some(Next::Data(starts[place]));
            } else if let Some(Next::Node(next)) = nodes[node][side] {
                node = next;
            } else {
                nodes.push([None; 2]);
                nodes[node][side] = Some(Next::Node(nodes.len() - 1));
                node = nodes.len() - 1;
            }
        }
    }
    let count = nodes.len();
    let mut out = Vec::new();
    for side in nodes.iter().flatten() {
        let value = match side {
            Some(Next::Node(node)) => *node,
            Some(Next::Data(start)) => count + 16 + start,
            None => count,
        };
        out.extend(&(value as u32).to_be_bytes()[1..]);
    }
    out.extend([0; 16]);
    out.extend(data);
    out.extend(b"\xab\xcd\xefMaxMind.com");
    out.extend(map(&[
        ("node_count", unsigned(6, count as u64)),
        ("record_size", unsigned(5, 24)),
        ("ip_version", unsigned(5, 4)),
        ("database_type", string("Test-ASN")),
        ("languages", vec![0, 4]),
        ("binary_format_major_version", unsigned(5, 2)),
        ("binary_format_minor_version", unsigned(5, 0)),
        ("build_epoch", unsigned(9, 1_764_374_400)),
        ("description", map(&[("en", string("of a test"))])),
    ]));
    out
}

fn networks() -> Vec<u8> {
    database(&[
        (192, Record::Number(64_496)),
        (198, Record::Number(4_200_000_000)),
        (203, Record::Text("AS64497")),
        (10, Record::Country),
    ])
}

#[test]
fn addresses_have_numbers() {
    let systems = Systems::parse(networks()).unwrap();
    assert_eq!(systems.networks(), 3);
    for (address, expected) in [
        ("192.0.2.1", Some(64_496)),
        ("::ffff:192.0.2.1", Some(64_496)),
        ("198.51.100.1", Some(4_200_000_000)),
        ("203.0.113.1", Some(64_497)),
        ("10.0.0.1", None),
        ("127.0.0.1", None),
        // It is one of IPv4.
        ("2001:db8::1", None),
    ] {
        assert_eq!(systems.number(address.parse().unwrap()), expected, "{address}");
    }
    assert_eq!(format!("{systems:?}"), "Systems { networks: 3, .. }");
}

#[test]
fn what_has_no_numbers_is_told() {
    let error = Systems::parse(database(&[(10, Record::Country)])).unwrap_err().to_string();
    assert!(error.contains("\"Test-ASN\", and has no numbers"), "{error}");
    for octets in [&b""[..], b"MaxMind.com", b"# not a database\n", &[0; 100]] {
        let error = Systems::parse(octets.to_vec()).unwrap_err().to_string();
        assert!(error.contains("it is no MaxMind DB"), "{error}");
    }
}

/// Cut or changed at any place, it is refused or it answers; it does not panic, and it comes to an end.
#[test]
fn damage_does_no_harm() {
    let whole = networks();
    let ask = |octets: Vec<u8>| {
        let Ok(systems) = Systems::parse(octets) else { return false };
        for address in ["192.0.2.1", "198.51.100.1", "203.0.113.1", "10.0.0.1", "2001:db8::1"] {
            let _ = systems.number(address.parse().unwrap());
        }
        true
    };
    assert!(ask(whole.clone()));
    for end in 0..whole.len() {
        assert!(!ask(whole[..end].to_vec()), "without its last octets from {end} on");
    }
    for at in 0..whole.len() {
        for change in [0x01, 0x20, 0x80, 0xff] {
            let mut octets = whole.clone();
            octets[at] ^= change;
            ask(octets);
        }
    }
    // A tree that leads back to its root.
    let mut circle = whole;
    circle[..6].fill(0);
    assert!(matches!(
        Systems::parse(circle),
        Err(SystemsError::Circle | SystemsError::Format(_) | SystemsError::NoNumbers(_))
    ));
}
