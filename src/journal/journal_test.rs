//! The machine step by step: groups, failure, a full disk, large messages, memory.

use std::mem;

use bytes::Bytes;
use mail::{
    BodyType, DeliverBy, DeliverByMode, DeliverByTrace, Envelope, Handling, JournalShard, Notify,
    OriginalRecipient, Recipient, Ret, ReversePath, Status, Timestamp, TlsDemand, TransferPriority, Utf8,
};

use super::*;
use crate::{
    DelayNotice, Last, Phase, RecipientState, Recovery,
    inspect::{Finding, inspect},
    record::read_message,
    virtual_disk::{Fate, VirtualDisk, commit, obey, read_back, recover},
};

const SHARD: JournalShard = JournalShard(3);

pub(crate) fn small() -> Limits {
    Limits {
        segment_size: 64 << 10,
        segments_max: 8,
        inline_max: 8 << 10,
        meta_max: 32 << 10,
        gathered_max: 128 << 10,
        ..Limits::default()
    }
}

pub(crate) fn fresh(limits: Limits) -> (Journal, VirtualDisk) {
    let journal = Recovery::new(SHARD, limits, Timestamp(1), Vec::new());
    (journal.finish().unwrap().journal, VirtualDisk::default())
}

pub(crate) fn envelope() -> Envelope {
    let ann = Recipient {
        address: "ann@example.org".parse().unwrap(),
        notify: Notify::NEVER,
        original: Some(OriginalRecipient {
            address_type: "rfc822".into(),
            address: "Ann@old.example".into(),
        }),
    };
    Envelope {
        received_at: Timestamp(1_700_000_000_000_000),
        reverse_path: ReversePath::Address("bob@example.net".parse().unwrap()),
        recipients: vec![ann, Recipient::new("jörg@[192.0.2.1]".parse().unwrap())],
        body: BodyType::BinaryMime,
        utf8: Utf8::Needed,
        ret: Some(Ret::Headers),
        envelope_id: Some("QQ314159".into()),
        handling: Handling {
            priority: TransferPriority::new(-4).unwrap(),
            deliver_by: Some(DeliverBy {
                deadline: Timestamp(1_700_000_100_000_000),
                mode: DeliverByMode::Notify,
                trace: DeliverByTrace::Yes,
            }),
            hold_until: Some(Timestamp(1_700_000_050_000_000)),
            hold_for: Some(mail::HoldFor(50)),
            tls: TlsDemand::Required,
            tenant: mail::TenantId::of("shop"),
            list: mail::ListId::of("news"),
            campaign: Some("Frühling 2026".into()),
            origin: Some("2001:db8::7".parse().unwrap()),
        },
        upstream: Some(
            mail::Upstream { address: Some([192, 0, 2, 7].into()), ..mail::Upstream::default() }.into(),
        ),
    }
}

fn append(journal: &mut Journal, disk: &mut VirtualDisk, content: &[Bytes]) -> Result<Appended, AppendError> {
    let envelope = envelope();
    for _ in 0..8 {
        let content = Content::Whole(content);
        match journal.append_message(&AppendMessage { envelope: &envelope, states: &[], content }) {
            Err(AppendError::NotReady) => {
                obey(journal, disk).unwrap();
                commit(journal, disk).unwrap();
            }
            other => return other,
        }
    }
    Err(AppendError::NotReady)
}

fn deferred() -> RecipientState {
    let status = Some(Status(4, 4, 1));
    RecipientState {
        phase: Phase::Deferred,
        attempts: 2,
        due: Timestamp(5),
        delay_notice: DelayNotice::Sent,
        last: Some(Last { status, host: "mx.example.org".into(), text: "421 later".into() }),
        category: Some(mail::Category::System),
        route: Some("backup".into()),
        pool: Some("warm".into()),
    }
}

