//! The journal shards of one core, on their files: groups written and synced, segments made and recycled.
//!
//! [`journal::Journal`] decides; here it is done. One task per journal shard takes what has gathered, writes it,
//! syncs once and wakes everybody whose record is durable now (group commit by natural batching). No timer holds
//! back what somebody waits for: under load the groups grow by themselves.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use hashbrown::HashMap;
use journal::{
    AppendError, AppendMessage, Class, Content, Draft, Failure, Group, Journal, Order, Position,
    RecipientState, Span,
};
use mail::{Envelope, JournalShard, QueueId};
use ring::{DurableFile, Event, Writing, clock};
use smtp::Refusal;
use watch::{
    JournalHealth, SegmentState, ShardMetrics,
    events::{CommitFailed, JournalFull, JournalHealthy},
};

use crate::{budget::DiskShare, upkeep::Changes};

/// The journal shards that this core has taken over. New mail goes into one of them.
pub(crate) struct Journals {
    active: Rc<Committer>,
    /// All of them, which may become more while the core serves.
    all: RefCell<Vec<Rc<Committer>>>,
    /// Those that are on their way out, and that somebody is still at work on.
    leaving: RefCell<Vec<Rc<Committer>>>,
}

impl Journals {
    /// New mail goes into the first.
    ///
    /// # Panics
    /// Without a journal shard: a core with none is not started.
    pub(crate) fn new(all: Vec<Rc<Committer>>) -> Self {
        let active = all.first().expect("a core has at least one journal shard").clone();
        Self { active, all: RefCell::new(all), leaving: RefCell::default() }
    }

    /// Takes over another.
    pub(crate) fn push(&self, committer: Rc<Committer>) {
        self.all.borrow_mut().push(committer);
    }

    /// Where new mail goes.
    pub(crate) fn active(&self) -> &Rc<Committer> {
        &self.active
    }

    /// Where a message lies.
    pub(crate) fn of(&self, id: QueueId) -> Option<Rc<Committer>> {
        self.all.borrow().iter().find(|committer| committer.number == id.shard()).cloned()
    }

    /// Has one no more.
    fn remove(&self, number: JournalShard) -> Option<Rc<Committer>> {
        let mut all = self.all.borrow_mut();
        let place = all.iter().position(|committer| committer.number == number)?;
        Some(all.remove(place))
    }

    /// Takes out those that hold nothing and take no new mail. Whoever was at work on one has ended; one of which that
    /// cannot be waited for stays, and `resume` has its groups written if nobody does any more.
    pub(crate) async fn take_idle(&self, resume: impl Fn(&Rc<Committer>)) -> Vec<Rc<Committer>> {
        let (mut taken, active) = (Vec::new(), self.active.number);
        for number in
            self.all().into_iter().map(|committer| committer.number).filter(|number| *number != active)
        {
            if !self.all().iter().any(|committer| committer.number == number && committer.is_idle()) {
                continue;
            }
            let Some(committer) = self.remove(number) else { continue };
            if committer.close(1).await {
                taken.push(committer);
            } else {
                committer.closed.set(false);
                if !committer.writes.get() {
                    resume(&committer);
                }
                self.push(committer);
            }
        }
        taken
    }

    /// Those that take no new mail, the one with the least in it first.
    pub(crate) fn spare(&self) -> Vec<Rc<Committer>> {
        let mut spare = self.all();
        spare.retain(|committer| committer.number != self.active.number && !committer.has_failed());
        spare.sort_by_key(|committer| committer.with(Journal::usage).messages);
        spare
    }

    /// Takes one out; says whether whoever was at work on it has ended, but for whoever asks.
    pub(crate) async fn take(&self, committer: &Rc<Committer>) -> bool {
        if let Some(committer) = self.remove(committer.number) {
            self.leaving.borrow_mut().push(committer);
        }
        let is_closed = committer.close_patiently(2).await;
        if is_closed {
            self.leaving.borrow_mut().retain(|other| other.number != committer.number);
        }
        is_closed
    }

