//! One connection, in clear or under TLS: bytes in, bytes out.

use std::io;

use ring::{Input, Pool, Stream};
use tls::Channel;

/// A connection and what has come in on it.
pub(crate) struct Wire {
    stream: Stream,
    /// As it came from the kernel.
    input: Input,
    tls: Option<Box<Secured>>,
}

struct Secured {
    channel: Channel,
    plain: Vec<u8>,
    read: usize,
    output: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: Stream, pool: Pool) -> Self {
        Self { stream, input: Input::new(pool), tls: None }
    }

    /// From here on, TLS. What came in before it in clear is thrown away (RFC 3207 §5).
    pub(crate) async fn secure(&mut self, channel: Channel) -> io::Result<()> {
        self.input.clear();
        self.tls = Some(Box::new(Secured { channel, plain: Vec::new(), read: 0, output: Vec::new() }));
        self.flush().await?;
        while !self.tls.as_ref().is_some_and(|tls| tls.channel.progress().handshake_done) {
            if self.step().await?.is_none() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// What has come in and is not consumed.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.tls {
            None => self.input.bytes(),
            Some(tls) => &tls.plain[tls.read..],
        }
    }

    pub(crate) fn consume(&mut self, count: usize) {
        match &mut self.tls {
            None => self.input.consume(count),
            Some(tls) => tls.read += count,
        }
    }

    /// Receives more. Zero: the peer sends nothing more.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        if self.tls.is_none() {
            return self.input.fill(&self.stream).await;
        }
        loop {
            match self.step().await? {
                None => return Ok(0),
                Some(0) => {}
                Some(count) => return Ok(count),
            }
        }
    }

    /// Receives once and has TLS look at it; says how much plaintext that gave. `None`: the end.
    async fn step(&mut self) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else { return Ok(None) };
        if tls.channel.progress().peer_closed || self.input.fill(&self.stream).await? == 0 {
            return Ok(None);
        }
        if tls.read == tls.plain.len() {
            tls.plain.clear();
            tls.read = 0;
        }
        let before = tls.plain.len();
        let plain = &mut tls.plain;
        let fed = tls.channel.feed(self.input.bytes(), &mut |bytes| plain.extend_from_slice(bytes));
        self.input.consume(self.input.len());
        let count = plain.len() - before;
        // A failure has an alert for the peer.
        self.flush().await?;
        fed.map_err(io::Error::other)?;
        Ok(Some(count))
    }

    /// Sends all pieces.
    pub(crate) async fn write(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.stream.write_slices(pieces).await };
        tls.channel.write_slices(pieces.iter().copied()).map_err(io::Error::other)?;
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        tls.channel.take_output(&mut tls.output);
        self.stream.write_all(&tls.output).await?;
        tls.output.clear();
        Ok(())
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }
}
