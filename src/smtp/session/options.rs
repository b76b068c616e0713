//! What a listener gives its sessions.

use std::{sync::Arc, time::Duration};

use mail::Domain;

use crate::Extensions;

/// What all sessions of a listener have in common.
#[derive(Clone, Debug)]
pub struct Options {
    /// Our own name, in the greeting and in replies to EHLO.
    pub hostname: Domain,
    /// Upper bounds.
    pub limits: Limits,
    /// What EHLO offers, STARTTLS apart.
    pub extensions: Extensions,
    /// Where TLS stands when the session opens.
    pub tls: TlsState,
    /// Whom the listener serves.
    pub role: Role,
}

/// Where TLS stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsState {
    /// There is none.
    Absent,
    /// It is configured, but cannot be used now (RFC 3207 §4: 454).
    Unavailable,
    /// The client may begin it.
    Offered,
    /// The client must begin it before it sends mail (RFC 3207 §4: 530).
    Required,
    /// The connection is encrypted.
    Active,
}

/// Whom a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Other mail servers (RFC 5321).
    Relay,
    /// Our own users' programs (RFC 6409).
    Submission,
    /// Servers that want to hear of each recipient, and speak LMTP for that (RFC 2033).
    Lmtp,
}

/// Upper bounds. Everything has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Recipients of one message: at least 100 (RFC 5321 §4.5.3.1.8).
    pub recipients_max: usize,
    /// Octets of a command line with its CRLF: at least 512 (RFC 5321 §4.5.3.1.4), and what the extensions
    /// add: 26 for SIZE, 17 for BODY, 10 for SMTPUTF8, 614 for DSN (RFC 1870, 6152, 6531, 3461).
    pub line_max: usize,
    /// Octets of a message: at least 64 KiB (RFC 5321 §4.5.3.1.7).
    pub message_size_max: u64,
    /// Octets of a refused chunk that are read for the sake of the reply. A larger one ends the session.
    pub discard_max: u64,
    /// The bad command that ends the session; no minimum.
    pub errors_max: u32,
    /// Commands since the last accepted message; room for `recipients_max` and more.
    pub commands_max: u32,
    /// Transactions of one session; no minimum.
    pub transactions_max: u32,
    /// Recipients of one session, whichever message each is of; no minimum.
    pub recipients_per_session_max: u32,
    /// Recipients refused by policy since the last accepted message; the next one ends the session.
    pub recipients_refused_max: u32,
    /// The longest time that a message may be held for (RFC 4865 §3).
    pub hold_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            recipients_max: 1000,
            line_max: 2048,
            message_size_max: 25 << 20,
            discard_max: 100 << 20,
            errors_max: 20,
            commands_max: 10_000,
            transactions_max: 1_000_000,
            recipients_per_session_max: 1_000_000,
            recipients_refused_max: 1000,
            hold_max: Duration::from_secs(7 * 86_400),
        }
    }
}

impl Options {
    /// A listener for other mail servers, without TLS, all else as usual.
    pub fn new(hostname: Domain) -> Self {
        Self {
            hostname,
            limits: Limits::default(),
            extensions: Extensions::USUAL,
            tls: TlsState::Absent,
            role: Role::Relay,
        }
    }

    /// For [`crate::Session::open`].
    pub fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }
}
