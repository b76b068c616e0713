//! Queued mail when a reload changes the routes: it goes the new way, at once.

use std::sync::mpsc;

use end_to_end::{Server, Sink, built, free_address, run, until};
use serde_json::Value;

/// Nobody is tried again while a test runs, and all are in one queue.
const SLOW: &str =
    "[cores]\ncount = 1\n[queue]\nretry = [\"1h\"]\nretry-max = \"1h\"\ndestination-retry-min = \"10m\"\n";

fn route(name: &str, domain: &str, how: &str) -> String {
    format!("[[route]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\n{how}\ntls = \"none\"\n")
}

fn hop(name: &str, domain: &str, address: impl std::fmt::Display) -> String {
    route(name, domain, &format!("via = \"hop\"\nhosts = [\"{address}\"]"))
}

fn send(server: &Server, recipient: &str) {
    server.client().send("ann@example.org", &[recipient], &format!("Subject: to {recipient}\r\n\r\nx\r\n"));
}

fn reload(server: &Server, routes: &str) -> Value {
    server.configure(&format!("{SLOW}{routes}"));
    let event = server.reload();
    assert_eq!(event["event"], "reloaded", "{event}");
    event
}

/// Waits until so many recipients are in that state.
fn wait_for(server: &Server, state: &str, count: u32) {
    let label = format!("state=\"{state}\"");
    let counted = || server.metric("ringpost_queue_recipients", &[&label]) == f64::from(count);
    until(&format!("{count} {state}"), || counted().then_some(()));
}

fn rerouted(server: &Server) -> u64 {
    server.events("rerouted").iter().map(|event| event["nrcpt"].as_u64().unwrap()).sum()
}

fn subjects(sink: &Sink, count: usize) -> Vec<String> {
    let subject = |content: String| {
        let line = content.lines().find_map(|line| line.strip_prefix("Subject: to "));
        line.unwrap_or_default().to_owned()
    };
    let mut subjects: Vec<_> = (0..count).map(|_| subject(sink.mail().content)).collect();
    subjects.sort();
    subjects
}

#[test]
fn mail_for_a_dead_next_hop_goes_the_new_way() {
    let (nobody, sink) = (free_address(), Sink::start());
    let server = Server::start(&format!("{SLOW}{}", hop("all", "*", nobody)));
    send(&server, "bob@example.net");
    server.event("outcome", |event| event["result"] == "deferred");
    // Its next hop is left alone, so that it waits without having been tried.
    send(&server, "cat@example.org");
    wait_for(&server, "deferred", 1);
    wait_for(&server, "ready", 1);
    // Nothing that concerns routes: nobody is looked at.
    assert_eq!(reload(&server, &hop("all", "*", nobody))["stranded"], Value::Null);
    assert_eq!(server.events("rerouted").len(), 0);
    // Neither do the routes of others.
    reload(&server, &format!("{}{}", hop("all", "*", nobody), hop("one", "other.example", sink.address())));
    assert_eq!(rerouted(&server), 0);

    let event = reload(&server, &hop("all", "*", sink.address()));
    assert_eq!(event["stranded"], Value::Null, "{event}");
    assert_eq!(subjects(&sink, 2), ["bob@example.net", "cat@example.org"]);
    assert_eq!(rerouted(&server), 2);
    assert_eq!(server.metric("ringpost_queue_rerouted_total", &[]), 2.0);
    // How often it was tried is not forgotten.
    let outcome =
        server.event("outcome", |event| event["to"] == "bob@example.net" && event["result"] == "delivered");
    assert_eq!(outcome["attempt"], 2, "{outcome}");
    assert_eq!(server.queue_json(&["list"]), Vec::<Value>::new());
}

