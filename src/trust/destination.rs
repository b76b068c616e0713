//! Whether somebody wants the reports that a domain has sent to him (RFC 9990 §4, RFC 9991 §5).
//!
//! Anybody may publish a record that asks for reports to somebody else's address, and then send mail in his own name
//! all over the world. So whoever is not of the domain's organization has to say that he wants them.

use std::{sync::Arc, time::Duration};

use dns::{Answer, Name, Question};
use mail_auth::{
    common::parse::TxtRecordParser,
    dmarc::{Dmarc as TheirRecord, Psd},
};

use crate::{
    Hearing, Judged, Limits, ReportAddress, dmarc,
    facts::{Facts, Lack},
    tags::{tags_loosely, value_of},
};

/// Whether a host of addresses takes the reports about a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consent {
    /// It is of the domain's own organization.
    Own,
    /// It says so.
    Given,
    /// It says so, and that they are to go to these addresses there.
    Elsewhere(Vec<ReportAddress>),
    /// It does not say so.
    Missing,
    /// It cannot be told now.
    Unknown,
}

/// Of what kind reports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// On the mail of a day (`rua=`).
    Aggregate,
    /// On a message that failed (`ruf=`).
    Failure,
}

/// A host of addresses before the judge.
#[derive(Debug)]
pub struct DestinationCase {
    domain: Name,
    host: Name,
    kind: ReportKind,
    hearing: Hearing,
}

impl DestinationCase {
    /// About reports on the domain that a record was found at, to addresses of a host. Of `limits`, look-ups and time
    /// count; `now` is of the clock that [`DestinationCase::judge`] is told the time of.
    pub fn open(domain: Name, host: Name, kind: ReportKind, limits: Limits, now: Duration) -> Self {
        Self { domain, host, kind, hearing: Hearing::open(&limits, now) }
    }

    /// Takes in the answer to a question that was missing.
    pub fn learn(&mut self, question: Question, answer: Arc<Answer>) {
        self.hearing.learn(question, answer);
    }

    /// Judges it.
    pub fn judge(&mut self, now: Duration) -> Judged<Consent> {
        self.hearing.judge(now, |facts| check(facts, &self.domain, &self.host, self.kind))
    }
}

/// Whether the host wants the reports about the domain.
pub fn check(facts: &Facts, domain: &Name, host: &Name, kind: ReportKind) -> Consent {
    if domain == host {
        return Consent::Own;
    }
    match (organization(facts, domain), organization(facts, host)) {
        (Ok(domain), Ok(host)) if domain == host => return Consent::Own,
        (Ok(_), Ok(_)) => {}
        (Err(Lack::Unknown), _) | (_, Err(Lack::Unknown)) => return Consent::Unknown,
        (Err(Lack::NoData | Lack::NxDomain), _) | (_, Err(Lack::NoData | Lack::NxDomain)) => {}
    }
    // "If the length of the constructed name exceed DNS limits, a positive determination […] cannot be made; stop."
    let Ok(name) = Name::parse(&format!("{domain}._report._dmarc.{host}")) else { return Consent::Missing };
    let texts = match facts.texts(&name) {
        Ok(texts) => texts,
        Err(Lack::Unknown) => return Consent::Unknown,
        Err(Lack::NoData | Lack::NxDomain) => return Consent::Missing,
    };
    let mut records = texts.iter().filter(|text| dmarc::is_record(text)).peekable();
    if records.peek().is_none() {
        return Consent::Missing;
    }
    let Some(places) = records.find_map(|text| addresses(text, kind)) else { return Consent::Given };
    // "if the confirming record includes a URI whose host is again different […] the Mail Receiver […] MUST NOT
    // generate a report to either the original or the override URI."
    let is_there = |place: &ReportAddress| {
        let at = place.address.rsplit_once('@').and_then(|(_, at)| Name::parse(at).ok());
        at.as_ref() == Some(host)
    };
    if places.iter().all(is_there) { Consent::Elsewhere(places) } else { Consent::Missing }
}

/// `rua=` or `ruf=`, where there is one that makes sense.
fn addresses(text: &[u8], kind: ReportKind) -> Option<Vec<ReportAddress>> {
    let tag: &[u8] = match kind {
        ReportKind::Aggregate => b"rua",
        ReportKind::Failure => b"ruf",
    };
    let places = value_of(&tags_loosely(text), tag)?.to_vec();
    let record = TheirRecord::parse(&[b"v=DMARC1;rua=", &*places].concat()).ok()?;
    Some(dmarc::addresses(&record)).filter(|places| !places.is_empty())
}

