//! A disk in memory that stops at any operation and forgets what was not synced. For tests and simulation.
//!
//! It keeps to what the journal assumes of a disk: a sector of 512 bytes is written whole or not at all, what was
//! synced stays, and of what was not, any part may be there or not, in any order.

use std::collections::BTreeMap;

use bytes::Bytes;
use mail::{JournalShard, QueueId, Timestamp};

use crate::{
    Entry, Group, Journal, Limits, Opened, Order, Recovered, Recovery, RecoveryError, SegmentFile, Span,
    Start, Step,
    record::{StoredMessage, read_message},
};

/// A directory of segment files.
#[derive(Clone, Debug, Default)]
pub struct VirtualDisk {
    files: BTreeMap<u32, File>,
    operations: u64,
    stop_at: Option<u64>,
    in_blocks: bool,
}

#[derive(Clone, Debug)]
struct File {
    /// What a reader sees.
    now: Vec<u8>,
    /// What survives; nothing when not even the name does.
    synced: Option<Vec<u8>>,
    /// Writes since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
    name: Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Present,
    /// Unlinked, the directory not yet synced.
    Removed,
}

/// The disk stopped: nothing is done any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the virtual disk has stopped")]
pub struct Stopped;

/// What becomes of unsynced writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Only the process dies: all is still to be seen, and still not synced.
    Killed,
    /// Power fails, and by luck all of it had come to the medium.
    Kept,
    /// Power fails, and none of it had.
    Lost,
    /// Power fails: the writes up to some point are there, the one at that point in part.
    Prefix(u64),
    /// Power fails: any sector of any write is there or not.
    Sectors(u64),
}

const SECTOR: usize = 512;
const BLOCK: usize = 4096;

impl VirtualDisk {
    /// A disk that is written past the page cache: in whole blocks, the bytes before a write anew as they were, zeros
    /// behind it.
    pub fn in_blocks() -> Self {
        Self { in_blocks: true, ..Self::default() }
    }

    /// Stops the disk at its `operation`-th operation, which is then in doubt.
    pub fn stop_at(&mut self, operation: u64) {
        self.stop_at = Some(operation);
    }