    /// Ends all work on all of them, as far as that can be waited for.
    pub(crate) async fn close(&self) {
        for committer in self.leaving.take().into_iter().chain(self.all.take()) {
            // Whoever has it leave has it in hand, and so has this.
            let holders =
                if committer.is_leaving() || committer.number == self.active.number { 2 } else { 1 };
            if !committer.close_patiently(holders).await {
                tracing::warn!(shard = %committer.number, "the disk is still at work on a journal shard that is left");
            }
        }
    }

    /// Those that there are now.
    pub(crate) fn all(&self) -> Vec<Rc<Committer>> {
        self.all.borrow().clone()
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.all.borrow().iter().any(|committer| committer.has_failed())
    }

    /// Brings the gauges up to date: all journal shards of the core together.
    pub(crate) fn measure(&self, metrics: &ShardMetrics) {
        let metrics = &metrics.journal;
        let (mut ready, mut segments, mut bytes, mut live_bytes) = (0, 0, 0, 0);
        let all = self.all.borrow();
        for committer in all.iter() {
            let usage = committer.with(Journal::usage);
            ready += usage.segments_ready as u64;
            segments += usage.segments as u64;
            bytes += usage.bytes;
            live_bytes += usage.live_bytes;
        }
        metrics.segments.of(SegmentState::Free).set(ready);
        metrics.segments.of(SegmentState::Sealed).set(segments.saturating_sub(ready));
        metrics.segment_bytes.of(SegmentState::Sealed).set(bytes);
        metrics.live_bytes.set(live_bytes);
        metrics.set_health(if all.iter().any(|committer| committer.has_failed()) {
            JournalHealth::Failed
        } else if all.iter().any(|committer| committer.full.get()) {
            JournalHealth::Full
        } else {
            JournalHealth::Healthy
        });
    }
}

/// One journal shard and its files.
pub(crate) struct Committer {
    number: JournalShard,
    /// The number of the core, for the log.
    core: usize,
    directory: PathBuf,
    journal: RefCell<Journal>,
    files: RefCell<HashMap<u32, Rc<DurableFile>>>,
    /// How groups are written.
    writing: Writing,
    metrics: Rc<ShardMetrics>,
    /// Something was appended, or a file order is done.
    work: Event,
    /// Room was made: who found the journal not ready may try again.
    room: Event,
    waiting: RefCell<VecDeque<Waiter>>,
    /// Notes that found the journal not ready, in order.
    notes: RefCell<VecDeque<Note>>,
    full: Cell<bool>,
    /// Nothing is to be written any more.
    closed: Cell<bool>,
    /// Whether there is a task that writes groups.
    writes: Cell<bool>,
    /// Of the host's disk budget.
    share: DiskShare,
    /// The budget had no room for another segment, of that size.
    denied: Cell<Option<u64>>,
    /// Its messages are on their way out of the queue: a checkpoint would make whoever has it next forget them.
    leaving: Cell<bool>,
    /// Messages that were moved to a place that is not durable yet.
    moving: RefCell<HashMap<QueueId, Position>>,
    /// For the index.
    pub(crate) changes: RefCell<Changes>,
}

struct Waiter {
    end: Position,
    waker: Waker,
}

/// What became of recipients, to be written in the order in which it happened.
#[derive(Debug)]
pub(crate) enum Note {
    /// New states of recipients.
    Transition(QueueId, Vec<(u32, RecipientState)>),
    /// All recipients have ended.
    Retired(QueueId),
}

/// A journal order that the queue has to help with.
#[derive(Debug)]
pub(crate) struct Rescue {
    pub(crate) content: Vec<QueueId>,
    pub(crate) states: Vec<QueueId>,
}

/// A message read back.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) envelope: Envelope,
    pub(crate) states: Vec<(u32, RecipientState)>,
    pub(crate) content: Vec<Bytes>,
}

/// A message cannot be read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It has ended in the meantime.
    #[error("the message is no longer in the journal")]
    Gone,
    /// The medium does not give it.
    #[error("segment {segment}: {error}")]
    Io { segment: u32, error: io::Error },
    /// The bytes are not those that were written.
    #[error("segment {segment}, offset {offset}: {reason}")]
    Damaged { segment: u32, offset: u64, reason: String },
}

