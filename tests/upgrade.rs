//! A new program takes over from the running one: nobody is refused, no mail is lost or sent twice.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{Read as _, Write as _},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixDatagram, UnixStream},
    },
    path::PathBuf,
};

use end_to_end::{
    Client, LoadSink, LoadSource, Place, Process, Server, Signal, Sink, built, compare, drain, run, until,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

#[path = "upgrade/limits.rs"]
mod limits;

const HOLD: &str = "[[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n";
/// Enough for servers with two cores beside each other, and for mail of two before them.
const MANY_JOURNALS: &str = "[journal]\nshards = 8\n";
/// As many as two programs with two cores need.
const FOUR_JOURNALS: &str = "[journal]\nshards = 4\n";
const ETRN: &str = "[[etrn]]\nname = \"all\"\nnetworks = [\"127.0.0.0/8\"]\ndomains = [\"example.net\"]\n";
/// Longer than the old server is silent for when it has sessions.
const WATCH: &str = "[tls]\nwatch-interval = \"4s\"\n";
/// A next hop that was not there for a moment is to be tried again soon.
const HASTE: &str = "[queue]\nretry = [\"1s\"]\nretry-max = \"2s\"\ndestination-retry-min = \"1s\"\n";

fn mail(client: &mut Client, subject: &str) {
    let content = format!("From: ann@example.org\r\nSubject: {subject}\r\n\r\none\r\n");
    client.send("ann@example.org", &["bob@example.net"], &content);
}

/// Waits until one of the servers has said so. Lines of two processes have no order.
fn said(server: &Server, name: &str, matches: impl Fn(&Value) -> bool) -> Value {
    until(name, || server.events(name).into_iter().find(&matches))
}

/// Waits until so many messages are queued at the server that answers now.
fn queued(server: &Server, count: usize) {
    until("all mail is here", || {
        let listed = server.queue(&["list", "--json", "--limit", "0"]);
        (listed.status.success() && listed.stdout.lines().count() == count).then_some(())
    });
}

#[test]
fn under_load_nobody_is_refused_and_nothing_is_lost_or_sent_twice() {
    let place = Place::new();
    let mut sink = LoadSink::start(&place, &[]);
    let mut server = Server::start(&format!("{MANY_JOURNALS}{HASTE}{}", sink.route()));
    let address = server.smtp();
    let short = ["--rate", "150", "--sessions", "8", "--per-connection", "1", "--size", "1k-8k"];
    let long =
        ["--rate", "100", "--sessions", "4", "--per-connection", "60", "--bdat", "--size", "1k-8k:9,200k:1"];
    let tls = ["--rate", "20", "--sessions", "4", "--per-connection", "5", "--tls", "starttls"];
    let mut sources = [
        LoadSource::start(&place, "short", address, &short),
        LoadSource::start(&place, "long", address, &long),
        LoadSource::start(&place, "tls", address, &tls),
    ];
    let mut last = None;
    // More often than there are journal shards for: what has become empty is used again.
    for number in 1..=6 {
        for _ in 0..100 {
            server.event("accepted", |_| true);
        }
        server.upgrade(&[]).good();
        last = Some(server.successor(number));
    }
    for _ in 0..150 {
        server.event("accepted", |_| true);
    }
    let reports = sources.each_mut().map(LoadSource::finish);
    drain(&server);
    assert!(server.program_mut().wait().success());
    let lines = server.program().lines();
    assert!(!lines.iter().any(|line| line.contains("which leaves too few")), "no server has waited");
    let last = last.unwrap();
    last.signal(Signal::TERM);
    last.wait();
    let report = sink.finish();
    let compared = compare(&sources, &sink);
    eprintln!("{compared}");
    for report in &reports {
        assert_eq!((&report["errors"], &report["unknown"]), (&json!({}), &0.into()), "{report}");
    }
    assert_eq!((compared.missing, compared.twice, compared.unacknowledged), (0, 0, 0), "{compared}");
    assert_eq!((&report["damaged"], &report["foreign"]), (&0.into(), &0.into()), "{report}");
}

/// With three journal shards and two cores, a new server finds too few that are free: it waits for the old one to end, and
/// clients wait for both.
#[test]
fn with_few_journal_shards_the_old_one_ends_first_and_clients_wait() {
    let place = Place::new();
    let mut sink = LoadSink::start(&place, &[]);
    let server = Server::start(&format!("[journal]\nshards = 3\n{HASTE}{}", sink.route()));
    let load = ["--rate", "150", "--sessions", "8", "--per-connection", "20", "--size", "1k-8k"];
    let mut sources = [LoadSource::start(&place, "source", server.smtp(), &load)];
    let mut last = None;
    for number in 1..=3 {
        for _ in 0..100 {
            server.event("accepted", |_| true);
        }
        server.upgrade(&[]).good();
        last = Some(server.successor(number));
    }
    let lines = server.program().lines();
    assert!(lines.iter().any(|line| line.contains("which leaves too few")), "a server has waited");
    let reports = sources.each_mut().map(LoadSource::finish);
    drain(&server);
    drop(last);
    let report = sink.finish();
    let compared = compare(&sources, &sink);
    eprintln!("{compared}; source: {}", reports[0]);
    assert_eq!((compared.missing, compared.twice, compared.unacknowledged), (0, 0, 0), "{compared}");
    assert_eq!((&report["damaged"], &report["foreign"]), (&0.into(), &0.into()), "{report}");
    // A session of an old one is told 421 between two transactions. Nobody is kept from connecting.
    let errors: Vec<_> = reports[0]["errors"].as_object().unwrap().keys().cloned().collect();
    assert!(errors.iter().all(|error| !error.starts_with("connect")), "{errors:?}");
}

/// Held mail on both cores of a server with four journal shards, which was upgraded once: all four have mail in them.
fn mail_in_all_journal_shards() -> (Server, Process) {
    let server = Server::start(&format!("{FOUR_JOURNALS}{HOLD}"));
    mail_on_each_core(&server);
    server.upgrade(&[]).good();
    let successor = server.successor(1);
    mail_on_each_core(&server);
    queued(&server, 4);
    (server, successor)
}

/// Journal shards that were let go with mail in them, once it is so many.
fn spared(server: &Server, count: usize) -> Vec<Value> {
    until("journal shards are let go", || {
        Some(server.events("journal_spared")).filter(|events| events.len() == count)
    })
}

fn mail_on_each_core(server: &Server) {
    // The second one that comes goes where there is none.
    let mut clients = [server.client(), server.client()];
    for client in &mut clients {
        client.send(
            "ann@example.org",
            &["bob@example.net", "carol@example.net"],
            "Subject: one\r\n\r\none\r\n",
        );
    }
}

/// With twice as many journal shards as cores, and mail that stays for long in all of them, no client ever waits.
#[test]
fn mail_that_waits_long_keeps_no_new_program_waiting() {
    let (mut server, mut last) = mail_in_all_journal_shards();
    for number in 2..=5 {
        // There is news of all of them that no checkpoint tells yet: it goes over with them.
        server.queue(&["remove", "--yes", "--recipient", "carol@example.net"]).good();
        server.upgrade(&[]).good();
        last = server.successor(number);
        queued(&server, 2 * number);
        for message in server.queue_json(&["list"]) {
            assert_eq!(message["recipients"].as_array().unwrap().len(), 1, "{message}");
        }
        mail_on_each_core(&server);
        queued(&server, 2 + 2 * number);
    }
    let lines = server.program().lines();
    assert!(!lines.iter().any(|line| line.contains("which leaves too few")), "no server has waited");
    let spared = spared(&server, 2 * 4);
    assert!(spared.iter().all(|event| event["messages"].as_u64() >= Some(1)), "{spared:?}");
    last.signal(Signal::KILL);
    last.wait();
    server.kill();
    server.resume();
    queued(&server, 12);
}

#[test]
fn mail_that_was_let_go_for_a_new_program_which_fails_is_taken_back() {
    let (server, _successor) = mail_in_all_journal_shards();
    server.configure("hostname = 7\n");
    // It does not come so far as to take any of it.
    let refused = server.upgrade(&[]);
    assert!(!refused.status.success() && refused.stderr.contains("hostname"), "{refused:?}");
    spared(&server, 2);
    queued(&server, 4);
    server.configure(&format!("{FOUR_JOURNALS}{HOLD}"));
    server.upgrade(&[]).good();
    let _next = server.successor(2);
    queued(&server, 4);
    spared(&server, 4);
}

/// To let go of journal shards takes a while where attempts are under way.
#[test]
fn who_is_told_to_stop_while_an_upgrade_begins_does_so() {
    let (mut server, successor) = mail_in_all_journal_shards();
    // It takes connections, and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mute.local_addr().unwrap().port();
    let route = format!(
        "[[route]]\nname = \"mute\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"127.0.0.1:{port}\"]\n"
    );
    server.configure(&format!("{FOUR_JOURNALS}{route}[shutdown]\ngrace = \"1s\"\n"));
    successor.signal(Signal::HUP);
    said(&server, "reloaded", |_| true);
    server.queue(&["release", "--all"]).good();
    until("all are tried", || {
        let running =
            server.queue_json(&["list"]).iter().all(|message| message.to_string().contains("\"running\""));
        running.then_some(())
    });
    successor.signal(Signal::USR2);
    until("the second begins", || (server.events("upgrade_begun").len() == 2).then_some(()));
    successor.signal(Signal::TERM);
    successor.wait();
    assert_eq!(server.events("started").len(), 2, "no third one has begun");
    server.configure(&format!("{FOUR_JOURNALS}{HOLD}"));
    server.kill();
    server.resume();
    queued(&server, 4);
}

/// Mail is deferred and tried again all the time, and journal shards go from one to the next with it.
#[test]
fn under_load_mail_that_waits_goes_over_and_nothing_is_lost_or_sent_twice() {
    let place = Place::new();
    let mut sink = LoadSink::start(&place, &["--fail", "rcpt:450:25"]);
    let server = Server::start(&format!("{FOUR_JOURNALS}{HASTE}{}", sink.route()));
    let load = ["--rate", "100", "--sessions", "8", "--per-connection", "20", "--size", "1k-8k"];
    let mut sources = [LoadSource::start(&place, "source", server.smtp(), &load)];
    let mut last = None;
    for number in 1..=4 {
        for _ in 0..100 {
            server.event("outcome", |event| event["result"] == "deferred");
        }
        server.upgrade(&[]).good();
        last = Some(server.successor(number));
    }
    let report = sources[0].finish();
    drain(&server);
    assert!(!server.events("journal_spared").is_empty());
    drop(last);
    let (sunk, compared) = (sink.finish(), compare(&sources, &sink));
    eprintln!("{compared}; source: {report}");
    assert_eq!((compared.missing, compared.twice, compared.unacknowledged), (0, 0, 0), "{compared}");
    assert_eq!((&sunk["damaged"], &sunk["foreign"]), (&0.into(), &0.into()), "{sunk}");
    let errors: Vec<_> = report["errors"].as_object().unwrap().keys().cloned().collect();
    assert!(errors.iter().all(|error| !error.starts_with("connect")), "{errors:?}");
}

#[test]
fn a_session_goes_on_where_it_began_and_its_mail_moves() {
    let mut server = Server::start(&format!("{MANY_JOURNALS}{HOLD}"));
    let mut old = server.client();
    mail(&mut old, "before");
    assert!(old.ask("MAIL FROM:<ann@example.org>").is_positive());
    // As `ringpost upgrade` does, but without waiting for the end.
    server.program().signal(Signal::USR2);
    let successor = server.successor(1);
    said(&server, "taking_over", |_| true);
    // The transaction that was open, and one more.
    assert!(old.ask("RCPT TO:<bob@example.net>").is_positive());
    old.say("DATA");
    old.expect(354);
    old.put(b"Subject: during\r\n\r\n.\r\n");
    old.expect(250);
    mail(&mut old, "after");
    let mut new = server.client();
    mail(&mut new, "new");
    // Each has its own mail, and the new one says that there is another.
    assert_eq!(server.queue_json(&["list"]).len(), 1);
    until("the sessions of the old one are told", || {
        (server.metric("ringpost_predecessor_sessions", &[]) == 1.0).then_some(())
    });
    let refused = server.upgrade(&["--no-wait"]);
    assert!(!refused.status.success() && refused.stderr.contains("has not ended yet"), "{refused:?}");
    assert!(old.ask("QUIT").is_positive());
    assert!(server.program_mut().wait().success());
    said(&server, "took_over", |event| event["journals"] == 2);
    server.upgrade(&["--watch"]).good();
    queued(&server, 4);
    mail(&mut new, "and on");
    queued(&server, 5);
    successor.signal(Signal::TERM);
    successor.wait();
    // All of it is found by a start of the ordinary kind, whichever of them has written it.
    server.kill();
    server.resume();
    queued(&server, 5);
}

/// A server with a session on each of its two cores, of which each has sent a message, and a new one that has taken over.
fn beside_each_other() -> (Server, Process, Client, Client) {
    let server = Server::start(&format!("{MANY_JOURNALS}{ETRN}{HOLD}{WATCH}"));
    // The second one that comes goes where there is none.
    let (mut one, mut other) = (server.client(), server.client());
    mail(&mut one, "one");
    mail(&mut other, "other");
    let messages = |client: usize| {
        let text = server.get("/metrics");
        let label = format!("shard=\"{client}\"");
        end_to_end::metric(&text, "ringpost_queue_messages", &[label.as_str()])
    };
    until("each core has a message", || (messages(0) == 1.0 && messages(1) == 1.0).then_some(()));
    server.upgrade(&["--no-wait"]).good();
    let successor = server.successor(1);
    (server, successor, one, other)
}

#[test]
fn a_core_that_has_no_session_left_hands_over_while_others_serve() {
    let (mut server, _successor, mut one, mut other) = beside_each_other();
    queued(&server, 0);
    assert!(one.ask("QUIT").is_positive());
    said(&server, "core_ended", |event| event["journals"] == 1);
    said(&server, "took_part", |event| event["journals"] == 1 && event["left"] == 1);
    queued(&server, 1);
    // The other one goes on, and so does its session.
    mail(&mut other, "and on");
    mail(&mut server.client(), "new");
    queued(&server, 2);
    // It cannot tell what the new one has by now: there may be more.
    assert_eq!(other.ask("ETRN example.net").code, 250);
    until("the sessions of the old one are told", || {
        (server.metric("ringpost_predecessor_sessions", &[]) == 1.0).then_some(())
    });
    assert!(server.program_mut().is_running());
    assert!(other.ask("QUIT").is_positive());
    assert!(server.program_mut().wait().success());
    said(&server, "took_over", |event| event["journals"] == 2);
    queued(&server, 4);
    assert_eq!(server.events("predecessor_lost").len(), 0);
    // Each index was closed before it was opened.
    let lines = server.program().lines();
    assert!(!lines.iter().any(|line| line.contains("there is no index")));
}

/// What the new one does now and then is done while it hears of the old one all the time.
#[test]
fn certificates_are_renewed_while_the_old_one_has_sessions() {
    let (server, _successor, _one, _other) = beside_each_other();
    let (elsewhere, here) = (Server::prepare(""), server.place());
    for name in ["key.pem", "certificate.pem"] {
        fs::rename(elsewhere.place().join(name), here.join(name)).unwrap();
    }
    said(&server, "certificates_renewed", |_| true);
    assert!(server.metric("ringpost_predecessor_sessions", &[]) > 0.0);
}

/// Patience is over: whoever is next finds files that nobody is at work on.
#[test]
fn who_is_cut_off_in_the_middle_of_a_message_leaves_nothing_behind() {
    let brief = "[upgrade]\npatience = \"1s\"\n[shutdown]\ngrace = \"1s\"\n";
    let mut server = Server::start(&format!("{MANY_JOURNALS}{HOLD}{brief}"));
    let mut old = server.client();
    mail(&mut old, "before");
    for command in ["MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>"] {
        assert_eq!(old.ask(command).code, 250);
    }
    assert_eq!(old.ask("DATA").code, 354);
    // More than is kept in memory: a part of it is written.
    old.put(&b"It goes on and on.\r\n".repeat(1 << 17));
    server.upgrade(&["--no-wait"]).good();
    let _successor = server.successor(1);
    assert!(server.program_mut().wait().success());
    said(&server, "handed_over", |event| event["cut"] == 1);
    said(&server, "took_over", |_| true);
    queued(&server, 1);
    let lines = server.program().lines();
    assert!(!lines.iter().any(|line| line.contains("still at work")));
}

/// There is always something in its input, and yet it is told to go between two messages, and has not to be cut off.
#[test]
fn who_never_pauses_is_told_to_go_when_patience_is_over() {
    const MESSAGE: &[u8] =
        b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nBDAT 14 LAST\r\nSubject: x\r\n\r\n";
    let brief = "[upgrade]\npatience = \"1s\"\n";
    let mut server = Server::start(&format!("{MANY_JOURNALS}{HOLD}{brief}"));
    let mut old = server.client();
    old.put(&MESSAGE.repeat(20));
    server.upgrade(&["--no-wait"]).good();
    let mut codes = Vec::new();
    let last = loop {
        let reply = old.reply();
        codes.push(reply.code);
        match codes.len() % 3 {
            _ if reply.code != 250 => break reply,
            // So many are always on their way.
            0 => _ = old.try_put(MESSAGE),
            _ => {}
        }
    };
    assert_eq!((last.code, codes.len() % 3), (421, 1), "{last:?}");
    assert!(server.program_mut().wait().success());
    said(&server, "handed_over", |event| event["cut"] == 0);
    queued(&server, codes.len() / 3);
}

/// What cannot be read of the old one is left as it is, and nobody who is served suffers for it.
#[test]
fn a_journal_that_cannot_be_read_is_left_for_a_start() {
    let (mut server, successor, mut one, mut other) = beside_each_other();
    let segment = server.place().join("data/segments/0000/00000099.segment");
    // It leads to itself.
    std::os::unix::fs::symlink(&segment, &segment).unwrap();
    assert!(one.ask("QUIT").is_positive() && other.ask("QUIT").is_positive());
    assert!(server.program_mut().wait().success());
    let unread = said(&server, "journal_unread", |event| event["journal"] == 0);
    assert!(unread["error"].as_str().is_some_and(|error| error.contains("00000099.segment")), "{unread}");
    said(&server, "took_over", |_| true);
    queued(&server, 1);
    mail(&mut server.client(), "new");
    queued(&server, 2);
    fs::remove_file(&segment).unwrap();
    successor.signal(Signal::KILL);
    successor.wait();
    server.kill();
    server.resume();
    queued(&server, 3);
}

/// Both have one disk: what the old one has is taken off what the new one may use, and counted once when it is there.
#[test]
fn what_the_old_one_has_on_the_disk_counts() {
    const ASIDE: f64 = (2 * 8 * (8 << 20)) as f64;
    let (mut server, _successor, mut one, mut other) = beside_each_other();
    let segments = server.place().join("data/segments");
    let of_old = || {
        let folders =
            ["0000", "0001"].into_iter().flat_map(|folder| fs::read_dir(segments.join(folder)).unwrap());
        let files = folders.map(|file| file.unwrap().path());
        let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "segment"));
        files.map(|file| fs::metadata(file).unwrap().len()).sum::<u64>() as f64
    };
    assert!(of_old() >= ((2 * 8) << 20) as f64, "a segment of each core");
    let counted = |server: &Server, what: &str| {
        until(what, || (server.metric("ringpost_journal_disk_bytes", &[]) == ASIDE + of_old()).then_some(()));
    };
    counted(&server, "both are counted");
    assert!(one.ask("QUIT").is_positive());
    said(&server, "took_part", |_| true);
    counted(&server, "what is here and what is not");
    assert!(other.ask("QUIT").is_positive());
    assert!(server.program_mut().wait().success());
    said(&server, "took_over", |_| true);
    counted(&server, "what is here");
}

