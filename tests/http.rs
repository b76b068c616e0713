//! Mail by HTTP, as programs bring it: curl in front, a next hop behind, Python's email package as the judge.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{collections::HashMap, fs, path::Path, thread, time::Duration};

use end_to_end::{Client, Finished, Mail, Server, Sink, built, free_address, run};
use serde_json::{Value, json};

/// A server with a key for example.org, made by `ringpost key`.
struct House {
    server: Server,
    sink: Sink,
    key: String,
}

/// What curl was answered.
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

fn house(more: &str) -> House {
    let sink = Sink::start();
    let (key, entry) = new_key("shop");
    let server = Server::start(&format!("{}{entry}{more}", sink.route()));
    House { server, sink, key }
}

/// A key, and its entry in the configuration.
fn new_key(name: &str) -> (String, String) {
    let Finished { stdout, stderr, .. } =
        run(&built("ringpost"), &["key", name, "--domain", "example.org"], "").good();
    let key = stderr.split_whitespace().find(|word| word.starts_with("ringpost_")).unwrap();
    assert!(!stdout.contains(key), "the configuration has the hash alone");
    (key.to_owned(), stdout)
}

impl House {
    fn curl(&self, arguments: &[&str], body: &str) -> Answer {
        let bearer = format!("Authorization: Bearer {}", self.key);
        let common = ["-sS", "-i", "--max-time", "60", "-H", &bearer, "-H", "Expect:"];
        let Finished { stdout, .. } = run(Path::new("curl"), &[&common, arguments].concat(), body).good();
        let (head, body) = stdout.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {stdout}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or(Value::Null) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.http())
    }

    fn post(&self, kind: &str, query: &str, body: &str, more: &[&str]) -> Answer {
        let url = self.url(&format!("/api/v1/messages{query}"));
        let kind = format!("Content-Type: {kind}");
        self.curl(&[&["-H", &kind, "--data-binary", "@-", &url], more].concat(), body)
    }

    fn send(&self, message: &Value) -> Answer {
        self.post("application/json", "", &message.to_string(), &[])
    }
}

/// What Python makes of a message.
fn judged(mail: &Mail) -> Value {
    let finished = run(Path::new("python3"), &["-c", JUDGE], &mail.content).good();
    serde_json::from_str(&finished.stdout).unwrap()
}

const JUDGE: &str = r#"
import email, email.policy, json, sys, base64
message = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.SMTP)
parts = [part for part in message.walk()]
defects = [repr(defect) for part in parts for defect in part.defects]
defects += [f"{name}: {defect!r}" for part in parts for name, value in part.items() for defect in value.defects]
def content(part):
    if part.is_multipart(): return None
    octets = part.get_payload(decode=True)
    return octets.decode(part.get_content_charset() or "utf-8") if part.get_content_maintype() == "text" \
        else base64.b64encode(octets).decode()
json.dump({
    "defects": defects,
    "headers": {name.lower(): str(value) for name, value in message.items()},
    "names": [name.lower() for name in message.keys()],
    "to": [[a.display_name, a.addr_spec] for a in message["to"].addresses] if message["to"] else [],
    "from": [[a.display_name, a.addr_spec] for a in message["from"].addresses],
    "tree": [part.get_content_type() for part in parts],
    "parts": [{"content": content(p), "filename": p.get_filename(), "cid": p["content-id"],
               "disposition": p.get_content_disposition()} for p in parts],
    "text": message.get_body(("plain",)).get_content() if message.get_body(("plain",)) else None,
    "html": message.get_body(("html",)).get_content() if message.get_body(("html",)) else None,
}, sys.stdout)
"#;