    /// Makes a file of zeros. One that is there is emptied.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn create(&mut self, number: u32, size: u64) -> Result<(), Stopped> {
        let going = self.operate();
        let synced = self.files.remove(&number).and_then(|file| file.synced);
        let file = File { now: vec![0; size as usize], synced, unsynced: Vec::new(), name: Name::Present };
        self.files.insert(number, file);
        going
    }

    /// Writes slices one behind the other.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn write(&mut self, number: u32, offset: u64, slices: &[Bytes]) -> Result<(), Stopped> {
        let going = self.operate();
        let file = self.files.get_mut(&number).expect("writes go to files that are there");
        let mut bytes = slices.concat();
        let mut at = offset as usize;
        if self.in_blocks && file.now.len().is_multiple_of(BLOCK) {
            let base = at / BLOCK * BLOCK;
            bytes.splice(..0, file.now[base..at].iter().copied());
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
            at = base;
        }
        file.now[at..at + bytes.len()].copy_from_slice(&bytes);
        file.unsynced.push((at, bytes));
        going
    }

    /// Makes a file, its length and its name durable.
    ///
    /// # Errors
    /// [`Stopped`]; then it is not.
    pub fn sync(&mut self, number: u32) -> Result<(), Stopped> {
        self.operate()?;
        let file = self.files.get_mut(&number).expect("files that are there are synced");
        file.synced = Some(file.now.clone());
        file.unsynced.clear();
        Ok(())
    }

    /// Unlinks a file and makes that durable.
    ///
    /// # Errors
    /// [`Stopped`]; then it may come back.
    pub fn remove(&mut self, number: u32) -> Result<(), Stopped> {
        if let Err(stopped) = self.operate() {
            if let Some(file) = self.files.get_mut(&number) {
                file.name = Name::Removed;
            }
            return Err(stopped);
        }
        self.files.remove(&number);
        Ok(())
    }

    /// Makes what was unlinked stay so.
    pub fn sync_directory(&mut self) {
        self.files.retain(|_, file| file.name == Name::Present);
    }

    /// Changes bytes behind everybody's back, as a bad medium does.
    pub fn damage(&mut self, number: u32, offset: u64, bytes: &[u8]) {
        let file = self.files.get_mut(&number).expect("damage is done to files that are there");
        let at = offset as usize;
        file.now[at..at + bytes.len()].copy_from_slice(bytes);
        if let Some(synced) = &mut file.synced {
            synced[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// The process dies, or the power fails; then the disk works again.
    pub fn crash(&mut self, fate: Fate) {
        self.stop_at = None;
        let mut random = Random(match fate {
            Fate::Prefix(seed) | Fate::Sectors(seed) => seed,
            Fate::Killed | Fate::Kept | Fate::Lost => 0,
        });
        self.files.retain(|_, file| file.crash(fate, &mut random));
    }

    /// Operations so far.
    pub const fn operations(&self) -> u64 {
        self.operations
    }

    /// What is in the directory.
    pub fn files(&self) -> Vec<SegmentFile> {
        let there = self.files.iter().filter(|(_, file)| file.name == Name::Present);
        there.map(|(number, file)| SegmentFile { number: *number, len: file.now.len() as u64 }).collect()
    }

    /// Reads bytes, fewer where the file ends.
    pub fn read(&self, number: u32, offset: u64, len: usize) -> &[u8] {
        let bytes = self.files.get(&number).map_or(&[][..], |file| &file.now);
        let from = bytes.len().min(offset as usize);
        &bytes[from..bytes.len().min(from + len)]
    }

    /// Reads the bytes of a span.
    pub fn read_span(&self, span: Span) -> &[u8] {
        self.read(span.segment, span.offset, span.len as usize)
    }

    fn operate(&mut self) -> Result<(), Stopped> {
        self.operations += 1;
        if self.stop_at.is_some_and(|stop| self.operations >= stop) { Err(Stopped) } else { Ok(()) }
    }
}

impl File {
    /// Answers whether the file is still there.
    fn crash(&mut self, fate: Fate, random: &mut Random) -> bool {
        let keep_name = match fate {
            Fate::Killed | Fate::Kept => true,
            Fate::Lost => false,
            Fate::Prefix(_) | Fate::Sectors(_) => random.below(2) == 0,
        };
        if self.name == Name::Removed {
            if keep_name {
                return false;
            }
            self.name = Name::Present;
        }
        if fate == Fate::Killed {
            return true;
        }
        let unsynced = std::mem::take(&mut self.unsynced);
        let mut medium = match self.synced.take() {
            Some(synced) if synced.len() == self.now.len() => synced,
            // A new file: its zeros may have come to the medium up to some point.
            _ if keep_name => vec![0; self.now.len()],
            _ => return false,
        };
        let cut = random.below(unsynced.len() as u64 + 1) as usize;
        for (i, (at, bytes)) in unsynced.into_iter().enumerate() {
            match fate {
                Fate::Killed | Fate::Kept => medium[at..at + bytes.len()].copy_from_slice(&bytes),
                Fate::Lost => {}
                Fate::Prefix(_) => {
                    let whole = at + bytes.len();
                    let torn = at + random.below(bytes.len() as u64 + 1) as usize;
                    let end = match i.cmp(&cut) {
                        std::cmp::Ordering::Less => whole,
                        std::cmp::Ordering::Equal => (torn / SECTOR * SECTOR).max(at),
                        std::cmp::Ordering::Greater => at,
                    };
                    medium[at..end].copy_from_slice(&bytes[..end - at]);
                }
                Fate::Sectors(_) => write_sectors(&mut medium, at, &bytes, random),
            }
        }
        self.now.clone_from(&medium);
        self.synced = Some(medium);
        true
    }
}

fn write_sectors(medium: &mut [u8], at: usize, bytes: &[u8], random: &mut Random) {
    let mut from = at;
    while from < at + bytes.len() {
        let to = ((from / SECTOR + 1) * SECTOR).min(at + bytes.len());
        if random.below(2) == 0 {
            medium[from..to].copy_from_slice(&bytes[from - at..to - at]);
        }
        from = to;
    }
}

/// A small generator of numbers, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Random(
    /// The seed.
    pub u64,
);

impl Random {
    /// The next number below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound.max(1)
    }
}

