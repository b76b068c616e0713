//! What came already: the same Message-ID of the same tenant for the same recipient.
//!
//! ```text
//!  claim ──▶ all new: yours ──▶ settle(durable): remembered    settle(failed): as if it had never been claimed
//!        ├─▶ some known, each durable by then: leave those out, the others are yours
//!        └─▶ some claimed by another that is not durable yet: wait for it, then claim again
//! ```
//!
//! So the second of two is dropped only when the first is on stable storage, and two of the same moment do not drop each
//! other. Nobody waits who has claimed something: who has to wait has nothing, so that nobody waits in a circle.
//!
//! It is all in memory, and bounded: a restart forgets it, and what comes again after it is taken again, as it would be
//! without all this.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    mem,
    time::Duration,
};

use mail::{Address, QueueId, TenantId};

use crate::{CaseOfLocalParts, list::fold};

/// A hash of 128 bits: two messages with the same one would be taken for the same, and one of them lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DuplicateKey([u64; 2]);

/// Makes [`DuplicateKey`]s, with a key that nobody knows: nobody can make two messages with the same.
#[derive(Clone, Debug, Default)]
pub struct Fingerprints([RandomState; 2]);

/// Names a claim until it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClaimId(u64);

/// What became of a claim. `W` is what wakes who waits.
#[derive(Debug)]
pub enum Claim {
    /// Those that are not known are the caller's; of the others, by their places, here is which message came first.
    Yours {
        /// To settle it; none when nothing was new.
        id: Option<ClaimId>,
        /// What came already.
        known: Vec<(usize, QueueId)>,
    },
    /// Nothing was claimed. Somebody else's claim has to be settled first; the waker that was given is woken then.
    Wait,
}

/// What is remembered, and who is about to be.
#[derive(Debug)]
pub struct Duplicates<W> {
    /// Of the last while, and of the while before.
    young: HashMap<DuplicateKey, Seen>,
    old: HashMap<DuplicateKey, Seen>,
    /// When the young ones began to be gathered.
    since: Duration,
    /// Claimed and not settled.
    pending: HashMap<DuplicateKey, ClaimId>,
    claims: HashMap<ClaimId, Pending<W>>,
    next: u64,
    entries_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    id: QueueId,
    at: Duration,
}

#[derive(Debug)]
struct Pending<W> {
    keys: Vec<DuplicateKey>,
    waiting: Vec<W>,
}

impl Fingerprints {
    /// Of a message to a recipient. All of a message's recipients share the first half, but for a part of its bits.
    pub fn of(
        &self,
        tenant: TenantId,
        message_id: &[u8],
        recipient: &Address,
        case: CaseOfLocalParts,
    ) -> DuplicateKey {
        DuplicateKey(self.0.each_ref().map(|state| {
            let mut hasher = state.build_hasher();
            hasher.write_u64(tenant.0);
            hasher.write_usize(message_id.len());
            hasher.write(message_id);
            fold(recipient.as_str(), case, |octets| hasher.write(octets));
            hasher.finish()
        }))
    }

    /// A number that all recipients of a message share.
    pub fn message(&self, tenant: TenantId, message_id: &[u8]) -> u64 {
        let mut hasher = self.0[0].build_hasher();
        hasher.write_u64(tenant.0);
        hasher.write(message_id);
        hasher.finish()
    }
}

impl<W> Duplicates<W> {
    /// With room for so many.
    pub fn new(entries_max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            since: Duration::ZERO,
            pending: HashMap::new(),
            claims: HashMap::new(),
            next: 0,
            entries_max,
        }
    }

    /// There is room for so many from now on.
    pub fn set_entries_max(&mut self, entries_max: usize) {
        self.entries_max = entries_max;
    }

    /// Claims the recipients of a message. What came within `window` counts as known.
    pub fn claim(&mut self, keys: &[DuplicateKey], window: Duration, now: Duration, waker: W) -> Claim {
        if let Some(claim) = keys.iter().find_map(|key| self.pending.get(key)) {
            let pending = self.claims.get_mut(claim).expect("a claim has its keys as long as they have it");
            pending.waiting.push(waker);
            return Claim::Wait;
        }
        let (mut known, mut new) = (Vec::new(), Vec::new());
        for (place, key) in keys.iter().enumerate() {
            match self.seen(key).filter(|seen| now.saturating_sub(seen.at) < window) {
                Some(seen) => known.push((place, seen.id)),
                None => new.push(*key),
            }
        }
        if new.is_empty() {
            return Claim::Yours { id: None, known };
        }
        let id = ClaimId(self.next);
        self.next += 1;
        self.pending.extend(new.iter().map(|key| (*key, id)));
        self.claims.insert(id, Pending { keys: new, waiting: Vec::new() });
        Claim::Yours { id: Some(id), known }
    }

    /// A claimed message is durable, by this name, or will never be (none). Answers whom to wake.
    #[must_use]
    pub fn settle(
        &mut self,
        claim: ClaimId,
        durable: Option<QueueId>,
        window_max: Duration,
        now: Duration,
    ) -> Vec<W> {
        let Some(Pending { keys, waiting }) = self.claims.remove(&claim) else { return Vec::new() };
        for key in keys {
            self.pending.remove(&key);
            let Some(id) = durable else { continue };
            let full = self.young.len() >= (self.entries_max / 2).max(1);
            if full || now.saturating_sub(self.since) >= window_max {
                // The old ones are at least half of the room away, or a window.
                self.old = mem::take(&mut self.young);
                self.since = now;
            }
            self.young.insert(key, Seen { id, at: now });
        }
        waiting
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn seen(&self, key: &DuplicateKey) -> Option<Seen> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }
}

