//! Strangers who come too many, too fast or unwanted; and those of ours, who may.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "manners/connections.rs"]
mod connections;
#[path = "manners/names.rs"]
mod names;
#[path = "manners/recipients.rs"]
mod recipients;
#[path = "manners/sessions.rs"]
mod sessions;

use std::net::SocketAddr;

use end_to_end::{Client, Finished, Server, run, tool};

/// A server to which 127.0.0.1 is a stranger and 127.0.0.2 is not.
fn server(more: &str) -> Server {
    Server::start(&configuration(more))
}

/// Mail stays here.
const HOLD: &str = "[[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n";

fn configuration(more: &str) -> String {
    format!("[relay]\nnetworks = [\"127.0.0.2\"]\n[[domain]]\nname = \"example.net\"\n{HOLD}{more}")
}

/// A mail to bob@example.net from an address of this host, by swaks.
fn swaks(server: SocketAddr, from: &str, more: &[&str]) -> Finished {
    let (ip, port) = (server.ip().to_string(), server.port().to_string());
    // What is said again in `more` holds.
    let common = ["--server", &ip, "--port", &port, "--local-interface", from, "--helo", "client.test"];
    let mail = ["--from", "ann@example.org", "--to", "bob@example.net"];
    run(&tool("swaks"), &[&common[..], &mail, more].concat(), "")
}

/// A connection that is turned away with these words.
#[track_caller]
fn turned_away(server: SocketAddr, code: u16, text: &str) {
    let mut client = Client::connect(server);
    assert_eq!(client.expect(code).text(), text);
    assert_eq!(client.try_reply(), None);
}
