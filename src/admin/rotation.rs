//! Keys for DKIM that are renewed, over HTTP and as `ringpost dkim status` and `rotate`.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use clap::Args;
use mail::Span;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{CONTROL_SOCKET, ClientError, Operations, Problem, client::Client, table};

/// What is known of keys that are renewed, for whoever asks; and what is wished for, for whoever renews them.
#[derive(Clone, Debug, Default)]
pub struct Rotations(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Entries that are renewed, in lower case.
    known: Mutex<BTreeSet<String>>,
    views: Mutex<Vec<RotationView>>,
    wishes: Mutex<BTreeSet<String>>,
    woken: Notify,
}

/// The keys of one entry that are of one algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationView {
    /// The name of the entry.
    pub key: String,
    /// Whose keys they are.
    pub domain: String,
    /// What they are of.
    pub algorithm: String,
    /// The provider that publishes them; none: somebody does by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
    /// In how many seconds another key is begun, where one signs; none where the configuration has no such rotation any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_in: Option<u64>,
    /// Whether one was wished for before that.
    pub wished: bool,
    /// Changes of the DNS that were done since the start.
    pub updates_done: u64,
    /// Changes of the DNS that failed.
    pub updates_failed: u64,
    /// The keys there are, the oldest first.
    pub keys: Vec<KeyView>,
}

/// A key that is renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyView {
    /// Where it is published.
    pub name: String,
    /// The part of that which is the selector.
    pub selector: String,
    /// How far it is.
    pub state: String,
    /// For how many seconds.
    pub seconds: u64,
    /// What the DNS showed at the last look: right, nothing, unknown, or what is there.
    pub shows: String,
    /// What it waits for.
    pub waits_for: String,
    /// Whether its record was published, and should have been seen by now.
    #[serde(default)]
    pub overdue: bool,
    /// What could not be done for it, and is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What is published.
    pub record: String,
    /// What somebody is to do by hand: publish or remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<String>,
    /// The record as a zone file has it.
    pub zone_line: String,
}

impl Rotations {
    /// What is known now.
    pub fn views(&self) -> Vec<RotationView> {
        lock(&self.0.views).clone()
    }

    /// This is known from now on.
    pub fn show(&self, views: Vec<RotationView>) {
        *lock(&self.0.views) = views;
    }

    /// The entries that are renewed from now on.
    pub fn know<'a>(&self, entries: impl Iterator<Item = &'a str>) {
        *lock(&self.0.known) = entries.map(str::to_ascii_lowercase).collect();
    }

    /// A new key of this entry is wished for; false when there is no such entry.
    pub fn wish(&self, key: &str) -> bool {
        let key = key.to_ascii_lowercase();
        let known = lock(&self.0.known).contains(&key);
        if known {
            lock(&self.0.wishes).insert(key);
            self.wake();
        }
        known
    }

    /// What was wished for since the last time.
    pub fn take_wishes(&self) -> BTreeSet<String> {
        std::mem::take(&mut *lock(&self.0.wishes))
    }

    /// Something has changed: whoever renews keys is to look at once.
    pub fn wake(&self) {
        self.0.woken.notify_one();
    }

    /// Comes to an end when something has.
    pub async fn woken(&self) {
        self.0.woken.notified().await;
    }
}

/// What is behind the lock is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Look at keys that the server renews by itself, through the running server.
#[derive(Debug, Args)]
pub struct DkimStatusArgs {
    /// The control socket [default: control.sock in the data directory]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Answer in JSON: one object a line
    #[arg(long)]
    pub json: bool,
}

/// Have a new key made before its time, through the running server.
#[derive(Debug, Args)]
pub struct DkimRotateArgs {
    /// The control socket [default: control.sock in the data directory]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The name of a `[[dkim]]` with `rotate`
    pub key: String,
}

/// A command about keys failed.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer could not be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    key: String,
}

pub(crate) async fn answer(State(operations): State<Operations>) -> Json<Vec<RotationView>> {
    Json(operations.rotations().views())
}

pub(crate) async fn rotate(
    State(operations): State<Operations>,
    body: Result<Json<Wish>, JsonRejection>,
) -> Result<(StatusCode, Json<Wish>), Problem> {
    let Json(wish) = body.map_err(|rejection| Problem::Rotation(rejection.body_text()))?;
    if operations.rotations().wish(&wish.key) {
        Ok((StatusCode::ACCEPTED, Json(wish)))
    } else {
        Err(Problem::NoRotation(wish.key))
    }
}

