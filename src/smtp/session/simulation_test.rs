//! Random sessions, with a much simpler idea of a transaction beside each.
//!
//! `SEED=17 cargo test -p smtp` replays one.

use std::{collections::VecDeque, env, panic};

use mail::{Domain, JournalShard};

use super::*;

const LIMITS: Limits = Limits {
    hold_max: std::time::Duration::from_secs(3600),
    recipients_max: 3,
    line_max: 512,
    message_size_max: 1000,
    discard_max: 2000,
    errors_max: 20,
    commands_max: 60,
    transactions_max: 12,
    recipients_per_session_max: 12,
    recipients_refused_max: 6,
};

const LINES: [&[u8]; 39] = [
    b"EHLO c.example",
    b"EHLO c.example",
    b"HELO c.example",
    b"EHLO",
    b"MAIL FROM:<ann@c.example>",
    b"MAIL FROM:<ann@c.example>",
    b"MAIL FROM:<>",
    b"MAIL FROM:<\xc3\xb6@c.example> SMTPUTF8",
    b"MAIL FROM:<\xc3\xb6@c.example>",
    b"MAIL FROM:<ann@c.example> BODY=BINARYMIME",
    b"MAIL FROM:<ann@c.example> SIZE=1001",
    b"MAIL FROM:<ann",
    b"RCPT TO:<a@mx.example>",
    b"RCPT TO:<b@mx.example>",
    b"RCPT TO:<c@mx.example>",
    b"RCPT TO:<d@mx.example>",
    b"RCPT TO:<\xc3\xb6@mx.example>",
    b"RCPT TO:<postmaster>",
    b"RCPT TO:<>",
    b"DATA",
    b"DATA",
    b"DATA",
    b"BDAT 400",
    b"BDAT 400 LAST",
    b"BDAT 0",
    b"BDAT 0 LAST",
    b"BDAT 1001",
    b"BDAT x",
    b"RSET",
    b"NOOP",
    b"VRFY a",
    b"HELP",
    b"STARTTLS",
    b"ETRN @x.example",
    b"ATRN x.example,y.example",
    b"XCLIENT ADDR=192.0.2.1 HELO=d.example",
    b"XFORWARD ADDR=192.0.2.1 NAME=[UNAVAILABLE]",
    b"\0\xff",
    b"QUIT",
];

/// What a transaction is, to somebody who watches.
struct Watcher {
    /// The reverse-path and the recipients that policy took since MAIL.
    transaction: Option<(ReversePath, Vec<String>)>,
    chunks: u64,
    octets: u64,
    data: DataSeen,
    errors: u32,
    hello: bool,
    role: Role,
}

#[derive(Default, PartialEq, Eq, Debug)]
enum DataSeen {
    #[default]
    None,
    /// Policy agreed to take it.
    Agreed,
    Complete,
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn verdict(&mut self) -> Verdict {
        match self.below(12) {
            0 => Err(Refusal::Policy),
            1 => Err(Refusal::StorageFull),
            _ => Ok(()),
        }
    }
}

impl Watcher {
    fn forget(&mut self) {
        (self.transaction, self.data) = (None, DataSeen::None);
        (self.chunks, self.octets) = (0, 0);
    }

    /// What a reply to `line` means for the transaction.
    fn replied(&mut self, line: &[u8], reply: &Reply) {
        let mut wire = Vec::new();
        reply.write_to(&mut wire);
        assert!(wire.ends_with(b"\r\n"));
        for line in wire.strip_suffix(b"\r\n").unwrap().split(|b| *b == b'\n') {
            assert!(line.len() < 512 && line.starts_with(reply.code().to_string().as_bytes()));
        }
        let last = |line: &&[u8]| line.get(3) == Some(&b' ');
        let replies = wire.split(|b| *b == b'\n').filter(last).count();
        let end_of_message = matches!(line, b"DATA" | b"") || line.ends_with(b" LAST");
        assert!(replies == 1 || self.role == Role::Lmtp && end_of_message, "{replies} replies: {reply}");
        let good = reply.code() / 100 == 2;
        if let Some(status) = reply.status() {
            assert_eq!(u16::from(status.0), reply.code() / 100, "{reply}");
        }
        assert!(!String::from_utf8_lossy(&wire).contains("queued"), "only a commit queues");
        if good && matches!(line, b"RSET" | b"EHLO c.example" | b"HELO c.example" | b"LHLO c.example") {
            self.forget();
        }
        self.hello |= good && line.ends_with(b"LO c.example");
        let before_rcpt = [&b"EHLO"[..], b"HELO", b"LHLO", b"MAIL"].iter().any(|verb| line.starts_with(verb));
        let refused = reply.code() >= 500 && before_rcpt;
        self.errors += u32::from(refused || matches!(reply.code(), 500..=504 | 530 | 555));
    }
}

