//! One socket for both families of addresses.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use end_to_end::{Client, Server, Sink};

use crate::unfolded;

/// Clients of IPv4 are known by their IPv4 address: in the log, in trace fields, and by networks.
#[test]
fn a_dual_stack_listener_knows_clients_of_both_families() {
    let sink = Sink::start();
    let port = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port();
    let server = Server::start(&format!(
        "[relay]\nnetworks = [\"127.0.0.0/8\", \"::1/128\"]\n\
         [[listener]]\nname = \"both\"\ntls = \"none\"\naddress = [\"[::]:{port}\"]\n{}",
        sink.route()
    ));
    for (ip, client, text) in [
        (Ipv4Addr::LOCALHOST.into(), "127.0.0.1:", "[127.0.0.1]"),
        (Ipv6Addr::LOCALHOST.into(), "[::1]:", "[IPv6:::1]"),
    ] {
        let mut session = Client::greeted(SocketAddr::new(ip, port));
        session.send("ann@example.org", &["bob@example.com"], "Subject: both\r\n\r\n");
        let connected = server.event("connected", |_| true);
        assert_eq!(connected["listener"], "both");
        assert!(connected["client"].as_str().unwrap().starts_with(client), "{connected}");
        let trace = unfolded(&sink.mail().content);
        assert!(trace.starts_with(&format!("Received: from client.test (unknown {text})")), "{trace}");
    }
}
