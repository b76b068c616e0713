//! Attempts: how they begin, and what becomes of their recipients.

use std::mem;

use mail::{QueueId, Timestamp};

use super::{End, Queue, Standing};
use crate::{
    AttemptId, Deferral, Destination, Order, Outcome, Recipients, ReturnReason, State,
    clock::{self, NEVER},
    group::{self, Group, Tagged},
    slab::{Links, NIL},
};

/// Recipients of an ended attempt by what becomes of them. Kept to save allocations.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// Of each why, when it is said.
    kept: Vec<(Option<Deferral>, u32)>,
    held: Vec<u32>,
    untold: Vec<u32>,
    failed: Vec<u32>,
    removed: Vec<u32>,
    /// Those of `kept` that are deferred alike.
    places: Vec<u32>,
    /// Why the last of those who are held was deferred.
    last: Option<Deferral>,
}

impl Queue {
    /// Begins attempts as long as one may begin.
    pub(crate) fn dispatch(&mut self, orders: &mut Vec<Order>) {
        let tick = self.clock.tick();
        while let classes @ 1.. = self.limits.classes_beside(self.attempts) {
            let Some(index) = self.destinations.next(classes, tick) else { break };
            let priority = self.messages[self.groups[index].message].priority;
            self.destinations.unlink(&mut self.groups, priority, index);
            self.set_state(index, State::Running);
            orders.push(self.begin_attempt(index));
            self.destinations.enlist(self.groups[index].destination);
        }
        if self.limits.attempts_max == 0 {
            // Whoever stands still does not look, either.
            return;
        }
        let sought = self.destinations.sought.drain(..);
        orders.extend(sought.map(|destination| Order::Locate { destination: Destination(destination) }));
    }

    /// The attempt of a group that is running from here on.
    pub(crate) fn begin_attempt(&mut self, index: u32) -> Order {
        let group = &self.groups[index];
        let destination = group.destination;
        let order = Order::Attempt {
            attempt: AttemptId(index),
            id: QueueId::from_bits(self.messages[group.message].id),
            destination: Destination(destination),
            recipients: self.recipients(group.recipients),
            number: group.attempts.saturating_add(1),
        };
        self.attempts += 1;
        let destination = &mut self.destinations.slab[destination];
        destination.attempts += 1;
        // What is held may be called for before anybody has asked where it goes.
        if destination.site != NIL {
            self.destinations.sites[destination.site].attempts += 1;
        }
        order
    }

    pub(super) fn end_attempt(
        &mut self,
        AttemptId(index): AttemptId,
        outcomes: &[(u32, Outcome)],
        end: End,
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) {
        let tick = self.clock.now(now);
        let group = self.groups.get(index).filter(|group| group.state == State::Running);
        let Group { message, destination, attempts, status, .. } =
            *group.expect("an attempt ended that was not under way");
        let mut sorted = mem::take(&mut self.sorted);
        sorted.fill(group::recipients(&self.nodes, self.groups[index].recipients), outcomes);
        self.attempts -= 1;
        let record = &mut self.destinations.slab[destination];
        record.attempts -= 1;
        let site = record.site;
        if site != NIL {
            let site = &mut self.destinations.sites[site];
            site.attempts -= 1;
            if end == End::Attempted {
                site.on_attempted(outcomes);
            }
        }
        if end == End::Postponed {
            self.destinations.give_back(destination, self.messages[message].priority);
        }
        self.remove_group(index, tick);

        let id = QueueId::from_bits(self.messages[message].id);
        let attempts = attempts.saturating_add(u16::from(end == End::Attempted));
        let standing = |deferral: Option<Deferral>| Standing {
            destination,
            state: State::Held,
            attempts,
            due: tick,
            status: deferral.map_or_else(|| status.get(), |deferral| Some(deferral.status)),
            category: deferral.map_or_else(|| status.category(), |deferral| deferral.category),
        };
        if !sorted.untold.is_empty() {
            orders.push(Order::Tell { id, recipients: Recipients::from(&*sorted.untold) });
        }
        if !sorted.failed.is_empty() {
            let recipients = Recipients::from(&*sorted.failed);
            orders.push(Order::Return { id, recipients, reason: ReturnReason::Failed });
        }
        if !sorted.removed.is_empty() {
            orders.push(Order::Remove { id, recipients: Recipients::from(&*sorted.removed) });
        }
        if !sorted.held.is_empty() {
            let standing = standing(sorted.last);
            self.add_group(message, &standing, &sorted.held);
            self.note(id, &sorted.held, &standing, orders);
        }
        // Nearly always all of them are deferred for the same reason.
        sorted.kept.sort_unstable();
        for alike in sorted.kept.chunk_by(|(one, _), (other, _)| one == other) {
            let deferral = alike[0].0;
            sorted.places.clear();
            sorted.places.extend(alike.iter().map(|(_, place)| *place));
            self.keep(message, standing(deferral), deferral, &sorted.places, end, orders);
        }
        // Its deadline came during the attempt, and the clock was set back after that.
        if !sorted.kept.is_empty()
            && self.messages[message].groups != NIL
            && self.messages[message].links == Links::NONE
        {
            self.arm(message, tick);
        }
        self.sorted = sorted;
        self.destinations.enlist(destination);
        // Where it goes may be being asked for; others there need not wait for that.
        self.destinations.nominate(site);
        self.retire_if_ended(message, orders);
    }

