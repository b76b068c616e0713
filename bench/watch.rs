//! What watching costs a message: one count, one value, one line of the log.

use std::{fmt::Display, hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use watch::{
    Outcome, Registry,
    events::{Accepted, Outcome as OutcomeLine},
    log::{self, Format, Levels, Options, Output},
};

fn metrics(c: &mut Criterion) {
    let registry = Registry::new();
    registry.install();
    let shard = registry.shard(0, &[]);
    c.bench_function("counter", |b| b.iter(|| shard.inbound.messages.add(black_box(1))));
    c.bench_function("histogram", |b| {
        b.iter(|| shard.journal.sync.record_duration(black_box(Duration::from_micros(137))));
    });
    let mut sites = shard.delivery.sites.borrow_mut();
    c.bench_function("site outcome", |b| {
        b.iter(|| sites.count(black_box("mx:example.org"), Outcome::Delivered, 1));
    });
    drop(sites);
    // What the same costs through the recorder's own handles.
    let counter = ::metrics::counter!("bench_counter", "shard" => "0");
    c.bench_function("recorder's counter", |b| b.iter(|| counter.increment(black_box(1))));
    let histogram = ::metrics::histogram!("bench_histogram", "shard" => "0");
    let mut values = 0_u32;
    c.bench_function("recorder's histogram", |b| {
        b.iter(|| {
            histogram.record(black_box(0.000_137));
            values += 1;
            // Every five seconds in the server; here, so that memory stays bounded.
            if values.is_multiple_of(100_000) {
                registry.upkeep();
            }
        });
    });
    c.bench_function("scrape", |b| b.iter(|| registry.render()));
}

fn lines(c: &mut Criterion) {
    let file = Output::File("/dev/null".into());
    let log = log::start(Options {
        format: Format::Text,
        output: file,
        levels: Levels::default(),
        buffer_bytes_max: 64 << 20,
        clock: || 1_795_179_771_000_000,
    })
    .expect("the log starts");
    let id = &"0G00000000A1C" as &dyn Display;
    let client = "192.0.2.1:54321".parse().expect("an address");
    let mut at = 1_795_179_771_000_000;
    c.bench_function("accepted line", |b| {
        b.iter(|| {
            at += 30;
            let from = black_box("news@sender.example.org");
            let (tls, msgid) =
                (Some("TLSv1.3 TLS13_AES_256_GCM_SHA384"), Some("<1234567890@sender.example.org>"));
            let line = Accepted {
                id,
                from,
                nrcpt: 1,
                size: 4096,
                client,
                helo: "client.example.org",
                orig_client: None,
                orig_helo: None,
                orig_id: None,
                proto: "ESMTPS",
                tls,
                cert: None,
                msgid,
                tenant: None,
                campaign: None,
                spf: None,
                dkim: None,
                dmarc: None,
                unsubscribe: None,
                signatures: None,
            };
            line.emit(at);
        });
    });
    c.bench_function("outcome line", |b| {
        b.iter(|| {
            at += 30;
            let line = OutcomeLine {
                id,
                to: black_box("somebody@example.net"),
                result: "delivered",
                destination: "mx:example.net",
                site: Some("hosts:mx1.example.net"),
                source: None,
                campaign: None,
                host: Some("mx1.example.net"),
                address: Some(client),
                status: Some(&"2.0.0"),
                reply: "250 2.0.0 Ok: queued as 4XYZ123ABC",
                category: None,
                rule: None,
                retry: None,
                tls: None,
                policy: Some("opportunistic"),
                attempt: 1,
                took: Duration::from_micros(1_234),
                delay: Duration::from_micros(5_678),
                next: None,
            };
            line.emit(at);
        });
    });
    c.bench_function("tracing event", |b| {
        b.iter(|| {
            tracing::info!(target: "smtp", id = %id, from = black_box("news@sender.example.org"), nrcpt = 1, size = 4096,
                client = %client, helo = "client.example.org", proto = "ESMTPS", "accepted");
        });
    });
    c.bench_function("line not wanted", |b| {
        b.iter(|| {
            watch::events::Connected { client: black_box(client), listener: "smtp", proxy: None }.emit(at)
        });
    });
    println!("lines dropped: {}", log.lines_dropped());
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = metrics, lines
}
criterion_main!(benches);
