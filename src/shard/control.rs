//! Requests of the pool: what operators ask, each for the part of the core that knows.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bridge::{
    Counts, Destination, Freshness, Hatch, JournalHealth, Request, Returning, ShardHealth, Stage, Stranded,
    Summary,
};
use delivery::Routes;
use mail::QueueId;
use queue::Cursor;
use tokio::sync::mpsc;

use crate::{
    accept, fetch, inject, operate, release,
    settings::{Settings, Snapshot},
    shard::Shard,
    spare,
    upkeep::{self, IndexOrder},
    why,
};

/// Answers for as long as the pool asks, or until the core departs.
pub(crate) async fn answer(
    shard: Rc<Shard>,
    mut hatch: Hatch,
    snapshot: Arc<ArcSwap<Snapshot>>,
    index: mpsc::Sender<IndexOrder>,
) {
    loop {
        let departed = async {
            shard.departure().await;
            None
        };
        let Some(request) = futures_lite::future::or(departed, hatch.recv()).await else { return };
        shard.metrics.executor.bridge_requests.one();
        match request {
            // A page may have to read envelopes; the next request does not wait for that.
            Request::List(listing, reply) => {
                let shard = shard.clone();
                ring::spawn(async move {
                    match whole(&shard, listing.filter.id).await {
                        Ok(()) => reply.send(operate::list(&shard, &listing).await),
                        Err(returning) => reply.put_off(returning),
                    }
                });
            }
            Request::Show(id, reply) => {
                let shard = shard.clone();
                ring::spawn(async move {
                    match whole(&shard, Some(id)).await {
                        Ok(()) => reply.send(operate::show(&shard, id, None).await),
                        Err(returning) => reply.put_off(returning),
                    }
                });
            }
            Request::Explain(subject, reply) => {
                let shard = shard.clone();
                // What is on its way back says so itself.
                ring::spawn(async move { reply.send(why::explain(&shard, &subject).await) });
            }
            Request::Change { change, cursor, reply } => {
                let shard = shard.clone();
                ring::spawn(async move {
                    match whole(&shard, operate::meant(&change.selector)).await {
                        Ok(()) => reply.send(operate::change(&shard, &change, cursor).await),
                        Err(returning) => reply.put_off(returning),
                    }
                });
            }
            Request::Release(node, reply) => {
                let shard = shard.clone();
                ring::spawn(async move { reply.send(release::here(&shard, &node).await) });
            }
            Request::Collect(call, parcels, reply) => {
                let shard = shard.clone();
                ring::spawn(async move { fetch::here(&shard, &call, parcels, reply).await });
            }
            Request::Inject(injection, reply) => inject::begin(&shard, *injection, reply),
            Request::Summary(destinations_max, reply) => {
                let shard = shard.clone();
                ring::spawn(async move {
                    match whole(&shard, None).await {
                        Ok(()) => reply.send(summary(&shard, destinations_max)),
                        Err(returning) => reply.put_off(returning),
                    }
                });
            }
            Request::TlsResults(reply) => reply.send(shard.tally.take()),
            Request::DmarcResults(reply) => reply.send(shard.dmarc_tally.take()),
            Request::Ask(question, freshness, reply) => {
                if freshness == Freshness::Now {
                    shard.resolve.forget_answer(&question);
                }
                let asked = shard.resolve.ask(&question);
                ring::spawn(async move { reply.send(asked.await) });
            }
            Request::Health(reply) => reply.send(health(&shard)),
            Request::Reload(_, reply) => {
                shard.reload(Settings::new(&snapshot.load()));
                let shard = shard.clone();
                ring::spawn(async move {
                    // The more there is in the queue, the longer it takes to look at it; the reload is done before.
                    shard.reroute.settled(Duration::from_secs(5)).await;
                    reply.send(stranded(&shard).await);
                });
            }
            Request::LetGo(reply) => {
                let (shard, index) = (shard.clone(), index.clone());
                ring::spawn(async move { reply.send(upkeep::let_go(&shard, &index).await) });
            }
            Request::Spare(reply) => {
                let (shard, index) = (shard.clone(), index.clone());
                ring::spawn(async move { reply.send(spare::spare(&shard, &index).await) });
            }
            Request::Depart(rest) => ring::spawn(depart(shard.clone(), rest)),
            Request::Drain(grace, reply) => {
                let shard = shard.clone();
                ring::spawn(async move { reply.send(drain(&shard, grace).await) });
            }
        }
    }
}

/// How long a question waits for the queue of before the start; less than whoever asks.
const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until all that was queued before the start is back: half a queue would be a wrong answer, and a command for all
/// would not reach all. Who asks about one message alone waits for that one.
async fn whole(shard: &Shard, only: Option<QueueId>) -> Result<(), Returning> {
    let is_known = |id| shard.journals.of(id).is_none() || shard.queue.borrow().message(id).is_some();
    if only.is_some_and(is_known) {
        return Ok(());
    }
    let _ = ring::timeout(PATIENCE, shard.returning.wait(shard)).await;
    match shard.returning.progress() {
        Some(returning) if !only.is_some_and(is_known) => Err(returning),
        Some(_) | None => Ok(()),
    }
}