    /// What becomes of recipients who have not got the message, and may yet.
    pub(super) fn keep(
        &mut self,
        message: u32,
        mut standing: Standing,
        deferral: Option<Deferral>,
        places: &[u32],
        end: End,
        orders: &mut Vec<Order>,
    ) {
        let (id, tick) = (QueueId::from_bits(self.messages[message].id), self.clock.tick());
        let give_up_at = self.clock.at(self.messages[message].give_up_at());
        let sooner = deferral.and_then(|deferral| deferral.give_up).map(|time| {
            let message_at = self.messages[message].received_at();
            let begin =
                self.times_of(message).release_at.map_or(message_at, |release| release.max(message_at));
            self.clock.at(begin.saturating_add(time))
        });
        if give_up_at <= tick || sooner.is_some_and(|sooner| sooner <= tick) {
            let reason = self.end_reason(message, tick);
            orders.push(Order::Return { id, recipients: Recipients::from(places), reason });
        } else if end == End::Attempted {
            let wait = deferral.map(|deferral| deferral.wait).unwrap_or_default();
            let wait = self.schedule.wait_of(wait, standing.attempts, id, self.seed);
            standing.state = State::Deferred;
            standing.due = clock::after(tick, wait).min(sooner.unwrap_or(NEVER));
            self.add_group(message, &standing, places);
            self.note(id, places, &standing, orders);
        } else {
            standing.state = State::Running;
            let group = self.add_group(message, &standing, places);
            self.set_state(group, State::Ready);
            let priority = self.messages[message].priority;
            self.destinations.push_front(&mut self.groups, priority, group);
        }
    }

    pub(crate) fn note(&self, id: QueueId, recipients: &[u32], standing: &Standing, orders: &mut Vec<Order>) {
        orders.push(Order::Note {
            id,
            recipients: recipients.into(),
            destination: Destination(standing.destination),
            state: standing.state,
            attempts: standing.attempts,
            due: self.clock.time(standing.due),
            category: standing.category,
        });
    }
}

impl Sorted {
    pub(super) fn fill(&mut self, recipients: impl Iterator<Item = Tagged>, outcomes: &[(u32, Outcome)]) {
        self.kept.clear();
        for list in [&mut self.held, &mut self.untold, &mut self.failed, &mut self.removed] {
            list.clear();
        }
        self.last = None;
        for (i, tagged) in recipients.enumerate() {
            let place = tagged.recipient();
            // Outcomes nearly always come in the order of the recipients.
            let outcome = outcomes.get(i).filter(|(other, _)| *other == place);
            let outcome = outcome.or_else(|| outcomes.iter().find(|(other, _)| *other == place));
            match outcome.map(|(_, outcome)| *outcome) {
                Some(Outcome::Delivered) => {}
                Some(Outcome::Untold) => self.untold.push(place),
                Some(_) | None if tagged.has(Tagged::REMOVE) => self.removed.push(place),
                Some(Outcome::Failed) => self.failed.push(place),
                outcome @ (Some(Outcome::Deferred(_)) | None) => {
                    let deferral = match outcome {
                        Some(Outcome::Deferred(deferral)) => Some(deferral),
                        Some(Outcome::Delivered | Outcome::Untold | Outcome::Failed) | None => None,
                    };
                    if tagged.has(Tagged::HOLD) {
                        self.held.push(place);
                        self.last = deferral.or(self.last);
                    } else {
                        self.kept.push((deferral, place));
                    }
                }
            }
        }
    }
}
