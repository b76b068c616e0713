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

    /// Reads a date-time of RFC 3339 §5.6, from 1970 on; a fraction of a second is passed over.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let number = |range: std::ops::Range<usize>| {
            let digits = bytes.get(range)?;
            digits.iter().try_fold(0_u64, |number, digit| {
                digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
            })
        };
        let at = |place: usize, marks: &[u8]| bytes.get(place).is_some_and(|byte| marks.contains(byte));
        if !(at(4, b"-") && at(7, b"-") && at(10, b"Tt") && at(13, b":") && at(16, b":")) {
            return None;
        }
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
        // A leap second is the second after it.
        let valid = year >= 1970 && (1..=days_of(year, month)?).contains(&day);
        if !valid || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let mut zone = 19;
        if at(zone, b".") {
            zone += 1;
            let digits = bytes[zone..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            zone += (digits > 0).then_some(digits)?;
        }
        let secs = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
        let offset = || {
            let (hours, minutes) = (number(zone + 1..zone + 3)?, number(zone + 4..zone + 6)?);
            let whole = bytes.len() == zone + 6 && at(zone + 3, b":") && hours <= 23 && minutes <= 59;
            whole.then_some(hours * 3_600 + minutes * 60)
        };
        match bytes.get(zone)? {
            b'Z' | b'z' if bytes.len() == zone + 1 => Some(Self::from_secs(secs)),
            b'+' => secs.checked_sub(offset()?).map(Self::from_secs),
            b'-' => Some(Self::from_secs(secs + offset()?)),
            _ => None,
        }
    }

    /// The date-time of RFC 3339 §5.6, to the second and in UTC.
    pub fn to_rfc3339(self) -> String {
        // The last second that has four digits for its year.
        let secs = self.secs().min(253_402_300_799);
        let (mut days, time) = (secs / 86_400, secs % 86_400);
        let mut year = 1970;
        while days >= days_of_year(year) {
            days -= days_of_year(year);
            year += 1;
        }
        let mut month = 1;
        while let Some(length) = days_of(year, month).filter(|length| days >= *length) {
            days -= length;
            month += 1;
        }
        let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
        format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
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

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_of_year(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

/// The days of a month, if there is such a month.
const fn days_of(year: u64, month: u64) -> Option<u64> {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 if is_leap(year) => Some(29),
        2 => Some(28),
        _ => None,
    }
}

fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let years: u64 = (1970..year).map(days_of_year).sum();
    let months: u64 = (1..month).filter_map(|month| days_of(year, month)).sum();
    years + months + day - 1
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
    fn dates_of_rfc_3339() {
        for (text, secs) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-02-29T12:30:45Z", Some(1_709_209_845)),
            ("2024-02-29t12:30:45.123456z", Some(1_709_209_845)),
            ("2024-02-29T14:30:45+02:00", Some(1_709_209_845)),
            ("2024-02-28T23:30:45-13:00", Some(1_709_209_845)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799)),
            ("2023-02-29T12:30:45Z", None),
            ("1970-01-01T00:00:00+00:01", None),
            ("1969-12-31T23:59:59Z", None),
            ("2024-13-01T00:00:00Z", None),
            ("2024-01-01T24:00:00Z", None),
            ("2024-01-01T00:00:00", None),
            ("2024-01-01T00:00:00.Z", None),
            ("2024-01-01T00:00:00Z ", None),
            ("2024-01-01T00:00:00+1:00", None),
            ("2024-01-01 00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(Timestamp::from_rfc3339(text), secs.map(Timestamp::from_secs), "{text}");
        }
        for secs in [0, 951_782_399, 951_782_400, 1_709_209_845, 4_107_542_399, 253_402_300_799] {
            let time = Timestamp::from_secs(secs);
            assert_eq!(Timestamp::from_rfc3339(&time.to_rfc3339()), Some(time), "{}", time.to_rfc3339());
        }
    }

    #[test]
    fn arithmetic_stops_at_the_ends() {
        assert_eq!(Timestamp(u64::MAX).saturating_add(Duration::MAX), Timestamp(u64::MAX));
        assert_eq!(Timestamp(5).saturating_since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp::from_secs(2).secs(), 2);
    }
}
