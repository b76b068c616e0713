//! Signature fields and key records of any octets: nothing panics, nothing passes, however the message is cut, and
//! what is told of it is one field.

#![no_main]

use std::{sync::Arc, time::Duration};

use dns::{Answer, Kind, Outcome, Records, Security};
use libfuzzer_sys::fuzz_target;
use mail::{ReversePath, Timestamp};
use trust::{
    BodyLength, Case, Client, Digest, Digester, DkimResult, Judge, Judged, Limits, Sha1Signatures,
    authentication_results,
};

thread_local!(static JUDGE: Judge = Judge::new());

fuzz_target!(|input: &[u8]| {
    // The first octet says how long the slices are and what is accepted; a NUL parts the field from the key.
    let Some((step, octets)) = input.split_first() else { return };
    let (field, key) = octets.split_at(octets.iter().position(|b| *b == 0).unwrap_or(octets.len()));
    let mut limits = Limits::default();
    if step & 1 == 1 {
        (limits.sha1, limits.body_length) = (Sha1Signatures::Accepted, BodyLength::Ignored);
    }
    let message = [b"DKIM-Signature:", field, b"\r\nFrom: a@example.org\r\n\r\nbody \r\n\r\n"].concat();
    let digest = digest(&message, usize::from(*step).max(1), limits);
    let whole = self::digest(&message, message.len(), limits);
    assert_eq!((digest.header(), digest.flaw()), (whole.header(), whole.flaw()));
    for range in digest.forged_results("mx.example") {
        assert!(range.start < range.end && range.end <= digest.header().len());
    }

    let client = Client {
        address: [192, 0, 2, 1].into(),
        helo: "client.example".to_owned(),
        mail_from: ReversePath::Null,
    };
    let mut case =
        Case::open(client, "mx.example", limits, Timestamp::from_secs(1_800_000_000), Duration::ZERO);
    let verdict = loop {
        match JUDGE.with(|judge| case.judge_message(judge, &digest, Duration::ZERO)) {
            Judged::Known(verdict) => break verdict,
            Judged::Missing(questions) => {
                for question in questions {
                    let of_key =
                        question.kind == Kind::Txt && question.name.as_str().contains("._domainkey.");
                    let key = key.get(1..).unwrap_or_default().into();
                    let outcome =
                        if of_key { Outcome::Found(Records::Texts(vec![key])) } else { Outcome::NxDomain };
                    let answer =
                        Answer { outcome, security: Security::Unproven, alias_of: None, ttl: Duration::ZERO };
                    case.learn(question, Arc::new(answer));
                }
            }
        }
    };
    assert!(case.lookups() <= limits.lookups_max && verdict.dkim.len() <= limits.signatures_max + 1);
    assert!(verdict.dkim.iter().all(|dkim| dkim.result != DkimResult::Pass), "{verdict:?}");
    let mut out = Vec::new();
    authentication_results(&mut out, "mx.example", case.client(), &verdict);
    is_one_field(&out);
});

fn digest(message: &[u8], step: usize, limits: Limits) -> Digest {
    let mut digester = Digester::new(limits).verifying();
    message.chunks(step).for_each(|slice| digester.push(slice));
    digester.finish()
}

fn is_one_field(field: &[u8]) {
    let lines = field.strip_suffix(b"\r\n").expect("a field ends in CRLF");
    for (i, line) in lines.split(|b| *b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.len() <= 998 && (i == 0 || line.starts_with(b"\t")));
        assert!(line.iter().all(|b| *b >= b' ' || *b == b'\t'));
    }
}
