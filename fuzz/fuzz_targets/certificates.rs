//! Certificates, keys and names, in PEM, DER and text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_pki::{CertificateInfo, KeyAlgorithm, PrivateKey, SubjectName, pem};

fuzz_target!(|input: &[u8]| {
    let _ = CertificateInfo::parse(input);
    let _ = PrivateKey::from_pkcs8(input);
    if let Ok(certificates) = pem::decode_certificates(input) {
        for der in &certificates {
            let _ = CertificateInfo::parse(der);
        }
    }
    let _ = CertificateInfo::parse_pem(input);
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = PrivateKey::from_pem(text);
        let _ = KeyAlgorithm::parse(text);
        if let Ok(name) = SubjectName::parse(text) {
            let again = SubjectName::parse(&name.to_string());
            assert_eq!(again.expect("what was written reads back"), name);
        }
    }
});
