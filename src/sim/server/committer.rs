//! The journal on its disk: groups written and synced, segments made and recycled, notes in their order.

use std::{mem, time::Duration};

use bytes::Bytes;
use journal::{
    AppendError, AppendMessage, Content, Draft, Failure, Order, Phase, Position, RecipientState, virtual_disk,
};
use mail::{Envelope, QueueId};
use smtp::Refusal;

use super::{Server, Task};
use crate::world::{Event, LinkId, MINUTE, SECOND, World};

/// Who waits for the log to be durable.
#[derive(Debug)]
pub(super) enum Waiting {
    Door(LinkId),
    Report(QueueId),
    Rescue(QueueId),
    Checkpoint,
    Batch,
}

/// Who found the journal not ready.
#[derive(Debug)]
pub(super) enum Stuck {
    Spill(LinkId),
    Commit(LinkId),
    Report(QueueId),
    Content(QueueId),
    States(QueueId),
}

/// What became of recipients, to be written in the order in which it happened.
#[derive(Debug)]
pub(super) enum Note {
    Transition(QueueId, Vec<(u32, RecipientState)>),
    Retired(QueueId),
}

impl Server {
    /// Hands what has gathered to the disk, as the committer's task does whenever it is woken.
    pub(super) fn work(&mut self, world: &mut World) {
        self.write_notes(world);
        if self.group.is_none()
            && let Some(group) = self.journal.begin_group()
        {
            self.group = Some(group);
            let wait = disk_time(world);
            world.after(wait, Event::Server(self.run, Task::Write));
        }
        let mut orders = Vec::new();
        self.journal.orders(&mut orders);
        for order in orders {
            match order {
                Order::Rescue { content, states } => {
                    self.stuck.extend(content.into_iter().map(Stuck::Content));
                    self.stuck.extend(states.into_iter().map(Stuck::States));
                    self.on_room(world);
                }
                order @ (Order::Create { .. } | Order::Recycle { .. } | Order::Remove { .. }) => {
                    let wait = disk_time(world);
                    world.after(wait, Event::Server(self.run, Task::File(order)));
                }
            }
        }
    }

    pub(super) fn write_group(&mut self, world: &mut World) {
        let group = self.group.as_ref().expect("a group is in flight");
        if mem::take(&mut world.disk_trouble.write_fails) {
            return self.fail(world, Failure::Write);
        }
        if virtual_disk::write_group(group, &mut world.disk).is_err() {
            world.disk_trouble.stopped = true;
            return;
        }
        let wait = disk_time(world);
        world.after(wait, Event::Server(self.run, Task::Sync));
    }

    pub(super) fn sync_group(&mut self, world: &mut World) {
        let group = self.group.as_ref().expect("a group is in flight");
        if !group.syncs.is_empty() && mem::take(&mut world.disk_trouble.sync_fails) {
            return self.fail(world, Failure::Sync);
        }
        if group.syncs.iter().try_for_each(|segment| world.disk.sync(*segment)).is_err() {
            world.disk_trouble.stopped = true;
            return;
        }
        let id = group.id;
        self.group = None;
        self.journal.on_durable(id);
        world.ledger.durable(self.journal.durable_to());
        self.wake(world);
        self.on_room(world);
    }

    fn fail(&mut self, world: &mut World, failure: Failure) {
        world.note(format_args!("the journal fails: {failure}"));
        world.ledger.figures.disk_failures += 1;
        let group = self.group.take().expect("a group is in flight");
        self.journal.on_failed(group.id, failure);
        world.after(SECOND, Event::Server(self.run, Task::Pause));
        self.wake(world);
        self.on_room(world);
    }

    fn wake(&mut self, world: &mut World) {
        let (durable, failed) = (self.journal.durable_to(), self.journal.failure().is_some());
        let mut woken = Vec::new();
        self.waiting.retain_mut(|(end, waiting)| {
            let waits = *end > durable && !failed;
            if !waits {
                woken.push((*end, mem::replace(waiting, Waiting::Checkpoint)));
            }
            waits
        });
        for (end, waiting) in woken {
            let outcome = if end <= durable { Ok(()) } else { Err(Refusal::StorageFailed) };
            match waiting {
                Waiting::Door(link) => self.door_committed(world, link, outcome),
                Waiting::Report(id) => self.report_committed(world, id, outcome),
                Waiting::Rescue(id) if outcome.is_ok() => _ = self.moving.remove(&id),
                // It cannot be read from the disk again.
                Waiting::Rescue(_) => {}
                Waiting::Checkpoint => self.save_checkpoint(world, outcome),
                Waiting::Batch => self.store_batch(world, outcome),
            }
        }
    }

