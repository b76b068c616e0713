//! One line of the log, as text or JSON, written straight into the buffer it leaves in.
//!
//! Much of a line was chosen by a peer. Whatever stands in a value, it cannot end the line, close its
//! quotes, move a terminal's cursor or turn the direction of the text.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::log::{Format, Level};

/// A line being written.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
}

/// What can stand behind the name of a field.
pub(crate) trait Value {
    fn put(&self, name: &str, line: &mut Line<'_>);
}

/// The text of the current second; the rest of a timestamp is six digits.
#[derive(Debug, Default)]
pub(crate) struct StampCache {
    second: u64,
    text: [u8; 19],
}

impl<'a> Line<'a> {
    pub(crate) fn begin(
        out: &'a mut Vec<u8>,
        (format, stamps): (Format, &mut StampCache),
        at: u64,
        (level, room, event): (Level, &str, &str),
    ) -> Self {
        let stamp = stamps.stamp(at);
        let mut line = Self { out, format };
        match format {
            Format::Text => {
                line.out.extend_from_slice(&stamp);
                line.push(" ").push(level.as_str()).push(" ").push(room).push(" ").push(event);
            }
            Format::Json => {
                line.push("{\"time\":\"").out.extend_from_slice(&stamp);
                line.push("\",\"level\":\"").push(level.as_str());
                line.push("\",\"room\":\"").push(room).push("\",\"event\":\"").push(event).push("\"");
            }
        }
        line
    }

    pub(crate) fn field(&mut self, name: &str, value: &impl Value) -> &mut Self {
        value.put(name, self);
        self
    }

    pub(crate) fn end(self) {
        self.out.extend_from_slice(match self.format {
            Format::Text => b"\n",
            Format::Json => b"}\n",
        });
    }

    fn push(&mut self, text: &str) -> &mut Self {
        self.out.extend_from_slice(text.as_bytes());
        self
    }

    fn name(&mut self, name: &str) {
        match self.format {
            Format::Text => self.push(" ").push(name).push("="),
            Format::Json => self.push(",\"").push(name).push("\":"),
        };
    }

    fn digits(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[start..]);
    }

    fn text(&mut self, text: &str) {
        let (text, cut) = match text.get(..text.floor_char_boundary(VALUE_MAX)) {
            Some(head) if head.len() < text.len() => (head, "..."),
            _ => (text, ""),
        };
        if self.format == Format::Text && !text.is_empty() && text.bytes().all(is_bare) {
            self.push(text).push(cut);
            return;
        }
        self.push("\"");
        if text.bytes().all(|byte| is_bare(byte) || byte == b' ' || byte == b'=') {
            self.push(text);
        } else {
            text.chars().for_each(|c| self.escaped(c));
        }
        self.push(cut).push("\"");
    }

    fn escaped(&mut self, c: char) {
        match c {
            '"' => self.push("\\\""),
            '\\' => self.push("\\\\"),
            '\n' => self.push("\\n"),
            '\r' => self.push("\\r"),
            '\t' => self.push("\\t"),
            c if is_dangerous(c) => {
                // JSON has no longer form than four digits, and all of these fit.
                let _ = write!(Adapter(self), "\\u{:04x}", c as u32);
                self
            }
            c => self.push(c.encode_utf8(&mut [0; 4])),
        };
    }
}

/// A value longer than this is cut: a line has a bound like everything else.
const VALUE_MAX: usize = 1000;

/// Stands without quotes in a text line and without escape in JSON.
const fn is_bare(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'<' | b'>'..=b'[' | b']'..=b'~')
}

/// Control characters, line separators, and those that turn the direction of the text around.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

impl Value for u64 {
    fn put(&self, name: &str, line: &mut Line<'_>) {
        line.name(name);
        line.digits(*self);
    }
}

macro_rules! numbers {
    ($($type:ty)*) => {
        $(impl Value for $type {
            fn put(&self, name: &str, line: &mut Line<'_>) {
                u64::from(*self).put(name, line);
            }
        })*
    };
}

numbers!(u16 u32);

impl Value for usize {
    fn put(&self, name: &str, line: &mut Line<'_>) {
        (*self as u64).put(name, line);
    }
}

impl Value for &str {
    fn put(&self, name: &str, line: &mut Line<'_>) {
        line.name(name);
        line.text(self);
    }
}

/// Ids, statuses and the like: words that need no quotes. What does need them is replaced.
impl Value for &dyn fmt::Display {
    fn put(&self, name: &str, line: &mut Line<'_>) {
        line.name(name);
        let quotes = line.format == Format::Json;
        line.push(if quotes { "\"" } else { "" });
        let _ = write!(Adapter(line), "{self}");
        line.push(if quotes { "\"" } else { "" });
    }
}

impl Value for IpAddr {
    fn put(&self, name: &str, line: &mut Line<'_>) {
        (self as &dyn fmt::Display).put(name, line);
    }
}

impl Value for SocketAddr {
    fn put(&self, name: &str, line: &mut Line<'_>) {
        let SocketAddr::V4(v4) = self else {
            return (self as &dyn fmt::Display).put(name, line);
        };
        // The common case without the formatting machinery.
        line.name(name);
        let quotes = line.format == Format::Json;
        line.push(if quotes { "\"" } else { "" });
        let [a, b, c, d] = v4.ip().octets();
        for (octet, end) in [(a, "."), (b, "."), (c, "."), (d, ":")] {
            line.digits(octet.into());
            line.push(end);
        }
        line.digits(v4.port().into());
        line.push(if quotes { "\"" } else { "" });
    }
}

