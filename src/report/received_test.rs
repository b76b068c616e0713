//! Reports as they come: of the shapes that large providers send, of the RFCs, and of those who wish us ill.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, Crc, write::DeflateEncoder, write::GzEncoder};

use super::*;

/// As Google writes it: the schema of RFC 7489 without a namespace.
const GOOGLE: &str = r#"<?xml version="1.0" encoding="UTF-8" ?>
<feedback>
  <report_metadata>
    <org_name>google.com</org_name>
    <email>noreply-dmarc-support@google.com</email>
    <extra_contact_info>https://support.google.com/a/answer/2466580</extra_contact_info>
    <report_id>12345678901234567890</report_id>
    <date_range><begin>1764288000</begin><end>1764374399</end></date_range>
  </report_metadata>
  <policy_published>
    <domain>example.org</domain><adkim>r</adkim><aspf>r</aspf><p>reject</p><sp>reject</sp><pct>100</pct>
<np>reject</np>
  </policy_published>
  <record>
    <row><source_ip>192.0.2.1</source_ip><count>12</count>
      <policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>pass</spf></policy_evaluated></row>
    <identifiers><header_from>example.org</header_from></identifiers>
    <auth_results>
      <dkim><domain>example.org</domain><result>pass</result><selector>s1</selector></dkim>
      <spf><domain>bounce.example.org</domain><result>pass</result></spf>
    </auth_results>
  </record>
  <record>
    <row><source_ip>2001:db8::25</source_ip><count>3</count>
      <policy_evaluated><disposition>none</disposition><dkim>fail</dkim><spf>fail</spf>
        <reason><type>local_policy</type><comment>arc=pass</comment></reason></policy_evaluated></row>
    <identifiers><header_from>example.org</header_from></identifiers>
    <auth_results>
      <dkim><domain>list.example</domain><result>pass</result><selector>l</selector></dkim>
      <dkim><domain>example.org</domain><result>fail</result><selector>s1</selector></dkim>
      <spf><domain>list.example</domain><result>pass</result></spf>
    </auth_results>
  </record>
</feedback>"#;

/// As Microsoft writes it: with a version, and names for what is elsewhere left out; addresses of recipients are
/// told.
const MICROSOFT: &str = r#"<?xml version="1.0"?>
<feedback xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<version>1.0</version>
<report_metadata><org_name>Enterprise Outlook</org_name><email>dmarcreport@microsoft.com</email>
<report_id>0f4d&amp;2e</report_id>
<date_range><begin>1764288000</begin><end>1764374400</end></date_range></report_metadata>
<policy_published><domain>Example.ORG</domain><adkim>r</adkim><aspf>s</aspf><p>quarantine</p><sp>none</sp>
<pct>100</pct><fo>0</fo></policy_published>
<record><row><source_ip>203.0.113.9</source_ip><count>40</count>
<policy_evaluated><disposition>quarantine</disposition>
<dkim>fail</dkim><spf>fail</spf></policy_evaluated></row>
<identifiers><envelope_to>contoso.example</envelope_to><envelope_from>bad.example</envelope_from>
<header_from>mail.example.org</header_from></identifiers>
<auth_results><spf><domain>bad.example</domain><scope>mfrom</scope><result>softfail</result></spf>
</auth_results></record>
<record><row><source_ip>not an address</source_ip><count>1</count></row></record>
</feedback>"#;

