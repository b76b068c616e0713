//! `ringpost sources`: from where mail leaves, whether that is fit for use, and how new addresses come into use.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use axum::{Json, extract::State};
use bridge::{PlanView, SourceView};
use clap::Args;
use mail::Timestamp;

use crate::{CONTROL_SOCKET, ClientError, Operations, client::Client, table};

/// Look at the sources that mail leaves from, through the running server.
#[derive(Debug, Args)]
pub struct SourcesArgs {
    /// The control socket [default: control.sock in the data directory]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Answer in JSON: one object a line
    #[arg(long)]
    pub json: bool,
}

/// The command failed.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer could not be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Prints what the server on this data directory knows of its sources. `now` is for ages.
///
/// # Errors
/// [`SourcesError`]; its text says what to do.
pub fn sources(
    args: &SourcesArgs,
    data_dir: &Path,
    now: Timestamp,
    out: &mut dyn Write,
) -> Result<(), SourcesError> {
    let socket = args.socket.clone().unwrap_or_else(|| data_dir.join(CONTROL_SOCKET));
    let sources: Vec<SourceView> = Client::new(&socket).get("/api/v1/sources")?;
    if args.json {
        for source in &sources {
            serde_json::to_writer(&mut *out, source).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        return Ok(());
    }
    if sources.is_empty() {
        writeln!(out, "there are no sources: mail leaves from whatever address the kernel chooses")?;
    }
    for source in &sources {
        print(out, source, now)?;
    }
    Ok(())
}

pub(crate) async fn answer(State(operations): State<Operations>) -> Json<Vec<SourceView>> {
    Json(operations.sources())
}

fn print(out: &mut dyn Write, source: &SourceView, now: Timestamp) -> io::Result<()> {
    let addresses: Vec<_> = source.addresses.iter().map(ToString::to_string).collect();
    write!(out, "{}  {}", source.name, source.standing.as_str())?;
    if let Some(since) = source.since {
        write!(out, " for {}", table::age(now.saturating_since(since)))?;
    }
    writeln!(out)?;
    if let Some(reason) = &source.reason {
        writeln!(out, "  {}", table::printable(reason))?;
    }
    if !addresses.is_empty() {
        writeln!(out, "  addresses    {}", addresses.join(", "))?;
    }
    if let Some(proxy) = source.proxy {
        writeln!(out, "  proxy        {proxy}")?;
    }
    writeln!(
        out,
        "  pools        {}",
        if source.pools.is_empty() { "none".into() } else { source.pools.join(", ") }
    )?;
    if let Some(connections) = source.connections {
        writeln!(out, "  connections  {connections}")?;
    }
    for listing in &source.listings {
        writeln!(out, "  listed       {}", table::printable(listing))?;
    }
    for plan in &source.plans {
        writeln!(out, "  warm-up      {}", plan_text(plan, now))?;
    }
    Ok(())
}

fn plan_text(plan: &PlanView, now: Timestamp) -> String {
    let site = plan.site.as_ref().map_or_else(String::new, |site| format!(" for {site}"));
    let day = match (plan.day, plan.cap) {
        (None, _) => "has not begun".to_owned(),
        (Some(day), Some(cap)) => format!("day {day}: {} of {cap} messages", plan.sent),
        (Some(day), None) => format!("day {day}: {} messages, no limit any more", plan.sent),
    };
    let answered =
        format!("{} answered, {} refused, {} complaints", plan.answered, plan.refused, plan.complaints);
    let paused = match plan.paused_until.filter(|until| *until > now) {
        Some(until) => format!("; pauses for another {}", table::age(until.saturating_since(now))),
        None => String::new(),
    };
    format!("{}{site}, {day}; {answered}{paused}", plan.name)
}

#[cfg(test)]
mod test {
    use bridge::SourceStanding;

    use super::*;

    #[test]
    fn as_people_read_it() {
        let plan = PlanView {
            name: "new".into(),
            site: Some("google".into()),
            day: Some(2),
            cap: Some(100),
            sent: 7,
            answered: 6,
            refused: 1,
            complaints: 0,
            paused_until: Some(Timestamp::from_secs(1060)),
        };
        let source = SourceView {
            name: "a".into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            proxy: None,
            pools: vec!["bulk".into()],
            standing: SourceStanding::Out,
            reason: Some("this host does not have its address".into()),
            since: Some(Timestamp::from_secs(940)),
            listings: vec!["192.0.2.1 is on the list b (127.0.0.2)".into()],
            connections: Some(3),
            plans: vec![plan],
        };
        let mut out = Vec::new();
        print(&mut out, &source, Timestamp::from_secs(1000)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "a  out for 1m\n  this host does not have its address\n  addresses    192.0.2.1\n  pools        bulk\n  \
             connections  3\n  listed       192.0.2.1 is on the list b (127.0.0.2)\n  warm-up      new for google, day 2: \
             7 of 100 messages; 6 answered, 1 refused, 0 complaints; pauses for another 1m\n"
        );
        let unlimited = PlanView { site: None, cap: None, paused_until: None, ..source.plans[0].clone() };
        assert!(plan_text(&unlimited, Timestamp::default()).starts_with("new, day 2: 7 messages, no limit"));
    }
}
