//! Requests of the pool: what operators ask, answered from the queue in bounded steps.

use std::{rc::Rc, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bridge::{
    Action, Counts, Destination, Entry, Filter, Hatch, JournalHealth, Listing, Page, Progress, Recipient,
    Request, Returning, Selector, ShardHealth, Stage, Stranded, Summary,
};
use delivery::Routes;
use mail::QueueId;
use queue::{Command, Cursor};
use tokio::sync::mpsc;
use watch::events::Operated;

use crate::{
    accept, facts, fetch, inject, release, schedule,
    settings::{Settings, Snapshot},
    shard::Shard,
    spare, throttles,
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
                        Ok(()) => reply.send(list(&shard, &listing).await),
                        Err(returning) => reply.put_off(returning),
                    }
                });
            }
            Request::Show(id, reply) => {
                let shard = shard.clone();
                ring::spawn(async move {
                    match whole(&shard, Some(id)).await {
                        Ok(()) => reply.send(show(&shard, id).await),
                        Err(returning) => reply.put_off(returning),
                    }
                });
            }
            Request::Explain(subject, reply) => {
                let shard = shard.clone();
                // What is on its way back says so itself.
                ring::spawn(async move { reply.send(why::explain(&shard, &subject).await) });
            }
            Request::Change { action, selector, cursor, reply } => {
                let shard = shard.clone();
                ring::spawn(async move {
                    match whole(&shard, meant(&selector)).await {
                        Ok(()) => reply.send(change(&shard, action, &selector, cursor).await),
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
            Request::Ask(question, reply) => {
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

/// The message that alone is meant.
fn meant(selector: &Selector) -> Option<QueueId> {
    match selector {
        Selector::Matching(Filter { id, .. }) => *id,
        Selector::All => None,
    }
}

/// Groups that one step of a listing reads envelopes for.
const STEP: usize = 100;

async fn list(shard: &Rc<Shard>, listing: &Listing) -> Page {
    let filter = &listing.filter;
    if let Some(id) = filter.id {
        let entries = show(shard, id).await.into_iter().filter_map(|entry| matching(entry, filter)).collect();
        return Page { entries, next: None };
    }
    let Some(mut cursor) = cursor(listing.cursor) else { return Page::default() };
    let mut entries = Vec::new();
    let limit = listing.limit.clamp(1, STEP);
    let page = {
        let queue = shard.queue.borrow();
        // Each tenant has one of its own.
        let destinations = filter.destination.as_ref().map(|name| queue.find_all(name));
        let state = filter.state.map(Into::into);
        let wanted = queue::Filter { destinations: destinations.as_deref(), state, due_by: None };
        let page = queue.list(&wanted, cursor, limit);
        cursor = page.next.unwrap_or_default();
        page
    };
    let mut seen: Option<QueueId> = None;
    for group in page.items {
        // Groups of one message stand beside each other as long as they were accepted together.
        if seen.replace(group.id) == Some(group.id) {
            continue;
        }
        entries.extend(show(shard, group.id).await.and_then(|entry| matching(entry, filter)));
    }
    Page { entries, next: page.next.map(|_| u64::from(cursor.0)) }
}

/// The entry without the recipients that the filter does not mean; none when nobody is left.
fn matching(mut entry: Entry, filter: &Filter) -> Option<Entry> {
    let sender = match &filter.sender {
        None => true,
        Some(pattern) => {
            let path = match entry.sender.parse() {
                Ok(address) => mail::ReversePath::Address(address),
                Err(_) => mail::ReversePath::Null,
            };
            pattern.matches_reverse_path(&path)
        }
    };
    entry.recipients.retain(|recipient| {
        filter.destination.as_ref().is_none_or(|name| *name == recipient.destination)
            && filter.state.is_none_or(|state| state == recipient.state)
            && filter.recipient.as_ref().is_none_or(|pattern| {
                recipient.address.parse().is_ok_and(|address: mail::Address| pattern.matches(&address))
            })
    });
    (sender && !entry.recipients.is_empty()).then_some(entry)
}

async fn show(shard: &Rc<Shard>, id: QueueId) -> Option<Entry> {
    shard.queue.borrow().message(id)?;
    let envelope = shard.envelope(id).await.ok()?;
    let settings = shard.settings();
    let queue = shard.queue.borrow();
    let message = queue.message(id)?;
    let recipients: Vec<_> = queue
        .states(id)?
        .into_iter()
        .map(|state| {
            let address = envelope.recipients.get(state.recipient as usize);
            let due = matches!(state.state, queue::State::Deferred).then_some(state.due);
            let last = shard.last(id, state.recipient);
            let domain = address.map_or("", |recipient| recipient.address.domain_str());
            let category = last.as_ref().map(|last| {
                let refused = delivery::Refused::kept(&last.text, last.status, &last.host, domain);
                settings.reply_rules.classify(&refused).category.to_string()
            });
            Recipient {
                index: state.recipient,
                address: address.map(|recipient| recipient.address.to_string()).unwrap_or_default(),
                state: state.state.into(),
                destination: queue.name(state.destination).unwrap_or_default().to_owned(),
                attempts: state.attempts.into(),
                due,
                status: state.status,
                reply: last.map(|last| last.text.into()),
                category,
            }
        })
        .collect();
    Some(Entry {
        id,
        received_at: message.received_at,
        size: message.size,
        sender: envelope.reverse_path.address().map(ToString::to_string).unwrap_or_default(),
        recipients_total: recipients.len().try_into().unwrap_or(u32::MAX),
        recipients,
    })
}

async fn change(shard: &Rc<Shard>, action: Action, selector: &Selector, at: u64) -> Progress {
    let command = match action {
        Action::Retry => Command::Retry,
        Action::Hold => Command::Hold,
        Action::Release => Command::Release,
        Action::Remove => Command::Remove,
    };
    if let (Command::Retry, Selector::Matching(Filter { destination: Some(name), .. })) = (command, selector)
    {
        // Who wants it tried now wants it tried as often as may be.
        let sites: Vec<Box<str>> = {
            let queue = shard.queue.borrow();
            let found = queue.find_all(name).into_iter();
            found.filter_map(|found| Some(queue.site_name(queue.site_of(found)?)?.into())).collect()
        };
        sites.iter().for_each(|site| throttles::reset(shard, site));
    }
    let progress = match selector {
        Selector::All => step(shard, command, queue::Selector::All, at),
        Selector::Matching(filter) => command_matching(shard, command, filter, at).await,
    };
    let id = meant(selector);
    let id: Option<&dyn std::fmt::Display> = id.as_ref().map(|id| id as _);
    if progress.changed > 0 {
        Operated { action: action.as_str(), id, nrcpt: progress.changed }.emit(ring::clock::unix_micros());
    }
    progress
}

/// One step of a command for those that match.
pub(crate) async fn command_matching(
    shard: &Rc<Shard>,
    command: Command,
    filter: &Filter,
    at: u64,
) -> Progress {
    match simple(shard, filter) {
        Some(selector) => step(shard, command, selector, at),
        None => change_matching(shard, command, filter, at).await,
    }
}

/// What the queue can select by itself.
fn simple(shard: &Shard, filter: &Filter) -> Option<queue::Selector> {
    let only = |other: Filter| *filter == other;
    if let Some(id) = filter.id {
        return only(Filter { id: Some(id), ..Filter::default() }).then_some(queue::Selector::Message(id));
    }
    let name = filter.destination.as_ref()?;
    if !only(Filter { destination: Some(name.clone()), ..Filter::default() }) {
        return None;
    }
    match shard.queue.borrow().find_all(name)[..] {
        [only] => Some(queue::Selector::Destination(only)),
        _ => None,
    }
}

fn step(shard: &Rc<Shard>, command: Command, selector: queue::Selector, at: u64) -> Progress {
    let Some(cursor) = cursor(at) else { return Progress::default() };
    let mut orders = Vec::new();
    let progress = shard.queue.borrow_mut().on_command(command, selector, cursor, facts::now(), &mut orders);
    schedule::follow(shard, orders);
    shard.due.notify_all();
    Progress { changed: progress.changed, next: progress.next.map(|cursor| cursor.0.into()) }
}

/// Changes those of a page whose envelopes match.
async fn change_matching(shard: &Rc<Shard>, command: Command, filter: &Filter, at: u64) -> Progress {
    let page = list(shard, &Listing { filter: filter.clone(), cursor: at, limit: STEP }).await;
    let mut changed = 0;
    for entry in page.entries {
        for recipient in entry.recipients {
            let selector = queue::Selector::Recipient(entry.id, recipient.index);
            changed += step(shard, command, selector, 0).changed;
        }
    }
    Progress { changed, next: page.next }
}

fn cursor(cursor: u64) -> Option<Cursor> {
    u32::try_from(cursor).ok().map(Cursor)
}

/// Destinations of queued mail to which no route leads, those apart that are still to be exchanged.
async fn stranded(shard: &Shard) -> Vec<Stranded> {
    const PAGE: usize = 1000;
    let settings = shard.settings();
    let (mut found, mut next) = (Vec::new(), Some(Cursor::default()));
    while let Some(cursor) = next {
        let page = shard.queue.borrow().list_destinations(cursor, PAGE);
        next = page.next;
        for destination in page.items {
            let recipients = destination.counts.total();
            let unrouted = Routes::domain_of_key(&destination.name)
                .is_some_and(|domain| settings.routes.destination(&domain).is_none());
            if recipients > 0 && unrouted {
                found.push(Stranded { destination: destination.name.into(), recipients });
            }
        }
        ring::yield_if_needed().await;
    }
    found
}

fn summary(shard: &Shard, destinations_max: usize) -> Summary {
    let queue = shard.queue.borrow();
    let mut destinations = Vec::new();
    let mut next = Some(Cursor::default());
    // The largest of all pages.
    while let Some(cursor) = next {
        let page = queue.list_destinations(cursor, STEP);
        next = page.next;
        destinations.extend(page.items);
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
            .map(|site| Routes::limit_key(&site.name).into_owned())
            .filter(|site| **site != *destination.name),
    };
    Summary {
        messages: queue.messages().into(),
        recipients: Counts::from(queue.counts()),
        oldest: queue.oldest(),
        destinations: destinations.into_iter().map(view).collect(),
    }
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
