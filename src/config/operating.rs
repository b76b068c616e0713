//! For those who run it: HTTP, logs, the end.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    notation::{FilePath, List, Literal, Maybe, Size, Time, Word},
    schema::{choice, section},
};

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

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
    /// Metrics, health and the queue over HTTP.
    pub struct Http {
        /// Where. Empty: nowhere. Not for the open network: anybody who reaches it reads /metrics.
        address: Vec<SocketAddr> [List<Literal>; Restart] = vec![SocketAddr::from(([127, 0, 0, 1], 8080))];
        /// What a client must show as its Bearer token to see and change the queue. None: it cannot.
        token: Option<Secret> [Maybe<Literal>] = None;
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
