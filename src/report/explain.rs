//! The part of a report that a person reads: what happened, what the other side said, what to do.

use std::fmt::Write;

use mail::Status;
use message::date::date_text;

use crate::{Diagnostic, Facts, Outcome, RecipientFacts, dsn::quoted};

const WIDTH: usize = 72;

/// The whole text, lines ended by LF.
pub(crate) fn text(facts: &Facts<'_>, recipients: &[&RecipientFacts<'_>], diagnostic_max: usize) -> String {
    let mut text = String::new();
    paragraph(&mut text, "", &format!("This is the mail system of {}.", facts.host));
    for (wanted, introduction) in [
        (Group::Failed, "Your message could not be delivered to the following addresses:"),
        (
            Group::Delayed,
            "Your message has not been delivered yet to the following addresses. You need not do anything: \
             it will be tried again, and you will be told if that fails for good.",
        ),
        (Group::Done, "Your message has reached the following addresses:"),
    ] {
        let mut those = recipients.iter().filter(|r| Group::of(r.outcome) == wanted).peekable();
        if those.peek().is_some() {
            paragraph(&mut text, "", introduction);
            those.for_each(|recipient| one(&mut text, recipient, diagnostic_max));
        }
    }
    paragraph(
        &mut text,
        "",
        &format!("If you ask for help, please give the number of your message: {}", facts.message_id),
    );
    text.pop();
    text
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Failed,
    Delayed,
    Done,
}

impl Group {
    const fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Failed => Self::Failed,
            Outcome::Delayed { .. } => Self::Delayed,
            Outcome::Delivered | Outcome::Relayed | Outcome::Expanded => Self::Done,
        }
    }
}

fn one(text: &mut String, facts: &RecipientFacts<'_>, diagnostic_max: usize) {
    let _ = writeln!(text, "  {}\n", facts.recipient.address);
    let (what, todo) = explain(facts.outcome, facts.status);
    paragraph(text, "    ", what);
    if let Some(diagnostic) = facts.diagnostic {
        let said = match (diagnostic, facts.remote_mta) {
            (Diagnostic::Smtp(reply), Some(host)) => {
                format!("The server {} said: {}", quoted(host.as_bytes(), 255), spoken(reply, diagnostic_max))
            }
            (Diagnostic::Smtp(reply), None) => format!("The server said: {}", spoken(reply, diagnostic_max)),
            (Diagnostic::Local(found), _) => format!("Details: {}", quoted(found.as_bytes(), diagnostic_max)),
        };
        paragraph(text, "    ", &said);
    }
    if let Outcome::Delayed { retry_until } = facts.outcome {
        let date = date_text(retry_until);
        let until = format!("It will be tried until {}.", String::from_utf8_lossy(&date));
        paragraph(text, "    ", &until);
    }
    if !todo.is_empty() {
        paragraph(text, "    ", &format!("What you can do: {todo}"));
    }
}

