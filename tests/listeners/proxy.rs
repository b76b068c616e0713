//! Listeners behind a proxy (PROXY protocol, versions 1 and 2).

use end_to_end::{Client, Server, Sink, until};

use crate::{swaks, unfolded};

/// Behind a proxy on this host. Only these clients may relay: not the proxy itself.
fn configuration(sink: &Sink, more: &str) -> String {
    let listener = |name: &str| {
        format!("[[listener]]\nname = \"{name}\"\nproxy-networks = [\"127.0.0.1/32\", \"::1/128\"]\n{more}")
    };
    format!(
        "[relay]\nnetworks = [\"198.51.100.0/24\", \"2001:db8::/32\"]\n[[domain]]\nname = \"example.net\"\n{}{}{}",
        listener("smtp"),
        listener("smtps"),
        sink.route()
    )
}

const TO: [&str; 2] = ["--to", "bob@example.com"];

fn header<'a>(version: &'a str, family: &'a str, client: &'a str, server: &'a str) -> [&'a str; 12] {
    [
        "--proxy-version",
        version,
        "--proxy-family",
        family,
        "--proxy-source",
        client,
        "--proxy-source-port",
        "56324",
        "--proxy-dest",
        server,
        "--proxy-dest-port",
        "25",
    ]
}

#[test]
fn the_client_is_who_the_header_says() {
    let sink = Sink::start();
    let server = Server::start(&configuration(&sink, ""));
    for (header, address, text) in [
        (header("1", "TCP4", "198.51.100.7", "192.0.2.1"), "198.51.100.7:56324", "[198.51.100.7]"),
        (header("2", "AF_INET", "198.51.100.8", "192.0.2.1"), "198.51.100.8:56324", "[198.51.100.8]"),
        (header("1", "TCP6", "2001:db8::7", "2001:db8::1"), "[2001:db8::7]:56324", "[IPv6:2001:db8::7]"),
    ] {
        // The header stands before the handshake too.
        for (to, tls) in
            [(server.smtp(), &[][..]), (server.smtp(), &["--tls"]), (server.smtps(), &["--tls-on-connect"])]
        {
            swaks(to, &[&TO[..], &header, tls].concat()).good();
            let trace = unfolded(&sink.mail().content);
            assert!(trace.starts_with(&format!("Received: from client.test (unknown {text})")), "{trace}");
            let connected = server.event("connected", |_| true);
            assert_eq!(connected["client"], address);
            assert!(connected["proxy"].as_str().unwrap().starts_with("127.0.0.1:"), "{connected}");
            assert_eq!(server.event("accepted", |_| true)["client"], address);
        }
    }
    // Who may not relay may not by a proxy either; nor may one that is in the network of the proxy.
    for client in ["203.0.113.1", "127.0.0.1"] {
        let session = swaks(server.smtp(), &[&TO[..], &header("1", "TCP4", client, "192.0.2.1")].concat());
        assert!(session.stdout.contains("550 5.7.1 relaying denied"), "{session}");
    }
    assert_eq!(sink.waiting(), 0);
}

