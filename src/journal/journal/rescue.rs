//! The oldest segment is emptied by moving what lives in it.

use std::collections::{BTreeSet, VecDeque};

use mail::QueueId;

use super::{Journal, tail::Tail};
use crate::{Class, Order};

/// Live messages looked at in one call of [`Journal::orders`].
const RESCUE_STEP: usize = 4096;

/// The emptying of the oldest segment, some messages at a time.
#[derive(Debug, Default)]
pub(super) struct Rescue {
    pub(super) segment: Option<u32>,
    pub(super) cursor: u64,
    /// Given out, not answered.
    pub(super) pending: BTreeSet<u64>,
    /// Could not be read.
    pub(super) stuck: BTreeSet<u64>,
    pub(super) found: usize,
    /// Made of drafts: they cannot be read, and so not be moved, before their records at these places are durable.
    pub(super) arriving: VecDeque<(u64, u64)>,
    /// A segment in which the last pass found nothing to move, and how much lived in it then.
    pub(super) barren: Option<(u32, u32)>,
}

impl Journal {
    pub(super) fn order_rescue(&mut self, orders: &mut Vec<Order>) {
        if !self.rescue.pending.is_empty() {
            return;
        }
        let segment = match self.rescue.segment {
            Some(segment) => segment,
            None => {
                let cold_room = self.tails[Class::Cold as usize].as_ref().map_or(0, Tail::room);
                let Some(segment) = self.segments.worth_rescue(self.durable, cold_room) else { return };
                let live = self.segments.get(segment).map_or(0, |segment| segment.live);
                if self.rescue.barren == Some((segment, live)) {
                    return;
                }
                (self.rescue.segment, self.rescue.cursor, self.rescue.found) = (Some(segment), 0, 0);
                segment
            }
        };
        let (mut content, mut states, mut seen) = (Vec::new(), Vec::new(), 0);
        for (number, live) in self.live.range(self.rescue.cursor..).take(RESCUE_STEP) {
            seen += 1;
            self.rescue.cursor = number + 1;
            if self.rescue.stuck.contains(number) {
                continue;
            }
            let id = QueueId::new(self.shard, *number);
            let parts_here = || live.extents().iter().any(|extent| extent.segment == segment);
            let arriving = || self.rescue.arriving.iter().any(|(_, other)| other == number);
            if live.segment == segment || (parts_here() && !arriving()) {
                content.push(id);
            } else if live.transitions().any(|held| held == segment) {
                states.push(id);
            } else {
                continue;
            }
            self.rescue.pending.insert(*number);
            if self.rescue.pending.len() >= self.limits.rescue_batch {
                break;
            }
        }
        self.rescue.found += self.rescue.pending.len();
        if seen < RESCUE_STEP && self.rescue.pending.len() < self.limits.rescue_batch {
            let live = self.segments.get(segment).map_or(0, |segment| segment.live);
            self.rescue.barren = (self.rescue.found == 0).then_some((segment, live));
            self.rescue.segment = None;
        }
        if !self.rescue.pending.is_empty() {
            orders.push(Order::Rescue { content, states });
        }
    }
}
