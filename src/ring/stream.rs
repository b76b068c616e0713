//! A connection: TCP or Unix, opened or accepted.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::io::{AsyncRead as _, AsyncWrite as _};
use glommio::net::TcpStream;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use socket2::{SockRef, TcpKeepalive};

use crate::address::Peer;
use crate::clock;
use crate::deadline::{Deadline, Side};
use crate::executor::{Streak, yield_now};
use crate::raw;
use crate::shortage::{SHORTAGE_PAUSE, is_shortage};
use crate::timer::{sleep, timeout};

/// How to open a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions {
    /// Which of this host's addresses to come from.
    pub local: Option<IpAddr>,
    /// How long it may take.
    pub timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        // RFC 5321 §4.5.3.2.1 counts from here to the greeting: 5 minutes. Hosts that answer do so in seconds.
        Self { local: None, timeout: Duration::from_secs(30) }
    }
}

/// A connection. Closed when dropped: what was written is still sent, what was not read is lost.
///
/// Reading and writing take `&self`, so one task may write while another reads; but only one at a time may read, and
/// one write.
#[derive(Debug)]
pub struct Stream {
    socket: RefCell<TcpStream>,
    peer: Peer,
    deadline: Deadline,
    streak: Streak,
    half_closed: Cell<bool>,
}

/// The most slices one call to the kernel carries.
const SLICES_MAX: usize = 64;

impl Stream {
    /// Opens a TCP connection. While there is no descriptor for it, this waits.
    pub async fn connect(to: SocketAddr, options: ConnectOptions) -> io::Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = open(family, options.timeout).await?;
        SockRef::from(&socket).set_tcp_nodelay(true)?;
        if let Some(local) = options.local {
            // The port is chosen at connect, so that one address serves more than 64 thousand connections.
            raw::bind_without_port(&socket);
            rustix::net::bind(&socket, &SocketAddr::new(local, 0))?;
        }
        match rustix::net::connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let stream = Self::new(socket, Peer::tcp(to));
        // To send nothing waits for the handshake like any other send, and then tells how it went.
        let connected = poll_fn(|context| {
            let mut socket = stream.socket.borrow_mut();
            Pin::new(&mut *socket).poll_write(context, &[])
        });
        match timeout(options.timeout, connected).await {
            Ok(result) => result.map(|_| stream),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Opens a connection to a Unix socket.
    pub async fn connect_unix(path: &Path, wait: Duration) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let connected = async {
            loop {
                let socket = open(AddressFamily::UNIX, wait).await?;
                match rustix::net::connect(&socket, &address) {
                    Ok(()) => return Ok(Self::new(socket, Peer::Unix)),
                    // The listener's queue is full, and nothing tells when it no longer is.
                    Err(Errno::AGAIN) => sleep(Duration::from_millis(10)).await,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        timeout(wait, connected).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    pub(crate) fn new(socket: OwnedFd, peer: Peer) -> Self {
        Self {
            socket: RefCell::new(raw::adopt(socket)),
            peer,
            deadline: Deadline::new(),
            streak: Streak::default(),
            half_closed: Cell::new(false),
        }
    }

    /// The other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Our end, for TCP.
    pub fn local(&self) -> Option<SocketAddr> {
        let socket = self.socket.borrow();
        let address = rustix::net::getsockname(raw::borrow(&*socket)).ok()?;
        let address = SocketAddr::try_from(address).ok()?;
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// Until when what waits on this connection must have happened.
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }

    /// Receives into the buffer. Zero means that the peer will send nothing more.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        poll_fn(|context| {
            if let Err(error) = self.deadline.check(Side::Reader, context) {
                return Poll::Ready(Err(error));
            }
            self.poll_read(context, buffer)
        })
        .await
    }

    /// The buffer must have room: to receive nothing looks like the end.
    pub(crate) fn poll_read(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        debug_assert!(!buffer.is_empty(), "no room to receive into");
        let mut socket = self.socket.borrow_mut();
        let received = Pin::new(&mut *socket).poll_read(context, buffer);
        if received.is_pending() {
            self.streak.end();
        }
        received
    }

    /// Sends what the kernel takes without a wait, which is all of it unless the peer is slow. Says how much.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.deadline.expired() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        loop {
            match self.send(&Rest { slices: &[bytes], sent: 0 }) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.streak.end();
                    return Ok(0);
                }
                sent => return Ok(sent?),
            }
        }
    }

    /// Sends all of it.
    pub async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_slices(&[bytes]).await
    }

    /// Sends all of them, many with one call to the kernel. When dropped, an unknown part has been sent.
    pub async fn write_slices(&self, slices: &[impl AsRef<[u8]>]) -> io::Result<()> {
        let mut rest = Rest { slices, sent: 0 };
        loop {
            rest.skip_empty();
            let Some(first) = rest.first() else { return Ok(()) };
            if self.deadline.expired() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let sent = match self.send(&rest) {
                Ok(sent) => sent,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.streak.end();
                    poll_fn(|context| self.poll_write(context, first)).await?
                }
                Err(error) => return Err(error.into()),
            };
            rest.advance(sent);
            if rest.first().is_some() {
                self.breathe().await;
            }
        }
    }

    fn send(&self, rest: &Rest<'_, impl AsRef<[u8]>>) -> Result<usize, Errno> {
        let socket = self.socket.borrow();
        let socket = raw::borrow(&*socket);
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if let ([_], Some(only)) = (rest.slices, rest.first()) {
            return rustix::net::send(socket, only, flags);
        }
        let mut vectors = [IoSlice::new(&[]); SLICES_MAX];
        let count = rest.vectors(&mut vectors);
        rustix::net::sendmsg(
            socket,
            &vectors[..count],
            &mut rustix::net::SendAncillaryBuffer::default(),
            flags,
        )
    }

    fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Err(error) = self.deadline.check(Side::Writer, context) {
            return Poll::Ready(Err(error));
        }
        let mut socket = self.socket.borrow_mut();
        Pin::new(&mut *socket).poll_write(context, bytes)
    }

    /// Lets others run when this connection has gone on for long without ever waiting.
    pub(crate) async fn breathe(&self) {
        if self.streak.step() {
            // Boxed: whoever waits here mostly does so for the peer.
            Box::pin(yield_now()).await;
        }
    }

    /// Says that we send nothing more; the peer may.
    pub fn shutdown_write(&self) -> io::Result<()> {
        if self.half_closed.replace(true) {
            return Ok(());
        }
        let socket = self.socket.borrow();
        Ok(rustix::net::shutdown(raw::borrow(&*socket), Shutdown::Write)?)
    }

    /// Closes so that the peer gets what was sent last even while it still sends: to close with bytes unread resets
    /// the connection, and the reset overtakes the reply.
    pub async fn close_gently(self, patience: Duration) {
        if self.shutdown_write().is_ok() {
            let drained = async {
                let mut waste = [0; 4096];
                while let Ok(1..) = self.read(&mut waste).await {
                    // Who sends without end must not keep the others waiting.
                    self.breathe().await;
                }
            };
            self.deadline.clear();
            let _ = timeout(patience, drained).await;
        }
    }

    /// Closes with a reset: the peer learns that something went wrong, and no state is kept here.
    pub fn abort(self) {
        let socket = self.socket.borrow();
        let socket = raw::borrow(&*socket);
        // Past errors: the socket is closed all the same.
        let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        self.half_closed.set(true);
    }

    /// Gives up after that long without an acknowledgement of what was sent (TCP_USER_TIMEOUT).
    pub fn set_user_timeout(&self, limit: Duration) -> io::Result<()> {
        let socket = self.socket.borrow();
        SockRef::from(&raw::borrow(&*socket)).set_tcp_user_timeout(Some(limit))
    }

    /// Asks a silent peer every so often whether it is still there.
    pub fn set_keepalive(&self, every: Duration) -> io::Result<()> {
        let socket = self.socket.borrow();
        let keepalive = TcpKeepalive::new().with_time(every).with_interval(every);
        SockRef::from(&raw::borrow(&*socket)).set_tcp_keepalive(&keepalive)
    }

    /// Bounds of the kernel's own buffers, receive and send. Mostly for tests.
    pub fn set_kernel_buffers(&self, receive: usize, send: usize) -> io::Result<()> {
        let socket = self.socket.borrow();
        let socket = raw::borrow(&*socket);
        let socket = SockRef::from(&socket);
        socket.set_recv_buffer_size(receive)?;
        socket.set_send_buffer_size(send)
    }

    /// Whether the kernel sends at once what it is given. Always so for TCP.
    pub fn nodelay(&self) -> io::Result<bool> {
        let socket = self.socket.borrow();
        SockRef::from(&raw::borrow(&*socket)).tcp_nodelay()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A ring that still waits for this socket keeps it open until its next round; the peer should not have to wait
        // for that.
        let _ = self.shutdown_write();
    }
}

