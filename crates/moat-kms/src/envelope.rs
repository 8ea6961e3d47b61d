//! What a KMS key encrypts: data keys, small secrets, epoch keys.
//!
//! ```text
//! offset  0  format, 1
//!         1  key version, u32 big-endian, at least 1
//!         5  salt, 16 random bytes
//!        21  nonce, 12 random bytes
//!        33  ciphertext, as long as the plaintext
//!         -  tag, 16 bytes
//! ```
//!
//! The cipher is AES-256-GCM under HMAC-SHA-256(key material, label || salt): each operation has
//! a key of its own, so the number of operations under one key version has no practical limit (a
//! repeated salt alone, expected after 2^64 operations, would still meet a random nonce).
//!
//! The associated data holds, each behind its length: a label, the purpose, the enclave, the key
//! name, the version and the context. A ciphertext opens only where and for what it was made; in
//! particular one for an epoch is nothing to `decrypt`, so the right to decrypt data keys does
//! not give the right to lease epochs. The format byte keeps it apart from JSON, which clients
//! look for.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use moat_types::{BucketName, EnclaveName, EpochId, KeyName, KeyVersion, Random, SecretBytes};
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + 4 + SALT_BYTES + NONCE_LEN;
/// How much longer a ciphertext is than its plaintext.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// What a ciphertext is for and where it belongs. Bound to it as associated data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding<'a> {
    pub(crate) enclave: &'a EnclaveName,
    pub(crate) key: &'a KeyName,
    pub(crate) purpose: Purpose<'a>,
}

/// What is encrypted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose<'a> {
    /// A data key or small secret, with the caller's context.
    Data { context: &'a [u8] },
    /// An epoch key of a bucket.
    Epoch {
        bucket: &'a BucketName,
        epoch: EpochId,
    },
}

impl Purpose<'_> {
    /// The context as it stands in the associated data, and hashed in the audit.
    pub(crate) fn context(&self) -> Vec<u8> {
        match self {
            Self::Data { context } => context.to_vec(),
            Self::Epoch { bucket, epoch } => {
                let mut out = Vec::new();
                push(&mut out, bucket.as_str().as_bytes());
                push(&mut out, epoch.as_bytes());
                out
            }
        }
    }

    const fn label(&self) -> &'static [u8] {
        match self {
            Self::Data { .. } => b"data",
            Self::Epoch { .. } => b"epoch",
        }
    }
}

impl Binding<'_> {
    fn associated_data(&self, version: KeyVersion) -> Vec<u8> {
        let mut out = Vec::with_capacity(192);
        push(&mut out, b"moat kms ciphertext v1");
        push(&mut out, self.purpose.label());
        push(&mut out, self.enclave.as_str().as_bytes());
        push(&mut out, self.key.as_str().as_bytes());
        push(&mut out, &version.number().to_be_bytes());
        push(&mut out, &self.purpose.context());
        out
    }
}

