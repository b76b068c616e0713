//! Listening sockets: bound before anything else starts, accepted from on each shard.

use std::cell::{Cell, RefCell};
use std::fs;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_lite::io::AsyncRead as _;
use glommio::net::TcpStream;
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use crate::address::{ListenAddress, Peer};
use crate::raw;
use crate::stream::Stream;
use crate::timer::sleep;

/// How to listen.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Connections that wait to be accepted; the kernel caps it at net.core.somaxconn.
    pub backlog: u32,
    /// Let several sockets listen on one TCP address; the kernel spreads connections over them.
    pub reuse_port: bool,
    /// Leave IPv4 out of `[::]`.
    pub v6_only: bool,
    /// Ask silent peers every so often whether they are still there.
    pub keepalive: Option<Duration>,
    /// Give up on peers that acknowledge nothing for that long (TCP_USER_TIMEOUT).
    pub user_timeout: Option<Duration>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, reuse_port: true, v6_only: false, keepalive: None, user_timeout: None }
    }
}

/// A listening socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}{}", hint(.error))]
pub struct BindError {
    /// Where.
    pub address: ListenAddress,
    /// Why not.
    #[source]
    pub error: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    const HINTS: [(io::ErrorKind, &str); 3] = [
        (io::ErrorKind::AddrInUse, " (another program listens there)"),
        (io::ErrorKind::PermissionDenied, " (ports below 1024 need root or CAP_NET_BIND_SERVICE)"),
        (io::ErrorKind::AddrNotAvailable, " (this host has no such address)"),
    ];
    HINTS.iter().find(|(kind, _)| *kind == error.kind()).map_or("", |(_, hint)| hint)
}

/// A socket that listens but is not accepted from yet. May be made on any thread, before privileges are dropped, and
/// handed to a shard.
#[derive(Debug)]
pub struct BoundListener {
    socket: OwnedFd,
    address: ListenAddress,
}

impl BoundListener {
    /// Binds and listens.
    pub fn bind(address: &ListenAddress, options: &ListenOptions) -> Result<Self, BindError> {
        let bound = match address {
            ListenAddress::Tcp(address) => bind_tcp(*address, options),
            ListenAddress::Unix { path, mode } => bind_unix(path, *mode, options),
        };
        bound.map_err(|error| BindError { address: address.clone(), error })
    }

    /// Where it listens: with the port that the kernel chose when asked for port 0.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// The TCP address, if it is one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self.address {
            ListenAddress::Tcp(address) => Some(address),
            ListenAddress::Unix { .. } => None,
        }
    }

    /// The same socket for another shard: whoever is first accepts.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, address: self.address.clone() })
    }
}

fn bind_tcp(address: SocketAddr, options: &ListenOptions) -> io::Result<BoundListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(options.v6_only)?;
    }
    // What is set here, the accepted sockets inherit: that saves a call for each.
    socket.set_tcp_nodelay(true)?;
    if let Some(every) = options.keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(every).with_interval(every))?;
    }
    socket.set_tcp_user_timeout(options.user_timeout)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(BoundListener { socket: socket.into(), address: ListenAddress::Tcp(address) })
}

fn bind_unix(path: &Path, mode: u32, options: &ListenOptions) -> io::Result<BoundListener> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        // Left over, unless somebody answers.
        let asking = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        match asking.connect(&address) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Ok(()) | Err(_) => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    socket.bind(&address)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let address = ListenAddress::Unix { path: path.to_owned(), mode };
    Ok(BoundListener { socket: socket.into(), address })
}

/// A listening socket of one shard.
#[derive(Debug)]
pub struct Listener {
    bound: BoundListener,
    /// Waits in the ring for the next connection, across calls of `accept`.
    readiness: RefCell<Option<TcpStream>>,
    shortages: Cell<u64>,
    stopped: Cell<bool>,
}

/// How long to wait when the host has no descriptors or memory left: connections wait in the backlog meanwhile.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

impl Listener {
    /// Takes the socket to the executor of this thread.
    pub fn new(bound: BoundListener) -> Self {
        Self { bound, readiness: RefCell::new(None), shortages: Cell::new(0), stopped: Cell::new(false) }
    }

    /// Waits for the next connection, which is owned from the instant the kernel hands it over. Dropping the future
    /// loses none.
    ///
    /// Connections that fail before they are accepted are passed over; when the host has no descriptors left, this
    /// waits until there are. Any error is for good, such as that of [`Listener::stop`].
    pub async fn accept(&self) -> io::Result<Stream> {
        loop {
            if self.stopped.get() {
                return Err(io::ErrorKind::NotConnected.into());
            }
            let error = match rustix::net::acceptfrom_with(&self.bound.socket, SocketFlags::CLOEXEC) {
                Ok((socket, from)) => {
                    let peer = from.and_then(|from| SocketAddr::try_from(from).ok());
                    return Ok(Stream::new(socket, peer.map_or(Peer::Unix, Peer::tcp)));
                }
                Err(Errno::AGAIN) => match self.ready().await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            match error {
                Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
                    self.shortages.set(self.shortages.get() + 1);
                    sleep(SHORTAGE_PAUSE).await;
                }
                // accept(2): errors of the connection, not of the listener.
                Errno::INTR
                | Errno::CONNABORTED
                | Errno::NETDOWN
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::PERM
                | Errno::TIMEDOUT => {}
                other => return Err(other.into()),
            }
        }
    }

    /// Accepts no more. Whoever waits in [`Listener::accept`] gets an error, and so do clients in the backlog.
    pub fn stop(&self) {
        self.stopped.set(true);
        let _ = rustix::net::shutdown(&self.bound.socket, rustix::net::Shutdown::Both);
    }

    /// Where it listens.
    pub fn address(&self) -> &ListenAddress {
        &self.bound.address
    }

    /// How often the host had no descriptors or memory left for a connection.
    pub fn shortages(&self) -> u64 {
        self.shortages.get()
    }

    /// Waits until there is somebody to accept, or may be.
    ///
    /// The runtime only accepts one connection for each turn of its ring, and changes flags of the socket around it.
    /// But it waits for readability of anything that it takes for a stream, and does so from the start.
    async fn ready(&self) -> Result<(), Errno> {
        if self.readiness.borrow().is_none() {
            let same = rustix::io::fcntl_dupfd_cloexec(self.bound.socket.as_fd(), 0)?;
            self.readiness.replace(Some(raw::adopt(same)));
        }
        poll_fn(|context| {
            let mut readiness = self.readiness.borrow_mut();
            let Some(stream) = &mut *readiness else { return Poll::Ready(()) };
            // Ready only once the wait is over: then it fails, since nothing can be read from a listening socket.
            match Pin::new(stream).poll_read(context, &mut [0]) {
                Poll::Ready(_) => {
                    *readiness = None;
                    Poll::Ready(())
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_explained() {
        let one = ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let alone = ListenOptions { reuse_port: false, ..ListenOptions::default() };
        let first = BoundListener::bind(&one, &alone).unwrap();
        let error = BoundListener::bind(first.address(), &alone).unwrap_err().to_string();
        assert!(error.contains("another program listens there"), "{error}");
        let elsewhere = ListenAddress::Tcp(SocketAddr::from(([192, 0, 2, 1], 0)));
        let error = BoundListener::bind(&elsewhere, &alone).unwrap_err().to_string();
        assert!(error.contains("no such address"), "{error}");
    }
}
