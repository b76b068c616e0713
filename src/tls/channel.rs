//! One connection's TLS, either side, over plain buffers.
//!
//! A [`Channel`] is fed what the peer sent and hands out plaintext; it is given plaintext and fills its
//! output. It holds bytes only while they are on their way: an incomplete record, output nobody took yet,
//! plaintext written before the handshake ended. Between two messages it owns no buffer.
//!
//! ```text
//!  socket ─▶ feed ─▶ plaintext            write ─▶ take_output ─▶ socket
//!             └────▶ take_output (handshake, tickets, alerts) ─────▶
//! ```
//!
//! After every [`Channel::feed`], also one that failed, send what [`Channel::take_output`] has: the
//! handshake goes on by it, and an alert tells the peer what was wrong.

use std::{fmt, mem, sync::Arc, time::Duration};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, CommonState, Error, HandshakeKind, InvalidMessage,
    PeerIncompatible, ProtocolVersion, ServerConfig,
    client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic},
};
use rustls_pki_types::{CertificateDer, ServerName};

use crate::{
    Binding, Credentials, Exported, Shown, Version,
    binding::{server_end_point, take_exported},
    certificates::take_asked_for,
    dane::NoMatch,
};

/// One connection's TLS state.
pub struct Channel {
    connection: Connection,
    /// Ciphertext not yet processed: less than a record, or a handshake message in several records.
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Plaintext written before the handshake ended.
    early: Vec<u8>,
    server_name: Option<Box<str>>,
    /// What ties to it, on the client's side, in TLS 1.3.
    exported: Option<Box<Exported>>,
    peer_closed: bool,
    failure: Option<TlsError>,
}

/// Where the connection stands after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Keys are agreed; what is written goes out.
    pub handshake_done: bool,
    /// The peer said that nothing follows (`close_notify`). An end of stream without it is a cut.
    pub peer_closed: bool,
}

/// What was agreed on, for the `Received` field and the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The version.
    pub version: Version,
    /// The cipher suite as IANA spells it.
    pub cipher_suite: &'static str,
    /// The key exchange group as IANA spells it; none in a TLS 1.2 session that was resumed.
    pub group: Option<&'static str>,
    /// The name the client asked for (SNI), on the server's side.
    pub server_name: Option<Box<str>>,
    /// Whether an earlier session was taken up again.
    pub resumed: bool,
}

/// What is wrong with a certificate, as reports tell it apart (RFC 8460 §4.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is for others.
    Name,
    /// It is too old, or not yet valid.
    Time,
    /// Nobody believed has issued it.
    Issuer,
    /// Something else.
    Other,
}

impl TlsError {
    /// What is wrong with the certificate of the other side, or with all else.
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls's own enum, which may grow")]
    pub const fn flaw(&self) -> Flaw {
        match self {
            Self::Certificate(why) => match why {
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Flaw::Name
                }
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Flaw::Time,
                CertificateError::UnknownIssuer => Flaw::Issuer,
                _ => Flaw::Other,
            },
            Self::NotTls
            | Self::Incompatible(_)
            | Self::NoRecord
            | Self::Alert(_)
            | Self::ServerName
            | Self::TooMuch
            | Self::Protocol(_) => Flaw::Other,
        }
    }
}

impl fmt::Display for Session {
    /// `TLSv1.3 TLS_AES_256_GCM_SHA384`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.cipher_suite)
    }
}

/// Why a connection's TLS has ended. Nothing more can be read or written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// The first bytes are no TLS record: most likely the peer speaks in clear.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// No version, cipher suite or key exchange that both sides have.
    #[error("nothing in common with the peer: {0:?}")]
    Incompatible(PeerIncompatible),
    /// The certificate was not accepted.
    #[error("the certificate was not accepted: {0}")]
    Certificate(rustls::CertificateError),
    /// The certificate is not what the TLSA records of the server say.
    #[error("the certificate was not accepted: no TLSA record matches it")]
    NoRecord,
    /// The peer gave up, and said why.
    #[error("the peer sent the alert {0:?}")]
    Alert(AlertDescription),
    /// The name cannot be asked for in TLS.
    #[error("not a host name")]
    ServerName,
    /// More than a handshake needs, or than may wait for its end.
    #[error("too many bytes before the handshake's end")]
    TooMuch,
    /// Any other breach of the protocol.
    #[error("protocol violation: {0}")]
    Protocol(Error),
}

