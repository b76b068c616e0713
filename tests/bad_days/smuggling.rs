//! A message behind a message: every false end of mail data, into the server, and out of it to a next hop that takes
//! them all for ends (RFC 5321 §4.1.1.4 knows only CRLF.CRLF).

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, mpsc},
    thread,
};

#[expect(clippy::disallowed_types, reason = "a next hop of the server under test")]
use std::net::TcpStream;

use end_to_end::{Client, PATIENCE, Server, Sink, free_address};

use crate::unharmed;

/// What some server somewhere takes for the end of a line.
const LINE_ENDS: [&str; 14] = [
    "\n", "\r", "\r\n", "\n\n", "\r\r", "\n\r", "\r\r\n", "\r\n\n", "\r\n\0", "\0\r\n", "\n\0", "\0\n",
    "\r\0\n", "\r\0",
];
const TRUE_END: &str = "\r\n.\r\n";
const HEADER: &str = "Subject: one\r\n\r\none";
const SMUGGLED: &str = "MAIL FROM:<ceo@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n\
                        Subject: smuggled\r\n\r\nmine\r\n";
const ENVELOPE: &[u8] = b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\n";

/// All pairs of line ends around a dot, with a NUL beside the dot too, but those that have a true end in them.
fn false_ends() -> impl Iterator<Item = String> {
    let pairs = LINE_ENDS.into_iter().flat_map(|before| LINE_ENDS.map(|after| (before, after)));
    let ends = pairs.flat_map(|(before, after)| {
        let dots: &[&str] =
            if format!("{before}{after}").contains('\0') { &["."] } else { &[".", "\0.", ".\0"] };
        dots.iter().map(move |dot| format!("{before}{dot}{after}"))
    });
    ends.filter(|end| !end.contains(TRUE_END))
}

#[track_caller]
fn begun(server: &Server) -> Client {
    let mut client = server.client();
    client.put(ENVELOPE);
    client.expect(250);
    client.expect(250);
    client
}

/// The refusal of the content, and not one reply more: nothing in it was taken for commands.
#[track_caller]
fn is_refused(client: &mut Client, end: &str) {
    let reply = client.reply();
    // A NUL is told of when the line ends are good.
    let words = ["5.6.11 bare CR or LF in message", "5.6.0 NUL in message"];
    assert!(reply.code == 550 && words.contains(&reply.text().as_str()), "{end:?}: {reply}");
    client.say("NOOP");
    assert_eq!(client.reply().text(), "2.0.0 ok", "{end:?}");
}

#[test]
fn no_false_end_gets_in() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    let mut count = 0;
    for end in false_ends() {
        let content = format!("{HEADER}{end}{SMUGGLED}");
        let mut client = begun(&server);
        client.say("DATA");
        client.expect(354);
        client.put(format!("{content}.\r\n").as_bytes());
        is_refused(&mut client, &end);
        client.put(ENVELOPE);
        client.expect(250);
        client.expect(250);
        client.put(format!("BDAT {} LAST\r\n{content}", content.len()).as_bytes());
        is_refused(&mut client, &end);
        // Cut where the dot is.
        let (head, tail) = content.split_at(content.find('.').unwrap());
        client.put(ENVELOPE);
        client.expect(250);
        client.expect(250);
        client.put(format!("BDAT {}\r\n{head}", head.len()).as_bytes());
        client.expect(250);
        client.put(format!("BDAT {} LAST\r\n{tail}", tail.len()).as_bytes());
        is_refused(&mut client, &end);
        count += 1;
    }
    assert!(count > 250, "{count}");
    let mut client = server.client();
    client.send("ann@example.org", &["bob@example.net"], "Subject: after\r\n\r\nafter\r\n");
    assert!(sink.mail().content.ends_with("\r\n\r\nafter\r\n"));
    assert_eq!(sink.waiting(), 0);
    unharmed(&server);
}

