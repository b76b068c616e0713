//! Hosts of several shards: what has come where, and where it goes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Barrier,
    thread,
};

use futures_lite::future::{block_on, poll_once};
use ring::{BoundListener, ConnectOptions, ListenAddress, ListenOptions, Listener, Stream};

use super::*;

/// Connections that were accepted; their clients are gone.
fn arrivals(count: usize) -> Vec<Arrived> {
    let accepting = move || async move {
        let here = ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let bound = BoundListener::bind(&here, &ListenOptions::default()).unwrap();
        let (address, listener) = (bound.tcp_address().unwrap(), Listener::new(bound));
        let (name, open) = (Arc::from("smtp"), Arc::new(AtomicU32::new(0)));
        let mut arrivals = Vec::new();
        for _ in 0..count {
            Stream::connect(address, ConnectOptions::default()).await.unwrap();
            let socket = listener.take().await.unwrap();
            arrivals.push(Arrived { listener: Arc::clone(&name), open: Arc::clone(&open), socket });
        }
        arrivals
    };
    ring::start(ring::Options::new("test"), accepting).unwrap().join().unwrap()
}

fn counts(shard: &Balance) -> Vec<u32> {
    shard.desks.iter().map(|desk| desk.connections.load(Relaxed)).collect()
}

/// Has all of them come to one shard, at one time; those that stay.
fn place(shard: &Balance, arrivals: Vec<Arrived>, now: Duration) -> Vec<(Arrived, Seat)> {
    arrivals.into_iter().filter_map(|arrived| shard.place(arrived, now)).collect()
}

#[test]
fn a_connection_goes_where_there_are_clearly_fewer() {
    for (here, connections, expected) in [
        (0, &[5][..], 0),
        (0, &[0, 0], 0),
        (0, &[1, 0], 1),
        (1, &[1, 0], 1),
        (0, &[3, 2, 1, 2], 2),
        (2, &[0, 3, 1, 0], 3),
        (0, &[8, 8, 8], 0),
        // Of many, one more or less is as good.
        (0, &[9, 8], 0),
        (0, &[10, 8], 1),
        (0, &[1100, 1000], 0),
        (0, &[1200, 1000], 1),
        (0, &[u32::MAX, u32::MAX], 0),
    ] {
        let (shard, seen) = chosen(here, |shard| connections[shard], connections.len());
        assert_eq!((shard, seen), (expected, connections[expected]), "{connections:?}, come to {here}");
    }
}

#[test]
fn few_connections_are_spread() {
    let shards = Balance::of_host(4);
    let mut served = place(&shards[0], arrivals(8), Duration::ZERO);
    assert_eq!(served.len(), 2, "those that stay");
    assert_eq!(counts(&shards[0]), [2; 4]);
    for shard in &shards[1..] {
        for _ in 0..2 {
            served.push(block_on(shard.next()).unwrap());
        }
        assert!(block_on(poll_once(shard.next())).is_none(), "there are no more");
    }
    assert_eq!(counts(&shards[0]), [2; 4], "they were counted already");
    // Who leaves makes room.
    served.drain(..2);
    assert_eq!(counts(&shards[0]), [0, 2, 2, 2]);
    served.extend(place(&shards[1], arrivals(1), Duration::ZERO));
    assert_eq!(counts(&shards[0]), [1, 2, 2, 2]);
    drop((served, block_on(shards[0].next())));
    assert_eq!(counts(&shards[0]), [0; 4]);
}

