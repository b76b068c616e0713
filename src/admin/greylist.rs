//! Greylisting over HTTP and as `ringpost greylist`: how many are remembered, what is known of somebody, and forgetting it.
//!
//! Entries are hashes, so that nobody can read who writes to whom: whoever wants to see one names it.

use std::{
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
};

use axum::{
    Json,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    routing::{get, post},
};
use clap::{Args, Subcommand};
use mail::{Address, ReversePath, Timestamp};
use serde::{Deserialize, Serialize};
use strangers::{GreyKey, Origin, Slot, State as GreyState};

use crate::{
    CONTROL_SOCKET, ClientError, Operations, Problem,
    client::{Client, with_query},
    paths::Paths,
    table,
};

/// Look at what greylisting remembers, and forget some of it, through the running server.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GreylistArgs {
    /// The control socket [default: control.sock in the data directory]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: GreylistCommand,
}

const EXAMPLES: &str = "\
Examples:
  ringpost greylist status
  ringpost greylist show 192.0.2.1                                   whether its network waits no more
  ringpost greylist show 192.0.2.1 ann@example.org bob@example.net   and the one mail
  ringpost greylist clear 192.0.2.1 ann@example.org bob@example.net";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum GreylistCommand {
    /// Say how much is remembered
    Status,
    /// Show what is known of a client, and of mail that it brings
    Show {
        /// Of whom.
        #[command(flatten)]
        choice: GreylistChoice,
    },
    /// Forget it: who is forgotten comes for the first time again
    Clear {
        /// Of whom.
        #[command(flatten)]
        choice: GreylistChoice,
    },
}

/// A client, and mail that it brings.
#[derive(Debug, Args)]
pub struct GreylistChoice {
    /// An address of the client
    pub client: IpAddr,
    /// The reverse-path; "<>" for the null one
    #[arg(requires = "recipient")]
    pub sender: Option<String>,
    /// The recipient
    pub recipient: Option<Address>,
}

/// The command failed.
#[derive(Debug, thiserror::Error)]
pub enum GreylistError {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer could not be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GreylistStatus {
    waiting: u64,
    proven: u64,
    clients: u64,
    evicted: u64,
}

/// Who is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GreylistChosen {
    client: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipient: Option<String>,
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GreylistEntry {
    /// Whose: network, domain, network-mail or domain-mail.
    of: String,
    /// waiting, proven or client.
    state: String,
    /// Since when it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// How much of what it has brought has proven good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    successes: Option<u32>,
    /// Until when that is remembered.
    until: String,
}

/// What is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GreylistCleared {
    cleared: u64,
}

const PATH: &str = "/api/v1/greylist";

pub(crate) fn routes() -> Paths {
    Paths::new()
        .route(PATH, get(status))
        .route("/api/v1/greylist/entries", get(show))
        .route("/api/v1/greylist/clear", post(clear))
}

async fn status(State(operations): State<Operations>) -> Json<GreylistStatus> {
    let greylist = operations.strangers().greylist();
    let counts = greylist.counts();
    Json(GreylistStatus {
        waiting: counts.waiting,
        proven: counts.proven,
        clients: counts.clients,
        evicted: greylist.evicted(),
    })
}

async fn show(
    State(operations): State<Operations>,
    query: Result<Query<GreylistChosen>, QueryRejection>,
) -> Result<Json<Vec<GreylistEntry>>, Problem> {
    let Query(chosen) = query.map_err(|rejection| Problem::Greylist(rejection.body_text()))?;
    let keys = chosen.keys(&operations)?;
    let greylist = operations.strangers().greylist();
    let entry =
        |(of, key): &(&str, GreyKey)| Some(GreylistEntry::new(of, greylist.find(*key, operations.now())?));
    Ok(Json(keys.iter().filter_map(entry).collect()))
}

async fn clear(
    State(operations): State<Operations>,
    body: Result<Json<GreylistChosen>, JsonRejection>,
) -> Result<Json<GreylistCleared>, Problem> {
    let Json(chosen) = body.map_err(|rejection| Problem::Greylist(rejection.body_text()))?;
    let keys = chosen.keys(&operations)?;
    let cleared = keys.iter().filter(|(_, key)| operations.strangers().greylist().clear(*key)).count();
    Ok(Json(GreylistCleared { cleared: cleared as u64 }))
}

