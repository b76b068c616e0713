//! Domains that look like others (RFC 5890 §4.4; Unicode Technical Standard 39).
//!
//! Registries differ in what they let be registered, so that a name being there says nothing. The tables hold what looks like
//! the letters of host names, and no more: it is for names that people take for one they know.

use dns::Name;

use crate::deception::{Trick, Tricks};

/// What is odd about the author's domain: as it is written, and as it is looked up.
pub(crate) fn tricks(written: &str, name: &Name) -> Tricks {
    let mut tricks = Tricks::NONE;
    if written.is_ascii() && !has_a_label(name.as_str()) {
        return tricks;
    }
    let shown = name.to_unicode();
    // "xn--" that stands for nothing stays as it is; and what is mapped to another name is shown as one, and looked up as the other.
    let written = written.strip_suffix('.').unwrap_or(written).to_lowercase();
    if has_a_label(&shown)
        || (!written.is_ascii() && written != shown && !is_partly_written(&written, &shown))
    {
        tricks.insert(Trick::OddDomain);
    }
    let (labels, top) = shown.rsplit_once('.').unwrap_or(("", &shown));
    for label in labels.split('.') {
        let (mut scripts, mut all_look_latin) = (Vec::new(), true);
        for c in label.chars() {
            if let Some(script) = Script::of(c) {
                if !scripts.contains(&script) {
                    scripts.push(script);
                }
                all_look_latin &= c.is_ascii() || is_twin(c);
            }
        }
        // What is written in Chinese, Japanese and Korean has Latin letters in it (UTS 39 §5.2, "Highly Restrictive").
        if scripts.len() > 1
            && scripts.iter().any(|script| !matches!(script, Script::Latin | Script::EastAsian))
        {
            tricks.insert(Trick::MixedScripts);
        // Below a top label of the same script nobody expects Latin letters.
        } else if all_look_latin && !scripts.is_empty() && scripts != [Script::Latin] && top.is_ascii() {
            tricks.insert(Trick::Homograph);
        }
    }
    tricks
}

/// What a domain looks like: equal for domains that look alike.
pub(crate) fn skeleton(name: &Name) -> String {
    let mut plain = String::with_capacity(name.as_str().len());
    for c in name.to_unicode().chars() {
        plain.push(match c {
            '0' => 'o',
            '1' | '|' => 'l',
            c if c.is_ascii() => c,
            c => latin(c).unwrap_or(c),
        });
    }
    plain.replace("rn", "m").replace("vv", "w")
}

fn has_a_label(name: &str) -> bool {
    name.split('.').any(|label| label.starts_with("xn--"))
}

/// Whether names differ only in labels that are written as A-labels in the one.
fn is_partly_written(written: &str, shown: &str) -> bool {
    let (mut one, mut other) = (written.split('.'), shown.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if one == other || one.starts_with("xn--") => {}
            _ => return false,
        }
    }
}

/// Scripts, as far as they have to be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    Latin,
    Greek,
    Cyrillic,
    Armenian,
    Hebrew,
    Arabic,
    EastAsian,
    /// Others, by the first of their characters, or by the block of 128 that has all of them.
    Other(u32),
}

impl Script {
    /// None for what all scripts have: digits, hyphens, marks.
    fn of(c: char) -> Option<Self> {
        Some(match c {
            '\0'..='\u{7f}' if !c.is_ascii_alphabetic() => return None,
            '\u{80}'..='\u{bf}'
            | '\u{2b0}'..='\u{36f}'
            | '\u{1dc0}'..='\u{1dff}'
            | '\u{2000}'..='\u{206f}' => {
                return None;
            }
            '\0'..='\u{24f}'
            | '\u{250}'..='\u{2af}'
            | '\u{1e00}'..='\u{1eff}'
            | '\u{2c60}'..='\u{2c7f}'
            | '\u{a720}'..='\u{a7ff}' => Self::Latin,
            '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Self::Greek,
            '\u{400}'..='\u{52f}'
            | '\u{1c80}'..='\u{1c8f}'
            | '\u{2de0}'..='\u{2dff}'
            | '\u{a640}'..='\u{a69f}' => Self::Cyrillic,
            '\u{530}'..='\u{58f}' => Self::Armenian,
            '\u{590}'..='\u{5ff}' => Self::Hebrew,
            '\u{600}'..='\u{6ff}' | '\u{750}'..='\u{77f}' => Self::Arabic,
            '\u{1100}'..='\u{11ff}'
            | '\u{2e80}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7ff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}' => Self::EastAsian,
            // Scripts of more than one block.
            '\u{f00}'..='\u{fff}' => Self::Other(0xf00),
            '\u{1000}'..='\u{109f}' | '\u{a9e0}'..='\u{a9ff}' | '\u{aa60}'..='\u{aa7f}' => {
                Self::Other(0x1000)
            }
            '\u{10a0}'..='\u{10ff}' | '\u{2d00}'..='\u{2d2f}' => Self::Other(0x10a0),
            '\u{1200}'..='\u{139f}' | '\u{2d80}'..='\u{2ddf}' | '\u{ab00}'..='\u{ab2f}' => {
                Self::Other(0x1200)
            }
            '\u{13a0}'..='\u{13ff}' | '\u{ab70}'..='\u{abbf}' => Self::Other(0x13a0),
            '\u{1400}'..='\u{167f}' | '\u{18b0}'..='\u{18ff}' => Self::Other(0x1400),
            c => Self::Other(u32::from(c) >> 7),
        })
    }
}

