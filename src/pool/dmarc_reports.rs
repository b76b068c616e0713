//! What shards have counted of mail that bore the names of domains is told to those that ask for it (RFC 9990).
//!
//! Each domain has a moment of its own, and nobody gets a report that he has not said he wants (§4): where that cannot be told
//! now, there is none. A crash in between writes a report twice, under the same id, never not at all.

use std::{sync::Arc, time::Duration};

use bridge::Door;
use dns::Name;
use mail::{Address, Timestamp};
use report::dmarc::{Destination, DomainTally, Feedback, Tally};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use trust::{Consent, DestinationCase, Judged, ReportAddress, ReportKind};
use watch::events::{DmarcReportFailed, DmarcReportSent};

use crate::{
    counts::Day,
    daily::{Telling, compressed, date, drawn, queue},
    dmarc_counts::DmarcCounts,
};

/// How it is reported: exchanged at a reload.
#[derive(Clone, Debug)]
pub struct DmarcReporting {
    /// Whether it is.
    pub enabled: bool,
    /// From whom.
    pub contact: Address,
    /// Who we are, in words.
    pub organization: String,
    /// The name of the host.
    pub hostname: String,
    /// What made the report: name and version.
    pub generator: String,
    /// Within which time after midnight.
    pub jitter: Duration,
    /// Days that may wait to be told.
    pub days_max: usize,
}

/// Domains that are told at once. Each has its own servers, which may take their time over whether a report is wanted: whoever has many names
/// with such servers must not keep others from being told.
const AT_ONCE: usize = 64;
/// The addresses of a domain that are looked at (RFC 9990 §3.5: "up to the Receiver's limits on supported URIs").
pub(crate) const ADDRESSES_MAX: usize = 5;

impl Telling for DmarcReporting {
    type Tally = Tally;

    fn within(&self) -> Option<Duration> {
        self.enabled.then_some(self.jitter)
    }

    fn days_max(&self) -> usize {
        self.days_max
    }

