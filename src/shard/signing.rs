//! Whose turn it is to sign.
//!
//! A signature with RSA takes a quarter of a millisecond, one with 4096 bits two, and hundreds of messages may come to their end at
//! once. All that can run runs before the executor looks at its rings again: were these signed one after the other, whoever
//! sends a command in the meantime would wait for all of them. So they stand in line, and after each [`TURN`] of signing
//! the rings are looked at, and what has come in there goes first.

use std::{cell::Cell, rc::Rc, time::Duration};

use ring::{Permit, Semaphore};

/// So long is signed before others have their turn.
const TURN: Duration = Duration::from_micros(500);

/// The line of a shard.
#[derive(Debug)]
pub(crate) struct Signing {
    permits: Rc<Semaphore>,
    /// How long was signed since the rings were looked at last, as far as that is known here.
    signed: Cell<Duration>,
}

/// The right to sign. Whoever has it signs at once, and gives it back.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    signing: &'a Signing,
    permit: Option<Permit>,
    began: Duration,
}

impl Signing {
    pub(crate) fn new() -> Self {
        Self { permits: Rc::new(Semaphore::new(1)), signed: Cell::default() }
    }

    /// Waits in line.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        let permit = Some(self.permits.acquire().await);
        Turn { signing: self, permit, began: ring::clock::now() }
    }
}

impl Turn<'_> {
    /// Since when it lasts.
    pub(crate) const fn began(&self) -> Duration {
        self.began
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let signed = self.signing.signed.get() + ring::clock::now().saturating_sub(self.began);
        if signed < TURN {
            self.signing.signed.set(signed);
            return;
        }
        self.signing.signed.set(Duration::ZERO);
        let permit = self.permit.take();
        ring::spawn(async move {
            ring::yield_now().await;
            drop(permit);
        });
    }
}

#[cfg(test)]
mod test {
    use std::{cell::RefCell, thread};

    use super::*;

    fn run<T: Send + 'static, F: Future<Output = T> + 'static>(
        main: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        ring::start(ring::Options::new("test"), main).unwrap().join().unwrap()
    }

    /// Many messages are there at once, and what others have set out to do gets its turn between any two of them.
    #[test]
    fn others_have_their_turn() {
        let done = run(|| async {
            let (signing, done) = (Rc::new(Signing::new()), Rc::new(RefCell::new(Vec::new())));
            let signers: Vec<_> = (0..20)
                .map(|_| {
                    let (signing, done) = (signing.clone(), done.clone());
                    ring::spawn_task(async move {
                        let turn = signing.turn().await;
                        thread::sleep(TURN);
                        drop(turn);
                        done.borrow_mut().push("signed");
                    })
                })
                .collect();
            let other = ring::spawn_task({
                let done = done.clone();
                async move {
                    for _ in 0..5 {
                        ring::yield_now().await;
                        done.borrow_mut().push("other");
                    }
                }
            });
            other.await;
            for signer in signers {
                signer.await;
            }
            done.take()
        });
        assert_eq!(done.iter().filter(|what| **what == "signed").count(), 20);
        let last = done.iter().rposition(|what| *what == "other").unwrap();
        assert!(last <= 15, "nobody waits for all signatures: {done:?}");
    }

    /// What takes no time is not held up.
    #[test]
    fn quick_signatures_go_on() {
        let count = run(|| async {
            let signing = Signing::new();
            for _ in 0..3 {
                drop(signing.turn().await);
            }
            signing.permits.free()
        });
        assert_eq!(count, 1);
    }
}
