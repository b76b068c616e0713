//! The handles of one shard and of the process: made once, then only counted with.

use std::marker::PhantomData;

use crate::{Counter, Gauge, Histogram, SiteTable, registry::ShardBuilder};

/// All that a shard counts. Not `Sync`: share it within the shard, by `Rc`.
#[derive(Debug)]
pub struct ShardMetrics {
    /// Connections from clients.
    pub inbound: Inbound,
    /// Connections to next hops.
    pub outbound: Outbound,
    /// The journal.
    pub journal: Journal,
    /// The queue.
    pub queue: Queue,
    /// Attempts and their outcomes.
    pub delivery: Delivery,
    /// The DNS client.
    pub dns: Dns,
    /// Receive buffers.
    pub buffers: Buffers,
    /// The shard's own health.
    pub executor: Executor,
}

/// Connections from clients.
#[derive(Debug)]
pub struct Inbound {
    /// Connections open now.
    pub open: Gauge,
    /// Connections taken.
    pub connections: Counter,
    /// Connections turned away.
    pub refused: Family<ConnectionRefusal>,
    /// Connections whose address or network is not counted.
    pub untracked: Counter,
    /// Recipients that a program was to be asked for.
    pub verifications: Family<Verification>,
    /// Replies held back.
    pub tarpitted: Counter,
    /// Connections that came here and were given to another shard.
    pub given: Counter,
    /// Connections that came to another shard and are served here.
    pub taken: Counter,
    /// Moments in which none was taken for lack of descriptors or memory.
    pub pauses: Counter,
    /// Commands read.
    pub commands: Family<Verb>,
    /// Messages accepted.
    pub messages: Counter,
    /// Recipients of the messages accepted.
    pub recipients: Counter,
    /// Content of the messages accepted.
    pub bytes: Counter,
    /// Content size of each.
    pub message_bytes: Histogram,
    /// Results of SPF for reverse-paths.
    pub spf: Family<AuthResult>,
    /// Results of signatures; none for a message without.
    pub dkim: Family<AuthResult>,
    /// Recipients whose addresses led back to somebody.
    pub led_back: Counter,
    /// Results of ARC; none for a message that nobody has sealed.
    pub arc: Family<AuthResult>,
    /// Results of DMARC.
    pub dmarc: Family<AuthResult>,
    /// Results of BIMI.
    pub bimi: Family<BimiCounted>,
    /// Messages that reports to domains are to tell of.
    pub dmarc_counted: Family<DmarcCounted>,
    /// Messages that failed, and were not handed over to be told of.
    pub dmarc_failures_dropped: Counter,
    /// Messages that may deceive.
    pub deceptions: Family<Deception>,
    /// How lists of such messages may be left; none for a message that says nothing of that.
    pub unsubscribe_ways: Family<UnsubscribeWay>,
    /// What was done about messages that were looked at.
    pub treatments: Family<AuthTreatment>,
    /// How long it took to find out, waiting for the DNS included.
    pub authentication: Histogram,
    /// What was done about transactions of strangers that lists were asked about.
    pub screened: Family<AuthTreatment>,
    /// How long the first recipient had to wait for that.
    pub screening: Histogram,
    /// Recipients of mail of strangers, by what the greylist says.
    pub greylisted: Family<Greylisting>,
    /// Signatures made.
    pub signed: Counter,
    /// Messages of strangers that were sealed (ARC).
    pub sealed: Counter,
    /// Signatures that could not be made.
    pub unsigned: Counter,
    /// How long one took.
    pub signing: Histogram,
    /// TLS handshakes.
    pub tls: TlsMetrics,
    /// Those of them that took an earlier session up again.
    pub tls_resumed: Counter,
    /// Recipients on a suppression list who were refused.
    pub suppressed: Counter,
    /// Messages that were given a List-Unsubscribe field.
    pub list_links: Counter,
    /// Bulk mail of tenants that was looked at for how its list is left, by what was found.
    pub unsubscribe_checks: Family<UnsubscribeCheck>,
    /// Recipients who had the message already.
    pub duplicates: Counter,
    refusals: Vec<(&'static str, Counter)>,
    refusals_other: Counter,
}

/// Connections to next hops.
#[derive(Debug)]
pub struct Outbound {
    /// Connections open now.
    pub open: Gauge,
    /// Connections made.
    pub connections: Counter,
    /// Connections that could not be made.
    pub failed: Counter,
    /// Connections begun beside one that took its time.
    pub rivals: Counter,
    /// Times that a connection had to wait until the host may have another one there.
    pub waits: Counter,
    /// Connections closed so that another shard may have one.
    pub yields: Counter,
    /// Times that mail had to wait since as much was sent there as a rate lets.
    pub paced: Counter,
    /// Transactions a next hop took responsibility for.
    pub messages: Counter,
    /// Recipients delivered.
    pub recipients: Counter,
    /// Content sent.
    pub bytes: Counter,
    /// TLS handshakes.
    pub tls: TlsMetrics,
    /// Those of them that took an earlier session up again.
    pub tls_resumed: Counter,
    /// Logins.
    pub logins: TlsMetrics,
    /// Content converted for next hops that do not take it as it is.
    pub conversions: TlsMetrics,
    /// Transactions with a sender's address that leads back by way of us.
    pub rewritten: Counter,
    /// Mail given to programs.
    pub programs: PoolDeliveries,
    /// Mail given to services.
    pub services: PoolDeliveries,
    /// Reports given to whoever keeps them.
    pub reports: PoolDeliveries,
    /// Connections that kept to what their TLS was decided by.
    pub policies_kept: Family<TlsPolicy>,
    /// Those that did not.
    pub policies_broken: Family<TlsPolicy>,
}

/// TLS handshakes of one side, logins or conversions.
#[derive(Debug)]
pub struct TlsMetrics {
    /// Completed.
    pub done: Counter,
    /// Not completed.
    pub failed: Counter,
}

/// What came of mail that the pool delivers.
#[derive(Debug)]
pub struct PoolDeliveries {
    /// It is there.
    pub delivered: Counter,
    /// It is tried again.
    pub deferred: Counter,
    /// It comes back.
    pub failed: Counter,
    /// Nobody was there to take it.
    pub unreached: Counter,
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    /// Records made durable by one sync.
    pub group_records: Histogram,
    /// Bytes made durable by one sync.
    pub group_bytes: Histogram,
    /// Time of one sync.
    pub sync: Histogram,
    /// Time from the end of the mail data to its being durable.
    pub commit: Histogram,
    /// Groups that could not be written or synced.
    pub failed: Counter,
    /// Segments.
    pub segments: Levels<SegmentState>,
    /// Their size on the medium.
    pub segment_bytes: Levels<SegmentState>,
    /// Bytes of records still needed.
    pub live_bytes: Gauge,
    health: Levels<JournalHealth>,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    /// Recipients by state.
    pub recipients: Levels<QueueState>,
    /// Messages.
    pub messages: Gauge,
    /// Memory of the queue's state.
    pub bytes: Gauge,
    /// Microseconds since the oldest message was accepted.
    pub oldest: Gauge,
    /// Sites that get less than they may.
    pub throttled: Gauge,
    /// Sources that are out of use.
    pub sources_out: Gauge,
    /// Sources that have less.
    pub sources_lowered: Gauge,
    /// 1 while messages from before the start are on their way back.
    pub returning: Gauge,
    /// Messages from before the start that are back.
    pub returned: Gauge,
    /// Those that are not.
    pub missing: Gauge,
    /// Time from acceptance to the end of a recipient.
    pub time: Histogram,
    /// Recipients that a change of routes gave another destination.
    pub rerouted: Counter,
    /// Recipients that operators have changed.
    pub changed: Family<QueueAction>,
    /// Entries that tasks in the background have looked at.
    pub looked: Counter,
    /// Deferred recipients, by what has set their next try.
    pub retries: Family<RetryWait>,
}

/// Attempts and their outcomes.
#[derive(Debug)]
pub struct Delivery {
    /// Recipients by site and outcome: behind a `RefCell`, since a shard counts from many tasks.
    pub sites: std::cell::RefCell<SiteTable>,
    /// Time of one attempt.
    pub attempt: Histogram,
    /// Recipients that were deferred, by why.
    pub deferred: Family<Category>,
    /// Recipients that failed, by why.
    pub failed: Family<Category>,
    /// What came to the addresses for reports.
    pub reports_read: Family<ReportRead>,
    /// Recipients reported as failed, by why.
    pub bounces: Family<Category>,
    /// Notifications written.
    pub dsns: Family<Dsn>,
    /// Recipients on a suppression list who were not sent to.
    pub suppressed: Counter,
}

/// The DNS client.
#[derive(Debug)]
pub struct Dns {
    /// Questions asked of it.
    pub questions: Counter,
    /// Answered from the cache.
    pub cache_hits: Counter,
    /// Without a usable answer.
    pub failures: Counter,
    /// Time until the answer, when the cache had none.
    pub time: Histogram,
}

/// Receive buffers.
#[derive(Debug)]
pub struct Buffers {
    /// Bytes in use.
    pub bytes: Gauge,
    /// Bytes that may be.
    pub budget: Gauge,
    /// Times a connection had to stop reading.
    pub waits: Counter,
}

/// The shard's own health.
#[derive(Debug)]
pub struct Executor {
    /// How long tasks kept the shard from everything else.
    pub stalls: Histogram,
    /// Sessions that ended by a fault of ours.
    pub panicked: Counter,
    /// Requests of the pool answered.
    pub bridge_requests: Counter,
}

/// What the whole process counts; any thread may.
#[derive(Debug)]
pub struct ProcessMetrics {
    pub(crate) log_lines_dropped: metrics::Counter,
    pub(crate) renewals: [metrics::Counter; 2],
    pub(crate) reloads: [metrics::Counter; 2],
    pub(crate) upgrades: [metrics::Counter; 2],
    pub(crate) predecessor_sessions: metrics::Gauge,
    pub(crate) clients_tracked: metrics::Gauge,
    pub(crate) disk_bytes: metrics::Gauge,
    pub(crate) disk_max_bytes: metrics::Gauge,
    pub(crate) open_fds: metrics::Gauge,
    pub(crate) max_fds: metrics::Gauge,
    pub(crate) resident_bytes: metrics::Gauge,
    pub(crate) cpu_seconds: metrics::Counter,
}

/// What is counted of mail that comes by HTTP; any thread may.
#[derive(Debug)]
pub struct HttpMetrics {
    pub(crate) requests: Vec<(u16, metrics::Counter)>,
    pub(crate) requests_other: metrics::Counter,
    pub(crate) accepted: metrics::Counter,
    pub(crate) refused: metrics::Counter,
    pub(crate) bytes: metrics::Counter,
    pub(crate) replays: metrics::Counter,
    pub(crate) memory: metrics::Gauge,
}

/// What is counted of tenants over all cores; any thread may.
#[derive(Debug)]
pub struct TenancyMetrics {
    pub(crate) suppressions: metrics::Gauge,
    pub(crate) added: Vec<(&'static str, metrics::Counter)>,
    pub(crate) lost: metrics::Counter,
    pub(crate) remembered: metrics::Gauge,
}

/// What is counted of those who leave lists; any thread may.
#[derive(Debug)]
pub struct UnsubscribeMetrics(pub(crate) Vec<metrics::Counter>);

/// What became of reports on messages that failed; any thread may.
#[derive(Debug)]
pub struct DmarcFailureMetrics(pub(crate) Vec<metrics::Counter>);

/// What became of fetching pictures of domains; any thread may.
#[derive(Debug)]
pub struct BimiFetchMetrics(pub(crate) Vec<metrics::Counter>);

/// What is counted of reports that come to us; any thread may.
#[derive(Debug)]
pub struct ReportsInMetrics {
    pub(crate) reports: Vec<[metrics::Counter; 2]>,
    pub(crate) messages: Vec<metrics::Counter>,
    pub(crate) sessions: [metrics::Counter; 2],
    pub(crate) unread: Vec<(&'static str, metrics::Counter)>,
    pub(crate) kept: metrics::Gauge,
    pub(crate) bytes: metrics::Gauge,
    pub(crate) evicted: metrics::Counter,
    pub(crate) posts: Vec<metrics::Counter>,
}

/// How much of the host the process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// File descriptors open.
    pub open_fds: u64,
    /// File descriptors allowed.
    pub max_fds: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// CPU time, user and system.
    pub cpu_seconds: u64,
}

/// A closed list of label values.
pub trait Counted: Copy + 'static {
    /// Every value, in the order of [`Counted::index`].
    const ALL: &'static [Self];
    /// Its place in the list.
    fn index(self) -> usize;
    /// As it is scraped.
    fn label(self) -> &'static str;
}

/// One counter per value of a label.
#[derive(Debug)]
pub struct Family<T>(Box<[Counter]>, PhantomData<T>);

/// One gauge per value of a label.
#[derive(Debug)]
pub struct Levels<T>(Box<[Gauge]>, PhantomData<T>);

impl<T: Counted> Family<T> {
    pub(crate) fn new(one: impl FnMut(T) -> Counter) -> Self {
        Self(T::ALL.iter().copied().map(one).collect(), PhantomData)
    }

