//! What the core promises about keys beyond their first day: algorithms, import, versions that are
//! destroyed, deletion with and without a grace period, rotation on schedule, codes, batches.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::time::Duration;

use moat_kms::audit::Outcome;
use moat_kms::{
    Algorithm, BATCH_ITEMS_MAX, DELETION_GRACE, DELETION_GRACE_MAX, Decrypt, Encrypt, Error, Force,
    Generate, Import, ListQuery, Mac, NewKey, ROTATION_MIN, RateLimit,
};
use moat_types::{KeyVersion, SecretBytes};
use support::{World, audit, caller, identity, key, lake, root, scope};

const DAY: Duration = Duration::from_secs(86_400);

fn version(number: u32) -> KeyVersion {
    KeyVersion::new(number).unwrap()
}

fn import(algorithm: Algorithm, material: Vec<u8>) -> Import {
    Import {
        algorithm,
        material: SecretBytes::new(material),
        mac_material: None,
        exportable: false,
        add_version: false,
    }
}

#[tokio::test]
async fn keys_of_each_cipher_encrypt_and_codes_are_made_under_all() {
    let world = World::new();
    let core = world.open_with_key().await;
    let (root, lake) = (root(), lake());
    for (name, algorithm) in [
        ("aes", Algorithm::Aes256),
        ("chacha", Algorithm::ChaCha20),
        ("mac", Algorithm::HmacSha256),
    ] {
        let name = key(name);
        let new = NewKey {
            algorithm,
            ..NewKey::default()
        };
        let made = core.create_key_with(&root, &lake, &name, new).await;
        assert_eq!(made.unwrap().algorithm, algorithm);
        let data_key = core.generate_data_key(&root, &lake, &name, b"c", 32);
        if algorithm.encrypts() {
            let data_key = data_key.await.unwrap();
            let opened = core.decrypt(&root, &lake, &name, b"c", &data_key.ciphertext);
            assert_eq!(opened.await.unwrap().plaintext, data_key.plaintext);
        } else {
            assert!(matches!(data_key.await, Err(Error::KeyUsage { .. })));
        }
        let message = Mac {
            key: &name,
            version: None,
            message: b"m",
        };
        let code = core.mac(&root, &lake, message).await.unwrap().code;
        core.rotate_key(&root, &lake, &name).await.unwrap();
        let found = core.verify_mac(&root, &lake, message, &code).await;
        assert_eq!(found.unwrap(), Some(KeyVersion::FIRST));
        let other = Mac {
            message: b"n",
            ..message
        };
        let found = core.verify_mac(&root, &lake, other, &code).await;
        assert_eq!(found.unwrap(), None);
        let newest = Mac {
            version: Some(version(2)),
            ..message
        };
        let found = core.verify_mac(&root, &lake, newest, &code).await;
        assert_eq!(found.unwrap(), None);
    }
}

