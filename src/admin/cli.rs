//! `ringpost queue`: look at the queue and change it, through the running server.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use bridge::{
    Action, Age, Class, Entry, Explained, Filter, Page, Pattern, Progress, Selector, State, SubjectHash,
    Summary,
};
use clap::{Args, Subcommand};
use mail::{Category, QueueId, StatusPattern, Timestamp};

use crate::{
    CONTROL_SOCKET, ClientError,
    client::{Client, with_query},
    operations::ChangeBody,
    table,
    tasks::{TaskBody, TaskState, TaskView},
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
  ringpost queue remove --category bad-domain --dry-run   how many that would be
  ringpost queue reroute --to backup --site site:slow --background
  ringpost queue task 1 --watch                        how far it is, until it has ended
  ringpost queue tasks                                 what runs in the background, and how far it is

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
    /// Send recipients by another route of the configuration, whatever their domain
    Reroute {
        /// The name of the `[[route]]`; "" for the one of the recipient's domain
        #[arg(long, value_name = "ROUTE")]
        to: String,
        /// Which.
        #[command(flatten)]
        choice: ChoiceArgs,
    },
    /// Show what runs in the background, and what has ended
    Tasks,
    /// Show one task
    Task {
        /// Its number
        number: u64,
        /// Say how far it is until it has ended; whoever stops watching does not stop it
        #[arg(short, long)]
        watch: bool,
    },
    /// End a task; what it has done stays done
    Cancel {
        /// Its number
        number: u64,
    },
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
    /// Bound for this site, as `why` names it: "site:google", "hosts:mx.example"
    #[arg(long, value_name = "NAME")]
    pub site: Option<String>,
    /// Mail of this tenant; "" for that of none
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Of the campaign of this name; where there is none, what the messages say themselves
    #[arg(long, value_name = "NAME")]
    pub campaign: Option<String>,
    /// In this class: urgent, normal, bulk
    #[arg(long, value_parser = class, value_name = "CLASS")]
    pub priority: Option<Class>,
    /// Received so long ago or longer: 45s, 90m, 2h, 3d, 1w
    #[arg(long, value_name = "AGE")]
    pub older_than: Option<Age>,
    /// Received since so long
    #[arg(long, value_name = "AGE")]
    pub younger_than: Option<Age>,
    /// Deferred with such a status the last time: 4.2.2, 4.7.*
    #[arg(long, value_name = "STATUS")]
    pub status: Option<StatusPattern>,
    /// What the last refusal was about: quota, greylisted, rate (docs/reply-rules.md)
    #[arg(long, value_name = "CATEGORY")]
    pub category: Option<Category>,
    /// Stands in the last reply, as far as replies are kept in memory
    #[arg(long, value_name = "TEXT")]
    pub reply: Option<String>,
    /// Stands in the subject as it is written; every message that the other options leave is read for it
    #[arg(long, value_name = "TEXT")]
    pub subject: Option<String>,
    /// The subject's SHA-256, or how it begins (8 digits or more), for who must not see subjects; messages are read likewise
    #[arg(long, value_name = "HEX")]
    pub subject_hash: Option<SubjectHash>,
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
    #[arg(long, conflicts_with_all = ["ids", "FilterArgs"])]
    pub all: bool,
    /// Change nothing: say how many it would be
    #[arg(long)]
    pub dry_run: bool,
    /// Leave it to the server, which lets mail go first; `ringpost queue tasks` shows how far it is
    #[arg(long)]
    pub background: bool,
}

impl ChoiceArgs {
    fn filter(&self) -> Filter {
        self.filter.clone().into()
    }

    /// Whether it may be about more than one has seen.
    fn is_broad(&self) -> bool {
        self.all || self.ids.is_empty() && !self.filter().is_empty()
    }
}

