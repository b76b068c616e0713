//! The policies of domains that are known, for as long as they say (RFC 8461 §3.3, §10.2).
//!
//! ```text
//!  look(domain, id of the TXT record) --> Known(policy, or none)
//!                     |                     ^
//!                     +--> Fetch --> keep / fail: what was known before stays until it ends
//! ```
//!
//! A record that is missing or cannot be had changes nothing: a policy that is known holds to its end.

use std::{collections::HashMap, fmt::Write as _, sync::Arc, time::Duration};

use dns::Name;
use mail::Timestamp;

use super::{Policy, PolicyError};

/// Policies by domain.
#[derive(Debug)]
pub struct Policies {
    limits: PoliciesLimits,
    domains: HashMap<Name, Domain>,
}

/// Upper bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoliciesLimits {
    /// Domains; then the one whose policy ends first is forgotten.
    pub domains_max: usize,
    /// How long a domain whose policy could not be had is not asked again (RFC 8461 §3.3: five minutes at least).
    pub failure_age: Duration,
}

/// A policy, and since when it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The id that announced it.
    pub id: Box<str>,
    /// The policy.
    pub policy: Arc<Policy>,
    /// When it was fetched.
    pub since: Timestamp,
}

/// What is known of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Its policy; none when it has none, or none that can be had. With it, why there is no newer one.
    Known(Option<Arc<Policy>>, Option<FetchFailure>),
    /// The policy is to be fetched first.
    Fetch,
}

/// Why there is no policy (RFC 8460 §4.3.2.2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchFailure {
    /// It could not be had.
    #[error("the policy cannot be fetched: {0}")]
    Fetch(Box<str>),
    /// The certificate of the host that has it is not good.
    #[error("the policy host cannot be trusted: {0}")]
    Certificate(Box<str>),
    /// What was had is none.
    #[error(transparent)]
    Invalid(#[from] PolicyError),
}

#[derive(Debug, Default)]
struct Domain {
    kept: Option<Kept>,
    failure: Option<(FetchFailure, Timestamp)>,
}

impl Default for PoliciesLimits {
    fn default() -> Self {
        Self { domains_max: 100_000, failure_age: Duration::from_secs(300) }
    }
}

impl Kept {
    /// When it ends.
    pub fn until(&self) -> Timestamp {
        self.since.saturating_add(Duration::from_secs(self.policy.max_age.into()))
    }

    /// From when on it is fetched anew, before it ends (RFC 8461 §3.3, §10.2): once a day.
    fn fresh_until(&self) -> Timestamp {
        const DAY: u64 = 86_400;
        self.since.saturating_add(Duration::from_secs((u64::from(self.policy.max_age) / 2).min(DAY)))
    }
}

impl Policies {
    /// Knows nothing yet.
    pub fn new(limits: PoliciesLimits) -> Self {
        Self { limits, domains: HashMap::new() }
    }

    /// What is known of a domain whose TXT record has this id now; none when there is no record, or none could be had.
    pub fn look(&self, domain: &Name, id: Option<&str>, now: Timestamp) -> Look {
        let known = self.domains.get(domain);
        let kept = known.and_then(|known| known.kept.as_ref()).filter(|kept| kept.until() > now);
        let policy = || kept.map(|kept| Arc::clone(&kept.policy));
        let is_current = |id: &str| kept.is_some_and(|kept| *kept.id == *id && kept.fresh_until() > now);
        let Some(id) = id else { return Look::Known(policy(), None) };
        if is_current(id) {
            return Look::Known(policy(), None);
        }
        match known.and_then(|known| known.failure.as_ref()).filter(|(_, until)| *until > now) {
            Some((failure, _)) => Look::Known(policy(), Some(failure.clone())),
            None => Look::Fetch,
        }
    }

    /// A policy was fetched after [`Look::Fetch`], or was known before a restart.
    pub fn keep(&mut self, domain: Name, kept: Kept, now: Timestamp) {
        self.make_room(&domain, now);
        self.domains.insert(domain, Domain { kept: Some(kept), failure: None });
    }

    /// There is none to be had now.
    pub fn fail(&mut self, domain: Name, failure: FetchFailure, now: Timestamp) {
        self.make_room(&domain, now);
        let until = now.saturating_add(self.limits.failure_age);
        self.domains.entry(domain).or_default().failure = Some((failure, until));
    }

