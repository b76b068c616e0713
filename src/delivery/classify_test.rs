//! Rules that fit, and what follows from them.

use mail::Domain;
use smtp::client::{Answer, Loss, ReplyLimits, ReplyReader};

use super::*;
use crate::{Remote, Teller};

fn rule(name: &str, category: Category) -> Rule {
    Rule {
        name: name.into(),
        codes: Vec::new(),
        statuses: Vec::new(),
        texts: Vec::new(),
        domains: Vec::new(),
        hosts: Vec::new(),
        stages: Vec::new(),
        owners: Owners::default(),
        category,
        action: Action::None,
        pool: None,
        example: "".into(),
    }
}

const NOBODY: Owner<'_> = Owner { tenant: None, campaign: None };

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn outcome(stage: Stage, text: &str) -> Outcome {
    let mut reader = ReplyReader::new(ReplyLimits::default());
    let reply = reader.read(&mut format!("{text}\r\n").as_bytes()).unwrap().unwrap();
    Outcome::of(&Answer::Reply(stage, reply), &remote(), Teller::We)
}

fn remote() -> Arc<Remote> {
    Arc::new(Remote::relay("mx1.example.net".into(), [192, 0, 2, 1].into(), 25))
}

#[test]
fn each_list_must_fit_and_the_first_rule_counts() {
    let rules = vec![
        Rule { codes: vec![554], texts: vec!["spam".into()], ..rule("both", Category::SpamContent) },
        Rule { statuses: vec!["5.1.*".parse().unwrap()], ..rule("status", Category::BadMailbox) },
        Rule { stages: vec![At::Mail], ..rule("stage", Category::Policy) },
        Rule {
            hosts: vec![Pattern::Below(domain("example.net"))],
            codes: vec![450],
            ..rule("host", Category::Rate)
        },
        Rule { domains: vec![Pattern::Exact(domain("example.org"))], ..rule("domain", Category::Quota) },
        Rule {
            codes: vec![451],
            owners: Owners { tenants: vec!["shop".into()], campaigns: vec!["news".into()] },
            ..rule("owner", Category::Other)
        },
    ];
    let classifier = Classifier::new(rules).unwrap();
    let owned = |tenant, campaign| {
        let owner = Owner { tenant: Some(tenant), campaign };
        classifier.judge(&outcome(Stage::Rcpt, "451 no"), "a.test", owner).unwrap().rule
    };
    assert_eq!(owned("Shop", Some("news")).as_deref(), Some("owner"));
    assert_eq!((owned("shop", None), owned("office", Some("news"))), (None, None));
    for (stage, text, to, expected) in [
        (Stage::End, "554 this is SPAM", "a.test", Some("both")),
        (Stage::End, "550 this is SPAM", "a.test", None),
        (Stage::End, "554 5.1.1 no ham", "a.test", Some("status")),
        (Stage::Mail, "554 5.1.1 spam", "a.test", Some("both")),
        (Stage::Mail, "550 no", "a.test", Some("stage")),
        (Stage::Rcpt, "450 no", "a.test", Some("host")),
        (Stage::Rcpt, "451 no", "Example.ORG", Some("domain")),
        (Stage::Rcpt, "451 no", "a.example.org", None),
    ] {
        let judgement = classifier.judge(&outcome(stage, text), to, NOBODY).unwrap();
        assert_eq!(judgement.rule.as_deref(), expected, "{text}");
    }
    assert_eq!(classifier.judge(&outcome(Stage::End, "250 ok"), "example.org", NOBODY), None);
}

#[test]
fn lines_are_one_text_and_any_bytes_are_read() {
    let rules = vec![
        Rule { texts: vec!["one two".into()], ..rule("broken", Category::Policy) },
        Rule { texts: vec!["不存在".into()], ..rule("script", Category::BadMailbox) },
    ];
    let classifier = Classifier::new(rules).unwrap();
    let asked = |text| {
        let (domain, host) = ("", "");
        let refused = Refused { code: Some(550), status: None, text, domain, host, at: None, owner: NOBODY };
        classifier.classify(&refused).category
    };
    assert_eq!(asked("One\n  TWO\n"), Category::Policy);
    assert_eq!(asked("用户不存在"), Category::BadMailbox);
    assert_eq!(asked(&"é".repeat(10_000)), Category::Other);
}

