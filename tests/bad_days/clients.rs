//! Clients that mean ill, or do not know what they do: the session bears it, and others do not notice.

use std::thread;

use end_to_end::{Client, Server, Sink, until};

use crate::{given_back, memory, sockets, unharmed};

const HOLD: &str = "[[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n";

/// What a server may grow by under a client that sends without end. It held all that was sent, it would be far more.
const GROWTH_MAX: u64 = 24 << 20;
const HUNDRED_MEGABYTES: usize = 100 << 20;

/// Sends so many octets without a line end; the server may hang up meanwhile.
fn flood(client: &mut Client, octets: usize) {
    let block = vec![b'a'; 1 << 20];
    for _ in 0..octets >> 20 {
        if client.try_put(&block).is_err() {
            return;
        }
    }
}

#[track_caller]
fn one_mail(client: &mut Client) {
    client.send(
        "ann@example.org",
        &["bob@example.net"],
        "From: ann@example.org\r\nSubject: one\r\n\r\none\r\n",
    );
}

#[track_caller]
fn nobody_is_left(server: &Server) {
    until("no connection is left", || {
        (server.metric("ringpost_connections_open", &["side=\"in\""]) == 0.0).then_some(())
    });
}

#[test]
fn a_line_of_100_megabytes() {
    let server = Server::start(&format!("{HOLD}[limits]\nmessage-size-max = \"64MiB\"\n"));
    let pid = server.program().pid();
    one_mail(&mut server.client());
    let before = memory(pid, "VmHWM");
    for begin in ["", "NOOP ", "MAIL FROM:<"] {
        let mut client = server.client();
        client.put(begin.as_bytes());
        flood(&mut client, HUNDRED_MEGABYTES);
        assert_eq!(client.expect(421).lines, ["4.5.2 line does not end, closing"], "{begin}");
        assert_eq!(client.try_reply(), None, "{begin}");
    }
    // As a line of mail data it is over the limit of a message only at its end: then that is said, and no more.
    let mut client = server.client();
    client.ask("MAIL FROM:<ann@example.org>");
    client.ask("RCPT TO:<bob@example.net>");
    client.say("DATA");
    client.expect(354);
    flood(&mut client, HUNDRED_MEGABYTES);
    client.put(b"\r\n.\r\n");
    client.expect(552);
    one_mail(&mut client);
    let grown = memory(pid, "VmHWM").saturating_sub(before);
    eprintln!("lines of 100 MB made the server grow by {} KiB at most", grown >> 10);
    assert!(grown < GROWTH_MAX, "grew by {grown}");
    assert_eq!(server.queue_json(&["list"]).len(), 2);
}

/// A line somewhat too long is refused, and the next one is a command again.
#[test]
fn a_line_too_long() {
    let server = Server::start(HOLD);
    let mut client = server.client();
    for length in [4096, 5000, 8000] {
        assert_eq!(client.ask(&format!("NOOP {}", "x".repeat(length))).code, 500, "{length}");
        client.ask("NOOP");
    }
    one_mail(&mut client);
}

#[test]
fn a_hundred_thousand_rsets() {
    const RSETS: usize = 100_000;
    // On one core: each needs memory of its own for its first message.
    let more = "[cores]\ncount = 1\n[[listener]]\nname = \"submission\"\n[listener.limits]\ncommands-max = 1000000\n";
    let server = Server::start(&format!("{HOLD}{more}"));
    let pid = server.program().pid();
    // Who goes on for ever without a message is dismissed: after 10,000 commands, EHLO among them, by default.
    let mut client = server.client();
    let mut taken = 0;
    'flood: loop {
        if client.try_put(&b"RSET\r\n".repeat(1000)).is_err() {
            break;
        }
        for _ in 0..1000 {
            match client.try_reply() {
                Some(reply) if reply.code == 250 => taken += 1,
                Some(reply) => {
                    assert_eq!((reply.code, taken), (421, 9_999), "{reply}");
                    break 'flood;
                }
                None => panic!("hung up without a word after {taken}"),
            }
        }
    }
    // Where that is allowed, it goes on, and costs nothing. What the first message needs is not held against it.
    one_mail(&mut Client::greeted(server.submission()));
    let before = memory(pid, "VmHWM");
    let mut client = Client::greeted(server.submission());
    for _ in 0..RSETS / 1000 {
        client.put(&b"RSET\r\n".repeat(1000));
        for _ in 0..1000 {
            client.expect(250);
        }
    }
    one_mail(&mut client);
    let grown = memory(pid, "VmHWM").saturating_sub(before);
    assert!(grown < 4 << 20, "grew by {grown}");
}

