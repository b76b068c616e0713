//! Reports of others that come to us (`[reports-in]`): read, kept, and put together for whoever asks.
//!
//! A shard hands the mail over as it does mail for a program, and has it in its journal until it hears that the
//! report is on the disk. Whatever dies in between, it is handed over again, and known again by the name of its
//! file ([`shelf`]).

pub(crate) mod posts;
mod shelf;

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use admin::{ReportPage, ReportQuery, ReportShelf, ShownReport};
use arc_swap::ArcSwap;
use bridge::{Delivered, Delivery, Door, Injection};
use bytes::Bytes;
use config::DomainPattern;
use delivery::{report_waits, taken_as_report};
use mail::{Address, BodyType, Domain, QueueId, ReversePath, Timestamp, Utf8};
use message::content;
use report::received::{self, Grouping, Head, Kind, Limits, Proof, Report, Summary, Told, Unread};
use tokio::{sync::Semaphore, task::spawn_blocking};
use watch::{
    Aligned, ReportIn as Counted, ReportsInMetrics,
    events::{ReportIn, ReportRefused},
};

use self::shelf::{Kept, Shelf};

/// How reports are taken: exchanged at a reload.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportsInOptions {
    /// Our name in `Authentication-Results`.
    pub hostname: String,
    /// About which domains; none: about any.
    pub domains: Vec<DomainPattern>,
    /// To whom mail goes on.
    pub forward: Option<Address>,
    /// Whether all of it does, and not only what could not be read.
    pub forward_all: bool,
    /// How long they are kept.
    pub keep: Duration,
    /// Disk for them.
    pub disk_max: u64,
    /// So many are kept.
    pub reports_max: u32,
    /// What is read.
    pub limits: Limits,
    /// Whether reports on TLS are taken by HTTPS.
    pub https: bool,
    /// Posts of such in a second.
    pub posts_max: u32,
}

/// Whoever keeps reports. Clones are the same.
#[derive(Clone, Debug)]
pub struct ReportsIn {
    inner: Arc<Inner>,
    /// Not for whoever may be at work on a thread when the server stops: shards live as long as anybody has one.
    door: Door,
}

struct Inner {
    shelf: Shelf,
    options: Arc<ArcSwap<ReportsInOptions>>,
    metrics: ReportsInMetrics,
    clock: fn() -> Timestamp,
    /// Each is read in as much memory as a report may take.
    reading: Semaphore,
}

/// Where they are in the data directory.
const DIRECTORY: &str = "reports-in";
/// Reports that are read at a time.
const READING: usize = 2;
/// How often what is too old goes, and others' files are looked at.
const TIDY: Duration = Duration::from_secs(3_600);
/// Clocks of others may be ahead of ours, and days of theirs end before ours.
const AHEAD_MAX: Duration = Duration::from_secs(2 * 86_400);
/// Octets of a header section that are looked at for who has sent a message.
const HEADER_MAX: usize = 64 << 10;
/// No report is about more: what counts it would turn round.
const COUNT_MAX: u64 = 1 << 40;

/// The words for why a message is no report, as metrics have them.
pub const UNREAD_REASONS: &[&str] =
    &["no-report", "too-large", "archive", "syntax", "entities", "content", "foreign", "period"];

/// What came of a message.
struct Taken {
    /// In words.
    text: String,
    /// Whether something in it was no report.
    is_unread: bool,
}

/// What is known of a message beside what is in it.
struct Mail<'a> {
    id: Option<QueueId>,
    from: Option<&'a str>,
    /// Who posted it, where it is no mail.
    client: Option<&'a str>,
    received: Timestamp,
    author: Box<str>,
    reporter: Box<str>,
    proof: Proof,
}

impl ReportsIn {
    /// Those of a data directory, as the options say at the time.
    pub fn new(
        data_directory: &Path,
        door: Door,
        metrics: ReportsInMetrics,
        options: Arc<ArcSwap<ReportsInOptions>>,
        clock: fn() -> Timestamp,
    ) -> Self {
        let inner = Inner {
            shelf: Shelf::new(data_directory.join(DIRECTORY)),
            options,
            metrics,
            clock,
            reading: Semaphore::new(READING),
        };
        Self { inner: Arc::new(inner), door }
    }

    /// For whoever shows them.
    pub fn shelf(&self) -> Arc<dyn ReportShelf> {
        self.inner.clone()
    }

    /// Sees to it that what is too old goes, as long as the pool lives.
    pub(crate) async fn tidy(self) {
        let mut rounds = tokio::time::interval(TIDY);
        loop {
            rounds.tick().await;
            let inner = self.inner.clone();
            if spawn_blocking(move || inner.tidy()).await.is_err() {
                return;
            }
        }
    }

