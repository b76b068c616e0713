//! Warm-up plans: so many messages a day, what becomes of the rest, and when there is a pause.

use std::collections::BTreeMap;

use end_to_end::{Server, Sink, until};

use super::{address, pool, send, source};

/// The day that it is, or one a few days before, as the configuration has it.
fn days_ago(days: u64) -> String {
    #[expect(clippy::disallowed_methods, reason = "a plan begins on a day of the calendar")]
    let now = std::time::SystemTime::now();
    let secs = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let text = mail::Timestamp::from_secs(secs - days * 86_400).to_rfc3339();
    text.split('T').next().unwrap().to_owned()
}

fn plan(caps: &str, more: &str) -> String {
    // It has begun some days ago, so that midnight in the middle of a test gives another day with the same cap.
    let start = days_ago(2);
    let caps = [caps; 5].join(", ");
    format!("[[warm-up]]\nname = \"new\"\nsource = \"a\"\nstart = \"{start}\"\ncaps = [{caps}]\n{more}")
}

fn configuration(sink: &Sink, plan: &str) -> String {
    format!(
        "{}pool = \"p\"\n{}{}{}{}{plan}",
        sink.route(),
        source("a", address(1), ""),
        source("b", address(2), ""),
        pool("p", "\"a\""),
        pool("warm", "\"b\"")
    )
}

fn plan_of(server: &Server) -> serde_json::Value {
    server.sources_json().iter().find(|source| source["name"] == "a").unwrap()["plans"][0].clone()
}

#[test]
fn what_is_too_much_goes_to_the_warm_pool() {
    let sink = Sink::start();
    let mut server = Server::start(&configuration(&sink, &plan("5", "overflow = \"warm\"\n")));
    assert_eq!(send(&server, &sink, 12), BTreeMap::from([(address(1), 5), (address(2), 7)]));
    let shown = plan_of(&server);
    assert_eq!((&shown["sent"], &shown["cap"], &shown["day"]), (&5.into(), &5.into(), &3.into()), "{shown}");
    let text = server.sources().good().stdout;
    assert!(text.contains("warm-up      new, day 3: 5 of 5 messages"), "{text}");
    // A restart does not begin the day anew.
    assert!(server.stop().0.success());
    server.resume();
    assert_eq!(send(&server, &sink, 2), BTreeMap::from([(address(2), 2)]));
    // More a day after a reload, and mail leaves from there again.
    server.configure(&configuration(&sink, &plan("8", "overflow = \"warm\"\n")));
    assert_eq!(server.reload()["event"], "reloaded");
    assert_eq!(send(&server, &sink, 5), BTreeMap::from([(address(1), 3), (address(2), 2)]));
    // And so it is after a crash, but for what the last moment has counted.
    until("it is written", || {
        let kept = std::fs::read_to_string(server.place().join("data/warm-up")).ok()?;
        kept.lines().any(|line| line.starts_with("new ") && line.split(' ').nth(2) == Some("8")).then_some(())
    });
    server.kill();
    server.resume();
    assert_eq!(send(&server, &sink, 2), BTreeMap::from([(address(2), 2)]));
}

#[test]
fn without_another_pool_it_waits() {
    let sink = Sink::start();
    let server = Server::start(&configuration(&sink, &plan("2", "")));
    for _ in 0..5 {
        server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    }
    let from = [sink.mail(), sink.mail()].map(|mail| mail.client.ip());
    assert_eq!(from, [address(1); 2]);
    let hop = format!("a@hop:{}", sink.address());
    let told = until("it is told why", || {
        let told = server.why(&hop);
        told.iter().any(|(_, cause, set_by)| cause == "warm-up" && set_by == "warm-up.new").then_some(told)
    });
    assert!(told.iter().all(|(subject, _, _)| *subject == hop), "{told:?}");
    assert_eq!(sink.waiting(), 0);
    // What waits is nobody's turn, and can be held or removed meanwhile; without the plan it goes.
    server.configure(&configuration(&sink, ""));
    assert_eq!(server.reload()["event"], "reloaded");
    for _ in 0..3 {
        assert_eq!(sink.mail().client.ip(), address(1));
    }
}