/// The vectors of the KES reference: what another key manager encrypted opens after the import of
/// its key, and what this one encrypts names its version.
#[tokio::test]
async fn imported_keys_open_what_was_encrypted_elsewhere() {
    let world = World::new();
    let core = world.open_with_key().await;
    let (root, lake, k) = (root(), lake(), key("k"));
    let context = br#"{"bucket":"bucket/object"}"#;
    for (name, algorithm, sealed) in [
        (
            "aes",
            Algorithm::Aes256,
            "a5092c1487a51041bcca8df77d720fb6b8cbdd6b0d7f1f0c898ac6e33fde184f9d07f892d29fbb54edaa973696639f7d",
        ),
        (
            "chacha",
            Algorithm::ChaCha20,
            "da7b85ce7bcaee9fd7d28a2e06b652db05428512e904f228a0e135323601f3aa4c34279b62f9092ee2c69ad3e5375f3c",
        ),
    ] {
        let name = key(name);
        let from_elsewhere = import(algorithm, (0..32).collect());
        let made = core
            .import_key(&root, &lake, &name, &from_elsewhere)
            .await
            .unwrap();
        assert_eq!((made.versions, made.algorithm), (1, algorithm));
        core.rotate_key(&root, &lake, &name).await.unwrap();
        let mut sealed = hex::decode(sealed).unwrap();
        sealed.extend(0xa0..=0xaf);
        sealed.extend(0xb0..=0xbb);
        let opened = core.decrypt(&root, &lake, &name, context, &sealed);
        let opened = opened.await.unwrap();
        assert_eq!(opened.plaintext.expose(), [0x11; 32]);
        assert_eq!(opened.version, KeyVersion::FIRST);
        let wrong_context = core.decrypt(&root, &lake, &name, b"{}", &sealed);
        assert!(matches!(
            wrong_context.await,
            Err(Error::InvalidCiphertext { .. })
        ));
        // A key that was made here never sealed such a thing.
        let own = core.decrypt(&root, &lake, &k, context, &sealed);
        assert!(matches!(own.await, Err(Error::InvalidCiphertext { .. })));
    }
    let again = core
        .import_key(
            &root,
            &lake,
            &key("aes"),
            &import(Algorithm::Aes256, vec![1; 32]),
        )
        .await;
    assert!(matches!(again, Err(Error::KeyExists { .. })));
    let added = Import {
        add_version: true,
        ..import(Algorithm::Aes256, vec![1; 32])
    };
    let added = core
        .import_key(&root, &lake, &key("aes"), &added)
        .await
        .unwrap();
    assert_eq!((added.version, added.versions), (version(3), 3));
    let short = core
        .import_key(
            &root,
            &lake,
            &key("short"),
            &import(Algorithm::Aes256, vec![1; 31]),
        )
        .await;
    assert!(matches!(short, Err(Error::KeyMaterial { length: 31, .. })));
}

#[tokio::test]
async fn a_destroyed_version_is_gone_and_its_number_is_not_given_again() {
    let world = World::new();
    let core = world.open_with_key().await;
    let (root, lake, k) = (root(), lake(), key("k"));
    let first = core.generate_data_key(&root, &lake, &k, b"", 32);
    let first = first.await.unwrap();
    core.rotate_key(&root, &lake, &k).await.unwrap();
    let second = core.generate_data_key(&root, &lake, &k, b"", 32);
    let second = second.await.unwrap();
    assert_eq!(second.version, version(2));

    // The latest, because none is named; the one before is the latest then.
    let left = core
        .delete_key_version(&root, &lake, &k, None, Force::No)
        .await;
    assert_eq!(left.unwrap().version, version(1));
    let refused = core.decrypt(&root, &lake, &k, b"", &second.ciphertext);
    assert!(matches!(
        refused.await,
        Err(Error::InvalidCiphertext { .. })
    ));
    let opened = core.decrypt(&root, &lake, &k, b"", &first.ciphertext);
    assert_eq!(opened.await.unwrap().plaintext, first.plaintext);
    let rotated = core.rotate_key(&root, &lake, &k).await.unwrap();
    assert_eq!(rotated.version, version(3));

    let missing = core
        .delete_key_version(&root, &lake, &k, Some(version(2)), Force::No)
        .await;
    assert!(matches!(missing, Err(Error::KeyVersionNotFound { .. })));
    core.delete_key_version(&root, &lake, &k, Some(version(1)), Force::No)
        .await
        .unwrap();
    // The only one would take the key with it, past its grace period.
    let only = core
        .delete_key_version(&root, &lake, &k, None, Force::No)
        .await;
    assert!(matches!(only, Err(Error::KeyLastVersion { version: left, .. }) if left == version(3)));
    core.key_info(&root, &lake, &k).await.unwrap();
    core.delete_key_version(&root, &lake, &k, None, Force::Yes)
        .await
        .unwrap();
    let gone = core.key_info(&root, &lake, &k).await;
    assert!(matches!(gone, Err(Error::KeyNotFound { .. })));
}