    /// The counter of a value.
    pub fn of(&self, value: T) -> &Counter {
        &self.0[value.index()]
    }
}

impl<T: Counted> Levels<T> {
    pub(crate) fn new(one: impl FnMut(T) -> Gauge) -> Self {
        Self(T::ALL.iter().copied().map(one).collect(), PhantomData)
    }

    /// The gauge of a value.
    pub fn of(&self, value: T) -> &Gauge {
        &self.0[value.index()]
    }
}

macro_rules! labels {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $value_doc:literal])* $value:ident => $label:literal,)* }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $value_doc])* $value,)* }

        impl Counted for $name {
            const ALL: &'static [Self] = &[$(Self::$value),*];

            fn index(self) -> usize {
                self as usize
            }

            fn label(self) -> &'static str {
                match self { $(Self::$value => $label,)* }
            }
        }
    };
}

labels! {
    /// What a message was that came to an address for reports.
    ReportIn {
        /// A report on mail (DMARC).
        Dmarc => "dmarc",
        /// A report on TLS.
        Tls => "tls",
        /// A report on a message that failed.
        Failure => "failure",
        /// None that could be read.
        Unread => "unread",
    }
}

labels! {
    /// What stood by the author of a message that a report is about.
    Aligned {
        /// A signature and SPF.
        Both => "both",
        /// A signature.
        Dkim => "dkim",
        /// SPF.
        Spf => "spf",
        /// Neither: it did not pass.
        Neither => "none",
    }
}

