//! One request by HTTPS to a host whose addresses are known: no redirects, no proxies, no cookies, and an end.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Request, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tls::ClientConfig;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, rustls, rustls::pki_types::ServerName};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpsError {
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// No address, or none that takes connections.
    #[error("cannot connect: {0}")]
    Connect(Box<str>),
    /// The certificate is not one for the host.
    #[error("{0}")]
    Certificate(Box<str>),
    /// Anything else that is no HTTP.
    #[error("{0}")]
    Protocol(Box<str>),
    /// It answered, and not with what was wanted.
    #[error("the host answered {0}")]
    Status(StatusCode),
    /// The body is not of the kind that was wanted.
    #[error("the host gave no text/plain")]
    Kind,
    /// There is more of it than is read.
    #[error("the answer is longer than {0} octets")]
    TooLong(usize),
}

/// So long one address of several is waited for: the next one may answer where packets to this one get lost, as happens to IPv6.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(5);

/// Where a request goes, and how long it may take.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The host's name: in the request, and in its certificate.
    pub(crate) host: String,
    /// Where it is: tried in this order.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whom to believe.
    pub(crate) tls: Arc<ClientConfig>,
    /// For all of it.
    pub(crate) patience: Duration,
    /// Octets of the body that are read.
    pub(crate) body_max: usize,
}

/// Sends the request; the body of the answer, when that is a 200.
///
/// # Errors
/// [`HttpsError`].
pub(crate) async fn get_text(target: &Target, path: &str) -> Result<Vec<u8>, HttpsError> {
    // So that nobody who may put a picture there puts a policy there (RFC 8461 §3.2).
    let is_text = |kind: &[u8]| kind.eq_ignore_ascii_case(b"text/plain");
    receive(target, path, "text/plain", is_text).await
}

/// Likewise, of whatever kind it says that it is: `kind` is what is asked for.
///
/// # Errors
/// [`HttpsError`].
pub(crate) async fn get(target: &Target, path: &str, kind: &str) -> Result<Vec<u8>, HttpsError> {
    receive(target, path, kind, |_| true).await
}

async fn receive(
    target: &Target,
    path: &str,
    accept: &str,
    is_wanted: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, HttpsError> {
    let request = Request::get(path)
        .header(header::HOST, host_header(target))
        .header(header::ACCEPT, accept)
        .header(header::USER_AGENT, "ringpost")
        .body(Pieces::default())
        .map_err(protocol)?;
    timeout(target.patience, async {
        let answer = send(target, request).await?;
        // "HTTP 3xx redirects MUST NOT be followed", nor is anything but 200 the policy (RFC 8461 §3.3).
        if answer.status() != StatusCode::OK {
            return Err(HttpsError::Status(answer.status()));
        }
        let kind = answer.headers().get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
        let kind = kind.and_then(|kind| kind.split(|byte| *byte == b';').next()).unwrap_or_default();
        if !is_wanted(kind.trim_ascii()) {
            return Err(HttpsError::Kind);
        }
        match Limited::new(answer.into_body(), target.body_max).collect().await {
            Ok(body) => Ok(body.to_bytes().into()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(HttpsError::TooLong(target.body_max))
            }
            Err(error) => Err(HttpsError::Protocol(error.to_string().into())),
        }
    })
    .await
    .unwrap_or(Err(HttpsError::Timeout))
}

/// Sends this body; the answer is any 2xx.
///
/// # Errors
/// [`HttpsError`].
pub(crate) async fn post(target: &Target, path: &str, kind: &str, body: Vec<u8>) -> Result<(), HttpsError> {
    let request = Request::post(path)
        .header(header::HOST, host_header(target))
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_LENGTH, body.len())
        .header(header::USER_AGENT, "ringpost")
        .body(Pieces::of(&[Bytes::from(body)]))
        .map_err(protocol)?;
    let answer = timeout(target.patience, send(target, request)).await.map_err(|_| HttpsError::Timeout)??;
    if answer.status().is_success() { Ok(()) } else { Err(HttpsError::Status(answer.status())) }
}

