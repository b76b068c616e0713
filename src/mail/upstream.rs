//! Where a message was from when another host of ours took it, as that host says with XFORWARD.

use std::{fmt, net::IpAddr};

/// The client that a message first came from: for logs, and to be handed on. Nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// The name of its address.
    pub name: Option<Box<str>>,
    /// Its address. Without one, the message began at the host that says so.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
    /// The protocol it spoke: `ESMTP`, or one that is not SMTP at all.
    pub protocol: Option<Box<str>>,
    /// How it called itself.
    pub helo: Option<Box<str>>,
    /// The id that the message had there.
    pub ident: Option<Box<str>>,
    /// Whether it was near to that host.
    pub source: Option<Source>,
}

/// Whether a message is from where it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From that host itself, or from what counts as its own.
    Local,
    /// From elsewhere.
    Remote,
}

/// As the log shows a client of another host: name, address in brackets, port.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamClient<'a> {
    name: &'a str,
    address: IpAddr,
    port: Option<u16>,
}

impl Upstream {
    /// The client; `None` when the message began at the host that told of it.
    pub fn client(&self) -> Option<UpstreamClient<'_>> {
        let address = self.address?;
        Some(UpstreamClient { name: self.name.as_deref().unwrap_or("unknown"), address, port: self.port })
    }
}

impl fmt::Display for UpstreamClient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.name, self.address)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_client_is_shown_by_name_and_address() {
        let check = |name: Option<&str>, address: Option<&str>, port, expected: Option<&str>| {
            let address = address.map(|address| address.parse().unwrap());
            let upstream = Upstream { name: name.map(Into::into), address, port, ..Upstream::default() };
            assert_eq!(upstream.client().map(|client| client.to_string()).as_deref(), expected);
        };
        check(Some("c.example"), Some("192.0.2.7"), Some(25), Some("c.example[192.0.2.7]:25"));
        check(None, Some("2001:db8::7"), None, Some("unknown[2001:db8::7]"));
        check(Some("localhost"), None, Some(25), None);
    }
}
