//! The source: many sessions that send messages as fast as they are taken, or at a fixed rate.

mod session;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, ValueEnum};
use serde::Serialize;

use crate::histogram::Histogram;
use crate::message::Maker;
use crate::random::Random;
use crate::report::{Progress, Shared, cpu_time, millis, quantiles, rate, table, watch};

/// What to send, where, and how.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The server: an address and a port
    #[arg(default_value = "127.0.0.1:2525", value_parser = resolve)]
    pub server: SocketAddr,

    /// Connections at the same time
    #[arg(short, long, default_value_t = 20)]
    pub sessions: usize,

    /// Threads that share the connections
    #[arg(long, default_value_t = 1)]
    pub shards: usize,

    /// Pin the threads to CPUs, beginning with this one
    #[arg(long)]
    pub cpu: Option<usize>,

    /// End after this many messages
    #[arg(short = 'n', long)]
    pub messages: Option<u64>,

    /// End after this time, such as 30s or 10m [default: 10s if no number of messages is given]
    #[arg(short, long, value_parser = duration)]
    pub time: Option<Duration>,

    /// Bytes of a message: 4k, or evenly from 1k-64k, or by weight 4k:90,1M:10
    #[arg(short = 'l', long, default_value = "4k")]
    pub size: Sizes,

    /// Recipients of a message
    #[arg(short, long, default_value_t = 1)]
    pub recipients: u32,

    /// Messages on one connection; 0 is no bound
    #[arg(short = 'c', long, default_value_t = 0)]
    pub per_connection: u64,

    /// Whether to send commands without waiting for each reply
    #[arg(short, long, value_enum, default_value_t = Pipelining::On)]
    pub pipelining: Pipelining,

    /// Send content in chunks (RFC 3030)
    #[arg(long)]
    pub bdat: bool,

    /// With `--pipelining deep` and `--bdat`: how many messages a connection sends ahead of their replies
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub window: u32,

    /// How to use TLS
    #[arg(long, value_enum, default_value_t = Security::None)]
    pub tls: Security,

    /// Messages a second in all [default: as fast as they are taken]
    #[arg(long)]
    pub rate: Option<f64>,

    /// The reverse-path of every message
    #[arg(long, default_value = "source@load.invalid")]
    pub from: String,

    /// Domains of recipients, in turn
    #[arg(long, value_delimiter = ',', default_value = "example.net")]
    pub domains: Vec<String>,

    /// Write run, number and recipient of all that got a 250 to this file
    #[arg(long)]
    pub acked: Option<PathBuf>,

    /// The longest to wait for the server at each step
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub timeout: Duration,

    /// The number of the run, in the mark of every message [default: the time]
    #[arg(long)]
    pub run: Option<u64>,

    #[arg(skip)]
    /// Whether to tell how it goes.
    pub progress: Progress,
}

impl Options {
    /// Defaults, for that server.
    pub fn to(server: SocketAddr) -> Self {
        Self { server, ..defaults() }
    }
}

/// What holds of a command when its line says nothing.
pub(crate) fn defaults<O: Args>() -> O {
    #[derive(Parser)]
    struct Line<O: Args> {
        #[command(flatten)]
        options: O,
    }
    Line::parse_from(["loadtest"]).options
}

pub(crate) fn resolve(text: &str) -> Result<SocketAddr, String> {
    let mut found =
        text.to_socket_addrs().map_err(|error| format!("{error}; an address is like 127.0.0.1:2525"))?;
    found.next().ok_or_else(|| "no such host".to_owned())
}

/// A number with a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "a duration is like 500ms, 30s or 10m".to_owned())?;
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("no unit of time: {other}; there are ms, s, m and h")),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

fn bytes(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: usize = digits.parse().map_err(|_| format!("{text}: a size is like 900, 4k or 1M"))?;
    let unit = match &text[digits.len()..].to_ascii_lowercase()[..] {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        other => return Err(format!("no unit of size: {other}; there are k and M")),
    };
    number.checked_mul(unit).filter(|size| *size <= 64 << 20).ok_or_else(|| "at most 64M".to_owned())
}

