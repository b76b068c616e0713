//! Commands that no common client sends, spoken by hand.

use end_to_end::{Client, Server, Sink};

#[test]
fn side_commands() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    let mut client = Client::connect(server.smtp());
    assert!(client.expect(220).lines[0].starts_with("mx.ringpost.test ESMTP"));
    let offered = client.ask("EHLO client.test");
    assert_eq!(offered.code, 250);
    for extension in
        ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING", "SMTPUTF8", "STARTTLS", "SIZE 52428800"]
    {
        assert!(offered.lines.iter().any(|line| line == extension), "{extension}: {offered}");
    }
    for (command, code, text) in [
        ("NOOP", 250, "2.0.0"),
        ("noop with words", 250, "2.0.0"),
        ("HELP", 214, "RCPT"),
        ("VRFY bob", 252, "2.0.0"),
        ("EXPN staff", 502, "5.5.1"),
        ("TURN", 502, "5.5.1"),
        ("XYZZY", 500, "5.5.1"),
        ("", 500, "5.5.1"),
        ("DATA", 503, "5.5.1"),
        ("RCPT TO:<bob@example.net>", 503, "5.5.1"),
        ("MAIL FROM:ann@example.org", 501, "5.1.7"),
        ("MAIL FROM:<ann@example.org> SIZE=99999999999", 552, "5.3.4"),
        ("MAIL FROM:<ann@example.org> COLOUR=red", 555, "5.5.4"),
        // Not offered, so not taken (RFC 5321 §4.1.1.11).
        ("MAIL FROM:<ann@example.org> AUTH=<>", 555, "5.5.4"),
        ("RSET", 250, "2.0.0"),
        ("MAIL FROM:<ann@example.org> BODY=8BITMIME SIZE=1000", 250, "2.1.0"),
        ("MAIL FROM:<ann@example.org>", 503, "5.5.1"),
        ("VRFY bob", 252, "2.0.0"),
        // The one address without a domain (RFC 5321 §4.5.1).
        ("RCPT TO:<Postmaster>", 250, "2.1.5"),
        ("RCPT TO:<bob@example.net>", 250, "2.1.5"),
        ("RCPT TO:<@relay.test:bob@example.net>", 250, "2.1.5"),
        ("RSET", 250, "2.0.0"),
        ("DATA", 503, "5.5.1"),
        ("QUIT", 221, "2.0.0"),
    ] {
        let reply = client.ask(command);
        assert_eq!(reply.code, code, "{command}: {reply}");
        assert!(reply.text().contains(text), "{command}: {reply}");
    }
    assert_eq!(client.try_reply(), None, "after QUIT the connection is closed");
    assert_eq!(sink.commands().len(), 0);
}

#[test]
fn chunks() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    let mut client = server.client();
    // Commands, chunks and the next message in one go (RFC 2920, RFC 3030). A dot means nothing in a chunk.
    let first = "Subject: chunks\r\n\r\n.\r\n";
    let second = "..\r\nlast\r\n";
    let envelope = "MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\n";
    let message = format!(
        "{envelope}BDAT {}\r\n{first}BDAT {}\r\n{second}BDAT 0 LAST\r\n{envelope}BDAT {} LAST\r\n{first}",
        first.len(),
        second.len(),
        first.len()
    );
    client.put(message.as_bytes());
    for code in [250, 250, 250, 250, 250, 250, 250, 250] {
        client.expect(code);
    }
    let contents = [sink.mail(), sink.mail()].map(|mail| mail.content);
    assert!(contents.iter().any(|content| content.ends_with("\r\n\r\n.\r\n..\r\nlast\r\n")), "{contents:?}");
    assert!(contents.iter().any(|content| content.ends_with("\r\n\r\n.\r\n")), "{contents:?}");
    // DATA in the midst of chunks, and chunks without a recipient.
    client.put(format!("{envelope}BDAT 3\r\nabcDATA\r\nRSET\r\nBDAT 3 LAST\r\nabcNOOP\r\n").as_bytes());
    for code in [250, 250, 250, 503, 250, 503, 250] {
        client.expect(code);
    }
}

/// The content of a message is not commands, whatever it ends its lines with (RFC 5321 §2.3.8, §4.1.1.4).
#[test]
fn nothing_is_smuggled_by_line_ends() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    for end in ["\n.\n", "\r.\r", "\n.\r\n", "\r\n.\n", "\r\n.\r", "\r\n\0.\r\n"] {
        let mut client = server.client();
        client.put(b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n");
        for code in [250, 250, 354] {
            client.expect(code);
        }
        client.put(
            format!(
                "Subject: outer\r\n\r\nouter{end}MAIL FROM:<mallory@example.org>\r\nRCPT TO:<bob@example.net>\r\n\
                 DATA\r\nSubject: inner\r\n\r\ninner\r\n.\r\nQUIT\r\n"
            )
            .as_bytes(),
        );
        let rest = client.rest();
        let codes: Vec<_> = rest.lines().map(|line| &line[..3]).collect();
        assert_eq!(codes, ["550", "221"], "{end:?}: {rest}");
    }
    assert_eq!(sink.waiting(), 0);
}
