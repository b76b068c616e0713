//! The client's side of SOCKS5 (RFC 1928), with a user and a password where the proxy asks for them (RFC 1929).
//!
//! A proxy is told an address, never a name: whoever looks a name up decides what a host is held to, and that is us.
//! Each message of the proxy is read to its last octet and not further: what follows the last one is the next hop's.

use std::net::{IpAddr, SocketAddr};

/// One connection being asked for, told what the proxy has sent.
#[derive(Debug)]
pub struct Socks5 {
    target: Option<SocketAddr>,
    login: Option<(Box<str>, Box<str>)>,
    waiting: Waiting,
    /// What has come of the message that is waited for.
    received: Vec<u8>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Receive, at most [`Socks5::wanted`] octets.
    Receive,
    /// Send these, then receive.
    Send(Vec<u8>),
    /// There is a connection; of a trial, there could be one.
    Done,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocksError {
    /// What the proxy says is not what a proxy says.
    #[error("the proxy does not speak SOCKS5")]
    Malformed,
    /// It wants us to prove who we are in a way that we cannot.
    #[error("the proxy takes none of our ways to log in")]
    NoMethod,
    /// It does not believe us.
    #[error("the proxy does not take our user and password")]
    NotAllowed,
    /// It could not connect.
    #[error("the proxy: {0}")]
    Refused(Reason),
}

/// Why a proxy could not connect (RFC 1928 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Something went wrong.
    #[error("general failure")]
    General,
    /// Its rules forbid it.
    #[error("not allowed by its rules")]
    Forbidden,
    /// No way leads there.
    #[error("network unreachable")]
    NetworkUnreachable,
    /// Nor to the host.
    #[error("host unreachable")]
    HostUnreachable,
    /// Nobody listens there.
    #[error("connection refused")]
    ConnectionRefused,
    /// Nobody answers.
    #[error("time to live expired")]
    Expired,
    /// It does not connect for anybody.
    #[error("command not supported")]
    Command,
    /// It does not know this family of addresses.
    #[error("address type not supported")]
    AddressType,
    /// A code that does not exist yet.
    #[error("failure {0}")]
    Unknown(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Method,
    Login,
    /// The part of the reply that says how long it is.
    Reply,
    /// The rest.
    Bound(usize),
    Nothing,
}

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const PASSWORD: u8 = 2;
/// Version, reply, reserved, address type, and the first octet of the address: no reply is shorter.
const REPLY_HEAD: usize = 5;

impl Socks5 {
    /// Asks for a connection to that address; and what is to be sent first. User and password are of 1 to 255 octets, or are not
    /// offered.
    pub fn connect(target: SocketAddr, login: Option<(&str, &str)>) -> (Self, Vec<u8>) {
        Self::begin(Some(target), login)
    }

    /// Asks for nothing, but whether the proxy would take us.
    pub fn trial(login: Option<(&str, &str)>) -> (Self, Vec<u8>) {
        Self::begin(None, login)
    }

    fn begin(target: Option<SocketAddr>, login: Option<(&str, &str)>) -> (Self, Vec<u8>) {
        let fits = |text: &str| (1..=255).contains(&text.len());
        let login = login.filter(|(user, password)| fits(user) && fits(password));
        let login = login.map(|(user, password)| (user.into(), password.into()));
        let greeting = match &login {
            None => vec![VERSION, 1, NO_LOGIN],
            // Nothing is gained by a password that is not asked for.
            Some(_) => vec![VERSION, 2, NO_LOGIN, PASSWORD],
        };
        (Self { target, login, waiting: Waiting::Method, received: Vec::new() }, greeting)
    }

    /// How many octets may be received now.
    pub fn wanted(&self) -> usize {
        let len = match self.waiting {
            Waiting::Method | Waiting::Login => 2,
            Waiting::Reply => REPLY_HEAD,
            Waiting::Bound(len) => len,
            Waiting::Nothing => 0,
        };
        len - self.received.len()
    }

    /// Whether the proxy has been asked to connect: from then on, what it says may be about the next hop.
    pub fn is_asked(&self) -> bool {
        matches!(self.waiting, Waiting::Reply | Waiting::Bound(_))
    }

