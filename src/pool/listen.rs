//! Sockets to listen on, and what to do when there are none.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::fd::OwnedFd,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}\n{remedy}")]
pub struct ListenError {
    address: String,
    error: io::Error,
    remedy: &'static str,
}

impl ListenError {
    pub(crate) fn new(address: impl fmt::Display, error: io::Error) -> Self {
        let remedy = remedy(error.kind());
        Self { address: address.to_string(), error, remedy }
    }
}

/// Listens on a TCP port.
pub(crate) fn tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        // A restart must not wait for connections of the last run to be forgotten.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|error| ListenError::new(address, error))
}

/// The socket that listens on that address already, if there is one among these.
pub(crate) fn take(handed: &mut Vec<OwnedFd>, address: SocketAddr) -> Option<Socket> {
    let at = handed.iter().position(|socket| {
        let bound = SockRef::from(socket).local_addr().ok().and_then(|bound| bound.as_socket());
        bound == Some(address)
    })?;
    let socket = Socket::from(handed.remove(at));
    // What it was for its last owner it still is; a runtime that waits in accept would be stuck.
    socket.set_nonblocking(true).ok().map(|()| socket)
}

/// Listens on the control socket, for our own user alone.
///
/// What is left over from a killed server is replaced: only one server at a time has the data
/// directory, and that is made sure of before this.
pub(crate) fn control(path: &Path) -> Result<(UnixListener, FileId), ListenError> {
    let open = || {
        if fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Between bind and listen nobody can connect, so nobody can before the mode is set.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        let file = FileId::of(path).ok_or(io::ErrorKind::NotFound)?;
        Ok((UnixListener::from_std(socket.into())?, file))
    };
    open().map_err(|error| ListenError::new(path.display(), error))
}

/// Which file it is, by whatever name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId(u64, u64);

impl FileId {
    /// None when there is none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        Some(Self(metadata.dev(), metadata.ino()))
    }
}

/// Removes the control socket; when that cannot be, the next start will.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "the control socket stays");
    }
}

/// Connections that wait to be taken.
const BACKLOG: i32 = 128;

fn remedy(kind: io::ErrorKind) -> &'static str {
    let is = |other| kind == other;
    if is(io::ErrorKind::AddrInUse) {
        "another program has it: see `ss -ltnp`, or choose another in http.address"
    } else if is(io::ErrorKind::PermissionDenied) {
        "ports below 1024 need CAP_NET_BIND_SERVICE, a socket a directory that we may write to"
    } else if is(io::ErrorKind::AddrNotAvailable) {
        "no interface of this host has the address: see `ip address`, and http.address"
    } else if is(io::ErrorKind::InvalidInput) {
        "the path of a socket has 107 bytes at most: choose a shorter data directory"
    } else if is(io::ErrorKind::NotFound) {
        "its directory does not exist: `ringpost init` makes the data directory"
    } else {
        "look at the limits of open files and memory, and at the data directory"
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[tokio::test]
    async fn the_control_socket_is_for_our_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let first = control(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(first);
        control(&path).expect("a left-over socket is replaced");
    }

    #[tokio::test]
    async fn a_file_is_not_taken_for_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        let error = control(&path).unwrap_err().to_string();
        assert!(error.contains("control.sock"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn what_is_wrong_is_named() {
        let taken = tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = taken.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        for (error, parts) in [
            (tcp(address).unwrap_err(), [&address.to_string()[..], "ss -ltnp"]),
            (tcp(SocketAddr::from(([192, 0, 2, 1], 0))).unwrap_err(), ["192.0.2.1", "http.address"]),
            (control(&dir.path().join("x".repeat(120))).unwrap_err(), ["xxx", "107 bytes"]),
            (control(&dir.path().join("none/control.sock")).unwrap_err(), ["none", "ringpost init"]),
        ] {
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }
}
