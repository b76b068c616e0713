//! The table of refusals, and the page made from it.

use std::{collections::BTreeSet, env, fmt::Write as _, fs, path::Path};

use mail::Class;

use super::*;
use crate::Reply;

#[test]
fn codes_and_statuses_agree() {
    for refusal in Refusal::ALL {
        let class = match refusal.code() / 100 {
            4 => Class::Transient,
            5 => Class::Permanent,
            other => panic!("{refusal:?}: class {other}"),
        };
        assert_eq!(refusal.status().class(), Some(class), "{refusal:?}");
        let mut line = Vec::new();
        Reply::from(*refusal).write_to(&mut line);
        // RFC 5321 §4.5.3.1.5.
        assert!(line.len() <= 512 && line.is_ascii() && line.ends_with(b"\r\n"), "{refusal:?}");
    }
}

#[test]
fn labels_are_the_names() {
    let mut labels = BTreeSet::new();
    for refusal in Refusal::ALL {
        let mut name = String::new();
        for c in format!("{refusal:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(c.to_ascii_lowercase());
        }
        assert_eq!(refusal.label(), name);
        assert!(labels.insert(name), "{refusal:?} has the label of another");
    }
}

#[test]
fn the_page_of_replies_is_true() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/replies.md");
    let page = page();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &page).unwrap();
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(there == page, "docs/replies.md is out of date: run this test with UPDATE_GOLDEN=1");
}

/// A refusal that nothing makes, but for the table, the tests and the simulator's next hops, is one of `NOT_YET`.
#[test]
fn what_is_not_sent_yet_is_marked() {
    let rooms = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut code = String::new();
    gather(&rooms, &mut code);
    // Of the table itself, only what makes a refusal of a syntax error.
    let table = fs::read_to_string(rooms.join("smtp/refusal.rs")).unwrap();
    let (_, conversion) = table.split_once("impl From<SyntaxError> for Refusal").unwrap();
    let (conversion, _) = conversion.split_once("#[cfg(test)]").unwrap();
    code += &conversion.replace("Self::", "Refusal::");
    let mut mentioned = BTreeSet::new();
    for (at, _) in code.match_indices("Refusal::") {
        // To compare with one is not to make it.
        let before = code[..at].trim_end();
        if !before.ends_with("==") && !before.ends_with("!=") {
            let name = &code[at + "Refusal::".len()..];
            mentioned.insert(&name[..name.find(|c: char| !c.is_alphanumeric()).unwrap_or(name.len())]);
        }
    }
    let mut wrong = Vec::new();
    for refusal in Refusal::ALL {
        let (made, yet) = (mentioned.contains(&*format!("{refusal:?}")), Refusal::NOT_YET.contains(refusal));
        match (made, yet) {
            (true, true) => wrong.push(format!("{refusal:?} is made somewhere: take it out of NOT_YET")),
            (false, false) => wrong.push(format!("nothing makes {refusal:?}: it belongs into NOT_YET")),
            (true, false) | (false, true) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The code of all rooms but the simulator, without tests and comments, and without the table.
fn gather(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "sim" {
                gather(&path, code);
            }
            continue;
        }
        let is_table = name == "refusal.rs" || path.ends_with("smtp/reply.rs");
        if !name.ends_with(".rs") || name.ends_with("_test.rs") || name == "test.rs" || is_table {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            code.push_str(line);
            code.push('\n');
        }
    }
}

fn page() -> String {
    let mut page = String::from(
        "# Replies\n\n\
        Every reply that ringpost sends as an SMTP server, written from the table in `src/smtp/reply.rs` by its\n\
        test (`UPDATE_GOLDEN=1 cargo test -p smtp`). The label names a refusal in metrics and in the log. What is marked\n\
        *not yet* is spelled, and nothing sends it: it belongs to parts that are still to come.\n\n\
        ## When all is well\n\n\
        | reply | when |\n|---|---|\n",
    );
    for (reply, when) in [
        (Reply::greeting("mx.example", "ESMTP"), "The connection is accepted."),
        (Reply::helo("mx.example"), "`HELO`. After `EHLO` or `LHLO` the extensions follow, one a line."),
        (Reply::SENDER_OK, "`MAIL` is accepted."),
        (Reply::RECIPIENT_OK, "`RCPT` is accepted."),
        (Reply::SEND_DATA, "`DATA` is accepted; the message may come."),
        (Reply::chunk(86), "A chunk arrived with `BDAT`, and more may follow."),
        (
            Reply::queued(mail::QueueId::new(mail::JournalShard(0), 42)),
            "The message is on stable storage, under this queue id: we are responsible for it from here on.",
        ),
        (Reply::OK, "`RSET`, `NOOP`."),
        (Reply::HELP, "`HELP`."),
        (Reply::NOT_VERIFIED, "`VRFY`: neither confirmed nor denied."),
        (Reply::START_TLS, "`STARTTLS`: the handshake may begin."),
        (Reply::CLOSING, "`QUIT`."),
    ] {
        writeln!(page, "| `{reply}` | {when} |").unwrap();
    }
    page.push_str(
        "\n## When not\n\n\
        | reply | label | when | the other side | the operator |\n|---|---|---|---|---|\n",
    );
    let mut refusals = Refusal::ALL.to_vec();
    refusals.sort_by_key(|refusal| refusal.code());
    for refusal in refusals {
        let (reply, label, when) = (Reply::from(refusal), refusal.label(), refusal.when());
        let (then, advice) = (other_side(refusal), advice(refusal));
        let yet = if Refusal::NOT_YET.contains(&refusal) { "*Not yet.* " } else { "" };
        writeln!(page, "| `{reply}` | `{label}` | {yet}{when} | {then} | {advice} |").unwrap();
    }
    page
}

/// What a client does with the refusal, if it obeys RFC 5321 §4.2.1.
fn other_side(refusal: Refusal) -> &'static str {
    match (refusal, refusal.code()) {
        (Refusal::TooManyRecipients, _) => "sends to the others in another transaction",
        (Refusal::TlsUnavailable, _) => "goes on without TLS, or comes back later",
        (_, 421) => "comes back later, with a new connection",
        (_, 400..=499) => "keeps the message and tries again",
        (_, 500..=504 | 530 | 555) => "is at fault: gives up, or goes on without what was refused",
        _ => "gives up and tells the sender",
    }
}

