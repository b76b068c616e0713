//! The stub resolver of one shard: cache, questions in flight, retries over several servers.
//!
//! ```text
//!          table, cache
//!  ask ──────────────────▶ Known
//!   │ nobody asked yet               SERVFAIL: another server
//!   ▼                                timeout: the next, then around again
//!  try over UDP ──answer──▶ cache, Order::Answer to all who wait
//!   │ truncated               ▲
//!   └──▶ try over TCP ────────┘
//! ```
//!
//! The driver owns the sockets. Each query goes out by a UDP socket of its own, connected, from a port that the system
//! chose at random, and the socket is closed when nothing is expected on it any more: a forger has to guess the port,
//! the id and the case of the letters anew each time (RFC 5452 §9.2). When [`Limits::sockets`] are open, queries share
//! them, drawn at random and each for so many queries. Over TCP the driver opens a connection for each try, sends the
//! bytes with their length before them (RFC 1035 §4.2.2) and reads one message; of these there are
//! [`Limits::streams`] at once, and others wait.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    Answer, AnswerError, Failure, LetterCase, Outcome, Question, Security, Server, StaticHosts, Trust,
    cache::Cache, decode_answer, encode_query,
};

/// Who waits for an answer: the driver's own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Waiter(pub u64);

/// The number of one try to get an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// The number of one of our UDP sockets. None is given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Socket(u64);

/// What asking gives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Asked {
    /// The answer is known, or known not to come.
    Known(Arc<Answer>),
    /// An [`Order::Answer`] for this waiter will come; it may already stand among the orders.
    Waiting,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Send a query.
    Send {
        /// The number of this try, for [`Resolver::on_stream_answer`] and [`Resolver::on_failed`].
        ticket: Ticket,
        /// To whom.
        server: SocketAddr,
        /// How.
        transport: Transport,
        /// The message; over TCP its length goes before it.
        bytes: Vec<u8>,
    },
    /// Close a UDP socket: nothing is expected on it any more.
    Close {
        /// Which.
        socket: Socket,
    },
    /// Give the answer to who waits for it.
    Answer {
        /// Who.
        waiter: Waiter,
        /// What.
        answer: Arc<Answer>,
    },
}

/// How a query travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// By this UDP socket; one that the driver does not know is to be opened.
    Udp {
        /// Which.
        socket: Socket,
    },
    /// Over a connection of its own. The driver tells of its end once: by [`Resolver::on_stream_answer`], or by
    /// [`Resolver::on_failed`].
    Tcp,
}

/// Upper bounds, and the times that rule the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Questions being asked at once.
    pub questions_max: usize,
    /// Who may wait for one of them.
    pub waiters_max: usize,
    /// Octets the cache may take, about.
    pub cache_size_max: usize,
    /// No answer is forgotten earlier.
    pub ttl_min: Duration,
    /// No answer is kept longer.
    pub ttl_max: Duration,
    /// No absence is kept longer (RFC 2308 §5 finds one to three hours good).
    pub negative_ttl_max: Duration,
    /// How long a failure is kept; at most five minutes (RFC 2308 §7).
    pub failure_ttl: Duration,
    /// How long to wait for a server.
    pub timeout: Duration,
    /// How often to go through the servers.
    pub attempts: u32,
    /// The largest answer over UDP that is asked for; at least 512 (RFC 6891 §6.2.3).
    pub payload_max: u16,
    /// UDP sockets open at once, at least 1.
    pub sockets: u16,
    /// TCP connections open at once, at least 1.
    pub streams: u16,
}

/// What has happened so far, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Questions asked.
    pub asked: u64,
    /// Of these, answered by the cache or the table.
    pub known: u64,
    /// Queries sent.
    pub sent: u64,
    /// Of these, over TCP.
    pub sent_tcp: u64,
    /// Tries that ended without an answer in time.
    pub timeouts: u64,
    /// Messages that answered nothing we had asked: late, or forged.
    pub foreign: u64,
    /// Questions that ended with [`Outcome::TempFail`].
    pub failed: u64,
}

