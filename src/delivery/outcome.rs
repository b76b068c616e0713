//! From what a next hop said, or did not say, to delivered, deferred or failed.
//!
//! This is the only place where that is decided.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use mail::{DeliverByMode, DeliverByTrace, Handling, Status, Timestamp};
use smtp::client::{Answer, Loss, Offers, Reply, ReplyClass, Stage, TransactionOutcome};

/// What came of one recipient (RFC 3464 §2.3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next hop is responsible now; or nobody needs to be.
    Delivered(Report, Teller),
    /// May be tried again.
    Deferred(Report),
    /// May not.
    Failed(Report),
}

/// Who tells the sender of a success, if he wants to hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// The next hop offers DSN and was given what the sender wants: it answers for the report (RFC 3461 §5.2.1).
    NextHop,
    /// We do, now: nobody behind us will (RFC 3461 §5.2.2).
    We,
    /// We do, and everybody who does not want to hear nothing at all (RFC 2852 §4.1.4).
    WeEach,
}

impl Teller {
    /// Who tells of a message that was given to a next hop with these offers.
    pub fn of(offers: &Offers, handling: &Handling, now: Timestamp) -> Self {
        // What the sender wants to hear of each hop (RFC 2852 §4.1.4), or that his time is kept no more (§4.1.4.2),
        // only we can say.
        let followed = handling.deliver_by.is_some_and(|by| {
            let unkept = offers.deliver_by.is_none() && now < by.deadline;
            by.trace == DeliverByTrace::Yes || by.mode == DeliverByMode::Notify && unkept
        });
        match (followed, offers.dsn) {
            (true, _) => Self::WeEach,
            (false, true) => Self::NextHop,
            (false, false) => Self::We,
        }
    }
}

/// Why, for the log and the DSN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The Status field (RFC 3464 §2.3.4).
    pub status: Status,
    /// The Remote-MTA field (RFC 3464 §2.3.5); none when no host was reached.
    pub remote: Option<Arc<Remote>>,
    /// The Diagnostic-Code field (RFC 3464 §2.3.6), or our own words.
    pub diagnostic: Diagnostic,
    /// What the reply answered; none when it is we who speak.
    pub stage: Option<Stage>,
}

/// Who spoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Diagnostic {
    /// The next hop.
    Reply(Reply),
    /// We.
    Text(Box<str>),
}

/// What a connection was made or tried to, or what has taken mail without one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remote {
    /// Its name; an address literal when it has none (RFC 3464 §2.3.5).
    pub name: Box<str>,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Whether it is the end of the way, as far as we know: it keeps the mail and relays none.
    pub is_final: bool,
}

/// Where somebody is who takes mail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// At a port of a host.
    Tcp(SocketAddr),
    /// At a socket of this host.
    Unix(Arc<Path>),
    /// Behind the pool of this server: a program, or a service that speaks HTTP.
    Pool,
}

/// What is to be done with a recipient after a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its part in this attempt is over.
    Ended(Outcome),
    /// It is still to be delivered: by the next transaction when the connection is ready, by another
    /// connection when it was an old one, else by what the attempt does next.
    Remains,
}

/// Octets of a diagnostic that are shown and kept.
const DIAGNOSTIC_MAX: usize = 1024;

/// The fate of each recipient of a transaction, in order.
pub fn fates(outcome: &TransactionOutcome, remote: &Arc<Remote>, teller: Teller) -> Vec<Fate> {
    let answers = match outcome {
        TransactionOutcome::Untried(transaction) => return vec![Fate::Remains; transaction.recipients.len()],
        TransactionOutcome::Answered(answers) => answers,
    };
    // Whoever did not fit in gets another transaction, as long as each of them takes somebody along.
    let progress = answers.iter().any(|answer| matches!(answer, Answer::Reply(Stage::End, _)));
    let fate = |answer: &Answer| match answer {
        Answer::Reply(Stage::Rcpt, reply) if progress && is_too_many_recipients(reply) => Fate::Remains,
        // Nothing of the message was taken, so another host may be asked at once.
        Answer::Reply(stage, reply) if reply.code() == 421 && *stage != Stage::End => Fate::Remains,
        Answer::Lost(stage, _) if *stage != Stage::End => Fate::Remains,
        // Each transaction asks for somebody, so this ends.
        Answer::Left => Fate::Remains,
        Answer::Reply(..) | Answer::Lost(..) | Answer::Unsuitable(_) => {
            Fate::Ended(Outcome::of(answer, remote, teller))
        }
    };
    answers.iter().map(fate).collect()
}

