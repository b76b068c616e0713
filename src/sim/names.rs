//! Who there is in this small world, and the DNS servers that say so.

use std::net::{IpAddr, Ipv4Addr};

/// Our own name.
pub(crate) const OURSELVES: &str = "relay.example";
/// Where mail goes, besides `home.example`, where senders live. The last ones lead nowhere: no such domain, a null MX, a route that discards, one that holds.
pub(crate) const DOMAINS: [&str; 8] = [
    "a.example",
    "b.example",
    "c.example",
    "hub.example",
    "nowhere.example",
    "null.example",
    "discard.example",
    "held.example",
];
/// How many next hops there are.
pub(crate) const HOPS: usize = 8;
/// The next hops of the route for `hub.example`.
pub(crate) const HUB: [usize; 2] = [6, 7];
/// A simulated client whose network may relay, and one whose may not.
pub(crate) const FRIEND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
pub(crate) const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 66));

/// A simulated client that comes for held mail, and what it says then.
pub(crate) const CUSTOMER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 77));
pub(crate) const CALLS: [&str; 5] =
    ["ATRN", "ATRN", "ATRN held.example", "ATRN b.example,held.example", "ATRN a.example,held.example"];
/// Whose mail it may have, if that is held.
pub(crate) const CUSTOMERS: [&str; 2] = ["held.example", "b.example"];

/// The address of a next hop.
pub(crate) const fn address(hop: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, hop as u8 + 1))
}

/// Whose mail a next hop takes.
pub(crate) const fn domain(hop: usize) -> &'static str {
    match hop {
        0 => "home.example",
        1 | 2 => "a.example",
        3 => "b.example",
        4 | 5 => "c.example",
        _ => "hub.example",
    }
}

/// Whether a domain has a next hop at all.
pub(crate) fn is_reachable(wanted: &str) -> bool {
    (0..HOPS).any(|hop| domain(hop) == wanted)
}

/// The next hop at an address.
pub(crate) fn hop_at(wanted: IpAddr) -> Option<usize> {
    (0..HOPS).find(|hop| address(*hop) == wanted)
}

/// What a DNS server of this world may do with a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Answers,
    Fails,
    Truncates,
}

const MX: u16 = 15;
const A: u16 = 1;

enum Record {
    Exchange(u16, &'static str),
    Address(usize),
}

/// The records of a name; `None` when it does not exist.
fn records(name: &str, kind: u16) -> Option<Vec<Record>> {
    use Record::{Address, Exchange};
    let (exchanges, addresses) = match name {
        "home.example" => (vec![Exchange(10, "mx.home.example")], vec![]),
        "a.example" => (vec![Exchange(20, "mx2.a.example"), Exchange(10, "mx1.a.example")], vec![]),
        "b.example" => (vec![], vec![Address(3)]),
        "c.example" => (vec![Exchange(10, "mx.c.example")], vec![]),
        "null.example" => (vec![Exchange(0, "")], vec![]),
        "mx.home.example" => (vec![], vec![Address(0)]),
        "mx1.a.example" => (vec![], vec![Address(1)]),
        "mx2.a.example" => (vec![], vec![Address(2)]),
        "mx.c.example" => (vec![], vec![Address(4), Address(5)]),
        _ => return None,
    };
    Some(match kind {
        MX => exchanges,
        A => addresses,
        _ => Vec::new(),
    })
}

/// The answer to a query, as it goes over the wire (RFC 1035 §4.1).
pub(crate) fn answer(query: &[u8], service: Service) -> Vec<u8> {
    const HEADER: usize = 12;
    let (mut name, mut at) = (String::new(), HEADER);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name.push_str(if name.is_empty() { "" } else { "." });
        name.push_str(&String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    let question = &query[HEADER..at + 5];
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let found = records(&name, kind);
    let (flags, code) = match (service, &found) {
        (Service::Truncates, _) => (0x83, 0x80),
        (Service::Fails, _) => (0x81, 0x82),
        (Service::Answers, None) => (0x81, 0x83),
        (Service::Answers, Some(_)) => (0x81, 0x80),
    };
    let found = found.filter(|_| service == Service::Answers).unwrap_or_default();
    let mut out = vec![query[0], query[1], flags, code, 0, 1, 0, found.len() as u8, 0, 0, 0, 0];
    out.extend_from_slice(question);
    for record in found {
        let (kind, data) = match record {
            Record::Address(hop) => match address(hop) {
                IpAddr::V4(v4) => (A, v4.octets().to_vec()),
                IpAddr::V6(v6) => unreachable!("{v6}"),
            },
            Record::Exchange(preference, host) => {
                let mut data = preference.to_be_bytes().to_vec();
                for label in host.split('.').filter(|label| !label.is_empty()) {
                    data.push(label.len() as u8);
                    data.extend_from_slice(label.as_bytes());
                }
                data.push(0);
                (MX, data)
            }
        };
        // The name by a pointer to the question, class IN, a TTL of ten minutes.
        out.extend_from_slice(&[0xc0, HEADER as u8]);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1, 0, 0, 2, 88]);
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(&data);
    }
    out
}