/// The stub resolver of one shard.
#[derive(Debug)]
pub struct Resolver {
    limits: Limits,
    servers: Vec<ServerState>,
    /// The server that answered last is asked first.
    preferred: usize,
    hosts: StaticHosts,
    cache: Cache,
    questions: HashMap<Question, InFlight>,
    tries: HashMap<Ticket, Try>,
    over_udp: HashMap<UdpKey, Ticket>,
    sockets: Vec<Open>,
    next_socket: u64,
    /// Tries whose connection the driver has.
    streams: HashSet<Ticket>,
    /// Tries that wait for one of these to end.
    streams_waiting: VecDeque<(Ticket, Vec<u8>)>,
    timers: BTreeSet<(Duration, Ticket)>,
    purge_at: Duration,
    tickets: u64,
    counters: Counters,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            questions_max: 4096,
            waiters_max: 10_000,
            cache_size_max: 16 << 20,
            ttl_min: Duration::from_secs(5),
            ttl_max: Duration::from_secs(86_400),
            negative_ttl_max: Duration::from_secs(3600),
            failure_ttl: Duration::from_secs(5),
            timeout: Duration::from_secs(3),
            attempts: 2,
            // Fits unfragmented into the packets of any network.
            payload_max: 1232,
            sockets: 64,
            streams: 16,
        }
    }
}

#[derive(Debug)]
struct ServerState {
    server: Server,
    /// It did not answer; until then others come first.
    down_until: Duration,
}

/// A question nobody has answered yet.
#[derive(Debug, Default)]
struct InFlight {
    waiters: Vec<Waiter>,
    /// Tries that may still be answered, the latest last.
    open: Vec<Ticket>,
    /// The servers tried over UDP, as often as they were.
    tried: Vec<SocketAddr>,
    /// The servers that have said they cannot tell, or cannot be reached.
    spent: Vec<SocketAddr>,
}

#[derive(Debug)]
struct Try {
    question: Question,
    id: u16,
    case: LetterCase,
    server: SocketAddr,
    transport: Transport,
    deadline: Duration,
}

/// How a query is to travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Udp,
    Tcp,
}

/// What an answer over UDP is known by: id and socket.
type UdpKey = (u16, Socket);

/// A UDP socket that the driver has.
#[derive(Debug)]
struct Open {
    socket: Socket,
    server: SocketAddr,
    /// Tries that may still be answered on it.
    tries: u32,
    /// Queries sent by it.
    sent: u32,
}

// How long a server that was silent is asked last.
const DOWN: Duration = Duration::from_secs(30);
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
// When sockets are shared: so many queries, then others are drawn, until this one is closed.
const SENT_MAX: u32 = 32;
// With 4096 questions in flight, eight taken ids in a row are past belief.
const ID_TRIES: u32 = 8;

impl Resolver {
    /// A resolver with an empty cache.
    pub fn new(limits: Limits, servers: &[Server], hosts: StaticHosts) -> Self {
        assert!(limits.sockets > 0 && limits.streams > 0, "a resolver needs sockets");
        Self {
            limits,
            servers: states(servers),
            preferred: 0,
            hosts,
            cache: Cache::new(limits.cache_size_max),
            questions: HashMap::new(),
            tries: HashMap::new(),
            over_udp: HashMap::new(),
            sockets: Vec::new(),
            next_socket: 0,
            streams: HashSet::new(),
            streams_waiting: VecDeque::new(),
            timers: BTreeSet::new(),
            purge_at: Duration::ZERO,
            tickets: 0,
            counters: Counters::default(),
        }
    }

