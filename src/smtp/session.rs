//! The server side of one SMTP connection, without the connection.
//!
//! A [`Session`] is told what happened and answers with the one [`Action`] its shard must do
//! next. It owns no socket, no clock and no journal, so a test can walk every path through it.
//!
//! ```text
//!         +------ RCPT ------+
//!         v                  |
//!  Idle --MAIL--> Transaction --DATA--> Asking --354--> Receiving --dot----+
//!   ^  ^                     --BDAT-->    |                                v
//!   |  |                                  +--> Chunk <-> BetweenChunks   Committing
//!   |  +- RSET, EHLO, STARTTLS, a refusal      |                           ^  |
//!   |                                          +--LAST---------------------+  |
//!   +------------------------------ durable or not ---------------------------+
//! ```
//!
//! What is asked of the driver: it does each action, and calls the one input that the action names.
//! Any other call is its bug and panics; only [`Session::on_timeout`] and [`Session::on_shutdown`] may
//! come at any time.

mod chunk;
mod options;

use std::{mem, sync::Arc};

use mail::{
    Address, BodyType, DeliverBy, Domain, Envelope, ForwardPath, Handling, Node, QueueId, Recipient,
    ReversePath, Timestamp, TransferPriority, Upstream, Utf8,
};

pub use options::{Limits, Options, Role, TlsState};

use crate::{
    Aftermath, By, Claim, Claims, Command, Extension, Extensions, Forwarding, Hold, MailParameters,
    Parameters, RcptParameters, Refusal, Reply, SyntaxError,
};

/// What the shard must do next. Every input gives exactly one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Send the reply and read the next line: [`Session::on_line`].
    Reply(Reply),
    /// Read the next line: [`Session::on_line`].
    Read,
    /// Send the reply, then close.
    Close(Reply),
    /// Ask policy: [`Session::on_verdict`]. Read no line before that.
    Judge(Stage),
    /// Send the reply and read mail data until its end: [`Session::on_data_end`].
    Receive(Reply),
    /// Read a chunk of mail data, without a reply before it: [`Session::on_chunk_end`].
    ReceiveChunk {
        /// Octets of the chunk.
        size: u64,
        /// Whether the message begins with it; what an earlier transaction left is to be dropped.
        first: bool,
        /// Whether the message ends with it.
        last: bool,
    },
    /// Read so many octets and throw them away, with all chunks before: [`Session::on_chunk_end`].
    DiscardChunk {
        /// Octets of the chunk.
        size: u64,
    },
    /// Make the received mail data durable with this envelope: [`Session::on_commit`], or [`Session::on_commit_begun`].
    Commit(Envelope),
    /// Have the mail for this node tried now: [`Session::on_released`].
    Release(Node),
    /// Look for the mail of these domains, or for all that the client may have: [`Session::on_called_for`].
    Fetch(Vec<Domain>),
    /// Send the reply; the session is over. From here on the client is the server on this connection, and is sent what
    /// [`Action::Fetch`] has found (RFC 2645 §4).
    Reverse(Reply),
    /// Take the client for the one that this says: [`Session::on_impersonated`].
    Impersonate(Box<Claims>),
    /// Send the reply, throw away what the client sent behind its command, and begin TLS (RFC 3207 §4):
    /// [`Session::on_tls`]. When the handshake fails, close.
    StartTls(Reply),
}

/// What policy is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// May a client of this name go on?
    Ehlo {
        /// The name it gave.
        name: Box<str>,
        /// The verb it used.
        hello: Hello,
    },
    /// May this reverse-path send to us?
    Mail {
        /// Where reports go.
        reverse_path: ReversePath,
        /// What the client said of the message.
        parameters: MailParameters,
    },
    /// May mail go to this forward-path? The shard may put another in its place.
    Rcpt {
        /// Where the message goes. A `Postmaster` that comes back stands for the one at our own name.
        forward_path: ForwardPath,
        /// What the client wants to hear of it.
        parameters: RcptParameters,
    },
    /// May the mail data come? The envelope is [`Session::envelope`].
    Data {
        /// Octets that the client declared or that the first chunk has.
        size: Option<u64>,
    },
}

/// How the client introduced itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// `HELO`: without extensions.
    Helo,
    /// `EHLO`: with them.
    Ehlo,
    /// `LHLO`: with them, in LMTP.
    Lhlo,
}

/// What waits for a node whose mail is tried now (RFC 1985 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing.
    Nothing,
    /// Something.
    Something,
    /// That is still to be found out.
    Unknown,
}

/// Policy's answer.
pub type Verdict = Result<(), Refusal>;

