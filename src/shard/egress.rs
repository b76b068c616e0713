//! From which source mail leaves: who has chosen a pool, which source of it has a message, and what holds that source back.
//!
//! A destination of the queue is of one [`Lot`], which follows from the queue id: where a source has to be chosen, the destination is
//! located ([`crate::locate`]) at a site that has the name of the source before its own. So lanes, leases, rates and throttles
//! are those of the source and the site, and what becomes of a source moves mail by having its destinations located anew.

use std::{collections::BTreeMap, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use bridge::{Paused, PlanView, Reason, Seat, SourceView, Ticket};
use config::{ProxyProtocol, Rate};
use delivery::{
    Judgement, Route, Routes, Sources,
    egress::{Held, Plan, Pool, Progress, Proxy, Severity, Source, Speech, Standing},
    rule_of_site,
};
use dns::Name;
use mail::{Category, QueueId, TenantId, Timestamp};
use policy::Networks;
use queue::{Destination, Lot, Onward, Order, Redirect, Tenant};
use watch::events::{PoolDry, PoolServed, WarmUpPaused};

use crate::{
    facts,
    hops::{Job, Lane},
    locate, lots,
    paces::Counted,
    settings::Settings,
    shard::Shard,
    why,
};

/// Sources and pools, as the configuration has them.
#[derive(Debug, Default)]
pub(crate) struct Egress {
    outlets: BTreeMap<Box<str>, Rc<Outlet>>,
    pools: BTreeMap<Box<str>, Pool>,
    /// Pools of tenants.
    tenants: BTreeMap<Tenant, Box<str>>,
    /// Pools of campaigns.
    campaigns: BTreeMap<Box<str>, Box<str>>,
    /// Whether a site or a route has one.
    for_all: bool,
    plans: Vec<Plan>,
    /// Who is asked about our addresses.
    pub(crate) lists: Vec<List>,
    pub(crate) probe_interval: Duration,
    pub(crate) probe_timeout: Duration,
    pub(crate) list_interval: Duration,
}

/// A source, and what holds for all that leaves from it.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) source: Source,
    connections_max: Option<u32>,
    message_rate: Option<Rate>,
    /// Under which its messages are counted. No site is called so.
    rate_key: Box<str>,
}

/// A list of the DNS.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) name: Box<str>,
    pub(crate) zone: Name,
    /// Answers that count; none: all.
    pub(crate) answers: Option<Networks>,
    pub(crate) severity: Severity,
}

/// Whether a message may leave now.
pub(crate) enum Admission {
    /// Yes; and it is counted.
    Granted(Option<Ticket>),
    /// From another source.
    Elsewhere,
    /// Nothing leaves from there for so long.
    Later(Duration),
}

/// How many pools one after the other may have too much.
const OVERFLOWS_MAX: usize = 8;
/// How long nothing is ordered of a lane whose source is out, or has all its connections: then there is another look.
const OUT_FOR: Duration = Duration::from_secs(60);
const SEAT_WAIT: Duration = Duration::from_millis(250);

impl Egress {
    pub(crate) fn new(config: &config::Config) -> Self {
        let pools = config.pools.iter().map(|pool| {
            let shares: Vec<_> =
                pool.sources.iter().map(|share| (share.source.as_str(), share.weight)).collect();
            (pool.name.as_str().into(), Pool::new(&pool.name, &shares))
        });
        let tenants = config.tenants.iter().filter_map(|tenant| {
            let pool = tenant.pool.as_deref()?;
            Some((locate::tenant(TenantId::of(&tenant.name)), pool.into()))
        });
        let campaigns = config
            .campaigns
            .iter()
            .filter_map(|campaign| Some((campaign.name.as_str().into(), campaign.pool.as_deref()?.into())));
        Self {
            outlets: config
                .sources
                .iter()
                .map(|source| (source.name.as_str().into(), Rc::new(Outlet::new(source))))
                .collect(),
            pools: pools.collect(),
            tenants: tenants.collect(),
            campaigns: campaigns.collect(),
            for_all: config.sites.iter().any(|site| site.pool.is_some())
                || config.routes.iter().any(|route| route.pool.is_some()),
            plans: config.warm_ups.iter().filter_map(plan).collect(),
            lists: config.dnsbls.iter().filter_map(List::new).collect(),
            probe_interval: config.egress.probe_interval,
            probe_timeout: config.egress.probe_timeout,
            list_interval: config.egress.dnsbl_interval,
        }
    }

