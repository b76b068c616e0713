//! How much a site takes from the host now: [`delivery::Throttle`] for each, told by all cores.
//!
//! What was taken without complaint is counted by each lane and told once a second; trouble is told at once. Whoever tells
//! learns how much there may be now, and other cores within a second of their own mail.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    rc::Rc,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use delivery::{Allowed, Judgement, Routes, Throttle, ThrottleLimits, Told, spokesman};
use mail::Timestamp;
use watch::events::{Throttled, Unthrottled};

use crate::{
    facts,
    hops::{self, Lane},
    shard::Shard,
};

/// One for each site that was sent to a while ago.
#[derive(Debug)]
pub(crate) struct Throttles {
    hasher: RandomState,
    parts: Box<[Mutex<Part>]>,
    /// Sites that may not have all.
    throttled: AtomicU64,
}

#[derive(Debug, Default)]
struct Part {
    sites: HashMap<Box<str>, Known>,
    /// With so many it is looked whose can be forgotten.
    sweep_at: usize,
}

#[derive(Debug)]
struct Known {
    throttle: Throttle,
    told_at: Timestamp,
}

/// What happened at a site.
pub(crate) enum News<'a> {
    /// Nothing: how much may there be?
    Nothing,
    /// A message met this.
    Refused(&'a Told<'a>),
    /// There is no connection, or it was refused before it was of any use.
    Unconnected(&'a str),
}

const PARTS: usize = 16;
/// With more sites in a part, those that may have all are forgotten.
const PART_MAX: usize = 1024;
/// How often a lane tells what was taken, and looks what others have told.
const INTERVAL: Duration = Duration::from_secs(1);

impl Default for Throttles {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::new(), parts, throttled: AtomicU64::new(0) }
    }
}

impl Throttles {
    /// Sites that may not have all.
    pub(crate) fn throttled(&self) -> u64 {
        self.throttled.load(Relaxed)
    }

    /// Tells what was taken at a site, and what else happened there; answers how much there may be.
    pub(crate) fn tell(
        &self,
        site: &str,
        limits: ThrottleLimits,
        taken: u32,
        news: &News<'_>,
        now: Timestamp,
    ) -> Allowed {
        let mut part = self.part(site);
        if part.sites.len() >= part.sweep_at.max(PART_MAX) {
            part.sites.retain(|_, known| !known.can_be_forgotten(now));
            part.sweep_at = part.sites.len() * 2;
        }
        let known = match part.sites.get_mut(site) {
            Some(known) => known,
            None => part
                .sites
                .entry(site.into())
                .or_insert_with(|| Known { throttle: Throttle::new(limits, now), told_at: now }),
        };
        known.told_at = now;
        let throttle = &mut known.throttle;
        let before = throttle.why(now).map(|why| why.allowed);
        throttle.set_limits(limits);
        if taken > 0 {
            throttle.on_taken(taken, now);
        }
        match news {
            News::Nothing => {}
            News::Refused(told) => throttle.on_outcome(told, now),
            News::Unconnected(why) => throttle.on_connect_failed(why, now),
        }
        self.announce(site, throttle, before, now);
        throttle.limits(now)
    }

    /// All is as if nothing was known of a site.
    fn forget(&self, site: &str, now: Timestamp) {
        let mut part = self.part(site);
        if let Some(Known { throttle, .. }) = part.sites.get_mut(site) {
            let before = throttle.why(now).map(|why| why.allowed);
            throttle.reset(now);
            self.announce(site, throttle, before, now);
        }
    }

    /// Why a site may not have all, in words.
    pub(crate) fn why(
        &self,
        site: &str,
        now: Timestamp,
    ) -> Option<(String, Option<Timestamp>, Option<String>)> {
        let part = self.part(site);
        let why = part.sites.get(site)?.throttle.why(now)?;
        Some((why.to_string(), why.allowed.suspended_until, why.rule.map(ToOwned::to_owned)))
    }

    /// Says so when there may be less than before, or all again.
    fn announce(&self, site: &str, throttle: &Throttle, before: Option<Allowed>, now: Timestamp) {
        match (before, throttle.why(now)) {
            (None, None) => {}
            (Some(_), None) => {
                self.throttled.fetch_sub(1, Relaxed);
                Unthrottled { site }.emit(now.0);
            }
            (before, Some(why)) => {
                if before.is_none() {
                    self.throttled.fetch_add(1, Relaxed);
                }
                let Allowed { connections, rate, suspended_until } = why.allowed;
                let is_less = before.is_none_or(|before| {
                    connections < before.connections
                        || suspended_until > before.suspended_until
                        || rate.unwrap_or(u32::MAX) < before.rate.unwrap_or(u32::MAX)
                });
                if is_less {
                    Throttled {
                        site,
                        connections,
                        rate,
                        suspended: suspended_until.map(|until| until.saturating_since(now)),
                        category: why.category.word(),
                        rule: why.rule,
                        reply: why.reply,
                    }
                    .emit(now.0);
                }
            }
        }
    }

