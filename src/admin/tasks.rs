//! Long changes of the queue, as tasks: begun by one request, looked at by others, ended by themselves or on demand.
//!
//! A task asks every shard for one slice after the other, all shards at the same time, and lets each take its time: mail
//! goes first there. It is about the mail that had come when it began, and no other. What it has come to is kept, for the running ones and
//! some that have ended (`tasks/kept.rs`): when the process stops, however it does, the next one begins anew what was under way. What was
//! changed already does not differ from what is wanted.

mod kept;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json,
    extract::{ConnectInfo, Path, State, rejection::JsonRejection},
    http::StatusCode,
};
use bridge::{Action, AskError, Change, Door, Pace, Selector};
use mail::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch as watched},
    task::JoinSet,
    time::{sleep, timeout},
};
use watch::events::{TaskBegan, TaskEnded};

use crate::{Operations, Problem};

/// Tasks that run at once.
const RUNNING_MAX: usize = 4;
/// Tasks that are remembered after their end.
const ENDED_MAX: usize = 100;
/// Octets of who began a task.
const BY_MAX: usize = 64;
/// How long a shard is left alone that cannot answer yet.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long whoever begins a task waits until it is kept.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// How often what running tasks have come to is kept.
const KEPT_EVERY: Duration = Duration::from_secs(2);

/// All tasks of this process.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    known: Mutex<Known>,
    /// Of what is to be kept.
    version: watched::Sender<u64>,
    /// The version that is.
    written: watched::Sender<u64>,
    /// Whether all mail is ours, and no other process has a part of it.
    whole: watched::Sender<bool>,
}

#[derive(Debug, Default)]
struct Known {
    known: BTreeMap<u64, Arc<Task>>,
    /// The highest number that was given.
    last: u64,
    /// Those of a process that has a part of the mail, as it told last.
    beside: Vec<TaskView>,
    /// Of these, what is not to be gone on with.
    unwanted: BTreeSet<u64>,
}

impl Default for Inner {
    fn default() -> Self {
        let (version, written) = (watched::Sender::new(0), watched::Sender::new(0));
        Self { known: Mutex::default(), version, written, whole: watched::Sender::new(true) }
    }
}

#[derive(Debug)]
struct Task {
    id: u64,
    /// As it was asked for: a dry run counts.
    action: Action,
    dry_run: bool,
    change: Change,
    by: String,
    began_at: Timestamp,
    matched: AtomicU64,
    changed: AtomicU64,
    looked: AtomicU64,
    /// Entries of each shard, as far as they are known.
    of: Mutex<Vec<u64>>,
    /// How often it was begun anew by another process.
    resumed: u32,
    cancelled: AtomicBool,
    cancel: Notify,
    end: Mutex<Option<End>>,
}

#[derive(Clone, Debug)]
struct End {
    at: Timestamp,
    error: Option<String>,
}

/// What a task has come to, as people and programs read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskView {
    /// Its number.
    pub(crate) id: u64,
    /// What it does.
    pub(crate) action: Action,
    /// Whether it only counts whom it would change.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// The route by which mail is to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// Whom it is about.
    pub(crate) selector: Selector,
    /// Who began it.
    pub(crate) by: String,
    /// Whether it runs, or how it ended.
    pub(crate) state: TaskState,
    /// Recipients that were meant, of those that were looked at.
    pub(crate) matched: u64,
    /// Recipients that were changed.
    pub(crate) changed: u64,
    /// Entries of the queue that were looked at.
    pub(crate) looked: u64,
    /// How many there are.
    pub(crate) of: u64,
    /// How often it has begun anew, since the process stopped that had begun it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) resumed: u32,
    /// When it began.
    pub(crate) began_at: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at: Option<String>,
    /// Why it ended before it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TaskState {
    /// It is at work.
    Running,
    /// It has looked at all.
    Done,
    /// Somebody has ended it.
    Cancelled,
    /// It could not go on.
    Failed,
}

