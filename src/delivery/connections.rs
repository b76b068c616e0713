//! Idle connections, kept for the next message to the same destination.
//!
//! What a connection is, the driver knows; here it is a `T`. Times are since the start of the process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// Idle connections by the key of their destination.
#[derive(Debug)]
pub struct Connections<T> {
    limits: ConnectionsLimits,
    /// For each destination, the one that was used last is at the end, and is taken first.
    idle: HashMap<Arc<str>, Vec<Idle<T>>>,
    /// When each is too old, with its serial number.
    order: BTreeMap<(Duration, u64), Arc<str>>,
    serial: u64,
}

/// Bounds of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionsLimits {
    /// Idle connections in all; above this the one nearest to its end is closed.
    pub connections_max: usize,
    /// Idle connections for one destination.
    pub per_destination_max: usize,
}

#[derive(Debug)]
struct Idle<T> {
    until: Duration,
    serial: u64,
    connection: T,
}

impl Default for ConnectionsLimits {
    fn default() -> Self {
        Self { connections_max: 1000, per_destination_max: 50 }
    }
}

impl<T> Connections<T> {
    /// An empty cache.
    pub fn new(limits: ConnectionsLimits) -> Self {
        Self { limits, idle: HashMap::new(), order: BTreeMap::new(), serial: 0 }
    }

    /// Keeps a connection that is ready for another transaction, for `idle_max`. Gives back the connection
    /// that has to be closed for it, which may be the same one.
    #[must_use = "the connection given back is to be closed"]
    pub fn put(&mut self, key: &Arc<str>, connection: T, idle_max: Duration, now: Duration) -> Option<T> {
        if idle_max.is_zero() || self.limits.connections_max.min(self.limits.per_destination_max) == 0 {
            return Some(connection);
        }
        let full = self.idle.get(key).is_some_and(|idle| idle.len() >= self.limits.per_destination_max);
        let evicted = if full {
            let idle = self.idle.get(key).and_then(|idle| idle.iter().min_by_key(|i| (i.until, i.serial)));
            idle.map(|idle| (idle.until, idle.serial))
        } else if self.order.len() >= self.limits.connections_max {
            self.order.keys().next().copied()
        } else {
            None
        };
        let evicted = evicted.and_then(|place| self.remove(place));
        self.serial += 1;
        let (until, serial) = (now + idle_max, self.serial);
        self.order.insert((until, serial), Arc::clone(key));
        self.idle.entry(Arc::clone(key)).or_default().push(Idle { until, serial, connection });
        evicted
    }

    /// Takes the connection to a destination that was used last, if one is young enough.
    pub fn take(&mut self, key: &str, now: Duration) -> Option<T> {
        let idle = self.idle.get(key)?;
        let idle = idle.iter().rev().find(|idle| idle.until > now)?;
        self.remove((idle.until, idle.serial))
    }

    /// Takes out a connection that is too old, to be closed; call it until there is none.
    pub fn expired(&mut self, now: Duration) -> Option<T> {
        let place = *self.order.keys().next().filter(|(until, _)| *until <= now)?;
        self.remove(place)
    }

    /// Takes out the connection nearest to its end, whatever its age: for a shutdown.
    pub fn drain(&mut self) -> Option<T> {
        let place = *self.order.keys().next()?;
        self.remove(place)
    }

    /// When to call [`Connections::expired`] next.
    pub fn wake_at(&self) -> Option<Duration> {
        self.order.keys().next().map(|(until, _)| *until)
    }

    /// How many are idle.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is idle.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn remove(&mut self, place: (Duration, u64)) -> Option<T> {
        let key = self.order.remove(&place)?;
        let idle = self.idle.get_mut(&key).expect("both indexes hold the same connections");
        let found = idle.iter().position(|idle| idle.serial == place.1);
        let removed = idle.remove(found.expect("both indexes hold the same connections"));
        if idle.is_empty() {
            self.idle.remove(&key);
        }
        Some(removed.connection)
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn the_last_used_is_taken_first_and_the_old_are_closed() {
        let (a, b): (Arc<str>, Arc<str>) = ("mx:a".into(), "mx:b".into());
        let limits = ConnectionsLimits { connections_max: 3, per_destination_max: 2 };
        let mut cache = Connections::new(limits);
        assert_eq!(cache.take("mx:a", secs(0)), None);
        assert_eq!(cache.put(&a, 1, secs(10), secs(0)), None);
        assert_eq!(cache.put(&a, 2, secs(10), secs(1)), None);
        assert_eq!(cache.put(&a, 3, secs(10), secs(2)), Some(1), "full for its destination");
        assert_eq!(cache.put(&b, 4, secs(3), secs(2)), None);
        assert_eq!(cache.put(&b, 5, secs(10), secs(3)), Some(4), "full in all");
        assert_eq!((cache.len(), cache.wake_at()), (3, Some(secs(11))));
        assert_eq!(cache.take("mx:a", secs(4)), Some(3));
        assert_eq!(cache.take("mx:a", secs(11)), None, "too old");
        assert_eq!(cache.expired(secs(11)), Some(2));
        assert_eq!(cache.expired(secs(11)), None);
        assert_eq!(cache.put(&a, 6, secs(0), secs(11)), Some(6));
        assert_eq!(cache.drain(), Some(5));
        assert!(cache.is_empty() && cache.idle.is_empty() && cache.wake_at().is_none());
    }
}
