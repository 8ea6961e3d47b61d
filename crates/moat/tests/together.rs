//! The servers with their clients: a bucket that `moat up` made, through each listener; the key
//! manager's commands and their effect on the store; the same servers as three processes.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

#[path = "support/s3.rs"]
mod s3_support;
mod support;
#[path = "support/up.rs"]
mod up_support;

use std::path::Path;

use s3_support::{S3, header};
use support::{Ran, moat, run};
use up_support::{Server, up};

const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";

fn kms(data: &Path, arguments: &[&str]) -> Ran {
    run(moat().arg("kms").args(arguments).arg("--data").arg(data))
}

fn fine(data: &Path, arguments: &[&str]) -> String {
    let ran = kms(data, arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}{}", ran.out, ran.err);
    ran.out
}

/// Writes and reads an object through an endpoint, and returns the HEAD answer's key id.
fn round_trip(s3: &S3, endpoint: &str, key: &str) -> String {
    let url = format!("{endpoint}/lake/{key}");
    let put = s3.send("PUT", &url, &[], "some plain text");
    assert_eq!(put.status(), 200, "{endpoint}: {}", put.body());
    assert_eq!(header(&put, "x-amz-server-side-encryption"), "aws:kms");
    assert_eq!(s3.send("GET", &url, &[], "").body(), "some plain text");
    header(&s3.send("HEAD", &url, &[], ""), KEY_ID).to_owned()
}

#[test]
fn the_bucket_of_up_is_encrypted_under_its_key_on_every_listener() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&mut up(
        &data,
        &["--bucket", "lake", "--bucket", "raw=none"],
    ));
    let s3 = S3::new(&data);
    assert_eq!(round_trip(&s3, &server.url("store "), "direct"), "lake-key");
    assert_eq!(round_trip(&s3, &server.url("proxy "), "https"), "lake-key");
    // The rule for SDK v1: a HEAD answer on a plain listener does not name the key.
    assert_eq!(round_trip(&s3, &server.plain_url(), "http"), "");

    let raw = s3.send("PUT", &format!("{}/raw/x", server.url("store ")), &[], "x");
    assert_eq!(header(&raw, "x-amz-server-side-encryption"), "AES256");

    let ca = data.join("trust/ca.pem");
    let ran = run(moat()
        .args([
            "doctor",
            &server.url("proxy "),
            "--s3a",
            "--bucket",
            "lake",
            "--ca",
        ])
        .arg(&ca)
        .arg("--credentials")
        .arg(data.join("root.env")));
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(
        ran.out.contains("aws:kms with the key lake-key"),
        "{}",
        ran.out
    );
    let ran = run(moat()
        .args([
            "doctor",
            &server.plain_url(),
            "--bucket",
            "lake",
            "--credentials",
        ])
        .arg(data.join("root.env")));
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(
        ran.out.contains("HEAD answers leave out the KMS key"),
        "{}",
        ran.out
    );
}

#[test]
fn objects_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&mut up(&data, &["--bucket", "lake"]));
    let s3 = S3::new(&data);
    round_trip(&s3, &server.url("store "), "kept");
    assert!(server.terminate().success());
    let server = Server::start(&mut up(&data, &["--bucket", "lake"]));
    assert!(
        server.said.contains("lake: was there already"),
        "{}",
        server.said
    );
    let got = s3.send(
        "GET",
        &format!("{}/lake/kept", server.url("store ")),
        &[],
        "",
    );
    assert_eq!(got.body(), "some plain text");
}

