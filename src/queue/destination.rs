//! Destinations: interned names, and what holds for all mail that goes to one.

/// The number of a destination in this partition.
///
/// Good while a recipient is queued for it, and from [`crate::Queue::intern`] to the next
/// [`crate::Queue::on_tick`]; then an unused number may come to name another destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination(pub(crate) u32);
