//! How many reports on single failures there may be: an attacker decides how many messages fail, and whose name they bear
//! (RFC 9991 §2: "report generators MUST implement a rate-limit").

use std::{collections::HashMap, hash::Hash, net::IpAddr, time::Duration};

use mail::Timestamp;
use report::dmarc::{Failure, FailureKind, Unaligned};
use serde::{Deserialize, Serialize};

/// So many within an hour, and within a day of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Within an hour.
    pub hourly: u32,
    /// Within a day.
    pub daily: u32,
}

/// Bounds of all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureRates {
    /// Reports.
    pub all: Rate,
    /// Messages of one domain.
    pub domain: Rate,
    /// Reports to one domain.
    pub destination: Rate,
    /// Messages that are alike are told once in so long.
    pub repeat: Duration,
    /// Of so many of each it is remembered how many there were.
    pub tracked_max: usize,
}

/// What was used up.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    all: Used,
    domains: HashMap<Box<str>, Used>,
    destinations: HashMap<Box<str>, Used>,
    alike: HashMap<Alike, Told>,
}

/// A report that goes out, as it is remembered over a restart, and by another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sent {
    /// When, in microseconds since 1970.
    pub(crate) at: u64,
    /// On a message of which domain; none with further reports on the same.
    pub(crate) domain: Option<Box<str>>,
    /// To which domain.
    pub(crate) to: Box<str>,
}

/// What messages have in common that are one incident.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Alike {
    author: Box<str>,
    source: IpAddr,
    kind: FailureKind,
    unaligned: Unaligned,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Timestamp,
    /// Such messages since then.
    more: u32,
}

/// Within the hour, and the day, that there was one in.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    hour: u64,
    in_hour: u32,
    day: u64,
    in_day: u32,
}

/// Whether there is a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// On so many messages like this one.
    Report(u32),
    /// It was told of one like it a while ago.
    Alike,
    /// There were too many.
    TooMany,
}

const HOUR: u64 = 3_600_000_000;
const DAY: u64 = 24 * HOUR;

impl Used {
    /// As of a time.
    const fn at(self, now: Timestamp) -> Self {
        let (hour, day) = (now.0 / HOUR, now.0 / DAY);
        Self {
            hour,
            in_hour: if self.hour == hour { self.in_hour } else { 0 },
            day,
            in_day: if self.day == day { self.in_day } else { 0 },
        }
    }

    const fn is_within(&self, rate: Rate) -> bool {
        self.in_hour < rate.hourly && self.in_day < rate.daily
    }

    /// One more; says whether it is within the bounds.
    const fn take(&mut self, rate: Rate, now: Timestamp) -> bool {
        *self = self.at(now);
        let is_within = self.is_within(rate);
        if is_within {
            self.in_hour += 1;
            self.in_day += 1;
        }
        is_within
    }

    /// One more, at some time that may be before others.
    const fn note(&mut self, at: Timestamp) {
        let (hour, day) = (at.0 / HOUR, at.0 / DAY);
        if hour > self.hour {
            (self.hour, self.in_hour) = (hour, 0);
        }
        if day > self.day {
            (self.day, self.in_day) = (day, 0);
        }
        self.in_hour = self.in_hour.saturating_add((hour == self.hour) as u32);
        self.in_day = self.in_day.saturating_add((day == self.day) as u32);
    }

    const fn is_over(&self, now: Timestamp) -> bool {
        self.day != now.0 / DAY
    }
}