#[test]
fn rubbish_in_commands() {
    let server = Server::start(HOLD);
    // What is one line gets one reply, whatever is in it: no byte but CRLF ends a line (RFC 5321 §2.3.8).
    let cases: &[(&[u8], u16)] = &[
        (b"NOOP\0\r\n", 500),
        (b"\0\r\n", 500),
        (b"\0\0\0\0QUIT\r\n", 500),
        (b"NOOP\nNOOP\r\n", 500),
        (b"NOOP\rNOOP\r\n", 500),
        (b"RSET\nMAIL FROM:<evil@example.org>\r\n", 500),
        (b"\n\n\n\nNOOP\r\n", 500),
        (b"\r\r\n", 500),
        (b"MAIL FROM:<a\0@example.org>\r\n", 500),
        (b"MAIL FROM:<a@example.org>\0\r\n", 500),
        (b"MAIL FROM:<a@example.org>\nRCPT TO:<b@example.net>\r\n", 500),
        (b"\xff\xfe\xfd\r\n", 500),
        (b"\r\n", 500),
        (b" NOOP\r\n", 500),
        (b"MAIL\r\n", 501),
        (b"MAIL FROM\r\n", 501),
        (b"MAIL FROM:<<>>\r\n", 501),
        (b"MAIL FROM:<a@example.org> SIZE=99999999999999999999\r\n", 552),
        (b"MAIL FROM:<a@example.org> SIZE=-1\r\n", 501),
        (b"RCPT TO:<b@example.net>\r\n", 503),
    ];
    for (line, code) in cases {
        let mut client = server.client();
        client.put(line);
        let reply = client.reply();
        assert_eq!(reply.code, *code, "{}: {reply}", line.escape_ascii());
        assert_eq!(client.ask("NOOP").code, 250, "{}", line.escape_ascii());
        one_mail(&mut client);
    }
    assert_eq!(server.queue_json(&["list", "--limit", "0"]).len(), cases.len());
}

#[test]
fn pipelined_rubbish() {
    let server = Server::start(HOLD);
    // A few mistakes in one go: one reply each, in order, and what was right among them counts.
    let mut client = server.client();
    client.put(
        b"FROB\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<@>\r\nRCPT TO:<b@example.net>\r\nDATA DATA\r\nDATA\r\n",
    );
    let codes: Vec<_> = (0..6).map(|_| client.reply().code).collect();
    assert_eq!(codes, [500, 250, 501, 250, 501, 354]);
    client.put(b"Subject: x\r\n\r\nx\r\n.\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nQUIT\r\n");
    let codes: Vec<_> = (0..5).map(|_| client.reply().code).collect();
    assert_eq!(codes, [250, 500, 500, 500, 221]);
    assert_eq!(client.try_reply(), None);

    // Too many: dismissed, and what else was sent is not looked at.
    let mut client = server.client();
    let _ = client.try_put(&b"FROB\r\n".repeat(50_000));
    let codes: Vec<_> = std::iter::from_fn(|| client.try_reply()).map(|reply| reply.code).collect();
    assert_eq!(codes.last(), Some(&421), "{codes:?}");
    assert!((20..=22).contains(&codes.len()), "{codes:?}");

    // Bytes without sense.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..20 {
        let mut client = Client::connect(server.smtp());
        client.expect(220);
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(20_000)
        .collect();
        let _ = client.try_put(&noise);
        client.shut_write();
        let said = client.rest();
        assert!(said.lines().all(|line| line.starts_with(['4', '5'])), "{said}");
    }
    unharmed(&server);
    assert_eq!(server.queue_json(&["list"]).len(), 1);
}