fn push(out: &mut Vec<u8>, field: &[u8]) {
    let len = u32::try_from(field.len()).expect("bodies are limited far below 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(field);
}

/// The key version that a ciphertext names; `None` if it is not of this format. Says nothing
/// about whether the ciphertext opens: the version is authenticated when it is opened.
pub fn ciphertext_version(ciphertext: &[u8]) -> Option<KeyVersion> {
    if ciphertext.len() < OVERHEAD_BYTES || ciphertext[0] != FORMAT {
        return None;
    }
    let number = ciphertext[1..].first_chunk::<4>()?;
    KeyVersion::new(u32::from_be_bytes(*number))
}

/// Encrypts under one version of a key.
pub(crate) fn encrypt(
    material: &SecretBytes,
    version: KeyVersion,
    binding: &Binding<'_>,
    plaintext: &[u8],
    random: &dyn Random,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
    out.push(FORMAT);
    out.extend_from_slice(&version.number().to_be_bytes());
    let mut drawn = [0; SALT_BYTES + NONCE_LEN];
    random.fill(&mut drawn);
    out.extend_from_slice(&drawn);
    let (salt, nonce) = drawn.split_at(SALT_BYTES);
    let nonce = Nonce::try_assume_unique_for_key(nonce).expect("12 bytes were drawn");
    // A ciphertext's place holds the plaintext until it is encrypted in place.
    out.extend_from_slice(plaintext);
    let tag = operation_key(material, salt)
        .seal_in_place_separate_tag(
            nonce,
            Aad::from(binding.associated_data(version)),
            &mut out[HEADER_BYTES..],
        )
        .expect("plaintexts are far below the limit of the cipher");
    out.extend_from_slice(tag.as_ref());
    out
}

/// Opens what `encrypt` gave under the same version and binding; `None` for anything else.
pub(crate) fn decrypt(
    material: &SecretBytes,
    version: KeyVersion,
    binding: &Binding<'_>,
    ciphertext: &[u8],
) -> Option<SecretBytes> {
    if ciphertext_version(ciphertext)? != version {
        return None;
    }
    let (header, body) = ciphertext.split_at(HEADER_BYTES);
    let (salt, nonce) = header[5..].split_at(SALT_BYTES);
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut buffer = Zeroizing::new(body.to_vec());
    let plaintext = operation_key(material, salt)
        .open_in_place(
            nonce,
            Aad::from(binding.associated_data(version)),
            &mut buffer,
        )
        .ok()?;
    Some(SecretBytes::new(plaintext.to_vec()))
}

fn operation_key(material: &SecretBytes, salt: &[u8]) -> LessSafeKey {
    let key = hmac::Key::new(hmac::HMAC_SHA256, material.expose());
    let mut derivation = hmac::Context::with_key(&key);
    derivation.update(b"moat kms operation key v1");
    derivation.update(salt);
    let derived = Zeroizing::new(
        <[u8; 32]>::try_from(derivation.sign().as_ref()).expect("SHA-256 gives 32 bytes"),
    );
    LessSafeKey::new(
        UnboundKey::new(&AES_256_GCM, derived.as_slice()).expect("32 bytes are an AES-256 key"),
    )
}

#[cfg(test)]
mod tests {
    use moat_types::SystemRandom;

    use super::*;

    const V1: KeyVersion = KeyVersion::FIRST;

    fn check_opens(
        material: u8,
        version: KeyVersion,
        binding: &Binding<'_>,
        sealed: &[u8],
    ) -> bool {
        decrypt(
            &SecretBytes::new(vec![material; 32]),
            version,
            binding,
            sealed,
        )
        .is_some()
    }

    #[test]
    fn a_wrapped_epoch_opens_only_unchanged_under_its_own_names() {
        let (enclave, other_enclave) = (
            EnclaveName::parse("e").unwrap(),
            EnclaveName::parse("f").unwrap(),
        );
        let (key, other_key) = (KeyName::parse("k").unwrap(), KeyName::parse("l").unwrap());
        let (bucket, other_bucket) = (
            BucketName::parse("abc").unwrap(),
            BucketName::parse("abd").unwrap(),
        );
        let epoch = EpochId::from_bytes([1; 16]);
        let purpose = Purpose::Epoch {
            bucket: &bucket,
            epoch,
        };
        let home = Binding {
            enclave: &enclave,
            key: &key,
            purpose,
        };
        let material = SecretBytes::new(vec![9; 32]);
        let sealed = encrypt(&material, V1, &home, &[7; 32], &SystemRandom);
        assert_eq!(sealed.len(), 32 + OVERHEAD_BYTES);
        assert_eq!(
            decrypt(&material, V1, &home, &sealed).unwrap().expose(),
            [7; 32]
        );

        let as_data = home.purpose.context();
        for other in [
            Binding {
                enclave: &other_enclave,
                ..home
            },
            Binding {
                key: &other_key,
                ..home
            },
            Binding {
                purpose: Purpose::Epoch {
                    bucket: &other_bucket,
                    epoch,
                },
                ..home
            },
            Binding {
                purpose: Purpose::Epoch {
                    bucket: &bucket,
                    epoch: EpochId::from_bytes([2; 16]),
                },
                ..home
            },
            Binding {
                purpose: Purpose::Data { context: &as_data },
                ..home
            },
        ] {
            assert!(!check_opens(9, V1, &other, &sealed), "{other:?}");
        }
        assert!(!check_opens(8, V1, &home, &sealed));
        assert!(!check_opens(9, V1.next(), &home, &sealed));
        for index in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[index] ^= 1 << bit;
                let version = ciphertext_version(&changed).unwrap_or(V1);
                assert!(!check_opens(9, version, &home, &changed), "{index} {bit}");
            }
        }
        for len in 0..sealed.len() {
            assert!(!check_opens(9, V1, &home, &sealed[..len]), "{len}");
        }
    }

    #[test]
    fn two_encryptions_of_the_same_differ() {
        let enclave = EnclaveName::parse("e").unwrap();
        let key = KeyName::parse("k").unwrap();
        let home = Binding {
            enclave: &enclave,
            key: &key,
            purpose: Purpose::Data { context: b"" },
        };
        let material = SecretBytes::new(vec![9; 32]);
        let seal = || encrypt(&material, V1, &home, b"", &SystemRandom);
        assert_ne!(seal(), seal());
        assert_eq!(ciphertext_version(&seal()), Some(V1));
        assert_eq!(ciphertext_version(b"{}"), None);
    }
}