/// One connection's SMTP state.
#[derive(Debug)]
pub struct Session {
    options: Arc<Options>,
    /// Of what not every client is offered.
    granted: Extensions,
    tls: TlsState,
    client: Option<Client>,
    /// How the client that is spoken for introduced itself.
    introduced: Option<Client>,
    /// Where the next message first came from, as the client says.
    upstream: Option<Box<Upstream>>,
    phase: Phase,
    expected: Expected,
    errors: u32,
    commands: u32,
    transactions: u32,
    /// Recipients accepted.
    recipients: u32,
    /// Recipients that policy refused since the last accepted message.
    recipients_refused: u32,
    now: Timestamp,
    /// The priority that the last MAIL asked for.
    priority_asked: TransferPriority,
}

#[derive(Clone, Debug)]
struct Client {
    name: Box<str>,
    hello: Hello,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Transaction(Box<Transaction>),
    BetweenChunks(Box<Transaction>),
    /// As `Idle`, but a chunk of the message refused before is refused again.
    Refused(Refusal, Answers),
    /// No line is read now.
    Busy(Busy),
}

#[derive(Debug)]
enum Busy {
    /// Policy is asked whether mail data may come.
    Asking(Box<Transaction>, Transfer),
    Receiving(Box<Transaction>),
    Chunk(Box<Transaction>, chunk::Chunk),
    /// A chunk is thrown away for this reason.
    Discarding(Refusal, chunk::Chunk, Answers),
    Committing(Answers),
}

/// How many replies the end of a message gets.
#[derive(Clone, Copy, Debug)]
struct Answers(u32);

/// The reply to a message that is being made durable while the session goes on.
#[derive(Debug)]
#[must_use = "the client waits for the reply"]
pub struct Owed(Answers);

/// How mail data comes.
#[derive(Clone, Copy, Debug)]
enum Transfer {
    Data,
    Chunk(chunk::Chunk),
}

/// Boxed wherever it is: between two messages, a session should not carry the room for it.
#[derive(Debug)]
struct Transaction {
    envelope: Envelope,
    size_declared: Option<u64>,
    /// Octets in chunks so far, once there was one.
    received: Option<u64>,
}

/// The input that the last action named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Line,
    Verdict,
    DataEnd,
    ChunkEnd,
    Commit,
    Released,
    CalledFor,
    Impersonated,
    Tls,
    Nothing,
}

impl Session {
    /// A fresh session, and the greeting that opens it (RFC 5321 §3.1).
    pub fn open(options: Arc<Options>) -> (Self, Action) {
        let greeting = greeting(&options);
        let session = Self {
            tls: options.tls,
            granted: Extensions::NONE,
            options,
            client: None,
            introduced: None,
            upstream: None,
            phase: Phase::Idle,
            expected: Expected::Line,
            errors: 0,
            commands: 0,
            transactions: 0,
            recipients: 0,
            recipients_refused: 0,
            now: Timestamp::EPOCH,
            priority_asked: TransferPriority::default(),
        };
        (session, greeting)
    }

    /// What this client may use of what not every client may. Before its EHLO.
    pub const fn grant(&mut self, granted: Extensions) {
        self.granted = granted;
    }

    /// The client sent a line; its CRLF is already removed.
    pub fn on_line(&mut self, line: &[u8]) -> Action {
        self.expect(Expected::Line);
        if let Some(close) = self.count_command() {
            return close;
        }
        let action = match Command::parse(line) {
            Ok(command) => self.on_command(command).unwrap_or_else(|refusal| self.refuse(refusal)),
            // Where the chunk ends is unknown, so its content could be taken for commands.
            Err(error @ SyntaxError::Chunk) => Action::Close(Refusal::from(error).into()),
            Err(error) => self.refuse(error.into()),
        };
        self.act(action)
    }

    /// The client sent a line over the limit, and it was dropped (RFC 5321 §4.5.3.1.4).
    pub fn on_line_too_long(&mut self) -> Action {
        self.expect(Expected::Line);
        if let Some(close) = self.count_command() {
            return close;
        }
        let action = self.refuse(Refusal::LineTooLong);
        self.act(action)
    }

    /// The client sends a line that does not end.
    pub fn on_line_endless(&mut self) -> Action {
        self.expect(Expected::Line);
        self.close(Refusal::LineEndless)
    }

    /// Tells the time: what a client asks for is counted from here. To be called before the verdict on EHLO and MAIL.
    pub const fn on_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Policy answered the last [`Action::Judge`]; the stage comes back with the answer.
    pub fn on_verdict(&mut self, stage: Stage, verdict: Verdict) -> Action {
        self.expect(Expected::Verdict);
        let action = match verdict {
            Ok(()) => self.on_accepted(stage),
            Err(refusal) => self.on_refused(&stage, refusal),
        };
        self.act(action)
    }