impl Allowance {
    /// A message has failed. What is said here counts as done.
    pub(crate) fn admit(&mut self, rates: &FailureRates, failure: &Failure, now: Timestamp) -> Admission {
        let alike = Alike {
            author: failure.author.clone(),
            source: failure.source,
            kind: failure.kind,
            unaligned: failure.unaligned,
        };
        let micros = u64::try_from(rates.repeat.as_micros()).unwrap_or(u64::MAX);
        let is_fresh = |told: &Told| now.0 < told.at.0.saturating_add(micros);
        if let Some(told) = self.alike.get_mut(&alike).filter(|told| is_fresh(told)) {
            told.more = told.more.saturating_add(1);
            return Admission::Alike;
        }
        if self.closed_until(rates, now).is_some() {
            return Admission::TooMany;
        }
        // Who is remembered for nothing but a number that is not told yet is forgotten when there is no room.
        make_room(&mut self.alike, rates.tracked_max, |told| !is_fresh(told));
        let is_known = self.alike.contains_key(&alike);
        if !is_known && self.alike.len() >= rates.tracked_max && micros > 0 {
            return Admission::TooMany;
        }
        if !take(&mut self.domains, &failure.domain, rates.domain, rates.tracked_max, now) {
            return Admission::TooMany;
        }
        let told = Told { at: now, more: 0 };
        let before = if micros > 0 { self.alike.insert(alike, told) } else { None };
        Admission::Report(1_u32.saturating_add(before.map_or(0, |told| told.more)))
    }

    /// A report may go there; that it does counts as done.
    pub(crate) fn send(&mut self, rates: &FailureRates, destination: &str, now: Timestamp) -> bool {
        self.all.at(now).is_within(rates.all)
            && take(&mut self.destinations, destination, rates.destination, rates.tracked_max, now)
            && self.all.take(rates.all, now)
    }

    /// Somebody else has sent a report: a process before this one, or one beside it.
    pub(crate) fn note(&mut self, rates: &FailureRates, sent: &Sent) {
        let at = Timestamp(sent.at);
        self.all.note(at);
        for (used, name) in
            [(&mut self.domains, sent.domain.as_ref()), (&mut self.destinations, Some(&sent.to))]
        {
            let Some(name) = name else { continue };
            if !used.contains_key(name) {
                make_room(used, rates.tracked_max, |used| used.is_over(at));
            }
            // Where there is no room, nobody who is not known gets any.
            if used.len() < rates.tracked_max || used.contains_key(name) {
                used.entry(name.clone()).or_default().note(at);
            }
        }
    }

    /// Until when there are none at all, where there were so many.
    pub(crate) fn closed_until(&self, rates: &FailureRates, now: Timestamp) -> Option<Timestamp> {
        let used = self.all.at(now);
        if used.in_day >= rates.all.daily {
            Some(Timestamp((used.day + 1).saturating_mul(DAY)))
        } else if used.in_hour >= rates.all.hourly {
            Some(Timestamp((used.hour + 1).saturating_mul(HOUR)))
        } else {
            None
        }
    }
}

/// One more of a name; says whether it is within the bounds.
fn take(
    used: &mut HashMap<Box<str>, Used>,
    name: &str,
    rate: Rate,
    tracked_max: usize,
    now: Timestamp,
) -> bool {
    if let Some(used) = used.get_mut(name) {
        return used.take(rate, now);
    }
    make_room(used, tracked_max, |used| used.is_over(now));
    if used.len() >= tracked_max {
        return false;
    }
    used.entry(name.into()).or_default().take(rate, now)
}

/// Forgets what is of no use when a table is full.
fn make_room<K: Eq + Hash, V>(table: &mut HashMap<K, V>, most: usize, of_no_use: impl Fn(&V) -> bool) {
    if table.len() >= most {
        table.retain(|_, value| !of_no_use(value));
    }
}

#[cfg(test)]
mod test {
    use report::dmarc::DeliveryResult;

    use super::*;

    const RATES: FailureRates = FailureRates {
        all: Rate { hourly: 100, daily: 1000 },
        domain: Rate { hourly: 2, daily: 3 },
        destination: Rate { hourly: 2, daily: 3 },
        repeat: Duration::from_secs(600),
        tracked_max: 5,
    };

    fn failure(domain: &str, source: u8) -> Failure {
        Failure {
            domain: domain.into(),
            author: domain.into(),
            to: Vec::new(),
            kind: FailureKind::Dmarc,
            unaligned: Unaligned { dkim: true, spf: true },
            delivery: DeliveryResult::Delivered,
            source: [192, 0, 2, source].into(),
            mail_from: "".into(),
            arrival: Timestamp(0),
            signature: None,
            spf: None,
            results: Vec::new(),
            header: Vec::new(),
        }
    }