#[test]
fn holds_of_a_route_end_with_it_and_those_of_an_operator_do_not() {
    let (nobody, sink) = (free_address(), Sink::start());
    let dead = hop("all", "*", nobody);
    let hold = |domain: &str| route("held", domain, "via = \"hold\"");
    let server = Server::start(&format!("{SLOW}{dead}{}", hold("held.example")));
    for recipient in ["a@held.example", "b@example.net", "c@gone.example"] {
        send(&server, recipient);
    }
    wait_for(&server, "held", 1);
    server.queue(&["hold", "--recipient", "b@example.net"]).good();
    wait_for(&server, "held", 2);
    // Everything is held now, but what is thrown away.
    reload(&server, &format!("{}{}", hold("*"), route("gone", "gone.example", "via = \"discard\"")));
    server.event("outcome", |event| event["destination"] == "discard" && event["result"] == "delivered");
    send(&server, "d@example.net");
    wait_for(&server, "held", 3);
    reload(&server, &hop("all", "*", sink.address()));
    assert_eq!(subjects(&sink, 2), ["a@held.example", "d@example.net"]);
    let [left] = &server.queue_json(&["list"])[..] else { panic!("one is held") };
    assert_eq!(left["recipients"][0]["address"], "b@example.net", "{left}");
    assert_eq!(left["recipients"][0]["state"], "held", "{left}");
    server.queue(&["release", "--all"]).good();
    assert_eq!(subjects(&sink, 1), ["b@example.net"]);
    assert_eq!(sink.waiting(), 0);
}

/// What is told of it stands in its file, where nobody who has it in memory is left.
#[test]
fn mail_that_is_thrown_away_after_a_restart_is_named() {
    let mut server = Server::start(&route("held", "*", "via = \"hold\""));
    send(&server, "a@gone.example");
    wait_for(&server, "held", 1);
    server.stop();
    server.configure(&route("gone", "*", "via = \"discard\""));
    server.resume();
    server.queue(&["release", "--all"]).good();
    let outcome = server.event("outcome", |event| event["destination"] == "discard");
    assert_eq!((&outcome["to"], &outcome["result"]), (&"a@gone.example".into(), &"delivered".into()));
}

#[test]
fn mail_without_a_route_is_named_and_waits_for_one() {
    let (nobody, sink) = (free_address(), Sink::start());
    let server = Server::start(&format!("{SLOW}{}", hop("all", "*", nobody)));
    send(&server, "bob@example.net");
    server.event("outcome", |event| event["result"] == "deferred");
    let event = reload(&server, &hop("all", "example.org", sink.address()));
    assert_eq!(event["stranded"], "mx:example.net (1 recipient)", "{event}");
    let config = server.place().join("ringpost.toml");
    let said = run(&built("ringpost"), &["reload", "--config", config.to_str().unwrap()], "").good().stdout;
    assert_eq!(
        said,
        "reloaded\nqueued mail that no route is for waits for one: mx:example.net (1 recipient)\n"
    );
    // To try it now does not help it.
    server.queue(&["retry", "--all"]).good();
    server.event("outcome", |event| event["status"] == "4.3.5");
    assert_eq!(reload(&server, &hop("all", "*", sink.address()))["stranded"], Value::Null);
    assert_eq!(subjects(&sink, 1), ["bob@example.net"]);
}

#[test]
fn mail_in_a_transaction_ends_there_and_goes_on_the_new_way() {
    let (old, new) = (Sink::start(), Sink::start());
    let (let_go, wait) = mpsc::channel::<()>();
    old.answer(move |command| {
        (command == ".").then(|| {
            let _ = wait.recv();
            "451 4.3.0 not now".to_owned()
        })
    });
    let one = "concurrency-max = 1\n";
    let server = Server::start(&format!("{SLOW}{}{one}", hop("all", "*", old.address())));
    send(&server, "bob@example.net");
    until("it is being sent", || {
        old.commands().iter().any(|line| line == "DATA" || line.starts_with("BDAT")).then_some(())
    });
    // It waits for the only connection.
    send(&server, "cat@example.org");
    wait_for(&server, "running", 2);
    reload(&server, &format!("{}{one}", hop("all", "*", new.address())));
    assert_eq!(subjects(&new, 1), ["cat@example.org"]);
    assert_eq!(new.waiting(), 0);
    let_go.send(()).unwrap();
    assert_eq!(subjects(&new, 1), ["bob@example.net"]);
    until("two went another way", || (rerouted(&server) == 2).then_some(()));
    wait_for(&server, "running", 0);
    assert_eq!((old.waiting(), new.waiting()), (0, 0));
}
