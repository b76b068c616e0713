//! What a connection has received and nobody has looked at yet.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::chunk::Chunk;
use crate::deadline::{Deadline, Side};
use crate::pool::{Class, Pool};
use crate::stream::Stream;

/// The receive side of one connection.
///
/// [`Input::fill`] appends to [`Input::bytes`]; [`Input::consume`] and [`Input::take`] remove from the front. What
/// `take` gives is a slice of the memory the bytes were received into: no copy, and it may outlive the connection and
/// leave the thread. A connection that waits with nothing unread holds no memory.
pub struct Input {
    pool: Pool,
    chunk: Option<Chunk>,
    /// Bytes of the chunk before this are consumed.
    read: usize,
    /// The last fill left no room: the peer sends faster than small chunks carry.
    hungry: bool,
}

impl Input {
    /// With nothing in it.
    pub fn new(pool: Pool) -> Self {
        Self { pool, chunk: None, read: 0, hungry: false }
    }

    /// Receives more. Zero means that the peer will send nothing more.
    ///
    /// Waits while there is nothing to receive, and while the budget of the pool is spent. Fails with
    /// [`io::ErrorKind::TimedOut`] when the deadline of the stream has passed, and with
    /// [`io::ErrorKind::FileTooLarge`] when a whole large chunk lies unread. When dropped, nothing is lost.
    pub async fn fill(&mut self, stream: &Stream) -> io::Result<usize> {
        let count = poll_fn(|context| self.poll_fill(stream, context)).await?;
        stream.breathe().await;
        Ok(count)
    }

    fn poll_fill(&mut self, stream: &Stream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Err(error) = stream.deadline().check(Side::Reader, context) {
            return Poll::Ready(Err(error));
        }
        ready!(self.poll_room(context))?;
        let chunk = self.chunk.as_mut().expect("there is room, so there is a chunk");
        let received = stream.poll_read(context, chunk.spare());
        match received {
            Poll::Ready(Ok(count)) => {
                chunk.advance(count);
                self.hungry = chunk.filled() == chunk.size();
            }
            Poll::Ready(Err(_)) => self.release(),
            Poll::Pending => {
                self.hungry = false;
                self.release();
            }
        }
        received
    }

    /// Waits for room to write to, such as for plaintext that TLS will give; then [`Input::spare`] is not empty.
    pub async fn reserve(&mut self, deadline: &Deadline) -> io::Result<()> {
        poll_fn(|context| {
            if let Err(error) = deadline.check(Side::Reader, context) {
                return Poll::Ready(Err(error));
            }
            self.poll_room(context)
        })
        .await
    }

    /// Appends a copy, as if it had been received.
    pub async fn push(&mut self, mut bytes: &[u8], deadline: &Deadline) -> io::Result<()> {
        while !bytes.is_empty() {
            self.reserve(deadline).await?;
            let spare = self.spare();
            let count = bytes.len().min(spare.len());
            spare[..count].copy_from_slice(&bytes[..count]);
            self.advance(count);
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Where to write more; empty unless [`Input::reserve`] was called. Holds old bytes of no meaning.
    pub fn spare(&mut self) -> &mut [u8] {
        self.chunk.as_mut().map_or(&mut [], Chunk::spare)
    }

    /// So much has been written to [`Input::spare`].
    pub fn advance(&mut self, count: usize) {
        if count > 0 {
            let chunk = self.chunk.as_mut().expect("only what was spare is written to");
            chunk.advance(count);
            self.hungry = chunk.filled() == chunk.size();
        }
    }

    /// Gives memory back if nothing is unread. `fill` does so by itself.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.chunk = None;
            self.read = 0;
        }
    }

    /// Throws away what is unread.
    pub fn clear(&mut self) {
        self.chunk = None;
        self.read = 0;
    }

    /// Skips so many bytes.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "more consumed than received");
        self.read += count;
    }

    /// Removes so many bytes from the front, as a slice of the memory they were received into.
    pub fn take(&mut self, count: usize) -> Bytes {
        assert!(count <= self.len(), "more taken than received");
        let Some(chunk) = &self.chunk else { return Bytes::new() };
        let slice = chunk.slice(self.read..self.read + count);
        self.read += count;
        slice
    }

    /// What is unread.
    pub fn bytes(&self) -> &[u8] {
        self.chunk.as_ref().map_or(&[], |chunk| chunk.written(self.read))
    }

    /// How much is unread.
    pub fn len(&self) -> usize {
        self.chunk.as_ref().map_or(0, |chunk| chunk.filled() - self.read)
    }

    /// Whether nothing is unread.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether memory is held.
    pub fn holds_memory(&self) -> bool {
        self.chunk.is_some()
    }

    /// Makes sure that there is a chunk with room in it; what is unread moves along.
    fn poll_room(&mut self, context: &Context<'_>) -> Poll<io::Result<()>> {
        if let Some(chunk) = &mut self.chunk {
            let outgrown = self.hungry && chunk.size() < self.pool.options().large;
            if self.read == chunk.filled() && !outgrown {
                chunk.reset();
                self.read = chunk.filled();
            }
            if !chunk.spare().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        let unread = self.len();
        let options = self.pool.options();
        if unread >= options.large {
            return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
        }
        if unread == 0 {
            // Before asking for more: who waits for memory must not hold any that is of no use.
            self.clear();
        }
        let class = if self.hungry || unread * 2 > options.small { Class::Large } else { Class::Small };
        let mut next = ready!(self.pool.poll_take(class, unread, context));
        next.spare()[..unread].copy_from_slice(self.bytes());
        next.advance(unread);
        self.chunk = Some(next);
        self.read = 0;
        Poll::Ready(Ok(()))
    }
}
