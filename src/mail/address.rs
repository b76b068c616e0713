//! Addresses (RFC 5321 §2.3.11), as peers write them and as we keep them.
//!
//! Looser than RFC 5321 §4.1.2 in nothing; RFC 6531 §3.3 adds UTF-8 to local-parts and domains.

use std::{fmt, net::IpAddr, str::FromStr};

/// `local-part@domain`, checked and within the limits of RFC 5321 §4.5.3.1.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Address {
    text: Box<str>,
    at: u8,
}

/// A domain or an address literal. Letters A to Z are kept in lower case: domains compare so.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

/// What stands left of the `@`, with its quotes if it has them. Its case is the owner's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalPart<'a>(&'a str);

/// Why a text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@domain`.
    #[error("the address has no domain")]
    DomainMissing,
    /// A character or a place that the grammar does not allow.
    #[error("the local-part is malformed")]
    LocalPart,
    /// A character or a place that the grammar does not allow.
    #[error("the domain is malformed")]
    Domain,
    /// A domain longer than 255 octets (RFC 5321 §4.5.3.1.2), or 254 in all (§4.5.3.1.3).
    #[error("the address is too long")]
    TooLong,
    /// Not UTF-8.
    #[error("the address is not UTF-8")]
    Encoding,
}

const DOMAIN_MAX: usize = 255;
const LABEL_MAX: usize = 63;
// A path holds 256 octets with its angle brackets (RFC 5321 §4.5.3.1.3). A local-part has no bound of its own: the 64 octets
// of §4.5.3.1.1 are what everybody must take, and senders that put a recipient's address into their own need more.
const ADDRESS_MAX: usize = 254;

impl Address {
    /// Checks and keeps `local-part@domain`.
    ///
    /// # Errors
    /// [`AddressError`] says which half is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, AddressError> {
        let text = simdutf8::basic::from_utf8(text).map_err(|_| AddressError::Encoding)?;
        let at = local_part_end(text)?;
        if text.as_bytes().get(at) != Some(&b'@') {
            return Err(if at == text.len() { AddressError::DomainMissing } else { AddressError::LocalPart });
        }
        let domain = Domain::parse(&text[at + 1..])?;
        if text.len() > ADDRESS_MAX {
            return Err(AddressError::TooLong);
        }
        Ok(Self::join(&text[..at], &domain))
    }

    /// An address at a domain we already hold.
    ///
    /// # Errors
    /// [`AddressError`] when the local-part is malformed or the whole is too long.
    pub fn new(local_part: &str, domain: &Domain) -> Result<Self, AddressError> {
        if local_part_end(local_part)? != local_part.len() {
            return Err(AddressError::LocalPart);
        }
        if local_part.len() + 1 + domain.0.len() > ADDRESS_MAX {
            return Err(AddressError::TooLong);
        }
        Ok(Self::join(local_part, domain))
    }

    /// The whole, as in a path without its angle brackets.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The half before the `@`.
    pub fn local_part(&self) -> LocalPart<'_> {
        LocalPart(&self.text[..usize::from(self.at)])
    }

    /// The half after the `@`, in lower case.
    pub fn domain_str(&self) -> &str {
        &self.text[usize::from(self.at) + 1..]
    }

    /// The half after the `@` as a value of its own.
    pub fn domain(&self) -> Domain {
        Domain(self.domain_str().into())
    }

    /// Whether a hop without `SMTPUTF8` may carry it.
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    fn join(local_part: &str, domain: &Domain) -> Self {
        let text = [local_part, "@", &domain.0].concat().into();
        Self { text, at: local_part.len() as u8 }
    }
}

impl Domain {
    /// Checks and keeps a domain or an address literal (RFC 5321 §4.1.2, §4.1.3).
    ///
    /// # Errors
    /// [`AddressError::Domain`] or [`AddressError::TooLong`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > DOMAIN_MAX {
            return Err(AddressError::TooLong);
        }
        let valid = match text.strip_prefix('[') {
            Some(literal) => literal.strip_suffix(']').is_some_and(is_literal),
            None => text.split('.').all(is_label),
        };
        if valid { Ok(Self(text.to_ascii_lowercase().into())) } else { Err(AddressError::Domain) }
    }

    /// The domain in lower case, or the literal with its brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The IP address, when this is a literal of one (RFC 5321 §4.1.3).
    pub fn literal(&self) -> Option<IpAddr> {
        literal_address(self.0.strip_prefix('[')?.strip_suffix(']')?)
    }
}

impl<'a> LocalPart<'a> {
    /// As the peer wrote it.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text.as_bytes())
    }
}

impl FromStr for Domain {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.text)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The length of the Local-part that `text` begins with (RFC 5321 §4.1.2).
fn local_part_end(text: &str) -> Result<usize, AddressError> {
    let bytes = text.as_bytes();
    if bytes.first() == Some(&b'"') {
        let mut i = 1;
        loop {
            i += match bytes.get(i).ok_or(AddressError::LocalPart)? {
                b'"' => return Ok(i + 1),
                b'\\' if matches!(bytes.get(i + 1), Some(32..=126)) => 2,
                b'\\' => return Err(AddressError::LocalPart),
                32..=126 | 0x80.. => 1,
                _ => return Err(AddressError::LocalPart),
            };
        }
    }
    let end = bytes.iter().position(|b| !is_atext(*b) && *b != b'.').unwrap_or(bytes.len());
    if bytes[..end].split(|b| *b == b'.').any(<[u8]>::is_empty) {
        return Err(AddressError::LocalPart);
    }
    Ok(end)
}

/// RFC 5322 §3.2.3, with the octets of UTF-8 (RFC 6531 §3.3).
const fn is_atext(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | 0x80..
        | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'/'
        | b'=' | b'?' | b'^' | b'_' | b'`' | b'{' | b'|' | b'}' | b'~')
}

/// A label of letters, digits and inner hyphens.
// Looser than RFC 5321 §4.1.2: an underscore may stand in a label, as it does in hosts' names.
fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= LABEL_MAX
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | 0x80..))
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

fn is_literal(literal: &str) -> bool {
    if literal_address(literal).is_some() {
        return true;
    }
    // General-address-literal (RFC 5321 §4.1.3): a registered tag, a colon, dcontent.
    literal.split_once(':').is_some_and(|(tag, content)| {
        is_label(tag)
            && !tag.eq_ignore_ascii_case("ipv6")
            && !content.is_empty()
            && content.bytes().all(|b| matches!(b, 33..=90 | 94..=126))
    })
}

fn literal_address(literal: &str) -> Option<IpAddr> {
    match literal.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => literal[5..].parse().ok().map(IpAddr::V6),
        _ => literal.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
#[path = "address_test.rs"]
mod test;
