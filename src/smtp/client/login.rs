//! Logging in (RFC 4954): the strongest mechanism that both sides have, and never a secret for everybody to read.
//!
//! ```text
//!  AUTH name [initial] ─▶ 334 challenge ─▶ response ─▶ … ─▶ 235
//!                                     └─▶ Derive ─▶ response
//! ```

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sasl::{
    Binding, ChannelBinding, Credentials, Derivation, Exchange, ExchangeError, Mechanism, Mechanisms,
    Response, Salted,
};

use super::{Channel, Offers, Reply, TlsLevel};

/// As whom we log in, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Who, and by what.
    pub credentials: Credentials,
    /// The mechanisms that may be used. Of those that the next hop offers as well, the strongest is.
    pub mechanisms: Mechanisms,
    /// What has to stand before anything is said.
    pub secrecy: Secrecy,
    /// Visible US-ASCII without a comma that was never used before.
    pub nonce: Box<str>,
    /// What ties it to the connection, once TLS stands.
    pub binding: Option<ChannelBinding>,
}

/// What has to protect a login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secrecy {
    /// TLS, with a certificate that is good for the host.
    #[default]
    Verified,
    /// TLS, with any certificate: whoever can stand between may read it.
    Tls,
    /// Nothing.
    None,
}

/// Why we are not logged in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLogin {
    /// The connection is not what the login asks for.
    #[error("we do not log in without {0}")]
    NotProtected(Secrecy),
    /// Nothing that the next hop offers is allowed, or fits what we have.
    #[error("the next hop offers no way to log in that we may use")]
    NotOffered,
    /// The next hop does not take it. What it said before it refused comes last.
    #[error("the next hop does not take our login ({0}): {1}{said}", said = said(.2.as_deref()))]
    Refused(Mechanism, Reply, Option<Box<str>>),
    /// The exchange came to nothing.
    #[error("logging in by {0}: {1}")]
    Broken(Mechanism, ExchangeError),
    /// There is nothing to log in by.
    #[error("we cannot log in: {0}")]
    NoSecret(Box<str>),
}

/// A login under way.
#[derive(Debug)]
pub(super) struct LoggingIn {
    exchange: Exchange,
    login: Login,
    /// Mechanisms that are left to be tried.
    left: Mechanisms,
    /// What is said to the first challenge, where it was too long for the command.
    held: Option<Vec<u8>>,
    /// What we have said, encoded: a next hop that says it again says it into our log.
    spoken: Vec<String>,
}

/// What the client does next.
#[derive(Debug)]
pub(super) enum Next {
    Read,
    Derive(Derivation),
    Done,
}

/// Octets of a command line with its end (RFC 5321 §4.5.3.1.4); an initial response that does not fit waits for the first
/// challenge (RFC 4954 §4).
const LINE_MAX: usize = 512;

impl Login {
    /// What is said of the channel. Who could be tied to it says so also where no such mechanism is offered: a server that has
    /// one then refuses, since somebody has taken it out of what it offers (RFC 5802 §6).
    fn binding(&self, mechanism: Mechanism, offered: Mechanisms) -> Binding<'_> {
        match &self.binding {
            Some(binding) if mechanism.is_bound() => Binding::To(binding),
            Some(_) if self.mechanisms.has_bound() && !offered.has_bound() => Binding::NotOffered,
            Some(_) | None => Binding::None,
        }
    }
}

impl LoggingIn {
    /// Begins, if the connection and what is offered allow it.
    pub(super) fn begin(
        login: &Login,
        offers: &Offers,
        channel: Channel,
        tls: TlsLevel,
        out: &mut Vec<u8>,
    ) -> Result<Self, NoLogin> {
        let is_protected = match (login.secrecy, channel, tls) {
            (Secrecy::None, ..) | (Secrecy::Tls, Channel::Tls, _) => true,
            // The driver's handshake would have failed.
            (Secrecy::Verified, Channel::Tls, TlsLevel::Verified | TlsLevel::Demanded) => true,
            (Secrecy::Tls, Channel::Clear, _)
            | (Secrecy::Verified, Channel::Clear, _)
            | (
                Secrecy::Verified,
                Channel::Tls,
                TlsLevel::None | TlsLevel::Opportunistic | TlsLevel::Required,
            ) => false,
        };
        if !is_protected {
            return Err(NoLogin::NotProtected(login.secrecy));
        }
        let usable = Mechanism::ALL.into_iter().filter(|mechanism| {
            offers.auth.has(*mechanism)
                && login.mechanisms.has(*mechanism)
                && login.credentials.fit(*mechanism)
                && (!mechanism.is_bound() || login.binding.is_some())
        });
        Self::try_by(login.clone(), usable.collect(), offers.auth, out).ok_or(NoLogin::NotOffered)
    }

