//! The policies of domains (MTA-STS), known to all shards, and fetched by the pool for them.
//!
//! ```text
//!  shard: look ──▶ known                         (a lock, for a look)
//!          │
//!          └─ fetch ──▶ errand ──▶ pool: HTTPS ──▶ done ──▶ all who wait
//!               └─ somebody has asked already: waits with him
//! ```
//!
//! For a domain there is one errand at a time, and there are so many errands at once; whoever finds no room does without a newer
//! policy for now.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use delivery::sts::{FetchFailure, Kept, Look, Policies, PoliciesLimits, Policy};
use dns::Name;
use mail::Timestamp;
use tokio::sync::{mpsc, oneshot};

/// The shards' end. Clones are the same.
#[derive(Clone, Debug)]
pub struct StsPolicies {
    known: Arc<Mutex<Known>>,
    errands: mpsc::Sender<PolicyErrand>,
}

/// What there is of a policy: itself, and why there is none, or no newer one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFound {
    /// The policy that holds.
    pub policy: Option<Arc<Policy>>,
    /// What went wrong.
    pub failure: Option<FetchFailure>,
}

/// A policy to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrand {
    /// Of this domain.
    pub domain: Name,
    /// The id that announced it.
    pub id: Box<str>,
    /// The host that has it.
    pub host: Name,
    /// Where that is.
    pub addresses: Vec<IpAddr>,
}

/// The pool's end.
#[derive(Debug)]
pub struct PolicyDesk {
    known: Arc<Mutex<Known>>,
    errands: mpsc::Receiver<PolicyErrand>,
}

#[derive(Debug)]
struct Known {
    policies: Policies,
    waiting: HashMap<Name, Vec<oneshot::Sender<PolicyFound>>>,
}

impl StsPolicies {
    /// Both ends, with room for so many errands.
    pub fn new(limits: PoliciesLimits, errands_max: usize) -> (Self, PolicyDesk) {
        let known = Known { policies: Policies::new(limits), waiting: HashMap::new() };
        let known = Arc::new(Mutex::new(known));
        let (errands, coming) = mpsc::channel(errands_max);
        (Self { known: known.clone(), errands }, PolicyDesk { known, errands: coming })
    }

    /// What is known of a domain whose TXT record has this id now.
    pub fn look(&self, domain: &Name, id: Option<&str>, now: Timestamp) -> Look {
        lock(&self.known).policies.look(domain, id, now)
    }

    /// Has a policy fetched, after [`Look::Fetch`].
    pub async fn fetch(&self, errand: PolicyErrand, now: Timestamp) -> PolicyFound {
        let domain = errand.domain.clone();
        let waiting = {
            let mut known = lock(&self.known);
            let (sender, receiver) = oneshot::channel();
            let is_first = !known.waiting.contains_key(&domain);
            known.waiting.entry(domain.clone()).or_default().push(sender);
            if is_first && self.errands.try_send(errand).is_err() {
                known.waiting.remove(&domain);
            }
            receiver
        };
        match waiting.await {
            Ok(found) => found,
            // There is no room, or nobody to go.
            Err(_) => {
                let failure = FetchFailure::Fetch("too many policies at once".into());
                PolicyFound { failure: Some(failure), ..lock(&self.known).found(&domain, now) }
            }
        }
    }

    /// There is no policy to be had, and no errand needed to know it.
    pub fn failed(&self, domain: &Name, failure: FetchFailure, now: Timestamp) -> PolicyFound {
        let mut known = lock(&self.known);
        known.policies.fail(domain.clone(), failure.clone(), now);
        PolicyFound { failure: Some(failure), ..known.found(domain, now) }
    }
}

impl PolicyDesk {
    /// The next errand; none when no shard is left.
    pub async fn next(&mut self) -> Option<PolicyErrand> {
        self.errands.recv().await
    }

    /// What an errand is answered by, from whoever has gone on it.
    pub fn counter(&self) -> PolicyCounter {
        PolicyCounter(self.known.clone())
    }
}

/// Where those who have gone on an errand tell what they found.
#[derive(Clone, Debug)]
pub struct PolicyCounter(Arc<Mutex<Known>>);

