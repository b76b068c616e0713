//! Wall-clock time as a value: nobody here reads a clock.

use std::{fmt, time::Duration};

/// A point in time: microseconds since 1970-01-01 00:00 UTC.
///
/// It lives in records and is compared across restarts, so it is wall-clock time; whoever needs
/// time that never steps back keeps a [`Duration`] since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

/// A length of time as operators write and read it: `30s`, `5m`, `1h30m`, `5d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Timestamp {
    /// 1970-01-01 00:00 UTC.
    pub const EPOCH: Self = Self(0);

    /// That many seconds after the epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Whole seconds since the epoch.
    pub const fn secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Later by a duration; stops at the end of time.
    pub fn saturating_add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// The time from `earlier` to this; zero when `earlier` is later (clocks step back).
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rest, millis) = (self.0.as_secs(), self.0.subsec_millis());
        if rest == 0 {
            return if millis == 0 { f.write_str("0s") } else { write!(f, "{millis}ms") };
        }
        for (unit, secs) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
            if rest >= secs {
                write!(f, "{}{unit}", rest / secs)?;
                rest %= secs;
            }
        }
        if millis > 0 { write!(f, "{millis}ms") } else { Ok(()) }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them() {
        for (millis, text) in
            [(0, "0s"), (250, "250ms"), (1500, "1s500ms"), (5_400_000, "1h30m"), (432_000_000, "5d")]
        {
            assert_eq!(Span(Duration::from_millis(millis)).to_string(), text);
        }
    }

    #[test]
    fn arithmetic_stops_at_the_ends() {
        assert_eq!(Timestamp(u64::MAX).saturating_add(Duration::MAX), Timestamp(u64::MAX));
        assert_eq!(Timestamp(5).saturating_since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp::from_secs(2).secs(), 2);
    }
}