impl From<FilterArgs> for Filter {
    fn from(args: FilterArgs) -> Self {
        let FilterArgs { sender, recipient, destination, state, site, tenant, campaign, priority, .. } = args;
        let FilterArgs { older_than, younger_than, status, category, reply, subject, subject_hash, .. } =
            args;
        Self {
            id: None,
            sender,
            recipient,
            destination,
            state,
            site,
            tenant,
            campaign: campaign.map(Into::into),
            priority,
            older_than,
            younger_than,
            status,
            category,
            reply: reply.map(Into::into),
            subject: subject.map(Into::into),
            subject_hash,
        }
    }
}

/// The command failed.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A change of nothing in particular.
    #[error(
        "whom is this about? name queue ids, --sender, --recipient, --site or another option that chooses, or --all"
    )]
    NothingChosen,
    /// Removing needs a second word.
    #[error(
        "this forgets {0} recipients for ever, and nobody is told\n\
         look first: `ringpost queue list` with the same options; then add --yes"
    )]
    NotSure(u64),
    /// A task that was watched could not go on.
    #[error("task {0} has failed; what it did before stays done")]
    TaskFailed(u64),
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
        QueueCommand::Retry(choice) => session.change(Action::Retry, choice, None, out),
        QueueCommand::Hold(choice) => session.change(Action::Hold, choice, None, out),
        QueueCommand::Release(choice) => session.change(Action::Release, choice, None, out),
        QueueCommand::Reroute { to, choice } => {
            session.change(Action::Reroute, choice, Some(to.as_str()), out)
        }
        QueueCommand::Remove { choice, yes } => {
            if choice.is_broad() && !yes && !choice.dry_run {
                let progress = session.count(choice)?;
                return Err(QueueError::NotSure(progress.matched));
            }
            session.change(Action::Remove, choice, None, out)
        }
        QueueCommand::Tasks => {
            let tasks: Vec<TaskView> = session.client.get(TASKS)?;
            session.tasks(&tasks, out)
        }
        QueueCommand::Task { number, watch: false } => session.tasks(&[session.task(*number)?], out),
        QueueCommand::Task { number, watch: true } => session.watch(*number, out),
        QueueCommand::Cancel { number } => {
            let task: TaskView = session.client.delete(&format!("{TASKS}/{number}"))?;
            session.tasks(&[task], out)
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

/// Where tasks are.
const TASKS: &str = "/api/v1/queue/tasks";
/// How soon who watches a task looks again: at first, and after a while.
const WATCH_MIN: Duration = Duration::from_millis(50);
const WATCH_MAX: Duration = Duration::from_secs(1);
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
                    ("site", filter.site.clone()),
                    ("tenant", filter.tenant.clone()),
                    ("campaign", filter.campaign.clone()),
                    ("priority", filter.priority.map(|class| class.as_str().to_owned())),
                    ("older_than", filter.older_than.map(|age| age.to_string())),
                    ("younger_than", filter.younger_than.map(|age| age.to_string())),
                    ("status", filter.status.map(|status| status.to_string())),
                    ("category", filter.category.map(|category| category.to_string())),
                    ("reply", filter.reply.as_deref().map(ToOwned::to_owned)),
                    ("subject", filter.subject.as_deref().map(ToOwned::to_owned)),
                    ("subject_hash", filter.subject_hash.as_ref().map(ToString::to_string)),
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

    fn task(&self, number: u64) -> Result<TaskView, ClientError> {
        self.client.get(&format!("{TASKS}/{number}"))
    }

    /// Tells how far a task is until it has ended.
    fn watch(&self, number: u64, out: &mut dyn Write) -> Result<(), QueueError> {
        let mut pause = WATCH_MIN;
        let mut task = self.task(number)?;
        while task.state == TaskState::Running {
            match self.shown {
                Shown::Json => json(out, &task)?,
                Shown::Table(_) => table::task_progress(out, &task)?,
            }
            out.flush()?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(WATCH_MAX);
            task = self.task(number)?;
        }
        self.tasks(std::slice::from_ref(&task), out)?;
        match task.state {
            TaskState::Failed => Err(QueueError::TaskFailed(number)),
            TaskState::Running | TaskState::Done | TaskState::Cancelled => Ok(()),
        }
    }

    fn tasks(&self, tasks: &[TaskView], out: &mut dyn Write) -> Result<(), QueueError> {
        if let Shown::Table(_) = self.shown
            && tasks.is_empty()
        {
            writeln!(out, "no task is known")?;
        }
        for (number, task) in tasks.iter().enumerate() {
            match self.shown {
                Shown::Json => json(out, task)?,
                Shown::Table(_) => table::task(out, task, number)?,
            }
        }
        Ok(())
    }

    fn change(
        &self,
        action: Action,
        choice: &ChoiceArgs,
        to: Option<&str>,
        out: &mut dyn Write,
    ) -> Result<(), QueueError> {
        if choice.background {
            for selector in selectors(choice)? {
                let by = ["SUDO_USER", "USER"].into_iter().find_map(|name| std::env::var(name).ok());
                let to = to.map(str::to_owned);
                let body = TaskBody { action, selector, to, dry_run: choice.dry_run, by };
                let text = serde_json::to_string(&body).expect("a task is JSON");
                let task: TaskView = self.client.post(TASKS, &text)?;
                match self.shown {
                    Shown::Json => json(out, &task)?,
                    Shown::Table(_) => {
                        writeln!(out, "task {0} has begun; see: ringpost queue task {0} --watch", task.id)?;
                    }
                }
            }
            return Ok(());
        }
        let done = if choice.dry_run { self.count(choice)? } else { self.all_of(action, choice, to)? };
        match self.shown {
            Shown::Json => json(out, &done)?,
            Shown::Table(_) => {
                let count = if choice.dry_run { done.matched } else { done.changed };
                let noun = if count == 1 { "recipient" } else { "recipients" };
                let would = if choice.dry_run { " would be about" } else { ":" };
                writeln!(out, "{}{would} {count} {noun}", action.as_str())?;
            }
        }
        Ok(())
    }

    /// How many a change would be about.
    fn count(&self, choice: &ChoiceArgs) -> Result<Progress, QueueError> {
        self.all_of(Action::Count, choice, None)
    }

    fn all_of(&self, action: Action, choice: &ChoiceArgs, to: Option<&str>) -> Result<Progress, QueueError> {
        let mut all = Progress::default();
        for selector in selectors(choice)? {
            let path = format!("/api/v1/queue/{}", action.as_str());
            let mut body = ChangeBody { selector, cursor: None, to: to.map(str::to_owned) };
            loop {
                let text = serde_json::to_string(&body).expect("a selector is JSON");
                let progress: Progress = self.client.post(&path, &text)?;
                all.matched += progress.matched;
                all.changed += progress.changed;
                all.looked += progress.looked;
                all.of = progress.of;
                let Some(next) = progress.next else { break };
                body.cursor = Some(next.to_string());
            }
        }
        Ok(all)
    }
}

