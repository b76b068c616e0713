//! A connection as both sides of SMTP use it: bytes in, replies out, under TLS or not.
//!
//! What is sent is gathered and leaves with [`Socket::flush`], or before the socket waits for the peer: so the
//! replies to a pipelined group travel together (RFC 2920 §3.2).

use std::{
    io, mem,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use delivery::tally::TlsResult;
use ring::{Input, Peer, Pool, Stream};
use tls::{Channel, ClientConfig, Credentials, Judge, ServerConfig, Shown, TlsError};

use crate::{caller::Caller, outbound_tls};

/// A stream with what was received and what is yet to be sent.
pub(crate) struct Socket {
    stream: Rc<Stream>,
    /// Who is there, when that is not just whoever has the address at the other end. Boxed: few connections need the room.
    caller: Option<Box<Caller>>,
    pool: Pool,
    /// In clear: what the session reads.
    input: Input,
    output: Vec<u8>,
    secure: Option<Box<Secure>>,
}

struct Secure {
    channel: Channel,
    /// As it came from the peer.
    ciphertext: Input,
    /// Decrypted, on its way into `Socket::input`: what it had no room for.
    plaintext: Vec<u8>,
}

/// Why a handshake did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the peer closed the connection")]
    Closed,
    /// As in a session that is taken up again after its certificate was struck off the list.
    #[error("the certificate of the client is no credential")]
    NoCredential,
}

impl HandshakeError {
    /// What a report to the server's owner says of it; none when it may be the way to it.
    pub(crate) fn result(&self) -> Option<TlsResult> {
        match self {
            Self::Tls(error) => Some(outbound_tls::result_of(error)),
            Self::Io(error) if error.kind() == io::ErrorKind::TimedOut => None,
            Self::Io(_) | Self::Closed | Self::NoCredential => Some(TlsResult::ValidationFailure),
        }
    }
}

/// What the bytes are that were received before a handshake and that nobody has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Written in clear, by whoever could write into the connection before it was secure: they are thrown away
    /// (RFC 3207 §4.2).
    Clear,
    /// The handshake, which began at once.
    Handshake,
}

/// What a buffer begins with: room for most replies.
const OUTPUT_FIRST: usize = 256;

impl Socket {
    pub(crate) fn new(stream: Stream, pool: Pool) -> Self {
        let input = Input::new(pool.clone());
        Self { stream: Rc::new(stream), caller: None, pool, input, output: Vec::new(), secure: None }
    }

