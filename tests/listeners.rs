//! Every kind of listener, and the clients of others on it: swaks, openssl, Postfix.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "listeners/activation.rs"]
mod activation;
#[path = "listeners/atrn.rs"]
mod atrn;
#[path = "listeners/certificates.rs"]
mod certificates;
#[path = "listeners/families.rs"]
mod families;
#[path = "listeners/groups.rs"]
mod groups;
#[path = "listeners/lmtp.rs"]
mod lmtp;
#[path = "listeners/proxy.rs"]
mod proxy;
#[path = "listeners/renewal.rs"]
mod renewal;
#[path = "listeners/unix.rs"]
mod unix;

use std::net::SocketAddr;

use end_to_end::{Finished, run, tool};

/// `swaks` to this server, for ann@example.org.
fn swaks(server: SocketAddr, arguments: &[&str]) -> Finished {
    let (ip, port) = (server.ip().to_string(), server.port().to_string());
    let common = ["--server", &ip, "--port", &port, "--helo", "client.test", "--from", "ann@example.org"];
    run(&tool("swaks"), &[&common, arguments].concat(), "")
}

/// With folded lines of the header section in one.
fn unfolded(content: &str) -> String {
    content.replace("\r\n\t", " ")
}
