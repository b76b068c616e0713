//! Who comes to us, whoever the listener: lists, and what holds for the whole host.

use ipnet::IpNet;

use crate::{
    notation::{List, Literal, Maybe, Whole},
    schema::section,
};

section! {
    /// Those who come to us, over all cores and listeners. Clients that may relay, clients in `allow` and Unix sockets are
    /// spared: caps and rates of clients and networks (`[limits]`) are for strangers.
    pub struct Clients {
        /// Networks and addresses whose clients are spared. They may not relay for that.
        allow: Vec<IpNet> [List<Literal>] = Vec::new();
        /// Networks and addresses whose clients are turned away: 554. What is in `allow` too is let in.
        deny: Vec<IpNet> [List<Literal>] = Vec::new();
        /// Connections open at once on all listeners together. Over it: 421.
        connections_max: u32 [Whole<1, 10_000_000>] = 100_000;
        /// Connections of strangers in a minute on all listeners together; so many may come all at once. Over it: 421.
        connection_rate: Option<u32> [Maybe<Whole<1, 100_000_000>>] = None;
        /// So many bits of an IPv4 address are its network.
        network_v4: u8 [Whole<8, 32>] = 24;
        /// So many bits of an IPv6 address are its network. Who has one address there mostly has 2^64.
        network_v6: u8 [Whole<16, 128>] = 64;
        /// Addresses and networks that are counted at a time, some 100 bytes each. When there are more, those are forgotten
        /// first that have no connection and used least of their rates; where all have one, caps and rates do not hold for
        /// newcomers, who are counted in `ringpost_clients_untracked_total`.
        tracked_max: u32 [Whole<1024, 100_000_000>] = 200_000;
    }
}
