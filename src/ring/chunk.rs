//! Memory that one connection still writes to while others already read from it.
//!
//! ```text
//!  0            filled          end
//!  ├─ slices ────┼─ spare ───────┤
//!    shared,       one writer
//!    never written again
//! ```
//!
//! A [`Chunk`] is the only writer of its memory, and writes above `filled` only. Slices are made below `filled`
//! only, and `filled` never moves down while a slice lives. So no byte is ever written and read at once, on
//! whatever thread the slices are. All bytes are initialised when the memory is first made.

use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;

use crate::pool::Home;

/// The memory itself; goes back to its pool with the last holder.
struct Storage {
    base: NonNull<u8>,
    size: usize,
    home: Arc<Home>,
}

// SAFETY: the memory is a plain byte buffer owned by this value; who may read and write which part of it at a time
// is laid down in the module comment, and does not depend on threads.
#[expect(unsafe_code, reason = "a pointer is not Send by itself")]
unsafe impl Send for Storage {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a pointer is not Sync by itself")]
unsafe impl Sync for Storage {}

impl Storage {
    fn new(memory: Box<[u8]>, home: Arc<Home>) -> Self {
        let size = memory.len();
        // From the raw pointer of the whole box: it may be used for every byte of it.
        let base = NonNull::new(Box::into_raw(memory).cast::<u8>()).expect("a box is never null");
        Self { base, size, home }
    }
}

impl Drop for Storage {
    #[expect(unsafe_code, reason = "takes the box back that `new` took apart")]
    fn drop(&mut self) {
        let whole = std::ptr::slice_from_raw_parts_mut(self.base.as_ptr(), self.size);
        // SAFETY: pointer and size come from Box::into_raw in `new`; neither chunk nor slice is left, else this would
        // not be dropped.
        let memory = unsafe { Box::from_raw(whole) };
        self.home.give_back(memory);
    }
}

/// A connection's own memory. Not `Clone`: there is one writer.
pub(crate) struct Chunk {
    storage: Arc<Storage>,
    filled: usize,
}

impl Chunk {
    pub(crate) fn new(memory: Box<[u8]>, home: Arc<Home>) -> Self {
        Self { storage: Arc::new(Storage::new(memory, home)), filled: 0 }
    }

    /// The part nobody has seen yet.
    #[expect(unsafe_code, reason = "writes beside what others read")]
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        let (from, size) = (self.filled, self.storage.size);
        assert!(from <= size, "filled beyond the end");
        // SAFETY: in bounds, initialised; no slice reaches above `filled`, and `&mut self` keeps the only writer.
        unsafe { slice::from_raw_parts_mut(self.storage.base.as_ptr().add(from), size - from) }
    }

    /// The first `count` bytes of the spare part have been written.
    pub(crate) fn advance(&mut self, count: usize) {
        assert!(count <= self.storage.size - self.filled, "advanced beyond the end");
        self.filled += count;
    }

    /// Starts over, if nobody else holds a slice.
    pub(crate) fn reset(&mut self) {
        if Arc::get_mut(&mut self.storage).is_some() {
            self.filled = 0;
        }
    }

    /// What has been written from there on.
    #[expect(unsafe_code, reason = "reads beside what is written")]
    pub(crate) fn written(&self, from: usize) -> &[u8] {
        assert!(from <= self.filled, "read beyond what is filled");
        // SAFETY: below `filled`, in bounds, initialised, not written while borrowed: writing takes `&mut self`.
        unsafe { slice::from_raw_parts(self.storage.base.as_ptr().add(from), self.filled - from) }
    }

    /// A slice that lives on by itself.
    pub(crate) fn slice(&self, range: Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.filled, "sliced beyond what is filled");
        if range.is_empty() {
            return Bytes::new();
        }
        Bytes::from_owner(Slice { storage: Arc::clone(&self.storage), range })
    }

    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    pub(crate) fn size(&self) -> usize {
        self.storage.size
    }
}

struct Slice {
    storage: Arc<Storage>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    #[expect(unsafe_code, reason = "reads beside what is written")]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `Chunk::slice` made the range below `filled`, which no writer touches while a slice lives: `reset`
        // needs to be alone.
        unsafe { slice::from_raw_parts(self.storage.base.as_ptr().add(self.range.start), self.range.len()) }
    }
}
