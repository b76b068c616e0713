//! Who we are to a server, and what we know that proves it.

use std::fmt;

use crate::Mechanism;

/// Who logs in, and by what.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Box<str>,
    secret: Secret,
}

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// A password.
    Password(Box<str>),
    /// A token (`XOAUTH2`).
    Token(Box<str>),
}

/// Why something cannot be used to log in. Its words hold nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// Control characters are what mechanisms part their words by.
    #[error("it has control characters or several lines")]
    Control,
    /// Octets that are no text.
    #[error("it is not UTF-8")]
    Utf8,
}

impl Credentials {
    /// Of this user.
    ///
    /// # Errors
    /// [`SecretError`], of either.
    pub fn new(user: &str, secret: Secret) -> Result<Self, SecretError> {
        let (Secret::Password(text) | Secret::Token(text)) = &secret;
        for text in [user, text] {
            if text.is_empty() {
                return Err(SecretError::Empty);
            }
            if text.chars().any(char::is_control) {
                return Err(SecretError::Control);
            }
        }
        Ok(Self { user: user.into(), secret })
    }

    /// Who it is.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What proves it.
    pub(crate) const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Whether a text has the secret in it.
    pub fn stand_in(&self, text: &str) -> bool {
        let (Secret::Password(secret) | Secret::Token(secret)) = &self.secret;
        text.contains(&**secret)
    }

    /// Whether one can log in by it with this mechanism. For SCRAM names and passwords have to be prepared (RFC 5802 §2.2), which
    /// leaves visible US-ASCII as it is, and which we do not do with anything else.
    pub fn fit(&self, mechanism: Mechanism) -> bool {
        match (mechanism, &self.secret) {
            (
                Mechanism::ScramSha256Plus
                | Mechanism::ScramSha1Plus
                | Mechanism::ScramSha256
                | Mechanism::ScramSha1,
                Secret::Password(password),
            ) => self.user.is_ascii() && password.is_ascii(),
            (Mechanism::Plain | Mechanism::Login, Secret::Password(_))
            | (Mechanism::XOAuth2, Secret::Token(_)) => true,
            (
                Mechanism::ScramSha256Plus
                | Mechanism::ScramSha1Plus
                | Mechanism::ScramSha256
                | Mechanism::ScramSha1
                | Mechanism::Plain
                | Mechanism::Login,
                Secret::Token(_),
            )
            | (Mechanism::XOAuth2, Secret::Password(_)) => false,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_is_no_secret_is_told_and_not_shown() {
        let password = |text: &str| Secret::Password(text.into());
        assert_eq!(Credentials::new("ann", password("")), Err(SecretError::Empty));
        assert_eq!(Credentials::new("", password("x")), Err(SecretError::Empty));
        assert_eq!(Credentials::new("ann", password("a\nb")), Err(SecretError::Control));
        assert_eq!(Credentials::new("a\u{1}b", password("a")), Err(SecretError::Control));
        let known = Credentials::new("ann", password("open sesame")).unwrap();
        assert_eq!(known.user(), "ann");
        assert!(known.stand_in("it was open sesame, no?") && !known.stand_in("it was closed"));
        let shown = format!("{known:?} {:?} {:?}", known.secret(), Secret::Token("sesame".into()));
        assert!(!shown.contains("sesame"), "{shown}");
    }

    #[test]
    fn what_fits() {
        let fits = |secret: Secret| {
            let known = Credentials::new("ann", secret).unwrap();
            Mechanism::ALL.map(|mechanism| known.fit(mechanism))
        };
        assert_eq!(fits(Secret::Password("x".into())), [true, true, true, true, false, true, true]);
        assert_eq!(fits(Secret::Password("é".into())), [false, false, false, false, false, true, true]);
        assert_eq!(fits(Secret::Token("x".into())), [false, false, false, false, true, false, false]);
    }
}
