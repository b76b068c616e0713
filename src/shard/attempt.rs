//! Outbound delivery: a worker finds a host for its destination and sends messages as long as there are any.
//!
//! `delivery` decides which host is next and what an answer means, `smtp::client` what is said; here is the socket.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    mem,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bridge::{Seat, Ticket};
use bytes::Bytes;
use delivery::{
    Attempt, AttemptLimits, Basis, Demand, Fate, Forwarding, Hop, Judgement, Outcome, ReversePaths, Route,
    Routes, Step, Teller, TlsLevel, TlsPolicy, Via,
    dane::DaneUsage,
    egress::{Found, Trouble},
    fates,
    sts::Policy,
    tally::TlsResult,
};
use dns::{Answer, Kind, Name, Question};
use mail::{Domain, ReversePath, Status, TenantId, TlsDemand};
use queue::AttemptId;
use report::{CampaignMark, Sent};
use smtp::client::{
    Action, Channel, Client, Ending, Login, NoLogin, Offers, Protocol, Stage, TlsFailure, Transaction,
    TransactionOutcome,
};
use watch::events::TlsFailed;

use crate::{
    consent, conversions,
    egress::{self, Outlet},
    facts, health,
    hops::{self, Job, Lane, Place, Turn},
    leases::Lease,
    locate, logins,
    lots::Owned,
    outbound_tls::{self, Kept},
    outcomes,
    paces::Counted,
    race::{self, Finish, Told},
    reroute,
    settings::Settings,
    shard::{Message, Shard},
    socket::Socket,
    talk::{OpenConnection, Talk, transaction},
    throttles,
};

/// Sends what is in the lane until there is nothing left, or another core is to have the connection.
pub(crate) async fn work(
    shard: Rc<Shard>,
    lane: Rc<Lane>,
    place: Place,
    taken: Rc<RefCell<Vec<AttemptId>>>,
    may: (Lease, Option<Seat>),
) {
    let mut turn = Turn::new(&shard, &lane, may);
    while let Some(job) = lane.pop() {
        let settings = shard.settings();
        let Some(mut route) = lane.route(&settings).cloned() else {
            hops::postpone(&shard, job);
            break;
        };
        let Ok(outlet) = settings.egress.outlet_of(&lane.key) else {
            // A reload has taken its source away.
            shard.queue.borrow_mut().on_astray(job.destination);
            hops::postpone(&shard, job);
            break;
        };
        if let Some(outlet) = &outlet {
            let source = &outlet.source;
            (route.options.sources, route.options.family) = (source.seen(), source.family());
            route.options.identity = source.identity.clone().or(route.options.identity);
        }
        let shape = settings.shape(&lane.key, &route);
        (route.options.transactions_max, route.options.idle_max) = (shape.transactions_max, shape.idle);
        let mut worker = Worker {
            shard: &shard,
            lane: &lane,
            route,
            outlet,
            recipients_max: shape.recipients_max,
            connection_rate: shape.connection_rate,
            settings: settings.clone(),
            flights: VecDeque::new(),
            given: 0,
            untried: Untried::No,
            progress: false,
            connected: false,
            shut_out: false,
            beyond: Cell::default(),
            asked_for: None,
            owned: Owned::default(),
            exchanges: None,
            sts_policy: None,
            alone: false,
            counted: true,
            policy: None,
            demand: Demand::None,
            turn: &mut turn,
            taken: &taken,
        };
        worker.demand = worker.asked();
        worker.take(job).await;
        match worker.route.via.clone() {
            Via::Pool(means) => worker.dispatch(&means).await,
            Via::Mx(_) | Via::NextHop(_) | Via::Discard | Via::Hold | Via::Reports => worker.deliver().await,
        }
        // The next message needs a new connection, for which it may have to wait.
        if turn.ends(&shard) || lane.wait_to_open(&shard).is_some() || lane.count_opening(&shard).is_err() {
            break;
        }
    }
    // Whoever has waited has it before this core asks for it again.
    drop(turn);
    drop(place);
}

mod dispatch;

