//! Reports of others that come to us: kept over any death, known again, put together; and what is none is lost to
//! nobody.

use std::fmt::Write as _;

use end_to_end::{Finished, Server, Sink, built, run, tool, until};
use serde_json::{Value, json};

const REPORTS: &str = "[reports-in]\naddresses = [\"dmarc@example.org\", \"tls@example.org\"]\n";
const TOKEN: &str = "0123456789abcdef";

/// Noon of yesterday, in seconds.
fn yesterday() -> u64 {
    let text = run(&tool("date"), &["-u", "+%s"], "").good().stdout;
    text.trim().parse::<u64>().unwrap() / 86_400 * 86_400 - 43_200
}

/// A DMARC report in a mail: so many messages from an address passed, and one failed.
fn report(id: &str, domain: &str, source: &str, count: u64) -> String {
    let (begin, end) = (yesterday(), yesterday() + 3600);
    let row = |count, source: &str, dkim: &str| {
        format!(
            "<record><row><source_ip>{source}</source_ip><count>{count}</count><policy_evaluated>\
             <disposition>none</disposition><dkim>{dkim}</dkim><spf>fail</spf></policy_evaluated></row>\r\n\
             <identifiers><header_from>{domain}</header_from></identifiers><auth_results>\r\n\
             <dkim><domain>{domain}</domain><selector>s</selector><result>{dkim}</result></dkim></auth_results></record>\r\n"
        )
    };
    format!(
        "From: noreply@reporter.example\r\nTo: dmarc@example.org\r\nSubject: Report Domain: {domain}\r\n\
         Date: Sun, 29 Nov 2026 12:00:00 +0000\r\n\
         Content-Type: text/xml\r\n\r\n<?xml version=\"1.0\"?>\r\n\
         <feedback><report_metadata><org_name>reporter.example</org_name>\r\n\
         <email>noreply@reporter.example</email><report_id>{id}</report_id>\r\n\
         <date_range><begin>{begin}</begin><end>{end}</end></date_range></report_metadata>\r\n\
         <policy_published><domain>{domain}</domain><p>reject</p></policy_published>\r\n{}{}</feedback>\r\n",
        row(count, source, "pass"),
        row(1, "203.0.113.66", "fail"),
    )
}

fn reports(server: &Server, arguments: &[&str]) -> Finished {
    let config = server.place().join("ringpost.toml");
    let all = [&["reports", "--config", config.to_str().unwrap()], arguments].concat();
    run(&built("ringpost"), &all, "")
}

