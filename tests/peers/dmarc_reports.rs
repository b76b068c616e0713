//! What domains are told of the mail that bore their names (DMARC, RFC 9990): read by Python and by dmarc-cat.

use std::fs;

use end_to_end::{Mail, Place, run, tool, until};
use serde_json::{Value, json};

use crate::authenticity::{House, MESSAGE, new_key, signed, text_record, verified};
use crate::parsedmarc::parsed;

/// Reads a mail as anybody would, prints what the report in it says, and writes the attachment where it is told.
const READ: &str = "
import email, gzip, json, os, sys
from xml.etree import ElementTree
mail = email.message_from_string(sys.stdin.read())
words, report = mail.get_payload()
assert words.get_content_type() == 'text/plain'
assert report.get_content_type() == 'application/gzip'
assert report.get_content_disposition() == 'attachment'
packed = report.get_payload(decode=True)
name = report.get_filename()
open(os.path.join(sys.argv[1], name), 'wb').write(packed)
space = '{urn:ietf:params:xml:ns:dmarc-2.0}'
root = ElementTree.fromstring(gzip.decompress(packed))
assert root.tag == space + 'feedback'
assert [child.tag.removeprefix(space) for child in root][:3] == ['version', 'report_metadata', 'policy_published']
def tree(element):
    children = list(element)
    if not children:
        return element.text or ''
    found = {}
    for child in children:
        assert child.tag.startswith(space)
        found.setdefault(child.tag.removeprefix(space), []).append(tree(child))
    return {tag: values[0] if len(values) == 1 and tag != 'record' else values for tag, values in found.items()}
print(json.dumps({'file': name, 'subject': ' '.join(mail['Subject'].split()), 'feedback': tree(root)}))
";

struct Report {
    file: String,
    subject: String,
    feedback: Value,
}

