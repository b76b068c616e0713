//! Long changes of the queue that are under way when the server is killed, stopped or gives way to another.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use end_to_end::{Server, Sink, until};
use serde_json::Value;

/// Held messages: enough for a while, and for so long that a new server comes up meanwhile.
const SOME: usize = 400;
const MANY: usize = 2400;
/// A hundredth of a core that has mail: a task rests most of the time.
const CONFIG: &str = "[queue]\ntask-share = 1\n[journal]\nshards = 8\n\
                      [[route]]\nname = \"held\"\ndomains = [\"held.test\"]\nvia = \"hold\"\n";

/// A server with much held mail, of which every second message is called a newsletter.
fn server(sink: &Sink, held: usize) -> Server {
    let server = Server::start(&format!("{CONFIG}{}", sink.route()));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = server.client();
                for number in 0..held / 4 {
                    let subject = if number % 2 == 0 { "Newsletter" } else { "Password" };
                    let content = format!("Subject: {subject}\r\n\r\nx\r\n");
                    client.send("ann@example.org", &["bob@held.test"], &content);
                }
            });
        }
    });
    server
}

/// Does something while mail comes and goes, so that tasks take their time.
fn amid_mail<T>(server: &Server, action: impl FnOnce() -> T) -> T {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                server.client().send("ann@example.org", &["carl@example.net"], "Subject: mail\r\n\r\nx\r\n");
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(action));
        enough.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn task(server: &Server, number: u64) -> Option<Value> {
    let finished = server.queue(&["tasks", "--json"]);
    let tasks = finished.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    tasks.into_iter().find(|task| task["id"] == number)
}

/// Begins to forget all newsletters, and waits until some have been looked at.
fn begin(server: &Server) {
    server.queue(&["remove", "--subject", "newsletter", "--background", "--yes"]).good();
    until("the task is under way", || {
        let task = task(server, 1)?;
        assert_eq!(task["state"], "running", "it has ended before anything could happen: {task}");
        (task["looked"].as_u64() > Some(0)).then_some(())
    });
}

/// The task has begun anew once, and come to its end: none of what was meant is left, and all else is.
fn has_gone_on(server: &Server, held: usize) -> Value {
    let done = until("the task has ended", || task(server, 1).filter(|task| task["state"] != "running"));
    assert_eq!((&done["state"], &done["resumed"]), (&"done".into(), &1.into()), "{done}");
    assert_eq!(done["selector"]["matching"]["subject"], "newsletter", "{done}");
    let listed = server.queue(&["list", "--json", "--limit", "0", "--recipient", "held.test"]).good();
    assert_eq!(listed.stdout.lines().count(), held / 2);
    let of_newsletters = ["list", "--json", "--limit", "0", "--subject", "newsletter"];
    assert_eq!(server.queue(&of_newsletters).good().stdout, "");
    done
}

#[test]
fn a_task_goes_on_after_a_kill() {
    let sink = Sink::start();
    let mut server = server(&sink, SOME);
    amid_mail(&server, || begin(&server));
    server.kill();
    server.resume();
    let done = has_gone_on(&server, SOME);
    let began = server.event("task_began", |event| event["resumed"] == 1);
    assert_eq!((&began["task"], &began["by"]), (&1.into(), &done["by"]), "{began}");
    // What has ended is remembered, and no number is given twice.
    let server = server.restarted();
    let known = until("it is known", || task(&server, 1));
    assert_eq!(known, done);
    server.queue(&["hold", "--all", "--background"]).good();
    until("the second is done", || task(&server, 2).filter(|task| task["state"] == "done"));
    assert_eq!(task(&server, 2).unwrap()["resumed"], Value::Null);
}

#[test]
fn a_task_goes_on_after_a_stop_unless_somebody_has_ended_it() {
    let sink = Sink::start();
    let server = server(&sink, SOME);
    amid_mail(&server, || begin(&server));
    let server = server.restarted();
    has_gone_on(&server, SOME);
    amid_mail(&server, || {
        server.queue(&["remove", "--subject", "password", "--background", "--yes"]).good();
        let ended = server.queue(&["cancel", "2", "--json"]).good();
        assert!(ended.stdout.contains("\"id\":2"), "{ended}");
    });
    let mut server = server;
    server.kill();
    server.resume();
    let ended = until("it has ended", || task(&server, 2).filter(|task| task["state"] != "running"));
    assert_eq!((&ended["state"], &ended["resumed"]), (&"cancelled".into(), &Value::Null), "{ended}");
}

#[test]
fn a_task_goes_on_in_the_server_that_takes_over() {
    let sink = Sink::start();
    let server = server(&sink, MANY);
    // A client keeps a core of the old server, and its mail; the other core is gone as soon as there is the new one.
    let mut client = server.client();
    amid_mail(&server, || {
        begin(&server);
        server.upgrade(&["--no-wait"]).good();
    });
    let _successor = server.successor(1);
    let beside = until("it is shown as it stands", || task(&server, 1));
    assert_eq!(beside["selector"]["matching"]["subject"], "newsletter", "{beside}");
    // Another one, of the new server, is not at its end before that one has all mail.
    server.queue(&["hold", "--recipient", "held.test", "--background"]).good();
    assert_eq!(client.ask("QUIT").code, 221);
    has_gone_on(&server, MANY);
    let second = until("the second ends", || task(&server, 2).filter(|task| task["state"] != "running"));
    assert_eq!((&second["state"], &second["resumed"]), (&"done".into(), &Value::Null), "{second}");
    assert!(second["matched"].as_u64() >= Some(MANY as u64 / 2), "{second}");
}
