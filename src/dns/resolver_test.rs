//! A resolver in a lossy world, and in exact ones.

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};

use super::*;
use crate::Name;

const LIMITS: Limits = Limits {
    questions_max: 50,
    waiters_max: 5,
    cache_size_max: 1 << 20,
    ttl_min: Duration::from_secs(1),
    ttl_max: Duration::from_secs(1000),
    negative_ttl_max: Duration::from_secs(100),
    failure_ttl: Duration::from_secs(5),
    timeout: Duration::from_secs(3),
    attempts: 2,
    payload_max: 1232,
    sockets: 6,
    streams: 2,
};

/// xorshift64*, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn question(name: &str) -> Question {
    Question::a(Name::parse(name).unwrap())
}

fn server(i: u8) -> Server {
    Server::new(([192, 0, 2, i], 53).into())
}

/// What a server answers to a query.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reply {
    Address { ttl: u32 },
    Absent,
    Failure,
    Truncated,
}

fn reply(query: &[u8], reply: Reply) -> Vec<u8> {
    let query = Message::from_vec(query).unwrap();
    let mut message = Message::response(query.metadata.id, OpCode::Query);
    let name = query.queries[0].name().clone();
    message.add_queries(query.queries);
    message.metadata.authentic_data = true;
    match reply {
        Reply::Address { ttl } => {
            message.add_answer(Record::from_rdata(name, ttl, RData::A(A([192, 0, 2, 77].into()))));
        }
        Reply::Absent => message.metadata.response_code = ResponseCode::NXDomain,
        Reply::Failure => message.metadata.response_code = ResponseCode::ServFail,
        Reply::Truncated => message.metadata.truncation = true,
    }
    message.to_vec().unwrap()
}

/// A resolver whose every step is told by the test.
struct Desk {
    resolver: Resolver,
    random: Random,
    now: Duration,
    orders: Vec<Order>,
    sockets: Sockets,
}

/// What a driver has open.
#[derive(Default)]
struct Sockets {
    open: BTreeSet<Socket>,
    /// How many there were.
    opened: usize,
    streams: BTreeSet<Ticket>,
}

impl Sockets {
    fn follow(&mut self, order: &Order) {
        match order {
            Order::Send { ticket, transport: Transport::Tcp, .. } => {
                assert!(self.streams.insert(*ticket), "{ticket:?} is sent twice");
                assert!(self.streams.len() <= LIMITS.streams.into(), "too many connections");
            }
            Order::Send { transport: Transport::Udp { socket }, .. } => {
                self.opened += usize::from(self.open.insert(*socket));
                assert!(self.open.len() <= LIMITS.sockets.into(), "too many sockets");
            }
            Order::Close { socket } => assert!(self.open.remove(socket), "{socket:?} is not open"),
            Order::Answer { .. } => {}
        }
    }
}

struct Sent {
    ticket: Ticket,
    server: SocketAddr,
    transport: Transport,
    bytes: Vec<u8>,
}

impl Desk {
    fn new(servers: &[Server]) -> Self {
        let resolver = Resolver::new(LIMITS, servers, StaticHosts::default());
        let (now, sockets) = (Duration::from_secs(10), Sockets::default());
        Self { resolver, random: Random(7), now, orders: Vec::new(), sockets }
    }

    fn ask(&mut self, name: &str, waiter: u64) -> Asked {
        let mut random = || self.random.next();
        self.resolver.ask(&question(name), Waiter(waiter), self.now, &mut random, &mut self.orders)
    }

    /// What was ordered, sockets opened and closed.
    fn followed(&mut self) -> Vec<Order> {
        let mut orders = std::mem::take(&mut self.orders);
        orders.iter().for_each(|order| self.sockets.follow(order));
        orders.retain(|order| !matches!(order, Order::Close { .. }));
        orders
    }

    /// The one query that was ordered.
    fn sent(&mut self) -> Sent {
        let mut sent = self.all_sent();
        assert_eq!(sent.len(), 1, "one query");
        sent.remove(0)
    }

    fn all_sent(&mut self) -> Vec<Sent> {
        let sent = self.followed().into_iter().map(|order| match order {
            Order::Send { ticket, server, transport, bytes } => Sent { ticket, server, transport, bytes },
            order @ (Order::Close { .. } | Order::Answer { .. }) => panic!("a query, not {order:?}"),
        });
        sent.collect()
    }

