//! How much of a key's share of a minute is used up.

use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// One limit of so many a minute, which may come all at once and then come back evenly.
///
/// Kept is when all would have come back: the theoretical arrival time of the generic cell rate algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rate {
    free_at: Duration,
}

/// There is not enough left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exhausted {
    /// Enough will have come back after this time.
    For(Duration),
    /// A whole minute's share is less.
    Forever,
}

impl Rate {
    /// What it will be after `count` were taken of `per_minute`, if they may be.
    pub(crate) fn take(self, now: Duration, count: usize, per_minute: u32) -> Result<Self, Exhausted> {
        let per_minute = u64::from(per_minute.max(1));
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        if count > per_minute {
            return Err(Exhausted::Forever);
        }
        let micros = u128::from(count) * MINUTE.as_micros() / u128::from(per_minute);
        let free_at =
            self.free_at.max(now) + Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        match free_at.checked_sub(now + MINUTE) {
            Some(wait) if !wait.is_zero() => Err(Exhausted::For(wait)),
            Some(_) | None => Ok(Self { free_at }),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_minutes_share_may_come_at_once_and_comes_back() {
        let at = |seconds| Duration::from_secs(1000_u64 + seconds);
        let rate = Rate::default().take(at(0), 60, 60).unwrap();
        assert_eq!(rate.take(at(0), 1, 60), Err(Exhausted::For(Duration::from_secs(1))));
        assert_eq!(rate.take(at(10), 15, 60), Err(Exhausted::For(Duration::from_secs(5))));
        let rate = rate.take(at(10), 10, 60).unwrap();
        assert_eq!(rate.take(at(10), 1, 60), Err(Exhausted::For(Duration::from_secs(1))));
        assert!(rate.take(at(70), 60, 60).is_ok(), "idle time gives back a minute's share");
        assert_eq!(rate.take(at(1_000_000), 61, 60), Err(Exhausted::Forever), "and no more");
        assert_eq!(Rate::default().take(at(0), usize::MAX, u32::MAX), Err(Exhausted::Forever));
    }
}
