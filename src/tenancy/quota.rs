//! Quotas of tenants: so many recipients in an hour, a day and a month of the calendar, over all cores.
//!
//! A recipient is taken out of the quota when it is accepted, and given back when its message does not become ours: so no more
//! than the quota is accepted, however many clients send at once, and who fails costs nothing. What each process has
//! counted is a number of its own that only grows within a period; the use is the sum of its own and what others have told
//! last. So two processes of an upgrade never write the same number.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use mail::{TenantId, Timestamp};

use crate::Period;

/// What a tenant may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Recipients in an hour, a day, a month; none: any number.
    pub max: [Option<u64>; 3],
    /// From so many percent on somebody is told.
    pub warn_percent: u8,
    /// What becomes of more.
    pub excess: Excess,
}

/// What becomes of more than a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Excess {
    /// It is not taken.
    #[default]
    Refused,
    /// It is, and somebody is told.
    Told,
}

/// What all tenants have sent.
#[derive(Debug, Default)]
pub struct Quotas {
    tenants: RwLock<BTreeMap<TenantId, Arc<Mutex<Windows>>>>,
}

/// What a tenant has sent in the periods that are now.
#[derive(Debug, Default)]
struct Windows([Window; 3]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    /// Which hour, day or month.
    number: u64,
    /// Counted by this process, and by those before it that it has taken over from.
    own: u64,
    /// Counted by others.
    others: u64,
    /// Whether it was said that there is no more.
    told: bool,
}

/// Recipients that have been taken out of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    tenant: TenantId,
    /// In which hour, day and month: given back after its end they are nobody's.
    numbers: [u64; 3],
    count: u64,
}

/// A quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Which.
    pub period: Period,
    /// When there is more.
    pub until: Timestamp,
    /// So much there is.
    pub max: u64,
    /// Whether this has not been said before.
    pub is_first: bool,
}

/// So much of a quota is used for the first time that somebody should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warned {
    /// Which.
    pub period: Period,
    /// Of so much.
    pub max: u64,
    /// So much is used.
    pub used: u64,
}

/// What a tenant has used of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// In which period.
    pub period: Period,
    /// Recipients accepted.
    pub used: u64,
    /// Of so many; none: there is no quota.
    pub max: Option<u64>,
    /// When it begins anew.
    pub ends: Timestamp,
}

/// What a process has counted, as text: `tenant period number count`, a line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsedText(pub String);

impl Quotas {
    fn of(&self, tenant: TenantId) -> Arc<Mutex<Windows>> {
        let known = self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(&tenant).cloned();
        known.unwrap_or_else(|| {
            let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
            tenants.entry(tenant).or_default().clone()
        })
    }

    /// Takes so many recipients; tells of what is worth a word.
    ///
    /// # Errors
    /// [`Exhausted`]: then nothing is taken.
    pub fn take(
        &self,
        tenant: TenantId,
        limits: &QuotaLimits,
        count: u64,
        now: Timestamp,
    ) -> Result<(Taken, Option<Warned>), Exhausted> {
        let windows = self.of(tenant);
        let mut windows = lock(&windows);
        windows.turn(now);
        windows.check(limits, count, now)?;
        let mut warned = None;
        for ((period, window), max) in Period::ALL.into_iter().zip(&mut windows.0).zip(limits.max) {
            let before = window.used();
            window.own = window.own.saturating_add(count);
            let Some(max) = max else { continue };
            // Rounded up: not before so much is used.
            let from = (u128::from(max) * u128::from(limits.warn_percent)).div_ceil(100);
            let from = u64::try_from(from).unwrap_or(u64::MAX);
            let used = window.used();
            let is_all = used >= max && !window.told;
            window.told |= is_all;
            if is_all || before < from && used >= from {
                warned = Some(Warned { period, max, used });
            }
        }
        let numbers = windows.0.map(|window| window.number);
        Ok((Taken { tenant, numbers, count }, warned))
    }

