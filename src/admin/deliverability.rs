//! What mail testers would say of our domains, over HTTP: what was found last, and a look now.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
};
use deliverability::Report;
use mail::Domain;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use crate::{Operations, Problem};

/// A wish to have a domain looked at now.
#[derive(Debug)]
pub struct CheckRequest {
    /// Which.
    pub domain: Domain,
    /// Where the report goes.
    pub reply: oneshot::Sender<Report>,
}

/// What was found last of the domains that are looked at by and by, and the way to whoever looks. Clones are the same.
#[derive(Clone, Debug)]
pub struct Deliverability {
    known: Arc<Mutex<BTreeMap<String, Arc<Report>>>>,
    requests: mpsc::Sender<CheckRequest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    domain: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    domain: String,
}

impl Deliverability {
    /// Nothing is known; and the other end, at which wishes come.
    pub fn new() -> (Self, mpsc::Receiver<CheckRequest>) {
        // Some are looked at at once; who finds so many waiting waits too.
        let (requests, wishes) = mpsc::channel(16);
        (Self { known: Arc::default(), requests }, wishes)
    }

    /// This is what holds of its domain from now on; answers what did before.
    pub fn put(&self, report: Arc<Report>) -> Option<Arc<Report>> {
        self.known().insert(report.domain.clone(), report)
    }

    /// Forgets the domains that are not wanted; answers what was known of them.
    pub fn retain(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<Arc<Report>> {
        let mut known = self.known();
        let gone = known.extract_if(.., |domain, _| !is_wanted(domain)).map(|(_, report)| report);
        gone.collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Report>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was found last, of one domain or of all.
pub(crate) async fn last(
    State(operations): State<Operations>,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Vec<Report>>, Problem> {
    let Query(Which { domain }) =
        query.map_err(|rejection| Problem::Deliverability(rejection.body_text()))?;
    let domain = domain.map(|domain| parsed(&domain)).transpose()?;
    let known = operations.deliverability().known();
    let wanted =
        |report: &&Arc<Report>| domain.as_ref().is_none_or(|domain| *domain.as_str() == report.domain);
    Ok(Json(known.values().filter(wanted).map(|report| Report::clone(report)).collect()))
}

/// Looks at a domain now.
pub(crate) async fn look(
    State(operations): State<Operations>,
    body: Result<Json<Wanted>, JsonRejection>,
) -> Result<Json<Report>, Problem> {
    let Json(Wanted { domain }) = body.map_err(|rejection| Problem::Deliverability(rejection.body_text()))?;
    let domain = parsed(&domain)?;
    let (reply, report) = oneshot::channel();
    let wish = CheckRequest { domain, reply };
    // Who would look is gone when the server stops.
    operations.deliverability().requests.send(wish).await.map_err(|_| Problem::Stopping)?;
    report.await.map(Json).map_err(|_| Problem::Stopping)
}

fn parsed(domain: &str) -> Result<Domain, Problem> {
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    let is_domain = |parsed: &Domain| parsed.literal().is_none() && parsed.as_str().contains('.');
    Domain::parse(&domain)
        .ok()
        .filter(is_domain)
        .ok_or_else(|| Problem::Deliverability(format!("{domain:?} is no domain")))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_is_known_is_of_those_that_are_wanted() {
        let (known, _wishes) = Deliverability::new();
        let report = |domain: &str, at| Arc::new(Report { domain: domain.into(), at, findings: Vec::new() });
        assert_eq!(known.put(report("a.example", 1)), None);
        assert_eq!(known.put(report("b.example", 1)), None);
        assert_eq!(known.put(report("a.example", 2)), Some(report("a.example", 1)));
        assert_eq!(known.retain(|domain| domain == "b.example"), [report("a.example", 2)]);
        assert_eq!(known.known().keys().collect::<Vec<_>>(), ["b.example"]);
    }

    #[test]
    fn what_a_domain_is() {
        assert_eq!(parsed("Example.ORG.").unwrap().as_str(), "example.org");
        for bad in ["", "example", "[192.0.2.1]", "a b.example", "a..example"] {
            assert!(matches!(parsed(bad), Err(Problem::Deliverability(_))), "{bad}");
        }
    }
}
