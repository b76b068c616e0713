//! Files whose writes are on stable storage when they return: past the page cache, where the file system can.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;

use glommio::io::{DmaFile, OpenOptions};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::executor::{blocking, runtime_error};
use crate::file::{File, OpenMode};
use crate::shortage::is_shortage;

/// What a write past the page cache begins and ends at, bytes: no logical block of a disk in use is larger.
pub const BLOCK: usize = 4096;
/// The most that is copied and written at one time.
const PIECE: usize = 4 << 20;

/// How the writes of a [`DurableFile`] go to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// Past the page cache: each write is durable when it returns.
    Direct,
    /// Through the page cache: durable after [`DurableFile::sync`].
    Cached,
}

impl Writing {
    /// The best that the file system of a directory can do. Makes a file there, and removes it.
    ///
    /// # Errors
    /// No file can be made.
    pub async fn best(directory: impl AsRef<Path>) -> io::Result<Self> {
        let path = directory.as_ref().join(format!(".direct-{}", std::process::id()));
        blocking(move || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            let cached = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))?;
            let direct = rustix::fs::open(&path, flags | OFlags::DIRECT | OFlags::DSYNC, Mode::empty());
            let _ = std::fs::remove_file(&path);
            drop(cached);
            match direct {
                Ok(_) => Ok(Self::Direct),
                Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Self::Cached),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}

/// A file of fixed length that is written from one end to the other, synced as it goes, and read anywhere.
///
/// Past the page cache whole blocks are written. So the last, begun block is kept here, and written again with what
/// follows: its first bytes stay what they were. Behind the end of a write there are zeros up to the next block.
#[derive(Debug)]
pub struct DurableFile {
    file: File,
    direct: RefCell<Option<Rc<DmaFile>>>,
    /// The begun block that was written last: where it begins, and its bytes so far.
    begun: RefCell<(u64, Vec<u8>)>,
    /// Something may be in the page cache that is not on the disk.
    unsynced: Cell<bool>,
}

impl DurableFile {
    /// Opens an existing file, to read and, after [`Self::begin`], to write durably.
    ///
    /// # Errors
    /// It cannot be opened.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        // Who wrote it last may have left something in the page cache.
        Ok(Self::new(File::open(path.as_ref(), OpenMode::ReadWrite).await?, true))
    }

    /// Makes a file of that length, full of zeros that are on the disk ([`File::create_zeroed`]).
    ///
    /// # Errors
    /// It exists, or there is no room.
    pub async fn create(path: impl AsRef<Path>, size: u64, writing: Writing) -> io::Result<Self> {
        Ok(Self::new(File::create_zeroed(path.as_ref(), size, writing).await?, false))
    }

    const fn new(file: File, unsynced: bool) -> Self {
        Self {
            file,
            direct: RefCell::new(None),
            begun: RefCell::new((0, Vec::new())),
            unsynced: Cell::new(unsynced),
        }
    }

    /// Gets ready to write past the page cache. What cannot be opened so, or does not end with a block, stays with the
    /// page cache: its writes are as durable after [`Self::sync`].
    ///
    /// # Errors
    /// For the moment there are no descriptors.
    pub async fn begin(&self) -> io::Result<()> {
        if self.direct.borrow().is_some() || !self.file.size().await?.is_multiple_of(BLOCK as u64) {
            return Ok(());
        }
        let mut options = OpenOptions::new();
        // For writing only: the runtime then fails to read from it, and does not take the device for one to be polled.
        options.write(true).custom_flags(libc::O_DSYNC);
        match options.dma_open(self.file.path()).await.map_err(runtime_error) {
            Ok(direct) if direct.alignment() <= BLOCK as u64 => {
                *self.direct.borrow_mut() = Some(Rc::new(direct));
                Ok(())
            }
            Err(error) if is_shortage(&error) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Nothing more is written past the page cache before another [`Self::begin`]; gives the descriptor back.
    pub fn end(&self) {
        self.direct.borrow_mut().take();
    }

    /// Writes the slices one after the other, from that offset on. After [`Self::begin`] they are durable when this
    /// returns, otherwise after [`Self::sync`]. One at a time.
    ///
    /// # Errors
    /// Those of the disk; then nobody knows what is on it.
    pub async fn write_slices_at(&self, slices: &[impl AsRef<[u8]>], offset: u64) -> io::Result<()> {
        let Some(direct) = self.direct.borrow().clone() else {
            self.unsynced.set(true);
            self.begun.take();
            return self.file.write_slices_at(slices, offset).map(drop);
        };
        let (mut base, mut begun) = self.begun_block(offset).await?;
        let mut slices = slices.iter().map(AsRef::as_ref);
        let mut slice: &[u8] = &[];
        let mut left = slices.clone().map(<[u8]>::len).sum::<usize>();
        while left > 0 {
            let used = (begun.len() + left).min(PIECE);
            let mut buffer = direct.alloc_dma_buffer(used.next_multiple_of(BLOCK));
            let bytes = buffer.as_bytes_mut();
            bytes[..begun.len()].copy_from_slice(&begun);
            let mut at = begun.len();
            left -= used - at;
            while at < used {
                if slice.is_empty() {
                    slice = slices.next().expect("as many bytes as were counted");
                }
                let (now, later) = slice.split_at(slice.len().min(used - at));
                bytes[at..at + now.len()].copy_from_slice(now);
                at += now.len();
                slice = later;
            }
            bytes[used..].fill(0);
            let whole = used / BLOCK * BLOCK;
            begun.clear();
            begun.extend_from_slice(&bytes[whole..used]);
            let wanted = bytes.len();
            if direct.write_at(buffer, base).await.map_err(runtime_error)? < wanted {
                return Err(io::ErrorKind::WriteZero.into());
            }
            base += whole as u64;
        }
        *self.begun.borrow_mut() = (base, begun);
        Ok(())
    }

    /// The bytes before `offset` in its block, and where that begins.
    async fn begun_block(&self, offset: u64) -> io::Result<(u64, Vec<u8>)> {
        let before = (offset % BLOCK as u64) as usize;
        let base = offset - before as u64;
        let (known, begun) = self.begun.take();
        if known == base && begun.len() == before {
            return Ok((base, begun));
        }
        let mut begun = Vec::with_capacity(BLOCK);
        begun.resize(before, 0);
        if self.file.read_into(base, &mut begun).await? < before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((base, begun))
    }

    /// Waits until all that was written, by whomever, is on stable storage. Returns at once if it is.
    ///
    /// # Errors
    /// See [`File::sync_data`].
    pub async fn sync(&self) -> io::Result<()> {
        if self.unsynced.get() {
            self.file.sync_data().await?;
            self.unsynced.set(false);
        }
        Ok(())
    }

    /// Reads up to that many bytes; fewer only at the end of the file.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.file.read_at(offset, length).await
    }
}
