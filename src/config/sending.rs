//! Sending mail on: routes, DNS, the queue, and how patient we are.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use mail::{Address, Domain};

use crate::{
    Secret,
    notation::{FilePath, List, Literal, Maybe, Names, Size, Text, Time, Whole, Word, YesNo},
    schema::{Entry, choice, section},
};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// Which domains a route is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// `*`: every domain.
    Any,
    /// `*.example.org`: what is below the domain, not the domain.
    Below(Domain),
    /// `example.org`: the domain alone.
    Exact(Domain),
}

/// A host to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// By address.
    Address(IpAddr),
    /// By name; its addresses are looked up.
    Name(Domain),
    /// It is this one, at a Unix socket.
    Unix(PathBuf),
}

/// A next hop with its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// The host.
    pub host: Host,
    /// The port; 25 when none was written, and of no meaning at a Unix socket.
    pub port: u16,
}

choice! {
    /// How mail of a route leaves.
    pub enum Via {
        /// to the hosts that DNS names for the domain (RFC 5321 §5.1)
        Mx = "mx",
        /// to `hosts`, one after the other
        Hop = "hop",
        /// to `hosts` by LMTP (RFC 2033), which is for servers that keep mail: they answer for each recipient
        Lmtp = "lmtp",
        /// into a program, named by `program`
        Pipe = "pipe",
        /// to a service that speaks HTTP, named by `endpoint`
        Http = "http",
        /// nowhere: it counts as delivered and is forgotten
        Discard = "discard",
        /// not yet: it waits until somebody comes for it (ATRN, see `[[etrn]]`), or a reload gives it another route
        Hold = "hold",
    }
}

choice! {
    /// How a route uses TLS.
    pub enum RouteTls {
        /// not at all
        None = "none",
        /// when the next hop offers it, whatever its certificate (RFC 7435)
        Opportunistic = "opportunistic",
        /// always, whatever its certificate
        Required = "required",
        /// when the next hop offers it; and always to a host that has TLSA records, whose certificate must be as they
        /// say (RFC 7672). It takes a resolver that validates: see `dns.trust-ad`
        Dane = "dane",
        /// always, to hosts with TLSA records alone, and the certificate must be as they say
        DaneRequired = "dane-required",
        /// always, and the certificate must be good for the name of the host
        Verified = "verified",
    }
}

choice! {
    /// What becomes of content that a next hop does not offer to take.
    pub enum EightBit {
        /// it is encoded, part by part (RFC 6152, RFC 2045), which breaks a DKIM signature; what is signed itself
        /// (multipart/signed) comes back
        Convert = "convert",
        /// it comes back to its sender (5.6.3)
        Refuse = "refuse",
        /// content of 8 bits goes out as if they had offered to take it, as many servers do and most take; binary content comes back
        AsIs = "as-is",
    }
}

