//! One life: the loop, the troubles, and what must hold at its end.

use std::time::Duration;

use journal::virtual_disk::Fate;
use queue::{Command, Selector};

use crate::{
    Trail,
    customer::Customer,
    hop::{self, Hop},
    ledger::Figures,
    server::{Origin, Roads, Server, schedule},
    visitor::Visitor,
    world::{CALM, Event, HOUR, LinkId, MINUTE, Party, SECOND, Side, Trouble, World},
};

/// Whoever can be reached must have got everything so long after the calm has begun: the longest waits of queue and
/// destination, and an attempt that hangs in between.
const DEADLINE: Duration = Duration::from_secs(5400);
const GRACE: Duration = Duration::from_secs(30);
const EVENTS_MAX: u64 = 2_000_000;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// What was not synced may be lost.
    PowerLoss,
    /// The page cache stays.
    Killed,
}

struct Life {
    world: World,
    server: Option<Server>,
    visitors: Vec<Visitor>,
    customers: Vec<Customer>,
    hops: Vec<Hop>,
    runs: u64,
    ended_by: Exit,
    roads: Roads,
}

/// Lives the life of a seed.
///
/// # Panics
/// When something is not as it must be; `trail` has what happened before.
pub fn live(seed: u64, trail: &Trail) -> Figures {
    let mut life = Life::new(seed, trail.clone());
    while let Some(event) = life.world.next() {
        life.happen(event);
        if std::mem::take(&mut life.world.disk_trouble.stopped) {
            // In the middle of something, which the process may not survive either.
            let exit = life.world.pick(&[Exit::PowerLoss, Exit::PowerLoss, Exit::Killed]);
            life.end_run(exit);
        }
        if life.is_over() {
            break;
        }
        assert!(life.world.events < EVENTS_MAX, "this goes on for ever");
        let last = CALM + schedule().give_up * 2 + HOUR * 2;
        let usage = life.server.as_ref().map(|server| server.journal().usage());
        assert!(life.world.now < last, "somebody waits for ever: {usage:?}");
    }
    life.close()
}

impl Life {
    fn new(seed: u64, trail: Trail) -> Self {
        let mut world = World::new(seed, trail);
        let hops = hop::all(&mut world);
        let count = 2 + world.below(8) as usize;
        let visitors = (0..count).map(|number| Visitor::new(number, &mut world)).collect();
        let customers = (0..2).map(|number| Customer::new(number, &mut world)).collect();
        world.at(Duration::ZERO, Event::Trouble(Trouble::Start));
        world.at(CALM, Event::Trouble(Trouble::Calm));
        world.at(CALM + DEADLINE, Event::Trouble(Trouble::Deadline));
        let troubles = [
            (Trouble::PowerLoss, 3),
            (Trouble::DiskStops, 3),
            (Trouble::Kill, 2),
            (Trouble::Stop, 2),
            (Trouble::SyncFails, 2),
            (Trouble::WriteFails, 2),
            (Trouble::DiskFull, 3),
            (Trouble::DiskSlow, 4),
            (Trouble::DnsDown, 2),
            (Trouble::Operator, 30),
            (Trouble::Reload, 6),
        ];
        for (trouble, count) in troubles {
            for _ in 0..world.below(count) {
                let at = world.within(MINUTE, CALM - 20 * MINUTE);
                world.at(at, Event::Trouble(trouble));
            }
        }
        Self {
            world,
            server: None,
            visitors,
            customers,
            hops,
            runs: 0,
            ended_by: Exit::Killed,
            roads: Roads::Usual,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Bytes { link, to, bytes } => self.on_bytes(link, to, &bytes),
            Event::Closed { link, to } => self.on_closed(link, self.world.party(link, to)),
            Event::Cut(link) => {
                for party in self.world.cut(link) {
                    self.on_closed(link, party);
                }
            }
            Event::Connected { link, outcome } => {
                if outcome.is_ok() {
                    match self.world.party(link, Side::Answerer) {
                        Party::Hop(hop) => self.hops[hop].on_connected(&mut self.world, link),
                        Party::Door => {
                            if let Some(server) = &mut self.server {
                                server.on_connected(
                                    &mut self.world,
                                    link,
                                    Side::Answerer,
                                    Party::Door,
                                    Ok(()),
                                );
                            }
                        }
                        Party::Visitor(_) | Party::Customer(_) | Party::Worker(_) | Party::Nobody => {}
                    }
                }
                match self.world.party(link, Side::Caller) {
                    Party::Visitor(visitor) => self.visitors[visitor].on_connected(&mut self.world, outcome),
                    Party::Customer(customer) => {
                        self.customers[customer].on_connected(&mut self.world, link, &outcome);
                    }
                    party @ Party::Worker(_) => {
                        if let Some(server) = &mut self.server {
                            server.on_connected(&mut self.world, link, Side::Caller, party, outcome);
                        }
                    }
                    Party::Door | Party::Hop(_) | Party::Nobody => {}
                }
            }
            Event::Patience { link, side, serial } => {
                if !self.world.is_patience_over(link, side, serial) {
                    return;
                }
                match self.world.party(link, side) {
                    Party::Visitor(visitor) => self.visitors[visitor].on_timeout(&mut self.world),
                    Party::Customer(customer) => self.customers[customer].on_timeout(&mut self.world, link),
                    party @ (Party::Door | Party::Worker(_)) => {
                        if let Some(server) = &mut self.server {
                            server.on_patience(&mut self.world, link, party);
                        }
                    }
                    Party::Hop(_) | Party::Nobody => {}
                }
            }
            Event::Fetch(customer) => self.customers[customer].come(&mut self.world),
            Event::Visit(visitor) => self.visitors[visitor].visit(&mut self.world),
            Event::Mood(hop) => self.hops[hop].change_mood(&mut self.world),
            Event::Server(run, task) => {
                if let Some(server) = self.server.as_mut().filter(|_| run == self.runs) {
                    server.on_task(&mut self.world, task);
                }
            }
            Event::Datagram { run, socket, bytes } => {
                if let Some(server) = self.server.as_mut().filter(|_| run == self.runs) {
                    server.on_datagram(&mut self.world, socket, &bytes);
                }
            }
            Event::Stream { run, ticket, bytes } => {
                if let Some(server) = self.server.as_mut().filter(|_| run == self.runs) {
                    server.on_stream(&mut self.world, ticket, bytes.as_deref());
                }
            }
            Event::Trouble(trouble) => self.trouble(trouble),
        }
    }

