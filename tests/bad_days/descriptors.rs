//! More clients than there are descriptors: they wait, nothing else does, and in the end all have been served.

use std::{fs, thread};

use end_to_end::{Client, Server, Sink, until};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::{given_back, sockets, through, unharmed};

const PAUSES: &str = "ringpost_accept_pauses_total";

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Waits until the journal of the only core has the segments that it wants before it takes mail.
fn at_ease(server: &Server) {
    let free = || server.metric("ringpost_journal_segments", &["state=\"free\""]);
    until("the journal is at ease", || (free() >= 4.0).then_some(()));
}

#[track_caller]
fn send(client: &mut Client, subject: &str) {
    let content = format!("From: ann@example.org\r\nSubject: {subject}\r\n\r\n{subject}\r\n");
    client.send("ann@example.org", &["bob@example.net"], &content);
}

/// All of them, each as soon as it is greeted: a message, and gone. While there is no segment for it, they try again.
fn serve(crowd: Vec<Client>) {
    thread::scope(|scope| {
        for mut client in crowd {
            scope.spawn(move || {
                client.expect(220);
                client.ask("EHLO client.test");
                until("there is room for mail", || {
                    client.ask("MAIL FROM:<ann@example.org>");
                    client.ask("RCPT TO:<bob@example.net>");
                    let reply = client.ask("DATA");
                    if reply.code == 354 {
                        return Some(());
                    }
                    assert_eq!(reply.code, 452, "{reply}");
                    client.ask("RSET");
                    None
                });
                client.put(b"Subject: crowd\r\n\r\ncrowd\r\n.\r\n");
                client.expect(250);
                client.ask("QUIT");
            });
        }
    });
}

/// Every shortage was told once, is over, and was waited for with patience.
#[track_caller]
fn it_is_over(server: &Server) {
    let began = || server.events("accept_paused").len();
    let ended = until("every shortage is over", || {
        let ended = server.events("accept_resumed");
        (ended.len() == began()).then_some(ended)
    });
    let seconds: f64 = ended.iter().map(|event| event["time"].as_f64().unwrap()).sum();
    let pauses = server.metric(PAUSES, &[]);
    // Ten a second.
    assert!((1.0..=seconds * 10.0 + ended.len() as f64).contains(&pauses), "{pauses} pauses in {seconds} s");
}

/// Started with few descriptors, the server keeps some of them from clients: for the journal, next hops and operators.
#[test]
fn more_clients_than_descriptors() {
    const DESCRIPTORS: usize = 160;
    const CROWD: usize = 150;
    let sink = Sink::start();
    let mut server = Server::prepare(&sink.route());
    let limited = format!("ulimit -n {DESCRIPTORS}; exec \"$@\"");
    let mut command = through(&["sh", "-c", &limited, "sh"], &server);
    server.resume_by(&mut command);
    let pid = server.program().pid();
    let before = sockets(pid);

    let mut early = server.client();
    let crowd: Vec<_> = (0..CROWD).map(|_| Client::connect(server.smtp())).collect();
    let told = server.event("accept_paused", |_| true);
    assert_eq!((&told["level"], &told["listener"]), (&"warn".into(), &"smtp".into()), "{told}");
    assert!(told["error"].as_str().unwrap().contains("Too many open files"), "{told}");

    // Who is in is served, mail leaves, and whoever asks gets an answer.
    for round in 0..20 {
        send(&mut early, &format!("early {round}"));
        assert!(sink.mail().content.contains(&format!("early {round}\r\n")));
    }
    assert!(server.metric(PAUSES, &[]) > 0.0);
    assert!(server.queue_json(&["list"]).is_empty());
    assert!(descriptors(pid) < DESCRIPTORS - 10, "{}", descriptors(pid));
    assert!(crowd.iter().any(|client| !client.has_input()), "some wait");

    drop(early);
    serve(crowd);
    for _ in 0..CROWD {
        sink.mail();
    }
    it_is_over(&server);
    given_back(pid, &before);
    unharmed(&server);
}

/// The limit may be lowered under the feet of the server, or the host may have no descriptors left: then there is no
/// reserve, and whatever needs a descriptor waits for it.
#[test]
fn no_descriptor_left_at_all() {
    const CROWD: usize = 30;
    // A message after a start goes into a segment that is open; after the next start, into one that has to be opened.
    let sink = Sink::start();
    let mut server = Server::start(&format!("{}[cores]\ncount = 1\n", sink.route()));
    for durable_at_once in [true, false] {
        let pid = server.program().pid();
        let process = Pid::from_raw(pid.try_into().unwrap());
        let before = sockets(pid);
        let mut early = server.client();
        at_ease(&server);
        // All that have a lower number are open.
        let none = Rlimit { current: Some(3), ..getrlimit(Resource::Nofile) };
        let many = prlimit(process, Resource::Nofile, none).unwrap();
        let crowd: Vec<_> = (0..CROWD).map(|_| Client::connect(server.smtp())).collect();
        server.event("accept_paused", |_| true);
        early.ask("MAIL FROM:<ann@example.org>");
        early.ask("RCPT TO:<bob@example.net>");
        early.ask("DATA");
        early.put(b"Subject: early\r\n\r\nearly\r\n.\r\n");
        if durable_at_once {
            early.expect(250);
        }
        assert!(!early.has_input() && sink.waiting() == 0);

        prlimit(process, Resource::Nofile, many).unwrap();
        if !durable_at_once {
            early.expect(250);
        }
        drop(early);
        assert!(sink.mail().content.ends_with("\r\nearly\r\n"));
        serve(crowd);
        for _ in 0..CROWD {
            sink.mail();
        }
        it_is_over(&server);
        given_back(pid, &before);
        unharmed(&server);
        assert!(server.events("commit_failed").is_empty());
        let outcomes = server.events("outcome");
        assert!(outcomes.iter().all(|event| event["result"] == "delivered"), "{outcomes:?}");
        server = server.restarted();
    }
}
