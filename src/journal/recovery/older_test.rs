//! What older runs threw away stays away, checkpoints that cannot be true are refused, and nothing is read twice.

use bytes::Bytes;
use mail::{JournalShard, QueueId, Timestamp};

use super::*;
use crate::{
    AppendError, AppendMessage, Checkpoint, Content, Cursor, Order, Position, SegmentHeader, Witness,
    format::record_len,
    journal::test::{envelope, small},
    virtual_disk::{self, Fate, VirtualDisk, commit, obey, recover, write_group},
};

const SHARD: JournalShard = JournalShard(3);

fn open(disk: &VirtualDisk, now: u64) -> Opened {
    virtual_disk::open(disk, SHARD, small(), Timestamp(now)).unwrap()
}

/// Reads all that it asks for.
fn read(older: &mut Older, disk: &VirtualDisk, start: &Start) {
    older.begin(start).unwrap();
    while let Step::Read(read) = older.step() {
        older.on_read(disk.read(read.segment, read.offset, read.len));
    }
}

fn append(journal: &mut Journal, size: usize) -> Result<QueueId, AppendError> {
    let content = [Bytes::from(vec![b'x'; size])];
    let message = AppendMessage { envelope: &envelope(), states: &[], content: Content::Whole(&content) };
    journal.append_message(&message).map(|appended| appended.id)
}

fn live(disk: &VirtualDisk, now: u64) -> Vec<QueueId> {
    let found = recover(disk, SHARD, small(), Timestamp(now), Start::Beginning, Vec::new()).unwrap();
    assert_eq!(found.report.bad, []);
    found.entries.iter().map(|(id, _)| *id).collect()
}

/// A log whose last group is half there: what went to the first segment is lost, the second segment is there, begun by
/// a record that does not count. Answers what lives.
fn half_a_group() -> (VirtualDisk, Vec<QueueId>) {
    let mut disk = VirtualDisk::default();
    let mut journal = open(&disk, 1).journal;
    let (mut ids, mut segment) = (Vec::new(), None);
    loop {
        // Small ones, then a large one that finds no room: some is left in the segment.
        let room = segment.map_or(u64::MAX, |cursor: Cursor| small().segment_size - cursor.offset);
        let size = if room < record_len(400, 8000) { 8000 } else { 500 };
        match append(&mut journal, size) {
            Ok(id) => ids.push(id),
            Err(AppendError::NotReady) => _ = obey(&mut journal, &mut disk).unwrap(),
            Err(error) => panic!("{error}"),
        }
        let now = journal.checkpoint().cursors.first().copied();
        if now.is_some_and(|cursor| cursor.segment.number == 1) {
            break;
        }
        segment = now;
        commit(&mut journal, &mut disk).unwrap();
        obey(&mut journal, &mut disk).unwrap();
    }
    let mut group = journal.begin_group().unwrap();
    group.writes.retain(|write| write.segment == 1);
    write_group(&group, &mut disk).unwrap();
    disk.crash(Fate::Killed);
    ids.pop();
    assert_eq!(live(&disk, 2), ids);
    (disk, ids)
}

/// A run that does not come to use the void segment again.
fn run_without_recycling(disk: &mut VirtualDisk, now: u64, sizes: &[usize]) -> (Journal, Vec<QueueId>) {
    let mut journal = open(disk, now).journal;
    commit(&mut journal, disk).unwrap();
    let mut orders = Vec::new();
    journal.orders(&mut orders);
    assert!(orders.iter().any(|order| matches!(order, Order::Recycle { segment: 1, .. })), "{orders:?}");
    let mut ids = Vec::new();
    for size in sizes {
        ids.push(append(&mut journal, *size).unwrap());
        commit(&mut journal, disk).unwrap();
    }
    disk.crash(Fate::Killed);
    (journal, ids)
}

#[test]
fn a_void_segment_does_not_hide_the_last_one() {
    let (mut disk, mut ids) = half_a_group();
    let (journal, more) = run_without_recycling(&mut disk, 10, &[0; 6]);
    ids.extend(more);
    assert_eq!(live(&disk, 20), ids);
    // The same, and a header page tells of the run that has thrown the segment away.
    let Checkpoint { position: Position(end), epoch, next_number, .. } = journal.checkpoint();
    let witness = Witness { synced_to: end - 1, epoch, epoch_start: end - 6, next_number };
    let header =
        SegmentHeader { shard: SHARD, number: 3, generation: 50, size: small().segment_size, witness };
    disk.write(3, 0, &[header.encode()]).unwrap();
    assert_eq!(live(&disk, 20), ids);
}

