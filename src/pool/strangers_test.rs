//! The files of what is remembered of strangers: what is found again, and what two processes find of each other.

use strangers::{GreyRules, Met, Origin};

use super::*;

const RULES: GreyRules = GreyRules {
    delay: Duration::from_secs(300),
    window: Duration::from_secs(86_400),
    lifetime: Duration::from_secs(86_400),
    client_after: None,
};

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_764_387_000 + secs)
}

fn open_at(directory: &Path) -> Store<OfGreylist> {
    Store::open(directory, OfGreylist(Strangers::default()), at(0)).unwrap()
}

impl Store<OfGreylist> {
    /// Mail number `number` comes.
    fn comes(&self, number: u64, secs: u64) -> Met {
        let greylist = self.table.0.greylist();
        let origin = Origin::Domain("example.org");
        let recipient = format!("r{}@example.net", char::from_u32(0x4e00 + number as u32).unwrap());
        let triplet = greylist.triplet(origin, &mail::ReversePath::Null, &recipient.parse().unwrap());
        greylist.meet(triplet, greylist.client(origin), &RULES, at(secs))
    }

    fn files(&self) -> usize {
        numbers::<OfGreylist>(&self.directory).unwrap().len()
    }
}

#[test]
fn what_was_written_is_found_by_whoever_comes_next() {
    let place = tempfile::tempdir().unwrap();
    let mut store = open_at(place.path());
    store.round(at(0));
    assert_eq!(store.files(), 0, "nobody came");
    assert!(store.comes(1, 0).wait().is_some());
    store.round(at(1));
    assert!(store.comes(2, 1).wait().is_some());
    // As if it were killed here: the second had no time to be written.
    drop(store);
    let mut store = open_at(place.path());
    assert_eq!(store.comes(1, 100), Met::Early(Duration::from_secs(200)));
    assert_eq!(store.comes(2, 100), Met::New(Duration::from_secs(300)));
    assert_eq!(store.comes(1, 300), Met::Passed(Duration::from_secs(300)));
    store.end(at(301));
    drop(store);
    let store = open_at(place.path());
    assert_eq!(store.comes(1, 302), Met::Known);
    assert_eq!(store.comes(2, 302), Met::Early(Duration::from_secs(98)));
}

#[test]
fn a_torn_record_is_none_and_nothing_else_is_lost() {
    let place = tempfile::tempdir().unwrap();
    let mut store = open_at(place.path());
    for number in 0..50 {
        store.comes(number, 0);
    }
    store.round(at(1));
    let path = store.path(1);
    drop(store);
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len(), 51 * GREY_RECORD - GREY_RECORD);
    for torn in [whole.len() - 7, whole.len() - GREY_RECORD + 1] {
        fs::write(&path, &whole[..torn]).unwrap();
        assert_eq!(open_at(place.path()).table.0.greylist().len(), 49, "{torn}");
    }
    let mut spoiled = whole;
    spoiled[3 * GREY_RECORD + 9] ^= 0x40;
    fs::write(&path, &spoiled).unwrap();
    assert_eq!(open_at(place.path()).table.0.greylist().len(), 49);
    fs::write(place.path().join("greylist/key"), "short").unwrap();
    assert!(Store::open(place.path(), OfGreylist(Strangers::default()), at(0)).is_err());
}

