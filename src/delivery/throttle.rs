//! How much one of our addresses sends to a site: less when the site complains, more when all goes well.
//!
//! ```text
//!              storm, or a rule: halved        storm at the floor, connections refused, a rule
//!            +------------------------+       +------------------------------------------------+
//!            v                        |       |                                                v
//!         Flowing --a round of success: more--+        Suspended --its time is up--> Probing (one connection)
//!            ^                                             ^                            |          |
//!            |                                             +---- trouble: twice as long +          |
//!            +----------------------------- an answer: from the floor up --------------------------+
//! ```
//!
//! A [`Throttle`] is told what came of each message and of connections that were not made, and says how many connections
//! and messages there may be now. It has no clock: time is an argument, and may go back. What slows a site is what a site
//! does as a whole. That a mailbox is full or does not exist says that the site is well.

use std::{fmt, sync::Arc, time::Duration};

use mail::{Category, Timestamp};

use crate::{Advice, Judgement};

/// What one address of ours may send to one site.
///
/// It takes [`THROTTLE_MEMORY_MAX`] octets at most, the reason included.
#[derive(Clone, Debug)]
pub struct Throttle {
    limits: ThrottleLimits,
    state: State,
    connections: u32,
    /// Up to so many, connections double each round: half of what was too much.
    threshold: u32,
    /// Messages a minute; none: as many as will go.
    rate: Option<u32>,
    /// Messages a minute when that was too much: what growing is measured by where no maximum is configured.
    rate_before: u32,
    round: Round,
    /// Messages of this minute, and of the one before.
    sent: [u32; 2],
    minute: Timestamp,
    /// Connections that were not made, in a row.
    unconnected: u32,
    /// Suspensions since all was well.
    suspensions: u32,
    /// When it got less the last time.
    slowed_at: Option<Timestamp>,
    reason: Option<Box<Reason>>,
}

/// The bounds of a [`Throttle`], and how it moves between them. docs/queue.md argues for the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleLimits {
    /// Never more connections than this: `route.concurrency-max`.
    pub connections_max: u32,
    /// Never fewer, unless suspended.
    pub connections_min: u32,
    /// Never more messages a minute; none: as many as will go.
    pub rate_max: Option<u32>,
    /// Never fewer, unless suspended.
    pub rate_min: u32,
    /// After so long of success there may be more.
    pub round: Duration,
    /// In so many rounds at most it grows from nothing to its maximum, one step each.
    pub steps: u32,
    /// So many messages that met trouble within a round are a storm,
    pub storm_min: u32,
    /// if they are at least so many of a hundred.
    pub storm_percent: u32,
    /// Trouble so soon after it got less is an echo of what was on its way.
    pub settle: Duration,
    /// So many connections not made, one after the other, suspend the site.
    pub unconnected_max: u32,
    /// The first suspension of our own; each that follows is twice as long,
    pub suspend_min: Duration,
    /// but never longer than this. A rule may want a longer one.
    pub suspend_max: Duration,
}

/// What came of a message for a site: told once for each transaction, by [`spokesman`], so that a message to many counts
/// like a message to one.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// What a refusal was about; none: the message was taken.
    pub category: Option<Category>,
    /// What the rule advises.
    pub advice: Advice,
    /// The rule.
    pub rule: Option<&'a Arc<str>>,
    /// What was said.
    pub reply: &'a str,
}

/// Which recipient of a transaction speaks for all, in their order: one whose rule advises something, before one that was
/// taken, before one that was refused for a reason of its own. `None` was taken. So one bad mailbox among good ones is
/// no trouble of the site.
pub fn spokesman<'a>(judgements: impl IntoIterator<Item = Option<&'a Judgement>>) -> Option<usize> {
    let weight = |judgement: Option<&Judgement>| match (judgement.map(Judgement::advice), judgement) {
        (Some(Advice::Suspend(time)), _) => (4, time),
        (Some(Advice::Slower), _) => (3, Duration::ZERO),
        (Some(Advice::None) | None, judgement) => {
            match Sign::of(judgement.map(|judgement| judgement.category)) {
                Sign::Good => (2, Duration::ZERO),
                Sign::Neutral => (1, Duration::ZERO),
                Sign::Trouble => (0, Duration::ZERO),
            }
        }
    };
    let weights = judgements.into_iter().map(weight).enumerate();
    weights.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(place, _)| place)
}

