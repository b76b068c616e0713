//! Domain names as we ask for them: ASCII, lower case, without the final dot.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

/// A domain name (RFC 1035 §2.3): labels in lower case, parted by dots. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is not a domain name that could be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// More than 253 characters (RFC 1035 §2.3.4, without the lengths of the first and last label).
    #[error("the domain name is too long")]
    TooLong,
    /// A label is empty or has more than 63 octets (RFC 1035 §2.3.4).
    #[error("a label of the domain name is empty or too long")]
    LabelLength,
    /// A character that no domain name has.
    #[error("the domain name has a character that cannot be asked for")]
    Character,
}

const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

impl Name {
    /// Checks and keeps a name. Labels that are not ASCII are written as IDNA does (RFC 5891).
    ///
    /// # Errors
    /// [`NameError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::of(text, |b| b.is_ascii_graphic() && b != b'\\')
    }

    /// As [`Name::parse`], with any printable character: the macros of a sender's SPF record make such names.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong.
    pub fn printable(text: &str) -> Result<Self, NameError> {
        Self::of(text, |b| matches!(b, b' '..=b'~'))
    }

    /// The name whose `PTR` record tells the host of an address (RFC 1035 §3.5, RFC 3596 §2.5).
    pub fn reverse(address: IpAddr) -> Self {
        let name = match address.to_canonical() {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            IpAddr::V6(v6) => {
                let mut name = String::with_capacity(72);
                for octet in v6.octets().iter().rev() {
                    name.push_str(&format!("{:x}.{:x}.", octet & 15, octet >> 4));
                }
                name + "ip6.arpa"
            }
        };
        Self(name.into())
    }

    /// The name of the `TLSA` records of a TCP service (RFC 6698 §3).
    ///
    /// # Errors
    /// [`NameError::TooLong`] when the prefix does not fit.
    pub fn tlsa(&self, port: u16) -> Result<Self, NameError> {
        Self::parse(&format!("_{port}._tcp.{self}"))
    }

    /// The name in lower case, without the final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as people read it: A-labels (RFC 5891) as what they stand for, where they stand for something.
    pub fn to_unicode(&self) -> String {
        if !self.0.contains("xn--") {
            return self.0.as_ref().to_owned();
        }
        let shown = |label: &str| {
            let name = hickory_proto::rr::Name::from_ascii(label).ok();
            name.filter(|_| label.starts_with("xn--")).map_or_else(|| label.to_owned(), |name| name.to_utf8())
        };
        self.0.split('.').map(shown).collect::<Vec<_>>().join(".")
    }

    /// Whether this is `domain` or lies below it.
    pub fn is_within(&self, domain: &str) -> bool {
        self.0.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The name of a host from an answer; none when it has what no host's name has (RFC 1123 §2.1).
    // Looser than RFC 1123 §2.1: an underscore may stand in a label, as it does in hosts' names.
    pub(crate) fn host(name: &hickory_proto::rr::Name) -> Option<Self> {
        let mut text = String::with_capacity(name.len());
        for label in name.iter() {
            if !label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                return None;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
        }
        check(&text).is_ok().then(|| Self(text.into()))
    }

    fn of(text: &str, valid: impl Fn(u8) -> bool) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        // An octet of UTF-8 needs at most as much again in Punycode; no need to try what cannot fit.
        if text.len() > 4 * NAME_MAX {
            return Err(NameError::TooLong);
        }
        let mut name = String::with_capacity(text.len());
        for (place, label) in text.split('.').enumerate() {
            if place > 0 {
                name.push('.');
            }
            if label.is_ascii() {
                name.push_str(label);
            } else {
                name.push_str(&a_label(label)?);
            }
        }
        name.make_ascii_lowercase();
        check(&name)?;
        // Any octet may stand in a label (RFC 2181 §11); mail needs few of them.
        if name.bytes().all(valid) { Ok(Self(name.into())) } else { Err(NameError::Character) }
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn a_label(label: &str) -> Result<String, NameError> {
    let name = hickory_proto::rr::Name::from_utf8(label).map_err(|_| NameError::Character)?;
    Ok(name.to_ascii().trim_end_matches('.').to_owned())
}

fn check(name: &str) -> Result<(), NameError> {
    if name.len() > NAME_MAX {
        return Err(NameError::TooLong);
    }
    if name.split('.').any(|label| label.is_empty() || label.len() > LABEL_MAX) {
        return Err(NameError::LabelLength);
    }
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;

    fn check(text: &str, expected: Result<&str, NameError>) {
        let name = Name::parse(text);
        assert_eq!(name.as_ref().map(Name::as_str).map_err(|e| *e), expected, "{text}");
    }

    #[test]
    fn names_good_and_bad() {
        check("Example.ORG", Ok("example.org"));
        check("example.org.", Ok("example.org"));
        check("_25._tcp.mx.example", Ok("_25._tcp.mx.example"));
        check("bücher.Example", Ok("xn--bcher-kva.example"));
        check("mail.例え.example", Ok("mail.xn--r8jz45g.example"));
        check("", Err(NameError::LabelLength));
        check(".", Err(NameError::LabelLength));
        check("a..b", Err(NameError::LabelLength));
        check(".b", Err(NameError::LabelLength));
        check("a b.example", Err(NameError::Character));
        check("a\\b.example", Err(NameError::Character));
        check("a\0b.example", Err(NameError::Character));
        check(&format!("{}.example", "a".repeat(64)), Err(NameError::LabelLength));
        check(&"a.".repeat(126), Ok("a.".repeat(126).trim_end_matches('.')));
        check(&"a.".repeat(128), Err(NameError::TooLong));
        check(&"ü".repeat(4000), Err(NameError::TooLong));
    }

    #[test]
    fn names_of_macros() {
        let printable = |text: &str| Name::printable(text).map(|name| name.to_string());
        assert_eq!(printable("A b%c\\.Example.").as_deref(), Ok("a b%c\\.example"));
        assert_eq!(printable("a\r\n.example"), Err(NameError::Character));
        assert_eq!(printable("a..example"), Err(NameError::LabelLength));
    }

    #[test]
    fn reverse_names() {
        let reverse = |address: &str| Name::reverse(address.parse().unwrap()).to_string();
        assert_eq!(reverse("192.0.2.1"), "1.2.0.192.in-addr.arpa");
        assert_eq!(reverse("::ffff:192.0.2.1"), "1.2.0.192.in-addr.arpa");
        assert_eq!(
            reverse("2001:db8::1"),
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }

    #[test]
    fn names_below_a_domain() {
        let name = Name::parse("a.localhost").unwrap();
        assert!(name.is_within("localhost") && name.is_within("a.localhost"));
        assert!(!name.is_within("host") && !name.is_within("b.a.localhost"));
    }
}
