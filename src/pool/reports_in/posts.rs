//! Reports on TLS that are posted by HTTPS (RFC 8460 §3): read and kept as those that come by mail.
//!
//! Whoever posts says nothing of who he is that could be proven, so nothing is; and what is no report, or is not wanted, is not kept:
//! he hears why. The answer of success is given when the report is on the disk; whoever hears of a failure comes again (§5.4).

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use http_body_util::BodyExt as _;
use report::received::{Limits, Proof, Unread, read_posted};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use watch::ReportPost;

use super::{Inner, Kept, Mail, ReportsIn};

/// Where they are posted: as in the examples of RFC 8460.
pub(crate) const PATH: &str = "/v1/tlsrpt";
/// Octets of a body. That of a provider about a large domain has some ten thousand, packed.
const BODY_MAX: usize = 1 << 20;
/// Of a larger one so many are read all the same.
const PASSED_OVER_MAX: usize = 16 << 20;
/// Octets of one when it is unpacked.
const EXPANDED_MAX: usize = 8 << 20;
/// Bodies that come at a time, each in so much memory at most.
const BODIES: usize = 64;
/// A body comes within that time.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Desk {
    inner: Arc<Inner>,
    bodies: Arc<Semaphore>,
    /// One is read at a time, and beside those that come by mail: strangers keep nobody's mail waiting.
    turns: Arc<Semaphore>,
    /// The second that is now, and posts in it.
    rate: Arc<Mutex<(u64, u32)>>,
}

/// Why there is no report of a post.
enum Failed {
    /// There is none, or it is not wanted.
    Unread(Unread),
    /// The disk does not take it.
    Disk(io::Error),
}

impl ReportsIn {
    /// Where reports are posted, to stand beside other routes or alone.
    pub fn posts(&self) -> Router {
        let bodies = Arc::new(Semaphore::new(BODIES));
        let turns = Arc::new(Semaphore::new(1));
        let desk = Desk { inner: self.inner.clone(), bodies, turns, rate: Arc::default() };
        Router::new().route(PATH, post(take)).with_state(desk)
    }
}

async fn take(State(desk): State<Desk>, request: Request) -> Response {
    let inner = &desk.inner;
    let options = inner.options.load_full();
    if !options.https {
        return say(StatusCode::NOT_FOUND, "there is nothing at this path");
    }
    let many = |why| {
        inner.metrics.post(ReportPost::TooMany);
        later(StatusCode::TOO_MANY_REQUESTS, why)
    };
    if !desk.admit(options.posts_max) {
        return many("too many reports come in this second");
    }
    let refused = |status, why: &str| {
        inner.metrics.post(ReportPost::Refused);
        say(status, why)
    };
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !is_report(kind.unwrap_or_default()) {
        let why = "a report is application/tlsrpt+gzip or application/tlsrpt+json";
        return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
    }
    let client = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|client| client.0.to_string());
    let Ok(room) = desk.bodies.clone().try_acquire_owned() else {
        return many("too many reports come at the same time");
    };
    let body = match timeout(PATIENCE, read(request.into_body())).await {
        Ok(Ok(Some(body))) => body,
        Ok(Ok(None)) => {
            return refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("a report has {BODY_MAX} octets at most"),
            );
        }
        Ok(Err(_)) => return refused(StatusCode::BAD_REQUEST, "the body ends before its end"),
        Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "the body does not come"),
    };
    let Ok(turn) = desk.turns.clone().acquire_owned().await else {
        return later(StatusCode::SERVICE_UNAVAILABLE, "the server stops");
    };
    let keeper = inner.clone();
    // Whoever hangs up does not end it, so it leaves its place by itself.
    let kept = spawn_blocking(move || {
        let kept = keeper.take_posted(body, client.as_deref());
        drop((turn, room));
        kept
    });
    match kept.await {
        Ok(Ok((Kept::New, text))) => {
            inner.metrics.post(ReportPost::Kept);
            say(StatusCode::CREATED, &text)
        }
        Ok(Ok((Kept::Before, text))) => {
            inner.metrics.post(ReportPost::Known);
            say(StatusCode::OK, &text)
        }
        Ok(Err(Failed::Unread(unread))) => refused(status(&unread), &unread.to_string()),
        Ok(Err(Failed::Disk(error))) => {
            tracing::warn!("a report that was posted cannot be kept: {error}");
            inner.metrics.post(ReportPost::Failed);
            later(StatusCode::SERVICE_UNAVAILABLE, "it cannot be kept now")
        }
        Err(error) => {
            tracing::error!("reading a report that was posted came to no end: {error}");
            inner.metrics.post(ReportPost::Failed);
            say(StatusCode::INTERNAL_SERVER_ERROR, "reading it came to no end")
        }
    }
}

