//! Requests that are sent again because their answer was lost: the first answer is given again.

use std::{collections::VecDeque, time::Duration};

use hashbrown::HashMap;

/// How much is remembered, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) time: Duration,
    pub(crate) bytes_max: usize,
}

/// The Idempotency-Keys of the last time, with what was answered.
#[derive(Debug)]
pub(crate) struct Remembered<A> {
    limits: Limits,
    entries: HashMap<Id, Entry<A>>,
    /// Those that have an answer, the oldest first.
    order: VecDeque<(Id, u64)>,
    bytes: usize,
    next_serial: u64,
}

/// The name of the API key, and the Idempotency-Key: what two programs call the same is not the same.
pub(crate) type Id = (String, String);

/// What a request was: its hash.
pub(crate) type Fingerprint = [u8; 32];

#[derive(Debug)]
struct Entry<A> {
    fingerprint: Fingerprint,
    state: State<A>,
}

#[derive(Debug)]
enum State<A> {
    Running,
    Done { answer: A, bytes: usize, at: Duration, serial: u64 },
}

/// Whether a request was here before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen<A> {
    /// It was not: [`Remembered::end`] has to be called.
    New,
    /// It is being answered now.
    Running,
    /// It was answered so.
    Done(A),
    /// Another request had this key.
    Other,
}

/// What an entry takes beside its texts.
const ENTRY_BYTES: usize = 256;

impl<A: Clone> Remembered<A> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, entries: HashMap::new(), order: VecDeque::new(), bytes: 0, next_serial: 0 }
    }

    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// A request begins.
    pub(crate) fn begin(&mut self, id: &Id, fingerprint: Fingerprint, now: Duration) -> Seen<A> {
        self.forget_old(now);
        match self.entries.get(id) {
            Some(entry) if entry.fingerprint != fingerprint => Seen::Other,
            Some(Entry { state: State::Running, .. }) => Seen::Running,
            Some(Entry { state: State::Done { answer, .. }, .. }) => Seen::Done(answer.clone()),
            None => {
                self.entries.insert(id.clone(), Entry { fingerprint, state: State::Running });
                Seen::New
            }
        }
    }

    /// It was answered; without an answer to remember, it may be tried again.
    pub(crate) fn end(&mut self, id: &Id, answer: Option<(A, usize)>, now: Duration) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let Some((answer, len)) = answer else {
            self.entries.remove(id);
            return;
        };
        let bytes = len + id.0.len() + id.1.len() + ENTRY_BYTES;
        let serial = self.next_serial;
        self.next_serial += 1;
        entry.state = State::Done { answer, bytes, at: now, serial };
        self.order.push_back((id.clone(), serial));
        self.bytes += bytes;
        self.forget_old(now);
    }

    fn forget_old(&mut self, now: Duration) {
        while let Some((id, number)) = self.order.front() {
            let Some(Entry { state: State::Done { bytes, at, serial, .. }, .. }) = self.entries.get(id)
            else {
                self.order.pop_front();
                continue;
            };
            if serial != number {
                self.order.pop_front();
                continue;
            }
            if self.bytes <= self.limits.bytes_max && now.saturating_sub(*at) < self.limits.time {
                return;
            }
            self.bytes -= bytes;
            self.entries.remove(id);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const LIMITS: Limits = Limits { time: Duration::from_secs(60), bytes_max: 3 * 400 };

    fn id(key: &str) -> Id {
        ("shop".into(), key.into())
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_is_given_again() {
        let mut remembered = Remembered::new(LIMITS);
        assert_eq!(remembered.begin(&id("a"), [1; 32], at(0)), Seen::New);
        assert_eq!(remembered.begin(&id("a"), [1; 32], at(1)), Seen::Running);
        assert_eq!(remembered.begin(&id("a"), [2; 32], at(1)), Seen::Other);
        let others = ("mail".to_owned(), "a".to_owned());
        assert_eq!(remembered.begin(&others, [2; 32], at(1)), Seen::New);
        remembered.end(&id("a"), Some(("yes", 100)), at(2));
        assert_eq!(remembered.begin(&id("a"), [1; 32], at(61)), Seen::Done("yes"));
        assert_eq!(remembered.begin(&id("a"), [2; 32], at(61)), Seen::Other);
        assert_eq!(
            remembered.begin(&id("a"), [2; 32], at(62)),
            Seen::New,
            "a minute after its answer it is forgotten"
        );
    }

    #[test]
    fn what_may_be_tried_again_is_not_remembered() {
        let mut remembered = Remembered::<&str>::new(LIMITS);
        assert_eq!(remembered.begin(&id("a"), [1; 32], at(0)), Seen::New);
        remembered.end(&id("a"), None, at(0));
        assert_eq!(remembered.begin(&id("a"), [2; 32], at(0)), Seen::New);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let mut remembered = Remembered::new(LIMITS);
        for number in 0..100_u8 {
            let id = id(&number.to_string());
            assert_eq!(remembered.begin(&id, [number; 32], at(0)), Seen::New);
            remembered.end(&id, Some((number, 100)), at(0));
            assert!(remembered.bytes <= LIMITS.bytes_max);
            assert!(remembered.order.len() <= 4 && remembered.entries.len() <= 4);
        }
        assert_eq!(remembered.begin(&id("99"), [99; 32], at(0)), Seen::Done(99));
        assert_eq!(remembered.begin(&id("0"), [0; 32], at(0)), Seen::New);
    }
}