// A handshake message has at most 64 KiB here (rustls refuses larger ones), in records of up to 18 KiB.
const INCOMING_MAX: usize = 96 * 1024;
// So much is taken in at once, however much the caller has: one full record.
const PIECE_MAX: usize = 16 * 1024 + 256;
// A server writes its greeting before the handshake ends; nobody has more to say by then.
const EARLY_MAX: usize = 64 * 1024;
/// Plaintext in a full record (RFC 8446 §5.1).
const RECORD_MAX: usize = 16 * 1024;
// Header, nonce, tag and content type of a record of any suite, rounded up.
const RECORD_OVERHEAD: usize = 64;

impl Channel {
    /// Our side is the server's.
    ///
    /// # Errors
    /// [`TlsError::Protocol`] when the provider fails.
    pub fn server(config: &Arc<ServerConfig>) -> Result<Self, TlsError> {
        let connection = UnbufferedServerConnection::new(Arc::clone(config))?;
        Ok(Self::new(Connection::Server(Box::new(connection))))
    }

    /// Our side is the client's, which calls the server `name`: a host name or an IP address. The output
    /// has the first message at once.
    ///
    /// # Errors
    /// [`TlsError::ServerName`], or [`TlsError::Protocol`] when the provider fails.
    pub fn client(config: &Arc<ClientConfig>, name: &str) -> Result<Self, TlsError> {
        // SNI is without the trailing dot (RFC 6066 §3).
        let name = name.strip_suffix('.').unwrap_or(name).to_owned();
        let name = ServerName::try_from(name).map_err(|_| TlsError::ServerName)?;
        let connection = UnbufferedClientConnection::new(Arc::clone(config), name)?;
        let mut channel = Self::new(Connection::Client(Box::new(connection)));
        channel.run(Task::Read(&mut |_| ()))?;
        Ok(channel)
    }

    /// The peer sent these bytes, cut anywhere. What they held is handed out in order.
    ///
    /// # Errors
    /// [`TlsError`]; the alert for the peer is in the output, and every later call fails likewise.
    pub fn feed(
        &mut self,
        ciphertext: &[u8],
        on_plaintext: &mut dyn FnMut(&[u8]),
    ) -> Result<Progress, TlsError> {
        for piece in ciphertext.chunks(PIECE_MAX) {
            if self.peer_closed {
                // "Any data received after a closure alert has been received MUST be ignored"
                // (RFC 8446 §6.1).
                break;
            }
            self.incoming.extend_from_slice(piece);
            self.run(Task::Read(on_plaintext))?;
            if self.incoming.len() > INCOMING_MAX {
                return Err(self.fail(TlsError::TooMuch));
            }
        }
        if !self.early.is_empty() && self.handshake_done() {
            let early = mem::take(&mut self.early);
            self.run(Task::Write(&early))?;
        }
        Ok(self.progress())
    }

    /// Encrypts plaintext into the output. Before the handshake's end it waits for that.
    ///
    /// # Errors
    /// [`TlsError`] when the connection has failed.
    pub fn write(&mut self, plaintext: &[u8]) -> Result<(), TlsError> {
        if self.handshake_done() {
            return self.run(Task::Write(plaintext));
        }
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if self.early.len() + plaintext.len() > EARLY_MAX {
            return Err(self.fail(TlsError::TooMuch));
        }
        self.early.extend_from_slice(plaintext);
        Ok(())
    }

