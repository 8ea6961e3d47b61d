//! What the disk engine promises beyond the contract: what is on the disk afterwards.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::future::{Future, poll_fn};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;

use moat_blob::{BlobReader, BlobStore, BlobWriter, Disk, Error};
use moat_types::BlobId;

const MEGABYTE: usize = 1 << 20;

fn id(first: u8) -> BlobId {
    let mut bytes = [7; 16];
    bytes[0] = first;
    BlobId::from_bytes(bytes)
}

fn megabytes(count: usize) -> Vec<u8> {
    vec![0x5A; count * MEGABYTE]
}

async fn write(disk: &Disk, id: BlobId, bytes: &[u8]) {
    let mut writer = disk.create(id, bytes.len() as u64).await.unwrap();
    writer.append(bytes).await.unwrap();
    writer.finish().await.unwrap();
}

/// All files below a folder, and the folders themselves.
fn walk(root: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
    let mut next = 0;
    while next < folders.len() {
        for entry in std::fs::read_dir(&folders[next]).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
        next += 1;
    }
    (files, folders)
}

#[tokio::test]
async fn files_and_folders_are_for_the_owner_only() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path().join("new/blobs")).unwrap();
    write(&disk, id(1), &megabytes(1)).await;
    let (files, folders) = walk(&root.path().join("new/blobs"));
    let mode = |path: &PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(files.len(), 1);
    assert_eq!(mode(&files[0]), 0o600);
    assert_eq!(folders.len(), 3);
    assert!(folders.iter().all(|folder| mode(folder) == 0o700));
}

#[tokio::test]
async fn blobs_are_there_after_opening_again() {
    let root = tempfile::tempdir().unwrap();
    write(&Disk::open(root.path()).unwrap(), id(1), &megabytes(2)).await;
    let disk = Disk::open(root.path()).unwrap();
    let blob = disk.open(id(1)).await.unwrap();
    assert_eq!(
        blob.read(0..2 * MEGABYTE as u64).await.unwrap()[..],
        megabytes(2)
    );
    disk.delete(id(1)).await.unwrap();
    assert_eq!(walk(root.path()).0, Vec::<PathBuf>::new());
}

#[tokio::test]
async fn delete_finds_what_a_dead_process_left() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    // Dies with the file under its temporary name: no destructor runs.
    let mut writer = disk.create(id(1), 0).await.unwrap();
    writer.append(&megabytes(1)).await.unwrap();
    writer.append(&megabytes(1)).await.unwrap();
    std::mem::forget(writer);

    let disk = Disk::open(root.path()).unwrap();
    assert_eq!(walk(root.path()).0.len(), 1);
    assert!(matches!(disk.open(id(1)).await, Err(Error::NotFound(_))));
    disk.delete(id(1)).await.unwrap();
    assert_eq!(walk(root.path()).0, Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_dropped_at_any_moment_leaves_no_file() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    for appends in 0..6 {
        let mut writer = disk.create(id(appends), 0).await.unwrap();
        for _ in 0..appends {
            writer.append(&megabytes(1)).await.unwrap();
        }
        // A run may be under way on another thread now.
        drop(writer);
    }
    disk.settled().await;
    assert_eq!(walk(root.path()).0, Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finish_dropped_half_way_leaves_no_file() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    for n in 0..20 {
        let mut writer = disk.create(id(n), 0).await.unwrap();
        writer.append(&megabytes(usize::from(n % 3))).await.unwrap();
        let mut finish = pin!(writer.finish());
        let polled = poll_fn(|context| Poll::Ready(finish.as_mut().poll(context))).await;
        assert!(polled.is_pending(), "a sync can't be done at once");
    }
    disk.settled().await;
    assert_eq!(walk(root.path()).0, Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_file_cut_behind_our_back_is_short() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    write(&disk, id(1), &megabytes(1)).await;
    let blob = disk.open(id(1)).await.unwrap();
    let path = walk(root.path()).0.remove(0);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(1_000).unwrap();
    for range in [0..MEGABYTE as u64, 990..1_010] {
        let found = blob.read(range).await;
        assert!(
            matches!(found, Err(Error::Short { found: 1_000, .. })),
            "{found:?}"
        );
    }
    assert_eq!(blob.read(0..1_000).await.unwrap()[..], vec![0x5A; 1_000]);
}

#[tokio::test]
async fn a_folder_that_is_a_file_is_an_error_that_names_it() {
    let root = tempfile::NamedTempFile::new().unwrap();
    let error = Disk::open(root.path().join("blobs")).err().unwrap();
    assert!(error.to_string().contains("blobs"), "{error}");
}

#[tokio::test]
async fn large_ranges_are_exact_at_every_border_cached_or_not() {
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    let content: Vec<u8> = (0..3 * MEGABYTE + 50).map(|n| (n % 251) as u8).collect();
    write(&disk, id(1), &content).await;
    let blob = disk.open(id(1)).await.unwrap();
    let end = content.len();
    for cached in [false, true] {
        for start in [0, 1, 32, 4095, 4096, 4097, MEGABYTE - 1] {
            for stop in [start + MEGABYTE, start + 2 * MEGABYTE + 9, end - 1, end] {
                let found = blob.read(start as u64..stop as u64).await.unwrap();
                assert!(found[..] == content[start..stop], "{start}..{stop}");
            }
        }
        if !cached {
            // Small reads fill the page cache.
            for start in (0..end).step_by(100_000) {
                let stop = end.min(start + 100_000);
                let found = blob.read(start as u64..stop as u64).await.unwrap();
                assert!(found[..] == content[start..stop]);
            }
        }
    }
    // Beyond the end, and a file that is cut: never another blob's bytes.
    let beyond = blob.read(0..end as u64 + 8192).await;
    assert!(matches!(beyond, Err(Error::Short { .. })), "{beyond:?}");
    let path = walk(root.path()).0.remove(0);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    for length in [2 * MEGABYTE as u64, MEGABYTE as u64 + 1, 1] {
        file.set_len(length).unwrap();
        let beyond = blob.read(0..length + MEGABYTE as u64).await;
        assert!(matches!(beyond, Err(Error::Short { .. })), "{beyond:?}");
    }
}
