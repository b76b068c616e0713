//! One session of the sink.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use memchr::{memchr, memmem};
use ring::{Stream, clock};

use super::{Shard, Step};
use crate::message::{Inspector, Verdict};
use crate::wire::Wire;

/// The longest that a client may take for its next step (RFC 5321 §4.5.3.2.7).
const PATIENCE: Duration = Duration::from_secs(300);
/// The longest command line.
const LINE_MAX: usize = 4096;
/// The most recipients of one message.
const RECIPIENTS_MAX: usize = 10_000;

/// Why a session ends.
enum Ended {
    /// The connection is gone, or to be closed.
    Closed,
    /// To be cut, as asked for.
    Dropped,
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

pub(super) async fn run(shard: &Shard, stream: Stream) {
    let mut session = Session {
        shard,
        wire: Wire::new(stream, shard.pool.clone()),
        replies: Vec::new(),
        transaction: None,
    };
    match session.serve().await {
        Err(Ended::Dropped) => session.wire.into_stream().abort(),
        Ok(()) | Err(Ended::Closed) => {}
    }
}

struct Session<'a> {
    shard: &'a Shard,
    wire: Wire,
    /// Replies that go out when there are no more commands to read.
    replies: Vec<u8>,
    transaction: Option<Transaction>,
}

#[derive(Default)]
struct Transaction {
    /// The numbers in the recipients' local-parts.
    recipients: Vec<u32>,
    inspector: Inspector,
    bytes: u64,
    /// A chunk was refused: so will be the rest.
    failed: Option<u16>,
    chunks: bool,
}

