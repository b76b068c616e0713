//! Who is at the other end of a connection: what a proxy there says of it, and what its certificate does.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use config::ClientCertificate;
use policy::{Asker, Listing, Networks, Policy, Standing};
use proxy::{Header, HeaderError};
use ring::Peer;
use smtp::{Claim, Claims};
use tls::{Fingerprint, Shown};
use watch::events::CertificateShown;

use crate::{
    accept::client_address,
    settings::{Door, to_usize},
    socket::{HandshakeError, Socket},
};

/// Who is at the other end, or behind the proxy there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The address, for all that goes by it.
    pub(crate) peer: Peer,
    pub(crate) known: Known,
    /// The certificate that it may relay by, once it has shown one.
    pub(crate) certificate: Option<Fingerprint>,
    /// The certificate that it has shown, whatever it is good for.
    pub(crate) shown: Option<Fingerprint>,
}

/// How the client of a connection is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// By the address it has.
    ByAddress,
    /// Not at all: the address is that of a proxy, which does not say who is behind it.
    NotAtAll,
}

/// Why it is not known for whom a connection is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the address is in none of the networks of `proxy-networks`")]
    Stranger,
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("the PROXY header did not come in time")]
    TimedOut,
    #[error("the connection ended within the PROXY header")]
    Cut,
    /// Nothing came at all: something that looks whether the port is open.
    #[error("the connection ended before the PROXY header")]
    Closed,
    #[error("the connection failed: {0}")]
    Io(io::Error),
}

impl Caller {
    /// Known by the address it comes from.
    pub(crate) const fn at(peer: Peer) -> Self {
        Self { peer, known: Known::ByAddress, certificate: None, shown: None }
    }

    /// The one that this one speaks for. What is not said of it is as it is here.
    pub(crate) fn speaking_for(self, claims: &Claims) -> Self {
        let (address, port) = match self.peer {
            Peer::Tcp(address) => (address.ip(), address.port()),
            Peer::Unix => (IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        };
        let port = match claims.port {
            Claim::Known(port) => port,
            Claim::Kept => port,
            Claim::Unavailable | Claim::Unknown => 0,
        };
        // A credential is of who showed it, not of whom it speaks for.
        let (address, known, certificate, shown) = match claims.address {
            Claim::Known(address) => (address, Known::ByAddress, None, None),
            Claim::Kept => (address, self.known, self.certificate, self.shown),
            Claim::Unavailable | Claim::Unknown => (address, Known::NotAtAll, None, None),
        };
        match (self.peer, &claims.address, &claims.port) {
            (Peer::Unix, Claim::Kept, Claim::Kept) => self,
            _ => Self { peer: Peer::Tcp(SocketAddr::new(address, port)), known, certificate, shown },
        }
    }

    /// Its address, where that says who it is. A client on a Unix socket is of this host.
    pub(crate) fn address(self) -> Option<IpAddr> {
        match self.known {
            Known::ByAddress => Some(self.peer.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))),
            Known::NotAtAll => None,
        }
    }

    /// Who it is for the rules on waiting mail.
    pub(crate) fn asker(self) -> Asker {
        Asker { address: self.address(), certificate: self.shown.map(|Fingerprint(hash)| hash) }
    }

    /// Whether it is one of ours.
    pub(crate) fn standing(self, policy: &Policy) -> Standing {
        match self.known {
            Known::ByAddress | Known::NotAtAll if self.certificate.is_some() => Standing::Own,
            Known::ByAddress => policy.standing(self.peer.ip()),
            Known::NotAtAll => Standing::Stranger,
        }
    }

    /// What the lists say of it.
    pub(crate) fn listing(self, policy: &Policy) -> Listing {
        match (policy.listing(self.peer.ip()), self.known) {
            // It is the proxy that is spared.
            (Listing::Spared, Known::NotAtAll) => Listing::Unlisted,
            (listing, Known::ByAddress | Known::NotAtAll) => listing,
        }
    }
}

/// Takes from the certificate that the client has shown, if it was asked for one, who it is.
pub(crate) fn look_at_certificate(door: &Door, socket: &mut Socket) -> Result<(), HandshakeError> {
    let demanded = match door.certificates {
        ClientCertificate::None => return Ok(()),
        ClientCertificate::Request => false,
        ClientCertificate::Require => true,
    };
    let Some(credentials) = &door.credentials else { return Ok(()) };
    let now = ring::clock::unix_micros();
    let shown = socket.shown(credentials, Duration::from_micros(now));
    let (fingerprint, is_credential) = match shown {
        Shown::Nothing => (None, false),
        Shown::Certificate(fingerprint) => (Some(fingerprint), false),
        Shown::Credential(fingerprint) => (Some(fingerprint), true),
    };
    if let Some(fingerprint) = fingerprint {
        CertificateShown {
            client: client_address(socket.peer()),
            listener: &door.name,
            cert: &fingerprint,
            trusted: if is_credential { "yes" } else { "no" },
        }
        .emit(now);
    }
    socket.set_caller(Caller { shown: fingerprint, ..socket.caller() });
    match fingerprint {
        Some(fingerprint) if is_credential => {
            socket.set_caller(Caller { certificate: Some(fingerprint), ..socket.caller() });
            Ok(())
        }
        Some(_) | None if demanded => Err(HandshakeError::NoCredential),
        Some(_) | None => Ok(()),
    }
}

/// Waits for the header that a proxy sends first, and takes from it for whom the connection is.
pub(crate) async fn read_header(
    socket: &mut Socket,
    proxies: &Networks,
    door: &Door,
) -> Result<(), ProxyError> {
    let proxy = socket.stream().peer();
    // Who may open a Unix socket is for its mode and owner to say.
    if proxy.ip().is_some_and(|address| !proxies.contains(address)) {
        return Err(ProxyError::Stranger);
    }
    // For the header as a whole, however many pieces it comes in.
    let until: Duration = ring::clock::now() + door.timeouts.proxy_header;
    socket.stream().deadline().set(until);
    let (header, len) = loop {
        let received = socket.input().bytes();
        if let Some(found) = proxy::read(received, to_usize(door.limits.proxy_header_max))? {
            break found;
        }
        let begun = !received.is_empty();
        match socket.fill().await {
            Ok(0) if begun => return Err(ProxyError::Cut),
            Ok(0) => return Err(ProxyError::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(ProxyError::TimedOut),
            Err(error) => return Err(ProxyError::Io(error)),
        }
    };
    socket.input().consume(len);
    match header {
        Header::Own => {}
        Header::Client(client) => socket.set_caller(Caller::at(Peer::Tcp(client))),
        Header::Unknown => {
            socket.set_caller(Caller { peer: proxy, known: Known::NotAtAll, certificate: None, shown: None })
        }
    }
    Ok(())
}
