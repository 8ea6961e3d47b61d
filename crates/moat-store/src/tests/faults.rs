//! Damage, forgery, lost keys, broken uploads, and writers that race.

use std::sync::Arc;

use bytes::Bytes;
use moat_crypto::BlobLayout;
use moat_meta::{MetaStore, Write, prefix_end};
use moat_s3::ErrorCode;
use moat_s3::request::{Conditions, EtagCondition, SseRequest};
use moat_types::UnixMillis;

use super::world::{Pieces, World, bucket, content, key, kms};
use crate::objects::Description;
use crate::rows::{ObjectRow, keys};

async fn overwrite_row(world: &World, name: &str, change: impl FnOnce(&mut ObjectRow)) {
    let row_key = keys::object(&bucket(), &key(name));
    let row = world.store.meta.get(&row_key).await.unwrap().unwrap();
    let mut row = ObjectRow::decode(&row).unwrap();
    change(&mut row);
    let write = Write::Put(row_key, row.encode().into());
    let _ = world
        .store
        .meta
        .commit(Vec::new(), vec![write])
        .await
        .unwrap();
}

#[tokio::test]
async fn forged_rows_are_refused() {
    let world = World::new().await;
    let other = world
        .put("other", &content(100_000, 1), kms("key-a"))
        .await
        .row;
    type Forgery = Box<dyn FnOnce(&mut ObjectRow)>;
    let forgeries: Vec<(&str, Forgery)> = vec![
        ("size", Box::new(|row| row.entry.size -= 1)),
        ("time", Box::new(|row| row.entry.modified = UnixMillis(1))),
        ("etag", Box::new(|row| row.entry.etag.push('0'))),
        ("attributes", Box::new(|row| row.sealed_attributes[30] ^= 1)),
        (
            "wrapped key",
            Box::new(|row| row.envelope.wrapped.0[20] ^= 1),
        ),
        ("body", {
            let body = other.body;
            Box::new(move |row| row.body = body)
        }),
        ("row of another object", Box::new(move |row| *row = other)),
    ];
    for (what, forge) in forgeries {
        world
            .put("object", &content(100_000, 2), kms("key-a"))
            .await;
        overwrite_row(&world, "object", forge).await;
        let error = world.get("object", None).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::ObjectDamaged, "{what}");
    }
}

#[tokio::test]
async fn damaged_blob_files_never_yield_a_wrong_byte() {
    let world = World::new().await;
    let plain = content(3_000_000, 9);
    world.put("object", &plain, SseRequest::None).await;
    let (path, good) = world
        .raw_files()
        .into_iter()
        .filter(|(path, _)| path.starts_with(world.folder.path().join("blobs")))
        .max_by_key(|(_, bytes)| bytes.len())
        .expect("the object has a blob");
    // Zeros follow, to the end of the disk's block.
    let end = BlobLayout::new(plain.len() as u64).sealed_bytes() as usize;
    assert!(good.len() >= end);

    for at in [40, 70_000, good.len() / 2, end - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        std::fs::write(&path, &bad).unwrap();
        assert!(world.get("object", None).await.is_err(), "byte {at}");
        // Ranges that do not touch the damaged chunk are still good.
        let far = if at < good.len() / 2 {
            2_900_000..2_900_100
        } else {
            100..200
        };
        let read = world
            .get_range("object", None, Some(far.clone()))
            .await
            .unwrap();
        assert!(read == plain[far.start as usize..far.end as usize]);
    }
    for length in [0, 31, 32, 65_600, end - 1] {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(world.get("object", None).await.is_err(), "cut at {length}");
    }
    std::fs::remove_file(&path).unwrap();
    let error = world.get("object", None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ObjectDamaged);
}

#[tokio::test]
async fn a_disabled_key_makes_its_objects_unreadable_and_others_stay() {
    let world = World::new().await;
    world.put("a", b"content of a", kms("key-a")).await;
    world.put("b", b"content of b", kms("key-b")).await;
    world.ring.disabled.lock().unwrap().insert("key-a".into());
    let error = world.get("a", None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::KmsDisabled);
    assert!(error.public.message.contains("key-a"));
    assert_eq!(world.get("b", None).await.unwrap(), b"content of b");
    let error = world
        .try_put("a2", b"more", kms("key-a"), &Conditions::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::KmsDisabled);
    // Deleting needs no key.
    world
        .store
        .delete_object(&bucket(), &key("a"), &Conditions::default())
        .await
        .unwrap();
    let error = world
        .try_put("c", b"more", kms("missing"), &Conditions::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::KmsNotFound);
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let world = World::new().await;
    for size in [10usize, 100_000, 5_000_000] {
        let payload = Pieces::cut_short(&content(size, 4));
        let result = world
            .store
            .put_object(
                &bucket(),
                &key("broken"),
                SseRequest::None,
                Description::default(),
                &Conditions::default(),
                payload,
            )
            .await;
        assert_eq!(result.unwrap_err().code(), ErrorCode::IncompleteBody);
    }
    assert_eq!(
        world.get("broken", None).await.unwrap_err().code(),
        ErrorCode::NoSuchKey
    );
    wait_until(async || {
        let (start, end) = (Bytes::from_static(b"T"), prefix_end(b"T"));
        world
            .store
            .meta
            .scan(start..end, 10, 1000)
            .await
            .unwrap()
            .is_empty()
    })
    .await;
    let blobs = world.folder.path().join("blobs");
    let left: Vec<_> = world
        .raw_files()
        .into_iter()
        .filter(|(path, bytes)| path.starts_with(&blobs) && bytes.len() > 1000)
        .collect();
    assert!(
        left.is_empty(),
        "{:?}",
        left.iter().map(|(path, _)| path).collect::<Vec<_>>()
    );
}

async fn wait_until(mut done: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while !done().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_conditional_creators_one_wins() {
    let world = Arc::new(World::new().await);
    let condition = Conditions {
        if_none_match: Some(EtagCondition::Any),
        ..Conditions::default()
    };
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..16u8 {
        let (world, condition) = (Arc::clone(&world), condition.clone());
        tasks.spawn(async move {
            let content = vec![writer; 1000];
            world
                .try_put("contended", &content, SseRequest::None, &condition)
                .await
                .is_ok()
        });
    }
    let wins = tasks
        .join_all()
        .await
        .into_iter()
        .filter(|won| *won)
        .count();
    assert_eq!(wins, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_an_object_that_is_overwritten_see_one_whole_version() {
    let world = Arc::new(World::new().await);
    world
        .put("busy", &vec![0u8; 200_000], SseRequest::None)
        .await;
    let writer = {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            for round in 1..=30u8 {
                world
                    .put("busy", &vec![round; 200_000], SseRequest::None)
                    .await;
            }
        })
    };
    while !writer.is_finished() {
        let read = world.get("busy", None).await.expect("a version");
        assert!(
            read.len() == 200_000 && read.iter().all(|byte| *byte == read[0]),
            "mixed"
        );
    }
    writer.await.unwrap();
}
