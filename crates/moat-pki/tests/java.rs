//! Keystores against the reader they are for: the JDK's own `keytool`, both ways. Guards the two
//! classic failures: a PKCS#12 truststore that Java lists as empty, and a JKS that only we can read.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use moat_pki::{
    CaRequest, CertificateAuthority, CertificateInfo, KeyAlgorithm, Keystore, LEAF_VALIDITY,
    LeafRequest, PrivateKey, SubjectName, Usage, jks, pem, pkcs12,
};
use moat_types::{SecretString, SystemClock, SystemRandom};

const PASSWORD: &str = "changeit";

fn password() -> SecretString {
    SecretString::new(PASSWORD.into())
}

fn keytool(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("keytool")
        .current_dir(folder)
        .args(arguments)
        .output()
        .expect("keytool of a JDK is on the PATH");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "keytool {arguments:?}: {text}");
    text
}

fn list(folder: &Path, file: &str, format: &str) -> String {
    let arguments = [
        "-list",
        "-v",
        "-keystore",
        file,
        "-storetype",
        format,
        "-storepass",
        PASSWORD,
    ];
    keytool(folder, &arguments)
}

fn fingerprint(der: &[u8]) -> String {
    let digits = CertificateInfo::parse(der).unwrap().fingerprint_sha256;
    digits.map(|b| format!("{b:02X}")).join(":")
}

fn authority(algorithm: KeyAlgorithm) -> CertificateAuthority {
    let request = CaRequest {
        common_name: "Moat test CA".into(),
        algorithm,
        validity: Duration::from_secs(86_400),
        permitted: Vec::new(),
    };
    CertificateAuthority::create(&request, &SystemClock, &SystemRandom).unwrap()
}

fn keystore(ca: &CertificateAuthority, algorithm: KeyAlgorithm) -> Keystore {
    let key = PrivateKey::generate(algorithm).unwrap();
    let request = LeafRequest {
        common_name: "store".into(),
        usage: Usage::Both,
        names: vec![SubjectName::parse("localhost").unwrap()],
        validity: LEAF_VALIDITY,
    };
    let issued = ca
        .issue(&request, &key, &SystemClock, &SystemRandom)
        .unwrap();
    Keystore::key("store", key.to_pkcs8(), issued.chain())
}

fn write(format: &str, keystore: &Keystore) -> Vec<u8> {
    match format {
        "PKCS12" => pkcs12::write(keystore, &password()).unwrap(),
        _ => jks::write(keystore, &password(), &SystemClock, &SystemRandom).unwrap(),
    }
}

fn read(format: &str, bytes: &[u8]) -> Keystore {
    match format {
        "PKCS12" => pkcs12::read(bytes, &password()).unwrap(),
        _ => jks::read(bytes, &password()).unwrap(),
    }
}

#[test]
fn java_lists_the_ca_of_a_truststore_as_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority(KeyAlgorithm::EcdsaP256);
    let truststore = Keystore::truststore("moat-ca", ca.certificate());
    for format in ["PKCS12", "JKS"] {
        let bytes = write(format, &truststore);
        std::fs::write(folder.path().join(format), &bytes).unwrap();
        let listed = list(folder.path(), format, format);
        assert!(listed.contains("contains 1 entry"), "{listed}");
        assert!(listed.contains("Alias name: moat-ca"), "{listed}");
        assert!(listed.contains("trustedCertEntry"), "{listed}");
        assert!(listed.contains(&fingerprint(ca.certificate())), "{listed}");
        assert_eq!(read(format, &bytes), truststore);
    }
}

#[test]
fn java_lists_and_converts_keys_of_each_kind() {
    let folder = tempfile::tempdir().unwrap();
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa2048] {
        let ours = keystore(&authority(algorithm), algorithm);
        for (format, other) in [("PKCS12", "JKS"), ("JKS", "PKCS12")] {
            std::fs::write(folder.path().join("in"), write(format, &ours)).unwrap();
            let listed = list(folder.path(), "in", format);
            assert!(listed.contains("PrivateKeyEntry"), "{listed}");
            assert!(listed.contains("Certificate chain length: 2"), "{listed}");
            assert!(
                listed.contains(&fingerprint(&ours.keys[0].chain[0])),
                "{listed}"
            );

            let arguments = [
                "-importkeystore",
                "-noprompt",
                "-srckeystore",
                "in",
                "-srcstoretype",
                format,
                "-srcstorepass",
                PASSWORD,
                "-destkeystore",
                "out",
                "-deststoretype",
                other,
                "-deststorepass",
                PASSWORD,
            ];
            keytool(folder.path(), &arguments);
            let javas = read(other, &std::fs::read(folder.path().join("out")).unwrap());
            std::fs::remove_file(folder.path().join("out")).unwrap();
            assert_eq!(javas.keys[0].alias, "store");
            assert_eq!(javas.keys[0].chain, ours.keys[0].chain);
            let public = |store: &Keystore| {
                let der = store.keys[0].private_key.expose();
                PrivateKey::from_pkcs8(der).unwrap().public_key_sha256()
            };
            assert_eq!(public(&javas), public(&ours));
        }
    }
}

#[test]
fn a_truststore_that_java_made_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let ca = authority(KeyAlgorithm::EcdsaP256);
    std::fs::write(folder.path().join("ca.pem"), ca.certificate_pem()).unwrap();
    for format in ["PKCS12", "JKS"] {
        let arguments = [
            "-importcert",
            "-noprompt",
            "-alias",
            "Ca",
            "-file",
            "ca.pem",
            "-keystore",
            format,
            "-storetype",
            format,
            "-storepass",
            PASSWORD,
        ];
        keytool(folder.path(), &arguments);
        let found = read(format, &std::fs::read(folder.path().join(format)).unwrap());
        assert_eq!(found.trusted.len(), 1);
        assert!(found.trusted[0].alias.eq_ignore_ascii_case("ca"));
        assert_eq!(found.trusted[0].certificate, ca.certificate());
    }
}

#[test]
fn wrong_passwords_are_told_apart_from_damage() {
    let ca = authority(KeyAlgorithm::EcdsaP256);
    let truststore = Keystore::truststore("ca", ca.certificate());
    let wrong = SecretString::new("wrong".into());
    let p12 = write("PKCS12", &truststore);
    let error = pkcs12::read(&p12, &wrong).unwrap_err().to_string();
    assert!(error.contains("wrong password"), "{error}");
    let error = pkcs12::read(&p12[..p12.len() / 2], &password())
        .unwrap_err()
        .to_string();
    assert!(error.contains("malformed"), "{error}");
    let error = jks::read(&write("JKS", &truststore), &wrong)
        .unwrap_err()
        .to_string();
    assert!(error.contains("wrong password"), "{error}");
}

#[test]
fn keytool_reads_the_pem_chain() {
    let folder = tempfile::tempdir().unwrap();
    let ours = keystore(&authority(KeyAlgorithm::EcdsaP256), KeyAlgorithm::EcdsaP256);
    let text = pem::encode_certificates(ours.keys[0].chain.iter().map(Vec::as_slice));
    std::fs::write(folder.path().join("chain.pem"), text).unwrap();
    let printed = keytool(folder.path(), &["-printcert", "-file", "chain.pem"]);
    assert!(printed.contains("DNSName: localhost"), "{printed}");
    assert!(
        printed.contains("serverAuth") && printed.contains("clientAuth"),
        "{printed}"
    );
}