/// Destinations of queued mail to which no route leads, those apart that are still to be exchanged.
async fn stranded(shard: &Shard) -> Vec<Stranded> {
    const PAGE: usize = 1000;
    let settings = shard.settings();
    // Of several tenants, or lots.
    let mut found: BTreeMap<Box<str>, u64> = BTreeMap::new();
    let mut next = Some(Cursor::default());
    while let Some(cursor) = next {
        let page = shard.queue.borrow().list_destinations(cursor, PAGE);
        next = page.next;
        for destination in page.items {
            let recipients = destination.counts.total();
            let unrouted = Routes::domain_of_key(&destination.name).is_some_and(|domain| {
                settings.routes.destination(&domain).is_none()
                    && settings.routes.route_of_key(&destination.name).is_none()
            });
            if recipients > 0 && unrouted {
                *found.entry(destination.name).or_default() += recipients;
            }
        }
        ring::yield_if_needed().await;
    }
    let stranded =
        |(destination, recipients): (Box<str>, u64)| Stranded { destination: destination.into(), recipients };
    found.into_iter().map(stranded).collect()
}

fn summary(shard: &Shard, destinations_max: usize) -> Summary {
    const PAGE: usize = 100;
    let queue = shard.queue.borrow();
    let mut destinations = Vec::new();
    let mut next = Some(Cursor::default());
    let has_lots = shard.settings().egress.is_used();
    // The largest of all pages.
    while let Some(cursor) = next {
        let page = queue.list_destinations(cursor, PAGE);
        next = page.next;
        destinations.extend(page.items);
        if has_lots {
            join_lots(&mut destinations);
        }
        destinations.sort_by_key(|destination| std::cmp::Reverse(destination.counts.total()));
        destinations.truncate(destinations_max);
    }
    let view = |destination: queue::DestinationView| Destination {
        name: destination.name.clone().into(),
        recipients: destination.counts.into(),
        attempts: destination.attempts.into(),
        failures: destination.site.as_ref().map_or(0, |site| site.failures.into()),
        blocked_until: destination.site.as_ref().and_then(|site| site.blocked_until),
        site: destination
            .site
            .map(|site| Routes::without_source(&Routes::limit_key(&site.name)).into_owned())
            .filter(|site| **site != *destination.name),
    };
    Summary {
        messages: queue.messages().into(),
        recipients: Counts::from(queue.counts()),
        oldest: queue.oldest(),
        destinations: destinations.into_iter().map(view).collect(),
    }
}

/// Makes one of all that have the same name, from whatever source. Of one that is not among the largest so far, what is on other
/// pages is left out.
fn join_lots(destinations: &mut Vec<queue::DestinationView>) {
    let mut seen: HashMap<Box<str>, usize> = HashMap::new();
    let mut joined: Vec<queue::DestinationView> = Vec::with_capacity(destinations.len());
    for destination in destinations.drain(..) {
        match seen.get(&destination.name) {
            None => {
                seen.insert(destination.name.clone(), joined.len());
                joined.push(destination);
            }
            Some(place) => {
                let whole = &mut joined[*place];
                whole.attempts += destination.attempts;
                let (sum, more) = (&mut whole.counts, destination.counts);
                sum.ready += more.ready;
                sum.running += more.running;
                sum.deferred += more.deferred;
                sum.held += more.held;
            }
        }
    }
    *destinations = joined;
}

fn health(shard: &Shard) -> ShardHealth {
    let failed = shard.journals.has_failed();
    let full = shard.journals.active().accepts_mail() == Err(smtp::Refusal::StorageFull);
    ShardHealth {
        shard: shard.number,
        stage: if shard.is_stopping() { Stage::Stopping } else { Stage::Serving },
        journal: match (failed, full) {
            (true, _) => JournalHealth::Failed,
            (false, true) => JournalHealth::Full,
            (false, false) => JournalHealth::Healthy,
        },
        journal_error: failed.then(|| "a write or a sync failed; look at the log, then restart".to_owned()),
        inbound: shard.metrics.inbound.open.value(),
        outbound: shard.metrics.outbound.open.value(),
        messages: shard.queue.borrow().messages().into(),
        returning: shard.returning.progress(),
    }
}

/// Waits until nobody is served here and nobody is about to be; then ends what is under way to next hops, within the time.
async fn depart(shard: Rc<Shard>, rest: Duration) {
    const ROUND: Duration = Duration::from_millis(50);
    // What is on its way back is here before it goes: the index would not know of it, nor whoever reads it next.
    shard.returning.wait(&shard).await;
    while !shard.balance.close_if_deserted() {
        ring::sleep(ROUND).await;
    }
    drain(&shard, rest).await;
    shard.depart();
}

/// How long what is decided may take to be written down at the end.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether reports have ended.
const REPORTS_EVERY: Duration = Duration::from_millis(20);

/// Ends what is under way within the grace; says how many sessions are cut off.
async fn drain(shard: &Rc<Shard>, grace: Duration) -> u64 {
    accept::stop_taking_over(shard);
    shard.stop();
    let until = ring::clock::now() + grace;
    loop {
        let changed = shard.changed.wait();
        let sessions = shard.sessions.borrow().len();
        let left = until.saturating_sub(ring::clock::now());
        let reports = !shard.reporting.borrow().is_empty();
        if (sessions == 0 && shard.hops.workers.get() == 0 && !reports) || left.is_zero() {
            // What is decided is written down, so that it is not done again after the restart. A disk that is full takes none of it.
            for committer in shard.journals.all() {
                if ring::timeout(SETTLE_MAX, committer.settle()).await.is_err() {
                    tracing::warn!(shard = %committer.number(), "not all that was done could be written down: it is done again");
                }
            }
            return sessions as u64;
        }
        // That a report has ended nobody says.
        let _ = ring::timeout(if reports { left.min(REPORTS_EVERY) } else { left }, changed).await;
    }
}
