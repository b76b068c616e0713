//! Hosts that come for their mail and are the server on the connection they have made (RFC 2645).

use std::{
    fs::{self, OpenOptions},
    io::ErrorKind,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::PathBuf,
    thread::{self, Scope, ScopedJoinHandle},
};

use end_to_end::{Client, Process, Server, Signal, Sink, built, run, tool, until};
use serde_json::Value;

use super::certificates::Papers;

/// What a host does that has come for its mail.
#[derive(Clone, Copy)]
struct Visit<'a> {
    certificate: Option<&'a str>,
    /// The command.
    says: &'a str,
    /// The command of ours at which it goes away; `END` is the final dot.
    dies: &'a str,
    /// The command of ours that it does not answer for as long as we stay.
    hangs: &'a str,
    /// The command of ours, the first of its kind, that it does not answer before it is told to; `TEXT` is the content,
    /// which it does not read before.
    waits: &'a str,
    /// What it answers to RCPT, by address.
    answers: &'a [(&'a str, &'a str)],
}

impl Visit<'_> {
    /// Begins TLS, asks, and serves. Answers the reply to its command, and `from to... subject` for each message it took.
    fn pay(self, server: &Server) -> (String, Vec<String>) {
        let (host, port) = (server.smtp().ip(), server.smtp().port());
        let chain = self.certificate.map_or(String::new(), |name| {
            let [certificate, key] = ["pem", "key"].map(|end| Papers(server).path(&format!("{name}.{end}")));
            format!("context.load_cert_chain({certificate:?}, {key:?})")
        });
        let answers: Vec<_> = self.answers.iter().map(|(to, reply)| format!("{to:?}: {reply:?}")).collect();
        let Self { says, dies, hangs, waits, .. } = self;
        let word = word(server);
        let answers = answers.join(", ");
        let script = format!(
            r#"
import os, socket, ssl
context = ssl._create_unverified_context()
{chain}
connection = socket.create_connection(("{host}", {port}))
lines = connection.makefile("rb")
def reply():
    while True:
        line = lines.readline().decode()
        if line[3:4] != "-":
            return line.strip()
def say(text):
    connection.sendall(text.encode() + b"\r\n")
waits = "{waits}"
def wait(verb):
    global waits
    if verb == waits:
        waits = ""
        os.mkfifo({word:?})
        open({word:?}).read()
        os.unlink({word:?})
reply()
say("EHLO customer.test"); reply()
say("STARTTLS"); reply()
connection = context.wrap_socket(connection)
lines = connection.makefile("rb")
say("EHLO customer.test"); reply()
say("{says}")
answer = reply()
print(answer)
def serve():
    if "{dies}" == "220":
        return
    say("220 customer.test ESMTP")
    answers = {{{answers}}}
    while True:
        line = lines.readline().decode().strip()
        verb = line[:4].upper()
        if not line or verb == "{dies}":
            return
        if verb == "{hangs}":
            lines.read()
            return
        wait(verb)
        if verb == "EHLO":
            say("250-customer.test\r\n250-PIPELINING\r\n250 8BITMIME")
        elif verb == "MAIL":
            reverse, forward, taken = line.split("<")[1].split(">")[0], [], 0
            say("250 ok")
        elif verb == "RCPT":
            to = line.split("<")[1].split(">")[0]
            answer = answers.get(to, "250 ok")
            if answer[0] == "2":
                forward.append(to)
            say(answer)
        elif verb == "DATA":
            if not forward:
                say("503 nobody")
                continue
            say("354 go")
            wait("TEXT")
            subject = ""
            while True:
                text = lines.readline().decode().rstrip("\r\n")
                if text == ".":
                    break
                if text.startswith("Subject: "):
                    subject = text[9:]
            if "{dies}" == "END":
                return
            print(reverse, *forward, subject)
            say("250 taken")
        elif verb == "QUIT":
            say("221 bye")
            return
        else:
            say("500 what")
if answer[:3] == "250":
    try:
        serve()
    except OSError:
        pass
connection.close()
"#
        );
        let said = run(&tool("python3"), &["-c", &script], "").good().stdout;
        let mut lines = said.lines().map(str::to_owned);
        let answer = lines.next().unwrap_or_default();
        let mut mail: Vec<_> = lines.collect();
        mail.sort();
        (answer, mail)
    }
}

