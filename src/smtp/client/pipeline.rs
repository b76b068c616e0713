//! Transactions on an open session: which command may be written, and whose reply arrived.
//!
//! Without `PIPELINING` a command waits for the reply to the one before; with it a group of
//! commands is one write (RFC 2920 §3.1). Both are the same machine with another window. At most two
//! transactions are in flight: the commands of the second may stand right behind the final dot of
//! the first, since content "is explicitly allowed to be the first 'command' in a group".
//!
//! ```text
//!  written:   [RSET] XFORWARD* MAIL RCPT* DATA  --354-->  content, final dot      (Framing::Dot)
//!             [RSET] XFORWARD* MAIL RCPT* BDAT  content                           (Framing::Bdat)
//!  answered:  in the same order; a transaction ends with its last reply
//! ```
//!
//! In LMTP the end of the content has as many replies as recipients were accepted (RFC 2033 §4.2), so that it is not written before
//! this is known.

use std::collections::VecDeque;

use mail::{BodyType, Domain, Recipient, TlsDemand};

use super::{
    Answer, Attributes, Chaining, Chunking, Framing, Limits, Loss, Offers, Protocol, Reply, Size, Stage,
    Transaction, TransactionOutcome, Unsuitable, command, forwarding,
};

/// The transactions of one session.
#[derive(Debug)]
pub(super) struct Pipeline {
    offers: Offers,
    rules: Rules,
    flights: VecDeque<Flight>,
    /// What the replies that are still to come will answer, in order.
    expected: VecDeque<Expected>,
    server: Server,
    taken: u32,
    /// The recipients' domains so far, where the next hop limits them (RFC 9422 §4.3).
    domains: Vec<Domain>,
    /// A transaction had nobody whom this session may still ask for.
    outgrown: Outgrown,
}

/// Whether a session cannot serve what is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outgrown {
    No,
    Yes,
}

/// How transactions are to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) protocol: Protocol,
    pub(super) chunking: Chunking,
    pub(super) chaining: Chaining,
    pub(super) limits: Limits,
}

/// What the pipeline wants next.
#[derive(Debug)]
pub(super) enum Want {
    /// The oldest transaction ended.
    Report(TransactionOutcome),
    /// Content is due.
    Content(Framing),
    /// The reply to this.
    Reply(Stage),
    /// Nothing: no transaction is in flight.
    Nothing,
}

/// Why all transactions in flight end at once.
#[derive(Clone, Debug)]
pub(super) enum Abort {
    /// `421` (RFC 5321 §3.8).
    Closing(Reply),
    /// No reply will come.
    Lost(Loss),
}

#[derive(Debug)]
struct Flight {
    transaction: Transaction,
    framing: Framing,
    /// What is still to be said of where it first came from.
    forwarding: VecDeque<Box<[u8]>>,
    forwarded: Forwarded,
    place: Place,
    due: Due,
    mail: Mail,
    /// One for each recipient; `None` until something decides.
    answers: Vec<Option<Answer>>,
    /// Whom the next hop is asked for: all, if there is no list.
    asked: Option<Box<[usize]>>,
    /// How many replies to `RCPT` have come.
    rcpt_replies: usize,
    accepted: usize,
    /// Replies to come for this transaction.
    outstanding: usize,
    /// Decided: the next hop has said nothing about this transaction.
    untried: bool,
}

/// Whether the next hop was told where the message first came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forwarded {
    No,
    Yes,
}

/// What of a transaction is written next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Rset,
    Xforward,
    Mail,
    Rcpt(usize),
    Data,
    /// `DATA` is written, its reply is awaited.
    Go,
    /// The driver is sending it.
    Content,
    /// Nothing, all is written.
    Sent,
    /// Nothing, the rest is left out.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mail {
    Unanswered,
    Accepted,
    Refused,
}

/// Which transaction of its connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    Later,
    /// Written before the reply to the one in front had come.
    Chained,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Rset,
    Xforward,
    Mail,
    Rcpt,
    Data,
    End,
    /// The reply to a final dot that ends a message for nobody.
    LoneDot,
}

/// Whether the next hop may still have a transaction open that we have given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Clear,
    NeedsRset,
}

impl Pipeline {
    pub(super) fn new(offers: Offers, rules: Rules) -> Self {
        Self {
            offers,
            rules,
            flights: VecDeque::new(),
            expected: VecDeque::new(),
            server: Server::Clear,
            taken: 0,
            domains: Vec::new(),
            outgrown: Outgrown::No,
        }
    }

