//! Mail data that is not what it should be: ends that are none, NULs, too much of it, chunks in the wrong place.

use end_to_end::{Client, Server, Sink};

use crate::unharmed;

const HOLD: &str = "[[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n";

/// As far as DATA's 354.
#[track_caller]
fn data(server: &Server) -> Client {
    let mut client = server.client();
    client.put(b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n");
    let codes = [client.reply().code, client.reply().code, client.reply().code];
    assert_eq!(codes, [250, 250, 354]);
    client
}

/// What some server somewhere takes for the end of a message (RFC 5321 §4.1.1.4 knows only CRLF.CRLF).
const FALSE_ENDS: [&[u8]; 12] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n.\r\r\n",
    b"\n\n.\n\n",
    b"\r\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\n.\r",
];
const SMUGGLED: &[u8] =
    b"MAIL FROM:<ceo@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: smuggled\r\n\r\nmine\r\n";

#[test]
fn nothing_is_smuggled_in() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    for end in FALSE_ENDS {
        let mut client = data(&server);
        client.put(&[b"Subject: one\r\n\r\none", end, SMUGGLED, b".\r\n"].concat());
        let reply = client.reply();
        let nul = end.contains(&0);
        let words = if nul { "5.6.0 NUL in message" } else { "5.6.11 bare CR or LF in message" };
        assert_eq!((reply.code, reply.text().as_str()), (550, words), "{}", end.escape_ascii());
        // Not one reply more: nothing of it was taken for commands.
        assert_eq!(client.ask("NOOP").code, 250, "{}", end.escape_ascii());
        client.send("ann@example.org", &["bob@example.net"], "Subject: after\r\n\r\nafter\r\n");
        assert!(sink.mail().content.ends_with("\r\n\r\nafter\r\n"), "{}", end.escape_ascii());
    }
    assert_eq!(sink.waiting(), 0);
    unharmed(&server);
}

/// One byte at a time, so that every boundary of the network falls between any two of them.
#[test]
fn nothing_is_smuggled_in_byte_by_byte() {
    let server = Server::start(HOLD);
    for end in FALSE_ENDS {
        let mut client = data(&server);
        for byte in [b"Subject: one\r\n\r\none", end, b"NOOP\r\n.\r\n"].concat() {
            client.put(&[byte]);
        }
        assert_eq!(client.expect(550).lines.len(), 1);
        client.ask("NOOP");
    }
    let mut client = data(&server);
    for byte in b"Subject: one\r\n\r\n..\r\n.one\r\n.\r\n" {
        client.put(&[*byte]);
    }
    client.expect(250);
}

/// Where bare line ends are let through, they still end nothing: one message, octet for octet.
#[test]
fn what_is_tolerated_is_content() {
    let sink = Sink::start();
    let tolerant = "[[listener]]\nname = \"smtp\"\nbare-line-ends = \"accept\"\nnul-bytes = \"accept\"\n";
    let server = Server::start(&format!("{}{tolerant}", sink.route()));
    for end in FALSE_ENDS {
        let mut client = data(&server);
        client.put(&[b"Subject: one\r\n\r\none", end, SMUGGLED, b".\r\n"].concat());
        client.expect(250);
        client.ask("NOOP");
        let content = sink.mail().content;
        // A dot at the beginning of a line was there to be taken away (RFC 5321 §4.5.2).
        let unstuffed = String::from_utf8(end.to_vec()).unwrap().replace("\r\n.", "\r\n");
        let rest = String::from_utf8([b"\r\n\r\none", unstuffed.as_bytes(), SMUGGLED].concat()).unwrap();
        assert!(content.ends_with(&rest), "{}: {content:?}", end.escape_ascii());
    }
    assert_eq!(sink.waiting(), 0);
}

