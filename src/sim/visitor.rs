//! A client with mail for us: it comes back after a 4yz or a lost connection, as clients do.

use std::{collections::VecDeque, net::IpAddr};

use bytes::Bytes;
use delivery::ConnectFailure;
use mail::{BodyType, Recipient, ReversePath, Utf8};
use smtp::client::{
    Answer, Chaining, Chunking, Ending, Limits, Options, Protocol, ReplyClass, Stage, Timeouts, TlsLevel,
    Transaction, TransactionOutcome,
};

use crate::{
    calling::{Calling, Want},
    names,
    world::{Event, HOUR, LinkId, MINUTE, Party, SECOND, Side, World},
};

pub(crate) struct Visitor {
    number: usize,
    address: IpAddr,
    waiting: VecDeque<Letter>,
    in_flight: VecDeque<Letter>,
    calling: Option<(LinkId, Option<Calling>)>,
    tries: u32,
}

/// A message and those who have not got it yet.
#[derive(Clone)]
struct Letter {
    transaction: Transaction,
    content: Vec<Bytes>,
}

const TRIES_MAX: u32 = 12;

impl Visitor {
    pub(crate) fn new(number: usize, world: &mut World) -> Self {
        let address = if world.one_in(8) { names::STRANGER } else { names::FRIEND };
        let count = 1 + world.below(5);
        let waiting = (0..count).map(|i| letter(&format!("{number}-{i}"), world)).collect();
        world.ledger.figures.submitted += count;
        let first = world.within(MINUTE, 3 * HOUR);
        world.at(first, Event::Visit(number));
        Self { number, address, waiting, in_flight: VecDeque::new(), calling: None, tries: 0 }
    }

    /// Whether it has nothing to send any more.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.calling.is_none()
    }

    pub(crate) fn visit(&mut self, world: &mut World) {
        if self.calling.is_none() && !self.waiting.is_empty() {
            let link = world.connect(Party::Visitor(self.number), world.door.clone(), self.address);
            self.calling = Some((link, None));
        }
    }

    pub(crate) fn on_connected(&mut self, world: &mut World, outcome: Result<(), ConnectFailure>) {
        let Some((link, calling)) = &mut self.calling else { return };
        if outcome.is_err() {
            world.leave(*link, Side::Caller);
            self.calling = None;
            return self.come_back(world);
        }
        *calling = Some(Calling::new(Options {
            protocol: Protocol::Smtp,
            hostname: "client.example".into(),
            tls: TlsLevel::None,
            chunking: world.pick(&[Chunking::WhenNeeded, Chunking::WhenOffered]),
            chaining: world.pick(&[Chaining::Off, Chaining::On]),
            login: None,
            limits: Limits { transactions_max: world.pick(&[1, 2, 100]), ..Limits::default() },
        }));
        self.go_on(world);
    }

    pub(crate) fn on_bytes(&mut self, world: &mut World, bytes: &[u8]) {
        if let Some((_, Some(calling))) = &mut self.calling {
            calling.on_bytes(bytes);
            self.go_on(world);
        }
    }

    pub(crate) fn on_closed(&mut self, world: &mut World) {
        if let Some((_, Some(calling))) = &mut self.calling {
            calling.on_closed();
            self.go_on(world);
        }
    }

    pub(crate) fn on_timeout(&mut self, world: &mut World) {
        if let Some((_, Some(calling))) = &mut self.calling {
            calling.on_timeout();
            self.go_on(world);
        }
    }

    fn go_on(&mut self, world: &mut World) {
        loop {
            let Some((link, Some(calling))) = &mut self.calling else { return };
            let (link, want) = (*link, calling.want());
            match want {
                Want::Content(framing) => {
                    let letter = self.in_flight.back().expect("content is of the transaction given last");
                    calling.send_content(framing, &letter.content);
                    if calling.takes_next()
                        && let Some(next) = self.waiting.pop_front()
                    {
                        calling.give(next.transaction.clone());
                        self.in_flight.push_back(next);
                    }
                }
                Want::Finished(outcome) => {
                    calling.on_finished();
                    self.on_finished(world, outcome);
                }
                Want::Transaction => match self.waiting.pop_front() {
                    Some(letter) if self.tries == 0 || !world.one_in(3) => {
                        calling.give(letter.transaction.clone());
                        self.in_flight.push_back(letter);
                    }
                    letter => {
                        letter.into_iter().for_each(|letter| self.waiting.push_front(letter));
                        calling.quit();
                    }
                },
                Want::Bytes(stage) => {
                    let bytes = std::mem::take(&mut calling.out);
                    world.set_patience(link, Side::Caller, Timeouts::default().of(stage));
                    return world.send(link, Side::Caller, bytes);
                }
                Want::Close(ending) => {
                    let bytes = std::mem::take(&mut calling.out);
                    world.send(link, Side::Caller, bytes);
                    world.close(link, Side::Caller);
                    self.calling = None;
                    assert!(self.in_flight.is_empty(), "a transaction was not reported");
                    if !matches!(ending, Ending::Quit) {
                        world.note(format_args!("client {} gets {ending:?}", self.number));
                    }
                    return self.come_back(world);
                }
            }
        }
    }

    fn on_finished(&mut self, world: &mut World, outcome: TransactionOutcome) {
        let mut letter = self.in_flight.pop_front().expect("only what is in flight ends");
        let answers = match outcome {
            TransactionOutcome::Untried(_) => return self.waiting.push_back(letter),
            TransactionOutcome::Answered(answers) => answers,
        };
        let mut answers = answers.iter();
        letter.transaction.recipients.retain(|_| match answers.next().expect("an answer for each") {
            Answer::Reply(Stage::End, reply) if reply.class() == ReplyClass::Completion => {
                let id = reply.text().rsplit(' ').next().and_then(|id| id.parse().ok());
                world.ledger.heard(id.expect("the reply names the message"), &letter.content.concat());
                false
            }
            Answer::Reply(_, reply) => {
                let storage = reply.status().is_some_and(|status| status.1 == 3);
                world.ledger.figures.storage_refusals += u64::from(storage);
                reply.class() != ReplyClass::Permanent
            }
            Answer::Lost(..) | Answer::Left => true,
            Answer::Unsuitable(_) => false,
        });
        if !letter.transaction.recipients.is_empty() {
            self.waiting.push_back(letter);
        }
    }

    fn come_back(&mut self, world: &mut World) {
        self.tries += 1;
        if self.tries > TRIES_MAX && !world.is_calm() {
            // Nobody is patient for ever.
            self.waiting.clear();
        }
        let wait = if self.tries == 1 { 5 * SECOND } else { MINUTE * (1 + world.below(20) as u32) };
        world.after(wait, Event::Visit(self.number));
    }
}

