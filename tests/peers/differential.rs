//! The same bytes to ringpost, Postfix and Exim: what differs is known, and why (docs/differences.md).
//!
//! Compared are reply codes, and what the next hop gets in the end: envelopes and content. Not texts. An input whose
//! outcomes differ has a reason beside it, and one with a reason differs.

#[path = "differential/bodies.rs"]
mod bodies;
#[path = "differential/chunks.rs"]
mod chunks;
#[path = "differential/commands.rs"]
mod commands;
#[path = "differential/paths.rs"]
mod paths;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Shutdown, SocketAddr},
    path::Path,
    thread,
};

#[expect(clippy::disallowed_types, reason = "a client of the servers under test")]
use std::net::TcpStream;

use end_to_end::{PATIENCE, Server, Sink};

use crate::{drained, exim::Exim, postfix::Postfix};

/// One input: a session after EHLO, in steps.
///
/// Steps are parted by `|`. A step gets its CRLF here, and the next one waits for a reply to it. One that begins with
/// `=N:` is sent as it is, and N replies are waited for. What stands behind `^|` is sent without EHLO before it. At the
/// end QUIT is sent and nothing more, and everything is read until the server closes. `{t}` is a mark of the input,
/// `{N}` is N octets that could be a domain, and `{loop}` is a header section with 101 trace fields.
struct Input {
    name: &'static str,
    script: &'static [u8],
    /// Why the servers differ, where they do.
    why: Option<&'static str>,
}

/// An input on which all agree.
const fn same(name: &'static str, script: &'static [u8]) -> Input {
    Input { name, script, why: None }
}

/// An input on which they do not, and why, with the rule that we follow.
const fn differs(name: &'static str, script: &'static [u8], why: &'static str) -> Input {
    Input { name, script, why: Some(why) }
}

const SECTIONS: [(&str, &[Input]); 4] = [
    ("Paths and parameters", paths::INPUTS),
    ("Commands and their order", commands::INPUTS),
    ("Mail data", bodies::INPUTS),
    ("Chunks", chunks::INPUTS),
];

/// What became of an input at one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Reply codes after the greeting and the first EHLO, without that of the last QUIT.
    replies: String,
    /// Reverse-path and content of what the next hop got, and its recipients.
    delivered: BTreeMap<(String, String), Vec<String>>,
}

/// The last part of the page begins so; `src/smtp/command_test.rs` writes it.
const OTHER: &str = "\n## Another parser\n";

/// No session is to end because of what an earlier input said.
const RINGPOST: &str = "[limits]\nerrors-max = 100\n";

/// What Postfix 3.9 has by default, and 3.7 only if told; and no pauses after errors.
const POSTFIX: &str = "smtpd_tls_security_level = may\n\
                       smtpd_forbid_bare_newline = normalize\n\
                       smtpd_forbid_bare_newline_exclusions =\n\
                       smtpd_forbid_unauth_pipelining = yes\n\
                       smtpd_error_sleep_time = 0s\n\
                       local_header_rewrite_clients =\n";

#[test]
fn differences_are_known() {
    let sinks = [(); 3].map(|()| Sink::start());
    let server = Server::start(&format!("{}{RINGPOST}", sinks[0].route()));
    let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| server.place().join(name));
    let tls = format!("smtpd_tls_chain_files = {}, {}\n", key.display(), certificate.display());
    let postfix = Postfix::start(sinks[1].address(), &format!("{POSTFIX}{tls}"));
    let exim = Exim::start(sinks[2].address(), &certificate, &key);
    let addresses = [server.smtp(), postfix.address(), exim.address()];
    let inputs: Vec<_> = SECTIONS.iter().flat_map(|(_, inputs)| *inputs).collect();
    let inputs = &inputs;
    let replies = thread::scope(|scope| {
        addresses
            .map(|address| {
                scope.spawn(move || {
                    let played =
                        inputs.iter().enumerate().map(|(number, input)| play(address, number, input));
                    played.collect::<Vec<_>>()
                })
            })
            .map(|thread| thread.join().unwrap())
    });
    drained(&server);
    postfix.drained();
    exim.drained();
    let mut outcomes = replies.map(|replies| {
        let outcome = |replies| Outcome { replies, ..Outcome::default() };
        replies.into_iter().map(outcome).collect::<Vec<_>>()
    });
    for (sink, outcomes) in sinks.iter().zip(&mut outcomes) {
        while sink.waiting() > 0 {
            let mail = sink.mail();
            let (trace, content) = part(&mail.content);
            let Some(number) = marked(trace) else {
                // A report of the server's own. That the message did not arrive is seen without it.
                assert!(mail.mail.starts_with("<>"), "whose is it? {mail:?}");
                continue;
            };
            let path = |text: &str| text[..text.find("> ").map_or(text.len(), |end| end + 1)].to_owned();
            let recipients =
                outcomes[number].delivered.entry((path(&mail.mail), content.to_owned())).or_default();
            recipients.extend(mail.rcpt.iter().map(|rcpt| path(rcpt)));
            recipients.sort();
        }
    }
    let (page, wrong) = compare(&outcomes);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/differences.md");
    let there = fs::read_to_string(&file).unwrap_or_default();
    let (mut golden, other) = there.split_at(there.find(OTHER).unwrap_or(there.len()));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, format!("{page}{other}")).unwrap();
        golden = &page;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(golden, page, "docs/differences.md is out of date: UPDATE_GOLDEN=1 writes it");
}