/// The example of RFC 8460 appendix B.
const TLS: &str = r#"{
  "organization-name": "Company-X",
  "date-range": {"start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z"},
  "contact-info": "sts-reporting@company-x.example",
  "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
  "policies": [{
    "policy": {"policy-type": "sts", "policy-string": ["version: STSv1","mode: testing",
      "mx: *.mail.company-y.example","max_age: 86400"],
      "policy-domain": "company-y.example", "mx-host": ["*.mail.company-y.example"]},
    "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
    "failure-details": [
      {"result-type": "certificate-expired", "sending-mta-ip": "2001:db8:abcd:0012::1",
      "receiving-mx-hostname": "mx1.mail.company-y.example",
       "failed-session-count": 100},
      {"result-type": "starttls-not-supported", "sending-mta-ip": "2001:db8:abcd:0013::1",
      "receiving-mx-hostname": "mx2.mail.company-y.example",
       "receiving-ip": "203.0.113.56", "failed-session-count": 200,
      "additional-information": "https://reports.company-x.example/r ? id=1"},
      {"result-type": "validation-failure", "sending-mta-ip": "198.51.100.62", "receiving-ip": "203.0.113.58",
       "receiving-mx-hostname": "mx-backup.mail.company-y.example", "failed-session-count": 3,
      "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"}]
  }]
}"#;

/// The shape of RFC 6591 appendix B, with what RFC 9991 adds.
const FAILURE: &str = "From: arf-daemon@reporter.example\r\nTo: ruf@example.org\r\n\
    Message-ID: <433689.81121@reporter.example>\r\n\
    Content-Type: multipart/report; report-type=feedback-report;\r\n boundary=\"x\"\r\n\r\n--x\r\n\
    Content-Type: text/plain\r\n\r\nsee below\r\n\
    --x\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: auth-failure\r\n\
    User-Agent: SomeDKIMFilter/1.0\r\nVersion: 1\r\n\
    Original-Mail-From: <rand@bad.example>\r\nReceived-Date: Fri, 30 Nov 2012 09:17:42 +0000\r\n\
    Arrival-Date: Fri, 30 Nov 2012 09:17:42 +0100\r\n\
    Source-IP: 192.0.2.1\r\n\
    Authentication-Results: mail.reporter.example; dmarc=fail\r\n header.from=example.org\r\n\
    Reported-Domain: example.org\r\n\
    Auth-Failure: dmarc\r\nIdentity-Alignment: none\r\nDelivery-Result: reject\r\nDKIM-Domain: Bad.example\r\n\
    DKIM-Selector: test\r\n\
    Incidents: 2\r\n\r\n--x\r\nContent-Type: message/rfc822\r\n\r\nFrom: \"A\" <a@example.org>\r\n\
    Subject: pay\r\n now\r\nMessage-ID: <1@bad.example>\r\n\r\nbody\r\n--x--\r\n";

