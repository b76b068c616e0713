//! The sockets of the core's DNS client; what is asked and believed is decided in `dns`.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, Hasher, RandomState},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use dns::{
    Answer, Asked, Failure, Limits, Name, Order, Question, ResolvConf, Resolver, Server, Socket, StaticHosts,
    Ticket, Transport, Trust, Waiter,
};
use futures_lite::future::{or, poll_once};
use ring::{ConnectOptions, Datagram, Event, Stream};
use tokio::sync::oneshot;
use watch::ShardMetrics;

/// The DNS client of one core.
pub(crate) struct Resolve {
    resolver: RefCell<Resolver>,
    waiting: RefCell<HashMap<Waiter, oneshot::Sender<Arc<Answer>>>>,
    next_waiter: Cell<u64>,
    sockets: RefCell<HashMap<Socket, Rc<Open>>>,
    /// A query was sent: the timer may have to ring earlier.
    sent: Event,
    random: RandomState,
    drawn: Cell<u64>,
    metrics: Rc<ShardMetrics>,
}

/// A UDP socket. It is closed when the last who knows it lets go of it.
struct Open {
    datagram: Datagram,
    /// Nothing is expected on it any more.
    closed: Event,
}

/// Whom to ask, how, and what needs no asking.
#[derive(Debug)]
pub(crate) struct Resolving {
    limits: Limits,
    servers: Vec<Server>,
    hosts: StaticHosts,
}

impl Resolving {
    /// As the configuration says; where it names no servers, as the host does.
    pub(crate) fn new(config: &config::Dns) -> Self {
        const RESOLV_CONF: &str = "/etc/resolv.conf";
        // A host without that file has its resolver on the loopback (resolv.conf(5)).
        Self::with(config, || std::fs::read(RESOLV_CONF).unwrap_or_default())
    }

    fn with(config: &config::Dns, resolv_conf: impl FnOnce() -> Vec<u8>) -> Self {
        let mut servers = if config.servers.is_empty() {
            ResolvConf::parse(&resolv_conf()).servers
        } else {
            config.servers.iter().map(|address| Server::new(*address)).collect()
        };
        if config.trust_ad {
            servers.iter_mut().for_each(|server| server.trust = Trust::Believed);
        }
        let mut hosts = StaticHosts::default();
        for (domain, addresses) in &config.hosts {
            // What is no name of the DNS is never asked for either.
            let Ok(name) = Name::parse(domain.as_str()) else { continue };
            addresses.iter().for_each(|address| hosts.add_address(name.clone(), *address));
        }
        let limits = Limits {
            ttl_min: config.ttl_min,
            ttl_max: config.ttl_max,
            negative_ttl_max: config.negative_ttl_max,
            timeout: config.timeout,
            attempts: config.attempts,
            failure_ttl: config.failure_ttl,
            cache_size_max: crate::settings::to_usize(config.cache_size),
            sockets: config.sockets,
            streams: config.streams,
            ..Limits::default()
        };
        Self { limits, servers, hosts }
    }

    fn resolver(&self) -> Resolver {
        let Self { limits, servers, hosts } = self;
        Resolver::new(*limits, servers, hosts.clone())
    }
}

/// What decides as that of a core does, for a program without cores.
pub fn resolver(config: &config::Dns) -> Resolver {
    Resolving::new(config).resolver()
}

impl Resolve {
    pub(crate) fn new(resolving: &Resolving, metrics: Rc<ShardMetrics>) -> Rc<Self> {
        Rc::new(Self {
            resolver: RefCell::new(resolving.resolver()),
            waiting: RefCell::default(),
            next_waiter: Cell::new(0),
            sockets: RefCell::default(),
            sent: Event::new(),
            random: RandomState::new(),
            drawn: Cell::new(0),
            metrics,
        })
    }

    /// Takes other limits, servers and hosts.
    pub(crate) fn configure(&self, resolving: &Resolving) {
        let Resolving { limits, servers, hosts } = resolving;
        self.resolver.borrow_mut().configure(*limits, servers, hosts.clone());
    }