    /// The final dot arrived; or the mail data was read to its end, and is refused.
    pub fn on_data_end(&mut self, outcome: Result<(), Refusal>) -> Action {
        self.expect(Expected::DataEnd);
        let Phase::Busy(Busy::Receiving(transaction)) = mem::replace(&mut self.phase, Phase::Idle) else {
            unreachable!("mail data is expected only while it is received")
        };
        let action = match outcome {
            Ok(()) => self.commit(transaction),
            Err(refusal) => self.answers(&transaction).of(refusal.into()),
        };
        self.act(action)
    }

    /// The journal finished: the message is durable under this id, or it is not ours.
    ///
    /// The only way to a `250` after the mail data: we are responsible from here on (RFC 5321 §4.2.5).
    pub fn on_commit(&mut self, outcome: Result<QueueId, Refusal>) -> Action {
        let Owed(answers) = self.committing();
        if outcome.is_ok() {
            (self.commands, self.recipients_refused) = (0, 0);
        }
        self.act(answers.to_commit(outcome))
    }

    /// The journal has begun, and the client has sent more already: the next command is read meanwhile. How it ends is
    /// said to [`Self::on_owed`]; the reply goes out before those to what followed (RFC 2920 §3.2).
    pub fn on_commit_begun(&mut self) -> (Owed, Action) {
        let owed = self.committing();
        // The message was received and judged. Should the journal fail, nobody is the worse for some commands more.
        (self.commands, self.recipients_refused) = (0, 0);
        (owed, self.act(Action::Read))
    }

    /// As [`Self::on_commit`], of a message that the session did not wait for. The answer is a reply, nothing ([`Action::Read`]),
    /// or the end.
    pub fn on_owed(&mut self, Owed(answers): Owed, outcome: Result<QueueId, Refusal>) -> Action {
        let action = answers.to_commit(outcome);
        if matches!(action, Action::Close(_)) {
            self.phase = Phase::Idle;
            return self.act(action);
        }
        action
    }

    fn committing(&mut self) -> Owed {
        self.expect(Expected::Commit);
        let Phase::Busy(Busy::Committing(answers)) = mem::replace(&mut self.phase, Phase::Idle) else {
            unreachable!("a commit ends only where one was asked for")
        };
        Owed(answers)
    }

    /// The mail that [`Action::Release`] is about is being tried; or it is not.
    pub fn on_released(&mut self, node: &Node, outcome: Result<Waiting, Refusal>) -> Action {
        self.expect(Expected::Released);
        let action = match outcome {
            Ok(waiting) => Action::Reply(Reply::released(node, waiting)),
            Err(refusal) => refusal.into(),
        };
        self.act(action)
    }

    /// The mail that [`Action::Fetch`] is about is there; or it is not to be had.
    pub fn on_called_for(&mut self, outcome: Result<(), Refusal>) -> Action {
        self.expect(Expected::CalledFor);
        let action = match outcome {
            Ok(()) => Action::Reverse(Reply::REVERSED),
            Err(refusal) => self.refuse(refusal),
        };
        self.act(action)
    }

    /// The client is taken for another one, who may use this; or that one may not connect. "The server resets state to
    /// the initial SMTP greeting protocol stage", but for the TLS that is between them.
    pub fn on_impersonated(
        &mut self,
        claims: &Claims,
        granted: Extensions,
        outcome: Result<(), Refusal>,
    ) -> Action {
        self.expect(Expected::Impersonated);
        if let Err(refusal) = outcome {
            return self.close(refusal);
        }
        self.granted = granted;
        self.phase = Phase::Idle;
        self.upstream = None;
        let before = self.introduced.take();
        let hello = match (self.options.role, &claims.hello) {
            (Role::Lmtp, _) => Hello::Lhlo,
            (Role::Relay | Role::Submission, Claim::Known(hello)) => *hello,
            (Role::Relay | Role::Submission, Claim::Kept | Claim::Unavailable | Claim::Unknown) => {
                before.as_ref().map_or(Hello::Ehlo, |before| before.hello)
            }
        };
        let name = match &claims.helo {
            Claim::Known(name) => Some(name.clone()),
            Claim::Kept => before.map(|before| before.name),
            Claim::Unavailable | Claim::Unknown => None,
        };
        self.introduced = name.map(|name| Client { name, hello });
        self.client.clone_from(&self.introduced);
        let greeting = greeting(&self.options);
        self.act(greeting)
    }

    /// The TLS handshake is done. The session starts over (RFC 3207 §4.2).
    pub fn on_tls(&mut self) -> Action {
        self.expect(Expected::Tls);
        self.tls = TlsState::Active;
        self.client = None;
        self.upstream = None;
        self.phase = Phase::Idle;
        self.act(Action::Read)
    }

    /// The client was silent for too long (RFC 5321 §4.5.3.2.7), or the whole session lasted too long.
    pub fn on_timeout(&mut self) -> Action {
        self.close(Refusal::Timeout)
    }

