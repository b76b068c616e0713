//! One session of the source: connects again and again until there is no more to send.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use ring::{ConnectOptions, Stream, clock};

use super::{Options, Pipelining, Security, Shard, Ticket};
use crate::message::{Form, Message};
use crate::wire::Wire;

/// How long to wait before connecting again when the server is not there.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest line of a reply that is read (RFC 5321 §4.5.3.1.5 allows 512).
const LINE_MAX: usize = 4096;
/// So many octets go out at one time, when many messages do.
const BATCH: usize = 64 << 10;

/// Why the connection is of no use any more.
enum Lost {
    /// It broke, at that step.
    Broken(&'static str, io::Error),
    /// The server does not go on, or cannot do what was asked for.
    Refused(&'static str, u16),
}

pub(super) async fn run(shard: &Shard) {
    // A message whose connection could not be opened is still to be sent.
    let mut waiting = None;
    loop {
        if waiting.is_none() {
            waiting = shard.ticket().await;
        }
        if waiting.is_none() {
            return;
        }
        if let Err(lost) = converse(shard, &mut waiting).await {
            shard.error(match lost {
                Lost::Broken(step, error) => format!("{step}: {}", error.kind()),
                Lost::Refused(step, code) => format!("{step}: {code}"),
            });
            if shard.shared.stopping() {
                return;
            }
            ring::sleep(PAUSE).await;
        }
    }
}

/// One connection. `waiting` is the message that is to be sent next; what was begun is taken out of it.
async fn converse(shard: &Shard, waiting: &mut Option<Ticket>) -> Result<(), Lost> {
    let options = &shard.options;
    let mut client = Client::connect(shard).await?;
    client.greet().await?;
    if options.bdat && options.pipelining == Pipelining::Deep {
        client.stream(waiting).await?;
        client.quit().await;
        return Ok(());
    }
    let (mut sent, mut ahead) = (0, false);
    while let Some(ticket) = waiting.take() {
        sent += 1;
        let last = options.per_connection > 0 && sent >= options.per_connection;
        match client.message(ticket, ahead, last).await {
            Ok(()) => {}
            Err(lost) => {
                // Neither this one nor that whose commands went ahead has its reply; but only this one may be taken.
                shard.tally.borrow_mut().unknown += 1;
                *waiting = client.ahead;
                return Err(lost);
            }
        }
        *waiting = client.ahead.take();
        ahead = waiting.is_some();
        if client.quitting {
            break;
        }
        if waiting.is_none() {
            *waiting = shard.ticket().await;
        }
    }
    client.quit().await;
    Ok(())
}

struct Client<'a> {
    shard: &'a Shard,
    options: &'a Options,
    wire: Wire,
    /// Commands about to be sent.
    commands: Vec<u8>,
    /// What the server offers.
    size: bool,
    chunking: bool,
    pipelining: bool,
    starttls: bool,
    /// The message whose commands went out together with the content of the one before.
    ahead: Option<Ticket>,
    /// QUIT was sent, or we were told to go.
    quitting: bool,
}

/// A message whose replies are still to come.
struct Flying {
    number: u64,
    size: usize,
    begin: Duration,
}

/// How far one message got.
#[derive(Default)]
struct Outcome {
    accepted: Vec<u32>,
    refused: Option<(&'static str, u16)>,
}

impl Outcome {
    fn note(&mut self, step: &'static str, code: u16) -> bool {
        let good = code / 100 == 2;
        if !good {
            self.refused = self.refused.or(Some((step, code)));
        }
        good
    }
}

impl<'a> Client<'a> {
    async fn connect(shard: &'a Shard) -> Result<Self, Lost> {
        let options = &shard.options;
        let connect = ConnectOptions { local: None, timeout: options.timeout };
        let stream = Stream::connect(options.server, connect).await;
        let stream = stream.map_err(|error| Lost::Broken("connect", error))?;
        shard.tally.borrow_mut().connections += 1;
        Ok(Self {
            shard,
            options,
            wire: Wire::new(stream, shard.pool.clone()),
            commands: Vec::new(),
            size: false,
            chunking: false,
            pipelining: false,
            starttls: false,
            ahead: None,
            quitting: false,
        })
    }