impl Outcome {
    /// From a next hop's answer, or the want of one.
    pub fn of(answer: &Answer, remote: &Arc<Remote>, teller: Teller) -> Self {
        let report =
            |status, diagnostic| Report { status, remote: Some(Arc::clone(remote)), diagnostic, stage: None };
        match answer {
            Answer::Reply(stage, reply) => Self::of_reply(*stage, reply, remote, teller),
            Answer::Lost(stage, loss) => {
                let diagnostic = Diagnostic::Text(format!("{loss} {}", at(*stage)).into());
                Self::Deferred(report(loss_status(*loss), diagnostic))
            }
            Answer::Unsuitable(why) => {
                Self::Failed(report(why.status(), Diagnostic::Text(why.to_string().into())))
            }
            Answer::Left => {
                let text = "the next hop takes no more recipients at once";
                Self::Deferred(report(Status(4, 5, 3), Diagnostic::Text(text.into())))
            }
        }
    }

    /// From a reply that decides: the last one, or a refusal at an earlier stage.
    pub(crate) fn of_reply(stage: Stage, reply: &Reply, remote: &Arc<Remote>, teller: Teller) -> Self {
        // A code without detail says no more than its class (RFC 3463 §3.1).
        let plain = Status((reply.code() / 100) as u8, 0, 0);
        let report = |status| Report {
            status,
            remote: Some(Arc::clone(remote)),
            diagnostic: Diagnostic::Reply(reply.clone()),
            stage: Some(stage),
        };
        match (reply.class(), stage) {
            (ReplyClass::Completion, Stage::End) => {
                Self::Delivered(report(reply.status().unwrap_or(plain)), teller)
            }
            // A positive reply where it makes no sense: not delivered, and not the message's fault.
            (ReplyClass::Completion | ReplyClass::Intermediate, _) => Self::Deferred(report(Status(4, 5, 0))),
            (ReplyClass::Transient, _) => Self::Deferred(report(reply.status().unwrap_or(plain))),
            // An old code for 452, to be taken as temporary (RFC 5321 §4.5.3.1.10).
            (ReplyClass::Permanent, Stage::Rcpt) if is_too_many_recipients(reply) => {
                Self::Deferred(report(Status(4, 5, 3)))
            }
            (ReplyClass::Permanent, _) => Self::Failed(report(reply.status().unwrap_or(plain))),
        }
    }

    pub(crate) fn deferred(status: Status, remote: Option<Arc<Remote>>, text: impl fmt::Display) -> Self {
        let diagnostic = Diagnostic::Text(text.to_string().into());
        Self::Deferred(Report { status, remote, diagnostic, stage: None })
    }

    /// We found that it does not go.
    pub fn failed(status: Status, text: impl fmt::Display) -> Self {
        let diagnostic = Diagnostic::Text(text.to_string().into());
        Self::Failed(Report { status, remote: None, diagnostic, stage: None })
    }

    pub(crate) fn lost(stage: Stage, loss: Loss, remote: Arc<Remote>) -> Self {
        Self::deferred(loss_status(loss), Some(remote), format_args!("{loss} {}", at(stage)))
    }

    /// Delivered to nowhere, by a route that discards.
    pub fn discarded() -> Self {
        let diagnostic = Diagnostic::Text("discarded by its route".into());
        Self::Delivered(Report { status: Status(2, 0, 0), remote: None, diagnostic, stage: None }, Teller::We)
    }

    /// Why, whichever it is.
    pub const fn report(&self) -> &Report {
        match self {
            Self::Delivered(report, _) | Self::Deferred(report) | Self::Failed(report) => report,
        }
    }
}

impl fmt::Display for Diagnostic {
    /// In one line, bounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(reply) => f.write_str(cut(&reply.to_string())),
            Self::Text(text) => f.write_str(cut(text)),
        }
    }
}

impl Remote {
    /// Another mail server, there.
    pub const fn relay(name: Box<str>, address: IpAddr, port: u16) -> Self {
        Self { name, endpoint: Endpoint::Tcp(SocketAddr::new(address, port)), is_final: false }
    }

    /// Its address and port, where it has them.
    pub const fn socket_address(&self) -> Option<SocketAddr> {
        match self.endpoint {
            Endpoint::Tcp(address) => Some(address),
            Endpoint::Unix(_) | Endpoint::Pool => None,
        }
    }

    /// Its address, where it has one.
    pub fn address(&self) -> Option<IpAddr> {
        self.socket_address().map(|address| address.ip())
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp(to) => write!(f, "{}[{}]:{}", self.name, to.ip(), to.port()),
            Endpoint::Unix(_) | Endpoint::Pool => f.write_str(&self.name),
        }
    }
}

