//! What all cores and the pool know of tenants: suppression lists, quotas, what came already.
//!
//! ```text
//!  shard: suppressed? ──▶ known, without a lock; take, claim ──▶ known, with one that is held for a look
//!  shard, pool: change, look, page ──▶ errand ──▶ pool: the log on disk ──▶ known
//! ```
//!
//! A change is known to the cores when it is durable; whoever waits for its answer waits for that. What a shard adds it does not
//! wait for: where there is no room for more, it is lost and counted, since mail is not kept back for it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use mail::{Address, ListId, QueueId, TenantId, Timestamp};
use tenancy::{
    CaseOfLocalParts, Change, Claim, ClaimId, Duplicates, Entry, Fingerprints, Keys, Quotas, Reason, Scope,
    Table, Whom,
};
use tokio::sync::{mpsc, oneshot};

/// What is known of tenants. Clones are the same.
#[derive(Clone, Debug)]
pub struct Tenancy {
    known: Arc<Known>,
    errands: mpsc::Sender<ListErrand>,
}

/// The pool's end: who keeps the lists on disk.
#[derive(Debug)]
pub struct ListDesk {
    known: Arc<Known>,
    errands: mpsc::Receiver<ListErrand>,
}

/// What is known, for whoever keeps it.
#[derive(Debug)]
pub struct Known {
    /// By what entries are found.
    pub keys: Keys,
    /// The entries.
    pub table: Table,
    /// What tenants have sent.
    pub quotas: Quotas,
    case: CaseOfLocalParts,
    entries_max: AtomicU64,
    lost: AtomicU64,
    added: [AtomicU64; Reason::ALL.len()],
    prints: Fingerprints,
    duplicates: [Mutex<Duplicates<oneshot::Sender<()>>>; DUPLICATE_PARTS],
    /// The longest window of all tenants, in microseconds.
    window_max: AtomicU64,
}

/// Something to be done with the lists on disk.
#[derive(Debug)]
pub enum ListErrand {
    /// To change them. The answer: how many changes were any.
    Change(Vec<Change>, Option<oneshot::Sender<Result<usize, ListError>>>),
    /// To look somebody up.
    Look(Scope, Whom, oneshot::Sender<Result<Option<Entry>, ListError>>),
    /// To show a part of them.
    Page(ListPage, oneshot::Sender<Result<ListEntries, ListError>>),
}

/// Which part of the lists to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Of one tenant alone.
    pub tenant: Option<String>,
    /// Of one of its lists alone.
    pub list: Option<String>,
    /// For one reason alone.
    pub reason: Option<Reason>,
    /// Of one domain alone.
    pub domain: Option<String>,
    /// Where the page before has ended, as it said.
    pub cursor: Option<String>,
    /// Entries at most.
    pub limit: usize,
}

/// A part of the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListEntries {
    /// In the order in which they came on, more or less. There may be fewer than asked for, and more behind.
    pub entries: Vec<Entry>,
    /// Where the next page begins; none: there is none.
    pub next: Option<String>,
}

/// Why the lists cannot be asked or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// The disk did not do it. Nothing of it holds.
    #[error("the suppression list cannot be written: {0}")]
    Write(String),
    /// The disk did not tell.
    #[error("the suppression list cannot be read: {0}")]
    Read(String),
    /// There are as many entries as there may be.
    #[error("the suppression list is full: there are {0} entries, as many as suppression.entries-max")]
    Full(u64),
    /// The cursor is of before files were put together.
    #[error("the cursor does not hold any more")]
    Cursor,
    /// Nobody keeps the lists any more, or too many ask at once.
    #[error("the suppression list has no time now")]
    Busy,
}

/// Recipients that are being accepted, for [`Tenancy::claim`]. Dropped, it is as if they had never come.
#[derive(Debug)]
pub struct Claimed {
    known: Arc<Known>,
    part: usize,
    id: Option<ClaimId>,
    now: Duration,
    /// Those that came already, by their places, and in which message.
    pub duplicates: Vec<(usize, QueueId)>,
}