impl Session<'_> {
    async fn serve(&mut self) -> Result<(), Ended> {
        self.drop_at(Step::Connect)?;
        if self.shard.options.implicit_tls {
            self.secure().await?;
        }
        self.reply("220 sink.invalid ESMTP\r\n");
        loop {
            let Some(end) = memchr(b'\n', self.wire.bytes()) else {
                if self.wire.bytes().len() > LINE_MAX {
                    self.reply("500 line too long\r\n");
                    self.flush().await?;
                    return Ok(());
                }
                self.fill().await?;
                continue;
            };
            let line = &self.wire.bytes()[..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let mut verb = [0; 4];
            verb.iter_mut().zip(line).for_each(|(to, from)| *to = from.to_ascii_uppercase());
            let argument = line.get(4..).unwrap_or_default();
            match &verb {
                b"MAIL" => self.on_mail(end)?,
                b"RCPT" => {
                    let recipient = recipient(argument);
                    self.on_rcpt(end, recipient)?;
                }
                b"DATA" => self.on_data(end).await?,
                b"BDAT" => {
                    let chunk = chunk(argument);
                    self.on_bdat(end, chunk).await?;
                }
                b"EHLO" | b"HELO" | b"LHLO" => {
                    let tls = self.shard.options.starttls;
                    self.transaction = None;
                    self.answer(end, "250-sink.invalid\r\n250-PIPELINING\r\n250-SIZE 67108864\r\n");
                    self.reply(if tls { "250-STARTTLS\r\n" } else { "" });
                    self.reply("250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250 CHUNKING\r\n");
                }
                b"RSET" => {
                    self.transaction = None;
                    self.answer(end, "250 2.0.0 ok\r\n");
                }
                b"NOOP" => self.answer(end, "250 2.0.0 ok\r\n"),
                b"STAR" if self.shard.options.starttls => {
                    self.answer(end, "220 2.0.0 go ahead\r\n");
                    self.flush().await?;
                    self.secure().await?;
                    self.transaction = None;
                }
                b"QUIT" => {
                    self.answer(end, "221 2.0.0 bye\r\n");
                    self.flush().await?;
                    return Ok(());
                }
                _ => self.answer(end, "500 5.5.1 unknown command\r\n"),
            }
        }
    }

    fn on_mail(&mut self, end: usize) -> Result<(), Ended> {
        self.drop_at(Step::Mail)?;
        if self.transaction.is_some() {
            self.answer(end, "503 5.5.1 one at a time\r\n");
        } else if let Some(code) = self.fails(Step::Mail) {
            self.refuse(end, code);
        } else {
            self.transaction = Some(Transaction::default());
            self.answer(end, "250 2.1.0 ok\r\n");
        }
        Ok(())
    }

    fn on_rcpt(&mut self, end: usize, recipient: u32) -> Result<(), Ended> {
        self.drop_at(Step::Rcpt)?;
        let failure = self.fails(Step::Rcpt);
        match (&mut self.transaction, failure) {
            (None, _) => self.answer(end, "503 5.5.1 MAIL first\r\n"),
            (Some(_), Some(code)) => self.refuse(end, code),
            (Some(transaction), None) if transaction.recipients.len() >= RECIPIENTS_MAX => {
                self.answer(end, "452 4.5.3 too many recipients\r\n");
            }
            (Some(transaction), None) => {
                transaction.recipients.push(recipient);
                self.answer(end, "250 2.1.5 ok\r\n");
            }
        }
        Ok(())
    }

    async fn on_data(&mut self, end: usize) -> Result<(), Ended> {
        self.drop_at(Step::Data)?;
        match &self.transaction {
            Some(transaction) if !transaction.recipients.is_empty() && !transaction.chunks => {}
            Some(_) | None => {
                self.answer(end, "503 5.5.1 MAIL and RCPT first\r\n");
                return Ok(());
            }
        }
        if let Some(code) = self.fails(Step::Data) {
            self.refuse(end, code);
            return Ok(());
        }
        self.answer(end, "354 end with a dot\r\n");
        self.flush().await?;
        let mut transaction = self.transaction.take().expect("looked at above");
        self.content(&mut transaction).await?;
        self.taken(transaction).await
    }

    /// Reads up to the line with nothing but a dot; takes doubled dots apart (RFC 5321 §4.5.2).
    async fn content(&mut self, transaction: &mut Transaction) -> Result<(), Ended> {
        let mut line_begins = true;
        loop {
            let bytes = self.wire.bytes();
            if line_begins && bytes.starts_with(b".") {
                match bytes {
                    [b'.', b'\r', b'\n', ..] => {
                        self.wire.consume(3);
                        return Ok(());
                    }
                    [b'.'] | [b'.', b'\r'] => {
                        self.fill().await?;
                        continue;
                    }
                    _ => self.wire.consume(1),
                }
                line_begins = false;
                continue;
            }
            let count = match memmem::find(bytes, b"\r\n.") {
                Some(at) => at + 2,
                // A CR at the end may be the beginning of the end.
                None => bytes.len() - usize::from(bytes.ends_with(b"\r")),
            };
            if count > 0 {
                line_begins = bytes[..count].ends_with(b"\r\n");
                self.inspect(transaction, count);
            }
            if self.wire.bytes().is_empty() || self.wire.bytes() == b"\r" {
                self.fill().await?;
            }
        }
    }

    async fn on_bdat(&mut self, end: usize, chunk: Option<(u64, bool)>) -> Result<(), Ended> {
        let Some((size, last)) = chunk else {
            // Where the next command begins, nobody knows.
            self.answer(end, "501 5.5.4 BDAT needs a size\r\n");
            self.flush().await?;
            return Err(Ended::Closed);
        };
        self.wire.consume(end + 1);
        let transaction = self.transaction.take().filter(|transaction| !transaction.recipients.is_empty());
        let known = transaction.is_some();
        let mut transaction = transaction.unwrap_or_default();
        if known && !transaction.chunks {
            self.drop_at(Step::Data)?;
            transaction.failed = self.fails(Step::Data);
            transaction.chunks = true;
        }
        let mut left = size;
        while left > 0 {
            if self.wire.bytes().is_empty() {
                self.fill().await?;
            }
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(self.wire.bytes().len());
            self.inspect(&mut transaction, count);
            left -= count as u64;
        }
        if !known {
            self.reply("503 5.5.1 MAIL and RCPT first\r\n");
        } else if let Some(code) = transaction.failed {
            self.say_no(code);
        } else if last {
            self.taken(transaction).await?;
        } else {
            self.reply("250 2.0.0 chunk taken\r\n");
            self.transaction = Some(transaction);
        }
        Ok(())
    }

    fn inspect(&mut self, transaction: &mut Transaction, count: usize) {
        if !self.shard.options.no_verify {
            transaction.inspector.add(&self.wire.bytes()[..count]);
        }
        transaction.bytes += count as u64;
        self.wire.consume(count);
    }

    /// The content is here: counts it, answers.
    async fn taken(&mut self, transaction: Transaction) -> Result<(), Ended> {
        self.drop_at(Step::Dot)?;
        if !self.shard.options.delay.is_zero() {
            self.flush().await?;
            ring::sleep(self.shard.options.delay).await;
        }
        if let Some(code) = self.fails(Step::Dot) {
            self.say_no(code);
            return Ok(());
        }
        let verdict =
            if self.shard.options.no_verify { Verdict::Foreign } else { transaction.inspector.end() };
        self.shard.shared.totals().take(verdict, &transaction.recipients, transaction.bytes, clock::now());
        self.reply("250 2.0.0 taken\r\n");
        Ok(())
    }

    async fn secure(&mut self) -> Result<(), Ended> {
        let config = self.shard.tls.as_ref().expect("made when TLS is asked for");
        let channel = tls::Channel::server(config).map_err(io::Error::other)?;
        self.wire.stream().deadline().set_after(PATIENCE);
        Ok(self.wire.secure(channel).await?)
    }

    fn drop_at(&self, step: Step) -> Result<(), Ended> {
        if !self.shard.options.drop.is_empty() && self.shard.drops(step) {
            Err(Ended::Dropped)
        } else {
            Ok(())
        }
    }

    fn fails(&self, step: Step) -> Option<u16> {
        if self.shard.options.fail.is_empty() {
            None
        } else {
            self.shard.fails(step).inspect(|code| {
                let key = format!("{step:?} {code}").to_lowercase();
                *self.shard.shared.totals().report.refused.entry(key).or_default() += 1;
            })
        }
    }

    fn refuse(&mut self, end: usize, code: u16) {
        self.wire.consume(end + 1);
        self.say_no(code);
    }

    fn say_no(&mut self, code: u16) {
        let mut text = String::new();
        let _ = write!(text, "{code} {}.3.0 as asked for\r\n", code / 100);
        self.reply(&text);
    }

    fn answer(&mut self, end: usize, text: &str) {
        self.wire.consume(end + 1);
        self.reply(text);
    }

    fn reply(&mut self, text: &str) {
        self.replies.extend_from_slice(text.as_bytes());
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        if !self.replies.is_empty() {
            self.wire.stream().deadline().set_after(PATIENCE);
            self.wire.write(&[&self.replies]).await?;
            self.replies.clear();
        }
        Ok(())
    }

    /// Receives more; before that, sends what there is to say.
    async fn fill(&mut self) -> Result<(), Ended> {
        self.flush().await?;
        self.wire.stream().deadline().set_after(PATIENCE);
        match self.wire.fill().await? {
            0 => Err(Ended::Closed),
            _ => Ok(()),
        }
    }
}

/// The number in the local-part of `TO:<r7@...>`; other recipients count as the first.
fn recipient(argument: &[u8]) -> u32 {
    let Some(begin) = memchr(b'<', argument) else { return 0 };
    let Some(digits) = argument[begin + 1..].strip_prefix(b"r") else { return 0 };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit()).take(9);
    digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}

/// Size and whether it is the last (RFC 3030 §2).
fn chunk(argument: &[u8]) -> Option<(u64, bool)> {
    let mut words = std::str::from_utf8(argument).ok()?.split_ascii_whitespace();
    let size = words.next()?.parse().ok()?;
    match words.next() {
        None => Some((size, false)),
        Some(last) if last.eq_ignore_ascii_case("LAST") => Some((size, true)),
        Some(_) => None,
    }
}
