//! A next hop that keeps what it gets, and answers what the test tells it to.

use std::{
    collections::VecDeque,
    fmt,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Condvar, Mutex},
    thread,
};

#[expect(clippy::disallowed_types, reason = "a next hop of the server under test")]
use std::net::TcpStream;

use crate::{PATIENCE, free_address};

/// A next hop in a thread of the test. It offers what the server can make use of, but TLS.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// A message that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// What stood behind MAIL FROM: with its parameters.
    pub mail: String,
    /// What stood behind each RCPT TO: that was accepted, with its parameters.
    pub rcpt: Vec<String>,
    /// The content, without doubled dots.
    pub content: String,
    /// Where it came from: the other end, or who the proxy said that is.
    pub client: SocketAddr,
    /// As what that one introduced itself.
    pub name: String,
}

/// What the sink answers to a command in place of what it would; the end of the content asks as `.`.
type Answer = Box<dyn FnMut(&str) -> Option<String> + Send>;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    door: Door,
}

/// What comes before the greeting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Door {
    /// Nothing.
    #[default]
    Open,
    /// A PROXY header.
    BehindProxy,
}

#[derive(Default)]
struct State {
    answer: Option<Arc<Mutex<Answer>>>,
    mails: VecDeque<Mail>,
    commands: Vec<String>,
    /// Connections that have not ended, and how many there have been at once.
    open: usize,
    open_max: usize,
}

impl Sink {
    /// Listens on a free address.
    pub fn start() -> Self {
        Self::start_at(free_address())
    }

    /// Listens there.
    ///
    /// # Panics
    /// When it cannot.
    pub fn start_at(address: SocketAddr) -> Self {
        Self::start_with(address, Door::Open)
    }

    /// Stands for a proxy and the next hop behind it: says nothing until it is told from where to where by a PROXY header.
    pub fn start_behind_proxy() -> Self {
        Self::start_with(free_address(), Door::BehindProxy)
    }

    fn start_with(address: SocketAddr, door: Door) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let shared = Arc::new(Shared { door, ..Shared::default() });
        let of_thread = Arc::clone(&shared);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&of_thread);
                thread::spawn(move || {
                    drop(Session::new(stream, &shared).and_then(|mut session| session.serve()))
                });
            }
        });
        Self { address, shared }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A route that leads every message here, for a server's configuration.
    pub fn route(&self) -> String {
        let address = self.address;
        format!("[[route]]\nname = \"sink\"\ndomains = [\"*\"]\nvia = \"hop\"\nhosts = [\"{address}\"]\n")
    }

    /// From now on, asks `answer` at each command, and at `.` for the end of the content. `None` is the usual answer;
    /// an empty reply cuts the connection.
    pub fn answer(&self, answer: impl FnMut(&str) -> Option<String> + Send + 'static) {
        self.shared.state.lock().unwrap().answer = Some(Arc::new(Mutex::new(Box::new(answer))));
    }

    /// From now on, answers so to every RCPT.
    pub fn refuse_recipients(&self, reply: &'static str) {
        self.answer(move |command| command.starts_with("RCPT").then(|| reply.to_owned()));
    }

    /// From now on, takes everything.
    pub fn accept(&self) {
        self.shared.state.lock().unwrap().answer = None;
    }

    /// The next message. Waits for it.
    ///
    /// # Panics
    /// When none comes.
    pub fn mail(&self) -> Mail {
        let state = self.shared.state.lock().unwrap();
        let waiting = |state: &mut State| state.mails.is_empty();
        let (mut state, _) = self.shared.changed.wait_timeout_while(state, PATIENCE, waiting).unwrap();
        let mail = state.mails.pop_front();
        drop(state);
        mail.unwrap_or_else(|| panic!("no mail came to the sink at {} within {PATIENCE:?}", self.address))
    }

    /// How many messages are here that [`Sink::mail`] has not given out.
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().unwrap().mails.len()
    }

    /// How many connections there are. One that has said QUIT has ended.
    pub fn open(&self) -> usize {
        self.shared.state.lock().unwrap().open
    }

    /// How many connections there have been at once.
    pub fn open_max(&self) -> usize {
        self.shared.state.lock().unwrap().open_max
    }

    /// Every command so far, over all connections.
    pub fn commands(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().commands.clone()
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sink at {}", self.address)
    }
}

#[expect(clippy::disallowed_types, reason = "a next hop of the server under test")]
struct Session<'a> {
    stream: BufReader<TcpStream>,
    shared: &'a Shared,
    client: SocketAddr,
    name: String,
    mail: String,
    rcpt: Vec<String>,
    content: Vec<u8>,
    counted: bool,
}

impl<'a> Session<'a> {
    #[expect(clippy::disallowed_types, reason = "a next hop of the server under test")]
    fn new(stream: TcpStream, shared: &'a Shared) -> std::io::Result<Self> {
        let _ = stream.set_nodelay(true);
        let mut client = stream.peer_addr()?;
        let mut stream = BufReader::new(stream);
        if shared.door == Door::BehindProxy {
            client = told_by_proxy(&mut stream)?;
        }
        {
            let mut state = shared.state.lock().unwrap();
            state.open += 1;
            state.open_max = state.open_max.max(state.open);
        }
        Ok(Self {
            stream,
            shared,
            client,
            name: String::new(),
            mail: String::new(),
            rcpt: Vec::new(),
            content: Vec::new(),
            counted: true,
        })
    }

