//! Keys for DKIM that are renewed by themselves: told the time and what the DNS shows, says what to do.
//!
//! ```text
//!  Begun ──made──▶ Made ──published──▶ Published ──seen──▶ Shown ──long enough──▶ Signing
//!                                          ▲                 │                        │ the next one
//!                                          └───not any more──┘                        ▼
//!  forgotten ◀──nothing is seen── Leaving ◀── Revoked ◀── Revoking ◀──long enough── Retiring
//! ```
//!
//! What [`Rotation::on_round`] changes is to be durable before anything is done about it: before mail is signed with another
//! key, and before an [`Order`] is carried out. Orders follow from the state alone, and each may be carried out twice: so whoever
//! was killed between two steps goes on where he was.
//!
//! That the DNS shows a record counts only where it was seen in the round at hand. Waiting is counted in time that somebody has
//! watched, and not by the clock on the wall: a clock that jumps switches nothing and removes nothing, it can only begin a new key
//! too early or too late. Time in which nobody runs counts as none. How long a key has signed the wall says, so that a stop counts;
//! where the wall says that it has not begun to yet, the watch does.

use std::{collections::BTreeMap, time::Duration};

use mail::Timestamp;

use crate::{KeyKind, tags::tags};

/// How the keys of one rotation are renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationRules {
    /// So long a key signs.
    pub every: Duration,
    /// So long the DNS must have shown a record before mail is signed with its key.
    pub settle: Duration,
    /// So long the record of a key stays that signs no more.
    pub retire: Duration,
    /// For how long its record says then that it is revoked; none: it goes at once.
    pub revoke: Option<Duration>,
    /// After so long somebody is told of a record that is published and is not seen.
    pub overdue: Duration,
    /// Who publishes.
    pub publishing: Publishing,
}

/// Who changes the DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publishing {
    /// We do, and are told when that is done.
    Provider,
    /// Somebody else does, whom we tell.
    Hand,
}

/// Which rotation: of an entry of the configuration, for one algorithm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RotationId {
    /// The name of the entry, in lower case.
    pub entry: Box<str>,
    /// Whose keys they are, as it is asked for.
    pub domain: Box<str>,
    /// What they are of.
    pub kind: KeyKind,
}

/// The keys of one rotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    pub(crate) keys: Vec<RotatedKey>,
    /// The day that the last selector is called after, and the how manieth of that day it is.
    pub(crate) last: (u32, u32),
    /// Somebody wants a new key before its time.
    pub(crate) wished: bool,
    /// Who publishes: the name of a provider.
    pub publisher: Option<Box<str>>,
    /// The next selector, as long as it is not begun with. Not kept.
    pub(crate) next: Option<(u32, u32)>,
    /// A selector that was to be next and has the record of another key. Not kept.
    pub(crate) taken: Option<Box<str>>,
    /// For how long nobody could say what is at the next selector. Not kept.
    pub(crate) dark: Duration,
    /// That selector, when it is for too long. Not kept.
    pub(crate) unknown: Option<Box<str>>,
}

/// A key of a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotatedKey {
    /// Where it is published, below `_domainkey`.
    pub selector: Box<str>,
    /// What is published there; empty as long as the key is not made.
    pub record: Box<str>,
    /// How far it has come.
    pub phase: KeyPhase,
    /// Since when.
    pub since: Timestamp,
    /// How much of its wait is over.
    pub waited: Duration,
    /// So long others may remember that there was no record.
    pub absence: Duration,
    /// Whether the private key was removed.
    pub erased: bool,
    /// What the DNS showed the last time. Not kept.
    pub seen: Seen,
    /// For how long it has been published and was not seen. Not kept.
    pub unseen: Duration,
    /// Whether that is longer than it should be. Not kept.
    pub overdue: bool,
    /// Whether what was ordered in this phase was done. Not kept.
    pub(crate) done: bool,
}