    /// Begins a transaction. What may be written of it is written by [`Pipeline::next`].
    pub(super) fn take(&mut self, transaction: Transaction) {
        assert!(!transaction.recipients.is_empty(), "a transaction has recipients");
        let place = match (self.flights.is_empty(), self.taken) {
            (false, _) => Place::Chained,
            (true, 0) => Place::First,
            (true, _) => Place::Later,
        };
        self.taken += 1;
        let framing = self.framing(&transaction);
        let unsuitable = unsuitable(&transaction, &self.offers);
        // Others of the message need not suffer for an address that the next hop cannot take (RFC 6531 §3.2).
        let barred = |recipient: &Recipient| !self.offers.smtputf8 && !recipient.address.is_ascii();
        let barred: Vec<_> = transaction.recipients.iter().map(barred).collect();
        let asked = if unsuitable.is_none() { self.asked(&transaction.recipients, &barred) } else { None };
        let nobody = asked.as_ref().is_some_and(|asked| asked.is_empty());
        if nobody {
            self.outgrown = Outgrown::Yes;
        }
        // A BDAT that fails leaves the server in a state that only RSET clears (RFC 3030 §2), and
        // whether it fails is not known when the next transaction is written behind it.
        let after_bdat = self.flights.back().is_some_and(|flight| flight.framing == Framing::Bdat);
        let due = match (unsuitable, self.server) {
            (Some(_), _) => Due::Stopped,
            (None, _) if nobody => Due::Stopped,
            (None, Server::NeedsRset) => Due::Rset,
            (None, Server::Clear) if after_bdat => Due::Rset,
            (None, Server::Clear) => Due::Xforward,
        };
        let mut answers = vec![unsuitable.map(Answer::Unsuitable); transaction.recipients.len()];
        if let Some(asked) = &asked {
            for (answer, barred) in answers.iter_mut().zip(&barred) {
                *answer = Some(if *barred { Answer::Unsuitable(Unsuitable::Utf8) } else { Answer::Left });
            }
            asked.iter().for_each(|place| answers[*place] = None);
        }
        let upstream = transaction.upstream.as_ref();
        let forwarding = upstream
            .map_or_else(VecDeque::new, |upstream| forwarding::commands(upstream, self.offers.xforward));
        self.flights.push_back(Flight {
            forwarding,
            forwarded: Forwarded::No,
            answers,
            asked,
            transaction,
            framing,
            place,
            due,
            mail: Mail::Unanswered,
            rcpt_replies: 0,
            accepted: 0,
            outstanding: 0,
            untried: nobody,
        });
    }

    /// The oldest command without a reply got this one; it is not `421`.
    pub(super) fn on_reply(&mut self, reply: Reply, out: &mut Vec<u8>) {
        let expected = self.expected.pop_front().expect("a reply is read only when one is expected");
        let flight = self.flights.front_mut().expect("every expected reply belongs to a transaction");
        flight.outstanding -= 1;
        match expected {
            Expected::Rset | Expected::LoneDot => {}
            // Who may not tell is not going to try it with each message; the mail does not depend on it.
            Expected::Xforward if matches!(reply.code(), 500 | 502 | 550) => {
                self.offers.xforward = Attributes::NONE;
                flight.forwarding.clear();
            }
            Expected::Xforward => {}
            Expected::Mail if reply.is_completion() => flight.mail = Mail::Accepted,
            Expected::Mail => {
                // 503 here says that our two ideas of the session differ, not that the message is bad.
                if flight.place == Place::Chained && reply.code() == 503 {
                    flight.untried = true;
                    self.rules.chaining = Chaining::Off;
                }
                flight.refuse(reply);
            }
            Expected::Rcpt => flight.on_rcpt_reply(reply),
            Expected::Data if reply.code() == 354 && flight.accepted > 0 => flight.due = Due::Content,
            Expected::Data if reply.code() == 354 => {
                // "the client SMTP should send a single dot" when no recipient is left (RFC 2920 §3.1).
                out.extend_from_slice(command::LONE_DOT);
                // In LMTP there is nobody to reply for; a server of that protocol should have said 503.
                if self.rules.protocol == Protocol::Smtp {
                    self.expected.push_back(Expected::LoneDot);
                    flight.outstanding += 1;
                }
                flight.due = Due::Stopped;
            }
            Expected::Data => {
                flight.settle(&Answer::Reply(Stage::Data, reply));
                flight.due = Due::Stopped;
            }
            Expected::End => {
                let failed = !reply.is_completion();
                let answer = Answer::Reply(Stage::End, reply);
                match self.rules.protocol {
                    Protocol::Smtp => {
                        if flight.framing == Framing::Bdat && failed {
                            self.server = Server::NeedsRset;
                        }
                        flight.settle(&answer);
                    }
                    // What one recipient gets is his, and the transaction is over.
                    Protocol::Lmtp => flight.settle_next(answer),
                }
            }
        }
    }

