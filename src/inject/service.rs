//! The routes: who asks, what they send, what they are told.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::digest;
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bridge::{AskError, Cause, Declined, Door, Injection};
use bytes::Bytes;
use config::Config;
use http_body_util::BodyExt as _;
use mail::{Address, QueueId, Timestamp};
use policy::{Lists, Turned};
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use watch::{HttpMetrics, events::RequestRefused};

use crate::{
    compose,
    decode::{self, Content, Copy, DecodeError, Draft, Fault, Shape},
    idempotency::{self, Remembered, Seen},
    keys::{Key, Keys},
    openapi,
    problem::{Kind, Problem, Smtp},
    rate::{Exhausted, Rate},
};

/// Every path, with its method.
pub const PATHS: &[(&str, &str)] =
    &[("post", "/api/v1/messages"), ("get", "/api/v1/messages/{id}"), ("get", "/api/v1/openapi.json")];

/// Mail by HTTP, ready to be served.
#[derive(Clone)]
pub struct Injections(Arc<Inner>);

struct Inner {
    door: Door,
    settings: RwLock<Arc<Settings>>,
    metrics: HttpMetrics,
    /// Kibibytes that requests may take, as they come.
    bodies: Arc<Semaphore>,
    /// And as many for the messages made of them: apart, so that no request waits for another that waits for it.
    messages: Arc<Semaphore>,
    memory: u32,
    rates: Mutex<HashMap<String, Rates>>,
    remembered: Mutex<Remembered<Answer>>,
    began: Instant,
    /// Of the log.
    clock: fn() -> Timestamp,
}

/// What a reload of the configuration changes here.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    keys: Keys,
    lists: Lists,
    request_size_max: usize,
    body_timeout: Duration,
    limits: decode::Limits,
    idempotency: idempotency::Limits,
}

#[derive(Clone, Copy, Default)]
struct Rates {
    messages: Rate,
    recipients: Rate,
}

/// An answer of success, in full or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    body: Bytes,
    location: Option<String>,
}

/// A message that a shard has taken.
#[derive(Debug, Serialize)]
struct Accepted {
    id: String,
    recipients: usize,
    size: usize,
    location: String,
}

/// What became of one message of several.
#[derive(Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Accepted {
        index: usize,
        #[serde(flatten)]
        accepted: &'a Accepted,
    },
    Refused {
        index: usize,
        problem: crate::problem::Body<'a>,
    },
}

#[derive(Serialize)]
struct Results<'a> {
    accepted: usize,
    refused: usize,
    messages: Vec<Outcome<'a>>,
}

/// Who asks.
#[derive(Clone)]
struct Client {
    key: Arc<Key>,
    address: SocketAddr,
}

/// Messages of one request that are being made durable at the same time.
const AT_ONCE: usize = 64;
/// When the server is short of memory: it changes from moment to moment.
const SHORT_WAIT: Duration = Duration::from_secs(1);
/// When somebody has to make room, or to start the server again.
const LONG_WAIT: Duration = Duration::from_secs(30);
const KIB: usize = 1 << 10;

impl Injections {
    /// Mail for the shards behind a door.
    pub fn new(door: Door, config: &Config, metrics: HttpMetrics, clock: fn() -> Timestamp) -> Self {
        // Half for each of the two.
        let memory = u32::try_from(config.http.memory / 2 / KIB as u64).unwrap_or(u32::MAX / 8);
        let memory = memory.clamp(1, u32::MAX / 8);
        let settings = Settings::new(config);
        let remembered = Mutex::new(Remembered::new(settings.idempotency));
        Self(Arc::new(Inner {
            door,
            settings: RwLock::new(Arc::new(settings)),
            metrics,
            bodies: Arc::new(Semaphore::new(memory as usize)),
            messages: Arc::new(Semaphore::new(memory as usize)),
            memory,
            rates: Mutex::default(),
            remembered,
            began: Instant::now(),
            clock,
        }))
    }

