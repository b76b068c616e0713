//! The index on disk: one sled database per journal shard, one tree, the checkpoint under a key of its own.
//!
//! Measured with sled 0.34.7: its flush does not survive a power loss, sixteen `flush_async` at once deadlock, an
//! insert stalls for 20 ms now and then, and a damaged directory may panic instead of failing. So: flushed only from
//! here and one at a time, never in the way of a reply, and whatever it says is checked against a digest. What fails
//! the check is put aside and rebuilt from the journal.

use std::{
    fmt, fs, io,
    os::unix::fs::DirBuilderExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use journal::{Checkpoint, Entry, QueueId};
use sled::Db;

use crate::{
    Batch, Entries, Index, IndexError, Loaded,
    digest::Digest,
    entries::{self, Change},
};

/// The live messages of one journal shard, in a sled database.
///
/// Open it from the main thread: sled's threads would inherit a shard's CPU.
pub struct SledIndex {
    db: Db,
    digest: Digest,
}

/// What opening met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenReport {
    /// A database that works, or a new one.
    Sound,
    /// The directory was damaged; it lies aside and an empty one took its place.
    PutAside {
        /// Where it is now.
        path: PathBuf,
        /// What was wrong.
        reason: String,
    },
}

// Blocks have keys of 8 bytes; this one sorts before them all.
const META_KEY: &[u8] = b"";
const DIGEST_LEN: usize = 16;
/// What the first byte under [`META_KEY`] is: how entries are laid out. An index of another layout is rebuilt.
const FORMAT: u8 = 0x82;
/// Bytes given to sled at once: it takes several times as much until all are in, and keeps that. When a crash comes
/// between two such parts, the digest does not fit the entries, and the index is rebuilt.
const GATHERED_MAX: usize = 128 << 10;

impl SledIndex {
    /// Opens the database in a directory, with that many bytes of cache. A directory that sled cannot open is put
    /// aside: see the report, and rebuild when [`Index::load`] then finds nothing.
    ///
    /// # Errors
    /// [`IndexError::Store`] when even an empty directory cannot be opened, or somebody else has it for long.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<(Self, OpenReport), IndexError> {
        // Who had it last lets go of it a moment after its end: its threads close the files.
        const TRIES: u32 = 250;
        const BETWEEN: Duration = Duration::from_millis(20);
        let is_held = |opened: &Result<Self, IndexError>| {
            opened.as_ref().is_err_and(|error| error.to_string().contains("could not acquire lock"))
        };
        let mut opened = open(path, cache_bytes);
        for _ in 0..TRIES {
            if !is_held(&opened) {
                break;
            }
            thread::sleep(BETWEEN);
            opened = open(path, cache_bytes);
        }
        match opened {
            Ok(index) => Ok((index, OpenReport::Sound)),
            // It may be in the best of health.
            held if is_held(&held) => held.map(|index| (index, OpenReport::Sound)),
            Err(error) => {
                let aside = put_aside(path).map_err(|e| IndexError::Store(e.to_string()))?;
                let report = OpenReport::PutAside { path: aside, reason: error.to_string() };
                Ok((open(path, cache_bytes)?, report))
            }
        }
    }

    /// Changes entries, and stores the checkpoint with the last of them.
    fn change(
        &mut self,
        changes: impl Iterator<Item = (QueueId, Change)>,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), IndexError> {
        let (mut batch, mut digest, mut gathered) = (sled::Batch::default(), self.digest, 0);
        for (key, changes) in entries::by_block(changes) {
            let key = key.to_bytes();
            let before = guarded(|| self.db.get(key))?;
            if let Some(before) = &before {
                digest.subtract(&key, before);
            }
            let (after, len) = entries::merge(before.as_deref().unwrap_or_default(), &changes);
            if len > 0 {
                digest.add(&key, &after);
                gathered += after.len();
                batch.insert(&key, after);
            } else if before.is_some() {
                batch.remove(&key);
            }
            if gathered >= GATHERED_MAX {
                guarded(|| self.db.apply_batch(std::mem::take(&mut batch)))?;
                gathered = 0;
            }
        }
        if let Some(checkpoint) = checkpoint {
            let meta = [&[FORMAT][..], &digest.to_bytes(), &checkpoint.encode()].concat();
            batch.insert(META_KEY, meta);
        }
        guarded(|| self.db.apply_batch(batch))?;
        self.digest = digest;
        Ok(())
    }

    fn meta(&self) -> Result<Option<(Checkpoint, Digest)>, IndexError> {
        let Some(bytes) = guarded(|| self.db.get(META_KEY))? else { return Ok(None) };
        let bytes = bytes
            .strip_prefix(&[FORMAT])
            .ok_or(IndexError::Damaged("it was written by another version of the program"))?;
        let (digest, checkpoint) = bytes
            .split_first_chunk::<DIGEST_LEN>()
            .ok_or(IndexError::Damaged("the checkpoint is cut short"))?;
        let checkpoint = Checkpoint::decode(checkpoint)
            .map_err(|_| IndexError::Damaged("the checkpoint does not decode"))?;
        Ok(Some((checkpoint, Digest::from_bytes(*digest))))
    }
}