#[cfg(test)]
mod test {
    use mail::JournalShard;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn key(n: u64) -> DuplicateKey {
        DuplicateKey([n, n])
    }

    fn id(n: u64) -> QueueId {
        QueueId::new(JournalShard(0), n)
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn yours(claim: Claim) -> (Option<ClaimId>, Vec<(usize, QueueId)>) {
        match claim {
            Claim::Yours { id, known } => (id, known),
            Claim::Wait => panic!("it has to wait"),
        }
    }

    #[test]
    fn the_second_is_known_when_the_first_is_durable() {
        let mut table = Duplicates::new(100);
        let (first, known) = yours(table.claim(&[key(1), key(2)], WINDOW, secs(1), "first"));
        assert!(known.is_empty());
        assert!(matches!(table.claim(&[key(3), key(2)], WINDOW, secs(1), "second"), Claim::Wait));
        // Who waits has claimed nothing.
        let (third, _) = yours(table.claim(&[key(3)], WINDOW, secs(1), "third"));
        assert_eq!(table.settle(first.unwrap(), Some(id(7)), WINDOW, secs(2)), ["second"]);
        assert!(table.settle(third.unwrap(), None, WINDOW, secs(2)).is_empty());
        let (again, known) = yours(table.claim(&[key(3), key(2)], WINDOW, secs(3), "second"));
        assert_eq!(known, [(1, id(7))]);
        assert!(table.settle(again.unwrap(), Some(id(8)), WINDOW, secs(3)).is_empty());
        assert_eq!(
            yours(table.claim(&[key(2), key(3)], WINDOW, secs(4), "x")),
            (None, vec![(0, id(7)), (1, id(8))])
        );
    }

    #[test]
    fn one_that_failed_was_never_there() {
        let mut table = Duplicates::new(100);
        let (first, _) = yours(table.claim(&[key(1)], WINDOW, secs(1), ()));
        assert!(matches!(table.claim(&[key(1)], WINDOW, secs(1), ()), Claim::Wait));
        assert_eq!(table.settle(first.unwrap(), None, WINDOW, secs(2)).len(), 1);
        let (second, known) = yours(table.claim(&[key(1)], WINDOW, secs(2), ()));
        assert!(second.is_some() && known.is_empty() && table.is_empty());
        assert!(table.settle(second.unwrap(), Some(id(1)), WINDOW, secs(2)).is_empty());
        assert!(table.settle(second.unwrap(), None, WINDOW, secs(2)).is_empty(), "settled once");
        assert_eq!(yours(table.claim(&[key(1)], WINDOW, secs(3), ())).1, [(0, id(1))]);
    }

    #[test]
    fn what_is_older_than_the_window_is_new() {
        let mut table = Duplicates::new(100);
        let (first, _) = yours(table.claim(&[key(1)], WINDOW, secs(1), ()));
        assert!(table.settle(first.unwrap(), Some(id(1)), HOUR, secs(1)).is_empty());
        assert_eq!(yours(table.claim(&[key(1)], WINDOW, secs(60), ())).1, [(0, id(1))]);
        let (later, known) = yours(table.claim(&[key(1)], WINDOW, secs(61), ()));
        assert!(known.is_empty());
        // Of another tenant with a longer window.
        assert!(table.settle(later.unwrap(), None, HOUR, secs(61)).is_empty());
        assert_eq!(yours(table.claim(&[key(1)], HOUR, secs(61), ())).1, [(0, id(1))]);
    }

    #[test]
    fn memory_is_bounded_and_the_youngest_half_is_kept() {
        let mut table = Duplicates::new(100);
        for n in 0..10_000 {
            let (claim, known) = yours(table.claim(&[key(n)], HOUR, secs(1), ()));
            assert!(known.is_empty());
            assert!(table.settle(claim.unwrap(), Some(id(n)), HOUR, secs(1)).is_empty());
            assert!(table.len() <= 100, "{}", table.len());
            let back = n.saturating_sub(49);
            assert_eq!(yours(table.claim(&[key(back)], HOUR, secs(1), ())).1, [(0, id(back))]);
        }
        // Nothing is kept for what has gone, and a whole window passes before what is left goes.
        for n in [2, 3] {
            let now = HOUR * n;
            let (claim, _) = yours(table.claim(&[key(n.into())], HOUR, now, ()));
            assert!(table.settle(claim.unwrap(), Some(id(1)), HOUR, now).is_empty());
        }
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn keys_differ_by_tenant_message_and_recipient() {
        let prints = Fingerprints::default();
        let address = |text: &str| text.parse::<Address>().unwrap();
        let of = |tenant, message: &str, to: &str| {
            prints.of(TenantId(tenant), message.as_bytes(), &address(to), CaseOfLocalParts::Ignored)
        };
        let one = of(1, "<a@b>", "ann@example.org");
        assert_eq!(one, of(1, "<a@b>", "Ann@Example.org"));
        for other in [
            of(2, "<a@b>", "ann@example.org"),
            of(1, "<a@c>", "ann@example.org"),
            of(1, "<a@b>", "bob@example.org"),
            of(
                1,
                "<a@b>ann",
                "@example.org".trim_start_matches('@').replace("example", "x@example").as_str(),
            ),
        ] {
            assert_ne!(one, other);
        }
    }
}
