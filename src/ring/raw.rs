//! The places where a bare descriptor changes hands.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use glommio::net::TcpStream;

/// Gives an owned descriptor to the runtime, which closes it when the stream is dropped.
///
/// The runtime only ever calls `recv`, `send`, `shutdown`, poll and `close` on it, none of which cares for the
/// address family: Unix sockets and connected UDP sockets are adopted as well.
#[expect(unsafe_code, reason = "the runtime takes descriptors by number only")]
pub(crate) fn adopt(descriptor: OwnedFd) -> TcpStream {
    // SAFETY: the number comes out of an OwnedFd that ends here, so it is open and nobody else closes it.
    unsafe { TcpStream::from_raw_fd(descriptor.into_raw_fd()) }
}

/// Looks at the descriptor of something that keeps it open.
#[expect(unsafe_code, reason = "the runtime shows its descriptors by number only")]
pub(crate) fn borrow(owner: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: every owner passed here closes its descriptor no earlier than its own drop, and the result borrows
    // the owner.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

/// Looks at a descriptor that may not be open: then every call says so.
#[expect(unsafe_code, reason = "whoever started us says numbers only")]
pub(crate) fn number(number: i32) -> BorrowedFd<'static> {
    // SAFETY: it is not -1, is asked for its flags alone, and what is not open fails.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Owns a descriptor that was handed over by whoever started us.
#[expect(unsafe_code, reason = "whoever started us says numbers only")]
pub(crate) fn own(number: i32) -> OwnedFd {
    // SAFETY: the manager gave it to this process, which has opened none of that number: it asks once, before it opens
    // any.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Has the port chosen at connect instead of at bind, so that one address serves more than 64 thousand connections.
#[expect(unsafe_code, reason = "there is no safe call for this option")]
pub(crate) fn bind_without_port(socket: &OwnedFd) {
    let yes: libc::c_int = 1;
    // SAFETY: the option takes a c_int, which lives until the call returns. It works for IPv6 as well, and where it
    // does not, connecting does without.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const yes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
}