    /// Whether some mail may leave from a source.
    pub(crate) fn is_used(&self) -> bool {
        !self.pools.is_empty()
    }

    /// Whether some mail of a tenant, or of a campaign, may leave from a source of its slot.
    fn may_be_for(&self, shard: &Shard, (tenant, campaign): (Tenant, Lot)) -> bool {
        let has_pool = |name: Rc<str>| self.campaigns.contains_key(&*name);
        self.for_all
            || self.tenants.contains_key(&tenant)
            || (!self.campaigns.is_empty() && shard.lots.campaign(campaign).is_some_and(has_pool))
    }

    /// Whether the same mail may as by another configuration.
    pub(crate) fn is_for_the_same(&self, other: &Self) -> bool {
        self.for_all == other.for_all
            && self.tenants.keys().eq(other.tenants.keys())
            && self.campaigns.keys().eq(other.campaigns.keys())
    }

    pub(crate) fn outlets(&self) -> impl Iterator<Item = &Rc<Outlet>> {
        self.outlets.values()
    }

    /// The source in a key of a lane; none where it leaves from no source, an error where that is not there any more.
    pub(crate) fn outlet_of(&self, key: &str) -> Result<Option<Rc<Outlet>>, ()> {
        match Routes::source_of_key(key) {
            None => Ok(None),
            Some(name) => self.outlets.get(name).cloned().map(Some).ok_or(()),
        }
    }

    /// The plans by which mail to a site is counted that leaves from a source.
    pub(crate) fn plans(&self, source: &str, key: &str) -> Vec<&Plan> {
        if self.plans.is_empty() {
            return Vec::new();
        }
        let rule = rule_of_site(Routes::site_of_key(key));
        let concerns = |plan: &&Plan| {
            *plan.source == *source && plan.site.as_deref().is_none_or(|site| rule == Some(site))
        };
        self.plans.iter().filter(concerns).collect()
    }

    /// Forgets what is not there any more.
    pub(crate) fn prune(&self, known: &bridge::Egress) {
        let is_asked = |source: &str, address: IpAddr, list: &str| {
            let outlet = self.outlets.get(source);
            outlet.is_some_and(|outlet| outlet.listable().any(|own| own == address))
                && self.lists.iter().any(|asked| *asked.name == *list)
        };
        known.retain(
            |source| self.outlets.contains_key(source),
            is_asked,
            |name| self.plans.iter().any(|plan| *plan.name == *name),
        );
    }
}

impl Outlet {
    fn new(source: &config::EgressSource) -> Self {
        let mut addresses = Sources::default();
        for address in &source.address {
            match address {
                IpAddr::V4(address) => _ = addresses.v4.get_or_insert(*address),
                IpAddr::V6(address) => _ = addresses.v6.get_or_insert(*address),
            }
        }
        let login =
            || Some((source.proxy_user.as_deref()?.into(), source.proxy_password.as_ref()?.expose().into()));
        let speech = match source.proxy_protocol {
            ProxyProtocol::Socks5 => Speech::Socks5(login()),
            ProxyProtocol::HaproxyV1 => Speech::HeaderV1,
            ProxyProtocol::HaproxyV2 => Speech::HeaderV2,
        };
        Self {
            source: Source {
                name: source.name.as_str().into(),
                addresses,
                public: source.public_address.clone(),
                ehlo_name: source.ehlo_name.clone(),
                identity: source.client_certificate.as_ref().map(|file| file.to_string_lossy().into()),
                proxy: source.proxy.map(|address| Proxy { address, speech }),
            },
            connections_max: source.connections_max,
            message_rate: source.message_rate,
            rate_key: format!("source {}", source.name).into(),
        }
    }

    /// The addresses that lists are asked about.
    pub(crate) fn listable(&self) -> impl Iterator<Item = IpAddr> {
        let Sources { v4, v6 } = self.source.seen();
        v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6))
    }

    /// A place among its connections, where there is a bound on them.
    ///
    /// # Errors
    /// There is none.
    fn seat(&self, shard: &Shard, lane: &Lane) -> Result<Option<Seat>, ()> {
        let Some(max) = self.connections_max else { return Ok(None) };
        let who = format!("{} {}", shard.number, lane.key);
        shard.egress.seat(&self.source.name, max, &who, facts::now()).map(Some).ok_or(())
    }
}

