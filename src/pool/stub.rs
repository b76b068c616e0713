//! A DNS client of the pool's own, for a program that has no shards to ask. What is asked and believed is decided in
//! `dns`.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use dns::{Answer, Asked, Failure, Order, Question, Resolver, Socket, Ticket, Transport, Waiter};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};

/// A client, and its cache.
#[derive(Debug)]
pub struct Stub {
    resolver: Resolver,
    sockets: HashMap<Socket, Arc<UdpSocket>>,
    random: RandomState,
    drawn: u64,
    began: Instant,
    next_waiter: u64,
}

/// What has come.
enum Event {
    Datagram(Socket, Vec<u8>),
    Stream(Ticket, Vec<u8>),
    Failed(Ticket),
}

/// A server may take so long over TCP.
const TCP_MAX: Duration = Duration::from_secs(10);
/// Longer messages are not asked for over UDP.
const DATAGRAM_MAX: usize = 4096;
/// Messages that have come and were not looked at yet.
const EVENTS_MAX: usize = 64;

impl Stub {
    /// What this resolver decides. Make it within a runtime.
    pub fn new(resolver: Resolver) -> Self {
        Self {
            resolver,
            sockets: HashMap::new(),
            random: RandomState::new(),
            drawn: 0,
            began: Instant::now(),
            next_waiter: 0,
        }
    }

    /// Asks all of these at once.
    pub(crate) async fn ask_all(&mut self, questions: Vec<Question>) -> Vec<(Question, Arc<Answer>)> {
        let (told, mut events) = mpsc::channel(EVENTS_MAX);
        // Whoever still listens when all have answered ends with this.
        let mut tasks = JoinSet::new();
        let (mut waiting, mut answers, mut orders) = (HashMap::new(), Vec::new(), Vec::new());
        for question in questions {
            let waiter = Waiter(self.next_waiter);
            self.next_waiter += 1;
            let now = self.began.elapsed();
            let (random, drawn) = (&self.random, &mut self.drawn);
            let mut draw = || number(random, drawn);
            match self.resolver.ask(&question, waiter, now, &mut draw, &mut orders) {
                Asked::Known(answer) => answers.push((question, answer)),
                Asked::Waiting => {
                    waiting.insert(waiter, question);
                }
            }
        }
        loop {
            for order in std::mem::take(&mut orders) {
                match order {
                    Order::Answer { waiter, answer } => {
                        answers.extend(waiting.remove(&waiter).map(|question| (question, answer)));
                    }
                    Order::Close { socket } => drop(self.sockets.remove(&socket)),
                    Order::Send { ticket, server, transport: Transport::Udp { socket }, bytes } => {
                        let sent = match self.socket(socket, server, &told, &mut tasks).await {
                            Ok(open) => open.send(&bytes).await.map(drop),
                            Err(error) => Err(error),
                        };
                        if sent.is_err() {
                            let told = told.clone();
                            tasks.spawn(async move { drop(told.send(Event::Failed(ticket)).await) });
                        }
                    }
                    Order::Send { ticket, server, transport: Transport::Tcp, bytes } => {
                        let told = told.clone();
                        tasks.spawn(async move {
                            let answer = timeout(TCP_MAX, by_tcp(server, &bytes)).await;
                            let event = match answer {
                                Ok(Ok(answer)) => Event::Stream(ticket, answer),
                                Ok(Err(_)) | Err(_) => Event::Failed(ticket),
                            };
                            drop(told.send(event).await);
                        });
                    }
                }
            }
            if waiting.is_empty() {
                self.sockets.clear();
                return answers;
            }
            let wake = self.resolver.wake_after().map(|at| self.began + at);
            let Some(wake) = wake else {
                // Nothing is under way any more, and nobody has said so.
                let none = Arc::new(Answer::failed(Failure::Unusable, Duration::ZERO));
                answers.extend(waiting.drain().map(|(_, question)| (question, none.clone())));
                continue;
            };
            let event = tokio::time::timeout_at(wake, events.recv()).await;
            let now = self.began.elapsed();
            let (random, drawn) = (&self.random, &mut self.drawn);
            let mut draw = || number(random, drawn);
            match event {
                Ok(Some(Event::Datagram(socket, bytes))) => {
                    self.resolver.on_datagram(socket, &bytes, now, &mut draw, &mut orders);
                }
                Ok(Some(Event::Stream(ticket, bytes))) => {
                    self.resolver.on_stream_answer(ticket, &bytes, now, &mut draw, &mut orders);
                }
                Ok(Some(Event::Failed(ticket))) => {
                    self.resolver.on_failed(ticket, now, &mut draw, &mut orders);
                }
                Ok(None) | Err(_) => self.resolver.on_tick(now, &mut draw, &mut orders),
            }
        }
    }

    /// The socket of that number, opened and listened to when it is first used. The kernel draws its port at random.
    async fn socket(
        &mut self,
        socket: Socket,
        server: SocketAddr,
        told: &mpsc::Sender<Event>,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<Arc<UdpSocket>> {
        if let Some(open) = self.sockets.get(&socket) {
            return Ok(open.clone());
        }
        let any: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let open = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        open.connect(server).await?;
        let open = Arc::new(open);
        self.sockets.insert(socket, open.clone());
        let (told, listened) = (told.clone(), open.clone());
        tasks.spawn(async move {
            let mut buffer = vec![0; DATAGRAM_MAX];
            loop {
                match listened.recv(&mut buffer).await {
                    Ok(length) => {
                        if told.send(Event::Datagram(socket, buffer[..length].to_vec())).await.is_err() {
                            return;
                        }
                    }
                    // Nobody listens there now; the timeout of the query leads to another server.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => return,
                }
            }
        });
        Ok(open)
    }
}

/// A number that nobody outside can guess: SipHash under a key of the system's random numbers, over a counter.
fn number(random: &RandomState, drawn: &mut u64) -> u64 {
    *drawn += 1;
    let mut hasher = random.build_hasher();
    hasher.write_u64(*drawn);
    hasher.finish()
}

async fn by_tcp(server: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
#[path = "stub_test.rs"]
mod test;
