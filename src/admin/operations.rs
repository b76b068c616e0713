//! The server's end: what can be asked over HTTP.

use std::{
    fmt::Display,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path, Query, Request, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bridge::{
    Action, Age, Class, Door, Entry, Explained, Filter, Pace, Page, Progress, Selector, ShardHealth,
    SourceView, Strangers, SubjectHash, Summary, Tenancy,
};
use config::Secret;
use mail::{StatusPattern, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

use crate::{
    Deliverability, Predecessor, Problem, ReloadRequest, ReportShelf, ReputationRules, Rotations,
    UpgradeRequest, deliverability, greylist, openapi,
    paths::Paths,
    reload, reports, reputation, rotation, sources, suppression,
    tasks::{self, Tasks},
    upgrade,
};

/// Says whether a tenant of that name is configured.
pub type KnowsTenant = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What is asked about beside the shards.
#[derive(Clone)]
pub struct Facts {
    /// Which version runs.
    pub version: &'static str,
    /// Since when.
    pub started_at: Timestamp,
    /// On which data directory.
    pub data_dir: PathBuf,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// The time.
    pub clock: fn() -> Timestamp,
    /// All metrics now, in the Prometheus text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// To whoever reloads the configuration.
    pub reloads: mpsc::Sender<ReloadRequest>,
    /// To whoever has another program take over.
    pub upgrades: mpsc::Sender<UpgradeRequest>,
    /// What is known of our sources now.
    pub sources: Arc<dyn Fn() -> Vec<SourceView> + Send + Sync>,
    /// To whoever reports once a day: do it now.
    pub report_now: ReportNow,
    /// What is known of tenants.
    pub tenancy: Tenancy,
    /// Whether a tenant of that name is configured.
    pub knows_tenant: KnowsTenant,
    /// What is known of strangers.
    pub strangers: Strangers,
    /// What is made of what they did.
    pub reputation_rules: Arc<dyn Fn() -> ReputationRules + Send + Sync>,
    /// What is known of keys that are renewed.
    pub rotations: Rotations,
    /// What mail testers would say of our domains.
    pub deliverability: Deliverability,
}

/// What tells those who report once a day to do it now.
#[derive(Clone, Debug, Default)]
pub struct ReportNow {
    /// On TLS (RFC 8460).
    pub tls: Arc<Notify>,
    /// On mail that bore the names of domains (RFC 9990).
    pub dmarc: Arc<Notify>,
}

/// A listener, as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Its name in the configuration.
    pub name: String,
    /// Where it listens.
    pub address: String,
}

/// The operations, ready to be served.
#[derive(Clone)]
pub struct Operations(Arc<Inner>);

struct Inner {
    door: Door,
    facts: Facts,
    token: RwLock<Option<Secret>>,
    predecessor: RwLock<Option<Predecessor>>,
    reports: RwLock<Option<Arc<dyn ReportShelf>>>,
    tasks: Tasks,
}

impl Operations {
    /// Operations on the shards behind a door.
    pub fn new(door: Door, facts: Facts) -> Self {
        Self(Arc::new(Inner {
            door,
            facts,
            token: RwLock::default(),
            predecessor: RwLock::default(),
            reports: RwLock::default(),
            tasks: Tasks::default(),
        }))
    }

    /// What a client on a port must show from now on to see and change more than monitoring does; none: it cannot.
    pub fn set_token(&self, token: Option<Secret>) {
        *self.0.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    fn token(&self) -> Option<Secret> {
        self.0.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says who keeps reports that came to us.
    pub fn set_reports(&self, shelf: Arc<dyn ReportShelf>) {
        *self.0.reports.write().unwrap_or_else(PoisonError::into_inner) = Some(shelf);
    }

    pub(crate) fn reports(&self) -> Option<Arc<dyn ReportShelf>> {
        self.0.reports.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says which server was here before this one and has not ended yet; none: it has, or there was none.
    pub fn set_predecessor(&self, predecessor: Option<Predecessor>) {
        *self.0.predecessor.write().unwrap_or_else(PoisonError::into_inner) = predecessor;
    }

    fn predecessor(&self) -> Option<Predecessor> {
        self.0.predecessor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn tenancy(&self) -> &Tenancy {
        &self.0.facts.tenancy
    }

    pub(crate) fn strangers(&self) -> &Strangers {
        &self.0.facts.strangers
    }

    pub(crate) fn rotations(&self) -> &Rotations {
        &self.0.facts.rotations
    }

    pub(crate) fn reputation_rules(&self) -> ReputationRules {
        (self.0.facts.reputation_rules)()
    }

    pub(crate) fn deliverability(&self) -> &Deliverability {
        &self.0.facts.deliverability
    }

    pub(crate) fn knows_tenant(&self, name: &str) -> bool {
        (self.0.facts.knows_tenant)(name)
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0.facts.clock)()
    }

    /// Long changes of the queue, for whoever keeps them over a restart.
    pub fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    pub(crate) fn door(&self) -> &Door {
        &self.0.door
    }

    pub(crate) fn clock(&self) -> fn() -> Timestamp {
        self.0.facts.clock
    }

    pub(crate) fn sources(&self) -> Vec<SourceView> {
        (self.0.facts.sources)()
    }

    pub(crate) fn upgrades(&self) -> &mpsc::Sender<UpgradeRequest> {
        &self.0.facts.upgrades
    }

    pub(crate) fn reloads(&self) -> &mpsc::Sender<ReloadRequest> {
        &self.0.facts.reloads
    }

    /// Everything: for the control socket.
    pub fn everything(&self) -> Router {
        self.serving(all().into_router())
    }

    /// For a port: what monitoring needs; the rest for whoever shows the token.
    pub fn guarded(&self) -> Router {
        let operations = self.clone();
        let guard = middleware::from_fn(move |request, next| authorize(operations.token(), request, next));
        self.serving(monitoring().into_router().merge(api().into_router().route_layer(guard)))
    }

    fn serving(&self, router: Router<Self>) -> Router {
        router
            .method_not_allowed_fallback(|| async { Problem::Method })
            .fallback(|| async { Problem::Path })
            .layer(DefaultBodyLimit::max(BODY_MAX))
            .with_state(self.clone())
    }
}

/// A selector is short.
const BODY_MAX: usize = 64 << 10;
/// Entries of a page, unless asked otherwise.
const PAGE: usize = 50;
/// Entries of a page at most.
const PAGE_MAX: usize = 1_000;
/// Destinations of a summary.
const DESTINATIONS: usize = 20;

/// What monitoring needs.
fn monitoring() -> Paths {
    Paths::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
}

/// All there is.
pub(crate) fn all() -> Paths {
    monitoring().merge(api())
}

fn api() -> Paths {
    suppression::routes()
        .merge(greylist::routes())
        .merge(reports::routes())
        .route("/api/v1/status", get(status))
        .route("/api/v1/reload", post(reload::answer))
        .route("/api/v1/upgrade", post(upgrade::answer))
        .route("/api/v1/tls-reports", post(report_tls))
        .route("/api/v1/dmarc-reports", post(report_dmarc))
        .route("/api/v1/sources", get(sources::answer))
        .route("/api/v1/reputation", get(reputation::answer))
        .route("/api/v1/dkim", get(rotation::answer))
        .route("/api/v1/dkim/rotate", post(rotation::rotate))
        .route("/api/v1/deliverability", get(deliverability::last).post(deliverability::look))
        .route("/api/v1/queue", get(list))
        .route("/api/v1/queue/summary", get(summary))
        // An id to look at or an action to do: both are one path segment.
        .route("/api/v1/queue/why", get(why))
        .route("/api/v1/queue/openapi.json", get(openapi::answer))
        .route("/api/v1/operations/openapi.json", get(openapi::answer))
        .route("/api/v1/queue/tasks", get(tasks::list).post(tasks::begin))
        .route("/api/v1/queue/tasks/{id}", get(tasks::show).delete(tasks::cancel))
        .route("/api/v1/queue/{name}", get(show).post(change))
}

/// What was counted since midnight goes out now, and not again at the end of the day.
async fn report_tls(State(operations): State<Operations>) -> StatusCode {
    operations.0.facts.report_now.tls.notify_one();
    StatusCode::ACCEPTED
}

/// Likewise.
async fn report_dmarc(State(operations): State<Operations>) -> StatusCode {
    operations.0.facts.report_now.dmarc.notify_one();
    StatusCode::ACCEPTED
}

async fn authorize(token: Option<Secret>, request: Request, next: Next) -> Result<Response, Problem> {
    let token = token.ok_or(Problem::NoToken)?;
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    // The scheme's case does not matter (RFC 9110 §11.1).
    let shown =
        shown.and_then(|value| value.split_once(' ')).filter(|(s, _)| s.eq_ignore_ascii_case("bearer"));
    match shown {
        Some((_, shown)) if same_secret(shown.trim(), token.expose()) => Ok(next.run(request).await),
        Some(_) | None => Err(Problem::WrongToken),
    }
}

/// Compares in a time that tells the length and nothing else.
fn same_secret(a: &str, b: &str) -> bool {
    let differences = a.bytes().zip(b.bytes()).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    !b.is_empty() && a.len() == b.len() && differences == 0
}

async fn metrics(State(operations): State<Operations>) -> impl IntoResponse {
    let text = (operations.0.facts.metrics)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// Whether a load balancer should send mail here. What is on its way back into the queue is told, and is no reason not to.
async fn ready(State(operations): State<Operations>) -> (StatusCode, String) {
    let (mut failings, mut returning) = (String::new(), String::new());
    for health in operations.0.door.health().await {
        match health {
            Ok(health) if health.is_ready() => {
                if let Some(progress) = health.returning {
                    returning += &format!("shard {}: {progress}\n", health.shard);
                }
            }
            Ok(ShardHealth { shard, stage, journal, .. }) => {
                failings += &format!("shard {shard}: {stage:?}, journal {journal:?}\n").to_lowercase();
            }
            Err(error) => failings += &format!("{error}\n"),
        }
    }
    if failings.is_empty() {
        (StatusCode::OK, format!("ready\n{returning}"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, failings)
    }
}

/// The answer of `/api/v1/status`.
#[derive(Serialize)]
struct Status {
    version: &'static str,
    uptime_seconds: u64,
    data_dir: PathBuf,
    listeners: Vec<Listener>,
    shards: Vec<Shard>,
    /// The server that this one has taken over from, while it still has sessions: its mail is not shown here.
    #[serde(skip_serializing_if = "Option::is_none")]
    predecessor: Option<Predecessor>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shard {
    Answers(ShardHealth),
    Silent { error: String },
}

async fn status(State(operations): State<Operations>) -> Json<Status> {
    let Facts { version, started_at, ref data_dir, ref listeners, clock, .. } = operations.0.facts;
    let shards = operations.0.door.health().await.into_iter();
    Json(Status {
        version,
        uptime_seconds: clock().saturating_since(started_at).as_secs(),
        data_dir: data_dir.clone(),
        listeners: listeners.clone(),
        shards: shards
            .map(|health| health.map_or_else(|e| Shard::Silent { error: e.to_string() }, Shard::Answers))
            .collect(),
        predecessor: operations.predecessor(),
    })
}

/// The query of a listing: the filter's fields, and the page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    id: Option<String>,
    sender: Option<String>,
    recipient: Option<String>,
    destination: Option<String>,
    state: Option<bridge::State>,
    site: Option<String>,
    tenant: Option<String>,
    campaign: Option<String>,
    priority: Option<Class>,
    older_than: Option<String>,
    younger_than: Option<String>,
    status: Option<String>,
    category: Option<String>,
    reply: Option<String>,
    subject: Option<String>,
    subject_hash: Option<String>,
    cursor: Option<u64>,
    limit: Option<usize>,
}

async fn list(
    State(operations): State<Operations>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::Query(rejection.body_text()))?;
    let filter = Filter {
        id: query.id.map(|id| id.parse()).transpose()?,
        sender: query.sender.map(|pattern| pattern.parse()).transpose()?,
        recipient: query.recipient.map(|pattern| pattern.parse()).transpose()?,
        destination: query.destination,
        state: query.state,
        site: query.site,
        tenant: query.tenant,
        campaign: query.campaign.map(Into::into),
        priority: query.priority,
        older_than: parsed::<Age>(query.older_than)?,
        younger_than: parsed::<Age>(query.younger_than)?,
        status: parsed::<StatusPattern>(query.status)?,
        category: parsed(query.category)?,
        reply: query.reply.map(Into::into),
        subject: query.subject.map(Into::into),
        subject_hash: parsed::<SubjectHash>(query.subject_hash)?,
    };
    let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    Ok(Json(operations.0.door.list(&filter, query.cursor, limit).await?))
}

/// What a parameter of the query says, if it is there.
fn parsed<T: FromStr<Err: Display>>(text: Option<String>) -> Result<Option<T>, Problem> {
    text.map(|text| text.parse().map_err(|error: T::Err| Problem::Query(error.to_string()))).transpose()
}

async fn show(State(operations): State<Operations>, Path(id): Path<String>) -> Result<Json<Entry>, Problem> {
    let id = id.parse()?;
    operations.0.door.show(id).await?.map(Json).ok_or(Problem::NotQueued(id))
}

/// What is asked about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WhyQuery {
    subject: String,
}

async fn why(
    State(operations): State<Operations>,
    query: Result<Query<WhyQuery>, QueryRejection>,
) -> Result<Json<Vec<Explained>>, Problem> {
    let Query(WhyQuery { subject }) = query.map_err(|rejection| Problem::Query(rejection.body_text()))?;
    let explained = operations.0.door.explain(&subject).await?;
    if explained.is_empty() { Err(Problem::NotKnown(subject)) } else { Ok(Json(explained)) }
}

async fn summary(State(operations): State<Operations>) -> Result<Json<Summary>, Problem> {
    Ok(Json(operations.0.door.summary(DESTINATIONS).await?))
}

/// The body of a change.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeBody {
    pub(crate) selector: Selector,
    /// Where an earlier call stopped, as it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cursor: Option<String>,
    /// With `reroute`: the name of the route; empty for that of the recipient's domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
}

async fn change(
    State(operations): State<Operations>,
    Path(action): Path<String>,
    body: Result<Json<ChangeBody>, JsonRejection>,
) -> Result<Json<Progress>, Problem> {
    let action = ACTIONS.into_iter().find(|a| a.as_str() == action).ok_or(Problem::Path)?;
    let Json(ChangeBody { selector, cursor, to }) =
        body.map_err(|rejection| Problem::Body(rejection.body_text()))?;
    let change = tasks::change(action, selector, to, (Pace::Soon, None))?;
    let cursor = cursor.map(|c| c.parse()).transpose().map_err(|_| bridge::AskError::Cursor)?;
    Ok(Json(operations.0.door.change(&change, cursor).await?))
}

const ACTIONS: [Action; 6] =
    [Action::Retry, Action::Hold, Action::Release, Action::Remove, Action::Reroute, Action::Count];

/// The longest time a request may take: a change of a long queue, step by step.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(120);

#[cfg(test)]
#[path = "operations_test.rs"]
pub(crate) mod test;
