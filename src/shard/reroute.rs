//! Another way for queued mail: after a reload, whoever is queued goes by the routes that are in force now.
//!
//! A walk over the queue looks at all whose destination may have been given by a route that is gone or other. What the
//! queue keeps is a destination's name; where that does not name the domain, the envelope is read. Nothing is tried the
//! old way meanwhile: a worker looks again at what was ordered before, or while the walk is under way. What is in a
//! transaction ends there, and goes the new way from its next attempt on.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use delivery::{Demand, Routes};
use mail::{Envelope, QueueId, Status};
use queue::{Cursor, Filter, Lot, Onward, Redirect, State};
use ring::Event;
use watch::events::Rerouted;

use crate::{
    egress, facts,
    hops::{self, Job},
    locate, lots, outcomes, schedule,
    settings::Settings,
    shard::{Held, Shard},
};

/// What one core has to do after a change of routes.
#[derive(Default)]
pub(crate) struct Reroute {
    /// Counts the changes.
    generation: Cell<Generation>,
    /// Keys that routes before gave, and that may stand for mail which goes another way now.
    keys: RefCell<HashSet<Arc<str>>>,
    /// Whether any key may.
    all: Cell<bool>,
    /// Whether a message may be of another campaign now, which its envelope says.
    campaigns: Cell<bool>,
    walk: Cell<Walk>,
    /// Recipients whom the walk, or a worker meanwhile, has given another way.
    moved: Cell<u64>,
    ended: Event,
}

/// Which routes were in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation(u32);

/// Whether the queue is being walked over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Walk {
    #[default]
    Ended,
    UnderWay,
    /// The routes have changed again meanwhile.
    OnceMore,
}

/// Groups that are looked at before others have their turn.
const PAGE: usize = 256;

impl Reroute {
    /// The routes that are in force.
    pub(crate) fn generation(&self) -> Generation {
        self.generation.get()
    }

    /// Whether a job may be about to go by a route that is in force no more.
    pub(crate) fn may_concern(&self, job: &Job) -> bool {
        self.is_before(job) || self.walk.get() != Walk::Ended
    }

    /// Whether a job was ordered before the routes have changed.
    pub(crate) fn is_before(&self, job: &Job) -> bool {
        job.generation != self.generation.get()
    }

    /// Waits until everybody goes by the routes in force, but not for ever.
    pub(crate) async fn settled(&self, patience: Duration) {
        let until = ring::clock::now() + patience;
        loop {
            let ended = self.ended.wait();
            let left = until.saturating_sub(ring::clock::now());
            if self.walk.get() == Walk::Ended || left.is_zero() {
                return;
            }
            let _ = ring::timeout(left, ended).await;
        }
    }
}

/// The settings have changed: begins to look at all whose way may have.
pub(crate) fn begin(shard: &Rc<Shard>, before: &Settings) {
    let state = &shard.reroute;
    let settings = shard.settings();
    // Mail from before somebody had a pool has no part in it yet.
    let has_pools = !settings.egress.is_for_the_same(&before.egress);
    let has_campaigns = settings.campaigns != before.campaigns;
    if before.routes.leads_alike(&settings.routes) && !has_pools && !has_campaigns {
        return;
    }
    if has_pools || has_campaigns {
        state.all.set(true);
    }
    if has_campaigns {
        state.campaigns.set(true);
    }
    state.generation.set(Generation(state.generation.get().0.wrapping_add(1)));
    state.keys.borrow_mut().extend(before.routes.shared_keys_changed(&settings.routes));
    // What waits for a connection of the old way would wait for as long as that takes to fail.
    for job in shard.hops.take_jobs(|key| is_concerned(shard, &settings, key)) {
        let shard = shard.clone();
        ring::spawn(async move { divert(&shard, job, hops::assign).await });
    }
    if state.walk.replace(Walk::OnceMore) == Walk::Ended {
        ring::spawn(walk(shard.clone()));
    }
}

/// Whether mail of this destination may go elsewhere now.
fn is_concerned(shard: &Shard, settings: &Settings, key: &str) -> bool {
    shard.reroute.all.get()
        || settings.routes.route_of_key(key).is_none()
        || Routes::is_among(key, &shard.reroute.keys.borrow())
}

async fn walk(shard: Rc<Shard>) {
    let (state, began) = (&shard.reroute, ring::clock::now());
    while state.walk.get() == Walk::OnceMore {
        state.walk.set(Walk::UnderWay);
        let mut next = Some(Cursor::default());
        while let Some(cursor) = next {
            let found;
            (found, next) = page(&shard, cursor);
            for (id, envelope) in found {
                let moved = reroute(&shard, id, envelope).await;
                state.moved.set(state.moved.get() + moved);
                ring::yield_if_needed().await;
            }
            ring::yield_if_needed().await;
            if shard.is_stopping() {
                // The restart asks the routes itself.
                next = None;
            }
        }
    }
    state.walk.set(Walk::Ended);
    state.keys.borrow_mut().clear();
    state.all.set(false);
    state.campaigns.set(false);
    state.ended.notify_all();
    let (nrcpt, took) = (state.moved.take(), ring::clock::now().saturating_sub(began));
    Rerouted { shard: shard.number, id: None, nrcpt, took: Some(took) }.emit(facts::now().0);
}

