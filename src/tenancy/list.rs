//! Who is on the suppression lists, in memory: 18 octets for each, by a keyed hash of tenant, list and address.
//!
//! Whoever looks takes no lock and waits for nobody: it sees a part of the table as it was before a change or after it. Whoever
//! changes makes that part anew, which is a copy of some kilobytes; changes are rare beside looks.
//!
//! The address itself is on disk alone, at the [`Place`] that is kept here. Two addresses with one hash of 64 bits would be
//! one entry: of ten million entries a stranger to all lists meets one once in 10^12 looks, and nobody can choose such an
//! address, since the hash has a key that each process draws anew.

use std::{
    hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::{ArcSwap, Guard};
use mail::{Address, ListId, TenantId, Timestamp};

use crate::{Reason, Whom};

/// Whether local-parts that differ in case are two addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaseOfLocalParts {
    /// They are one. RFC 5321 §2.4 leaves it to their host, and no host of today has two mailboxes that differ in case.
    #[default]
    Ignored,
    /// They are two.
    Kept,
}

/// A hash of tenant, list and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

/// Makes [`Key`]s; those of one are no good for another.
#[derive(Clone, Debug)]
pub struct Keys {
    state: RandomState,
    case: CaseOfLocalParts,
}

/// Where the record of an entry lies: in which of the files that are open, and from which octet on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: u8,
    /// The octet; below 2^40.
    pub offset: u64,
}

/// What is known of an entry without a look at the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Why it is there.
    pub reason: Reason,
    /// Until when, to the minute; none: for ever.
    pub until: Option<Timestamp>,
    /// Where the rest is.
    pub place: Place,
}

/// All entries of all lists.
#[derive(Debug)]
pub struct Table {
    parts: Box<[ArcSwap<Box<[Slot]>>]>,
    count: AtomicU64,
    /// Held by whoever changes anything: who looks does not ask for it.
    changing: Mutex<()>,
}

/// Key (8), until and reason (4), place (1 and 5); numbers with the highest octet first, so that they compare as octets do.
#[derive(Clone, Copy, Debug)]
struct Slot([u8; 18]);

/// Of ten million entries a part has 150, which are 3 kilobytes.
const PARTS: usize = 1 << 16;
const PART_SHIFT: u32 = 64 - PARTS.trailing_zeros();
/// Minutes have 29 bits; the last of them is never.
const NEVER: u32 = (1 << 29) - 1;

impl Keys {
    /// With a key of their own.
    pub fn new(case: CaseOfLocalParts) -> Self {
        Self { state: RandomState::new(), case }
    }

    /// Of somebody on a tenant's list; with [`ListId::NONE`], of those who get nothing from the tenant at all.
    pub fn of(&self, tenant: TenantId, list: ListId, whom: &Whom) -> Key {
        match whom {
            Whom::Address(address) => self.of_address(tenant, list, address),
            Whom::Domain(domain) => self.of_domain(tenant, list, domain.as_str()),
        }
    }

    /// Of an address.
    pub fn of_address(&self, tenant: TenantId, list: ListId, address: &Address) -> Key {
        self.hashed(tenant, list, |hasher| fold(address.as_str(), self.case, |octets| hasher.write(octets)))
    }

    /// Of all addresses of a domain.
    pub fn of_domain(&self, tenant: TenantId, list: ListId, domain: &str) -> Key {
        self.hashed(tenant, list, |hasher| {
            // No address begins so.
            hasher.write_u8(b'@');
            fold(domain, CaseOfLocalParts::Ignored, |octets| hasher.write(octets));
        })
    }

    fn hashed(&self, tenant: TenantId, list: ListId, whom: impl FnOnce(&mut DefaultHasher)) -> Key {
        let mut hasher = self.state.build_hasher();
        hasher.write_u64(tenant.0);
        hasher.write_u64(list.0);
        whom(&mut hasher);
        Key(hasher.finish())
    }
}

/// What counts of an address or a domain, as octets.
pub(crate) fn fold(text: &str, case: CaseOfLocalParts, take: impl FnOnce(&[u8])) {
    match case {
        CaseOfLocalParts::Kept => take(text.as_bytes()),
        CaseOfLocalParts::Ignored if text.is_ascii() && text.len() <= 256 => {
            // An address has 254 octets at most.
            let mut folded = [0; 256];
            let folded = &mut folded[..text.len()];
            folded.copy_from_slice(text.as_bytes());
            folded.make_ascii_lowercase();
            take(folded);
        }
        CaseOfLocalParts::Ignored => take(text.to_lowercase().as_bytes()),
    }
}