    /// Encrypts many slices as one run of bytes: short ones share a record.
    ///
    /// # Errors
    /// [`TlsError`] when the connection has failed.
    pub fn write_slices<'a>(&mut self, slices: impl IntoIterator<Item = &'a [u8]>) -> Result<(), TlsError> {
        let mut gathered = Vec::new();
        for mut slice in slices {
            if gathered.is_empty() {
                // Whole records need no gathering.
                let (whole, rest) = slice.split_at(slice.len() - slice.len() % RECORD_MAX);
                self.write(whole)?;
                slice = rest;
            }
            while !slice.is_empty() {
                let (part, rest) = slice.split_at(slice.len().min(RECORD_MAX - gathered.len()));
                gathered.extend_from_slice(part);
                slice = rest;
                if gathered.len() == RECORD_MAX {
                    self.write(&gathered)?;
                    gathered.clear();
                }
            }
        }
        self.write(&gathered)
    }

    /// Tells the peer that nothing follows (RFC 8446 §6.1). Call it once, behind the last write.
    pub fn close_notify(&mut self) {
        // A connection that failed has said so already, by its alert.
        drop(self.run(Task::Close));
    }

    /// Moves everything that is to be sent to the end of `output`.
    pub fn take_output(&mut self, output: &mut Vec<u8>) {
        if output.is_empty() {
            *output = mem::take(&mut self.outgoing);
        } else {
            output.append(&mut self.outgoing);
            self.outgoing = Vec::new();
        }
    }

    /// How many bytes wait to be sent.
    pub const fn output_len(&self) -> usize {
        self.outgoing.len()
    }

    /// Where the connection stands.
    pub fn progress(&self) -> Progress {
        Progress { handshake_done: self.handshake_done(), peer_closed: self.peer_closed }
    }

    /// What was agreed on, once the handshake is done.
    pub fn session(&self) -> Option<Session> {
        let common = self.common();
        if common.is_handshaking() {
            return None;
        }
        let cipher_suite = common.negotiated_cipher_suite()?.suite().as_str()?;
        Some(Session {
            version: if common.protocol_version()? == ProtocolVersion::TLSv1_3 {
                Version::Tls13
            } else {
                Version::Tls12
            },
            cipher_suite: iana_name(cipher_suite),
            group: common.negotiated_key_exchange_group().and_then(|group| group.name().as_str()),
            server_name: self.server_name.clone(),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }

    /// What a login of ours may be tied to, once the handshake is done; none on the server's side, and where there is nothing.
    pub fn binding(&self) -> Option<Binding> {
        let Connection::Client(client) = &self.connection else { return None };
        if !self.handshake_done() {
            return None;
        }
        if client.protocol_version()? == ProtocolVersion::TLSv1_3 {
            return self.exported.as_ref().map(|exported| Binding::Exporter(**exported));
        }
        server_end_point(client.peer_certificates()?.first()?).map(Binding::ServerEndPoint)
    }

    /// The chain that the other side has shown, its own certificate first.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.common().peer_certificates().unwrap_or_default()
    }

    /// What the client has shown to us, in this session or in the one that it goes back to, so long after 1970 began.
    pub fn shown(&self, credentials: &Credentials, now: Duration) -> Shown {
        credentials.judge(self.peer_certificates(), now)
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            early: Vec::new(),
            server_name: None,
            exported: None,
            peer_closed: false,
            failure: None,
        }
    }

    fn handshake_done(&self) -> bool {
        self.failure.is_none() && !self.common().is_handshaking()
    }

    fn common(&self) -> &CommonState {
        match &self.connection {
            Connection::Client(client) => client,
            Connection::Server(server) => server,
        }
    }

    /// Processes what has come in, then does the task if it is one of writing.
    fn run(&mut self, mut task: Task<'_>) -> Result<(), TlsError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let mut consumed = 0;
        let mut outcome = Ok(());
        loop {
            let input = &mut self.incoming[consumed..];
            let (discard, step) = match &mut self.connection {
                Connection::Client(c) => {
                    take_step(c.process_tls_records(input), &mut self.outgoing, &mut task)
                }
                Connection::Server(c) => {
                    take_step(c.process_tls_records(input), &mut self.outgoing, &mut task)
                }
            };
            consumed += discard;
            match step {
                Ok(Step::Continue) => {}
                Ok(Step::PeerClosed) => self.peer_closed = true,
                Ok(Step::Wait) => break,
                Err(error) if outcome.is_ok() => outcome = Err(error),
                Err(_) => break,
            }
            // The alert that tells the peer is still to be encoded. When it is, rustls must not be called
            // again: it would read the bad record once more and assert that it never sends two alerts.
            if outcome.is_err() && !self.common().wants_write() {
                break;
            }
        }
        if consumed == self.incoming.len() || self.peer_closed {
            self.incoming = Vec::new();
        } else {
            self.incoming.drain(..consumed);
        }
        if let Some(name) = take_asked_for() {
            self.server_name = Some(name);
        }
        if let Some(exported) = take_exported() {
            self.exported = Some(Box::new(exported));
        }
        outcome.map_err(|error| self.fail(error.into()))
    }

    fn fail(&mut self, failure: TlsError) -> TlsError {
        self.incoming = Vec::new();
        self.early = Vec::new();
        self.failure.insert(failure).clone()
    }
}

