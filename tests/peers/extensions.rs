//! What a sender asks for with MAIL and RCPT, from the reply to EHLO to the last report.

use end_to_end::{Server, Sink};

use crate::{
    drained, hop,
    postfix::Postfix,
    reports::{parsed, report},
};

const CONTENT: &str = "From: ann@example.org\r\nSubject: wishes\r\n\r\nhello\r\n";

/// Sends a message whose MAIL and RCPT are these.
fn send(server: &Server, mail: &str, rcpt: &[&str]) {
    let mut client = server.client();
    client.say(mail);
    client.expect(250);
    for rcpt in rcpt {
        client.say(rcpt);
        client.expect(250);
    }
    client.say("DATA");
    client.expect(354);
    client.put(format!("{CONTENT}.\r\n").as_bytes());
    client.expect(250);
}

/// A sink that offers these extensions and no others.
fn sink_with(offers: &'static [&'static str]) -> Sink {
    let sink = Sink::start();
    sink.answer(move |command| {
        let lines = offers.iter().map(|offer| format!("250-{offer}\r\n"));
        command
            .starts_with("EHLO")
            .then(|| format!("250-sink.test\r\n{}250 PIPELINING", lines.collect::<String>()))
    });
    sink
}

#[test]
fn a_next_hop_with_dsn_is_told_what_is_wanted() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    send(
        &server,
        "MAIL FROM:<ann@example.org> RET=HDRS ENVID=QQ+2B1",
        &[
            "RCPT TO:<bob@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+2Bx@old.example",
            "RCPT TO:<cid@example.net> NOTIFY=NEVER",
            "RCPT TO:<dan@example.net>",
        ],
    );
    let mail = sink.mail();
    assert!(mail.mail.ends_with(" RET=HDRS ENVID=QQ+2B1"), "{mail:?}");
    assert_eq!(
        mail.rcpt,
        [
            "<bob@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+2Bx@old.example",
            "<cid@example.net> NOTIFY=NEVER",
            "<dan@example.net>",
        ]
    );
    drained(&server);
    assert_eq!(sink.waiting(), 0, "the next hop answers for the report");
}

#[test]
fn success_is_told_where_nobody_behind_us_does() {
    let sink = sink_with(&["8BITMIME"]);
    let server = Server::start(&sink.route());
    send(
        &server,
        "MAIL FROM:<ann@example.org> RET=FULL ENVID=QQ1",
        &[
            "RCPT TO:<bob@example.net> NOTIFY=SUCCESS ORCPT=rfc822;Bob@old.example",
            "RCPT TO:<cid@example.net> NOTIFY=SUCCESS,DELAY",
            "RCPT TO:<dan@example.net> NOTIFY=NEVER",
            "RCPT TO:<eve@example.net>",
        ],
    );
    let mails = [sink.mail(), sink.mail()];
    let (reports, others): (Vec<_>, Vec<_>) = mails.iter().partition(|mail| mail.mail.starts_with("<>"));
    assert_eq!((reports.len(), others[0].rcpt.len()), (1, 4), "{mails:?}");
    let report = parsed(reports[0]);
    let fields = report["fields"].as_array().unwrap();
    assert_eq!(fields.len(), 3, "one report on two of them: {report:#}");
    assert_eq!(fields[0]["Original-Envelope-Id"], "QQ1", "{report:#}");
    assert_eq!(fields[1]["Original-Recipient"], "rfc822; Bob@old.example", "{report:#}");
    for (recipient, address) in fields[1..].iter().zip(["bob", "cid"]) {
        assert_eq!(recipient["Final-Recipient"], format!("rfc822; {address}@example.net"), "{report:#}");
        assert_eq!((&recipient["Action"], &recipient["Status"]), (&"relayed".into(), &"2.0.0".into()));
    }
    // Only a failure returns the message (RFC 3461 §4.3).
    assert_eq!(report["types"][2], "text/rfc822-headers", "{report:#}");
    drained(&server);
    assert_eq!(sink.waiting(), 0);
    assert_eq!(server.metric("ringpost_dsns_total", &["kind=\"delivered\""]), 1.0);
}

#[test]
fn who_wants_to_hear_nothing_hears_nothing() {
    let sink = Sink::start();
    sink.refuse_recipients("550 5.1.1 nobody is here");
    let server = Server::start(&sink.route());
    send(
        &server,
        "MAIL FROM:<ann@example.org>",
        &["RCPT TO:<bob@example.net> NOTIFY=NEVER", "RCPT TO:<cid@example.net> NOTIFY=SUCCESS,DELAY"],
    );
    server.event("returned", |event| event.get("report").is_none());
    drained(&server);
    assert_eq!(sink.waiting(), 0);
}

#[test]
fn a_failure_returns_what_was_asked_for() {
    let sink = Sink::start();
    let refuse = |command: &str| command.contains("<bob@").then(|| "550 5.1.1 no bob here".to_owned());
    sink.answer(move |command| command.starts_with("RCPT").then(|| refuse(command)).flatten());
    let server = Server::start(&sink.route());
    for (ret, part) in [("HDRS", "text/rfc822-headers"), ("FULL", "message/rfc822")] {
        send(&server, &format!("MAIL FROM:<ann@example.org> RET={ret}"), &["RCPT TO:<bob@example.net>"]);
        let report = report(&sink);
        assert_eq!(report["types"][2], part, "{report:#}");
        assert_eq!(report["original"]["Subject"], "wishes");
    }
    drained(&server);
}

#[test]
fn a_listener_offers_what_it_is_told_to() {
    let sink = Sink::start();
    let server = Server::start(&format!(
        "[[listener]]\nname = \"smtp\"\nextensions = {{ dsn = false, chunking = false }}\n{}",
        sink.route()
    ));
    let mut client = server.client();
    client.say("EHLO client.example");
    let offers = client.expect(250).text();
    assert!(!offers.contains("DSN") && !offers.contains("CHUNKING"), "{offers}");
    assert!(offers.contains("SMTPUTF8"), "{offers}");
    client.say("MAIL FROM:<ann@example.org> RET=FULL");
    client.expect(555);
}

/// Postfix offers DSN: the report is its affair, and it knows what our client asked for.
#[test]
fn postfix_reports_for_us() {
    let sink = sink_with(&["8BITMIME"]);
    let mut server = Server::prepare("");
    let postfix = Postfix::start(sink.address(), "");
    server.configure(&hop(postfix.address(), "none"));
    server.resume();
    send(
        &server,
        "MAIL FROM:<ann@example.org> ENVID=QQ+2B7",
        &["RCPT TO:<bob@example.net> NOTIFY=SUCCESS ORCPT=rfc822;Bob+2Bx@old.example"],
    );
    let mails = [sink.mail(), sink.mail()];
    let report = mails.iter().find(|mail| mail.mail.starts_with("<>")).unwrap();
    for field in
        ["Original-Envelope-Id: QQ+7", "Original-Recipient: rfc822;Bob+x@old.example", "Action: relayed"]
    {
        assert!(report.content.contains(&format!("{field}\r\n")), "{report:?}");
    }
    drained(&server);
    assert_eq!(server.metric("ringpost_dsns_total", &["kind=\"delivered\""]), 0.0);
}