#[test]
fn a_message_is_durable_when_its_group_is() {
    let (mut journal, mut disk) = fresh(small());
    let content = [Bytes::from_static(b"Subject: a\r\n\r\n"), Bytes::from_static(b"b\r\n")];
    let first = append(&mut journal, &mut disk, &content).unwrap();
    let group = journal.begin_group().unwrap();
    let pointer = content[0].as_ptr();
    assert!(group.writes[0].slices.iter().any(|slice| slice.as_ptr() == pointer), "content was copied");
    let second = append(&mut journal, &mut disk, &content).unwrap();
    assert!(journal.begin_group().is_none(), "one group in flight");
    assert!(journal.durable_to() < first.end);
    for write in &group.writes {
        assert_eq!(write.len, write.slices.iter().map(|slice| slice.len() as u64).sum::<u64>());
        disk.write(write.segment, write.offset, &write.slices).unwrap();
    }
    journal.on_durable(group.id);
    assert!(journal.durable_to() == first.end && first.end < second.end);
    let (message, bytes) = read_back(&journal, &disk, first.id).unwrap();
    assert_eq!((message.envelope, bytes), (envelope(), content.concat()));
    commit(&mut journal, &mut disk).unwrap();
    assert_eq!(journal.durable_to(), second.end);
    assert!(journal.begin_group().is_none(), "nothing has gathered");
}

#[test]
fn a_failed_sync_is_final() {
    let (mut journal, mut disk) = fresh(small());
    let appended = append(&mut journal, &mut disk, &[]).unwrap();
    let group = journal.begin_group().unwrap();
    journal.on_failed(group.id, Failure::Sync);
    assert_eq!(journal.failure(), Some(Failure::Sync));
    assert_eq!(append(&mut journal, &mut disk, &[]), Err(AppendError::Failed));
    let again = AppendMessage { envelope: &envelope(), states: &[], content: Content::Whole(&[]) };
    assert_eq!(journal.append_reserved(appended.id, &again), Err(AppendError::Failed));
    assert_eq!(journal.append_retired(appended.id), Err(AppendError::Failed));
    assert_eq!(journal.accepts_mail(), Err(AppendError::Failed));
    assert!(journal.begin_group().is_none());
    assert!(journal.durable_to() < appended.end, "what failed is never called durable");
}

#[test]
fn a_full_disk_refuses_mail_and_takes_transitions() {
    let (mut journal, mut disk) = fresh(small());
    let content = [Bytes::from(vec![b'x'; 8000])];
    let mut ids = Vec::new();
    let refusal = loop {
        match append(&mut journal, &mut disk, &content) {
            Ok(appended) => ids.push(appended.id),
            Err(error) => break error,
        }
        commit(&mut journal, &mut disk).unwrap();
        obey(&mut journal, &mut disk).unwrap();
    };
    assert_eq!((refusal, journal.accepts_mail()), (AppendError::StorageFull, Err(AppendError::StorageFull)));
    assert_eq!(journal.usage().segments, 8);
    let last = *ids.last().unwrap();
    for _ in 0..300 {
        journal.append_transition(last, &[(0, deferred())]).unwrap();
    }
    for id in &ids {
        journal.append_retired(*id).unwrap();
    }
    commit(&mut journal, &mut disk).unwrap();
    for _ in 0..8 {
        assert_eq!(obey(&mut journal, &mut disk).unwrap(), []);
    }
    assert_eq!(journal.accepts_mail(), Ok(()));
    append(&mut journal, &mut disk, &content).unwrap();
}

