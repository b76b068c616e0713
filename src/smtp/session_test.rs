//! Transcripts, and the player that plays them.
//!
//! ```text
//! #  what it shows; the first line cites the RFC          %  how the listener is configured
//! C: the client sends a line                              S: we answer
//! C+ the same, together with the line after it            ?  what we ask of the shard
//! C< octets without a CRLF                                !  what the shard answers
//! ```
//!
//! `#`, `%`, `C` and `!` lines are played, the rest is written anew and must come out the same.
//! `UPDATE_GOLDEN=1` accepts a change. Escapes are those of Rust's byte strings.

use std::{env, fs, path::Path};

use mail::{Address, BodyType, Domain, JournalShard, TlsDemand};

use super::*;
use crate::{ChunkScanner, ContentRules, Line, LineScanner, MailDataScanner, Progress};

#[test]
fn transcripts_come_out_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let mut failed = Vec::new();
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let expected = fs::read_to_string(&file).unwrap();
        assert!(
            expected.lines().next().is_some_and(|l| l.starts_with("# ") && l.contains("RFC ")),
            "{}: the first line does not cite the RFC",
            file.display()
        );
        let played = Player::play(&expected);
        if played == expected {
            continue;
        }
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, played).unwrap();
        } else {
            failed.push(format!("{}\n{}", file.display(), difference(&expected, &played)));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn who_does_not_wait_for_the_greeting_gets_another() {
    let (mut session, greeting) = Session::open(Options::new(Domain::parse("mx.example").unwrap()).shared());
    assert!(matches!(greeting, Action::Reply(reply) if reply.code() == 220));
    assert_eq!(session.on_early_talk(), Action::Close(Refusal::EarlyTalker.into()));
}

fn difference(expected: &str, played: &str) -> String {
    let (mut old, mut new) = (expected.lines(), played.lines());
    loop {
        match (old.next(), new.next()) {
            (None, None) => return "the end of the file".into(),
            (old, new) if old != new => return format!("  file   {old:?}\n  played {new:?}"),
            _ => {}
        }
    }
}

/// What the shard would do, with the transcript in the place of the world.
struct Player {
    session: Session,
    action: Option<Action>,
    policy: Asked,
    buffer: Vec<u8>,
    lines: LineScanner,
    data: Option<MailDataScanner>,
    chunks: ChunkScanner,
    chunk_open: bool,
    rules: ContentRules,
    output: String,
}

/// Whether the transcript has the answers of policy and journal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    InTranscript,
    AlwaysYes,
}

impl Player {
    fn play(transcript: &str) -> String {
        let mut options = Options::new(Domain::parse("mx.example").unwrap());
        let mut granted = Extensions::NONE;
        let mut policy = Asked::InTranscript;
        let mut output = String::new();
        let mut lines = transcript.lines().peekable();
        while let Some(line) = lines.next_if(|line| line.starts_with(['#', '%'])) {
            if let Some(setting) = line.strip_prefix("% ") {
                configure(setting, &mut options, &mut policy, &mut granted);
            }
            output += &format!("{line}\n");
        }
        let limits = options.limits;
        let (mut session, action) = Session::open(options.shared());
        session.grant(granted);
        session.on_time(Timestamp::from_rfc3339("2026-01-01T00:00:00Z").unwrap());
        let mut player = Self {
            session,
            action: Some(action),
            policy,
            buffer: Vec::new(),
            lines: LineScanner::new(limits.line_max),
            data: None,
            chunks: ChunkScanner::new(),
            chunk_open: false,
            rules: ContentRules::usual(limits.message_size_max),
            output,
        };
        player.run();
        for line in lines {
            if line.starts_with("S:") || line.starts_with('?') {
                continue;
            }
            player.output += &format!("{line}\n");
            match line.get(..2) {
                Some("C:") => player.receive(line.get(3..).unwrap_or_default(), "\r\n", Sent::Now),
                Some("C+") => player.receive(line.get(3..).unwrap_or_default(), "\r\n", Sent::WithTheNext),
                Some("C<") => player.receive(line.get(3..).unwrap_or_default(), "", Sent::Now),
                Some("! ") => player.answer(&line[2..]),
                _ => assert!(line.is_empty() || line.starts_with('#'), "{line:?} is not of a transcript"),
            }
        }
        player.output
    }

    fn receive(&mut self, text: &str, end: &str, sent: Sent) {
        self.buffer.extend(unescape(text));
        self.buffer.extend(end.as_bytes());
        if sent == Sent::Now {
            self.run();
        }
    }