    /// The client did not wait for the greeting, which is to be in place of it (RFC 5321 §4.3.1).
    pub fn on_early_talk(&mut self) -> Action {
        self.close(Refusal::EarlyTalker)
    }

    /// Mail data came too slowly for too long.
    pub fn on_too_slow(&mut self) -> Action {
        self.close(Refusal::TooSlow)
    }

    /// The server stops (RFC 5321 §3.8).
    pub fn on_shutdown(&mut self) -> Action {
        self.close(Refusal::ShuttingDown)
    }

    /// How the client introduced itself, and under which name.
    pub fn client(&self) -> Option<(Hello, &str)> {
        self.client.as_ref().map(|client| (client.hello, &*client.name))
    }

    /// Where the message of this transaction, or of the next one, first came from, as the client says.
    pub fn upstream(&self) -> Option<&Upstream> {
        match self.envelope() {
            Some(envelope) => envelope.upstream.as_deref(),
            None => self.upstream.as_deref(),
        }
    }

    /// The envelope of the open transaction, as far as it is known.
    pub fn envelope(&self) -> Option<&Envelope> {
        match &self.phase {
            Phase::Transaction(transaction)
            | Phase::BetweenChunks(transaction)
            | Phase::Busy(
                Busy::Asking(transaction, _) | Busy::Receiving(transaction) | Busy::Chunk(transaction, _),
            ) => Some(&transaction.envelope),
            Phase::Idle | Phase::Refused(..) | Phase::Busy(Busy::Discarding(..) | Busy::Committing(_)) => {
                None
            }
        }
    }

    /// Whether mail data received so far may still become a message. When not, it can be dropped.
    pub const fn is_receiving(&self) -> bool {
        match &self.phase {
            Phase::BetweenChunks(_)
            | Phase::Busy(Busy::Receiving(_) | Busy::Chunk(..) | Busy::Committing(_)) => true,
            Phase::Idle
            | Phase::Transaction(_)
            | Phase::Refused(..)
            | Phase::Busy(Busy::Asking(..) | Busy::Discarding(..)) => false,
        }
    }

    /// Whom the listener serves.
    pub fn role(&self) -> Role {
        self.options.role
    }

    /// Where TLS stands.
    pub const fn tls(&self) -> TlsState {
        self.tls
    }

