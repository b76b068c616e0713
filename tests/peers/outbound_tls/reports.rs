//! What domains are told of the TLS of their hosts (RFC 8460), by mail and by HTTPS.

use end_to_end::{Server, Sink, built, free_address, run, tool, until};
use serde_json::{Value, json};

use crate::{
    haproxy::{Haproxy, front_with_tls},
    parsedmarc::parsed,
};

use super::{Host, authority::Authority, check, policy_host::PolicyHost, zones::Zones};

/// Reads a mail as anybody would, and prints the report in it.
const READ: &str = "
import email, gzip, sys
mail = email.message_from_string(sys.stdin.read())
assert mail.get_content_type() == 'multipart/report', mail.get_content_type()
assert mail.get_param('report-type') == 'tlsrpt'
words, report = mail.get_payload()
assert words.get_content_type() == 'text/plain'
assert report.get_content_type() == 'application/tlsrpt+gzip'
assert report.get_filename().endswith('.json.gz')
print(gzip.decompress(report.get_payload(decode=True)).decode())
";

fn policies(report: &Value) -> Vec<&Value> {
    let mut all: Vec<_> = report["policies"].as_array().unwrap().iter().collect();
    all.sort_by_key(|policy| policy["policy"]["policy-type"].to_string());
    all
}

