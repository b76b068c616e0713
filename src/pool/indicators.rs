//! Pictures of domains (BIMI) are fetched here, with their certificates, and judged.
//!
//! Records of strangers say what is fetched. So only hosts of the open network are asked, at one port, for a file each that is not
//! large, and wherever they send us instead we do not go.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bridge::{
    Evidence, IndicatorAnswer, IndicatorDesk, IndicatorErrand, IndicatorFailure, IndicatorFlawed,
    IndicatorFound, IndicatorLimits, IndicatorSource,
};
use mail::Timestamp;
use tls::{ClientConfig, Mark, MarkJudge};
use tokio::sync::Semaphore;
use trust::{IndicatorText, read_indicator, read_logotype};
use watch::{
    BimiFetch, BimiFetchMetrics,
    events::{IndicatorFailed, IndicatorFetched},
};

use crate::https::{self, HttpsError, Target};

/// How pictures are fetched, and judged: exchanged at a reload.
#[derive(Clone, Debug)]
pub struct IndicatorFetching {
    /// Whom to believe about web servers.
    pub tls: Arc<ClientConfig>,
    /// Whom to believe about pictures.
    pub marks: MarkJudge,
    /// How long a host may take for one file.
    pub patience: Duration,
    /// Octets of a picture.
    pub size_max: usize,
    /// How much is kept, and how long.
    pub limits: IndicatorLimits,
    /// Who is asked.
    pub servers: WebServers,
}

/// Which web servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebServers {
    /// Those of the open network, at port 443.
    Open,
    /// All.
    Any,
}

/// Errands under way at once.
const ERRANDS_MAX: usize = 16;
/// No name leads to more.
const ADDRESSES_MAX: usize = 4;
/// Octets of a chain of certificates, one of which has a picture in it.
const CHAIN_SIZE_MAX: usize = 512 << 10;

/// Goes on errands as long as there is a shard.
pub(crate) async fn run(
    mut desk: IndicatorDesk,
    fetching: Arc<ArcSwap<IndicatorFetching>>,
    metrics: BimiFetchMetrics,
    clock: fn() -> Timestamp,
) {
    let (places, metrics) = (Arc::new(Semaphore::new(ERRANDS_MAX)), Arc::new(metrics));
    while let Some(errand) = desk.next().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (fetching, metrics) = (fetching.load_full(), metrics.clone());
        tokio::spawn(async move {
            let IndicatorErrand { location, evidence, ticket } = errand;
            let now = clock();
            let found = look(&fetching, location.as_ref(), evidence.as_ref(), now).await;
            drop(place);
            let (answer, good_for) = match found {
                Ok((found, good_for)) => (Ok(Arc::new(found)), good_for),
                Err(failure) => (Err(failure), Duration::ZERO),
            };
            let key = ticket.key();
            tell((key.location.as_deref(), key.evidence.as_deref()), &answer, good_for, &metrics, clock());
            ticket.done(answer, good_for, &fetching.limits, clock());
        });
    }
}

fn tell(
    (location, evidence): (Option<&str>, Option<&str>),
    answer: &IndicatorAnswer,
    keep: Duration,
    metrics: &BimiFetchMetrics,
    now: Timestamp,
) {
    match answer {
        Ok(found) => {
            metrics.of(BimiFetch::Good);
            IndicatorFetched { location, evidence, size: found.size, keep }.emit(now.0);
        }
        Err(IndicatorFailure { of, reason }) => {
            let (result, what) = match of {
                IndicatorFlawed::Unavailable => (BimiFetch::Unavailable, "unavailable"),
                IndicatorFlawed::Indicator => (BimiFetch::Bad, "indicator"),
                IndicatorFlawed::Evidence => (BimiFetch::Bad, "certificate"),
            };
            metrics.of(result);
            IndicatorFailed { location, evidence, what, error: reason }.emit(now.0);
        }
    }
}

/// Fetches a picture and its certificate, as far as they are named, and judges them. Answers also how long what it found is good.
///
/// # Errors
/// Why there is nothing that may be shown.
pub(crate) async fn look(
    fetching: &IndicatorFetching,
    location: Option<&IndicatorSource>,
    evidence: Option<&IndicatorSource>,
    now: Timestamp,
) -> Result<(IndicatorFound, Duration), IndicatorFailure> {
    let flawed = |of, what: &str, why: &dyn std::fmt::Display| IndicatorFailure {
        of,
        reason: format!("{what}: {why}").into(),
    };
    let of_picture = |why: &dyn std::fmt::Display| flawed(IndicatorFlawed::Indicator, "indicator", why);
    let of_evidence = |why: &dyn std::fmt::Display| flawed(IndicatorFlawed::Evidence, "certificate", why);
    let keep = fetching.limits.keep.saturating_mul(2);
    let fetch = async |source: Option<&IndicatorSource>, wanted| match source {
        Some(source) => get(fetching, source, wanted).await.map(Some),
        None => Ok(None),
    };
    let (picture, chain) =
        tokio::join!(fetch(location, Wanted::Indicator), fetch(evidence, Wanted::Evidence));
    let mark = match chain? {
        Some(pem) => {
            let since_1970 = Duration::from_secs(now.secs());
            let mark = fetching.marks.verify(&pem, since_1970, keep).map_err(|error| of_evidence(&error))?;
            let svg =
                read_logotype(&mark.logotype, fetching.size_max).map_err(|error| of_evidence(&error))?;
            Some((mark, svg))
        }
        None => None,
    };
    let shown = match picture? {
        Some(octets) => Some(read_indicator(&octets, fetching.size_max).map_err(|error| of_picture(&error))?),
        None => None,
    };
    let (svg, mark) = match (shown, mark) {
        // "If both a= and l= tags are included then the MTA MUST perform checks to ensure that the SVG Indicator referenced by the
        // bimi-location is identical" (§8.8 of the draft).
        (Some(shown), Some((_, svg))) if shown != svg => {
            return Err(of_evidence(&"it is of another picture than the one that is shown"));
        }
        (Some(svg), None) => (svg, None),
        (Some(_) | None, Some((mark, svg))) => (svg, Some(mark)),
        (None, None) => return Err(of_picture(&"there is no place of it")),
    };
    let text = IndicatorText::new(&svg);
    let good_for = mark.as_ref().map_or(keep, |mark| mark.good_for);
    let names = |mark: Mark| mark.names.into_iter().map(Into::into).collect();
    let found = IndicatorFound {
        field: text.field().into(),
        hash: text.hash().into(),
        size: svg.len(),
        evidence: mark.map_or(Evidence::Unnamed, |mark| Evidence::Good(names(mark))),
    };
    Ok((found, good_for))
}

