//! Records and policies, good and bad.

use super::*;

#[test]
fn records() {
    let check = |texts: &[&str], expected: Option<&str>| {
        let texts: Vec<_> = texts.iter().map(|text| text.as_bytes()).collect();
        assert_eq!(record_id(&texts).as_deref(), expected, "{texts:?}");
    };
    // The example of RFC 8461 §3.1.
    check(&["v=STSv1; id=20160831085700Z;"], Some("20160831085700Z"));
    check(&["v=STSv1;id=1"], Some("1"));
    check(&["v=STSv1 ;\tid=1 ; x.y=z ;"], Some("1"));
    check(&["v=STSv1; x=y; id=1"], Some("1"));
    check(&["v=spf1 -all", "v=STSv1; id=1;"], Some("1"));
    check(&["v=STSv1; id=1; id=2;"], Some("1"));
    check(&["v=STSv1; id=1;", "v=STSv1; id=1;"], None);
    check(&[], None);
    check(&["v=STSv1"], None);
    check(&["v=STSv1;"], None);
    check(&["v=STSv2; id=1;"], None);
    check(&["V=STSV1; id=1;"], None);
    check(&["v=STSv1; id=;"], None);
    check(&["v=STSv1; id=a-b;"], None);
    check(&["v=STSv1; ID=1;"], None);
    check(&[&format!("v=STSv1; id={};", "1".repeat(33))], None);
    check(&["v=STSv1; id=1;;"], None);
    check(&["v=STSv1; id=1; -x=y"], None);
    check(&["v=STSv1; id=1; x="], None);
    assert_eq!(record_id(&[b"v=STSv1; id=1; x=\xff".as_slice()]), None);
}

/// The example of RFC 8461 §3.2.
const EXAMPLE: &str = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n";

#[test]
fn policies() {
    let name = |text| Name::parse(text).unwrap();
    let policy = Policy::parse(EXAMPLE.as_bytes()).unwrap();
    assert_eq!((policy.mode, policy.max_age, policy.mx.len()), (Mode::Enforce, 604_800, 3));
    for (host, expected) in [
        ("mail.example.com", true),
        ("MAIL.Example.com", true),
        ("backupmx.example.com", true),
        ("a.mail.example.com", false),
        ("example.com", false),
        // RFC 8461 §4.1: one label and no more.
        ("a.example.net", true),
        ("a.b.example.net", false),
        ("example.net", false),
        ("aexample.net", false),
    ] {
        assert_eq!(policy.names(&name(host)), expected, "{host}");
    }
    assert_eq!(Policy::parse(policy.to_string().as_bytes()), Ok(policy));
}

#[test]
fn policies_good_and_bad() {
    let check = |text: &str, expected: Result<(Mode, u32, usize), PolicyError>| {
        let read =
            Policy::parse(text.as_bytes()).map(|policy| (policy.mode, policy.max_age, policy.mx.len()));
        assert_eq!(read, expected, "{text:?}");
    };
    check("version: STSv1\nmode: testing\nmx: a.test\nmax_age: 1", Ok((Mode::Testing, 1, 1)));
    check("max_age:9\nmx:a.test\nmode:enforce\nversion:STSv1\n\n", Ok((Mode::Enforce, 9, 1)));
    check("version: STSv1 \nmode: none\nmax_age: 86400\n", Ok((Mode::None, 86_400, 0)));
    check("version: STSv1\nmode: none\nmode: enforce\nmax_age: 5\nmax_age: 6\n", Ok((Mode::None, 5, 0)));
    check("version: STSv1\nmode: none\nmax_age: 5\nnew-thing: some words\n", Ok((Mode::None, 5, 0)));
    check("version: STSv1\nmode: none\nmax_age: 9999999999\n", Ok((Mode::None, MAX_AGE_MAX, 0)));
    check("", Err(PolicyError::Version));
    check("version: STSv2\nmode: none\nmax_age: 5\n", Err(PolicyError::Version));
    check("mode: none\nmax_age: 5\n", Err(PolicyError::Version));
    check("version: STSv1\nmode: Enforce\nmx: a.test\nmax_age: 5\n", Err(PolicyError::Mode));
    check("version: STSv1\nmx: a.test\nmax_age: 5\n", Err(PolicyError::Mode));
    check("version: STSv1\nmode: enforce\nmax_age: 5\n", Err(PolicyError::Mx));
    check("version: STSv1\nmode: enforce\nmx: *.*.test\nmax_age: 5\n", Err(PolicyError::Mx));
    check("version: STSv1\nmode: enforce\nmx: a b\nmax_age: 5\n", Err(PolicyError::Mx));
    check("version: STSv1\nmode: enforce\nmx: .test\nmax_age: 5\n", Err(PolicyError::Mx));
    check("version: STSv1\nmode: enforce\nmx: a.test\n", Err(PolicyError::MaxAge));
    check("version: STSv1\nmode: enforce\nmx: a.test\nmax_age: -5\n", Err(PolicyError::MaxAge));
    check("version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 12345678901\n", Err(PolicyError::MaxAge));
    check("version: STSv1\nmode: enforce\nmx: a.test\nmax_age:\n", Err(PolicyError::Line));
    check("<html>\n", Err(PolicyError::Line));
    check("version: STSv1\0\n", Err(PolicyError::Line));
    check(&"x".repeat(Policy::SIZE_MAX + 1), Err(PolicyError::TooLong));
    assert_eq!(Policy::parse(b"version: \xff"), Err(PolicyError::Text));
}
