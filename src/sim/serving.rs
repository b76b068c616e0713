//! The server's end of a connection: our door for clients, and next hops.
//!
//! Bytes go in, replies come out, and what neither the session nor the scanners can know is asked of the owner.

use bytes::{Bytes, BytesMut};
use mail::{Domain, Envelope, QueueId};
use message::{HeaderLimits, HeaderScan, HeaderSummary};
use smtp::{
    Action, ChunkScanner, Findings, Line, LineScanner, MailDataScanner, Piece, Progress, Refusal, Session,
    Stage, Verdict,
};

/// What the owner must do before it goes on.
#[derive(Debug)]
#[must_use]
pub(crate) enum Asked {
    /// Wait for bytes.
    Bytes,
    /// Judge, then [`Serving::on_verdict`].
    Judge(Stage),
    /// Judge the content received, then [`Serving::on_content`].
    Content,
    /// Make it durable, then [`Serving::on_commit`].
    Commit(Box<Envelope>),
    /// See whether mail waits, then [`Serving::on_called_for`].
    Fetch(Vec<Domain>),
    /// Send what is to be sent; the client is the server from here on.
    Reverse,
    /// Close.
    Close,
}

pub(crate) struct Serving {
    pub(crate) session: Session,
    lines: LineScanner,
    input: BytesMut,
    reads: Reads,
    pub(crate) intake: Intake,
    /// What is to be sent.
    pub(crate) out: Vec<u8>,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Lines,
    Data,
    Chunk { last: Last },
    Discarded(u64),
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

impl Serving {
    pub(crate) fn open(options: std::sync::Arc<smtp::Options>) -> (Self, Asked) {
        let lines = LineScanner::new(options.limits.line_max);
        let (session, greeting) = Session::open(options);
        let (input, intake) = (BytesMut::new(), Intake::default());
        let mut serving = Self { session, lines, input, reads: Reads::Nothing, intake, out: Vec::new() };
        let asked = serving.follow(greeting);
        (serving, asked)
    }

    pub(crate) fn on_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Does as much as it can with what has come.
    pub(crate) fn go_on(&mut self) -> Asked {
        match self.read() {
            Ok(action) => self.follow(action),
            Err(asked) => asked,
        }
    }

    pub(crate) fn on_verdict(&mut self, stage: Stage, verdict: Verdict) -> Asked {
        let action = self.session.on_verdict(stage, verdict);
        self.follow(action)
    }

    pub(crate) fn on_content(&mut self, outcome: Result<(), Refusal>) -> Asked {
        let action = match self.intake.scanner {
            Scanner::Data(_) => self.session.on_data_end(outcome),
            Scanner::Chunks(_) => self.session.on_chunk_end(outcome),
        };
        self.follow(action)
    }

    pub(crate) fn on_commit(&mut self, outcome: Result<QueueId, Refusal>) -> Asked {
        let action = self.session.on_commit(outcome);
        self.follow(action)
    }

    pub(crate) fn on_called_for(&mut self, outcome: Result<(), Refusal>) -> Asked {
        let action = self.session.on_called_for(outcome);
        self.follow(action)
    }

    pub(crate) fn on_timeout(&mut self) -> Asked {
        let action = self.session.on_timeout();
        self.follow(action)
    }

    pub(crate) fn on_shutdown(&mut self) -> Asked {
        let action = self.session.on_shutdown();
        self.follow(action)
    }

    /// Whether the owner has not answered yet.
    pub(crate) fn waits_for_owner(&self) -> bool {
        self.reads == Reads::Nothing
    }

    pub(crate) fn in_transaction(&self) -> bool {
        self.session.envelope().is_some() || self.waits_for_owner()
    }

    fn follow(&mut self, mut action: Action) -> Asked {
        loop {
            self.reads = match action {
                Action::Reply(reply) => {
                    reply.write_to(&mut self.out);
                    Reads::Lines
                }
                Action::Read => Reads::Lines,
                Action::Judge(stage) => {
                    self.reads = Reads::Nothing;
                    return Asked::Judge(stage);
                }
                Action::Receive(reply) => {
                    reply.write_to(&mut self.out);
                    self.intake = Intake::new(Scanner::Data(MailDataScanner::new()));
                    Reads::Data
                }
                Action::ReceiveChunk { size, first, last } => {
                    if first {
                        self.intake = Intake::new(Scanner::Chunks(ChunkScanner::new()));
                    }
                    self.intake.begin_chunk(size);
                    Reads::Chunk { last: if last { Last::Yes } else { Last::No } }
                }
                Action::DiscardChunk { size } => Reads::Discarded(size),
                Action::Commit(envelope) => {
                    self.reads = Reads::Nothing;
                    return Asked::Commit(Box::new(envelope));
                }
                Action::Close(reply) => {
                    reply.write_to(&mut self.out);
                    self.reads = Reads::Nothing;
                    return Asked::Close;
                }
                Action::Fetch(domains) => {
                    self.reads = Reads::Nothing;
                    return Asked::Fetch(domains);
                }
                Action::Reverse(reply) => {
                    reply.write_to(&mut self.out);
                    self.reads = Reads::Nothing;
                    return Asked::Reverse;
                }
                Action::Release(_) | Action::Impersonate(_) => unreachable!("nobody may ask for that"),
                Action::StartTls(_) => unreachable!("TLS is offered nowhere"),
            };
            action = match self.read() {
                Ok(action) => action,
                Err(asked) => return asked,
            };
        }
    }

