//! Queue events in, orders out.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use delivery::Routes;
use journal::{DelayNotice, Phase, RecipientState};
use mail::QueueId;
use queue::{Destination, Order, State, Warning};
use watch::events::Retired;

use crate::{
    facts, hops,
    journals::Note,
    locate,
    reports::{self, Written},
    shard::{Reporting, Shard},
};

/// Tells the queue that time has passed, for as long as the core lives.
pub(crate) async fn run(shard: Rc<Shard>) {
    // An upper bound on how long a change of the wall clock goes unnoticed.
    const SLEEP_MAX: Duration = Duration::from_secs(5);
    loop {
        let due = shard.due.wait();
        let now = facts::now();
        let mut orders = Vec::new();
        let wake = {
            let mut queue = shard.queue.borrow_mut();
            if !shard.is_stopping() && !shard.is_still() {
                queue.on_tick(now, &mut orders);
            }
            queue.wake_after(now)
        };
        follow(&shard, orders);
        let wait = wake.map_or(SLEEP_MAX, |at| at.saturating_since(now).min(SLEEP_MAX));
        if wait.is_zero() && !shard.is_stopping() && !shard.is_still() {
            ring::yield_now().await;
            continue;
        }
        // An accepted message may be due earlier than what we wait for.
        let _ = ring::timeout(wait.max(Duration::from_millis(1)), due).await;
    }
}

/// Does what the queue orders. What is to be written of a message that is being reported on waits for the report.
pub(crate) fn follow(shard: &Rc<Shard>, orders: Vec<Order>) {
    for order in orders {
        if let Order::Locate { destination } = order {
            locate::begin(shard, destination);
            continue;
        }
        // An attempt would keep its place among those of the queue while a full disk keeps the report waiting.
        let attempt = matches!(order, Order::Attempt { .. });
        if !attempt && let Some(reporting) = shard.reporting.borrow_mut().get_mut(&id_of(&order)) {
            reporting.waiting.push_back(order);
            continue;
        }
        match order {
            Order::Return { id, .. } | Order::Warn { id, .. } | Order::Tell { id, .. } => {
                let reporting = Reporting { order: order.clone(), waiting: VecDeque::new() };
                shard.reporting.borrow_mut().insert(id, reporting);
                ring::spawn(report(shard.clone(), order));
            }
            order @ (Order::Attempt { .. }
            | Order::Note { .. }
            | Order::Remove { .. }
            | Order::Retire { .. }) => {
                settle(shard, order);
            }
            Order::Locate { .. } => unreachable!("it was done above"),
        }
    }
}

/// Does an order that needs no report.
fn settle(shard: &Rc<Shard>, order: Order) {
    match order {
        Order::Attempt { attempt, id, destination, recipients, number } => {
            hops::assign(shard, hops::Job::new(shard, attempt, id, destination, recipients, number));
        }
        // All of them have ended while it waited.
        Order::Note { recipients, .. } if recipients.is_empty() => {}
        Order::Note { id, recipients, destination, state, attempts, due, category } => {
            let (route, pool) = (chosen(shard, destination), chosen_pool(shard, destination));
            let warning =
                shard.queue.borrow().message(id).map_or(Warning::Unwanted, |message| message.warning);
            let states = recipients.iter().map(|place| {
                let last = shard.last(id, *place);
                let phase = match state {
                    State::Ready | State::Running => Phase::Queued,
                    State::Deferred => Phase::Deferred,
                    State::Held => Phase::Held,
                };
                let delay_notice = notice(warning);
                let (attempts, route, pool) = (attempts.into(), route.clone(), pool.clone());
                (*place, RecipientState { phase, attempts, due, delay_notice, last, category, route, pool })
            });
            shard.note(id, Note::Transition(id, states.collect()));
            shard.forget_content(id);
        }
        Order::Remove { id, recipients } => note_end(shard, id, &recipients, Phase::Removed),
        Order::Retire { id } => retire(shard, id),
        Order::Return { .. } | Order::Warn { .. } | Order::Tell { .. } | Order::Locate { .. } => {
            unreachable!("`follow` gives them a task")
        }
    }
}

/// Writes a report, then does what was ordered of the same message meanwhile.
async fn report(shard: Rc<Shard>, first: Order) {
    let mut order = first;
    loop {
        let id = id_of(&order);
        match order {
            Order::Return { recipients, reason, .. } => {
                if reports::failed(&shard, id, &recipients, reason).await == Written::No {
                    // Nothing is noted, so that the restart finds them as they were.
                    return;
                }
                note_end(&shard, id, &recipients, Phase::Failed);
            }
            Order::Warn { recipients, .. } => {
                if reports::delayed(&shard, id, &recipients).await == Written::No {
                    return;
                }
                note_warned(&shard, id, &recipients);
            }
            Order::Tell { recipients, .. } => {
                if reports::delivered(&shard, id, &recipients).await == Written::No {
                    return;
                }
                note_end(&shard, id, &recipients, Phase::Delivered);
            }
            order @ (Order::Attempt { .. }
            | Order::Note { .. }
            | Order::Remove { .. }
            | Order::Retire { .. }) => {
                settle(&shard, order);
            }
            Order::Locate { .. } => unreachable!("it is about no message"),
        }
        let mut all = shard.reporting.borrow_mut();
        let reporting = all.get_mut(&id).expect("only this task ends it");
        let Some(next) = reporting.waiting.pop_front() else {
            all.remove(&id);
            return;
        };
        let (next, others) = still_true(shard.as_ref(), next);
        if let Some(others) = others {
            reporting.waiting.push_front(others);
        }
        order = next;
        reporting.order = order.clone();
    }
}

