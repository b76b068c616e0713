//! UDP: to one peer, or from anybody.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use futures_lite::io::{AsyncRead as _, AsyncWrite as _};
use glommio::net::{TcpStream, UdpSocket};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::executor::runtime_error;
use crate::raw;

/// A UDP socket that talks to one peer, from a port of the kernel's choice. Datagrams of others do not get in.
#[derive(Debug)]
pub struct Datagram {
    socket: RefCell<TcpStream>,
    local: SocketAddr,
}

impl Datagram {
    /// Binds to a free port, of that address if given.
    pub fn connect(to: SocketAddr, local: Option<IpAddr>) -> io::Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        if let Some(local) = local {
            rustix::net::bind(&socket, &SocketAddr::new(local, 0))?;
        }
        rustix::net::connect(&socket, &to)?;
        let local = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
        Ok(Self { socket: RefCell::new(raw::adopt(socket)), local })
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends one datagram.
    pub async fn send(&self, datagram: &[u8]) -> io::Result<()> {
        poll_fn(|context| Pin::new(&mut *self.socket.borrow_mut()).poll_write(context, datagram)).await?;
        Ok(())
    }

    /// Receives one datagram; what does not fit into the buffer is cut off. Dropping the future loses none. One task
    /// at a time may receive.
    ///
    /// Fails with [`io::ErrorKind::ConnectionRefused`] when the peer's host says that nobody listens there.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| Pin::new(&mut *self.socket.borrow_mut()).poll_read(context, buffer)).await
    }
}

/// Whether this host has the address: whether something could be sent from it.
///
/// # Errors
/// [`io::ErrorKind::AddrNotAvailable`] when it has not, and whatever else stands in the way.
pub fn has_address(address: IpAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(rustix::net::bind(&socket, &SocketAddr::new(address, 0))?)
}

/// A UDP socket that anybody may send to.
#[derive(Debug)]
pub struct DatagramServer {
    socket: UdpSocket,
}

impl DatagramServer {
    /// Binds to the address.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { socket: UdpSocket::bind(address).map_err(runtime_error)? })
    }

    /// Where.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr().map_err(runtime_error)
    }

    /// Receives one datagram. Unlike everything else here, to drop this future may lose one: give it a task that is
    /// never cancelled.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).await.map_err(runtime_error)
    }

    /// Sends one datagram.
    pub async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.socket.send_to(datagram, to).await.map_err(runtime_error)?;
        Ok(())
    }
}