/// The run that threw the segment away is only told of by records that are not read before the log is opened.
#[test]
fn what_was_thrown_away_long_ago_stays_away() {
    let (mut disk, mut ids) = half_a_group();
    for (now, sizes) in [(10, &[0; 6][..]), (20, &[8000, 0, 0])] {
        let (_, more) = run_without_recycling(&mut disk, now, sizes);
        ids.extend(more);
    }
    assert_eq!(live(&disk, 30), ids);
}

fn with_checkpoint() -> (VirtualDisk, Checkpoint, Vec<(QueueId, Entry)>) {
    let (mut disk, _) = half_a_group();
    let mut journal =
        recover(&disk, SHARD, small(), Timestamp(10), Start::Beginning, Vec::new()).unwrap().journal;
    commit(&mut journal, &mut disk).unwrap();
    obey(&mut journal, &mut disk).unwrap();
    let checkpoint = journal.checkpoint();
    append(&mut journal, 0).unwrap();
    let entries =
        recover(&disk, SHARD, small(), Timestamp(11), Start::Beginning, Vec::new()).unwrap().entries;
    journal.append_retired(entries[1].0).unwrap();
    commit(&mut journal, &mut disk).unwrap();
    (disk, checkpoint, entries)
}

#[test]
fn a_checkpoint_of_another_log_is_refused() {
    let (disk, checkpoint, entries) = with_checkpoint();
    let refused = Err(RecoveryError::Checkpoint);
    let mut older = open(&disk, 20).older;
    assert_eq!(older.begin(&Start::Checkpoint(checkpoint.clone())), Ok(()));
    let opened = older.opened().clone();
    let change = |change: &dyn Fn(&mut Checkpoint)| {
        let mut other = checkpoint.clone();
        change(&mut other);
        open(&disk, 20).older.begin(&Start::Checkpoint(other))
    };
    assert_eq!(change(&|other| other.position = opened.position), Ok(()));
    assert_eq!(change(&|other| other.position.0 = opened.position.0 + 1), refused, "ahead of the log");
    assert_eq!(change(&|other| other.epoch = opened.epoch), refused, "from a later run");
    assert_eq!(change(&|other| other.cursors[0].offset = 60 << 10), refused, "a cursor behind the end");
    read(&mut older, &disk, &Start::Checkpoint(checkpoint));
    let (_, entry) = &entries[0];
    let check = |id| older.check(id, entry.placement.segment, entry.placement.offset);
    assert_eq!(check(entries[0].0), Ok(()));
    assert_eq!(check(QueueId::new(SHARD, opened.next_number)), refused, "a message that is still to come");
    assert_eq!(check(QueueId::new(JournalShard(1), 0)), refused, "a message of another journal shard");
}

#[test]
fn a_second_beginning_finds_what_a_first_one_does() {
    let (disk, checkpoint, entries) = with_checkpoint();
    let Opened { journal, mut older } = open(&disk, 20);
    read(&mut older, &disk, &Start::Checkpoint(checkpoint));
    read(&mut older, &disk, &Start::Beginning);
    let second = older.recover(journal, Vec::new()).unwrap();
    let first = recover(&disk, SHARD, small(), Timestamp(20), Start::Beginning, Vec::new()).unwrap();
    assert_eq!((&second.entries, &second.report), (&first.entries, &first.report));
    assert_eq!(first.entries.len(), entries.len(), "one has ended, and one has come");
}

#[test]
fn only_what_has_changed_is_told_to_the_index() {
    let (disk, checkpoint, entries) = with_checkpoint();
    let Opened { mut journal, mut older } = open(&disk, 20);
    read(&mut older, &disk, &Start::Checkpoint(checkpoint));
    let new = older.next(&mut journal, entries.last().map(|(id, _)| *id)).unwrap();
    assert_eq!((new.id.number(), new.indexed), (entries.last().unwrap().0.number() + 2, Indexed::No));
    for (i, (id, entry)) in entries.into_iter().enumerate().rev() {
        assert_eq!(older.next(&mut journal, Some(id)), None);
        let restored = older.restore(&mut journal, id, entry);
        assert_eq!(restored.map(|it| it.indexed), (i != 1).then_some(Indexed::Yes));
    }
    assert_eq!(older.next(&mut journal, None), None);
    assert_eq!(older.finish(&mut journal).records, 2);
}

