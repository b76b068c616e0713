//! Dates as header fields have them (RFC 5322 §3.3), in UTC.

use jiff::tz::Offset;
use mail::Timestamp;

/// `Thu, 20 Nov 2025 09:05:00 +0000`: always 31 octets.
pub type DateText = [u8; 31];

/// The text of the second last asked for, kept because many fields are written in each.
#[derive(Clone, Copy, Debug)]
pub struct DateCache {
    secs: u64,
    text: DateText,
}

const DAYS: [&[u8; 3]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
// The end of jiff's time, 9999-12-30 22:00:00: a year has four digits here.
const SECS_MAX: u64 = 253_402_207_200;

/// Writes a date; what is later than the year 9999 as a day at its end.
pub fn date_text(at: Timestamp) -> DateText {
    let secs = at.secs().min(SECS_MAX);
    let timestamp = jiff::Timestamp::from_second(secs.cast_signed()).expect("secs was bounded");
    let date = Offset::UTC.to_datetime(timestamp);
    let mut text = *b"Ddd, dd Mmm yyyy hh:mm:ss +0000";
    text[..3].copy_from_slice(DAYS[usize::from(date.weekday().to_monday_zero_offset().cast_unsigned())]);
    text[8..11].copy_from_slice(MONTHS[usize::from(date.month().cast_unsigned()) - 1]);
    let year = date.year().cast_unsigned();
    for (place, number) in [
        (5, u16::from(date.day().cast_unsigned())),
        (12, year / 100),
        (14, year % 100),
        (17, u16::from(date.hour().cast_unsigned())),
        (20, u16::from(date.minute().cast_unsigned())),
        (23, u16::from(date.second().cast_unsigned())),
    ] {
        text[place] = b'0' + (number / 10) as u8;
        text[place + 1] = b'0' + (number % 10) as u8;
    }
    text
}

impl Default for DateCache {
    fn default() -> Self {
        Self { secs: 0, text: date_text(Timestamp::EPOCH) }
    }
}

impl DateCache {
    /// The text for a time, written anew only when the second has changed.
    pub fn text(&mut self, at: Timestamp) -> &DateText {
        if at.secs() != self.secs {
            *self = Self { secs: at.secs(), text: date_text(at) };
        }
        &self.text
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn check(secs: u64, expected: &str) {
        let mut cache = DateCache::default();
        assert_eq!(std::str::from_utf8(&date_text(Timestamp::from_secs(secs))), Ok(expected));
        assert_eq!(cache.text(Timestamp::from_secs(secs)), expected.as_bytes());
        assert_eq!(cache.text(Timestamp(secs.saturating_mul(1_000_000) + 999_999)), expected.as_bytes());
    }

    #[test]
    fn dates() {
        check(0, "Thu, 01 Jan 1970 00:00:00 +0000");
        check(951_827_696, "Tue, 29 Feb 2000 12:34:56 +0000");
        check(1_763_629_500, "Thu, 20 Nov 2025 09:05:00 +0000");
        check(SECS_MAX, "Thu, 30 Dec 9999 22:00:00 +0000");
        let end = date_text(Timestamp(u64::MAX));
        assert_eq!(end, date_text(Timestamp::from_secs(SECS_MAX)));
    }
}
