//! `moat doctor` against small servers, each with one thing wrong: the finding names it and the fix.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod support;

use std::net::SocketAddr;
use std::path::PathBuf;

use moat_types::SystemClock;
use support::{
    Answer, Head, Ran, answer, authority, certificate, days_from_now, error, moat, run, serve,
    server_config,
};

/// A healthy S3 server with one bucket of one object.
fn healthy(head: &Head) -> Answer {
    match head.line() {
        "GET /lake?list-type=2&max-keys=1" => answer(
            "200 OK",
            "<ListBucketResult><Key>a &amp; b/c</Key></ListBucketResult>",
        ),
        "GET /lake?encryption=" => answer(
            "200 OK",
            "<SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>lake-key</KMSMasterKeyID>",
        ),
        "HEAD /lake/a%20%26%20b/c" => answer("200 OK", ""),
        "GET /" | "GET /minio/health/live" | "GET /minio/health/ready" => answer("200 OK", ""),
        _ => error("404 Not Found", "NoSuchKey", "no such thing"),
    }
}

fn doctor(url: &str, arguments: &[&str]) -> Ran {
    run(moat().arg("doctor").arg(url).args(arguments))
}

fn with_credentials(address: SocketAddr, arguments: &[&str]) -> Ran {
    run(moat()
        .args(["doctor", &format!("http://{address}")])
        .args(arguments)
        .env("AWS_ACCESS_KEY_ID", "alice")
        .env("AWS_SECRET_ACCESS_KEY", "correct-horse"))
}

/// A TLS server whose certificate has these names and was made some days from now; and its CA as a file.
fn tls_server(names: &[&str], days: i64) -> (SocketAddr, tempfile::TempDir, PathBuf) {
    let ca = authority();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, ca.certificate_pem()).unwrap();
    let config = server_config(&certificate(&ca, names, &days_from_now(days)));
    (serve(Some(config), healthy), folder, path)
}

#[test]
fn a_healthy_endpoint_is_fine() {
    let (address, _folder, ca) = tls_server(&["127.0.0.1"], 0);
    let ran = doctor(
        &format!("https://{address}"),
        &["--ca", ca.to_str().unwrap(), "--s3a"],
    );
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("no problem found"));
    assert!(ran.out.contains("fs.s3a.path.style.access        true"));
    assert!(ran.out.contains("spark.executor.extraJavaOptions"));
}

#[test]
fn json_is_for_scripts() {
    let (address, _folder, ca) = tls_server(&["127.0.0.1"], 0);
    let ran = doctor(
        &format!("https://{address}"),
        &["--ca", ca.to_str().unwrap(), "--json"],
    );
    let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(value["fine"], true);
    assert!(
        value["findings"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["check"] == "certificate-trust")
    );
}

#[test]
fn an_untrusted_ca_comes_with_the_settings_that_trust_it() {
    let (address, _folder, _) = tls_server(&["127.0.0.1"], 0);
    let ran = doctor(&format!("https://{address}"), &[]);
    assert_eq!(ran.code, 1, "{}", ran.out);
    for expected in [
        "PROBLEM the certificate was issued by CN=test CA",
        "-Djavax.net.ssl.trustStore=",
        "AWS_CA_BUNDLE",
        "~/.mc/certs/CAs/",
    ] {
        assert!(ran.out.contains(expected), "{expected}: {}", ran.out);
    }
}

#[test]
fn credentials_are_not_sent_to_a_server_that_is_not_trusted() {
    let ca = authority();
    let config = server_config(&certificate(&ca, &["127.0.0.1"], &SystemClock));
    let address = serve(Some(config), |head| {
        assert!(
            head.header("authorization").is_none(),
            "a signature went out"
        );
        healthy(head)
    });
    let ran = run(moat()
        .args(["doctor", &format!("https://{address}")])
        .env("AWS_ACCESS_KEY_ID", "alice")
        .env("AWS_SECRET_ACCESS_KEY", "correct-horse"));
    assert!(
        ran.out.contains("the credentials were not tried"),
        "{}",
        ran.out
    );
}

#[test]
fn an_expired_certificate_is_named() {
    let (address, _folder, ca) = tls_server(&["127.0.0.1"], -500);
    let ran = doctor(
        &format!("https://{address}"),
        &["--ca", ca.to_str().unwrap()],
    );
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("expired at"), "{}", ran.out);
    assert!(!ran.out.contains("does not trust"), "{}", ran.out);
}