    /// A number that nobody outside can guess.
    pub(crate) fn random(&self) -> u64 {
        // SipHash under a key of the system's random numbers, over a counter.
        let drawn = self.drawn.get();
        self.drawn.set(drawn + 1);
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(drawn);
        hasher.finish()
    }

    /// Asks; the question is on its way when this returns.
    pub(crate) fn ask(self: &Rc<Self>, question: &Question) -> impl Future<Output = Arc<Answer>> + use<> {
        let waiter = Waiter(self.next_waiter.get());
        self.next_waiter.set(waiter.0 + 1);
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(waiter, sender);
        let began = ring::clock::now();
        let mut orders = Vec::new();
        let asked =
            self.resolver.borrow_mut().ask(question, waiter, began, &mut || self.random(), &mut orders);
        self.metrics.dns.questions.one();
        if let Asked::Known(answer) = &asked {
            self.metrics.dns.cache_hits.one();
            self.tell(waiter, answer.clone());
        }
        self.follow(orders);
        let metrics = self.metrics.clone();
        let known = matches!(asked, Asked::Known(_));
        async move {
            let answer = receiver
                .await
                .unwrap_or_else(|_| Arc::new(Answer::failed(Failure::Unusable, Duration::ZERO)));
            if !known {
                metrics.dns.time.record_duration(ring::clock::now().saturating_sub(began));
            }
            if matches!(answer.outcome, dns::Outcome::TempFail(_)) {
                metrics.dns.failures.one();
            }
            answer
        }
    }

    /// What is remembered of a question is not.
    pub(crate) fn forget_answer(&self, question: &Question) {
        self.resolver.borrow_mut().forget_answer(question);
    }

    /// Asks all of these at once, and tells the answers that come before the deadline.
    pub(crate) async fn ask_all(
        self: &Rc<Self>,
        questions: Vec<Question>,
        deadline: Duration,
        mut learn: impl FnMut(Question, Arc<Answer>),
    ) {
        let asked = questions.into_iter().map(|question| (Box::pin(self.ask(&question)), question));
        let mut asked: VecDeque<_> = asked.collect();
        let left = deadline.saturating_sub(ring::clock::now());
        let all = async {
            while let Some((answer, _)) = asked.front_mut() {
                let answer = answer.await;
                asked.pop_front().into_iter().for_each(|(_, question)| learn(question, answer.clone()));
            }
        };
        if ring::timeout(left, all).await.is_ok() {
            return;
        }
        // What has not come by now is missing; what has come behind it is not.
        for (answer, question) in asked {
            if let Some(answer) = poll_once(answer).await {
                learn(question, answer);
            }
        }
    }

    /// Tells the resolver that time has passed, for as long as the core lives.
    pub(crate) async fn run(self: Rc<Self>) {
        const SLEEP_MAX: Duration = Duration::from_secs(60);
        loop {
            let sent = self.sent.wait();
            let now = ring::clock::now();
            let mut orders = Vec::new();
            self.resolver.borrow_mut().on_tick(now, &mut || self.random(), &mut orders);
            let wake = self.resolver.borrow().wake_after();
            self.follow(orders);
            let wait = wake
                .map_or(SLEEP_MAX, |at| at.saturating_sub(now))
                .clamp(Duration::from_millis(1), SLEEP_MAX);
            let _ = ring::timeout(wait, sent).await;
        }
    }

