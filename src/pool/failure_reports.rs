//! Messages that failed are told to the domains that ask for it (RFC 9991): one by one, within bounds, and to nobody who has not said that
//! he wants it.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bridge::{Door, FailureDesk, Quiet};
use dns::{Kind, Name, Outcome, Question, Records};
use mail::{Address, Timestamp};
use report::{
    Redactor, Shown,
    dmarc::{Destination, Failure, FailureReport},
};
use tokio::{
    sync::{Mutex, Semaphore},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use trust::ReportKind;
use watch::{
    DmarcFailure, DmarcFailureMetrics,
    events::{DmarcFailureSent, DmarcFailureUnsent},
};

use crate::{
    allowance::{Admission, Allowance, FailureRates, Sent},
    daily::{date, queue},
    dmarc_reports::{ADDRESSES_MAX, Unwanted, places},
    failure_ledger::Ledger,
};

/// How it is told: exchanged at a reload.
#[derive(Clone, Debug)]
pub struct FailureReporting {
    /// Whether it is.
    pub enabled: bool,
    /// From whom.
    pub contact: Address,
    /// The name of the host.
    pub hostname: String,
    /// What made the report: a product and its version.
    pub generator: String,
    /// Puts other words in the place of persons.
    pub redactor: Redactor,
    /// What is shown of a message.
    pub shown: Shown,
    /// How many there are.
    pub rates: FailureRates,
}

/// Look-ups for so many at once: a domain whose servers do not answer must not keep others from being told.
const AT_ONCE: usize = 16;
/// So often it is looked what other processes have sent.
const LOOK_AT_OTHERS_EVERY: Duration = Duration::from_secs(1);
/// So often it is looked whether there may be more again.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Tells what shards hand over, as long as there is one.
pub(crate) async fn run(
    mut desk: FailureDesk,
    door: Door,
    reporting: Arc<ArcSwap<FailureReporting>>,
    metrics: DmarcFailureMetrics,
    (data_directory, clock): (PathBuf, fn() -> Timestamp),
) {
    let books = Books { used: Allowance::default(), ledger: Ledger::new(&data_directory) };
    let books = Arc::new(Mutex::new(books));
    let teller = Arc::new(Teller { door, metrics, clock, quiet: desk.quiet(), books });
    let mut looked = Timestamp(0);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut under_way = JoinSet::new();
    loop {
        let next = timeout(LOOK_EVERY, desk.next()).await;
        let settings = reporting.load_full();
        let Ok(next) = next else {
            // A reload may allow more than there were.
            teller.open(&settings.rates, clock()).await;
            continue;
        };
        let Some(failure) = next else { return };
        if !settings.enabled {
            continue;
        }
        let now = clock();
        if now.saturating_since(looked) >= LOOK_AT_OTHERS_EVERY {
            looked = now;
            teller.look(settings.rates, now).await;
        }
        // The lock is let go before anything else is done.
        let admission = teller.books.lock().await.used.admit(&settings.rates, &failure, now);
        let incidents = match admission {
            Admission::Report(incidents) => incidents,
            Admission::Alike => {
                teller.metrics.of(DmarcFailure::Alike);
                continue;
            }
            Admission::TooMany => {
                teller.metrics.of(DmarcFailure::TooMany);
                teller.close(&settings.rates, now).await;
                continue;
            }
        };
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let teller = teller.clone();
        under_way.spawn(async move {
            teller.tell(&settings, &failure, incidents).await;
            drop(place);
        });
        while under_way.try_join_next().is_some() {}
    }
}

/// What was sent, as it is known here and on the disk.
struct Books {
    used: Allowance,
    ledger: Ledger,
}

struct Teller {
    door: Door,
    metrics: DmarcFailureMetrics,
    clock: fn() -> Timestamp,
    quiet: Quiet,
    books: Arc<Mutex<Books>>,
}

impl Teller {
    /// Has shards hand over nothing as long as there would be no report on it.
    async fn close(&self, rates: &FailureRates, now: Timestamp) {
        if let Some(then) = self.books.lock().await.used.closed_until(rates, now) {
            self.quiet.until(then);
        }
    }

    /// Has them hand over again what there may be a report on.
    async fn open(&self, rates: &FailureRates, now: Timestamp) {
        let closed = self.books.lock().await.used.closed_until(rates, now);
        self.quiet.until(closed.unwrap_or(Timestamp(0)));
    }

    /// What another process has sent, or this one's predecessor, counts as well.
    async fn look(&self, rates: FailureRates, now: Timestamp) {
        let books = self.books.clone();
        let looked = spawn_blocking(move || {
            let Books { used, ledger } = &mut *books.blocking_lock();
            ledger.look(&rates, used, now)
        });
        if let Ok(Err(error)) = looked.await {
            tracing::warn!("what was reported of failures today cannot be read: {error}");
        }
    }

    /// Whether a report may go out; if so, it is taken down.
    async fn count(&self, rates: FailureRates, sent: Sent) -> io::Result<bool> {
        let books = self.books.clone();
        let counted = spawn_blocking(move || {
            let Books { used, ledger } = &mut *books.blocking_lock();
            ledger.send(&rates, used, &sent)
        });
        counted.await.map_err(io::Error::other)?
    }

    async fn tell(&self, settings: &FailureReporting, failure: &Failure, incidents: u32) {
        let Ok(domain) = Name::parse(&failure.domain) else { return };
        let spf_record = match &failure.spf {
            Some(domain) => self.spf_record(domain).await,
            None => None,
        };
        let report = FailureReport {
            failure,
            submitter: &settings.hostname,
            generator: &settings.generator,
            redactor: &settings.redactor,
            shown: settings.shown,
            spf_record: spf_record.as_deref(),
            incidents,
        };
        let id = report.id();
        let mut is_first = true;
        for place in failure.to.iter().take(ADDRESSES_MAX) {
            let wanted = match places(&self.door, &domain, place, ReportKind::Failure).await {
                Ok(places) => places,
                Err(Unwanted(why)) => {
                    self.unsent(failure, &place.address, DmarcFailure::Unwanted, why);
                    continue;
                }
            };
            for Destination { address, size_max } in wanted {
                self.send(settings, (&report, &id), &address, size_max, &mut is_first).await;
            }
        }
    }

    async fn send(
        &self,
        settings: &FailureReporting,
        (report, id): (&FailureReport<'_>, &str),
        address: &str,
        size_max: Option<u64>,
        is_first: &mut bool,
    ) {
        let (failure, now) = (report.failure, (self.clock)());
        let Ok(to) = Address::parse(address.as_bytes()) else {
            return self.unsent(
                failure,
                address,
                DmarcFailure::Failed,
                "that is no address that a report can go to",
            );
        };
        if !to.is_ascii() {
            return self.unsent(
                failure,
                address,
                DmarcFailure::Failed,
                "that is no address that a report can go to",
            );
        }
        let content = report.to_mail(id, &settings.contact, &to, &date(now));
        if let Some(most) = size_max.filter(|most| content.len() as u64 > *most) {
            let why = format!("it has {} octets, and {most} are wanted", content.len());
            return self.unsent(failure, address, DmarcFailure::Failed, &why);
        }
        let sent = Sent {
            at: now.0,
            domain: is_first.then(|| failure.domain.clone()),
            to: to.domain_str().to_ascii_lowercase().into(),
        };
        match self.count(settings.rates, sent).await {
            Ok(true) => *is_first = false,
            Ok(false) => {
                self.close(&settings.rates, now).await;
                return self.unsent(failure, address, DmarcFailure::TooMany, "there were too many");
            }
            Err(error) => {
                let why = format!("it cannot be counted: {error}");
                return self.unsent(failure, address, DmarcFailure::Failed, &why);
            }
        }
        match queue(&self.door, "dmarc-failures", &to, content).await {
            Ok(()) => {
                self.metrics.of(DmarcFailure::Sent);
                let author = &*failure.author;
                DmarcFailureSent { domain: author, to: address, incidents: report.incidents.into() }
                    .emit(now.0);
            }
            Err(why) => self.unsent(failure, address, DmarcFailure::Failed, &why),
        }
        self.close(&settings.rates, now).await;
    }

    fn unsent(&self, failure: &Failure, to: &str, result: DmarcFailure, error: &str) {
        self.metrics.of(result);
        DmarcFailureUnsent { domain: &failure.author, to, error }.emit((self.clock)().0);
    }

    /// The record that SPF was judged by, where there is one now.
    async fn spf_record(&self, domain: &str) -> Option<String> {
        let question = Question { name: Name::parse(domain).ok()?, kind: Kind::Txt };
        let answer = self.door.resolve(question).await.ok()?;
        let Outcome::Found(Records::Texts(texts)) = &answer.outcome else { return None };
        let is_record = |text: &&[u8]| {
            text.get(..6).is_some_and(|head| head.eq_ignore_ascii_case(b"v=spf1"))
                && matches!(text.get(6), None | Some(b' '))
        };
        let record = texts.iter().map(|text| &**text).find(is_record)?;
        Some(String::from_utf8_lossy(record).into_owned())
    }
}
