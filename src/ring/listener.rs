//! Listening sockets: bound before anything else starts, accepted from on each shard.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_lite::io::AsyncRead as _;
use glommio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use crate::address::{ListenAddress, Peer};
use crate::raw;
use crate::shortage::{SHORTAGE_PAUSE, is_shortage};
use crate::stream::Stream;
use crate::timer::{Elapsed, sleep, timeout};

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
    /// Who may open a Unix socket.
    pub unix: UnixAccess,
}

/// Who may open a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixAccess {
    /// Permission bits.
    pub mode: u32,
    /// The user it belongs to, unless it is the one of this process.
    pub owner: Option<u32>,
    /// The group it belongs to, unless it is the one of this process.
    pub group: Option<u32>,
}

impl Default for UnixAccess {
    fn default() -> Self {
        Self { mode: 0o660, owner: None, group: None }
    }
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            reuse_port: true,
            v6_only: false,
            keepalive: None,
            user_timeout: None,
            unix: UnixAccess::default(),
        }
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
            ListenAddress::Unix(path) => bind_unix(path, options),
        };
        bound.map_err(|error| BindError { address: address.clone(), error })
    }

    /// One that listens already.
    ///
    /// # Errors
    /// When it does not, or is neither TCP nor has it a path.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no stream socket that listens"));
        }
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let address = match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => {
                socket.set_tcp_nodelay(true)?;
                ListenAddress::Tcp(address)
            }
            (None, Some(path)) => ListenAddress::Unix(path.to_owned()),
            (None, None) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is neither TCP nor has it a path",
                ));
            }
        };
        Ok(Self { socket: socket.into(), address })
    }

    /// Where it listens: with the port that the kernel chose when asked for port 0.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// The TCP address, if it is one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self.address {
            ListenAddress::Tcp(address) => Some(address),
            ListenAddress::Unix(_) => None,
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

fn bind_unix(path: &Path, options: &ListenOptions) -> io::Result<BoundListener> {
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
    // Nobody gets in before it listens.
    let UnixAccess { mode, owner, group } = options.unix;
    if owner.is_some() || group.is_some() {
        chown(path, owner, group).map_err(|error| {
            io::Error::other(format!("it cannot be given to its owner and group: {error}"))
        })?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let address = ListenAddress::Unix(path.to_owned());
    Ok(BoundListener { socket: socket.into(), address })
}

impl AsFd for BoundListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A connection that no executor has yet. It may go to another thread, which takes it to its own by [`Stream::from`].
#[derive(Debug)]
pub struct Accepted {
    socket: OwnedFd,
    peer: Peer,
}

impl From<Accepted> for Stream {
    fn from(Accepted { socket, peer }: Accepted) -> Self {
        Self::new(socket, peer)
    }
}

/// What a listener leaves to others, and whom it tells that it has to.
#[derive(Default)]
pub struct AcceptOptions {
    /// Descriptors of the process that connections leave free: for files, for connections to others, and for whoever
    /// asks what is going on. At most half of those that are free when the listener is made, or would be under a limit
    /// changed since.
    pub reserve: u64,
    /// Told about each pause for lack of descriptors or memory, and that the last one is over.
    pub on_shortage: Option<Box<dyn Fn(Shortage)>>,
}

impl fmt::Debug for AcceptOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptOptions").field("reserve", &self.reserve).finish_non_exhaustive()
    }
}

/// The host has no descriptors or memory for connections. They wait in the backlog meanwhile.
#[derive(Debug)]
pub enum Shortage {
    /// Nobody is accepted for a moment.
    Pause(io::Error),
    /// All who waited are in, and nobody had to wait for a while.
    Over,
}

/// A listening socket of one shard.
#[derive(Debug)]
pub struct Listener {
    bound: BoundListener,
    options: AcceptOptions,
    /// How many descriptors the process may have.
    limit: fn() -> u64,
    /// How many it had when this was made.
    used: u64,
    /// The number of the first descriptor of the reserve. The kernel gives out the lowest number that is free: whoever
    /// gets one below knows that there are enough.
    ceiling: Cell<u64>,
    /// Waits in the ring for the next connection, across calls of `accept`.
    readiness: RefCell<Option<TcpStream>>,
    /// The last descriptor was one of the reserve: before the next one, see whether others are free by now.
    careful: Cell<bool>,
    /// Somebody had to wait, and it is not known yet whether all are in.
    paused: Cell<bool>,
    stopped: Cell<bool>,
}

