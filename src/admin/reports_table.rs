//! Reports as people read them.
//!
//! Strangers have written all of it: what would move a terminal's cursor is not printed.

use std::io::{self, Write};

use report::received::{Failure, FailureDetails, Head, Kind, PolicyResults, Row, Summary, Told};

use crate::{reports::ShownReport, table::printable};

/// One report of a list.
pub(crate) fn line(out: &mut dyn Write, head: &Head, number: usize) -> io::Result<()> {
    if number == 0 {
        writeln!(
            out,
            "{:24}  {:7}  {:10}  {:>9}  {:>9}  DOMAIN, WHO REPORTS",
            "KEY", "KIND", "DAY", "MESSAGES", "FAILED"
        )?;
    }
    let day = head.end.get(..10).unwrap_or_default();
    write!(
        out,
        "{:24}  {:7}  {day:10}  {:>9}  {:>9}  ",
        printable(&head.key),
        head.kind,
        head.messages,
        head.failed
    )?;
    match head.kind {
        Kind::Unread => writeln!(out, "{} ({})", printable(&head.reason), who(head)),
        Kind::Dmarc | Kind::Tls | Kind::Failure => {
            writeln!(out, "{}, {}", printable(&head.domain), who(head))
        }
    }
}

/// As what somebody names himself, and who he is as far as that is proven.
fn who(head: &Head) -> String {
    let named = if head.organization.is_empty() { &head.from } else { &head.organization };
    match &*head.reporter {
        "" => format!("{}, which nothing proves", printable(named)),
        reporter => format!("{} by {} ({})", printable(named), printable(reporter), head.proof),
    }
}

/// All of a report.
pub(crate) fn report(out: &mut dyn Write, shown: &ShownReport) -> io::Result<()> {
    let head = &shown.head;
    let mut pair = |name: &str, value: &str| match value {
        "" => Ok(()),
        value => writeln!(out, "{name:9}  {}", printable(value)),
    };
    pair("kind", head.kind.as_str())?;
    pair("domain", &head.domain)?;
    pair("from", &head.begin)?;
    pair("to", &head.end)?;
    pair("by", &who(head))?;
    pair("contact", &head.contact)?;
    pair("id", &head.id)?;
    let by = if head.mail.is_empty() { "by HTTPS".to_owned() } else { format!("as {}", head.mail) };
    pair("came", &format!("{} {by}", head.received))?;
    pair("why not", &head.reason)?;
    if head.kind != Kind::Unread {
        pair("messages", &format!("{}, {} of them did not pass", head.messages, head.failed))?;
    }
    match (&shown.told, &shown.content) {
        (Some(Told::Dmarc(aggregate)), _) => {
            let policy: Vec<_> =
                aggregate.policy.iter().map(|(tag, value)| format!("{tag}={value}")).collect();
            writeln!(out, "policy     {}", printable(&policy.join("; ")))?;
            for error in &aggregate.errors {
                writeln!(out, "error      {}", printable(error))?;
            }
            if aggregate.more > 0 {
                writeln!(out, "more       {} messages are in no row here", aggregate.more)?;
            }
            if aggregate.malformed > 0 {
                writeln!(out, "malformed  {} rows make no sense", aggregate.malformed)?;
            }
            aggregate.rows.iter().try_for_each(|one| row(out, one))
        }
        (Some(Told::Tls(policies)), _) => policies.iter().try_for_each(|one| policy(out, one)),
        (Some(Told::Failure(one)), _) => failure(out, one),
        (None, Some(_)) => writeln!(out, "\nthe mail itself is in the JSON (--json), in base64"),
        (None, None) => Ok(()),
    }
}

fn row(out: &mut dyn Write, row: &Row) -> io::Result<()> {
    let word = |passed| if passed { "pass" } else { "fail" };
    write!(
        out,
        "\n{}  {} messages  {}",
        row.source,
        row.count,
        if row.passed() { "passed" } else { "FAILED" }
    )?;
    writeln!(out, "  (dkim {}, spf {}; {})", word(row.dkim), word(row.spf), printable(&row.disposition))?;
    write!(out, "  from {}", printable(&row.header_from))?;
    if !row.envelope_from.is_empty() {
        write!(out, ", envelope from {}", printable(&row.envelope_from))?;
    }
    if !row.envelope_to.is_empty() {
        write!(out, ", envelope to {}", printable(&row.envelope_to))?;
    }
    writeln!(out)?;
    for one in &row.signatures {
        let (domain, selector) = (printable(&one.domain), printable(&one.selector));
        writeln!(
            out,
            "  dkim {} of {domain}, selector {selector} {}",
            printable(&one.result),
            printable(&one.reason)
        )?;
    }
    for one in &row.senders {
        let (result, domain) = (printable(&one.result), printable(&one.domain));
        writeln!(out, "  spf {result} of {domain} {} {}", printable(&one.scope), printable(&one.reason))?;
    }
    for one in &row.reasons {
        writeln!(out, "  overridden: {} {}", printable(&one.kind), printable(&one.comment))?;
    }
    Ok(())
}

