//! Next hops that announce limits (RFC 9422).

use end_to_end::{Server, Sink};

/// Sends one message for these through a next hop that announces that; answers what the next hop was asked, session by
/// session, each begun by EHLO.
fn sessions(limits: &'static str, recipients: &[&str], transactions: usize) -> Vec<Vec<String>> {
    let sink = Sink::start();
    sink.answer(move |command| {
        command.starts_with("EHLO").then(|| format!("250-sink.test\r\n250-PIPELINING\r\n250 LIMITS {limits}"))
    });
    let server = Server::start(&(sink.route() + "concurrency-max = 1\n"));
    server.client().send("ann@example.org", recipients, "Subject: to many\r\n\r\nhello\r\n");
    let mut got: Vec<String> = (0..transactions).flat_map(|_| sink.mail().rcpt).collect();
    got.sort_unstable();
    let mut wanted: Vec<String> = recipients.iter().map(|recipient| format!("<{recipient}>")).collect();
    wanted.sort_unstable();
    assert_eq!(got, wanted, "everybody, and once");
    for _ in recipients {
        let outcome = server.event("outcome", |_| true);
        assert_eq!((&outcome["result"], &outcome["attempt"]), (&"delivered".into(), &1.into()), "{outcome}");
    }
    let mut sessions: Vec<Vec<String>> = Vec::new();
    for command in sink.commands() {
        if command.starts_with("EHLO") {
            sessions.push(Vec::new());
        }
        sessions.last_mut().unwrap().push(command);
    }
    sessions
}

fn count(session: &[String], verb: &str) -> usize {
    session.iter().filter(|command| command.starts_with(verb)).count()
}

const MANY: [&str; 7] =
    ["a@one.test", "b@one.test", "c@one.test", "d@two.test", "e@two.test", "f@three.test", "g@one.test"];

#[test]
fn few_recipients_in_a_transaction() {
    let sessions = sessions("RCPTMAX=3", &MANY, 3);
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    assert_eq!((count(&sessions[0], "MAIL"), count(&sessions[0], "RCPT")), (3, 7), "{sessions:?}");
}

#[test]
fn few_transactions_in_a_session() {
    // Seven sessions for one message: more than a next hop gets that ends sessions without having taken anything.
    let sessions = sessions("MAILMAX=1 RCPTMAX=1", &MANY, 7);
    assert_eq!(sessions.len(), 7, "{sessions:?}");
    assert!(sessions.iter().all(|session| count(session, "RCPT") == 1), "{sessions:?}");
}

#[test]
fn few_domains_in_a_session() {
    let sessions = sessions("RCPTDOMAINMAX=1", &MANY, 3);
    let asked: Vec<usize> = sessions.iter().map(|session| count(session, "RCPT")).collect();
    assert_eq!(asked, [4, 2, 1], "{sessions:?}");
}