    fn follow(self: &Rc<Self>, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Answer { waiter, answer } => self.tell(waiter, answer),
                Order::Send { ticket, server, transport, bytes } => {
                    self.sent.notify_all();
                    match transport {
                        Transport::Udp { socket } => match self.socket(socket, server) {
                            Ok(open) => ring::spawn(self.clone().send(ticket, open, bytes)),
                            // Told later: whoever gives orders may be asking.
                            Err(_) => {
                                let resolve = self.clone();
                                ring::spawn(async move { resolve.on_failed(ticket) });
                            }
                        },
                        Transport::Tcp => ring::spawn(self.clone().ask_by_tcp(ticket, server, bytes)),
                    }
                }
                Order::Close { socket } => {
                    if let Some(open) = self.sockets.borrow_mut().remove(&socket) {
                        open.closed.notify_all();
                    }
                }
            }
        }
    }

    fn tell(&self, waiter: Waiter, answer: Arc<Answer>) {
        if let Some(sender) = self.waiting.borrow_mut().remove(&waiter) {
            // Whoever asked may be gone.
            let _ = sender.send(answer);
        }
    }

    async fn send(self: Rc<Self>, ticket: Ticket, open: Rc<Open>, bytes: Vec<u8>) {
        if open.datagram.send(&bytes).await.is_err() {
            self.on_failed(ticket);
        }
    }

    /// The socket of that number, opened and listened to when it is first used. The kernel draws its port at random.
    fn socket(self: &Rc<Self>, socket: Socket, server: SocketAddr) -> io::Result<Rc<Open>> {
        if let Some(open) = self.sockets.borrow().get(&socket) {
            return Ok(open.clone());
        }
        let open = Rc::new(Open { datagram: Datagram::connect(server, None)?, closed: Event::new() });
        self.sockets.borrow_mut().insert(socket, open.clone());
        ring::spawn(self.clone().listen(socket, open.clone()));
        Ok(open)
    }

    /// Reads what comes to a socket until it is closed.
    async fn listen(self: Rc<Self>, socket: Socket, open: Rc<Open>) {
        // What may come over UDP is bounded by what we offer; anything longer is cut and does not decode.
        let mut buffer = vec![0; 4096];
        loop {
            let closed = open.closed.wait();
            if !self.sockets.borrow().contains_key(&socket) {
                return;
            }
            let received = async { Some(open.datagram.recv(&mut buffer).await) };
            let length = match or(received, async {
                closed.await;
                None
            })
            .await
            {
                Some(Ok(length)) => length,
                // Nobody listens there now; the timeout of the query leads to another server.
                Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                // So it does here; until then the socket only sends.
                Some(Err(_)) | None => return,
            };
            let now = ring::clock::now();
            let mut orders = Vec::new();
            let mut random = || self.random();
            self.resolver.borrow_mut().on_datagram(socket, &buffer[..length], now, &mut random, &mut orders);
            self.follow(orders);
        }
    }

    async fn ask_by_tcp(self: Rc<Self>, ticket: Ticket, server: SocketAddr, bytes: Vec<u8>) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let asked = ring::timeout(PATIENCE, async {
            let stream =
                Stream::connect(server, ConnectOptions { timeout: PATIENCE, ..ConnectOptions::default() })
                    .await?;
            let length = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            stream.write_slices(&[&length.to_be_bytes()[..], &bytes]).await?;
            let mut length = [0; 2];
            read_exact(&stream, &mut length).await?;
            let mut answer = vec![0; u16::from_be_bytes(length).into()];
            read_exact(&stream, &mut answer).await?;
            Ok::<_, io::Error>(answer)
        });
        let Ok(Ok(answer)) = asked.await else { return self.on_failed(ticket) };
        let now = ring::clock::now();
        let mut orders = Vec::new();
        self.resolver.borrow_mut().on_stream_answer(ticket, &answer, now, &mut || self.random(), &mut orders);
        self.follow(orders);
    }

    fn on_failed(self: &Rc<Self>, ticket: Ticket) {
        let mut orders = Vec::new();
        let now = ring::clock::now();
        self.resolver.borrow_mut().on_failed(ticket, now, &mut || self.random(), &mut orders);
        self.follow(orders);
    }
}

async fn read_exact(stream: &Stream, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = stream.read(buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
    }
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn who_names_no_servers_asks_those_of_the_host() {
        let servers = |config: &config::Dns| {
            let resolving = Resolving::with(config, || b"search x\nnameserver 192.0.2.1\n".to_vec());
            resolving.servers.iter().map(|server| server.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(servers(&config::Dns::default()), ["192.0.2.1:53"]);
        let named = config::Dns { servers: vec!["192.0.2.2:54".parse().unwrap()], ..config::Dns::default() };
        assert_eq!(servers(&named), ["192.0.2.2:54"]);
        let without = Resolving::with(&config::Dns::default(), Vec::new);
        assert_eq!(without.servers[0].address.to_string(), "127.0.0.1:53");
    }
}
