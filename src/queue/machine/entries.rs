//! Messages and groups in their slabs.

use std::mem;

use mail::QueueId;

use super::{Queue, Standing, seconds, seconds_up};
use crate::{
    MessageState, Order, Recipients, State, Times,
    group::{self, Group, Message, Node, PackedStatus, Tagged, Vacant},
    slab::{Links, NIL},
};

impl Queue {
    pub(super) fn add_message(&mut self, state: &MessageState) -> u32 {
        let MessageState { id, received_at, size, priority, kind, warning, give_up_at, times } = *state;
        let begin = times.release_at.map_or(received_at, |release| release.max(received_at));
        let give_up = give_up_at.unwrap_or_else(|| begin.saturating_add(self.schedule.lifetime(kind)));
        let give_up = times.return_at.map_or(give_up, |end| end.min(give_up));
        let received = seconds(received_at);
        let message = self.messages.insert(Message {
            id: id.to_bits(),
            received,
            give_up: seconds_up(give_up),
            size: u32::try_from(size).unwrap_or(u32::MAX),
            groups: NIL,
            links: Links::NONE,
            due: 0,
            priority,
            kind,
            warning,
            vacant: Vacant::No,
        });
        if times != Times::default() {
            self.times.insert(message, times);
        }
        self.ids.insert(&self.messages, id.to_bits(), message);
        self.ages.insert(received);
        message
    }

    /// Makes groups of what stands alike, none larger than an attempt may be.
    pub(crate) fn add_groups(&mut self, message: u32, mut list: Vec<(Standing, u32)>) {
        list.sort_unstable();
        let mut places = Vec::with_capacity(list.len());
        for alike in list.chunk_by(|(one, _), (other, _)| one == other) {
            for part in alike.chunks(self.limits.recipients_per_attempt_max.max(1)) {
                places.clear();
                places.extend(part.iter().map(|(_, place)| *place));
                self.add_group(message, &part[0].0, &places);
            }
        }
    }

    /// Makes a group, and puts it where its state says.
    pub(crate) fn add_group(&mut self, message: u32, standing: &Standing, recipients: &[u32]) -> u32 {
        let Standing { destination, state, attempts, due, status, category } = *standing;
        let recipients = self.add_recipients(recipients);
        let sibling_after = self.messages[message].groups;
        let index = self.groups.insert(Group {
            message,
            sibling_before: NIL,
            sibling_after,
            destination,
            links: Links::NONE,
            due,
            recipients: recipients.0,
            status: PackedStatus::new(status, category),
            attempts,
            state,
        });
        if sibling_after != NIL {
            self.groups[sibling_after].sibling_before = index;
        }
        self.messages[message].groups = index;
        let is_ours = self.destinations.slab.get(destination).is_some();
        assert!(is_ours, "a recipient for a destination that is not ours");
        self.counts[state as usize] += u64::from(recipients.1);
        *self.destinations.slab[destination].count_mut(state) += recipients.1;
        match state {
            State::Ready => {
                self.destinations.push(&mut self.groups, self.messages[message].priority, index);
            }
            State::Deferred => self.retries.insert(&mut self.groups, index),
            State::Running | State::Held => {}
        }
        index
    }

    /// Takes a group out of everything. Its message may be left without any.
    pub(crate) fn remove_group(&mut self, index: u32, tick: u32) {
        let (message, state) = (self.groups[index].message, self.groups[index].state);
        match state {
            State::Ready => {
                self.destinations.unlink(&mut self.groups, self.messages[message].priority, index);
            }
            State::Deferred => self.retries.remove(&mut self.groups, index),
            State::Running | State::Held => {}
        }
        let group = self.groups.remove(index);
        match group.sibling_before {
            NIL => self.messages[message].groups = group.sibling_after,
            before => self.groups[before].sibling_after = group.sibling_after,
        }
        if group.sibling_after != NIL {
            self.groups[group.sibling_after].sibling_before = group.sibling_before;
        }
        let recipients = self.remove_recipients(group.recipients);
        self.counts[state as usize] -= u64::from(recipients);
        let destination = &mut self.destinations.slab[group.destination];
        *destination.count_mut(state) -= recipients;
        if destination.is_idle() {
            self.on_idle(group.destination, tick);
        }
    }

    /// Forgets a message whose recipients have all ended.
    pub(crate) fn retire_if_ended(&mut self, index: u32, orders: &mut Vec<Order>) {
        if self.messages[index].groups != NIL {
            return;
        }
        self.disarm(index);
        let id = self.messages[index].id;
        self.ids.remove(id, index);
        self.times.remove(&index);
        let message = self.messages.remove(index);
        self.ages.remove(message.received);
        orders.push(Order::Retire { id: QueueId::from_bits(id) });
    }

    /// Recounts a group's recipients under another state. Lists are the caller's affair.
    pub(super) fn set_state(&mut self, index: u32, state: State) {
        let group = &mut self.groups[index];
        let old = mem::replace(&mut group.state, state);
        let recipients = group::recipients(&self.nodes, group.recipients).count() as u32;
        self.counts[old as usize] -= u64::from(recipients);
        self.counts[state as usize] += u64::from(recipients);
        let destination = &mut self.destinations.slab[group.destination];
        *destination.count_mut(old) -= recipients;
        *destination.count_mut(state) += recipients;
    }

    /// Recipients as a group keeps them, and how many they are.
    pub(super) fn add_recipients(&mut self, recipients: &[u32]) -> (Tagged, u32) {
        assert!(recipients.iter().all(|recipient| *recipient < Tagged::END), "a place of 2^29 or more");
        if let [one] = recipients {
            return (Tagged(one | Tagged::SINGLE), 1);
        }
        let mut first = NIL;
        for recipient in recipients.iter().rev() {
            first = self.nodes.insert(Node { recipient: Tagged(*recipient), after: first });
        }
        let first = if first == NIL { Tagged::NOBODY } else { Tagged(first) };
        (first, recipients.len() as u32)
    }

    pub(super) fn remove_recipients(&mut self, first: Tagged) -> u32 {
        if first.has(Tagged::SINGLE) {
            return 1;
        }
        let (mut next, mut count) = (first.0, 0);
        while next != NIL {
            next = self.nodes.remove(next).after;
            count += 1;
        }
        count
    }

    pub(crate) fn recipients(&self, first: Tagged) -> Recipients {
        if first.has(Tagged::SINGLE) {
            return Recipients::One(first.recipient());
        }
        Recipients::Many(group::recipients(&self.nodes, first).map(Tagged::recipient).collect())
    }
}
