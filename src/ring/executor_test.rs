//! The executor, and the traps of the runtime under it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::testing::run;
use crate::{
    Event, Options, StartError, Stopped, blocking, clock, sleep, spawn, spawn_caught, spawn_task, start,
    stats, timeout, yield_now,
};

#[test]
fn a_panic_ends_the_task_or_the_executor() {
    let told = run(|| async {
        let mut told = Vec::new();
        for text in ["static text", ""] {
            let (sender, receiver) = oneshot::channel();
            let task = async move {
                yield_now().await;
                if text.is_empty() { panic!("made of {}", "parts") } else { panic!("static text") }
            };
            spawn_caught(task, move |text| sender.send(text).unwrap());
            told.push(receiver.await.unwrap());
        }
        told
    });
    assert_eq!(told, ["static text", "made of parts"]);

    let handle = start(Options::new("test"), || async {
        spawn(async { panic!("nobody catches this") });
        sleep(Duration::from_secs(60)).await;
    });
    let stopped = handle.unwrap().join().unwrap_err();
    assert!(matches!(&stopped, Stopped::Panicked(text) if text == "nobody catches this"), "{stopped}");
}

#[test]
fn spawning_does_not_run_at_once() {
    run(|| async {
        let shared = Rc::new(RefCell::new(0));
        let borrowed = shared.borrow_mut();
        let other = Rc::clone(&shared);
        let task = spawn_task(async move { *other.borrow_mut() += 1 });
        drop(borrowed);
        task.await;
        assert_eq!(*shared.borrow(), 1);
    });
}

#[test]
fn detached_tasks_go_on_and_dropped_ones_do_not() {
    run(|| async {
        let count = Rc::new(Cell::new(0));
        let task = |step: u32| {
            let count = Rc::clone(&count);
            async move {
                sleep(Duration::from_millis(1)).await;
                count.set(count.get() + step);
            }
        };
        drop(spawn_task(task(1)));
        assert_eq!(spawn_task(task(10)).cancel().await, None);
        spawn_task(task(100)).detach();
        spawn(task(1000));
        sleep(Duration::from_millis(20)).await;
        assert_eq!(count.get(), 1100);
    });
}

#[test]
fn a_cpu_that_does_not_exist_is_an_error() {
    let options = Options { cpu: Some(100_000), ..Options::new("test") };
    let error = start(options, || async {}).unwrap_err();
    let StartError::Executor { name, reason } = error;
    assert!(name == "test" && !reason.is_empty());
}

fn affinity() -> usize {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap();
    line.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit.count_ones() as usize).sum()
}

#[test]
fn the_shard_is_pinned_and_its_blocking_threads_are_not() {
    let all = affinity();
    let options = Options { cpu: Some(0), ..Options::new("test") };
    let main = || async { (affinity(), blocking(affinity).await) };
    let (here, there) = start(options, main).unwrap().join().unwrap();
    assert_eq!((here, there), (1, all));
}

#[test]
fn a_panic_in_blocking_work_is_thrown_here_and_kills_no_thread() {
    run(|| async {
        for _ in 0..5 {
            let (sender, receiver) = oneshot::channel();
            let task = async { blocking(|| panic!("there")).await };
            spawn_caught(task, move |text| sender.send(text).unwrap());
            assert_eq!(receiver.await.unwrap(), "there");
        }
        assert_eq!(blocking(|| 7).await, 7);
    });
}

#[test]
fn polling_of_files_is_off() {
    use glommio::io::DmaFile;

    // Beside the test program: the system's place for such things may be in memory, and that is never polled.
    let program = std::env::current_exe().unwrap();
    let directory = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
    let path = directory.path().to_owned();
    let options = Options { data_directory: Some(path.clone()), ..Options::new("test") };
    let main = move || async move {
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0, "nothing is left behind");
        // To read from an empty file succeeds whatever the device can do: that is how the runtime is deceived.
        std::fs::write(path.join("file"), []).unwrap();
        let file = DmaFile::open(path.join("file")).await.unwrap();
        std::fs::write(path.join("file"), [1; 8192]).unwrap();
        assert_eq!(file.read_at(0, 4096).await.unwrap().len(), 4096);
        file.close().await.unwrap();
        let stats = glommio::executor().io_stats();
        stats.poll_ring.file_reads().0
    };
    assert_eq!(start(options, main).unwrap().join().unwrap(), 0);
}

