//! A client that says what it is told to, byte by byte: for what no real program does.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
};

#[expect(clippy::disallowed_types, reason = "a client of the server under test")]
use std::net::TcpStream;

use crate::PATIENCE;

/// One connection to a server.
#[derive(Debug)]
pub struct Client {
    #[expect(clippy::disallowed_types, reason = "a client of the server under test")]
    stream: BufReader<TcpStream>,
}

/// What the server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The reply code.
    pub code: u16,
    /// What stands behind it, line by line.
    pub lines: Vec<String>,
}

impl Reply {
    /// Whether the code is 2yz or 3yz.
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// The lines in one.
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.lines.join(" / "))
    }
}

impl Client {
    /// Connects, and waits for nothing.
    ///
    /// # Panics
    /// When nobody is there.
    pub fn connect(address: SocketAddr) -> Self {
        #[expect(clippy::disallowed_types, reason = "a client of the server under test")]
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Connects, reads the greeting and says EHLO.
    ///
    /// # Panics
    /// When the server does not want it.
    pub fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.expect(220);
        client.say("EHLO client.test");
        client.expect(250);
        client
    }

    /// Sends a line.
    pub fn say(&mut self, line: &str) {
        self.put(format!("{line}\r\n").as_bytes());
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the server does not take them.
    pub fn put(&mut self, bytes: &[u8]) {
        self.try_put(bytes).unwrap();
    }

    /// Sends bytes as they are, if the server takes them.
    ///
    /// # Errors
    /// The connection is gone or full.
    pub fn try_put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// The next reply, or none when the server has closed the connection.
    ///
    /// # Panics
    /// When it comes neither to a reply nor to an end, or what comes is not a reply.
    pub fn try_reply(&mut self) -> Option<Reply> {
        let mut reply = Reply { code: 0, lines: Vec::new() };
        loop {
            let mut line = String::new();
            match self.stream.read_line(&mut line) {
                Ok(0) => {
                    assert!(reply.lines.is_empty(), "the connection ended within a reply: {reply}");
                    return None;
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply: {error}"),
            }
            let text =
                line.strip_suffix("\r\n").unwrap_or_else(|| panic!("a reply line ends in CRLF: {line:?}"));
            assert!(text.len() >= 3, "not a reply: {text:?}");
            reply.code = text[..3].parse().unwrap_or_else(|_| panic!("not a reply: {text:?}"));
            reply.lines.push(text.get(4..).unwrap_or_default().to_owned());
            if text.as_bytes().get(3) != Some(&b'-') {
                return Some(reply);
            }
        }
    }

    /// The next reply.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("a reply, and not the end of the connection")
    }

    /// The next reply, which has this code.
    ///
    /// # Panics
    /// When it has another.
    #[track_caller]
    pub fn expect(&mut self, code: u16) -> Reply {
        let reply = self.reply();
        assert_eq!(reply.code, code, "{reply}");
        reply
    }

    /// Sends a line and reads the reply.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> Reply {
        self.say(line);
        self.reply()
    }

    /// Sends a message; dots are doubled here. Answers the reply to it, which has the queue id.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub fn send(&mut self, reverse_path: &str, recipients: &[&str], content: &str) -> Reply {
        self.say(&format!("MAIL FROM:<{reverse_path}>"));
        self.expect(250);
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}>"));
            self.expect(250);
        }
        self.say("DATA");
        self.expect(354);
        let stuffed = content.replace("\r\n.", "\r\n..");
        self.put(stuffed.as_bytes());
        self.say(".");
        self.expect(250)
    }

    /// Says that no more will come, and still listens.
    pub fn shut_write(&mut self) {
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    /// Whether something has come that nobody has read. Does not wait.
    ///
    /// # Panics
    /// When the system does not say.
    pub fn has_input(&self) -> bool {
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true).unwrap();
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        !self.stream.buffer().is_empty() || peeked.is_ok()
    }

    /// Everything until the server closes the connection.
    ///
    /// # Panics
    /// When it does not.
    pub fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection stays open: {error}"),
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