    /// Keeps what is in a message; then it is ours no more.
    pub(crate) async fn deliver(&self, delivery: &Delivery) -> Delivered {
        let waits = |why: &str| Delivered { outcome: report_waits(why, &delivery.remote), is_answer: true };
        let Ok(_turn) = self.inner.reading.acquire().await else { return waits("the server stops") };
        let inner = self.inner.clone();
        let (id, message, received) = (delivery.id, delivery.content.clone(), delivery.envelope.received_at);
        let from = delivery.envelope.reverse_path.address().map_or("", Address::as_str).to_owned();
        let taken = spawn_blocking(move || inner.take(id, &from, received, &message)).await;
        let taken = match taken {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => {
                tracing::warn!(id = %delivery.id, "a report cannot be kept: {error}; its mail waits");
                return waits(&format!("the report cannot be kept: {error}"));
            }
            Err(error) => {
                // What is in it ends nobody but itself, and comes again until it is given up.
                tracing::error!(id = %delivery.id, "reading a report came to no end: {error}");
                return waits("reading it came to no end");
            }
        };
        let options = self.inner.options.load_full();
        let forward = options.forward.as_ref().filter(|_| options.forward_all || taken.is_unread);
        if let Some(to) = forward
            && let Err(why) = self.forward(delivery, to).await
        {
            return waits(&format!("it cannot be passed on to {to}: {why}"));
        }
        Delivered { outcome: taken_as_report(&taken.text, &delivery.remote), is_answer: true }
    }

