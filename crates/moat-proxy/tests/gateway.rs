//! The gateway between clients that sign and a store that checks every signature and every byte:
//! what passes, how it is changed, and what is refused before a store hears of it.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "support/mod.rs"]
mod support;

use bytes::Bytes;
use http::{Method, Response};
use moat_net::Body;
use moat_proxy::gateway::{
    BucketRoute, Encryption, EncryptionRule, GatewayConfig, Require, SignBody,
};
use moat_s3::sigv4::PayloadHash;
use moat_types::{Clock as _, SystemClock, UnixMillis};

use support::gateway::{
    CheckingStore, Draft, Taken, front, front_with, gateway, outcome, send, user,
};
use support::{Front, Pki, Server, text};

const SSE: &str = "x-amz-server-side-encryption";
const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CRC: (&str, &str) = ("x-amz-checksum-crc32", "AAAAAA==");

fn hash_of(data: &[u8]) -> PayloadHash {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data);
    PayloadHash::Sha256(digest.as_ref().try_into().unwrap())
}

/// A plain store behind a gateway with all defaults.
fn world() -> (CheckingStore, Server, Front) {
    with(gateway())
}

fn with(config: GatewayConfig) -> (CheckingStore, Server, Front) {
    let store = CheckingStore::new();
    let server = store.start(None);
    let front = front(&server, None, config);
    (store, server, front)
}

fn only(store: &CheckingStore) -> Taken {
    let taken = store.taken();
    assert_eq!(taken.len(), 1, "{taken:?}");
    taken.into_iter().next().unwrap()
}

#[tokio::test]
async fn every_form_of_body_arrives_whole_over_plain_and_tls() {
    let pki = Pki::new();
    for (tls, http2) in [(false, false), (true, false), (true, true)] {
        let store = CheckingStore::new();
        let pki = tls.then_some(&pki);
        let server = store.start(pki);
        let front = front_with(&server, pki, gateway(), |config| {
            config.upstream_http2 = http2
        });
        let mut sent = Vec::new();
        for size in [0, 1, 5000, 65_536, 300_000] {
            let body: Bytes = (0..size)
                .map(|i| (i % 253) as u8)
                .collect::<Vec<_>>()
                .into();
            for (form, over_plain, over_tls) in [
                (
                    PayloadHash::Unsigned,
                    PayloadHash::StreamingSigned,
                    PayloadHash::Unsigned,
                ),
                (hash_of(&body), hash_of(&body), hash_of(&body)),
                (
                    PayloadHash::StreamingSigned,
                    PayloadHash::StreamingSigned,
                    PayloadHash::Unsigned,
                ),
                (
                    PayloadHash::StreamingSignedTrailer,
                    PayloadHash::StreamingSignedTrailer,
                    PayloadHash::StreamingUnsignedTrailer,
                ),
                (
                    PayloadHash::StreamingUnsignedTrailer,
                    PayloadHash::StreamingSignedTrailer,
                    PayloadHash::StreamingUnsignedTrailer,
                ),
            ] {
                let mut draft = Draft::put("/b/k", form, body.clone());
                let trailing = form == PayloadHash::StreamingSignedTrailer
                    || form == PayloadHash::StreamingUnsignedTrailer;
                if trailing {
                    draft = draft.with_trailer(CRC.0, CRC.1);
                }
                let outcome = outcome(draft.send(&front).await).await;
                assert_eq!(
                    outcome,
                    (200, String::new()),
                    "{form:?} {size} tls={tls} http2={http2}"
                );
                let arrives = if tls { over_tls } else { over_plain };
                sent.push((body.clone(), trailing, size, arrives));
            }
        }
        for (taken, (body, trailing, size, arrives)) in store.taken().into_iter().zip(sent) {
            assert_eq!(taken.body, body);
            if trailing {
                // Small signed bodies are read first, and their trailers become headers.
                let checksum = taken.trailers.get(CRC.0).or(taken.header(CRC.0));
                assert_eq!(checksum, Some(CRC.1));
            }
            if size == 300_000 {
                assert_eq!(taken.payload, arrives);
            }
            assert_eq!(taken.uri.path(), "/b/k");
        }
    }
}

