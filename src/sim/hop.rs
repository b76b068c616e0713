//! A next hop: a server like ours, in a mood. A client that comes for its mail is one, on a connection of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use delivery::ConnectFailure;
use mail::{Domain, ForwardPath, JournalShard, QueueId};
use smtp::{Extension, Refusal, Stage};

use crate::{
    names,
    serving::{Asked, Serving},
    world::{Event, LinkId, MINUTE, Party, Side, World},
};

pub(crate) struct Hop {
    /// Its number among those that are called; `None` where it is the one that calls.
    number: Option<usize>,
    /// Whose mail it takes.
    domains: Vec<&'static str>,
    /// Its end of the connections.
    side: Side,
    mood: Mood,
    options: Arc<smtp::Options>,
    sessions: BTreeMap<LinkId, Session>,
    /// Whom it has seen: the others have to come back.
    seen: BTreeSet<String>,
    taken: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    /// One connection in two goes wrong.
    Ill,
    /// Nobody listens.
    Down,
    /// Nobody answers.
    Silent,
}

struct Session {
    serving: Serving,
    fault: Fault,
    /// What it has sent so far.
    replies: u64,
}

/// What goes wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// After so many replies nothing is heard any more.
    Hangs(u64),
    /// After so many replies it is closed.
    Drops(u64),
    /// The reply to the final dot is lost, the message is not.
    ForgetsReply,
    /// The message is lost with the connection, when all of it has come.
    ForgetsMessage,
    /// Each reply takes its time.
    Slow(Duration),
    /// A stage is refused.
    Refuses(At, Refusal),
    /// What it says is no reply.
    Babbles(u64),
    /// 421 at once.
    ShutsDown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Ehlo,
    Mail,
    Rcpt,
    Data,
    End,
}

impl Hop {
    pub(crate) fn new(number: usize, world: &mut World) -> Self {
        world.after(Duration::ZERO, Event::Mood(number));
        Self::of(Some(number), vec![names::domain(number)], Side::Answerer, world)
    }

    /// One that comes for its mail.
    pub(crate) fn customer(world: &mut World) -> Self {
        Self::of(None, names::CUSTOMERS.to_vec(), Side::Caller, world)
    }

    fn of(number: Option<usize>, domains: Vec<&'static str>, side: Side, world: &mut World) -> Self {
        let mut options = smtp::Options::new(Domain::parse("mx.example").expect("our own text"));
        for extension in [Extension::Pipelining, Extension::Chunking, Extension::EightBitMime] {
            if world.one_in(4) {
                options.extensions = options.extensions.without(extension);
            }
        }
        options.limits.recipients_max = world.pick(&[2, 100]);
        let (mood, options) = (Mood::Well, options.shared());
        let (sessions, seen) = (BTreeMap::new(), BTreeSet::new());
        Self { number, domains, side, mood, options, sessions, seen, taken: 0 }
    }

    pub(crate) fn change_mood(&mut self, world: &mut World) {
        let Some(number) = self.number else { return };
        if world.is_calm() {
            self.mood = Mood::Well;
            world.hops[number] = Ok(Party::Hop(number));
            return;
        }
        self.mood = world.pick(&[Mood::Well, Mood::Well, Mood::Ill, Mood::Ill, Mood::Down, Mood::Silent]);
        world.hops[number] = match self.mood {
            Mood::Well | Mood::Ill => Ok(Party::Hop(number)),
            Mood::Down => Err(ConnectFailure::Refused),
            Mood::Silent => Err(ConnectFailure::TimedOut),
        };
        let wait = world.within(MINUTE, 50 * MINUTE);
        world.after(wait, Event::Mood(number));
    }

    /// It has come for its mail and is the server now.
    pub(crate) fn on_visit(&mut self, world: &mut World, link: LinkId) {
        self.mood = if world.is_calm() { Mood::Well } else { world.pick(&[Mood::Well, Mood::Ill]) };
        self.on_connected(world, link);
    }