/// A new socket. Descriptors come back: who finds none looks again for as long as `patience` lasts.
async fn open(family: AddressFamily, patience: Duration) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let until = clock::now().saturating_add(patience);
    loop {
        match rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(io::Error::from) {
            Err(error) if is_shortage(&error) && clock::now() < until => sleep(SHORTAGE_PAUSE).await,
            opened => return opened,
        }
    }
}

/// What remains of a list of slices.
struct Rest<'a, T> {
    slices: &'a [T],
    /// Of the first slice, so much is sent.
    sent: usize,
}

impl<'a, T: AsRef<[u8]>> Rest<'a, T> {
    fn first(&self) -> Option<&'a [u8]> {
        self.slices.first().map(|slice| &slice.as_ref()[self.sent..])
    }

    fn skip_empty(&mut self) {
        while self.first().is_some_and(<[u8]>::is_empty) {
            self.slices = &self.slices[1..];
            self.sent = 0;
        }
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let first = self.first().expect("no more is sent than was given").len();
            if count < first {
                self.sent += count;
                return;
            }
            count -= first;
            self.slices = &self.slices[1..];
            self.sent = 0;
        }
        self.skip_empty();
    }

    fn vectors(&self, vectors: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let whole = self.slices.iter().skip(1).map(|slice| slice.as_ref());
        let mut count = 0;
        for (vector, slice) in vectors.iter_mut().zip(self.first().into_iter().chain(whole)) {
            *vector = IoSlice::new(slice);
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_of_slices() {
        let slices: [&[u8]; 5] = [b"", b"abc", b"", b"de", b""];
        for step in 1..=5 {
            let mut rest = Rest { slices: &slices, sent: 0 };
            let mut seen = Vec::new();
            rest.skip_empty();
            while rest.first().is_some() {
                let mut vectors = [IoSlice::new(&[]); SLICES_MAX];
                let count = rest.vectors(&mut vectors);
                let all: Vec<u8> =
                    vectors[..count].iter().flat_map(|vector| vector.iter().copied()).collect();
                let sent = step.min(all.len());
                seen.extend_from_slice(&all[..sent]);
                rest.advance(sent);
            }
            assert_eq!(seen, b"abcde", "{step} at a time");
        }
    }
}
