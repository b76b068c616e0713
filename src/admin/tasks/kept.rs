//! Tasks as they are kept over a restart: a line of JSON for each, the newest last.
//!
//! Whoever has the text writes it where it outlives the process. What was under way is begun anew by whoever reads it: the
//! places in the queue by which a task goes are those of one process.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicBool, AtomicU64},
};

use bridge::{Door, Pace};
use mail::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{ENDED_MAX, End, Task, TaskState, TaskView, Tasks, change};

/// A line.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    view: TaskView,
    /// The moments exactly, in microseconds since 1970 began.
    began: u64,
    ended: Option<u64>,
    /// Somebody wants it to end.
    #[serde(default)]
    cancelled: bool,
}

impl Tasks {
    /// Waits until there is something that is not in the text that was written last; says which version it is.
    pub async fn unwritten(&self) -> u64 {
        let mut version = self.0.version.subscribe();
        let written = *self.0.written.borrow();
        // There is a sender as long as there is this.
        let found = version.wait_for(|version| *version != written).await;
        found.map_or(written, |version| *version)
    }

    /// The text of this version, or of a later one, is where it outlives us; or it cannot be brought there.
    pub fn written(&self, version: u64) {
        self.0.written.send_replace(version);
    }

    /// Which version there is to be written.
    pub fn version(&self) -> u64 {
        *self.0.version.borrow()
    }

    /// All that is known of them.
    pub fn to_text(&self) -> String {
        let tasks = self.lock();
        let line = |task: &Arc<Task>| {
            let (view, ended) = (task.view(), task.end().map(|end| end.at.0));
            let kept = Kept { view, began: task.began_at.0, ended, cancelled: task.is_cancelled() };
            serde_json::to_string(&kept).unwrap_or_default() + "\n"
        };
        tasks.known.values().map(line).collect()
    }

    /// Takes over what a process has left that has ended, and goes on with what was under way there. Answers how many lines are none
    /// of ours. Within the pool.
    pub fn take_over(&self, text: &str, door: &Door, clock: fn() -> Timestamp) -> usize {
        let (kept, strange) = read(text);
        for kept in kept {
            self.take(kept, door, clock);
        }
        self.changed();
        strange
    }

    /// Another process has a part of the mail: what it has is there when [`Tasks::end_beside`] is called. Tasks of ours wait for that,
    /// and go over the queue again then; of its own, as far as its text tells, it is shown how far they are.
    pub fn begin_beside(&self, text: &str) {
        let (kept, _) = read(text);
        let mut tasks = self.lock();
        tasks.last = tasks.last.max(kept.iter().map(|kept| kept.view.id).max().unwrap_or(0));
        tasks.beside = kept.into_iter().map(|kept| kept.view).collect();
        drop(tasks);
        self.0.whole.send_replace(false);
    }

    /// All mail is ours now, and what the other has left of tasks was taken over.
    pub fn end_beside(&self) {
        self.lock().beside.clear();
        self.0.whole.send_replace(true);
    }

