//! `moat up` as its users see it: what the first start makes, that later ones change nothing, how
//! it ends, and each way in which it refuses to start.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod support;
#[path = "support/up.rs"]
mod up_support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use support::{Ran, moat, run};
use up_support::{Server, up};

/// Files whose contents are configuration and keys, with their modes and bytes. State, blobs,
/// audit and locks change by nature.
fn configuration(data: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(data).unwrap().to_owned();
            let is_state = ["kms/state", "kms/audit", "store", "lock", "kms/lock"]
                .iter()
                .any(|state| name == Path::new(state));
            if is_state {
                continue;
            }
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            if path.is_dir() {
                found.insert(name, (mode, Vec::new()));
                folders.push(path);
            } else {
                found.insert(name, (mode, std::fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// Starts on an empty folder and stops, so that a complete folder is left.
fn prepared() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let status = Server::start(&mut up(&data, &[])).terminate();
    assert!(status.success());
    (folder, data)
}

/// Runs a start that must fail, with one line on standard error and code 1.
fn refused(command: &mut Command) -> String {
    let ran: Ran = run(command);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(!ran.out.contains("ready"), "{}", ran.out);
    ran.err
}

#[test]
fn the_first_start_makes_everything_with_narrow_modes() {
    let (_folder, data) = prepared();
    let found = configuration(&data);
    let modes: Vec<(String, u32)> = found
        .iter()
        .map(|(path, (mode, _))| (path.display().to_string(), *mode))
        .collect();
    let expected = [
        ("ca", 0o700),
        ("ca/ca.crt", 0o644),
        ("ca/ca.key", 0o600),
        ("identity", 0o700),
        ("identity/root.key", 0o600),
        ("identity/store.crt", 0o644),
        ("identity/store.key", 0o600),
        ("kms", 0o700),
        ("kms/hsm.key", 0o600),
        ("layout", 0o644),
        ("root.env", 0o600),
        ("tls", 0o700),
        ("tls/kms.crt", 0o644),
        ("tls/kms.key", 0o600),
        ("tls/proxy.crt", 0o644),
        ("tls/proxy.key", 0o600),
        ("tls/store.crt", 0o644),
        ("tls/store.key", 0o600),
        ("trust", 0o755),
        ("trust/ca.pem", 0o644),
        ("trust/truststore.jks", 0o644),
        ("trust/truststore.p12", 0o644),
    ];
    let expected: Vec<(String, u32)> = expected
        .iter()
        .map(|(path, mode)| ((*path).to_owned(), *mode))
        .collect();
    assert_eq!(modes, expected);
    let hsm = String::from_utf8(found[Path::new("kms/hsm.key")].1.clone()).unwrap();
    assert!(hsm.starts_with("hsm:aes256:"));

    for (file, format) in [("truststore.p12", "PKCS12"), ("truststore.jks", "JKS")] {
        let output = Command::new("keytool")
            .current_dir(data.join("trust"))
            .args([
                "-list",
                "-keystore",
                file,
                "-storetype",
                format,
                "-storepass",
                "changeit",
            ])
            .output()
            .expect("keytool of a JDK is on the PATH");
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            listed.contains("moat-ca") && listed.contains("trustedCertEntry"),
            "{listed}"
        );
    }
    let shown = run(moat()
        .arg("pki")
        .arg("inspect")
        .arg(data.join("tls/store.crt")))
    .out;
    assert!(shown.contains("localhost, 127.0.0.1, ::1"), "{shown}");
}

#[test]
fn what_it_prints_says_where_things_are_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&mut up(
        &data,
        &["--bucket", "lake", "--bucket", "raw=none"],
    ));
    for expected in [
        "https://localhost:",
        "http://localhost:",
        "trust/truststore.p12",
        "fs.s3a.endpoint",
        "AWS_CA_BUNDLE",
        "mc alias set",
        "root.env",
        "lake: ",
        "raw: ",
    ] {
        assert!(
            server.said.contains(expected),
            "{expected}: {}",
            server.said
        );
    }
    assert!(server.said.lines().count() <= 15, "{}", server.said);
    let secrets = std::fs::read_to_string(data.join("root.env")).unwrap();
    let password = secrets
        .lines()
        .find_map(|line| line.strip_prefix("MOAT_ROOT_PASSWORD="))
        .unwrap();
    assert!(!server.said.contains(password));
}

#[test]
fn later_starts_change_nothing() {
    let (_folder, data) = prepared();
    let before = configuration(&data);
    let server = Server::start(&mut up(&data, &[]));
    assert!(!server.said.contains("first start"), "{}", server.said);
    assert!(server.terminate().success());
    assert_eq!(configuration(&data), before);
}

#[test]
fn sigterm_and_sigint_end_it_with_code_0() {
    let (_folder, data) = prepared();
    assert_eq!(
        Server::start(&mut up(&data, &[])).terminate().code(),
        Some(0)
    );
    let server = Server::start(&mut up(&data, &[]));
    assert_eq!(server.interrupt().code(), Some(0));
}

