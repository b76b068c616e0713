//! Messages between processes of ours, with descriptors in them: how listening sockets change hands.
//!
//! Blocking, and for threads that may wait: no executor touches it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, sockopt,
};

/// One end of a connection that keeps messages apart. The other end of a process that is gone is seen as such.
#[derive(Debug)]
pub struct MessageSocket(OwnedFd);

/// Descriptors in one message; the kernel takes 253.
const DESCRIPTORS_MAX: usize = 64;
/// Octets of one message. The kernel's default for a socket is more.
const MESSAGE_MAX: usize = 64 << 10;

impl MessageSocket {
    /// Descriptors in one message.
    pub const DESCRIPTORS_MAX: usize = DESCRIPTORS_MAX;

    /// Both ends.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// An end that somebody else has made.
    ///
    /// # Errors
    /// When it is none.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        if sockopt::socket_type(&socket)? != SocketType::SEQPACKET {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is no socket that keeps messages apart",
            ));
        }
        Ok(Self(socket))
    }

    /// The same end once more.
    ///
    /// # Errors
    /// When there are no descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends a message; the other end gets copies of the descriptors.
    ///
    /// # Errors
    /// When the other end is gone, or the message is longer than one may be.
    pub fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if message.is_empty() || message.len() > MESSAGE_MAX || descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let slices = [IoSlice::new(message)];
        loop {
            match rustix::net::sendmsg(&self.0, &slices, &mut ancillary, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }

    /// Waits for the next message; none when the other end is gone.
    ///
    /// # Errors
    /// When a message is longer than one may be, or its descriptors find no place here.
    pub fn recv(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut message = vec![0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut slices = [IoSliceMut::new(&mut message)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.0, &mut slices, &mut ancillary, flags) {
                // The other end was closed with messages unread. That is told once, before what it had sent itself.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                received => break received?,
            }
        };
        let mut descriptors = Vec::new();
        for ancillary in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = ancillary {
                descriptors.extend(rights);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message came in part only"));
        }
        message.truncate(received.bytes);
        Ok((received.bytes > 0).then_some((message, descriptors)))
    }

    /// How long [`MessageSocket::send`] waits for an end that does not read, before it fails with
    /// [`io::ErrorKind::WouldBlock`].
    ///
    /// # Errors
    /// When the kernel does not take it.
    pub fn set_send_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Send, patience)?)
    }

    /// Ends the connection, whoever else holds a copy of this end.
    pub fn end(&self) {
        // It fails when it is over already.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }
}

impl AsFd for MessageSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<MessageSocket> for OwnedFd {
    fn from(socket: MessageSocket) -> Self {
        socket.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn messages_stay_apart_and_carry_descriptors() {
        let (one, other) = MessageSocket::pair().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        one.send(b"first", &[]).unwrap();
        one.send(b"second", &[far.as_fd(), far.as_fd()]).unwrap();
        drop(far);
        assert_eq!(other.recv().unwrap().unwrap().0, b"first");
        let (message, mut descriptors) = other.recv().unwrap().unwrap();
        assert_eq!((&message[..], descriptors.len()), (&b"second"[..], 2));
        let mut carried = UnixStream::from(descriptors.remove(0));
        drop(descriptors);
        carried.write_all(b"through").unwrap();
        drop(carried);
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        drop(one);
        assert!(other.recv().unwrap().is_none());
    }

    #[test]
    fn an_end_that_is_gone_is_seen() {
        let (one, other) = MessageSocket::pair().unwrap();
        other.send(b"nobody reads this", &[]).unwrap();
        let kept = one.try_clone().unwrap();
        one.end();
        assert!(other.recv().unwrap().is_none());
        assert_eq!(other.send(b"late", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(kept);
        let (one, _other) = MessageSocket::pair().unwrap();
        assert!(one.send(&[], &[]).is_err() && one.send(&vec![0; MESSAGE_MAX + 1], &[]).is_err());
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(MessageSocket::adopt(stream.into()).is_err());
    }
}
