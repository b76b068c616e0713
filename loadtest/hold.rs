//! The crowd: connections that are opened and then say nothing, for as long as it is told.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use ring::{ConnectOptions, Semaphore, Stream};
use serde::Serialize;

use crate::report::{Progress, Shared, table, watch};
use crate::source::{Security, defaults, duration, resolve};
use crate::wire::Wire;

/// How many to hold, and how far each goes.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The server: an address and a port
    #[arg(default_value = "127.0.0.1:2525", value_parser = resolve)]
    pub server: SocketAddr,

    /// Connections to hold
    #[arg(short = 'n', long, default_value_t = 1000)]
    pub connections: usize,

    /// How to use TLS
    #[arg(long, value_enum, default_value_t = Security::None)]
    pub tls: Security,

    /// Stop in the middle of the first message of the handshake
    #[arg(long)]
    pub half: bool,

    /// Open another connection for each that the server ends
    #[arg(long)]
    pub again: bool,

    /// Connections being opened at the same time
    #[arg(long, default_value_t = 50)]
    pub opening: usize,

    /// Come from so many addresses, 127.0.0.1 and those after it; for a server on the loopback
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=250))]
    pub sources: u8,

    /// End after this time [default: when told to]
    #[arg(short, long, value_parser = duration)]
    pub time: Option<Duration>,

    /// The longest to wait for the server at each step
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub timeout: Duration,

    #[arg(skip)]
    /// Whether to tell how it goes.
    pub progress: Progress,
}

impl Options {
    /// Defaults, for that server.
    pub fn to(server: SocketAddr) -> Self {
        Self { server, ..defaults() }
    }

    /// Where a connection comes from.
    fn local(&self, number: usize) -> Option<IpAddr> {
        let last = u8::try_from(number % usize::from(self.sources)).unwrap_or(0) + 1;
        let loopback = self.server.is_ipv4() && self.server.ip().is_loopback();
        loopback.then_some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Connections that were held at the end.
    pub held: usize,
    /// Connections that the server ended.
    pub ended: u64,
    /// Why others did not come as far as they should, and how often.
    pub errors: BTreeMap<String, u64>,
    /// How long it took until all were held, or had failed to be.
    pub opened_in: Option<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![("held", self.held.to_string()), ("ended", self.ended.to_string())];
        if let Some(seconds) = self.opened_in {
            rows.push(("opened in", format!("{seconds:.2} s")));
        }
        for (error, count) in &self.errors {
            rows.push(("error", format!("{count} × {error}")));
        }
        f.write_str(&table(&rows))
    }
}

struct Crowd {
    options: Options,
    shared: Arc<Shared<Report>>,
    pool: ring::Pool,
    tls: Option<Arc<tls::ClientConfig>>,
    opening: Rc<Semaphore>,
}

/// Opens them and holds them; `on_opened` is told once that all are there.
pub fn run(options: Options, on_opened: impl FnOnce(&Report)) -> Result<Report> {
    let tls = match options.tls {
        Security::None => None,
        Security::Starttls | Security::Implicit => {
            Some(tls::client_config(tls::Authentication::Opportunistic, tls::Version::Tls12, 0)?)
        }
    };
    anyhow::ensure!(tls.is_some() || !options.half, "half a handshake is one of TLS");
    let shared = Shared::new(Report::default());
    let handle = {
        let (options, shared) = (options.clone(), shared.clone());
        ring::start(ring::Options::new("hold"), move || {
            let pool = ring::Pool::new(ring::PoolOptions { small: 2048, ..ring::PoolOptions::default() });
            let opening = Rc::new(Semaphore::new(options.opening.max(1)));
            hold(Rc::new(Crowd { options, shared, pool, tls, opening }))
        })?
    };
    let mut on_opened = Some(on_opened);
    let over = |report: &mut Report, since: Duration| {
        if report.opened_in.is_none() {
            let failed: u64 = report.errors.values().sum();
            if report.held as u64 + report.ended + failed >= options.connections as u64 {
                report.opened_in = Some(since.as_secs_f64());
                on_opened.take().into_iter().for_each(|tell| tell(report));
            }
        }
        options.time.is_some_and(|time| since >= time)
    };
    let line = |report: &mut Report, since: Duration, _| {
        let failed: u64 = report.errors.values().sum();
        format!(
            "{:>5.0} s  {:>7} held  {} ended  errors {failed}",
            since.as_secs_f64(),
            report.held,
            report.ended
        )
    };
    watch(&shared, vec![handle], options.progress, over, line)?;
    let report = shared.totals().clone();
    Ok(report)
}

