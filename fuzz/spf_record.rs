//! SPF records and macros of any octets: judging ends, within its limits, and what is told of it is one field.

#![no_main]

use std::{sync::Arc, time::Duration};

use dns::{Answer, Exchange, ExchangeHost, Failure, Kind, Name, Outcome, Question, Records, Security};
use libfuzzer_sys::fuzz_target;
use mail::{ReversePath, Timestamp};
use trust::{Case, Client, Judged, Limits, SpfResult, received_spf};

fuzz_target!(|input: &[u8]| {
    // The first octet says what DNS is like; NULs part the records that are found, by the length of the name.
    let Some((kind, octets)) = input.split_first() else { return };
    let records: Vec<&[u8]> = octets.split(|b| *b == 0).collect();
    let address = if kind & 1 == 0 { "192.0.2.1" } else { "2001:db8::1" }.parse().expect("an address");
    let client = Client {
        address,
        helo: String::from_utf8_lossy(records[records.len() - 1]).into_owned(),
        mail_from: ReversePath::Address("a-b+c@sub.example.org".parse().expect("an address")),
    };
    let limits = Limits::default();
    let mut case = Case::open(client, "mx.example", limits, Timestamp::EPOCH, Duration::ZERO);
    let mut rounds = 0;
    let verdict = loop {
        match case.judge_envelope(Duration::ZERO) {
            Judged::Known(verdict) => break verdict,
            Judged::Missing(questions) => {
                rounds += 1;
                for question in questions {
                    let outcome = answer(&question, *kind, &records);
                    let answer =
                        Answer { outcome, security: Security::Unproven, alias_of: None, ttl: Duration::ZERO };
                    case.learn(question, Arc::new(answer));
                }
            }
        }
    };
    assert!(rounds <= limits.lookups_max && case.lookups() <= limits.lookups_max);
    for spf in [&verdict.helo, &verdict.mail_from] {
        let error = matches!(spf.result, SpfResult::TempError | SpfResult::PermError);
        assert_eq!(error, spf.problem.is_some());
        assert!(spf.explanation.is_none() || spf.result == SpfResult::Fail);
        let explanation = spf.explanation.as_deref().unwrap_or_default();
        assert!(
            explanation.len() <= limits.explanation_len_max
                && explanation.bytes().all(|b| (b' '..=b'~').contains(&b))
        );
        let mut out = Vec::new();
        received_spf(&mut out, "mx.example", case.client(), spf);
        is_one_field(&out);
    }
});

fn answer(question: &Question, kind: u8, records: &[&[u8]]) -> Outcome {
    let name = question.name.as_str();
    if kind & 2 != 0 && name.len() % 7 == 3 {
        return Outcome::TempFail(Failure::ServerFailure);
    }
    if kind & 4 != 0 && name.len() % 5 == 2 {
        return Outcome::NxDomain;
    }
    let names =
        ["x.example", "sub.example.org", "y.sub.example.org"].map(|name| Name::parse(name).expect("a name"));
    Outcome::Found(match question.kind {
        Kind::A => Records::Addresses(vec![[192, 0, 2, 9].into(), [192, 0, 2, 1].into()]),
        Kind::Aaaa => Records::Addresses(vec!["2001:db8::9".parse().expect("an address")]),
        Kind::Mx => {
            let host = |name| Exchange { preference: 1, host: ExchangeHost::Name(name) };
            Records::Exchanges(names.map(host).to_vec())
        }
        Kind::Ptr => Records::Names(names.to_vec()),
        Kind::Txt => {
            let record = records[name.len() % records.len()];
            // Explanations are texts without a version.
            let text = if name.starts_with('e') { record.to_vec() } else { [b"v=spf1 ", record].concat() };
            Records::Texts(vec![text.into()])
        }
        Kind::Cname | Kind::Tlsa => return Outcome::NoData,
    })
}

fn is_one_field(field: &[u8]) {
    let lines = field.strip_suffix(b"\r\n").expect("a field ends in CRLF");
    for (i, line) in lines.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.len() <= 998 && (i == 0 || line.starts_with(b"\t")));
        assert!(line.iter().all(|b| *b >= b' ' || *b == b'\t'));
    }
}