fn read(mail: &Mail, place: &Place) -> Report {
    assert!(mail.mail.starts_with("<>"), "{mail:?}");
    let arguments = ["-c", READ, place.path().to_str().unwrap()];
    let text = run(&tool("python3"), &arguments, &mail.content).good().stdout;
    let mut value: Value = serde_json::from_str(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Report {
        file: text(&value["file"]),
        subject: text(&value["subject"]),
        feedback: value["feedback"].take(),
    }
}

/// Source, author, count; what became of it, alignment of DKIM and SPF, and why, if there is a reason.
fn rows(report: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let row = |record: &Value| {
        let (row, evaluated) = (&record["row"], &record["row"]["policy_evaluated"]);
        let reason = evaluated["reason"]["type"].as_str().unwrap_or("-");
        [
            &row["source_ip"],
            &record["identifiers"]["header_from"],
            &row["count"],
            &evaluated["disposition"],
            &evaluated["dkim"],
            &evaluated["spf"],
        ]
        .map(text)
        .join(" ")
            + " "
            + reason
    };
    let mut rows: Vec<_> = report["record"].as_array().unwrap().iter().map(row).collect();
    rows.sort();
    rows
}

#[test]
fn domains_are_told_of_their_mail() {
    let mut record = String::new();
    let mut house = House::with("dmarc-reject = \"refuse\"\n", |server, sink| {
        let (key, own) = new_key(server, "ringpost.test", "d1", "rsa2048");
        record = own;
        let zone = [
            // The reporter that is asked for has to say that he wants them; so has the victim, who does not.
            text_record(
                "_dmarc.example.org",
                "v=DMARC1; p=reject; sp=quarantine; fo=1; rua=mailto:dmarc@reports.example,\
                 mailto:spy@victim.example,mailto:small@example.org!1k,https://example.org/dmarc",
            ),
            text_record("example.org._report._dmarc.reports.example", "v=DMARC1;"),
            // He may say where else.
            text_record("_dmarc.other.example", "v=DMARC1; p=none; rua=mailto:any@reports.example"),
            text_record(
                "other.example._report._dmarc.reports.example",
                "v=DMARC1; rua=mailto:others@reports.example",
            ),
            // But not that they go to somebody else.
            text_record("_dmarc.third.example", "v=DMARC1; p=none; rua=mailto:any@reports.example"),
            text_record(
                "third.example._report._dmarc.reports.example",
                "v=DMARC1; rua=mailto:x@victim.example",
            ),
            text_record("_dmarc.silent.example", "v=DMARC1; p=reject"),
            format!(
                "local-data: 'reports.example MX 10 mx.reports.example'\n\
                 local-data: 'mx.reports.example A {}'\n",
                sink.address().ip()
            ),
        ];
        let more = format!(
            "[cores]\ncount = 2\n\
             [dmarc-reports]\nenabled = true\ncontact = \"dmarc@ringpost.test\"\norganization = \"Ringpost & Co\"\n\
             {key}\
             [[route]]\nname = \"reports\"\ndomains = [\"reports.example\"]\nvia = \"mx\"\nport = {}\n{}",
            sink.address().port(),
            sink.route()
        );
        (zone.concat(), more)
    });
    let of = |domain: &str| MESSAGE.replace("example.org", domain);
    let good = signed(MESSAGE, "example.org", "r1", &house.key("dkim/r1.pem"));
    let taken = |house: &House, address: &str, from: &str, content: &str| {
        let reply = house.send(address, from, content);
        assert!(reply.starts_with("250 "), "{reply}");
        house.sink.mail();
    };
    taken(&house, "192.0.2.1", "ann@example.org", &good);
    assert!(house.send("192.0.2.66", "x@bare.example", MESSAGE).starts_with("550 5.7.26 "));
    // What is counted is kept over a stop, and handed over by an old program.
    house.server = house.server.restarted();
    taken(&house, "192.0.2.1", "ann@example.org", &good);
    assert!(house.send("192.0.2.66", "x@bare.example", MESSAGE).starts_with("550 5.7.26 "));
    house.server.upgrade(&[]).good();
    let _successor = house.server.successor(1);
    house.server.event("took_over", |_| true);
    assert!(house.send("192.0.2.66", "x@bare.example", MESSAGE).starts_with("550 5.7.26 "));
    // By a list: the signature stands for the author, who brings it does not.
    taken(&house, "192.0.2.66", "list@bare.example", &good);
    // Asked for is that such mail be held in doubt, which is not done here.
    taken(&house, "192.0.2.66", "x@bare.example", &of("sub.example.org"));
    taken(&house, "192.0.2.66", "", &of("other.example"));
    taken(&house, "192.0.2.66", "x@bare.example", &of("third.example"));
    // Nobody there wants to hear of it.
    assert!(house.send("192.0.2.66", "x@bare.example", &of("silent.example")).starts_with("550 5.7.26 "));

    let socket = house.server.place().join("data/control.sock");
    let url = "http://localhost/api/v1/dmarc-reports";
    let arguments = ["-sS", "--fail", "--unix-socket", socket.to_str().unwrap(), "-X", "POST", url];
    run(&tool("curl"), &arguments, "").good();

    let mut mails = [house.sink.mail(), house.sink.mail()];
    mails.sort_by_key(|mail| mail.content.contains("Report Domain: other.example"));
    assert_eq!(
        mails.each_ref().map(|mail| &*mail.rcpt[0]),
        ["<dmarc@reports.example>", "<others@reports.example>"]
    );
    for mail in &mails {
        // "MUST conform to the DMARC mechanism, thereby resulting in an aligned 'pass'" (§3.5.2).
        let said = verified(&mail.content, &[("d1._domainkey.ringpost.test", &record)]);
        assert_eq!(said, "ringpost.test d1 True\n", "{}", mail.content);
        assert!(mail.content.contains("\r\nFrom: <dmarc@ringpost.test>\r\n"), "{}", mail.content);
    }
    let place = Place::new();
    let [main, other] = mails.each_ref().map(|mail| read(mail, &place));
    let feedback = &main.feedback;
    assert_eq!(
        rows(feedback),
        [
            "192.0.2.1 example.org 2 pass pass pass -",
            "192.0.2.66 example.org 1 pass pass fail -",
            "192.0.2.66 example.org 3 reject fail fail -",
            "192.0.2.66 sub.example.org 1 none fail fail local_policy",
        ]
    );
    let published = json!({
        "domain": "example.org", "p": "reject", "sp": "quarantine", "np": "quarantine", "adkim": "r", "aspf": "r",
        "discovery_method": "treewalk", "fo": "1", "testing": "n",
    });
    assert_eq!(feedback["policy_published"], published);
    let metadata = &feedback["report_metadata"];
    assert_eq!(
        [&metadata["org_name"], &metadata["email"], &feedback["version"]],
        ["Ringpost & Co", "dmarc@ringpost.test", "1.0"]
    );
    let by_list = feedback["record"].as_array().unwrap().iter().find(|record| {
        record["row"]["policy_evaluated"]["spf"] == "fail"
            && record["row"]["policy_evaluated"]["dkim"] == "pass"
    });
    let results = json!({
        "dkim": { "domain": "example.org", "selector": "r1", "result": "pass" },
        "spf": { "domain": "bare.example", "scope": "mfrom", "result": "none" },
    });
    let by_list = by_list.unwrap();
    assert_eq!(by_list["auth_results"], results);
    assert_eq!(by_list["identifiers"]["envelope_from"], "bare.example");
    let id = metadata["report_id"].as_str().unwrap();
    assert_eq!(
        main.subject,
        format!("Report Domain: example.org Submitter: mx.ringpost.test Report-ID: <{id}>")
    );
    let (begin, end) = (&metadata["date_range"]["begin"], &metadata["date_range"]["end"]);
    let (begin, end) = (begin.as_str().unwrap(), end.as_str().unwrap());
    assert_eq!(main.file, format!("mx.ringpost.test!example.org!{begin}!{end}!{id}.xml.gz"));
    assert_eq!(begin.parse::<u64>().unwrap() % 86_400, 0, "from midnight on");
    // Another reader.
    let file = place.join(&main.file);
    let table = run(&tool("dmarc-cat"), &["-N", file.to_str().unwrap()], "").good().stdout;
    let table: Vec<_> =
        table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "Policy: p=reject; dkim=r; spf=r",
        "192.0.2.66 3 example.org bare.example none",
        "192.0.2.1 2 example.org example.org pass pass",
    ] {
        assert!(table.iter().any(|other| other == line), "{line}: {table:?}");
    }

    // And another, which many put such reports into their databases with.
    let seen = parsed(&mails[0], "aggregate");
    let told = |record: &Value| {
        let (evaluated, source) = (&record["policy_evaluated"], &record["source"]["ip_address"]);
        let from = &record["identifiers"]["header_from"];
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        [source, from, &record["count"], &evaluated["dkim"], &evaluated["spf"]].map(text).join(" ")
    };
    let mut records: Vec<_> = seen["records"].as_array().unwrap().iter().map(told).collect();
    records.sort();
    assert_eq!(
        records,
        [
            "192.0.2.1 example.org 2 pass pass",
            "192.0.2.66 example.org 1 pass fail",
            "192.0.2.66 example.org 3 fail fail",
            "192.0.2.66 sub.example.org 1 fail fail",
        ]
    );
    assert_eq!(
        [
            &seen["report_metadata"]["org_name"],
            &seen["report_metadata"]["report_id"],
            &seen["policy_published"]["sp"]
        ],
        ["Ringpost & Co", id, "quarantine"]
    );
    assert_eq!(seen["report_metadata"]["errors"], json!([]), "{seen}");
    let null = parsed(&mails[1], "aggregate");
    assert_eq!(
        (&null["records"][0]["count"], null["records"].as_array().unwrap().len()),
        (&json!(1), 1),
        "{null}"
    );

    assert_eq!(rows(&other.feedback), ["192.0.2.66 other.example 1 none fail fail -"]);
    let identifiers = &other.feedback["record"][0]["identifiers"];
    assert_eq!(*identifiers, json!({ "header_from": "other.example", "envelope_from": "" }));

    // Domains are told beside one another, in whichever order.
    let failed = |to: &str| {
        until("it is said", || {
            house.server.events("dmarc_report_failed").into_iter().find(|event| event["to"] == to)
        })
    };
    let unwanted = "its domain does not say that it wants them";
    house.server.event("dmarc_report_sent", |event| event["to"] == "dmarc@reports.example");
    assert_eq!(failed("spy@victim.example")["error"], unwanted);
    let error = failed("small@example.org")["error"].to_string();
    assert!(error.contains("1024 are wanted"), "{error}");
    let third = failed("any@reports.example");
    assert_eq!([&third["domain"], &third["error"]], ["third.example", unwanted]);
    // All are told, and nothing is left to be told again.
    until("no counts are left", || {
        let mut left = fs::read_dir(house.server.place().join("data")).unwrap();
        let is_left =
            left.any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with("dmarc-results"));
        (!is_left).then_some(())
    });
    assert_eq!(house.sink.waiting(), 0);
    assert!(house.server.metric("ringpost_dmarc_counted_total", &["result=\"counted\""]) >= 5.0);
}
