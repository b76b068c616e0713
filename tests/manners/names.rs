//! What clients call themselves, what the DNS calls them, and whom their mail is from.

use std::{collections::HashMap, net::UdpSocket, thread};

use end_to_end::{Server, Sink, free_address};

use crate::{HOLD, configuration, server, swaks};

const ALL: &str = "[[listener]]\nname = \"smtp\"\n[listener.checks]\nmalformed-names = \"refuse\"\n\
                   unqualified-names = \"refuse\"\nforeign-literals = \"refuse\"\nour-name = \"refuse\"\n";

#[test]
fn names_at_ehlo() {
    let server = server(&format!("[clients]\ndeny-names = [\"*.dynamic.test\"]\n{ALL}"));
    for (name, served) in [
        ("client.example.org", true),
        ("[127.0.0.1]", true),
        ("127.0.0.1", false),
        ("[192.0.2.1]", false),
        ("localhost", false),
        ("mx.ringpost.test", false),
        ("a.dynamic.test", false),
    ] {
        for (from, served) in [("127.0.0.1", served), ("127.0.0.2", true)] {
            let session = swaks(server.smtp(), from, &["--helo", name]);
            assert_eq!(session.status.success(), served, "{name} from {from}: {session}");
            assert!(served || session.stdout.contains("550 5.7.1 EHLO name refused"), "{session}");
        }
    }
    let refused = server.event("refused", |_| true);
    assert_eq!((&refused["stage"], &refused["reason"]), (&"ehlo".into(), &"ehlo_name_refused".into()));
    // The checks are those of that listener.
    swaks(server.smtps(), "127.0.0.1", &["--tls-on-connect", "--helo", "localhost"]).good();
}

#[test]
fn senders_on_a_list_that_a_reload_brings() {
    let server = server("");
    let from = |sender: &str| swaks(server.smtp(), "127.0.0.1", &["--from", sender]);
    from("ann@shop.example").good();
    server.configure(&configuration(
        "[senders]\ndeny = [\"*.example\", \"Ann@example.org\"]\nallow = [\"bob@shop.example\"]\n",
    ));
    server.reload();
    for (sender, served) in
        [("ann@shop.example", false), ("bob@shop.example", true), ("ann@example.org", false), ("<>", true)]
    {
        let session = from(sender);
        assert_eq!(session.status.success(), served, "{sender}: {session}");
        assert!(served || session.stdout.contains("550 5.7.1 sender not allowed"), "{session}");
    }
    let refused = server.event("refused", |_| true);
    assert_eq!((&refused["stage"], &refused["reason"]), (&"mail".into(), &"sender_not_allowed".into()));
}

/// A DNS server in a thread of the test: PTR and A by name; SERVFAIL for what it has not heard of when `fails`.
fn names(records: &[(&str, &str)]) -> std::net::SocketAddr {
    let address = free_address();
    let socket = UdpSocket::bind(address).unwrap();
    let records: HashMap<String, String> =
        records.iter().map(|(name, data)| ((*name).into(), (*data).into())).collect();
    // It ends with the test's process.
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&answer(&buffer[..length], &records), from);
        }
    });
    address
}

/// The answer to a query, as it goes over the wire (RFC 1035 §4.1).
fn answer(query: &[u8], records: &HashMap<String, String>) -> Vec<u8> {
    const HEADER: usize = 12;
    let (mut name, mut at) = (String::new(), HEADER);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name += &String::from_utf8_lossy(&query[at + 1..end]).to_lowercase();
        name.push('.');
        at = end;
    }
    let (kind, end) = (query[at + 2], at + 5);
    let data: Option<Vec<u8>> = records.get(name.trim_end_matches('.')).and_then(|data| match kind {
        1 => Some(data.parse::<std::net::Ipv4Addr>().ok()?.octets().to_vec()),
        12 => {
            let labels = data.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
            Some(labels.chain([0]).collect())
        }
        _ => None,
    });
    // NXDOMAIN, or SERVFAIL for what is broken.
    let code = match (records.get(name.trim_end_matches('.')), &data) {
        (Some(broken), _) if broken == "broken" => 2,
        (None, _) => 3,
        (Some(_), _) => 0,
    };
    let data = data.filter(|_| code == 0);
    let count = u8::from(data.is_some());
    let mut reply = vec![query[0], query[1], 0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0];
    reply.extend_from_slice(&query[HEADER..end]);
    if let Some(data) = data {
        reply.extend_from_slice(&[0xc0, HEADER as u8, 0, kind, 0, 1, 0, 0, 2, 88, 0, data.len() as u8]);
        reply.extend_from_slice(&data);
    }
    reply
}

#[test]
fn names_that_lead_back() {
    let dns = names(&[
        ("1.0.0.127.in-addr.arpa", "good.test"),
        ("good.test", "127.0.0.1"),
        ("3.0.0.127.in-addr.arpa", "liar.test"),
        ("liar.test", "127.0.0.1"),
        ("5.0.0.127.in-addr.arpa", "broken"),
    ]);
    let rule = |rule: &str| {
        format!(
            "[dns]\nservers = [\"{dns}\"]\nfailure-ttl = \"1s\"\n\
             [[listener]]\nname = \"smtp\"\n[listener.checks]\nreverse-name = \"{rule}\"\n"
        )
    };
    let sink = Sink::start();
    let configuration = |word| configuration(&rule(word)).replace(HOLD, &sink.route());
    let server = Server::start(&configuration("look"));
    let none = ["250", "250", "250", "250", "250"];
    for (word, replies) in [
        ("look", none),
        ("named", ["250", "250", "250", "550 5.7.25", "451 4.4.3"]),
        ("confirmed", ["250", "250", "550 5.7.25", "550 5.7.25", "451 4.4.3"]),
    ] {
        server.configure(&configuration(word));
        server.reload();
        for (from, reply) in
            ["127.0.0.2", "127.0.0.1", "127.0.0.3", "127.0.0.4", "127.0.0.5"].into_iter().zip(replies)
        {
            let session = swaks(server.smtp(), from, &[]);
            assert_eq!(session.status.success(), reply == "250", "{word}, {from}: {session}");
            assert!(session.stdout.contains(&format!("{reply} ")), "{word}, {from}: {session}");
        }
    }
    let refused = server.event("refused", |_| true);
    assert_eq!((&refused["stage"], &refused["reason"]), (&"mail".into(), &"reverse_name".into()));
    // Who has a name that is true has it in the Received field: once under each rule.
    let named = (0..10).map(|_| sink.mail()).filter(|mail| mail.content.contains("(good.test [127.0.0.1])"));
    assert_eq!(named.count(), 3);
}
