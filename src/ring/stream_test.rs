//! Connections, through the kernel: both families, Unix, ends and half ends, slow readers, deadlines.

use std::cell::Cell;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::testing::{connect, listen, listen_here, noise, pair, port, run};
use crate::{
    BoundListener, ConnectOptions, Datagram, DatagramServer, Elapsed, ListenAddress, ListenOptions, Listener,
    Peer, Stream, clock, sleep, spawn_task, timeout,
};

async fn echo(client: &Stream, server: &Stream) {
    client.write_all(b"ping").await.unwrap();
    let mut buffer = [0; 16];
    assert_eq!(server.read(&mut buffer).await.unwrap(), 4);
    server.write_slices(&[&b"po"[..], b"", b"ng"]).await.unwrap();
    assert_eq!(client.read(&mut buffer).await.unwrap(), 4);
    assert_eq!(&buffer[..4], b"pong");
}

#[test]
fn ipv4_and_ipv6_on_one_socket() {
    run(|| async {
        let listener = listen((Ipv6Addr::UNSPECIFIED, 0));
        for to in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            let local = Some(to);
            let options = ConnectOptions { local, ..ConnectOptions::default() };
            let client = Stream::connect(SocketAddr::new(to, port(&listener)), options).await.unwrap();
            let server = listener.accept().await.unwrap();
            assert_eq!(server.peer(), Peer::Tcp(client.local().unwrap()), "IPv4 is seen as IPv4");
            assert_eq!(server.local(), Some(SocketAddr::new(to, port(&listener))));
            assert!(server.nodelay().unwrap() && client.nodelay().unwrap());
            echo(&client, &server).await;
        }
    });
}

#[test]
fn v6_only_leaves_ipv4_alone() {
    run(|| async {
        let address = ListenAddress::Tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)));
        let options = ListenOptions { v6_only: true, ..ListenOptions::default() };
        let listener = Listener::new(BoundListener::bind(&address, &options).unwrap());
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&listener)));
        let error = Stream::connect(to, ConnectOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    run(move || async move {
        let address = ListenAddress::Unix(path.clone());
        for _ in 0..2 {
            // The second time, the socket of the first is still lying there.
            let bound = BoundListener::bind(&address, &ListenOptions::default()).unwrap();
            let second = BoundListener::bind(&address, &ListenOptions::default()).unwrap_err();
            assert_eq!(second.error.kind(), ErrorKind::AddrInUse, "somebody answers there");
            let others = [Listener::new(bound.try_clone().unwrap()), Listener::new(bound)];
            drop(others[0].accept().await.unwrap());
            let client = Stream::connect_unix(&path, Duration::from_secs(5)).await.unwrap();
            let server = others[1].accept().await.unwrap();
            assert_eq!(server.peer(), Peer::Unix);
            echo(&client, &server).await;
        }
    });
}

#[test]
fn end_and_half_end() {
    run(|| async {
        let (client, server) = pair().await;
        let mut buffer = [0; 16];
        client.write_all(b"last words").await.unwrap();
        client.shutdown_write().unwrap();
        assert_eq!(server.read(&mut buffer).await.unwrap(), 10);
        assert_eq!(server.read(&mut buffer).await.unwrap(), 0);
        server.write_all(b"heard").await.unwrap();
        assert_eq!(client.read(&mut buffer).await.unwrap(), 5, "the other half is still open");
        drop(server);
        assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
    });
}