    /// A copy goes through our own queue. Whoever dies in between sends another one.
    async fn forward(&self, delivery: &Delivery, to: &Address) -> Result<(), String> {
        let content = &delivery.content;
        let injection = Injection {
            bringer: "reports-in".into(),
            client: ([127, 0, 0, 1], 0).into(),
            // Nobody has asked for it: nobody is told when it cannot be delivered.
            reverse_path: ReversePath::Null,
            recipients: vec![to.clone()],
            content: Bytes::from(content::gather(content, 0..content::len(content))),
            body: match delivery.envelope.body {
                // Programs by HTTP have none of that.
                BodyType::BinaryMime | BodyType::EightBitMime => BodyType::EightBitMime,
                BodyType::SevenBit => BodyType::SevenBit,
            },
            utf8: if to.is_ascii() { delivery.envelope.utf8 } else { Utf8::Needed },
        };
        match self.door.inject(injection).await {
            Ok(Ok(_)) => Ok(()),
            // It is kept here all the same, and the next hop would say so again.
            Ok(Err(declined)) if declined.code >= 500 => {
                let said = format!("{} {}", declined.code, declined.text);
                tracing::warn!(id = %delivery.id, "a report is not passed on to {to}: {said}");
                Ok(())
            }
            Ok(Err(declined)) => Err(format!("{} {}", declined.code, declined.text)),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Inner {
    fn take(&self, id: QueueId, from: &str, received: Timestamp, message: &[Bytes]) -> io::Result<Taken> {
        let options = self.options.load_full();
        let header = content::gather(message, 0..HEADER_MAX);
        let (reporter, proof) = received::proven(&header, &options.hostname);
        let author = received::author(&header);
        let mail = Mail { id: Some(id), from: Some(from), client: None, received, author, reporter, proof };
        let (mut texts, mut wrong) = (Vec::new(), None);
        match received::read(message, &options.limits) {
            Ok(reports) => {
                for report in reports {
                    let report = report.came(received);
                    match self.is_wanted(&report, &options) {
                        Ok(()) => texts.push(self.keep(&report, &mail)?.1),
                        Err(unread) => wrong = Some(unread),
                    }
                }
            }
            Err(unread) => wrong = Some(unread),
        }
        let is_unread = wrong.is_some();
        if let Some(unread) = wrong {
            texts.push(self.keep_unread(&unread, &mail, message)?);
        }
        let evicted = self.shelf.make_room(options.disk_max, options.reports_max)?;
        self.tell(evicted);
        Ok(Taken { text: texts.join("; "), is_unread })
    }

    fn is_wanted(&self, report: &Report, options: &ReportsInOptions) -> Result<(), Unread> {
        let domain = Domain::parse(&report.domain).ok();
        let is_ours =
            domain.is_some_and(|domain| options.domains.iter().any(|pattern| covers(pattern, &domain)));
        if !options.domains.is_empty() && !is_ours {
            return Err(Unread::Foreign(report.domain.to_string()));
        }
        let now = (self.clock)();
        let is_over = report.end.saturating_add(options.keep) <= now;
        let is_ahead = report.end > now.saturating_add(AHEAD_MAX);
        if is_over || is_ahead { Err(Unread::Period) } else { Ok(()) }
    }

    /// Keeps a report, and tells of it; says what came of it.
    fn keep(&self, report: &Report, mail: &Mail<'_>) -> io::Result<(Kept, String)> {
        let (messages, failed) = report.told.counts();
        let mut head = Head {
            key: "".into(),
            kind: report.told.kind(),
            domain: report.domain.clone(),
            organization: report.organization.clone(),
            contact: report.contact.clone(),
            id: report.id.clone(),
            begin: report.begin.to_rfc3339().into(),
            end: report.end.to_rfc3339().into(),
            messages,
            failed,
            ..mail.head()
        };
        let told = serde_json::to_vec(&report.told).map_err(io::Error::other)?;
        head.key = key(&head, if head.id.is_empty() { &told } else { b"" });
        let kept = self.shelf.put(&head, &told)?;
        let Head { reporter, proof, begin, end, .. } = &head;
        ReportIn {
            kind: head.kind.as_str(),
            org: &head.organization,
            report: &head.id,
            reporter: Some(&**reporter).filter(|reporter| !reporter.is_empty()),
            proof: proof.as_str(),
            domain: &head.domain,
            begin,
            end,
            messages,
            failed,
            known: if kept == Kept::New { "no" } else { "yes" },
            id: mail.id.map(|id| id.to_string()).as_deref(),
            client: mail.client,
        }
        .emit((self.clock)().0);
        self.count(&report.told, kept);
        let text = match kept {
            Kept::New => format!("{} report {} kept", head.kind, head.key),
            Kept::Before => format!("{} report {} is known", head.kind, head.key),
        };
        Ok((kept, text))
    }

    fn count(&self, told: &Told, kept: Kept) {
        let kind = match told {
            Told::Dmarc(_) => Counted::Dmarc,
            Told::Tls(_) => Counted::Tls,
            Told::Failure(_) => Counted::Failure,
        };
        self.metrics.came(kind, kept == Kept::New);
        if kept != Kept::New {
            return;
        }
        match told {
            Told::Dmarc(aggregate) => {
                let mut left = COUNT_MAX;
                for row in &aggregate.rows {
                    let aligned = match (row.dkim, row.spf) {
                        (true, true) => Aligned::Both,
                        (true, false) => Aligned::Dkim,
                        (false, true) => Aligned::Spf,
                        (false, false) => Aligned::Neither,
                    };
                    let count = row.count.min(left);
                    left -= count;
                    self.metrics.messages(aligned, count);
                }
            }
            Told::Tls(policies) => {
                let mut left = COUNT_MAX;
                for policy in policies {
                    let successes = policy.successes.min(left);
                    let failures = policy.failures.min(left - successes);
                    left -= successes + failures;
                    self.metrics.sessions(successes, failures);
                }
            }
            Told::Failure(_) => {}
        }
    }

    /// Keeps a message that is no report, as it is.
    fn keep_unread(&self, unread: &Unread, mail: &Mail<'_>, message: &[Bytes]) -> io::Result<String> {
        let octets = content::gather(message, 0..content::len(message));
        let at: Box<str> = mail.received.to_rfc3339().into();
        let mut head = Head {
            key: "".into(),
            kind: Kind::Unread,
            begin: at.clone(),
            end: at,
            reason: format!("{}: {unread}", unread.label()).into(),
            ..mail.head()
        };
        head.key = key(&head, &octets);
        let kept = self.shelf.put(&head, &octets)?;
        self.metrics.came(Counted::Unread, kept == Kept::New);
        if kept == Kept::New {
            self.metrics.unread(unread.label());
        }
        self.refused(unread, mail);
        Ok(format!("no report ({unread}); kept as {}", head.key))
    }

    fn refused(&self, unread: &Unread, mail: &Mail<'_>) {
        ReportRefused {
            id: mail.id.map(|id| id.to_string()).as_deref(),
            from: mail.from,
            client: mail.client,
            reporter: Some(&*mail.reporter).filter(|reporter| !reporter.is_empty()),
            reason: unread.label(),
            error: &unread.to_string(),
        }
        .emit((self.clock)().0);
    }

    fn tidy(&self) {
        let options = self.options.load_full();
        let now = (self.clock)();
        match self.shelf.tidy(now, options.keep) {
            Ok(()) => {
                let evicted = self.shelf.make_room(options.disk_max, options.reports_max).unwrap_or_default();
                self.tell(evicted);
            }
            Err(error) => tracing::warn!("reports that came to us: {error}: those that are too old stay"),
        }
    }

    fn tell(&self, evicted: u64) {
        self.metrics.evicted(evicted);
        let (reports, bytes) = self.shelf.size();
        self.metrics.set_kept(reports, bytes);
    }
}

impl ReportShelf for Inner {
    fn list(&self, query: &ReportQuery) -> io::Result<ReportPage> {
        self.shelf.list(query)
    }

    fn show(&self, key: &str) -> io::Result<Option<ShownReport>> {
        self.shelf.show(key)
    }

    fn summary(&self, query: &ReportQuery, grouping: Grouping) -> io::Result<Summary> {
        self.shelf.summary(query, grouping)
    }
}

impl Mail<'_> {
    /// What holds for all that is in it.
    fn head(&self) -> Head {
        Head {
            key: "".into(),
            kind: Kind::Unread,
            domain: "".into(),
            organization: "".into(),
            contact: "".into(),
            id: "".into(),
            begin: "".into(),
            end: "".into(),
            messages: 0,
            failed: 0,
            reporter: self.reporter.clone(),
            proof: self.proof,
            from: self.author.clone(),
            received: self.received.to_rfc3339().into(),
            mail: self.id.map(|id| id.to_string()).unwrap_or_default().into(),
            reason: "".into(),
        }
    }
}

/// What a report is known again by: who has sent it, as far as that is proven, and what he says it is. So nobody
/// can put himself in the place of a report of somebody else's.
fn key(head: &Head, content: &[u8]) -> Box<str> {
    let Head { kind, reporter, organization, id, domain, begin, end, .. } = head;
    let said = [kind.as_str(), reporter, organization, id, domain, begin, end].join("\n");
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(said.as_bytes());
    context.update(b"\n");
    context.update(content);
    shelf::hex(&context.finish().as_ref()[..12])
}

fn covers(pattern: &DomainPattern, domain: &Domain) -> bool {
    match pattern {
        DomainPattern::Any => true,
        DomainPattern::Exact(exact) => exact == domain,
        DomainPattern::Below(above) => {
            let before = domain.as_str().strip_suffix(above.as_str());
            before.is_some_and(|before| before.len() > 1 && before.ends_with('.'))
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReportsIn").field("shelf", &self.shelf).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn domains_are_covered_by_patterns() {
        let domain = |text: &str| Domain::parse(text).unwrap();
        let exact = DomainPattern::Exact(domain("example.org"));
        let below = DomainPattern::Below(domain("example.org"));
        let of =
            |text: &str| [&exact, &below, &DomainPattern::Any].map(|pattern| covers(pattern, &domain(text)));
        assert_eq!(of("example.org"), [true, false, true]);
        assert_eq!(of("a.b.example.org"), [false, true, true]);
        assert_eq!(of("badexample.org"), [false, false, true]);
    }

    #[test]
    fn nobody_stands_in_the_place_of_another() {
        let mail = |reporter: &str| Mail {
            id: Some(QueueId::from_bits(7)),
            from: None,
            client: None,
            received: Timestamp(7),
            author: "".into(),
            reporter: reporter.into(),
            proof: Proof::Dkim,
        };
        let head = Head { id: "1".into(), organization: "google.com".into(), ..mail("google.com").head() };
        let forged = Head { reporter: "evil.example".into(), ..head.clone() };
        assert_eq!(key(&head, b"").len(), 24);
        assert_ne!(key(&head, b""), key(&forged, b""));
        // When it came, and as what, does not matter.
        let again =
            Head { mail: "other".into(), received: "later".into(), proof: Proof::Dmarc, ..head.clone() };
        assert_eq!(key(&head, b""), key(&again, b""));
        assert_ne!(key(&head, b""), key(&head, b"x"));
    }

    #[test]
    fn every_reason_has_a_metric() {
        let syntax = Unread::Syntax(String::new());
        let foreign = Unread::Foreign(String::new());
        let archive = Unread::Archive("");
        for unread in [
            Unread::NoReport,
            Unread::TooLarge(""),
            archive,
            syntax,
            Unread::Entities,
            Unread::Content(""),
            foreign,
            Unread::Period,
        ] {
            assert!(UNREAD_REASONS.contains(&unread.label()), "{unread:?}");
        }
        assert_eq!(UNREAD_REASONS.len(), 8);
    }
}
