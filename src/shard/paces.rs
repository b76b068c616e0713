//! Paces: how fast the host may send to a site, and open connections there.
//!
//! A rate is a pace: so many in a minute is one each so often, with a second's worth at once. Who counts in windows, whatever
//! they are, never counts more than that, and a restart forgets nothing that matters. For each site the time is kept at
//! which the next one is due (the virtual scheduling of ITU-T I.371, known as GCRA), in one table of the host: exact, and
//! touched for messages of limited sites alone. While two servers are there, one of which takes over from the other, each goes at
//! half the pace.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use config::Rate;

/// When the next one may go, for each site.
#[derive(Debug)]
pub(crate) struct Paces {
    hasher: RandomState,
    /// How many servers of the host go at the pace, together.
    servers: AtomicU32,
    parts: Box<[Mutex<Part>]>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Counted {
    /// Transactions.
    Messages,
    /// Connections.
    Connections,
}

#[derive(Debug, Default)]
struct Part {
    /// When the next one is due.
    due: HashMap<(Counted, Box<str>), Duration>,
    /// With so many it is looked whose time has come.
    sweep_at: usize,
}

const PARTS: usize = 16;
/// With more sites in a part, those whose time has come are forgotten.
const PART_MAX: usize = 4096;

impl Default for Paces {
    fn default() -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { hasher: RandomState::new(), servers: AtomicU32::new(1), parts }
    }
}

impl Paces {
    /// So many servers share every pace from now on, each in the same part.
    pub(crate) fn share(&self, servers: u32) {
        self.servers.store(servers.max(1), Relaxed);
    }

    /// This server's part of a rate.
    fn part_of(&self, Rate { count, per }: Rate) -> Rate {
        Rate { count, per: per.saturating_mul(self.servers.load(Relaxed)) }
    }

    /// Takes one, or says how long there is none.
    pub(crate) fn take(&self, what: Counted, site: &str, rate: Rate, now: Duration) -> Result<(), Duration> {
        let (mut part, rate) = (self.part(site), self.part_of(rate));
        let wait = wait(&part, what, site, rate, now);
        if wait.is_zero() {
            charge(&mut part, what, site, rate, now);
            Ok(())
        } else {
            Err(wait)
        }
    }

    /// One was taken, whether there was one or not: the next ones wait for it.
    pub(crate) fn charge(&self, what: Counted, site: &str, rate: Rate, now: Duration) {
        charge(&mut self.part(site), what, site, self.part_of(rate), now);
    }

    /// How long there is none.
    pub(crate) fn wait(&self, what: Counted, site: &str, rate: Rate, now: Duration) -> Duration {
        wait(&self.part(site), what, site, self.part_of(rate), now)
    }

    /// How many there are now.
    pub(crate) fn available(&self, what: Counted, site: &str, rate: Rate, now: Duration) -> u32 {
        let rate = self.part_of(rate);
        let due = self.part(site).due.get(&(what, site.into())).copied().unwrap_or_default().max(now);
        let room = (now + burst(rate)).saturating_sub(due);
        let more = room.as_nanos() / interval(rate).as_nanos().max(1);
        if due > now + burst(rate) { 0 } else { u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1) }
    }

    fn part(&self, site: &str) -> MutexGuard<'_, Part> {
        let part = self.hasher.hash_one(site) as usize % PARTS;
        // Nothing in here is left half done.
        self.parts[part].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between two.
fn interval(rate: Rate) -> Duration {
    rate.per / rate.count
}

/// How much sooner than due one may go: a second's worth at once.
fn burst(rate: Rate) -> Duration {
    const SECOND: Duration = Duration::from_secs(1);
    SECOND.saturating_sub(interval(rate))
}

fn wait(part: &Part, what: Counted, site: &str, rate: Rate, now: Duration) -> Duration {
    let due = part.due.get(&(what, site.into())).copied().unwrap_or_default();
    due.saturating_sub(now + burst(rate))
}

