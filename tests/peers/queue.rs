//! `ringpost queue`, through the running server, and what the metrics say meanwhile.

use end_to_end::{Server, Sink};

use crate::drained;

/// Nobody's mail here, a quota to count by, and a list of the DNS.
const TENANT: &str = "[[tenant]]\nname = \"shop\"\nnetworks = [\"192.0.2.0/24\"]\nhourly-max = 100\n\
                      [[dns-list]]\nname = \"list\"\nzone = \"list.test\"\n";

/// A server with messages to these recipients, all deferred; and their queue ids.
fn deferred(sink: &Sink, recipients: &[&str]) -> (Server, Vec<String>) {
    sink.refuse_recipients("450 4.2.1 mailbox busy");
    let server = Server::start(&format!("{TENANT}{}", sink.route()));
    let mut client = server.client();
    let mut ids = Vec::new();
    for recipient in recipients {
        let reply = client.send("ann@example.org", &[recipient], "Subject: wait\r\n\r\n");
        let id = reply.lines[0].rsplit(' ').next().unwrap().to_owned();
        server.event("outcome", |event| event["id"] == *id && event["result"] == "deferred");
        ids.push(id);
    }
    (server, ids)
}

#[test]
fn deferred_and_delivered_on_retry() {
    let sink = Sink::start();
    let (server, ids) = deferred(&sink, &["bob@example.net"]);
    let entry = server.queue_json(&["list"]).remove(0);
    assert_eq!(
        (&entry["id"], &entry["sender"]),
        (&ids[0].as_str().into(), &"ann@example.org".into()),
        "{entry}"
    );
    let recipient = &entry["recipients"][0];
    assert_eq!((&recipient["address"], &recipient["state"]), (&"bob@example.net".into(), &"deferred".into()));
    assert_eq!((&recipient["attempts"], &recipient["status"]), (&1.into(), &"4.2.1".into()), "{entry}");
    assert!(recipient["reply"].as_str().unwrap().contains("450 4.2.1 mailbox busy"), "{entry}");
    assert_eq!(server.metric("ringpost_delivery_outcomes_total", &["outcome=\"deferred\""]), 1.0);
    // As people see it.
    let text = server.queue(&["show", &ids[0]]).good().stdout;
    for word in [&ids[0], "ann@example.org", "bob@example.net", "mailbox busy"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    // Still refused: the second attempt, long before its time.
    assert_eq!(server.queue_json(&["retry", &ids[0]])[0]["changed"], 1);
    server.event("outcome", |event| event["attempt"] == 2 && event["result"] == "deferred");
    sink.accept();
    server.queue(&["retry", "--recipient", "example.net"]).good();
    let outcome = server.event("outcome", |event| event["result"] == "delivered");
    assert_eq!((&outcome["id"], &outcome["attempt"]), (&ids[0].as_str().into(), &3.into()), "{outcome}");
    assert!(sink.mail().content.contains("Subject: wait"));
    drained(&server);
    let gone = server.queue(&["show", &ids[0]]);
    assert!(!gone.status.success() && gone.stderr.contains(&ids[0]), "{gone}");
    assert_eq!(server.queue(&["list"]).good().stdout, "nothing in the queue matches\n");
}

#[test]
fn hold_release_remove() {
    let sink = Sink::start();
    let (server, ids) = deferred(&sink, &["bob@example.net", "cid@example.com", "dan@sub.example.com"]);
    sink.accept();
    let states = || {
        let summary = server.queue_json(&["summary"]).remove(0);
        let count = |state: &str| summary["recipients"][state].as_u64().unwrap();
        (count("ready") + count("running"), count("deferred"), count("held"))
    };
    assert_eq!(states(), (0, 3, 0));
    assert_eq!(server.queue_json(&["hold", "--recipient", ".example.com"])[0]["changed"], 1);
    assert_eq!(states(), (0, 2, 1));
    server.queue(&["hold", &ids[1]]).good();
    assert_eq!(states(), (0, 1, 2));
    let held = server.queue_json(&["list", "--state", "held"]);
    assert_eq!(held.len(), 2, "{held:?}");
    // What is held is not tried, though all is retried.
    assert_eq!(server.queue_json(&["retry", "--all"])[0]["changed"], 1);
    assert!(sink.mail().rcpt[0].starts_with("<bob@example.net>"));
    let summary = server.queue(&["summary"]).good().stdout;
    assert!(summary.contains("messages    2") && summary.contains("2 held"), "{summary}");
    // Released: tried at once.
    server.queue(&["release", "--recipient", "dan@sub.example.com"]).good();
    assert!(sink.mail().rcpt[0].starts_with("<dan@sub.example.com>"));
    // Removing takes a second word, unless it is by id. The sender is not told.
    let unsure = server.queue(&["remove", "--sender", "ann@example.org"]);
    assert!(!unsure.status.success() && unsure.stderr.contains("--yes"), "{unsure}");
    assert_eq!(server.queue_json(&["remove", &ids[1]])[0]["changed"], 1);
    drained(&server);
    assert_eq!(sink.waiting(), 0);
    for action in ["hold", "hold", "retry", "release", "remove"] {
        assert_eq!(server.event("operated", |_| true)["action"], action);
    }
}

#[test]
fn what_is_held_stays_so_over_a_restart() {
    let sink = Sink::start();
    let (mut server, ids) = deferred(&sink, &["bob@example.net", "cid@example.net"]);
    sink.accept();
    server.queue(&["hold", &ids[0]]).good();
    let (status, _) = server.stop();
    assert!(status.success(), "{status}");
    server.resume();
    let entry = server.queue_json(&["show", &ids[0]]).remove(0);
    assert_eq!(entry["recipients"][0]["state"], "held", "{entry}");
    assert_eq!(entry["recipients"][0]["attempts"], 1, "{entry}");
    let entry = server.queue_json(&["show", &ids[1]]).remove(0);
    assert_eq!(entry["recipients"][0]["state"], "deferred", "{entry}");
    assert!(entry["recipients"][0]["reply"].as_str().unwrap().contains("mailbox busy"), "{entry}");
    server.queue(&["release", &ids[0]]).good();
    assert!(sink.mail().rcpt[0].starts_with("<bob@example.net>"));
    server.queue(&["retry", &ids[1]]).good();
    assert!(sink.mail().rcpt[0].starts_with("<cid@example.net>"));
    drained(&server);
}

#[test]
fn routes_that_hold_and_discard() {
    let sink = Sink::start();
    let routes = "[[route]]\nname = \"later\"\ndomains = [\"later.test\"]\nvia = \"hold\"\n\
                  [[route]]\nname = \"never\"\ndomains = [\"*.never.test\"]\nvia = \"discard\"\n";
    let server = Server::start(&format!("{routes}{}", sink.route()));
    let mut client = server.client();
    let recipients = ["a@later.test", "b@x.never.test", "c@example.net"];
    client.send("ann@example.org", &recipients, "Subject: three ways\r\n\r\n");
    let mail = sink.mail();
    assert_eq!(mail.rcpt.len(), 1);
    assert!(mail.rcpt[0].starts_with("<c@example.net>"), "{mail:?}");
    server.event("outcome", |event| event["to"] == "b@x.never.test" && event["result"] == "delivered");
    let entry = server.queue_json(&["list", "--state", "held"]).remove(0);
    assert_eq!(entry["recipients"][0]["address"], "a@later.test", "{entry}");
    // Without a server there is nobody to ask, and that is what is said.
    let mut server = server;
    server.stop();
    let asked = server.queue(&["list"]);
    assert!(!asked.status.success() && asked.stderr.contains("control.sock"), "{asked}");
}

#[test]
fn metrics_and_health() {
    let sink = Sink::start();
    let (server, _) = deferred(&sink, &["bob@example.net"]);
    let mut client = server.client();
    assert_eq!(client.ask("XYZZY").code, 500);
    let text = server.get("/metrics");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    // Every metric that docs/metrics.md tells of is there, and no other.
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let told = std::fs::read_to_string(path).unwrap();
    let names = told.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let names: Vec<_> =
        names.filter(|name| name.starts_with("ringpost_") || name.starts_with("process_")).collect();
    assert!(names.len() > 40, "{names:?}");
    // These are there once something of theirs is configured: the tests of that look at them.
    let of_configured = |name: &str| {
        let series = [
            "ringpost_deliverability",
            "ringpost_dkim_key_published",
            "ringpost_dkim_keys",
            "ringpost_dkim_records_by_hand",
            "ringpost_dkim_records_overdue",
            "ringpost_dkim_updates_total",
        ];
        series.contains(&name)
    };
    for name in names.iter().filter(|name| !of_configured(name)) {
        assert!(
            text.contains(&format!("# TYPE {name} ")),
            "{name} is in docs/metrics.md and not in /metrics"
        );
    }
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(names.contains(&name), "{name} is in /metrics and not in docs/metrics.md");
    }
    for (name, labels, at_least) in [
        ("ringpost_connections_total", "side=\"in\"", 2.0),
        ("ringpost_connections_total", "side=\"out\"", 1.0),
        ("ringpost_connections_open", "side=\"in\"", 1.0),
        ("ringpost_commands_total", "verb=\"", 5.0),
        ("ringpost_refusals_total", "reason=\"unknown_command\"", 1.0),
        ("ringpost_messages_total", "side=\"in\"", 1.0),
        ("ringpost_content_bytes_total", "side=\"in\"", 10.0),
        ("ringpost_journal_health", "state=\"healthy\"", 2.0),
        ("ringpost_delivery_outcomes_total", "outcome=\"deferred\"", 1.0),
        ("process_open_fds", "", 10.0),
    ] {
        let value = end_to_end::metric(&text, name, &[labels]);
        assert!(value >= at_least, "{name}{{{labels}}} is {value}");
    }
    assert!(server.get("/healthz").starts_with("HTTP/1.1 200 "));
    assert!(server.get("/readyz").starts_with("HTTP/1.1 200 "));
    // Nobody sees the queue over HTTP without a token.
    assert!(!server.get("/api/v1/queue").starts_with("HTTP/1.1 200 "));
}