    fn read(&mut self) -> Result<Action, Asked> {
        match self.reads {
            Reads::Nothing => Err(Asked::Bytes),
            Reads::Lines => loop {
                match self.lines.find(&self.input) {
                    Line::Complete { len } => {
                        let line = self.input.split_to(len);
                        return Ok(self.session.on_line(&line[..len - 2]));
                    }
                    Line::Excess { len } => drop(self.input.split_to(len)),
                    Line::TooLong { len } => {
                        drop(self.input.split_to(len));
                        return Ok(self.session.on_line_too_long());
                    }
                    Line::Endless => return Ok(self.session.on_line_endless()),
                    Line::Partial => return Err(Asked::Bytes),
                }
            },
            Reads::Data => match self.intake.receive(&mut self.input) {
                Found::More => Err(Asked::Bytes),
                Found::End => {
                    self.reads = Reads::Nothing;
                    Err(Asked::Content)
                }
            },
            Reads::Chunk { last } => match (self.intake.receive(&mut self.input), last) {
                (Found::More, _) => Err(Asked::Bytes),
                (Found::End, Last::No) => Ok(self.session.on_chunk_end(Ok(()))),
                (Found::End, Last::Yes) => {
                    self.reads = Reads::Nothing;
                    Err(Asked::Content)
                }
            },
            Reads::Discarded(size) => {
                let len = self.input.len().min(size as usize);
                drop(self.input.split_to(len));
                self.reads = Reads::Discarded(size - len as u64);
                if size > len as u64 { Err(Asked::Bytes) } else { Ok(self.session.on_chunk_end(Ok(()))) }
            }
        }
    }
}

/// The mail data of one message.
pub(crate) struct Intake {
    scanner: Scanner,
    header: HeaderScan,
    pub(crate) content: Vec<Bytes>,
    /// Set until the owner takes note that another message has begun.
    pub(crate) fresh: bool,
}

enum Scanner {
    Data(MailDataScanner),
    Chunks(ChunkScanner),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    More,
    End,
}

impl Default for Intake {
    fn default() -> Self {
        Self::new(Scanner::Data(MailDataScanner::new()))
    }
}

impl Intake {
    fn new(scanner: Scanner) -> Self {
        let header = HeaderScan::new(HeaderLimits { header_size_max: 1 << 20 });
        Self { scanner, header, content: Vec::new(), fresh: true }
    }

    fn begin_chunk(&mut self, size: u64) {
        match &mut self.scanner {
            Scanner::Chunks(scanner) => scanner.begin(size),
            Scanner::Data(_) => unreachable!("a chunk within DATA"),
        }
    }

    fn receive(&mut self, input: &mut BytesMut) -> Found {
        let mut pieces = Vec::new();
        let (len, found) = match &mut self.scanner {
            Scanner::Data(scanner) => match scanner.scan(input, |piece| pieces.push(piece)) {
                Progress::More => (input.len(), Found::More),
                Progress::Ended { consumed } => (consumed, Found::End),
            },
            Scanner::Chunks(scanner) => {
                let len = scanner.scan(input);
                pieces.extend((len > 0).then_some(Piece::Input(0..len)));
                (len, if scanner.open() == 0 { Found::End } else { Found::More })
            }
        };
        let received = input.split_to(len).freeze();
        for piece in pieces {
            let slice = match piece {
                Piece::Input(range) => received.slice(range),
                Piece::CarriedCr => Bytes::from_static(b"\r"),
            };
            if !self.header.is_done() {
                self.header.push(&slice);
            }
            self.content.push(slice);
        }
        found
    }

    pub(crate) fn findings(&self) -> Findings {
        match &self.scanner {
            Scanner::Data(scanner) => scanner.findings(),
            Scanner::Chunks(scanner) => scanner.findings(),
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.content.iter().map(Bytes::len).sum()
    }

    pub(crate) const fn header_done(&self) -> bool {
        self.header.is_done()
    }

    pub(crate) fn summary(&self) -> HeaderSummary {
        self.header.clone().finish()
    }
}
