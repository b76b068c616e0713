//! After a start: the journal is read back, and the queue is as it was.

use std::{collections::HashMap, io, path::Path};

use delivery::Demand;
use index::{Entries, Loaded};
use journal::{
    DelayNotice, Entry, Journal, Last, Opened, Phase, Read, Recovery, Report, ReturnPath, SegmentFile, Start,
    Step,
};
use mail::{JournalShard, QueueId, Timestamp, TlsDemand};
use queue::{Kind, MessageState, Order, Queue, RecipientState, Restored, State, Warning};
use ring::{File, OpenMode, Writing};
use watch::events::{Damaged, JournalCached};

use crate::{
    journals::{segment_number, segment_path},
    settings::Settings,
    shard::{Held, priority, times},
};

/// A journal shard read back.
#[derive(Debug)]
pub struct Found {
    /// Ready to append.
    pub journal: Journal,
    /// The live messages.
    pub entries: Vec<(QueueId, Entry)>,
    /// What was read, and what was wrong.
    pub report: Report,
}

/// A journal shard cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The directory or a file in it.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// What the files hold.
    #[error("{path}: {error}")]
    Journal {
        /// The directory.
        path: String,
        /// Why.
        error: journal::RecoveryError,
    },
}

/// Reads the journal shard in `directory`, from the index's checkpoint where there is one.
///
/// # Errors
/// [`RecoverError`] names the file; damage within files is in the report.
pub async fn read(
    shard: JournalShard,
    directory: &Path,
    limits: journal::Limits,
    loaded: Option<Loaded>,
    now: Timestamp,
) -> Result<Found, RecoverError> {
    ring::create_directory(directory).await.map_err(|error| failed(directory, error))?;
    // A segment that was removed just before a crash must not come back in a later one, with mail that has ended.
    ring::sync_directory(directory).await.map_err(|error| failed(directory, error))?;
    let listed = ring::list(directory).await.map_err(|error| failed(directory, error))?;
    let files = listed.iter().filter_map(|entry| {
        let number = segment_number(&entry.name)?;
        Some(SegmentFile { number, len: entry.size })
    });
    let listed = files.collect();
    let (start, entries) = match loaded {
        Some(Loaded { checkpoint, entries }) => (Start::Checkpoint(checkpoint), entries),
        None => (Start::Beginning, Entries::default()),
    };
    let mut files = Files::new(directory);
    let mut recovery = Recovery::new(shard, limits, now, listed);
    while let Step::Read(read) = recovery.step() {
        recovery.on_read(files.read(&read).await?);
    }
    let path = || directory.display().to_string();
    let wrong = |error| RecoverError::Journal { path: path(), error };
    let Opened { journal, mut older } = recovery.finish().map_err(wrong)?;
    older.begin(&start).map_err(wrong)?;
    while let Step::Read(read) = older.step() {
        older.on_read(files.read(&read).await?);
    }
    let recovered = older.recover(journal, entries.iter().collect()).map_err(wrong)?;
    Ok(Found { journal: recovered.journal, entries: recovered.entries, report: recovered.report })
}

/// Segment files, read one at a time.
struct Files<'a> {
    directory: &'a Path,
    open: Option<(u32, File)>,
    buffer: Vec<u8>,
}

impl<'a> Files<'a> {
    const fn new(directory: &'a Path) -> Self {
        Self { directory, open: None, buffer: Vec::new() }
    }

    /// The bytes that recovery asks for; none when they cannot be read: that is reported as damage, and not skipped in
    /// silence.
    async fn read(&mut self, read: &Read) -> Result<&[u8], RecoverError> {
        if self.open.as_ref().is_none_or(|(number, _)| *number != read.segment) {
            let path = segment_path(self.directory, read.segment);
            let file =
                File::open(path.clone(), OpenMode::Read).await.map_err(|error| failed(&path, error))?;
            self.open = Some((read.segment, file));
        }
        let Some((_, file)) = &self.open else { unreachable!("it was opened") };
        self.buffer.resize(read.len, 0);
        let length = file.read_into(read.offset, &mut self.buffer).await.unwrap_or(0);
        Ok(&self.buffer[..length])
    }
}

fn failed(path: &Path, error: io::Error) -> RecoverError {
    RecoverError::Io { path: path.display().to_string(), error }
}

/// Logs what is damaged within the log.
pub(crate) fn tell_damage(core: usize, report: &Report, at: u64) {
    for bad in &report.bad {
        let error = bad.damage.to_string();
        Damaged { shard: core, segment: bad.segment.into(), offset: bad.offset, error: &error }.emit(at);
    }
}