/// The table, and what is wrong with it.
fn compare(outcomes: &[Vec<Outcome>; 3]) -> (String, Vec<String>) {
    let count: usize = SECTIONS.iter().map(|(_, inputs)| inputs.len()).sum();
    let agreed = SECTIONS.iter().flat_map(|(_, inputs)| *inputs).filter(|input| input.why.is_none()).count();
    let mut page = format!(
        "# Differences\n\n\
         {count} inputs, byte for byte the same, were given to ringpost, to Postfix 3.7 and to Exim 4.96, all of them on\n\
         the way to a next hop that takes everything. Compared are reply codes, and what the next hop gets. On {agreed} all\n\
         agree; on the others they differ as follows. The page is written by `tests/peers/differential.rs`\n\
         (`UPDATE_GOLDEN=1`), which has the inputs, and fails when an outcome is another; but for its last part.\n\n\
         Codes are those of the replies to what the input says, without greeting, EHLO and QUIT before and after it. *closed*:\n\
         the server hung up. *n mails*: what the next hop got.\n"
    );
    let mut wrong = Vec::new();
    let mut number = 0;
    for (section, inputs) in SECTIONS {
        let table =
            format!("\n## {section}\n\n| input | ringpost | Postfix | Exim | why |\n|---|---|---|---|---|\n");
        page.push_str(&table);
        for input in inputs {
            let [ours, postfix, exim] = outcomes.each_ref().map(|outcomes| &outcomes[number]);
            number += 1;
            let alike = ours == postfix && ours == exim;
            let shown = [ours, postfix, exim].map(|outcome| show(outcome, [ours, postfix, exim]));
            let cells = shown.join(" | ");
            match (alike, input.why) {
                (true, None) => {}
                (false, Some(why)) => {
                    writeln!(page, "| {} | {cells} | {why} |", input.name).unwrap();
                }
                (true, Some(_)) => wrong.push(format!("no longer different: {}: {cells}", input.name)),
                (false, None) => wrong.push(format!("different without a reason: {} | {cells}", input.name)),
            }
        }
    }
    (page, wrong)
}

/// An outcome in words: as much of it as tells it from the others.
fn show(outcome: &Outcome, all: [&Outcome; 3]) -> String {
    let mut text = outcome.replies.clone();
    let count = outcome.delivered.len();
    if all.iter().any(|other| other.delivered.len() != count) {
        write!(text, ", {count} mail{}", if count == 1 { "" } else { "s" }).unwrap();
    }
    let mut with_mail = all.iter().filter(|other| !other.delivered.is_empty());
    let first = with_mail.next();
    if with_mail.all(|other| other.delivered == first.unwrap().delivered) {
        return text;
    }
    let contents = |outcome: &Outcome| outcome.delivered.keys().map(|key| key.1.clone()).collect::<Vec<_>>();
    let contents_alike = all
        .iter()
        .filter(|other| !other.delivered.is_empty())
        .all(|other| contents(other) == contents(first.unwrap()));
    for ((from, content), to) in &outcome.delivered {
        if contents_alike {
            write!(text, ", `{}` to `{}`", brief(from), brief(&to.join(" "))).unwrap();
        } else {
            let body = content.strip_prefix("Subject: x\r\n\r\n").unwrap_or(content);
            write!(text, ", `{}`", brief(body)).unwrap();
        }
    }
    text
}

