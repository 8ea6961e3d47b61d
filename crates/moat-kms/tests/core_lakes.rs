//! What stores tell of what keys guard: who may tell what, what replaces what, and that it is bounded.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::time::Duration;

use moat_kms::Error;
use moat_kms::audit::Outcome;
use moat_kms_client::Privilege;
use moat_kms_client::wire::{Holding, LakeReport, PolicyDocument};
use moat_types::{Clock, LakeId};
use support::{World, audit, caller, identity, key, lake, root, scope};

fn report(age: Duration, holdings: &[(&str, u64)]) -> LakeReport {
    let holdings = holdings.iter().map(|(name, objects)| Holding {
        key: (*name).into(),
        buckets: 1,
        objects: *objects,
        bytes: 10 * objects,
    });
    LakeReport {
        age_ms: age.as_millis() as u64,
        holdings: holdings.collect(),
    }
}

fn policy(text: &str) -> PolicyDocument {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn the_last_count_of_each_lake_is_told_with_its_age() {
    let world = World::new();
    let core = world.open_with_key().await;
    let (root, enclave, k) = (root(), lake(), key("k"));
    let (one, two) = (LakeId::from_bytes([1; 16]), LakeId::from_bytes([2; 16]));
    let guarded = async || core.key_info_guarded(&root, &enclave, &k).await.unwrap().1;
    assert_eq!(guarded().await, []);

    world.clock.advance(Duration::from_secs(60));
    let lines = audit(&core, 100).await.len();
    let first = report(Duration::from_secs(5), &[("k", 7), ("unheard-of", 1)]);
    core.report_lake(&root, &enclave, one, &first)
        .await
        .unwrap();
    core.report_lake(&root, &enclave, two, &report(Duration::ZERO, &[("k", 1)]))
        .await
        .unwrap();
    // Reports are no lines in the audit; reading it is one.
    assert_eq!(audit(&core, 100).await.len(), lines + 1);

    let now = world.clock.now();
    let found = guarded().await;
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].lake, found[0].objects, found[0].bytes),
        (one, 7, 70)
    );
    assert_eq!(
        (now.0 - found[0].counted.0, now.0 - found[1].counted.0),
        (5000, 0)
    );

    // A new report takes the place of the whole old one.
    let later = report(Duration::ZERO, &[("other", 1)]);
    core.report_lake(&root, &enclave, one, &later)
        .await
        .unwrap();
    let lakes: Vec<_> = guarded().await.into_iter().map(|one| one.lake).collect();
    assert_eq!(lakes, [two]);

    // What is known survives a restart, and does not speak for a later key of the same name.
    core.close().await.unwrap();
    drop(core);
    let core = world.open().await;
    let guarded = async || core.key_info_guarded(&root, &enclave, &k).await.unwrap().1;
    assert_eq!(guarded().await.len(), 1);
    world.clock.advance(Duration::from_secs(1));
    core.delete_key(&root, &enclave, &k).await.unwrap();
    core.create_key(&root, &enclave, &k).await.unwrap();
    assert_eq!(guarded().await, []);
}

#[tokio::test]
async fn a_store_speaks_only_for_keys_that_it_may_open() {
    let world = World::new();
    let core = world.open_with_key().await;
    let (root, enclave) = (root(), lake());
    let shared = LakeId::from_bytes([1; 16]);
    for (number, name, pattern) in [(1, "a", "a-*"), (2, "b", "b-*")] {
        let rules = policy(&format!(r#"{{"allow": {{"EPOCH:OPEN": "{pattern}"}}}}"#));
        core.set_policy(&root, &scope(), &key(name), &rules)
            .await
            .unwrap();
        core.create_identity(
            &root,
            &scope(),
            &identity(number),
            Privilege::User,
            Some(&key(name)),
        )
        .await
        .unwrap();
        core.create_key(&root, &enclave, &key(&format!("{name}-key")))
            .await
            .unwrap();
    }
    world.clock.advance(Duration::from_secs(1));
    let (a, b) = (caller(identity(1)), caller(identity(2)));
    let both = report(Duration::ZERO, &[("a-key", 1), ("b-key", 1)]);
    core.report_lake(&a, &enclave, shared, &both).await.unwrap();
    let both = report(Duration::ZERO, &[("a-key", 5), ("b-key", 5)]);
    core.report_lake(&b, &enclave, shared, &both).await.unwrap();
    for (name, objects, by) in [("a-key", 1, 1), ("b-key", 5, 2)] {
        let (_, found) = core
            .key_info_guarded(&root, &enclave, &key(name))
            .await
            .unwrap();
        assert_eq!(
            (found.len(), found[0].objects, found[0].by),
            (1, objects, identity(by))
        );
    }

    // A stranger says nothing, and that stands in the audit.
    let refused = core
        .report_lake(&caller(identity(9)), &enclave, shared, &both)
        .await;
    assert!(matches!(refused, Err(Error::Denied { .. })));
    let line = audit(&core, 1).await.pop().unwrap();
    assert_eq!(line.outcome, Some(Outcome::Denied));
}

#[tokio::test]
async fn made_up_lakes_do_not_fill_the_state() {
    let world = World::new();
    let core = world.open_with_key().await;
    let (root, enclave, k) = (root(), lake(), key("k"));
    for number in 0..=100 {
        world.clock.advance(Duration::from_secs(1));
        let id = LakeId::from_bytes([number; 16]);
        core.report_lake(&root, &enclave, id, &report(Duration::ZERO, &[("k", 1)]))
            .await
            .unwrap();
    }
    let (_, found) = core.key_info_guarded(&root, &enclave, &k).await.unwrap();
    assert_eq!(found.len(), 64);
    let newest = LakeId::from_bytes([100; 16]);
    assert!(
        found.iter().any(|one| one.lake == newest),
        "the newest is among them"
    );

    let many: Vec<_> = (0..10_001).map(|n| format!("k{n}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), 1)).collect();
    let refused = core
        .report_lake(&root, &enclave, newest, &report(Duration::ZERO, &many))
        .await;
    assert!(matches!(refused, Err(Error::Count { .. })));

    core.delete_enclave(&root, &enclave).await.unwrap();
    core.create_enclave(&root, &enclave).await.unwrap();
    core.create_key(&root, &enclave, &k).await.unwrap();
    let (_, found) = core.key_info_guarded(&root, &enclave, &k).await.unwrap();
    assert_eq!(found, [], "they go with their enclave");
}
