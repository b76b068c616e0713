//! Asks a program whether there is such a recipient, and remembers what it said.
//!
//! It is asked as Postfix asks a `tcp_table`: a line `get KEY`, and a line back that begins with 200 for yes, 500 for no and
//! 400 for not now. What is neither printable nor ASCII, spaces and percent signs travel as `%XX`. Connections are kept.

use std::{
    cell::RefCell, collections::HashMap, fmt::Write as _, io, net::SocketAddr, rc::Rc, time::Duration,
};

use policy::{Mailbox, Query};
use ring::{ConnectOptions, Semaphore, Stream};
use watch::{ShardMetrics, Verification};

/// Those who are asked by one core.
pub(crate) struct Verifier {
    known: RefCell<Known>,
    idle: RefCell<HashMap<SocketAddr, Vec<Stream>>>,
    /// As many connections as there may be; a reload changes it for those who ask from then on.
    permits: RefCell<(u32, Rc<Semaphore>)>,
    metrics: Rc<ShardMetrics>,
}

/// What was said of recipients, and until when that holds. Time is an argument.
#[derive(Debug, Default)]
struct Known {
    by_key: HashMap<(SocketAddr, Box<str>), (Mailbox, Duration)>,
}

/// A line that is longer is no answer.
const ANSWER_MAX: usize = 4096;

impl Verifier {
    pub(crate) fn new(metrics: Rc<ShardMetrics>) -> Self {
        let permits = RefCell::new((0, Rc::new(Semaphore::new(0))));
        Self { known: RefCell::default(), idle: RefCell::default(), permits, metrics }
    }

    /// Whether there is that recipient.
    pub(crate) async fn ask(&self, query: Query, rules: &config::Verify) -> Mailbox {
        let key = (query.at, query.key.into_boxed_str());
        if let Some(mailbox) = self.known.borrow().get(&key, ring::clock::now()) {
            self.metrics.inbound.verifications.of(Verification::Cached).one();
            return mailbox;
        }
        let until = ring::clock::now() + rules.timeout;
        let question = question(&key.1);
        let mailbox = self.ask_now(key.0, &question, until, rules).await.unwrap_or(Mailbox::Unanswered);
        let (result, holds) = match mailbox {
            Mailbox::Known => (Verification::Found, rules.found_time),
            Mailbox::Unknown => (Verification::Absent, rules.absent_time),
            Mailbox::Unanswered => (Verification::Failed, Duration::ZERO),
        };
        self.metrics.inbound.verifications.of(result).one();
        let now = ring::clock::now();
        self.known.borrow_mut().put(key, mailbox, now, now + holds, rules.cache_max as usize);
        mailbox
    }

    async fn ask_now(
        &self,
        at: SocketAddr,
        question: &str,
        until: Duration,
        rules: &config::Verify,
    ) -> io::Result<Mailbox> {
        let left = || until.saturating_sub(ring::clock::now());
        let permits = self.permits(rules.connections_max);
        let _permit = ring::timeout(left(), permits.acquire()).await.map_err(|_| io::ErrorKind::TimedOut)?;
        // One that was kept may have been closed meanwhile.
        while let Some(stream) = self.kept(at) {
            if let Ok(mailbox) = exchange(&stream, question, until).await {
                self.keep(at, stream);
                return Ok(mailbox);
            }
        }
        let options = ConnectOptions { timeout: left(), ..ConnectOptions::default() };
        let stream = Stream::connect(at, options).await?;
        let mailbox = exchange(&stream, question, until).await?;
        self.keep(at, stream);
        Ok(mailbox)
    }

    fn permits(&self, most: u32) -> Rc<Semaphore> {
        let mut permits = self.permits.borrow_mut();
        if permits.0 != most {
            *permits = (most, Rc::new(Semaphore::new(most as usize)));
        }
        permits.1.clone()
    }

    fn kept(&self, at: SocketAddr) -> Option<Stream> {
        self.idle.borrow_mut().get_mut(&at)?.pop()
    }

    fn keep(&self, at: SocketAddr, stream: Stream) {
        stream.deadline().clear();
        self.idle.borrow_mut().entry(at).or_default().push(stream);
    }

