//! The native front over loopback TLS, with its own client: what a store and an operator see.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "support/server.rs"]
mod server;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use moat_crypto::{EpochScope, KeyRing, KeyRingError};
use moat_kms::CoreConfig;
use moat_kms::audit::{Filter, Outcome, show};
use moat_kms_client::wire::PolicyDocument;
use moat_kms_client::{
    ApiKey, Client, ClientConfig, Code, Credential, Identity, ListOptions, Privilege, RemoteKeyRing,
};
use moat_net::tls::Roots;
use moat_pki::{CaRequest, CertificateAuthority, KeyAlgorithm, LeafRequest, PrivateKey, Usage};
use moat_types::{BucketName, EpochId, SecretBytes, SystemClock, SystemRandom};
use server::{DAY, RawClient, Server, code, enclave, key};

fn scope() -> EpochScope {
    EpochScope {
        bucket: BucketName::parse("sales").unwrap(),
        key: key("k"),
        epoch: EpochId::from_bytes([5; 16]),
    }
}

/// What a busy machine may take to notice.
const SLACK: Duration = Duration::from_secs(10);

fn ring_of(client: Arc<Client>) -> RemoteKeyRing {
    RemoteKeyRing::new(client, enclave(), HashSet::new(), Arc::new(SystemRandom))
}

