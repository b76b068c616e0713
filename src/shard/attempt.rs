//! Outbound delivery: a worker finds a host for its destination and sends messages as long as there are any.
//!
//! `delivery` decides which host is next and what an answer means, `smtp::client` what is said; here is the socket.

use std::{cell::RefCell, collections::VecDeque, io, mem, rc::Rc, time::Duration};

use bytes::Bytes;
use delivery::{
    Attempt, AttemptLimits, ConnectFailure, Demand, Fate, Forwarding, Hop, Outcome, ReversePaths, Route,
    Routes, Step, Teller, TlsLevel, fates,
};
use mail::{Domain, ReversePath, Status, TlsDemand};
use queue::AttemptId;
use report::Sent;
use ring::{ConnectOptions, Stream};
use smtp::client::{
    Action, Channel, Client, Ending, Offers, ReplyLimits, ReplyReader, Stage, TlsFailure, Transaction,
    TransactionOutcome,
};
use watch::events::TlsFailed;

use crate::{
    facts,
    hops::{self, Job, Lane, Place, Turn},
    leases::Lease,
    outcomes, reroute,
    settings::Settings,
    shard::{Message, Shard},
    socket::Socket,
};

/// Sends what is in the lane until there is nothing left, or another core is to have the connection.
pub(crate) async fn work(
    shard: Rc<Shard>,
    lane: Rc<Lane>,
    place: Place,
    taken: Rc<RefCell<Vec<AttemptId>>>,
    lease: Lease,
) {
    let mut turn = Turn::new(&shard, lease);
    while let Some(job) = lane.pop() {
        let settings = shard.settings();
        let Some(index) = settings.routes.route_of_key(&lane.key) else {
            hops::postpone(&shard, job);
            break;
        };
        let mut worker = Worker {
            shard: &shard,
            lane: &lane,
            route: settings.routes.route(index).clone(),
            settings: settings.clone(),
            flights: VecDeque::new(),
            given: 0,
            untried: Untried::No,
            progress: false,
            connected: false,
            demand: Routes::demand_of_key(&lane.key),
            turn: &mut turn,
            taken: &taken,
        };
        worker.take(job).await;
        worker.deliver().await;
        if turn.ends(&shard) {
            break;
        }
    }
    // Whoever has waited has it before this core asks for it again.
    drop(turn);
    drop(place);
}

struct Worker<'a> {
    shard: &'a Rc<Shard>,
    lane: &'a Rc<Lane>,
    route: Route,
    settings: Rc<Settings>,
    /// The oldest first; those at the front have been given to the client.
    flights: VecDeque<Flight>,
    given: usize,
    untried: Untried,
    /// Whether the session answered for a message.
    progress: bool,
    connected: bool,
    /// What the mail asks of the connections.
    demand: Demand,
    turn: &'a mut Turn,
    taken: &'a RefCell<Vec<AttemptId>>,
}

/// A message on its way out.
struct Flight {
    job: Job,
    message: Rc<Message>,
    /// Places in the envelope of those who have no outcome yet.
    remaining: Vec<u32>,
    ended: Vec<(u32, Outcome)>,
    began: Duration,
    tls: Option<String>,
}

/// Whether a connection turned out to be of no use before a message was tried on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Untried {
    Yes,
    No,
}

/// How often a message that was never tried is given to a fresh connection.
const RESTARTS_MAX: u32 = 3;
/// Content is written in blocks of this size, each with its own time (RFC 5321 §4.5.3.2.5).
const BLOCK: usize = 256 << 10;