#[test]
fn reset_and_refusal_are_errors() {
    run(|| async {
        let (client, server) = pair().await;
        server.abort();
        let mut buffer = [0; 16];
        assert_eq!(client.read(&mut buffer).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

        let listener = listen_here();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&listener)));
        drop(listener);
        let error = Stream::connect(to, ConnectOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn connecting_gives_up() {
    run(|| async {
        // A listener whose backlog is full does not answer the handshake.
        let address = ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let options = ListenOptions { backlog: 0, ..ListenOptions::default() };
        let listener = Listener::new(BoundListener::bind(&address, &options).unwrap());
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&listener)));
        let patient = ConnectOptions { timeout: Duration::from_millis(50), ..ConnectOptions::default() };
        let mut waiting = Vec::new();
        let error = loop {
            match Stream::connect(to, patient).await {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10, "the backlog is never full");
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn large_vectored_writes_to_a_slow_reader() {
    run(|| async {
        let (client, server) = pair().await;
        server.set_kernel_buffers(16 << 10, 16 << 10).unwrap();
        client.set_kernel_buffers(16 << 10, 16 << 10).unwrap();
        let sent = Bytes::from(noise(3 << 20));
        let mut slices = Vec::new();
        let mut rest = sent.clone();
        for length in (1..).map(|step| step * 37 % 5000) {
            if rest.len() <= length {
                break;
            }
            slices.push(rest.split_to(length));
        }
        slices.push(rest);
        assert!(slices.len() > 1000);
        let writer = spawn_task(async move { client.write_slices(&slices).await.unwrap() });
        let mut received = Vec::new();
        let mut buffer = vec![0; 7000];
        while received.len() < sent.len() {
            let count = server.read(&mut buffer).await.unwrap();
            assert!(count > 0, "ended after {} bytes", received.len());
            received.extend_from_slice(&buffer[..count]);
        }
        writer.await;
        assert!(received == sent);
    });
}

#[test]
fn a_cancelled_accept_loses_nobody() {
    run(|| async {
        let listener = listen_here();
        for _ in 0..5 {
            assert_eq!(timeout(Duration::from_millis(2), listener.accept()).await.unwrap_err(), Elapsed);
            let client = connect(&listener).await;
            let server = listener.accept().await.unwrap();
            echo(&client, &server).await;
        }
        // Cancelled in the very instant that somebody comes.
        for _ in 0..50 {
            let waiting = timeout(Duration::ZERO, listener.accept());
            let client = connect(&listener).await;
            let server = match waiting.await {
                Ok(server) => server.unwrap(),
                Err(Elapsed) => listener.accept().await.unwrap(),
            };
            echo(&client, &server).await;
        }
    });
}

#[test]
fn a_stopped_listener_wakes_who_accepts() {
    run(|| async {
        let listener = Rc::new(listen_here());
        let accepting = Rc::clone(&listener);
        let task = spawn_task(async move { accepting.accept().await.map(drop) });
        sleep(Duration::from_millis(5)).await;
        listener.stop();
        assert!(task.await.is_err());
    });
}

/// Descriptors of this process that are sockets. Other tests may run beside this one under `cargo test`, so this looks
/// only at those that have to do with the port.
fn sockets_at(port: u16) -> usize {
    let wanted = format!(":{port:04X} ");
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let inodes: Vec<_> = table
        .lines()
        .filter(|line| line.contains(&wanted))
        .filter_map(|line| line.split_whitespace().nth(9))
        .filter(|inode| *inode != "0")
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| inodes.iter().any(|inode| link.to_str() == Some(inode))).count()
}

#[test]
fn no_descriptor_is_lost() {
    run(|| async {
        let listener = listen_here();
        let round = async |count| {
            for index in 0..count {
                let client = connect(&listener).await;
                // Some are accepted by a call that was cancelled before.
                let early = if index % 7 == 0 {
                    timeout(Duration::ZERO, listener.accept()).await
                } else {
                    Err(Elapsed)
                };
                let accepted = match early {
                    Ok(accepted) => accepted,
                    Err(Elapsed) => listener.accept().await,
                };
                if index % 3 == 0 {
                    client.write_all(b"x").await.unwrap();
                }
                if index % 5 == 0 {
                    client.abort();
                }
                drop(accepted);
            }
        };
        round(1000).await;
        // The ring lets go of the last sockets in its next turns.
        for _ in 0..100 {
            if sockets_at(port(&listener)) <= 2 {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        let left = sockets_at(port(&listener));
        assert!(left <= 2, "{left} sockets are left, where the listener and its waiter would do");
    });
}

#[test]
fn a_deadline_ends_waits_but_not_the_connection() {
    run(|| async {
        let (client, server) = pair().await;
        let mut buffer = [0; 16];
        let begin = clock::now();
        server.deadline().set_after(Duration::from_millis(30));
        assert_eq!(server.read(&mut buffer).await.unwrap_err().kind(), ErrorKind::TimedOut);
        let waited = clock::now() - begin;
        assert!(waited >= Duration::from_millis(30) && waited < Duration::from_secs(2), "waited {waited:?}");
        assert_eq!(server.read(&mut buffer).await.unwrap_err().kind(), ErrorKind::TimedOut, "and stays so");
        assert_eq!(server.write_all(b"late").await.unwrap_err().kind(), ErrorKind::TimedOut);

        server.deadline().set_after(Duration::from_secs(60));
        echo(&client, &server).await;

        // A writer whose peer does not read is woken as well.
        server.deadline().set_after(Duration::from_millis(30));
        let much = vec![0; 16 << 20];
        assert_eq!(server.write_all(&much).await.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn gentle_close_lets_the_last_reply_through() {
    run(|| async {
        let (client, server) = pair().await;
        client.write_all(&noise(100_000)).await.unwrap();
        server.write_all(b"421 enough\r\n").await.unwrap();
        let closing = spawn_task(server.close_gently(Duration::from_secs(5)));
        let mut buffer = [0; 64];
        sleep(Duration::from_millis(20)).await;
        assert_eq!(client.read(&mut buffer).await.unwrap(), 12);
        assert_eq!(client.read(&mut buffer).await.unwrap(), 0);
        drop(client);
        closing.await;
    });
}

/// A client that sent a line without end was read from in one go, for hundreds of milliseconds at a time, until it
/// paused; nobody else on the core got a word in.
#[test]
fn gentle_close_lets_others_run() {
    run(|| async {
        let (client, server) = pair().await;
        client.deadline().set_after(Duration::from_millis(200));
        // As much as the kernel takes; nearly all of it is there to be read at once.
        let _ = client.write_all(&noise(2_000_000)).await;
        drop(client);
        let turns = Rc::new(Cell::new(0));
        let bystander = spawn_task({
            let turns = Rc::clone(&turns);
            async move {
                loop {
                    turns.set(turns.get() + 1);
                    crate::yield_now().await;
                }
            }
        });
        server.close_gently(Duration::from_secs(5)).await;
        // 488 reads; the others got 3 turns when nobody thought of them.
        assert!(turns.get() > 8, "{} turns", turns.get());
        drop(bystander);
    });
}

#[test]
fn datagrams_survive_cancelled_receives() {
    run(|| async {
        let server = Rc::new(DatagramServer::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap());
        let to = server.local().unwrap();
        let replies = spawn_task({
            let server = Rc::clone(&server);
            async move {
                let mut buffer = [0; 512];
                loop {
                    let (count, from) = server.recv_from(&mut buffer).await.unwrap();
                    server.send_to(&buffer[..count], from).await.unwrap();
                }
            }
        });
        let client = Datagram::connect(to, None).unwrap();
        assert_ne!(client.local().port(), 0);
        let mut buffer = [0; 512];
        for index in 0..50_u8 {
            assert!(timeout(Duration::ZERO, client.recv(&mut buffer)).await.is_err());
            client.send(&[index; 40]).await.unwrap();
            let count = loop {
                // Cancelled again and again until it is there.
                if let Ok(received) = timeout(Duration::from_micros(50), client.recv(&mut buffer)).await {
                    break received.unwrap();
                }
            };
            assert_eq!(buffer[..count], [index; 40]);
        }
        drop(replies);
    });
}

#[test]
fn a_datagram_to_nobody_is_refused() {
    run(|| async {
        let gone = DatagramServer::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap().local().unwrap();
        sleep(Duration::from_millis(5)).await;
        let client = Datagram::connect(gone, None).unwrap();
        client.send(b"anybody?").await.unwrap();
        let error = client.recv(&mut [0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    });
}