    /// Lets `write` append to what is to be sent.
    pub(crate) fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.output.capacity() == 0 {
            self.output.reserve(OUTPUT_FIRST);
        }
        write(&mut self.output);
    }

    /// How much was gathered to be sent.
    pub(crate) fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Sends what was gathered.
    pub(crate) fn flush(&mut self) -> Sending<'_> {
        // Given back: to make another costs less than the call to the kernel, and who waits for the peer keeps none.
        let mut output = mem::take(&mut self.output);
        if let Some(secure) = &mut self.secure
            && !output.is_empty()
        {
            if let Err(error) = secure.channel.write(&output) {
                return Sending::Done(Err(io::Error::other(error)));
            }
            output.clear();
            secure.channel.take_output(&mut output);
        }
        Sending::begin(&self.stream, output)
    }

    /// Sends what was gathered, and the slices behind it.
    pub(crate) async fn send_slices(&mut self, slices: &[Bytes]) -> io::Result<()> {
        let Some(secure) = &mut self.secure else {
            if self.output.is_empty() {
                return self.stream.write_slices(slices).await;
            }
            // One call to the kernel for the commands and the content behind them.
            let mut all = Vec::with_capacity(slices.len() + 1);
            all.push(Bytes::from(mem::take(&mut self.output)));
            all.extend_from_slice(slices);
            return self.stream.write_slices(&all).await;
        };
        if !self.output.is_empty() {
            let output = mem::take(&mut self.output);
            secure.channel.write(&output).map_err(io::Error::other)?;
        }
        // A piece at a time: the ciphertext of a large message does not stand in memory as a whole.
        const PIECE: usize = 256 << 10;
        let (mut first, mut gathered) = (0, 0);
        for (next, slice) in slices.iter().enumerate() {
            gathered += slice.len();
            if gathered >= PIECE || next + 1 == slices.len() {
                let piece = slices[first..=next].iter().map(AsRef::as_ref);
                secure.channel.write_slices(piece).map_err(io::Error::other)?;
                send_ciphertext(&self.stream, &mut secure.channel).await?;
                (first, gathered) = (next + 1, 0);
            }
        }
        Ok(())
    }

    /// Waits until more has been received; zero means that the peer sends nothing more. Flushes first.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        self.flush().await?;
        if self.secure.is_none() {
            return self.input.fill(&self.stream).await;
        }
        // Boxed: a connection in clear should not carry the room for it.
        Box::pin(self.fill_secure()).await
    }

    async fn fill_secure(&mut self) -> io::Result<usize> {
        let Some(secure) = &mut self.secure else { return Ok(0) };
        // Nobody receives into it, so nobody gives it back: who waits with nothing unread is to hold no memory.
        self.input.release();
        let before = self.input.len();
        loop {
            if secure.plaintext.is_empty() {
                if secure.receive(&self.stream).await? == 0 {
                    return Ok(0);
                }
                if secure.channel.output_len() > 0 {
                    send_ciphertext(&self.stream, &mut secure.channel).await?;
                }
            }
            secure.hand_over(&mut self.input, &self.pool, &self.stream).await?;
            let received = self.input.len() - before;
            if received > 0 {
                return Ok(received);
            }
            if secure.channel.progress().peer_closed {
                return Ok(0);
            }
        }
    }

    /// Our side of a TLS handshake as server.
    pub(crate) async fn accept_tls(
        &mut self,
        config: &Arc<ServerConfig>,
        unread: Unread,
    ) -> Result<(), HandshakeError> {
        match unread {
            Unread::Clear => self.input.clear(),
            Unread::Handshake => {}
        }
        self.handshake(Channel::server(config)?).await
    }

    /// Our side of a TLS handshake as client; `name` is what we call the server.
    pub(crate) async fn connect_tls(
        &mut self,
        config: &Arc<ClientConfig>,
        name: &str,
    ) -> Result<(), HandshakeError> {
        self.input.clear();
        self.handshake(Channel::client(config, name)?).await
    }

    async fn handshake(&mut self, channel: Channel) -> Result<(), HandshakeError> {
        self.flush().await?;
        let ciphertext = mem::replace(&mut self.input, Input::new(self.pool.clone()));
        let unread = !ciphertext.is_empty();
        let secure = self.secure.insert(Box::new(Secure { channel, ciphertext, plaintext: Vec::new() }));
        let mut fed = if unread { secure.decrypt() } else { Ok(()) };
        loop {
            match fed {
                Ok(()) => send_ciphertext(&self.stream, &mut secure.channel).await?,
                Err(error) => {
                    // The alert says to the peer what we did not like.
                    let _ = send_ciphertext(&self.stream, &mut secure.channel).await;
                    return Err(error.into());
                }
            }
            if secure.channel.progress().handshake_done {
                secure.hand_over(&mut self.input, &self.pool, &self.stream).await?;
                return Ok(());
            }
            if secure.ciphertext.fill(&self.stream).await? == 0 {
                return Err(HandshakeError::Closed);
            }
            fed = secure.decrypt();
        }
    }

    /// What was received and not read yet, in clear.
    pub(crate) fn input(&mut self) -> &mut Input {
        &mut self.input
    }

    pub(crate) const fn stream(&self) -> &Rc<Stream> {
        &self.stream
    }

    /// Who is at the other end, or behind the proxy there.
    pub(crate) fn peer(&self) -> Peer {
        self.caller.as_ref().map_or_else(|| self.stream.peer(), |caller| caller.peer)
    }

    /// The same, and how it is known.
    pub(crate) fn caller(&self) -> Caller {
        self.caller.as_ref().map_or_else(|| Caller::at(self.stream.peer()), |caller| **caller)
    }

    /// More is known of who is there.
    pub(crate) fn set_caller(&mut self, caller: Caller) {
        self.caller = Some(Box::new(caller));
    }

    /// What TLS agreed on, when there is TLS.
    pub(crate) fn tls_session(&self) -> Option<tls::Session> {
        self.secure.as_ref()?.channel.session()
    }

    /// What a login may be tied to, when there is TLS and it gives something.
    pub(crate) fn tls_binding(&self) -> Option<tls::Binding> {
        self.secure.as_ref()?.channel.binding()
    }

    /// Whether the server there has shown a certificate for this name.
    pub(crate) fn verify_peer(&self, judge: &Judge, name: &str, now: Duration) -> Result<(), TlsError> {
        let chain = self.secure.as_ref().map_or(&[][..], |secure| secure.channel.peer_certificates());
        judge.verify(chain, name, now)
    }

    /// What the client has shown in the handshake.
    pub(crate) fn shown(&self, credentials: &Credentials, now: Duration) -> Shown {
        self.secure.as_ref().map_or(Shown::Nothing, |secure| secure.channel.shown(credentials, now))
    }

    /// Sends what was gathered and closes so that the peer gets it.
    pub(crate) async fn close(mut self) {
        // RFC 5321 §3.8: the reply must arrive before the connection goes; who does not take it within this time does
        // without.
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
        self.stream.deadline().set_after(PATIENCE);
        if self.flush().await.is_err() {
            return;
        }
        if let Some(secure) = &mut self.secure {
            secure.channel.close_notify();
            if send_ciphertext(&self.stream, &mut secure.channel).await.is_err() {
                return;
            }
        }
        if self.input.is_empty() {
            // Nothing unread, nothing to reset the connection.
            return;
        }
        if let Ok(stream) = Rc::try_unwrap(self.stream) {
            // Boxed: it has a buffer to drain into, which an open connection should not carry around.
            Box::pin(stream.close_gently(PATIENCE)).await;
        }
    }
}

