//! What an operator may ask of queued recipients, in bounded steps.

use mail::{QueueId, Timestamp};

use crate::{
    Cursor, Destination, Filter, Order, Queue, Recipients, State,
    filter::STEP_MAX,
    group::{self, Tagged},
    machine::Standing,
    site::Phase,
    slab::NIL,
};

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Try deferred recipients now, and their destination too if it is left alone.
    Retry,
    /// As [`Command::Retry`], but what is not to be tried yet (RFC 4865) stays so.
    Hasten,
    /// Try no more until released. An attempt under way runs to its end.
    Hold,
    /// Undo a hold: ready at once.
    Release,
    /// Forget recipients without a DSN. An attempt under way runs to its end.
    Remove,
}

/// Whom a [`Command`] is for. What the queue cannot see (reverse-path, address) the caller
/// looks up first and names by id.
#[derive(Clone, Copy, Debug)]
pub enum Selector<'a> {
    /// Everybody.
    All,
    /// All recipients of a message.
    Message(QueueId),
    /// One recipient, by its place in the envelope.
    Recipient(QueueId, u32),
    /// All recipients bound for a destination.
    Destination(Destination),
    /// All recipients of these groups.
    Matching(&'a Filter<'a>),
}

/// How far a [`Command`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// How many recipients were meant.
    pub matched: u64,
    /// How many of them this step changed.
    pub changed: u64,
    /// Where to go on, unless this was the last step.
    pub next: Option<Cursor>,
}

impl Queue {
    /// Does one step of a command; call again with `next` until there is none.
    ///
    /// A message is one step. Messages accepted meanwhile may be met or not: to keep back what is still
    /// to come for a destination, use [`Queue::set_attempts_max`] with zero.
    pub fn on_command(
        &mut self,
        command: Command,
        selector: Selector<'_>,
        cursor: Cursor,
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) -> Progress {
        let progress = match selector {
            Selector::All => self.command_some(command, &Filter::default(), cursor, now, orders),
            Selector::Destination(destination) => {
                let filter = Filter { destinations: Some(&[destination]), ..Filter::default() };
                self.command_some(command, &filter, cursor, now, orders)
            }
            Selector::Matching(filter) => self.command_some(command, filter, cursor, now, orders),
            Selector::Message(id) => self.command_message(command, id, None, now, orders),
            Selector::Recipient(id, recipient) => {
                self.command_message(command, id, Some(recipient), now, orders)
            }
        };
        self.dispatch(orders);
        progress
    }

    /// Begins an attempt for recipients of a message who wait for this destination, out of turn and whatever the limits:
    /// somebody has come for them. They are held there, or deferred, since nobody else is to be had there when they are
    /// released. Who has not got the message when it ends is held again. `None` when none of them waits there, or when
    /// their time has not come (RFC 4865).
    pub fn on_called_for(
        &mut self,
        id: QueueId,
        destination: Destination,
        recipients: &[u32],
        now: Timestamp,
    ) -> Option<Order> {
        let tick = self.clock.now(now);
        let message = self.ids.find(&self.messages, id.to_bits())?;
        if self.release_tick(message).is_some_and(|release| release > tick) {
            return None;
        }
        let mut next = self.messages[message].groups;
        while next != NIL {
            let group = self.groups[next].clone();
            let index = std::mem::replace(&mut next, group.sibling_after);
            if !matches!(group.state, State::Held | State::Deferred) || group.destination != destination.0 {
                continue;
            }
            let (meant, others): (Vec<u32>, Vec<u32>) = group::recipients(&self.nodes, group.recipients)
                .map(Tagged::recipient)
                .partition(|place| recipients.contains(place));
            if meant.is_empty() {
                continue;
            }
            let standing = Standing {
                destination: group.destination,
                state: group.state,
                attempts: group.attempts,
                due: group.due,
                status: group.status.get(),
                category: group.status.category(),
            };
            self.remove_group(index, tick);
            if !others.is_empty() {
                self.add_group(message, &standing, &others);
            }
            let index = self.add_group(message, &Standing { state: State::Running, ..standing }, &meant);
            self.tag(index, |tagged| tagged.0 |= Tagged::HOLD);
            return Some(self.begin_attempt(index));
        }
        None
    }

    fn command_some(
        &mut self,
        command: Command,
        filter: &Filter<'_>,
        cursor: Cursor,
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) -> Progress {
        let end = self.groups.end().min(cursor.0.saturating_add(STEP_MAX));
        let (mut matched, mut changed) = (0, 0);
        for index in cursor.0..end {
            let Some(group) = self.groups.get(index).filter(|group| self.meets(filter, group)) else {
                continue;
            };
            matched += group::recipients(&self.nodes, group.recipients).count() as u64;
            changed += self.command_group(command, index, None, now, orders);
        }
        Progress { matched, changed, next: (end < self.groups.end()).then_some(Cursor(end)) }
    }

    fn command_message(
        &mut self,
        command: Command,
        id: QueueId,
        recipient: Option<u32>,
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) -> Progress {
        let (mut matched, mut changed) = (0, 0);
        let mut next = self.ids.find(&self.messages, id.to_bits()).map_or(NIL, |i| self.messages[i].groups);
        while next != NIL {
            let group = &self.groups[next];
            let index = std::mem::replace(&mut next, group.sibling_after);
            let places = || group::recipients(&self.nodes, group.recipients).map(Tagged::recipient);
            let among = match recipient {
                None => places().count() as u64,
                Some(recipient) => u64::from(places().any(|place| place == recipient)),
            };
            if among > 0 {
                matched += among;
                changed += self.command_group(command, index, recipient, now, orders);
            }
        }
        Progress { matched, changed, next: None }
    }

