//! A whole server side, fed with any octets, cut anywhere, with any luck: nothing panics, and it ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::{Domain, JournalShard, QueueId};
use smtp::{
    Action, ChunkScanner, ContentRules, Extension, Extensions, Limits, Line, LineScanner, MailDataScanner,
    Options, Progress, Refusal, Role, Session, TlsState, Waiting,
};

/// What the driver reads now.
enum Reading {
    Lines,
    MailData(MailDataScanner),
    Chunk,
}

fuzz_target!(|input: &[u8]| {
    let (luck, wire) = input.split_at(input.len().min(8));
    let mut luck = luck.iter().copied().cycle();
    let mut next = move || luck.next().unwrap_or(0);

    let mut options = Options::new(Domain::parse("mx.example").expect("a domain"));
    options.limits =
        Limits { recipients_max: 3, message_size_max: 1000, discard_max: 2000, ..Limits::default() };
    options.extensions = Extension::ALL.iter().fold(Extensions::NONE, |all, extension| all.with(*extension));
    options.role = [Role::Submission, Role::Lmtp][usize::from(next() % 2)];
    options.tls =
        [TlsState::Absent, TlsState::Offered, TlsState::Required, TlsState::Active][usize::from(next() % 4)];
    let rules = ContentRules::usual(options.limits.message_size_max);
    let (mut session, mut action) = Session::open(options.shared());
    session.grant(Extensions::PERSONAL);

    let mut lines = LineScanner::new(512);
    let mut chunks = ChunkScanner::new();
    let mut reading = Reading::Lines;
    let (mut buffer, mut rest, mut output) = (Vec::new(), wire, Vec::new());
    loop {
        let verdict = if next() % 8 == 7 { Err(Refusal::Policy) } else { Ok(()) };
        action = match action {
            Action::Judge(stage) => session.on_verdict(stage, verdict),
            Action::Commit(envelope) => {
                assert!((1..=3).contains(&envelope.recipients.len()));
                session.on_commit(verdict.map(|()| QueueId::new(JournalShard(0), 1)))
            }
            Action::Impersonate(claims) => session.on_impersonated(&claims, Extensions::PERSONAL, verdict),
            Action::Fetch(_) => session.on_called_for(verdict),
            Action::Reverse(reply) => {
                reply.write_to(&mut output);
                break;
            }
            Action::Release(node) => {
                let waiting = [Waiting::Nothing, Waiting::Something, Waiting::Unknown];
                let waiting = waiting[usize::from(next() % 3)];
                session.on_released(&node, verdict.map(|()| waiting))
            }
            Action::StartTls(reply) => {
                reply.write_to(&mut output);
                buffer.clear();
                session.on_tls()
            }
            Action::Close(reply) => {
                reply.write_to(&mut output);
                break;
            }
            Action::Receive(reply) => {
                reply.write_to(&mut output);
                reading = Reading::MailData(MailDataScanner::new());
                Action::Read
            }
            Action::ReceiveChunk { size, first, last } => {
                if first {
                    chunks = ChunkScanner::new();
                }
                if last {
                    chunks.begin_last(size)
                } else {
                    chunks.begin(size)
                }
                reading = Reading::Chunk;
                Action::Read
            }
            Action::DiscardChunk { size } => {
                chunks = ChunkScanner::new();
                chunks.begin(size);
                reading = Reading::Chunk;
                Action::Read
            }
            Action::Reply(reply) => {
                reply.write_to(&mut output);
                Action::Read
            }
            Action::Read => {
                let (consumed, done) = match &mut reading {
                    Reading::Lines => match lines.find(&buffer) {
                        Line::Complete { len } => (len, Some(session.on_line(&buffer[..len - 2]))),
                        Line::TooLong { len } => (len, Some(session.on_line_too_long())),
                        Line::Endless => (0, Some(session.on_line_endless())),
                        Line::Excess { len } => (len, None),
                        Line::Partial => (0, None),
                    },
                    Reading::MailData(scanner) => match scanner.scan(&buffer, |_| {}) {
                        Progress::More => (buffer.len(), None),
                        Progress::Ended { consumed } => {
                            let outcome = scanner.findings().judge(&rules);
                            reading = Reading::Lines;
                            (consumed, Some(session.on_data_end(outcome)))
                        }
                    },
                    Reading::Chunk => {
                        let consumed = chunks.scan(&buffer);
                        let done = (chunks.open() == 0).then(|| {
                            reading = Reading::Lines;
                            session.on_chunk_end(chunks.findings().judge(&rules))
                        });
                        (consumed, done)
                    }
                };
                buffer.drain(..consumed);
                if let Some(action) = done {
                    action
                } else if consumed > 0 {
                    Action::Read
                } else if rest.is_empty() {
                    if verdict.is_ok() { session.on_timeout() } else { session.on_shutdown() }
                } else {
                    let len = (usize::from(next()) + 1).min(rest.len());
                    buffer.extend(&rest[..len]);
                    rest = &rest[len..];
                    Action::Read
                }
            }
        };
    }
    assert!(output.ends_with(b"\r\n"));
});
