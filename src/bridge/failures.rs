//! Messages that failed, which shards hand to the pool for reports to the domains that want to know (RFC 9991).
//!
//! ```text
//!  shard: is it wanted? ──▶ Failure ──▶ desk ──▶ pool: how many were there? ──▶ a report
//!            └─ a flood of them, or no room: nothing is copied, and the message has had it
//! ```
//!
//! Nobody waits for a report, and none is owed: what finds no room is left out.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use mail::Timestamp;
use report::dmarc::Failure;
use tokio::sync::mpsc;

/// The shards' end. Clones are the same.
#[derive(Clone, Debug)]
pub struct Failures {
    desk: mpsc::Sender<Box<Failure>>,
    quiet: Quiet,
}

/// The pool's end.
#[derive(Debug)]
pub struct FailureDesk {
    coming: mpsc::Receiver<Box<Failure>>,
    quiet: Quiet,
}

/// Until when no more are taken.
#[derive(Clone, Debug, Default)]
pub struct Quiet(Arc<AtomicU64>);

impl Failures {
    /// Both ends, with room for so many that wait for the pool.
    pub fn new(waiting_max: usize) -> (Self, FailureDesk) {
        let (desk, coming) = mpsc::channel(waiting_max);
        let quiet = Quiet::default();
        (Self { desk, quiet: quiet.clone() }, FailureDesk { coming, quiet })
    }

    /// Whether one more would be taken now: to be asked before anything is made ready.
    pub fn are_taken(&self, now: Timestamp) -> bool {
        now.0 >= self.quiet.0.load(Relaxed) && self.desk.capacity() > 0
    }

    /// Hands one over; says whether there was room.
    pub fn tell(&self, failure: Failure) -> bool {
        self.desk.try_send(Box::new(failure)).is_ok()
    }
}

impl FailureDesk {
    /// The next one; none when no shard is left.
    pub async fn next(&mut self) -> Option<Box<Failure>> {
        self.coming.recv().await
    }

    /// Where the pool says that it has had enough.
    pub fn quiet(&self) -> Quiet {
        self.quiet.clone()
    }
}

impl Quiet {
    /// No more are taken before that time.
    pub fn until(&self, then: Timestamp) {
        self.0.store(then.0, Relaxed);
    }
}

#[cfg(test)]
mod test {
    use report::dmarc::{DeliveryResult, FailureKind, Unaligned};

    use super::*;

    fn failure() -> Failure {
        Failure {
            domain: "example.org".into(),
            author: "example.org".into(),
            to: Vec::new(),
            kind: FailureKind::Dmarc,
            unaligned: Unaligned::default(),
            delivery: DeliveryResult::Delivered,
            source: [192, 0, 2, 1].into(),
            mail_from: "".into(),
            arrival: Timestamp(1),
            signature: None,
            spf: None,
            results: Vec::new(),
            header: Vec::new(),
        }
    }

    #[tokio::test]
    async fn nobody_waits_and_a_flood_is_stopped_at_its_source() {
        let (failures, mut desk) = Failures::new(1);
        assert!(failures.are_taken(Timestamp(7)) && failures.tell(failure()));
        assert!(!failures.are_taken(Timestamp(7)) && !failures.tell(failure()));
        assert_eq!(desk.next().await, Some(Box::new(failure())));
        assert!(failures.are_taken(Timestamp(7)));
        desk.quiet().until(Timestamp(9));
        assert!(!failures.are_taken(Timestamp(8)) && failures.clone().are_taken(Timestamp(9)));
        drop(failures);
        assert_eq!(desk.next().await, None);
    }
}
