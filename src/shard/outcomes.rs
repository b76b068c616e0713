//! What became of an attempt: told to the queue, the journal, the log and the metrics.

use std::{rc::Rc, time::Duration};

use delivery::{Diagnostic, Outcome, Report, Teller};
use journal::{Last, Phase};
use mail::{Envelope, Status};
use queue::Order;
use watch::{Outcome as Counted, events};

use crate::{
    facts,
    hops::Job,
    schedule,
    shard::{Shard, since},
};

/// How an attempt ended.
pub(crate) struct Ended<'a> {
    /// Places in the envelope, and what became of each.
    pub(crate) outcomes: &'a [(u32, Outcome)],
    /// For the log.
    pub(crate) envelope: Option<&'a Envelope>,
    pub(crate) took: Duration,
    pub(crate) tls: Option<&'a str>,
    /// By which its protection was decided.
    pub(crate) policy: Option<&'a str>,
}

/// Tells everybody.
pub(crate) fn end(shard: &Rc<Shard>, job: &Job, site: &str, ended: &Ended<'_>) {
    // Of most the site is named as they are.
    let other_name = |name: &&str| *name != site;
    let name: Option<Box<str>> =
        shard.queue.borrow().name(job.destination).filter(other_name).map(Into::into);
    let destination = Whereto { name: name.as_deref().unwrap_or(site), site };
    let now = facts::now();
    shard.metrics.delivery.attempt.record_duration(ended.took);
    let mut told = Vec::with_capacity(ended.outcomes.len());
    let (mut delivered, mut untold) = (Vec::new(), Vec::new());
    for (place, outcome) in ended.outcomes {
        let outcome_for_queue = match outcome {
            Outcome::Delivered(report, teller) if is_untold(ended.envelope, *place, *teller) => {
                shard.remember_last(job.id, *place, last(report));
                untold.push(*place);
                queue::Outcome::Untold
            }
            Outcome::Delivered(..) => {
                delivered.push(*place);
                queue::Outcome::Delivered
            }
            Outcome::Deferred(report) => {
                shard.remember_last(job.id, *place, last(report));
                queue::Outcome::Deferred(report.status)
            }
            Outcome::Failed(report) => {
                shard.remember_last(job.id, *place, last(report));
                queue::Outcome::Failed
            }
        };
        told.push((*place, outcome_for_queue));
    }
    let done = delivered.len() + untold.len();
    if done > 0 {
        shard.metrics.outbound.messages.one();
        shard.metrics.outbound.recipients.add(done as u64);
    }
    if !untold.is_empty() {
        // A restart must report on these, and must not send to them again.
        schedule::note_untold(shard, job.id, &untold);
    }
    let mut orders = Vec::new();
    shard.queue.borrow_mut().on_attempted(job.attempt, &told, now, &mut orders);
    for (place, outcome) in ended.outcomes {
        note(shard, job, destination, ended, *place, outcome, &orders);
    }
    let retired = orders.iter().any(|order| matches!(order, Order::Retire { id } if *id == job.id));
    if !retired && !delivered.is_empty() {
        // Others are still to come; a restart must not send to these again.
        schedule::note_end(shard, job.id, &delivered, Phase::Delivered);
    }
    schedule::follow(shard, orders);
    if done < ended.outcomes.len() {
        // Something may be due earlier than what the scheduler waits for.
        shard.due.notify_all();
        if shard.reroute.is_before(job) {
            crate::reroute::look_again(shard, job.id);
        }
    }
}

/// Ends an attempt that was not made: all its recipients get this outcome.
pub(crate) fn end_unattempted(shard: &Rc<Shard>, job: Job, outcome: &Outcome) {
    let outcomes: Vec<_> = job.recipients.iter().map(|place| (*place, outcome.clone())).collect();
    let envelope = shard.contents.borrow().get(&job.id).map(|message| message.envelope.clone());
    let name: Box<str> = shard.queue.borrow().name(job.destination).map_or_else(Box::default, Into::into);
    let ended = Ended {
        outcomes: &outcomes,
        envelope: envelope.as_deref(),
        took: Duration::ZERO,
        tls: None,
        policy: None,
    };
    end(shard, &job, &name, &ended);
}

/// Our own words for something that may be better later.
pub(crate) fn deferred(status: Status, text: &str) -> Outcome {
    Outcome::Deferred(Report { status, remote: None, diagnostic: Diagnostic::Text(text.into()) })
}

/// Where an attempt led.
#[derive(Clone, Copy)]
struct Whereto<'a> {
    name: &'a str,
    site: &'a str,
}

fn note(
    shard: &Shard,
    job: &Job,
    destination: Whereto<'_>,
    ended: &Ended<'_>,
    place: u32,
    outcome: &Outcome,
    orders: &[Order],
) {
    let (result, counted) = match outcome {
        Outcome::Delivered(..) => ("delivered", Counted::Delivered),
        Outcome::Deferred(_) => ("deferred", Counted::Deferred),
        Outcome::Failed(_) => ("failed", Counted::Failed),
    };
    shard.metrics.delivery.sites.borrow_mut().count(destination.site, counted, 1);
    let delay = ended.envelope.map_or(Duration::ZERO, |envelope| since(envelope.received_at));
    if matches!(outcome, Outcome::Delivered(..)) {
        shard.metrics.queue.time.record_duration(delay);
    }
    if !events::Outcome::enabled() {
        return;
    }
    let report = outcome.report();
    let recipient = ended.envelope.and_then(|envelope| envelope.recipients.get(place as usize));
    let next = orders.iter().find_map(|order| match order {
        // Who is held has no next time.
        Order::Note { recipients, due, state, .. }
            if *state != queue::State::Held && recipients.contains(&place) =>
        {
            Some(due.saturating_since(facts::now()))
        }
        Order::Note { .. }
        | Order::Attempt { .. }
        | Order::Return { .. }
        | Order::Warn { .. }
        | Order::Tell { .. }
        | Order::Remove { .. }
        | Order::Locate { .. }
        | Order::Retire { .. } => None,
    });
    let reply = report.diagnostic.to_string();
    events::Outcome {
        id: &job.id,
        to: recipient.map_or("", |recipient| recipient.address.as_str()),
        result,
        destination: destination.name,
        site: Some(destination.site).filter(|site| *site != destination.name),
        host: report.remote.as_ref().map(|remote| &*remote.name),
        address: report.remote.as_ref().map(|remote| std::net::SocketAddr::new(remote.address, remote.port)),
        status: Some(&report.status),
        reply: &reply,
        tls: ended.tls,
        policy: ended.policy,
        attempt: job.number.into(),
        took: ended.took,
        delay,
        next,
    }
    .emit(ring::clock::unix_micros());
}

/// Whether the sender wants to hear of this success, and from us (RFC 3461 §5.2.2).
fn is_untold(envelope: Option<&Envelope>, place: u32, teller: Teller) -> bool {
    // Where the envelope is not at hand, whoever writes the report reads it.
    let Some(envelope) = envelope else { return teller != Teller::NextHop };
    let Some(recipient) = envelope.recipients.get(place as usize) else { return false };
    match teller {
        Teller::NextHop => false,
        Teller::We => recipient.notify.success,
        Teller::WeEach => report::wants_success(envelope, recipient),
    }
}

fn last(report: &Report) -> Last {
    Last {
        status: Some(report.status),
        host: report.remote.as_ref().map_or_else(Box::default, |remote| remote.name.clone()),
        text: report.diagnostic.to_string().into(),
    }
}