fn charge(part: &mut Part, what: Counted, site: &str, rate: Rate, now: Duration) {
    if part.due.len() >= part.sweep_at.max(PART_MAX) {
        part.due.retain(|_, due| *due > now);
        part.sweep_at = part.due.len() * 2;
    }
    let due = part.due.entry((what, site.into())).or_default();
    *due = (*due).max(now) + interval(rate);
}

#[cfg(test)]
mod test {
    use super::*;

    fn rate(count: u32, secs: u64) -> Rate {
        Rate { count, per: Duration::from_secs(secs) }
    }

    /// Whoever asks whenever there is one gets exactly the rate, over any time.
    #[test]
    fn a_pace_is_kept_over_any_time() {
        for rate in [rate(10, 1), rate(100, 60), rate(7, 3600), rate(5000, 86_400), rate(3, 1)] {
            let (paces, mut now, mut taken) = (Paces::default(), Duration::from_secs(1000), Vec::new());
            while taken.len() < 500 {
                match paces.take(Counted::Messages, "a", rate, now) {
                    Ok(()) => taken.push(now),
                    Err(wait) => now += wait,
                }
            }
            let count = rate.count as usize;
            let at_once = taken.iter().filter(|at| **at == taken[0]).count();
            assert!(
                at_once <= count.max(1)
                    && at_once as u64 <= u64::from(rate.count) / rate.per.as_secs().max(1) + 1
            );
            // In no window of its length there are more than the rate and what may go at once.
            for (place, at) in taken.iter().enumerate() {
                let within = taken[place..].iter().take_while(|other| **other < *at + rate.per).count();
                assert!(within <= count + at_once, "{rate}: {within}");
            }
            // And what may be sent is sent.
            let took = (*taken.last().unwrap() - taken[0]).as_secs_f64();
            let least = (500 - at_once) as f64 * rate.per.as_secs_f64() / count as f64;
            assert!(took <= least * 1.01 + 1.0, "{rate}: {took} where {least} would do");
        }
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let (paces, rate) = (Paces::default(), rate(60, 60));
        let now = Duration::from_secs(10_000);
        assert_eq!(paces.available(Counted::Messages, "a", rate, now), 1);
        assert_eq!(paces.take(Counted::Messages, "a", rate, now), Ok(()));
        assert_eq!(paces.available(Counted::Messages, "a", rate, now), 0);
        assert_eq!(paces.take(Counted::Messages, "a", rate, now), Err(Duration::from_secs(1)));
        // Others have their own.
        assert_eq!(paces.take(Counted::Connections, "a", rate, now), Ok(()));
        assert_eq!(paces.take(Counted::Messages, "b", rate, now), Ok(()));
        let later = now + Duration::from_secs(3600);
        assert_eq!(paces.available(Counted::Messages, "a", rate, later), 1);
    }

    #[test]
    fn two_servers_go_at_half_the_pace_each() {
        let (paces, rate) = (Paces::default(), rate(60, 60));
        let mut now = Duration::from_secs(1000);
        paces.share(2);
        assert_eq!(paces.take(Counted::Messages, "a", rate, now), Ok(()));
        assert_eq!(paces.take(Counted::Messages, "a", rate, now), Err(Duration::from_secs(2)));
        now += Duration::from_secs(2);
        assert_eq!(paces.take(Counted::Messages, "a", rate, now), Ok(()));
        paces.share(1);
        now += Duration::from_secs(2);
        assert_eq!(paces.take(Counted::Messages, "a", rate, now), Ok(()));
        assert_eq!(paces.take(Counted::Messages, "a", rate, now), Err(Duration::from_secs(1)));
    }

    #[test]
    fn what_had_to_be_is_waited_for_afterwards() {
        let (paces, rate) = (Paces::default(), rate(1, 1));
        let now = Duration::from_secs(5);
        for _ in 0..3 {
            paces.charge(Counted::Connections, "a", rate, now);
        }
        assert_eq!(paces.wait(Counted::Connections, "a", rate, now), Duration::from_secs(3));
        assert_eq!(paces.wait(Counted::Connections, "a", rate, now + Duration::from_secs(3)), Duration::ZERO);
    }
}