#[test]
fn domains_are_told() {
    let authority = Authority::new(&["good.plain.test"]);
    let names = ["mta-sts.kept.plain.test", "reports.plain.test"];
    let collector = PolicyHost::start(authority.issue("policies", &names));
    collector.says(
        "kept.plain.test",
        "200\ntext/plain\nversion: STSv1\nmode: enforce\nmx: good.plain.test\nmax_age: 86400\n",
    );
    let (host, mailbox) = (Host::start(&authority, ""), Sink::start());
    let (port, here, there) = (host.address().port(), host.address().ip(), collector.address().ip());
    let key = authority.key_digest("host");
    let wrong = "7".repeat(64);
    let signed = [
        format!("ee MX 10 ee\nee MX 20 wrong\nee A {here}\n_{port}._tcp.ee TLSA 3 1 1 {key}"),
        format!("wrong MX 10 wrong\nwrong A {here}\n_{port}._tcp.wrong TLSA 3 1 1 {wrong}"),
        "_smtp._tls.ee TXT \"v=TLSRPTv1; rua=mailto:reports@mailbox.test\"".to_owned(),
        "_smtp._tls.wrong TXT \"v=TLSRPTv1;rua=mailto:reports@mailbox.test\"".to_owned(),
    ];
    let collector_port = collector.address().port();
    let plain = [
        format!("kept MX 10 other\nkept MX 20 good\ngood A {here}\nother A {here}"),
        format!("_mta-sts.kept TXT \"v=STSv1; id=1;\"\nmta-sts.kept A {there}\nreports A {there}"),
        format!(
            "_smtp._tls.kept TXT \"v=TLSRPTv1; rua=https://reports.plain.test:{collector_port}/v1/tlsrpt\""
        ),
        "silent MX 10 good".to_owned(),
    ];
    let zones = Zones::start(&signed, &plain, port);
    let server = Server::start(&format!(
        "[cores]\ncount = 2\n[dns]\nservers = [\"{}\"]\n[queue]\ndestination-retry-min = \"1s\"\n\
         [outbound-tls]\npublic-authorities = false\nauthorities = [\"{}\"]\n[mta-sts]\nport = {collector_port}\n\
         [tls-reports]\nenabled = true\ncontact = \"tls@ringpost.test\"\norganization = \"Ringpost\"\n\
         [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {port}\nidle = \"0s\"\n\
         [[route]]\nname = \"mailbox\"\ndomains = [\"mailbox.test\"]\nvia = \"hop\"\nhosts = [\"{}\"]\n",
        zones.address(),
        authority.certificate().display(),
        mailbox.address(),
    ));
    check(&server, "ee.signed.test", "delivered", "dane", "");
    // What is counted is kept over a stop, and handed over by an old program.
    let server = server.restarted();
    check(&server, "ee.signed.test", "delivered", "dane", "");
    server.upgrade(&[]).good();
    let _successor = server.successor(1);
    server.event("took_over", |_| true);
    check(&server, "wrong.signed.test", "deferred", "dane", "");
    check(&server, "kept.plain.test", "delivered", "sts", "");
    // Nobody there wants to hear of it.
    check(&server, "silent.plain.test", "delivered", "opportunistic", "");
    let socket = server.place().join("data/control.sock");
    let url = "http://localhost/api/v1/tls-reports";
    let arguments = ["-sS", "--fail", "--unix-socket", socket.to_str().unwrap(), "-X", "POST", url];
    run(&tool("curl"), &arguments, "").good();

    let (head, report) = collector.report();
    assert_eq!(head, "reports.plain.test /v1/tlsrpt application/tlsrpt+gzip");
    assert_eq!(
        (&report["organization-name"], &report["contact-info"]),
        (&"Ringpost".into(), &"tls@ringpost.test".into())
    );
    let [sts] = policies(&report)[..] else { panic!("{report}") };
    let expected = json!({
        "policy-type": "sts",
        "policy-domain": "kept.plain.test",
        "policy-string": ["version: STSv1", "mode: enforce", "mx: good.plain.test", "max_age: 86400"],
        "mx-host": ["good.plain.test"],
    });
    assert_eq!(sts["policy"], expected);
    let summary = json!({ "total-successful-session-count": 1, "total-failure-session-count": 1 });
    assert_eq!(sts["summary"], summary, "{report}");
    let failure = &sts["failure-details"][0];
    assert_eq!(failure["result-type"], "validation-failure", "{report}");
    assert_eq!(failure["receiving-mx-hostname"], "other.plain.test", "{report}");

    let mut reports = [mailbox.mail(), mailbox.mail()];
    reports.sort_by_key(|mail| mail.content.contains("TLS-Report-Domain: wrong"));
    let read = |mail: &end_to_end::Mail| -> Value {
        assert!(mail.mail.starts_with("<>"), "{mail:?}");
        assert!(mail.content.contains("TLS-Required: No\r\n"), "{mail:?}");
        assert!(mail.content.contains("TLS-Report-Submitter: mx.ringpost.test\r\n"), "{mail:?}");
        let json = run(&tool("python3"), &["-c", READ], &mail.content).good().stdout;
        serde_json::from_str(&json).unwrap()
    };
    let good = read(&reports[0]);
    let expected = json!({
        "policy": {
            "policy-type": "tlsa",
            "policy-domain": "ee.signed.test",
            "policy-string": [format!("3 1 1 {key}")],
        },
        "summary": { "total-successful-session-count": 2, "total-failure-session-count": 0 },
    });
    assert_eq!(good["policies"], json!([expected]));
    let bad = read(&reports[1]);
    let [dane] = policies(&bad)[..] else { panic!("{bad}") };
    assert_eq!(dane["summary"]["total-failure-session-count"], 1, "{bad}");
    let failure = &dane["failure-details"][0];
    assert_eq!(failure["result-type"], "validation-failure", "{bad}");
    assert_eq!(failure["receiving-ip"], here.to_string(), "{bad}");
    // Another reader.
    let seen = parsed(&reports[1], "smtp_tls");
    let policy = &seen["policies"][0];
    assert_eq!([&policy["policy_domain"], &policy["policy_type"]], ["wrong.signed.test", "tlsa"], "{seen}");
    assert_eq!(
        (&policy["successful_session_count"], &policy["failed_session_count"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(policy["failure_details"][0]["result_type"], "validation-failure", "{seen}");
    let seen = parsed(&reports[0], "smtp_tls");
    assert_eq!(seen["policies"][0]["successful_session_count"], 2, "{seen}");
    server.event("tls_report_sent", |event| event["domain"] == "wrong.signed.test");
    // All are told, and nothing is left to be told again.
    let left =
        || std::fs::read_dir(server.place().join("data")).unwrap().map(|entry| entry.unwrap().file_name());
    until("no counts are left", || {
        left().all(|name| !name.to_string_lossy().starts_with("tls-results")).then_some(())
    });
}

/// `ringpost reports … --json` of a server that takes reports in.
fn taken_in(server: &Server, arguments: &[&str]) -> Vec<Value> {
    let config = server.place().join("ringpost.toml");
    let all = [&["reports", "--json", "--config", config.to_str().unwrap()], arguments].concat();
    let text = run(&built("ringpost"), &all, "").good().stdout;
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The whole way: one ringpost tells how TLS went, by mail and by HTTPS through a proxy, and another reads it.
#[test]
fn what_one_tells_another_reads() {
    let authority = Authority::new(&["reports.plain.test"]);
    let (host, front) = (Host::start(&authority, ""), free_address());
    let domains = "domains = [\"signed.test\", \"*.signed.test\"]\n";
    let reader =
        Server::start(&format!("[reports-in]\naddresses = [\"tls@mailbox.test\"]\nhttps = true\n{domains}"));
    let _proxy = Haproxy::start(front, &front_with_tls(front, &authority.chain(), reader.http()));
    let (port, here) = (host.address().port(), host.address().ip());
    let (key, wrong) = (authority.key_digest("host"), "7".repeat(64));
    let signed = [
        format!("ee MX 10 ee\nee MX 20 wrong\nee A {here}\n_{port}._tcp.ee TLSA 3 1 1 {key}"),
        format!("wrong MX 10 wrong\nwrong A {here}\n_{port}._tcp.wrong TLSA 3 1 1 {wrong}"),
        format!(
            "_smtp._tls.ee TXT \"v=TLSRPTv1; rua=mailto:tls@mailbox.test,https://reports.plain.test:{}/v1/tlsrpt\"",
            front.port()
        ),
        "_smtp._tls.wrong TXT \"v=TLSRPTv1;rua=mailto:tls@mailbox.test\"".to_owned(),
    ];
    let zones = Zones::start(&signed, &[format!("reports A {}", front.ip())], port);
    let writer = Server::start(&format!(
        "[dns]\nservers = [\"{}\"]\n[queue]\ndestination-retry-min = \"1s\"\n\
         [outbound-tls]\npublic-authorities = false\nauthorities = [\"{}\"]\n\
         [tls-reports]\nenabled = true\ncontact = \"tls@ringpost.test\"\norganization = \"Writer\"\n\
         [[route]]\nname = \"mx\"\ndomains = [\"*\"]\nvia = \"mx\"\nport = {port}\nidle = \"0s\"\n\
         [[route]]\nname = \"mailbox\"\ndomains = [\"mailbox.test\"]\nvia = \"hop\"\nhosts = [\"{}\"]\n",
        zones.address(),
        authority.certificate().display(),
        reader.smtp(),
    ));
    for _ in 0..2 {
        check(&writer, "ee.signed.test", "delivered", "dane", "");
    }
    check(&writer, "wrong.signed.test", "deferred", "dane", "");
    let socket = writer.place().join("data/control.sock");
    let url = "http://localhost/api/v1/tls-reports";
    let arguments = ["-sS", "--fail", "--unix-socket", socket.to_str().unwrap(), "-X", "POST", url];
    run(&tool("curl"), &arguments, "").good();

    // By mail and by HTTPS, in whichever order: it is one report.
    let came = |domain: &str, known: &str| {
        let is_it = |event: &Value| event["domain"] == domain && event["known"] == known;
        until("it comes", || reader.events("report_in").into_iter().find(is_it))
    };
    let both = [came("ee.signed.test", "no"), came("ee.signed.test", "yes")];
    assert_eq!(both.iter().filter(|event| event.get("client").is_some()).count(), 1, "{both:?}");
    assert_eq!(both.iter().filter(|event| event.get("id").is_some()).count(), 1, "{both:?}");
    let failed = came("wrong.signed.test", "no");
    assert_eq!(
        (&failed["org"], &failed["messages"], &failed["failed"]),
        (&json!("Writer"), &json!(1), &json!(1))
    );
    writer.event("tls_report_sent", |event| event["to"].as_str().unwrap().starts_with("https:"));

    let [summary] = &taken_in(&reader, &["summary", "--domain", "signed.test"])[..] else {
        panic!("one line")
    };
    assert_eq!(
        ["reports", "sessions", "failed_sessions"].map(|name| &summary[name]),
        [&json!(2), &json!(3), &json!(1)],
        "{summary}"
    );
    let policy = |domain: &str| {
        let mut policies = summary["policies"].as_array().unwrap().iter();
        policies.find(|policy| policy["domain"] == domain).unwrap()
    };
    let good = policy("ee.signed.test");
    assert_eq!(
        (&good["kind"], &good["successes"], &good["failures"]),
        (&json!("tlsa"), &json!(2), &json!(0))
    );
    let bad = policy("wrong.signed.test");
    assert_eq!((&bad["successes"], &bad["failures"]), (&json!(0), &json!(1)));
    let why = &bad["details"][0];
    assert_eq!(
        [&why["result"], &why["host"], &why["to"]],
        ["validation-failure", "wrong.signed.test", &here.to_string()]
    );
    let metric =
        |result: &str| reader.metric("ringpost_reports_in_posts_total", &[&format!("result=\"{result}\"")]);
    assert_eq!(metric("kept") + metric("known"), 1.0);
}