#[test]
fn a_port_in_use_is_named_with_its_flag_and_nothing_is_made() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    for flag in [
        "--store-listen",
        "--kms-listen",
        "--proxy-https",
        "--proxy-http",
    ] {
        let mut command = moat();
        command.arg("up").arg("--data").arg(&data);
        for other in [
            "--store-listen",
            "--kms-listen",
            "--proxy-https",
            "--proxy-http",
        ] {
            command.args([
                other,
                if other == flag {
                    &address
                } else {
                    "127.0.0.1:0"
                },
            ]);
        }
        let error = refused(&mut command);
        assert!(error.contains(&address) && error.contains(flag), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!data.exists());
    }
}

#[test]
fn a_second_process_on_the_folder_learns_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&mut up(&data, &[]));
    let error = refused(&mut up(&data, &[]));
    assert!(
        error.contains(&format!("process {}", server.id())),
        "{error}"
    );
    let error = refused(
        moat()
            .args(["kms", "server", "--kms-listen", "127.0.0.1:0", "--data"])
            .arg(&data),
    );
    assert!(error.contains("is in use by process"), "{error}");
}

#[test]
fn a_wrong_hsm_key_is_refused_and_changes_nothing() {
    let (_folder, data) = prepared();
    let right = std::fs::read(data.join("kms/hsm.key")).unwrap();
    let wrong = "hsm:aes256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
    std::fs::write(data.join("kms/hsm.key"), wrong).unwrap();
    let audit = audit_files(&data);
    let error = refused(&mut up(&data, &[]));
    assert!(
        error.contains("hsm.key is not the one that sealed"),
        "{error}"
    );
    assert_eq!(audit_files(&data), audit);

    std::fs::write(data.join("kms/hsm.key"), &right).unwrap();
    let error = refused(up(&data, &[]).env("MOAT_HSM_KEY", wrong));
    assert!(error.contains("in the environment"), "{error}");
    let error = refused(up(&data, &[]).env("MINIO_KMS_HSM_KEY", "nonsense"));
    assert!(error.contains("hsm:aes256:"), "{error}");
    assert!(Server::start(&mut up(&data, &[])).terminate().success());
}