    /// Does a command for a group, or for one of its recipients.
    fn command_group(
        &mut self,
        command: Command,
        index: u32,
        only: Option<u32>,
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) -> u64 {
        let tick = self.clock.now(now);
        let group = self.groups[index].clone();
        let command = match command {
            Command::Hasten if self.release_tick(group.message).is_some_and(|release| release > tick) => {
                return 0;
            }
            Command::Hasten => Command::Retry,
            Command::Retry | Command::Hold | Command::Release | Command::Remove => command,
        };
        let state = match (command, group.state) {
            (_, State::Running) => return self.command_running(command, index, only, orders),
            (Command::Retry | Command::Hasten, State::Ready | State::Deferred) => State::Ready,
            (Command::Hold, State::Ready | State::Deferred) => State::Held,
            (Command::Release, State::Held) => State::Ready,
            (Command::Remove, State::Ready | State::Deferred | State::Held) => State::Held,
            (Command::Retry | Command::Hasten, State::Held)
            | (Command::Hold, State::Held)
            | (Command::Release, State::Ready | State::Deferred) => return 0,
        };
        if command == Command::Retry {
            self.probe_now(group.destination);
            if group.state == State::Ready {
                return 0;
            }
        }
        let (meant, others): (Vec<u32>, Vec<u32>) = group::recipients(&self.nodes, group.recipients)
            .map(Tagged::recipient)
            .partition(|place| only.is_none_or(|only| only == *place));
        let id = QueueId::from_bits(self.messages[group.message].id);
        let standing = Standing {
            destination: group.destination,
            state: group.state,
            attempts: group.attempts,
            due: group.due,
            status: group.status.get(),
            category: group.status.category(),
        };
        self.remove_group(index, tick);
        if !others.is_empty() {
            self.add_group(group.message, &standing, &others);
        }
        if command == Command::Remove {
            orders.push(Order::Remove { id, recipients: Recipients::from(&*meant) });
            self.retire_if_ended(group.message, orders);
            return meant.len() as u64;
        }
        let release = self.release_tick(group.message).filter(|release| *release > tick);
        let standing = match (command, release) {
            // Nobody keeps it back any more, but its time has not come.
            (Command::Release, Some(due)) => Standing { state: State::Deferred, due, ..standing },
            (Command::Retry | Command::Hasten | Command::Hold | Command::Release | Command::Remove, _) => {
                Standing { state, ..standing }
            }
        };
        self.add_group(group.message, &standing, &meant);
        if command == Command::Release {
            self.extend_life(group.message, now);
            self.disarm(group.message);
            self.arm(group.message, tick);
        }
        // A retry need not be noted: after a restart it is due again when it was due before.
        if command != Command::Retry {
            self.note(id, &meant, &standing, orders);
        }
        meant.len() as u64
    }

    /// Tags recipients, so that the command takes effect when their attempt ends.
    fn command_running(
        &mut self,
        command: Command,
        index: u32,
        only: Option<u32>,
        orders: &mut Vec<Order>,
    ) -> u64 {
        let (set, clear, state) = match command {
            Command::Retry | Command::Hasten => return 0,
            Command::Hold => (Tagged::HOLD, 0, State::Held),
            Command::Release => (0, Tagged::HOLD, State::Ready),
            Command::Remove => (Tagged::REMOVE, 0, State::Held),
        };
        let mut changed = Vec::new();
        let mut tag = |tagged: &mut Tagged| {
            let tags = (tagged.0 | set) & !clear;
            if tags != tagged.0 && only.is_none_or(|only| only == tagged.recipient()) {
                tagged.0 = tags;
                changed.push(tagged.recipient());
            }
        };
        self.tag(index, &mut tag);
        // What is removed is ordered when the attempt has ended: it may yet be delivered.
        if !changed.is_empty() && command != Command::Remove {
            let group = &self.groups[index];
            let id = QueueId::from_bits(self.messages[group.message].id);
            let standing = Standing {
                destination: group.destination,
                state,
                attempts: group.attempts,
                due: group.due,
                status: group.status.get(),
                category: group.status.category(),
            };
            self.note(id, &changed, &standing, orders);
        }
        changed.len() as u64
    }

    /// Lets `tag` change what awaits each recipient of a group at the end of its attempt.
    fn tag(&mut self, index: u32, mut tag: impl FnMut(&mut Tagged)) {
        let group = &mut self.groups[index];
        if group.recipients.has(Tagged::SINGLE) {
            tag(&mut group.recipients);
        } else {
            let mut next = group.recipients.0;
            while next != NIL {
                tag(&mut self.nodes[next].recipient);
                next = self.nodes[next].after;
            }
        }
    }

    /// Lets a destination's site that is left alone be probed at once.
    fn probe_now(&mut self, index: u32) {
        let site = self.destinations.slab[index].site;
        if self.destinations.sites.get(site).is_some_and(|site| matches!(site.phase, Phase::Blocked(_))) {
            self.destinations.sites[site].phase = Phase::Probing;
            self.destinations.nominate(site);
        }
    }
}