    fn serve(&mut self) -> std::io::Result<()> {
        self.reply("220 sink.test ESMTP")?;
        let mut line = String::new();
        while self.stream.read_line(&mut line)? > 0 {
            let command = std::mem::take(&mut line);
            let command = command.trim_end();
            self.shared.state.lock().unwrap().commands.push(command.to_owned());
            if !self.on_command(command)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether the session goes on.
    fn on_command(&mut self, command: &str) -> std::io::Result<bool> {
        let verb = command.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let told = self.told(command);
        if told.as_deref() == Some("") {
            return Ok(false);
        }
        let parameter = |prefix: &str| command.get(prefix.len()..).unwrap_or_default().trim().to_owned();
        if verb == "BDAT" {
            return self.chunk(command, told);
        }
        if let Some(reply) = told {
            self.reply(&reply)?;
            return Ok(true);
        }
        match verb.as_str() {
            "EHLO" => {
                self.name = parameter("EHLO");
                self.reply(
                    "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n\
                     250-ENHANCEDSTATUSCODES\r\n250 CHUNKING",
                )?;
            }
            "MAIL" => {
                self.reset();
                self.mail = parameter("MAIL FROM:");
                self.reply("250 2.1.0 ok")?;
            }
            "RCPT" => {
                self.rcpt.push(parameter("RCPT TO:"));
                self.reply("250 2.1.5 ok")?;
            }
            "DATA" if self.rcpt.is_empty() => self.reply("554 5.5.1 no valid recipients")?,
            "DATA" => {
                self.reply("354 go on")?;
                self.data()?;
                return self.end();
            }
            "RSET" => {
                self.reset();
                self.reply("250 2.0.0 ok")?;
            }
            "QUIT" => {
                // Whoever hears the answer may open the next one.
                self.discount();
                self.reply("221 2.0.0 bye")?;
                return Ok(false);
            }
            _ => self.reply("250 2.0.0 ok")?,
        }
        Ok(true)
    }

    /// Up to the line with nothing but a dot (RFC 5321 §4.5.2).
    fn data(&mut self) -> std::io::Result<()> {
        loop {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line == b".\r\n" {
                return Ok(());
            }
            self.content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }

    fn chunk(&mut self, command: &str, told: Option<String>) -> std::io::Result<bool> {
        let mut words = command.split(' ').skip(1);
        let size: usize = words.next().and_then(|size| size.parse().ok()).unwrap();
        let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        let before = self.content.len();
        self.content.resize(before + size, 0);
        self.stream.read_exact(&mut self.content[before..])?;
        match (told, last) {
            (Some(reply), _) => self.reply(&reply)?,
            (None, _) if self.rcpt.is_empty() => self.reply("503 5.5.1 no valid recipients")?,
            (None, true) => return self.end(),
            (None, false) => self.reply("250 2.0.0 ok")?,
        }
        Ok(true)
    }

    /// The content is complete.
    fn end(&mut self) -> std::io::Result<bool> {
        let told = self.told(".");
        match told.as_deref() {
            Some("") => return Ok(false),
            Some(reply) => {
                let reply = reply.to_owned();
                self.reset();
                self.reply(&reply)?;
            }
            None => {
                let content = String::from_utf8_lossy(&self.content).into_owned();
                let mail = Mail {
                    mail: std::mem::take(&mut self.mail),
                    rcpt: std::mem::take(&mut self.rcpt),
                    content,
                    client: self.client,
                    name: self.name.clone(),
                };
                self.reset();
                self.shared.state.lock().unwrap().mails.push_back(mail);
                self.shared.changed.notify_all();
                self.reply("250 2.0.0 taken")?;
            }
        }
        Ok(true)
    }

    fn told(&self, command: &str) -> Option<String> {
        // It may take its time: whoever looks at the sink meanwhile does not wait.
        let answer = self.shared.state.lock().unwrap().answer.clone()?;
        let mut answer = answer.lock().unwrap();
        answer(command)
    }

    fn discount(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.shared.state.lock().unwrap().open -= 1;
        }
    }

    fn reset(&mut self) {
        self.mail.clear();
        self.rcpt.clear();
        self.content.clear();
    }

    fn reply(&mut self, text: &str) -> std::io::Result<()> {
        self.stream.get_mut().write_all(format!("{text}\r\n").as_bytes())
    }
}

/// Whom the header names as the client (HAProxy's `proxy-protocol.txt`); an error where it names nobody, as of a proxy's own.
#[expect(clippy::disallowed_types, reason = "a next hop of the server under test")]
fn told_by_proxy(stream: &mut BufReader<TcpStream>) -> std::io::Result<SocketAddr> {
    let strange = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut first = [0; 12];
    stream.read_exact(&mut first)?;
    if first.starts_with(b"PROXY ") {
        let mut rest = String::new();
        stream.read_line(&mut rest)?;
        let line = [std::str::from_utf8(&first).map_err(|_| strange())?, &rest].concat();
        let words: Vec<_> = line.split_whitespace().collect();
        let ["PROXY", "TCP4" | "TCP6", from, _, port, _] = words[..] else { return Err(strange()) };
        let (ip, port) = (from.parse().map_err(|_| strange())?, port.parse().map_err(|_| strange())?);
        return Ok(SocketAddr::new(ip, port));
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let mut addresses = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    stream.read_exact(&mut addresses)?;
    match (&first, head[0], head[1], &addresses[..]) {
        (b"\r\n\r\n\0\r\nQUIT\n", 0x21, 0x11, &[a, b, c, d, _, _, _, _, high, low, _, _]) => {
            Ok(SocketAddr::new([a, b, c, d].into(), u16::from_be_bytes([high, low])))
        }
        _ => Err(strange()),
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.discount();
    }
}
