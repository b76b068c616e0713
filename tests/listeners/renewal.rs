//! Certificates that change while the server runs.

use std::fs;

use end_to_end::{Client, Server, Sink, run, tool};

/// A pair of files that belong together, made by `ringpost init` elsewhere.
fn pair() -> (Server, [String; 2]) {
    let other = Server::prepare("");
    let files =
        ["certificate.pem", "key.pem"].map(|name| fs::read_to_string(other.place().join(name)).unwrap());
    (other, files)
}

fn shown(server: &Server) -> String {
    let address = server.smtps().to_string();
    let session = run(&tool("openssl"), &["s_client", "-connect", &address], "QUIT\n").stdout;
    let begin = session.find("-----BEGIN").unwrap_or_else(|| panic!("{session}"));
    let end = session.find("-----END").unwrap();
    session[begin..end].to_owned()
}

#[test]
fn files_that_change_are_taken_as_a_whole() {
    let sink = Sink::start();
    let server = Server::start(&format!("[tls]\nwatch-interval = \"1s\"\n{}", sink.route()));
    let before = shown(&server);
    // Somebody is in a session under the old one, and stays.
    let mut client = Client::greeted(server.smtp());
    client.ask("MAIL FROM:<ann@example.org>");
    let (_other, [certificate, key]) = pair();
    // As a client of an authority does it: beside the old one, and then in its place. Until both are there, nothing changes.
    let replace = |name: &str, text: &str| {
        let new = server.place().write("new", text);
        fs::rename(new, server.place().join(name)).unwrap();
    };
    replace("certificate.pem", &certificate);
    let refused = server.event("certificates_refused", |_| true);
    assert!(
        refused["error"].as_str().unwrap().contains("is not the key of the first certificate"),
        "{refused}"
    );
    assert_eq!(shown(&server), before);
    replace("key.pem", &key);
    let renewed = server.event("certificates_renewed", |_| true);
    assert_eq!(renewed["names"], "localhost mx.ringpost.test");
    let after = shown(&server);
    assert_ne!(after, before);
    assert!(certificate.contains(&after), "the new one");
    client.ask("RCPT TO:<bob@example.com>");
    assert_eq!(client.ask("DATA").code, 354);
    assert_eq!(client.ask(".").code, 250, "the session went on");
    sink.mail();
    let renewals = |result| server.metric("ringpost_certificate_renewals_total", &[result]);
    assert_eq!((renewals("result=\"done\""), renewals("result=\"refused\"")), (1.0, 1.0));
    assert!(server.events("reloaded").is_empty());
}
