//! `ringpost upgrade`: a new program is asked for in the place of the running one, and the answer is whether it serves.

use std::{
    io::{self, Write},
    path::Path,
    thread,
    time::Duration,
};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{CONTROL_SOCKET, ClientError, Operations, Problem, client::Client};

/// A wish for an upgrade, with where the answer goes: who serves now, or why nothing has changed.
pub type UpgradeRequest = oneshot::Sender<Result<Upgraded, String>>;

/// The program that serves now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
}

/// The program that served before, while it still has sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Connections from clients that it still has.
    pub sessions: u64,
}

/// The upgrade could not be asked for, or was refused.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer could not be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// How far `ringpost upgrade` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Until the new program serves.
    Begin,
    /// Until the old one has ended.
    Whole,
    /// An upgrade that is under way is followed to its end.
    Watch,
}

/// What of the status this command reads.
#[derive(Deserialize)]
struct Standing {
    predecessor: Option<Predecessor>,
}

/// Has the server on this data directory start the program that lies where its own was, and hand over to it.
///
/// # Errors
/// [`UpgradeError`]; its text says what to do. The server that ran goes on in that case.
pub fn upgrade(data_dir: &Path, extent: Extent, out: &mut dyn Write) -> Result<(), UpgradeError> {
    const ROUND: Duration = Duration::from_millis(500);
    let socket = data_dir.join(CONTROL_SOCKET);
    let client = Client::new(&socket);
    if extent != Extent::Watch {
        let Upgraded { version, pid }: Upgraded = client.post("/api/v1/upgrade", "{}")?;
        writeln!(out, "ringpost {version} (process {pid}) serves")?;
    }
    if extent == Extent::Begin {
        return Ok(());
    }
    let (mut told, mut tries) = (None, 20);
    loop {
        let standing = match client.get::<Standing>("/api/v1/status") {
            Ok(standing) => standing,
            // The socket changes hands.
            Err(_) if told.is_none() && tries > 0 => {
                tries -= 1;
                thread::sleep(ROUND);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let Some(Predecessor { version, pid, sessions }) = standing.predecessor else { break };
        if told.replace(sessions) != Some(sessions) {
            writeln!(out, "ringpost {version} (process {pid}) still has {sessions} sessions")?;
            out.flush()?;
        }
        thread::sleep(ROUND);
    }
    writeln!(out, "the one before has ended, and its mail is here")?;
    Ok(())
}

pub(crate) async fn answer(State(operations): State<Operations>) -> Result<Json<Upgraded>, Problem> {
    let (reply, answer) = oneshot::channel();
    // Who would answer is gone when the server stops.
    operations.upgrades().send(reply).await.map_err(|_| Problem::Stopping)?;
    let upgraded = answer.await.map_err(|_| Problem::Stopping)?;
    upgraded.map(Json).map_err(Problem::NotUpgraded)
}

/// A channel for wishes: both ends.
pub fn upgrade_requests() -> (mpsc::Sender<UpgradeRequest>, mpsc::Receiver<UpgradeRequest>) {
    mpsc::channel(16)
}
