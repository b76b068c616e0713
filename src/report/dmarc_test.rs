//! Counting, and the report as RFC 9990 has it.

use mail::{Address, Timestamp};

use super::*;

fn published(policy: Policy) -> Published {
    Published {
        policy,
        subdomains: Policy::Quarantine,
        nonexistent: Policy::None,
        dkim_mode: Mode::Relaxed,
        spf_mode: Mode::Strict,
        testing: false,
        failure_options: "1:d".into(),
        to: vec![Destination { address: "r@example.org".into(), size_max: None }],
    }
}

fn row(number: u8) -> Row {
    Row {
        source: [192, 0, 2, number].into(),
        disposition: Disposition::None,
        dkim_aligned: false,
        spf_aligned: true,
        reasons: Vec::new(),
        header_from: "example.org".into(),
        envelope_from: "".into(),
        dkim: Vec::new(),
        spf: Spf { domain: "example.org".into(), result: AuthResult::Pass, reason: None },
    }
}

fn signature(selector: &str, result: AuthResult) -> Signature {
    Signature { domain: "list.example".into(), selector: selector.into(), result, reason: None }
}

#[test]
fn equal_messages_are_one_row() {
    let (mut one, mut two) = (Tally::default(), Tally::default());
    assert!(one.is_empty());
    for number in [1, 2, 1] {
        assert!(one.count("example.org", &published(Policy::None), row(number)));
    }
    assert!(two.count("example.org", &published(Policy::Reject), row(1)));
    assert!(two.count("example.net", &published(Policy::None), row(1)));
    one.merge(two);
    let domains = one.into_domains();
    assert_eq!(
        domains.iter().map(|(domain, _)| &**domain).collect::<Vec<_>>(),
        ["example.net", "example.org"]
    );
    let counts: Vec<_> = domains[1].1.rows().into_iter().map(|(row, count)| (row.source, count)).collect();
    assert_eq!(counts, [([192, 0, 2, 1].into(), 3), ([192, 0, 2, 2].into(), 1)]);
    // "the reporting entity SHOULD note only the final configuration observed" (§3.1).
    assert_eq!(domains[1].1.published.policy, Policy::Reject);
}

#[test]
fn everything_is_bounded() {
    let limits = Limits { domains_max: 2, rows_max: 4, size_max: 1 << 20 };
    let mut tally = Tally { limits, ..Tally::default() };
    let record = published(Policy::None);
    for domain in ["a.example", "b.example", "c.example", "d.example"] {
        for number in 0..6 {
            tally.count(domain, &record, row(number));
            tally.count(domain, &record, row(number));
        }
    }
    assert_eq!(tally.untold, 24, "two domains have no room");
    let untold = |tally: &Tally| tally.domains().map(|(_, domain)| domain.untold).collect::<Vec<_>>();
    assert_eq!(untold(&tally), [4, 4], "of each, two rows have none");
    // What another one could not tell is not told here either.
    let mut all = Tally::default();
    all.merge(tally.clone());
    assert_eq!((all.untold, untold(&all)), (24, vec![4, 4]));
    assert_eq!(all, tally);
    // What is taken out makes room.
    all.remove("a.example");
    all.remove("a.example");
    all.remove("b.example");
    assert_eq!((all.domains.len(), all.size), (0, 0));
    let mut small = Tally { limits: Limits { size_max: 4096, ..Limits::default() }, ..Tally::default() };
    for number in 0..200 {
        small.count("example.org", &record, row(number));
    }
    let (_, told) = &small.into_domains()[0];
    assert_eq!(told.rows.len() as u64 + told.untold, 200);
    assert!((1..20).contains(&told.rows.len()), "{}", told.rows.len());
    // Names that would break out of a subject or a file's name are none.
    for odd in ["a b.example", "a\"b.example", "", "a\r\n.example", "É.example"] {
        assert!(!Tally::default().count(odd, &record, row(1)), "{odd}");
    }
}

/// Whoever forges mail must not have all the rows.
#[test]
fn bad_signatures_tell_rows_apart_as_long_as_there_is_room() {
    let mut tally = Tally { limits: Limits { rows_max: 10, ..Limits::default() }, ..Tally::default() };
    let record = published(Policy::None);
    for number in 0..100 {
        let forged = vec![signature(&format!("s{number}"), AuthResult::Fail)];
        assert!(tally.count("example.org", &record, Row { dkim: forged, ..row(1) }));
    }
    let good = vec![signature("s", AuthResult::Pass), signature("t", AuthResult::Fail)];
    assert!(tally.count("example.org", &record, Row { dkim: good, ..row(2) }));
    let (_, told) = &tally.into_domains()[0];
    assert_eq!((told.rows.len(), told.untold), (7, 0));
    let kept = told.rows.keys().find(|row| row.source == std::net::IpAddr::from([192, 0, 2, 2])).unwrap();
    assert_eq!(kept.dkim, [signature("s", AuthResult::Pass)]);
}

