//! Received bytes: order, slices that outlive everything, adaptive sizes, the budget.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use crate::testing::{noise, pair, run};
use crate::{Deadline, Input, Pool, PoolOptions, clock, sleep, spawn_task, timeout};

const TINY: PoolOptions = PoolOptions { small: 64, large: 256, budget: 1 << 20, free_max: 1024 };

#[test]
fn every_byte_once_and_in_order_whatever_is_taken() {
    run(|| async {
        let (client, server) = pair().await;
        let sent = noise(200_000);
        let copy = sent.clone();
        let writer = spawn_task(async move {
            let mut rest = &copy[..];
            for length in (1..).map(|step: usize| 1 + step * 131 % 977) {
                let (now, later) = rest.split_at(length.min(rest.len()));
                client.write_all(now).await.unwrap();
                rest = later;
                if rest.is_empty() {
                    return;
                }
            }
        });
        let pool = Pool::new(TINY);
        let mut input = Input::new(pool.clone());
        let (mut slices, mut received) = (Vec::new(), 0);
        for step in 0_usize.. {
            if input.fill(&server).await.unwrap() == 0 {
                break;
            }
            assert_eq!(input.bytes(), &sent[received..received + input.len()]);
            // Sometimes all, sometimes some, sometimes by copy.
            let count = input.len() * (step % 5) / 4;
            let count = if input.len() > 150 { input.len() } else { count };
            if step % 3 == 0 {
                slices.push(bytes::Bytes::copy_from_slice(&input.bytes()[..count]));
                input.consume(count);
            } else {
                slices.push(input.take(count));
            }
            received += count;
        }
        writer.await;
        slices.push(input.take(input.len()));
        drop((server, input));
        assert!(pool.stats().in_use > 0, "slices keep their memory");
        // They may be read and dropped on another thread.
        let whole = std::thread::spawn(move || slices.concat()).join().unwrap();
        assert!(whole == sent);
        assert_eq!(pool.stats().in_use, 0);
        assert!(pool.stats().free <= TINY.free_max);
    });
}

#[test]
fn a_waiting_connection_holds_nothing() {
    run(|| async {
        let (client, server) = pair().await;
        let pool = Pool::new(TINY);
        let mut input = Input::new(pool.clone());
        assert!(timeout(Duration::from_millis(2), input.fill(&server)).await.is_err());
        assert!(!input.holds_memory());
        client.write_all(b"NOOP\r\nNO").await.unwrap();
        input.fill(&server).await.unwrap();
        input.consume(6);
        assert!(timeout(Duration::from_millis(2), input.fill(&server)).await.is_err());
        assert_eq!(input.bytes(), b"NO", "but keeps what is unread");
        input.consume(2);
        assert!(timeout(Duration::from_millis(2), input.fill(&server)).await.is_err());
        assert_eq!(pool.stats().in_use, 0);
    });
}

#[test]
fn chunks_grow_with_the_flow_and_shrink_after_it() {
    run(|| async {
        let (client, server) = pair().await;
        let pool = Pool::new(TINY);
        let mut input = Input::new(pool.clone());
        client.write_all(&[b'x'; 600]).await.unwrap();
        let mut fills = Vec::new();
        while fills.iter().sum::<usize>() < 600 {
            fills.push(input.fill(&server).await.unwrap());
            input.consume(input.len());
        }
        assert_eq!(fills[..2], [64, 256], "small, then large");
        assert!(timeout(Duration::from_millis(2), input.fill(&server)).await.is_err());
        client.write_all(b"QUIT\r\n").await.unwrap();
        input.fill(&server).await.unwrap();
        assert_eq!(pool.stats().in_use, 64, "small again after a pause");
    });
}

#[test]
fn a_line_longer_than_a_chunk_is_an_error() {
    run(|| async {
        let (client, server) = pair().await;
        client.write_all(&[b'x'; 600]).await.unwrap();
        let mut input = Input::new(Pool::new(TINY));
        let error = loop {
            if let Err(error) = input.fill(&server).await {
                break error;
            }
        };
        assert_eq!((error.kind(), input.len()), (ErrorKind::FileTooLarge, 256));
    });
}

#[test]
fn over_budget_waits_for_memory() {
    run(|| async {
        let pool = Pool::new(PoolOptions { budget: 128, ..TINY });
        let deadline = Deadline::new();
        let mut inputs: Vec<_> = (0..2).map(|_| Input::new(pool.clone())).collect();
        for input in &mut inputs {
            input.push(b"held", &deadline).await.unwrap();
        }
        let slice = inputs[0].take(4);
        drop(inputs.remove(0));

        let (client, server) = pair().await;
        client.write_all(b"more").await.unwrap();
        let server = Rc::new(server);
        let waiting = spawn_task({
            let (pool, server) = (pool.clone(), Rc::clone(&server));
            async move {
                let mut input = Input::new(pool);
                input.fill(&server).await.map(|count| (count, clock::now()))
            }
        });
        sleep(Duration::from_millis(10)).await;
        assert_eq!(pool.stats().in_use, 128);
        let before = clock::now();
        // Memory comes back from another thread, and still wakes the one who waits here.
        std::thread::spawn(move || drop(slice)).join().unwrap();
        let (count, at) = waiting.await.unwrap();
        assert!(count == 4 && at >= before);
        assert!(pool.stats().waits >= 1);
        assert_eq!(pool.stats().peak, 128);

        // A wait for memory ends with the deadline as well.
        let mut more = Input::new(pool.clone());
        more.push(b"x", &deadline).await.unwrap();
        server.deadline().set_after(Duration::from_millis(10));
        let mut last = Input::new(pool.clone());
        assert_eq!(last.fill(&server).await.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_budget_below_one_chunk_lets_one_at_a_time_go_on() {
    run(|| async {
        let pool = Pool::new(PoolOptions { budget: 1, ..TINY });
        let deadline = Deadline::new();
        let mut input = Input::new(pool.clone());
        input.push(b"x", &deadline).await.unwrap();
        let mut other = Input::new(pool.clone());
        assert!(timeout(Duration::from_millis(2), other.push(b"y", &deadline)).await.is_err());
        drop(input);
        other.push(b"y", &deadline).await.unwrap();
    });
}

#[test]
fn memory_is_used_again() {
    run(|| async {
        let pool = Pool::new(TINY);
        let deadline = Deadline::new();
        let mut input = Input::new(pool.clone());
        for _ in 0..100 {
            input.push(&[7; 60], &deadline).await.unwrap();
            input.consume(60);
        }
        assert_eq!(pool.stats().taken, 1, "a chunk with no slices starts over");
        for _ in 0..100 {
            input.push(&[7; 60], &deadline).await.unwrap();
            let slice = input.take(60);
            input.release();
            drop(slice);
        }
        assert_eq!((pool.stats().in_use, pool.stats().free), (0, 64));
    });
}

#[test]
fn pushed_and_received_bytes_read_the_same() {
    run(|| async {
        let mut input = Input::new(Pool::new(TINY));
        let deadline = Deadline::new();
        let sent = noise(250);
        for piece in sent.chunks(7) {
            input.push(piece, &deadline).await.unwrap();
        }
        assert_eq!(input.bytes(), &sent[..]);
    });
}