#[test]
fn half_closed_connections() {
    let sink = Sink::start();
    let server = Server::start(&sink.route());
    let transaction = "EHLO client.test\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\n";

    // All in one go, and the client is done with talking: it gets every reply, and the mail is taken.
    for (end, codes) in [("QUIT\r\n", &[221][..]), ("", &[])] {
        let mut client = Client::connect(server.smtp());
        client.put(format!("{transaction}DATA\r\nSubject: half\r\n\r\nhalf\r\n.\r\n{end}").as_bytes());
        client.shut_write();
        let replies: Vec<_> = std::iter::from_fn(|| client.try_reply()).map(|reply| reply.code).collect();
        assert_eq!(replies, [&[220, 250, 250, 250, 354, 250], codes].concat());
        assert!(sink.mail().content.ends_with("\r\n\r\nhalf\r\n"));
    }

    // In the midst of a message: there is none, and the connection ends.
    for rest in
        ["DATA\r\nSubject: cut\r\n\r\ncut", "DATA\r\nSubject: cut\r\n\r\ncut\r\n.", "BDAT 100 LAST\r\ncut"]
    {
        let mut client = Client::connect(server.smtp());
        client.put(format!("{transaction}{rest}").as_bytes());
        client.shut_write();
        let replies: Vec<_> = std::iter::from_fn(|| client.try_reply()).map(|reply| reply.code).collect();
        assert!(replies.starts_with(&[220, 250, 250, 250]), "{replies:?}");
        assert!(!replies[4..].contains(&250), "{replies:?}");
    }
    // Half of a large message, of which parts are on disk already.
    let mut client = server.client();
    client.put(b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\nSubject: cut\r\n\r\n");
    client.put(&b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(100_000));
    client.shut_write();
    client.rest();
    nobody_is_left(&server);
    one_mail(&mut server.client());
    assert!(sink.mail().content.ends_with("\r\n\r\none\r\n"), "nothing but that came");
    assert_eq!(sink.waiting(), 0);
}

/// Connects and goes away, at every point of a transaction, with and without a reset.
#[test]
fn clients_that_vanish() {
    let server = Server::start(HOLD);
    let whole = b"EHLO client.test\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nBDAT 12 LAST\r\nSubject: x\r\n";
    let pid = server.program().pid();
    let before = sockets(pid);
    one_mail(&mut server.client());
    for length in 0..whole.len() {
        let mut client = Client::connect(server.smtp());
        client.put(&whole[..length]);
        // Dropped with its greeting unread: the kernel sends a reset.
    }
    for length in 0..whole.len() {
        let mut client = Client::connect(server.smtp());
        client.put(&whole[..length]);
        // Dropped with nothing unread and no reset: the server has hung up first.
        client.shut_write();
        client.rest();
    }
    given_back(pid, &before);
    unharmed(&server);
    assert_eq!(server.queue_json(&["list"]).len(), 1);
}

#[test]
fn two_thousand_idle_connections() {
    const CONNECTIONS: usize = 2000;
    // Debug builds have larger futures than those that serve.
    const EACH_MAX: u64 = if cfg!(debug_assertions) { 16 << 10 } else { 4 << 10 };
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let server = Server::start(HOLD);
    let pid = server.program().pid();
    let idle = sockets(pid);
    // What is made once is made, on both cores: segments of the journal are opened with the first mail.
    let mut warm: Vec<_> = (0..50).map(|_| server.client()).collect();
    warm.iter_mut().for_each(one_mail);
    drop(warm);
    given_back(pid, &idle);
    let before = memory(pid, "Pss");
    let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| server.client()).collect();
    assert!(sockets(pid).len() >= idle.len() + CONNECTIONS);
    let grown = memory(pid, "Pss").saturating_sub(before);
    let each = grown / CONNECTIONS as u64;
    eprintln!("an idle connection costs {each} bytes ({} KiB for {CONNECTIONS})", grown >> 10);
    assert!(each <= EACH_MAX, "{each} bytes");
    // They are alive, and the server has time for others.
    for client in clients.iter_mut().step_by(100) {
        one_mail(client);
    }
    drop(clients);
    given_back(pid, &idle);
    nobody_is_left(&server);
}

#[test]
fn many_clients_that_do_all_of_it_at_once() {
    let server = Server::start(HOLD);
    thread::scope(|scope| {
        for number in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..5 {
                    let mut client = server.client();
                    match (number + round) % 4 {
                        0 => one_mail(&mut client),
                        1 => flood(&mut client, 8 << 20),
                        2 => drop(client.try_put(&b"FROB\r\n".repeat(1000))),
                        _ => client.shut_write(),
                    }
                }
            });
        }
    });
    assert_eq!(server.queue_json(&["list"]).len(), 10);
    unharmed(&server);
}