    /// Until the first message may be sent.
    async fn greet(&mut self) -> Result<(), Lost> {
        if self.options.tls == Security::Implicit {
            self.secure().await?;
        }
        self.expect("greeting", 220).await?;
        self.ehlo().await?;
        if self.options.tls == Security::Starttls {
            if !self.starttls {
                return Err(Lost::Refused("STARTTLS is not offered", 250));
            }
            self.send("STARTTLS", &[b"STARTTLS\r\n"]).await?;
            self.expect("STARTTLS", 220).await?;
            self.secure().await?;
            self.ehlo().await?;
        }
        if self.options.bdat && !self.chunking {
            return Err(Lost::Refused("CHUNKING is not offered", 250));
        }
        if self.grouped() && !self.pipelining {
            return Err(Lost::Refused("PIPELINING is not offered", 250));
        }
        Ok(())
    }

    async fn secure(&mut self) -> Result<(), Lost> {
        let config = self.shard.tls.as_ref().expect("made when TLS is asked for");
        let channel = tls::Channel::client(config, &self.options.server.ip().to_string());
        let channel = channel.map_err(|error| Lost::Broken("TLS", io::Error::other(error)))?;
        self.wire.stream().deadline().set_after(self.options.timeout);
        self.wire.secure(channel).await.map_err(|error| Lost::Broken("TLS", error))
    }

    async fn ehlo(&mut self) -> Result<(), Lost> {
        self.send("EHLO", &[b"EHLO load.invalid\r\n"]).await?;
        let (mut size, mut chunking, mut pipelining, mut starttls) = (false, false, false, false);
        let code = self
            .lines("EHLO", |line| {
                let word = line.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
                size |= word.eq_ignore_ascii_case(b"SIZE");
                chunking |= word.eq_ignore_ascii_case(b"CHUNKING");
                pipelining |= word.eq_ignore_ascii_case(b"PIPELINING");
                starttls |= word.eq_ignore_ascii_case(b"STARTTLS");
            })
            .await?;
        (self.size, self.chunking, self.pipelining, self.starttls) = (size, chunking, pipelining, starttls);
        if code == 250 { Ok(()) } else { Err(Lost::Refused("EHLO", code)) }
    }

    /// Sends whole messages, many ahead of their replies: content in chunks waits for nobody (RFC 3030 §4.2).
    async fn stream(&mut self, waiting: &mut Option<Ticket>) -> Result<(), Lost> {
        let mut flight = VecDeque::new();
        let result = self.stream_through(waiting, &mut flight).await;
        // Taken or not: the reply is missing.
        self.shard.tally.borrow_mut().unknown += flight.len() as u64;
        result
    }

    async fn stream_through(
        &mut self,
        waiting: &mut Option<Ticket>,
        flight: &mut VecDeque<Flying>,
    ) -> Result<(), Lost> {
        let window = self.options.window as usize;
        let left = |sent: u64| self.options.per_connection == 0 || sent < self.options.per_connection;
        let mut sent = 0;
        loop {
            // In batches: half of the window at a time.
            if flight.len() <= window / 2 {
                while flight.len() < window && !self.quitting && left(sent) {
                    let ticket = match waiting.take() {
                        Some(ticket) => ticket,
                        None => match self.shard.ticket().await {
                            Some(ticket) => ticket,
                            None => break,
                        },
                    };
                    let message = self.make(ticket);
                    let begin = ticket.due.unwrap_or_else(clock::now);
                    flight.push_back(Flying { number: ticket.number, size: message.size, begin });
                    sent += 1;
                    self.put_envelope(ticket.number, message.size);
                    let _ = write!(self.commands, "BDAT {} LAST\r\n", message.size);
                    for piece in message.pieces() {
                        self.commands.extend_from_slice(piece);
                    }
                    if self.commands.len() > BATCH {
                        self.flush("BDAT").await?;
                    }
                }
                self.flush("BDAT").await?;
            }
            let Some(Flying { number, size, begin }) = flight.front() else { return Ok(()) };
            let (number, size, begin) = (*number, *size, *begin);
            let mut outcome = Outcome::default();
            outcome.note("MAIL", self.reply("MAIL").await?);
            for index in 0..self.options.recipients {
                if outcome.note("RCPT", self.reply("RCPT").await?) {
                    outcome.accepted.push(index);
                }
            }
            let code = self.reply("BDAT").await?;
            flight.pop_front();
            let taken = outcome.note("end of content", code) && !outcome.accepted.is_empty();
            if let Some((step, code)) = outcome.refused {
                self.shard.error(format!("{step}: {code}"));
            }
            if taken {
                self.count(number, &outcome.accepted, size, begin);
            }
            self.quitting |= code == 421;
        }
    }

