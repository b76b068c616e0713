//! Who changes the DNS for us: a server that takes updates (RFC 2136), or Cloudflare.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::rand;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bridge::Door;
use bytes::Bytes;
use config::{DnsProvider, DnsProviderKind, EndpointUrl, Host, TsigHash};
use dns::{Kind, Name, Question, TsigAlgorithm, TsigKey, Update};
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Method, Request,
    header::{self, HeaderValue},
};
use serde_json::{Value, json};
use tls::ClientConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::spawn_blocking,
};
use trust::REVOKED;

use crate::https::{self, HttpsError, Pieces};

/// What is to become of the record of a key. Done twice it has the effect of being done once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    /// It is published where there is nothing.
    Publish(&'a str),
    /// [`REVOKED`] takes its place.
    Revoke(&'a str),
    /// It goes, in either form.
    Withdraw(&'a str),
}

/// Where, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Whose key it is.
    pub(super) domain: &'a Name,
    /// Where it is published.
    pub(super) name: &'a Name,
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// Why a zone is not known to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChangeError {
    /// Who changes it does not answer, as he will not for the next change either.
    Silent(String),
    /// He said no, or could not be asked this.
    Refused(String),
}

/// Octets of an answer that are read.
const ANSWER_MAX: usize = 1 << 20;

/// Changes a zone. Whether that shows is for the DNS to tell: where there is something else, nothing is changed and nothing is said.
pub(super) async fn change(
    door: &Door,
    provider: &DnsProvider,
    tls: Arc<ClientConfig>,
    place: Place<'_>,
    change: Change<'_>,
) -> Result<(), ChangeError> {
    let secret = match &provider.secret_file {
        Some(file) => Some(secret(file.clone()).await?),
        None => None,
    };
    let zone = match &provider.zone {
        Some(zone) => Name::parse(zone.as_str()).map_err(|error| error.to_string())?,
        None => place.domain.clone(),
    };
    let ttl = u32::try_from(provider.ttl.as_secs()).unwrap_or(u32::MAX);
    match provider.kind {
        DnsProviderKind::Rfc2136 => update(provider, secret.as_deref(), &zone, place, (change, ttl)).await,
        DnsProviderKind::Cloudflare => {
            let token = secret.unwrap_or_default();
            let addresses = addresses(door, &provider.url).await?;
            Cloudflare { url: &provider.url, addresses, tls, token: &token }
                .change(&zone, place.name, change, ttl)
                .await
        }
    }
}

/// Whether the secret of a provider, where it has one, can be read and used. Whether it is the right one, only a change would say.
///
/// # Errors
/// Says why not, and what to do.
pub fn check_provider(provider: &DnsProvider) -> Result<(), String> {
    let Some(file) = &provider.secret_file else { return Ok(()) };
    let secret = read_secret(file)?;
    let usable = match provider.kind {
        DnsProviderKind::Rfc2136 => tsig_secret(&secret).map(drop),
        DnsProviderKind::Cloudflare => match HeaderValue::from_str(&secret) {
            Ok(_) => Ok(()),
            Err(_) => Err("it has characters in it that no token has".to_owned()),
        },
    };
    usable.map_err(|why| format!("{}: {why}", file.display()))
}

/// It may lie on a disk that is slow, or on a network.
async fn secret(file: PathBuf) -> Result<String, String> {
    spawn_blocking(move || read_secret(&file)).await.map_err(|error| error.to_string())?
}

fn read_secret(file: &Path) -> Result<String, String> {
    let line = config::secret_line(file).map_err(|error| format!("{}: {error}", file.display()))?;
    match line.trim() {
        // An empty one would be known to everybody.
        "" => Err(format!("{}: it is empty", file.display())),
        secret => Ok(secret.to_owned()),
    }
}

fn tsig_secret(secret: &str) -> Result<Vec<u8>, String> {
    BASE64_STANDARD.decode(secret).map_err(|_| "the secret is not in base64".to_owned())
}

async fn update(
    provider: &DnsProvider,
    secret: Option<&str>,
    zone: &Name,
    place: Place<'_>,
    (change, ttl): (Change<'_>, u32),
) -> Result<(), ChangeError> {
    let server = provider.server.ok_or("there is no server")?;
    let key = match (&provider.tsig_name, secret) {
        (Some(name), Some(secret)) => {
            let name = Name::parse(name.as_str()).map_err(|error| error.to_string())?;
            let secret = tsig_secret(secret)?;
            Some(TsigKey::new(name, algorithm(provider.tsig_algorithm), &secret))
        }
        (_, _) => None,
    };
    let mut id = [0; 2];
    rand::fill(&mut id).map_err(|_| "there are no random numbers")?;
    let (revoked, removed);
    let change = match change {
        Change::Publish(text) => dns::Change::Add { text, ttl },
        Change::Revoke(old) => {
            revoked = REVOKED;
            dns::Change::Replace { old, new: revoked, ttl }
        }
        Change::Withdraw(text) => {
            removed = [text, REVOKED];
            dns::Change::Remove(&removed)
        }
    };
    let update = Update::new(zone, place.name, change, key.as_ref(), (u16::from_be_bytes(id), place.now));
    let update = update.map_err(|error| error.to_string())?;
    let answer = exchange(server, &update.bytes).await;
    let answer = answer.map_err(|error| ChangeError::Silent(format!("{server}: {error}")))?;
    let done = update.on_answer(&answer, key.as_ref(), place.now);
    done.map(drop).map_err(|error| ChangeError::Refused(format!("{server}: {error}")))
}

/// One message over TCP, each with its length before it (RFC 1035 §4.2.2).
async fn exchange(server: SocketAddr, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(message.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

const fn algorithm(hash: TsigHash) -> TsigAlgorithm {
    match hash {
        TsigHash::HmacSha256 => TsigAlgorithm::HmacSha256,
        TsigHash::HmacSha384 => TsigAlgorithm::HmacSha384,
        TsigHash::HmacSha512 => TsigAlgorithm::HmacSha512,
    }
}

/// Where the host of a URL is.
async fn addresses(door: &Door, url: &EndpointUrl) -> Result<Vec<SocketAddr>, String> {
    let name = match &url.host {
        Host::Address(address) => return Ok(vec![SocketAddr::new(*address, url.port)]),
        Host::Unix(_) => return Err("the API is at no socket of this host".to_owned()),
        Host::Name(name) => Name::parse(name.as_str()).map_err(|error| error.to_string())?,
    };
    let mut addresses = Vec::new();
    for kind in [Kind::Aaaa, Kind::A] {
        let answer = door.resolve(Question { name: name.clone(), kind }).await;
        let answer = answer.map_err(|error| error.to_string())?;
        addresses.extend(answer.addresses().iter().map(|address| SocketAddr::new(*address, url.port)));
    }
    if addresses.is_empty() { Err(format!("{name} has no address")) } else { Ok(addresses) }
}

impl ChangeError {
    /// The same, of this provider.
    pub(super) fn by(self, name: &str) -> Self {
        match self {
            Self::Silent(why) => Self::Silent(format!("{name}: {why}")),
            Self::Refused(why) => Self::Refused(format!("{name}: {why}")),
        }
    }
}

impl From<String> for ChangeError {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

impl From<&str> for ChangeError {
    fn from(why: &str) -> Self {
        Self::Refused(why.to_owned())
    }
}

/// The API of Cloudflare, version 4.
struct Cloudflare<'a> {
    url: &'a EndpointUrl,
    addresses: Vec<SocketAddr>,
    tls: Arc<ClientConfig>,
    token: &'a str,
}

impl Cloudflare<'_> {
    async fn change(
        &self,
        zone: &Name,
        name: &Name,
        change: Change<'_>,
        ttl: u32,
    ) -> Result<(), ChangeError> {
        let zones = self.ask(Method::GET, &format!("/zones?name={zone}"), None).await?;
        let zone_id = id_of(zones.get(0)).ok_or_else(|| format!("the token knows no zone {zone}"))?;
        let records = format!("/zones/{zone_id}/dns_records");
        let there = self.ask(Method::GET, &format!("{records}?type=TXT&name={name}"), None).await?;
        let there: Vec<(String, String)> = there
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|record| Some((id_of(Some(record))?, text_of(record.get("content")?.as_str()?))))
            .collect();
        let body =
            |text: &str| json!({"type": "TXT", "name": name.as_str(), "content": quoted(text), "ttl": ttl});
        match change {
            Change::Publish(text) => {
                if there.is_empty() {
                    self.ask(Method::POST, &records, Some(body(text))).await?;
                }
            }
            Change::Revoke(old) => {
                if let [(id, text)] = &there[..]
                    && *text == *old
                {
                    self.ask(Method::PUT, &format!("{records}/{id}"), Some(body(REVOKED))).await?;
                }
            }
            Change::Withdraw(old) => {
                for (id, _) in there.iter().filter(|(_, text)| *text == *old || *text == *REVOKED) {
                    self.ask(Method::DELETE, &format!("{records}/{id}"), None).await?;
                }
            }
        }
        Ok(())
    }

    /// What the API answers, where it says that it has done what it was asked.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, ChangeError> {
        let silent = |error: HttpsError| ChangeError::Silent(error.to_string());
        let host = match &self.url.host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.to_string(),
            Host::Unix(_) => "localhost".to_owned(),
        };
        let tls = self.url.secure.then(|| self.tls.clone());
        let usual_port = if self.url.secure { 443 } else { 80 };
        let mut connected = https::connect(&host, &self.addresses, tls).await.map_err(silent)?;
        let path = format!("{}{path}", self.url.path.trim_end_matches('/'));
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(&path)
            .header(header::HOST, https::named(&host, self.url.port, usual_port))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, body.len())
            .header(header::USER_AGENT, "ringpost")
            .body(Pieces::of(&[Bytes::from(body)]));
        let request = request.map_err(|_| "the request cannot be written: look at the token".to_owned())?;
        let answer = connected.send_request(request).await.map_err(|error| silent(error.into()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let mut answer: Value = serde_json::from_slice(&body)
            .map_err(|_| format!("the API answered {status}, and nothing that can be read"))?;
        if answer.get("success") != Some(&Value::Bool(true)) {
            let why = answer.pointer("/errors/0/message").and_then(Value::as_str).unwrap_or("no reason");
            let why: String = why.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(ChangeError::Refused(format!("the API answered {status}: {why}")));
        }
        Ok(answer.get_mut("result").map(Value::take).unwrap_or_default())
    }
}

/// An id that can stand in a path.
fn id_of(value: Option<&Value>) -> Option<String> {
    let id = value?.get("id")?.as_str()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!id.is_empty() && id.bytes().all(plain)).then(|| id.to_owned())
}

