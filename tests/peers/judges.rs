//! Other programs judge what we judge: thousands of generated messages, records and policies, and everybody says the same.
//!
//! Nothing is excused: where others are known to say something else, by their fault or by their choice, they are mended, or given what
//! both sides read alike, and then have to say exactly what we do. Each such place has a name and a section. All is made from a seed:
//! `SEED=7` makes other messages, records and policies, and the same again.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dns::{Answer, Outcome, Question, Records, Security};
use mail::{ReversePath, Timestamp};
use trust::{Case, Client, Digest, Digester, EnvelopeVerdict, Judge, Judged, Limits, Verdict};

#[path = "judges/dkim.rs"]
mod dkim;
#[path = "judges/dmarc.rs"]
mod dmarc;
#[path = "judges/messages.rs"]
mod messages;
#[path = "judges/spf.rs"]
mod spf;

/// Numbers of no pattern, the same for the same seed (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    /// By the seed of this run, and a number of its own for each use.
    pub(crate) fn new(purpose: u64) -> Self {
        let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1_u64);
        Self(seed.wrapping_mul(1_000_003) ^ purpose)
    }

    /// Whether this is the seed that is always run. Of others what is rare may not come up.
    pub(crate) fn is_usual() -> bool {
        std::env::var_os("SEED").is_none()
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 1) as usize % n
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn text<'a>(&mut self, some: &[&'a str]) -> &'a str {
        some[self.below(some.len())]
    }

    pub(crate) fn of<'a, T>(&mut self, some: &'a [T]) -> &'a T {
        &some[self.below(some.len())]
    }
}

/// What the DNS says; names that are not here do not exist.
#[derive(Debug, Default)]
pub(crate) struct World(HashMap<Question, Arc<Answer>>);

impl World {
    pub(crate) fn add(&mut self, question: Question, outcome: Outcome) {
        let answer =
            Answer { outcome, security: Security::Unproven, alias_of: None, ttl: Duration::from_secs(60) };
        self.0.insert(question, Arc::new(answer));
    }

    pub(crate) fn text(&mut self, name: &str, text: &str) {
        let question = Question { name: name.parse().unwrap(), kind: dns::Kind::Txt };
        self.add(question, Outcome::Found(Records::Texts(vec![text.as_bytes().into()])));
    }

    fn answer(&self, question: &Question) -> Arc<Answer> {
        let nothing = Answer {
            outcome: Outcome::NxDomain,
            security: Security::Unproven,
            alias_of: None,
            ttl: Duration::ZERO,
        };
        self.0.get(question).cloned().unwrap_or_else(|| Arc::new(nothing))
    }

    fn until_known<T>(&self, case: &mut Case, mut judge: impl FnMut(&mut Case) -> Judged<T>) -> T {
        for _ in 0..100 {
            match judge(case) {
                Judged::Known(verdict) => return verdict,
                Judged::Missing(questions) => {
                    for question in questions {
                        let answer = self.answer(&question);
                        case.learn(question, answer);
                    }
                }
            }
        }
        panic!("judging does not end");
    }

    /// What we say of an envelope.
    pub(crate) fn envelope(&self, client: Client) -> EnvelopeVerdict {
        let mut case = self.case(client, Limits { lookups_max: 1000, ..Limits::default() });
        self.until_known(&mut case, |case| case.judge_envelope(Duration::ZERO))
    }

    /// What we say of a message.
    pub(crate) fn message(&self, judge: &Judge, client: Client, limits: Limits, content: &[u8]) -> Verdict {
        let mut case = self.case(client, limits);
        let digest = digest(Digester::new(limits).verifying(), content);
        self.until_known(&mut case, |case| case.judge_message(judge, &digest, Duration::ZERO))
    }

    fn case(&self, client: Client, limits: Limits) -> Case {
        Case::open(client, "mx.example", limits, now(), Duration::ZERO)
    }
}

pub(crate) fn digest(mut digester: Digester, content: &[u8]) -> Digest {
    // In slices, as it comes.
    content.chunks(1499).for_each(|slice| digester.push(slice));
    digester.finish()
}

pub(crate) fn client(address: &str, helo: &str, sender: &str) -> Client {
    let address: IpAddr = address.parse().unwrap();
    let mail_from = match sender {
        "" => ReversePath::Null,
        sender => ReversePath::Address(sender.parse().unwrap()),
    };
    Client { address, helo: helo.to_owned(), mail_from }
}

/// The time of day: others look at it themselves.
#[expect(
    clippy::disallowed_methods,
    reason = "dkimpy and OpenDKIM ask for the time, and have to find the same"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}
