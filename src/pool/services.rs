//! Services that take mail by HTTP.
//!
//! Connections are kept for a few seconds, so that a burst of mail does not shake hands for each message.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bridge::{Authorization, Delivered, Delivery};
use bytes::Bytes;
use delivery::{Answered, Place, Service, ServiceBody};
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::json;
use tls::ClientConfig;
use tokio::time::{Instant, timeout};

use crate::https::{self, Connected, HttpsError, Pieces};

/// Services, and the connections to them.
#[derive(Debug)]
pub(crate) struct Services {
    idle: Mutex<HashMap<Key, Vec<(Connected, Instant)>>>,
}

/// Where a connection leads.
type Key = (Box<str>, bool, Vec<SocketAddr>);

/// So long a connection is kept: less than servers keep theirs.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Connections that are kept to a service.
const IDLE_COUNT_MAX: usize = 20;
/// Octets of an answer that are read.
const ANSWER_MAX: usize = 8 << 10;

impl Services {
    pub(crate) fn new() -> Self {
        Self { idle: Mutex::default() }
    }

    /// Delivers to a service.
    pub(crate) async fn deliver(
        &self,
        delivery: &Delivery,
        service: &Service,
        tls: Arc<ClientConfig>,
    ) -> Delivered {
        let answered = match timeout(service.timeout, self.ask(delivery, service, tls)).await {
            Ok(answered) => answered,
            Err(_) => Err(format!("no answer within {} s", service.timeout.as_secs())),
        };
        Delivered { outcome: service.outcome(&answered, &delivery.remote), is_answer: answered.is_ok() }
    }

    async fn ask(
        &self,
        delivery: &Delivery,
        service: &Service,
        tls: Arc<ClientConfig>,
    ) -> Result<Answered, String> {
        let (head, body) = request(delivery, service).map_err(|error| error.to_string())?;
        let addresses = match delivery.addresses[..] {
            [] => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            ref addresses => addresses.to_vec(),
        };
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, service.url.port));
        let host = match &service.url.host {
            Place::Address(address) => address.to_string(),
            Place::Name(name) => name.to_string(),
            Place::Unix(_) => "localhost".to_owned(),
        };
        let key: Key = (host.as_str().into(), service.url.secure, addresses.collect());
        let mut kept = self.take(&key);
        loop {
            let (mut connected, is_old) = match kept.take() {
                Some(connected) => (connected, true),
                None => {
                    let tls = service.url.secure.then(|| tls.clone());
                    let connected = https::connect(&host, &key.2, tls).await;
                    (connected.map_err(|error| error.to_string())?, false)
                }
            };
            let mut request = Request::post(&*service.url.path).body(Pieces::of(&body));
            if let Ok(request) = &mut request {
                request.headers_mut().clone_from(&head);
            }
            match connected.send_request(request.map_err(|error| error.to_string())?).await {
                Ok(answer) => {
                    let (answered, whole) = read(answer).await;
                    if whole {
                        self.keep(key, connected);
                    }
                    return Ok(answered);
                }
                // The other side has closed what had been open for a while, perhaps before it has seen this. It is asked once
                // more, with the same key, by which it knows what it has had.
                Err(_) if is_old => {}
                Err(error) => return Err(HttpsError::from(error).to_string()),
            }
        }
    }

    fn take(&self, key: &Key) -> Option<Connected> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, kept| {
            kept.retain(|(connected, since)| since.elapsed() < IDLE_MAX && !connected.is_closed());
            !kept.is_empty()
        });
        idle.get_mut(key)?.pop().map(|(connected, _)| connected)
    }

    fn keep(&self, key: Key, connected: Connected) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(key).or_default();
        if kept.len() < IDLE_COUNT_MAX {
            kept.push((connected, Instant::now()));
        }
    }
}

