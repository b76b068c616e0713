//! Files and directories: written from slices, made durable by the ring; and the lock on a data directory.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use glommio::io::{BufferedFile, OpenOptions};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::durable::{BLOCK, Writing};
use crate::executor::{blocking, runtime_error};
use crate::raw;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing one, to read.
    Read,
    /// An existing one, to read and write.
    ReadWrite,
    /// A new one, to read and write; fails if it exists.
    Create,
    /// To read and write, made if missing.
    OpenOrCreate,
}

/// An open file of one shard. Goes through the page cache.
#[derive(Debug)]
pub struct File {
    file: BufferedFile,
    path: PathBuf,
}

/// The most slices one call to the kernel carries.
const SLICES_MAX: usize = 256;
/// The most that one request to the ring reads.
const READ_MAX: usize = 1 << 20;

impl File {
    /// Opens it.
    pub async fn open(path: impl Into<PathBuf>, mode: OpenMode) -> io::Result<Self> {
        let path = path.into();
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => _ = options.write(true),
            OpenMode::Create => _ = options.write(true).create_new(true),
            OpenMode::OpenOrCreate => _ = options.write(true).create(true),
        }
        let file = options.buffered_open(&path).await.map_err(runtime_error)?;
        Ok(Self { file, path })
    }

    /// Makes a new file of that size, full of zeros that are on the disk already, so that to overwrite them is all
    /// that a later write has to do. Takes its time; the shard goes on meanwhile.
    pub async fn create_zeroed(path: impl Into<PathBuf>, size: u64, writing: Writing) -> io::Result<Self> {
        let path = path.into();
        let inner = path.clone();
        blocking(move || write_zeros(&inner, size, writing)).await?;
        Self::open(path, OpenMode::ReadWrite).await
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the slices one after the other, from that offset on. They are in the page cache when this returns; the
    /// call waits only if the kernel has too much to write back already.
    pub fn write_slices_at(&self, slices: &[impl AsRef<[u8]>], offset: u64) -> io::Result<u64> {
        let mut rest = slices.iter().map(AsRef::as_ref).filter(|slice| !slice.is_empty());
        let mut written = 0;
        loop {
            let mut storage = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (vector, slice) in storage.iter_mut().zip(rest.by_ref().take(SLICES_MAX)) {
                *vector = IoSlice::new(slice);
                count += 1;
            }
            if count == 0 {
                return Ok(written);
            }
            let mut vectors = &mut storage[..count];
            while !vectors.is_empty() {
                match rustix::io::pwritev(raw::borrow(&self.file), vectors, offset + written) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        written += count as u64;
                        IoSlice::advance_slices(&mut vectors, count);
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    /// Waits until all that has been written is on stable storage (fdatasync).
    ///
    /// After an error, nobody knows what is: the kernel forgets that pages were dirty once it has said so.
    pub async fn sync_data(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(runtime_error)
    }

    /// Reads up to that many bytes; fewer only at the end of the file. What is in the page cache comes at once.
    pub async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = self.read_into(offset, &mut bytes).await?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Reads into the buffer; less than a full one only at the end of the file.
    pub async fn read_into(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let wanted = &mut buffer[done..];
            let read = match self.read_cached(at, wanted) {
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(_) => {
                    let length = wanted.len().min(READ_MAX);
                    let read = self.file.read_at(at, length).await.map_err(runtime_error)?;
                    wanted[..read.len()].copy_from_slice(&read);
                    read.len()
                }
            };
            if read == 0 {
                break;
            }
            done += read;
        }
        Ok(done)
    }

    /// Only what needs no disk; may be refused altogether.
    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut vectors = [IoSliceMut::new(buffer)];
        rustix::io::preadv2(raw::borrow(&self.file), &mut vectors, offset, ReadWriteFlags::NOWAIT)
    }

    /// How long it is.
    pub async fn size(&self) -> io::Result<u64> {
        self.file.file_size().await.map_err(runtime_error)
    }

    /// Cuts it off there, or lengthens it with zeros.
    pub async fn truncate(&self, size: u64) -> io::Result<()> {
        self.file.truncate(size).await.map_err(runtime_error)
    }

    /// Closes it, and says when that failed. Merely dropped, it is closed at the next turn of the ring.
    pub async fn close(self) -> io::Result<()> {
        self.file.close().await.map_err(runtime_error)
    }
}

/// How much of a new file may wait to be written at one time. What others sync meanwhile waits behind it.
const ZEROS_IN_FLIGHT: usize = 2 << 20;

fn write_zeros(path: &Path, size: u64, writing: Writing) -> io::Result<()> {
    // Past the page cache whole blocks can be written, and zeros do not push anything out of it.
    let direct = writing == Writing::Direct && size.is_multiple_of(BLOCK as u64);
    let mut flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    flags.set(OFlags::DIRECT, direct);
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?;
    let zeros = vec![0; ZEROS_IN_FLIGHT + BLOCK];
    let zeros = &zeros[zeros.as_ptr().align_offset(BLOCK)..][..ZEROS_IN_FLIGHT];
    let result = (|| {
        // Where the file system can, the whole extent is taken at once: it does not fragment, and a disk that is too
        // full says so before anything is written.
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let mut offset = 0;
        while offset < size {
            let count = usize::try_from(size - offset).map_or(zeros.len(), |left| left.min(zeros.len()));
            match rustix::io::pwrite(&file, &zeros[..count], offset) {
                Ok(count) => offset += count as u64,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            rustix::fs::fdatasync(&file)?;
        }
        rustix::fs::fsync(&file)?;
        Ok(())
    })();
    if result.is_err() {
        // Half a file is of no use, and the disk may be full because of it.
        let _ = fs::remove_file(path);
    }
    result
}

/// Something in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name. Names that are not UTF-8 are not listed: nothing of ours has one.
    pub name: String,
    /// Bytes, for a file.
    pub size: u64,
    /// Whether it is a directory itself.
    pub directory: bool,
}

/// What is in a directory, by name.
pub async fn list(path: impl Into<PathBuf>) -> io::Result<Vec<Entry>> {
    let path = path.into();
    blocking(move || {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let found = entry.metadata()?;
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(Entry { name, size: found.len(), directory: found.is_dir() });
            }
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    })
    .await
}

