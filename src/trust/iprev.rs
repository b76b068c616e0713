//! Whether an address and its name belong together (RFC 8601 §3).

use std::{net::IpAddr, sync::Arc, time::Duration};

use dns::{Answer, Kind, Name, Question};

use crate::{
    Hearing, Judged, Limits,
    facts::{Facts, Lack},
};

/// What the names of an address say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iprev {
    /// The verdict.
    pub result: IprevResult,
    /// The client's address.
    pub address: IpAddr,
    /// The name that has this address and that this address has.
    pub name: Option<Name>,
}

/// The results of RFC 8601 §2.7.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IprevResult {
    /// A name of the address has the address.
    Pass,
    /// None of its names has.
    Fail,
    /// It cannot be told now.
    TempError,
    /// The address has no name.
    PermError,
}

impl IprevResult {
    /// As in `Authentication-Results`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// An address before the judge, and nothing else of who has it.
#[derive(Debug)]
pub struct AddressCase {
    address: IpAddr,
    limits: Limits,
    hearing: Hearing,
}

impl AddressCase {
    /// A case of which nothing is known; `now` is of the clock that [`AddressCase::judge`] is told the time of.
    pub fn open(address: IpAddr, limits: Limits, now: Duration) -> Self {
        Self { address: address.to_canonical(), limits, hearing: Hearing::open(&limits, now) }
    }

    /// Takes in the answer to a question that was missing.
    pub fn learn(&mut self, question: Question, answer: Arc<Answer>) {
        self.hearing.learn(question, answer);
    }

    /// Judges it.
    pub fn judge(&mut self, now: Duration) -> Judged<Iprev> {
        self.hearing.judge(now, |facts| check(facts, &self.limits, self.address))
    }

    /// When the look-ups are over: judge again then, whatever is still missing.
    pub const fn deadline(&self) -> Duration {
        self.hearing.deadline()
    }
}

// mail-auth's (`common/verify.rs`, `verify_iprev`) looks at two names, and asks its resolver where a cache cannot
// say that there is nothing.
/// Whether an address and its name belong together.
pub fn check(facts: &Facts, limits: &Limits, address: IpAddr) -> Iprev {
    let verdict = |result, name| Iprev { result, address, name };
    let names = match facts.names(address) {
        Ok(names) => names,
        Err(Lack::NoData | Lack::NxDomain) => return verdict(IprevResult::PermError, None),
        Err(Lack::Unknown) => return verdict(IprevResult::TempError, None),
    };
    let kind = if address.is_ipv4() { Kind::A } else { Kind::Aaaa };
    let mut result = IprevResult::Fail;
    for name in names.iter().take(limits.iprev_names_max) {
        match facts.addresses(name, kind) {
            Ok(addresses) if addresses.contains(&address) => {
                return verdict(IprevResult::Pass, Some(name.clone()));
            }
            Ok(_) | Err(Lack::NoData | Lack::NxDomain) => {}
            Err(Lack::Unknown) => result = IprevResult::TempError,
        }
    }
    verdict(result, None)
}

#[cfg(test)]
#[path = "iprev_test.rs"]
mod test;