#[test]
fn refusals_pause_a_plan() {
    let sink = Sink::start();
    let rule =
        "[[reply-rule]]\nname = \"bad\"\ntext = [\"bad reputation\"]\ncategory = \"spam-reputation\"\n";
    let plan = plan("1000", "overflow = \"warm\"\nsample = 4\nrefusals-max = 50\npause = \"1h\"\n");
    let server = Server::start(&configuration(&sink, &format!("{rule}{plan}")));
    assert_eq!(send(&server, &sink, 2), BTreeMap::from([(address(1), 2)]));
    sink.refuse_recipients("450 4.7.1 bad reputation");
    for _ in 0..2 {
        server.client().send("ann@example.org", &["bob@example.net"], "Subject: later\r\n\r\n");
        server.event("outcome", |event| event["category"] == "spam-reputation" && event["source"] == "a");
    }
    let paused = server.event("warm_up_paused", |event| event["plan"] == "new");
    assert_eq!((&paused["reason"], &paused["source"]), (&"refusals".into(), &"a".into()), "{paused}");
    sink.accept();
    assert_eq!(send(&server, &sink, 3), BTreeMap::from([(address(2), 3)]));
    assert!(plan_of(&server)["paused_until"].is_string());
    // Who was refused goes there as well.
    server.queue(&["retry", "--all"]).good();
    assert_eq!([sink.mail(), sink.mail()].map(|mail| mail.client.ip()), [address(2); 2]);
}

#[test]
fn complaints_pause_a_plan_when_they_are_about_our_mail() {
    let sink = Sink::start();
    let bounces = "[bounces]\ndomain = \"b.example.org\"\nsecret = \"0123456789abcdef\"\n";
    let plan = plan("1000", "overflow = \"warm\"\nsample = 1\ncomplaints-max = 100\nrefusals-max = \"\"\n");
    let more = format!("verp = true\npool = \"p\"\n{bounces}{plan}");
    let server = Server::start(&configuration(&sink, "").replacen("pool = \"p\"\n", &more, 1));
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    let mail = sink.mail();
    assert_eq!(mail.client.ip(), address(1));
    let ours = mail.mail.split(['<', '>']).nth(1).unwrap().to_owned();
    server.event("outcome", |event| event["result"] == "delivered");
    let complain = |about: &str, from: &str| {
        let report = format!(
            "Content-Type: multipart/report; report-type=feedback-report; boundary=x\r\n\r\n--x\r\n\
             Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nOriginal-Mail-From: <{about}>\r\n\
             Source-IP: {from}\r\n\r\n--x--\r\n"
        );
        server.client().send("fbl@example.net", &["complaints@b.example.org"], &report);
        server.event("complained", |_| true);
    };
    // Neither what anybody may have written, nor what names another address.
    complain("ann@example.org", &address(1).to_string());
    complain(&ours, "192.0.2.1");
    assert_eq!(plan_of(&server)["complaints"], 0);
    complain(&ours, &address(1).to_string());
    let paused = server.event("warm_up_paused", |event| event["plan"] == "new");
    assert_eq!(paused["reason"], "complaints", "{paused}");
    assert_eq!(send(&server, &sink, 2), BTreeMap::from([(address(2), 2)]));
}

#[test]
fn an_upgrade_does_not_begin_the_day_anew() {
    let sink = Sink::start();
    let mut server = Server::start(&configuration(&sink, &plan("5", "overflow = \"warm\"\n")));
    assert_eq!(send(&server, &sink, 2), BTreeMap::from([(address(1), 2)]));
    until("it is written", || {
        let kept = std::fs::read_to_string(server.place().join("data/warm-up")).ok()?;
        kept.lines().any(|line| line.starts_with("new ") && line.split(' ').nth(2) == Some("2")).then_some(())
    });
    // One who stays with the old program sends from there, while the new one sends as well.
    let mut stays = server.client();
    server.upgrade(&["--no-wait"]).good();
    let successor = server.successor(1);
    stays.send("ann@example.org", &["bob@example.net"], "Subject: old\r\n\r\n");
    let mail = sink.mail();
    assert_eq!((mail.client.ip(), mail.content.contains("old")), (address(1), true), "{mail:?}");
    assert_eq!(send(&server, &sink, 1), BTreeMap::from([(address(1), 1)]));
    stays.ask("QUIT");
    drop(stays);
    assert!(server.program_mut().wait().success());
    until("what both have counted is put together", || (plan_of(&server)["sent"] == 4).then_some(()));
    assert_eq!(send(&server, &sink, 3), BTreeMap::from([(address(1), 1), (address(2), 2)]));
    successor.signal(end_to_end::Signal::TERM);
    successor.wait();
}