impl Secure {
    /// Receives once and decrypts what came.
    async fn receive(&mut self, stream: &Stream) -> io::Result<usize> {
        let received = self.ciphertext.fill(stream).await?;
        self.decrypt().map_err(io::Error::other)?;
        Ok(received)
    }

    /// Gives what is decrypted to `input`, as far as there is room: the end of a record that was begun before comes on
    /// top of a whole buffer of ciphertext.
    async fn hand_over(&mut self, input: &mut Input, pool: &Pool, stream: &Stream) -> io::Result<()> {
        // Where there is none at all, `push` says so.
        let room = pool.options().large.saturating_sub(input.len()).max(1);
        let before = input.len();
        let pushed = input.push(&self.plaintext[..room.min(self.plaintext.len())], stream.deadline()).await;
        // Nothing is lost to a deadline, which may have been set to have us look whether to go on.
        self.plaintext.drain(..input.len() - before);
        if self.plaintext.is_empty() {
            self.plaintext = Vec::new();
        }
        pushed
    }

    /// Decrypts what was received.
    fn decrypt(&mut self) -> Result<(), TlsError> {
        let plaintext = &mut self.plaintext;
        let fed = self.channel.feed(self.ciphertext.bytes(), &mut |bytes| plaintext.extend_from_slice(bytes));
        self.ciphertext.consume(self.ciphertext.len());
        self.ciphertext.release();
        fed.map(drop)
    }
}

fn send_ciphertext<'a>(stream: &'a Stream, channel: &mut Channel) -> Sending<'a> {
    let mut output = Vec::new();
    channel.take_output(&mut output);
    Sending::begin(stream, output)
}

/// Something on its way to the peer. Mostly the kernel has taken it at once.
#[must_use = "what the kernel did not take at once is sent as it is awaited"]
pub(crate) enum Sending<'a> {
    Done(io::Result<()>),
    /// Boxed: a connection that waits for other things should not carry the room for it.
    Waiting(Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>),
}

impl<'a> Sending<'a> {
    fn begin(stream: &'a Stream, output: Vec<u8>) -> Self {
        if output.is_empty() {
            return Self::Done(Ok(()));
        }
        match stream.write_now(&output) {
            Ok(sent) if sent == output.len() => Self::Done(Ok(())),
            Ok(sent) => Self::Waiting(Box::pin(async move { stream.write_all(&output[sent..]).await })),
            Err(error) => Self::Done(Err(error)),
        }
    }
}

impl Future for Sending<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Done(result) => Poll::Ready(mem::replace(result, Ok(()))),
            Self::Waiting(rest) => rest.as_mut().poll(context),
        }
    }
}
