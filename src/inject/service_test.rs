//! Requests against the whole service, with scripted shards behind the door.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::http::Method;
use bridge::{Entry, Hatch, Injected};
use hyper::body::Frame;
use mail::{JournalShard, Status};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use watch::Registry;

use super::*;
use crate::keys::hash_of;

const KEY: &str = "ringpost_test";

/// A shard that notes what it is given; the reverse-path's local-part says what becomes of it.
async fn shard(mut hatch: Hatch, taken: Arc<Mutex<Vec<Injection>>>) {
    while let Some(request) = hatch.recv().await {
        match request {
            bridge::Request::Inject(injection, reply) => {
                let mut taken = lock(&taken);
                let answer = verdict(&injection, taken.len() as u64);
                taken.push(*injection);
                reply.send(answer);
            }
            bridge::Request::Show(id, reply) => {
                let sender = if id.number() == 1 { "ann@example.org" } else { "eve@evil.example" };
                reply.send((id.number() < 3).then(|| Entry {
                    id,
                    received_at: Timestamp(0),
                    size: 1,
                    priority: bridge::Class::Normal,
                    tenant: None,
                    campaign: None,
                    sender: sender.into(),
                    recipients_total: 0,
                    recipients: Vec::new(),
                }));
            }
            bridge::Request::List(..)
            | bridge::Request::Explain(..)
            | bridge::Request::Change { .. }
            | bridge::Request::Release(..)
            | bridge::Request::Collect(..)
            | bridge::Request::Summary(..)
            | bridge::Request::Health(_)
            | bridge::Request::Reload(..)
            | bridge::Request::LetGo(_)
            | bridge::Request::Spare(_)
            | bridge::Request::Depart(_)
            | bridge::Request::TlsResults(_)
            | bridge::Request::DmarcResults(_)
            | bridge::Request::Ask(..)
            | bridge::Request::Drain(..) => panic!("nobody asks for that here"),
        }
    }
}

fn verdict(injection: &Injection, number: u64) -> Injected {
    let declined = |cause, recipient| {
        let text = "A rule of this site refuses it.";
        Err(Declined { cause, recipient, code: 550, status: Status(5, 7, 1), label: "policy", text })
    };
    match injection.reverse_path.address().map_or("", |address| address.local_part().as_str()) {
        "busy" => declined(Cause::Busy, None),
        "full" => declined(Cause::Full, None),
        "failed" => declined(Cause::Failed, None),
        "lost" => declined(Cause::Lost, None),
        "stopping" => declined(Cause::Stopping, None),
        "denied" => declined(Cause::Denied, None),
        "large" => declined(Cause::TooLarge, None),
        "refused" => declined(Cause::Message, Some(1)),
        _ => Ok(QueueId::new(JournalShard(0), number)),
    }
}

struct House {
    injections: Injections,
    taken: Arc<Mutex<Vec<Injection>>>,
}

fn config() -> Config {
    let mut config = Config::default();
    let domain = config::DomainPattern::Exact(mail::Domain::parse("example.org").unwrap());
    let key = config::ApiKey {
        name: "shop".into(),
        hash: Some(hash_of(KEY)),
        domains: vec![domain],
        ..config::ApiKey::default()
    };
    config.api_keys.push(key);
    config
}