fn live(seed: u64) {
    let mut random = Random(seed);
    let mut options = Options::new(Domain::parse("mx.example").unwrap());
    options.limits = LIMITS;
    options.extensions = Extensions::USUAL.with(Extension::BinaryMime);
    options.tls = [TlsState::Absent, TlsState::Offered, TlsState::Required][random.below(3)];
    options.role = [Role::Relay, Role::Submission, Role::Lmtp][random.below(3)];
    let role = options.role;
    let (mut session, mut action) = Session::open(options.shared());
    let mut watcher = Watcher {
        transaction: None,
        chunks: 0,
        octets: 0,
        data: DataSeen::None,
        errors: 0,
        hello: false,
        role,
    };
    let mut line: &[u8] = b"";
    let mut owed = VecDeque::new();
    for step in 0.. {
        assert!(step < 500, "the session does not end");
        // The journal is done with a message whenever it likes, and the session is where it was.
        if random.below(4) == 0
            && let Some((later, outcome, wanted)) = owed.pop_front()
        {
            let before = format!("{session:?}");
            let Action::Reply(reply) = session.on_owed(later, outcome) else {
                panic!("a commit is answered")
            };
            assert_eq!(reply.code() == 250, outcome.is_ok());
            assert_eq!(reply.to_string().split("\r\n").count(), wanted, "{reply}");
            assert_eq!(format!("{session:?}"), before);
        }
        action = match action {
            Action::Reply(_) | Action::Read => {
                if let Action::Reply(reply) = action {
                    watcher.replied(line, &reply);
                }
                line = LINES[random.below(LINES.len())];
                if role == Role::Lmtp && line == b"EHLO c.example" {
                    line = b"LHLO c.example";
                }
                match random.below(100) {
                    0 => session.on_timeout(),
                    1 => session.on_shutdown(),
                    2 => session.on_line_too_long(),
                    _ => session.on_line(line),
                }
            }
            Action::Close(reply) => {
                assert!(matches!(reply.code(), 221 | 421 | 501 | 552), "{reply}");
                assert!(watcher.errors < LIMITS.errors_max, "too many errors were borne");
                return;
            }
            Action::Judge(stage) => {
                let verdict = random.verdict();
                match (&stage, verdict) {
                    (Stage::Mail { reverse_path, parameters }, Ok(())) => {
                        assert!(watcher.hello, "MAIL before EHLO");
                        assert!(watcher.transaction.is_none(), "MAIL inside a transaction");
                        assert!(parameters.utf8 == Utf8::Needed || reverse_path.to_string().is_ascii());
                        watcher.transaction = Some((reverse_path.clone(), Vec::new()));
                    }
                    (Stage::Rcpt { forward_path, .. }, Ok(())) => {
                        let path = match forward_path {
                            ForwardPath::Postmaster => "postmaster@mx.example".into(),
                            ForwardPath::Address(address) => address.to_string(),
                        };
                        let (_, recipients) = watcher.transaction.as_mut().expect("RCPT after MAIL");
                        recipients.push(path);
                    }
                    (Stage::Data { .. }, verdict) => {
                        let envelope = session.envelope().expect("there is one");
                        assert!(!envelope.recipients.is_empty(), "mail data for nobody");
                        match verdict {
                            Ok(()) => watcher.data = DataSeen::Agreed,
                            Err(_) => watcher.forget(),
                        }
                    }
                    (Stage::Ehlo { .. } | Stage::Mail { .. } | Stage::Rcpt { .. }, _) => {}
                }
                session.on_verdict(stage, verdict)
            }
            Action::Receive(reply) => {
                assert_eq!((reply.code(), &watcher.data, watcher.chunks), (354, &DataSeen::Agreed, 0));
                assert!(session.is_receiving());
                let outcome = random.verdict();
                match outcome {
                    Ok(()) => watcher.data = DataSeen::Complete,
                    Err(_) => watcher.forget(),
                }
                session.on_data_end(outcome)
            }
            Action::ReceiveChunk { size, first, last } => {
                assert_eq!(watcher.data, DataSeen::Agreed);
                assert_eq!(first, watcher.chunks == 0);
                watcher.chunks += 1;
                watcher.octets += size;
                assert!(watcher.octets <= LIMITS.message_size_max, "chunks beyond the limit");
                let outcome = random.verdict();
                match outcome {
                    Ok(()) if last => watcher.data = DataSeen::Complete,
                    Ok(()) => {}
                    Err(_) => watcher.forget(),
                }
                session.on_chunk_end(outcome)
            }
            Action::DiscardChunk { size } => {
                assert!(size <= LIMITS.discard_max);
                assert!(!session.is_receiving());
                watcher.forget();
                session.on_chunk_end(Ok(()))
            }
            Action::Commit(envelope) => {
                assert_eq!(watcher.data, DataSeen::Complete, "a commit without its mail data");
                let (reverse_path, recipients) = watcher.transaction.take().expect("a transaction");
                assert_eq!(envelope.reverse_path, reverse_path);
                let committed: Vec<_> = envelope.recipients.iter().map(|r| r.address.to_string()).collect();
                assert_eq!(committed, recipients);
                assert!((1..=LIMITS.recipients_max).contains(&committed.len()));
                watcher.forget();
                line = b"";
                let outcome = random.verdict().map(|()| QueueId::new(JournalShard(1), seed));
                let wanted = if role == Role::Lmtp { committed.len() } else { 1 };
                if random.below(2) == 0 {
                    let (later, action) = session.on_commit_begun();
                    owed.push_back((later, outcome, wanted));
                    action
                } else {
                    let action = session.on_commit(outcome);
                    let Action::Reply(reply) = action else { panic!("a commit is answered") };
                    assert_eq!(reply.code() == 250, outcome.is_ok());
                    assert_eq!(reply.to_string().split("\r\n").count(), wanted, "{reply}");
                    Action::Read
                }
            }
            Action::Release(node) => {
                assert!(watcher.transaction.is_none());
                line = b"";
                let outcome = random.verdict().map(|()| Waiting::Unknown);
                session.on_released(&node, outcome)
            }
            Action::Fetch(_) => {
                assert!(watcher.transaction.is_none());
                line = b"";
                session.on_called_for(random.verdict())
            }
            Action::Reverse(reply) => {
                assert_eq!(reply.code(), 250);
                return;
            }
            Action::Impersonate(claims) => {
                assert!(watcher.transaction.is_none());
                line = b"";
                let action = session.on_impersonated(&claims, Extensions::PERSONAL, Ok(()));
                watcher.forget();
                watcher.hello = session.client().is_some();
                action
            }
            Action::StartTls(reply) => {
                assert_eq!(reply.code(), 220);
                let action = session.on_tls();
                assert_eq!((session.client(), session.envelope()), (None, None));
                watcher.forget();
                watcher.hello = false;
                line = b"";
                action
            }
        };
    }
}

#[test]
fn random_sessions_keep_the_rules() {
    let seeds = match env::var("SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..3000,
    };
    for seed in seeds {
        if let Err(failure) = panic::catch_unwind(|| live(seed)) {
            println!("SEED={seed}");
            panic::resume_unwind(failure);
        }
    }
}

#[test]
fn an_idle_session_is_small() {
    // An idle connection has no buffer; what stays is this and the client's name.
    let (session, action) = (size_of::<Session>(), size_of::<Action>());
    assert!(session <= 320 && action <= 320, "session: {session} bytes, action: {action} bytes");
}
