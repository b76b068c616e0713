//! Files through the page cache and the ring; directories; the lock.

use std::io::ErrorKind;

use crate::testing::{noise, run};
use crate::{
    DirectoryLock, File, LockError, OpenMode, Writing, create_directory, list, remove, rename, sync_directory,
};

#[test]
fn what_is_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    run(move || async move {
        let file = File::open(&path, OpenMode::Create).await.unwrap();
        assert_eq!(File::open(&path, OpenMode::Create).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
        // More slices than one call takes, some of them empty.
        let content = noise(3_000_000);
        let slices: Vec<&[u8]> = content.chunks(4_999).flat_map(|chunk| [chunk, &[]]).collect();
        assert_eq!(file.write_slices_at(&slices, 5).unwrap(), 3_000_000);
        file.sync_data().await.unwrap();
        assert_eq!(file.size().await.unwrap(), 3_000_005);
        assert_eq!(file.read_at(0, 5).await.unwrap(), [0; 5]);
        assert!(file.read_at(5, 4_000_000).await.unwrap() == content);
        assert_eq!(file.read_at(9_000_000, 10).await.unwrap(), []);
        file.close().await.unwrap();

        let file = File::open(&path, OpenMode::Read).await.unwrap();
        assert!(file.write_slices_at(&[b"x"], 0).is_err());
        assert_eq!(file.read_at(3_000_000, 10).await.unwrap(), content[2_999_995..]);
    });
}

#[test]
fn zeroed_files_have_their_size_and_their_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("segment");
    run(move || async move {
        let size = (2 << 20) + 17;
        let file = File::create_zeroed(&path, size, Writing::Cached).await.unwrap();
        assert_eq!(file.size().await.unwrap(), size);
        assert!(file.read_at(0, 3 << 20).await.unwrap().iter().all(|byte| *byte == 0));
        file.write_slices_at(&[b"over"], 100).unwrap();
        assert_eq!(file.size().await.unwrap(), size);
        assert_eq!(
            File::create_zeroed(&path, 1, Writing::Cached).await.unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(file.read_at(100, 4).await.unwrap(), b"over", "who failed removed nothing");
    });
}

#[test]
fn directories() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_owned();
    run(move || async move {
        let inner = root.join("a/b");
        create_directory(&inner).await.unwrap();
        create_directory(&inner).await.unwrap();
        let file = File::open(inner.join("two"), OpenMode::OpenOrCreate).await.unwrap();
        file.write_slices_at(&[b"12345"], 0).unwrap();
        file.close().await.unwrap();
        rename(inner.join("two"), inner.join("one")).await.unwrap();
        create_directory(inner.join("zoo")).await.unwrap();
        sync_directory(&inner).await.unwrap();
        let found: Vec<_> =
            list(&inner).await.unwrap().into_iter().map(|entry| (entry.name, entry.directory)).collect();
        assert_eq!(found, [("one".to_owned(), false), ("zoo".to_owned(), true)]);
        remove(inner.join("one")).await.unwrap();
        assert_eq!(remove(inner.join("one")).await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_directory_has_one_owner() {
    let directory = tempfile::tempdir().unwrap();
    let lock = DirectoryLock::acquire(directory.path()).unwrap();
    let refused = DirectoryLock::acquire(directory.path()).unwrap_err();
    assert!(matches!(refused, LockError::Held { .. }));
    assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    drop(lock);
    DirectoryLock::acquire(directory.path()).unwrap();
    let nowhere = DirectoryLock::acquire(&directory.path().join("missing")).unwrap_err();
    assert!(matches!(nowhere, LockError::Failed { .. }));
}
