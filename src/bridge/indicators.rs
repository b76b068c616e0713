//! Pictures of domains (BIMI), known to all shards, and fetched by the pool for them.
//!
//! ```text
//!  shard: look ──▶ known, or known to be bad      (a lock, for a look)
//!          └─ nothing, and a ticket ──▶ addresses ──▶ errand ──▶ pool: HTTPS ──▶ done
//! ```
//!
//! Nobody waits: the message that asked goes on without. Whoever has a ticket is the only one to go for that picture, and there are
//! so many tickets at once, and so many for one host: what strangers write in records must not make of us what burdens somebody
//! else's web server. A ticket that is dropped may be had again.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dns::Name;
use mail::Timestamp;
use tokio::sync::mpsc;

/// The shards' end. Clones are the same.
#[derive(Clone, Debug)]
pub struct Indicators {
    known: Arc<Mutex<Known>>,
    errands: mpsc::Sender<IndicatorErrand>,
}

/// The pool's end.
#[derive(Debug)]
pub struct IndicatorDesk {
    errands: mpsc::Receiver<IndicatorErrand>,
}

/// By which a picture is known: where it is, and where its certificate is, if that is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IndicatorKey {
    /// Where it is.
    pub location: Option<Box<str>>,
    /// Where its certificate is.
    pub evidence: Option<Box<str>>,
}

/// A picture that is as it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct IndicatorFound {
    /// The field that shows it, to its CRLF.
    pub field: Box<str>,
    /// The end of its hash.
    pub hash: Box<str>,
    /// Its octets.
    pub size: usize,
    /// What its certificate says.
    pub evidence: Evidence,
}

/// What a certificate says of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// There is none that was to be looked at.
    Unnamed,
    /// It is good for these names.
    Good(Vec<Box<str>>),
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndicatorFailure {
    /// What of it.
    pub of: IndicatorFlawed,
    /// Why, in words.
    pub reason: Box<str>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndicatorFlawed {
    /// It cannot be had now.
    Unavailable,
    /// The picture is none that may be shown.
    Indicator,
    /// The certificate does not count.
    Evidence,
}

/// What came of fetching one.
pub type IndicatorAnswer = Result<Arc<IndicatorFound>, IndicatorFailure>;

/// What is known of one.
#[derive(Debug)]
pub struct IndicatorLook {
    /// The picture, or why there is none; none when nobody has looked yet.
    pub answer: Option<IndicatorAnswer>,
    /// Whoever asked is to see to it that it is fetched.
    pub ticket: Option<IndicatorTicket>,
}

/// The right to go for a picture.
#[derive(Debug)]
pub struct IndicatorTicket {
    known: Arc<Mutex<Known>>,
    key: IndicatorKey,
    /// Which time it is that all was forgotten.
    age: u64,
}

/// A file that is to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndicatorSource {
    /// The host that has it.
    pub host: Name,
    /// Where that is.
    pub addresses: Vec<IpAddr>,
    /// Its port.
    pub port: u16,
    /// What it is asked for.
    pub target: Box<str>,
}

/// A picture that is to be fetched.
#[derive(Debug)]
pub struct IndicatorErrand {
    /// The picture.
    pub location: Option<IndicatorSource>,
    /// Its certificate.
    pub evidence: Option<IndicatorSource>,
    /// The right to do so.
    pub ticket: IndicatorTicket,
}

/// How much is kept, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndicatorLimits {
    /// Pictures and failures.
    pub kept_max: usize,
    /// Octets of them.
    pub octets_max: usize,
    /// How old a picture may be before it is fetched anew.
    pub keep: Duration,
    /// How long a failure is believed.
    pub retry: Duration,
}

/// Tickets that are out at once.
const TICKETS_MAX: usize = 64;
/// Of those, for one host.
const TICKETS_OF_HOST_MAX: usize = 2;
/// What an entry takes beside what it has.
const ENTRY_SIZE: usize = 256;

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<IndicatorKey, Entry>,
    /// The same, what was not asked for longest first.
    by_turn: BTreeMap<u64, IndicatorKey>,
    turn: u64,
    octets: usize,
    /// Pictures that somebody goes for, and the hosts that have them.
    out: HashMap<IndicatorKey, Vec<Name>>,
    age: u64,
}

