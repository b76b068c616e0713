//! Mail that another host of ours hands on, and says where it is from: Postfix's XFORWARD.

use end_to_end::{Client, Server, Sink};

use crate::{drained, postfix::Postfix};

#[test]
fn what_postfix_hands_on_is_logged_as_from_its_client() {
    let sink = Sink::start();
    let server = Server::start(&format!(
        "[[listener]]\nname = \"smtp\"\nxforward-networks = [\"127.0.0.0/8\"]\n{}",
        sink.route()
    ));
    let postfix = Postfix::start(server.smtp(), "smtp_send_xforward_command = yes\n");
    let mut client = Client::greeted(postfix.address());
    client.ask("EHLO laptop.test");
    let queued = client.send("ann@example.org", &["bob@example.net"], "Subject: one\r\n\r\n").text();
    let id = queued.rsplit(' ').next().unwrap().to_owned();
    let accepted = server.event("accepted", |_| true);
    assert_eq!(accepted["orig_id"], *id, "{accepted}");
    assert_eq!(accepted["orig_helo"], "laptop.test", "{accepted}");
    let said = accepted["orig_client"].as_str().unwrap();
    assert!(said.starts_with("unknown[127.0.0.1]:"), "{accepted}");
    assert_eq!(accepted["helo"], "mx.postfix.test", "{accepted}");
    // Where it is from in truth is for the Received fields to say.
    let mail = sink.mail();
    assert!(mail.content.starts_with("Received: from mx.postfix.test ("), "{mail:?}");
    postfix.drained();
    drained(&server);
}

#[test]
fn what_is_told_changes_nothing_but_the_log() {
    let sink = Sink::start();
    let configuration = |networks: &str| {
        format!(
            "[clients]\ndeny = [\"192.0.2.66\"]\n[[domain]]\nname = \"example.net\"\nkind = \"local\"\nrecipients = [\"bob\"]\n\
             [[listener]]\nname = \"smtp\"\nxforward-networks = [{networks}]\n{}",
            sink.route()
        )
    };
    let server = Server::start(&configuration("\"127.0.0.0/8\""));
    let mut client = Client::greeted(server.smtp());
    let offers = client.ask("EHLO mx.test").text();
    assert!(offers.contains("XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"), "{offers}");
    // One that is denied, as if it had connected itself: our own network goes on relaying.
    let forward = "XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.66 PORT=99 HELO=c.example IDENT=4C1";
    assert_eq!(client.ask(forward).code, 250);
    client.send("ann@example.org", &["eve@example.com"], "Subject: one\r\n\r\n");
    let accepted = server.event("accepted", |_| true);
    assert_eq!(accepted["orig_client"], "unknown[192.0.2.66]:99", "{accepted}");
    sink.mail();
    // It was told of one message.
    client.send("ann@example.org", &["eve@example.com"], "Subject: two\r\n\r\n");
    sink.mail();
    let plain = server.event("accepted", |event| event["orig_id"].is_null());
    assert!(plain["orig_client"].is_null() && plain["orig_helo"].is_null(), "{plain}");

    // Refusals show it too, and what began at the other host has no client.
    assert_eq!(client.ask("XFORWARD ADDR=[UNAVAILABLE] NAME=localhost IDENT=4C2").code, 250);
    assert_eq!(client.ask("MAIL FROM:<ann@example.org>").code, 250);
    assert_eq!(client.ask("RCPT TO:<nobody@example.net>").code, 550);
    let refused = server.event("refused", |event| event["orig_id"] == "4C2");
    assert!(refused["orig_client"].is_null(), "{refused}");
    drained(&server);

    server.configure(&configuration("\"192.0.2.0/24\""));
    server.reload();
    let mut client = Client::greeted(server.smtp());
    assert!(!client.ask("EHLO mx.test").text().contains("XFORWARD"));
    assert_eq!(client.ask("XFORWARD ADDR=192.0.2.7").code, 550);
    server.configure(&configuration(""));
    server.reload();
    assert_eq!(Client::greeted(server.smtp()).ask("XFORWARD ADDR=192.0.2.7").code, 502);
}

#[test]
fn postfix_logs_where_what_we_hand_on_is_from() {
    let sink = Sink::start();
    let postfix = Postfix::start(sink.address(), "smtpd_authorized_xforward_hosts = 127.0.0.0/8\n");
    let configuration = |xforward: &str| {
        format!(
            "[[listener]]\nname = \"smtp\"\nxforward-networks = [\"127.0.0.0/8\"]\n\
             [[route]]\nname = \"rest\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"{}\"]\n\
             idle = \"0s\"\n{xforward}",
            postfix.address()
        )
    };
    let server = Server::start(&configuration("xforward = true\n"));
    let mut client = Client::greeted(server.smtp());
    client.ask("EHLO laptop.test");
    client.send("ann@example.org", &["bob@example.net"], "Subject: one\r\n\r\n");
    let id = server.event("accepted", |_| true)["id"].as_str().unwrap().to_owned();
    let line = postfix.logs(&format!("orig_queue_id={id}"));
    assert!(line.contains("orig_client=unknown[127.0.0.1]"), "{line}");
    assert!(sink.mail().content.contains("laptop.test"));

    // What we were told ourselves goes on to the next one.
    assert_eq!(client.ask("XFORWARD NAME=spike.example ADDR=192.0.2.7 IDENT=4C1").code, 250);
    client.send("ann@example.org", &["bob@example.net"], "Subject: two\r\n\r\n");
    let line = postfix.logs("orig_queue_id=4C1");
    assert!(line.contains("orig_client=spike.example[192.0.2.7]"), "{line}");
    sink.mail();
    drained(&server);

    // A route that does not say so tells nobody.
    server.configure(&configuration(""));
    server.reload();
    assert_eq!(client.ask("XFORWARD ADDR=192.0.2.9 IDENT=4C2").code, 250);
    client.send("ann@example.org", &["bob@example.net"], "Subject: three\r\n\r\n");
    sink.mail();
    drained(&server);
    postfix.drained();
    assert!(!postfix.has_logged("4C2"));
}
