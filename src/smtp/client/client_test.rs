//! The client played by transcripts, against nonsense, and against our own server.
//!
//! In a transcript `S:` is the next hop and `C:` we; `!` is what the driver tells, `?` what it is told to
//! do. `S:`, `!` and `#` lines are played, the rest is written anew and must come out the same;
//! `UPDATE_GOLDEN=1` accepts a change.

use std::{env, fmt::Write as _, fs, path::Path};

use mail::{BodyType, Recipient, ReversePath, Utf8};

use sasl::{BindingType, Credentials, Mechanism, Secret};

use super::*;

struct Player {
    client: Client,
    reader: ReplyReader,
    out: Vec<u8>,
    text: String,
}

#[test]
fn transcripts_come_out_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("client/transcripts");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let expected = fs::read_to_string(&file).unwrap();
        assert!(
            expected.lines().next().is_some_and(|l| l.starts_with("# ") && l.contains("RFC ")),
            "{file:?}"
        );
        let found = Player::play(&expected);
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, found).unwrap();
        } else {
            assert_eq!(found, expected, "{}", file.display());
        }
    }
}

impl Player {
    fn play(transcript: &str) -> String {
        let mut player = Self {
            client: Client::new(options("")),
            reader: ReplyReader::new(ReplyLimits::default()),
            out: Vec::new(),
            text: String::new(),
        };
        for line in transcript.lines().filter(|line| !line.starts_with("C:") && !line.starts_with('?')) {
            writeln!(player.text, "{line}").unwrap();
            if let Some(words) = line.strip_prefix("! options") {
                player.client = Client::new(options(words));
            } else if let Some(action) = player.input(line) {
                player.follow(action);
            }
        }
        player.text
    }

    fn input(&mut self, line: &str) -> Option<Action> {
        let (client, out) = (&mut self.client, &mut self.out);
        Some(match line.split_once(' ').unwrap_or((line, "")) {
            ("#" | "", _) => return None,
            ("S:", reply) => match self.reader.read(&mut format!("{reply}\r\n").as_bytes()) {
                Ok(reply) => client.on_reply(reply?, out),
                Err(error) => client.on_garbage(error),
            },
            ("!", "connected") => client.on_connected(Channel::Clear),
            ("!", "connected by TLS") => client.on_connected(Channel::Tls),
            ("!", "handshake done") => client.on_tls(Ok(()), out),
            ("!", "handshake done, bound") => {
                let octets: Vec<u8> = (0..32).collect();
                client.set_binding(ChannelBinding::new(BindingType::TlsExporter, octets));
                client.on_tls(Ok(()), out)
            }
            ("!", "handshake failed") => client.on_tls(Err(TlsFailure("bad record".into())), out),
            ("!", "content sent") => client.on_content_sent(out),
            ("!", "closed") => client.on_closed(),
            ("!", "timeout") => client.on_timeout(),
            ("!", "quit") => client.on_quit(out),
            ("!", words) => {
                let message = words.strip_prefix("message ").expect("the driver tells something known");
                client.on_transaction(transaction(message), out)
            }
            (who, _) => panic!("who is {who}?"),
        })
    }

    /// Writes down what the client wants; what is finished is acknowledged at once.
    fn follow(&mut self, action: Action) {
        for line in String::from_utf8(std::mem::take(&mut self.out)).unwrap().split_terminator("\r\n") {
            writeln!(self.text, "C: {line}").unwrap();
        }
        let text = match action {
            Action::Read(stage) => format!("read {stage:?}"),
            Action::StartTls => "start TLS".into(),
            Action::Derive(derivation) => {
                writeln!(self.text, "? hash the password").unwrap();
                let action = self.client.on_derived(&derivation.derive(), &mut self.out);
                return self.follow(action);
            }
            Action::SendContent(framing) => format!("send content by {framing:?}"),
            Action::Ready => "ready".into(),
            Action::Close(ending) => match ending {
                Ending::Refused(stage, reply) => format!("close: refused at {stage:?}: {reply}"),
                Ending::TlsFailed(failure) => format!("close: {failure}"),
                Ending::NoLogin(why) => format!("close: {why}"),
                Ending::Lost(stage, loss) => format!("close: {loss} at {stage:?}"),
                ending @ (Ending::Quit
                | Ending::TlsNotOffered
                | Ending::RequireTlsNotOffered
                | Ending::Idle) => {
                    format!("close: {ending:?}")
                }
            },
            Action::Finished(outcome) => {
                match outcome {
                    TransactionOutcome::Untried(transaction) => {
                        let size = transaction.size;
                        writeln!(self.text, "? finished: untried, size {size}").unwrap();
                    }
                    TransactionOutcome::Answered(answers) => {
                        for answer in answers {
                            let answer = match answer {
                                Answer::Reply(stage, reply) => format!("{stage:?}: {reply}"),
                                Answer::Lost(stage, loss) => format!("{stage:?}: {loss}"),
                                Answer::Unsuitable(why) => why.to_string(),
                                Answer::Left => "left for later".into(),
                            };
                            writeln!(self.text, "? finished: {answer}").unwrap();
                        }
                    }
                }
                let action = self.client.on_finished(&mut self.out);
                return self.follow(action);
            }
        };
        let more = if self.client.takes_next() && text != "ready" { ", or take the next" } else { "" };
        writeln!(self.text, "? {text}{more}").unwrap();
    }
}

