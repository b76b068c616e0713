//! Several addresses of one host, of which some do not answer: mail goes to one that does, at once and once.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener},
    os::fd::OwnedFd,
};

use end_to_end::{Server, Sink, free_address};
use rustix::net::{AddressFamily, SocketType, bind, connect, listen, socket};

/// A host with a line of connections that is full: the system answers to nobody who wants to join.
struct Silent {
    listener: TcpListener,
    address: SocketAddr,
    _line: OwnedFd,
}

impl Silent {
    /// At this port of another address than that of the test's sinks.
    fn start(port: u16) -> Self {
        let IpAddr::V4(ours) = free_address().ip() else { unreachable!("tests have addresses of IPv4") };
        let [a, b, c, d] = ours.octets();
        let address = SocketAddrV4::new([a, b | 128, c, d].into(), port);
        let descriptor = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&descriptor, &address).unwrap();
        // One may wait, in the words of Linux.
        listen(&descriptor, 0).unwrap();
        let line = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        connect(&line, &address).unwrap();
        Self { listener: descriptor.into(), address: address.into(), _line: line }
    }

    /// Who has come into the line beside the test itself.
    fn strangers(&self) -> usize {
        self.listener.set_nonblocking(true).unwrap();
        let mut count: usize = 0;
        loop {
            match self.listener.accept() {
                Ok(_) => count += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return count.saturating_sub(1),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn configuration(sink: &Sink, silent: &Silent, more: &str) -> String {
    let (there, port) = (sink.address().ip(), sink.address().port());
    format!(
        "[dns]\nhosts = {{ \"two.test\" = [\"{there}\", \"{}\"] }}\n{more}\
         [[route]]\nname = \"hop\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"two.test:{port}\"]\nidle = \"0s\"\n",
        silent.address.ip()
    )
}

#[test]
fn an_address_that_does_not_answer_holds_nobody_up() {
    let sink = Sink::start();
    let silent = Silent::start(sink.address().port());
    // Whoever waited for the silent one would wait for an hour.
    let server = Server::start(&configuration(&sink, &silent, "[timeouts.outbound]\nconnect = \"1h\"\n"));
    let mut sent = 0;
    // Which address is first is a matter of chance; a hundred times the right one is none.
    while sent < 100 && server.metric("ringpost_connection_rivals_total", &[]) == 0.0 {
        let recipient = format!("bob{sent}@example.net");
        server.client().send("ann@example.org", &[&recipient], "Subject: at once\r\n\r\n");
        let outcome = server.event("outcome", |event| event["to"] == *recipient);
        assert_eq!(outcome["result"], "delivered", "{outcome}");
        assert_eq!(outcome["address"], sink.address().to_string());
        assert_eq!(sink.mail().rcpt, [format!("<{recipient}>")]);
        sent += 1;
    }
    assert!(server.metric("ringpost_connection_rivals_total", &[]) >= 1.0, "after {sent} messages");
    // The slower one was taken back: a connection that is not there counts nowhere.
    assert_eq!(silent.strangers(), 0);
    assert_eq!((sink.waiting(), server.metric("ringpost_connections_failed_total", &[])), (0, 0.0));
}

#[test]
fn without_a_delay_addresses_come_one_after_the_other() {
    let sink = Sink::start();
    let silent = Silent::start(sink.address().port());
    let timeouts = "[timeouts.outbound]\nconnect = \"1s\"\nattempt-delay = \"0s\"\n";
    let server = Server::start(&configuration(&sink, &silent, timeouts));
    let mut sent = 0;
    while sent < 100 && server.metric("ringpost_connections_failed_total", &[]) == 0.0 {
        let recipient = format!("bob{sent}@example.net");
        server.client().send("ann@example.org", &[&recipient], "Subject: later\r\n\r\n");
        server.event("outcome", |event| event["to"] == *recipient && event["result"] == "delivered");
        sent += 1;
    }
    assert!(server.metric("ringpost_connections_failed_total", &[]) >= 1.0, "after {sent} messages");
    assert_eq!(server.metric("ringpost_connection_rivals_total", &[]), 0.0);
}
