//! Rounds, the budget, the deadline; and that mail-auth has no reason to ask anybody.

use dns::Security;

use super::*;

const LATER: Duration = Duration::from_secs(10);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn found(text: &str) -> Arc<Answer> {
    let outcome = Outcome::Found(Records::Texts(vec![text.as_bytes().into()]));
    Arc::new(Answer { outcome, security: Security::Unproven, alias_of: None, ttl: Duration::ZERO })
}

/// What each of the names says; a lack is told in brackets.
fn read(facts: &Facts, names: &[&str]) -> String {
    let read = |text: &&str| match facts.texts(&name(text)) {
        Ok(texts) => String::from_utf8_lossy(&texts[0]).into_owned(),
        Err(lack) => format!("[{lack:?}]"),
    };
    names.iter().map(read).collect()
}

fn ask(round: Round) -> Vec<Question> {
    match round {
        Round::Ask(questions) => questions,
        Round::Complete | Round::Again => panic!("{round:?}"),
    }
}

#[test]
fn what_is_missing_is_asked_once_and_the_result_waits() {
    let mut facts = Facts::new(10, LATER);
    assert_eq!(facts.attempt(|facts| read(facts, &["a.example", "b.example", "a.example"])), None);
    let questions = ask(facts.end_round(Duration::ZERO));
    assert_eq!(
        questions.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["a.example TXT", "b.example TXT"]
    );
    for question in questions {
        let text = found(question.name.as_str());
        facts.learn(question, text);
    }
    let result = facts.attempt(|facts| read(facts, &["a.example", "b.example"]));
    assert_eq!(result.as_deref(), Some("a.exampleb.example"));
    assert!(matches!(facts.end_round(Duration::ZERO), Round::Complete));
    assert_eq!(facts.asked(), 2);
}

#[test]
fn two_that_miss_the_same_both_wait() {
    let facts = Facts::new(10, LATER);
    for _ in 0..2 {
        assert_eq!(facts.attempt(|facts| read(facts, &["a.example"])), None);
    }
}

#[test]
fn beyond_the_budget_all_is_unknown() {
    let mut facts = Facts::new(2, LATER);
    let names = ["a.example", "b.example", "c.example"];
    assert_eq!(facts.attempt(|facts| read(facts, &names)), None);
    let questions = ask(facts.end_round(Duration::ZERO));
    assert_eq!(questions.len(), 2);
    for question in questions {
        facts.learn(question, found("."));
    }
    assert_eq!(facts.attempt(|facts| read(facts, &names)).as_deref(), Some("..[Unknown]"));
    // What comes up now is not asked either, and the judging ends.
    assert_eq!(facts.attempt(|facts| read(facts, &["d.example"])), None);
    assert!(matches!(facts.end_round(Duration::ZERO), Round::Again));
    assert_eq!(facts.attempt(|facts| read(facts, &["d.example"])).as_deref(), Some("[Unknown]"));
    assert!(matches!(facts.end_round(Duration::ZERO), Round::Complete));
}

#[test]
fn at_the_deadline_all_is_unknown() {
    let mut facts = Facts::new(10, LATER);
    assert_eq!(facts.attempt(|facts| read(facts, &["a.example"])), None);
    assert_eq!(ask(facts.end_round(LATER - Duration::from_nanos(1))).len(), 1);
    assert_eq!(facts.attempt(|facts| read(facts, &["a.example"])), None);
    assert!(matches!(facts.end_round(LATER), Round::Again));
    assert_eq!(facts.attempt(|facts| read(facts, &["a.example"])).as_deref(), Some("[Unknown]"));
}

#[test]
fn a_failure_is_never_an_absence() {
    let mut facts = Facts::new(10, LATER);
    let outcomes = [
        (Outcome::NoData, Lack::NoData),
        (Outcome::NxDomain, Lack::NxDomain),
        (Outcome::TempFail(Failure::ServerFailure), Lack::Unknown),
        (Outcome::TempFail(Failure::Timeout), Lack::Unknown),
        (Outcome::TempFail(Failure::Refused), Lack::Unknown),
        (Outcome::TempFail(Failure::Unusable), Lack::Unknown),
        (Outcome::TempFail(Failure::Overload), Lack::Unknown),
        // An answer to another question, or one with nothing in it.
        (Outcome::Found(Records::Texts(Vec::new())), Lack::NoData),
        (Outcome::Found(Records::Addresses(Vec::new())), Lack::NoData),
    ];
    for (outcome, lack) in outcomes {
        let answer = Answer { outcome, security: Security::Unproven, alias_of: None, ttl: Duration::ZERO };
        facts.learn(Question { name: name("a.example"), kind: Kind::Txt }, Arc::new(answer));
        assert_eq!(facts.texts(&name("a.example")), Err(lack));
        let temporary = matches!(error(lack), Error::Dns(DnsError::Resolver(_)));
        assert_eq!(temporary, lack == Lack::Unknown);
    }
}

#[test]
fn mail_auth_finds_an_answer_to_everything() {
    let mut facts = Facts::new(10, LATER);
    facts.learn(Question { name: name("_dmarc.example.org"), kind: Kind::Txt }, found("x"));
    let reads = Cell::new(0);
    let cache = TextCache::new(&facts, |name, texts| {
        reads.set(reads.get() + 1);
        Txt::Error(Error::Io(format!("{name} {}", String::from_utf8_lossy(&texts[0]))))
    });
    let text = |key: &str| match cache.get::<str>(key) {
        Some(Txt::Error(error)) => error,
        Some(_) | None => panic!("{key} has no answer"),
    };
    for key in ["_dmarc.example.org.", "_DMARC.Example.ORG.", "_dmarc.example.org"] {
        assert_eq!(text(key), Error::Io("_dmarc.example.org x".to_owned()), "{key}");
    }
    assert_eq!(reads.get(), 1, "a record is read once");
    // Not known yet: temporary, and noted.
    assert_eq!(text("s._domainkey.example.org."), error(Lack::Unknown));
    assert_eq!(text("s._domainkey.example.org."), error(Lack::Unknown));
    // What cannot be asked for does not exist.
    for key in ["", ".", "a..b.", "a b.example.", "\u{1}.example.", &format!("{}.example.", "x".repeat(64))] {
        assert_eq!(text(key), error(Lack::NxDomain), "{key}");
    }
    let missing: Vec<_> = facts.missing.borrow().iter().map(ToString::to_string).collect();
    assert_eq!(missing, ["s._domainkey.example.org TXT"]);
}

#[test]
fn keys_are_spelled_as_they_are() {
    for text in ["", "example.org.", "bücher.example.", "a\u{0}b", "\u{10ffff}"] {
        assert_eq!(spelled::<str>(text).as_deref(), Some(text));
        assert_eq!(spelled::<Box<str>>(&text.into()).as_deref(), Some(text));
    }
}