/// Whether the envelope has to be read to know a recipient's domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Envelope,
    Nothing,
}

/// The messages of a page that are concerned, and where the next one begins.
fn page(shard: &Shard, cursor: Cursor) -> (Vec<(QueueId, Wanted)>, Option<Cursor>) {
    let (settings, queue) = (shard.settings(), shard.queue.borrow());
    let page = queue.list(&Filter::default(), cursor, PAGE);
    let mut destinations = HashMap::new();
    let mut found: Vec<(QueueId, Wanted)> = Vec::new();
    for group in page.items {
        let wanted = *destinations.entry(group.destination).or_insert_with(|| {
            let key = queue.name(group.destination).filter(|key| is_concerned(shard, &settings, key))?;
            let is_known = Routes::domain_of_key(key).is_some() && !shard.reroute.campaigns.get();
            Some(if is_known { Wanted::Nothing } else { Wanted::Envelope })
        });
        // What is in an attempt is looked at when that has ended.
        let Some(wanted) = wanted.filter(|_| group.state != State::Running) else { continue };
        // Groups of one message stand beside each other as long as they were accepted together.
        match found.last_mut().filter(|(id, _)| *id == group.id) {
            Some((_, before)) if wanted == Wanted::Envelope => *before = wanted,
            Some(_) => {}
            None => found.push((group.id, wanted)),
        }
    }
    (found, page.next)
}

/// Gives the recipients of a message the destinations that they have now; says how many had others.
async fn reroute(shard: &Rc<Shard>, id: QueueId, wanted: Wanted) -> u64 {
    let envelope = match wanted {
        Wanted::Nothing => None,
        Wanted::Envelope => match shard.envelope(id).await {
            Ok(envelope) => Some(envelope),
            // It has ended, or the next attempt tells what is wrong with it.
            Err(_) => return 0,
        },
    };
    let mut orders = Vec::new();
    let redirects = redirects(shard, id, envelope.as_deref());
    let moved = shard.queue.borrow_mut().redirect(id, &redirects, facts::now(), &mut orders);
    follow(shard, orders, moved);
    moved
}

fn follow(shard: &Rc<Shard>, orders: Vec<queue::Order>, moved: u64) {
    shard.metrics.queue.rerouted.add(moved);
    schedule::follow(shard, orders);
    shard.due.notify_all();
}

/// Gives recipients of a message the route that an operator has chosen, or their own again; says how many had another.
///
/// Unlike a change of routes, a restart would know nothing of it: it is written down.
pub(crate) fn by_choice(shard: &Rc<Shard>, entry: &bridge::Entry, to: Option<&str>) -> u64 {
    let redirects: Vec<_> = {
        let (settings, mut queue) = (shard.settings(), shard.queue.borrow_mut());
        let states = queue.states(entry.id).unwrap_or_default();
        let meant = |state: &queue::RecipientState| {
            let recipient = entry.recipients.iter().find(|recipient| recipient.index == state.recipient)?;
            let address: mail::Address = recipient.address.parse().ok()?;
            Some((*state, address.domain()))
        };
        let redirect = |(state, domain): (queue::RecipientState, mail::Domain)| {
            let key = queue.name(state.destination)?.to_owned();
            let way = settings.way_by(to, &domain, Routes::demand_of_key(&key));
            let onward = match way.via {
                Held::Yes => Onward::Hold,
                Held::No if Routes::is_hold_key(&key) => Onward::Release,
                Held::No => Onward::Send,
            };
            let tenant = queue.tenant(state.destination).unwrap_or_default();
            let before = queue.lot(state.destination).unwrap_or_default();
            let pool = shard.lots.pool(before);
            let to = (&*way.key, pool.as_deref());
            let lot = egress::lot_with_pool(shard, &settings, (tenant, before), entry.id, to);
            let destination = locate::intern(&mut queue, (tenant, lot), &way.key, facts::now());
            Some(Redirect { recipient: state.recipient, destination, onward })
        };
        states.iter().filter_map(meant).filter_map(redirect).collect()
    };
    let mut orders = Vec::new();
    let moved = shard.queue.borrow_mut().redirect(entry.id, &redirects, facts::now(), &mut orders);
    follow(shard, orders, moved);
    if moved > 0 {
        let states = shard.queue.borrow().states(entry.id).unwrap_or_default().into_iter();
        let moved = |state: &queue::RecipientState| {
            redirects.iter().any(|r| (r.recipient, r.destination) == (state.recipient, state.destination))
        };
        let note = |state: queue::RecipientState| {
            let queue::RecipientState { recipient, destination, attempts, due, category, .. } = state;
            let recipients = [recipient][..].into();
            let state = if state.state == State::Running { State::Ready } else { state.state };
            queue::Order::Note { id: entry.id, recipients, destination, state, attempts, due, category }
        };
        schedule::follow(shard, states.filter(moved).map(note).collect());
    }
    moved
}

