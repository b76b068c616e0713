//! Lengths of time and sizes, as operators write them.

use std::time::Duration;

/// The text is not a length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// Nothing there.
    #[error("write a number and a unit: ms, s, m, h or d")]
    Empty,
    /// A number without unit.
    #[error("the unit is missing: ms, s, m, h or d")]
    UnitMissing,
    /// Something else than a unit.
    #[error("the units are ms, s, m, h and d, the larger before the smaller, and no fractions")]
    Unit,
    /// More than we can count.
    #[error("that is too long")]
    TooLong,
}

/// The text is not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Nothing there.
    #[error("write a number and a unit: B, KiB, MiB, GiB or TiB")]
    Empty,
    /// A number without unit.
    #[error("the unit is missing: B, KiB, MiB, GiB or TiB")]
    UnitMissing,
    /// Something else than a unit.
    #[error("the units are B, KiB, MiB, GiB and TiB (1KiB is 1024B), and no fractions")]
    Unit,
    /// More than we can count.
    #[error("that is too large")]
    TooLarge,
}

const SPAN_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads `30s`, `1h30m`, `5d`.
///
/// # Errors
/// [`SpanError`] says what a person should write.
pub fn span_from_text(text: &str) -> Result<Duration, SpanError> {
    if text.is_empty() {
        return Err(SpanError::Empty);
    }
    let mut units = SPAN_UNITS.iter();
    let (mut rest, mut millis) = (text, 0u64);
    while !rest.is_empty() {
        let (number, unit);
        (number, unit, rest) = number_and_unit(rest);
        if unit.is_empty() {
            return Err(SpanError::UnitMissing);
        }
        let digits = !number.is_empty();
        let (_, factor) = units.find(|(name, _)| *name == unit && digits).ok_or(SpanError::Unit)?;
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
        millis = part.and_then(|part| millis.checked_add(part)).ok_or(SpanError::TooLong)?;
    }
    Ok(Duration::from_millis(millis))
}

/// Reads `25MiB`, `16KiB`, `512B`.
///
/// # Errors
/// [`SizeError`] says what a person should write.
pub fn size_from_text(text: &str) -> Result<u64, SizeError> {
    if text.is_empty() {
        return Err(SizeError::Empty);
    }
    let (number, unit, rest) = number_and_unit(text);
    if unit.is_empty() {
        return Err(SizeError::UnitMissing);
    }
    if number.is_empty() || !rest.is_empty() {
        return Err(SizeError::Unit);
    }
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or(SizeError::Unit)?;
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or(SizeError::TooLarge)
}

/// Writes a size with the largest unit that leaves it whole.
pub fn size_text(bytes: u64) -> String {
    let (unit, factor) = SIZE_UNITS
        .into_iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// How a length of time is written that somebody wrote in another way: `5 minutes`, `30sec`.
pub(crate) fn span_meant(text: &str) -> Option<String> {
    const UNITS: [(&str, &[&str]); 5] = [
        ("ms", &["ms", "msec", "msecs", "millisecond", "milliseconds"]),
        ("s", &["s", "sec", "secs", "second", "seconds"]),
        ("m", &["m", "min", "mins", "minute", "minutes"]),
        ("h", &["h", "hr", "hrs", "hour", "hours"]),
        ("d", &["d", "day", "days"]),
    ];
    meant(text, &UNITS).filter(|text| span_from_text(text).is_ok())
}

/// How a size is written that somebody wrote in another way: `25 MB`, `16k`.
pub(crate) fn size_meant(text: &str) -> Option<String> {
    const UNITS: [(&str, &[&str]); 5] = [
        ("B", &["b", "byte", "bytes", "octets"]),
        ("KiB", &["k", "kb", "kib"]),
        ("MiB", &["m", "mb", "mib"]),
        ("GiB", &["g", "gb", "gib"]),
        ("TiB", &["t", "tb", "tib"]),
    ];
    meant(text, &UNITS).filter(|text| size_from_text(text).is_ok())
}

fn meant(text: &str, units: &[(&str, &[&str])]) -> Option<String> {
    let plain: String = text.split_whitespace().collect::<String>().to_ascii_lowercase();
    let (number, unit, rest) = number_and_unit(&plain);
    let (unit, _) = units.iter().find(|(_, names)| names.contains(&unit))?;
    (!number.is_empty() && rest.is_empty()).then(|| format!("{number}{unit}"))
}

/// The digits, the letters behind them, and the rest.
fn number_and_unit(text: &str) -> (&str, &str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit);
    (number, unit, rest)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn spans() {
        let check = |text: &str, expected: Result<u64, SpanError>| {
            assert_eq!(span_from_text(text), expected.map(Duration::from_millis), "{text:?}");
        };
        check("30s", Ok(30_000));
        check("0s", Ok(0));
        check("250ms", Ok(250));
        check("1h30m", Ok(5_400_000));
        check("1d2h3m4s5ms", Ok(93_784_005));
        check("", Err(SpanError::Empty));
        check("30", Err(SpanError::UnitMissing));
        check("30 s", Err(SpanError::Unit));
        check("1.5h", Err(SpanError::Unit));
        check("-1s", Err(SpanError::Unit));
        check("s", Err(SpanError::Unit));
        check("30m1h", Err(SpanError::Unit));
        check("1m1m", Err(SpanError::Unit));
        check("5 minutes", Err(SpanError::Unit));
        check("99999999999999999999s", Err(SpanError::TooLong));
        check("999999999999999999d", Err(SpanError::TooLong));
        check("1é", Err(SpanError::Unit));
    }

    #[test]
    fn what_was_meant() {
        let check = |text: &str, span: Option<&str>, size: Option<&str>| {
            assert_eq!((span_meant(text).as_deref(), size_meant(text).as_deref()), (span, size), "{text:?}");
        };
        check("5 minutes", Some("5m"), None);
        check("30Sec", Some("30s"), None);
        check("25 MiB", None, Some("25MiB"));
        check("25MB", None, Some("25MiB"));
        check("16k", None, Some("16KiB"));
        check("5 m", Some("5m"), Some("5MiB"));
        check("1.5h", None, None);
        check("1h 30m", None, None);
        check("h", None, None);
        check("", None, None);
        check("99999999999999999999 s", None, None);
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Result<u64, SizeError>| {
            assert_eq!(size_from_text(text), expected, "{text:?}");
        };
        check("25MiB", Ok(25 << 20));
        check("16KiB", Ok(16 << 10));
        check("512B", Ok(512));
        check("2TiB", Ok(2 << 40));
        check("", Err(SizeError::Empty));
        check("25", Err(SizeError::UnitMissing));
        check("25MB", Err(SizeError::Unit));
        check("25mib", Err(SizeError::Unit));
        check("1MiB1B", Err(SizeError::Unit));
        check("MiB", Err(SizeError::Unit));
        check("99999999TiB", Err(SizeError::TooLarge));
        for bytes in [0, 1, 1000, 1024, 1536, 25 << 20, 3 << 40] {
            assert_eq!(size_from_text(&size_text(bytes)), Ok(bytes));
        }
    }
}
