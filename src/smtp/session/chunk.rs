//! Mail data in chunks (RFC 3030 §2).
//!
//! A chunk follows its command at once, so even one that is refused must be read to its end.

use std::mem;

use super::{Action, Answers, Busy, Phase, Session, Transaction, Transfer};
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
            (Busy::Chunk(transaction, chunk), Err(refusal)) => {
                let answers = self.answers(&transaction);
                self.phase = chunk.after(refusal, answers);
                chunk.answered(Action::from(refusal), answers)
            }
            (Busy::Discarding(refusal, chunk, answers), _) => {
                self.phase = chunk.after(refusal, answers);
                chunk.answered(self.refuse(refusal), answers)
            }
            (busy @ (Busy::Asking(..) | Busy::Receiving(_) | Busy::Committing(_)), _) => {
                unreachable!("a chunk ended in {busy:?}")
            }
        };
        self.act(action)
    }

    pub(super) fn on_bdat(&mut self, size: u64, last: bool) -> Action {
        let chunk = Chunk { size, last };
        if !self.offered().contains(Extension::Chunking) && self.client.is_some() {
            return self.discard(chunk, Refusal::NotImplemented, Answers(1));
        }
        let size_max = self.options.limits.message_size_max;
        let fits = |transaction: &Transaction| {
            let received = transaction.received.unwrap_or(0);
            received.checked_add(size).is_some_and(|total| total <= size_max)
        };
        match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Transaction(transaction) if transaction.envelope.recipients.is_empty() => {
                self.discard(chunk, Refusal::RcptFirst, self.answers(&transaction))
            }
            Phase::Transaction(transaction) if fits(&transaction) => {
                self.ask_for_data(transaction, Transfer::Chunk(chunk))
            }
            Phase::BetweenChunks(transaction) if fits(&transaction) => self.receive_chunk(transaction, chunk),
            Phase::Transaction(transaction) | Phase::BetweenChunks(transaction) => {
                self.discard(chunk, Refusal::MessageTooBig, self.answers(&transaction))
            }
            // The client sent its chunks without waiting for our replies.
            Phase::Refused(refusal, answers) => self.discard(chunk, refusal, answers),
            Phase::Idle => self.discard(chunk, Refusal::MailFirst, self.answers_to_nobody()),
            Phase::Busy(busy) => busy.reads_no_line(),
        }
    }

    pub(super) fn receive_chunk(&mut self, mut transaction: Box<Transaction>, chunk: Chunk) -> Action {
        // Not `received == 0`: the chunks before may all have been empty.
        let first = transaction.received.is_none();
        transaction.received = Some(transaction.received.unwrap_or(0) + chunk.size);
        self.phase = Phase::Busy(Busy::Chunk(transaction, chunk));
        Action::ReceiveChunk { size: chunk.size, first, last: chunk.last }
    }

    /// The transaction is over; the chunk must be read all the same.
    pub(super) fn discard(&mut self, chunk: Chunk, refusal: Refusal, answers: Answers) -> Action {
        if chunk.size > self.options.limits.discard_max {
            return Action::Close(refusal.into());
        }
        self.phase = Phase::Busy(Busy::Discarding(refusal, chunk, answers));
        Action::DiscardChunk { size: chunk.size }
    }
}

impl Chunk {
    /// A client that does not wait for replies sends the rest of its chunks too.
    fn after(self, refusal: Refusal, answers: Answers) -> Phase {
        if self.last { Phase::Idle } else { Phase::Refused(refusal, answers) }
    }

    /// "The behavior of BDAT commands without the LAST parameter is not changed" (RFC 2033 §4.3).
    fn answered(self, action: Action, answers: Answers) -> Action {
        if self.last { answers.of(action) } else { action }
    }
}