fn house(change: impl FnOnce(&mut Config)) -> House {
    let mut config = config();
    change(&mut config);
    let (door, hatches) = Door::new(1, bridge::Limits::default());
    let taken = Arc::<Mutex<Vec<Injection>>>::default();
    for hatch in hatches {
        tokio::spawn(shard(hatch, taken.clone()));
    }
    let metrics = Registry::new().http(crate::STATUSES);
    House { injections: Injections::new(door, &config, metrics, || Timestamp(0)), taken }
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl House {
    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.injections.alone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Reply { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn send(&self, body: &Value, more: &[(&str, &str)]) -> Reply {
        let bearer = format!("Bearer {KEY}");
        let mut headers = vec![("authorization", bearer.as_str()), ("content-type", "application/json")];
        headers.extend_from_slice(more);
        self.ask(Method::POST, "/api/v1/messages", &headers, body.to_string()).await
    }

    fn taken(&self) -> usize {
        lock(&self.taken).len()
    }
}

fn message(from: &str) -> Value {
    json!({"from": format!("{from}@example.org"), "to": ["bob@example.net", "carol@example.net"], "text": "x"})
}

#[track_caller]
fn problem(reply: &Reply, status: u16, slug: &str) {
    assert_eq!(
        (reply.status, &reply.body["type"]),
        (status, &json!(format!("urn:ringpost:problem:{slug}"))),
        "{}",
        reply.body
    );
    assert_eq!(reply.body["status"], status);
    assert!(!reply.body["remedy"].as_str().unwrap().is_empty());
    assert_eq!(reply.headers[header::CONTENT_TYPE], "application/problem+json");
}

#[tokio::test]
async fn a_message_is_taken() {
    let house = house(|_| ());
    let reply = house.send(&message("ann"), &[]).await;
    assert_eq!(reply.status, 202, "{}", reply.body);
    let id = reply.body["id"].as_str().unwrap();
    assert_eq!(reply.headers[header::LOCATION], format!("/api/v1/messages/{id}"));
    assert_eq!(reply.body["recipients"], 2);
    let taken = lock(&house.taken);
    assert_eq!(taken[0].recipients.len(), 2);
    assert_eq!(taken[0].reverse_path.to_string(), "<ann@example.org>");
    assert_eq!(&*taken[0].bringer, "shop");
    assert_eq!(reply.body["size"], taken[0].content.len());
}

#[tokio::test]
async fn who_has_no_key_gets_nothing() {
    let house = house(|config| config.api_keys[0].networks = vec!["192.0.2.0/24".parse().unwrap()]);
    for shown in ["", "Bearer", "Bearer x", "Basic cmluZ3Bvc3RfdGVzdA==", "ringpost_test"] {
        let headers = [("authorization", shown), ("content-type", "application/json")];
        let reply = house.ask(Method::POST, "/api/v1/messages", &headers, message("ann").to_string()).await;
        problem(&reply, 401, "unauthorized");
        assert_eq!(reply.headers[header::WWW_AUTHENTICATE], "Bearer");
    }
    problem(&house.send(&message("ann"), &[]).await, 403, "network");
    assert_eq!(house.taken(), 0);
}

/// The lists hold for whoever asks, be it for an answer that was given before.
#[tokio::test]
async fn who_is_denied_gets_nothing() {
    let networks = |text: &str| vec![text.parse().unwrap()];
    let lists = |deny: &str, allow: Option<&str>| {
        let mut config = config();
        config.clients.deny = networks(deny);
        config.clients.allow = allow.map(networks).unwrap_or_default();
        Settings::new(&config)
    };
    let house = house(|_| ());
    let repeated = [("idempotency-key", "once")];
    assert_eq!(house.send(&message("ann"), &repeated).await.status, 202);
    let path = format!("/api/v1/messages/{}", QueueId::new(JournalShard(0), 1));
    let bearer = [("authorization", format!("Bearer {KEY}"))];
    let bearer = bearer.each_ref().map(|(name, value)| (*name, value.as_str()));
    let look = || house.ask(Method::GET, &path, &bearer, Body::empty());
    house.injections.configure(lists("0.0.0.0/0", None));
    for reply in
        [look().await, house.send(&message("ann"), &[]).await, house.send(&message("ann"), &repeated).await]
    {
        problem(&reply, 403, "client-denied");
        assert_eq!(reply.body["smtp"]["reason"], "connection_refused");
    }
    // Whoever has no key is not told of the lists.
    problem(&house.ask(Method::GET, &path, &[], Body::empty()).await, 401, "unauthorized");
    house.injections.configure(lists("0.0.0.0/0", Some("0.0.0.0/0")));
    assert_eq!(look().await.status, 200);
    assert_eq!(house.taken(), 1);
}

#[tokio::test]
async fn who_sends_as_somebody_else_gets_nothing() {
    let house = house(|_| ());
    let mut batch = json!({"messages": [message("ann"), message("ann")]});
    batch["messages"][1]["envelope_from"] = "eve@evil.example".into();
    let reply = house.send(&batch, &[]).await;
    problem(&reply, 403, "sender-not-allowed");
    assert_eq!(reply.body["errors"][0]["pointer"], "/messages/1");
    let mut sender = message("ann");
    sender["headers"] = json!({"Sender": "eve@evil.example"});
    problem(&house.send(&sender, &[]).await, 403, "sender-not-allowed");
    let reply = house
        .ask(
            Method::POST,
            "/api/v1/messages",
            &[("authorization", &format!("Bearer {KEY}")), ("content-type", "message/rfc822")],
            "From: eve@evil.example\r\nTo: x@y.example\r\n\r\n",
        )
        .await;
    problem(&reply, 403, "sender-not-allowed");
    assert_eq!(house.taken(), 0);
}

#[tokio::test]
async fn what_a_shard_says_is_passed_on() {
    let house = house(|_| ());
    for (from, status, slug, retry) in [
        ("busy", 429, "busy", true),
        ("full", 507, "storage-full", true),
        ("failed", 503, "storage-failed", true),
        ("lost", 504, "unknown-outcome", false),
        ("stopping", 503, "unavailable", true),
        ("denied", 403, "client-denied", false),
        ("large", 413, "too-large", false),
        ("refused", 422, "refused", false),
    ] {
        let reply = house.send(&message(from), &[]).await;
        problem(&reply, status, slug);
        assert_eq!(reply.headers.contains_key(header::RETRY_AFTER), retry, "{from}");
        assert_eq!(reply.body["smtp"], json!({"code": 550, "status": "5.7.1", "reason": "policy"}));
        if from == "refused" {
            assert_eq!(reply.body["errors"][0]["pointer"], "/to");
            assert!(reply.body["detail"].as_str().unwrap().starts_with("carol@example.net: "));
        }
    }
}

#[tokio::test]
async fn a_batch_is_taken_in_part_or_not_at_all() {
    let house = house(|_| ());
    let all = json!({"messages": [message("ann"), message("bob")]});
    let reply = house.send(&all, &[]).await;
    assert_eq!((reply.status, &reply.body["accepted"]), (202, &json!(2)), "{}", reply.body);
    let part = json!({"messages": [message("ann"), message("busy"), message("bob")]});
    let reply = house.send(&part, &[]).await;
    assert_eq!((reply.status, &reply.body["accepted"], &reply.body["refused"]), (207, &json!(2), &json!(1)));
    assert_eq!(reply.body["messages"][1]["problem"]["status"], 429);
    assert_eq!(reply.body["messages"][2]["index"], 2);
    let none = json!({"messages": [message("full"), message("busy")]});
    problem(&house.send(&none, &[]).await, 507, "storage-full");
    let before = house.taken();
    let wrong = json!({"messages": [message("ann"), {"from": "x"}]});
    problem(&house.send(&wrong, &[]).await, 422, "invalid");
    assert_eq!(house.taken(), before, "a mistake in one refuses all");
}

#[tokio::test]
async fn a_repetition_gets_the_first_answer() {
    let house = house(|_| ());
    let key = [("idempotency-key", "\"a-1\"")];
    let first = house.send(&message("ann"), &key).await;
    let again = house.send(&message("ann"), &[("idempotency-key", "a-1")]).await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(first.body, again.body);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers[header::LOCATION], first.headers[header::LOCATION]);
    assert_eq!(house.taken(), 1);
    problem(&house.send(&message("bob"), &key).await, 422, "idempotency-reused");
    // What was not taken may be tried again with the same key.
    let other = [("idempotency-key", "b")];
    problem(&house.send(&message("busy"), &other).await, 429, "busy");
    problem(&house.send(&message("busy"), &other).await, 429, "busy");
    assert_eq!(house.taken(), 3);
    for malformed in ["", "\"\"", "a b", &"x".repeat(256)] {
        problem(
            &house.send(&message("ann"), &[("idempotency-key", malformed)]).await,
            400,
            "idempotency-key",
        );
    }
}

#[tokio::test]
async fn limits_of_the_key_hold() {
    let house = house(|config| {
        let key = &mut config.api_keys[0];
        (key.messages_per_minute, key.recipients_per_minute) = (3, 1000);
        (key.recipients_max, key.message_size_max) = (2, 2000);
    });
    let mut crowd = message("ann");
    crowd["cc"] = "dave@example.net".into();
    problem(&house.send(&crowd, &[]).await, 422, "invalid");
    let mut large = message("ann");
    large["text"] = "x".repeat(2001).into();
    let reply = house.send(&large, &[]).await;
    problem(&reply, 413, "too-large");
    let four = json!({"messages": vec![message("ann"); 4]});
    problem(&house.send(&four, &[]).await, 422, "invalid");
    let two = json!({"messages": vec![message("ann"); 2]});
    assert_eq!(house.send(&two, &[]).await.status, 202);
    let reply = house.send(&message("ann"), &[]).await;
    problem(&reply, 429, "rate-limited");
    let wait: u64 = reply.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
}

#[tokio::test]
async fn bodies_have_bounds() {
    let house = house(|config| {
        config.http.request_size_max = 64 << 10;
        config.http.memory = 1 << 20;
    });
    let mut large = message("ann");
    large["text"] = "x".repeat(64 << 10).into();
    problem(&house.send(&large, &[]).await, 413, "too-large");
    // The length is believed before the body is read, and it is not believed alone.
    problem(&house.send(&message("ann"), &[("content-length", "99999999")]).await, 413, "too-large");
    let headers = [("authorization", &*format!("Bearer {KEY}")), ("content-type", "application/json")];
    let half = Body::new(Halting(Some(Bytes::from(vec![b' '; 40 << 10]))));
    let slow = house.ask(Method::POST, "/api/v1/messages", &headers, half);
    tokio::time::pause();
    problem(&slow.await, 408, "slow-body");
    for (kind, value) in [("content-type", "text/plain"), ("content-type", ""), ("content-encoding", "gzip")]
    {
        let headers = [("authorization", &*format!("Bearer {KEY}")), (kind, value)];
        let reply = house.ask(Method::POST, "/api/v1/messages", &headers, message("ann").to_string()).await;
        problem(&reply, 415, "media-type");
    }
    problem(&house.send(&json!([]), &[]).await, 422, "invalid");
    let reply = house.ask(Method::POST, "/api/v1/messages", &headers, "{\"from\": 1, \"from\": 2}").await;
    problem(&reply, 400, "not-json");
    let all = house.injections.0.memory as usize;
    assert_eq!(house.injections.0.bodies.available_permits(), all, "all memory is given back");
    assert_eq!(house.injections.0.messages.available_permits(), all);
    // While others use it up, nobody waits.
    let _room = house.injections.0.bodies.clone().try_acquire_many_owned(house.injections.0.memory).unwrap();
    let reply = house.send(&message("ann"), &[]).await;
    problem(&reply, 429, "busy");
    assert_eq!(reply.headers[header::RETRY_AFTER], "1");
}

/// A body whose end never comes.
struct Halting(Option<Bytes>);

impl axum::body::HttpBody for Halting {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.take().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
    }
}

