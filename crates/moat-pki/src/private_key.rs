//! Private keys, always in PKCS#8 (RFC 5208): the one form that Java, OpenSSL and rustls all read.

use aws_lc_rs::digest;
use moat_types::{SecretBytes, SecretString};
use rcgen::{PublicKeyData, RsaKeySize};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroize;

use crate::{Error, pem};

/// The kind of a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyAlgorithm {
    /// ECDSA on P-256: small and fast, and understood by every client since Java 7.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384, where a rule asks for 192 bits of strength.
    EcdsaP384,
    /// RSA with 2,048 bits, for clients that know nothing else.
    Rsa2048,
    /// RSA with 3,072 bits (128 bits of strength, as P-256).
    Rsa3072,
    /// RSA with 4,096 bits. A key takes seconds to generate.
    Rsa4096,
}

impl KeyAlgorithm {
    /// Every kind with the name that command lines and configuration use.
    pub const ALL: [(&'static str, Self); 5] = [
        ("ecdsa-p256", Self::EcdsaP256),
        ("ecdsa-p384", Self::EcdsaP384),
        ("rsa-2048", Self::Rsa2048),
        ("rsa-3072", Self::Rsa3072),
        ("rsa-4096", Self::Rsa4096),
    ];

    /// Reads a name of [`Self::ALL`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, kind)| *kind)
    }
}

/// A private key that can sign. It has no `Debug` form that shows it and is never cloned.
pub struct PrivateKey(rcgen::KeyPair);

impl PrivateKey {
    /// Draws a new key from the operating system's random generator.
    ///
    /// # Errors
    /// [`Error::Generate`] if the library refuses; it does not in practice.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, Error> {
        let rsa = |size| rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        let made = match algorithm {
            KeyAlgorithm::EcdsaP256 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyAlgorithm::EcdsaP384 => rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyAlgorithm::Rsa2048 => rsa(RsaKeySize::_2048),
            KeyAlgorithm::Rsa3072 => rsa(RsaKeySize::_3072),
            KeyAlgorithm::Rsa4096 => rsa(RsaKeySize::_4096),
        };
        made.map(Self).map_err(|source| Error::Generate { source })
    }

    /// Reads a PKCS#8 key.
    ///
    /// # Errors
    /// [`Error::PrivateKey`] if it is damaged, encrypted, or of an unsupported kind.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Error> {
        rcgen::KeyPair::try_from(der)
            .map(Self)
            .map_err(|_| Error::PrivateKey)
    }

    /// Reads the first `PRIVATE KEY` section of a PEM text.
    ///
    /// # Errors
    /// [`Error::PrivateKey`] if there is none, or it is damaged or of an unsupported kind.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let der =
            PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| Error::PrivateKey)?;
        Self::from_pkcs8(der.secret_pkcs8_der())
    }

    /// The key as PKCS#8 DER.
    pub fn to_pkcs8(&self) -> SecretBytes {
        SecretBytes::new(self.0.serialized_der().to_vec())
    }

    /// The key as one PEM section, `PRIVATE KEY`.
    pub fn to_pem(&self) -> SecretString {
        SecretString::new(pem::encode("PRIVATE KEY", self.0.serialized_der()))
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER): what a key manager knows a client by.
    pub fn public_key_sha256(&self) -> [u8; 32] {
        sha256(&self.public_key_der())
    }

    /// The public key, SubjectPublicKeyInfo in DER.
    pub fn public_key_der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(crate) const fn inner(&self) -> &rcgen::KeyPair {
        &self.0
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        // The parsed key is zeroized by aws-lc; this is the serialized copy beside it.
        self.0.zeroize();
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("REDACTED")
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_survives_both_encodings() {
        for kind in [
            KeyAlgorithm::EcdsaP256,
            KeyAlgorithm::EcdsaP384,
            KeyAlgorithm::Rsa2048,
        ] {
            let made = PrivateKey::generate(kind).unwrap();
            let from_der = PrivateKey::from_pkcs8(made.to_pkcs8().expose()).unwrap();
            let from_pem = PrivateKey::from_pem(made.to_pem().expose()).unwrap();
            assert_eq!(made.public_key_sha256(), from_der.public_key_sha256());
            assert_eq!(made.public_key_sha256(), from_pem.public_key_sha256());
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ] {
            assert!(matches!(PrivateKey::from_pem(bad), Err(Error::PrivateKey)));
        }
    }

    #[test]
    fn a_key_does_not_print_itself() {
        let made = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        assert_eq!(format!("{made:?}"), "REDACTED");
    }
}
