//! Long changes of the queue, as tasks: begun by one request, looked at by others, ended by themselves or on demand.
//!
//! A task asks every shard for one slice after the other, all shards at the same time, and lets each take its time: mail
//! goes first there. What it has come to is kept in memory, for the running ones and some that have ended; none survives
//! the process. What it changed does.

use std::{
    collections::BTreeMap,
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
use tokio::{sync::Notify, task::JoinSet, time::sleep};
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

/// All tasks of this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(Arc<Mutex<BTreeMap<u64, Arc<Task>>>>);

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
    /// Its number in this process.
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
        let change = change(if dry_run { Action::Count } else { action }, selector, to, Pace::Aside)?;
        let by = match by.as_deref().map(plain).filter(|by| !by.is_empty()) {
            Some(by) => format!("{by} ({from})"),
            None => from.to_owned(),
        };
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.values().filter(|task| task.end().is_none()).count() >= RUNNING_MAX {
            return Err(Problem::TooManyTasks);
        }
        let id = tasks.keys().next_back().map_or(1, |last| last + 1);
        let task = Arc::new(Task {
            id,
            action,
            dry_run,
            change,
            by,
            began_at: clock(),
            matched: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            of: Mutex::new(vec![0; door.shards()]),
            cancelled: AtomicBool::new(false),
            cancel: Notify::new(),
            end: Mutex::new(None),
        });
        tasks.insert(id, task.clone());
        while tasks.len() > RUNNING_MAX + ENDED_MAX {
            let Some(oldest) = tasks.values().find(|task| task.end().is_some()).map(|task| task.id) else {
                break;
            };
            tasks.remove(&oldest);
        }
        drop(tasks);
        let view = task.view();
        let selector = serde_json::to_string(&task.change.selector).unwrap_or_default();
        TaskBegan {
            task: id,
            action: action.as_str(),
            mode: dry_run.then_some("dry-run"),
            to: task.change.to.as_deref(),
            selector: &selector,
            by: &task.by,
        }
        .emit(task.began_at.0);
        tokio::spawn(run(task, door.clone(), clock));
        Ok(view)
    }

    fn find(&self, id: u64) -> Option<Arc<Task>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// All of them, the newest first.
    fn views(&self) -> Vec<TaskView> {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.values().rev().map(|task| task.view()).collect()
    }
}

/// A change that is asked for, if it says what it must.
pub(crate) fn change(
    action: Action,
    selector: Selector,
    to: Option<String>,
    pace: Pace,
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
    Ok(Change { action, to, selector, pace })
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

    fn state(&self, end: Option<&End>) -> TaskState {
        match end {
            None => TaskState::Running,
            Some(End { error: Some(_), .. }) => TaskState::Failed,
            Some(_) if self.cancelled.load(Ordering::Relaxed) => TaskState::Cancelled,
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
            matched: count(&self.matched),
            changed: count(&self.changed),
            looked: count(&self.looked),
            of,
            began_at: bridge::time_text(self.began_at),
            ended_at: end.as_ref().map(|end| bridge::time_text(end.at)),
            error: end.and_then(|end| end.error),
        }
    }
}

async fn run(task: Arc<Task>, door: Door, clock: fn() -> Timestamp) {
    let mut shards = JoinSet::new();
    for shard in 0..door.shards() {
        shards.spawn(run_on(task.clone(), door.clone(), shard));
    }
    let mut error = None;
    while let Some(ended) = shards.join_next().await {
        let wrong = match ended {
            Ok(Ok(())) => None,
            Ok(Err(wrong)) => Some(wrong.to_string()),
            Err(wrong) => Some(wrong.to_string()),
        };
        error = error.or(wrong);
    }
    let end = End { at: clock(), error };
    let state = task.state(Some(&end));
    TaskEnded {
        task: task.id,
        action: task.action.as_str(),
        state: state.as_str(),
        matched: task.matched.load(Ordering::Relaxed),
        nrcpt: task.changed.load(Ordering::Relaxed),
        took: end.at.saturating_since(task.began_at),
        error: end.error.as_deref(),
    }
    .emit(end.at.0);
    *task.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
}

async fn run_on(task: Arc<Task>, door: Door, shard: usize) -> Result<(), AskError> {
    let mut cursor = 0;
    while !task.cancelled.load(Ordering::Relaxed) {
        match door.change_step(shard, &task.change, cursor).await {
            Ok(step) => {
                task.matched.fetch_add(step.matched, Ordering::Relaxed);
                task.changed.fetch_add(step.changed, Ordering::Relaxed);
                task.looked.fetch_add(step.looked, Ordering::Relaxed);
                task.of.lock().unwrap_or_else(PoisonError::into_inner)[shard] = step.of;
                let Some(next) = step.next else { break };
                cursor = next;
            }
            // What was done of the same slice already is not done again: it does not differ from what is wanted.
            Err(AskError::Late(_) | AskError::Returning(..)) => {
                tokio::select! {
                    () = sleep(PATIENCE) => {}
                    () = task.cancel.notified() => {}
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
    Ok((StatusCode::ACCEPTED, Json(view)))
}

pub(crate) async fn list(State(operations): State<Operations>) -> Json<Vec<TaskView>> {
    Json(operations.tasks().views())
}

pub(crate) async fn show(
    State(operations): State<Operations>,
    Path(id): Path<u64>,
) -> Result<Json<TaskView>, Problem> {
    operations.tasks().find(id).map(|task| Json(task.view())).ok_or(Problem::NoTask(id))
}

/// Ends a task. What it has done stays done.
pub(crate) async fn cancel(
    State(operations): State<Operations>,
    Path(id): Path<u64>,
) -> Result<Json<TaskView>, Problem> {
    let task = operations.tasks().find(id).ok_or(Problem::NoTask(id))?;
    if task.end().is_none() {
        task.cancel();
    }
    Ok(Json(task.view()))
}