const DUPLICATE_PARTS: usize = 64;

impl Tenancy {
    /// Both ends, with room for so many errands.
    pub fn new(case: CaseOfLocalParts, errands_max: usize) -> (Self, ListDesk) {
        let known = Arc::new(Known {
            keys: Keys::new(case),
            table: Table::new(),
            quotas: Quotas::default(),
            case,
            entries_max: AtomicU64::new(u64::MAX),
            lost: AtomicU64::new(0),
            added: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            prints: Fingerprints::default(),
            duplicates: std::array::from_fn(|_| Mutex::new(Duplicates::new(1))),
            window_max: AtomicU64::new(0),
        });
        let (errands, coming) = mpsc::channel(errands_max);
        (Self { known: known.clone(), errands }, ListDesk { known, errands: coming })
    }

    /// What is configured: entries of suppression lists, remembered recipients and the longest time for which a tenant wants
    /// them to be.
    pub fn configure(&self, entries_max: u64, duplicates_max: u64, window_max: Duration) {
        self.known.entries_max.store(entries_max, Relaxed);
        self.known.window_max.store(micros(window_max), Relaxed);
        let of_part = usize::try_from(duplicates_max).unwrap_or(usize::MAX) / DUPLICATE_PARTS;
        for part in &self.known.duplicates {
            lock(part).set_entries_max(of_part);
        }
    }

    /// Whether a tenant sends nothing to an address, or nothing of one of its lists; and why.
    pub fn suppressed(
        &self,
        tenant: TenantId,
        list: ListId,
        address: &Address,
        now: Timestamp,
    ) -> Option<Reason> {
        let Known { keys, table, .. } = &*self.known;
        if table.is_empty() {
            return None;
        }
        let find = |key| table.find(key).filter(|found| found.holds(now)).map(|found| found.reason);
        let (all, none) = (TenantId::of(Scope::ALL), ListId::NONE);
        let of_list = || find(keys.of_address(tenant, list, address));
        find(keys.of_address(tenant, none, address))
            .or_else(|| find(keys.of_address(all, none, address)))
            .or_else(|| if list == none { None } else { of_list() })
            .or_else(|| find(keys.of_domain(tenant, none, address.domain_str())))
            .or_else(|| find(keys.of_domain(all, none, address.domain_str())))
    }

    /// Puts somebody on a list, and waits for nothing.
    pub fn suppress(&self, entry: Entry) {
        if self.errands.try_send(ListErrand::Change(vec![Change::Add(entry)], None)).is_err() {
            self.known.lost.fetch_add(1, Relaxed);
        }
    }

    /// Changes lists, and waits until that is durable. Answers how many changes were any.
    ///
    /// # Errors
    /// [`ListError`]: nothing of it is sure to hold.
    pub async fn change(&self, changes: Vec<Change>) -> Result<usize, ListError> {
        self.ask(|reply| ListErrand::Change(changes, Some(reply))).await
    }

