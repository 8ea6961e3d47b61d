//! What the core promises, over the embedded engine: keys and leases work and stay bound to their
//! names, rights are checked on every call, everything is in the audit, and the state opens only
//! under its HSM key.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Arc;
use std::time::Duration;

use moat_kms::audit::{AuditConfig, Filter, Outcome, Verification, show, verify};
use moat_kms::{Caller, Core, CoreConfig, DenyReason, Error, HsmKey, ListQuery, OpenError, Scope};
use moat_kms_client::wire::PolicyDocument;
use moat_kms_client::{Identity, Privilege};
use moat_meta::{Embedded, Options};
use moat_types::{
    BucketName, EnclaveName, EpochId, KeyName, SecretBytes, SystemClock, SystemRandom,
};

const ROOT: Identity = Identity::from_spki_sha256([0; 32]);

struct World {
    folder: tempfile::TempDir,
    hsm: String,
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            hsm: HsmKey::generate(&SystemRandom)
                .to_text()
                .expose()
                .to_owned(),
        }
    }

    async fn open(&self) -> Result<Arc<Core<Embedded>>, OpenError> {
        self.open_with(&self.hsm).await
    }

    async fn open_with(&self, hsm: &str) -> Result<Arc<Core<Embedded>>, OpenError> {
        let store = Embedded::open(self.folder.path().join("state"), Options::default()).unwrap();
        let config = CoreConfig {
            hsm: Box::new(HsmKey::parse(hsm).unwrap()),
            root: Some(ROOT),
            lease_ttl: Duration::from_secs(300),
            audit: AuditConfig::new(self.folder.path().join("audit")),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        };
        Core::open(store, config).await
    }
}

fn caller(identity: Identity) -> Caller {
    Caller {
        identity,
        source: "127.0.0.1:4711".into(),
        request_id: "R".into(),
    }
}

fn root() -> Caller {
    caller(ROOT)
}

fn enclave() -> EnclaveName {
    EnclaveName::parse("lake").unwrap()
}

fn key(name: &str) -> KeyName {
    KeyName::parse(name).unwrap()
}

fn bucket(name: &str) -> BucketName {
    BucketName::parse(name).unwrap()
}

async fn with_key(world: &World) -> Arc<Core<Embedded>> {
    let core = world.open().await.unwrap();
    core.create_enclave(&root(), &enclave()).await.unwrap();
    core.create_key(&root(), &enclave(), &key("k"))
        .await
        .unwrap();
    core
}

#[tokio::test]
async fn a_lease_survives_a_restart_and_opens_only_in_its_place() {
    let world = World::new();
    let core = with_key(&world).await;
    let epoch = EpochId::from_bytes([5; 16]);
    let made = core
        .generate_epoch(&root(), &enclave(), &key("k"), &bucket("sales"), epoch)
        .await
        .unwrap();
    core.close().await.unwrap();
    drop(core);

    let core = world.open().await.unwrap();
    let opened = core
        .open_epoch(
            &root(),
            &enclave(),
            &key("k"),
            &bucket("sales"),
            epoch,
            &made.wrapped,
        )
        .await
        .unwrap();
    assert_eq!(opened.key, made.key);
    core.create_key(&root(), &enclave(), &key("l"))
        .await
        .unwrap();
    for (name, bucket_name, id) in [
        ("l", "sales", epoch),
        ("k", "other", epoch),
        ("k", "sales", EpochId::from_bytes([6; 16])),
    ] {
        let refused = core
            .open_epoch(
                &root(),
                &enclave(),
                &key(name),
                &bucket(bucket_name),
                id,
                &made.wrapped,
            )
            .await;
        assert!(
            matches!(refused, Err(Error::InvalidCiphertext { .. })),
            "{refused:?}"
        );
    }
    let as_data = core
        .decrypt(&root(), &enclave(), &key("k"), b"", &made.wrapped)
        .await;
    assert!(matches!(as_data, Err(Error::InvalidCiphertext { .. })));
}

