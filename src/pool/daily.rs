//! Once a day: what shards have counted is told to the domains that ask for it (RFC 8460, RFC 9990).
//!
//! A day is one of UTC (RFC 8460 §4.1, RFC 9990 §3.1.1.4). What was counted is taken from the shards at its end, so that days are told
//! apart; it goes out later, at a moment drawn by chance, so that not all servers of the world report at once. Until then it is kept
//! over a stop.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bridge::{Door, Injection};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use mail::{Address, BodyType, ReversePath, Timestamp, Utf8};
use tokio::sync::Notify;

use crate::counts::{Counts, Day, Tallied, midnight_after};

/// How something is told.
pub(crate) trait Telling: Send + Sync + 'static {
    /// What is counted for it.
    type Tally: Tallied;

    /// Within which time after midnight it is; none when it is not.
    fn within(&self) -> Option<Duration>;

    /// Days that may wait to be told; an operator may end one at any time.
    fn days_max(&self) -> usize;

    /// Tells it, within that time from now, and then forgets the day.
    fn tell(
        self: Arc<Self>,
        door: Door,
        counts: Counts<Self::Tally>,
        day: (u64, Day<Self::Tally>),
        within: Duration,
    ) -> impl Future<Output = ()> + Send;
}

/// What a crash may lose.
const COLLECT_EVERY: Duration = Duration::from_secs(60);

/// Tells each day, as `telling` says by then; ends one at once when `now` is notified.
pub(crate) async fn run<T: Telling>(
    door: Door,
    telling: Arc<ArcSwap<T>>,
    now: Arc<Notify>,
    counts: Counts<T::Tally>,
) {
    let (mut midnight, mut next) = (midnight_after(counts.now()), 0);
    let mut pause = Pause::Drawn;
    loop {
        for (number, day) in counts.over(next).await {
            next = number + 1;
            let settings = telling.load_full();
            match (settings.within(), pause) {
                (Some(_), Pause::None) => {
                    tokio::spawn(settings.tell(door.clone(), counts.clone(), (number, day), Duration::ZERO));
                }
                (Some(within), Pause::Drawn) => {
                    tokio::spawn(settings.tell(door.clone(), counts.clone(), (number, day), within));
                }
                (None, Pause::None | Pause::Drawn) => counts.forget(number).await,
            }
        }
        let wait = midnight.saturating_since(counts.now()).min(COLLECT_EVERY);
        let asked = tokio::time::timeout(wait, now.notified()).await.is_ok();
        counts.collect(&door).await;
        if asked {
            counts.end(counts.now(), telling.load().days_max()).await;
            pause = Pause::None;
        } else if counts.now() >= midnight {
            // The last second of the day, not the first of the next.
            let end = Timestamp(midnight.0.saturating_sub(1_000_000));
            counts.end(end, telling.load().days_max()).await;
            midnight = midnight_after(counts.now());
            pause = Pause::Drawn;
        }
    }
}

/// How long a day that is over waits.
#[derive(Clone, Copy)]
enum Pause {
    None,
    Drawn,
}

/// Some part of it.
pub(crate) fn drawn(of: Duration) -> Duration {
    of.mul_f64(f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX))
}

/// The date of a report.
pub(crate) fn date(now: Timestamp) -> String {
    String::from_utf8_lossy(message::date::date_text(now).as_ref()).into_owned()
}

/// A report goes through our own queue, as any mail.
pub(crate) async fn queue(door: &Door, bringer: &str, to: &Address, content: Vec<u8>) -> Result<(), String> {
    let injection = Injection {
        bringer: bringer.into(),
        client: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        // Nobody wants to know that a report could not be delivered.
        reverse_path: ReversePath::Null,
        recipients: vec![to.clone()],
        content: Bytes::from(content),
        body: BodyType::SevenBit,
        utf8: Utf8::NotNeeded,
    };
    match door.inject(injection).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(declined)) => Err(format!("{} {}", declined.code, declined.text)),
        Err(error) => Err(error.to_string()),
    }
}

/// In gzip, as both RFCs ask for.
pub(crate) fn compressed(text: &str) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn the_pause_is_drawn() {
        assert!((0..100).all(|_| drawn(Duration::from_secs(60)) <= Duration::from_secs(60)));
        assert_eq!(drawn(Duration::ZERO), Duration::ZERO);
    }
}
