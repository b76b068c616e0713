//! What of the machine we use: cores, io_uring, memory, disk.

use std::time::Duration;

use crate::{
    notation::{CoresOrAll, List, Size, Time, Whole, YesNo},
    schema::section,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// How many cores take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreCount {
    /// As many as the process may use, less [`Cores::spare`].
    All,
    /// So many.
    Count(u16),
}

section! {
    /// One shard runs on each core: it owns its sessions, its part of the queue and its part of the journal.
    pub struct Cores {
        /// How many shards: a number, or "all" the CPUs the process may use.
        count: CoreCount [CoresOrAll; Restart] = CoreCount::All;
        /// Of "all", so many are left to other work: the pool, a content filter, interrupts.
        spare: u16 [Whole<0, 1024>; Restart] = 0;
        /// Bind each shard to one CPU. Turn it off where somebody else places threads.
        pin: bool [YesNo; Restart] = true;
        /// The CPUs to bind to, by number, in the order of the shards. Empty: those the process may use.
        cpus: Vec<u16> [List<Whole<0, 4095>>; Restart] = Vec::new();
        /// Give a new connection to the core that has the fewest, if that is not the one it has come to. The kernel spreads
        /// connections without looking who has how many: of a few, some cores get most. Where many come, they stay.
        balance: bool [YesNo] = true;
    }
}

section! {
    /// io_uring, one ring for each core.
    pub struct Ring {
        /// Entries of the submission queue; a power of two. More lets bursts go in with fewer system calls.
        depth: u32 [Whole<32, 32768>; Restart] = 1024;
        /// Memory registered with the kernel for direct I/O. It counts against the memlock limit.
        io_memory: u64 [Size<{ 64 * KIB }, { GIB }>; Restart] = MIB;
        /// How long an idle core looks for work before it sleeps. Buys latency with CPU time.
        spin: Duration [Time<0, 10_000>; Restart] = Duration::ZERO;
    }
}

section! {
    /// Memory for what comes in and goes out. An idle connection holds none of it.
    pub struct Buffers {
        /// A buffer for commands and replies.
        small: u64 [Size<{ 4 * KIB }, { 64 * KIB }>; Restart] = 8 * KIB;
        /// A buffer for mail data.
        large: u64 [Size<{ 16 * KIB }, { 4 * MIB }>; Restart] = 64 * KIB;
        /// All buffers of one core together. Over it, the core stops reading and the network waits.
        budget: u64 [Size<{ 4 * MIB }, { 64 * GIB }>; Restart] = 128 * MIB;
        /// Of these, so much is kept for the next connection when it is not used.
        free: u64 [Size<0, { 64 * GIB }>; Restart] = 8 * MIB;
        /// How much may wait to be sent on one connection before we stop making more.
        send: u64 [Size<{ 16 * KIB }, { 16 * MIB }>] = 256 * KIB;
    }
}

section! {
    /// Files and sockets. How many the process may have open is `LimitNOFILE` in the systemd unit.
    pub struct Descriptors {
        /// So many are kept from those who come to us: for segments, next hops and whoever asks for metrics.
        /// When no others are left, connections wait in the accept queue. At most half of what is free at the start.
        reserve: u32 [Whole<0, 1_000_000>; Restart] = 512;
    }
}

section! {
    /// The segments: all that must outlive a crash is written here before anybody is told of it.
    pub struct Journal {
        /// Journal shards; chosen when the data directory is made and kept for ever.
        /// Cores take them over in equal parts: at least as many as the cores this host may ever have, and twice as many for
        /// an upgrade in which no client waits.
        shards: u16 [Whole<1, 4096>; Restart] = 16;
        /// Size of a segment file. Segments are filled with zeros once and used again and again.
        segment_size: u64 [Size<{ MIB }, { 4 * GIB }>; Restart] = 64 * MIB;
        /// At most so many segments in one journal shard, however much room there is; each is an open file.
        /// Then new mail for its core is answered with 452.
        segments_max: u32 [Whole<8, 1_048_576>; Restart] = 16_384;
        /// Disk space for the segments of all journal shards together, to the byte; then new mail is answered with 452.
        /// A core may use what others leave, but for 8 segments that are kept for each. The index comes on top of it.
        disk_max: u64 [Size<{ 64 * MIB }, { 1024 * TIB }>] = TIB;
        /// Kept free in each journal shard for what happens to mail we already have.
        reserve: u64 [Size<{ MIB }, { 4 * GIB }>; Restart] = 16 * MIB;
        /// Segments made ready before they are needed, in each journal shard that takes mail in.
        ready: u32 [Whole<1, 64>; Restart] = 2;
        /// Mail larger than this is written in pieces as it comes in instead of waiting in memory.
        spill: u64 [Size<{ 64 * KIB }, { GIB }>] = MIB;
        /// Write past the page cache where the file system can. It takes half of the time to make mail durable, and leaves
        /// the page cache to those who read; only on a disk that is slow to write alone may `false` be quicker.
        direct: bool [YesNo; Restart] = true;
        /// When less than so many percent of a segment are still needed, they are moved out of it.
        rescue_share: u8 [Whole<0, 90>; Restart] = 25;
    }
}

section! {
    /// The index over the journal. It is derived from it and can be made again.
    pub struct Index {
        /// Cache for each journal shard.
        cache: u64 [Size<{ MIB }, { 64 * GIB }>; Restart] = 16 * MIB;
        /// How often the state is saved, so that a start has less to read again.
        checkpoint_interval: Duration [Time<1_000, 86_400_000>] = Duration::from_secs(60);
    }
}

impl Journal {
    /// Segments that a core cannot do without: a tail for new mail and one for what outlives it, as many to take their
    /// place, and what a full disk must not take away.
    pub const SEGMENTS_MIN: u32 = 8;

    /// The disk space that so many shards need.
    pub fn disk_min(&self, shards: usize) -> u64 {
        let each = self.segment_size.saturating_mul(Self::SEGMENTS_MIN.into());
        each.saturating_mul(shards as u64)
    }
}

impl Cores {
    /// How many shards there are to be when the process may use so many CPUs.
    pub fn shards(&self, cpus_usable: usize) -> usize {
        match self.count {
            CoreCount::All => cpus_usable.saturating_sub(usize::from(self.spare)).max(1),
            CoreCount::Count(number) => usize::from(number),
        }
    }
}
