//! Thousands of handshakes that do not go on: nobody else waits for them, and in time they are gone.

use end_to_end::{Client, Server, Sink, until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tls::{Authentication, Channel, Version, client_config};

use crate::{given_back, secure::Secure, sockets, unharmed};

const FLOOD: usize = 2000;
/// Messages in clear, and as many under TLS.
const MAIL: usize = 20;

/// Each stops in the middle of the first message, on one kind of listener or the other.
fn flood(server: &Server) -> Vec<Client> {
    let config = client_config(Authentication::Opportunistic, Version::Tls12, 1).unwrap();
    let begin = |number: usize| {
        let mut hello = Vec::new();
        Channel::client(&config, "mx.ringpost.test").unwrap().take_output(&mut hello);
        let mut client = if number.is_multiple_of(2) {
            Client::connect(server.smtps())
        } else {
            let mut client = server.client();
            assert_eq!(client.ask("STARTTLS").code, 220);
            client
        };
        client.put(&hello[..hello.len() / 2]);
        client
    };
    (0..FLOOD).map(begin).collect()
}

/// Mail on connections that were there before, on new ones in clear, and after new handshakes: all of it goes through.
fn mail(server: &Server, early: &mut Client, sink: &Sink) {
    const CONTENT: &str = "Subject: through\r\n\r\nthrough\r\n";
    for number in 0..MAIL {
        if number.is_multiple_of(2) {
            early.send("ann@example.org", &["bob@example.net"], CONTENT);
        } else {
            server.client().send("ann@example.org", &["bob@example.net"], CONTENT);
        }
        let mut secure = Secure::starttls(server.smtp(), "");
        secure
            .put(b"EHLO client.test\r\nMAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n");
        assert_eq!(secure.replies(4), [250, 250, 250, 354]);
        secure.put(format!("{CONTENT}.\r\nQUIT\r\n").as_bytes());
        assert_eq!(secure.replies(2), [250, 221]);
    }
    for _ in 0..2 * MAIL {
        assert!(sink.mail().content.ends_with("\r\nthrough\r\n"));
    }
}

#[test]
fn handshakes_that_do_not_go_on() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let sink = Sink::start();
    let patient = format!("{}[timeouts.inbound]\nhandshake = \"1h\"\n", sink.route());
    let server = Server::start(&patient);
    let pid = server.program().pid();
    let before = sockets(pid);
    let open = || server.metric("ringpost_connections_open", &["side=\"in\""]);
    let failed = || server.metric("ringpost_tls_handshakes_total", &["side=\"in\"", "result=\"failed\""]);
    let mut early = server.client();

    // They stand for as long as the mail takes.
    let crowd = flood(&server);
    mail(&server, &mut early, &sink);
    assert!(open() >= FLOOD as f64, "{}", open());
    assert_eq!(failed(), 0.0);
    drop(crowd);
    until("those who hung up are gone", || (failed() == FLOOD as f64).then_some(()));

    // And when each has five seconds: the server ends them, while the clients would wait for ever.
    server.configure(&patient.replace("1h", "5s"));
    assert_eq!(server.reload()["event"], "reloaded");
    let crowd = flood(&server);
    mail(&server, &mut early, &sink);
    for mut client in crowd {
        let said = client.rest();
        assert!(!said.contains("220") && !said.contains("250"), "{said:?}");
    }
    assert_eq!(failed(), 2.0 * FLOOD as f64);
    drop(early);
    given_back(pid, &before);
    unharmed(&server);
}

/// Who waits holds no memory of the pool, under TLS either: else a few who do nothing would use it up for all.
#[test]
fn idle_connections_leave_the_buffers_to_others() {
    const IDLE: usize = 100;
    const FEW: &str = r#"
[cores]
count = 1
[buffers]
small = "64KiB"
large = "64KiB"
budget = "4MiB"
free = "1MiB"
[journal]
spill = "1MiB"
"#;
    let sink = Sink::start();
    // Room for two thirds of them.
    let server = Server::start(&format!("{}{FEW}", sink.route()));
    let mut early = server.client();
    let idle: Vec<_> = (0..IDLE)
        .map(|number| {
            let mut client = if number.is_multiple_of(2) {
                Secure::starttls(server.smtp(), "")
            } else {
                let mut client = Secure::implicit(server.smtps());
                assert_eq!(client.replies(1), [220]);
                client
            };
            client.put(b"EHLO client.test\r\nNOOP\r\n");
            assert_eq!(client.replies(2), [250, 250]);
            client
        })
        .collect();
    mail(&server, &mut early, &sink);
    // They are all still there, whoever else is.
    assert!(server.metric("ringpost_connections_open", &["side=\"in\""]) >= IDLE as f64);
    drop(idle);
    unharmed(&server);
}