/// The body; none when it is too large. Then some of it is passed over: whoever is still sending does not read an answer, and one that
/// comes before the end of a connection that nobody reads any more is lost.
async fn read(mut body: Body) -> Result<Option<Vec<u8>>, axum::Error> {
    let (mut octets, mut came) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        came += data.len();
        if came <= BODY_MAX {
            octets.extend_from_slice(&data);
        } else if came > PASSED_OVER_MAX {
            break;
        } else {
            octets = Vec::new();
        }
    }
    Ok((came <= BODY_MAX).then_some(octets))
}

/// "application/tlsrpt+gzip" or "application/tlsrpt+json" (RFC 8460 §3), whatever parameters it has.
fn is_report(kind: &str) -> bool {
    let essence = kind.split(';').next().unwrap_or_default().trim();
    ["application/tlsrpt+gzip", "application/tlsrpt+json"].iter().any(|one| essence.eq_ignore_ascii_case(one))
}

const fn status(unread: &Unread) -> StatusCode {
    match unread {
        Unread::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Unread::Foreign(_) | Unread::Period => StatusCode::UNPROCESSABLE_ENTITY,
        Unread::NoReport | Unread::Archive(_) | Unread::Syntax(_) | Unread::Entities | Unread::Content(_) => {
            StatusCode::BAD_REQUEST
        }
    }
}

fn say(status: StatusCode, text: &str) -> Response {
    (status, format!("{text}\n")).into_response()
}

/// It does not work now.
fn later(status: StatusCode, text: &str) -> Response {
    let mut response = say(status, text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

impl Desk {
    /// Counts a post; says whether there may be one more. All count together: they may come through one proxy.
    fn admit(&self, most: u32) -> bool {
        let now = (self.inner.clock)().secs();
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if rate.0 != now {
            *rate = (now, 0);
        }
        rate.1 = rate.1.saturating_add(1);
        rate.1 <= most
    }
}

impl Inner {
    /// Keeps the reports of a post; says whether one of them is new.
    fn take_posted(&self, body: Vec<u8>, client: Option<&str>) -> Result<(Kept, String), Failed> {
        let options = self.options.load_full();
        let post = Mail {
            id: None,
            from: None,
            client,
            received: (self.clock)(),
            author: "".into(),
            reporter: "".into(),
            proof: Proof::None,
        };
        let wrong = |unread| {
            self.refused(&unread, &post);
            Failed::Unread(unread)
        };
        let expanded_max = options.limits.expanded_max.min(EXPANDED_MAX);
        let limits = Limits { expanded_max, ..options.limits };
        let reports = read_posted(body, &limits).map_err(wrong)?;
        // All or nothing: whoever hears that one of them is not wanted need not come again for the others.
        for report in &reports {
            self.is_wanted(report, &options).map_err(wrong)?;
        }
        let (mut kept, mut texts) = (Kept::Before, Vec::new());
        for report in &reports {
            let (one, text) = self.keep(report, &post).map_err(Failed::Disk)?;
            if one == Kept::New {
                kept = Kept::New;
            }
            texts.push(text);
        }
        let evicted = self.shelf.make_room(options.disk_max, options.reports_max).map_err(Failed::Disk)?;
        self.tell(evicted);
        Ok((kept, texts.join("; ")))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn reports_are_known_by_their_media_type() {
        for (kind, expected) in [
            ("application/tlsrpt+gzip", true),
            ("Application/TLSRPT+json; charset=utf-8", true),
            ("application/json", false),
            ("application/tlsrpt+gzipped", false),
            ("", false),
        ] {
            assert_eq!(is_report(kind), expected, "{kind}");
        }
    }
}
