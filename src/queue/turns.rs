//! Whose turn it is: weighted fair queueing over tenants, each with a ring of what waits for it.
//!
//! Each tenant has a virtual time, which moves on by what it was given over its weight; the one that is furthest back has
//! the next turn. Who begins to wait starts at the time of the turn before, so that nobody saves up turns, and nobody
//! pays for having been alone (start-time fair queueing: Goyal, Vin and Cheng, 1996).

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use hashbrown::HashMap;

use crate::Tenant;

/// What waits, by tenant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns {
    /// Tenants with something waiting, by their time. A time in here may be too early, and is put right when it comes; or of before
    /// something was given back, and is passed over.
    order: BinaryHeap<Reverse<(u64, Tenant)>>,
    tenancies: HashMap<Tenant, Tenancy>,
    /// The time of the turn before.
    now: u64,
    /// All that waits.
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct Tenancy {
    time: u64,
    ring: VecDeque<u32>,
    /// When a turn was given back to it the last time.
    given_back_at: Option<u64>,
    /// Its time in the order, if it is in there.
    ordered: Option<u64>,
}

/// What one turn takes of a tenant with the weight 1.
const TURN: u64 = 1 << 20;

impl Turns {
    /// Nothing waits.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// This begins to wait.
    pub(crate) fn push(&mut self, tenant: Tenant, item: u32) {
        let tenancy = self.tenancies.entry(tenant).or_default();
        if tenancy.ring.is_empty() {
            tenancy.time = tenancy.time.max(self.now);
        }
        tenancy.ring.push_back(item);
        self.len += 1;
        // What was given back may have made it earlier.
        if tenancy.ordered.is_none_or(|time| tenancy.time < time) {
            tenancy.ordered = Some(tenancy.time);
            self.order.push(Reverse((tenancy.time, tenant)));
        }
        self.forget_some();
    }

    /// Whose turn it is.
    pub(crate) fn head(&mut self) -> Option<Tenant> {
        loop {
            let Reverse((time, tenant)) = *self.order.peek()?;
            let tenancy = self.tenancies.get_mut(&tenant).filter(|tenancy| tenancy.ordered == Some(time));
            let Some(tenancy) = tenancy else {
                self.order.pop();
                continue;
            };
            if !tenancy.ring.is_empty() && tenancy.time == time {
                return Some(tenant);
            }
            self.order.pop();
            tenancy.ordered = (!tenancy.ring.is_empty()).then_some(tenancy.time);
            if let Some(time) = tenancy.ordered {
                self.order.push(Reverse((time, tenant)));
            }
        }
    }

    /// Takes out what has waited longest of the tenant whose turn it is. It costs nothing until [`Turns::charge`].
    pub(crate) fn take(&mut self) -> Option<(Tenant, u32)> {
        let tenant = self.head()?;
        let tenancy = self.tenancies.get_mut(&tenant)?;
        let item = tenancy.ring.pop_front()?;
        self.now = self.now.max(tenancy.time);
        self.len -= 1;
        Some((tenant, item))
    }

    /// A tenant has had a turn.
    pub(crate) fn charge(&mut self, tenant: Tenant, weight: u32) {
        let now = self.now;
        let tenancy = self.tenancies.entry(tenant).or_default();
        tenancy.time = tenancy.time.max(now) + TURN / u64::from(weight.max(1));
    }

    /// A tenant has not used a turn that it was given: what it was given it for is pushed after this. Not once more before others have
    /// had theirs: who never can use its turns does not keep them from theirs.
    pub(crate) fn give_back(&mut self, tenant: Tenant, weight: u32) {
        let Some(tenancy) = self.tenancies.get_mut(&tenant) else { return };
        if tenancy.given_back_at.replace(self.now) == Some(self.now) {
            return;
        }
        tenancy.time = tenancy.time.saturating_sub(TURN / u64::from(weight.max(1)));
    }

    /// Octets of memory.
    pub(crate) fn memory(&self) -> usize {
        let rings: usize = self.tenancies.values().map(|tenancy| tenancy.ring.capacity()).sum();
        self.order.capacity() * size_of::<(u64, Tenant)>()
            + self.tenancies.allocation_size()
            + rings * size_of::<u32>()
    }

