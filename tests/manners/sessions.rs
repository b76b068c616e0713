//! What a client may do in its session, and in a minute.

use end_to_end::Client;

use crate::{server, swaks};

/// How many of these mails, sent one after another, are taken.
fn taken(server: &end_to_end::Server, from: &str, to: &str, mails: usize) -> usize {
    let sessions = (0..mails).map(|_| swaks(server.smtp(), from, &["--to", to]));
    sessions.filter(|session| session.stdout.contains("queued as ")).count()
}

#[test]
fn messages_and_recipients_in_a_minute() {
    let limits = "[limits]\nmessage-rate-per-client = 2\nmessage-rate-per-network = 3\n\
                  recipient-rate-per-client = 100\n";
    let server = server(limits);
    assert_eq!(taken(&server, "127.0.0.1", "bob@example.net", 3), 2);
    let refused = server.event("refused", |_| true);
    assert_eq!(
        (&refused["stage"], &refused["reason"]),
        (&"mail".into(), &"rate_limited".into()),
        "{refused}"
    );
    assert_eq!(taken(&server, "127.0.0.3", "bob@example.net", 2), 1, "of the same network");
    assert_eq!(taken(&server, "127.0.0.2", "bob@example.net", 4), 4, "one of ours");
    assert_eq!(server.metric("ringpost_refusals_total", &["reason=\"rate_limited\""]), 2.0);
    // A hundred recipients, over both messages.
    let mut client = Client::greeted(server.smtp());
    assert_eq!(client.ask("MAIL FROM:<ann@example.org>").code, 451);
    server.configure(&crate::configuration("[limits]\nrecipient-rate-per-client = 100\n"));
    server.reload();
    let mut client = Client::greeted(server.smtp());
    client.ask("MAIL FROM:<ann@example.org>");
    let took = (0..200).take_while(|n| client.ask(&format!("RCPT TO:<a{n}@example.net>")).code == 250);
    // Two are used up; how many come back meanwhile is for the clock to say.
    assert!((98..200).contains(&took.count()));
    assert_eq!(client.ask("RCPT TO:<more@example.net>").code, 451);
    client.say("DATA");
    client.expect(354);
    client.put(b"Subject: to many\r\n\r\nhello\r\n.\r\n");
    client.expect(250);
}

#[test]
fn mail_data_that_hardly_moves() {
    let server = server("[limits]\ndata-rate-min = \"1MiB\"\n[timeouts.inbound]\ndata-grace = \"1s\"\n");
    let envelope = ["MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>"];
    for (begin, reply) in [("DATA", Some(354)), ("BDAT 1000000", None)] {
        let mut client = Client::greeted(server.smtp());
        envelope.iter().for_each(|line| assert_eq!(client.ask(line).code, 250));
        client.say(begin);
        reply.into_iter().for_each(|code| drop(client.expect(code)));
        client.put(b"Subject: slow\r\n");
        assert_eq!(client.expect(421).text(), "4.4.2 mail data too slow, closing");
        assert_eq!(client.try_reply(), None);
        let refused = server.event("refused", |_| true);
        assert_eq!(
            (&refused["stage"], &refused["reason"]),
            (&"data".into(), &"too_slow".into()),
            "{refused}"
        );
    }
    assert_eq!(server.metric("ringpost_refusals_total", &["reason=\"too_slow\""]), 2.0);
    // A client that is quick has the same grace.
    swaks(server.smtp(), "127.0.0.1", &[]).good();
}

