//! The command line's end: one request over the control socket.
//!
//! HTTP/1.0 (RFC 1945) with our own server at the other end: the answer ends where the connection
//! does, so there is nothing to frame.

use std::{
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};

use crate::operations::ANSWER_MAX;

/// The server could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket there.
    #[error(
        "no server runs here: there is no control socket at {0}\n\
         start it with `ringpost serve`, or name the configuration it runs with: --config FILE"
    )]
    NoSocket(PathBuf),
    /// A socket, but nobody behind it.
    #[error(
        "no server answers at {0}: the socket is left over from one that was killed\n\
         start it with `ringpost serve`; what it had accepted is in its journal"
    )]
    NobodyListens(PathBuf),
    /// Not for this user.
    #[error(
        "not allowed to use {0}: the control socket is for the server's own user\n\
         run this as that user or as root: sudo -u USER ringpost queue …"
    )]
    NotAllowed(PathBuf),
    /// The connection broke.
    #[error("cannot talk to the server at {path}: {error}\nis it stopping? look at its log")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Not an answer of ours.
    #[error("what answers at {0} is no ringpost of this version\nuse the program the server runs with")]
    Foreign(PathBuf),
    /// The server said no.
    #[error("{detail}\n{remedy}")]
    Refused {
        /// What is wrong.
        detail: String,
        /// What to do.
        remedy: String,
    },
}

/// The other end of the control socket.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    socket: &'a Path,
}

#[derive(Deserialize)]
struct ProblemBody {
    detail: String,
    remedy: String,
}

/// No page of ours is longer.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

impl<'a> Client<'a> {
    pub(crate) const fn new(socket: &'a Path) -> Self {
        Self { socket }
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(&format!("GET {path} HTTP/1.0\r\nHost: ringpost\r\n\r\n"))
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str, body: &str) -> Result<T, ClientError> {
        let length = body.len();
        self.ask(&format!(
            "POST {path} HTTP/1.0\r\nHost: ringpost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    pub(crate) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(&format!("DELETE {path} HTTP/1.0\r\nHost: ringpost\r\n\r\n"))
    }

    fn ask<T: DeserializeOwned>(&self, request: &str) -> Result<T, ClientError> {
        let answer = self.exchange(request).map_err(|error| self.explain(error))?;
        let foreign = || ClientError::Foreign(self.socket.to_owned());
        let (status, body) = parse(&answer).ok_or_else(foreign)?;
        if matches!(status, 200 | 202) {
            return serde_json::from_slice(body).map_err(|_| foreign());
        }
        let ProblemBody { detail, remedy } = serde_json::from_slice(body).map_err(|_| foreign())?;
        Err(ClientError::Refused { detail, remedy })
    }

    fn exchange(&self, request: &str) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(self.socket)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    }

    fn explain(&self, error: io::Error) -> ClientError {
        let path = self.socket.to_owned();
        let is = |kind| error.kind() == kind;
        if is(io::ErrorKind::NotFound) {
            ClientError::NoSocket(path)
        } else if is(io::ErrorKind::ConnectionRefused) {
            ClientError::NobodyListens(path)
        } else if is(io::ErrorKind::PermissionDenied) {
            ClientError::NotAllowed(path)
        } else {
            ClientError::Io { path, error }
        }
    }
}

/// Status and body of an answer.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let status = answer.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    let status = std::str::from_utf8(status).ok()?.parse().ok()?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    Some((status, &answer[end + 4..]))
}

/// A path with a query, in which every value stands for itself.
pub(crate) fn with_query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let mut text = path.to_owned();
    let given = parameters.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    for (i, (name, value)) in given.enumerate() {
        text.push(if i == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(byte.into());
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn queries_are_quoted() {
        let parameters =
            [("id", None), ("sender", Some("a+b&c=@x.example".to_owned())), ("limit", Some("7".to_owned()))];
        assert_eq!(with_query("/q", &parameters), "/q?sender=a%2Bb%26c%3D%40x.example&limit=7");
        assert_eq!(with_query("/q", &[]), "/q");
    }

    #[test]
    fn answers_are_taken_apart() {
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody"), Some((200, &b"body"[..])));
        for broken in
            ["", "HTTP/1.1", "HTTP/1.1 200 OK\r\n", "SMTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"]
        {
            assert_eq!(parse(broken.as_bytes()), None, "{broken:?}");
        }
    }

    #[test]
    fn a_missing_server_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let ask = || Client::new(&path).get::<()>("/").unwrap_err();
        assert!(matches!(ask(), ClientError::NoSocket(_)));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(matches!(ask(), ClientError::NobodyListens(_)));
    }
}