impl List {
    /// Whether an answer counts.
    pub(crate) fn counts(&self, answer: IpAddr) -> bool {
        self.answers.as_ref().is_none_or(|networks| networks.contains(answer))
    }

    fn new(list: &config::Dnsbl) -> Option<Self> {
        Some(Self {
            name: list.name.as_str().into(),
            zone: Name::parse(list.zone.as_ref()?.as_str()).ok()?,
            answers: (!list.answers.is_empty()).then(|| Networks::new(&list.answers)),
            severity: match list.action {
                config::Listed::Alarm => Severity::Alarm,
                config::Listed::Lower => Severity::Lower,
                config::Listed::Stop => Severity::Stop,
            },
        })
    }
}

fn plan(plan: &config::WarmUp) -> Option<Plan> {
    Some(Plan {
        name: plan.name.as_str().into(),
        source: plan.source.as_str().into(),
        site: plan.site.as_deref().map(Into::into),
        start: plan.start?.0,
        caps: plan.caps.clone(),
        overflow: plan.overflow.as_deref().map(Into::into),
        complaints_max: plan.complaints_max,
        refusals_max: plan.refusals_max,
        sample: plan.sample,
        pause: plan.pause,
    })
}

/// The lot of a message, of that campaign, that goes to a destination with this key. Who has no pool has no slots, which would have turns
/// of their own.
pub(crate) fn lot(shard: &Shard, settings: &Settings, owner: (Tenant, Lot), id: QueueId, key: &str) -> Lot {
    let is_sent = settings.egress.may_be_for(shard, owner) && Routes::is_sent_key(key);
    if is_sent { lots::with_slot(owner.1, id) } else { lots::campaign_of(owner.1) }
}

/// As [`lot`], of a message that a reply has sent to a pool, if one has, and there is one of that name.
pub(crate) fn lot_with_pool(
    shard: &Shard,
    settings: &Settings,
    owner: (Tenant, Lot),
    id: QueueId,
    (key, pool): (&str, Option<&str>),
) -> Lot {
    let pool = pool.filter(|pool| settings.egress.pools.contains_key(*pool) && Routes::is_sent_key(key));
    let lot = pool.and_then(|pool| shard.lots.with_pool(owner.1, id, pool));
    lot.unwrap_or_else(|| self::lot(shard, settings, owner, id, key))
}

/// The source that mail of a destination leaves from, whose site has this key, and for how long; none where nobody has chosen a
/// pool.
pub(crate) fn choose(
    shard: &Shard,
    settings: &Settings,
    owner: (Tenant, Lot),
    (key, route): (&str, &Route),
) -> Option<(Box<str>, Duration)> {
    let egress = &settings.egress;
    let mut pool = pool_of(shard, settings, owner, (key, route))?;
    let slot = lots::slot(owner.1);
    let (now, mut good_for) = (facts::now(), Duration::MAX);
    for _ in 0..OVERFLOWS_MAX {
        let stands = |source: &str| shard.egress.standing(source);
        let beyond = |source: &str| {
            let outlet = egress.outlets.get(source);
            outlet
                .is_some_and(|outlet| shard.hops.families.is_beyond(key, &outlet.source, ring::clock::now()))
        };
        // Where nobody can reach the site, it is as if everybody could.
        let source = pool
            .source(slot, |source| if beyond(source) { Standing::Out } else { stands(source) })
            .or_else(|| pool.source(slot, stands));
        tell_dry(shard, &pool.name, source.is_none());
        // Mail whose pool has nothing to leave from waits with the source that would have it.
        let Some(source) = source else { return Some((pool.owner(slot).into(), good_for)) };
        let plans = egress.plans(source, key);
        let held = if plans.is_empty() { Ok(()) } else { shard.egress.may(&plans, now) };
        let Err(Held { until, overflow, .. }) = held else { return Some((source.into(), good_for)) };
        good_for = good_for.min(until.saturating_since(now));
        match overflow.and_then(|name| egress.pools.get(&name)) {
            Some(next) => pool = next,
            None => return Some((source.into(), good_for)),
        }
    }
    Some((pool.owner(slot).into(), good_for))
}