#[test]
fn nuls_and_bare_line_ends_in_chunks() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    for (content, code) in [
        (&b"Subject: x\r\n\r\na\0b\r\n"[..], 550),
        (b"Subject: x\r\n\r\na\nb\r\n", 550),
        (b"Subject: x\r\n\r\na\rb\r\n", 550),
        (b"Subject: x\r\n\r\n.\r\n", 250),
        (b"Subject: x\r\n\r\na\r\n.\r\nb\r\n", 250),
    ] {
        let mut client = server.client();
        client.put(b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\n");
        client.put(&[format!("BDAT {} LAST\r\n", content.len()).as_bytes(), content].concat());
        client.expect(250);
        client.expect(250);
        let reply = client.reply();
        assert_eq!(reply.code, code, "{}: {reply}", content.escape_ascii());
        if code == 250 {
            assert!(sink.mail().content.as_bytes().ends_with(&content[10..]), "{}", content.escape_ascii());
        }
        client.ask("NOOP");
    }
    assert_eq!(sink.waiting(), 0);
}

#[test]
fn too_large() {
    let server = Server::start(&format!(
        "{HOLD}[limits]\nmessage-size-max = \"64KiB\"\nheader-size-max = \"16KiB\"\n"
    ));
    let mut client = server.client();
    let large = format!("Subject: x\r\n\r\n{}", "0123456789abcdef0123456789abcd\r\n".repeat(4096));
    // Told before.
    assert_eq!(client.ask("MAIL FROM:<ann@example.org> SIZE=65537").code, 552);
    assert_eq!(client.ask("RCPT TO:<bob@example.net>").code, 503, "there is no transaction");
    // Found out.
    client.ask("MAIL FROM:<ann@example.org> SIZE=1000");
    client.ask("RCPT TO:<bob@example.net>");
    assert_eq!(client.ask("DATA").code, 354);
    client.put(large.as_bytes());
    assert_eq!(client.ask(".").text(), "5.3.4 message too big");
    // In chunks: at the first that is too much.
    client.ask("MAIL FROM:<ann@example.org>");
    client.ask("RCPT TO:<bob@example.net>");
    client.put(&[b"BDAT 40000\r\n", &large.as_bytes()[..40_000]].concat());
    client.expect(250);
    client.put(&[b"BDAT 40000 LAST\r\n", &large.as_bytes()[..40_000]].concat());
    client.expect(552);
    // The connection is as good as before.
    client.send("ann@example.org", &["bob@example.net"], "Subject: x\r\n\r\nx\r\n");
    // Just what is allowed, trace fields of ours not counted.
    let content = format!("Subject: x\r\n\r\n{}\r\n", "x".repeat(65_536 - 16));
    client.send("ann@example.org", &["bob@example.net"], &content);
    assert_eq!(server.queue_json(&["list"]).len(), 2);
}

#[test]
fn too_many_recipients() {
    let sink = Sink::start();
    let server = Server::start(&format!("{}[limits]\nrecipients-max = 100\n", sink.route()));
    let mut client = server.client();
    client.ask("MAIL FROM:<ann@example.org>");
    for number in 0..105 {
        let reply = client.ask(&format!("RCPT TO:<r{number}@example.net>"));
        let expected = if number < 100 { 250 } else { 452 };
        assert_eq!(reply.code, expected, "{number}: {reply}");
    }
    // Those that were accepted get it.
    assert_eq!(client.ask("DATA").code, 354);
    client.put(b"Subject: x\r\n\r\nx\r\n");
    assert_eq!(client.ask(".").code, 250);
    assert_eq!(sink.mail().rcpt.len(), 100);
    client.send("ann@example.org", &["r101@example.net"], "Subject: x\r\n\r\nx\r\n");
    assert_eq!(sink.mail().rcpt.len(), 1);
}