#[derive(Debug)]
struct Entry {
    answer: IndicatorAnswer,
    turn: u64,
    size: usize,
    /// From then on somebody is to go for it,
    renewed_at: Timestamp,
    /// and from then on it says nothing any more.
    ends_at: Timestamp,
}

impl Indicators {
    /// Both ends.
    pub fn new() -> (Self, IndicatorDesk) {
        let (errands, coming) = mpsc::channel(TICKETS_MAX);
        (Self { known: Arc::default(), errands }, IndicatorDesk { errands: coming })
    }

    /// What is known of a picture that these hosts have.
    pub fn look(&self, key: &IndicatorKey, hosts: &[&Name], now: Timestamp) -> IndicatorLook {
        let mut known = lock(&self.known);
        let (answer, is_due) = known.find(key, now);
        let ticket = (is_due && known.takes(key, hosts)).then(|| IndicatorTicket {
            known: self.known.clone(),
            key: key.clone(),
            age: known.age,
        });
        IndicatorLook { answer, ticket }
    }

    /// Has one fetched.
    pub fn fetch(&self, errand: IndicatorErrand) {
        // There is room for as many as there are tickets. Where nobody goes any more, the server stops.
        let _ = self.errands.try_send(errand);
    }

    /// Where they are kept.
    pub fn shelf(&self) -> IndicatorShelf {
        IndicatorShelf(self.known.clone())
    }
}

/// Where pictures are kept, for whoever neither asks for them nor fetches them.
#[derive(Clone, Debug)]
pub struct IndicatorShelf(Arc<Mutex<Known>>);

impl IndicatorShelf {
    /// Forgets all of them: others are believed now, or larger ones are taken.
    pub fn forget(&self) {
        let mut known = lock(&self.0);
        known.age += 1;
        known.entries.clear();
        known.by_turn.clear();
        known.octets = 0;
    }
}

impl IndicatorDesk {
    /// The next errand; none when no shard is left.
    pub async fn next(&mut self) -> Option<IndicatorErrand> {
        self.errands.recv().await
    }
}

impl IndicatorTicket {
    /// The picture that it is for.
    pub const fn key(&self) -> &IndicatorKey {
        &self.key
    }

    /// This came of it, and it is good for so long, if that is less than it would be kept.
    pub fn done(self, answer: IndicatorAnswer, good_for: Duration, limits: &IndicatorLimits, now: Timestamp) {
        let mut known = lock(&self.known);
        if known.age == self.age {
            known.keep(&self.key, answer, good_for, limits, now);
        }
    }
}

impl Drop for IndicatorTicket {
    fn drop(&mut self) {
        lock(&self.known).out.remove(&self.key);
    }
}

impl IndicatorSource {
    /// Reads what a record says of a place. The addresses are to be found.
    pub const fn new(host: Name, port: u16, target: Box<str>) -> Self {
        Self { host, addresses: Vec::new(), port, target }
    }
}

impl Known {
    /// What is known, and whether somebody is to go for it.
    fn find(&mut self, key: &IndicatorKey, now: Timestamp) -> (Option<IndicatorAnswer>, bool) {
        let Some(entry) = self.entries.get_mut(key) else { return (None, true) };
        self.turn += 1;
        self.by_turn.remove(&entry.turn);
        self.by_turn.insert(self.turn, key.clone());
        entry.turn = self.turn;
        let answer = (entry.ends_at > now).then(|| entry.answer.clone());
        (answer, entry.renewed_at <= now)
    }

    fn takes(&mut self, key: &IndicatorKey, hosts: &[&Name]) -> bool {
        let busy = |host: &Name| self.out.values().flatten().filter(|other| *other == host).count();
        if self.out.len() >= TICKETS_MAX
            || self.out.contains_key(key)
            || hosts.iter().any(|host| busy(host) >= TICKETS_OF_HOST_MAX)
        {
            return false;
        }
        let mut hosts: Vec<Name> = hosts.iter().map(|host| (*host).clone()).collect();
        hosts.dedup();
        self.out.insert(key.clone(), hosts);
        true
    }