#[test]
fn a_session_has_so_many_recipients_and_guesses() {
    let server = server(
        "[limits]\nrecipients-per-session-max = 100\nrecipients-refused-max = 20\n[timeouts.inbound]\ntarpit = \"0s\"\n",
    );
    let mut client = Client::greeted(server.smtp());
    client.ask("MAIL FROM:<ann@example.org>");
    for n in 0..100 {
        assert_eq!(client.ask(&format!("RCPT TO:<a{n}@example.net>")).code, 250);
    }
    assert_eq!(client.ask("RCPT TO:<more@example.net>").code, 452);
    client.ask("RSET");
    assert_eq!(client.ask("MAIL FROM:<ann@example.org>").code, 421);
    let mut client = Client::greeted(server.smtp());
    client.ask("MAIL FROM:<ann@example.org>");
    let codes: Vec<_> = (0..21).map(|n| client.ask(&format!("RCPT TO:<a{n}@example.com>")).code).collect();
    assert_eq!(codes, [[550; 20].as_slice(), &[421]].concat());
    for (stage, reason) in [
        ("rcpt", "too_many_recipients"),
        ("session", "too_many_transactions"),
        ("session", "too_many_errors"),
    ] {
        // The sessions may have been with two shards, which do not write one after the other.
        let refused = end_to_end::until("the refusal is told", || {
            server
                .events("refused")
                .into_iter()
                .find(|event| event["stage"] == stage && event["reason"] == reason)
        });
        assert_eq!(refused["client"].as_str().map(|client| client.starts_with("127.0.0.1:")), Some(true));
    }
}

#[test]
fn who_speaks_before_the_greeting_is_turned_away() {
    let server = server("[timeouts.inbound]\ngreeting-delay = \"2s\"\n");
    // The words are there before the greeting can be.
    let mut client = Client::connect(server.smtp());
    client.put(b"EHLO client.test\r\n");
    assert_eq!(client.expect(554).text(), "5.5.1 you spoke before you were greeted");
    assert_eq!(client.try_reply(), None);
    let refused = server.event("connection_refused", |_| true);
    assert_eq!((&refused["reason"], &refused["cause"]), (&"early_talker".into(), &"protocol".into()));
    assert_eq!(server.metric("ringpost_connections_refused_total", &["reason=\"protocol\""]), 1.0);
    // Who waits is served; so is one that hangs up forgotten, and one of ours may speak when it likes.
    drop(Client::connect(server.smtp()));
    swaks(server.smtp(), "127.0.0.1", &[]).good();
    swaks(server.smtps(), "127.0.0.1", &["--tls-on-connect"]).good();
    swaks(server.smtp(), "127.0.0.2", &[]).good();
    end_to_end::until("nobody is left", || {
        (server.metric("ringpost_connections_open", &["side=\"in\""]) == 0.0).then_some(())
    });
}

#[test]
fn refusals_are_held_back_when_there_were_many() {
    let tarpit = "[limits]\ntarpit-after = 2\n[timeouts.inbound]\ntarpit = \"100ms\"\n";
    let server = server(tarpit);
    let held_back = || server.metric("ringpost_replies_held_back_total", &[]);
    let mut client = Client::greeted(server.smtp());
    let mut mail = |recipients: &[(&str, u16)]| {
        client.ask("MAIL FROM:<ann@example.org>");
        for (recipient, code) in recipients {
            assert_eq!(client.ask(&format!("RCPT TO:<{recipient}>")).code, *code);
        }
        client.say("DATA");
        client.expect(354);
        client.put(b"Subject: x\r\n\r\n.\r\n");
        client.expect(250);
    };
    let (good, bad) = (("bob@example.net", 250), ("bob@example.com", 550));
    mail(&[bad, bad, good]);
    assert_eq!(held_back(), 0.0);
    mail(&[bad, good, bad]);
    assert_eq!(held_back(), 0.0, "a message that was taken makes up for it");
    mail(&[bad, bad, bad, bad, good]);
    assert_eq!(held_back(), 2.0);
    // A stop does not wait for it.
    server.configure(&crate::configuration(
        "[limits]\ntarpit-after = 0\n[timeouts.inbound]\ntarpit = \"60s\"\n",
    ));
    server.reload();
    let mut client = Client::greeted(server.smtp());
    client.say("XYZZY");
    end_to_end::until("it is held back", || (held_back() == 3.0).then_some(()));
    let mut server = server;
    let (status, _) = server.stop();
    assert!(status.success());
    assert_eq!(client.reply().code, 500);
}
