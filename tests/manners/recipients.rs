//! Who is there, for whom we keep mail, and what a message has to look like.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

use end_to_end::{Client, Server, Sink, free_address, until};

use crate::{HOLD, configuration, server, swaks};

#[test]
fn recipients_that_a_reload_brings() {
    let server = server("");
    let to = |recipient: &str, from: &str| swaks(server.smtp(), from, &["--to", recipient]);
    to("bob@example.net", "127.0.0.1").good();
    let domain = "name = \"example.net\"\n";
    let known = "recipients = [\"Ann\"]\nsubaddress = \"+\"\nreports = \"refuse\"\n";
    server.configure(&configuration("").replace(domain, &format!("{domain}{known}")));
    assert_eq!(server.reload()["event"], "reloaded");
    for from in ["127.0.0.1", "127.0.0.2"] {
        to("ann@example.net", from).good();
        to("ann+list@example.net", from).good();
        to("postmaster@example.net", from).good();
        let session = to("bob@example.net", from);
        assert!(session.stdout.contains("550 5.1.1 no such recipient"), "{session}");
        let session = swaks(server.smtp(), from, &["--to", "ann@example.net", "--from", "<>"]);
        assert!(session.stdout.contains("550 5.7.1 refused by policy"), "{session}");
    }
    let refused = server.event("refused", |event| event["to"] == "<bob@example.net>");
    assert_eq!((&refused["stage"], &refused["reason"]), (&"rcpt".into(), &"no_such_recipient".into()));
    assert_eq!(server.metric("ringpost_refusals_total", &["reason=\"no_such_recipient\""]), 2.0);
}

#[test]
fn mail_is_kept_for_others() {
    let sink = Sink::start();
    let mx = sink.address().ip();
    let kept = format!(
        "[[domain]]\nname = \"{mx}.test\"\nkind = \"backup\"\n[dns]\nhosts = {{ \"{mx}.test\" = [\"{mx}\"] }}\n"
    );
    // Everything else stays.
    let server = server(&kept);
    let session = swaks(server.smtp(), "127.0.0.1", &["--to", &format!("bob@{mx}.test")]).good();
    assert!(session.stdout.contains("queued as "), "{session}");
    // By its mail exchange, not by the route for all.
    let outcome = server.event("outcome", |_| true);
    assert_eq!(outcome["destination"], format!("mx:{mx}.test"), "{outcome}");
}

#[test]
fn reports_go_to_one() {
    let strict = "[[listener]]\nname = \"smtp\"\n[listener.checks]\nreports-for-many = \"refuse\"\n";
    let server = server(strict);
    for (path, code) in [("<>", 452), ("<ann@example.org>", 250)] {
        let mut client = Client::greeted(server.smtp());
        client.ask(&format!("MAIL FROM:{path}"));
        assert_eq!(client.ask("RCPT TO:<bob@example.net>").code, 250);
        assert_eq!(client.ask("RCPT TO:<cid@example.net>").code, code, "{path}");
        client.say("DATA");
        client.expect(354);
        client.put(b"Subject: report\r\n\r\nx\r\n.\r\n");
        client.expect(250);
    }
}

#[test]
fn header_sections_of_strangers() {
    let sink = Sink::start();
    let strict = "[[listener]]\nname = \"smtp\"\n[listener.checks]\nmissing-fields = \"refuse\"\n\
                  repeated-fields = \"refuse\"\nmalformed-fields = \"refuse\"\neight-bit-fields = \"refuse\"\n";
    let server = Server::start(&configuration(strict).replace(HOLD, &sink.route()));
    let data =
        |from: &str, header: &str| swaks(server.smtp(), from, &["--data", &format!("{header}\\n\\nbody\\n")]);
    for (header, reply) in [
        ("From: a@example.org\\nDate: x", "250 2.0.0"),
        ("From: a@example.org", "550 5.6.0 header section lacks From or Date"),
        (
            "From: a@example.org\\nDate: x\\nfrom: b@example.org",
            "550 5.6.0 header field repeated that may stand once",
        ),
        ("From: a@example.org\\nDate: x\\nno field", "550 5.6.0 malformed header section"),
        ("From: \u{e9}@example.org\\nDate: x", "550 5.6.9 8-bit header fields need SMTPUTF8"),
    ] {
        let session = data("127.0.0.1", header);
        assert!(session.stdout.contains(reply), "{header}: {session}");
        data("127.0.0.2", header).good();
    }
    // Mail of our own, and of others, is passed on as it is; what users' programs leave out is added there alone.
    let mails: Vec<String> = (0..6).map(|_| sink.mail().content).collect();
    assert!(mails.iter().all(|mail| !mail.to_ascii_lowercase().contains("message-id:")), "{mails:?}");
    let session =
        swaks(server.submission(), "127.0.0.2", &["--data", "From: a@example.org\\n\\nbody\\n"]).good();
    assert!(session.stdout.contains("queued as "));
    let completed = sink.mail().content;
    assert!(completed.contains("\r\nDate: ") && completed.contains("\r\nMessage-ID: "), "{completed}");
}

