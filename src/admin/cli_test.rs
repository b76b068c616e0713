//! The command line against the real router, through a real socket.

use bridge::JournalHealth;
use clap::Parser;

use super::*;
use crate::operations::test::{entry, operations};

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    queue: QueueArgs,
}

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

/// Runs a command line with a server behind the socket.
fn ringpost_queue(line: &str) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::bind(dir.path().join(CONTROL_SOCKET)).unwrap();
        let router = operations(JournalHealth::Healthy).everything();
        tokio::spawn(async move { axum::serve(listener, router).await });
    });
    ringpost_queue_at(dir.path(), line)
}

fn ringpost_queue_at(data_dir: &Path, line: &str) -> Result<String, String> {
    let words = std::iter::once("queue").chain(line.split(' '));
    let program = Program::try_parse_from(words).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    run(&program.queue, data_dir, NOW, &mut out).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn listings_are_tables() {
    assert_eq!(
        ringpost_queue("list --sender ann@example.org").unwrap(),
        "ID                 AGE       SIZE  STATE     TRIES      NEXT  SENDER -> RECIPIENTS\n\
         0080000000007    2h13m    4.2 KiB  deferred      4     in 5m  ann@example.org -> bob@example.net and 1 more\n\
         \x20              mx:example.net: 452 4.2.2 mailbox?[2J full\n"
    );
    assert_eq!(ringpost_queue("list --sender example.net").unwrap(), "nothing in the queue matches\n");
}

#[test]
fn a_message_is_shown_whole() {
    let text = ringpost_queue(&format!("show {}", entry().id)).unwrap();
    for part in
        ["sender      ann@example.org", "\nbob@example.net\n", "\neve@example.net\n", "attempts     4"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn json_is_one_object_a_line() {
    for line in ["list --json", "--json summary", "retry --all --json"] {
        let text = ringpost_queue(line).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value.is_object() && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn summaries_have_figures() {
    let text = ringpost_queue("summary").unwrap();
    for part in
        ["0 ready, 0 running, 2 deferred", "oldest      2h13m", "not reached 3 times, left alone for 10m"]
    {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn what_holds_mail_is_explained() {
    let text = ringpost_queue("why site:slow").unwrap();
    assert_eq!(
        text,
        "site:slow (shard 0)\n  as much as its rate lets\n    for another 10m\n    set by site.slow.message-rate\n"
    );
    let error = ringpost_queue("why mx:a.test").unwrap_err().to_string();
    assert!(error.contains("nothing is queued that is called mx:a.test"), "{error}");
}

#[test]
fn changes_say_how_many() {
    let id = entry().id;
    for (line, text) in [
        ("retry --all".to_owned(), "retry: 2 recipients\n"),
        (format!("hold {id} {id}"), "hold: 2 recipients\n"),
        ("release --recipient .example.net".to_owned(), "release: 1 recipient\n"),
        (format!("remove {id}"), "remove: 1 recipient\n"),
        ("remove --state held --yes".to_owned(), "remove: 1 recipient\n"),
    ] {
        assert_eq!(ringpost_queue(&line).unwrap(), text, "{line}");
    }
}

#[test]
fn mistakes_are_explained() {
    for (line, part) in [
        ("show 0000000000000", "is not in the queue"),
        ("show 12", "13 characters"),
        ("retry", "whom is this about?"),
        ("remove", "whom is this about?"),
        ("remove --all", "--yes"),
        ("hold --all --sender example.org", "cannot be used with"),
        ("list --state waiting", "ready, running, deferred, held"),
        ("list --sender a,b", "write an address"),
    ] {
        let error = ringpost_queue(line).unwrap_err();
        assert!(error.contains(part), "{line}: {error}");
    }
    let error = ringpost_queue_at(Path::new("/nonexistent"), "summary").unwrap_err();
    assert!(error.contains("no server runs here") && error.contains("/nonexistent/control.sock"), "{error}");
}