    fn keep(
        &mut self,
        key: &IndicatorKey,
        answer: IndicatorAnswer,
        good_for: Duration,
        limits: &IndicatorLimits,
        now: Timestamp,
    ) {
        let after = |time: Duration| now.saturating_add(time);
        let is_for_now = answer.as_ref().is_err_and(|failure| failure.of == IndicatorFlawed::Unavailable);
        if let Some(entry) = self.entries.get_mut(key)
            && is_for_now
            && entry.answer.is_ok()
            && entry.ends_at > now
        {
            // A server that is down for an hour takes nothing back.
            entry.renewed_at = after(limits.retry);
            return;
        }
        self.drop_entry(key);
        let (renewed_at, ends_at) = match &answer {
            Ok(_) => {
                let keep = limits.keep.min(good_for);
                (after(keep), after(limits.keep.saturating_mul(2).min(good_for)))
            }
            Err(_) => (after(limits.retry), after(limits.retry)),
        };
        let places = key.location.iter().chain(&key.evidence).map(|place| place.len()).sum::<usize>();
        let has = match &answer {
            Ok(found) => {
                let names = match &found.evidence {
                    Evidence::Unnamed => 0,
                    Evidence::Good(names) => names.iter().map(|name| name.len() + 16).sum(),
                };
                found.field.len() + found.hash.len() + names
            }
            Err(failure) => failure.reason.len(),
        };
        // The key is there twice.
        let size = ENTRY_SIZE + 2 * places + has;
        if size > limits.octets_max {
            return;
        }
        while self.entries.len() >= limits.kept_max || self.octets + size > limits.octets_max {
            let Some((_, oldest)) = self.by_turn.pop_first() else { return };
            self.drop_entry(&oldest);
        }
        self.turn += 1;
        self.octets += size;
        self.by_turn.insert(self.turn, key.clone());
        let entry = Entry { answer, turn: self.turn, size, renewed_at, ends_at };
        self.entries.insert(key.clone(), entry);
    }

    fn drop_entry(&mut self, key: &IndicatorKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_turn.remove(&entry.turn);
            self.octets -= entry.size;
        }
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    // What a panic has left is whole but for what it was about, and derived.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod test {
    use super::*;

    const LIMITS: IndicatorLimits = IndicatorLimits {
        kept_max: 3,
        octets_max: 100_000,
        keep: Duration::from_secs(1000),
        retry: Duration::from_secs(100),
    };
    const LONG: Duration = Duration::from_secs(1_000_000);

    fn key(location: &str) -> IndicatorKey {
        IndicatorKey { location: Some(location.into()), evidence: None }
    }

    fn found(size: usize) -> IndicatorAnswer {
        let (field, hash) = ("x".repeat(size).into(), "abc".into());
        Ok(Arc::new(IndicatorFound { field, hash, size, evidence: Evidence::Unnamed }))
    }