impl TaskState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// The body of a request for a task.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TaskBody {
    /// What is to be done.
    pub(crate) action: Action,
    /// Whom it is about.
    pub(crate) selector: Selector,
    /// The route by which mail is to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// Only count.
    #[serde(default)]
    pub(crate) dry_run: bool,
    /// Who asks, by their own word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Tasks {
    /// Begins a task.
    fn begin(
        &self,
        door: &Door,
        clock: fn() -> Timestamp,
        body: TaskBody,
        from: &str,
    ) -> Result<TaskView, Problem> {
        let TaskBody { action, selector, to, dry_run, by } = body;
        let began_at = clock();
        let how = (Pace::Aside, Some(began_at));
        let change = change(if dry_run { Action::Count } else { action }, selector, to, how)?;
        let by = match by.as_deref().map(plain).filter(|by| !by.is_empty()) {
            Some(by) => format!("{by} ({from})"),
            None => from.to_owned(),
        };
        let mut tasks = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.known.values().filter(|task| task.end().is_none()).count() >= RUNNING_MAX {
            return Err(Problem::TooManyTasks);
        }
        tasks.last += 1;
        let id = tasks.last;
        let task = Arc::new(Task {
            id,
            action,
            dry_run,
            change,
            by,
            began_at,
            matched: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            of: Mutex::new(vec![0; door.shards()]),
            resumed: 0,
            cancelled: AtomicBool::new(false),
            cancel: Notify::new(),
            end: Mutex::new(None),
        });
        tasks.known.insert(id, task.clone());
        tasks.forget_some();
        drop(tasks);
        self.changed();
        let view = task.view();
        self.start(task, door, clock);
        Ok(view)
    }

    fn start(&self, task: Arc<Task>, door: &Door, clock: fn() -> Timestamp) {
        let selector = serde_json::to_string(&task.change.selector).unwrap_or_default();
        TaskBegan {
            task: task.id,
            action: task.action.as_str(),
            mode: task.dry_run.then_some("dry-run"),
            to: task.change.to.as_deref(),
            selector: &selector,
            by: &task.by,
            resumed: Some(task.resumed).filter(|resumed| *resumed > 0).map(Into::into),
        }
        .emit(clock().0);
        tokio::spawn(run(self.clone(), task, door.clone(), clock));
    }

    fn find(&self, id: u64) -> Option<Arc<Task>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner).known.get(&id).cloned()
    }

    fn view(&self, id: u64) -> Option<TaskView> {
        let tasks = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tasks.known.get(&id).map(|task| task.view());
        known.or_else(|| tasks.beside.iter().find(|view| view.id == id).cloned())
    }

    /// All of them, the newest first.
    fn views(&self) -> Vec<TaskView> {
        let tasks = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut views: Vec<_> = tasks.known.values().map(|task| task.view()).collect();
        views.extend(tasks.beside.iter().cloned());
        views.sort_by_key(|view| std::cmp::Reverse(view.id));
        views
    }

    /// Ends a task; none when there is no such.
    fn cancel(&self, id: u64) -> Option<TaskView> {
        if let Some(task) = self.find(id) {
            if task.end().is_none() {
                task.cancel();
                self.changed();
            }
            return Some(task.view());
        }
        let mut tasks = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let view = tasks.beside.iter().find(|view| view.id == id).cloned()?;
        // That process cannot be told. It ends when it can, and nobody goes on with it.
        tasks.unwanted.insert(id);
        Some(view)
    }

    /// There is something to be kept.
    fn changed(&self) {
        self.0.version.send_modify(|version| *version += 1);
    }

    /// Waits until what is now to be kept is, or cannot be. Where nobody keeps anything, nobody waits.
    async fn settled(&self) {
        if self.0.version.receiver_count() == 0 {
            return;
        }
        let (version, mut written) = (*self.0.version.borrow(), self.0.written.subscribe());
        let _ = timeout(WRITTEN_WITHIN, written.wait_for(|written| *written >= version)).await;
    }
}

