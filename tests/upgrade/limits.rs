//! What the host may do towards a site, it may do as well while two servers are there.

use end_to_end::{LoadSink, Place, Server, Signal, connections, until};

use crate::{MANY_JOURNALS, mail, said};

/// Connections that the host may have to the next hop.
const CONNECTIONS_MAX: usize = 4;

#[test]
fn both_servers_have_no_more_connections_than_one() {
    let place = Place::new();
    let mut sink = LoadSink::start(&place, &["--delay", "100ms"]);
    let server =
        Server::start(&format!("{MANY_JOURNALS}{}concurrency-max = {CONNECTIONS_MAX}\n", sink.route()));
    let now = || connections(sink.address());
    // A session on each core of the old one: it goes on sending until they have ended.
    let mut old = [server.client(), server.client()];
    for number in 0..300 {
        mail(&mut old[number % 2], "old");
    }
    until("there are as many as there may be", || (now() == CONNECTIONS_MAX).then_some(()));
    server.program().signal(Signal::USR2);
    let _successor = server.successor(1);
    said(&server, "handing_over", |_| true);
    let mut new = [server.client(), server.client()];
    for number in 0..100 {
        mail(&mut new[number % 2], "new");
    }
    // What is too much ends after its message.
    until("the old one has given back what is too much", || (now() <= CONNECTIONS_MAX).then_some(()));
    for _ in 0..60 {
        server.event("outcome", |event| event["result"] == "delivered");
        let now = now();
        assert!(now <= CONNECTIONS_MAX, "{now} connections of {CONNECTIONS_MAX}");
    }
    // Both have sent meanwhile; the metrics are those of the new one.
    let of_new = server.metric("ringpost_delivery_outcomes_total", &["outcome=\"delivered\""]);
    let of_both = server.events("outcome").len() as f64;
    assert!(of_new >= 1.0 && of_new < of_both, "{of_new} of {of_both}");
    // When the old one has ended, the new one has all.
    drop(old);
    said(&server, "took_over", |_| true);
    until("the new one has as many as there may be", || (now() == CONNECTIONS_MAX).then_some(()));
    drop(server);
    sink.finish();
}
