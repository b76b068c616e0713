//! Messages that failed are told to the domains that ask for it (RFC 9991): one by one, within bounds, and to nobody who has not said that
//! he wants it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use bridge::{Door, FailureDesk, Quiet};
use dns::{Kind, Name, Outcome, Question, Records};
use mail::{Address, Timestamp};
use report::{
    Redactor, Shown,
    dmarc::{Destination, Failure, FailureReport},
};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use trust::ReportKind;
use watch::{
    DmarcFailure, DmarcFailureMetrics,
    events::{DmarcFailureSent, DmarcFailureUnsent},
};

use crate::{
    allowance::{Admission, Allowance, FailureRates},
    daily::{date, queue},
    dmarc_reports::{ADDRESSES_MAX, Unwanted, places},
    lock,
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
/// So often it is looked whether there may be more again.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Tells what shards hand over, as long as there is one.
pub(crate) async fn run(
    mut desk: FailureDesk,
    door: Door,
    reporting: Arc<ArcSwap<FailureReporting>>,
    metrics: DmarcFailureMetrics,
    clock: fn() -> Timestamp,
) {
    let teller = Arc::new(Teller { door, metrics, clock, quiet: desk.quiet(), used: Mutex::default() });
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut under_way = JoinSet::new();
    loop {
        let next = timeout(LOOK_EVERY, desk.next()).await;
        let settings = reporting.load_full();
        let Ok(next) = next else {
            // A reload may allow more than there were.
            teller.open(&settings.rates, clock());
            continue;
        };
        let Some(failure) = next else { return };
        if !settings.enabled {
            continue;
        }
        let now = clock();
        // The lock is let go before anything else is done.
        let admission = lock(&teller.used).admit(&settings.rates, &failure, now);
        let incidents = match admission {
            Admission::Report(incidents) => incidents,
            Admission::Alike => {
                teller.metrics.of(DmarcFailure::Alike);
                continue;
            }
            Admission::TooMany => {
                teller.metrics.of(DmarcFailure::TooMany);
                teller.close(&settings.rates, now);
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

struct Teller {
    door: Door,
    metrics: DmarcFailureMetrics,
    clock: fn() -> Timestamp,
    quiet: Quiet,
    used: Mutex<Allowance>,
}

impl Teller {
    /// Has shards hand over nothing as long as there would be no report on it.
    fn close(&self, rates: &FailureRates, now: Timestamp) {
        if let Some(then) = lock(&self.used).closed_until(rates, now) {
            self.quiet.until(then);
        }
    }

    /// Has them hand over again what there may be a report on.
    fn open(&self, rates: &FailureRates, now: Timestamp) {
        self.quiet.until(lock(&self.used).closed_until(rates, now).unwrap_or(Timestamp(0)));
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
        for place in failure.to.iter().take(ADDRESSES_MAX) {
            let wanted = match places(&self.door, &domain, place, ReportKind::Failure).await {
                Ok(places) => places,
                Err(Unwanted(why)) => {
                    self.unsent(failure, &place.address, DmarcFailure::Unwanted, why);
                    continue;
                }
            };
            for Destination { address, size_max } in wanted {
                self.send(settings, &report, &id, &address, size_max).await;
            }
        }
    }

    async fn send(
        &self,
        settings: &FailureReporting,
        report: &FailureReport<'_>,
        id: &str,
        address: &str,
        size_max: Option<u64>,
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
        if !lock(&self.used).send(&settings.rates, &to.domain_str().to_ascii_lowercase(), now) {
            self.close(&settings.rates, now);
            return self.unsent(failure, address, DmarcFailure::TooMany, "there were too many");
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
        self.close(&settings.rates, now);
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