#[tokio::test]
async fn every_route_works_for_its_owner() {
    let server = Server::start(CoreConfig::LEASE_TTL).await;
    let (root, lake) = (server.root_client(), enclave());
    assert_eq!(
        root.version().await.unwrap().host,
        server.address.to_string()
    );
    root.ready().await.unwrap();

    root.create_enclave(&lake).await.unwrap();
    assert_eq!(code(root.create_enclave(&lake).await), Code::EnclaveExists);
    assert_eq!(root.enclave(&lake).await.unwrap().name, "lake");
    let all = ListOptions::default();
    assert_eq!(root.enclaves(&all).await.unwrap().items.len(), 1);

    let made = root.create_key(&lake, &key("k")).await.unwrap();
    assert!(made.enabled && made.version == 1 && made.algorithm == "AES256");
    assert_eq!(made.created_by, server.root.identity().to_string());
    assert_eq!(
        code(root.create_key(&lake, &key("k")).await),
        Code::KeyExists
    );
    assert_eq!(root.rotate_key(&lake, &key("k")).await.unwrap().version, 2);
    assert_eq!(
        root.key_versions(&lake, &key("k"))
            .await
            .unwrap()
            .items
            .len(),
        2
    );
    let options = ListOptions {
        prefix: "k".into(),
        limit: 1,
        ..all.clone()
    };
    assert_eq!(root.keys(&lake, &options).await.unwrap().items.len(), 1);

    let data = root
        .generate_data_key(&lake, &key("k"), b"c", None)
        .await
        .unwrap();
    let ciphertext = &data.ciphertext.0;
    let opened = root
        .decrypt(&lake, &key("k"), b"c", ciphertext)
        .await
        .unwrap();
    assert_eq!(opened.plaintext, data.plaintext);
    let moved = root.decrypt(&lake, &key("k"), b"d", ciphertext).await;
    assert_eq!(code(moved), Code::InvalidCiphertext);
    let secret = SecretBytes::new(b"small".to_vec());
    let sealed = root
        .encrypt(&lake, &key("k"), b"", secret.clone())
        .await
        .unwrap();
    let opened = root
        .decrypt(&lake, &key("k"), b"", &sealed.ciphertext.0)
        .await;
    assert_eq!(opened.unwrap().plaintext.0, secret);

    let policy: PolicyDocument = serde_json::from_str(r#"{"allow":{"KEY:LIST":"*"}}"#).unwrap();
    for scope in [None, Some(&lake)] {
        root.set_policy(scope, &key("p"), &policy).await.unwrap();
        let read = root.policy(scope, &key("p")).await.unwrap().policy.unwrap();
        assert!(read.allow.contains_key("KEY:LIST"));
        assert_eq!(root.policies(scope, &all).await.unwrap().items.len(), 1);
        let user = ApiKey::generate(&SystemRandom).identity();
        root.create_identity(scope, user, Privilege::User, None)
            .await
            .unwrap();
        let again = root
            .create_identity(scope, user, Privilege::User, None)
            .await;
        assert_eq!(code(again), Code::IdentityExists);
        let named = root
            .assign_policy(scope, user, Some(&key("p")))
            .await
            .unwrap();
        assert_eq!(named.policy.as_deref(), Some("p"));
        assert_eq!(root.identity(scope, user).await.unwrap(), named);
        assert_eq!(root.identities(scope, &all).await.unwrap().items.len(), 1);
    }

    assert!(!root.disable_key(&lake, &key("k")).await.unwrap().enabled);
    let refused = root
        .generate_data_key(&lake, &key("k"), b"", None)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some(Code::KeyDisabled));
    assert!(
        refused.to_string().contains("KMS key k is disabled"),
        "{refused}"
    );
    assert!(root.enable_key(&lake, &key("k")).await.unwrap().enabled);

    let disables = moat_kms_client::AuditOptions {
        operation: Some("KEY:DISABLE".into()),
        ..Default::default()
    };
    let audit = root.audit(&disables);
    let outcomes: Vec<_> = audit
        .await
        .unwrap()
        .lines
        .iter()
        .map(|line| line["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["begun", "allowed"]);
}

#[tokio::test]
async fn a_store_leases_epochs_and_a_disabled_key_ends_the_lease() {
    let ttl = Duration::from_millis(600);
    let server = Server::start(ttl).await;
    let store = server.with_store().await;
    let ring = ring_of(store.clone());
    ring.check(key("k")).await.unwrap();
    let made = ring.generate(scope()).await.unwrap();
    assert!(ring.held(&scope().epoch).is_some());
    // Another store opens the same epoch from its wrapped form.
    let other = ring_of(store);
    other.open(scope(), made.wrapped.clone()).await.unwrap();

    let disabled = tokio::time::Instant::now();
    server
        .root_client()
        .disable_key(&enclave(), &key("k"))
        .await
        .unwrap();
    // The lease is in use all the time, and ends all the same: by the renewal that is refused.
    // (That it ends in time to the millisecond is tested with a driven clock, beside the ring.)
    while ring.held(&scope().epoch).is_some() {
        assert!(disabled.elapsed() < ttl + SLACK);
        tokio::task::yield_now().await;
    }
    let refused = ring.open(scope(), made.wrapped.clone()).await;
    match refused {
        Err(KeyRingError::Disabled { key: named }) => assert_eq!(named, key("k")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        ring.check(key("k")).await,
        Err(KeyRingError::Disabled { .. })
    ));
    server
        .root_client()
        .enable_key(&enclave(), &key("k"))
        .await
        .unwrap();
    ring.open(scope(), made.wrapped).await.unwrap();
}

#[tokio::test]
async fn a_lease_outlives_the_key_manager_to_its_end_and_not_longer() {
    let ttl = Duration::from_secs(4);
    let mut server = Server::start(ttl).await;
    let ring = ring_of(server.with_store().await);
    let made = ring.generate(scope()).await.unwrap();
    let leased = tokio::time::Instant::now();
    server.stop().await;
    ring.open(scope(), made.wrapped.clone()).await.unwrap();
    while ring.held(&scope().epoch).is_some() {
        assert!(leased.elapsed() < ttl + SLACK);
        tokio::task::yield_now().await;
    }
    let cold = ring.open(scope(), made.wrapped.clone()).await;
    assert!(
        matches!(cold, Err(KeyRingError::Unavailable { .. })),
        "{cold:?}"
    );
    server.run().await;
    ring.open(scope(), made.wrapped).await.unwrap();
}

#[tokio::test]
async fn strangers_and_wrong_identities_are_denied_and_audited() {
    let server = Server::start(CoreConfig::LEASE_TTL).await;
    let store = server.with_store().await;
    let stranger = ApiKey::generate(&SystemRandom);
    let client = server.client(Credential::ApiKey(stranger.clone()));
    let lease = async |client: &Client, name: &str| {
        let EpochScope { bucket, epoch, .. } = scope();
        client
            .generate_epoch(&enclave(), &key(name), &bucket, epoch)
            .await
    };
    let refused = lease(&client, "k").await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Denied));
    assert!(!refused.to_string().contains("not known"), "{refused}");
    assert_eq!(code(lease(&store, "other").await), Code::Denied);
    assert_eq!(code(lease(&store, "k-missing").await), Code::KeyNotFound);
    assert_eq!(
        code(store.create_key(&enclave(), &key("k2")).await),
        Code::Denied
    );
    assert_eq!(code(store.create_enclave(&enclave()).await), Code::Denied);
    assert_eq!(code(store.audit(&Default::default()).await), Code::Denied);
    let ring = ring_of(client);
    let through_ring = ring.generate(scope()).await;
    assert!(
        matches!(through_ring, Err(KeyRingError::Denied { .. })),
        "{through_ring:?}"
    );

    let anyone = server.client(Credential::None);
    anyone.version().await.unwrap();
    anyone.ready().await.unwrap();
    assert_eq!(
        code(anyone.enclaves(&ListOptions::default()).await),
        Code::Unauthenticated
    );

    let mut server = server;
    server.stop().await;
    let who = |identity: Identity| Filter {
        identity: Some(identity.to_string()),
        ..Filter::default()
    };
    let lines: Vec<_> = show(&server.path("audit"), who(stranger.identity()))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert_eq!(line.outcome, Some(Outcome::Denied));
        assert_eq!(line.operation.as_deref(), Some("EPOCH:GENERATE"));
        assert!(line.source.unwrap().starts_with("127.0.0.1:"));
        assert!(line.reason.unwrap().contains("not known"));
    }
}

