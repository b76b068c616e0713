//! Clients that take their time: each wait has an end, and it is the configured one.

use std::time::Duration;

use end_to_end::{Client, Server, until};
use serde_json::Value;

use crate::{memory, unharmed};

const HOLD: &str = "[[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n";

/// How long the session of the only client so far took, as the log has it, and how it ended.
fn session(server: &Server) -> (Duration, String) {
    let event = server.event("disconnected", |_| true);
    let time = Duration::from_secs_f64(event["time"].as_f64().unwrap());
    (time, event["reason"].as_str().unwrap().to_owned())
}

/// A byte every so often until the server has had enough; answers what it said.
fn trickle(client: &mut Client, bytes: impl Iterator<Item = u8>) -> String {
    for byte in bytes {
        if client.try_put(&[byte]).is_err() || client.has_input() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    client.rest()
}

#[track_caller]
fn took(server: &Server, least: u64, most: u64) {
    let (time, reason) = session(server);
    let range = Duration::from_secs(least)..Duration::from_secs(most);
    assert!(range.contains(&time), "{time:?}, {reason}");
}

#[test]
fn silence() {
    let server = Server::start(&format!("{HOLD}[timeouts.inbound]\ncommand = \"1s\"\ndata-block = \"2s\"\n"));
    let mut client = Client::connect(server.smtp());
    client.expect(220);
    client.expect(421);
    assert_eq!(client.try_reply(), None);
    let refused = server.event("refused", |_| true);
    assert_eq!((&refused["stage"], &refused["reason"]), (&"session".into(), &"timeout".into()), "{refused}");
    took(&server, 1, 3);
    let mut client = server.client();
    client.put(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nSubject: x\r\n");
    let codes: Vec<_> = (0..4).map(|_| client.reply().code).collect();
    assert_eq!(codes, [250, 250, 354, 421]);
    took(&server, 2, 4);
    // Within a chunk.
    let mut client = server.client();
    client.put(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nBDAT 100 LAST\r\nSubject: x\r\n");
    let codes: Vec<_> = (0..3).map(|_| client.reply().code).collect();
    assert_eq!(codes, [250, 250, 421]);
    took(&server, 2, 4);
    assert!(server.queue_json(&["list"]).is_empty());
}

/// The timeout of a command was set anew with each byte of it: a byte now and then kept a session open for hours.
#[test]
fn a_command_in_dribs_and_drabs() {
    let server = Server::start(&format!("{HOLD}[timeouts.inbound]\ncommand = \"1s\"\n"));
    let mut client = server.client();
    let said = trickle(&mut client, std::iter::repeat_n(b'N', 200));
    assert!(said.starts_with("421 "), "{said}");
    took(&server, 1, 4);
}

/// However busy, a session ends.
#[test]
fn mail_data_in_dribs_and_drabs() {
    let server = Server::start(&format!(
        "{HOLD}[timeouts.inbound]\ncommand = \"10s\"\ndata-block = \"10s\"\nsession = \"10s\"\n"
    ));
    let mut client = server.client();
    client.put(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n");
    let codes: Vec<_> = (0..3).map(|_| client.reply().code).collect();
    assert_eq!(codes, [250, 250, 354]);
    let said = trickle(&mut client, std::iter::repeat_n(b'x', 600));
    assert!(said.starts_with("421 "), "{said}");
    took(&server, 10, 13);
    assert!(server.queue_json(&["list"]).is_empty());
}

#[test]
fn replies_that_nobody_reads() {
    const CLIENTS: u64 = 10;
    // What waits to be sent is bounded (`buffers.send`, 256 KiB, in a vector that grew by doubling), a buffer for what
    // came in beside it. All that was sent makes megabytes of replies.
    const EACH_MAX: u64 = 2 << 20;
    let limits = "[limits]\ncommands-max = 10000000\n";
    let server = Server::start(&format!("{HOLD}{limits}[timeouts.inbound]\nsend = \"2s\"\n"));
    let pid = server.program().pid();
    // Until the kernel's buffers are full on both sides, and the server gives up.
    let flood = |mut client: Client| {
        let commands = b"HELP\r\n".repeat(1000);
        while client.try_put(&commands).is_ok() {}
    };
    // What is made once is made.
    flood(server.client());
    let (time, reason) = session(&server);
    assert_eq!(reason, "timeout");
    assert!((2..20).contains(&time.as_secs()), "{time:?}");
    let before = memory(pid, "VmHWM");
    std::thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(|| flood(server.client())))));
    until("no connection is left", || {
        (server.metric("ringpost_connections_open", &["side=\"in\""]) == 0.0).then_some(())
    });
    let grown = memory(pid, "VmHWM").saturating_sub(before);
    eprintln!("a client that does not read costs {} KiB", (grown / CLIENTS) >> 10);
    assert!(grown / CLIENTS < EACH_MAX, "grew by {grown}");
    server.client().send("a@example.org", &["b@example.net"], "Subject: x\r\n\r\nx\r\n");
    unharmed(&server);
}

/// Somebody who sends for ever does not keep others waiting: whether what he sends is of use or not.
#[test]
fn one_who_sends_without_end_beside_others() {
    let server = Server::start(&format!(
        "{HOLD}[cores]\ncount = 1\n[limits]\nmessage-size-max = \"64KiB\"\nheader-size-max = \"16KiB\"\n"
    ));
    for beginning in ["", "MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"] {
        let mut other = server.client();
        std::thread::scope(|scope| {
            let mut client = server.client();
            let flood = scope.spawn(move || {
                client.put(beginning.as_bytes());
                let block = vec![b'a'; 1 << 20];
                (0..512).take_while(|_| client.try_put(&block).is_ok()).count()
            });
            let mut asked = 0;
            while !flood.is_finished() {
                assert_eq!(other.ask("NOOP").code, 250);
                asked += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            eprintln!("{} MB of flood, {asked} replies beside it", flood.join().unwrap());
        });
    }
    let stalls: Vec<f64> =
        server.events("stalled").iter().filter_map(|event| event["time"].as_f64()).collect();
    assert!(stalls.iter().all(|time| *time < 1.0), "{stalls:?}");
}

/// Rudely many: over the limit of one address they are told so, and others get in.
#[test]
fn connections_over_the_limit() {
    let listener = "[[listener]]\nname = \"smtp\"\n[listener.limits]\nconnections-max = 5\n";
    let server = Server::start(&format!("{HOLD}{listener}"));
    let clients: Vec<_> = (0..5).map(|_| server.client()).collect();
    let mut late = Client::connect(server.smtp());
    late.expect(421);
    assert_eq!(late.try_reply(), None);
    let refused = server.event("connection_refused", |_| true);
    assert_eq!(refused["reason"], Value::from("too_many_connections"));
    // Another listener has a limit of its own.
    Client::greeted(server.submission());
    drop(clients);
    until("there is room again", || (Client::connect(server.smtp()).reply().code == 220).then_some(()));
}