    /// Whether there is room for so many.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn check(
        &self,
        tenant: TenantId,
        limits: &QuotaLimits,
        count: u64,
        now: Timestamp,
    ) -> Result<(), Exhausted> {
        let windows = self.of(tenant);
        let mut windows = lock(&windows);
        windows.turn(now);
        windows.check(limits, count, now)
    }

    /// Gives some of what was taken back.
    pub fn give_back(&self, taken: &mut Taken, count: u64) {
        let count = count.min(taken.count);
        taken.count -= count;
        let windows = self.of(taken.tenant);
        let mut windows = lock(&windows);
        for (window, number) in windows.0.iter_mut().zip(taken.numbers) {
            if window.number == number {
                window.own = window.own.saturating_sub(count);
            }
        }
    }

    /// What a tenant has used.
    pub fn used(&self, tenant: TenantId, limits: &QuotaLimits, now: Timestamp) -> [Used; 3] {
        let windows = self.of(tenant);
        let mut windows = lock(&windows);
        windows.turn(now);
        std::array::from_fn(|at| {
            let period = Period::ALL[at];
            Used { period, used: windows.0[at].used(), max: limits.max[at], ends: period.end(now) }
        })
    }

    /// What this process has counted in the periods that are now.
    pub fn to_text(&self, now: Timestamp) -> UsedText {
        let mut text = String::new();
        for (tenant, windows) in self.tenants.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let mut windows = lock(windows);
            windows.turn(now);
            for (period, window) in Period::ALL.into_iter().zip(&windows.0).filter(|(_, w)| w.own > 0) {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{:016x} {period} {} {}", tenant.0, window.number, window.own);
            }
        }
        UsedText(text)
    }

    /// What others count now, in the place of what they had told before.
    pub fn set_others<'a>(&self, texts: impl IntoIterator<Item = &'a UsedText>, now: Timestamp) {
        let mut sums: BTreeMap<(TenantId, usize), u64> = BTreeMap::new();
        for (tenant, at, count) in texts.into_iter().flat_map(|text| text.counts(now)) {
            let sum = sums.entry((tenant, at)).or_default();
            *sum = sum.saturating_add(count);
        }
        for tenant in sums.keys().map(|(tenant, _)| *tenant) {
            // Those whom this process has not met yet.
            drop(self.of(tenant));
        }
        for (tenant, windows) in self.tenants.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let mut windows = lock(windows);
            windows.turn(now);
            for (at, window) in windows.0.iter_mut().enumerate() {
                window.others = sums.get(&(*tenant, at)).copied().unwrap_or_default();
            }
        }
    }

    /// What one who has ended had counted counts as ours from now on.
    pub fn take_over(&self, text: &UsedText, now: Timestamp) {
        for (tenant, at, count) in text.counts(now) {
            let windows = self.of(tenant);
            let mut windows = lock(&windows);
            windows.turn(now);
            let own = &mut windows.0[at].own;
            *own = own.saturating_add(count);
        }
    }
}

impl UsedText {
    /// What counts of it now.
    fn counts(&self, now: Timestamp) -> impl Iterator<Item = (TenantId, usize, u64)> {
        self.0.lines().filter_map(move |line| {
            let mut words = line.split(' ');
            let tenant = u64::from_str_radix(words.next()?, 16).ok()?;
            let period = words.next()?;
            let at = Period::ALL.iter().position(|other| other.as_str() == period)?;
            let number: u64 = words.next()?.parse().ok()?;
            let count = words.next()?.parse().ok()?;
            (number == Period::ALL[at].number(now)).then_some((TenantId(tenant), at, count))
        })
    }
}

impl Windows {
    fn check(&mut self, limits: &QuotaLimits, count: u64, now: Timestamp) -> Result<(), Exhausted> {
        if limits.excess == Excess::Told {
            return Ok(());
        }
        for ((period, window), max) in Period::ALL.into_iter().zip(&mut self.0).zip(limits.max) {
            if let Some(max) = max.filter(|max| window.used().saturating_add(count) > *max) {
                let is_first = !std::mem::replace(&mut window.told, true);
                return Err(Exhausted { period, until: period.end(now), max, is_first });
            }
        }
        Ok(())
    }

    /// Begins anew what has ended. A clock that is set back over a border does so as well: the numbers are of other times.
    fn turn(&mut self, now: Timestamp) {
        for (period, window) in Period::ALL.into_iter().zip(&mut self.0) {
            let number = period.number(now);
            if window.number != number {
                *window = Window { number, ..Window::default() };
            }
        }
    }
}

impl Window {
    const fn used(&self) -> u64 {
        self.own.saturating_add(self.others)
    }
}

impl Taken {
    /// How many.
    pub const fn count(&self) -> u64 {
        self.count
    }
}

