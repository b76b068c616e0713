//! io_uring, buffers, timers, the clock; the only unsafe code.
//!
//! A shard is one thread with one executor on it. [`start`] makes it; everything else here is called from inside,
//! and nothing that it hands out leaves the thread but [`bytes::Bytes`] slices, [`BoundListener`]s, [`Accepted`]s and
//! [`Pool`]s.
//!
//! What the runtime underneath would let go wrong is dealt with here once, so that no caller has to know:
//!
//! - A wait for a connection, for bytes or for a datagram takes nothing out of the kernel before its caller is
//!   there to receive it. Dropping such a future, under [`timeout`] or otherwise, loses nothing.
//! - [`spawn`] never polls the new task before it returns; a borrow held across it is harmless.
//! - [`spawn_caught`] ends one task when it panics; a panic in any other task ends the executor.
//! - A connection that waits for bytes holds no buffer ([`Input`]).
//! - An executor that falls asleep over work that is waiting is woken (`watchdog.rs`).
//! - A descriptor is owned from the instant it exists ([`Listener::accept`] included).

mod address;
mod chunk;
pub mod clock;
mod datagram;
mod deadline;
mod durable;
mod event;
mod executor;
mod file;
mod inherited;
mod input;
mod listener;
mod message_socket;
mod pool;
mod probe;
mod raw;
mod setup;
mod shortage;
mod stream;
mod timer;
mod watchdog;

pub use address::{ListenAddress, Peer};
pub use datagram::{Datagram, DatagramServer, has_address};
pub use deadline::Deadline;
pub use durable::{BLOCK, DurableFile, Writing};
pub use event::{Event, Permit, Semaphore, Waiting};
pub use executor::{
    Handle, Options, StartError, Stats, Stopped, Task, blocking, spawn, spawn_caught, spawn_task, start,
    stats, yield_if_needed, yield_now,
};
pub use file::{
    DirectoryLock, Entry, File, LockError, OpenMode, create_directory, list, remove, rename, sync_directory,
};
pub use inherited::{Inherited, inherited};
pub use input::Input;
pub use listener::{
    AcceptOptions, Accepted, BindError, BoundListener, ListenOptions, Listener, Shortage, UnixAccess,
};
pub use message_socket::MessageSocket;
pub use pool::{Pool, PoolOptions, PoolStats};
pub use probe::{ProbeError, probe};
pub use setup::cooperates;
pub use shortage::patiently;
pub use stream::{ConnectOptions, Stream};
pub use timer::{Elapsed, sleep, timeout};

#[cfg(test)]
mod durable_test;
#[cfg(test)]
mod executor_test;
#[cfg(test)]
mod file_test;
#[cfg(test)]
mod input_test;
#[cfg(test)]
mod stream_test;
#[cfg(test)]
mod testing;
