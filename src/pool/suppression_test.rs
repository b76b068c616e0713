//! Suppression lists over restarts, beside other processes, and when files are torn.

use std::{fs, io::Write as _, path::PathBuf};

use bridge::{ListPage, Tenancy};
use mail::{ListId, TenantId};
use tenancy::{CaseOfLocalParts, QuotaLimits};

use super::{
    files::{Kind, Name},
    *,
};

const NOW: Timestamp = Timestamp::from_secs(1_764_387_000);
const SHOP: TenantId = TenantId(7);

/// A process, as far as lists and quotas go: what it knows, and its files.
struct Process {
    tenancy: Tenancy,
    store: Store,
    usage: Usage,
}

impl Process {
    fn start(directory: &Path) -> Self {
        Self::start_at(directory, NOW)
    }

    fn start_at(directory: &Path, now: Timestamp) -> Self {
        let (tenancy, desk) = Tenancy::new(CaseOfLocalParts::Ignored, 16);
        tenancy.configure(1_000_000, 1000, Duration::from_secs(60));
        let store = Store::open(directory, desk.known(), now).unwrap();
        let usage = Usage::open(directory, store.number(), &desk.known(), now).unwrap();
        Self { tenancy, store, usage }
    }

    fn add(&mut self, whom: &str) -> bool {
        self.change(add(whom, Reason::Bounce, None))
    }

    fn remove(&mut self, whom: &str, at: Timestamp) -> bool {
        self.change(Change::Remove { scope: Scope::tenant("shop"), whom: whom.parse().unwrap(), at })
    }

    fn change(&mut self, change: Change) -> bool {
        self.store.change(&[change], NOW).unwrap()[0]
    }

    fn has(&self, address: &str) -> bool {
        let tenant = TenantId::of("shop");
        self.tenancy.suppressed(tenant, ListId::NONE, &address.parse().unwrap(), NOW).is_some()
    }

    fn page(&self, page: &ListPage) -> (Vec<String>, Option<String>) {
        let page = self.store.shelf().page(self.store.known(), page, NOW).unwrap();
        (page.entries.iter().map(|entry| entry.whom.to_string()).collect(), page.next)
    }

    fn end(mut self) {
        self.usage.end(NOW);
        self.store.end();
    }
}

fn entry(whom: &str, reason: Reason, until: Option<Timestamp>) -> Entry {
    let scope = Scope::tenant("shop");
    Entry { scope, whom: whom.parse().unwrap(), reason, since: NOW, until, note: "a note".into() }
}

fn add(whom: &str, reason: Reason, until: Option<Timestamp>) -> Change {
    Change::Add(entry(whom, reason, until))
}

fn later(secs: u64) -> Timestamp {
    Timestamp::from_secs(NOW.secs() + secs)
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_was_answered_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path());
    assert!(process.add("ann@example.org") && process.add("bob@example.org") && process.add("@example.net"));
    assert!(!process.add("Ann@example.org"), "she is on it");
    assert!(process.remove("bob@example.org", later(1)) && !process.remove("eve@example.org", later(1)));
    // As a kill does it: nothing is done at the end.
    drop(process);
    let process = Process::start(directory.path());
    assert!(
        process.has("ann@example.org") && process.has("x@example.net") && !process.has("bob@example.org")
    );
    process.end();
    let again = Process::start(directory.path());
    assert!(again.has("ann@example.org") && !again.has("bob@example.org"));
    let found = again.tenancy.entries();
    assert_eq!(found, 2);
}

/// Whoever leaves a list in the moment in which an operator takes him off it stays away: what gathers is one group on the disk, and
/// was judged by what had been there before it.
#[test]
fn what_comes_in_one_group_is_as_if_each_came_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path());
    assert!(process.add("ann@example.org"));
    let remove = |whom: &str| {
        let (scope, whom) = (Scope::tenant("shop"), whom.parse().unwrap());
        Change::Remove { scope, whom, at: NOW }
    };
    let group = [
        remove("ann@example.org"),
        add("ann@example.org", Reason::Unsubscribe, None),
        add("bob@example.org", Reason::Bounce, None),
        add("bob@example.org", Reason::Bounce, Some(later(3600))),
        add("eve@example.org", Reason::Bounce, None),
        remove("eve@example.org"),
        remove("eve@example.org"),
    ];
    let effects = process.store.change(&group, NOW).unwrap();
    assert_eq!(effects, [true, true, true, false, true, true, false]);
    let check = |process: &Process, when: &str| {
        let has = ["ann", "bob", "eve"].map(|who| process.has(&format!("{who}@example.org")));
        assert_eq!(has, [true, true, false], "{when}");
        let bob = "bob@example.org".parse().unwrap();
        let tenant = TenantId::of("shop");
        let late = process.tenancy.suppressed(tenant, ListId::NONE, &bob, later(7200));
        assert!(late.is_some(), "{when}: an entry is not replaced by one that ends sooner");
        assert_eq!(process.tenancy.entries(), 2, "{when}");
    };
    check(&process, "at once");
    drop(process);
    check(&Process::start(directory.path()), "after a restart");
    // There is room for as many as there may be, and for no more.
    let mut process = Process::start(directory.path());
    process.tenancy.configure(3, 1000, Duration::from_secs(60));
    let twice = [
        add("dan@example.org", Reason::Bounce, Some(later(60))),
        add("dan@example.org", Reason::Bounce, None),
    ];
    assert_eq!(process.store.change(&twice, NOW).unwrap(), [true, true]);
    assert!(process.store.change(&[add("fay@example.org", Reason::Bounce, None)], NOW).is_err());
    let instead = [remove("dan@example.org"), add("fay@example.org", Reason::Bounce, None)];
    assert_eq!(process.store.change(&instead, NOW).unwrap(), [true, true]);
}