/// Does what the journal orders with files; gives back the rescues.
///
/// # Errors
/// [`Stopped`].
pub fn obey(journal: &mut Journal, disk: &mut VirtualDisk) -> Result<Vec<Order>, Stopped> {
    let mut rescues = Vec::new();
    loop {
        let mut orders = Vec::new();
        journal.orders(&mut orders);
        if orders.is_empty() {
            return Ok(rescues);
        }
        for order in orders {
            match order {
                Order::Create { segment, size, header } => {
                    disk.create(segment, size)?;
                    disk.write(segment, 0, &[header])?;
                    disk.sync(segment)?;
                    journal.on_prepared(segment);
                }
                Order::Recycle { segment, header } => {
                    disk.write(segment, 0, &[header])?;
                    disk.sync(segment)?;
                    journal.on_prepared(segment);
                }
                Order::Remove { segment } => {
                    disk.remove(segment)?;
                    journal.on_removed(segment);
                }
                rescue @ Order::Rescue { .. } => rescues.push(rescue),
            }
        }
    }
}

/// Does a group's writes.
///
/// # Errors
/// [`Stopped`].
pub fn write_group(group: &Group, disk: &mut VirtualDisk) -> Result<(), Stopped> {
    group.writes.iter().try_for_each(|write| disk.write(write.segment, write.offset, &write.slices))
}

/// Writes and syncs what has gathered.
///
/// # Errors
/// [`Stopped`].
pub fn commit(journal: &mut Journal, disk: &mut VirtualDisk) -> Result<(), Stopped> {
    while let Some(group) = journal.begin_group() {
        write_group(&group, disk)?;
        group.syncs.iter().try_for_each(|segment| disk.sync(*segment))?;
        journal.on_durable(group.id);
    }
    Ok(())
}

/// Recovers a journal shard from what is on the disk.
///
/// # Errors
/// [`RecoveryError`].
pub fn recover(
    disk: &VirtualDisk,
    shard: JournalShard,
    limits: Limits,
    now: Timestamp,
    start: Start,
    entries: Vec<(QueueId, Entry)>,
) -> Result<Recovered, RecoveryError> {
    let Opened { journal, mut older } = open(disk, shard, limits, now)?;
    older.begin(&start)?;
    while let Step::Read(read) = older.step() {
        older.on_read(disk.read(read.segment, read.offset, read.len));
    }
    older.recover(journal, entries)
}

/// Opens the log of a journal shard where it ends.
///
/// # Errors
/// [`RecoveryError`].
pub fn open(
    disk: &VirtualDisk,
    shard: JournalShard,
    limits: Limits,
    now: Timestamp,
) -> Result<Opened, RecoveryError> {
    let mut recovery = Recovery::new(shard, limits, now, disk.files());
    while let Step::Read(read) = recovery.step() {
        recovery.on_read(disk.read(read.segment, read.offset, read.len));
    }
    recovery.finish()
}

/// Reads a live message back, its checksums checked; `None` when it is not live or not whole.
pub fn read_back(journal: &Journal, disk: &VirtualDisk, id: QueueId) -> Option<(StoredMessage, Vec<u8>)> {
    let head = journal.locate(id)?.head;
    let message = read_message(disk.read_span(head), head.segment, head.offset).ok()?;
    let mut content = Vec::new();
    for extent in &message.content {
        let bytes = disk.read_span(extent.span());
        if !extent.matches(bytes) {
            return None;
        }
        content.extend_from_slice(bytes);
    }
    Some((message, content))
}
