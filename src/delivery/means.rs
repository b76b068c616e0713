//! Mail that leaves by no connection of ours: into a program of this host, or to a service that speaks HTTP.
//!
//! The pool does both, since a shard must not wait for either. Here is what it is told, and what an answer means: each is made
//! into a reply, as a mail server would have given it, so that what holds for replies (rules, retries, reports) holds here as well.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use mail::Status;
use smtp::client::{Reply, Stage};

use crate::{Endpoint, Outcome, Place, Remote, Teller, outcome::cut};

/// By what mail leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// A program.
    Program(Program),
    /// A service.
    Service(Service),
    /// The shelf of reports that come to us: the pool reads and keeps them.
    Reports,
}

/// A program that takes mail at its standard input. What it is started with is known to whoever starts it, by the name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// By which the configuration knows it.
    pub name: Box<str>,
    /// What its content looks like.
    pub shape: ProgramContent,
    /// For how many recipients it is started at once.
    pub recipients_max: usize,
    /// What of it is waited for.
    pub hearing: Hearing,
    /// Exit codes that send mail back.
    pub permanent: Vec<u8>,
}

/// How long a program is waited for, and how much of what it says is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hearing {
    /// How long it may take.
    pub timeout: Duration,
    /// Whoever runs it ends it after that time, and is given so much longer to say so.
    pub grace: Duration,
    /// What it has started and left behind may hold its output open: it is not waited for longer.
    pub linger: Duration,
    /// Octets of what it writes that are read; what is beyond is thrown away.
    pub output_max: usize,
}

/// What a program is given to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramContent {
    /// How its lines end.
    pub line_ends: LineEnds,
    /// Whether a `Return-Path` field is before it (RFC 5321 §4.4: whoever makes the final delivery adds it).
    pub return_path: bool,
    /// Whether a `Delivered-To` field is before it, where it is for one recipient.
    pub delivered_to: bool,
    /// Whether a line `From sender date` is before it, as in a file of mailboxes (RFC 4155), and lines within that look like one are
    /// quoted.
    pub mbox_from: bool,
}

/// How lines end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineEnds {
    /// As programs of this system have it.
    #[default]
    Lf,
    /// As it is in transport.
    CrLf,
}

/// A service that takes mail by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// By which the configuration knows it.
    pub name: Box<str>,
    /// Where it is.
    pub url: ServiceUrl,
    /// What a request holds.
    pub body: ServiceBody,
    /// Fields of each request besides ours.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// As whom we log in, by the name of the credentials.
    pub login: Option<Box<str>>,
    /// The file of the secret that requests are signed with.
    pub secret: Option<PathBuf>,
    /// For how many recipients a request is.
    pub recipients_max: usize,
    /// How long one may take.
    pub timeout: Duration,
    /// Statuses that send mail back.
    pub permanent: Vec<u16>,
}

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl {
    /// Whether under TLS.
    pub secure: bool,
    /// The host.
    pub host: Place,
    /// The port.
    pub port: u16,
    /// From the first slash on.
    pub path: Box<str>,
}

/// What a request holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceBody {
    /// The message as it is; the envelope is in fields of the request.
    #[default]
    Message,
    /// A JSON object with envelope and message.
    Json,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It took too long and was ended.
    TimedOut,
    /// It could not be started, or nobody knows what became of it.
    Lost(Box<str>),
}

/// What a service answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status (RFC 9110 §15).
    pub status: u16,
    /// `Retry-After` (RFC 9110 §10.2.3), counted from now.
    pub retry_after: Option<Duration>,
    /// The first line of the body, or the reason.
    pub text: String,
}

/// Words of what was said that are kept.
const SAID_MAX: usize = 400;

impl Means {
    /// For how many recipients of a message it is used at once.
    pub const fn recipients_max(&self) -> usize {
        match self {
            Self::Program(program) => program.recipients_max,
            Self::Service(service) => service.recipients_max,
            // It is one report, for whomever.
            Self::Reports => usize::MAX,
        }
    }

    /// What logs call it.
    pub fn remote(&self) -> Arc<Remote> {
        Arc::new(Remote { name: self.to_string().into(), endpoint: Endpoint::Pool, is_final: true })
    }
}

impl fmt::Display for Means {
    /// As keys of destinations have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(program) => write!(f, "program:{}", program.name),
            Self::Service(service) => write!(f, "http:{}", service.name),
            Self::Reports => f.write_str("reports-in"),
        }
    }
}