    /// These octets have come, [`Socks5::wanted`] of them at most.
    ///
    /// # Errors
    /// [`SocksError`] when there is no connection, and will be none.
    ///
    /// # Panics
    /// When there are more.
    pub fn on_received(&mut self, octets: &[u8]) -> Result<Next, SocksError> {
        assert!(octets.len() <= self.wanted(), "more than was wanted");
        self.received.extend_from_slice(octets);
        if self.wanted() > 0 {
            return Ok(Next::Receive);
        }
        let message = std::mem::take(&mut self.received);
        match self.waiting {
            Waiting::Method => self.on_method(&message),
            Waiting::Login => match message[..] {
                // "If the server returns a `failure' (STATUS value other than X'00') status, it MUST close the connection"
                // (RFC 1929 §2).
                [1, 0] => Ok(self.ask()),
                [1, _] => Err(SocksError::NotAllowed),
                _ => Err(SocksError::Malformed),
            },
            Waiting::Reply => self.on_reply(&message),
            Waiting::Bound(_) | Waiting::Nothing => {
                self.waiting = Waiting::Nothing;
                Ok(Next::Done)
            }
        }
    }

    fn on_method(&mut self, message: &[u8]) -> Result<Next, SocksError> {
        match (message, &self.login) {
            ([VERSION, NO_LOGIN], _) => Ok(self.ask()),
            ([VERSION, PASSWORD], Some((user, password))) => {
                let mut octets = vec![1];
                for text in [user, password] {
                    // Their length was looked at in the beginning.
                    octets.push(text.len() as u8);
                    octets.extend_from_slice(text.as_bytes());
                }
                self.waiting = Waiting::Login;
                Ok(Next::Send(octets))
            }
            ([VERSION, 0xff], _) => Err(SocksError::NoMethod),
            _ => Err(SocksError::Malformed),
        }
    }

    /// `CONNECT` (RFC 1928 §4).
    fn ask(&mut self) -> Next {
        let Some(target) = self.target else {
            self.waiting = Waiting::Nothing;
            return Next::Done;
        };
        let mut octets = vec![VERSION, 1, 0];
        match target.ip().to_canonical() {
            IpAddr::V4(v4) => {
                octets.push(1);
                octets.extend_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                octets.push(4);
                octets.extend_from_slice(&v6.octets());
            }
        }
        octets.extend_from_slice(&target.port().to_be_bytes());
        self.waiting = Waiting::Reply;
        Next::Send(octets)
    }