    /// What the `with` clause of the Received field says (RFC 3848; RFC 6531 §4.3).
    pub fn protocol(&self, utf8: Utf8) -> &'static str {
        let hello = self.client.as_ref().map_or(Hello::Helo, |client| client.hello);
        match (hello, self.tls, utf8) {
            (Hello::Helo, _, _) => "SMTP",
            (Hello::Ehlo, TlsState::Active, Utf8::NotNeeded) => "ESMTPS",
            (Hello::Ehlo, _, Utf8::NotNeeded) => "ESMTP",
            (Hello::Ehlo, TlsState::Active, Utf8::Needed) => "UTF8SMTPS",
            (Hello::Ehlo, _, Utf8::Needed) => "UTF8SMTP",
            (Hello::Lhlo, TlsState::Active, Utf8::NotNeeded) => "LMTPS",
            (Hello::Lhlo, _, Utf8::NotNeeded) => "LMTP",
            (Hello::Lhlo, TlsState::Active, Utf8::Needed) => "UTF8LMTPS",
            (Hello::Lhlo, _, Utf8::Needed) => "UTF8LMTP",
        }
    }

    // Order is checked here, content is judged by policy; see `Stage`.
    fn on_command(&mut self, command: Command<'_>) -> Result<Action, Refusal> {
        if self.tls == TlsState::Required && !allowed_without_tls(&command) {
            if let Command::Bdat { size, last } = command {
                let chunk = chunk::Chunk { size, last };
                return Ok(self.discard(chunk, Refusal::TlsRequired, self.answers_to_nobody()));
            }
            return Err(Refusal::TlsRequired);
        }
        match command {
            // RFC 2033 §4.1: LMTP has neither, so that who speaks the other protocol notices: "The 500 reply code is
            // recommended."
            Command::Ehlo { .. } | Command::Helo { .. } if self.options.role == Role::Lmtp => {
                Err(Refusal::UnknownCommand)
            }
            Command::Lhlo { .. } if self.options.role != Role::Lmtp => Err(Refusal::NotImplemented),
            Command::Ehlo { name } => Ok(judge_name(name, Hello::Ehlo)),
            Command::Helo { name } => Ok(judge_name(name, Hello::Helo)),
            Command::Lhlo { name } => Ok(judge_name(name, Hello::Lhlo)),
            Command::Mail { reverse_path, parameters } => self.on_mail(reverse_path, parameters),
            Command::Rcpt { forward_path, parameters } => self.on_rcpt(forward_path, parameters),
            Command::Data => self.on_data(),
            Command::Bdat { size, last } => Ok(self.on_bdat(size, last)),
            Command::Rset => {
                self.phase = Phase::Idle;
                self.upstream = None;
                Ok(Action::Reply(Reply::OK))
            }
            Command::Vrfy => Ok(Action::Reply(Reply::NOT_VERIFIED)),
            Command::Help => Ok(Action::Reply(match self.options.role {
                Role::Relay | Role::Submission => Reply::HELP,
                Role::Lmtp => Reply::HELP_LMTP,
            })),
            Command::Noop => Ok(Action::Reply(Reply::OK)),
            Command::Quit => Ok(Action::Close(Reply::CLOSING)),
            Command::Etrn { node } => self.between_transactions(Extension::Etrn, Action::Release(node)),
            Command::Atrn { domains } => self.on_atrn(domains),
            Command::Xclient { claims } => {
                self.between_transactions(Extension::Xclient, Action::Impersonate(claims))
            }
            Command::Xforward { forwarding } => self.on_xforward(*forwarding),
            Command::StartTls => match self.tls {
                TlsState::Absent => Err(Refusal::NotImplemented),
                TlsState::Unavailable => Err(Refusal::TlsUnavailable),
                TlsState::Offered | TlsState::Required => Ok(Action::StartTls(Reply::START_TLS)),
                TlsState::Active => Err(Refusal::TlsActive),
            },
        }
    }

    fn on_mail(&mut self, reverse_path: ReversePath, parameters: Parameters<'_>) -> Result<Action, Refusal> {
        if self.client.is_none() {
            return Err(match self.options.role {
                Role::Relay | Role::Submission => Refusal::EhloFirst,
                Role::Lmtp => Refusal::LhloFirst,
            });
        }
        match &self.phase {
            Phase::Idle | Phase::Refused(..) => {}
            // RFC 5321 §4.1.4: no MAIL while a transaction is open.
            Phase::Transaction(_) => return Err(Refusal::TransactionOpen),
            Phase::BetweenChunks(_) => return Err(Refusal::ChunkingBegun),
            Phase::Busy(busy) => busy.reads_no_line(),
        }
        let parameters = parameters.of_mail(self.offered())?;
        if parameters.utf8 == Utf8::NotNeeded && reverse_path.address().is_some_and(|a| !a.is_ascii()) {
            return Err(Refusal::SenderUtf8Needed);
        }
        // RFC 1870 §6.1: better now than after the mail data.
        if parameters.size.is_some_and(|size| size > self.options.limits.message_size_max) {
            return Err(Refusal::MessageTooBig);
        }
        let limits = &self.options.limits;
        if self.transactions >= limits.transactions_max
            || self.recipients >= limits.recipients_per_session_max
        {
            return Err(Refusal::TooManyTransactions);
        }
        self.priority_asked = parameters.priority;
        Ok(Action::Judge(Stage::Mail { reverse_path, parameters }))
    }

    fn on_rcpt(&mut self, forward_path: ForwardPath, parameters: Parameters<'_>) -> Result<Action, Refusal> {
        let envelope = match &self.phase {
            Phase::Transaction(transaction) => &transaction.envelope,
            Phase::BetweenChunks(_) => return Err(Refusal::ChunkingBegun),
            Phase::Idle | Phase::Refused(..) => return Err(Refusal::MailFirst),
            Phase::Busy(busy) => busy.reads_no_line(),
        };
        let parameters = parameters.of_rcpt(self.offered(), envelope.utf8)?;
        let ascii = match &forward_path {
            ForwardPath::Postmaster => true,
            ForwardPath::Address(address) => address.is_ascii(),
        };
        if envelope.utf8 == Utf8::NotNeeded && !ascii {
            return Err(Refusal::Utf8Needed);
        }
        let limits = &self.options.limits;
        if envelope.recipients.len() >= limits.recipients_max
            || self.recipients >= limits.recipients_per_session_max
        {
            return Err(Refusal::TooManyRecipients);
        }
        Ok(Action::Judge(Stage::Rcpt { forward_path, parameters }))
    }

    /// A command that is "illegal between a MAIL FROM: command and the end of the DATA commands and responses" (RFC 1985
    /// §5).
    fn between_transactions(&self, extension: Extension, action: Action) -> Result<Action, Refusal> {
        if !self.offered().contains(extension) {
            return Err(Refusal::NotImplemented);
        }
        match &self.phase {
            Phase::Idle | Phase::Refused(..) => Ok(action),
            Phase::Transaction(_) => Err(Refusal::TransactionOpen),
            Phase::BetweenChunks(_) => Err(Refusal::ChunkingBegun),
            Phase::Busy(busy) => busy.reads_no_line(),
        }
    }

    /// "The ATRN command MUST be rejected if the session has not been authenticated. Response code 530" (RFC 2645 §5.2.1).
    fn on_atrn(&self, domains: Vec<Domain>) -> Result<Action, Refusal> {
        if self.options.extensions.minus(self.granted).contains(Extension::Atrn) {
            return Err(Refusal::AuthenticationRequired);
        }
        self.between_transactions(Extension::Atrn, Action::Fetch(domains))
    }

    /// What is said holds for the next transaction, whatever becomes of it.
    fn on_xforward(&mut self, forwarding: Forwarding) -> Result<Action, Refusal> {
        if self.options.extensions.minus(self.granted).contains(Extension::Xforward) {
            return Err(Refusal::ForwardingNotAllowed);
        }
        let action = self.between_transactions(Extension::Xforward, Action::Reply(Reply::OK))?;
        forwarding.apply(self.upstream.get_or_insert_default());
        Ok(action)
    }

    fn on_data(&mut self) -> Result<Action, Refusal> {
        let refusal = match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Transaction(transaction) => {
                if !transaction.envelope.recipients.is_empty()
                    && transaction.envelope.body != BodyType::BinaryMime
                {
                    return Ok(self.ask_for_data(transaction, Transfer::Data));
                }
                // RFC 3030 §3: BINARYMIME may not be sent with DATA.
                let binary = transaction.envelope.body == BodyType::BinaryMime;
                self.phase = Phase::Transaction(transaction);
                if binary { Refusal::BinaryByData } else { Refusal::RcptFirst }
            }
            Phase::BetweenChunks(transaction) => {
                self.phase = Phase::BetweenChunks(transaction);
                Refusal::ChunkingBegun
            }
            Phase::Idle | Phase::Refused(..) => Refusal::MailFirst,
            Phase::Busy(busy) => busy.reads_no_line(),
        };
        Err(refusal)
    }

    /// Asks policy before any mail data is taken.
    fn ask_for_data(&mut self, transaction: Box<Transaction>, transfer: Transfer) -> Action {
        let size = match transfer {
            Transfer::Data => transaction.size_declared,
            Transfer::Chunk(chunk) => transaction.size_declared.max(Some(chunk.size)),
        };
        self.phase = Phase::Busy(Busy::Asking(transaction, transfer));
        Action::Judge(Stage::Data { size })
    }

    fn on_accepted(&mut self, stage: Stage) -> Action {
        match stage {
            Stage::Ehlo { name, hello } => self.on_name_accepted(name, hello),
            Stage::Mail { reverse_path, parameters } => {
                let lowered = parameters.priority != self.priority_asked;
                let mut transaction = match self.transaction(reverse_path, parameters) {
                    Ok(transaction) => transaction,
                    Err(refusal) => return self.refuse(refusal),
                };
                let reply = match transaction.envelope.handling.priority {
                    priority if lowered => Reply::priority_changed(priority),
                    _ => Reply::SENDER_OK,
                };
                transaction.envelope.upstream = self.upstream.take();
                self.transactions += 1;
                self.phase = Phase::Transaction(transaction);
                Action::Reply(reply)
            }
            Stage::Rcpt { forward_path, parameters } => {
                let recipient = Recipient {
                    address: self.address(forward_path),
                    notify: parameters.notify,
                    original: parameters.original,
                };
                let Phase::Transaction(transaction) = &mut self.phase else {
                    unreachable!("a recipient is judged only in a transaction")
                };
                transaction.envelope.recipients.push(recipient);
                self.recipients += 1;
                Action::Reply(Reply::RECIPIENT_OK)
            }
            Stage::Data { .. } => {
                let Phase::Busy(Busy::Asking(transaction, transfer)) =
                    mem::replace(&mut self.phase, Phase::Idle)
                else {
                    unreachable!("mail data is judged only when it was asked for")
                };
                match transfer {
                    Transfer::Data => {
                        self.phase = Phase::Busy(Busy::Receiving(transaction));
                        Action::Receive(Reply::SEND_DATA)
                    }
                    Transfer::Chunk(chunk) => self.receive_chunk(transaction, chunk),
                }
            }
        }
    }

    fn on_name_accepted(&mut self, name: Box<str>, hello: Hello) -> Action {
        self.phase = Phase::Idle; // EHLO implies RSET (RFC 5321 §4.1.4).
        self.upstream = None;
        let hostname = self.options.hostname.as_str();
        let reply = match hello {
            Hello::Helo => Reply::helo(hostname),
            Hello::Ehlo | Hello::Lhlo => {
                Reply::ehlo(hostname, &name, self.extensions(), &self.options.limits, self.now)
            }
        };
        self.client = Some(Client { name, hello });
        Action::Reply(reply)
    }

    fn on_refused(&mut self, stage: &Stage, refusal: Refusal) -> Action {
        match stage {
            Stage::Ehlo { .. } | Stage::Mail { .. } => return self.refuse(refusal),
            // One that is put off is no guess.
            Stage::Rcpt { .. } if refusal.code() >= 500 => {
                self.recipients_refused += 1;
                if self.recipients_refused > self.options.limits.recipients_refused_max {
                    return Refusal::TooManyErrors.into();
                }
            }
            Stage::Rcpt { .. } | Stage::Data { .. } => {}
        }
        if let Phase::Busy(Busy::Asking(transaction, transfer)) = &self.phase {
            let (answers, transfer) = (self.answers(transaction), *transfer);
            // The transaction ends, so that the client may begin another at once.
            self.phase = Phase::Idle;
            // A chunk is on its way all the same (RFC 3030 §2).
            if let Transfer::Chunk(chunk) = transfer {
                return self.discard(chunk, refusal, answers);
            }
        }
        refusal.into()
    }

    fn commit(&mut self, transaction: Box<Transaction>) -> Action {
        self.phase = Phase::Busy(Busy::Committing(self.answers(&transaction)));
        Action::Commit(transaction.envelope)
    }

    /// How many replies the end of the message gets: one, or in LMTP "one reply for each previously successful RCPT
    /// command" (RFC 2033 §4.2).
    fn answers(&self, transaction: &Transaction) -> Answers {
        match self.options.role {
            Role::Relay | Role::Submission => Answers(1),
            Role::Lmtp => Answers(u32::try_from(transaction.envelope.recipients.len()).unwrap_or(u32::MAX)),
        }
    }

    /// The same where there is no transaction: in LMTP nobody waits for a reply to the last chunk (RFC 2033 §4.3).
    fn answers_to_nobody(&self) -> Answers {
        match self.options.role {
            Role::Relay | Role::Submission => Answers(1),
            Role::Lmtp => Answers(0),
        }
    }

    /// Answers a command with a refusal; one too many ends the session.
    fn refuse(&mut self, refusal: Refusal) -> Action {
        if is_error(refusal) {
            self.errors += 1;
            if self.errors >= self.options.limits.errors_max {
                return Refusal::TooManyErrors.into();
            }
        }
        refusal.into()
    }

    fn close(&mut self, refusal: Refusal) -> Action {
        self.phase = Phase::Idle;
        self.act(Action::Close(refusal.into()))
    }

    fn count_command(&mut self) -> Option<Action> {
        self.commands += 1;
        (self.commands > self.options.limits.commands_max).then(|| self.close(Refusal::TooManyCommands))
    }

    fn expect(&self, input: Expected) {
        assert_eq!(self.expected, input, "the driver must do what the last action says");
    }

    /// Notes which input must follow the action.
    fn act(&mut self, action: Action) -> Action {
        self.expected = match action {
            Action::Reply(_) | Action::Read => Expected::Line,
            Action::Close(_) | Action::Reverse(_) => Expected::Nothing,
            Action::Judge(_) => Expected::Verdict,
            Action::Receive(_) => Expected::DataEnd,
            Action::ReceiveChunk { .. } | Action::DiscardChunk { .. } => Expected::ChunkEnd,
            Action::Commit(_) => Expected::Commit,
            Action::Release(_) => Expected::Released,
            Action::Fetch(_) => Expected::CalledFor,
            Action::Impersonate(_) => Expected::Impersonated,
            Action::StartTls(_) => Expected::Tls,
        };
        action
    }

    /// What EHLO offers now.
    fn extensions(&self) -> Extensions {
        let refused = Extensions::PERSONAL.minus(self.granted);
        let offered = self.options.extensions.minus(refused);
        // FUTURERELEASE is for submission alone (RFC 4865 §4.2).
        let offered = match self.options.role {
            Role::Submission => offered,
            Role::Relay | Role::Lmtp => offered.without(Extension::FutureRelease),
        };
        // REQUIRETLS is for sessions under TLS alone (RFC 8689 §2).
        match self.tls {
            TlsState::Offered | TlsState::Required => {
                offered.with(Extension::StartTls).without(Extension::RequireTls)
            }
            TlsState::Absent | TlsState::Unavailable => {
                offered.without(Extension::StartTls).without(Extension::RequireTls)
            }
            TlsState::Active => offered.without(Extension::StartTls),
        }
    }

    /// What MAIL opens, with all times counted from now.
    fn transaction(
        &self,
        reverse_path: ReversePath,
        parameters: MailParameters,
    ) -> Result<Box<Transaction>, Refusal> {
        let now = self.now;
        let (hold_until, hold_for) = match parameters.hold {
            None => (None, None),
            Some(Hold::For(span)) => (Some(now.saturating_add(span.into())), Some(span)),
            // It has to be a "future date and time" (RFC 4865 §3); what is not is invalid (§4.2).
            Some(Hold::Until(time)) if time <= now => return Err(Refusal::HoldPast),
            Some(Hold::Until(time)) => (Some(time), None),
        };
        if hold_until.is_some_and(|until| until.saturating_since(now) > self.options.limits.hold_max) {
            return Err(Refusal::HoldTooLong);
        }
        let deliver_by = parameters.by.map(|By { seconds, mode, trace }| {
            let micros = seconds.unsigned_abs().saturating_mul(1_000_000);
            let deadline = match seconds {
                0.. => now.0.saturating_add(micros),
                ..0 => now.0.saturating_sub(micros),
            };
            DeliverBy { deadline: Timestamp(deadline), mode, trace }
        });
        if hold_until.zip(deliver_by).is_some_and(|(until, by)| until >= by.deadline) {
            return Err(Refusal::HoldPastDeadline);
        }
        let (priority, tls) = (parameters.priority, parameters.tls);
        let handling = Handling { priority, deliver_by, hold_until, hold_for, tls, ..Handling::default() };
        Ok(Box::new(Transaction::new(reverse_path, parameters, handling)))
    }

    /// What this client was offered.
    fn offered(&self) -> Extensions {
        match &self.client {
            Some(Client { hello: Hello::Ehlo | Hello::Lhlo, .. }) => self.extensions(),
            Some(Client { hello: Hello::Helo, .. }) | None => Extensions::NONE,
        }
    }

    /// The address that a forward-path stands for (RFC 5321 §4.5.1).
    fn address(&self, forward_path: ForwardPath) -> Address {
        match forward_path {
            ForwardPath::Address(address) => address,
            ForwardPath::Postmaster => {
                Address::new("postmaster", &self.options.hostname).expect("our name leaves room for it")
            }
        }
    }
}