    /// Who is on a list, with all that is known.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn look(&self, scope: Scope, whom: Whom) -> Result<Option<Entry>, ListError> {
        self.ask(|reply| ListErrand::Look(scope, whom, reply)).await
    }

    /// A part of the lists.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn page(&self, page: ListPage) -> Result<ListEntries, ListError> {
        self.ask(|reply| ListErrand::Page(page, reply)).await
    }

    async fn ask<T>(
        &self,
        errand: impl FnOnce(oneshot::Sender<Result<T, ListError>>) -> ListErrand,
    ) -> Result<T, ListError> {
        let (reply, answer) = oneshot::channel();
        self.errands.send(errand(reply)).await.map_err(|_| ListError::Busy)?;
        answer.await.map_err(|_| ListError::Busy)?
    }

    /// What tenants have sent.
    pub fn quotas(&self) -> &Quotas {
        &self.known.quotas
    }

    /// How many entries there are on all lists.
    pub fn entries(&self) -> u64 {
        self.known.table.len()
    }

    /// How many were put on since the start, by reason; and how many could not be.
    pub fn added(&self) -> ([(Reason, u64); Reason::ALL.len()], u64) {
        let of = |reason: Reason| (reason, self.known.added[reason as usize].load(Relaxed));
        (Reason::ALL.map(of), self.known.lost.load(Relaxed))
    }

    /// How many recipients are remembered, so that they are not sent the same again.
    pub fn remembered(&self) -> u64 {
        self.known.duplicates.iter().map(|part| lock(part).len() as u64).sum()
    }

    /// Says which recipients of a message have it already, and that the others are about to. Waits as long as one of them is
    /// on its way in another message.
    pub async fn claim(
        &self,
        tenant: TenantId,
        message_id: &[u8],
        recipients: impl Iterator<Item = &Address>,
        window: Duration,
        now: Timestamp,
    ) -> Claimed {
        let Known { prints, duplicates, case, .. } = &*self.known;
        let keys: Vec<_> = recipients.map(|address| prints.of(tenant, message_id, address, *case)).collect();
        let part = (prints.message(tenant, message_id) % DUPLICATE_PARTS as u64) as usize;
        let now = Duration::from_micros(now.0);
        loop {
            let (waker, woken) = oneshot::channel();
            let claim = lock(&duplicates[part]).claim(&keys, window, now, waker);
            match claim {
                Claim::Yours { id, known } => {
                    let (known, duplicates) = (self.known.clone(), known);
                    return Claimed { known, part, id, now, duplicates };
                }
                // Whoever was to wake us may be gone: all the same it is settled.
                Claim::Wait => drop(woken.await),
            }
        }
    }
}

impl Claimed {
    /// The message is durable.
    pub fn durable(mut self, id: QueueId) {
        self.settle(Some(id));
    }

    fn settle(&mut self, durable: Option<QueueId>) {
        let Some(id) = self.id.take() else { return };
        let window_max = Duration::from_micros(self.known.window_max.load(Relaxed));
        let woken = lock(&self.known.duplicates[self.part]).settle(id, durable, window_max, self.now);
        for waker in woken {
            // It may have given up.
            let _ = waker.send(());
        }
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.settle(None);
    }
}

impl ListDesk {
    /// Takes no more errands; those that have come are still to be done.
    pub fn close(&mut self) {
        self.errands.close();
    }

    /// The next errand; none when nobody is left who could send one.
    pub async fn next(&mut self) -> Option<ListErrand> {
        self.errands.recv().await
    }

    /// One more that is there already.
    pub fn next_at_hand(&mut self) -> Option<ListErrand> {
        self.errands.try_recv().ok()
    }

    /// What is known.
    pub fn known(&self) -> Arc<Known> {
        self.known.clone()
    }
}

impl Known {
    /// As many entries as there may be.
    pub fn entries_max(&self) -> u64 {
        self.entries_max.load(Relaxed)
    }

    /// Somebody was put on a list.
    pub fn count_added(&self, reason: Reason) {
        self.added[reason as usize].fetch_add(1, Relaxed);
    }

