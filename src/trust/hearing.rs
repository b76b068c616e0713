//! A judgement that others make, over facts that are gathered as those of a message are.

use std::{sync::Arc, time::Duration};

use dns::{Answer, Question};

use crate::{
    Judged, Limits,
    facts::{Facts, Round},
};

/// What is known so far, for somebody who judges by a function of it.
#[derive(Debug)]
pub struct Hearing {
    facts: Facts,
}

impl Hearing {
    /// Nothing is known. Of `limits`, look-ups and time count; `now` is of the clock that [`Hearing::judge`] is told the time of.
    pub fn open(limits: &Limits, now: Duration) -> Self {
        Self { facts: Facts::new(limits.lookups_max, now.saturating_add(limits.time_max)) }
    }

    /// Takes in the answer to a question that was missing.
    pub fn learn(&mut self, question: Question, answer: Arc<Answer>) {
        self.facts.learn(question, answer);
    }

    /// Judges. The judgement asks as if everything were known; what comes of it while something is missing is thrown away.
    pub fn judge<T>(&mut self, now: Duration, judgement: impl Fn(&Facts) -> T) -> Judged<T> {
        loop {
            let result = self.facts.attempt(&judgement);
            match (self.facts.end_round(now), result) {
                (Round::Ask(questions), _) => return Judged::Missing(questions),
                (Round::Complete, Some(result)) => return Judged::Known(result),
                (Round::Again | Round::Complete, _) => {}
            }
        }
    }

    /// When the look-ups are over: judge again then, whatever is still missing.
    pub const fn deadline(&self) -> Duration {
        self.facts.deadline()
    }
}