impl fmt::Debug for SledIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledIndex").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Index for SledIndex {
    fn load(&self) -> Result<Option<Loaded>, IndexError> {
        let Some((checkpoint, digest)) = self.meta()? else { return Ok(None) };
        let (mut found, mut entries) = (Digest::default(), Entries::default());
        let mut blocks = self.db.range::<&[u8], _>([0].as_slice()..);
        while let Some((key, value)) = guarded(|| blocks.next().transpose())? {
            found.add(&key, &value);
            entries.push(&key, &value)?;
        }
        if found != digest {
            return Err(IndexError::Damaged("the entries are not those of the checkpoint"));
        }
        Ok(Some(Loaded { checkpoint, entries }))
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), IndexError> {
        let put = batch.put.iter().map(|(id, entry)| (*id, Some(entry.encode())));
        let remove = batch.remove.iter().map(|id| (*id, None));
        self.change(put.chain(remove), Some(&batch.checkpoint))
    }

    fn fill(&mut self, put: &[(QueueId, Entry)]) -> Result<(), IndexError> {
        let checkpoint = self.checkpoint()?;
        self.change(put.iter().map(|(id, entry)| (*id, Some(entry.encode()))), checkpoint.as_ref())
    }

    fn checkpoint(&self) -> Result<Option<Checkpoint>, IndexError> {
        Ok(self.meta()?.map(|(checkpoint, _)| checkpoint))
    }

    // `&mut self`: one flush in flight at most.
    fn flush(&mut self) -> Result<(), IndexError> {
        guarded(|| self.db.flush()).map(|_| ())
    }

    fn clear(&mut self) -> Result<(), IndexError> {
        // The checkpoint first: a crash half way leaves an index that is not trusted.
        guarded(|| self.db.remove(META_KEY))?;
        guarded(|| self.db.clear())?;
        self.digest = Digest::default();
        Ok(())
    }
}

fn open(path: &Path, cache_bytes: u64) -> Result<SledIndex, IndexError> {
    // Its files are made by the umask: nobody else gets as far as them.
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| IndexError::Store(error.to_string()))?;
    let config = sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(None);
    let db = guarded(|| config.open())?;
    let mut index = SledIndex { db, digest: Digest::default() };
    if let Some((_, digest)) = index.meta()? {
        index.digest = digest;
    }
    Ok(index)
}

/// Moves a directory out of the way, over the one that was put aside before it.
fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let aside = PathBuf::from(aside);
    match fs::symlink_metadata(&aside) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&aside)?,
        Ok(_) => fs::remove_file(&aside)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Calls sled, whose panics over damaged files are errors to us.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(IndexError::Store(error.to_string())),
        Err(_) => Err(IndexError::Store("sled panicked over its files".to_owned())),
    }
}
