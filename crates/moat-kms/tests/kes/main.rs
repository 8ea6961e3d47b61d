//! The KES front over loopback TLS: what KES clients see, on every transport they use, and what
//! those see who may not.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod rig;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moat_kms::Scope;
use moat_kms_client::{ApiKey, Privilege};
use moat_types::{KeyName, SystemRandom};
use rig::{Client, Credential, Http, Rig, enclave};
use serde_json::{Value, json};

const NOT_ALLOWED: (u16, &str) = (403, "not authorized: insufficient permissions");
/// What a MinIO server needs.
const MINIO: &[&str] = &[
    "/v1/key/create/*",
    "/v1/key/generate/*",
    "/v1/key/decrypt/*",
    "/v1/key/describe/*",
    "/v1/key/list/*",
    "/v1/status",
];

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn check(found: (u16, String), expected: (u16, &str)) {
    assert_eq!((found.0, found.1.as_str()), expected);
}

#[tokio::test]
async fn keys_are_made_used_and_deleted() {
    let rig = Rig::start().await;
    let mut client = rig.root_client().await;
    client.call("POST", "/v1/key/create/k", None).await.ok();
    // A body that nobody asked for is let pass.
    client.post("/v1/key/create/l", json!({})).await.ok();
    let exists = client.call("PUT", "/v1/key/create/k", None).await.error();
    check(exists, (400, "key already exists"));

    let info = client.get("/v1/key/describe/k").await.json();
    assert_eq!(
        (&info["name"], &info["algorithm"]),
        (&json!("k"), &json!("AES256"))
    );
    assert_eq!(info["created_by"], rig.root.identity().to_kes_text());
    assert!(
        info["created_at"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .is_ok()
    );

    let context = base64(b"{\"bucket\":\"bucket/object\"}");
    let made = client
        .post("/v1/key/generate/k", json!({ "context": context }))
        .await
        .json();
    let ask =
        |ciphertext: &Value, context: &str| json!({"ciphertext": ciphertext, "context": context});
    let opened = client
        .post("/v1/key/decrypt/k", ask(&made["ciphertext"], &context))
        .await
        .json();
    assert_eq!(opened, json!({ "plaintext": made["plaintext"] }));
    for (key, context) in [("k", base64(b"{}")), ("l", context.clone())] {
        let refused = client
            .post(
                &format!("/v1/key/decrypt/{key}"),
                ask(&made["ciphertext"], &context),
            )
            .await;
        check(
            refused.error(),
            (400, "decryption failed: ciphertext is not authentic"),
        );
    }

    let secret = base64(b"a small secret");
    let sealed = client
        .post(
            "/v1/key/encrypt/k",
            json!({"plaintext": secret, "version": "v2"}),
        )
        .await
        .json();
    let opened = client.post("/v1/key/decrypt/k", sealed).await.json();
    assert_eq!(opened["plaintext"], secret);

    let message = json!({ "message": base64(b"root access key") });
    let tag = client
        .call("PUT", "/v1/key/hmac/k", Some(message.clone()))
        .await
        .json();
    assert_eq!(
        STANDARD
            .decode(tag["hmac"].as_str().unwrap())
            .unwrap()
            .len(),
        32
    );
    assert_eq!(
        client.post("/v1/key/hmac/k", message.clone()).await.json(),
        tag
    );
    assert_ne!(client.post("/v1/key/hmac/l", message).await.json(), tag);

    client.call("DELETE", "/v1/key/delete/k", None).await.ok();
    let names = client.get("/v1/key/list/").await.json();
    assert_eq!(names, json!({"names": ["l"]}));
    for gone in [
        client.get("/v1/key/describe/k").await,
        client.post("/v1/key/generate/k", json!({})).await,
        client.call("DELETE", "/v1/key/delete/k", None).await,
    ] {
        check(gone.error(), (404, "key does not exist"));
    }
    rig.stop().await;
}

/// Secret `00..1f`, iv `a0..af`, nonce `b0..bb`, 32 times `11`, from the protocol's description;
/// a real KES opens both.
#[tokio::test]
async fn what_kes_encrypted_opens_under_an_imported_key() {
    let rig = Rig::start().await;
    let mut client = rig.root_client().await;
    let material: Vec<u8> = (0..32).collect();
    let tail: Vec<u8> = (0xa0..=0xaf).chain(0xb0..=0xbb).collect();
    for (name, cipher, sealed) in [
        (
            "aes",
            "AES256",
            "a5092c1487a51041bcca8df77d720fb6b8cbdd6b0d7f1f0c898ac6e33fde184f9d07f892d29fbb54edaa973696639f7d",
        ),
        (
            "chacha",
            "ChaCha20",
            "da7b85ce7bcaee9fd7d28a2e06b652db05428512e904f228a0e135323601f3aa4c34279b62f9092ee2c69ad3e5375f3c",
        ),
    ] {
        let import = json!({ "key": base64(&material), "cipher": cipher });
        client
            .post(&format!("/v1/key/import/{name}"), import.clone())
            .await
            .ok();
        let again = client.post(&format!("/v1/key/import/{name}"), import).await;
        check(again.error(), (400, "key already exists"));
        let info = client.get(&format!("/v1/key/describe/{name}")).await.json();
        assert_eq!(info["algorithm"], cipher);

        let raw = [hex::decode(sealed).unwrap(), tail.clone()].concat();
        let context = base64(br#"{"bucket":"bucket/object"}"#);
        let ask = |raw: &[u8]| json!({"ciphertext": base64(raw), "context": context});
        let path = format!("/v1/key/decrypt/{name}");
        let opened = client.post(&path, ask(&raw)).await.json();
        assert_eq!(opened["plaintext"], base64(&[0x11; 32]));
        for index in 0..raw.len() {
            let mut changed = raw.clone();
            changed[index] ^= 1;
            let refused = client.post(&path, ask(&changed)).await;
            check(
                refused.error(),
                (400, "decryption failed: ciphertext is not authentic"),
            );
        }
        // What is made under it now opens as well.
        let made = client
            .post(&format!("/v1/key/generate/{name}"), json!({}))
            .await
            .json();
        let ask = json!({ "ciphertext": made["ciphertext"] });
        assert_eq!(
            client.post(&path, ask).await.json()["plaintext"],
            made["plaintext"]
        );
    }
    for (cipher, key, expected) in [
        ("AES256", base64(&[0; 31]), "invalid key size for 'AES256'"),
        ("DES", base64(&[0; 32]), "algorithm 'DES' is not supported"),
    ] {
        let refused = client
            .post("/v1/key/import/bad", json!({"key": key, "cipher": cipher}))
            .await;
        check(refused.error(), (406, expected));
    }
    rig.stop().await;
}

/// TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2, every kind of client key; certificates that expired
/// years ago, and bodies without a length.
#[tokio::test]
async fn every_transport_and_client_key_is_served() {
    let rig = Rig::start().await;
    rig.root_client()
        .await
        .call("POST", "/v1/key/create/k", None)
        .await
        .ok();
    for algorithm in [
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
    ] {
        let credential = Credential::expired(algorithm);
        rig.admit("lake", credential.identity, MINIO).await;
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            for http in [Http::One, Http::Two] {
                let mut client = rig.connect_with(Some(&credential), http, &[version]).await;
                let made = client
                    .post("/v1/key/generate/k", json!({"context": "e30="}))
                    .await;
                let ask = json!({"context": "e30=", "ciphertext": made.json()["ciphertext"]});
                let opened = client.post("/v1/key/decrypt/k", ask).await.json();
                assert_eq!(
                    opened["plaintext"],
                    made.json()["plaintext"],
                    "{algorithm:?} {http:?}"
                );
                let own = client.get("/v1/identity/self/describe").await.json();
                assert_eq!(own["identity"], credential.identity.to_kes_text());
            }
        }
    }
    rig.stop().await;
}

/// Each path with a request that is fine but for who sends it.
fn walk() -> Vec<(&'static str, &'static str, Option<Value>)> {
    vec![
        ("GET", "/v1/ready", None),
        ("GET", "/v1/status", None),
        ("GET", "/v1/metrics", None),
        ("GET", "/v1/api", None),
        ("PUT", "/v1/key/create/new", None),
        (
            "PUT",
            "/v1/key/import/new",
            Some(json!({"key": base64(&[1; 32]), "cipher": "AES256"})),
        ),
        ("GET", "/v1/key/describe/k", None),
        ("GET", "/v1/key/list/", None),
        ("GET", "/v1/key/list/*", None),
        ("DELETE", "/v1/key/delete/k", None),
        ("PUT", "/v1/key/generate/k", Some(json!({}))),
        (
            "PUT",
            "/v1/key/encrypt/k",
            Some(json!({"plaintext": "AAAA"})),
        ),
        (
            "PUT",
            "/v1/key/decrypt/k",
            Some(json!({"ciphertext": base64(&[1; 90])})),
        ),
        ("PUT", "/v1/key/hmac/k", Some(json!({"message": "AAAA"}))),
        ("GET", "/v1/policy/describe/p", None),
        ("GET", "/v1/policy/read/p", None),
        ("GET", "/v1/policy/list/", None),
        ("GET", "/v1/identity/list/", None),
        ("GET", "/v1/log/error", None),
        ("GET", "/v1/log/audit", None),
    ]
}

/// An identity of no enclave, one without a policy, one whose policy allows nothing, and an admin
/// of another enclave that names this one: none gets further than "not authorized", whether or
/// not the thing exists.
#[tokio::test]
async fn the_wrong_identity_gets_nothing_from_any_path() {
    let rig = Rig::start().await;
    let mut root = rig.root_client().await;
    root.call("POST", "/v1/key/create/k", None).await.ok();
    let operator = rig.operator();
    let (lake, other) = (
        Scope::Enclave(enclave("lake")),
        Scope::Enclave(enclave("other")),
    );
    let policy = KeyName::parse("p").unwrap();
    rig.core
        .set_policy(&operator, &lake, &policy, &Default::default())
        .await
        .unwrap();

    let stranger = ApiKey::generate(&SystemRandom);
    let bare = ApiKey::generate(&SystemRandom);
    let admin = ApiKey::generate(&SystemRandom);
    for (scope, key, privilege) in [
        (&lake, &bare, Privilege::User),
        (&other, &admin, Privilege::Admin),
    ] {
        rig.core
            .create_identity(&operator, scope, &key.identity(), privilege, None)
            .await
            .unwrap();
    }
    let mut foreign = rig.connect(&Credential::of(&admin), Http::One).await;
    foreign.enclave = Some("lake");
    let clients = [
        (
            "stranger",
            rig.connect(&Credential::of(&stranger), Http::One).await,
        ),
        ("bare", rig.connect(&Credential::of(&bare), Http::Two).await),
        ("nothing allowed", rig.user("lake", &[]).await),
        ("admin elsewhere", foreign),
    ];
    let identity = format!(
        "/v1/identity/describe/{}",
        rig.root.identity().to_kes_text()
    );
    for (who, mut client) in clients {
        for (method, path, body) in walk() {
            let answer = client.call(method, path, body).await;
            assert_eq!(answer.status, 403, "{who}: {method} {path}: {answer:?}");
            check(answer.error(), NOT_ALLOWED);
        }
        check(client.get(&identity).await.error(), NOT_ALLOWED);
        for missing in ["/v1/key/describe/nothing", "/v1/policy/read/nothing"] {
            check(client.get(missing).await.error(), NOT_ALLOWED);
        }
    }
    // Nothing was changed by all that.
    assert_eq!(
        root.get("/v1/key/list/").await.json(),
        json!({"names": ["k"]})
    );
    // An enclave that does not exist looks like one that does.
    let mut client = rig.user("lake", MINIO).await;
    for named in ["other", "nowhere"] {
        client.enclave = Some(named);
        check(client.get("/v1/key/describe/k").await.error(), NOT_ALLOWED);
    }
    rig.stop().await;
}

/// The server's own list of paths is covered by the walk, so a new one can't be forgotten there.
#[tokio::test]
async fn no_path_is_missing_in_the_walk() {
    /// Anyone may ask for the version; both logs and descriptions of identities are walked with
    /// paths of their own.
    const ELSEWHERE: [&str; 3] = [
        "/version",
        "/v1/identity/describe/",
        "/v1/identity/self/describe",
    ];
    let rig = Rig::start().await;
    let mut root = rig.root_client().await;
    let apis = root.get("/v1/api").await.json();
    let apis = apis.as_array().unwrap();
    assert!(apis.len() > 20);
    for api in apis {
        let (method, path) = (
            api["method"].as_str().unwrap(),
            api["path"].as_str().unwrap(),
        );
        let walked = walk()
            .iter()
            .any(|(by, at, _)| *by == method && at.starts_with(path));
        assert!(walked || ELSEWHERE.contains(&path), "{method} {path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn without_a_certificate_only_the_version_is_told() {
    let rig = Rig::start().await;
    let mut client = rig
        .connect_with(None, Http::One, rustls::DEFAULT_VERSIONS)
        .await;
    assert_eq!(client.get("/version").await.json()["version"], "test");
    for (method, path, body) in walk() {
        let answer = client.call(method, path, body).await;
        check(answer.error(), (400, "tls: client certificate is required"));
    }
    rig.stop().await;
}

/// Clients of two enclaves name the same key and mean two; the operator chooses.
#[tokio::test]
async fn a_client_works_in_the_enclave_of_its_identity() {
    let rig = Rig::start().await;
    let mut lake = rig.user("lake", MINIO).await;
    let mut other = rig.user("other", MINIO).await;
    lake.call("POST", "/v1/key/create/k", None).await.ok();
    other.call("POST", "/v1/key/create/k", None).await.ok();
    other
        .call("POST", "/v1/key/create/only-here", None)
        .await
        .ok();
    let made = lake.post("/v1/key/generate/k", json!({})).await.json();
    let ask = json!({ "ciphertext": made["ciphertext"] });
    lake.post("/v1/key/decrypt/k", ask.clone()).await.ok();
    let refused = other.post("/v1/key/decrypt/k", ask).await.error();
    check(
        refused,
        (400, "decryption failed: ciphertext is not authentic"),
    );
    assert_eq!(
        lake.get("/v1/key/list").await.json(),
        json!({"names": ["k"]})
    );

    let mut root = rig.root_client().await;
    assert_eq!(
        root.get("/v1/key/list/*").await.json()["names"],
        json!(["k"])
    );
    root.enclave = Some("other");
    assert_eq!(
        root.get("/v1/key/list/").await.json()["names"],
        json!(["k", "only-here"])
    );
    root.enclave = Some("nowhere");
    check(
        root.get("/v1/key/list/").await.error(),
        (404, "enclave does not exist"),
    );
    rig.stop().await;
}

#[tokio::test]
async fn policies_and_identities_are_shown_as_kes_shows_them() {
    let rig = Rig::start().await;
    let mut client = rig.user("lake", MINIO).await;
    let mut root = rig.root_client().await;
    let own = client.get("/v1/identity/self/describe").await.json();
    let (identity, policy) = (own["identity"].as_str().unwrap(), &own["policy"]);
    let allowed: Vec<&String> = policy["allow"].as_object().unwrap().keys().collect();
    let mut expected = MINIO.to_vec();
    expected.sort_unstable();
    assert_eq!(allowed, expected);
    assert_eq!((&policy["deny"], own.get("admin")), (&json!({}), None));

    let name = policy["name"].as_str().unwrap();
    let read = root.get(&format!("/v1/policy/read/{name}")).await.json();
    assert_eq!(&read, policy);
    let described = root
        .get(&format!("/v1/policy/describe/{name}"))
        .await
        .json();
    assert_eq!(
        (&described["name"], described.get("allow")),
        (&policy["name"], None)
    );
    assert_eq!(
        root.get("/v1/policy/list/").await.json(),
        json!({"names": [name]})
    );
    check(
        root.get("/v1/policy/read/none").await.error(),
        (404, "policy does not exist"),
    );

    let described = root
        .get(&format!("/v1/identity/describe/{identity}"))
        .await
        .json();
    assert_eq!(
        (&described["policy"], described.get("identity")),
        (&policy["name"], None)
    );
    let listed = root.get("/v1/identity/list/").await.json();
    assert_eq!(listed, json!({"identities": [identity], "continue_at": ""}));
    let listed = root
        .get(&format!("/v1/identity/list/{}*", &identity[..6]))
        .await
        .json();
    assert_eq!(listed["identities"], json!([identity]));
    let none = root
        .get(&format!("/v1/identity/describe/{}", "0".repeat(64)))
        .await;
    check(none.error(), (404, "identity does not exist"));
    let own = root.get("/v1/identity/self/describe").await.json();
    assert_eq!((&own["admin"], own.get("policy")), (&json!(true), None));
    rig.stop().await;
}

/// More keys than one page holds, read as the client library does: `continue_at` in place of the
/// prefix, until none comes.
#[tokio::test]
async fn long_listings_are_read_to_their_end() {
    const KEYS: usize = 1_100;
    let rig = Rig::start().await;
    let caller = rig.operator();
    let place = enclave("lake");
    let names: Vec<KeyName> = (0..KEYS)
        .map(|n| KeyName::parse(&format!("lake-{n:05}")).unwrap())
        .chain([KeyName::parse("sea").unwrap()])
        .collect();
    let made = names
        .iter()
        .map(|name| rig.core.create_key(&caller, &place, name));
    for made in futures_util::future::join_all(made).await {
        made.unwrap();
    }
    let mut client = rig.user("lake", &["/v1/key/list/*"]).await;
    for (pattern, expected) in [
        ("", KEYS + 1),
        ("*", KEYS + 1),
        ("lake-*", KEYS),
        ("lake-0000", 10),
    ] {
        let (mut found, mut next) = (Vec::new(), pattern.to_owned());
        loop {
            let escaped: String = next.replace('|', "%7C").replace('*', "%2A");
            let page = client.get(&format!("/v1/key/list/{escaped}")).await.json();
            found.extend(page["names"].as_array().unwrap().clone());
            match page.get("continue_at") {
                Some(at) => next = at.as_str().unwrap().to_owned(),
                None => break,
            }
        }
        assert_eq!(found.len(), expected, "{pattern}");
        assert!(found.is_sorted_by_key(|name| name.as_str().unwrap().to_owned()));
    }
    rig.stop().await;
}

#[tokio::test]
async fn the_server_describes_itself() {
    let rig = Rig::start().await;
    let mut client = rig
        .user("lake", &["/v1/status", "/v1/api", "/v1/ready"])
        .await;
    let status = client.get("/v1/status").await.json();
    assert_eq!(
        (&status["version"], &status["os"]),
        (&json!("test"), &json!("linux"))
    );
    assert!(status["keystore_latency"].as_u64().unwrap() >= 1);
    assert!(status.get("keystore_unreachable").is_none());
    client.get("/v1/ready").await.ok();
    let apis = client.get("/v1/api").await.json();
    let create = apis
        .as_array()
        .unwrap()
        .iter()
        .find(|api| api["path"] == "/v1/key/create/");
    let expected =
        json!({"method": "PUT", "path": "/v1/key/create/", "max_body": 0, "timeout": 15});
    assert_eq!(create.unwrap(), &expected);
    // Metrics tell of every enclave: they are the operator's.
    check(client.get("/v1/metrics").await.error(), NOT_ALLOWED);
    rig.root_client().await.get("/v1/metrics").await.ok();
    rig.stop().await;
}

/// The head of a stream comes before any event, each line as it happens, none of another enclave,
/// and the end when the server goes down.
#[tokio::test]
async fn the_audit_stream_delivers_its_own_enclave() {
    let rig = Rig::start().await;
    let mut reader = rig.user("lake", &["/v1/log/audit"]).await;
    let mut stream = reader.stream("/v1/log/audit").await;
    let mut everything = rig.root_client().await;
    let mut everything = everything.stream("/v1/log/audit").await;

    let mut other = rig.user("other", MINIO).await;
    other
        .call("POST", "/v1/key/create/elsewhere", None)
        .await
        .ok();
    let mut lake = rig.user("lake", MINIO).await;
    lake.call("POST", "/v1/key/create/k", None).await.ok();
    lake.post("/v1/key/generate/k", json!({})).await.ok();
    lake.post("/v1/key/generate/none", json!({})).await.error();
    lake.call("DELETE", "/v1/key/delete/k", None).await.error();

    let mut seen = Vec::new();
    while !seen.iter().any(|(path, _)| path == "/v1/key/delete/k") {
        let line = next(&mut stream).await;
        let request = &line["request"];
        assert_eq!(request["identity"].as_str().unwrap().len(), 64);
        assert!(line["response"]["time"].is_u64(), "{line}");
        let path = request["path"].as_str().unwrap().to_owned();
        seen.push((path, line["response"]["code"].as_u64().unwrap()));
    }
    let seen: Vec<_> = seen
        .iter()
        .filter(|(path, _)| path.starts_with("/v1/key/"))
        .collect();
    let expected = [
        ("/v1/key/create/k", 200),
        ("/v1/key/generate/k", 200),
        ("/v1/key/generate/none", 404),
        ("/v1/key/delete/k", 403),
    ];
    assert_eq!(seen.len(), expected.len(), "{seen:?}");
    for (found, expected) in seen.iter().zip(expected) {
        assert_eq!((found.0.as_str(), found.1), expected);
    }
    while next(&mut everything).await["request"]["path"] != "/v1/key/create/elsewhere" {}

    rig.core.end_streams();
    while let Some(line) = within(stream.next()).await {
        assert_ne!(line["request"]["path"], "/v1/key/create/elsewhere");
    }
    rig.stop().await;
}

async fn next(lines: &mut rig::Lines) -> Value {
    within(lines.next()).await.expect("the stream ended early")
}

async fn within<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .expect("it came in time")
}

#[tokio::test]
async fn bad_requests_get_the_protocols_own_errors() {
    let rig = Rig::start().await;
    let mut client = rig.root_client().await;
    client.call("POST", "/v1/key/create/k", None).await.ok();
    for (method, path, body, expected) in [
        (
            "GET",
            "/v1/key/create/k",
            "",
            (405, "received method 'GET' expected 'PUT'"),
        ),
        (
            "POST",
            "/v1/key/describe/k",
            "",
            (405, "received method 'POST' expected 'GET'"),
        ),
        ("GET", "/v1/key/nothing/k", "", (404, "404 page not found")),
        (
            "POST",
            "/v1/key/decrypt/k",
            "",
            (400, "invalid request body"),
        ),
        (
            "POST",
            "/v1/key/decrypt/k",
            "{",
            (400, "invalid request body"),
        ),
        (
            "POST",
            "/v1/key/decrypt/k",
            r#"{"ciphertext":"%%"}"#,
            (400, "invalid request body"),
        ),
        (
            "POST",
            "/v1/key/generate/k",
            "[]",
            (400, "invalid request body"),
        ),
        (
            "POST",
            "/v1/key/decrypt/k",
            r#"{"ciphertext":""}"#,
            (400, "decryption failed: ciphertext is not authentic"),
        ),
        (
            "POST",
            "/v1/key/create/a-",
            "",
            (400, "a name must not end with '-'"),
        ),
        (
            "POST",
            "/v1/key/create/a%2Fb",
            "",
            (400, "a name may only hold letters, digits, '-' and '_'"),
        ),
        (
            "GET",
            "/v1/key/list/a*b",
            "",
            (
                400,
                "listing pattern 'a*b' is empty, too long or is invalid",
            ),
        ),
        (
            "GET",
            "/v1/identity/describe/x",
            "",
            (400, "an identity is 64 hex digits"),
        ),
    ] {
        let body = (!body.is_empty()).then(|| body.into());
        let answer = client.send(method, path, body).await;
        check(answer.error(), expected);
    }
    let long = format!("/v1/key/create/{}", "x".repeat(81));
    let refused = client.call("POST", &long, None).await.error();
    check(refused, (400, "a name must have 1 to 80 characters"));
    // With a length, the size is refused before it is sent; without one, while it is.
    let large = vec![b' '; (1 << 20) + 1].into();
    let mut client: Client = rig.root_client().await;
    let refused = client.send("POST", "/v1/key/encrypt/k", Some(large)).await;
    check(refused.error(), (413, "request body too large"));
    rig.stop().await;
}
