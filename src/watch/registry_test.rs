//! What is counted is what is scraped.

use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::{JournalHealth, QueueState, Verb};

fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series))?;
    line.trim().parse().ok()
}

#[test]
fn values_come_out_under_their_names() {
    let registry = Registry::new();
    let (zero, one) = (registry.shard(0, &["relay_denied"]), registry.shard(1, &["relay_denied"]));
    zero.inbound.messages.one();
    one.inbound.messages.add(2);
    zero.inbound.commands.of(Verb::Bdat).add(3);
    zero.inbound.refusal("relay_denied").one();
    zero.inbound.refusal("never announced").add(2);
    zero.queue.recipients.of(QueueState::Held).set(4);
    zero.queue.oldest.set(1_500_000);
    one.journal.set_health(JournalHealth::Full);
    zero.journal.sync.record_duration(Duration::from_micros(70));
    zero.journal.sync.record_duration(Duration::from_secs(100));
    zero.delivery.sites.borrow_mut().count("mx:example.org", Outcome::Deferred, 5);
    let text = registry.render();
    for (series, expected) in [
        (r#"ringpost_messages_total{shard="0",side="in"}"#, 1.0),
        (r#"ringpost_messages_total{shard="1",side="in"}"#, 2.0),
        (r#"ringpost_commands_total{shard="0",verb="bdat"}"#, 3.0),
        (r#"ringpost_refusals_total{shard="0",reason="relay_denied"}"#, 1.0),
        (r#"ringpost_refusals_total{shard="0",reason="other"}"#, 2.0),
        (r#"ringpost_queue_recipients{shard="0",state="held"}"#, 4.0),
        (r#"ringpost_queue_oldest_seconds{shard="0"}"#, 1.5),
        (r#"ringpost_journal_health{shard="1",state="full"}"#, 1.0),
        (r#"ringpost_journal_health{shard="1",state="healthy"}"#, 0.0),
        (r#"ringpost_journal_sync_seconds_bucket{shard="0",le="0.00005"}"#, 0.0),
        (r#"ringpost_journal_sync_seconds_bucket{shard="0",le="0.0001"}"#, 1.0),
        (r#"ringpost_journal_sync_seconds_bucket{shard="0",le="60"}"#, 1.0),
        (r#"ringpost_journal_sync_seconds_bucket{shard="0",le="+Inf"}"#, 2.0),
        (r#"ringpost_journal_sync_seconds_sum{shard="0"}"#, 100.000_07),
        (r#"ringpost_journal_sync_seconds_count{shard="0"}"#, 2.0),
        (r#"ringpost_delivery_outcomes_total{shard="0",site="mx:example.org",outcome="deferred"}"#, 5.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
    }
}

#[test]
fn every_metric_of_the_list_is_exported_and_no_other() {
    let registry = Registry::new();
    let http = registry.http(&[(202, "202")]);
    let _handles = (registry.shard(0, &["x"]), registry.process("0.1.0", 1_000_000), http);
    let _of_tenants = (registry.tenancy(&["bounce"]), registry.unsubscribe(), registry.dmarc_failures());
    let _of_pictures = registry.bimi_fetches();
    let _of_reports = registry.reports_in(&["syntax"]);
    registry.set_tenant("shop", "hour", 1, Some(2));
    registry.set_list("bl", &[("listed", 1)], false);
    registry.set_greylist(1, 0);
    registry.set_reputations(1);
    registry.set_dkim("k", &[("signing", 1)], Some(true), (0, 0), (0, 0));
    registry.set_deliverability("example.org", "spf", Some(0));
    let text = registry.render();
    let exported: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let listed: BTreeSet<_> = names::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(exported, listed);
    let heads = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(heads, listed.len(), "a family stands in one place");
    assert_eq!(value(&text, "process_start_time_seconds"), Some(1.0));
}

#[test]
fn names_follow_the_custom() {
    for metric in names::ALL {
        let Metric { name, kind, unit, help, .. } = metric;
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        let base = name.trim_end_matches("_total");
        assert_eq!(base.ends_with("_seconds"), *unit == Unit::Seconds, "{name}");
        assert_eq!(base.ends_with("_bytes"), *unit == Unit::Bytes, "{name}");
        assert!(!help.is_empty() && !help.ends_with('.') && help.len() < 100, "{name}: {help}");
        if let Kind::Histogram(bounds) = kind {
            assert!(bounds.is_sorted() && !bounds.is_empty(), "{name}");
        }
    }
}

#[test]
fn a_site_cannot_forge_a_line() {
    let registry = Registry::new();
    let shard = registry.shard(0, &[]);
    shard.delivery.sites.borrow_mut().count("a\"} 7\nringpost_x \\", Outcome::Failed, 1);
    let text = registry.render();
    assert!(text.contains(r#"site="a\"} 7\nringpost_x \\",outcome="failed"} 1"#), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("ringpost_x")));
}