/// How much there may be now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Connections open at once; none while suspended.
    pub connections: u32,
    /// Messages a minute; none: as many as will go.
    pub rate: Option<u32>,
    /// Until when there are none at all.
    pub suspended_until: Option<Timestamp>,
}

/// Why there may not be more, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Why<'a> {
    /// How much there may be.
    pub allowed: Allowed,
    /// What a refusal was about.
    pub category: Category,
    /// The rule that said so, when it was one.
    pub rule: Option<&'a str>,
    /// What the site said, or what happened in its place; cut.
    pub reply: &'a str,
    /// Since when.
    pub since: Timestamp,
}

/// Octets that a throttle takes at most, on a machine of 64 bits: itself, and a reason with a reply that is cut. The name
/// of a rule is the rule's.
pub const THROTTLE_MEMORY_MAX: usize = 512;

/// Octets of a reply that are kept.
const REPLY_MAX: usize = 200;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Flowing,
    Suspended { since: Timestamp, length: Duration },
    Probing,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    began: Timestamp,
    /// Messages that were taken.
    good: u32,
    /// Those that met what a site does as a whole.
    trouble: u32,
    /// All.
    all: u32,
}

#[derive(Clone, Debug)]
struct Reason {
    category: Category,
    rule: Option<Arc<str>>,
    reply: Box<str>,
    since: Timestamp,
}

/// What a message says of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Good,
    /// It answers, and that is all.
    Neutral,
    Trouble,
}

impl Default for ThrottleLimits {
    fn default() -> Self {
        Self {
            connections_max: 20,
            connections_min: 1,
            rate_max: None,
            rate_min: 6,
            round: Duration::from_secs(30),
            steps: 20,
            storm_min: 5,
            storm_percent: 20,
            settle: Duration::from_secs(10),
            unconnected_max: 5,
            suspend_min: MINUTE,
            suspend_max: Duration::from_secs(3_600),
        }
    }
}

impl Throttle {
    /// A site that nothing is known of: all that the limits allow.
    pub fn new(limits: ThrottleLimits, now: Timestamp) -> Self {
        let limits = limits.sound();
        Self {
            limits,
            state: State::Flowing,
            connections: limits.connections_max,
            threshold: limits.connections_max,
            rate: limits.rate_max,
            rate_before: 0,
            round: Round::new(now),
            sent: [0; 2],
            minute: now,
            unconnected: 0,
            suspensions: 0,
            slowed_at: None,
            reason: None,
        }
    }

    /// A transaction ended.
    pub fn on_outcome(&mut self, told: &Told<'_>, now: Timestamp) {
        self.advance(now);
        self.sent[0] = self.sent[0].saturating_add(1);
        let reason = || Reason::of(told, now);
        if let Advice::Suspend(time) = told.advice {
            return self.suspend(time, reason, now);
        }
        let sign = Sign::of(told.category);
        match self.state {
            // On its way when the site was suspended: no news.
            State::Suspended { .. } => return,
            State::Probing if sign == Sign::Trouble || told.advice == Advice::Slower => {
                return self.suspend(Duration::ZERO, reason, now);
            }
            State::Probing => self.recover(now),
            State::Flowing => {}
        }
        if sign != Sign::Trouble {
            self.unconnected = 0;
        }
        if self.is_settling(now) && sign == Sign::Trouble {
            return;
        }
        self.round.count(sign);
        if told.advice == Advice::Slower || self.round.is_storm(&self.limits) {
            self.slow(reason, now);
        }
    }

    /// So many transactions ended well: as [`Throttle::on_outcome`] for each.
    pub fn on_taken(&mut self, count: u32, now: Timestamp) {
        self.advance(now);
        self.sent[0] = self.sent[0].saturating_add(count);
        match self.state {
            State::Suspended { .. } => return,
            State::Probing => self.recover(now),
            State::Flowing => {}
        }
        self.unconnected = 0;
        self.round.good = self.round.good.saturating_add(count);
        self.round.all = self.round.all.saturating_add(count);
    }