    /// Goes on until the transcript must say more.
    fn run(&mut self) {
        while let Some(action) = self.next() {
            self.perform(action);
        }
    }

    /// What is to be done next, unless that depends on what comes.
    fn next(&mut self) -> Option<Action> {
        if self.data.is_some() {
            self.mail_data()
        } else if self.chunk_open {
            self.chunk()
        } else if self.action == Some(Action::Read) {
            self.line()
        } else {
            self.action.take_if(|action| {
                !matches!(
                    action,
                    Action::Judge(_)
                        | Action::Commit(_)
                        | Action::Release(_)
                        | Action::Fetch(_)
                        | Action::Impersonate(_)
                        | Action::StartTls(_)
                )
            })
        }
    }

    fn perform(&mut self, action: Action) {
        self.action = match action {
            Action::Reply(reply) => {
                self.say(&reply);
                Some(Action::Read)
            }
            Action::Read => Some(Action::Read),
            Action::Close(reply) => {
                self.say(&reply);
                self.output += "? close\n";
                None
            }
            Action::Judge(stage) if self.policy == Asked::AlwaysYes => {
                let action = self.session.on_verdict(stage, Ok(()));
                return self.perform(action);
            }
            Action::Commit(_) if self.policy == Asked::AlwaysYes => {
                let action = self.session.on_commit(Ok(id()));
                return self.perform(action);
            }
            Action::Judge(ref stage) => {
                self.output += &format!("? judge {}\n", describe(stage));
                Some(action)
            }
            Action::Commit(ref envelope) => {
                let to: Vec<_> = envelope.recipients.iter().map(|r| format!("<{}>", r.address)).collect();
                let (handling, to) = (handling(&envelope.handling), to.join(" "));
                let upstream = envelope.upstream.as_ref();
                let upstream = upstream.map_or(String::new(), |upstream| format!(", from {upstream:?}"));
                self.output += &format!("? commit {} -> {to}{handling}{upstream}\n", envelope.reverse_path);
                Some(action)
            }
            Action::Receive(reply) => {
                self.say(&reply);
                self.data = Some(MailDataScanner::new());
                None
            }
            Action::ReceiveChunk { size, first, last } => {
                let place = [(first, ", first"), (last, ", last")];
                let place: String = place.into_iter().filter_map(|(is, text)| is.then_some(text)).collect();
                self.output += &format!("? receive chunk, octets: {size}{place}\n");
                if first {
                    self.chunks = ChunkScanner::new();
                }
                match last {
                    true => self.chunks.begin_last(size),
                    false => self.chunks.begin(size),
                }
                self.chunk_open = true;
                None
            }
            Action::DiscardChunk { size } => {
                self.output += &format!("? discard chunk, octets: {size}\n");
                self.chunks = ChunkScanner::new();
                self.chunks.begin(size);
                self.chunk_open = true;
                None
            }
            Action::Release(ref node) => {
                self.output += &format!("? release {node}\n");
                Some(action)
            }
            Action::Fetch(ref domains) => {
                self.output += &format!("? fetch {domains:?}\n");
                Some(action)
            }
            Action::Reverse(reply) => {
                self.say(&reply);
                self.output += "? reverse\n";
                None
            }
            Action::Impersonate(ref claims) => {
                self.output += &format!("? impersonate {claims:?}\n");
                Some(action)
            }
            Action::StartTls(ref reply) => {
                self.say(reply);
                self.output += &format!("? start TLS, octets thrown away: {}\n", self.buffer.len());
                self.buffer.clear();
                Some(action)
            }
        };
    }

    fn line(&mut self) -> Option<Action> {
        loop {
            let (len, action) = match self.lines.find(&self.buffer) {
                Line::Complete { len } => (len, Some(self.session.on_line(&self.buffer[..len - 2]))),
                Line::TooLong { len } => (len, Some(self.session.on_line_too_long())),
                Line::Endless => (self.buffer.len(), Some(self.session.on_line_endless())),
                Line::Excess { len } => (len, None),
                Line::Partial => return None,
            };
            self.buffer.drain(..len);
            if action.is_some() {
                return action;
            }
        }
    }

    fn mail_data(&mut self) -> Option<Action> {
        let scanner = self.data.as_mut().unwrap();
        let Progress::Ended { consumed } = scanner.scan(&self.buffer, |_| {}) else {
            self.buffer.clear();
            return None;
        };
        self.buffer.drain(..consumed);
        let outcome = self.data.take().unwrap().findings().judge(&self.rules);
        Some(self.session.on_data_end(outcome))
    }