#[tokio::test]
async fn a_ca_signed_client_certificate_is_known_by_its_key() {
    let server = Server::start(CoreConfig::LEASE_TTL).await;
    let request = CaRequest {
        common_name: "another CA".into(),
        algorithm: KeyAlgorithm::EcdsaP256,
        validity: DAY,
        permitted: Vec::new(),
    };
    let ca = CertificateAuthority::create(&request, &SystemClock, &SystemRandom).unwrap();
    let leaf = LeafRequest {
        common_name: "store".into(),
        usage: Usage::Client,
        names: Vec::new(),
        validity: DAY,
    };
    let pair = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let issued = ca.issue(&leaf, &pair, &SystemClock, &SystemRandom).unwrap();
    let (certificate, private) = (server.path("client.crt"), server.path("client.key"));
    std::fs::write(&certificate, issued.chain_pem()).unwrap();
    std::fs::write(&private, pair.to_pem().expose()).unwrap();

    let root = server.root_client();
    root.create_enclave(&enclave()).await.unwrap();
    let identity = Identity::from_spki_sha256(pair.public_key_sha256());
    let lake = enclave();
    root.create_identity(Some(&lake), identity, Privilege::Admin, None)
        .await
        .unwrap();
    let admin = server.client(Credential::Files {
        certificate,
        key: private,
    });
    let made = admin.create_key(&lake, &key("k")).await.unwrap();
    assert_eq!(made.created_by, identity.to_string());
}

#[tokio::test]
async fn a_client_goes_on_to_the_endpoint_that_answers() {
    let server = Server::start(CoreConfig::LEASE_TTL).await;
    // Bound and dropped: nobody listens there.
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let roots = Roots {
        pem: vec![server.ca_pem.clone().into()],
        ..Roots::default()
    };
    let mut config = ClientConfig::new(
        dead.to_string(),
        roots,
        Credential::ApiKey(server.root.clone()),
    );
    config.endpoints.push(server.address.to_string());
    let client = Client::new(config, &SystemClock, &SystemRandom).unwrap();
    client.create_enclave(&enclave()).await.unwrap();
    client.create_key(&enclave(), &key("k")).await.unwrap();
}

#[tokio::test]
async fn bad_requests_get_problems_with_codes() {
    let server = Server::start(CoreConfig::LEASE_TTL).await;
    let root = server.root_client();
    root.create_enclave(&enclave()).await.unwrap();
    root.create_key(&enclave(), &key("k")).await.unwrap();
    let raw = RawClient::new(&server);
    let large = "x".repeat((64 << 10) + 1);
    for (method, path, body, status, code) in [
        ("GET", "/nothing", "", 404, "not-found"),
        ("DELETE", "/v1/enclaves", "", 405, "method-not-allowed"),
        ("POST", "/v1/enclaves", "{", 400, "bad-request"),
        ("POST", "/v1/enclaves", "{}", 400, "bad-request"),
        (
            "POST",
            "/v1/enclaves",
            r#"{"name":"a","x":1}"#,
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/enclaves",
            r#"{"name":"../etc"}"#,
            400,
            "bad-request",
        ),
        ("POST", "/v1/enclaves", large.as_str(), 413, "too-large"),
        ("GET", "/v1/enclaves?limit=x", "", 400, "bad-request"),
        (
            "GET",
            "/v1/enclaves/lake/keys/none",
            "",
            404,
            "key-not-found",
        ),
        (
            "GET",
            "/v1/enclaves/none/keys/k",
            "",
            404,
            "enclave-not-found",
        ),
        (
            "POST",
            "/v1/enclaves/lake/keys/k/decrypt",
            r#"{"ciphertext":"!"}"#,
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/enclaves/lake/keys/k/decrypt",
            r#"{"ciphertext":"AAAA"}"#,
            400,
            "invalid-ciphertext",
        ),
        (
            "POST",
            "/v1/enclaves/lake/keys/k/generate",
            r#"{"length":1025}"#,
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/enclaves/lake/keys/k/generate",
            r#"{"length":0}"#,
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/enclaves/lake/keys/k/epochs/generate",
            r#"{"bucket":"B","epoch":"00"}"#,
            400,
            "bad-request",
        ),
        (
            "PUT",
            "/v1/policies/p",
            r#"{"allow":{"KEY:EAT":"*"}}"#,
            400,
            "bad-request",
        ),
        (
            "PUT",
            "/v1/policies/p",
            r#"{"allow":{"KEY:LIST":"a*b"}}"#,
            400,
            "bad-request",
        ),
    ] {
        let (found, problem) = raw.send(method, path, body).await;
        let context = format!("{method} {path}: {problem}");
        assert_eq!(found, status, "{context}");
        assert_eq!(problem["code"], code, "{context}");
        assert_eq!(problem["status"], status, "{context}");
        assert_eq!(
            problem["request_id"].as_str().unwrap().len(),
            16,
            "{context}"
        );
    }
}