/// The domain of the organization that a name is of (RFC 9989 §4.10.2).
pub(crate) fn organization(facts: &Facts, name: &Name) -> Result<Name, Lack> {
    let (mut found, mut below) = (None, None);
    for step in dmarc::walk(name) {
        let texts = match dmarc::place(&step).map(|place| facts.texts(&place)) {
            Some(Ok(texts)) => texts,
            Some(Err(Lack::Unknown)) => return Err(Lack::Unknown),
            Some(Err(Lack::NoData | Lack::NxDomain)) | None => &[],
        };
        match dmarc::record(texts).map(|(_, record)| record.psd) {
            Some(Psd::No) => return Ok(step),
            // Below the domain of a registry, each name is somebody else's.
            Some(Psd::Yes) if step != *name => return Ok(below.unwrap_or(step)),
            Some(Psd::Yes) => return Ok(step),
            Some(Psd::Default) => found = Some(step.clone()),
            None => {}
        }
        below = Some(step);
    }
    Ok(found.unwrap_or_else(|| name.clone()))
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::zone::Zone;

    fn consent(zone: &str, domain: &str, host: &str) -> Consent {
        let (domain, host) = (Name::parse(domain).unwrap(), Name::parse(host).unwrap());
        Zone::parse(zone).run(|facts| check(facts, &domain, &host, ReportKind::Aggregate)).0
    }

    #[test]
    fn the_own_organization_need_not_say_so() {
        let zone = "_dmarc.example.org TXT v=DMARC1; p=none\n_dmarc.sub.example.org TXT v=DMARC1; p=none";
        for (domain, host) in [
            ("example.org", "example.org"),
            ("example.org", "mail.example.org"),
            ("sub.example.org", "example.org"),
            ("sub.example.org", "other.example.org"),
        ] {
            assert_eq!(consent(zone, domain, host), Consent::Own, "{domain} {host}");
        }
        assert_eq!(consent(zone, "example.org", "example.com"), Consent::Missing);
        // What has no record is nobody's but its own.
        assert_eq!(consent(zone, "a.example.com", "example.com"), Consent::Missing);
    }

    #[test]
    fn below_a_registry_each_is_another() {
        let zone = "_dmarc.example TXT v=DMARC1; p=none; psd=y\n_dmarc.a.example TXT v=DMARC1; p=none\n\
                    _dmarc.part.b.example TXT v=DMARC1; p=none; psd=n\n_dmarc.b.example TXT v=DMARC1; p=none";
        assert_eq!(consent(zone, "a.example", "b.example"), Consent::Missing);
        assert_eq!(consent(zone, "a.example", "mx.a.example"), Consent::Own);
        assert_eq!(consent(zone, "part.b.example", "b.example"), Consent::Missing);
        assert_eq!(consent(zone, "example", "a.example"), Consent::Missing);
    }

    /// RFC 9990 §4.
    #[test]
    fn others_say_so() {
        let address = |address: &str, size_max| ReportAddress { address: address.to_owned(), size_max };
        for (text, expected) in [
            ("v=DMARC1", Consent::Given),
            ("v=DMARC1;", Consent::Given),
            ("v=DMARC1; anything=x", Consent::Given),
            ("v=spf1 -all", Consent::Missing),
            ("x=1; v=DMARC1", Consent::Missing),
            ("v=DMARC1; rua=https://red.example.net/x", Consent::Given),
            (
                "v=DMARC1; rua=mailto:other@red.example.net!2k",
                Consent::Elsewhere(vec![address("other@red.example.net", Some(2048))]),
            ),
            ("v=DMARC1; rua=mailto:other@victim.example", Consent::Missing),
            ("v=DMARC1; rua=mailto:other@red.example.net,mailto:other@victim.example", Consent::Missing),
            ("v=DMARC1; rua=mailto:other@sub.red.example.net", Consent::Missing),
        ] {
            let zone = format!("blue.example.com._report._dmarc.red.example.net TXT {text}");
            assert_eq!(consent(&zone, "blue.example.com", "red.example.net"), expected, "{text}");
        }
    }

    /// RFC 9991 §5: "substituting the "ruf" tag where the "rua" tag appears in that procedure".
    #[test]
    fn each_kind_of_report_has_its_own_tag() {
        let text = "v=DMARC1; rua=mailto:rua@red.example.net; ruf=mailto:ruf@red.example.net";
        let zone = Zone::parse(&format!("blue.example.com._report._dmarc.red.example.net TXT {text}"));
        let name = |text| Name::parse(text).unwrap();
        for (kind, expected) in
            [(ReportKind::Aggregate, "rua@red.example.net"), (ReportKind::Failure, "ruf@red.example.net")]
        {
            let (domain, host) = (name("blue.example.com"), name("red.example.net"));
            let consent = zone.run(|facts| check(facts, &domain, &host, kind)).0;
            let address = ReportAddress { address: expected.to_owned(), size_max: None };
            assert_eq!(consent, Consent::Elsewhere(vec![address]));
        }
    }

    #[test]
    fn what_is_not_known_is_no_consent() {
        let zone = "blue.example.com._report._dmarc.red.example.net TIMEOUT";
        assert_eq!(consent(zone, "blue.example.com", "red.example.net"), Consent::Unknown);
        let zone = "_dmarc.net TIMEOUT\nblue.example.com._report._dmarc.red.example.net TXT v=DMARC1";
        assert_eq!(consent(zone, "blue.example.com", "red.example.net"), Consent::Unknown);
        // No name can be as long as the one to be asked for.
        let long = format!("{0}.{0}.{0}.example", "x".repeat(60));
        assert_eq!(consent("a. TXT x", &long, &format!("{}.example", "y".repeat(63))), Consent::Missing);
    }

    #[test]
    fn it_is_driven_as_other_cases_are() {
        let name = |text| Name::parse(text).unwrap();
        let zone = Zone::parse("blue.example.com._report._dmarc.red.example.net TXT v=DMARC1");
        let open = |limits| {
            let (domain, host) = (name("blue.example.com"), name("red.example.net"));
            DestinationCase::open(domain, host, ReportKind::Aggregate, limits, crate::zone::NOW)
        };
        let mut case = open(Limits::default());
        let consent = loop {
            match case.judge(crate::zone::NOW) {
                Judged::Known(consent) => break consent,
                Judged::Missing(questions) => questions.into_iter().for_each(|question| {
                    let answer = zone.answer(&question);
                    case.learn(question, Arc::new(answer));
                }),
            }
        };
        assert_eq!(consent, Consent::Given);
        let mut hurried = open(Limits { lookups_max: 0, ..Limits::default() });
        assert_eq!(hurried.judge(crate::zone::NOW), Judged::Known(Consent::Unknown));
    }
}
