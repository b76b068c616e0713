//! List-Unsubscribe and List-Unsubscribe-Post of any octets: nothing panics, what nobody has signed is never one
//! click, a link leads to a host of the open network by HTTPS, and what is told of it is one field.

#![no_main]

use std::{sync::Arc, time::Duration};

use dns::{Answer, Name, Outcome, Security};
use libfuzzer_sys::fuzz_target;
use mail::{ReversePath, Timestamp};
use trust::{
    Case, Client, Digester, Judge, Judged, Limits, UnsubscribeFlaw, UnsubscribeWay, is_public,
    unsubscribe_as_sent, unsubscribe_result,
};

thread_local!(static JUDGE: Judge = Judge::new());

/// Signatures of ours are not verified by ourselves: it counts what they name.
const COVERING: &[u8] = b"DKIM-Signature: v=1; h=from:list-unsubscribe:list-unsubscribe-post; b=\r\n";

fuzz_target!(|input: &[u8]| {
    // A NUL parts the two values; what is no value is another field.
    let (uris, post) = input.split_at(input.iter().position(|b| *b == 0).unwrap_or(input.len()));
    let post = post.get(1..).unwrap_or(b" List-Unsubscribe=One-Click");
    let head = [b"List-Unsubscribe:", uris, b"\r\nList-Unsubscribe-Post:", post, b"\r\n"].concat();
    let message = [&head[..], b"From: a@example.org\r\n\r\nbody\r\n"].concat();
    let mut digester = Digester::new(Limits::default()).verifying();
    digester.push(&message);
    let digest = digester.finish();
    let client = Client {
        address: [192, 0, 2, 1].into(),
        helo: "client.example".to_owned(),
        mail_from: ReversePath::Null,
    };
    let at = Timestamp::from_secs(1_800_000_000);
    let mut case = Case::open(client, "mx.example", Limits::default(), at, Duration::ZERO);
    let verdict = loop {
        match JUDGE.with(|judge| case.judge_message(judge, &digest, Duration::ZERO)) {
            Judged::Known(verdict) => break verdict,
            Judged::Missing(questions) => {
                for question in questions {
                    let (outcome, security) = (Outcome::NxDomain, Security::Unproven);
                    let answer = Answer { outcome, security, alias_of: None, ttl: Duration::ZERO };
                    case.learn(question, Arc::new(answer));
                }
            }
        }
    };
    let as_sent = unsubscribe_as_sent(COVERING, b"", &digest);
    let Some(found) = verdict.unsubscribe else {
        assert_eq!(as_sent, Err(UnsubscribeFlaw::Missing));
        return;
    };
    assert!(found.way != UnsubscribeWay::OneClick && found.flaw.is_some(), "{found:?}");
    if let Some(link) = &found.link {
        let host = link[..8].eq_ignore_ascii_case("https://").then(|| link[8..].split(['/', '?', '#', ':']).next());
        let host = Name::parse(host.flatten().expect("it is a link of https")).expect("it has a host");
        assert!(is_public(&host) && link.bytes().all(|b| b.is_ascii_graphic()), "{link}");
    }
    // What goes out is held to all of that, and more.
    match (found.flaw, as_sent) {
        (Some(UnsubscribeFlaw::Unsigned), as_sent) => {
            use UnsubscribeFlaw::{Example, Space, Syntax};
            assert!(matches!(as_sent, Ok(()) | Err(Syntax | Space | Example)), "{as_sent:?}");
        }
        (flaw, as_sent) => assert_eq!(as_sent.err(), flaw),
    }
    let mut out = Vec::new();
    unsubscribe_result(&mut out, "mx.example", &found);
    let text = String::from_utf8(out).expect("it is text");
    let (first, rest) = text.split_once("\r\n\t").expect("it is folded once");
    assert_eq!(first, "X-Unsubscribe-Result: mx.example;");
    assert!(rest.ends_with("\r\n") && !rest.trim_end().contains(['\r', '\n']), "{rest}");
});