impl GreylistChosen {
    /// The entries that there may be: by the network of the client, and by the domain of the sender, which stands in its place
    /// where SPF passes. With the mail they are those of the mail, without it that of the network.
    fn keys(&self, operations: &Operations) -> Result<Vec<(&'static str, GreyKey)>, Problem> {
        let missing = |what: &str| Problem::Greylist(format!("there is no {what}"));
        let greylist = operations.strangers().greylist();
        let network = operations.strangers().origin(self.client.ok_or_else(|| missing("client"))?);
        let (sender, recipient) = match (&self.sender, &self.recipient) {
            (None, None) => return Ok(vec![("network", greylist.client(network))]),
            (Some(sender), Some(recipient)) => (sender, recipient),
            (Some(_), None) => return Err(missing("recipient")),
            (None, Some(_)) => return Err(missing("sender")),
        };
        let address = |text: &str| {
            let shown: String = text.chars().take(300).collect();
            Address::parse(text.as_bytes()).map_err(|_| Problem::Greylist(format!("{shown:?} is no address")))
        };
        let sender = match sender.as_str() {
            "" | "<>" => ReversePath::Null,
            text => ReversePath::Address(address(text)?),
        };
        let recipient = address(recipient)?;
        let mut keys = vec![("network-mail", greylist.triplet(network, &sender, &recipient))];
        if let Some(of) = sender.address() {
            let origin = Origin::Domain(of.domain_str());
            keys.push(("domain-mail", greylist.triplet(origin, &sender, &recipient)));
        }
        Ok(keys)
    }
}

impl GreylistEntry {
    fn new(of: &str, slot: Slot) -> Self {
        let time = |seconds: u32| Timestamp::from_secs(seconds.into()).to_rfc3339();
        let (state, since, successes) = match slot.state {
            GreyState::Waiting(since) => ("waiting", Some(time(since)), None),
            GreyState::Proven => ("proven", None, None),
            GreyState::Client(successes) => ("client", None, Some(successes)),
            GreyState::Cleared => ("cleared", None, None),
        };
        Self { of: of.into(), state: state.into(), since, successes, until: time(slot.until) }
    }
}

/// Does what the command line asks.
///
/// # Errors
/// [`GreylistError`]; its text says what to do.
pub fn greylist(args: &GreylistArgs, data_dir: &Path, out: &mut dyn Write) -> Result<(), GreylistError> {
    let socket = args.socket.clone().unwrap_or_else(|| data_dir.join(CONTROL_SOCKET));
    let client = Client::new(&socket);
    match &args.command {
        GreylistCommand::Status => {
            let status: GreylistStatus = client.get(PATH)?;
            if args.json {
                return json(out, &status);
            }
            let GreylistStatus { waiting, proven, clients, evicted } = status;
            writeln!(
                out,
                "{waiting} wait, {proven} are known, of {clients} clients; {evicted} were forgotten before their time"
            )?;
        }
        GreylistCommand::Show { choice } => {
            let parameters = [
                ("client", Some(choice.client.to_string())),
                ("sender", choice.sender.clone()),
                ("recipient", choice.recipient.as_ref().map(|address| address.as_str().to_owned())),
            ];
            let entries: Vec<GreylistEntry> =
                client.get(&with_query("/api/v1/greylist/entries", &parameters))?;
            if args.json {
                return entries.iter().try_for_each(|entry| json(out, entry));
            }
            if entries.is_empty() {
                writeln!(out, "nothing is known of that")?;
            }
            entries.iter().try_for_each(|entry| print(out, entry))?;
        }
        GreylistCommand::Clear { choice } => {
            let chosen = GreylistChosen {
                client: Some(choice.client),
                sender: choice.sender.clone(),
                recipient: choice.recipient.as_ref().map(|address| address.as_str().to_owned()),
            };
            let body = serde_json::to_string(&chosen).expect("it is JSON");
            let cleared: GreylistCleared = client.post("/api/v1/greylist/clear", &body)?;
            if args.json {
                return json(out, &cleared);
            }
            let noun = if cleared.cleared == 1 { "entry is" } else { "entries are" };
            writeln!(out, "{} {noun} forgotten", cleared.cleared)?;
        }
    }
    Ok(())
}

fn json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), GreylistError> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

fn print(out: &mut dyn Write, entry: &GreylistEntry) -> io::Result<()> {
    let GreylistEntry { of, state, since, successes, until } = entry;
    let since = since.as_ref().map(|since| format!(" since {since}")).unwrap_or_default();
    let successes = successes.map(|successes| format!(" with {successes} successes")).unwrap_or_default();
    let line = format!("{of}  {state}{since}{successes}, remembered until {until}");
    writeln!(out, "{}", table::printable(&line))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn as_people_read_it() {
        let show = |slot| {
            let mut out = Vec::new();
            print(&mut out, &GreylistEntry::new("network", slot)).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            show(Slot { state: GreyState::Waiting(1_764_387_000), until: 1_764_473_400 }),
            "network  waiting since 2025-11-29T03:30:00Z, remembered until 2025-11-30T03:30:00Z\n"
        );
        assert_eq!(
            show(Slot { state: GreyState::Client(7), until: 1_764_473_400 }),
            "network  client with 7 successes, remembered until 2025-11-30T03:30:00Z\n"
        );
    }
}
