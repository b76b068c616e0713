//! Is this address in one of our networks? Asked once per connection, of lists of any length.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of IP addresses, as ranges in order that neither overlap nor touch: found by halving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// The addresses in any of these networks.
    pub fn new(networks: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            // Both ends, since `::/0` is more than the IPv4 addresses that are in it.
            match (network.network().to_canonical(), network.broadcast().to_canonical()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                (_, _) => {
                    let IpNet::V6(network) = network else { continue };
                    v6.push((network.network().to_bits(), network.broadcast().to_bits()));
                }
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }

    /// Whether the address is in one of them. An IPv4 address in IPv6 form (RFC 4291 §2.5.5.2), as a socket
    /// for both shows it, is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => within(&self.v4, address.to_bits()),
            IpAddr::V6(address) => within(&self.v6, address.to_bits()),
        }
    }
}

fn merged<T: Copy + Ord>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            Some(_) | None => merged.push((first, last)),
        }
    }
    merged
}

fn within<T: Copy + Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after > 0 && address <= ranges[after - 1].1
}

#[cfg(test)]
mod test {
    use std::net::Ipv4Addr;

    use super::*;

    fn check(networks: &[&str], inside: &[&str], outside: &[&str]) {
        let nets: Vec<IpNet> = networks.iter().map(|net| net.parse().unwrap()).collect();
        let set = Networks::new(&nets);
        for address in inside {
            assert!(set.contains(address.parse().unwrap()), "{address} in {networks:?}");
        }
        for address in outside {
            assert!(!set.contains(address.parse().unwrap()), "{address} in {networks:?}");
        }
    }

    #[test]
    fn in_and_out() {
        check(&[], &[], &["0.0.0.0", "127.0.0.1", "::", "::1"]);
        check(
            &["127.0.0.0/8", "::1/128"],
            &["127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"],
            &["126.255.255.255", "128.0.0.0", "::", "::2", "::7f00:1"],
        );
        check(
            &["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "9.0.0.0/8"],
            &["10.1.2.3", "10.255.0.1", "192.0.2.7", "9.0.0.0"],
            &["11.0.0.0", "8.255.255.255", "192.0.2.6", "192.0.2.8"],
        );
        check(&["0.0.0.0/0"], &["0.0.0.0", "255.255.255.255"], &["::1", "2001:db8::1"]);
        check(&["::/0"], &["::1", "ffff::1"], &["192.0.2.1", "::ffff:192.0.2.1"]);
        check(&["::ffff:10.0.0.0/104"], &["10.9.9.9", "::ffff:10.0.0.1"], &["11.0.0.0"]);
        check(&["2001:db8::/33", "2001:db8:8000::/33"], &["2001:db8:ffff::1"], &["2001:db9::"]);
    }

    #[test]
    fn as_many_as_you_like_agree_with_looking_at_each() {
        let mut random = 1u64;
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random >> 32
        };
        let nets: Vec<IpNet> = (0..200)
            .map(|_| {
                let address = Ipv4Addr::from_bits(next() as u32);
                IpNet::new(address.into(), 8 + (next() % 25) as u8).unwrap().trunc()
            })
            .collect();
        let set = Networks::new(&nets);
        for _ in 0..2_000 {
            let address = IpAddr::V4(Ipv4Addr::from_bits(next() as u32));
            assert_eq!(set.contains(address), nets.iter().any(|net| net.contains(&address)), "{address}");
        }
    }
}
