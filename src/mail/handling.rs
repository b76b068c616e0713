//! How a message wants to be handled on its way, beyond where it goes.

use std::{net::IpAddr, time::Duration};

use crate::Timestamp;

/// What a sender asked for a message as a whole. Most ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handling {
    /// How urgent it is (`MT-PRIORITY=`, RFC 6710).
    pub priority: TransferPriority,
    /// By when it is to be delivered (`BY=`, RFC 2852).
    pub deliver_by: Option<DeliverBy>,
    /// Not before this time is it tried (`HOLDFOR=`, `HOLDUNTIL=`, RFC 4865).
    pub hold_until: Option<Timestamp>,
    /// The time span that the sender gave for that, if it was one (`HOLDFOR=`): a report repeats it (RFC 4865 §5.1.2).
    pub hold_for: Option<HoldFor>,
    /// What is asked of TLS on its way (RFC 8689).
    pub tls: TlsDemand,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which list of the tenant's it belongs to.
    pub list: ListId,
    /// What its sender says which campaign it is of, where the operator has named a field for that: at most
    /// [`CAMPAIGN_MAX`] octets.
    pub campaign: Option<Box<str>>,
    /// The address of the stranger that brought it, where it is remembered what strangers do: what becomes of the message is a part of
    /// that.
    pub origin: Option<IpAddr>,
}

/// Octets of what a message says which campaign it is of.
pub const CAMPAIGN_MAX: usize = 128;

/// Whose mail it is, by a hash of the tenant's name: it is the same in each process and after each reload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(pub u64);

/// Which of a tenant's lists a message belongs to, by a hash of the list's name, as [`TenantId`] is one of the tenant's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListId(pub u64);

/// How urgent a message is: -9 to 9, the larger the more urgent (RFC 6710 §3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferPriority(i8);

/// For so many seconds a message is not to be tried (RFC 4865 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldFor(pub u32);

/// By when a message is to be delivered (RFC 2852 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliverBy {
    /// When the time is up.
    pub deadline: Timestamp,
    /// What happens then.
    pub mode: DeliverByMode,
    /// Whether each hop that does not know the extension is told of.
    pub trace: DeliverByTrace,
}

/// What happens when the time is up (RFC 2852 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliverByMode {
    /// `R`: the message is returned, and not tried any more.
    Return,
    /// `N`: the sender is told that it is delayed, and it is tried on.
    Notify,
}

/// The trace modifier (RFC 2852 §4): a report is sent when the message leaves for a hop without the extension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliverByTrace {
    /// Not asked for.
    #[default]
    No,
    /// `T`.
    Yes,
}

/// What a message asks of TLS on its way (RFC 8689).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsDemand {
    /// Nothing: what the operators and the domains on the way want.
    #[default]
    None,
    /// `REQUIRETLS`: no hop without TLS, a certificate that is good, and this same demand (RFC 8689 §2).
    Required,
    /// `TLS-Required: No`: what the recipient's domain publishes about TLS is passed over (RFC 8689 §3).
    Waived,
}

impl TenantId {
    /// Nobody's in particular.
    pub const NOBODY: Self = Self(0);

    /// Of the tenant with this name, whatever the case of its letters.
    pub fn of(name: &str) -> Self {
        Self(hash_of_name(name))
    }
}

impl ListId {
    /// No list.
    pub const NONE: Self = Self(0);

    /// Of the list with this name, whatever the case of its letters; of none, when the name is empty.
    pub fn of(name: &str) -> Self {
        if name.is_empty() { Self::NONE } else { Self(hash_of_name(name)) }
    }
}

/// FNV-1a of the name in lower case; never 0.
fn hash_of_name(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    name.bytes().map(|byte| byte.to_ascii_lowercase()).fold(0xcbf2_9ce4_8422_2325, step).max(1)
}

impl TransferPriority {
    /// The lowest and the highest (RFC 6710 §3).
    pub const RANGE: std::ops::RangeInclusive<i8> = -9..=9;

    /// A priority, if it is one.
    pub fn new(number: i8) -> Option<Self> {
        Self::RANGE.contains(&number).then_some(Self(number))
    }

    /// The number.
    pub const fn get(self) -> i8 {
        self.0
    }
}

impl From<HoldFor> for Duration {
    fn from(HoldFor(seconds): HoldFor) -> Self {
        Self::from_secs(seconds.into())
    }
}

impl DeliverBy {
    /// Seconds that are left; below zero when the time is up (RFC 2852 §4).
    pub fn seconds_left(&self, now: Timestamp) -> i64 {
        let secs = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        match secs(self.deadline.saturating_since(now)) {
            0 => -secs(now.saturating_since(self.deadline)),
            left => left,
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn seconds_are_counted_to_both_sides_of_the_deadline() {
        let by = DeliverBy {
            deadline: Timestamp::from_secs(100),
            mode: DeliverByMode::Notify,
            trace: DeliverByTrace::No,
        };
        for (now, left) in [(40, 60), (100, 0), (130, -30)] {
            assert_eq!(by.seconds_left(Timestamp::from_secs(now)), left);
        }
    }

    #[test]
    fn tenants_are_the_same_whatever_the_case() {
        assert_eq!(TenantId::of("Shop"), TenantId::of("shop"));
        assert_ne!(TenantId::of("shop"), TenantId::of("news"));
        // Noted in journals: it must not change.
        assert_eq!(TenantId::of("a"), TenantId(0xaf63_dc4c_8601_ec8c));
        assert_eq!((ListId::of("A"), ListId::of("")), (ListId(0xaf63_dc4c_8601_ec8c), ListId::NONE));
    }

    #[test]
    fn priorities_have_a_range() {
        assert_eq!(TransferPriority::new(9).map(TransferPriority::get), Some(9));
        assert_eq!(TransferPriority::new(-10), None);
    }
}