section! {
    /// Where mail goes. The pattern that says most of a domain wins: the domain itself before
    /// `*.example.org`, a longer one before a shorter one, `*` last. Mail that no route is for is refused.
    pub struct Route {
        /// In messages, logs and metrics, and for later files to find it.
        name: String [Text] = String::new();
        /// For which recipients' domains.
        domains: Vec<DomainPattern> [List<Literal>] = Vec::new();
        /// How.
        via: Via [Word] = Via::Mx;
        /// With via = "hop" or "lmtp": the next hops, the best first. "unix:/run/dovecot/lmtp" is a socket of this host, where TLS is not
        /// spoken.
        hosts: Vec<Hop> [List<Literal>] = Vec::new();
        /// With via = "pipe": the name of a `[[program]]`.
        program: Option<String> [Maybe<Text>] = None;
        /// With via = "http": the name of an `[[endpoint]]`.
        endpoint: Option<String> [Maybe<Text>] = None;
        /// With via = "mx": the port of the hosts.
        port: u16 [Whole<1, 65535>] = 25;
        /// TLS towards the next hop: the least there has to be.
        tls: RouteTls [Word] = RouteTls::Dane;
        /// With via = "mx": keep to the policies that domains publish about the TLS of their hosts (MTA-STS, RFC 8461). Where a
        /// host has TLSA records that are kept to, they count and not the policy. Not with tls = "none" or "dane-required".
        mta_sts "mta-sts": bool [YesNo] = true;
        /// The certificate that is shown to next hops which ask for one, and what is between it and its root, as PEM. Empty:
        /// none.
        client_certificate: Option<PathBuf> [Maybe<FilePath>] = None;
        /// Its private key, as PEM.
        client_key: Option<PathBuf> [Maybe<FilePath>] = None;
        /// With via = "hop" or "lmtp": as whom we log in there, the name of a `[[credential]]`. Empty: we do not.
        credential: Option<String> [Maybe<Text>] = None;
        /// Connections open at once to one next hop, over all cores.
        concurrency_max: u32 [Whole<1, 100_000>] = 20;
        /// How long a connection is kept for more mail.
        idle: Duration [Time<0, { HOUR }>] = Duration::from_secs(10);
        /// Messages on one connection; then a new one is made.
        transactions_max: u32 [Whole<1, 1_000_000>] = 1000;
        /// Send with BDAT where it is offered (RFC 3030).
        chunking: bool [YesNo] = true;
        /// What becomes of content of 8 bits where the next hop does not offer 8BITMIME, and of binary content where it does not offer
        /// BINARYMIME.
        eight_bit "8bit": EightBit [Word] = EightBit::Convert;
        /// Send the next message's commands before the answer to the last one has come: one round trip a message.
        /// For next hops one knows; some servers stop at what they did not expect yet.
        chaining: bool [YesNo] = false;
        /// Tell next hops that offer XFORWARD where a message first came from, so that it stands in their logs: for
        /// filters and mail servers of yours. What came in before a route said so is not known any more.
        xforward: bool [YesNo] = false;
        /// Send with a reverse-path of ours in the place of the sender's, so that reports come to us and are read: see
        /// `[bounces]`. The sender hears of a refusal as before, and of what is reported later from the log alone.
        verp: bool [YesNo] = false;
        /// Send mail of others with a reverse-path that leads back to its sender by way of us (`[srs]`): for domains of ours whose mail goes on to
        /// somebody else's server, who would otherwise find that we may not send for them (SPF). Mail with a sender of a `[[domain]]` of ours
        /// keeps it.
        srs: bool [YesNo] = false;
        /// Our addresses to send from. Empty: the kernel chooses.
        source_address: Vec<IpAddr> [List<Literal>] = Vec::new();
        /// The `[[pool]]` of sources that its mail leaves from, unless its tenant or site has one. Empty: none.
        pool: Option<String> [Maybe<Text>] = None;
    }
}

choice! {
    /// What becomes of mail to an address for reports that we did not make.
    pub enum UnsignedReports {
        /// it is refused, as mail to an address that does not exist
        Refuse = "refuse",
        /// it is taken and forgotten
        Ignore = "ignore",
    }
}

section! {
    /// Where reports on mail that we sent come back to. Routes with `verp = true` send with a reverse-path such as
    /// bounces+7h3…@DOMAIN, which tells by itself, signed, which message and recipient it is about. What comes to such an
    /// address is read and is an event `bounced` in the log; a complaint (RFC 5965) is an event `complained`. The
    /// domain is for nothing else: its MX leads to us, its SPF record names us, and a recipient there is none of a `[[domain]]`.
    pub struct Bounces {
        /// The domain of these addresses. Empty: there are none.
        domain: Option<Domain> [Maybe<Literal>] = None;
        /// What they are signed with: the same on every host that sends for the domain. Empty: none is signed.
        secret: Option<Secret> [Maybe<Literal>] = None;
        /// What stands before the signed part.
        local_part: String [Text] = "bounces".into();
        /// The local-part to which complaints come, as one gives it to providers for their feedback loops.
        complaints: String [Text] = "complaints".into();
        /// How long an address is taken after it was made. Reports may come after days of tries at other hosts.
        lifetime: Duration [Time<{ DAY }, { 90 * DAY }>] = Duration::from_secs(14 * 86_400);
        /// Mail to other addresses of the domain, and to those that are too old.
        unsigned: UnsignedReports [Word] = UnsignedReports::Refuse;
    }
}

section! {
    /// Senders' addresses of mail that is passed on to others by routes with `srs = true` (Sender Rewriting Scheme). Such an address,
    /// SRS0=…=a.example=ann@DOMAIN, leads back to ann@a.example: what is reported to it is sent on to her. The domain is for nothing else: its MX
    /// leads to us, its SPF record names us, and it is no `[[domain]]`.
    pub struct Srs {
        /// The domain of these addresses. Empty: there are none.
        domain: Option<Domain> [Maybe<Literal>] = None;
        /// What they are signed with. The first signs, all are known: to change it, put the new one in front, and take the old one away when
        /// `lifetime` is over. The same on every host that passes mail on for the domain.
        secrets: Vec<Secret> [List<Literal>] = Vec::new();
        /// How long an address is taken after it was made. Reports may come after days of tries at other hosts.
        lifetime: Duration [Time<{ DAY }, { 365 * DAY }>] = Duration::from_secs(21 * 86_400);
    }
}

