//! From which of our addresses a message leaves.
//!
//! A message has a slot, which follows from its queue id and nothing else. A pool gives each of its 64 slots to one of its sources,
//! by their weights; the slots of a source that is out of use go to the others as long as it is, and come back to it. So a
//! message is tried again from where it was tried before, without anybody having to remember it, and mail from one source
//! shares connections.

mod health;
mod warm_up;

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::{IpAddr, SocketAddr},
};

use mail::{Domain, QueueId};

pub use health::{Change, Finding as Found, Health, Listing, Severity, Trouble};
pub use warm_up::{Booked, Booking, Held, Pause, Plan, Progress, WarmUps, day_of, next_day};

use crate::{Family, Sources};

/// An address of ours, or one of each family, and how connections are made from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// In keys, logs and metrics.
    pub name: Box<str>,
    /// Our end of its connections.
    pub addresses: Sources,
    /// As what others see it.
    pub public: Vec<IpAddr>,
    /// Its name in EHLO, if it has one of its own.
    pub ehlo_name: Option<Domain>,
    /// Which of our certificates is shown, if it has one of its own.
    pub identity: Option<Box<str>>,
    /// Who connects for us.
    pub proxy: Option<Proxy>,
}

/// Who connects for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// How it is spoken to.
    pub speech: Speech,
}

/// How a proxy is spoken to.
#[derive(Clone, PartialEq, Eq)]
pub enum Speech {
    /// RFC 1928; with a user and a password, if it asks for them (RFC 1929).
    Socks5(Option<(Box<str>, Box<str>)>),
    /// A PROXY header, as a line.
    HeaderV1,
    /// A PROXY header, as octets.
    HeaderV2,
}

/// Whether a source is fit for use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It has its part.
    #[default]
    In,
    /// It has a quarter of it.
    Lowered,
    /// It is not used.
    Out,
}

/// Sources that share mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// In messages.
    pub name: Box<str>,
    sources: Vec<(Box<str>, u32)>,
    /// To which source each slot belongs.
    slots: Vec<u8>,
}

/// Into so many parts the mail of a pool is divided.
pub const SLOTS: u16 = 64;
/// Of its part, a source that is lowered keeps one of so many slots, at least one.
const LOWERED: usize = 4;

/// The slot of a message.
pub const fn slot_of(id: QueueId) -> u16 {
    // SplitMix64: ids are counted, and their low bits say which shard.
    let mut z = id.to_bits().wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % SLOTS as u64) as u16
}

impl Source {
    /// Which addresses of a host are tried first: those that can be connected to from there. A host that has only others is not one
    /// that does not exist, so these are asked for as well.
    pub fn family(&self) -> Family {
        let (v4, v6) = (self.reaches(Reached::V4), self.reaches(Reached::V6));
        if v4 && !v6 { Family::PreferIpv4 } else { Family::PreferIpv6 }
    }

    /// Whether that host can be connected to from there.
    pub fn can_reach(&self, address: IpAddr) -> bool {
        self.reaches(if address.is_ipv4() { Reached::V4 } else { Reached::V6 })
    }

    fn reaches(&self, what: Reached) -> bool {
        match &self.proxy {
            Some(Proxy { speech: Speech::Socks5(_), .. }) => {
                self.public.is_empty()
                    || self.public.iter().any(|public| public.is_ipv4() == (what == Reached::V4))
            }
            Some(_) | None => match what {
                Reached::V4 => self.addresses.v4.is_some(),
                Reached::V6 => self.addresses.v6.is_some(),
            },
        }
    }

    /// Its address of the family of another.
    pub fn address_towards(&self, other: IpAddr) -> Option<IpAddr> {
        match other {
            IpAddr::V4(_) => self.addresses.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.addresses.v6.map(IpAddr::V6),
        }
    }

    /// As which addresses others see it.
    pub fn seen(&self) -> Sources {
        if self.public.is_empty() {
            return self.addresses;
        }
        let mut seen = Sources::default();
        for address in &self.public {
            match address {
                IpAddr::V4(v4) => _ = seen.v4.get_or_insert(*v4),
                IpAddr::V6(v6) => _ = seen.v6.get_or_insert(*v6),
            }
        }
        seen
    }