struct Worker<'a> {
    shard: &'a Rc<Shard>,
    lane: &'a Rc<Lane>,
    route: Route,
    /// Where its connections come from, if that was chosen.
    outlet: Option<Rc<Outlet>>,
    /// Of one transaction.
    recipients_max: usize,
    connection_rate: Option<config::Rate>,
    settings: Rc<Settings>,
    /// The oldest first; those at the front have been given to the client.
    flights: VecDeque<Flight>,
    given: usize,
    untried: Untried,
    /// Whether the session answered for a message.
    progress: bool,
    connected: bool,
    /// Whether a host did not let us log in.
    shut_out: bool,
    /// The address of a host that cannot be reached from the source, if all that were tried are such.
    beyond: Cell<Beyond>,
    /// The destination whose hosts are asked for, and its domain, when they are.
    asked_for: Option<(Box<str>, Domain)>,
    /// Whose mail that is.
    owned: Owned,
    /// What the DNS says which hosts these are.
    exchanges: Option<Arc<Answer>>,
    sts_policy: Option<Arc<Policy>>,
    /// Whether the connection is for mail of that destination alone: what has been found out would make it another site.
    alone: bool,
    /// Whether the next connection is counted already.
    counted: bool,
    /// By which the protection of the last connection was decided.
    policy: Option<TlsPolicy>,
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
    /// What is sent in the place of its content on this connection.
    converted: Option<Vec<Bytes>>,
}

/// Whether a connection turned out to be of no use before a message was tried on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Untried {
    Yes,
    No,
}

/// Whether the hosts are those of a family that the source does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Beyond {
    /// Nobody has looked.
    #[default]
    Unknown,
    /// All so far, this one among them.
    All(IpAddr),
    /// There are others.
    No,
}

