//! What became of an attempt: told to the queue, the journal, the log and the metrics.

use std::{borrow::Cow, rc::Rc, sync::Arc, time::Duration};

use delivery::{Action, Diagnostic, Judgement, Outcome, Owner, Report, Routes, Teller};
use journal::{Last, Phase};
use mail::{Category, Envelope, Status};
use queue::Order;
use watch::{Category as CountedCategory, Outcome as Counted, events};

use crate::{
    consent, egress, facts,
    hops::Job,
    lots::Owned,
    reputation,
    retry::{self, Refused},
    schedule,
    shard::{Shard, since},
};

/// How an attempt ended.
pub(crate) struct Ended<'a> {
    /// Places in the envelope, and what became of each.
    pub(crate) outcomes: &'a [(u32, Outcome)],
    /// None where it was not even read.
    pub(crate) envelope: Option<&'a Envelope>,
    pub(crate) took: Duration,
    pub(crate) tls: Option<&'a str>,
    /// By which its protection was decided.
    pub(crate) policy: Option<&'a str>,
}

/// Tells everybody; answers what the rules say of each recipient who has not got it, with the reply, `None` for those who have.
pub(crate) fn end(
    shard: &Rc<Shard>,
    job: &Job,
    site: &str,
    ended: &Ended<'_>,
) -> Vec<(Option<Judgement>, String)> {
    // Of most the site is named as they are.
    let other_name = |name: &&str| *name != site;
    let name: Option<Box<str>> =
        shard.queue.borrow().name(job.destination).filter(other_name).map(Into::into);
    let limit_key = Routes::limit_key(site);
    let destination = Whereto { name: name.as_deref().unwrap_or(site), site: &limit_key };
    let now = facts::now();
    shard.metrics.delivery.attempt.record_duration(ended.took);
    let lot = shard.queue.borrow().lot(job.destination).unwrap_or_default();
    let left_from = shard.lots.pool(lot);
    let owned = Owned::of(shard, &shard.settings(), job.destination);
    let judged =
        |(place, outcome)| judge(shard, ended, (place, outcome), (owned.owner(), left_from.as_deref()));
    let mut outcomes: Vec<_> =
        ended.outcomes.iter().map(|(place, outcome)| judged((*place, outcome))).collect();
    let mut told = Vec::with_capacity(outcomes.len());
    let (mut delivered, mut untold) = (Vec::new(), Vec::new());
    for Judged { place, outcome, judgement, retry } in &mut outcomes {
        let outcome_for_queue = match &**outcome {
            Outcome::Delivered(_, teller) if is_untold(ended.envelope, *place, *teller) => {
                shard.remember_last(job.id, *place, last(outcome));
                untold.push(*place);
                queue::Outcome::Untold
            }
            Outcome::Delivered(..) => {
                delivered.push(*place);
                queue::Outcome::Delivered
            }
            Outcome::Deferred(report) => {
                shard.remember_last(job.id, *place, last(outcome));
                let judged = (report, judgement.as_ref());
                let deferral = deferral(shard, job, ended, (*place, destination, owned.owner()), judged);
                *retry = deferral.1;
                queue::Outcome::Deferred(deferral.0)
            }
            Outcome::Failed(_) => {
                shard.remember_last(job.id, *place, last(outcome));
                if let (Some(judgement), Some(envelope)) = (&judgement, ended.envelope) {
                    reputation::on_failed(shard, envelope, judgement.category);
                }
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
    let to_pools = outcomes.iter().filter_map(|Judged { place, outcome, judgement, .. }| {
        let pool = judgement.as_ref()?.pool.clone().filter(|_| matches!(**outcome, Outcome::Deferred(_)))?;
        Some((*place, pool)).filter(|(_, pool)| left_from.as_deref() != Some(pool))
    });
    egress::move_to(shard, job, &to_pools.collect::<Vec<_>>(), &mut orders);
    for judged in &outcomes {
        note(shard, job, destination, ended, judged, &orders);
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
    let words = |judged: Judged<'_>| match judged.judgement {
        None => (None, String::new()),
        Some(judgement) => (Some(judgement), judged.outcome.report().diagnostic.to_string()),
    };
    outcomes.into_iter().map(words).collect()
}

/// What became of a recipient, and what it is about.
struct Judged<'a> {
    place: u32,
    /// As the next hop said, or as a rule has it.
    outcome: Cow<'a, Outcome>,
    /// None of a success, which nobody asks about.
    judgement: Option<Judgement>,
    /// The rule that has set when it is tried again.
    retry: Option<Arc<str>>,
}

/// Asks the rules about whatever is no success. What they advise for the site is in the judgement.
fn judge<'a>(
    shard: &Shard,
    ended: &Ended<'_>,
    (place, outcome): (u32, &'a Outcome),
    (owner, left_from): (Owner<'_>, Option<&str>),
) -> Judged<'a> {
    if matches!(outcome, Outcome::Delivered(..)) {
        return Judged { place, outcome: Cow::Borrowed(outcome), judgement: None, retry: None };
    }
    let recipient = ended.envelope.and_then(|envelope| envelope.recipients.get(place as usize));
    let domain = recipient.map_or("", |recipient| recipient.address.domain_str());
    let judgement = shard.settings().reply_rules.judge(outcome, domain, owner);
    let instead = judgement.as_ref().and_then(|judgement| judgement.instead(outcome, left_from));
    let outcome = instead.map_or(Cow::Borrowed(outcome), Cow::Owned);
    Judged { place, outcome, judgement, retry: None }
}

/// How the queue is told of a deferral, and the rule that has set when it is tried again.
fn deferral(
    shard: &Shard,
    job: &Job,
    ended: &Ended<'_>,
    (place, to, owner): (u32, Whereto<'_>, Owner<'_>),
    (report, judgement): (&Report, Option<&Judgement>),
) -> (queue::Deferral, Option<Arc<str>>) {
    let Some(judgement) = judgement else { return (report.status.into(), None) };
    let recipient = ended.envelope.and_then(|envelope| envelope.recipients.get(place as usize));
    let text = report.diagnostic.to_string();
    let plan = retry::plan(
        shard,
        &Refused {
            id: job.id,
            owner,
            key: to.name,
            site: to.site,
            domain: recipient.map_or("", |recipient| recipient.address.domain_str()),
            judgement,
            status: Some(report.status),
            text: &text,
            attempts: job.number,
        },
    );
    shard.metrics.queue.retries.of(retry::counted(plan.wait)).add(1);
    let (category, wait) = (Some(judgement.category), retry::wait(plan.wait));
    let deferral = queue::Deferral { status: report.status, category, wait, give_up: plan.give_up };
    (deferral, retry::rule_name(&plan))
}

/// Ends an attempt that was not made: all its recipients get this outcome.
pub(crate) fn end_unattempted(shard: &Rc<Shard>, job: Job, outcome: &Outcome) {
    let envelope = shard.contents.borrow().get(&job.id).map(|message| message.envelope.clone());
    end_with(shard, &job, envelope.as_deref(), outcome);
}

/// As [`end_unattempted`], with the envelope.
pub(crate) fn end_with(shard: &Rc<Shard>, job: &Job, envelope: Option<&Envelope>, outcome: &Outcome) {
    let outcomes: Vec<_> = job.recipients.iter().map(|place| (*place, outcome.clone())).collect();
    let name: Box<str> = shard.queue.borrow().name(job.destination).map_or_else(Box::default, Into::into);
    let ended = Ended { outcomes: &outcomes, envelope, took: Duration::ZERO, tls: None, policy: None };
    end(shard, job, &name, &ended);
}

/// Our own words for something that may be better later.
pub(crate) fn deferred(status: Status, text: &str) -> Outcome {
    Outcome::Deferred(Report { status, remote: None, diagnostic: Diagnostic::Text(text.into()), stage: None })
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
    judged: &Judged<'_>,
    orders: &[Order],
) {
    let Judged { place, outcome, judgement, retry } = judged;
    let (place, outcome) = (*place, &**outcome);
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
    if let Some(judgement) = judgement {
        count(shard, outcome, judgement.category);
    }
    let report = outcome.report();
    let recipient = ended.envelope.and_then(|envelope| envelope.recipients.get(place as usize));
    if let (Outcome::Failed(report), Some(Judgement { category, .. })) = (outcome, judgement)
        && let (Some(envelope), Some(recipient)) = (ended.envelope, recipient)
    {
        consent::failed(shard, job.id, envelope, &recipient.address, (*category, report));
    }
    if let Some(Judgement { category, rule: Some(rule), action: Action::Alarm, .. }) = judgement {
        events::Alarmed {
            id: &job.id,
            to: recipient.map_or("", |recipient| recipient.address.as_str()),
            destination: destination.name,
            host: report.remote.as_ref().map(|remote| &*remote.name),
            rule,
            category: category.word(),
            reply: &report.diagnostic.to_string(),
        }
        .emit(ring::clock::unix_micros());
    }
    if !events::Outcome::enabled() {
        return;
    }
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
    let (reply, site) = (report.diagnostic.to_string(), Routes::without_source(destination.site));
    events::Outcome {
        id: &job.id,
        to: recipient.map_or("", |recipient| recipient.address.as_str()),
        result,
        destination: destination.name,
        site: Some(&*site).filter(|site| **site != *destination.name),
        campaign: ended.envelope.and_then(|envelope| envelope.handling.campaign.as_deref()),
        source: Routes::source_of_key(destination.site),
        host: report.remote.as_ref().map(|remote| &*remote.name),
        address: report.remote.as_ref().and_then(|remote| remote.socket_address()),
        status: Some(&report.status),
        reply: &reply,
        category: judgement.as_ref().map(|judgement| judgement.category.word()),
        rule: judgement.as_ref().and_then(|judgement| judgement.rule.as_deref()),
        retry: retry.as_deref(),
        tls: ended.tls,
        policy: ended.policy,
        attempt: job.number.into(),
        took: ended.took,
        delay,
        next,
    }
    .emit(ring::clock::unix_micros());
}

fn count(shard: &Shard, outcome: &Outcome, category: Category) {
    let metrics = &shard.metrics.delivery;
    let family = match outcome {
        Outcome::Delivered(..) => return,
        Outcome::Deferred(_) => &metrics.deferred,
        Outcome::Failed(_) => &metrics.failed,
    };
    family.of(counted(category)).one();
}

/// As the metrics have it.
pub(crate) const fn counted(category: Category) -> CountedCategory {
    match category {
        Category::BadMailbox => CountedCategory::BadMailbox,
        Category::InactiveMailbox => CountedCategory::InactiveMailbox,
        Category::Quota => CountedCategory::Quota,
        Category::BadDomain => CountedCategory::BadDomain,
        Category::Dns => CountedCategory::Dns,
        Category::Connection => CountedCategory::Connection,
        Category::Tls => CountedCategory::Tls,
        Category::SpamContent => CountedCategory::SpamContent,
        Category::SpamReputation => CountedCategory::SpamReputation,
        Category::Authentication => CountedCategory::Authentication,
        Category::Policy => CountedCategory::Policy,
        Category::Rate => CountedCategory::Rate,
        Category::Greylisted => CountedCategory::Greylisted,
        Category::TooLarge => CountedCategory::TooLarge,
        Category::Protocol => CountedCategory::Protocol,
        Category::MessageFormat => CountedCategory::MessageFormat,
        Category::Relaying => CountedCategory::Relaying,
        Category::Loop => CountedCategory::Loop,
        Category::Expired => CountedCategory::Expired,
        Category::AutoReply => CountedCategory::AutoReply,
        Category::System => CountedCategory::System,
        Category::Suppressed => CountedCategory::Suppressed,
        Category::Other => CountedCategory::Other,
    }
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

fn last(outcome: &Outcome) -> Last {
    let report = outcome.report();
    // A report names no host where the mail does not leave this one, nor where it has come to its end.
    let is_there = matches!(outcome, Outcome::Delivered(..));
    let named = report
        .remote
        .as_ref()
        .filter(|remote| remote.socket_address().is_some() && !(remote.is_final && is_there));
    Last {
        status: Some(report.status),
        host: named.map_or_else(Box::default, |remote| remote.name.clone()),
        text: report.diagnostic.to_string().into(),
    }
}
