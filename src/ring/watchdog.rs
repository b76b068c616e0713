//! One thread that wakes executors which sleep though they have work.
//!
//! The runtime takes any event in its latency ring, its own preemption timer included, for a reason not to run tasks
//! now; and when it finds that the event woke nobody, it goes to sleep without looking whether tasks were waiting
//! already. That needs an event in the few nanoseconds between two checks, or a thread that lost its CPU there, so it
//! is rare; but nothing else would end that sleep if all that wait for timers are among the sleeping tasks.
//!
//! So each executor says when its heartbeat is due, and this thread wakes the one whose heartbeat is late. If it is
//! late because a task works for long, the wake-up makes the runtime look at its rings once that task waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use crate::clock;

/// How often the thread looks; and how late a heartbeat may be before it does something.
const LOOK: Duration = Duration::from_millis(10);

/// The heartbeat of one executor.
#[derive(Debug, Default)]
pub(crate) struct Beat {
    /// In microseconds of the clock. Zero: not expected.
    due: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

static BEATS: LazyLock<Beats> = LazyLock::new(Beats::default);

#[derive(Default)]
struct Beats {
    list: Mutex<Vec<Weak<Beat>>>,
    added: Condvar,
    running: Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Beat {
    /// A heartbeat that is watched as long as it lives. Call it on the thread that starts executors: theirs are pinned,
    /// and the watching thread must not be.
    pub(crate) fn watched() -> std::io::Result<Arc<Self>> {
        let beat = Arc::new(Self::default());
        lock(&BEATS.list).push(Arc::downgrade(&beat));
        BEATS.added.notify_one();
        let mut running = lock(&BEATS.running);
        if !*running {
            thread::Builder::new().name("ring-watchdog".to_owned()).spawn(watch)?;
            *running = true;
        }
        Ok(beat)
    }

    /// The next heartbeat is due at that time; the waker is of the task that makes it.
    pub(crate) fn expect(&self, at: Duration, waker: &Waker) {
        let mut kept = lock(&self.waker);
        match &mut *kept {
            Some(kept) => kept.clone_from(waker),
            None => *kept = Some(waker.clone()),
        }
        self.due.store(u64::try_from(at.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// No more heartbeats. The waker is dropped here, on its own thread.
    pub(crate) fn end(&self) {
        self.due.store(0, Ordering::Relaxed);
        *lock(&self.waker) = None;
    }

    fn wake_if_late(&self, now: Duration) {
        let due = self.due.load(Ordering::Relaxed);
        if due == 0 || now < Duration::from_micros(due).saturating_add(LOOK) {
            return;
        }
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake_by_ref();
        }
    }
}

fn watch() {
    loop {
        let beats: Vec<_> = {
            let mut list = lock(&BEATS.list);
            list.retain(|beat| beat.strong_count() > 0);
            while list.is_empty() {
                list = BEATS.added.wait(list).unwrap_or_else(PoisonError::into_inner);
            }
            list.iter().filter_map(Weak::upgrade).collect()
        };
        let now = clock::now();
        for beat in &beats {
            beat.wake_if_late(now);
        }
        drop(beats);
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_the_late_are_woken() {
        let count = Arc::new(Count::default());
        let beat = Beat::default();
        let at = Duration::from_secs;
        beat.wake_if_late(at(1));
        beat.expect(at(10), &Arc::clone(&count).into());
        beat.wake_if_late(at(9));
        beat.wake_if_late(at(10));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        beat.wake_if_late(at(11));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        beat.end();
        beat.wake_if_late(at(12));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(Arc::strong_count(&count), 1, "the waker is dropped");
    }
}
