//! Working on the queue by any key: at once, and in the background, by the command line and by HTTP.

use std::path::Path;

use end_to_end::{Server, Sink, free_address, run, until};
use serde_json::Value;

/// Nobody is tried again while a test runs.
const SLOW: &str = "[queue]\nretry = [\"1h\"]\nretry-max = \"1h\"\ndestination-retry-min = \"10m\"\ngreylist-retry = \"1h\"\n";
const TOKEN: &str = "0123456789abcdef";

fn hop(name: &str, domain: &str, address: impl std::fmt::Display) -> String {
    format!(
        "[[route]]\nname = \"{name}\"\ndomains = [\"{domain}\"]\nvia = \"hop\"\nhosts = [\"{address}\"]\ntls = \"none\"\n"
    )
}

/// A server whose next hop refuses some recipients in one way, some in another; and one that takes all.
fn refusing() -> (Server, Sink, Sink) {
    let (sink, backup) = (Sink::start(), Sink::start());
    sink.answer(|command| {
        let refusal = match command.strip_prefix("RCPT TO:<")?.split('>').next()?.split('@').next()? {
            "full" => "452 4.2.2 the mailbox of full is Full",
            "grey" => "450 4.7.1 Greylisted, try again later",
            _ => "451 4.3.0 try again",
        };
        Some(refusal.to_owned())
    });
    let routes =
        format!("{}{}", hop("main", "*", sink.address()), hop("backup", "backup.test", backup.address()));
    let server = Server::start(&format!("{SLOW}[http]\ntoken = \"{TOKEN}\"\n{routes}"));
    let mut client = server.client();
    for (from, to, subject) in [
        ("ann@example.org", "full@example.net", "Invoice 17"),
        ("ann@example.org", "grey@example.net", "Your\r\n password"),
        ("news@example.com", "full@sub.example.net", "News"),
        ("news@example.com", "else@example.net", "News"),
    ] {
        let content = format!("Subject: {subject}\r\n\r\nInvoice\r\n");
        client.send(from, &[to], &content);
    }
    wait_for(&server, "deferred", 4);
    (server, sink, backup)
}

fn wait_for(server: &Server, state: &str, count: u32) {
    let label = format!("state=\"{state}\"");
    let counted = || server.metric("ringpost_queue_recipients", &[&label]) == f64::from(count);
    until(&format!("{count} {state}"), || counted().then_some(()));
}

/// The recipients that a listing with these options shows.
fn listed(server: &Server, options: &[&str]) -> Vec<String> {
    let entries = server.queue_json(&[&["list"], options].concat());
    let recipients = entries.iter().flat_map(|entry| entry["recipients"].as_array().unwrap());
    let mut listed: Vec<_> =
        recipients.map(|recipient| recipient["address"].as_str().unwrap().to_owned()).collect();
    listed.sort();
    listed
}

fn curl(server: &Server, arguments: &[&str]) -> Value {
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let common = ["-sS", "--max-time", "60", "-H", &bearer, "-H", "Content-Type: application/json"];
    let (path, options) = arguments.split_last().unwrap();
    let url = format!("http://{}{path}", server.http());
    let answer = run(Path::new("curl"), &[&common, options, &[&*url]].concat(), "").good().stdout;
    serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"))
}

/// A task, once it has ended.
fn ended(server: &Server, number: &Value) -> Value {
    let path = format!("/api/v1/queue/tasks/{number}");
    until("the end of the task", || Some(curl(server, &[&path])).filter(|task| task["state"] != "running"))
}