const VISIT: Visit<'_> = Visit {
    certificate: Some("branch"),
    says: "ATRN branch.example",
    dies: "-",
    hangs: "-",
    waits: "-",
    answers: &[],
};

/// A pipe: who opens it for reading waits until it has been opened for writing and closed.
fn word(server: &Server) -> PathBuf {
    server.place().join("word")
}

type Paying<'scope> = ScopedJoinHandle<'scope, (String, Vec<String>)>;

/// A visit that has come to where it waits, and goes on when that is closed.
fn begun<'scope>(
    scope: &'scope Scope<'scope, '_>,
    server: &'scope Server,
    visit: Visit<'scope>,
) -> (Paying<'scope>, OwnedFd) {
    const NONBLOCK: i32 = 0o4000;
    let paying = scope.spawn(move || visit.pay(server));
    let word = until("a visit is under way", || {
        let open = OpenOptions::new().write(true).custom_flags(NONBLOCK).open(word(server));
        // Nobody has made it, or nobody reads from it yet.
        let early =
            |error: &std::io::Error| error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(6);
        assert!(open.as_ref().err().is_none_or(early), "{open:?}");
        assert!(!paying.is_finished(), "it has not come so far");
        open.ok().map(OwnedFd::from)
    });
    (paying, word)
}

/// Messages for the branch, of which each is called by its number.
fn send(server: &Server, numbers: std::ops::Range<u32>) {
    for number in numbers {
        server.client().send(
            "ann@example.org",
            &["bob@branch.example"],
            &format!("Subject: {number}\r\n\r\n"),
        );
    }
}

fn sent(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("ann@example.org bob@branch.example {number}")).collect()
}

const HOLD: &str = "[[route]]\nname = \"held\"\ndomains = [\"branch.example\", \"*.branch.example\", \"other.example\"]\n\
                    via = \"hold\"\n";

/// A server that knows a branch by its certificate, and holds mail for it and for another one.
fn server(more: &str) -> Server {
    let mut server = Server::prepare("");
    let papers = Papers(&server);
    papers.own("branch", "/CN=branch.test", &[]);
    papers.own("stranger", "/CN=stranger.test", &[]);
    let (_, branch) = papers.fingerprint("branch.pem");
    server.configure(&format!(
        "[[etrn]]\nname = \"branch\"\ncertificates = [\"{branch}\"]\n\
         domains = [\"branch.example\", \"*.branch.example\"]\n\
         [[listener]]\nname = \"smtp\"\nclient-certificate = \"request\"\n{HOLD}{more}"
    ));
    server.resume();
    server
}

/// Recipients in the queue, and how they stand.
fn queued(server: &Server) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for page in server.queue_json(&["list"]) {
        let entries = page["entries"].as_array().cloned().unwrap_or_else(|| vec![page.clone()]);
        for recipient in entries.iter().filter_map(|entry| entry["recipients"].as_array()).flatten() {
            let text = |key: &str| recipient[key].as_str().unwrap_or_default().to_owned();
            all.push((text("address"), text("state")));
        }
    }
    all.sort();
    all
}

fn is_held(server: &Server, addresses: &[&str]) -> bool {
    let held: Vec<_> = addresses.iter().map(|address| ((*address).to_owned(), "held".to_owned())).collect();
    queued(server) == held
}

/// Until each of them, and nobody else, is held.
fn until_held(server: &Server, addresses: &[&str]) {
    until(&format!("{addresses:?} are held"), || is_held(server, addresses).then_some(()));
}