    async fn tell(
        self: Arc<Self>,
        door: Door,
        counts: DmarcCounts,
        day: (u64, Day<Tally>),
        within: Duration,
    ) {
        let (number, Day { from, to, tally }) = day;
        if tally.untold > 0 {
            tracing::warn!(
                "DMARC reports: {} messages are in none, since there was no room to count them",
                tally.untold
            );
        }
        let period = (from, to.unwrap_or_else(|| counts.now()));
        let mut turns: Vec<_> =
            tally.into_domains().into_iter().map(|(domain, tally)| (drawn(within), domain, tally)).collect();
        turns.sort_by_key(|(pause, ..)| *pause);
        let began = Instant::now();
        let (room, mut under_way) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        for (pause, domain, tally) in turns {
            tokio::time::sleep_until(began + pause).await;
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let (settings, door, counts) = (self.clone(), door.clone(), counts.clone());
            under_way.spawn(async move {
                settings.tell_domain(&door, &counts, period, &domain, &tally).await;
                counts.told(number, |tally| tally.remove(&domain)).await;
                drop(place);
            });
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
        counts.forget(number).await;
    }
}

impl DmarcReporting {
    async fn tell_domain(
        &self,
        door: &Door,
        counts: &DmarcCounts,
        (from, to): (Timestamp, Timestamp),
        domain: &str,
        tally: &DomainTally,
    ) {
        let rows = tally.rows();
        // "There MUST be at least one record element" (§3.1.1.2).
        let Some(name) = Name::parse(domain).ok().filter(|_| !rows.is_empty()) else { return };
        let report = Feedback {
            domain,
            submitter: &self.hostname,
            organization: &self.organization,
            contact: self.contact.as_str(),
            generator: &self.generator,
            from,
            to,
            published: &tally.published,
            rows,
            untold: tally.untold,
        };
        let id = report.id();
        let mail = match compressed(&report.to_xml(&id)) {
            Ok(compressed) => {
                let date = date(counts.now());
                move |to: &Address| report.to_mail(&id, &self.contact, to, &compressed, &date)
            }
            Err(error) => {
                tracing::warn!("DMARC reports: that for {domain} cannot be compressed: {error}");
                return;
            }
        };
        for place in tally.published.to.iter().take(ADDRESSES_MAX) {
            let wanted =
                places(door, &name, place, ReportKind::Aggregate).await.unwrap_or_else(|Unwanted(error)| {
                    DmarcReportFailed { domain, to: &place.address, error }.emit(counts.now().0);
                    Vec::new()
                });
            for Destination { address, size_max } in wanted {
                let sent = match Address::parse(address.as_bytes()) {
                    Ok(to) if to.is_ascii() => {
                        let content = mail(&to);
                        match size_max.filter(|most| content.len() as u64 > *most) {
                            Some(most) => {
                                Err(format!("it has {} octets, and {most} are wanted", content.len()))
                            }
                            None => queue(door, "dmarc-reports", &to, content).await,
                        }
                    }
                    Ok(_) | Err(_) => Err("that is no address that a report can go to".to_owned()),
                };
                let (now, to) = (counts.now().0, address.as_str());
                match sent {
                    Ok(()) => DmarcReportSent { domain, to }.emit(now),
                    Err(error) => DmarcReportFailed { domain, to, error: &error }.emit(now),
                }
            }
        }
    }
}

/// Why nothing goes to an address.
pub(crate) struct Unwanted(pub(crate) &'static str);

/// Where a report goes that is wanted at this address.
pub(crate) async fn places(
    door: &Door,
    domain: &Name,
    place: &Destination,
    kind: ReportKind,
) -> Result<Vec<Destination>, Unwanted> {
    let host = place.address.rsplit_once('@').and_then(|(_, host)| Name::parse(host).ok());
    let host = host.ok_or(Unwanted("that is no address that a report can go to"))?;
    match consent(door, domain.clone(), host, kind).await {
        Consent::Own | Consent::Given => Ok(vec![place.clone()]),
        Consent::Elsewhere(places) => {
            let there = |ReportAddress { address, size_max }| Destination { address, size_max };
            Ok(places.into_iter().take(ADDRESSES_MAX).map(there).collect())
        }
        Consent::Missing => Err(Unwanted("its domain does not say that it wants them")),
        Consent::Unknown => Err(Unwanted("the DNS does not tell now whether its domain wants them")),
    }
}

/// Asks whether a host takes the reports about a domain.
async fn consent(door: &Door, domain: Name, host: Name, kind: ReportKind) -> Consent {
    let began = Instant::now();
    let mut case = DestinationCase::open(domain, host, kind, trust::Limits::default(), Duration::ZERO);
    loop {
        match case.judge(began.elapsed()) {
            Judged::Known(consent) => return consent,
            Judged::Missing(questions) => {
                for question in questions {
                    match door.resolve(question.clone()).await {
                        Ok(answer) => case.learn(question, answer),
                        // Nobody answers any more.
                        Err(_) => return Consent::Unknown,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod test {
    use bridge::Limits;
    use report::dmarc::{AuthResult, Disposition, Mode, Policy, Published, Row, Spf};

    use super::*;

    /// Three domains whose reports go elsewhere, so that the DNS is asked whether they are wanted there.
    fn tally() -> Tally {
        let mut tally = Tally::default();
        for domain in ["a.test", "b.test", "c.test"] {
            let to = Destination { address: format!("r@reports-of-{domain}"), size_max: None };
            let published = Published {
                policy: Policy::None,
                subdomains: Policy::None,
                nonexistent: Policy::None,
                dkim_mode: Mode::Relaxed,
                spf_mode: Mode::Relaxed,
                testing: false,
                failure_options: "0".into(),
                to: vec![to],
            };
            let row = Row {
                source: [192, 0, 2, 1].into(),
                disposition: Disposition::None,
                dkim_aligned: false,
                spf_aligned: false,
                reasons: Vec::new(),
                header_from: domain.into(),
                envelope_from: domain.into(),
                dkim: Vec::new(),
                spf: Spf { domain: domain.into(), result: AuthResult::None, reason: None },
            };
            tally.count(domain, &published, row);
        }
        tally
    }

    /// Servers of a domain that do not answer keep nobody else from being told.
    #[tokio::test(start_paused = true)]
    async fn domains_do_not_wait_for_one_another() {
        let directory = tempfile::tempdir().unwrap();
        let patience = Duration::from_secs(10);
        let limits = Limits { requests_max: 16, answer_max: patience, inject_max: patience, steps_max: 1 };
        let (door, mut hatches) = Door::new(1, limits);
        let settings = Arc::new(DmarcReporting {
            enabled: true,
            contact: "dmarc@mx.test".parse().unwrap(),
            organization: "O".into(),
            hostname: "mx.test".into(),
            generator: "ringpost".into(),
            jitter: Duration::ZERO,
            days_max: 2,
        });
        let counts = DmarcCounts::new(directory.path(), || Timestamp(7));
        let day = Day { from: Timestamp(1), to: Some(Timestamp(2)), tally: tally() };
        let telling = tokio::spawn(settings.tell(door, counts, (0, day), Duration::ZERO));
        let mut asked = Vec::new();
        for _ in 0..3 {
            let request = tokio::time::timeout(patience / 2, hatches[0].recv()).await;
            // Kept, so that none of them is answered.
            asked.push(request.expect("each domain asks, whatever becomes of the others").unwrap());
        }
        drop((asked, hatches));
        telling.await.unwrap();
    }
}
