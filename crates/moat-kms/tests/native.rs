//! The native API beyond leases: the life of a key, batches, service accounts, checks, following
//! the audit; and that an identity of one enclave learns nothing of another, at any path.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "support/server.rs"]
mod server;

use std::collections::BTreeMap;

use moat_kms::CoreConfig;
use moat_kms_client::wire::{self, Base64, Batch, SecretBase64};
use moat_kms_client::{ApiKey, AuditOptions, Code, Credential, Identity, Privilege};
use moat_types::{Clock, EnclaveName, SecretBytes, SystemClock, SystemRandom};
use serde_json::{Value, json};
use server::{RawClient, Server, code, enclave, key};

const WEEK_SECONDS: u64 = 7 * 86_400;

#[tokio::test]
async fn a_key_lives_from_import_to_deletion() {
    let server = Server::start(CoreConfig::LEASE_TTL).await;
    let (root, lake, k) = (server.root_client(), enclave(), key("k"));
    root.create_enclave(&lake).await.unwrap();
    let import = wire::ImportKey {
        algorithm: Some("ChaCha20".into()),
        material: SecretBase64(SecretBytes::new((0..32).collect())),
        mac_material: None,
        exportable: true,
        add_version: false,
    };
    let info = root.import_key(&lake, &k, &import).await.unwrap();
    assert_eq!(
        (info.algorithm.as_str(), info.exportable),
        ("ChaCha20", true)
    );
    assert_eq!(
        code(root.import_key(&lake, &k, &import).await),
        Code::KeyExists
    );
    let info = root
        .set_key_rotation(&lake, &k, Some(86_400))
        .await
        .unwrap();
    assert!(info.next_rotation_at.is_some());
    root.rotate_key(&lake, &k).await.unwrap();
    let versions = root.key_versions(&lake, &k).await.unwrap().items;
    assert_eq!(
        versions.iter().map(|v| v.imported).collect::<Vec<_>>(),
        [true, false]
    );
    let exported = root.export_key(&lake, &k).await.unwrap();
    assert_eq!(exported.versions[0].material, import.material);
    let info = root.delete_key_version(&lake, &k, 1).await.unwrap();
    assert_eq!((info.version, info.versions), (2, 1));
    assert_eq!(
        code(root.delete_key_version(&lake, &k, 1).await),
        Code::KeyVersionNotFound
    );
    assert_eq!(
        code(root.delete_key_version(&lake, &k, 2).await),
        Code::KeyLastVersion
    );

    let pending = root.delete_key(&lake, &k, None).await.unwrap();
    let day = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
    let now = SystemClock.now().seconds();
    let due = day(&pending.deletion_at.unwrap());
    assert!(due.abs_diff(now + WEEK_SECONDS as i64) < 3600);
    assert_eq!(
        code(root.generate_data_key(&lake, &k, b"", None).await),
        Code::KeyDeleting
    );
    // Enabling is not what takes a deletion back.
    assert_eq!(code(root.enable_key(&lake, &k).await), Code::KeyDeleting);
    root.restore_key(&lake, &k).await.unwrap();
    root.generate_data_key(&lake, &k, b"", None).await.unwrap();
    root.delete_key(&lake, &k, Some(0)).await.unwrap();
    assert_eq!(code(root.key(&lake, &k).await), Code::KeyNotFound);

    let odd = wire::CreateKey {
        name: "odd".into(),
        algorithm: Some("DES".into()),
        exportable: false,
        rotation_seconds: None,
    };
    assert_eq!(
        code(root.create_key_with(&lake, &odd).await),
        Code::BadRequest
    );
    let mac = wire::CreateKey {
        algorithm: Some("HMAC-SHA256".into()),
        ..odd
    };
    root.create_key_with(&lake, &mac).await.unwrap();
    assert_eq!(
        code(root.generate_data_key(&lake, &key("odd"), b"", None).await),
        Code::KeyUsage
    );
    assert_eq!(
        code(root.export_key(&lake, &key("odd")).await),
        Code::KeyNotExportable
    );
    root.delete_enclave(&lake).await.unwrap();
    assert_eq!(code(root.enclave(&lake).await), Code::EnclaveNotFound);
}