/// Who has chosen: a reply, else the campaign, else the tenant, else the site, else the route.
fn pool_of<'a>(
    shard: &Shard,
    settings: &'a Settings,
    (tenant, lot): (Tenant, Lot),
    (key, route): (&str, &Route),
) -> Option<&'a Pool> {
    let egress = &settings.egress;
    if !egress.is_used() {
        return None;
    }
    let by_reply = shard.lots.pool(lot);
    let campaign = if egress.campaigns.is_empty() { None } else { shard.lots.campaign(lot) };
    let names = [
        by_reply.as_deref(),
        campaign.and_then(|name| egress.campaigns.get(&*name)).map(|pool| &**pool),
        egress.tenants.get(&tenant).map(|pool| &**pool),
        settings.pool_of_site(key),
        route.options.pool.as_deref(),
    ];
    names.into_iter().flatten().find_map(|name| egress.pools.get(name))
}

fn tell_dry(shard: &Shard, pool: &str, is_dry: bool) {
    if shard.egress.dry(pool, is_dry) {
        let at = ring::clock::unix_micros();
        if is_dry {
            PoolDry { pool }.emit(at);
        } else {
            PoolServed { pool }.emit(at);
        }
    }
}

/// Replies have sent recipients of a message to other pools: they wait as before, and are tried from there.
pub(crate) fn move_to(shard: &Shard, job: &Job, moves: &[(u32, Arc<str>)], orders: &mut Vec<Order>) {
    let settings = shard.settings();
    let mut queue = shard.queue.borrow_mut();
    let Some(key) = queue.name(job.destination).map(Box::<str>::from) else { return };
    if moves.is_empty() || !Routes::is_sent_key(&key) {
        return;
    }
    let (tenant, now) = (queue.tenant(job.destination).unwrap_or_default(), facts::now());
    let before = queue.lot(job.destination).unwrap_or_default();
    let mut redirects = Vec::with_capacity(moves.len());
    for (recipient, pool) in moves {
        if let Some(lot) =
            shard.lots.with_pool(before, job.id, pool).filter(|_| settings.egress.pools.contains_key(&**pool))
        {
            let destination = locate::intern(&mut queue, (tenant, lot), &key, now);
            redirects.push(Redirect { recipient: *recipient, destination, onward: Onward::Wait });
        }
    }
    queue.redirect(job.id, &redirects, now, orders);
    note_moved(job.id, orders, &redirects);
}

/// What is noted of those who have moved says to where: a restart is to try them from there as well.
fn note_moved(id: QueueId, orders: &mut Vec<Order>, redirects: &[Redirect]) {
    let mut others = Vec::new();
    for order in &mut *orders {
        let Order::Note { id: of, recipients, state, attempts, due, category, .. } = order else { continue };
        let to = |place: &u32| redirects.iter().find(|redirect| redirect.recipient == *place);
        if *of != id || !recipients.iter().any(|place| to(place).is_some()) {
            continue;
        }
        for &Redirect { recipient, destination, .. } in recipients.iter().filter_map(to) {
            let (recipients, state, attempts) = ([recipient][..].into(), *state, *attempts);
            let (due, category) = (*due, *category);
            others.push(Order::Note { id, recipients, destination, state, attempts, due, category });
        }
        let stay: Vec<u32> = recipients.iter().copied().filter(|place| to(place).is_none()).collect();
        *recipients = stay[..].into();
    }
    orders.append(&mut others);
}

/// Whether a message may leave by a lane now.
pub(crate) fn admit(
    shard: &Rc<Shard>,
    settings: &Settings,
    lane: &Lane,
    destination: Destination,
) -> Admission {
    let Ok(outlet) = settings.egress.outlet_of(&lane.key) else { return Admission::Elsewhere };
    let Some(outlet) = outlet else { return Admission::Granted(None) };
    let or_elsewhere = |wait: Duration| {
        if is_elsewhere(shard, settings, lane, destination) {
            Admission::Elsewhere
        } else {
            Admission::Later(wait)
        }
    };
    if shard.egress.standing(&outlet.source.name) == Standing::Out {
        return or_elsewhere(OUT_FOR);
    }
    if shard.hops.families.is_beyond(&lane.key, &outlet.source, ring::clock::now())
        && is_elsewhere(shard, settings, lane, destination)
    {
        return Admission::Elsewhere;
    }
    if let Some(rate) = outlet.message_rate {
        let (paces, now) = (shard.leases.paces(), ring::clock::now());
        let wait = paces.wait(Counted::Messages, &outlet.rate_key, rate, now);
        if !wait.is_zero() {
            return Admission::Later(wait);
        }
    }
    let plans = settings.egress.plans(&outlet.source.name, &lane.key);
    if plans.is_empty() {
        return Admission::Granted(None);
    }
    let now = facts::now();
    match shard.egress.book(&plans, now) {
        Ok(ticket) => Admission::Granted(Some(ticket)),
        Err(held) => or_elsewhere(held.until.saturating_since(now).max(Duration::from_millis(1))),
    }
}