impl Worker<'_> {
    /// Takes a message on; one that cannot be read ends here.
    async fn take(&mut self, job: Job) {
        self.taken.borrow_mut().push(job.attempt);
        let attempt = job.attempt;
        match self.shard.message(job.id).await {
            Ok(message) => {
                let job = if self.shard.reroute.may_concern(&job) {
                    reroute::try_divert(self.shard, job, &message.envelope)
                } else {
                    Some(job)
                };
                let Some(job) = job else { return self.untake(attempt) };
                let remaining = job.recipients.to_vec();
                let began = ring::clock::now();
                self.flights.push_back(Flight {
                    job,
                    message,
                    remaining,
                    ended: Vec::new(),
                    began,
                    tls: None,
                });
            }
            Err(error) => {
                self.untake(job.attempt);
                let text = format!("the message cannot be read: {error}");
                outcomes::end_unattempted(self.shard, job, &outcomes::deferred(Status(4, 3, 0), &text));
            }
        }
    }

    fn untake(&self, attempt: AttemptId) {
        self.taken.borrow_mut().retain(|taken| *taken != attempt);
    }

    async fn deliver(&mut self) {
        let mut attempt = self.attempt();
        let mut step = attempt.start();
        let mut restarts = 0;
        while !self.flights.is_empty() {
            step = match step {
                Step::Ask(questions) => {
                    let mut answers = Vec::with_capacity(questions.len());
                    let asked: Vec<_> =
                        questions.iter().map(|question| self.shard.resolve.ask(question)).collect();
                    for answer in asked {
                        answers.push(answer.await);
                    }
                    attempt.on_answers(&answers)
                }
                Step::Connect(hop) => match self.connect(&hop).await {
                    Err(failure) => {
                        self.shard.metrics.outbound.failed.one();
                        attempt.on_connect_failed(&failure)
                    }
                    Ok(socket) => {
                        let ending = self.session(socket, &hop).await;
                        if self.flights.is_empty() {
                            return;
                        }
                        self.remember_tls(&hop, &ending);
                        if mem::take(&mut self.progress) {
                            // A next hop that closes after every few messages is slow, not out of order.
                            restarts = 0;
                        }
                        // Whoever did not fit into a session is no reason to think ill of the host.
                        let again = mem::replace(&mut self.untried, Untried::No) == Untried::Yes
                            || ending == Ending::Quit;
                        if again && restarts < RESTARTS_MAX {
                            restarts += 1;
                            attempt = self.attempt();
                            attempt.start()
                        } else {
                            attempt.on_ending(&ending)
                        }
                    }
                },
                // No host does all that reports on REQUIRETLS mail would like; lost they must not be (RFC 8689 §5).
                Step::End(Outcome::Failed(_)) if self.demand == Demand::Preferred => {
                    self.demand = Demand::None;
                    attempt = self.attempt();
                    attempt.start()
                }
                Step::End(outcome) => return self.give_up(&outcome),
            };
        }
    }

    fn attempt(&self) -> Attempt {
        let domain = Routes::domain_of_key(&self.lane.key).unwrap_or_else(|| self.some_domain());
        let seed = self.shard.resolve.random();
        let attempt =
            Attempt::new(&self.route, &domain, self.settings.own.clone(), AttemptLimits::default(), seed);
        attempt.demanding(self.demand)
    }

    /// Any recipient's domain: a route to named hosts does not ask.
    fn some_domain(&self) -> Domain {
        let first = self.flights.front().and_then(|flight| flight.message.envelope.recipients.first());
        first.map_or_else(|| self.settings.hostname.clone(), |recipient| recipient.address.domain())
    }

    async fn connect(&self, hop: &Hop) -> Result<Socket, ConnectFailure> {
        let to = std::net::SocketAddr::new(hop.remote.address, hop.remote.port);
        let options = ConnectOptions { local: hop.source, timeout: self.settings.client_timeouts.connect };
        let stream = Stream::connect(to, options).await.map_err(|error| {
            let kind = error.kind();
            if kind == io::ErrorKind::ConnectionRefused {
                ConnectFailure::Refused
            } else if kind == io::ErrorKind::TimedOut {
                ConnectFailure::TimedOut
            } else if matches!(kind, io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) {
                ConnectFailure::Unreachable
            } else {
                ConnectFailure::Other(error.to_string().into())
            }
        })?;
        Ok(Socket::new(stream, self.shard.pool.clone()))
    }

    /// Runs one session: the messages taken on, then whatever the lane has.
    async fn session(&mut self, mut socket: Socket, hop: &Hop) -> Ending {
        let open = OpenConnection::new(self.shard);
        self.connected = true;
        let now = ring::clock::now();
        let level = self.shard.hops.tls_memory.borrow().level(hop.remote.address, hop.tls, now);
        let hostname = self.settings.hostname.as_str();
        let mut client = Client::new(self.route.options.client(hostname, level));
        let mut talk = Talk { reader: ReplyReader::new(ReplyLimits::default()), out: Vec::new() };
        let mut action = client.on_connected(Channel::Clear);
        let ending = loop {
            action = match action {
                Action::Read(stage) => talk.read(&mut client, &mut socket, self.timeout(stage)).await,
                Action::StartTls => self.start_tls(&mut client, &mut socket, hop, level, &mut talk).await,
                Action::SendContent(framing) => {
                    let flight = &mut self.flights[self.given - 1];
                    flight.tls = socket.tls_session().map(|tls| tls.to_string());
                    let mut slices = Vec::with_capacity(8);
                    if !talk.out.is_empty() {
                        slices.push(Bytes::from(mem::take(&mut talk.out)));
                    }
                    framing.frame(&flight.message.content, &mut slices);
                    self.shard.metrics.outbound.bytes.add(flight.message.size);
                    let mut next = client.on_content_sent(&mut talk.out);
                    if client.takes_next()
                        && let Some(transaction) = self.next_transaction(Duration::ZERO).await
                    {
                        next = client.on_transaction(transaction, &mut talk.out);
                    }
                    if !talk.out.is_empty() {
                        slices.push(Bytes::from(mem::take(&mut talk.out)));
                    }
                    match send(&mut socket, &slices, self.timeout(Stage::Content)).await {
                        Ok(()) => next,
                        Err(error) if error.kind() == io::ErrorKind::TimedOut => client.on_timeout(),
                        Err(_) => client.on_closed(),
                    }
                }
                Action::Finished(outcome) => {
                    let offers = client.offers().copied().unwrap_or_default();
                    self.finished(&outcome, hop, &offers);
                    client.on_finished(&mut talk.out)
                }
                Action::Ready => {
                    // An idle connection holds no memory.
                    socket.input().release();
                    match self.next_transaction(self.route.options.idle_max).await {
                        Some(transaction) => client.on_transaction(transaction, &mut talk.out),
                        None => client.on_quit(&mut talk.out),
                    }
                }
                Action::Close(ending) => break ending,
            };
        };
        socket.send(|output| output.append(&mut talk.out));
        socket.stream().deadline().set_after(self.timeout(Stage::Quit));
        let _ = socket.flush().await;
        drop(open);
        ending
    }

    fn timeout(&self, stage: Stage) -> Duration {
        self.settings.client_timeouts.of(stage)
    }

    async fn start_tls(
        &self,
        client: &mut Client,
        socket: &mut Socket,
        hop: &Hop,
        level: TlsLevel,
        talk: &mut Talk,
    ) -> Action {
        socket.send(|output| output.append(&mut talk.out));
        socket.stream().deadline().set_after(self.timeout(Stage::Handshake));
        let config = self.settings.client_tls(level);
        let metrics = &self.shard.metrics.outbound.tls;
        let result = match config {
            Some(config) => {
                // A next hop without a name has an address literal in its place, which is no name for TLS.
                let address = hop.remote.address.to_string();
                let name = if hop.remote.name.starts_with('[') { &address } else { &*hop.remote.name };
                socket.connect_tls(&config, name).await.map_err(|error| error.to_string())
            }
            None => Err("TLS is not configured".to_owned()),
        };
        match result {
            Ok(()) => {
                metrics.done.one();
                client.on_tls(Ok(()), &mut talk.out)
            }
            Err(error) => {
                metrics.failed.one();
                let peer = std::net::SocketAddr::new(hop.remote.address, hop.remote.port);
                TlsFailed { peer, side: "out", error: &error }.emit(ring::clock::unix_micros());
                client.on_tls(Err(TlsFailure(error.into())), &mut talk.out)
            }
        }
    }

    fn remember_tls(&self, hop: &Hop, ending: &Ending) {
        // A certificate that is not good enough for some mail is no reason to send other mail in clear.
        let broken = matches!(ending, Ending::TlsFailed(_) | Ending::Lost(Stage::Handshake, _));
        if broken && hop.tls == TlsLevel::Opportunistic {
            self.shard.hops.tls_memory.borrow_mut().remember(hop.remote.address, ring::clock::now());
        }
    }

    /// The next message to send, if there is one or one comes in time.
    async fn next_transaction(&mut self, patience: Duration) -> Option<Transaction> {
        while self.flights.len() <= self.given {
            // What comes later begins with all that it would like.
            if self.demand != Routes::demand_of_key(&self.lane.key) {
                return None;
            }
            if self.turn.ends(self.shard) {
                return None;
            }
            let job = match self.lane.pop() {
                Some(job) => job,
                None if patience.is_zero() => return None,
                None => self.lane.wait(self.shard, self.turn, patience).await?,
            };
            self.take(job).await;
        }
        let flight = &self.flights[self.given];
        let envelope = &flight.message.envelope;
        let recipients = flight.remaining.iter().filter_map(|place| envelope.recipients.get(*place as usize));
        let transaction = Transaction {
            reverse_path: self.reverse_path(flight),
            recipients: recipients.cloned().collect(),
            size: flight.message.size,
            body: envelope.body,
            utf8: envelope.utf8,
            ret: envelope.ret,
            envelope_id: envelope.envelope_id.clone(),
            by: smtp::By::left(&envelope.handling, facts::now()),
            priority: envelope.handling.priority,
            tls: match self.demand {
                Demand::None => TlsDemand::None,
                Demand::Required | Demand::Preferred => envelope.handling.tls,
            },
            upstream: match self.route.options.forwarding {
                Forwarding::Off => None,
                Forwarding::On => envelope.upstream.clone().map(|mut upstream| {
                    upstream.ident.get_or_insert_with(|| flight.job.id.to_string().into());
                    upstream
                }),
            },
        };
        self.given += 1;
        Some(transaction)
    }

    /// As the route has it: an address of ours tells whom it is about, where it is one.
    fn reverse_path(&self, flight: &Flight) -> ReversePath {
        let reverse_path = &flight.message.envelope.reverse_path;
        let returns = self.settings.returns.as_ref();
        match (self.route.options.reverse_paths, returns, reverse_path) {
            (ReversePaths::Ours, Some(returns), ReversePath::Address(_)) => {
                let place = match flight.remaining[..] {
                    [place] => Some(place),
                    _ => None,
                };
                let ours = returns.paths.address(Sent { id: flight.job.id, place }, facts::now());
                ours.map_or_else(|| reverse_path.clone(), ReversePath::Address)
            }
            // Nobody is told what becomes of a report (RFC 5321 §4.5.5).
            (ReversePaths::Ours | ReversePaths::Kept, _, _) => reverse_path.clone(),
        }
    }

    /// The client is done with the oldest message it was given.
    fn finished(&mut self, outcome: &TransactionOutcome, hop: &Hop, offers: &Offers) {
        let mut flight = self.flights.pop_front().expect("the client was given it");
        self.given -= 1;
        match outcome {
            TransactionOutcome::Untried(_) => self.untried = Untried::Yes,
            TransactionOutcome::Answered(_) => self.progress = true,
        }
        let places = mem::take(&mut flight.remaining);
        let teller = Teller::of(offers, &flight.message.envelope.handling, facts::now());
        for (place, fate) in places.into_iter().zip(fates(outcome, &hop.remote, teller)) {
            match fate {
                Fate::Ended(outcome) => flight.ended.push((place, outcome)),
                Fate::Remains => flight.remaining.push(place),
            }
        }
        if flight.remaining.is_empty() {
            self.end(flight);
        } else {
            self.flights.push_back(flight);
        }
    }

    fn end(&self, flight: Flight) {
        self.untake(flight.job.attempt);
        let took = ring::clock::now().saturating_sub(flight.began);
        let ended = outcomes::Ended {
            outcomes: &flight.ended,
            envelope: Some(&flight.message.envelope),
            took,
            tls: flight.tls.as_deref(),
        };
        outcomes::end(self.shard, &flight.job, &self.lane.key, &ended);
    }

    /// No host is left to try: all that remain get this outcome.
    fn give_up(&mut self, outcome: &Outcome) {
        if !self.connected && matches!(outcome, Outcome::Deferred(_)) {
            // The destination as a whole is out of reach: leave it alone for a while. What waits was not tried.
            if let Some(flight) = self.flights.front() {
                self.shard.queue.borrow_mut().on_destination_failed(flight.job.destination, facts::now());
            }
            for job in self.lane.clear() {
                hops::postpone(self.shard, job);
            }
        }
        for mut flight in mem::take(&mut self.flights) {
            let remaining = mem::take(&mut flight.remaining);
            flight.ended.extend(remaining.into_iter().map(|place| (place, outcome.clone())));
            self.end(flight);
        }
        self.given = 0;
    }
}

