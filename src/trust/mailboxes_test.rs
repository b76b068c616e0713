//! `From` fields plain and odd.

use super::*;

fn read(value: &str) -> (Vec<Trick>, Vec<String>) {
    let read = Mailboxes::read(value.as_bytes());
    (read.tricks.iter().collect(), read.domains)
}

#[test]
fn what_is_plain_is_not_noted() {
    for (value, domain) in [
        ("ann@example.org", "example.org"),
        (" <ann@example.org>\r\n", "example.org"),
        (" Ann <ann@example.org>\r\n", "example.org"),
        ("\r\n\tAnn Q. Example\r\n <ann@example.org>\r\n", "example.org"),
        ("\"Example, Ann\" <ann@example.org>", "example.org"),
        ("\"Ann \\\"A\\\" Example\" < ann.b+c@example.org >", "example.org"),
        ("ann@example.org (Ann (the first) Example)", "example.org"),
        ("=?utf-8?q?J=C3=BCrgen?= <j@example.org>", "example.org"),
        ("Jürgen <jürgen@bücher.example>", "bücher.example"),
        ("\"ann b\"@example.org", "example.org"),
        ("ann@[192.0.2.1]", "[192.0.2.1]"),
        ("[News] Ann <ann@example.org>", "example.org"),
        ("Ann's (x) Shop! <ann@example.org>", "example.org"),
    ] {
        assert_eq!(read(value), (vec![], vec![domain.to_owned()]), "{value}");
    }
}

#[test]
fn what_is_read_in_several_ways_is_noted() {
    use Trick::{AddressInAddress, Group, Route, SeveralAddresses, Syntax, UnquotedName};
    for (value, expected) in [
        ("a@one.example, b@two.example", &[SeveralAddresses][..]),
        ("<a@one.example>, <b@two.example>", &[SeveralAddresses]),
        ("a@one.example,", &[]),
        (",a@one.example", &[Syntax]),
        ("Smith, Ann <a@one.example>", &[UnquotedName]),
        ("Example, Inc., Ltd. <a@one.example>", &[UnquotedName]),
        ("b@two.example, Ann <a@one.example>", &[SeveralAddresses]),
        ("=?utf-8?q?b=40two.example?=, Ann <a@one.example>", &[Syntax]),
        ("=?utf-8?q?=3Cb=40two.example=3E?=, <a@one.example>", &[Syntax]),
        ("\"b\", <a@one.example>", &[Syntax]),
        ("a@one.example, Ann", &[Syntax]),
        ("Team: a@one.example;", &[Group]),
        ("Team: a@one.example, b@two.example;", &[SeveralAddresses, Group]),
        ("undisclosed:;", &[Group]),
        ("<@bank.example,@two.example:a@one.example>", &[Route]),
        ("<@bank.example:a@one.example>", &[Route]),
        ("<a@one.example> <b@two.example>", &[Syntax]),
        ("<a@one.example><b@two.example>", &[Syntax]),
        ("<<a@one.example>>", &[Syntax]),
        // The name has an address in it: see below.
        ("a@one.example <b@two.example>", &[]),
        ("<a@one.example> b@two.example", &[Syntax]),
        ("<a@one.example", &[Syntax]),
        ("a@one.example>", &[Syntax]),
        ("a@bank.example@one.example", &[Syntax]),
        ("a@one(bank.example).example", &[Syntax]),
        ("a(x)@one.example", &[Syntax]),
        ("a @one.example", &[Syntax]),
        ("a@one .example", &[Syntax]),
        ("a@one..example", &[Syntax]),
        (".a@one.example", &[Syntax]),
        ("a@one.example.", &[Syntax]),
        ("a", &[Syntax]),
        ("<>", &[Syntax]),
        ("", &[]),
        ("\"a@bank.example\"@one.example", &[AddressInAddress]),
        ("\"a@bank.example> \"@one.example", &[AddressInAddress]),
        ("\\<a@bank.example\\> <b@one.example>", &[Syntax]),
        ("\"unended <a@one.example>", &[Syntax, AddressInAddress]),
        ("(unended <a@one.example>", &[Syntax]),
        ("a@one.example\0.bank.example", &[Syntax]),
        ("=?utf-8?q?a=40bank.example?=", &[Syntax]),
        ("=?utf-8?q?a?=@one.example", &[Syntax]),
        ("a@=?utf-8?q?bank.example?=", &[Syntax]),
        ("a@one.example:25", &[Syntax, Group]),
    ] {
        let mut expected = expected.to_vec();
        expected.sort();
        let mut found = read(value).0;
        found.sort();
        assert_eq!(found, expected, "{value:?}");
    }
}

#[test]
fn a_name_with_another_address() {
    for (value, expected) in [
        ("\"ann@example.org\" <ann@example.org>", false),
        ("\"ann@mail.example.org\" <ann@example.org>", false),
        ("ann@EXAMPLE.org <ann@mail.example.org>", false),
        ("\"Ann @ Home.example\" <ann@example.org>", false),
        ("\"@ann\" <ann@example.org>", false),
        ("\"ann@home\" <ann@example.org>", false),
        ("\"admin@bank.example\" <ann@example.org>", true),
        ("\"Bank <admin@bank.example>\" <ann@example.org>", true),
        ("=?utf-8?b?YWRtaW5AYmFuay5leGFtcGxl?= <ann@example.org>", true),
        ("\"=?utf-8?b?YWRtaW5AYmFuay5leGFtcGxl?=\" <ann@example.org>", true),
        ("=?utf-8?q?admin?= =?utf-8?q?=40bank.example?= <ann@example.org>", true),
        ("=?utf-7?q?admin+AEA-bank.example?= <ann@example.org>", true),
        ("admin＠bank.example <ann@example.org>", true),
        ("\"admin@bank。example\" <ann@example.org>", true),
        ("ann@example.org (admin@bank.example)", true),
        ("admin@ba\u{ad}nk.exam\u{feff}ple <ann@example.org>", true),
        ("admin\u{200d}@\u{200c}bank.example <ann@example.org>", true),
        ("admin@bank\u{2024}example <ann@example.org>", true),
        ("=?utf-8?q?admin=E2=81=A0=40bank.example?= <ann@example.org>", true),
        ("\"admin@notexample.org\" <ann@example.org>", true),
    ] {
        let read = Mailboxes::read(value.as_bytes());
        assert_eq!(read.names_another_than("example.org"), expected, "{value}");
    }
}

#[test]
fn octets_of_any_kind() {
    // Whatever comes is read to its end, by pieces that are each odd in their way.
    let pieces = [
        "a", "@", "<", ">", ",", ":", ";", "(", ")", "\"", "\\", "[", "]", ".", " ", "\r\n ", "\0", "=?",
        "?=", "é",
    ];
    let mut random = 1_u64;
    for _ in 0..20_000 {
        let mut value = String::new();
        for _ in 0..12 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            value.push_str(pieces[(random >> 33) as usize % pieces.len()]);
        }
        let read = Mailboxes::read(value.as_bytes());
        assert!(read.domains.len() < 2 || read.tricks.contains(Trick::SeveralAddresses), "{value:?}");
    }
}
