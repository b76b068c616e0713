//! Waiting for one another on one thread: an event, and a counter of permits.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Something that happens again and again, and those who wait for it.
///
/// Who calls [`Event::wait`] is registered at once, not at the first poll. So this order loses no wake-up:
/// take the waiter, look at the condition, then await the waiter.
#[derive(Debug, Default)]
pub struct Event {
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

#[derive(Debug, Default)]
struct Waiter {
    notified: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Waiter {
    fn notify(&self) {
        self.notified.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Event {
    /// An event nobody waits for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers for the next notification.
    pub fn wait(&self) -> Waiting<'_> {
        let waiter = Rc::new(Waiter::default());
        self.waiting.borrow_mut().push_back(Rc::clone(&waiter));
        Waiting { event: self, waiter, done: false }
    }

    /// Wakes all who wait now.
    pub fn notify_all(&self) {
        // A woken task may wait again before this ends; it belongs to the next round.
        let round = self.waiting.take();
        for waiter in round {
            waiter.notify();
        }
    }

    /// Wakes the one who has waited longest, if any.
    pub fn notify_one(&self) {
        let first = self.waiting.borrow_mut().pop_front();
        if let Some(waiter) = first {
            waiter.notify();
        }
    }

    /// How many wait.
    pub fn waiters(&self) -> usize {
        self.waiting.borrow().len()
    }
}

/// The future of [`Event::wait`].
#[derive(Debug)]
#[must_use = "registered, but nothing happens before it is awaited"]
pub struct Waiting<'a> {
    event: &'a Event,
    waiter: Rc<Waiter>,
    done: bool,
}

impl Future for Waiting<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.waiter.notified.get() {
            self.done = true;
            return Poll::Ready(());
        }
        self.waiter.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if self.waiter.notified.get() {
            // Whoever was notified and left before looking hands the notification on: it may have been the only one.
            self.event.notify_one();
        } else {
            self.event.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
        }
    }
}

/// A bounded number of permits. Who asks in vain waits in line, behind those who do already; a newcomer who finds nobody in line may
/// be faster than the one just woken.
#[derive(Debug)]
pub struct Semaphore {
    free: Cell<usize>,
    event: Event,
}

impl Semaphore {
    /// With this many permits.
    pub fn new(permits: usize) -> Self {
        Self { free: Cell::new(permits), event: Event::new() }
    }

    /// Waits for a permit.
    pub async fn acquire(self: &Rc<Self>) -> Permit {
        if self.event.waiters() > 0 {
            self.event.wait().await;
        }
        loop {
            if let Some(permit) = self.try_acquire() {
                return permit;
            }
            self.event.wait().await;
        }
    }

    /// A permit, if one is free.
    pub fn try_acquire(self: &Rc<Self>) -> Option<Permit> {
        let left = self.free.get().checked_sub(1)?;
        self.free.set(left);
        Some(Permit(Rc::clone(self)))
    }

    /// How many permits are free.
    pub fn free(&self) -> usize {
        self.free.get()
    }
}

/// One permit; given back when dropped.
#[derive(Debug)]
pub struct Permit(Rc<Semaphore>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        self.0.event.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn a_notification_between_wait_and_await_is_kept() {
        let event = Event::new();
        let waiting = event.wait();
        event.notify_all();
        block_on(waiting);
        assert_eq!(event.waiters(), 0);
    }

    #[test]
    fn who_was_not_waiting_is_not_woken() {
        let event = Event::new();
        event.notify_all();
        event.notify_one();
        assert_eq!(block_on(poll_once(event.wait())), None);
        assert_eq!(event.waiters(), 0, "a dropped waiter leaves the list");
    }

    #[test]
    fn one_is_woken_at_a_time_and_in_order() {
        let event = Event::new();
        let (first, mut second) = (event.wait(), event.wait());
        event.notify_one();
        assert_eq!(block_on(poll_once(&mut second)), None);
        block_on(first);
        event.notify_one();
        block_on(second);
    }

    #[test]
    fn permits_are_given_in_order() {
        let semaphore = Rc::new(Semaphore::new(1));
        let permit = semaphore.try_acquire().unwrap();
        let (mut first, mut second) = (Box::pin(semaphore.acquire()), Box::pin(semaphore.acquire()));
        assert!(block_on(poll_once(&mut first)).is_none() && block_on(poll_once(&mut second)).is_none());
        drop(permit);
        // One is free now, and is not for who comes last.
        let mut third = Box::pin(semaphore.acquire());
        assert!(block_on(poll_once(&mut third)).is_none());
        let permit = block_on(first);
        assert!(block_on(poll_once(&mut second)).is_none());
        drop(permit);
        let permit = block_on(second);
        assert!(block_on(poll_once(&mut third)).is_none());
        drop(permit);
        drop(block_on(third));
        assert_eq!(semaphore.free(), 1);
    }

    #[test]
    fn a_notification_is_handed_on_by_who_leaves() {
        let event = Event::new();
        let (first, second) = (event.wait(), event.wait());
        event.notify_one();
        drop(first);
        block_on(second);
    }

    #[test]
    fn permits_come_back() {
        let semaphore = Rc::new(Semaphore::new(1));
        let permit = semaphore.try_acquire().unwrap();
        assert!(semaphore.try_acquire().is_none());
        let mut next = Box::pin(semaphore.acquire());
        assert!(block_on(poll_once(&mut next)).is_none());
        drop(permit);
        let permit = block_on(next);
        assert_eq!(semaphore.free(), 0);
        drop(permit);
        assert_eq!(semaphore.free(), 1);
    }
}