    fn on_bytes(&mut self, link: LinkId, to: Side, bytes: &[u8]) {
        match self.world.party(link, to) {
            Party::Visitor(visitor) => self.visitors[visitor].on_bytes(&mut self.world, bytes),
            Party::Customer(customer) => self.customers[customer].on_bytes(&mut self.world, link, bytes),
            Party::Hop(hop) => self.hops[hop].on_bytes(&mut self.world, link, bytes),
            party @ (Party::Door | Party::Worker(_)) => {
                if let Some(server) = &mut self.server {
                    server.on_bytes(&mut self.world, link, party, bytes);
                }
            }
            Party::Nobody => {}
        }
    }

    fn on_closed(&mut self, link: LinkId, party: Party) {
        match party {
            Party::Visitor(visitor) => self.visitors[visitor].on_closed(&mut self.world),
            Party::Customer(customer) => self.customers[customer].on_closed(&mut self.world, link),
            Party::Hop(hop) => self.hops[hop].on_closed(&mut self.world, link),
            Party::Door | Party::Worker(_) => {
                if let Some(server) = &mut self.server {
                    server.on_closed(&mut self.world, link, party);
                }
            }
            Party::Nobody => {}
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        if trouble != Trouble::Operator {
            self.world.note(format_args!("{trouble:?}"));
        }
        let world = &mut self.world;
        match trouble {
            // It was to come with a trouble that the calm has ended.
            Trouble::PowerLoss | Trouble::Kill if world.is_calm() => {}
            Trouble::PowerLoss => self.end_run(Exit::PowerLoss),
            Trouble::Kill => self.end_run(Exit::Killed),
            Trouble::Halt => {
                if self.server.as_ref().is_some_and(Server::is_stopping) {
                    self.end_run(Exit::Killed);
                }
            }
            Trouble::DiskStops => {
                let operation = world.disk.operations() + 1 + world.below(60);
                world.disk.stop_at(operation);
            }
            Trouble::Stop => {
                if let Some(server) = &mut self.server {
                    server.stop(world);
                    world.after(GRACE, Event::Trouble(Trouble::Halt));
                }
            }
            Trouble::Start => self.start(),
            Trouble::SyncFails => {
                world.disk_trouble.sync_fails = true;
                self.be_noticed();
            }
            Trouble::WriteFails => {
                world.disk_trouble.write_fails = true;
                self.be_noticed();
            }
            Trouble::DiskFull => {
                world.disk_trouble.full = true;
                let wait = world.within(MINUTE, HOUR);
                world.after(wait, Event::Trouble(Trouble::DiskFree));
                if world.one_in(2) {
                    let wait = world.within(Duration::ZERO, wait);
                    world.after(wait, Event::Trouble(Trouble::PowerLoss));
                }
            }
            Trouble::DiskFree => world.disk_trouble.full = false,
            Trouble::DiskSlow => {
                world.disk_trouble.slow = true;
                let wait = world.within(MINUTE, HOUR);
                world.after(wait, Event::Trouble(Trouble::DiskFast));
                if world.one_in(2) {
                    let (wait, end) =
                        (world.within(Duration::ZERO, wait), [Trouble::PowerLoss, Trouble::Kill]);
                    let end = world.pick(&end);
                    world.after(wait, Event::Trouble(end));
                }
            }
            Trouble::DiskFast => world.disk_trouble.slow = false,
            Trouble::DnsDown => {
                world.dns_down = true;
                let wait = world.within(MINUTE, HOUR);
                world.after(wait, Event::Trouble(Trouble::DnsUp));
            }
            Trouble::DnsUp => world.dns_down = false,
            Trouble::Operator => self.operate(),
            Trouble::Reload if world.is_calm() => {}
            Trouble::Reload => {
                let roads = world.pick(&[Roads::Usual, Roads::Other, Roads::Closed]);
                self.reload(roads);
            }
            Trouble::Calm => self.calm(),
            Trouble::Deadline => {
                let overdue = world.ledger.overdue();
                assert!(overdue.is_empty(), "all is well since {DEADLINE:?}, and yet: {overdue:#?}");
                self.release();
            }
        }
    }

    /// The configuration is another from now on, whether the server runs or not.
    fn reload(&mut self, roads: Roads) {
        self.roads = roads;
        if let Some(server) = self.server.as_mut().filter(|server| !server.is_stopping()) {
            server.reload(&mut self.world, roads);
        }
    }

    /// Somebody sees that the disk has failed, and starts the server again.
    fn be_noticed(&mut self) {
        let wait = self.world.within(MINUTE, 15 * MINUTE);
        let end = self.world.pick(&[Trouble::Kill, Trouble::PowerLoss, Trouble::Stop]);
        self.world.after(wait, Event::Trouble(end));
    }

    fn operate(&mut self) {
        use Command::{Hold, Release, Remove, Retry};
        let world = &mut self.world;
        let Some(server) = self.server.as_mut().filter(|server| !server.is_stopping()) else { return };
        let Some((id, place)) = server.anybody(world) else { return };
        let command = world.pick(&[Retry, Hold, Hold, Release, Release, Remove]);
        let selector = match world.below(6) {
            0 if command != Remove => Selector::All,
            1..4 => Selector::Message(id),
            _ => Selector::Recipient(id, place),
        };
        server.command(world, command, selector);
    }

    /// Origin here on all is well: what is down is started, what failed is started anew.
    fn calm(&mut self) {
        self.world.dns_down = false;
        self.world.disk_trouble = Default::default();
        self.world.disk.stop_at(u64::MAX);
        for hop in &mut self.hops {
            hop.change_mood(&mut self.world);
        }
        if self.server.as_ref().is_none_or(|server| server.has_failed() || server.is_stopping()) {
            self.end_run(Exit::Killed);
            self.start();
        }
        self.reload(Roads::Usual);
        self.release();
    }

    /// Nothing is kept back any more.
    fn release(&mut self) {
        if let Some(server) = &mut self.server {
            server.command(&mut self.world, Command::Release, Selector::All);
            server.command(&mut self.world, Command::Retry, Selector::All);
        }
    }

    fn end_run(&mut self, by: Exit) {
        let world = &mut self.world;
        if self.server.take().is_none() {
            return;
        }
        world.note(format_args!("the server is gone: {by:?}"));
        let seed = world.below(u64::MAX);
        let fates = [Fate::Kept, Fate::Lost, Fate::Lost, Fate::Prefix(seed), Fate::Sectors(seed)];
        let fate = match by {
            Exit::PowerLoss => world.pick(&fates),
            Exit::Killed => Fate::Killed,
        };
        world.disk.crash(fate);
        world.disk_trouble.sync_fails = false;
        world.disk_trouble.write_fails = false;
        world.server_is_gone();
        world.door = Err(delivery::ConnectFailure::Refused);
        self.ended_by = by;
        let wait = if world.is_calm() { Duration::ZERO } else { world.within(SECOND, 10 * MINUTE) };
        world.after(wait, Event::Trouble(Trouble::Start));
    }

    fn start(&mut self) {
        if self.server.is_some() {
            return;
        }
        self.runs += 1;
        let world = &mut self.world;
        let from = match self.ended_by {
            Exit::PowerLoss => world.pick(&[Origin::Journal, Origin::Index, Origin::OlderIndex]),
            Exit::Killed => world.pick(&[Origin::Journal, Origin::Index]),
        };
        world.door = Ok(Party::Door);
        if !world.is_calm() && world.one_in(5) {
            // One misfortune seldom comes alone.
            let wait = world.pick(&[SECOND / 500, SECOND / 100, SECOND]);
            let wait = world.within(Duration::ZERO, wait);
            world.after(wait, Event::Trouble(Trouble::PowerLoss));
        }
        self.server = Some(Server::start(world, self.runs, from, self.roads));
    }

    fn is_over(&self) -> bool {
        self.world.now > CALM + DEADLINE
            && self.visitors.iter().all(Visitor::is_done)
            && self.world.ledger.is_settled()
            && self.server.as_ref().is_some_and(Server::is_idle)
    }

    /// At the end nothing is queued, nothing is in the journal, and everybody has a fate.
    fn close(mut self) -> Figures {
        let server = self.server.take().expect("the server runs at the end");
        let left: Vec<_> = server.journal().live().collect();
        assert!(left.is_empty(), "the journal still has {left:?}");
        self.world.ledger.close();
        self.world.ledger.figures.events = self.world.events;
        self.world.ledger.figures
    }
}