impl Program {
    /// What the end of the program means for all recipients that it was started for, with the first that it has written.
    pub fn outcome(&self, exit: &Exit, output: &[u8], remote: &Arc<Remote>) -> Outcome {
        let said = said(output);
        let told = |text: &str| match said.is_empty() {
            true => text.to_owned(),
            false => said.clone(),
        };
        match exit {
            Exit::Code(0) => of(250, Status(2, 0, 0), &told("taken by the program"), remote),
            Exit::Code(code) => {
                let (subject, detail, meaning) = sysexit(*code);
                let is_permanent = u8::try_from(*code).is_ok_and(|code| self.permanent.contains(&code));
                let (reply, class) = if is_permanent { (550, 5) } else { (450, 4) };
                // What it says itself goes before what the code says, in the class that the code says.
                let (status, words) = match status_in(&said) {
                    Some((Status(_, subject, detail), words)) => (Status(class, subject, detail), words),
                    None => (Status(class, subject, detail), &*said),
                };
                let text = match words {
                    "" => format!("the program ended with {code}: {meaning}"),
                    words => format!("{words} (the program ended with {code})"),
                };
                of(reply, status, &text, remote)
            }
            // Whatever it was, it is for the operator to mend, and no fault of the mail's.
            Exit::Signal(signal) => {
                let text = format!("the program was ended by signal {signal}{}", behind(&said));
                of(450, Status(4, 3, 0), &text, remote)
            }
            Exit::TimedOut => {
                let seconds = self.hearing.timeout.as_secs();
                let text = format!("the program took more than {seconds} s and was ended{}", behind(&said));
                of(450, Status(4, 3, 0), &text, remote)
            }
            Exit::Lost(why) => of(450, Status(4, 3, 0), &format!("the program was not run: {why}"), remote),
        }
    }
}

impl Service {
    /// What the answer means for all recipients of the request; without one, why there is none.
    pub fn outcome(&self, answer: &Result<Answered, String>, remote: &Arc<Remote>) -> Outcome {
        let answered = match answer {
            Ok(answered) => answered,
            Err(why) => return of(450, Status(4, 4, 1), why, remote),
        };
        let Answered { status, retry_after, text } = answered;
        let text = said(text.as_bytes());
        let mut line = format!("HTTP {status}{}", behind(&text));
        if (200..300).contains(status) {
            return of(250, Status(2, 0, 0), &line, remote);
        }
        if self.permanent.contains(status) {
            let (subject, detail) = match status {
                // The body is too large, or of a kind that is not taken (RFC 9110 §15.5.14, §15.5.16).
                413 => (3, 4),
                406 | 415 | 422 => (6, 0),
                404 | 410 => (1, 1),
                _ => (0, 0),
            };
            return of(550, Status(5, subject, detail), &line, remote);
        }
        if let Some(wait) = retry_after {
            line.push_str(&format!("; try again in {} seconds", wait.as_secs()));
        }
        // "Too Many Requests" (RFC 6585 §4): a rate, as mail servers say it.
        let status = if *status == 429 { Status(4, 7, 28) } else { Status(4, 3, 0) };
        of(450, status, &line, remote)
    }
}

/// What became of a message that is a report, or is kept since it is none.
pub fn taken_as_report(text: &str, remote: &Arc<Remote>) -> Outcome {
    of(250, Status(2, 0, 0), text, remote)
}

/// A message could not be kept as a report; it waits.
pub fn report_waits(text: &str, remote: &Arc<Remote>) -> Outcome {
    of(450, Status(4, 3, 0), text, remote)
}

fn of(code: u16, status: Status, text: &str, remote: &Arc<Remote>) -> Outcome {
    Outcome::of_reply(Stage::End, &Reply::new(code, Some(status), cut(text)), remote, Teller::We)
}