/// Sizes of messages, by weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    ranges: Vec<(usize, usize, u64)>,
    weight: u64,
}

impl Sizes {
    fn pick(&self, random: &mut Random) -> usize {
        let mut left = random.below(self.weight);
        for (least, most, weight) in &self.ranges {
            if left < *weight {
                return least + random.below((most - least + 1) as u64) as usize;
            }
            left -= weight;
        }
        0
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut ranges = Vec::new();
        for part in text.split(',') {
            let (range, weight) = part.split_once(':').unwrap_or((part, "1"));
            let weight: u64 = weight.parse().map_err(|_| format!("{weight} is no weight"))?;
            let (least, most) = range.split_once('-').unwrap_or((range, range));
            let (least, most) = (bytes(least)?, bytes(most)?);
            if least > most {
                return Err(format!("{range} is empty"));
            }
            ranges.push((least, most, weight));
        }
        let weight = ranges.iter().map(|(_, _, weight)| weight).sum();
        if weight == 0 { Err("no size has any weight".to_owned()) } else { Ok(Self { ranges, weight }) }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (least, most, weight)) in self.ranges.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{least}-{most}:{weight}")?;
        }
        Ok(())
    }
}

/// How commands are grouped (RFC 2920).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pipelining {
    /// One at a time.
    Off,
    /// MAIL, RCPT and DATA together; with BDAT the content as well
    On,
    /// The commands of the next message also go out together with the content of this one; with BDAT, whole messages
    Deep,
}

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Security {
    /// In clear.
    None,
    /// After STARTTLS (RFC 3207)
    Starttls,
    /// From the first byte (RFC 8314 §3)
    Implicit,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The number of the run.
    pub run: u64,
    /// Messages that got a 250.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From the first message's turn to the last reply.
    pub seconds: f64,
    /// Messages a second.
    pub rate: f64,
    /// Connections opened.
    pub connections: u64,
    /// Messages of which nobody knows: the connection was lost before the reply.
    pub unknown: u64,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
    /// From MAIL to the last reply, in milliseconds. At a fixed rate: from when the message was due.
    pub latency_p50_ms: f64,
    /// The same, 99th percentile.
    pub latency_p99_ms: f64,
    /// The same, longest.
    pub latency_max_ms: f64,
    /// CPU time that this end took for a message, in microseconds.
    pub cpu_micros_per_message: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![
            ("messages", format!("{} in {:.2} s, {:.0} a second", self.messages, self.seconds, self.rate)),
            ("recipients", self.recipients.to_string()),
            (
                "content",
                format!(
                    "{:.1} MiB, {:.1} MiB a second",
                    mib(self.bytes),
                    mib(self.bytes) / self.seconds.max(0.001)
                ),
            ),
            (
                "latency",
                format!(
                    "p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
                    self.latency_p50_ms, self.latency_p99_ms, self.latency_max_ms
                ),
            ),
            ("connections", self.connections.to_string()),
            ("CPU of the source", format!("{:.1} µs a message", self.cpu_micros_per_message)),
        ];
        if self.unknown > 0 {
            rows.push(("without a reply", self.unknown.to_string()));
        }
        for (error, count) in &self.errors {
            rows.push(("error", format!("{count} × {error}")));
        }
        f.write_str(&table(&rows))
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What a shard has done since it last told.
#[derive(Default)]
struct Tally {
    messages: u64,
    recipients: u64,
    bytes: u64,
    connections: u64,
    unknown: u64,
    errors: BTreeMap<String, u64>,
    latency: Histogram,
    acked: String,
    /// When the last reply came.
    last: Duration,
}

#[derive(Default)]
struct Totals {
    tally: Tally,
    /// Of the last second.
    recent: Histogram,
    recent_messages: u64,
    acked: Option<Box<dyn Write + Send>>,
    acked_failed: bool,
}

impl Totals {
    fn absorb(&mut self, part: &mut Tally) {
        let part = std::mem::take(part);
        let mut latency = part.latency.clone();
        self.recent.absorb(&mut latency);
        self.recent_messages += part.messages;
        let total = &mut self.tally;
        total.messages += part.messages;
        total.recipients += part.recipients;
        total.bytes += part.bytes;
        total.connections += part.connections;
        total.unknown += part.unknown;
        total.last = total.last.max(part.last);
        for (error, count) in part.errors {
            *total.errors.entry(error).or_default() += count;
        }
        let mut latency = part.latency;
        total.latency.absorb(&mut latency);
        if let Some(file) = &mut self.acked {
            let written = file.write_all(part.acked.as_bytes()).and_then(|()| file.flush());
            self.acked_failed |= written.is_err();
        }
    }

    fn line(&mut self, since: Duration, last: Duration) -> String {
        let errors: u64 = self.tally.errors.values().sum();
        let text = format!(
            "{:>5.0} s  {:>9} messages  {:>8.0}/s  {}  errors {errors}",
            since.as_secs_f64(),
            self.tally.messages,
            rate(self.recent_messages, last),
            quantiles(&self.recent)
        );
        self.recent = Histogram::default();
        self.recent_messages = 0;
        text
    }
}

/// What the sessions of one shard share.
struct Shard {
    options: Options,
    shared: Arc<Shared<Totals>>,
    tickets: Arc<Tickets>,
    tally: RefCell<Tally>,
    maker: RefCell<Maker>,
    random: RefCell<Random>,
    pool: ring::Pool,
    tls: Option<Arc<tls::ClientConfig>>,
    recording: bool,
    run: u64,
    sessions: Cell<usize>,
    ended: ring::Event,
}

/// Numbers of messages still to be sent.
struct Tickets {
    next: AtomicU64,
    bound: u64,
    /// Between one message and the next.
    interval: Option<Duration>,
    /// When the first was given out.
    begin: OnceLock<Duration>,
}

/// The right and the duty to send one message.
#[derive(Clone, Copy)]
struct Ticket {
    number: u64,
    /// At a fixed rate: when.
    due: Option<Duration>,
}

impl Shard {
    /// The next number, at its time. `None`: there is no more to do.
    async fn ticket(&self) -> Option<Ticket> {
        if self.shared.stopping() {
            return None;
        }
        let tickets = &self.tickets;
        let number = tickets.next.fetch_add(1, Ordering::Relaxed);
        if number >= tickets.bound {
            return None;
        }
        let begin = *tickets.begin.get_or_init(ring::clock::now);
        let Some(interval) = tickets.interval else { return Some(Ticket { number, due: None }) };
        let due = begin + interval.mul_f64(number as f64);
        loop {
            let now = ring::clock::now();
            if now >= due {
                return Some(Ticket { number, due: Some(due) });
            }
            if self.shared.stopping() {
                return None;
            }
            ring::sleep((due - now).min(Duration::from_millis(100))).await;
        }
    }

    fn error(&self, what: String) {
        *self.tally.borrow_mut().errors.entry(what).or_default() += 1;
    }
}

/// Sends, and tells what came of it.
pub fn run(options: Options) -> Result<Report> {
    let run = options.run.unwrap_or_else(ring::clock::unix_micros);
    let acked: Option<Box<dyn Write + Send>> = match &options.acked {
        None => None,
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Some(Box::new(BufWriter::new(file.with_context(|| format!("cannot write {}", path.display()))?)))
        }
    };
    let recording = acked.is_some();
    let tls = match options.tls {
        Security::None => None,
        Security::Starttls | Security::Implicit => {
            Some(tls::client_config(tls::Authentication::Opportunistic, tls::Version::Tls12, 256)?)
        }
    };
    let time = options.time.or(options.messages.is_none().then_some(Duration::from_secs(10)));
    let shared = Shared::new(Totals { acked, ..Totals::default() });
    let tickets = Arc::new(Tickets {
        next: AtomicU64::new(0),
        bound: options.messages.unwrap_or(u64::MAX),
        interval: options.rate.map(|rate| Duration::from_secs_f64(1.0 / rate.max(0.001))),
        begin: OnceLock::new(),
    });
    let cpu = cpu_time();
    let count = options.shards.max(1);
    let mut shards = Vec::new();
    for index in 0..count {
        let (options, shared, tickets, tls) =
            (options.clone(), Arc::clone(&shared), Arc::clone(&tickets), tls.clone());
        let executor = ring::Options {
            cpu: options.cpu.map(|first| first + index),
            ..ring::Options::new(format!("source-{index}"))
        };
        shards.push(ring::start(executor, move || {
            let sessions = (index..options.sessions.max(1)).step_by(count).count();
            let shard = Shard {
                options,
                shared,
                tickets,
                tally: RefCell::default(),
                maker: RefCell::new(Maker::new(run)),
                random: RefCell::new(Random::new(run ^ index as u64)),
                pool: ring::Pool::new(ring::PoolOptions { small: 2048, ..ring::PoolOptions::default() }),
                tls,
                recording,
                run,
                sessions: Cell::new(sessions),
                ended: ring::Event::new(),
            };
            pour(Rc::new(shard))
        })?);
    }
    let over = |_: &mut Totals, since| time.is_some_and(|time| since >= time);
    watch(&shared, shards, options.progress, over, Totals::line)?;

    let mut totals = shared.totals();
    anyhow::ensure!(!totals.acked_failed, "the list of acknowledged messages could not be written");
    let tally = std::mem::take(&mut totals.tally);
    let begin = tickets.begin.get().copied().unwrap_or_default();
    let took = tally.last.saturating_sub(begin);
    Ok(Report {
        run,
        messages: tally.messages,
        recipients: tally.recipients,
        bytes: tally.bytes,
        seconds: took.as_secs_f64(),
        rate: rate(tally.messages, took),
        connections: tally.connections,
        unknown: tally.unknown,
        errors: tally.errors,
        latency_p50_ms: millis(tally.latency.quantile(0.5)),
        latency_p99_ms: millis(tally.latency.quantile(0.99)),
        latency_max_ms: millis(tally.latency.max()),
        cpu_micros_per_message: (cpu_time() - cpu).as_secs_f64() * 1e6 / tally.messages.max(1) as f64,
    })
}

