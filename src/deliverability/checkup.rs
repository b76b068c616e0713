//! The whole of it: what is asked for, what came, and what follows.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use dns::{Answer, Name, Question};
use mail::Timestamp;
use trust::{Digest, Facts, Hearing, Judge, Judged};

use crate::{
    EgressAddress, Finding, PictureErrand, PictureSeen, Plan, Report, addresses, authority, inbound, is_open,
    marks, spf,
};

/// One domain before the judge.
#[derive(Debug)]
pub struct Checkup {
    bench: Bench,
    hearing: Hearing,
}

/// All that a judgement is made from, but for the DNS.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) plan: Plan,
    /// Addresses that mail leaves from, and that the world does not see: nothing is looked up of these, or published.
    pub(crate) hidden: Vec<EgressAddress>,
    pub(crate) judge: Judge,
    pub(crate) at: Timestamp,
    pub(crate) gathered: Gathered,
    /// A message of the domain as it would go out.
    pub(crate) sample: Digest,
}

/// What is to be found out, other than by the DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errands {
    /// A policy that is to be fetched.
    pub policy: Option<PolicyErrand>,
    /// Hosts that are to be connected to, and their addresses.
    pub hosts: Vec<(Name, Vec<IpAddr>)>,
    /// A picture that is to be fetched.
    pub picture: Option<PictureErrand>,
}

/// A policy that is to be fetched (RFC 8461 §3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrand {
    /// The host that has it.
    pub host: Name,
    /// Where that is.
    pub addresses: Vec<IpAddr>,
}

/// What came of them. What is not here was not tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// The body of the answer, or why there is none.
    pub policy: Option<Result<Vec<u8>, String>>,
    /// What hosts have shown.
    pub hosts: BTreeMap<Name, HostProbe>,
    /// What the picture and its certificate are like, or why it may not be shown.
    pub picture: Option<Result<PictureSeen, String>>,
}

/// What a host has shown to somebody who wanted to send mail under TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostProbe {
    /// It does not take mail from us: why.
    Unreachable(String),
    /// It does not offer STARTTLS.
    NoStartTls,
    /// It offers it, and nothing comes of that: why.
    Broken(String),
    /// TLS was there.
    Secure(HostSeen),
}

/// The TLS of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSeen {
    /// Its version.
    pub version: String,
    /// The certificates that it has shown, in DER, its own first.
    pub chain: Vec<Vec<u8>>,
    /// Whether they are good for its name, by the authorities that we believe; if not, why.
    pub trusted: Result<(), String>,
    /// In so many days they are not any more; none when that is far off.
    pub days_left: Option<u16>,
}

impl Checkup {
    /// A domain of which nothing is known. `at` is the time of day; `now` is of the clock that [`Checkup::judge`] is
    /// told the time of.
    pub fn open(mut plan: Plan, at: Timestamp, now: Duration) -> Self {
        let hidden = plan.addresses.extract_if(.., |own| !is_open(own.address)).collect();
        let hearing = Hearing::open(&plan.limits, now);
        let sample = authority::sample(&plan, at);
        Self {
            bench: Bench { plan, hidden, judge: Judge::new(), at, gathered: Gathered::default(), sample },
            hearing,
        }
    }

    /// Takes in the answer to a question that was missing.
    pub fn learn(&mut self, question: Question, answer: Arc<Answer>) {
        self.hearing.learn(question, answer);
    }

    /// What is to be found out, other than by the DNS.
    pub fn errands(&mut self, now: Duration) -> Judged<Errands> {
        let bench = &self.bench;
        self.hearing.judge(now, |facts| bench.judge(facts).1)
    }

    /// Takes in what came of it.
    pub fn bring(&mut self, gathered: Gathered) {
        self.bench.gathered = gathered;
    }

    /// Judges.
    pub fn judge(&mut self, now: Duration) -> Judged<Report> {
        let bench = &self.bench;
        let report =
            |findings| Report { domain: bench.plan.domain.to_string(), at: bench.at.secs(), findings };
        self.hearing.judge(now, |facts| report(bench.judge(facts).0))
    }

    /// When the look-ups are over: judge again then, whatever is still missing.
    pub const fn deadline(&self) -> Duration {
        self.hearing.deadline()
    }
}

impl Bench {
    /// All that can be said, and what is to be found out. The same names are asked for whatever was gathered.
    fn judge(&self, facts: &Facts) -> (Vec<Finding>, Errands) {
        let (mut findings, mut errands) = (Vec::new(), Errands::default());
        addresses::judge(self, facts, &mut findings);
        spf::judge(self, facts, &mut findings);
        let (policy, signatures) = authority::judge(self, facts, &mut findings);
        inbound::judge(self, facts, &mut findings, &mut errands);
        marks::judge(self, facts, (policy, &signatures), &mut errands, &mut findings);
        // What is looked at in one place stands together.
        findings.sort_by_key(|finding| finding.check);
        (findings, errands)
    }
}

#[cfg(test)]
#[path = "checkup_test.rs"]
mod test;