#[derive(Clone, Copy)]
enum Wanted {
    Indicator,
    Evidence,
}

async fn get(
    fetching: &IndicatorFetching,
    source: &IndicatorSource,
    wanted: Wanted,
) -> Result<Vec<u8>, IndicatorFailure> {
    let (what, flawed, kind, body_max) = match wanted {
        Wanted::Indicator => ("indicator", IndicatorFlawed::Indicator, "image/svg+xml", fetching.size_max),
        Wanted::Evidence => {
            ("certificate", IndicatorFlawed::Evidence, "application/pem-certificate-chain", CHAIN_SIZE_MAX)
        }
    };
    let failure = |of, why: String| IndicatorFailure { of, reason: format!("{what}: {why}").into() };
    let is_asked = |address: &std::net::IpAddr| match fetching.servers {
        WebServers::Open => deliverability::is_open(*address),
        WebServers::Any => true,
    };
    if fetching.servers == WebServers::Open && source.port != 443 {
        return Err(failure(flawed, format!("port {} is not asked", source.port)));
    }
    if source.addresses.is_empty() {
        return Err(failure(IndicatorFlawed::Unavailable, format!("{} has no address now", source.host)));
    }
    let addresses: Vec<_> = source.addresses.iter().filter(|address| is_asked(address)).collect();
    if addresses.is_empty() {
        return Err(failure(flawed, format!("{} is not in the open network", source.host)));
    }
    let addresses = addresses.into_iter().take(ADDRESSES_MAX);
    let target = Target {
        host: source.host.to_string(),
        addresses: addresses.map(|address| SocketAddr::new(*address, source.port)).collect(),
        tls: fetching.tls.clone(),
        patience: fetching.patience,
        body_max,
    };
    https::get(&target, &source.target, kind).await.map_err(|error| {
        let of = match &error {
            // "does not chain-up to a root certificate the Client trusts then Indicator validation has failed" (§8.5).
            HttpsError::Certificate(_) | HttpsError::TooLong(_) | HttpsError::Kind => flawed,
            HttpsError::Status(status) if status.is_server_error() || status.as_u16() == 429 => {
                IndicatorFlawed::Unavailable
            }
            HttpsError::Status(_) => flawed,
            HttpsError::Timeout | HttpsError::Connect(_) | HttpsError::Protocol(_) => {
                IndicatorFlawed::Unavailable
            }
        };
        failure(of, error.to_string())
    })
}

#[cfg(test)]
mod test {
    use dns::Name;
    use tls::{Authentication, Authorities, Public, Version};

    use super::*;

    /// Whom a stranger's record may send us to, before anybody is connected to.
    #[tokio::test]
    async fn hosts_within_our_walls_are_not_asked() {
        let nobody = Authorities::of(Public::Ignored);
        let fetching = |servers| IndicatorFetching {
            tls: tls::client_config(Authentication::Opportunistic, Version::Tls12, 1).unwrap(),
            marks: MarkJudge::new(nobody.clone()),
            patience: Duration::from_secs(60),
            size_max: 32 << 10,
            limits: IndicatorLimits {
                kept_max: 10,
                octets_max: 1 << 20,
                keep: Duration::from_secs(60),
                retry: Duration::from_secs(60),
            },
            servers,
        };
        let source = |addresses: &[&str], port| IndicatorSource {
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ..IndicatorSource::new(Name::parse("logo.example.org").unwrap(), port, "/x.svg".into())
        };
        let open = fetching(WebServers::Open);
        for (addresses, port, of, why) in [
            (&["192.0.2.1"][..], 25, IndicatorFlawed::Indicator, "indicator: port 25 is not asked"),
            (
                &["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"],
                443,
                IndicatorFlawed::Indicator,
                "indicator: logo.example.org is not in the open network",
            ),
            (&[], 443, IndicatorFlawed::Unavailable, "indicator: logo.example.org has no address now"),
        ] {
            let failure =
                look(&open, Some(&source(addresses, port)), None, Timestamp::EPOCH).await.unwrap_err();
            assert_eq!((failure.of, &*failure.reason), (of, why));
        }
        let evidence = source(&["127.0.0.1"], 443);
        let failure = look(&open, None, Some(&evidence), Timestamp::EPOCH).await.unwrap_err();
        assert_eq!(failure.of, IndicatorFlawed::Evidence);
        let failure = look(&open, None, None, Timestamp::EPOCH).await.unwrap_err();
        assert_eq!(failure.of, IndicatorFlawed::Indicator);
        // For trials, whoever is named is connected to: nobody is there.
        let any = fetching(WebServers::Any);
        let failure = look(&any, Some(&source(&["127.0.0.1"], 1)), None, Timestamp::EPOCH).await.unwrap_err();
        assert_eq!(failure.of, IndicatorFlawed::Unavailable);
    }
}
