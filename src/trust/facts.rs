//! What is known for one message, and what is missing.
//!
//! A judgement is a function of [`Facts`]. It asks as if everything were known; what is not is noted, and counts
//! as a temporary failure for the moment. If anything was noted the result is thrown away, the shard looks up what
//! was noted, and the judgement runs anew:
//!
//! ```text
//!  attempt ──nothing missed──▶ the result stands
//!     ▲  │ missed
//!     │  ▼
//!     │ end_round ──within budget and time──▶ Round::Ask: look up, learn
//!     │  │ beyond                                  │
//!     │  ▼                                         │
//!     │ learned as temporary failures              │
//!     └──┴─────────────────────────────────────────┘
//! ```
//!
//! So it ends, and what is not known in time is a temporary failure: never a pass, and never "there is none".

use std::{
    borrow::Borrow,
    cell::{Cell, RefCell},
    collections::HashMap,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use dns::{Answer, Exchange, Failure, Kind, Name, Outcome, Question, Records, Security, Tlsa};
use mail_auth::{DnsError, Error, ResolverCache, Txt, hickory_resolver::proto::op::ResponseCode};

/// The answers for one message, or for one [`Hearing`](crate::Hearing), and what was asked in vain.
#[derive(Debug)]
pub struct Facts {
    known: HashMap<Question, Arc<Answer>>,
    missing: RefCell<Vec<Question>>,
    /// Grows whenever something is asked that is not known.
    misses: Cell<usize>,
    asked: usize,
    lookups_max: usize,
    deadline: Duration,
}

/// How a round of attempts ended.
#[derive(Debug)]
pub(crate) enum Round {
    /// Nothing was missing.
    Complete,
    /// These must be looked up.
    Ask(Vec<Question>),
    /// What was missing is not looked up any more; the attempts will end now.
    Again,
}

/// Why there are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The name exists and has no such record.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// Not known now: a failure (SERVFAIL, which is also a wrong proof), or not looked up yet.
    Unknown,
}

/// Text records of one meaning as mail-auth looks them up, in the place of its own resolver.
///
/// It has an answer for every name: so mail-auth never comes to ask its resolver
/// (`common/resolver.rs`: `txt_lookup` returns what the cache gives before it asks).
pub(crate) struct TextCache<'a, F> {
    facts: &'a Facts,
    read: F,
    read_so_far: RefCell<Vec<(Name, Txt)>>,
}

impl Facts {
    /// Nothing is known. At most `lookups_max` questions are asked, none at or after `deadline`.
    pub(crate) fn new(lookups_max: usize, deadline: Duration) -> Self {
        Self {
            known: HashMap::new(),
            missing: RefCell::new(Vec::new()),
            misses: Cell::new(0),
            asked: 0,
            lookups_max,
            deadline,
        }
    }

    /// Takes in the answer to a question.
    pub(crate) fn learn(&mut self, question: Question, answer: Arc<Answer>) {
        self.known.insert(question, answer);
    }

    /// Ends a round of attempts.
    pub(crate) fn end_round(&mut self, now: Duration) -> Round {
        let mut missing = self.missing.take();
        if missing.is_empty() {
            return Round::Complete;
        }
        let (room, failure) = if now < self.deadline {
            (self.lookups_max.saturating_sub(self.asked), Failure::Overload)
        } else {
            (0, Failure::Timeout)
        };
        for question in missing.split_off(room.min(missing.len())) {
            self.known.insert(question, Arc::new(Answer::failed(failure, Duration::ZERO)));
        }
        self.asked += missing.len();
        if missing.is_empty() { Round::Again } else { Round::Ask(missing) }
    }

    /// Runs a judgement; gives its result unless something was missing.
    pub(crate) fn attempt<T>(&self, judgement: impl FnOnce(&Self) -> T) -> Option<T> {
        let misses = self.misses.get();
        let result = judgement(self);
        (self.misses.get() == misses).then_some(result)
    }

    /// The text records of a name.
    ///
    /// # Errors
    /// [`Lack`] says why there are none.
    pub fn texts(&self, name: &Name) -> Result<&[Box<[u8]>], Lack> {
        let Records::Texts(texts) = self.records(name, Kind::Txt)? else { return Err(Lack::NoData) };
        some(texts)
    }

    /// The addresses of a name, of the kind asked for.
    ///
    /// # Errors
    /// [`Lack`] says why there are none.
    pub fn addresses(&self, name: &Name, kind: Kind) -> Result<&[IpAddr], Lack> {
        let Records::Addresses(addresses) = self.records(name, kind)? else { return Err(Lack::NoData) };
        some(addresses)
    }

    /// The mail exchanges of a name, most preferred first.
    ///
    /// # Errors
    /// [`Lack`] says why there are none.
    pub fn exchanges(&self, name: &Name) -> Result<&[Exchange], Lack> {
        let Records::Exchanges(exchanges) = self.records(name, Kind::Mx)? else { return Err(Lack::NoData) };
        some(exchanges)
    }

    /// The names of an address.
    ///
    /// # Errors
    /// [`Lack`] says why there are none.
    pub fn names(&self, address: IpAddr) -> Result<&[Name], Lack> {
        let Records::Names(names) = self.records(&Name::reverse(address), Kind::Ptr)? else {
            return Err(Lack::NoData);
        };
        some(names)
    }

