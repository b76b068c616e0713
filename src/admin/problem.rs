//! What an operator is told when a request cannot be answered (RFC 9457), with what to do about it.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bridge::{AskError, ListError, PatternError};
use mail::{QueueId, QueueIdError};
use serde::Serialize;

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A shard does not answer.
    #[error(transparent)]
    Shard(#[from] AskError),
    /// No such message.
    #[error("message {0} is not in the queue: every recipient has ended, or it was never here")]
    NotQueued(QueueId),
    /// Nothing of that name waits.
    #[error("nothing is queued that is called {0}")]
    NotKnown(String),
    /// The id is not one.
    #[error(transparent)]
    Id(#[from] QueueIdError),
    /// The pattern is not one.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A parameter of the query does not say what it must.
    #[error("the query is wrong: {0}")]
    Query(String),
    /// The body does not say what it must.
    #[error("the body is wrong: {0}")]
    Body(String),
    /// A change without a choice.
    #[error("nothing is chosen")]
    NothingChosen,
    /// A re-route to nowhere in particular.
    #[error("no route is chosen")]
    NoRouteChosen,
    /// No such task.
    #[error("there is no task {0}: it ended long ago, or in an earlier process")]
    NoTask(u64),
    /// As many tasks run as may.
    #[error("as many tasks run as may at once")]
    TooManyTasks,
    /// Nothing at this path.
    #[error("there is nothing at this path")]
    Path,
    /// The path is there, but not for this method.
    #[error("this path has another method")]
    Method,
    /// The port serves the API only by token, and has none.
    #[error("the queue cannot be seen or changed on this port")]
    NoToken,
    /// The token is missing or wrong.
    #[error("the token is missing or wrong")]
    WrongToken,
    /// A new configuration was not taken.
    #[error("the configuration stays as it was: {0}")]
    NotReloaded(String),
    /// A new program does not serve in the place of this one.
    #[error("the running program stays: {0}")]
    NotUpgraded(String),
    /// The suppression lists do not answer.
    #[error(transparent)]
    List(#[from] ListError),
    /// Nobody of that name is on the list.
    #[error("{0} is not on the list")]
    NotSuppressed(String),
    /// There is no such tenant.
    #[error("no tenant is called {0}")]
    NoTenant(String),
    /// What should be an address is none.
    #[error("{0:?} is neither an address nor a domain such as @example.org")]
    NoAddress(String),
    /// A parameter of the query of a list does not say what it must.
    #[error("the query is wrong: {0}")]
    ListQuery(String),
    /// The body with entries does not say what it must.
    #[error("the body is wrong: {0}")]
    EntriesBody(String),
    /// What is asked of the greylist does not say what it must.
    #[error("the query is wrong: {0}")]
    Greylist(String),
    /// Whose reputation is asked for cannot be told.
    #[error("the query is wrong: {0}")]
    Reputation(String),
    /// Which key is to be renewed cannot be told.
    #[error("the body is wrong: {0}")]
    Rotation(String),
    /// There is no such key.
    #[error("no [[dkim]] with `rotate` is called {0:?}")]
    NoRotation(String),
    /// Which reports are asked for cannot be told.
    #[error("the query is wrong: {0}")]
    ReportsQuery(String),
    /// There is no such report.
    #[error("no report {0} is kept")]
    NoReport(String),
    /// Reports cannot be read.
    #[error("reports cannot be read: {0}")]
    Reports(String),
    /// Of which domain something is asked cannot be told.
    #[error("the domain is wrong: {0}")]
    Deliverability(String),
    /// Nobody does this any more.
    #[error("the server stops")]
    Stopping,
}

#[derive(Serialize)]
struct Body {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    remedy: &'static str,
}

impl Problem {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Shard(AskError::Gone(_) | AskError::Returning(..)) | Self::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Shard(AskError::Late(_)) => StatusCode::GATEWAY_TIMEOUT,
            Self::Shard(AskError::Crowded) | Self::TooManyTasks => StatusCode::TOO_MANY_REQUESTS,
            Self::Shard(AskError::Route) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Shard(AskError::Cursor)
            | Self::Id(_)
            | Self::Pattern(_)
            | Self::Query(_)
            | Self::Body(_)
            | Self::NothingChosen
            | Self::NoRouteChosen => StatusCode::BAD_REQUEST,
            Self::NotQueued(_) | Self::NotKnown(_) | Self::NoTask(_) | Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoToken => StatusCode::FORBIDDEN,
            Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::NotReloaded(_) | Self::NotUpgraded(_) | Self::NoTenant(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::List(ListError::Write(_) | ListError::Read(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::List(ListError::Full(_)) => StatusCode::INSUFFICIENT_STORAGE,
            Self::List(ListError::Cursor)
            | Self::NoAddress(_)
            | Self::ListQuery(_)
            | Self::EntriesBody(_)
            | Self::Greylist(_)
            | Self::Reputation(_)
            | Self::Rotation(_)
            | Self::ReportsQuery(_)
            | Self::Deliverability(_) => StatusCode::BAD_REQUEST,
            Self::List(ListError::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotSuppressed(_) | Self::NoRotation(_) | Self::NoReport(_) => StatusCode::NOT_FOUND,
            Self::Reports(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn remedy(&self) -> &'static str {
        match self {
            Self::Shard(AskError::Gone(_)) => "look at the log of the server, and at /readyz",
            Self::Shard(AskError::Late(_)) => {
                "try again; when it stays so, look at ringpost_executor_stall_seconds"
            }
            Self::Shard(AskError::Crowded) => "try again in a moment",
            Self::Shard(AskError::Returning(..)) => {
                "try again; /readyz and ringpost_queue_returning tell how far it is"
            }
            Self::Shard(AskError::Cursor) => "start again without the cursor",
            Self::Shard(AskError::Route) => "name a [[route]] by its `name`",
            Self::NotQueued(_) => "search the log for its id",
            Self::NotKnown(_) => "name a queue id, or a site or destination as `ringpost queue summary` does",
            Self::Id(_) => "copy the id from a listing or the log",
            Self::Pattern(_) => "write it in one of these forms",
            Self::Query(_) => {
                "known are id, sender, recipient, destination, site, tenant, campaign, state (ready, running, deferred, held), \
                 priority (urgent, normal, bulk), older_than, younger_than, status, category, reply, subject, subject_hash, cursor, \
                 limit"
            }
            Self::Body(_) => {
                "send {\"selector\": \"all\"} or {\"selector\": {\"matching\": {\"id\": …, \"sender\": …, \
                 \"recipient\": …, \"destination\": …, \"state\": …}}} as application/json"
            }
            Self::NoRouteChosen => "name a [[route]] in `to`, or \"\" for the one of the recipient's domain",
            Self::NoTask(_) => "see /api/v1/queue/tasks",
            Self::TooManyTasks => "wait for one to end, or cancel one: ringpost queue tasks",
            Self::NothingChosen => "choose by a field of the filter, or say \"all\"",
            Self::Path => {
                "see /metrics, /healthz, /readyz, /api/v1/status, /api/v1/queue, /api/v1/suppressions, /api/v1/greylist, \
                 /api/v1/reputation, /api/v1/reports, /api/v1/dkim, /api/v1/deliverability, /api/v1/reload and /api/v1/upgrade"
            }
            Self::Method => {
                "read with GET; change with POST to /api/v1/queue/retry, hold, release, remove, reroute, count or tasks, to \
                 /api/v1/suppressions/add or remove, to /api/v1/greylist/clear, to /api/v1/dkim/rotate, to \
                 /api/v1/deliverability, to /api/v1/reload or to /api/v1/upgrade"
            }
            Self::NoToken => {
                "use the control socket (ringpost queue), or set http.token in the configuration"
            }
            Self::NotReloaded(_) => "mend what is named and reload again",
            Self::NotUpgraded(_) => "mend what is named and upgrade again; or stop and start",
            Self::List(ListError::Write(_) | ListError::Read(_)) => {
                "look at the disk under the data directory"
            }
            Self::List(ListError::Full(_)) => "take entries off, or raise suppression.entries-max",
            Self::List(ListError::Cursor) => "start again without the cursor",
            Self::List(ListError::Busy) => "try again in a moment",
            Self::NotSuppressed(_) => "look at the tenant's other lists, and at the list of all, *",
            Self::NoTenant(_) => "name it as the configuration does, or * for all",
            Self::NoAddress(_) => "write it in one of these forms",
            Self::ListQuery(_) => {
                "known are tenant, list, address, domain, reason (bounce, complaint, unsubscribe, manual), cursor, limit"
            }
            Self::EntriesBody(_) => {
                "send {\"entries\": [{\"tenant\": …, \"address\": …, \"list\": …, \"reason\": …, \"until\": …, \
                 \"note\": …}]} as application/json; tenant and address are needed"
            }
            Self::Greylist(_) => {
                "name a client by its address, and mail by sender and recipient: {\"client\": …, \"sender\": …, \"recipient\": …}"
            }
            Self::Reputation(_) => {
                "ask ?of= an IP address, an autonomous system such as AS64496, a domain, or an address such as ann@example.org"
            }
            Self::Rotation(_) => "send {\"key\": \"the name of a [[dkim]]\"} as application/json",
            Self::NoRotation(_) => "see /api/v1/dkim, or `ringpost dkim status`",
            Self::ReportsQuery(_) => {
                "known are domain, kind (dmarc, tls, failure, unread), since, until, reporter, limit, of a list cursor, of a summary \
                 by (address, network)"
            }
            Self::NoReport(_) => "copy the key from a listing: ringpost reports list",
            Self::Reports(_) => "look at the log, and at the disk under the data directory",
            Self::Deliverability(_) => {
                "ask ?domain=example.org for what was found last, or send {\"domain\": \"example.org\"} to have it looked at now"
            }
            Self::Stopping => "start it again",
            Self::WrongToken => "send the header Authorization: Bearer with http.token of the configuration",
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let title = status.canonical_reason().unwrap_or_default();
        let body = Body {
            r#type: "about:blank",
            title,
            status: status.as_u16(),
            detail: self.to_string(),
            remedy: self.remedy(),
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}