/// The longest that notes wait for a group that is synced.
const LINGER: Duration = Duration::from_millis(5);
/// So many notes wait no longer.
const LINGER_NOTES: usize = 1024;
/// Nor do so many bytes.
const LINGER_BYTES: u64 = 256 << 10;

impl Committer {
    pub(crate) fn new(
        journal: Journal,
        core: usize,
        directory: PathBuf,
        metrics: Rc<ShardMetrics>,
        share: DiskShare,
        writing: Writing,
    ) -> Rc<Self> {
        Rc::new(Self {
            number: journal.shard(),
            core,
            directory,
            journal: RefCell::new(journal),
            files: RefCell::default(),
            writing,
            metrics,
            work: Event::new(),
            room: Event::new(),
            waiting: RefCell::default(),
            notes: RefCell::default(),
            full: Cell::new(false),
            closed: Cell::new(false),
            writes: Cell::new(false),
            share,
            denied: Cell::new(None),
            leaving: Cell::new(false),
            moving: RefCell::default(),
            changes: RefCell::default(),
        })
    }

    /// Which one this is.
    pub(crate) const fn number(&self) -> JournalShard {
        self.number
    }

    /// Waits until a segment is ready for mail, or none can be made.
    pub(crate) async fn prepare(&self) {
        loop {
            let room = self.room.wait();
            // To ask for room is what makes the journal order segments.
            let _ = self.journal.borrow_mut().accepts_mail();
            let usage = self.with(Journal::usage);
            if usage.segments_ready > 0 || usage.segments > 1 || self.full.get() || self.has_failed() {
                return;
            }
            self.work.notify_one();
            room.await;
        }
    }