    /// A connection was not made, or refused before it was of any use: nobody listened, or the greeting or EHLO got 4yz
    /// or 5yz. `why` is what was said or happened. What the messages that waited for it got is not told as well.
    pub fn on_connect_failed(&mut self, why: &str, now: Timestamp) {
        self.advance(now);
        let told =
            Told { category: Some(Category::Connection), advice: Advice::None, rule: None, reply: why };
        let reason = || Reason::of(&told, now);
        match self.state {
            State::Suspended { .. } => {}
            State::Probing => self.suspend(Duration::ZERO, reason, now),
            State::Flowing => {
                self.unconnected = self.unconnected.saturating_add(1);
                if self.unconnected >= self.limits.unconnected_max {
                    return self.suspend(Duration::ZERO, reason, now);
                }
                if self.is_settling(now) {
                    return;
                }
                self.round.count(Sign::Trouble);
                if self.round.is_storm(&self.limits) {
                    self.slow(reason, now);
                }
            }
        }
    }

    /// An operator knows better: all is as at the beginning.
    pub fn reset(&mut self, now: Timestamp) {
        *self = Self::new(self.limits, now);
    }

    /// After a reload: other bounds, and what is between them stays.
    pub fn set_limits(&mut self, limits: ThrottleLimits) {
        let limits = limits.sound();
        let was_at_rest = self.is_full();
        self.limits = limits;
        if was_at_rest {
            (self.connections, self.threshold, self.rate) =
                (limits.connections_max, limits.connections_max, limits.rate_max);
            return;
        }
        self.connections = self.connections.clamp(limits.connections_min, limits.connections_max);
        self.threshold = self.threshold.clamp(limits.connections_min, limits.connections_max);
        self.rate = match (self.rate, limits.rate_max) {
            (None, max) => max,
            (Some(rate), None) => Some(rate.max(limits.rate_min)),
            (Some(rate), Some(max)) => Some(rate.clamp(limits.rate_min, max)),
        };
        self.rate_before = self.rate_before.max(self.rate.unwrap_or(0));
        self.rest_if_full();
    }

    /// How much there may be.
    pub fn limits(&self, now: Timestamp) -> Allowed {
        match self.state_at(now) {
            State::Flowing => {
                Allowed { connections: self.connections, rate: self.rate, suspended_until: None }
            }
            State::Suspended { since, length } => Allowed {
                connections: 0,
                rate: Some(0),
                suspended_until: Some(since.min(now).saturating_add(length)),
            },
            State::Probing => {
                Allowed { connections: 1, rate: Some(self.limits.rate_min), suspended_until: None }
            }
        }
    }

    /// After how long there may be more although nothing is told; none: never.
    pub fn wake_after(&self, now: Timestamp) -> Option<Duration> {
        self.limits(now).suspended_until.map(|until| until.saturating_since(now))
    }