#[test]
fn a_header_that_names_nobody() {
    let sink = Sink::start();
    // Here the proxy itself may relay.
    let server =
        Server::start(&(configuration(&sink, "") + "\n[relay]\nnetworks = [\"127.0.0.0/8\"]\n").replacen(
            "[relay]\nnetworks = [\"198.51.100.0/24\", \"2001:db8::/32\"]\n",
            "",
            1,
        ));
    let ask = |header: &[u8]| {
        let mut client = Client::connect(server.smtp());
        client.put(
            &[header, b"EHLO client.test\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nQUIT\r\n"]
                .concat(),
        );
        for code in [220, 250, 250] {
            client.expect(code);
        }
        client.reply().code
    };
    // Its own connection, as it makes them to see whether we are there.
    assert_eq!(ask(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"), 250);
    assert_eq!(ask(b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x03abc"), 250);
    // Somebody else's.
    assert_eq!(ask(b"PROXY UNKNOWN\r\n"), 550);
    assert_eq!(ask(b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0"), 550);
}

#[test]
fn headers_in_pieces_and_such_as_are_none() {
    let sink = Sink::start();
    let patience =
        "[listener.timeouts]\nproxy-header = \"1s\"\n[listener.limits]\nproxy-header-max = \"600B\"\n";
    let server = Server::start(&configuration(&sink, patience));
    let mut client = Client::connect(server.smtp());
    for octet in b"PROXY TCP4 198.51.100.7 192.0.2.1 56324 25\r" {
        client.put(&[*octet]);
    }
    client.put(b"\n");
    client.expect(220);
    drop(client);
    let long = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x02\x49"[..], &[0; 585]].concat();
    let refused: [(&[u8], &str); 6] = [
        (b"EHLO client.test\r\n", "no PROXY header"),
        (b"PROXY TCP4 198.51.100.7 192.0.2.1 56324\r\n", "malformed PROXY header"),
        (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0", "PROXY header of an unknown version"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c............", "PROXY header of something that is not TCP"),
        (&long, "PROXY header of more octets than the limit"),
        (b"PROXY TCP4 198.51", "the PROXY header did not come in time"),
    ];
    for (octets, error) in refused {
        let mut client = Client::connect(server.smtp());
        client.put(octets);
        assert_eq!(client.rest(), "", "no reply to who knows whom: {error}");
        let event = server.event("proxy_refused", |_| true);
        assert_eq!((&event["listener"], &event["error"]), (&"smtp".into(), &error.into()), "{event}");
    }
    // A look whether the port is open is nothing to tell of, but is counted.
    drop(Client::connect(server.smtp()));
    until("all are counted", || {
        let counted = server.metric("ringpost_connections_refused_total", &["reason=\"proxy\""]);
        (counted >= 7.0).then_some(())
    });
    assert_eq!(server.events("proxy_refused").len(), 6);
    // What stands behind the limit's last octet is the client's.
    let full = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x02\x48\xc6\x33\x64\x07\xc0\0\x02\x01\xdc\x04\0\x19"[..],
        &[0; 572],
        b"NOOP\r\n",
    ];
    let mut client = Client::connect(server.smtp());
    client.put(&full.concat());
    client.expect(220);
    client.expect(250);
}

#[test]
fn headers_are_believed_of_proxies_alone() {
    let sink = Sink::start();
    let server = Server::start(&configuration(&sink, "").replace("127.0.0.1/32", "192.0.2.0/24"));
    let mut client = Client::connect(server.smtp());
    client.put(b"PROXY TCP4 198.51.100.7 192.0.2.1 56324 25\r\n");
    assert_eq!(client.rest(), "");
    let event = server.event("proxy_refused", |_| true);
    assert!(event["error"].as_str().unwrap().contains("proxy-networks"), "{event}");
    // Where no proxy is, a header is a bad command.
    let mut client = Client::connect(server.submission());
    client.put(b"PROXY TCP4 198.51.100.7 192.0.2.1 56324 25\r\n");
    client.expect(220);
    client.expect(500);
}

#[test]
fn connections_are_counted_by_client() {
    let sink = Sink::start();
    let few = "[listener.limits]\nconnections-per-client-max = 1\n";
    let one_core = "[cores]\ncount = 1\n";
    let server = Server::start(&(one_core.to_owned() + &configuration(&sink, few)));
    let connect = |client: &str| {
        let mut connected = Client::connect(server.smtp());
        connected.put(format!("PROXY TCP4 {client} 192.0.2.1 56324 25\r\n").as_bytes());
        let code = connected.reply().code;
        (connected, code)
    };
    let (_first, code) = connect("203.0.113.1");
    assert_eq!(code, 220);
    assert_eq!(connect("203.0.113.1").1, 421, "the same client again");
    let (_second, code) = connect("203.0.113.2");
    assert_eq!(code, 220, "another client by the same proxy");
}

/// The header is no greeting: what comes with it comes before that.
#[test]
fn who_speaks_together_with_the_proxy_speaks_too_early() {
    let sink = Sink::start();
    let delay = "[timeouts.inbound]\ngreeting-delay = \"1s\"\n";
    let server = Server::start(&format!("{delay}{}", configuration(&sink, "")));
    let header = "PROXY TCP4 203.0.113.1 192.0.2.1 56324 25\r\n";
    let mut client = Client::connect(server.smtp());
    client.put(format!("{header}EHLO client.test\r\n").as_bytes());
    assert_eq!(client.expect(554).text(), "5.5.1 you spoke before you were greeted");
    let refused = server.event("connection_refused", |_| true);
    assert_eq!(refused["reason"], "early_talker");
    let mut patient = Client::connect(server.smtp());
    patient.put(header.as_bytes());
    patient.expect(220);
}
