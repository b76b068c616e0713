//! To which site a destination belongs: found out before mail is tried there for the first time, and again when that was
//! long ago.
//!
//! What is published about its hosts is asked for as well: domains whose hosts are held to something have connections of their own.
//!
//! A route to named hosts is a site of its own, which the queue knows. For a domain that goes by the DNS its mail hosts are
//! asked for, so many domains at once as the DNS client has sockets; the others wait.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use delivery::{
    Demand, Hosts, Routes, StsUse,
    sts::{self, Policy},
};
use dns::{Kind, Name, Outcome, Question, Records};
use mail::{TenantId, Timestamp};
use queue::{Destination, Queue, Tenant, Whereabouts};

use crate::{facts, outbound_tls, schedule, shard::Shard};

/// Destinations that are being located.
#[derive(Default)]
pub(crate) struct Locating {
    waiting: RefCell<VecDeque<Destination>>,
    running: Cell<usize>,
}

/// How long it holds where a domain's mail goes, at least: not every attempt is worth a look.
const GOOD_FOR_MIN: Duration = Duration::from_secs(60);
/// And at most.
const GOOD_FOR_MAX: Duration = Duration::from_secs(3600);

/// Under which number the queue knows a tenant. Two that have the same would share their turns, and nothing else.
pub(crate) const fn tenant(TenantId(id): TenantId) -> Tenant {
    Tenant(id as u32)
}

/// The number of a tenant's destination that has this key, and that routes have given.
pub(crate) fn intern(queue: &mut Queue, tenant: Tenant, key: &str, now: Timestamp) -> Destination {
    let whereabouts = match Routes::domain_of_key(key) {
        Some(_) => Whereabouts::Asked,
        None => Whereabouts::Own,
    };
    queue.intern_for(tenant, key, whereabouts, now)
}

/// Finds out where a destination is, and tells the queue.
pub(crate) fn begin(shard: &Rc<Shard>, destination: Destination) {
    let locating = &shard.locating;
    locating.waiting.borrow_mut().push_back(destination);
    if locating.running.get() < shard.settings().located_at_once {
        locating.running.set(locating.running.get() + 1);
        ring::spawn(run(shard.clone()));
    }
}

async fn run(shard: Rc<Shard>) {
    loop {
        let Some(next) = shard.locating.waiting.borrow_mut().pop_front() else { break };
        let key: Option<Box<str>> = shard.queue.borrow().name(next).map(Into::into);
        let Some(key) = key else { continue };
        let (site, good_for) = locate(&shard, &key).await;
        let mut orders = Vec::new();
        shard.queue.borrow_mut().on_located(next, &site, good_for, facts::now(), &mut orders);
        schedule::follow(&shard, orders);
    }
    shard.locating.running.set(shard.locating.running.get() - 1);
}

/// The site of a key, and for how long.
async fn locate(shard: &Shard, key: &str) -> (Box<str>, Duration) {
    let alone = || (key.into(), GOOD_FOR_MIN);
    let Some(domain) = Routes::domain_of_key(key) else { return alone() };
    let Ok(name) = Name::parse(domain.as_str()) else { return alone() };
    let asked = shard.resolve.ask(&Question::mx(name.clone()));
    let policy = policy(shard, key, &name).await;
    let answer = asked.await;
    let settings = shard.settings();
    let Some(route) = settings.routes.route_of_key(key) else { return alone() };
    let hosts = Hosts::of(&answer, &settings.own);
    match hosts.site(&domain, &settings.site_rules) {
        Some(site) => {
            let site = delivery::marked(site, answer.security, policy.as_deref());
            let site = settings.routes.site_key(route, Routes::demand_of_key(key), &site);
            (site, answer.ttl.clamp(GOOD_FOR_MIN, GOOD_FOR_MAX))
        }
        None => alone(),
    }
}

/// What a domain says of its hosts, where that is asked for.
async fn policy(shard: &Shard, key: &str, name: &Name) -> Option<Arc<Policy>> {
    let settings = shard.settings();
    let route = settings.routes.route(settings.routes.route_of_key(key)?);
    if route.options.sts == StsUse::Off || Routes::demand_of_key(key) == Demand::Waived {
        return None;
    }
    // What is too long for that has no policy.
    let record = Name::parse(&format!("_mta-sts.{name}")).ok()?;
    let answer = shard.resolve.ask(&Question { name: record, kind: Kind::Txt }).await;
    let id = match &answer.outcome {
        Outcome::Found(Records::Texts(texts)) => sts::record_id(texts),
        Outcome::Found(_) | Outcome::NoData | Outcome::NxDomain | Outcome::TempFail(_) => None,
    };
    outbound_tls::policy(shard, name, id.as_deref()).await.policy
}