/// A program in threads of the test that knows recipients as a `tcp_table` does: those that begin with `a`. Of those that
/// begin with `l` it says so later, and at those that begin with `x` it hangs up; after each answer about one that begins
/// with `ac` too.
fn table(address: SocketAddr) -> Arc<Mutex<Vec<String>>> {
    let listener = TcpListener::bind(address).unwrap();
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let seen = asked.clone();
    // They end with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = seen.clone();
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while let Some(Ok(line)) = lines.next() {
                    let key = line.strip_prefix("get ").unwrap().to_owned();
                    seen.lock().unwrap().push(key.clone());
                    let answer = match &key[..1] {
                        "a" => "200 OK\n",
                        "l" => "400 later\n",
                        "x" => return,
                        _ => "500 no\n",
                    };
                    (&stream).write_all(answer.as_bytes()).unwrap();
                    if key.starts_with("ac") {
                        return;
                    }
                }
            });
        }
    });
    asked
}

#[test]
fn a_program_is_asked_for_recipients() {
    let address = free_address();
    let asked = table(address);
    let domain = "name = \"example.net\"\n";
    let verify = format!("recipients = [\"zoe\"]\nverify = \"{address}\"\nsubaddress = \"+\"\n");
    let with = |more: &str| configuration(more).replace(domain, &format!("{domain}{verify}"));
    let server = Server::start(&with(""));
    let mut client = Client::greeted(server.smtp());
    let mut ask = |recipient: &str| {
        client.ask("MAIL FROM:<ann@example.org>");
        let reply = client.ask(&format!("RCPT TO:<{recipient}>"));
        client.ask("RSET");
        reply.to_string()
    };
    for (recipient, reply) in [
        ("ann@example.net", "250 2.1.5 recipient ok"),
        ("Ann+list@Example.Net", "250 2.1.5 recipient ok"),
        ("acc@example.net", "250 2.1.5 recipient ok"),
        ("add@example.net", "250 2.1.5 recipient ok"),
        ("bob@example.net", "550 5.1.1 no such recipient"),
        ("bob@example.net", "550 5.1.1 no such recipient"),
        ("later@example.net", "451 4.4.3 cannot judge now, try again later"),
        ("x@example.net", "451 4.4.3 cannot judge now, try again later"),
        ("zoe@example.net", "250 2.1.5 recipient ok"),
        ("postmaster@example.net", "250 2.1.5 recipient ok"),
        ("bob@example.com", "550 5.7.1 relaying denied"),
    ] {
        assert_eq!(ask(recipient), reply, "{recipient}");
    }
    let mut asked_for = asked.lock().unwrap().clone();
    asked_for.dedup();
    let expected = ["ann", "acc", "add", "bob", "later", "x"].map(|user| format!("{user}@example.net"));
    assert_eq!(asked_for, expected, "once for each, as the answers hold for a while");
    let counted =
        |result: &str| server.metric("ringpost_verifications_total", &[&format!("result=\"{result}\"")]);
    assert_eq!(["found", "absent", "failed", "cached"].map(counted), [3.0, 1.0, 2.0, 2.0]);
    // By a real client; and from one core to another nothing is remembered.
    let session = swaks(server.smtp(), "127.0.0.2", &["--to", "bob@example.net"]);
    assert!(session.stdout.contains("550 5.1.1 no such recipient"), "{session}");
    swaks(server.smtp(), "127.0.0.2", &["--to", "ann@example.net"]).good();
    // A program that is not there.
    let gone = free_address().to_string();
    let elsewhere = |more: &str| with(more).replace(&address.to_string(), &gone);
    server.configure(&elsewhere(""));
    server.reload();
    assert_eq!(ask("new@example.net"), "451 4.4.3 cannot judge now, try again later");
    server.configure(&elsewhere("[verify]\non-failure = \"accept\"\n"));
    server.reload();
    assert_eq!(ask("new@example.net"), "250 2.1.5 recipient ok");
    until("the refusals are counted", || {
        (server.metric("ringpost_refusals_total", &["reason=\"policy_unavailable\""]) == 3.0).then_some(())
    });
}