/// Makes a directory and those above it, for nobody but us; fine if they exist.
pub async fn create_directory(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    blocking(move || fs::DirBuilder::new().recursive(true).mode(0o700).create(path)).await
}

/// Makes names in the directory durable: of files created, renamed and removed in it.
pub async fn sync_directory(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    blocking(move || {
        let directory =
            rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(rustix::fs::fsync(directory)?)
    })
    .await
}

/// Gives a file another name, replacing what has it.
pub async fn rename(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> io::Result<()> {
    let (from, to) = (from.into(), to.into());
    blocking(move || fs::rename(from, to)).await
}

/// Removes a file.
pub async fn remove(path: impl Into<PathBuf>) -> io::Result<()> {
    let path = path.into();
    blocking(move || fs::remove_file(path)).await
}

/// A directory that is ours alone until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    file: OwnedFd,
}

/// A directory could not be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by {holder}; stop it first, or use another data directory", .directory.display())]
    Held {
        /// Which directory.
        directory: PathBuf,
        /// Who, as far as it says.
        holder: String,
    },
    /// It cannot be written to.
    #[error("cannot lock {}: {error}", .directory.display())]
    Failed {
        /// Which directory.
        directory: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

impl DirectoryLock {
    /// A lock that another process of ours has taken and shares: it is free when neither has it any more.
    pub fn adopt(file: OwnedFd) -> Self {
        Self { file }
    }

    /// Takes the lock, or says who has it. May be called on any thread.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let failed = |error: io::Error| LockError::Failed { directory: directory.to_owned(), error };
        let path = directory.join("lock");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| failed(error.into()))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(&path).ok().filter(|text| !text.trim().is_empty());
                let holder =
                    holder.map_or("another process".to_owned(), |pid| format!("process {}", pid.trim()));
                return Err(LockError::Held { directory: directory.to_owned(), holder });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let lock = Self { file };
        lock.sign();
        Ok(lock)
    }

    /// Writes down for whoever is refused that this process has it.
    pub fn sign(&self) {
        // That it cannot be written does not matter.
        let _ = rustix::fs::ftruncate(&self.file, 0);
        let _ = rustix::io::pwrite(&self.file, format!("{}\n", std::process::id()).as_bytes(), 0);
    }
}

impl AsFd for DirectoryLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