    fn take(&self, kept: Kept, door: &Door, clock: fn() -> Timestamp) {
        let Kept { view, began, ended, cancelled } = kept;
        let runs = view.state == TaskState::Running;
        let began_at = Timestamp(began);
        let mut tasks = self.lock();
        let cancelled = cancelled || tasks.unwanted.remove(&view.id);
        // Two processes may have counted from the same number on.
        let id = if tasks.known.contains_key(&view.id) { tasks.last + 1 } else { view.id };
        tasks.last = tasks.last.max(id);
        let action = if view.dry_run { bridge::Action::Count } else { view.action };
        let changed = change(action, view.selector, view.to, (Pace::Aside, Some(began_at)));
        // What was allowed when it began is allowed now.
        let Ok(change) = changed else { return };
        let end = match (runs, ended) {
            (true, _) if cancelled => Some(End { at: clock(), error: None }),
            (true, _) => None,
            (false, at) => Some(End { at: Timestamp(at.unwrap_or(began)), error: view.error }),
        };
        let is_under_way = end.is_none();
        // What is begun anew counts anew what it meets, and no change twice.
        let of = if is_under_way { vec![0; door.shards()] } else { vec![view.of] };
        let count = |count: u64| AtomicU64::new(if is_under_way { 0 } else { count });
        let task = Arc::new(Task {
            id,
            action: view.action,
            dry_run: view.dry_run,
            change,
            by: view.by,
            began_at,
            matched: count(view.matched),
            changed: AtomicU64::new(view.changed),
            looked: count(view.looked),
            of: std::sync::Mutex::new(of),
            resumed: view.resumed + u32::from(is_under_way),
            cancelled: AtomicBool::new(cancelled),
            cancel: Notify::new(),
            end: std::sync::Mutex::new(end),
        });
        tasks.known.insert(id, task.clone());
        tasks.forget_some();
        drop(tasks);
        if is_under_way {
            self.start(task, door, clock);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, super::Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(text: &str) -> (Vec<Kept>, usize) {
    let mut strange = 0;
    let mut all: Vec<Kept> = Vec::new();
    for line in text.lines() {
        match serde_json::from_str::<Kept>(line) {
            Ok(kept) => all.push(kept),
            Err(_) => strange += 1,
        }
    }
    // Those that are under way first: the others are history, of which not more is taken than we keep.
    all.sort_by_key(|kept| (kept.view.state != TaskState::Running, std::cmp::Reverse(kept.began)));
    all.truncate(super::RUNNING_MAX * 4 + ENDED_MAX);
    (all, strange)
}

#[cfg(test)]
mod test {
    use bridge::{Action, Limits, Selector};

    use super::*;
    use crate::tasks::TaskBody;

    fn clock() -> Timestamp {
        Timestamp(1_700_000_000_000_000)
    }

    fn body(action: Action) -> TaskBody {
        TaskBody { action, selector: Selector::All, to: None, dry_run: false, by: Some("ops".into()) }
    }

    /// Shards that have ended: whoever asks them learns that another process has their mail.
    fn nobody() -> Door {
        Door::new(2, Limits::default()).0
    }

    fn states(tasks: &Tasks) -> Vec<(u64, TaskState, u32)> {
        tasks.views().iter().map(|view| (view.id, view.state, view.resumed)).collect()
    }

    #[tokio::test]
    async fn what_is_under_way_goes_on_elsewhere() {
        let (before, door) = (Tasks::default(), nobody());
        for action in [Action::Hold, Action::Remove, Action::Release] {
            before.begin(&door, clock, body(action), "test").unwrap();
        }
        before.cancel(2).unwrap();
        *before.find(3).unwrap().end.lock().unwrap() =
            Some(End { at: Timestamp(clock().0 + 5), error: Some("no".into()) });
        before.find(3).unwrap().matched.store(7, std::sync::atomic::Ordering::Relaxed);
        before.find(1).unwrap().changed.store(4, std::sync::atomic::Ordering::Relaxed);
        let after = Tasks::default();
        let text = format!("rubbish\n{}", before.to_text());
        assert_eq!(after.take_over(&text, &door, clock), 1);
        let expected = [(3, TaskState::Failed, 0), (2, TaskState::Cancelled, 0), (1, TaskState::Running, 1)];
        assert_eq!(states(&after), expected);
        // What has ended is as it was; what goes on is about the same mail, and counts no change twice.
        assert_eq!(after.view(3), before.view(3));
        let (old, new) = (before.view(1).unwrap(), after.view(1).unwrap());
        assert_eq!((new.changed, &new.by, &new.began_at), (4, &old.by, &old.began_at));
        assert_eq!(after.find(1).unwrap().change, before.find(1).unwrap().change);
        // Once more, and another one has the next number.
        let third = Tasks::default();
        assert_eq!(third.take_over(&after.to_text(), &door, clock), 0);
        assert_eq!(states(&third)[2], (1, TaskState::Running, 2));
        assert_eq!(third.begin(&door, clock, body(Action::Hold), "test").unwrap().id, 4);
    }

    #[tokio::test]
    async fn those_of_another_process_are_shown_until_they_are_ours() {
        let (theirs, ours, door) = (Tasks::default(), Tasks::default(), nobody());
        theirs.begin(&door, clock, body(Action::Hold), "test").unwrap();
        theirs.begin(&door, clock, body(Action::Remove), "test").unwrap();
        ours.begin_beside(&theirs.to_text());
        assert_eq!(ours.begin(&door, clock, body(Action::Release), "test").unwrap().id, 3);
        assert_eq!(ours.views().len(), 3);
        assert_eq!(ours.cancel(2).unwrap().state, TaskState::Running, "that process cannot be told");
        assert!(ours.cancel(4).is_none());
        ours.end_beside();
        ours.take_over(&theirs.to_text(), &door, clock);
        let expected = [(3, TaskState::Running, 0), (2, TaskState::Cancelled, 0), (1, TaskState::Running, 1)];
        assert_eq!(states(&ours), expected);
        // History has an end.
        let line = theirs.to_text().lines().nth(1).unwrap().replace("\"running\"", "\"done\"");
        let many: String =
            (10..500).map(|id| line.replace("\"id\":2", &format!("\"id\":{id}")) + "\n").collect();
        assert_eq!(ours.take_over(&many, &door, clock), 0);
        assert!(ours.views().len() <= super::super::RUNNING_MAX + ENDED_MAX);
        assert_eq!(ours.find(1).map(|task| task.end().is_none()), Some(true), "what runs is not forgotten");
    }

    #[tokio::test]
    async fn whoever_keeps_them_is_told_of_each_change() {
        let (tasks, door) = (Tasks::default(), nobody());
        tasks.settled().await;
        let keeper = async {
            let version = tasks.unwritten().await;
            assert!(tasks.to_text().contains("\"hold\""));
            tasks.written(version);
        };
        let begun = async {
            tasks.begin(&door, clock, body(Action::Hold), "test").unwrap();
            tasks.settled().await;
            assert_eq!(*tasks.0.written.borrow(), tasks.version());
        };
        tokio::join!(keeper, begun);
    }
}
