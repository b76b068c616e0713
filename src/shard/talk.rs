//! A connection on which we are the client: what goes over it, whoever has opened it.

use std::{io, mem, time::Duration};

use bytes::Bytes;
use mail::{Envelope, TlsDemand, Upstream};
use smtp::client::{Action, Client, Framing, ReplyLimits, ReplyReader, Transaction};

use crate::{facts, shard::Shard, socket::Socket};

/// What goes over the wire, besides content.
pub(crate) struct Talk {
    reader: ReplyReader,
    /// What the client says.
    pub(crate) out: Vec<u8>,
}

/// Content is written in blocks of this size, each with its own time (RFC 5321 §4.5.3.2.5).
const BLOCK: usize = 256 << 10;

impl Talk {
    pub(crate) fn new() -> Self {
        Self { reader: ReplyReader::new(ReplyLimits::default()), out: Vec::new() }
    }

    /// Sends what the client said and reads one reply.
    pub(crate) async fn read(
        &mut self,
        client: &mut Client,
        socket: &mut Socket,
        patience: Duration,
    ) -> Action {
        socket.send(|output| output.append(&mut self.out));
        socket.stream().deadline().set_after(patience);
        loop {
            let input = socket.input();
            let mut bytes = input.bytes();
            let before = bytes.len();
            let read = self.reader.read(&mut bytes);
            let consumed = before - bytes.len();
            input.consume(consumed);
            match read {
                Ok(Some(reply)) => return client.on_reply(reply, &mut self.out),
                Ok(None) => {}
                Err(error) => return client.on_garbage(error),
            }
            match socket.fill().await {
                Ok(0) => return client.on_closed(),
                Ok(_) => {}
                Err(error) => return lost(client, &error),
            }
        }
    }

    /// What the client said, and the content behind it.
    pub(crate) fn frame(&mut self, framing: Framing, content: &[Bytes]) -> Vec<Bytes> {
        let mut slices = Vec::with_capacity(8);
        self.drain_to(&mut slices);
        framing.frame(content, &mut slices);
        slices
    }

    /// Sends framed content and what the client has said meanwhile; what follows is `next`, unless that fails.
    pub(crate) async fn send(
        &mut self,
        client: &mut Client,
        socket: &mut Socket,
        mut slices: Vec<Bytes>,
        next: Action,
        patience: Duration,
    ) -> Action {
        self.drain_to(&mut slices);
        let (mut first, mut gathered) = (0, 0);
        for end in 1..=slices.len() {
            gathered += slices[end - 1].len();
            if gathered >= BLOCK || end == slices.len() {
                socket.stream().deadline().set_after(patience);
                if let Err(error) = socket.send_slices(&slices[first..end]).await {
                    return lost(client, &error);
                }
                (first, gathered) = (end, 0);
            }
        }
        next
    }

    /// Sends the last that the client said.
    pub(crate) async fn end(mut self, socket: &mut Socket, patience: Duration) {
        socket.send(|output| output.append(&mut self.out));
        socket.stream().deadline().set_after(patience);
        let _ = socket.flush().await;
    }

    fn drain_to(&mut self, slices: &mut Vec<Bytes>) {
        if !self.out.is_empty() {
            slices.push(Bytes::from(mem::take(&mut self.out)));
        }
    }
}

fn lost(client: &mut Client, error: &io::Error) -> Action {
    if error.kind() == io::ErrorKind::TimedOut { client.on_timeout() } else { client.on_closed() }
}

/// A message for those of its recipients who are at these places of the envelope.
pub(crate) fn transaction(
    envelope: &Envelope,
    places: &[u32],
    size: u64,
    tls: TlsDemand,
    upstream: Option<Box<Upstream>>,
) -> Transaction {
    let recipients = places.iter().filter_map(|place| envelope.recipients.get(*place as usize));
    Transaction {
        reverse_path: envelope.reverse_path.clone(),
        recipients: recipients.cloned().collect(),
        size,
        body: envelope.body,
        unconverted: None,
        utf8: envelope.utf8,
        ret: envelope.ret,
        envelope_id: envelope.envelope_id.clone(),
        by: smtp::By::left(&envelope.handling, facts::now()),
        priority: envelope.handling.priority,
        tls,
        upstream,
    }
}

/// Counts a connection as open until it is dropped.
pub(crate) struct OpenConnection<'a>(&'a Shard);

impl<'a> OpenConnection<'a> {
    pub(crate) fn new(shard: &'a Shard) -> Self {
        shard.metrics.outbound.open.up();
        shard.metrics.outbound.connections.one();
        Self(shard)
    }
}

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.metrics.outbound.open.down();
    }
}
