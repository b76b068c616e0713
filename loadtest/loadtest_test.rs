//! Both ends against each other.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use crate::source::{Pipelining, Security};
use crate::{compare, sink, source};

const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Runs a sink and a source into it; the sink ends after as many messages as it was told, or when long nothing has come.
fn run(
    sink: impl FnOnce(&mut sink::Options),
    source: impl FnOnce(&mut source::Options),
) -> (source::Report, sink::Report) {
    tls::install_provider();
    let mut options = sink::Options { idle: Some(Duration::from_secs(2)), ..sink::Options::at(HERE) };
    sink(&mut options);
    let sink = sink::bind(options).unwrap();
    let mut options =
        source::Options { sessions: 4, messages: Some(200), ..source::Options::to(sink.address()) };
    source(&mut options);
    let swallowing = thread::spawn(|| sink.run().unwrap());
    let sent = source::run(options).unwrap();
    (sent, swallowing.join().unwrap())
}

#[test]
fn every_way_to_send_arrives_intact() {
    for (pipelining, bdat, tls, per_connection) in [
        (Pipelining::Off, false, Security::None, 0),
        (Pipelining::On, false, Security::None, 7),
        (Pipelining::Deep, false, Security::None, 0),
        (Pipelining::Deep, false, Security::None, 3),
        (Pipelining::Off, true, Security::None, 5),
        (Pipelining::On, true, Security::None, 1),
        (Pipelining::Deep, true, Security::Starttls, 0),
        (Pipelining::Deep, true, Security::None, 3),
        (Pipelining::On, false, Security::Starttls, 1),
        (Pipelining::On, false, Security::Implicit, 0),
    ] {
        let what = format!("{pipelining:?}, bdat {bdat}, {tls:?}, {per_connection} on a connection");
        let (sent, taken) = run(
            |sink| {
                sink.messages = Some(100);
                sink.starttls = tls == Security::Starttls;
                sink.implicit_tls = tls == Security::Implicit;
            },
            |source| {
                *source = source::Options {
                    pipelining,
                    bdat,
                    tls,
                    per_connection,
                    messages: Some(100),
                    recipients: 3,
                    size: "0-9k:5,200k:1".parse().unwrap(),
                    ..source.clone()
                }
            },
        );
        assert_eq!(sent.errors, BTreeMap::new(), "{what}");
        assert_eq!((sent.messages, sent.recipients, sent.unknown), (100, 300, 0), "{what}");
        assert_eq!((taken.messages, taken.recipients, taken.bytes), (100, 300, sent.bytes), "{what}");
        assert_eq!((taken.damaged, taken.foreign, taken.twice), (0, 0, 0), "{what}");
        let run = sink::Run { recipients: 300, gaps: 0 };
        assert_eq!(taken.runs.into_values().collect::<Vec<_>>(), [run], "{what}");
        if per_connection == 1 {
            assert_eq!(sent.connections, 100, "{what}");
        }
    }
}

#[test]
fn trouble_is_counted_and_nothing_acknowledged_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let (acked, seen) = (directory.path().join("acked"), directory.path().join("seen"));
    let mut unacknowledged = 0;
    for (pipelining, bdat) in
        [(Pipelining::Off, false), (Pipelining::On, false), (Pipelining::Deep, false), (Pipelining::On, true)]
    {
        let (sent, taken) = run(
            |sink| {
                for fail in ["mail:450:5", "rcpt:550:5", "data:451:5", "dot:452:5"] {
                    sink.fail.push(fail.parse().unwrap());
                }
                for drop in ["connect:5", "mail:5", "dot:3"] {
                    sink.drop.push(drop.parse().unwrap());
                }
                sink.seen = Some(seen.clone());
            },
            |source| {
                source.pipelining = pipelining;
                source.bdat = bdat;
                source.recipients = 2;
                source.acked = Some(acked.clone());
            },
        );
        let what = format!("{pipelining:?}, bdat {bdat}: {sent:?} {taken:?}");
        // With the next commands behind the content, a connection that is cut there takes the reply with it.
        let replies_lost = taken.recipients - sent.recipients;
        assert!(replies_lost == 0 || pipelining == Pipelining::Deep, "{what}");
        unacknowledged += replies_lost;
        assert!(sent.messages > 100 && sent.messages < 200, "{what}");
        assert!(taken.refused.len() == 4 && taken.dropped > 0 && taken.damaged == 0, "{what}");
        for error in ["MAIL: 450", "RCPT: 550"] {
            assert!(sent.errors.contains_key(error), "{what}");
        }
    }
    let result = compare::compare(&acked, &seen).unwrap();
    assert!(result.acknowledged > 400 && result.missing == 0 && result.twice == 0, "{result:?}");
    assert_eq!(result.unacknowledged, unacknowledged, "{result:?}");
}

#[test]
fn a_fixed_rate_is_kept() {
    let (sent, taken) = run(
        |sink| (sink.messages, sink.delay) = (Some(50), Duration::from_millis(5)),
        |source| *source = source::Options { messages: Some(50), rate: Some(200.0), ..source.clone() },
    );
    assert_eq!((sent.messages, taken.messages), (50, 50));
    assert!(sent.seconds >= 49.0 / 200.0, "{sent:?}");
    assert!(sent.latency_p50_ms >= 5.0, "{sent:?}");
}

#[test]
fn the_sink_ends_when_it_has_enough() {
    let (sent, taken) = run(
        |sink| *sink = sink::Options { messages: Some(50), idle: None, ..sink.clone() },
        |source| source.messages = Some(50),
    );
    assert_eq!((sent.messages, taken.messages), (50, 50));
}

#[test]
fn nobody_there() {
    let gone = sink::bind(sink::Options::at(HERE)).unwrap().address();
    let options = source::Options { time: Some(Duration::from_millis(250)), ..source::Options::to(gone) };
    let sent = source::run(options).unwrap();
    assert_eq!(sent.messages, 0);
    assert!(sent.errors.contains_key("connect: connection refused"), "{sent:?}");
    assert!(sent.to_string().contains("connection refused"));
}