    /// All that are known and hold, in the order of their domains: to be kept over a restart.
    pub fn to_text(&self, now: Timestamp) -> String {
        let mut all: Vec<_> =
            self.domains.iter().filter_map(|(domain, known)| Some((domain, known.kept.as_ref()?))).collect();
        all.retain(|(_, kept)| kept.until() > now);
        all.sort_unstable_by_key(|(domain, _)| *domain);
        let mut text = String::new();
        for (domain, Kept { id, policy, since }) in all {
            let mx: Vec<_> = policy.mx.iter().map(ToString::to_string).collect();
            let (mode, age, mx) = (policy.mode.as_str(), policy.max_age, mx.join(","));
            writeln!(text, "{domain} {id} {} {mode} {age} {mx}", since.0).expect("a string takes all");
        }
        text
    }

    /// Takes what [`Policies::to_text`] gave, but for what is older than what is known. A line that is none of its is passed over;
    /// answers how many.
    pub fn take_text(&mut self, text: &str, now: Timestamp) -> usize {
        let mut strange = 0;
        for line in text.lines() {
            match read_line(line) {
                Some((domain, kept)) => {
                    let known = self.domains.get(&domain).and_then(|known| known.kept.as_ref());
                    if kept.until() > now && known.is_none_or(|known| known.since < kept.since) {
                        self.keep(domain, kept, now);
                    }
                }
                None => strange += 1,
            }
        }
        strange
    }

    fn make_room(&mut self, domain: &Name, now: Timestamp) {
        if self.domains.len() < self.limits.domains_max || self.domains.contains_key(domain) {
            return;
        }
        self.domains.retain(|_, known| {
            known.kept.as_ref().is_some_and(|kept| kept.until() > now)
                || known.failure.as_ref().is_some_and(|(_, until)| *until > now)
        });
        if self.domains.len() >= self.limits.domains_max {
            let first = self.domains.iter().min_by_key(|(_, known)| known.kept.as_ref().map(Kept::until));
            if let Some(first) = first.map(|(domain, _)| domain.clone()) {
                self.domains.remove(&first);
            }
        }
    }
}

