//! Reports that came to us, over HTTP and as `ringpost reports`: what is kept, what one says, and all of them put
//! together.
//!
//! Whoever keeps them reads files, which takes its time: two questions at once, each on a thread that may wait.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json,
    extract::{Path as UrlPath, Query, State, rejection::QueryRejection},
    routing::get,
};
use clap::{Args, Subcommand};
use mail::Timestamp;
use report::received::{Grouping, Head, Kind, Summary, Told, is_within};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    CONTROL_SOCKET, ClientError, Operations, Problem,
    client::{Client, with_query},
    paths::Paths,
    reports_table,
};

/// Whoever keeps reports. Its answers take their time.
pub trait ReportShelf: Send + Sync {
    /// A page of what is kept, the newest first.
    ///
    /// # Errors
    /// When the files cannot be read.
    fn list(&self, query: &ReportQuery) -> io::Result<ReportPage>;

    /// The report of that key, if there is one.
    ///
    /// # Errors
    /// When the files cannot be read.
    fn show(&self, key: &str) -> io::Result<Option<ShownReport>>;

    /// Reports put together.
    ///
    /// # Errors
    /// When the files cannot be read.
    fn summary(&self, query: &ReportQuery, grouping: Grouping) -> io::Result<Summary>;
}

/// Which reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportQuery {
    /// About this domain, or what is below it.
    pub domain: Option<String>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// About what was then, or later.
    pub since: Option<Timestamp>,
    /// About what was before.
    pub until: Option<Timestamp>,
    /// Sent by this domain, as far as that is proven; "" for those of whom it is not.
    pub reporter: Option<String>,
    /// Behind this one.
    pub cursor: Option<String>,
    /// Reports of a page, or lines of each table of a summary.
    pub limit: usize,
}

/// A page of reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportPage {
    /// What they say they are.
    pub reports: Vec<Head>,
    /// Where the next page begins; none when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// There are more than were looked at, though the page is not full.
    #[serde(default)]
    pub cut: bool,
}

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownReport {
    /// What it says it is.
    #[serde(flatten)]
    pub head: Head,
    /// What it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Told>,
    /// The mail, in base64, where that is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

impl ReportQuery {
    /// Whether it is one of these.
    pub fn matches(&self, head: &Head) -> bool {
        self.domain.as_ref().is_none_or(|domain| is_within(&head.domain, domain)) && self.may_match(head)
    }

    /// Whether it is one of these, or one about a domain above, which may tell of some mail of this one.
    pub fn is_partly(&self, head: &Head) -> bool {
        let is_above = self.domain.as_ref().is_some_and(|domain| is_within(domain, &head.domain));
        is_above && head.kind == Kind::Dmarc && self.may_match(head)
    }

    fn may_match(&self, head: &Head) -> bool {
        let since = self.since.map(Timestamp::to_rfc3339);
        let until = self.until.map(Timestamp::to_rfc3339);
        self.kind.is_none_or(|kind| kind == head.kind)
            && since.is_none_or(|since| *head.end >= *since)
            && until.is_none_or(|until| *head.begin < *until)
            && self.reporter.as_ref().is_none_or(|reporter| **reporter == *head.reporter)
    }
}

/// The query of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    domain: Option<String>,
    kind: Option<String>,
    since: Option<String>,
    until: Option<String>,
    reporter: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
    by: Option<String>,
}

const PATH: &str = "/api/v1/reports";
/// Reports of a page, or lines of a table, unless asked otherwise, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 10_000;

pub(crate) fn routes() -> Paths {
    // Questions at once.
    let turns = Arc::new(Semaphore::new(2));
    let (listing, showing, summing) = (turns.clone(), turns.clone(), turns);
    Paths::new()
        .route(PATH, get(move |operations, query| list(operations, query, listing)))
        .route("/api/v1/reports/summary", get(move |operations, query| summary(operations, query, summing)))
        .route("/api/v1/reports/{key}", get(move |operations, key| show(operations, key, showing)))
}

type Given = Result<Query<Asked>, QueryRejection>;

async fn list(
    State(operations): State<Operations>,
    query: Given,
    turns: Arc<Semaphore>,
) -> Result<Json<ReportPage>, Problem> {
    let (query, _) = asked(&operations, query)?;
    ask(&operations, &turns, move |shelf| shelf.list(&query)).await.map(Json)
}

async fn summary(
    State(operations): State<Operations>,
    query: Given,
    turns: Arc<Semaphore>,
) -> Result<Json<Summary>, Problem> {
    let (query, grouping) = asked(&operations, query)?;
    ask(&operations, &turns, move |shelf| shelf.summary(&query, grouping)).await.map(Json)
}