/// Escaped, and cut in the middle.
fn brief(text: &str) -> String {
    let text: Vec<char> =
        text.escape_debug().to_string().replace("\\\"", "\"").replace('|', "¦").chars().collect();
    if text.len() <= 64 {
        return text.into_iter().collect();
    }
    let (head, tail) = (&text[..24], &text[text.len() - 24..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

/// The trace fields of a message, and what stands behind them.
fn part(message: &str) -> (&str, &str) {
    let mut end = 0;
    while message[end..].starts_with("Received: ") {
        let mut ends = message[end..].match_indices("\r\n").map(|(at, _)| end + at + 2);
        end = ends.find(|end| !message[*end..].starts_with([' ', '\t'])).unwrap_or(message.len());
    }
    message.split_at(end)
}

/// To which input trace fields belong.
fn marked(trace: &str) -> Option<usize> {
    trace.match_indices("mark").find_map(|(at, _)| trace.get(at + 4..at + 7)?.parse().ok())
}

fn mark(number: usize) -> String {
    format!("mark{number:03}.test")
}

/// Plays an input, and tells the reply codes.
fn play(address: SocketAddr, number: usize, input: &Input) -> String {
    let mut talk = Talk::open(address);
    let mut codes = Vec::new();
    assert_eq!(talk.reply(), Some("220".to_owned()), "{}", input.name);
    let script = expand(input.script, number);
    let script = match script.strip_prefix(b"^|") {
        Some(script) => script,
        None => {
            talk.put(format!("EHLO {}\r\n", mark(number)).as_bytes());
            assert_eq!(talk.reply(), Some("250".to_owned()), "{}", input.name);
            &script
        }
    };
    let mut unsent = Vec::new();
    for step in script.split(|byte| *byte == b'|') {
        let (bytes, awaited) = match step {
            [b'=', count @ b'0'..=b'9', b':', bytes @ ..] => (bytes.to_vec(), usize::from(count - b'0')),
            line => ([line, b"\r\n"].concat(), 1),
        };
        unsent.extend(bytes);
        // In one piece, for servers that look at what has come already.
        if awaited > 0 {
            talk.put(&std::mem::take(&mut unsent));
        }
        for _ in 0..awaited {
            let Some(code) = talk.reply() else { break };
            codes.push(code);
        }
        // What follows is not SMTP.
        if step.eq_ignore_ascii_case(b"STARTTLS") && codes.last().is_some_and(|code| code == "220") {
            return codes.join(" ");
        }
    }
    let before_quit = codes.len();
    unsent.extend(b"QUIT\r\n");
    talk.put(&unsent);
    // The end of what we say: whoever waits for more need not.
    let _ = talk.stream.get_ref().shutdown(Shutdown::Write);
    while let Some(code) = talk.reply() {
        codes.push(code);
    }
    if codes[before_quit..].last().is_some_and(|code| code == "221") {
        codes.pop();
    } else {
        codes.push("closed".to_owned());
    }
    codes.join(" ")
}

/// Fills in what stands in braces.
fn expand(script: &[u8], number: usize) -> Vec<u8> {
    let mut expanded = Vec::new();
    let mut rest = script;
    while let Some(at) = rest.iter().position(|byte| *byte == b'{') {
        let (before, behind) = rest.split_at(at);
        let end = behind.iter().position(|byte| *byte == b'}').unwrap();
        let name = std::str::from_utf8(&behind[1..end]).unwrap();
        expanded.extend_from_slice(before);
        match (name, name.parse::<usize>()) {
            ("t", _) => expanded.extend_from_slice(mark(number).as_bytes()),
            ("loop", _) => {
                expanded.extend(b"Received: from a by b; Thu, 1 Jan 2026 00:00:00 +0000\r\n".repeat(101));
            }
            // Labels of 49 octets.
            (_, Ok(octets)) => {
                let octet = |at| if at % 50 == 0 && at < octets { b'.' } else { b'x' };
                expanded.extend((1..=octets).map(octet));
            }
            (_, Err(_)) => expanded.extend_from_slice(&behind[..=end]),
        }
        rest = &behind[end + 1..];
    }
    expanded.extend_from_slice(rest);
    expanded
}

/// A connection on which anything may come.
#[expect(clippy::disallowed_types, reason = "a client of the servers under test")]
struct Talk {
    stream: BufReader<TcpStream>,
}

impl Talk {
    #[expect(clippy::disallowed_types, reason = "a client of the servers under test")]
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// A server that has hung up need not take it.
    fn put(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// The code of the next reply, if one comes.
    fn reply(&mut self) -> Option<String> {
        loop {
            let mut line = Vec::new();
            match self.stream.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply: {error}"),
            }
            if line.get(3) != Some(&b'-') {
                return Some(String::from_utf8_lossy(line.get(..3).unwrap_or(&line)).into_owned());
            }
        }
    }
}