/// Whoever is in the middle of a request to the old one may bring its mail to any core of it.
#[test]
fn mail_on_its_way_in_by_http_keeps_the_cores() {
    let made = run(&built("ringpost"), &["key", "shop", "--domain", "example.org"], "").good();
    let key = made.stderr.split_whitespace().find(|word| word.starts_with("ringpost_")).unwrap();
    let mut server = Server::start(&format!("{MANY_JOURNALS}{}{HOLD}", made.stdout));
    let body = json!({"from": "ann@example.org", "to": ["bob@example.net"], "subject": "one", "text": "one"});
    let body = body.to_string();
    let head = format!(
        "POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    let mut brings = Client::connect(server.http());
    brings.put(head.as_bytes());
    until("it is to go on", || brings.has_input().then_some(()));
    server.upgrade(&["--no-wait"]).good();
    let _successor = server.successor(1);
    until("the old one waits for it", || {
        (server.metric("ringpost_predecessor_sessions", &[]) == 1.0).then_some(())
    });
    brings.put(body.as_bytes());
    let answer = brings.rest();
    assert!(answer.contains("HTTP/1.1 202"), "{answer}");
    assert!(server.program_mut().wait().success());
    queued(&server, 1);
}

#[test]
fn an_old_one_that_is_killed_with_a_core_left_loses_nothing() {
    let (mut server, _successor, mut one, mut other) = beside_each_other();
    assert!(one.ask("QUIT").is_positive());
    said(&server, "took_part", |_| true);
    mail(&mut other, "and on");
    server.program_mut().kill();
    said(&server, "predecessor_lost", |_| true);
    said(&server, "took_over", |event| event["journals"] == 2);
    queued(&server, 3);
}

#[test]
fn a_new_one_that_is_killed_with_a_core_to_come_loses_nothing() {
    let (mut server, successor, mut one, mut other) = beside_each_other();
    assert!(one.ask("QUIT").is_positive());
    said(&server, "took_part", |_| true);
    mail(&mut other, "and on");
    mail(&mut server.client(), "new");
    successor.signal(Signal::KILL);
    successor.wait();
    assert_eq!(server.program_mut().wait().code(), Some(70), "whoever watches it starts one again");
    server.kill();
    server.resume();
    queued(&server, 4);
}

#[test]
fn a_stop_with_a_core_left_ends_both() {
    let (mut server, successor, mut one, mut other) = beside_each_other();
    assert!(one.ask("QUIT").is_positive());
    said(&server, "took_part", |_| true);
    mail(&mut other, "and on");
    successor.signal(Signal::TERM);
    successor.wait();
    assert_eq!(other.expect(421).code, 421);
    assert!(server.program_mut().wait().success());
    server.kill();
    server.resume();
    queued(&server, 3);
}

/// The old one waits for it, and it stands still: it was given the word, and has not said that it serves.
fn stopped_on_the_threshold() -> (Server, Process, Client) {
    let server = Server::start(&format!("{MANY_JOURNALS}{HOLD}"));
    let (new, client) = stop_on_the_threshold(&server);
    (server, new, client)
}

/// As [`stopped_on_the_threshold`], of a server that serves already.
fn stop_on_the_threshold(server: &Server) -> (Process, Client) {
    let mut client = server.client();
    mail(&mut client, "before");
    // The new one waits for the rest of its configuration, and so for this test.
    let (gate, rest) = (server.place().join("conf.d/gate.toml"), server.place().join("rest.toml"));
    fs::write(&rest, "").expect("a file");
    mknodat(CWD, &gate, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
    server.program().signal(Signal::USR2);
    let waits = OpenOptions::new().write(true).open(&gate).expect("it reads");
    // Nobody answers it any more.
    server.program().signal(Signal::STOP);
    fs::rename(&rest, &gate).expect("a name");
    drop(waits);
    let pid = until("the new program begins", || server.events("started").get(1)?["pid"].as_u64());
    let new = Process::of(pid);
    server.program().wait_for("it can serve", |line| line.contains("waits for the word").then_some(()));
    new.signal(Signal::STOP);
    server.program().signal(Signal::CONT);
    server.program().wait_for("it has the word", |line| line.contains("has the word").then_some(()));
    (new, client)
}

/// What there was, what has waited meanwhile, and what comes: all of it is served by the old one.
fn goes_on_as_if_nothing_had_been(server: &Server, mut client: Client, mut waiting: Client) {
    said(server, "went_on", |_| true);
    waiting.expect(220);
    waiting.say("EHLO client.test");
    waiting.expect(250);
    mail(&mut waiting, "waiting");
    mail(&mut client, "after");
    mail(&mut server.client(), "next");
    queued(server, 4);
    said(server, "upgrade_refused", |_| true);
    assert_eq!(server.metric("ringpost_upgrades_total", &["result=\"refused\""]), 1.0);
    assert_eq!(server.metric("ringpost_upgrades_total", &["result=\"done\""]), 0.0);
    assert_eq!(server.events("handing_over").len(), 0);
    server.upgrade(&["--no-wait"]).good();
    let _successor = server.successor(1);
    mail(&mut server.client(), "to the next one");
    assert!(client.ask("QUIT").is_positive() && waiting.ask("QUIT").is_positive());
    queued(server, 5);
}

#[test]
fn a_new_program_that_is_killed_between_the_word_and_its_first_client_changes_nothing() {
    let (server, new, client) = stopped_on_the_threshold();
    let waiting = Client::connect(server.smtp());
    new.signal(Signal::KILL);
    new.wait();
    goes_on_as_if_nothing_had_been(&server, client, waiting);
}

/// It hangs until it is given up. When it comes to itself it sees that it is not alone, and whoever watches the server is told so.
#[test]
fn a_new_program_that_hangs_between_the_word_and_its_first_client_changes_nothing() {
    let mut server = Server::prepare(&format!("{MANY_JOURNALS}{HOLD}"));
    let name = server.place().join("notify");
    let watches = UnixDatagram::bind(&name).unwrap();
    let mut command = server.command();
    server.resume_by(command.env("NOTIFY_SOCKET", &name));
    let (new, client) = stop_on_the_threshold(&server);
    let waiting = Client::connect(server.smtp());
    said(&server, "went_on", |_| true);
    new.signal(Signal::CONT);
    new.wait();
    watches.set_nonblocking(true).unwrap();
    let mut told = String::new();
    let mut one = [0; 1 << 10];
    until("the old one is the server", || {
        while let Ok(len) = watches.recv(&mut one) {
            told.push_str(str::from_utf8(&one[..len]).unwrap());
        }
        let last = told.lines().rfind(|line| line.starts_with("MAINPID="))?;
        (last == format!("MAINPID={}", server.program().pid())).then_some(())
    });
    assert!(told.contains(&format!("MAINPID={}\n", new.pid())), "it had come so far: {told}");
    goes_on_as_if_nothing_had_been(&server, client, waiting);
}

/// It would have what is missed here for as long as it hangs.
#[test]
fn a_new_program_that_hangs_is_ended() {
    let (server, new, client) = stopped_on_the_threshold();
    let waiting = Client::connect(server.smtp());
    new.wait();
    goes_on_as_if_nothing_had_been(&server, client, waiting);
}

#[test]
fn a_signal_between_the_word_and_its_answer_is_heard() {
    let (mut server, new, mut client) = stopped_on_the_threshold();
    server.program().signal(Signal::TERM);
    assert_eq!(client.expect(421).code, 421);
    assert!(server.program_mut().wait().success());
    new.signal(Signal::CONT);
    said(&server, "took_over", |_| true);
    mail(&mut server.client(), "after");
    queued(&server, 2);
}

/// What goes wrong when it opens its doors, and who asked for it is told.
#[test]
fn a_new_program_that_fails_after_the_word_changes_nothing() {
    let server = Server::start(&format!("{MANY_JOURNALS}{HOLD}"));
    let mut client = server.client();
    mail(&mut client, "before");
    let control = server.place().join("data/control.sock");
    let mut asks = UnixStream::connect(&control).unwrap();
    // Nobody can listen there now.
    fs::remove_file(&control).unwrap();
    fs::create_dir(&control).unwrap();
    let request = "POST /api/v1/upgrade HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    asks.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    asks.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("the new program ended before it served"), "{answer}");
    fs::remove_dir(&control).unwrap();
    let waiting = Client::connect(server.smtp());
    until("commands reach it again", || control.exists().then_some(()));
    goes_on_as_if_nothing_had_been(&server, client, waiting);
}

#[test]
fn a_new_program_that_cannot_serve_changes_nothing() {
    let server = Server::start(&format!("{MANY_JOURNALS}{HOLD}"));
    let mut client = server.client();
    server.configure("hostname = 7\n");
    let refused = server.upgrade(&[]);
    assert!(!refused.status.success());
    assert!(
        refused.stderr.contains("the running program stays") && refused.stderr.contains("hostname"),
        "{refused:?}"
    );
    said(&server, "upgrade_refused", |event| event["error"].as_str().unwrap().contains("hostname"));
    mail(&mut client, "one");
    mail(&mut server.client(), "two");
    queued(&server, 2);
    assert_eq!(server.metric("ringpost_upgrades_total", &["result=\"refused\""]), 1.0);
    // Mended, it goes.
    server.configure(&format!("{MANY_JOURNALS}{HOLD}"));
    server.upgrade(&["--no-wait"]).good();
    let _successor = server.successor(1);
    mail(&mut server.client(), "three");
    assert!(client.ask("QUIT").is_positive());
    queued(&server, 3);
}

#[test]
fn without_its_process_there_is_no_upgrade_and_the_reason_is_told() {
    let server = Server::start(&format!("{HOLD}[upgrade]\nenabled = false\n"));
    let refused = server.upgrade(&[]);
    assert!(!refused.status.success() && refused.stderr.contains("upgrade.enabled"), "{refused:?}");
    mail(&mut server.client(), "one");
}

#[test]
fn the_mail_of_an_old_one_that_is_killed_is_taken_over() {
    let mut server = Server::start(&format!("{MANY_JOURNALS}{HOLD}"));
    let mut old = server.client();
    server.upgrade(&["--no-wait"]).good();
    let _successor = server.successor(1);
    mail(&mut old, "from the old one");
    mail(&mut server.client(), "from the new one");
    server.program_mut().kill();
    said(&server, "predecessor_lost", |_| true);
    said(&server, "took_over", |_| true);
    queued(&server, 2);
}

#[test]
fn an_old_one_whose_successor_is_killed_ends_and_loses_nothing() {
    let mut server = Server::start(&format!("{MANY_JOURNALS}{HOLD}"));
    let mut old = server.client();
    server.upgrade(&["--no-wait"]).good();
    let successor = server.successor(1);
    mail(&mut old, "from the old one");
    mail(&mut server.client(), "from the new one");
    successor.signal(Signal::KILL);
    successor.wait();
    let status = server.program_mut().wait();
    assert_eq!(status.code(), Some(70), "whoever watches it starts one again");
    server.kill();
    server.resume();
    queued(&server, 2);
}

#[test]
fn a_stop_ends_both() {
    let mut server = Server::start(&format!("{MANY_JOURNALS}{HOLD}"));
    let mut old = server.client();
    server.upgrade(&["--no-wait"]).good();
    let successor = server.successor(1);
    mail(&mut old, "from the old one");
    successor.signal(Signal::TERM);
    successor.wait();
    assert_eq!(old.expect(421).code, 421);
    assert!(server.program_mut().wait().success());
    server.kill();
    server.resume();
    queued(&server, 1);
}

#[test]
fn attempts_under_way_are_finished_by_the_one_that_began_them() {
    let sink = Sink::start();
    let mut server = Server::start(&format!("{MANY_JOURNALS}{HASTE}{}", sink.route()));
    sink.refuse_recipients("450 4.2.0 not now");
    let mut old = server.client();
    mail(&mut old, "deferred");
    server.event("outcome", |event| event["result"] == "deferred");
    server.upgrade(&["--no-wait"]).good();
    let _successor = server.successor(1);
    assert!(old.ask("QUIT").is_positive());
    assert!(server.program_mut().wait().success());
    sink.accept();
    // The new one has it now, with what had become of it before.
    let outcome = said(&server, "outcome", |event| event["result"] == "delivered");
    assert!(outcome["attempt"].as_u64().is_none_or(|attempt| attempt > 1), "{outcome}");
    assert!(sink.mail().content.contains("Subject: deferred"));
    drain(&server);
    assert_eq!(sink.waiting(), 0, "once, and not twice");
}

/// Ports below 1024 and keys that only root can read are to be had for the new program as they were for the old one.
#[test]
fn a_new_program_begins_with_the_rights_of_the_first_and_gives_them_up_too() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not root: nobody who could become another user");
    }
    let mut server = Server::prepare(&format!("user = \"nobody\"\n{MANY_JOURNALS}{HOLD}"));
    fs::set_permissions(server.place().path(), Permissions::from_mode(0o755)).unwrap();
    server.resume();
    let user = |pid: u64| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    mail(&mut server.client(), "to the old one");
    assert_eq!(user(server.program().pid().into()), "65534");
    server.upgrade(&[]).good();
    let first = server.successor(1);
    server.upgrade(&[]).good();
    first.wait();
    let second = server.successor(2);
    let pid = second.pid();
    assert_eq!(user(pid), "65534");
    mail(&mut server.client(), "to the new one");
    queued(&server, 2);
}