labels! {
    /// What became of a request to leave a list.
    Unsubscription {
        /// It is done.
        Done => "done",
        /// A page with a button was shown.
        Shown => "shown",
        /// The link is not known, or the request does not say what it wants.
        Unknown => "unknown",
        /// Too many came in a second.
        TooMany => "too-many",
        /// It could not be written.
        Failed => "failed",
    }
}

labels! {
    /// What became of a post of a report on TLS.
    ReportPost {
        /// It is kept.
        Kept => "kept",
        /// It was there already.
        Known => "known",
        /// It is none, or is not wanted.
        Refused => "refused",
        /// Too many came at once.
        TooMany => "too-many",
        /// It could not be kept.
        Failed => "failed",
    }
}

labels! {
    /// What a client asked for.
    Verb {
        /// `EHLO` (RFC 5321 §4.1.1.1).
        Ehlo => "ehlo",
        /// `HELO`.
        Helo => "helo",
        /// `LHLO` (RFC 2033 §4.1).
        Lhlo => "lhlo",
        /// `MAIL`.
        Mail => "mail",
        /// `RCPT`.
        Rcpt => "rcpt",
        /// `DATA`.
        Data => "data",
        /// `BDAT` (RFC 3030 §2).
        Bdat => "bdat",
        /// `RSET`.
        Rset => "rset",
        /// `NOOP`.
        Noop => "noop",
        /// `QUIT`.
        Quit => "quit",
        /// `HELP`.
        Help => "help",
        /// `VRFY`.
        Vrfy => "vrfy",
        /// `EXPN`.
        Expn => "expn",
        /// `STARTTLS` (RFC 3207 §4).
        StartTls => "starttls",
        /// `AUTH` (RFC 4954 §4).
        Auth => "auth",
        /// `ETRN` (RFC 1985 §5).
        Etrn => "etrn",
        /// `XCLIENT`.
        Xclient => "xclient",
        /// `ATRN` (RFC 2645 §5.2.1).
        Atrn => "atrn",
        /// `XFORWARD`.
        Xforward => "xforward",
        /// Not a command we know.
        Other => "other",
    }
}