    /// Asks. Whoever asks what is being asked already shares the answer.
    ///
    /// `random` gives numbers that nobody can guess.
    pub fn ask(
        &mut self,
        question: &Question,
        waiter: Waiter,
        now: Duration,
        random: &mut dyn FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) -> Asked {
        self.counters.asked += 1;
        let known = self.hosts.answer(question).or_else(|| self.cache.get(question, now).cloned());
        if let Some(answer) = known {
            self.counters.known += 1;
            return Asked::Known(answer);
        }
        let questions = self.questions.len();
        let refused = |failure| Asked::Known(Arc::new(Answer::failed(failure, Duration::ZERO)));
        if let Some(in_flight) = self.questions.get_mut(question) {
            if in_flight.waiters.len() >= self.limits.waiters_max {
                return refused(Failure::Overload);
            }
            in_flight.waiters.push(waiter);
            return Asked::Waiting;
        }
        if questions >= self.limits.questions_max {
            return refused(Failure::Overload);
        }
        let in_flight = InFlight { waiters: vec![waiter], ..InFlight::default() };
        self.questions.insert(question.clone(), in_flight);
        self.try_next(question, Failure::Unusable, now, random, orders);
        Asked::Waiting
    }

    /// What is remembered of a question is not: the next answer is asked for. An answer of the table stays.
    pub fn forget_answer(&mut self, question: &Question) {
        self.cache.remove(question);
    }

    /// Nobody waits under this number any more. The answer, when it comes, is kept all the same.
    pub fn forget(&mut self, question: &Question, waiter: Waiter) {
        if let Some(in_flight) = self.questions.get_mut(question) {
            in_flight.waiters.retain(|w| *w != waiter);
        }
    }

    /// A datagram came to a UDP socket, from the server that it is connected to.
    pub fn on_datagram(
        &mut self,
        socket: Socket,
        bytes: &[u8],
        now: Duration,
        random: &mut dyn FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) {
        let id = bytes.first_chunk().map(|id| u16::from_be_bytes(*id));
        match id.and_then(|id| self.over_udp.get(&(id, socket)).copied()) {
            Some(ticket) => self.on_answer(ticket, bytes, now, random, orders),
            None => self.counters.foreign += 1,
        }
    }

    /// The server sent a message over the connection of this try; its length is already removed.
    pub fn on_stream_answer(
        &mut self,
        ticket: Ticket,
        bytes: &[u8],
        now: Duration,
        random: &mut dyn FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) {
        self.on_stream_ended(ticket, orders);
        self.on_answer(ticket, bytes, now, random, orders);
    }

    /// The try could not be sent, or its connection ended without an answer.
    pub fn on_failed(
        &mut self,
        ticket: Ticket,
        now: Duration,
        random: &mut dyn FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) {
        self.on_stream_ended(ticket, orders);
        self.on_lost(ticket, now, random, orders);
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Duration, random: &mut dyn FnMut() -> u64, orders: &mut Vec<Order>) {
        let mut late = Vec::new();
        while let Some((deadline, ticket)) = self.timers.first().copied() {
            if deadline > now {
                break;
            }
            self.timers.remove(&(deadline, ticket));
            self.counters.timeouts += 1;
            if let Some(lost) = self.tries.get(&ticket) {
                late.push((lost.question.clone(), lost.server));
            }
        }
        // Their tries stay open: a late answer is an answer, as long as nobody needs the socket.
        for (question, server) in late {
            self.mark_down(server, now);
            self.try_next(&question, Failure::Timeout, now, random, orders);
        }
        if self.purge_at <= now {
            self.cache.purge(now);
            self.purge_at = now + PURGE_INTERVAL;
        }
    }

    /// Other limits, other servers and another table are in force. What is being asked goes on.
    ///
    /// # Panics
    /// Without sockets.
    pub fn configure(&mut self, limits: Limits, servers: &[Server], hosts: StaticHosts) {
        assert!(limits.sockets > 0 && limits.streams > 0, "a resolver needs sockets");
        self.limits = limits;
        self.servers = states(servers);
        self.preferred = 0;
        self.hosts = hosts;
        self.cache = Cache::new(limits.cache_size_max);
    }

