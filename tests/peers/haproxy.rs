//! HAProxy on both sides of us: it tells us by a PROXY header who a client is, and is told from which source a connection is to come.

use std::{net::SocketAddr, process::Command};

use end_to_end::{Place, Program, Server, Signal, Sink, free_address, listens, run, tool, until};

/// An HAProxy with these proxies, in the foreground. Nothing of it lies outside its own directory.
pub(crate) struct Haproxy {
    program: Program,
    _place: Place,
}

impl Haproxy {
    /// Starts it and waits until it listens there.
    pub(crate) fn start(address: SocketAddr, proxies: &str) -> Self {
        let place = Place::new();
        let defaults =
            "defaults\n    mode tcp\n    timeout connect 10s\n    timeout client 1m\n    timeout server 1m\n";
        let configuration = place.write("haproxy.cfg", format!("{defaults}{proxies}"));
        let mut command = Command::new(tool("haproxy"));
        command.arg("-db").arg("-f").arg(configuration);
        let mut program = Program::start("haproxy", &mut command);
        until("HAProxy listens", || {
            assert!(program.is_running(), "HAProxy has ended: {:?}", program.lines());
            listens(address).then_some(())
        });
        Self { program, _place: place }
    }

    fn stop(&mut self) {
        if self.program.is_running() {
            self.program.signal(Signal::TERM);
            self.program.wait();
        }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.stop();
    }
}

/// As docs/egress.md has it: it connects from the address in the header to that in the header.
fn out(address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "frontend ringpost\n    bind {address} accept-proxy\n\
         \x20   tcp-request session reject if {{ dst {ip} }} {{ dst_port {port} }}\n    default_backend out\n\
         backend out\n    source 0.0.0.0 usesrc clientip\n    server next 0.0.0.0:0\n"
    )
}

/// In front of a listener of ours.
fn front(address: SocketAddr, listener: SocketAddr, how: &str) -> String {
    format!("listen front\n    bind {address}\n    server own {listener} {how}\n")
}

/// In front of HTTP of ours, with TLS: key and certificates are in that file.
pub(crate) fn front_with_tls(address: SocketAddr, papers: &std::path::Path, http: SocketAddr) -> String {
    format!(
        "frontend tls\n    mode http\n    bind {address} ssl crt {}\n    default_backend own\n\
         backend own\n    mode http\n    server own {http}\n",
        papers.display()
    )
}

/// Addresses of loopback that no other test has.
fn sources() -> [SocketAddr; 2] {
    let [_, _, middle, low] = std::process::id().to_be_bytes();
    [211, 212].map(|second| SocketAddr::from(([127, second, middle, low], 0)))
}

fn send(to: SocketAddr, from: &str) {
    let to = to.to_string();
    let arguments = [
        ["--server", &to],
        ["--local-interface", from],
        ["--helo", "client.test"],
        ["--from", "ann@example.org"],
        ["--to", "bob@example.net"],
    ];
    run(&tool("swaks"), &arguments.concat(), "").good();
}

#[test]
fn it_connects_from_the_source_that_it_is_told() {
    assert!(
        rustix::process::getuid().is_root(),
        "HAProxy uses the addresses of others, which only root may: run this test as root"
    );
    let (sink, proxy) = (Sink::start(), free_address());
    let [one, two] = sources();
    let source = |name: &str, address: SocketAddr, version: u8| {
        format!(
            "[[source]]\nname = \"{name}\"\naddress = [\"{}\"]\nehlo-name = \"{name}.test\"\nproxy = \"{proxy}\"\n\
             proxy-protocol = \"haproxy-v{version}\"\n",
            address.ip()
        )
    };
    let mut haproxy = Haproxy::start(proxy, &out(proxy));
    let server = Server::start(&format!(
        "{}pool = \"p\"\ntransactions-max = 1\n[egress]\nprobe-interval = \"1s\"\n\
         [[pool]]\nname = \"p\"\nsources = [\"a\", \"b\"]\n{}{}",
        sink.route(),
        source("a", one, 1),
        source("b", two, 2)
    ));
    let mut seen = std::collections::BTreeSet::new();
    until("both have sent", || {
        server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
        let mail = sink.mail();
        server.event("outcome", |event| event["result"] == "delivered");
        // The next hop sees the source itself, and the name that belongs to it.
        let expected = if mail.client.ip() == one.ip() { "a.test" } else { "b.test" };
        assert_eq!(mail.name, expected, "{mail:?}");
        assert!([one.ip(), two.ip()].contains(&mail.client.ip()), "{mail:?}");
        seen.insert(mail.client.ip());
        (seen.len() == 2).then_some(())
    });
    // Without it both are out, and mail waits, uncounted; with it, it leaves.
    haproxy.stop();
    server.event("source_out", |event| event["source"] == "a");
    server.event("source_out", |event| event["source"] == "b");
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: waits\r\n\r\nx\r\n");
    server.event("pool_dry", |_| true);
    assert_eq!(sink.waiting(), 0);
    let _again = Haproxy::start(proxy, &out(proxy));
    let mail = sink.mail();
    assert!(mail.content.contains("Subject: waits"), "{mail:?}");
    assert_eq!(server.metric("ringpost_delivery_outcomes_total", &["outcome=\"deferred\""]), 0.0);
}

