//! Mail data in chunks (RFC 3030 §2).
//!
//! A chunk follows its command at once, so even one that is refused must be read to its end.

use std::mem;

use super::{Action, Busy, Phase, Session, Transaction, Transfer, reply_or_close};
use crate::{Extension, Refusal, Reply};

#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub(super) size: u64,
    pub(super) last: bool,
}

impl Session {
    /// The chunk was read to its end: kept, or thrown away for this refusal.
    ///
    /// After [`Action::DiscardChunk`] the outcome changes nothing: the refusal is known already.
    pub fn on_chunk_end(&mut self, outcome: Result<(), Refusal>) -> Action {
        self.expect(super::Expected::ChunkEnd);
        let Phase::Busy(busy) = mem::replace(&mut self.phase, Phase::Idle) else {
            unreachable!("a chunk is expected only while the session is busy with it")
        };
        let action = match (busy, outcome) {
            (Busy::Chunk(transaction, Chunk { last: true, .. }), Ok(())) => self.commit(transaction),
            (Busy::Chunk(transaction, chunk), Ok(())) => {
                self.phase = Phase::BetweenChunks(transaction);
                Action::Reply(Reply::chunk(chunk.size))
            }
            (Busy::Chunk(_, chunk), Err(refusal)) => {
                self.phase = chunk.after(refusal);
                reply_or_close(refusal)
            }
            (Busy::Discarding(refusal, chunk), _) => {
                self.phase = chunk.after(refusal);
                self.refuse(refusal)
            }
            (busy @ (Busy::Asking(..) | Busy::Receiving(_) | Busy::Committing), _) => {
                unreachable!("a chunk ended in {busy:?}")
            }
        };
        self.act(action)
    }

    pub(super) fn on_bdat(&mut self, size: u64, last: bool) -> Action {
        let chunk = Chunk { size, last };
        if !self.offered().contains(Extension::Chunking) && self.client.is_some() {
            return self.discard(size, last, Refusal::NotImplemented);
        }
        let size_max = self.options.limits.message_size_max;
        let fits = |transaction: &Transaction| {
            let received = transaction.received.unwrap_or(0);
            received.checked_add(size).is_some_and(|total| total <= size_max)
        };
        match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Transaction(transaction) if transaction.envelope.recipients.is_empty() => {
                self.discard(size, last, Refusal::RcptFirst)
            }
            Phase::Transaction(transaction) if fits(&transaction) => {
                self.ask_for_data(transaction, Transfer::Chunk(chunk))
            }
            Phase::BetweenChunks(transaction) if fits(&transaction) => self.receive_chunk(transaction, chunk),
            Phase::Transaction(_) | Phase::BetweenChunks(_) => {
                self.discard(size, last, Refusal::MessageTooBig)
            }
            // The client sent its chunks without waiting for our replies.
            Phase::Refused(refusal) => self.discard(size, last, refusal),
            Phase::Idle => self.discard(size, last, Refusal::MailFirst),
            Phase::Busy(busy) => busy.reads_no_line(),
        }
    }

    pub(super) fn receive_chunk(&mut self, mut transaction: Transaction, chunk: Chunk) -> Action {
        // Not `received == 0`: the chunks before may all have been empty.
        let first = transaction.received.is_none();
        transaction.received = Some(transaction.received.unwrap_or(0) + chunk.size);
        self.phase = Phase::Busy(Busy::Chunk(transaction, chunk));
        Action::ReceiveChunk { size: chunk.size, first, last: chunk.last }
    }

    /// The transaction is over; the chunk must be read all the same.
    pub(super) fn discard(&mut self, size: u64, last: bool, refusal: Refusal) -> Action {
        if size > self.options.limits.discard_max {
            return Action::Close(refusal.into());
        }
        self.phase = Phase::Busy(Busy::Discarding(refusal, Chunk { size, last }));
        Action::DiscardChunk { size }
    }
}

impl Chunk {
    /// A client that does not wait for replies sends the rest of its chunks too.
    fn after(self, refusal: Refusal) -> Phase {
        if self.last { Phase::Idle } else { Phase::Refused(refusal) }
    }
}
