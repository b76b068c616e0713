//! Once a day: what shards have counted of TLS is told to the domains that ask for it (RFC 8460).
//!
//! A day is one of UTC (§4.1). What was counted is taken from the shards at its end, so that days are told apart; it goes out
//! later, at a moment drawn by chance, so that not all servers of the world report at once. It is in memory alone: a stop loses
//! what is not out yet.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bridge::{Door, Injection};
use bytes::Bytes;
use delivery::{
    sts::Policy,
    tally::{Detail, PolicyTally, Reported, Tally},
};
use dns::{Kind, Name, Outcome, Question, Records};
use flate2::{Compression, write::GzEncoder};
use mail::{Address, BodyType, ReversePath, Timestamp, Utf8};
use report::tls::{FailureDetails, PolicyResults, Rua, TlsReport, rua};
use tls::ClientConfig;
use tokio::sync::Notify;
use watch::events::{TlsReportFailed, TlsReportSent};

use crate::https::{self, Target};

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
    /// Whom to believe where reports go by HTTPS.
    pub tls: Arc<ClientConfig>,
}

const DAY: Duration = Duration::from_secs(86_400);
/// For one report by HTTPS.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the answer to that, which nobody reads.
const BODY_MAX: usize = 64 << 10;

/// Reports each day, as `reporting` says by then.
pub(crate) async fn run(
    door: Door,
    reporting: Arc<ArcSwap<TlsReporting>>,
    now: Arc<Notify>,
    clock: fn() -> Timestamp,
) {
    let mut from = clock();
    loop {
        let midnight = next_midnight(clock());
        let wait = midnight.saturating_since(clock());
        let asked = tokio::time::timeout(wait, now.notified()).await.is_ok();
        let results = door.tls_results().await;
        // The last second of the day, not the first of the next.
        let to = if asked { clock() } else { Timestamp(midnight.0.saturating_sub(1_000_000)) };
        let settings = reporting.load_full();
        if settings.enabled {
            let pause = if asked { Duration::ZERO } else { drawn(settings.jitter) };
            tokio::spawn(tell(door.clone(), settings, results, (from, to), pause, clock));
        }
        from = if asked { clock() } else { midnight };
    }
}

fn next_midnight(now: Timestamp) -> Timestamp {
    let day = u64::try_from(DAY.as_micros()).unwrap_or(u64::MAX);
    Timestamp((now.0 / day + 1).saturating_mul(day))
}

/// Some part of it.
fn drawn(of: Duration) -> Duration {
    of.mul_f64(f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX))
}

async fn tell(
    door: Door,
    settings: Arc<TlsReporting>,
    results: Tally,
    (from, to): (Timestamp, Timestamp),
    pause: Duration,
    clock: fn() -> Timestamp,
) {
    tokio::time::sleep(pause).await;
    if results.untold > 0 {
        tracing::warn!(
            "TLS reports: {} sessions are in none, since there was no room to count them",
            results.untold
        );
    }
    for (place, (domain, policies)) in results.into_domains().into_iter().enumerate() {
        let places = places(&door, &domain).await;
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
                    let sent = by_mail(&door, &settings, &report, &address, &compressed, clock()).await;
                    (format!("mailto:{address}"), sent)
                }
                Rua::Https(host, port, path) => {
                    let sent = by_https(&door, &settings, (&host, port, &path), compressed.clone()).await;
                    (format!("https://{host}:{port}{path}"), sent)
                }
            };
            let (domain, to) = (domain.as_str(), place.as_str());
            match sent {
                Ok(()) => TlsReportSent { domain, to }.emit(clock().0),
                Err(error) => TlsReportFailed { domain, to, error: &error }.emit(clock().0),
            }
        }
    }
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
    let date = message::date::date_text(now);
    let date = String::from_utf8_lossy(date.as_ref()).into_owned();
    let content = report.to_mail(&settings.contact, to, compressed, &date);
    let injection = Injection {
        bringer: "tls-reports".into(),
        client: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        // Nobody wants to know that a report could not be delivered.
        reverse_path: ReversePath::Null,
        recipients: vec![to.clone()],
        content: Bytes::from(content),
        body: BodyType::SevenBit,
        utf8: Utf8::NotNeeded,
    };
    match door.inject(injection).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(declined)) => Err(format!("{} {}", declined.code, declined.text)),
        Err(error) => Err(error.to_string()),
    }
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

fn compressed(text: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
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

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn days_end_at_midnight() {
        let at = |text| Timestamp::from_rfc3339(text).unwrap();
        for (now, next) in [
            ("2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"),
            ("2026-11-29T23:59:59Z", "2026-11-30T00:00:00Z"),
            ("2026-12-31T12:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(next_midnight(at(now)), at(next));
        }
        assert!((0..100).all(|_| drawn(Duration::from_secs(60)) <= Duration::from_secs(60)));
        assert_eq!(drawn(Duration::ZERO), Duration::ZERO);
    }
}