    /// Takes another configuration. Requests under way go on with theirs.
    pub fn configure(&self, settings: Settings) {
        lock(&self.0.remembered).set_limits(settings.idempotency);
        lock(&self.0.rates).retain(|name, _| settings.keys.has(name));
        *self.0.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// The routes, to stand beside others.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/api/v1/messages", post(take))
            .route("/api/v1/messages/{id}", get(show))
            .route("/api/v1/openapi.json", get(describe))
            .method_not_allowed_fallback(|| async {
                Problem::new(Kind::Method, "this path has another method")
            })
            .with_state(self.clone())
    }

    /// The routes alone, for an address that serves nothing else.
    pub fn alone(&self) -> Router {
        self.router()
            .route("/healthz", get(|| async { "ok\n" }))
            .fallback(|| async { Problem::new(Kind::Path, "there is nothing at this path") })
    }

    fn settings(&self) -> Arc<Settings> {
        self.0.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// What is used of the memory, for the gauge.
    fn measure(&self) {
        let left = self.0.bodies.available_permits() + self.0.messages.available_permits();
        let all = self.0.memory as usize * 2;
        self.0.metrics.set_memory((all.saturating_sub(left) * KIB) as u64);
    }
}

impl Settings {
    /// Those of a configuration.
    pub fn new(config: &Config) -> Self {
        let http = &config.http;
        let size = |octets: u64| usize::try_from(octets).unwrap_or(usize::MAX);
        Self {
            keys: Keys::new(&config.api_keys, &config.limits),
            lists: Lists::new(config),
            request_size_max: size(http.request_size_max),
            body_timeout: http.body_timeout,
            limits: decode::Limits {
                messages_max: http.batch_max as usize,
                values_max: http.json_values_max as usize,
            },
            idempotency: idempotency::Limits {
                time: http.idempotency_time,
                bytes_max: size(http.idempotency_memory),
            },
        }
    }
}

async fn describe(State(injections): State<Injections>) -> Response {
    injections.0.metrics.answered(200);
    ([(header::CONTENT_TYPE, "application/json")], openapi::document().to_string()).into_response()
}

async fn show(State(injections): State<Injections>, Path(id): Path<String>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let outcome = injections.show(&head, &id).await;
    injections.answer(&head, outcome)
}

async fn take(
    State(injections): State<Injections>,
    query: Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let outcome = injections.take(&head, query.map(|Query(query)| query).unwrap_or_default(), body).await;
    injections.measure();
    injections.answer(&head, outcome)
}

impl Injections {
    /// Counts, logs and says the answer.
    fn answer(&self, head: &Parts, outcome: Result<Response, Problem>) -> Response {
        let problem = match outcome {
            Ok(response) => {
                self.0.metrics.answered(response.status().as_u16());
                return response;
            }
            Err(problem) => problem,
        };
        self.0.metrics.answered(problem.kind.status().as_u16());
        let key = self.key(head);
        self.log(address(head), key.as_deref().map(|key| key.name.as_str()), &problem);
        problem.into_response()
    }

    fn log(&self, client: SocketAddr, key: Option<&str>, problem: &Problem) {
        if !RequestRefused::enabled() {
            return;
        }
        let first = problem.errors.first().map(|fault| format!("{}: {}", fault.pointer, fault.detail));
        RequestRefused {
            client,
            key,
            code: problem.kind.status().as_u16(),
            reason: problem.kind.slug(),
            error: first.as_deref().unwrap_or(&problem.detail),
        }
        .emit((self.0.clock)().0);
    }

    fn key(&self, head: &Parts) -> Option<Arc<Key>> {
        let shown = head.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, shown) = shown.split_once(' ')?;
        // The scheme's case does not matter (RFC 9110 §11.1).
        let shown = Some(shown.trim()).filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
        self.settings().keys.of(shown).cloned()
    }

    fn client(&self, head: &Parts) -> Result<Client, Problem> {
        let key = self.key(head);
        let key = key.ok_or_else(|| Problem::new(Kind::Unauthorized, "the key is missing or unknown"))?;
        let address = address(head);
        // A shard asks the same of whoever brings a message; here it is asked of all, before anything is read or looked up.
        if let Err(turned) = self.settings().lists.bring(address.ip()) {
            return Err(denied(turned));
        }
        if !key.may_come_from(address.ip()) {
            let detail = format!("the key {:?} may not be used from {}", key.name, address.ip());
            return Err(Problem::new(Kind::Network, detail));
        }
        Ok(Client { key, address })
    }

