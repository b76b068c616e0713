//! A life on a disk that stops at its k-th operation, for every k, with every fate of what was not synced.
//!
//! The model is exact. The log is a row of records; recovery may end it anywhere between what was durable and what
//! was appended, and what then lives must be what the records up to there say, byte for byte.

use std::collections::BTreeMap;

use bytes::Bytes;
use mail::{Envelope, JournalShard, QueueId, Recipient, ReversePath, Timestamp};

use crate::{
    AppendError, AppendMessage, Class, Content, Entry, Indexed, Journal, Limits, Older, Opened, Order, Phase,
    Position, RecipientState, Report, Start, Step,
    virtual_disk::{self, Fate, Random, Stopped, VirtualDisk, commit, obey, read_back, recover, write_group},
};

const STEPS: u32 = 80;
const SHARD: JournalShard = JournalShard(7);

fn limits() -> Limits {
    Limits {
        segment_size: 20 << 10,
        segments_max: 10,
        reserve_segments: 3,
        spares_max: 1,
        inline_max: 3000,
        meta_max: 4096,
        gathered_max: 64 << 10,
        rescue_percent: 40,
        rescue_batch: 3,
    }
}

/// What was appended of a message, and where each thing ended.
#[derive(Clone, Debug)]
struct Truth {
    at: Position,
    envelope: Envelope,
    content: Vec<u8>,
    states: Vec<(Position, u32, RecipientState)>,
    retired: Option<Position>,
}

struct World {
    seed: u64,
    random: Random,
    disk: VirtualDisk,
    journal: Journal,
    now: u64,
    durable: Position,
    messages: BTreeMap<QueueId, Truth>,
    snapshot: Option<Snapshot>,
    stored: Option<Snapshot>,
    older: Option<Background>,
    restored: u64,
    to_rescue: Vec<(QueueId, What)>,
    rescued: u64,
    refused: u64,
}

#[derive(Clone, Copy)]
enum What {
    Content,
    States,
}

type Snapshot = (crate::Checkpoint, Vec<(QueueId, Entry)>);