    /// So many could not be.
    pub fn count_lost(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic has left is whole: each step is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod test {
    use mail::JournalShard;
    use tenancy::{Found, Place};

    use super::*;

    const SHOP: TenantId = TenantId(7);
    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const WINDOW: Duration = Duration::from_secs(60);

    fn tenancy() -> (Tenancy, ListDesk) {
        let (tenancy, desk) = Tenancy::new(CaseOfLocalParts::Ignored, 1);
        tenancy.configure(100, 6400, WINDOW);
        (tenancy, desk)
    }

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn lists_are_for_a_tenant_for_all_or_for_one_of_its_lists() {
        let (tenancy, desk) = tenancy();
        let known = desk.known();
        let put = |tenant, list, to: &str, until| {
            let place = Place { file: 0, offset: 0 };
            let found = Found { reason: Reason::Manual, until, place };
            known.table.put(known.keys.of(tenant, list, &to.parse().unwrap()), &found);
        };
        let news = ListId::of("news");
        put(SHOP, ListId::NONE, "own@a.test", None);
        put(TenantId::of("*"), ListId::NONE, "all@a.test", None);
        put(SHOP, news, "news@a.test", None);
        put(SHOP, ListId::NONE, "over@a.test", Some(Timestamp::from_secs(NOW.secs() - 60)));
        put(SHOP, ListId::NONE, "@own.test", None);
        put(TenantId::of("*"), ListId::NONE, "@all.test", None);
        for (tenant, list, to, expected) in [
            (SHOP, ListId::NONE, "Own@a.test", true),
            (SHOP, news, "own@a.test", true),
            (TenantId(8), ListId::NONE, "own@a.test", false),
            (TenantId(8), ListId::NONE, "all@a.test", true),
            (SHOP, ListId::NONE, "news@a.test", false),
            (SHOP, news, "news@a.test", true),
            (SHOP, ListId::of("other"), "news@a.test", false),
            (SHOP, ListId::NONE, "over@a.test", false),
            (SHOP, ListId::NONE, "ann@Own.test", true),
            (SHOP, ListId::NONE, "ann@sub.own.test", false),
            (TenantId(8), ListId::NONE, "ann@own.test", false),
            (TenantId(8), news, "ann@all.test", true),
        ] {
            let found = tenancy.suppressed(tenant, list, &address(to), NOW).is_some();
            assert_eq!(found, expected, "{to}");
        }
    }

    #[tokio::test]
    async fn what_nobody_takes_is_counted() {
        let (tenancy, desk) = tenancy();
        let entry = Entry {
            scope: Scope::tenant("shop"),
            whom: "a@a.test".parse().unwrap(),
            reason: Reason::Bounce,
            since: NOW,
            until: None,
            note: "".into(),
        };
        tenancy.suppress(entry.clone());
        assert_eq!(tenancy.added().1, 0);
        tenancy.suppress(entry.clone());
        assert_eq!(tenancy.added().1, 1, "there is room for one");
        drop(desk);
        assert_eq!(tenancy.change(vec![Change::Add(entry)]).await, Err(ListError::Busy));
    }

    #[tokio::test]
    async fn the_second_waits_for_the_first() {
        let (tenancy, _desk) = tenancy();
        let (ann, bob) = (address("ann@a.test"), address("bob@a.test"));
        let claim = |to: Vec<Address>| {
            let tenancy = tenancy.clone();
            async move { tenancy.claim(SHOP, b"<1@x>", to.iter(), WINDOW, NOW).await }
        };
        let first = claim(vec![ann.clone(), bob.clone()]).await;
        assert!(first.duplicates.is_empty());
        let second = tokio::spawn(claim(vec![bob.clone()]));
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        let id = QueueId::new(JournalShard(1), 5);
        first.durable(id);
        assert_eq!(second.await.unwrap().duplicates, [(0, id)]);
        assert_eq!(tenancy.remembered(), 2);
        // One that fails, or whose task is gone, leaves nothing.
        let other = tenancy.claim(SHOP, b"<2@x>", [&ann].into_iter(), WINDOW, NOW).await;
        let after = {
            let tenancy = tenancy.clone();
            let ann = ann.clone();
            tokio::spawn(async move { tenancy.claim(SHOP, b"<2@x>", [&ann].into_iter(), WINDOW, NOW).await })
        };
        tokio::task::yield_now().await;
        drop(other);
        assert!(after.await.unwrap().duplicates.is_empty());
        assert_eq!(tenancy.remembered(), 2);
    }
}