    /// No checkpoint of it is saved any more.
    pub(crate) fn leave(&self) {
        self.leaving.set(true);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Nothing lives here, and nothing waits to be written.
    fn is_idle(&self) -> bool {
        let journal = self.journal.borrow();
        let usage = journal.usage();
        usage.messages == 0
            && usage.drafts == 0
            && journal.failure().is_none()
            && journal.durable_to() >= journal.end()
            && self.notes.borrow().is_empty()
    }

    /// As [`Self::close`], for about half a minute.
    async fn close_patiently(self: &Rc<Self>, holders: usize) -> bool {
        const TIMES: u32 = 15;
        for _ in 0..TIMES {
            if self.close(holders).await {
                return true;
            }
        }
        false
    }

    /// Ends all work on it; says whether only so many have it in hand any more.
    async fn close(self: &Rc<Self>, holders: usize) -> bool {
        const ROUNDS: u32 = 200;
        const ROUND: Duration = Duration::from_millis(10);
        self.closed.set(true);
        for _ in 0..ROUNDS {
            self.work.notify_all();
            // Whoever waits for room, or to be durable, is told that it will not be.
            self.room.notify_all();
            self.wake();
            // Each task that works on it has it in hand.
            if Rc::strong_count(self) <= holders {
                return true;
            }
            ring::sleep(ROUND).await;
        }
        false
    }

    /// Writes and syncs what gathers, until it is closed or the core ends; `rescue` is given what the queue must help with.
    pub(crate) async fn run(self: Rc<Self>, rescue: impl Fn(Rescue) + 'static) {
        let rescue = Rc::new(rescue);
        self.writes.set(true);
        self.follow_orders(&rescue);
        let mut lingering = None;
        while !self.closed.get() {
            let work = self.work.wait();
            if let Some(wait) = self.linger(&mut lingering) {
                self.follow_orders(&rescue);
                // Whether more has come or the time is up: both is seen above.
                let _ = ring::timeout(wait, work).await;
                continue;
            }
            self.write_notes();
            let group = self.journal.borrow_mut().begin_group();
            match group {
                Some(group) => {
                    drop(work);
                    self.commit(group).await;
                    self.follow_orders(&rescue);
                }
                None => {
                    self.follow_orders(&rescue);
                    work.await;
                }
            }
        }
        // What was appended before is written. Nothing is appended any more.
        loop {
            self.write_notes();
            let group = self.journal.borrow_mut().begin_group();
            let Some(group) = group else { break };
            self.commit(group).await;
        }
        self.writes.set(false);
        self.wake();
    }

    /// Nothing is written any more.
    fn is_over(&self) -> bool {
        self.closed.get() && !self.writes.get()
    }

    /// How long what has gathered waits for company. Nobody waits for notes, and alone they would cost a write to
    /// the disk where there is no page cache to take them.
    fn linger(&self, since: &mut Option<Duration>) -> Option<Duration> {
        let (notes, journal) = (self.notes.borrow().len(), self.journal.borrow());
        let hurry = self.writing == Writing::Cached
            || journal.awaits_sync()
            || journal.gathered() >= LINGER_BYTES
            || notes >= LINGER_NOTES
            || (notes == 0 && journal.gathered() == 0);
        if hurry {
            *since = None;
            return None;
        }
        let now = clock::now();
        let left = (*since.get_or_insert(now) + LINGER).checked_sub(now).filter(|left| !left.is_zero());
        if left.is_none() {
            *since = None;
        }
        left
    }

    async fn commit(&self, group: Group) {
        let (id, end) = (group.id, group.end);
        let before = self.journal.borrow().durable_to();
        let began = clock::now();
        match self.write(&group).await {
            Ok(()) => {
                let records = end.0.saturating_sub(before.0);
                let bytes = group.writes.iter().map(|write| write.len).sum();
                if !group.syncs.is_empty() {
                    let metrics = &self.metrics.journal;
                    metrics.sync.record_duration(clock::now().saturating_sub(began));
                    metrics.group_records.record(records);
                    metrics.group_bytes.record(bytes);
                }
                self.journal.borrow_mut().on_durable(id);
            }
            Err((failure, error)) => {
                let records = self.journal.borrow().end().0.saturating_sub(before.0);
                self.metrics.journal.failed.one();
                self.metrics.journal.set_health(JournalHealth::Failed);
                CommitFailed { shard: self.core, records, error: &format!("{failure}: {error}") }
                    .emit(clock::unix_micros());
                self.journal.borrow_mut().on_failed(id, failure);
            }
        }
        self.wake();
        self.room.notify_all();
    }

    async fn write(&self, group: &Group) -> Result<(), (Failure, io::Error)> {
        for write in &group.writes {
            let failed = |error| (Failure::Write, error);
            let file = self.file(write.segment).await.map_err(failed)?;
            begin(&file, self.writing).await.map_err(failed)?;
            file.write_slices_at(&write.slices, write.offset).await.map_err(failed)?;
        }
        for segment in &group.syncs {
            let file = self.file(*segment).await.map_err(|error| (Failure::Sync, error))?;
            file.sync().await.map_err(|error| (Failure::Sync, error))?;
        }
        for write in &group.writes {
            if !self.with(|journal| journal.is_open(write.segment))
                && let Some(file) = self.files.borrow().get(&write.segment)
            {
                // Its last record is written.
                file.end();
            }
        }
        Ok(())
    }

    /// Wakes those whose record is durable, or will never be.
    fn wake(&self) {
        let (durable, failed) = {
            let journal = self.journal.borrow();
            (journal.durable_to(), journal.failure().is_some() || self.is_over())
        };
        self.moving.borrow_mut().retain(|_, end| *end > durable);
        let mut waiting = self.waiting.borrow_mut();
        while let Some(waiter) = waiting.pop_front_if(|waiter| failed || waiter.end <= durable) {
            waiter.waker.wake();
        }
    }

    /// Waits until everything before `end` is durable.
    ///
    /// # Errors
    /// [`Refusal::StorageFailed`] when it will never be.
    pub(crate) async fn durable(&self, end: Position) -> Result<(), Refusal> {
        poll_fn(|context| {
            let journal = self.journal.borrow();
            if journal.durable_to() >= end {
                return Poll::Ready(Ok(()));
            }
            if journal.failure().is_some() || self.is_over() {
                return Poll::Ready(Err(Refusal::StorageFailed));
            }
            // Ends grow as records are appended, so the list is in order but for who is polled twice.
            let mut waiting = self.waiting.borrow_mut();
            let place = waiting.partition_point(|waiter| waiter.end <= end);
            waiting.insert(place, Waiter { end, waker: context.waker().clone() });
            Poll::Pending
        })
        .await
    }

    /// The id for a message whose mail data begins to arrive. Ids of messages that are refused are not used again.
    pub(crate) fn next_id(&self) -> QueueId {
        self.journal.borrow_mut().reserve_id()
    }

    /// Whether mail can be expected to find room.
    pub(crate) fn accepts_mail(&self) -> Result<(), Refusal> {
        let accepts = self.journal.borrow_mut().accepts_mail();
        let full = accepts == Err(AppendError::StorageFull);
        if self.full.replace(full) != full {
            let now = clock::unix_micros();
            if full {
                let error = match self.denied.get() {
                    Some(_) => {
                        format!("journal.disk-max is used up: {} bytes over all cores", self.share.max())
                    }
                    None => {
                        "no segment can be made: journal.segments-max is reached, or the disk is full".into()
                    }
                };
                JournalFull { shard: self.core, error: &error }.emit(now);
                self.work.notify_all();
            } else {
                JournalHealthy { shard: self.core }.emit(now);
            }
        }
        accepts.map_err(refusal)
    }

    /// Appends a message; it is ours once [`Committer::durable`] says so of the place returned.
    ///
    /// # Errors
    /// Why the client has to try again.
    pub(crate) async fn append(
        &self,
        id: QueueId,
        envelope: &Envelope,
        states: &[(u32, RecipientState)],
        draft: Option<&Draft>,
        content: &[Bytes],
    ) -> Result<Position, Refusal> {
        let content = draft.map_or(Content::Whole(content), |draft| Content::Draft(draft, content));
        let message = AppendMessage { envelope, states, content };
        let end = self.when_ready(|journal| journal.append_reserved(id, &message)).await.map_err(refusal)?;
        self.changes.borrow_mut().changed(id);
        Ok(end)
    }

    /// Appends a live message once more, out of the way of recycling.
    pub(crate) async fn append_rescued(&self, id: QueueId, stored: &Stored) -> Result<(), AppendError> {
        let Stored { envelope, states, content } = stored;
        let message = AppendMessage { envelope, states, content: Content::Whole(content) };
        let end = self.when_ready(|journal| journal.append_rescued(id, &message)).await?;
        self.moving.borrow_mut().insert(id, end);
        Ok(())
    }

    /// Appends the states of a live message once more.
    pub(crate) async fn append_states(
        &self,
        id: QueueId,
        states: &[(u32, RecipientState)],
    ) -> Result<(), AppendError> {
        self.when_ready(|journal| journal.append_states(id, states)).await.map(drop)
    }

    /// A message that was to be moved cannot be.
    pub(crate) fn on_rescue_failed(&self, id: QueueId) {
        self.journal.borrow_mut().on_rescue_failed(id);
        self.work.notify_all();
    }

    pub(crate) fn begin_draft(&self) -> Draft {
        self.journal.borrow_mut().begin_draft(Class::Hot)
    }

    /// Writes a part of a large message.
    pub(crate) async fn append_chunk(&self, draft: &Draft, content: &[Bytes]) -> Result<(), Refusal> {
        self.when_ready(|journal| journal.append_chunk(draft, content)).await.map_err(refusal)
    }

    /// Writes what stands before all that is written of it.
    pub(crate) async fn prepend_chunk(&self, draft: &Draft, content: &[Bytes]) -> Result<(), Refusal> {
        self.when_ready(|journal| journal.prepend_chunk(draft, content)).await.map_err(refusal)
    }

    pub(crate) fn drop_draft(&self, draft: Draft) {
        self.journal.borrow_mut().drop_draft(draft);
    }

    async fn when_ready<T>(
        &self,
        mut append: impl FnMut(&mut Journal) -> Result<T, AppendError>,
    ) -> Result<T, AppendError> {
        loop {
            let room = self.room.wait();
            if self.closed.get() {
                return Err(AppendError::Failed);
            }
            let appended = append(&mut self.journal.borrow_mut());
            self.work.notify_one();
            match appended {
                Err(AppendError::NotReady) => room.await,
                other => return other,
            }
        }
    }

    /// Writes down what became of recipients. Nobody waits for it: what is lost in a crash happens again.
    pub(crate) fn note(&self, note: Note) {
        match &note {
            Note::Transition(id, _) => self.changes.borrow_mut().changed(*id),
            Note::Retired(id) => self.changes.borrow_mut().retired(*id),
        }
        let mut notes = self.notes.borrow_mut();
        notes.push_back(note);
        // Once it knows of one, it looks how many there are when their time has come.
        if notes.len() == 1 || notes.len() == LINGER_NOTES {
            self.work.notify_one();
        }
    }

    fn write_notes(&self) {
        let mut notes = self.notes.borrow_mut();
        let mut journal = self.journal.borrow_mut();
        while let Some(note) = notes.front() {
            let written = match note {
                Note::Transition(id, states) => journal.append_transition(*id, states),
                Note::Retired(id) => journal.append_retired(*id),
            };
            // A note that finds no room waits for it: dropped, its message would be sent again after a restart.
            if matches!(written, Err(AppendError::NotReady | AppendError::StorageFull)) {
                return;
            }
            // Any other error is final, and the next attempt of these recipients all that it costs.
            notes.pop_front();
        }
    }

    /// Does what the journal wants done with files, each in a task of its own.
    fn follow_orders(self: &Rc<Self>, rescue: &Rc<impl Fn(Rescue) + 'static>) {
        let mut orders = Vec::new();
        self.journal.borrow_mut().orders(&mut orders);
        for order in orders {
            match order {
                Order::Create { segment, size, header } => {
                    ring::spawn(self.clone().create(segment, size, header));
                }
                Order::Recycle { segment, header } => ring::spawn(self.clone().recycle(segment, header)),
                Order::Remove { segment } => ring::spawn(self.clone().remove(segment)),
                Order::Rescue { content, states } => rescue(Rescue { content, states }),
            }
        }
    }

    async fn create(self: Rc<Self>, segment: u32, size: u64, header: Bytes) {
        if !self.share.take(segment, size) {
            self.denied.set(Some(size));
            self.journal.borrow_mut().on_create_failed(segment);
            return self.file_order_done();
        }
        let path = segment_path(&self.directory, segment);
        let make = || make_segment(&self.directory, &path, (size, self.writing), &header);
        let made = match make().await {
            // One that a crash left half made: the journal knows none of that number. Nobody else has this journal shard.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match ring::remove(path.clone()).await {
                    Ok(()) => make().await,
                    Err(error) => Err(error),
                }
            }
            made => made,
        };
        match made {
            Ok(file) => {
                self.files.borrow_mut().insert(segment, Rc::new(file));
                self.journal.borrow_mut().on_prepared(segment);
            }
            Err(error) => {
                JournalFull { shard: self.core, error: &format!("cannot make {}: {error}", path.display()) }
                    .emit(clock::unix_micros());
                self.full.set(true);
                // The name may be there without the content.
                let removed = ring::remove(path).await;
                if removed.is_ok() || removed.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                    self.share.give_back(segment);
                }
                self.journal.borrow_mut().on_create_failed(segment);
            }
        }
        self.file_order_done();
    }

    async fn recycle(self: Rc<Self>, segment: u32, header: Bytes) {
        let recycled = async {
            let file = self.file(segment).await?;
            file.write_slices_at(&[header], 0).await?;
            file.sync().await?;
            begin(&file, self.writing).await
        };
        match recycled.await {
            Ok(()) => self.journal.borrow_mut().on_prepared(segment),
            // The file is not used again before a restart; another is made in its place.
            Err(error) => {
                let path = segment_path(&self.directory, segment);
                JournalFull { shard: self.core, error: &format!("cannot reuse {}: {error}", path.display()) }
                    .emit(clock::unix_micros());
                self.journal.borrow_mut().on_create_failed(segment);
            }
        }
        self.file_order_done();
    }

    async fn remove(self: Rc<Self>, segment: u32) {
        self.files.borrow_mut().remove(&segment);
        let removed = ring::remove(segment_path(&self.directory, segment)).await;
        let sync = async || ring::sync_directory(self.directory.clone()).await;
        if removed.is_ok() && ring::patiently(sync).await.is_ok() {
            self.share.give_back(segment);
            self.journal.borrow_mut().on_removed(segment);
        }
        self.file_order_done();
    }

    fn file_order_done(&self) {
        self.room.notify_all();
        self.work.notify_one();
    }

    /// The disk or the budget may have room again: look once more.
    pub(crate) fn on_space(&self) {
        let room = match self.denied.get() {
            Some(size) => self.share.has_room(size),
            None => self.full.get(),
        };
        if room {
            self.denied.set(None);
            self.journal.borrow_mut().on_space();
            self.work.notify_one();
        }
    }

    /// The file of a segment. While there is no descriptor for it, this waits.
    async fn file(&self, segment: u32) -> io::Result<Rc<DurableFile>> {
        if let Some(file) = self.files.borrow().get(&segment) {
            return Ok(file.clone());
        }
        let path = segment_path(&self.directory, segment);
        // Descriptors come back, but a commit that failed is final.
        let file = Rc::new(ring::patiently(async || DurableFile::open(&path).await).await?);
        self.files.borrow_mut().insert(segment, file.clone());
        Ok(file)
    }

    /// Reads a message back: envelope, states at the time it was written, content.
    pub(crate) async fn read(&self, id: QueueId) -> Result<Stored, ReadError> {
        let message = self.read_head(id).await?;
        let mut content = Vec::with_capacity(message.content.len());
        for extent in &message.content {
            let bytes = self.read_span(extent.span()).await?;
            if !extent.matches(&bytes) {
                let reason = "the content's checksum is wrong".to_owned();
                return Err(ReadError::Damaged { segment: extent.segment, offset: extent.offset, reason });
            }
            content.push(bytes);
        }
        Ok(Stored { envelope: message.envelope, states: message.states, content })
    }

    /// Reads so much of a message's content, without its checksum: for looking, not for sending.
    pub(crate) async fn read_beginning(&self, id: QueueId, len_max: u64) -> Result<Bytes, ReadError> {
        let message = self.read_head(id).await?;
        match message.content.first() {
            Some(extent) => {
                let span = extent.span();
                self.read_span(Span { len: span.len.min(len_max), ..span }).await
            }
            None => Ok(Bytes::new()),
        }
    }

    /// Notes that wait to be written.
    pub(crate) fn unwritten(&self) -> usize {
        self.notes.borrow().len()
    }

    /// Reads the envelope of a message alone.
    pub(crate) async fn read_envelope(&self, id: QueueId) -> Result<Envelope, ReadError> {
        Ok(self.read_head(id).await?.envelope)
    }

    async fn read_head(&self, id: QueueId) -> Result<journal::record::StoredMessage, ReadError> {
        let moving = self.moving.borrow().get(&id).copied();
        if let Some(end) = moving {
            // Its new place is written first.
            self.durable(end).await.map_err(|_| ReadError::Gone)?;
        }
        let located = self.journal.borrow().locate(id);
        let head = located.ok_or(ReadError::Gone)?.head;
        let bytes = self.read_span(head).await?;
        journal::record::read_message(&bytes, head.segment, head.offset).map_err(|error| ReadError::Damaged {
            segment: head.segment,
            offset: head.offset,
            reason: error.to_string(),
        })
    }

    async fn read_span(&self, span: Span) -> Result<Bytes, ReadError> {
        let failed = |error| ReadError::Io { segment: span.segment, error };
        let file = self.file(span.segment).await.map_err(failed)?;
        let length = usize::try_from(span.len).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
        let bytes = file.read_at(span.offset, length).await.map_err(failed)?;
        if bytes.len() < length { Err(failed(io::ErrorKind::UnexpectedEof.into())) } else { Ok(bytes.into()) }
    }

    /// Waits until everything that was appended is durable, as before a stop.
    pub(crate) async fn settle(&self) {
        loop {
            let room = self.room.wait();
            self.work.notify_one();
            let (settled, failed) = {
                let journal = self.journal.borrow();
                (
                    journal.durable_to() >= journal.end() && self.notes.borrow().is_empty(),
                    journal.failure().is_some(),
                )
            };
            if settled || failed {
                return;
            }
            room.await;
        }
    }

    /// Puts back into the journal what lived before it was opened.
    pub(crate) fn restore<T>(&self, put: impl FnOnce(&mut Journal) -> T) -> T {
        put(&mut self.journal.borrow_mut())
    }

    /// All of that is back: segments may be used again.
    pub(crate) fn on_restored(&self) {
        self.work.notify_one();
    }

    /// Looks at the journal itself: for checkpoints and figures.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Journal) -> T) -> T {
        look(&self.journal.borrow())
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.journal.borrow().failure().is_some()
    }
}

