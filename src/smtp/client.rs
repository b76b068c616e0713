//! The client side: one connection to a next hop, without the connection.
//!
//! A [`Client`] is told what happened and answers with the one [`Action`] its driver must do next.
//! Commands are appended to the `out` that each input takes. **Before it does an action, the
//! driver writes out all of `out`**; this holds for [`Action::Close`] too, as well as it can.
//!
//! ```text
//!  connected -> Greeting -> Ehlo -+-> StartTls -> Handshake -> Ehlo (again, RFC 3207 §4.2)
//!                  |          |   |
//!                  |          +-> Helo (5yz to EHLO, RFC 5321 §3.2)
//!                  |              |
//!                  |              +-> LogIn (RFC 4954), when there is a login
//!                  |              |     |
//!                  |              +-----+-> Open: transactions, one behind the other (`pipeline`)
//!                  |                         |
//!                  +-------------------------+--> Quit --> Closing --> Action::Close(Ending)
//! ```
//!
//! The driver's loop, shortened:
//!
//! ```text
//!  Read(stage)       flush out; read one reply, at most timeouts.of(stage); on_reply
//!                    (or on_closed, on_timeout, on_garbage)
//!  StartTls          throw away what was read behind the reply; handshake; set_binding; on_tls
//!  Derive(work)      do it where it may take milliseconds; on_derived
//!  SendContent(f)    pieces = out, then f.frame(content); clear out; on_content_sent; and when
//!                    takes_next(): on_transaction with the next one. Then write pieces and out
//!                    in one go, and only then do the action that the last call gave.
//!  Finished(outcome) the oldest transaction given ended; keep the outcome; on_finished
//!  Ready             on_transaction, or on_quit, or keep the connection for later
//!  Close(ending)     write out, close; done
//! ```
//!
//! While the reply to a final dot is awaited and [`Client::takes_next`] says yes, the next
//! transaction may be given: then a message costs one round trip.

mod command;
mod content;
mod forwarding;
mod login;
mod offers;
mod pipeline;
mod reply;
mod reply_reader;
mod timeouts;
mod transaction;

use std::mem;

pub use content::{Framing, dot_stuff};
pub use forwarding::Attributes;
pub use login::{Login, NoLogin, Secrecy};
pub use offers::{Offers, Size};
pub use reply::{Reply, ReplyClass};
pub use reply_reader::{ReplyError, ReplyLimits, ReplyReader};
pub use sasl::Mechanism;
pub use timeouts::{Stage, Timeouts};
pub use transaction::{Answer, Loss, Transaction, TransactionOutcome, Unsuitable};

use login::LoggingIn;
use pipeline::{Abort, Pipeline, Rules, Want};
use sasl::{ChannelBinding, Derivation, Salted};

/// What the driver must do next, after it wrote `out`. Every input gives exactly one.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Read one reply, then call [`Client::on_reply`]. The stage says how long it may take.
    Read(Stage),
    /// Throw away what was read behind the last reply (RFC 3207 §4.2: it was not protected), shake
    /// hands, then call [`Client::on_tls`].
    StartTls,
    /// Hash the password, then call [`Client::on_derived`]. It takes milliseconds, or more where the next hop says so.
    Derive(Derivation),
    /// Send the content of the transaction given last, then call [`Client::on_content_sent`].
    SendContent(Framing),
    /// The oldest transaction in flight ended; then call [`Client::on_finished`].
    Finished(TransactionOutcome),
    /// Nothing is in flight: [`Client::on_transaction`] or [`Client::on_quit`].
    Ready,
    /// Close the connection. All transactions have been reported.
    Close(Ending),
}

/// Why a connection came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// We had no more use for it.
    Quit,
    /// The next hop refused the session with this reply to this stage, or said `421`.
    Refused(Stage, Reply),
    /// TLS is required and `STARTTLS` is not offered.
    TlsNotOffered,
    /// `REQUIRETLS` is demanded and not offered.
    RequireTlsNotOffered,
    /// The handshake failed.
    TlsFailed(TlsFailure),
    /// We have to log in, and cannot.
    NoLogin(NoLogin),
    /// It was lost at this stage.
    Lost(Stage, Loss),
    /// The next hop ended it, or spoke, while nothing was asked.
    Idle,
}

/// Why the TLS handshake failed, in the words of the TLS library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("TLS handshake failed: {0}")]
pub struct TlsFailure(pub Box<str>);

