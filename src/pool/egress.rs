//! What was sent by warm-up plans is kept in a file over a restart.
//!
//! It is written a second after a change at the latest, and at an orderly end. A crash costs what was counted in that second.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bridge::Egress;
use tokio::task::spawn_blocking;

use crate::durably::write;

/// So often it is written at most.
const EVERY: Duration = Duration::from_millis(500);

/// The file in a data directory.
pub fn warm_up_file(data_directory: &Path) -> PathBuf {
    data_directory.join("warm-up")
}

/// Takes what an earlier process has kept.
pub fn read_warm_ups(file: &Path, egress: &Egress) {
    read(file, |text| egress.take_text(text));
}

/// Takes what the process has kept that has counted beside this one, and has ended.
pub fn take_over_warm_ups(file: &Path, egress: &Egress) {
    read(file, |text| egress.end_beside(text));
}

fn read(file: &Path, take: impl Fn(&str) -> usize) {
    let strange = match std::fs::read(file) {
        Ok(text) => take(&String::from_utf8_lossy(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => take(""),
        Err(error) => {
            tracing::warn!("{}: {error}: warm-up plans begin their day anew", file.display());
            take("")
        }
    };
    if strange > 0 {
        tracing::warn!("{}: {strange} lines are no plans, and are passed over", file.display());
    }
}

/// Writes it down, unless another process does, or there never was anything to write.
pub fn write_warm_ups(file: &Path, egress: &Egress) {
    if egress.is_beside() || !egress.has_counted() {
        return;
    }
    if let Err(error) = write(file, &egress.to_text()) {
        tracing::warn!("{}: {error}: a restart forgets what was sent by warm-up plans", file.display());
    }
}

/// Writes it after a change, for as long as the pool lives.
pub(crate) async fn keep(egress: Egress, file: PathBuf) {
    loop {
        egress.unwritten().await;
        let (egress, to) = (egress.clone(), file.clone());
        if spawn_blocking(move || write_warm_ups(&to, &egress)).await.is_err() {
            // The pool is ending.
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}
