//! Why something waits: which limit holds it, until when, and what set that.

use std::{collections::HashSet, rc::Rc, time::Duration};

use bridge::{Explained, Reason};
use delivery::{Routes, without_owner};
use mail::{QueueId, Timestamp};
use queue::{Cursor, Destination, Priority, SiteView, State};

use crate::{
    facts,
    retry::{self, Words},
    shard::Shard,
};

/// Sites that are looked at in one step.
const PAGE: usize = 1000;

/// Explains a message by its queue id, else a site or a destination by its name; nothing when it is not here.
pub(crate) async fn explain(shard: &Rc<Shard>, subject: &str) -> Vec<Explained> {
    match subject.parse::<QueueId>() {
        Ok(id) => message(shard, id).await,
        Err(_) => site(shard, subject),
    }
}

async fn message(shard: &Rc<Shard>, id: QueueId) -> Vec<Explained> {
    if shard.queue.borrow().message(id).is_none() {
        return Vec::new();
    }
    let envelope = shard.envelope(id).await.ok();
    let states = shard.queue.borrow().states(id).unwrap_or_default();
    let explained = |state: queue::RecipientState| {
        let recipient =
            envelope.as_ref().and_then(|envelope| envelope.recipients.get(state.recipient as usize));
        Explained {
            subject: recipient.map(|recipient| recipient.address.to_string()).unwrap_or_default(),
            shard: shard.number,
            reasons: recipient_reasons(
                shard,
                id,
                &state,
                recipient.map_or("", |recipient| recipient.address.domain_str()),
            ),
        }
    };
    states.into_iter().map(explained).collect()
}

fn site(shard: &Rc<Shard>, name: &str) -> Vec<Explained> {
    let mut sites: Vec<SiteView> = {
        let queue = shard.queue.borrow();
        queue.find_all(name).into_iter().filter_map(|found| queue.destination(found)?.site).collect()
    };
    // What is published about hosts, and asked of TLS, makes several of what is one to its limits.
    let mut next = Some(Cursor::default()).filter(|_| sites.is_empty());
    while let Some(cursor) = next {
        let page = shard.queue.borrow().list_sites(cursor, PAGE);
        next = page.next;
        sites.extend(page.items.into_iter().filter(|site| is_called(&site.name, name)));
    }
    // Where mail leaves from several sources, a destination has several lots, and some of them share a site.
    let mut seen = HashSet::new();
    sites.retain(|site| seen.insert(site.name.clone()));
    let explained = |site: SiteView| Explained {
        subject: site.name.to_string(),
        shard: shard.number,
        // What holds whoever is most urgent holds all.
        reasons: site_reasons(shard, &site, Priority::Urgent),
    };
    sites.into_iter().map(explained).collect()
}

/// Whether somebody who says this name may mean this site: by all that is in it, by what limits hold for, or whatever the source and
/// whosever the mail.
pub(crate) fn is_called(site: &str, name: &str) -> bool {
    let limit_key = Routes::limit_key(site);
    let plain = Routes::without_source(&limit_key);
    site == name || limit_key == name || plain == name || without_owner(&plain) == name
}

