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
//! The driver owns the sockets. For each server it keeps [`Limits::sockets`] UDP sockets open, connected, on
//! ports the system chose at random, and renews them from time to time: a forger has to guess the port,
//! the id, the socket and the case of the letters (RFC 5452 §4). Over TCP it opens a connection for each
//! try, sends the bytes with their length before them (RFC 1035 §4.2.2) and reads one message.

use std::{
    collections::{BTreeSet, HashMap},
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
    /// From this one of the server's UDP sockets, counted from 0.
    Udp {
        /// Less than [`Limits::sockets`].
        socket: u16,
    },
    /// Over a connection of its own.
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
    /// UDP sockets for each server, at least 1.
    pub sockets: u16,
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
            sockets: 8,
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

/// What an answer over UDP is known by: id, server, our socket.
type UdpKey = (u16, SocketAddr, u16);

// How long a server that was silent is asked last.
const DOWN: Duration = Duration::from_secs(30);
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
// With 4096 questions in flight, eight taken ids in a row are past belief.
const ID_TRIES: u32 = 8;

impl Resolver {
    /// A resolver with an empty cache.
    pub fn new(limits: Limits, servers: &[Server], hosts: StaticHosts) -> Self {
        assert!(limits.sockets > 0, "a resolver needs a socket");
        Self {
            limits,
            servers: states(servers),
            preferred: 0,
            hosts,
            cache: Cache::new(limits.cache_size_max),
            questions: HashMap::new(),
            tries: HashMap::new(),
            over_udp: HashMap::new(),
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

    /// Nobody waits under this number any more. The answer, when it comes, is kept all the same.
    pub fn forget(&mut self, question: &Question, waiter: Waiter) {
        if let Some(in_flight) = self.questions.get_mut(question) {
            in_flight.waiters.retain(|w| *w != waiter);
        }
    }

    /// A datagram came from a server to one of the sockets we have for it.
    pub fn on_datagram(
        &mut self,
        server: SocketAddr,
        socket: u16,
        bytes: &[u8],
        now: Duration,
        random: &mut dyn FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) {
        let id = bytes.first_chunk().map(|id| u16::from_be_bytes(*id));
        match id.and_then(|id| self.over_udp.get(&(id, server, socket)).copied()) {
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
        if let Some(lost) = self.end_try(ticket) {
            self.mark_down(lost.server, now);
            self.on_try_lost(&lost, Failure::Unusable, now, random, orders);
        }
    }

    /// Time has passed.
    pub fn on_tick(&mut self, now: Duration, random: &mut dyn FnMut() -> u64, orders: &mut Vec<Order>) {
        while let Some((deadline, ticket)) = self.timers.first().copied() {
            if deadline > now {
                break;
            }
            self.timers.remove(&(deadline, ticket));
            self.counters.timeouts += 1;
            // The try stays open: a late answer is an answer.
            if let Some(lost) = self.tries.get(&ticket) {
                let (question, server) = (lost.question.clone(), lost.server);
                self.mark_down(server, now);
                self.try_next(&question, Failure::Timeout, now, random, orders);
            }
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
        assert!(limits.sockets > 0, "a resolver needs a socket");
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
                self.end_try(ticket);
                self.send(&question, server, Transport::Tcp, LetterCase::Lower, now, random, orders);
            }
            (Err(AnswerError::Foreign | AnswerError::Truncated), Transport::Tcp) => {
                self.on_failed(ticket, now, random, orders);
            }
            (Err(AnswerError::Failed(failure)), _) => {
                if let Some(lost) = self.end_try(ticket) {
                    self.on_try_lost(&lost, failure, now, random, orders);
                }
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
        let socket = (random() % u64::from(self.limits.sockets)) as u16;
        self.send(question, server, Transport::Udp { socket }, case, now, random, orders);
    }

    #[expect(clippy::too_many_arguments, reason = "one try is all of this")]
    fn send(
        &mut self,
        question: &Question,
        server: SocketAddr,
        transport: Transport,
        case: LetterCase,
        now: Duration,
        random: &mut dyn FnMut() -> u64,
        orders: &mut Vec<Order>,
    ) {
        let free_id = |id: &u16| match transport {
            Transport::Udp { socket } => !self.over_udp.contains_key(&(*id, server, socket)),
            Transport::Tcp => true,
        };
        let Some(id) = (0..ID_TRIES).map(|_| random() as u16).find(free_id) else {
            return self.finish(question, Answer::failed(Failure::Overload, Duration::ZERO), now, orders);
        };
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let wait = match transport {
            Transport::Udp { socket } => {
                self.over_udp.insert((id, server, socket), ticket);
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
        orders.push(Order::Send { ticket, server, transport, bytes });
    }

    fn finish(&mut self, question: &Question, mut answer: Answer, now: Duration, orders: &mut Vec<Order>) {
        let Some(in_flight) = self.questions.remove(question) else { return };
        for ticket in in_flight.open {
            self.end_try(ticket);
        }
        let limits = &self.limits;
        answer.ttl = match answer.outcome {
            Outcome::Found(_) => answer.ttl.min(limits.ttl_max).max(limits.ttl_min),
            Outcome::NoData | Outcome::NxDomain => {
                answer.ttl.min(limits.negative_ttl_max).max(limits.ttl_min)
            }
            Outcome::TempFail(_) => {
                self.counters.failed += 1;
                answer.ttl
            }
        };
        let expires_at = now + answer.ttl;
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

    fn end_try(&mut self, ticket: Ticket) -> Option<Try> {
        let ended = self.tries.remove(&ticket)?;
        self.timers.remove(&(ended.deadline, ticket));
        if let Transport::Udp { socket } = ended.transport {
            self.over_udp.remove(&(ended.id, ended.server, socket));
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