    fn on_reply(&mut self, message: &[u8]) -> Result<Next, SocksError> {
        let [VERSION, code, _, kind, first] = *message else { return Err(SocksError::Malformed) };
        if code != 0 {
            return Err(SocksError::Refused(Reason::of(code)));
        }
        // The address from which it connects, less the octet that is here, and the port.
        let rest = match kind {
            1 => 3 + 2,
            3 => usize::from(first) + 2,
            4 => 15 + 2,
            _ => return Err(SocksError::Malformed),
        };
        self.waiting = Waiting::Bound(rest);
        Ok(Next::Receive)
    }
}

impl Reason {
    const fn of(code: u8) -> Self {
        match code {
            1 => Self::General,
            2 => Self::Forbidden,
            3 => Self::NetworkUnreachable,
            4 => Self::HostUnreachable,
            5 => Self::ConnectionRefused,
            6 => Self::Expired,
            7 => Self::Command,
            8 => Self::AddressType,
            other => Self::Unknown(other),
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn target(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Gives what the proxy says in pieces of that length, and tells what was sent; what is left is the next hop's.
    fn talk(
        to: Option<&str>,
        login: Option<(&str, &str)>,
        said: &[u8],
        piece: usize,
    ) -> (Result<bool, SocksError>, Vec<Vec<u8>>, usize) {
        let (mut socks, greeting) = match to {
            Some(to) => Socks5::connect(target(to), login),
            None => Socks5::trial(login),
        };
        let (mut sent, mut rest) = (vec![greeting], said);
        loop {
            let len = socks.wanted().min(piece).min(rest.len());
            if len == 0 {
                return (Ok(false), sent, rest.len());
            }
            let (now, later) = rest.split_at(len);
            rest = later;
            match socks.on_received(now) {
                Ok(Next::Receive) => {}
                Ok(Next::Send(octets)) => sent.push(octets),
                Ok(Next::Done) => return (Ok(true), sent, rest.len()),
                Err(error) => return (Err(error), sent, rest.len()),
            }
        }
    }

    #[test]
    fn connections_are_asked_for_by_address() {
        let v4 = [5, 0, 5, 0, 0, 1, 192, 0, 2, 1, 4, 56];
        for piece in 1..=v4.len() {
            let (end, sent, left) =
                talk(Some("198.51.100.1:25"), None, &[&v4[..], b"220 hello\r\n"].concat(), piece);
            assert_eq!((end, left), (Ok(true), 11), "in pieces of {piece}");
            assert_eq!(sent, [vec![5, 1, 0], vec![5, 1, 0, 1, 198, 51, 100, 1, 0, 25]]);
        }
        let v6 = [&[5, 0, 5, 0, 0, 4][..], &[7; 18]].concat();
        let (end, sent, _) = talk(Some("[2001:db8::1]:587"), None, &v6, 100);
        assert_eq!((end, sent[1].len()), (Ok(true), 22));
        assert_eq!(sent[1][..6], [5, 1, 0, 4, 0x20, 1]);
        // A proxy may say by name where it connects from.
        let named = [&[5, 0, 5, 0, 0, 3, 5][..], b"proxy", &[0, 1]].concat();
        assert_eq!(talk(Some("198.51.100.1:25"), None, &named, 3).0, Ok(true));
        let shortest = [5, 0, 5, 0, 0, 3, 0, 0, 1];
        assert_eq!(talk(Some("198.51.100.1:25"), None, &shortest, 9).0, Ok(true));
        assert_eq!(talk(Some("198.51.100.1:25"), None, &v6[..20], 9).0, Ok(false));
    }

    #[test]
    fn a_password_is_shown_to_who_asks_for_it() {
        let login = Some(("ann", "hush"));
        let (end, sent, _) = talk(None, login, &[5, 2, 1, 0], 1);
        assert_eq!(end, Ok(true));
        assert_eq!(sent, [vec![5, 2, 0, 2], b"\x01\x03ann\x04hush".to_vec()]);
        assert_eq!(talk(None, login, &[5, 0], 2).1.len(), 1);
        assert_eq!(talk(None, login, &[5, 2, 1, 1], 2).0, Err(SocksError::NotAllowed));
        assert_eq!(talk(None, login, &[5, 0xff], 2).0, Err(SocksError::NoMethod));
        // Who was not offered a password has no right to ask for one.
        assert_eq!(talk(None, None, &[5, 2], 2).0, Err(SocksError::Malformed));
        let long = "x".repeat(256);
        assert_eq!(talk(None, Some((&long, "y")), &[5, 0], 2).1, [vec![5, 1, 0]]);
    }

    #[test]
    fn refusals_and_rubbish() {
        let refused = |code| talk(Some("198.51.100.1:25"), None, &[5, 0, 5, code, 0, 1, 0], 7).0.unwrap_err();
        for (code, reason) in [
            (1, Reason::General),
            (2, Reason::Forbidden),
            (3, Reason::NetworkUnreachable),
            (4, Reason::HostUnreachable),
            (5, Reason::ConnectionRefused),
            (6, Reason::Expired),
            (7, Reason::Command),
            (8, Reason::AddressType),
            (99, Reason::Unknown(99)),
        ] {
            assert_eq!(refused(code), SocksError::Refused(reason));
        }
        for said in [&b"HTTP/1.1 400"[..], &[4, 0], &[5, 1], &[5, 0, 4, 0, 0, 1, 0], &[5, 0, 5, 0, 0, 2, 0]] {
            assert_eq!(
                talk(Some("198.51.100.1:25"), None, said, 9).0,
                Err(SocksError::Malformed),
                "{said:?}"
            );
        }
    }
}