#[test]
fn a_certificate_for_another_name_lists_its_names() {
    let (address, _folder, ca) = tls_server(&["store.example", "10.0.0.1"], 0);
    let ran = doctor(
        &format!("https://{address}"),
        &["--ca", ca.to_str().unwrap()],
    );
    assert_eq!(ran.code, 1);
    assert!(
        ran.out
            .contains("does not vouch for 127.0.0.1; it vouches for store.example, 10.0.0.1"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("--host 127.0.0.1"), "{}", ran.out);
}

#[test]
fn a_port_where_nothing_listens_is_refused() {
    // Bound and dropped: free, at least for a moment.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let ran = doctor(&format!("https://{address}"), &[]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("Nothing listens there"), "{}", ran.out);
}

#[test]
fn a_name_without_an_address_is_a_dns_problem() {
    let ran = doctor("https://no-such-host.invalid:9000", &[]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("does not resolve"), "{}", ran.out);
}

#[test]
fn https_and_http_mixed_up_are_told_apart() {
    let plain = serve(None, healthy);
    let ran = doctor(&format!("https://{plain}"), &[]);
    assert!(
        ran.out.contains("does not speak TLS on this port"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains(&format!("Use http://{plain}")),
        "{}",
        ran.out
    );

    let (tls, _folder, _) = tls_server(&["127.0.0.1"], 0);
    let ran = doctor(&format!("http://{tls}"), &[]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.out.contains(&format!("Use https://{tls}")),
        "{}",
        ran.out
    );
}

#[test]
fn plain_http_for_s3a_explains_the_message_of_sdk_v1() {
    let ran = doctor(&format!("http://{}", serve(None, healthy)), &["--s3a"]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(
        ran.out
            .contains("HTTPS must be used when sending customer encryption"),
        "{}",
        ran.out
    );
}

#[test]
fn a_head_answer_with_the_key_on_plain_http_is_a_problem() {
    let fine = with_credentials(serve(None, healthy), &["--bucket", "lake"]);
    assert_eq!(fine.code, 0, "{}", fine.out);
    assert!(
        fine.out
            .contains("default encryption is aws:kms with the key lake-key"),
        "{}",
        fine.out
    );
    assert!(
        fine.out.contains("HEAD answers leave out the KMS key"),
        "{}",
        fine.out
    );

    let telling = serve(None, |head| {
        let mut answer = healthy(head);
        if head.line().starts_with("HEAD ") {
            answer.headers.push((
                "x-amz-server-side-encryption-aws-kms-key-id",
                "lake-key".into(),
            ));
        }
        answer
    });
    let ran = with_credentials(telling, &["--bucket", "lake"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.out.contains("Spark 3.x fails at its first rename"),
        "{}",
        ran.out
    );
}

#[test]
fn clock_skew_is_measured() {
    let address = serve(None, |head| {
        let mut answer = healthy(head);
        answer.headers = vec![("date", "Thu, 01 Jan 2015 00:00:00 GMT".into())];
        answer
    });
    let ran = doctor(&format!("http://{address}"), &[]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("RequestTimeTooSkewed"), "{}", ran.out);
}

#[test]
fn an_unreachable_key_manager_is_named() {
    let address = serve(None, |head| match head.line() {
        "GET /minio/health/ready" => error(
            "500 Internal Server Error",
            "kms:KeyGenerationFailed",
            "no key manager",
        ),
        _ => healthy(head),
    });
    let ran = doctor(&format!("http://{address}"), &[]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.out.contains("can't get keys from its key manager"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains("kms:KeyGenerationFailed: no key manager"),
        "{}",
        ran.out
    );
}

/// What the doctor says when the store refuses ListBuckets with this code.
fn refused_with(code: &'static str, body: &'static str) -> String {
    let address = serve(None, move |head| match head.line() {
        "GET /" => answer(
            "403 Forbidden",
            &format!("<Error><Code>{code}</Code><Message>no</Message>{body}</Error>"),
        ),
        _ => healthy(head),
    });
    let ran = with_credentials(address, &[]);
    assert_eq!(ran.code, i32::from(code != "AccessDenied"), "{}", ran.out);
    assert!(!format!("{}{}", ran.out, ran.err).contains("correct-horse"));
    ran.out
}

#[test]
fn each_refusal_of_credentials_has_its_explanation() {
    assert!(refused_with("InvalidAccessKeyId", "").contains("does not know the access key alice"));
    assert!(
        refused_with("SignatureDoesNotMatch", "")
            .contains("the secret does not belong to the access key alice")
    );
    assert!(refused_with("RequestTimeTooSkewed", "").contains("clocks differ"));
    assert!(
        refused_with(
            "AuthorizationHeaderMalformed",
            "<Region>eu-north-1</Region>"
        )
        .contains("AWS_REGION=eu-north-1")
    );
    assert!(refused_with("kms:NotAuthorized", "").contains("key manager refuses"));
    assert!(refused_with("AccessDenied", "").contains("is accepted, but may not do this"));
}

#[test]
fn a_url_with_a_path_is_refused_at_once() {
    let ran = doctor("https://localhost:9000/bucket", &[]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err.contains("only scheme, host and port"),
        "{}",
        ran.err
    );
}
