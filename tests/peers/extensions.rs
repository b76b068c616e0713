//! What a sender asks for with MAIL and RCPT, from the reply to EHLO to the last report.

use std::{collections::BTreeSet, fs};

use end_to_end::{Client, Server, Sink, run, tool, until};

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
    // SMTPUTF8 goes with 8BITMIME (RFC 6531 §3.1), BINARYMIME with CHUNKING (RFC 3030 §3).
    server.configure(&format!(
        "[[listener]]\nname = \"smtp\"\nextensions = {{ 8bitmime = false, chunking = false, binarymime = true }}\n{}",
        sink.route()
    ));
    server.reload();
    let offers = server.client().ask("EHLO client.example").text();
    assert!(!offers.contains("SMTPUTF8") && !offers.contains("BINARYMIME"), "{offers}");
}

/// Each can be switched off, and then what it is for is refused: as a parameter that nobody knows, or as such a command.
#[test]
fn every_extension_has_a_switch() {
    const ALL: [(&str, &str, &str); 13] = [
        ("pipelining", "PIPELINING", ""),
        ("size", "SIZE", ""),
        ("8bitmime", "8BITMIME", "MAIL FROM:<ann@example.org> BODY=8BITMIME"),
        ("smtputf8", "SMTPUTF8", "MAIL FROM:<ann@example.org> SMTPUTF8"),
        ("chunking", "CHUNKING", "BDAT 0 LAST"),
        ("binarymime", "BINARYMIME", "MAIL FROM:<ann@example.org> BODY=BINARYMIME"),
        ("dsn", "DSN", "MAIL FROM:<ann@example.org> RET=HDRS"),
        ("deliverby", "DELIVERBY", "MAIL FROM:<ann@example.org> BY=3600;R"),
        ("mt-priority", "MT-PRIORITY", "MAIL FROM:<ann@example.org> MT-PRIORITY=3"),
        ("futurerelease", "FUTURERELEASE", "MAIL FROM:<ann@example.org> HOLDFOR=60"),
        ("limits", "LIMITS", ""),
        ("etrn", "ETRN", "ETRN example.net"),
        ("enhancedstatuscodes", "ENHANCEDSTATUSCODES", ""),
    ];
    let sink = Sink::start();
    let etrn = "[[etrn]]\nname = \"all\"\nnetworks = [\"127.0.0.0/8\"]\ndomains = [\"example.net\"]\n";
    let configuration = |switches: &str| {
        format!("[[listener]]\nname = \"submission\"\nextensions = {{ {switches} }}\n{etrn}{}", sink.route())
    };
    let set = |on: &str| ALL.map(|(name, _, _)| format!("{name} = {on}")).join(", ");
    let server = Server::start(&configuration(&set("true")));
    let offered = |server: &Server| {
        let text = Client::greeted(server.submission()).ask("EHLO client.example").text();
        let words = text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
        words.collect::<BTreeSet<_>>()
    };
    let all = offered(&server);
    for (switch, keyword, used) in ALL {
        assert!(all.contains(keyword), "{keyword}: {all:?}");
        // Two others go with these.
        let others: &[&str] = match switch {
            "8bitmime" => &["SMTPUTF8"],
            "chunking" => &["BINARYMIME"],
            _ => &[],
        };
        server.configure(&configuration(
            &set("true").replace(&format!("{switch} = true"), &format!("{switch} = false")),
        ));
        assert_eq!(server.reload()["event"], "reloaded", "{switch}");
        let left = offered(&server);
        let gone: Vec<_> = all.difference(&left).map(String::as_str).collect();
        let mut expected = [&[keyword], others].concat();
        expected.sort_unstable();
        assert_eq!(gone, expected, "without {switch}");
        if !used.is_empty() {
            let reply = Client::greeted(server.submission()).ask(used);
            assert!([500, 501, 502, 504, 555].contains(&reply.code), "without {switch}, {used}: {reply:?}");
        }
    }
    server.configure(&configuration(&set("false")));
    server.reload();
    let none = offered(&server);
    assert!(ALL.iter().all(|(_, keyword, _)| !none.contains(*keyword)), "{none:?}");
    // What is left is SMTP.
    send(&server, "MAIL FROM:<ann@example.org>", &["RCPT TO:<bob@example.net>"]);
    assert!(sink.mail().content.contains("Subject: wishes"));
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

#[test]
fn a_deadline_travels_with_the_message() {
    let sink = sink_with(&["DELIVERBY", "DSN"]);
    let server = Server::start(&sink.route());
    send(&server, "MAIL FROM:<ann@example.org> BY=600;R", &["RCPT TO:<bob@example.net>"]);
    let mail = sink.mail().mail;
    let left =
        mail.split_once(" BY=").and_then(|(_, by)| by.strip_suffix(";R")).unwrap_or_else(|| panic!("{mail}"));
    assert!((1..=600).contains(&left.parse::<i64>().unwrap()), "{mail}");
    // The trace modifier: each hop is told of, though the next one knows the extension.
    send(&server, "MAIL FROM:<ann@example.org> BY=600;NT", &["RCPT TO:<bob@example.net>"]);
    let mails = [sink.mail(), sink.mail()];
    let told = mails.iter().find(|mail| mail.mail.starts_with("<>")).unwrap();
    assert_eq!(parsed(told)["fields"][1]["Action"], "relayed");
    drained(&server);
}

#[test]
fn where_nobody_keeps_a_deadline() {
    let sink = sink_with(&["DSN"]);
    let server = Server::start(&sink.route());
    send(&server, "MAIL FROM:<ann@example.org> BY=600;R", &["RCPT TO:<bob@example.net>"]);
    let failed = report(&sink);
    let recipient = &failed["fields"][1];
    assert_eq!(
        (&recipient["Action"], &recipient["Status"]),
        (&"failed".into(), &"5.3.3".into()),
        "{failed:#}"
    );
    // RFC 2852 §5.
    assert!(failed["fields"][0]["Deliver-By-Date"].is_string(), "{failed:#}");
    send(
        &server,
        "MAIL FROM:<ann@example.org> BY=600;N",
        &["RCPT TO:<bob@example.net>", "RCPT TO:<cid@example.net> NOTIFY=NEVER"],
    );
    let mails = [sink.mail(), sink.mail()];
    let (told, others): (Vec<_>, Vec<_>) = mails.iter().partition(|mail| mail.mail.starts_with("<>"));
    // RFC 2852 §4.1.4.2: who keeps no times is asked to tell of delays.
    assert_eq!(others[0].rcpt, ["<bob@example.net> NOTIFY=FAILURE,DELAY", "<cid@example.net> NOTIFY=NEVER"]);
    let told = parsed(told[0]);
    assert_eq!(told["fields"][1]["Action"], "relayed", "{told:#}");
    assert_eq!(told["fields"].as_array().unwrap().len(), 2, "who wants to hear nothing: {told:#}");
    drained(&server);
}

#[test]
fn when_the_time_is_up() {
    let sink = Sink::start();
    sink.answer(|command| match command {
        "RCPT TO:<bob@example.net>" => Some("451 4.7.1 try again later".to_owned()),
        "RSET" | "DATA" | "QUIT" => None,
        command if command.starts_with("EHLO") => Some("250-sink.test\r\n250 DELIVERBY".to_owned()),
        _ => None,
    });
    let server = Server::start(&format!(
        "[queue]\nretry = [\"1s\"]\nretry-max = \"1s\"\ngrace = \"1h\"\n{}",
        sink.route()
    ));
    send(&server, "MAIL FROM:<ann@example.org> BY=3;R", &["RCPT TO:<bob@example.net>"]);
    let failed = report(&sink);
    let recipient = &failed["fields"][1];
    assert_eq!(
        (&recipient["Action"], &recipient["Status"]),
        (&"failed".into(), &"5.4.7".into()),
        "{failed:#}"
    );
    send(&server, "MAIL FROM:<ann@example.org> BY=3;N", &["RCPT TO:<bob@example.net>"]);
    let delayed = report(&sink);
    let recipient = &delayed["fields"][1];
    // RFC 2852 §4.1.3, whatever the next hop said.
    assert_eq!(
        (&recipient["Action"], &recipient["Status"]),
        (&"delayed".into(), &"4.4.7".into()),
        "{delayed:#}"
    );
    assert_eq!(server.queue_json(&["list"]).len(), 1, "it is tried on");
}

#[test]
fn urgency_travels_with_the_message() {
    let sink = sink_with(&["MT-PRIORITY"]);
    let server = Server::start(&sink.route());
    for priority in ["-4", "7"] {
        let mail = format!("MAIL FROM:<ann@example.org> MT-PRIORITY={priority}");
        send(&server, &mail, &["RCPT TO:<bob@example.net>"]);
        let mail = sink.mail();
        assert!(mail.mail.ends_with(&format!(" MT-PRIORITY={priority}")), "{mail:?}");
        assert!(mail.content.contains(&format!("\r\n\tpriority {priority};")), "{mail:?}");
    }
    // A client that may not relay may not push forward either.
    server
        .configure(&format!("[relay]\nnetworks = []\n[[domain]]\nname = \"example.net\"\n{}", sink.route()));
    server.reload();
    let mut client = server.client();
    assert!(
        client
            .ask("MAIL FROM:<ann@example.org> MT-PRIORITY=7")
            .text()
            .contains("2.3.6 0 is the new priority")
    );
    client.ask("RSET");
    assert!(client.ask("MAIL FROM:<ann@example.org> MT-PRIORITY=-7").text().contains("2.1.0"));
}

#[test]
fn a_message_is_held_for_a_while() {
    let sink = Sink::start();
    let mut server = Server::start(&format!("[limits]\nhold-max = \"1d\"\n{}", sink.route()));
    let mut client = Client::greeted(server.submission());
    let offers = client.ask("EHLO client.example").text();
    assert!(offers.contains("FUTURERELEASE 86400 20"), "{offers}");
    assert_eq!(client.ask("MAIL FROM:<ann@example.org> HOLDFOR=86401").code, 501);
    for wait in ["HOLDFOR=2", "HOLDFOR=86000"] {
        for line in [&format!("MAIL FROM:<ann@example.org> {wait}"), "RCPT TO:<bob@example.net>"] {
            assert_eq!(client.ask(line).code, 250);
        }
        client.say("DATA");
        client.expect(354);
        client.put(format!("{CONTENT}.\r\n").as_bytes());
        client.expect(250);
    }
    sink.mail();
    let outcome = server.event("outcome", |event| event["result"] == "delivered");
    assert!(outcome["delay"].as_f64().unwrap() >= 1.5, "{outcome}");
    // A restart does not forget it, an operator may hurry.
    server = server.restarted();
    let held = server.queue_json(&["list"]);
    assert_eq!(held.len(), 1, "{held:?}");
    assert!(held[0].to_string().contains("deferred"), "{held:?}");
    assert_eq!(sink.waiting(), 0);
    server.queue(&["retry", "--all"]).good();
    sink.mail();
    drained(&server);
}

#[test]
fn binary_content_goes_by_bdat_or_comes_back() {
    let content = b"From: ann@example.org\r\n\r\na\nb\rc";
    let send = |server: &Server| {
        let mut client = server.client();
        let ask = |client: &mut Client, line: &str| assert_eq!(client.ask(line).code, 250, "{line}");
        ask(&mut client, "EHLO client.example");
        ask(&mut client, "MAIL FROM:<ann@example.org> BODY=BINARYMIME");
        ask(&mut client, "RCPT TO:<bob@example.net>");
        client.say(&format!("BDAT {} LAST", content.len()));
        client.put(content);
        client.expect(250);
    };
    let listener = "[[listener]]\nname = \"smtp\"\nextensions = { binarymime = true }\n";
    let sink = sink_with(&["CHUNKING", "BINARYMIME"]);
    let server = Server::start(&format!("{listener}{}", sink.route()));
    send(&server);
    let mail = sink.mail();
    assert!(mail.mail.contains(" BODY=BINARYMIME"), "{mail:?}");
    assert!(mail.content.ends_with("\r\n\r\na\nb\rc"), "{mail:?}");
    drop(server);
    let sink = sink_with(&["CHUNKING", "8BITMIME"]);
    let server = Server::start(&format!("{listener}{}8bit = \"refuse\"\n", sink.route()));
    send(&server);
    let report = report(&sink);
    let recipient = &report["fields"][1];
    assert_eq!(
        (&recipient["Action"], &recipient["Status"]),
        (&"failed".into(), &"5.6.3".into()),
        "{report:#}"
    );
    assert_eq!(report["types"][2], "text/rfc822-headers", "what has no lines is not returned: {report:#}");
    drained(&server);
}

#[test]
fn what_next_hops_take_at_once_is_kept_to() {
    let sink = sink_with(&["LIMITS RCPTMAX=2 RCPTDOMAINMAX=1"]);
    let server = Server::start(&sink.route());
    let mut client = server.client();
    assert!(client.ask("EHLO client.example").text().contains("LIMITS RCPTMAX=1000"));
    client.send(
        "ann@example.org",
        &["a@example.net", "b@example.net", "c@example.net", "d@example.com"],
        CONTENT,
    );
    let mut all = Vec::new();
    while all.len() < 4 {
        let mail = sink.mail();
        let domains: BTreeSet<_> = mail.rcpt.iter().map(|rcpt| rcpt.split('@').nth(1)).collect();
        assert!(mail.rcpt.len() <= 2 && domains.len() == 1, "{mail:?}");
        all.extend(mail.rcpt);
    }
    all.sort();
    assert_eq!(all, ["<a@example.net>", "<b@example.net>", "<c@example.net>", "<d@example.com>"]);
    drained(&server);
}

/// Sends by Python's smtplib, under TLS, with this parameter of MAIL.
fn send_under_tls(server: &Server, parameter: &str, to: &str) -> String {
    let (host, port) = (server.smtp().ip(), server.smtp().port());
    let script = format!(
        r#"
import smtplib, ssl
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with smtplib.SMTP("{host}", {port}) as client:
    client.ehlo()
    assert not client.has_extn("requiretls"), "offered in clear"
    client.starttls(context=context)
    client.ehlo()
    print(client.has_extn("requiretls"))
    client.sendmail("ann@example.org", ["{to}"], "Subject: secret\n\nbody\n", mail_options=["{parameter}", "RET=FULL"])
"#
    );
    run(&tool("python3"), &["-c", &script], "").good().stdout
}

#[test]
fn what_needs_tls_all_the_way_comes_back_without() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    assert_eq!(send_under_tls(&server, "REQUIRETLS", "bob@example.net").trim(), "True");
    let report = report(&sink);
    let recipient = &report["fields"][1];
    assert_eq!(
        (&recipient["Action"], &recipient["Status"]),
        (&"failed".into(), &"5.7.10".into()),
        "{report:#}"
    );
    assert_eq!(report["types"][2], "text/rfc822-headers", "the content stays here: {report:#}");
    drained(&server);
    assert!(
        !sink.commands().iter().any(|command| command.starts_with("MAIL FROM:<ann@")),
        "it was sent in clear"
    );
}

