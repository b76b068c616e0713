//! Hosts of several shards, without their threads and with them.

use std::{
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    thread,
};

use super::*;

/// A shard that wants so many connections to one destination.
struct Shard {
    leases: Leases,
    letters: mpsc::UnboundedReceiver<Letter>,
    key: Arc<str>,
    wants: usize,
    in_line: bool,
    /// Leases, and for how many messages each was held.
    held: Vec<(Lease, u32)>,
    /// How often it got one.
    granted: u32,
    /// Whether it was told that somebody would like one since it last looked.
    called: bool,
}

/// Messages that are a turn.
const TURN: u32 = 5;

impl Shard {
    fn host(count: usize, key: &str) -> Vec<Self> {
        let shard = |leases: Leases| {
            let letters = leases.letters();
            let (held, key) = (Vec::new(), key.into());
            Self { leases, letters, key, wants: 0, in_line: false, held, granted: 0, called: false }
        };
        Leases::of_host(count).into_iter().map(shard).collect()
    }

    fn read(&mut self) {
        while let Ok(letter) = self.letters.try_recv() {
            match letter {
                Letter::Granted(lease) => {
                    assert!(std::mem::take(&mut self.in_line), "granted unasked");
                    // One that is not needed any more is given back.
                    if self.held.len() < self.wants {
                        self.held.push((lease, 0));
                        self.granted += 1;
                    }
                }
                Letter::Wanted(key) => {
                    self.leases.on_called(&key);
                    self.called = true;
                }
            }
        }
    }

    fn ask(&mut self, max: u32) {
        while self.held.len() < self.wants && !self.in_line {
            match self.leases.take(&self.key, max) {
                Some(lease) => {
                    self.held.push((lease, 0));
                    self.granted += 1;
                }
                None => self.in_line = true,
            }
        }
    }

    /// Every connection ends a message; those that nobody needs sleep, unless they were woken.
    fn send(&mut self) {
        let wants = self.wants;
        let called = std::mem::take(&mut self.called);
        let mut number = 0;
        self.held.retain_mut(|(lease, messages)| {
            number += 1;
            *messages += 1;
            let what = if number > wants {
                Use::Idle
            } else if *messages >= TURN {
                Use::Served
            } else {
                Use::Busy
            };
            let looks = what != Use::Idle || called;
            !(looks && lease.is_pressed() && lease.should_go(what))
        });
    }

    fn is_pressed(&self) -> bool {
        self.held.iter().any(|(lease, _)| lease.is_pressed())
    }
}

/// All that is held, in hands or in letters, as the table has it.
fn taken(shards: &[Shard]) -> u32 {
    let table = &shards[0].leases.table;
    let part = table.part(&shards[0].key);
    part.get(&shards[0].key).map_or(0, |hop| {
        let seats: u32 = hop.seats.iter().map(|seat| seat.taken).sum();
        let leaving: u32 = hop.seats.iter().map(|seat| seat.leaving).sum();
        assert_eq!((seats, leaving), (hop.taken, hop.leaving), "{hop:?}");
        assert!(hop.line.is_empty() || hop.taken >= hop.max, "somebody waits for what is free: {hop:?}");
        hop.taken
    })
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) % end
    }
}

#[test]
fn one_may_have_what_nobody_else_wants() {
    let mut shards = Shard::host(4, "hop");
    shards[0].wants = 10;
    shards[0].ask(8);
    assert_eq!((shards[0].held.len(), shards[0].in_line, taken(&shards)), (8, true, 8));
    // It is nobody's but its own wish that is not fulfilled.
    shards[0].send();
    assert!(!shards[0].is_pressed() && shards[0].held.len() == 8);
    shards[0].held.pop();
    shards[0].read();
    assert_eq!((shards[0].held.len(), shards[0].in_line), (8, false));
    shards[0].held.clear();
    assert_eq!(shards[0].leases.destinations(), 0);
}

