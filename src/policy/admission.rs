//! May this client connect: lists, caps and rates.

use std::net::IpAddr;

use config::Limits;
use smtp::Refusal;

use crate::{Networks, Policy, Standing};

/// What the site's lists say of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// It is spared what strangers have to bear.
    Spared,
    /// It is turned away.
    Denied,
    /// Nothing: it is a stranger.
    Unlisted,
}

/// Connections open now on the host, the new one included. Those whom the lists spare are in the first two alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// On all listeners.
    pub host: u32,
    /// On the listener.
    pub listener: u32,
    /// From the client's address.
    pub client: u32,
    /// From its network.
    pub network: u32,
}

/// Whether connections come faster than they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// They do not.
    Steady,
    /// On the host as a whole.
    HostOver,
    /// From the client's address.
    ClientOver,
    /// From its network.
    NetworkOver,
}

/// Why a client is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// It is on the list.
    Denied,
    /// The host has as many connections as it may.
    Host,
    /// The listener has.
    Listener,
    /// The client has.
    Client,
    /// Its network has.
    Network,
    /// Connections come too fast, as [`Pace`] says.
    HostRate,
    /// From this client.
    ClientRate,
    /// From its network.
    NetworkRate,
}

impl Turned {
    /// What the client is told.
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::Denied => Refusal::ConnectionRefused,
            Self::Host
            | Self::Listener
            | Self::Client
            | Self::Network
            | Self::HostRate
            | Self::ClientRate
            | Self::NetworkRate => Refusal::TooManyConnections,
        }
    }
}

/// Clients that are allowed and denied, whoever else they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lists {
    allow: Networks,
    deny: Networks,
}

impl Lists {
    /// Those of a configuration.
    pub fn new(config: &config::Config) -> Self {
        let config::Clients { allow, deny, .. } = &config.clients;
        Self { allow: Networks::new(allow), deny: Networks::new(deny) }
    }

    /// As [`Policy::bring`].
    ///
    /// # Errors
    /// [`Turned::Denied`] when it is on the list.
    pub fn bring(&self, address: IpAddr) -> Result<(), Turned> {
        let denied = self.deny.contains(address) && !self.allow.contains(address);
        if denied { Err(Turned::Denied) } else { Ok(()) }
    }
}

impl Policy {
    /// What the lists say of a client; `None`: it came by a Unix socket. Our own are spared unless they are denied.
    pub fn listing(&self, address: Option<IpAddr>) -> Listing {
        let Some(address) = address else { return Listing::Spared };
        if self.lists.allow.contains(address) {
            Listing::Spared
        } else if self.lists.deny.contains(address) {
            Listing::Denied
        } else {
            match self.standing(Some(address)) {
                Standing::Own => Listing::Spared,
                Standing::Stranger => Listing::Unlisted,
            }
        }
    }

    /// May this client bring mail where connections are not counted? The lists hold there, caps and rates do not.
    ///
    /// # Errors
    /// [`Turned::Denied`] when it is on the list.
    pub fn bring(&self, address: IpAddr) -> Result<(), Turned> {
        self.lists.bring(address)
    }

    /// May this client connect?
    ///
    /// # Errors
    /// Why not.
    pub fn connect(
        &self,
        listing: Listing,
        connections: Connections,
        pace: Pace,
        limits: &Limits,
    ) -> Result<(), Turned> {
        let Connections { host, listener, client, network } = connections;
        let caps = [
            (host > self.connections_max, Turned::Host),
            (listener > limits.connections_max, Turned::Listener),
            (client > limits.connections_per_client_max, Turned::Client),
            (network > limits.connections_per_network_max, Turned::Network),
        ];
        let of_listing = match listing {
            Listing::Denied => return Err(Turned::Denied),
            // Our own hosts come with as many connections as they like.
            Listing::Spared => 2,
            Listing::Unlisted => caps.len(),
        };
        if let Some((_, turned)) = caps[..of_listing].iter().find(|(over, _)| *over) {
            return Err(*turned);
        }
        match (listing, pace) {
            (Listing::Spared | Listing::Denied, _) | (Listing::Unlisted, Pace::Steady) => Ok(()),
            (Listing::Unlisted, Pace::HostOver) => Err(Turned::HostRate),
            (Listing::Unlisted, Pace::ClientOver) => Err(Turned::ClientRate),
            (Listing::Unlisted, Pace::NetworkOver) => Err(Turned::NetworkRate),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use config::Config;

    fn policy() -> Policy {
        let mut config = Config::default();
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        config.clients.allow = networks(&["192.0.2.0/25", "127.0.0.9/32"]);
        config.clients.deny = networks(&["192.0.2.0/24", "127.0.0.8/31", "2001:db8::/32"]);
        config.clients.connections_max = 20;
        Policy::new(&config)
    }

    #[test]
    fn what_the_lists_say() {
        for (address, expected) in [
            ("192.0.2.1", Listing::Spared),
            ("::ffff:192.0.2.1", Listing::Spared),
            ("192.0.2.129", Listing::Denied),
            ("2001:db8::1", Listing::Denied),
            ("127.0.0.1", Listing::Spared),
            ("127.0.0.8", Listing::Denied),
            ("127.0.0.9", Listing::Spared),
            ("203.0.113.1", Listing::Unlisted),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(policy().listing(Some(address)), expected, "{address}");
            let may_bring = if expected == Listing::Denied { Err(Turned::Denied) } else { Ok(()) };
            assert_eq!(policy().bring(address), may_bring, "{address}");
        }
        assert_eq!(policy().listing(None), Listing::Spared);
    }

    #[test]
    fn who_may_connect() {
        let limits = Limits {
            connections_max: 10,
            connections_per_client_max: 3,
            connections_per_network_max: 5,
            ..Limits::default()
        };
        let check =
            |listing, [host, listener, client, network]: [u32; 4], pace, expected: Result<(), Turned>| {
                let connections = Connections { host, listener, client, network };
                let found = policy().connect(listing, connections, pace, &limits);
                assert_eq!(found, expected, "{listing:?} {connections:?} {pace:?}");
            };
        let stranger = Listing::Unlisted;
        check(stranger, [20, 10, 3, 5], Pace::Steady, Ok(()));
        check(stranger, [21, 10, 3, 5], Pace::Steady, Err(Turned::Host));
        check(stranger, [20, 11, 3, 5], Pace::Steady, Err(Turned::Listener));
        check(stranger, [20, 10, 4, 5], Pace::Steady, Err(Turned::Client));
        check(stranger, [20, 10, 3, 6], Pace::Steady, Err(Turned::Network));
        check(stranger, [1, 1, 1, 1], Pace::HostOver, Err(Turned::HostRate));
        check(stranger, [1, 1, 1, 1], Pace::ClientOver, Err(Turned::ClientRate));
        check(stranger, [1, 1, 1, 1], Pace::NetworkOver, Err(Turned::NetworkRate));
        check(Listing::Spared, [20, 10, 9, 9], Pace::ClientOver, Ok(()));
        check(Listing::Spared, [21, 10, 0, 0], Pace::Steady, Err(Turned::Host));
        check(Listing::Spared, [20, 11, 0, 0], Pace::Steady, Err(Turned::Listener));
        check(Listing::Denied, [1, 1, 0, 0], Pace::Steady, Err(Turned::Denied));
    }

    #[test]
    fn lists_are_told_apart_in_the_reply() {
        assert_eq!(Turned::Denied.refusal().code(), 554);
        for turned in [Turned::Host, Turned::Client, Turned::NetworkRate] {
            assert_eq!(turned.refusal().code(), 421, "{turned:?}");
        }
    }
}