#[test]
fn it_says_who_a_client_is() {
    let sink = Sink::start();
    let server = Server::start(&format!(
        "[relay]\nnetworks = [\"127.0.0.77/32\"]\n[[listener]]\nname = \"smtp\"\nproxy-networks = [\"127.0.0.1/32\"]\n{}",
        sink.route()
    ));
    for how in [
        "send-proxy",
        "send-proxy-v2",
        // With more in the header: a sum over it, a name for the connection, what is known of TLS.
        "send-proxy-v2 proxy-v2-options crc32c,unique-id",
        "send-proxy-v2-ssl-cn",
        // Whoever only looks whether we are there speaks for itself.
        "send-proxy-v2 check check-send-proxy inter 200ms",
    ] {
        let address = free_address();
        let _haproxy = Haproxy::start(address, &front(address, server.smtp(), how));
        send(address, "127.0.0.77");
        let mail = sink.mail();
        let trace = mail.content.replace("\r\n\t", " ").replace("\r\n ", " ");
        assert!(trace.starts_with("Received: from client.test (unknown [127.0.0.77])"), "{how}: {trace}");
        let accepted = server.event("accepted", |_| true);
        assert!(accepted["client"].as_str().unwrap().starts_with("127.0.0.77:"), "{how}: {accepted}");
        // Who may not relay may not by a proxy: the proxy's own address is nobody's.
        let to = address.to_string();
        let stranger = [
            ["--server", &to],
            ["--local-interface", "127.0.0.78"],
            ["--helo", "client.test"],
            ["--from", "ann@example.org"],
            ["--to", "bob@example.net"],
        ];
        let session = run(&tool("swaks"), &stranger.concat(), "");
        assert!(session.stdout.contains("550 5.7.1 relaying denied"), "{how}: {session}");
    }
    assert_eq!(sink.waiting(), 0);
    assert!(server.events("proxy_refused").is_empty());
}

/// The whole way: a client, HAProxy, we, HAProxy, a next hop, which sees the source.
#[test]
fn it_stands_on_both_sides() {
    let (sink, before, behind) = (Sink::start(), free_address(), free_address());
    let [one, _] = sources();
    // Before the first look whether the source is fit for use.
    let _out = Haproxy::start(behind, &out(behind));
    let server = Server::start(&format!(
        "[relay]\nnetworks = [\"127.0.0.77/32\"]\n[[listener]]\nname = \"smtp\"\nproxy-networks = [\"127.0.0.1/32\"]\n\
         {}pool = \"p\"\n[[pool]]\nname = \"p\"\nsources = [\"a\"]\n\
         [[source]]\nname = \"a\"\naddress = [\"{}\"]\nproxy = \"{behind}\"\nproxy-protocol = \"haproxy-v2\"\n",
        sink.route(),
        one.ip()
    ));
    let _front = Haproxy::start(before, &front(before, server.smtp(), "send-proxy-v2"));
    for _ in 0..3 {
        send(before, "127.0.0.77");
        let mail = sink.mail();
        assert_eq!(mail.client.ip(), one.ip(), "{mail:?}");
        assert!(mail.content.contains("[127.0.0.77]"), "{mail:?}");
    }
}
