//! Groups: what has gathered is written and synced together.

use std::mem;

use super::{Failure, Group, GroupId, Journal, Position, Write};

#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) id: GroupId,
    /// What will be durable; nothing when the group is not synced.
    pub(super) end: Option<u64>,
    pub(super) stamp: u64,
}

impl Journal {
    /// Takes what has gathered; `None` when there is nothing, a group is in flight, or the journal has failed.
    pub fn begin_group(&mut self) -> Option<Group> {
        if self.in_flight.is_some() || self.failure.is_some() {
            return None;
        }
        if !self.unsettled.is_empty() {
            // What recovery took over must be durable before a record says that it is.
            return Some(self.group(Vec::new(), Some(self.epoch_start)));
        }
        let mut writes = Vec::new();
        for tail in self.tails.iter_mut().flatten() {
            tail.flush_run();
            writes.append(&mut tail.writes);
        }
        if writes.is_empty() {
            return None;
        }
        self.gathered = 0;
        self.dirty.extend(writes.iter().map(|write| write.segment));
        let end = mem::take(&mut self.needs_sync).then_some(self.sequence);
        Some(self.group(writes, end))
    }

    /// Whether the next group will be synced: somebody waits for what has gathered, or will.
    pub const fn awaits_sync(&self) -> bool {
        self.needs_sync || !self.unsettled.is_empty()
    }

    /// Bytes that wait for the next group.
    pub const fn gathered(&self) -> u64 {
        self.gathered
    }

    /// The group's writes and syncs are done.
    pub fn on_durable(&mut self, group: GroupId) {
        let InFlight { end, stamp, .. } = self.end_group(group);
        if let Some(end) = end {
            self.unsettled.clear();
            (self.durable, self.witnessed) = (self.durable.max(end), stamp);
        }
        while let Some((_, segment, bytes)) = self.releases.pop_front_if(|(at, _, _)| *at < self.durable) {
            self.segments.release(segment, bytes);
        }
        while let Some((_, number)) = self.rescue.arriving.pop_front_if(|(at, _)| *at < self.durable) {
            // The segments that its parts lie in may have been looked at before.
            self.rescue.barren = None;
            self.rescue.cursor = self.rescue.cursor.min(number);
            self.segments.reconsider();
        }
        self.segments.on_durable();
    }

    /// A write or a sync of the group failed. Nothing is tried again: a sync that succeeds after one that failed
    /// says nothing about the pages that the first one lost.
    pub fn on_failed(&mut self, group: GroupId, failure: Failure) {
        self.end_group(group);
        self.failure = Some(failure);
    }

    fn group(&mut self, writes: Vec<Write>, end: Option<u64>) -> Group {
        self.groups += 1;
        let id = GroupId(self.groups);
        let syncs = if end.is_some() {
            self.dirty.extend(&self.unsettled);
            mem::take(&mut self.dirty).into_iter().collect()
        } else {
            Vec::new()
        };
        self.in_flight = Some(InFlight { id, end, stamp: self.stamp });
        Group { id, writes, syncs, end: Position(end.unwrap_or(self.durable)) }
    }

    fn end_group(&mut self, group: GroupId) -> InFlight {
        let in_flight = self.in_flight.take().expect("a group is in flight");
        assert_eq!(in_flight.id, group, "another group is in flight");
        in_flight
    }
}