    /// Why there may not be more; none when there may be all.
    pub fn why(&self, now: Timestamp) -> Option<Why<'_>> {
        let reason = self.reason.as_ref()?;
        Some(Why {
            allowed: self.limits(now),
            category: reason.category,
            rule: reason.rule.as_deref(),
            reply: &reason.reply,
            since: reason.since,
        })
    }

    /// Whether nothing would be lost if it were forgotten.
    pub fn is_at_rest(&self) -> bool {
        self.is_full() && self.unconnected == 0 && self.round.trouble == 0
    }

    /// Whether there may be all that the limits allow.
    fn is_full(&self) -> bool {
        self.state == State::Flowing
            && self.connections == self.limits.connections_max
            && self.rate == self.limits.rate_max
    }

    fn is_settling(&self, now: Timestamp) -> bool {
        self.slowed_at.is_some_and(|at| at <= now && now.saturating_since(at) < self.limits.settle)
    }

    fn state_at(&self, now: Timestamp) -> State {
        match self.state {
            // A clock set back makes a suspension no longer than it was from the beginning.
            State::Suspended { since, length } if now.saturating_since(since) >= length => State::Probing,
            state @ (State::Flowing | State::Probing | State::Suspended { .. }) => state,
        }
    }

    /// What time alone has changed.
    fn advance(&mut self, now: Timestamp) {
        self.state = self.state_at(now);
        if let State::Suspended { since, .. } = &mut self.state {
            *since = (*since).min(now);
        }
        if now < self.minute || now.saturating_since(self.minute) >= MINUTE {
            // What is older than two minutes is no measure any more.
            let recent = now.saturating_since(self.minute) < 2 * MINUTE;
            self.sent = [0, if recent { self.sent[0] } else { 0 }];
            self.minute = now;
        }
        let over = now < self.round.began || now.saturating_since(self.round.began) >= self.limits.round;
        if over {
            if self.state == State::Flowing && self.round.good > 0 && !self.round.is_storm(&self.limits) {
                self.grow();
            }
            self.round = Round::new(now);
        }
    }

    /// One step up.
    fn grow(&mut self) {
        let ThrottleLimits { connections_max, rate_max, rate_min, steps, .. } = self.limits;
        let step = connections_max.div_ceil(steps);
        self.connections = if self.connections < self.threshold {
            self.connections.saturating_mul(2).min(self.threshold)
        } else {
            self.connections.saturating_add(step).min(connections_max)
        };
        if let Some(rate) = self.rate {
            // Without a maximum, twice of what was too much is as good as none.
            let top = rate_max.unwrap_or_else(|| self.rate_before.max(rate_min).saturating_mul(2));
            let rate = rate.saturating_add(top.div_ceil(steps));
            self.rate = if rate >= top { rate_max } else { Some(rate) };
        }
        self.rest_if_full();
    }

    /// All is well again: what was before does not count any more.
    fn rest_if_full(&mut self) {
        if self.is_full() {
            self.suspensions = 0;
            self.threshold = self.limits.connections_max;
            self.reason = None;
        }
    }

    /// Half as much; at the floor, nothing for a while.
    fn slow(&mut self, reason: impl FnOnce() -> Reason, now: Timestamp) {
        if self.is_settling(now) {
            return;
        }
        let ThrottleLimits { connections_min, rate_min, .. } = self.limits;
        let at_floor = self.connections == connections_min && self.rate == Some(rate_min);
        if at_floor {
            return self.suspend(Duration::ZERO, reason, now);
        }
        let measured = self.sent[0].max(self.sent[1]).max(2 * rate_min);
        self.rate_before = self.rate_before.max(self.rate.unwrap_or(measured));
        self.rate = Some((self.rate.unwrap_or(measured).min(measured) / 2).max(rate_min));
        self.connections = (self.connections / 2).max(connections_min);
        self.threshold = self.connections;
        self.slowed_at = Some(now);
        self.round = Round::new(now);
        self.set_reason(reason());
    }

    /// Nothing for so long, or for as long as is due.
    fn suspend(&mut self, wanted: Duration, reason: impl FnOnce() -> Reason, now: Timestamp) {
        if let State::Suspended { since, length } = &mut self.state {
            // An echo of the same; what wants more gets it.
            let left = length.saturating_sub(now.saturating_since(*since));
            if wanted > left {
                (*since, *length) = (now, wanted);
                self.set_reason(reason());
            }
            return;
        }
        let doublings = self.suspensions.min(20);
        let ours = self.limits.suspend_min.saturating_mul(1 << doublings).min(self.limits.suspend_max);
        self.state = State::Suspended { since: now, length: ours.max(wanted) };
        self.suspensions = self.suspensions.saturating_add(1);
        self.threshold = (self.connections / 2).max(self.limits.connections_min);
        self.unconnected = 0;
        self.set_reason(reason());
    }

    /// The probe was answered.
    fn recover(&mut self, now: Timestamp) {
        self.state = State::Flowing;
        self.connections = self.limits.connections_min;
        self.rate = self.rate.map(|rate| (rate / 2).max(self.limits.rate_min));
        self.round = Round::new(now);
        // All that was on its way has come long since.
        self.slowed_at = None;
        // Where the maximum is the floor, there is nothing to grow to.
        self.rest_if_full();
    }

    /// What began it is what people want to hear; what made it worse is what they have to know.
    fn set_reason(&mut self, reason: Reason) {
        let since = self.reason.as_ref().map_or(reason.since, |old| old.since.min(reason.since));
        self.reason = Some(Box::new(Reason { since, ..reason }));
    }
}

