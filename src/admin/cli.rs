//! `ringpost queue`: look at the queue and change it, through the running server.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use bridge::{Action, Entry, Explained, Filter, Page, Pattern, Progress, Selector, State, Summary};
use clap::{Args, Subcommand};
use mail::{QueueId, Timestamp};

use crate::{
    CONTROL_SOCKET, ClientError,
    client::{Client, with_query},
    operations::ChangeBody,
    table,
};

/// Look at the queue and change it, through the running server.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct QueueArgs {
    /// The control socket [default: control.sock in the data directory]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Answer in JSON: one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: QueueCommand,
}

const EXAMPLES: &str = "\
Examples:
  ringpost queue summary                               how much, how old, for whom
  ringpost queue list --state deferred --recipient example.org
  ringpost queue show 0G00000000A1C                    one message, every recipient, last replies
  ringpost queue why 0G00000000A1C                     what holds it, until when
  ringpost queue why site:google                       what holds all mail for a provider
  ringpost queue retry --destination mx:example.org    try again now
  ringpost queue hold --sender news@example.org        keep back, until release
  ringpost queue remove 0G00000000A1C                  forget a message, without a DSN

Senders and recipients are chosen by address (ann@example.org), by domain (example.org), or by the
domains below one (.example.org); the null reverse-path is '<>'.";

/// What to do with the queue.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Show what waits, and why
    List {
        /// Which entries.
        #[command(flatten)]
        filter: FilterArgs,
        /// Entries at most; 0 for all
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
    /// Show one message and each of its recipients
    Show {
        /// The queue id, from a listing or the log
        id: QueueId,
    },
    /// Say why something waits: which limit holds it, until when, and what set that
    Why {
        /// A queue id, or a site or destination as the summary names it: "site:google", "mx:example.org"
        subject: String,
    },
    /// Show the queue in figures
    Summary,
    /// Try deferred recipients now, and their destination too if it is left alone
    Retry(ChoiceArgs),
    /// Keep recipients back until released; an attempt under way runs to its end
    Hold(ChoiceArgs),
    /// Let held recipients go; they are tried at once
    Release(ChoiceArgs),
    /// Forget recipients, without telling the sender
    Remove {
        /// Which.
        #[command(flatten)]
        choice: ChoiceArgs,
        /// Needed when the choice is not by queue id
        #[arg(long)]
        yes: bool,
    },
}

/// Which entries of the queue.
#[derive(Clone, Debug, Default, Args)]
pub struct FilterArgs {
    /// Whose reverse-path matches: address, domain, .domain or '<>'
    #[arg(long, value_name = "PATTERN")]
    pub sender: Option<Pattern>,
    /// With a recipient that matches: address, domain or .domain
    #[arg(long, value_name = "PATTERN")]
    pub recipient: Option<Pattern>,
    /// Bound for this destination, as a listing names it
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// In this state: ready, running, deferred, held
    #[arg(long, value_parser = state, value_name = "STATE")]
    pub state: Option<State>,
}

/// Whom a change is about.
#[derive(Debug, Args)]
pub struct ChoiceArgs {
    /// Messages, by queue id
    #[arg(value_name = "ID")]
    pub ids: Vec<QueueId>,
    /// Which of them, or of all messages.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Everything in the queue
    #[arg(long, conflicts_with_all = ["ids", "sender", "recipient", "destination", "state"])]
    pub all: bool,
}

impl ChoiceArgs {
    fn filter(&self) -> Filter {
        let FilterArgs { sender, recipient, destination, state } = self.filter.clone();
        Filter { id: None, sender, recipient, destination, state }
    }
}

/// The command failed.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A change of nothing in particular.
    #[error("whom is this about? name queue ids, --sender, --recipient, --destination, --state or --all")]
    NothingChosen,
    /// Removing needs a second word.
    #[error(
        "this forgets mail for ever, and nobody is told\n\
         look first: `ringpost queue list` with the same options; then add --yes"
    )]
    NotSure,
    /// The answer could not be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Does what the command line asks. `now` is for ages.
///
/// # Errors
/// [`QueueError`]; its text says what to do.
pub fn run(args: &QueueArgs, data_dir: &Path, now: Timestamp, out: &mut dyn Write) -> Result<(), QueueError> {
    let socket = args.socket.clone().unwrap_or_else(|| data_dir.join(CONTROL_SOCKET));
    let shown = if args.json { Shown::Json } else { Shown::Table(now) };
    let session = Session { client: Client::new(&socket), shown };
    match &args.command {
        QueueCommand::List { filter, limit } => session.list(filter, *limit, out),
        QueueCommand::Show { id } => session.show(*id, out),
        QueueCommand::Why { subject } => session.why(subject, out),
        QueueCommand::Summary => session.summary(out),
        QueueCommand::Retry(choice) => session.change(Action::Retry, choice, out),
        QueueCommand::Hold(choice) => session.change(Action::Hold, choice, out),
        QueueCommand::Release(choice) => session.change(Action::Release, choice, out),
        QueueCommand::Remove { choice, yes } => {
            let broad = choice.all || choice.ids.is_empty() && !choice.filter().is_empty();
            if broad && !yes {
                return Err(QueueError::NotSure);
            }
            session.change(Action::Remove, choice, out)
        }
    }
}

