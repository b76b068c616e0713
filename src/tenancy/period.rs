//! Hours, days and months of the calendar, in UTC.

use std::fmt;

use mail::Timestamp;
use serde::{Deserialize, Serialize};

/// A part of the calendar that something is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next, whichever length it has.
    Month,
}

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

impl Period {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Month];

    /// As it is written everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// Which one a time is in: the number grows by one at each border.
    pub fn number(self, now: Timestamp) -> u64 {
        match self {
            Self::Hour => now.secs() / HOUR,
            Self::Day => now.secs() / DAY,
            Self::Month => {
                let (year, month) = month_of(now.secs() / DAY);
                year * 12 + month - 1
            }
        }
    }

    /// When the one that a time is in ends.
    pub fn end(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Hour => Timestamp::from_secs((self.number(now) + 1) * HOUR),
            Self::Day => Timestamp::from_secs((self.number(now) + 1) * DAY),
            Self::Month => {
                let mut day = now.secs() / DAY;
                let month = month_of(day);
                while month_of(day) == month {
                    day += 1;
                }
                Timestamp::from_secs(day * DAY)
            }
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Year and month of a day since 1970-01-01, by counting in years that begin in March, so that the leap day is the last
/// of one.
const fn month_of(day: u64) -> (u64, u64) {
    // Days since 0000-03-01; 400 years have 146,097.
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + if month <= 2 { 1 } else { 0 }, month)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn borders_are_those_of_the_calendar() {
        let time = |text: &str| Timestamp::from_rfc3339(text).unwrap();
        for (now, hour, day, month) in [
            ("1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z", "1970-01-02T00:00:00Z", "1970-02-01T00:00:00Z"),
            ("2024-02-28T23:59:59Z", "2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
            ("2025-02-28T23:00:00Z", "2025-03-01T00:00:00Z", "2025-03-01T00:00:00Z", "2025-03-01T00:00:00Z"),
            ("2025-12-31T12:34:56Z", "2025-12-31T13:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2100-02-28T00:00:00Z", "2100-02-28T01:00:00Z", "2100-03-01T00:00:00Z", "2100-03-01T00:00:00Z"),
        ] {
            let now = time(now);
            let ends: Vec<_> = Period::ALL.iter().map(|period| period.end(now).to_rfc3339()).collect();
            assert_eq!(ends, [hour, day, month], "{}", now.to_rfc3339());
            for period in Period::ALL {
                let end = period.end(now);
                assert_eq!(period.number(end), period.number(now) + 1);
                assert_eq!(period.number(Timestamp(end.0 - 1)), period.number(now));
            }
        }
    }

    #[test]
    fn each_day_of_a_century_is_in_its_month() {
        for day in 0..40_000 {
            let now = Timestamp::from_secs(day * DAY);
            let text = now.to_rfc3339();
            let (year, month) = (text[..4].parse::<u64>().unwrap(), text[5..7].parse::<u64>().unwrap());
            assert_eq!(month_of(day), (year, month), "{text}");
        }
    }
}