/// How often a message that was never tried is given to a fresh connection.
const RESTARTS_MAX: u32 = 3;

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
                let ended = consent::sift(self.shard, &message.envelope, &job.recipients);
                self.shard.metrics.delivery.suppressed.add(ended.len() as u64);
                let mut remaining = job.recipients.to_vec();
                remaining.retain(|place| ended.iter().all(|(sifted, _)| sifted != place));
                let began = ring::clock::now();
                let flight = Flight { job, message, remaining, ended, began, tls: None, converted: None };
                if flight.remaining.is_empty() {
                    self.end(flight);
                } else {
                    self.flights.push_back(flight);
                }
            }
            Err(error) => {
                self.untake(job.attempt);
                let text = format!("the message cannot be read: {error}");
                outcomes::end_unattempted(self.shard, job, &outcomes::deferred(Status(4, 3, 0), &text));
            }
        }
    }

    /// What the mail of this lane asks of its connections.
    fn asked(&self) -> Demand {
        match self.route.options.protocol {
            Protocol::Smtp => Routes::demand_of_key(&self.lane.key),
            // REQUIRETLS is for those who relay (RFC 8689 §4.2.1). Here it is delivered, as the operator has said, and goes no further.
            Protocol::Lmtp => Demand::None,
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
                    if let (Some(Question { kind: Kind::Mx, .. }), Some(answer)) =
                        (questions.first(), answers.first())
                    {
                        self.exchanges = Some(answer.clone());
                        if let Some(tls) = self.tls_of_site(answer) {
                            attempt.hold_to_at_least(tls);
                        }
                    }
                    attempt.on_answers(&answers)
                }
                Step::AskPolicy(domain, id) => {
                    let found = outbound_tls::policy(self.shard, &domain, id.as_deref()).await;
                    if let (Some(failure), Some(domain)) = (&found.failure, self.reported()) {
                        outbound_tls::report_policy(self.shard, &domain, failure);
                    }
                    self.sts_policy.clone_from(&found.policy);
                    attempt.on_policy(found.policy)
                }
                Step::Connect(hop) if !self.keep_apart(&hop) => {
                    // It was for others, who have been given back.
                    drop(hop);
                    break;
                }
                Step::Connect(hop) => match self.login().await {
                    Err(why) => {
                        let ending = Ending::NoLogin(why);
                        self.tell_of_login(&hop, &ending);
                        attempt.on_ending(&ending)
                    }
                    Ok(login) => {
                        let (hop, ending) = match self.connect(&mut attempt, hop).await {
                            Finish::NoSource(trouble) => {
                                self.leave_source(trouble);
                                break;
                            }
                            Finish::Nobody(next) => {
                                step = next;
                                self.report_findings(&mut attempt);
                                continue;
                            }
                            Finish::Connected(hop, stream) => {
                                if !self.keep_apart(&hop) {
                                    drop(stream);
                                    break;
                                }
                                let socket = Socket::new(stream, self.shard.pool.clone());
                                let ending = self.session(socket, &hop, login).await;
                                (hop, ending)
                            }
                        };
                        if self.flights.is_empty() {
                            return;
                        }
                        self.remember_tls(&hop, &ending);
                        self.tell_of_door(&ending);
                        self.tell_of_login(&hop, &ending);
                        if matches!(ending, Ending::TlsNotOffered) {
                            self.count_policy(Kept::No);
                            self.report(&hop, Err((TlsResult::StartTlsNotSupported, None)));
                        }
                        if mem::take(&mut self.progress) {
                            // A next hop that closes after every few messages is slow, not out of order.
                            restarts = 0;
                        }
                        // Whoever did not fit into a session is no reason to think ill of the host.
                        let again = mem::replace(&mut self.untried, Untried::No) == Untried::Yes
                            || ending == Ending::Quit;
                        if !Rc::ptr_eq(&self.settings, &self.shard.settings()) {
                            // They go by the rules that hold now.
                            let flights = mem::take(&mut self.flights);
                            self.give_back(flights);
                            break;
                        }
                        if again && restarts < RESTARTS_MAX {
                            restarts += 1;
                            attempt = self.attempt();
                            attempt.start()
                        } else {
                            attempt.on_ending(&ending)
                        }
                    }
                },
                Step::Await => unreachable!("a race has ended with a connection or without"),
                // No host does all that reports on REQUIRETLS mail would like; lost they must not be (RFC 8689 §5).
                Step::End(Outcome::Failed(_)) if self.demand == Demand::Preferred => {
                    self.demand = Demand::None;
                    attempt = self.attempt();
                    attempt.start()
                }
                Step::End(outcome) => {
                    if !self.leave_to_others() {
                        self.give_up(&outcome);
                    }
                    break;
                }
            };
            self.report_findings(&mut attempt);
        }
        self.report_findings(&mut attempt);
    }

    fn attempt(&mut self) -> Attempt {
        self.asked_for = self.named();
        self.owned = self.flights.front().map_or_else(Owned::default, |flight| {
            Owned::of(self.shard, &self.settings, flight.job.destination)
        });
        (self.exchanges, self.sts_policy) = (None, None);
        self.beyond.set(Beyond::Unknown);
        let domain = self.domain();
        let seed = self.shard.resolve.random();
        let attempt =
            Attempt::new(&self.route, &domain, self.settings.own.clone(), AttemptLimits::default(), seed);
        let ways = &self.shard.hops.ways;
        let family = ways.preferred(self.route.options.family, ring::clock::now());
        let refused = logins::when_refused(&self.settings, self.route.options.login.as_deref());
        attempt.demanding(self.demand).preferring(family).when_refused(refused)
    }

    /// What the rule for the site asks of TLS, where there is one that does.
    fn tls_of_site(&self, exchanges: &Answer) -> Option<TlsLevel> {
        let (_, domain) = self.asked_for.as_ref()?;
        let hosts = delivery::Hosts::of(exchanges, &self.settings.own);
        hosts.rule(self.owned.owner(), domain, &self.settings.site_rules)?.tls
    }

    /// The domain whose hosts are asked for: that of the message which waits longest. Others in the lane have the same.
    fn domain(&self) -> Domain {
        if let Some((_, domain)) = self.named() {
            return domain;
        }
        // Any recipient's: a route to named hosts does not ask.
        let first = self.flights.front().and_then(|flight| flight.message.envelope.recipients.first());
        first.map_or_else(|| self.settings.hostname.clone(), |recipient| recipient.address.domain())
    }

    /// Where the message goes that waits longest, and for which domain, where hosts are asked for.
    fn named(&self) -> Option<(Box<str>, Domain)> {
        let flight = self.flights.front()?;
        let queue = self.shard.queue.borrow();
        let name = queue.name(flight.job.destination)?;
        Some((name.into(), Routes::domain_of_key(name)?))
    }

    /// Sees to it that a connection takes no mail that would be connected otherwise. What was found out for the domain in
    /// front may not be what its site was named by; then its mail goes alone, and others are given back. Says whether any is left.
    fn keep_apart(&mut self, hop: &Hop) -> bool {
        let Some((name, domain)) = &self.asked_for else {
            self.alone = false;
            return true;
        };
        let (policy, owner) = (self.sts_policy.as_deref(), self.owned.owner());
        let key = self
            .exchanges
            .as_ref()
            .and_then(|answer| locate::key_of(&self.settings, owner, (name, domain), answer, policy));
        // A name of the domain's own may be in the certificate by which an authority of its choice proves the host (RFC 7672 §3.2.2).
        let by_own_name = match &hop.basis {
            Basis::Dane(host) => host.records.iter().any(|record| record.usage == DaneUsage::TrustAnchor),
            Basis::Route | Basis::DaneUnusable | Basis::Sts(_) | Basis::StsTesting(_) => false,
        };
        // From which source is for us to say, and not for the DNS.
        let site = Routes::without_source(&self.lane.key);
        let is_elsewhere = key.as_deref() != Some(&*site);
        self.alone = is_elsewhere || by_own_name;
        if is_elsewhere && *site != **name {
            let mut queue = self.shard.queue.borrow_mut();
            if let Some(flight) = self.flights.front() {
                queue.on_astray(flight.job.destination);
            }
        }
        if self.alone {
            self.part_with_others();
        }
        !self.flights.is_empty()
    }

    /// Connects to the host, or to one that is as good.
    async fn connect(&mut self, attempt: &mut Attempt, hop: Hop) -> Finish {
        let count = || {
            let Some(rate) = self.connection_rate else { return };
            let paces = self.shard.leases.paces();
            paces.charge(Counted::Connections, &self.lane.limit_key, rate, ring::clock::now());
        };
        // The first one was counted before. Those to other hosts, and again to one that ended, are as well.
        if !mem::replace(&mut self.counted, false) {
            count();
        }
        let ways = (&self.settings, self.outlet.as_ref());
        race::run(self.shard, ways, attempt, hop, |told| match told {
            Told::Rival => count(),
            Told::Failed(failure) => {
                self.beyond.set(Beyond::No);
                throttles::on_unconnected(self.shard, self.lane, &failure.to_string());
            }
            Told::Beyond(address) => {
                if self.beyond.get() != Beyond::No {
                    self.beyond.set(Beyond::All(address));
                }
            }
        })
        .await
    }

    /// Runs one session: the messages taken on, then whatever the lane has.
    async fn session(&mut self, mut socket: Socket, hop: &Hop, login: Option<Login>) -> Ending {
        let open = OpenConnection::new(self.shard);
        self.connected = true;
        let now = ring::clock::now();
        let memory = &self.shard.hops.tls_memory;
        let level = hop.remote.address().map(|address| memory.borrow().level(address, hop.tls, now));
        let level = level.unwrap_or(hop.tls);
        self.policy = Some(hop.policy(level));
        let own_name = self.outlet.as_ref().and_then(|outlet| outlet.source.ehlo_name.as_ref());
        let hostname = own_name.unwrap_or(&self.settings.hostname).as_str();
        let options = smtp::client::Options { login, ..self.route.options.client(hostname, level) };
        let (logs_in, mut client) = (options.login.is_some(), Client::new(options));
        let mut talk = Talk::new();
        let mut action = client.on_connected(Channel::Clear);
        // Whether it is told that this goes in clear, though it would not have to.
        let mut told = level != hop.tls;
        let ending = loop {
            action = match action {
                Action::Read(stage) => talk.read(&mut client, &mut socket, self.timeout(stage)).await,
                Action::StartTls => self.start_tls(&mut client, &mut socket, hop, level, &mut talk).await,
                Action::Derive(derivation) => {
                    let salted = logins::derive(self.shard, derivation).await;
                    client.on_derived(&salted, &mut talk.out)
                }
                Action::SendContent(framing) => {
                    let clear = client.channel() == Channel::Clear && hop.tls != TlsLevel::None;
                    if !mem::replace(&mut told, true) && clear {
                        self.report(hop, Err((TlsResult::StartTlsNotSupported, None)));
                    }
                    let flight = &mut self.flights[self.given - 1];
                    flight.tls = socket.tls_session().map(|tls| tls.to_string());
                    let content = flight.converted.as_ref().unwrap_or(&flight.message.content);
                    let slices = talk.frame(framing, content);
                    self.shard.metrics.outbound.bytes.add(message::content::len(content) as u64);
                    flight.converted = None;
                    let mut next = client.on_content_sent(&mut talk.out);
                    if client.takes_next()
                        && let Some(transaction) = self.next_transaction(&client, Duration::ZERO).await
                    {
                        next = client.on_transaction(transaction, &mut talk.out);
                    }
                    let patience = self.timeout(Stage::Content);
                    talk.send(&mut client, &mut socket, slices, next, patience).await
                }
                Action::Finished(outcome) => {
                    let offers = client.offers().copied().unwrap_or_default();
                    self.finished(&outcome, hop, &offers);
                    client.on_finished(&mut talk.out)
                }
                Action::Ready => {
                    if logs_in && client.transactions() == 0 {
                        self.shard.metrics.outbound.logins.done.one();
                    }
                    // An idle connection holds no memory.
                    socket.input().release();
                    match self.next_transaction(&client, self.route.options.idle_max).await {
                        Some(transaction) => client.on_transaction(transaction, &mut talk.out),
                        None => client.on_quit(&mut talk.out),
                    }
                }
                Action::Close(ending) => break ending,
            };
        };
        talk.end(&mut socket, self.timeout(Stage::Quit)).await;
        drop(open);
        ending
    }

    /// What the next connection is to log in by, if it is to.
    async fn login(&self) -> Result<Option<Login>, NoLogin> {
        let Some(name) = &self.route.options.login else { return Ok(None) };
        match self.settings.credentials.get(name) {
            Some(credential) => logins::login(self.shard, credential).await.map(Some),
            None => Err(NoLogin::NoSecret(format!("there is no credential {name}").into())),
        }
    }

    /// Not to be let in is no matter of one message: all that go there wait a while.
    fn tell_of_login(&mut self, hop: &Hop, ending: &Ending) {
        let (Ending::NoLogin(why), Some(name)) = (ending, &self.route.options.login) else { return };
        self.shut_out = true;
        logins::tell(self.shard, name, &hop.remote.to_string(), why);
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
        let outbound = &self.settings.outbound_tls;
        let metrics = &self.shard.metrics.outbound.tls;
        let result = match outbound.configuration(self.route.options.identity.as_deref(), hop, level) {
            Ok(Some((config, name))) => {
                socket.connect_tls(&config, &name).await.map_err(|error| (error.result(), error.to_string()))
            }
            Ok(None) => Err((None, "TLS is not configured".to_owned())),
            Err(error) => Err((None, error.to_string())),
        };
        match result {
            Ok(()) => {
                metrics.done.one();
                if socket.tls_session().is_some_and(|session| session.resumed) {
                    self.shard.metrics.outbound.tls_resumed.one();
                }
                let would_do = match &hop.basis {
                    Basis::StsTesting(policy) => outbound_tls::keeps_to(policy, outbound, socket, hop),
                    Basis::Route | Basis::Dane(_) | Basis::DaneUnusable | Basis::Sts(_) => Ok(()),
                };
                self.count_policy(if would_do.is_ok() { Kept::Yes } else { Kept::No });
                self.report(hop, would_do);
                if self.route.options.login.is_some()
                    && let Some(binding) = logins::binding(socket, level)
                {
                    client.set_binding(binding);
                }
                client.on_tls(Ok(()), &mut talk.out)
            }
            Err((result, error)) => {
                metrics.failed.one();
                self.count_policy(Kept::No);
                if let Some(result) = result {
                    self.report(hop, Err((result, Some(error.clone()))));
                }
                if let Some(peer) = hop.remote.socket_address() {
                    TlsFailed { peer, side: "out", error: &error }.emit(ring::clock::unix_micros());
                }
                client.on_tls(Err(TlsFailure(error.into())), &mut talk.out)
            }
        }
    }

    /// The domain that may ask for a report on this, when it is counted. Reports themselves, which waive what is published,
    /// are not reported on.
    fn reported(&self) -> Option<Name> {
        let counted = self.settings.tls_reports && self.demand != Demand::Waived;
        let (_, domain) = self.asked_for.as_ref().filter(|_| counted)?;
        Name::parse(domain.as_str()).ok()
    }

    fn report(&self, hop: &Hop, result: Result<(), (TlsResult, Option<String>)>) {
        if let Some(domain) = self.reported() {
            outbound_tls::report(self.shard, &domain, hop, result);
        }
    }

    fn report_findings(&self, attempt: &mut Attempt) {
        let findings = attempt.take_findings();
        if let (false, Some(domain)) = (findings.is_empty(), self.reported()) {
            outbound_tls::report_findings(self.shard, &domain, findings);
        }
    }

    fn count_policy(&self, kept: Kept) {
        let Some(policy) = self.policy.map(outbound_tls::label) else { return };
        let metrics = &self.shard.metrics.outbound;
        match kept {
            Kept::Yes => metrics.policies_kept.of(policy).one(),
            Kept::No => metrics.policies_broken.of(policy).one(),
        }
    }

    fn remember_tls(&self, hop: &Hop, ending: &Ending) {
        // A certificate that is not good enough for some mail is no reason to send other mail in clear.
        let broken = matches!(ending, Ending::TlsFailed(_) | Ending::Lost(Stage::Handshake, _));
        if let Some(address) = hop.remote.address()
            && broken
            && hop.tls == TlsLevel::Opportunistic
        {
            self.shard.hops.tls_memory.borrow_mut().remember(address, ring::clock::now());
        }
    }

    /// A host that turns us away at the door is as good as one that is not there.
    fn tell_of_door(&self, ending: &Ending) {
        let why = match ending {
            Ending::Refused(Stage::Greeting | Stage::Ehlo, reply) => reply.to_string(),
            Ending::Lost(Stage::Greeting | Stage::Ehlo, loss) => loss.to_string(),
            Ending::Refused(..)
            | Ending::Lost(..)
            | Ending::TlsFailed(_)
            | Ending::TlsNotOffered
            | Ending::RequireTlsNotOffered
            | Ending::NoLogin(_)
            | Ending::Quit
            | Ending::Idle => return,
        };
        throttles::on_unconnected(self.shard, self.lane, &why);
    }

    /// The next message to send, if there is one or one comes in time.
    async fn next_transaction(&mut self, client: &Client, patience: Duration) -> Option<Transaction> {
        while self.flights.len() <= self.given {
            // What comes later begins with all that it would like.
            if self.demand != self.asked() {
                return None;
            }
            if self.turn.ends(self.shard) {
                return None;
            }
            // Whoever has other rules than the connection was opened by has another connection.
            if !Rc::ptr_eq(&self.settings, &self.shard.settings()) {
                return None;
            }
            let next = match &self.asked_for {
                Some((name, _)) if self.alone => self.lane.pop_of(self.shard, name),
                Some(_) | None => self.lane.pop(),
            };
            let job = match next {
                Some(job) => job,
                None if patience.is_zero() || self.alone => return None,
                None => {
                    let job = self.lane.wait(self.shard, self.turn, patience).await?;
                    // A reload may have come while there was nothing to do.
                    if !Rc::ptr_eq(&self.settings, &self.shard.settings()) {
                        hops::postpone(self.shard, job);
                        return None;
                    }
                    job
                }
            };
            self.take(job).await;
        }
        let flight = &self.flights[self.given];
        let envelope = &flight.message.envelope;
        let tls = match self.demand {
            Demand::None | Demand::Waived => TlsDemand::None,
            Demand::Required | Demand::Preferred => envelope.handling.tls,
        };
        let upstream = match self.route.options.forwarding {
            Forwarding::Off => None,
            Forwarding::On => envelope.upstream.clone().map(|mut upstream| {
                upstream.ident.get_or_insert_with(|| flight.job.id.to_string().into());
                upstream
            }),
        };
        let places = &flight.remaining[..flight.remaining.len().min(self.recipients_max)];
        let mut transaction = transaction(envelope, places, flight.message.size, tls, upstream);
        transaction.reverse_path = self.reverse_path(flight);
        if self.route.options.protocol == Protocol::Lmtp {
            // What is delivered in time needs nobody to see to that any more.
            transaction.by = transaction.by.filter(|by| by.seconds <= 0);
        }
        let offers = client.offers().copied().unwrap_or_default();
        let (how, message) = (self.route.options.eight_bit, flight.message.clone());
        let id = flight.job.id;
        let converted =
            conversions::fit(self.shard, how, &offers, id, &mut transaction, &message.content).await;
        self.flights[self.given].converted = converted;
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
                let envelope = &flight.message.envelope;
                let only = place.and_then(|place| envelope.recipients.get(place as usize));
                let (asked, tenant) = (self.settings.asked_of_replies, envelope.handling.tenant);
                let party = only.and_then(|only| {
                    if asked.tenant && tenant != TenantId::NOBODY {
                        return returns.paths.party(tenant, &only.address);
                    }
                    self.settings.consent.party(&returns.paths, tenant, &only.address)
                });
                let campaign = match asked.campaign {
                    true => self.settings.campaigns.of(&envelope.handling),
                    false => None,
                };
                let campaign = campaign.map(|name| CampaignMark::of(name));
                let sent = Sent { id: flight.job.id, place, party, campaign };
                let ours = returns.paths.address(sent, facts::now());
                ours.map_or_else(|| reverse_path.clone(), ReversePath::Address)
            }
            (ReversePaths::Rewritten, _, ReversePath::Address(from)) => {
                let is_own = self.settings.own_domains.contains(&from.domain());
                let srs = self.settings.srs.as_ref().filter(|_| !is_own);
                let ours = srs.and_then(|srs| srs.forward(from, facts::now()));
                if ours.is_some() {
                    self.shard.metrics.outbound.rewritten.one();
                }
                ours.map_or_else(|| reverse_path.clone(), ReversePath::Address)
            }
            // Nobody is told what becomes of a report (RFC 5321 §4.5.5).
            (ReversePaths::Ours | ReversePaths::Kept | ReversePaths::Rewritten, _, _) => reverse_path.clone(),
        }
    }

    /// The client is done with the oldest message it was given.
    fn finished(&mut self, outcome: &TransactionOutcome, hop: &Hop, offers: &Offers) {
        let mut flight = self.flights.pop_front().expect("the client was given it");
        self.given -= 1;
        match outcome {
            TransactionOutcome::Untried(_) => self.untried = Untried::Yes,
            TransactionOutcome::Answered(_) => {
                self.progress = true;
                self.lane.on_answered();
                // Whatever becomes of it, the next hop has seen it.
                flight.job.ticket.iter_mut().for_each(Ticket::keep);
            }
        }
        // Those who were not in this transaction are in the next one.
        let others = flight.remaining.split_off(flight.remaining.len().min(self.recipients_max));
        let places = mem::replace(&mut flight.remaining, others);
        let teller = Teller::of(offers, &flight.message.envelope.handling, facts::now());
        for (place, fate) in places.into_iter().zip(fates(outcome, &hop.remote, teller)) {
            match fate {
                Fate::Ended(outcome) => flight.ended.push((place, outcome)),
                Fate::Remains => flight.remaining.push(place),
            }
        }
        if flight.remaining.is_empty() {
            self.conclude(flight);
        } else {
            self.flights.push_back(flight);
        }
    }

    /// Ends it, by what the next hop has said of its recipients.
    fn conclude(&self, flight: Flight) {
        let judgements = self.end(flight);
        throttles::on_ended(self.shard, self.lane, &judgements);
        if self.outlet.is_some() {
            egress::on_ended(self.shard, &self.settings, self.lane, &judgements);
        }
    }

    fn end(&self, flight: Flight) -> Vec<(Option<Judgement>, String)> {
        self.untake(flight.job.attempt);
        let took = ring::clock::now().saturating_sub(flight.began);
        let ended = outcomes::Ended {
            outcomes: &flight.ended,
            envelope: Some(&flight.message.envelope),
            took,
            tls: flight.tls.as_deref(),
            policy: self.policy.map(TlsPolicy::as_str),
        };
        outcomes::end(self.shard, &flight.job, &self.lane.key, &ended)
    }

    /// No host is left to try: all that remain get this outcome.
    fn give_up(&mut self, outcome: &Outcome) {
        if outcome.report().remote.is_none() {
            self.part_with_others();
        }
        if (!self.connected || self.shut_out) && matches!(outcome, Outcome::Deferred(_)) {
            self.leave_alone(outcome);
        }
        for mut flight in mem::take(&mut self.flights) {
            let remaining = mem::take(&mut flight.remaining);
            flight.ended.extend(remaining.into_iter().map(|place| (place, outcome.clone())));
            // What is wrong with the connection was told when it was found out.
            let judgements = self.end(flight);
            if self.connected && self.outlet.is_some() {
                // Who turns us away at the door refuses us as well.
                egress::on_ended(self.shard, &self.settings, self.lane, &judgements);
            }
        }
        self.given = 0;
    }
}

