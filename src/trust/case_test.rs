//! Whole messages: rounds, time, and what is never a pass.

use dns::{Failure, Kind};

use super::*;
use crate::{
    DkimResult, DmarcPolicy, DmarcResult, IprevResult, SpfResult,
    dkim::test::{KEYS, message},
    zone::{AT, NOW, RECEIVER, Zone, case, client, digest},
};

/// Everything that mail from ann needs to pass; her signatures are those of RFC 8463.
fn zone() -> Zone {
    Zone::parse(&format!(
        "192.0.2.1 PTR client.example.com\n\
         client.example.com A 192.0.2.1\n\
         client.example.com TXT v=spf1 a -all\n\
         football.example.com TXT v=spf1 include:_spf.example.com mx -all\n\
         football.example.com MX 10 client.example.com\n\
         _spf.example.com TXT v=spf1 ip4:203.0.113.0/24\n\
         _dmarc.example.com TXT v=DMARC1; p=reject\n\
         {KEYS}"
    ))
}

fn open() -> Case {
    case("192.0.2.1", "client.example.com", "ann@football.example.com", Limits::default())
}

#[test]
fn a_message_that_passes_everything() {
    let (zone, judge, mut case) = (zone(), Judge::new(), open());
    let envelope = zone.envelope(&mut case);
    assert_eq!(envelope.iprev.result, IprevResult::Pass);
    assert_eq!((envelope.helo.result, envelope.mail_from.result), (SpfResult::Pass, SpfResult::Pass));
    let lookups = case.lookups();
    let verdict = zone.message(&mut case, &judge, &digest(message().as_bytes(), Limits::default()));
    assert_eq!(verdict.envelope, envelope);
    let results: Vec<_> = verdict.dkim.iter().map(|dkim| dkim.result).collect();
    assert_eq!(results, [DkimResult::Pass, DkimResult::Pass]);
    assert_eq!((verdict.dmarc.result, verdict.dmarc.policy), (DmarcResult::Pass, DmarcPolicy::Reject));
    assert_eq!(verdict.flaw, None);
    // The message needs two keys and three steps of a walk; the envelope is not judged again.
    assert_eq!((lookups, case.lookups()), (6, 11));
}

#[test]
fn two_rounds_for_all() {
    let (zone, judge, mut case) = (zone(), Judge::new(), open());
    let digest = digest(message().as_bytes(), Limits::default());
    let mut rounds = 0;
    while let Judged::Missing(questions) = case.judge_message(&judge, &digest, NOW) {
        rounds += 1;
        for question in questions {
            let answer = zone.answer(&question);
            case.learn(question, Arc::new(answer));
        }
    }
    // The records and keys; what the records name.
    assert_eq!(rounds, 2);
}

/// Each question is in turn the only one that is not answered. Nothing gets better by it.
#[test]
fn what_is_not_known_never_helps() {
    let (zone, judge) = (zone(), Judge::new());
    let digest = digest(message().as_bytes(), Limits::default());
    let spoofed = digest_of_spoofed();
    let mut questions = Vec::new();
    for i in 0.. {
        let mut case = open();
        let verdict = loop {
            match case.judge_message(&judge, &digest, NOW) {
                Judged::Known(verdict) => break verdict,
                Judged::Missing(missing) => {
                    for question in missing {
                        if !questions.contains(&question) {
                            questions.push(question.clone());
                        }
                        let failed = questions.get(i).is_some_and(|failed| *failed == question);
                        let answer = if failed {
                            Answer::failed(Failure::ServerFailure, Duration::ZERO)
                        } else {
                            zone.answer(&question)
                        };
                        case.learn(question, Arc::new(answer));
                    }
                }
            }
        };
        if i >= questions.len() {
            break;
        }
        let failed = &questions[i];
        assert_ne!(verdict.envelope.iprev.result, IprevResult::PermError, "{failed}");
        assert!(matches!(verdict.envelope.helo.result, SpfResult::Pass | SpfResult::TempError), "{failed}");
        assert!(
            matches!(verdict.envelope.mail_from.result, SpfResult::Pass | SpfResult::TempError),
            "{failed}"
        );
        for dkim in &verdict.dkim {
            assert!(matches!(dkim.result, DkimResult::Pass | DkimResult::TempError), "{failed}");
        }
        assert!(matches!(verdict.dmarc.result, DmarcResult::Pass | DmarcResult::TempError), "{failed}");
    }
    assert_eq!(questions.len(), 11);
    // The same for mail that is to fail: it must not come to pass, or to have nothing said of it.
    for i in 0..40 {
        let mut case = case("198.51.100.1", "evil.example", "x@football.example.com", Limits::default());
        let mut asked = 0;
        let verdict = loop {
            match case.judge_message(&judge, &spoofed, NOW) {
                Judged::Known(verdict) => break verdict,
                Judged::Missing(missing) => {
                    for question in missing {
                        let answer = if asked == i {
                            Answer::failed(Failure::Timeout, Duration::ZERO)
                        } else {
                            zone.answer(&question)
                        };
                        asked += 1;
                        case.learn(question, Arc::new(answer));
                    }
                }
            }
        };
        assert!(matches!(verdict.envelope.mail_from.result, SpfResult::Fail | SpfResult::TempError), "{i}");
        assert!(matches!(verdict.dmarc.result, DmarcResult::Fail | DmarcResult::TempError), "{i}");
    }
}

