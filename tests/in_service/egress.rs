//! Mail that leaves from sources: which one has a message, what is kept apart for each, and what becomes of one that is out of use.

#[path = "egress/proxies.rs"]
mod proxies;
#[path = "egress/replies.rs"]
mod replies;
#[path = "egress/warm_up.rs"]
mod warm_up;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process,
};

use end_to_end::{Server, Sink, free_address, until};

/// An address of loopback that no other test has: the number of those that this one has.
pub(crate) fn address(number: u8) -> IpAddr {
    let [_, _, middle, low] = process::id().to_be_bytes();
    Ipv4Addr::new(127, 200 + number, middle, low).into()
}

/// An address for examples, which no host has.
const NOWHERE: &str = "192.0.2.77";

pub(crate) fn source(name: &str, address: impl ToString, more: &str) -> String {
    let address = address.to_string();
    format!("[[source]]\nname = \"{name}\"\naddress = [\"{address}\"]\nehlo-name = \"{name}.test\"\n{more}")
}

pub(crate) fn pool(name: &str, sources: &str) -> String {
    format!("[[pool]]\nname = \"{name}\"\nsources = [{sources}]\n")
}

/// Sends so many messages to a domain, and says how many came from which address.
fn send(server: &Server, sink: &Sink, count: usize) -> BTreeMap<IpAddr, usize> {
    for _ in 0..count {
        server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    }
    let mut came = BTreeMap::new();
    for _ in 0..count {
        *came.entry(sink.mail().client.ip()).or_default() += 1;
    }
    came
}

#[test]
fn a_pool_divides_mail_by_weights() {
    let sink = Sink::start();
    let (one, two) = (address(1), address(2));
    let server = Server::start(&format!(
        "{}pool = \"p\"\n{}{}{}",
        sink.route(),
        source("a", one, ""),
        source("b", two, ""),
        pool("p", "\"a\", \"b:3\"")
    ));
    let mut from: BTreeMap<IpAddr, usize> = BTreeMap::new();
    const COUNT: usize = 200;
    for _ in 0..COUNT {
        server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
        let mail = sink.mail();
        let name = if mail.client.ip() == one { "a.test" } else { "b.test" };
        assert_eq!(mail.name, name, "{mail:?}");
        *from.entry(mail.client.ip()).or_default() += 1;
    }
    // A quarter of them, as the queue ids have it: further from it than this is one in a million.
    assert_eq!(from.len(), 2, "{from:?}");
    assert!((20..=85).contains(&from[&one]) && from[&one] + from[&two] == COUNT, "{from:?}");
    let outcome = server.event("outcome", |event| event["source"] == "b");
    assert_eq!((&outcome["result"], &outcome["site"]), (&"delivered".into(), &serde_json::Value::Null));
    let hop = format!("site=\"a@hop:{}\"", sink.address());
    until("the metrics have both", || {
        let sent = server.metric("ringpost_delivery_outcomes_total", &[&hop, "outcome=\"delivered\""]);
        (sent as usize == from[&one]).then_some(())
    });
}

#[test]
fn tenant_site_and_route_choose() {
    let sink = Sink::start();
    let all: Vec<_> = (1..=3).map(address).collect();
    let server = Server::start(&format!(
        "{}pool = \"of-route\"\n[[tenant]]\nname = \"t\"\nnetworks = [\"127.0.0.0/8\"]\n{}{}{}{}{}",
        sink.route(),
        source("a", all[0], ""),
        source("b", all[1], ""),
        source("c", all[2], ""),
        pool("of-route", "\"a\""),
        pool("of-tenant", "\"b\"")
    ));
    assert_eq!(send(&server, &sink, 3), BTreeMap::from([(all[0], 3)]));
    // A reload makes another choice, for mail that waits as well.
    sink.refuse_recipients("450 4.2.1 later");
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: waits\r\n\r\n");
    server.event("outcome", |event| event["result"] == "deferred" && event["source"] == "a");
    server.configure(&format!(
        "{}pool = \"of-route\"\n[[tenant]]\nname = \"t\"\nnetworks = [\"127.0.0.0/8\"]\npool = \"of-tenant\"\n{}{}{}{}",
        sink.route(),
        source("a", all[0], ""),
        source("b", all[1], ""),
        pool("of-route", "\"a\""),
        pool("of-tenant", "\"b\"")
    ));
    assert_eq!(server.reload()["event"], "reloaded");
    sink.accept();
    server.queue(&["retry", "--all"]).good();
    let mail = sink.mail();
    assert_eq!((mail.client.ip(), mail.content.contains("waits")), (all[1], true), "{mail:?}");
    assert_eq!(send(&server, &sink, 3), BTreeMap::from([(all[1], 3)]));
}

