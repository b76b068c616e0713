//! Taking mail in: listeners, certificates, limits, timeouts, and for whom.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use mail::Domain;

use crate::{
    Authentication, Checks, DomainPattern, Greylist, KeyHash, Strangers,
    notation::{FilePath, List, Literal, Maybe, Size, Table, Text, Time, Whole, Word, Words as _, YesNo},
    schema::{Entry, choice, section},
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

/// Where a listener waits for clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
    /// Sockets that the service manager opens for us, by their name.
    Systemd(String),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

choice! {
    /// What a listener is for.
    pub enum ListenerKind {
        /// mail from other servers (RFC 5321)
        Smtp = "smtp",
        /// mail from users' programs; incomplete header sections are completed (RFC 6409)
        Submission = "submission",
        /// mail from servers that want a reply for each recipient (LMTP, RFC 2033)
        Lmtp = "lmtp",
    }
}

choice! {
    /// How a listener speaks TLS.
    pub enum ListenerTls {
        /// not at all
        None = "none",
        /// when the client asks for it (RFC 3207)
        Starttls = "starttls",
        /// as "starttls", and no mail comes in without it
        Required = "required",
        /// from the first byte (RFC 8314)
        Implicit = "implicit",
    }
}

choice! {
    /// Whether something that is not as it should be is let through.
    pub enum Tolerance {
        /// let it through
        Accept = "accept",
        /// refuse the message
        Refuse = "refuse",
    }
}

choice! {
    /// A version of TLS.
    pub enum TlsVersion {
        /// TLS 1.2 (RFC 5246)
        Tls12 = "1.2",
        /// TLS 1.3 (RFC 8446)
        Tls13 = "1.3",
    }
}

choice! {
    /// A cipher suite.
    pub enum TlsSuite {
        /// TLS 1.3
        Aes256 = "TLS_AES_256_GCM_SHA384",
        /// TLS 1.3
        Aes128 = "TLS_AES_128_GCM_SHA256",
        /// TLS 1.3
        ChaCha = "TLS_CHACHA20_POLY1305_SHA256",
        /// TLS 1.2
        EcdsaAes256 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        /// TLS 1.2
        EcdsaAes128 = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        /// TLS 1.2
        EcdsaChaCha = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        /// TLS 1.2
        RsaAes256 = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        /// TLS 1.2
        RsaAes128 = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        /// TLS 1.2
        RsaChaCha = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    }
}

choice! {
    /// A group to agree on keys in.
    pub enum TlsGroup {
        /// with ML-KEM, so that what is recorded today stays secret from the machines of tomorrow; TLS 1.3
        X25519MlKem768 = "X25519MLKEM768",
        /// Curve25519
        X25519 = "x25519",
        /// NIST P-256
        P256 = "secp256r1",
        /// NIST P-384
        P384 = "secp384r1",
    }
}

choice! {
    /// Whether clients show a certificate.
    pub enum ClientCertificate {
        /// they are not asked
        None = "none",
        /// they are asked, and may show any or none
        Request = "request",
        /// without one that may relay there is no connection
        Require = "require",
    }
}

/// The permissions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileMode(pub u32);

/// The SHA-256 of a certificate as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(KeyHash);

impl Fingerprint {
    /// The hash itself.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// With or without `sha256:` before it and colons in it, as openssl prints it.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let digits = text.strip_prefix("sha256:").unwrap_or(&text).replace(':', "");
        KeyHash::from_text(&format!("sha256:{digits}")).map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TlsSuite {
    /// The version that has it.
    pub const fn version(self) -> TlsVersion {
        match self {
            Self::Aes256 | Self::Aes128 | Self::ChaCha => TlsVersion::Tls13,
            Self::EcdsaAes256
            | Self::EcdsaAes128
            | Self::EcdsaChaCha
            | Self::RsaAes256
            | Self::RsaAes128
            | Self::RsaChaCha => TlsVersion::Tls12,
        }
    }
}

choice! {
    /// What a domain is to us.
    pub enum DomainKind {
        /// its mailboxes are here
        Local = "local",
        /// we take its mail in and pass it on by its route
        Relay = "relay",
        /// we keep its mail while its own hosts are away: it goes to the mail exchanges that come before us, whatever the route
        /// for "*" says (RFC 5321 §5.1)
        Backup = "backup",
    }
}

section! {
    /// A door for clients. As many as you like, each with a name.
    pub struct Listener {
        /// In messages, logs and metrics, and for later files to find it.
        name: String [Text] = String::new();
        /// Where: IPv4, IPv6 and Unix sockets. "systemd:NAME" stands for the sockets that systemd has opened under that name
        /// (`FileDescriptorName=`); all cores share each of them.
        address: Vec<ListenAddress> [List<Literal>; Restart] = Vec::new();
        /// The permissions of its Unix sockets, in octal digits. Who may write to one counts as a client at 127.0.0.1.
        unix_mode: FileMode [Literal; Restart] = FileMode(0o660);
        /// The user that its Unix sockets belong to. None: the one that the server runs as.
        unix_owner: Option<String> [Maybe<Text>; Restart] = None;
        /// The group that its Unix sockets belong to. None: that of the server.
        unix_group: Option<String> [Maybe<Text>; Restart] = None;
        /// What for.
        kind: ListenerKind [Word] = ListenerKind::Smtp;
        /// Whether TLS.
        tls: ListenerTls [Word] = ListenerTls::Starttls;
        /// Whether clients show a certificate under TLS. One that is a credential may relay; see `[relay]`.
        client_certificate: ClientCertificate [Word] = ClientCertificate::None;
        /// Proxies that stand before this listener, by their networks: each connection begins with a header of the PROXY
        /// protocol, version 1 or 2, and the client is who that says. A connection from elsewhere, or without a good
        /// header, is closed. None: there is no proxy. On a Unix socket whoever may open it is believed.
        proxy_networks: Vec<IpNet> [List<Literal>] = Vec::new();
        /// Clients that may speak for others, by their networks: filters, and programs that try rules. They are offered
        /// XCLIENT, and whom they name the session is with from then on: its address is judged, counted and logged as if
        /// it had connected itself.
        xclient_networks: Vec<IpNet> [List<Literal>] = Vec::new();
        /// Clients that may tell where mail first came from, by their networks: mail servers of yours that hand mail on.
        /// They are offered XFORWARD, and what they tell stands in the log beside themselves, and goes with the message to
        /// next hops whose route has `xforward`. It changes nothing about what they may.
        xforward_networks: Vec<IpNet> [List<Literal>] = Vec::new();
        /// Connections the kernel keeps waiting for us; it takes no more than net.core.somaxconn.
        backlog: u32 [Whole<1, 65535>; Restart] = 4096;
        /// CR and LF that stand alone in mail data. They never end a line here, but they do elsewhere:
        /// it is how mail is smuggled in behind other mail (RFC 5321 §2.3.8).
        bare_line_ends: Tolerance [Word] = Tolerance::Refuse;
        /// NULs in mail data.
        nul_bytes: Tolerance [Word] = Tolerance::Refuse;
        /// Lines of more than 998 octets, which RFC 5321 §4.5.3.1.6 does not allow and many send.
        long_lines: Tolerance [Word] = Tolerance::Accept;
        /// What the reply to EHLO offers here. STARTTLS is offered by `tls`.
        extensions: Extensions [Table] = Extensions::default();
        /// What is looked at of strangers here.
        checks: Checks [Table] = Checks::default();
        /// What differs here of how the mail of strangers is verified: any of those of `[authentication]`; the others are as there.
        authentication: Authentication [Table] = Authentication::default();
        /// What differs here of how strangers are looked at: any of those of `[strangers]`; the others are as there.
        strangers: Strangers [Table] = Strangers::default();
        /// What differs here of greylisting: any of those of `[greylist]`; the others are as there.
        greylist: Greylist [Table] = Greylist::default();
        /// Limits that differ here: any of those of `[limits]`; the others are as there.
        limits: Limits [Table] = Limits::default();
        /// Timeouts that differ here: any of those of `[timeouts.inbound]`; the others are as there.
        timeouts: InboundTimeouts [Table] = InboundTimeouts::default();
    }
}

section! {
    /// The service extensions that a listener offers (RFC 5321 §2.2). What is not offered is not taken.
    pub struct Extensions {
        /// PIPELINING: commands in groups (RFC 2920).
        pipelining: bool [YesNo] = true;
        /// SIZE: the size of a message is told before it comes (RFC 1870).
        size: bool [YesNo] = true;
        /// 8BITMIME: content of octets (RFC 6152).
        eight_bit_mime "8bitmime": bool [YesNo] = true;
        /// SMTPUTF8: UTF-8 in addresses and header fields (RFC 6531).
        smtputf8: bool [YesNo] = true;
        /// CHUNKING: content by BDAT (RFC 3030).
        chunking: bool [YesNo] = true;
        /// BINARYMIME: content of octets without lines, by BDAT alone (RFC 3030). Where the next hop does not take it, it is encoded
        /// or comes back, as `route.8bit` says.
        binarymime: bool [YesNo] = false;
        /// DSN: the sender says when and what he wants to hear of the message (RFC 3461).
        dsn: bool [YesNo] = true;
        /// DELIVERBY: by when a message is to be delivered, and what happens then (RFC 2852).
        deliverby: bool [YesNo] = true;
        /// MT-PRIORITY: how urgent a message is. Clients that may not relay cannot make it more urgent (RFC 6710).
        mt_priority: bool [YesNo] = true;
        /// FUTURERELEASE: a message is held back for a while, at most `hold-max`. Offered on listeners of kind
        /// "submission" alone (RFC 4865).
        futurerelease: bool [YesNo] = true;
        /// REQUIRETLS: a message that is to travel under TLS alone, from hop to hop with certificates that are good. It
        /// comes back where that cannot be kept. Offered on connections with TLS alone (RFC 8689).
        requiretls: bool [YesNo] = true;
        /// LIMITS: recipients and transactions are told (RFC 9422).
        limits: bool [YesNo] = true;
        /// ETRN: clients named in `[[etrn]]` have mail which waits for them tried at once (RFC 1985).
        etrn: bool [YesNo] = true;
        /// ATRN: clients named by their certificates in `[[etrn]]` have mail that a route holds for their domains sent over
        /// their own connection, on which they are the server then (RFC 2645). Offered where `client-certificate` asks.
        atrn: bool [YesNo] = true;
        /// ENHANCEDSTATUSCODES: told in the reply to EHLO; the codes stand in all replies (RFC 2034).
        enhanced_status_codes "enhancedstatuscodes": bool [YesNo] = true;
    }
}

section! {
    /// TLS for those who come to us.
    pub struct Tls {
        /// The oldest version we speak.
        min_version: TlsVersion [Word] = TlsVersion::Tls12;
        /// The cipher suites we take, by their registered names. Of those that the client has too, the first on its list is
        /// used.
        suites: Vec<TlsSuite> [List<Word>] = TlsSuite::VALUES.to_vec();
        /// How often it is looked whether files of certificates have changed, or the database of `reputation`: new ones are in force from the next handshake
        /// on, and connections go on. Empty: at reloads alone.
        watch_interval: Option<Duration> [Maybe<Time<{ SECOND }, { 24 * HOUR }>>] = Some(Duration::from_secs(10));
        /// The groups we agree on keys in.
        groups: Vec<TlsGroup> [List<Word>] = TlsGroup::VALUES.to_vec();
    }
}

section! {
    /// A certificate and its key. The one for the name the client asks for is shown, else the first.
    pub struct Certificate {
        /// In messages, and for later files to find it.
        name: String [Text] = String::new();
        /// The certificate and what is between it and its root, as PEM.
        certificate: PathBuf [FilePath] = PathBuf::new();
        /// Its private key, as PEM.
        key: PathBuf [FilePath] = PathBuf::new();
        /// Show it for these names too. Those that stand in the certificate need not be repeated.
        domains: Vec<Domain> [List<Literal>] = Vec::new();
    }
}

section! {
    /// Upper bounds for those who come to us. Rates of connections, messages and recipients are none unless they are set here:
    /// what a large sender brings in a minute, and somebody who floods us, is the same at other sites, and whoever is over a
    /// rate sends later, or not at all. What is open at once is bounded instead.
    pub struct Limits {
        /// Connections open at once on one listener, over all cores. Over it: 421.
        connections_max: u32 [Whole<1, 10_000_000>] = 50_000;
        /// Connections open at once from one address, over all cores and listeners. Over it: 421.
        connections_per_client_max: u32 [Whole<1, 10_000_000>] = 100;
        /// Connections open at once from one network (`[clients]`), over all cores and listeners. Over it: 421.
        connections_per_network_max: u32 [Whole<1, 10_000_000>] = 1000;
        /// Connections from one address in a minute; so many may come all at once. Over it: 421.
        connection_rate_per_client: Option<u32> [Maybe<Whole<1, 10_000_000>>] = None;
        /// Connections from one network in a minute; so many may come all at once. Over it: 421.
        connection_rate_per_network: Option<u32> [Maybe<Whole<1, 10_000_000>>] = None;
        /// Recipients of one message. RFC 5321 §4.5.3.1.8 wants 100 at least. Over it: 452.
        recipients_max: u32 [Whole<100, 1_000_000>] = 1000;
        /// A message with its header section, told in reply to EHLO (RFC 1870).
        message_size_max: u64 [Size<{ 64 * KIB }, { 4 * GIB }>] = 50 * MIB;
        /// A command with its line end. RFC 5321 §4.5.3.1.4 wants 512 at least, its extensions some more.
        command_line_max: u64 [Size<{ 2 * KIB }, { 64 * KIB }>] = 4 * KIB;
        /// A header of the PROXY protocol with all that a proxy says in it.
        proxy_header_max: u64 [Size<536, { 64 * KIB }>] = 4 * KIB;
        /// The header section of a message.
        header_size_max: u64 [Size<{ 16 * KIB }, { 64 * MIB }>] = MIB;
        /// Commands in one session that are refused for good; then we hang up with 421. Recipients that are refused count in
        /// `recipients-refused-max`, and mail data nowhere.
        errors_max: u32 [Whole<1, 100_000>] = 20;
        /// So many replies to a stranger may refuse something, since the last message we took, before those that follow are
        /// held back for `timeouts.inbound.tarpit`.
        tarpit_after: u32 [Whole<0, 100_000>] = 10;
        /// Commands since the last message we took, or since the session began; then we hang up with 421.
        commands_max: u32 [Whole<1000, 10_000_000>] = 10_000;
        /// Transactions in one session; then we hang up with 421.
        transactions_max: u32 [Whole<1, 1_000_000_000>] = 1_000_000;
        /// Recipients of one session, whichever message each is of. Over it: 452, and 421 for the next message.
        recipients_per_session_max: u32 [Whole<100, 1_000_000_000>] = 1_000_000;
        /// Recipients refused in one session since the last message we took; then we hang up with 421. Who guesses addresses
        /// comes to that; so does a mailing list with as many old ones, whose message does not come in then.
        recipients_refused_max: u32 [Whole<20, 1_000_000>] = 1000;
        /// Messages from one address in a minute, over all its connections; so many may come all at once, and then as many again
        /// in the first minute. Over it: 451.
        message_rate_per_client: Option<u32> [Maybe<Whole<1, 10_000_000>>] = None;
        /// Messages from one network in a minute; so many may come all at once. Over it: 451.
        message_rate_per_network: Option<u32> [Maybe<Whole<1, 10_000_000>>] = None;
        /// Recipients of messages from one address in a minute; so many may come all at once. Over it: 451. Of this rate and
        /// that of messages a connection holds up to a hundredth in hand: never more are taken, and at most so much less.
        recipient_rate_per_client: Option<u32> [Maybe<Whole<1, 10_000_000>>] = None;
        /// Recipients of messages from one network in a minute; so many may come all at once. Over it: 451.
        recipient_rate_per_network: Option<u32> [Maybe<Whole<1, 10_000_000>>] = None;
        /// Octets of mail data that must come in a second, on the average of each message or chunk, after
        /// `timeouts.inbound.data-grace`. Slower: 421. "0B": as slow as `data-block` allows.
        data_rate_min: u64 [Size<0, { 16 * MIB }>] = 100;
        /// A refused BDAT chunk up to this size is read to its end; at a larger one we hang up.
        discard_max: u64 [Size<0, { 4 * GIB }>] = 100 * MIB;
        /// The longest time that a client may have a message held back for (FUTURERELEASE).
        hold_max: Duration [Time<{ SECOND }, { 366 * 24 * HOUR }>] = Duration::from_secs(7 * 86_400);
        /// Received fields in one message; over it, it goes round in a loop (RFC 5321 §6.3).
        received_max: u32 [Whole<100, 10_000>] = 100;
    }
}

section! {
    /// How long we wait for those who come to us.
    pub struct InboundTimeouts {
        /// For the next command (RFC 5321 §4.5.3.2.7).
        command: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(300);
        /// For the next piece of mail data.
        data_block: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(180);
        /// Before the rate of mail data counts (`limits.data-rate-min`).
        data_grace: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(60);
        /// For the header of the PROXY protocol, on listeners behind a proxy.
        proxy_header: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(10);
        /// For a TLS handshake.
        handshake: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(30);
        /// Before we greet a stranger. Who speaks meanwhile is no mail server: they wait for the greeting (RFC 5321 §4.3.1),
        /// and it is turned away with 554. "0s": the greeting comes at once, and nobody is found out.
        greeting_delay: Duration [Time<0, { 60 * SECOND }>] = Duration::ZERO;
        /// Before a reply that refuses something, when there were many (`limits.tarpit-after`). "0s": never.
        tarpit: Duration [Time<0, { 60 * SECOND }>] = Duration::from_secs(1);
        /// For the client to take what we send.
        send: Duration [Time<{ SECOND }, { HOUR }>] = Duration::from_secs(60);
        /// The whole session, however busy.
        session: Duration [Time<{ 10 * SECOND }, { 168 * HOUR }>] = Duration::from_secs(4 * 3_600);
    }
}

section! {
    /// Who may send to any domain through us. Everybody else reaches the domains listed as `[[domain]]` only.
    pub struct Relay {
        /// Networks whose clients may relay. A network of all addresses is refused: it makes an open relay.
        networks: Vec<IpNet> [List<Literal>] = loopback();
        /// Certificates whose holders may relay, by their SHA-256: whoever has issued them, and however old they are. For
        /// listeners with `client-certificate`.
        certificates: Vec<Fingerprint> [List<Literal>] = Vec::new();
        /// Files of authorities, in PEM: the holder of a certificate that one of them has issued for TLS clients may relay.
        /// None of those that everybody believes: they issue to everybody.
        authorities: Vec<PathBuf> [List<FilePath>] = Vec::new();
    }
}

impl Relay {
    /// Whether a certificate can be a credential.
    pub const fn has_credentials(&self) -> bool {
        !self.certificates.is_empty() || !self.authorities.is_empty()
    }
}

section! {
    /// Clients that may have mail which waits for them tried at once (ETRN, RFC 1985): hosts that are not always there.
    /// Who is known by a certificate may also come for what a route with via = "hold" keeps for these domains (ATRN, RFC
    /// 2645). They are offered the commands, others are not.
    pub struct Etrn {
        /// In messages, and for later files to find it.
        name: String [Text] = String::new();
        /// The clients, by their networks.
        networks: Vec<IpNet> [List<Literal>] = Vec::new();
        /// The clients, by the SHA-256 of the certificates that they show, wherever they come from: whoever has issued them,
        /// and however old they are. For listeners with `client-certificate`.
        certificates: Vec<Fingerprint> [List<Literal>] = Vec::new();
        /// Whose mail they may ask for. To ask for a domain with all that is below it (`ETRN @example.org`), both must
        /// stand here: "example.org" and "*.example.org".
        domains: Vec<DomainPattern> [List<Literal>] = Vec::new();
    }
}

section! {
    /// A domain whose mail we take from anybody.
    pub struct MailDomain {
        /// The domain.
        name: Domain [Literal] = unnamed();
        /// What it is to us.
        kind: DomainKind [Word] = DomainKind::Relay;
        /// Local-parts of its addresses; others get 550. "postmaster" always has one (RFC 5321 §4.5.1). Empty: any, as far as
        /// we know, unless `verify` knows.
        recipients: Vec<String> [List<Text>] = Vec::new();
        /// A program that knows more of them, by `[verify]`: it is asked for those that are not in `recipients`, and who is
        /// in neither gets 550. None: nobody is asked.
        verify: Option<SocketAddr> [Maybe<Literal>] = None;
        /// What stands behind this in a local-part does not count when it is looked for, such as "+" in
        /// "ann+shop@example.org" (RFC 5233). None: all of it counts.
        subaddress: Option<String> [Maybe<Text>] = None;
        /// Mail with the null reverse-path. Who sends no mail gets no reports of it; refused, they are 550.
        reports: Tolerance [Word] = Tolerance::Accept;
    }
}

impl Entry for Listener {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        let address = vec![ListenAddress::Tcp(SocketAddr::from(([0, 0, 0, 0], 25)))];
        Self { name: "smtp".into(), address, ..Self::default() }
    }
}

impl Entry for Certificate {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        let (certificate, key) = ("tls/cert.pem".into(), "tls/key.pem".into());
        Self { name: "own".into(), certificate, key, domains: Vec::new() }
    }
}

impl Entry for Etrn {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self {
            name: "branch".into(),
            networks: vec!["192.0.2.25/32".parse().expect("our own text")],
            certificates: Vec::new(),
            domains: vec![DomainPattern::Exact(Domain::parse("branch.example.org").expect("our own text"))],
        }
    }
}

impl Entry for MailDomain {
    fn name(&self) -> String {
        self.name.to_string()
    }

    fn sample() -> Self {
        Self { name: Domain::parse("example.org").expect("our own text"), ..Self::default() }
    }
}

fn loopback() -> Vec<IpNet> {
    ["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("our own text")).to_vec()
}

fn unnamed() -> Domain {
    Domain::parse("unnamed.invalid").expect("our own text")
}