    /// When to call [`Resolver::on_tick`] at the latest.
    pub fn wake_after(&self) -> Option<Duration> {
        let purge = (self.cache.len() > 0).then_some(self.purge_at);
        let timer = self.timers.first().map(|(deadline, _)| *deadline);
        timer.into_iter().chain(purge).min()
    }

    /// What has happened so far.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// How many answers are in the cache.
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// How many questions are being asked.
    pub fn in_flight(&self) -> usize {
        self.questions.len()
    }

    fn on_answer(
        &mut self,
        ticket: Ticket,
        bytes: &[u8],
        now: Duration,
        random: &mut dyn FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) {
        let Some(open) = self.tries.get(&ticket) else {
            self.counters.foreign += 1;
            return;
        };
        let (question, server) = (open.question.clone(), open.server);
        let result = decode_answer(bytes, open.id, &question, open.case);
        match (result, open.transport) {
            (Ok(answer), _) => {
                let answer = self.believe(answer, server);
                self.finish(&question, answer, now, orders);
            }
            // A forgery must not end the wait for the true answer (RFC 5452 §9.1).
            (Err(AnswerError::Foreign), Transport::Udp { .. }) => self.counters.foreign += 1,
            (Err(AnswerError::Truncated), Transport::Udp { .. }) => {
                self.end_try(ticket, orders);
                self.send(&question, server, Wire::Tcp, LetterCase::Lower, now, random, orders);
            }
            (Err(AnswerError::Foreign | AnswerError::Truncated), Transport::Tcp) => {
                self.on_lost(ticket, now, random, orders);
            }
            (Err(AnswerError::Failed(failure)), _) => {
                if let Some(lost) = self.end_try(ticket, orders) {
                    self.on_try_lost(&lost, failure, now, random, orders);
                }
            }
        }
    }

    fn on_lost(
        &mut self,
        ticket: Ticket,
        now: Duration,
        random: &mut dyn FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) {
        if let Some(lost) = self.end_try(ticket, orders) {
            self.mark_down(lost.server, now);
            self.on_try_lost(&lost, Failure::Unusable, now, random, orders);
        }
    }

    /// A connection has ended: whoever has waited longest for one gets it.
    fn on_stream_ended(&mut self, ticket: Ticket, orders: &mut Vec<Order>) {
        if !self.streams.remove(&ticket) {
            return;
        }
        while self.streams.len() < usize::from(self.limits.streams) {
            let Some((ticket, bytes)) = self.streams_waiting.pop_front() else { return };
            // One that has ended meanwhile needs none.
            if let Some(waiting) = self.tries.get(&ticket) {
                let server = waiting.server;
                self.streams.insert(ticket);
                orders.push(Order::Send { ticket, server, transport: Transport::Tcp, bytes });
            }
        }
    }

    /// A server has spoken, or cannot be reached: it is of no more use to this question, another may be.
    fn on_try_lost(
        &mut self,
        lost: &Try,
        failure: Failure,
        now: Duration,
        random: &mut dyn FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) {
        let Some(in_flight) = self.questions.get_mut(&lost.question) else { return };
        in_flight.spent.push(lost.server);
        let timed = |ticket| self.timers.contains(&(self.tries[ticket].deadline, *ticket));
        if !in_flight.open.iter().any(timed) {
            self.try_next(&lost.question, failure, now, random, orders);
        }
    }

