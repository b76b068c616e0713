//! What systemd is told (sd_notify(3)): that the server serves, and which process that is after an upgrade.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use crate::say::say;

/// The way to whoever started us; none when nobody wants to know.
#[derive(Debug)]
pub(crate) struct Notify(Option<UnixDatagram>);

impl Notify {
    /// Connects before the process is confined: from then on it talks to nobody new.
    pub(crate) fn connect() -> Self {
        let connected = env::var_os("NOTIFY_SOCKET").map(|name| connect(&name));
        Self(match connected {
            Some(Ok(socket)) => Some(socket),
            Some(Err(error)) => {
                say(&format!("ringpost: warning: NOTIFY_SOCKET cannot be reached: {error}"));
                None
            }
            None => None,
        })
    }

    /// The server serves, and this process is it.
    pub(crate) fn ready(&self) {
        self.say(&format!("READY=1\nMAINPID={}\n", std::process::id()));
    }

    /// This process is the server from now on, and not ready yet.
    pub(crate) fn is_ours(&self) {
        self.say(&format!("MAINPID={}\n", std::process::id()));
    }

    /// That other process is the server, as it was before.
    pub(crate) fn is_of(&self, pid: u32) {
        self.say(&format!("MAINPID={pid}\n"));
    }

    /// The server is about to end.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1\n");
    }

    /// What the server is at, for people.
    pub(crate) fn status(&self, text: &str) {
        self.say(&format!("STATUS={text}\n"));
    }

    fn say(&self, text: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(text.as_bytes())
        {
            tracing::warn!(%error, "the service manager does not hear us");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match name.as_bytes().strip_prefix(b"@") {
        // A name without a file.
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    Ok(socket)
}