labels! {
    /// Why a connection was turned away before its first command.
    ConnectionRefusal {
        /// The host has as many as it may.
        HostLimit => "host_limit",
        /// The listener has as many as it may.
        Limit => "limit",
        /// This client has as many as it may.
        ClientLimit => "client_limit",
        /// Its network has as many as it may.
        NetworkLimit => "network_limit",
        /// More strangers in a minute than may come to the host.
        HostRate => "host_rate",
        /// More in a minute than may come from this client.
        ClientRate => "client_rate",
        /// More in a minute than may come from its network.
        NetworkRate => "network_rate",
        /// The memory budget is used up.
        Memory => "memory",
        /// Policy does not want this client.
        Policy => "policy",
        /// The server is stopping.
        Stopping => "stopping",
        /// A listener behind a proxy does not know for whom the connection is.
        Proxy => "proxy",
        /// The client sent before the greeting, or not what the listener speaks.
        Protocol => "protocol",
    }
}

labels! {
    /// What SPF, DKIM or DMARC says (RFC 8601 §2.7).
    AuthResult {
        /// Nothing.
        None => "none",
        /// Nothing on purpose, or nothing that can be told.
        Neutral => "neutral",
        /// It is from whom it says.
        Pass => "pass",
        /// It may be, and is not proven in a way that counts here.
        Policy => "policy",
        /// It is not.
        Fail => "fail",
        /// It probably is not.
        SoftFail => "softfail",
        /// It cannot be told now.
        TempError => "temperror",
        /// It will never be told.
        PermError => "permerror",
    }
}

labels! {
    /// What was found of the picture of a domain (BIMI).
    BimiCounted {
        /// It is as it should be.
        Pass => "pass",
        /// The domain says nothing of one.
        None => "none",
        /// It is not as it should be.
        Fail => "fail",
        /// It is not known now.
        TempError => "temperror",
        /// The domain says that it has none.
        Declined => "declined",
        /// It was not looked for.
        Skipped => "skipped",
    }
}

labels! {
    /// What became of fetching one.
    BimiFetch {
        /// It is good.
        Good => "good",
        /// It is not, or its certificate is not.
        Bad => "bad",
        /// It could not be had.
        Unavailable => "unavailable",
    }
}

labels! {
    /// Whether the report to a domain will tell of a message.
    DmarcCounted {
        /// It will.
        Counted => "counted",
        /// There was no room to tell it apart.
        Untold => "untold",
    }
}

labels! {
    /// What became of a report to a domain on a message that failed.
    DmarcFailure {
        /// It went out.
        Sent => "sent",
        /// Its domain was told of a message like it a while ago.
        Alike => "alike",
        /// There were too many.
        TooMany => "too-many",
        /// Who would get it does not say that he wants it.
        Unwanted => "unwanted",
        /// It could not go out.
        Failed => "failed",
    }
}

labels! {
    /// How the list of a stranger's message may be left (RFC 2369, RFC 8058).
    UnsubscribeWay {
        /// The message says nothing of that.
        None => "none",
        /// By one click.
        OneClick => "one-click",
        /// By a page.
        Link => "link",
        /// By a mail.
        Mail => "mail",
        /// By nothing that could be used.
        Unusable => "unusable",
    }
}

labels! {
    /// What was found of how the list of a tenant's bulk mail is left, as it goes out.
    UnsubscribeCheck {
        /// It is as RFC 8058 wants it.
        Sound => "sound",
        /// There is no List-Unsubscribe.
        Missing => "missing",
        /// It stands more than once.
        Repeated => "repeated",
        /// It is longer than anybody reads.
        TooLong => "too-long",
        /// Something in it is no URI in angle brackets.
        Syntax => "syntax",
        /// It has white space within a URI.
        Space => "space",
        /// It has a link of http.
        Insecure => "insecure",
        /// It has no link of https.
        NoLink => "no-link",
        /// It has several.
        SeveralLinks => "several-links",
        /// The link leads to no host of the open network.
        Host => "host",
        /// It leads to a name that is for examples.
        Example => "example",
        /// There is no List-Unsubscribe-Post.
        NoPost => "no-post",
        /// It stands more than once.
        PostRepeated => "post-repeated",
        /// It says something else.
        PostValue => "post-value",
        /// No signature of ours covers both.
        Unsigned => "unsigned",
    }
}

labels! {
    /// What about a message may deceive its reader.
    Deception {
        /// How its author is written.
        Author => "author",
        /// The name beside the author's address.
        Name => "name",
        /// The author's domain.
        Domain => "domain",
        /// Other fields.
        Fields => "fields",
        /// What honest senders write, too.
        Irregular => "irregular",
    }
}

labels! {
    /// What was done about a message that was looked at.
    AuthTreatment {
        /// It was taken.
        Accept => "accept",
        /// It was taken with a warning in it.
        Tag => "tag",
        /// It was taken and is held.
        Quarantine => "quarantine",
        /// The client is to come again.
        Defer => "defer",
        /// It was refused.
        Refuse => "refuse",
    }
}