/// How long after the end a session may take to finish its message.
const GRACE: Duration = Duration::from_secs(5);

/// The main task of a shard: runs its sessions, and tells every so often how far they are.
async fn pour(shard: Rc<Shard>) {
    for _ in 0..shard.sessions.get() {
        let shard = Rc::clone(&shard);
        ring::spawn(async move {
            session::run(&shard).await;
            shard.sessions.set(shard.sessions.get() - 1);
            shard.ended.notify_all();
        });
    }
    let mut patience = GRACE;
    while shard.sessions.get() > 0 && !patience.is_zero() {
        const TELL: Duration = Duration::from_millis(50);
        let _ = ring::timeout(TELL, shard.ended.wait()).await;
        shard.shared.totals().absorb(&mut shard.tally.borrow_mut());
        if shard.shared.stopping() {
            patience = patience.saturating_sub(TELL);
        }
    }
    shard.shared.totals().absorb(&mut shard.tally.borrow_mut());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        let sizes: Sizes = "4k:90,1k-2k:10".parse().unwrap();
        assert_eq!(sizes.to_string(), "4096-4096:90,1024-2048:10");
        let mut random = Random::new(1);
        let picked: Vec<_> = (0..1000).map(|_| sizes.pick(&mut random)).collect();
        assert!(picked.iter().filter(|size| **size == 4096).count() > 850);
        assert!(picked.iter().all(|size| (1024..=2048).contains(size) || *size == 4096));
        for wrong in ["", "x", "2k-1k", "4k:0", "1G", "65M"] {
            assert!(wrong.parse::<Sizes>().is_err(), "{wrong}");
        }
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert!(duration("5 parsecs").is_err() && duration("-1s").is_err());
    }
}
