//! A socket arrives: who serves it, is there room for it, does TLS come first, and who talks to it.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::AtomicU32},
};

use ring::{AcceptOptions, BoundListener, Listener, Peer, Shortage};
use smtp::Reply;
use tls::ServerConfig;
use tokio::sync::watch as watching;
use watch::{
    ConnectionRefusal,
    events::{AcceptPaused, AcceptResumed, ProxyRefused, SessionPanicked, TlsFailed},
};

use crate::{
    Gate,
    admission::{Admitted, note_turned},
    balance::{Arrived, Seat},
    caller::{ProxyError, look_at_certificate, read_header},
    connection,
    settings::{Door, TlsStart},
    shard::Shard,
    socket::{HandshakeError, Socket, Unread},
};

/// A listening socket for one shard, and which listener of the configuration it belongs to.
#[derive(Debug)]
pub struct ListenerSocket {
    /// The name in the configuration.
    pub listener: String,
    /// The socket.
    pub socket: BoundListener,
    /// Connections open on this listener, over all shards.
    pub open: Arc<AtomicU32>,
}

/// Takes connections for as long as the gate is open and the shard lives; leaves so many descriptors to others.
pub(crate) async fn accept(
    shard: Rc<Shard>,
    socket: ListenerSocket,
    reserve: u32,
    mut gate: watching::Receiver<Gate>,
) {
    let ListenerSocket { listener: name, socket, open } = socket;
    let name: Arc<str> = name.into();
    let on_shortage = Box::new(tell_shortage(&shard, &name));
    let options = AcceptOptions { reserve: reserve.into(), on_shortage: Some(on_shortage) };
    let listener = Listener::with(socket, options);
    loop {
        // Nobody can open or close them any more only when the program ends.
        match gate.wait_for(|gate| *gate != Gate::Closed).await.map(|gate| *gate) {
            Ok(Gate::Open) | Err(_) => {}
            Ok(Gate::Closed | Gate::Left) => return,
        }
        let next = async { Some(listener.take().await) };
        let shut = async {
            match gate.wait_for(|gate| *gate != Gate::Open).await {
                Ok(_) => None,
                Err(_) => std::future::pending().await,
            }
        };
        // In this order: somebody may always be waiting.
        let socket = match futures_lite::future::or(shut, next).await {
            Some(Ok(socket)) => socket,
            Some(Err(error)) => {
                return tracing::error!(listener = &*name, %error, "no more connections are taken here");
            }
            None => continue,
        };
        if shard.is_stopping() {
            return;
        }
        let arrived = Arrived { listener: name.clone(), open: open.clone(), socket };
        let placed = match shard.settings().balance {
            true => shard.balance.place(arrived, ring::clock::now()),
            false => Some((arrived, shard.balance.keep())),
        };
        match placed {
            Some((arrived, seat)) => begin(&shard, arrived, seat),
            None => shard.metrics.inbound.given.one(),
        }
    }
}

/// Takes connections that have come to other shards, until the shard stops.
pub(crate) async fn take_over(shard: Rc<Shard>) {
    while let Some((arrived, seat)) = shard.balance.next().await {
        shard.metrics.inbound.taken.one();
        begin(&shard, arrived, seat);
    }
}

/// Takes no more connections that have come to other shards; those that wait are served.
pub(crate) fn stop_taking_over(shard: &Rc<Shard>) {
    for (arrived, seat) in shard.balance.close() {
        shard.metrics.inbound.taken.one();
        begin(shard, arrived, seat);
    }
}

/// Serves a connection here.
fn begin(shard: &Rc<Shard>, Arrived { listener, open, socket }: Arrived, seat: Seat) {
    let Some(door) = shard.settings().door(&listener) else { return };
    let socket = Box::new(Socket::new(socket.into(), shard.pool.clone()));
    let admitted = Admitted::new(shard, open, seat, socket.stream());
    let metrics = shard.metrics.clone();
    let address = client_address(socket.stream().peer());
    ring::spawn_caught(serve(shard.clone(), door, socket, admitted), move |panic| {
        metrics.executor.panicked.one();
        SessionPanicked { peer: address, error: &panic }.emit(ring::clock::unix_micros());
    });
}

