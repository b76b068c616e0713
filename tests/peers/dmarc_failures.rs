//! What domains are told of single messages that bore their names and failed (DMARC, RFC 9991): read by Python and by ourselves.

use end_to_end::{Mail, run, tool, until};
use serde_json::Value;

use crate::authenticity::{House, MESSAGE, new_key, signed, text_record, verified};
use crate::parsedmarc::parsed;

/// Reads a mail as anybody would, and prints what is in it.
const READ: &str = "
import email, json, sys
mail = email.message_from_string(sys.stdin.read())
assert mail.get_content_type() == 'multipart/report', mail.get_content_type()
assert mail.get_param('report-type') == 'feedback-report'
words, feedback, header = mail.get_payload()
assert words.get_content_type() == 'text/plain'
assert feedback.get_content_type() == 'message/feedback-report'
assert header.get_content_type() == 'text/rfc822-headers'
assert not any(part.defects for part in mail.walk())
fields = feedback.get_payload()[0]
shown = email.message_from_string(header.get_payload())
assert not shown.defects and not shown.get_payload()
line = lambda value: ' '.join(value.split())
print(json.dumps({
    'feedback': {name: line(value) for name, value in fields.items()},
    'header': [[name, line(value)] for name, value in shown.items()],
    'auto': mail['Auto-Submitted'], 'from': mail['From'],
}))
";

fn read(mail: &Mail) -> Value {
    assert!(mail.mail.starts_with("<>"), "{mail:?}");
    let text = run(&tool("python3"), &["-c", READ], &mail.content).good().stdout;
    serde_json::from_str(&text).unwrap()
}

