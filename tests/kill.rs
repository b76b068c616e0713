//! No mail is lost: not by SIGKILL at any moment, nor by SIGTERM or SIGHUP under load.
//!
//! The bundled source pours mail into the server, the server relays it to the bundled sink. The source keeps a list of
//! what got its 250, the sink one of what came in whole: run, number and recipient. Then the lists are compared.

use std::{env, process, thread, time::Duration};

use end_to_end::{LoadSink, LoadSource, Place, Server, Signal, Sink, compare, drain};
use serde_json::Value;

/// How often the server is killed.
const KILLS: u32 = 32;

/// A next hop that was not there for a moment is to be tried again soon.
const HASTE: &str = r#"
[queue]
retry = ["1s"]
retry-max = "2s"
destination-retry-min = "1s"
destination-retry-max = "2s"
[log]
level = "info"
"#;

#[test]
fn sigkill_at_any_moment_loses_nothing() {
    let seed = env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(process::id().into());
    eprintln!("SEED={seed}");
    let mut random = Random(seed);
    let place = Place::new();
    // The next hop makes trouble too, so that there is more in the journal than what has just come.
    let mut sink =
        LoadSink::start(&place, &["--fail", "rcpt:450:3", "--fail", "dot:451:3", "--drop", "dot:2"]);
    let mut server = Server::start(&format!("{HASTE}{}", sink.route()));
    let small = ["--rate", "300", "--sessions", "10", "--size", "1k-8k"];
    let large = ["--rate", "20", "--sessions", "4", "--recipients", "5", "--bdat", "--size", "1k-64k:9,2M:1"];
    let mut sources = [
        LoadSource::start(&place, "small", server.smtp(), &small),
        LoadSource::start(&place, "large", server.smtp(), &large),
    ];

    let mut unready = 0;
    for _ in 0..KILLS {
        // One time in five it does not live to see its readiness: killed while it reads its journal.
        let life = if random.below(5) == 0 {
            unready += 1;
            server.kill();
            server.launch();
            Duration::from_millis(random.below(150))
        } else {
            Duration::from_millis(random.below(2500))
        };
        // Not a wait for anything: the moment is what is tried.
        thread::sleep(life);
        server.kill();
        server.resume();
    }

    let reports = sources.each_mut().map(LoadSource::finish);
    drain(&server);
    server.stop();
    let report = sink.finish();
    let compared = compare(&sources, &sink);
    eprintln!(
        "{KILLS} kills and {unready} more at the start: {compared}; {} messages without a reply",
        reports.iter().map(|report| report["unknown"].as_u64().unwrap()).sum::<u64>()
    );
    assert!(compared.acknowledged > 3000, "there was mail to lose: {compared}, {reports:?}");
    assert_eq!((compared.missing, &compared.examples), (0, &vec![]), "{compared}");
    // Twice is only what was under way at a kill, or had ended and was not yet written down.
    assert!(compared.twice < compared.acknowledged / 100, "{compared}");
    assert_eq!((&report["damaged"], &report["foreign"]), (&0.into(), &0.into()), "{report}");
}

/// The first life leaves a deferred message in the journal, and the second's checkpoint has it in the index. The second
/// delivers it and is killed. The third's checkpoint used to leave the message in the index, though its end lies
/// before that checkpoint: the fourth life delivered it again.
#[test]
fn who_has_ended_stays_so_over_many_starts() {
    for signal in [Signal::KILL, Signal::TERM] {
        let sink = Sink::start();
        sink.refuse_recipients("450 4.2.0 not now");
        let one_core = "[cores]\ncount = 1\n";
        let mut server = Server::start(&format!("{HASTE}{one_core}{}", sink.route()));
        let subjects = ["deferred", "two", "three", "four", "five"];
        for (life, subject) in subjects.into_iter().enumerate() {
            server.client().send(
                "ann@example.org",
                &["bob@example.net"],
                &format!("Subject: {subject}\r\n\r\n"),
            );
            if life == 0 {
                server.event("outcome", |event| event["result"] == "deferred");
                sink.accept();
            } else {
                server.event("outcome", |event| event["result"] == "delivered");
                drain(&server);
            }
            // The log has one order: what was written before this message is durable when it is acknowledged.
            sink.refuse_recipients("450 4.2.0 not now");
            server.client().send("ann@example.org", &["bob@example.net"], "Subject: last\r\n\r\n");
            server.event("outcome", |event| event["result"] == "deferred");
            sink.accept();
            server.program().signal(signal);
            server.program_mut().wait();
            server.kill();
            server.resume();
        }
        drain(&server);
        let mut came: Vec<String> = (0..sink.waiting()).map(|_| subject(&sink.mail().content)).collect();
        came.sort();
        assert_eq!(
            came,
            ["deferred", "five", "four", "last", "last", "last", "last", "last", "three", "two"]
        );
    }
}

