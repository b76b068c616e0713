//! The example of RFC 8460 appendix B, and records good and bad.

use super::*;

fn example() -> TlsReport<'static> {
    let at = |text| Timestamp::from_rfc3339(text).unwrap();
    let address = |text: &str| Some(text.parse().unwrap());
    TlsReport {
        domain: "company-y.example",
        submitter: "mail.company-x.example",
        organization: "Company-X",
        contact: "sts-reporting@company-x.example",
        id: "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
        from: at("2016-04-01T00:00:00Z"),
        to: at("2016-04-01T23:59:59Z"),
        policies: vec![PolicyResults {
            kind: "sts",
            lines: ["version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"]
                .map(str::to_owned)
                .to_vec(),
            domain: "company-y.example".to_owned(),
            mx: vec!["*.mail.company-y.example".to_owned()],
            successes: 5326,
            failures: 303,
            details: vec![
                FailureDetails {
                    result: "certificate-expired",
                    from: address("2001:db8:abcd:0012::1"),
                    host: Some("mx1.mail.company-y.example".to_owned()),
                    count: 100,
                    ..FailureDetails::default()
                },
                FailureDetails {
                    result: "starttls-not-supported",
                    from: address("2001:db8:abcd:0013::1"),
                    host: Some("mx2.mail.company-y.example".to_owned()),
                    to: address("203.0.113.56"),
                    count: 200,
                    ..FailureDetails::default()
                },
                FailureDetails {
                    result: "validation-failure",
                    from: address("198.51.100.62"),
                    host: Some("mx-backup.mail.company-y.example".to_owned()),
                    to: address("203.0.113.58"),
                    count: 3,
                    reason: Some("X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED".to_owned()),
                },
            ],
        }],
    }
}

/// As printed, but for `additional-information`, which we have none of, and for how an address is written.
const EXAMPLE: &str = r#"{
  "organization-name": "Company-X",
  "date-range": {
    "start-datetime": "2016-04-01T00:00:00Z",
    "end-datetime": "2016-04-01T23:59:59Z"
  },
  "contact-info": "sts-reporting@company-x.example",
  "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
  "policies": [{
    "policy": {
      "policy-type": "sts",
      "policy-string": ["version: STSv1","mode: testing",
            "mx: *.mail.company-y.example","max_age: 86400"],
      "policy-domain": "company-y.example",
      "mx-host": ["*.mail.company-y.example"]
    },
    "summary": {
      "total-successful-session-count": 5326,
      "total-failure-session-count": 303
    },
    "failure-details": [{
      "result-type": "certificate-expired",
      "sending-mta-ip": "2001:db8:abcd:12::1",
      "receiving-mx-hostname": "mx1.mail.company-y.example",
      "failed-session-count": 100
    }, {
      "result-type": "starttls-not-supported",
      "sending-mta-ip": "2001:db8:abcd:13::1",
      "receiving-mx-hostname": "mx2.mail.company-y.example",
      "receiving-ip": "203.0.113.56",
      "failed-session-count": 200
    }, {
      "result-type": "validation-failure",
      "sending-mta-ip": "198.51.100.62",
      "receiving-ip": "203.0.113.58",
      "receiving-mx-hostname": "mx-backup.mail.company-y.example",
      "failed-session-count": 3,
      "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"
    }]
  }]
}"#;

#[test]
fn the_example_of_the_rfc() {
    let written: Value = serde_json::from_str(&example().to_json()).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(EXAMPLE).unwrap());
    let file = "mail.company-x.example!company-y.example!1459468800!1459555199!5065427c-23d3-47ca-b6e0-946ea0e8c4be.json.gz";
    assert_eq!(example().file_name(), file);
}

#[test]
fn the_mail() {
    let address = |text: &str| Address::parse(text.as_bytes()).unwrap();
    let (from, to) = (address("tlsrpt@company-x.example"), address("reports@company-y.example"));
    let mail = example().to_mail(&from, &to, &[7; 100], "Fri, 1 Apr 2016 00:00:00 +0000");
    let mail = String::from_utf8(mail).unwrap();
    for field in [
        "From: <tlsrpt@company-x.example>\r\n",
        "TLS-Report-Domain: company-y.example\r\n",
        "TLS-Report-Submitter: mail.company-x.example\r\n",
        "TLS-Required: No\r\n",
        "Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n",
        "Content-Type: application/tlsrpt+gzip\r\n",
    ] {
        assert!(mail.contains(field), "{field}{mail}");
    }
    assert!(mail.lines().all(|line| line.len() <= 200), "{mail}");
    let body = mail.split("\r\n\r\n").nth(3).unwrap();
    let encoded: String = body.lines().take_while(|line| !line.starts_with("--")).collect();
    assert_eq!(STANDARD.decode(encoded).unwrap(), [7; 100]);
}

#[test]
fn where_reports_go() {
    let check = |texts: &[&str], expected: &[&str]| {
        let texts: Vec<_> = texts.iter().map(|text| text.as_bytes()).collect();
        let found = rua(&texts).into_iter().map(|rua| match rua {
            Rua::Mail(address) => address.as_str().to_owned(),
            Rua::Https(host, port, path) => format!("{host}:{port}{path}"),
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{texts:?}");
    };
    // The examples of RFC 8460 §3.
    check(&["v=TLSRPTv1;rua=mailto:reports@example.com"], &["reports@example.com"]);
    check(
        &["v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt"],
        &["reporting.example.com:443/v1/tlsrpt"],
    );
    check(
        &["v=TLSRPTv1; rua=mailto:a%2bb@example.com?subject=x, HTTPS://example.com:8443 , ftp://x/;"],
        &["a+b@example.com", "example.com:8443/"],
    );
    check(&["v=spf1 -all", "v=TLSRPTv1; x=y; rua=mailto:a@b.test"], &["a@b.test"]);
    check(&["v=TLSRPTv1; rua=mailto:a@b.test", "v=TLSRPTv1; rua=mailto:a@b.test"], &[]);
    check(&["v=TLSRPTv2; rua=mailto:a@b.test"], &[]);
    check(&["v=TLSRPTv1"], &[]);
    check(&["v=TLSRPTv1; rua=mailto:nobody"], &[]);
    check(&["v=TLSRPTv1; rua=mailto:%zz@b.test"], &[]);
    check(&["v=TLSRPTv1; rua=mailto:a%0d%0aBcc:x@b.test"], &[]);
    check(&["v=TLSRPTv1; rua=https://a b/, https://user@a/, https:///x, https://a:99999/"], &[]);
    assert!(rua(&[b"v=TLSRPTv1; rua=mailto:\xff@b.test".as_slice()]).is_empty());
}