/// The main task: one for each connection, until it is told to stop.
async fn hold(crowd: Rc<Crowd>) {
    for number in 0..crowd.options.connections {
        let crowd = Rc::clone(&crowd);
        ring::spawn(async move { keep(&crowd, number).await });
    }
    while !crowd.shared.stopping() {
        ring::sleep(Duration::from_millis(20)).await;
    }
}

async fn keep(crowd: &Crowd, number: usize) {
    loop {
        let permit = crowd.opening.acquire().await;
        let opened = open(crowd, number).await;
        drop(permit);
        match opened {
            Ok(mut wire) => {
                crowd.shared.totals().held += 1;
                wire.stream().deadline().clear();
                while let Ok(1..) = wire.fill().await {
                    let read = wire.bytes().len();
                    wire.consume(read);
                }
                let mut report = crowd.shared.totals();
                report.held -= 1;
                report.ended += 1;
            }
            Err((step, error)) => {
                let error = format!("{step}: {}", error.kind());
                *crowd.shared.totals().errors.entry(error).or_default() += 1;
            }
        }
        if !crowd.options.again || crowd.shared.stopping() {
            return;
        }
    }
}

type Step = &'static str;

async fn open(crowd: &Crowd, number: usize) -> Result<Wire, (Step, io::Error)> {
    let options = &crowd.options;
    let connect = ConnectOptions { local: options.local(number), timeout: options.timeout };
    let stream = Stream::connect(options.server, connect).await.map_err(|error| ("connect", error))?;
    stream.deadline().set_after(options.timeout);
    let mut wire = Wire::new(stream, crowd.pool.clone());
    if options.tls != Security::Implicit {
        reply(&mut wire).await.map_err(|error| ("greeting", error))?;
        ask(&mut wire, b"EHLO load.invalid\r\n").await.map_err(|error| ("EHLO", error))?;
        if options.tls == Security::None {
            return Ok(wire);
        }
        ask(&mut wire, b"STARTTLS\r\n").await.map_err(|error| ("STARTTLS", error))?;
    }
    let Some(config) = &crowd.tls else { return Ok(wire) };
    let channel = tls::Channel::client(config, &options.server.ip().to_string());
    let mut channel = channel.map_err(|error| ("TLS", io::Error::other(error)))?;
    if options.half {
        let mut hello = Vec::new();
        channel.take_output(&mut hello);
        wire.write(&[&hello[..hello.len() / 2]]).await.map_err(|error| ("TLS", error))?;
        return Ok(wire);
    }
    wire.secure(channel).await.map_err(|error| ("TLS", error))?;
    if options.tls == Security::Implicit {
        reply(&mut wire).await.map_err(|error| ("greeting", error))?;
    }
    ask(&mut wire, b"EHLO load.invalid\r\n").await.map_err(|error| ("EHLO", error))?;
    Ok(wire)
}

async fn ask(wire: &mut Wire, command: &[u8]) -> io::Result<()> {
    wire.write(&[command]).await?;
    reply(wire).await
}

/// Reads a reply, which has to be a good one.
async fn reply(wire: &mut Wire) -> io::Result<()> {
    loop {
        while let Some(end) = memchr::memchr(b'\n', wire.bytes()) {
            let line = &wire.bytes()[..end];
            let (good, more) = (line.first() == Some(&b'2'), line.get(3) == Some(&b'-'));
            wire.consume(end + 1);
            if !good {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            if !more {
                return Ok(());
            }
        }
        if wire.fill().await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