impl Slot {
    fn new(key: Key, found: &Found) -> Self {
        let mut octets = [0; 18];
        octets[..8].copy_from_slice(&key.0.to_be_bytes());
        // Rounded up: who is there for ten seconds is there for a minute.
        let minutes = found
            .until
            .map_or(NEVER, |until| u32::try_from(until.secs().div_ceil(60)).unwrap_or(NEVER).min(NEVER - 1));
        octets[8..12].copy_from_slice(&(minutes << 3 | found.reason.number()).to_be_bytes());
        octets[12] = found.place.file;
        octets[13..].copy_from_slice(&found.place.offset.to_be_bytes()[3..]);
        Self(octets)
    }

    fn number(&self, range: std::ops::Range<usize>) -> u64 {
        self.0[range].iter().fold(0, |number, octet| number << 8 | u64::from(*octet))
    }

    fn key(&self) -> Key {
        Key(self.number(0..8))
    }

    fn found(&self) -> Found {
        let number = self.number(8..12) as u32;
        let minutes = number >> 3;
        Found {
            reason: Reason::of_number(number & 7),
            until: (minutes != NEVER).then(|| Timestamp::from_secs(u64::from(minutes) * 60)),
            place: Place { file: self.0[12], offset: self.number(13..18) },
        }
    }
}

impl Found {
    /// Whether its time is not over.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// One without entries.
    pub fn new() -> Self {
        let nobody: Arc<Box<[Slot]>> = Arc::default();
        Self {
            parts: (0..PARTS).map(|_| ArcSwap::new(nobody.clone())).collect(),
            count: AtomicU64::new(0),
            changing: Mutex::default(),
        }
    }

    /// What is known of an entry, whether its time is over or not.
    pub fn find(&self, key: Key) -> Option<Found> {
        let part = self.part(key).load();
        let at = at(&part, key).ok()?;
        Some(part[at].found())
    }

    /// Puts an entry in, in the place of one with the same key; answers whether there was none.
    pub fn put(&self, key: Key, found: &Found) -> bool {
        let slot = Slot::new(key, found);
        self.change(key, |part, at| match at {
            Ok(at) => {
                let mut part: Box<[Slot]> = part.into();
                part[at] = slot;
                (Some(part), false)
            }
            Err(at) => {
                self.count.fetch_add(1, Relaxed);
                (Some([&part[..at], &[slot], &part[at..]].concat().into()), true)
            }
        })
    }

    /// Takes an entry out; answers what was known of it.
    pub fn remove(&self, key: Key) -> Option<Found> {
        self.change(key, |part, at| match at {
            Ok(at) => {
                self.count.fetch_sub(1, Relaxed);
                (Some([&part[..at], &part[at + 1..]].concat().into()), Some(part[at].found()))
            }
            Err(_) => (None, None),
        })
    }

    /// The record of an entry lies elsewhere, if it lay here; answers whether it did.
    pub fn rebase(&self, key: Key, from: Place, to: Place) -> bool {
        self.change(key, |part, at| {
            let there = at.ok().map(|at| (at, part[at].found())).filter(|(_, found)| found.place == from);
            let Some((at, found)) = there else { return (None, false) };
            let mut part: Box<[Slot]> = part.into();
            part[at] = Slot::new(key, &Found { place: to, ..found });
            (Some(part), true)
        })
    }

    /// Takes those out whose time is over; answers how many they were.
    pub fn expire(&self, now: Timestamp) -> u64 {
        let mut expired = 0;
        for place in &self.parts {
            let _changing = self.changing();
            let part = place.load();
            let holds = |slot: &&Slot| slot.found().holds(now);
            let left = part.iter().filter(holds).count();
            if left < part.len() {
                expired += (part.len() - left) as u64;
                place.store(Arc::new(part.iter().filter(holds).copied().collect()));
            }
        }
        self.count.fetch_sub(expired, Relaxed);
        expired
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has a part made anew, of what is in it and where the key is or would be.
    fn change<T>(
        &self,
        key: Key,
        act: impl FnOnce(&[Slot], Result<usize, usize>) -> (Option<Box<[Slot]>>, T),
    ) -> T {
        let _changing = self.changing();
        let place = self.part(key);
        let part: Guard<_> = place.load();
        let (new, answer) = act(&part, at(&part, key));
        if let Some(new) = new {
            place.store(Arc::new(new));
        }
        answer
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self, key: Key) -> &ArcSwap<Box<[Slot]>> {
        &self.parts[part_of(key)]
    }
}

const fn part_of(key: Key) -> usize {
    (key.0 >> PART_SHIFT) as usize
}

fn at(part: &[Slot], key: Key) -> Result<usize, usize> {
    part.binary_search_by_key(&key, Slot::key)
}

#[cfg(test)]
mod test {
    use super::*;

