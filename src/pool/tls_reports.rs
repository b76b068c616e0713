//! What shards have counted of TLS is told to the domains that ask for it (RFC 8460).

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bridge::Door;
use delivery::{
    sts::Policy,
    tally::{Detail, PolicyTally, Reported, Tally},
};
use dns::{Kind, Name, Outcome, Question, Records};
use mail::{Address, Timestamp};
use report::tls::{FailureDetails, PolicyResults, Rua, TlsReport, rua};
use tls::ClientConfig;
use watch::events::{TlsReportFailed, TlsReportSent};

use crate::{
    counts::Day,
    daily::{Telling, compressed, date, drawn, queue},
    https::{self, Target},
    tls_counts::TlsCounts,
};

/// How it is reported: exchanged at a reload.
#[derive(Clone, Debug)]
pub struct TlsReporting {
    /// Whether it is.
    pub enabled: bool,
    /// From whom.
    pub contact: Address,
    /// Who we are, in words.
    pub organization: String,
    /// The name of the host.
    pub hostname: String,
    /// Within which time after midnight.
    pub jitter: Duration,
    /// Days that may wait to be told.
    pub days_max: usize,
    /// Whom to believe where reports go by HTTPS.
    pub tls: Arc<ClientConfig>,
}

/// For one report by HTTPS.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the answer to that, which nobody reads.
const BODY_MAX: usize = 64 << 10;

impl Telling for TlsReporting {
    type Tally = Tally;

    fn within(&self) -> Option<Duration> {
        self.enabled.then_some(self.jitter)
    }

    fn days_max(&self) -> usize {
        self.days_max
    }

    async fn tell(self: Arc<Self>, door: Door, counts: TlsCounts, day: (u64, Day<Tally>), within: Duration) {
        tokio::time::sleep(drawn(within)).await;
        tell(door, self, counts, day).await;
    }
}

async fn tell(
    door: Door,
    settings: Arc<TlsReporting>,
    counts: TlsCounts,
    (number, Day { from, to, tally }): (u64, Day<Tally>),
) {
    if tally.untold > 0 {
        tracing::warn!(
            "TLS reports: {} sessions are in none, since there was no room to count them",
            tally.untold
        );
    }
    let to = to.unwrap_or_else(|| counts.now());
    for (place, (domain, policies)) in tally.into_domains().into_iter().enumerate() {
        let places = places(&door, &domain).await;
        // Once, and not twice: who is told in part only is not told again after a stop.
        counts.told(number, |tally| tally.remove(&domain)).await;
        if places.is_empty() {
            continue;
        }
        let id = format!("{}.{place}.{:x}", to.0 / 1_000_000, RandomState::new().build_hasher().finish());
        let report = TlsReport {
            domain: domain.as_str(),
            submitter: &settings.hostname,
            organization: &settings.organization,
            contact: settings.contact.as_str(),
            id: &id,
            from,
            to,
            policies: policies.into_iter().map(written).collect(),
        };
        let compressed = match compressed(&report.to_json()) {
            Ok(compressed) => compressed,
            Err(error) => {
                tracing::warn!("TLS reports: that for {domain} cannot be compressed: {error}");
                continue;
            }
        };
        for rua in places {
            let (place, sent) = match rua {
                Rua::Mail(address) => {
                    let sent = by_mail(&door, &settings, &report, &address, &compressed, counts.now()).await;
                    (format!("mailto:{address}"), sent)
                }
                Rua::Https(host, port, path) => {
                    let sent = by_https(&door, &settings, (&host, port, &path), compressed.clone()).await;
                    (format!("https://{host}:{port}{path}"), sent)
                }
            };
            let (domain, to) = (domain.as_str(), place.as_str());
            match sent {
                Ok(()) => TlsReportSent { domain, to }.emit(counts.now().0),
                Err(error) => TlsReportFailed { domain, to, error: &error }.emit(counts.now().0),
            }
        }
    }
    counts.forget(number).await;
}

/// Where a domain wants its reports.
async fn places(door: &Door, domain: &Name) -> Vec<Rua> {
    let Ok(name) = Name::parse(&format!("_smtp._tls.{domain}")) else { return Vec::new() };
    match door.resolve(Question { name, kind: Kind::Txt }).await {
        Ok(answer) => match &answer.outcome {
            Outcome::Found(Records::Texts(texts)) => rua(texts),
            Outcome::Found(
                Records::Addresses(_) | Records::Exchanges(_) | Records::Names(_) | Records::Tlsa(_),
            )
            | Outcome::NoData
            | Outcome::NxDomain
            | Outcome::TempFail(_) => Vec::new(),
        },
        Err(_) => Vec::new(),
    }
}

/// Through our own queue, as any mail: it waives what the domain publishes, whose TLS it may be about (RFC 8460 §5.3).
async fn by_mail(
    door: &Door,
    settings: &TlsReporting,
    report: &TlsReport<'_>,
    to: &Address,
    compressed: &[u8],
    now: Timestamp,
) -> Result<(), String> {
    let content = report.to_mail(&settings.contact, to, compressed, &date(now));
    queue(door, "tls-reports", to, content).await
}

async fn by_https(
    door: &Door,
    settings: &TlsReporting,
    (host, port, path): (&str, u16, &str),
    compressed: Vec<u8>,
) -> Result<(), String> {
    let name = Name::parse(host).map_err(|error| error.to_string())?;
    let mut addresses = Vec::new();
    for kind in [Kind::Aaaa, Kind::A] {
        let answer = door.resolve(Question { name: name.clone(), kind }).await;
        let answer = answer.map_err(|error| error.to_string())?;
        addresses.extend(answer.addresses().iter().map(|address| SocketAddr::new(*address, port)));
    }
    let tls = settings.tls.clone();
    let target = Target { host: host.to_owned(), addresses, tls, patience: PATIENCE, body_max: BODY_MAX };
    https::post(&target, path, "application/tlsrpt+gzip", compressed).await.map_err(|error| error.to_string())
}

/// As it stands in a report.
fn written(tally: PolicyTally) -> PolicyResults {
    let PolicyTally { policy, successes, failures, details } = tally;
    let lines = |policy: &Policy| policy.to_string().lines().map(str::to_owned).collect();
    let (kind, domain, lines, mx) = match &policy {
        Reported::Tlsa(base, records) => {
            ("tlsa", base, records.iter().map(ToString::to_string).collect(), Vec::new())
        }
        Reported::Sts(domain, Some(policy)) => {
            ("sts", domain, lines(policy), policy.mx.iter().map(ToString::to_string).collect())
        }
        Reported::Sts(domain, None) => ("sts", domain, Vec::new(), Vec::new()),
        Reported::NotFound(domain) => ("no-policy-found", domain, Vec::new(), Vec::new()),
    };
    let detail = |(detail, count): (Detail, u64)| FailureDetails {
        result: detail.result.as_str(),
        from: detail.from,
        host: detail.host.map(Into::into),
        to: detail.to,
        count,
        reason: detail.reason.map(Into::into),
    };
    let details = details.into_iter().map(detail).collect();
    PolicyResults { kind, lines, domain: domain.to_string(), mx, successes, failures, details }
}
