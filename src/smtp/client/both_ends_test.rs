//! Our client against our server, and against a next hop that says anything at all.

use std::{collections::VecDeque, env, sync::Arc};

use bytes::Bytes;
use mail::{
    Address, BodyType, Domain, Envelope, ForwardPath, JournalShard, QueueId, Recipient, ReversePath, Utf8,
};

use super::*;
use crate::{ChunkScanner, Extension, Line, LineScanner, MailDataScanner, Piece, Progress, Refusal, Session};

#[test]
fn our_client_and_our_server_agree() {
    for seed in seeds(300) {
        BothEnds::new(seed).run();
    }
}

#[test]
fn no_reply_upsets_the_client() {
    for seed in seeds(2000) {
        nonsense(seed);
    }
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    match env::var("SEED") {
        Ok(seed) => seed.parse().map(|seed| seed..seed + 1).unwrap(),
        Err(_) => 0..count,
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    fn options(&mut self, tls: TlsLevel) -> Options {
        Options {
            protocol: Protocol::Smtp,
            hostname: "client.example".into(),
            tls,
            chunking: self.pick(&[Chunking::WhenNeeded, Chunking::WhenOffered]),
            chaining: self.pick(&[Chaining::Off, Chaining::On]),
            login: None,
            limits: Limits {
                transactions_max: self.pick(&[1, 2, 5, 1000]),
                outstanding_max: self.pick(&[1, 2, 3, 8, 128]),
                eager_max: self.pick(&[0, 30, 1000]),
            },
        }
    }

    fn message(&mut self, number: usize) -> Message {
        let text = ["a", ".", "\r\n", "\r\n.", "..", "body", "storage"];
        let mut content = format!("Subject: {number}\r\n\r\n");
        (0..self.below(12)).for_each(|_| content += self.pick(&text));
        content += "\r\n";
        let whole = Bytes::from(content);
        let cut = self.below(whole.len());
        let sender = self.pick(&["ann@client.example", "never@client.example"]);
        let names = ["bob", "carl", "nobody", "full", "dora"];
        let recipients = (0..1 + self.below(6)).map(|i| {
            let address = format!("{}{i}@mx.example", self.pick(&names));
            Recipient::new(address.parse().unwrap())
        });
        let recipients = recipients.collect();
        let transaction = Transaction {
            reverse_path: ReversePath::Address(sender.parse().unwrap()),
            recipients,
            size: whole.len() as u64,
            body: self.pick(&[BodyType::SevenBit, BodyType::EightBitMime]),
            unconverted: None,
            utf8: Utf8::NotNeeded,
            ret: None,
            envelope_id: None,
            by: None,
            priority: mail::TransferPriority::default(),
            tls: mail::TlsDemand::None,
            upstream: None,
        };
        Message { transaction, content: vec![whole.slice(..cut), whole.slice(cut..)] }
    }
}

#[derive(Clone)]
struct Message {
    transaction: Transaction,
    content: Vec<Bytes>,
}

impl Message {
    /// What our server is to answer for each recipient.
    fn expected(&self) -> Vec<(Stage, u16)> {
        let refused = self.transaction.reverse_path.to_string().starts_with("<never");
        let content = self.content.concat();
        let end = if content.windows(7).any(|w| w == b"storage") { 452 } else { 250 };
        let answer = |recipient: &Recipient| match recipient.address.as_str() {
            _ if refused => (Stage::Mail, 550),
            name if name.starts_with("nobody") => (Stage::Rcpt, 550),
            name if name.starts_with("full") => (Stage::Rcpt, 452),
            _ => (Stage::End, end),
        };
        self.transaction.recipients.iter().map(answer).collect()
    }
}

/// A server, its policy and its journal.
struct Server {
    session: Session,
    action: Option<crate::Action>,
    input: Vec<u8>,
    output: Vec<u8>,
    lines: LineScanner,
    data: Option<MailDataScanner>,
    chunk: Option<ChunkScanner>,
    content: Vec<u8>,
    journal: Vec<(Envelope, Vec<u8>)>,
    /// Taken down after so many messages.
    messages_left: usize,
    closed: bool,
}

impl Server {
    fn new(options: &Arc<crate::Options>, messages_left: usize) -> Self {
        let (session, action) = Session::open(Arc::clone(options));
        let mut server = Self {
            session,
            action: None,
            input: Vec::new(),
            output: Vec::new(),
            lines: LineScanner::new(options.limits.line_max),
            data: None,
            chunk: None,
            content: Vec::new(),
            journal: Vec::new(),
            messages_left,
            closed: false,
        };
        server.perform(action);
        server
    }

    fn on_bytes(&mut self, bytes: &[u8]) {
        if !self.closed {
            self.input.extend_from_slice(bytes);
        }
        while !self.closed && self.advance() {}
    }

    fn advance(&mut self) -> bool {
        if let Some(scanner) = &mut self.data {
            let (input, content) = (&self.input, &mut self.content);
            let progress = scanner.scan(input, |piece| match piece {
                Piece::Input(range) => content.extend_from_slice(&input[range]),
                Piece::CarriedCr => content.push(b'\r'),
            });
            let Progress::Ended { consumed } = progress else {
                self.input.clear();
                return false;
            };
            self.input.drain(..consumed);
            self.data = None;
            let action = self.session.on_data_end(Ok(()));
            self.perform(action);
        } else if let Some(scanner) = &mut self.chunk {
            let len = scanner.scan(&self.input);
            self.content.extend(self.input.drain(..len));
            if scanner.open() > 0 {
                return false;
            }
            self.chunk = None;
            let action = self.session.on_chunk_end(Ok(()));
            self.perform(action);
        } else {
            let Some(crate::Action::Read) = self.action else { return false };
            let Line::Complete { len } = self.lines.find(&self.input) else { return false };
            let line: Vec<_> = self.input.drain(..len).collect();
            let action = self.session.on_line(&line[..len - 2]);
            self.perform(action);
        }
        true
    }

    fn perform(&mut self, action: crate::Action) {
        use crate::Action;
        self.action = None;
        match action {
            Action::Read => self.action = Some(Action::Read),
            Action::Reply(reply) => {
                reply.write_to(&mut self.output);
                self.action = Some(Action::Read);
            }
            Action::Close(reply) => {
                reply.write_to(&mut self.output);
                self.closed = true;
            }
            Action::Judge(stage) => {
                let verdict = match &stage {
                    crate::Stage::Mail { reverse_path, .. } if reverse_path.to_string().contains("never") => {
                        Err(Refusal::Policy)
                    }
                    crate::Stage::Rcpt { forward_path: ForwardPath::Address(address), .. } => judge(address),
                    crate::Stage::Ehlo { .. }
                    | crate::Stage::Mail { .. }
                    | crate::Stage::Rcpt { .. }
                    | crate::Stage::Data { .. } => Ok(()),
                };
                let action = self.session.on_verdict(stage, verdict);
                self.perform(action);
            }
            Action::Receive(reply) => {
                reply.write_to(&mut self.output);
                self.content.clear();
                self.data = Some(MailDataScanner::new());
            }
            Action::ReceiveChunk { size, first: true, last: true } => {
                self.content.clear();
                let mut scanner = ChunkScanner::new();
                scanner.begin_last(size);
                self.chunk = Some(scanner);
            }
            Action::ReceiveChunk { .. } => panic!("the client sends one chunk"),
            Action::Release(_) | Action::Fetch(_) | Action::Reverse(_) | Action::Impersonate(_) => {
                panic!("the client asks for nothing")
            }
            Action::DiscardChunk { size } => {
                let mut scanner = ChunkScanner::new();
                scanner.begin(size);
                self.chunk = Some(scanner);
            }
            Action::Commit(envelope) => {
                let storage_full = self.content.windows(7).any(|w| w == b"storage");
                let action = if storage_full {
                    self.session.on_commit(Err(Refusal::StorageFull))
                } else {
                    self.journal.push((envelope, self.content.clone()));
                    self.session.on_commit(Ok(QueueId::new(JournalShard(0), self.journal.len() as u64)))
                };
                self.perform(action);
                self.messages_left -= 1;
                if self.messages_left == 0 {
                    let action = self.session.on_shutdown();
                    self.perform(action);
                }
            }
            Action::StartTls(reply) => {
                reply.write_to(&mut self.output);
                assert_eq!(self.input, b"", "the client pipelined behind STARTTLS");
                let action = self.session.on_tls();
                self.perform(action);
            }
        }
    }
}

fn judge(address: &Address) -> Result<(), Refusal> {
    match address.as_str() {
        name if name.starts_with("nobody") => Err(Refusal::NoSuchRecipient),
        name if name.starts_with("full") => Err(Refusal::MailboxFull),
        _ => Ok(()),
    }
}

struct BothEnds {
    seed: u64,
    random: Random,
    server_options: Arc<crate::Options>,
    options: Options,
    waiting: VecDeque<Message>,
    in_flight: VecDeque<Message>,
    delivered: Vec<(Vec<String>, Vec<u8>)>,
    journal: Vec<(Vec<String>, Vec<u8>)>,
}

impl BothEnds {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut server = crate::Options::new(Domain::parse("mx.example").unwrap());
        for extension in
            [Extension::Pipelining, Extension::Chunking, Extension::EightBitMime, Extension::Size]
        {
            if random.one_in(3) {
                server.extensions = server.extensions.without(extension);
            }
        }
        server.tls = random.pick(&[crate::TlsState::Absent, crate::TlsState::Offered]);
        let tls = random.pick(&[TlsLevel::None, TlsLevel::Opportunistic]);
        let mut options = random.options(tls);
        if random.one_in(3) {
            (server.role, options.protocol) = (crate::Role::Lmtp, Protocol::Lmtp);
            // RFC 2033 §5.
            server.extensions = server.extensions.with(Extension::Pipelining);
        }
        let waiting = (0..1 + random.below(12)).map(|number| random.message(number)).collect();
        Self {
            seed,
            random,
            server_options: server.shared(),
            options,
            waiting,
            in_flight: VecDeque::new(),
            delivered: Vec::new(),
            journal: Vec::new(),
        }
    }

    fn run(mut self) {
        let mut connections = 0;
        while !self.waiting.is_empty() {
            connections += 1;
            assert!(connections < 100, "seed {}: no progress", self.seed);
            self.connect();
        }
        assert_eq!(self.delivered, self.journal, "seed {}: what we believe and what is there", self.seed);
    }

    fn connect(&mut self) {
        let messages_left = self.random.pick(&[1, 3, 1000]);
        let mut server = Server::new(&self.server_options, messages_left);
        let mut client = Client::new(self.options.clone());
        let mut reader = ReplyReader::new(ReplyLimits::default());
        let (mut out, mut input) = (Vec::new(), Vec::new());
        let mut action = client.on_connected(Channel::Clear);
        loop {
            action = match action {
                Action::Read(_) => {
                    self.write(&mut server, &mut out);
                    // The driver may give the next transaction at any time while it waits.
                    if client.takes_next() && self.random.one_in(2) && !self.waiting.is_empty() {
                        action = self.give(&mut client, &mut out);
                        continue;
                    }
                    input.append(&mut server.output);
                    let mut rest = &input[..];
                    let reply = reader.read(&mut rest).unwrap();
                    input = rest.to_vec();
                    match reply {
                        Some(reply) => client.on_reply(reply, &mut out),
                        None => {
                            assert!(server.closed, "seed {}: both sides wait", self.seed);
                            client.on_closed()
                        }
                    }
                }
                Action::StartTls => client.on_tls(Ok(()), &mut out),
                Action::Derive(_) => unreachable!("nobody logs in"),
                Action::SendContent(framing) => {
                    let message = self.in_flight.back().expect("content is of the transaction given last");
                    let mut pieces = Vec::new();
                    framing.frame(&message.content, &mut pieces);
                    out.extend_from_slice(&pieces.concat());
                    let mut action = client.on_content_sent(&mut out);
                    if client.takes_next() && !self.waiting.is_empty() {
                        action = self.give(&mut client, &mut out);
                    }
                    action
                }
                Action::Finished(outcome) => {
                    self.finish(outcome);
                    client.on_finished(&mut out)
                }
                Action::Ready if self.waiting.is_empty() => client.on_quit(&mut out),
                Action::Ready => self.give(&mut client, &mut out),
                Action::Close(_) => break,
            };
        }
        assert!(self.in_flight.is_empty(), "seed {}: a transaction was not reported", self.seed);
        let journal = server.journal.into_iter();
        self.journal.extend(journal.map(|(envelope, content)| (names(&envelope.recipients), content)));
    }

    fn give(&mut self, client: &mut Client, out: &mut Vec<u8>) -> Action {
        let message = self.waiting.pop_front().expect("something waits");
        let action = client.on_transaction(message.transaction.clone(), out);
        self.in_flight.push_back(message);
        action
    }

    fn write(&mut self, server: &mut Server, out: &mut Vec<u8>) {
        while !out.is_empty() {
            let len = 1 + self.random.below(out.len());
            server.on_bytes(&out.drain(..len).collect::<Vec<_>>());
        }
    }

    fn finish(&mut self, outcome: TransactionOutcome) {
        let mut message = self.in_flight.pop_front().expect("only what is in flight ends");
        let seed = self.seed;
        let answers = match outcome {
            TransactionOutcome::Untried(transaction) => {
                assert_eq!(transaction, message.transaction, "seed {seed}");
                return self.waiting.push_front(message);
            }
            TransactionOutcome::Answered(answers) => answers,
        };
        if let [Answer::Unsuitable(Unsuitable::EightBitMime(None)), ..] = answers[..] {
            // The server does not offer it; whoever has converted the message says that it is something else now.
            assert_eq!(message.transaction.body, BodyType::EightBitMime, "seed {seed}");
            message.transaction.body = BodyType::SevenBit;
            return self.waiting.push_front(message);
        }
        let codes: Vec<_> = answers
            .iter()
            .map(|answer| match answer {
                Answer::Reply(stage, reply) => (*stage, reply.code()),
                answer @ (Answer::Lost(..) | Answer::Unsuitable(_) | Answer::Left) => {
                    panic!("seed {seed}: {answer:?}")
                }
            })
            .collect();
        if codes.iter().any(|(_, code)| *code == 421) {
            return self.waiting.push_front(message);
        }
        assert_eq!(codes, message.expected(), "seed {seed}");
        let taken = message.transaction.recipients.iter().zip(&codes);
        let taken: Vec<_> = taken.filter(|(_, c)| **c == (Stage::End, 250)).map(|(r, _)| r.clone()).collect();
        if !taken.is_empty() {
            self.delivered.push((names(&taken), message.content.concat()));
        }
    }
}

