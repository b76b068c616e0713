//! The client's end of a connection: our workers, and simulated clients.

use bytes::Bytes;
use mail::BodyType;
use smtp::client::{
    Action, Channel, Client, Ending, Framing, Options, ReplyLimits, ReplyReader, Stage, Transaction,
    TransactionOutcome,
};

/// What the owner must do next, after it has sent [`Calling::out`].
#[derive(Debug)]
#[must_use]
pub(crate) enum Want {
    /// Wait for bytes, but not for ever.
    Bytes(Stage),
    /// [`Calling::send_content`] of the transaction given last.
    Content(Framing),
    /// Take note, then [`Calling::on_finished`].
    Finished(TransactionOutcome),
    /// [`Calling::give`] or [`Calling::quit`].
    Transaction,
    /// Close.
    Close(Ending),
}

pub(crate) struct Calling {
    client: Client,
    reader: ReplyReader,
    input: Vec<u8>,
    /// What is to be sent.
    pub(crate) out: Vec<u8>,
    action: Option<Action>,
    /// The other side has closed; what it sent before may still be read.
    closed: bool,
}

impl Calling {
    pub(crate) fn new(options: Options) -> Self {
        let mut client = Client::new(options);
        let action = Some(client.on_connected(Channel::Clear));
        let reader = ReplyReader::new(ReplyLimits::default());
        Self { client, reader, input: Vec::new(), out: Vec::new(), action, closed: false }
    }

    pub(crate) fn on_bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    pub(crate) fn on_closed(&mut self) {
        self.closed = true;
    }

    pub(crate) fn on_timeout(&mut self) {
        self.action = Some(self.client.on_timeout());
    }

    pub(crate) fn want(&mut self) -> Want {
        loop {
            match self.action.take().expect("every input gives an action") {
                Action::Read(stage) => {
                    let mut rest = &self.input[..];
                    let read = self.reader.read(&mut rest);
                    self.input = rest.to_vec();
                    self.action = Some(match read {
                        Ok(Some(reply)) => self.client.on_reply(reply, &mut self.out),
                        Err(error) => self.client.on_garbage(error),
                        Ok(None) if self.closed => self.client.on_closed(),
                        Ok(None) => {
                            self.action = Some(Action::Read(stage));
                            return Want::Bytes(stage);
                        }
                    });
                }
                Action::StartTls => unreachable!("TLS is offered nowhere"),
                Action::Derive(_) => unreachable!("nobody logs in"),
                Action::SendContent(framing) => return Want::Content(framing),
                Action::Finished(outcome) => return Want::Finished(outcome),
                Action::Ready => {
                    self.action = Some(Action::Ready);
                    return Want::Transaction;
                }
                Action::Close(ending) => return Want::Close(ending),
            }
        }
    }

    pub(crate) fn takes_next(&self) -> bool {
        self.client.takes_next()
    }

    pub(crate) fn give(&mut self, mut transaction: Transaction) {
        // As routes with 8bit = "as-is" have it: what comes out is held against what went in.
        if !self.client.offers().is_some_and(|offers| offers.eight_bit_mime) {
            transaction.body = BodyType::SevenBit;
        }
        self.action = Some(self.client.on_transaction(transaction, &mut self.out));
    }

    pub(crate) fn quit(&mut self) {
        self.action = Some(self.client.on_quit(&mut self.out));
    }

    pub(crate) fn send_content(&mut self, framing: Framing, content: &[Bytes]) {
        let mut slices = Vec::new();
        framing.frame(content, &mut slices);
        self.out.extend_from_slice(&slices.concat());
        self.action = Some(self.client.on_content_sent(&mut self.out));
    }

    pub(crate) fn on_finished(&mut self) {
        self.action = Some(self.client.on_finished(&mut self.out));
    }
}