    /// Tries the server that this question has tried least, or gives up.
    fn try_next(
        &mut self,
        question: &Question,
        failure: Failure,
        now: Duration,
        random: &mut dyn FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) {
        let Some(in_flight) = self.questions.get_mut(question) else { return };
        let count = self.servers.len();
        let times = |address| in_flight.tried.iter().filter(|tried| **tried == address).count();
        let attempts = self.limits.attempts.max(1) as usize;
        let best = (0..count)
            .map(|i| &self.servers[(self.preferred + i) % count])
            .filter(|state| {
                let address = state.server.address;
                times(address) < attempts && !in_flight.spent.contains(&address)
            })
            .min_by_key(|state| (times(state.server.address), state.down_until > now));
        let Some(server) = best.map(|state| state.server.address) else {
            return self.finish(question, Answer::failed(failure, self.limits.failure_ttl), now, orders);
        };
        // A server that does not repeat the letters' case gets another chance.
        let case = if times(server) == 0 { LetterCase::Mixed(random()) } else { LetterCase::Lower };
        in_flight.tried.push(server);
        self.send(question, server, Wire::Udp, case, now, random, orders);
    }

    /// The UDP socket for the next query: a fresh one, or one of those that there are; `None` when all there may be are
    /// for other servers. Each server has its share, so that a silent one does not keep those from the next.
    fn socket(
        &mut self,
        server: SocketAddr,
        random: &mut dyn FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) -> Option<Socket> {
        let sockets_max = usize::from(self.limits.sockets);
        let share = (sockets_max / self.servers.len().max(1)).max(1);
        let of_server = self.sockets.iter().filter(|open| open.server == server).count();
        if of_server < share {
            if self.sockets.len() >= sockets_max {
                self.give_up_a_socket(orders);
            }
            if self.sockets.len() < sockets_max {
                self.next_socket += 1;
                let socket = Socket(self.next_socket);
                self.sockets.push(Open { socket, server, tries: 0, sent: 0 });
                return Some(socket);
            }
        }
        let same = self.sockets.iter().filter(|open| open.server == server);
        let fresh = same.clone().filter(|open| open.sent < SENT_MAX);
        let open = match fresh.clone().count() {
            // All the crowd on one, so that the others come to their end.
            0 => same.max_by_key(|open| open.sent),
            count => fresh.clone().nth((random() % count as u64) as usize),
        };
        Some(open?.socket)
    }

