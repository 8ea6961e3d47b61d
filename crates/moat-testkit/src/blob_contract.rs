//! What every blob engine promises (`moat_blob::BlobStore`).

use std::future::Future;
use std::sync::Arc;

use moat_blob::{BlobReader, BlobStore, BlobWriter, Error, PADDING_MAX};
use moat_types::{BlobId, SystemRandom};
use tokio::task::JoinSet;

/// Runs the whole suite. `empty` makes a store without blobs. Call it on a runtime with several
/// threads.
///
/// # Panics
/// When the engine breaks a promise.
pub async fn run<S: BlobStore, F: Future<Output = S>>(mut empty: impl FnMut() -> F) {
    blobs_of_every_size_come_back_whole(&empty().await).await;
    appends_of_every_size_are_joined_in_order(&empty().await).await;
    ranges_are_exact(&empty().await).await;
    a_read_past_the_end_is_short(&empty().await).await;
    a_blob_is_not_readable_before_finish(&empty().await).await;
    a_missing_blob_is_not_found(&empty().await).await;
    an_id_is_never_written_twice(&empty().await).await;
    delete_removes_and_may_be_repeated(&empty().await).await;
    an_open_blob_stays_readable_while_it_is_deleted(&empty().await).await;
    a_dropped_writer_leaves_nothing(&empty().await).await;
    a_wrong_size_hint_changes_nothing(&empty().await).await;
    many_writers_and_readers_do_not_mix(empty().await).await;
}

/// Lengths around the sizes at which engines split, gather or switch paths.
const SIZES: [usize; 16] = [
    0,
    1,
    4_095,
    4_096,
    65_535,
    65_537,
    (256 << 10) - 1,
    256 << 10,
    (256 << 10) + 1,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + 1,
    (2 << 20) - 1,
    (2 << 20) + 1,
    5 << 20,
    (9 << 20) + 3,
];

async fn blobs_of_every_size_come_back_whole(store: &impl BlobStore) {
    for size in SIZES {
        let id = write(store, &content(size), 64 << 10).await;
        let blob = store.open(id).await.unwrap();
        assert!(blob.read(0..size as u64).await.unwrap()[..] == content(size));
    }
}

