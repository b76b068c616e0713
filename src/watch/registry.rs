//! Where the values meet: series are made here, and written down for a scrape.
//!
//! Counters and gauges go out through the Prometheus recorder, which also takes what a library counts
//! with the `metrics` macros. Histograms and sites are written here: a value in the recorder's histogram
//! costs nine times a value in ours and stays in memory until somebody drains it, and its series
//! cannot be given back. Its counters cost five times ours, so they are only told the sum, at a scrape
//! (`cargo bench -p bench --bench watch`).

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use metrics::{Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::{
    Aligned, BimiFetch, BimiFetchMetrics, Counter, DmarcFailure, DmarcFailureMetrics, Gauge, Histogram,
    HttpMetrics, Outcome, ProcessMetrics, ReportIn, ReportPost, ReportsInMetrics, ShardMetrics, SiteTable,
    TenancyMetrics, UnsubscribeMetrics, Unsubscription,
    cell::{HistogramReader, Slab},
    metrics::{Counted as _, OTHER, Reload},
    names::{self, Kind, Metric, Unit},
    sites::SiteSeries,
};

/// All series of the process.
#[derive(Debug)]
pub struct Registry {
    recorder: Arc<PrometheusRecorder>,
    scrape: PrometheusHandle,
    series: Mutex<Series>,
}

#[derive(Debug, Default)]
struct Series {
    counters: Vec<(&'static AtomicU64, metrics::Counter)>,
    gauges: Vec<(&'static AtomicU64, metrics::Gauge, Unit)>,
    histograms: Vec<(&'static Metric, usize, HistogramReader)>,
    sites: Vec<(usize, Arc<Mutex<Vec<SiteSeries>>>)>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// A registry of its own, with nothing in it.
    pub fn new() -> Self {
        let recorder = Arc::new(PrometheusBuilder::new().build_recorder());
        for metric in names::ALL {
            match metric.kind {
                Kind::Counter => recorder.describe_counter(metric.name.into(), None, metric.help.into()),
                Kind::Gauge => recorder.describe_gauge(metric.name.into(), None, metric.help.into()),
                // Written here, not by the recorder.
                Kind::Histogram(_) => {}
            }
        }
        let scrape = recorder.handle();
        Self { recorder, scrape, series: Mutex::default() }
    }

    /// Lets the `metrics` macros of libraries count here too; only the first registry can have this.
    pub fn install(&self) {
        // A second registry in one process is a test's: its libraries count in the first.
        let _ = metrics::set_global_recorder(Arc::clone(&self.recorder));
    }

    /// Makes the handles of a shard. `refusals` are the labels it may count refusals under.
    pub fn shard(&self, shard: usize, refusals: &[&'static str]) -> ShardMetrics {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let slab = Slab::default();
        let mut builder = ShardBuilder {
            shard,
            text: shard.to_string(),
            slab,
            series: &mut series,
            recorder: &self.recorder,
        };
        ShardMetrics::new(&mut builder, refusals)
    }

    /// Makes the handles of the process, which started then (microseconds since 1970).
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float: good to a microsecond until 2255")]
    pub fn process(&self, version: &'static str, started_at: u64) -> ProcessMetrics {
        let counter = |metric: &Metric, values: &[&'static str]| {
            self.recorder.register_counter(&key(metric, values), &METADATA)
        };
        let gauge = |metric: &Metric, values: &[&'static str]| {
            self.recorder.register_gauge(&key(metric, values), &METADATA)
        };
        gauge(&names::BUILD_INFO, &[version]).set(1.0);
        gauge(&names::START_TIME, &[]).set(started_at as f64 / 1e6);
        ProcessMetrics {
            log_lines_dropped: counter(&names::LOG_LINES_DROPPED, &[]),
            renewals: [Reload::Done, Reload::Refused].map(|r| counter(&names::RENEWALS, &[r.label()])),
            reloads: [Reload::Done, Reload::Refused].map(|r| counter(&names::RELOADS, &[r.label()])),
            upgrades: [Reload::Done, Reload::Refused].map(|r| counter(&names::UPGRADES, &[r.label()])),
            predecessor_sessions: gauge(&names::PREDECESSOR_SESSIONS, &[]),
            clients_tracked: gauge(&names::CLIENTS_TRACKED, &[]),
            disk_bytes: gauge(&names::DISK_BYTES, &[]),
            disk_max_bytes: gauge(&names::DISK_MAX_BYTES, &[]),
            open_fds: gauge(&names::OPEN_FDS, &[]),
            max_fds: gauge(&names::MAX_FDS, &[]),
            resident_bytes: gauge(&names::RESIDENT_BYTES, &[]),
            cpu_seconds: counter(&names::CPU_SECONDS, &[]),
        }
    }

    /// Makes the handles of mail that comes by HTTP. `statuses` are those it may answer with, as labels and numbers.
    pub fn http(&self, statuses: &[(u16, &'static str)]) -> HttpMetrics {
        let counter = |metric: &Metric, values: &[&'static str]| {
            self.recorder.register_counter(&key(metric, values), &METADATA)
        };
        let of_status = |label| counter(&names::HTTP_REQUESTS, &[label]);
        HttpMetrics {
            requests: statuses.iter().map(|(status, label)| (*status, of_status(label))).collect(),
            requests_other: of_status(OTHER),
            accepted: counter(&names::HTTP_MESSAGES, &["accepted"]),
            refused: counter(&names::HTTP_MESSAGES, &["refused"]),
            bytes: counter(&names::HTTP_BYTES, &[]),
            replays: counter(&names::HTTP_REPLAYS, &[]),
            memory: self.recorder.register_gauge(&key(&names::HTTP_MEMORY, &[]), &METADATA),
        }
    }

    /// Makes the handles of what is counted of tenants. `reasons` are those for which somebody is on a suppression list.
    pub fn tenancy(&self, reasons: &[&'static str]) -> TenancyMetrics {
        let counter = |metric: &Metric, values: &[&'static str]| {
            self.recorder.register_counter(&key(metric, values), &METADATA)
        };
        let gauge = |metric: &Metric| self.recorder.register_gauge(&key(metric, &[]), &METADATA);
        let of_reason = |reason| (reason, counter(&names::SUPPRESSIONS_ADDED, &[reason]));
        TenancyMetrics {
            suppressions: gauge(&names::SUPPRESSIONS),
            added: reasons.iter().copied().map(of_reason).collect(),
            lost: counter(&names::SUPPRESSIONS_LOST, &[]),
            remembered: gauge(&names::DUPLICATES_REMEMBERED),
        }
    }

    /// Makes the handles of reports that come to us. `reasons` are those for which a message is none.
    pub fn reports_in(&self, reasons: &[&'static str]) -> ReportsInMetrics {
        let counter = |metric: &Metric, values: &[&'static str]| {
            self.recorder.register_counter(&key(metric, values), &METADATA)
        };
        let gauge = |metric: &Metric| self.recorder.register_gauge(&key(metric, &[]), &METADATA);
        let reports = |kind: &ReportIn| {
            ["new", "known"].map(|result| counter(&names::REPORTS_IN, &[kind.label(), result]))
        };
        let of_reason = |reason| (reason, counter(&names::REPORTS_IN_UNREAD, &[reason]));
        let messages = |aligned: &Aligned| counter(&names::REPORTS_IN_MESSAGES, &[aligned.label()]);
        ReportsInMetrics {
            reports: ReportIn::ALL.iter().map(reports).collect(),
            messages: Aligned::ALL.iter().map(messages).collect(),
            sessions: ["ok", "failed"].map(|result| counter(&names::REPORTS_IN_SESSIONS, &[result])),
            unread: reasons.iter().copied().map(of_reason).collect(),
            kept: gauge(&names::REPORTS_IN_KEPT),
            bytes: gauge(&names::REPORTS_IN_BYTES),
            evicted: counter(&names::REPORTS_IN_EVICTED, &[]),
            posts: ReportPost::ALL
                .iter()
                .map(|result| counter(&names::REPORTS_IN_POSTS, &[result.label()]))
                .collect(),
        }
    }

    /// Makes the handles of those who leave lists.
    pub fn unsubscribe(&self) -> UnsubscribeMetrics {
        let of = |result: &Unsubscription| {
            self.recorder.register_counter(&key(&names::UNSUBSCRIPTIONS, &[result.label()]), &METADATA)
        };
        UnsubscribeMetrics(Unsubscription::ALL.iter().map(of).collect())
    }

    /// What becomes of fetching pictures of domains.
    pub fn bimi_fetches(&self) -> BimiFetchMetrics {
        let of = |result: &BimiFetch| {
            self.recorder.register_counter(&key(&names::BIMI_FETCHES, &[result.label()]), &METADATA)
        };
        BimiFetchMetrics(BimiFetch::ALL.iter().map(of).collect())
    }

    /// What becomes of reports on messages that failed.
    pub fn dmarc_failures(&self) -> DmarcFailureMetrics {
        let of = |result: &DmarcFailure| {
            self.recorder.register_counter(&key(&names::DMARC_FAILURES, &[result.label()]), &METADATA)
        };
        DmarcFailureMetrics(DmarcFailure::ALL.iter().map(of).collect())
    }

    /// What a tenant of the configuration has sent in a period, and its quota. There are as many series as tenants were
    /// configured since the start.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is more than there are")]
    pub fn set_tenant(&self, tenant: &str, period: &'static str, used: u64, max: Option<u64>) {
        let gauge = |metric: &Metric| {
            let labels = vec![Label::new("tenant", tenant.to_owned()), Label::new("period", period)];
            self.recorder.register_gauge(&Key::from_parts(metric.name, labels), &METADATA)
        };
        gauge(&names::TENANT_RECIPIENTS).set(used as f64);
        if let Some(max) = max {
            gauge(&names::TENANT_RECIPIENTS_MAX).set(max as f64);
        }
    }

    /// What came of questions to a list of the DNS, and whether it is set aside. There are as many series as lists were
    /// configured since the start.
    pub fn set_list(&self, list: &str, answers: &[(&'static str, u64)], aside: bool) {
        let of_list = Label::new("list", list.to_owned());
        for (result, count) in answers {
            let labels = vec![of_list.clone(), Label::new("result", *result)];
            let key = Key::from_parts(names::LIST_ANSWERS.name, labels);
            self.recorder.register_counter(&key, &METADATA).absolute(*count);
        }
        let key = Key::from_parts(names::LIST_ASIDE.name, vec![of_list]);
        self.recorder.register_gauge(&key, &METADATA).set(f64::from(u8::from(aside)));
    }

    /// How the keys of an entry are that are renewed: so many in each state, whether the DNS shows those that sign, so many records to
    /// see to by hand, so many that are overdue, and changes of the DNS that were done and that failed. There are as many series as entries were configured since the
    /// start.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is more than there are")]
    pub fn set_dkim(
        &self,
        key: &str,
        states: &[(&'static str, usize)],
        published: Option<bool>,
        (by_hand, overdue): (usize, usize),
        (done, failed): (u64, u64),
    ) {
        let of_key = Label::new("key", key.to_owned());
        let series = |metric: &Metric, more: Option<Label>| {
            Key::from_parts(metric.name, [of_key.clone()].into_iter().chain(more).collect::<Vec<_>>())
        };
        let gauge = |key: &Key, value: f64| self.recorder.register_gauge(key, &METADATA).set(value);
        for (state, count) in states {
            gauge(&series(&names::DKIM_KEYS, Some(Label::new("state", *state))), *count as f64);
        }
        if let Some(published) = published {
            gauge(&series(&names::DKIM_PUBLISHED, None), f64::from(u8::from(published)));
        }
        gauge(&series(&names::DKIM_BY_HAND, None), by_hand as f64);
        gauge(&series(&names::DKIM_OVERDUE, None), overdue as f64);
        for (result, count) in [("done", done), ("failed", failed)] {
            let key = series(&names::DKIM_UPDATES, Some(Label::new("result", result)));
            self.recorder.register_counter(&key, &METADATA).absolute(count);
        }
    }

    /// How bad the worst is that a check of a domain has found; none: it finds nothing any more. There are as many series as domains were
    /// configured since the start, times checks.
    pub fn set_deliverability(&self, domain: &str, check: &'static str, level: Option<u8>) {
        let labels = vec![Label::new("domain", domain.to_owned()), Label::new("check", check)];
        let key = Key::from_parts(names::DELIVERABILITY.name, labels);
        self.recorder.register_gauge(&key, &METADATA).set(level.map_or(f64::NAN, f64::from));
    }

    /// Of so many is it remembered what they did.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is more than there are")]
    pub fn set_reputations(&self, entries: u64) {
        self.recorder.register_gauge(&key(&names::REPUTATIONS, &[]), &METADATA).set(entries as f64);
    }

    /// So much is remembered for greylisting, and so much had to be forgotten before its time.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is more than there are")]
    pub fn set_greylist(&self, entries: u64, evicted: u64) {
        self.recorder.register_gauge(&key(&names::GREYLIST_ENTRIES, &[]), &METADATA).set(entries as f64);
        self.recorder.register_counter(&key(&names::GREYLIST_EVICTED, &[]), &METADATA).absolute(evicted);
    }

    /// Keeps what libraries have recorded from growing; call it every few seconds.
    pub fn upkeep(&self) {
        self.scrape.run_upkeep();
    }

    /// All values now, in the Prometheus text format.
    pub fn render(&self) -> String {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        for (cell, counter) in &series.counters {
            counter.absolute(cell.load(Relaxed));
        }
        for (cell, gauge, unit) in &series.gauges {
            gauge.set(scaled(cell.load(Relaxed), *unit));
        }
        let mut text = self.scrape.render();
        for metric in names::ALL {
            let of_metric = series.histograms.iter().filter(|(m, ..)| m.name == metric.name);
            for (i, (_, shard, histogram)) in of_metric.enumerate() {
                if i == 0 {
                    head(&mut text, metric, "histogram");
                }
                write_histogram(&mut text, metric, *shard, histogram);
            }
        }
        head(&mut text, &names::DELIVERY_OUTCOMES, "counter");
        for (shard, sites) in &series.sites {
            write_sites(&mut text, *shard, &sites.lock().unwrap_or_else(PoisonError::into_inner));
        }
        text
    }
}

/// Makes the series of one shard.
pub(crate) struct ShardBuilder<'a> {
    shard: usize,
    text: String,
    slab: Slab,
    series: &'a mut Series,
    recorder: &'a PrometheusRecorder,
}

impl ShardBuilder<'_> {
    pub(crate) fn counter(&mut self, metric: &'static Metric, values: &[&'static str]) -> Counter {
        let counter = self.slab.counter();
        let handle = self.recorder.register_counter(&self.key(metric, values), &METADATA);
        self.series.counters.push((counter.0, handle));
        counter
    }

    pub(crate) fn gauge(&mut self, metric: &'static Metric, values: &[&'static str]) -> Gauge {
        let gauge = self.slab.gauge();
        let handle = self.recorder.register_gauge(&self.key(metric, values), &METADATA);
        self.series.gauges.push((gauge.0, handle, metric.unit));
        gauge
    }

    pub(crate) fn histogram(&mut self, metric: &'static Metric) -> Histogram {
        let Kind::Histogram(bounds) = metric.kind else { unreachable!("{} is no histogram", metric.name) };
        let histogram = self.slab.histogram(bounds);
        self.series.histograms.push((metric, self.shard, histogram.reader()));
        histogram
    }

    pub(crate) fn sites(&mut self, metric: &'static Metric) -> SiteTable {
        assert_eq!(metric, &names::DELIVERY_OUTCOMES, "the only metric with sites");
        let (table, shown) = SiteTable::new(SITES_MAX);
        self.series.sites.push((self.shard, shown));
        table
    }

    fn key(&self, metric: &Metric, values: &[&'static str]) -> Key {
        let mut labels = vec![Label::new("shard", self.text.clone())];
        assert_eq!(metric.labels.len(), values.len() + 1, "{}: a value per label", metric.name);
        labels.extend(metric.labels[1..].iter().zip(values).map(|(name, value)| Label::new(*name, *value)));
        Key::from_parts(metric.name, labels)
    }
}

/// Series of sites per shard; with the three outcomes, three lines of a scrape each.
const SITES_MAX: usize = 100;

const METADATA: Metadata<'static> = Metadata::new("watch", Level::INFO, None);

fn key(metric: &Metric, values: &[&'static str]) -> Key {
    assert_eq!(metric.labels.len(), values.len(), "{}: a value per label", metric.name);
    let labels = metric.labels.iter().zip(values).map(|(name, value)| Label::new(*name, *value));
    Key::from_parts(metric.name, labels.collect::<Vec<_>>())
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus numbers are floats")]
fn scaled(value: u64, unit: Unit) -> f64 {
    match unit {
        Unit::Count | Unit::Bytes => value as f64,
        Unit::Seconds => value as f64 / 1e6,
    }
}

fn head(text: &mut String, metric: &Metric, kind: &str) {
    let name = metric.name;
    let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
}

fn write_histogram(text: &mut String, metric: &Metric, shard: usize, histogram: &HistogramReader) {
    let name = metric.name;
    let mut below = 0;
    let mut bounds = histogram.bounds.iter();
    for count in histogram.buckets() {
        below += count;
        let _ = match bounds.next() {
            Some(bound) => {
                let bound = scaled(*bound, metric.unit);
                writeln!(text, "{name}_bucket{{shard=\"{shard}\",le=\"{bound}\"}} {below}")
            }
            None => writeln!(text, "{name}_bucket{{shard=\"{shard}\",le=\"+Inf\"}} {below}"),
        };
    }
    let sum = scaled(histogram.sum(), metric.unit);
    let _ =
        writeln!(text, "{name}_sum{{shard=\"{shard}\"}} {sum}\n{name}_count{{shard=\"{shard}\"}} {below}");
}

fn write_sites(text: &mut String, shard: usize, sites: &[SiteSeries]) {
    let name = names::DELIVERY_OUTCOMES.name;
    for series in sites {
        for (outcome, cell) in Outcome::ALL.iter().zip(series.cells) {
            let (outcome, value) = (outcome.label(), cell.load(Relaxed));
            let _ = write!(text, "{name}{{shard=\"{shard}\",site=\"");
            write_escaped(text, &series.site);
            let _ = writeln!(text, "\",outcome=\"{outcome}\"}} {value}");
        }
    }
}

/// A label's value comes from a recipient's domain: it must not end its line or its quotes.
fn write_escaped(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
#[path = "registry_test.rs"]
mod test;
