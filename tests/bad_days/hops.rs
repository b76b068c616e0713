//! Next hops that hang, hang up, lie or cannot be found: mail waits, and is not returned before its time.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

#[expect(clippy::disallowed_types, reason = "a next hop of the server under test")]
use std::net::TcpStream;

use end_to_end::{Server, Sink, free_address, until};
use serde_json::Value;

use crate::unharmed;

/// Nobody is waited for long, and what failed is tried again soon.
const HASTE: &str = r#"
[timeouts.outbound]
connect = "1s"
handshake = "1s"
greeting = "1s"
ehlo = "1s"
mail = "1s"
rcpt = "1s"
data = "1s"
block = "1s"
final = "1s"
[queue]
greylist-retry = "1s"
retry = ["1s"]
retry-max = "1s"
jitter = 0
destination-retry-min = "1s"
destination-retry-max = "1s"
"#;

/// How a next hop misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Says nothing any more, from this word of the client on; `connect` for not even a greeting.
    HangsAt(&'static str),
    /// Takes no more than what the kernel holds of the mail data.
    StopsReading,
    /// Closes the connection at this word.
    ClosesAt(&'static str),
    /// Takes one message on a connection, and closes behind its 250.
    ClosesAfterEach,
    /// Takes the message, and closes before its 250.
    KeepsAndCloses,
    /// Answers this in place of what it should.
    Says(&'static str, &'static str),
}

/// A next hop in trouble, until it is told to be well.
struct Hop {
    address: SocketAddr,
    well: Arc<AtomicBool>,
    /// How often each content came in whole.
    taken: Arc<Mutex<HashMap<String, u32>>>,
}

impl Hop {
    fn start(trouble: Trouble) -> Self {
        let address = free_address();
        let listener = TcpListener::bind(address).unwrap();
        let hop = Self { address, well: Arc::default(), taken: Arc::default() };
        let (well, taken) = (Arc::clone(&hop.well), Arc::clone(&hop.taken));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (well, taken) = (Arc::clone(&well), Arc::clone(&taken));
                thread::spawn(move || {
                    let trouble = || (!well.load(Ordering::Relaxed)).then_some(trouble);
                    // However it ends, the client will say.
                    let _ = serve(stream, trouble, &taken);
                });
            }
        });
        hop
    }

    /// How often this came in.
    fn taken(&self, subject: &str) -> u32 {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|(content, _)| content.contains(subject)).map(|(_, count)| count).sum()
    }
}

#[expect(clippy::disallowed_types, reason = "a next hop of the server under test")]
fn serve(
    stream: TcpStream,
    trouble: impl Fn() -> Option<Trouble>,
    taken: &Mutex<HashMap<String, u32>>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    // Reads until the client has had enough, and says nothing.
    let hang = |stream: &mut BufReader<TcpStream>| std::io::copy(stream, &mut std::io::sink()).map(drop);
    let mut line = "connect".to_owned();
    loop {
        let trouble = trouble();
        let word = line.split([' ', ':']).next().unwrap_or_default().trim_end().to_owned();
        let mut reply = match word.as_str() {
            "connect" => "220 hop.test ESMTP\r\n",
            "EHLO" if trouble == Some(Trouble::HangsAt("STARTTLS")) => {
                "250-hop.test\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
            }
            "EHLO" => "250-hop.test\r\n250 PIPELINING\r\n",
            "STARTTLS" => "220 go on\r\n",
            "DATA" => "354 go on\r\n",
            "QUIT" => "221 bye\r\n",
            _ => "250 ok\r\n",
        };
        match trouble {
            // To hang in the handshake is to agree to it first.
            Some(Trouble::HangsAt("STARTTLS")) if word == "STARTTLS" => {
                stream.get_mut().write_all(reply.as_bytes())?;
                return hang(&mut stream);
            }
            Some(Trouble::HangsAt(at)) if at == word => return hang(&mut stream),
            Some(Trouble::ClosesAt(at)) if at == word => return Ok(()),
            Some(Trouble::Says(at, what)) if at == word => reply = what,
            _ => {}
        }
        stream.get_mut().write_all(reply.as_bytes())?;
        if word == "QUIT" {
            return Ok(());
        }
        if word == "DATA" && reply.starts_with("354") {
            if trouble == Some(Trouble::StopsReading) {
                // Keeps the connection open without reading from it.
                return stream.get_mut().peek(&mut [0]).map(|_| thread::park());
            }
            let mut content = Vec::new();
            while !content.ends_with(b"\r\n.\r\n") {
                if stream.read_until(b'\n', &mut content)? == 0 {
                    return Ok(());
                }
            }
            match trouble {
                Some(Trouble::HangsAt(".")) => return hang(&mut stream),
                Some(Trouble::ClosesAt(".")) => return Ok(()),
                _ => {}
            }
            let content = String::from_utf8_lossy(&content).into_owned();
            *taken.lock().unwrap().entry(content).or_default() += 1;
            match trouble {
                Some(Trouble::KeepsAndCloses) => return Ok(()),
                Some(Trouble::Says(".", what)) => stream.get_mut().write_all(what.as_bytes())?,
                _ => stream.get_mut().write_all(b"250 taken\r\n")?,
            }
            if trouble == Some(Trouble::ClosesAfterEach) {
                return Ok(());
            }
        }
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
    }
}

