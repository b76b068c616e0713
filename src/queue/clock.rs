//! Ticks: the queue's own time, in tenths of a second, which never steps back.
//!
//! Wall clocks do. When one has stepped back by more than a second, the difference is added to
//! every time from then on, so that waits keep their length; by less, time stands still for a moment.

use std::time::Duration;

use mail::Timestamp;

/// Turns wall-clock time into ticks since the queue was made, and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: u64,
    skew: u64,
    last: u64,
}

/// Microseconds of a tick: 2^32 of them are thirteen years.
const TICK: u64 = 100_000;
const STEP_MIN: u64 = 1_000_000;
/// The last tick.
pub(crate) const NEVER: u32 = u32::MAX;

impl Clock {
    pub(crate) const fn new(now: Timestamp) -> Self {
        Self { base: now.0, skew: 0, last: now.0 }
    }

    /// The tick that it is.
    pub(crate) fn now(&mut self, now: Timestamp) -> u32 {
        let time = now.0.saturating_add(self.skew);
        if time.saturating_add(STEP_MIN) < self.last {
            self.skew += self.last - time;
        } else {
            self.last = self.last.max(time);
        }
        self.tick()
    }

    /// The tick that it was when last asked.
    pub(crate) const fn tick(&self) -> u32 {
        ticks((self.last - self.base) / TICK)
    }

    /// The first tick that is not before a time.
    pub(crate) const fn at(&self, time: Timestamp) -> u32 {
        let since = time.0.saturating_add(self.skew).saturating_sub(self.base);
        ticks(since.div_ceil(TICK))
    }

    /// A tick as wall-clock time.
    pub(crate) const fn time(&self, tick: u32) -> Timestamp {
        let time = self.base.saturating_add(tick as u64 * TICK);
        Timestamp(time.saturating_sub(self.skew))
    }
}

/// The first tick that is not before `wait` has passed.
pub(crate) fn after(now: u32, wait: Duration) -> u32 {
    let wait = wait.as_micros().div_ceil(u128::from(TICK));
    now.saturating_add(u32::try_from(wait).unwrap_or(NEVER))
}

const fn ticks(ticks: u64) -> u32 {
    if ticks < NEVER as u64 { ticks as u32 } else { NEVER }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn ticks_and_back() {
        let mut clock = Clock::new(Timestamp(5_000_000));
        assert_eq!(clock.now(Timestamp(5_000_000)), 0);
        assert_eq!(clock.now(Timestamp(5_999_999)), 9);
        assert_eq!(clock.at(Timestamp(5_900_001)), 10);
        assert_eq!(clock.at(Timestamp(1)), 0);
        assert_eq!(clock.time(10), Timestamp(6_000_000));
        assert_eq!(clock.at(Timestamp(u64::MAX)), NEVER);
        assert_eq!(after(7, Duration::MAX), NEVER);
        assert_eq!(after(7, Duration::from_millis(101)), 9);
    }

    #[test]
    fn a_step_back_changes_no_wait() {
        let mut clock = Clock::new(Timestamp::EPOCH);
        let hour = Timestamp::from_secs(3600);
        assert_eq!(clock.now(hour), 36_000);
        let due = after(36_000, Duration::from_secs(60));
        assert_eq!(clock.now(Timestamp::from_secs(1800)), 36_000);
        assert_eq!(clock.now(Timestamp::from_secs(1859)), due - 10);
        assert_eq!(clock.now(Timestamp::from_secs(1860)), due);
        assert_eq!(clock.time(due), Timestamp::from_secs(1860));
        // By less than a second: it stands still.
        assert_eq!(clock.now(Timestamp(1_859_500_000)), due);
        assert_eq!(clock.time(due), Timestamp::from_secs(1860));
    }
}