    fn answer(&mut self, sent: &Sent, bytes: &[u8]) {
        let mut random = || self.random.next();
        let (resolver, orders, now) = (&mut self.resolver, &mut self.orders, self.now);
        match sent.transport {
            Transport::Udp { socket } => {
                resolver.on_datagram(socket, bytes, now, &mut random, orders);
            }
            Transport::Tcp => {
                assert!(self.sockets.streams.remove(&sent.ticket), "one answer for each connection");
                resolver.on_stream_answer(sent.ticket, bytes, now, &mut random, orders);
            }
        }
    }

    fn wait(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
        self.resolver.on_tick(self.now, &mut || self.random.next(), &mut self.orders);
    }

    /// Who was answered, and with what.
    fn answered(&mut self) -> Vec<(u64, Outcome)> {
        let answers = self.followed().into_iter().map(|order| match order {
            Order::Answer { waiter, answer } => (waiter.0, answer.outcome.clone()),
            Order::Send { .. } | Order::Close { .. } => panic!("an answer, not {order:?}"),
        });
        answers.collect()
    }
}

fn address() -> Outcome {
    Outcome::Found(crate::Records::Addresses(vec![[192, 0, 2, 77].into()]))
}

#[test]
fn a_reload_brings_other_limits() {
    let mut desk = Desk::new(&[server(1)]);
    let known_after = |desk: &mut Desk, secs| {
        if desk.ask("mx.example", 1) == Asked::Waiting {
            let sent = desk.sent();
            desk.answer(&sent, &reply(&sent.bytes, Reply::Address { ttl: 600 }));
            assert_eq!(desk.answered().len(), 1);
        }
        desk.wait(secs);
        desk.orders.clear();
        desk.resolver.cached()
    };
    assert_eq!(known_after(&mut desk, 500), 1);
    let shorter = Limits { ttl_max: Duration::from_secs(100), ..LIMITS };
    desk.resolver.configure(shorter, &[server(1)], StaticHosts::default());
    assert_eq!(desk.resolver.cached(), 0, "what was known is asked for again");
    assert_eq!(known_after(&mut desk, 99), 1);
    assert_eq!(known_after(&mut desk, 100), 0);
    let none = Limits { cache_size_max: 0, ..LIMITS };
    desk.resolver.configure(none, &[server(1)], StaticHosts::default());
    assert_eq!(known_after(&mut desk, 0), 0);
}

#[test]
fn what_is_not_to_be_remembered_is_asked_again() {
    let mut desk = Desk::new(&[server(1)]);
    for sent_before in 0..2 {
        assert_eq!(desk.ask("mx.example", 1), Asked::Waiting);
        let sent = desk.sent();
        desk.answer(&sent, &reply(&sent.bytes, Reply::Address { ttl: 1 << 30 }));
        let Some(Order::Answer { answer, .. }) = desk.orders.pop() else { panic!("no answer") };
        // As long as others may, though it is not remembered so long here.
        assert_eq!(answer.ttl, Duration::from_secs(1 << 30));
        desk.orders.clear();
        assert!(matches!(desk.ask("mx.example", 2), Asked::Known(_)));
        assert_eq!(desk.resolver.counters().sent, sent_before + 1);
        desk.resolver.forget_answer(&question("mx.example"));
    }
}

#[test]
fn one_question_for_all_who_wait() {
    let mut desk = Desk::new(&[server(1)]);
    for waiter in 0..5 {
        assert_eq!(desk.ask("mx.example", waiter), Asked::Waiting);
    }
    let Asked::Known(refused) = desk.ask("mx.example", 6) else { panic!("the sixth may not wait") };
    assert_eq!(refused.outcome, Outcome::TempFail(Failure::Overload));
    desk.resolver.forget(&question("mx.example"), Waiter(3));
    let sent = desk.sent();
    desk.answer(&sent, &reply(&sent.bytes, Reply::Address { ttl: 60 }));
    assert_eq!(desk.answered(), [0, 1, 2, 4].map(|waiter| (waiter, address())));

    desk.wait(59);
    assert!(matches!(desk.ask("mx.example", 7), Asked::Known(answer) if answer.outcome == address()));
    desk.wait(1);
    assert_eq!(desk.ask("mx.example", 8), Asked::Waiting);
    assert_eq!(desk.resolver.counters().sent, 2);
}