impl Known {
    /// What ended long ago gives way.
    fn forget_some(&mut self) {
        while self.known.len() > RUNNING_MAX + ENDED_MAX {
            let Some(oldest) = self.known.values().find(|task| task.end().is_some()).map(|task| task.id)
            else {
                break;
            };
            self.known.remove(&oldest);
        }
    }
}

/// A change that is asked for, if it says what it must.
pub(crate) fn change(
    action: Action,
    selector: Selector,
    to: Option<String>,
    (pace, as_of): (Pace, Option<Timestamp>),
) -> Result<Change, Problem> {
    if let Selector::Matching(filter) = &selector
        && filter.is_empty()
    {
        return Err(Problem::NothingChosen);
    }
    let to = match (action, to) {
        (Action::Reroute, None) => return Err(Problem::NoRouteChosen),
        // Back to its own.
        (Action::Reroute, Some(to)) => Some(to).filter(|to| !to.is_empty()).map(Into::into),
        (Action::Retry | Action::Hold | Action::Release | Action::Remove | Action::Count, _) => None,
    };
    Ok(Change { action, to, selector, pace, as_of })
}

/// Somebody's name, as it can stand in a line.
fn plain(by: &str) -> String {
    by.chars().filter(|c| !c.is_control()).take(BY_MAX).collect()
}

impl Task {
    fn end(&self) -> Option<End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.cancel.notify_waiters();
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    async fn cancelled(&self) {
        let cancelled = self.cancel.notified();
        tokio::pin!(cancelled);
        // Whoever cancels it from here on wakes this up.
        cancelled.as_mut().enable();
        if !self.is_cancelled() {
            cancelled.await;
        }
    }

    fn begin_anew(&self) {
        self.matched.store(0, Ordering::Relaxed);
        self.looked.store(0, Ordering::Relaxed);
    }

    fn state(&self, end: Option<&End>) -> TaskState {
        match end {
            None => TaskState::Running,
            Some(End { error: Some(_), .. }) => TaskState::Failed,
            Some(_) if self.is_cancelled() => TaskState::Cancelled,
            Some(_) => TaskState::Done,
        }
    }

    fn view(&self) -> TaskView {
        let end = self.end();
        let of = self.of.lock().unwrap_or_else(PoisonError::into_inner).iter().sum();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TaskView {
            id: self.id,
            action: self.action,
            dry_run: self.dry_run,
            to: self.change.to.as_deref().map(Into::into),
            selector: self.change.selector.clone(),
            by: self.by.clone(),
            state: self.state(end.as_ref()),
            // Whom it changed before it began anew it may not meet again.
            matched: count(&self.matched).max(count(&self.changed)),
            changed: count(&self.changed),
            looked: count(&self.looked),
            of,
            resumed: self.resumed,
            began_at: bridge::time_text(self.began_at),
            ended_at: end.as_ref().map(|end| bridge::time_text(end.at)),
            error: end.and_then(|end| end.error),
        }
    }
}

/// How a walk over all shards came to its end.
enum Walked {
    All,
    /// Shards have ended, and whoever has their mail next goes on.
    Part,
}

async fn run(tasks: Tasks, task: Arc<Task>, door: Door, clock: fn() -> Timestamp) {
    let mut whole = tasks.0.whole.subscribe();
    let error = loop {
        let is_whole = *whole.borrow_and_update();
        let walking = walk(&task, &door);
        tokio::pin!(walking);
        let walked = loop {
            tokio::select! {
                walked = &mut walking => break walked,
                () = sleep(KEPT_EVERY) => tasks.changed(),
            }
        };
        match walked {
            Err(error) => break Some(error),
            Ok(_) if task.is_cancelled() => break None,
            Ok(Walked::Part) => return,
            Ok(Walked::All) if is_whole => break None,
            // Mail that another process has is still to come.
            Ok(Walked::All) => {
                tokio::select! {
                    _ = whole.wait_for(|whole| *whole) => task.begin_anew(),
                    () = task.cancelled() => {}
                }
            }
        }
    };
    let end = End { at: clock(), error };
    let state = task.state(Some(&end));
    *task.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end.clone());
    tasks.changed();
    let TaskView { matched, changed, .. } = task.view();
    TaskEnded {
        task: task.id,
        action: task.action.as_str(),
        state: state.as_str(),
        matched,
        nrcpt: changed,
        took: end.at.saturating_since(task.began_at),
        error: end.error.as_deref(),
    }
    .emit(end.at.0);
}

