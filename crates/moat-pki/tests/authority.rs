//! What a CA signs is what was asked for, and verifies with the library that our servers and
//! clients use.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::time::Duration;

use moat_pki::{
    CA_VALIDITY, CaRequest, CertificateAuthority, CertificateInfo, Error, Issued, KeyAlgorithm,
    LEAF_VALIDITY, LeafRequest, NameScope, PrivateKey, SubjectName, Usage, needs_renewal,
};
use moat_types::{Clock, SystemRandom, UnixMillis};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// 2026-01-01T00:00:00Z.
const NOW: UnixMillis = UnixMillis(1_767_225_600_000);

struct At(UnixMillis);

impl Clock for At {
    fn now(&self) -> UnixMillis {
        self.0
    }
}

fn ca(permitted: &[&str]) -> CertificateAuthority {
    let request = CaRequest {
        common_name: "Moat test CA".into(),
        algorithm: KeyAlgorithm::EcdsaP256,
        validity: CA_VALIDITY,
        permitted: permitted
            .iter()
            .map(|s| NameScope::parse(s).unwrap())
            .collect(),
    };
    CertificateAuthority::create(&request, &At(NOW), &SystemRandom).unwrap()
}

fn issue(ca: &CertificateAuthority, usage: Usage, names: &[&str], at: UnixMillis) -> Issued {
    let request = LeafRequest {
        common_name: "store".into(),
        usage,
        names: names
            .iter()
            .map(|n| SubjectName::parse(n).unwrap())
            .collect(),
        validity: LEAF_VALIDITY,
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    ca.issue(&request, &key, &At(at), &SystemRandom).unwrap()
}

/// Path and name, as rustls checks them.
fn verify(
    issued: &Issued,
    host: &str,
    at: UnixMillis,
    usage: KeyUsage,
) -> Result<(), webpki::Error> {
    let (leaf, ca) = (
        CertificateDer::from(issued.certificate.as_slice()),
        CertificateDer::from(issued.issuer.as_slice()),
    );
    let anchor = anchor_from_trusted_cert(&ca)?;
    let leaf = EndEntityCert::try_from(&leaf)?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(at.seconds().unsigned_abs()));
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &[anchor],
        &[],
        time,
        usage,
        None,
        None,
    )?;
    leaf.verify_is_valid_for_subject_name(&ServerName::try_from(host).unwrap())
}

fn later(days: i64) -> UnixMillis {
    UnixMillis(NOW.0 + days * 86_400_000)
}

#[test]
fn a_leaf_verifies_for_its_names_alone() {
    let issued = issue(
        &ca(&[]),
        Usage::Server,
        &["localhost", "127.0.0.1", "::1"],
        NOW,
    );
    for host in ["localhost", "127.0.0.1", "::1"] {
        verify(&issued, host, NOW, KeyUsage::server_auth()).unwrap();
    }
    assert!(verify(&issued, "elsewhere", NOW, KeyUsage::server_auth()).is_err());
    assert!(verify(&issued, "127.0.0.2", NOW, KeyUsage::server_auth()).is_err());
}

#[test]
fn a_leaf_is_good_for_its_usage_alone() {
    let ca = ca(&[]);
    let check = |usage, asked| verify(&issue(&ca, usage, &["h"], NOW), "h", NOW, asked).is_ok();
    assert!(check(Usage::Server, KeyUsage::server_auth()));
    assert!(!check(Usage::Server, KeyUsage::client_auth()));
    assert!(check(Usage::Client, KeyUsage::client_auth()));
    assert!(!check(Usage::Client, KeyUsage::server_auth()));
    assert!(check(Usage::Both, KeyUsage::server_auth()));
    assert!(check(Usage::Both, KeyUsage::client_auth()));
}

#[test]
fn validity_begins_an_hour_ago_and_ends_with_the_ca() {
    let ca = ca(&[]);
    let early =
        CertificateInfo::parse(&issue(&ca, Usage::Server, &["h"], NOW).certificate).unwrap();
    assert_eq!(early.not_before.0, NOW.0 - 3_600_000);
    assert_eq!(early.not_after, later(397));
    let end = ca.info().not_after;
    let late = issue(&ca, Usage::Server, &["h"], UnixMillis(end.0 - 86_400_000));
    assert_eq!(
        CertificateInfo::parse(&late.certificate).unwrap().not_after,
        end
    );
}