/// Gets a segment ready to be written, ahead of need: descriptors may be scarce later.
async fn begin(file: &DurableFile, writing: Writing) -> io::Result<()> {
    match writing {
        // Descriptors come back, but a commit that failed is final.
        Writing::Direct => ring::patiently(async || file.begin().await).await,
        Writing::Cached => Ok(()),
    }
}

async fn make_segment(
    directory: &Path,
    path: &Path,
    (size, writing): (u64, Writing),
    header: &Bytes,
) -> io::Result<DurableFile> {
    let file = DurableFile::create(path, size, writing).await?;
    file.write_slices_at(&[header], 0).await?;
    file.sync().await?;
    ring::sync_directory(directory).await?;
    begin(&file, writing).await?;
    Ok(file)
}

/// The number of the segment in a file of that name.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    name.strip_suffix(".segment")?.parse().ok()
}

/// The file of a segment.
pub fn segment_path(directory: &Path, segment: u32) -> PathBuf {
    directory.join(format!("{segment:08}.segment"))
}

const fn refusal(error: AppendError) -> Refusal {
    match error {
        AppendError::NotReady => Refusal::Busy,
        AppendError::StorageFull => Refusal::StorageFull,
        AppendError::TooLarge => Refusal::MessageTooBig,
        AppendError::Failed | AppendError::UnknownMessage | AppendError::UnknownDraft => {
            Refusal::StorageFailed
        }
    }
}