/// Whether a letter cannot be told from a Latin one. Whole words of other languages are made of those that only resemble one.
const fn is_twin(c: char) -> bool {
    matches!(
        c,
        'а' | 'с'
            | 'ԁ'
            | 'е'
            | 'һ'
            | 'і'
            | 'ј'
            | 'ӏ'
            | 'о'
            | 'р'
            | 'ԛ'
            | 'ѕ'
            | 'ԝ'
            | 'х'
            | 'у'
            | 'ү'
            | 'ο'
            | 'ν'
            | 'ρ'
            | 'α'
            | 'ι'
            | 'υ'
            | 'օ'
            | 'ո'
            | 'ս'
            | 'հ'
            | 'զ'
            | 'ց'
    )
}

/// The Latin letter that a letter looks like.
const fn latin(c: char) -> Option<char> {
    Some(match c {
        'а' | 'ɑ' | 'α' | 'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' | 'ā' | 'ă' | 'ą' | 'ạ' => 'a',
        'Ь' | 'ь' | 'ḅ' | 'в' => 'b',
        'с' | 'ϲ' | 'ç' | 'ć' | 'č' | 'ċ' => 'c',
        'ԁ' | 'ɗ' | 'ḍ' | 'đ' => 'd',
        'е' | 'ё' | 'ҽ' | 'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ė' | 'ę' | 'ẹ' => 'e',
        'ƒ' => 'f',
        'ɡ' | 'ց' | 'ğ' | 'ġ' => 'g',
        'һ' | 'հ' | 'ḥ' => 'h',
        'і' | 'ї' | 'ι' | 'ı' | 'ì' | 'í' | 'î' | 'ï' | 'ī' | 'ị' => 'i',
        'ј' | 'ϳ' => 'j',
        'к' | 'κ' | 'ḳ' => 'k',
        'ӏ' | 'ḷ' | 'ł' => 'l',
        'м' | 'ṃ' => 'm',
        'ո' | 'п' | 'ñ' | 'ń' | 'ṇ' | 'η' => 'n',
        'о' | 'ο' | 'օ' | 'σ' | 'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'ø' | 'ō' | 'ọ' => 'o',
        'р' | 'ρ' => 'p',
        'ԛ' | 'զ' => 'q',
        'г' | 'ṛ' => 'r',
        'ѕ' | 'ś' | 'š' | 'ş' | 'ṣ' => 's',
        'т' | 'τ' | 'ṭ' => 't',
        'υ' | 'ս' | 'ù' | 'ú' | 'û' | 'ü' | 'ū' | 'ụ' => 'u',
        'ν' | 'ѵ' | 'ṿ' => 'v',
        'ԝ' | 'ω' | 'ẉ' => 'w',
        'х' | 'χ' => 'x',
        'у' | 'ү' | 'γ' | 'ý' | 'ÿ' | 'ỵ' => 'y',
        'ź' | 'ż' | 'ž' | 'ẓ' => 'z',
        _ => return None,
    })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn names_that_look_like_others() {
        for (written, expected) in [
            ("example.org", &[][..]),
            ("bücher.example", &[]),
            ("xn--bcher-kva.example", &[]),
            ("почта.example", &[]),
            ("例え.example", &[]),
            ("google例.example", &[]),
            ("Bücher.EXAMPLE.", &[]),
            ("ሰላም-ጐጔፘ.example", &[]),
            ("མཁའ་འགྲོ.example", &[]),
            ("မြန်မာႏ.example", &[]),
            ("имʼя.example", &[]),
            ("việtnam.example", &[]),
            ("日本ドメイン名.example", &[]),
            ("한국어.example", &[]),
            ("ไทย.example", &[]),
            ("भारत.example", &[]),
            ("بازار1001.example", &[]),
            ("pаypaı.example", &[Trick::MixedScripts]),
            // Below its own top label a script is itself.
            ("оса.рф", &[]),
            // Cyrillic in a Latin word, and a word that is nothing else.
            ("pаypal.example", &[Trick::MixedScripts]),
            ("рауроса.example", &[Trick::Homograph]),
            ("xn--80ak6aa92e.com", &[Trick::Homograph]),
            ("москва.example", &[]),
            ("ελλάδα.example", &[]),
            // Looked up as another than it is written.
            ("ｅxample.org", &[Trick::OddDomain]),
            ("xn--a.example", &[Trick::OddDomain]),
            ("bücher.xn--bcher-kva.example", &[]),
        ] {
            let name = Name::parse(written).unwrap_or_else(|error| panic!("{written}: {error}"));
            assert_eq!(tricks(written, &name).iter().collect::<Vec<_>>(), expected, "{written} {name}");
        }
    }

    #[test]
    fn skeletons_are_the_same_for_what_looks_the_same() {
        let of = |text: &str| skeleton(&Name::parse(text).unwrap());
        for (one, other) in [
            ("example.org", "examp1e.org"),
            ("example.org", "еxаmрle.org"),
            ("morning.example", "rnorning.example"),
            ("word.example", "vv0rd.example"),
            ("bucher.example", "bücher.example"),
        ] {
            assert_eq!(of(one), of(other), "{one} {other}");
        }
        assert_ne!(of("example.org"), of("example.com"));
    }
}