#[test]
fn a_branch_comes_for_its_mail() {
    let server = server("");
    assert_eq!(VISIT.pay(&server).0, "453 4.0.0 you have no mail");
    // On whichever core they are.
    for number in 10..22 {
        let to = ["bob@branch.example", "eve@other.example", "dan@deep.branch.example"];
        server.client().send("ann@example.org", &to, &format!("Subject: {number}\r\n\r\n.dots\r\n"));
    }
    let (answer, mail) = VISIT.pay(&server);
    assert_eq!(answer, "250 2.0.0 ok, reversing the connection");
    let all_for = |to: &str| -> Vec<_> { (10..22).map(|n| format!("ann@example.org {to} {n}")).collect() };
    let expected = all_for("bob@branch.example");
    assert_eq!(mail, expected);
    let fetched = server.event("fetched", |_| true);
    assert_eq!((&fetched["messages"], &fetched["nrcpt"]), (&Value::from(12), &Value::from(12)), "{fetched}");
    let outcomes = server.events("outcome");
    let outcome = outcomes.iter().find(|event| event["to"] == "bob@branch.example").unwrap();
    assert_eq!(outcome["result"], "delivered", "{outcome}");
    assert!(outcome["tls"].as_str().unwrap().starts_with("TLS"), "{outcome}");
    // All that it may have, and no more.
    let (_, mail) = Visit { says: "ATRN", ..VISIT }.pay(&server);
    let expected = all_for("dan@deep.branch.example");
    assert_eq!(mail, expected);
    assert_eq!(Visit { says: "ATRN", ..VISIT }.pay(&server).0, "453 4.0.0 you have no mail");
    until_held(&server, &["eve@other.example"; 12]);
}

#[test]
fn who_may_not_have_it_gets_none_of_it() {
    let server = server("");
    server.client().send("ann@example.org", &["bob@branch.example"], "Subject: 0\r\n\r\n");
    let says = |certificate, says| Visit { certificate, says, ..VISIT }.pay(&server).0;
    let branch = Some("branch");
    for (certificate, command, answer) in [
        (Some("stranger"), "ATRN branch.example", "530 5.7.0 authentication required"),
        (None, "ATRN", "530 5.7.0 authentication required"),
        (branch, "ATRN other.example", "450 4.7.1 ATRN refused: not all of it is yours"),
        (branch, "ATRN branch.example,other.example", "450 4.7.1 ATRN refused: not all of it is yours"),
        (branch, "ATRN @branch.example", "501 5.5.4 syntax error in arguments"),
    ] {
        assert_eq!(says(certificate, command), answer, "{certificate:?} {command}");
    }
    let called = server.event("called", |event| event["code"] == 450);
    assert_eq!(called["domains"], "other.example", "{called}");
    until_held(&server, &["bob@branch.example"]);
}

#[test]
fn nothing_is_lost_whenever_the_connection_dies() {
    let mut server = server("");
    send(&server, 0..3);
    for dies in ["220", "EHLO", "MAIL", "RCPT", "DATA", "END"] {
        let (answer, mail) = Visit { dies, ..VISIT }.pay(&server);
        assert_eq!((&answer[..3], &mail[..]), ("250", &[][..]), "{dies}");
        until_held(&server, &["bob@branch.example"; 3]);
    }
    // The server may die as well.
    server.kill();
    server.resume();
    until_held(&server, &["bob@branch.example"; 3]);
    let (_, mail) = Visit { says: "ATRN", ..VISIT }.pay(&server);
    assert_eq!(mail.len(), 3, "{mail:?}");
    until("the queue is empty", || queued(&server).is_empty().then_some(()));
    server.kill();
    server.resume();
    assert_eq!(VISIT.pay(&server).0, "453 4.0.0 you have no mail");
}

#[test]
fn nothing_is_lost_when_the_server_dies_meanwhile() {
    let mut server = server("");
    server.client().send("ann@example.org", &["bob@branch.example"], "Subject: 0\r\n\r\n");
    std::thread::scope(|scope| {
        let visit = scope.spawn(|| Visit { hangs: "DATA", ..VISIT }.pay(&server));
        let running = || server.queue_json(&["summary"]).remove(0)["recipients"]["running"] == 1;
        until("it is being sent", || running().then_some(()));
        server.program().signal(Signal::KILL);
        visit.join().unwrap();
    });
    server.kill();
    server.resume();
    until_held(&server, &["bob@branch.example"]);
    assert_eq!(VISIT.pay(&server).1, ["ann@example.org bob@branch.example 0"]);
}

