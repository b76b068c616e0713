//! One message before the judge: what is asked, learned, and found.
//!
//! ```text
//!  open ─▶ judge_envelope ⇄ learn ─▶ iprev and SPF          (when the reverse-path is known)
//!             └▶ judge_message ⇄ learn ─▶ DKIM, ARC, DMARC  (when the message has been read)
//!                   └▶ judge_assertion ⇄ learn ─▶ BIMI      (where somebody wants to know)
//! ```
//!
//! What was found once is not judged again.

use std::{net::IpAddr, sync::Arc, time::Duration};

use dns::{Answer, Question};
use mail::{ReversePath, Timestamp};

use crate::{
    Alignment, ArcChain, Assertion, Author, Digest, Dkim, Dmarc, Iprev, Judge, Limits, Reason, SignerAligned,
    Spf, SpfIdentity, Tricks, Unsubscribe, arc, assertion, deception, dkim, dmarc,
    facts::{Facts, Round},
    iprev, spf, unsubscribe,
};

/// Who brings a message, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The client's address.
    pub address: IpAddr,
    /// The argument of EHLO or HELO.
    pub helo: String,
    /// The argument of MAIL.
    pub mail_from: ReversePath,
}

/// What comes of judging.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Judged<T> {
    /// The verdict.
    Known(T),
    /// These must be looked up and [learned](Case::learn) first; then judge again. When [the deadline](Case::deadline)
    /// comes sooner, judge again then.
    Missing(Vec<Question>),
}

/// What can be said when the envelope is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeVerdict {
    /// The client's address and its names.
    pub iprev: Iprev,
    /// SPF on the argument of EHLO.
    pub helo: Spf,
    /// SPF on the reverse-path; with the null reverse-path, on `postmaster` at the argument of EHLO.
    pub mail_from: Spf,
}

/// What can be said when the message has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The envelope's part.
    pub envelope: EnvelopeVerdict,
    /// Each signature's, in their order; at most [`Limits::signatures_max`] and one.
    pub dkim: Vec<Dkim>,
    /// What others have found before, and sealed.
    pub arc: ArcChain,
    /// DMARC, on top of these.
    pub dmarc: Dmarc,
    /// What makes it impossible to say what was signed, if anything does.
    pub flaw: Option<Reason>,
    /// What may deceive its reader.
    pub tricks: Tricks,
    /// How its list is left, where it says something of that.
    pub unsubscribe: Option<Unsubscribe>,
}

/// One message before the judge.
#[derive(Debug)]
pub struct Case {
    client: Client,
    receiver: String,
    opened_at: Timestamp,
    limits: Limits,
    facts: Facts,
    iprev: Option<Iprev>,
    helo: Option<Spf>,
    mail_from: Option<Spf>,
    dkim: Option<Vec<Dkim>>,
    arc: Option<ArcChain>,
    dmarc: Option<Dmarc>,
}

impl Case {
    /// A case of which nothing is known. `receiver` is our name, `at` the time of day; `now` is of the clock that
    /// [`Case::judge_envelope`] and [`Case::judge_message`] are told the time of.
    pub fn open(client: Client, receiver: &str, limits: Limits, at: Timestamp, now: Duration) -> Self {
        // A socket for both families shows IPv4 clients as ::ffff:192.0.2.1.
        let client = Client { address: client.address.to_canonical(), ..client };
        Self {
            client,
            receiver: receiver.to_owned(),
            opened_at: at,
            limits,
            facts: Facts::new(limits.lookups_max, now.saturating_add(limits.time_max)),
            iprev: None,
            helo: None,
            mail_from: None,
            dkim: None,
            arc: None,
            dmarc: None,
        }
    }

    /// Takes in the answer to a question that was missing.
    pub fn learn(&mut self, question: Question, answer: Arc<Answer>) {
        self.facts.learn(question, answer);
    }

    /// Judges the envelope.
    pub fn judge_envelope(&mut self, now: Duration) -> Judged<EnvelopeVerdict> {
        loop {
            self.attempt_envelope();
            match (self.facts.end_round(now), self.envelope()) {
                (Round::Ask(questions), _) => return Judged::Missing(questions),
                (Round::Complete, Some(verdict)) => return Judged::Known(verdict),
                (Round::Again | Round::Complete, _) => {}
            }
        }
    }