    /// The driver has handed all content, and the final dot if there is one, to the connection.
    pub(super) fn on_content_sent(&mut self) {
        let flight = self.flights.back_mut().filter(|flight| flight.due == Due::Content);
        let flight = flight.expect("content was asked for");
        flight.due = Due::Sent;
        let ends = match (flight.framing, self.rules.protocol) {
            // It was expected from the command on.
            (Framing::Bdat, Protocol::Smtp) => 0,
            (Framing::Dot, Protocol::Smtp) => 1,
            (Framing::Dot | Framing::Bdat, Protocol::Lmtp) => flight.accepted,
        };
        flight.outstanding += ends;
        self.expected.extend(std::iter::repeat_n(Expected::End, ends));
    }

    /// Ends all that is in flight; [`Pipeline::next`] then reports it.
    pub(super) fn abort(&mut self, abort: &Abort) {
        let stage = self.stage();
        self.expected.clear();
        self.flights.iter_mut().for_each(|flight| flight.abort(abort, stage));
    }

    /// Writes what may be written, and says what is wanted then.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> Want {
        self.write(out);
        if let Some(outcome) = self.report() {
            return Want::Report(outcome);
        }
        match (self.flights.back(), self.expected.front()) {
            (None, _) => Want::Nothing,
            (Some(flight), _) if flight.due == Due::Content => Want::Content(flight.framing),
            (Some(_), Some(expected)) => Want::Reply(expected.stage()),
            (Some(flight), None) => unreachable!("nothing moves {flight:?}"),
        }
    }

    /// The outcome of the oldest transaction, if it has ended.
    pub(super) fn report(&mut self) -> Option<TransactionOutcome> {
        let flight = self.flights.pop_front_if(|flight| flight.is_ended())?;
        // What was told of this message is not true of the next one.
        if flight.due == Due::Stopped && (flight.mail == Mail::Accepted || flight.forwarded == Forwarded::Yes)
        {
            self.server = Server::NeedsRset;
        }
        Some(flight.outcome())
    }

    /// Whether a transaction may be taken now.
    pub(super) fn takes_next(&self) -> bool {
        if self.is_spent() {
            return false;
        }
        match (self.flights.len(), self.flights.back()) {
            (0, _) => true,
            (1, Some(flight)) => {
                self.offers.pipelining && self.rules.chaining == Chaining::On && flight.due == Due::Sent
            }
            _ => false,
        }
    }

    /// Whether the connection has had all the transactions it may have, or one that it cannot have.
    pub(super) fn is_spent(&self) -> bool {
        let offered = self.offers.transactions_max.unwrap_or(u32::MAX);
        self.taken >= self.rules.limits.transactions_max.min(offered) || self.outgrown == Outgrown::Yes
    }

    /// What the oldest command that has no reply is.
    pub(super) fn stage(&self) -> Stage {
        self.expected.front().map_or(Stage::Content, |expected| expected.stage())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(super) fn is_sending(&self) -> bool {
        self.flights.back().is_some_and(|flight| flight.due == Due::Content)
    }

    pub(super) const fn offers(&self) -> &Offers {
        &self.offers
    }

    pub(super) const fn taken(&self) -> u32 {
        self.taken
    }

    /// Only the last transaction can have something left to write.
    fn write(&mut self, out: &mut Vec<u8>) {
        let window = if self.offers.pipelining { self.rules.limits.outstanding_max.max(1) } else { 1 };
        // Half a window at once: a write for each reply would undo what pipelining gains.
        if self.expected.len() > window / 2 {
            return;
        }
        let Some(flight) = self.flights.back_mut() else { return };
        while self.expected.len() < window {
            let expected = match flight.due {
                Due::Rset => {
                    out.extend_from_slice(command::RSET);
                    self.server = Server::Clear;
                    flight.due = Due::Xforward;
                    Expected::Rset
                }
                Due::Xforward => match flight.forwarding.pop_front() {
                    Some(command) => {
                        out.extend_from_slice(&command);
                        flight.forwarded = Forwarded::Yes;
                        Expected::Xforward
                    }
                    None => {
                        flight.due = Due::Mail;
                        continue;
                    }
                },
                Due::Mail => {
                    command::mail(&flight.transaction, &self.offers, out);
                    flight.due = Due::Rcpt(0);
                    Expected::Mail
                }
                Due::Rcpt(i) => {
                    let recipient = &flight.transaction.recipients[flight.place_of(i)];
                    command::rcpt(recipient, flight.transaction.by, &self.offers, out);
                    flight.due = if i + 1 < flight.asked_len() { Due::Rcpt(i + 1) } else { Due::Data };
                    Expected::Rcpt
                }
                Due::Data if flight.outstanding == 0 && flight.accepted == 0 => {
                    flight.due = Due::Stopped;
                    return;
                }
                Due::Data => match flight.framing {
                    Framing::Dot => {
                        out.extend_from_slice(command::DATA);
                        flight.due = Due::Go;
                        Expected::Data
                    }
                    // Large content is not sent for nobody: the replies to RCPT come first. In LMTP they say how many
                    // replies are to come.
                    Framing::Bdat
                        if flight.outstanding > 0
                            && (flight.transaction.size > self.rules.limits.eager_max
                                || self.rules.protocol == Protocol::Lmtp) =>
                    {
                        return;
                    }
                    Framing::Bdat => {
                        command::bdat_last(flight.transaction.size, out);
                        flight.due = Due::Content;
                        if self.rules.protocol == Protocol::Lmtp {
                            return;
                        }
                        Expected::End
                    }
                },
                Due::Go | Due::Content | Due::Sent | Due::Stopped => return,
            };
            flight.outstanding += 1;
            self.expected.push_back(expected);
        }
    }

    /// Whom of these the next hop may be asked for in a transaction, and from then on in this session; `None` for all.
    /// Nobody is who is barred.
    fn asked(&mut self, recipients: &[Recipient], barred: &[bool]) -> Option<Box<[usize]>> {
        let Offers { recipients_max, domains_max, .. } = self.offers;
        let recipients_max = recipients_max.map_or(usize::MAX, |most| most as usize);
        if recipients.len() <= recipients_max && domains_max.is_none() && !barred.contains(&true) {
            return None;
        }
        let mut asked = Vec::new();
        for (place, recipient) in recipients.iter().enumerate() {
            if asked.len() == recipients_max {
                break;
            }
            if barred[place] {
                continue;
            }
            if let Some(most) = domains_max {
                let domain = recipient.address.domain();
                if !self.domains.contains(&domain) {
                    if self.domains.len() >= most as usize {
                        continue;
                    }
                    self.domains.push(domain);
                }
            }
            asked.push(place);
        }
        (asked.len() < recipients.len()).then(|| asked.into())
    }

    fn framing(&self, transaction: &Transaction) -> Framing {
        let wanted = match self.rules.chunking {
            Chunking::WhenNeeded => transaction.body == BodyType::BinaryMime,
            Chunking::WhenOffered => true,
        };
        if wanted && self.offers.chunking { Framing::Bdat } else { Framing::Dot }
    }
}

