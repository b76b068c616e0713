//! For those who run it: HTTP, logs, the end.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use mail::Address;

use crate::{
    DomainPattern,
    notation::{FilePath, List, Literal, Maybe, Size, Text, Time, Whole, Word, YesNo},
    schema::{Entry, choice, entry_lines, section},
};

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

/// The SHA-256 of an API key. Keys are random and long, so a quick hash does: there is nothing to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

choice! {
    /// What a log line looks like.
    pub enum LogFormat {
        /// for people
        Text = "text",
        /// for programs: one JSON object a line
        Json = "json",
    }
}

choice! {
    /// What is worth a log line.
    pub enum LogLevel {
        /// nothing
        Off = "off",
        /// what keeps us from working
        Error = "error",
        /// also what somebody should look at
        Warn = "warn",
        /// also each message taken in and each delivery
        Info = "info",
        /// also each session and each attempt
        Debug = "debug",
        /// also each command and reply
        Trace = "trace",
    }
}

section! {
    /// What the server gives up once its ports are open, so that a flaw in it can do less harm.
    pub struct Hardening {
        /// Reach no files but its own: the data directory, the log, the folders of the configuration and of what that names,
        /// and, to read, those of the system. Folders that a reload names for the first time need a restart. (landlock)
        files: bool [YesNo; Restart] = true;
        /// Make no system call that a mail server has no use for: start programs, look into other processes, mount,
        /// change the kernel. (seccomp)
        calls: bool [YesNo; Restart] = true;
        /// Leave a core file after a crash, and let debuggers of its own user in: both show mail and keys.
        core_dumps: bool [YesNo; Restart] = false;
    }
}

section! {
    /// Metrics, health and the queue over HTTP.
    pub struct Http {
        /// Where. Empty: nowhere. Not for the open network: anybody who reaches it reads /metrics.
        address: Vec<SocketAddr> [List<Literal>; Restart] = vec![SocketAddr::from(([127, 0, 0, 1], 8080))];
        /// What a client must show as its Bearer token to see and change the queue. None: it cannot.
        token: Option<Secret> [Maybe<Literal>] = None;
        /// Where else mail is taken in (`[[api-key]]`), and nothing but that is served. HTTP without TLS: put it behind
        /// something that has it, unless the way there is your own.
        mail_address: Vec<SocketAddr> [List<Literal>; Restart] = Vec::new();
        /// A request with everything in it. Over it: 413.
        request_size_max: u64 [Size<{ 64 << 10 }, { 1 << 30 }>] = 64 << 20;
        /// All requests under way together, as they came and as the messages made of them. Over it: 429.
        memory: u64 [Size<{ 1 << 20 }, { 64 << 30 }>; Restart] = 256 << 20;
        /// Messages that one request may ask for. Over it: 422.
        batch_max: u32 [Whole<1, 100_000>] = 1000;
        /// Values in the JSON of one request: each text, number, list and object is one. Over it: 400.
        json_values_max: u32 [Whole<1000, 10_000_000>] = 100_000;
        /// How long a client may take for the body of a request. Over it: 408.
        body_timeout: Duration [Time<1_000, 100_000>] = Duration::from_secs(60);
        /// How long an Idempotency-Key is remembered with its answer. A restart forgets all.
        idempotency_time: Duration [Time<60_000, 604_800_000>] = Duration::from_secs(24 * 3_600);
        /// Memory for Idempotency-Keys and their answers; then the oldest is forgotten first.
        idempotency_memory: u64 [Size<{ 64 << 10 }, { 16 << 30 }>] = 64 << 20;
    }
}

section! {
    /// A program that may bring mail by HTTP (`POST /api/v1/messages`). `ringpost key` makes one.
    pub struct ApiKey {
        /// In messages and logs, and for later files to find it.
        name: String [Text] = String::new();
        /// The hash of the key, as `ringpost key` prints it. The key itself stands nowhere but with its owner.
        hash: Option<KeyHash> [Maybe<Literal>] = None;
        /// Domains it may send from: in the reverse-path, and in From and Sender.
        domains: Vec<DomainPattern> [List<Literal>] = Vec::new();
        /// Addresses it may send from beside those.
        addresses: Vec<Address> [List<Literal>] = Vec::new();
        /// Networks it may come from. Empty: any.
        networks: Vec<IpNet> [List<Literal>] = Vec::new();
        /// Messages in a minute, which may come all at once. Over it: 429.
        messages_per_minute: u32 [Whole<1, 10_000_000>] = 6000;
        /// Recipients in a minute, which may come all at once. Over it: 429.
        recipients_per_minute: u32 [Whole<1, 100_000_000>] = 60_000;
        /// Recipients of one message; never more than `limits.recipients-max`. Over it: 422.
        recipients_max: u32 [Whole<1, 1_000_000>] = 1000;
        /// One message as it is sent; never more than `limits.message-size-max`. Over it: 413.
        message_size_max: u64 [Size<{ 1 << 10 }, { 4 << 30 }>] = 50 << 20;
    }
}

section! {
    /// One line for each message taken in and one for each delivery, and what goes wrong.
    pub struct Log {
        /// What lines look like.
        format: LogFormat [Word; Restart] = LogFormat::Text;
        /// Where they go.
        output: Output [FilePath; Restart] = Output::Stderr;
        /// Which there are.
        level: LogLevel [Word] = LogLevel::Info;
        /// Of what libraries say, not more than this.
        libraries: LogLevel [Word] = LogLevel::Warn;
        /// Lines of one core that may wait to be written. When the disk is slower, more are dropped and counted.
        buffer: u64 [Size<{ 16 << 10 }, { 1 << 30 }>; Restart] = 1 << 20;
    }
}

section! {
    /// The end of the process.
    pub struct Shutdown {
        /// Transactions and deliveries under way get so long to end.
        grace: Duration [Time<0, 3_600_000>] = Duration::from_secs(30);
    }
}

section! {
    /// A new program takes over from the running one (`ringpost upgrade`, SIGUSR2): no connection is refused, no mail waits.
    pub struct Upgrade {
        /// Keep a small process that starts the new program: the server gives up its right to. It keeps the rights that the
        /// server was started with, and does nothing else.
        enabled: bool [YesNo; Restart] = true;
        /// How long the new program may take until it can serve. Later than that, the old one stays.
        start_max: Duration [Time<1_000, 110_000>] = Duration::from_secs(60);
        /// How long the old program serves the sessions that it has. Who talks on then is told 421 between two transactions,
        /// within `shutdown.grace`.
        patience: Duration [Time<0, 86_400_000>] = Duration::from_secs(600);
    }
}

impl KeyHash {
    /// A hash.
    pub const fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The hash itself.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads `sha256:` and 64 hexadecimal digits.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?.as_bytes();
        let (pairs, []) = digits.as_chunks::<2>() else { return None };
        let mut hash = [0; 32];
        if pairs.len() != hash.len() {
            return None;
        }
        for (octet, pair) in hash.iter_mut().zip(pairs) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *octet = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl ApiKey {
    /// The entry as it stands in a configuration: what differs from what holds anyway.
    pub fn lines(&self) -> String {
        entry_lines("api-key", self)
    }
}

impl Entry for ApiKey {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        let domain = mail::Domain::parse("example.org").expect("our own text");
        // Nobody has a key of this hash.
        let hash = Some(KeyHash::new([0; 32]));
        Self { name: "shop".into(), hash, domains: vec![DomainPattern::Exact(domain)], ..Self::default() }
    }
}

impl Secret {
    /// Keeps a text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