#[test]
fn what_we_found_is_told_apart_by_its_status() {
    let rules = vec![Rule {
        statuses: vec!["4.4.2".parse().unwrap()],
        stages: vec![At::Local],
        ..rule("lost", Category::Connection)
    }];
    let classifier = Classifier::new(rules).unwrap();
    let lost = Outcome::of(&Answer::Lost(Stage::End, Loss::Closed), &remote(), Teller::We);
    assert_eq!(classifier.judge(&lost, "", NOBODY).unwrap().category, Category::Connection);
    let said = outcome(Stage::End, "451 4.4.2 bad connection");
    assert_eq!(classifier.judge(&said, "", NOBODY).unwrap().category, Category::Other);
}

#[test]
fn what_was_kept_in_a_line_is_judged_like_the_reply() {
    let rules = vec![
        Rule {
            codes: vec![550],
            statuses: vec!["5.1.1".parse().unwrap()],
            ..rule("said", Category::BadMailbox)
        },
        Rule { stages: vec![At::Local], ..rule("ours", Category::Connection) },
        Rule { codes: vec![421], ..rule("bare", Category::Rate) },
    ];
    let classifier = Classifier::new(rules).unwrap();
    for (line, host, expected) in [
        ("550 5.1.1 no such user", "mx", Some("said")),
        ("421 slow down", "mx", Some("bare")),
        ("421", "mx", Some("bare")),
        ("550 5.1.1 no such user", "", Some("ours")),
        ("connection timed out", "mx", Some("ours")),
        ("42é", "mx", Some("ours")),
        ("", "", Some("ours")),
        ("450 later", "mx", None),
    ] {
        let refused = Refused::kept(line, Some(Status(4, 4, 1)), host, "");
        assert_eq!(classifier.classify(&refused).rule.as_deref(), expected, "{line}");
    }
}

#[test]
fn actions_change_the_outcome_or_advise() {
    let judged = |action| Judgement { category: Category::Other, rule: None, action, pool: None };
    let failed = outcome(Stage::Rcpt, "550 5.7.1 later");
    let Some(Outcome::Deferred(report)) = judged(Action::Temporary).instead(&failed, None) else { panic!() };
    assert_eq!(report.status, Status(4, 7, 1));
    let deferred = outcome(Stage::Rcpt, "450 4.1.1 never");
    let Some(Outcome::Failed(report)) = judged(Action::Permanent).instead(&deferred, None) else { panic!() };
    assert_eq!(report.status, Status(5, 1, 1));
    assert_eq!(judged(Action::Permanent).instead(&failed, None), None);
    assert_eq!(judged(Action::Alarm).instead(&failed, None), None);
    // From another pool it may be taken; from where it has been sent, no is no.
    let elsewhere = Judgement { pool: Some("p".into()), ..judged(Action::None) };
    assert!(matches!(elsewhere.instead(&failed, None), Some(Outcome::Deferred(_))));
    assert!(matches!(elsewhere.instead(&failed, Some("q")), Some(Outcome::Deferred(_))));
    assert_eq!(elsewhere.instead(&failed, Some("p")), None);
    assert_eq!(elsewhere.instead(&deferred, None), None);
    let hour = Duration::from_secs(3600);
    assert_eq!(judged(Action::Suspend(hour)).advice(), Advice::Suspend(hour));
    assert_eq!(judged(Action::Slower).advice(), Advice::Slower);
    assert_eq!(judged(Action::Temporary).advice(), Advice::None);
}

#[test]
fn names_below_a_domain_are_found() {
    let below = Pattern::Below(domain("example.net"));
    for (name, fits) in [
        ("a.example.net", true),
        ("A.EXAMPLE.NET", true),
        ("example.net", false),
        ("aexample.net", false),
        ("é.net", false),
        ("", false),
    ] {
        assert_eq!(below.fits(name), fits, "{name}");
    }
}

#[test]
fn an_example_that_another_rule_takes_is_found() {
    let below = Pattern::Below(domain("example.net"));
    let rules = vec![
        Rule { codes: vec![550], example: "550 no".into(), ..rule("wide", Category::Policy) },
        Rule {
            texts: vec!["user".into()],
            example: "550 5.1.1 no user".into(),
            ..rule("late", Category::BadMailbox)
        },
        Rule {
            hosts: vec![below],
            codes: vec![450],
            example: "450 no".into(),
            ..rule("host", Category::Rate)
        },
        Rule { stages: vec![At::Local], example: "4.4.1 none".into(), ..rule("local", Category::Connection) },
        Rule { codes: vec![452], example: "451 no".into(), ..rule("wrong", Category::Other) },
    ];
    let astray = Classifier::new(rules).unwrap().astray();
    let found: Vec<_> = astray.iter().map(|astray| (&*astray.rule, astray.taken_by.as_deref())).collect();
    assert_eq!(found, [("late", Some("wide")), ("wrong", None)]);
}