/// The same message with another text.
fn digest_of_spoofed() -> Digest {
    digest(message().replace("lost", "won").as_bytes(), Limits::default())
}

#[test]
fn the_deadline_ends_it() {
    let (judge, digest) = (Judge::new(), digest(message().as_bytes(), Limits::default()));
    let mut case = open();
    assert!(matches!(case.judge_message(&judge, &digest, NOW), Judged::Missing(_)));
    let late = case.deadline();
    assert_eq!(late, NOW + Limits::default().time_max);
    assert!(matches!(
        case.judge_message(&judge, &digest, late - Duration::from_nanos(1)),
        Judged::Missing(_)
    ));
    let Judged::Known(verdict) = case.judge_message(&judge, &digest, late) else { panic!("it is late") };
    assert_eq!(verdict.envelope.iprev.result, IprevResult::TempError);
    assert_eq!(verdict.envelope.helo.result, SpfResult::TempError);
    assert_eq!(verdict.envelope.mail_from.result, SpfResult::TempError);
    assert!(verdict.dkim.iter().all(|dkim| dkim.result == DkimResult::TempError));
    assert_eq!(verdict.dmarc.result, DmarcResult::TempError);
}

#[test]
fn the_budget_ends_it() {
    let (zone, judge) = (zone(), Judge::new());
    let digest = digest(message().as_bytes(), Limits::default());
    for lookups_max in 0..16 {
        let limits = Limits { lookups_max, ..Limits::default() };
        let mut case = case("192.0.2.1", "client.example.com", "ann@football.example.com", limits);
        let verdict = zone.message(&mut case, &judge, &digest);
        assert!(case.lookups() <= lookups_max);
        let all =
            verdict.dmarc.result == DmarcResult::Pass && verdict.envelope.iprev.result == IprevResult::Pass;
        assert!(all || lookups_max < 11, "{lookups_max}");
        if lookups_max == 0 {
            assert_eq!(verdict.dmarc.result, DmarcResult::TempError);
        }
    }
}

#[test]
fn the_null_reverse_path_is_postmaster_of_the_client() {
    // RFC 7208 §2.4
    let zone = Zone::parse(
        "client.example TXT v=spf1 exists:%{s}.ok.example -all\npostmaster@client.example.ok.example A 127.0.0.2",
    );
    let mut case = case("192.0.2.1", "client.example", "", Limits::default());
    let envelope = zone.envelope(&mut case);
    assert_eq!((envelope.helo.result, envelope.mail_from.result), (SpfResult::Pass, SpfResult::Pass));
    assert_eq!(envelope.mail_from.identity, SpfIdentity::MailFrom);
}

#[test]
fn an_ipv4_client_of_a_socket_for_both_families() {
    let zone = Zone::parse("example.org TXT v=spf1 ip4:192.0.2.1 -all");
    let mut case = case("::ffff:192.0.2.1", "client.example", "ann@example.org", Limits::default());
    assert_eq!(zone.envelope(&mut case).mail_from.result, SpfResult::Pass);
    assert_eq!(case.client().address, client("192.0.2.1", "", "").address);
}

#[test]
fn an_answer_to_another_question_changes_nothing() {
    let mut case = Case::open(client("192.0.2.1", "x.example", ""), RECEIVER, Limits::default(), AT, NOW);
    let question = Question { name: "other.example".parse().unwrap(), kind: Kind::Txt };
    case.learn(question, Arc::new(Answer::failed(Failure::Timeout, Duration::ZERO)));
    let envelope = Zone::default().envelope(&mut case);
    assert_eq!(envelope.helo.result, SpfResult::None);
}