#[test]
fn what_a_crash_has_torn_is_no_entry_and_hides_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path());
    assert!(process.add("ann@example.org") && process.add("bob@example.org"));
    let log = directory.path().join(Name { number: process.store.number(), kind: Kind::Log }.to_string());
    drop(process);
    let whole = fs::read(&log).unwrap();
    let ends = (0..whole.len()).filter(|at| whole[*at] == b'\n').flat_map(|at| [at, at + 1]);
    for len in (0..whole.len()).step_by(23).chain(ends) {
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join(log.file_name().unwrap()), &whole[..len]).unwrap();
        let mut process = Process::start(elsewhere.path());
        let ends: Vec<_> = whole[..len].iter().filter(|octet| **octet == b'\n').collect();
        assert_eq!(process.has("ann@example.org"), !ends.is_empty(), "{len}");
        assert_eq!(process.has("bob@example.org"), ends.len() == 2, "{len}");
        // What comes after it is found the next time.
        assert!(process.add("eve@example.org"));
        drop(process);
        assert!(Process::start(elsewhere.path()).has("eve@example.org"), "{len}");
    }
    // Something in the middle is passed over.
    let elsewhere = tempfile::tempdir().unwrap();
    let mut broken = whole.clone();
    broken[20] ^= 1;
    fs::write(elsewhere.path().join(log.file_name().unwrap()), &broken).unwrap();
    let process = Process::start(elsewhere.path());
    assert!(!process.has("ann@example.org") && process.has("bob@example.org"));
}

#[test]
fn two_processes_hear_of_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut old = Process::start(directory.path());
    assert!(old.add("ann@example.org"));
    let mut new = Process::start(directory.path());
    assert!(new.has("ann@example.org") && new.add("bob@example.org") && old.add("eve@example.org"));
    old.store.follow(NOW);
    new.store.follow(NOW);
    assert!(old.has("bob@example.org") && new.has("eve@example.org"));
    // What is taken from the list by one is so for the other, and what was put on it later stays.
    assert!(new.remove("ann@example.org", later(5)));
    old.store.follow(NOW);
    assert!(!old.has("ann@example.org"));
    // As long as somebody else writes, files stay as they are.
    let before = files(directory.path());
    new.store.tidy(NOW);
    assert_eq!(files(directory.path()), before);
    old.end();
    new.store.follow(NOW);
    assert!(new.add("zoe@example.org"));
    drop(new);
    let third = Process::start(directory.path());
    for (who, expected) in [("ann", false), ("bob", true), ("eve", true), ("zoe", true)] {
        assert_eq!(third.has(&format!("{who}@example.org")), expected, "{who}");
    }
}

#[test]
fn files_are_put_together_when_much_in_them_is_of_no_use() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path());
    let many: Vec<_> = (0..100).map(|n| add(&format!("user{n}@example.org"), Reason::Bounce, None)).collect();
    for round in 0..120 {
        assert!(process.store.change(&many, NOW).unwrap().iter().all(|effect| *effect), "{round}");
        let removals: Vec<_> = many
            .iter()
            .map(|change| {
                let (scope, whom) = (change.scope().clone(), change.whom().clone());
                Change::Remove { scope, whom, at: later(1) }
            })
            .collect();
        if round < 119 {
            assert!(process.store.change(&removals, NOW).unwrap().iter().all(|effect| *effect));
        }
    }
    let sizes = |directory: &Path| {
        let all = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        all.sum::<u64>()
    };
    let before = sizes(directory.path());
    process.store.tidy(NOW);
    assert!(sizes(directory.path()) < before / 50, "{} of {before}", sizes(directory.path()));
    assert_eq!(process.tenancy.entries(), 100);
    assert!((0..100).all(|n| process.has(&format!("user{n}@example.org"))));
    let page = ListPage { limit: 1000, ..ListPage::default() };
    assert_eq!(process.page(&page).0.len(), 100);
    assert!(process.add("late@example.org"));
    drop(process);
    let again = Process::start(directory.path());
    assert_eq!(again.tenancy.entries(), 101);
    assert!(again.has("user7@example.org") && again.has("late@example.org"));
}