#[test]
fn keys_are_listed_disabled_and_enabled() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&mut up(&data, &["--bucket", "lake"]));
    let listed = fine(&data, &["key", "list"]);
    assert!(
        listed.contains("lake-key") && listed.contains("moat-default"),
        "{listed}"
    );
    assert!(!fine(&data, &["key", "list", "lake"]).contains("moat-default"));

    assert!(fine(&data, &["key", "create", "tenant"]).contains("enabled"));
    let again = kms(&data, &["key", "create", "tenant"]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("already exists"), "{}", again.err);

    let asked = kms(&data, &["key", "disable", "tenant"]);
    assert_eq!(asked.code, 1);
    assert!(
        asked.err.contains("unreadable") && asked.err.contains("--yes"),
        "{}",
        asked.err
    );
    assert!(fine(&data, &["key", "info", "tenant"]).contains("enabled"));

    fine(&data, &["key", "disable", "tenant", "--yes"]);
    let json: serde_json::Value =
        serde_json::from_str(&fine(&data, &["key", "info", "tenant", "--json"])).unwrap();
    assert_eq!(json["enabled"], false);
    // The store has leased nothing under this key, so it learns at once.
    let s3 = S3::new(&data);
    let url = format!("{}/lake/tenant", server.url("store "));
    let headers = [
        ("x-amz-server-side-encryption", "aws:kms"),
        (KEY_ID, "tenant"),
    ];
    let refused = s3.send("PUT", &url, &headers, "x");
    assert!(!refused.status().is_success());
    assert!(
        refused.body().contains("tenant") && refused.body().contains("disabled"),
        "{}",
        refused.body()
    );
    fine(&data, &["key", "enable", "tenant"]);
    assert_eq!(s3.send("PUT", &url, &headers, "x").status(), 200);

    let missing = kms(&data, &["key", "disable", "nothing", "--yes"]);
    assert!(missing.err.contains("does not exist"), "{}", missing.err);
}

#[test]
fn the_audit_shows_leases_and_proves_itself() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&mut up(&data, &["--bucket", "lake"]));
    round_trip(&S3::new(&data), &server.url("store "), "x");
    let shown = fine(&data, &["audit", "show", "--key", "lake-key"]);
    assert!(
        shown.contains("EPOCH:GENERATE") && shown.contains("lake-key@1") && shown.contains("lake "),
        "{shown}"
    );
    // As many as a script asks for that means all of them.
    let all = fine(&data, &["audit", "show", "--last", &usize::MAX.to_string()]);
    assert!(all.lines().count() > shown.lines().count(), "{all}");
    assert_eq!(
        fine(&data, &["audit", "show", "--last", "1"])
            .lines()
            .count(),
        2
    );
    let verified: serde_json::Value =
        serde_json::from_str(&fine(&data, &["audit", "verify", "--json"])).unwrap();
    assert_eq!(verified["good"], true);
    assert_eq!(verified["against_key_manager"], true);
    assert!(server.terminate().success());

    let verified: serde_json::Value =
        serde_json::from_str(&fine(&data, &["audit", "verify", "--json"])).unwrap();
    assert_eq!(verified["against_key_manager"], false);
    let files = std::fs::read_dir(data.join("kms/audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let file = files
        .into_iter()
        .find(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("EPOCH:GENERATE", "EPOCH:GENERATF", 1)).unwrap();
    let ran = kms(&data, &["audit", "verify"]);
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("DAMAGED"), "{}", ran.out);
}

#[test]
fn status_says_who_we_are_and_that_nothing_answers() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&mut up(&data, &[]));
    let status: serde_json::Value =
        serde_json::from_str(&fine(&data, &["status", "--json"])).unwrap();
    assert_eq!(status["ready"], true);
    assert_eq!(status["enclave_usable"], true);
    assert_eq!(
        status["endpoint"],
        format!("https://127.0.0.1:{}", server.port("key manager "))
    );
    let listed = fine(&data, &["identity", "list"]);
    assert!(
        listed.contains("User") && listed.contains("store"),
        "{listed}"
    );
    // The store's own certificate is no operator's.
    let stranger: serde_json::Value =
        serde_json::from_str(&run(moat().args(["kms", "identity", "new", "--json"])).out).unwrap();
    let ran = run(moat()
        .args(["kms", "key", "list", "--data"])
        .arg(&data)
        .env("MOAT_KMS_API_KEY", stranger["api_key"].as_str().unwrap()));
    assert_eq!(ran.code, 1);
    assert!(!ran.out.contains("moat-default"), "{}", ran.out);
    assert!(server.terminate().success());
    let ran = kms(&data, &["status"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("does not answer"), "{}", ran.err);
}