/// Whether the bytes are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// As they are.
    Clear,
    /// By TLS.
    Tls,
}

/// How much TLS is asked of a next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsLevel {
    /// `STARTTLS` is not used.
    None,
    /// `STARTTLS` where it is offered, with any certificate (RFC 7435).
    #[default]
    Opportunistic,
    /// No mail without TLS, with any certificate.
    Required,
    /// No mail without TLS, and the driver's handshake fails when the certificate is not good for the host.
    Verified,
    /// As [`TlsLevel::Verified`], and the next hop offers `REQUIRETLS` (RFC 8689 §4.2.1).
    Demanded,
}

/// Where `BDAT` is used (RFC 3030). Binary content always needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chunking {
    /// For binary content alone.
    #[default]
    WhenNeeded,
    /// Wherever `CHUNKING` is offered.
    WhenOffered,
}

/// Whether a transaction may be begun while the reply to the final dot before it is awaited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chaining {
    /// One transaction at a time.
    #[default]
    Off,
    /// Where `PIPELINING` is offered (RFC 2920 §3.1).
    On,
}

/// Which of the two protocols is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// SMTP: one reply to the end of a message.
    #[default]
    Smtp,
    /// LMTP: one for each recipient that was accepted (RFC 2033 §4.2).
    Lmtp,
}

/// How to talk to a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// In which protocol.
    pub protocol: Protocol,
    /// Our name in `EHLO`: a domain or an address literal (RFC 5321 §4.1.1.1).
    pub hostname: Box<str>,
    /// How much TLS.
    pub tls: TlsLevel,
    /// Where `BDAT` is used.
    pub chunking: Chunking,
    /// Whether transactions are chained.
    pub chaining: Chaining,
    /// As whom we log in, before any mail is sent.
    pub login: Option<Login>,
    /// Upper bounds.
    pub limits: Limits,
}

/// Upper bounds of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Transactions; then `QUIT`. A lower `MAILMAX` of the next hop counts (RFC 9422).
    pub transactions_max: u32,
    /// Commands without a reply, so that neither side's socket buffers fill up (RFC 2920 §3.1).
    pub outstanding_max: usize,
    /// Content up to this many octets may follow `BDAT` before the replies to `RCPT` are known.
    pub eager_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { transactions_max: 1000, outstanding_max: 128, eager_max: 64 * 1024 }
    }
}

/// The client's state of one connection.
#[derive(Debug)]
pub struct Client {
    options: Options,
    channel: Channel,
    phase: Phase,
    taken: u32,
}

#[derive(Debug)]
enum Phase {
    Fresh,
    Greeting,
    Ehlo,
    Helo,
    StartTls(Offers),
    Handshake,
    LogIn(Offers, LoggingIn),
    Open(Pipeline),
    Quit,
    /// Transactions are still to be reported.
    Closing(Pipeline, Ending),
    Closed,
}

impl Client {
    /// The state of a connection that is about to be made.
    pub const fn new(options: Options) -> Self {
        Self { options, channel: Channel::Clear, phase: Phase::Fresh, taken: 0 }
    }

    /// The connection stands; with implicit TLS, the handshake is done.
    pub fn on_connected(&mut self, channel: Channel) -> Action {
        assert!(matches!(self.phase, Phase::Fresh), "a client connects once");
        self.channel = channel;
        self.phase = Phase::Greeting;
        Action::Read(Stage::Greeting)
    }