#[test]
fn mail_is_found_by_any_key() {
    let (server, ..) = refusing();
    let full = ["full@example.net", "full@sub.example.net"];
    for (options, expected) in [
        (&["--category", "quota"][..], &full[..]),
        (&["--category", "greylisted"], &["grey@example.net"]),
        (&["--status", "4.2.*"], &full),
        (&["--reply", "IS FULL"], &full),
        (&["--reply", "nonsense"], &[]),
        (&["--subject", "invoice"], &["full@example.net"]),
        (&["--subject", "your password"], &["grey@example.net"]),
        // printf %s 'Your password' | sha256sum
        (
            &["--subject-hash", "bbda702b4b0324a1fa7aea9d4eada2d836b374c9c4dfcdc168b18a8f25bc8422"],
            &["grey@example.net"],
        ),
        (&["--subject-hash", "BBDA702B4B03", "--subject", "invoice"], &[]),
        (&["--subject-hash", "00000000"], &[]),
        (&["--sender", "example.com", "--status", "4.3.0"], &["else@example.net"]),
        (&["--recipient", ".example.net"], &["full@sub.example.net"]),
        (&["--priority", "bulk"], &[]),
        (&["--priority", "normal", "--category", "quota", "--sender", "example.org"], &["full@example.net"]),
        (&["--older-than", "1h"], &[]),
        (&["--younger-than", "1h", "--category", "quota"], &full),
        (&["--tenant", "shop"], &[]),
        (&["--tenant", "", "--category", "quota"], &full),
        (&["--site", "site:other"], &[]),
    ] {
        assert_eq!(listed(&server, options), expected, "{options:?}");
    }
    let site = server.queue_json(&["list"])[0]["recipients"][0]["destination"].as_str().unwrap().to_owned();
    assert_eq!(listed(&server, &["--site", &site]).len(), 4, "{site}");
    // The same over HTTP.
    let page = curl(&server, &["/api/v1/queue?category=quota&sender=example.com"]);
    assert_eq!(page["entries"][0]["recipients"][0]["address"], "full@sub.example.net", "{page}");
    // What it would be about is counted, and nothing is changed.
    let said = server.queue(&["remove", "--category", "quota", "--dry-run"]).good().stdout;
    assert_eq!(said, "remove would be about 2 recipients\n");
    let unsure = server.queue(&["remove", "--category", "quota"]);
    assert!(!unsure.status.success() && unsure.stderr.contains("forgets 2 recipients"), "{unsure}");
    assert_eq!(server.metric("ringpost_queue_recipients", &["state=\"deferred\""]), 4.0);
}

