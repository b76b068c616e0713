//! Reports that come to us: brought by swaks as providers pack them, made by Python's archivers; our own, come back
//! to us; and who has sent one, proven by unbound's DNS and dkimpy's signature.

use std::path::Path;

use end_to_end::{Server, built, free_address, run, tool, until};
use serde_json::{Value, json};

use crate::{
    authenticity::{House, MESSAGE, signed, text_record},
    haproxy::{Haproxy, front_with_tls},
    outbound_tls::Authority,
};

/// Prints noon of yesterday in seconds, and writes a DMARC report in gzip and in zip, and one on TLS in gzip, to
/// the directory it is told.
const PACK: &str = r#"
import gzip, json, os, sys, time, zipfile
place, noon = sys.argv[1], int(time.time()) // 86400 * 86400 - 43200
row = '''<record><row><source_ip>%s</source_ip><count>%d</count><policy_evaluated><disposition>none</disposition><dkim>%s</dkim><spf>fail</spf>
</policy_evaluated></row><identifiers><header_from>example.org</header_from></identifiers>
<auth_results><dkim><domain>example.org</domain>
<selector>s</selector><result>%s</result></dkim><spf><domain>b.example</domain><result>none</result></spf>
</auth_results></record>'''
def report(organization, identity):
    rows = row % ('192.0.2.1', 40, 'pass', 'pass') + row % ('2001:db8::7', 2, 'fail', 'fail')
    return ('<?xml version="1.0" encoding="UTF-8" ?><feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0"><version>1.0</version><report_metadata>'
        '<org_name>%s</org_name><email>x@%s</email><report_id>%s</report_id><date_range><begin>%d</begin><end>%d</end></date_range></report_metadata>'
        '<policy_published><domain>example.org</domain><p>none</p></policy_published>%s</feedback>'
        % (organization, organization, identity, noon, noon + 3600, rows)).encode()
gzip.open(os.path.join(place, 'google.xml.gz'), 'wb').write(report('google.example', 'g'))
with zipfile.ZipFile(os.path.join(place, 'outlook.zip'), 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('outlook.example!example.org!1!2.xml', report('outlook.example', 'o'))
at = lambda seconds: time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(seconds))
tls = {'organization-name': 'TLS & Co', 'date-range': {'start-datetime': at(noon),
      'end-datetime': at(noon + 3600)}, 'contact-info': 'x@tls.example',
    'report-id': 't', 'policies': [{'policy': {'policy-type': 'tlsa', 'policy-domain': 'example.org'},
        'summary': {'total-successful-session-count': 9, 'total-failure-session-count': 1},
        'failure-details': [{'result-type': 'validation-failure', 'receiving-mx-hostname': 'mx.example.org',
      'failed-session-count': 1}]}]}
gzip.open(os.path.join(place, 'tls.json.gz'), 'wb').write(json.dumps(tls).encode())
print(noon)
"#;