/// How long nobody must come in vain until a shortage is over.
const SHORTAGE_OVER: Duration = Duration::from_secs(1);

impl Listener {
    /// Takes the socket to the executor of this thread.
    pub fn new(bound: BoundListener) -> Self {
        Self::with(bound, AcceptOptions::default())
    }

    /// The same, leaving something to others.
    pub fn with(bound: BoundListener, options: AcceptOptions) -> Self {
        Self::within(bound, options, descriptors_max)
    }

    fn within(bound: BoundListener, options: AcceptOptions, limit: fn() -> u64) -> Self {
        let used = lowest_free(&bound).unwrap_or(u64::MAX);
        Self {
            ceiling: Cell::new(ceiling(limit(), used, options.reserve)),
            bound,
            options,
            limit,
            used,
            readiness: RefCell::new(None),
            careful: Cell::new(false),
            paused: Cell::new(false),
            stopped: Cell::new(false),
        }
    }

    /// Waits for the next connection, and takes it to the executor of this thread: [`Listener::take`].
    pub async fn accept(&self) -> io::Result<Stream> {
        self.take().await.map(Stream::from)
    }

    /// Waits for the next connection, which is owned from the instant the kernel hands it over. Dropping the future
    /// loses none.
    ///
    /// Connections that fail before they are accepted are passed over; when no descriptors are left but the reserve,
    /// this waits until there are. Any error is for good, such as that of [`Listener::stop`].
    pub async fn take(&self) -> io::Result<Accepted> {
        loop {
            if self.stopped.get() {
                return Err(io::ErrorKind::NotConnected.into());
            }
            let error = match self.accept_now() {
                Ok(accepted) => return Ok(accepted),
                Err(Errno::AGAIN) => match self.wait().await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            match error {
                error if is_shortage(&error.into()) => {
                    self.careful.set(true);
                    self.paused.set(true);
                    self.tell(Shortage::Pause(error.into()));
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

    /// Accepts no more. Whoever waits in [`Listener::take`] gets an error, and so do clients in the backlog.
    pub fn stop(&self) {
        self.stopped.set(true);
        let _ = rustix::net::shutdown(&self.bound.socket, rustix::net::Shutdown::Both);
    }

    /// Where it listens.
    pub fn address(&self) -> &ListenAddress {
        &self.bound.address
    }

    fn accept_now(&self) -> Result<Accepted, Errno> {
        if self.careful.get() {
            if !self.is_somebody_waiting()? {
                return Err(Errno::AGAIN);
            }
            // The limit of a running process can be raised.
            self.ceiling.set(ceiling((self.limit)(), self.used, self.options.reserve));
            if lowest_free(&self.bound)? >= self.ceiling.get() {
                return Err(Errno::MFILE);
            }
        }
        let (socket, from) = rustix::net::acceptfrom_with(&self.bound.socket, SocketFlags::CLOEXEC)?;
        self.careful.set(number(&socket) >= self.ceiling.get());
        let peer = from.and_then(|from| SocketAddr::try_from(from).ok());
        Ok(Accepted { socket, peer: peer.map_or(Peer::Unix, Peer::tcp) })
    }

    fn is_somebody_waiting(&self) -> Result<bool, Errno> {
        let mut listening = [PollFd::new(&self.bound.socket, PollFlags::IN)];
        Ok(poll(&mut listening, Some(&Timespec::default()))? > 0)
    }

    /// Waits until there is somebody to accept, or may be. Tells the end of a shortage.
    async fn wait(&self) -> Result<(), Errno> {
        if self.paused.get() {
            match timeout(SHORTAGE_OVER, self.ready()).await {
                Ok(ready) => return ready,
                Err(Elapsed) => {
                    self.paused.set(false);
                    self.tell(Shortage::Over);
                }
            }
        }
        self.ready().await
    }

    fn tell(&self, shortage: Shortage) {
        if let Some(tell) = &self.options.on_shortage {
            tell(shortage);
        }
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

/// Where the reserve begins. Of few descriptors it takes no more than half: what is left must be enough to serve.
fn ceiling(limit: u64, used: u64, reserve: u64) -> u64 {
    limit - reserve.min(limit.saturating_sub(used) / 2)
}

fn number(descriptor: &OwnedFd) -> u64 {
    descriptor.as_raw_fd().try_into().expect("descriptors are not negative")
}

/// The number that the next descriptor will have.
fn lowest_free(bound: &BoundListener) -> Result<u64, Errno> {
    rustix::io::fcntl_dupfd_cloexec(&bound.socket, 0).map(|descriptor| number(&descriptor))
}

/// How many descriptors the process may have.
fn descriptors_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_lite::FutureExt as _;

    use super::*;
    use crate::testing::{connect, run};
    use crate::{Event, yield_now};

    static LIMIT: AtomicU64 = AtomicU64::new(0);
    const RESERVE: u64 = 10;

    /// What a listener has told.
    #[derive(Default)]
    struct Told {
        pauses: Cell<u32>,
        overs: Cell<u32>,
        event: Event,
    }

    /// One that may have some twenty descriptors more than there are, and leaves half of them to others.
    fn short_listener() -> (Listener, Rc<Told>) {
        let address = ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let bound = BoundListener::bind(&address, &ListenOptions::default()).unwrap();
        LIMIT.store(lowest_free(&bound).unwrap() + 2 * RESERVE, Ordering::Relaxed);
        let told = Rc::new(Told::default());
        let teller = Rc::clone(&told);
        let on_shortage = Box::new(move |shortage| {
            match shortage {
                Shortage::Pause(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                    teller.pauses.set(teller.pauses.get() + 1);
                }
                Shortage::Over => teller.overs.set(teller.overs.get() + 1),
            }
            teller.event.notify_all();
        });
        let options = AcceptOptions { reserve: RESERVE, on_shortage: Some(on_shortage) };
        (Listener::within(bound, options, || LIMIT.load(Ordering::Relaxed)), told)
    }

    /// Accepts until the listener tells something.
    async fn accept_until_told(listener: &Listener, told: &Told, accepted: &mut Vec<Stream>) {
        const PATIENCE: Duration = Duration::from_secs(60);
        let telling = async {
            loop {
                let news = told.event.wait();
                let next = async { Some(listener.accept().await.unwrap()) };
                let none = async {
                    news.await;
                    None
                };
                let Some(stream) = next.or(none).await else { return };
                accepted.push(stream);
            }
        };
        timeout(PATIENCE, telling).await.expect("the listener tells something");
    }

    #[test]
    fn a_reserve_is_left_and_nobody_is_lost() {
        const CLIENTS: usize = 3 * RESERVE as usize;
        run(|| async {
            let (listener, told) = short_listener();
            let mut clients = Vec::new();
            for _ in 0..CLIENTS {
                clients.push(connect(&listener).await);
            }
            // They are in this process and beyond the limit themselves: one is let in before that is seen.
            let mut accepted = Vec::new();
            accept_until_told(&listener, &told, &mut accepted).await;
            assert_eq!((accepted.len(), told.pauses.get(), told.overs.get()), (1, 1, 0));
            // Places are free again: so many go in, and one more.
            clients.drain(..2 * RESERVE as usize);
            let waiting = told.pauses.get();
            accept_until_told(&listener, &told, &mut accepted).await;
            assert!(told.pauses.get() > waiting);
            assert!((2..CLIENTS).contains(&accepted.len()), "{}", accepted.len());
            // The limit is raised: all are in, and that is told.
            LIMIT.fetch_add(1000, Ordering::Relaxed);
            accept_until_told(&listener, &told, &mut accepted).await;
            assert_eq!((accepted.len(), told.overs.get()), (CLIENTS, 1));
        });
    }

    #[test]
    fn nobody_waiting_is_no_shortage() {
        run(|| async {
            let (listener, told) = short_listener();
            let files: Vec<_> = (0..2 * RESERVE).map(|_| listener.bound.try_clone().unwrap()).collect();
            let client = connect(&listener).await;
            let server = listener.accept().await.unwrap();
            assert!(listener.careful.get());
            assert!(timeout(3 * SHORTAGE_PAUSE, listener.accept()).await.is_err());
            assert_eq!(told.pauses.get(), 0);
            drop((client, server, files));
            yield_now().await;
            let _client = connect(&listener).await;
            listener.accept().await.unwrap();
            assert!(!listener.careful.get());
            assert_eq!(told.pauses.get() + told.overs.get(), 0);
        });
    }

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