    /// The next hop sent a reply. Without [`Action::Read`] before it, it is an end unasked for.
    pub fn on_reply(&mut self, reply: Reply, out: &mut Vec<u8>) -> Action {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Greeting if reply.is_completion() => self.ehlo(out),
            Phase::Greeting => self.refused(Stage::Greeting, reply, out),
            Phase::Ehlo if reply.is_completion() => self.on_offers(Offers::parse(&reply), out),
            // A server without extensions does not know EHLO; HELO is left (RFC 5321 §3.2). LMTP has nothing else.
            Phase::Ehlo
                if reply.class() == ReplyClass::Permanent && self.options.protocol == Protocol::Smtp =>
            {
                command::helo(&self.options.hostname, out);
                self.phase = Phase::Helo;
                Action::Read(Stage::Ehlo)
            }
            Phase::Ehlo => self.refused(Stage::Ehlo, reply, out),
            Phase::Helo if reply.is_completion() => self.on_offers(Offers::default(), out),
            Phase::Helo => self.refused(Stage::Ehlo, reply, out),
            Phase::StartTls(_) if reply.is_completion() => {
                self.phase = Phase::Handshake;
                Action::StartTls
            }
            Phase::StartTls(offers) => match self.options.tls {
                // The client decides whether to go on in clear (RFC 3207 §4).
                TlsLevel::None | TlsLevel::Opportunistic if reply.code() != 421 => self.open(offers, out),
                TlsLevel::None
                | TlsLevel::Opportunistic
                | TlsLevel::Required
                | TlsLevel::Verified
                | TlsLevel::Demanded => self.refused(Stage::StartTls, reply, out),
            },
            Phase::LogIn(offers, login) => self.on_login_reply(offers, login, reply, out),
            Phase::Open(pipeline) if pipeline.is_empty() => self.close(Ending::Idle),
            // Before all content was sent: whatever it says, the two sides have lost each other.
            Phase::Open(pipeline) if pipeline.is_sending() => {
                self.end(pipeline, &Abort::Closing(reply.clone()), Ending::Refused(Stage::Content, reply))
            }
            Phase::Open(pipeline) if reply.code() == 421 => {
                let stage = pipeline.stage();
                self.end(pipeline, &Abort::Closing(reply.clone()), Ending::Refused(stage, reply))
            }
            Phase::Open(mut pipeline) => {
                pipeline.on_reply(reply, out);
                self.advance(pipeline, out)
            }
            Phase::Quit => self.close(Ending::Quit),
            phase @ (Phase::Fresh | Phase::Handshake | Phase::Closing(..) | Phase::Closed) => {
                unreachable!("a reply was read in {phase:?}")
            }
        }
    }

    /// What a login may be tied to, of a handshake that went well: to be told before [`Client::on_tls`], or before
    /// [`Client::on_connected`] where TLS comes first.
    pub fn set_binding(&mut self, binding: ChannelBinding) {
        if let Some(login) = &mut self.options.login {
            login.binding = Some(binding);
        }
    }

    /// The handshake that [`Action::StartTls`] asked for ended.
    pub fn on_tls(&mut self, result: Result<(), TlsFailure>, out: &mut Vec<u8>) -> Action {
        assert!(matches!(self.phase, Phase::Handshake), "nobody asked for TLS");
        match result {
            Ok(()) => {
                self.channel = Channel::Tls;
                // What was offered in clear is forgotten (RFC 3207 §4.2).
                self.ehlo(out)
            }
            Err(failure) => self.close(Ending::TlsFailed(failure)),
        }
    }

    /// The password is hashed as [`Action::Derive`] asked.
    ///
    /// # Panics
    /// When nobody asked for it.
    pub fn on_derived(&mut self, salted: &Salted, out: &mut Vec<u8>) -> Action {
        let Phase::LogIn(_, login) = &mut self.phase else { unreachable!("nobody logs in") };
        login.on_derived(salted, out);
        Action::Read(Stage::Auth)
    }

    /// A message to be sent by this connection, while it is ready or takes the next one.
    ///
    /// # Panics
    /// When [`Client::takes_next`] says no, or the transaction has no recipient.
    pub fn on_transaction(&mut self, transaction: Transaction, out: &mut Vec<u8>) -> Action {
        assert!(self.takes_next(), "no transaction can be taken now");
        let mut pipeline = self.opened();
        pipeline.take(transaction);
        self.taken = pipeline.taken();
        self.advance(pipeline, out)
    }

    /// All content that [`Action::SendContent`] asked for is written, or stands in front of `out`
    /// in what is about to be written. If that write fails then, the message counts as one that may
    /// have been taken: nobody can tell how much of it arrived.
    pub fn on_content_sent(&mut self, out: &mut Vec<u8>) -> Action {
        let mut pipeline = self.opened();
        pipeline.on_content_sent();
        self.advance(pipeline, out)
    }

    /// The outcome of [`Action::Finished`] has been taken care of.
    pub fn on_finished(&mut self, out: &mut Vec<u8>) -> Action {
        if matches!(self.phase, Phase::Closing(..)) {
            return self.drain();
        }
        let pipeline = self.opened();
        self.advance(pipeline, out)
    }

    /// The connection is not needed any more.
    ///
    /// # Panics
    /// When a transaction is in flight.
    pub fn on_quit(&mut self, out: &mut Vec<u8>) -> Action {
        assert!(self.opened().is_empty(), "a transaction is in flight");
        self.quit(out)
    }

    /// The next hop closed or reset the connection, or a write failed.
    pub fn on_closed(&mut self) -> Action {
        self.on_loss(Loss::Closed)
    }

    /// The time of the stage has passed.
    pub fn on_timeout(&mut self) -> Action {
        self.on_loss(Loss::TimedOut)
    }

    /// The bytes that came are not a reply.
    pub fn on_garbage(&mut self, error: ReplyError) -> Action {
        self.on_loss(Loss::Garbled(error))
    }

    /// Whether [`Client::on_transaction`] may be called now.
    pub fn takes_next(&self) -> bool {
        match &self.phase {
            Phase::Open(pipeline) => pipeline.takes_next(),
            Phase::Fresh
            | Phase::Greeting
            | Phase::Ehlo
            | Phase::Helo
            | Phase::StartTls(_)
            | Phase::Handshake
            | Phase::LogIn(..)
            | Phase::Quit
            | Phase::Closing(..)
            | Phase::Closed => false,
        }
    }

    /// What the next hop offers, once the session is open.
    pub fn offers(&self) -> Option<&Offers> {
        match &self.phase {
            Phase::Open(pipeline) | Phase::Closing(pipeline, _) => Some(pipeline.offers()),
            Phase::StartTls(offers) | Phase::LogIn(offers, _) => Some(offers),
            Phase::Fresh
            | Phase::Greeting
            | Phase::Ehlo
            | Phase::Helo
            | Phase::Handshake
            | Phase::Quit
            | Phase::Closed => None,
        }
    }

    /// Whether TLS protects the connection.
    pub const fn channel(&self) -> Channel {
        self.channel
    }

    /// How many transactions were begun.
    pub const fn transactions(&self) -> u32 {
        self.taken
    }

    fn on_loss(&mut self, loss: Loss) -> Action {
        let stage = match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Open(pipeline) if pipeline.is_empty() => return self.close(Ending::Idle),
            Phase::Open(pipeline) => {
                let stage = pipeline.stage();
                return self.end(pipeline, &Abort::Lost(loss), Ending::Lost(stage, loss));
            }
            // The connection had ended before; what is still to be reported is.
            phase @ Phase::Closing(..) => {
                self.phase = phase;
                return self.drain();
            }
            Phase::Quit => return self.close(Ending::Quit),
            Phase::Greeting => Stage::Greeting,
            Phase::Ehlo | Phase::Helo => Stage::Ehlo,
            Phase::StartTls(_) => Stage::StartTls,
            Phase::Handshake => Stage::Handshake,
            Phase::LogIn(..) => Stage::Auth,
            phase @ (Phase::Fresh | Phase::Closed) => unreachable!("a connection was lost in {phase:?}"),
        };
        self.close(Ending::Lost(stage, loss))
    }

    fn ehlo(&mut self, out: &mut Vec<u8>) -> Action {
        command::hello(self.options.protocol, &self.options.hostname, out);
        self.phase = Phase::Ehlo;
        Action::Read(Stage::Ehlo)
    }

    fn on_offers(&mut self, offers: Offers, out: &mut Vec<u8>) -> Action {
        match (self.channel, self.options.tls) {
            (
                Channel::Clear,
                TlsLevel::Opportunistic | TlsLevel::Required | TlsLevel::Verified | TlsLevel::Demanded,
            ) if offers.starttls => {
                out.extend_from_slice(command::STARTTLS);
                self.phase = Phase::StartTls(offers);
                Action::Read(Stage::StartTls)
            }
            (Channel::Clear, TlsLevel::Required | TlsLevel::Verified | TlsLevel::Demanded) => {
                out.extend_from_slice(command::QUIT);
                self.close(Ending::TlsNotOffered)
            }
            // Another host may offer it (RFC 8689 §4.2.1).
            (Channel::Tls, TlsLevel::Demanded) if !offers.require_tls => {
                out.extend_from_slice(command::QUIT);
                self.close(Ending::RequireTlsNotOffered)
            }
            (Channel::Clear, TlsLevel::None | TlsLevel::Opportunistic) | (Channel::Tls, _) => {
                self.open(offers, out)
            }
        }
    }

    /// The session may begin: with a login, where there is one.
    fn open(&mut self, offers: Offers, out: &mut Vec<u8>) -> Action {
        let Some(login) = &self.options.login else { return self.open_up(offers, out) };
        match LoggingIn::begin(login, &offers, self.channel, self.options.tls, out) {
            Ok(login) => {
                self.phase = Phase::LogIn(offers, login);
                Action::Read(Stage::Auth)
            }
            Err(why) => self.no_login(why, out),
        }
    }

    fn on_login_reply(
        &mut self,
        mut offers: Offers,
        mut login: LoggingIn,
        reply: Reply,
        out: &mut Vec<u8>,
    ) -> Action {
        let closes = reply.code() == 421;
        match login.on_reply(reply, &mut offers, out) {
            Ok(login::Next::Read) => {
                self.phase = Phase::LogIn(offers, login);
                Action::Read(Stage::Auth)
            }
            Ok(login::Next::Derive(derivation)) => {
                self.phase = Phase::LogIn(offers, login);
                Action::Derive(derivation)
            }
            Ok(login::Next::Done) => {
                offers.logged_in = true;
                self.open_up(offers, out)
            }
            Err(NoLogin::Refused(_, reply, _)) if closes => self.refused(Stage::Auth, reply, out),
            Err(why) => self.no_login(why, out),
        }
    }

    fn no_login(&mut self, why: NoLogin, out: &mut Vec<u8>) -> Action {
        out.extend_from_slice(command::QUIT);
        self.close(Ending::NoLogin(why))
    }

    fn open_up(&mut self, offers: Offers, out: &mut Vec<u8>) -> Action {
        let Options { protocol, chunking, chaining, limits, .. } = self.options;
        self.advance(Pipeline::new(offers, Rules { protocol, chunking, chaining, limits }), out)
    }

    /// Takes the pipeline out; whoever calls this puts it back or ends the session.
    fn opened(&mut self) -> Pipeline {
        match mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Open(pipeline) => pipeline,
            phase @ (Phase::Fresh
            | Phase::Greeting
            | Phase::Ehlo
            | Phase::Helo
            | Phase::StartTls(_)
            | Phase::Handshake
            | Phase::LogIn(..)
            | Phase::Quit
            | Phase::Closing(..)
            | Phase::Closed) => unreachable!("the session is not open but {phase:?}"),
        }
    }

    fn advance(&mut self, mut pipeline: Pipeline, out: &mut Vec<u8>) -> Action {
        let action = match pipeline.next(out) {
            Want::Report(outcome) => Action::Finished(outcome),
            Want::Content(framing) => Action::SendContent(framing),
            Want::Reply(stage) => Action::Read(stage),
            Want::Nothing if pipeline.is_spent() => return self.quit(out),
            Want::Nothing => Action::Ready,
        };
        self.phase = Phase::Open(pipeline);
        action
    }

    fn end(&mut self, mut pipeline: Pipeline, abort: &Abort, ending: Ending) -> Action {
        pipeline.abort(abort);
        self.phase = Phase::Closing(pipeline, ending);
        self.drain()
    }

    /// Reports the transactions in flight, one by one, before the connection is closed.
    fn drain(&mut self) -> Action {
        let Phase::Closing(pipeline, ending) = &mut self.phase else {
            unreachable!("nothing is left to report in {:?}", self.phase)
        };
        match pipeline.report() {
            Some(outcome) => Action::Finished(outcome),
            None => {
                let ending = ending.clone();
                self.close(ending)
            }
        }
    }

    /// A session that is refused still ends with `QUIT`, whose reply is not waited for.
    fn refused(&mut self, stage: Stage, reply: Reply, out: &mut Vec<u8>) -> Action {
        if reply.code() != 421 {
            out.extend_from_slice(command::QUIT);
        }
        self.close(Ending::Refused(stage, reply))
    }

    fn quit(&mut self, out: &mut Vec<u8>) -> Action {
        out.extend_from_slice(command::QUIT);
        self.phase = Phase::Quit;
        Action::Read(Stage::Quit)
    }

    fn close(&mut self, ending: Ending) -> Action {
        self.phase = Phase::Closed;
        Action::Close(ending)
    }
}

#[cfg(test)]
#[path = "client/client_test.rs"]
mod test;

#[cfg(test)]
#[path = "client/both_ends_test.rs"]
mod both_ends_test;