#[tokio::test]
async fn what_a_client_signs_wrongly_never_reaches_a_store() {
    let (store, _server, front) = world();
    let now = SystemClock.now();
    let get = Draft::get("/b/k");
    let wrong_secret = Draft {
        as_user: ("ann", "guess"),
        ..get.clone()
    };
    let nobody = Draft {
        as_user: ("bob", "bob-secret"),
        ..get.clone()
    };
    let late = Draft {
        at: UnixMillis(now.0 - 16 * 60 * 1000),
        ..get.clone()
    };
    let early = Draft {
        at: UnixMillis(now.0 + 16 * 60 * 1000),
        ..get.clone()
    };
    for (draft, status, code) in [
        (&wrong_secret, 403, "SignatureDoesNotMatch"),
        (&nobody, 403, "InvalidAccessKeyId"),
        (&late, 403, "RequestTimeTooSkewed"),
        (&early, 403, "RequestTimeTooSkewed"),
    ] {
        let got = outcome(draft.send(&front).await).await;
        assert_eq!(got, (status, code.to_owned()));
    }
    let anonymous = support::get("/b/k");
    let got = outcome(send(&front, anonymous).await).await;
    assert_eq!(got, (403, "AccessDenied".to_owned()));
    assert_eq!(store.begun(), 0);
}

#[tokio::test]
async fn a_signature_is_good_for_its_own_request_only() {
    let (store, _server, front) = world();
    let host = front.plain.addr.to_string();
    let draft = Draft::put("/b/k?tagging", PayloadHash::Unsigned, "x").with("x-amz-meta-a", "1");
    let changes: [fn(&mut http::Request<Body>); 6] = [
        |request| *request.uri_mut() = "/b/other?tagging".parse().unwrap(),
        |request| *request.uri_mut() = "/b/k?tagging&versionId=1".parse().unwrap(),
        |request| *request.method_mut() = Method::DELETE,
        |request| {
            drop(
                request
                    .headers_mut()
                    .insert("x-amz-meta-a", "2".parse().unwrap()),
            )
        },
        |request| {
            drop(
                request
                    .headers_mut()
                    .insert("x-amz-acl", "public-read".parse().unwrap()),
            )
        },
        |request| {
            drop(
                request
                    .headers_mut()
                    .insert("host", "elsewhere".parse().unwrap()),
            )
        },
    ];
    for change in changes {
        let (mut request, body) = draft.signed(&host);
        change(&mut request);
        *request.body_mut() = Body::full(body);
        let (status, code) = outcome(send(&front, request).await).await;
        assert_eq!(status, 403, "{code}");
        assert!(
            ["SignatureDoesNotMatch", "AccessDenied"].contains(&&*code),
            "{code}"
        );
    }
    assert_eq!(store.begun(), 0);
}

#[tokio::test]
async fn links_are_taken_until_they_expire_and_lose_their_signature() {
    let (store, _server, front) = world();
    let host = front.plain.addr.to_string();
    let link = |at: UnixMillis, query: &str| {
        let draft = Draft::get("/");
        let uri = format!("http://{host}/b/a%2Fb//c%20d{query}")
            .parse()
            .unwrap();
        let headers = http::HeaderMap::new();
        let link = draft.signer().presign(&Method::GET, &uri, &headers, 60, at);
        link.unwrap()
    };
    let now = SystemClock.now();
    let good = link(
        now,
        "?response-content-type=a%2Fb&x-id=GetObject&x-amz-meta-h=1",
    );
    assert_eq!(
        outcome(send(&front, support::get(&good)).await).await.0,
        200
    );
    let taken = only(&store);
    assert_eq!(
        taken.uri,
        "/b/a/b//c%20d?response-content-type=a%2Fb&x-id=GetObject"
    );
    assert_eq!(taken.header("x-amz-meta-h"), Some("1"));
    for (link, code) in [
        (link(UnixMillis(now.0 - 61_000), ""), "AccessDenied"),
        (good.replace("c%20d", "other"), "SignatureDoesNotMatch"),
        (
            good.replace("GetObject", "PutObject"),
            "SignatureDoesNotMatch",
        ),
        (format!("{good}&versionId=1"), "SignatureDoesNotMatch"),
    ] {
        let got = outcome(send(&front, support::get(&link)).await).await;
        assert_eq!(got, (403, code.to_owned()), "{link}");
    }
    let customer = link(
        now,
        "?X-Amz-Server-Side-Encryption-Customer-Algorithm=AES256",
    );
    let got = outcome(send(&front, support::get(&customer)).await).await;
    assert_eq!(got, (400, "InvalidRequest".to_owned()));
    assert_eq!(store.begun(), 1);
}