#[test]
fn domains_are_told_of_mail_that_fails() {
    let mut record = String::new();
    let house = House::with("dmarc-reject = \"refuse\"\n", |server, sink| {
        let (key, own) = new_key(server, "ringpost.test", "d1", "rsa2048");
        record = own;
        let zone = [
            text_record(
                "_dmarc.example.org",
                "v=DMARC1; p=reject; fo=1; ruf=mailto:any@reports.example,mailto:spy@victim.example,\
                 mailto:small@example.org!1k,https://example.org/ruf",
            ),
            // The one who is asked for says that he wants them, and where; for the other kind it is elsewhere.
            text_record(
                "example.org._report._dmarc.reports.example",
                "v=DMARC1; rua=mailto:rua@reports.example; ruf=mailto:ruf@reports.example",
            ),
            text_record("_dmarc.silent.example", "v=DMARC1; p=reject; rua=mailto:ruf@reports.example"),
            text_record("silent.example._report._dmarc.reports.example", "v=DMARC1"),
            format!(
                "local-data: 'reports.example MX 10 mx.reports.example'\n\
                 local-data: 'mx.reports.example A {}'\n",
                sink.address().ip()
            ),
        ];
        let more = format!(
            "[cores]\ncount = 2\n\
             [dmarc-failures]\nenabled = true\ncontact = \"dmarc@ringpost.test\"\n\
             redaction-key = \"0123456789abcdef\"\ndomain-hourly-max = 2\n\
             {key}\
             [[route]]\nname = \"reports\"\ndomains = [\"reports.example\"]\nvia = \"mx\"\nport = {}\n{}",
            sink.address().port(),
            sink.route()
        );
        (zone.concat(), more)
    });
    let refused = |address: &str, from: &str, content: &str| {
        let reply = house.send(address, from, content);
        assert!(reply.starts_with("550 5.7.26 "), "{reply}");
    };
    // Nobody asks for it; it is a report itself; it is an answer by a program: none of them is told of.
    refused("192.0.2.66", "secret@bare.example", &MESSAGE.replace("example.org", "silent.example"));
    refused("192.0.2.66", "", MESSAGE);
    refused("192.0.2.66", "secret@bare.example", &format!("Auto-Submitted: auto-replied\r\n{MESSAGE}"));

    let told =
        |name: &str| house.server.metric("ringpost_dmarc_failures_total", &[&format!("result=\"{name}\"")]);
    refused("192.0.2.66", "secret@bare.example", &format!("X-Secret: yes\r\n{MESSAGE}"));
    let mail = house.sink.mail();
    assert_eq!(mail.rcpt, ["<ruf@reports.example>"]);
    // "Email streams carrying DMARC failure reports SHOULD be DMARC-aligned" (§5.1).
    assert_eq!(
        verified(&mail.content, &[("d1._domainkey.ringpost.test", &record)]),
        "ringpost.test d1 True\n"
    );
    let report = read(&mail);
    let feedback = |name: &str| report["feedback"][name].as_str().unwrap_or_default().to_owned();
    for (name, value) in [
        ("Feedback-Type", "auth-failure"),
        ("Version", "1"),
        ("Auth-Failure", "dmarc"),
        ("Delivery-Result", "reject"),
        ("Identity-Alignment", "dkim, spf"),
        ("Source-IP", "192.0.2.66"),
        ("Reported-Domain", "example.org"),
        ("Reporting-MTA", "dns; mx.ringpost.test"),
        ("Incidents", ""),
        ("DKIM-Domain", ""),
    ] {
        assert_eq!(feedback(name), value, "{name}: {report}");
    }
    assert!(feedback("Authentication-Results").contains("dmarc=fail"), "{report}");
    let mail_from = feedback("Original-Mail-From");
    assert!(mail_from.ends_with("@bare.example>") && !mail_from.contains("secret"), "{mail_from}");
    assert_eq!(report["from"], "<dmarc@ringpost.test>");
    // Of the message there are addresses without persons, its id and its date; not what it says.
    let names: Vec<_> =
        report["header"].as_array().unwrap().iter().map(|field| field[0].as_str().unwrap()).collect();
    assert_eq!(names, ["From", "To", "Date", "Message-ID"]);
    assert!(report["header"][0][1].as_str().unwrap().ends_with("@example.org>"), "{report}");
    assert_eq!(report["header"][3][1], "<1@example.org>");
    for private in ["Ann", "ann@", "bob@", "secret", "folded", "another"] {
        assert!(!mail.content.contains(private), "{private}: {}", mail.content);
    }
    // Another reader.
    let seen = parsed(&mail, "failure");
    assert_eq!(
        ["feedback_type", "delivery_result", "reported_domain", "reporting_mta"].map(|name| &seen[name]),
        ["auth-failure", "reject", "example.org", "dns; mx.ringpost.test"]
    );
    assert_eq!(seen["auth_failure"], serde_json::json!(["dmarc"]), "{seen}");
    assert_eq!(seen["authentication_mechanisms"], serde_json::json!(["dkim", "spf"]), "{seen}");
    assert_eq!(seen["source"]["ip_address"], "192.0.2.66", "{seen}");
    assert_eq!(
        (&seen["sample_headers_only"], &seen["parsed_sample"]["has_defects"]),
        (&true.into(), &false.into())
    );
    assert_eq!(seen["parsed_sample"]["from"]["domain"], "example.org", "{seen}");
    house.server.event("dmarc_failure_sent", |event| event["to"] == "ruf@reports.example");
    let unsent =
        |to: &str| house.server.event("dmarc_failure_unsent", |event| event["to"] == to)["error"].to_string();
    assert!(unsent("spy@victim.example").contains("does not say that it wants them"));
    assert!(unsent("small@example.org").contains("1024 are wanted"));

    // One like it is not told again.
    refused("192.0.2.66", "secret@bare.example", MESSAGE);
    until("it was one like the first", || (told("alike") == 1.0).then_some(()));
    // By a list: the signature stands for the author, who brings it does not; the message is taken.
    let good = signed(MESSAGE, "example.org", "r1", &house.key("dkim/r1.pem"));
    assert!(house.send("192.0.2.66", "list@bare.example", &good).starts_with("250 "));
    let mut mails = [house.sink.mail(), house.sink.mail()];
    mails.sort_by_key(|mail| mail.rcpt[0] == "<ruf@reports.example>");
    let report = read(&mails[1]);
    let fields = &report["feedback"];
    assert_eq!([&fields["Identity-Alignment"], &fields["Delivery-Result"]], ["spf", "delivered"]);
    assert!(
        report["header"].as_array().unwrap().iter().any(|field| field[0] == "DKIM-Signature"),
        "{report}"
    );
    // Two messages of a domain within an hour: of the third nobody is told.
    refused("192.0.2.67", "secret@bare.example", MESSAGE);
    until("there were too many", || (told("too-many") >= 1.0).then_some(()));
    until("two are told", || (told("sent") == 2.0).then_some(()));
    assert_eq!(house.sink.waiting(), 0);
}