    fn found(secs: Option<u64>, offset: u64) -> Found {
        let place = Place { file: 3, offset };
        Found { reason: Reason::Complaint, until: secs.map(Timestamp::from_secs), place }
    }

    #[test]
    fn addresses_compare_as_they_should() {
        let shop = TenantId::of("shop");
        let address = |text: &str| text.parse::<Address>().unwrap();
        let key = |keys: &Keys, text: &str| keys.of_address(shop, ListId::NONE, &address(text));
        let (loose, strict) = (Keys::new(CaseOfLocalParts::Ignored), Keys::new(CaseOfLocalParts::Kept));
        for (one, other, same_loose, same_strict) in [
            ("ann@example.org", "ann@Example.ORG", true, true),
            ("ann@example.org", "Ann@example.org", true, false),
            ("änne@example.org", "ÄNNE@example.org", true, false),
            ("ann@example.org", "ann@example.net", false, false),
        ] {
            assert_eq!(key(&loose, one) == key(&loose, other), same_loose, "{one} {other}");
            assert_eq!(key(&strict, one) == key(&strict, other), same_strict, "{one} {other}");
        }
        let ann = address("ann@example.org");
        let news = loose.of_address(shop, ListId::of("news"), &ann);
        assert_ne!(news, loose.of_address(shop, ListId::NONE, &ann));
        assert_ne!(news, loose.of_address(TenantId::of("other"), ListId::of("news"), &ann));
        let domain = |keys: &Keys, name: &str| keys.of_domain(shop, ListId::NONE, name);
        assert_eq!(
            domain(&strict, "Example.org"),
            strict.of(shop, ListId::NONE, &"@example.org".parse().unwrap())
        );
        assert_ne!(domain(&loose, "example.org"), domain(&loose, "sub.example.org"));
    }

    #[test]
    fn entries_come_move_and_go() {
        let table = Table::new();
        let (a, b, last) = (Key(5), Key(6), Key(u64::MAX));
        assert!(table.is_empty() && table.find(a).is_none());
        assert!(table.put(b, &found(None, 1 << 39)) && table.put(a, &found(Some(61), 7)));
        assert!(table.put(last, &found(Some(u64::MAX / 2_000_000), 0)), "later than can be told");
        assert!(!table.put(a, &found(Some(61), 8)), "it was there");
        assert_eq!(table.find(b), Some(found(None, 1 << 39)));
        assert_eq!(table.find(a), Some(found(Some(120), 8)), "a minute is rounded up");
        assert!(table.find(last).unwrap().until.is_some());
        let (here, there) = (Place { file: 3, offset: 8 }, Place { file: 255, offset: 9 });
        assert!(!table.rebase(a, there, here), "it does not lie there");
        assert!(table.rebase(a, here, there) && table.find(a).unwrap().place == there);
        assert!(!table.rebase(Key(7), here, there));
        assert_eq!((table.expire(Timestamp::from_secs(119)), table.len()), (0, 3));
        assert_eq!((table.expire(Timestamp::from_secs(120)), table.len()), (1, 2));
        assert_eq!(table.remove(b), Some(found(None, 1 << 39)));
        assert_eq!((table.remove(b), table.len()), (None, 1));
    }

    #[test]
    fn many_entries_are_all_found_and_take_little() {
        let table = Table::new();
        let keys = Keys::new(CaseOfLocalParts::Ignored);
        let key = |n: u64| {
            let address = format!("user{n}@example.org").parse().unwrap();
            keys.of_address(TenantId(1), ListId::NONE, &address)
        };
        for n in 0..100_000 {
            assert!(table.put(key(n), &found(None, n)));
        }
        assert!((0..100_000).all(|n| table.find(key(n)).is_some_and(|found| found.place.offset == n)));
        assert!((100_000..200_000).all(|n| table.find(key(n)).is_none()));
        // In parts that are made to measure, and none is much longer than the others.
        let longest = table.parts.iter().map(|part| part.load().len()).max().unwrap();
        assert!(size_of::<Slot>() == 18 && longest < 20, "{longest} in one part");
        assert!((0..100_000).all(|n| table.remove(key(n)).is_some()) && table.is_empty());
    }
}
