//! Notifications to senders, read by Python's email module (RFC 3461, RFC 3464).

use end_to_end::{Mail, Server, Sink, run, tool};
use serde_json::Value;

use crate::drained;

/// What Python makes of a report: `{"report": …, "text": …, "fields": [{…}, …], "original": {…}}`.
pub(crate) fn parsed(report: &Mail) -> Value {
    let script = r#"
import email, email.policy, json, sys
m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
parts = list(m.iter_parts())
text, status, original = parts
original = original.get_content() if original.get_content_type() == "message/rfc822" else \
    email.message_from_string(original.get_content(), policy=email.policy.default)
print(json.dumps({
    "defects": [str(d) for p in m.walk() for d in p.defects],
    "types": [p.get_content_type() for p in parts],
    "report": dict(m.items()),
    "type": m.get_content_type() + "; " + m.get_param("report-type"),
    "text": text.get_content(),
    "fields": [dict(group.items()) for group in status.get_payload()],
    "original": dict(original.items()),
}))
"#;
    let finished = run(&tool("python3"), &["-c", script], &report.content).good();
    let value: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(value["defects"], serde_json::json!([]), "{value:#}");
    assert_eq!(value["type"], "multipart/report; delivery-status", "{value:#}");
    value
}

/// The next report at the sink. It has the null reverse-path (RFC 3464 §2).
pub(crate) fn report(sink: &Sink) -> Value {
    let mail = sink.mail();
    assert!(mail.mail.starts_with("<>"), "{mail:?}");
    assert_eq!(mail.rcpt.len(), 1, "{mail:?}");
    assert!(mail.rcpt[0].starts_with("<ann@example.org>"), "{mail:?}");
    parsed(&mail)
}

#[test]
fn a_refusal_comes_back_as_a_report() {
    let sink = Sink::start();
    let refuse = |command: &str| command.contains("<bob@").then(|| "550 5.1.1 no bob here".to_owned());
    sink.answer(move |command| command.starts_with("RCPT").then(|| refuse(command)).flatten());
    let server = Server::start(&sink.route());
    let mut client = server.client();
    client.send(
        "ann@example.org",
        &["bob@example.net", "cid@example.net"],
        "From: ann@example.org\r\nSubject: to two\r\nMessage-ID: <1@example.org>\r\n\r\nhello\r\n",
    );
    let mails = [sink.mail(), sink.mail()];
    let (reports, others): (Vec<_>, Vec<_>) = mails.iter().partition(|mail| mail.mail.starts_with("<>"));
    assert!(others[0].rcpt[0].starts_with("<cid@example.net>"), "{others:?}");
    let report = parsed(reports[0]);
    assert_eq!(
        report["types"],
        serde_json::json!(["text/plain", "message/delivery-status", "message/rfc822"])
    );
    let (message, recipient) = (&report["fields"][0], &report["fields"][1]);
    assert_eq!(message["Reporting-MTA"], "dns; mx.ringpost.test", "{report:#}");
    assert!(message["Arrival-Date"].is_string(), "{report:#}");
    assert_eq!(recipient["Final-Recipient"], "rfc822; bob@example.net", "{report:#}");
    assert!(recipient["Remote-MTA"].as_str().unwrap().starts_with("dns; "), "{report:#}");
    assert_eq!(
        (&recipient["Action"], &recipient["Status"]),
        (&"failed".into(), &"5.1.1".into()),
        "{report:#}"
    );
    assert!(recipient["Diagnostic-Code"].as_str().unwrap().starts_with("smtp; 550 5.1.1 no bob here"));
    assert_eq!(report["fields"].as_array().unwrap().len(), 2, "cid is not in it: {report:#}");
    assert_eq!(report["original"]["Subject"], "to two", "{report:#}");
    assert!(report["text"].as_str().unwrap().contains("no bob here"), "{report:#}");
    assert!(report["report"]["Auto-Submitted"].as_str().unwrap().starts_with("auto-replied"), "{report:#}");
    drained(&server);
    assert_eq!(sink.waiting(), 0);
    assert_eq!(server.metric("ringpost_dsns_total", &["kind=\"failed\""]), 1.0);
    assert_eq!(server.metric("ringpost_delivery_outcomes_total", &["outcome=\"failed\""]), 1.0);
    assert_eq!(server.metric("ringpost_delivery_outcomes_total", &["outcome=\"delivered\""]), 2.0);
}

#[test]
fn a_refusal_of_the_content_returns_it() {
    let sink = Sink::start();
    let mut contents = 0;
    sink.answer(move |command| {
        contents += u32::from(command == ".");
        (command == "." && contents == 1).then(|| "554 5.7.1 looks like an advertisement".to_owned())
    });
    let server = Server::start(&sink.route());
    let content = "From: ann@example.org\r\nSubject: buy\r\n\r\nwithout end\r\n";
    server.client().send("ann@example.org", &["bob@example.net", "cid@example.net"], content);
    let report = report(&sink);
    assert_eq!(report["types"][2], "message/rfc822");
    assert_eq!(report["fields"].as_array().unwrap().len(), 3, "one report for both: {report:#}");
    for recipient in &report["fields"].as_array().unwrap()[1..] {
        assert_eq!((&recipient["Action"], &recipient["Status"]), (&"failed".into(), &"5.7.1".into()));
    }
    assert_eq!(report["original"]["Subject"], "buy");
    drained(&server);
}

#[test]
fn a_report_is_never_returned() {
    let sink = Sink::start();
    sink.refuse_recipients("550 5.1.1 nobody is here");
    let server = Server::start(&sink.route());
    // A message with the null reverse-path, and one whose report is refused in turn (RFC 5321 §6.1).
    server.client().send("", &["bob@example.net"], "Subject: null\r\n\r\n");
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: double\r\n\r\n");
    server.event("outcome", |event| event["to"] == "ann@example.org" && event["result"] == "failed");
    drained(&server);
    let written: Vec<_> =
        server.events("returned").iter().filter(|e| e.get("report").is_some()).cloned().collect();
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!(sink.waiting(), 0);
    let reports = |command: &&String| command.starts_with("RCPT TO:<ann@");
    assert_eq!(sink.commands().iter().filter(reports).count(), 1);
}

#[test]
fn delay_is_told_once_and_the_end_too() {
    let sink = Sink::start();
    let busy = |command: &str| command.contains("<bob@").then(|| "451 4.7.1 try again later".to_owned());
    sink.answer(move |command| command.starts_with("RCPT").then(|| busy(command)).flatten());
    let server = Server::start(&format!(
        "[queue]\nretry = [\"1s\"]\nretry-max = \"1s\"\ndelay-warning = \"2s\"\ngive-up = \"5s\"\n\
         bounce-give-up = \"5s\"\n{}",
        sink.route()
    ));
    server.client().send("ann@example.org", &["bob@example.net"], "Subject: slow\r\n\r\n");
    let delayed = report(&sink);
    let recipient = &delayed["fields"][1];
    assert_eq!(
        (&recipient["Action"], &recipient["Status"]),
        (&"delayed".into(), &"4.7.1".into()),
        "{delayed:#}"
    );
    assert!(recipient["Will-Retry-Until"].is_string(), "{delayed:#}");
    let failed = report(&sink);
    let recipient = &failed["fields"][1];
    assert_eq!(recipient["Action"], "failed", "{failed:#}");
    assert!(
        recipient["Diagnostic-Code"].as_str().unwrap().contains("451 4.7.1 try again later"),
        "{failed:#}"
    );
    assert_eq!(failed["original"]["Subject"], "slow");
    drained(&server);
    assert_eq!(sink.waiting(), 0, "one warning, one end");
}