async fn send(target: &Target, request: Request<Pieces>) -> Result<hyper::Response<Incoming>, HttpsError> {
    let mut sender = connect(&target.host, &target.addresses, Some(target.tls.clone())).await?;
    Ok(sender.send_request(request).await?)
}

/// A connection that requests can be sent on, one after the other.
pub(crate) type Connected = http1::SendRequest<Pieces>;

/// Connects to the first of these addresses that takes connections, under TLS or in clear.
///
/// # Errors
/// [`HttpsError`].
pub(crate) async fn connect(
    host: &str,
    addresses: &[SocketAddr],
    tls: Option<Arc<ClientConfig>>,
) -> Result<Connected, HttpsError> {
    let mut failure = HttpsError::Connect("the host has no address".into());
    for (place, address) in addresses.iter().enumerate() {
        let connecting = TcpStream::connect(address);
        let connected = if place + 1 == addresses.len() {
            connecting.await
        } else {
            let connected = timeout(ADDRESS_PATIENCE, connecting).await;
            connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        };
        let stream = match connected {
            Ok(stream) => stream,
            Err(error) => {
                failure = HttpsError::Connect(format!("{address}: {error}").into());
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        // The connection ends with the sender, or with what is read of the answer.
        let Some(tls) = tls else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            return Ok(sender);
        };
        let name = ServerName::try_from(host.to_owned()).map_err(protocol)?;
        let secure = TlsConnector::from(tls).connect(name, stream).await.map_err(handshake)?;
        let (sender, connection) = http1::handshake(TokioIo::new(secure)).await?;
        tokio::spawn(connection);
        return Ok(sender);
    }
    Err(failure)
}

/// A body in pieces that are there already: nothing is copied.
#[derive(Debug, Default)]
pub(crate) struct Pieces(VecDeque<Bytes>);

impl Pieces {
    /// These.
    pub(crate) fn of(pieces: &[Bytes]) -> Self {
        Self(pieces.iter().filter(|piece| !piece.is_empty()).cloned().collect())
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

impl From<hyper::Error> for HttpsError {
    fn from(error: hyper::Error) -> Self {
        protocol(error)
    }
}

fn host_header(target: &Target) -> String {
    named(&target.host, target.addresses.first().map_or(443, SocketAddr::port), 443)
}

/// A host as a request names it (RFC 9110 §7.2).
pub(crate) fn named(host: &str, port: u16, usual: u16) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port == usual { host } else { format!("{host}:{port}") }
}

fn handshake(error: std::io::Error) -> HttpsError {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(why)) => HttpsError::Certificate(format!("{why:?}").into()),
        Some(_) | None => HttpsError::Protocol(error.to_string().into()),
    }
}

fn protocol(error: impl std::error::Error) -> HttpsError {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    HttpsError::Protocol(format!("{error}{cause}").into())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn hosts_in_requests() {
        for (host, port, usual, expected) in [
            ("api.example", 443, 443, "api.example"),
            ("api.example", 8443, 443, "api.example:8443"),
            ("::1", 8080, 80, "[::1]:8080"),
            ("127.0.0.1", 80, 80, "127.0.0.1"),
        ] {
            assert_eq!(named(host, port, usual), expected);
        }
    }

    /// A host with IPv6 that leads nowhere: the address of IPv4 is tried, and not only when all patience is over.
    #[tokio::test(start_paused = true)]
    async fn an_address_that_loses_packets_is_not_waited_for() {
        // Once its queue is full, the kernel drops what else comes.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let full = socket.listen(1).unwrap();
        let nowhere = full.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_secs(1), TcpStream::connect(nowhere)).await {
            waiting.push(stream);
        }
        let there = tokio::net::TcpListener::bind(nowhere.ip().to_string() + ":0").await.unwrap();
        let addresses = [nowhere, there.local_addr().unwrap()];
        let patience = Duration::from_secs(30);
        assert!(timeout(patience, connect("localhost", &addresses, None)).await.unwrap().is_ok());
    }
}
