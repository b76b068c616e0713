//! The mechanisms there are, the strongest first.

use std::fmt;

/// A way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mechanism {
    /// `SCRAM-SHA-256-PLUS` (RFC 7677): as without, and tied to the TLS connection.
    ScramSha256Plus,
    /// `SCRAM-SHA-1-PLUS` (RFC 5802).
    ScramSha1Plus,
    /// `SCRAM-SHA-256` (RFC 7677): neither side sees more of the password than it knew.
    ScramSha256,
    /// `SCRAM-SHA-1` (RFC 5802).
    ScramSha1,
    /// `XOAUTH2`: a token that somebody has issued for this.
    XOAuth2,
    /// `PLAIN` (RFC 4616): the password as it is.
    Plain,
    /// `LOGIN`: the same, asked for in two steps.
    Login,
}

/// Some of the mechanisms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mechanisms(u8);

impl Mechanism {
    /// All of them, the strongest first.
    pub const ALL: [Self; 7] = [
        Self::ScramSha256Plus,
        Self::ScramSha1Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::XOAuth2,
        Self::Plain,
        Self::Login,
    ];

    /// As it is called (RFC 4422 §3.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::XOAuth2 => "XOAUTH2",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// Whether it is tied to the channel that it goes over.
    pub const fn is_bound(self) -> bool {
        matches!(self, Self::ScramSha256Plus | Self::ScramSha1Plus)
    }

    /// The mechanism of this name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

impl Mechanisms {
    /// None.
    pub const NONE: Self = Self(0);

    /// With this one too.
    pub const fn with(self, mechanism: Mechanism) -> Self {
        Self(self.0 | 1 << mechanism as u8)
    }

    /// Whether it is one of them.
    pub const fn has(self, mechanism: Mechanism) -> bool {
        self.0 & 1 << mechanism as u8 != 0
    }

    /// Whether one of them is tied to the channel that it goes over.
    pub fn has_bound(self) -> bool {
        Mechanism::ALL.into_iter().any(|mechanism| mechanism.is_bound() && self.has(mechanism))
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Mechanism> for Mechanisms {
    fn from_iter<T: IntoIterator<Item = Mechanism>>(mechanisms: T) -> Self {
        mechanisms.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn names_and_sets() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::named(&mechanism.name().to_ascii_lowercase()), Some(mechanism));
            let one = Mechanisms::NONE.with(mechanism);
            assert!(Mechanism::ALL.into_iter().all(|other| one.has(other) == (other == mechanism)));
            assert_eq!(
                (one.has_bound(), mechanism.is_bound()),
                [mechanism.name().ends_with("-PLUS"); 2].into()
            );
        }
        assert_eq!(Mechanism::named("CRAM-MD5"), None);
        assert!(Mechanisms::NONE.is_empty() && !Mechanisms::from_iter([Mechanism::Plain]).is_empty());
    }
}