/// Seconds, to the microsecond.
impl Value for Duration {
    fn put(&self, name: &str, line: &mut Line<'_>) {
        line.name(name);
        line.digits(self.as_secs());
        let micros = self.subsec_micros();
        if micros > 0 {
            line.out.push(b'.');
            line.out.extend_from_slice(&six_digits(micros));
        }
    }
}

/// What is not there has no field.
impl<T: Value> Value for Option<T> {
    fn put(&self, name: &str, line: &mut Line<'_>) {
        if let Some(value) = self {
            value.put(name, line);
        }
    }
}

/// Takes formatted text of ours, with `_` in the place of what would need quotes.
struct Adapter<'l, 'a>(&'l mut Line<'a>);

impl fmt::Write for Adapter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.out.extend(text.bytes().map(|byte| if is_bare(byte) || byte == b'\\' { byte } else { b'_' }));
        Ok(())
    }
}

impl StampCache {
    /// RFC 3339, UTC, to the microsecond.
    pub(crate) fn stamp(&mut self, at: u64) -> [u8; 27] {
        let second = at / 1_000_000;
        if second != self.second || self.text[0] == 0 {
            self.second = second;
            self.text = date_and_time(second);
        }
        let mut stamp = *b"0000-00-00T00:00:00.000000Z";
        stamp[..19].copy_from_slice(&self.text);
        stamp[20..26].copy_from_slice(&six_digits((at % 1_000_000) as u32));
        stamp
    }
}

fn six_digits(mut number: u32) -> [u8; 6] {
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    digits
}

/// `2026-11-20T13:02:51` of a number of seconds since 1970; stands still at the end of year 9999.
fn date_and_time(second: u64) -> [u8; 19] {
    let second = second.min(253_402_300_799);
    let (days, of_day) = (second / 86_400, second % 86_400);
    // Years that begin in March end with their leap day, so that months have fixed starts; 719,468 days
    // lie between the first of March of year 0 and 1970, 146,097 days are the 400 years after which the
    // calendar repeats.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let mut text = *b"0000-00-00T00:00:00";
    for (place, number) in [
        (0, year / 100),
        (2, year % 100),
        (5, month),
        (8, day),
        (11, of_day / 3600),
        (14, of_day / 60 % 60),
        (17, of_day % 60),
    ] {
        text[place] = b'0' + (number / 10) as u8;
        text[place + 1] = b'0' + (number % 10) as u8;
    }
    text
}

#[cfg(test)]
mod test {
    use super::*;

    fn line(format: Format, fill: impl FnOnce(&mut Line<'_>)) -> String {
        let mut out = Vec::new();
        let mut stamps = StampCache::default();
        let head = (Level::Info, "smtp", "accepted");
        let mut line = Line::begin(&mut out, (format, &mut stamps), 1_795_179_771_000_042, head);
        fill(&mut line);
        line.end();
        String::from_utf8(out).unwrap()
    }

    fn fields(line: &mut Line<'_>) {
        line.field("id", &(&"0G0000000000A" as &dyn fmt::Display))
            .field("from", &"ann@example.org")
            .field("empty", &"")
            .field("size", &4096_u64)
            .field("client", &SocketAddr::from(([192, 0, 2, 1], 2525)))
            .field("ip", &IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]))
            .field("delay", &Duration::from_millis(1_250))
            .field("tls", &None::<&str>)
            .field("reply", &Some("250 2.0.0 \"ok\" a=b"));
    }

    #[test]
    fn text() {
        assert_eq!(
            line(Format::Text, fields),
            "2026-11-20T13:02:51.000042Z info smtp accepted id=0G0000000000A from=ann@example.org empty=\"\" \
             size=4096 client=192.0.2.1:2525 ip=::1 delay=1.250000 reply=\"250 2.0.0 \\\"ok\\\" a=b\"\n"
        );
    }

    #[test]
    fn json() {
        assert_eq!(
            line(Format::Json, fields),
            "{\"time\":\"2026-11-20T13:02:51.000042Z\",\"level\":\"info\",\"room\":\"smtp\",\
             \"event\":\"accepted\",\"id\":\"0G0000000000A\",\"from\":\"ann@example.org\",\"empty\":\"\",\
             \"size\":4096,\"client\":\"192.0.2.1:2525\",\"ip\":\"::1\",\"delay\":1.250000,\
             \"reply\":\"250 2.0.0 \\\"ok\\\" a=b\"}\n"
        );
    }

    #[test]
    fn no_value_leaves_its_place() {
        let evil =
            "a\r\n2026-11-20T13:02:51Z info smtp accepted\t\u{1b}[2J\u{7f}\u{85}\u{202e}\\\" x=y \u{2028}é";
        let escaped = "a\\r\\n2026-11-20T13:02:51Z info smtp accepted\\t\\u001b[2J\\u007f\\u0085\\u202e\\\\\\\" \
                       x=y \\u2028é";
        for format in [Format::Text, Format::Json] {
            let text = line(format, |line| {
                line.field("helo", &evil);
            });
            assert_eq!(text.matches('\n').count(), 1, "{text}");
            assert!(text.contains(&format!("\"{escaped}\"")), "{text}");
        }
        let text = line(Format::Text, |line| {
            line.field("id", &(&"a b\n=\"" as &dyn fmt::Display));
        });
        assert!(text.ends_with(" id=a_b___\n"), "{text}");
    }

    #[test]
    fn long_values_are_cut() {
        let text = line(Format::Text, |line| {
            line.field("reply", &"é".repeat(5000).as_str());
        });
        assert!(text.len() < VALUE_MAX + 100 && text.ends_with("é...\"\n"));
    }

    #[test]
    fn dates() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (1_795_179_771, "2026-11-20T13:02:51"),
            (u64::MAX, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(str::from_utf8(&date_and_time(second)), Ok(text));
        }
    }
}
