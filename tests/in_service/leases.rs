//! Connections to a next hop, of which two cores have a few together.

use end_to_end::{Server, Sink, until};

/// A connection that nobody wants is kept for longer than a test lasts.
fn hop(sink: &Sink, connections: u32) -> String {
    let hop = "idle = \"30m\"\ntransactions-max = 1000000\n";
    format!("{}{hop}concurrency-max = {connections}\n", sink.route())
}

const HOLD: &str = "[[route]]\nname = \"sink\"\ndomains = [\"*\"]\nvia = \"hold\"\n";
const TWO: &str = "[cores]\ncount = 2\n[queue]\nconnection-turn = \"50ms\"\n";

fn by_shard(server: &Server, name: &str, side: &str) -> [f64; 2] {
    [0, 1].map(|shard| server.metric(name, &[&format!("shard=\"{shard}\""), &format!("side=\"{side}\"")]))
}

/// Sends messages until both cores have taken in at least so many; says how many there are.
fn send(server: &Server, each: f64) -> usize {
    let mut sent = 0;
    while by_shard(server, "ringpost_messages_total", "in").iter().any(|taken| *taken < each) {
        for _ in 0..4 {
            // The kernel chooses the core.
            server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
            sent += 1;
        }
        assert!(sent < 2000, "all go to one core");
    }
    sent
}

fn receive(sink: &Sink, count: usize) {
    for _ in 0..count {
        sink.mail();
    }
}

#[test]
fn two_cores_share_one_connection() {
    let sink = Sink::start();
    let server = Server::start(&format!("{TWO}{}", hop(&sink, 1)));
    // Mail comes now here, now there: who has nothing to send leaves the connection to the other.
    let sent = send(&server, 10.0);
    receive(&sink, sent);
    assert_eq!(sink.open_max(), 1);
    let moved = server.metric("ringpost_connection_yields_total", &[]);
    assert!(moved > 0.0);
    // Both have much to send: they take turns.
    server.configure(&format!("{TWO}{HOLD}"));
    assert_eq!(server.reload()["event"], "reloaded");
    let sent = send(&server, 150.0);
    server.configure(&format!("{TWO}{}", hop(&sink, 1)));
    assert_eq!(server.reload()["event"], "reloaded");
    receive(&sink, sent);
    assert_eq!(sink.open_max(), 1, "more than one connection at once");
    // The sink has a message before its reply is counted.
    until("both have sent theirs", || {
        let outbound = by_shard(&server, "ringpost_messages_total", "out");
        outbound.iter().all(|sent| *sent >= 150.0).then_some(())
    });
    assert!(server.metric("ringpost_connection_waits_total", &[]) > 0.0);
    until("nothing is left", || (server.metric("ringpost_queue_recipients", &[]) == 0.0).then_some(()));
}

#[test]
fn one_core_may_have_all_connections() {
    let sink = Sink::start();
    let server = Server::start(&format!("{TWO}{HOLD}"));
    // All of one client are with one core.
    let mut client = server.client();
    for _ in 0..40 {
        client.send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    }
    server.configure(&format!("{TWO}{}", hop(&sink, 4)));
    assert_eq!(server.reload()["event"], "reloaded");
    receive(&sink, 40);
    until("as many connections as may be", || (sink.open() == 4).then_some(()));
    assert_eq!(sink.open_max(), 4);
    // Those above a lower limit are closed, though nobody else wants them.
    server.configure(&format!("{TWO}{}", hop(&sink, 1)));
    assert_eq!(server.reload()["event"], "reloaded");
    until("one connection", || (sink.open() == 1).then_some(()));
    let sent = send(&server, 5.0);
    receive(&sink, sent);
    assert_eq!((sink.open(), sink.open_max()), (1, 4));
}
