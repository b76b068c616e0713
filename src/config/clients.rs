//! Who comes to us: lists, what holds for the whole host, and what is looked at of strangers.

use std::{fmt, time::Duration};

use ipnet::IpNet;
use mail::Address;

use crate::{
    DomainPattern, Tolerance,
    notation::{List, Literal, Maybe, Time, Whole, Word},
    schema::{choice, section},
};

section! {
    /// Those who come to us, over all cores and listeners. Clients that may relay, clients in `allow` and Unix sockets are
    /// spared: caps and rates of clients and networks (`[limits]`) are for strangers. During an upgrade the old program and the
    /// new one count each for itself, so that caps and rates may be reached twice.
    pub struct Clients {
        /// Networks and addresses whose clients are spared. They may not relay for that.
        allow: Vec<IpNet> [List<Literal>] = Vec::new();
        /// Networks and addresses whose clients are turned away: 554, or 403 by HTTP. What is in `allow` too is let in.
        deny: Vec<IpNet> [List<Literal>] = Vec::new();
        /// Names that strangers may not introduce themselves by: 550 to EHLO and HELO.
        deny_names: Vec<DomainPattern> [List<Literal>] = Vec::new();
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
        /// What greylisting remembers, over all listeners: entries of some 30 bytes each. When there are more, those go first that came
        /// last and have not come again; `ringpost_greylist_evicted_total` counts them.
        greylisted_max: u64 [Whole<1024, 1_000_000_000>] = 1_000_000;
    }
}

section! {
    /// Who may not send, whoever brings the mail: reverse-paths.
    pub struct Senders {
        /// Addresses and domains from which nothing is taken: 550 to MAIL.
        deny: Vec<SenderPattern> [List<Literal>] = Vec::new();
        /// Addresses and domains from which it is all the same.
        allow: Vec<SenderPattern> [List<Literal>] = Vec::new();
    }
}

section! {
    /// How programs are asked whether there is a recipient (`domain.verify`): by TCP, as Postfix asks a `tcp_table`. We send
    /// "get ann@example.org", and they answer with a line that begins with 200 for yes, 500 for no or 400 for not now.
    pub struct Verify {
        /// For an answer, connecting and waiting for others included.
        timeout: Duration [Time<10, 60_000>] = Duration::from_secs(5);
        /// What becomes of a recipient about whom there was no answer.
        on_failure: VerifyFailure [Word] = VerifyFailure::Defer;
        /// How long it is remembered that there is one. "0s": not at all.
        found_time: Duration [Time<0, 604_800_000>] = Duration::from_secs(3600);
        /// How long it is remembered that there is none. "0s": not at all.
        absent_time: Duration [Time<0, 604_800_000>] = Duration::from_secs(300);
        /// Answers that each core remembers.
        cache_max: u32 [Whole<0, 10_000_000>] = 50_000;
        /// Connections of each core to all of these programs together.
        connections_max: u32 [Whole<1, 1000>] = 8;
    }
}

choice! {
    /// What becomes of a recipient about whom there was no answer.
    pub enum VerifyFailure {
        /// it gets 451, and the client comes again
        Defer = "defer",
        /// it is accepted
        Accept = "accept",
    }
}

section! {
    /// What is looked at of strangers. No check proves anything, and each has its false alarms (RFC 5321 §4.1.4), so none is
    /// made that is not asked for.
    pub struct Checks {
        /// Names given with EHLO and HELO that are neither a domain nor an address literal (RFC 5321 §4.1.1.1).
        malformed_names: Tolerance [Word] = Tolerance::Accept;
        /// Names without a dot.
        unqualified_names: Tolerance [Word] = Tolerance::Accept;
        /// Address literals that are not the address of the client (RFC 5321 §4.1.3).
        foreign_literals: Tolerance [Word] = Tolerance::Accept;
        /// Our own name, `hostname`.
        our_name: Tolerance [Word] = Tolerance::Accept;
        /// Messages whose header section lacks From or Date (RFC 5322 §3.6): 550. What a user's program leaves out is added on
        /// listeners of kind "submission", and nowhere else (RFC 6409 §8).
        missing_fields: Tolerance [Word] = Tolerance::Accept;
        /// Messages in which From, Date, Sender, Reply-To, To, Cc, Bcc, Message-ID or Subject stands twice (RFC 5322 §3.6): 550.
        /// Who reads the one may not see what was checked of the other.
        repeated_fields: Tolerance [Word] = Tolerance::Accept;
        /// Messages with lines in the header section that are no field (RFC 5322 §2.2): 550.
        malformed_fields: Tolerance [Word] = Tolerance::Accept;
        /// Messages with octets above 127 in the header section, but UTF-8 with SMTPUTF8 (RFC 6532): 550.
        eight_bit_fields: Tolerance [Word] = Tolerance::Accept;
        /// More than one recipient for the null reverse-path: reports go to whoever sent, and that is one (RFC 5321 §4.5.5).
        /// The others get 452, which has an honest client send to each by itself.
        reports_for_many: Tolerance [Word] = Tolerance::Accept;
        /// The name of the client's address in the DNS. It is looked up before the greeting.
        reverse_name: ReverseRule [Word] = ReverseRule::Ignore;
    }
}

choice! {
    /// What the name of a client's address has to be.
    pub enum ReverseRule {
        /// it is not looked up
        Ignore = "ignore",
        /// it is told in the Received field when it leads back to the address (RFC 8601 §2.7.3)
        Look = "look",
        /// there has to be one: 550 to MAIL, or 451 when the DNS does not answer
        Named = "named",
        /// it has to lead back to the address
        Confirmed = "confirmed",
    }
}

/// Reverse-paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SenderPattern {
    /// One address.
    Address(Address),
    /// All of a domain, or of some.
    Domains(DomainPattern),
}

impl fmt::Display for SenderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Domains(domains) => write!(f, "{domains}"),
        }
    }
}
