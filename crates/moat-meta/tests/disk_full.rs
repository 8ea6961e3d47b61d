//! A full disk, and other errors of the disk that pass: commits are refused, nothing that was
//! answered is lost, reads go on, and so do commits when there is room again.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;
use moat_meta::{Embedded, Error, MetaStore, Options, Outcome, Write};
use moat_testkit::sim_disk::SimDisk;

fn open(disk: &SimDisk) -> Embedded {
    let options = Options {
        cache_bytes: 1 << 20,
        log_bytes: 64 << 10,
        ..Options::default()
    };
    Embedded::open_on(Arc::new(disk.clone()), options).unwrap()
}

fn row(n: u32) -> (Bytes, Bytes) {
    let key = Bytes::from(format!("row/{:08}", n.wrapping_mul(2_654_435_761)));
    (key, Bytes::from(vec![n as u8; 3_000]))
}

async fn commit(store: &Embedded, n: u32) -> Result<Outcome, Error> {
    let (key, value) = row(n);
    store.commit(vec![], vec![Write::Put(key, value)]).await
}

/// The store holds exactly these rows, by every way of reading.
async fn assert_rows(store: &Embedded, numbers: impl Iterator<Item = u32>) {
    let expected: BTreeMap<_, _> = numbers.map(row).collect();
    for (key, value) in &expected {
        assert_eq!(store.get(key).await.unwrap().as_ref(), Some(value));
    }
    let range = Bytes::from("row/")..Bytes::from("row0");
    let page = store.scan(range, usize::MAX, usize::MAX).await.unwrap();
    assert!(
        page.rows()
            .eq(expected.iter().map(|(key, value)| (&key[..], &value[..]))),
        "{} rows instead of {}",
        page.len(),
        expected.len()
    );
}

/// Fills the disk until a commit is refused; makes room; goes on.
async fn full_disk_is_survived(hide_free_space: bool) {
    let disk = SimDisk::new();
    disk.hide_free_space(hide_free_space);
    let store = open(&disk);
    // Some of it in the tree already.
    for n in 0..100 {
        assert_eq!(commit(&store, n).await.unwrap(), Outcome::Committed);
    }
    disk.set_capacity(Some(12 << 20));
    let mut count = 100;
    let error = loop {
        match commit(&store, count).await {
            Ok(outcome) => assert_eq!(outcome, Outcome::Committed),
            Err(error) => break error,
        }
        count += 1;
        assert!(count < 100_000, "the disk never became full");
    };
    assert!(matches!(error, Error::NoSpace), "{error}");
    // It stays so, reads go on, and nothing of what was refused is there.
    for _ in 0..3 {
        assert!(matches!(commit(&store, count).await, Err(Error::NoSpace)));
        assert_rows(&store, 0..count).await;
    }

    disk.set_capacity(Some(64 << 20));
    for n in count..count + 200 {
        assert_eq!(commit(&store, n).await.unwrap(), Outcome::Committed);
    }
    assert_rows(&store, 0..count + 200).await;
    drop(store);
    assert_rows(&open(&disk), 0..count + 200).await;
}

#[tokio::test]
async fn a_full_disk_is_survived() {
    full_disk_is_survived(false).await;
}

#[tokio::test]
async fn a_disk_that_becomes_full_in_the_middle_of_a_write_is_survived() {
    full_disk_is_survived(true).await;
}

#[tokio::test]
async fn a_refused_commit_does_not_come_back() {
    let disk = SimDisk::new();
    let store = open(&disk);
    for n in 0..10 {
        assert_eq!(commit(&store, n).await.unwrap(), Outcome::Committed);
    }
    disk.fail_writes(Some(ErrorKind::StorageFull));
    for n in 10..20 {
        let error = commit(&store, n).await.unwrap_err();
        // The disk refuses even to take the frame back.
        assert!(
            matches!(error, Error::Engine(_) | Error::NoSpace),
            "{error}"
        );
    }
    assert_rows(&store, 0..10).await;
    disk.fail_writes(None);
    assert_eq!(commit(&store, 20).await.unwrap(), Outcome::Committed);
    assert_rows(&store, (0..10).chain([20])).await;
    drop(store);
    assert_rows(&open(&disk), (0..10).chain([20])).await;
}

#[tokio::test]
async fn errors_of_the_disk_pass() {
    let disk = SimDisk::new();
    let store = open(&disk);
    let mut kept = Vec::new();
    for n in 0..300 {
        // Now and then for long enough to hit the way to the tree as well.
        disk.fail_writes((n % 50 > 40).then_some(ErrorKind::Other));
        if commit(&store, n).await.is_ok() {
            kept.push(n);
        }
        if n % 10 == 0 {
            assert_rows(&store, kept.iter().copied()).await;
        }
    }
    disk.fail_writes(None);
    assert!(kept.len() >= 240, "{}", kept.len());
    assert_rows(&store, kept.iter().copied()).await;
    drop(store);
    assert_rows(&open(&disk), kept.iter().copied()).await;
}