fn gzip(octets: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

/// Files in a zip, each with its flags and how it is packed.
fn zip(files: &[(&str, u16, u16, &[u8])]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, flags, method, octets) in files {
        let mut crc = Crc::new();
        crc.update(octets);
        let packed = if *method == 8 {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(octets).unwrap();
            encoder.finish().unwrap()
        } else {
            octets.to_vec()
        };
        let place = u32::try_from(archive.len()).unwrap();
        let common = |to: &mut Vec<u8>| {
            for half in [20, *flags, *method, 0, 0] {
                to.extend(half.to_le_bytes());
            }
            for word in [crc.sum(), packed.len() as u32, octets.len() as u32] {
                to.extend(word.to_le_bytes());
            }
            to.extend((name.len() as u16).to_le_bytes());
            to.extend([0, 0]);
        };
        archive.extend(b"PK\x03\x04");
        common(&mut archive);
        archive.extend(name.as_bytes());
        archive.extend(&packed);
        directory.extend(b"PK\x01\x02\x14\x00");
        common(&mut directory);
        directory.extend([0; 10]);
        directory.extend(place.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let begin = u32::try_from(archive.len()).unwrap();
    archive.extend(&directory);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    let count = (files.len() as u16).to_le_bytes();
    archive.extend([count, count].concat());
    archive.extend((directory.len() as u32).to_le_bytes());
    archive.extend(begin.to_le_bytes());
    archive.extend([0, 0]);
    archive
}

/// A mail whose only part this is.
fn mail_of(kind: &str, octets: &[u8]) -> Vec<Bytes> {
    let mut mail = format!(
        "From: r@reporter.example\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    for line in STANDARD.encode(octets).as_bytes().chunks(76) {
        mail.push_str(std::str::from_utf8(line).unwrap());
        mail.push_str("\r\n");
    }
    vec![mail.into()]
}

fn one(mail: &[Bytes]) -> Result<Report, Unread> {
    let mut reports = read(mail, &Limits::default())?;
    assert_eq!(reports.len(), 1);
    Ok(reports.remove(0))
}

fn rows(report: &Report) -> &[Row] {
    let Told::Dmarc(aggregate) = &report.told else { panic!("{report:?}") };
    &aggregate.rows
}

#[test]
fn a_report_in_gzip_as_google_sends_it() {
    let report = one(&mail_of("application/gzip; name=\"x.xml.gz\"", &gzip(GOOGLE.as_bytes()))).unwrap();
    assert_eq!((&*report.organization, &*report.domain), ("google.com", "example.org"));
    assert_eq!(&*report.id, "12345678901234567890");
    assert_eq!((report.begin.secs(), report.end.secs()), (1_764_288_000, 1_764_374_399));
    assert_eq!((report.told.kind(), report.told.counts()), (Kind::Dmarc, (15, 3)));
    let rows = rows(&report);
    assert_eq!(rows[0].source, IpAddr::from([192, 0, 2, 1]));
    assert!(rows[0].dkim && rows[0].spf && rows[0].passed());
    assert_eq!(&*rows[0].senders[0].domain, "bounce.example.org");
    assert_eq!(rows[1].reasons, [Reason { kind: "local_policy".into(), comment: "arc=pass".into() }]);
    let signers: Vec<_> = rows[1].signatures.iter().map(|one| (&*one.domain, &*one.result)).collect();
    assert_eq!(signers, [("list.example", "pass"), ("example.org", "fail")]);
    let Told::Dmarc(aggregate) = &report.told else { panic!() };
    assert!(aggregate.policy.contains(&("p".into(), "reject".into())));
    // What is kept of it is read again.
    let text = serde_json::to_string(&report.told).unwrap();
    assert_eq!(serde_json::from_str::<Told>(&text).unwrap(), report.told);
}

#[test]
fn a_report_in_zip_as_microsoft_sends_it() {
    let archive = zip(&[("a/", 0, 0, b""), ("report.xml", 0, 8, MICROSOFT.as_bytes())]);
    for kind in ["application/zip", "application/octet-stream; name=x.zip", "application/x-zip-compressed"] {
        let report = one(&mail_of(kind, &archive)).unwrap();
        assert_eq!(
            (&*report.organization, &*report.domain, &*report.id),
            ("Enterprise Outlook", "example.org", "0f4d&2e")
        );
        let row = &rows(&report)[0];
        assert_eq!((&*row.header_from, &*row.envelope_to), ("mail.example.org", "contoso.example"));
        assert_eq!((&*row.disposition, &*row.senders[0].result, row.count), ("quarantine", "softfail", 40));
        let Told::Dmarc(aggregate) = &report.told else { panic!() };
        assert_eq!(aggregate.malformed, 1);
    }
}

#[test]
fn a_report_may_be_stored_bare_or_packed_twice() {
    let expected = one(&mail_of("text/xml", GOOGLE.as_bytes())).unwrap();
    let wide: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(GOOGLE.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let marked = ["\u{feff}", GOOGLE].concat();
    let twice = zip(&[("x.xml.gz", 0, 0, &gzip(GOOGLE.as_bytes()))]);
    let members =
        [gzip(&GOOGLE.as_bytes()[..200]), gzip(&GOOGLE.as_bytes()[200..]), b"behind".to_vec()].concat();
    for octets in [wide, marked.into_bytes(), twice, members, zip(&[("x.xml", 0, 0, GOOGLE.as_bytes())])] {
        assert_eq!(one(&mail_of("application/octet-stream", &octets)).unwrap(), expected);
    }
    // Some label it as words for people.
    assert_eq!(one(&mail_of("text/plain", GOOGLE.as_bytes())).unwrap(), expected);
    let thrice = gzip(&gzip(&gzip(GOOGLE.as_bytes())));
    assert_eq!(one(&mail_of("application/gzip", &thrice)).unwrap_err().label(), "archive");
    // Members that hold nothing come out of no budget, and take their time.
    let empty = gzip(b"").repeat(20_000);
    assert_eq!(one(&mail_of("application/gzip", &empty)).unwrap_err().label(), "archive");
}

#[test]
fn a_tls_report_as_the_rfc_has_it() {
    let report = one(&mail_of("application/tlsrpt+gzip", &gzip(TLS.as_bytes()))).unwrap();
    assert_eq!((&*report.organization, &*report.domain), ("Company-X", "company-y.example"));
    assert_eq!((report.told.kind(), report.told.counts()), (Kind::Tls, (5629, 303)));
    let Told::Tls(policies) = &report.told else { panic!() };
    assert_eq!((&*policies[0].kind, policies[0].policy.len(), policies[0].mx.len()), ("sts", 4, 1));
    let results: Vec<_> =
        policies[0].details.iter().map(|one| (&*one.result, &*one.host, one.count)).collect();
    assert_eq!(results[1], ("starttls-not-supported", "mx2.mail.company-y.example", 200));
    assert_eq!(&*policies[0].details[2].reason, "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED");
    // Bare, and as others write it: numbers as text, one line for a list, no zone, nulls, more domains than one.
    let loose = TLS
        .replace("5326", "\"5326\"")
        .replace("[\"*.mail.company-y.example\"]", "\"*.mail.company-y.example\"")
        .replace("2016-04-01T00:00:00Z", "2016-04-01T00:00:00")
        .replace("\"failure-reason-code\"", "\"more\": [1, {}], \"receiving-mx-helo\": null, \"failure-reason-code\"")
        .replace("  }]\n}", "  }, {\"policy\": {\"policy-type\": \"no-policy-found\", \"policy-domain\": \"b.example\"}}, {}]\n}");
    let reports = read(&mail_of("application/tlsrpt+json", loose.as_bytes()), &Limits::default()).unwrap();
    assert_eq!(reports[0], report);
    assert_eq!((&*reports[1].domain, reports[1].told.counts(), reports.len()), ("b.example", (0, 0), 2));
}

#[test]
fn a_failure_report_as_the_rfc_has_it() {
    let report = one(&[FAILURE.into()]).unwrap();
    assert_eq!((&*report.domain, &*report.id), ("example.org", "<433689.81121@reporter.example>"));
    assert_eq!(report.end.to_rfc3339(), "2012-11-30T08:17:42Z");
    let Told::Failure(failure) = &report.told else { panic!() };
    assert_eq!(
        (&*failure.auth_failure, &*failure.alignment, &*failure.delivery_result),
        ("dmarc", "none", "reject")
    );
    assert_eq!((failure.source, failure.incidents), (Some([192, 0, 2, 1].into()), 2));
    assert_eq!((&*failure.author, &*failure.subject), ("\"A\" <a@example.org>", "pay now"));
    assert_eq!((&*failure.dkim_domain, &*failure.mail_from), ("bad.example", "rand@bad.example"));
    // It does not say when the message came: then it is when the report did.
    let undated = FAILURE.replace("Arrival-Date: Fri, 30 Nov 2012 09:17:42 +0100", "X: y");
    assert_eq!(one(&[undated.into()]).unwrap().came(Timestamp(7)).end, Timestamp(7));
    // A day that was never is no time of anything, and is not taken for the one on which the report came.
    let never = GOOGLE.replace("1764288000", "0").replace("1764374399", "0");
    assert_eq!(one(&mail_of("text/xml", never.as_bytes())).unwrap().came(Timestamp(7)).end, Timestamp(0));
    // A complaint is no such report, and says nothing of who a message is from.
    let complaint = FAILURE.replace("auth-failure", "abuse");
    assert_eq!(one(&[complaint.into()]), Err(Unread::NoReport));
    let nameless = FAILURE
        .replace("Reported-Domain: example.org", "X: y")
        .replace("From: \"A\" <a@example.org>", "X: y");
    assert_eq!(&*one(&[nameless.into()]).unwrap().domain, "bad.example");
}

#[test]
fn our_own_reports_are_read() {
    use crate::dmarc::{self, AuthResult, Disposition, Feedback, Mode, Override, Policy, Published};
    let published = Published {
        policy: Policy::Reject,
        subdomains: Policy::Quarantine,
        nonexistent: Policy::Reject,
        dkim_mode: Mode::Relaxed,
        spf_mode: Mode::Strict,
        testing: true,
        failure_options: "1".into(),
        to: Vec::new(),
    };
    let row = dmarc::Row {
        source: [192, 0, 2, 9].into(),
        disposition: Disposition::Pass,
        dkim_aligned: true,
        spf_aligned: false,
        reasons: vec![dmarc::Reason { kind: Override::Other, comment: "a < b & \"c\"".into() }],
        header_from: "example.org".into(),
        envelope_from: "".into(),
        dkim: vec![dmarc::Signature {
            domain: "example.org".into(),
            selector: "s".into(),
            result: AuthResult::Pass,
            reason: None,
        }],
        spf: dmarc::Spf {
            domain: "b.example".into(),
            result: AuthResult::TempError,
            reason: Some("slow".into()),
        },
    };
    let feedback = Feedback {
        domain: "example.org",
        submitter: "mx.example",
        organization: "Ringpost & Co",
        contact: "dmarc@mx.example",
        generator: "ringpost",
        from: Timestamp::from_secs(1_764_288_000),
        to: Timestamp::from_secs(1_764_374_399),
        published: &published,
        rows: vec![(&row, 7)],
        untold: 3,
    };
    let address = mail::Address::parse(b"dmarc@mx.example").unwrap();
    let id = feedback.id();
    let mail = feedback.to_mail(&id, &address, &address, &gzip(feedback.to_xml(&id).as_bytes()), "now");
    let report = one(&[mail.into()]).unwrap();
    assert_eq!((&*report.organization, &*report.id), ("Ringpost & Co", &*id));
    let found = &rows(&report)[0];
    assert_eq!((found.count, found.dkim, found.spf, &*found.disposition), (7, true, false, "pass"));
    assert_eq!(&*found.reasons[0].comment, "a < b & \"c\"");
    assert_eq!((&*found.senders[0].result, &*found.senders[0].reason), ("temperror", "slow"));
    let Told::Dmarc(aggregate) = &report.told else { panic!() };
    assert_eq!(aggregate.errors.len(), 1);

    let tls = crate::tls::TlsReport {
        domain: "example.org",
        submitter: "mx.example",
        organization: "Ringpost",
        contact: "tls@mx.example",
        id: "1.2.3",
        from: Timestamp::from_secs(1_764_288_000),
        to: Timestamp::from_secs(1_764_374_399),
        policies: vec![crate::tls::PolicyResults {
            kind: "sts",
            lines: vec!["version: STSv1".into()],
            domain: "example.org".into(),
            mx: vec!["mx.example.org".into()],
            successes: 5,
            failures: 1,
            details: vec![crate::tls::FailureDetails {
                result: "starttls-not-supported",
                count: 1,
                ..Default::default()
            }],
        }],
    };
    let mail = tls.to_mail(&address, &address, &gzip(tls.to_json().as_bytes()), "now");
    let report = one(&[mail.into()]).unwrap();
    assert_eq!((&*report.id, report.told.counts()), ("1.2.3", (6, 1)));
}

#[test]
fn what_is_no_report_says_why() {
    let label = |kind: &str, octets: &[u8]| match read(&mail_of(kind, octets), &Limits::default()) {
        Ok(reports) => panic!("{reports:?}"),
        Err(unread) => unread.label(),
    };
    let xml = |text: &str| label("text/xml", text.as_bytes());
    assert_eq!(label("text/plain", b"<html>hello"), "no-report");
    assert_eq!(label("text/plain", b"hello"), "no-report");
    assert_eq!(xml("<html><feedback/></html>"), "no-report");
    assert_eq!(label("application/json", b"{\"a\": 1}"), "no-report");
    assert_eq!(label("application/json", b"{\"policies\": "), "syntax");
    assert_eq!(
        label(
            "application/json",
            TLS.replace("\"company-y.example\", \"mx", "\"no domain\", \"mx").as_bytes()
        ),
        "content"
    );
    assert_eq!(xml(&GOOGLE[..GOOGLE.len() / 2]), "syntax");
    assert_eq!(xml(&GOOGLE.replace("</org_name>", "</org>")), "syntax");
    assert_eq!(
        xml(&GOOGLE.replace("<domain>example.org</domain><adkim>", "<domain>no domain</domain><adkim>")),
        "content"
    );
    assert_eq!(xml(&GOOGLE.replace("1764288000", "soon")), "content");
    assert_eq!(xml(&GOOGLE.replace("1764288000", "1")), "content");
    assert_eq!(xml(&GOOGLE.replace("google.com</org_name>", "</org_name>")), "content");
    assert_eq!(xml(&GOOGLE.replace("source_ip", "source")), "content");
    assert_eq!(label("application/gzip", &gzip(GOOGLE.as_bytes())[..300]), "archive");
    assert_eq!(label("application/zip", b"PK\x03\x04 and no more"), "archive");
    assert_eq!(label("application/zip", &zip(&[("x.xml", 1, 8, GOOGLE.as_bytes())])), "archive");
    assert_eq!(label("application/zip", &zip(&[("x.xml", 0, 12, GOOGLE.as_bytes())])), "archive");
    let mut wrong_sum = zip(&[("x.xml", 0, 0, GOOGLE.as_bytes())]);
    wrong_sum[60] ^= 1;
    assert_eq!(label("application/zip", &wrong_sum), "archive");
    // A report beside something else is a report.
    let beside = zip(&[("readme.txt", 0, 8, b"hello"), ("x.xml", 0, 8, GOOGLE.as_bytes())]);
    assert!(one(&mail_of("application/zip", &beside)).is_ok());
}

#[test]
fn entities_are_not_expanded() {
    let laughs = "<?xml version=\"1.0\"?><!DOCTYPE feedback [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;\">]>";
    let body = GOOGLE.split_once("?>").unwrap().1;
    let at = |text: &str| one(&mail_of("text/xml", text.as_bytes()));
    assert_eq!(at(&format!("{laughs}{body}")), Err(Unread::Entities));
    assert_eq!(at(&GOOGLE.replace("google.com</org_name>", "&b;</org_name>")), Err(Unread::Entities));
    let outside = "<?xml version=\"1.0\"?><!DOCTYPE feedback SYSTEM \"file:///etc/passwd\">";
    assert_eq!(at(&format!("{outside}{body}")), Err(Unread::Entities));
    let numbered =
        at(&GOOGLE.replace("google.com</org_name>", "&#71;oogle &lt;&#x1F4E7;&gt;</org_name>")).unwrap();
    assert_eq!(&*numbered.organization, "Google <\u{1f4e7}>");
    let deep = format!("<feedback>{}", "<a>".repeat(100_000));
    assert_eq!(at(&deep).unwrap_err().label(), "syntax");
}

#[test]
fn what_is_packed_comes_out_within_bounds() {
    let limits = Limits { expanded_max: 1 << 20, ..Limits::default() };
    let nothing = vec![b' '; 64 << 20];
    let bomb = gzip(&nothing);
    assert!(bomb.len() < 100 << 10);
    for (kind, octets) in [
        ("application/gzip", bomb.clone()),
        ("application/zip", zip(&[("x.xml", 0, 8, &nothing)])),
        // Many that are small enough each: the budget is one for all.
        ("application/zip", zip(&[("x", 0, 8, &nothing[..700 << 10]), ("y", 0, 8, &nothing[..700 << 10])])),
        ("application/gzip", gzip(&bomb)),
    ] {
        assert_eq!(read(&mail_of(kind, &octets), &limits).unwrap_err().label(), "too-large");
    }
    let large = Limits { mail_max: 1000, ..Limits::default() };
    assert_eq!(read(&mail_of("text/xml", GOOGLE.as_bytes()), &large).unwrap_err().label(), "too-large");
    // Exactly as much as there may be is read.
    let exact = Limits { expanded_max: GOOGLE.len(), ..Limits::default() };
    assert_eq!(read(&mail_of("application/gzip", &gzip(GOOGLE.as_bytes())), &exact).unwrap().len(), 1);
}

#[test]
fn rows_and_values_are_bounded() {
    let record = &GOOGLE[GOOGLE.find("<record>").unwrap()..GOOGLE.find("</feedback>").unwrap()];
    let many = GOOGLE.replace("</feedback>", &format!("{}</feedback>", record.repeat(50)));
    let limits = Limits { rows_max: 10, ..Limits::default() };
    let reports = read(&mail_of("application/gzip", &gzip(many.as_bytes())), &limits).unwrap();
    assert_eq!(rows(&reports[0]).len(), 10);
    let Told::Dmarc(aggregate) = &reports[0].told else { panic!() };
    // No message is lost from the count.
    assert_eq!((aggregate.more, reports[0].told.counts().0), (51 * 15 - 5 * 15, 51 * 15));
    let long = GOOGLE.replace("google.com</org_name>", &format!("{}</org_name>", "a\u{7}b ".repeat(100_000)));
    let name = one(&mail_of("text/xml", long.as_bytes())).unwrap().organization;
    assert!(name.len() <= NAME_MAX && name.starts_with("a?b a?b"), "{name}");
    let results = "<dkim><domain>x.example</domain><result>pass</result></dkim>".repeat(1000);
    let wide = GOOGLE.replacen("<auth_results>", &format!("<auth_results>{results}"), 1);
    assert!(rows(&one(&mail_of("text/xml", wide.as_bytes())).unwrap())[0].signatures.len() <= 20);
    let huge = GOOGLE.replace("<count>12<", "<count>18446744073709551615<");
    assert_eq!(one(&mail_of("text/xml", huge.as_bytes())).unwrap().told.counts(), (u64::MAX, 3));
}

#[test]
fn who_sends_is_put_together() {
    let head = |kind, organization: &str, reporter: &str, counts: (u64, u64)| Head {
        key: "0".into(),
        kind,
        domain: "example.org".into(),
        organization: organization.into(),
        contact: "".into(),
        id: "1".into(),
        begin: "2025-11-28T00:00:00Z".into(),
        end: "2025-11-28T23:59:59Z".into(),
        messages: counts.0,
        failed: counts.1,
        reporter: reporter.into(),
        proof: Proof::None,
        from: "".into(),
        received: "".into(),
        mail: "".into(),
        reason: "".into(),
    };
    let google = one(&mail_of("text/xml", GOOGLE.as_bytes())).unwrap().told;
    let microsoft = one(&mail_of("text/xml", MICROSOFT.as_bytes())).unwrap().told;
    let tls = one(&mail_of("application/json", TLS.as_bytes())).unwrap().told;
    let failure = one(&[FAILURE.into()]).unwrap().told;
    let mut summing = Summing::new(Grouping::Address, SummaryLimits::default());
    for (organization, told) in [
        ("google.com", &google),
        ("google.com", &google),
        ("Outlook", &microsoft),
        ("X", &tls),
        ("X", &tls),
        ("R", &failure),
    ] {
        summing.add(&head(told.kind(), organization, "", told.counts()), told);
    }
    let summary = summing.end(2);
    assert_eq!((summary.reports, summary.messages, summary.passed), (6, 70, 24));
    let line = &summary.sources[1];
    assert_eq!((&*line.source, &*line.dkim, &*line.spf), ("192.0.2.1", "example.org", "bounce.example.org"));
    assert_eq!((line.messages, line.dkim_aligned, line.spf_aligned, line.failed), (24, 24, 24, 0));
    assert_eq!(
        (line.reporters, &*summary.sources[0].source, summary.sources[0].quarantined),
        (1, "203.0.113.9", 40)
    );
    // The third line has no place: its messages are told of.
    assert_eq!((summary.sources.len(), summary.others), (2, 6));
    assert_eq!((summary.sessions, summary.failed_sessions), (11_258, 606));
    assert_eq!(
        (&*summary.policies[0].kind, &*summary.policies[0].details[0].result),
        ("sts", "starttls-not-supported")
    );
    assert_eq!(summary.policies[0].details[0].count, 400);
    assert_eq!((&*summary.failures[0].auth_failure, summary.failures[0].count), ("dmarc", 2));
    let all: u64 = summary.reporters.iter().map(|line| line.reports).sum();
    assert_eq!((summary.reporters.len(), all, &*summary.reporters[0].organization), (2, 3, "X"));
    // By networks, and with room for one: the rest is counted.
    let mut summing = Summing::new(Grouping::Network, SummaryLimits { lines_max: 1 });
    summing.add(&head(Kind::Dmarc, "google.com", "", google.counts()), &google);
    let summary = summing.end(10);
    assert_eq!((&*summary.sources[0].source, summary.others, summary.messages), ("192.0.2.0/24", 3, 15));
    let text = serde_json::to_string(&summary).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
    // As many signers as a row has room for, with names as long as there are: a line names a few.
    let Told::Dmarc(mut many) = google else { panic!() };
    let signature = |number: u8| Signature {
        domain: format!("{number}{}", ".x".repeat(120)).into(),
        result: "pass".into(),
        ..Signature::default()
    };
    many.rows[0].signatures = (10..30).map(signature).collect();
    let mut summing = Summing::new(Grouping::Address, SummaryLimits::default());
    summing.add(&head(Kind::Dmarc, "o", "", (1, 0)), &Told::Dmarc(many));
    assert_eq!(summing.end(1).sources[0].dkim.split(',').count(), 5);
}

/// Whatever is flipped or cut, it is a report or says why not.
#[test]
fn damage_is_no_panic() {
    let both = zip(&[("a.xml", 0, 8, GOOGLE.as_bytes()), ("b.json", 0, 0, TLS.as_bytes())]);
    for octets in [gzip(GOOGLE.as_bytes()), both, TLS.as_bytes().to_vec(), MICROSOFT.as_bytes().to_vec()] {
        let said = |octets: &[u8]| {
            read(&mail_of("application/octet-stream", octets), &Limits::default()).map_err(|e| e.label())
        };
        let whole = said(&octets).unwrap();
        for at in 0..octets.len() {
            assert!(
                said(&octets[..at]).map_or(true, |found| found.len() <= whole.len()),
                "cut after {at} octets"
            );
            for flip in [1, 0x20, 0xff] {
                let mut damaged = octets.clone();
                damaged[at] ^= flip;
                assert!(
                    said(&damaged).map_or_else(|why| !why.is_empty(), |found| !found.is_empty()),
                    "{at}: {flip}"
                );
            }
        }
    }
}
