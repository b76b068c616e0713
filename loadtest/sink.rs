//! The sink: takes every message, looks at it, forgets it; and makes trouble when asked to.

mod session;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use ring::{BoundListener, ListenAddress, ListenOptions, Listener};
use serde::Serialize;

use crate::message::{Mark, Verdict};
use crate::random::Random;
use crate::report::{Progress, Shared, cpu_time, rate, table, watch};
use crate::source::{defaults, duration};

/// Where to listen, and how to behave.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 lets the system choose
    #[arg(short, long, default_value = "127.0.0.1:2600")]
    pub listen: SocketAddr,

    /// Threads that share the connections
    #[arg(long, default_value_t = 1)]
    pub shards: usize,

    /// Pin the threads to CPUs, beginning with this one
    #[arg(long)]
    pub cpu: Option<usize>,

    /// End after this many messages
    #[arg(short = 'n', long)]
    pub messages: Option<u64>,

    /// End when no message has come for this long; counted from the first message
    #[arg(long, value_parser = duration)]
    pub idle: Option<Duration>,

    /// End after this time
    #[arg(short, long, value_parser = duration)]
    pub time: Option<Duration>,

    /// Answer the end of each message this much later
    #[arg(long, value_parser = duration, default_value = "0s")]
    pub delay: Duration,

    /// Refuse: STEP:CODE:PERCENT, with a step of mail, rcpt, data or dot; may be given often
    #[arg(long)]
    pub fail: Vec<Failure>,

    /// Drop the connection: STEP:PERCENT, with a step as above, or connect; may be given often
    #[arg(long)]
    pub drop: Vec<Drop>,

    /// What chance begins with
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Offer STARTTLS, with a certificate of its own making
    #[arg(long)]
    pub starttls: bool,

    /// Speak TLS from the first byte
    #[arg(long)]
    pub implicit_tls: bool,

    /// Do not look into messages
    #[arg(long)]
    pub no_verify: bool,

    /// Write run, number and recipient of all messages taken to this file
    #[arg(long)]
    pub seen: Option<PathBuf>,

    #[arg(skip)]
    /// Whether to tell how it goes.
    pub progress: Progress,
}

impl Options {
    /// Defaults, for that address.
    pub fn at(listen: SocketAddr) -> Self {
        Self { listen, ..defaults() }
    }
}

/// A step of the session at which something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Before the greeting.
    Connect,
    /// At MAIL.
    Mail,
    /// At RCPT.
    Rcpt,
    /// At DATA, or the first BDAT.
    Data,
    /// At the end of the content.
    Dot,
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "connect" => Self::Connect,
            "mail" => Self::Mail,
            "rcpt" => Self::Rcpt,
            "data" => Self::Data,
            "dot" => Self::Dot,
            other => return Err(format!("no step {other}; there are connect, mail, rcpt, data and dot")),
        })
    }
}

/// A refusal, now and then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failure {
    /// When.
    pub step: Step,
    /// The reply code, 4yz or 5yz.
    pub code: u16,
    /// Of how many, from 0 to 1.
    pub share: f64,
}

impl FromStr for Failure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let [step, code, share] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err("a failure is like rcpt:450:5%".to_owned());
        };
        let code = code.parse().ok().filter(|code| (400..600).contains(code));
        Ok(Self {
            step: step.parse()?,
            code: code.ok_or("codes are from 400 to 599")?,
            share: percent(share)?,
        })
    }
}

/// A lost connection, now and then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drop {
    /// When.
    pub step: Step,
    /// Of how many, from 0 to 1.
    pub share: f64,
}

impl FromStr for Drop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (step, share) = text.split_once(':').ok_or("a drop is like dot:1%")?;
        Ok(Self { step: step.parse()?, share: percent(share)? })
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| format!("{text} is no percentage"))?;
    if (0.0..=100.0).contains(&number) {
        Ok(number / 100.0)
    } else {
        Err(format!("{text} is not from 0 to 100"))
    }
}

/// What came in.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Messages taken.
    pub messages: u64,
    /// Recipients of them.
    pub recipients: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// From the first message to the last.
    pub seconds: f64,
    /// Messages a second in that time.
    pub rate: f64,
    /// Connections accepted.
    pub connections: u64,
    /// Messages that are not what the source sent.
    pub damaged: u64,
    /// Messages that no source of ours sent.
    pub foreign: u64,
    /// Recipients that got their message before.
    pub twice: u64,
    /// Of each run: recipients that got a message.
    pub runs: BTreeMap<String, Run>,
    /// Refusals, on purpose, by step and code.
    pub refused: BTreeMap<String, u64>,
    /// Connections dropped on purpose.
    pub dropped: u64,
    /// CPU time that this end took for a message, in microseconds.
    pub cpu_micros_per_message: f64,
}

/// What came in of one run of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Run {
    /// Recipients that got their message.
    pub recipients: u64,
    /// Recipients below the highest number seen that got none: refused by the server, on the way, or lost.
    pub gaps: u64,
}

