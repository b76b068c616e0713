//! Suppression lists over HTTP: a page of them, one entry, entries put on and taken off.

use axum::{
    Json,
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    routing::{get, post},
};
use bridge::{ListEntries, ListPage};
use mail::Timestamp;
use serde::{Deserialize, Serialize};
use tenancy::{Change, Entry, Reason, Scope, Whom, clean_note};

use crate::{Operations, Problem, paths::Paths};

/// An entry, as requests and answers have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryBody {
    /// A tenant, or `*` for all of them.
    pub(crate) tenant: String,
    /// One of its lists; empty for all of its mail.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) list: String,
    /// An address, or a domain as `@example.org`.
    pub(crate) address: String,
    /// By hand, when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<Reason>,
    /// Since when: in answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<String>,
    /// Until when; for ever without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<String>,
    /// What is known beside.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
}

/// The body of a change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntriesBody {
    /// All of them, or none.
    pub(crate) entries: Vec<EntryBody>,
}

/// What a change has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changed {
    pub(crate) changed: u64,
}

/// The answer of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntriesPage {
    pub(crate) entries: Vec<EntryBody>,
    /// Where the next page begins; none when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// The query of a listing. With `address` it is one entry that is looked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    tenant: Option<String>,
    list: Option<String>,
    address: Option<String>,
    domain: Option<String>,
    reason: Option<Reason>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// Entries of one change.
pub(crate) const ENTRIES_MAX: usize = 1_000;
/// So many of them, with all their fields.
const BODY_MAX: usize = 4 << 20;
/// Entries of a page, unless asked otherwise, and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 1_000;

pub(crate) fn routes() -> Paths {
    Paths::new()
        .route("/api/v1/suppressions", get(list))
        .route("/api/v1/suppressions/{action}", post(change).layer(DefaultBodyLimit::max(BODY_MAX)))
}

async fn list(
    State(operations): State<Operations>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<EntriesPage>, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::ListQuery(rejection.body_text()))?;
    let PageQuery { tenant, list, address, domain, reason, cursor, limit } = query;
    if let Some(address) = address {
        let whom: Whom = address.parse().map_err(|_| Problem::NoAddress(address.clone()))?;
        let tenant =
            tenant.ok_or_else(|| Problem::ListQuery("an address is looked for of a tenant".into()))?;
        let scope = Scope { tenant: tenant.into(), list: list.unwrap_or_default().into() };
        let found = operations.tenancy().look(scope, whom).await?;
        let holds = |entry: &Entry| entry.until.is_none_or(|until| until > operations.now());
        let entry = found.filter(holds).ok_or(Problem::NotSuppressed(address))?;
        return Ok(Json(EntriesPage { entries: vec![EntryBody::from(&entry)], next: None }));
    }
    let limit = limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let page = ListPage { tenant, list, reason, domain, cursor, limit };
    let ListEntries { entries, next } = operations.tenancy().page(page).await?;
    Ok(Json(EntriesPage { entries: entries.iter().map(EntryBody::from).collect(), next }))
}

async fn change(
    State(operations): State<Operations>,
    Path(action): Path<String>,
    body: Result<Json<EntriesBody>, JsonRejection>,
) -> Result<Json<Changed>, Problem> {
    let make = match action.as_str() {
        "add" => add,
        "remove" => remove,
        _ => return Err(Problem::Path),
    };
    let Json(EntriesBody { entries }) =
        body.map_err(|rejection| Problem::EntriesBody(rejection.body_text()))?;
    if entries.is_empty() || entries.len() > ENTRIES_MAX {
        let problem = format!("{} entries, and there may be 1 to {ENTRIES_MAX}", entries.len());
        return Err(Problem::EntriesBody(problem));
    }
    let now = operations.now();
    let changes: Result<Vec<_>, _> = entries.iter().map(|entry| make(&operations, entry, now)).collect();
    let changed = operations.tenancy().change(changes?).await? as u64;
    Ok(Json(Changed { changed }))
}

fn add(operations: &Operations, body: &EntryBody, now: Timestamp) -> Result<Change, Problem> {
    let scope = body.scope()?;
    if *scope.tenant != *Scope::ALL && !operations.knows_tenant(&scope.tenant) {
        return Err(Problem::NoTenant(scope.tenant.into()));
    }
    let until = body.until.as_deref().map(|until| {
        let wrong = || Problem::EntriesBody(format!("{until:?} is no time such as 2026-02-27T03:30:00Z"));
        Timestamp::from_rfc3339(until).ok_or_else(wrong)
    });
    Ok(Change::Add(Entry {
        scope,
        whom: body.whom()?,
        reason: body.reason.unwrap_or(Reason::Manual),
        since: now,
        until: until.transpose()?,
        note: clean_note(&body.note),
    }))
}

fn remove(_: &Operations, body: &EntryBody, now: Timestamp) -> Result<Change, Problem> {
    Ok(Change::Remove { scope: body.scope()?, whom: body.whom()?, at: now })
}

impl EntryBody {
    fn scope(&self) -> Result<Scope, Problem> {
        const NAME_MAX: usize = 200;
        let Self { tenant, list, .. } = self;
        let sound = |name: &String| name.len() <= NAME_MAX && !name.chars().any(char::is_control);
        if tenant.is_empty() || !sound(tenant) || !sound(list) {
            return Err(Problem::EntriesBody("a tenant or a list is named by up to 200 characters".into()));
        }
        Ok(Scope { tenant: tenant.as_str().into(), list: list.as_str().into() })
    }

    fn whom(&self) -> Result<Whom, Problem> {
        self.address.parse().map_err(|_| Problem::NoAddress(self.address.chars().take(300).collect()))
    }
}

impl From<&Entry> for EntryBody {
    fn from(entry: &Entry) -> Self {
        let Entry { scope, whom, reason, since, until, note } = entry;
        Self {
            tenant: scope.tenant.to_string(),
            list: scope.list.to_string(),
            address: whom.to_string(),
            reason: Some(*reason),
            since: Some(since.to_rfc3339()),
            until: until.map(Timestamp::to_rfc3339),
            note: note.to_string(),
        }
    }
}
