//! Wrapping epoch keys under a new version: nothing that is readable stops being so, and nothing
//! that was left out survives the old version.

use moat_s3::request::SseRequest;

use super::world::{World, bucket, content, kms};

/// Five epochs in one bucket: of four named keys and of the default key.
async fn five_epochs() -> World {
    let world = World::new().await;
    for (at, name) in ["a", "b", "c", "d"].iter().enumerate() {
        let asked = kms(&format!("key-{name}"));
        world.put(name, &content(100_000, at as u64), asked).await;
    }
    world.put("e", &content(1000, 4), SseRequest::None).await;
    world
}

#[tokio::test]
async fn pages_cover_every_epoch_once_and_an_old_version_is_then_not_needed() {
    let world = five_epochs().await;
    *world.ring.version.lock().unwrap() = 2;
    let (mut from, mut rewrapped, mut pages) = (None, 0, 0);
    loop {
        let page = world
            .store
            .rewrap_epochs(Some(&bucket()), from, 2)
            .await
            .unwrap();
        assert!(page.refused.is_empty());
        (rewrapped, pages) = (rewrapped + page.rewrapped, pages + 1);
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!((rewrapped, pages), (5, 4), "two, two, one and the end");
    assert_eq!(world.ring.rewraps.lock().unwrap().len(), 5);

    *world.ring.oldest.lock().unwrap() = 2;
    for (at, name) in ["a", "b", "c", "d"].iter().enumerate() {
        assert_eq!(
            world.get(name, None).await.unwrap(),
            content(100_000, at as u64)
        );
    }
    assert_eq!(world.get("e", None).await.unwrap(), content(1000, 4));

    // A repetition looks at each and changes nothing.
    let again = world.store.rewrap_epochs(None, None, 1000).await.unwrap();
    assert_eq!((again.examined, again.rewrapped), (5, 0));
}

#[tokio::test]
async fn what_was_not_rewrapped_is_lost_with_the_old_version() {
    let world = five_epochs().await;
    *world.ring.version.lock().unwrap() = 2;
    let page = world.store.rewrap_epochs(None, None, 2).await.unwrap();
    assert_eq!(page.rewrapped, 2);
    *world.ring.oldest.lock().unwrap() = 2;
    let mut readable = 0;
    for name in ["a", "b", "c", "d", "e"] {
        readable += usize::from(world.get(name, None).await.is_ok());
    }
    assert_eq!(readable, 2);
}

#[tokio::test]
async fn a_key_that_is_withheld_is_told_and_does_not_stop_the_others() {
    let world = five_epochs().await;
    *world.ring.version.lock().unwrap() = 3;
    world.ring.disabled.lock().unwrap().insert("key-b".into());
    let page = world.store.rewrap_epochs(None, None, 1000).await.unwrap();
    assert_eq!((page.examined, page.rewrapped), (5, 4));
    let [(name, key, version, reason)] = page.refused.as_slice() else {
        panic!("{:?}", page.refused);
    };
    assert_eq!(
        (name, key.as_str(), version.number()),
        (&bucket(), "key-b", 1)
    );
    assert!(reason.contains("disabled"), "{reason}");
    assert!(page.versions.values().all(|version| version.number() == 3));
}
