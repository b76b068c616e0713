//! The two clocks: one that only goes forward, one that knows the date.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Monotonic time since the process first asked. Costs no system call.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Duration {
    // The first call reads the clock before START exists; saturation makes that zero.
    Instant::now().saturating_duration_since(*START)
}

/// Wall clock, in microseconds since 1970. Zero when the host believes to be earlier.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_forward_and_knows_the_century() {
        let first = now();
        assert!(now() >= first);
        let year_2024 = 1_704_067_200_000_000;
        assert!(unix_micros() > year_2024);
    }
}
