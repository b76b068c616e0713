//! The list of metrics: name, kind, unit, labels, help. What is not here is not exported.

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values by size, with these upper bounds (microseconds when the unit is seconds).
    Histogram(&'static [u64]),
}

/// What its numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Octets.
    Bytes,
    /// Seconds; counted in microseconds.
    Seconds,
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As it is scraped.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// What its numbers are.
    pub unit: Unit,
    /// The labels of each series.
    pub labels: &'static [&'static str],
    /// One sentence for whoever reads the graph.
    pub help: &'static str,
}

/// From 20 µs to a minute: disk syncs, connections, attempts.
const LATENCY: Kind = Kind::Histogram(&[
    20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
]);
/// From a millisecond to five days: the life of a message.
const LONG: Kind = Kind::Histogram(&[
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
    14_400_000_000,
    43_200_000_000,
    86_400_000_000,
    259_200_000_000,
    432_000_000_000,
]);
/// From one record to four thousand.
const RECORDS: Kind = Kind::Histogram(&[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]);
/// From a kilobyte to 256 MiB.
const SIZE: Kind = Kind::Histogram(&[
    1 << 10,
    1 << 11,
    1 << 12,
    1 << 13,
    1 << 14,
    1 << 15,
    1 << 16,
    1 << 17,
    1 << 18,
    1 << 19,
    1 << 20,
    1 << 22,
    1 << 24,
    1 << 26,
    1 << 28,
]);

