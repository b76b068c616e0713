//! Sleeping, and giving up.

use std::future::Future;
use std::time::Duration;

use futures_lite::FutureExt as _;
use glommio::timer::Timer;

/// Waits that long.
pub async fn sleep(duration: Duration) {
    Timer::new(duration).await;
}

/// The time was up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// Waits for the future, but no longer than that; then it is dropped.
///
/// Everything that waits in this room survives being dropped: what it waited for is there for the next who asks.
/// A read for a whole line or a `write_all` that is dropped half-way has still done its half. For the phases of a
/// connection use its [`crate::Deadline`], which costs no timer.
pub async fn timeout<T>(duration: Duration, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    let done = async { Ok(future.await) };
    let late = async {
        sleep(duration).await;
        Err(Elapsed)
    };
    done.or(late).await
}
