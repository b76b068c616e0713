//! Deadlines of connections: set for nothing, looked at a few times a second by one task of the shard.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use crate::clock;

/// Until when a connection's next step must have happened.
///
/// Setting it is a store; there is no timer to arm. One task a shard looks at all deadlines a few times a second and
/// wakes whoever waits on a connection whose time is up: its reads, writes and waits for memory then fail with
/// [`io::ErrorKind::TimedOut`] until the deadline is set anew. The socket stays open and usable, so the server can
/// still say why it closes (RFC 5321 §3.8: a 421 reply).
///
/// A deadline is never early, and late by no more than the sweep interval of the shard.
pub struct Deadline {
    entry: Rc<Entry>,
}

struct Entry {
    at: Cell<Duration>,
    expired: Cell<bool>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
    /// Where the shard's list has this entry.
    place: Cell<usize>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Reader,
    Writer,
}

const NEVER: Duration = Duration::MAX;
const UNLISTED: usize = usize::MAX;

thread_local! {
    static LIST: RefCell<Vec<Rc<Entry>>> = const { RefCell::new(Vec::new()) };
}

impl Deadline {
    /// None yet.
    #[expect(clippy::new_without_default, reason = "a deadline is made on purpose")]
    pub fn new() -> Self {
        Self {
            entry: Rc::new(Entry {
                at: Cell::new(NEVER),
                expired: Cell::new(false),
                reader: Cell::new(None),
                writer: Cell::new(None),
                place: Cell::new(UNLISTED),
            }),
        }
    }

    /// At that time of [`clock::now`]. Forgets that an earlier deadline expired.
    pub fn set(&self, at: Duration) {
        self.entry.at.set(at);
        self.entry.expired.set(false);
        if self.entry.place.get() == UNLISTED {
            LIST.with_borrow_mut(|list| {
                self.entry.place.set(list.len());
                list.push(Rc::clone(&self.entry));
            });
        }
    }

    /// That long from now.
    pub fn set_after(&self, wait: Duration) {
        self.set(clock::now().saturating_add(wait));
    }

    /// No deadline. Forgets that an earlier one expired.
    pub fn clear(&self) {
        self.entry.at.set(NEVER);
        self.entry.expired.set(false);
    }

    /// Whether the time is up.
    pub fn expired(&self) -> bool {
        self.entry.expired.get()
    }

    /// Fails if the time is up; otherwise the task is woken when it will be.
    pub(crate) fn check(&self, side: Side, context: &Context<'_>) -> io::Result<()> {
        if self.entry.expired.get() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if self.entry.place.get() != UNLISTED {
            let waker = self.entry.waker(side);
            let kept = waker.take().filter(|waker| waker.will_wake(context.waker()));
            waker.set(Some(kept.unwrap_or_else(|| context.waker().clone())));
        }
        Ok(())
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline").field("at", &self.entry.at).field("expired", &self.entry.expired).finish()
    }
}

impl Entry {
    fn waker(&self, side: Side) -> &Cell<Option<Waker>> {
        match side {
            Side::Reader => &self.reader,
            Side::Writer => &self.writer,
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let place = self.entry.place.get();
        if place == UNLISTED {
            return;
        }
        // The list is gone when a thread ends with connections still open.
        let _ = LIST.try_with(|list| {
            let mut list = list.borrow_mut();
            list.swap_remove(place);
            if let Some(moved) = list.get(place) {
                moved.place.set(place);
            }
        });
    }
}

/// Wakes those whose time is up; says how many.
pub(crate) fn sweep(now: Duration) -> usize {
    let due: Vec<_> = LIST.with_borrow(|list| {
        list.iter().filter(|entry| entry.at.get() <= now && !entry.expired.get()).cloned().collect()
    });
    for entry in &due {
        entry.expired.set(true);
        for side in [Side::Reader, Side::Writer] {
            let waker = entry.waker(side).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
    due.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> usize {
        LIST.with_borrow(Vec::len)
    }

    #[test]
    fn is_never_early() {
        let deadline = Deadline::new();
        deadline.set(Duration::from_secs(10));
        assert_eq!(sweep(Duration::from_secs(9)), 0);
        assert!(!deadline.expired());
        assert_eq!(sweep(Duration::from_secs(10)), 1);
        assert!(deadline.expired());
        assert_eq!(sweep(Duration::from_secs(11)), 0, "once is enough");
        deadline.set(Duration::from_secs(20));
        assert!(!deadline.expired());
        deadline.clear();
        assert_eq!(sweep(Duration::from_secs(30)), 0);
    }

    #[test]
    fn the_list_forgets_what_is_dropped() {
        let mut deadlines: Vec<_> = (0..10).map(|_| Deadline::new()).collect();
        assert_eq!(listed(), 0, "listed when first set");
        for (second, deadline) in (1..).zip(&deadlines) {
            deadline.set(Duration::from_secs(second));
        }
        for index in [9, 0, 3] {
            deadlines.swap_remove(index);
        }
        assert_eq!(listed(), 7);
        assert_eq!(sweep(Duration::from_secs(100)), 7);
        assert!(deadlines.iter().all(Deadline::expired));
        drop(deadlines);
        assert_eq!(listed(), 0);
    }
}