    /// Judges the message, and the envelope if that was not done.
    pub fn judge_message(&mut self, judge: &Judge, digest: &Digest, now: Duration) -> Judged<Verdict> {
        loop {
            self.attempt_envelope();
            self.attempt_message(judge, digest);
            let found = (&self.dkim, &self.arc, &self.dmarc);
            match (self.facts.end_round(now), self.envelope(), found) {
                (Round::Ask(questions), ..) => return Judged::Missing(questions),
                (Round::Complete, Some(envelope), (Some(dkim), Some(arc), Some(dmarc))) => {
                    let (dkim, arc, dmarc) = (dkim.clone(), arc.clone(), dmarc.clone());
                    let (flaw, tricks) = (digest.flaw(), deception::tricks(digest, &dkim));
                    let aligned = |signature: &Dkim| self.aligned(judge, digest, &dmarc, signature);
                    let unsubscribe = unsubscribe::judge(digest, &dkim, aligned);
                    return Judged::Known(Verdict { envelope, dkim, arc, dmarc, flaw, tricks, unsubscribe });
                }
                (Round::Again | Round::Complete, ..) => {}
            }
        }
    }

    /// Looks for what the author's domain asserts of its picture (BIMI), once [`Case::judge_message`] has said this of the message:
    /// by what is left of the same look-ups and the same time.
    pub fn judge_assertion(
        &mut self,
        digest: &Digest,
        verdict: &Verdict,
        now: Duration,
    ) -> Judged<Assertion> {
        loop {
            let found = self.facts.attempt(|facts| assertion::discover(facts, digest, verdict));
            match (self.facts.end_round(now), found) {
                (Round::Ask(questions), _) => return Judged::Missing(questions),
                (Round::Complete, Some(found)) => return Judged::Known(found),
                (Round::Again | Round::Complete, _) => {}
            }
        }
    }

    /// Who brings the message.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// When the look-ups are over: judge again then, whatever is still missing.
    pub const fn deadline(&self) -> Duration {
        self.facts.deadline()
    }

    /// How many look-ups it has taken so far.
    pub const fn lookups(&self) -> usize {
        self.facts.asked()
    }

    fn attempt_envelope(&mut self) {
        let (facts, limits, client) = (&self.facts, &self.limits, &self.client);
        if self.iprev.is_none() {
            self.iprev = facts.attempt(|facts| iprev::check(facts, limits, client.address));
        }
        let mut question = spf::Question {
            address: client.address,
            identity: SpfIdentity::Helo,
            local_part: "",
            domain: &client.helo,
            helo: &client.helo,
            receiver: &self.receiver,
            time: self.opened_at.secs(),
        };
        if self.helo.is_none() {
            self.helo = facts.attempt(|facts| spf::check(facts, limits, &question));
        }
        if self.mail_from.is_none() {
            question.identity = SpfIdentity::MailFrom;
            if let Some(address) = client.mail_from.address() {
                (question.local_part, question.domain) =
                    (address.local_part().as_str(), address.domain_str());
            }
            self.mail_from = facts.attempt(|facts| spf::check(facts, limits, &question));
        }
    }

    fn attempt_message(&mut self, judge: &Judge, digest: &Digest) {
        let (facts, limits) = (&self.facts, &self.limits);
        if self.dkim.is_none() {
            self.dkim = facts.attempt(|facts| dkim::verify(facts, judge, digest, limits, self.opened_at));
        }
        if self.arc.is_none() {
            self.arc = facts.attempt(|facts| arc::verify(facts, judge, digest, limits, self.opened_at));
        }
        if self.dmarc.is_some() {
            return;
        }
        if let (Some(spf), Some(dkim)) = (&self.mail_from, &self.dkim) {
            self.dmarc = facts.attempt(|facts| dmarc::check(facts, judge, digest, spf, dkim));
        }
        // What it will need is looked up with the rest.
        if self.dmarc.is_none() {
            dmarc::look_ahead(facts, digest.author());
        }
    }

    /// Whether DMARC would pass by this signature, when it knows one of the author's at all.
    fn aligned(&self, judge: &Judge, digest: &Digest, dmarc: &Dmarc, signature: &Dkim) -> SignerAligned {
        let is_own =
            matches!(&dmarc.author, Author::Domain(author) if author.as_str() == signature.domain.as_str());
        let by_it = || {
            let (spf, alone) = (self.mail_from.as_ref()?, std::slice::from_ref(signature));
            // All that it takes is known.
            self.facts.attempt(|facts| dmarc::check(facts, judge, digest, spf, alone))
        };
        let is_aligned = is_own
            || (dmarc.dkim == Alignment::Aligned
                && by_it().is_some_and(|alone| alone.dkim == Alignment::Aligned));
        if is_aligned { SignerAligned::Yes } else { SignerAligned::No }
    }

    fn envelope(&self) -> Option<EnvelopeVerdict> {
        Some(EnvelopeVerdict {
            iprev: self.iprev.clone()?,
            helo: self.helo.clone()?,
            mail_from: self.mail_from.clone()?,
        })
    }
}

#[cfg(test)]
#[path = "case_test.rs"]
mod test;