#[cfg(test)]
mod test {
    use watch::Registry;

    use super::*;
    use crate::{DiskBudget, recover};

    async fn committer(directory: &Path, shard: u16) -> Rc<Committer> {
        let (shard, config) = (JournalShard(shard), config::Config::default());
        let directory = directory.join(shard.0.to_string());
        let limits = recover::journal_limits(&config);
        let journal::Opened { mut journal, mut older } =
            recover::open(shard, &directory, limits, mail::Timestamp::EPOCH).await.unwrap();
        older.begin(&journal::Start::Beginning).unwrap();
        older.finish(&mut journal);
        let metrics = Rc::new(Registry::new().shard(0, &[]));
        let share = DiskBudget::new(u64::MAX).share(&directory, 0).unwrap();
        Committer::new(journal, 0, directory, metrics, share, Writing::Cached)
    }

    fn begin(committer: &Rc<Committer>) {
        ring::spawn(committer.clone().run(|_| ()));
    }

    /// Somebody has it in hand for longer than is waited for, and its task ends meanwhile.
    #[test]
    fn one_that_stays_is_written_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let test = async move || {
            let (active, idle) = (committer(&path, 0).await, committer(&path, 1).await);
            let journals = Journals::new(vec![active.clone(), idle.clone()]);
            [&active, &idle].into_iter().for_each(begin);
            let taken = journals.take_idle(begin).await;
            assert!(taken.is_empty() && journals.all().len() == 2);
            ring::timeout(Duration::from_secs(60), idle.prepare()).await.expect("somebody writes it");
            drop(idle);
            let taken = journals.take_idle(|_| panic!("nobody has it in hand")).await;
            assert_eq!(taken.iter().map(|committer| committer.number().0).collect::<Vec<_>>(), [1]);
            drop(active);
            journals.close().await;
            assert!(journals.all().is_empty());
            assert_eq!(Rc::strong_count(journals.active()), 1, "nobody is at work on it");
        };
        ring::start(ring::Options::new("test"), test).unwrap().join().unwrap();
    }
}