#[test]
fn mail_from_before_there_were_pools_leaves_from_them() {
    let sink = Sink::start();
    sink.refuse_recipients("450 4.2.1 later");
    let mut server = Server::start(&sink.route());
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: waits\r\n\r\n");
    server.event("outcome", |event| event["result"] == "deferred" && event["source"].is_null());
    let with_pool =
        format!("{}pool = \"p\"\n{}{}", sink.route(), source("a", address(1), ""), pool("p", "\"a\""));
    server.configure(&with_pool);
    assert_eq!(server.reload()["event"], "reloaded");
    // It waits as it did before.
    let entry = server.queue_json(&["list"]).remove(0);
    assert_eq!(entry["recipients"][0]["state"], "deferred", "{entry}");
    assert_eq!(entry["recipients"][0]["attempts"], 1, "{entry}");
    server.queue(&["retry", "--all"]).good();
    server.event("outcome", |event| event["attempt"] == 2 && event["source"] == "a");
    // And so it does after a restart, until it has left.
    assert!(server.stop().0.success());
    server.resume();
    sink.accept();
    server.queue(&["retry", "--all"]).good();
    assert_eq!(sink.mail().client.ip(), address(1));
    // A tenant alone may have one, and what it has in the queue as well.
    server.configure(&sink.route());
    assert_eq!(server.reload()["event"], "reloaded");
    sink.refuse_recipients("450 4.2.1 later");
    let tenant = "[[tenant]]\nname = \"t\"\nnetworks = [\"127.0.0.0/8\"]\n";
    server.configure(&format!("{}{tenant}", sink.route()));
    assert_eq!(server.reload()["event"], "reloaded");
    server.client().send("ann@example.org", &["cid@example.net"], "Subject: waits\r\n\r\n");
    server.event("outcome", |event| event["to"] == "cid@example.net" && event["source"].is_null());
    let of_tenant = format!(
        "{}{tenant}pool = \"p\"\n{}{}",
        sink.route(),
        source("a", address(1), ""),
        pool("p", "\"a\"")
    );
    server.configure(&of_tenant);
    assert_eq!(server.reload()["event"], "reloaded");
    server.queue(&["retry", "--all"]).good();
    server.event("outcome", |event| event["to"] == "cid@example.net" && event["source"] == "a");
    sink.accept();
    server.queue(&["retry", "--all"]).good();
    assert_eq!(sink.mail().client.ip(), address(1));
    // Without pools, nobody asks from where.
    server.configure(&sink.route());
    assert_eq!(server.reload()["event"], "reloaded");
    assert!(!send(&server, &sink, 1).contains_key(&address(1)));
}

#[test]
fn a_source_without_its_address_is_passed_over() {
    let sink = Sink::start();
    let both = |first: String| {
        format!(
            "{}pool = \"p\"\n[egress]\nprobe-interval = \"1s\"\n{first}{}{}",
            sink.route(),
            source("b", address(2), ""),
            pool("p", "\"a:9\", \"b\"")
        )
    };
    let server = Server::start(&both(source("a", NOWHERE, "")));
    let out = server.event("source_out", |event| event["source"] == "a");
    assert!(out["reason"].as_str().unwrap().contains(NOWHERE), "{out}");
    assert_eq!(send(&server, &sink, 20), BTreeMap::from([(address(2), 20)]));
    until("it is counted", || (server.metric("ringpost_sources_out", &[]) == 1.0).then_some(()));
    // With an address that is there, it has its part again.
    server.configure(&both(source("a", address(1), "")));
    assert_eq!(server.reload()["event"], "reloaded");
    server.event("source_used", |event| event["source"] == "a");
    let came = send(&server, &sink, 40);
    assert!(came.get(&address(1)).is_some_and(|count| *count > 20), "{came:?}");
    assert_eq!(server.metric("ringpost_delivery_outcomes_total", &["outcome=\"deferred\""]), 0.0);
}