    /// By the strongest of these, of all that are offered.
    fn try_by(login: Login, left: Mechanisms, offered: Mechanisms, out: &mut Vec<u8>) -> Option<Self> {
        let mechanism = Mechanism::ALL.into_iter().find(|mechanism| left.has(*mechanism))?;
        let left =
            Mechanism::ALL.into_iter().filter(|other| left.has(*other) && *other != mechanism).collect();
        let binding = login.binding(mechanism, offered);
        let (exchange, initial) = Exchange::begin(mechanism, &login.credentials, &login.nonce, binding);
        let mut line = format!("AUTH {mechanism}");
        let (mut held, mut spoken) = (None, Vec::new());
        if let Some(initial) = initial {
            let encoded = STANDARD.encode(&initial);
            if line.len() + " \r\n".len() + encoded.len() <= LINE_MAX {
                line.push(' ');
                line.push_str(&encoded);
                spoken.push(encoded);
            } else {
                held = Some(initial);
            }
        }
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
        Some(Self { exchange, login, left, held, spoken })
    }

    pub(super) fn on_reply(
        &mut self,
        reply: Reply,
        offers: &mut Offers,
        out: &mut Vec<u8>,
    ) -> Result<Next, NoLogin> {
        let mechanism = self.exchange.mechanism();
        if reply.code() == 334 {
            return self.on_challenge(reply.text(), out);
        }
        if reply.is_completion() {
            self.exchange.on_success().map_err(|error| NoLogin::Broken(mechanism, error))?;
            return Ok(Next::Done);
        }
        // "authentication mechanism is too weak" (534), or is not known here after all (504): another may do (RFC 4954 §6).
        // That the password is wrong is no reason to show it by a weaker one.
        if matches!(reply.code(), 504 | 534) {
            offers.auth =
                Mechanism::ALL.into_iter().filter(|m| offers.auth.has(*m) && *m != mechanism).collect();
            if let Some(next) = Self::try_by(self.login.clone(), self.left, offers.auth, out) {
                *self = next;
                return Ok(Next::Read);
            }
        }
        let said = self.exchange.complaint().filter(|said| !self.gives_away(said)).map(Into::into);
        let reply = if self.gives_away(reply.text()) {
            Reply::new(reply.code(), reply.status(), "(its words repeat ours)")
        } else {
            reply
        };
        Err(NoLogin::Refused(mechanism, reply, said))
    }

    fn on_challenge(&mut self, text: &str, out: &mut Vec<u8>) -> Result<Next, NoLogin> {
        if let Some(initial) = self.held.take() {
            self.say(&initial, out);
            return Ok(Next::Read);
        }
        let challenge = STANDARD.decode(text.trim()).map_err(|_| ExchangeError::Syntax);
        match challenge.and_then(|challenge| self.exchange.on_challenge(&challenge)) {
            Ok(Response::Send(response)) => {
                self.say(&response, out);
                Ok(Next::Read)
            }
            Ok(Response::Derive(derivation)) => Ok(Next::Derive(derivation)),
            Err(error) => {
                // "If the client wishes to cancel the authentication exchange, it issues a line with a single '*'" (RFC 4954 §4).
                out.extend_from_slice(b"*\r\n");
                Err(NoLogin::Broken(self.exchange.mechanism(), error))
            }
        }
    }

    pub(super) fn on_derived(&mut self, salted: &Salted, out: &mut Vec<u8>) {
        let proof = self.exchange.on_derived(salted);
        self.say(&proof, out);
    }

    fn say(&mut self, response: &[u8], out: &mut Vec<u8>) {
        let encoded = STANDARD.encode(response);
        out.extend_from_slice(encoded.as_bytes());
        out.extend_from_slice(b"\r\n");
        self.spoken.push(encoded);
    }

    /// Whether there is something in what the next hop says that nobody is to read.
    fn gives_away(&self, text: &str) -> bool {
        /// What is shorter may be anything.
        const LENGTH_MIN: usize = 4;
        self.login.credentials.stand_in(text)
            || self.spoken.iter().any(|said| said.len() >= LENGTH_MIN && text.contains(&**said))
    }
}

fn said(complaint: Option<&str>) -> String {
    complaint.map(|complaint| format!(" (it said {complaint})")).unwrap_or_default()
}

impl fmt::Display for Secrecy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Verified => "TLS and a certificate that is good for the host",
            Self::Tls => "TLS",
            Self::None => "a connection",
        })
    }
}
