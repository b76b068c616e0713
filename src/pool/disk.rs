//! Files that are written and read at places, and directories that are synced.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    io::Errno,
};

/// Whether somebody writes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Lives,
    Ended,
}

/// Held while files come and go: whoever reads the directory meanwhile would find half of them.
pub(crate) struct Quiet(#[expect(dead_code, reason = "it is held")] OwnedFd);

impl Quiet {
    /// For reading.
    pub(crate) fn shared(directory: &Path) -> io::Result<Self> {
        Self::take(directory, FlockOperation::LockShared)
    }

    /// For files that come and go.
    pub(crate) fn alone(directory: &Path) -> io::Result<Self> {
        Self::take(directory, FlockOperation::LockExclusive)
    }

    fn take(directory: &Path, how: FlockOperation) -> io::Result<Self> {
        let file = open(&directory.join("lock"), OFlags::RDWR | OFlags::CREATE)?;
        flock(&file, how)?;
        Ok(Self(file))
    }
}

/// Whether somebody has the file locked, as who writes it does.
pub(crate) fn life(file: &OwnedFd) -> io::Result<Life> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => Ok(Life::Lives),
        Err(error) => Err(error.into()),
        Ok(()) => {
            flock(file, FlockOperation::Unlock)?;
            Ok(Life::Ended)
        }
    }
}

/// Opens a file that is nobody else's to read.
pub(crate) fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?)
}

/// Writes all of it, beginning there.
pub(crate) fn write_at(file: &OwnedFd, mut octets: &[u8], mut offset: u64) -> io::Result<()> {
    while !octets.is_empty() {
        match rustix::io::pwrite(file, octets, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                octets = &octets[written..];
                offset += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads what is there, up to so many octets.
pub(crate) fn read_at(file: &OwnedFd, buffer: &mut Vec<u8>, len: usize, offset: u64) -> io::Result<usize> {
    let before = buffer.len();
    buffer.resize(before + len, 0);
    loop {
        match rustix::io::pread(file, &mut buffer[before..], offset) {
            Ok(read) => {
                buffer.truncate(before + read);
                return Ok(read);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                buffer.truncate(before);
                return Err(error.into());
            }
        }
    }
}

/// What is in it is found after a crash.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    let file = rustix::fs::open(directory, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fsync(&file)?)
}