/// Each domain has a next hop with a trouble of its own.
fn routes(hops: &[(String, Hop)]) -> String {
    let mut text = HASTE.to_owned();
    for (domain, hop) in hops {
        let address = hop.address;
        write!(
            text,
            "[[route]]\nname = \"{domain}\"\ndomains = [\"{domain}\"]\nvia = \"hop\"\nhosts = [\"{address}\"]\n"
        )
        .unwrap();
    }
    text
}

/// The first outcome for a recipient in this domain.
fn outcome(server: &Server, domain: &str) -> Value {
    let of_domain = |event: &Value| event["to"].as_str().is_some_and(|to| to.ends_with(domain));
    until(domain, || server.events("outcome").into_iter().find(of_domain))
}

#[test]
fn next_hops_in_trouble() {
    // The trouble, and the status and words of the outcome.
    let troubles = [
        (Trouble::HangsAt("connect"), "4.4.2", "greeting"),
        (Trouble::HangsAt("EHLO"), "4.4.2", "EHLO"),
        (Trouble::HangsAt("STARTTLS"), "", ""),
        (Trouble::HangsAt("MAIL"), "4.4.2", "MAIL"),
        (Trouble::HangsAt("RCPT"), "4.4.2", "RCPT"),
        (Trouble::HangsAt("DATA"), "4.4.2", "DATA"),
        (Trouble::StopsReading, "4.4.2", ""),
        (Trouble::HangsAt("."), "4.4.2", ""),
        (Trouble::ClosesAt("connect"), "4.4.2", ""),
        (Trouble::ClosesAt("EHLO"), "4.4.2", ""),
        (Trouble::ClosesAt("MAIL"), "4.4.2", ""),
        (Trouble::ClosesAt("RCPT"), "4.4.2", ""),
        (Trouble::ClosesAt("DATA"), "4.4.2", ""),
        (Trouble::ClosesAt("."), "4.4.2", ""),
        (Trouble::KeepsAndCloses, "4.4.2", ""),
        (Trouble::Says("connect", "421 4.3.2 not now\r\n"), "4.3.2", "not now"),
        (Trouble::Says("connect", "SSH-2.0-OpenSSH_9.9\r\n"), "4.", ""),
        (Trouble::Says("EHLO", "\0\0\0\0\r\n"), "4.", ""),
        (Trouble::Says("MAIL", "451 4.7.1 greylisted\r\n"), "4.7.1", "greylisted"),
        (Trouble::Says("RCPT", "452 4.2.2 full\r\n"), "4.2.2", "full"),
        (Trouble::Says("DATA", "250 what?\r\n"), "4.", ""),
        (Trouble::Says(".", "299\r\n"), "", ""),
        (Trouble::Says(".", "451 4.3.0 later\r\n"), "4.3.0", "later"),
    ];
    let hops: Vec<_> = troubles
        .iter()
        .enumerate()
        .map(|(number, (trouble, ..))| (format!("t{number}.test"), Hop::start(*trouble)))
        .collect();
    let mut server = Server::start(&routes(&hops));
    let mut client = server.client();
    // More than the kernel holds for somebody who does not read.
    let content = format!("Subject: trouble\r\n\r\n{}", "0123456789abcdef0123456789abcd\r\n".repeat(400_000));
    for (number, (domain, _)) in hops.iter().enumerate() {
        let content = if troubles[number].0 == Trouble::StopsReading {
            &content
        } else {
            "Subject: trouble\r\n\r\nx\r\n"
        };
        client.send("ann@example.org", &[&format!("bob@{domain}")], content);
    }
    for ((domain, _), (trouble, status, words)) in hops.iter().zip(&troubles) {
        let outcome = outcome(&server, domain);
        let (result, found) =
            (outcome["result"].as_str().unwrap(), outcome["status"].as_str().unwrap_or_default());
        // In spite of a failed handshake mail goes out in clear (RFC 7435 §3); any 2yz takes the mail (RFC 5321 §4.2).
        let fine = matches!(trouble, Trouble::HangsAt("STARTTLS") | Trouble::Says(".", "299\r\n"));
        assert_eq!(result, if fine { "delivered" } else { "deferred" }, "{trouble:?}: {outcome}");
        assert!(fine || found.starts_with(status), "{trouble:?}: {outcome}");
        assert!(
            fine || outcome["reply"].as_str().unwrap_or_default().contains(words),
            "{trouble:?}: {outcome}"
        );
    }
    assert!(server.events("returned").is_empty(), "{:?}", server.events("returned"));
    // An operator sees why each waits.
    let listed = server.queue_json(&["list", "--limit", "0"]);
    assert_eq!(listed.len(), troubles.len() - 2);
    // The troubles end, and all of it arrives: what was kept without a 250 a second time.
    for (_, hop) in &hops {
        hop.well.store(true, Ordering::Relaxed);
    }
    until("the queue is empty", || server.queue_json(&["list", "--limit", "0"]).is_empty().then_some(()));
    for ((_, hop), (trouble, ..)) in hops.iter().zip(&troubles) {
        let taken = hop.taken("Subject: trouble");
        let twice = matches!(trouble, Trouble::KeepsAndCloses | Trouble::Says(".", "451 4.3.0 later\r\n"));
        assert!(if twice { taken >= 2 } else { taken == 1 }, "{trouble:?}: {taken} times");
    }
    unharmed(&server);
    assert!(server.stop().0.success());
}

