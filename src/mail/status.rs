//! Enhanced mail system status codes (RFC 3463).

use std::{fmt, str::FromStr};

/// Class, subject and detail (RFC 3463 §2): `5.1.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status(pub u8, pub u16, pub u16);

/// The first number of a [`Status`] (RFC 3463 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `2`: success.
    Success,
    /// `4`: persistent transient failure: worth another attempt.
    Transient,
    /// `5`: permanent failure.
    Permanent,
}

/// The text is not an enhanced status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an enhanced status code is class.subject.detail with class 2, 4 or 5")]
pub struct StatusError;

/// Statuses of a kind: `5.1.1`, `5.7.*`, `*.1.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatusPattern {
    /// The class; none for any.
    pub class: Option<u8>,
    /// The subject; none for any.
    pub subject: Option<u16>,
    /// The detail; none for any.
    pub detail: Option<u16>,
}

impl StatusPattern {
    /// Whether the status is of this kind.
    pub fn matches(self, status: Status) -> bool {
        let Status(class, subject, detail) = status;
        self.class.is_none_or(|of| of == class)
            && self.subject.is_none_or(|of| of == subject)
            && self.detail.is_none_or(|of| of == detail)
    }
}

impl fmt::Display for StatusPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u16>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let (class, subject, detail) = (self.class.map(u16::from), self.subject, self.detail);
        write!(f, "{}.{}.{}", number(class), number(subject), number(detail))
    }
}

impl FromStr for StatusPattern {
    type Err = StatusError;

    fn from_str(text: &str) -> Result<Self, StatusError> {
        // What is any becomes a number that fits everywhere, so that the rest is judged as a status is.
        let mut parts = text.split('.');
        let mut part = |any: &str| {
            let part = parts.next().ok_or(StatusError)?;
            Ok(if part == "*" { (any.to_owned(), true) } else { (part.to_owned(), false) })
        };
        let (class, subject, detail) = (part("5")?, part("0")?, part("0")?);
        if parts.next().is_some() {
            return Err(StatusError);
        }
        let status: Status = format!("{}.{}.{}", class.0, subject.0, detail.0).parse()?;
        Ok(Self {
            class: (!class.1).then_some(status.0),
            subject: (!subject.1).then_some(status.1),
            detail: (!detail.1).then_some(status.2),
        })
    }
}

impl Status {
    /// The class, if the code has one that RFC 3463 knows.
    pub const fn class(self) -> Option<Class> {
        match self.0 {
            2 => Some(Class::Success),
            4 => Some(Class::Transient),
            5 => Some(Class::Permanent),
            _ => None,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Status {
    type Err = StatusError;

    /// Reads `class "." subject "." detail` (RFC 3463 §2): one digit, then one to three each.
    fn from_str(text: &str) -> Result<Self, StatusError> {
        let mut numbers = text.split('.');
        let mut number = |digits_max: usize| {
            let text = numbers.next().ok_or(StatusError)?;
            let digits =
                !text.is_empty() && text.len() <= digits_max && text.bytes().all(|b| b.is_ascii_digit());
            if digits { text.parse::<u16>().map_err(|_| StatusError) } else { Err(StatusError) }
        };
        let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
        if numbers.next().is_some() || ![2, 4, 5].contains(&class) {
            return Err(StatusError);
        }
        Ok(Self(class as u8, subject, detail))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in ["2.0.0", "5.1.1", "4.999.999"] {
            assert_eq!(text.parse::<Status>().map(|s| s.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "5", "5.1", "5.1.1.1", "3.1.1", "5.1000.1", "5..1", "+5.1.1", "5.1.-1"] {
            assert_eq!(text.parse::<Status>(), Err(StatusError), "{text}");
        }
    }

    #[test]
    fn patterns_are_read_and_matched() {
        for (text, fits, other) in [
            ("5.1.1", "5.1.1", "5.1.2"),
            ("5.7.*", "5.7.606", "4.7.1"),
            ("*.1.1", "4.1.1", "4.1.0"),
            ("*.*.*", "2.0.0", ""),
        ] {
            let pattern: StatusPattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
            assert!(pattern.matches(fits.parse().unwrap()), "{text}");
            assert!(other.parse().map_or(true, |other| !pattern.matches(other)), "{text}");
        }
        for text in ["", "5", "5.1", "5.1.1.1", "3.1.*", "*", "x.1.1", "5.1000.*"] {
            assert_eq!(text.parse::<StatusPattern>(), Err(StatusError), "{text}");
        }
    }
}