/// What lived before the crash, on its way back while life goes on.
struct Background {
    older: Older,
    /// Entries of the index, the next one last; the snapshot that they are of.
    told: Vec<(QueueId, Entry)>,
    from: Option<Snapshot>,
    found: Vec<(QueueId, Entry)>,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = if seed.is_multiple_of(2) { VirtualDisk::default() } else { VirtualDisk::in_blocks() };
        let journal = open(&disk, 1, None).0;
        Self {
            seed,
            random: Random(seed),
            disk,
            journal,
            now: 1,
            durable: Position(0),
            messages: BTreeMap::new(),
            snapshot: None,
            stored: None,
            older: None,
            restored: 0,
            to_rescue: Vec::new(),
            rescued: 0,
            refused: 0,
        }
    }

    fn live(&mut self, steps: u32) -> Result<(), Stopped> {
        for _ in 0..steps {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Stopped> {
        let live: Vec<_> = self.journal.live().collect();
        match self.random.below(if live.len() > 9 { 14 } else { 10 }) {
            0..=3 => self.append(),
            4 => self.append_large(),
            5 | 6 => self.transition(&live),
            7 => self.commit_slowly()?,
            8 => self.take_snapshot(),
            _ => self.retire(&live),
        }
        if self.random.below(3) == 0 {
            self.commit_slowly()?;
        }
        for _ in 0..4 {
            let orders = obey(&mut self.journal, &mut self.disk)?;
            assert!(orders.is_empty() || self.older.is_none(), "moved before all is known");
            self.rescue(&orders);
        }
        if self.random.below(3) > 0 {
            self.restore_some();
        }
        Ok(())
    }

    fn commit_slowly(&mut self) -> Result<(), Stopped> {
        if let Some(group) = self.journal.begin_group() {
            write_group(&group, &mut self.disk)?;
            // While the group is in flight.
            let live: Vec<_> = self.journal.live().collect();
            match self.random.below(3) {
                0 => self.append(),
                1 => self.transition(&live),
                _ => self.retire(&live),
            }
            group.syncs.iter().try_for_each(|segment| self.disk.sync(*segment))?;
            self.journal.on_durable(group.id);
            self.durable = self.journal.durable_to();
        }
        if self.snapshot.as_ref().is_some_and(|(checkpoint, _)| checkpoint.position <= self.durable) {
            self.stored = self.snapshot.take();
        }
        Ok(())
    }

    fn append(&mut self) {
        let len = self.random.below(2500) as usize;
        let (envelope, content) = (self.envelope(), self.content(len));
        let slices = [content.slice(..len / 3), content.slice(len / 3..)];
        let message = AppendMessage { envelope: &envelope, states: &[], content: Content::Whole(&slices) };
        let appended = self.journal.append_message(&message);
        self.appended(appended, envelope, &content);
    }

    fn append_large(&mut self) {
        let draft = self.journal.begin_draft(Class::Hot);
        let mut all = Vec::new();
        for _ in 0..2 {
            let len = 1 + self.random.below(5000) as usize;
            let part = self.content(len);
            if self.journal.append_chunk(&draft, &[part.slice(..len / 2), part.slice(len / 2..)]).is_ok() {
                all.extend_from_slice(&part);
            }
        }
        if self.random.below(4) == 0 {
            return self.journal.drop_draft(draft);
        }
        let len = self.random.below(6000) as usize;
        let (rest, envelope) = (self.content(len), self.envelope());
        all.extend_from_slice(&rest);
        let content = Content::Draft(&draft, &[rest]);
        let appended =
            self.journal.append_message(&AppendMessage { envelope: &envelope, states: &[], content });
        self.appended(appended, envelope, &all);
        self.journal.drop_draft(draft);
    }

    fn appended(
        &mut self,
        appended: Result<crate::Appended, AppendError>,
        envelope: Envelope,
        content: &[u8],
    ) {
        match appended {
            Ok(appended) => {
                let truth = Truth {
                    at: appended.end,
                    envelope,
                    content: content.to_vec(),
                    states: Vec::new(),
                    retired: None,
                };
                assert!(self.messages.insert(appended.id, truth).is_none(), "an id was given twice");
            }
            Err(AppendError::NotReady | AppendError::StorageFull) => self.refused += 1,
            Err(error) => panic!("{error}"),
        }
    }

    fn transition(&mut self, live: &[QueueId]) {
        let Some(id) = self.pick(live) else { return };
        let recipients = self.messages[&id].envelope.recipients.len() as u64;
        let index = self.random.below(recipients) as u32;
        let state = RecipientState {
            phase: Phase::Deferred,
            attempts: self.random.below(100) as u32,
            due: Timestamp(self.random.below(1 << 40)),
            ..RecipientState::default()
        };
        if let Ok(end) = self.journal.append_transition(id, &[(index, state.clone())]) {
            self.messages.get_mut(&id).unwrap().states.push((end, index, state));
        }
    }

    fn retire(&mut self, live: &[QueueId]) {
        let Some(id) = self.pick(live) else { return };
        if let Ok(end) = self.journal.append_retired(id) {
            self.messages.get_mut(&id).unwrap().retired = Some(end);
        }
    }

    /// Takes orders to rescue, and does as many as there is room for.
    fn rescue(&mut self, orders: &[Order]) {
        for order in orders {
            let Order::Rescue { content, states } = order else { unreachable!("the disk does the others") };
            self.to_rescue.extend(content.iter().map(|id| (*id, What::Content)));
            self.to_rescue.extend(states.iter().map(|id| (*id, What::States)));
        }
        for (id, what) in std::mem::take(&mut self.to_rescue) {
            let states = self.messages[&id].states_at(self.journal.end());
            let done = match what {
                What::Content => self.rescue_content(id, &states),
                What::States => self.journal.append_states(id, &states),
            };
            match done {
                Ok(_) => self.rescued += 1,
                Err(AppendError::NotReady | AppendError::StorageFull) => self.to_rescue.push((id, what)),
                Err(AppendError::UnknownMessage) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn rescue_content(
        &mut self,
        id: QueueId,
        states: &[(u32, RecipientState)],
    ) -> Result<Position, AppendError> {
        if self.journal.locate(id).is_none() {
            return Err(AppendError::UnknownMessage);
        }
        let (message, bytes) = read_back(&self.journal, &self.disk, id).expect("durable, so readable");
        let truth = &self.messages[&id];
        assert_eq!((&message.envelope, &bytes), (&truth.envelope, &truth.content));
        let content = &[Bytes::from(bytes)];
        let message = AppendMessage { envelope: &truth.envelope, states, content: Content::Whole(content) };
        self.journal.append_rescued(id, &message)
    }

    fn take_snapshot(&mut self) {
        if self.older.is_some() {
            return; // It would leave out who has not come back yet.
        }
        let end = self.journal.end();
        let entry = |id: QueueId| {
            let truth = &self.messages[&id];
            let placement = self.journal.placement(id).unwrap();
            (id, Entry { placement, states: truth.states_at(end), facts: truth.facts() })
        };
        self.snapshot = Some((self.journal.checkpoint(), self.journal.live().map(entry).collect()));
    }

    /// The power fails or the process dies; recovery is looked at, and life goes on.
    fn crash(&mut self, fate: Fate) -> Report {
        self.disk.crash(fate);
        self.disk.sync_directory();
        self.now += 1;
        let (journal, entries, report) = open(&self.disk, self.now, None);
        self.look(&journal, &entries, fate);
        let (again, entries_again, report_again) = open(&self.disk, self.now, None);
        assert_eq!((&entries, &report), (&entries_again, &report_again), "recovery twice, {fate:?}");
        assert_eq!((journal.end(), journal.usage()), (again.end(), again.usage()));
        if self.random.below(2) == 0 {
            self.go_on(journal);
            let from = self.stored.clone().filter(|_| self.random.below(3) > 0);
            self.restore_behind(from);
            return report;
        }
        if self.stored.is_some() {
            let (from_checkpoint, entries, _) = open(&self.disk, self.now, self.stored.clone());
            assert_eq!(from_checkpoint.end(), journal.end(), "from {:?}, {fate:?}, {report:?}", self.stored);
            self.look(&from_checkpoint, &entries, fate);
            if self.random.below(2) == 0 {
                self.go_on(from_checkpoint);
                return report;
            }
        }
        self.go_on(journal);
        report
    }

    fn go_on(&mut self, journal: Journal) {
        let end = journal.end();
        self.journal = journal;
        self.messages.retain(|_, truth| truth.at <= end);
        for truth in self.messages.values_mut() {
            truth.states.retain(|(at, _, _)| *at <= end);
            truth.retired = truth.retired.filter(|at| *at <= end);
        }
        (self.snapshot, self.older, self.to_rescue) = (None, None, Vec::new());
    }

    /// Goes on at once; what lived before comes back while it does.
    fn restore_behind(&mut self, from: Option<Snapshot>) {
        let Opened { journal, mut older } =
            virtual_disk::open(&self.disk, SHARD, limits(), Timestamp(self.now)).unwrap();
        assert_eq!(journal.end(), self.journal.end(), "where the log ends does not depend on what lives");
        let start = from.as_ref().map_or(Start::Beginning, |(c, _)| Start::Checkpoint(c.clone()));
        older.begin(&start).unwrap();
        self.journal = journal;
        let told = from.as_ref().map(|(_, entries)| entries.clone()).unwrap_or_default();
        self.older = Some(Background { older, told, from, found: Vec::new() });
    }

    /// A read, or a few messages.
    fn restore_some(&mut self) {
        let Some(background) = &mut self.older else { return };
        let Background { older, told, found, .. } = background;
        if let Step::Read(read) = older.step() {
            older.on_read(self.disk.read(read.segment, read.offset, read.len));
            if older.step() == Step::Done {
                let check = |(id, entry): &(QueueId, Entry)| {
                    older.check(*id, entry.placement.segment, entry.placement.offset)
                };
                told.iter().try_for_each(check).unwrap();
            }
            return;
        }
        for _ in 0..=self.random.below(3) {
            let above = told.last().map(|(id, _)| *id);
            let restored = match older.next(&mut self.journal, above) {
                Some(restored) => Some(restored),
                None => match told.pop() {
                    Some((id, entry)) => older.restore(&mut self.journal, id, entry),
                    None => return self.restored_all(),
                },
            };
            found.extend(restored.map(|it| {
                assert!(it.indexed == Indexed::No || background.from.is_some());
                (it.id, it.entry)
            }));
        }
    }

    fn restored_all(&mut self) {
        let Background { older, mut found, .. } = self.older.take().unwrap();
        let end = older.opened().position;
        let report = older.finish(&mut self.journal);
        assert_eq!(report.bad, [], "nothing is damaged, only torn");
        found.reverse();
        self.restored += 1;
        self.look_at(end, &self.journal, &found, "restored while life went on");
    }

    fn look(&self, journal: &Journal, entries: &[(QueueId, Entry)], fate: Fate) {
        self.look_at(journal.end(), journal, entries, &format!("{fate:?}"));
        let beyond = self.messages.iter().filter(|(_, truth)| truth.at > journal.end());
        assert!(beyond.into_iter().all(|(id, _)| journal.locate(*id).is_none()), "{fate:?}");
    }

    /// What was found to live when the log ended there, in a journal that may have gone on.
    fn look_at(&self, end: Position, journal: &Journal, entries: &[(QueueId, Entry)], what: &str) {
        let context = format!("seed {}, {} operations, {what}", self.seed, self.disk.operations());
        let has_gone_on = journal.end() > end;
        assert!(
            end >= self.durable || has_gone_on,
            "{context}: the log ends at {end:?}, durable was {:?}",
            self.durable
        );
        let lives = |truth: &&Truth| truth.at <= end && truth.retired.is_none_or(|at| at > end);
        let expected: Vec<_> =
            self.messages.iter().filter(|(_, truth)| lives(truth)).map(|(id, _)| *id).collect();
        let found: Vec<_> = entries.iter().map(|(id, _)| *id).collect();
        assert_eq!(found, expected, "{context}: who lives");
        for (id, entry) in entries {
            let truth = &self.messages[id];
            assert_eq!(entry.states, truth.states_at(end), "{context}: states of {id}");
            assert_eq!(entry.facts, truth.facts(), "{context}: facts of {id}");
            if has_gone_on && (truth.retired.is_some() || self.journal.locate(*id).is_none()) {
                continue; // It has ended meanwhile.
            }
            let read = read_back(journal, &self.disk, *id);
            let (message, content) = read.unwrap_or_else(|| panic!("{context}: {id} is half there"));
            assert_eq!(message.envelope, truth.envelope, "{context}: envelope of {id}");
            assert!(content == truth.content, "{context}: content of {id}");
            let placement = journal.placement(*id).unwrap();
            assert_eq!(placement.segment, entry.placement.segment, "{context}: place of {id}");
        }
    }

    fn pick(&mut self, live: &[QueueId]) -> Option<QueueId> {
        // The first few are left to grow old.
        let young = live.get(3..).filter(|young| !young.is_empty() && self.random.below(40) > 0);
        let from = young.unwrap_or(live);
        (!from.is_empty()).then(|| from[self.random.below(from.len() as u64) as usize])
    }

    fn envelope(&mut self) -> Envelope {
        let recipients = (0..=self.random.below(3))
            .map(|i| Recipient::new(format!("r{i}@host{}.example", self.random.below(9)).parse().unwrap()))
            .collect();
        Envelope {
            received_at: Timestamp(self.random.below(1 << 50)),
            reverse_path: ReversePath::Null,
            recipients,
            body: mail::BodyType::EightBitMime,
            utf8: mail::Utf8::NotNeeded,
            ret: None,
            envelope_id: None,
            handling: mail::Handling::default(),
            upstream: None,
        }
    }

    fn content(&mut self, len: usize) -> Bytes {
        let first = self.random.below(256) as u8;
        (0..len).map(|i| first.wrapping_add((i % 251) as u8)).collect()
    }
}

impl Truth {
    fn states_at(&self, end: Position) -> Vec<(u32, RecipientState)> {
        let told = self.states.iter().filter(|(at, _, _)| *at <= end);
        let last: BTreeMap<_, _> = told.map(|(_, index, state)| (*index, state.clone())).collect();
        last.into_iter().collect()
    }

    fn facts(&self) -> crate::Facts {
        let domains: Vec<_> = self.envelope.recipients.iter().map(|r| r.address.domain_str()).collect();
        crate::Facts {
            received_at: self.envelope.received_at,
            size: self.content.len() as u64,
            return_path: crate::ReturnPath::Null,
            domains: domains.join("\n").into(),
            handling: self.envelope.handling.clone(),
        }
    }
}

fn open(disk: &VirtualDisk, now: u64, from: Option<Snapshot>) -> (Journal, Vec<(QueueId, Entry)>, Report) {
    let (start, entries) = match from {
        None => (Start::Beginning, Vec::new()),
        Some((checkpoint, entries)) => (Start::Checkpoint(checkpoint), entries),
    };
    let recovered = recover(disk, SHARD, limits(), Timestamp(now), start, entries).unwrap();
    assert_eq!(recovered.report.bad, [], "nothing is damaged, only torn");
    (recovered.journal, recovered.entries, recovered.report)
}

fn fates(seed: u64) -> [Fate; 6] {
    [Fate::Killed, Fate::Kept, Fate::Lost, Fate::Prefix(seed), Fate::Sectors(seed), Fate::Sectors(!seed)]
}

fn seeds() -> Vec<u64> {
    std::env::var("SEED").map_or_else(|_| vec![1], |seed| vec![seed.parse().unwrap()])
}

#[test]
fn every_operation_may_be_the_last() {
    for seed in seeds() {
        let mut world = World::new(seed);
        world.live(STEPS).unwrap();
        let operations = world.disk.operations();
        for k in 1..=operations {
            for fate in fates(seed ^ k) {
                let mut world = World::new(seed);
                world.disk.stop_at(k);
                let _ = world.live(STEPS);
                world.crash(fate);
                // Life goes on, and ends again before long.
                world.disk.stop_at(k + 1 + (k * 7 + seed) % 29);
                let _ = world.live(30);
                world.crash(fates(k)[(k % 6) as usize]);
                world.live(5).unwrap();
                world.crash(Fate::Lost);
            }
        }
    }
}

#[test]
fn a_long_life_with_many_crashes() {
    let (mut rescued, mut refused, mut restored) = (0, 0, 0);
    for seed in 100..112 {
        let mut world = World::new(seed);
        for round in 0..12 {
            let stop = world.disk.operations() + 20 + world.random.below(600);
            world.disk.stop_at(stop);
            let _ = world.live(400);
            let fate = world.random.below(6) as usize;
            world.crash(fates(seed * 31 + round)[fate]);
        }
        while world.older.is_some() {
            world.restore_some();
        }
        (rescued, refused) = (rescued + world.rescued, refused + world.refused);
        restored += world.restored;
        let usage = world.journal.usage();
        assert!(usage.segments <= 10, "{usage:?}");
        // All that lives can go, and then the disk is free again.
        let live: Vec<_> = world.journal.live().collect();
        let mut tries = 0;
        for id in live {
            loop {
                match world.journal.append_retired(id) {
                    Ok(_) => break,
                    Err(AppendError::NotReady | AppendError::StorageFull) => {
                        commit(&mut world.journal, &mut world.disk).unwrap();
                        let orders = obey(&mut world.journal, &mut world.disk).unwrap();
                        world.rescue(&orders);
                        tries += 1;
                        assert!(tries < 1000, "seed {seed}: stuck, {:?}", world.journal);
                    }
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
        }
        assert_eq!(world.journal.usage().messages, 0);
    }
    assert!(rescued > 100, "only {rescued} were rescued");
    assert!(refused < 12 * 12 * 100, "{refused} were refused");
    assert!(restored > 30, "only {restored} times everything came back while life went on");
}