macro_rules! list {
    ($($id:ident: $name:literal, $kind:expr, $unit:ident, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help)]
            pub const $id: Metric = Metric {
                name: $name,
                kind: $kind,
                unit: Unit::$unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// Every metric, in the order of the path of a message.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

list! {
    CONNECTIONS_OPEN: "ringpost_connections_open", Kind::Gauge, Count, ["shard", "side"],
        "Connections open now, taken (in) or made (out)";
    CONNECTIONS: "ringpost_connections_total", Kind::Counter, Count, ["shard", "side"],
        "Connections taken (in) or made (out)";
    CONNECTIONS_REFUSED: "ringpost_connections_refused_total", Kind::Counter, Count, ["shard", "reason"],
        "Connections turned away before the first command";
    CLIENTS_UNTRACKED: "ringpost_clients_untracked_total", Kind::Counter, Count, ["shard"],
        "Connections whose address or network is not counted, because clients.tracked-max others are";
    CLIENTS_TRACKED: "ringpost_clients_tracked", Kind::Gauge, Count, [],
        "Addresses and networks of clients that are counted now, of clients.tracked-max";
    ACCEPT_PAUSES: "ringpost_accept_pauses_total", Kind::Counter, Count, ["shard"],
        "Times that connections had to wait because no descriptors or memory were left";
    CONNECTIONS_HANDED_OVER: "ringpost_connections_handed_over_total", Kind::Counter, Count, ["shard", "direction"],
        "Connections that came to a shard and were given to one with fewer (out), or that it was given (in)";
    CONNECTIONS_FAILED: "ringpost_connections_failed_total", Kind::Counter, Count, ["shard"],
        "Connections to a next hop that could not be made";
    CONNECTION_RIVALS: "ringpost_connection_rivals_total", Kind::Counter, Count, ["shard"],
        "Connections begun beside one to a next hop that took its time";
    CONNECTION_WAITS: "ringpost_connection_waits_total", Kind::Counter, Count, ["shard"],
        "Times that mail waited for another connection, since the host had as many there as it may";
    CONNECTION_YIELDS: "ringpost_connection_yields_total", Kind::Counter, Count, ["shard"],
        "Connections to a next hop that were closed so that another shard could have one";
    MESSAGE_WAITS: "ringpost_message_waits_total", Kind::Counter, Count, ["shard"],
        "Times that mail began to wait, since a site's message rate lets no more of it go";
    SESSIONS_PANICKED: "ringpost_sessions_panicked_total", Kind::Counter, Count, ["shard"],
        "Sessions ended by a fault of ours; the log has the place";
    COMMANDS: "ringpost_commands_total", Kind::Counter, Count, ["shard", "verb"],
        "Commands read from clients";
    REFUSALS: "ringpost_refusals_total", Kind::Counter, Count, ["shard", "reason"],
        "Replies that said 4yz or 5yz to a client";
    VERIFICATIONS: "ringpost_verifications_total", Kind::Counter, Count, ["shard", "result"],
        "Recipients that a program was to be asked for, by what is known of them";
    AUTHENTICATION_RESULTS: "ringpost_authentication_results_total", Kind::Counter, Count, ["shard", "method", "result"],
        "Results of SPF, DKIM (each signature), ARC and DMARC for messages of strangers";
    AUTHENTICATION_ACTIONS: "ringpost_authentication_actions_total", Kind::Counter, Count, ["shard", "action"],
        "Messages of strangers that were looked at, by what was done about them";
    DECEPTIONS: "ringpost_deceptive_messages_total", Kind::Counter, Count, ["shard", "kind"],
        "Messages of strangers that may deceive their readers, by what about them may";
    UNSUBSCRIBE_WAYS: "ringpost_list_unsubscribe_total", Kind::Counter, Count, ["shard", "way"],
        "Messages of strangers that were looked at, by how their lists may be left";
    BIMI_RESULTS: "ringpost_bimi_results_total", Kind::Counter, Count, ["shard", "result"],
        "Results of BIMI for messages of strangers, where it is asked for";
    BIMI_FETCHES: "ringpost_bimi_fetches_total", Kind::Counter, Count, ["result"],
        "Pictures of domains that were fetched, and such that could not be had or were not good";
    DMARC_COUNTED: "ringpost_dmarc_counted_total", Kind::Counter, Count, ["shard", "result"],
        "Messages counted for DMARC reports to domains, and such that found no room in one (untold)";
    DMARC_FAILURES_DROPPED: "ringpost_dmarc_failures_dropped_total", Kind::Counter, Count, ["shard"],
        "Messages that a domain wants to be told of, and is not, since there were too many";
    DMARC_FAILURES: "ringpost_dmarc_failures_total", Kind::Counter, Count, ["result"],
        "Reports to domains on messages that failed: sent, alike, too-many, unwanted, failed";
    AUTHENTICATION_SECONDS: "ringpost_authentication_seconds", LATENCY, Seconds, ["shard"],
        "Time to find out whether a message is from whom it says, the DNS included";
    STRANGER_ACTIONS: "ringpost_stranger_actions_total", Kind::Counter, Count, ["shard", "action"],
        "Transactions of strangers, by what was done for lists of the DNS and reputation";
    SCREENING_SECONDS: "ringpost_screening_seconds", LATENCY, Seconds, ["shard"],
        "Time that the first recipient of a stranger had to wait for lists of the DNS";
    GREYLISTED: "ringpost_greylist_total", Kind::Counter, Count, ["shard", "result"],
        "Recipients of mail of strangers, by what the greylist says of them: new and early get 451";
    GREYLIST_ENTRIES: "ringpost_greylist_entries", Kind::Gauge, Count, [],
        "Senders and clients that greylisting remembers, of clients.greylisted-max";
    GREYLIST_EVICTED: "ringpost_greylist_evicted_total", Kind::Counter, Count, [],
        "Entries that greylisting forgot before their time, since there were too many";
    REPUTATIONS: "ringpost_reputations", Kind::Gauge, Count, [],
        "Addresses, networks, domains and senders of whom is remembered what they did";
    LIST_ANSWERS: "ringpost_dns_list_answers_total", Kind::Counter, Count, ["list", "result"],
        "What came of questions to a list of the DNS about strangers: listed, unlisted, failed";
    LIST_ASIDE: "ringpost_dns_list_aside", Kind::Gauge, Count, ["list"],
        "1 while a list of the DNS is not asked, since it fails, refuses or knows everybody";
    SIGNATURES: "ringpost_dkim_signatures_total", Kind::Counter, Count, ["shard", "result"],
        "Signatures made for mail of ours (done), and such that could not be (failed)";
    SEALS: "ringpost_arc_seals_total", Kind::Counter, Count, ["shard"],
        "Messages of strangers that were sealed as they were passed on (ARC)";
    SIGNING_SECONDS: "ringpost_dkim_signing_seconds", LATENCY, Seconds, ["shard"],
        "Time to make one signature";
    DKIM_KEYS: "ringpost_dkim_keys", Kind::Gauge, Count, ["key", "state"],
        "Keys that the server renews by itself, by the name of their entry and how far they are";
    DKIM_PUBLISHED: "ringpost_dkim_key_published", Kind::Gauge, Count, ["key"],
        "1 as long as the DNS was last seen to show all keys that sign, 0 when one was missing";
    DKIM_BY_HAND: "ringpost_dkim_records_by_hand", Kind::Gauge, Count, ["key"],
        "Records of such keys that somebody is to publish, or to take away, by hand";
    DKIM_OVERDUE: "ringpost_dkim_records_overdue", Kind::Gauge, Count, ["key"],
        "Records of such keys that were published, and that the DNS should have shown by now";
    DKIM_UPDATES: "ringpost_dkim_updates_total", Kind::Counter, Count, ["key", "result"],
        "Changes of the DNS for such keys by a provider, done or failed";
    REPLIES_HELD_BACK: "ringpost_replies_held_back_total", Kind::Counter, Count, ["shard"],
        "Refusing replies that a client of many refusals had to wait for";
    MESSAGES: "ringpost_messages_total", Kind::Counter, Count, ["shard", "side"],
        "Messages accepted (in) and transactions a next hop accepted (out)";
    RECIPIENTS: "ringpost_recipients_total", Kind::Counter, Count, ["shard", "side"],
        "Recipients of the messages accepted (in) and delivered (out)";
    CONTENT_BYTES: "ringpost_content_bytes_total", Kind::Counter, Bytes, ["shard", "side"],
        "Content of the messages accepted (in) and sent (out)";
    MESSAGE_BYTES: "ringpost_message_bytes", SIZE, Bytes, ["shard"],
        "Content size of the messages accepted";
    TLS_HANDSHAKES: "ringpost_tls_handshakes_total", Kind::Counter, Count, ["shard", "side", "result"],
        "TLS handshakes, done or failed";
    TLS_RESUMED: "ringpost_tls_resumed_total", Kind::Counter, Count, ["shard"],
        "TLS handshakes with clients that took an earlier session up again";
    TLS_RESUMED_OUT: "ringpost_tls_resumed_outbound_total", Kind::Counter, Count, ["shard"],
        "TLS handshakes with next hops that took an earlier session up again";
    TLS_POLICIES: "ringpost_tls_policies_total", Kind::Counter, Count, ["shard", "policy", "result"],
        "Connections to next hops by what decided about their TLS, and whether the host kept to it";
    LOGINS: "ringpost_logins_total", Kind::Counter, Count, ["shard", "result"],
        "Logins at next hops (AUTH), done or failed";
    CONVERSIONS: "ringpost_conversions_total", Kind::Counter, Count, ["shard", "result"],
        "Content encoded for next hops that do not take it as it is, done or not possible";
    SRS: "ringpost_srs_total", Kind::Counter, Count, ["shard", "way"],
        "Senders' addresses rewritten as mail was passed on (out), and recipients led back to them (in)";
    POOL_DELIVERIES: "ringpost_pool_deliveries_total", Kind::Counter, Count, ["shard", "by", "result"],
        "Messages given to programs, services by HTTP and whoever keeps reports, and what came of it";
    GROUP_RECORDS: "ringpost_journal_group_records", RECORDS, Count, ["shard"],
        "Records made durable by one sync";
    GROUP_BYTES: "ringpost_journal_group_bytes", SIZE, Bytes, ["shard"],
        "Bytes made durable by one sync";
    SYNC_SECONDS: "ringpost_journal_sync_seconds", LATENCY, Seconds, ["shard"],
        "Time of one sync of the medium";
    COMMIT_SECONDS: "ringpost_journal_commit_seconds", LATENCY, Seconds, ["shard"],
        "Time from the end of the mail data to its being durable";
    COMMITS_FAILED: "ringpost_journal_commits_failed_total", Kind::Counter, Count, ["shard"],
        "Groups that could not be written or synced";
    SEGMENTS: "ringpost_journal_segments", Kind::Gauge, Count, ["shard", "state"],
        "Segments by state";
    SEGMENT_BYTES: "ringpost_journal_segment_bytes", Kind::Gauge, Bytes, ["shard", "state"],
        "Size on the medium of the segments by state";
    LIVE_BYTES: "ringpost_journal_live_bytes", Kind::Gauge, Bytes, ["shard"],
        "Bytes of records that are still needed";
    JOURNAL_HEALTH: "ringpost_journal_health", Kind::Gauge, Count, ["shard", "state"],
        "1 for the state the journal is in: healthy, full, failed";
    QUEUE_RECIPIENTS: "ringpost_queue_recipients", Kind::Gauge, Count, ["shard", "state"],
        "Recipients in the queue by state";
    QUEUE_MESSAGES: "ringpost_queue_messages", Kind::Gauge, Count, ["shard"],
        "Messages in the queue";
    QUEUE_BYTES: "ringpost_queue_memory_bytes", Kind::Gauge, Bytes, ["shard"],
        "Memory the queue's state takes";
    QUEUE_OLDEST_SECONDS: "ringpost_queue_oldest_seconds", Kind::Gauge, Seconds, ["shard"],
        "Age of the oldest message in the queue";
    SITES_THROTTLED: "ringpost_sites_throttled", Kind::Gauge, Count, ["shard"],
        "Sites of the host that get less than they may, since they complained or are out of reach";
    SOURCES_OUT: "ringpost_sources_out", Kind::Gauge, Count, ["shard"],
        "Sources of the host that are out of use: no address, a dead proxy, or on a list";
    SOURCES_LOWERED: "ringpost_sources_lowered", Kind::Gauge, Count, ["shard"],
        "Sources of the host that have less than their part, since a list has them";
    QUEUE_RETURNING: "ringpost_queue_returning", Kind::Gauge, Count, ["shard"],
        "1 while messages from before the start are on their way back into the queue";
    QUEUE_RETURNING_MESSAGES: "ringpost_queue_returning_messages", Kind::Gauge, Count, ["shard", "state"],
        "Messages from before the start that are back in the queue, and that are missing still";
    DELIVERY_OUTCOMES: "ringpost_delivery_outcomes_total", Kind::Counter, Count, ["shard", "site", "outcome"],
        "Recipients by the outcome of an attempt; sites beyond the busiest are together in site other";
    ATTEMPT_SECONDS: "ringpost_delivery_attempt_seconds", LATENCY, Seconds, ["shard"],
        "Time of one attempt, from taking a connection to the last reply";
    QUEUE_SECONDS: "ringpost_queue_seconds", LONG, Seconds, ["shard"],
        "Time from acceptance to the end of a recipient";
    QUEUE_REROUTED: "ringpost_queue_rerouted_total", Kind::Counter, Count, ["shard"],
        "Queued recipients that go another way: by a change of routes, or since an operator chose one";
    QUEUE_CHANGED: "ringpost_queue_changed_total", Kind::Counter, Count, ["shard", "action"],
        "Recipients that operators have changed, by what they did";
    QUEUE_LOOKED: "ringpost_queue_task_looked_total", Kind::Counter, Count, ["shard"],
        "Entries of the queue that tasks in the background have looked at";
    QUEUE_RETRIES: "ringpost_queue_retries_total", Kind::Counter, Count, ["shard", "wait"],
        "Recipients deferred, by what has set when they are tried again";
    OUTBOUND_REFUSALS: "ringpost_outbound_refusals_total", Kind::Counter, Count, ["shard", "result", "category"],
        "Recipients deferred or failed, by what the refusal was about: the categories of reply-rules.md";
    REPORTS_READ: "ringpost_reports_read_total", Kind::Counter, Count, ["shard", "kind"],
        "What came to the addresses for reports on our mail";
    BOUNCES: "ringpost_bounces_total", Kind::Counter, Count, ["shard", "category"],
        "Recipients that were reported as failed after a next hop had taken the mail, by what that was about";
    DSNS: "ringpost_dsns_total", Kind::Counter, Count, ["shard", "kind"],
        "Notifications written";
    DNS_QUESTIONS: "ringpost_dns_questions_total", Kind::Counter, Count, ["shard"],
        "DNS questions asked of the shard's client";
    DNS_CACHE_HITS: "ringpost_dns_cache_hits_total", Kind::Counter, Count, ["shard"],
        "DNS questions answered from the cache";
    DNS_FAILURES: "ringpost_dns_failures_total", Kind::Counter, Count, ["shard"],
        "DNS questions without a usable answer";
    DNS_SECONDS: "ringpost_dns_seconds", LATENCY, Seconds, ["shard"],
        "Time until the answer, when the cache had none";
    BUFFER_BYTES: "ringpost_buffer_bytes", Kind::Gauge, Bytes, ["shard"],
        "Receive buffers in use";
    BUFFER_BUDGET_BYTES: "ringpost_buffer_budget_bytes", Kind::Gauge, Bytes, ["shard"],
        "Receive buffers the shard may use";
    BUFFER_WAITS: "ringpost_buffer_waits_total", Kind::Counter, Count, ["shard"],
        "Times a connection stopped reading because the budget was used up";
    STALL_SECONDS: "ringpost_executor_stall_seconds", LATENCY, Seconds, ["shard"],
        "Times a task kept its shard from everything else, by length";
    BRIDGE_REQUESTS: "ringpost_bridge_requests_total", Kind::Counter, Count, ["shard"],
        "Requests of the pool that the shard answered";
    HTTP_REQUESTS: "ringpost_http_requests_total", Kind::Counter, Count, ["status"],
        "Requests about mail by HTTP, by the status of the answer";
    HTTP_MESSAGES: "ringpost_http_messages_total", Kind::Counter, Count, ["result"],
        "Messages of such requests, accepted or refused";
    HTTP_BYTES: "ringpost_http_body_bytes_total", Kind::Counter, Bytes, [],
        "Bodies of such requests";
    HTTP_REPLAYS: "ringpost_http_replays_total", Kind::Counter, Count, [],
        "Requests that an Idempotency-Key showed to be repeated, and that got the first answer again";
    HTTP_MEMORY: "ringpost_http_memory_bytes", Kind::Gauge, Bytes, [],
        "Memory set aside for such requests under way, of http.memory";
    SUPPRESSED_RECIPIENTS: "ringpost_suppressed_recipients_total", Kind::Counter, Count, ["shard", "stage"],
        "Recipients on a suppression list, refused (intake) or not sent to (delivery)";
    LIST_LINKS: "ringpost_list_unsubscribe_links_total", Kind::Counter, Count, ["shard"],
        "Messages that were given a List-Unsubscribe field";
    UNSUBSCRIBE_CHECKS: "ringpost_unsubscribe_checks_total", Kind::Counter, Count, ["shard", "result"],
        "Bulk mail of tenants that was looked at for how its list is left, by what was found";
    DUPLICATES: "ringpost_duplicates_total", Kind::Counter, Count, ["shard"],
        "Recipients who had the message already, and were not sent it again";
    SUPPRESSIONS: "ringpost_suppressions", Kind::Gauge, Count, [],
        "Entries on all suppression lists";
    SUPPRESSIONS_ADDED: "ringpost_suppressions_added_total", Kind::Counter, Count, ["reason"],
        "Entries that were put on a suppression list";
    SUPPRESSIONS_LOST: "ringpost_suppressions_lost_total", Kind::Counter, Count, [],
        "Entries that could not be put on a suppression list: the disk failed, or too many came";
    UNSUBSCRIPTIONS: "ringpost_unsubscribe_requests_total", Kind::Counter, Count, ["result"],
        "Requests to links in List-Unsubscribe: done, shown a page, not known, too many, failed";
    REPORTS_IN: "ringpost_reports_in_total", Kind::Counter, Count, ["kind", "result"],
        "Reports that came to us (`reports-in`): new, or known already; and mail that was none (unread)";
    REPORTS_IN_MESSAGES: "ringpost_reports_in_messages_total", Kind::Counter, Count, ["alignment"],
        "Messages that new DMARC reports to us are about, by what stood by their author";
    REPORTS_IN_SESSIONS: "ringpost_reports_in_sessions_total", Kind::Counter, Count, ["result"],
        "Sessions that new TLS reports to us are about";
    REPORTS_IN_UNREAD: "ringpost_reports_in_unread_total", Kind::Counter, Count, ["reason"],
        "Mail to addresses for reports that was none, or was not wanted, by reason";
    REPORTS_IN_KEPT: "ringpost_reports_in_kept", Kind::Gauge, Count, [],
        "Reports to us, and mail that was none, on disk";
    REPORTS_IN_BYTES: "ringpost_reports_in_bytes", Kind::Gauge, Bytes, [],
        "Disk that they take";
    REPORTS_IN_EVICTED: "ringpost_reports_in_evicted_total", Kind::Counter, Count, [],
        "Reports that had to go before their time, since there was no room";
    REPORTS_IN_POSTS: "ringpost_reports_in_posts_total", Kind::Counter, Count, ["result"],
        "Posts of TLS reports by HTTPS: kept, known, refused, too many, failed";
    DUPLICATES_REMEMBERED: "ringpost_duplicates_remembered", Kind::Gauge, Count, [],
        "Recipients that are remembered, so that they are not sent the same message again";
    TENANT_RECIPIENTS: "ringpost_tenant_recipients", Kind::Gauge, Count, ["tenant", "period"],
        "Recipients accepted from a tenant in the hour, day and month that is now (UTC)";
    TENANT_RECIPIENTS_MAX: "ringpost_tenant_recipients_max", Kind::Gauge, Count, ["tenant", "period"],
        "The tenant's quota of them, where it has one";
    DELIVERABILITY: "ringpost_deliverability", Kind::Gauge, Count, ["domain", "check"],
        "How bad the worst finding of a check of a domain is: 0 pass, 1 note, 2 warn, 3 fail";
    LOG_LINES_DROPPED: "ringpost_log_lines_dropped_total", Kind::Counter, Count, [],
        "Log lines lost because the writer could not keep up or failed";
    RENEWALS: "ringpost_certificate_renewals_total", Kind::Counter, Count, ["result"],
        "Changes of files of certificates, done or refused";
    RELOADS: "ringpost_config_reloads_total", Kind::Counter, Count, ["result"],
        "Reloads of the configuration, done or refused";
    UPGRADES: "ringpost_upgrades_total", Kind::Counter, Count, ["result"],
        "New programs that took over from this one, done or refused";
    PREDECESSOR_SESSIONS: "ringpost_predecessor_sessions", Kind::Gauge, Count, [],
        "Connections from clients that the program before this one still has";
    DISK_BYTES: "ringpost_journal_disk_bytes", Kind::Gauge, Bytes, [],
        "Disk space of the segments of all journal shards, with what is kept for each core";
    DISK_MAX_BYTES: "ringpost_journal_disk_max_bytes", Kind::Gauge, Bytes, [],
        "Disk space that segments may take: journal.disk-max";
    BUILD_INFO: "ringpost_build_info", Kind::Gauge, Count, ["version"],
        "1, labelled with the version that runs";
    START_TIME: "process_start_time_seconds", Kind::Gauge, Seconds, [],
        "Start of the process, in seconds since 1970";
    OPEN_FDS: "process_open_fds", Kind::Gauge, Count, [],
        "File descriptors open";
    MAX_FDS: "process_max_fds", Kind::Gauge, Count, [],
        "File descriptors allowed";
    RESIDENT_BYTES: "process_resident_memory_bytes", Kind::Gauge, Bytes, [],
        "Resident memory";
    CPU_SECONDS: "process_cpu_seconds_total", Kind::Counter, Seconds, [],
        "CPU time used, user and system, in whole seconds";
}