/// `ringpost reports … --json`: one value for each line.
fn reports_json(server: &Server, arguments: &[&str]) -> Vec<Value> {
    let finished = reports(server, &[arguments, &["--json"]].concat()).good();
    finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn keys(server: &Server, arguments: &[&str]) -> Vec<String> {
    let all = reports_json(server, &[&["list", "--limit", "0"], arguments].concat());
    all.iter().map(|one| one["key"].as_str().unwrap().to_owned()).collect()
}

/// What is taken is kept, and counted once, whenever the server dies.
#[test]
fn a_kill_loses_no_report_and_counts_none_twice() {
    const ALL: u64 = 48;
    let mut server = Server::start(REPORTS);
    for number in 0..ALL {
        let mail = report(&format!("r{number}"), "example.org", "192.0.2.1", 2);
        server.client().send("noreply@reporter.example", &["dmarc@example.org"], &mail);
        if number % 8 == 7 {
            // Some are in the journal alone, some on their way to the disk, some are there.
            server.kill();
            server.resume();
            // Whoever has not heard of a 250 sends again.
            server.client().send("", &["DMARC@example.org", "tls@example.org"], &mail);
        }
    }
    until("all are kept", || (keys(&server, &[]).len() as u64 == ALL).then_some(()));
    until("nothing waits", || server.queue_json(&["list"]).is_empty().then_some(()));
    server.kill();
    server.resume();
    let [summary] = &reports_json(&server, &["summary", "--domain", "example.org", "--since", "3d"])[..]
    else {
        panic!("one line")
    };
    assert_eq!(
        (&summary["reports"], &summary["messages"], &summary["passed"]),
        (&json!(ALL), &json!(ALL * 3), &json!(ALL * 2))
    );
    let told: Vec<_> =
        summary["sources"].as_array().unwrap().iter().map(|one| (&one["source"], &one["failed"])).collect();
    assert_eq!(told, [(&json!("192.0.2.1"), &json!(0)), (&json!("203.0.113.66"), &json!(ALL))]);
}

#[test]
fn reports_are_shown_to_operators_and_programs() {
    let server = Server::start(&format!("{REPORTS}[http]\ntoken = \"{TOKEN}\"\n"));
    let mut client = server.client();
    client.send("x@reporter.example", &["dmarc@example.org"], &report("one", "example.org", "192.0.2.1", 7));
    let came = server.event("report_in", |_| true);
    assert_eq!(
        ["kind", "org", "report", "proof", "domain", "known"].map(|field| &came[field]),
        ["dmarc", "reporter.example", "one", "none", "example.org", "no"]
    );
    assert_eq!((&came["messages"], &came["failed"], &came["reporter"]), (&json!(8), &json!(1), &Value::Null));
    client.send("x@reporter.example", &["dmarc@example.org"], &report("one", "example.org", "192.0.2.1", 7));
    assert_eq!(server.event("report_in", |event| event["known"] == "yes")["report"], "one");
    client.send(
        "x@reporter.example",
        &["dmarc@example.org"],
        &report("two", "sub.example.org", "192.0.2.1", 1),
    );
    client.send(
        "x@reporter.example",
        &["dmarc@example.org"],
        &report("three", "example.net", "198.51.100.1", 1),
    );
    server.event("report_in", |event| event["report"] == "three");
    let metric = |name: &str, labels: &[&str]| server.metric(&format!("ringpost_reports_in_{name}"), labels);
    until("they are counted", || (metric("kept", &[]) >= 3.0).then_some(()));
    assert_eq!(metric("total", &["kind=\"dmarc\"", "result=\"new\""]), 3.0);
    assert_eq!(metric("total", &["kind=\"dmarc\"", "result=\"known\""]), 1.0);
    assert_eq!(metric("messages_total", &["alignment=\"dkim\""]), 9.0);
    assert_eq!(metric("messages_total", &["alignment=\"none\""]), 3.0);

    // At the command line.
    let table = reports(&server, &["summary", "--domain", "example.org"]).good().stdout;
    for part in [
        "example.org and below: 2 reports",
        "10 messages, of which 8 passed DMARC (80.0 %)",
        "192.0.2.1",
        "dkim sub.example.org",
        "which nothing proves",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let list = reports(&server, &["list", "--kind", "dmarc", "--limit", "1"]).good().stdout;
    assert_eq!(list.lines().count(), 2, "{list}");
    let key = &keys(&server, &["--domain", "example.net"])[0];
    let shown = reports(&server, &["show", key]).good().stdout;
    assert!(shown.contains("198.51.100.1  1 messages  passed") && shown.contains("p=reject"), "{shown}");
    assert!(reports(&server, &["show", "00"]).stderr.contains("copy the key from a listing"));
    assert!(reports(&server, &["list", "--kind", "odd"]).stderr.contains("is no kind of report"));
    assert_eq!(keys(&server, &["--until", "2020-01-01"]), [""; 0]);

    // And over HTTP, for whoever has the token.
    let get = |path: &str| {
        let url = format!("http://{}/api/v1/reports{path}", server.http());
        let header = format!("Authorization: Bearer {TOKEN}");
        let text = run(&tool("curl"), &["-sS", "-H", &header, &url], "").good().stdout;
        serde_json::from_str::<Value>(&text).unwrap()
    };
    assert!(server.get("/api/v1/reports").starts_with("HTTP/1.1 401"));
    let page = get("?limit=2");
    let next = page["next"].as_str().unwrap();
    let rest = get(&format!("?limit=2&cursor={next}"));
    assert_eq!(
        (page["reports"].as_array().unwrap().len(), rest["reports"].as_array().unwrap().len()),
        (2, 1)
    );
    let one = get(&format!("/{key}"));
    assert_eq!((&one["id"], &one["told"]["dmarc"]["rows"][0]["count"]), (&json!("three"), &json!(1)));
    let summary = get("/summary?by=network&domain=example.org");
    assert_eq!(summary["sources"][0]["source"], "192.0.2.0/24");
    assert_eq!(get("?since=yesterday")["status"], 400);
    assert_eq!(get("/..%2f..%2fetc")["status"], 404);
}

/// What cannot be read is kept, told of, and goes on to somebody; nothing of it is sent back.
#[test]
fn what_is_no_report_is_kept_and_passed_on() {
    let sink = Sink::start();
    let more = format!(
        "{REPORTS}domains = [\"example.org\", \"*.example.org\"]\nforward = \"ann@example.net\"\n{}",
        sink.route()
    );
    let server = Server::start(&more);
    let mut client = server.client();
    let mut send = |mail: &str, reason: &str| {
        client.send("x@reporter.example", &["dmarc@example.org"], mail);
        let refused = server.event("report_refused", |_| true);
        assert_eq!(refused["reason"], reason, "{refused}");
        let passed_on = sink.mail();
        assert_eq!((&*passed_on.mail, &passed_on.rcpt[..]), ("<>", &["<ann@example.net>".to_owned()][..]));
        assert!(passed_on.content.ends_with(mail), "{}", passed_on.content);
        refused["id"].as_str().unwrap().to_owned()
    };
    send(
        "From: <x@reporter.example>\r\nDate: Sun, 29 Nov 2026 12:00:00 +0000\r\n\r\nWho reads this?\r\n",
        "no-report",
    );
    let good = report("one", "example.org", "192.0.2.1", 1);
    send(&good.replace("<feedback>", "<!DOCTYPE feedback [<!ENTITY a \"b\">]><feedback>"), "entities");
    send(&good.replace("example.org</domain><p>", "example.com</domain><p>"), "foreign");
    send(
        &good.replace(&yesterday().to_string(), "1").replace(&(yesterday() + 3600).to_string(), "2"),
        "period",
    );
    let id = send(&good.replace("</feedback>", "<row></feedback>"), "syntax");
    client.send("x@reporter.example", &["tls@example.org"], &good);
    server.event("report_in", |event| event["domain"] == "example.org");

    let unread = reports_json(&server, &["list", "--kind", "unread"]);
    assert_eq!(unread.len(), 5);
    let last = unread.iter().find(|one| one["mail"] == id.as_str()).unwrap();
    assert!(last["reason"].as_str().unwrap().starts_with("syntax: "), "{last}");
    let [shown] = &reports_json(&server, &["show", last["key"].as_str().unwrap()])[..] else {
        panic!("one line")
    };
    let mail = run(&tool("base64"), &["-d"], shown["content"].as_str().unwrap()).good().stdout;
    assert!(mail.contains("<row></feedback>"), "{mail}");
    assert_eq!(server.metric("ringpost_reports_in_unread_total", &["reason=\"syntax\""]), 1.0);
    // With every report as well.
    server.configure(&more.replace("forward = ", "forwarded = \"all\"\nforward = "));
    assert_eq!(server.reload()["event"], "reloaded");
    client.send(
        "x@reporter.example",
        &["dmarc@example.org"],
        &report("two", "sub.example.org", "192.0.2.1", 1),
    );
    assert!(sink.mail().content.contains("<report_id>two</report_id>"));
    until("nothing waits", || server.queue_json(&["list"]).is_empty().then_some(()));
    assert!(server.events("returned").is_empty());
}

#[test]
fn addresses_come_and_go_with_a_reload() {
    let sink = Sink::start();
    let domain = "[[domain]]\nname = \"example.org\"\nrecipients = [\"bob\"]\n[relay]\nnetworks = []\n";
    let server = Server::start(&format!("{domain}{}", sink.route()));
    let mut client = server.client();
    let mut to = |address: &str| {
        client.say("RSET");
        client.expect(250);
        client.say("MAIL FROM:<x@reporter.example>");
        client.expect(250);
        client.ask(&format!("RCPT TO:<{address}>")).code
    };
    assert_eq!(
        [to("bob@example.org"), to("dmarc@example.org"), to("dmarc@elsewhere.example")],
        [250, 550, 550]
    );
    let config = format!(
        "{domain}[reports-in]\naddresses = [\"dmarc@example.org\", \"dmarc@elsewhere.example\"]\n{}",
        sink.route()
    );
    server.configure(&config);
    assert_eq!(server.reload()["event"], "reloaded");
    assert_eq!([to("Dmarc@Example.org"), to("dmarc@elsewhere.example")], [250, 250]);
    // What recipients become is no address of anybody's.
    assert_eq!(to("dmarc=example.org@reports-in.invalid"), 550);
    let mut mail = report("one", "example.org", "192.0.2.1", 1);
    let _ = write!(mail, "<!-- {} -->\r\n", "x".repeat(100_000));
    server.client().send("x@reporter.example", &["bob@example.org", "dmarc@example.org"], &mail);
    assert_eq!(sink.mail().rcpt, ["<bob@example.org>"]);
    let outcome = server.event("outcome", |event| event["host"] == "reports-in");
    assert_eq!(
        (&outcome["result"], &outcome["to"]),
        (&json!("delivered"), &json!("dmarc=example.org@reports-in.invalid"))
    );
    server.configure(&format!("{domain}{}", sink.route()));
    assert_eq!(server.reload()["event"], "reloaded");
    assert_eq!(to("dmarc@example.org"), 550);
    // What is kept is shown, after a stop as well.
    assert_eq!(keys(&server, &[]).len(), 1);
    // Nobody is there who would be waited for.
    drop(client);
    let server = server.restarted();
    assert_eq!(keys(&server, &[]).len(), 1);
}

/// Both programs of an upgrade keep what comes to them, and know what the other one has.
#[test]
fn an_upgrade_keeps_reports_once() {
    let server = Server::start(REPORTS);
    let mut held = server.client();
    let mails = ["one", "two"].map(|id| report(id, "example.org", "192.0.2.1", 1));
    held.send("x@reporter.example", &["dmarc@example.org"], &mails[0]);
    server.event("report_in", |event| event["report"] == "one" && event["known"] == "no");
    server.upgrade(&["--no-wait"]).good();
    let _successor = server.successor(1);
    server.client().send("x@reporter.example", &["dmarc@example.org"], &mails[0]);
    server.event("report_in", |event| event["report"] == "one" && event["known"] == "yes");
    server.client().send("x@reporter.example", &["dmarc@example.org"], &mails[1]);
    server.event("report_in", |event| event["report"] == "two" && event["known"] == "no");
    // The old one still serves whoever was there.
    held.send("x@reporter.example", &["dmarc@example.org"], &mails[1]);
    server.event("report_in", |event| event["report"] == "two" && event["known"] == "yes");
    held.say("QUIT");
    server.event("took_over", |_| true);
    assert_eq!(keys(&server, &[]).len(), 2);
    assert_eq!(reports_json(&server, &["summary"])[0]["messages"], 4);
}