/// What goes over the wire, besides content.
struct Talk {
    reader: ReplyReader,
    out: Vec<u8>,
}

impl Talk {
    /// Sends what the client said and reads one reply.
    async fn read(&mut self, client: &mut Client, socket: &mut Socket, patience: Duration) -> Action {
        socket.send(|output| output.append(&mut self.out));
        socket.stream().deadline().set_after(patience);
        loop {
            let input = socket.input();
            let mut bytes = input.bytes();
            let before = bytes.len();
            let read = self.reader.read(&mut bytes);
            let consumed = before - bytes.len();
            input.consume(consumed);
            match read {
                Ok(Some(reply)) => return client.on_reply(reply, &mut self.out),
                Ok(None) => {}
                Err(error) => return client.on_garbage(error),
            }
            match socket.fill().await {
                Ok(0) => return client.on_closed(),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return client.on_timeout(),
                Err(_) => return client.on_closed(),
            }
        }
    }
}

pub(crate) async fn send(socket: &mut Socket, slices: &[Bytes], patience: Duration) -> io::Result<()> {
    let (mut first, mut gathered) = (0, 0);
    for (next, slice) in (1..).zip(slices) {
        gathered += slice.len();
        if gathered >= BLOCK || next == slices.len() {
            socket.stream().deadline().set_after(patience);
            socket.send_slices(&slices[first..next]).await?;
            (first, gathered) = (next, 0);
        }
    }
    Ok(())
}

/// Counts a connection as open until it is dropped.
pub(crate) struct OpenConnection<'a>(&'a Shard);

impl<'a> OpenConnection<'a> {
    pub(crate) fn new(shard: &'a Shard) -> Self {
        shard.metrics.outbound.open.up();
        shard.metrics.outbound.connections.one();
        Self(shard)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.metrics.outbound.open.down();
    }
}