/// When no host was reached.
impl Worker<'_> {
    /// What is known of one domain alone is nothing that messages for others are to hear: they go back as they are.
    fn part_with_others(&mut self) {
        let Some((asked, _)) = &self.asked_for else { return };
        let is_same = |flight: &Flight| self.shard.queue.borrow().name(flight.job.destination) == Some(asked);
        let (same, others) = mem::take(&mut self.flights).into_iter().partition(is_same);
        self.flights = same;
        self.give_back(others);
    }

    /// The source cannot be used: nothing was tried, and all that waits for it looks for another one.
    fn leave_source(&mut self, trouble: Trouble) {
        let Some(outlet) = &self.outlet else { return };
        health::report(self.shard, &outlet.source.name, Found::Unfit(trouble));
        let flights = mem::take(&mut self.flights);
        self.given = 0;
        self.give_back(flights);
        for job in self.lane.clear() {
            hops::postpone(self.shard, job);
        }
    }

    /// No host can be reached from the source: where the pool has another one that can, nothing was tried, and mail for the site
    /// looks for that one.
    fn leave_to_others(&mut self) -> bool {
        let (Beyond::All(address), Some(flight)) = (self.beyond.get(), self.flights.front()) else {
            return false;
        };
        let destination = flight.job.destination;
        self.shard.hops.families.remember(&self.lane.key, address, ring::clock::now());
        if self.connected || !egress::is_elsewhere(self.shard, &self.settings, self.lane, destination) {
            return false;
        }
        let flights = mem::take(&mut self.flights);
        self.given = 0;
        self.give_back(flights);
        for job in self.lane.clear() {
            hops::postpone(self.shard, job);
        }
        true
    }

    /// Messages that were not tried are the queue's again.
    fn give_back(&self, flights: VecDeque<Flight>) {
        for flight in flights {
            if flight.ended.is_empty() {
                self.untake(flight.job.attempt);
                hops::postpone(self.shard, flight.job);
            } else {
                // Some of its recipients have an outcome already; the others are tried again after their wait.
                self.conclude(flight);
            }
        }
    }

    /// A site that could not be reached is left alone for a while. What waits in its lane was not tried.
    fn leave_alone(&self, outcome: &Outcome) {
        let Some(destination) = self.flights.front().map(|flight| flight.job.destination) else { return };
        {
            let mut queue = self.shard.queue.borrow_mut();
            // It may belong to another one by now; it is this one that could not be reached.
            let Some(site) = queue.site(&self.lane.key) else { return };
            let is_own = queue.name(destination) == Some(&*Routes::without_source(&self.lane.key));
            if outcome.report().remote.is_none() && !is_own {
                // The DNS does not say any more where this domain's hosts are; those of others are where they were.
                return queue.on_astray(destination);
            }
            queue.on_site_failed(site, facts::now());
        }
        for job in self.lane.clear() {
            hops::postpone(self.shard, job);
        }
    }
}
