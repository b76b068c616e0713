//! After a start: what was queued before comes back in steps, while life goes on.

use std::{collections::BTreeSet, mem, time::Duration};

use index::{Batch, Index, Loaded};
use journal::{Entry, Indexed, Older, Report, Start, Step};
use mail::QueueId;

use super::{Server, Task, committer::Waiting};
use crate::world::{Event, SECOND, World};

/// What is still to come back.
#[derive(Debug)]
pub(super) struct Missing {
    older: Older,
    /// What the index says, the next one last.
    told: Vec<(QueueId, Entry)>,
    from: From,
    /// How long a step takes at most.
    pace: Duration,
    /// What is back.
    found: BTreeSet<QueueId>,
    /// What the index is to be told.
    put: Vec<(QueueId, Entry)>,
    gone: Vec<QueueId>,
    /// Commands of operators, who wait until they can mean everybody.
    commands: Vec<(queue::Command, queue::Selector<'static>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Segments,
    Index,
}

impl Missing {
    pub(super) fn new(mut older: Older, loaded: Option<Loaded>, pace: Duration) -> Self {
        let (start, told, from) = match loaded {
            Some(Loaded { checkpoint, entries }) => {
                (Start::Checkpoint(checkpoint), entries.iter().collect(), From::Index)
            }
            None => (Start::Beginning, Vec::new(), From::Segments),
        };
        older.begin(&start).expect("the index is of this log");
        let (put, gone, commands) = (Vec::new(), Vec::new(), Vec::new());
        Self { older, told, from, pace, found: BTreeSet::new(), put, gone, commands }
    }
}

impl Server {
    pub(super) fn plan_restore(&self, world: &mut World) {
        let pace = self.missing.as_ref().map_or(Duration::ZERO, |missing| missing.pace);
        let most = if world.is_calm() || world.one_in(3) { SECOND / 50 } else { pace };
        let wait = world.within(SECOND / 1000, most);
        world.after(wait, Event::Server(self.run, Task::Older));
    }

    /// Whether the command has to wait.
    pub(super) fn put_off(&mut self, command: queue::Command, selector: queue::Selector<'static>) -> bool {
        if let Some(missing) = &mut self.missing {
            missing.commands.push((command, selector));
        }
        self.missing.is_some()
    }

    /// Reads on, or takes a few messages back.
    pub(super) fn restore_some(&mut self, world: &mut World) {
        if self.stopping {
            return;
        }
        let mut missing = self.missing.take().expect("something is missing");
        for _ in 0..=world.below(4) {
            match missing.older.step() {
                Step::Read(read) => {
                    missing.older.on_read(world.disk.read(read.segment, read.offset, read.len));
                    if missing.older.step() == Step::Done {
                        for (id, Entry { placement, .. }) in &missing.told {
                            let checked = missing.older.check(*id, placement.segment, placement.offset);
                            checked.expect("the index is of this log");
                        }
                    }
                }
                Step::Done if self.restore_one(world, &mut missing) => {}
                Step::Done => return self.end_restore(world, missing),
            }
        }
        self.tell_index_of_some(world, &mut missing);
        self.missing = Some(missing);
        self.plan_restore(world);
    }

    /// Takes the youngest message back that is missing, if there is one.
    fn restore_one(&mut self, world: &mut World, missing: &mut Missing) -> bool {
        let above = missing.told.last().map(|(id, _)| *id);
        let restored = match missing.older.next(&mut self.journal, above) {
            Some(restored) => restored,
            None => {
                let Some((id, entry)) = missing.told.pop() else { return false };
                match missing.older.restore(&mut self.journal, id, entry) {
                    Some(restored) => restored,
                    None => {
                        missing.gone.push(id);
                        return true;
                    }
                }
            }
        };
        world.ledger.came_back(restored.id, &restored.entry);
        self.restore(restored.id, &restored.entry, world.wall());
        self.changes.indexed(restored.id);
        missing.found.insert(restored.id);
        if restored.indexed == Indexed::No {
            missing.put.push((restored.id, restored.entry));
        }
        true
    }

    /// Entries may tell more than the checkpoint that is stored, once that is durable.
    fn tell_index_of_some(&self, world: &mut World, missing: &mut Missing) {
        let durable = self.journal.durable_to() >= missing.older.opened().position;
        if missing.from == From::Index && durable && !missing.put.is_empty() && world.one_in(3) {
            let mut index = world.indexes.front().cloned().unwrap_or_default();
            index.fill(&mem::take(&mut missing.put)).expect("an index in memory does not fail");
            world.indexes.push_front(index);
            world.indexes.truncate(3);
        }
    }

    fn end_restore(&mut self, world: &mut World, missing: Missing) {
        let Missing { older, from, found, put, gone, commands, .. } = missing;
        let checkpoint = older.opened().clone();
        let report: Report = older.finish(&mut self.journal);
        world.note(format_args!("{} are back from the {from:?}, {report:?}", found.len()));
        assert_eq!(report.bad, [], "nothing is damaged, only torn");
        world.ledger.all_back(checkpoint.position, &found);
        self.queue.end_restore();
        let mut orders = Vec::new();
        self.queue.on_tick(world.wall(), &mut orders);
        self.follow(world, orders);
        if from == From::Segments {
            world.indexes.clear();
        }
        let end = checkpoint.position;
        self.batch = Some(Batch { put, remove: gone, checkpoint });
        // What is at the end of the log may be in the page cache alone.
        self.wait_durable(world, end, Waiting::Batch);
        for (command, selector) in commands {
            self.command(world, command, selector);
        }
    }
}
