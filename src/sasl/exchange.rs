//! One login, from its first word to the server's yes or no.

use std::fmt;

use crate::{
    Binding, Credentials, Derivation, Mechanism, Salted, Secret,
    scram::{self, Hash, Scram},
};

/// The client's side of a login.
pub struct Exchange {
    mechanism: Mechanism,
    script: Script,
}

/// What we say to a challenge.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Response {
    /// This.
    Send(Vec<u8>),
    /// What comes of this, by [`Exchange::on_derived`].
    Derive(Derivation),
}

/// Why an exchange cannot go on, or came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The challenge is none of this mechanism.
    #[error("the server's challenge is none of this mechanism")]
    Syntax,
    /// It would have the password hashed too seldom, or too often.
    #[error("the server asks for too few or too many iterations")]
    Iterations,
    /// The server said what is wrong.
    #[error("the server says {0}")]
    Server(Box<str>),
    /// It does not know the password: it is not the one that we have an account with.
    #[error("the server has not proven that it knows the password")]
    NotProven,
}

enum Script {
    Scram(Box<Scram>),
    /// What is said one after the other, whatever the challenges are.
    Lines(std::collections::VecDeque<Box<str>>),
    /// A challenge after the token says what is wrong with it.
    Token(Option<Box<str>>),
}

impl Exchange {
    /// Begins. The nonce is any visible US-ASCII without a comma that was never used before. With it comes the initial
    /// response, where the mechanism has one.
    ///
    /// # Panics
    /// When the credentials do not fit the mechanism, or it is one that is tied to a channel and there is nothing to tie it to.
    pub fn begin(
        mechanism: Mechanism,
        credentials: &Credentials,
        nonce: &str,
        binding: Binding<'_>,
    ) -> (Self, Option<Vec<u8>>) {
        assert!(credentials.fit(mechanism), "one cannot log in by {mechanism}");
        assert_eq!(mechanism.is_bound(), matches!(binding, Binding::To(_)), "{mechanism} by {binding:?}");
        let user = credentials.user();
        let (Secret::Password(secret) | Secret::Token(secret)) = credentials.secret();
        let (script, initial) = match mechanism {
            Mechanism::ScramSha256Plus | Mechanism::ScramSha256 => {
                scram(Hash::Sha256, (user, secret), nonce, binding)
            }
            Mechanism::ScramSha1Plus | Mechanism::ScramSha1 => {
                scram(Hash::Sha1, (user, secret), nonce, binding)
            }
            Mechanism::XOAuth2 => {
                let initial = format!("user={user}\u{1}auth=Bearer {secret}\u{1}\u{1}");
                (Script::Token(None), Some(initial.into_bytes()))
            }
            Mechanism::Plain => {
                let initial = format!("\0{user}\0{secret}").into_bytes();
                (Script::Lines([].into()), Some(initial))
            }
            Mechanism::Login => (Script::Lines([user.into(), secret.clone()].into()), None),
        };
        (Self { mechanism, script }, initial)
    }

    /// The server sent a challenge.
    ///
    /// # Errors
    /// [`ExchangeError`]: the exchange is to be cancelled.
    pub fn on_challenge(&mut self, challenge: &[u8]) -> Result<Response, ExchangeError> {
        match &mut self.script {
            Script::Scram(scram) => {
                let challenge = std::str::from_utf8(challenge).map_err(|_| ExchangeError::Syntax)?;
                Ok(match scram.on_challenge(challenge)? {
                    scram::Step::Derive(derivation) => Response::Derive(derivation),
                    scram::Step::Proven => Response::Send(Vec::new()),
                })
            }
            Script::Lines(lines) => {
                let line = lines.pop_front().ok_or(ExchangeError::Syntax)?;
                Ok(Response::Send(line.as_bytes().into()))
            }
            // The refusal comes when we have answered to it.
            Script::Token(said @ None) => {
                *said = Some(scram::words(&String::from_utf8_lossy(challenge)));
                Ok(Response::Send(Vec::new()))
            }
            Script::Token(Some(_)) => Err(ExchangeError::Syntax),
        }
    }

    /// What [`Response::Derive`] asked for: what we say.
    ///
    /// # Panics
    /// When nothing was asked for.
    pub fn on_derived(&mut self, salted: &Salted) -> Vec<u8> {
        match &mut self.script {
            Script::Scram(scram) => scram.on_derived(salted),
            Script::Lines(_) | Script::Token(_) => unreachable!("nothing was to be derived"),
        }
    }

    /// The server says that we are logged in.
    ///
    /// # Errors
    /// [`ExchangeError::NotProven`] when it should have shown that it knows the password, and has not; or
    /// [`ExchangeError::Syntax`] when it did not even ask for it.
    pub fn on_success(&self) -> Result<(), ExchangeError> {
        match &self.script {
            Script::Scram(scram) if !scram.is_proven() => Err(ExchangeError::NotProven),
            Script::Lines(lines) if !lines.is_empty() => Err(ExchangeError::Syntax),
            Script::Scram(_) | Script::Lines(_) | Script::Token(_) => Ok(()),
        }
    }

    /// What the server said was wrong before it refused, where the mechanism lets it.
    pub fn complaint(&self) -> Option<&str> {
        match &self.script {
            Script::Token(said) => said.as_deref(),
            Script::Scram(_) | Script::Lines(_) => None,
        }
    }

    /// By which mechanism.
    pub const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }
}

fn scram(hash: Hash, account: (&str, &str), nonce: &str, binding: Binding<'_>) -> (Script, Option<Vec<u8>>) {
    let (scram, first) = Scram::begin(hash, account, nonce, binding);
    (Script::Scram(Box::new(scram)), Some(first))
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "exchange_test.rs"]
mod test;
