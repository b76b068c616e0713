//! `ringpost reload`: a new configuration is asked for, and the answer is whether it is in force.

use std::{
    io::{self, Write},
    path::Path,
};

use axum::{Json, extract::State};
use bridge::Stranded;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{CONTROL_SOCKET, ClientError, Operations, Problem, client::Client};

/// A wish for a reload, with where the answer goes: what was done, or why nothing was.
pub type ReloadRequest = oneshot::Sender<Result<Reloaded, String>>;

/// What a reload has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys that have changed and wait for a restart.
    pub pending: Vec<String>,
    /// Queued mail that no route is for any more: it waits for one.
    pub stranded: Vec<Stranded>,
    /// What is in force, and perhaps not meant: lists of one file that another has replaced.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The reload could not be asked for, or was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer could not be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Has the server on this data directory read its configuration again, and says what came of it.
///
/// # Errors
/// [`ReloadError`]; its text says what to do.
pub fn reload(data_dir: &Path, out: &mut dyn Write) -> Result<(), ReloadError> {
    let socket = data_dir.join(CONTROL_SOCKET);
    let reloaded: Reloaded = Client::new(&socket).post("/api/v1/reload", "{}")?;
    if reloaded.pending.is_empty() {
        writeln!(out, "reloaded")?;
    } else {
        writeln!(out, "reloaded; until a restart these stay as they were: {}", reloaded.pending.join(", "))?;
    }
    if let Some(stranded) = reloaded.stranded() {
        writeln!(out, "queued mail that no route is for waits for one: {stranded}")?;
    }
    for warning in &reloaded.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}

impl Reloaded {
    /// The destinations of stranded mail and the number of recipients, in words; none when there is none.
    pub fn stranded(&self) -> Option<String> {
        const SHOWN_MAX: usize = 10;
        let mut words: Vec<_> = self.stranded[..self.stranded.len().min(SHOWN_MAX)]
            .iter()
            .map(|Stranded { destination, recipients }| {
                let s = if *recipients == 1 { "" } else { "s" };
                format!("{destination} ({recipients} recipient{s})")
            })
            .collect();
        if self.stranded.len() > SHOWN_MAX {
            words.push(format!("and {} more", self.stranded.len() - SHOWN_MAX));
        }
        (!words.is_empty()).then(|| words.join(", "))
    }
}

pub(crate) async fn answer(State(operations): State<Operations>) -> Result<Json<Reloaded>, Problem> {
    let (reply, answer) = oneshot::channel();
    // Who would answer is gone when the server stops.
    operations.reloads().send(reply).await.map_err(|_| Problem::Stopping)?;
    let reloaded = answer.await.map_err(|_| Problem::Stopping)?;
    reloaded.map(Json).map_err(Problem::NotReloaded)
}

/// A channel for wishes: both ends.
pub fn reload_requests() -> (mpsc::Sender<ReloadRequest>, mpsc::Receiver<ReloadRequest>) {
    // Reloads are done one after the other; who finds so many waiting waits too.
    mpsc::channel(16)
}