// The oldest segment was held by a part of a message still arriving when it was looked at, and found empty of messages.
#[test]
fn a_message_that_arrives_slowly_does_not_hold_a_segment_for_ever() {
    let (mut journal, mut disk) = fresh(small());
    let content = [Bytes::from(vec![b'x'; 8000])];
    let first = append(&mut journal, &mut disk, &[]).unwrap().id;
    let draft = journal.begin_draft(Class::Hot);
    journal.append_chunk(&draft, &content).unwrap();
    journal.append_retired(first).unwrap();
    while let Ok(appended) = append(&mut journal, &mut disk, &content) {
        journal.append_retired(appended.id).unwrap();
        commit(&mut journal, &mut disk).unwrap();
        assert_eq!(obey(&mut journal, &mut disk).unwrap(), []);
    }
    let envelope = envelope();
    let slow = AppendMessage { envelope: &envelope, states: &[], content: Content::Draft(&draft, &[]) };
    let slow = journal.append_message(&slow).unwrap().id;
    commit(&mut journal, &mut disk).unwrap();
    let asked = obey(&mut journal, &mut disk).unwrap();
    assert_eq!(asked, [Order::Rescue { content: vec![slow], states: vec![] }]);
    journal.append_rescued(slow, &message(&envelope, &content)).unwrap();
    commit(&mut journal, &mut disk).unwrap();
    obey(&mut journal, &mut disk).unwrap();
    append(&mut journal, &mut disk, &content).unwrap();
}

#[test]
fn no_room_for_a_new_file() {
    let (mut journal, mut disk) = fresh(small());
    assert_eq!(journal.append_message(&message(&envelope(), &[])), Err(AppendError::NotReady));
    let mut orders = Vec::new();
    journal.orders(&mut orders);
    let mut creates = Vec::new();
    for order in &orders {
        let Order::Create { segment, .. } = order else { panic!("{order:?}") };
        creates.push(*segment);
    }
    assert_eq!(creates.len(), 4, "the reserve and one more");
    creates.iter().for_each(|segment| journal.on_create_failed(*segment));
    assert_eq!(journal.append_message(&message(&envelope(), &[])), Err(AppendError::StorageFull));
    assert_eq!(obey(&mut journal, &mut disk).unwrap(), [], "not tried again by itself");
    journal.on_space();
    append(&mut journal, &mut disk, &[]).unwrap();
}

fn message<'a>(envelope: &'a Envelope, content: &'a [Bytes]) -> AppendMessage<'a> {
    AppendMessage { envelope, states: &[], content: Content::Whole(content) }
}

#[test]
fn a_large_message_spans_segments() {
    let (mut journal, mut disk) = fresh(small());
    append(&mut journal, &mut disk, &[]).unwrap();
    let content: Bytes = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    let draft = journal.begin_draft(Class::Hot);
    // Its beginning is known when all but its end is written.
    for (part, last) in [(30_000..50_000, false), (50_000..90_001, false), (0..30_000, true)] {
        let part = [content.slice(part)];
        let write = if last { Journal::prepend_chunk } else { Journal::append_chunk };
        let mut written = write(&mut journal, &draft, &part);
        while written == Err(AppendError::NotReady) {
            obey(&mut journal, &mut disk).unwrap();
            written = write(&mut journal, &draft, &part);
        }
        assert_eq!(written, Ok(()));
        let group = journal.begin_group().unwrap();
        crate::virtual_disk::write_group(&group, &mut disk).unwrap();
        journal.on_durable(group.id);
    }
    let rest = [content.slice(90_001..)];
    let envelope = envelope();
    let content_of = Content::Draft(&draft, &rest);
    let large = AppendMessage { envelope: &envelope, states: &[], content: content_of };
    let appended = loop {
        match journal.append_message(&large) {
            Err(AppendError::NotReady) => drop(obey(&mut journal, &mut disk).unwrap()),
            other => break other.unwrap(),
        }
    };
    journal.drop_draft(draft);
    commit(&mut journal, &mut disk).unwrap();
    disk.crash(Fate::Lost);
    let recovered =
        recover(&disk, SHARD, small(), Timestamp(2), crate::Start::Beginning, Vec::new()).unwrap();
    let (stored, bytes) = read_back(&recovered.journal, &disk, appended.id).unwrap();
    assert!(bytes == content && stored.content.len() > 10);
    assert_eq!(recovered.journal.usage().messages, 2);
    assert_eq!(recovered.journal.usage().drafts, 0);
}