/// Gives a message back to the queue; says how many recipients it still has.
pub(crate) fn restore(
    queue: &mut Queue,
    settings: &Settings,
    id: QueueId,
    entry: &Entry,
    now: Timestamp,
) -> usize {
    let states: HashMap<u32, &journal::RecipientState> =
        entry.states.iter().map(|(place, state)| (*place, state)).collect();
    let demand = match (entry.facts.handling.tls, entry.facts.return_path) {
        (TlsDemand::None | TlsDemand::Waived, _) => Demand::None,
        (TlsDemand::Required, ReturnPath::Address) => Demand::Required,
        (TlsDemand::Required, ReturnPath::Null) => Demand::Preferred,
    };
    let mut recipients = Vec::new();
    for (place, domain) in (0..entry.placement.recipients).zip(entry.facts.domains()) {
        let state = states.get(&place);
        let (state, attempts, due, status) = match state {
            Some(state) => match state.phase {
                Phase::Delivered | Phase::Untold | Phase::Failed | Phase::Removed => continue,
                phase @ (Phase::Queued | Phase::Deferred | Phase::Held) => (
                    queue_state(phase),
                    state.attempts.try_into().unwrap_or(u16::MAX),
                    state.due,
                    state.last.as_ref().and_then(|last| last.status),
                ),
            },
            None => (State::Ready, 0, now, None),
        };
        let Ok(domain) = mail::Domain::parse(domain) else { continue };
        let way = settings.way(&domain, demand);
        // A route that holds now holds what was not tried yet.
        let state = if way.via == Held::Yes && state == State::Ready { State::Held } else { state };
        let destination = queue.intern(&way.key, now);
        recipients.push(RecipientState { recipient: place, destination, state, attempts, due, status });
    }
    let warned = entry.states.iter().any(|(_, state)| state.delay_notice == DelayNotice::Sent);
    let (kind, warning) = match (entry.facts.return_path, warned) {
        (ReturnPath::Null, _) => (Kind::Notification, Warning::Unwanted),
        (ReturnPath::Address, true) => (Kind::Message, Warning::Sent),
        (ReturnPath::Address, false) => (Kind::Message, Warning::Wanted),
    };
    let message = MessageState {
        id,
        received_at: entry.facts.received_at,
        size: entry.facts.size,
        priority: priority(&entry.facts.handling),
        kind,
        warning,
        give_up_at: None,
        times: times(&entry.facts.handling, entry.facts.received_at),
    };
    queue.restore(&Restored { message, recipients: &recipients }, now);
    recipients.len()
}

/// Who has got the message, and whose sender is still to be told: an order as the queue gave it before.
pub(crate) fn untold(id: QueueId, entry: &Entry) -> Option<Order> {
    let untold = entry.states.iter().filter(|(_, state)| state.phase == Phase::Untold);
    let recipients: Vec<_> = untold.map(|(place, _)| *place).collect();
    (!recipients.is_empty()).then(|| Order::Tell { id, recipients: recipients[..].into() })
}

/// The words of the last replies, for those who are deferred.
pub(crate) fn lasts(entry: &Entry) -> Vec<(u32, Last)> {
    entry.states.iter().filter_map(|(place, state)| Some((*place, state.last.clone()?))).collect()
}

const fn queue_state(phase: Phase) -> State {
    match phase {
        Phase::Deferred => State::Deferred,
        Phase::Held => State::Held,
        Phase::Queued | Phase::Delivered | Phase::Untold | Phase::Failed | Phase::Removed => State::Ready,
    }
}

/// What the journal needs to make room when it is full: a tail of each class, and one to turn over.
const RESERVE_MIN: u32 = 3;

/// The limits of one journal shard.
pub fn journal_limits(config: &config::Config) -> journal::Limits {
    let journal = &config.journal;
    // How much disk there is for all of them together is asked when a segment is to be made.
    let segments_max = journal.segments_max;
    let reserve = journal.reserve.div_ceil(journal.segment_size) as u32;
    journal::Limits {
        segment_size: journal.segment_size,
        segments_max,
        reserve_segments: reserve.clamp(RESERVE_MIN, segments_max / 2),
        spares_max: journal.ready.max(1),
        // What does not fit into a record goes into chunks.
        inline_max: journal.spill.min(journal.segment_size / 4).try_into().unwrap_or(u32::MAX),
        meta_max: (journal.segment_size / 4).min(4 << 20) as u32,
        rescue_percent: journal.rescue_share.into(),
        ..journal::Limits::default()
    }
}

/// How the groups of the journal in a directory are to be written.
pub(crate) async fn writing(shard: usize, directory: &Path, config: &config::Config) -> Writing {
    if !config.journal.direct {
        return Writing::Cached;
    }
    let best = Writing::best(directory).await;
    if !matches!(best, Ok(Writing::Direct)) {
        let error = best.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let path = &directory.display().to_string();
        JournalCached { shard, path, error: &error }.emit(ring::clock::unix_micros());
    }
    best.unwrap_or(Writing::Cached)
}

/// What is shared by those who rescue and those who save checkpoints: the entry of a live message.
pub(crate) fn return_path(envelope: &mail::Envelope) -> ReturnPath {
    match envelope.reverse_path {
        mail::ReversePath::Null => ReturnPath::Null,
        mail::ReversePath::Address(_) => ReturnPath::Address,
    }
}

/// The recipients' domains as the index keeps them.
pub(crate) fn domains(envelope: &mail::Envelope) -> Box<str> {
    let domains: Vec<_> =
        envelope.recipients.iter().map(|recipient| recipient.address.domain_str()).collect();
    domains.join("\n").into()
}

#[cfg(test)]
mod test {
    use journal::{Facts, Placement, SegmentRef};

    use super::*;

    #[test]
    fn who_is_still_to_be_told_of_is_found_again() {
        let state = |phase| journal::RecipientState { phase, ..Default::default() };
        let states = [Phase::Untold, Phase::Delivered, Phase::Deferred, Phase::Untold].map(state);
        let mut entry = Entry {
            placement: Placement {
                segment: SegmentRef { number: 0, generation: 1 },
                offset: 4096,
                meta_len: 100,
                inline_len: 5,
                recipients: 4,
                extents: Box::default(),
                transitions: Box::default(),
            },
            states: (0..).zip(states).collect(),
            facts: Facts {
                received_at: Timestamp::EPOCH,
                size: 5,
                return_path: ReturnPath::Address,
                domains: "a\nb\nc\nd".into(),
                handling: mail::Handling::default(),
            },
        };
        let id = QueueId::new(JournalShard(0), 1);
        assert_eq!(untold(id, &entry), Some(Order::Tell { id, recipients: [0, 3][..].into() }));
        entry.states.retain(|(_, state)| state.phase != Phase::Untold);
        assert_eq!(untold(id, &entry), None);
    }
}