#[test]
fn each_recipient_has_an_outcome_of_its_own() {
    let sink = Sink::start();
    let server = server(&sink.route());
    let to = ["bob@branch.example", "carl@branch.example", "dan@branch.example"];
    server.client().send("ann@example.org", &to, "Subject: one\r\n\r\n");
    let answers = &[(to[1], "450 4.2.1 not now"), (to[2], "550 5.1.1 nobody")][..];
    let (_, mail) = Visit { answers, ..VISIT }.pay(&server);
    assert_eq!(mail, ["ann@example.org bob@branch.example one"]);
    // Who was refused comes back to the sender; who was put off waits for the next visit.
    let report = sink.mail();
    assert!(report.content.contains("dan@branch.example") && report.content.contains("5.1.1"), "{report:?}");
    until_held(&server, &[to[1]]);
    let outcome = server.event("outcome", |event| event["to"] == to[1]);
    assert!(outcome["next"].is_null() && outcome["result"] == "deferred", "{outcome}");
    let (_, mail) = VISIT.pay(&server);
    assert_eq!(mail, ["ann@example.org carl@branch.example one"]);
    until("the queue is empty", || queued(&server).is_empty().then_some(()));
}

/// Whoever has come onto the list of a tenant since is sent nothing by that tenant, also when somebody comes for it.
#[test]
fn who_is_on_a_list_gets_nothing_of_it() {
    let sink = Sink::start();
    let tenant = "[[tenant]]\nname = \"shop\"\nnetworks = [\"127.0.0.0/8\"]\nsuppression = \"refuse\"\n";
    let server = server(&format!("{}{tenant}", sink.route()));
    let suppress = |address: &str| {
        let config = server.place().join("ringpost.toml");
        let arguments =
            ["suppression", "--config", config.to_str().unwrap(), "add", "--tenant", "shop", address];
        run(&built("ringpost"), &arguments, "").good();
    };
    let to = ["bob@branch.example", "carl@branch.example"];
    server.client().send("ann@example.org", &to, "Subject: one\r\n\r\n");
    until_held(&server, &to);
    suppress(to[0]);
    let (answer, mail) = VISIT.pay(&server);
    assert_eq!(
        (&answer[..3], &mail[..]),
        ("250", &["ann@example.org carl@branch.example one".to_owned()][..])
    );
    let outcome = server.event("outcome", |event| event["to"] == to[0]);
    assert_eq!((&outcome["result"], &outcome["status"]), (&"failed".into(), &"5.7.1".into()), "{outcome}");
    assert!(sink.mail().content.contains("suppression list"), "the sender is told");
    assert_eq!(server.metric("ringpost_suppressed_recipients_total", &["stage=\"delivery\""]), 1.0);
    until("the queue is empty", || queued(&server).is_empty().then_some(()));
    // Where nobody is left there is nothing to come for.
    server.client().send("ann@example.org", &to[1..], "Subject: two\r\n\r\n");
    suppress(to[1]);
    assert_eq!(VISIT.pay(&server).0, "453 4.0.0 you have no mail");
    server.event("outcome", |event| event["to"] == to[1] && event["result"] == "failed");
    until("the queue is empty", || queued(&server).is_empty().then_some(()));
}

/// A release has nobody to send it to, and does not keep it from whoever comes.
#[test]
fn what_was_released_is_there_for_whoever_comes() {
    let server = server("");
    send(&server, 0..2);
    server.queue(&["release", "--all"]).good();
    until("it was tried", || {
        let states: Vec<_> = queued(&server).into_iter().map(|(_, state)| state).collect();
        (states == ["deferred", "deferred"]).then_some(())
    });
    let answers = &[("bob@branch.example", "450 4.2.1 not now")][..];
    assert_eq!(Visit { answers, ..VISIT }.pay(&server).1, [""; 0]);
    until_held(&server, &["bob@branch.example"; 2]);
    assert_eq!(VISIT.pay(&server).1, sent(0..2));
}

#[test]
fn what_its_sender_holds_back_stays() {
    let server = server("");
    let mut submission = Client::greeted(server.submission());
    for line in
        ["EHLO client.test", "MAIL FROM:<ann@example.org> HOLDFOR=80000", "RCPT TO:<bob@branch.example>"]
    {
        assert_eq!(submission.ask(line).code, 250, "{line}");
    }
    submission.ask("DATA");
    submission
        .put(b"From: ann@example.org\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nSubject: later\r\n\r\n.\r\n");
    submission.expect(250);
    let (answer, mail) = VISIT.pay(&server);
    assert_eq!((&answer[..3], &mail[..]), ("250", &[][..]));
    until_held(&server, &["bob@branch.example"]);
}

