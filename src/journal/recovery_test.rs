//! Damage that a crash does not explain is told, and the rest is saved.

use bytes::Bytes;
use mail::{JournalShard, QueueId, Timestamp};

use super::*;
use crate::{
    AppendMessage, Content, Journal,
    journal::test::{envelope, fresh, small},
    virtual_disk::{Fate, VirtualDisk, commit, obey, read_back, recover},
};

const SHARD: JournalShard = JournalShard(3);

/// Messages of a thousand octets, each group with one of them.
fn filled(messages: u32) -> (Journal, VirtualDisk, Vec<QueueId>) {
    let (mut journal, mut disk) = fresh(small());
    let (envelope, content) = (envelope(), [Bytes::from(vec![b'x'; 1000])]);
    let message = AppendMessage { envelope: &envelope, states: &[], content: Content::Whole(&content) };
    let mut ids = Vec::new();
    while ids.len() < messages as usize {
        if let Ok(appended) = journal.append_message(&message) {
            ids.push(appended.id);
        }
        commit(&mut journal, &mut disk).unwrap();
        obey(&mut journal, &mut disk).unwrap();
    }
    (journal, disk, ids)
}

fn reopen(disk: &VirtualDisk) -> Recovered {
    recover(disk, SHARD, small(), Timestamp(9), Start::Beginning, Vec::new()).unwrap()
}

#[test]
fn a_bad_record_in_the_middle_is_told_and_the_rest_lives() {
    let (journal, mut disk, ids) = filled(20);
    let at = journal.locate(ids[5]).unwrap().head;
    disk.damage(at.segment, at.offset + 80, b"??");
    let recovered = reopen(&disk);
    let next = journal.locate(ids[6]).unwrap().head.offset;
    let bad = Bad { segment: 0, offset: at.offset, damage: Damage::Gap(next) };
    assert_eq!((&recovered.report.bad[..], &recovered.report.torn[..]), (&[bad][..], &[][..]));
    let found: Vec<_> = recovered.entries.iter().map(|(id, _)| *id).collect();
    let expected: Vec<_> = ids.iter().copied().filter(|id| *id != ids[5]).collect();
    assert_eq!(found, expected);
}

#[test]
fn damaged_content_is_found_when_it_is_read() {
    let (journal, mut disk, ids) = filled(3);
    let content = journal.locate(ids[1]).unwrap().content[0];
    disk.damage(content.segment, content.offset + 500, b"?");
    let recovered = reopen(&disk);
    assert_eq!(recovered.entries.len(), 3, "contents are not read at start");
    assert!(read_back(&recovered.journal, &disk, ids[1]).is_none());
    assert!(read_back(&recovered.journal, &disk, ids[2]).is_some());
}

#[test]
fn the_rest_of_a_sealed_segment_is_missed() {
    let (journal, mut disk, ids) = filled(100);
    let at = journal.locate(ids[2]).unwrap().head;
    assert_eq!(at.segment, 0);
    disk.damage(0, at.offset, &vec![0; (64 << 10) - at.offset as usize]);
    let recovered = reopen(&disk);
    let bad = Bad { segment: 0, offset: at.offset, damage: Damage::Rest };
    assert_eq!(recovered.report.bad, [bad]);
    assert!(recovered.entries.len() > 10);
}

#[test]
fn a_damaged_header_page_is_told_and_the_records_are_read() {
    let (_, mut disk, ids) = filled(3);
    disk.damage(0, 10, b"????");
    let recovered = reopen(&disk);
    assert_eq!(recovered.report.bad, [Bad { segment: 0, offset: 0, damage: Damage::SegmentHeader }]);
    assert_eq!(recovered.entries.len(), ids.len());
}

#[test]
fn another_shards_files_are_refused() {
    let (_, disk, _) = filled(1);
    let opened = recover(&disk, JournalShard(4), small(), Timestamp(9), Start::Beginning, Vec::new());
    assert!(matches!(opened, Err(RecoveryError::Foreign { shard: JournalShard(3), .. })), "{opened:?}");
}

#[test]
fn numbers_are_given_once() {
    let (mut journal, mut disk, ids) = filled(3);
    for id in &ids {
        journal.append_retired(*id).unwrap();
    }
    commit(&mut journal, &mut disk).unwrap();
    disk.crash(Fate::Lost);
    let mut recovered = reopen(&disk);
    assert!(recovered.entries.is_empty());
    commit(&mut recovered.journal, &mut disk).unwrap();
    let message = AppendMessage { envelope: &envelope(), states: &[], content: Content::Whole(&[]) };
    let appended = recovered.journal.append_message(&message).unwrap();
    assert!(ids.iter().all(|id| *id < appended.id));
}

#[test]
fn any_bytes_at_all_do_not_panic() {
    let (_, disk, _) = filled(60);
    let mut random = crate::virtual_disk::Random(1);
    for _ in 0..200 {
        let mut disk = disk.clone();
        for _ in 0..=random.below(4) {
            let (segment, offset) = (random.below(4) as u32, random.below(64 << 10) / 4 * 4);
            let bytes: Vec<u8> = (0..random.below(16)).map(|_| random.below(256) as u8).collect();
            let offset = offset.min((64 << 10) - 16);
            disk.damage(segment, offset, &bytes);
        }
        let _ = recover(&disk, SHARD, small(), Timestamp(9), Start::Beginning, Vec::new());
    }
}

#[test]
fn a_checkpoint_with_entries_that_were_never_durable_is_refused() {
    let (mut journal, mut disk, ids) = filled(5);
    let checkpoint = journal.checkpoint();
    let content = [Bytes::from(vec![b'x'; 1000])];
    let envelope = envelope();
    let message = AppendMessage { envelope: &envelope, states: &[], content: Content::Whole(&content) };
    // Moved, and the entry stored before the copy was durable.
    journal.append_rescued(ids[0], &message).unwrap();
    let recovered = reopen(&disk);
    let mut entries = recovered.entries;
    entries[0].1.placement = journal.placement(ids[0]).unwrap();
    let open = |disk: &VirtualDisk| {
        let start = Start::Checkpoint(checkpoint.clone());
        recover(disk, SHARD, small(), Timestamp(9), start, entries.clone())
    };
    let refused = Err(RecoveryError::Checkpoint);
    assert_eq!(open(&disk).map(|_| ()), refused, "the copy's segment was never used");
    commit(&mut journal, &mut disk).unwrap();
    assert!(open(&disk).is_ok_and(|recovered| recovered.entries.len() == 5), "durable after all");
    let span = journal.locate(ids[0]).unwrap().head;
    disk.damage(span.segment, span.offset, b"torn");
    assert_eq!(open(&disk).map(|_| ()), refused);
}