/// RFC 5321 §4.5.3.1.10: `452`, and of old `552`; either may be about storage, which the status tells.
fn is_too_many_recipients(reply: &Reply) -> bool {
    let status_agrees = reply.status().is_none_or(|status| (status.1, status.2) == (5, 3));
    matches!(reply.code(), 452 | 552) && status_agrees
}

const fn loss_status(loss: Loss) -> Status {
    match loss {
        Loss::Closed | Loss::TimedOut => Status(4, 4, 2),
        Loss::Garbled(_) => Status(4, 5, 0),
    }
}

const fn at(stage: Stage) -> &'static str {
    match stage {
        Stage::Connect => "while connecting",
        Stage::Greeting => "waiting for the greeting",
        Stage::Ehlo => "waiting for the reply to EHLO",
        Stage::StartTls => "waiting for the reply to STARTTLS",
        Stage::Auth => "waiting for the reply to AUTH",
        Stage::Handshake => "during the TLS handshake",
        Stage::Rset => "waiting for the reply to RSET",
        Stage::Xforward => "waiting for the reply to XFORWARD",
        Stage::Mail => "waiting for the reply to MAIL",
        Stage::Rcpt => "waiting for the reply to RCPT",
        Stage::Data => "waiting for the reply to DATA",
        Stage::Content => "while sending the content",
        Stage::End => "waiting for the last reply: the message may have been delivered",
        Stage::Quit => "waiting for the reply to QUIT",
    }
}

/// As much of a text as is looked at and kept.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(DIAGNOSTIC_MAX)]
}

#[cfg(test)]
mod test {
    use mail::{BodyType, Recipient, ReversePath, Utf8};
    use smtp::client::{ReplyError, Transaction, Unsuitable};

    use super::*;

    fn remote() -> Arc<Remote> {
        Arc::new(Remote::relay("mx.example".into(), [192, 0, 2, 1].into(), 25))
    }

    fn reply(stage: Stage, text: &str) -> Answer {
        let mut reader = smtp::client::ReplyReader::new(smtp::client::ReplyLimits::default());
        Answer::Reply(stage, reader.read(&mut format!("{text}\r\n").as_bytes()).unwrap().unwrap())
    }

    fn say(fate: &Fate) -> String {
        match fate {
            Fate::Remains => "remains".into(),
            Fate::Ended(Outcome::Delivered(report, _)) => format!("delivered {}", report.status),
            Fate::Ended(Outcome::Deferred(report)) => format!("deferred {}", report.status),
            Fate::Ended(Outcome::Failed(report)) => format!("failed {}", report.status),
        }
    }

    fn check(answers: &[Answer], expected: &[&str]) {
        let outcome = TransactionOutcome::Answered(answers.to_vec());
        assert_eq!(
            fates(&outcome, &remote(), Teller::We).iter().map(say).collect::<Vec<_>>(),
            expected,
            "{answers:?}"
        );
    }

    #[test]
    fn replies_decide() {
        check(&[reply(Stage::End, "250 ok")], &["delivered 2.0.0"]);
        check(&[reply(Stage::End, "250 2.6.0 ok")], &["delivered 2.6.0"]);
        check(&[reply(Stage::End, "550 5.7.1 spam")], &["failed 5.7.1"]);
        check(&[reply(Stage::End, "451 later")], &["deferred 4.0.0"]);
        check(&[reply(Stage::End, "421 bye")], &["deferred 4.0.0"]);
        check(&[reply(Stage::End, "354 what")], &["deferred 4.5.0"]);
        check(&[reply(Stage::Data, "250 what")], &["deferred 4.5.0"]);
        check(&[reply(Stage::Mail, "550 no")], &["failed 5.0.0"]);
        check(&[reply(Stage::Rcpt, "450 4.2.0 greylisted")], &["deferred 4.2.0"]);
        check(&[reply(Stage::Rcpt, "421 4.3.2 bye")], &["remains"]);
        check(&[reply(Stage::Rcpt, "552 5.2.2 mailbox full")], &["failed 5.2.2"]);
    }

    #[test]
    fn who_does_not_fit_in_goes_with_the_next_transaction() {
        let (done, full) = (reply(Stage::End, "250 ok"), reply(Stage::Rcpt, "452 4.5.3 too many"));
        check(&[done.clone(), full.clone()], &["delivered 2.0.0", "remains"]);
        check(&[done.clone(), reply(Stage::Rcpt, "552 too many")], &["delivered 2.0.0", "remains"]);
        check(&[done, reply(Stage::Rcpt, "452 4.3.1 disk")], &["delivered 2.0.0", "deferred 4.3.1"]);
        check(&[full, Answer::Left], &["deferred 4.5.3", "remains"]);
        check(&[reply(Stage::Rcpt, "552 too many")], &["deferred 4.5.3"]);
    }