#[test]
fn entries_end_and_the_longer_one_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start_at(directory.path(), NOW);
    assert!(process.change(add("ann@example.org", Reason::Bounce, Some(later(600)))));
    assert!(!process.change(add("ann@example.org", Reason::Bounce, Some(later(300)))), "a shorter one");
    assert!(process.change(add("ann@example.org", Reason::Complaint, None)), "a longer one");
    assert!(!process.change(add("ann@example.org", Reason::Bounce, Some(later(6000)))));
    assert!(process.change(add("ann@example.org", Reason::Manual, Some(later(60)))), "by hand");
    assert!(process.change(add("bob@example.org", Reason::Bounce, Some(later(600)))));
    process.store.tidy(later(120));
    assert_eq!(process.tenancy.entries(), 1, "hers has ended");
    drop(process);
    let again = Process::start_at(directory.path(), later(120));
    assert_eq!(again.tenancy.entries(), 1);
    assert_eq!(again.page(&ListPage { limit: 10, ..ListPage::default() }).0, ["bob@example.org"]);
}

#[test]
fn pages_are_chosen_and_go_on_where_they_ended() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path());
    for n in 0..25 {
        assert!(process.change(add(&format!("user{n}@a.example"), Reason::Bounce, None)));
    }
    assert!(process.change(add("ann@b.example", Reason::Complaint, None)));
    let other = Entry { scope: Scope::tenant("other"), ..entry("ann@b.example", Reason::Bounce, None) };
    assert!(process.change(Change::Add(other)));
    let mut page = ListPage { limit: 10, ..ListPage::default() };
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let (entries, next) = process.page(&page);
        seen.extend(entries);
        pages += 1;
        page.cursor = match next {
            Some(next) => Some(next),
            None => break,
        };
    }
    assert_eq!((seen.len(), pages), (27, 3));
    let of = |page: ListPage| process.page(&ListPage { limit: 100, ..page }).0.len();
    assert_eq!(of(ListPage { domain: Some("B.example".into()), ..ListPage::default() }), 2);
    assert_eq!(of(ListPage { tenant: Some("SHOP".into()), ..ListPage::default() }), 26);
    assert_eq!(of(ListPage { reason: Some(Reason::Complaint), ..ListPage::default() }), 1);
    assert_eq!(of(ListPage { list: Some("news".into()), ..ListPage::default() }), 0);
    let shelf = process.store.shelf();
    for cursor in ["", "x", "0000000000000009.log-0", "0000000000000001.log-x", "-"] {
        let page = ListPage { cursor: Some(cursor.into()), limit: 1, ..ListPage::default() };
        assert_eq!(shelf.page(process.store.known(), &page, NOW), Err(ListError::Cursor), "{cursor}");
    }
}

#[test]
fn a_full_list_takes_nobody_and_a_disk_that_fails_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path());
    process.tenancy.configure(2, 1000, Duration::ZERO);
    assert!(process.add("a@example.org") && process.add("b@example.org"));
    let full = process.store.change(&[add("c@example.org", Reason::Manual, None)], NOW);
    assert_eq!(full, Err(ListError::Full(2)));
    assert!(process.change(add("a@example.org", Reason::Manual, None)), "that takes no room");
    // The directory is gone: nothing can be begun anew, nothing holds.
    process.tenancy.configure(10, 1000, Duration::ZERO);
    process.store.break_log();
    let failed = process.store.change(&[add("c@example.org", Reason::Manual, None)], NOW);
    assert!(matches!(failed, Err(ListError::Write(_))), "{failed:?}");
    assert!(!process.has("c@example.org"));
    assert!(process.add("d@example.org"), "it goes on in another file");
    drop(process);
    let again = Process::start(directory.path());
    assert!(again.has("d@example.org") && !again.has("c@example.org"));
}