section! {
    /// Whose word counts for a next hop's certificate where it has to be good: on routes with tls = "verified", for domains
    /// with a policy (`mta-sts`), and for mail with REQUIRETLS. Where TLSA records are kept to, they count.
    pub struct OutboundTls {
        /// The authorities that browsers believe: Mozilla's list, built into the program.
        public_authorities: bool [YesNo] = true;
        /// Files of more authorities, or of single certificates to be believed as they are, in PEM.
        authorities: Vec<PathBuf> [List<FilePath>] = Vec::new();
    }
}

section! {
    /// The policies of domains about the TLS of their hosts (MTA-STS, RFC 8461), on routes that keep to them. They are kept
    /// for as long as they say, over a restart too.
    pub struct MtaSts {
        /// How long the host that has a policy may take to give it. Mail for the domain waits that long.
        timeout: Duration [Time<{ SECOND }, { 300 * SECOND }>] = Duration::from_secs(30);
        /// Where such hosts listen. Anything but 443 is for trials.
        port: u16 [Whole<1, 65535>] = 443;
        /// Policies that are kept at once.
        policies_max: u32 [Whole<100, 10_000_000>; Restart] = 100_000;
    }
}

section! {
    /// Reports on how TLS went with the hosts of each domain, once a day (UTC), to the domains that ask for them (RFC 8460). What is
    /// not told yet is kept over a stop; a crash loses a minute of it.
    pub struct TlsReports {
        /// Whether there are any.
        enabled: bool [YesNo] = false;
        /// From whom they come, and whom to ask about them. Empty: `postmaster` at `hostname`.
        contact: Option<Address> [Maybe<Literal>] = None;
        /// Who we are, in words. Empty: `hostname`.
        organization: Option<String> [Maybe<Text>] = None;
        /// They go out within so long after midnight, at a moment drawn by chance (RFC 8460 §4.1).
        jitter: Duration [Time<0, { 12 * HOUR }>] = Duration::from_secs(4 * 3_600);
        /// Days that may wait to be told; an operator may end one at any time. Of more the oldest is told to nobody.
        days_max: u32 [Whole<1, 1000>] = 16;
    }
}

section! {
    /// How long we wait for next hops. RFC 5321 §4.5.3.2 names the least of most of these.
    pub struct OutboundTimeouts {
        /// For a connection.
        connect: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(30);
        /// After so long another address of the host, or a host with the same preference, is connected to beside the one that does
        /// not answer; whoever is there first is sent the mail (RFC 8305 §8: 250 ms, which is longer than the way to any host
        /// that answers, and much shorter than a worker should wait for one that does not). "0s": only when the first has failed.
        attempt_delay: Duration [Time<0, { HOUR }>] = Duration::from_millis(250);
        /// For a TLS handshake.
        handshake: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(30);
        /// For the greeting (RFC 5321 §4.5.3.2.1).
        greeting: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(300);
        /// For the reply to EHLO, RSET and QUIT.
        ehlo: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(300);
        /// For the reply to MAIL (RFC 5321 §4.5.3.2.2).
        mail: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(300);
        /// For the reply to RCPT (RFC 5321 §4.5.3.2.3).
        rcpt: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(300);
        /// For the reply to DATA (RFC 5321 §4.5.3.2.4).
        data: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(120);
        /// For the next hop to take the next piece of mail data (RFC 5321 §4.5.3.2.5).
        block: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(180);
        /// For the reply to the final dot (RFC 5321 §4.5.3.2.6). Too short a time sends mail twice.
        final_dot "final": Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(600);
    }
}

section! {
    /// The DNS client of each core.
    pub struct Dns {
        /// Whom to ask, in order. Empty: those of /etc/resolv.conf.
        servers: Vec<SocketAddr> [List<Literal>] = Vec::new();
        /// Whether the AD bit of all of them is believed, by which they say that DNSSEC has proved an answer: they validate, and
        /// the way to them is safe. One on the loopback is always believed. With an empty `servers`, `options trust-ad` in
        /// /etc/resolv.conf says the same.
        trust_ad "trust-ad": bool [YesNo] = false;
        /// How long to wait for one server.
        timeout: Duration [Time<100, 60_000>] = Duration::from_secs(3);
        /// How often a question is asked before we give up for now.
        attempts: u32 [Whole<1, 20>] = 3;
        /// UDP sockets open at once on each core. A query has one of its own, from a random port, and shares it only
        /// when so many are open (RFC 5452 §9.2).
        sockets: u16 [Whole<1, 4096>] = 64;
        /// TCP connections open at once on each core, for answers that are too long for UDP.
        streams: u16 [Whole<1, 1024>] = 16;
        /// Memory for answers on each core.
        cache_size: u64 [Size<{ 64 << 10 }, { 64 << 30 }>] = 16 << 20;
        /// An answer is kept at least so long,
        ttl_min: Duration [Time<0, { HOUR }>] = Duration::from_secs(5);
        /// and at most so long.
        ttl_max: Duration [Time<{ SECOND }, { 7 * DAY }>] = Duration::from_secs(86_400);
        /// That a name does not exist is kept at most so long.
        negative_ttl_max: Duration [Time<{ SECOND }, { DAY }>] = Duration::from_secs(3_600);
        /// That no server could say is kept so long (RFC 2308 §7).
        failure_ttl: Duration [Time<0, { 300 * SECOND }>] = Duration::from_secs(5);
        /// Hosts answered from here and never asked for.
        hosts: Vec<(Domain, Vec<IpAddr>)> [Names<List<Literal>>] = Vec::new();
    }
}

