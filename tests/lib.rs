//! The end-to-end tests and the tidy test; this library holds what they share.
//!
//! ```no_run
//! use end_to_end::{Server, Sink};
//!
//! let sink = Sink::start();
//! let server = Server::start(&sink.route());
//! let mut client = server.client();
//! client.send("ann@example.org", &["bob@example.net"], "Subject: hello\r\n\r\nhello\r\n");
//! assert!(sink.mail().content.ends_with("hello\r\n"));
//! ```
//!
//! What is started here is on loopback, in a directory of its own, and ends with the test that started it: by its
//! process id, however the test ends. The test waits for what is said in a log, on a connection or by a process;
//! nothing here waits for time to pass, but everything has a bound, [`PATIENCE`].

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod client;
mod load;
mod place;
mod program;
mod server;
mod sink;

pub use client::{Client, Reply};
pub use load::{Comparison, LoadSink, LoadSource, compare, drain};
pub use place::{Place, built, connections, free_address, listens, tool, unpacked};
pub use program::{Finished, Process, Program, run};
pub use rustix::process::Signal;
pub use server::{Server, metric};
pub use sink::{Mail, Sink};

use std::{thread, time::Duration};

/// The longest that a test waits for anything: much longer than it takes, even in a debug build on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until `look` finds what it looks for. Only for what nobody tells of.
///
/// # Panics
/// When it takes longer than [`PATIENCE`].
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// As [`until`], with a bound of its own.
///
/// # Panics
/// When it takes longer.
pub fn until_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    const BETWEEN: Duration = Duration::from_millis(20);
    for _ in 0..patience.as_millis() / BETWEEN.as_millis() {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(BETWEEN);
    }
    panic!("{what}: not within {patience:?}");
}