/// RFC 8689 from hop to hop: the certificate of the next one is good by the word of an authority of ours.
#[test]
fn what_needs_tls_all_the_way_has_it() {
    let next = Server::start(
        "[relay]\nnetworks = []\n[[domain]]\nname = \"example.org\"\n\
         [[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n",
    );
    let configuration = |authorities: &str| {
        format!(
            "[outbound-tls]\nauthorities = [{authorities}]\n\
             [dns]\nhosts = {{ \"mx.ringpost.test\" = [\"{}\"] }}\n\
             [[route]]\nname = \"next\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"mx.ringpost.test:{}\"]\n\
             [queue]\nretry = [\"1s\"]\nretry-max = \"1s\"\n",
            next.smtp().ip(),
            next.smtp().port()
        )
    };
    let server = Server::start(&configuration(""));
    let held = |count: usize| {
        let summary = || next.queue_json(&["list"]);
        until("it is with the next hop", || Some(summary()).filter(|held| held.len() == count))
    };
    // Nobody vouches for the next hop: the message comes back, and its report goes there all the same (§5).
    send_under_tls(&server, "REQUIRETLS", "bob@example.org");
    let held_now = held(1);
    assert!(held_now[0].to_string().contains("\"hold\""), "{held_now:?}");
    let outcome = server.event("outcome", |event| event["result"] == "failed");
    assert_eq!(outcome["status"], "5.7.10", "{outcome}");
    // The failed handshake is not held against the host: the report is encrypted as far as that goes.
    let accepted = next.event("accepted", |event| event["from"] == "");
    assert!(accepted["tls"].is_string(), "{accepted}");
    next.queue(&["remove", "--all", "--yes"]).good();

    // Into a folder that is within reach of the running server.
    let certificate = server.place().join("next.pem");
    fs::copy(next.place().join("certificate.pem"), &certificate).unwrap();
    server.configure(&configuration(&format!("{certificate:?}")));
    assert_eq!(server.reload()["event"], "reloaded");
    send_under_tls(&server, "REQUIRETLS", "bob@example.org");
    let held_now = held(1);
    assert!(held_now[0].to_string().contains("requiretls:hold"), "{held_now:?}");
    let outcome =
        server.event("outcome", |event| event["result"] == "delivered" && event["to"] == "bob@example.org");
    assert!(outcome["tls"].as_str().unwrap().starts_with("TLSv1.3"), "{outcome}");
    // What the next hop refuses is reported on, under the same demand.
    send_under_tls(&server, "REQUIRETLS", "bob@example.com");
    let held_now = held(2);
    assert!(held_now.iter().any(|held| held.to_string().contains("prefer-requiretls:hold")), "{held_now:?}");
    drained(&server);
}