/// An attempt of this message has ended that was ordered before the routes changed.
pub(crate) fn look_again(shard: &Rc<Shard>, id: QueueId) {
    let shard = shard.clone();
    ring::spawn(async move {
        let moved = reroute(&shard, id, Wanted::Envelope).await;
        tell(&shard, id, moved);
    });
}

fn tell(shard: &Shard, id: QueueId, moved: u64) {
    if shard.reroute.walk.get() != Walk::Ended {
        shard.reroute.moved.set(shard.reroute.moved.get() + moved);
    } else if moved > 0 {
        Rerouted { shard: shard.number, id: Some(&id), nrcpt: moved, took: None }.emit(facts::now().0);
    }
}

/// Lets an attempt that was not begun go another way, if its recipients have one; if not, `otherwise` has it.
pub(crate) async fn divert(shard: &Rc<Shard>, job: Job, otherwise: impl FnOnce(&Rc<Shard>, Job)) {
    match shard.envelope(job.id).await {
        Ok(envelope) => {
            if let Some(job) = try_divert(shard, job, &envelope) {
                otherwise(shard, job);
            }
        }
        Err(error) => {
            let text = format!("the message cannot be read: {error}");
            outcomes::end_unattempted(shard, job, &outcomes::deferred(Status(4, 3, 0), &text));
        }
    }
}

/// Lets an attempt that was not begun go another way, if its recipients have one; if not, gives it back.
pub(crate) fn try_divert(shard: &Rc<Shard>, mut job: Job, envelope: &Envelope) -> Option<Job> {
    let redirects = redirects(shard, job.id, Some(envelope));
    if !redirects.iter().any(|redirect| job.recipients.contains(&redirect.recipient)) {
        job.generation = shard.reroute.generation();
        return Some(job);
    }
    let mut orders = Vec::new();
    let moved = shard.queue.borrow_mut().on_diverted(job.attempt, &redirects, facts::now(), &mut orders);
    follow(shard, orders, moved);
    tell(shard, job.id, moved);
    None
}

/// Where the recipients of a message go that go elsewhere now. Without the envelope, those whose domain is known.
fn redirects(shard: &Shard, id: QueueId, envelope: Option<&Envelope>) -> Vec<Redirect> {
    let (settings, mut queue) = (shard.settings(), shard.queue.borrow_mut());
    let campaign = envelope.map(|envelope| shard.lots.of_campaign(settings.campaigns.of(&envelope.handling)));
    let mut redirects = Vec::new();
    for state in queue.states(id).unwrap_or_default() {
        let Some(key) = queue.name(state.destination) else { continue };
        let domain = Routes::domain_of_key(key).map(|domain| (domain, Routes::demand_of_key(key)));
        let from_envelope = || {
            let envelope = envelope?;
            let recipient = envelope.recipients.get(state.recipient as usize)?;
            Some((recipient.address.domain(), Demand::of(envelope.handling.tls, &envelope.reverse_path)))
        };
        let Some((domain, demand)) = domain.or_else(from_envelope) else { continue };
        let way = settings.way_by(Routes::chosen_of_key(key), &domain, demand);
        let was_held_by_route = Routes::is_hold_key(key);
        let (name, onward) = match way.via {
            Held::No if was_held_by_route => (way.key, Onward::Release),
            Held::No => (way.key, Onward::Send),
            // An operator's hold must not look like the route's: it is to stay when the route is gone.
            Held::Yes if state.state == State::Held && !was_held_by_route => {
                (Routes::unrouted(&domain, demand), Onward::Send)
            }
            Held::Yes => (way.key, Onward::Hold),
        };
        let tenant = queue.tenant(state.destination).unwrap_or_default();
        let before = queue.lot(state.destination).unwrap_or_default();
        let campaign = campaign.unwrap_or_else(|| lots::campaign_of(before));
        let pool = shard.lots.pool(before);
        let mut lot =
            egress::lot_with_pool(shard, &settings, (tenant, campaign), id, (&name, pool.as_deref()));
        if *name == *key && lots::leaving_of(before) != Lot::default() {
            // Who has a slot keeps it, and what a reply has chosen.
            lot = lots::joined(campaign, before);
        }
        if *name != *key || lot != before {
            // Whoever merely has a source now, or is of another campaign, waits until the same time.
            let onward = if *name == *key { Onward::Wait } else { onward };
            let destination = locate::intern(&mut queue, (tenant, lot), &name, facts::now());
            redirects.push(Redirect { recipient: state.recipient, destination, onward });
        }
    }
    redirects
}