fn feedback<'a>(record: &'a Published, rows: Vec<(&'a Row, u64)>) -> Feedback<'a> {
    Feedback {
        domain: "example.org",
        submitter: "mx.receiver.example",
        organization: "Receiver & <Söhne>\u{1}",
        contact: "dmarc@receiver.example",
        generator: "ringpost 1",
        from: Timestamp::from_secs(1_013_662_812),
        to: Timestamp::from_secs(1_013_749_130),
        published: record,
        rows,
        untold: 7,
    }
}

#[test]
fn the_report() {
    let record = Published { testing: true, ..published(Policy::Reject) };
    let forged = Row {
        source: "2001:db8::1".parse().unwrap(),
        disposition: Disposition::Quarantine,
        spf_aligned: false,
        reasons: vec![Reason { kind: Override::LocalPolicy, comment: "dmarc-reject".into() }],
        header_from: "sub.example.org".into(),
        envelope_from: "<\"&'>.example".into(),
        dkim: vec![Signature { reason: Some("no key".into()), ..signature("s1", AuthResult::PermError) }],
        ..row(1)
    };
    let good = row(1);
    let report = feedback(&record, vec![(&good, 3), (&forged, 1)]);
    let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<feedback xmlns=\"urn:ietf:params:xml:ns:dmarc-2.0\">
  <version>1.0</version>
  <report_metadata>
    <org_name>Receiver &amp; &lt;Söhne&gt;</org_name>
    <email>dmarc@receiver.example</email>
    <report_id>x1</report_id>
    <date_range>
      <begin>1013662812</begin>
      <end>1013749130</end>
    </date_range>
    <error>7 messages are in no record: there were too many that differ</error>
    <generator>ringpost 1</generator>
  </report_metadata>
  <policy_published>
    <domain>example.org</domain>
    <p>reject</p>
    <sp>quarantine</sp>
    <np>none</np>
    <adkim>r</adkim>
    <aspf>s</aspf>
    <discovery_method>treewalk</discovery_method>
    <fo>1:d</fo>
    <testing>y</testing>
  </policy_published>
  <record>
    <row>
      <source_ip>192.0.2.1</source_ip>
      <count>3</count>
      <policy_evaluated>
        <disposition>none</disposition>
        <dkim>fail</dkim>
        <spf>pass</spf>
      </policy_evaluated>
    </row>
    <identifiers>
      <header_from>example.org</header_from>
      <envelope_from></envelope_from>
    </identifiers>
    <auth_results>
      <spf>
        <domain>example.org</domain>
        <scope>mfrom</scope>
        <result>pass</result>
      </spf>
    </auth_results>
  </record>
  <record>
    <row>
      <source_ip>2001:db8::1</source_ip>
      <count>1</count>
      <policy_evaluated>
        <disposition>quarantine</disposition>
        <dkim>fail</dkim>
        <spf>fail</spf>
        <reason>
          <type>local_policy</type>
          <comment>dmarc-reject</comment>
        </reason>
      </policy_evaluated>
    </row>
    <identifiers>
      <header_from>sub.example.org</header_from>
      <envelope_from>&lt;&quot;&amp;&apos;&gt;.example</envelope_from>
    </identifiers>
    <auth_results>
      <dkim>
        <domain>list.example</domain>
        <selector>s1</selector>
        <result>permerror</result>
        <human_result>no key</human_result>
      </dkim>
      <spf>
        <domain>example.org</domain>
        <scope>mfrom</scope>
        <result>pass</result>
      </spf>
    </auth_results>
  </record>
</feedback>
";
    assert_eq!(report.to_xml("x1"), expected);
}

/// RFC 9990 §3.5.2, with its example of a name.
#[test]
fn the_mail_around_it() {
    let (record, good) = (published(Policy::None), row(1));
    let report = feedback(&record, vec![(&good, 3)]);
    assert_eq!(report.file_name("7"), "mx.receiver.example!example.org!1013662812!1013749130!7.xml.gz");
    let address = |text: &str| Address::parse(text.as_bytes()).unwrap();
    let (from, to) = (address("dmarc@receiver.example"), address("r@example.org"));
    let mail = report.to_mail("7", &from, &to, &[0xff; 100], "Sun, 29 Nov 2026 06:00:00 +0000");
    let mail = String::from_utf8(mail).unwrap();
    for part in [
        "From: <dmarc@receiver.example>\r\nTo: <r@example.org>\r\n",
        "\r\nSubject: Report Domain: example.org\r\n Submitter: mx.receiver.example\r\n Report-ID: <7>\r\n",
        "\r\nMessage-ID: <7@mx.receiver.example>\r\n",
        "\r\nContent-Type: application/gzip\r\n",
        " filename=\"mx.receiver.example!example.org!1013662812!1013749130!7.xml.gz\"\r\n",
        "from Receiver & <S?hne>?.\r\n",
    ] {
        assert!(mail.contains(part), "{part}\n{mail}");
    }
    assert!(mail.is_ascii() && mail.lines().all(|line| line.len() <= 78), "{mail}");
    assert!(!mail.replace("\r\n", "").contains(['\r', '\n']));
}

#[test]
fn the_same_report_has_the_same_id() {
    let (record, good, other) = (published(Policy::None), row(1), row(2));
    let report = feedback(&record, vec![(&good, 3), (&other, 1)]);
    let id = report.id();
    assert!(id.len() == 24 && id.bytes().all(|b| b.is_ascii_alphanumeric()), "{id}");
    assert_eq!(feedback(&record, vec![(&good, 3), (&other, 1)]).id(), id);
    assert_ne!(feedback(&record, vec![(&good, 3), (&other, 2)]).id(), id);
    assert_ne!(Feedback { domain: "example.net", ..report.clone() }.id(), id);
    assert_ne!(Feedback { to: Timestamp::from_secs(1_013_749_131), ..report }.id(), id);
}