/// How far a key has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyPhase {
    /// It has a name, and is to be made.
    Begun,
    /// Its private key is durable; its record is to be published.
    Made,
    /// Its record is published, and is to be seen.
    Published,
    /// Its record is seen, and others may not see it yet.
    Shown,
    /// Mail is signed with it.
    Signing,
    /// Mail that was signed with it is under way.
    Retiring,
    /// Its record is to say that it is revoked.
    Revoking,
    /// Its record says so.
    Revoked,
    /// Its record is to go.
    Leaving,
}

/// What the DNS shows at the name of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Not known.
    #[default]
    Unknown,
    /// The record that is to be there.
    Right,
    /// Nothing.
    Absent,
    /// Something else.
    Other(Box<str>),
}

/// The answer to a question for the texts of a name, asked for now and not remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Look {
    /// There was none.
    #[default]
    Unknown,
    /// There are no texts, and that may be remembered for so long.
    Absent(Duration),
    /// These.
    Texts(Vec<Box<[u8]>>),
}

/// What is known in a round.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// The time of day.
    pub now: Timestamp,
    /// How long ago the last round was, by a clock that does not jump.
    pub elapsed: Duration,
    /// Whether all cores sign with the keys that are [`KeyPhase::Signing`].
    pub in_force: bool,
    /// Looks at the selectors that [`Rotation::sought`] named.
    pub looks: &'a BTreeMap<Box<str>, Look>,
}