#[test]
fn a_change_in_the_background_ends_by_itself() {
    let (server, ..) = refusing();
    let said = server.queue(&["hold", "--category", "quota", "--background"]).good().stdout;
    assert_eq!(said, "task 1 has begun; see: ringpost queue task 1 --watch\n");
    let said = server.queue(&["task", "1", "--watch"]).good().stdout;
    assert!(said.contains("hold") && said.contains("done"), "{said}");
    wait_for(&server, "held", 2);
    assert_eq!(server.metric("ringpost_queue_changed_total", &["action=\"hold\""]), 2.0);
    assert!(server.metric("ringpost_queue_task_looked_total", &[]) >= 4.0);
    let began = server.event("task_began", |event| event["task"] == 1);
    assert_eq!(
        (&began["action"], began["selector"].as_str().unwrap()),
        (&"hold".into(), r#"{"matching":{"category":"quota"}}"#),
        "{began}"
    );
    let event = server.event("task_ended", |event| event["task"] == 1);
    assert_eq!(
        (&event["state"], &event["matched"], &event["nrcpt"]),
        (&"done".into(), &2.into(), &2.into()),
        "{event}"
    );

    // By HTTP: begun by a client that does not wait for the answer.
    let body = r#"{"action":"release","selector":{"matching":{"sender":"example.com"}},"by":"ops"}"#;
    let task = curl(&server, &["-d", body, "/api/v1/queue/tasks"]);
    assert_eq!((&task["id"], &task["by"]), (&2.into(), &"ops (http 127.0.0.1)".into()), "{task}");
    let task = ended(&server, &task["id"]);
    assert_eq!(
        (&task["state"], &task["matched"], &task["changed"]),
        (&"done".into(), &2.into(), &1.into()),
        "{task}"
    );
    assert_eq!(task["looked"], task["of"], "{task}");
    // A route that there is not.
    let body = r#"{"action":"reroute","selector":"all","to":"nowhere"}"#;
    let task = ended(&server, &curl(&server, &["-d", body, "/api/v1/queue/tasks"])["id"]);
    assert_eq!(task["state"], "failed", "{task}");
    let failed = server.queue(&["task", "3", "--watch"]);
    assert!(!failed.status.success() && failed.stderr.contains("task 3 has failed"), "{failed}");
    // Who ends a task that has ended changes nothing.
    let task = curl(&server, &["-X", "DELETE", "/api/v1/queue/tasks/2"]);
    assert_eq!(task["state"], "done", "{task}");
    assert_eq!(server.queue_json(&["tasks"]).len(), 3);
    let document = curl(&server, &["/api/v1/queue/openapi.json"]);
    assert!(document["paths"]["/api/v1/queue/tasks"]["post"].is_object(), "{document}");
    // Without the token, nothing.
    assert!(server.get("/api/v1/queue/tasks").starts_with("HTTP/1.1 401 "));
}

#[test]
fn mail_goes_by_another_route_when_an_operator_says_so() {
    let (mut server, sink, backup) = refusing();
    assert_eq!(server.queue_json(&["reroute", "--to", "backup", "--sender", "example.com"])[0]["changed"], 2);
    let mut to: Vec<_> = (0..2).map(|_| backup.mail().rcpt[0].clone()).collect();
    to.sort();
    assert!(to[0].starts_with("<else@example.net>") && to[1].starts_with("<full@sub.example.net>"), "{to:?}");
    // To a route whose host is not there: it waits for it, over a restart and a reload as well.
    let (main, dead) = (hop("main", "*", sink.address()), hop("dead", "dead.test", free_address()));
    server.configure(&format!("{SLOW}{main}{dead}"));
    server.reload();
    assert_eq!(server.queue_json(&["reroute", "--to", "dead", "--all"])[0]["changed"], 2);
    server.event("outcome", |event| {
        event["result"] == "deferred" && event["destination"].as_str().unwrap().starts_with("via:dead>")
    });
    server.stop();
    server.resume();
    sink.accept();
    server.queue(&["retry", "--recipient", "grey@example.net"]).good();
    let outcome = server.event("outcome", |event| event["to"] == "grey@example.net");
    assert!(outcome["destination"].as_str().unwrap().starts_with("via:dead>"), "{outcome}");
    // The route has another host: its mail goes there.
    server.configure(&format!("{SLOW}{main}{}", hop("dead", "dead.test", backup.address())));
    server.reload();
    let mut to: Vec<_> = (0..2).map(|_| backup.mail().rcpt[0].clone()).collect();
    to.sort();
    assert!(to[0].starts_with("<full@example.net>") && to[1].starts_with("<grey@example.net>"), "{to:?}");
    assert_eq!((sink.waiting(), backup.waiting()), (0, 0));
}

#[test]
fn a_choice_of_route_can_be_taken_back() {
    let (server, sink, backup) = refusing();
    let dead = hop("dead", "dead.test", free_address());
    server.configure(&format!("{SLOW}{}{dead}", hop("main", "*", sink.address())));
    server.reload();
    server.queue(&["reroute", "--to", "dead", "--all"]).good();
    sink.accept();
    assert_eq!(server.queue_json(&["reroute", "--to", "", "--all"])[0]["changed"], 4);
    for _ in 0..4 {
        sink.mail();
    }
    assert_eq!(backup.waiting(), 0);
    let unknown = server.queue(&["reroute", "--to", "nowhere", "--all"]);
    assert!(!unknown.status.success() && unknown.stderr.contains("by its `name`"), "{unknown}");
}
