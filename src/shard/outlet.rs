//! A connection from a source: from its address, or by its proxy.
//!
//! What goes wrong is told apart: a next hop that cannot be reached is one, from whatever source; a source that is out of use must
//! not be held against the next hop, nor against the message. Whoever names the next hop has no way to make a source look
//! broken: of a proxy that serves, all that it says of a connection is about the next hop.

use std::{io, net::SocketAddr, time::Duration};

use delivery::{
    ConnectFailure,
    egress::{Proxy, Source, Speech, Trouble},
};
use proxy::{Next, Reason, Socks5, SocksError, Version};
use ring::{ConnectOptions, Stream};

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Unconnected {
    /// The next hop.
    Hop(ConnectFailure),
    /// The source has no address of the next hop's family.
    Family,
    /// The source.
    Source(Trouble),
}

/// Connects from a source.
pub(crate) async fn connect(
    source: &Source,
    to: SocketAddr,
    patience: Duration,
) -> Result<Stream, Unconnected> {
    if !source.can_reach(to.ip()) {
        return Err(Unconnected::Family);
    }
    let Some(proxy) = &source.proxy else {
        let options = ConnectOptions { local: source.address_towards(to.ip()), timeout: patience };
        return Stream::connect(to, options).await.map_err(|error| match not_plumbed(source, &error) {
            Some(trouble) => Unconnected::Source(trouble),
            None => Unconnected::Hop(failure(&error)),
        });
    };
    let stream = reach(source, proxy, patience).await.map_err(Unconnected::Source)?;
    match &proxy.speech {
        Speech::Socks5(login) => {
            let login = login.as_ref().map(|(user, password)| (&**user, &**password));
            let talk = talk(&stream, Socks5::connect(to, login), patience).await;
            talk.map_err(|error| match error {
                // The next hop may be one that nobody answers at, and the proxy waits as we do.
                TalkError::Io(error, Asked::Yes) => Unconnected::Hop(failure(&error)),
                TalkError::Io(error, Asked::No) => Unconnected::Source(trouble(&error)),
                TalkError::Socks(error) => refused(error),
            })?;
        }
        speech @ (Speech::HeaderV1 | Speech::HeaderV2) => {
            let Some(from) = source.address_towards(to.ip()) else { return Err(Unconnected::Family) };
            // The port is the proxy's to choose.
            let header = proxy::write(version(speech), SocketAddr::new(from, 0), to);
            stream.deadline().set_after(patience);
            stream.write_all(&header).await.map_err(|error| Unconnected::Source(trouble(&error)))?;
        }
    }
    Ok(stream)
}

/// Whether a source is fit for use: whether its address is there, and its proxy serves.
pub(crate) async fn probe(source: &Source, patience: Duration) -> Result<(), Trouble> {
    for address in source.plumbed() {
        // Anything else is no reason to think that the address is gone.
        if let Err(error) = ring::has_address(address)
            && error.kind() == io::ErrorKind::AddrNotAvailable
        {
            return Err(Trouble::NotPlumbed(format!("{address}: {error}").into()));
        }
    }
    let Some(proxy) = &source.proxy else { return Ok(()) };
    let stream = reach(source, proxy, patience).await?;
    match &proxy.speech {
        Speech::Socks5(login) => {
            let login = login.as_ref().map(|(user, password)| (&**user, &**password));
            talk(&stream, Socks5::trial(login), patience).await.map_err(|error| match error {
                TalkError::Io(error, _) => trouble(&error),
                TalkError::Socks(error) => Trouble::Proxy(error.to_string().into()),
            })
        }
        speech @ (Speech::HeaderV1 | Speech::HeaderV2) => {
            stream.deadline().set_after(patience);
            stream.write_all(&proxy::own(version(speech))).await.map_err(|error| trouble(&error))
        }
    }
}

