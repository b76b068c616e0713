//! What could not be done for keys: when it is tried again, and when somebody is told of it.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use trust::RotationId;

/// What could not be done, by the key and by what it was: make, publish, revoke, remove, erase or sign.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<(RotationId, Box<str>, &'static str), Trouble>);

#[derive(Debug)]
struct Trouble {
    failures: u32,
    why: String,
    /// Not before then.
    again: Instant,
    told: Instant,
}

/// However often it has failed, it is tried again after so long; or at the next round, where that is later.
const AGAIN_MAX: Duration = Duration::from_secs(3_600);
/// What is still wrong is told again after so long.
const TOLD_EVERY: Duration = Duration::from_secs(86_400);

impl Troubles {
    /// Whether it is too early to try again.
    pub(super) fn hold(&self, id: &RotationId, selector: &str, task: &'static str) -> bool {
        let trouble = self.0.get(&(id.clone(), selector.into(), task));
        trouble.is_some_and(|trouble| Instant::now() < trouble.again)
    }

    /// It has failed, in a round of which there is one each `interval`. Whether somebody is to be told: at first, when the reason
    /// is another, and once a day.
    pub(super) fn failed(
        &mut self,
        id: &RotationId,
        selector: &str,
        (task, why): (&'static str, &str),
        interval: Duration,
    ) -> bool {
        let now = Instant::now();
        let key = (id.clone(), selector.into(), task);
        let before = self.0.get(&key);
        let news = before.is_none_or(|old| *old.why != *why || now - old.told >= TOLD_EVERY);
        let failures = before.map_or(1, |old| old.failures.saturating_add(1));
        // At the next round, then at the next but one, but three, …
        let rounds = 2_u32.saturating_pow(failures - 1) - 1;
        let again = now + interval.saturating_mul(rounds).min(AGAIN_MAX);
        let told = before.filter(|_| !news).map_or(now, |old| old.told);
        self.0.insert(key, Trouble { failures, why: why.to_owned(), again, told });
        news
    }

    /// It was done.
    pub(super) fn done(&mut self, id: &RotationId, selector: &str, task: &'static str) {
        self.0.remove(&(id.clone(), selector.into(), task));
    }

    /// All is tried again at once.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// What is none any more is forgotten.
    pub(super) fn retain(&mut self, is_still: impl Fn(&RotationId, &str, &'static str) -> bool) {
        self.0.retain(|(id, selector, task), _| is_still(id, selector, task));
    }

    /// What is wrong with a key, for people.
    pub(super) fn words(&self, id: &RotationId, selector: &str) -> Option<String> {
        let mut of_key = self.0.iter().filter(|((of, at, _), _)| of == id && **at == *selector);
        let ((_, _, task), trouble) = of_key.next()?;
        Some(format!("{task}: {}", trouble.why))
    }
}

#[cfg(test)]
mod test {
    use trust::KeyKind;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_less_and_less_and_told_once_a_day() {
        let id = RotationId { entry: "e".into(), domain: "example.org".into(), kind: KeyKind::Ed25519 };
        let interval = Duration::from_secs(300);
        let (mut troubles, mut tried, mut told) = (Troubles::default(), 0, 0);
        // Two days, and a provider that is down.
        for _ in 0..2 * 288 {
            if !troubles.hold(&id, "s", "publish") {
                tried += 1;
                told += u32::from(troubles.failed(&id, "s", ("publish", "no answer in time"), interval));
            }
            tokio::time::advance(interval).await;
        }
        assert!((45..=55).contains(&tried) && told == 2, "tried {tried}, told {told}");
        assert_eq!(troubles.words(&id, "s").as_deref(), Some("publish: no answer in time"));
        assert!(!troubles.hold(&id, "s", "erase") && !troubles.hold(&id, "other", "publish"));
        // Something else is wrong.
        assert!(troubles.failed(&id, "s", ("publish", "NOTAUTH"), interval));
        assert!(!troubles.failed(&id, "s", ("publish", "NOTAUTH"), interval));
        troubles.forget();
        assert!(troubles.words(&id, "s").is_none() && !troubles.hold(&id, "s", "publish"));
        assert!(troubles.failed(&id, "s", ("publish", "NOTAUTH"), interval));
        // The second time is at the next round.
        assert!(!troubles.hold(&id, "s", "publish"));
        troubles.done(&id, "s", "publish");
        assert!(troubles.words(&id, "s").is_none());
    }
}