#[tokio::test]
async fn batches_and_codes_answer_each_item() {
    let server = Server::start(CoreConfig::LEASE_TTL).await;
    let (root, lake, k) = (server.root_client(), enclave(), key("k"));
    root.create_enclave(&lake).await.unwrap();
    root.create_key(&lake, &k).await.unwrap();
    let item = |key: &str| wire::GenerateItem {
        key: key.into(),
        context: Base64(b"c".to_vec()),
        length: None,
        version: None,
    };
    let items = vec![item("k"), item("absent"), item("k")];
    let made = root.generate_data_keys(&lake, &Batch { items }).await;
    let made = made.unwrap().items;
    assert_eq!(made[1].error.as_ref().unwrap().code, "key-not-found");
    let made: Vec<_> = made.iter().filter_map(|item| item.ok.clone()).collect();
    assert_eq!(made.len(), 2);
    let items = made.iter().map(|made| wire::DecryptItem {
        key: "k".into(),
        ciphertext: made.ciphertext.clone(),
        context: Base64(b"c".to_vec()),
    });
    let items = items.collect();
    let opened = root.decrypt_all(&lake, &Batch { items }).await.unwrap();
    for (opened, made) in opened.items.iter().zip(&made) {
        assert_eq!(opened.ok.as_ref().unwrap().plaintext, made.plaintext);
    }
    let secret = wire::EncryptItem {
        key: "k".into(),
        plaintext: SecretBase64(SecretBytes::new(b"s".to_vec())),
        context: Base64::default(),
        version: Some(1),
    };
    let items = vec![secret; 100];
    let sealed = root.encrypt_all(&lake, &Batch { items }).await.unwrap();
    assert!(sealed.items.iter().all(|item| item.ok.is_some()));

    let message = Base64(b"m".to_vec());
    let one = wire::Mac {
        message: message.clone(),
        version: None,
    };
    let made = root.mac(&lake, &k, &one).await.unwrap();
    let items = vec![wire::MacItem {
        key: "k".into(),
        message: message.clone(),
        version: None,
    }];
    let many = root.mac_all(&lake, &Batch { items }).await.unwrap();
    assert_eq!(many.items[0].ok.as_ref(), Some(&made));
    for (code, valid) in [(made.code, true), (Base64(vec![0; 32]), false)] {
        let asked = wire::VerifyMac {
            message: message.clone(),
            code,
            version: None,
        };
        let verified = root.verify_mac(&lake, &k, &asked).await.unwrap();
        assert_eq!(verified.valid, valid);
    }
}

#[tokio::test]
async fn identities_know_themselves_make_accounts_and_are_explained() {
    let server = Server::start(CoreConfig::LEASE_TTL).await;
    let (root, lake) = (server.root_client(), enclave());
    root.create_enclave(&lake).await.unwrap();
    root.create_key(&lake, &key("k")).await.unwrap();
    let rules = serde_json::from_value(json!({"allow": {"KEY:GENERATE": "k*"}})).unwrap();
    root.set_policy(Some(&lake), &key("p"), &rules)
        .await
        .unwrap();
    let user = ApiKey::generate(&SystemRandom);
    let new = wire::CreateIdentity {
        identity: user.identity(),
        privilege: None,
        policy: Some("p".into()),
        service_account: false,
        tags: BTreeMap::from([("team".to_owned(), "lake".to_owned())]),
    };
    root.create_identity_with(Some(&lake), &new).await.unwrap();
    let client = server.client(Credential::ApiKey(user.clone()));
    let own = client.own_identity(Some(&lake)).await.unwrap();
    assert_eq!((own.policy.as_deref(), &own.tags), (Some("p"), &new.tags));
    assert_eq!(
        code(root.own_identity(Some(&lake)).await),
        Code::IdentityNotFound
    );

    let account = ApiKey::generate(&SystemRandom);
    let new = wire::CreateIdentity {
        identity: account.identity(),
        privilege: None,
        policy: None,
        service_account: true,
        tags: BTreeMap::new(),
    };
    let made = client.create_identity_with(Some(&lake), &new).await;
    assert_eq!(made.unwrap().parent, Some(user.identity()));
    let of_account = server.client(Credential::ApiKey(account.clone()));
    of_account
        .generate_data_key(&lake, &key("k"), b"", None)
        .await
        .unwrap();

    let asked = |command: &str, name: &str| wire::CheckPolicy {
        command: command.into(),
        name: name.into(),
    };
    let generate = asked("key:generate", "k1");
    let decision = root
        .check_policy(Some(&lake), account.identity(), &generate)
        .await
        .unwrap();
    assert!(decision.allowed);
    assert_eq!(decision.rule.as_deref(), Some("allow KEY:GENERATE k*"));
    assert_eq!(decision.policy.as_deref(), Some("p"));
    let decision = client
        .check_policy(Some(&lake), user.identity(), &asked("KEY:DECRYPT", "k1"))
        .await
        .unwrap();
    assert!(!decision.allowed && decision.rule.is_none());
    let odd = asked("KEY:EAT", "k");
    assert_eq!(
        code(root.check_policy(Some(&lake), user.identity(), &odd).await),
        Code::BadRequest
    );

    let refused = root.delete_policy(Some(&lake), &key("p"), false).await;
    let told = refused.as_ref().unwrap_err().to_string();
    assert!(told.contains(&user.identity().to_string()), "{told}");
    assert_eq!(code(refused), Code::PolicyInUse);
    root.delete_policy(Some(&lake), &key("p"), true)
        .await
        .unwrap();
    let decision = root
        .check_policy(Some(&lake), account.identity(), &generate)
        .await
        .unwrap();
    assert!(!decision.allowed && decision.reason.contains("was deleted"));
    assert_eq!(
        code(client.generate_data_key(&lake, &key("k"), b"", None).await),
        Code::Denied
    );
    root.delete_identity(Some(&lake), user.identity())
        .await
        .unwrap();
    assert_eq!(
        code(root.identity(Some(&lake), account.identity()).await),
        Code::IdentityNotFound
    );
}