fn lock(windows: &Mutex<Windows>) -> MutexGuard<'_, Windows> {
    windows.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod test {
    use super::*;

    const SHOP: TenantId = TenantId(7);
    const NOW: Timestamp = Timestamp::from_secs(1_764_387_000);

    fn limits(hour: Option<u64>, day: Option<u64>, warn_percent: u8) -> QuotaLimits {
        QuotaLimits { max: [hour, day, None], warn_percent, excess: Excess::Refused }
    }

    fn used(quotas: &Quotas, now: Timestamp) -> [u64; 3] {
        quotas.used(SHOP, &QuotaLimits::default(), now).map(|used| used.used)
    }

    #[test]
    fn no_more_than_the_quota() {
        let quotas = Quotas::default();
        let limits = limits(Some(3), Some(5), 60);
        let take = |count, now| quotas.take(SHOP, &limits, count, now);
        assert_eq!(take(1, NOW).unwrap().1, None);
        let (mut taken, warned) = take(2, NOW).unwrap();
        // Of the two that say so, the last: the day.
        assert_eq!(warned, Some(Warned { period: Period::Day, max: 5, used: 3 }));
        let end = Period::Hour.end(NOW);
        let exhausted = |is_first| Exhausted { period: Period::Hour, until: end, max: 3, is_first };
        // It was said when the last of them went.
        assert_eq!(take(1, NOW), Err(exhausted(false)));
        assert_eq!(quotas.check(SHOP, &limits, 1, NOW), Err(exhausted(false)));
        quotas.give_back(&mut taken, 1);
        assert_eq!((used(&quotas, NOW), taken.count()), ([2, 2, 2], 1));
        assert!(take(1, NOW).is_ok());
        assert_eq!(take(1, end).unwrap().1, None);
        assert_eq!(used(&quotas, end), [1, 4, 4]);
        // Taken in the hour before: the hour that is now has nothing of it.
        quotas.give_back(&mut taken, 5);
        assert_eq!(used(&quotas, end), [1, 3, 3]);
        assert_eq!(take(3, end).unwrap_err().period, Period::Hour);
        let midnight = Period::Day.end(NOW);
        assert!(take(3, midnight).is_ok());
        assert_eq!(used(&quotas, midnight), [3, 3, 6]);
    }

    #[test]
    fn it_is_said_once_in_a_period_that_there_is_no_more() {
        let quotas = Quotas::default();
        let hard = limits(Some(10), None, 80);
        assert!(quotas.take(SHOP, &hard, 9, NOW).unwrap().1.is_some());
        let check = |now| quotas.check(SHOP, &hard, 2, now);
        assert!(check(NOW).unwrap_err().is_first && !check(NOW).unwrap_err().is_first);
        assert!(check(Period::Hour.end(NOW)).is_ok());
        // Where more is taken all the same, it is told when all is used, and not again.
        let (quotas, soft) = (Quotas::default(), QuotaLimits { excess: Excess::Told, ..hard });
        let told: Vec<_> =
            (0..5).map(|_| quotas.take(SHOP, &soft, 4, NOW).unwrap().1.map(|w| w.used)).collect();
        assert_eq!(told, [None, Some(8), Some(12), None, None]);
        assert!(quotas.check(SHOP, &soft, 100, NOW).is_ok());
    }

    #[test]
    fn what_is_counted_outlives_the_process() {
        let (old, new) = (Quotas::default(), Quotas::default());
        let none = QuotaLimits::default();
        let _ = old.take(SHOP, &none, 5, NOW).unwrap();
        let text = old.to_text(NOW);
        new.set_others([&text], NOW);
        assert_eq!(used(&new, NOW), [5, 5, 5]);
        let _ = new.take(SHOP, &none, 2, NOW).unwrap();
        // Each tells what it has counted itself, and no more.
        old.set_others([&new.to_text(NOW)], NOW);
        assert_eq!((used(&old, NOW), used(&new, NOW)), ([7; 3], [7; 3]));
        let _ = old.take(SHOP, &none, 1, NOW).unwrap();
        new.take_over(&old.to_text(NOW), NOW);
        new.set_others([], NOW);
        assert_eq!(used(&new, NOW), [8; 3]);
        let later = Period::Hour.end(NOW);
        assert_eq!(used(&new, later), [0, 8, 8]);
        let another = Quotas::default();
        another.take_over(&new.to_text(NOW), later);
        assert_eq!(used(&another, later), [0, 8, 8], "an hour that is over");
        another.take_over(&UsedText("rubbish\n0 hour 1\nzz day 2 3\n\n".into()), later);
        assert_eq!(used(&another, later), [0, 8, 8]);
    }

    #[test]
    fn many_at_once_are_counted_exactly() {
        let quotas = Quotas::default();
        let limits = limits(Some(1000), None, 100);
        let accepted: u64 = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..500).filter(|_| quotas.take(SHOP, &limits, 1, NOW).is_ok()).count())
                })
                .collect();
            takers.into_iter().map(|taker| taker.join().unwrap() as u64).sum()
        });
        assert_eq!((accepted, used(&quotas, NOW)[0]), (1000, 1000));
    }
}