/// Small bodies are looked at first; of large ones the store gets a part, and takes nothing.
#[tokio::test]
async fn a_body_that_was_changed_is_never_whole_at_the_store() {
    let pki = Pki::new();
    for (tls, http2) in [(false, false), (true, false), (true, true)] {
        let store = CheckingStore::new();
        let pki = tls.then_some(&pki);
        let server = store.start(pki);
        let front = front_with(&server, pki, gateway(), |config| {
            config.upstream_http2 = http2
        });
        check_changed_bodies(&store, &front).await;
    }
}

async fn check_changed_bodies(store: &CheckingStore, front: &Front) {
    let host = front.plain.addr.to_string();
    for size in [1000, 400_000] {
        let body = vec![7; size];
        for (form, code) in [
            (PayloadHash::StreamingSigned, "SignatureDoesNotMatch"),
            (PayloadHash::StreamingSignedTrailer, "SignatureDoesNotMatch"),
            (hash_of(&body), "XAmzContentSHA256Mismatch"),
        ] {
            let draft = Draft::put("/b/k", form, body.clone());
            let before = store.begun();
            let (mut request, framed) = draft.signed(&host);
            let mut framed = framed.to_vec();
            // In the data of the last chunk.
            let at = framed.len() - 600.min(framed.len() / 2);
            framed[at] ^= 1;
            *request.body_mut() = Body::full(framed);
            let (status, got) = outcome(send(front, request).await).await;
            assert!(status == 403 || status == 400, "{status} {got}");
            assert_eq!(got, code, "{form:?} {size}");
            if size == 1000 {
                assert_eq!(store.begun(), before, "{form:?}");
            }
        }
    }
    assert!(store.taken().is_empty());
    // The gateway goes on.
    let good = Draft::put("/b/k", PayloadHash::StreamingSigned, "fine");
    assert_eq!(outcome(good.send(front).await).await.0, 200);
    assert_eq!(only(store).body, "fine");
}

#[tokio::test]
async fn an_empty_upload_with_a_wrong_end_reaches_nobody() {
    let (store, _server, front) = world();
    let draft = Draft::put("/b/k", PayloadHash::StreamingSigned, "");
    let (mut request, framed) = draft.signed(&front.plain.addr.to_string());
    let mut framed = framed.to_vec();
    let at = framed.len() - 6;
    framed[at] = if framed[at] == b'0' { b'1' } else { b'0' };
    *request.body_mut() = Body::full(framed);
    let got = outcome(send(&front, request).await).await;
    assert_eq!(got, (403, "SignatureDoesNotMatch".to_owned()));
    assert_eq!(store.begun(), 0);
}

#[tokio::test]
async fn headers_survive_and_those_of_the_client_s_signature_do_not() {
    let (store, _server, front) = world();
    let draft = Draft::put(
        "/b/dir//a+b%20%2Bc%C3%A9?x-id=PutObject",
        PayloadHash::Unsigned,
        "x",
    )
    .with("amz-sdk-invocation-id", "i")
    .with("amz-sdk-request", "attempt=1; max=3")
    .with("x-amz-sdk-checksum-algorithm", "CRC32")
    .with(CRC.0, CRC.1)
    .with("x-amz-meta-odd", "a  b")
    .with("x-amz-meta-odd", "\u{e9}")
    .with("x-amz-meta-rfc2047", "=?UTF-8?Q?=C3=A9?=")
    .with("content-encoding", "gzip")
    .with("content-type", "text/plain; charset=x")
    .with("if-none-match", "*")
    .with("referer", "https://audit.example.org/x?op=1")
    .with("user-agent", "test");
    assert_eq!(outcome(draft.send(&front).await).await.0, 200);
    let taken = only(&store);
    assert_eq!(taken.uri, "/b/dir//a%2Bb%20%2Bc%C3%A9?x-id=PutObject");
    for (name, value) in &draft.headers {
        let got: Vec<_> = taken.headers.get_all(name).iter().collect();
        if name == "content-encoding" {
            assert_eq!(got, ["aws-chunked,gzip"]);
        } else {
            assert!(got.contains(&value), "{name}: {got:?}");
        }
    }
    let authorization = taken.header("authorization").unwrap();
    assert!(
        authorization.contains("Credential=store-key/"),
        "{authorization}"
    );
    let host = taken.header("host").unwrap();
    assert_ne!(host, front.plain.addr.to_string());
}