#[test]
fn parts_arrive_as_the_message_they_were_meant_to_be() {
    let house = house("");
    let octets: String = (0..4).map(|_| "AAECA/z9/v8NCg0N".to_owned()).collect();
    let text = "Grüße, 世界!\n.\n..\nFrom here on\n trailing \nend";
    let answer = house.send(&json!({
        "from": {"address": "ann@example.org", "name": "Änne \"A.\" Example, Dr."},
        "to": ["Bob <bob@example.net>", {"address": "c@example.net", "name": "山田"}],
        "cc": "dave@example.net",
        "bcc": "secret@example.net",
        "reply_to": "answers@example.org",
        "envelope_from": "bounces@example.org",
        "subject": "Übersicht für 世界, und noch einiges mehr, damit die Zeile lang wird und gefaltet werden muss",
        "text": text,
        "html": "<p>Grüße</p><img src=\"cid:logo@example.org\">",
        "headers": {"X-Campaign": "42", "List-Unsubscribe": "<https://example.org/u?x=1>, <mailto:u@example.org>"},
        "inline": [{"content": octets, "content_type": "image/png", "content_id": "logo@example.org"}],
        "attachments": [
            {"content": octets, "content_type": "application/pdf", "filename": "Rechnung Nº 1 – März.pdf"},
            {"content": "YSxiCjEsMgo=", "content_type": "text/csv; charset=utf-8", "filename": "a \"b\".csv"},
        ],
    }));
    assert_eq!(answer.status, 202, "{}", answer.body);
    let mail = house.sink.mail();
    assert!(mail.mail.starts_with("<bounces@example.org>"), "{}", mail.mail);
    let mut rcpt = mail.rcpt.clone();
    rcpt.sort();
    let to = ["<bob@example.net>", "<c@example.net>", "<dave@example.net>", "<secret@example.net>"];
    assert!(rcpt.iter().zip(to).all(|(rcpt, to)| rcpt.starts_with(to)) && rcpt.len() == to.len(), "{rcpt:?}");
    assert!(!mail.content.contains("secret@"), "{}", mail.content);
    let judged = judged(&mail);
    assert_eq!(judged["defects"], json!([]), "{}", mail.content);
    assert_eq!(judged["from"], json!([["Änne \"A.\" Example, Dr.", "ann@example.org"]]));
    assert_eq!(judged["to"], json!([["Bob", "bob@example.net"], ["山田", "c@example.net"]]));
    let headers = &judged["headers"];
    let subject =
        "Übersicht für 世界, und noch einiges mehr, damit die Zeile lang wird und gefaltet werden muss";
    assert_eq!(headers["subject"], subject);
    assert_eq!(headers["x-campaign"], "42");
    assert_eq!(headers["list-unsubscribe"], "<https://example.org/u?x=1>, <mailto:u@example.org>");
    let names: Vec<_> =
        judged["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in ["received", "date", "message-id", "mime-version", "reply-to"] {
        assert_eq!(names.iter().filter(|other| **other == name).count(), 1, "{name}: {names:?}");
    }
    assert!(headers["received"].as_str().unwrap().contains("with HTTP id "), "{}", headers["received"]);
    assert_eq!(
        judged["tree"],
        json!([
            "multipart/mixed",
            "multipart/alternative",
            "text/plain",
            "multipart/related",
            "text/html",
            "image/png",
            "application/pdf",
            "text/csv"
        ])
    );
    let lines = |text: &Value| text.as_str().unwrap().replace("\r\n", "\n");
    assert_eq!(lines(&judged["text"]).trim_end_matches('\n'), text);
    assert!(lines(&judged["html"]).contains("Grüße"));
    let parts = judged["parts"].as_array().unwrap();
    assert_eq!((&parts[5]["content"], &parts[5]["cid"]), (&json!(octets), &json!("<logo@example.org>")));
    assert_eq!(
        (&parts[6]["content"], &parts[6]["filename"]),
        (&json!(octets), &json!("Rechnung Nº 1 – März.pdf"))
    );
    assert_eq!((&parts[7]["content"], &parts[7]["filename"]), (&json!("a,b\n1,2\n"), &json!("a \"b\".csv")));
    let accepted = house.server.event("accepted", |_| true);
    assert_eq!((&accepted["proto"], &accepted["helo"]), (&json!("HTTP"), &json!("shop")));
    assert_eq!(accepted["id"], answer.body["id"]);
    assert!(house.server.metric("ringpost_http_requests_total", &["status=\"202\""]) >= 1.0);
    assert!(house.server.metric("ringpost_http_messages_total", &["accepted"]) >= 1.0);
}

