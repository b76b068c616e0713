//! One suite for both: what is put in comes out, all of it or nothing, and damage is noticed.

use journal::{
    Checkpoint, Class, Cursor, Entry, Facts, Handling, JournalShard, Phase, Placement, Position, QueueId,
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
        handling: Handling::default(),
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
    let packed: Entries = entries.iter().cloned().collect();
    assert_eq!(packed.iter().collect::<Vec<_>>(), entries);
    assert_eq!(index.load(), Ok(Some(Loaded { checkpoint: checkpoint(20), entries: packed.clone() })));
    assert_eq!(index.checkpoint(), Ok(Some(checkpoint(20))));
    index.apply(&batch(30, &[7], &[7])).unwrap();
    assert_eq!(index.load().unwrap().unwrap().entries, packed, "put and removed at once is removed");
    index.fill(&[(id(2), entry(5)), (id(301), entry(6))]).unwrap();
    let loaded = index.load().unwrap().unwrap();
    assert_eq!(loaded.checkpoint, checkpoint(30), "to fill moves no checkpoint");
    let filled = [(id(2), entry(5)), (id(3), entry(23)), (id(300), entry(310)), (id(301), entry(6))];
    assert_eq!(loaded.entries.iter().collect::<Vec<_>>(), filled);
    index.clear().unwrap();
    index.fill(&filled).unwrap();
    assert_eq!(index.load(), Ok(None), "nothing counts before there is a checkpoint");
    index.rebuild(&entries, &checkpoint(40)).unwrap();
    assert_eq!(index.load(), Ok(Some(Loaded { checkpoint: checkpoint(40), entries: packed })));
}

/// Sparse and dense numbers, over and over, beside a map that is told the same.
fn long_life(index: &mut dyn Index) {
    let (mut model, mut random) = (std::collections::BTreeMap::new(), 1_u64);
    let mut below = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    for round in 1..60 {
        let mut batch = batch(round, &[], &[]);
        for _ in 0..below(200) {
            let number = if below(10) == 0 { below(1 << 40) } else { below(300) };
            if below(3) > 0 {
                batch.put.retain(|(other, _)| *other != id(number));
                batch.put.push((id(number), entry(round + number)));
            } else {
                batch.remove.push(id(number));
            }
        }
        model.extend(batch.put.iter().cloned());
        model.retain(|id, _| !batch.remove.contains(id));
        index.apply(&batch).unwrap();
        let mut loaded = index.load().unwrap().unwrap().entries;
        let expected: Vec<_> = model.clone().into_iter().collect();
        assert_eq!(loaded.iter().collect::<Vec<_>>(), expected);
        let place = |(id, entry): &(QueueId, Entry)| (*id, entry.placement.segment, entry.placement.offset);
        assert_eq!(loaded.places().collect::<Vec<_>>(), expected.iter().map(place).collect::<Vec<_>>());
        assert_eq!(loaded.len(), expected.len() as u64);
        let mut popped = Vec::new();
        while let Some(mut last) = loaded.pop() {
            last.append(&mut popped);
            popped = last;
        }
        assert_eq!((popped, loaded.is_empty()), (expected, true));
    }
}

#[test]
fn a_long_life() {
    long_life(&mut MemoryIndex::default());
    let folder = tempfile::tempdir().unwrap();
    long_life(&mut SledIndex::open(&folder.path().join("index"), CACHE).unwrap().0);
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

/// The database itself. Who had it last lets go of it a moment after its end.
fn raw(path: impl AsRef<std::path::Path>) -> sled::Db {
    for _ in 0..250 {
        match sled::open(&path) {
            Ok(db) => return db,
            Err(error) if error.to_string().contains("could not acquire lock") => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("nobody lets go of {}", path.as_ref().display());
}

#[test]
fn a_lost_block_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let (mut index, _) = SledIndex::open(&path, CACHE).unwrap();
    index.apply(&batch(10, &[1, 200, 3], &[])).unwrap();
    drop(index);
    let db = raw(&path);
    assert!(db.remove(entries::BlockKey::of(id(200)).to_bytes()).unwrap().is_some());
    drop(db);
    let (index, _) = SledIndex::open(&path, CACHE).unwrap();
    assert!(matches!(index.load(), Err(IndexError::Damaged(_))), "{:?}", index.load());
}

#[test]
fn another_layout_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let (mut index, _) = SledIndex::open(&path, CACHE).unwrap();
    index.apply(&batch(10, &[1], &[])).unwrap();
    drop(index);
    let db = raw(&path);
    let meta = db.get(b"").unwrap().unwrap();
    db.insert(b"", &meta[1..]).unwrap();
    drop(db);
    let (index, report) = SledIndex::open(&path, CACHE).unwrap();
    assert!(matches!(&report, OpenReport::PutAside { reason, .. } if reason.contains("another version")));
    assert_eq!(index.load(), Ok(None));
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
            // What is put aside lies beside it.
            let path = folder.path().join("index");
            let (mut index, _) = SledIndex::open(&path, CACHE).unwrap();
            index.apply(&batch(10, &[1, 2, 3], &[])).unwrap();
            index.flush().unwrap();
            let sound = index.load();
            drop(index);
            std::fs::write(path.join(file), damage).unwrap();
            let (mut index, _) = SledIndex::open(&path, CACHE).unwrap();
            match index.load() {
                Ok(None) | Err(_) => index.rebuild(&[(id(1), entry(1))], &checkpoint(5)).unwrap(),
                other => assert_eq!(other, sound, "{file}"),
            }
        }
    }
}