impl Flight {
    /// The place in the transaction of the recipient that is asked for as the `i`-th.
    fn place_of(&self, i: usize) -> usize {
        self.asked.as_ref().map_or(i, |asked| asked[i])
    }

    fn asked_len(&self) -> usize {
        self.asked.as_ref().map_or(self.transaction.recipients.len(), |asked| asked.len())
    }

    fn on_rcpt_reply(&mut self, reply: Reply) {
        let i = self.place_of(self.rcpt_replies);
        self.rcpt_replies += 1;
        match self.mail {
            Mail::Accepted if reply.is_completion() => self.accepted += 1,
            Mail::Accepted => self.answers[i] = Some(Answer::Reply(Stage::Rcpt, reply)),
            // What MAIL got has decided already.
            Mail::Refused => {}
            Mail::Unanswered => unreachable!("RCPT is written after MAIL"),
        }
    }

    fn refuse(&mut self, reply: Reply) {
        self.mail = Mail::Refused;
        self.settle(&Answer::Reply(Stage::Mail, reply));
        match self.due {
            Due::Rcpt(_) | Due::Data => self.due = Due::Stopped,
            // What is written stays written: its replies are waited for.
            Due::Go | Due::Sent | Due::Stopped => {}
            Due::Rset | Due::Xforward | Due::Mail | Due::Content => {
                unreachable!("MAIL was answered in {:?}", self.due)
            }
        }
    }