    const fn at(seconds: u64) -> Timestamp {
        // At midnight, and so at the beginning of an hour.
        Timestamp(20_000 * DAY + seconds * 1_000_000)
    }

    #[test]
    fn messages_that_are_alike_are_told_once() {
        let mut allowance = Allowance::default();
        let mut admit = |source, seconds| allowance.admit(&RATES, &failure("a.test", source), at(seconds));
        assert_eq!(admit(1, 0), Admission::Report(1));
        for second in 1..100 {
            assert_eq!(admit(1, second), Admission::Alike);
        }
        // Another source is another incident.
        assert_eq!(admit(2, 100), Admission::Report(1));
        // The next hour has room again.
        assert_eq!(admit(1, 3_600), Admission::Report(100));
        assert_eq!(admit(1, 3_601), Admission::Alike);
    }

    #[test]
    fn a_domain_has_an_hour_and_a_day() {
        let mut allowance = Allowance::default();
        let mut admit = |source, seconds| allowance.admit(&RATES, &failure("a.test", source), at(seconds));
        assert_eq!([admit(1, 0), admit(2, 1)], [Admission::Report(1); 2]);
        assert_eq!(admit(3, 2), Admission::TooMany);
        assert_eq!([admit(3, 3_600), admit(4, 3_601)], [Admission::Report(1), Admission::TooMany]);
        assert_eq!([admit(4, 7_200), admit(4, 86_400)], [Admission::TooMany, Admission::Report(1)]);
        // It is not held against another one.
        assert_eq!(allowance.admit(&RATES, &failure("b.test", 3), at(7_200)), Admission::Report(1));
    }

    #[test]
    fn so_has_a_destination_and_all_together() {
        let mut allowance = Allowance::default();
        assert_eq!([(); 3].map(|()| allowance.send(&RATES, "a.test", at(0))), [true, true, false]);
        let few = FailureRates { all: Rate { hourly: 3, daily: 4 }, ..RATES };
        assert_eq!(allowance.closed_until(&few, at(1)), None);
        assert_eq!([(); 2].map(|()| allowance.send(&few, "b.test", at(1))), [true, false]);
        assert_eq!(allowance.closed_until(&few, at(1)), Some(at(3_600)));
        assert_eq!(allowance.admit(&few, &failure("c.test", 1), at(2)), Admission::TooMany);
        assert!(allowance.send(&few, "b.test", at(3_600)));
        assert_eq!(allowance.closed_until(&few, at(3_601)), Some(at(86_400)));
        assert_eq!(allowance.closed_until(&few, at(86_400)), None);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut allowance = Allowance::default();
        for number in 0..100_u8 {
            let domain = format!("d{number}.test");
            let admission = allowance.admit(&RATES, &failure(&domain, 1), at(0));
            let expected = if number < 5 { Admission::Report(1) } else { Admission::TooMany };
            assert_eq!(admission, expected, "{number}");
            assert_eq!(allowance.send(&RATES, &domain, at(0)), number < 5);
        }
        assert!(
            allowance.alike.len() <= 5 && allowance.domains.len() <= 5 && allowance.destinations.len() <= 5
        );
        // A day later there is room.
        assert_eq!(allowance.admit(&RATES, &failure("z.test", 1), at(86_400)), Admission::Report(1));
        assert!(allowance.send(&RATES, "z.test", at(86_400)));
        // Where nothing is alike, nothing is remembered of it.
        let each = FailureRates { repeat: Duration::ZERO, ..RATES };
        let mut allowance = Allowance::default();
        assert_eq!(
            [(); 2].map(|()| allowance.admit(&each, &failure("a.test", 1), at(0))),
            [Admission::Report(1); 2]
        );
        assert!(allowance.alike.is_empty());
    }
}