struct Session<'a> {
    client: Client<'a>,
    shown: Shown,
}

#[derive(Clone, Copy)]
enum Shown {
    Table(Timestamp),
    Json,
}

/// Entries asked for at once.
const PAGE: usize = 500;

impl Session<'_> {
    fn list(&self, filter: &FilterArgs, limit: usize, out: &mut dyn Write) -> Result<(), QueueError> {
        let mut left = if limit == 0 { usize::MAX } else { limit };
        let mut cursor: Option<u64> = None;
        let mut printed = 0;
        loop {
            let path = with_query(
                "/api/v1/queue",
                &[
                    ("sender", filter.sender.as_ref().map(ToString::to_string)),
                    ("recipient", filter.recipient.as_ref().map(ToString::to_string)),
                    ("destination", filter.destination.clone()),
                    ("state", filter.state.map(|state| state.as_str().to_owned())),
                    ("limit", Some(left.min(PAGE).to_string())),
                    ("cursor", cursor.map(|cursor| cursor.to_string())),
                ],
            );
            let page: Page = self.client.get(&path)?;
            for entry in &page.entries {
                match self.shown {
                    Shown::Json => json(out, entry)?,
                    Shown::Table(now) => table::entry(out, entry, now, printed)?,
                }
                printed += 1;
            }
            left = left.saturating_sub(page.entries.len());
            cursor = page.next;
            if cursor.is_none() || left == 0 {
                break;
            }
        }
        if let Shown::Table(_) = self.shown {
            match (printed, cursor) {
                (0, _) => writeln!(out, "nothing in the queue matches")?,
                (_, None) => {}
                (_, Some(_)) => writeln!(out, "there is more: --limit 0 shows all, summary counts")?,
            }
        }
        Ok(())
    }

    fn show(&self, id: QueueId, out: &mut dyn Write) -> Result<(), QueueError> {
        let entry: Entry = self.client.get(&format!("/api/v1/queue/{id}"))?;
        match self.shown {
            Shown::Json => json(out, &entry)?,
            Shown::Table(now) => table::message(out, &entry, now)?,
        }
        Ok(())
    }

    fn why(&self, subject: &str, out: &mut dyn Write) -> Result<(), QueueError> {
        let path = with_query("/api/v1/queue/why", &[("subject", Some(subject.to_owned()))]);
        let explained: Vec<Explained> = self.client.get(&path)?;
        for one in &explained {
            match self.shown {
                Shown::Json => json(out, one)?,
                Shown::Table(now) => table::explained(out, one, now)?,
            }
        }
        Ok(())
    }

    fn summary(&self, out: &mut dyn Write) -> Result<(), QueueError> {
        let summary: Summary = self.client.get("/api/v1/queue/summary")?;
        match self.shown {
            Shown::Json => json(out, &summary)?,
            Shown::Table(now) => table::summary(out, &summary, now)?,
        }
        Ok(())
    }

    fn change(&self, action: Action, choice: &ChoiceArgs, out: &mut dyn Write) -> Result<(), QueueError> {
        let filter = choice.filter();
        let selectors = if choice.all {
            vec![Selector::All]
        } else if choice.ids.is_empty() {
            if filter.is_empty() {
                return Err(QueueError::NothingChosen);
            }
            vec![Selector::Matching(filter)]
        } else {
            let of_id = |id: &QueueId| Selector::Matching(Filter { id: Some(*id), ..filter.clone() });
            choice.ids.iter().map(of_id).collect()
        };
        let mut changed = 0;
        for selector in selectors {
            changed += self.change_all_of(action, selector)?;
        }
        match self.shown {
            Shown::Json => json(out, &Progress { changed, next: None })?,
            Shown::Table(_) => {
                let noun = if changed == 1 { "recipient" } else { "recipients" };
                writeln!(out, "{}: {changed} {noun}", action.as_str())?;
            }
        }
        Ok(())
    }

    fn change_all_of(&self, action: Action, selector: Selector) -> Result<u64, QueueError> {
        let path = format!("/api/v1/queue/{}", action.as_str());
        let mut body = ChangeBody { selector, cursor: None };
        let mut changed = 0;
        loop {
            let text = serde_json::to_string(&body).expect("a selector is JSON");
            let progress: Progress = self.client.post(&path, &text)?;
            changed += progress.changed;
            let Some(next) = progress.next else { return Ok(changed) };
            body.cursor = Some(next.to_string());
        }
    }
}

fn json(out: &mut dyn Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn state(text: &str) -> Result<State, StateError> {
    let states = [State::Ready, State::Running, State::Deferred, State::Held];
    states.into_iter().find(|state| state.as_str() == text).ok_or(StateError)
}

/// The text is not a state.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a state is one of ready, running, deferred, held")]
struct StateError;

#[cfg(test)]
#[path = "cli_test.rs"]
mod test;
