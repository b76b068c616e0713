//! Long changes of the queue are kept in a file over a stop: each process has one of its own, which the next takes over.
//!
//! ```text
//!  tasks.PID   a line of JSON for each task, written whole: when one begins, is cancelled or ends, and every two seconds as long as
//!              one runs. A crash costs what they had counted since; what was under way is begun anew.
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use admin::Tasks;
use bridge::Door;
use mail::Timestamp;
use tokio::{task::spawn_blocking, time::sleep};

use crate::durably;

/// The files of a data directory.
#[derive(Clone, Debug)]
pub struct TaskFiles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    tasks: Tasks,
    clock: fn() -> Timestamp,
    /// Another process is at work beside this one, and writes its own.
    beside: AtomicBool,
    /// One writes at a time; whether this process has written its own.
    writing: Mutex<bool>,
}

/// Begins the name of each; behind it is the number of the process.
const FILE: &str = "tasks.";
/// How often it is looked how far another process has come.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl TaskFiles {
    /// Of a data directory, for these tasks.
    pub fn new(directory: &Path, tasks: &Tasks, clock: fn() -> Timestamp) -> Self {
        let (directory, tasks) = (directory.to_owned(), tasks.clone());
        Self(Arc::new(Inner {
            directory,
            tasks,
            clock,
            beside: AtomicBool::new(false),
            writing: Mutex::default(),
        }))
    }

    /// Takes what processes have left that have ended, and goes on with it. Call it when there are none but this one.
    pub async fn take_over(&self, door: &Door) {
        let inner = self.0.clone();
        inner.beside.store(false, Ordering::Relaxed);
        let has_written = *inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // One with our number is another's that had it before, as long as it is not ours.
        let with = if has_written { Own::LeftOut } else { Own::OfAnother };
        let found = spawn_blocking(move || read(&inner.directory, with)).await;
        let Ok((text, files)) = found else { return };
        self.0.tasks.end_beside();
        if files.is_empty() {
            return;
        }
        let strange = self.0.tasks.take_over(&text, door, self.0.clock);
        if strange > 0 {
            tracing::warn!("{strange} lines of {FILE}* are no tasks, and are passed over");
        }
        let this = self.clone();
        // Until ours is written they are only in those.
        let _ = spawn_blocking(move || {
            if this.write() {
                let own = own(&this.0.directory);
                files.iter().filter(|file| **file != own).for_each(|file| drop(fs::remove_file(file)));
            }
        })
        .await;
    }

    /// Another process has a part of the mail, and goes on with its tasks as long as it has.
    pub async fn begin_beside(&self) {
        self.0.beside.store(true, Ordering::Relaxed);
        self.look_beside().await;
    }

    async fn look_beside(&self) {
        let inner = self.0.clone();
        let read = spawn_blocking(move || read(&inner.directory, Own::LeftOut)).await;
        let is_beside = self.0.beside.load(Ordering::Relaxed);
        if let (Ok((text, _)), true) = (read, is_beside) {
            self.0.tasks.begin_beside(&text);
        }
    }

    /// Writes what there is; says whether it is written.
    pub fn write(&self) -> bool {
        let Inner { directory, tasks, writing, .. } = &*self.0;
        let mut has_written = writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (version, text, file) = (tasks.version(), tasks.to_text(), own(directory));
        let written = if text.is_empty() { remove(&file) } else { durably::write(&file, &text) };
        if let Err(error) = &written {
            tracing::warn!("{}: {error}: a stop forgets long changes of the queue", file.display());
        }
        *has_written = true;
        tasks.written(version);
        written.is_ok()
    }

    /// Writes after each change, for as long as the pool lives.
    pub(crate) async fn keep(self) {
        loop {
            let is_beside = self.0.beside.load(Ordering::Relaxed);
            tokio::select! {
                _ = self.0.tasks.unwritten() => {
                    let this = self.clone();
                    if spawn_blocking(move || this.write()).await.is_err() {
                        // The pool is ending.
                        return;
                    }
                }
                () = sleep(LOOK_EVERY), if is_beside => self.look_beside().await,
            }
        }
    }
}

/// What a file with the number of this process is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    /// That of one that had the number before.
    OfAnother,
    /// Ours, and known.
    LeftOut,
}

fn own(directory: &Path) -> PathBuf {
    directory.join(format!("{FILE}{}", process::id()))
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the files say, and which those are.
fn read(directory: &Path, with: Own) -> (String, Vec<PathBuf>) {
    let (mut text, mut files) = (String::new(), Vec::new());
    for path in fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with(FILE) || with == Own::LeftOut && path == own(directory) {
            continue;
        }
        // One that was being written when its process ended is whole under its old name.
        if !name.ends_with(".new") {
            match fs::read(&path) {
                Ok(found) => text.push_str(&String::from_utf8_lossy(&found)),
                Err(error) => {
                    tracing::warn!("{}: {error}: what it has of tasks is not gone on with", path.display())
                }
            }
        }
        files.push(path);
    }
    (text, files)
}