fn letter(name: &str, world: &mut World) -> Letter {
    let sender = match world.below(12) {
        0 => ReversePath::Null,
        1 => ReversePath::Address("nobody@home.example".parse().expect("our own text")),
        2 => ReversePath::Address("ann@nowhere.example".parse().expect("our own text")),
        _ => ReversePath::Address("ann@home.example".parse().expect("our own text")),
    };
    let count = world.pick(&[1, 1, 1, 2, 3, 6, 9]);
    let recipients = (0..count)
        .map(|place| {
            let kind = world.pick(&["bob", "bob", "bob", "bob", "grey", "nobody", "full"]);
            // Domains that lead somewhere are more frequent.
            let domain =
                if world.one_in(3) { world.pick(&names::DOMAINS) } else { world.pick(&names::DOMAINS[..4]) };
            let address = format!("{kind}{name}.{place}@{domain}");
            Recipient::new(address.parse().expect("our own text"))
        })
        .collect();
    let mut content = format!("From: ann@home.example\r\nSubject: {name}\r\n\r\n");
    let lines = world.pick(&[0, 3, 10, 50, 300, 900]);
    for _ in 0..lines {
        content += world.pick(&["", ".", "..", ".dots", "a line of some length, as lines are", "x\u{e9}y"]);
        content += "\r\n";
    }
    let body = if content.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime };
    let content = vec![Bytes::from(content)];
    let size = content[0].len() as u64;
    let (utf8, ret, envelope_id) = (Utf8::NotNeeded, None, None);
    let transaction = Transaction {
        reverse_path: sender,
        recipients,
        size,
        body,
        unconverted: None,
        utf8,
        ret,
        envelope_id,
        by: None,
        priority: mail::TransferPriority::default(),
        tls: mail::TlsDemand::None,
        upstream: None,
    };
    Letter { transaction, content }
}