/// Once over all shards.
async fn walk(task: &Arc<Task>, door: &Door) -> Result<Walked, String> {
    let mut shards = JoinSet::new();
    for shard in 0..door.shards() {
        shards.spawn(run_on(task.clone(), door.clone(), shard));
    }
    let (mut walked, mut error) = (Walked::All, None);
    while let Some(ended) = shards.join_next().await {
        let wrong = match ended {
            Ok(Ok(())) => None,
            // Somebody has stopped the server, or another one has taken over.
            Ok(Err(AskError::Gone(_))) => {
                walked = Walked::Part;
                None
            }
            Ok(Err(wrong)) => Some(wrong.to_string()),
            Err(wrong) => Some(wrong.to_string()),
        };
        error = error.or(wrong);
    }
    error.map_or(Ok(walked), Err)
}

async fn run_on(task: Arc<Task>, door: Door, shard: usize) -> Result<(), AskError> {
    let mut cursor = 0;
    while !task.is_cancelled() {
        match door.change_step(shard, &task.change, cursor).await {
            Ok(step) => {
                task.matched.fetch_add(step.matched, Ordering::Relaxed);
                task.changed.fetch_add(step.changed, Ordering::Relaxed);
                task.looked.fetch_add(step.looked, Ordering::Relaxed);
                if let Some(of) = task.of.lock().unwrap_or_else(PoisonError::into_inner).get_mut(shard) {
                    *of = step.of;
                }
                let Some(next) = step.next else { break };
                cursor = next;
            }
            // What was done of the same slice already is not done again: it does not differ from what is wanted.
            Err(AskError::Late(_) | AskError::Returning(..)) => {
                tokio::select! {
                    () = sleep(PATIENCE) => {}
                    () = task.cancelled() => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) async fn begin(
    State(operations): State<Operations>,
    from: Option<axum::Extension<ConnectInfo<std::net::SocketAddr>>>,
    body: Result<Json<TaskBody>, JsonRejection>,
) -> Result<(StatusCode, Json<TaskView>), Problem> {
    let Json(body) = body.map_err(|rejection| Problem::Body(rejection.body_text()))?;
    let from = match from {
        Some(axum::Extension(ConnectInfo(address))) => format!("http {}", address.ip()),
        None => "control socket".to_owned(),
    };
    let view = operations.tasks().begin(operations.door(), operations.clock(), body, &from)?;
    operations.tasks().settled().await;
    Ok((StatusCode::ACCEPTED, Json(view)))
}

pub(crate) async fn list(State(operations): State<Operations>) -> Json<Vec<TaskView>> {
    Json(operations.tasks().views())
}

pub(crate) async fn show(
    State(operations): State<Operations>,
    Path(id): Path<u64>,
) -> Result<Json<TaskView>, Problem> {
    operations.tasks().view(id).map(Json).ok_or(Problem::NoTask(id))
}

/// Ends a task. What it has done stays done.
pub(crate) async fn cancel(
    State(operations): State<Operations>,
    Path(id): Path<u64>,
) -> Result<Json<TaskView>, Problem> {
    let view = operations.tasks().cancel(id).ok_or(Problem::NoTask(id))?;
    operations.tasks().settled().await;
    Ok(Json(view))
}
