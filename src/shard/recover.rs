//! After a start: the journal is opened, and read back.

use std::{io, path::Path, time::Duration};

use journal::{
    Entry, Opened, Phase, Read, Recovered, Recovery, Report, ReturnPath, SegmentFile, Start, Step,
};
use mail::{JournalShard, QueueId, Timestamp};
use queue::Order;
use ring::{File, OpenMode, Writing};
use watch::events::{Damaged, JournalCached};

use crate::journals::{segment_number, segment_path};

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

/// Opens the journal shard in `directory` where its log ends.
///
/// # Errors
/// [`RecoverError`] names the file; damage within files is in the report of what is read later.
pub(crate) async fn open(
    shard: JournalShard,
    directory: &Path,
    limits: journal::Limits,
    now: Timestamp,
) -> Result<Opened, RecoverError> {
    ring::create_directory(directory).await.map_err(|error| failed(directory, error))?;
    // A segment that was removed just before a crash must not come back in a later one, with mail that has ended.
    ring::sync_directory(directory).await.map_err(|error| failed(directory, error))?;
    let listed = ring::list(directory).await.map_err(|error| failed(directory, error))?;
    let files = listed.iter().filter_map(|entry| {
        let number = segment_number(entry.name.as_ref())?;
        Some(SegmentFile { number, len: entry.size })
    });
    let mut recovery = Recovery::new(shard, limits, now, files.collect());
    let mut files = Files::new(directory);
    while let Step::Read(read) = recovery.step() {
        recovery.on_read(files.read(&read).await?);
    }
    recovery.finish().map_err(|error| wrong(directory, error))
}

/// Reads the whole journal shard in `directory`, without an index.
///
/// # Errors
/// [`RecoverError`] names the file; damage within files is in the report.
pub async fn read(
    shard: JournalShard,
    directory: &Path,
    limits: journal::Limits,
    now: Timestamp,
) -> Result<Recovered, RecoverError> {
    let Opened { journal, mut older } = open(shard, directory, limits, now).await?;
    let mut files = Files::new(directory);
    older.begin(&Start::Beginning).map_err(|error| wrong(directory, error))?;
    while let Step::Read(read) = older.step() {
        older.on_read(files.read(&read).await?);
    }
    older.recover(journal, Vec::new()).map_err(|error| wrong(directory, error))
}

/// Segment files, read one at a time, with turns for everything else in between.
pub(crate) struct Files<'a> {
    directory: &'a Path,
    open: Option<(u32, File)>,
    buffer: Vec<u8>,
    slice: Slice,
}

/// The time that the core gives at once to what is long.
pub(crate) struct Slice {
    end: Duration,
}

/// How long the core does nothing else.
const SLICE: Duration = Duration::from_millis(2);

impl Slice {
    pub(crate) fn begin() -> Self {
        Self { end: ring::clock::now() + SLICE }
    }

    pub(crate) fn is_over(&self) -> bool {
        ring::clock::now() >= self.end
    }

    /// Lets everything else have its turn.
    pub(crate) async fn pause(&mut self) {
        ring::yield_now().await;
        *self = Self::begin();
    }
}

impl<'a> Files<'a> {
    pub(crate) fn new(directory: &'a Path) -> Self {
        Self { directory, open: None, buffer: Vec::new(), slice: Slice::begin() }
    }

    /// The bytes that recovery asks for; none when they cannot be read: that is reported as damage, and not skipped in
    /// silence.
    pub(crate) async fn read(&mut self, read: &Read) -> Result<&[u8], RecoverError> {
        // What the kernel has in memory is read without a wait.
        if self.slice.is_over() {
            self.slice.pause().await;
        }
        if self.open.as_ref().is_none_or(|(number, _)| *number != read.segment) {
            let path = segment_path(self.directory, read.segment);
            // Clients are served already, and may have all descriptors for a while.
            let file = ring::patiently(async || File::open(path.clone(), OpenMode::Read).await);
            let file = file.await.map_err(|error| failed(&path, error))?;
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

fn wrong(path: &Path, error: journal::RecoveryError) -> RecoverError {
    RecoverError::Journal { path: path.display().to_string(), error }
}

/// Logs what is damaged within the log.
pub(crate) fn tell_damage(core: usize, report: &Report, at: u64) {
    for bad in &report.bad {
        let error = bad.damage.to_string();
        Damaged { shard: core, segment: bad.segment.into(), offset: bad.offset, error: &error }.emit(at);
    }
}

/// Who has got the message, and whose sender is still to be told: an order as the queue gave it before.
pub(crate) fn untold(id: QueueId, entry: &Entry) -> Option<Order> {
    let untold = entry.states.iter().filter(|(_, state)| state.phase == Phase::Untold);
    let recipients: Vec<_> = untold.map(|(place, _)| *place).collect();
    (!recipients.is_empty()).then(|| Order::Tell { id, recipients: recipients[..].into() })
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