/// What is to be done, once the state that it follows from is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order<'a> {
    /// Make the private key of this selector durable, in the place of one that may be there; then [`Rotation::on_made`].
    Make(&'a str),
    /// Publish the record, where there is none or this one; then [`Rotation::on_done`].
    Publish(&'a RotatedKey),
    /// Publish [`REVOKED`] in the place of the record; then [`Rotation::on_done`].
    Revoke(&'a RotatedKey),
    /// Take the record away, in either form, and nothing else; then [`Rotation::on_done`].
    Withdraw(&'a RotatedKey),
    /// Remove the private key, if it is there; then [`Rotation::on_erased`].
    Erase(&'a str),
}

/// How the keys of a rotation end that the configuration has no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// What signs retires.
    Now,
    /// What signs goes on until a key of the same entry does that is of another algorithm: else mail would go unsigned meanwhile.
    Succeeded,
}

/// What somebody has to know of, or to do something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern<'a> {
    /// The record is to be published by hand.
    Publish(&'a RotatedKey),
    /// [`REVOKED`] is to be published by hand.
    Revoke(&'a RotatedKey),
    /// The record is to be taken away by hand.
    Withdraw(&'a RotatedKey),
    /// Mail is signed, or was until now, with a key that the DNS does not show: it fails at those who verify it.
    Unpublished(&'a RotatedKey),
    /// The record of a key that is to sign was published, and the DNS should have shown it by now.
    Overdue(&'a RotatedKey),
    /// At the name of a key that is to sign, there is something else.
    InTheWay(&'a RotatedKey),
    /// A selector that was to be next has another's key; the one after it is tried.
    Taken(&'a str),
    /// The DNS has not said for long what is at the next selector, and without that no key is begun.
    Unknown(&'a str),
}

/// The record of a key that must not be used any more (RFC 6376 §3.6.1: "An empty value means that this public key has been
/// revoked").
pub const REVOKED: &str = "v=DKIM1; p=";

/// Nobody remembers for longer that there is no record (RFC 2308 §5 finds one to three hours good, and more than a day a problem).
const ABSENCE_MAX: Duration = Duration::from_secs(86_400);
/// Keys of one rotation. Past that no new one is begun.
const KEYS_MAX: usize = 16;
/// Keys whose records somebody is to take away. Past that the oldest is forgotten, and its record stays.
const LEAVING_MAX: usize = 8;
/// Names of one day that are tried, each later than the one before.
const NAMES_MAX: u32 = 10_000;

impl KeyPhase {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Begun,
        Self::Made,
        Self::Published,
        Self::Shown,
        Self::Signing,
        Self::Retiring,
        Self::Revoking,
        Self::Revoked,
        Self::Leaving,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Made => "made",
            Self::Published => "published",
            Self::Shown => "shown",
            Self::Signing => "signing",
            Self::Retiring => "retiring",
            Self::Revoking => "revoking",
            Self::Revoked => "revoked",
            Self::Leaving => "leaving",
        }
    }

    /// Whether it is on its way to sign.
    const fn is_coming(self) -> bool {
        matches!(self, Self::Begun | Self::Made | Self::Published | Self::Shown)
    }

    /// Whether mail that bears its signature is about.
    const fn is_needed(self) -> bool {
        matches!(self, Self::Signing | Self::Retiring)
    }
}

impl RotatedKey {
    pub(crate) fn new(selector: Box<str>, now: Timestamp) -> Self {
        Self {
            selector,
            record: Box::default(),
            phase: KeyPhase::Begun,
            since: now,
            waited: Duration::ZERO,
            absence: Duration::ZERO,
            erased: false,
            seen: Seen::Unknown,
            unseen: Duration::ZERO,
            overdue: false,
            done: false,
        }
    }

    /// How long it waits where it is, at least; none where that is not for time to say.
    pub fn wait(&self, rules: &RotationRules) -> Option<Duration> {
        match self.phase {
            KeyPhase::Shown => Some(rules.settle.max(self.absence)),
            KeyPhase::Retiring => Some(rules.retire),
            KeyPhase::Revoked => Some(rules.revoke.unwrap_or_default()),
            KeyPhase::Begun
            | KeyPhase::Made
            | KeyPhase::Published
            | KeyPhase::Signing
            | KeyPhase::Revoking
            | KeyPhase::Leaving => None,
        }
    }

    /// For how long it has been where it is.
    pub fn age(&self, now: Timestamp) -> Duration {
        // The clock was later when it was written down, or is not set yet. Which of the two is wrong nobody knows.
        if self.since > now { self.waited } else { now.saturating_since(self.since) }
    }

    fn is_over(&self, rules: &RotationRules) -> bool {
        self.wait(rules).is_some_and(|wait| self.waited >= wait)
    }

    fn go(&mut self, phase: KeyPhase, now: Timestamp) {
        (self.phase, self.since, self.waited, self.done) = (phase, now, Duration::ZERO, false);
        if phase == KeyPhase::Leaving {
            // It was held against something else.
            self.seen = Seen::Unknown;
        }
    }

    /// What is to be at its name.
    fn wanted(&self) -> &str {
        match self.phase {
            KeyPhase::Revoking | KeyPhase::Revoked => REVOKED,
            KeyPhase::Begun
            | KeyPhase::Made
            | KeyPhase::Published
            | KeyPhase::Shown
            | KeyPhase::Signing
            | KeyPhase::Retiring
            | KeyPhase::Leaving => &self.record,
        }
    }

    fn judge(&self, look: &Look) -> Seen {
        match look {
            Look::Unknown => Seen::Unknown,
            Look::Absent(_) => Seen::Absent,
            Look::Texts(texts) => match &texts[..] {
                [] => Seen::Absent,
                [only] if same_record(only, self.wanted()) => Seen::Right,
                // "TXT RRs MUST be unique for a particular selector name" (RFC 6376 §3.6.2.2).
                _ => Seen::Other(shown(texts)),
            },
        }
    }

    /// Sees what the DNS shows, and goes on or back by it.
    fn on_look(&mut self, look: &Look, rules: &RotationRules, round: &Round<'_>) {
        if self.phase.is_needed() {
            self.done = false;
        }
        let seen = self.judge(look);
        let before = std::mem::replace(&mut self.seen, seen);
        if let Look::Absent(ttl) = look
            && self.phase.is_coming()
        {
            self.absence = self.absence.max(*ttl).min(ABSENCE_MAX);
        }
        if self.seen == Seen::Right || !self.phase.is_coming() {
            self.unseen = Duration::ZERO;
        } else if self.phase > KeyPhase::Made {
            self.unseen += round.elapsed;
        }
        self.overdue = self.unseen > rules.overdue.max(self.absence);
        match (self.phase, &self.seen) {
            (KeyPhase::Made | KeyPhase::Published, Seen::Right) => self.go(KeyPhase::Shown, round.now),
            // Who has just looked and saw nothing remembers that; after that it is not there.
            (KeyPhase::Published, Seen::Absent) if rules.publishing == Publishing::Provider => {
                self.waited += round.elapsed;
                if self.waited >= rules.settle.max(self.absence) {
                    self.go(KeyPhase::Made, round.now);
                }
            }
            // Another server of ours has begun at the same name in the same moment, and was first. Who publishes by hand mends it.
            (KeyPhase::Published, Seen::Other(_)) if rules.publishing == Publishing::Provider => {
                if matches!(look, Look::Texts(texts) if texts.iter().any(|text| is_key(text))) {
                    self.go(KeyPhase::Leaving, round.now);
                }
            }
            (KeyPhase::Shown, Seen::Right) if before == Seen::Right => self.waited += round.elapsed,
            (KeyPhase::Shown, Seen::Absent | Seen::Other(_)) => self.go(KeyPhase::Published, round.now),
            (_, _) => {}
        }
    }
}

impl Rotation {
    /// Its keys, the oldest first.
    pub fn keys(&self) -> &[RotatedKey] {
        &self.keys
    }

    /// The key that signs.
    pub fn signing(&self) -> Option<&RotatedKey> {
        self.keys.iter().find(|key| key.phase == KeyPhase::Signing)
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether somebody waits for a new key.
    pub const fn is_wished(&self) -> bool {
        self.wished
    }

    /// A new key is wanted before its time.
    pub const fn wish(&mut self) {
        self.wished = true;
    }

    /// The selectors that are to be looked at in the next round. `name` makes one of a day and a number; `is_known` says which are in
    /// use elsewhere.
    pub fn sought(
        &mut self,
        rules: &RotationRules,
        now: Timestamp,
        name: impl Fn(u32, u32) -> Box<str>,
        is_known: impl Fn(&str) -> bool,
    ) -> Vec<Box<str>> {
        let made = self.keys.iter().filter(|key| key.phase != KeyPhase::Begun);
        let mut sought: Vec<_> = made.map(|key| key.selector.clone()).collect();
        if !self.is_due(rules, now) {
            (self.next, self.taken) = (None, None);
            return sought;
        }
        // Never back: no name is used twice, also if the clock is.
        let day = day_of(now).max(self.last.0);
        let least = if day == self.last.0 { self.last.1 + 1 } else { 1 };
        let least = self.next.filter(|next| next.0 == day).map_or(least, |next| next.1.max(least));
        let is_own = |selector: &str| self.keys.iter().any(|key| *key.selector == *selector);
        let free = (least..least.saturating_add(NAMES_MAX)).find(|number| {
            let selector = name(day, *number);
            !is_known(&selector) && !is_own(&selector)
        });
        self.next = free.map(|number| (day, number));
        sought.extend(free.map(|number| name(day, number)));
        sought
    }

    /// Whether a key is to be begun.
    fn is_due(&self, rules: &RotationRules, now: Timestamp) -> bool {
        let is_coming = self.keys.iter().any(|key| key.phase.is_coming());
        !is_coming
            && self.keys.len() < KEYS_MAX
            && self.signing().is_none_or(|key| self.wished || key.age(now) >= rules.every)
    }

    /// Takes in what the DNS shows and that time has passed.
    pub fn on_round(
        &mut self,
        rules: &RotationRules,
        round: &Round<'_>,
        name: impl Fn(u32, u32) -> Box<str>,
    ) {
        self.look(rules, round);
        self.switch(rules, round.now);
        self.retire(rules, round.now, self.signing().is_some_and(|key| key.seen == Seen::Right));
        self.begin(rules, round, name);
    }

    /// The same for a rotation that the configuration has no more: its keys go.
    pub fn on_round_of_the_end(&mut self, rules: &RotationRules, round: &Round<'_>, ending: Ending) {
        (self.next, self.taken, self.wished) = (None, None, false);
        (self.dark, self.unknown) = (Duration::ZERO, None);
        for key in &mut self.keys {
            if key.phase.is_coming() {
                key.go(KeyPhase::Leaving, round.now);
            } else if key.phase == KeyPhase::Signing && ending == Ending::Now {
                key.go(KeyPhase::Retiring, round.now);
            }
        }
        self.look(rules, round);
        self.retire(rules, round.now, true);
    }

    fn look(&mut self, rules: &RotationRules, round: &Round<'_>) {
        for key in &mut self.keys {
            match key.phase {
                KeyPhase::Signing if key.since > round.now => key.waited += round.elapsed,
                KeyPhase::Retiring if round.in_force => key.waited += round.elapsed,
                KeyPhase::Revoked | KeyPhase::Leaving => key.waited += round.elapsed,
                KeyPhase::Retiring
                | KeyPhase::Begun
                | KeyPhase::Made
                | KeyPhase::Published
                | KeyPhase::Shown
                | KeyPhase::Signing
                | KeyPhase::Revoking => {}
            }
            if key.phase != KeyPhase::Begun {
                key.on_look(round.looks.get(&key.selector).unwrap_or(&Look::Unknown), rules, round);
            }
        }
    }

    fn switch(&mut self, rules: &RotationRules, now: Timestamp) {
        let right = |key: &RotatedKey| key.seen == Seen::Right;
        let next = self
            .keys
            .iter()
            .rposition(|key| key.phase == KeyPhase::Shown && right(key) && key.is_over(rules));
        let next = match (next, self.signing()) {
            (None, Some(_)) => return,
            // Nothing signs any more: one that did, and whose record still stands, does again.
            (None, None) => self.keys.iter().rposition(|key| key.phase == KeyPhase::Retiring && right(key)),
            (Some(next), _) => Some(next),
        };
        let Some(next) = next else { return };
        for key in self.keys.iter_mut().filter(|key| key.phase == KeyPhase::Signing) {
            key.go(KeyPhase::Retiring, now);
        }
        self.keys[next].go(KeyPhase::Signing, now);
    }

    fn retire(&mut self, rules: &RotationRules, now: Timestamp, has_heir: bool) {
        for key in &mut self.keys {
            if key.phase == KeyPhase::Retiring && key.is_over(rules) && has_heir && key.seen != Seen::Unknown
            {
                key.go(if rules.revoke.is_some() { KeyPhase::Revoking } else { KeyPhase::Leaving }, now);
            }
            // Who changes the DNS by hand is told, and is not waited for.
            match (key.phase, rules.publishing) {
                (KeyPhase::Made, Publishing::Hand) => key.go(KeyPhase::Published, now),
                (KeyPhase::Revoking, Publishing::Hand) => key.go(KeyPhase::Revoked, now),
                (_, Publishing::Hand | Publishing::Provider) => {}
            }
            if key.phase == KeyPhase::Revoked && key.is_over(rules) {
                key.go(KeyPhase::Leaving, now);
            }
            // It did not take effect, or is not to be seen yet: once more.
            if key.phase == KeyPhase::Leaving && key.done && key.waited >= rules.settle {
                (key.done, key.waited) = (false, Duration::ZERO);
            }
        }
        // What is there now is not what we put there.
        let is_over = |key: &RotatedKey| match &key.seen {
            Seen::Absent => true,
            Seen::Other(text) => !same_record(text.as_bytes(), REVOKED),
            Seen::Unknown | Seen::Right => false,
        };
        self.keys.retain(|key| !(key.phase == KeyPhase::Leaving && key.erased && is_over(key)));
        let leaving = |key: &RotatedKey| key.phase == KeyPhase::Leaving && key.erased;
        let mut extra = self.keys.iter().filter(|key| leaving(key)).count().saturating_sub(LEAVING_MAX);
        self.keys.retain(|key| {
            let goes = extra > 0 && leaving(key);
            extra -= usize::from(goes);
            !goes
        });
    }

    fn begin(&mut self, rules: &RotationRules, round: &Round<'_>, name: impl Fn(u32, u32) -> Box<str>) {
        let Some((day, number)) = self.next.filter(|_| self.is_due(rules, round.now)) else {
            (self.dark, self.unknown) = (Duration::ZERO, None);
            return;
        };
        let selector = name(day, number);
        let absence = match round.looks.get(&selector) {
            None | Some(Look::Unknown) => {
                self.dark += round.elapsed;
                self.unknown = (self.dark > rules.overdue).then_some(selector);
                return;
            }
            Some(Look::Absent(ttl)) => (*ttl).min(ABSENCE_MAX),
            // Such as a record of `*._domainkey` that says that there are no other keys.
            Some(Look::Texts(texts)) if !texts.iter().any(|text| is_key(text)) => Duration::ZERO,
            Some(Look::Texts(_)) => {
                self.next = Some((day, number + 1));
                self.taken = Some(selector);
                return;
            }
        };
        (self.last, self.next, self.taken, self.wished) = ((day, number), None, None, false);
        (self.dark, self.unknown) = (Duration::ZERO, None);
        self.keys.push(RotatedKey { absence, ..RotatedKey::new(selector, round.now) });
    }

    /// What is to be done now.
    pub fn orders(&self, publishing: Publishing) -> Vec<Order<'_>> {
        let mut orders = Vec::new();
        for key in &self.keys {
            if key.phase == KeyPhase::Begun {
                orders.push(Order::Make(&key.selector));
            }
            if key.phase >= KeyPhase::Revoking && !key.erased {
                orders.push(Order::Erase(&key.selector));
            }
            if publishing == Publishing::Hand || key.done {
                continue;
            }
            match key.phase {
                KeyPhase::Made => orders.push(Order::Publish(key)),
                KeyPhase::Signing | KeyPhase::Retiring if key.seen == Seen::Absent => {
                    orders.push(Order::Publish(key));
                }
                KeyPhase::Revoking => orders.push(Order::Revoke(key)),
                // One that never was made has nothing to take away.
                KeyPhase::Leaving if !key.record.is_empty() => orders.push(Order::Withdraw(key)),
                KeyPhase::Begun
                | KeyPhase::Published
                | KeyPhase::Shown
                | KeyPhase::Signing
                | KeyPhase::Retiring
                | KeyPhase::Revoked
                | KeyPhase::Leaving => {}
            }
        }
        orders
    }

    /// The private key is durable, and this is the record of its public key.
    pub fn on_made(&mut self, selector: &str, record: &str, now: Timestamp) {
        if let Some(key) = self.key_in(selector, KeyPhase::Begun) {
            key.record = record.into();
            key.go(KeyPhase::Made, now);
        }
    }

    /// The DNS was changed as it was ordered.
    pub fn on_done(&mut self, selector: &str, now: Timestamp) {
        let Some(key) = self.keys.iter_mut().find(|key| *key.selector == *selector) else { return };
        match key.phase {
            KeyPhase::Made => key.go(KeyPhase::Published, now),
            KeyPhase::Revoking => key.go(KeyPhase::Revoked, now),
            KeyPhase::Leaving => key.done = true,
            // Whether it shows is for the next round to see.
            KeyPhase::Signing | KeyPhase::Retiring => key.done = true,
            KeyPhase::Begun | KeyPhase::Published | KeyPhase::Shown | KeyPhase::Revoked => {}
        }
    }

    /// The private key is not there any more, or is another. Without it this one never signs, or only until the next start: there is to
    /// be a new one.
    pub fn on_lost(&mut self, selector: &str, now: Timestamp) {
        let is_coming = self.keys.iter().any(|key| key.phase.is_coming());
        let Some(key) = self.keys.iter_mut().find(|key| *key.selector == *selector) else { return };
        match key.phase {
            KeyPhase::Made | KeyPhase::Published | KeyPhase::Shown => key.go(KeyPhase::Leaving, now),
            // It takes its place as any other, and what is signed by now can be verified until then.
            KeyPhase::Signing if !is_coming => self.wished = true,
            KeyPhase::Begun
            | KeyPhase::Signing
            | KeyPhase::Retiring
            | KeyPhase::Revoking
            | KeyPhase::Revoked
            | KeyPhase::Leaving => {}
        }
    }

    /// The private key is gone.
    pub fn on_erased(&mut self, selector: &str) {
        if let Some(key) = self.keys.iter_mut().find(|key| *key.selector == *selector)
            && key.phase >= KeyPhase::Revoking
        {
            key.erased = true;
        }
        self.keys.retain(|key| !(key.phase == KeyPhase::Leaving && key.erased && key.record.is_empty()));
    }

    fn key_in(&mut self, selector: &str, phase: KeyPhase) -> Option<&mut RotatedKey> {
        self.keys.iter_mut().find(|key| *key.selector == *selector && key.phase == phase)
    }

    /// What somebody has to know of.
    pub fn concerns(&self, publishing: Publishing) -> Vec<Concern<'_>> {
        let by_hand = publishing == Publishing::Hand;
        let mut concerns: Vec<_> = self
            .keys
            .iter()
            .filter_map(|key| match (key.phase, &key.seen) {
                (phase, Seen::Absent | Seen::Other(_)) if phase.is_needed() => {
                    Some(Concern::Unpublished(key))
                }
                (KeyPhase::Made | KeyPhase::Published, Seen::Other(_)) => Some(Concern::InTheWay(key)),
                (KeyPhase::Published, _) if by_hand => Some(Concern::Publish(key)),
                (KeyPhase::Revoked, seen) if by_hand && *seen != Seen::Right => Some(Concern::Revoke(key)),
                // What we have taken away, and is there all the same, somebody else has put there, or written otherwise.
                (KeyPhase::Leaving, Seen::Right) if key.done => Some(Concern::Withdraw(key)),
                (KeyPhase::Leaving, _) if by_hand && !key.record.is_empty() => Some(Concern::Withdraw(key)),
                (_, _) => None,
            })
            .collect();
        concerns.extend(self.keys.iter().filter(|key| key.overdue).map(Concern::Overdue));
        concerns.extend(self.taken.as_deref().map(Concern::Taken));
        concerns.extend(self.unknown.as_deref().map(Concern::Unknown));
        concerns
    }
}

/// The day of a time, as a number: 20261129.
fn day_of(now: Timestamp) -> u32 {
    let date = now.to_rfc3339();
    date[..10].bytes().filter(u8::is_ascii_digit).fold(0, |day, digit| day * 10 + u32::from(digit - b'0'))
}

/// Whether a text is the record that is wanted: the same tags with the same values, whatever the white space.
fn same_record(text: &[u8], wanted: &str) -> bool {
    let read = |text: &[u8]| {
        let tags = tags(text).ok()?;
        // "If specified [v=] MUST be the first tag in the record" (RFC 6376 §3.6.1).
        let first = tags.first().map(|(name, _)| name.to_vec());
        let plain =
            |value: &[u8]| value.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect();
        let tags: BTreeMap<Vec<u8>, Vec<u8>> =
            tags.into_iter().map(|(name, value)| (name.to_vec(), plain(value))).collect();
        Some((first, tags))
    };
    read(text).is_some_and(|text| Some(text) == read(wanted.as_bytes()))
}

/// Whether a text is the record of a key that is in use.
fn is_key(text: &[u8]) -> bool {
    crate::tags::tags_loosely(text).iter().any(|(name, value)| *name == b"p" && !value.is_empty())
}

/// Texts of a stranger, to be shown: short and of one line.
fn shown(texts: &[Box<[u8]>]) -> Box<str> {
    const SHOWN_MAX: usize = 1_000;
    let joined = texts.join(&b" | "[..]);
    let text = String::from_utf8_lossy(&joined[..joined.len().min(SHOWN_MAX)]);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
#[path = "rotation_test.rs"]
mod test;
