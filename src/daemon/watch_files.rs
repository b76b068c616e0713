//! Whether files of certificates have changed, without reading them.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

/// What files looked like the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamps(Vec<(PathBuf, Option<Stamp>)>);

/// What changes when a file is written or another comes in its place, also behind a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamps {
    /// Of these files as they are now; one that is missing has none.
    pub(crate) fn of<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Self {
        let stamp = |file: &PathBuf| {
            let found = fs::metadata(file).ok()?;
            Some(Stamp {
                device: found.dev(),
                inode: found.ino(),
                size: found.size(),
                modified: (found.mtime(), found.mtime_nsec()),
                changed: (found.ctime(), found.ctime_nsec()),
            })
        };
        Self(files.map(|file| (file.clone(), stamp(file))).collect())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_is_written_renamed_linked_or_gone_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (file, link, other) = (path("file"), path("link"), path("other"));
        fs::write(&file, "one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let files = [file.clone(), link.clone()];
        let mut before = Stamps::of(files.iter());
        let mut changed = || {
            let now = Stamps::of(files.iter());
            std::mem::replace(&mut before, now) != Stamps::of(files.iter())
        };
        assert!(!changed(), "nothing has");
        fs::write(&file, "three").unwrap();
        assert!(changed() && !changed());
        fs::write(&other, "three").unwrap();
        assert!(!changed(), "another file");
        fs::rename(&other, &file).unwrap();
        assert!(changed() && !changed());
        fs::write(&other, "four!").unwrap();
        fs::remove_file(&link).unwrap();
        assert!(changed() && !changed());
        std::os::unix::fs::symlink(&other, &link).unwrap();
        assert!(changed() && !changed());
    }
}
