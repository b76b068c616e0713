//! Files that are written past the page cache and read through it.

use std::path::Path;

use crate::testing::{noise, run};
use crate::{BLOCK, DurableFile, Writing};

/// Beside the test program: the system's place for such things may be in memory.
fn directory() -> tempfile::TempDir {
    let program = std::env::current_exe().unwrap();
    tempfile::tempdir_in(program.parent().unwrap()).unwrap()
}

async fn made(path: &Path, size: u64) -> DurableFile {
    let writing = Writing::best(path.parent().unwrap()).await.unwrap();
    DurableFile::create(path, size, writing).await.unwrap()
}

/// What somebody else reads.
fn seen(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn writes_of_any_length_follow_each_other() {
    let directory = directory();
    let path = directory.path().join("file");
    run(move || async move {
        let size = 8 << 20;
        let file = made(&path, size).await;
        file.begin().await.unwrap();
        file.begin().await.unwrap();
        let content = noise(6_000_000);
        let mut at = 0;
        // The last is larger than what goes out in one piece.
        for length in [BLOCK, 1, 71, 4_096, 4_095, 12_288, 0, 8, 100_000, 3, 5_500_000] {
            let part = &content[at..at + length];
            let slices: Vec<&[u8]> = part.chunks(3_001).flat_map(|chunk| [chunk, &[]]).collect();
            file.write_slices_at(&slices, at as u64).await.unwrap();
            at += length;
            // Through the page cache, which must never show what was there before.
            let from = at.saturating_sub(length + 5_000);
            assert!(file.read_at(from as u64, at - from).await.unwrap() == content[from..at], "{at}");
            let behind = at.next_multiple_of(BLOCK) - at;
            assert_eq!(file.read_at(at as u64, behind).await.unwrap(), vec![0; behind]);
        }
        file.sync().await.unwrap();
        let seen = seen(&path);
        assert_eq!(seen.len() as u64, size);
        assert!(seen[..at] == content[..at] && seen[at..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_file_is_gone_on_with_in_the_middle_of_a_block() {
    let directory = directory();
    let path = directory.path().join("file");
    run(move || async move {
        let content = noise(20_000);
        let file = made(&path, 32_768).await;
        file.begin().await.unwrap();
        file.write_slices_at(&[&content[..6_000]], 0).await.unwrap();
        drop(file);

        let file = DurableFile::open(&path).await.unwrap();
        file.begin().await.unwrap();
        file.write_slices_at(&[&content[6_000..9_000]], 6_000).await.unwrap();
        // Somewhere else, and back.
        file.write_slices_at(&[b"else"], 30_000).await.unwrap();
        file.write_slices_at(&[&content[9_000..10_000]], 9_000).await.unwrap();
        // Through the page cache in between.
        file.end();
        file.write_slices_at(&[&content[10_000..15_000]], 10_000).await.unwrap();
        file.sync().await.unwrap();
        file.begin().await.unwrap();
        file.write_slices_at(&[&content[15_000..]], 15_000).await.unwrap();
        file.sync().await.unwrap();
        assert!(file.read_at(0, 20_000).await.unwrap() == content);
        let seen = seen(&path);
        assert!(seen[..20_000] == content);
        assert_eq!(&seen[30_000..30_004], b"else");
    });
}

#[test]
fn a_length_that_is_not_of_blocks_is_kept() {
    let directory = directory();
    let path = directory.path().join("file");
    run(move || async move {
        let file = made(&path, 10_001).await;
        file.begin().await.unwrap();
        file.write_slices_at(&[&[7; 10_001]], 0).await.unwrap();
        file.sync().await.unwrap();
        assert_eq!(seen(&path), [7; 10_001]);
    });
}

#[test]
fn what_cannot_be_opened_so_stays_with_the_page_cache() {
    let directory = directory();
    let path = directory.path().join("file");
    run(move || async move {
        let file = made(&path, 8_192).await;
        // In its place now lies something that cannot be written to.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        file.begin().await.unwrap();
        file.write_slices_at(&[[7; 5_000]], 100).await.unwrap();
        file.sync().await.unwrap();
        assert_eq!(file.read_at(100, 5_000).await.unwrap(), [7; 5_000]);
    });
}

#[test]
fn zeros_past_the_page_cache() {
    let directory = directory();
    let path = directory.path().join("file");
    run(move || async move {
        for (size, name) in [(3 << 20, "even"), ((3 << 20) + 4_096, "rest"), (4_097, "odd")] {
            let path = path.with_file_name(name);
            made(&path, size).await;
            let seen = seen(&path);
            assert_eq!(seen.len() as u64, size);
            assert!(seen.iter().all(|byte| *byte == 0));
        }
    });
}

#[test]
fn what_the_file_system_can_do_is_found_out() {
    let directory = directory();
    let path = directory.path().to_owned();
    run(move || async move {
        assert_eq!(
            Writing::best(&path).await.unwrap(),
            Writing::Direct,
            "the tests need a file system that can"
        );
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0, "nothing is left behind");
        assert!(Writing::best("/nowhere/at/all").await.is_err());
    });
}
