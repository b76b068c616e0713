//! Few long connections, over several cores.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::net::UnixStream,
    path::Path,
};

use end_to_end::{Client, Server, Sink, metric, until};

const CORES: usize = 4;

/// Connections of clients, by core.
fn open(server: &Server) -> Vec<f64> {
    let text = server.get("/metrics");
    let of =
        |core| metric(&text, "ringpost_connections_open", &[&format!("shard=\"{core}\""), "side=\"in\""]);
    (0..CORES).map(of).collect()
}

fn handed_over(server: &Server) -> [f64; 2] {
    ["out", "in"].map(|direction| {
        server.metric("ringpost_connections_handed_over_total", &[&format!("direction=\"{direction}\"")])
    })
}

/// A connection to a Unix socket that has been greeted.
fn unix(path: &Path) -> BufReader<UnixStream> {
    let mut client = BufReader::new(UnixStream::connect(path).unwrap());
    let mut greeting = String::new();
    client.read_line(&mut greeting).unwrap();
    assert!(greeting.starts_with("220 "), "{greeting}");
    client
}

#[test]
fn few_connections_are_spread_over_all_cores() {
    let sink = Sink::start();
    let mut server = Server::start(&format!("[cores]\ncount = {CORES}\n{}", sink.route()));
    let mut clients: Vec<Client> = (0..2 * CORES).map(|_| server.client()).collect();
    assert_eq!(open(&server), [2.0; CORES]);
    for _ in 0..3 {
        for client in &mut clients {
            client.send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
        }
        for _ in &clients {
            sink.mail();
        }
    }
    for core in 0..CORES {
        let shard = format!("shard=\"{core}\"");
        for (name, each) in [("ringpost_messages_total", 6.0), ("ringpost_connections_total", 2.0)] {
            assert_eq!(server.metric(name, &[&shard, "side=\"in\""]), each, "{name} of core {core}");
        }
    }
    let [given, taken] = handed_over(&server);
    assert_eq!(given, taken);
    // Half of them go, and as many come: where there is room.
    clients.truncate(CORES);
    until("they are gone", || (open(&server).iter().sum::<f64>() == CORES as f64).then_some(()));
    clients.extend((0..CORES).map(|_| server.client()));
    assert_eq!(open(&server), [2.0; CORES]);
    // At a stop each is told, and what it began is ours.
    clients[0].say("MAIL FROM:<ann@example.org>");
    clients[0].expect(250);
    let mut last = clients.remove(0);
    let sending = std::thread::spawn(move || {
        last.say("RCPT TO:<bob@example.net>");
        last.expect(250);
        last.say("DATA");
        last.expect(354);
        last.put(b"Subject: last\r\n\r\nx\r\n.\r\n");
        last.expect(250);
    });
    let (status, lines) = server.stop();
    assert!(status.success(), "{lines:?}");
    sending.join().unwrap();
    for client in &mut clients {
        client.expect(421);
        assert_eq!(client.try_reply(), None);
    }
    server.resume();
    assert!(sink.mail().content.ends_with("Subject: last\r\n\r\nx\r\n"));
}

#[test]
fn whatever_they_have_come_by() {
    let mut server = Server::prepare("");
    let [first, second] = ["first.sock", "second.sock"].map(|name| server.place().join(name));
    let cores = |more: &str| format!("[cores]\ncount = {CORES}\n{more}");
    let listeners = format!(
        "[[listener]]\nname = \"first\"\ntls = \"none\"\naddress = [\"unix:{}\"]\n\
         [[listener]]\nname = \"second\"\nkind = \"lmtp\"\ntls = \"none\"\naddress = [\"unix:{}\"]\n\
         [[listener]]\nname = \"smtp\"\nproxy-networks = [\"127.0.0.1/32\"]\n",
        first.display(),
        second.display(),
    );
    server.configure(&cores(&listeners));
    server.resume();
    let mut unix_clients = Vec::new();
    let mut clients = Vec::new();
    for round in 0..CORES {
        unix_clients.extend([unix(&first), unix(&second)]);
        let mut behind_proxy = Client::connect(server.smtp());
        behind_proxy.put(format!("PROXY TCP4 203.0.113.{round} 192.0.2.1 56324 25\r\n").as_bytes());
        behind_proxy.expect(220);
        clients.extend([behind_proxy, Client::greeted(server.submission())]);
    }
    assert_eq!(open(&server), [4.0; CORES]);
    until("the log has them all", || {
        let connected = server.events("connected");
        let clients = connected.iter().filter_map(|event| event["client"].as_str());
        (clients.filter(|client| client.starts_with("203.0.113.")).count() == CORES).then_some(())
    });
    // Without balance nobody is handed over, from the next reload on.
    let before = handed_over(&server);
    server.configure(&cores(&format!("balance = false\n{listeners}")));
    assert_eq!(server.reload()["event"], "reloaded");
    let more: Vec<_> = (0..2 * CORES).map(|_| Client::greeted(server.submission())).collect();
    assert_eq!(handed_over(&server), before);
    assert_eq!(open(&server).iter().sum::<f64>(), (4 * CORES + more.len()) as f64);
}