fn audit_files(data: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = std::fs::read_dir(data.join("kms/audit"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

#[test]
fn a_lost_hsm_key_is_not_replaced_by_a_new_one() {
    let (_folder, data) = prepared();
    std::fs::remove_file(data.join("kms/hsm.key")).unwrap();
    let error = refused(&mut up(&data, &[]));
    assert!(error.contains("hsm.key"), "{error}");
    assert!(!data.join("kms/hsm.key").exists());
    // Not even if the mark of completeness is lost as well.
    std::fs::remove_file(data.join("layout")).unwrap();
    let error = refused(&mut up(&data, &[]));
    assert!(error.contains("was sealed with it"), "{error}");
}

#[test]
fn a_folder_of_somebody_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.txt"), "x").unwrap();
    let error = refused(&mut up(folder.path(), &[]));
    assert!(
        error.contains("thesis.txt") && error.contains("holds no Moat data"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_folder_that_may_not_be_read_or_is_no_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = refused(&mut up(&file, &[]));
    assert!(error.contains("can't read the data folder"), "{error}");

    // Root may read everything, so the rest runs as nobody, with a copy of the binary that nobody can reach.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let data = folder.path().join("data");
    assert!(Server::start(&mut up(&data, &[])).terminate().success());
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o000)).unwrap();
    let binary = folder.path().join("moat");
    std::fs::copy(env!("CARGO_BIN_EXE_moat"), &binary).unwrap();
    let mut command = Command::new(&binary);
    command
        .current_dir("/")
        .arg("up")
        .arg("--data")
        .arg(&data)
        .args(up_support::FREE_PORTS);
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let error = refused(&mut command);
    assert!(error.contains("run as the user who owns it"), "{error}");
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn a_clock_behind_the_folder_is_refused() {
    let (_folder, data) = prepared();
    let ahead = SystemTime::UNIX_EPOCH + since_epoch() + Duration::from_secs(2 * 86_400);
    let file = std::fs::File::options()
        .append(true)
        .open(data.join("layout"))
        .unwrap();
    file.set_modified(ahead).unwrap();
    let error = refused(&mut up(&data, &[]));
    assert!(
        error.contains("set the clock") && error.contains("layout"),
        "{error}"
    );
}

#[allow(
    clippy::disallowed_methods,
    reason = "a file's time is set relative to the machine's"
)]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

#[test]
fn an_expired_certificate_is_refused_until_its_file_is_deleted() {
    let (_folder, data) = prepared();
    // The same CA signs an expired certificate for the same key.
    let ca = moat_pki::CertificateAuthority::from_pem(
        &std::fs::read_to_string(data.join("ca/ca.crt")).unwrap(),
        &moat_types::SecretString::new(std::fs::read_to_string(data.join("ca/ca.key")).unwrap()),
    )
    .unwrap();
    let (expired, key) = support::certificate(&ca, &["localhost"], &support::days_from_now(-500));
    std::fs::write(data.join("tls/store.crt"), expired.chain_pem()).unwrap();
    std::fs::write(data.join("tls/store.key"), key.to_pem().expose()).unwrap();
    let error = refused(&mut up(&data, &[]));
    assert!(
        error.contains("store.crt expired at") && error.contains("clock"),
        "{error}"
    );

    std::fs::remove_file(data.join("tls/store.crt")).unwrap();
    let server = Server::start(&mut up(&data, &[]));
    assert!(
        server.said.contains("new certificate for the store"),
        "{}",
        server.said
    );
}

#[test]
fn a_certificate_that_is_due_is_renewed_with_its_key() {
    let (_folder, data) = prepared();
    let ca = moat_pki::CertificateAuthority::from_pem(
        &std::fs::read_to_string(data.join("ca/ca.crt")).unwrap(),
        &moat_types::SecretString::new(std::fs::read_to_string(data.join("ca/ca.key")).unwrap()),
    )
    .unwrap();
    let (old, key) = support::certificate(&ca, &["old.example"], &support::days_from_now(-300));
    std::fs::write(data.join("tls/proxy.crt"), old.chain_pem()).unwrap();
    std::fs::write(data.join("tls/proxy.key"), key.to_pem().expose()).unwrap();
    let server = Server::start(&mut up(&data, &[]));
    assert!(
        server.said.contains("new certificate for the proxy"),
        "{}",
        server.said
    );
    let text = std::fs::read(data.join("tls/proxy.crt")).unwrap();
    let leaf = &moat_pki::CertificateInfo::parse_pem(&text).unwrap()[0];
    assert_eq!(leaf.public_key_sha256, key.public_key_sha256());
    assert!(
        leaf.names
            .iter()
            .any(|name| name.to_string() == "old.example"),
        "{:?}",
        leaf.names
    );
}

#[test]
fn a_host_that_is_asked_for_later_gets_into_the_certificates() {
    let (_folder, data) = prepared();
    let server = Server::start(&mut up(&data, &["--host", "lake.example"]));
    assert!(
        server.said.contains("did not vouch for lake.example"),
        "{}",
        server.said
    );
    drop(server);
    let again = Server::start(&mut up(&data, &["--host", "lake.example"]));
    assert!(!again.said.contains("new certificate"), "{}", again.said);
}

#[test]
fn a_first_start_that_was_cut_off_is_finished() {
    let (_folder, data) = prepared();
    for file in ["layout", "trust/truststore.p12", "tls/kms.crt", "root.env"] {
        std::fs::remove_file(data.join(file)).unwrap();
    }
    let ca = std::fs::read(data.join("ca/ca.crt")).unwrap();
    std::fs::remove_dir_all(data.join("store")).unwrap();
    let server = Server::start(&mut up(&data, &[]));
    assert!(server.said.contains("first start"), "{}", server.said);
    assert!(data.join("trust/truststore.p12").exists() && data.join("root.env").exists());
    assert_eq!(std::fs::read(data.join("ca/ca.crt")).unwrap(), ca);
}

#[test]
fn root_credentials_come_from_the_environment_and_are_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = up(&data, &[]);
    let server = Server::start(
        command
            .env("MINIO_ROOT_USER", "minio")
            .env("MINIO_ROOT_PASSWORD", "hunter22hunter22"),
    );
    assert!(!server.said.contains("hunter22"));
    drop(server);
    assert!(!data.join("root.env").exists());
    let error = refused(&mut up(&data, &[]));
    assert!(error.contains("MOAT_ROOT_USER"), "{error}");
    let error = refused(
        up(&data, &[])
            .env("MOAT_ROOT_USER", "minio")
            .env("MOAT_ROOT_PASSWORD", "short"),
    );
    assert!(error.contains("8 characters"), "{error}");
}

#[test]
fn every_problem_of_a_configuration_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(
        &file,
        "lisen = 1\n[store]\nlisten = \"nowhere\"\n[log]\nformat = \"xml\"\n",
    )
    .unwrap();
    let data = folder.path().join("data");
    let error = refused(
        moat()
            .args(["up", "--bucket", "No", "--data"])
            .arg(&data)
            .arg("--config")
            .arg(&file),
    );
    for expected in [
        "4 problems",
        "lisen is not a setting",
        "store.listen is \"nowhere\"",
        "log.format is \"xml\"",
        "--bucket: buckets is \"No\"",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(!data.exists());
}

#[test]
fn a_configuration_file_in_the_folder_is_found() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("moat.toml"),
        "buckets = [\"from-file\"]\n",
    )
    .unwrap();
    let server = Server::start(&mut up(folder.path(), &[]));
    assert!(
        server.said.contains("from-file: encrypted by default"),
        "{}",
        server.said
    );
}
