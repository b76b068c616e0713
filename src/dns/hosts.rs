//! Names whose answers are written down: by the operator, or by RFC 6761.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use crate::{Answer, Exchange, Kind, Name, Outcome, Question, Records, Security};

/// A table that comes before every server. A name in it has these records and no others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticHosts {
    hosts: HashMap<Name, Host>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Host {
    addresses: Vec<IpAddr>,
    exchanges: Vec<Exchange>,
}

// An answer by table is never cached; this is for those who ask how long it holds.
const TTL: Duration = Duration::from_secs(60);

impl StaticHosts {
    /// Adds an address to a host.
    pub fn add_address(&mut self, name: Name, address: IpAddr) {
        self.hosts.entry(name).or_default().addresses.push(address);
    }

    /// Adds a mail exchange to a domain.
    pub fn add_exchange(&mut self, name: Name, exchange: Exchange) {
        let exchanges = &mut self.hosts.entry(name).or_default().exchanges;
        exchanges.push(exchange);
        exchanges.sort_by_key(|exchange| exchange.preference);
    }

    /// The answer, if the table has the name.
    pub(crate) fn answer(&self, question: &Question) -> Option<Arc<Answer>> {
        let outcome = match self.hosts.get(&question.name) {
            Some(host) => host.outcome(question.kind),
            None => special(question).or_else(|| self.of_service(question))?,
        };
        Some(Arc::new(Answer { outcome, security: Security::Secure, alias_of: None, ttl: TTL }))
    }

    /// A host that somebody wrote down has no TLSA records either: those that the DNS has are for the host that is there.
    fn of_service(&self, question: &Question) -> Option<Outcome> {
        let host = question.name.as_str().splitn(3, '.').nth(2)?;
        let known = question.kind == Kind::Tlsa && self.hosts.contains_key(&Name::parse(host).ok()?);
        known.then_some(Outcome::NoData)
    }
}

impl Host {
    fn outcome(&self, kind: Kind) -> Outcome {
        let addresses = |wanted: fn(&IpAddr) -> bool| {
            let addresses: Vec<_> = self.addresses.iter().copied().filter(wanted).collect();
            if addresses.is_empty() { Outcome::NoData } else { Outcome::Found(Records::Addresses(addresses)) }
        };
        match kind {
            Kind::A => addresses(IpAddr::is_ipv4),
            Kind::Aaaa => addresses(IpAddr::is_ipv6),
            Kind::Mx if !self.exchanges.is_empty() => {
                Outcome::Found(Records::Exchanges(self.exchanges.clone()))
            }
            Kind::Mx | Kind::Ptr | Kind::Txt | Kind::Cname | Kind::Tlsa => Outcome::NoData,
        }
    }
}

/// `localhost` is the loopback (RFC 6761 §6.3), `invalid` does not exist (§6.4).
fn special(question: &Question) -> Option<Outcome> {
    if question.name.is_within("localhost") {
        return Some(match question.kind {
            Kind::A => Outcome::Found(Records::Addresses(vec![Ipv4Addr::LOCALHOST.into()])),
            Kind::Aaaa => Outcome::Found(Records::Addresses(vec![Ipv6Addr::LOCALHOST.into()])),
            Kind::Mx | Kind::Ptr | Kind::Txt | Kind::Cname | Kind::Tlsa => Outcome::NoData,
        });
    }
    question.name.is_within("invalid").then_some(Outcome::NxDomain)
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::ExchangeHost;

    fn check(hosts: &StaticHosts, name: &str, kind: Kind, expected: Option<Outcome>) {
        let question = Question { name: Name::parse(name).unwrap(), kind };
        let outcome = hosts.answer(&question).map(|answer| answer.outcome.clone());
        assert_eq!(outcome, expected, "{question}");
    }

    #[test]
    fn the_table_comes_first() {
        let name = |text: &str| Name::parse(text).unwrap();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let exchange =
            |preference, host| Exchange { preference, host: ExchangeHost::Name(Name::parse(host).unwrap()) };
        let mut hosts = StaticHosts::default();
        hosts.add_address(name("mx.example"), address("192.0.2.1"));
        hosts.add_exchange(name("example"), exchange(20, "b.example"));
        hosts.add_exchange(name("example"), exchange(10, "mx.example"));

        let found = |text| Some(Outcome::Found(Records::Addresses(vec![address(text)])));
        check(&hosts, "mx.example", Kind::A, found("192.0.2.1"));
        check(&hosts, "mx.example", Kind::Aaaa, Some(Outcome::NoData));
        check(&hosts, "mx.example", Kind::Mx, Some(Outcome::NoData));
        let exchanges = vec![exchange(10, "mx.example"), exchange(20, "b.example")];
        check(&hosts, "example", Kind::Mx, Some(Outcome::Found(Records::Exchanges(exchanges))));
        check(&hosts, "_25._tcp.mx.example", Kind::Tlsa, Some(Outcome::NoData));
        check(&hosts, "_25._tcp.c.example", Kind::Tlsa, None);
        check(&hosts, "_25._tcp.mx.example", Kind::Txt, None);
        check(&hosts, "a.localhost", Kind::A, found("127.0.0.1"));
        check(&hosts, "localhost", Kind::Aaaa, found("::1"));
        check(&hosts, "x.invalid", Kind::Mx, Some(Outcome::NxDomain));
        check(&hosts, "notinvalid", Kind::Mx, None);
        check(&hosts, "b.example", Kind::A, None);
    }
}