    /// Whoever found the journal not ready tries again, in turn.
    pub(super) fn on_room(&mut self, world: &mut World) {
        for stuck in mem::take(&mut self.stuck) {
            match stuck {
                Stuck::Spill(link) => self.door_goes_on(world, link),
                Stuck::Commit(link) => self.append_from_door(world, link),
                Stuck::Report(id) => self.store_report(world, id),
                Stuck::Content(id) => self.rescue_content(world, id),
                Stuck::States(id) => self.rescue_states(world, id),
            }
        }
    }

    pub(super) fn do_file_order(&mut self, world: &mut World, order: Order) {
        let done = match order {
            Order::Create { segment, .. } if world.disk_trouble.full => {
                world.note(format_args!("no room for segment {segment}"));
                if !mem::replace(&mut self.full, true) {
                    world.after(SECOND, Event::Server(self.run, Task::Space));
                }
                self.journal.on_create_failed(segment);
                Ok(())
            }
            Order::Create { segment, size, header } => {
                let disk = &mut world.disk;
                let made = disk.create(segment, size).and_then(|()| disk.write(segment, 0, &[header]));
                made.and_then(|()| disk.sync(segment)).map(|()| self.journal.on_prepared(segment))
            }
            Order::Recycle { segment, header } => {
                world.ledger.figures.recycled += 1;
                let written = world.disk.write(segment, 0, &[header]);
                written.and_then(|()| world.disk.sync(segment)).map(|()| self.journal.on_prepared(segment))
            }
            Order::Remove { segment } => {
                world.disk.remove(segment).map(|()| self.journal.on_removed(segment))
            }
            Order::Rescue { .. } => unreachable!("it is no order about files"),
        };
        if done.is_err() {
            world.disk_trouble.stopped = true;
            return;
        }
        self.on_room(world);
    }

    pub(super) fn on_space(&mut self, world: &mut World) {
        if world.disk_trouble.full {
            world.after(5 * SECOND, Event::Server(self.run, Task::Space));
        } else {
            self.full = false;
        }
        self.journal.on_space();
        self.on_room(world);
    }

    /// Appends a message; it is ours once the log is durable to the place returned.
    pub(super) fn append(
        &mut self,
        world: &mut World,
        id: QueueId,
        envelope: &Envelope,
        states: &[(u32, RecipientState)],
        draft: Option<(&Draft, &[u8])>,
        content: &[Bytes],
    ) -> Result<Position, AppendError> {
        let (draft, mut all) =
            draft.map_or((None, Vec::new()), |(draft, spilled)| (Some(draft), spilled.to_vec()));
        let message = AppendMessage {
            envelope,
            states,
            content: draft.map_or(Content::Whole(content), |draft| Content::Draft(draft, content)),
        };
        let end = self.journal.append_reserved(id, &message)?;
        all.extend_from_slice(&content.concat());
        world.ledger.appended(id, envelope, all, end);
        world.ledger.figures.taken_meanwhile += u64::from(self.missing.is_some());
        self.changes.changed(id);
        Ok(end)
    }

    pub(super) fn wait_durable(&mut self, world: &mut World, end: Position, waiting: Waiting) {
        self.waiting.push_back((end, waiting));
        if self.journal.durable_to() >= end || self.journal.failure().is_some() {
            self.wake(world);
        }
    }

    pub(super) fn note(&mut self, note: Note) {
        match &note {
            Note::Transition(id, _) => self.changes.changed(*id),
            Note::Retired(id) => self.changes.retired(*id),
        }
        self.notes.push_back(note);
    }

    fn write_notes(&mut self, world: &mut World) {
        while let Some(note) = self.notes.front() {
            let written = match note {
                Note::Transition(id, states) => self.journal.append_transition(*id, states),
                Note::Retired(id) => self.journal.append_retired(*id),
            };
            match (written, self.notes.front()) {
                // A note that finds no room waits for it: dropped, its message would be sent again after a restart.
                (Err(AppendError::NotReady | AppendError::StorageFull), _) => return,
                (Ok(end), Some(Note::Transition(id, states))) => {
                    for (place, state) in states {
                        world.ledger.written(*id, *place, state.phase, end);
                    }
                }
                (Ok(end), Some(Note::Retired(id))) => world.ledger.retired(*id, end),
                // Any other error is final, and the next attempt of these recipients all that it costs.
                (Err(error), note) => world.note(format_args!("{error}: {note:?} is not written")),
                (Ok(_), None) => unreachable!("it was just looked at"),
            }
            self.notes.pop_front();
        }
    }

    pub(super) fn note_end(&mut self, id: QueueId, recipients: &[u32], phase: Phase) {
        let state = RecipientState { phase, ..RecipientState::default() };
        let states = recipients.iter().map(|place| (*place, state.clone())).collect();
        self.note(Note::Transition(id, states));
    }
}

fn disk_time(world: &mut World) -> Duration {
    if world.disk_trouble.slow {
        world.within(SECOND, 4 * MINUTE)
    } else if world.one_in(50) && !world.is_calm() {
        world.within_secs(20)
    } else {
        Duration::from_micros(50 + world.below(5_000))
    }
}