fn names(recipients: &[Recipient]) -> Vec<String> {
    recipients.iter().map(|recipient| recipient.address.to_string()).collect()
}

/// What a next hop has announced (RFC 9422), and what the client has said since then.
struct Watcher {
    seed: u64,
    limits: [usize; 3],
    mails: usize,
    recipients: usize,
    domains: Vec<String>,
}

impl Watcher {
    fn new(seed: u64, random: &mut Random) -> Self {
        let limits = [(); 3].map(|()| random.pick(&[1, 2, 3, 1000]));
        Self { seed, limits, mails: 0, recipients: 0, domains: Vec::new() }
    }

    fn offers(&self) -> String {
        let [mails, recipients, domains] = self.limits;
        format!(
            "mx\nPIPELINING\nSTARTTLS\nCHUNKING\nSIZE 60\nAUTH PLAIN LOGIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS\n\
             LIMITS MAILMAX={mails} RCPTMAX={recipients} RCPTDOMAINMAX={domains}"
        )
    }

    fn look(&mut self, said: &[u8]) {
        for line in String::from_utf8_lossy(said).lines() {
            if line.starts_with("HELO") {
                // It has no extensions.
                self.limits = [usize::MAX; 3];
            } else if line.starts_with("MAIL") {
                (self.mails, self.recipients) = (self.mails + 1, 0);
            } else if let Some(path) = line.strip_prefix("RCPT TO:<") {
                self.recipients += 1;
                let domain = path.split(['@', '>']).nth(1).unwrap().to_owned();
                if !self.domains.contains(&domain) {
                    self.domains.push(domain);
                }
            }
            let said = [self.mails, self.recipients, self.domains.len()];
            let within = said.iter().zip(&self.limits).all(|(said, most)| said <= most);
            assert!(within, "seed {}: {said:?} of {:?}", self.seed, self.limits);
        }
    }
}