    #[test]
    fn silence_decides_when_the_message_may_have_been_taken() {
        check(&[Answer::Lost(Stage::Mail, Loss::Closed)], &["remains"]);
        check(&[Answer::Lost(Stage::Content, Loss::TimedOut)], &["remains"]);
        check(&[Answer::Lost(Stage::End, Loss::TimedOut)], &["deferred 4.4.2"]);
        check(&[Answer::Lost(Stage::End, Loss::Garbled(ReplyError::Syntax))], &["deferred 4.5.0"]);
    }

    #[test]
    fn what_a_hop_cannot_take_fails() {
        check(&[Answer::Unsuitable(Unsuitable::Utf8)], &["failed 5.6.7"]);
        check(&[Answer::Unsuitable(Unsuitable::BinaryMime(None))], &["failed 5.6.3"]);
        check(&[Answer::Unsuitable(Unsuitable::Utf8Header)], &["failed 5.6.9"]);
        check(&[Answer::Unsuitable(Unsuitable::TooLarge(10))], &["failed 5.3.4"]);
        check(&[Answer::Unsuitable(Unsuitable::DeliverBy)], &["failed 5.3.3"]);
        check(&[Answer::Unsuitable(Unsuitable::Expired)], &["failed 5.4.7"]);
        check(&[Answer::Unsuitable(Unsuitable::RequireTls)], &["failed 5.7.30"]);
    }

    #[test]
    fn who_tells_of_success() {
        let check = |now, dsn, deliver_by, wish: Option<(DeliverByMode, DeliverByTrace)>, teller| {
            let offers = Offers { dsn, deliver_by, ..Offers::default() };
            let deadline = Timestamp::from_secs(100);
            let deliver_by = wish.map(|(mode, trace)| mail::DeliverBy { deadline, mode, trace });
            let handling = Handling { deliver_by, ..Handling::default() };
            assert_eq!(Teller::of(&offers, &handling, Timestamp::from_secs(now)), teller, "{wish:?}");
        };
        let (notify, give_back) = (DeliverByMode::Notify, DeliverByMode::Return);
        check(9, true, None, None, Teller::NextHop);
        check(9, false, Some(0), None, Teller::We);
        check(9, true, Some(0), Some((notify, DeliverByTrace::No)), Teller::NextHop);
        // RFC 2852 §4.1.4.2: "before deliver-by-time to a SMTP server that does not support the Deliver By extension".
        check(9, true, None, Some((notify, DeliverByTrace::No)), Teller::WeEach);
        check(100, true, None, Some((notify, DeliverByTrace::No)), Teller::NextHop);
        check(9, false, Some(0), Some((notify, DeliverByTrace::No)), Teller::We);
        // §4.1.4: the trace is told of whatever the next hop knows.
        check(9, true, Some(0), Some((give_back, DeliverByTrace::Yes)), Teller::WeEach);
        check(200, true, Some(0), Some((notify, DeliverByTrace::Yes)), Teller::WeEach);
    }

    #[test]
    fn the_untried_remain() {
        let recipient = Recipient::new("bob@mx.example".parse().unwrap());
        let outcome = TransactionOutcome::Untried(Transaction {
            reverse_path: ReversePath::Null,
            recipients: vec![recipient.clone(), recipient],
            size: 1,
            body: BodyType::SevenBit,
            unconverted: None,
            utf8: Utf8::NotNeeded,
            ret: None,
            envelope_id: None,
            by: None,
            priority: mail::TransferPriority::default(),
            tls: mail::TlsDemand::None,
            upstream: None,
        });
        assert_eq!(fates(&outcome, &remote(), Teller::We), [Fate::Remains, Fate::Remains]);
    }

    #[test]
    fn diagnostics_are_bounded_lines() {
        let text = "\u{e9}".repeat(DIAGNOSTIC_MAX);
        assert_eq!(Diagnostic::Text(text.into()).to_string().len(), DIAGNOSTIC_MAX);
        let reply = Reply::new(550, Some(Status(5, 1, 1)), "no\nuser");
        assert_eq!(Diagnostic::Reply(reply).to_string(), "550 5.1.1 no user");
        assert_eq!(remote().to_string(), "mx.example[192.0.2.1]:25");
    }
}
