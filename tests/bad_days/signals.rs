//! Orderly ends and reloads: SIGTERM lets transactions finish, SIGHUP takes what is good and nothing else.

use std::fs;

use end_to_end::{Client, Server, Signal, Sink, built, free_address, run, until};
use serde_json::Value;

use crate::{secure::Secure, unharmed};

const HOLD: &str = "[[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n";

#[test]
fn sigterm_lets_transactions_finish() {
    let mut server = Server::start(&format!("{HOLD}[shutdown]\ngrace = \"30s\"\n"));
    let mut idle = server.client();
    let mut begun = server.client();
    begun.ask("MAIL FROM:<ann@example.org>");
    let mut sending = server.client();
    sending.put(b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\nSubject: x\r\n\r\nfirst half\r\n");
    let codes: Vec<_> = (0..3).map(|_| sending.reply().code).collect();
    assert_eq!(codes, [250, 250, 354]);
    let mut chunking = server.client();
    chunking
        .put(b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<cat@example.net>\r\nBDAT 14\r\nSubject: x\r\n\r\n");
    let codes: Vec<_> = (0..3).map(|_| chunking.reply().code).collect();
    assert_eq!(codes, [250, 250, 250]);

    server.program().signal(Signal::TERM);
    // Who does nothing is told to go.
    assert_eq!(idle.expect(421).lines.len(), 1);
    assert_eq!(idle.try_reply(), None);
    // Who comes now is not taken on.
    let mut late = Client::connect(server.smtp());
    let said = late.rest();
    assert!(said.is_empty() || said.starts_with("421 "), "{said}");
    // Who is in the midst of it may finish, and gets the 250; then it is over.
    sending.put(b"second half\r\n.\r\n");
    sending.expect(250);
    sending.expect(421);
    assert_eq!(sending.try_reply(), None);
    chunking.put(b"BDAT 6 LAST\r\nhalf\r\n");
    chunking.expect(250);
    begun.put(b"RCPT TO:<dog@example.net>\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\n");
    let codes: Vec<_> = (0..3).map(|_| begun.reply().code).collect();
    assert_eq!(codes, [250, 354, 250]);

    assert!(server.program_mut().wait().success());
    let lines = server.kill();
    let stopped = lines.iter().find(|line| line.contains("\"event\":\"stopped\"")).unwrap();
    assert!(stopped.contains("\"cut\":0"), "{stopped}");
    assert!(!lines.iter().any(|line| line.contains("panicked")), "{lines:#?}");
    server.resume();
    assert_eq!(server.queue_json(&["list"]).len(), 3);
}

/// A later file that has a list anew lets in whom an earlier one has kept out: a reload says so, as the start does.
#[test]
fn a_reload_tells_of_lists_that_are_replaced() {
    let denied = format!("clients.deny = [\"192.0.2.0/24\", \"198.51.100.0/24\"]\n{HOLD}");
    let server = Server::start(&denied);
    let told =
        |said: &str| said.contains("clients.deny: replaces the list at ") && said.contains("192.0.2.0/24");
    server.place().write("conf.d/z.toml", "clients.deny = [\"198.51.100.0/24\"]\n");
    assert_eq!(server.reload()["event"], "reloaded");
    let lines = server.program().lines();
    assert_eq!(lines.iter().filter(|line| told(line)).count(), 1, "{lines:#?}");
    let config = server.place().join("ringpost.toml");
    let reload =
        || run(&built("ringpost"), &["reload", "--config", config.to_str().unwrap()], "").good().stdout;
    let said = reload();
    assert!(told(&said) && said.contains("warning: ") && said.contains("z.toml:1:9"), "{said}");
    server.place().write("conf.d/z.toml", "");
    assert_eq!(reload(), "reloaded\n");
}

/// Who does not finish within the grace is cut off, and its message is not taken.
#[test]
fn sigterm_does_not_wait_for_ever() {
    let mut server = Server::start(&format!("{HOLD}[shutdown]\ngrace = \"3s\"\n"));
    let mut client = server.client();
    client.put(
        b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\nSubject: x\r\n\r\nhalf\r\n",
    );
    let codes: Vec<_> = (0..3).map(|_| client.reply().code).collect();
    assert_eq!(codes, [250, 250, 354]);
    let (status, lines) = server.stop();
    assert!(status.success());
    let stopped = lines.iter().find(|line| line.contains("\"event\":\"stopped\"")).unwrap();
    let stopped: serde_json::Value = serde_json::from_str(stopped).unwrap();
    assert_eq!(stopped["cut"], 1, "{stopped}");
    let draining = lines.iter().find(|line| line.contains("\"event\":\"draining\"")).unwrap();
    assert!(draining.contains("\"sessions\":1"), "who waits for it sees for whom: {draining}");
    assert!(stopped["took"].as_f64().is_some_and(|took| (3.0..20.0).contains(&took)), "{stopped}");
    assert!(!client.rest().contains("250"));
    server.resume();
    assert!(server.queue_json(&["list"]).is_empty());
}

/// A session in a transaction was given all its time anew for as long as the server was stopping: with a client that was
/// gone without a word, every stop took the whole grace.
#[test]
fn a_session_that_times_out_during_the_grace() {
    let more = "[timeouts.inbound]\ncommand = \"1s\"\n[shutdown]\ngrace = \"20s\"\n[cores]\ncount = 1\n";
    let mut server = Server::start(&format!("{HOLD}{more}"));
    let mut client = server.client();
    assert_eq!(client.ask("MAIL FROM:<ann@example.org>").code, 250);
    server.program().signal(Signal::TERM);
    client.expect(421);
    assert!(server.program_mut().wait().success());
    let lines = server.kill();
    let stopped = lines.iter().find(|line| line.contains("\"event\":\"stopped\"")).unwrap();
    assert!(stopped.contains("\"cut\":0"), "{stopped}");
}

/// A delivery under way ends within the grace, and is not done again.
#[test]
fn sigterm_lets_deliveries_finish() {
    let sink = Sink::start();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let (reached, at_the_dot) = std::sync::mpsc::channel();
    let mut server = Server::start(&sink.route());
    // The reply to the content waits until the server is stopping.
    sink.answer(move |command| {
        if command == "." {
            let _ = reached.send(());
            let _ = held.recv();
        }
        None
    });
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    at_the_dot.recv().unwrap();
    server.program().signal(Signal::TERM);
    server.event("stopping", |_| true);
    hold.send(()).unwrap();
    assert!(server.program_mut().wait().success());
    server.kill();
    assert!(sink.mail().content.ends_with("\r\nx\r\n"));
    server.resume();
    assert!(server.queue_json(&["list"]).is_empty());
    assert_eq!(sink.waiting(), 0);
}

#[test]
fn sighup_with_a_broken_configuration_changes_nothing() {
    let server = Server::start(&format!("{HOLD}[limits]\nmessage-size-max = \"2MiB\"\n"));
    let size = |server: &Server| {
        let mut client = Client::connect(server.smtp());
        client.expect(220);
        let reply = client.ask("EHLO client.test");
        reply.lines.iter().find_map(|line| line.strip_prefix("SIZE ")).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(size(&server), 2 << 20);
    let mut before = server.client();
    let broken = [
        ("[limits]\nmesage-size-max = \"3MiB\"\n", "conf.d/test.toml:"),
        ("[limits]\nmessage-size-max = \"3 MB\"\n", "limits.message-size-max: expected a size"),
        ("[limits\n", "not TOML"),
        (
            "[limits]\nmessage-size-max = \"3MiB\"\n[[certificate]]\nname = \"own\"\nkey = \"gone.pem\"\n",
            "gone.pem: No such file",
        ),
        (
            "[limits]\nmessage-size-max = \"3MiB\"\n[[certificate]]\nname = \"own\"\nkey = \"certificate.pem\"\n",
            "no private key",
        ),
    ];
    for (more, words) in broken {
        server.configure(&format!("{HOLD}{more}"));
        let event = server.reload();
        assert_eq!(event["event"], "reload_refused", "{event}");
        assert!(event["error"].as_str().unwrap().contains(words), "{event}");
        assert_eq!(size(&server), 2 << 20, "{more}");
        before.send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
        let mut secure = Secure::implicit(server.smtps());
        assert_eq!(secure.replies(1), [220]);
    }
    assert_eq!(server.metric("ringpost_config_reloads_total", &["result=\"refused\""]), 5.0);
    // Mended, it is taken.
    server.configure(&format!("{HOLD}[limits]\nmessage-size-max = \"3MiB\"\n"));
    let event = server.reload();
    assert_eq!(event["event"], "reloaded", "{event}");
    assert_eq!(size(&server), 3 << 20);
    before.send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    assert_eq!(server.queue_json(&["list"]).len(), 6);
    unharmed(&server);
}

/// What cannot change while it runs stays, and is named.
#[test]
fn sighup_names_what_waits_for_a_restart() {
    let server = Server::start(HOLD);
    server.configure(&format!("{HOLD}[journal]\nsegments-max = 60\n[buffers]\nbudget = \"64MiB\"\n"));
    let event = server.reload();
    assert_eq!(event["event"], "reloaded", "{event}");
    assert_eq!(event["pending"], "buffers.budget, journal.segments-max", "{event}");
    // Until the restart, at each reload.
    assert_eq!(server.reload()["pending"], event["pending"]);
    server.configure(HOLD);
    assert_eq!(server.reload()["pending"], Value::Null);
    let server = server.restarted();
    server.configure(&format!("{HOLD}[index]\ncache = \"8MiB\"\n[dns]\ncache-size = \"1MiB\"\n"));
    assert_eq!(server.reload()["pending"], "index.cache");
}

/// `ringpost reload` says what came of it, and fails when nothing did.
#[test]
fn a_reload_is_answered() {
    let mut server = Server::start(HOLD);
    let config = server.place().join("ringpost.toml");
    let reload = || run(&built("ringpost"), &["reload", "--config", config.to_str().unwrap()], "");
    assert_eq!(reload().good().stdout, "reloaded\n");
    server.configure(&format!(
        "{HOLD}[cores]\ncount = 1\n[queue]\njitter = 5\n[[listener]]\nname = \"smtp\"\nbacklog = 5\n\
         [[listener]]\nname = \"new\"\naddress = [\"{}\"]\n",
        free_address()
    ));
    let stays = "reloaded; until a restart these stay as they were: cores.count, listener.smtp.backlog, listener.new\n";
    assert_eq!(reload().good().stdout, stays);
    // The server finds the mistakes, and does what else a reload does.
    server.configure(&format!("{HOLD}[limts]\n"));
    let refused = reload();
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    assert!(
        refused.stderr.contains("conf.d/test.toml:5:2: limts: unknown key; did you mean `limits`?"),
        "{refused}"
    );
    assert_eq!(server.queue_json(&["list"]), Vec::<Value>::new());
    server.configure(&format!("{HOLD}[[certificate]]\nname = \"own\"\nkey = \"gone.pem\"\n"));
    let refused = reload();
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    for words in ["stays as it was", "conf.d/test.toml:7:1: certificate.own.key: cannot read", "gone.pem"] {
        assert!(refused.stderr.contains(words), "{words}: {refused}");
    }
    // Good by itself, but not together with the buffers there are.
    server.configure(&format!(
        "{HOLD}[buffers]\nbudget = \"1GiB\"\nlarge = \"1MiB\"\n[journal]\nsegment-size = \"64MiB\"\nspill = \"15MiB\"\n"
    ));
    let refused = reload();
    assert_eq!(refused.status.code(), Some(1), "{refused}");
    assert!(
        refused.stderr.contains("before a restart") && refused.stderr.contains("journal.spill"),
        "{refused}"
    );
    let events: Vec<_> = server.events("reload_refused");
    assert_eq!(events.len(), 3, "{events:?}");
    server.configure(HOLD);
    assert_eq!(reload().good().stdout, "reloaded\n");
    assert!(server.stop().0.success());
    let gone = reload();
    assert_eq!(gone.status.code(), Some(1), "{gone}");
    assert!(gone.stderr.contains("no server runs here"), "{gone}");
}

#[test]
fn sighup_changes_the_certificate_for_new_connections() {
    let server = Server::start(HOLD);
    let mut old = Secure::implicit(server.smtps());
    assert_eq!(old.replies(1), [220]);
    let first = old.certificate();
    assert_eq!(Secure::starttls(server.smtp(), "").certificate(), first);

    let place = server.place();
    for file in ["certificate.pem", "key.pem"] {
        fs::remove_file(place.join(file)).unwrap();
    }
    let directory = place.path().to_str().unwrap();
    run(&built("ringpost"), &["init", "--directory", directory, "--hostname", "mx.ringpost.test"], "").good();
    // Not before it is told.
    assert_eq!(Secure::implicit(server.smtps()).certificate(), first);
    assert_eq!(server.reload()["event"], "reloaded");
    let second = Secure::implicit(server.smtps()).certificate();
    assert_ne!(second, first);
    assert_eq!(Secure::starttls(server.smtp(), "").certificate(), second);
    // The old connection lives on with the old one.
    old.put(b"EHLO x\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n");
    assert_eq!(old.replies(4), [250, 250, 250, 354]);
    old.put(b"Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n");
    assert_eq!(old.replies(2), [250, 221]);
    // A pair that does not fit keeps the pair that does.
    fs::copy(place.join("conf.d/test.toml"), place.join("key.pem")).unwrap();
    assert_eq!(server.reload()["event"], "reload_refused");
    assert_eq!(Secure::implicit(server.smtps()).certificate(), second);
}

/// Many signals, and none is one too many.
#[test]
fn sighup_again_and_again() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    let mut client = server.client();
    for number in 0..30 {
        server.program().signal(Signal::HUP);
        client.send("ann@example.org", &["bob@example.net"], &format!("Subject: n{number}\r\n\r\nx\r\n"));
    }
    for _ in 0..30 {
        sink.mail();
    }
    until("they are done", || (!server.events("reloaded").is_empty()).then_some(()));
    unharmed(&server);
}

/// A second signal ends it at once; what was acknowledged is there.
#[test]
fn sigterm_twice() {
    let mut server = Server::start(&format!("{HOLD}[shutdown]\ngrace = \"1h\"\n"));
    let mut client = server.client();
    client.send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    client.ask("MAIL FROM:<ann@example.org>");
    server.program().signal(Signal::TERM);
    server.event("stopping", |_| true);
    assert!(server.stop().0.success());
    server.resume();
    assert_eq!(server.queue_json(&["list"]).len(), 1);
}