/// What has waited for a report, without those who have ended meanwhile: that is written already. Those who go elsewhere by
/// now than the first of them are another order.
fn still_true(shard: &Shard, order: Order) -> (Order, Option<Order>) {
    let Order::Note { id, recipients, destination, state, attempts, due, category } = order else {
        return (order, None);
    };
    let alive = shard.queue.borrow().states(id).unwrap_or_default();
    let destination_of = |place: u32| Some(alive.iter().find(|state| state.recipient == place)?.destination);
    let living: Vec<_> =
        recipients.iter().filter_map(|place| Some((*place, destination_of(*place)?))).collect();
    let first = living.first().map_or(destination, |(_, destination)| *destination);
    let note = |destination, recipients: &[u32]| {
        let recipients = recipients.into();
        Order::Note { id, recipients, destination, state, attempts, due, category }
    };
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        living.into_iter().partition(|(_, destination)| *destination == first);
    let places = |list: &[(u32, Destination)]| list.iter().map(|(place, _)| *place).collect::<Vec<_>>();
    let others = elsewhere.first().map(|(_, destination)| note(*destination, &places(&elsewhere)));
    (note(first, &places(&here)), others)
}

/// Whom an order returns to their sender: the queue has forgotten them.
pub(crate) fn returned(order: &Order) -> &[u32] {
    match order {
        Order::Return { recipients, .. } => recipients,
        Order::Attempt { .. }
        | Order::Note { .. }
        | Order::Warn { .. }
        | Order::Tell { .. }
        | Order::Remove { .. }
        | Order::Locate { .. }
        | Order::Retire { .. } => &[],
    }
}

/// Who has got the message, and whose sender an order is to tell: the queue has forgotten them.
pub(crate) fn told(order: &Order) -> &[u32] {
    match order {
        Order::Tell { recipients, .. } => recipients,
        Order::Attempt { .. }
        | Order::Note { .. }
        | Order::Warn { .. }
        | Order::Return { .. }
        | Order::Remove { .. }
        | Order::Locate { .. }
        | Order::Retire { .. } => &[],
    }
}

/// Notes that recipients have got the message, and that their sender is still to hear of it.
pub(crate) fn note_untold(shard: &Shard, id: QueueId, recipients: &[u32]) {
    let states = recipients.iter().map(|place| (*place, untold_state(shard, id, *place))).collect();
    shard.note(id, Note::Transition(id, states));
}

/// The state of a recipient whose sender is still to be told.
pub(crate) fn untold_state(shard: &Shard, id: QueueId, recipient: u32) -> RecipientState {
    RecipientState { phase: Phase::Untold, last: shard.last(id, recipient), ..RecipientState::default() }
}

/// Notes that recipients have ended.
pub(crate) fn note_end(shard: &Shard, id: QueueId, recipients: &[u32], phase: Phase) {
    let state = RecipientState { phase, ..RecipientState::default() };
    let states = recipients.iter().map(|place| (*place, state.clone())).collect();
    shard.note(id, Note::Transition(id, states));
}

fn note_warned(shard: &Shard, id: QueueId, recipients: &[u32]) {
    let queue = shard.queue.borrow();
    let warned = queue
        .states(id)
        .unwrap_or_default()
        .into_iter()
        .filter(|state| recipients.contains(&state.recipient))
        .map(|state| (state.recipient, journal_state(shard, id, &state, Warning::Sent)));
    shard.note(id, Note::Transition(id, warned.collect()));
}

/// The state of a recipient as the journal writes it.
pub(crate) fn journal_state(
    shard: &Shard,
    id: QueueId,
    state: &queue::RecipientState,
    warning: Warning,
) -> RecipientState {
    RecipientState {
        phase: match state.state {
            // An attempt that is under way at a crash is made again.
            State::Ready | State::Running => Phase::Queued,
            State::Deferred => Phase::Deferred,
            State::Held => Phase::Held,
        },
        attempts: state.attempts.into(),
        due: state.due,
        delay_notice: notice(warning),
        last: shard.last(id, state.recipient),
        category: state.category,
        route: chosen(shard, state.destination),
        pool: chosen_pool(shard, state.destination),
    }
}

/// The route by which an operator sends what goes there.
fn chosen(shard: &Shard, destination: Destination) -> Option<Box<str>> {
    shard.queue.borrow().name(destination).and_then(Routes::chosen_of_key).map(Into::into)
}

/// The pool that a reply has chosen for what goes there.
fn chosen_pool(shard: &Shard, destination: Destination) -> Option<Box<str>> {
    let lot = shard.queue.borrow().lot(destination).unwrap_or_default();
    shard.lots.pool(lot).map(|name| (&*name).into())
}

const fn notice(warning: Warning) -> DelayNotice {
    match warning {
        Warning::Sent => DelayNotice::Sent,
        Warning::Unwanted | Warning::Wanted => DelayNotice::Unsent,
    }
}

fn retire(shard: &Shard, id: QueueId) {
    if Retired::enabled() {
        let received_at = shard.contents.borrow().get(&id).map(|message| message.envelope.received_at);
        let delay = received_at.map(crate::shard::since);
        Retired { id: &id, delay }.emit(ring::clock::unix_micros());
    }
    shard.forget_content(id);
    shard.lasts.borrow_mut().remove(&id);
    shard.note(id, Note::Retired(id));
}

fn id_of(order: &Order) -> QueueId {
    match order {
        Order::Attempt { id, .. }
        | Order::Note { id, .. }
        | Order::Return { id, .. }
        | Order::Warn { id, .. }
        | Order::Tell { id, .. }
        | Order::Remove { id, .. }
        | Order::Retire { id } => *id,
        Order::Locate { .. } => unreachable!("it is about no message"),
    }
}