impl Run {
    /// In words. What has not come is no loss: it may wait in the server's queue.
    fn told(&self, run: &str) -> String {
        let Self { recipients, gaps } = self;
        match gaps {
            0 => format!("{run}: {recipients} recipients, without a gap"),
            _ => format!(
                "{run}: {recipients} recipients; {gaps} before the last of them are not here (queued yet?)"
            ),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.bytes as f64 / f64::from(1 << 20);
        let mut rows = vec![
            ("messages", format!("{} in {:.2} s, {:.0} a second", self.messages, self.seconds, self.rate)),
            ("recipients", self.recipients.to_string()),
            ("content", format!("{mib:.1} MiB")),
            ("connections", self.connections.to_string()),
            ("damaged", self.damaged.to_string()),
            ("came twice", self.twice.to_string()),
            ("CPU of the sink", format!("{:.1} µs a message", self.cpu_micros_per_message)),
        ];
        if self.foreign > 0 {
            rows.push(("not ours", self.foreign.to_string()));
        }
        for (run, of) in &self.runs {
            rows.push(("run", of.told(run)));
        }
        for (step, count) in &self.refused {
            rows.push(("refused", format!("{count} × {step}")));
        }
        if self.dropped > 0 {
            rows.push(("dropped", self.dropped.to_string()));
        }
        f.write_str(&table(&rows))
    }
}

#[derive(Default)]
struct Totals {
    report: Report,
    runs: HashMap<u64, Bits>,
    seen: Option<Box<dyn Write + Send>>,
    seen_failed: bool,
    first: Option<Duration>,
    last: Duration,
    recent_messages: u64,
}

/// One bit for each recipient of each message of a run.
#[derive(Default)]
struct Bits {
    words: Vec<u64>,
    set: u64,
    end: u64,
}

/// The most recipients of a run that are told apart: 128 MiB of bits.
const BITS_MAX: u64 = 1 << 30;

impl Bits {
    /// False if it was set before.
    fn set(&mut self, index: u64) -> bool {
        if index >= BITS_MAX {
            return true;
        }
        let word = (index / 64) as usize;
        if word >= self.words.len() {
            self.words.resize((word + 1).next_power_of_two(), 0);
        }
        let bit = 1 << (index % 64);
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.set += u64::from(fresh);
        self.end = self.end.max(index + 1);
        fresh
    }
}

impl Totals {
    /// A message was taken, for these of its recipients.
    fn take(&mut self, verdict: Verdict, recipients: &[u32], bytes: u64, now: Duration) {
        self.first.get_or_insert(now);
        self.last = now;
        self.recent_messages += 1;
        self.report.messages += 1;
        self.report.recipients += recipients.len() as u64;
        self.report.bytes += bytes;
        match verdict {
            Verdict::Intact(mark) => self.mark(mark, recipients),
            Verdict::Damaged(_) => self.report.damaged += 1,
            Verdict::Foreign => self.report.foreign += 1,
        }
    }

    fn mark(&mut self, mark: Mark, recipients: &[u32]) {
        let bits = self.runs.entry(mark.run).or_default();
        for index in recipients {
            let bit =
                mark.number.saturating_mul(u64::from(mark.recipients)).saturating_add(u64::from(*index));
            if !bits.set(bit) {
                self.report.twice += 1;
            }
            if let Some(file) = &mut self.seen {
                let written = writeln!(file, "{:016x} {} {index}", mark.run, mark.number);
                self.seen_failed |= written.is_err();
            }
        }
    }

    fn line(&mut self, since: Duration, last: Duration) -> String {
        if let Some(file) = &mut self.seen {
            self.seen_failed |= file.flush().is_err();
        }
        let report = &self.report;
        let text = format!(
            "{:>5.0} s  {:>9} messages  {:>8.0}/s  damaged {}  twice {}  refused {}",
            since.as_secs_f64(),
            report.messages,
            rate(self.recent_messages, last),
            report.damaged,
            report.twice,
            report.refused.values().sum::<u64>()
        );
        self.recent_messages = 0;
        text
    }
}

/// What the sessions of one shard share.
struct Shard {
    options: Options,
    shared: Arc<Shared<Totals>>,
    random: RefCell<Random>,
    pool: ring::Pool,
    tls: Option<Arc<tls::ServerConfig>>,
    sessions: Cell<usize>,
}

impl Shard {
    fn fails(&self, step: Step) -> Option<u16> {
        let mut random = self.random.borrow_mut();
        self.options
            .fail
            .iter()
            .find(|fail| fail.step == step && random.chance(fail.share))
            .map(|fail| fail.code)
    }

