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
    Demand, Hosts, Owner, Routes, StsUse,
    sts::{self, Look, Policy},
};
use dns::{Answer, Kind, Name, Outcome, Question, Records};
use mail::{Domain, TenantId, Timestamp};
use queue::{Destination, Lot, Queue, Tenant, Whereabouts};

use crate::{
    egress, facts,
    lots::{self, Owned},
    schedule,
    settings::Settings,
    shard::Shard,
};

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

/// The number of the destination of a tenant's lot that has this key, and that routes have given.
pub(crate) fn intern(queue: &mut Queue, owner: (Tenant, Lot), key: &str, now: Timestamp) -> Destination {
    let whereabouts = match (Routes::domain_of_key(key), owner.1) {
        (None, lot) if lots::leaving_of(lot) == Lot::default() => Whereabouts::Own,
        // From which source it leaves is asked for as well.
        (Some(_), _) | (None, _) => Whereabouts::Asked,
    };
    queue.intern_for(owner, key, whereabouts, now)
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
        let (site, good_for) = locate(&shard, next, &key).await;
        let (site, good_for) = from_source(&shard, next, &key, site, good_for);
        let mut orders = Vec::new();
        shard.queue.borrow_mut().on_located(next, &site, good_for, facts::now(), &mut orders);
        schedule::follow(&shard, orders);
    }
    shard.locating.running.set(shard.locating.running.get() - 1);
}

/// The site with the source that mail of a destination leaves from.
fn from_source(
    shard: &Shard,
    destination: Destination,
    key: &str,
    site: Box<str>,
    good_for: Duration,
) -> (Box<str>, Duration) {
    let settings = shard.settings();
    let Some(route) = settings.routes.route_of_key(key) else { return (site, good_for) };
    let owner = egress::owner(shard, destination);
    match egress::choose(shard, &settings, owner, (&site, settings.routes.route(route))) {
        None => (site, good_for),
        Some((source, until)) => (Routes::with_source(&site, Some(&source)), good_for.min(until)),
    }
}

/// The site of a key, and for how long.
async fn locate(shard: &Shard, destination: Destination, key: &str) -> (Box<str>, Duration) {
    let alone = || (key.into(), GOOD_FOR_MIN);
    let Some(domain) = Routes::domain_of_key(key) else { return alone() };
    let Ok(name) = Name::parse(domain.as_str()) else { return alone() };
    let before = shard.settings();
    let asked = shard.resolve.ask(&Question::mx(name.clone()));
    let policy = policy(shard, &before, key, &name).await;
    let answer = asked.await;
    let settings = shard.settings();
    let Ok(policy) = policy else { return alone() };
    let owned = Owned::of(shard, &settings, destination);
    let found = key_of(&settings, owned.owner(), (key, &domain), &answer, policy.as_deref());
    let Some(site) = found else { return alone() };
    // A reload has changed what was asked for: it is asked again at once.
    let good_for = if Rc::ptr_eq(&before, &settings) {
        answer.ttl.clamp(GOOD_FOR_MIN, GOOD_FOR_MAX)
    } else {
        Duration::ZERO
    };
    (site, good_for)
}

/// The key of the lane that this one's mail for a domain may share, by what the DNS and its policy say; none: it stays alone.
///
/// Whoever connects asks this again with what it has found out itself: a domain that has other hosts by now is not to lead
/// others' mail there.
pub(crate) fn key_of(
    settings: &Settings,
    owner: Owner<'_>,
    (key, domain): (&str, &Domain),
    exchanges: &Answer,
    policy: Option<&Policy>,
) -> Option<Box<str>> {
    let route = settings.routes.route_of_key(key)?;
    let site = Hosts::of(exchanges, &settings.own).site(owner, domain, &settings.site_rules)?;
    let site = delivery::marked(site, exchanges.security, policy);
    Some(settings.routes.site_key(route, Routes::demand_of_key(key), &site))
}

/// What a domain says of its hosts, as far as it is known: an error where it has to be fetched, for which nobody waits here.
async fn policy(
    shard: &Shard,
    settings: &Settings,
    key: &str,
    name: &Name,
) -> Result<Option<Arc<Policy>>, ()> {
    let Some(route) = settings.routes.route_of_key(key) else { return Ok(None) };
    if settings.routes.route(route).options.sts == StsUse::Off || Routes::demand_of_key(key) == Demand::Waived
    {
        return Ok(None);
    }
    // What is too long for that has no policy.
    let Ok(record) = Name::parse(&format!("_mta-sts.{name}")) else { return Ok(None) };
    let answer = shard.resolve.ask(&Question { name: record, kind: Kind::Txt }).await;
    let id = match &answer.outcome {
        Outcome::Found(Records::Texts(texts)) => sts::record_id(texts),
        Outcome::Found(_) | Outcome::NoData | Outcome::NxDomain | Outcome::TempFail(_) => None,
    };
    match shard.policies.look(name, id.as_deref(), facts::now()) {
        Look::Known(policy, _) => Ok(policy),
        Look::Fetch if id.is_none() => Ok(None),
        // The attempt does that; until then the domain is alone.
        Look::Fetch => Err(()),
    }
}