#[test]
fn another_server_when_one_is_silent() {
    let mut desk = Desk::new(&[server(1), server(2)]);
    let _ = desk.ask("mx.example", 1);
    let first = desk.sent();
    assert_eq!(first.server, server(1).address);
    desk.wait(3);
    let second = desk.sent();
    assert_eq!(second.server, server(2).address);
    // The first was slow only: its answer is as good.
    desk.answer(&first, &reply(&first.bytes, Reply::Address { ttl: 60 }));
    assert_eq!(desk.answered(), [(1, address())]);
    desk.answer(&second, &reply(&second.bytes, Reply::Absent));
    assert_eq!(desk.answered(), []);
    assert_eq!(desk.resolver.counters().foreign, 1);
    assert_eq!(desk.resolver.tries.len() + desk.resolver.over_udp.len() + desk.resolver.timers.len(), 0);
}

#[test]
fn silence_ends_after_all_attempts() {
    let mut desk = Desk::new(&[server(1), server(2)]);
    let _ = desk.ask("mx.example", 1);
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(desk.sent().server);
        desk.wait(3);
    }
    assert_eq!(servers, [1, 2, 1, 2].map(|i| server(i).address));
    assert_eq!(desk.answered(), [(1, Outcome::TempFail(Failure::Timeout))]);
    // Remembered for a moment, so that a thousand messages for one domain do not wait one after the other.
    assert!(matches!(desk.ask("mx.example", 2), Asked::Known(_)));
    desk.wait(5);
    assert_eq!(desk.ask("mx.example", 3), Asked::Waiting);
}

#[test]
fn a_failed_server_is_not_asked_again() {
    let mut desk = Desk::new(&[server(1), server(2)]);
    let _ = desk.ask("mx.example", 1);
    for i in [1, 2] {
        let sent = desk.sent();
        assert_eq!(sent.server, server(i).address);
        desk.answer(&sent, &reply(&sent.bytes, Reply::Failure));
    }
    assert_eq!(desk.answered(), [(1, Outcome::TempFail(Failure::ServerFailure))]);

    let _ = desk.ask("other.example", 2);
    let sent = desk.sent();
    let mut random = || 1;
    desk.resolver.on_failed(sent.ticket, desk.now, &mut random, &mut desk.orders);
    let sent = desk.sent();
    desk.answer(&sent, &reply(&sent.bytes, Reply::Address { ttl: 60 }));
    assert_eq!(desk.answered(), [(2, address())]);
    // The one that answered comes first now.
    let _ = desk.ask("third.example", 3);
    assert_eq!(desk.sent().server, sent.server);
}

#[test]
fn a_long_answer_comes_over_tcp() {
    let mut desk = Desk::new(&[server(1)]);
    let _ = desk.ask("mx.example", 1);
    let sent = desk.sent();
    desk.answer(&sent, &reply(&sent.bytes, Reply::Truncated));
    let again = desk.sent();
    assert_eq!((again.server, again.transport), (server(1).address, Transport::Tcp));
    desk.answer(&again, &reply(&again.bytes, Reply::Address { ttl: 60 }));
    assert_eq!(desk.answered(), [(1, address())]);

    let _ = desk.ask("other.example", 2);
    let sent = desk.sent();
    desk.answer(&sent, &reply(&sent.bytes, Reply::Truncated));
    let again = desk.sent();
    desk.answer(&again, &reply(&again.bytes, Reply::Truncated));
    assert_eq!(desk.answered(), [(2, Outcome::TempFail(Failure::Unusable))]);
}

#[test]
fn a_forgery_changes_nothing() {
    let mut desk = Desk::new(&[server(1)]);
    let _ = desk.ask("mx.example", 1);
    let sent = desk.sent();
    let good = reply(&sent.bytes, Reply::Address { ttl: 60 });
    let mut other_id = good.clone();
    other_id[0] ^= 1;
    desk.answer(&sent, &other_id);
    let mut other_case = good.clone();
    other_case[13] ^= 0x20;
    desk.answer(&sent, &other_case);
    desk.answer(&sent, b"");
    desk.answer(&sent, &good[..5]);
    let _ = desk.ask("other.example", 2);
    let other = desk.sent();
    let Transport::Udp { socket } = other.transport else { panic!("UDP first") };
    desk.resolver.on_datagram(socket, &good, desk.now, &mut || 1, &mut desk.orders);
    assert_eq!(desk.answered(), []);
    assert_eq!(desk.resolver.counters().foreign, 5);
    desk.answer(&sent, &good);
    assert_eq!(desk.answered(), [(1, address())]);
}