/// Segments that a checkpoint tells of are not read. What was never used at their ends is not known, and was taken for
/// dead: a full journal moved all that lived in it, to win nothing.
#[test]
fn full_segments_that_were_not_read_are_not_moved() {
    let sizes = crate::Limits { segment_size: 512 << 10, inline_max: 64 << 10, ..small() };
    let limits = crate::Limits { segments_max: 30, gathered_max: 256 << 10, ..sizes };
    let mut disk = VirtualDisk::default();
    let mut journal = virtual_disk::open(&disk, SHARD, limits, Timestamp(1)).unwrap().journal;
    let fill = |journal: &mut Journal, disk: &mut VirtualDisk| {
        let mut orders = Vec::new();
        loop {
            // Eight leave a place that is no use.
            match append(journal, 60_000) {
                Ok(_) => {}
                Err(AppendError::NotReady) => orders.extend(obey(journal, disk).unwrap()),
                Err(error) => break assert_eq!(error, AppendError::StorageFull),
            }
            commit(journal, disk).unwrap();
        }
        orders.extend(obey(journal, disk).unwrap());
        orders
    };
    assert_eq!(fill(&mut journal, &mut disk), []);
    let start = Start::Checkpoint(journal.checkpoint());
    let recover = |start, entries| recover(&disk, SHARD, limits, Timestamp(2), start, entries).unwrap();
    let entries = recover(Start::Beginning, Vec::new()).entries;
    assert!(entries.len() > 20 * 8, "{}", entries.len());
    let mut journal = recover(start, entries).journal;
    commit(&mut journal, &mut disk).unwrap();
    assert_eq!(fill(&mut journal, &mut disk), []);
}

#[test]
fn a_record_of_a_later_version_keeps_its_segment() {
    let mut disk = VirtualDisk::default();
    let mut journal = open(&disk, 1).journal;
    let id = loop {
        match append(&mut journal, 0) {
            Ok(id) => break id,
            Err(_) => _ = obey(&mut journal, &mut disk).unwrap(),
        }
    };
    commit(&mut journal, &mut disk).unwrap();
    let Checkpoint { position, epoch, cursors, .. } = journal.checkpoint();
    let mut record = vec![0; crate::RECORD_HEADER];
    Header::new(99, cursors[0].segment.generation, position.0, position.0, epoch, 0, 0)
        .encode_before(&mut record);
    disk.write(0, cursors[0].offset, &[record.into()]).unwrap();
    for now in 2..5 {
        let found = recover(&disk, SHARD, small(), Timestamp(now), Start::Beginning, Vec::new()).unwrap();
        let damage = Damage::UnknownKind(99);
        assert_eq!(found.report.bad, [Bad { segment: 0, offset: cursors[0].offset, damage }]);
        let mut journal = found.journal;
        let _ = journal.append_retired(id);
        // As much as would turn every other segment over.
        for _ in 0..100 {
            if let Ok(id) = append(&mut journal, 8000) {
                journal.append_retired(id).unwrap();
            }
            commit(&mut journal, &mut disk).unwrap();
            obey(&mut journal, &mut disk).unwrap();
        }
        disk.crash(Fate::Killed);
    }
}

/// The last segment, which alone is read before the log goes on, tells of old messages only.
#[test]
fn numbers_that_were_not_read_are_not_given_again() {
    let mut disk = VirtualDisk::default();
    let mut journal = open(&disk, 1).journal;
    let mut ids = Vec::new();
    while ids.len() < 5 {
        match append(&mut journal, 500) {
            Ok(id) => ids.push(id),
            Err(_) => _ = obey(&mut journal, &mut disk).unwrap(),
        }
    }
    let mut left = 100;
    while left > 0 {
        journal.append_transition(ids[0], &[(0, crate::RecipientState::default())]).unwrap();
        commit(&mut journal, &mut disk).unwrap();
        left -= i32::from(journal.checkpoint().cursors[0].segment.number == 1);
    }
    disk.crash(Fate::Lost);
    let mut journal = open(&disk, 2).journal;
    let next = journal.reserve_id();
    assert!(ids.iter().all(|id| *id < next), "{next:?} after {ids:?}");
}
