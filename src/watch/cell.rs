//! The cells that are counted in: one writer, any number of readers.
//!
//! A handle may move to another thread but not be shared with one (it is not `Sync`), so an addition is
//! a plain load and store: about a nanosecond, with no locked bus cycle and no call through a table.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counts upwards.
#[derive(Debug)]
pub struct Counter(pub(crate) &'static AtomicU64, OneWriter);

/// Goes up and down.
#[derive(Debug)]
pub struct Gauge(pub(crate) &'static AtomicU64, OneWriter);

/// Counts values by size: one cell per bucket, then the sum.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    cells: &'static [AtomicU64],
    one_writer: OneWriter,
}

/// Takes `Sync` away from a handle, which keeps its cell to one writer.
type OneWriter = PhantomData<Cell<()>>;

/// Gives out cells, page by page, for ever.
///
/// A shard's cells lie together and share no cache line with another shard's. They are never given
/// back: a shard lives as long as the process.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    free: &'static [AtomicU64],
}

/// Two cache lines: the prefetcher fetches pairs.
#[repr(align(128))]
struct Page([AtomicU64; PAGE_CELLS]);

const PAGE_CELLS: usize = 512;

impl Slab {
    pub(crate) fn cells(&mut self, number: usize) -> &'static [AtomicU64] {
        assert!(number <= PAGE_CELLS, "a metric needs more cells than a page has");
        if self.free.len() < number {
            self.free = &Box::leak(Box::new(Page([const { AtomicU64::new(0) }; PAGE_CELLS]))).0;
        }
        let (cells, free) = self.free.split_at(number);
        self.free = free;
        cells
    }

    pub(crate) fn counter(&mut self) -> Counter {
        Counter(&self.cells(1)[0], PhantomData)
    }

    pub(crate) fn gauge(&mut self) -> Gauge {
        Gauge(&self.cells(1)[0], PhantomData)
    }

    pub(crate) fn histogram(&mut self, bounds: &'static [u64]) -> Histogram {
        // One bucket more than bounds, for what is above the last; then the sum.
        Histogram { bounds, cells: self.cells(bounds.len() + 2), one_writer: PhantomData }
    }
}

impl Counter {
    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Adds a number.
    pub fn add(&self, number: u64) {
        add(self.0, number);
    }

    /// What has been counted.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Gauge {
    /// One more.
    pub fn up(&self) {
        add(self.0, 1);
    }

    /// One less.
    pub fn down(&self) {
        self.sub(1);
    }

    /// More by a number.
    pub fn add(&self, number: u64) {
        add(self.0, number);
    }

    /// Less by a number; stops at zero.
    pub fn sub(&self, number: u64) {
        self.0.store(self.0.load(Relaxed).saturating_sub(number), Relaxed);
    }

    /// As many as that.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// How it stands.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Histogram {
    /// Counts one value: a number of things or bytes.
    pub fn record(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        add(&self.cells[bucket], 1);
        add(&self.cells[self.bounds.len() + 1], value);
    }

    /// Counts one length of time.
    pub fn record_duration(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn reader(&self) -> HistogramReader {
        HistogramReader { bounds: self.bounds, cells: self.cells }
    }
}

/// The reading end of a [`Histogram`].
#[derive(Debug)]
pub(crate) struct HistogramReader {
    pub(crate) bounds: &'static [u64],
    cells: &'static [AtomicU64],
}

impl HistogramReader {
    /// How many values fell into each bucket; the last one is for those above every bound.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = u64> {
        self.cells[..=self.bounds.len()].iter().map(|cell| cell.load(Relaxed))
    }

    pub(crate) fn sum(&self) -> u64 {
        self.cells[self.bounds.len() + 1].load(Relaxed)
    }
}

fn add(cell: &AtomicU64, number: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(number), Relaxed);
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn values_fall_into_the_first_bucket_that_holds_them() {
        let histogram = Slab::default().histogram(&[10, 20]);
        for value in [0, 10, 11, 20, 21, 1000] {
            histogram.record(value);
        }
        let reader = histogram.reader();
        assert_eq!(reader.buckets().collect::<Vec<_>>(), [2, 2, 2]);
        assert_eq!(reader.sum(), 1062);
    }

    #[test]
    fn handles_have_cells_of_their_own() {
        let mut slab = Slab::default();
        let counters: Vec<_> = (0..2 * PAGE_CELLS).map(|_| slab.counter()).collect();
        for (number, counter) in counters.iter().enumerate() {
            counter.add(number as u64);
        }
        for (number, counter) in counters.iter().enumerate() {
            assert_eq!(counter.value(), number as u64);
        }
    }

    #[test]
    fn a_gauge_stops_at_zero() {
        let gauge = Slab::default().gauge();
        gauge.up();
        gauge.sub(2);
        assert_eq!(gauge.value(), 0);
    }
}
