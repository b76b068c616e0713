//! What the tests of this room share.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};

use crate::{BoundListener, ConnectOptions, ListenAddress, ListenOptions, Listener, Options, Stream, start};

/// Runs the future on an executor of its own.
pub(crate) fn run<T: Send + 'static, F: Future<Output = T> + 'static>(
    main: impl FnOnce() -> F + Send + 'static,
) -> T {
    start(Options::new("test"), main).unwrap().join().unwrap()
}

pub(crate) fn listen(address: impl Into<SocketAddr>) -> Listener {
    let address = ListenAddress::Tcp(address.into());
    Listener::new(BoundListener::bind(&address, &ListenOptions::default()).unwrap())
}

pub(crate) fn listen_here() -> Listener {
    listen((Ipv4Addr::LOCALHOST, 0))
}

pub(crate) fn port(listener: &Listener) -> u16 {
    let ListenAddress::Tcp(address) = listener.address() else { panic!("no port") };
    address.port()
}

pub(crate) async fn connect(listener: &Listener) -> Stream {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port(listener)));
    Stream::connect(to, ConnectOptions::default()).await.unwrap()
}

/// Both ends of a connection: who opened, who accepted.
pub(crate) async fn pair() -> (Stream, Stream) {
    let listener = listen_here();
    let client = connect(&listener).await;
    (client, listener.accept().await.unwrap())
}

/// Bytes that repeat only after a long while.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| step()).collect()
}
