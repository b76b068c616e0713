//! What the machines live in: one clock, a network, a disk, and all that is still to happen.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    net::IpAddr,
    time::Duration,
};

use bytes::Bytes;
use delivery::ConnectFailure;
use dns::{Socket, Ticket};
use index::MemoryIndex;
use journal::virtual_disk::{Random, VirtualDisk};
use mail::Timestamp;

use crate::{Trail, ledger::Ledger, names, server::Task};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// From here on nothing goes wrong any more, and all that can be delivered must be.
pub(crate) const CALM: Duration = Duration::from_secs(5 * 3600);

/// The number of a connection.
pub(crate) type LinkId = u64;

/// What will happen, unless something comes between.
#[derive(Debug)]
pub(crate) enum Event {
    /// Bytes come to one end of a link.
    Bytes { link: LinkId, to: Side, bytes: Bytes },
    /// One end learns that the other has closed.
    Closed { link: LinkId, to: Side },
    /// The caller learns whether somebody listens.
    Connected { link: LinkId, outcome: Result<(), ConnectFailure> },
    /// The network loses a connection.
    Cut(LinkId),
    /// One end has waited long enough.
    Patience { link: LinkId, side: Side, serial: u64 },
    /// A simulated client has something to send.
    Visit(usize),
    /// A simulated client comes for held mail.
    Fetch(usize),
    /// A next hop changes its ways.
    Mood(usize),
    /// Something that this run of the server waits for.
    Server(u64, Task),
    /// A DNS server answers this run of the server by UDP.
    Datagram { run: u64, socket: Socket, bytes: Vec<u8> },
    /// The same by TCP; no bytes when the connection broke.
    Stream { run: u64, ticket: Ticket, bytes: Option<Vec<u8>> },
    /// Trouble, or its end.
    Trouble(Trouble),
}

/// What befalls the server, its disk, its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The power fails.
    PowerLoss,
    /// The process is killed.
    Kill,
    /// The disk stops in the middle of what it does, since the power fails or the process dies.
    DiskStops,
    /// Somebody asks the server to stop, and starts it again.
    Stop,
    /// Such a stop has had its time.
    Halt,
    /// The server is started.
    Start,
    /// The next sync fails.
    SyncFails,
    /// The next write fails.
    WriteFails,
    /// No file can be made any more.
    DiskFull,
    /// Files can be made again.
    DiskFree,
    /// What is written takes minutes to be durable.
    DiskSlow,
    /// It does not any more.
    DiskFast,
    /// No DNS server answers.
    DnsDown,
    /// They answer again.
    DnsUp,
    /// Somebody gives a command.
    Operator,
    /// Somebody changes the routes.
    Reload,
    /// All is well from here on.
    Calm,
    /// Whatever can be delivered must have been.
    Deadline,
}

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Caller,
    Answerer,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Caller => Self::Answerer,
            Self::Answerer => Self::Caller,
        }
    }
}

/// Who holds an end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    Visitor(usize),
    Customer(usize),
    Door,
    Worker(u64),
    Hop(usize),
    Nobody,
}

#[derive(Debug)]
pub(crate) struct Link {
    ends: [Party; 2],
    pub(crate) peer: IpAddr,
    /// When the last bytes under way to each end arrive.
    arrival: [Duration; 2],
    patience: [u64; 2],
    /// From then on nothing arrives, and nobody is told.
    mute_after: Option<Duration>,
}

/// What makes the next operations of the disk fail.
#[derive(Debug, Default)]
pub(crate) struct DiskTrouble {
    pub(crate) full: bool,
    pub(crate) slow: bool,
    pub(crate) sync_fails: bool,
    pub(crate) write_fails: bool,
    /// It stopped in the middle of something: the power is gone.
    pub(crate) stopped: bool,
}

pub(crate) struct World {
    seed: u64,
    pub(crate) now: Duration,
    random: Random,
    future: BTreeMap<(Duration, u64), Event>,
    serial: u64,
    links: BTreeMap<LinkId, Link>,
    pub(crate) disk: VirtualDisk,
    pub(crate) disk_trouble: DiskTrouble,
    pub(crate) dns_down: bool,
    /// Who listens at each next hop's address, and at ours.
    pub(crate) hops: [Result<Party, ConnectFailure>; names::HOPS],
    pub(crate) door: Result<Party, ConnectFailure>,
    /// What the store of the index has held, the latest first.
    pub(crate) indexes: VecDeque<MemoryIndex>,
    pub(crate) ledger: Ledger,
    pub(crate) trail: Trail,
    pub(crate) events: u64,
}

impl World {
    pub(crate) fn new(seed: u64, trail: Trail) -> Self {
        Self {
            seed,
            now: Duration::ZERO,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            future: BTreeMap::new(),
            serial: 0,
            links: BTreeMap::new(),
            disk: VirtualDisk::default(),
            disk_trouble: DiskTrouble::default(),
            dns_down: false,
            hops: std::array::from_fn(|hop| Ok(Party::Hop(hop))),
            door: Err(ConnectFailure::Refused),
            indexes: VecDeque::new(),
            ledger: Ledger::default(),
            trail,
            events: 0,
        }
    }

