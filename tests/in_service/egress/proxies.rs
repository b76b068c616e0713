//! Sources whose connections a proxy makes: SOCKS5 (RFC 1928, RFC 1929), and one that is told by a PROXY header.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

#[expect(clippy::disallowed_types, reason = "a proxy of the server under test")]
use std::net::TcpStream;

use end_to_end::{Server, Sink, free_address, until};

use super::{address, pool, source};

/// A SOCKS5 proxy: connects for whoever knows its password, if it has one.
struct Socks {
    address: SocketAddr,
    connected: Arc<AtomicUsize>,
    /// What it answers in place of a connection.
    refusal: Arc<Mutex<Option<u8>>>,
}

impl Socks {
    fn start_at(address: SocketAddr, login: Option<(&'static str, &'static str)>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let socks = Self { address, connected: Arc::default(), refusal: Arc::default() };
        let (connected, refusal) = (socks.connected.clone(), socks.refusal.clone());
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (connected, refusal) = (connected.clone(), refusal.clone());
                thread::spawn(move || drop(serve(stream, login, &connected, &refusal)));
            }
        });
        socks
    }

    fn connected(&self) -> usize {
        self.connected.load(SeqCst)
    }
}

#[expect(clippy::disallowed_types, reason = "a proxy of the server under test")]
fn serve(
    mut client: TcpStream,
    login: Option<(&str, &str)>,
    connected: &AtomicUsize,
    refusal: &Mutex<Option<u8>>,
) -> io::Result<()> {
    let [5, count] = take(&mut client)? else { return Ok(()) };
    let mut methods = vec![0; count.into()];
    client.read_exact(&mut methods)?;
    let method = if login.is_some() { 2 } else { 0 };
    client.write_all(&[5, if methods.contains(&method) { method } else { 0xff }])?;
    if let Some((user, password)) = login {
        let [1, len] = take(&mut client)? else { return Ok(()) };
        let mut told = vec![0; usize::from(len) + 1];
        client.read_exact(&mut told)?;
        let mut secret = vec![0; told.pop().unwrap_or_default().into()];
        client.read_exact(&mut secret)?;
        let is_right = told == user.as_bytes() && secret == password.as_bytes();
        client.write_all(&[1, u8::from(!is_right)])?;
        if !is_right {
            return Ok(());
        }
    }
    // By address, never by name.
    let [5, 1, 0, 1] = take(&mut client)? else { return Ok(()) };
    let [a, b, c, d, high, low] = take(&mut client)?;
    if let Some(code) = *refusal.lock().unwrap() {
        return client.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
    let to = SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]));
    let mut server = match TcpStream::connect(to) {
        Ok(server) => server,
        Err(_) => return client.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]),
    };
    connected.fetch_add(1, SeqCst);
    // Where it connects from it tells by name, which a client must pass over.
    client.write_all(&[5, 0, 0, 3, 5, b'p', b'r', b'o', b'x', b'y', 0, 25])?;
    let (mut from, mut into) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || io::copy(&mut from, &mut into));
    io::copy(&mut server, &mut client)?;
    Ok(())
}

#[expect(clippy::disallowed_types, reason = "a proxy of the server under test")]
fn take<const LEN: usize>(stream: &mut TcpStream) -> io::Result<[u8; LEN]> {
    let mut octets = [0; LEN];
    stream.read_exact(&mut octets)?;
    Ok(octets)
}

fn by_proxy(name: &str, address: &str, proxy: SocketAddr, more: &str) -> String {
    format!(
        "[[source]]\nname = \"{name}\"\naddress = [{address}]\nehlo-name = \"{name}.test\"\nproxy = \"{proxy}\"\n{more}"
    )
}

fn send(server: &Server) {
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
}

#[test]
fn socks_with_a_password() {
    let (sink, socks) = (Sink::start(), Socks::start_at(free_address(), Some(("ann", "hush"))));
    let login = "proxy-user = \"ann\"\nproxy-password = \"hush\"\n";
    let with = |login: &str| {
        format!(
            "{}pool = \"p\"\ntransactions-max = 1\n[egress]\nprobe-interval = \"1s\"\n{}{}",
            sink.route(),
            by_proxy("a", "", socks.address, login),
            pool("p", "\"a\"")
        )
    };
    let server = Server::start(&with(login));
    for sent in 1..=3 {
        send(&server);
        let mail = sink.mail();
        assert_eq!((mail.name.as_str(), socks.connected()), ("a.test", sent), "{mail:?}");
    }
    assert_eq!(server.metric("ringpost_sources_out", &[]), 0.0);
    // A wrong password is the source's fault, and nobody's mail pays for it.
    server.configure(&with("proxy-user = \"ann\"\nproxy-password = \"other\"\n"));
    assert_eq!(server.reload()["event"], "reloaded");
    let out = server.event("source_out", |event| event["source"] == "a");
    assert!(out["reason"].as_str().unwrap().contains("password"), "{out}");
    send(&server);
    server.event("pool_dry", |_| true);
    assert_eq!(sink.waiting(), 0);
    server.configure(&with(login));
    assert_eq!(server.reload()["event"], "reloaded");
    sink.mail();
    assert_eq!(server.metric("ringpost_delivery_outcomes_total", &["outcome=\"deferred\""]), 0.0);
}

