//! Another destination for recipients that are queued: what has become of the routes is not forgotten mail's affair.

use mail::{QueueId, Timestamp};

use crate::{
    Destination, Order, Queue, State,
    group::{self, Group, Tagged},
    machine::Standing,
    slab::NIL,
};

/// Another destination for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Its place in the envelope.
    pub recipient: u32,
    /// Where it goes from now on.
    pub destination: Destination,
    /// What becomes of it there.
    pub onward: Onward,
}

/// What becomes of a recipient at its new destination. How often it was tried stays counted, and so does its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onward {
    /// What waits is ready at once. What is held stays held.
    Send,
    /// What is held is ready, too.
    Release,
    /// It is held.
    Hold,
    /// It waits as it did before, until the same time.
    Wait,
}

impl Queue {
    /// Gives recipients of a message another destination; says how many have changed theirs. One that has this destination
    /// already keeps its place and its time. One in an attempt is left alone: redirect it when that has ended.
    ///
    /// # Panics
    /// When a destination is not ours.
    pub fn redirect(
        &mut self,
        id: QueueId,
        redirects: &[Redirect],
        now: Timestamp,
        orders: &mut Vec<Order>,
    ) -> u64 {
        let tick = self.clock.now(now);
        let Some(message) = self.ids.find(&self.messages, id.to_bits()) else {
            self.dispatch(orders);
            return 0;
        };
        let release = self.release_tick(message).filter(|release| *release > tick);
        // Those that go on, those that a new state is noted of, in groups as they were.
        let (mut moved, mut noted) = (Vec::new(), Vec::new());
        let mut is_released = false;
        let mut next = self.messages[message].groups;
        while next != NIL {
            let index = next;
            let Group { state, destination, due, attempts, status, sibling_after, .. } = self.groups[index];
            let category = status.category();
            next = sibling_after;
            if state == State::Running {
                continue;
            }
            let standing = Standing { destination, state, attempts, due, status: status.get(), category };
            let (mut stay, mut go) = (Vec::new(), Vec::new());
            for place in group::recipients(&self.nodes, self.groups[index].recipients).map(Tagged::recipient)
            {
                let redirect = redirects.iter().find(|redirect| redirect.recipient == place);
                match redirect.filter(|redirect| redirect.destination.0 != destination) {
                    Some(redirect) => go.push(*redirect),
                    None => stay.push(place),
                }
            }
            if go.is_empty() {
                continue;
            }
            self.remove_group(index, tick);
            if !stay.is_empty() {
                self.add_group(message, &standing, &stay);
            }
            for Redirect { recipient, destination, onward } in go {
                let standing = Standing { destination: destination.0, ..standing };
                let standing = match (state, onward, release) {
                    (_, Onward::Wait, _) => standing,
                    (_, Onward::Hold, _) => Standing { state: State::Held, ..standing },
                    (State::Held, Onward::Send, _) => standing,
                    // Nobody keeps it back any more, but its time has not come.
                    (_, Onward::Send | Onward::Release, Some(due)) => {
                        Standing { state: State::Deferred, due, ..standing }
                    }
                    (_, Onward::Send | Onward::Release, None) => {
                        Standing { state: State::Ready, due: tick, ..standing }
                    }
                };
                is_released |= state == State::Held && standing.state != State::Held;
                // As after an operator's wish to try it now, a restart finds it due when it was due before.
                if (state == State::Held) != (standing.state == State::Held) {
                    noted.push((standing, recipient));
                }
                moved.push((standing, recipient));
            }
        }
        let count = moved.len() as u64;
        self.add_groups(message, moved);
        if is_released {
            self.extend_life(message, now);
            self.disarm(message);
            self.arm(message, tick);
        }
        noted.sort_unstable();
        for alike in noted.chunk_by(|(one, _), (other, _)| one == other) {
            let places: Vec<_> = alike.iter().map(|(_, place)| *place).collect();
            self.note(id, &places, &alike[0].0, orders);
        }
        self.dispatch(orders);
        count
    }
}