#[test]
fn three_processes_on_one_folder_do_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = moat();
    let key_manager = Server::start(
        command
            .args(["kms", "server", "--kms-listen", "127.0.0.1:0", "--data"])
            .arg(&data),
    );
    let kms_url = format!("https://127.0.0.1:{}", key_manager.port("key manager "));
    let mut command = moat();
    command
        .args([
            "store",
            "--store-listen",
            "127.0.0.1:0",
            "--kms-endpoint",
            &kms_url,
            "--data",
        ])
        .arg(&data);
    let store = Server::start(&mut command);
    let store_url = format!("https://127.0.0.1:{}", store.port("store "));
    let mut command = moat();
    command
        .args([
            "proxy",
            "--proxy-https",
            "127.0.0.1:0",
            "--proxy-http",
            "127.0.0.1:0",
            "--upstream",
            &store_url,
            "--data",
        ])
        .arg(&data);
    let proxy = Server::start(&mut command);

    let s3 = S3::new(&data);
    fine(&data, &["key", "create", "lake-key"]);
    assert_eq!(
        s3.send("PUT", &format!("{store_url}/lake"), &[], "")
            .status(),
        200
    );
    let rule = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm>\
                <KMSMasterKeyID>lake-key</KMSMasterKeyID></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>";
    assert_eq!(
        s3.send("PUT", &format!("{store_url}/lake?encryption="), &[], rule)
            .status(),
        200
    );
    assert_eq!(round_trip(&s3, &proxy.url("proxy "), "x"), "lake-key");
    assert_eq!(round_trip(&s3, &proxy.plain_url(), "y"), "");

    // Without its key manager the store says so, and the doctor understands it.
    assert!(key_manager.terminate().success());
    let ran = run(moat()
        .args(["doctor", &store_url, "--ca"])
        .arg(data.join("trust/ca.pem")));
    assert_eq!(ran.code, 1, "{}", ran.out);
    assert!(
        ran.out.contains("can't get keys from its key manager"),
        "{}",
        ran.out
    );
    assert!(proxy.terminate().success());
    assert!(store.terminate().success());
}

#[test]
fn a_proxy_alone_with_its_own_certificate_makes_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, data) = (support::authority(), folder.path().join("data"));
    let (issued, key) = support::certificate(&ca, &["localhost"], &support::days_from_now(0));
    let (certificate, private_key) = (folder.path().join("p.crt"), folder.path().join("p.key"));
    std::fs::write(&certificate, issued.chain_pem()).unwrap();
    std::fs::write(&private_key, key.to_pem().expose()).unwrap();
    let upstream = support::serve(None, |_| support::answer("200 OK", ""));
    let mut command = moat();
    command.args([
        "proxy",
        "--proxy-https",
        "127.0.0.1:0",
        "--proxy-http",
        "off",
        "--upstream",
        &format!("http://{upstream}"),
        "--data",
    ]);
    command
        .arg(&data)
        .arg("--proxy-certificate")
        .arg(&certificate)
        .arg("--proxy-private-key")
        .arg(&private_key);
    let server = Server::start(&mut command);
    assert!(server.terminate().success());
    assert!(!data.exists());
}

#[test]
fn logs_are_json_on_request_and_hold_no_secret_even_when_they_hold_everything() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let flags = [
        "--bucket",
        "lake",
        "--log-level",
        "trace",
        "--log-format",
        "json",
    ];
    let server = Server::start(&mut up(&data, &flags));
    let s3 = S3::new(&data);
    round_trip(&s3, &server.url("store "), "x");
    round_trip(&s3, &server.plain_url(), "y");
    fine(&data, &["key", "list"]);
    let log = server.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines.iter().any(|line| line["target"] == "moat::access"));

    let root = std::fs::read_to_string(data.join("root.env")).unwrap();
    let password = root
        .lines()
        .find_map(|line| line.strip_prefix("MOAT_ROOT_PASSWORD="))
        .unwrap();
    let secret = |path: &str| {
        std::fs::read_to_string(data.join(path))
            .unwrap()
            .trim()
            .to_owned()
    };
    let (hsm, api_key) = (secret("kms/hsm.key"), secret("identity/root.key"));
    for (what, secret) in [
        ("root's password", password),
        ("the HSM key", hsm.rsplit(':').next().unwrap()),
        ("the API key", api_key.rsplit(':').next().unwrap()),
        ("the content", "some plain text"),
    ] {
        assert!(!log.contains(secret), "the log holds {what}");
    }
}

#[test]
fn a_server_leaves_no_core_and_may_open_many_files() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&mut up(&folder.path().join("data"), &[]));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let limit = |name: &str| {
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        let numbers: Vec<&str> = line.split_whitespace().collect();
        (numbers[0].to_owned(), numbers[1].to_owned())
    };
    assert_eq!(
        limit("Max core file size"),
        ("0".to_owned(), "0".to_owned())
    );
    let (soft, hard) = limit("Max open files");
    assert_eq!(soft, hard);
}