labels! {
    /// What the greylist says of a recipient of mail of a stranger.
    Greylisting {
        /// It comes for the first time.
        New => "new",
        /// It comes too soon.
        Early => "early",
        /// It came again as it should.
        Passed => "passed",
        /// It is known.
        Known => "known",
        /// Its client is.
        Client => "client",
        /// It is a large sender, SPF passes, or a list speaks for it.
        Excused => "excused",
    }
}

labels! {
    /// What is known of a recipient that a program was to be asked for.
    Verification {
        /// It said that there is one.
        Found => "found",
        /// It said that there is none.
        Absent => "absent",
        /// It did not say.
        Failed => "failed",
        /// What it said before still holds.
        Cached => "cached",
    }
}

labels! {
    /// The life of a segment.
    SegmentState {
        /// Being written.
        Active => "active",
        /// Full, with records still needed.
        Sealed => "sealed",
        /// Ready to be written again.
        Free => "free",
    }
}

labels! {
    /// Whether mail can be accepted.
    JournalHealth {
        /// Yes.
        Healthy => "healthy",
        /// No: the medium is full but for the reserve.
        Full => "full",
        /// No: a write or sync failed.
        Failed => "failed",
    }
}

labels! {
    /// The life of a recipient in the queue.
    QueueState {
        /// Due, waiting for its turn.
        Ready => "ready",
        /// In an attempt.
        Running => "running",
        /// Waiting for its next attempt.
        Deferred => "deferred",
        /// Held by an operator or a route.
        Held => "held",
    }
}

labels! {
    /// By which the protection of a connection to a next hop is decided.
    TlsPolicy {
        /// By the route: none.
        None => "none",
        /// By the route: where it is offered.
        Opportunistic => "opportunistic",
        /// By the route: always.
        Required => "required",
        /// By the route or the mail: with a good certificate.
        Verified => "verified",
        /// By TLSA records.
        Dane => "dane",
        /// By TLSA records of no use.
        DaneUnusable => "dane-unusable",
        /// By the domain's policy.
        Sts => "sts",
        /// By the domain's policy, as a trial.
        StsTesting => "sts-testing",
    }
}

labels! {
    /// What a notification says (RFC 3464 §2.3.3).
    Dsn {
        /// Given up.
        Failed => "failed",
        /// Not yet.
        Delayed => "delayed",
        /// Delivered, or handed to a host that will not say so itself.
        Delivered => "delivered",
    }
}

labels! {
    /// What an operator did with queued recipients.
    QueueAction {
        /// They are tried now.
        Retry => "retry",
        /// They are kept back.
        Hold => "hold",
        /// They are kept back no longer.
        Release => "release",
        /// They are forgotten.
        Remove => "remove",
        /// They go by another route.
        Reroute => "reroute",
    }
}

labels! {
    /// What has set when a deferred recipient is tried again.
    RetryWait {
        /// The schedule of the queue.
        Scheduled => "scheduled",
        /// The schedule of a rule.
        Listed => "listed",
        /// A rule for the first try.
        First => "first",
        /// The reply, which said when.
        Asked => "asked",
    }
}

labels! {
    /// What a refusal by a next hop was about.
    Category {
        /// There is no such mailbox.
        BadMailbox => "bad-mailbox",
        /// There is one, and nobody uses it.
        InactiveMailbox => "inactive-mailbox",
        /// The mailbox is full.
        Quota => "quota",
        /// There is no such domain, or it takes no mail.
        BadDomain => "bad-domain",
        /// The DNS did not say, or not what is needed.
        Dns => "dns",
        /// No connection, or a lost one.
        Connection => "connection",
        /// No TLS, or none that is good enough.
        Tls => "tls",
        /// The message looks like spam, or harmful.
        SpamContent => "spam-content",
        /// Our address, our domain or a link has a bad name.
        SpamReputation => "spam-reputation",
        /// SPF, DKIM or DMARC did not prove who we are.
        Authentication => "authentication",
        /// The site does not want this mail for a reason of its own.
        Policy => "policy",
        /// Too much, too fast, or too many connections.
        Rate => "rate",
        /// Who comes for the first time is to come again.
        Greylisted => "greylisted",
        /// The message is too large.
        TooLarge => "too-large",
        /// One side did not speak SMTP as the other understands it.
        Protocol => "protocol",
        /// The message is not made as the site wants it.
        MessageFormat => "message-format",
        /// The site does not relay for us.
        Relaying => "relaying",
        /// The message goes in circles.
        Loop => "loop",
        /// Its time was up.
        Expired => "expired",
        /// An answer by a program, and no refusal.
        AutoReply => "auto-reply",
        /// The site has trouble of its own.
        System => "system",
        /// Our own suppression list.
        Suppressed => "suppressed",
        /// Nothing that a rule knows.
        Other => "other",
    }
}

labels! {
    /// What came to an address for reports.
    ReportRead {
        /// A report of what became of a message.
        Bounce => "bounce",
        /// A complaint.
        Complaint => "complaint",
        /// An answer by a program.
        AutoReply => "auto-reply",
        /// Something else.
        Other => "other",
        /// Mail to an address that we did not make, or too long ago.
        Unsigned => "unsigned",
    }
}

labels! {
    /// Whether a new configuration was taken.
    Reload {
        /// It was.
        Done => "done",
        /// It was not; the old one stays.
        Refused => "refused",
    }
}