/// What whoever runs the server may want to do about it.
fn advice(refusal: Refusal) -> &'static str {
    const NOTHING: &str = "nothing";
    match refusal {
        Refusal::UnknownCommand
        | Refusal::NotImplemented
        | Refusal::Argument
        | Refusal::ControlCharacter
        | Refusal::ReversePathSyntax
        | Refusal::ForwardPathSyntax
        | Refusal::ParameterSyntax
        | Refusal::EhloFirst
        | Refusal::LhloFirst
        | Refusal::MailFirst
        | Refusal::RcptFirst
        | Refusal::TransactionOpen
        | Refusal::ChunkingBegun
        | Refusal::BinaryByData
        | Refusal::TlsActive
        | Refusal::HeaderMalformed
        | Refusal::NoSuchDomain
        | Refusal::NullMx
        | Refusal::Greylisted
        | Refusal::ShuttingDown => NOTHING,
        Refusal::LineTooLong | Refusal::LineEndless => "nothing; the limit of a command line is configured",
        Refusal::Utf8Needed | Refusal::SenderUtf8Needed | Refusal::ParameterUnknown => {
            "see which extensions the listener offers"
        }
        Refusal::HoldTooLong => "nothing, or raise `hold-max`",
        Refusal::HoldPast | Refusal::HoldPastDeadline => NOTHING,
        Refusal::TlsRequired => "tell the client's owner to turn TLS on",
        Refusal::TlsUnavailable => "look at the certificate and its key",
        Refusal::AuthenticationRequired => "tell the client's owner to log in",
        Refusal::TooManyRecipients => "nothing, or raise the limit of recipients",
        Refusal::TooManyTransactions | Refusal::TooManyCommands => {
            "nothing, or raise the limit of the session"
        }
        Refusal::TooManyErrors => "look at the client: a broken program, or an attack",
        Refusal::TooManyConnections => "raise the limit of connections, or block the client",
        Refusal::ConnectionRefused => "see the rule that refuses the client",
        Refusal::EarlyTalker => "nothing; if it is a mail server of use, allow it",
        Refusal::Timeout => "nothing; if it happens to many, look at the network",
        Refusal::TooSlow => {
            "nothing, or lower the rate of mail data; if it happens to many, look at the network"
        }
        Refusal::MessageTooBig => "nothing, or raise the limit of the message's size",
        Refusal::BareLineEnd => "have the client repaired; to accept such mail helps to smuggle messages",
        Refusal::NulByte | Refusal::DataLineTooLong => {
            "have the client repaired, or accept it by configuration"
        }
        Refusal::EightBitUndeclared
        | Refusal::EightBitHeader
        | Refusal::HeaderMissing
        | Refusal::HeaderRepeated => "have the client repaired",
        Refusal::Loop => "find the forwarding that leads back here",
        Refusal::RelayDenied => "if the client is yours, add its network to those that may relay",
        Refusal::NoSuchRecipient => "nothing; many from one client are a harvest of addresses",
        Refusal::MailboxFull => "raise the quota, or ask the owner to tidy up",
        Refusal::MailboxDisabled => "enable the mailbox, or remove it",
        Refusal::SenderNotAllowed => "see which senders the client or login may use",
        Refusal::SenderDomainUnknown => "look the domain up; see that DNS works",
        Refusal::EhloNameRefused | Refusal::Policy => "see the rule that refuses it",
        Refusal::ReverseName => "nothing; if it is a mail server of use, allow it",
        Refusal::SpfFailed | Refusal::SpfBroken => "mend the SPF record; or see `[authentication]`",
        Refusal::DkimFailed => "mend the signature or its key in the DNS; or see `[authentication]`",
        Refusal::DmarcFailed => {
            "have SPF or a signature pass for the author's domain; or see `[authentication]`"
        }
        Refusal::Listed | Refusal::ListedDeferred => {
            "if it is a mail server of use, have it taken off, or allow it; see `[strangers]` and `[[dns-list]]`"
        }
        Refusal::NoAuthor => "name one author in From",
        Refusal::DeceptiveAuthor => {
            "write From plainly; the log says what is wrong; or see `[authentication]`"
        }
        Refusal::DeceptiveFields => {
            "mend the header section; the log says what is wrong; or see `[authentication]`"
        }
        Refusal::AuthenticationDeferred => "as for what is refused; see `[authentication]`",
        Refusal::PolicyUnavailable => "see that DNS and the filters answer",
        Refusal::RateLimited => "nothing, or raise the rate",
        Refusal::QuotaUsedUp => "nothing, or raise the tenant's quota",
        Refusal::RecipientSuppressed => "nothing, or `ringpost suppression show` and `remove`",
        Refusal::UnsubscribeMissing | Refusal::UnsubscribeMalformed | Refusal::UnsubscribePost => {
            "have the program mended that makes the mail, or give the tenant `unsubscribe`; the event `unsubscribe_flawed` says what is wrong"
        }
        Refusal::UnsubscribeUnsigned => {
            "have a `[[dkim]]` for the author's domain; the log says why one did not sign"
        }
        Refusal::NodeNotAllowed => "if the mail is the client's, say so in `[[etrn]]`",
        Refusal::FetchNotAllowed => "if the mail is the client's, say so in `[[etrn]]`",
        Refusal::FetchUnavailable => "nothing; if it lasts, look at the log",
        Refusal::NothingToFetch => NOTHING,
        Refusal::ForwardingNotAllowed => {
            "if the client is a filter of yours, name its network in `xforward-networks`"
        }
        Refusal::NodeUnavailable => "nothing; if it lasts, look at the log",
        Refusal::Busy => "if it lasts, give the server more memory or more cores",
        Refusal::StorageFull => "make room in the data directory at once",
        Refusal::StorageFailed => "look at the log and the disk at once",
    }
}
