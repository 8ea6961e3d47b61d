//! What a Java keystore holds, whatever its file format.

use moat_types::SecretBytes;

/// A certificate that its reader shall trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedEntry {
    /// The name under which tools list it. Java compares it without case.
    pub alias: String,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
}

/// A private key with its certificate chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    /// The name under which tools list it. Java compares it without case.
    pub alias: String,
    /// The key, PKCS#8 DER. Encrypted under the keystore's password when written.
    pub private_key: SecretBytes,
    /// The leaf first, then its issuers, each DER.
    pub chain: Vec<Vec<u8>>,
}

/// A keystore's entries. With [`Keystore::trusted`] alone it is what Java calls a truststore.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keystore {
    /// Certificates to trust.
    pub trusted: Vec<TrustedEntry>,
    /// Keys to present.
    pub keys: Vec<KeyEntry>,
}

impl Keystore {
    /// A truststore of one CA.
    pub fn truststore(alias: &str, certificate: &[u8]) -> Self {
        Self {
            trusted: vec![TrustedEntry {
                alias: alias.to_owned(),
                certificate: certificate.to_vec(),
            }],
            keys: Vec::new(),
        }
    }

    /// A keystore of one key.
    pub fn key(alias: &str, private_key: SecretBytes, chain: Vec<Vec<u8>>) -> Self {
        Self {
            trusted: Vec::new(),
            keys: vec![KeyEntry {
                alias: alias.to_owned(),
                private_key,
                chain,
            }],
        }
    }
}