impl ShardMetrics {
    pub(crate) fn new(b: &mut ShardBuilder<'_>, refusals: &[&'static str]) -> Self {
        use crate::names as n;
        let tls = |b: &mut ShardBuilder<'_>, side| TlsMetrics {
            done: b.counter(&n::TLS_HANDSHAKES, &[side, "done"]),
            failed: b.counter(&n::TLS_HANDSHAKES, &[side, "failed"]),
        };
        let pool_deliveries = |b: &mut ShardBuilder<'_>, by| PoolDeliveries {
            delivered: b.counter(&n::POOL_DELIVERIES, &[by, "delivered"]),
            deferred: b.counter(&n::POOL_DELIVERIES, &[by, "deferred"]),
            failed: b.counter(&n::POOL_DELIVERIES, &[by, "failed"]),
            unreached: b.counter(&n::POOL_DELIVERIES, &[by, "unreached"]),
        };
        Self {
            inbound: Inbound {
                open: b.gauge(&n::CONNECTIONS_OPEN, &["in"]),
                connections: b.counter(&n::CONNECTIONS, &["in"]),
                refused: Family::new(|v: ConnectionRefusal| b.counter(&n::CONNECTIONS_REFUSED, &[v.label()])),
                untracked: b.counter(&n::CLIENTS_UNTRACKED, &[]),
                verifications: Family::new(|v: Verification| b.counter(&n::VERIFICATIONS, &[v.label()])),
                tarpitted: b.counter(&n::REPLIES_HELD_BACK, &[]),
                given: b.counter(&n::CONNECTIONS_HANDED_OVER, &["out"]),
                taken: b.counter(&n::CONNECTIONS_HANDED_OVER, &["in"]),
                pauses: b.counter(&n::ACCEPT_PAUSES, &[]),
                tls_resumed: b.counter(&n::TLS_RESUMED, &[]),
                suppressed: b.counter(&n::SUPPRESSED_RECIPIENTS, &["intake"]),
                list_links: b.counter(&n::LIST_LINKS, &[]),
                duplicates: b.counter(&n::DUPLICATES, &[]),
                commands: Family::new(|v: Verb| b.counter(&n::COMMANDS, &[v.label()])),
                messages: b.counter(&n::MESSAGES, &["in"]),
                recipients: b.counter(&n::RECIPIENTS, &["in"]),
                bytes: b.counter(&n::CONTENT_BYTES, &["in"]),
                message_bytes: b.histogram(&n::MESSAGE_BYTES),
                spf: Family::new(|v: AuthResult| b.counter(&n::AUTHENTICATION_RESULTS, &["spf", v.label()])),
                dkim: Family::new(|v: AuthResult| {
                    b.counter(&n::AUTHENTICATION_RESULTS, &["dkim", v.label()])
                }),
                led_back: b.counter(&n::SRS, &["in"]),
                arc: Family::new(|v: AuthResult| b.counter(&n::AUTHENTICATION_RESULTS, &["arc", v.label()])),
                dmarc: Family::new(|v: AuthResult| {
                    b.counter(&n::AUTHENTICATION_RESULTS, &["dmarc", v.label()])
                }),
                bimi: Family::new(|v: BimiCounted| b.counter(&n::BIMI_RESULTS, &[v.label()])),
                dmarc_counted: Family::new(|v: DmarcCounted| b.counter(&n::DMARC_COUNTED, &[v.label()])),
                dmarc_failures_dropped: b.counter(&n::DMARC_FAILURES_DROPPED, &[]),
                deceptions: Family::new(|v: Deception| b.counter(&n::DECEPTIONS, &[v.label()])),
                unsubscribe_ways: Family::new(|v: UnsubscribeWay| {
                    b.counter(&n::UNSUBSCRIBE_WAYS, &[v.label()])
                }),
                unsubscribe_checks: Family::new(|v: UnsubscribeCheck| {
                    b.counter(&n::UNSUBSCRIBE_CHECKS, &[v.label()])
                }),
                treatments: Family::new(|v: AuthTreatment| {
                    b.counter(&n::AUTHENTICATION_ACTIONS, &[v.label()])
                }),
                authentication: b.histogram(&n::AUTHENTICATION_SECONDS),
                screened: Family::new(|v: AuthTreatment| b.counter(&n::STRANGER_ACTIONS, &[v.label()])),
                screening: b.histogram(&n::SCREENING_SECONDS),
                greylisted: Family::new(|v: Greylisting| b.counter(&n::GREYLISTED, &[v.label()])),
                signed: b.counter(&n::SIGNATURES, &["done"]),
                sealed: b.counter(&n::SEALS, &[]),
                unsigned: b.counter(&n::SIGNATURES, &["failed"]),
                signing: b.histogram(&n::SIGNING_SECONDS),
                tls: tls(b, "in"),
                refusals: refusals.iter().map(|r| (*r, b.counter(&n::REFUSALS, &[r]))).collect(),
                refusals_other: b.counter(&n::REFUSALS, &[OTHER]),
            },
            outbound: Outbound {
                open: b.gauge(&n::CONNECTIONS_OPEN, &["out"]),
                connections: b.counter(&n::CONNECTIONS, &["out"]),
                failed: b.counter(&n::CONNECTIONS_FAILED, &[]),
                rivals: b.counter(&n::CONNECTION_RIVALS, &[]),
                waits: b.counter(&n::CONNECTION_WAITS, &[]),
                yields: b.counter(&n::CONNECTION_YIELDS, &[]),
                paced: b.counter(&n::MESSAGE_WAITS, &[]),
                messages: b.counter(&n::MESSAGES, &["out"]),
                recipients: b.counter(&n::RECIPIENTS, &["out"]),
                bytes: b.counter(&n::CONTENT_BYTES, &["out"]),
                tls: tls(b, "out"),
                tls_resumed: b.counter(&n::TLS_RESUMED_OUT, &[]),
                logins: TlsMetrics {
                    done: b.counter(&n::LOGINS, &["done"]),
                    failed: b.counter(&n::LOGINS, &["failed"]),
                },
                conversions: TlsMetrics {
                    done: b.counter(&n::CONVERSIONS, &["done"]),
                    failed: b.counter(&n::CONVERSIONS, &["failed"]),
                },
                rewritten: b.counter(&n::SRS, &["out"]),
                programs: pool_deliveries(b, "program"),
                services: pool_deliveries(b, "http"),
                reports: pool_deliveries(b, "reports-in"),
                policies_kept: Family::new(|v: TlsPolicy| b.counter(&n::TLS_POLICIES, &[v.label(), "kept"])),
                policies_broken: Family::new(|v: TlsPolicy| {
                    b.counter(&n::TLS_POLICIES, &[v.label(), "broken"])
                }),
            },
            journal: Journal {
                group_records: b.histogram(&n::GROUP_RECORDS),
                group_bytes: b.histogram(&n::GROUP_BYTES),
                sync: b.histogram(&n::SYNC_SECONDS),
                commit: b.histogram(&n::COMMIT_SECONDS),
                failed: b.counter(&n::COMMITS_FAILED, &[]),
                segments: Levels::new(|v: SegmentState| b.gauge(&n::SEGMENTS, &[v.label()])),
                segment_bytes: Levels::new(|v: SegmentState| b.gauge(&n::SEGMENT_BYTES, &[v.label()])),
                live_bytes: b.gauge(&n::LIVE_BYTES, &[]),
                health: Levels::new(|v: JournalHealth| b.gauge(&n::JOURNAL_HEALTH, &[v.label()])),
            },
            queue: Queue {
                recipients: Levels::new(|v: QueueState| b.gauge(&n::QUEUE_RECIPIENTS, &[v.label()])),
                messages: b.gauge(&n::QUEUE_MESSAGES, &[]),
                bytes: b.gauge(&n::QUEUE_BYTES, &[]),
                oldest: b.gauge(&n::QUEUE_OLDEST_SECONDS, &[]),
                throttled: b.gauge(&n::SITES_THROTTLED, &[]),
                sources_out: b.gauge(&n::SOURCES_OUT, &[]),
                sources_lowered: b.gauge(&n::SOURCES_LOWERED, &[]),
                returning: b.gauge(&n::QUEUE_RETURNING, &[]),
                returned: b.gauge(&n::QUEUE_RETURNING_MESSAGES, &["back"]),
                missing: b.gauge(&n::QUEUE_RETURNING_MESSAGES, &["missing"]),
                time: b.histogram(&n::QUEUE_SECONDS),
                rerouted: b.counter(&n::QUEUE_REROUTED, &[]),
                changed: Family::new(|v: QueueAction| b.counter(&n::QUEUE_CHANGED, &[v.label()])),
                looked: b.counter(&n::QUEUE_LOOKED, &[]),
                retries: Family::new(|v: RetryWait| b.counter(&n::QUEUE_RETRIES, &[v.label()])),
            },
            delivery: Delivery {
                sites: std::cell::RefCell::new(b.sites(&n::DELIVERY_OUTCOMES)),
                attempt: b.histogram(&n::ATTEMPT_SECONDS),
                deferred: Family::new(|v: Category| {
                    b.counter(&n::OUTBOUND_REFUSALS, &["deferred", v.label()])
                }),
                failed: Family::new(|v: Category| b.counter(&n::OUTBOUND_REFUSALS, &["failed", v.label()])),
                reports_read: Family::new(|v: ReportRead| b.counter(&n::REPORTS_READ, &[v.label()])),
                bounces: Family::new(|v: Category| b.counter(&n::BOUNCES, &[v.label()])),
                dsns: Family::new(|v: Dsn| b.counter(&n::DSNS, &[v.label()])),
                suppressed: b.counter(&n::SUPPRESSED_RECIPIENTS, &["delivery"]),
            },
            dns: Dns {
                questions: b.counter(&n::DNS_QUESTIONS, &[]),
                cache_hits: b.counter(&n::DNS_CACHE_HITS, &[]),
                failures: b.counter(&n::DNS_FAILURES, &[]),
                time: b.histogram(&n::DNS_SECONDS),
            },
            buffers: Buffers {
                bytes: b.gauge(&n::BUFFER_BYTES, &[]),
                budget: b.gauge(&n::BUFFER_BUDGET_BYTES, &[]),
                waits: b.counter(&n::BUFFER_WAITS, &[]),
            },
            executor: Executor {
                stalls: b.histogram(&n::STALL_SECONDS),
                panicked: b.counter(&n::SESSIONS_PANICKED, &[]),
                bridge_requests: b.counter(&n::BRIDGE_REQUESTS, &[]),
            },
        }
    }
}