async fn appends_of_every_size_are_joined_in_order(store: &impl BlobStore) {
    let content = content(3 << 20);
    for piece in [7_001, 8_191, 8_192, 1 << 20, 3 << 20] {
        let id = write(store, &content, piece).await;
        assert!(
            read_whole(store, id, content.len()).await == content,
            "pieces of {piece}"
        );
    }
    // Empty appends and odd ones between large ones.
    let id = BlobId::random(&SystemRandom);
    let mut writer = store.create(id, 0).await.unwrap();
    let mut rest = &content[..];
    for piece in [0, 1, 900_000, 0, 3, 8_192, 200_000, 5, 0].iter().cycle() {
        let (next, after) = rest.split_at(rest.len().min(*piece));
        writer.append(next).await.unwrap();
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(writer.finish().await.unwrap(), content.len() as u64);
    assert!(read_whole(store, id, content.len()).await == content);
}

async fn ranges_are_exact(store: &impl BlobStore) {
    let size = (2 << 20) + 77;
    let content = content(size);
    let id = write(store, &content, 100_000).await;
    let blob = store.open(id).await.unwrap();
    let size = size as u64;
    let ranges = [
        0..0,
        0..1,
        5..5,
        4_095..4_097,
        65_536..131_072,
        1..(256 << 10) + 1,
        0..(256 << 10) + 1,
        77..(1 << 20) + 78,
        size - 1..size,
        size..size,
        0..size,
    ];
    for range in ranges {
        let found = blob.read(range.clone()).await.unwrap();
        let expected = &content[range.start as usize..range.end as usize];
        assert!(&found[..] == expected, "range {range:?}");
    }
}

async fn a_read_past_the_end_is_short(store: &impl BlobStore) {
    let id = write(store, &content(1_000), 1_000).await;
    let blob = store.open(id).await.unwrap();
    for wanted in [1_001 + PADDING_MAX, 8_000, 1 << 20, 1 << 40, 1 << 62] {
        match blob.read(999..wanted).await {
            Err(Error::Short {
                id: named,
                found,
                wanted: asked,
            }) => {
                assert_eq!((named, asked), (id, wanted));
                assert!((1_000..=1_000 + PADDING_MAX).contains(&found), "{found}");
            }
            other => panic!("read up to {wanted}: {other:?}"),
        }
    }
}

async fn a_blob_is_not_readable_before_finish(store: &impl BlobStore) {
    let id = BlobId::random(&SystemRandom);
    let mut writer = store.create(id, 0).await.unwrap();
    assert_not_found(store, id).await;
    // More than any engine keeps in memory.
    for _ in 0..5 {
        writer.append(&content(1 << 20)).await.unwrap();
        assert_not_found(store, id).await;
    }
    assert_eq!(writer.finish().await.unwrap(), 5 << 20);
    assert_eq!(read_whole(store, id, 5 << 20).await.len(), 5 << 20);
}

async fn a_missing_blob_is_not_found(store: &impl BlobStore) {
    assert_not_found(store, BlobId::random(&SystemRandom)).await;
}

async fn an_id_is_never_written_twice(store: &impl BlobStore) {
    for size in [10, 3 << 20] {
        let id = write(store, &content(100), 100).await;
        // Some step on the way fails, at the latest the last.
        let again = async {
            let mut writer = store.create(id, 0).await?;
            writer.append(&content(size)).await?;
            writer.finish().await
        };
        match again.await {
            Err(Error::Exists(named)) => assert_eq!(named, id),
            other => panic!("a second blob of {size} bytes: {other:?}"),
        }
        assert!(
            read_whole(store, id, 100).await == content(100),
            "kept as it was"
        );
    }
}

async fn delete_removes_and_may_be_repeated(store: &impl BlobStore) {
    let id = write(store, &content(5_000), 5_000).await;
    let other = write(store, &content(6_000), 6_000).await;
    for _ in 0..2 {
        store.delete(id).await.unwrap();
        assert_not_found(store, id).await;
    }
    store.delete(BlobId::random(&SystemRandom)).await.unwrap();
    assert!(read_whole(store, other, 6_000).await == content(6_000));
}

async fn an_open_blob_stays_readable_while_it_is_deleted(store: &impl BlobStore) {
    let content = content(2 << 20);
    let id = write(store, &content, 1 << 20).await;
    let blob = store.open(id).await.unwrap();
    store.delete(id).await.unwrap();
    assert_not_found(store, id).await;
    assert!(blob.read(0..content.len() as u64).await.unwrap()[..] == content);
}

async fn a_dropped_writer_leaves_nothing(store: &impl BlobStore) {
    for size in [0, 100, 5 << 20] {
        let id = BlobId::random(&SystemRandom);
        let mut writer = store.create(id, size as u64).await.unwrap();
        if size > 0 {
            writer.append(&content(size)).await.unwrap();
        }
        drop(writer);
        assert_not_found(store, id).await;
        store.delete(id).await.unwrap();
        assert_not_found(store, id).await;
    }
}

async fn a_wrong_size_hint_changes_nothing(store: &impl BlobStore) {
    let content = content((1 << 20) + 5);
    for hint in [1, 1 << 20, 5 << 20, 1 << 40, u64::MAX] {
        let id = BlobId::random(&SystemRandom);
        let mut writer = store.create(id, hint).await.unwrap();
        writer.append(&content).await.unwrap();
        assert_eq!(writer.finish().await.unwrap(), content.len() as u64);
        assert!(
            read_whole(store, id, content.len()).await == content,
            "hint {hint}"
        );
        let blob = store.open(id).await.unwrap();
        let beyond = content.len() as u64 + PADDING_MAX + 1;
        assert!(matches!(
            blob.read(0..beyond).await,
            Err(Error::Short { .. })
        ));
    }
}

async fn many_writers_and_readers_do_not_mix(store: impl BlobStore) {
    let store = Arc::new(store);
    let mut tasks = JoinSet::new();
    for task in 0..32_usize {
        let store = store.clone();
        tasks.spawn(async move {
            let content = content(task * 50_000 + task);
            let id = write(&*store, &content, 70_000).await;
            assert!(read_whole(&*store, id, content.len()).await == content);
            store.delete(id).await.unwrap();
            assert_not_found(&*store, id).await;
        });
    }
    tasks.join_all().await;
}

async fn assert_not_found<S: BlobStore>(store: &S, id: BlobId) {
    match store.open(id).await {
        Err(Error::NotFound(named)) => assert_eq!(named, id),
        Err(other) => panic!("open: {other}"),
        Ok(_) => panic!("the blob can be opened"),
    }
}

async fn write(store: &impl BlobStore, content: &[u8], piece_bytes: usize) -> BlobId {
    let id = BlobId::random(&SystemRandom);
    let mut writer = store.create(id, content.len() as u64).await.unwrap();
    for piece in content.chunks(piece_bytes) {
        writer.append(piece).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap(), content.len() as u64);
    id
}

async fn read_whole(store: &impl BlobStore, id: BlobId, size: usize) -> Vec<u8> {
    let blob = store.open(id).await.unwrap();
    blob.read(0..size as u64).await.unwrap().to_vec()
}

/// Bytes that differ by place and by length, so that mixed-up pieces show.
fn content(size: usize) -> Vec<u8> {
    (0..size)
        .map(|n| (n ^ (n >> 8) ^ (n >> 16) ^ size) as u8)
        .collect()
}
