//! Clients that speak for others, as swaks does to try rules.

use end_to_end::{Client, Finished, Server, Sink, run, tool};

use crate::drained;

/// Sends by swaks, which says this of the client it speaks for.
fn swaks(server: &Server, xclient: &[&str], to: &str) -> Finished {
    let at = server.smtp().to_string();
    let mut arguments =
        vec!["--server", &at, "--from", "ann@example.org", "--to", to, "--helo", "filter.test"];
    arguments.extend(xclient);
    run(&tool("swaks"), &arguments, "")
}

#[test]
fn a_session_is_with_whom_it_names() {
    let sink = Sink::start();
    let configuration = |xclient: &str| {
        format!(
            "[clients]\ndeny = [\"192.0.2.66\"]\n[[domain]]\nname = \"example.net\"\n\
             [[listener]]\nname = \"smtp\"\nxclient-networks = [{xclient}]\n{}",
            sink.route()
        )
    };
    let server = Server::start(&configuration("\"127.0.0.0/8\""));
    let other = ["--xclient-addr", "192.0.2.7", "--xclient-name", "client.example"];
    let said = swaks(&server, &other, "bob@example.net").good().stdout;
    assert!(said.contains("XCLIENT NAME ADDR PORT PROTO HELO"), "{said}");
    let mail = sink.mail();
    // The second EHLO is the other client's, and so are address and name.
    assert!(mail.content.starts_with("Received: from filter.test (client.example [192.0.2.7])"), "{mail:?}");
    let event = server.event("impersonated", |event| event["name"] == "client.example");
    assert!(event["other"].as_str().unwrap().starts_with("192.0.2.7:"), "{event}");
    let accepted = server.event("accepted", |_| true);
    assert!(accepted["client"].as_str().unwrap().starts_with("192.0.2.7:"), "{accepted}");

    // What is for our own networks is not for that one; who is denied gets no further.
    let relayed = swaks(&server, &other, "eve@example.com");
    assert!(relayed.stdout.contains("550 5.7.1"), "{relayed:?}");
    let denied = swaks(&server, &["--xclient-addr", "192.0.2.66"], "bob@example.net");
    assert!(!denied.status.success() && denied.stdout.contains("5.7.1"), "{denied:?}");
    let own = swaks(&server, &["--xclient-helo", "client.example"], "eve@example.com").good().stdout;
    assert!(own.contains("250 2.0.0 queued"), "{own}");
    sink.mail();

    // Whoever speaks for a stranger is one, and may not do so again.
    let mut client = Client::greeted(server.smtp());
    assert!(client.ask("EHLO filter.test").text().contains("XCLIENT"));
    assert_eq!(client.ask("XCLIENT ADDR=IPV6:2001:db8::7").code, 220);
    assert!(!client.ask("EHLO client.example").text().contains("XCLIENT"));
    assert_eq!(client.ask("XCLIENT ADDR=127.0.0.1").code, 502);
    assert_eq!(client.ask("MAIL FROM:<ann@example.org>").code, 250);
    assert_eq!(client.ask("RCPT TO:<eve@example.com>").code, 550);
    drained(&server);

    server.configure(&configuration("\"192.0.2.0/24\""));
    server.reload();
    let mut client = Client::greeted(server.smtp());
    assert!(!client.ask("EHLO filter.test").text().contains("XCLIENT"));
    assert_eq!(client.ask("XCLIENT ADDR=192.0.2.7").code, 502);
}