#[test]
fn whole_messages_are_taken_both_ways() {
    let house = house("");
    let raw =
        "From: ann@example.org\nTo: bob@example.net\nBcc: secret@example.net\nSubject: x\n\nHi,\n.\nbye\n";
    let answer = house.post("message/rfc822", "", raw, &[]);
    assert_eq!(answer.status, 202, "{}", answer.body);
    let mail = house.sink.mail();
    assert_eq!(mail.rcpt.len(), 2);
    assert!(
        !mail.content.contains("secret") && mail.content.ends_with("\r\n\r\nHi,\r\n.\r\nbye\r\n"),
        "{}",
        mail.content
    );
    assert_eq!(judged(&mail)["defects"], json!([]));
    let query = "?envelope_from=&envelope_to=carol@example.net&envelope_to=dave@example.net";
    assert_eq!(house.post("message/rfc822", query, raw, &[]).status, 202);
    let mail = house.sink.mail();
    assert!(mail.mail.starts_with("<>") && mail.rcpt.len() == 2, "{mail:?}");
    // 8 bits and UTF-8 in the header section go on with what the next hop must know of them.
    let utf8 = "From: Änne <ann@example.org>\r\nTo: bob@example.net\r\nSubject: Grüße\r\n\r\nÜ\r\n";
    let encoded = run(Path::new("base64"), &["-w0"], utf8).good().stdout;
    let answer = house.send(&json!({"raw": encoded, "envelope_to": "bob@example.net"}));
    assert_eq!(answer.status, 202, "{}", answer.body);
    let mail = house.sink.mail();
    assert!(mail.mail.contains("SMTPUTF8") && mail.mail.contains("8BITMIME"), "{}", mail.mail);
    for (bad, reason) in [
        ("From: ann@example.org\r\nTo: b@example.net\r\n\r\nx\n.\r\n", "bare_line_end"),
        (
            "From: ann@example.org\r\nFrom: ann@example.org\r\nTo: b@example.net\r\n\r\nx\r\n",
            "header_repeated",
        ),
        ("From: ann@example.org\r\nTo: b@example.net\r\n\r\n\0\r\n", "nul_byte"),
        (
            &format!("{}From: ann@example.org\r\nTo: b@example.net\r\n\r\n", "Received: x\r\n".repeat(101)),
            "loop",
        ),
    ] {
        let answer = house.post("message/rfc822", "", bad, &[]);
        assert_eq!((answer.status, &answer.body["smtp"]["reason"]), (422, &json!(reason)), "{}", answer.body);
    }
    assert_eq!(house.sink.waiting(), 0);
}