fn rule(bucket: &str, add: Option<Encryption>, require: Require) -> EncryptionRule {
    EncryptionRule {
        bucket: Some(bucket.to_owned()),
        prefix: String::new(),
        add,
        require,
        replace: false,
    }
}

fn kms() -> Option<Encryption> {
    let key = Some("lake-key".to_owned());
    Some(Encryption::Kms { key })
}

#[tokio::test]
async fn encryption_rules_are_in_force_for_new_objects() {
    let mut config = gateway();
    config.encryption = vec![
        rule("lake", kms(), Require::Kms),
        rule("strict", None, Require::Any),
    ];
    let (store, _server, front) = with(config);
    let put = |uri: &str| Draft::put(uri, PayloadHash::Unsigned, "x");
    assert_eq!(outcome(put("/lake/k").send(&front).await).await.0, 200);
    let post = Draft::new(Method::POST, "/lake/k?uploads");
    assert_eq!(outcome(post.send(&front).await).await.0, 200);
    let copy = Draft::new(Method::PUT, "/lake/k").with("x-amz-copy-source", "other/k");
    assert_eq!(outcome(copy.send(&front).await).await.0, 200);
    for taken in store.taken() {
        // Signed, too: the store takes no such header unsigned.
        assert_eq!(taken.header(SSE), Some("aws:kms"));
        assert_eq!(taken.header(KEY_ID), Some("lake-key"));
    }
    let part = put("/lake/k?partNumber=1&uploadId=u");
    assert_eq!(outcome(part.send(&front).await).await.0, 200);
    assert_eq!(store.taken()[3].header(SSE), None);
    let before = store.begun();
    for draft in [put("/lake/k").with(SSE, "AES256"), put("/strict/k")] {
        let got = outcome(draft.send(&front).await).await;
        assert_eq!(got, (403, "AccessDenied".to_owned()));
    }
    assert_eq!(store.begun(), before);
}

