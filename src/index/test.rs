//! One suite for both: what is put in comes out, all of it or nothing, and damage is noticed.

use journal::{
    Checkpoint, Class, Cursor, Entry, Facts, JournalShard, Phase, Placement, Position, QueueId,
    RecipientState, ReturnPath, SegmentRef,
};

use super::*;

const CACHE: u64 = 1 << 20;

fn entry(size: u64) -> Entry {
    let placement = Placement {
        segment: SegmentRef { number: 4, generation: 9 },
        offset: 8 * size,
        meta_len: 100,
        inline_len: size as u32,
        recipients: 2,
        extents: Box::default(),
        transitions: [SegmentRef { number: 5, generation: 10 }].into(),
    };
    let state = RecipientState { phase: Phase::Deferred, attempts: 3, ..RecipientState::default() };
    let facts = Facts {
        received_at: Default::default(),
        size,
        return_path: ReturnPath::Address,
        domains: "example.org\nexample.net".into(),
    };
    Entry { placement, states: vec![(1, state)], facts }
}

fn id(number: u64) -> QueueId {
    QueueId::new(JournalShard(2), number)
}

fn checkpoint(position: u64) -> Checkpoint {
    let segment = SegmentRef { number: 5, generation: 10 };
    Checkpoint {
        position: Position(position),
        epoch: 77,
        next_number: 1000,
        next_generation: 11,
        cursors: vec![Cursor { segment, class: Class::Hot, offset: 4096 }],
    }
}

fn batch(position: u64, put: &[u64], remove: &[u64]) -> Batch {
    Batch {
        put: put.iter().map(|n| (id(*n), entry(n + position))).collect(),
        remove: remove.iter().map(|n| id(*n)).collect(),
        checkpoint: checkpoint(position),
    }
}

fn suite(index: &mut dyn Index) {
    assert_eq!(index.load(), Ok(None));
    assert_eq!(index.checkpoint(), Ok(None));
    index.apply(&batch(10, &[300, 1, 2], &[])).unwrap();
    index.apply(&batch(20, &[2, 3], &[1, 999])).unwrap();
    index.flush().unwrap();
    let entries = vec![(id(2), entry(22)), (id(3), entry(23)), (id(300), entry(310))];
    assert_eq!(index.load(), Ok(Some(Loaded { checkpoint: checkpoint(20), entries: entries.clone() })));
    assert_eq!(index.checkpoint(), Ok(Some(checkpoint(20))));
    index.apply(&batch(30, &[7], &[7])).unwrap();
    assert_eq!(index.load().unwrap().unwrap().entries, entries, "put and removed at once is removed");
    index.clear().unwrap();
    assert_eq!(index.load(), Ok(None));
    index.rebuild(&entries, &checkpoint(40)).unwrap();
    assert_eq!(index.load(), Ok(Some(Loaded { checkpoint: checkpoint(40), entries })));
}

#[test]
fn in_memory() {
    suite(&mut MemoryIndex::default());
}

#[test]
fn in_sled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let (mut index, report) = SledIndex::open(&path, CACHE).unwrap();
    assert_eq!(report, OpenReport::Sound);
    suite(&mut index);
    let before = index.load();
    drop(index);
    let (index, report) = SledIndex::open(&path, CACHE).unwrap();
    assert_eq!((report, index.load()), (OpenReport::Sound, before), "after opening again");
}

#[test]
fn a_lost_entry_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut index, _) = SledIndex::open(folder.path(), CACHE).unwrap();
    index.apply(&batch(10, &[1, 2, 3], &[])).unwrap();
    drop(index);
    let db = sled::open(folder.path()).unwrap();
    db.remove(id(2).to_bits().to_be_bytes()).unwrap();
    drop(db);
    let (index, _) = SledIndex::open(folder.path(), CACHE).unwrap();
    assert!(matches!(index.load(), Err(IndexError::Damaged(_))), "{:?}", index.load());
}

#[test]
fn a_damaged_folder_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let (mut index, _) = SledIndex::open(&path, CACHE).unwrap();
    index.apply(&batch(10, &[1], &[])).unwrap();
    index.flush().unwrap();
    drop(index);
    for _ in 0..2 {
        std::fs::remove_file(path.join("db")).unwrap();
        std::fs::create_dir(path.join("db")).unwrap();
        let (mut index, report) = SledIndex::open(&path, CACHE).unwrap();
        assert!(matches!(&report, OpenReport::PutAside { path, .. } if path.ends_with("index.damaged")));
        assert_eq!(index.load(), Ok(None));
        index.rebuild(&[(id(1), entry(1))], &checkpoint(5)).unwrap();
        assert_eq!(index.load().unwrap().unwrap().entries.len(), 1);
    }
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::write(&path, b"a file").unwrap();
    let (index, report) = SledIndex::open(&path, CACHE).unwrap();
    assert!(matches!(report, OpenReport::PutAside { .. }), "{report:?}");
    assert_eq!(index.load(), Ok(None));
}

#[test]
fn overwritten_files_end_in_a_rebuild() {
    for damage in [&b""[..], b"nonsense", &[0xff; 5000]] {
        for file in ["db", "conf"] {
            let folder = tempfile::tempdir().unwrap();
            let (mut index, _) = SledIndex::open(folder.path(), CACHE).unwrap();
            index.apply(&batch(10, &[1, 2, 3], &[])).unwrap();
            index.flush().unwrap();
            let sound = index.load();
            drop(index);
            std::fs::write(folder.path().join(file), damage).unwrap();
            let (mut index, _) = SledIndex::open(folder.path(), CACHE).unwrap();
            match index.load() {
                Ok(None) | Err(_) => index.rebuild(&[(id(1), entry(1))], &checkpoint(5)).unwrap(),
                other => assert_eq!(other, sound, "{file}"),
            }
        }
    }
}