#[test]
fn a_large_message_is_written_in_pieces_and_arrives_whole() {
    let house = house("");
    let octets: Vec<u8> = (0..6_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let file = house.server.place().join("large.bin");
    fs::write(&file, &octets).unwrap();
    let encoded = run(Path::new("base64"), &["-w0", file.to_str().unwrap()], "").good().stdout;
    let answer = house.send(&json!({
        "from": "ann@example.org", "to": "bob@example.net", "text": "see",
        "attachments": [{"content": encoded, "filename": "large.bin"}],
    }));
    assert_eq!(answer.status, 202, "{}", answer.body);
    let judged = judged(&house.sink.mail());
    assert_eq!(judged["defects"], json!([]));
    assert!(judged["parts"][2]["content"] == encoded, "the octets are those that were sent");
}

#[test]
fn each_recipient_gets_a_copy_of_their_own() {
    let house = house("");
    let recipients: Vec<_> = (0..30)
        .map(
            |n| json!({"to": format!("user{n}@example.net"), "variables": {"name": format!("<User & {n}>")}}),
        )
        .collect();
    let answer = house.send(&json!({
        "from": "ann@example.org", "subject": "Order of {{name}}", "text": "Dear {{name}}, {{shop}}",
        "html": "<p>Dear {{name}}, {{{shop}}}", "variables": {"shop": "<b>us</b>"}, "recipients": recipients,
    }));
    assert_eq!((answer.status, &answer.body["accepted"]), (202, &json!(30)), "{}", answer.body);
    let mut seen = HashMap::new();
    for _ in 0..30 {
        let mail = house.sink.mail();
        assert_eq!(mail.rcpt.len(), 1, "{mail:?}");
        seen.insert(mail.rcpt[0].clone(), mail);
    }
    let (_, seventh) = seen.iter().find(|(rcpt, _)| rcpt.starts_with("<user7@")).unwrap();
    let first = judged(seventh);
    assert_eq!(first["defects"], json!([]));
    assert_eq!(first["headers"]["subject"], "Order of <User & 7>");
    assert!(first["text"].as_str().unwrap().contains("Dear <User & 7>, <b>us</b>"), "{first}");
    assert!(first["html"].as_str().unwrap().contains("Dear &lt;User &amp; 7&gt;, <b>us</b>"), "{first}");
    assert_eq!(seen.len(), 30);
    let by_shard = |shard: &str| house.server.metric("ringpost_messages_total", &["side=\"in\"", shard]);
    let (one, other) = (by_shard("shard=\"0\""), by_shard("shard=\"1\""));
    assert!(one >= 10.0 && other >= 10.0, "spread over the shards: {one} and {other}");
    let wrong = house.send(&json!({
        "from": "ann@example.org", "text": "Dear {{nmae}}",
        "recipients": [{"to": "bob@example.net", "variables": {"name": "Bob"}}],
    }));
    assert_eq!((wrong.status, &wrong.body["errors"][0]["pointer"]), (422, &json!("/text")), "{}", wrong.body);
    assert!(wrong.body["errors"][0]["detail"].as_str().unwrap().contains("\"nmae\" is not given"));
    assert_eq!(house.sink.waiting(), 0);
}

#[test]
fn a_message_waits_and_can_be_looked_at() {
    let house = house("");
    house.sink.refuse_recipients("450 4.2.2 mailbox full");
    let answer = house.send(&json!({"from": "ann@example.org", "to": "bob@example.net", "text": "x"}));
    house.server.event("outcome", |event| event["result"] == "deferred");
    let status = house.curl(&[&house.url(answer.body["location"].as_str().unwrap())], "");
    assert_eq!(status.status, 200, "{}", status.body);
    let recipient = &status.body["recipients"][0];
    assert_eq!((&recipient["address"], &recipient["state"]), (&json!("bob@example.net"), &json!("deferred")));
    assert!(recipient["reply"].as_str().unwrap().contains("mailbox full"));
    let answer = house.curl(&[&house.url("/api/v1/messages/0000000000ZZZ")], "");
    assert_eq!(answer.status, 404);
}

#[test]
fn a_repeated_request_sends_nothing_twice() {
    let house = house("");
    let message = json!({"from": "ann@example.org", "to": "bob@example.net", "text": "x"}).to_string();
    let key = ["-H", "Idempotency-Key: \"order-1\""];
    let answers: Vec<_> = thread::scope(|scope| {
        let ask = || house.post("application/json", "", &message, &key);
        let asking: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let accepted: Vec<_> = answers.iter().filter(|answer| answer.status == 202).collect();
    assert!(answers.iter().all(|answer| [202, 409].contains(&answer.status)));
    assert!(accepted.iter().all(|answer| answer.body["id"] == accepted[0].body["id"]), "one message, one id");
    house.sink.mail();
    let again = house.post("application/json", "", &message, &key);
    assert!(again.head.to_ascii_lowercase().contains("idempotency-replayed: true"), "{}", again.head);
    let marker = house
        .send(&json!({"from": "ann@example.org", "to": "bob@example.net", "subject": "marker", "text": ""}));
    assert_eq!(marker.status, 202);
    assert!(house.sink.mail().content.contains("marker"), "nothing came between");
}

#[test]
fn policy_and_limits_are_those_of_smtp() {
    // No route for anything but the sink's domains: what SMTP refuses, HTTP refuses.
    let sink = Sink::start();
    let (key, entry) = new_key("shop");
    let route = sink.route().replace("\"*\"", "\"example.net\"");
    let more = "[limits]\nmessage-size-max = \"64KiB\"\nheader-size-max = \"16KiB\"\nrecipients-max = 100\n";
    let server = Server::start(&format!("{route}{entry}{more}"));
    let house = House { server, sink, key };
    let answer = house.send(
        &json!({"from": "ann@example.org", "to": ["bob@example.net", "x@nowhere.example"], "text": "x"}),
    );
    assert_eq!((answer.status, &answer.body["smtp"]["reason"]), (422, &json!("policy")), "{}", answer.body);
    assert_eq!(answer.body["errors"][0]["pointer"], "/to");
    let answer = house
        .send(&json!({"from": "ann@example.org", "to": "bob@example.net", "text": "x\n".repeat(40_000)}));
    assert_eq!(answer.status, 413, "{}", answer.body);
    let crowd: Vec<_> = (0..101).map(|n| format!("u{n}@example.net")).collect();
    let answer = house.send(&json!({"from": "ann@example.org", "to": crowd, "text": "x"}));
    assert_eq!(answer.status, 422, "{}", answer.body);
    let eve = house.send(&json!({"from": "eve@example.com", "to": "bob@example.net", "text": "x"}));
    assert_eq!(eve.status, 403, "{}", eve.body);
    house
        .server
        .event("request_refused", |event| event["reason"] == "sender-not-allowed" && event["key"] == "shop");
    assert_eq!(house.sink.waiting(), 0);
}

/// Backpressure says when to come again (RFC 6585 §4), and then it goes.
#[test]
fn who_sends_too_much_is_told_when_to_come_again() {
    let sink = Sink::start();
    let (key, entry) = new_key("shop");
    let server = Server::start(&format!("{}{entry}messages-per-minute = 30\n", sink.route()));
    let house = House { server, sink, key };
    let message = json!({"from": "ann@example.org", "to": "bob@example.net", "text": "x"});
    let refused = (0..40).map(|_| house.send(&message)).find(|answer| answer.status != 202).unwrap();
    assert_eq!((refused.status, &refused.body["type"]), (429, &json!("urn:ringpost:problem:rate-limited")));
    let wait = refused
        .head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("retry-after: ")?.parse().ok());
    let wait: u64 = wait.unwrap_or_else(|| panic!("{}", refused.head));
    assert!((1..=60).contains(&wait), "{wait} s");
    house
        .server
        .event("request_refused", |event| event["reason"] == "rate-limited" && event["key"] == "shop");
    thread::sleep(Duration::from_secs(wait));
    assert_eq!(house.send(&message).status, 202);
}

#[test]
fn who_is_denied_by_smtp_is_denied_by_http() {
    let sink = Sink::start();
    let (key, entry) = new_key("shop");
    let common = format!("{}{entry}", sink.route());
    let lists =
        |deny: &str, allow: &str| format!("clients.deny = [{deny}]\nclients.allow = [{allow}]\n{common}");
    let server = Server::start(&lists("\"127.0.0.0/8\"", ""));
    let house = House { server, sink, key };
    let message = json!({"from": "ann@example.org", "to": "bob@example.net", "text": "x"});
    Client::connect(house.server.smtp()).expect(554);
    let denied = house.send(&message);
    assert_eq!((denied.status, &denied.body["type"]), (403, &json!("urn:ringpost:problem:client-denied")));
    assert_eq!(denied.body["smtp"]["reason"], "connection_refused", "{}", denied.body);
    let looked = house.curl(&[&house.url("/api/v1/messages/0000000000000")], "");
    assert_eq!((looked.status, &looked.body["type"]), (403, &denied.body["type"]), "to look is not let in");
    house.server.configure(&lists("\"127.0.0.0/8\"", "\"127.0.0.1\""));
    house.server.reload();
    assert_eq!(house.send(&message).status, 202, "who is allowed is let in");
    assert_eq!(house.sink.mail().rcpt.len(), 1);
}

#[test]
fn rubbish_is_refused_and_harms_nobody() {
    let house = house("[http]\nrequest-size-max = \"1MiB\"\nbody-timeout = \"1s\"\n");
    for body in
        ["", "{", "[]", "null", "\u{0}", "{\"messages\":7}", &"[".repeat(100_000), "{\"from\":\"\\ud800\"}"]
    {
        let answer = house.post("application/json", "", body, &[]);
        assert!([400, 422].contains(&answer.status), "{body:.20}: {}", answer.status);
        assert!(answer.body["remedy"].is_string(), "{body:.20}: {}", answer.body);
    }
    let large = "x".repeat(2 << 20);
    assert_eq!(house.post("application/json", "", &large, &[]).status, 413);
    assert_eq!(house.post("application/json", "", &large, &["-H", "Transfer-Encoding: chunked"]).status, 413);
    assert_eq!(house.post("text/html", "", "x", &[]).status, 415);
    // Somebody who sends half a body and waits.
    let mut slow = Client::connect(house.server.http());
    slow.put(
        format!(
            "POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{\"from\":",
            house.key
        )
        .as_bytes(),
    );
    // Others who hang up in the middle.
    for _ in 0..20 {
        let mut gone = Client::connect(house.server.http());
        gone.put(b"POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{");
    }
    assert!(slow.rest().starts_with("HTTP/1.1 408 "), "who is slow is told so");
    let answer = house.send(&json!({"from": "ann@example.org", "to": "bob@example.net", "text": "fine"}));
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert!(house.sink.mail().content.contains("fine"));
    assert_eq!(house.server.metric("ringpost_sessions_panicked_total", &[]), 0.0);
    assert_eq!(house.server.metric("ringpost_http_memory_bytes", &[]), 0.0);
}

#[test]
fn an_address_may_take_mail_and_nothing_else() {
    let address = free_address();
    let house = house(&format!("[http]\nmail-address = [\"{address}\"]\n"));
    let url = |path: &str| format!("http://{address}{path}");
    let message = json!({"from": "ann@example.org", "to": "bob@example.net", "text": "x"}).to_string();
    let answer = house.curl(&["--json", &message, &url("/api/v1/messages")], "");
    assert_eq!(answer.status, 202, "{}", answer.body);
    for path in ["/metrics", "/api/v1/queue", "/api/v1/status"] {
        assert_eq!(house.curl(&[&url(path)], "").status, 404, "{path}");
    }
    assert_eq!(house.curl(&[&url("/api/v1/openapi.json")], "").body["openapi"], "3.1.0");
    // A new key holds after a reload, and the old one no more.
    let (key, entry) = new_key("other");
    house.server.configure(&format!("{}{entry}[http]\nmail-address = [\"{address}\"]\n", house.sink.route()));
    house.server.reload();
    assert_eq!(house.curl(&["--json", &message, &url("/api/v1/messages")], "").status, 401);
    let house = House { key, ..house };
    assert_eq!(house.curl(&["--json", &message, &url("/api/v1/messages")], "").status, 202);
}

/// What was answered with a success is delivered, though the server is killed at any moment.
#[test]
fn sigkill_loses_nothing_that_was_taken() {
    let mut house =
        house("[queue]\nretry = [\"1s\"]\ndestination-retry-min = \"1s\"\n[log]\nlevel = \"info\"\n");
    let mut acknowledged = Vec::new();
    for round in 0..8 {
        let url = house.url("/api/v1/messages");
        let bearer = format!("Authorization: Bearer {}", house.key);
        let enough = 20 + round * 7;
        let (told, heard) = std::sync::mpsc::channel();
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (url, bearer, told) = (url.clone(), bearer.clone(), told.clone());
                thread::spawn(move || {
                    for number in 0..1000 {
                        let subject = format!("r{round}c{client}n{number}.");
                        let message = json!({"from": "ann@example.org", "to": "bob@example.net",
                            "subject": subject, "text": "x".repeat(number * 100)});
                        let arguments = [
                            "-s",
                            "-o",
                            "/dev/null",
                            "-w",
                            "%{http_code}",
                            "--max-time",
                            "20",
                            "-H",
                            &bearer,
                            "--json",
                            &message.to_string(),
                            &url,
                        ];
                        let finished = run(Path::new("curl"), &arguments, "");
                        if finished.stdout != "202" || told.send(subject).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        drop(told);
        for _ in 0..enough {
            acknowledged.extend(heard.recv());
        }
        house.server.kill();
        acknowledged.extend(heard);
        clients.into_iter().for_each(|client| client.join().unwrap());
        house.server.resume();
    }
    assert!(acknowledged.len() > 300, "{}", acknowledged.len());
    let mut missing: std::collections::HashSet<_> = acknowledged.into_iter().collect();
    while !missing.is_empty() {
        let mail = house.sink.mail();
        let subject =
            mail.content.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap().to_owned();
        assert!(mail.content.contains("Message-ID: ") && mail.content.contains("Date: "));
        missing.remove(subject.trim_end());
    }
}

/// The examples of the page are what they say: each is sent as it stands there.
#[test]
fn the_examples_of_the_page_work() {
    let house = house("");
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/http.md")).unwrap();
    let examples: Vec<_> =
        page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let of_curl: Vec<_> = examples.iter().filter(|example| example.contains("curl ")).collect();
    assert!(of_curl.len() >= 5, "{}", of_curl.len());
    for example in of_curl {
        let script = format!(
            "cd {}; export KEY={} RINGPOST=http://{}; printf 'From: ann@example.org\\nTo: bob@example.net\\n\\nx\\n' > mail.eml\n\
             curl() {{ command curl -sS --fail-with-body --max-time 60 \"$@\"; }}\nset -e\n{example}",
            house.server.place().path().display(),
            house.key,
            house.server.http(),
        );
        let finished = run(Path::new("bash"), &["-c", &script], "");
        assert!(finished.status.success(), "{example}\n{finished}");
    }
}
