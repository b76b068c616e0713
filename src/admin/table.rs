//! Answers as people read them.
//!
//! Addresses and replies were written by strangers: what would move a terminal's cursor is not printed.

use std::{
    io::{self, Write},
    time::Duration,
};

use bridge::{Counts, Entry, Explained, Reason, Recipient, Summary};
use mail::{Span, Timestamp};

use crate::tasks::TaskView;

/// One entry of a listing: a line, and under it why it still waits.
pub(crate) fn entry(out: &mut dyn Write, entry: &Entry, now: Timestamp, line: usize) -> io::Result<()> {
    if line == 0 {
        writeln!(
            out,
            "{:13}  {:>7}  {:>9}  {:8}  {:>5}  {:>8}  SENDER -> RECIPIENTS",
            "ID", "AGE", "SIZE", "STATE", "TRIES", "NEXT"
        )?;
    }
    let Some(first) = entry.recipients.first() else { return Ok(()) };
    let others = match entry.recipients_total {
        0 | 1 => String::new(),
        total => format!(" and {} more", total - 1),
    };
    writeln!(
        out,
        "{:13}  {:>7}  {:>9}  {:8}  {:>5}  {:>8}  {} -> {}{others}",
        entry.id.to_string(),
        age(now.saturating_since(entry.received_at)),
        size(entry.size),
        first.state.as_str(),
        first.attempts,
        next(first, now),
        sender(entry),
        printable(&first.address),
    )?;
    match why(first) {
        Some(why) => writeln!(out, "{:13}  {}: {why}", "", printable(&first.destination)),
        None => Ok(()),
    }
}

/// One message, and a paragraph for each recipient.
pub(crate) fn message(out: &mut dyn Write, entry: &Entry, now: Timestamp) -> io::Result<()> {
    writeln!(out, "id          {}", entry.id)?;
    writeln!(out, "received    {} ago", age(now.saturating_since(entry.received_at)))?;
    writeln!(out, "size        {}", size(entry.size))?;
    writeln!(out, "sender      {}", sender(entry))?;
    writeln!(out, "recipients  {} not yet ended", entry.recipients_total)?;
    for recipient in &entry.recipients {
        writeln!(out, "\n{}", printable(&recipient.address))?;
        writeln!(out, "  state        {}", recipient.state.as_str())?;
        writeln!(out, "  destination  {}", printable(&recipient.destination))?;
        writeln!(out, "  attempts     {}", recipient.attempts)?;
        if recipient.due.is_some() {
            writeln!(out, "  next         {}", next(recipient, now))?;
        }
        if let Some(why) = why(recipient) {
            writeln!(out, "  last reply   {why}")?;
        }
        if let Some(category) = &recipient.category {
            writeln!(out, "  about        {}", printable(category))?;
        }
    }
    Ok(())
}