/// The fields of a request, and its body.
fn request(delivery: &Delivery, service: &Service) -> Result<(HeaderMap, Vec<Bytes>), hyper::http::Error> {
    let envelope = &delivery.envelope;
    let places = delivery.recipients.iter();
    let recipients: Vec<_> = places
        .filter_map(|place| envelope.recipients.get(*place as usize))
        .map(|to| to.address.as_str())
        .collect();
    let sender = envelope.reverse_path.address().map_or("", |address| address.as_str());
    let mut head = HeaderMap::new();
    let text = |text: String| HeaderValue::from_bytes(text.as_bytes()).map_err(hyper::http::Error::from);
    for (name, value) in &service.headers {
        head.append(HeaderName::from_bytes(name.as_bytes())?, text(value.to_string())?);
    }
    let host = match &service.url.host {
        Place::Address(IpAddr::V6(address)) => format!("[{address}]"),
        Place::Address(address) => address.to_string(),
        Place::Name(name) => name.to_string(),
        Place::Unix(_) => "localhost".to_owned(),
    };
    let usual = if service.url.secure { 443 } else { 80 };
    let host = if service.url.port == usual { host } else { format!("{host}:{}", service.url.port) };
    head.insert(header::HOST, text(host)?);
    head.insert(header::USER_AGENT, HeaderValue::from_static("ringpost"));
    // The same for each attempt, so that who has had it knows it again.
    let first = delivery.recipients.first().copied().unwrap_or_default();
    let key = format!("{}-{first}", delivery.id);
    head.insert("idempotency-key", text(key.clone())?);
    match &delivery.authorization {
        Some(Authorization::Bearer(token)) => {
            head.insert(header::AUTHORIZATION, secret(format!("Bearer {}", token.expose()))?);
        }
        Some(Authorization::Basic { user, password }) => {
            let both = BASE64_STANDARD.encode(format!("{user}:{}", password.expose()));
            head.insert(header::AUTHORIZATION, secret(format!("Basic {both}"))?);
        }
        None => {}
    }
    let body = match service.body {
        ServiceBody::Message => {
            head.insert(header::CONTENT_TYPE, HeaderValue::from_static("message/rfc822"));
            head.insert("mail-from", text(format!("<{sender}>"))?);
            for recipient in &recipients {
                head.append("rcpt-to", text(format!("<{recipient}>"))?);
            }
            delivery.content.clone()
        }
        ServiceBody::Json => {
            head.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let content =
                message::content::gather(&delivery.content, 0..message::content::len(&delivery.content));
            let mut object = json!({ "id": delivery.id.to_string(), "from": sender, "to": recipients });
            match String::from_utf8(content) {
                Ok(text) => object["message"] = text.into(),
                Err(error) => object["message-base64"] = BASE64_STANDARD.encode(error.as_bytes()).into(),
            }
            vec![Bytes::from(object.to_string())]
        }
    };
    head.insert(header::CONTENT_LENGTH, HeaderValue::from(message::content::len(&body)));
    if let Some(shared) = &delivery.secret {
        let at = delivery.now.secs().to_string();
        let signature = sign(shared.expose(), &key, &at, &body);
        head.insert("webhook-id", text(key)?);
        head.insert("webhook-timestamp", text(at)?);
        head.insert("webhook-signature", text(signature)?);
    }
    Ok((head, body))
}

/// A value that is not shown where fields are.
fn secret(value: String) -> Result<HeaderValue, hyper::http::Error> {
    let mut value = HeaderValue::try_from(value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// As "Standard Webhooks" has it: over id, time and body. A secret that begins with `whsec_` is in base64.
fn sign(secret: &str, id: &str, at: &str, body: &[Bytes]) -> String {
    let decoded = secret.strip_prefix("whsec_").and_then(|rest| BASE64_STANDARD.decode(rest).ok());
    let key = hmac::Key::new(hmac::HMAC_SHA256, decoded.as_deref().unwrap_or(secret.as_bytes()));
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{id}.{at}.").as_bytes());
    body.iter().for_each(|piece| context.update(piece));
    format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
}

/// What was answered, and whether all of it was read.
async fn read(answer: Response<Incoming>) -> (Answered, bool) {
    let status = answer.status();
    let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(wait_of);
    let (body, whole) = match Limited::new(answer.into_body(), ANSWER_MAX).collect().await {
        Ok(body) => (body.to_bytes(), true),
        Err(_) => (Bytes::new(), false),
    };
    let text = String::from_utf8_lossy(&body);
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    let text = first.or(status.canonical_reason()).unwrap_or_default().to_owned();
    (
        Answered { status: status.as_u16(), retry_after, text },
        whole && status != StatusCode::SWITCHING_PROTOCOLS,
    )
}

/// `Retry-After`: seconds, or a date (RFC 9110 §10.2.3).
fn wait_of(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
    Duration::try_from(at.duration_since(jiff::Timestamp::now())).ok()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn requests_are_signed_as_others_do_it() {
        // The example of the specification of Standard Webhooks.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = [Bytes::from_static(br#"{"test": "#), Bytes::from_static(b"2432232314}")];
        let signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", &body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn waits_are_seconds_or_dates() {
        assert_eq!(wait_of(" 120"), Some(Duration::from_secs(120)));
        assert_eq!(wait_of("Fri, 31 Dec 1999 23:59:59 GMT"), None);
        let later = wait_of("Fri, 31 Dec 2100 23:59:59 GMT").unwrap();
        assert!(later > Duration::from_secs(86_400 * 365));
        assert_eq!(wait_of("soon"), None);
    }
}