    async fn show(&self, head: &Parts, id: &str) -> Result<Response, Problem> {
        let client = self.client(head)?;
        let unknown = || Problem::new(Kind::NotQueued, format!("message {id:.20} is not in the queue"));
        let id: QueueId = id.parse().map_err(|_| unknown())?;
        let entry = self.0.door.show(id).await.map_err(|error| ask_problem(&error))?.ok_or_else(unknown)?;
        // Whose it is was not written down; who may send as its sender may know of it.
        let theirs = entry.sender.parse::<Address>().is_ok_and(|sender| client.key.scope.covers(&sender));
        if !theirs {
            return Err(unknown());
        }
        Ok(json(StatusCode::OK, serde_json::to_vec(&entry).unwrap_or_default().into()))
    }

    async fn take(
        &self,
        head: &Parts,
        query: Vec<(String, String)>,
        body: Body,
    ) -> Result<Response, Problem> {
        let client = self.client(head)?;
        let kind = body_kind(&head.headers)?;
        let idempotency_key = idempotency_key(&head.headers)?;
        let settings = self.settings();
        let (body, room) = self.body(&settings, &head.headers, body).await?;
        self.0.metrics.body(body.len() as u64);
        let Some(idempotency_key) = idempotency_key else {
            // A task of its own: a client that hangs up does not stop what has begun.
            return self.spawn(settings, client, kind, query, body, room, None).await;
        };
        let id = (client.key.name.clone(), idempotency_key);
        let fingerprint = fingerprint(kind, &query, &body);
        let seen = lock(&self.0.remembered).begin(&id, fingerprint, self.now());
        match seen {
            Seen::New => self.spawn(settings, client, kind, query, body, room, Some(id)).await,
            Seen::Running => {
                let detail = "a request with this Idempotency-Key is being answered";
                Err(Problem::new(Kind::Running, detail).retry_after(SHORT_WAIT))
            }
            Seen::Other => {
                Err(Problem::new(Kind::Reused, "another request came with this Idempotency-Key before"))
            }
            Seen::Done(answer) => {
                self.0.metrics.replayed();
                let mut response = answer.into_response();
                response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
                Ok(response)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a task takes with it")]
    async fn spawn(
        &self,
        settings: Arc<Settings>,
        client: Client,
        kind: BodyKind,
        query: Vec<(String, String)>,
        body: Vec<u8>,
        room: OwnedSemaphorePermit,
        id: Option<idempotency::Id>,
    ) -> Result<Response, Problem> {
        let injections = self.clone();
        let ending = Ending { injections: self.clone(), id, answer: None };
        let task = tokio::spawn(async move {
            let mut ending = ending;
            let outcome = injections.answer_to(&settings, &client, kind, &query, body).await;
            drop(room);
            if let Ok(answer) = &outcome {
                ending.answer = Some(answer.clone());
            }
            outcome
        });
        match task.await {
            Ok(outcome) => outcome.map(Answer::into_response),
            Err(error) => {
                tracing::error!(%error, "a request about mail ended by a fault of ours");
                Err(Problem::new(Kind::Internal, "something of ours failed"))
            }
        }
    }

    /// Reads the body, as far as there is memory for it; for as long as it is kept, as much is set aside again for what
    /// is read out of it.
    async fn body(
        &self,
        settings: &Settings,
        headers: &HeaderMap,
        mut body: Body,
    ) -> Result<(Vec<u8>, OwnedSemaphorePermit), Problem> {
        let until = Instant::now() + settings.body_timeout;
        let max = settings.request_size_max;
        let too_large = || {
            let detail = format!("the request has more than {max} octets");
            Problem::new(Kind::TooLarge, detail)
        };
        let declared =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let declared = declared.unwrap_or_default();
        if declared > max {
            return Err(too_large());
        }
        let mut room = self.room(declared)?;
        let mut read = Vec::with_capacity(declared);
        loop {
            let frame = match timeout_at(until, body.frame()).await {
                Ok(None) => return Ok((read, room)),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    let detail = format!("the body does not come to its end: {error}");
                    return Err(Problem::new(Kind::NotJson, detail));
                }
                Err(_) => {
                    let detail =
                        format!("the body did not come within {} seconds", settings.body_timeout.as_secs());
                    return Err(Problem::new(Kind::Slow, detail));
                }
            };
            let Ok(data) = frame.into_data() else { continue };
            if read.len() + data.len() > max {
                return Err(too_large());
            }
            let missing = (read.len() + data.len()).saturating_sub(room.num_permits() * KIB / 2);
            if missing > 0 {
                room.merge(self.room(missing.max(64 * KIB))?);
            }
            read.extend_from_slice(&data);
        }
    }

    /// Sets memory aside for so much of a body.
    fn room(&self, octets: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let kib = u32::try_from((octets * 2).div_ceil(KIB)).unwrap_or(u32::MAX).max(1);
        self.0.bodies.clone().try_acquire_many_owned(kib.min(self.0.memory)).map_err(|_| {
            let detail = "requests under way have used up http.memory";
            Problem::new(Kind::Busy, detail).retry_after(SHORT_WAIT)
        })
    }

    async fn answer_to(
        &self,
        settings: &Settings,
        client: &Client,
        kind: BodyKind,
        query: &[(String, String)],
        body: Vec<u8>,
    ) -> Result<Answer, Problem> {
        let request = match kind {
            BodyKind::Json => decode::request(&body, settings.limits),
            BodyKind::Message => decode::whole(body, query),
        };
        let request = request.map_err(|error| match error {
            DecodeError::Json(detail) => {
                Problem::new(Kind::NotJson, format!("the body is not JSON: {detail}"))
            }
            DecodeError::Faults(faults) => invalid(faults),
        })?;
        check(client, &request.drafts)?;
        self.take_share(client, &request.drafts)?;
        let results = self.send(client, request.drafts).await;
        let accepted = results.iter().filter(|result| result.is_ok()).count();
        self.0.metrics.messages(accepted as u64, (results.len() - accepted) as u64);
        self.say(client, request.shape, results)
    }

    /// Takes what the request needs of the key's share.
    fn take_share(&self, client: &Client, drafts: &[Draft]) -> Result<(), Problem> {
        let copies = || drafts.iter().flat_map(|draft| &draft.copies);
        let messages = copies().count();
        let recipients = copies().map(|copy| compose::recipients(copy).len()).sum();
        let key = &client.key;
        let now = self.now();
        let mut all = lock(&self.0.rates);
        let rates = all.entry(key.name.clone()).or_default();
        let taken = rates
            .messages
            .take(now, messages, key.messages_per_minute)
            .map_err(|out| ("messages", messages, key.messages_per_minute, out));
        let taken = taken.and_then(|messages| {
            let left = rates.recipients.take(now, recipients, key.recipients_per_minute);
            let recipients =
                left.map_err(|out| ("recipients", recipients, key.recipients_per_minute, out))?;
            Ok(Rates { messages, recipients })
        });
        match taken {
            Ok(taken) => {
                *rates = taken;
                Ok(())
            }
            Err((what, wanted, per_minute, Exhausted::For(wait))) => {
                let detail = format!("{wanted} {what}, and the key may send {per_minute} in a minute");
                Err(Problem::new(Kind::RateLimited, detail).retry_after(wait))
            }
            Err((what, wanted, per_minute, Exhausted::Forever)) => {
                let detail = format!("{wanted} {what} are more than the {per_minute} of a whole minute");
                let remedy = "send several requests".to_owned();
                Err(invalid(vec![Fault { pointer: String::new(), detail, remedy }]))
            }
        }
    }

    /// Makes the messages and gives them to the shards, several at a time, in the order of the request.
    async fn send(&self, client: &Client, drafts: Vec<Draft>) -> Vec<Result<Accepted, Problem>> {
        let drafts: Arc<[Draft]> = drafts.into();
        let mut todo = (0..drafts.len())
            .flat_map(|draft| (0..drafts[draft].copies.len()).map(move |copy| (draft, copy)))
            .collect::<Vec<_>>()
            .into_iter()
            .enumerate();
        let mut results: Vec<Option<Result<Accepted, Problem>>> = (0..todo.len()).map(|_| None).collect();
        let mut running = JoinSet::new();
        loop {
            while running.len() < AT_ONCE
                && let Some((index, (draft, copy))) = todo.next()
            {
                let (injections, client, drafts) = (self.clone(), client.clone(), drafts.clone());
                running.spawn(async move {
                    (index, injections.send_one(&client, &drafts[draft], &drafts[draft].copies[copy]).await)
                });
            }
            match running.join_next().await {
                Some(Ok((index, result))) => results[index] = Some(result),
                Some(Err(error)) => tracing::error!(%error, "a message ended by a fault of ours"),
                None => break,
            }
        }
        let lost = || Err(Problem::new(Kind::Internal, "something of ours failed"));
        results.into_iter().map(|result| result.unwrap_or_else(lost)).collect()
    }

    async fn send_one(&self, client: &Client, draft: &Draft, copy: &Copy) -> Result<Accepted, Problem> {
        // A file may stand in a thousand messages: each is made when its turn has come. Base64 is in there already.
        let estimate = u32::try_from(estimate(draft).div_ceil(KIB)).unwrap_or(u32::MAX).max(1);
        let room = self.0.messages.clone().acquire_many_owned(estimate.min(self.0.memory)).await;
        let _room = room.expect("the semaphore is never closed");
        let content = compose::message(draft, copy).map_err(|fault| invalid(vec![fault]))?;
        let size = content.len();
        if size > client.key.message_size_max {
            let detail =
                format!("the message has {size} octets, and {} are allowed", client.key.message_size_max);
            let fault = Fault { pointer: copy.pointer.clone(), detail, remedy: "make it smaller".into() };
            return Err(Problem::new(Kind::TooLarge, "a message is too large").with_errors(vec![fault]));
        }
        let recipients: Vec<Address> = compose::recipients(copy).into_iter().cloned().collect();
        let reverse_path = compose::reverse_path(draft);
        let (body, utf8) = compose::octets(&content, &reverse_path, &recipients);
        let injection = Injection {
            bringer: client.key.name.as_str().into(),
            client: client.address,
            reverse_path,
            recipients,
            content: content.into(),
            body,
            utf8,
        };
        let to = injection.recipients.clone();
        match self.0.door.inject(injection).await {
            Ok(Ok(id)) => {
                let location = format!("/api/v1/messages/{id}");
                Ok(Accepted { id: id.to_string(), recipients: to.len(), size, location })
            }
            Ok(Err(declined)) => Err(declined_problem(&declined, draft, copy, &to)),
            Err(error) => Err(ask_problem(&error)),
        }
    }

    fn say(
        &self,
        client: &Client,
        shape: Shape,
        results: Vec<Result<Accepted, Problem>>,
    ) -> Result<Answer, Problem> {
        let accepted = results.iter().filter(|result| result.is_ok()).count();
        let refused = results.len() - accepted;
        if accepted == 0 || shape == Shape::One {
            // Nothing was taken, so this is no success: the first reason is the answer's.
            return match results.into_iter().next() {
                Some(Ok(accepted)) => {
                    let body = serde_json::to_vec(&accepted).unwrap_or_default().into();
                    Ok(Answer { status: StatusCode::ACCEPTED, body, location: Some(accepted.location) })
                }
                Some(Err(problem)) if refused > 1 => {
                    let detail =
                        format!("none of {refused} messages was taken; the first: {}", problem.detail);
                    Err(Problem { detail, ..problem })
                }
                Some(Err(problem)) => Err(problem),
                None => Err(Problem::new(Kind::Internal, "a request without a message")),
            };
        }
        let messages = results.iter().enumerate().map(|(index, result)| match result {
            Ok(accepted) => Outcome::Accepted { index, accepted },
            Err(problem) => {
                self.log(client.address, Some(&client.key.name), problem);
                Outcome::Refused { index, problem: problem.body() }
            }
        });
        let results = Results { accepted, refused, messages: messages.collect() };
        let body = serde_json::to_vec(&results).unwrap_or_default().into();
        // RFC 4918 §11.1: each part has a status of its own.
        let status = if refused == 0 { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
        Ok(Answer { status, body, location: None })
    }
}

/// Ends a request for whoever sends it again, whatever becomes of its task.
struct Ending {
    injections: Injections,
    id: Option<idempotency::Id>,
    answer: Option<Answer>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            let answer = self.answer.take().map(|answer| {
                let len = answer.body.len();
                (answer, len)
            });
            let now = self.injections.now();
            lock(&self.injections.0.remembered).end(id, answer, now);
        }
    }
}

impl Answer {
    fn into_response(self) -> Response {
        let mut response = json(self.status, self.body);
        if let Some(location) = self.location.and_then(|location| HeaderValue::try_from(location).ok()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyKind {
    Json,
    Message,
}

fn body_kind(headers: &HeaderMap) -> Result<BodyKind, Problem> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Problem::new(Kind::MediaType, "the body has a Content-Encoding"));
    }
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(BodyKind::Json)
    } else if essence.eq_ignore_ascii_case("message/rfc822") || essence.eq_ignore_ascii_case("message/global")
    {
        Ok(BodyKind::Message)
    } else {
        let shown: String = essence.chars().take(100).collect();
        Err(Problem::new(Kind::MediaType, format!("the body's type is {shown:?}")))
    }
}