#[test]
fn many_stay_where_they_are() {
    let shards = Balance::of_host(2);
    let mut now = Duration::ZERO;
    for _ in 0..2 {
        let few = (0..200).filter(|_| shards[0].flow.are_few(now)).count();
        assert_eq!(few, FEW as usize);
        let stay = place(&shards[0], arrivals(4), now);
        assert_eq!((stay.len(), counts(&shards[0])), (4, vec![4, 0]));
        drop(stay);
        // However many there were, it is over soon after.
        now += Duration::from_secs(1);
        assert!(!shards[0].flow.are_few(now));
        now += Duration::from_secs(1);
        let stay = place(&shards[0], arrivals(4), now);
        assert_eq!((stay.len(), counts(&shards[0])), (2, vec![2, 2]));
        drop((stay, block_on(shards[1].next()), block_on(shards[1].next())));
        now += Duration::from_secs(1);
    }
    // As many in a second as are few may come for ever.
    for second in 10..20 {
        let together = (0..FEW).filter(|_| shards[0].flow.are_few(Duration::from_secs(second)));
        assert_eq!(together.count(), FEW as usize);
    }
}

#[test]
fn nobody_is_lost_who_is_not_taken() {
    let shards = Balance::of_host(2);
    // The other shard has little to do, and does not do it.
    shards[0].desks[0].connections.fetch_add(1000, Relaxed);
    let mut served = place(&shards[0], arrivals(WAITING_MAX), Duration::ZERO);
    assert_eq!(served.len(), 0);
    served.extend(place(&shards[0], arrivals(WAITING_MAX), Duration::from_secs(10)));
    assert_eq!(served.len(), WAITING_MAX, "no more wait than may");
    assert_eq!(counts(&shards[0])[1] as usize, WAITING_MAX);
    // Then it stops, and has those that wait.
    served.extend(shards[1].close());
    assert_eq!(served.len(), 2 * WAITING_MAX);
    assert!(block_on(shards[1].next()).is_none());
    served.extend(place(&shards[0], arrivals(1), Duration::from_secs(20)));
    assert_eq!(served.len(), 2 * WAITING_MAX + 1, "who comes now stays");
    shards[0].desks[0].connections.fetch_sub(1000, Relaxed);
    drop(served);
    assert_eq!(counts(&shards[0]), [0, 0]);
}

#[test]
fn who_comes_at_the_same_time_is_spread_too() {
    const EACH: u32 = 7;
    let shards = Balance::of_host(4);
    let begin = Barrier::new(shards.len());
    let all = AtomicU32::new(0);
    let come = [16, 6, 6, 0].map(arrivals);
    thread::scope(|scope| {
        for (shard, arrivals) in shards.iter().zip(come) {
            let (begin, all) = (&begin, &all);
            // A shard's own part does not go to two threads.
            let here = Balance { desks: shard.desks.clone(), shard: shard.shard, flow: Flow::default() };
            scope.spawn(move || {
                begin.wait();
                let mut served = place(&here, arrivals, Duration::ZERO);
                while (served.len() as u32) < EACH {
                    served.push(block_on(here.next()).unwrap());
                }
                all.fetch_add(served.len() as u32, Relaxed);
                begin.wait();
                assert_eq!(counts(&here), [EACH; 4]);
                begin.wait();
            });
        }
    });
    assert_eq!(all.load(Relaxed), 4 * EACH);
    assert_eq!(counts(&shards[0]), [0; 4]);
}

/// Whoever is counted here is here or about to come: a core that ends leaves nobody between the two.
#[test]
fn who_is_on_the_desk_keeps_it_open() {
    let shards = Balance::of_host(2);
    let seat = shards[1].keep();
    assert!(!shards[1].close_if_deserted(), "one is served");
    drop(seat);
    let stay = place(&shards[0], arrivals(2), Duration::ZERO);
    assert_eq!((stay.len(), counts(&shards[0])), (1, vec![1, 1]));
    assert!(!shards[1].close_if_deserted(), "one waits");
    let taken = block_on(shards[1].next()).unwrap();
    assert!(!shards[1].close_if_deserted(), "it has been taken, and is not served yet");
    drop(taken);
    assert!(shards[1].close_if_deserted());
    assert!(block_on(shards[1].next()).is_none(), "nobody is waited for any more");
    // Though there are fewest, nobody goes there.
    let more = place(&shards[0], arrivals(2), Duration::ZERO);
    assert_eq!((more.len(), counts(&shards[0])), (2, vec![3, 0]));
}
