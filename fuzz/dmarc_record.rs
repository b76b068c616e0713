//! DMARC records and From fields of any octets: judging ends, and nothing passes that nobody stands by.

#![no_main]

use std::{sync::Arc, time::Duration};

use dns::{Answer, Failure, Name, Outcome, Records, Security};
use libfuzzer_sys::fuzz_target;
use mail::{ReversePath, Timestamp};
use trust::{
    Assertion, Author, BimiResult, Case, Client, Consent, DestinationCase, Digester, DmarcResult, Judge, Judged, Limits,
    ReportKind, authentication_results,
};

thread_local!(static JUDGE: Judge = Judge::new());

fuzz_target!(|input: &[u8]| {
    // The first octet says what DNS is like; NULs part the From field and the records, by the length of the name.
    let Some((kind, octets)) = input.split_first() else { return };
    let mut parts = octets.split(|b| *b == 0);
    let from = parts.next().unwrap_or_default();
    let records: Vec<&[u8]> = parts.collect();
    let from = if kind & 1 == 0 { b"a@b.sub.example.org".as_slice() } else { from };
    let mut digester = Digester::new(Limits::default()).verifying();
    digester.push(b"From:");
    digester.push(from);
    digester.push(b"\r\n\r\nbody\r\n");
    let digest = digester.finish();

    let limits = Limits::default();
    let client = Client {
        address: [192, 0, 2, 1].into(),
        helo: "client.example".to_owned(),
        mail_from: ReversePath::Null,
    };
    let mut case = Case::open(client, "mx.example", limits, Timestamp::EPOCH, Duration::ZERO);
    let verdict = loop {
        match JUDGE.with(|judge| case.judge_message(judge, &digest, Duration::ZERO)) {
            Judged::Known(verdict) => break verdict,
            Judged::Missing(questions) => {
                for question in questions {
                    let answer = answer(*kind, &records, question.name.as_str());
                    case.learn(question, Arc::new(answer));
                }
            }
        }
    };
    assert!(case.lookups() <= limits.lookups_max);
    assert_ne!(verdict.dmarc.result, DmarcResult::Pass);
    if let Author::Missing | Author::Several = verdict.dmarc.author {
        assert!(matches!(verdict.dmarc.result, DmarcResult::None | DmarcResult::PermError));
        // Where we see no one author, others see somebody.
        assert!(!verdict.tricks.is_empty() || verdict.dmarc.result == DmarcResult::PermError, "{verdict:?}");
    }
    // Nor is there a picture then.
    let assertion = loop {
        match case.judge_assertion(&digest, &verdict, Duration::ZERO) {
            Judged::Known(assertion) => break assertion,
            Judged::Missing(questions) => {
                for question in questions {
                    let answer = answer(*kind, &records, question.name.as_str());
                    case.learn(question, Arc::new(answer));
                }
            }
        }
    };
    let Assertion::Settled(bimi) = assertion else { panic!("{assertion:?}") };
    assert!(matches!(bimi.result, BimiResult::Skipped | BimiResult::TempError), "{bimi:?}");
    let mut out = Vec::new();
    authentication_results(&mut out, "mx.example", case.client(), &verdict);
    let lines = out.strip_suffix(b"\r\n").expect("a field ends in CRLF");
    for (i, line) in lines.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.len() <= 998 && (i == 0 || line.starts_with(b"\t")));
        assert!(line.iter().all(|b| *b >= b' ' || *b == b'\t'));
    }

    // Whether somebody wants reports: he says so himself, and for addresses of his own.
    let [domain, host] = ["blue.example.com", "red.example.net"].map(|name| Name::parse(name).unwrap());
    let tag = if *kind & 2 == 0 { ReportKind::Aggregate } else { ReportKind::Failure };
    let mut case = DestinationCase::open(domain, host, tag, limits, Duration::ZERO);
    let consent = loop {
        match case.judge(Duration::ZERO) {
            Judged::Known(consent) => break consent,
            Judged::Missing(questions) => {
                for question in questions {
                    let answer = answer(*kind, &records, question.name.as_str());
                    case.learn(question, Arc::new(answer));
                }
            }
        }
    };
    match consent {
        Consent::Own => unreachable!("nothing is above both"),
        Consent::Elsewhere(places) => {
            assert!(!places.is_empty());
            assert!(places.iter().all(|place| place.address.ends_with("@red.example.net")));
        }
        Consent::Given => assert!(!records.is_empty()),
        Consent::Missing | Consent::Unknown => {}
    }
});

/// What this DNS says of a name.
fn answer(kind: u8, records: &[&[u8]], name: &str) -> Answer {
    let outcome = if kind & 2 != 0 && name.len() % 7 == 3 {
        Outcome::TempFail(Failure::ServerFailure)
    } else if let (true, false) = (name.contains("_dmarc."), records.is_empty()) {
        let text = |record: &[u8]| [b"v=DMARC1;", record].concat().into();
        Outcome::Found(Records::Texts(vec![text(records[name.len() % records.len()])]))
    } else {
        Outcome::NxDomain
    };
    Answer { outcome, security: Security::Unproven, alias_of: None, ttl: Duration::ZERO }
}
