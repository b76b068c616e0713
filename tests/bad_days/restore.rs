//! A start with a queue: new mail does not wait for what was there before.

use std::{collections::BTreeMap, fs, path::PathBuf};

use end_to_end::{Server, Sink, run, tool, until};

const COUNT: usize = 3000;
const HOLD: &str = "[[route]]\nname = \"all\"\ndomains = [\"*\"]\nvia = \"hold\"\n";
const SOME_HELD: &str = "[[route]]\nname = \"some\"\ndomains = [\"held.example\"]\nvia = \"hold\"\n";

/// While its indexes cannot be read, a server does not know what it had. What it does meanwhile must not harm that.
#[test]
fn new_mail_does_not_wait_for_a_queue_that_comes_back() {
    let sink = Sink::start();
    let more = format!("{}{SOME_HELD}", sink.route());
    let mut server = Server::start(HOLD);
    fill(&server);
    server.kill();
    server.configure(&more);

    block_indexes(&server);
    server.resume();
    send(&server, "bob@example.net", "number9001.");
    assert_eq!(number(&sink.mail().content), 9001);
    send(&server, "bob@held.example", "number9002.");
    until("it is measured", || (server.metric("ringpost_queue_returning", &[]) == 2.0).then_some(()));
    let ready = server.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    assert!(ready.contains("shard 1: the queue of before the start is being looked for"), "{ready}");
    let id = server.event("accepted", |event| event["from"] == "ann@held.example")["id"].clone();
    let entry = server.queue_json(&["show", id.as_str().unwrap()]);
    assert_eq!(entry[0]["recipients"][0]["address"], "bob@held.example", "{entry:?}");
    let asked = server.queue(&["summary"]);
    assert!(!asked.status.success());
    assert!(
        asked.stderr.contains("cannot tell yet: the queue of before the start is being looked for"),
        "{asked}"
    );
    assert_eq!(server.reload()["event"], "reloaded");
    assert!(server.stop().0.success());

    // Killed before it knows, and while it comes back.
    server.resume();
    send(&server, "bob@held.example", "number9003.");
    server.kill();
    unblock_indexes(&server);
    for _ in 0..3 {
        server.resume();
        let on_its_way =
            |line: &str| line.contains("\"event\":\"returning\"") || line.contains("\"event\":\"recovered\"");
        server.program().wait_for("something is back", |line| on_its_way(line).then_some(()));
        server.kill();
    }

    block_indexes(&server);
    server.resume();
    send(&server, "bob@held.example", "number9004.");
    for pipe in unblock_indexes(&server) {
        // Whoever waits to read it goes on.
        drop(fs::OpenOptions::new().write(true).open(pipe).unwrap());
    }
    let recovered = [(); 2].map(|()| server.event("recovered", |_| true));
    let sum: u64 = recovered.iter().filter_map(|event| event["messages"].as_u64()).sum();
    assert_eq!(sum as usize, COUNT + 2, "{recovered:?}");
    let summary = server.queue_json(&["summary"]).remove(0);
    assert_eq!(summary["messages"], COUNT + 3, "{summary}");
    until("it is measured", || (server.metric("ringpost_queue_returning", &[]) == 0.0).then_some(()));
    assert!(!server.get("/readyz").contains("before the start"));

    server.queue(&["release", "--all"]).good();
    let mut came = BTreeMap::new();
    while came.len() < COUNT {
        *came.entry(number(&sink.mail().content)).or_insert(0) += 1;
    }
    until("the rest is held", || (server.queue_json(&["summary"])[0]["messages"] == 3).then_some(()));
    assert_eq!(sink.waiting(), 0);
    assert!(came.iter().all(|(number, count)| (1..=COUNT).contains(number) && *count == 1), "{came:?}");
}

/// Thousands of messages that stay.
fn fill(server: &Server) {
    const PART: usize = 100;
    let mut client = server.client();
    for first in (1..=COUNT).step_by(PART) {
        let numbers = first..first + PART;
        let transaction = |number| {
            let content = format!("Subject: number{number}.\r\n\r\nx\r\n");
            let len = content.len();
            format!(
                "MAIL FROM:<ann@example.org>\r\nRCPT TO:<bob@example.net>\r\nBDAT {len} LAST\r\n{content}"
            )
        };
        client.put(numbers.map(transaction).collect::<String>().as_bytes());
        for _ in 0..3 * PART {
            client.expect(250);
        }
    }
}

fn send(server: &Server, recipient: &str, subject: &str) {
    let content = format!("Subject: {subject}\r\n\r\nx\r\n");
    server.client().send(&recipient.replace("bob", "ann"), &[recipient], &content);
}

fn number(content: &str) -> usize {
    let (_, behind) = content.split_once("Subject: number").unwrap();
    behind.split_once('.').unwrap().0.parse().unwrap()
}

/// The first file that is read of each index.
fn configurations(server: &Server) -> Vec<PathBuf> {
    let folders = fs::read_dir(server.place().join("data/index")).unwrap();
    folders.map(|folder| folder.unwrap().path().join("conf")).collect()
}

/// Puts pipes in their place: whoever opens one waits for somebody who writes.
fn block_indexes(server: &Server) {
    for file in configurations(server) {
        fs::rename(&file, file.with_extension("true")).unwrap();
        run(&tool("mkfifo"), &[&file], "").good();
    }
}

/// Puts the files back. Answers the pipes.
fn unblock_indexes(server: &Server) -> Vec<PathBuf> {
    let unblock = |file: &PathBuf| {
        let pipe = file.with_extension("pipe");
        fs::rename(file, &pipe).unwrap();
        fs::rename(file.with_extension("true"), file).unwrap();
        pipe
    };
    configurations(server).iter().map(unblock).collect()
}