    fn chunk(&mut self) -> Option<Action> {
        let len = self.chunks.scan(&self.buffer);
        self.buffer.drain(..len);
        (self.chunks.open() == 0).then(|| {
            self.chunk_open = false;
            let binary = self.session.envelope().is_some_and(|e| e.body == BodyType::BinaryMime);
            let findings = self.chunks.findings();
            let outcome =
                if binary { findings.judge_binary(&self.rules) } else { findings.judge(&self.rules) };
            self.session.on_chunk_end(outcome)
        })
    }

    fn answer(&mut self, answer: &str) {
        let next = match (answer, self.action.take()) {
            ("timeout", _) => self.stop(Session::on_timeout),
            ("too slow", _) => self.stop(Session::on_too_slow),
            ("shutdown", _) => self.stop(Session::on_shutdown),
            ("accept", Some(Action::Judge(stage))) => self.session.on_verdict(stage, Ok(())),
            ("durable", Some(Action::Commit(_))) => self.session.on_commit(Ok(id())),
            ("nothing waits", Some(Action::Release(node))) => {
                self.session.on_released(&node, Ok(Waiting::Nothing))
            }
            ("something waits", Some(Action::Release(node))) => {
                self.session.on_released(&node, Ok(Waiting::Something))
            }
            ("what waits is unknown", Some(Action::Release(node))) => {
                self.session.on_released(&node, Ok(Waiting::Unknown))
            }
            ("mail waits", Some(Action::Fetch(_))) => self.session.on_called_for(Ok(())),
            (answer, Some(Action::Fetch(_))) => self.session.on_called_for(Err(refusal(answer))),
            ("may connect", Some(Action::Impersonate(claims))) => {
                self.session.on_impersonated(&claims, Extensions::NONE, Ok(()))
            }
            ("may connect and speak for others", Some(Action::Impersonate(claims))) => {
                self.session.on_impersonated(&claims, Extensions::PERSONAL, Ok(()))
            }
            (answer, Some(Action::Impersonate(claims))) => {
                self.session.on_impersonated(&claims, Extensions::NONE, Err(refusal(answer)))
            }
            (answer, Some(Action::Release(node))) => self.session.on_released(&node, Err(refusal(answer))),
            ("TLS is active", Some(Action::StartTls(_))) => self.session.on_tls(),
            (answer, Some(Action::Judge(Stage::Mail { reverse_path, mut parameters })))
                if answer.starts_with("accept with priority ") =>
            {
                let priority = answer.rsplit(' ').next().unwrap().parse().unwrap();
                parameters.priority = TransferPriority::new(priority).unwrap();
                self.session.on_verdict(Stage::Mail { reverse_path, parameters }, Ok(()))
            }
            (answer, Some(Action::Judge(stage))) => match (stage, answer.strip_prefix("accept as ")) {
                (Stage::Rcpt { parameters, .. }, Some(address)) => {
                    let forward_path = ForwardPath::Address(address.parse::<Address>().unwrap());
                    self.session.on_verdict(Stage::Rcpt { forward_path, parameters }, Ok(()))
                }
                (stage, _) => self.session.on_verdict(stage, Err(refusal(answer))),
            },
            (answer, Some(Action::Commit(_))) => self.session.on_commit(Err(refusal(answer))),
            (answer, action) => panic!("{answer:?} does not answer {action:?}"),
        };
        self.perform(next);
        self.run();
    }

    /// Whatever was being read is read no more.
    fn stop(&mut self, input: impl Fn(&mut Session) -> Action) -> Action {
        (self.data, self.chunk_open) = (None, false);
        input(&mut self.session)
    }

    fn say(&mut self, reply: &Reply) {
        let mut bytes = Vec::new();
        reply.write_to(&mut bytes);
        for line in String::from_utf8(bytes).unwrap().split_terminator("\r\n") {
            self.output += &format!("S: {line}\n");
        }
    }
}

#[derive(PartialEq, Eq)]
enum Sent {
    Now,
    WithTheNext,
}

fn id() -> QueueId {
    QueueId::new(JournalShard(0), 42)
}

fn refusal(words: &str) -> Refusal {
    let label = words.replace(' ', "_");
    *Refusal::ALL.iter().find(|r| r.label() == label).unwrap_or_else(|| panic!("no refusal {label}"))
}