    fn abort(&mut self, abort: &Abort, stage: Stage) {
        let answer = match abort {
            Abort::Closing(reply) => Answer::Reply(stage, reply.clone()),
            Abort::Lost(loss) if self.due == Due::Sent => Answer::Lost(Stage::End, *loss),
            Abort::Lost(loss) => Answer::Lost(stage, *loss),
        };
        let unheard = match (self.place, abort) {
            (Place::First, _) => false,
            // A hop that hangs or talks nonsense has been tried.
            (Place::Later, Abort::Lost(Loss::TimedOut | Loss::Garbled(_))) => false,
            (Place::Later, Abort::Closing(_) | Abort::Lost(Loss::Closed)) | (Place::Chained, _) => true,
        };
        self.untried |= unheard && self.mail == Mail::Unanswered;
        self.settle(&answer);
        self.outstanding = 0;
        self.due = Due::Stopped;
    }

    /// Decides for all recipients that nothing has decided for yet.
    fn settle(&mut self, answer: &Answer) {
        self.answers.iter_mut().filter(|a| a.is_none()).for_each(|a| *a = Some(answer.clone()));
    }

    /// Decides for the first recipient that nothing has decided for yet: replies come in the order of those who were
    /// accepted (RFC 2033 §4.2).
    fn settle_next(&mut self, answer: Answer) {
        if let Some(next) = self.answers.iter_mut().find(|answer| answer.is_none()) {
            *next = Some(answer);
        }
    }

    fn is_ended(&self) -> bool {
        self.outstanding == 0 && matches!(self.due, Due::Sent | Due::Stopped)
    }

    fn outcome(self) -> TransactionOutcome {
        if self.untried {
            return TransactionOutcome::Untried(self.transaction);
        }
        let answers = self.answers.into_iter();
        TransactionOutcome::Answered(answers.map(|a| a.expect("every recipient has an answer")).collect())
    }
}

impl Expected {
    const fn stage(self) -> Stage {
        match self {
            Self::Rset => Stage::Rset,
            Self::Xforward => Stage::Xforward,
            Self::Mail => Stage::Mail,
            Self::Rcpt => Stage::Rcpt,
            Self::Data => Stage::Data,
            Self::End | Self::LoneDot => Stage::End,
        }
    }
}

fn unsuitable(transaction: &Transaction, offers: &Offers) -> Option<Unsuitable> {
    if !offers.smtputf8 && !transaction.has_part_without_utf8() {
        let header = transaction.has_ascii_addresses();
        return Some(if header { Unsuitable::Utf8Header } else { Unsuitable::Utf8 });
    }
    match transaction.body {
        BodyType::BinaryMime if !(offers.binary_mime && offers.chunking) => {
            return Some(Unsuitable::BinaryMime(transaction.unconverted));
        }
        BodyType::EightBitMime if !offers.eight_bit_mime => {
            return Some(Unsuitable::EightBitMime(transaction.unconverted));
        }
        BodyType::SevenBit | BodyType::EightBitMime | BodyType::BinaryMime => {}
    }
    if transaction.tls == TlsDemand::Required && !offers.require_tls {
        return Some(Unsuitable::RequireTls);
    }
    match (transaction.returned_in(), offers.deliver_by) {
        (Some(..=0), _) => return Some(Unsuitable::Expired),
        (Some(seconds), Some(min)) if seconds >= i64::from(min) => {}
        (Some(_), _) => return Some(Unsuitable::DeliverBy),
        (None, _) => {}
    }
    match offers.size {
        Size::AtMost(size_max) if transaction.size > size_max => Some(Unsuitable::TooLarge(size_max)),
        Size::AtMost(_) | Size::Unbounded | Size::NotOffered => None,
    }
}