    /// Closes a socket on which nothing is expected in time any more.
    fn give_up_a_socket(&mut self, orders: &mut Vec<Order>) {
        let timed = |ticket: &Ticket| self.timers.contains(&(self.tries[ticket].deadline, *ticket));
        let awaited = self.over_udp.iter().filter(|(_, ticket)| timed(ticket));
        let in_time: HashSet<Socket> = awaited.map(|((_, socket), _)| *socket).collect();
        let Some(late) = self.sockets.iter().map(|open| open.socket).find(|one| !in_time.contains(one))
        else {
            return;
        };
        let on_it = self.over_udp.iter().filter(|((_, socket), _)| *socket == late);
        let tickets: Vec<_> = on_it.map(|(_, ticket)| *ticket).collect();
        for ticket in tickets {
            self.end_try(ticket, orders);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one try is all of this")]
    fn send(
        &mut self,
        question: &Question,
        server: SocketAddr,
        wire: Wire,
        case: LetterCase,
        now: Duration,
        random: &mut dyn FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) {
        let socket = match wire {
            Wire::Udp => self.socket(server, random, orders),
            Wire::Tcp => None,
        };
        // A server may be asked over TCP at any time (RFC 7766 §5).
        let transport = socket.map_or(Transport::Tcp, |socket| Transport::Udp { socket });
        let free_id = |id: &u16| match transport {
            Transport::Udp { socket } => !self.over_udp.contains_key(&(*id, socket)),
            Transport::Tcp => true,
        };
        let Some(id) = (0..ID_TRIES).map(|_| random() as u16).find(free_id) else {
            return self.finish(question, Answer::failed(Failure::Overload, Duration::ZERO), now, orders);
        };
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let wait = match transport {
            Transport::Udp { socket } => {
                self.over_udp.insert((id, socket), ticket);
                let open = self.sockets.iter_mut().find(|open| open.socket == socket).expect("just drawn");
                open.tries += 1;
                open.sent += 1;
                self.limits.timeout
            }
            // A handshake comes first.
            Transport::Tcp => {
                self.counters.sent_tcp += 1;
                self.limits.timeout * 2
            }
        };
        self.counters.sent += 1;
        let deadline = now + wait;
        self.timers.insert((deadline, ticket));
        let bytes = encode_query(id, question, case, self.limits.payload_max);
        self.tries.insert(ticket, Try { question: question.clone(), id, case, server, transport, deadline });
        let in_flight = self.questions.get_mut(question).expect("only questions in flight are sent");
        in_flight.open.push(ticket);
        if transport == Transport::Tcp {
            if self.streams.len() >= usize::from(self.limits.streams) {
                return self.streams_waiting.push_back((ticket, bytes));
            }
            self.streams.insert(ticket);
        }
        orders.push(Order::Send { ticket, server, transport, bytes });
    }

    fn finish(&mut self, question: &Question, answer: Answer, now: Duration, orders: &mut Vec<Order>) {
        let Some(in_flight) = self.questions.remove(question) else { return };
        for ticket in in_flight.open {
            self.end_try(ticket, orders);
        }
        let limits = &self.limits;
        // It says itself how long others may keep it.
        let kept = match answer.outcome {
            Outcome::Found(_) => answer.ttl.min(limits.ttl_max).max(limits.ttl_min),
            Outcome::NoData | Outcome::NxDomain => {
                answer.ttl.min(limits.negative_ttl_max).max(limits.ttl_min)
            }
            Outcome::TempFail(_) => {
                self.counters.failed += 1;
                answer.ttl
            }
        };
        let expires_at = now + kept;
        let answer = Arc::new(answer);
        if expires_at > now {
            if self.cache.len() == 0 {
                self.purge_at = now + PURGE_INTERVAL;
            }
            self.cache.insert(question.clone(), Arc::clone(&answer), expires_at);
        }
        let answers = in_flight.waiters.into_iter();
        orders.extend(answers.map(|waiter| Order::Answer { waiter, answer: Arc::clone(&answer) }));
    }

    fn end_try(&mut self, ticket: Ticket, orders: &mut Vec<Order>) -> Option<Try> {
        let ended = self.tries.remove(&ticket)?;
        self.timers.remove(&(ended.deadline, ticket));
        match ended.transport {
            Transport::Udp { socket } => {
                self.over_udp.remove(&(ended.id, socket));
                let place = self.sockets.iter().position(|open| open.socket == socket);
                let place = place.expect("a socket is open while something is expected on it");
                self.sockets[place].tries -= 1;
                if self.sockets[place].tries == 0 {
                    self.sockets.swap_remove(place);
                    orders.push(Order::Close { socket });
                }
            }
            Transport::Tcp => self.streams_waiting.retain(|(waiting, _)| *waiting != ticket),
        }
        if let Some(in_flight) = self.questions.get_mut(&ended.question) {
            in_flight.open.retain(|open| *open != ticket);
        }
        Some(ended)
    }

    /// The server is well, and its AD bit counts if its word does.
    fn believe(&mut self, answer: Answer, server: SocketAddr) -> Answer {
        let mut trust = Trust::NotBelieved;
        if let Some(i) = self.servers.iter().position(|state| state.server.address == server) {
            self.preferred = i;
            self.servers[i].down_until = Duration::ZERO;
            trust = self.servers[i].server.trust;
        }
        match trust {
            Trust::Believed => answer,
            Trust::NotBelieved => Answer { security: Security::Unproven, ..answer },
        }
    }

    fn mark_down(&mut self, server: SocketAddr, now: Duration) {
        let state = self.servers.iter_mut().find(|state| state.server.address == server);
        if let Some(state) = state {
            state.down_until = now + DOWN;
        }
    }
}

fn states(servers: &[Server]) -> Vec<ServerState> {
    servers.iter().map(|server| ServerState { server: *server, down_until: Duration::ZERO }).collect()
}

#[cfg(test)]
#[path = "resolver_test.rs"]
mod test;
