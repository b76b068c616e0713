//! Text of header fields as readers show it: encoded words (RFC 2047) are decoded wherever they stand.
//!
//! The RFC says where none may be (§5), and programs decode them there all the same.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use mail_parser::decoders::charsets::map::charset_decoder;
use memchr::memmem;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The text, decoded. What is no UTF-8 is replaced.
pub(crate) fn readable(octets: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = octets;
    // White space between two encoded words is no part of the text (RFC 2047 §6.2).
    let mut after_word = false;
    while let Some(start) = memmem::find(rest, b"=?") {
        let (before, from) = rest.split_at(start);
        let Some((word, len)) = word(from) else {
            text.push_str(&String::from_utf8_lossy(&rest[..start + 2]));
            (rest, after_word) = (&rest[start + 2..], false);
            continue;
        };
        if !(after_word && before.iter().all(u8::is_ascii_whitespace)) {
            text.push_str(&String::from_utf8_lossy(before));
        }
        text.push_str(&word);
        (rest, after_word) = (&from[len..], true);
    }
    text.push_str(&String::from_utf8_lossy(rest));
    text
}

/// Whether the text has characters that are not seen, and change what is: controls, ends of lines, and those that turn the direction of
/// writing. Programs put names and titles of either direction between marks that end where they end: those change nothing around them.
pub(crate) fn hides_something(text: &str) -> bool {
    let (mut embedded, mut isolated) = (0_usize, 0_usize);
    for c in text.chars() {
        match c {
            '\t' => {}
            '\u{2028}' | '\u{2029}' | '\u{202d}' | '\u{202e}' => return true,
            '\u{202a}' | '\u{202b}' => embedded += 1,
            '\u{202c}' => embedded = embedded.saturating_sub(1),
            '\u{2066}'..='\u{2068}' => isolated += 1,
            '\u{2069}' => isolated = isolated.saturating_sub(1),
            c if c.is_control() => return true,
            _ => {}
        }
    }
    embedded > 0 || isolated > 0
}

/// Whether the text has spaces or joints that nobody sees. Joiners of letters and of pictures are none.
pub(crate) fn has_no_width(text: &str) -> bool {
    text.contains(['\u{200b}', '\u{2060}'])
}

/// Whether a character leaves no trace where it stands: what a program may drop before it looks for an address.
pub(crate) const fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// An encoded word at the beginning, and how long it is.
fn word(octets: &[u8]) -> Option<(String, usize)> {
    let inner = octets.strip_prefix(b"=?")?;
    let charset_end = memchr::memchr(b'?', inner)?;
    let (charset, rest) = (&inner[..charset_end], &inner[charset_end + 1..]);
    let (encoding, rest) = (rest.first()?, rest.get(1..)?.strip_prefix(b"?")?);
    let text_end = memmem::find(rest, b"?=")?;
    let text = &rest[..text_end];
    let decoded = match encoding {
        b'B' | b'b' => {
            let plain: Vec<u8> = text.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
            LENIENT.decode(plain).ok()?
        }
        b'Q' | b'q' => unquoted(text),
        _ => return None,
    };
    // A language may follow.
    let charset = charset.split(|octet| *octet == b'*').next().unwrap_or_default();
    let text = match charset_decoder(charset) {
        Some(decode) if !charset.eq_ignore_ascii_case(b"utf-8") => decode(&decoded),
        Some(_) | None => String::from_utf8_lossy(&decoded).into_owned(),
    };
    Some((text, octets.len() - rest.len() + text_end + 2))
}

/// The `Q` encoding (RFC 2047 §4.2).
fn unquoted(text: &[u8]) -> Vec<u8> {
    let hex = |octet: &u8| char::from(*octet).to_digit(16);
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((octet, more)) = rest.split_first() {
        rest = more;
        match (octet, more) {
            (b'=', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                let value = hex(high).unwrap_or_default() * 16 + hex(low).unwrap_or_default();
                plain.push(value as u8);
                rest = after;
            }
            (b'_', _) => plain.push(b' '),
            _ => plain.push(*octet),
        }
    }
    plain
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn words_are_decoded_wherever_they_stand() {
        for (text, expected) in [
            ("plain", "plain"),
            ("=?utf-8?Q?J=C3=BCrgen_M?= x", "Jürgen M x"),
            ("=?UTF-8?B?YWRtaW5AYmFuay5leGFtcGxl?=", "admin@bank.example"),
            ("=?utf-8?b?YWRtaW4?= =?utf-8*en?q?@bank?=", "admin@bank"),
            ("a =?us-ascii?q?b?= c", "a b c"),
            ("=?iso-8859-1?q?=E9?=", "é"),
            // The at sign of UTF-7.
            ("=?utf-7?q?a+AEA-b?=", "a@b"),
            ("\"=?utf-8?q?x?=\"", "\"x\""),
            ("=?utf-8?x?x?= =?", "=?utf-8?x?x?= =?"),
            ("=?utf-8?b?%?=", "=?utf-8?b?%?="),
            ("=?utf-8?q?=4?=", "=4"),
            ("=?", "=?"),
            ("=?a?q", "=?a?q"),
        ] {
            assert_eq!(readable(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(readable(b"a\xffb"), "a\u{fffd}b");
    }

    #[test]
    fn what_is_not_seen() {
        for text in [
            "a\0b",
            "a\r\nb",
            "a\u{7f}",
            "\u{202e}gro.elpmaxe",
            "\u{202e}gro.elpmaxe\u{202c}",
            "\u{2066}x",
            "\u{202b}x\u{2069}",
            "a\u{2028}b",
        ] {
            assert!(hides_something(text), "{text:?}");
        }
        for text in ["a\u{200b}b", "a\u{2060}b"] {
            assert!(has_no_width(text) && !hides_something(text), "{text:?}");
        }
        // Joiners make letters and pictures of what they stand between; marks that end change nothing behind them.
        for text in [
            "Ann Example",
            "a\tb",
            "Jürgen",
            "\u{1f468}\u{200d}\u{1f4bb}",
            "\u{646}\u{200c}\u{645}",
            "\u{202b}דוד\u{202c}",
            "Welcome, \u{2068}Ann\u{2069}",
            "דוד\u{200f}",
        ] {
            assert!(!hides_something(text) && !has_no_width(text), "{text:?}");
        }
    }

    /// Charsets that switch by escape sequences, and that fold in the middle of a word: honest names are decoded, and hide nothing.
    #[test]
    fn names_in_other_charsets() {
        for (text, expected) in [
            ("=?ISO-2022-JP?B?GyRCOzNFREJATzobKEI=?=", "山田太郎"),
            ("=?iso-2022-jp?B?GyRCOzNFRBsoQg==?=\r\n =?iso-2022-jp?B?GyRCQkBPOhsoQg==?=", "山田太郎"),
            ("=?Shift_JIS?B?jlKTY5G+mFk=?=", "山田太郎"),
            ("=?koi8-r?B?6dfBziDz1c/X?=", "Иван Суов"),
            ("=?windows-1251?Q?=C8=E2=E0=ED?=", "Иван"),
            ("=?UTF-8?Q?=D0=98=D0=B2=D0=B0=D0=BD=2C_=D0=9F=D1=91=D1=82=D1=80?=", "Иван, Пётр"),
            ("=?gb2312?B?1cXI/Q==?=", "张三"),
            ("=?euc-kr?B?seizqg==?=", "김나"),
        ] {
            let text = readable(text.as_bytes());
            assert!(!hides_something(&text), "{text:?}");
            assert_eq!(text, expected);
        }
    }
}