fn reports(server: &Server, arguments: &[&str]) -> Vec<Value> {
    let config = server.place().join("ringpost.toml");
    let all = [&["reports", "--json", "--config", config.to_str().unwrap()], arguments].concat();
    let text = run(&built("ringpost"), &all, "").good().stdout;
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn swaks_brings_reports_as_providers_pack_them() {
    let server = Server::start("[reports-in]\naddresses = [\"dmarc@example.org\"]\n");
    let place = server.place().path().to_str().unwrap();
    run(&tool("python3"), &["-c", PACK, place], "").good();
    for (kind, file) in [
        ("application/gzip", "google.xml.gz"),
        ("application/zip", "outlook.zip"),
        ("application/tlsrpt+gzip", "tls.json.gz"),
    ] {
        let attached = format!("@{}", server.place().join(file).display());
        let to = server.smtp().to_string();
        let arguments = [
            "--server",
            &to,
            "--from",
            "x@reporter.example",
            "--to",
            "dmarc@example.org",
            "--header",
            "Subject: Report Domain: example.org",
            "--body",
            "This is a report.",
            "--attach-type",
            kind,
            "--attach-name",
            file,
            "--attach",
            &attached,
        ];
        run(&tool("swaks"), &arguments, "").good();
        server.event("report_in", |event| event["known"] == "no");
    }
    let [summary] = &reports(&server, &["summary", "--domain", "example.org"])[..] else {
        panic!("one line")
    };
    assert_eq!(
        (&summary["reports"], &summary["messages"], &summary["passed"]),
        (&json!(3), &json!(84), &json!(80))
    );
    let source = &summary["sources"][0];
    assert_eq!(
        (&source["source"], &source["dkim"], &source["reporters"]),
        (&json!("192.0.2.1"), &json!("example.org"), &json!(2))
    );
    let policy = &summary["policies"][0];
    assert_eq!(
        (&policy["kind"], &policy["successes"], &policy["details"][0]["host"]),
        (&json!("tlsa"), &json!(9), &json!("mx.example.org"))
    );
    assert_eq!(server.metric("ringpost_reports_in_sessions_total", &["result=\"failed\""]), 1.0);
}

/// Posted by HTTPS, with curl through HAProxy: each answer says whether it need come again.
#[test]
fn curl_posts_reports_on_tls() {
    let authority = Authority::new(&["reports.test"]);
    let front = free_address();
    let more = "[reports-in]\ndomains = [\"example.org\"]\n";
    let server = Server::start(more);
    let _proxy = Haproxy::start(front, &front_with_tls(front, &authority.chain(), server.http()));
    let place = server.place().path().to_str().unwrap();
    run(&tool("python3"), &["-c", PACK, place], "").good();
    let url = format!("https://reports.test:{}/v1/tlsrpt", front.port());
    let (authority, named) = (
        authority.certificate().display().to_string(),
        format!("reports.test:{}:{}", front.port(), front.ip()),
    );
    // The status, and what is said.
    let post = |kind: &str, file: &str, more: &[&str]| {
        let (kind, data) =
            (format!("Content-Type: {kind}"), format!("@{}", server.place().join(file).display()));
        let arguments = [
            &["-sS", "--cacert", &authority, "--resolve", &named, "-H", &kind, "--data-binary", &data][..],
            &["-w", "\\n%{http_code}", &url],
            more,
        ];
        let said = run(&tool("curl"), &arguments.concat(), "").good().stdout;
        let (text, status) = said.rsplit_once('\n').unwrap();
        (status.parse::<u16>().unwrap(), text.trim().to_owned())
    };
    const GZIP: &str = "application/tlsrpt+gzip";
    const JSON: &str = "application/tlsrpt+json";
    assert_eq!(post(GZIP, "tls.json.gz", &[]).0, 404, "nobody has asked for it");
    server.configure(&format!("{more}https = true\nposts-max = 1000\n"));
    assert_eq!(server.reload()["event"], "reloaded");
    let (status, said) = post(GZIP, "tls.json.gz", &[]);
    assert_eq!(status, 201, "{said}");
    let came = server.event("report_in", |_| true);
    assert_eq!([&came["domain"], &came["org"], &came["proof"]], ["example.org", "TLS & Co", "none"]);
    assert!(came.get("id").is_none() && came["client"].is_string(), "{came}");
    // Whoever comes again, packed otherwise, is known.
    let text =
        run(&tool("gzip"), &["-dc", server.place().join("tls.json.gz").to_str().unwrap()], "").good().stdout;
    server.place().write("tls.json", &text);
    assert_eq!(post("application/tlsrpt+json; charset=utf-8", "tls.json", &[]).0, 200);
    server.place().write("foreign", text.replace("example.org\"}", "example.com\"}"));
    server.place().write("nothing", "{}");
    server.place().write("large", "x".repeat(2 << 20));
    for (kind, file, status, part) in [
        ("application/json", "tls.json", 415, "application/tlsrpt+gzip"),
        (JSON, "foreign", 422, "example.com"),
        (JSON, "nothing", 400, "no report"),
        (GZIP, "google.xml.gz", 400, "no report"),
        (GZIP, "outlook.zip", 400, "no report"),
        (GZIP, "large", 413, "octets at most"),
    ] {
        let (got, said) = post(kind, file, &[]);
        assert!(got == status && said.contains(part), "{file}: {got} {said}");
    }
    assert_eq!(post(GZIP, "tls.json.gz", &["-X", "GET"]).0, 405);
    assert_eq!(server.event("report_refused", |event| event["reason"] == "foreign").get("id"), None);
    // What is refused is not kept: nobody fills a disk with it.
    assert_eq!(reports(&server, &["list"]).len(), 1);
    let [summary] = &reports(&server, &["summary"])[..] else { panic!("one line") };
    assert_eq!((&summary["sessions"], &summary["failed_sessions"]), (&json!(10), &json!(1)));
    let posts =
        |result: &str| server.metric("ringpost_reports_in_posts_total", &[&format!("result=\"{result}\"")]);
    assert_eq!(["kept", "known", "refused"].map(posts), [1.0, 1.0, 6.0]);
    // A disk that does not take it: whoever posts comes again.
    let data = server.place().join("data/reports-in");
    std::fs::rename(&data, server.place().join("away")).unwrap();
    std::fs::write(&data, "in the way").unwrap();
    assert_eq!(post(GZIP, "tls.json.gz", &[]).0, 503);
    std::fs::remove_file(&data).unwrap();
    assert_eq!(post(GZIP, "tls.json.gz", &[]).0, 201);
    // More than there may be in a second.
    server.configure(&format!("{more}https = true\nposts-max = 1\n"));
    assert_eq!(server.reload()["event"], "reloaded");
    until("too many come in a second", || (post(GZIP, "tls.json.gz", &[]).0 == 429).then_some(()));
}

/// What we report ourselves, we read; and who has sent a report is what our verification has found.
#[test]
fn our_own_reports_come_back_and_senders_are_proven() {
    let house = House::with("dmarc-reject = \"refuse\"\n", |_, sink| {
        let zone = text_record("_dmarc.example.org", "v=DMARC1; p=reject; rua=mailto:dmarc@example.org");
        let more = "[dmarc-reports]\nenabled = true\norganization = \"Ringpost & Co\"\ncontact = \"dmarc@ringpost.test\"\n\
                    [reports-in]\naddresses = [\"dmarc@example.org\"]\n";
        (zone, format!("{more}{}", sink.route()))
    });
    let server = &house.server;
    let key = house.key("dkim/r1.pem");
    let good = signed(MESSAGE, "example.org", "r1", &key);
    assert!(house.send("192.0.2.1", "ann@example.org", &good).starts_with("250 "));
    house.sink.mail();
    assert!(house.send("192.0.2.66", "x@bare.example", MESSAGE).starts_with("550 5.7.26 "));
    let socket = server.place().join("data/control.sock");
    let url = "http://localhost/api/v1/dmarc-reports";
    let arguments = ["-sS", "--fail", "--unix-socket", socket.to_str().unwrap(), "-X", "POST", url];
    run(&tool("curl"), &arguments, "").good();
    let came = server.event("report_in", |_| true);
    assert_eq!(
        ["org", "domain", "proof"].map(|field| &came[field]),
        ["Ringpost & Co", "example.org", "none"]
    );
    assert_eq!((&came["messages"], &came["failed"]), (&json!(2), &json!(1)));
    let list = reports(server, &["list"]);
    let [shown] = &reports(server, &["show", list[0]["key"].as_str().unwrap()])[..] else {
        panic!("one line")
    };
    let rows = shown["told"]["dmarc"]["rows"].as_array().unwrap();
    let told: Vec<_> = rows.iter().map(|row| (&row["source"], &row["dkim"], &row["disposition"])).collect();
    let expected = [
        (json!("192.0.2.1"), json!(true), json!("pass")),
        (json!("192.0.2.66"), json!(false), json!("reject")),
    ];
    assert_eq!(told, expected.each_ref().map(|(source, dkim, what)| (source, dkim, what)));

    // Who brings it in another's name is not believed, and does not stand in the way of whoever has that name.
    let noon = run(Path::new("/usr/bin/python3"), &["-c", PACK, server.place().path().to_str().unwrap()], "")
        .good()
        .stdout;
    let report = |from: &str| {
        format!(
            "From: reports@{from}\r\nTo: dmarc@example.org\r\nSubject: Report\r\n\
            Date: Sun, 29 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@{from}>\r\n\
             Content-Type: text/xml\r\n\r\n\
             <feedback><report_metadata><org_name>example.org</org_name><report_id>7</report_id><date_range>\r\n\
             <begin>{0}</begin><end>{0}</end></date_range></report_metadata><policy_published><domain>example.net</domain>\r\n\
             </policy_published></feedback>\r\n",
            noon.trim()
        )
    };
    let forged = format!(
        "Authentication-Results: mx.ringpost.test; dmarc=pass header.from=example.org\r\n{}",
        report("bare.example")
    );
    assert!(house.send_to("192.0.2.66", "x@bare.example", "dmarc@example.org", &forged).starts_with("250 "));
    let came = server.event("report_in", |event| event["report"] == "7");
    assert_eq!(
        [&came["reporter"], &came["proof"], &came["known"]],
        [&Value::Null, &json!("none"), &json!("no")]
    );
    let signed = signed(&report("example.org"), "example.org", "r1", &key);
    assert!(house.send_to("192.0.2.1", "ann@example.org", "dmarc@example.org", &signed).starts_with("250 "));
    let came = server.event("report_in", |event| event["report"] == "7");
    assert_eq!([&came["reporter"], &came["proof"], &came["known"]], ["example.org", "dmarc", "no"]);
    assert_eq!(reports(server, &["list", "--reporter", "example.org"]).len(), 1);
    assert_eq!(reports(server, &["list", "--reporter", ""]).len(), 2);
}
