//! The pages of metrics and of log events are written from the lists; `UPDATE_GOLDEN=1` writes them anew.

use std::{env, fmt::Write as _, fs};

use crate::{
    events,
    names::{self, Kind},
};

#[test]
fn metrics_page() {
    let mut page = String::from(METRICS_HEAD);
    for metric in names::ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" ");
        writeln!(page, "| `{}` | {kind} | {labels} | {} |", metric.name, metric.help).unwrap();
    }
    check("metrics.md", &page);
}

#[test]
fn logs_page() {
    let mut page = String::from(LOGS_HEAD);
    for event in events::ALL {
        let (name, help) = (event.name, event.help);
        writeln!(page, "\n### {name}\n\n{help} Level {}, room `{}`.\n", event.level.as_str(), event.room)
            .unwrap();
        writeln!(page, "| field | says |\n|---|---|").unwrap();
        for (field, help) in event.fields {
            writeln!(page, "| `{field}` | {help} |").unwrap();
        }
    }
    check("logs.md", &page);
}

fn check(name: &str, page: &str) {
    let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/{name} is not what the list says: run with UPDATE_GOLDEN=1");
}

const METRICS_HEAD: &str = "\
# Metrics

`GET /metrics` answers in the Prometheus text format, on the HTTP port and on the control socket:

    curl http://127.0.0.1:8080/metrics
    curl --unix-socket DATA/control.sock http://localhost/metrics

Values are those of the moment of the scrape. Each shard has its own series; `sum without (shard)` puts them
together. Times are in seconds, sizes in bytes. A scrape costs the pool some milliseconds and the shards nothing.

Questions and where to look:

| question | query |
|---|---|
| how much mail comes in, goes out? | `sum by (side) (rate(ringpost_messages_total[1m]))` |
| how long does a client wait for its 250? | `histogram_quantile(0.99, sum by (le) (rate(ringpost_journal_commit_seconds_bucket[5m])))` |
| is the disk the limit? | `histogram_quantile(0.99, sum by (le) (rate(ringpost_journal_sync_seconds_bucket[5m])))` |
| what waits? | `sum by (state) (ringpost_queue_recipients)` |
| who does not take our mail? | `topk(10, sum by (site) (rate(ringpost_delivery_outcomes_total{outcome=\"deferred\"}[5m])))` |
| do all cores have the same to do? | `sum by (shard) (ringpost_connections_open{side=\"in\"})` |
| do clients wait for descriptors? | `sum(rate(ringpost_accept_pauses_total[5m]))` |
| do clients wait for memory? | `sum(rate(ringpost_buffer_waits_total[5m]))` |
| alarm | `sum(ringpost_journal_health{state!=\"healthy\"}) > 0` |
| alarm | `increase(ringpost_sessions_panicked_total[5m]) > 0` |

Label values: `side` is `in` (clients to us) or `out` (we to next hops). `site` has a series for each of the busiest
hundred sites of a shard; the rest count as `other`, and a site that was idle gives its series up for a busy one.
`reason` of a refusal is one of the reasons in replies.md.
A connection counts for the shard that serves it, whichever it came to.

| metric | kind | labels | counts |
|---|---|---|---|
";

const LOGS_HEAD: &str = "\
# Logs

One line per message accepted and one per outcome of a recipient; what went wrong; start and stop. More at level
`debug`, per room. Text is for people and `grep`:

    2026-11-20T13:02:51.000042Z info smtp accepted id=0G00000000A1C from=ann@example.org nrcpt=1 size=4096 ...

and JSON for programs, one object a line, with the same fields behind `time`, `level`, `room` and `event`:

    {\"time\":\"2026-11-20T13:02:51.000042Z\",\"level\":\"info\",\"room\":\"smtp\",\"event\":\"accepted\",\"id\":\"0G00000000A1C\",...}

To follow a message, search for its id, which its client got in the 250:

    grep 0G00000000A1C ringpost.log

A field without a value is left out. Times are in UTC, durations in seconds. In text, a value stands in quotes when it
has spaces or is empty. What a peer sent cannot break a line: quotes, backslashes and control characters are
escaped, and values end after a thousand bytes.

Lines are written by a thread of their own, some twenty milliseconds late at most. When it cannot keep up, lines are
dropped, counted in `ringpost_log_lines_dropped_total` and told of in `lines_dropped`; mail does not wait for its log.
SIGHUP opens the file again, for rotation.

## Events

What rooms and libraries say beside the list stands in lines with the event `said` and the field `text`. The runtime and
the index also name the place within them, in the field `target`; of what they say, `log.libraries` is the most that is
written.
";
