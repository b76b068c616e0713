//! Whatever lies in the segment files: recovery ends, twice the same, and what it yields can be gone on with.

#![no_main]

use bytes::Bytes;
use journal::{
    AppendMessage, Content, Journal, Limits, Order, Phase, RecipientState, Recovered, Start,
    inspect::inspect,
    virtual_disk::{VirtualDisk, commit, obey, read_back, recover},
};
use libfuzzer_sys::fuzz_target;
use mail::{BodyType, Envelope, JournalShard, Recipient, ReversePath, Timestamp, Utf8};

const SHARD: JournalShard = JournalShard(1);
const SIZE: u64 = 24 << 10;

fn limits() -> Limits {
    Limits { segment_size: SIZE, segments_max: 8, inline_max: 2000, meta_max: 4000, ..Limits::default() }
}

// Each four octets: segment, offset (two), length of damage; then as many octets.
fuzz_target!(|bytes: &[u8]| {
    let mut disk = lived_in();
    let mut rest = bytes;
    while let Some(([segment, high, low, len], behind)) = rest.split_first_chunk() {
        let (damage, behind) = behind.split_at(usize::from(*len).min(behind.len()));
        let offset = (u64::from(*high) << 8 | u64::from(*low)).min(SIZE - 256);
        disk.damage(u32::from(*segment % 4), offset, damage);
        rest = behind;
    }
    for file in disk.files() {
        let mut image = disk.read(file.number, 0, file.len as usize);
        let Ok(_) = inspect(&mut image, |finding| assert!(!finding.to_string().is_empty()));
    }
    let Ok(first) = open(&disk) else { return };
    let second = open(&disk).expect("it opened before");
    assert_eq!((&first.entries, &first.report), (&second.entries, &second.report));
    let mut journal = first.journal;
    let live: Vec<_> = journal.live().collect();
    assert_eq!(live, first.entries.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    for id in live {
        let _ = read_back(&journal, &disk, id);
        let _ = journal.append_retired(id);
    }
    live_on(&mut journal, &mut disk, 3);
});

fn open(disk: &VirtualDisk) -> Result<Recovered, journal::RecoveryError> {
    recover(disk, SHARD, limits(), Timestamp(9), Start::Beginning, Vec::new())
}

fn lived_in() -> VirtualDisk {
    let mut disk = VirtualDisk::default();
    let mut journal = open(&disk).expect("nothing is there").journal;
    live_on(&mut journal, &mut disk, 30);
    disk
}

fn live_on(journal: &mut Journal, disk: &mut VirtualDisk, messages: usize) {
    let envelope = Envelope {
        received_at: Timestamp(1),
        reverse_path: ReversePath::Null,
        recipients: vec![Recipient::new("ann@example.org".parse().expect("an address"))],
        body: BodyType::SevenBit,
        utf8: Utf8::NotNeeded,
        ret: None,
        envelope_id: None,
        handling: mail::Handling::default(),
        upstream: None,
    };
    for i in 0..messages {
        let content = [Bytes::from(vec![b'a'; (i * 331) % 5000])];
        let message = AppendMessage { envelope: &envelope, states: &[], content: Content::Whole(&content) };
        if let Ok(appended) = journal.append_message(&message) {
            let state = RecipientState { phase: Phase::Held, ..RecipientState::default() };
            let _ = journal.append_transition(appended.id, &[(0, state)]);
            if i % 3 > 0 {
                let _ = journal.append_retired(appended.id);
            }
        }
        commit(journal, disk).expect("the disk works");
        for order in obey(journal, disk).expect("the disk works") {
            let Order::Rescue { content, states } = order else { unreachable!("the disk does the others") };
            for id in content.into_iter().chain(states) {
                journal.on_rescue_failed(id);
            }
        }
    }
}