    /// The addresses that this host must have for it.
    pub fn plumbed(&self) -> Vec<IpAddr> {
        let Sources { v4, v6 } = self.addresses;
        let all = v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6));
        match &self.proxy {
            None => all.collect(),
            Some(Proxy { speech: Speech::Socks5(_), address }) => {
                all.filter(|local| local.is_ipv4() == address.is_ipv4()).collect()
            }
            // They are the proxy's.
            Some(_) => Vec::new(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    V4,
    V6,
}

impl std::fmt::Debug for Speech {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socks5(None) => f.write_str("Socks5"),
            // That it has changed can be seen, and not what it is.
            Self::Socks5(Some((user, password))) => {
                let mut hasher = DefaultHasher::new();
                password.hash(&mut hasher);
                write!(f, "Socks5({user:?}, …{:02x})", hasher.finish() as u8)
            }
            Self::HeaderV1 => f.write_str("HeaderV1"),
            Self::HeaderV2 => f.write_str("HeaderV2"),
        }
    }
}

impl Pool {
    /// A pool of these sources with their weights.
    ///
    /// # Panics
    /// When there are more than [`SLOTS`], or none.
    pub fn new(name: &str, sources: &[(&str, u32)]) -> Self {
        assert!((1..=usize::from(SLOTS)).contains(&sources.len()), "a pool of {} sources", sources.len());
        let (parts, slots) = (u64::from(SLOTS), usize::from(SLOTS));
        let total: u64 = sources.iter().map(|(_, weight)| u64::from(*weight).max(1)).sum();
        // By the largest remainder; nobody has none.
        let mut quotas: Vec<(u64, u64)> = sources
            .iter()
            .map(|(_, weight)| {
                let exact = u64::from(*weight).max(1) * parts;
                ((exact / total).max(1), exact % total)
            })
            .collect();
        let mut given: u64 = quotas.iter().map(|(quota, _)| quota).sum();
        let mut order: Vec<usize> = (0..sources.len()).collect();
        order.sort_by_key(|place| std::cmp::Reverse(quotas[*place].1));
        for place in order.iter().cycle() {
            if given >= parts {
                break;
            }
            quotas[*place].0 += 1;
            given += 1;
        }
        while given > parts {
            let most = (0..quotas.len()).max_by_key(|place| quotas[*place].0).unwrap_or_default();
            quotas[most].0 -= 1;
            given -= 1;
        }
        let mut table = Vec::with_capacity(slots);
        for (place, (quota, _)) in (0_u8..).zip(&quotas) {
            table.extend(std::iter::repeat_n(place, *quota as usize));
        }
        let sources = sources.iter().map(|(name, weight)| ((*name).into(), *weight)).collect();
        Self { name: name.into(), sources, slots: table }
    }

    /// Its sources.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|(name, _)| &**name)
    }

    /// The source that a slot belongs to.
    pub fn owner(&self, slot: u16) -> &str {
        &self.sources[usize::from(self.slots[usize::from(slot % SLOTS)])].0
    }

    /// The source that mail of a slot leaves from as things stand; none when all are out.
    pub fn source(&self, slot: u16, standing: impl Fn(&str) -> Standing) -> Option<&str> {
        let slot = slot % SLOTS;
        let own = usize::from(self.slots[usize::from(slot)]);
        let stands = standing(&self.sources[own].0);
        if stands == Standing::In || stands == Standing::Lowered && self.is_kept(slot) {
            return Some(&self.sources[own].0);
        }
        let among = |wanted: Standing| {
            let fit = self.sources.iter().filter(|(name, _)| standing(name) == wanted);
            fit.max_by(|one, other| score(slot, one).total_cmp(&score(slot, other))).map(|(name, _)| &**name)
        };
        among(Standing::In).or_else(|| among(Standing::Lowered))
    }

    /// Whether a slot stays with its source when that is lowered.
    fn is_kept(&self, slot: u16) -> bool {
        let own = self.slots[usize::from(slot)];
        let first = self.slots.iter().position(|other| *other == own).unwrap_or_default();
        (usize::from(slot) - first).is_multiple_of(LOWERED)
    }
}

/// Who has the highest takes a slot over: each as often as its weight says, and only as long as nobody else has to move.
fn score(slot: u16, (name, weight): &(Box<str>, u32)) -> f64 {
    let mut hasher = DefaultHasher::new();
    (slot, name).hash(&mut hasher);
    let chance = (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64;
    f64::from((*weight).max(1)) / -chance.max(f64::MIN_POSITIVE).ln()
}

#[cfg(test)]
#[path = "egress_test.rs"]
mod test;