/// Whoever comes while another is being served is sent what that one is not, and nobody anything twice.
#[test]
fn two_come_at_once() {
    for waits in ["MAIL", "TEXT"] {
        let server = server("");
        send(&server, 10..22);
        let ((first, mail), second) = thread::scope(|scope| {
            let (paying, word) = begun(scope, &server, Visit { waits, ..VISIT });
            let second = VISIT.pay(&server);
            // What the first has not taken yet is not there for a third.
            assert_eq!(VISIT.pay(&server).0, "453 4.0.0 you have no mail");
            drop(word);
            (paying.join().unwrap(), second)
        });
        assert_eq!((&first[..3], &second.0[..3]), ("250", "250"));
        assert!(!mail.is_empty() && !second.1.is_empty(), "{waits}: {mail:?} {second:?}");
        let mut all = [mail, second.1].concat();
        all.sort();
        assert_eq!(all, sent(10..22), "{waits}");
        until("the queue is empty", || queued(&server).is_empty().then_some(()));
    }
}

/// Many at once, some of whom go away in the middle.
#[test]
fn a_crowd_comes() {
    let server = server("");
    send(&server, 10..40);
    let dies = ["-", "END", "-", "RCPT", "-", "DATA"];
    let mut all: Vec<_> = thread::scope(|scope| {
        let visits = dies.map(|dies| {
            let server = &server;
            scope.spawn(move || Visit { dies, ..VISIT }.pay(server).1)
        });
        visits.into_iter().flat_map(|visit| visit.join().unwrap()).collect()
    });
    until("nothing is under way", || queued(&server).iter().all(|(_, state)| state == "held").then_some(()));
    all.extend(VISIT.pay(&server).1);
    all.sort();
    assert_eq!(all, sent(10..40));
    until("the queue is empty", || queued(&server).is_empty().then_some(()));
}

/// What is under way when the server is to stop is sent to its end, a large message too; the rest waits for the next visit.
#[test]
fn a_stop_in_the_middle() {
    for waits in ["MAIL", "TEXT", "QUIT"] {
        let mut server = server("[shutdown]\ngrace = \"60s\"\n[limits]\nmessage-size-max = \"64MiB\"\n");
        // More than sockets hold.
        let line = format!("{}\r\n", "x".repeat(98));
        let text = format!("Subject: 1\r\n\r\n{}", line.repeat(200_000));
        server.client().send("ann@example.org", &["bob@branch.example"], &text);
        if waits != "QUIT" {
            server.client().send("ann@example.org", &["bob@branch.example"], &text);
            server.client().send("ann@example.org", &["bob@branch.example"], &text);
        }
        let (answer, mail) = thread::scope(|scope| {
            let (paying, word) = begun(scope, &server, Visit { waits, ..VISIT });
            server.program().signal(Signal::TERM);
            server.event("draining", |_| true);
            drop(word);
            paying.join().unwrap()
        });
        assert_eq!((&answer[..3], &mail[..]), ("250", &sent(1..2)[..]), "{waits}");
        assert!(server.program_mut().wait().success());
        let lines = server.kill();
        let stopped = lines.iter().find(|line| line.contains("\"event\":\"stopped\"")).unwrap();
        assert!(stopped.contains("\"cut\":0"), "{stopped}");
        server.resume();
        let left = if waits == "QUIT" { 0 } else { 2 };
        until_held(&server, &["bob@branch.example"; 3][..left]);
        assert_eq!(VISIT.pay(&server).1.len(), left);
    }
}

/// A visit that does not end within the grace is cut off, and what it had not taken is held.
#[test]
fn a_stop_does_not_wait_for_ever() {
    let mut server = server("[shutdown]\ngrace = \"1s\"\n");
    send(&server, 0..2);
    thread::scope(|scope| {
        let (paying, word) = begun(scope, &server, Visit { waits: "TEXT", ..VISIT });
        server.program().signal(Signal::TERM);
        Process::of(server.program().pid().into()).wait();
        drop(word);
        // It has got all of the message, and nobody hears that it takes it.
        assert_eq!(paying.join().unwrap().1.len(), 1);
    });
    assert_eq!(server.event("stopped", |_| true)["cut"], 1);
    assert!(server.program_mut().wait().success());
    server.kill();
    server.resume();
    until_held(&server, &["bob@branch.example"; 2]);
}