fn recipient_reasons(
    shard: &Rc<Shard>,
    id: QueueId,
    state: &queue::RecipientState,
    domain: &str,
) -> Vec<Reason> {
    let last = shard.last(id, state.recipient).map(|last| last.text);
    let reason = |cause: &str, text: String| Reason { cause: cause.into(), text, until: None, set_by: None };
    match state.state {
        State::Running => vec![reason("running", "an attempt is under way".into())],
        State::Held if is_held_by_route(shard, state.destination) => {
            let text = "its route holds mail until somebody comes for it, or a reload gives it another route";
            vec![Reason { set_by: Some("route.via".into()), ..reason("held", text.into()) }]
        }
        State::Held => {
            let text = "an operator holds it; `ringpost queue release` lets it go";
            vec![Reason { set_by: Some("an operator".into()), ..reason("held", text.into()) }]
        }
        State::Deferred => {
            let times = match state.attempts {
                0 => "it is not to be sent before (RFC 4865)".into(),
                1 => "one attempt has ended without success".to_owned(),
                more => format!("{more} attempts have ended without success"),
            };
            let plan = retry::remembered(shard, id, state, domain);
            let set_by = if state.attempts == 0 { "the sender".into() } else { retry::set_by(&plan) };
            let text = match &last {
                Some(last) => format!("{times}; the last time: {last}{}", Words(&plan)),
                None => format!("{times}{}", Words(&plan)),
            };
            vec![Reason { until: Some(state.due), set_by: Some(set_by), ..reason("deferred", text) }]
        }
        State::Ready => {
            let message = shard.queue.borrow().message(id);
            ready_reasons(
                shard,
                state.destination,
                message.map(|message| message.priority).unwrap_or_default(),
            )
        }
    }
}

fn is_held_by_route(shard: &Shard, destination: Destination) -> bool {
    shard.queue.borrow().name(destination).is_some_and(Routes::is_hold_key)
}

fn ready_reasons(shard: &Rc<Shard>, destination: Destination, priority: Priority) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut add = |cause: &str, text: String| {
        reasons.push(Reason { cause: cause.into(), text, until: None, set_by: None });
    };
    if let Some(progress) = shard.returning.progress() {
        add("returning", format!("what was queued before the start is tried when all is back: {progress}"));
    }
    let view = shard.queue.borrow().destination(destination).and_then(|found| found.site);
    match view {
        Some(site) => reasons.extend(site_reasons(shard, &site, priority)),
        None => add("sought", "its mail hosts are being looked up".into()),
    }
    reasons
}

fn site_reasons(shard: &Rc<Shard>, site: &SiteView, priority: Priority) -> Vec<Reason> {
    let now = facts::now();
    let mut reasons = Vec::new();
    if shard.is_stopping() {
        reasons.push(plain("stopping", "this server stops, and begins nothing any more".into()));
    } else if shard.journals.has_failed() {
        let text = "the journal has failed: what is delivered could not be written down; restart".into();
        reasons.push(plain("journal", text));
    }
    if let Some(until) = site.blocked_until.filter(|until| *until > now) {
        let text = format!(
            "{} could not be reached {} in a row; then one attempt probes it",
            site.name,
            if site.failures == 1 { "once".to_owned() } else { format!("{} times", site.failures) }
        );
        let set_by = Some("queue.destination-retry-min, -max".into());
        reasons.push(Reason { until: Some(until), set_by, ..plain("unreachable", text) });
    }
    reasons.extend(shard.hops.reasons(shard, &site.name));
    let limits = shard.settings().queue_limits;
    let running = shard.queue.borrow().counts().running;
    if site.attempts_max > 0 && site.attempts >= site.attempts_max {
        let text =
            format!("{} attempts are under way there: as many as its connections can take", site.attempts);
        reasons.push(plain("busy", text));
    } else if running >= u64::from(limits.attempts_max_of(priority)) {
        let kept = limits.attempts_max.saturating_sub(limits.attempts_max_of(priority));
        let text = match kept {
            0 => format!("{running} attempts are under way on this core"),
            kept => format!(
                "{running} attempts are under way on this core; {kept} places more are for more urgent mail"
            ),
        };
        reasons.push(Reason { set_by: Some("queue.attempts-max".into()), ..plain("core-busy", text) });
    }
    if reasons.is_empty() {
        reasons.push(plain("free", "nothing holds it".into()));
    }
    reasons
}

/// A reason of which no end is known.
pub(crate) fn plain(cause: &str, text: String) -> Reason {
    Reason { cause: cause.into(), text, until: None, set_by: None }
}

/// A moment of the process's clock, as people read it.
pub(crate) fn wall(at: Duration) -> Timestamp {
    facts::now().saturating_add(at.saturating_sub(ring::clock::now()))
}