#[tokio::test]
async fn policies_decide_before_a_store_is_asked() {
    let policy = r#"{"Statement": [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:DeleteObject"], "Resource": "arn:aws:s3:::lake/*"},
        {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::lake/secret/*"}
    ]}"#;
    let mut config = gateway();
    config.users.push(user("bob", policy));
    let (store, _server, front) = with(config);
    let bob = |method: Method, uri: &str| Draft {
        as_user: ("bob", "bob-secret"),
        ..Draft::new(method, uri)
    };
    let delete = |keys: &[&str]| {
        let objects: String = keys
            .iter()
            .map(|key| format!("<Object><Key>{key}</Key></Object>"))
            .collect();
        Draft {
            body: format!("<Delete>{objects}</Delete>").into(),
            ..bob(Method::POST, "/lake?delete")
        }
    };
    assert_eq!(
        outcome(bob(Method::GET, "/lake/a").send(&front).await)
            .await
            .0,
        200
    );
    assert_eq!(outcome(delete(&["a", "b"]).send(&front).await).await.0, 200);
    assert_eq!(store.begun(), 2);
    for draft in [
        bob(Method::GET, "/lake/secret/a"),
        bob(Method::PUT, "/lake/a"),
        bob(Method::GET, "/lake"),
        bob(Method::GET, "/other/a"),
        delete(&["a", "secret/b"]),
    ] {
        let got = outcome(draft.send(&front).await).await;
        assert_eq!(got, (403, "AccessDenied".to_owned()), "{}", draft.uri);
    }
    assert_eq!(store.begun(), 2);
}

#[tokio::test]
async fn a_renamed_bucket_has_one_name_before_the_gateway() {
    let mut config = gateway();
    config.buckets = vec![BucketRoute {
        name: "lake".to_owned(),
        store: 0,
        upstream_name: "lake-7".to_owned(),
    }];
    config.domains = vec!["s3.test".to_owned()];
    let store = CheckingStore::answering(|taken| {
        let list = "<ListBucketResult><Name>lake-7</Name><Contents><Key>lake-7</Key></Contents></ListBucketResult>";
        let mut response = Response::new(Body::full(list));
        response
            .headers_mut()
            .insert("content-type", "application/xml".parse().unwrap());
        response
            .headers_mut()
            .insert("content-length", list.len().into());
        if taken.method == Method::PUT {
            *response.body_mut() = Body::empty();
            response.headers_mut().remove("content-length");
            response
                .headers_mut()
                .insert("location", "/lake-7".parse().unwrap());
        }
        response
    });
    let server = store.start(None);
    let front = front(&server, None, config);
    let list = text(Draft::get("/lake?prefix=a+b").send(&front).await).await;
    assert_eq!(
        list,
        "<ListBucketResult><Name>lake</Name><Contents><Key>lake-7</Key></Contents></ListBucketResult>"
    );
    // An object that looks like a list is an object.
    let object = text(Draft::get("/lake/k").send(&front).await).await;
    assert!(object.contains("<Name>lake-7</Name>"));
    let copy = Draft::new(Method::PUT, "/k")
        .with("host", "lake.s3.test")
        .with("x-amz-copy-source", "/lake/a%2Fb?versionId=1");
    let answer = copy.send(&front).await;
    assert_eq!(answer.headers()["location"], "http://lake.s3.test/k");
    let taken = store.taken();
    assert_eq!(taken[0].uri, "/lake-7?prefix=a%20b");
    assert_eq!(taken[2].uri, "/lake-7/k");
    assert_eq!(
        taken[2].header("x-amz-copy-source"),
        Some("/lake-7/a/b?versionId=1")
    );
    let got = outcome(Draft::get("/lake-7/k").send(&front).await).await;
    assert_eq!(got, (404, "NoSuchBucket".to_owned()));
    let policy = Draft::get("/lake?policy");
    assert_eq!(outcome(policy.send(&front).await).await.1, "NotImplemented");
    assert_eq!(store.begun(), 3);
}

/// A store that decodes the path first would take these for an object, past the rules for its bucket.
#[tokio::test]
async fn a_bucket_s_name_cannot_hold_a_path() {
    let mut config = gateway();
    config.encryption = vec![rule("lake", None, Require::Kms)];
    let (store, _server, front) = with(config);
    for uri in [
        "/lake%2Fk",
        "/lake%2fk",
        "/..",
        "/%2E%2E/lake/k",
        "/lake%00/k",
    ] {
        let put = Draft::put(uri, PayloadHash::Unsigned, "x");
        let got = outcome(put.send(&front).await).await;
        assert_eq!(got, (400, "InvalidBucketName".to_owned()), "{uri}");
    }
    assert_eq!(store.begun(), 0);
}

#[tokio::test]
async fn what_is_not_carried_is_said_so() {
    let (store, _server, front) = world();
    for (draft, status, code) in [
        (
            Draft::new(Method::POST, "/b").with("content-type", "multipart/form-data; boundary=x"),
            501,
            "NotImplemented",
        ),
        (Draft::get("//k"), 400, "InvalidURI"),
        (Draft::get("/b?session"), 501, "NotImplemented"),
        (Draft::get("/b/k?tagging&acl"), 400, "InvalidRequest"),
        (
            Draft::put("/b/k", PayloadHash::Unsigned, "x")
                .with("x-amz-server-side-encryption-customer-key", "x"),
            400,
            "InvalidRequest",
        ),
    ] {
        let got = outcome(draft.send(&front).await).await;
        assert_eq!(got, (status, code.to_owned()), "{}", draft.uri);
    }
    assert_eq!(store.begun(), 0);
}

#[tokio::test]
async fn bodies_are_signed_as_the_operator_says() {
    let pki = Pki::new();
    for (sign_body, expected) in [
        (SignBody::On, PayloadHash::StreamingSigned),
        (SignBody::Off, PayloadHash::Unsigned),
    ] {
        let mut config = gateway();
        config.sign_body = sign_body;
        let store = CheckingStore::new();
        let server = store.start(Some(&pki));
        let front = front(&server, Some(&pki), config);
        let put = Draft::put("/b/k", PayloadHash::Unsigned, "x");
        assert_eq!(outcome(put.send(&front).await).await.0, 200);
        assert_eq!(only(&store).payload, expected);
    }
}