/// A reload in the middle of a visit: the visit goes on, and what has another route by now goes by that, once.
#[test]
fn a_reload_in_the_middle() {
    let sink = Sink::start();
    for (holds, waits) in [(true, "MAIL"), (false, "MAIL"), (false, "TEXT")] {
        let server = server("");
        send(&server, 10..22);
        let mail = thread::scope(|scope| {
            let (paying, word) = begun(scope, &server, Visit { waits, ..VISIT });
            let configured = fs::read_to_string(server.place().join("conf.d/test.toml")).unwrap();
            let changed = if holds { configured } else { configured.replace(HOLD, &sink.route()) };
            server.configure(&changed);
            assert_eq!(server.reload()["event"], "reloaded");
            drop(word);
            paying.join().unwrap().1
        });
        assert!(!mail.is_empty());
        let mut all = mail;
        if !holds {
            let by_sink = 12 - all.len();
            all.extend((0..by_sink).map(|_| {
                let content = sink.mail().content;
                let subject = content.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap();
                format!("ann@example.org bob@branch.example {subject}")
            }));
            assert!(by_sink > 0);
        }
        all.sort();
        assert_eq!(all, sent(10..22), "{holds} {waits}");
        until("the queue is empty", || queued(&server).is_empty().then_some(()));
        assert_eq!(sink.waiting(), 0);
    }
}

/// What nobody has taken when the visit ends goes by the routes of that time.
#[test]
fn a_reload_before_a_visit_that_takes_nothing() {
    let sink = Sink::start();
    for dies in ["MAIL", "RCPT", "END"] {
        let server = server("");
        send(&server, 10..22);
        let mail = thread::scope(|scope| {
            let (paying, word) = begun(scope, &server, Visit { waits: "EHLO", dies, ..VISIT });
            let configured = fs::read_to_string(server.place().join("conf.d/test.toml")).unwrap();
            server.configure(&configured.replace(HOLD, &sink.route()));
            assert_eq!(server.reload()["event"], "reloaded");
            drop(word);
            paying.join().unwrap().1
        });
        assert!(mail.is_empty(), "{mail:?}");
        server.queue(&["retry", "--all"]).good();
        (0..12).for_each(|_| drop(sink.mail()));
        until("the queue is empty", || queued(&server).is_empty().then_some(()));
    }
}

/// Who may not have it any more is sent no other message.
#[test]
fn a_reload_that_takes_a_domain_away() {
    let server = server("[cores]\ncount = 1\n");
    send(&server, 10..22);
    let mail = thread::scope(|scope| {
        let (paying, word) = begun(scope, &server, Visit { waits: "TEXT", ..VISIT });
        let configured = fs::read_to_string(server.place().join("conf.d/test.toml")).unwrap();
        server.configure(&configured.replacen("domains = [\"branch.example\", ", "domains = [", 1));
        assert_eq!(server.reload()["event"], "reloaded");
        drop(word);
        paying.join().unwrap().1
    });
    assert_eq!(mail.len(), 1, "{mail:?}");
    until_held(&server, &["bob@branch.example"; 11]);
}

/// An upgrade in the middle of a visit: it goes on, and what it does not get is there for the next one.
#[test]
fn an_upgrade_in_the_middle() {
    for waits in ["MAIL", "TEXT", "QUIT"] {
        let mut server = server("[journal]\nshards = 8\n");
        send(&server, 10..22);
        let (mut all, _successor) = thread::scope(|scope| {
            let (paying, word) = begun(scope, &server, Visit { waits, ..VISIT });
            server.upgrade(&["--no-wait"]).good();
            let successor = server.successor(1);
            send(&server, 22..24);
            drop(word);
            (paying.join().unwrap().1, successor)
        });
        assert!(waits == "QUIT" || !all.is_empty(), "{waits}");
        assert!(server.program_mut().wait().success());
        until("all of it is one server's", || (queued(&server).len() == 14 - all.len()).then_some(()));
        all.extend(VISIT.pay(&server).1);
        all.sort();
        assert_eq!(all, sent(10..24), "{waits}");
        until("the queue is empty", || queued(&server).is_empty().then_some(()));
    }
}