#[tokio::test]
async fn a_deleted_key_can_be_restored_until_its_grace_period_is_over() {
    let world = World::new();
    let core = world.open_with_key().await;
    let (root, lake, k) = (root(), lake(), key("k"));
    let data_key = core.generate_data_key(&root, &lake, &k, b"", 32);
    let data_key = data_key.await.unwrap();
    let too_long = DELETION_GRACE_MAX + Duration::from_secs(1);
    let refused = core.schedule_key_deletion(&root, &lake, &k, too_long).await;
    assert!(matches!(refused, Err(Error::Grace)));
    let pending = core
        .schedule_key_deletion(&root, &lake, &k, DELETION_GRACE)
        .await
        .unwrap();
    let due = pending.deletion.unwrap().due;
    assert_eq!(due.0 - pending.created.at.0, 7 * 86_400_000);
    let used = core.decrypt(&root, &lake, &k, b"", &data_key.ciphertext);
    assert!(matches!(used.await, Err(Error::KeyDeleting { .. })));
    let taken = core.create_key(&root, &lake, &k).await;
    assert!(matches!(taken, Err(Error::KeyExists { .. })));

    world.clock.advance(6 * DAY);
    assert_eq!(core.do_what_is_due().await.unwrap(), 0);
    core.restore_key(&root, &lake, &k).await.unwrap();
    world.clock.advance(2 * DAY);
    assert_eq!(core.do_what_is_due().await.unwrap(), 0);
    let opened = core.decrypt(&root, &lake, &k, b"", &data_key.ciphertext);
    assert_eq!(opened.await.unwrap().plaintext, data_key.plaintext);

    core.schedule_key_deletion(&root, &lake, &k, DELETION_GRACE)
        .await
        .unwrap();
    world.clock.advance(7 * DAY);
    // Gone at once, before anything was swept.
    let gone = core.restore_key(&root, &lake, &k).await;
    assert!(matches!(gone, Err(Error::KeyNotFound { .. })));
    let listed = core.list_keys(&root, &lake, &ListQuery::default()).await;
    assert!(listed.unwrap().items.is_empty());
    assert_eq!(core.do_what_is_due().await.unwrap(), 1);
    assert_eq!(core.do_what_is_due().await.unwrap(), 0);
    let line = audit(&core, 1).await.pop().unwrap();
    assert_eq!(line.operation.as_deref(), Some("KEY:DELETE"));
    assert_eq!(line.subject.as_deref(), Some("the grace period is over"));
    assert_eq!(
        (line.identity, line.outcome),
        (None, Some(Outcome::Allowed))
    );

    // A new key of the name is another key.
    core.create_key(&root, &lake, &k).await.unwrap();
    let old = core.decrypt(&root, &lake, &k, b"", &data_key.ciphertext);
    assert!(matches!(old.await, Err(Error::InvalidCiphertext { .. })));
    core.delete_key(&root, &lake, &k).await.unwrap();
    let gone = core.key_info(&root, &lake, &k).await;
    assert!(matches!(gone, Err(Error::KeyNotFound { .. })));
}

#[tokio::test]
async fn a_name_whose_grace_period_is_over_is_free_before_it_is_swept() {
    let world = World::new();
    let core = world.open_with_key().await;
    let (root, lake, k) = (root(), lake(), key("k"));
    core.schedule_key_deletion(&root, &lake, &k, DAY)
        .await
        .unwrap();
    world.clock.advance(DAY);
    core.create_key(&root, &lake, &k).await.unwrap();
    assert_eq!(core.do_what_is_due().await.unwrap(), 0);
    core.key_info(&root, &lake, &k).await.unwrap();
}