/// A text in strings of 255 octets, in quotes, as the API wants it.
fn quoted(text: &str) -> String {
    let strings =
        text.as_bytes().chunks(255).map(|string| format!("\"{}\"", String::from_utf8_lossy(string)));
    strings.collect::<Vec<_>>().join(" ")
}

/// A text as the API tells it: in quotes, or as it is.
fn text_of(content: &str) -> String {
    if !content.starts_with('"') {
        return content.to_owned();
    }
    let (mut text, mut inside, mut escaped) = (String::new(), false, false);
    for c in content.chars() {
        match c {
            _ if escaped => {
                text.push(c);
                escaped = false;
            }
            '\\' if inside => escaped = true,
            '"' => inside = !inside,
            c if inside => text.push(c),
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod test {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn texts_of_the_api() {
        let long = "v=DKIM1; p=".to_owned() + &"x".repeat(600);
        assert_eq!(quoted(&long).matches('"').count(), 6);
        for text in [long.as_str(), REVOKED, "a \\b"] {
            assert_eq!(text_of(&quoted(text).replace('\\', "\\\\")), text);
        }
        assert_eq!(text_of("v=DKIM1; p="), REVOKED);
        assert_eq!(id_of(Some(&json!({"id": "0a-b_c"}))).as_deref(), Some("0a-b_c"));
        for bad in [json!({"id": "../x"}), json!({"id": ""}), json!({"id": 1}), json!([])] {
            assert_eq!(id_of(Some(&bad)), None);
        }
    }
    /// With an empty secret anybody could sign.
    #[tokio::test]
    async fn a_secret_that_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for (text, good) in [(" abc \n", true), (" \n", false), ("\n", false)] {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(secret(file.clone()).await.is_ok(), good, "{text:?}");
        }
    }
}
