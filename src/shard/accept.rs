//! A socket arrives: is there room for it, does TLS come first, and who talks to it.

use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use ring::{AcceptOptions, BoundListener, Listener, Peer, Shortage, Stream};
use smtp::{Refusal, Reply};
use watch::{
    ConnectionRefusal,
    events::{AcceptPaused, AcceptResumed, ConnectionRefused, SessionPanicked, TlsFailed},
};

use crate::{
    connection,
    settings::{Door, TlsStart},
    shard::Shard,
    socket::Socket,
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

/// Takes connections for as long as the shard lives; leaves so many descriptors to others.
pub(crate) async fn accept(shard: Rc<Shard>, socket: ListenerSocket, reserve: u32) {
    let ListenerSocket { listener: name, socket, open } = socket;
    let on_shortage = Box::new(tell_shortage(&shard, &name));
    let options = AcceptOptions { reserve: reserve.into(), on_shortage: Some(on_shortage) };
    let listener = Listener::with(socket, options);
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                return tracing::error!(listener = name, %error, "no more connections are taken here");
            }
        };
        if shard.is_stopping() {
            return;
        }
        let Some(door) = shard.settings().door(&name) else { continue };
        let socket = Socket::new(stream, shard.pool.clone());
        let admitted = Admitted::new(&shard, &door, &open, socket.stream());
        let metrics = shard.metrics.clone();
        let address = client_address(socket.stream().peer());
        ring::spawn_caught(serve(shard.clone(), door, socket, admitted), move |panic| {
            metrics.executor.panicked.one();
            SessionPanicked { peer: address, error: &panic }.emit(ring::clock::unix_micros());
        });
    }
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

/// The counts that a connection is in, until it is dropped.
struct Admitted {
    open: Arc<AtomicU32>,
    shard: Rc<Shard>,
    peer: Peer,
    session: u64,
    refusal: Option<ConnectionRefusal>,
}

impl Admitted {
    fn new(shard: &Rc<Shard>, door: &Door, open: &Arc<AtomicU32>, stream: &Rc<Stream>) -> Self {
        let peer = stream.peer();
        let others = open.fetch_add(1, Ordering::Relaxed);
        let same_client = shard.clients.enter(peer.ip());
        let refusal = if others >= door.limits.connections_max {
            Some(ConnectionRefusal::Limit)
        } else if same_client > door.limits.connections_per_client_max && !shard.settings().relays(peer.ip())
        {
            Some(ConnectionRefusal::ClientLimit)
        } else {
            None
        };
        shard.metrics.inbound.open.up();
        shard.metrics.inbound.connections.one();
        Self { open: open.clone(), shard: shard.clone(), peer, session: shard.enter_session(stream), refusal }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.shard.clients.leave(self.peer.ip());
        self.shard.metrics.inbound.open.down();
        self.shard.leave_session(self.session);
    }
}

async fn serve(shard: Rc<Shard>, door: Rc<Door>, mut socket: Socket, admitted: Admitted) {
    let client = socket.stream().peer();
    if let Some(refusal) = admitted.refusal {
        shard.metrics.inbound.refused.of(refusal).one();
        ConnectionRefused { client: client_address(client), reason: Refusal::TooManyConnections.label() }
            .emit(ring::clock::unix_micros());
        // Under implicit TLS nobody could read it.
        if !matches!(door.tls, TlsStart::AtOnce(_)) {
            socket.send(|output| Reply::from(Refusal::TooManyConnections).write_to(output));
        }
        return socket.close().await;
    }
    if let TlsStart::AtOnce(config) = &door.tls {
        socket.stream().deadline().set_after(door.timeouts.handshake);
        let outcome = socket.accept_tls(config).await;
        note_handshake(&shard, client, outcome.as_ref().err());
        if outcome.is_err() {
            return;
        }
    }
    connection::serve(&shard, &door, socket).await;
}

/// Counts a handshake with a client, and logs one that failed.
pub(crate) fn note_handshake(shard: &Shard, client: Peer, failed: Option<&crate::socket::HandshakeError>) {
    let Some(error) = failed else { return shard.metrics.inbound.tls.done.one() };
    shard.metrics.inbound.tls.failed.one();
    TlsFailed { peer: client_address(client), side: "in", error: &error.to_string() }
        .emit(ring::clock::unix_micros());
}

/// A client's address for the log; one that came by a Unix socket has the unspecified one.
pub(crate) fn client_address(peer: Peer) -> SocketAddr {
    match peer {
        Peer::Tcp(address) => address,
        Peer::Unix => SocketAddr::from(([0, 0, 0, 0], 0)),
    }
}

/// Open connections by client address on this shard.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    by_address: std::cell::RefCell<hashbrown::HashMap<std::net::IpAddr, u32>>,
    entered: Cell<u64>,
}

impl Clients {
    /// One more; says how many there are now. Unix sockets are not counted.
    fn enter(&self, address: Option<std::net::IpAddr>) -> u32 {
        let Some(address) = address else { return 0 };
        self.entered.set(self.entered.get() + 1);
        let mut by_address = self.by_address.borrow_mut();
        let count = by_address.entry(address).or_insert(0);
        *count += 1;
        *count
    }

    fn leave(&self, address: Option<std::net::IpAddr>) {
        let Some(address) = address else { return };
        let mut by_address = self.by_address.borrow_mut();
        if let hashbrown::hash_map::Entry::Occupied(mut entry) = by_address.entry(address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn clients_are_counted_and_forgotten() {
        let clients = Clients::default();
        let address = Some([192, 0, 2, 1].into());
        assert_eq!((clients.enter(address), clients.enter(address)), (1, 2));
        assert_eq!(clients.enter(None), 0);
        clients.leave(address);
        clients.leave(address);
        assert!(clients.by_address.borrow().is_empty());
    }
}