    /// The TLSA records of a name (RFC 6698).
    ///
    /// # Errors
    /// [`Lack`] says why there are none.
    pub fn associations(&self, name: &Name) -> Result<&[Tlsa], Lack> {
        let Records::Tlsa(records) = self.records(name, Kind::Tlsa)? else { return Err(Lack::NoData) };
        some(records)
    }

    /// All that is known of a question; none as long as it is not known, which is noted.
    pub fn answer(&self, question: &Question) -> Option<&Answer> {
        if let Some(answer) = self.known.get(question) {
            return Some(answer);
        }
        self.miss(question.clone());
        None
    }

    /// Whether DNSSEC proves what is said of a name, as a resolver says that is believed.
    pub fn is_proven(&self, name: &Name, kind: Kind) -> bool {
        let answer = self.answer(&Question { name: name.clone(), kind });
        answer.is_some_and(|answer| answer.security == Security::Secure)
    }

    /// Has this looked up too, if anything is.
    pub fn note(&self, name: &Name, kind: Kind) {
        let _ = self.records(name, kind);
    }

    /// How often something was asked for that is not known.
    pub(crate) const fn misses(&self) -> usize {
        self.misses.get()
    }

    /// When nothing is asked any more.
    pub(crate) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// How many questions were asked so far.
    pub(crate) const fn asked(&self) -> usize {
        self.asked
    }

    fn records(&self, name: &Name, kind: Kind) -> Result<&Records, Lack> {
        let question = Question { name: name.clone(), kind };
        match self.known.get(&question).map(|answer| &answer.outcome) {
            Some(Outcome::Found(records)) => Ok(records),
            Some(Outcome::NoData) => Err(Lack::NoData),
            Some(Outcome::NxDomain) => Err(Lack::NxDomain),
            Some(Outcome::TempFail(_)) => Err(Lack::Unknown),
            None => {
                self.miss(question);
                Err(Lack::Unknown)
            }
        }
    }

    fn miss(&self, question: Question) {
        self.misses.set(self.misses.get() + 1);
        let mut missing = self.missing.borrow_mut();
        if !missing.contains(&question) {
            missing.push(question);
        }
    }
}

fn some<T>(records: &[T]) -> Result<&[T], Lack> {
    if records.is_empty() { Err(Lack::NoData) } else { Ok(records) }
}

impl<'a, F: Fn(&Name, &[Box<[u8]>]) -> Txt> TextCache<'a, F> {
    /// `read` makes of a name's text records what mail-auth expects there.
    pub(crate) const fn new(facts: &'a Facts, read: F) -> Self {
        Self { facts, read, read_so_far: RefCell::new(Vec::new()) }
    }

    /// What stands at a name, each name read once.
    pub(crate) fn text(&self, name: &str) -> Txt {
        // What cannot be asked for does not exist.
        let Ok(name) = Name::parse(name) else { return Txt::Error(error(Lack::NxDomain)) };
        if let Some((_, text)) = self.read_so_far.borrow().iter().find(|(read, _)| *read == name) {
            return text.clone();
        }
        let text = match self.facts.texts(&name) {
            Ok(texts) => (self.read)(&name, texts),
            Err(lack) => Txt::Error(error(lack)),
        };
        self.read_so_far.borrow_mut().push((name, text.clone()));
        text
    }

    /// The names looked at so far, with what stands there.
    pub(crate) fn into_texts(self) -> Vec<(Name, Txt)> {
        self.read_so_far.into_inner()
    }
}

impl<F: Fn(&Name, &[Box<[u8]>]) -> Txt> ResolverCache<Box<str>, Txt> for TextCache<'_, F> {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        Some(spelled(name).map_or_else(|| Txt::Error(error(Lack::Unknown)), |name| self.text(&name)))
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {
        unreachable!("mail-auth keeps only what it has looked up itself");
    }
}

/// The error that mail-auth has for a lack.
pub(crate) fn error(lack: Lack) -> Error {
    Error::Dns(match lack {
        Lack::NoData => DnsError::RecordNotFound(ResponseCode::NoError),
        Lack::NxDomain => DnsError::RecordNotFound(ResponseCode::NXDomain),
        Lack::Unknown => DnsError::Resolver(String::new()),
    })
}

/// The text behind a key that says no more of itself than that it hashes and compares as a text does.
///
/// `ResolverCache::get` does not tell the name; but a text gives its octets to the hasher, and what comes out is
/// compared with the key, so that nothing is believed.
fn spelled<Q>(key: &Q) -> Option<Box<str>>
where
    Box<str>: Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    let mut octets = Octets(Vec::with_capacity(64));
    key.hash(&mut octets);
    // A text ends its octets with one that is in no text.
    octets.0.pop();
    let text = String::from_utf8(octets.0).ok()?.into_boxed_str();
    (text.borrow() == key).then_some(text)
}

/// Keeps what it is to hash.
struct Octets(Vec<u8>);

impl Hasher for Octets {
    fn write(&mut self, octets: &[u8]) {
        self.0.extend_from_slice(octets);
    }

    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
#[path = "facts_test.rs"]
mod test;
