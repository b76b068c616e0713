//! Small files, written whole.

use std::{io, path::Path};

use rustix::fs::{Mode, OFlags};

/// A crash leaves the old file or the new one.
pub(crate) fn write(file: &Path, text: &str) -> io::Result<()> {
    // Another process may write it at the same time.
    let new = file.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&new, text)?;
    let written = rustix::fs::open(&new, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::fsync(&written)?;
    std::fs::rename(&new, file)
}
