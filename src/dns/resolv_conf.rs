//! `/etc/resolv.conf`, the lines of it that concern us.
//!
//! Like other readers of that file, this one skips what it does not understand: a server that refuses to
//! start for a word in a file it does not own helps nobody. `search` and `domain` are skipped on purpose:
//! the names of mail are complete.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

/// A DNS server, and whether its AD bit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it listens, for UDP and TCP.
    pub address: SocketAddr,
    /// Whether its word on DNSSEC is believed.
    pub trust: Trust,
}

/// Whether a server's AD bit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The way to it is safe (the loopback, or the operator says so) and it validates.
    Believed,
    /// Anybody on the way could have set the bit.
    NotBelieved,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// The servers in order; the loopback when the file names none.
    pub servers: Vec<Server>,
    /// How long to wait for an answer (`options timeout:`).
    pub timeout: Duration,
    /// How often to go through the servers (`options attempts:`).
    pub attempts: u32,
}

const DNS_PORT: u16 = 53;
const SERVERS_MAX: usize = 8;
const LINES_MAX: usize = 1000;
// The defaults and caps of resolv.conf(5).
const TIMEOUT: u64 = 5;
const TIMEOUT_MAX: u64 = 30;
const ATTEMPTS: u32 = 2;
const ATTEMPTS_MAX: u32 = 5;

impl Server {
    /// A server that is believed when it is on the loopback.
    pub fn new(address: SocketAddr) -> Self {
        let trust = if address.ip().is_loopback() { Trust::Believed } else { Trust::NotBelieved };
        Self { address, trust }
    }

    /// Reads `192.0.2.1`, `192.0.2.1:5353`, `192.0.2.1#5353`, `2001:db8::1`, `[2001:db8::1]:5353`, `fe80::1%2`.
    pub fn parse(text: &str) -> Option<Self> {
        let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
        if let Some((ip, number)) = text.split_once('#') {
            return Some(Self::new(SocketAddr::new(ip.parse().ok()?, port(number)?)));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() != 0).then(|| Self::new(address));
        }
        if let Some((ip, scope)) = text.split_once('%') {
            let ip: Ipv6Addr = ip.parse().ok()?;
            return Some(Self::new(SocketAddrV6::new(ip, DNS_PORT, 0, scope.parse().ok()?).into()));
        }
        Some(Self::new(SocketAddr::new(text.parse().ok()?, DNS_PORT)))
    }
}

impl ResolvConf {
    /// Reads the text of the file.
    pub fn parse(text: &[u8]) -> Self {
        let mut conf =
            Self { servers: Vec::new(), timeout: Duration::from_secs(TIMEOUT), attempts: ATTEMPTS };
        let mut trust_all = false;
        for line in String::from_utf8_lossy(text).lines().take(LINES_MAX) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(Server::parse);
                    conf.servers.extend(server.filter(|_| conf.servers.len() < SERVERS_MAX));
                }
                Some("options") => {
                    for option in words {
                        if option == "trust-ad" {
                            trust_all = true;
                        } else if let Some((key, value)) = option.split_once(':') {
                            conf.set(key, value);
                        }
                    }
                }
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push(Server::new((IpAddr::V4(Ipv4Addr::LOCALHOST), DNS_PORT).into()));
        }
        if trust_all {
            conf.servers.iter_mut().for_each(|server| server.trust = Trust::Believed);
        }
        conf
    }

    fn set(&mut self, key: &str, value: &str) {
        match (key, value.parse::<u32>()) {
            ("timeout", Ok(secs)) => {
                self.timeout = Duration::from_secs(u64::from(secs).clamp(1, TIMEOUT_MAX))
            }
            ("attempts", Ok(attempts)) => self.attempts = attempts.clamp(1, ATTEMPTS_MAX),
            _ => {}
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn check(text: &str, servers: &[&str], timeout: u64, attempts: u32) {
        let conf = ResolvConf::parse(text.as_bytes());
        let found: Vec<_> = conf.servers.iter().map(|s| s.address.to_string()).collect();
        assert_eq!(found, servers, "{text}");
        assert_eq!((conf.timeout.as_secs(), conf.attempts), (timeout, attempts), "{text}");
    }

    #[test]
    fn files_as_they_are_found() {
        check("", &["127.0.0.1:53"], 5, 2);
        check("# by hand\nnameserver 192.0.2.1\n", &["192.0.2.1:53"], 5, 2);
        check(
            "search example.org\nnameserver 2001:db8::1\r\nnameserver\t192.0.2.1 # a\noptions edns0 timeout:2 attempts:3 rotate\n",
            &["[2001:db8::1]:53", "192.0.2.1:53"],
            2,
            3,
        );
        check("nameserver fe80::1%2\n", &["[fe80::1%2]:53"], 5, 2);
        check("nameserver 127.0.0.1:5353\nnameserver ::1#5354", &["127.0.0.1:5353", "[::1]:5354"], 5, 2);
        check("options timeout:999 attempts:0\nnameserver 1.2.3.4", &["1.2.3.4:53"], 30, 1);
    }

    #[test]
    fn files_as_nobody_should_have_them() {
        check(
            "nameserver\nnameserver example.org\noptions\noptions timeout: attempts:x",
            &["127.0.0.1:53"],
            5,
            2,
        );
        check("nameserver 1.2.3.4:0", &["127.0.0.1:53"], 5, 2);
        check("\0\u{fffd}nameserver 1.2.3.4\n;nameserver 1.2.3.4", &["127.0.0.1:53"], 5, 2);
        assert_eq!(ResolvConf::parse(&b"nameserver 1.2.3.4\n".repeat(500)).servers.len(), SERVERS_MAX);
        assert_eq!(ResolvConf::parse(b"\xff\xfe\x00nameserver").servers.len(), 1);
    }

    #[test]
    fn whose_proof_counts() {
        let trust = |text: &str| ResolvConf::parse(text.as_bytes()).servers[0].trust;
        assert_eq!(trust("nameserver ::1"), Trust::Believed);
        assert_eq!(trust("nameserver 192.0.2.1"), Trust::NotBelieved);
        assert_eq!(trust("options trust-ad\nnameserver 192.0.2.1"), Trust::Believed);
    }
}
