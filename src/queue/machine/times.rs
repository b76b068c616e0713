//! What time brings.

use std::time::Duration;

use mail::{QueueId, Timestamp};

use super::{IDLE, IDLE_DESTINATIONS_MAX, Queue, seconds_up};
use crate::{
    Kind, Order, Recipients, ReturnReason, State, Times, Warning, clock,
    group::{self, Tagged},
    site::Phase,
    slab::{Links, NIL},
};

impl Queue {
    /// A deferred group is due; it has left the wheel.
    pub(super) fn make_ready(&mut self, index: u32) {
        self.set_state(index, State::Ready);
        let priority = self.messages[self.groups[index].message].priority;
        self.destinations.push(&mut self.groups, priority, index);
    }

    /// Sets the next deadline of a message that is not in the wheel.
    pub(crate) fn arm(&mut self, index: u32, tick: u32) {
        let message = &self.messages[index];
        let give_up = self.clock.at(message.give_up_at());
        let due = match (message.warning, self.warn_tick(index)) {
            (Warning::Wanted, Some(warn)) if message.kind == Kind::Message => {
                // Overdue, because it was held or we were down: first let it be tried.
                let grace = self.schedule.grace.max(Duration::from_secs(1));
                let warn = if warn > tick { warn } else { clock::after(tick, grace) };
                warn.min(give_up)
            }
            (Warning::Wanted | Warning::Unwanted | Warning::Sent, _) => give_up,
        };
        self.messages[index].due = due;
        self.deadlines.insert(&mut self.messages, index);
    }

    /// Whether the sender should have been warned by now.
    pub(super) fn is_overdue(&self, index: u32, tick: u32) -> bool {
        let message = &self.messages[index];
        message.warning == Warning::Wanted
            && message.kind == Kind::Message
            && self.warn_tick(index).is_some_and(|warn| warn <= tick)
    }

    pub(super) fn warn_tick(&self, index: u32) -> Option<u32> {
        let times = self.times_of(index);
        if let Some(warn_at) = times.warn_at {
            return Some(self.clock.at(warn_at));
        }
        let after = self.schedule.warn_after?;
        let begin = times.release_at.max(Some(self.messages[index].received_at()))?;
        Some(self.clock.at(begin.saturating_add(after)))
    }

    pub(super) fn times_of(&self, index: u32) -> Times {
        self.times.get(&index).copied().unwrap_or_default()
    }

    pub(crate) fn release_tick(&self, index: u32) -> Option<u32> {
        self.times_of(index).release_at.map(|release| self.clock.at(release))
    }

    pub(super) fn is_expired(&self, index: u32, tick: u32) -> bool {
        self.times_of(index).return_at.is_some_and(|end| self.clock.at(end) <= tick)
    }

    /// Why a message is returned whose time is up.
    pub(super) fn end_reason(&self, index: u32, tick: u32) -> ReturnReason {
        if self.is_expired(index, tick) { ReturnReason::Expired } else { ReturnReason::GaveUp }
    }

    pub(crate) fn disarm(&mut self, index: u32) {
        if self.messages[index].links != Links::NONE {
            self.deadlines.remove(&mut self.messages, index);
        }
    }

    /// Sees to it that a message is tried for a while from now on before it is given up.
    pub(crate) fn extend_life(&mut self, index: u32, now: Timestamp) {
        let times = self.times_of(index);
        let message = &mut self.messages[index];
        let grace = self.schedule.grace.min(self.schedule.lifetime(message.kind));
        let begin = times.release_at.map_or(now, |release| release.max(now));
        message.give_up = message.give_up.max(seconds_up(begin.saturating_add(grace)));
        if let Some(end) = times.return_at {
            message.give_up = message.give_up.min(seconds_up(end));
        }
    }

    /// The warning or the give-up time of a message has come; it has left the wheel.
    pub(super) fn on_deadline(&mut self, index: u32, tick: u32, orders: &mut Vec<Order>) {
        if self.messages[index].groups == NIL {
            return self.retire_if_ended(index, orders); // Restored without a recipient.
        }
        let message = &self.messages[index];
        let id = QueueId::from_bits(message.id);
        let give_up = self.clock.at(message.give_up_at()) <= tick;
        let expired = give_up && self.is_expired(index, tick);
        let reason = self.end_reason(index, tick);
        let mut recipients = Vec::new();
        let mut next = message.groups;
        while next != NIL {
            let index = next;
            let group = &self.groups[index];
            next = group.sibling_after;
            // What is held stays; an attempt under way ends first.
            let meant = match group.state {
                State::Ready | State::Deferred => true,
                State::Running => !give_up,
                State::Held => expired,
            };
            if meant {
                recipients.extend(group::recipients(&self.nodes, group.recipients).map(Tagged::recipient));
                if give_up {
                    self.remove_group(index, tick);
                }
            }
        }
        if give_up {
            if !recipients.is_empty() {
                let recipients = Recipients::from(&*recipients);
                orders.push(Order::Return { id, recipients, reason });
            }
            self.retire_if_ended(index, orders);
            return;
        }
        if !recipients.is_empty() && self.is_overdue(index, tick) {
            self.messages[index].warning = Warning::Sent;
            orders.push(Order::Warn { id, recipients: Recipients::from(&*recipients) });
        }
        self.arm(index, tick);
    }

    /// A site is to be left alone no longer; it has left the wheel.
    pub(super) fn on_probe(&mut self, index: u32) {
        let site = &mut self.destinations.sites[index];
        if let Phase::Blocked(_) = site.phase {
            site.phase = Phase::Probing;
        }
        self.destinations.nominate(index);
        self.destinations.release_site(index);
    }

    /// Perhaps a destination has been unused for long enough; it has left the wheel.
    pub(super) fn on_idle_end(&mut self, index: u32, tick: u32) {
        let keep = self.idle_time();
        let destination = &self.destinations.slab[index];
        if !destination.is_idle() {
            return;
        }
        let end = clock::after(destination.idle_since, keep);
        if end > tick {
            self.set_idle_end(index, end);
        } else if destination.is_unused() {
            self.destinations.release(index);
        } else {
            self.set_idle_end(index, clock::after(tick, keep));
        }
    }

    /// Nothing is queued for a destination any more, or nothing yet.
    pub(super) fn on_idle(&mut self, index: u32, tick: u32) {
        let keep = self.idle_time();
        let destination = &mut self.destinations.slab[index];
        destination.idle_since = tick;
        // If it is in the wheel, its time is looked at again when that comes.
        if destination.links == Links::NONE {
            self.set_idle_end(index, clock::after(tick, keep));
        }
    }

    /// Sets when a destination that is not in the wheel is looked at.
    pub(super) fn set_idle_end(&mut self, index: u32, due: u32) {
        self.destinations.slab[index].due = due;
        self.idle.insert(&mut self.destinations.slab, index);
    }

    pub(super) fn idle_time(&self) -> Duration {
        if self.destinations.slab.len() > IDLE_DESTINATIONS_MAX { Duration::from_millis(100) } else { IDLE }
    }
}