#[test]
fn chunks_alone_are_not_synced() {
    let (mut journal, mut disk) = fresh(small());
    append(&mut journal, &mut disk, &[]).unwrap();
    commit(&mut journal, &mut disk).unwrap();
    let draft = journal.begin_draft(Class::Hot);
    journal.append_chunk(&draft, &[Bytes::from_static(b"part")]).unwrap();
    let before = journal.durable_to();
    let group = journal.begin_group().unwrap();
    assert_eq!(group.syncs, []);
    crate::virtual_disk::write_group(&group, &mut disk).unwrap();
    journal.on_durable(group.id);
    assert_eq!(journal.durable_to(), before);
    journal.drop_draft(draft);
    append(&mut journal, &mut disk, &[]).unwrap();
    assert_eq!(journal.begin_group().unwrap().syncs.len(), 1);
}

#[test]
fn states_and_envelopes_come_back_as_they_were() {
    let (mut journal, mut disk) = fresh(small());
    let id = append(&mut journal, &mut disk, &[Bytes::from_static(b"x\r\n")]).unwrap().id;
    let failed = RecipientState { phase: Phase::Failed, ..deferred() };
    journal.append_transition(id, &[(0, deferred()), (1, deferred())]).unwrap();
    journal.append_transition(id, &[(1, failed.clone())]).unwrap();
    commit(&mut journal, &mut disk).unwrap();
    disk.crash(Fate::Lost);
    let recovered =
        recover(&disk, SHARD, small(), Timestamp(2), crate::Start::Beginning, Vec::new()).unwrap();
    let [(found, entry)] = &recovered.entries[..] else { panic!("{:?}", recovered.entries) };
    assert_eq!(*found, id);
    assert_eq!(entry.states, [(0, deferred()), (1, failed)]);
    assert_eq!(entry.facts.domains().collect::<Vec<_>>(), ["example.org", "[192.0.2.1]"]);
    assert_eq!(crate::Entry::decode(&entry.encode()).as_ref(), Ok(entry));
    let head = recovered.journal.locate(id).unwrap().head;
    let stored = read_message(disk.read_span(head), head.segment, head.offset).unwrap();
    assert_eq!(stored.envelope, envelope());
    let checkpoint = recovered.journal.checkpoint();
    assert_eq!(crate::Checkpoint::decode(&checkpoint.encode()).as_ref(), Ok(&checkpoint));
    assert_eq!(recovered.report.records, 4, "begin, message, transitions; no end: {:?}", recovered.report);
}

#[test]
fn a_listing_says_what_is_there() {
    let (mut journal, mut disk) = fresh(small());
    let id = append(&mut journal, &mut disk, &[Bytes::from_static(b"0123456789")]).unwrap().id;
    journal.append_transition(id, &[(0, deferred())]).unwrap();
    journal.append_retired(id).unwrap();
    commit(&mut journal, &mut disk).unwrap();
    let listing = |disk: &VirtualDisk| {
        let mut lines = Vec::new();
        let mut image = disk.read(0, 0, 1 << 20);
        let Ok(summary) = inspect(&mut image, |finding: &Finding| lines.push(finding.to_string()));
        (lines, summary)
    };
    let (lines, summary) = listing(&disk);
    assert_eq!((summary.records, summary.messages, summary.bad), (4, 1, 0));
    assert!(lines[0].starts_with("segment 0 of journal shard 3, generation 1, 65536 bytes"), "{lines:#?}");
    assert!(lines[2].contains("from <bob@example.net> to 2 recipients, 10 octets in 1 parts"), "{lines:#?}");
    assert!(lines[3].contains("0:Deferred after 2 attempts"), "{lines:#?}");
    assert!(lines[5].contains("blank from here on"), "{lines:#?}");
    let content = journal.placement(id);
    assert_eq!(content, None, "a retired message is nowhere");
    disk.damage(0, 4096 + 88 + 72 + 200, b"!");
    let (lines, summary) = listing(&disk);
    assert_eq!(summary.bad, 1, "{lines:#?}");
}