#[test]
fn each_query_has_a_socket_and_an_id_of_its_own() {
    let mut desk = Desk::new(&[server(1)]);
    let (mut sockets, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for i in 0..200 {
        let _ = desk.ask(&format!("h{i}.example"), i);
        let sent = desk.sent();
        let Transport::Udp { socket } = sent.transport else { panic!("UDP first") };
        sockets.insert(socket);
        ids.insert([sent.bytes[0], sent.bytes[1]]);
        assert_eq!(desk.sockets.open, [socket].into());
        desk.answer(&sent, &reply(&sent.bytes, Reply::Address { ttl: 60 }));
        assert_eq!(desk.answered(), [(i, address())]);
        assert_eq!(desk.sockets.open, [].into(), "nothing is expected on it any more");
    }
    assert_eq!(sockets.len(), 200);
    assert!(ids.len() > 190, "{} ids of 65,536", ids.len());
}

#[test]
fn in_a_crowd_sockets_are_shared_for_a_while() {
    let mut desk = Desk::new(&[server(1)]);
    for i in 0..50 {
        let _ = desk.ask(&format!("h{i}.example"), i);
    }
    let mut flying = desk.all_sent();
    assert_eq!(desk.sockets.opened, 6);
    // Whenever somebody is answered, somebody else asks: there is always a crowd.
    for i in 50..2000 {
        let place = desk.random.below(flying.len() as u64) as usize;
        let sent = flying.swap_remove(place);
        assert_ne!(sent.transport, Transport::Tcp);
        desk.answer(&sent, &reply(&sent.bytes, Reply::Address { ttl: 60 }));
        assert_eq!(desk.answered().len(), 1);
        let _ = desk.ask(&format!("h{i}.example"), i);
        flying.append(&mut desk.all_sent());
    }
    assert!(desk.sockets.opened > 30, "{} sockets for 2000 queries", desk.sockets.opened);
}

#[test]
fn a_silent_server_leaves_sockets_for_the_next() {
    let mut desk = Desk::new(&[server(1), server(2)]);
    for i in 0..50 {
        let _ = desk.ask(&format!("h{i}.example"), i);
    }
    assert!(desk.all_sent().iter().all(|sent| sent.server == server(1).address));
    assert_eq!(desk.sockets.open.len(), 3);
    desk.wait(3);
    let sent = desk.all_sent();
    let by_udp = |sent: &Sent| sent.server == server(2).address && sent.transport != Transport::Tcp;
    assert!(sent.len() == 50 && sent.iter().all(by_udp));
    assert_eq!(desk.sockets.open.len(), 6);
}

#[test]
fn where_no_socket_is_to_be_had_there_is_tcp() {
    let mut desk = Desk::new(&[server(1)]);
    for i in 0..6 {
        let _ = desk.ask(&format!("h{i}.example"), i);
    }
    let before = desk.all_sent();
    desk.resolver.configure(LIMITS, &[server(2)], StaticHosts::default());
    let _ = desk.ask("mx.example", 9);
    let sent = desk.sent();
    assert_eq!((sent.server, sent.transport), (server(2).address, Transport::Tcp));
    // As soon as the old ones are done with, their places are free.
    for sent in before {
        desk.answer(&sent, &reply(&sent.bytes, Reply::Absent));
    }
    assert_eq!(desk.answered().len(), 6);
    let _ = desk.ask("other.example", 10);
    assert!(matches!(desk.sent().transport, Transport::Udp { .. }));
}

#[test]
fn connections_are_few_and_others_wait() {
    let mut desk = Desk::new(&[server(1)]);
    for i in 0..5 {
        let _ = desk.ask(&format!("h{i}.example"), i);
    }
    for sent in desk.all_sent() {
        desk.answer(&sent, &reply(&sent.bytes, Reply::Truncated));
    }
    let mut streams = desk.all_sent();
    assert_eq!(streams.len(), 2);
    desk.wait(4);
    let first = streams.remove(0);
    desk.answer(&first, &reply(&first.bytes, Reply::Address { ttl: 60 }));
    let orders = desk.followed();
    assert!(matches!(orders[..], [Order::Send { .. }, Order::Answer { .. }]), "{orders:?}");
    // The time of those who wait passes too; a connection is in use until the driver says that it has ended.
    desk.wait(2);
    let again = desk.all_sent();
    assert_eq!(again.len(), 4, "all are tried again, over UDP");
    for sent in again {
        desk.answer(&sent, &reply(&sent.bytes, Reply::Absent));
    }
    assert_eq!(desk.answered().len(), 4);
    let tickets = std::mem::take(&mut desk.sockets.streams);
    assert_eq!(tickets.len(), 2);
    for ticket in tickets {
        desk.resolver.on_failed(ticket, desk.now, &mut || 1, &mut desk.orders);
    }
    assert_eq!(desk.followed(), []);
    let left =
        (desk.resolver.streams.len(), desk.resolver.streams_waiting.len(), desk.resolver.sockets.len());
    assert_eq!(left, (0, 0, 0));
}

#[test]
fn a_far_servers_proof_does_not_count() {
    for (server, security) in [
        (server(1), Security::Unproven),
        (Server::new(([127, 0, 0, 1], 53).into()), Security::Secure),
        (Server { trust: Trust::Believed, ..server(1) }, Security::Secure),
    ] {
        let mut desk = Desk::new(&[server]);
        let _ = desk.ask("mx.example", 1);
        let sent = desk.sent();
        desk.answer(&sent, &reply(&sent.bytes, Reply::Address { ttl: 60 }));
        let Some(Order::Answer { answer, .. }) = desk.orders.pop() else { panic!("no answer") };
        assert_eq!(answer.security, security);
    }
}

#[test]
fn times_have_bounds() {
    let mut desk = Desk::new(&[server(1)]);
    for (name, answer, least, most) in [
        ("long.example", Reply::Address { ttl: 1 << 30 }, 999, 1000),
        ("none.example", Reply::Address { ttl: 0 }, 0, 1),
        ("absent.example", Reply::Absent, 0, 1),
    ] {
        let _ = desk.ask(name, 1);
        let sent = desk.sent();
        desk.answer(&sent, &reply(&sent.bytes, answer));
        desk.orders.clear();
        let start = desk.now;
        desk.now = start + Duration::from_secs(least);
        assert!(matches!(desk.ask(name, 2), Asked::Known(_)), "{name}");
        desk.now = start + Duration::from_secs(most);
        assert_eq!(desk.ask(name, 2), Asked::Waiting, "{name}");
        desk.orders.clear();
    }
}

#[test]
fn without_servers_and_with_too_many_questions() {
    let mut desk = Desk::new(&[]);
    assert_eq!(desk.ask("mx.example", 1), Asked::Waiting);
    assert_eq!(desk.answered(), [(1, Outcome::TempFail(Failure::Unusable))]);
    assert!(matches!(desk.ask("localhost", 2), Asked::Known(_)));

    let mut desk = Desk::new(&[server(1)]);
    for i in 0..50 {
        assert_eq!(desk.ask(&format!("h{i}.example"), i), Asked::Waiting);
    }
    assert!(matches!(desk.ask("h50.example", 50), Asked::Known(_)));
    // A reload forgets what it knew and goes on with what it asks.
    let limits = Limits { cache_size_max: 0, ..LIMITS };
    desk.resolver.configure(limits, &[server(2)], StaticHosts::default());
    let _ = desk.followed();
    desk.wait(3);
    let sent = desk.all_sent();
    let by_udp = |sent: &Sent| sent.server == server(2).address && sent.transport != Transport::Tcp;
    assert!(sent.len() == 50 && sent.iter().all(by_udp), "what is too late gives up its sockets");
}

enum Event {
    Datagram(Socket, Vec<u8>),
    Stream(Ticket, Vec<u8>),
    Broken(Ticket),
    Ask(Question, Waiter),
}

/// Hundreds of questions over servers that lose, delay, repeat, cut and forge.
fn live(seed: u64) {
    const ASKED: u64 = 300;
    let mut random = Random(seed * 2 + 1);
    let servers = [server(1), server(2), server(3)];
    let mut resolver = Resolver::new(LIMITS, &servers, StaticHosts::default());
    let mut future = std::collections::BTreeMap::new();
    let mut serial = 0;
    for waiter in 0..ASKED {
        let name = format!("host{}.example", random.below(40));
        let at = Duration::from_millis(random.below(60_000));
        future.insert((at, serial), Event::Ask(question(&name), Waiter(waiter)));
        serial += 1;
    }
    let (mut now, mut answered, mut sockets) = (Duration::ZERO, BTreeSet::new(), Sockets::default());
    let loss = random.below(60);
    loop {
        let mut orders = Vec::new();
        let mut numbers = Random(random.next() | 1);
        let mut number = || numbers.next();
        match (future.keys().next().copied(), resolver.wake_after()) {
            (Some(key), wake) if wake.is_none_or(|wake| key.0 <= wake) => {
                now = key.0;
                match future.remove(&key).unwrap() {
                    Event::Ask(question, waiter) => {
                        if let Asked::Known(_) =
                            resolver.ask(&question, waiter, now, &mut number, &mut orders)
                        {
                            assert!(answered.insert(waiter));
                        }
                    }
                    Event::Datagram(socket, bytes) => {
                        resolver.on_datagram(socket, &bytes, now, &mut number, &mut orders);
                    }
                    Event::Stream(ticket, bytes) => {
                        assert!(sockets.streams.remove(&ticket));
                        resolver.on_stream_answer(ticket, &bytes, now, &mut number, &mut orders);
                    }
                    Event::Broken(ticket) => {
                        sockets.streams.remove(&ticket);
                        resolver.on_failed(ticket, now, &mut number, &mut orders);
                    }
                }
            }
            (_, Some(wake)) => {
                assert!(wake >= now || resolver.in_flight() > 0);
                now = now.max(wake);
                resolver.on_tick(now, &mut number, &mut orders);
                assert!(resolver.wake_after().is_none_or(|wake| wake > now), "a tick that changes nothing");
            }
            (_, None) => break,
        }
        for order in orders {
            sockets.follow(&order);
            match order {
                Order::Answer { waiter, .. } => assert!(answered.insert(waiter), "{waiter:?} answered twice"),
                Order::Close { .. } => {}
                Order::Send { ticket, transport: Transport::Tcp, bytes, .. } => {
                    let kind = [Reply::Address { ttl: 30 }, Reply::Absent, Reply::Failure, Reply::Truncated]
                        [random.below(4) as usize];
                    // The driver is patient, but not for ever: there is an end to each connection, and one.
                    let at = now + Duration::from_millis(random.below(10_000));
                    let event = if random.below(100) < loss {
                        Event::Broken(ticket)
                    } else {
                        Event::Stream(ticket, reply(&bytes, kind))
                    };
                    future.insert((at, serial), event);
                    serial += 1;
                }
                Order::Send { ticket, transport: Transport::Udp { socket }, bytes, .. } => {
                    let kind = [Reply::Address { ttl: 30 }, Reply::Absent, Reply::Failure, Reply::Truncated]
                        [random.below(4) as usize];
                    let at = now + Duration::from_millis(random.below(4000));
                    for _ in 0..=random.below(2) {
                        if random.below(100) < loss {
                            continue;
                        }
                        let mut message = reply(&bytes, kind);
                        if random.below(10) == 0 {
                            let place = random.below(message.len() as u64) as usize;
                            message[place] = random.next() as u8;
                        }
                        let event = match random.below(20) {
                            0 => Event::Broken(ticket),
                            _ => Event::Datagram(socket, message),
                        };
                        future.insert((at, serial), event);
                        serial += 1;
                    }
                }
            }
        }
        assert!(resolver.in_flight() <= LIMITS.questions_max);
        assert_eq!(resolver.tries.len(), resolver.questions.values().map(|q| q.open.len()).sum::<usize>());
        assert!(
            resolver.over_udp.len() <= resolver.tries.len() && resolver.timers.len() <= resolver.tries.len()
        );
        // Whoever waits, waits for something.
        assert!(resolver.in_flight() == 0 || !resolver.timers.is_empty());
    }
    assert_eq!(answered.len() as u64, ASKED, "somebody was forgotten");
    assert_eq!((resolver.in_flight(), resolver.tries.len(), resolver.over_udp.len()), (0, 0, 0));
    assert_eq!((sockets.open.len(), sockets.streams.len(), resolver.sockets.len()), (0, 0, 0));
    assert_eq!((resolver.streams.len(), resolver.streams_waiting.len()), (0, 0));
    assert_eq!(resolver.cached(), 0, "the cache outlived its times");
}

#[test]
fn lossy_worlds() {
    let one = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in one.map_or(0..40, |seed| seed..seed + 1) {
        println!("SEED={seed}");
        live(seed);
    }
}

#[test]
fn record_types_are_those_of_the_registry() {
    use crate::Kind::{A, Aaaa, Mx, Ptr, Tlsa, Txt};
    let types = [A, Aaaa, Mx, Ptr, Txt, Tlsa].map(|kind| u16::from(kind.record_type()));
    assert_eq!(types, [1, 28, 15, 12, 16, 52]);
    assert_eq!(RecordType::TLSA.to_string(), Tlsa.to_string());
}