/// Connects to the proxy itself.
async fn reach(source: &Source, proxy: &Proxy, patience: Duration) -> Result<Stream, Trouble> {
    let local = match proxy.speech {
        Speech::Socks5(_) => source.address_towards(proxy.address.ip()),
        // It is the proxy that has the address.
        Speech::HeaderV1 | Speech::HeaderV2 => None,
    };
    let options = ConnectOptions { local, timeout: patience };
    Stream::connect(proxy.address, options)
        .await
        .map_err(|error| not_plumbed(source, &error).unwrap_or_else(|| trouble(&error)))
}

/// Whether the request was sent when it went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Yes,
    No,
}

enum TalkError {
    Io(io::Error, Asked),
    Socks(SocksError),
}

/// Talks with a proxy until there is a connection.
async fn talk(
    stream: &Stream,
    (mut socks, first): (Socks5, Vec<u8>),
    patience: Duration,
) -> Result<(), TalkError> {
    let until = ring::clock::now() + patience;
    let mut asked = Asked::No;
    stream.deadline().set_after(patience);
    stream.write_all(&first).await.map_err(|error| TalkError::Io(error, asked))?;
    // No octet more than is the proxy's: what follows is the next hop's.
    let mut buffer = [0; 512];
    loop {
        let room = socks.wanted().min(buffer.len());
        let len = stream.read(&mut buffer[..room]).await.map_err(|error| TalkError::Io(error, asked))?;
        if len == 0 {
            return Err(TalkError::Io(io::ErrorKind::UnexpectedEof.into(), asked));
        }
        match socks.on_received(&buffer[..len]).map_err(TalkError::Socks)? {
            Next::Receive => {}
            Next::Send(octets) => {
                stream.deadline().set_after(until.saturating_sub(ring::clock::now()));
                stream.write_all(&octets).await.map_err(|error| TalkError::Io(error, asked))?;
                asked = if socks.is_asked() { Asked::Yes } else { Asked::No };
            }
            Next::Done => return Ok(()),
        }
    }
}

/// What a proxy's refusal means. Its rules may forbid a next hop of a stranger's choice, and not all.
fn refused(error: SocksError) -> Unconnected {
    let other = |error: SocksError| Unconnected::Hop(ConnectFailure::Other(error.to_string().into()));
    match error {
        SocksError::Refused(Reason::ConnectionRefused) => Unconnected::Hop(ConnectFailure::Refused),
        SocksError::Refused(Reason::Expired) => Unconnected::Hop(ConnectFailure::TimedOut),
        SocksError::Refused(Reason::NetworkUnreachable | Reason::HostUnreachable) => {
            Unconnected::Hop(ConnectFailure::Unreachable)
        }
        SocksError::Refused(
            Reason::General | Reason::Forbidden | Reason::Command | Reason::AddressType | Reason::Unknown(_),
        ) => other(error),
        SocksError::Malformed | SocksError::NoMethod | SocksError::NotAllowed => {
            Unconnected::Source(Trouble::Proxy(error.to_string().into()))
        }
    }
}

const fn version(speech: &Speech) -> Version {
    match speech {
        Speech::HeaderV1 => Version::V1,
        Speech::Socks5(_) | Speech::HeaderV2 => Version::V2,
    }
}

/// Whether a connection failed since this host does not have the address. Where all ports of it are in use, the system says the
/// same.
fn not_plumbed(source: &Source, error: &io::Error) -> Option<Trouble> {
    if error.kind() != io::ErrorKind::AddrNotAvailable {
        return None;
    }
    let missing = |address: &std::net::IpAddr| {
        ring::has_address(*address).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
    };
    let address = source.plumbed().into_iter().find(missing)?;
    Some(Trouble::NotPlumbed(format!("{address}: {error}").into()))
}

fn trouble(error: &io::Error) -> Trouble {
    Trouble::Proxy(failure(error).to_string().into())
}

/// Why there is no connection, in words of delivery.
pub(crate) fn failure(error: &io::Error) -> ConnectFailure {
    let kind = error.kind();
    if kind == io::ErrorKind::ConnectionRefused {
        ConnectFailure::Refused
    } else if kind == io::ErrorKind::TimedOut {
        ConnectFailure::TimedOut
    } else if matches!(kind, io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) {
        ConnectFailure::Unreachable
    } else {
        ConnectFailure::Other(error.to_string().into())
    }
}