#[tokio::test]
async fn keys_rotate_on_schedule_unless_they_are_disabled() {
    let world = World::new();
    let core = world.open_with_key().await;
    let (root, lake, name) = (root(), lake(), key("r"));
    let new = NewKey {
        rotation: Some(Duration::from_secs(1)),
        ..NewKey::default()
    };
    let often = core.create_key_with(&root, &lake, &name, new).await;
    assert!(matches!(often, Err(Error::Rotation)));
    let new = NewKey {
        rotation: Some(ROTATION_MIN),
        ..NewKey::default()
    };
    core.create_key_with(&root, &lake, &name, new)
        .await
        .unwrap();
    assert_eq!(core.do_what_is_due().await.unwrap(), 0);
    world.clock.advance(ROTATION_MIN);
    assert_eq!(core.do_what_is_due().await.unwrap(), 1);
    let info = core.key_info(&root, &lake, &name).await.unwrap();
    assert_eq!(info.version, version(2));
    assert_eq!(audit(&core, 2).await[0].identity, None);

    core.disable_key(&root, &lake, &name).await.unwrap();
    world.clock.advance(ROTATION_MIN);
    assert_eq!(core.do_what_is_due().await.unwrap(), 0);
    core.enable_key(&root, &lake, &name).await.unwrap();
    assert_eq!(core.do_what_is_due().await.unwrap(), 1);

    core.set_key_rotation(&root, &lake, &name, None)
        .await
        .unwrap();
    world.clock.advance(2 * ROTATION_MIN);
    assert_eq!(core.do_what_is_due().await.unwrap(), 0);
    core.set_key_rotation(&root, &lake, &name, Some(ROTATION_MIN))
        .await
        .unwrap();
    assert_eq!(core.do_what_is_due().await.unwrap(), 1);
    let info = core.key_info(&root, &lake, &name).await.unwrap();
    assert_eq!((info.version, info.versions), (version(4), 4));
}

#[tokio::test]
async fn only_keys_that_were_made_for_it_are_exported() {
    let world = World::new();
    let core = world.open_with_key().await;
    let refused = core.export_key(&root(), &lake(), &key("k")).await;
    assert!(matches!(refused, Err(Error::KeyNotExportable { .. })));
    let given = Import {
        exportable: true,
        ..import(Algorithm::ChaCha20, (0..32).collect())
    };
    core.import_key(&root(), &lake(), &key("e"), &given)
        .await
        .unwrap();
    core.rotate_key(&root(), &lake(), &key("e")).await.unwrap();
    let versions = core.export_key(&root(), &lake(), &key("e")).await.unwrap();
    assert_eq!(versions.len(), 2);
    assert_eq!(versions[0].material, given.material);
    let line = audit(&core, 1).await.pop().unwrap();
    assert_eq!(line.operation.as_deref(), Some("KEY:EXPORT"));
}

#[tokio::test]
async fn batches_are_decided_item_by_item_and_each_has_a_line() {
    let world = World::new();
    let core = world.open_with_key().await;
    let (root, lake) = (root(), lake());
    let (k, absent) = (key("k"), key("absent"));
    let item = |key, version, length| Generate {
        key,
        version,
        context: b"c",
        length,
    };
    let items = [
        item(&k, None, 32),
        item(&absent, None, 32),
        item(&k, Some(version(1)), 16),
        item(&k, Some(version(2)), 16),
        item(&k, None, 2000),
    ];
    let made = core.generate_many(&root, &lake, &items).await.unwrap();
    assert!(matches!(made[1], Err(Error::KeyNotFound { .. })));
    assert!(matches!(made[3], Err(Error::KeyVersionNotFound { .. })));
    assert!(matches!(made[4], Err(Error::Length { .. })));
    let outcomes: Vec<_> = audit(&core, 5).await.iter().map(|l| l.outcome).collect();
    let (allowed, error) = (Some(Outcome::Allowed), Some(Outcome::Error));
    assert_eq!(outcomes, [allowed, error, allowed, error, error]);

    let sealed: Vec<_> = made.iter().flatten().collect();
    let items = sealed.iter().map(|made| Decrypt {
        key: &k,
        version: None,
        context: b"c",
        ciphertext: &made.ciphertext,
    });
    let items: Vec<_> = items.collect();
    let opened = core.decrypt_many(&root, &lake, &items).await.unwrap();
    for (opened, made) in opened.iter().zip(&sealed) {
        assert_eq!(opened.as_ref().unwrap().plaintext, made.plaintext);
    }
    let wrong_version = Decrypt {
        version: Some(version(2)),
        ..items[0]
    };
    let refused = core.decrypt_many(&root, &lake, &[wrong_version]).await;
    assert!(matches!(
        refused.unwrap()[0],
        Err(Error::InvalidCiphertext { .. })
    ));

    let plaintext = SecretBytes::new(vec![1; 100]);
    let secret = Encrypt {
        key: &k,
        version: None,
        context: b"",
        plaintext: &plaintext,
    };
    let many = vec![secret; BATCH_ITEMS_MAX + 1];
    let refused = core.encrypt_many(&root, &lake, &many).await;
    assert!(matches!(refused, Err(Error::Count { .. })));
    let most = core.encrypt_many(&root, &lake, &many[1..]).await.unwrap();
    assert!(most.len() == BATCH_ITEMS_MAX && most.iter().all(Result::is_ok));
    assert!(
        core.generate_many(&root, &lake, &[])
            .await
            .unwrap()
            .is_empty()
    );

    // A stranger gets a refusal for each, whether or not the key exists.
    let stranger = caller(identity(9));
    let items = [item(&k, None, 32), item(&absent, None, 32)];
    let refused = core.generate_many(&stranger, &lake, &items).await.unwrap();
    assert!(
        refused
            .iter()
            .all(|r| matches!(r, Err(Error::Denied { .. })))
    );
    let lines = audit(&core, 2).await;
    assert!(lines.iter().all(|l| l.outcome == Some(Outcome::Denied)));
    assert_eq!(lines[1].key.as_deref(), Some("absent"));
    assert_eq!(lines[1].enclave.as_deref(), Some(scope().as_str()));
}