/// `protocol=Lmtp tls=Required chunking=WhenOffered chaining=On transactions=2 outstanding=4 eager=10`.
fn options(words: &str) -> Options {
    let mut options = Options {
        protocol: Protocol::Smtp,
        hostname: "client.example".into(),
        tls: TlsLevel::None,
        chunking: Chunking::WhenNeeded,
        chaining: Chaining::Off,
        login: None,
        limits: Limits::default(),
    };
    for word in words.split_whitespace() {
        match word.split_once('=').unwrap() {
            ("protocol", "Lmtp") => options.protocol = Protocol::Lmtp,
            ("tls", "Opportunistic") => options.tls = TlsLevel::Opportunistic,
            ("tls", "Required") => options.tls = TlsLevel::Required,
            ("tls", "Verified") => options.tls = TlsLevel::Verified,
            ("tls", "Demanded") => options.tls = TlsLevel::Demanded,
            ("chunking", "WhenOffered") => options.chunking = Chunking::WhenOffered,
            ("chaining", "On") => options.chaining = Chaining::On,
            ("transactions", number) => options.limits.transactions_max = number.parse().unwrap(),
            ("outstanding", number) => options.limits.outstanding_max = number.parse().unwrap(),
            ("eager", number) => options.limits.eager_max = number.parse().unwrap(),
            ("login", how) => options.login = Some(login(how)),
            (name, value) => panic!("no option {name}={value}"),
        }
    }
    options
}

/// `password`, `token`, `long` for a long one; with `/PLAIN` by that mechanism alone, with `/clear` or `/tls` without protection.
fn login(how: &str) -> Login {
    let mut words = how.split('/');
    let secret = match words.next() {
        Some("token") => Secret::Token("sesame".into()),
        Some("long") => Secret::Token("sesame".repeat(100).into()),
        Some(_) | None => Secret::Password("pencil".into()),
    };
    let mut login = Login {
        credentials: Credentials::new("user", secret).unwrap(),
        mechanisms: Mechanism::ALL.into_iter().collect(),
        secrecy: Secrecy::Verified,
        nonce: "rOprNGfwEbeRWgbNEkqO".into(),
        binding: None,
    };
    for word in words {
        match (word, Mechanism::named(word)) {
            ("clear", _) => login.secrecy = Secrecy::None,
            ("tls", _) => login.secrecy = Secrecy::Tls,
            (_, Some(mechanism)) => login.mechanisms = [mechanism].into_iter().collect(),
            (word, None) => panic!("no way to log in: {word}"),
        }
    }
    login
}

/// `ann@client.example bob@mx.example, carl@mx.example; 120 EightBitMime Utf8`.
fn transaction(message: &str) -> Transaction {
    let (envelope, properties) = message.split_once("; ").unwrap();
    let (reverse_path, recipients) = envelope.split_once(' ').unwrap();
    let mut transaction = Transaction {
        reverse_path: match reverse_path {
            "<>" => ReversePath::Null,
            address => ReversePath::Address(address.parse().unwrap()),
        },
        recipients: recipients.split(", ").map(|address| Recipient::new(address.parse().unwrap())).collect(),
        size: 0,
        body: BodyType::SevenBit,
        unconverted: None,
        utf8: Utf8::NotNeeded,
        ret: None,
        envelope_id: None,
        by: None,
        priority: mail::TransferPriority::default(),
        tls: mail::TlsDemand::None,
        upstream: None,
    };
    for property in properties.split(' ') {
        match property {
            "EightBitMime" => transaction.body = BodyType::EightBitMime,
            "BinaryMime" => transaction.body = BodyType::BinaryMime,
            "Signed" => transaction.unconverted = Some("it is signed"),
            "forwarded" => {
                let address = Some([192, 0, 2, 7].into());
                transaction.upstream = Some(mail::Upstream { address, ..mail::Upstream::default() }.into());
            }
            "Utf8" => transaction.utf8 = Utf8::Needed,
            "RequireTls" => transaction.tls = mail::TlsDemand::Required,
            by if by.starts_with("by=") => {
                let (seconds, mode) = by[3..].split_once(';').unwrap();
                let mode =
                    if mode == "R" { mail::DeliverByMode::Return } else { mail::DeliverByMode::Notify };
                let (seconds, trace) = (seconds.parse().unwrap(), mail::DeliverByTrace::No);
                transaction.by = Some(crate::By { seconds, mode, trace });
            }
            size => transaction.size = size.parse().unwrap(),
        }
    }
    transaction
}