/// Sockets that all cores share are the same ones after any number of upgrades, and none is opened once more.
#[test]
fn sockets_do_not_become_more() {
    let place = Place::new();
    let socket = place.join("lmtp");
    let listener = format!(
        "[[listener]]\nname = \"lmtp\"\nkind = \"lmtp\"\naddress = [\"unix:{}\"]\ntls = \"none\"\n",
        socket.display()
    );
    let server = Server::start(&format!("{MANY_JOURNALS}{HOLD}{listener}"));
    let sockets = |pid: u64| {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let links = links.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    };
    server.upgrade(&[]).good();
    let mut last = server.successor(1);
    let first = sockets(last.pid());
    for number in 2..=5 {
        server.upgrade(&[]).good();
        last = server.successor(number);
    }
    let now = sockets(last.pid());
    assert!(now <= first + 2, "{first} sockets after the first upgrade, {now} after the fifth");
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
    mail(&mut server.client(), "one");
}

/// A program that hangs is given up; whatever it does when it comes to itself, it has nothing that the next one has.
#[test]
fn one_that_was_given_up_does_no_harm_when_it_wakes() {
    let server = Server::start(&format!("{MANY_JOURNALS}{HOLD}[upgrade]\nstart-max = \"5s\"\n"));
    mail(&mut server.client(), "before");
    // It has a journal shard, and waits for what is in there, for ever.
    let segments = server.place().join("data/segments/0002");
    fs::create_dir_all(&segments).unwrap();
    let segment: PathBuf = segments.join("00000001.segment");
    mknodat(CWD, &segment, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let refused = server.upgrade(&[]);
    assert!(!refused.status.success() && refused.stderr.contains("upgrade.start-max"), "{refused:?}");
    let pid = until("it has begun", || server.events("started").get(1)?["pid"].as_u64());
    let hung = Process::of(pid);
    fs::remove_file(&segment).unwrap();
    server.upgrade(&[]).good();
    let _successor = server.successor(1);
    for number in 0..20 {
        mail(&mut server.client(), &number.to_string());
    }
    // It is ended before the next one is begun. Were it not, it would have what the next one has.
    hung.wait();
    queued(&server, 21);
}
