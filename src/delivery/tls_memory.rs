//! Hosts with which TLS failed of late, so that they are not asked for it each time (RFC 7435 §3).

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use crate::TlsLevel;

/// The addresses of such hosts. Times are since the start of the process.
#[derive(Debug)]
pub struct TlsMemory {
    limits: TlsMemoryLimits,
    until: HashMap<IpAddr, Duration>,
    /// The same, in the order of their end; what was renewed stands here twice.
    order: VecDeque<(Duration, IpAddr)>,
}

/// Bounds of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsMemoryLimits {
    /// Addresses; above this the oldest are forgotten.
    pub hosts_max: usize,
    /// How long a failure is remembered.
    pub age_max: Duration,
}

impl Default for TlsMemoryLimits {
    fn default() -> Self {
        Self { hosts_max: 10_000, age_max: Duration::from_secs(3600) }
    }
}

impl TlsMemory {
    /// Remembers nothing yet.
    pub fn new(limits: TlsMemoryLimits) -> Self {
        Self { limits, until: HashMap::new(), order: VecDeque::new() }
    }

    /// Opportunistic TLS failed with this host.
    pub fn remember(&mut self, address: IpAddr, now: Duration) {
        let until = now + self.limits.age_max;
        self.until.insert(address, until);
        self.order.push_back((until, address));
        while let Some(&(until, address)) = self.order.front() {
            if until > now && self.order.len() <= self.limits.hosts_max {
                break;
            }
            self.order.pop_front();
            if self.until.get(&address) == Some(&until) {
                self.until.remove(&address);
            }
        }
    }

    /// The level for a connection: only what is opportunistic is ever lowered.
    pub fn level(&self, address: IpAddr, wanted: TlsLevel, now: Duration) -> TlsLevel {
        match wanted {
            TlsLevel::Opportunistic if self.until.get(&address).is_some_and(|until| *until > now) => {
                TlsLevel::None
            }
            TlsLevel::None
            | TlsLevel::Opportunistic
            | TlsLevel::Required
            | TlsLevel::Verified
            | TlsLevel::Demanded => wanted,
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn failures_are_forgotten_in_time() {
        use TlsLevel::{None, Opportunistic, Required};
        let [a, b, c] = [1, 2, 3].map(|n| IpAddr::from([192, 0, 2, n]));
        let mut memory = TlsMemory::new(TlsMemoryLimits { hosts_max: 2, age_max: secs(10) });
        assert_eq!(memory.level(a, Opportunistic, secs(0)), Opportunistic);
        memory.remember(a, secs(0));
        assert_eq!(memory.level(a, Opportunistic, secs(9)), None);
        assert_eq!(memory.level(a, Required, secs(9)), Required);
        assert_eq!(memory.level(a, Opportunistic, secs(10)), Opportunistic);
        memory.remember(a, secs(5));
        memory.remember(b, secs(6));
        assert_eq!(memory.level(a, Opportunistic, secs(14)), None);
        memory.remember(c, secs(7));
        assert_eq!(memory.level(a, Opportunistic, secs(7)), Opportunistic);
        assert_eq!(memory.level(b, Opportunistic, secs(7)), None);
        assert!(memory.until.len() <= 2 && memory.order.len() <= 2);
    }
}