/// Counts the pauses of a listener, and logs the first and the end of those that belong together.
fn tell_shortage(shard: &Rc<Shard>, listener: &str) -> impl Fn(Shortage) + 'static {
    let (number, metrics) = (shard.number, shard.metrics.clone());
    let listener = listener.to_owned();
    let began = Cell::new(None);
    move |shortage| {
        let now = ring::clock::now();
        match shortage {
            Shortage::Pause(error) => {
                metrics.inbound.pauses.one();
                if began.replace(began.get().or(Some(now))).is_none() {
                    AcceptPaused { shard: number, listener: &listener, error: &error.to_string() }
                        .emit(ring::clock::unix_micros());
                }
            }
            Shortage::Over => {
                let time = now.saturating_sub(began.take().unwrap_or(now));
                AcceptResumed { shard: number, listener: &listener, time }.emit(ring::clock::unix_micros());
            }
        }
    }
}

#[expect(clippy::manual_async_fn, reason = "an async function keeps its arguments twice")]
fn serve(
    shard: Rc<Shard>,
    door: Rc<Door>,
    mut socket: Box<Socket>,
    admitted: Admitted,
) -> impl Future<Output = ()> {
    async move {
        if let Some(proxies) = &door.proxies
            && !admitted.is_one_too_many(&door)
        {
            // Boxed: an open connection should not carry the room for it.
            let read = Box::pin(read_header(&mut socket, proxies, &door)).await;
            if let Err(error) = read {
                return note_proxy(&shard, &door, socket.stream().peer(), &error);
            }
        }
        let (place, verdict) = admitted.judge(&door, socket.caller());
        if let Err(turned) = verdict {
            note_turned(&shard, socket.peer(), turned);
            // Under implicit TLS nobody could read it. RFC 5321 §3.1 has us wait for QUIT after a 554; who is not wanted does
            // not get to hold a connection for that.
            if !matches!(door.tls, TlsStart::AtOnce(_)) {
                socket.send(|output| Reply::from(turned.refusal()).write_to(output));
            }
            let turn_away = async move {
                socket.close().await;
                drop(place);
            };
            return Box::pin(turn_away).await;
        }
        if let TlsStart::AtOnce(config) = &door.tls
            && Box::pin(secure(&shard, &door, &mut socket, config, Unread::Handshake)).await.is_err()
        {
            return;
        }
        connection::serve(&shard, &door, socket, &admitted, place).await;
    }
}

/// Counts a connection of which it is not known for whom it is, and logs it unless somebody only looked.
fn note_proxy(shard: &Shard, door: &Door, peer: Peer, error: &ProxyError) {
    shard.metrics.inbound.refused.of(ConnectionRefusal::Proxy).one();
    if !matches!(error, ProxyError::Closed) {
        ProxyRefused { peer: client_address(peer), listener: &door.name, error: &error.to_string() }
            .emit(ring::clock::unix_micros());
    }
}

/// Goes over to TLS, and looks at the certificate that the client has shown. Counts it, and logs what failed.
pub(crate) async fn secure(
    shard: &Shard,
    door: &Door,
    socket: &mut Socket,
    config: &Arc<ServerConfig>,
    unread: Unread,
) -> Result<(), HandshakeError> {
    socket.stream().deadline().set_after(door.timeouts.handshake);
    let outcome = match socket.accept_tls(config, unread).await {
        Ok(()) => look_at_certificate(door, socket),
        Err(error) => Err(error),
    };
    let metrics = &shard.metrics.inbound;
    match &outcome {
        Ok(()) => {
            metrics.tls.done.one();
            if socket.tls_session().is_some_and(|session| session.resumed) {
                metrics.tls_resumed.one();
            }
        }
        Err(error) => {
            metrics.tls.failed.one();
            TlsFailed { peer: client_address(socket.peer()), side: "in", error: &error.to_string() }
                .emit(ring::clock::unix_micros());
        }
    }
    outcome
}

/// A client's address for the log; one that came by a Unix socket has the unspecified one.
pub(crate) fn client_address(peer: Peer) -> SocketAddr {
    match peer {
        Peer::Tcp(address) => address,
        Peer::Unix => SocketAddr::from(([0, 0, 0, 0], 0)),
    }
}