fn subject(content: &str) -> String {
    let field = content.lines().find_map(|line| line.strip_prefix("Subject: "));
    field.unwrap_or_else(|| panic!("no subject: {content}")).to_owned()
}

#[test]
fn sigterm_sends_nothing_twice() {
    let place = Place::new();
    let mut sink = LoadSink::start(&place, &[]);
    let mut server = Server::start(&format!("{HASTE}{}", sink.route()));
    let load = ["--rate", "300", "--sessions", "10", "--size", "1k-8k:9,200k:1"];
    let mut sources = [LoadSource::start(&place, "source", server.smtp(), &load)];
    let mut cut = 0;
    for _ in 0..5 {
        for _ in 0..150 {
            server.event("accepted", |_| true);
        }
        let (status, log) = server.stop();
        assert!(status.success(), "{status}");
        let stopped = log.iter().rev().find(|line| line.contains("\"stopped\"")).unwrap();
        let stopped: Value = serde_json::from_str(stopped).unwrap();
        cut += stopped["cut"].as_u64().unwrap();
        server.resume();
    }
    let reports = sources.each_mut().map(LoadSource::finish);
    drain(&server);
    server.stop();
    let report = sink.finish();
    let compared = compare(&sources, &sink);
    eprintln!("{compared}; source: {}", reports[0]);
    assert_eq!(cut, 0, "every session ended well within the grace");
    assert_eq!((compared.missing, compared.twice, compared.unacknowledged), (0, 0, 0), "{compared}");
    assert_eq!((&report["damaged"], &report["foreign"]), (&0.into(), &0.into()), "{report}");
    // Who had sent its content got a reply. A session between transactions is told 421 and ended; the source has
    // sent MAIL and RCPT by then, and finds no more replies than that one.
    let errors: Vec<_> = reports[0]["errors"].as_object().unwrap().keys().collect();
    let harmless = ["connect: ", "greeting: ", "EHLO: ", "RCPT: "];
    let is_harmless = |error: &&String| harmless.iter().any(|step| error.starts_with(step));
    assert!(errors.iter().all(is_harmless), "{errors:?}");
}

#[test]
fn sighup_under_load_turns_nobody_away() {
    let place = Place::new();
    let mut sink = LoadSink::start(&place, &[]);
    let mut server = Server::start(&format!("{HASTE}{}", sink.route()));
    // Many connections, some in TLS: one that is refused, or whose certificate is half there, is an error.
    let plain = ["--rate", "200", "--sessions", "8", "--per-connection", "3", "--size", "1k-8k"];
    let tls = ["--rate", "20", "--sessions", "4", "--per-connection", "5", "--tls", "starttls"];
    let mut sources = [
        LoadSource::start(&place, "plain", server.smtp(), &plain),
        LoadSource::start(&place, "tls", server.smtp(), &tls),
    ];
    for number in 0..10 {
        for _ in 0..50 {
            server.event("accepted", |_| true);
        }
        let size = 40 + number;
        server.configure(&format!("{HASTE}[limits]\nmessage-size-max = \"{size}MiB\"\n{}", sink.route()));
        let told = server.reload();
        assert_eq!((&told["event"], told.get("pending")), (&"reloaded".into(), None), "{told}");
        let offered = format!("SIZE {}", size << 20);
        let mut client = end_to_end::Client::connect(server.smtp());
        client.expect(220);
        assert!(client.ask("EHLO client.test").lines.contains(&offered), "{offered}");
    }
    let reports = sources.each_mut().map(LoadSource::finish);
    drain(&server);
    server.stop();
    let report = sink.finish();
    let compared = compare(&sources, &sink);
    eprintln!("{compared}");
    for report in &reports {
        assert_eq!((&report["errors"], &report["unknown"]), (&serde_json::json!({}), &0.into()), "{report}");
    }
    assert_eq!((compared.missing, compared.twice, compared.unacknowledged), (0, 0, 0), "{compared}");
    assert_eq!((&report["damaged"], &report["foreign"]), (&0.into(), &0.into()), "{report}");
}

/// A linear congruential generator (Knuth's MMIX): the same seed gives the same moments.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