async fn show(
    State(operations): State<Operations>,
    UrlPath(key): UrlPath<String>,
    turns: Arc<Semaphore>,
) -> Result<Json<ShownReport>, Problem> {
    let shown: String = key.chars().take(100).collect();
    let is_key = !key.is_empty() && key.len() <= 64 && key.bytes().all(|b| b.is_ascii_hexdigit());
    let found = match is_key {
        true => ask(&operations, &turns, move |shelf| shelf.show(&key)).await?,
        false => None,
    };
    found.map(Json).ok_or(Problem::NoReport(shown))
}

async fn ask<T: Send + 'static>(
    operations: &Operations,
    turns: &Arc<Semaphore>,
    question: impl FnOnce(&dyn ReportShelf) -> io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let failed = |why: String| Problem::Reports(why);
    let shelf = operations.reports().ok_or_else(|| failed("the server is not ready yet".into()))?;
    // Whoever does not wait any more leaves the thread its turn.
    let turn = turns.clone().acquire_owned().await.map_err(|error| failed(error.to_string()))?;
    let answer = spawn_blocking(move || {
        let answer = question(&*shelf);
        drop(turn);
        answer
    });
    let answer = answer.await.map_err(|error| failed(error.to_string()))?;
    answer.map_err(|error| failed(error.to_string()))
}

fn asked(operations: &Operations, query: Given) -> Result<(ReportQuery, Grouping), Problem> {
    let Query(asked) = query.map_err(|rejection| Problem::ReportsQuery(rejection.body_text()))?;
    let wrong = |what: &str, text: &str| {
        let shown: String = text.chars().take(100).collect();
        Problem::ReportsQuery(format!("{shown:?} is no {what}"))
    };
    let kind =
        asked.kind.as_deref().map(|kind| Kind::parse(kind).ok_or_else(|| wrong("kind of report", kind)));
    let time = |text: Option<String>| {
        text.map(|text| time(&text, operations.now()).ok_or_else(|| wrong("time", &text))).transpose()
    };
    let grouping = match asked.by.as_deref() {
        None | Some("address") => Grouping::Address,
        Some("network") => Grouping::Network,
        Some(other) => return Err(wrong("grouping: address or network", other)),
    };
    let query = ReportQuery {
        domain: asked.domain.map(|domain| domain.trim_end_matches('.').to_lowercase()),
        kind: kind.transpose()?,
        since: time(asked.since)?,
        until: time(asked.until)?,
        reporter: asked.reporter.map(|reporter| reporter.to_lowercase()),
        cursor: asked.cursor,
        limit: asked.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX),
    };
    Ok((query, grouping))
}

/// A time, the beginning of a day (UTC), or so long ago.
fn time(text: &str, now: Timestamp) -> Option<Timestamp> {
    let ago =
        |span: Duration| Timestamp(now.0.saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)));
    Timestamp::from_rfc3339(text)
        .or_else(|| Timestamp::from_rfc3339(&format!("{text}T00:00:00Z")))
        .or_else(|| config::span_from_text(text).ok().map(ago))
}

/// Look at reports that others have sent us: DMARC, TLS, and on single messages, through the running server.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportsArgs {
    /// The control socket [default: control.sock in the data directory]
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: ReportsCommand,
}

const EXAMPLES: &str = "\
Examples:
  ringpost reports summary --domain example.org --since 7d      who sends as example.org, and does it pass
  ringpost reports summary --domain example.org --by network
  ringpost reports list --kind tls --since 2026-11-01
  ringpost reports list --kind unread                            what came and is no report
  ringpost reports show 0d9f2a51c3e47b8899aabbe2                 all of one; of one that is none, the mail