impl Busy {
    fn reads_no_line(&self) -> ! {
        unreachable!("a line was read in {self:?}")
    }
}

impl Transaction {
    fn new(reverse_path: ReversePath, parameters: MailParameters, handling: Handling) -> Self {
        let envelope = Envelope {
            received_at: Timestamp::EPOCH,
            reverse_path,
            recipients: Vec::new(),
            body: parameters.body,
            utf8: parameters.utf8,
            ret: parameters.ret,
            envelope_id: parameters.envelope_id,
            handling,
            upstream: None,
        };
        Self { envelope, size_declared: parameters.size, received: None }
    }
}

fn greeting(options: &Options) -> Action {
    let protocol = match options.role {
        Role::Relay | Role::Submission => "ESMTP",
        Role::Lmtp => "LMTP",
    };
    Action::Reply(Reply::greeting(options.hostname.as_str(), protocol))
}

fn judge_name(name: &str, hello: Hello) -> Action {
    Action::Judge(Stage::Ehlo { name: name.into(), hello })
}

impl From<Refusal> for Action {
    fn from(refusal: Refusal) -> Self {
        match refusal.aftermath() {
            Aftermath::Continue => Self::Reply(refusal.into()),
            Aftermath::Close => Self::Close(refusal.into()),
        }
    }
}