fn behind(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// What somebody has said, in one line without control characters, bounded.
fn said(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(&output[..output.len().min(4 * SAID_MAX)]);
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut line = clean.split_whitespace().collect::<Vec<_>>().join(" ");
    line.truncate(line.floor_char_boundary(SAID_MAX));
    line
}

/// An enhanced status code that a text begins with (RFC 3463), and the text behind it.
fn status_in(text: &str) -> Option<(Status, &str)> {
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    let status: Status = first.parse().ok()?;
    matches!(status.0, 4 | 5).then_some((status, rest))
}

/// What an exit code of `sysexits.h` is about: subject and detail (RFC 3463), and its meaning.
const fn sysexit(code: i32) -> (u16, u16, &'static str) {
    match code {
        64 => (3, 0, "it was not called as it wants"),
        65 => (6, 0, "the message is not as it should be"),
        66 => (3, 0, "its input cannot be had"),
        67 => (1, 1, "there is no such user"),
        68 => (1, 2, "there is no such host"),
        69 => (3, 0, "the service is not to be had"),
        70 => (3, 0, "it has a flaw"),
        71 => (3, 0, "the system does not let it"),
        72 => (3, 0, "a file of the system is missing"),
        73 => (2, 0, "it cannot make a file"),
        74 => (3, 0, "reading or writing failed"),
        75 => (3, 0, "it is to be tried again"),
        76 => (5, 0, "it does not understand the other side"),
        77 => (7, 0, "it may not"),
        78 => (3, 5, "its configuration is wrong"),
        126 => (3, 0, "it cannot be executed"),
        127 => (3, 0, "it is not there"),
        _ => (3, 0, "that is no code that we know"),
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn program() -> Program {
        Program {
            name: "lda".into(),
            shape: ProgramContent {
                line_ends: LineEnds::Lf,
                return_path: true,
                delivered_to: true,
                mbox_from: false,
            },
            recipients_max: 1,
            hearing: Hearing {
                timeout: Duration::from_secs(9),
                grace: Duration::ZERO,
                linger: Duration::ZERO,
                output_max: 1 << 10,
            },
            permanent: vec![65, 67, 68, 69, 76, 77],
        }
    }

    fn say(outcome: &Outcome) -> String {
        let kind = match outcome {
            Outcome::Delivered(..) => "delivered",
            Outcome::Deferred(_) => "deferred",
            Outcome::Failed(_) => "failed",
        };
        format!("{kind} {} {}", outcome.report().status, outcome.report().diagnostic)
    }

    #[test]
    fn what_the_end_of_a_program_means() {
        let program = program();
        let remote = Means::Program(program.clone()).remote();
        let check = |exit: Exit, output: &str, expected: &str| {
            assert_eq!(say(&program.outcome(&exit, output.as_bytes(), &remote)), expected, "{exit:?}");
        };
        check(Exit::Code(0), "", "delivered 2.0.0 250 2.0.0 taken by the program");
        check(Exit::Code(0), "saved\nto INBOX\n", "delivered 2.0.0 250 2.0.0 saved to INBOX");
        let temporary = "deferred 4.3.0 450 4.3.0";
        check(
            Exit::Code(75),
            "",
            "deferred 4.3.0 450 4.3.0 the program ended with 75: it is to be tried again",
        );
        check(Exit::Code(67), "", "failed 5.1.1 550 5.1.1 the program ended with 67: there is no such user");
        // A flaw of a script is not the mail's.
        check(Exit::Code(1), "Traceback", &format!("{temporary} Traceback (the program ended with 1)"));
        check(Exit::Code(127), "", &format!("{temporary} the program ended with 127: it is not there"));
        // Its own status, in the class that the code says.
        check(
            Exit::Code(75),
            "4.2.2 mailbox is full",
            "deferred 4.2.2 450 4.2.2 mailbox is full (the program ended with 75)",
        );
        check(
            Exit::Code(77),
            "4.2.1 \x1b[31mclosed",
            "failed 5.2.1 550 5.2.1 [31mclosed (the program ended with 77)",
        );
        check(Exit::Code(77), "2.0.0 odd", "failed 5.7.0 550 5.7.0 2.0.0 odd (the program ended with 77)");
        check(
            Exit::Code(-1),
            "",
            &format!("{temporary} the program ended with -1: that is no code that we know"),
        );
        check(Exit::Signal(9), "x", &format!("{temporary} the program was ended by signal 9: x"));
        check(Exit::TimedOut, "", &format!("{temporary} the program took more than 9 s and was ended"));
        check(Exit::Lost("gone".into()), "", &format!("{temporary} the program was not run: gone"));
    }

    #[test]
    fn what_an_answer_means() {
        let service = Service {
            name: "hook".into(),
            url: ServiceUrl {
                secure: true,
                host: Place::Name(dns::Name::parse("hook.example").unwrap()),
                port: 443,
                path: "/".into(),
            },
            body: ServiceBody::default(),
            headers: Vec::new(),
            login: None,
            secret: None,
            recipients_max: 1,
            timeout: Duration::from_secs(9),
            permanent: vec![406, 410, 413, 415, 422],
        };
        let remote = Means::Service(service.clone()).remote();
        let check = |status, retry_after: Option<u64>, text: &str, expected: &str| {
            let retry_after = retry_after.map(Duration::from_secs);
            let answered = Answered { status, retry_after, text: text.into() };
            assert_eq!(say(&service.outcome(&Ok(answered), &remote)), expected, "{status}");
        };
        check(202, None, "queued", "delivered 2.0.0 250 2.0.0 HTTP 202: queued");
        check(204, None, "", "delivered 2.0.0 250 2.0.0 HTTP 204");
        // What an operator has written wrong, senders cannot mend.
        check(401, None, "who are you", "deferred 4.3.0 450 4.3.0 HTTP 401: who are you");
        check(302, None, "", "deferred 4.3.0 450 4.3.0 HTTP 302");
        check(503, Some(90), "busy", "deferred 4.3.0 450 4.3.0 HTTP 503: busy; try again in 90 seconds");
        check(429, None, "slow down", "deferred 4.7.28 450 4.7.28 HTTP 429: slow down");
        check(410, None, "gone", "failed 5.1.1 550 5.1.1 HTTP 410: gone");
        check(413, None, "", "failed 5.3.4 550 5.3.4 HTTP 413");
        let none = service.outcome(&Err("no answer in time".into()), &remote);
        assert_eq!(say(&none), "deferred 4.4.1 450 4.4.1 no answer in time");
        // The wait is found by whoever plans the next attempt.
        let text = say(&service.outcome(
            &Ok(Answered { status: 503, retry_after: Some(Duration::from_secs(120)), text: "".into() }),
            &remote,
        ));
        assert_eq!(crate::retry_hint(&text), Some(Duration::from_secs(120)));
    }
}