    /// The next thing that happens; time passes until then.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let ((at, _), event) = self.future.pop_first()?;
        self.now = at;
        self.events += 1;
        Some(event)
    }

    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        self.at(self.now + wait, event);
    }

    pub(crate) fn at(&mut self, time: Duration, event: Event) {
        self.serial += 1;
        self.future.insert((time, self.serial), event);
    }

    /// What the clock on the wall says.
    pub(crate) fn wall(&self) -> Timestamp {
        Timestamp::from_secs(1_763_629_500).saturating_add(self.now)
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.now >= CALM
    }

    /// Keeps a line for the report of a failure.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let (secs, millis) = (self.now.as_secs(), self.now.subsec_millis());
        let (hours, minutes, secs) = (secs / 3600, secs / 60 % 60, secs % 60);
        self.trail.note(format!("{hours:02}:{minutes:02}:{secs:02}.{millis:03} {what}"));
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.random.below(n) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.random.below(items.len() as u64) as usize].clone()
    }

    pub(crate) fn within(&mut self, from: Duration, to: Duration) -> Duration {
        from + Duration::from_micros(self.random.below((to - from).as_micros() as u64))
    }
}

/// The network.
impl World {
    /// Opens a link; [`Event::Connected`] tells the caller what came of it.
    pub(crate) fn connect(
        &mut self,
        caller: Party,
        answerer: Result<Party, ConnectFailure>,
        peer: IpAddr,
    ) -> LinkId {
        self.serial += 1;
        let link = self.serial;
        let trouble = if self.is_calm() { 9 } else { self.below(40) };
        let mute_after = (trouble == 0).then(|| self.now + self.within_secs(60));
        let wait = match &answerer {
            Err(ConnectFailure::TimedOut) => 30 * SECOND,
            Ok(_) | Err(_) => self.latency(),
        };
        if trouble == 1 {
            let cut = wait + self.within_secs(20);
            self.after(cut, Event::Cut(link));
        }
        let ends = [caller, answerer.as_ref().map_or(Party::Nobody, |party| *party)];
        let arrival = [self.now + wait; 2];
        self.links.insert(link, Link { ends, peer, arrival, patience: [0; 2], mute_after });
        self.after(wait, Event::Connected { link, outcome: answerer.map(drop) });
        link
    }

    pub(crate) fn connect_to_hop(&mut self, caller: Party, hop: usize) -> LinkId {
        self.connect(caller, self.hops[hop].clone(), names::address(hop))
    }

    /// Sends bytes, which arrive in pieces.
    pub(crate) fn send(&mut self, link: LinkId, from: Side, bytes: impl Into<Bytes>) {
        let (mut rest, to) = (bytes.into(), from.other());
        while !rest.is_empty() {
            let len = if self.one_in(3) { 1 + self.below(rest.len() as u64) as usize } else { rest.len() };
            let piece = rest.split_to(len);
            self.send_event(link, to, Event::Bytes { link, to, bytes: piece });
        }
    }

    /// Closes one's own end; the other learns it behind what was sent.
    pub(crate) fn close(&mut self, link: LinkId, from: Side) {
        let to = from.other();
        self.send_event(link, to, Event::Closed { link, to });
        self.leave(link, from);
    }

    /// Is heard of no more at this end.
    pub(crate) fn leave(&mut self, link: LinkId, side: Side) {
        if let Some(known) = self.links.get_mut(&link) {
            known.ends[side as usize] = Party::Nobody;
            if known.ends == [Party::Nobody; 2] {
                self.links.remove(&link);
            }
        }
    }

    fn send_event(&mut self, link: LinkId, to: Side, event: Event) {
        let latency = self.latency();
        let Some(known) = self.links.get_mut(&link) else { return };
        if known.mute_after.is_some_and(|after| after <= self.now) {
            return;
        }
        let arrival = &mut known.arrival[to as usize];
        *arrival = (*arrival).max(self.now + latency);
        let arrival = *arrival;
        self.at(arrival, event);
    }

    /// Who holds an end, as long as it is held.
    pub(crate) fn party(&self, link: LinkId, side: Side) -> Party {
        self.links.get(&link).map_or(Party::Nobody, |known| known.ends[side as usize])
    }

    pub(crate) fn peer(&self, link: LinkId) -> Option<IpAddr> {
        self.links.get(&link).map(|known| known.peer)
    }

    /// Both ends learn that the connection is lost; what was under way is lost with it.
    pub(crate) fn cut(&mut self, link: LinkId) -> [Party; 2] {
        self.links.remove(&link).map_or([Party::Nobody; 2], |known| known.ends)
    }

    /// All links of the server lose their end: some peers are told, some are not.
    pub(crate) fn server_is_gone(&mut self) {
        let links: Vec<_> = self.links.iter().map(|(link, known)| (*link, known.ends)).collect();
        for (link, ends) in links {
            for (side, party) in [(Side::Caller, ends[0]), (Side::Answerer, ends[1])] {
                if matches!(party, Party::Door | Party::Worker(_)) {
                    if self.one_in(2) {
                        self.close(link, side);
                    } else {
                        self.leave(link, side);
                    }
                }
            }
        }
    }

    /// [`Event::Patience`] comes after this wait, unless another is set before.
    pub(crate) fn set_patience(&mut self, link: LinkId, side: Side, wait: Duration) {
        self.serial += 1;
        let serial = self.serial;
        if let Some(known) = self.links.get_mut(&link) {
            known.patience[side as usize] = serial;
            self.after(wait, Event::Patience { link, side, serial });
        }
    }

    pub(crate) fn is_patience_over(&self, link: LinkId, side: Side, serial: u64) -> bool {
        self.links.get(&link).is_some_and(|known| known.patience[side as usize] == serial)
    }

    pub(crate) fn latency(&mut self) -> Duration {
        if self.one_in(30) && !self.is_calm() {
            self.within_secs(10)
        } else {
            Duration::from_micros(200 + self.below(80_000))
        }
    }

    pub(crate) fn within_secs(&mut self, secs: u64) -> Duration {
        Duration::from_micros(self.below(secs * 1_000_000))
    }
}