/// Why something waits.
pub(crate) fn explained(out: &mut dyn Write, explained: &Explained, now: Timestamp) -> io::Result<()> {
    writeln!(out, "{} (shard {})", printable(&explained.subject), explained.shard)?;
    for Reason { text, until, set_by, .. } in &explained.reasons {
        write!(out, "  {}", printable(text))?;
        if let Some(until) = until.filter(|until| *until > now) {
            write!(out, "\n    for another {}", age(until.saturating_since(now)))?;
        }
        if let Some(set_by) = set_by {
            write!(out, "\n    set by {}", printable(set_by))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The queue in figures.
pub(crate) fn summary(out: &mut dyn Write, summary: &Summary, now: Timestamp) -> io::Result<()> {
    let Counts { ready, running, deferred, held } = summary.recipients;
    writeln!(out, "messages    {}", summary.messages)?;
    writeln!(
        out,
        "recipients  {}: {ready} ready, {running} running, {deferred} deferred, {held} held",
        summary.recipients.total()
    )?;
    if let Some(oldest) = summary.oldest {
        writeln!(out, "oldest      {}", age(now.saturating_since(oldest)))?;
    }
    for (i, destination) in summary.destinations.iter().enumerate() {
        if i == 0 {
            writeln!(out, "\n   READY  RUNNING  DEFERRED     HELD  DESTINATION")?;
        }
        let Counts { ready, running, deferred, held } = destination.recipients;
        let name = printable(&destination.name);
        write!(out, "{ready:>8} {running:>8}  {deferred:>8} {held:>8}  {name}")?;
        if let Some(site) = &destination.site {
            write!(out, " at {}", printable(site))?;
        }
        match destination.blocked_until.filter(|until| *until > now) {
            Some(until) => writeln!(
                out,
                " (not reached {} times, left alone for {})",
                destination.failures,
                age(until.saturating_since(now))
            )?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

/// How far a task is, in one line.
pub(crate) fn task_progress(out: &mut dyn Write, task: &TaskView) -> io::Result<()> {
    let TaskView { id, matched, changed, looked, of, .. } = task;
    writeln!(
        out,
        "task {id}: looked at {looked} of {of} ({} %), {matched} meant, {changed} changed",
        percent(task)
    )
}

fn percent(task: &TaskView) -> u64 {
    (task.looked * 100).checked_div(task.of).unwrap_or_default().min(100)
}

/// A task, in two lines.
pub(crate) fn task(out: &mut dyn Write, task: &TaskView, number: usize) -> io::Result<()> {
    if number == 0 {
        writeln!(
            out,
            "{:>5}  {:<9}  {:<10}  {:>12}  {:>12}  LOOKED AT",
            "TASK", "ACTION", "STATE", "MEANT", "CHANGED"
        )?;
    }
    let action = if task.dry_run { "count" } else { task.action.as_str() };
    let percent = percent(task);
    writeln!(
        out,
        "{:>5}  {action:<9}  {:<10}  {:>12}  {:>12}  {} of {} ({percent} %)",
        task.id,
        task.state.as_str(),
        task.matched,
        task.changed,
        task.looked,
        task.of
    )?;
    let selector = serde_json::to_string(&task.selector).unwrap_or_default();
    let to = task.to.as_ref().map(|to| format!(" to {}", printable(to))).unwrap_or_default();
    let ended = task.ended_at.as_ref().map(|at| format!(", ended {at}")).unwrap_or_default();
    let anew =
        if task.resumed > 0 { format!(", begun anew after a stop: {}", task.resumed) } else { String::new() };
    let (by, began) = (printable(&task.by), &task.began_at);
    writeln!(out, "       {}{to}, by {by}, began {began}{ended}{anew}", printable(&selector))?;
    match &task.error {
        Some(error) => writeln!(out, "       {}", printable(error)),
        None => Ok(()),
    }
}

fn sender(entry: &Entry) -> String {
    if entry.sender.is_empty() { "<>".into() } else { printable(&entry.sender) }
}

fn next(recipient: &Recipient, now: Timestamp) -> String {
    match recipient.due {
        Some(due) if due > now => format!("in {}", age(due.saturating_since(now))),
        Some(_) => "now".into(),
        None => "-".into(),
    }
}

fn why(recipient: &Recipient) -> Option<String> {
    match (&recipient.reply, recipient.status) {
        (Some(reply), _) => Some(printable(reply)),
        (None, Some(status)) => Some(status.to_string()),
        (None, None) => None,
    }
}

/// The two largest units: nobody wants the seconds of a day.
pub(crate) fn age(duration: Duration) -> String {
    let secs = duration.as_secs();
    let step = match secs {
        0..3_600 => 1,
        3_600..86_400 => 60,
        86_400.. => 3_600,
    };
    Span(Duration::from_secs(secs - secs % step)).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
fn size(bytes: u64) -> String {
    let mut scaled = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if scaled < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{scaled:.1} {unit}") };
        }
        scaled /= 1024.0;
    }
    format!("{scaled:.1} GiB")
}

pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_turning(c) { '?' } else { c }).collect()
}

/// Characters that turn the direction of what follows, or end the line for some terminals.
const fn is_turning(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}'
    )
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn ages_and_sizes_are_short() {
        for (secs, text) in [(0, "0s"), (75, "1m15s"), (7_265, "2h1m"), (187_265, "2d4h")] {
            assert_eq!(age(Duration::from_secs(secs)), text);
        }
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (4301, "4.2 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_reply_cannot_move_the_cursor() {
        assert_eq!(printable("\u{1b}[2Jé\r\n\u{202e}x"), "?[2Jé???x");
        assert_eq!(printable("a\u{61c}b\u{200f}c\u{200e}"), "a?b?c?");
    }
}