/// What comes in is without false ends, and no dot of it is an end on its way out.
#[test]
fn no_end_gets_out_to_who_takes_every_one() {
    let hop = LenientHop::start();
    let address = hop.address;
    let route = "[[route]]\nname = \"hop\"\ndomains = [\"*\"]\nvia = \"hop\"\n";
    let server = Server::start(&format!("{route}hosts = [\"{address}\"]\n"));
    let mut bodies = vec![
        format!("\r\n.\r\n{SMUGGLED}"),
        format!("\r\n..\r\n{SMUGGLED}"),
        format!("\r\n.\r\n.\r\n.\r\n{SMUGGLED}.\r\n"),
        format!("\r\n\r\n.\r\n\r\n{SMUGGLED}"),
        "\r\n.".to_owned(),
        "\r\n..".to_owned(),
        "\r\n.\r\n".to_owned(),
    ];
    // At and around the ends of buffers.
    for octets in [4096_usize, 8192, 16_384, 32_768] {
        bodies
            .extend((0..48).map(|less| format!("{}\r\n.\r\n{SMUGGLED}", "x".repeat(octets - 24 - 8 * less))));
    }
    let mut expected = Vec::new();
    let mut client = server.client();
    for (number, body) in bodies.iter().enumerate() {
        let content = format!("{HEADER}{body}");
        // A message that does not end in CRLF can come in chunks alone, and gets one.
        let whole = if content.ends_with("\r\n") { content.clone() } else { format!("{content}\r\n") };
        client.put(ENVELOPE);
        client.expect(250);
        client.expect(250);
        if number % 2 == 0 {
            // Cut where the dot is, on either side of it.
            let dot = content.find("\r\n.").unwrap() + 2;
            let (head, tail) = (&content[..dot], &content[dot + 1..]);
            client.put(format!("BDAT {}\r\n{head}BDAT 1\r\n.", head.len()).as_bytes());
            client.expect(250);
            client.expect(250);
            client.put(format!("BDAT {} LAST\r\n{tail}", tail.len()).as_bytes());
        } else if content.ends_with("\r\n") {
            client.say("DATA");
            client.expect(354);
            client.put(format!("{}.\r\n", content.replace("\r\n.", "\r\n..")).as_bytes());
        } else {
            client.put(format!("BDAT {} LAST\r\n{content}", content.len()).as_bytes());
        }
        assert!(client.expect(250).text().contains("queued as"));
        expected.push(whole);
    }
    let mut came: Vec<_> = expected.iter().map(|_| hop.mail()).collect();
    came.sort();
    expected.sort();
    for (came, expected) in came.iter().zip(&expected) {
        assert!(came == expected, "{:?} and not {:?}", tail(came), tail(expected));
    }
    // Not one command that is not ours.
    let commands = hop.commands.lock().unwrap();
    let ours = ["EHLO mx.ringpost.test", "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>", "DATA"];
    let others: Vec<_> = commands
        .iter()
        .filter(|line| !ours.contains(&line.as_str()) && *line != "QUIT" && *line != "RSET")
        .collect();
    assert!(others.is_empty(), "{others:?}");
    drop(commands);
    unharmed(&server);
}

/// The hop does take false ends for ends: otherwise the test above would show nothing.
#[test]
fn the_lenient_hop_is_lenient() {
    let hop = LenientHop::start();
    for end in false_ends() {
        let mut client = Client::connect(hop.address);
        client.expect(220);
        client.put(ENVELOPE);
        client.put(format!("DATA\r\n{HEADER}{end}").as_bytes());
        for code in [250, 250, 354, 250] {
            client.expect(code);
        }
        assert_eq!(hop.mail(), format!("{HEADER}\r\n"), "{end:?}");
    }
}

fn tail(text: &str) -> &str {
    &text[text.len().saturating_sub(200)..]
}

/// A next hop without CHUNKING that ends mail data at a dot with a CR or an LF before and behind it, and does not see
/// NULs: there is no false end that it does not take.
struct LenientHop {
    address: SocketAddr,
    mails: mpsc::Receiver<String>,
    commands: Arc<Mutex<Vec<String>>>,
}

impl LenientHop {
    fn start() -> Self {
        let address = free_address();
        let listener = TcpListener::bind(address).unwrap();
        let (sender, mails) = mpsc::channel();
        let commands = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&commands);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (sender, noted) = (sender.clone(), Arc::clone(&noted));
                thread::spawn(move || drop(serve(stream, &sender, &noted)));
            }
        });
        Self { address, mails, commands }
    }

    /// The next message from its subject on, dots of transparency removed, lines as they should be.
    fn mail(&self) -> String {
        self.mails.recv_timeout(PATIENCE).unwrap()
    }
}

#[expect(clippy::disallowed_types, reason = "a next hop of the server under test")]
fn serve(
    stream: TcpStream,
    mails: &mpsc::Sender<String>,
    commands: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"220 lenient.test\r\n")?;
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let line = String::from_utf8_lossy(&line).trim_matches(['\r', '\n', '\0']).to_owned();
        if line.is_empty() {
            continue;
        }
        commands.lock().unwrap().push(line.clone());
        if line == "DATA" {
            stream.get_mut().write_all(b"354 go on\r\n")?;
            let data = data(&mut stream)?;
            let text = String::from_utf8_lossy(&data).replace("\r\n..", "\r\n.");
            mails.send(text[text.find("Subject: one").unwrap_or(0)..].to_owned()).unwrap();
        }
        stream.get_mut().write_all(b"250 ok\r\n")?;
    }
}

/// Up to a dot on what anybody would call a line of its own; the line end before it is made CRLF.
fn data(stream: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut data = b"\r\n".to_vec();
    for byte in stream.by_ref().bytes() {
        let byte = byte?;
        // Not seen.
        if byte == 0 {
            continue;
        }
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        if is_end(&byte) && matches!(&data[..], [.., before, b'.'] if is_end(before)) {
            data.pop();
            while data.last().is_some_and(is_end) {
                data.pop();
            }
            data.extend(b"\r\n");
            break;
        }
        data.push(byte);
    }
    Ok(data)
}