#[test]
fn a_live_message_takes_little_memory() {
    assert_eq!(mem::size_of::<Live>(), 32, "docs/journal.md tells this number");
}

// A message moved to a cold segment, retired there, and its original still in a hot one that cannot be recycled: the
// record that retired it must not go first.
#[test]
fn a_retired_message_stays_so_while_its_original_is_there() {
    let (mut journal, mut disk) = fresh(Limits { segments_max: 12, ..small() });
    let content = [Bytes::from(vec![b'x'; 4000])];
    let moved = append(&mut journal, &mut disk, &content).unwrap().id;
    let stays = append(&mut journal, &mut disk, &content).unwrap().id;
    let envelope = envelope();
    journal.append_rescued(moved, &message(&envelope, &content)).unwrap();
    journal.append_retired(moved).unwrap();
    // Cold segments come and go while the hot one is held.
    for _ in 0..3000 {
        let states = [(0, deferred()), (1, deferred())];
        let _ = journal.append_states(stays, &states);
        commit(&mut journal, &mut disk).unwrap();
        for order in obey(&mut journal, &mut disk).unwrap() {
            let Order::Rescue { content, states } = order else { panic!("{order:?}") };
            content.into_iter().chain(states).for_each(|id| journal.on_rescue_failed(id));
        }
    }
    commit(&mut journal, &mut disk).unwrap();
    disk.crash(Fate::Lost);
    let limits = Limits { segments_max: 12, ..small() };
    let recovered = recover(&disk, SHARD, limits, Timestamp(2), crate::Start::Beginning, Vec::new()).unwrap();
    let found: Vec<_> = recovered.entries.iter().map(|(id, _)| *id).collect();
    assert_eq!(found, [stays]);
}

#[test]
fn a_copy_tells_all_states() {
    let (mut journal, mut disk) = fresh(small());
    let id = append(&mut journal, &mut disk, &[]).unwrap().id;
    journal.append_transition(id, &[(0, deferred())]).unwrap();
    // Released since: it is as it began, and need not be named.
    journal.append_rescued(id, &message(&envelope(), &[])).unwrap();
    commit(&mut journal, &mut disk).unwrap();
    let recovered =
        recover(&disk, SHARD, small(), Timestamp(2), crate::Start::Beginning, Vec::new()).unwrap();
    assert_eq!(recovered.entries[0].1.states, []);
    assert_eq!(recovered.entries[0].1.placement.transitions[..], []);
    assert_eq!(recovered.report.superseded, 1);
}

#[test]
fn nothing_is_recycled_before_it_is_durable() {
    let (mut journal, mut disk) = fresh(small());
    let first = append(&mut journal, &mut disk, &[]).unwrap().id;
    journal.append_retired(first).unwrap();
    commit(&mut journal, &mut disk).unwrap();
    let (draft, part) = (journal.begin_draft(Class::Hot), [Bytes::from(vec![b'x'; 7000])]);
    while journal.tails[0].as_ref().is_some_and(|tail| tail.segment == 0) {
        journal.append_chunk(&draft, &part).unwrap();
    }
    journal.drop_draft(draft);
    append(&mut journal, &mut disk, &[]).unwrap();
    let is_recycle = |order: &Order| matches!(order, Order::Recycle { segment: 0, .. });
    let mut orders = Vec::new();
    journal.orders(&mut orders);
    assert!(!orders.iter().any(is_recycle));
    let group = journal.begin_group().unwrap();
    journal.orders(&mut orders);
    assert!(!orders.iter().any(is_recycle));
    journal.on_durable(group.id);
    journal.orders(&mut orders);
    assert!(orders.iter().any(is_recycle));
}
