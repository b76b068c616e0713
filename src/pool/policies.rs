//! Policies of domains are fetched here, and kept in a file over a restart.
//!
//! The file is derived: without it every policy is fetched anew, and until then a domain is as one that was never sent to. That
//! is what an attacker would wait for, so it is written whole, flushed and put in place at once.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bridge::{PolicyCounter, PolicyDesk, PolicyErrand};
use delivery::sts::{FetchFailure, Policy};
use mail::Timestamp;
use tls::ClientConfig;
use tokio::{
    sync::{Notify, Semaphore},
    task::spawn_blocking,
};
use watch::events::{PolicyFailed, PolicyFetched};

use crate::{
    durably,
    https::{self, HttpsError, Target},
};

/// How policies are fetched: exchanged at a reload.
#[derive(Clone, Debug)]
pub struct PolicyFetching {
    /// Whom to believe.
    pub tls: Arc<ClientConfig>,
    /// How long a host may take.
    pub patience: Duration,
    /// Where it listens.
    pub port: u16,
}

/// Errands under way at once.
const ERRANDS_MAX: usize = 32;
/// No name leads to more.
const ADDRESSES_MAX: usize = 4;

/// The file of policies in a data directory.
pub fn policy_file(data_directory: &Path) -> PathBuf {
    data_directory.join("mta-sts")
}

/// Takes what an earlier process has kept. A file that is missing or strange costs a new fetch, and no start.
pub fn read_policies(file: &Path, counter: &PolicyCounter, now: Timestamp) {
    match std::fs::read(file) {
        Ok(text) => match counter.take_text(&String::from_utf8_lossy(&text), now) {
            0 => {}
            lines => tracing::warn!("{}: {lines} lines are no policies, and are passed over", file.display()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("{}: {error}: policies are fetched anew", file.display()),
    }
}

/// Goes on errands as long as there is a shard, at the same time keeping the file.
pub(crate) async fn run(
    mut desk: PolicyDesk,
    fetching: Arc<ArcSwap<PolicyFetching>>,
    file: PathBuf,
    clock: fn() -> Timestamp,
) {
    let (counter, changed) = (desk.counter(), Arc::new(Notify::new()));
    tokio::spawn(keep(counter.clone(), changed.clone(), file, clock));
    let places = Arc::new(Semaphore::new(ERRANDS_MAX));
    while let Some(errand) = desk.next().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (counter, changed, fetching) = (counter.clone(), changed.clone(), fetching.load_full());
        tokio::spawn(async move {
            let body = fetch(&errand, &fetching).await;
            drop(place);
            let now = clock();
            let found = counter.done(&errand, body, now);
            let domain = errand.domain.as_str();
            match (&found.failure, &found.policy) {
                (Some(failure), _) => {
                    PolicyFailed { domain, error: &failure.to_string() }.emit(now.0);
                }
                (None, Some(policy)) => {
                    let max_age = Duration::from_secs(policy.max_age.into());
                    PolicyFetched { domain, mode: policy.mode.as_str(), max_age }.emit(now.0);
                    changed.notify_one();
                }
                (None, None) => {}
            }
        });
    }
}

async fn fetch(errand: &PolicyErrand, fetching: &PolicyFetching) -> Result<Vec<u8>, FetchFailure> {
    let addresses = errand.addresses.iter().take(ADDRESSES_MAX);
    let target = Target {
        host: errand.host.to_string(),
        addresses: addresses.map(|address| SocketAddr::new(*address, fetching.port)).collect(),
        tls: fetching.tls.clone(),
        patience: fetching.patience,
        body_max: Policy::SIZE_MAX,
    };
    https::get_text(&target, "/.well-known/mta-sts.txt").await.map_err(|error| match error {
        HttpsError::Certificate(why) => FetchFailure::Certificate(why),
        error @ (HttpsError::Timeout
        | HttpsError::Connect(_)
        | HttpsError::Protocol(_)
        | HttpsError::Status(_)
        | HttpsError::Kind
        | HttpsError::TooLong(_)) => FetchFailure::Fetch(error.to_string().into()),
    })
}

/// Writes the file after a change, and what changes meanwhile once after that. Nine tenths of the time nothing is written,
/// however many policies there are. What another process has written meanwhile, which takes over from this one or from which
/// this one does, is kept.
async fn keep(counter: PolicyCounter, changed: Arc<Notify>, file: PathBuf, clock: fn() -> Timestamp) {
    loop {
        changed.notified().await;
        let (began, counter, to) = (clock(), counter.clone(), file.clone());
        let write = move || {
            read_policies(&to, &counter, began);
            durably::write(&to, &counter.to_text(began))
        };
        match spawn_blocking(write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!("{}: {error}: a restart forgets policies", file.display()),
            // The pool is ending.
            Err(_) => return,
        }
        tokio::time::sleep(clock().saturating_since(began) * 9).await;
    }
}