    fn part(&self, site: &str) -> MutexGuard<'_, Part> {
        let part = self.hasher.hash_one(site) as usize % PARTS;
        // A throttle is whole at any time.
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether nothing would be lost: it may have all, and nobody has told anything of it for a while.
    fn can_be_forgotten(&self, now: Timestamp) -> bool {
        const QUIET: Duration = Duration::from_secs(600);
        self.throttle.why(now).is_none() && now.saturating_since(self.told_at) >= QUIET
    }
}

/// What a lane has not told yet, and what it was told.
#[derive(Debug, Default)]
pub(crate) struct Account {
    taken: std::cell::Cell<u32>,
    told_at: std::cell::Cell<Option<Duration>>,
    allowed: std::cell::Cell<Option<Allowed>>,
}

impl Account {
    /// How much there may be, as it was said last; none: nothing was said.
    pub(crate) fn allowed(&self) -> Option<Allowed> {
        self.allowed.get()
    }
}

/// A transaction has ended: what the rules say of each recipient who has not got it, `None` for those who have.
pub(crate) fn on_ended(shard: &Rc<Shard>, lane: &Rc<Lane>, judgements: &[(Option<Judgement>, String)]) {
    if !is_for(shard, lane) {
        return;
    }
    let account = &lane.account;
    let Some(place) = spokesman(judgements.iter().map(|(judgement, _)| judgement.as_ref())) else { return };
    let (judgement, reply) = &judgements[place];
    match judgement {
        None => {
            account.taken.set(account.taken.get().saturating_add(1));
            look(shard, lane);
        }
        Some(judgement) => {
            let told = Told {
                category: Some(judgement.category),
                advice: judgement.advice(),
                rule: judgement.rule.as_ref(),
                reply,
            };
            tell(shard, lane, &News::Refused(&told));
        }
    }
}

/// There was no connection, or it was refused before it was of any use.
pub(crate) fn on_unconnected(shard: &Rc<Shard>, lane: &Rc<Lane>, why: &str) {
    tell(shard, lane, &News::Unconnected(why));
}

/// Tells what was taken, and looks what others have told, now and then.
pub(crate) fn look(shard: &Rc<Shard>, lane: &Rc<Lane>) {
    let now = ring::clock::now();
    if lane.account.told_at.get().is_none_or(|at| now.saturating_sub(at) >= INTERVAL) {
        tell(shard, lane, &News::Nothing);
    }
}

/// Sites that the DNS names have throttles. A host that the operator names is one he knows, and has limits for: what it refuses
/// is mostly about whom it sends to, and all mail would wait for that.
fn is_for(shard: &Shard, lane: &Lane) -> bool {
    shard.settings().throttle.is_some() && lane.is_by_dns()
}

/// Tells at once.
pub(crate) fn tell(shard: &Rc<Shard>, lane: &Rc<Lane>, news: &News<'_>) {
    if !is_for(shard, lane) {
        return;
    }
    let settings = shard.settings();
    let (Some(limits), Some(route)) = (settings.throttle, lane.route(&settings)) else { return };
    let shape = settings.shape(&lane.key, route);
    let limits = ThrottleLimits {
        connections_max: shape.connections_max,
        rate_max: shape.message_rate.map(per_minute),
        ..limits
    };
    let account = &lane.account;
    account.told_at.set(Some(ring::clock::now()));
    let taken = account.taken.take();
    let allowed = shard.leases.throttles().tell(&lane.limit_key, limits, taken, news, facts::now());
    if account.allowed.replace(Some(allowed)) != Some(allowed) {
        hops::on_allowed(shard, lane, allowed);
    }
}

/// An operator knows better: the site gets all it may.
pub(crate) fn reset(shard: &Rc<Shard>, site: &str) {
    let limit_key = Routes::limit_key(site);
    shard.leases.throttles().forget(&limit_key, facts::now());
    for lane in shard.hops.lanes_of(&limit_key) {
        tell(shard, &lane, &News::Nothing);
    }
}

/// Messages a minute, one at least.
pub(crate) fn per_minute(rate: config::Rate) -> u32 {
    let secs = rate.per.as_secs().max(1);
    u32::try_from(u64::from(rate.count) * 60 / secs).unwrap_or(u32::MAX).max(1)
}