    /// Closes the connections that nobody needs any more, after a reload.
    pub(crate) fn forget(&self) {
        self.idle.borrow_mut().clear();
    }
}

/// Sends the question and reads the answer.
async fn exchange(stream: &Stream, question: &str, until: Duration) -> io::Result<Mailbox> {
    stream.deadline().set(until);
    stream.write_all(question.as_bytes()).await?;
    let mut line = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&buffer[..read]);
        match line.iter().position(|byte| *byte == b'\n') {
            // More than was asked for: whose answer the next is would not be known.
            Some(end) if end + 1 < line.len() => return Err(io::ErrorKind::InvalidData.into()),
            Some(end) => return answer(&line[..end]),
            None if line.len() > ANSWER_MAX => return Err(io::ErrorKind::InvalidData.into()),
            None => {}
        }
    }
}

fn question(key: &str) -> String {
    let mut line = String::from("get ");
    for byte in key.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => line.push(char::from(byte)),
            // Writing to a String does not fail.
            _ => _ = write!(line, "%{byte:02X}"),
        }
    }
    line.push('\n');
    line
}

fn answer(line: &[u8]) -> io::Result<Mailbox> {
    match line.split(|byte| *byte == b' ').next() {
        Some(b"200") => Ok(Mailbox::Known),
        Some(b"500") => Ok(Mailbox::Unknown),
        Some(b"400") => Ok(Mailbox::Unanswered),
        Some(_) | None => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Known {
    fn get(&self, key: &(SocketAddr, Box<str>), now: Duration) -> Option<Mailbox> {
        let (mailbox, until) = self.by_key.get(key)?;
        (now < *until).then_some(*mailbox)
    }

    fn put(
        &mut self,
        key: (SocketAddr, Box<str>),
        mailbox: Mailbox,
        now: Duration,
        until: Duration,
        most: usize,
    ) {
        if until <= now || most == 0 {
            self.by_key.remove(&key);
            return;
        }
        if self.by_key.len() >= most && !self.by_key.contains_key(&key) {
            self.by_key.retain(|_, (_, until)| now < *until);
        }
        if self.by_key.len() >= most && !self.by_key.contains_key(&key) {
            // Whichever: they are asked for again.
            let mut place = 0;
            self.by_key.retain(|_, _| {
                place += 1;
                place % 2 == 0
            });
        }
        self.by_key.insert(key, (mailbox, until));
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const AT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn questions_and_answers() {
        assert_eq!(question("ann@example.org"), "get ann@example.org\n");
        assert_eq!(question("\"a b\"%@\u{e9}.test\n"), "get \"a%20b\"%25@%C3%A9.test%0A\n");
        for (line, expected) in [
            ("200 OK", Some(Mailbox::Known)),
            ("200", Some(Mailbox::Known)),
            ("500 no such user", Some(Mailbox::Unknown)),
            ("400 later", Some(Mailbox::Unanswered)),
            ("2000", None),
            ("", None),
            ("OK", None),
        ] {
            assert_eq!(answer(line.as_bytes()).ok(), expected, "{line}");
        }
    }

    #[test]
    fn what_was_said_holds_for_a_while_and_has_a_bound() {
        let mut known = Known::default();
        let key = |number: u32| (AT, format!("{number}@example.org").into_boxed_str());
        for number in 0..1000 {
            known.put(key(number), Mailbox::Known, seconds(0), seconds(10), 100);
            assert!(known.by_key.len() <= 100);
            assert_eq!(known.get(&key(number), seconds(9)), Some(Mailbox::Known));
            assert_eq!(known.get(&key(number), seconds(10)), None);
        }
        known.put(key(1), Mailbox::Unknown, seconds(20), seconds(30), 100);
        known.put(key(1), Mailbox::Unanswered, seconds(20), seconds(20), 100);
        assert_eq!(known.get(&key(1), seconds(20)), None, "no answer is not remembered");
        // What has run out goes first.
        let fresh: Vec<_> = (2000..2100).collect();
        for number in &fresh {
            known.put(key(*number), Mailbox::Known, seconds(20), seconds(30), 100);
        }
        assert!(fresh.iter().all(|number| known.get(&key(*number), seconds(25)).is_some()));
    }
}