#[tokio::test]
async fn an_identity_that_asks_too_often_is_told_when_to_ask_again() {
    let world = World::new();
    let core = world.open_with_key().await;
    let (root, lake, k) = (root(), lake(), key("k"));
    core.set_rate_limit(Some(RateLimit {
        per_second: 1,
        burst: 5,
    }));
    let item = Generate {
        key: &k,
        version: None,
        context: b"",
        length: 32,
    };
    let made = core.generate_many(&root, &lake, &[item; 30]).await;
    assert_eq!(made.unwrap().len(), 30);
    let refused = core.key_info(&root, &lake, &k).await;
    let Err(Error::RateLimited { retry_after, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        (20..=26).contains(&retry_after.as_secs()),
        "{retry_after:?}"
    );
    // Another one is not held back, though it may do nothing here.
    let stranger = core.key_info(&caller(identity(9)), &lake, &k).await;
    assert!(matches!(stranger, Err(Error::Denied { .. })));
    core.set_rate_limit(None);
    let line = audit(&core, 2).await.swap_remove(0);
    assert_eq!(line.outcome, Some(Outcome::Error));
    core.key_info(&root, &lake, &k).await.unwrap();
}

#[tokio::test]
async fn refusals_for_asking_too_often_are_few_lines_that_say_how_many_they_were() {
    let world = World::new();
    let core = world.open_with_key().await;
    let (root, lake, k) = (root(), lake(), key("k"));
    core.set_rate_limit(Some(RateLimit {
        per_second: 1,
        burst: 1,
    }));
    core.key_info(&root, &lake, &k).await.unwrap();
    let started = std::time::Instant::now();
    for _ in 0..500 {
        let refused = core.key_info(&root, &lake, &k).await;
        assert!(matches!(refused, Err(Error::RateLimited { .. })));
    }
    let seconds = 1 + started.elapsed().as_secs() as usize;
    core.close().await.unwrap();
    drop(core);

    let core = world.open().await;
    let lines = audit(&core, 1000).await;
    let refused = lines.iter().filter(|l| l.outcome == Some(Outcome::Error));
    let reasons: Vec<_> = refused.filter_map(|line| line.reason.clone()).collect();
    assert!(reasons.len() <= 1 + seconds, "{reasons:?}");
    let others = reasons.iter().filter_map(|reason| {
        let (_, count) = reason.split_once("(and ")?;
        count.split_once(' ')?.0.parse::<usize>().ok()
    });
    assert_eq!(reasons.len() + others.sum::<usize>(), 500, "{reasons:?}");
}
