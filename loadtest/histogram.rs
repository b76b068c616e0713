//! Durations, counted so that a quantile is off by no more than three per cent.

use std::time::Duration;

/// Bits that each power of two is divided by.
const FINE: u32 = 5;
const BUCKETS: usize = (64 - FINE as usize + 1) << FINE;

/// A histogram of durations, in microseconds.
#[derive(Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice(), total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// Counts all of the other, and empties it.
    pub fn absorb(&mut self, other: &mut Self) {
        if other.total == 0 {
            return;
        }
        for (ours, theirs) in self.counts.iter_mut().zip(&mut *other.counts) {
            *ours += std::mem::take(theirs);
        }
        self.total += std::mem::take(&mut other.total);
        self.max = self.max.max(std::mem::take(&mut other.max));
    }

    /// The duration that this share of all does not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(top(index).min(self.max));
            }
        }
        Duration::ZERO
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max)
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.total
    }
}

fn bucket(micros: u64) -> usize {
    let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(FINE + 1);
    ((shift as usize) << FINE) + (micros >> shift) as usize
}

/// The largest value of a bucket.
fn top(index: usize) -> u64 {
    let shift = (index >> FINE).saturating_sub(1);
    let base = (index - (shift << FINE)) as u64;
    ((u128::from(base + 1) << shift) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_narrow() {
        for micros in (0..5000).chain((12..64).map(|shift| 1 << shift)).chain([u64::MAX]) {
            let index = bucket(micros);
            assert!(index < BUCKETS && top(index) >= micros, "{micros}");
            assert!(
                (top(index) - micros) as f64 <= micros as f64 / 32.0,
                "{micros} is rounded to {}",
                top(index)
            );
        }
    }

    #[test]
    fn quantiles() {
        let mut all = Histogram::default();
        let mut part = Histogram::default();
        for millis in 1..=100 {
            part.add(Duration::from_millis(millis));
        }
        all.absorb(&mut part);
        assert_eq!((all.total(), part.total()), (100, 0));
        assert_eq!(all.max(), Duration::from_millis(100));
        for (share, millis) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = all.quantile(share).as_secs_f64() * 1000.0;
            assert!(found >= millis && found <= millis * 1.04, "{share}: {found}");
        }
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