#[tokio::test]
async fn a_message_can_be_looked_at_by_whose_it_is() {
    let house = house(|_| ());
    let bearer = format!("Bearer {KEY}");
    let headers = [("authorization", bearer.as_str())];
    let path = |number| format!("/api/v1/messages/{}", QueueId::new(JournalShard(0), number));
    let reply = house.ask(Method::GET, &path(1), &headers, "").await;
    assert_eq!((reply.status, &reply.body["sender"]), (200, &json!("ann@example.org")));
    for other in [path(2), path(3), "/api/v1/messages/x".into()] {
        problem(&house.ask(Method::GET, &other, &headers, "").await, 404, "not-queued");
    }
    problem(&house.ask(Method::GET, &path(1), &[], "").await, 401, "unauthorized");
}

#[tokio::test]
async fn a_reload_changes_keys() {
    let house = house(|_| ());
    assert_eq!(house.send(&message("ann"), &[]).await.status, 202);
    house.injections.configure(Settings::new(&Config::default()));
    problem(&house.send(&message("ann"), &[]).await, 401, "unauthorized");
}

/// The description is true: every path and method is served, nothing else is, and every answer is described.
#[tokio::test]
async fn the_description_is_kept_true() {
    let house = house(|_| ());
    let reply = house.ask(Method::GET, "/api/v1/openapi.json", &[], "").await;
    assert_eq!((reply.status, &reply.body["openapi"]), (200, &json!("3.1.0")));
    let document = reply.body;
    let mut described = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            described.push((method.as_str(), path.as_str()));
            let asked =
                house.ask(method.to_uppercase().parse().unwrap(), &path.replace("{id}", "x"), &[], "").await;
            assert!(![404, 405].contains(&asked.status), "{method} {path}: {}", asked.status);
            assert!(operation["responses"].get(asked.status.to_string()).is_some(), "{method} {path}");
            let other = if method == "get" { Method::DELETE } else { Method::PUT };
            problem(&house.ask(other, &path.replace("{id}", "x"), &[], "").await, 405, "method");
        }
    }
    assert_eq!(described, PATHS);
    problem(&house.ask(Method::GET, "/api/v1/none", &[], "").await, 404, "no-such-path");
    references(&document, &document);
    // What is described as a message is read as one, field by field: see `decode`.
    let fields = document["components"]["schemas"]["Message"]["properties"].as_object().unwrap();
    assert_eq!(fields.len(), crate::fields::MESSAGE.fields.len());
    let statuses = document["paths"]["/api/v1/messages"]["post"]["responses"].as_object().unwrap();
    for kind in Kind::ALL.iter().filter(|kind| ![Kind::NotQueued, Kind::Path].contains(kind)) {
        assert!(statuses.contains_key(&kind.status().as_u16().to_string()), "{kind:?}");
    }
}

/// Every reference leads somewhere.
fn references(document: &Value, value: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get("$ref") {
                assert!(document.pointer(target.strip_prefix('#').unwrap()).is_some(), "{target}");
            }
            fields.values().for_each(|value| references(document, value));
        }
        Value::Array(values) => values.iter().for_each(|value| references(document, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