#[tokio::test]
async fn the_audit_is_followed_line_by_line() {
    let server = Server::start(CoreConfig::LEASE_TTL).await;
    let root = server.root_client();
    let newest = root.audit(&AuditOptions::default()).await.unwrap();
    let seq = |line: &Value| line["seq"].as_u64().unwrap();
    let after = newest.lines.last().map_or(0, seq);
    let options = AuditOptions {
        after: Some(after),
        wait_seconds: Some(5),
        operation: Some("ENCLAVE:CREATE".into()),
        ..AuditOptions::default()
    };
    let lake = enclave();
    let (followed, made) = tokio::join!(root.audit(&options), root.create_enclave(&lake));
    made.unwrap();
    let followed = followed.unwrap();
    assert_eq!(followed.lines[0]["operation"], "ENCLAVE:CREATE");
    let last = followed.last_seq.unwrap();
    assert!(last >= seq(followed.lines.last().unwrap()));
    // Nothing twice, and nothing left out.
    let mut after = 0;
    let mut seen = Vec::new();
    while after < last {
        let page = AuditOptions {
            after: Some(after),
            limit: 2,
            ..AuditOptions::default()
        };
        let page = root.audit(&page).await.unwrap();
        seen.extend(page.lines.iter().map(seq));
        after = page.last_seq.unwrap();
    }
    let mut sorted = seen.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(seen, sorted);
    assert!(seen.contains(&seq(&followed.lines[0])));
    // Without news, and with nothing but its own readings, it waits for as long as was asked.
    let none = AuditOptions {
        after: Some(u64::MAX),
        wait_seconds: Some(0),
        ..AuditOptions::default()
    };
    let none = root.audit(&none).await.unwrap();
    assert!(none.lines.is_empty());
}