    /// Connections that it serves.
    pub(crate) fn open(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn on_connected(&mut self, world: &mut World, link: LinkId) {
        let fault = match self.mood {
            Mood::Ill => fault(world),
            Mood::Well | Mood::Down | Mood::Silent => Fault::None,
        };
        let (serving, asked) = Serving::open(self.options.clone());
        let mut session = Session { serving, fault, replies: 0 };
        let asked = if fault == Fault::ShutsDown {
            session.serving.out.clear();
            session.serving.on_shutdown()
        } else {
            asked
        };
        self.answer(world, link, session, asked);
    }

    pub(crate) fn on_bytes(&mut self, world: &mut World, link: LinkId, bytes: &[u8]) {
        let Some(mut session) = self.sessions.remove(&link) else { return };
        session.serving.on_bytes(bytes);
        let asked = session.serving.go_on();
        self.answer(world, link, session, asked);
    }

    pub(crate) fn on_closed(&mut self, world: &mut World, link: LinkId) {
        self.sessions.remove(&link);
        world.leave(link, self.side);
    }

    fn answer(&mut self, world: &mut World, link: LinkId, mut session: Session, mut asked: Asked) {
        loop {
            let serving = &mut session.serving;
            asked = match asked {
                Asked::Bytes => break,
                Asked::Close => {
                    self.reply(world, link, session);
                    self.sessions.remove(&link);
                    return world.close(link, self.side);
                }
                Asked::Judge(stage) => {
                    let verdict = self.judge(session.fault, &stage);
                    self.note_refusal(world, verdict);
                    serving.on_verdict(stage, verdict)
                }
                Asked::Fetch(_) | Asked::Reverse => unreachable!("a next hop keeps no mail"),
                Asked::Content => serving.on_content(Ok(())),
                Asked::Commit(_) if session.fault == Fault::ForgetsMessage => {
                    return world.close(link, self.side);
                }
                Asked::Commit(envelope) => {
                    if let Fault::Refuses(At::End, refusal) = session.fault {
                        self.note_refusal(world, Err(refusal));
                        serving.on_commit(Err(refusal))
                    } else {
                        world.ledger.taken(&envelope, &serving.intake.content.concat());
                        self.taken += 1;
                        if session.fault == Fault::ForgetsReply {
                            return world.close(link, self.side);
                        }
                        serving.on_commit(Ok(QueueId::new(JournalShard(99), self.taken)))
                    }
                }
            };
        }
        self.reply(world, link, session);
    }

    fn reply(&mut self, world: &mut World, link: LinkId, mut session: Session) {
        let out = std::mem::take(&mut session.serving.out);
        if !out.is_empty() {
            session.replies += 1;
            match session.fault {
                Fault::Hangs(after) if session.replies > after => {}
                Fault::Drops(after) if session.replies > after => return world.close(link, self.side),
                Fault::Babbles(after) if session.replies > after => {
                    world.send(link, self.side, Bytes::from_static(b"what?\r\n"));
                }
                Fault::Slow(wait) => {
                    // As if it had been on the way all the time.
                    world.after(wait, Event::Bytes { link, to: self.side.other(), bytes: out.into() });
                }
                Fault::None
                | Fault::Hangs(_)
                | Fault::Drops(_)
                | Fault::Babbles(_)
                | Fault::ForgetsReply
                | Fault::ForgetsMessage
                | Fault::Refuses(..)
                | Fault::ShutsDown => world.send(link, self.side, out),
            }
        }
        self.sessions.insert(link, session);
    }

    fn note_refusal(&self, world: &mut World, verdict: Result<(), Refusal>) {
        if verdict == Err(Refusal::Policy) {
            self.domains.iter().for_each(|domain| world.ledger.refused_for_good(domain));
        }
    }

    fn judge(&mut self, fault: Fault, stage: &Stage) -> Result<(), Refusal> {
        let at = match stage {
            Stage::Ehlo { .. } => At::Ehlo,
            Stage::Mail { .. } => At::Mail,
            Stage::Rcpt { .. } => At::Rcpt,
            Stage::Data { .. } => At::Data,
        };
        if let Fault::Refuses(refused, refusal) = fault
            && refused == at
        {
            return Err(refusal);
        }
        let Stage::Rcpt { forward_path: ForwardPath::Address(address), .. } = stage else { return Ok(()) };
        match address.as_str() {
            name if name.starts_with("nobody") => Err(Refusal::NoSuchRecipient),
            name if name.starts_with("full") => Err(Refusal::MailboxFull),
            name if name.starts_with("grey") && self.seen.insert(name.to_owned()) => Err(Refusal::Greylisted),
            _ => Ok(()),
        }
    }
}

fn fault(world: &mut World) -> Fault {
    let after = world.below(8);
    let temporary = [Refusal::Busy, Refusal::RateLimited, Refusal::StorageFull, Refusal::ShuttingDown];
    let refusal = if world.one_in(3) { Refusal::Policy } else { world.pick(&temporary) };
    match world.below(15) {
        0 => Fault::Hangs(after),
        1 => Fault::Drops(after),
        2 => Fault::ForgetsReply,
        3 => Fault::Slow(MINUTE * (1 + world.below(3) as u32)),
        4 => Fault::Refuses(world.pick(&[At::Ehlo, At::Mail, At::Rcpt, At::Data, At::End]), refusal),
        5 => Fault::Babbles(after),
        6 => Fault::ShutsDown,
        7 => Fault::ForgetsMessage,
        _ => Fault::None,
    }
}

/// The next hops of this world.
pub(crate) fn all(world: &mut World) -> Vec<Hop> {
    (0..names::HOPS).map(|number| Hop::new(number, world)).collect()
}
