//! Lots: what the queue tells a tenant's mail to one destination apart by, as one number.
//!
//! ```text
//!  bits 31..16   15..0
//!       campaign  0: it leaves by no source; else 1 + slot + 64 × the pool that a reply has chosen, 0 where none has
//! ```
//!
//! Campaigns and pools have numbers for the life of a core; nothing of this is on the disk.

use std::{cell::RefCell, rc::Rc};

use delivery::{
    Owner,
    egress::{SLOTS, slot_of},
};
use mail::QueueId;
use queue::{Destination, Lot};

use crate::{egress, settings::Settings, shard::Shard};

/// The names behind the numbers in lots.
#[derive(Default)]
pub(crate) struct Lots {
    /// Pools that replies have sent messages to.
    pools: RefCell<Vec<Rc<str>>>,
    campaigns: RefCell<Vec<Rc<str>>>,
}

/// Whose the mail of a destination is, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owned {
    tenant: Option<Rc<str>>,
    campaign: Option<Rc<str>>,
}

const CAMPAIGN: u32 = 16;

impl Owned {
    /// Of what goes to a destination.
    pub(crate) fn of(shard: &Shard, settings: &Settings, destination: Destination) -> Self {
        let (tenant, lot) = egress::owner(shard, destination);
        Self::new(shard, settings, (tenant, lot))
    }

    pub(crate) fn new(shard: &Shard, settings: &Settings, (tenant, lot): (queue::Tenant, Lot)) -> Self {
        Self { tenant: settings.tenant_names.get(&tenant).cloned(), campaign: shard.lots.campaign(lot) }
    }

    /// As rules ask for it.
    pub(crate) fn owner(&self) -> Owner<'_> {
        Owner { tenant: self.tenant.as_deref(), campaign: self.campaign.as_deref() }
    }
}

impl Lots {
    /// The pool in a lot, if a reply has chosen one.
    pub(crate) fn pool(&self, lot: Lot) -> Option<Rc<str>> {
        let number = leaving(lot).checked_sub(1)? / SLOTS;
        self.pools.borrow().get(usize::from(number.checked_sub(1)?)).cloned()
    }

    /// The lot of a message of this one's that a reply has sent to a pool; none where there have been too many pools.
    pub(crate) fn with_pool(&self, lot: Lot, id: QueueId, pool: &str) -> Option<Lot> {
        let number = number(&mut self.pools.borrow_mut(), pool)?;
        let leaving = number.checked_mul(SLOTS)?.checked_add(slot_of(id) + 1)?;
        Some(Lot(campaign_of(lot).0 | u32::from(leaving)))
    }

    /// The campaign in a lot.
    pub(crate) fn campaign(&self, lot: Lot) -> Option<Rc<str>> {
        let number = (lot.0 >> CAMPAIGN).checked_sub(1)?;
        self.campaigns.borrow().get(number as usize).cloned()
    }

    /// The lot of a campaign's mail that leaves by no source; of mail of none, where there have been too many.
    pub(crate) fn of_campaign(&self, name: Option<&Rc<str>>) -> Lot {
        let number = name.and_then(|name| number(&mut self.campaigns.borrow_mut(), name));
        Lot(u32::from(number.unwrap_or(0)) << CAMPAIGN)
    }

    /// The lot of a campaign that some mail may be of.
    pub(crate) fn known_campaign(&self, name: &str) -> Option<Lot> {
        let place = self.campaigns.borrow().iter().position(|known| known.eq_ignore_ascii_case(name))?;
        Some(Lot((u32::try_from(place).ok()? + 1) << CAMPAIGN))
    }
}

/// The number of a name, from 1 on.
fn number(names: &mut Vec<Rc<str>>, name: &str) -> Option<u16> {
    let place = names.iter().position(|known| **known == *name);
    let number = u16::try_from(place.unwrap_or(names.len()) + 1).ok()?;
    if place.is_none() {
        names.push(name.into());
    }
    Some(number)
}

const fn leaving(Lot(lot): Lot) -> u16 {
    lot as u16
}

/// What a lot says of a campaign, and of nothing else.
pub(crate) const fn campaign_of(Lot(lot): Lot) -> Lot {
    Lot(lot >> CAMPAIGN << CAMPAIGN)
}

/// What a lot says of how it leaves, and of nothing else: [`Lot`] 0 where it leaves by no source.
pub(crate) const fn leaving_of(lot: Lot) -> Lot {
    Lot(leaving(lot) as u32)
}

/// A campaign's lot that leaves as another does.
pub(crate) const fn joined(campaign: Lot, leaving: Lot) -> Lot {
    Lot(campaign_of(campaign).0 | leaving_of(leaving).0)
}

/// The lot of a message that leaves by the source of its slot.
pub(crate) fn with_slot(campaign: Lot, id: QueueId) -> Lot {
    Lot(campaign_of(campaign).0 | u32::from(slot_of(id) + 1))
}

/// The slot in a lot.
pub(crate) const fn slot(lot: Lot) -> u16 {
    leaving(lot).saturating_sub(1) % SLOTS
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_lot_says_all_of_them() {
        let lots = Lots::default();
        let id = QueueId::from_bits(0x1234_5678_9abc_def0);
        let news = lots.of_campaign(Some(&"news".into()));
        assert_eq!((lots.of_campaign(None), lots.of_campaign(Some(&"news".into()))), (Lot(0), news));
        let sale = lots.of_campaign(Some(&"sale".into()));
        let name = |lot| lots.campaign(lot).map(|name| name.to_string());
        for (campaign, expected) in [(Lot(0), None), (news, Some("news")), (sale, Some("sale"))] {
            let own = with_slot(campaign, id);
            let warm = lots.with_pool(own, id, "warm").unwrap();
            let cold = lots.with_pool(warm, id, "cold").unwrap();
            for (lot, pool) in [(campaign, None), (own, None), (warm, Some("warm")), (cold, Some("cold"))] {
                assert_eq!(name(lot).as_deref(), expected);
                assert_eq!(lots.pool(lot).as_deref(), pool);
                assert_eq!((campaign_of(lot), joined(campaign, lot)), (campaign, lot));
                if lot != campaign {
                    assert_eq!(slot(lot), slot_of(id));
                }
            }
            assert_eq!((leaving_of(campaign), leaving_of(own)), (Lot(0), with_slot(Lot(0), id)));
        }
        assert_eq!((lots.known_campaign("SALE"), lots.known_campaign("other")), (Some(sale), None));
    }

    #[test]
    fn too_many_names_are_no_name() {
        let lots = Lots::default();
        for number in 0..=u32::from(u16::MAX) {
            lots.of_campaign(Some(&number.to_string().into()));
        }
        assert_eq!(lots.of_campaign(Some(&"more".into())), Lot(0));
        assert_eq!(lots.campaign(lots.of_campaign(Some(&"7".into()))).as_deref(), Some("7"));
        let id = QueueId::from_bits(1);
        for number in 0..1023 {
            assert!(lots.with_pool(Lot(0), id, &number.to_string()).is_some(), "{number}");
        }
        let far = QueueId::from_bits(7);
        assert!(
            lots.with_pool(Lot(0), far, "2000").is_none_or(|lot| lots.pool(lot).as_deref() == Some("2000"))
        );
    }
}
