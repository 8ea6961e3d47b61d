//! The connections that clients make: versions of HTTP and TLS, kinds of keys, resumed sessions.

use std::sync::Arc;

use http_body_util::BodyExt;
use moat_kms::Scope;
use moat_kms_client::Privilege;

use crate::client::*;
use crate::operator;
use crate::rig::{Credential, Http, Rig, enclave};

const TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// With each kind of key that API keys have. All certificates expired in 2002: an identity is a
/// key, and a MinIO server shows a certificate of 90 days for as long as it runs.
#[tokio::test]
async fn every_kind_of_client_key_works_with_every_version_and_after_a_resumption() {
    let rig = Rig::start().await;
    let mut lake = operator(&rig, "lake").await;
    lake.change(KEY_CREATE, named("k")).await.unwrap();
    for algorithm in [
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
    ] {
        let credential = Credential::expired(algorithm);
        let (operator, scope) = (rig.operator(), Scope::Enclave(enclave("lake")));
        let admin = (&credential.identity, Privilege::Admin);
        rig.core
            .create_identity(&operator, &scope, admin.0, admin.1, None)
            .await
            .unwrap();
        for (versions, http) in [
            (TLS12, Http::One),
            (TLS12, Http::Two),
            (TLS13, Http::One),
            (TLS13, Http::Two),
        ] {
            let config = rig.tls(Some(&credential), http, versions);
            let mut resumptions = 0;
            for _ in 0..3 {
                let (connection, resumed) = rig.connect_by(Arc::clone(&config), http).await;
                resumptions += usize::from(resumed);
                let mut client = Client::new(connection, "lake");
                let made = client.call(KEY_GENERATE, named("k").bytes(3, "{}")).await;
                assert_eq!(made.unwrap().bytes(2).len(), 32);
            }
            assert_eq!(resumptions, 2, "{algorithm:?} {http:?}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn answers_have_a_length_and_are_never_compressed_or_in_chunks() {
    let rig = Rig::start().await;
    for http in [Http::One, Http::Two] {
        let connection = rig.connect(&Credential::of(&rig.root), http).await;
        let mut client = Client::new(connection, "lake");
        let key = match http {
            Http::One => "one",
            Http::Two => "two",
        };
        client.change(KEY_CREATE, named(key)).await.unwrap();
        let requests = vec![named(key); 1000];
        // `post` checks the headers of each answer.
        client.batch(KEY_GENERATE, &requests).await.unwrap();
        client
            .call(KEY_GENERATE, named("missing"))
            .await
            .unwrap_err();
    }
    rig.stop().await;
}

#[tokio::test]
async fn version_and_health_need_no_certificate_and_are_what_strict_clients_read() {
    let rig = Rig::start().await;
    for http in [Http::One, Http::Two] {
        let connection = rig.connect_with(None, http, rustls::DEFAULT_VERSIONS).await;
        let mut client = Client::new(connection, "");
        let answer = client.send("GET", "/version", "").await;
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(
            answer.headers["content-length"],
            answer.body.len().to_string().as_str()
        );
        let version: serde_json::Map<_, _> = serde_json::from_slice(&answer.body).unwrap();
        let members: Vec<_> = version.keys().map(String::as_str).collect();
        assert_eq!(members, ["api_version", "commit", "host", "version"]);
        assert_eq!(version["host"], rig.address.to_string());
        for path in [
            "/v1/health/live",
            "/v1/health/ready",
            "/v1/health/ready?write",
        ] {
            assert_eq!(client.send("GET", path, "").await.status, 200, "{path}");
        }
    }
    rig.stop().await;
}

/// The first request of a connection that broke is sent again to another server without its body.
#[tokio::test]
async fn a_request_whose_body_is_missing_is_never_a_success() {
    let rig = Rig::start().await;
    let mut client = operator(&rig, "lake").await;
    let body = http_body_util::Full::default().boxed();
    let answer = client.connection.open("POST", "/v1/kms/lake", body).await;
    assert_eq!(answer.status(), 400);
    rig.stop().await;
}