#[test]
fn who_sleeps_goes_and_who_works_has_its_turn_first() {
    let mut shards = Shard::host(2, "hop");
    (shards[0].wants, shards[1].wants) = (1, 1);
    shards[0].ask(1);
    shards[1].ask(1);
    assert!(shards[1].in_line && shards[1].held.is_empty());
    for _ in 1..TURN {
        shards[0].read();
        shards[0].send();
        shards[1].read();
        assert!(shards[0].held.len() == 1 && shards[1].held.is_empty());
    }
    shards[0].send();
    shards[1].read();
    assert!(shards[0].held.is_empty() && shards[1].held.len() == 1);
    // Now it sleeps: a letter wakes it when the other comes.
    shards[1].wants = 0;
    shards[1].send();
    assert_eq!(shards[1].held.len(), 1);
    shards[0].ask(1);
    shards[1].read();
    shards[1].send();
    shards[0].read();
    assert!(shards[0].held.len() == 1 && shards[1].held.is_empty());
}

#[test]
fn no_more_go_than_are_wanted() {
    let mut shards = Shard::host(3, "hop");
    shards[0].wants = 4;
    shards[0].ask(4);
    shards[0].wants = 0;
    for (waiting, left) in [(1, 3), (2, 2)] {
        shards[waiting].wants = 1;
        shards[waiting].ask(4);
        // To close a connection takes a while.
        let mut leaving = Vec::new();
        while let Some(at) = shards[0].held.iter_mut().position(|(lease, _)| lease.should_go(Use::Idle)) {
            leaving.push(shards[0].held.remove(at));
        }
        assert_eq!((shards[0].held.len(), shards[waiting].held.len()), (left, 0));
        drop(leaving);
        shards[waiting].read();
        assert_eq!(shards[waiting].held.len(), 1);
        assert!(!shards[0].is_pressed());
    }
}

#[test]
fn a_lower_limit_is_reached_by_and_by() {
    let mut shards = Shard::host(2, "hop");
    for shard in &mut shards {
        shard.wants = 3;
        shard.ask(6);
    }
    assert_eq!(taken(&shards), 6);
    for shard in &shards {
        shard.leases.set_max(&shard.key, 2);
    }
    // Nobody waits for its turn to end.
    for shard in &mut shards {
        shard.read();
        shard.send();
    }
    assert_eq!(taken(&shards), 2);
    shards.iter_mut().for_each(|shard| shard.ask(2));
    assert_eq!(taken(&shards), 2);
    // A higher one is dealt out at once.
    shards[0].leases.set_max(&shards[0].key, 5);
    shards.iter_mut().for_each(Shard::read);
    shards.iter_mut().for_each(|shard| shard.ask(5));
    assert_eq!(taken(&shards), 5);
}

/// Two servers, one of which takes over from the other, have no more than the host may have.
#[test]
fn two_servers_share_what_the_host_may_have() {
    for of_host in 1..8_u32 {
        let [mut older, mut newer] = [(); 2].map(|()| Shard::host(2, "hop"));
        for shard in older.iter_mut().chain(&mut newer) {
            shard.wants = 8;
        }
        older.iter_mut().for_each(|shard| shard.ask(of_host));
        assert_eq!(taken(&older), of_host);
        newer[0].leases.sharing().set(Beside::Older);
        newer.iter_mut().for_each(|shard| shard.ask(of_host));
        older[0].leases.sharing().set(Beside::Newer);
        // What is too much goes, whether it has had its turn or not.
        for shard in &mut older {
            shard.read();
            shard.send();
        }
        let both = taken(&older) + taken(&newer);
        assert_eq!(both, of_host.max(2), "of {of_host}");
        assert!(taken(&older) >= 1 && taken(&newer) >= taken(&older), "of {of_host}");
        // The older one ends.
        older.iter_mut().for_each(|shard| shard.held.clear());
        newer[0].leases.sharing().set(Beside::Nobody);
        newer.iter_mut().for_each(Shard::read);
        newer.iter_mut().for_each(|shard| shard.ask(of_host));
        assert_eq!(taken(&newer), of_host);
    }
}

