//! SCRAM: both sides prove that they know the password, and neither says it (RFC 5802, RFC 7677).
//!
//! With channel binding (the mechanisms of a name in `-PLUS`) they prove as well that they are at the two ends of the same TLS
//! connection; without it, a certificate that has been looked at says who the server is.

use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{Binding, ExchangeError};

/// The least times that a password is hashed: "at least 4096" (RFC 7677 §4). Fewer make it easy to guess for whoever has seen the
/// exchange.
pub const ITERATIONS_MIN: u32 = 4096;
/// The most, so that a server cannot keep us busy for long: a second or so.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// The hash that a mechanism is named for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
}

/// A password that is to be hashed many times: work of milliseconds, which the driver does where it holds nobody up. The
/// result is the same as long as the server keeps its salt, and may be kept (RFC 5802 §5.1).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Derivation {
    hash: Hash,
    password: Box<str>,
    salt: Box<[u8]>,
    iterations: u32,
}

/// A password with its salt: as good as the password at that server.
#[derive(Clone, PartialEq, Eq)]
pub struct Salted(Box<[u8]>);

/// Our side of an exchange.
pub(crate) struct Scram {
    hash: Hash,
    password: Box<str>,
    nonce: Box<str>,
    /// What is said of the channel, and what ties us to it: `cbind-input` (RFC 5802 §7).
    bound: Vec<u8>,
    first_bare: String,
    state: State,
}

enum State {
    /// Our first message is with the server.
    First,
    /// The password is being hashed.
    Derive { server_first: String, server_nonce: String },
    /// Our proof is with the server, which is to show this.
    Final { signature: Box<[u8]> },
    /// It has.
    Proven,
}

/// What the server's first message asks for.
pub(crate) enum Step {
    Derive(Derivation),
    /// The server has shown that it knows the password; the answer to that is empty.
    Proven,
}

impl Hash {
    fn hmac(self, key: &[u8], text: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), text)
    }

    fn digest(self, text: &[u8]) -> digest::Digest {
        digest::digest(
            match self {
                Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
                Self::Sha256 => &digest::SHA256,
            },
            text,
        )
    }
}

impl Derivation {
    /// Does the work.
    pub fn derive(&self) -> Salted {
        let (algorithm, length) = match self.hash {
            Hash::Sha1 => (pbkdf2::PBKDF2_HMAC_SHA1, 20),
            Hash::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        };
        let iterations = std::num::NonZeroU32::new(self.iterations).unwrap_or(std::num::NonZeroU32::MIN);
        let mut salted = vec![0; length];
        pbkdf2::derive(algorithm, iterations, &self.salt, self.password.as_bytes(), &mut salted);
        Salted(salted.into())
    }
}

impl Scram {
    /// Begins, and gives our first message.
    pub(crate) fn begin(
        hash: Hash,
        (user, password): (&str, &str),
        nonce: &str,
        binding: Binding<'_>,
    ) -> (Self, Vec<u8>) {
        // A comma would end the name (RFC 5802 §5.1).
        let name = user.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={name},r={nonce}");
        let header = binding.header();
        let message = format!("{header}{first_bare}").into_bytes();
        let bound = [header.as_bytes(), binding.data()].concat();
        let (password, nonce) = (password.into(), nonce.into());
        (Self { hash, password, nonce, bound, first_bare, state: State::First }, message)
    }

    pub(crate) fn on_challenge(&mut self, challenge: &str) -> Result<Step, ExchangeError> {
        match &self.state {
            State::First => self.on_first(challenge).map(Step::Derive),
            State::Final { signature } => {
                let mut attributes = challenge.split(',');
                let shown = match attributes.next().and_then(|attribute| attribute.split_once('=')) {
                    Some(("v", shown)) => STANDARD.decode(shown).map_err(|_| ExchangeError::Syntax)?,
                    Some(("e", error)) => return Err(ExchangeError::Server(words(error))),
                    Some(_) | None => return Err(ExchangeError::Syntax),
                };
                constant_time::verify_slices_are_equal(&shown, signature)
                    .map_err(|_| ExchangeError::NotProven)?;
                self.state = State::Proven;
                Ok(Step::Proven)
            }
            State::Derive { .. } | State::Proven => Err(ExchangeError::Syntax),
        }
    }

    fn on_first(&mut self, challenge: &str) -> Result<Derivation, ExchangeError> {
        // Stricter servers say at once that they will have nothing to do with our channel binding.
        if let Some(error) = challenge.strip_prefix("e=") {
            return Err(ExchangeError::Server(words(error)));
        }
        let mut attributes = challenge.split(',');
        let mut next = |name: &str| {
            let (found, value) = attributes.next()?.split_once('=')?;
            (found == name).then_some(value)
        };
        // "m=" in front would be an extension that has to be understood (RFC 5802 §5.1), and is not.
        let server_nonce = next("r").ok_or(ExchangeError::Syntax)?;
        let salt = next("s").and_then(|salt| STANDARD.decode(salt).ok()).ok_or(ExchangeError::Syntax)?;
        let iterations = next("i").ok_or(ExchangeError::Syntax)?;
        // "the client MUST verify that the initial part of the nonce … is the same as the one it sent" (RFC 5802 §5.1).
        let is_ours = server_nonce.len() > self.nonce.len() && server_nonce.starts_with(&*self.nonce);
        if !is_ours || salt.is_empty() {
            return Err(ExchangeError::Syntax);
        }
        let counted = !iterations.is_empty() && iterations.bytes().all(|byte| byte.is_ascii_digit());
        let iterations = iterations.parse().ok().filter(|_| counted);
        let iterations = iterations
            .filter(|count| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(count))
            .ok_or(ExchangeError::Iterations)?;
        self.state = State::Derive { server_first: challenge.into(), server_nonce: server_nonce.into() };
        let password = self.password.clone();
        Ok(Derivation { hash: self.hash, password, salt: salt.into(), iterations })
    }

    /// The password is hashed: our last message, with the proof.
    ///
    /// # Panics
    /// When nobody asked for it.
    pub(crate) fn on_derived(&mut self, salted: &Salted) -> Vec<u8> {
        let State::Derive { server_first, server_nonce } = &self.state else {
            unreachable!("no password was to be hashed")
        };
        let without_proof = format!("c={},r={server_nonce}", STANDARD.encode(&self.bound));
        let all = format!("{},{server_first},{without_proof}", self.first_bare);
        let client_key = self.hash.hmac(&salted.0, b"Client Key");
        let stored_key = self.hash.digest(client_key.as_ref());
        let client_signature = self.hash.hmac(stored_key.as_ref(), all.as_bytes());
        let proof: Vec<u8> =
            client_key.as_ref().iter().zip(client_signature.as_ref()).map(|(key, sign)| key ^ sign).collect();
        let server_key = self.hash.hmac(&salted.0, b"Server Key");
        let signature = self.hash.hmac(server_key.as_ref(), all.as_bytes()).as_ref().into();
        self.state = State::Final { signature };
        format!("{without_proof},p={}", STANDARD.encode(proof)).into_bytes()
    }

    pub(crate) const fn is_proven(&self) -> bool {
        matches!(self.state, State::Proven)
    }
}

/// What the server says is wrong, fit for a log.
pub(crate) fn words(text: &str) -> Box<str> {
    const LENGTH_MAX: usize = 200;
    text.chars().filter(|c| !c.is_control()).take(LENGTH_MAX).collect()
}

impl fmt::Debug for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derivation").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl fmt::Debug for Salted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salted(…)")
    }
}
