//! `moat pki` makes files that Java and our servers read, with the modes that they need.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use support::{Ran, moat, run};

fn pki(folder: &Path, arguments: &[&str]) -> Ran {
    run(moat().current_dir(folder).arg("pki").args(arguments))
}

fn fine(folder: &Path, arguments: &[&str]) -> String {
    let ran = pki(folder, arguments);
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
    ran.out
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn keytool_list(folder: &Path, file: &str, format: &str, password: &str) -> String {
    let output = Command::new("keytool")
        .current_dir(folder)
        .args([
            "-list",
            "-keystore",
            file,
            "-storetype",
            format,
            "-storepass",
            password,
        ])
        .output()
        .expect("keytool of a JDK is on the PATH");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_ca_a_leaf_and_keystores_that_java_reads() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fine(
        at,
        &["ca", "Lake CA", "--out", "ca", "--permit", "lake.example"],
    );
    assert_eq!(
        (mode(&at.join("ca.crt")), mode(&at.join("ca.key"))),
        (0o644, 0o600)
    );

    std::fs::write(at.join("pw"), "hunter22\n").unwrap();
    std::fs::set_permissions(at.join("pw"), PermissionsExt::from_mode(0o600)).unwrap();
    fine(
        at,
        &[
            "leaf",
            "s1.lake.example",
            "--host",
            "s1.lake.example",
            "--ca",
            "ca.crt",
            "--usage",
            "both",
            "--keystore",
            "pkcs12",
            "--keystore",
            "jks",
            "--password-file",
            "pw",
        ],
    );
    for (file, format) in [
        ("s1.lake.example.p12", "PKCS12"),
        ("s1.lake.example.jks", "JKS"),
    ] {
        assert_eq!(mode(&at.join(file)), 0o600);
        let listed = keytool_list(at, file, format, "hunter22");
        assert!(listed.contains("PrivateKeyEntry"), "{listed}");
    }

    for (format, java) in [("pkcs12", "PKCS12"), ("jks", "JKS")] {
        fine(
            at,
            &["truststore", "ca.crt", "--out", "trust", "--format", format],
        );
        let listed = keytool_list(at, "trust", java, "changeit");
        assert!(listed.contains("trustedCertEntry"), "{listed}");
        let shown = fine(at, &["inspect", "trust"]);
        assert!(
            shown.contains("trusted, alias ca-1") && shown.contains("CN=Lake CA"),
            "{shown}"
        );
    }

    let shown = fine(at, &["inspect", "s1.lake.example.crt"]);
    assert!(
        shown.contains("names        s1.lake.example") && shown.contains("server and client"),
        "{shown}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&fine(at, &["inspect", "--json", "ca.crt"])).unwrap();
    assert_eq!(json[0]["ca"], true);
}

#[test]
fn nothing_is_overwritten_and_nothing_useless_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fine(at, &["ca", "x"]);
    let before = std::fs::read(at.join("x.key")).unwrap();
    let again = pki(at, &["ca", "x"]);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("x.crt exists"), "{}", again.err);
    assert_eq!(std::fs::read(at.join("x.key")).unwrap(), before);

    let nameless = pki(at, &["leaf", "y", "--ca", "x.crt"]);
    assert!(nameless.err.contains("--host"), "{}", nameless.err);
    let odd = pki(at, &["leaf", "y", "--ca", "x.crt", "--host", "a b"]);
    assert!(
        odd.err.contains("neither a DNS name nor an IP address"),
        "{}",
        odd.err
    );
    assert!(!at.join("y.crt").exists() && !at.join("y.key").exists());
}

#[test]
fn a_ca_key_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fine(at, &["ca", "x"]);
    std::fs::set_permissions(at.join("x.key"), PermissionsExt::from_mode(0o644)).unwrap();
    let ran = pki(at, &["leaf", "y", "--ca", "x.crt", "--host", "y"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("chmod 600"), "{}", ran.err);
}

#[test]
fn an_rsa_ca_is_made_on_request() {
    let folder = tempfile::tempdir().unwrap();
    fine(folder.path(), &["ca", "r", "--algorithm", "rsa-2048"]);
    let shown = fine(folder.path(), &["inspect", "r.crt"]);
    assert!(shown.contains("RSA 2048"), "{shown}");
    assert_eq!(
        pki(folder.path(), &["ca", "s", "--algorithm", "dsa"]).code,
        2
    );
}