/// The document of the server names every operation, so a new one is walked as well, or fails
/// here for want of a body.
#[tokio::test]
async fn no_operation_tells_an_identity_anything_about_another_enclave() {
    let server = Server::start(CoreConfig::LEASE_TTL).await;
    let (root, lake) = (server.root_client(), enclave());
    root.create_enclave(&lake).await.unwrap();
    root.create_key(&lake, &key("k")).await.unwrap();
    let rules = serde_json::from_value(json!({"allow": {"KEY:GENERATE": "*"}})).unwrap();
    root.set_policy(Some(&lake), &key("p"), &rules)
        .await
        .unwrap();
    let victim = ApiKey::generate(&SystemRandom).identity();
    root.create_identity(Some(&lake), victim, Privilege::User, None)
        .await
        .unwrap();
    // An Admin, but of another enclave.
    let other = EnclaveName::parse("other").unwrap();
    root.create_enclave(&other).await.unwrap();
    let admin = ApiKey::generate(&SystemRandom);
    root.create_identity(Some(&other), admin.identity(), Privilege::Admin, None)
        .await
        .unwrap();
    let (raw, stranger) = (
        RawClient::of(&server, &admin),
        RawClient::of(&server, &ApiKey::generate(&SystemRandom)),
    );
    let (_, document) = raw.send("GET", "/v1/openapi.json", "").await;
    let mut walked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if operation["security"] == json!([]) {
                continue;
            }
            let (method, body) = (method.to_ascii_uppercase(), body(operation, victim));
            let there = place(path, "lake", victim);
            let nowhere = place(path, "nowhere", ROOTLESS);
            for client in [&raw, &stranger] {
                let said = told(client, &method, &there, &body).await;
                let control = told(client, &method, &nowhere, &body).await;
                assert_eq!(said, control, "{method} {path}");
                let expected = if path.ends_with("/self") {
                    "identity-not-found"
                } else {
                    "denied"
                };
                assert_eq!(said, expected, "{method} {path}");
                walked += 1;
            }
        }
    }
    assert!(walked > 80, "{walked}");
    // And nothing was done.
    root.generate_data_key(&lake, &key("k"), b"", None)
        .await
        .unwrap();
    root.identity(Some(&lake), victim).await.unwrap();
    root.policy(Some(&lake), &key("p")).await.unwrap();
    let untouched = root.key(&lake, &key("k")).await.unwrap();
    assert_eq!((untouched.version, untouched.guards), (1, Vec::new()));
}

const ROOTLESS: Identity = Identity::from_spki_sha256([9; 32]);

fn place(path: &str, enclave: &str, identity: Identity) -> String {
    let k = if enclave == "lake" { "k" } else { "none" };
    let p = if enclave == "lake" { "p" } else { "none" };
    path.replace("{enclave}", enclave)
        .replace("{key}", k)
        .replace("{version}", "1")
        .replace("{identity}", &identity.to_string())
        .replace("{policy}", p)
        .replace("{lake}", &"07".repeat(16))
}

/// The code of the problem; for a batch, that of its one item.
async fn told(client: &RawClient, method: &str, path: &str, body: &str) -> String {
    let (_, answer) = client.send(method, path, body).await;
    let code = match &answer["items"][0]["error"] {
        Value::Null => &answer["code"],
        error => &error["code"],
    };
    code.as_str()
        .unwrap_or_else(|| panic!("{method} {path}: {answer}"))
        .to_owned()
}

/// A good body for an operation.
fn body(operation: &Value, identity: Identity) -> String {
    let schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
    let Some(schema) = schema else {
        return String::new();
    };
    let (identity, bytes) = (identity.to_string(), "AAAA");
    let epoch = "05050505050505050505050505050505";
    let body = match schema.rsplit('/').next().unwrap() {
        "Nothing" | "GenerateDataKey" | "RotateHsm" => json!({}),
        "CreateEnclave" | "CreateKey" => json!({"name": "new"}),
        "ImportKey" => json!({"material": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}),
        "SetRotation" => json!({"rotation_seconds": 86_400}),
        "Encrypt" => json!({"plaintext": bytes}),
        "Decrypt" => json!({"ciphertext": bytes}),
        "Mac" => json!({"message": bytes}),
        "VerifyMac" => json!({"message": bytes, "code": bytes}),
        "GenerateBatch" => json!({"items": [{"key": "k"}]}),
        "EncryptBatch" => json!({"items": [{"key": "k", "plaintext": bytes}]}),
        "DecryptBatch" => json!({"items": [{"key": "k", "ciphertext": bytes}]}),
        "MacBatch" => json!({"items": [{"key": "k", "message": bytes}]}),
        "GenerateEpoch" => json!({"bucket": "sales", "epoch": epoch}),
        "OpenEpoch" => json!({"bucket": "sales", "epoch": epoch, "wrapped": bytes}),
        "LakeReport" => {
            json!({"age_ms": 0, "holdings": [{"key": "k", "buckets": 1, "objects": 1, "bytes": 1}]})
        }
        "CreateIdentity" => json!({"identity": identity}),
        "AssignPolicy" => json!({"policy": "p"}),
        "CheckPolicy" => json!({"command": "KEY:LIST", "name": "k"}),
        "PolicyDocument" => json!({"allow": {"KEY:LIST": "*"}}),
        other => panic!("no body for {other}"),
    };
    body.to_string()
}