A time is one such as 2026-02-27T03:30:00Z, a day (UTC) such as 2026-02-27, or a time ago such as 7d.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum ReportsCommand {
    /// Show what is kept, the newest first
    List {
        /// Which.
        #[command(flatten)]
        choice: ReportsChoice,
        /// Reports at most; 0 for all
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
    /// Show one report
    Show {
        /// Its key, as in a list
        key: String,
    },
    /// Put reports together: who sends as a domain, and does it pass; how TLS went
    Summary {
        /// Which.
        #[command(flatten)]
        choice: ReportsChoice,
        /// Tell senders apart by: address, network
        #[arg(long, default_value = "address", value_name = "WHAT")]
        by: String,
        /// Lines of each table at most
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
}

/// Which reports.
#[derive(Debug, Args)]
pub struct ReportsChoice {
    /// About this domain, or what is below it
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,
    /// Of this kind: dmarc, tls, failure, unread
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// About what was then, or later
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// About what was before
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Sent by this domain, as far as that is proven; "" for those of whom it is not
    #[arg(long, value_name = "DOMAIN")]
    pub reporter: Option<String>,
}

/// The command failed.
#[derive(Debug, thiserror::Error)]
pub enum ReportsError {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer could not be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Does what the command line asks.
///
/// # Errors
/// [`ReportsError`]; its text says what to do.
pub fn reports(args: &ReportsArgs, data_dir: &Path, out: &mut dyn Write) -> Result<(), ReportsError> {
    let socket = args.socket.clone().unwrap_or_else(|| data_dir.join(CONTROL_SOCKET));
    let client = Client::new(&socket);
    match &args.command {
        ReportsCommand::List { choice, limit } => {
            let (mut left, mut cursor, mut number) = (if *limit == 0 { usize::MAX } else { *limit }, None, 0);
            loop {
                let more = [("cursor", cursor), ("limit", Some(left.min(1_000).to_string()))];
                let page: ReportPage =
                    client.get(&with_query(PATH, &[&choice.parameters()[..], &more].concat()))?;
                for head in page.reports.iter().take(left) {
                    match args.json {
                        true => json(out, head)?,
                        false => reports_table::line(out, head, number)?,
                    }
                    number += 1;
                }
                left = left.saturating_sub(page.reports.len());
                match page.next {
                    Some(next) if left > 0 => cursor = Some(next),
                    Some(_) | None => break,
                }
            }
            if number == 0 && !args.json {
                writeln!(out, "no report of that kind is kept")?;
            }
        }
        ReportsCommand::Show { key } => {
            let shown: ShownReport = client.get(&format!("{PATH}/{}", plain(key)))?;
            match args.json {
                true => json(out, &shown)?,
                false => reports_table::report(out, &shown)?,
            }
        }
        ReportsCommand::Summary { choice, by, limit } => {
            let more = [("by", Some(by.clone())), ("limit", Some(limit.to_string()))];
            let path = with_query(&format!("{PATH}/summary"), &[&choice.parameters()[..], &more].concat());
            let summary: Summary = client.get(&path)?;
            match args.json {
                true => json(out, &summary)?,
                false => reports_table::summary(out, &summary, choice.domain.as_deref())?,
            }
        }
    }
    Ok(())
}

impl ReportsChoice {
    fn parameters(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("domain", self.domain.clone()),
            ("kind", self.kind.clone()),
            ("since", self.since.clone()),
            ("until", self.until.clone()),
            ("reporter", self.reporter.clone()),
        ]
    }
}

/// What may stand in a path.
fn plain(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

fn json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn times_are_told_in_three_ways() {
        let now = Timestamp::from_secs(1_764_387_000);
        let say = |text: &str| time(text, now).map(Timestamp::to_rfc3339);
        assert_eq!(say("2026-02-27T03:30:00Z").as_deref(), Some("2026-02-27T03:30:00Z"));
        assert_eq!(say("2026-02-27").as_deref(), Some("2026-02-27T00:00:00Z"));
        assert_eq!(say("7d").as_deref(), Some("2025-11-22T03:30:00Z"));
        assert_eq!(say("soon"), None);
        assert_eq!(say(""), None);
    }

    #[test]
    fn reports_are_chosen_by_what_they_are_about() {
        let head: Head = serde_json::from_value(serde_json::json!({
            "key": "0", "kind": "dmarc", "domain": "news.example.org", "organization": "o", "contact": "", "id": "1",
            "begin": "2026-11-27T00:00:00Z", "end": "2026-11-27T23:59:59Z", "messages": 1, "failed": 0,
            "reporter": "google.com", "proof": "dmarc", "from": "", "received": "2026-11-28T02:00:00Z", "mail": "x"
        }))
        .unwrap();
        let of = |change: &dyn Fn(&mut ReportQuery)| {
            let mut query = ReportQuery::default();
            change(&mut query);
            query.matches(&head)
        };
        let at = |text: &str| Timestamp::from_rfc3339(text);
        assert!(of(&|_| ()));
        assert!(of(&|query| query.domain = Some("example.org".into())));
        assert!(of(&|query| query.domain = Some("news.example.org".into())));
        assert!(!of(&|query| query.domain = Some("ws.example.org".into())));
        assert!(of(&|query| query.since = at("2026-11-27T12:00:00Z")));
        assert!(!of(&|query| query.since = at("2026-11-28T00:00:00Z")));
        assert!(of(&|query| query.until = at("2026-11-27T12:00:00Z")));
        assert!(!of(&|query| query.until = at("2026-11-27T00:00:00Z")));
        let below = ReportQuery { domain: Some("x.news.example.org".into()), ..ReportQuery::default() };
        assert!(!below.matches(&head) && below.is_partly(&head));
        assert!(!of(&|query| query.kind = Some(Kind::Tls)));
        assert!(!of(&|query| query.reporter = Some(String::new())));
    }
}