impl Answers {
    /// What the journal's word means to the client.
    fn to_commit(self, outcome: Result<QueueId, Refusal>) -> Action {
        self.of(match outcome {
            Ok(id) => Action::Reply(Reply::queued(id)),
            Err(refusal) => refusal.into(),
        })
    }

    /// The same answer so often; who gets none sends the next command.
    fn of(self, action: Action) -> Action {
        match action {
            Action::Reply(_) if self.0 == 0 => Action::Read,
            Action::Reply(reply) => Action::Reply(reply.times(self.0)),
            Action::Read
            | Action::Close(_)
            | Action::Judge(_)
            | Action::Receive(_)
            | Action::ReceiveChunk { .. }
            | Action::DiscardChunk { .. }
            | Action::Commit(_)
            | Action::Release(_)
            | Action::Fetch(_)
            | Action::Reverse(_)
            | Action::Impersonate(_)
            | Action::StartTls(_) => action,
        }
    }
}

/// Whether a refusal counts against `errors_max`: the client is at fault, or tries again what it was refused for good. A
/// mailing list may have many recipients that cannot be had.
fn is_error(refusal: Refusal) -> bool {
    refusal.code() >= 500 && refusal != Refusal::Utf8Needed
}

/// RFC 3207 §4: "any command other than NOOP, EHLO, STARTTLS, or QUIT" gets a 530.
const fn allowed_without_tls(command: &Command<'_>) -> bool {
    matches!(
        command,
        Command::Noop | Command::Ehlo { .. } | Command::Lhlo { .. } | Command::StartTls | Command::Quit
    )
}

#[cfg(test)]
#[path = "session_test.rs"]
mod test;

#[cfg(test)]
#[path = "session/simulation_test.rs"]
mod simulation;
