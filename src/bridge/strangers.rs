//! What the whole host knows of strangers: who has come before, and which lists of the DNS can be believed now.
//!
//! ```text
//!  shard: a list has answered, or not ──▶ its state, without a lock as long as all is well
//!  one shard for all: probes ──▶ set aside, or back in use ──▶ an event in the log
//! ```

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use mail::Timestamp;
use strangers::{Ailment, Greylist, ListEvent, ListHealth, Origin, Reputation, Systems, Turn};

/// What is known. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Strangers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lists: ArcSwap<BTreeMap<Box<str>, Arc<ListState>>>,
    greylist: Greylist,
    reputation: Reputation,
    /// Which autonomous system an address is in, where a database says so.
    systems: ArcSwapOption<Systems>,
    /// How many bits of an address are its network: of IPv4 and of IPv6.
    prefixes: [AtomicU8; 2],
}

/// What is known of a list of the DNS.
#[derive(Debug, Default)]
pub struct ListState {
    /// So that nobody takes the lock for a list that has nothing wrong.
    spotless: AtomicBool,
    aside: AtomicBool,
    health: Mutex<(ListHealth, Option<Timestamp>)>,
    answers: [AtomicU64; ListResult::ALL.len()],
}

/// What came of a question to a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListResult {
    /// It has an entry that counts.
    Listed,
    /// It has none.
    Unlisted,
    /// It did not answer, or refused to.
    Failed,
}

impl ListResult {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Listed, Self::Unlisted, Self::Failed];

    /// In metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Listed => "listed",
            Self::Unlisted => "unlisted",
            Self::Failed => "failed",
        }
    }
}

impl Strangers {
    /// There are lists of these names and no others. What is known of those that stay, stays.
    pub fn know_lists<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let known = self.0.lists.load();
        let state = |name: &str| {
            known.get(name).cloned().unwrap_or_else(|| {
                Arc::new(ListState { spotless: AtomicBool::new(true), ..ListState::default() })
            })
        };
        let lists = names.map(|name| (Box::from(name), state(name))).collect();
        self.0.lists.store(Arc::new(lists));
    }

    /// What is known of a list; none when a reload has taken it away.
    pub fn list(&self, name: &str) -> Option<Arc<ListState>> {
        self.0.lists.load().get(name).cloned()
    }

    /// Who has come before.
    pub fn greylist(&self) -> &Greylist {
        &self.0.greylist
    }

    /// What they have done.
    pub fn reputation(&self) -> &Reputation {
        &self.0.reputation
    }

    /// What is configured: how many bits of an address are its network, and entries of the greylist.
    pub fn configure(&self, v4: u8, v6: u8, greylisted_max: u64) {
        self.0.prefixes[0].store(v4, Relaxed);
        self.0.prefixes[1].store(v6, Relaxed);
        self.0.greylist.set_entries_max(greylisted_max);
    }

    /// Where a client at this address comes from.
    pub fn origin(&self, address: IpAddr) -> Origin<'static> {
        let [v4, v6] = &self.0.prefixes;
        Origin::of(address, v4.load(Relaxed), v6.load(Relaxed))
    }

    /// Which autonomous system an address is in, by this database from now on.
    pub fn set_systems(&self, systems: Option<Systems>) {
        self.0.systems.store(systems.map(Arc::new));
    }

    /// The autonomous system of an address, where one is known.
    pub fn system(&self, address: IpAddr) -> Option<u32> {
        self.0.systems.load().as_ref()?.number(address)
    }

    /// All of them.
    pub fn lists(&self) -> Vec<(Box<str>, Arc<ListState>)> {
        self.0.lists.load().iter().map(|(name, state)| (name.clone(), state.clone())).collect()
    }
}

impl ListState {
    /// Whether it is not asked now.
    pub fn is_aside(&self) -> bool {
        // Relaxed: who sees it late asks once more, or once less.
        self.aside.load(Relaxed)
    }

    /// Counts what came of a question.
    pub fn count(&self, result: ListResult) {
        self.answers[result as usize].fetch_add(1, Relaxed);
    }

    /// What came of all questions.
    pub fn counted(&self) -> [(ListResult, u64); ListResult::ALL.len()] {
        ListResult::ALL.map(|result| (result, self.answers[result as usize].load(Relaxed)))
    }

    /// Takes in what happened; says how it stands, if not as before.
    pub fn on_event(&self, event: ListEvent) -> Option<Turn> {
        if event == ListEvent::Answered && self.spotless.load(Relaxed) {
            return None;
        }
        let (health, _) = &mut *self.state();
        let turn = health.on_event(event);
        // With the lock held, so that of two the later one stays.
        self.spotless.store(health.is_spotless(), Relaxed);
        self.aside.store(health.aside().is_some(), Relaxed);
        turn
    }

    /// Why it is not asked now.
    pub fn ailment(&self) -> Option<Ailment> {
        self.state().0.aside()
    }

    /// Whether it is for the caller to probe it, which is done so often, and so often while it is set aside.
    pub fn claim_probe(&self, every: Duration, rest: Duration, now: Timestamp) -> bool {
        let (health, due) = &mut *self.state();
        let wait = if health.aside().is_some() { rest } else { every };
        let next = now.saturating_add(wait);
        // After the clock was set back, it is not waited for; and of one that was set aside meanwhile, not as long.
        let is_due = due.is_none_or(|due| due <= now || due > next);
        if is_due {
            *due = Some(next);
        }
        is_due
    }

    fn state(&self) -> MutexGuard<'_, (ListHealth, Option<Timestamp>)> {
        // What a panic has left is whole: each step is one call.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn all_hear_of_a_list_that_is_set_aside() {
        let strangers = Strangers::default();
        strangers.know_lists(["a", "b"].into_iter());
        let list = strangers.clone().list("a").unwrap();
        assert!(strangers.list("c").is_none());
        assert_eq!(list.on_event(ListEvent::Answered), None);
        let turn = list.on_event(ListEvent::KnowsEverybody);
        assert_eq!(turn, Some(Turn::Aside(Ailment::KnowsEverybody)));
        assert!(strangers.list("a").unwrap().is_aside() && !strangers.list("b").unwrap().is_aside());
        list.count(ListResult::Failed);
        strangers.know_lists(["a", "c"].into_iter());
        let again = strangers.list("a").unwrap();
        assert_eq!((again.ailment(), again.counted()[2].1), (Some(Ailment::KnowsEverybody), 1));
        assert!(strangers.list("b").is_none() && strangers.lists().len() == 2);
        assert_eq!(again.on_event(ListEvent::Sound), Some(Turn::Back));
        assert!(!list.is_aside());
    }

    #[test]
    fn one_probes_for_all() {
        let strangers = Strangers::default();
        strangers.know_lists(["a"].into_iter());
        let list = strangers.list("a").unwrap();
        let [every, rest] = [900, 60].map(Duration::from_secs);
        let claims = |times: &[u64]| -> Vec<bool> {
            times.iter().map(|at| list.claim_probe(every, rest, Timestamp::from_secs(*at))).collect()
        };
        assert_eq!(claims(&[1000, 1001, 1899, 1900, 100]), [true, false, false, true, true]);
        list.on_event(ListEvent::KnowsEverybody);
        assert_eq!(claims(&[101, 102, 161]), [true, false, true]);
    }
}
