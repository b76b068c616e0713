//! When mail is tried again that was refused in one way or another, and when it is given up.

use std::path::Path;

use end_to_end::{Server, Sink, run};

/// Nobody is tried again while a test runs, unless a rule says so.
const SLOW: &str = "[queue]\nretry = [\"1h\"]\nretry-max = \"1h\"\njitter = 0\n";

fn send(server: &Server, recipient: &str) {
    server.client().send("ann@example.org", &[recipient], "Subject: x\r\n\r\n");
}

/// The seconds until a deferred recipient is tried again, about.
fn waits(event: &serde_json::Value) -> f64 {
    event["next"].as_f64().unwrap_or_else(|| panic!("{event}"))
}

#[test]
fn who_greylists_gets_a_short_second_try() {
    let sink = Sink::start();
    sink.refuse_recipients("450 4.7.1 Greylisted, come back");
    let rule = "[[retry]]\nname = \"quick\"\ncategories = [\"greylisted\"]\nfirst = \"1s\"\n";
    let server = Server::start(&format!("{SLOW}{rule}{}", sink.route()));
    send(&server, "bob@example.net");
    let first = server.event("outcome", |event| event["result"] == "deferred");
    assert_eq!((&first["category"], &first["retry"]), (&"greylisted".into(), &"quick".into()), "{first}");
    // The second try comes by itself, and only that one is quick.
    let second = server.event("outcome", |event| event["attempt"] == 2);
    assert_eq!(
        (&second["result"], &second["retry"]),
        (&"deferred".into(), &serde_json::Value::Null),
        "{second}"
    );
    assert!(waits(&first) < 60.0 && waits(&second) > 3000.0, "{first} {second}");
    assert_eq!(server.metric("ringpost_queue_retries_total", &["wait=\"first\""]), 1.0);
    assert_eq!(server.metric("ringpost_queue_retries_total", &["wait=\"scheduled\""]), 1.0);
    sink.accept();
    server.queue(&["retry", "--all"]).good();
    sink.mail();
}

#[test]
fn the_rule_that_has_set_a_time_is_named() {
    let sink = Sink::start();
    sink.answer(|command| {
        let reply = match command.strip_prefix("RCPT TO:<")?.split('@').next()? {
            "grey" => "450 4.7.1 Greylisted for 600 seconds",
            "full" => "452 4.2.2 mailbox full",
            _ => "451 4.3.0 later",
        };
        Some(reply.to_owned())
    });
    let rules = "[[retry]]\nname = \"full\"\ncategories = [\"quota\"]\nretry = [\"2h\"]\nretry-max = \"2h\"\n\
                 give-up = \"3h\"\n";
    let server = Server::start(&format!("{SLOW}{rules}{}", sink.route()));
    for (name, seconds, rule, words) in [
        ("grey", 600.0, Some("queue.greylist-retry"), "the site asked for 10m"),
        ("full", 7200.0, Some("retry.full"), "given up 3h after it came"),
        ("else", 3600.0, Some("queue.retry"), "451 4.3.0 later"),
    ] {
        let address = format!("{name}@example.net");
        send(&server, &address);
        let event = server.event("outcome", |event| event["to"] == *address);
        assert!((waits(&event) - seconds).abs() < 130.0, "{event}");
        let id = event["id"].as_str().unwrap();
        let reason = &server.queue_json(&["why", id])[0]["reasons"][0];
        assert_eq!(reason["set_by"].as_str(), rule, "{reason}");
        assert!(reason["text"].as_str().unwrap().contains(words), "{reason}");
    }
    // A reload holds for the next refusal.
    server.configure(&format!("{SLOW}greylist-retry = \"\"\n{}", sink.route()));
    server.reload();
    server.queue(&["retry", "--recipient", "grey@example.net"]).good();
    let event = server.event("outcome", |event| event["to"] == "grey@example.net" && event["attempt"] == 2);
    assert!(waits(&event) > 3000.0, "{event}");
}

#[test]
fn each_class_is_given_up_in_its_own_time() {
    let sink = Sink::start();
    sink.answer(|command| command.starts_with("RCPT TO:<b").then(|| "451 4.3.0 later".to_owned()));
    let rules = "[[retry]]\nname = \"bulk\"\npriorities = [\"bulk\"]\nretry = [\"1s\"]\ngive-up = \"1s\"\n";
    let server = Server::start(&format!("{SLOW}{rules}{}", sink.route()));
    let mut client = server.client();
    for (recipient, priority) in [("bob@example.net", ""), ("bea@example.net", " MT-PRIORITY=-9")] {
        client.ask(&format!("MAIL FROM:<ann@example.org>{priority}"));
        client.ask(&format!("RCPT TO:<{recipient}>"));
        client.ask("DATA");
        assert!(client.ask("Subject: x\r\n\r\nx\r\n.").is_positive());
    }
    // Its sender hears of it, by a way that is open.
    let report = sink.mail();
    assert!(report.rcpt[0].starts_with("<ann@example.org>"), "{report:?}");
    assert!(
        report.content.contains("bea@example.net") && !report.content.contains("bob@example.net"),
        "{report:?}"
    );
    let left = server.queue_json(&["list"]);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["recipients"][0]["address"], "bob@example.net");
}

#[test]
fn a_notice_of_delay_names_the_end_that_a_rule_sets() {
    let sink = Sink::start();
    sink.answer(|command| {
        let refusal = match command.strip_prefix("RCPT TO:<")?.split('@').next()? {
            "full" => "452 4.2.2 mailbox full",
            "else" => "451 4.3.0 later",
            _ => return None,
        };
        Some(refusal.to_owned())
    });
    let rules = "[[retry]]\nname = \"full\"\ncategories = [\"quota\"]\ngive-up = \"3h\"\n";
    let server = Server::start(&format!("{SLOW}delay-warning = \"1s\"\n{rules}{}", sink.route()));
    for (name, hours) in [("full", 3), ("else", 5 * 24)] {
        send(&server, &format!("{name}@example.net"));
        let report = sink.mail().content;
        let value = |field: &str| {
            let line = report.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
            let line = line.unwrap_or_else(|| panic!("{field}: {report}"));
            let seconds = run(Path::new("date"), &["-d", line, "+%s"], "").good().stdout;
            seconds.trim().parse::<i64>().unwrap()
        };
        assert_eq!(value("Will-Retry-Until") - value("Arrival-Date"), hours * 3600, "{report}");
    }
}