#[test]
fn an_expired_leaf_fails_and_renewal_is_due_before() {
    let issued = issue(&ca(&[]), Usage::Server, &["h"], NOW);
    let info = CertificateInfo::parse(&issued.certificate).unwrap();
    assert!(!needs_renewal(&info, later(200)));
    assert!(needs_renewal(&info, later(300)));
    verify(&issued, "h", later(396), KeyUsage::server_auth()).unwrap();
    assert!(verify(&issued, "h", later(398), KeyUsage::server_auth()).is_err());
}

#[test]
fn inspection_shows_what_was_asked_for() {
    let ca = ca(&[]);
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP384).unwrap();
    let request = LeafRequest {
        common_name: "proxy".into(),
        usage: Usage::Client,
        names: vec![SubjectName::parse("*.lake.example").unwrap()],
        validity: LEAF_VALIDITY,
    };
    let issued = ca.issue(&request, &key, &At(NOW), &SystemRandom).unwrap();
    let chain = CertificateInfo::parse_pem(issued.chain_pem().as_bytes()).unwrap();
    assert_eq!(chain.len(), 2);
    let [leaf, issuer] = [&chain[0], &chain[1]];
    assert_eq!(leaf.subject, "CN=proxy");
    assert_eq!(leaf.issuer, "CN=Moat test CA");
    assert_eq!(leaf.names, request.names);
    assert_eq!(leaf.public_key, "ECDSA 384");
    assert_eq!(leaf.public_key_sha256, key.public_key_sha256());
    assert!(leaf.client_auth && !leaf.server_auth && !leaf.is_ca);
    assert!(issuer.is_ca);
    assert_eq!(issuer, ca.info());
    assert!(leaf.covers(&SubjectName::parse("b.lake.example").unwrap()));
}

#[test]
fn serial_numbers_differ_and_are_positive() {
    let ca = ca(&[]);
    let serial = || {
        let issued = issue(&ca, Usage::Server, &["h"], NOW);
        CertificateInfo::parse(&issued.certificate).unwrap().serial
    };
    let (a, b) = (serial(), serial());
    assert_ne!(a, b);
    assert_eq!(a.len(), 32);
    assert!(u8::from_str_radix(&a[..2], 16).unwrap() < 0x80);
}

#[test]
fn name_constraints_bind_the_ca() {
    let ca = ca(&["lake.example", "10.0.0.0/8"]);
    let check = |name: &str| {
        verify(
            &issue(&ca, Usage::Server, &[name], NOW),
            name,
            NOW,
            KeyUsage::server_auth(),
        )
        .is_ok()
    };
    assert!(check("store.lake.example"));
    assert!(check("10.1.2.3"));
    assert!(!check("store.other.example"));
    assert!(!check("192.168.0.1"));
    for bad in ["10.0.0.0/33", "*.x", "10.0.0.1", "a b"] {
        assert!(NameScope::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_ca_loads_from_pem_and_signs_on() {
    let first = ca(&[]);
    let again =
        CertificateAuthority::from_pem(&first.certificate_pem(), &first.key().to_pem()).unwrap();
    assert_eq!(again.info(), first.info());
    let issued = issue(&again, Usage::Server, &["h"], NOW);
    verify(&issued, "h", NOW, KeyUsage::server_auth()).unwrap();
}

#[test]
fn a_foreign_key_and_a_leaf_are_no_ca() {
    let (a, b) = (ca(&[]), ca(&[]));
    assert!(matches!(
        CertificateAuthority::from_pem(&a.certificate_pem(), &b.key().to_pem()),
        Err(Error::KeyMismatch { .. })
    ));
    let leaf = issue(&a, Usage::Server, &["h"], NOW);
    assert!(matches!(
        CertificateAuthority::from_pem(&leaf.chain_pem(), &a.key().to_pem()),
        Err(Error::NotACa { .. })
    ));
}

#[test]
fn an_rsa_ca_signs_leaves_of_either_kind() {
    let request = CaRequest {
        common_name: "RSA CA".into(),
        algorithm: KeyAlgorithm::Rsa2048,
        validity: CA_VALIDITY,
        permitted: Vec::new(),
    };
    let ca = CertificateAuthority::create(&request, &At(NOW), &SystemRandom).unwrap();
    assert_eq!(ca.info().public_key, "RSA 2048");
    verify(
        &issue(&ca, Usage::Server, &["h"], NOW),
        "h",
        NOW,
        KeyUsage::server_auth(),
    )
    .unwrap();
}
