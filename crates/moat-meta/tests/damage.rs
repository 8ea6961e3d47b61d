//! What the log makes of torn and damaged bytes: a last frame that is not whole was never answered
//! for and is dropped; anything else that is not as it was written is refused.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;

use bytes::Bytes;
use moat_meta::{Embedded, Error, MetaStore, Options, Write};
use moat_testkit::sim_disk::{SimDisk, Unsynced};

const SEGMENT: &str = "log-0000000000000001";
const BLOCK: usize = 4_096;

fn open(disk: &SimDisk) -> Result<Embedded, Error> {
    Embedded::open_on(Arc::new(disk.clone()), Options::default())
}

async fn put(store: &Embedded, key: &str, length: usize) {
    let value = Bytes::from(vec![b'v'; length]);
    let writes = vec![Write::Put(Bytes::copy_from_slice(key.as_bytes()), value)];
    let _ = store.commit(vec![], writes).await.unwrap();
}

async fn keys(store: &Embedded) -> String {
    let range = Bytes::from("a")..Bytes::from("{");
    let page = store.scan(range, usize::MAX, usize::MAX).await.unwrap();
    let keys = page.rows().map(|(key, _)| String::from_utf8_lossy(key));
    keys.collect::<Vec<_>>().join("")
}

/// Three frames: `a` in block 1, `b` in blocks 2 and 3, `c` in block 4. The file is cut after
/// its last frame, to what a crash without recycling leaves.
async fn three_frames() -> SimDisk {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    put(&store, "a", 300).await;
    put(&store, "b", 5_000).await;
    put(&store, "c", 300).await;
    drop(store);
    let mut bytes = disk.contents(SEGMENT);
    assert!(bytes[5 * BLOCK..].iter().all(|byte| *byte == 0));
    bytes.truncate(5 * BLOCK);
    disk.set_contents(SEGMENT, bytes);
    disk
}

/// The same disk with other contents of the segment.
fn with(disk: &SimDisk, change: impl FnOnce(&mut Vec<u8>)) -> SimDisk {
    let copy = disk.after_power_cut(Unsynced::Kept);
    let mut bytes = disk.contents(SEGMENT);
    change(&mut bytes);
    copy.set_contents(SEGMENT, bytes);
    copy
}

fn assert_refused(disk: &SimDisk, word: &str) {
    match open(disk) {
        Err(Error::Corrupt(problem)) => assert!(problem.contains(word), "{problem}"),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("opened"),
    }
}

#[tokio::test]
async fn a_last_frame_torn_at_any_byte_is_dropped() {
    let disk = three_frames().await;
    // Where the last frame's own bytes end: header, write header, key, value.
    let start = 4 * BLOCK;
    let end = start + 32 + 7 + 1 + 300;
    for tear in start..=end {
        let expected = if tear == end { "abc" } else { "ab" };
        let zeroed = with(&disk, |bytes| bytes[tear..].fill(0));
        let store = open(&zeroed).unwrap();
        assert_eq!(keys(&store).await, expected, "zeros from byte {tear}");

        let cut = with(&disk, |bytes| bytes.truncate(tear));
        let store = open(&cut).unwrap();
        assert_eq!(keys(&store).await, expected, "cut at byte {tear}");
        // What comes next takes the torn frame's place, and is found again.
        put(&store, "d", 20).await;
        drop(store);
        let store = open(&cut).unwrap();
        assert_eq!(keys(&store).await, format!("{expected}d"));
    }
}

#[tokio::test]
async fn a_last_frame_whose_parts_arrived_in_any_order_is_dropped() {
    let disk = three_frames().await;
    let only_two = with(&disk, |bytes| bytes[4 * BLOCK..].fill(0));
    // The frame of two blocks is the last one now; any of its sectors may be missing.
    for sector in 0..BLOCK * 2 / 512 {
        let place = 2 * BLOCK + sector * 512;
        let torn = with(&only_two, |bytes| bytes[place..place + 512].fill(0));
        let store = open(&torn).unwrap();
        // The last sectors hold nothing but padding.
        let end = 2 * BLOCK + 32 + 7 + 1 + 5_000;
        let expected = if place < end { "a" } else { "ab" };
        assert_eq!(keys(&store).await, expected, "without sector {sector}");
    }
}

#[tokio::test]
async fn damage_before_the_last_frame_is_refused() {
    let disk = three_frames().await;
    for place in [BLOCK, BLOCK + 20, BLOCK + 40, 2 * BLOCK + 8, 3 * BLOCK + 10] {
        let damaged = with(&disk, |bytes| bytes[place] ^= 1);
        assert_refused(&damaged, "damaged");
    }
    for frame in [BLOCK..2 * BLOCK, 2 * BLOCK..4 * BLOCK] {
        let lost = with(&disk, |bytes| bytes[frame].fill(0));
        assert_refused(&lost, "damaged");
    }
}

#[tokio::test]
async fn a_damaged_segment_header_is_refused() {
    let disk = three_frames().await;
    for place in [0, 8, 16, 24, 40, 47] {
        let damaged = with(&disk, |bytes| bytes[place] ^= 1);
        assert_refused(&damaged, SEGMENT);
    }
    assert_refused(&with(&disk, |bytes| bytes.truncate(20)), "20 bytes long");
}

#[tokio::test]
async fn a_later_format_is_named() {
    let disk = three_frames().await;
    let later = with(&disk, |bytes| bytes[8] = 2);
    assert_refused(&later, "format 2");
}

#[tokio::test]
async fn swapped_frames_are_refused() {
    let disk = three_frames().await;
    let swapped = with(&disk, |bytes| {
        let first = bytes[BLOCK..2 * BLOCK].to_vec();
        let last = bytes[4 * BLOCK..5 * BLOCK].to_vec();
        bytes[BLOCK..2 * BLOCK].copy_from_slice(&last);
        bytes[4 * BLOCK..5 * BLOCK].copy_from_slice(&first);
    });
    assert_refused(&swapped, "belongs");
}

#[tokio::test]
async fn frames_of_an_earlier_use_of_the_file_are_not_read() {
    let disk = SimDisk::new();
    let options = Options {
        log_bytes: 8 << 10,
        ..Options::default()
    };
    let open = || Embedded::open_on(Arc::new(disk.clone()), options.clone()).unwrap();
    let mut expected = String::new();
    // Each file is used many times; after each commit, what lies behind the end is old.
    for n in 0..40 {
        let key = format!("{}", char::from(b'a' + n % 26));
        let store = open();
        put(&store, &key, 1_000 * (n as usize % 5)).await;
        if !expected.contains(&key) {
            expected.push_str(&key);
        }
        drop(store);
        assert_eq!(keys(&open()).await, expected);
    }
    let names = moat_meta::files::Files::list(&disk).unwrap();
    assert!(
        names.len() <= 4,
        "tree, two segments, one prepared: {names:?}"
    );
    assert!(!names.contains(&SEGMENT.to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_missing_segment_or_tree_is_refused() {
    use moat_meta::files::Files;

    let disk = three_frames().await;
    let bytes = disk.contents(SEGMENT);
    disk.remove(SEGMENT).unwrap();
    disk.set_contents("log-0000000000000002", bytes.clone());
    assert_refused(&disk, "is missing");
    disk.set_contents(SEGMENT, bytes);
    assert_refused(&disk, "is segment 1");

    let disk = three_frames().await;
    disk.remove("rows.redb").unwrap();
    assert_refused(&disk, "rows.redb is missing");
}