/// The key, with or without the quotes that the draft of the header field wants.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let malformed = || Problem::new(Kind::IdempotencyKey, "the Idempotency-Key is malformed");
    let text = value.to_str().map_err(|_| malformed())?.trim();
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let fits = (1..=255).contains(&inner.len()) && inner.bytes().all(|c| c.is_ascii_graphic() && c != b'"');
    if !fits || values.next().is_some() {
        return Err(malformed());
    }
    Ok(Some(inner.to_owned()))
}

fn fingerprint(kind: BodyKind, query: &[(String, String)], body: &[u8]) -> idempotency::Fingerprint {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&[u8::from(kind == BodyKind::Json)]);
    for text in query.iter().flat_map(|(name, value)| [name, value]) {
        hash.update(&text.len().to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(&query.len().to_le_bytes());
    hash.update(body);
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 octets")
}

/// Who may send so, to how many: before anything is sent, so that a mistake in one message refuses all.
fn check(client: &Client, drafts: &[Draft]) -> Result<(), Problem> {
    const ERRORS_MAX: usize = 20;
    let (mut faults, mut denied) = (Vec::new(), Vec::new());
    for draft in drafts {
        let reverse_path = compose::reverse_path(draft);
        for copy in &draft.copies {
            if faults.len() + denied.len() >= ERRORS_MAX {
                break;
            }
            let recipients = compose::recipients(copy).len();
            if recipients > client.key.recipients_max {
                let max = client.key.recipients_max;
                let detail = format!("{recipients} recipients are more than the {max} of one message");
                let remedy = "send several messages".to_owned();
                faults.push(Fault { pointer: copy.pointer.clone(), detail, remedy });
            }
            let scope = &client.key.scope;
            let verdict = match &draft.content {
                Content::Raw(content) => scope.check(&reverse_path, content),
                Content::Parts(parts) => match compose::header(draft, parts, copy) {
                    Ok(header) => scope.check(&reverse_path, &header),
                    Err(fault) => {
                        faults.push(fault);
                        continue;
                    }
                },
            };
            if let Err(error) = verdict {
                let pointer = copy.pointer.clone();
                denied.push(Fault {
                    pointer,
                    detail: error.to_string(),
                    remedy: Kind::Sender.remedy().into(),
                });
            }
        }
    }
    if !faults.is_empty() {
        return Err(invalid(faults));
    }
    match denied.first() {
        Some(first) => Err(Problem::new(Kind::Sender, first.detail.clone()).with_errors(denied)),
        None => Ok(()),
    }
}

/// About how many octets a message of this draft will have.
fn estimate(draft: &Draft) -> usize {
    match &draft.content {
        Content::Raw(content) => content.len(),
        Content::Parts(parts) => {
            let files =
                parts.attachments.iter().chain(&parts.inline).map(|part| part.encoded.len()).sum::<usize>();
            let texts = [&parts.text, &parts.html].into_iter().flatten();
            // Quoted-printable may make three of one.
            files + texts.map(|text| text.source_len() * 3).sum::<usize>() + 4 * KIB
        }
    }
}

fn invalid(faults: Vec<Fault>) -> Problem {
    let detail = match faults.len() {
        1 => "there is a mistake in the request".to_owned(),
        count => format!("there are {count} mistakes in the request"),
    };
    Problem::new(Kind::Invalid, detail).with_errors(faults)
}

fn declined_problem(declined: &Declined, draft: &Draft, copy: &Copy, recipients: &[Address]) -> Problem {
    let Declined { cause, recipient, code, status, label, text } = *declined;
    let (kind, wait) = match cause {
        Cause::Busy => (Kind::Busy, Some(SHORT_WAIT)),
        Cause::UsedUp => (Kind::RateLimited, Some(LONG_WAIT)),
        Cause::Full => (Kind::StorageFull, Some(LONG_WAIT)),
        Cause::Failed => (Kind::StorageFailed, Some(LONG_WAIT)),
        Cause::Lost => (Kind::Unknown, None),
        Cause::Stopping => (Kind::Unavailable, Some(SHORT_WAIT)),
        Cause::Later => (Kind::Unavailable, Some(LONG_WAIT)),
        Cause::Denied => (Kind::Client, None),
        Cause::TooLarge => (Kind::TooLarge, None),
        Cause::Message => (Kind::Refused, None),
    };
    let smtp = Some(Smtp { code, status: status.to_string(), reason: label });
    let about = recipient.and_then(|place| recipients.get(place));
    let pointer = about.map_or_else(|| copy.pointer.clone(), |address| place_of(draft, copy, address));
    let detail = about.map_or_else(|| text.to_owned(), |address| format!("{address}: {text}"));
    let remedy = kind.remedy().to_owned();
    let errors = match cause {
        Cause::Message | Cause::TooLarge => vec![Fault { pointer, detail: detail.clone(), remedy }],
        Cause::Busy
        | Cause::UsedUp
        | Cause::Full
        | Cause::Failed
        | Cause::Lost
        | Cause::Stopping
        | Cause::Later
        | Cause::Denied => Vec::new(),
    };
    Problem { kind, detail, errors, retry_after: wait, smtp }
}

fn denied(turned: Turned) -> Problem {
    let refusal = turned.refusal();
    let smtp = Smtp { code: refusal.code(), status: refusal.status().to_string(), reason: refusal.label() };
    Problem { smtp: Some(smtp), ..Problem::new(Kind::Client, refusal.text()) }
}

/// The field that names a recipient.
fn place_of(draft: &Draft, copy: &Copy, address: &Address) -> String {
    let lists = [("to", &copy.to), ("cc", &copy.cc), ("bcc", &copy.bcc)];
    let named = lists.iter().find(|(_, list)| list.iter().any(|mailbox| mailbox.address == *address));
    match (named, &draft.content) {
        (Some((name, _)), _) => format!("{}/{name}", copy.pointer),
        (None, Content::Raw(_) | Content::Parts(_)) => copy.pointer.clone(),
    }
}

fn ask_problem(error: &AskError) -> Problem {
    match error {
        AskError::Crowded | AskError::Returning(..) => {
            Problem::new(Kind::Busy, error.to_string()).retry_after(SHORT_WAIT)
        }
        AskError::Gone(_) | AskError::Late(_) | AskError::Cursor | AskError::Route => {
            Problem::new(Kind::Unknown, error.to_string())
        }
    }
}

/// Where a request comes from. A Unix socket has no address: it is this host.
fn address(head: &Parts) -> SocketAddr {
    let known = head.extensions.get::<ConnectInfo<SocketAddr>>();
    known.map_or_else(|| (IpAddr::V4(Ipv4Addr::LOCALHOST), 0).into(), |ConnectInfo(address)| *address)
}

fn json(status: StatusCode, body: Bytes) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "service_test.rs"]
mod test;