#[test]
fn a_next_hop_that_closes_after_each_message() {
    let hops = [("closes.test".to_owned(), Hop::start(Trouble::ClosesAfterEach))];
    let server = Server::start(&routes(&hops));
    let mut client = server.client();
    for number in 0..40 {
        client.send("ann@example.org", &["bob@closes.test"], &format!("Subject: n{number}.\r\n\r\nx\r\n"));
    }
    until("the queue is empty", || server.queue_json(&["list"]).is_empty().then_some(()));
    for number in 0..40 {
        assert_eq!(hops[0].1.taken(&format!("Subject: n{number}.")), 1, "{number}");
    }
    unharmed(&server);
}

/// Nobody answers, or nobody is there to ask: mail waits, whatever the domain.
#[test]
fn dns_out_of_reach() {
    // It hears the questions and is silent.
    let silent = UdpSocket::bind(free_address()).unwrap();
    let nobody = free_address();
    let sink = Sink::start();
    for dns in [silent.local_addr().unwrap(), nobody] {
        let mx = format!(
            "{HASTE}[dns]\nservers = [\"{dns}\"]\ntimeout = \"200ms\"\nattempts = 2\nfailure-ttl = \"0s\"\n\
             [[route]]\nname = \"all\"\ndomains = [\"*\"]\n"
        );
        let mut server = Server::start(&format!("{mx}via = \"mx\"\n"));
        server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nfor bob\r\n");
        for attempt in 1..=3 {
            let outcome = server.event("outcome", |_| true);
            // Each attempt was up to five seconds late: the scheduler was not told that something is due earlier.
            assert!(outcome["delay"].as_f64().unwrap() < 2.0 * f64::from(attempt), "{outcome}");
            assert_eq!(
                (&outcome["result"], &outcome["status"]),
                (&"deferred".into(), &"4.4.3".into()),
                "{outcome}"
            );
        }
        assert!(server.events("returned").is_empty());
        let listed = server.queue_json(&["list"]);
        assert_eq!(listed.len(), 1);
        assert!(server.stop().0.success());
        // When there is a way, it goes.
        let address = sink.address();
        server.configure(&format!("{mx}via = \"hop\"\nhosts = [\"{address}\"]\n"));
        server.resume();
        assert!(sink.mail().content.ends_with("\r\n\r\nfor bob\r\n"));
    }
}

#[test]
fn a_next_hop_that_is_not_there() {
    let nobody = free_address();
    let route = |address: SocketAddr| {
        format!("{HASTE}[[route]]\nname = \"r\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"{address}\"]\n")
    };
    let server = Server::start(&route(nobody));
    server.client().send(
        "ann@example.org",
        &["bob@example.net", "cat@example.net"],
        "Subject: x\r\n\r\nx\r\n",
    );
    let outcome = server.event("outcome", |_| true);
    assert_eq!((&outcome["result"], &outcome["status"]), (&"deferred".into(), &"4.4.1".into()), "{outcome}");
    assert!(outcome["reply"].as_str().unwrap().contains("refused"), "{outcome}");
    // It comes back.
    let sink = Sink::start_at(nobody);
    assert_eq!(sink.mail().rcpt.len(), 2);
}
