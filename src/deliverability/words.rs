//! What others have written, fit to be shown.

use std::{fmt::Display, net::IpAddr};

/// On one line, and not too long.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 300;
    let visible = |c: char| if c.is_control() || is_format(c) { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(SHOWN_MAX).map(visible).collect();
    if text.chars().count() > SHOWN_MAX {
        short.push('…');
    }
    short
}

/// Whether a character is not seen, or turns the line that it stands in.
const fn is_format(c: char) -> bool {
    let is_mark = matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{feff}');
    is_mark || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
}

/// Some of them, parted by commas.
pub(crate) fn listed<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    const LISTED_MAX: usize = 10;
    let mut items = items.into_iter();
    let mut words: Vec<_> = items.by_ref().take(LISTED_MAX).map(|item| item.to_string()).collect();
    let more = items.count();
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.join(", ")
}

/// The type of the record that has such an address.
pub(crate) const fn kind_of(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "A",
        IpAddr::V6(_) => "AAAA",
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_others_write_stays_on_its_line() {
        assert_eq!(shown("a\r\nb\u{1b}[2J"), "a\u{fffd}\u{fffd}b\u{fffd}[2J");
        assert_eq!(shown("good\u{202e}dab\u{200b}"), "good\u{fffd}dab\u{fffd}");
        assert_eq!(shown(&"é".repeat(400)).chars().count(), 301);
        assert_eq!(listed(1..=3), "1, 2, 3");
        assert_eq!(listed(1..=12), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, and 2 more");
    }
}