#[tokio::test]
async fn rotation_wraps_anew_and_opens_what_was_before() {
    let world = World::new();
    let core = with_key(&world).await;
    let context = b"{\"a\":\"b\"}";
    let old = core
        .generate_data_key(&root(), &enclave(), &key("k"), context, 32)
        .await
        .unwrap();
    let info = core
        .rotate_key(&root(), &enclave(), &key("k"))
        .await
        .unwrap();
    assert_eq!(info.version.number(), 2);
    let secret = SecretBytes::new(b"small".to_vec());
    let new = core
        .encrypt(&root(), &enclave(), &key("k"), context, &secret)
        .await
        .unwrap();
    assert_eq!((old.version.number(), new.version.number()), (1, 2));
    for (ciphertext, expected, version) in [
        (&old.ciphertext, &old.plaintext, 1),
        (&new.ciphertext, &secret, 2),
    ] {
        let opened = core
            .decrypt(&root(), &enclave(), &key("k"), context, ciphertext)
            .await
            .unwrap();
        assert_eq!(&opened.plaintext, expected);
        assert_eq!(opened.version.number(), version);
        let moved = core
            .decrypt(&root(), &enclave(), &key("k"), b"{}", ciphertext)
            .await;
        assert!(matches!(moved, Err(Error::InvalidCiphertext { .. })));
    }
    let versions = core
        .key_versions(&root(), &enclave(), &key("k"))
        .await
        .unwrap();
    assert_eq!(versions.len(), 2);
}