/// A message goes out by a lane: it is counted for its source.
pub(crate) fn count(shard: &Shard, settings: &Settings, lane: &Lane) {
    if let Ok(Some(outlet)) = settings.egress.outlet_of(&lane.key)
        && let Some(rate) = outlet.message_rate
    {
        shard.leases.paces().charge(Counted::Messages, &outlet.rate_key, rate, ring::clock::now());
    }
}

/// A transaction has ended: plans are told whether it was refused for what we are, or how much or fast we send.
pub(crate) fn on_ended(
    shard: &Shard,
    settings: &Settings,
    lane: &Lane,
    judgements: &[(Option<Judgement>, String)],
) {
    let Some(source) = Routes::source_of_key(&lane.key) else { return };
    let plans = settings.egress.plans(source, &lane.key);
    if plans.is_empty() {
        return;
    }
    let is_about_us = |category: Category| {
        matches!(
            category,
            Category::SpamContent
                | Category::SpamReputation
                | Category::Authentication
                | Category::Policy
                | Category::Rate
        )
    };
    let is_refused =
        judgements.iter().flat_map(|(judgement, _)| judgement).any(|found| is_about_us(found.category));
    let paused = shard.egress.answered(&plans, is_refused, facts::now());
    tell_paused(source, paused);
}

/// Somebody complains about a message that left from this address.
pub(crate) fn on_complained(shard: &Shard, address: IpAddr) {
    let settings = shard.settings();
    for outlet in settings.egress.outlets().filter(|outlet| outlet.listable().any(|own| own == address)) {
        let source = &outlet.source.name;
        // To which site it went, nobody says.
        let plans: Vec<_> = settings.egress.plans.iter().filter(|plan| plan.source == *source).collect();
        let paused = shard.egress.complained(&plans, 1, facts::now());
        tell_paused(source, paused);
    }
}

fn tell_paused(source: &str, paused: Paused) {
    for (plan, why, until) in paused {
        let time = until.saturating_since(facts::now());
        WarmUpPaused { plan: &plan, source, reason: why.word(), time }.emit(ring::clock::unix_micros());
    }
}

/// Whether mail of a destination would leave from another source by now.
pub(crate) fn is_elsewhere(
    shard: &Shard,
    settings: &Settings,
    lane: &Lane,
    destination: Destination,
) -> bool {
    let owner = owner(shard, destination);
    let Some(route) = lane.route(settings) else { return false };
    let chosen = choose(shard, settings, owner, (&lane.key, route));
    chosen.as_ref().map(|(source, _)| &**source) != Routes::source_of_key(&lane.key)
}

/// Whose a destination is.
pub(crate) fn owner(shard: &Shard, destination: Destination) -> (Tenant, Lot) {
    let queue = shard.queue.borrow();
    (queue.tenant(destination).unwrap_or_default(), queue.lot(destination).unwrap_or_default())
}

/// A place for one connection more of a lane.
///
/// # Errors
/// How long to wait until it is looked again.
pub(crate) fn seat(shard: &Shard, lane: &Lane) -> Result<Option<Seat>, Duration> {
    match shard.settings().egress.outlet_of(&lane.key) {
        Ok(Some(outlet)) => outlet.seat(shard, lane).map_err(|()| SEAT_WAIT),
        Ok(None) | Err(()) => Ok(None),
    }
}

/// Has all mail whose source may be another now look for its source.
pub(crate) fn on_changed(shard: &Rc<Shard>) {
    shard.queue.borrow_mut().forget_whereabouts();
    crate::hops::on_sources_changed(shard);
    shard.due.notify_all();
}