impl ThrottleLimits {
    /// Without contradictions: a floor above the maximum is the maximum.
    fn sound(self) -> Self {
        let connections_max = self.connections_max.max(1);
        let rate_max = self.rate_max.map(|rate| rate.max(1));
        Self {
            connections_max,
            connections_min: self.connections_min.clamp(1, connections_max),
            rate_max,
            rate_min: self.rate_min.clamp(1, rate_max.unwrap_or(u32::MAX / 4).min(u32::MAX / 4)),
            steps: self.steps.max(1),
            storm_min: self.storm_min.max(1),
            unconnected_max: self.unconnected_max.max(1),
            ..self
        }
    }

    /// Rounds of success after which a site that may be sent to again has all that it may have.
    pub const fn rounds_to_recover(&self) -> u32 {
        // Doublings up to half of the maximum, then a step each; the rate takes no longer.
        self.connections_max.ilog2() + self.steps + 2
    }
}

impl Round {
    const fn new(began: Timestamp) -> Self {
        Self { began, good: 0, trouble: 0, all: 0 }
    }

    fn count(&mut self, sign: Sign) {
        self.all = self.all.saturating_add(1);
        match sign {
            Sign::Good => self.good = self.good.saturating_add(1),
            Sign::Neutral => {}
            Sign::Trouble => self.trouble = self.trouble.saturating_add(1),
        }
    }

    const fn is_storm(&self, limits: &ThrottleLimits) -> bool {
        let percent = self.trouble as u64 * 100;
        self.trouble >= limits.storm_min && percent >= self.all as u64 * limits.storm_percent as u64
    }
}

impl Sign {
    const fn of(category: Option<Category>) -> Self {
        match category {
            None => Self::Good,
            // What a site does as a whole.
            Some(
                Category::Rate
                | Category::System
                | Category::Connection
                | Category::SpamReputation
                | Category::Protocol
                | Category::Other,
            ) => Self::Trouble,
            // What is about a mailbox, a message or a sender; or what fewer connections do not mend.
            Some(
                Category::BadMailbox
                | Category::InactiveMailbox
                | Category::Quota
                | Category::BadDomain
                | Category::Suppressed
                | Category::Dns
                | Category::Tls
                | Category::SpamContent
                | Category::Authentication
                | Category::Policy
                | Category::Greylisted
                | Category::TooLarge
                | Category::MessageFormat
                | Category::Relaying
                | Category::Loop
                | Category::Expired
                | Category::AutoReply,
            ) => Self::Neutral,
        }
    }
}

impl Reason {
    fn of(told: &Told<'_>, now: Timestamp) -> Self {
        Self {
            category: told.category.unwrap_or(Category::Other),
            rule: told.rule.cloned(),
            reply: told.reply[..told.reply.floor_char_boundary(REPLY_MAX)].into(),
            since: now,
        }
    }
}

impl fmt::Display for Why<'_> {
    /// In one line: `2 connections and 30 messages a minute at most, since …: rate by the rule … : 421 …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Allowed { connections, rate, suspended_until } = self.allowed;
        match (suspended_until, rate) {
            (Some(until), _) => write!(f, "left alone until {}", until.to_rfc3339())?,
            (None, Some(rate)) => {
                write!(f, "at most {connections} connections and {rate} messages a minute")?
            }
            (None, None) => write!(f, "at most {connections} connections")?,
        }
        write!(f, ", since {}: {}", self.since.to_rfc3339(), self.category)?;
        if let Some(rule) = self.rule {
            write!(f, " by the rule {rule}")?;
        }
        write!(f, ": {}", self.reply)
    }
}

#[cfg(test)]
#[path = "throttle_test.rs"]
mod test;
