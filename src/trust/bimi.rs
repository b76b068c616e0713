//! BIMI: where a domain's picture is (draft-brand-indicators-for-message-identification).
//!
//! The record, as `default._bimi.<domain>` has it. `assertion.rs` says which record is for a message, and `indicator.rs` what
//! a picture has to be like.

use std::fmt;

use dns::Name;

use crate::tags::{tags, value_of};

/// What a record says (§4.2 of the draft).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BimiRecord {
    /// `l=`: where the picture is. None, and no evidence either: the domain says that it has none.
    pub location: Option<BimiPlace>,
    /// `a=`: where the certificate is that says whose picture it is.
    pub evidence: Option<BimiPlace>,
    /// `avp=`: what the domain would rather have shown; none where it does not say so, or says something else.
    pub preference: Option<LogoPreference>,
}

/// What is to be shown of somebody who has a picture of his own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoPreference {
    /// The domain's.
    Brand,
    /// His own.
    Personal,
}

/// A place of the web: `https://`, and a host that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BimiPlace {
    text: Box<str>,
    host: Name,
    port: u16,
    target: Box<str>,
}

/// Why there is no record to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BimiError {
    /// More than one: "If multiple BIMI records are found, they are all discarded".
    #[error("there is more than one BIMI record")]
    Several,
    /// It begins with another version, or with none that is written so: nobody reads it.
    #[error("the BIMI record does not begin with v=BIMI1")]
    Version,
    /// It is no list of tags, or has no `l=`.
    #[error("the BIMI record is malformed")]
    Malformed,
    /// A place that is not one of HTTPS: "the only supported transport is HTTPS".
    #[error("a place in the BIMI record is no https:// URL")]
    NotHttps,
}

/// A longer place is none: it has to be on a line of a header section (RFC 5322 §2.1.1).
const LOCATION_LEN_MAX: usize = 900;

/// The record among the text records of a name; none when there is none.
///
/// # Errors
/// [`BimiError`].
pub fn bimi_record(texts: &[Box<[u8]>]) -> Result<Option<BimiRecord>, BimiError> {
    // "Records that do not start with a "v=" tag that identifies the current version of BIMI MUST be discarded" (§8.2).
    let mut records = texts.iter().filter(|text| first_tag(text) == Some((b"v", b"BIMI1")));
    match (records.next(), records.next()) {
        (Some(text), None) => BimiRecord::parse(text).map(Some),
        (Some(_), Some(_)) => Err(BimiError::Several),
        (None, _) => {
            let seems = |text: &[u8]| {
                text.trim_ascii().get(..6).is_some_and(|start| start.eq_ignore_ascii_case(b"v=BIMI"))
            };
            if texts.iter().any(|text| seems(text)) { Err(BimiError::Version) } else { Ok(None) }
        }
    }
}

fn first_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|b| *b == b';').unwrap_or(text.len());
    tags(&text[..end]).ok()?.pop()
}

impl BimiRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// [`BimiError`].
    pub fn parse(text: &[u8]) -> Result<Self, BimiError> {
        let tags = tags(text).map_err(|_| BimiError::Malformed)?;
        if tags.first() != Some(&(b"v", b"BIMI1")) {
            return Err(BimiError::Version);
        }
        let place = |name: &[u8]| match value_of(&tags, name) {
            None | Some(b"") => Ok(None),
            Some(value) => BimiPlace::parse(value).map(Some).ok_or(BimiError::NotHttps),
        };
        // "l=" is REQUIRED; that it is empty says that there is no picture, or none beside that of the certificate.
        if value_of(&tags, b"l").is_none() {
            return Err(BimiError::Malformed);
        }
        let preference = match value_of(&tags, b"avp") {
            Some(b"brand") => Some(LogoPreference::Brand),
            Some(b"personal") => Some(LogoPreference::Personal),
            // "Any other values MUST be ignored".
            Some(_) | None => None,
        };
        Ok(Self { location: place(b"l")?, evidence: place(b"a")?, preference })
    }

    /// Whether the domain says that it has no picture.
    pub const fn is_declination(&self) -> bool {
        self.location.is_none() && self.evidence.is_none()
    }
}

