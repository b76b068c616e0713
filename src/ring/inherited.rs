//! Listening sockets that somebody has opened for us before we were started (sd_listen_fds(3)).

use std::collections::BTreeMap;
use std::env;
use std::io;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use crate::listener::BoundListener;
use crate::raw;

/// Sockets by the names that the manager gave them; several may have one name.
pub type Inherited = BTreeMap<String, Vec<BoundListener>>;

/// The first one; those behind it follow without a gap.
const FIRST: i32 = 3;

/// Takes the sockets over. Only the first call gets any: they are told of once.
///
/// # Errors
/// When one of them is no listening stream socket.
pub fn inherited() -> io::Result<Inherited> {
    static TAKEN: std::sync::Once = std::sync::Once::new();
    let mut count = 0;
    // What is meant for another process was left in the environment by one in between.
    TAKEN.call_once(|| {
        let said = |name: &str| env::var(name).ok();
        if said("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(std::process::id()) {
            count = said("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0);
        }
    });
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut inherited = Inherited::new();
    for number in FIRST..FIRST.saturating_add(count) {
        let name = names.next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        let bound = take(number).and_then(BoundListener::adopt).map_err(|error| {
            io::Error::new(error.kind(), format!("the socket `{name}` that was handed over: {error}"))
        })?;
        inherited.entry(name.to_owned()).or_default().push(bound);
    }
    Ok(inherited)
}

/// Owns a descriptor that is open; programs that we start do not get it.
fn take(number: i32) -> io::Result<OwnedFd> {
    let mut flags = fcntl_getfd(raw::number(number))?;
    flags.insert(FdFlags::CLOEXEC);
    let descriptor: BorrowedFd<'_> = raw::number(number);
    fcntl_setfd(descriptor, flags)?;
    Ok(raw::own(number))
}