#[tokio::test]
async fn a_disabled_key_is_refused_by_name_until_it_is_enabled() {
    let world = World::new();
    let core = with_key(&world).await;
    let epoch = EpochId::from_bytes([5; 16]);
    let made = core
        .generate_epoch(&root(), &enclave(), &key("k"), &bucket("sales"), epoch)
        .await
        .unwrap();
    let info = core
        .disable_key(&root(), &enclave(), &key("k"))
        .await
        .unwrap();
    assert!(info.disabled.is_some());
    let refused = core
        .open_epoch(
            &root(),
            &enclave(),
            &key("k"),
            &bucket("sales"),
            epoch,
            &made.wrapped,
        )
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), "KMS key k is disabled");
    let refused = core
        .generate_epoch(&root(), &enclave(), &key("k"), &bucket("sales"), epoch)
        .await;
    assert!(matches!(refused, Err(Error::KeyDisabled { .. })));
    core.enable_key(&root(), &enclave(), &key("k"))
        .await
        .unwrap();
    core.open_epoch(
        &root(),
        &enclave(),
        &key("k"),
        &bucket("sales"),
        epoch,
        &made.wrapped,
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn listings_page_inclusively_and_show_what_the_policy_lets_see() {
    let world = World::new();
    let core = with_key(&world).await;
    for name in ["a1", "a2", "a3", "b1"] {
        core.create_key(&root(), &enclave(), &key(name))
            .await
            .unwrap();
    }
    let query = |prefix: &str, from: &str, limit| ListQuery {
        prefix: prefix.into(),
        from: from.into(),
        limit,
    };
    let names = async |who: &Caller, query: ListQuery| {
        let page = core.list_keys(who, &enclave(), &query).await.unwrap();
        let names: Vec<String> = page.items.iter().map(|k| k.name.to_string()).collect();
        (names.join(" "), page.next)
    };
    let all = names(&root(), query("", "", 0)).await;
    assert_eq!(all, ("a1 a2 a3 b1 k".into(), None));
    let first = names(&root(), query("a", "", 2)).await;
    assert_eq!(first, ("a1 a2".into(), Some("a3".into())));
    let second = names(&root(), query("a", "a3", 2)).await;
    assert_eq!(second, ("a3".into(), None));

    let user = Identity::from_spki_sha256([3; 32]);
    let scope = Scope::Enclave(enclave());
    let document: PolicyDocument =
        serde_json::from_str(r#"{"allow":{"KEY:LIST":"a*"},"deny":{"KEY:LIST":"a2"}}"#).unwrap();
    core.set_policy(&root(), &scope, &key("p"), &document)
        .await
        .unwrap();
    core.create_identity(&root(), &scope, &user, Privilege::User, Some(&key("p")))
        .await
        .unwrap();
    let seen = names(&caller(user), query("", "", 0)).await;
    assert_eq!(seen, ("a1 a3".into(), None));
}

#[tokio::test]
async fn every_right_is_checked_and_every_refusal_is_in_the_audit() {
    let world = World::new();
    let core = with_key(&world).await;
    let scope = Scope::Enclave(enclave());
    let (admin, user, stranger, other) = (
        Identity::from_spki_sha256([1; 32]),
        Identity::from_spki_sha256([2; 32]),
        Identity::from_spki_sha256([3; 32]),
        Identity::from_spki_sha256([4; 32]),
    );
    let other_enclave = EnclaveName::parse("other").unwrap();
    core.create_enclave(&root(), &other_enclave).await.unwrap();
    core.create_identity(&root(), &scope, &admin, Privilege::Admin, None)
        .await
        .unwrap();
    let other_scope = Scope::Enclave(other_enclave.clone());
    core.create_identity(&root(), &other_scope, &other, Privilege::Admin, None)
        .await
        .unwrap();
    let document: PolicyDocument =
        serde_json::from_str(r#"{"allow":{"EPOCH:OPEN":"k","IDENTITY:CREATE":"*"}}"#).unwrap();
    core.set_policy(&caller(admin), &scope, &key("p"), &document)
        .await
        .unwrap();
    core.create_identity(
        &caller(admin),
        &scope,
        &user,
        Privilege::User,
        Some(&key("p")),
    )
    .await
    .unwrap();

    let epoch = EpochId::from_bytes([5; 16]);
    let lease = |who| {
        let core = core.clone();
        async move {
            let who = caller(who);
            core.generate_epoch(&who, &enclave(), &key("k"), &bucket("sales"), epoch)
                .await
        }
    };
    let reason = |result: Result<_, Error>| match result {
        Err(Error::Denied { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    lease(admin).await.unwrap();
    assert_eq!(reason(lease(user).await), DenyReason::NotAllowed);
    assert_eq!(reason(lease(stranger).await), DenyReason::UnknownIdentity);
    assert_eq!(reason(lease(other).await), DenyReason::UnknownIdentity);
    // A missing enclave looks to a stranger like one that it may not use.
    let nowhere = EnclaveName::parse("nowhere").unwrap();
    let asked = core.key_info(&caller(stranger), &nowhere, &key("k")).await;
    assert!(matches!(asked, Err(Error::Denied { .. })), "{asked:?}");
    // A user can't raise anyone above itself, an Admin can't leave its enclave.
    let fresh = Identity::from_spki_sha256([9; 32]);
    let raised = core
        .create_identity(&caller(user), &scope, &fresh, Privilege::Admin, None)
        .await;
    assert!(matches!(
        raised,
        Err(Error::Denied {
            reason: DenyReason::NeedsAdmin,
            ..
        })
    ));
    assert!(matches!(
        core.create_enclave(&caller(admin), &nowhere).await,
        Err(Error::Denied { .. })
    ));
    // An identity is of one enclave only.
    let twice = core
        .create_identity(&root(), &other_scope, &user, Privilege::User, None)
        .await;
    assert!(matches!(twice, Err(Error::IdentityExists { .. })));
    // Taking the policy away ends the rights at once.
    core.assign_policy(&caller(admin), &scope, &user, None)
        .await
        .unwrap();
    assert_eq!(reason(lease(user).await), DenyReason::NoPolicy);

    core.close().await.unwrap();
    let folder = world.folder.path().join("audit");
    let denied: Vec<_> = show(&folder, Filter::default())
        .unwrap()
        .map(Result::unwrap)
        .filter(|line| line.outcome == Some(Outcome::Denied))
        .map(|line| line.identity.unwrap())
        .collect();
    let expected = [user, stranger, other, stranger, user, admin, user];
    assert_eq!(denied, expected.map(|identity| identity.to_string()));
    let against = Verification {
        public_key: Some(*core.audit_public_key()),
        anchor: core.audit_anchor(),
    };
    assert_eq!(verify(&folder, &against).unwrap().problem, None);
}

#[tokio::test]
async fn a_lease_is_audited_with_all_that_it_was_for() {
    let world = World::new();
    let core = with_key(&world).await;
    let epoch = EpochId::from_bytes([5; 16]);
    core.generate_epoch(&root(), &enclave(), &key("k"), &bucket("sales"), epoch)
        .await
        .unwrap();
    let filter = Filter {
        operation: Some("EPOCH:GENERATE".into()),
        ..Filter::default()
    };
    let lines = core.audit_tail(&root(), filter, 10).await.unwrap();
    let [line] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    assert_eq!(line.identity.as_deref(), Some(ROOT.to_string().as_str()));
    assert_eq!(line.source.as_deref(), Some("127.0.0.1:4711"));
    assert_eq!(line.enclave.as_deref(), Some("lake"));
    assert_eq!((line.key.as_deref(), line.version), (Some("k"), Some(1)));
    assert_eq!(line.bucket.as_deref(), Some("sales"));
    assert_eq!(line.epoch.as_deref(), Some(epoch.to_string().as_str()));
    assert_eq!(line.context.as_ref().map(String::len), Some(64));
    assert_eq!(line.outcome, Some(Outcome::Allowed));
}

#[tokio::test]
async fn another_hsm_key_is_refused_and_changes_nothing() {
    let world = World::new();
    let core = with_key(&world).await;
    core.close().await.unwrap();
    drop(core);
    let before = snapshot(&world).await;
    let other = HsmKey::generate(&SystemRandom);
    let refused = world.open_with(other.to_text().expose()).await.err();
    assert!(
        matches!(refused, Some(OpenError::WrongHsmKey)),
        "{refused:?}"
    );
    assert_eq!(snapshot(&world).await, before);
    let core = world.open().await.unwrap();
    core.key_info(&root(), &enclave(), &key("k")).await.unwrap();
}

#[tokio::test]
async fn nothing_on_disk_holds_a_released_key_and_a_swapped_row_does_not_open() {
    let world = World::new();
    let core = with_key(&world).await;
    core.create_key(&root(), &enclave(), &key("l"))
        .await
        .unwrap();
    let made = core
        .generate_data_key(&root(), &enclave(), &key("k"), b"", 32)
        .await
        .unwrap();
    core.close().await.unwrap();
    drop(core);
    for (_, bytes) in snapshot(&world).await {
        let clear = made.plaintext.expose();
        assert!(!bytes.windows(clear.len()).any(|window| window == clear));
    }
    {
        use moat_meta::MetaStore;
        let store = open_store(&world);
        let row = |name: &str| bytes::Bytes::from(format!("kms/k/lake/{name}"));
        let sealed = store.get(&row("l")).await.unwrap().unwrap();
        let swap = moat_meta::Write::Put(row("k"), sealed);
        assert_eq!(
            store.commit(Vec::new(), vec![swap]).await.unwrap(),
            moat_meta::Outcome::Committed
        );
    }
    let core = world.open().await.unwrap();
    let refused = core
        .decrypt(&root(), &enclave(), &key("k"), b"", &made.ciphertext)
        .await;
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
}

#[tokio::test]
async fn changes_that_race_are_all_kept() {
    let world = World::new();
    let core = with_key(&world).await;
    let rotations: Vec<_> = (0..8)
        .map(|_| {
            let core = core.clone();
            tokio::spawn(async move { core.rotate_key(&root(), &enclave(), &key("k")).await })
        })
        .collect();
    for rotation in rotations {
        rotation.await.unwrap().unwrap();
    }
    let info = core.key_info(&root(), &enclave(), &key("k")).await.unwrap();
    assert_eq!(info.version.number(), 9);
}

fn open_store(world: &World) -> Embedded {
    Embedded::open(world.folder.path().join("state"), Options::default()).unwrap()
}

async fn snapshot(world: &World) -> Vec<(Vec<u8>, Vec<u8>)> {
    use moat_meta::MetaStore;
    let store = open_store(world);
    let range = bytes::Bytes::from_static(b"")..bytes::Bytes::from_static(b"\xff");
    let page = store.scan(range, 1000, 1 << 20).await.unwrap();
    let mut rows: Vec<_> = page.rows().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
    for path in std::fs::read_dir(world.folder.path().join("audit")).unwrap() {
        let path = path.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        rows.push((path.to_string_lossy().into_owned().into_bytes(), bytes));
    }
    rows.sort();
    rows
}