/// Whom a command line is about.
fn selectors(choice: &ChoiceArgs) -> Result<Vec<Selector>, QueueError> {
    let filter = choice.filter();
    if choice.all {
        return Ok(vec![Selector::All]);
    }
    if choice.ids.is_empty() {
        return if filter.is_empty() {
            Err(QueueError::NothingChosen)
        } else {
            Ok(vec![Selector::Matching(filter.into())])
        };
    }
    let of_id = |id: &QueueId| Selector::Matching(Box::new(Filter { id: Some(*id), ..filter.clone() }));
    Ok(choice.ids.iter().map(of_id).collect())
}

fn json(out: &mut dyn Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn state(text: &str) -> Result<State, StateError> {
    let states = [State::Ready, State::Running, State::Deferred, State::Held];
    states.into_iter().find(|state| state.as_str() == text).ok_or(StateError)
}

fn class(text: &str) -> Result<Class, ClassError> {
    let classes = [Class::Urgent, Class::Normal, Class::Bulk];
    classes.into_iter().find(|class| class.as_str() == text).ok_or(ClassError)
}

/// The text is not a class.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a class is one of urgent, normal, bulk")]
struct ClassError;

/// The text is not a state.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a state is one of ready, running, deferred, held")]
struct StateError;

#[cfg(test)]
#[path = "cli_test.rs"]
mod test;
