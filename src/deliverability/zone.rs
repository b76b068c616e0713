//! A DNS that is a table, for tests.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use dns::{Answer, Exchange, ExchangeHost, Failure, Kind, Name, Outcome, Question, Records, Security, Tlsa};

/// The records of names. What is not in it does not exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone(HashMap<Name, Vec<(Kind, String)>>);

impl Zone {
    /// Lines of `name TYPE data`. `TIMEOUT` in the place of data: it is not answered; an alias is told by `ALIAS`
    /// before the data.
    pub(crate) fn parse(text: &str) -> Self {
        let mut zone = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.splitn(3, ' ');
            let (name, kind) = (words.next().unwrap(), words.next().unwrap());
            let name = name.parse::<IpAddr>().map_or_else(|_| Name::parse(name).unwrap(), Name::reverse);
            let kind = match kind {
                "A" => Kind::A,
                "AAAA" => Kind::Aaaa,
                "MX" => Kind::Mx,
                "PTR" => Kind::Ptr,
                "TXT" => Kind::Txt,
                "TLSA" => Kind::Tlsa,
                kind => panic!("{kind}"),
            };
            zone.0.entry(name).or_default().push((kind, words.next().unwrap().to_owned()));
        }
        zone
    }

    pub(crate) fn answer(&self, question: &Question, security: Security) -> Answer {
        let all = self.0.get(&question.name);
        let here: Vec<&str> = all
            .into_iter()
            .flatten()
            .filter(|(kind, _)| *kind == question.kind)
            .map(|(_, data)| data.as_str())
            .collect();
        let is_alias = here.iter().any(|data| data.starts_with("ALIAS "));
        let outcome = if here.contains(&"TIMEOUT") {
            Outcome::TempFail(Failure::Timeout)
        } else if !here.is_empty() {
            Outcome::Found(records(question.kind, &here))
        } else if all.is_some() {
            Outcome::NoData
        } else {
            Outcome::NxDomain
        };
        let alias_of = is_alias.then(|| Name::parse("alias.example").unwrap());
        Answer { outcome, security, alias_of, ttl: Duration::from_secs(60) }
    }
}

fn records(kind: Kind, data: &[&str]) -> Records {
    let name = |text: &&str| Name::parse(text).unwrap();
    match kind {
        Kind::A | Kind::Aaaa => Records::Addresses(
            data.iter().map(|data| data.trim_start_matches("ALIAS ").parse().unwrap()).collect(),
        ),
        Kind::Mx => Records::Exchanges(
            data.iter()
                .map(|data| {
                    let (preference, host) = data.split_once(' ').unwrap();
                    let host = match host {
                        "." => ExchangeHost::Null,
                        "?" => ExchangeHost::Malformed,
                        host => ExchangeHost::Name(Name::parse(host).unwrap()),
                    };
                    Exchange { preference: preference.parse().unwrap(), host }
                })
                .collect(),
        ),
        Kind::Ptr | Kind::Cname => Records::Names(data.iter().map(name).collect()),
        Kind::Txt => Records::Texts(data.iter().map(|data| data.as_bytes().into()).collect()),
        Kind::Tlsa => Records::Tlsa(
            data.iter()
                .map(|data| {
                    let words: Vec<&str> = data.split(' ').collect();
                    let number = |at: usize| words[at].parse().unwrap();
                    let octets = |digits: &str| {
                        let octet = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
                        (0..digits.len()).step_by(2).map(octet).collect::<Vec<u8>>()
                    };
                    Tlsa {
                        usage: number(0),
                        selector: number(1),
                        matching: number(2),
                        data: octets(words[3]).into(),
                    }
                })
                .collect(),
        ),
    }
}
