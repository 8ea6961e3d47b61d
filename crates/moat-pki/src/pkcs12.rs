//! PKCS#12 (RFC 7292), the keystore format of Java since version 9.
//!
//! Contents are sealed with PBES2 (PBKDF2-HMAC-SHA256, AES-256-CBC) and the file with HMAC-SHA256:
//! what Java itself writes. Trusted certificates carry the attribute 2.16.840.1.113894.746875.1.1
//! (trusted key usage); without it Java lists the file as empty and then fails with *the
//! trustAnchors parameter must be non-empty*.

use moat_types::{SecretBytes, SecretString};
use p12_keystore::{
    Certificate, KeyStore, KeyStoreEntry, Pkcs12ImportPolicy, PrivateKey, PrivateKeyChain,
};

use crate::private_key::sha256;
use crate::{Error, KeyEntry, Keystore, TrustedEntry};

const FORMAT: &str = "PKCS#12";

/// Rounds of key derivation for a file with private keys: Java's own default.
const ITERATIONS_KEYS: u32 = 10_000;
/// For a truststore, the least that RFC 8018 recommends: its contents are public, and every JVM
/// that reads it pays for each round when it starts.
const ITERATIONS_TRUST: u32 = 1_000;

/// Writes a keystore.
///
/// # Errors
/// [`Error::Keystore`] if an entry is not a certificate or a PKCS#8 key.
pub fn write(keystore: &Keystore, password: &SecretString) -> Result<Vec<u8>, Error> {
    let mut out = KeyStore::new();
    for entry in &keystore.trusted {
        let certificate = certificate(&entry.certificate)?;
        out.add_entry(&entry.alias, KeyStoreEntry::Certificate(certificate));
    }
    for entry in &keystore.keys {
        let key = PrivateKey::from_der(entry.private_key.expose()).map_err(malformed)?;
        let chain = entry
            .chain
            .iter()
            .map(|der| certificate(der))
            .collect::<Result<Vec<_>, _>>()?;
        // The id that ties a key to its certificate inside the file; any unique bytes do.
        let id = sha256(chain.first().map_or(&[], Certificate::as_der))[..20].to_vec();
        let chain = PrivateKeyChain::new(id, key, chain);
        out.add_entry(&entry.alias, KeyStoreEntry::PrivateKeyChain(chain));
    }
    let iterations = if keystore.keys.is_empty() {
        ITERATIONS_TRUST
    } else {
        ITERATIONS_KEYS
    };
    out.writer(password.expose())
        .encryption_iterations(iterations)
        .mac_iterations(iterations)
        .write()
        .map_err(malformed)
}

/// Reads a keystore: ours, Java's or OpenSSL's.
///
/// # Errors
/// [`Error::WrongPassword`] if the password does not open it, [`Error::Keystore`] if it is malformed.
pub fn read(bytes: &[u8], password: &SecretString) -> Result<Keystore, Error> {
    use p12_keystore::error::Error as P12;
    let found = KeyStore::from_pkcs12(bytes, password.expose(), Pkcs12ImportPolicy::Strict)
        .map_err(|e| match e {
            P12::MacError(_) => Error::WrongPassword { format: FORMAT },
            other => malformed(other),
        })?;
    let mut keystore = Keystore::default();
    for (alias, entry) in found.entries() {
        match entry {
            KeyStoreEntry::Certificate(certificate) => keystore.trusted.push(TrustedEntry {
                alias: alias.clone(),
                certificate: certificate.as_der().to_vec(),
            }),
            KeyStoreEntry::PrivateKeyChain(chain) => keystore.keys.push(KeyEntry {
                alias: alias.clone(),
                private_key: SecretBytes::new(chain.key().as_der().to_vec()),
                chain: chain.certs().iter().map(|c| c.as_der().to_vec()).collect(),
            }),
            // Secret keys have no use here and are passed over, as Java's truststores do.
            KeyStoreEntry::Secret(_) => {}
        }
    }
    Ok(keystore)
}

fn certificate(der: &[u8]) -> Result<Certificate, Error> {
    Certificate::from_der(der).map_err(malformed)
}

fn malformed(reason: impl std::fmt::Display) -> Error {
    Error::Keystore {
        format: FORMAT,
        reason: reason.to_string(),
    }
}