#[test]
fn what_was_sent_is_counted_over_a_restart_and_never_twice() {
    let directory = tempfile::tempdir().unwrap();
    let limits = QuotaLimits { max: [None; 3], warn_percent: 80, ..QuotaLimits::default() };
    let used = |process: &Process| process.tenancy.quotas().used(SHOP, &limits, NOW).map(|used| used.used);
    let take =
        |process: &Process, count| _ = process.tenancy.quotas().take(SHOP, &limits, count, NOW).unwrap();
    let mut first = Process::start(directory.path());
    take(&first, 5);
    first.usage.follow(NOW);
    // Beside another, as during an upgrade.
    let mut second = Process::start(directory.path());
    assert_eq!(used(&second), [5; 3]);
    take(&second, 2);
    second.usage.follow(NOW);
    first.usage.follow(NOW);
    assert_eq!((used(&first), used(&second)), ([7; 3], [7; 3]));
    take(&first, 1);
    first.end();
    second.usage.follow(NOW);
    assert_eq!(used(&second), [8; 3]);
    second.usage.follow(NOW);
    drop(second);
    let third = Process::start(directory.path());
    assert_eq!(used(&third), [8; 3]);
    third.end();
    // A crash between the two steps of a take-over: the file of the one before is still there, and is counted already.
    let left = |directory: &Path| files(directory).into_iter().filter(|name| name.ends_with(".used")).count();
    assert_eq!(left(directory.path()), 1);
    let fourth = Process::start(directory.path());
    let number = fourth.store.number();
    let ghost: PathBuf = directory.path().join(Name { number: number - 1, kind: Kind::Used }.to_string());
    let text =
        fs::read_to_string(directory.path().join(Name { number, kind: Kind::Used }.to_string())).unwrap();
    let absorbed = format!("absorbed {}\n{text}", number - 1);
    drop(fourth);
    fs::write(directory.path().join(Name { number, kind: Kind::Used }.to_string()), absorbed).unwrap();
    fs::write(ghost, text).unwrap();
    assert_eq!(used(&Process::start(directory.path())), [8; 3]);
}

/// The last word counts, by the time in the line, and not the one that is read last.
#[test]
fn who_was_taken_off_is_not_put_back_by_what_another_process_has_said_before() {
    let directory = tempfile::tempdir().unwrap();
    let mut old = Process::start(directory.path());
    assert!(old.add("ann@example.org") && old.add("bob@example.org"));
    let mut new = Process::start(directory.path());
    let renewed =
        |whom: &str, since: Timestamp| Change::Add(Entry { since, ..entry(whom, Reason::Manual, None) });
    assert!(
        old.change(renewed("ann@example.org", later(1))) && old.change(renewed("bob@example.org", later(1)))
    );
    assert!(new.remove("ann@example.org", later(2)));
    for process in [&mut new, &mut old] {
        process.store.follow(NOW);
        assert!(!process.has("ann@example.org") && process.has("bob@example.org"));
    }
    // What comes later counts.
    assert!(old.change(renewed("ann@example.org", later(3))));
    new.store.follow(NOW);
    assert!(new.has("ann@example.org"));
    assert!(new.remove("bob@example.org", later(4)));
    drop((old, new));
    let mut after = Process::start(directory.path());
    assert!(after.has("ann@example.org") && !after.has("bob@example.org"));
    after.store.follow(NOW);
    assert!(after.has("ann@example.org") && !after.has("bob@example.org"));
}

#[test]
fn lines_of_others_are_read_when_they_are_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(directory.path());
    let mut line = Vec::new();
    tenancy::LogLine(add("ann@example.org", Reason::Bounce, None)).write_to(&mut line);
    let name = Name { number: process.store.number() + 1, kind: Kind::Log };
    let mut other = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(directory.path().join(name.to_string()))
        .unwrap();
    let lock = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&other, lock).unwrap();
    other.write_all(&line[..30]).unwrap();
    process.store.follow(NOW);
    assert!(!process.has("ann@example.org"));
    other.write_all(&line[30..]).unwrap();
    process.store.follow(NOW);
    assert!(process.has("ann@example.org"));
}

#[test]
fn what_a_try_has_left_behind_is_cleared_away_and_empty_logs_say_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // Of many starts that came to nothing: more than may be open at once.
    for number in 1..=300 {
        fs::write(directory.path().join(Name { number, kind: Kind::Log }.to_string()), "").unwrap();
    }
    fs::write(directory.path().join("0000000000000009.list.new"), "half of").unwrap();
    let mut process = Process::start(directory.path());
    assert!(process.add("ann@example.org"));
    process.store.put_together(NOW).unwrap();
    let names = files(directory.path());
    assert!(names.len() < 10 && !names.iter().any(|name| name.ends_with(".new")), "{names:?}");
    assert!(process.has("ann@example.org"));
    drop(process);
    assert!(Process::start(directory.path()).has("ann@example.org"));
}
