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
}
