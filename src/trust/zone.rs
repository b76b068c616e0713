//! Names and their records, for tests: a DNS that is a table.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use dns::{Answer, Exchange, ExchangeHost, Failure, Kind, Name, Outcome, Question, Records, Security};
use mail::{ReversePath, Timestamp};

use crate::{
    Case, Client, Digest, EnvelopeVerdict, Judge, Judged, Limits, Verdict,
    facts::{Facts, Round},
};

/// The records of names. What is not in it does not exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone {
    records: HashMap<Name, Vec<Data>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Address(IpAddr),
    Exchange(u16, String),
    Pointer(Name),
    Text(Vec<u8>),
    Alias(Name),
    /// Whatever has no record of its own here is not answered.
    Timeout,
}

/// `now` in all tests that do not let time pass.
pub(crate) const NOW: Duration = Duration::from_secs(1000);
/// 2018-06-18, when the signatures of RFC 8463 were made.
pub(crate) const AT: Timestamp = Timestamp::from_secs(1_528_637_909);
/// We.
pub(crate) const RECEIVER: &str = "mx.example";

impl Zone {
    /// Lines of `name TYPE data`; `TIMEOUT` has no data.
    pub(crate) fn parse(text: &str) -> Self {
        let mut zone = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.splitn(3, ' ');
            let (name, kind) = (words.next().unwrap(), words.next().unwrap());
            let data = words.next().unwrap_or_default();
            zone.add(
                name,
                match kind {
                    "A" | "AAAA" => Data::Address(data.parse().unwrap()),
                    "MX" => {
                        let (preference, host) = data.split_once(' ').unwrap_or((data, ""));
                        Data::Exchange(preference.parse().unwrap(), host.to_owned())
                    }
                    "PTR" => Data::Pointer(data.parse().unwrap()),
                    "TXT" => Data::Text(data.as_bytes().to_vec()),
                    "CNAME" => Data::Alias(data.parse().unwrap()),
                    "TIMEOUT" => Data::Timeout,
                    kind => panic!("{kind}"),
                },
            );
        }
        zone
    }

    pub(crate) fn add(&mut self, name: &str, data: Data) {
        // The name of an address stands for the name of its reverse record.
        let name = name.parse().map_or_else(|_| Name::printable(name).unwrap(), Name::reverse);
        self.records.entry(name).or_default().push(data);
    }

    pub(crate) fn answer(&self, question: &Question) -> Answer {
        Answer {
            outcome: self.outcome(question),
            security: Security::Unproven,
            alias_of: None,
            ttl: Duration::from_secs(60),
        }
    }

    fn outcome(&self, question: &Question) -> Outcome {
        let mut name = &question.name;
        for _ in 0..8 {
            let Some(records) = self.records.get(name) else { return Outcome::NxDomain };
            if let Some(found) = found(question.kind, records) {
                return Outcome::Found(found);
            }
            if records.contains(&Data::Timeout) {
                return Outcome::TempFail(Failure::Timeout);
            }
            let alias = records.iter().find_map(|data| {
                let Data::Alias(alias) = data else { return None };
                Some(alias)
            });
            let Some(alias) = alias else { return Outcome::NoData };
            name = alias;
        }
        Outcome::TempFail(Failure::ServerFailure)
    }

    /// Runs a judgement until nothing is missing; also, how many rounds that took and how many questions.
    pub(crate) fn run<T>(&self, judgement: impl Fn(&Facts) -> T) -> (T, usize, usize) {
        let mut facts = Facts::new(200, NOW + Duration::from_secs(1));
        for rounds in 0.. {
            let result = facts.attempt(&judgement);
            match facts.end_round(NOW) {
                Round::Complete => return (result.unwrap(), rounds, facts.asked()),
                Round::Ask(questions) => {
                    for question in questions {
                        let answer = self.answer(&question);
                        facts.learn(question, Arc::new(answer));
                    }
                }
                Round::Again => panic!("the budget is too small"),
            }
        }
        unreachable!()
    }

    /// Judges an envelope.
    pub(crate) fn envelope(&self, case: &mut Case) -> EnvelopeVerdict {
        self.until_known(case, |case| case.judge_envelope(NOW))
    }

    /// Judges a message.
    pub(crate) fn message(&self, case: &mut Case, judge: &Judge, digest: &Digest) -> Verdict {
        self.until_known(case, |case| case.judge_message(judge, digest, NOW))
    }

    fn until_known<T>(&self, case: &mut Case, mut judge: impl FnMut(&mut Case) -> Judged<T>) -> T {
        for _ in 0..50 {
            match judge(case) {
                Judged::Known(verdict) => return verdict,
                Judged::Missing(questions) => {
                    for question in questions {
                        let answer = self.answer(&question);
                        case.learn(question, Arc::new(answer));
                    }
                }
            }
        }
        panic!("judging does not end");
    }
}

/// A case with a client, and a reverse-path that is null when it is empty.
pub(crate) fn case(address: &str, helo: &str, mail_from: &str, limits: Limits) -> Case {
    Case::open(client(address, helo, mail_from), RECEIVER, limits, AT, NOW)
}

pub(crate) fn client(address: &str, helo: &str, mail_from: &str) -> Client {
    let mail_from = match mail_from {
        "" => ReversePath::Null,
        address => ReversePath::Address(address.parse().unwrap()),
    };
    Client { address: address.parse().unwrap(), helo: helo.to_owned(), mail_from }
}

/// What is left of a message after a pass that hashes for its signatures.
pub(crate) fn digest(message: &[u8], limits: Limits) -> Digest {
    let mut digester = crate::Digester::new(limits).verifying();
    digester.push(message);
    digester.finish()
}

fn found(kind: Kind, records: &[Data]) -> Option<Records> {
    let found = match kind {
        Kind::A | Kind::Aaaa => Records::Addresses(some(records, |data| {
            let Data::Address(address) = data else { return None };
            (address.is_ipv4() == (kind == Kind::A)).then_some(*address)
        })?),
        Kind::Mx => {
            let mut exchanges = some(records, |data| {
                let Data::Exchange(preference, host) = data else { return None };
                let host = match Name::parse(host) {
                    Ok(host) => ExchangeHost::Name(host),
                    Err(_) if host.is_empty() => ExchangeHost::Null,
                    Err(_) => ExchangeHost::Malformed,
                };
                Some(Exchange { preference: *preference, host })
            })?;
            exchanges.sort();
            Records::Exchanges(exchanges)
        }
        Kind::Ptr => Records::Names(some(records, |data| {
            let Data::Pointer(name) = data else { return None };
            Some(name.clone())
        })?),
        Kind::Txt => Records::Texts(some(records, |data| {
            let Data::Text(text) = data else { return None };
            Some(text.clone().into_boxed_slice())
        })?),
        Kind::Cname | Kind::Tlsa => return None,
    };
    Some(found)
}

fn some<T>(records: &[Data], select: impl Fn(&Data) -> Option<T>) -> Option<Vec<T>> {
    let found: Vec<T> = records.iter().filter_map(select).collect();
    (!found.is_empty()).then_some(found)
}
