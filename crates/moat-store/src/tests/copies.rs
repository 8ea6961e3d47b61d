//! The encryption matrix: every pair of source and destination, copies and ranges, and nothing in
//! the clear in any file afterwards.

use moat_s3::ErrorCode;
use moat_s3::request::{Conditions, CustomerKey, SseRequest};

use super::world::{World, bucket, content, customer, key, kms};
use crate::copy::CopyRequest;
use crate::objects::Description;

/// The encryptions of the matrix, with the key that reads need.
fn schemes() -> [(&'static str, SseRequest, Option<CustomerKey>); 5] {
    [
        ("none asked", SseRequest::None, None),
        ("SSE-S3", SseRequest::S3, None),
        ("SSE-KMS a", kms("key-a"), None),
        ("SSE-KMS b", kms("key-b"), None),
        (
            "SSE-C",
            SseRequest::Customer(customer(7)),
            Some(customer(7)),
        ),
    ]
}

fn copy_of<'a>(
    source: &'a moat_types::ObjectKey,
    bucket: &'a moat_types::BucketName,
    object: &'a moat_types::ObjectKey,
    asked: SseRequest,
    source_customer: Option<CustomerKey>,
) -> CopyRequest<'a> {
    CopyRequest {
        source_bucket: bucket,
        source_object: source,
        source_customer,
        source_condition: Conditions::default(),
        bucket,
        object,
        asked,
        replace: None,
        storage_class: String::new(),
        condition: Conditions::default(),
    }
}

#[tokio::test]
async fn every_pair_of_encryptions_copies_without_moving_bytes() {
    let world = World::new().await;
    let bucket = bucket();
    for size in [0usize, 1, 5_000, 65_536, 300_000, 2_500_000] {
        let plain = content(size, size as u64 + 1);
        for (source_name, source_asked, source_key) in schemes() {
            let source = key(&format!("source-{size}-{source_name}"));
            world.put(source.as_str(), &plain, source_asked).await;
            for (target_name, target_asked, target_key) in schemes() {
                let case = format!("{size}: {source_name} to {target_name}");
                let target = key(&format!("copy-{case}"));
                let request = copy_of(&source, &bucket, &target, target_asked, source_key.clone());
                let written = world.store.copy_object(request).await.expect(&case);
                let read = world
                    .get(target.as_str(), target_key.as_ref())
                    .await
                    .expect(&case);
                assert!(read == plain, "{case}");
                let source_row = world
                    .store
                    .object(&bucket, &source)
                    .await
                    .unwrap()
                    .unwrap()
                    .1;
                assert_eq!(source_row.body, written.row.body, "{case}: bytes moved");
                if size > 10 {
                    let range = size as u64 / 3..size as u64 / 2;
                    let part = world
                        .get_range(target.as_str(), target_key.as_ref(), Some(range.clone()))
                        .await
                        .expect(&case);
                    assert!(
                        part == plain[range.start as usize..range.end as usize],
                        "{case}"
                    );
                }
            }
        }
    }
    assert_nothing_in_the_clear(&world, &[1, 5_000, 65_536, 300_000, 2_500_000]);
}

fn assert_nothing_in_the_clear(world: &World, sizes: &[usize]) {
    let mut needles: Vec<Vec<u8>> = vec![
        b"text/x-very-distinctive".to_vec(),
        b"distinctive-user-metadata".to_vec(),
    ];
    for &size in sizes.iter().filter(|size| **size >= 16) {
        let plain = content(size, size as u64 + 1);
        needles.push(plain[..16].to_vec());
        needles.push(plain[size - 16..].to_vec());
    }
    for (path, bytes) in world.raw_files() {
        for needle in &needles {
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{} holds {needle:?}", path.display());
        }
    }
}

#[tokio::test]
async fn a_copy_lives_on_when_its_source_is_deleted_and_the_last_one_frees_the_blob() {
    let world = World::new().await;
    let bucket = bucket();
    for size in [1_000usize, 500_000] {
        let plain = content(size, 3);
        let (source, copy) = (key("source"), key("copy"));
        world.put("source", &plain, kms("key-a")).await;
        let request = copy_of(&source, &bucket, &copy, SseRequest::None, None);
        world.store.copy_object(request).await.unwrap();
        world
            .store
            .delete_object(&bucket, &source, &Conditions::default())
            .await
            .unwrap();
        assert_eq!(world.get("copy", None).await.unwrap(), plain);
        world
            .store
            .delete_object(&bucket, &copy, &Conditions::default())
            .await
            .unwrap();
        let error = world.get("copy", None).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::NoSuchKey);
    }
}

#[tokio::test]
async fn a_copy_onto_itself_must_change_something() {
    let world = World::new().await;
    let bucket = bucket();
    let object = key("object");
    let plain = content(200_000, 5);
    world.put("object", &plain, SseRequest::None).await;
    let idle = copy_of(&object, &bucket, &object, SseRequest::None, None);
    let error = world.store.copy_object(idle).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidRequest);

    let mut replace = copy_of(&object, &bucket, &object, SseRequest::None, None);
    replace.replace = Some(Description {
        metadata: vec![("new".into(), b"value".to_vec())],
        ..Description::default()
    });
    let written = world.store.copy_object(replace).await.unwrap();
    assert_eq!(written.attributes.metadata.len(), 1);

    let rewrap = copy_of(&object, &bucket, &object, kms("key-b"), None);
    world.store.copy_object(rewrap).await.unwrap();
    assert_eq!(world.get("object", None).await.unwrap(), plain);
}

#[tokio::test]
async fn the_wrong_customer_key_is_refused_and_a_missing_one_asked_for() {
    let world = World::new().await;
    world
        .put("secret", b"content", SseRequest::Customer(customer(1)))
        .await;
    let wrong = world.get("secret", Some(&customer(2))).await.unwrap_err();
    assert_eq!(wrong.code(), ErrorCode::AccessDenied);
    let missing = world.get("secret", None).await.unwrap_err();
    assert_eq!(missing.code(), ErrorCode::InvalidRequest);
    world.put("plain", b"content", SseRequest::None).await;
    let needless = world.get("plain", Some(&customer(1))).await.unwrap_err();
    assert_eq!(needless.code(), ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn etags_look_like_an_md5_only_if_they_are_one() {
    let world = World::new().await;
    let s3 = world.put("s3", b"hello", SseRequest::S3).await;
    assert_eq!(s3.row.entry.etag, "5d41402abc4b2a76b9719d911017c592");
    for asked in [kms("key-a"), SseRequest::Customer(customer(1))] {
        let etag = world.put("opaque", b"hello", asked).await.row.entry.etag;
        let (digits, parts) = etag.split_once('-').expect("an opaque ETag has a hyphen");
        assert_eq!((digits.len(), parts), (32, "1"));
    }
}