    /// Sends one message. With `ahead`, its commands are on the way already. With `last`, QUIT goes out behind it.
    async fn message(&mut self, ticket: Ticket, ahead: bool, last: bool) -> Result<(), Lost> {
        let bdat = self.options.bdat;
        let message = self.make(ticket);
        let begin = ticket.due.unwrap_or_else(clock::now);
        self.commands.clear();
        if self.grouped() && !ahead {
            self.put_envelope(ticket.number, message.size);
            self.commands.extend_from_slice(if bdat { b"" } else { b"DATA\r\n" });
        }
        if self.grouped() && bdat {
            self.send_chunk(&message, last).await?;
        }
        let mut outcome = self.envelope(ticket.number, message.size).await?;

        let code = if bdat {
            if !self.grouped() && !outcome.accepted.is_empty() {
                self.send_chunk(&message, last).await?;
            }
            if self.grouped() || !outcome.accepted.is_empty() { self.reply("BDAT").await? } else { 0 }
        } else {
            self.data(&message, &outcome, last).await?
        };
        let taken = outcome.note("end of content", code) && !outcome.accepted.is_empty();
        if let Some((step, code)) = outcome.refused {
            self.shard.error(format!("{step}: {code}"));
        }
        if taken {
            self.count(ticket.number, &outcome.accepted, message.size, begin);
        }
        self.quitting |= code == 421;
        if !taken && !self.quitting && self.ahead.is_none() {
            // The transaction may still be open.
            self.send("RSET", &[b"RSET\r\n"]).await?;
            self.reply("RSET").await?;
        }
        Ok(())
    }

    /// MAIL and RCPT: sends what is not sent yet, and reads the replies.
    async fn envelope(&mut self, number: u64, size: usize) -> Result<Outcome, Lost> {
        let mut outcome = Outcome::default();
        if self.grouped() {
            if !self.options.bdat {
                self.flush("MAIL").await?;
            }
        } else {
            self.put_mail(size);
            self.flush("MAIL").await?;
        }
        let mail = self.reply("MAIL").await?;
        if !outcome.note("MAIL", mail) && !self.grouped() {
            return Ok(outcome);
        }
        for index in 0..self.options.recipients {
            if !self.grouped() {
                self.put_rcpt(number, index);
                self.flush("RCPT").await?;
            }
            let rcpt = self.reply("RCPT").await?;
            if outcome.note("RCPT", rcpt) {
                outcome.accepted.push(index);
            }
        }
        Ok(outcome)
    }

    /// DATA, the content, and the reply to it; or the reply that refused DATA.
    async fn data(&mut self, message: &Message, outcome: &Outcome, last: bool) -> Result<u16, Lost> {
        if !self.grouped() {
            if outcome.accepted.is_empty() {
                return Ok(0);
            }
            self.send("DATA", &[b"DATA\r\n"]).await?;
        }
        let code = self.reply("DATA").await?;
        if code != 354 {
            return Ok(code);
        }
        if outcome.accepted.is_empty() {
            // Nobody is to get it, yet the server waits for it (RFC 2920 §3.1).
            self.send("DATA", &[b".\r\n"]).await?;
            return self.reply("content").await;
        }
        if last {
            self.put_quit();
        } else if self.options.pipelining == Pipelining::Deep && self.shard.tickets.interval.is_none() {
            self.ahead = self.shard.ticket().await;
            match self.ahead {
                // How large it will be is not known yet.
                Some(next) => {
                    self.put_envelope(next.number, 0);
                    self.commands.extend_from_slice(b"DATA\r\n");
                }
                None => self.put_quit(),
            }
        }
        let commands = std::mem::take(&mut self.commands);
        let [header, body, end] = message.pieces();
        let sent = self.send("content", &[header, body, end, b".\r\n", &commands]).await;
        self.commands = commands;
        self.commands.clear();
        sent?;
        self.reply("content").await
    }

    /// BDAT and the content, behind what commands are waiting.
    async fn send_chunk(&mut self, message: &Message, last: bool) -> Result<(), Lost> {
        let mut commands = std::mem::take(&mut self.commands);
        let _ = write!(commands, "BDAT {} LAST\r\n", message.size);
        self.quitting |= last;
        let [header, body, end] = message.pieces();
        let sent =
            self.send("BDAT", &[&commands, header, body, end, if last { b"QUIT\r\n" } else { b"" }]).await;
        commands.clear();
        self.commands = commands;
        sent
    }

