//! Notifications to senders: written, made durable and queued like any other mail.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use journal::Last;
use mail::{DeliverByMode, Envelope, QueueId, Status};
use queue::ReturnReason;
use report::{Diagnostic, Facts, Limits, Outcome, RecipientFacts};
use watch::{Dsn, events::Returned};

use crate::{
    authenticity, facts, retry,
    shard::{self, Arrived, Hold, Keep, Message, Shard},
};

/// Whether a report that is due is kept safe, or nobody wants one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Yes,
    /// The core stops first: after the restart it is due again.
    No,
}

/// Tells the sender of recipients who will not get the message.
pub(crate) async fn failed(
    shard: &Rc<Shard>,
    id: QueueId,
    recipients: &[u32],
    reason: ReturnReason,
) -> Written {
    let report = |_: &Message, _: u32, _: Option<&Last>| Outcome::Failed;
    // "Delivery time expired" (RFC 3463 §3.5), where the attempts left nothing better to say.
    let status = |_: &Message, last: Option<Status>| match reason {
        ReturnReason::Failed => last.unwrap_or(Status(5, 0, 0)),
        ReturnReason::GaveUp => last.unwrap_or(Status(4, 4, 7)),
        // Whatever the attempts met, it is the sender's own time that is up (RFC 2852 §4.1.3).
        ReturnReason::Expired => Status(5, 4, 7),
    };
    write(shard, id, recipients, (Dsn::Failed, "failed"), status, report).await
}

/// Tells the sender of recipients who have not got the message yet.
pub(crate) async fn delayed(shard: &Rc<Shard>, id: QueueId, recipients: &[u32]) -> Written {
    let states = shard.queue.borrow().states(id).unwrap_or_default();
    let report = |message: &Message, place: u32, _: Option<&Last>| {
        let Envelope { received_at, handling, .. } = &*message.envelope;
        let begin = handling.hold_until.map_or(*received_at, |release| release.max(*received_at));
        let lifetime = shard.settings().schedule.give_up;
        // Where its kind of refusal has an end of its own, it is tried once more then.
        let state = states.iter().find(|state| state.recipient == place);
        let sooner =
            state.zip(message.envelope.recipients.get(place as usize)).and_then(|(state, recipient)| {
                let give_up = retry::remembered(shard, id, state, recipient.address.domain_str()).give_up?;
                Some((begin.saturating_add(give_up)).max(state.due))
            });
        let retry_until = begin.saturating_add(lifetime);
        let retry_until = sooner.map_or(retry_until, |sooner| sooner.min(retry_until));
        let end = shard::times(handling, *received_at).return_at;
        Outcome::Delayed { retry_until: end.map_or(retry_until, |end| end.min(retry_until)) }
    };
    let status = |message: &Message, last: Option<Status>| {
        let by = message.envelope.handling.deliver_by;
        let late = by.is_some_and(|by| by.mode == DeliverByMode::Notify && by.deadline <= facts::now());
        // `a "delayed" DSN with status 4.4.7`, whatever the attempts met (RFC 2852 §4.1.3).
        last.filter(|_| !late).unwrap_or(Status(4, 4, 7))
    };
    write(shard, id, recipients, (Dsn::Delayed, "delayed"), status, report).await
}

/// Tells the sender of recipients who have got the message, as far as we know and nobody behind us tells.
pub(crate) async fn delivered(shard: &Rc<Shard>, id: QueueId, recipients: &[u32]) -> Written {
    // Without a host, it ended here (RFC 3464 §2.3.3).
    let report = |_: &Message, _: u32, last: Option<&Last>| match last {
        Some(last) if last.host.is_empty() => Outcome::Delivered,
        Some(_) | None => Outcome::Relayed,
    };
    write(
        shard,
        id,
        recipients,
        (Dsn::Delivered, "delivered"),
        |_, last| last.unwrap_or(Status(2, 0, 0)),
        report,
    )
    .await
}

async fn write(
    shard: &Rc<Shard>,
    id: QueueId,
    places: &[u32],
    (kind, label): (Dsn, &'static str),
    status: impl Fn(&Message, Option<Status>) -> Status,
    outcome: impl Fn(&Message, u32, Option<&Last>) -> Outcome,
) -> Written {
    let message = match shard.message(id).await {
        Ok(message) => message,
        Err(error) => {
            tracing::error!(%id, %error, "a message that is to be returned cannot be read");
            return Written::Yes;
        }
    };
    let report_id = shard.journals.active().next_id();
    let lasts: Vec<_> = places.iter().map(|place| shard.last(id, *place)).collect();
    let now = facts::now();
    let recipients: Vec<_> = places
        .iter()
        .zip(&lasts)
        .filter_map(|(place, last)| {
            let recipient = message.envelope.recipients.get(*place as usize)?;
            let remote_mta = last.as_ref().map(|last| &*last.host).filter(|host| !host.is_empty());
            let diagnostic = last.as_ref().map(|last| match remote_mta {
                Some(_) if starts_with_code(&last.text) => Diagnostic::Smtp(last.text.as_bytes()),
                Some(_) | None => Diagnostic::Local(&last.text),
            });
            Some(RecipientFacts {
                recipient,
                outcome: outcome(&message, *place, last.as_ref()),
                status: status(&message, last.as_ref().and_then(|last| last.status)),
                remote_mta,
                diagnostic,
                last_attempt: last.as_ref().map(|_| now),
            })
        })
        .collect();
    let settings = shard.settings();
    let told = Facts {
        report_id,
        message_id: id,
        host: &settings.hostname,
        now,
        envelope: &message.envelope,
        recipients: &recipients,
    };
    let report = match report::dsn(&told, &message.content, &Limits::default()) {
        Ok(report) => report,
        Err(error) => {
            tracing::error!(%id, %error, "a report cannot be written");
            None
        }
    };
    let report_id = report.as_ref().map(|_| report_id);
    if let Some(report) = report
        && store(shard, report_id.unwrap_or(id), report).await == Written::No
    {
        return Written::No;
    }
    if report_id.is_some() {
        shard.metrics.delivery.dsns.of(kind).one();
    }
    for recipient in &recipients {
        let report: Option<&dyn std::fmt::Display> = report_id.as_ref().map(|id| id as _);
        Returned { id: &id, to: recipient.recipient.address.as_str(), kind: label, report }
            .emit(ring::clock::unix_micros());
    }
    Written::Yes
}

/// Makes the report durable; a full disk is waited for, since the report must not be lost.
async fn store(shard: &Rc<Shard>, id: QueueId, report: report::Report) -> Written {
    const PAUSE: Duration = Duration::from_secs(10);
    let envelope = Rc::new(report.envelope);
    let mut content = report.content;
    content.splice(..0, authenticity::sign_own(shard, id, &content).await);
    let size = content.iter().map(Bytes::len).sum::<usize>() as u64;
    loop {
        let arrived = Arrived {
            id,
            envelope: envelope.clone(),
            size,
            draft: None,
            content: content.clone(),
            keep: Keep::WhileRoom,
            hold: Hold::No,
        };
        match shard.take_over(arrived).await {
            Ok(()) => return Written::Yes,
            Err(_) if shard.is_stopping() => return Written::No,
            Err(refusal) => {
                tracing::warn!(%id, reason = refusal.label(), "a report waits for storage");
                let changed = shard.changed.wait();
                let _ = ring::timeout(PAUSE, changed).await;
            }
        }
    }
}

fn starts_with_code(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 3 && bytes[..3].iter().all(u8::is_ascii_digit)
}