fn read_line(line: &str) -> Option<(Name, Kept)> {
    let mut words = line.split(' ');
    let mut word = || words.next();
    let (domain, id, since, mode, age, mx) = (word()?, word()?, word()?, word()?, word()?, word()?);
    let mx: String = mx.split(',').filter(|mx| !mx.is_empty()).map(|mx| format!("mx: {mx}\n")).collect();
    let policy =
        Policy::parse(format!("version: STSv1\nmode: {mode}\nmax_age: {age}\n{mx}").as_bytes()).ok()?;
    let since = Timestamp(since.parse().ok()?);
    Some((Name::parse(domain).ok()?, Kept { id: id.into(), policy: Arc::new(policy), since }))
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::sts::Mode;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn kept(id: &str, max_age: u32, since: u64) -> Kept {
        let text = format!("version: STSv1\nmode: enforce\nmx: *.{id}.test\nmax_age: {max_age}\n");
        let policy = Arc::new(Policy::parse(text.as_bytes()).unwrap());
        Kept { id: id.into(), policy, since: Timestamp::from_secs(since) }
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_policy_holds_to_its_end() {
        let domain = name("a.test");
        let mut policies = Policies::new(PoliciesLimits::default());
        assert_eq!(policies.look(&domain, None, at(0)), Look::Known(None, None));
        assert_eq!(policies.look(&domain, Some("1"), at(0)), Look::Fetch);
        let one = kept("1", 1000, 0);
        policies.keep(domain.clone(), one.clone(), at(0));
        let known = || Look::Known(Some(one.policy.clone()), None);
        assert_eq!(policies.look(&domain, Some("1"), at(499)), known());
        // Without the record, as one could have it whom somebody takes it from.
        assert_eq!(policies.look(&domain, None, at(999)), known());
        assert_eq!(policies.look(&domain, None, at(1000)), Look::Known(None, None));
        // Half of its time is over, or it is another: it is fetched, and what cannot be had changes nothing.
        assert_eq!(policies.look(&domain, Some("1"), at(500)), Look::Fetch);
        assert_eq!(policies.look(&domain, Some("2"), at(10)), Look::Fetch);
        let failure = FetchFailure::Invalid(PolicyError::Mode);
        policies.fail(domain.clone(), failure.clone(), at(10));
        let before = || Look::Known(Some(one.policy.clone()), Some(failure.clone()));
        assert_eq!(policies.look(&domain, Some("2"), at(309)), before());
        assert_eq!(policies.look(&domain, Some("2"), at(310)), Look::Fetch);
        policies.keep(domain.clone(), kept("2", 10, 310), at(310));
        assert!(matches!(policies.look(&domain, Some("2"), at(311)), Look::Known(Some(_), None)));
        assert_eq!(policies.look(&domain, Some("2"), at(321)), Look::Fetch);
        policies.fail(domain.clone(), failure.clone(), at(321));
        assert_eq!(policies.look(&domain, Some("2"), at(322)), Look::Known(None, Some(failure)));
    }

    #[test]
    fn a_long_policy_is_looked_at_once_a_day() {
        let domain = name("a.test");
        let mut policies = Policies::new(PoliciesLimits::default());
        policies.keep(domain.clone(), kept("1", 31_557_600, 0), at(0));
        assert!(matches!(policies.look(&domain, Some("1"), at(86_399)), Look::Known(Some(_), None)));
        assert_eq!(policies.look(&domain, Some("1"), at(86_400)), Look::Fetch);
    }

    /// As two processes have them, each of which has fetched some.
    #[test]
    fn of_two_the_later_one_holds() {
        let mut ours = Policies::new(PoliciesLimits::default());
        ours.keep(name("a.test"), kept("new", 1000, 5), at(5));
        ours.keep(name("b.test"), kept("old", 1000, 5), at(5));
        let mut theirs = Policies::new(PoliciesLimits::default());
        theirs.keep(name("a.test"), kept("old", 1000, 4), at(4));
        theirs.keep(name("b.test"), kept("new", 1000, 6), at(6));
        theirs.keep(name("c.test"), kept("new", 1000, 6), at(6));
        let failure = FetchFailure::Invalid(PolicyError::Mode);
        ours.fail(name("a.test"), failure.clone(), at(7));
        assert_eq!(ours.take_text(&theirs.to_text(at(7)), at(7)), 0);
        let text = ours.to_text(at(7));
        assert_eq!(text.matches(" new ").count(), 3, "{text}");
        assert!(matches!(ours.look(&name("a.test"), Some("newer"), at(8)), Look::Known(Some(_), Some(_))));
    }

    #[test]
    fn a_restart_forgets_nothing_that_holds() {
        let mut policies = Policies::new(PoliciesLimits::default());
        policies.keep(name("a.test"), kept("1", 1000, 0), at(0));
        policies.keep(name("b.test"), kept("2", 10, 0), at(0));
        policies.fail(name("c.test"), FetchFailure::Invalid(PolicyError::Mode), at(0));
        let none = Policy::parse(b"version: STSv1\nmode: none\nmax_age: 500\n").unwrap();
        assert_eq!(none.mode, Mode::None);
        let none = Kept { id: "3".into(), policy: Arc::new(none), since: at(1) };
        policies.keep(name("d.test"), none.clone(), at(1));
        let text = policies.to_text(at(10));
        assert_eq!(text, "a.test 1 0 enforce 1000 *.1.test\nd.test 3 1000000 none 500 \n");
        let mut again = Policies::new(PoliciesLimits::default());
        assert_eq!(again.take_text(&text, at(10)), 0);
        assert_eq!(again.to_text(at(10)), text);
        assert_eq!(again.look(&name("d.test"), Some("3"), at(11)), Look::Known(Some(none.policy), None));
        let damaged = format!("rubbish\n{text}\na.test 1 x enforce 1 a\nb..test 1 0 none 1 \n");
        assert_eq!(Policies::new(PoliciesLimits::default()).take_text(&damaged, at(10)), 4);
    }

    #[test]
    fn the_crowd_is_bounded() {
        let mut policies = Policies::new(PoliciesLimits { domains_max: 2, ..PoliciesLimits::default() });
        policies.keep(name("a.test"), kept("1", 1000, 0), at(0));
        policies.fail(name("b.test"), FetchFailure::Invalid(PolicyError::Mode), at(0));
        policies.keep(name("c.test"), kept("1", 100, 0), at(0));
        policies.keep(name("d.test"), kept("1", 500, 0), at(0));
        assert_eq!(policies.domains.len(), 2);
        let is_known = |text: &str| policies.look(&name(text), None, at(1)) != Look::Known(None, None);
        assert!(is_known("a.test") && is_known("d.test"));
    }
}
