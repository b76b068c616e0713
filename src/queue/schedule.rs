//! When a deferred recipient is tried again, and when it is given up: arithmetic without state.

use std::time::Duration;

use mail::QueueId;

use crate::{Kind, Wait};

/// The retry schedule of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How long to wait after the first attempt, the second, and so on; then each wait is twice
    /// the one before it.
    pub intervals: Vec<Duration>,
    /// The longest wait between two attempts.
    pub retry_max: Duration,
    /// Each wait is made longer or shorter by up to so many per cent, at most 50, so that what
    /// was deferred together does not come back together.
    pub jitter_percent: u8,
    /// How long a message is tried (RFC 5321 §4.5.4.1: "at least 4-5 days").
    pub give_up: Duration,
    /// How long a message with the null reverse-path is tried.
    pub notification_give_up: Duration,
    /// When the sender is told of a delay; `None` for never.
    pub warn_after: Option<Duration>,
    /// What was held, or lay still while the server was down, is tried for at least so long
    /// before it is returned.
    pub grace: Duration,
    /// How long a destination that could not be reached is left alone, the first time; then
    /// each time twice as long.
    pub destination_retry_min: Duration,
    /// The longest time a destination is left alone.
    pub destination_retry_max: Duration,
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

impl Default for Schedule {
    // RFC 5321 §4.5.4.1: two attempts in the first hour, then "one every two or three hours".
    // Looser than its 30 minutes: greylisting lets a message through after five.
    fn default() -> Self {
        Self {
            intervals: vec![MINUTE * 5, MINUTE * 15, MINUTE * 30, HOUR],
            retry_max: HOUR * 3,
            jitter_percent: 10,
            give_up: HOUR * 24 * 5,
            notification_give_up: HOUR * 24,
            warn_after: Some(HOUR * 4),
            grace: HOUR,
            destination_retry_min: MINUTE,
            destination_retry_max: MINUTE * 30,
        }
    }
}

impl Schedule {
    /// How long to wait when `attempts` attempts have ended.
    ///
    /// The jitter is a hash of its inputs, so that a simulated life can be lived twice.
    pub fn wait(&self, attempts: u16, id: QueueId, seed: u64) -> Duration {
        let wait = self.plain_wait(attempts);
        let hash = mix(seed ^ mix(id.to_bits() ^ u64::from(attempts) << 52));
        self.spread(wait, hash).min(self.retry_max)
    }

    /// How long to wait when so many attempts have ended, and this is said of the last of them.
    pub(crate) fn wait_of(&self, wait: Wait, attempts: u16, id: QueueId, seed: u64) -> Duration {
        let hash = mix(seed ^ mix(id.to_bits() ^ u64::from(attempts) << 52));
        match wait {
            Wait::Scheduled => self.wait(attempts, id, seed),
            Wait::About(wait) => self.spread(wait, hash),
            Wait::AtLeast(wait) => {
                // The whole of the jitter's width, on one side.
                let width = self.spread(wait, u64::MAX).saturating_sub(wait) * 2;
                let micros = u64::try_from(width.as_micros()).unwrap_or(u64::MAX);
                let point = ((u128::from(micros) + 1) * u128::from(hash)) >> 64;
                wait.saturating_add(Duration::from_micros(point as u64))
            }
        }
    }

    /// How long to leave a destination alone after so many failures in a row.
    pub fn destination_wait(&self, failures: u16, destination: u32, seed: u64) -> Duration {
        let doublings = u32::from(failures.saturating_sub(1)).min(30);
        let wait = self.destination_retry_min.saturating_mul(1 << doublings).min(self.destination_retry_max);
        let hash = mix(seed ^ mix(u64::from(destination) << 16 | u64::from(failures)));
        self.spread(wait, hash).min(self.destination_retry_max)
    }

    /// How long a message of this kind is tried.
    pub const fn lifetime(&self, kind: Kind) -> Duration {
        match kind {
            Kind::Message => self.give_up,
            Kind::Notification => self.notification_give_up,
        }
    }