impl Inbound {
    /// The counter of a refusal; one that was not announced counts as `other`.
    pub fn refusal(&self, reason: &'static str) -> &Counter {
        // Forty short names at most, and refusals are not the hot path: a scan beats a hash.
        let known = self.refusals.iter().find(|(label, _)| *label == reason);
        known.map_or(&self.refusals_other, |(_, counter)| counter)
    }
}

impl Journal {
    /// Says which state the journal is in; it is in no other.
    pub fn set_health(&self, health: JournalHealth) {
        for value in JournalHealth::ALL {
            self.health.of(*value).set(u64::from(*value == health));
        }
    }
}

impl ProcessMetrics {
    /// Certificates were taken anew, or refused.
    pub fn renewed(&self, renewal: Reload) {
        self.renewals[renewal.index()].increment(1);
    }

    /// A reload was done or refused.
    pub fn reloaded(&self, reload: Reload) {
        self.reloads[reload.index()].increment(1);
    }

    /// A new program has taken over, or could not.
    pub fn upgraded(&self, upgrade: Reload) {
        self.upgrades[upgrade.index()].increment(1);
    }

    /// The program before this one still has so many sessions.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is more than there are")]
    pub fn set_predecessor_sessions(&self, sessions: u64) {
        self.predecessor_sessions.set(sessions as f64);
    }