fn configure(setting: &str, options: &mut Options, policy: &mut Asked, granted: &mut Extensions) {
    let (name, value) = setting.split_once(' ').unwrap();
    let number = || value.parse::<u32>().unwrap();
    match name {
        "recipients-max" => options.limits.recipients_max = number() as usize,
        "message-size-max" => options.limits.message_size_max = number().into(),
        "discard-max" => options.limits.discard_max = number().into(),
        "errors-max" => options.limits.errors_max = number(),
        "commands-max" => options.limits.commands_max = number(),
        "transactions-max" => options.limits.transactions_max = number(),
        "recipients-per-session-max" => options.limits.recipients_per_session_max = number(),
        "recipients-refused-max" => options.limits.recipients_refused_max = number(),
        "hold-max" => options.limits.hold_max = std::time::Duration::from_secs(number().into()),
        "line-max" => options.limits.line_max = number() as usize,
        "role" if value == "submission" => options.role = Role::Submission,
        "role" if value == "lmtp" => options.role = Role::Lmtp,
        "policy" if value == "accept" => *policy = Asked::AlwaysYes,
        "tls" => {
            options.tls = match value {
                "unavailable" => TlsState::Unavailable,
                "offered" => TlsState::Offered,
                "required" => TlsState::Required,
                "active" => TlsState::Active,
                value => panic!("tls {value}"),
            }
        }
        "with" | "without" | "grant" => {
            let extension = *Extension::ALL.iter().find(|e| e.keyword() == value).unwrap();
            if name == "grant" {
                *granted = granted.with(extension);
                return;
            }
            options.extensions = match name {
                "with" => options.extensions.with(extension),
                _ => options.extensions.without(extension),
            }
        }
        name => panic!("no setting {name}"),
    }
}

fn handling(handling: &Handling) -> String {
    let mut text = String::new();
    if let Some(by) = handling.deliver_by {
        text += &format!(", by {} {:?}", by.deadline.to_rfc3339(), by.mode);
    }
    if let Some(hold) = handling.hold_until {
        text += &format!(", not before {}", hold.to_rfc3339());
    }
    if handling.priority != TransferPriority::default() {
        text += &format!(", priority {}", handling.priority.get());
    }
    text
}

fn describe(stage: &Stage) -> String {
    match stage {
        Stage::Ehlo { name, hello: Hello::Ehlo } => format!("ehlo {name}"),
        Stage::Ehlo { name, hello: Hello::Helo } => format!("helo {name}"),
        Stage::Ehlo { name, hello: Hello::Lhlo } => format!("lhlo {name}"),
        Stage::Mail { reverse_path, parameters } => {
            let mut text = format!("mail {reverse_path}");
            if let Some(size) = parameters.size {
                text += &format!(", size: {size}");
            }
            match parameters.body {
                BodyType::SevenBit => {}
                body @ (BodyType::EightBitMime | BodyType::BinaryMime) => text += &format!(", {body:?}"),
            }
            if parameters.utf8 == Utf8::Needed {
                text += ", UTF-8";
            }
            if let Some(ret) = parameters.ret {
                text += &format!(", return: {ret:?}");
            }
            if let Some(id) = &parameters.envelope_id {
                text += &format!(", id: {id:?}");
            }
            if let Some(by) = parameters.by {
                text += &format!(", by: {}s {:?}, trace: {:?}", by.seconds, by.mode, by.trace);
            }
            if let Some(hold) = parameters.hold {
                text += &format!(", hold: {hold:?}");
            }
            if parameters.priority != TransferPriority::default() {
                text += &format!(", priority: {}", parameters.priority.get());
            }
            if parameters.tls == TlsDemand::Required {
                text += ", TLS required";
            }
            text
        }
        Stage::Rcpt { forward_path, parameters } => {
            let mut text = format!("rcpt {forward_path}");
            let notify = parameters.notify;
            let wishes = [(notify.success, "success"), (notify.failure, "failure"), (notify.delay, "delay")];
            if notify.given {
                let wishes: Vec<_> = wishes.into_iter().filter_map(|(is, word)| is.then_some(word)).collect();
                text += &format!(", notify: {wishes:?}");
            }
            if let Some(original) = &parameters.original {
                text += &format!(", original: {};{}", original.address_type, original.address);
            }
            text
        }
        Stage::Data { size: Some(size) } => format!("data, size: {size}"),
        Stage::Data { size: None } => "data".into(),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'\\' {
            octets.push(*first);
            continue;
        }
        let (octet, len) = match behind {
            [b'\\', ..] => (b'\\', 1),
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'0', ..] => (0, 1),
            [b'x', high, low, ..] => {
                let digits = String::from_utf8(vec![*high, *low]).unwrap();
                (u8::from_str_radix(&digits, 16).unwrap(), 3)
            }
            _ => panic!("{text:?} has an unknown escape"),
        };
        octets.push(octet);
        rest = &behind[len..];
    }
    octets
}
