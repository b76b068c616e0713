//! The name of a client's address, looked up before the client is greeted.

use std::{net::IpAddr, rc::Rc};

use config::ReverseRule;
use dns::Name;
use policy::Reverse;
use trust::{AddressCase, Iprev, IprevResult, Judged, Limits};

use crate::{settings::Door, shard::Shard};

/// What the DNS says of a client's address.
#[derive(Debug)]
pub(crate) struct AddressName {
    pub(crate) found: Reverse,
    /// The name, when it leads back to the address.
    pub(crate) name: Option<Name>,
}

impl AddressName {
    /// Nobody has asked.
    pub(crate) const UNASKED: Self = Self { found: Reverse::Unasked, name: None };
}

/// Looks it up, where the listener wants to know it.
pub(crate) async fn look_up(shard: &Rc<Shard>, door: &Door, address: Option<IpAddr>) -> AddressName {
    let Some(address) = address else { return AddressName::UNASKED };
    match door.checks.reverse_name {
        ReverseRule::Ignore => AddressName::UNASKED,
        ReverseRule::Look | ReverseRule::Named | ReverseRule::Confirmed => find(shard, address).await,
    }
}

/// Looks it up.
pub(crate) async fn find(shard: &Rc<Shard>, address: IpAddr) -> AddressName {
    let mut case = AddressCase::open(address, Limits::default(), ring::clock::now());
    loop {
        let questions = match case.judge(ring::clock::now()) {
            Judged::Known(Iprev { result, name, .. }) => {
                let found = match result {
                    IprevResult::Pass => Reverse::Confirmed,
                    IprevResult::Fail => Reverse::Unconfirmed,
                    IprevResult::TempError => Reverse::Unknown,
                    IprevResult::PermError => Reverse::Nameless,
                };
                return AddressName { found, name };
            }
            Judged::Missing(questions) => questions,
        };
        let deadline = case.deadline();
        shard.resolve.ask_all(questions, deadline, |question, answer| case.learn(question, answer)).await;
    }
}
