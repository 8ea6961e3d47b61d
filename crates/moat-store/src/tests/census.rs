//! What the store tells of what KMS keys guard.

use std::sync::Arc;

use moat_crypto::Holding;
use moat_s3::request::{Conditions, SseRequest};
use moat_types::{BucketName, KeyName};

use super::world::{World, bucket, content, customer, key, kms};
use crate::census::count;

fn holding(name: &str, buckets: u64, objects: u64, bytes: u64) -> Holding {
    Holding {
        key: KeyName::parse(name).unwrap(),
        buckets,
        objects,
        bytes,
    }
}

#[tokio::test]
async fn objects_are_counted_under_the_key_that_guards_them() {
    let world = World::new().await;
    let alive = Arc::downgrade(&world.store);
    let counted = || count(&alive);
    assert_eq!(counted().await.unwrap(), Some(vec![]));

    for (at, name) in ["a", "b", "c"].iter().enumerate() {
        world.put(name, &content(1000, at as u64), kms("one")).await;
    }
    world.put("d", &content(100_000, 4), SseRequest::None).await;
    world
        .put("e", &content(10, 5), SseRequest::Customer(customer(7)))
        .await;
    let other = BucketName::parse("other").unwrap();
    world.store.create_bucket(&other, "", None).await.unwrap();
    world.put_in(&other, "f", &content(5, 6), kms("one")).await;
    assert_eq!(
        counted().await.unwrap(),
        Some(vec![
            holding("one", 2, 4, 3005),
            holding("default-key", 1, 1, 100_000)
        ])
    );

    // What is written anew under another key is under that one only.
    world.put("a", &content(1, 7), SseRequest::None).await;
    let gone = Conditions::default();
    let (bucket, gone_key) = (bucket(), key("b"));
    let deleted = world.store.delete_object(&bucket, &gone_key, &gone);
    assert!(deleted.await.unwrap());
    assert_eq!(
        counted().await.unwrap(),
        Some(vec![
            holding("default-key", 1, 2, 100_001),
            holding("one", 2, 2, 1005)
        ])
    );
}

#[tokio::test]
async fn the_lake_keeps_its_name() {
    let world = World::new().await;
    let first = world.store.lake().await.unwrap();
    assert_eq!(world.store.lake().await.unwrap(), first);
    assert_ne!(
        world.store.lake().await.unwrap(),
        World::new().await.store.lake().await.unwrap()
    );
}