fn policy(out: &mut dyn Write, policy: &PolicyResults) -> io::Result<()> {
    let (kind, good, bad) = (printable(&policy.kind), policy.successes, policy.failures);
    writeln!(out, "\npolicy {kind}: {good} sessions were good, {bad} failed")?;
    if !policy.mx.is_empty() {
        writeln!(out, "  mx {}", printable(&policy.mx.join(", ")))?;
    }
    for line in &policy.policy {
        writeln!(out, "  | {}", printable(line))?;
    }
    for details in &policy.details {
        let FailureDetails { result, from, host, to, count, reason, information, .. } = details;
        write!(out, "  {count} × {}", printable(result))?;
        for (word, value) in [("at", host), ("address", to), ("from", from)] {
            if !value.is_empty() {
                write!(out, ", {word} {}", printable(value))?;
            }
        }
        for value in [reason, information].into_iter().filter(|value| !value.is_empty()) {
            write!(out, ": {}", printable(value))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn failure(out: &mut dyn Write, failure: &Failure) -> io::Result<()> {
    let source = failure.source.map(|source| source.to_string()).unwrap_or_default();
    let pairs = [
        ("failed", &*failure.auth_failure),
        ("alignment", &failure.alignment),
        ("delivery", &failure.delivery_result),
        ("source", &source),
        ("author", &failure.author),
        ("mail from", &failure.mail_from),
        ("subject", &failure.subject),
        ("message", &failure.message_id),
        ("dkim", &failure.dkim_domain),
        ("selector", &failure.dkim_selector),
        ("results", &failure.results),
    ];
    pairs
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .try_for_each(|(name, value)| writeln!(out, "{name:9}  {}", printable(value)))
}

/// Reports put together.
pub(crate) fn summary(out: &mut dyn Write, summary: &Summary, domain: Option<&str>) -> io::Result<()> {
    if summary.reports == 0 {
        return writeln!(out, "no report of that kind is kept");
    }
    let about = domain.map_or("all domains".to_owned(), |domain| format!("{domain} and below"));
    writeln!(
        out,
        "{}: {} reports, {} to {}",
        printable(&about),
        summary.reports,
        summary.begin,
        summary.end
    )?;
    if summary.cut {
        writeln!(out, "there are more reports than were looked at: name a shorter time")?;
    }
    if summary.messages > 0 {
        let (all, passed) = (summary.messages, summary.passed);
        writeln!(out, "{all} messages, of which {passed} passed DMARC ({})", percent(passed, all))?;
    }
    if !summary.sources.is_empty() {
        writeln!(
            out,
            "\n{:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  {:<20}  FROM, STOOD BY",
            "MESSAGES", "PASSED", "FAILED", "DKIM", "SPF", "QUARANT.", "REJECTED", "SOURCE"
        )?;
    }
    for line in &summary.sources {
        write!(
            out,
            "{:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}  {:<20}  {}",
            line.messages,
            line.passed,
            line.failed,
            line.dkim_aligned,
            line.spf_aligned,
            line.quarantined,
            line.rejected,
            line.source,
            printable(&line.header_from)
        )?;
        if !line.dkim.is_empty() {
            write!(out, ", dkim {}", printable(&line.dkim))?;
        }
        if !line.spf.is_empty() {
            write!(out, ", spf {}", printable(&line.spf))?;
        }
        for (kind, count) in &line.overrides {
            write!(out, ", {} {count}", printable(kind))?;
        }
        writeln!(out)?;
    }
    if summary.others > 0 {
        writeln!(out, "{:>9} messages more are in no line", summary.others)?;
    }
    if summary.sessions > 0 {
        let good = summary.sessions.saturating_sub(summary.failed_sessions);
        writeln!(
            out,
            "\n{} TLS sessions, of which {good} were good ({})",
            summary.sessions,
            percent(good, summary.sessions)
        )?;
        writeln!(out, "{:>9} {:>9}  POLICY", "GOOD", "FAILED")?;
    }
    for line in &summary.policies {
        let (domain, kind) = (printable(&line.domain), printable(&line.kind));
        writeln!(out, "{:>9} {:>9}  {kind} of {domain}", line.successes, line.failures)?;
        for failure in &line.details {
            let (result, host, to) =
                (printable(&failure.result), printable(&failure.host), printable(&failure.to));
            write!(out, "{:>9} {:>9}    {result}", "", failure.count)?;
            if !host.is_empty() {
                write!(out, " at {host}")?;
            }
            if !to.is_empty() {
                write!(out, " {to}")?;
            }
            match &*failure.reason {
                "" => writeln!(out)?,
                reason => writeln!(out, ": {}", printable(reason))?,
            }
        }
    }
    if !summary.failures.is_empty() {
        writeln!(out, "\n{:>9}  SINGLE MESSAGES THAT FAILED", "MESSAGES")?;
    }
    for line in &summary.failures {
        let (domain, what) = (printable(&line.domain), printable(&line.auth_failure));
        writeln!(out, "{:>9}  {domain}: {what} {}", line.count, line.source)?;
    }
    writeln!(out, "\n{:>9} {:>9} {:>9}  REPORTER", "REPORTS", "MESSAGES", "FAILED")?;
    for line in &summary.reporters {
        let reporter = match &*line.reporter {
            "" => "which nothing proves".to_owned(),
            reporter => format!("by {}", printable(reporter)),
        };
        let organization = printable(&line.organization);
        writeln!(
            out,
            "{:>9} {:>9} {:>9}  {organization}, {reporter}",
            line.reports, line.messages, line.failed
        )?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}