/// A reply as one would read it aloud: its code and status once, though every line has them (RFC 5321 §4.2.1).
fn spoken(reply: &[u8], size_max: usize) -> String {
    let mut words = Vec::new();
    for (i, line) in reply[..reply.len().min(size_max)].split(|b| *b == b'\n').enumerate() {
        let code = matches!(line, [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9', b'-' | b' ', ..]);
        let (code, mut text) = if code { line.split_at(4) } else { (&[][..], line) };
        if i == 0 {
            words.extend_from_slice(code.get(..3).unwrap_or_default());
        } else {
            let first = text.split(|b| *b == b' ').next().unwrap_or_default();
            let status = std::str::from_utf8(first).is_ok_and(|word| word.parse::<Status>().is_ok());
            text = if status { &text[first.len()..] } else { text };
        }
        words.push(b' ');
        words.extend_from_slice(text);
    }
    quoted(&words, size_max)
}

/// What a status means (RFC 3463 §3), and what its reader can do about it.
fn explain(outcome: Outcome, Status(_, subject, detail): Status) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Failed => {}
        Outcome::Delayed { .. } => return (delayed(subject, detail), ""),
        Outcome::Delivered => return ("It was put into the mailbox.", ""),
        Outcome::Relayed => {
            return ("It was handed to the next server, which will send no further notice of success.", "");
        }
        Outcome::Expanded => return ("It was passed on to the members of a list or to another address.", ""),
    }
    match (subject, detail) {
        (1, 0 | 1 | 6) => (
            "There is no such address.",
            "check the spelling of the part before the @, or ask the person for the right address.",
        ),
        (1, 2) => (
            "There is no such domain: nothing receives mail under the name behind the @.",
            "check the spelling of the part behind the @.",
        ),
        (1, 3) => ("The address is malformed.", "check the spelling of the address."),
        (1, 7 | 8) => (
            "The other side does not accept your own address.",
            "ask your administrator whether your address is set up correctly.",
        ),
        (1, 10) => (
            "This domain says that it never receives mail.",
            "ask the person for an address at another domain.",
        ),
        (2, 1) => ("The mailbox is closed.", "reach the person in another way."),
        (2, 2) => {
            ("The mailbox is full.", "tell the person in another way, and send the message again later.")
        }
        (2, 3) | (3, 4) => (
            "The message is too large for the other side.",
            "send it again with smaller attachments, or share large files by a link.",
        ),
        (4, 6) => (
            "The message went in a circle between servers and was stopped.",
            "tell the administrator of the other domain: its mail is routed wrongly.",
        ),
        (4, 1 | 2 | 3 | 4 | 7) => (
            "The other side could not be reached in all this time, so the attempts were given up.",
            "send the message again later, or reach the person in another way.",
        ),
        (5, _) => (
            "The two mail systems did not understand each other.",
            "show this message to your administrator.",
        ),
        (6, 7..=10) => (
            "The address has letters that a server on the way cannot handle.",
            "ask the person for an address in plain letters.",
        ),
        (6, _) => (
            "The other side does not accept the form of the message.",
            "send it again in another format, for example as plain text.",
        ),
        (7, _) => (
            "The other side refused the message as a matter of its policy; often it was taken for spam.",
            "read its words below; your administrator can tell what they ask for.",
        ),
        _ => ("The other side refused the message.", "read its words; your administrator can tell more."),
    }
}

fn delayed(subject: u16, detail: u16) -> &'static str {
    match (subject, detail) {
        (2, 2) => "The mailbox is full.",
        (4, 1 | 2) | (4, 4) => "The other side cannot be reached at the moment.",
        (4, 3) => "The other side's name cannot be looked up at the moment.",
        (3, _) => "The other side has no room or no time at the moment.",
        (7, _) => "The other side wants the message to wait, as a matter of its policy.",
        _ => "The other side cannot take the message at the moment.",
    }
}

/// Words in lines, and an empty line behind them.
fn paragraph(text: &mut String, indent: &str, words: &str) {
    let mut column = 0;
    for word in words.split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > WIDTH {
            text.push('\n');
            column = 0;
        }
        let before = if column == 0 { indent } else { " " };
        text.push_str(before);
        text.push_str(word);
        column += before.len() + width;
    }
    text.push_str("\n\n");
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn replies_read_aloud() {
        let check = |reply: &str, expected| assert_eq!(spoken(reply.as_bytes(), 800), expected);
        check("550 5.1.1 No such user", "550 5.1.1 No such user");
        check(
            "550-5.1.1 No such user\r\n550-5.1.1 here,\r\n550 5.1.1  see",
            "550 5.1.1 No such user here, see",
        );
        check("554-no\n554 5 apples", "554 no 5 apples");
        check("", "");
        check("5\n\n550-", "5");
        check("gone", "gone");
    }

    #[test]
    fn paragraphs_keep_their_width() {
        let mut text = String::new();
        paragraph(&mut text, "    ", &"word ".repeat(40));
        assert!(
            text.lines().all(|line| line.is_empty() || (line.starts_with("    w") && line.len() <= WIDTH))
        );
        assert!(text.ends_with("word\n\n"));
    }
}