#[test]
fn addresses_in_utf8_come_back_where_they_cannot_go() {
    let sink = sink_with(&["8BITMIME", "DSN"]);
    let server = Server::start(&sink.route());
    let mut client = server.client();
    // Without the parameter they are refused (RFC 6531 §3.5).
    assert!(client.ask("MAIL FROM:<ann@example.org>").text().contains("2.1.0"));
    let refused = client.ask("RCPT TO:<j\u{f6}rg@example.net>");
    assert_eq!(refused.code, 553, "{refused}");
    assert!(refused.text().contains("5.6.7"), "{refused}");
    client.ask("RSET");
    send(
        &server,
        "MAIL FROM:<ann@example.org> SMTPUTF8",
        &["RCPT TO:<j\u{f6}rg@example.net>", "RCPT TO:<bob@example.net>"],
    );
    // Who can be reached without gets it all the same.
    let mails = [sink.mail(), sink.mail()];
    let (reports, others): (Vec<_>, Vec<_>) = mails.iter().partition(|mail| mail.mail.starts_with("<>"));
    assert_eq!((reports.len(), &*others[0].rcpt), (1, &["<bob@example.net>".to_owned()][..]), "{mails:?}");
    let report = reports[0];
    assert!(report.content.contains("message/global-delivery-status"), "{report:?}");
    for line in ["Final-Recipient: utf-8; j\u{f6}rg@example.net", "Status: 5.6.7", "Action: failed"] {
        assert!(report.content.contains(line), "{line}: {report:?}");
    }
    assert!(!report.content.contains("bob@"), "{report:?}");
    // A client that asked for SMTPUTF8 without need reaches more hops (RFC 6531 §3.4).
    send(&server, "MAIL FROM:<ann@example.org> SMTPUTF8", &["RCPT TO:<cid@example.net>"]);
    assert!(sink.mail().rcpt[0].starts_with("<cid@"));
    drained(&server);
}
