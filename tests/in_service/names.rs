//! How DNS servers are asked.

use std::{
    collections::HashSet,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

use end_to_end::{Server, Sink, free_address, until};

/// A DNS server in threads of the test: every name has itself for a mail exchange, at one address. About names that
/// begin with `long` it says nothing but over TCP.
struct Names {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Clone, Debug)]
struct Asked {
    transport: &'static str,
    from: SocketAddr,
    id: [u8; 2],
    name: String,
}

const A: [u8; 2] = [0, 1];
const MX: [u8; 2] = [0, 15];
const HEADER: usize = 12;

impl Names {
    fn start(host: IpAddr) -> Self {
        let address = free_address();
        let (udp, tcp) = (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap());
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let of_udp = Arc::clone(&asked);
        // Both end with the test's process.
        thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let query = &buffer[..length];
                let name = note(&of_udp, "udp", from, query);
                let mut reply = answer(query, host);
                if name.starts_with("long") {
                    reply = query.to_vec();
                    // QR, RD and TC.
                    reply[2..4].copy_from_slice(&[0x83, 0x80]);
                }
                let _ = udp.send_to(&reply, from);
            }
        });
        let of_tcp = Arc::clone(&asked);
        thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_err() {
                    continue;
                }
                let mut query = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut query).unwrap();
                note(&of_tcp, "tcp", stream.peer_addr().unwrap(), &query);
                let reply = answer(&query, host);
                stream.write_all(&(reply.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&reply).unwrap();
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// UDP sockets of anybody that are connected to it.
    fn sockets(&self) -> usize {
        let IpAddr::V4(ip) = self.address.ip() else { unreachable!("a loopback of the test's own") };
        let remote = format!(" {:08X}:{:04X} ", u32::from_le_bytes(ip.octets()), self.address.port());
        let lines = fs::read_to_string("/proc/net/udp").unwrap();
        lines
            .lines()
            .filter(|line| line.split_whitespace().nth(2).is_some_and(|at| at == remote.trim()))
            .count()
    }
}

fn note(asked: &Mutex<Vec<Asked>>, transport: &'static str, from: SocketAddr, query: &[u8]) -> String {
    let (mut name, mut at) = (String::new(), HEADER);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name += &String::from_utf8_lossy(&query[at + 1..end]).to_lowercase();
        name.push('.');
        at = end;
    }
    asked.lock().unwrap().push(Asked { transport, from, id: [query[0], query[1]], name: name.clone() });
    name
}

/// The answer to a query, as it goes over the wire (RFC 1035 §4.1).
fn answer(query: &[u8], host: IpAddr) -> Vec<u8> {
    let end = HEADER + query[HEADER..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let IpAddr::V4(host) = host else { unreachable!("a sink is on IPv4") };
    let kind = [query[end - 4], query[end - 3]];
    let data = match kind {
        A => host.octets().to_vec(),
        // Preference 10, and the name of the question.
        MX => vec![0, 10, 0xc0, HEADER as u8],
        _ => Vec::new(),
    };
    let count = u8::from(!data.is_empty());
    let mut reply = vec![query[0], query[1], 0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0];
    reply.extend_from_slice(&query[HEADER..end]);
    if count > 0 {
        // The name by a pointer to the question; class IN, ten minutes.
        reply.extend_from_slice(&[
            0xc0,
            HEADER as u8,
            kind[0],
            kind[1],
            0,
            1,
            0,
            0,
            2,
            88,
            0,
            data.len() as u8,
        ]);
        reply.extend_from_slice(&data);
    }
    reply
}

fn server(names: &Names, sink: &Sink, dns: &str) -> Server {
    let (dns_at, port) = (names.address, sink.address().port());
    Server::start(&format!(
        "[dns]\nservers = [\"{dns_at}\"]\n{dns}\n\
         [[route]]\nname = \"internet\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {port}\n"
    ))
}

fn send(server: &Server, sink: &Sink, domains: &[String]) {
    let mut client = server.client();
    for domain in domains {
        client.send("ann@example.org", &[&format!("bob@{domain}")], "Subject: hello\r\n\r\nhello\r\n");
    }
    for _ in domains {
        sink.mail();
    }
}

#[test]
fn each_question_comes_from_a_port_of_its_own() {
    let sink = Sink::start();
    let names = Names::start(sink.address().ip());
    let server = server(&names, &sink, "");
    let domains: Vec<_> = (0..40).map(|i| format!("domain{i}.test")).collect();
    send(&server, &sink, &domains);
    let asked = names.asked();
    assert!(asked.len() >= 120, "MX, A and AAAA of each: {asked:?}");
    assert!(asked.iter().all(|asked| asked.transport == "udp"));
    // Of some thirty thousand ports and 65,536 ids (RFC 5452 §9.2), two may come twice.
    let ports: HashSet<u16> = asked.iter().map(|asked| asked.from.port()).collect();
    let ids: HashSet<[u8; 2]> = asked.iter().map(|asked| asked.id).collect();
    assert!(ports.len() + 5 > asked.len() && ids.len() + 5 > asked.len(), "{asked:?}");
    let steps = asked.windows(2).filter(|two| two[0].from.port().abs_diff(two[1].from.port()) < 8).count();
    assert!(steps < 10, "ports one after the other: {asked:?}");
    until("no socket stays open", || (names.sockets() == 0).then_some(()));
}

#[test]
fn a_crowd_of_questions_shares_sockets_and_connections() {
    let sink = Sink::start();
    let names = Names::start(sink.address().ip());
    let server = server(&names, &sink, "sockets = 2\nstreams = 1");
    let domains: Vec<_> =
        (0..60).map(|i| format!("{}{i}.test", if i % 4 == 0 { "long" } else { "short" })).collect();
    let mut most = 0;
    thread::scope(|scope| {
        let sent = scope.spawn(|| send(&server, &sink, &domains));
        while !sent.is_finished() {
            most = most.max(names.sockets());
        }
        sent.join().unwrap();
    });
    assert!((1..=2 * 2).contains(&most), "{most} sockets of two cores");
    let over_tcp: HashSet<_> =
        names.asked().into_iter().filter(|asked| asked.transport == "tcp").map(|asked| asked.name).collect();
    assert_eq!(over_tcp.len(), 15, "who is cut short is asked again over TCP: {over_tcp:?}");
    until("no socket stays open", || (names.sockets() == 0).then_some(()));
}