impl PolicyCounter {
    /// An errand is done: this is what the host gave. Tells all who wait.
    pub fn done(
        &self,
        errand: &PolicyErrand,
        body: Result<Vec<u8>, FetchFailure>,
        now: Timestamp,
    ) -> PolicyFound {
        let parsed = body.and_then(|body| Ok(Policy::parse(&body)?));
        let mut known = lock(&self.0);
        let domain = &errand.domain;
        let failure = match parsed {
            Ok(policy) => {
                let kept = Kept { id: errand.id.clone(), policy: Arc::new(policy), since: now };
                known.policies.keep(domain.clone(), kept, now);
                None
            }
            Err(failure) => {
                known.policies.fail(domain.clone(), failure.clone(), now);
                Some(failure)
            }
        };
        let found = PolicyFound { failure, ..known.found(domain, now) };
        for waiter in known.waiting.remove(domain).unwrap_or_default() {
            // Whoever asked may be gone.
            let _ = waiter.send(found.clone());
        }
        found
    }

    /// All policies, to be kept over a restart.
    pub fn to_text(&self, now: Timestamp) -> String {
        lock(&self.0).policies.to_text(now)
    }

    /// Those of before the start. Answers how many lines of the text are none.
    pub fn take_text(&self, text: &str, now: Timestamp) -> usize {
        lock(&self.0).policies.take_text(text, now)
    }
}

impl Known {
    fn found(&self, domain: &Name, now: Timestamp) -> PolicyFound {
        match self.policies.look(domain, None, now) {
            Look::Known(policy, failure) => PolicyFound { policy, failure },
            Look::Fetch => PolicyFound::default(),
        }
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    // What a panic has left is whole: each step is one call.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod test {
    use super::*;

    fn errand(domain: &str) -> PolicyErrand {
        let name = |text: &str| Name::parse(text).unwrap();
        let host = name(&format!("mta-sts.{domain}"));
        PolicyErrand { domain: name(domain), id: "1".into(), host, addresses: Vec::new() }
    }

    const POLICY: &[u8] = b"version: STSv1\nmode: enforce\nmx: mx.test\nmax_age: 1000\n";

    #[tokio::test]
    async fn one_goes_and_all_hear_of_it() {
        let (policies, mut desk) = StsPolicies::new(PoliciesLimits::default(), 8);
        let (one, two) = (errand("a.test"), errand("a.test"));
        let now = Timestamp::from_secs(1);
        assert_eq!(policies.look(&one.domain, Some("1"), now), Look::Fetch);
        let going = async {
            let errand = desk.next().await.unwrap();
            // The other one has asked meanwhile, and there is no second errand.
            tokio::task::yield_now().await;
            assert!(desk.errands.try_recv().is_err());
            desk.counter().done(&errand, Ok(POLICY.into()), now)
        };
        let (first, second, done) = tokio::join!(policies.fetch(one, now), policies.fetch(two, now), going);
        assert!(first.policy.is_some() && first == second && first == done, "{first:?} {second:?}");
        assert_eq!(policies.look(&errand("a.test").domain, Some("1"), now), Look::Known(first.policy, None));
        let text = desk.counter().to_text(now);
        let (again, desk) = StsPolicies::new(PoliciesLimits::default(), 8);
        assert_eq!(desk.counter().take_text(&text, now), 0);
        assert!(matches!(again.look(&errand("a.test").domain, None, now), Look::Known(Some(_), None)));
    }

    #[tokio::test]
    async fn a_failure_leaves_what_was_known() {
        let (policies, desk) = StsPolicies::new(PoliciesLimits::default(), 1);
        let (now, later) = (Timestamp::from_secs(1), Timestamp::from_secs(600));
        let counter = desk.counter();
        let failed = counter.done(&errand("a.test"), Ok(b"rubbish".into()), now);
        assert!(failed.policy.is_none() && failed.failure.is_some());
        counter.done(&errand("a.test"), Ok(POLICY.into()), now);
        let failed = counter.done(&errand("a.test"), Err(FetchFailure::Fetch("down".into())), later);
        assert!(failed.policy.is_some() && failed.failure.is_some());
        assert_eq!(
            policies.failed(&errand("a.test").domain, FetchFailure::Fetch("x".into()), later).policy,
            failed.policy
        );
    }

    #[tokio::test]
    async fn who_finds_no_room_does_not_wait() {
        let (policies, mut desk) = StsPolicies::new(PoliciesLimits::default(), 1);
        let now = Timestamp::from_secs(1);
        let first = tokio::spawn({
            let policies = policies.clone();
            async move { policies.fetch(errand("a.test"), now).await }
        });
        tokio::task::yield_now().await;
        let found = policies.fetch(errand("b.test"), now).await;
        assert!(found.policy.is_none() && found.failure.is_some());
        let errand = desk.next().await.unwrap();
        desk.counter().done(&errand, Ok(POLICY.into()), now);
        assert!(first.await.unwrap().policy.is_some());
    }
}