#[test]
fn a_dead_proxy_is_passed_over_until_it_lives() {
    let (sink, proxy) = (Sink::start(), free_address());
    let server = Server::start(&format!(
        "{}pool = \"p\"\n[egress]\nprobe-interval = \"1s\"\n{}{}{}",
        sink.route(),
        by_proxy("a", "", proxy, ""),
        source("b", address(2), ""),
        pool("p", "\"a:9\", \"b\"")
    ));
    let out = server.event("source_out", |event| event["source"] == "a");
    assert!(out["reason"].as_str().unwrap().contains("refused"), "{out}");
    for _ in 0..10 {
        send(&server);
        assert_eq!(sink.mail().client.ip(), address(2));
    }
    let socks = Socks::start_at(proxy, None);
    server.event("source_used", |event| event["source"] == "a");
    for _ in 0..20 {
        send(&server);
        sink.mail();
    }
    assert!(socks.connected() > 0);
    assert_eq!(server.metric("ringpost_delivery_outcomes_total", &["outcome=\"deferred\""]), 0.0);
}

#[test]
fn what_a_proxy_says_of_a_next_hop_is_about_the_next_hop() {
    let (sink, socks) = (Sink::start(), Socks::start_at(free_address(), None));
    let server = Server::start(&format!(
        "{}pool = \"p\"\n[queue]\ndestination-retry-min = \"1s\"\ndestination-retry-max = \"1s\"\n[egress]\nprobe-interval = \"1s\"\n{}{}",
        sink.route(),
        by_proxy("a", "", socks.address, ""),
        pool("p", "\"a\"")
    ));
    for (code, text) in [(2, "not allowed"), (5, "refused"), (4, "unreachable"), (1, "general failure")] {
        *socks.refusal.lock().unwrap() = Some(code);
        send(&server);
        let outcome = server.event("outcome", |event| event["result"] == "deferred");
        assert!(outcome["reply"].as_str().unwrap().contains(text), "{outcome}");
        server.queue(&["remove", "--yes", "--all"]).good();
    }
    // A stranger who names such hosts cannot put the source out of use.
    assert!(server.events("source_out").is_empty());
    let told = server.why(&format!("hop:{}", sink.address()));
    assert!(told.iter().all(|(_, cause, _)| cause != "source-out"), "{told:?}");
}

#[test]
fn a_header_tells_from_where() {
    let sink = Sink::start_behind_proxy();
    // Not an address of this host: it is the proxy that has it.
    let (one, two): (IpAddr, IpAddr) = ("192.0.2.77".parse().unwrap(), "198.51.100.7".parse().unwrap());
    let server = Server::start(&format!(
        "[[route]]\nname = \"sink\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"203.0.113.9:2525\"]\npool = \"p\"\n\
         [egress]\nprobe-interval = \"1s\"\n{}{}{}",
        by_proxy("a", &format!("\"{one}\""), sink.address(), "proxy-protocol = \"haproxy-v2\"\n"),
        by_proxy("b", &format!("\"{two}\""), sink.address(), "proxy-protocol = \"haproxy-v1\"\n"),
        pool("p", "\"a\", \"b\"")
    ));
    let mut seen = std::collections::BTreeSet::new();
    until("both have sent", || {
        send(&server);
        let mail = sink.mail();
        let expected = if mail.client.ip() == one { "a.test" } else { "b.test" };
        assert_eq!(mail.name, expected, "{mail:?}");
        seen.insert(mail.client.ip());
        (seen.len() == 2).then_some(())
    });
    assert!(seen.contains(&one) && seen.contains(&two));
    assert!(server.events("source_out").is_empty());
    let outcome = server.event("outcome", |event| event["source"] == "a");
    assert_eq!(outcome["address"], "203.0.113.9:2525", "{outcome}");
}