impl std::fmt::Debug for Channel {
    /// Without any bytes: they are the users'.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("session", &self.session()).finish_non_exhaustive()
    }
}

impl From<Error> for TlsError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls's own enum, which may grow")]
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls,
            Error::PeerIncompatible(why) => Self::Incompatible(why),
            Error::InvalidCertificate(CertificateError::Other(why)) if why.0.is::<NoMatch>() => {
                Self::NoRecord
            }
            Error::InvalidCertificate(why) => Self::Certificate(why),
            Error::AlertReceived(alert) => Self::Alert(alert),
            error => Self::Protocol(error),
        }
    }
}

enum Connection {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

enum Task<'a> {
    Read(&'a mut dyn FnMut(&[u8])),
    Write(&'a [u8]),
    Close,
}

enum Step {
    Continue,
    PeerClosed,
    Wait,
}

/// Does what rustls asks next; also says how many bytes of input are spent.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls's own enum, which may grow")]
fn take_step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    outgoing: &mut Vec<u8>,
    task: &mut Task<'_>,
) -> (usize, Result<Step, Error>) {
    let mut discard = status.discard;
    let step = status.state.and_then(|state| match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record?;
                discard += record.discard;
                if let Task::Read(on_plaintext) = task {
                    on_plaintext(record.payload);
                }
            }
            Ok(Step::Continue)
        }
        ConnectionState::EncodeTlsData(mut encode) => {
            append(outgoing, RECORD_OVERHEAD, |room| match encode.encode(room) {
                Ok(written) => Ok(Room::Used(written)),
                Err(EncodeError::InsufficientSize(size)) => Ok(Room::Needed(size.required_size)),
                Err(EncodeError::AlreadyEncoded) => Ok(Room::Used(0)),
            })?;
            Ok(Step::Continue)
        }
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            Ok(Step::Continue)
        }
        ConnectionState::WriteTraffic(traffic) => {
            write_traffic(traffic, outgoing, task)?;
            Ok(Step::Wait)
        }
        ConnectionState::PeerClosed => Ok(Step::PeerClosed),
        ConnectionState::BlockedHandshake | ConnectionState::Closed => Ok(Step::Wait),
        // Early data is not offered by our servers; no other state is known.
        _ => Err(Error::General("unexpected state".into())),
    });
    (discard, step)
}

fn write_traffic<D>(
    mut traffic: WriteTraffic<'_, D>,
    outgoing: &mut Vec<u8>,
    task: &mut Task<'_>,
) -> Result<(), Error> {
    let room = |result| match result {
        Ok(written) => Ok(Room::Used(written)),
        Err(EncryptError::InsufficientSize(size)) => Ok(Room::Needed(size.required_size)),
        Err(EncryptError::EncryptExhausted) => Err(Error::EncryptError),
    };
    match task {
        Task::Read(_) => Ok(()),
        Task::Write(plaintext) => {
            let expected = plaintext.len() + (plaintext.len() / RECORD_MAX + 1) * RECORD_OVERHEAD;
            append(outgoing, expected, |space| room(traffic.encrypt(plaintext, space)))
        }
        Task::Close => append(outgoing, RECORD_OVERHEAD, |space| room(traffic.queue_close_notify(space))),
    }
}

enum Room {
    Used(usize),
    Needed(usize),
}

/// Lets `fill` write behind the end of `outgoing`, with as much room as it asks for.
fn append(
    outgoing: &mut Vec<u8>,
    expected: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<Room, Error>,
) -> Result<(), Error> {
    let start = outgoing.len();
    let mut size = expected;
    loop {
        outgoing.resize(start + size, 0);
        match fill(&mut outgoing[start..]) {
            Ok(Room::Needed(needed)) if needed > size => size = needed,
            Ok(Room::Used(written)) => {
                outgoing.truncate(start + written);
                return Ok(());
            }
            Ok(Room::Needed(_)) => {
                outgoing.truncate(start);
                return Err(Error::EncryptError);
            }
            Err(error) => {
                outgoing.truncate(start);
                return Err(error);
            }
        }
    }
}

/// rustls marks the suites of TLS 1.3 in their names; the registry does not.
pub(crate) fn iana_name(suite: &'static str) -> &'static str {
    match suite {
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        suite => suite,
    }
}

#[cfg(test)]
#[path = "channel_test.rs"]
mod test;