/// Replies at random: every transaction is reported once, in order, with an answer for each
/// recipient; a delivery is reported only after content was sent, and never by silence; what the
/// next hop announces is kept to.
fn nonsense(seed: u64) {
    let mut random = Random(seed);
    let mut watcher = Watcher::new(seed, &mut random);
    let anywhere = |random: &mut Random, number| {
        let mut transaction = random.message(number).transaction;
        for recipient in &mut transaction.recipients {
            let address =
                recipient.address.as_str().replace("mx", random.pick(&["mx", "two", "three", "four"]));
            *recipient = Recipient::new(address.parse().unwrap());
        }
        transaction
    };
    let tls = random.pick(&[TlsLevel::None, TlsLevel::Opportunistic, TlsLevel::Required]);
    let mut options = random.options(tls);
    options.protocol = random.pick(&[Protocol::Smtp, Protocol::Smtp, Protocol::Lmtp]);
    if random.one_in(4) {
        let secret = sasl::Secret::Password("pencil".into());
        options.login = Some(Login {
            credentials: sasl::Credentials::new("user", secret).unwrap(),
            mechanisms: sasl::Mechanism::ALL.into_iter().collect(),
            secrecy: random.pick(&[Secrecy::None, Secrecy::Tls, Secrecy::Verified]),
            nonce: "n".into(),
            binding: random
                .one_in(2)
                .then(|| ChannelBinding::new(sasl::BindingType::TlsExporter, b"octets".to_vec())),
        });
    }
    let mut client = Client::new(options);
    let (mut out, mut given, mut sent, mut finished) = (Vec::new(), VecDeque::new(), 0, 0);
    let mut action = client.on_connected(Channel::Clear);
    for number in 0..200 {
        watcher.look(&out);
        out.clear();
        action = match action {
            Action::Read(_) if client.takes_next() && random.one_in(2) => {
                let transaction = anywhere(&mut random, number);
                given.push_back(transaction.clone());
                client.on_transaction(transaction, &mut out)
            }
            Action::Read(stage) => match random.below(40) {
                0 => client.on_closed(),
                1 => client.on_timeout(),
                2 => client.on_garbage(ReplyError::Syntax),
                3..20 if stage == Stage::Auth => {
                    // "r=nx,s=QSXC,i=4096", and nothing at all.
                    let challenge = random.pick(&["cj1ueCxzPVFTWEMsaT00MDk2", ""]);
                    client.on_reply(Reply::new(334, None, challenge), &mut out)
                }
                luck => {
                    let usual = if stage == Stage::Data { 354 } else { 250 };
                    let code =
                        if luck < 33 { usual } else { random.pick(&[220, 250, 354, 421, 452, 503, 550]) };
                    client.on_reply(Reply::new(code, None, &watcher.offers()), &mut out)
                }
            },
            Action::StartTls if random.one_in(4) => client.on_tls(Err(TlsFailure("x".into())), &mut out),
            Action::StartTls => client.on_tls(Ok(()), &mut out),
            Action::Derive(derivation) => client.on_derived(&derivation.derive(), &mut out),
            Action::SendContent(_) => match random.below(20) {
                0 => client.on_closed(),
                1 => client.on_reply(Reply::new(552, None, ""), &mut out),
                _ => {
                    sent += 1;
                    client.on_content_sent(&mut out)
                }
            },
            Action::Finished(outcome) => {
                let transaction: Transaction = given.pop_front().expect("only what was given ends");
                match outcome {
                    TransactionOutcome::Untried(untried) => assert_eq!(untried, transaction, "seed {seed}"),
                    TransactionOutcome::Answered(answers) => {
                        assert_eq!(answers.len(), transaction.recipients.len(), "seed {seed}");
                        assert!(
                            answers.iter().any(|a| *a != Answer::Left),
                            "seed {seed}: nobody was asked for"
                        );
                        let delivered =
                            |a: &Answer| matches!(a, Answer::Reply(Stage::End, r) if r.code() == 250);
                        finished += usize::from(answers.iter().any(delivered));
                        assert!(finished <= sent, "seed {seed}: delivered without content");
                    }
                }
                client.on_finished(&mut out)
            }
            Action::Ready if random.one_in(20) => client.on_quit(&mut out),
            Action::Ready => {
                let transaction = anywhere(&mut random, number);
                given.push_back(transaction.clone());
                client.on_transaction(transaction, &mut out)
            }
            Action::Close(_) => {
                assert!(given.is_empty(), "seed {seed}: closed with transactions in flight");
                return;
            }
        };
    }
}
