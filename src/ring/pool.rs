//! The memory that connections receive into: two sizes of chunk, one budget.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::chunk::Chunk;

/// Sizes and bounds of a [`Pool`], in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions {
    /// What a connection begins with.
    pub small: usize,
    /// What it gets when it fills small ones at once.
    pub large: usize,
    /// All chunks in use together. Who would go beyond waits until memory returns.
    pub budget: usize,
    /// Unused memory kept for the next who asks.
    pub free_max: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { small: 8 << 10, large: 64 << 10, budget: 64 << 20, free_max: 8 << 20 }
    }
}

/// What a pool has given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Bytes in use: held by connections, or by slices of what they received.
    pub in_use: usize,
    /// The most there ever was.
    pub peak: usize,
    /// Bytes kept for the next who asks.
    pub free: usize,
    /// Chunks given out so far.
    pub taken: u64,
    /// How often somebody had to wait because the budget was spent.
    pub waits: u64,
}

/// A budget of receive memory, shared by the connections of one shard.
#[derive(Clone, Debug)]
pub struct Pool {
    home: Arc<Home>,
}

/// Where chunks come from and go back to. Slices end on any thread, so this is behind a lock; it is free of
/// contention as long as they end on their shard.
pub(crate) struct Home {
    options: PoolOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
    stats: PoolStats,
    waiting: VecDeque<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Small,
    Large,
}

impl Pool {
    /// An empty pool. Sizes of zero are taken for one; `large` is at least `small`.
    pub fn new(options: PoolOptions) -> Self {
        let small = options.small.max(1);
        let options = PoolOptions { small, large: options.large.max(small), ..options };
        Self { home: Arc::new(Home { options, state: Mutex::default() }) }
    }

    /// What it was made with.
    pub fn options(&self) -> PoolOptions {
        self.home.options
    }

    /// How it stands.
    pub fn stats(&self) -> PoolStats {
        self.home.lock().stats
    }

    /// Takes a chunk of more than `unread` bytes; a small one if the budget has no room for a large one. When there is
    /// room for none, the task is woken when memory returns.
    pub(crate) fn poll_take(&self, class: Class, unread: usize, context: &Context<'_>) -> Poll<Chunk> {
        let memory = {
            let mut state = self.home.lock();
            let Some((class, memory)) = state.take(class, unread, &self.home.options) else {
                state.stats.waits += 1;
                state.waiting.push_back(context.waker().clone());
                return Poll::Pending;
            };
            memory.ok_or_else(|| self.home.options.size(class))
        };
        // New memory is made outside the lock. It is initialised here, once.
        let memory = memory.unwrap_or_else(|size| vec![0; size].into_boxed_slice());
        Poll::Ready(Chunk::new(memory, Arc::clone(&self.home)))
    }
}

impl PoolOptions {
    fn size(&self, class: Class) -> usize {
        match class {
            Class::Small => self.small,
            Class::Large => self.large,
        }
    }
}

impl State {
    /// `None`: over budget. `Some((_, None))`: within it, but nothing is lying ready.
    fn take(
        &mut self,
        class: Class,
        unread: usize,
        options: &PoolOptions,
    ) -> Option<(Class, Option<Box<[u8]>>)> {
        // A budget below one chunk still lets one connection at a time go on.
        let fits =
            |class| self.stats.in_use == 0 || self.stats.in_use + options.size(class) <= options.budget;
        let class = match class {
            Class::Large if fits(Class::Large) => Class::Large,
            Class::Large | Class::Small if options.small > unread && fits(Class::Small) => Class::Small,
            Class::Large | Class::Small => return None,
        };
        let memory = match class {
            Class::Small => self.small.pop(),
            Class::Large => self.large.pop(),
        };
        let size = options.size(class);
        if memory.is_some() {
            self.stats.free -= size;
        }
        self.stats.in_use += size;
        self.stats.peak = self.stats.peak.max(self.stats.in_use);
        self.stats.taken += 1;
        Some((class, memory))
    }
}

impl Home {
    /// The last holder of a chunk is gone, on whatever thread.
    pub(crate) fn give_back(&self, memory: Box<[u8]>) {
        let (surplus, woken) = {
            let mut state = self.lock();
            let size = memory.len();
            state.stats.in_use -= size;
            let surplus = if state.stats.free + size <= self.options.free_max {
                state.stats.free += size;
                if size == self.options.small {
                    state.small.push(memory)
                } else {
                    state.large.push(memory)
                }
                None
            } else {
                Some(memory)
            };
            // All are woken, but only when there is room for many: else each chunk that returns would wake them all.
            let room = state.stats.in_use <= self.options.budget - self.options.budget / 8;
            let woken = if room || state.stats.in_use == 0 {
                std::mem::take(&mut state.waiting)
            } else {
                VecDeque::new()
            };
            (surplus, woken)
        };
        drop(surplus);
        for waker in woken {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock can panic half-way through a change that matters.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").field("options", &self.options).field("stats", &self.lock().stats).finish()
    }
}
