//! Records good and bad (RFC 7208 §4.5, §4.6.1, §5, §6, §12).

use super::*;

fn check(text: &str, expected: Result<usize, SyntaxError>) {
    assert_eq!(Record::parse(text.as_bytes()).map(|record| record.directives.len()), expected, "{text}");
}

#[test]
fn records_good() {
    for (text, directives) in [
        ("", 0),
        ("   ", 0),
        (" +all", 1),
        (" -ALL  ~mX ?A", 3),
        (" a:example.org a/24 a//64 a/24//64 a:example.org/0//0 mx:%{d}/32//128", 6),
        (" a:x.museum a:example.org. a:.x ", 3),
        (" ptr ptr:example.org", 2),
        (" ip4:192.0.2.1 ip4:192.0.2.0/24 ip6:::1 ip6:2001:db8::/32 ip6:::ffff:192.0.2.1", 5),
        (" exists:%{i}.spf.example.org exists:a%{l}%%", 2),
        (" include:_spf.example.org redirect=example.org exp=e.example.org", 1),
        (" moo= all= x-y_z.1=%{d}/:=:/ a", 1),
        (" a:a-1.b-2.x-1y", 1),
    ] {
        check(text, Ok(directives));
    }
}

#[test]
fn records_bad() {
    for text in [
        " al",
        " all:x",
        " all/8",
        " a:",
        " a:x",
        " a:x.",
        " a:x.1",
        " a:x.-y",
        " a:x.y-",
        " a:x..",
        " a:x.y/33",
        " a:x.y/08",
        " a/",
        " a//129",
        " a//",
        " a/24/64",
        " a:/24",
        " a24",
        " mx:",
        " mx/33",
        " mx//129",
        " ptr:",
        " ptr/0",
        " ip4",
        " ip4:",
        " ip4:192.0.2",
        " ip4:192.0.2.256",
        " ip4:192.0.2.1/33",
        " ip4:192.0.2.1/032",
        " ip4:192.0.2.1/",
        " ip4:192.0.2.1//32",
        " ip4:192.0.2.01",
        " ip6:",
        " ip6:::1/129",
        " ip6:::1%1",
        " ip6:192.0.2.1x",
        " ip6:::g",
        " ip6::1::",
        " include",
        " include:",
        " include:x",
        " include:x.y/24",
        " exists",
        " exists:",
        " exists:x.y/24",
        " redirect=",
        " redirect=x",
        " redirect:x.y",
        " exp=",
        " exp=x",
        " exp=x.y exp=x.y",
        " redirect=x.y redirect=x.y",
        " -redirect=x.y",
        " 1x=y",
        " =y",
        " -x=y",
        " x=%{",
        " x=%{y}",
        " ++all",
        " +-all",
        " -",
        " all\tall",
        " all\u{a0}all",
        " \x0call",
        " unknown",
        " unknown:x.y",
    ] {
        check(text, Err(SyntaxError));
    }
    assert_eq!(Record::parse(b" a:\xc3\xa4.example"), Err(SyntaxError));
}

#[test]
fn an_error_after_the_match_is_an_error() {
    check(" +all moo", Err(SyntaxError));
}

#[test]
fn which_text_is_the_record() {
    let select = |texts: &[&str]| {
        let texts: Vec<Box<[u8]>> = texts.iter().map(|text| text.as_bytes().into()).collect();
        super::select(&texts).map(|record| record.map(|text| String::from_utf8_lossy(text).into_owned()))
    };
    let found = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(select(&["v=spf1"]), found(""));
    assert_eq!(select(&["x", "V=SPF1 -all", "v=spf10 +all", "v=spf1+all", "v=spf"]), found(" -all"));
    assert_eq!(select(&["v=spf1 -all", "v=spf1 -all"]), Err(TooMany));
    assert_eq!(select(&["v=spf2.0/pra -all", " v=spf1", "\u{feff}v=spf1"]), Ok(None));
    assert_eq!(select(&[]), Ok(None));
}
