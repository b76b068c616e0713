//! Other routes: whoever is queued goes by them.

use delivery::{Demand, Routes};
use mail::{Domain, QueueId};
use queue::{Cursor, Onward, Redirect, State};

use super::{Roads, Server, outbound::Job, routes, schedule::Held};
use crate::world::World;

impl Server {
    /// A reload brings other routes.
    pub(crate) fn reload(&mut self, world: &mut World, roads: Roads) {
        world.note(format_args!("reload: {roads:?}"));
        self.routes = routes(roads);
        self.before.extend(self.running.keys());
        let jobs: Vec<_> = self.lanes.values_mut().flat_map(|lane| std::mem::take(&mut lane.jobs)).collect();
        for job in jobs {
            if let Some(job) = self.try_divert(world, job) {
                self.before.remove(&job.attempt);
                self.assign(world, job);
            }
        }
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            let page = self.queue.list_messages(from, 100);
            cursor = page.next;
            for message in page.items {
                self.reroute(world, message.id);
            }
        }
        self.settle(world);
    }

    /// An attempt has ended that was ordered before.
    pub(super) fn reroute(&mut self, world: &mut World, id: QueueId) {
        let redirects = self.redirects(world, id);
        let mut orders = Vec::new();
        world.ledger.figures.rerouted += self.queue.redirect(id, &redirects, world.wall(), &mut orders);
        self.follow(world, orders);
    }

    /// Lets an attempt that was not begun go another way, if its recipients have one; if not, gives it back.
    pub(super) fn try_divert(&mut self, world: &mut World, job: Job) -> Option<Job> {
        let redirects = self.redirects(world, job.id);
        if !redirects.iter().any(|redirect| job.recipients.contains(&redirect.recipient)) {
            return Some(job);
        }
        self.running.remove(&job.attempt);
        self.before.remove(&job.attempt);
        let mut orders = Vec::new();
        world.ledger.figures.rerouted +=
            self.queue.on_diverted(job.attempt, &redirects, world.wall(), &mut orders);
        self.follow(world, orders);
        None
    }

    /// Whoever waits goes by the routes that are in force.
    pub(super) fn look_at_ways(&self, world: &World) {
        for id in self.journal.live() {
            let Some(states) = self.queue.states(id) else { continue };
            let waiting = states.iter().filter(|state| state.state != State::Running);
            let message = self.message(world, id).expect("it is queued");
            for state in waiting {
                let domain = message.envelope.recipients[state.recipient as usize].address.domain();
                let key = self.queue.name(state.destination).expect("a recipient is there");
                let (way, held) = self.way(&domain);
                let kept_back = held == Held::Yes && *key == *Routes::unrouted(&domain, Demand::None);
                let tagged = state.state == State::Held
                    && self.running.values().any(|running| running.destination == state.destination);
                assert!(
                    *key == *way || kept_back || tagged,
                    "{id} {state:?} waits for {key} and goes to {way}"
                );
            }
        }
    }

    fn redirects(&mut self, world: &World, id: QueueId) -> Vec<Redirect> {
        let states = self.queue.states(id).unwrap_or_default();
        let mut redirects = Vec::new();
        for state in states {
            let key = self.queue.name(state.destination).expect("a recipient is there").to_owned();
            let domain: Domain = match Routes::domain_of_key(&key) {
                Some(domain) => domain,
                None => {
                    let message = self.message(world, id).expect("it is queued");
                    message.envelope.recipients[state.recipient as usize].address.domain()
                }
            };
            let (way, held) = self.way(&domain);
            let was_held_by_route = Routes::is_hold_key(&key);
            let (name, onward) = match held {
                Held::No if was_held_by_route => (way, Onward::Release),
                Held::No => (way, Onward::Send),
                Held::Yes if state.state == State::Held && !was_held_by_route => {
                    (Routes::unrouted(&domain, Demand::None), Onward::Send)
                }
                Held::Yes => (way, Onward::Hold),
            };
            if *name != *key {
                let destination = self.queue.intern(&name, world.wall());
                redirects.push(Redirect { recipient: state.recipient, destination, onward });
            }
        }
        redirects
    }
}