section! {
    /// When mail is tried again, and for how long.
    pub struct Queue {
        /// How long to wait after the first, the second, … attempt. After the last, each wait is double the one before.
        retry: Vec<Duration> [List<Time<{ SECOND }, { 7 * DAY }>>] =
            [5, 15, 30, 60].map(|minutes| Duration::from_secs(60 * minutes)).to_vec();
        /// But never longer than this.
        retry_max: Duration [Time<{ SECOND }, { 7 * DAY }>] = Duration::from_secs(3 * 3_600);
        /// Waits are made longer or shorter by up to so many percent, so that mail does not come back in one wave.
        jitter: u8 [Whole<0, 50>] = 10;
        /// How long to wait after the first attempt where who comes for the first time is to come again (greylisting), at least,
        /// unless the reply says how long. Empty: as after any other. A `[[retry]]` that fits goes before this.
        greylist_retry: Option<Duration> [Maybe<Time<{ SECOND }, { 7 * DAY }>>] = Some(Duration::from_secs(300));
        /// After so long a message is returned to its sender (RFC 5321 §4.5.4.1 wants 4 to 5 days).
        give_up: Duration [Time<{ SECOND }, { 90 * DAY }>] = Duration::from_secs(5 * 86_400);
        /// The same for mail with the null reverse-path, which cannot be returned: it is dropped.
        bounce_give_up: Duration [Time<{ SECOND }, { 90 * DAY }>] = Duration::from_secs(86_400);
        /// After so long the sender is told once that mail waits. Empty: never.
        delay_warning: Option<Duration> [Maybe<Time<{ SECOND }, { 90 * DAY }>>] =
            Some(Duration::from_secs(4 * 3_600));
        /// What was held, or lay still while we were down, is tried for at least so long before it is returned.
        grace: Duration [Time<0, { 7 * DAY }>] = Duration::from_secs(3_600);
        /// How long a next hop that cannot be reached is left alone, the first time; then each time twice as long,
        destination_retry_min: Duration [Time<{ SECOND }, { DAY }>] = Duration::from_secs(60);
        /// but never longer than this.
        destination_retry_max: Duration [Time<{ SECOND }, { DAY }>] = Duration::from_secs(30 * 60);
        /// How long a core sends on a connection to a next hop before it leaves it to another core that waits for one:
        /// the `concurrency-max` of a route are for all cores.
        connection_turn: Duration [Time<0, { HOUR }>] = Duration::from_secs(1);
        /// Percent of a core that a long change of the queue in the background may take while there is mail; it takes more while
        /// there is none.
        task_share: u8 [Whole<1, 100>] = 3;
        /// The header field in which mail of our own clients says which campaign it is of, such as "X-Campaign": up to 128 octets of it are
        /// kept with the message, for the log, for `ringpost queue`, and for `[[campaign]]`. Empty: none is looked for.
        campaign_header: Option<String> [Maybe<Text>] = None;
        /// Recipients queued at once on one core; then new mail is answered with 452.
        recipients_max: u64 [Whole<1000, 1_000_000_000>] = 20_000_000;
        /// Know large providers by the rules that come with the program (docs/queue.md). A `[[site]]` of the same name changes one.
        provider_rules: bool [YesNo] = true;
        /// Attempts under way at once on one core.
        attempts_max: u32 [Whole<1, 1_000_000>] = 1000;
        /// Recipients of one message to one next hop in one transaction. RFC 5321 §4.5.3.1.8 wants 100 at least.
        recipients_per_transaction: u32 [Whole<1, 100_000>] = 100;
    }
}

impl Entry for Route {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self { name: "internet".into(), domains: vec![DomainPattern::Any], ..Self::default() }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(domain) => write!(f, "*.{domain}"),
            Self::Exact(domain) => write!(f, "{domain}"),
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) => write!(f, "{}", SocketAddr::new(*address, self.port)),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