impl LogoPreference {
    /// As in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Brand => "brand",
            Self::Personal => "personal",
        }
    }
}

impl BimiPlace {
    /// Reads a place.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = str::from_utf8(value).ok().filter(|text| text.len() <= LOCATION_LEN_MAX)?;
        // A comma is to be encoded (§4.2): it would end the place elsewhere.
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b',' | b';');
        let (scheme, rest) = text.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("https") || !rest.bytes().all(plain) {
            return None;
        }
        let rest = rest.split('#').next()?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, number(port)?),
            None => (authority, 443),
        };
        // "MUST contain a fully qualified domain name": no address, and nobody's name and password before it.
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let top = host.rsplit('.').next()?;
        let named = host.contains('.')
            && host.split('.').all(label)
            && !top.starts_with(|c: char| c.is_ascii_digit());
        let host = Name::parse(host).ok().filter(|_| named)?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        let target = format!("{slash}{path}").into();
        Some(Self { text: text.into(), host, port, target })
    }

    /// As it is written.
    pub const fn as_str(&self) -> &str {
        &self.text
    }

    /// The host.
    pub const fn host(&self) -> &Name {
        &self.host
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What it is asked for: path and query.
    pub const fn target(&self) -> &str {
        &self.target
    }
}

impl fmt::Display for BimiPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn number(port: &str) -> Option<u16> {
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    port.parse().ok().filter(|port| digits && *port > 0)
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
            let place = |place: Option<&str>| place.map(|text| BimiPlace::parse(text.as_bytes()).unwrap());
            Ok(Some(BimiRecord { location: place(location), evidence: place(evidence), preference: None }))
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
            ("v=BIMI2; l=https://example.org/x", BimiError::Version),
            ("v=bimi1; l=https://example.org/x", BimiError::Version),
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
        // Another version is somebody else's.
        assert_eq!(record(&["v=BIMI2; l=x", "v = BIMI1 ; l=; a="]), places(None, None));
        let preference = |text: &str| record(&[text]).unwrap().unwrap().preference;
        assert_eq!(preference("v=BIMI1; l=; avp=personal"), Some(LogoPreference::Personal));
        assert_eq!(preference("v=BIMI1; l=; avp=brand; new=tag"), Some(LogoPreference::Brand));
        assert_eq!(preference("v=BIMI1; l=; avp=Brand"), None);
        let long = format!("v=BIMI1; l=https://example.org/{}", "x".repeat(LOCATION_LEN_MAX));
        assert_eq!(record(&[&long]), Err(BimiError::NotHttps));
    }

    #[test]
    fn places_good_and_bad() {
        for (text, host, port, target) in [
            ("https://example.org", "example.org", 443, "/"),
            ("HTTPS://Logo.Example.org:8443/a/b.svg?x=1#y", "logo.example.org", 8443, "/a/b.svg?x=1"),
            ("https://example.org?x", "example.org", 443, "/?x"),
        ] {
            let place = BimiPlace::parse(text.as_bytes()).unwrap();
            assert_eq!((place.host().as_str(), place.port(), place.target()), (host, port, target));
            assert_eq!(place.to_string(), text);
        }
        for text in [
            "http://example.org/x",
            "https://localhost/x",
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://0x7f.1/x",
            "https://ann:secret@example.org/x",
            "https://example.org:/x",
            "https://example.org:0/x",
            "https://example.org:65536/x",
            "https://example.org:+443/x",
            "https://example.org./x",
            "https://.example.org/x",
            "https://exämple.org/x",
            "https://example.org/a,b",
            "https://example.org/a\r\nX: y",
            "https:/example.org/x",
        ] {
            assert_eq!(BimiPlace::parse(text.as_bytes()), None, "{text}");
        }
    }
}