#[test]
fn a_pool_without_sources_keeps_its_mail() {
    let sink = Sink::start();
    let only = |address: &str| {
        format!(
            "{}pool = \"p\"\n[egress]\nprobe-interval = \"1s\"\n{}{}",
            sink.route(),
            source("a", address, ""),
            pool("p", "\"a\"")
        )
    };
    let server = Server::start(&only(NOWHERE));
    server.event("source_out", |event| event["source"] == "a");
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: waits\r\n\r\n");
    server.event("pool_dry", |event| event["pool"] == "p");
    let id = server.queue_json(&["list"]).remove(0)["id"].as_str().unwrap().to_owned();
    until("it is told why", || {
        let told = server.why(&id);
        told.iter().any(|(_, cause, set_by)| cause == "source-out" && set_by == "source.a").then_some(())
    });
    // It was not tried, from nowhere else either.
    let entry = server.queue_json(&["show", &id]).remove(0);
    assert_eq!((&entry["recipients"][0]["attempts"], sink.waiting()), (&0.into(), 0), "{entry}");
    server.configure(&only(&address(1).to_string()));
    assert_eq!(server.reload()["event"], "reloaded");
    assert_eq!(sink.mail().client.ip(), address(1));
    server.event("pool_served", |event| event["pool"] == "p");
}

#[test]
fn a_source_has_limits_of_its_own() {
    let (one, two) = (Sink::start(), Sink::start());
    let hop = |name: &str, domain: &str, sink: &Sink| {
        let address = sink.address();
        format!(
            "[[route]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\nvia = \"hop\"\nhosts = [\"{address}\"]\npool = \"p\"\n\
             idle = \"30m\"\n"
        )
    };
    let server = Server::start(&format!(
        "[cores]\ncount = 1\n{}{}{}{}",
        hop("one", "one.test", &one),
        hop("two", "two.test", &two),
        source("a", address(1), "connections-max = 1\n"),
        pool("p", "\"a\"")
    ));
    let send = |to: &str| server.client().send("ann@example.org", &[to], "Subject: x\r\n\r\nx\r\n");
    // A connection that nobody else wants stays; the only one of the source goes where there is mail.
    for _ in 0..3 {
        send("bob@one.test");
        assert_eq!(one.mail().client.ip(), address(1));
        send("bob@two.test");
        assert_eq!(two.mail().client.ip(), address(1));
        assert!(one.open() + two.open() <= 1, "{} and {}", one.open(), two.open());
    }
    let limited = |rate: &str| {
        format!(
            "[cores]\ncount = 1\n{}{}{}{}",
            hop("one", "one.test", &one),
            hop("two", "two.test", &two),
            source("a", address(1), rate),
            pool("p", "\"a\"")
        )
    };
    server.configure(&limited("message-rate = \"1/h\"\n"));
    assert_eq!(server.reload()["event"], "reloaded");
    send("bob@one.test");
    one.mail();
    send("bob@two.test");
    until("it is told why", || {
        let told = server.why(&format!("hop:{}", two.address()));
        told.iter()
            .any(|(_, cause, by)| cause == "source-rate" && by == "source.a.message-rate")
            .then_some(())
    });
    assert_eq!(two.waiting(), 0);
    server.configure(&limited(""));
    assert_eq!(server.reload()["event"], "reloaded");
    two.mail();
}

#[test]
fn a_site_of_one_family_is_reached_from_a_source_that_has_it() {
    // A port of this test's own, on the other loopback.
    let port = free_address().port();
    let sink = Sink::start_at(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port));
    let route = format!(
        "[[route]]\nname = \"v6\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"[::1]:{port}\"]\ntls = \"none\"\npool = \"p\"\n"
    );
    let one = source("a", address(1), "");
    let server = Server::start(&format!(
        "{route}{one}{}{}",
        source("b", Ipv6Addr::LOCALHOST, ""),
        pool("p", "\"a:3\", \"b\"")
    ));
    // Whatever the slot, and without an attempt that would count.
    const COUNT: usize = 20;
    for _ in 0..COUNT {
        server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    }
    for _ in 0..COUNT {
        let mail = sink.mail();
        assert_eq!(mail.name, "b.test", "{mail:?}");
        let outcome = server.event("outcome", |_| true);
        assert_eq!((&outcome["result"], &outcome["source"]), (&"delivered".into(), &"b".into()), "{outcome}");
        assert_eq!(outcome["attempt"], 1, "{outcome}");
    }
    // Where no source has it, mail is deferred and says why.
    server.configure(&format!("{route}{one}{}", pool("p", "\"a\"")));
    assert_eq!(server.reload()["event"], "reloaded");
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    let outcome = server.event("outcome", |event| event["result"] == "deferred");
    assert!(outcome["reply"].as_str().unwrap().contains("no address of its family"), "{outcome}");
}