#[test]
fn two_processes_know_the_same() {
    let place = tempfile::tempdir().unwrap();
    let mut old = open_at(place.path());
    old.comes(1, 0);
    old.round(at(1));
    let mut new = open_at(place.path());
    assert_eq!(new.comes(1, 10), Met::Early(Duration::from_secs(290)));
    assert!(new.comes(2, 10).wait().is_some());
    old.comes(3, 10);
    for _ in 0..2 {
        old.round(at(11));
        new.round(at(11));
    }
    assert_eq!(old.comes(2, 310), Met::Passed(Duration::from_secs(300)), "the other has told of it");
    assert_eq!(new.comes(3, 310), Met::Passed(Duration::from_secs(300)));
    // The old one ends, and has the last word on what it did.
    old.end(at(311));
    drop(old);
    new.round(at(312));
    assert_eq!(new.comes(2, 312), Met::Known);
    // Its file goes when files are put together, and not before it was read.
    assert_eq!(new.files(), 2);
    new.write_all(at(313)).unwrap();
    assert_eq!((new.files(), new.others.len()), (1, 0));
    drop(new);
    let store = open_at(place.path());
    for number in [1, 2, 3] {
        assert_eq!(store.comes(number, 314).wait(), None, "{number}");
    }
}

#[test]
fn files_do_not_grow_for_ever() {
    let place = tempfile::tempdir().unwrap();
    for life in 0..12 {
        let mut store = open_at(place.path());
        store.comes(life, life * 10);
        store.round(at(life * 10 + 1));
        assert!(store.files() <= FILES_MAX + 2, "{life}: {}", store.files());
        // A file of one that lives is nobody else's to take away.
        let other = open_at(place.path());
        store.write_all(at(life * 10 + 2)).unwrap();
        drop(other);
    }
    let mut store = open_at(place.path());
    assert_eq!(store.table.0.greylist().len(), 12);
    for round in 0..40_000_u64 {
        store.comes(round % 20, 200 + round / 200 * 400);
        if round % 200 == 0 {
            store.round(at(200 + round / 200 * 400));
        }
    }
    let sizes: u64 = fs::read_dir(place.path().join("greylist"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(sizes < 2 * WASTE_MIN * GREY_RECORD as u64, "{sizes}");
}

#[test]
fn what_is_forgotten_stays_so() {
    let place = tempfile::tempdir().unwrap();
    let (mut old, mut new) = (open_at(place.path()), open_at(place.path()));
    new.comes(1, 0);
    new.round(at(0));
    old.round(at(1));
    let greylist = old.table.0.greylist();
    let (key, _) = (0..GREY_PARTS).flat_map(|part| greylist.entries(part)).next().unwrap();
    assert!(greylist.clear(key));
    old.round(at(2));
    new.round(at(3));
    assert!(new.table.0.greylist().is_empty());
    drop((old, new));
    assert!(open_at(place.path()).table.0.greylist().is_empty(), "whichever file is read first");
}

#[test]
fn a_disk_that_takes_nothing_loses_nothing_that_is_in_memory() {
    let place = tempfile::tempdir().unwrap();
    let mut store = open_at(place.path());
    store.comes(1, 0);
    store.round(at(0));
    let path = store.path(1);
    // As if it would not take any more.
    store.own.as_mut().unwrap().file = open(&path, OFlags::RDONLY).unwrap();
    store.comes(2, 1);
    store.round(at(1));
    assert!(store.incomplete_until.is_some());
    store.round(at(2));
    store.round(at(62));
    assert!(store.incomplete_until.is_none());
    drop(store);
    let store = open_at(place.path());
    assert_eq!(store.table.0.greylist().len(), 2);
}

#[test]
fn reputation_is_kept_likewise() {
    use strangers::{Deed, Subject};
    let place = tempfile::tempdir().unwrap();
    let open = || Store::open(place.path(), OfReputation(Strangers::default()), at(0)).unwrap();
    let (mut old, mut new) = (open(), open());
    let key = |store: &Store<OfReputation>| store.table.0.reputation().key(Subject::Domain("example.org"));
    for _ in 0..5 {
        old.table.0.reputation().learn(key(&old), Deed::Listed, at(0));
    }
    old.round(at(0));
    new.round(at(0));
    let listed =
        |store: &Store<OfReputation>| store.table.0.reputation().counts(key(store), at(0)).unwrap().0[1];
    assert!((listed(&new) - 5.0).abs() < 0.1);
    drop((old, new));
    assert!((listed(&open()) - 5.0).abs() < 0.1);
}
