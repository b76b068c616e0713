//! A domain whose every record is somebody else's: looking at it ends, and what is said of it stays on its lines.

#![no_main]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use deliverability::{
    Checkup, EgressAddress, Gathered, HostProbe, HostSeen, PictureSeen, Plan, UnsubscribeLinks, is_open,
};
use dns::{Answer, Exchange, ExchangeHost, Failure, Kind, Name, Outcome, Question, Records, Security, Tlsa};
use libfuzzer_sys::fuzz_target;
use mail::{Domain, Timestamp};
use trust::{DnsList, Judged, Key, Limits, ListSubject, Signer, SignerOptions};

const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
                   -----END PRIVATE KEY-----\n";

fn name(text: &str) -> Name {
    Name::parse(text).expect("our own text")
}

/// Texts are parted by octets that are in none; the first octet of each says for which names it is.
fn answer(input: &[u8], question: &Question) -> Answer {
    let turn = question.name.as_str().bytes().fold(question.kind as u8, |sum, b| sum.wrapping_add(b)) % 16;
    let pieces = input.split(|b| *b == 0).filter_map(|piece| piece.split_first());
    let pieces: Vec<&[u8]> = pieces.filter(|(for_whom, _)| **for_whom % 16 == turn).map(|(_, p)| p).collect();
    let octet = |at: usize| pieces.first().and_then(|piece| piece.get(at)).copied().unwrap_or_default();
    let outcome = match question.kind {
        _ if pieces.is_empty() && turn % 3 == 0 => Outcome::NxDomain,
        _ if pieces.is_empty() && turn % 3 == 1 => Outcome::TempFail(Failure::Timeout),
        _ if pieces.is_empty() => Outcome::NoData,
        Kind::Txt => Outcome::Found(Records::Texts(pieces.iter().map(|piece| (*piece).into()).collect())),
        Kind::A => Outcome::Found(Records::Addresses(vec![[octet(0), octet(1), 2, 1].into()])),
        Kind::Aaaa => Outcome::Found(Records::Addresses(vec![[0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(octet(0))].into()])),
        Kind::Mx => {
            let host = match octet(0) % 4 {
                0 => ExchangeHost::Null,
                1 => ExchangeHost::Malformed,
                n => ExchangeHost::Name(name(&format!("mx{n}.example.org"))),
            };
            Outcome::Found(Records::Exchanges(vec![Exchange { preference: 1, host }]))
        }
        Kind::Ptr | Kind::Cname => {
            let named = String::from_utf8_lossy(pieces[0]);
            Outcome::Found(Records::Names(vec![Name::parse(&named).unwrap_or_else(|_| name("mx.example.org"))]))
        }
        Kind::Tlsa => Outcome::Found(Records::Tlsa(vec![Tlsa {
            usage: octet(0) % 4,
            selector: octet(1) % 2,
            matching: octet(2) % 3,
            data: pieces[0].into(),
        }])),
    };
    let security = if octet(3) % 2 == 0 { Security::Secure } else { Security::Unproven };
    Answer { outcome, security, alias_of: None, ttl: Duration::ZERO }
}

fuzz_target!(|input: &[u8]| {
    let key = Key::parse(KEY).expect("a key");
    let domain = Domain::parse("example.org").expect("a domain");
    let plan = Plan {
        domain: name("example.org"),
        addresses: vec![EgressAddress {
            address: [192, 0, 2, 1].into(),
            ehlo: "mx.example.org".into(),
            from: "this host".into(),
        }],
        reverse_paths: vec![name("bounces.example.org")],
        signers: vec![Signer::new(key, &domain, "s", SignerOptions::default()).expect("a signer")],
        lists: vec![DnsList {
            name: "bl".into(),
            zone: name("bl.example"),
            subjects: vec![ListSubject::Ipv4, ListSubject::SenderDomain],
            weight: 1,
            codes: Vec::new(),
            explains: true,
        }],
        unsubscribe: UnsubscribeLinks::Used("https://news.example.org/u/1".into()),
        port: 25,
        connects: true,
        limits: Limits { lookups_max: 500, ..Limits::default() },
    };
    let now = Duration::from_secs(1);
    let mut checkup = Checkup::open(plan, Timestamp::from_secs(1_764_417_600), now);
    let errands = loop {
        match checkup.errands(now) {
            Judged::Known(errands) => break errands,
            Judged::Missing(questions) => questions.into_iter().for_each(|question| {
                let answer = Arc::new(answer(input, &question));
                checkup.learn(question, answer);
            }),
        }
    };
    let addresses = errands.hosts.iter().flat_map(|(_, addresses)| addresses);
    let policy = errands.policy.iter().flat_map(|policy| &policy.addresses);
    assert!(addresses.chain(policy).all(|address| is_open(*address)), "somewhere behind our walls");
    let seen = HostSeen {
        version: "TLSv1.3".into(),
        chain: vec![input.to_vec()],
        trusted: Err(String::from_utf8_lossy(input).into_owned()),
        days_left: None,
    };
    let hosts: BTreeMap<_, _> =
        errands.hosts.into_iter().map(|(host, _)| (host, HostProbe::Secure(seen.clone()))).collect();
    let picture = errands.picture.map(|_| match input.len() % 3 {
        0 => Err(String::from_utf8_lossy(input).into_owned()),
        1 => Ok(PictureSeen { names: None }),
        _ => Ok(PictureSeen { names: Some(vec![String::from_utf8_lossy(input).into_owned()]) }),
    });
    checkup.bring(Gathered { policy: errands.policy.map(|_| Ok(input.to_vec())), hosts, picture });
    let report = loop {
        match checkup.judge(now) {
            Judged::Known(report) => break report,
            Judged::Missing(questions) => questions.into_iter().for_each(|question| {
                let answer = Arc::new(answer(input, &question));
                checkup.learn(question, answer);
            }),
        }
    };
    for finding in &report.findings {
        let all = [&finding.subject, &finding.text].into_iter().chain(&finding.remedy);
        for text in all {
            assert!(!text.contains(char::is_control), "{text:?}");
        }
        // What is to be copied is whole: nothing stands for what cannot be shown.
        let is_whole = |text: &String| text.bytes().all(|b| matches!(b, b' '..=b'~'));
        assert!(finding.publish.as_ref().is_none_or(|record| is_whole(&record.value)), "{finding:?}");
        let record = finding.publish.as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(record.bytes().all(|b| b == b'\n' || matches!(b, b' '..=b'~')), "{record:?}");
    }
});