#[test]
fn chunks_in_the_wrong_place() {
    const TRANSACTION: &str = "MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\n";
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    // What is sent after EHLO, and the replies to it.
    let cases: &[(&str, &[u16])] = &[
        // A chunk is swallowed even where it is refused: what is in it is never a command (RFC 3030 §2).
        ("BDAT 12 LAST\r\nQUIT\r\nQUIT\r\nNOOP\r\n", &[503, 250]),
        ("MAIL FROM:<ann@example.org>\r\nBDAT 6\r\nQUIT\r\nNOOP\r\n", &[250, 503, 250]),
        ("{T}BDAT 6\r\nQUIT\r\nDATA\r\nRSET\r\n", &[250, 250, 250, 503, 250]),
        (
            "{T}BDAT 6\r\nQUIT\r\nMAIL FROM:<x@example.org>\r\nRCPT TO:<y@example.org>\r\nRSET\r\n",
            &[250, 250, 250, 503, 503, 250],
        ),
        ("{T}BDAT 0\r\nBDAT 0\r\nRSET\r\nNOOP\r\n", &[250, 250, 250, 250, 250, 250]),
        // A failed chunk fails those behind it, until RSET.
        ("BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", &[503, 503, 250]),
        // No number at all: nobody knows where the chunk ends, so what follows could be anything. Hung up.
        ("{T}BDAT -1 LAST\r\nNOOP\r\n", &[250, 250, 501]),
        ("{T}BDAT x\r\nNOOP\r\n", &[250, 250, 501]),
        ("{T}BDAT\r\nNOOP\r\n", &[250, 250, 501]),
        ("{T}BDAT 5 FIRST\r\nNOOP\r\n", &[250, 250, 501]),
        ("{T}BDAT 99999999999999999999999 LAST\r\nNOOP\r\n", &[250, 250, 501]),
        // EHLO ends a transaction with its chunks (RFC 5321 §4.1.4).
        ("{T}BDAT 6\r\nQUIT\r\nEHLO x\r\nBDAT 0 LAST\r\nNOOP\r\n", &[250, 250, 250, 250, 503, 250]),
    ];
    for (commands, codes) in cases {
        let mut client = server.client();
        client.put(commands.replace("{T}", TRANSACTION).as_bytes());
        for (place, code) in codes.iter().enumerate() {
            let Some(reply) = client.try_reply() else { panic!("{commands:?}: closed before reply {place}") };
            assert_eq!(reply.code, *code, "{commands:?}, reply {place}: {reply}");
        }
        if codes.last() != Some(&501) {
            client.say("QUIT");
            client.expect(221);
        }
        assert_eq!(client.try_reply(), None, "{commands:?}");
    }
    assert_eq!(sink.waiting(), 0);
    // More than is worth reading: the server hangs up instead.
    let mut client = server.client();
    client.put(TRANSACTION.as_bytes());
    client.expect(250);
    client.expect(250);
    client.say("BDAT 9999999999 LAST");
    let reply = client.reply();
    assert!([421, 552].contains(&reply.code), "{reply}");
    assert_eq!(client.try_reply(), None);
    // And then one in pieces of every size.
    let mut client = server.client();
    client.put(TRANSACTION.as_bytes());
    let content = format!("Subject: x\r\n\r\n{}", "a line of some length\r\n".repeat(500));
    let (mut rest, mut size) = (content.as_bytes(), 1);
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(size.min(rest.len()));
        client.put(&[format!("BDAT {}\r\n", chunk.len()).as_bytes(), chunk].concat());
        (rest, size) = (behind, size * 2 - 1 + size % 2);
    }
    client.say("BDAT 0 LAST");
    let replies: Vec<_> =
        std::iter::repeat_with(|| client.reply()).take_while(|r| !r.text().contains("queued as")).collect();
    assert!(replies.iter().all(|reply| reply.code == 250), "{replies:?}");
    assert!(sink.mail().content.ends_with(&content[10..]));
    unharmed(&server);
}

#[test]
fn header_sections_that_are_none() {
    let sink = Sink::start();
    let server = Server::start(&format!("{}[limits]\nheader-size-max = \"16KiB\"\n", sink.route()));
    let loops = "Received: from a by b; Thu, 1 Jan 2026 00:00:00 +0000\r\n".repeat(101);
    let cases = [
        ("no header field at all\r\n".to_owned(), 250),
        ("\r\n".to_owned(), 250),
        (String::new(), 250),
        (":\r\n\r\nx\r\n".to_owned(), 250),
        (format!("X: {}\r\n\r\nx\r\n", "a".repeat(17_000)), 550),
        (format!("{loops}\r\nx\r\n"), 554),
    ];
    for (content, code) in cases {
        let mut client = data(&server);
        client.put(content.as_bytes());
        let reply = client.ask(".");
        assert_eq!(reply.code, code, "{:.60}: {reply}", content);
        if code == 250 {
            sink.mail();
        }
        client.ask("NOOP");
    }
    assert_eq!(sink.waiting(), 0);
    unharmed(&server);
}