    /// Forgets tenants that nothing waits for and whose time has passed, now and then.
    fn forget_some(&mut self) {
        if self.tenancies.len() > 2 * self.order.len() + 8 {
            let now = self.now;
            self.tenancies.retain(|_, tenancy| tenancy.ordered.is_some() || tenancy.time > now);
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    const A: Tenant = Tenant(1);
    const B: Tenant = Tenant(2);

    /// Everybody has something to send again at once; says who had how many of so many turns.
    fn serve(turns: &mut Turns, weights: &[(Tenant, u32)], count: usize) -> Vec<usize> {
        let mut served = vec![0; weights.len()];
        for _ in 0..count {
            let (tenant, item) = turns.take().unwrap();
            let place = weights.iter().position(|(other, _)| *other == tenant).unwrap();
            turns.charge(tenant, weights[place].1);
            turns.push(tenant, item);
            served[place] += 1;
        }
        served
    }

    #[test]
    fn tenants_share_by_their_weights_however_much_each_has() {
        let mut turns = Turns::default();
        (0..1000).for_each(|item| turns.push(A, item));
        turns.push(B, 5000);
        assert_eq!(serve(&mut turns, &[(A, 1), (B, 1)], 100), [50, 50]);
        assert_eq!(serve(&mut turns, &[(A, 1), (B, 3)], 100), [25, 75]);
    }

    #[test]
    fn who_was_alone_does_not_pay_for_it_and_who_was_away_has_saved_nothing() {
        let mut turns = Turns::default();
        turns.push(A, 1);
        assert_eq!(serve(&mut turns, &[(A, 1)], 1000), [1000]);
        turns.push(B, 2);
        let served = serve(&mut turns, &[(A, 1), (B, 1)], 100);
        assert!(served[0] >= 49 && served[1] >= 49, "{served:?}");
        // B goes and comes back.
        while turns.head() != Some(B) {
            serve(&mut turns, &[(A, 1), (B, 1)], 1);
        }
        assert_eq!(turns.take(), Some((B, 2)));
        serve(&mut turns, &[(A, 1)], 1000);
        turns.push(B, 2);
        let served = serve(&mut turns, &[(A, 1), (B, 1)], 100);
        assert!(served[0] >= 49 && served[1] >= 49, "{served:?}");
    }

    #[test]
    fn a_turn_that_was_not_used_is_not_paid_for() {
        let mut turns = Turns::default();
        turns.push(A, 1);
        turns.push(B, 2);
        let mut served = 0;
        for _ in 0..1000 {
            let (tenant, item) = turns.take().unwrap();
            turns.charge(tenant, 1);
            if tenant == B {
                // It can never use what it is given.
                turns.give_back(B, 1);
            }
            served += usize::from(tenant == A);
            turns.push(tenant, item);
        }
        assert!((300..=500).contains(&served), "{served}");
        assert!(turns.order.len() < 10, "{}", turns.order.len());
        // Once, and it is next.
        serve(&mut turns, &[(A, 1), (B, 1)], 10);
        while turns.head() != Some(B) {
            serve(&mut turns, &[(A, 1), (B, 1)], 1);
        }
        turns.take();
        turns.charge(B, 1);
        assert_eq!(turns.head(), Some(A));
        turns.give_back(B, 1);
        turns.push(B, 2);
        assert_eq!(turns.head(), Some(B));
        // Nobody has saved anything by that.
        let served = serve(&mut turns, &[(A, 1), (B, 1)], 100);
        assert!(served[0] >= 49 && served[1] >= 49, "{served:?}");
    }

    #[test]
    fn within_a_tenant_it_is_first_come_first_served() {
        let mut turns = Turns::default();
        (0..5).for_each(|item| turns.push(A, item));
        let order: Vec<_> = std::iter::from_fn(|| turns.take()).map(|(_, item)| item).collect();
        assert_eq!(order, [0, 1, 2, 3, 4]);
        assert!(turns.is_empty() && turns.head().is_none());
    }

    #[test]
    fn tenants_that_have_gone_are_forgotten() {
        let mut turns = Turns::default();
        for number in 0..10_000 {
            turns.push(Tenant(number), number);
            turns.take();
            turns.charge(Tenant(number), 1);
            turns.push(A, 0);
            turns.take();
            turns.charge(A, 1);
        }
        assert!(turns.memory() < 100_000, "{}", turns.memory());
    }
}