    fn make(&self, ticket: Ticket) -> Message {
        let form = if self.options.bdat { Form::Plain } else { Form::Stuffed };
        let size = self.options.size.pick(&mut self.shard.random.borrow_mut());
        let mut maker = self.shard.maker.borrow_mut();
        maker.make(ticket.number, self.options.recipients, size, &self.options.from, form)
    }

    fn count(&self, number: u64, accepted: &[u32], size: usize, begin: Duration) {
        let now = clock::now();
        let mut tally = self.shard.tally.borrow_mut();
        tally.messages += 1;
        tally.recipients += accepted.len() as u64;
        tally.bytes += size as u64;
        tally.latency.add(now.saturating_sub(begin));
        tally.last = now;
        if self.shard.recording {
            for index in accepted {
                let _ = writeln!(tally.acked, "{:016x} {number} {index}", self.shard.run);
            }
        }
    }

    fn grouped(&self) -> bool {
        self.options.pipelining != Pipelining::Off
    }

    fn put_envelope(&mut self, number: u64, size: usize) {
        self.put_mail(size);
        for index in 0..self.options.recipients {
            self.put_rcpt(number, index);
        }
    }

    fn put_mail(&mut self, size: usize) {
        let _ = write!(self.commands, "MAIL FROM:<{}>", self.options.from);
        if self.size && size > 0 {
            let _ = write!(self.commands, " SIZE={size}");
        }
        self.commands.extend_from_slice(b"\r\n");
    }

    fn put_rcpt(&mut self, number: u64, index: u32) {
        let domains = &self.options.domains;
        let domain =
            domains.get((number % domains.len().max(1) as u64) as usize).map_or("example.net", |name| name);
        let _ = write!(self.commands, "RCPT TO:<r{index}@{domain}>\r\n");
    }

    fn put_quit(&mut self) {
        self.commands.extend_from_slice(b"QUIT\r\n");
        self.quitting = true;
    }

    async fn flush(&mut self, step: &'static str) -> Result<(), Lost> {
        if self.commands.is_empty() {
            return Ok(());
        }
        let commands = std::mem::take(&mut self.commands);
        let sent = self.send(step, &[&commands]).await;
        self.commands = commands;
        self.commands.clear();
        sent
    }

    async fn send(&mut self, step: &'static str, pieces: &[&[u8]]) -> Result<(), Lost> {
        self.wire.stream().deadline().set_after(self.options.timeout);
        self.wire.write(pieces).await.map_err(|error| Lost::Broken(step, error))
    }

    async fn expect(&mut self, step: &'static str, expected: u16) -> Result<(), Lost> {
        let code = self.reply(step).await?;
        if code == expected { Ok(()) } else { Err(Lost::Refused(step, code)) }
    }

    async fn reply(&mut self, step: &'static str) -> Result<u16, Lost> {
        self.lines(step, |_| ()).await
    }

    /// Reads a reply; shows what follows the code on each line but the first.
    async fn lines(&mut self, step: &'static str, mut each: impl FnMut(&[u8])) -> Result<u16, Lost> {
        self.wire.stream().deadline().set_after(self.options.timeout);
        let broken = |kind: io::ErrorKind| Lost::Broken(step, kind.into());
        let mut first = true;
        loop {
            let Some(end) = memchr::memchr(b'\n', self.wire.bytes()) else {
                if self.wire.bytes().len() > LINE_MAX {
                    return Err(broken(io::ErrorKind::InvalidData));
                }
                match self.wire.fill().await {
                    Ok(0) => return Err(broken(io::ErrorKind::UnexpectedEof)),
                    Ok(_) => continue,
                    Err(error) => return Err(Lost::Broken(step, error)),
                }
            };
            let line = &self.wire.bytes()[..end];
            let [one @ b'2'..=b'5', two @ b'0'..=b'9', three @ b'0'..=b'9', rest @ ..] = line else {
                return Err(broken(io::ErrorKind::InvalidData));
            };
            let code = [one, two, three].iter().fold(0, |code, digit| code * 10 + u16::from(**digit - b'0'));
            let more = rest.first() == Some(&b'-');
            if !first {
                each(rest.get(1..).unwrap_or_default());
            }
            first = false;
            self.wire.consume(end + 1);
            if !more {
                return Ok(code);
            }
        }
    }

    /// Leaves in good order.
    async fn quit(mut self) {
        if !self.quitting && self.send("QUIT", &[b"QUIT\r\n"]).await.is_err() {
            return;
        }
        // Whatever the server says to it.
        let _ = self.reply("QUIT").await;
    }
}