/// Whoever wants one gets one within the turns of those before it, and nobody has much more than another.
#[test]
fn all_have_their_share_when_all_want() {
    for count in 1..7 {
        for max in 1..12 {
            let mut shards = Shard::host(count, "hop");
            shards.iter_mut().for_each(|shard| shard.wants = 20);
            let mut waits = vec![0; count];
            for _ in 0..200 {
                for (shard, waits) in shards.iter_mut().zip(&mut waits) {
                    shard.read();
                    shard.ask(max);
                    shard.send();
                    *waits = if shard.held.is_empty() { *waits + 1 } else { 0 };
                    let wait_max = 2 * TURN * (count as u32).div_ceil(max) + 2;
                    assert!(*waits <= wait_max, "{count} shards, {max} leases: {waits} rounds without one");
                }
                assert!(taken(&shards) <= max);
            }
            let held: Vec<_> = shards.iter().map(|shard| shard.held.len()).collect();
            let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
            assert!(most - least <= 2, "{count} shards, {max} leases: {held:?}");
        }
    }
}

/// Whatever they do, there are never more than the limit, nothing is lost, and nobody waits for what is free.
#[test]
fn anything_goes() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let count = 1 + random.below(5) as usize;
        let mut shards = Shard::host(count, "hop");
        let (mut max, mut before) = (1 + random.below(6) as u32, 0);
        for _ in 0..400 {
            let who = random.below(count as u64) as usize;
            let shard = &mut shards[who];
            match random.below(12) {
                0 => shard.wants = random.below(5) as usize,
                1..4 => shard.read(),
                4..7 => shard.ask(max),
                7..10 => shard.send(),
                10 => drop(shard.held.pop()),
                _ if random.below(6) == 0 => {
                    max = 1 + random.below(6) as u32;
                    shards.iter().for_each(|shard| shard.leases.set_max(&shard.key, max));
                }
                _ => {}
            }
            let now = taken(&shards);
            assert!(now <= max.max(before), "seed {seed}: {now} of {max}, before {before}");
            before = now;
        }
        // With nobody in the way, everybody gets what it wants.
        for shard in &mut shards {
            shard.wants = 2;
        }
        max = 2 * count as u32;
        for _ in 0..20 * TURN {
            for shard in &mut shards {
                shard.leases.set_max(&shard.key, max);
                shard.read();
                shard.ask(max);
                shard.send();
            }
        }
        let held: Vec<_> = shards.iter().map(|shard| shard.held.len().min(2)).collect();
        assert_eq!(held, vec![2; count], "seed {seed}");
        for shard in &mut shards {
            shard.wants = 0;
            shard.held.clear();
        }
        shards.iter_mut().for_each(Shard::read);
        assert_eq!((taken(&shards), shards[0].leases.destinations()), (0, 0), "seed {seed}");
    }
}

#[test]
fn who_has_ended_keeps_nothing() {
    let mut shards = Shard::host(3, "hop");
    shards.iter_mut().for_each(|shard| shard.wants = 1);
    shards.iter_mut().for_each(|shard| shard.ask(1));
    let third = shards.pop().unwrap();
    let second = shards.pop().unwrap();
    // One ends while it stands in line, one with its lease in a letter it has not read.
    drop(third);
    shards[0].held.clear();
    assert_eq!(taken(&shards), 1);
    drop(second);
    assert_eq!(shards[0].leases.destinations(), 0);
}

#[test]
fn the_limit_holds_between_threads() {
    const MAX: u32 = 3;
    let open = Arc::new(AtomicU32::new(0));
    let threads: Vec<_> = Shard::host(4, "hop")
        .into_iter()
        .map(|mut shard| {
            let open = open.clone();
            thread::spawn(move || {
                let mut sent = 0;
                while sent < 300 {
                    shard.wants = 2;
                    if !shard.in_line && shard.held.is_empty() {
                        shard.ask(MAX);
                    }
                    if shard.held.is_empty() {
                        let letter = shard.letters.blocking_recv().unwrap();
                        match letter {
                            Letter::Granted(lease) => {
                                shard.in_line = false;
                                shard.held.push((lease, 0));
                            }
                            Letter::Wanted(key) => shard.leases.on_called(&key),
                        }
                        continue;
                    }
                    let now = open.fetch_add(1, SeqCst) + 1;
                    assert!(now <= MAX, "{now} at once");
                    thread::yield_now();
                    open.fetch_sub(1, SeqCst);
                    sent += 1;
                    shard.read();
                    shard.send();
                }
                shard.wants = 0;
                shard.held.clear();
                shard.read();
                shard.leases
            })
        })
        .collect();
    let leases: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(leases[0].destinations(), 0);
}
