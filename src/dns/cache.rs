//! Answers we remember, until their time is over or the room is needed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::{Answer, Question};

/// Answers by question. Its memory is bounded; what expires first goes first.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: HashMap<Question, Entry>,
    by_expiry: BTreeMap<(Duration, u64), Question>,
    size: usize,
    size_max: usize,
    serial: u64,
}

#[derive(Debug)]
struct Entry {
    answer: Arc<Answer>,
    key: (Duration, u64),
    size: usize,
}

// What the two maps and the shared name take beside the answer, about.
const OVERHEAD: usize = 250;

impl Cache {
    pub(crate) fn new(size_max: usize) -> Self {
        Self { entries: HashMap::new(), by_expiry: BTreeMap::new(), size: 0, size_max, serial: 0 }
    }

    pub(crate) fn insert(&mut self, question: Question, answer: Arc<Answer>, expires_at: Duration) {
        self.remove(&question);
        let size = OVERHEAD + question.name.as_str().len() + answer.size();
        if size > self.size_max {
            return;
        }
        while self.size + size > self.size_max {
            let Some((_, oldest)) = self.by_expiry.pop_first() else { break };
            self.remove(&oldest);
        }
        self.serial += 1;
        let key = (expires_at, self.serial);
        self.by_expiry.insert(key, question.clone());
        self.entries.insert(question, Entry { answer, key, size });
        self.size += size;
    }

    /// Drops what has expired.
    pub(crate) fn purge(&mut self, now: Duration) {
        while let Some(entry) = self.by_expiry.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let question = entry.remove();
            self.remove(&question);
        }
    }

    pub(crate) fn get(&self, question: &Question, now: Duration) -> Option<&Arc<Answer>> {
        self.entries.get(question).filter(|entry| entry.key.0 > now).map(|entry| &entry.answer)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn remove(&mut self, question: &Question) {
        if let Some(entry) = self.entries.remove(question) {
            self.by_expiry.remove(&entry.key);
            self.size -= entry.size;
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::{Failure, Name};

    fn question(i: u64) -> Question {
        Question::a(Name::parse(&format!("host{i}.example")).unwrap())
    }

    fn filled(count: u64, size_max: usize) -> Cache {
        let mut cache = Cache::new(size_max);
        for i in 0..count {
            let answer = Arc::new(Answer::failed(Failure::Timeout, Duration::ZERO));
            cache.insert(question(i), answer, Duration::from_secs(100 + i % 7));
        }
        cache
    }

    #[test]
    fn memory_is_bounded_and_the_soonest_go() {
        let cache = filled(1000, 20_000);
        assert!(cache.size <= 20_000 && cache.len() > 20, "{} entries, {} octets", cache.len(), cache.size);
        assert_eq!(cache.len(), cache.by_expiry.len());
        assert!(cache.by_expiry.keys().all(|key| key.0 >= Duration::from_secs(105)));
        assert_eq!(filled(5, 100).len(), 0, "what is larger than the cache is not kept");
    }

    #[test]
    fn time_ends_entries() {
        let mut cache = filled(7, 1 << 20);
        assert!(cache.get(&question(0), Duration::from_secs(99)).is_some());
        assert!(cache.get(&question(0), Duration::from_secs(100)).is_none());
        cache.purge(Duration::from_secs(103));
        assert_eq!(cache.len(), 3);
        cache.insert(question(4), Arc::new(Answer::failed(Failure::Timeout, Duration::ZERO)), Duration::MAX);
        cache.purge(Duration::from_secs(1000));
        assert_eq!(cache.len(), 1);
        cache.purge(Duration::MAX);
        assert_eq!((cache.len(), cache.size), (0, 0));
    }
}