/// Hears of sources that stand otherwise, as long as the core lives.
pub(crate) async fn follow(shard: Rc<Shard>) {
    let mut changes = shard.egress.changes();
    while changes.changed().await.is_ok() {
        on_changed(&shard);
    }
}

/// What holds back mail that leaves by a lane, as far as its source is why.
pub(crate) fn reasons(shard: &Shard, settings: &Settings, lane: &Lane) -> Vec<Reason> {
    let Ok(Some(outlet)) = settings.egress.outlet_of(&lane.key) else { return Vec::new() };
    let (name, mut reasons) = (&*outlet.source.name, Vec::new());
    let since = |at: Timestamp| at.to_rfc3339();
    match (shard.egress.standing(name), shard.egress.why(name)) {
        (Standing::Out, Some((why, at))) => {
            let text = format!("the source {name} is out of use since {}: {why}", since(at));
            let set_by = Some(format!("source.{name}"));
            reasons.push(Reason { set_by, ..why::plain("source-out", text) });
        }
        (Standing::Lowered, Some((why, at))) => {
            let text = format!("the source {name} has less since {}: {why}", since(at));
            reasons.push(why::plain("source-lowered", text));
        }
        (Standing::In | Standing::Lowered | Standing::Out, _) => {}
    }
    if let Some(rate) = outlet.message_rate {
        let now = ring::clock::now();
        let wait = shard.leases.paces().wait(Counted::Messages, &outlet.rate_key, rate, now);
        if !wait.is_zero() {
            let text =
                format!("as many messages have left from {name} as its rate lets: {rate}, to all sites");
            let set_by = Some(format!("source.{name}.message-rate"));
            let until = Some(why::wall(now + wait));
            reasons.push(Reason { until, set_by, ..why::plain("source-rate", text) });
        }
    }
    if let Some(max) = outlet.connections_max.filter(|max| shard.egress.seats(name) >= *max) {
        let text = format!("there are as many connections from {name} as there may be: {max}, to all sites");
        let set_by = Some(format!("source.{name}.connections-max"));
        reasons.push(Reason { set_by, ..why::plain("source-connections", text) });
    }
    let plans = settings.egress.plans(name, &lane.key);
    if let Err(Held { plan, until, cap, .. }) = shard.egress.may(&plans, facts::now()) {
        let text = match cap {
            Some(cap) => format!("the plan {plan} lets {cap} messages a day leave from {name} for now"),
            None => format!("the plan {plan} pauses: what left from {name} was refused or complained about"),
        };
        let set_by = Some(format!("warm-up.{plan}"));
        reasons.push(Reason { until: Some(until), set_by, ..why::plain("warm-up", text) });
    }
    reasons
}

/// What is known of the sources that a configuration has.
pub fn sources(config: &config::Config, known: &bridge::Egress, now: Timestamp) -> Vec<SourceView> {
    let egress = Egress::new(config);
    let view = |outlet: &Rc<Outlet>| {
        let name = &*outlet.source.name;
        let (reason, since) = known.why(name).unzip();
        let pools = egress.pools.values().filter(|pool| pool.sources().any(|source| source == name));
        SourceView {
            name: name.to_owned(),
            addresses: outlet.listable().collect(),
            proxy: outlet.source.proxy.as_ref().map(|proxy| proxy.address),
            pools: pools.map(|pool| pool.name.to_string()).collect(),
            standing: known.standing(name).into(),
            reason,
            since,
            listings: known.listings(name),
            connections: outlet.connections_max.map(|_| known.seats(name)),
            plans: egress
                .plans
                .iter()
                .filter(|plan| *plan.source == *name)
                .map(|plan| plan_view(plan, known, now))
                .collect(),
        }
    };
    egress.outlets().map(view).collect()
}

fn plan_view(plan: &Plan, known: &bridge::Egress, now: Timestamp) -> PlanView {
    let Progress { day, booked, answered, refused, complained, paused_until } = known.progress(plan, now);
    PlanView {
        name: plan.name.to_string(),
        site: plan.site.as_deref().map(ToOwned::to_owned),
        day: day.checked_sub(plan.start).map(|place| place + 1),
        cap: plan.cap(day),
        sent: booked,
        answered,
        refused,
        complaints: complained,
        paused_until: paused_until.map(|(until, _)| until),
    }
}
