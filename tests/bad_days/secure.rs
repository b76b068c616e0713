//! TLS that is none, and what somebody wrote into a connection before it was secure.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

#[expect(clippy::disallowed_types, reason = "a client of the server under test")]
use std::net::TcpStream;

use end_to_end::{Client, PATIENCE, Server, until};
use tls::{Authentication, Channel, Version, client_config};

use crate::unharmed;

const HOLD: &str = "[[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n";

/// A client that goes over to TLS when it is told to.
pub(crate) struct Secure {
    #[expect(clippy::disallowed_types, reason = "a client of the server under test")]
    stream: TcpStream,
    channel: Option<Channel>,
    received: Vec<u8>,
}

impl Secure {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        #[expect(clippy::disallowed_types, reason = "a client of the server under test")]
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, channel: None, received: Vec::new() }
    }

    /// Connects and shakes hands.
    pub(crate) fn implicit(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.shake_hands();
        client
    }

    /// As far as TLS on a listener that offers it; `behind` is sent together with STARTTLS.
    pub(crate) fn starttls(address: SocketAddr, behind: &str) -> Self {
        let mut client = Self::connect(address);
        client.replies(1);
        client.put(b"EHLO client.test\r\n");
        client.replies(1);
        client.put(format!("STARTTLS\r\n{behind}").as_bytes());
        assert_eq!(client.replies(1), [220]);
        client.shake_hands();
        client
    }

    fn shake_hands(&mut self) {
        let config = client_config(Authentication::Opportunistic, Version::Tls12, 1).unwrap();
        self.channel = Some(Channel::client(&config, "mx.ringpost.test").unwrap());
        while !self.channel.as_ref().unwrap().progress().handshake_done {
            self.flush();
            assert!(self.receive() > 0, "the server hung up on the handshake");
        }
        self.flush();
    }

    fn flush(&mut self) {
        let mut output = Vec::new();
        self.channel.as_mut().unwrap().take_output(&mut output);
        self.stream.write_all(&output).unwrap();
    }

    fn receive(&mut self) -> usize {
        let mut buffer = [0; 8192];
        let count = self.stream.read(&mut buffer).unwrap_or(0);
        match &mut self.channel {
            None => self.received.extend_from_slice(&buffer[..count]),
            Some(channel) => {
                let received = &mut self.received;
                channel.feed(&buffer[..count], &mut |bytes| received.extend_from_slice(bytes)).unwrap();
            }
        }
        count
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        match &mut self.channel {
            None => self.stream.write_all(bytes).unwrap(),
            Some(channel) => {
                channel.write(bytes).unwrap();
                self.flush();
            }
        }
    }

    /// The codes of the next replies.
    pub(crate) fn replies(&mut self, count: usize) -> Vec<u16> {
        let mut codes = Vec::new();
        while codes.len() < count {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                if line[3] != b'-' {
                    codes.push(std::str::from_utf8(&line[..3]).unwrap().parse().unwrap());
                }
            } else if self.receive() == 0 {
                break;
            }
        }
        codes
    }

    /// Everything the server still says.
    pub(crate) fn rest(&mut self) -> String {
        while self.receive() > 0 {}
        String::from_utf8(std::mem::take(&mut self.received)).unwrap()
    }

    /// The certificate that the server showed.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        self.channel.as_ref().unwrap().peer_certificates()[0].to_vec()
    }
}

#[test]
fn commands_behind_starttls_are_thrown_away() {
    let server = Server::start(HOLD);
    // Somebody between client and server puts them there; executed under TLS, they would be the client's own
    // (RFC 3207 §4.2).
    for injected in [
        "NOOP\r\n",
        "MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n",
        "EHLO evil.test\r\nRSET\r\nQUIT\r\n",
    ] {
        let mut client = Secure::starttls(server.smtp(), injected);
        // What the server knew of the client it has forgotten.
        client.put(b"MAIL FROM:<ann@example.org>\r\n");
        assert_eq!(client.replies(1), [503], "{injected:?}");
        client
            .put(b"EHLO client.test\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n");
        assert_eq!(client.replies(4), [250, 250, 250, 354], "{injected:?}");
        client.put(b"Subject: mine\r\n\r\nmine\r\n.\r\nQUIT\r\n");
        assert_eq!(client.replies(2), [250, 221], "{injected:?}");
        assert_eq!(client.rest(), "");
    }
    let listed = server.queue_json(&["list"]);
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|entry| entry["sender"] == "ann@example.org"), "{listed:?}");
}

#[test]
fn what_is_not_tls() {
    let server = Server::start(&format!("{HOLD}[timeouts.inbound]\nhandshake = \"1s\"\n"));
    let mut state = 7_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(50_000)
    .collect();
    // A record that says it is as long as can be, and a beginning that has no end.
    let long = [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 70_000]].concat();
    let half = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let alert = [0x15, 3, 1, 0, 2, 2, 40];
    let rubbish: [&[u8]; 7] =
        [b"EHLO client.test\r\nMAIL FROM:<a@example.org>\r\n", b"\0", &noise, &long, &half, &alert, b""];
    let mut failed = 0;
    for bytes in rubbish {
        for implicit in [true, false] {
            let mut client = if implicit {
                Client::connect(server.smtps())
            } else {
                let mut client = server.client();
                assert_eq!(client.ask("STARTTLS").code, 220);
                client
            };
            let _ = client.try_put(bytes);
            // An alert, perhaps; never a reply in clear.
            let said = client.rest();
            assert!(!said.contains("220") && !said.contains("250") && !said.contains("50"), "{said:?}");
            failed += 1;
        }
    }
    // A client that hangs up at once.
    drop(Client::connect(server.smtps()));
    until("every handshake has failed", || {
        let counted = server.metric("ringpost_tls_handshakes_total", &["side=\"in\"", "result=\"failed\""]);
        (counted >= f64::from(failed + 1)).then_some(())
    });
    until("no connection is left", || {
        (server.metric("ringpost_connections_open", &["side=\"in\""]) == 0.0).then_some(())
    });
    // And rubbish when TLS stands.
    let mut client = Secure::implicit(server.smtps());
    assert_eq!(client.replies(1), [220]);
    client.stream.write_all(&noise[..1000]).unwrap();
    client.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut sink = Vec::new();
    let _ = client.stream.read_to_end(&mut sink);
    unharmed(&server);
    let mut client = Secure::implicit(server.smtps());
    client.put(b"EHLO client.test\r\nQUIT\r\n");
    assert_eq!(client.replies(3), [220, 250, 221]);
}

/// Bad input is no better for being encrypted.
#[test]
fn rubbish_under_tls() {
    let server = Server::start(HOLD);
    let mut client = Secure::starttls(server.smtp(), "");
    client.put(b"EHLO x\r\nNOOP\0\r\nNOOP\nNOOP\r\nSTARTTLS\r\n");
    assert_eq!(client.replies(4), [250, 500, 500, 503]);
    client.put(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n");
    assert_eq!(client.replies(3), [250, 250, 354]);
    client.put(b"Subject: x\r\n\r\nx\n.\r\nNOOP\r\n.\r\n");
    assert_eq!(client.replies(1), [550]);
    // A megabyte is the most that is read of one line.
    for _ in 0..66 {
        client.put(&[b'a'; 16_384]);
    }
    assert_eq!(client.replies(1), [421]);
    assert_eq!(client.rest(), "");
    unharmed(&server);
}