    fn plain_wait(&self, attempts: u16) -> Duration {
        let place = usize::from(attempts.saturating_sub(1));
        let wait = match (self.intervals.get(place), self.intervals.last()) {
            (Some(interval), _) => *interval,
            (None, Some(last)) => {
                let doublings = (place + 1 - self.intervals.len()).min(30);
                last.saturating_mul(1 << doublings)
            }
            (None, None) => self.retry_max,
        };
        wait.min(self.retry_max)
    }

    fn spread(&self, wait: Duration, hash: u64) -> Duration {
        let percent = u64::from(self.jitter_percent.min(50));
        let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let width = (u128::from(micros) * u128::from(percent) / 100) as u64;
        // A point in [0, 2 × width], moved down by width.
        let point = (((u128::from(width) * 2 + 1) * u128::from(hash)) >> 64) as u64;
        Duration::from_micros(micros - width + point)
    }
}

/// Spreads the bits of a number over all 64 (the finaliser of SplitMix64).
pub(crate) const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod test {
    use mail::JournalShard;

    use super::*;

    #[test]
    fn listed_intervals_then_doubling_then_the_longest() {
        let schedule = Schedule { jitter_percent: 0, ..Schedule::default() };
        let id = QueueId::new(JournalShard(0), 1);
        for (attempts, minutes) in [(1, 5), (2, 15), (3, 30), (4, 60), (5, 120), (6, 180), (65_535, 180)] {
            assert_eq!(schedule.wait(attempts, id, 7), MINUTE * minutes, "{attempts}");
        }
        let bare = Schedule { intervals: Vec::new(), ..schedule };
        assert_eq!(bare.wait(1, id, 7), bare.retry_max);
    }

    #[test]
    fn jitter_stays_within_its_width_and_is_reproducible() {
        let schedule = Schedule { jitter_percent: 20, ..Schedule::default() };
        let waits: Vec<_> = (0..1000)
            .map(|number| schedule.wait(1, QueueId::new(JournalShard(0), number), 7).as_secs())
            .collect();
        assert!(waits.iter().all(|secs| (240..=360).contains(secs)), "{waits:?}");
        assert!(waits.iter().any(|secs| *secs < 250) && waits.iter().any(|secs| *secs > 350));
        let id = QueueId::new(JournalShard(0), 3);
        assert_eq!(schedule.wait(1, id, 7), schedule.wait(1, id, 7));
        assert_ne!(schedule.wait(1, id, 7), schedule.wait(1, id, 8));
    }

    #[test]
    fn a_wait_that_is_counted_is_never_shorter() {
        let schedule = Schedule { jitter_percent: 10, ..Schedule::default() };
        let wait = |kind, number| schedule.wait_of(kind, 1, QueueId::new(JournalShard(0), number), 7);
        let waits: Vec<_> =
            (0..1000).map(|number| wait(Wait::AtLeast(MINUTE * 5), number).as_secs()).collect();
        assert!(waits.iter().all(|secs| (300..=360).contains(secs)), "{waits:?}");
        assert!(waits.iter().any(|secs| *secs < 310) && waits.iter().any(|secs| *secs > 350));
        let waits: Vec<_> = (0..1000).map(|number| wait(Wait::About(MINUTE * 5), number).as_secs()).collect();
        assert!(waits.iter().all(|secs| (270..=330).contains(secs)), "{waits:?}");
        let id = QueueId::new(JournalShard(0), 3);
        assert_eq!(schedule.wait_of(Wait::Scheduled, 2, id, 7), schedule.wait(2, id, 7));
    }

    #[test]
    fn a_dead_destination_is_left_alone_for_longer_and_longer() {
        let schedule = Schedule { jitter_percent: 0, ..Schedule::default() };
        for (failures, minutes) in [(1, 1), (2, 2), (3, 4), (6, 30), (u16::MAX, 30)] {
            assert_eq!(schedule.destination_wait(failures, 3, 7), MINUTE * minutes, "{failures}");
        }
    }
}
