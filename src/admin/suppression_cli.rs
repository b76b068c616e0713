//! `ringpost suppression`: look at suppression lists and change them, through the running server.

use std::{
    fs::OpenOptions,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use mail::Timestamp;
use tenancy::{EntryLine, LineError, Reason, Whom};

use crate::{
    CONTROL_SOCKET, ClientError,
    client::{Client, with_query},
    suppression::{Changed, ENTRIES_MAX, EntriesBody, EntriesPage, EntryBody},
};

/// Look at suppression lists and change them, through the running server.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SuppressionArgs {
    /// The control socket [default: control.sock in the data directory]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Answer in JSON: one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: SuppressionCommand,
}

const EXAMPLES: &str = "\
Examples:
  ringpost suppression list --tenant shop --domain example.org
  ringpost suppression show --tenant shop ann@example.org       why, since when, until when
  ringpost suppression add --tenant shop ann@example.org --note 'asked by phone'
  ringpost suppression add --tenant '*' @example.org            nobody there gets mail of any tenant
  ringpost suppression remove --tenant shop ann@example.org
  ringpost suppression export --tenant shop > shop.txt
  ringpost suppression import --tenant shop shop.txt            an address a line is enough

A tenant is named as in the configuration; '*' is the list of all of them.";

/// What to do with the lists.
#[derive(Debug, Subcommand)]
pub enum SuppressionCommand {
    /// Show entries
    List {
        /// Which.
        #[command(flatten)]
        choice: ChoiceArgs,
        /// Entries at most; 0 for all
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
    /// Show one entry
    Show {
        /// Of whose list.
        #[command(flatten)]
        scope: ScopeArgs,
        /// An address, or a domain as "@example.org"
        address: Whom,
    },
    /// Put somebody on a list
    Add {
        /// On whose.
        #[command(flatten)]
        scope: ScopeArgs,
        /// Addresses, or domains as "@example.org"
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<Whom>,
        /// Why: bounce, complaint, unsubscribe or manual
        #[arg(long, value_parser = reason, default_value = "manual")]
        reason: Reason,
        /// Until when, such as 2026-02-27T03:30:00Z [default: for ever]
        #[arg(long, value_parser = time, value_name = "TIME")]
        until: Option<Timestamp>,
        /// What is to be known beside
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Take somebody off a list
    Remove {
        /// Off whose.
        #[command(flatten)]
        scope: ScopeArgs,
        /// Addresses, or domains as "@example.org"
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<Whom>,
    },
    /// Put all on a list whom a file names, a line each: address, and with tabs between them, if wanted, reason, time, list, note
    Import {
        /// On whose list
        #[arg(long, value_name = "NAME")]
        tenant: String,
        /// The file; - for standard input
        file: PathBuf,
    },
    /// Print entries as `import` reads them
    Export {
        /// Which.
        #[command(flatten)]
        choice: ChoiceArgs,
    },
}

/// Whose list.
#[derive(Debug, Args)]
pub struct ScopeArgs {
    /// Of this tenant; '*' for the list of all
    #[arg(long, value_name = "NAME")]
    pub tenant: String,
    /// One of the tenant's lists [default: all of its mail]
    #[arg(long, value_name = "NAME", default_value = "")]
    pub list: String,
}

/// Which entries.
#[derive(Debug, Args)]
pub struct ChoiceArgs {
    /// Of this tenant; '*' for the list of all
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Of one of its lists
    #[arg(long, value_name = "NAME")]
    pub list: Option<String>,
    /// Of addresses at this domain, or for all of it
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,
    /// For this reason: bounce, complaint, unsubscribe or manual
    #[arg(long, value_parser = reason)]
    pub reason: Option<Reason>,
}

/// The command failed.
#[derive(Debug, thiserror::Error)]
pub enum SuppressionError {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file of entries cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    /// A line of it is none.
    #[error("{file}, line {line}: {error}\n{done} entries before it were taken; the others were not")]
    Line {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        error: LineError,
        /// How many of the file are on the list.
        done: usize,
    },
    /// The answer could not be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Does what the command line asks.
///
/// # Errors
/// [`SuppressionError`]; its text says what to do.
pub fn run(args: &SuppressionArgs, data_dir: &Path, out: &mut dyn Write) -> Result<(), SuppressionError> {
    let socket = args.socket.clone().unwrap_or_else(|| data_dir.join(CONTROL_SOCKET));
    let session = Session { client: Client::new(&socket), json: args.json };
    match &args.command {
        SuppressionCommand::List { choice, limit } => {
            let limit = if *limit == 0 { usize::MAX } else { *limit };
            session.each(choice, limit, |entry| session.print(out, entry))
        }
        SuppressionCommand::Export { choice } => {
            session.each(choice, usize::MAX, |entry| match (session.json, line_of(entry)) {
                (false, Some(line)) => Ok(writeln!(out, "{line}")?),
                (true, _) | (false, None) => session.print(out, entry),
            })
        }
        SuppressionCommand::Show { scope, address } => {
            let parameters = [
                ("tenant", Some(scope.tenant.clone())),
                ("list", Some(scope.list.clone()).filter(|list| !list.is_empty())),
                ("address", Some(address.to_string())),
            ];
            let page: EntriesPage = session.client.get(&with_query(PATH, &parameters))?;
            page.entries.iter().try_for_each(|entry| session.print(out, entry))
        }
        SuppressionCommand::Add { scope, addresses, reason, until, note } => {
            let entry = |whom: &Whom| EntryBody {
                reason: Some(*reason),
                until: until.map(Timestamp::to_rfc3339),
                note: note.clone(),
                ..body(scope, whom)
            };
            let changed = session.change("add", addresses.iter().map(entry).collect())?;
            session.told(out, "put on", changed)
        }
        SuppressionCommand::Remove { scope, addresses } => {
            let changed =
                session.change("remove", addresses.iter().map(|whom| body(scope, whom)).collect())?;
            session.told(out, "taken off", changed)
        }
        SuppressionCommand::Import { tenant, file } => session.import(tenant, file, out),
    }
}

const PATH: &str = "/api/v1/suppressions";

struct Session<'a> {
    client: Client<'a>,
    json: bool,
}

impl Session<'_> {
    /// Asks page by page.
    fn each(
        &self,
        choice: &ChoiceArgs,
        limit: usize,
        mut act: impl FnMut(&EntryBody) -> Result<(), SuppressionError>,
    ) -> Result<(), SuppressionError> {
        const PAGE: usize = 1_000;
        let (mut left, mut cursor) = (limit, None);
        loop {
            let parameters = [
                ("tenant", choice.tenant.clone()),
                ("list", choice.list.clone()),
                ("domain", choice.domain.clone()),
                ("reason", choice.reason.map(|reason| reason.as_str().to_owned())),
                ("cursor", cursor),
                ("limit", Some(left.min(PAGE).to_string())),
            ];
            let EntriesPage { entries, next } = self.client.get(&with_query(PATH, &parameters))?;
            entries.iter().take(left).try_for_each(&mut act)?;
            left = left.saturating_sub(entries.len());
            match next {
                Some(next) if left > 0 => cursor = Some(next),
                Some(_) | None => return Ok(()),
            }
        }
    }

    fn change(&self, action: &str, entries: Vec<EntryBody>) -> Result<u64, SuppressionError> {
        let mut sum = 0;
        for part in entries.chunks(ENTRIES_MAX) {
            let body = EntriesBody { entries: part.to_vec() };
            let text = serde_json::to_string(&body).expect("entries are JSON");
            let Changed { changed } = self.client.post(&format!("{PATH}/{action}"), &text)?;
            sum += changed;
        }
        Ok(sum)
    }

    fn import(&self, tenant: &str, file: &Path, out: &mut dyn Write) -> Result<(), SuppressionError> {
        let wrong = |error| SuppressionError::Read(file.to_owned(), error);
        let reader: Box<dyn BufRead> = if file.as_os_str() == "-" {
            Box::new(io::stdin().lock())
        } else {
            Box::new(BufReader::new(OpenOptions::new().read(true).open(file).map_err(wrong)?))
        };
        let (mut part, mut changed, mut done) = (Vec::new(), 0, 0);
        for (place, line) in reader.lines().enumerate() {
            match EntryLine::parse(&line.map_err(wrong)?) {
                Ok(None) => {}
                Ok(Some(line)) => part.push(EntryBody {
                    tenant: tenant.to_owned(),
                    list: line.list.to_string(),
                    address: line.whom.to_string(),
                    reason: line.reason,
                    since: None,
                    until: line.until.map(Timestamp::to_rfc3339),
                    note: line.note.to_string(),
                }),
                Err(error) => {
                    // What stands before it is taken, so that the next try can begin anywhere.
                    done += part.len();
                    self.change("add", part)?;
                    return Err(SuppressionError::Line {
                        file: file.to_owned(),
                        line: place + 1,
                        error,
                        done,
                    });
                }
            }
            if part.len() >= ENTRIES_MAX {
                done += part.len();
                changed += self.change("add", std::mem::take(&mut part))?;
            }
        }
        done += part.len();
        changed += self.change("add", part)?;
        match self.json {
            true => self.told(out, "", changed),
            false => Ok(writeln!(out, "{done} entries read, {changed} put on the list")?),
        }
    }

    fn told(&self, out: &mut dyn Write, what: &str, changed: u64) -> Result<(), SuppressionError> {
        if self.json {
            return json(out, &Changed { changed });
        }
        let noun = if changed == 1 { "entry" } else { "entries" };
        Ok(writeln!(out, "{changed} {noun} {what} the list")?)
    }

    fn print(&self, out: &mut dyn Write, entry: &EntryBody) -> Result<(), SuppressionError> {
        if self.json {
            return json(out, entry);
        }
        let EntryBody { tenant, list, address, reason, since, until, note } = entry;
        let list = if list.is_empty() { String::new() } else { format!(" list {list}") };
        let reason = reason.map_or("-", Reason::as_str);
        let since = since.as_deref().unwrap_or("-");
        let until = until.as_ref().map(|until| format!(" until {until}")).unwrap_or_default();
        let note = if note.is_empty() { String::new() } else { format!(" ({note})") };
        let line = format!("{tenant}{list}  {address}  {reason} since {since}{until}{note}");
        Ok(writeln!(out, "{}", printable(&line))?)
    }
}

/// What would move a terminal's cursor is not printed: strangers have written some of it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn json(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), SuppressionError> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

fn body(scope: &ScopeArgs, whom: &Whom) -> EntryBody {
    EntryBody {
        tenant: scope.tenant.clone(),
        list: scope.list.clone(),
        address: whom.to_string(),
        reason: None,
        since: None,
        until: None,
        note: String::new(),
    }
}

/// As `import` reads it.
fn line_of(entry: &EntryBody) -> Option<EntryLine> {
    Some(EntryLine {
        whom: entry.address.parse().ok()?,
        reason: entry.reason,
        until: entry.until.as_deref().and_then(Timestamp::from_rfc3339),
        list: entry.list.as_str().into(),
        note: entry.note.as_str().into(),
    })
}

fn reason(text: &str) -> Result<Reason, ReasonError> {
    Reason::parse(text).ok_or(ReasonError)
}

fn time(text: &str) -> Result<Timestamp, TimeError> {
    Timestamp::from_rfc3339(text).ok_or(TimeError)
}

/// The text is not a reason.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a reason is one of bounce, complaint, unsubscribe, manual")]
struct ReasonError;

/// The text is not a time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a time is written as 2026-02-27T03:30:00Z")]
struct TimeError;
