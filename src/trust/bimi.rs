//! BIMI: where a domain's picture is (draft-brand-indicators-for-message-identification).
//!
//! Only the record, as `default._bimi.<domain>` has it.

use crate::tags::{tags, value_of};

/// What a record says (§4.2 of the draft).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BimiRecord {
    /// `l=`: where the picture is. None: the domain says that it has none.
    pub location: Option<String>,
    /// `a=`: where the certificate is that says whose picture it is.
    pub evidence: Option<String>,
}

/// Why there is no record to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BimiError {
    /// More than one: "If multiple BIMI records are found, they are all discarded".
    #[error("there is more than one BIMI record")]
    Several,
    /// It does not begin with `v=BIMI1`, or is no list of tags.
    #[error("the BIMI record is malformed")]
    Malformed,
    /// A place that is not one of HTTPS: "the only supported transport is HTTPS".
    #[error("a place in the BIMI record is no https:// URL")]
    NotHttps,
}

/// A longer place is none.
const LOCATION_LEN_MAX: usize = 2048;

/// The record among the text records of a name; none when there is none.
///
/// # Errors
/// [`BimiError`].
pub fn bimi_record(texts: &[Box<[u8]>]) -> Result<Option<BimiRecord>, BimiError> {
    let is_one = |text: &&[u8]| {
        let (first, _) = text.split_at(text.iter().position(|b| *b == b';').unwrap_or(text.len()));
        first.trim_ascii().get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"v=BIMI"))
    };
    let mut records = texts.iter().map(|text| &**text).filter(is_one);
    match (records.next(), records.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(BimiError::Several),
        (Some(text), None) => BimiRecord::parse(text).map(Some),
    }
}

impl BimiRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// [`BimiError`].
    pub fn parse(text: &[u8]) -> Result<Self, BimiError> {
        let tags = tags(text).map_err(|_| BimiError::Malformed)?;
        if tags.first() != Some(&(b"v", b"BIMI1")) {
            return Err(BimiError::Malformed);
        }
        let place = |name: &[u8]| match value_of(&tags, name) {
            None | Some(b"") => Ok(None),
            Some(value) => is_https(value).map(Some).ok_or(BimiError::NotHttps),
        };
        // "l=" is REQUIRED; that it is empty says that there is no picture.
        if value_of(&tags, b"l").is_none() {
            return Err(BimiError::Malformed);
        }
        Ok(Self { location: place(b"l")?, evidence: place(b"a")? })
    }
}

fn is_https(value: &[u8]) -> Option<String> {
    let text = str::from_utf8(value).ok().filter(|text| text.len() <= LOCATION_LEN_MAX)?;
    let (scheme, rest) = text.split_once("://")?;
    let sound = scheme.eq_ignore_ascii_case("https")
        && rest.starts_with(|c: char| c.is_ascii_alphanumeric())
        && rest.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\'));
    sound.then(|| text.to_owned())
}

#[cfg(test)]
mod test {
    use super::*;

    fn record(texts: &[&str]) -> Result<Option<BimiRecord>, BimiError> {
        let texts: Vec<Box<[u8]>> = texts.iter().map(|text| text.as_bytes().into()).collect();
        bimi_record(&texts)
    }

    #[test]
    fn records_good_and_bad() {
        let places = |location: Option<&str>, evidence: Option<&str>| {
            let owned = |place: Option<&str>| place.map(str::to_owned);
            Ok(Some(BimiRecord { location: owned(location), evidence: owned(evidence) }))
        };
        let svg = "https://example.org/logo.svg";
        assert_eq!(record(&[&format!("v=BIMI1; l={svg}")]), places(Some(svg), None));
        assert_eq!(record(&[&format!("v=BIMI1;l={svg};a=;")]), places(Some(svg), None));
        let pem = "HTTPS://example.org/vmc.pem";
        assert_eq!(record(&["x", &format!("v=BIMI1; l={svg}; a={pem}")]), places(Some(svg), Some(pem)));
        assert_eq!(record(&["v=BIMI1; l=; a=;"]), places(None, None));
        assert_eq!(record(&[]), Ok(None));
        assert_eq!(record(&["v=spf1 -all"]), Ok(None));
        for (text, expected) in [
            ("v=BIMI1", BimiError::Malformed),
            ("v=BIMI2; l=https://example.org/x", BimiError::Malformed),
            ("v=bimi1; l=https://example.org/x", BimiError::Malformed),
            ("v=BIMI1; l=https://example.org/x; l=https://example.org/y", BimiError::Malformed),
            ("v=BIMI1; a=https://example.org/x", BimiError::Malformed),
            ("v=BIMI1; l=http://example.org/x", BimiError::NotHttps),
            ("v=BIMI1; l=https:///x", BimiError::NotHttps),
            ("v=BIMI1; l=https://example.org/a b", BimiError::NotHttps),
            ("v=BIMI1; l=https://example.org/x; a=file:///etc/passwd", BimiError::NotHttps),
        ] {
            assert_eq!(record(&[text]), Err(expected), "{text}");
        }
        assert_eq!(record(&["v=BIMI1; l=", "v=BIMI1; l="]), Err(BimiError::Several));
        let long = format!("v=BIMI1; l=https://example.org/{}", "x".repeat(LOCATION_LEN_MAX));
        assert_eq!(record(&[&long]), Err(BimiError::NotHttps));
    }
}