    /// So much of the disk is taken for segments, of so much that may be.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 bytes are 9 PB")]
    pub fn set_disk(&self, taken: u64, max: u64) {
        self.disk_bytes.set(taken as f64);
        self.disk_max_bytes.set(max as f64);
    }

    /// So many addresses and networks of clients are counted.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is more than there are")]
    pub fn set_clients_tracked(&self, tracked: usize) {
        self.clients_tracked.set(tracked as f64);
    }

    /// The log has lost so many lines since the start.
    pub fn set_log_lines_dropped(&self, lines: u64) {
        self.log_lines_dropped.absolute(lines);
    }

    /// What the process uses of the host.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 bytes are 9 PB")]
    pub fn set_usage(&self, usage: ProcessUsage) {
        self.open_fds.set(usage.open_fds as f64);
        self.max_fds.set(usage.max_fds as f64);
        self.resident_bytes.set(usage.resident_bytes as f64);
        self.cpu_seconds.absolute(usage.cpu_seconds);
    }
}

impl TenancyMetrics {
    /// So many entries are on all suppression lists.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is more than there are")]
    pub fn set_suppressions(&self, entries: u64) {
        self.suppressions.set(entries as f64);
    }

    /// So many were put on for that reason since the start.
    pub fn set_added(&self, reason: &str, entries: u64) {
        if let Some((_, counter)) = self.added.iter().find(|(known, _)| *known == reason) {
            counter.absolute(entries);
        }
    }

    /// So many could not be.
    pub fn set_lost(&self, entries: u64) {
        self.lost.absolute(entries);
    }

    /// So many recipients are remembered.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is more than there are")]
    pub fn set_remembered(&self, recipients: u64) {
        self.remembered.set(recipients as f64);
    }
}

impl ReportsInMetrics {
    /// A report came: a new one, or one that was there.
    pub fn came(&self, what: ReportIn, is_new: bool) {
        self.reports[what.index()][usize::from(!is_new)].increment(1);
    }

    /// A report is about so many messages.
    pub fn messages(&self, aligned: Aligned, count: u64) {
        self.messages[aligned.index()].increment(count);
    }

    /// A report is about so many sessions.
    pub fn sessions(&self, successes: u64, failures: u64) {
        self.sessions[0].increment(successes);
        self.sessions[1].increment(failures);
    }

    /// A message was no report for this reason.
    pub fn unread(&self, reason: &str) {
        if let Some((_, counter)) = self.unread.iter().find(|(known, _)| *known == reason) {
            counter.increment(1);
        }
    }

    /// So many are kept.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 bytes are 9 PB")]
    pub fn set_kept(&self, reports: u64, bytes: u64) {
        self.kept.set(reports as f64);
        self.bytes.set(bytes as f64);
    }

    /// What became of a post.
    pub fn post(&self, result: ReportPost) {
        self.posts[result.index()].increment(1);
    }

    /// So many had to go before their time.
    pub fn evicted(&self, reports: u64) {
        self.evicted.increment(reports);
    }
}

impl UnsubscribeMetrics {
    /// What became of a request.
    pub fn of(&self, result: Unsubscription) {
        self.0[result.index()].increment(1);
    }
}

impl BimiFetchMetrics {
    /// What became of one.
    pub fn of(&self, result: BimiFetch) {
        self.0[result.index()].increment(1);
    }
}

impl DmarcFailureMetrics {
    /// What became of one.
    pub fn of(&self, result: DmarcFailure) {
        self.0[result.index()].increment(1);
    }
}

impl HttpMetrics {
    /// A request was answered with this status.
    pub fn answered(&self, status: u16) {
        let of_status = self.requests.iter().find(|(known, _)| *known == status);
        of_status.map_or(&self.requests_other, |(_, counter)| counter).increment(1);
    }

    /// So many messages of a request were accepted and refused.
    pub fn messages(&self, accepted: u64, refused: u64) {
        self.accepted.increment(accepted);
        self.refused.increment(refused);
    }

    /// A body was read.
    pub fn body(&self, bytes: u64) {
        self.bytes.increment(bytes);
    }

    /// A request was a repetition.
    pub fn replayed(&self) {
        self.replays.increment(1);
    }

    /// So much memory is set aside now.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 bytes are 9 PB")]
    pub fn set_memory(&self, bytes: u64) {
        self.memory.set(bytes as f64);
    }
}

/// The label value of what has no series of its own.
pub(crate) const OTHER: &str = "other";
