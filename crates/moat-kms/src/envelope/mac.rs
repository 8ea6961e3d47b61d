//! Message authentication codes: HMAC-SHA-256.
//!
//! Under the key that was imported for it; else under the material itself if the key is for
//! nothing else; else under a key derived from the material, so that nothing a cipher was used
//! for says anything about a code, or the other way round.

use aws_lc_rs::hmac;

use crate::rows::{Algorithm, VersionRow};

/// The code of a message: 32 bytes.
pub(crate) fn mac(version: &VersionRow, message: &[u8]) -> Vec<u8> {
    hmac::sign(&mac_key(version), message).as_ref().to_vec()
}

/// Whether `code` is that of `message`; in constant time.
pub(crate) fn verify_mac(version: &VersionRow, message: &[u8], code: &[u8]) -> bool {
    hmac::verify(&mac_key(version), message, code).is_ok()
}

fn mac_key(version: &VersionRow) -> hmac::Key {
    let material = match (&version.mac_material, version.algorithm) {
        (Some(imported), _) => imported.expose(),
        (None, Algorithm::HmacSha256) => version.material.expose(),
        (None, Algorithm::Aes256 | Algorithm::ChaCha20) => {
            let derived = hmac::sign(&version.material.hmac(), b"moat kms mac key v1");
            return hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        }
    };
    hmac::Key::new(hmac::HMAC_SHA256, material)
}

#[cfg(test)]
mod tests {
    use moat_types::{KeyVersion, SecretBytes};

    use super::super::tests::key;
    use super::*;
    use crate::rows::Material;

    #[test]
    fn codes_depend_on_key_algorithm_and_message() {
        let plain = key(0x0b, KeyVersion::FIRST, Algorithm::HmacSha256);
        let code = mac(&plain, b"Hi There");
        assert_eq!(code.len(), 32);
        assert!(verify_mac(&plain, b"Hi There", &code));
        assert!(!verify_mac(&plain, b"Hi there", &code));
        assert!(!verify_mac(&plain, b"Hi There", &code[..31]));
        let derived = key(0x0b, KeyVersion::FIRST, Algorithm::Aes256);
        assert_ne!(mac(&derived, b"Hi There"), code);
        let imported = VersionRow {
            mac_material: Some(SecretBytes::new(vec![0x0b; 32])),
            ..derived
        };
        assert_eq!(mac(&imported, b"Hi There"), code);
    }

    /// RFC 4231, test case 2, whose key is shorter than ours ever are.
    #[test]
    fn it_is_hmac_sha_256() {
        let version = VersionRow {
            material: Material::new(SecretBytes::new(b"Jefe".to_vec())),
            ..key(0, KeyVersion::FIRST, Algorithm::HmacSha256)
        };
        assert_eq!(
            hex::encode(mac(&version, b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