    fn drops(&self, step: Step) -> bool {
        let mut random = self.random.borrow_mut();
        let drops = self.options.drop.iter().any(|drop| drop.step == step && random.chance(drop.share));
        if drops {
            self.shared.totals().report.dropped += 1;
        }
        drops
    }
}

/// A sink that listens but does not accept yet.
#[derive(Debug)]
pub struct Bound {
    options: Options,
    listeners: Vec<BoundListener>,
    address: SocketAddr,
}

/// Listens; then [`Bound::address`] is known, and connections wait until [`Bound::run`].
pub fn bind(options: Options) -> Result<Bound> {
    let mut address = options.listen;
    let mut listeners = Vec::new();
    for _ in 0..options.shards.max(1) {
        let listener = BoundListener::bind(&ListenAddress::Tcp(address), &ListenOptions::default())?;
        address = listener.tcp_address().context("a TCP address")?;
        listeners.push(listener);
    }
    Ok(Bound { options, listeners, address })
}

impl Bound {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes messages until the options say that it is enough.
    pub fn run(self) -> Result<Report> {
        let options = self.options;
        let seen: Option<Box<dyn Write + Send>> = match &options.seen {
            None => None,
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Some(Box::new(BufWriter::new(
                    file.with_context(|| format!("cannot write {}", path.display()))?,
                )))
            }
        };
        let tls = if options.starttls || options.implicit_tls {
            let (chain, key) = tls::self_signed(&["sink.invalid".to_owned()])?;
            let certificates = tls::Certificates::from_pem(chain.as_bytes(), key.as_bytes())?;
            Some(tls::server_config(
                Arc::new(certificates),
                &tls::ServerOptions::default(),
                &tls::Tickets::new()?,
            )?)
        } else {
            None
        };
        let shared = Shared::new(Totals { seen, ..Totals::default() });
        let cpu = cpu_time();
        let mut shards = Vec::new();
        for (index, listener) in self.listeners.into_iter().enumerate() {
            let (options, shared, tls) = (options.clone(), Arc::clone(&shared), tls.clone());
            let executor = ring::Options {
                cpu: options.cpu.map(|first| first + index),
                ..ring::Options::new(format!("sink-{index}"))
            };
            shards.push(ring::start(executor, move || {
                let random = RefCell::new(Random::new(options.seed.wrapping_add(index as u64)));
                let pool = ring::Pool::new(ring::PoolOptions::default());
                let shard = Shard { options, shared, random, pool, tls, sessions: Cell::new(0) };
                accept(Rc::new(shard), Listener::new(listener))
            })?);
        }
        let over = |totals: &mut Totals, since| {
            let idle = ring::clock::now().saturating_sub(totals.last);
            options.messages.is_some_and(|count| totals.report.messages >= count)
                || options.time.is_some_and(|time| since >= time)
                || totals.first.is_some() && options.idle.is_some_and(|bound| idle >= bound)
        };
        watch(&shared, shards, options.progress, over, Totals::line)?;

        let mut totals = shared.totals();
        totals.line(Duration::ZERO, Duration::ZERO);
        anyhow::ensure!(!totals.seen_failed, "the list of messages seen could not be written");
        let took = totals.last.saturating_sub(totals.first.unwrap_or_default());
        let runs = totals.runs.iter().map(|(run, bits)| {
            (format!("{run:016x}"), Run { recipients: bits.set, gaps: bits.end - bits.set })
        });
        let runs = runs.collect();
        let report = std::mem::take(&mut totals.report);
        Ok(Report {
            runs,
            seconds: took.as_secs_f64(),
            rate: rate(report.messages, took),
            cpu_micros_per_message: (cpu_time() - cpu).as_secs_f64() * 1e6 / report.messages.max(1) as f64,
            ..report
        })
    }
}

/// The main task of a shard.
async fn accept(shard: Rc<Shard>, listener: Listener) {
    let listener = Rc::new(listener);
    let accepting = {
        let (shard, listener) = (Rc::clone(&shard), Rc::clone(&listener));
        ring::spawn_task(async move {
            while let Ok(stream) = listener.accept().await {
                shard.shared.totals().report.connections += 1;
                shard.sessions.set(shard.sessions.get() + 1);
                let shard = Rc::clone(&shard);
                ring::spawn(async move {
                    session::run(&shard, stream).await;
                    shard.sessions.set(shard.sessions.get() - 1);
                });
            }
        })
    };
    while !shard.shared.stopping() {
        ring::sleep(Duration::from_millis(20)).await;
    }
    listener.stop();
    // Who has got a 250 may want to say QUIT.
    for _ in 0..10 {
        if shard.sessions.get() == 0 {
            break;
        }
        ring::sleep(Duration::from_millis(20)).await;
    }
    drop(accepting);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_spelled() {
        let expected = Failure { step: Step::Rcpt, code: 450, share: 0.05 };
        assert_eq!("rcpt:450:5%".parse(), Ok(expected));
        assert_eq!("dot:1".parse(), Ok(Drop { step: Step::Dot, share: 0.01 }));
        for wrong in ["rcpt:250:5", "rcpt:450", "rcpt:450:101", "tea:450:1", "rcpt:450:x"] {
            assert!(wrong.parse::<Failure>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bits() {
        let mut bits = Bits::default();
        for index in [0, 5, 1000, 64] {
            assert!(bits.set(index) && !bits.set(index));
        }
        assert_eq!((bits.set, bits.end), (4, 1001));
        assert!(bits.set(BITS_MAX) && bits.words.len() < 100, "memory is bounded");
    }
}