/// Prints how far the keys are that the server on this data directory renews.
///
/// # Errors
/// [`RotationError`]; its text says what to do.
pub fn dkim_status(args: &DkimStatusArgs, data_dir: &Path, out: &mut dyn Write) -> Result<(), RotationError> {
    let socket = args.socket.clone().unwrap_or_else(|| data_dir.join(CONTROL_SOCKET));
    let views: Vec<RotationView> = Client::new(&socket).get("/api/v1/dkim")?;
    if args.json {
        for view in &views {
            serde_json::to_writer(&mut *out, view).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        return Ok(());
    }
    if views.is_empty() {
        writeln!(out, "no keys are renewed: no `[[dkim]]` has `rotate`")?;
    }
    views.iter().try_for_each(|view| print(out, view))?;
    Ok(())
}

/// Has the server on this data directory make a new key.
///
/// # Errors
/// [`RotationError`]; its text says what to do.
pub fn dkim_rotate(args: &DkimRotateArgs, data_dir: &Path, out: &mut dyn Write) -> Result<(), RotationError> {
    let socket = args.socket.clone().unwrap_or_else(|| data_dir.join(CONTROL_SOCKET));
    let wish = serde_json::to_string(&Wish { key: args.key.clone() }).map_err(io::Error::from)?;
    let Wish { key } = Client::new(&socket).post("/api/v1/dkim/rotate", &wish)?;
    writeln!(out, "{}: a new key is begun; see `ringpost dkim status`", table::printable(&key))?;
    Ok(())
}

fn print(out: &mut dyn Write, view: &RotationView) -> io::Result<()> {
    let published = view.publisher.as_deref().map_or("by hand".to_owned(), |name| format!("by {name}"));
    let next = match view.next_in {
        None => "ends: the configuration has it no more".to_owned(),
        Some(_) if view.wished => "a new key is wished for".to_owned(),
        Some(0) => "a new key is due".to_owned(),
        Some(seconds) => format!("a new key in {}", table::age(std::time::Duration::from_secs(seconds))),
    };
    let head = format!("{}  {} of {}, published {published}; {next}", view.key, view.algorithm, view.domain);
    writeln!(out, "{}", table::printable(&head))?;
    if view.keys.is_empty() {
        writeln!(out, "  no key: mail is not signed")?;
    }
    for key in &view.keys {
        let since = table::age(std::time::Duration::from_secs(key.seconds));
        let shows = match key.shows.as_str() {
            "right" => "the DNS shows it".to_owned(),
            "nothing" => "the DNS shows nothing".to_owned(),
            "unknown" => "the DNS has not said".to_owned(),
            other => format!("the DNS shows {other}"),
        };
        let line = format!("  {}  {} for {since}; {shows}; {}", key.selector, key.state, key.waits_for);
        writeln!(out, "{}", table::printable(&line))?;
        if let Some(trouble) = &key.trouble {
            writeln!(out, "  failed, and is tried again: {}", table::printable(trouble))?;
        }
        if let Some(task) = &key.by_hand {
            writeln!(out, "  to {task} by hand:")?;
            for line in key.zone_line.lines() {
                writeln!(out, "    {}", table::printable(line))?;
            }
        }
    }
    Ok(())
}

/// How long it still is, in words.
pub fn left(time: std::time::Duration) -> String {
    Span(std::time::Duration::from_secs(time.as_secs())).to_string()
}

#[cfg(test)]
mod test {
    use super::*;

    fn view() -> RotationView {
        let key = KeyView {
            name: "rp-20261129._domainkey.example.org".into(),
            selector: "rp-20261129".into(),
            state: "published".into(),
            seconds: 90,
            shows: "nothing".into(),
            waits_for: "waits until the DNS shows it".into(),
            overdue: false,
            trouble: Some("publish: no".into()),
            record: "v=DKIM1; p=x".into(),
            by_hand: Some("publish".into()),
            zone_line: "rp-20261129._domainkey.example.org. IN TXT (\n    \"v=DKIM1; p=x\"\n)\n".into(),
        };
        RotationView {
            key: "shop".into(),
            domain: "example.org".into(),
            algorithm: "ed25519".into(),
            publisher: None,
            next_in: Some(0),
            wished: false,
            updates_done: 0,
            updates_failed: 0,
            keys: vec![key],
        }
    }

    #[test]
    fn as_people_read_it() {
        let mut out = Vec::new();
        print(&mut out, &view()).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "shop  ed25519 of example.org, published by hand; a new key is due\n  rp-20261129  published for 1m30s; the DNS shows \
             nothing; waits until the DNS shows it\n  failed, and is tried again: publish: no\n  to publish by hand:\n    rp-20261129._domainkey.example.org. IN TXT (\n        \
             \"v=DKIM1; p=x\"\n    )\n"
        );
    }

    #[test]
    fn only_what_there_is_can_be_wished_for() {
        let rotations = Rotations::default();
        assert!(!rotations.wish("shop"));
        rotations.know(["Shop"].into_iter());
        assert!(rotations.wish("Shop") && !rotations.wish("old"));
        assert_eq!(rotations.take_wishes(), BTreeSet::from(["shop".to_owned()]));
        assert!(rotations.take_wishes().is_empty());
    }
}
