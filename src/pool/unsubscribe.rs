//! Where recipients leave a list: with one click of their mail program (RFC 8058), or by a page with a button.
//!
//! A link is followed by programs that look for harm in mail, and those must not unsubscribe anybody: so GET shows a page,
//! and only POST with what RFC 8058 §3.1 wants in its body does it. The answer of success is given when it is durable.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bridge::Tenancy;
use mail::Timestamp;
use memchr::memmem;
use tenancy::{Change, Entry, Links, Reason, Whom};
use watch::{UnsubscribeMetrics, Unsubscription};

/// What a reload changes here.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribing {
    /// What opens links.
    pub links: Links,
    /// How long somebody who has left stays away; none: for ever.
    pub lifetime: Option<Duration>,
    /// Requests in a second.
    pub requests_max: u32,
}

#[derive(Clone)]
struct Desk {
    tenancy: Tenancy,
    settings: Arc<ArcSwap<Unsubscribing>>,
    metrics: Arc<UnsubscribeMetrics>,
    clock: fn() -> Timestamp,
    /// The second that is now, and requests in it.
    rate: Arc<Mutex<(u64, u32)>>,
}

/// Where links lead.
pub(crate) const PATH: &str = "/u/{token}";
/// What RFC 8058 wants is some 30 octets; in parts of a form some hundred more.
const BODY_MAX: usize = 8 << 10;

/// The routes, to stand beside others or alone.
pub fn unsubscribe(
    tenancy: Tenancy,
    settings: Arc<ArcSwap<Unsubscribing>>,
    metrics: UnsubscribeMetrics,
    clock: fn() -> Timestamp,
) -> Router {
    let desk = Desk { tenancy, settings, metrics: Arc::new(metrics), clock, rate: Arc::default() };
    Router::new().route(PATH, get(show).post(leave)).layer(DefaultBodyLimit::max(BODY_MAX)).with_state(desk)
}

/// A page with a button, for whoever follows the link.
async fn show(State(desk): State<Desk>, Path(token): Path<String>) -> Response {
    if let Some(refused) = desk.admit() {
        return refused;
    }
    if desk.settings.load().links.open(&token).is_err() {
        return desk.unknown();
    }
    desk.metrics.of(Unsubscription::Shown);
    let button = "<form method=\"post\"><input type=\"hidden\" name=\"List-Unsubscribe\" value=\"One-Click\">\
                  <button type=\"submit\">Unsubscribe</button></form>";
    page(StatusCode::OK, "Unsubscribe", &format!("<p>You will get no more of this mail.</p>{button}"))
}

async fn leave(
    State(desk): State<Desk>,
    Path(token): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Some(refused) = desk.admit() {
        return refused;
    }
    let settings = desk.settings.load_full();
    let Ok(link) = settings.links.open(&token) else { return desk.unknown() };
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_one_click(kind, &body) {
        desk.metrics.of(Unsubscription::Unknown);
        let text = "<p>The request does not say what it wants: List-Unsubscribe=One-Click.</p>";
        return page(StatusCode::BAD_REQUEST, "Not understood", text);
    }
    let now = (desk.clock)();
    let until = settings.lifetime.map(|lifetime| now.saturating_add(lifetime));
    let entry = Entry {
        scope: link.scope,
        whom: Whom::Address(link.address),
        reason: Reason::Unsubscribe,
        since: now,
        until,
        note: "".into(),
    };
    match desk.tenancy.change(vec![Change::Add(entry)]).await {
        Ok(_) => {
            desk.metrics.of(Unsubscription::Done);
            page(StatusCode::OK, "Unsubscribed", "<p>You will get no more of this mail.</p>")
        }
        Err(error) => {
            desk.metrics.of(Unsubscription::Failed);
            tracing::error!(%error, "somebody wants to leave a list, and cannot");
            later(StatusCode::SERVICE_UNAVAILABLE)
        }
    }
}

impl Desk {
    /// Counts a request; answers 429 for more than there may be (RFC 6585 §4). All of them count together: they come from the hosts of a
    /// few providers, or through one proxy.
    fn admit(&self) -> Option<Response> {
        let (now, max) = ((self.clock)().secs(), self.settings.load().requests_max);
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if rate.0 != now {
            *rate = (now, 0);
        }
        rate.1 = rate.1.saturating_add(1);
        if rate.1 > max {
            self.metrics.of(Unsubscription::TooMany);
            return Some(later(StatusCode::TOO_MANY_REQUESTS));
        }
        None
    }

    fn unknown(&self) -> Response {
        self.metrics.of(Unsubscription::Unknown);
        page(StatusCode::NOT_FOUND, "Unknown link", "<p>This link is not known, or it is too old.</p>")
    }
}

/// It does not work now.
fn later(status: StatusCode) -> Response {
    let mut response = page(status, "Not now", "<p>This does not work now. Please try again later.</p>");
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("60"));
    response
}

/// Whether a form says that somebody leaves (RFC 8058 §3.1): `List-Unsubscribe=One-Click`, by itself or as a part.
pub fn is_one_click(content_type: &str, body: &[u8]) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("multipart/form-data") {
        let mut pairs = body.trim_ascii().split(|byte| *byte == b'&');
        return pairs.any(|pair| pair == b"List-Unsubscribe=One-Click");
    }
    // The boundary does not matter: whoever has the link may leave, and this is but to tell a form from a look.
    let name = memmem::find_iter(body, b"name=");
    name.map(|at| &body[at + b"name=".len()..]).any(|rest| {
        let rest = rest.strip_prefix(b"\"").unwrap_or(rest);
        let Some(rest) = rest.strip_prefix(b"List-Unsubscribe") else { return false };
        let value = memmem::find(rest, b"\r\n\r\n").map(|at| &rest[at + 4..]);
        value.is_some_and(|value| {
            let rest = value.strip_prefix(b"One-Click");
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"\r\n"))
        })
    })
}

/// A page without anything that would have to be loaded, remembered or told to others.
fn page(status: StatusCode, title: &str, text: &str) -> Response {
    let body = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title></head>\
         <body><h1>{title}</h1>{text}</body></html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; form-action 'self'; frame-ancestors 'none'"),
        (header::HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
    ];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn forms_that_say_so() {
        const FORM: &str = "application/x-www-form-urlencoded";
        const PARTS: &str = "multipart/form-data; boundary=---FormBoundaryjWmhtjORrn";
        // As RFC 8058 §8.2 and §8.3 have them.
        let parts = "-----FormBoundaryjWmhtjORrn\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\n\
                     One-Click\r\n-----FormBoundaryjWmhtjORrn--\r\n";
        for (kind, body, expected) in [
            (FORM, "List-Unsubscribe=One-Click", true),
            ("", "List-Unsubscribe=One-Click\r\n", true),
            (FORM, "a=b&List-Unsubscribe=One-Click", true),
            (FORM, "List-Unsubscribe=One-Clicks", false),
            (FORM, "List-Unsubscribe=", false),
            (FORM, "", false),
            (PARTS, parts, true),
            (PARTS, &parts.replace("One-Click", "One-Clicks"), false),
            (PARTS, &parts.replace("List-Unsubscribe", "Other"), false),
            (PARTS, "name=\"List-Unsubscribe\"", false),
        ] {
            assert_eq!(is_one_click(kind, body.as_bytes()), expected, "{kind} {body}");
        }
    }
}