#[test]
fn wakes_come_from_other_runtimes() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let (requests, mut inbox) = tokio::sync::mpsc::channel::<(u32, oneshot::Sender<u32>)>(4);
    runtime.spawn(async move {
        while let Some((question, answer)) = inbox.recv().await {
            if question % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await; // Long enough for the executor to fall asleep.
            }
            answer.send(question + 1).unwrap();
        }
    });
    run(move || async move {
        for question in 0..100 {
            let (answer, reply) = oneshot::channel();
            requests.send((question, answer)).await.unwrap();
            assert_eq!(timeout(Duration::from_secs(5), reply).await.unwrap().unwrap(), question + 1);
        }
    });
}

#[test]
fn events_between_tasks() {
    run(|| async {
        let event = Rc::new(Event::new());
        let woken = Rc::new(Cell::new(0));
        for _ in 0..100 {
            let (event, woken) = (Rc::clone(&event), Rc::clone(&woken));
            spawn(async move {
                event.wait().await;
                woken.set(woken.get() + 1);
            });
        }
        sleep(Duration::from_millis(2)).await;
        assert_eq!((event.waiters(), woken.get()), (100, 0));
        event.notify_all();
        sleep(Duration::from_millis(2)).await;
        assert_eq!((event.waiters(), woken.get()), (0, 100));
    });
}

#[test]
fn stalls_are_noticed() {
    let longest = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&longest);
    let options = Options {
        stall_threshold: Duration::from_millis(20),
        on_stall: Some(Box::new(move |late| {
            seen.fetch_max(late.as_millis() as u64, Ordering::Relaxed);
        })),
        ..Options::new("test")
    };
    let main = || async {
        sleep(Duration::from_millis(15)).await;
        thread::sleep(Duration::from_millis(60));
        sleep(Duration::from_millis(15)).await;
        stats()
    };
    let stats = start(options, main).unwrap().join().unwrap();
    assert!(stats.stalls >= 1 && stats.stalled >= Duration::from_millis(20), "{stats:?}");
    assert!(longest.load(Ordering::Relaxed) >= 20);
    assert!(stats.polls > 0 && stats.busy >= Duration::from_millis(60), "{stats:?}");
}

#[test]
fn timeouts_and_sleeps() {
    run(|| async {
        let begin = clock::now();
        sleep(Duration::from_millis(5)).await;
        assert!(clock::now() - begin >= Duration::from_millis(5));
        assert!(timeout(Duration::from_millis(1), std::future::pending::<()>()).await.is_err());
        assert_eq!(timeout(Duration::ZERO, async { 3 }).await, Ok(3), "what is ready is not late");
    });
}

#[test]
fn a_busy_task_does_not_keep_the_ring_waiting() {
    // Nothing but the yield itself looks at the ring: no preemption, and no watchdog before the test is given up.
    let never = Duration::from_secs(3600);
    let options = Options { preempt: never, sweep: never, stall_threshold: never, ..Options::new("test") };
    let main = || async {
        let stop = Rc::new(Cell::new(false));
        let busy = Rc::clone(&stop);
        spawn(async move {
            while !busy.get() {
                yield_now().await;
            }
        });
        for _ in 0..5 {
            blocking(|| ()).await;
        }
        stop.set(true);
    };
    start(options, main).unwrap().join().unwrap();
}

/// Without a preemption timer, a task that never waits keeps the runtime from its rings; only the watchdog's wake-up,
/// the same that ends a sleep over work, makes it look.
#[test]
fn a_late_heartbeat_has_the_executor_woken() {
    let options = Options { preempt: Duration::from_secs(3600), ..Options::new("test") };
    let main = || async {
        let stop = Rc::new(Cell::new(false));
        let busy = Rc::clone(&stop);
        spawn(async move {
            while !busy.get() {
                futures_lite::future::yield_now().await;
            }
        });
        for _ in 0..3 {
            blocking(|| ()).await;
        }
        stop.set(true);
    };
    start(options, main).unwrap().join().unwrap();
}

/// A server that was stopped while it made a segment showed a panic of a thread that nobody had heard of.
#[test]
fn an_executor_ends_after_those_who_block() {
    let done = Arc::new(AtomicBool::new(false));
    let of_task = Arc::clone(&done);
    run(|| async move {
        let (begun, told) = std::sync::mpsc::channel();
        spawn(async move {
            blocking(move || {
                begun.send(()).unwrap();
                thread::sleep(Duration::from_millis(50));
                of_task.store(true, Ordering::SeqCst);
            })
            .await;
        });
        while told.try_recv().is_err() {
            yield_now().await;
        }
    });
    assert!(done.load(Ordering::SeqCst));
}
