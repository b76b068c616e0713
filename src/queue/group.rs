//! The entries of the slabs: messages, their groups, and the recipients of a group.
//!
//! 40 octets for a message, 40 for a group, 8 for each recipient when a group has several.

use mail::{Category, Status, Timestamp};

use crate::{
    Kind, Priority, State, Warning,
    slab::{Entry, Links, NIL, Slab},
    wheel::Timed,
};

/// A message. It lies in the wheel of deadlines, unless that has rung for the last time.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: u64,
    /// Seconds since the epoch, until 2106.
    pub(crate) received: u32,
    /// Seconds since the epoch.
    pub(crate) give_up: u32,
    pub(crate) size: u32,
    /// The first of its groups; in a free place, the next one.
    pub(crate) groups: u32,
    pub(crate) links: Links,
    /// When the warning or the give-up time comes next.
    pub(crate) due: u32,
    pub(crate) priority: Priority,
    pub(crate) kind: Kind,
    pub(crate) warning: Warning,
    pub(crate) vacant: Vacant,
}

/// The recipients of a message that go to one destination and stand alike.
///
/// Ready, it lies in its destination's list; deferred, in the wheel; running or held, in neither.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Its message; none in a free place.
    pub(crate) message: u32,
    /// The message's other groups.
    pub(crate) sibling_before: u32,
    pub(crate) sibling_after: u32,
    pub(crate) destination: u32,
    /// In a free place, `after` is the next one.
    pub(crate) links: Links,
    pub(crate) due: u32,
    /// A single recipient, or the first of a list of [`Node`]s.
    pub(crate) recipients: Tagged,
    pub(crate) status: PackedStatus,
    pub(crate) attempts: u16,
    pub(crate) state: State,
}

/// One of a group's recipients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) recipient: Tagged,
    pub(crate) after: u32,
}

/// Whether a place is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vacant {
    No,
    Yes,
}

/// A recipient's place in the envelope, below 2^29, and what awaits it at the end of its attempt. Without
/// [`Tagged::SINGLE`], as a group's `recipients`, the number of a [`Node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tagged(pub(crate) u32);

/// A status, and what it is about, in 32 bits; zero for neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedStatus(u32);

impl Tagged {
    /// The group has this one recipient.
    pub(crate) const SINGLE: u32 = 1 << 31;
    /// To be removed.
    pub(crate) const REMOVE: u32 = 1 << 30;
    /// To be held.
    pub(crate) const HOLD: u32 = 1 << 29;
    /// No place in an envelope is this high.
    pub(crate) const END: u32 = 1 << 29;
    /// No list of recipients.
    pub(crate) const NOBODY: Self = Self(NIL & !Self::SINGLE);

    pub(crate) const fn recipient(self) -> u32 {
        self.0 & (Self::END - 1)
    }

    pub(crate) const fn has(self, tag: u32) -> bool {
        self.0 & tag != 0
    }
}

impl PackedStatus {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn new(status: Option<Status>, category: Option<Category>) -> Self {
        // Class, subject and detail are below 10, 1000 and 1000 (RFC 3463 §2); categories are below 256.
        let status = status.map_or(0, |Status(class, subject, detail)| {
            u32::from(class & 0xf) << 20 | u32::from(subject & 0x3ff) << 10 | u32::from(detail & 0x3ff)
        });
        Self(category.map_or(0, |category| u32::from(category.number())) << 24 | status)
    }

    pub(crate) fn get(self) -> Option<Status> {
        let (class, subject, detail) = (self.0 >> 20 & 0xf, self.0 >> 10 & 0x3ff, self.0 & 0x3ff);
        (class > 0).then_some(Status(class as u8, subject as u16, detail as u16))
    }

    pub(crate) fn category(self) -> Option<Category> {
        Category::of_number((self.0 >> 24) as u8)
    }
}

impl Message {
    pub(crate) const fn received_at(&self) -> Timestamp {
        Timestamp::from_secs(self.received as u64)
    }

    pub(crate) const fn give_up_at(&self) -> Timestamp {
        Timestamp::from_secs(self.give_up as u64)
    }
}

impl Entry for Message {
    fn vacant(next: u32) -> Self {
        Self {
            id: 0,
            received: 0,
            give_up: 0,
            size: 0,
            groups: next,
            links: Links::NONE,
            due: 0,
            priority: Priority::Normal,
            kind: Kind::Message,
            warning: Warning::Unwanted,
            vacant: Vacant::Yes,
        }
    }

    fn as_vacant(&self) -> Option<u32> {
        (self.vacant == Vacant::Yes).then_some(self.groups)
    }
}

impl Entry for Group {
    fn vacant(next: u32) -> Self {
        Self {
            message: NIL,
            sibling_before: NIL,
            sibling_after: NIL,
            destination: NIL,
            links: Links { before: NIL, after: next },
            due: 0,
            recipients: Tagged::NOBODY,
            status: PackedStatus::NONE,
            attempts: 0,
            state: State::Held,
        }
    }

    fn as_vacant(&self) -> Option<u32> {
        (self.message == NIL).then_some(self.links.after)
    }
}

impl Entry for Node {
    fn vacant(next: u32) -> Self {
        Self { recipient: Tagged(NIL), after: next }
    }

    fn as_vacant(&self) -> Option<u32> {
        (self.recipient.0 == NIL).then_some(self.after)
    }
}

impl Timed for Message {
    fn due(&self) -> u32 {
        self.due
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Timed for Group {
    fn due(&self) -> u32 {
        self.due
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// The recipients of a group, with their tags.
pub(crate) fn recipients(nodes: &Slab<Node>, first: Tagged) -> impl Iterator<Item = Tagged> {
    let mut single = first.has(Tagged::SINGLE).then_some(first);
    let mut next = if single.is_none() && first != Tagged::NOBODY { first.0 } else { NIL };
    std::iter::from_fn(move || {
        if let Some(first) = single.take() {
            return Some(first);
        }
        if next == NIL {
            return None;
        }
        let node = nodes[next];
        next = node.after;
        Some(node.recipient)
    })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn entries_are_as_small_as_they_should_be() {
        assert_eq!(size_of::<Message>(), 40);
        assert_eq!(size_of::<Group>(), 40);
        assert_eq!(size_of::<Node>(), 8);
    }

    #[test]
    fn a_status_survives() {
        for status in [None, Some(Status(4, 4, 2)), Some(Status(5, 999, 999))] {
            for category in [None].into_iter().chain(Category::ALL.map(Some)) {
                let packed = PackedStatus::new(status, category);
                assert_eq!((packed.get(), packed.category()), (status, category));
            }
        }
        assert_eq!(PackedStatus::new(None, None), PackedStatus::NONE);
    }
}
