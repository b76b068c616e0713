//! What a program is told when its mail was not taken (RFC 9457): what, where in the request, and what to do about it.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::decode::Fault;

macro_rules! kinds {
    ($($(#[doc = $title:literal])+ $name:ident = $slug:literal, $status:ident, $remedy:literal;)+) => {
        /// The types of problems.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($(#[doc = $title])+ $name,)+
        }

        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name, as the type ends. It never changes.
            pub(crate) const fn slug(self) -> &'static str {
                match self { $(Self::$name => $slug,)+ }
            }

            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$name => concat!($($title),+).trim_ascii(),)+ }
            }

            pub(crate) const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            pub(crate) const fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy,)+ }
            }
        }
    };
}

kinds! {
    /// The request is not JSON.
    NotJson = "not-json", BAD_REQUEST, "mend what is named; numbers of lines count from 1";
    /// The Idempotency-Key is malformed.
    IdempotencyKey = "idempotency-key", BAD_REQUEST,
        "send one header with 1 to 255 visible ASCII characters, in quotes or without";
    /// There is no key, or it is unknown.
    Unauthorized = "unauthorized", UNAUTHORIZED,
        "send the header Authorization: Bearer with a key; `ringpost key` makes one, [[api-key]] makes it known";
    /// The key may not be used from here.
    Network = "network", FORBIDDEN, "add the network to `networks` of the [[api-key]]";
    /// This client may not bring mail.
    Client = "client-denied", FORBIDDEN, "take its address out of `clients.deny`, or add it to `clients.allow`";
    /// The key may not send as this sender.
    Sender = "sender-not-allowed", FORBIDDEN,
        "send as somebody in `domains` or `addresses` of the [[api-key]], or add to them";
    /// There is nothing at this path.
    Path = "no-such-path", NOT_FOUND, "see /api/v1/openapi.json";
    /// The message is not in the queue.
    NotQueued = "not-queued", NOT_FOUND,
        "every recipient has ended, or it was never this key's: the log knows by the id";
    /// This path has another method.
    Method = "method", METHOD_NOT_ALLOWED, "see /api/v1/openapi.json";
    /// The body came too slowly.
    Slow = "slow-body", REQUEST_TIMEOUT, "send it at once, or raise http.body-timeout";
    /// A request with the same Idempotency-Key is under way.
    Running = "idempotency-running", CONFLICT, "wait for its answer, or ask again in a moment";
    /// The request or a message in it is too large.
    TooLarge = "too-large", PAYLOAD_TOO_LARGE,
        "make it smaller, or raise http.request-size-max, or message-size-max of the [[api-key]] and of [limits]";
    /// The body is of a type that is not taken.
    MediaType = "media-type", UNSUPPORTED_MEDIA_TYPE,
        "send Content-Type: application/json or message/rfc822, without Content-Encoding";
    /// The request has mistakes; nothing of it was taken.
    Invalid = "invalid", UNPROCESSABLE_ENTITY, "mend what is named in `errors` and send it again";
    /// Another request had this Idempotency-Key.
    Reused = "idempotency-reused", UNPROCESSABLE_ENTITY, "take a new key for each request that is not a repetition";
    /// The message was refused.
    Refused = "refused", UNPROCESSABLE_ENTITY, "mend what is named; docs/replies.md tells of each reason";
    /// The key has sent as much as it may for now (RFC 6585 §4).
    RateLimited = "rate-limited", TOO_MANY_REQUESTS,
        "wait as long as Retry-After says, or raise messages-per-minute or recipients-per-minute of the [[api-key]]";
    /// The server has more to do than it has memory for.
    Busy = "busy", TOO_MANY_REQUESTS, "wait as long as Retry-After says";
    /// Something of ours failed.
    Internal = "internal", INTERNAL_SERVER_ERROR, "look at the log; the message may have been taken or not";
    /// The journal has failed.
    StorageFailed = "storage-failed", SERVICE_UNAVAILABLE, "look at the log of the server; it takes no mail until then";
    /// The server stops, or a rule could not be judged now.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "try again later";
    /// It is not known whether the message was taken.
    Unknown = "unknown-outcome", GATEWAY_TIMEOUT,
        "ask the log before sending it again: it may come twice";
    /// The journal or the queue is full.
    StorageFull = "storage-full", INSUFFICIENT_STORAGE, "try again later; the operator should look at the disk and the queue";
}

/// Every status that may be answered, as a number and as a label.
pub const STATUSES: &[(u16, &str)] = &[
    (200, "200"),
    (202, "202"),
    (207, "207"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (413, "413"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (503, "503"),
    (504, "504"),
    (507, "507"),
];

/// Why a request, or a message of it, was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    pub(crate) detail: String,
    pub(crate) errors: Vec<Fault>,
    pub(crate) retry_after: Option<Duration>,
    /// What a client of SMTP would have been told: reply code, enhanced status, and the name of the reason.
    pub(crate) smtp: Option<Smtp>,
}

/// A refusal as it is in SMTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Smtp {
    pub(crate) code: u16,
    pub(crate) status: String,
    pub(crate) reason: &'static str,
}

#[derive(Serialize)]
pub(crate) struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    remedy: &'static str,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    smtp: Option<&'a Smtp>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), retry_after: None, smtp: None }
    }

    pub(crate) fn with_errors(self, errors: Vec<Fault>) -> Self {
        Self { errors, ..self }
    }

    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// As JSON, alone or within an answer about several messages.
    pub(crate) fn body(&self) -> Body<'_> {
        Body {
            r#type: type_of(self.kind),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: &self.detail,
            remedy: self.kind.remedy(),
            errors: &self.errors,
            retry_after: self.retry_after.map(seconds),
            smtp: self.smtp.as_ref(),
        }
    }
}

/// A name, not a place: there is nothing to fetch (RFC 9457 §3.1.1).
pub(crate) fn type_of(kind: Kind) -> String {
    format!("urn:ringpost:problem:{}", kind.slug())
}

fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        let mut response = (self.kind.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds(wait).into());
        }
        if self.kind == Kind::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn every_status_is_counted() {
        for kind in Kind::ALL {
            let status = kind.status().as_u16();
            assert!(STATUSES.iter().any(|(known, _)| *known == status), "{kind:?}: {status}");
            assert!(!kind.title().is_empty() && !kind.remedy().is_empty());
        }
        for (status, label) in STATUSES {
            assert_eq!(status.to_string(), *label);
        }
    }

    #[test]
    fn a_wait_is_never_said_shorter_than_it_is() {
        let problem = Problem::new(Kind::Busy, "x").retry_after(Duration::from_millis(1200));
        assert_eq!(problem.clone().into_response().headers()[header::RETRY_AFTER], "2");
        let body = serde_json::to_value(problem.body()).unwrap();
        assert_eq!(body["retry_after"], 2);
        assert_eq!(body["type"], "urn:ringpost:problem:busy");
        let now = Problem::new(Kind::Busy, "x").retry_after(Duration::ZERO).into_response();
        assert_eq!(now.headers()[header::RETRY_AFTER], "1");
    }
}