    fn failed(of: IndicatorFlawed) -> IndicatorAnswer {
        Err(IndicatorFailure { of, reason: "why".into() })
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn look(indicators: &Indicators, location: &str, now: u64) -> IndicatorLook {
        let host = Name::parse(&format!("{location}.test")).unwrap();
        indicators.look(&key(location), &[&host, &host], at(now))
    }

    fn put(indicators: &Indicators, location: &str, answer: IndicatorAnswer, now: u64) {
        look(indicators, location, now).ticket.unwrap().done(answer, LONG, &LIMITS, at(now));
    }

    #[tokio::test]
    async fn one_goes_and_all_see_what_he_brings() {
        let (indicators, mut desk) = Indicators::new();
        let first = look(&indicators, "a", 1);
        assert!(first.answer.is_none());
        assert!(look(&indicators, "a", 1).ticket.is_none(), "somebody goes already");
        let ticket = first.ticket.unwrap();
        indicators.fetch(IndicatorErrand { location: None, evidence: None, ticket });
        let errand = desk.next().await.unwrap();
        assert_eq!(*errand.ticket.key(), key("a"));
        errand.ticket.done(found(1), LONG, &LIMITS, at(1));
        let again = look(&indicators, "a", 1000);
        assert!(again.answer == Some(found(1)) && again.ticket.is_none());
        // It is renewed while the old one holds, and then it does not hold any more.
        let due = look(&indicators, "a", 1001);
        assert!(due.answer == Some(found(1)) && due.ticket.is_some());
        drop(due);
        let over = look(&indicators, "a", 2001);
        assert!(over.answer.is_none() && over.ticket.is_some());
    }

    #[test]
    fn what_ends_sooner_is_kept_shorter() {
        let (indicators, _desk) = Indicators::new();
        let ticket = look(&indicators, "a", 1).ticket.unwrap();
        ticket.done(found(1), Duration::from_secs(50), &LIMITS, at(1));
        assert!(look(&indicators, "a", 50).answer.is_some());
        let over = look(&indicators, "a", 51);
        assert!(over.answer.is_none() && over.ticket.is_some());
    }

    #[test]
    fn failures_are_kept_for_a_while_and_take_back_what_is_bad() {
        let (indicators, _desk) = Indicators::new();
        put(&indicators, "a", failed(IndicatorFlawed::Unavailable), 1);
        let look_again = look(&indicators, "a", 100);
        assert!(
            look_again.answer == Some(failed(IndicatorFlawed::Unavailable)) && look_again.ticket.is_none()
        );
        put(&indicators, "a", found(1), 101);
        put(&indicators, "a", failed(IndicatorFlawed::Unavailable), 1101);
        let kept = look(&indicators, "a", 1150);
        assert!(kept.answer == Some(found(1)) && kept.ticket.is_none());
        put(&indicators, "a", failed(IndicatorFlawed::Indicator), 1201);
        assert_eq!(look(&indicators, "a", 1201).answer, Some(failed(IndicatorFlawed::Indicator)));
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let (indicators, _desk) = Indicators::new();
        for location in ["a", "b", "c"] {
            put(&indicators, location, found(10), 1);
        }
        assert!(look(&indicators, "a", 2).answer.is_some());
        put(&indicators, "d", found(10), 2);
        for (location, is_there) in [("a", true), ("b", false), ("c", true), ("d", true)] {
            assert_eq!(look(&indicators, location, 3).answer.is_some(), is_there, "{location}");
        }
        // One that takes the room of all others, and one that finds no room at all.
        put(&indicators, "e", found(99_700), 4);
        assert!(look(&indicators, "e", 4).answer.is_some() && look(&indicators, "d", 4).answer.is_none());
        put(&indicators, "f", found(100_001), 5);
        assert!(look(&indicators, "f", 5).answer.is_none() && look(&indicators, "e", 5).answer.is_some());
        let known = lock(&indicators.known);
        assert_eq!((known.entries.len(), known.by_turn.len(), known.out.len()), (1, 1, 0));
        assert!(known.octets > 99_000 && known.octets < 100_000);
    }

    #[test]
    fn hosts_are_not_asked_by_many_at_once() {
        let (indicators, _desk) = Indicators::new();
        let host = Name::parse("host.test").unwrap();
        let ticket =
            |number: usize, host: &Name| indicators.look(&key(&number.to_string()), &[host], at(1)).ticket;
        let one = ticket(1, &host);
        let two = ticket(2, &host);
        assert!(one.is_some() && two.is_some() && ticket(3, &host).is_none());
        drop(one);
        let three = ticket(3, &host);
        assert!(three.is_some());
        let others: Vec<_> = (10..100)
            .filter_map(|number| ticket(number, &Name::parse(&format!("h{number}.test")).unwrap()))
            .collect();
        assert_eq!(others.len(), TICKETS_MAX - 2);
    }

    #[test]
    fn what_was_judged_by_others_is_forgotten() {
        let (indicators, _desk) = Indicators::new();
        put(&indicators, "a", found(1), 1);
        let ticket = look(&indicators, "b", 1).ticket.unwrap();
        indicators.shelf().forget();
        ticket.done(found(1), LONG, &LIMITS, at(1));
        assert!(look(&indicators, "a", 1).answer.is_none());
        assert!(look(&indicators, "b", 1).answer.is_none());
    }
}
